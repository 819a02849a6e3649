//! Single values: numbers with a unit, whole numbers, switches, text. Bounds that belong to one key are given by
//! whoever reads that key; rates and prefixes have files of their own.

use std::path::PathBuf;
use std::time::Duration;

use super::problems::Wrong;
use super::tree::{Node, Value};

/// Longer durations are a mistake, and their arithmetic would not be safe.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// Up to here every whole number of bytes is exact in the arithmetic of fractions (2^53).
const SIZE_MAX: f64 = 9_007_199_254_740_992.0;

/// A number and what stands behind it.
pub(super) struct Quantity<'n> {
    pub number: f64,
    /// The number as written.
    pub digits: String,
    /// Empty where there is none.
    pub unit: &'n str,
}

/// Text; `remedy` says what to write where it is something else.
pub(super) fn text<'n>(node: &'n Node, remedy: &str) -> Result<&'n str, Wrong> {
    let Value::Text(text) = &node.value else {
        let message = format!("is {}, not text in quotes", node.value.kind());
        return Err(Wrong::new(message, remedy));
    };
    Ok(text)
}

/// A number that is not negative, with its unit; `remedy` says what to write where it is something else.
pub(super) fn quantity<'n>(node: &'n Node, remedy: &str) -> Result<Quantity<'n>, Wrong> {
    // A number written without quotes has no unit: an exponent is none.
    let without_quotes = match &node.value {
        Value::Integer(integer) => Some(integer.to_string()),
        Value::Float(float) => Some(float.clone()),
        Value::Text(_)
        | Value::Boolean(_)
        | Value::Date
        | Value::Null
        | Value::List(_)
        | Value::Table(_) => None,
    };
    let written = match &without_quotes {
        Some(number) => number,
        None => text(node, remedy)?.trim(),
    };
    if written.starts_with('-') {
        return Err(Wrong::new("is negative", remedy));
    }
    let digits_end = written
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(written.len());
    let digits = &written[..digits_end];
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit());
    let number = match digits.parse() {
        Ok(number) if plain => number,
        _ => return Err(Wrong::new("is not a number with a unit", remedy)),
    };
    let unit = match &without_quotes {
        Some(_) => "",
        None => text(node, remedy)?.trim()[digits_end..].trim_start(),
    };
    Ok(Quantity {
        number,
        digits: digits.to_owned(),
        unit,
    })
}

/// Why a duration was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct DurationError {
    /// What is wrong.
    message: String,
    /// What would be right.
    remedy: String,
}

/// A duration as the configuration has it between quotes: `100ms`, `1s`, `10m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let node = Node {
        path: "".into(),
        key: 0..0,
        span: 0..0,
        value: Value::Text(text.to_owned()),
    };
    duration(&node).map_err(|wrong| DurationError {
        message: wrong.message,
        remedy: wrong.remedy,
    })
}

/// `"100ms"`, `"1s"`, `"10m"`, `"1h"`.
pub(super) fn duration(node: &Node) -> Result<Duration, Wrong> {
    const REMEDY: &str = "write a duration such as \"100ms\", \"1s\", \"10m\" or \"1h\"";
    let Quantity {
        number,
        digits,
        unit,
    } = quantity(node, REMEDY)?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        "" => {
            let remedy = format!("write \"{digits}s\", \"{digits}ms\" or \"{digits}m\"");
            return Err(Wrong::new("has no unit", remedy));
        }
        _ => return Err(Wrong::new("has a unit that is not ms, s, m or h", REMEDY)),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= DURATION_MAX => Ok(duration),
        _ => Err(Wrong::new("is longer than a year", REMEDY)),
    }
}

/// A duration from `min` to `max`; `bounds` says the two in words.
pub(super) fn duration_within(
    node: &Node,
    min: Duration,
    max: Duration,
    bounds: &str,
) -> Result<Duration, Wrong> {
    let duration = duration(node)?;
    if duration < min {
        Err(Wrong::new("is too short", format!("write {bounds}")))
    } else if duration > max {
        Err(Wrong::new("is too long", format!("write {bounds}")))
    } else {
        Ok(duration)
    }
}

/// `"16MiB"`, `"16MB"`, `"16777216B"`, in bytes.
pub(super) fn size(node: &Node) -> Result<u64, Wrong> {
    const REMEDY: &str = "write a size such as \"16MiB\", \"16MB\" or \"16777216B\"";
    let Quantity {
        number,
        digits,
        unit,
    } = quantity(node, REMEDY)?;
    if unit.is_empty() {
        let remedy = format!("write \"{digits}MiB\", \"{digits}kB\" or \"{digits}B\"");
        return Err(Wrong::new("has no unit", remedy));
    }
    let Some(factor) = bytes_factor(unit) else {
        return Err(Wrong::new("has a unit that is no unit of bytes", REMEDY));
    };
    let bytes = (number * factor).round();
    if bytes > SIZE_MAX {
        return Err(Wrong::new("is too large", REMEDY));
    }
    Ok(bytes as u64)
}

/// Bytes in one of `unit`: a capital B, with a decimal or binary prefix in any case.
pub(super) fn bytes_factor(unit: &str) -> Option<f64> {
    let prefix = unit.strip_suffix('B')?;
    match prefix.to_ascii_lowercase().as_str() {
        "" => Some(1.0),
        "k" => Some(1e3),
        "m" => Some(1e6),
        "g" => Some(1e9),
        "ki" => Some(1024.0),
        "mi" => Some(1024.0 * 1024.0),
        "gi" => Some(1024.0 * 1024.0 * 1024.0),
        _ => None,
    }
}

