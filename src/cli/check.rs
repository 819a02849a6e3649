//! What `flowctl check` prints: every problem of a file, or what the file amounts to. Only text is made here.

use super::exit::ExitCode;
use super::{Options, configuration, output};
use crate::config::{Config, Levels, Problem, Threshold, printable};
use crate::units::{BitRate, PacketRate};

/// Checks the configuration and says what it found.
pub fn run(options: &Options) -> ExitCode {
    match configuration::demand(options) {
        Ok(config) => output::print(&render_summary(&config)),
        Err(code) => code,
    }
}

/// One line for each problem, in the form that editors jump to (`file:line:column: `), and a last one that counts them.
pub fn render_problems(file: &str, problems: &[Problem]) -> String {
    let file = printable(file);
    let mut text: String = (problems.iter())
        .map(|problem| format!("{file}:{problem}\n"))
        .collect();
    text += &format!("{}\n", count(problems.len(), "problem"));
    text
}

/// What a configuration without problems amounts to, its levels as rates.
pub fn render_summary(config: &Config) -> String {
    let mut text = format!(
        "ok: {}, {}, {}, {}; every {:?} in table inet {}\n",
        count(config.interfaces.len(), "interface"),
        count(config.subnets.len(), "subnet"),
        count(config.counters.len(), "counter"),
        count(config.thresholds.len(), "threshold"),
        config.tick,
        config.table.name,
    );
    for threshold in &config.thresholds {
        text += &summary_of(threshold);
    }
    text
}

fn summary_of(threshold: &Threshold) -> String {
    let (raise, clear) = match threshold.levels {
        Levels::Bits { raise, clear } => (bits(raise), bits(clear)),
        Levels::Packets { raise, clear } => (packets(raise), packets(clear)),
    };
    format!(
        "{}: {} above {raise} for {:?}, over at {clear} for {:?}, {}\n",
        threshold.name,
        threshold.counter,
        threshold.hold,
        threshold.release,
        if threshold.drilldown {
            "with drilldown"
        } else {
            "no drilldown"
        },
    )
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

fn bits(rate: BitRate) -> String {
    scaled(rate.0, ["bit/s", "kbit/s", "Mbit/s", "Gbit/s"])
}

fn packets(rate: PacketRate) -> String {
    scaled(rate.0, ["pps", "kpps", "Mpps", "Gpps"])
}

/// In the largest unit of which there is at least one, to a thousandth.
fn scaled(number: f64, units: [&str; 4]) -> String {
    let mut scaled = number;
    let mut unit = units[0];
    for larger in &units[1..] {
        if scaled < 1000.0 {
            break;
        }
        scaled /= 1000.0;
        unit = larger;
    }
    format!("{} {unit}", (scaled * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse};

    #[test]
    fn a_summary_shows_resolved_levels() {
        let text = r#"
            [interfaces.wan]
            device = "ppp0"
            capacity = { out = "50Mbit/s" }
            [thresholds.full]
            counter = "wan_out"
            raise = "80%"
            [thresholds.flood]
            counter = "wan_in"
            raise = "20.5kpps"
            drilldown = false
        "#;
        let summary = render_summary(&parse(text, Format::Toml).unwrap());
        assert_eq!(
            summary,
            "ok: 1 interface, 0 subnets, 2 counters, 2 thresholds; every 1s in table inet flowctl\n\
             full: wan_out above 40 Mbit/s for 3s, over at 32 Mbit/s for 10s, with drilldown\n\
             flood: wan_in above 20.5 kpps for 3s, over at 16.4 kpps for 10s, no drilldown\n"
        );
    }

    #[test]
    fn problems_are_lines_that_an_editor_jumps_to() {
        let problems = parse("tick = 1\n[tabel]\n", Format::Toml).unwrap_err();
        assert_eq!(
            render_problems("a\u{1b}.toml", &problems),
            "a\\u{1b}.toml:1:8: tick: 1 has no unit; write \"1s\", \"1ms\" or \"1m\"\n\
             a\\u{1b}.toml:2:2: tabel: unknown key; did you mean \"table\"?\n\
             2 problems\n"
        );
    }
}
