//! Numbers, times and foreign text as people read them. Rates are in bits per second with decimal prefixes, volumes
//! in bytes with binary ones, three digits each, unless other units are asked for.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// `--units`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Units {
    /// Rates as with `Si`, volumes as with `Iec`; what is used when nothing is asked for.
    #[default]
    #[value(skip)]
    Usual,
    /// Powers of 1000: kbit/s, MB
    Si,
    /// Powers of 1024: Kibit/s, MiB
    Iec,
    /// Whole numbers without a prefix
    Raw,
}

const SI: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
const IEC: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// `47.2 Mbit/s`.
pub fn bit_rate(bits_per_second: f64, units: Units) -> String {
    match units {
        Units::Usual | Units::Si => scaled(bits_per_second, 1000.0, &SI, "bit/s"),
        Units::Iec => scaled(bits_per_second, 1024.0, &IEC, "bit/s"),
        Units::Raw => format!("{bits_per_second:.0} bit/s"),
    }
}

/// `9.41 kpps`; packets have decimal prefixes only.
pub fn packet_rate(packets_per_second: f64, units: Units) -> String {
    match units {
        Units::Usual | Units::Si | Units::Iec => scaled(packets_per_second, 1000.0, &SI, "pps"),
        Units::Raw => format!("{packets_per_second:.0} pps"),
    }
}

/// `1.05 GiB`.
pub fn volume(bytes: u64, units: Units) -> String {
    match units {
        Units::Usual | Units::Iec => scaled(bytes as f64, 1024.0, &IEC, "B"),
        Units::Si => scaled(bytes as f64, 1000.0, &SI, "B"),
        Units::Raw => format!("{bytes} B"),
    }
}

fn scaled(value: f64, base: f64, prefixes: &[&str], unit: &str) -> String {
    let mut value = value;
    let mut step = 0;
    // What would round to the next prefix is written with it: 1 Mbit/s, not 1000 kbit/s.
    while value.abs() >= base - 0.5 && step + 1 < prefixes.len() {
        value /= base;
        step += 1;
    }
    format!("{} {}{unit}", three_digits(value), prefixes[step])
}

fn three_digits(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if decimals == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `0.35s`, `12s`, `3m12s`, `3h12m`, `4d3h`.
pub fn duration(duration: Duration) -> String {
    let tenths = duration.as_secs_f64();
    if tenths < 9.995 {
        return format!("{}s", three_digits(tenths));
    }
    let seconds = tenths.round() as u64;
    let (large, small) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3_600 => ((seconds / 60, "m"), (seconds % 60, "s")),
        3_600..86_400 => ((seconds / 3_600, "h"), (seconds % 3_600 / 60, "m")),
        _ => ((seconds / 86_400, "d"), (seconds % 86_400 / 3_600, "h")),
    };
    match small.0 {
        0 => format!("{}{}", large.0, large.1),
        _ => format!("{}{}{}{}", large.0, large.1, small.0, small.1),
    }
}

/// Time from `earlier` to `later`; zero if that is negative, as after a step of the wall clock.
pub fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

/// `94 %` for 0.94; `0.2 %` where a whole number would hide it.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let rounded = percent.round();
    if percent > 0.0 && percent < 9.95 && (percent - rounded).abs() >= 0.05 {
        format!("{percent:.1} %")
    } else {
        format!("{rounded:.0} %")
    }
}

/// The time of day if it is the day of `now`, else the date with it.
pub fn time(time: Timestamp, now: Timestamp, timezone: &TimeZone) -> String {
    let local = time.to_zoned_datetime(timezone.clone());
    if local.date() == now.to_zoned_datetime(timezone.clone()).date() {
        local.strftime("%H:%M:%S").to_string()
    } else {
        date_and_time(time, timezone)
    }
}

/// `2026-11-23 05:20:00`.
pub fn date_and_time(time: Timestamp, timezone: &TimeZone) -> String {
    let local = time.to_zoned_datetime(timezone.clone());
    local.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Text that others chose (names of hosts and programs), made harmless: what could move the cursor, recolour the
/// terminal, turn the reading direction or hide is shown as its code.
pub fn foreign(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_harmful(character) {
            // Writing to a String does not fail.
            let _ = write!(harmless, "{}", character.escape_unicode());
        } else {
            harmless.push(character);
        }
    }
    Cow::Owned(harmless)
}

