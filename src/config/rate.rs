//! Rates and levels: `"50Mbit/s"`, `"6MB/s"`, `"20kpps"`, `"80%"`. A unit that could mean bits or bytes is
//! refused with both spellings.

use super::problems::Wrong;
use super::tree::Node;
use super::value::{Quantity, bytes_factor, percent_within, quantity};
use crate::units::{BitRate, PacketRate};

/// No link carries more (1 Pbit/s, 1 Tpps); keeps sums of rates finite.
const BITS_MAX: f64 = 1e15;
const PACKETS_MAX: f64 = 1e12;

/// Where a threshold's raise or clear lies, as written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Level {
    Bits(BitRate),
    Packets(PacketRate),
    /// Of the counter's capacity.
    Percent(f64),
}

/// A bit rate, a packet rate or a percentage.
pub(super) fn level(node: &Node) -> Result<Level, Wrong> {
    const REMEDY: &str = "write a rate such as \"40Mbit/s\" or \"20kpps\", or a percentage of capacity such as \"80%\"";
    let quantity = quantity(node, REMEDY)?;
    let digits = &quantity.digits;
    match quantity.unit {
        "" => Err(Wrong::new(
            "has no unit",
            format!("write \"{digits}%\" or a rate such as \"{digits}Mbit/s\""),
        )),
        "%" if quantity.number == 0.0 => Err(Wrong::new(
            "is 0 %",
            "write \"0bit/s\" for any traffic at all",
        )),
        "%" => percent_within(quantity.number).map(Level::Percent),
        _ => rate(&quantity, REMEDY),
    }
}

/// A bit rate above zero.
pub(super) fn capacity(node: &Node) -> Result<BitRate, Wrong> {
    const REMEDY: &str = "write a bit rate such as \"500Mbit/s\"";
    let quantity = quantity(node, REMEDY)?;
    let digits = &quantity.digits;
    if quantity.unit.is_empty() {
        let remedy = format!("write a rate such as \"{digits}Mbit/s\"");
        return Err(Wrong::new("has no unit", remedy));
    }
    match rate(&quantity, REMEDY)? {
        Level::Bits(bits) if bits.0 > 0.0 => Ok(bits),
        Level::Bits(_) => Err(Wrong::new(
            "is zero",
            "write what the link carries, or leave capacity out",
        )),
        Level::Packets(_) | Level::Percent(_) => Err(Wrong::new(
            "is a packet rate, capacity is a bit rate",
            REMEDY,
        )),
    }
}

fn rate(quantity: &Quantity<'_>, remedy: &str) -> Result<Level, Wrong> {
    let Quantity {
        number,
        digits,
        unit,
    } = quantity;
    if let Some(packets) = packets_factor(unit) {
        return match number * packets {
            rate if rate <= PACKETS_MAX => Ok(Level::Packets(PacketRate(rate))),
            _ => Err(Wrong::new("is more than 1 Tpps", remedy)),
        };
    }
    let Some(per_second) = unit.strip_suffix("/s").or_else(|| unit.strip_suffix("/S")) else {
        return Err(no_rate(digits, unit, remedy));
    };
    let bits = bits_factor(per_second).or_else(|| bytes_factor(per_second).map(|f| f * 8.0));
    match bits {
        Some(factor) if number * factor <= BITS_MAX => Ok(Level::Bits(BitRate(number * factor))),
        Some(_) => Err(Wrong::new("is more than 1 Pbit/s", remedy)),
        None => Err(no_rate(digits, unit, remedy)),
    }
}

/// The case of a prefix does not matter where the unit is spelled out: nobody measures in millibits.
fn bits_factor(unit: &str) -> Option<f64> {
    match unit.to_ascii_lowercase().as_str() {
        "bit" => Some(1.0),
        "kbit" => Some(1e3),
        "mbit" => Some(1e6),
        "gbit" => Some(1e9),
        _ => None,
    }
}

fn packets_factor(unit: &str) -> Option<f64> {
    match unit.to_ascii_lowercase().as_str() {
        "pps" => Some(1.0),
        "kpps" => Some(1e3),
        "mpps" => Some(1e6),
        _ => None,
    }
}

