//! `flowctl check`: every problem of the configuration, or what it amounts to.

use super::exit::ExitCode;
use super::format::counted;
use super::{Options, configuration, output};
use crate::config::{Config, Levels, Threshold};
use crate::plan::describe;
use crate::units::{BitRate, PacketRate};

/// Checks the configuration and says what it found.
pub fn run(options: &Options) -> ExitCode {
    match configuration::demand(options) {
        Ok(config) => output::print(&render_summary(&config)),
        Err(code) => code,
    }
}

/// What a configuration without problems amounts to, its levels as rates.
pub fn render_summary(config: &Config) -> String {
    let mut text = format!(
        "ok: {}, {}, {}, {}; every {:?} in table inet {}{}\n",
        counted(config.interfaces.len() as u64, "interface"),
        counted(config.subnets.len() as u64, "subnet"),
        counted(config.counters.len() as u64, "counter"),
        counted(config.thresholds.len() as u64, "threshold"),
        config.tick,
        config.table.name,
        if config.table.is_static {
            ", which is loaded with the system's ruleset and only read"
        } else {
            ""
        },
    );
    for threshold in &config.thresholds {
        text += &summary_of(threshold);
    }
    for subnet in config.followed() {
        let shown = describe::addresses_in_words(&subnet.addresses);
        text += &format!("{}: {shown}\n", subnet.name);
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
    fn a_summary_says_that_rules_are_static() {
        let config = parse("table.static = true", Format::Toml).unwrap();
        assert_eq!(
            render_summary(&config),
            "ok: 0 interfaces, 0 subnets, 0 counters, 0 thresholds; every 1s in table inet flowctl, which is loaded with \
             the system's ruleset and only read\n"
        );
    }

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
}