/// Controls; bidirectional marks, embeddings and isolates (UAX #9); invisible and line-breaking characters.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{00ad}'
                | '\u{061c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The last `width` values as bars of eight heights, the highest of them full.
pub fn sparkline(values: &[f32], width: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = &values[values.len().saturating_sub(width)..];
    let highest = shown.iter().copied().fold(0.0_f32, f32::max);
    shown
        .iter()
        .map(|value| {
            let share = if highest > 0.0 { value / highest } else { 0.0 };
            BARS[((share * 7.0).round() as usize).min(7)]
        })
        .collect()
}

/// A bar of `width` cells, filled to `share` in steps of an eighth.
pub fn bar(share: f64, width: usize) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}

/// `1 tick`, `2 ticks`.
pub fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_decimal_and_volumes_binary_with_three_digits() {
        let rate = |value| bit_rate(value, Units::Usual);
        assert_eq!(rate(0.0), "0 bit/s");
        assert_eq!(rate(984.4), "984 bit/s");
        assert_eq!(rate(999_700.0), "1 Mbit/s");
        assert_eq!(rate(47_200_000.0), "47.2 Mbit/s");
        assert_eq!(rate(50_000_000.0), "50 Mbit/s");
        assert_eq!(rate(9_996_000.0), "10 Mbit/s");
        assert_eq!(packet_rate(9_412.0, Units::Iec), "9.41 kpps");
        assert_eq!(volume(0, Units::Usual), "0 B");
        assert_eq!(volume(1023, Units::Usual), "1023 B");
        assert_eq!(volume(1 << 20, Units::Usual), "1 MiB");
        assert_eq!(volume(u64::MAX, Units::Usual), "16 EiB");
    }

    #[test]
    fn other_units_are_used_for_both() {
        assert_eq!(bit_rate(2_097_152.0, Units::Iec), "2 Mibit/s");
        assert_eq!(volume(2_000_000, Units::Si), "2 MB");
        assert_eq!(bit_rate(47_200_000.0, Units::Raw), "47200000 bit/s");
        assert_eq!(volume(u64::MAX, Units::Raw), "18446744073709551615 B");
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let text = |seconds: f64| duration(Duration::from_secs_f64(seconds));
        assert_eq!(text(0.0), "0s");
        assert_eq!(text(0.35), "0.35s");
        assert_eq!(text(59.7), "1m");
        assert_eq!(text(192.0), "3m12s");
        assert_eq!(text(11_520.0), "3h12m");
        assert_eq!(text(86_400.0 * 4.0 + 3_600.0 * 3.0), "4d3h");
    }

    #[test]
    fn small_percentages_keep_a_decimal() {
        assert_eq!(percent(0.94), "94 %");
        assert_eq!(percent(0.002), "0.2 %");
        assert_eq!(percent(0.0), "0 %");
        assert_eq!(percent(1.0), "100 %");
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(foreign("tv\x1b[31m"), "tv\\u{1b}[31m");
        assert_eq!(foreign("a\u{202e}b\nc\u{9b}"), "a\\u{202e}b\\u{a}c\\u{9b}");
        assert!(matches!(foreign("Küche-テレビ"), Cow::Borrowed(_)));
    }

    #[test]
    fn bars_show_the_share_and_the_course() {
        assert_eq!(sparkline(&[0.0, 1.0, 7.0, 3.5], 3), "▂█▅");
        assert_eq!(sparkline(&[0.0, 0.0], 8), "▁▁");
        assert_eq!(bar(0.94, 8), "███████▌");
        assert_eq!(bar(7.0, 2), "██");
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let now: Timestamp = "2026-11-23T05:23:12Z".parse().unwrap();
        let day_before: Timestamp = "2026-11-22T23:59:59Z".parse().unwrap();
        assert_eq!(time(now, now, &TimeZone::UTC), "05:23:12");
        assert_eq!(time(day_before, now, &TimeZone::UTC), "2026-11-22 23:59:59");
    }
}