/// What an unknown unit was probably meant to be.
fn no_rate(digits: &str, unit: &str, remedy: &str) -> Wrong {
    let lower = unit.to_ascii_lowercase();
    let stem = ["/s", "ps"]
        .iter()
        .find_map(|suffix| lower.strip_suffix(suffix))
        .unwrap_or(&lower);
    let (prefix, is_bit) = match stem.strip_suffix("bit") {
        Some(prefix) => (prefix, true),
        None => (stem.strip_suffix('b').unwrap_or("?"), false),
    };
    let prefix = match prefix {
        "" => "",
        "k" => "k",
        "m" => "M",
        "g" => "G",
        _ => return Wrong::new("has a unit that is no unit of rates", remedy),
    };
    if is_bit {
        let remedy = format!("write \"{digits}{prefix}bit/s\"");
        return Wrong::new("is not a rate", remedy);
    }
    Wrong::new(
        "could mean bits or bytes",
        format!(
            "write \"{digits}{prefix}bit/s\" for bits or \"{digits}{prefix}B/s\" for bytes, per second"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tree::Value;
    use super::super::value::tests::{node_of, text_of};
    use super::*;

    #[test]
    fn every_unit_has_its_factor() {
        for (written, bits) in [
            ("0bit/s", 0.0),
            ("500kbit/s", 500e3),
            ("50Mbit/s", 50e6),
            ("2.5Gbit/s", 2.5e9),
            ("80 mbit/s", 80e6),
            ("1B/s", 8.0),
            ("1kB/s", 8e3),
            ("6MB/s", 48e6),
            ("1GB/s", 8e9),
            ("1MiB/s", 8.0 * 1024.0 * 1024.0),
        ] {
            let expected = Ok(Level::Bits(BitRate(bits)));
            assert_eq!(level(&text_of(written)), expected, "{written}");
        }
        for (written, packets) in [("7pps", 7.0), ("20kpps", 20e3), ("1.5Mpps", 1.5e6)] {
            let expected = Ok(Level::Packets(PacketRate(packets)));
            assert_eq!(level(&text_of(written)), expected, "{written}");
        }
        assert_eq!(level(&text_of("94.5%")), Ok(Level::Percent(94.5)));
    }

    #[test]
    fn a_unit_of_bits_or_bytes_is_refused_with_both() {
        for written in ["80Mb/s", "80mb/s", "80MBps", "80Mbps", "80MB"] {
            let wrong = level(&text_of(written)).unwrap_err();
            assert_eq!(wrong.message, "could mean bits or bytes", "{written}");
            assert!(wrong.remedy.contains("\"80Mbit/s\""), "{written}");
            assert!(wrong.remedy.contains("\"80MB/s\""), "{written}");
        }
        let wrong = level(&text_of("80Mbit")).unwrap_err();
        assert_eq!(wrong.remedy, "write \"80Mbit/s\"");
    }

    #[test]
    fn a_number_alone_is_not_a_level() {
        for node in [
            text_of("80"),
            node_of(Value::Integer(80)),
            node_of(Value::Float("80".to_owned())),
        ] {
            let wrong = level(&node).unwrap_err();
            assert_eq!(wrong.message, "has no unit");
            let remedy = "write \"80%\" or a rate such as \"80Mbit/s\"";
            assert_eq!(wrong.remedy, remedy);
        }
    }

    #[test]
    fn what_is_no_finite_amount_is_refused() {
        for written in [
            "-1Mbit/s",
            "infMbit/s",
            "nan",
            "",
            "Mbit/s",
            "1e9bit/s",
            "0%",
            "101%",
        ] {
            assert!(level(&text_of(written)).is_err(), "{written}");
        }
        assert!(level(&text_of(&("9".repeat(400) + "Gbit/s"))).is_err());
        assert!(level(&text_of(&("9".repeat(400) + "%"))).is_err());
        assert!(level(&node_of(Value::Float("inf".to_owned()))).is_err());
    }

    #[test]
    fn capacity_is_a_bit_rate_above_zero() {
        assert_eq!(capacity(&text_of("50Mbit/s")), Ok(BitRate(50e6)));
        for written in ["0bit/s", "20kpps", "80%", "50"] {
            assert!(capacity(&text_of(written)).is_err(), "{written}");
        }
    }
}