/// `"5%"`: above 0, at most 100.
pub(super) fn percentage(node: &Node) -> Result<f64, Wrong> {
    const REMEDY: &str = "write a percentage above 0 and up to 100, such as \"5%\"";
    let Quantity {
        number,
        digits,
        unit,
    } = quantity(node, REMEDY)?;
    match unit {
        "%" => percent_within(number),
        "" => Err(Wrong::new("has no unit", format!("write \"{digits}%\""))),
        _ => Err(Wrong::new("is not a percentage", REMEDY)),
    }
}

/// The bounds of every percentage.
pub(super) fn percent_within(number: f64) -> Result<f64, Wrong> {
    if number > 100.0 {
        let remedy = "write a percentage above 0 and up to 100";
        Err(Wrong::new("is more than 100 %", remedy))
    } else if number <= 0.0 {
        Err(Wrong::new("is 0 %", "write a percentage above 0"))
    } else {
        Ok(number)
    }
}

/// A whole number from `min` to `max`.
pub(super) fn integer_within(node: &Node, min: u32, max: u32) -> Result<u32, Wrong> {
    let remedy = format!("write a whole number from {min} to {max}, without quotes");
    let Value::Integer(integer) = node.value else {
        return Err(Wrong::new("is not a whole number", remedy));
    };
    match u32::try_from(integer) {
        Ok(integer) if (min..=max).contains(&integer) => Ok(integer),
        _ => Err(Wrong::new("is out of bounds", remedy)),
    }
}

/// `true` or `false`.
pub(super) fn boolean(node: &Node) -> Result<bool, Wrong> {
    let Value::Boolean(boolean) = node.value else {
        let message = format!("is {}, not true or false", node.value.kind());
        return Err(Wrong::new(message, "write true or false, without quotes"));
    };
    Ok(boolean)
}

/// The path of a file; `remedy` says what to write where it is none.
pub(super) fn file_path(node: &Node, remedy: &str) -> Result<PathBuf, Wrong> {
    let written = text(node, remedy)?;
    let path = PathBuf::from(written);
    if path.file_name().is_none() || written.ends_with('/') || written.contains('\0') {
        return Err(Wrong::new("names no file", remedy));
    }
    Ok(path)
}

/// The path of a file that does not depend on where flowctl was started.
pub(super) fn absolute_path(node: &Node, remedy: &str) -> Result<PathBuf, Wrong> {
    let path = file_path(node, remedy)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Wrong::new("is a relative path", remedy))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A node that stands nowhere.
    pub fn node_of(value: Value) -> Node {
        Node {
            path: "key".into(),
            key: 0..0,
            span: 0..0,
            value,
        }
    }

    /// Text that stands nowhere.
    pub fn text_of(text: &str) -> Node {
        node_of(Value::Text(text.to_owned()))
    }

    #[test]
    fn durations_have_a_unit() {
        for (written, milliseconds) in [
            ("100ms", 100),
            ("1s", 1000),
            ("1.5s", 1500),
            ("10m", 600_000),
            ("1 h", 3_600_000),
            ("0s", 0),
        ] {
            let expected = Ok(Duration::from_millis(milliseconds));
            assert_eq!(duration(&text_of(written)), expected, "{written}");
        }
        for written in [
            "1", "1d", "s", "", "-1s", "inf", "1.s", ".5s", "1e3s", "1.2.3s", "9999999h",
        ] {
            assert!(duration(&text_of(written)).is_err(), "{written}");
        }
        let wrong = duration(&node_of(Value::Integer(3))).unwrap_err();
        assert_eq!(wrong.message, "has no unit");
        assert!(wrong.remedy.starts_with("write \"3s\""));
    }

    #[test]
    fn sizes_are_bytes() {
        assert_eq!(size(&text_of("16MiB")), Ok(16 << 20));
        assert_eq!(size(&text_of("16MB")), Ok(16_000_000));
        assert_eq!(size(&text_of("1.5 kB")), Ok(1500));
        assert_eq!(size(&text_of("16777216B")), Ok(16 << 20));
        for written in ["16", "16Mb", "16M", "9999999999GB", "-1B"] {
            assert!(size(&text_of(written)).is_err(), "{written}");
        }
    }

    #[test]
    fn percentages_are_above_zero_and_at_most_100() {
        assert_eq!(percentage(&text_of("94.5%")), Ok(94.5));
        assert_eq!(percentage(&text_of("100 %")), Ok(100.0));
        for written in ["0%", "100.1%", "5", "-5%", "nan%", "5bit/s"] {
            assert!(percentage(&text_of(written)).is_err(), "{written}");
        }
    }

    #[test]
    fn integers_are_whole_and_bounded() {
        let read = |value| integer_within(&node_of(value), 1, 10);
        assert_eq!(read(Value::Integer(10)), Ok(10));
        for value in [
            Value::Integer(0),
            Value::Integer(11),
            Value::Integer(-1),
            Value::Integer(1 << 32),
            Value::Float("1.5".to_owned()),
            Value::Text("5".to_owned()),
        ] {
            assert!(read(value).is_err());
        }
    }

    #[test]
    fn a_path_names_a_file() {
        assert!(file_path(&text_of("a/b.jsonl"), "").is_ok());
        for written in ["", "/", "a/", "..", "a\0b"] {
            assert!(file_path(&text_of(written), "").is_err(), "{written:?}");
        }
    }
}
