//! The contract's equations, to the byte, on a record as the log has it: a verdict, an interim list, an alert, or a
//! drilldown in the status. Each view that a record has sums to the same whole.

use serde_json::Value;

/// Ways to part the same bytes.
const VIEWS: [&str; 4] = ["hosts", "flows", "outside", "services"];
/// An alert that names fewer than `top` names all there are.
const TOP: usize = 10;

/// Panics where the record does not add up. One of before the first dump has nothing to add.
pub fn assert_adds_up(record: &Value) {
    assert_nothing_negative(record);
    let Some(counted) = number(record, "counted_bytes") else {
        let named = ["hosts", "flows"].map(|view| rows(record, view).map_or(0, Vec::len));
        assert_eq!(named, [0, 0], "named of nothing counted: {record:#}");
        return;
    };
    let attributed = number(record, "attributed_bytes").unwrap();
    assert!(attributed <= counted, "{record:#}");
    assert_unexplained(record, counted - attributed);
    assert_dropped(record);
    assert_coverage(record, counted, attributed);
    if let Some(all) = whole(record, counted, attributed) {
        for view in VIEWS {
            assert_view(record, view, all, counted.max(all));
        }
    }
}

/// All that flows sum to; `None` for an alert that leaves out who is not named, and what is beyond the counter.
fn whole(record: &Value, counted: u64, attributed: u64) -> Option<u64> {
    if let Some(excess) = number(record, "excess_bytes") {
        return Some(attributed + excess);
    }
    let hosts = rows(record, "hosts").unwrap();
    let named = bytes(hosts);
    if hosts.len() < TOP {
        assert_eq!(named.min(counted), attributed, "{record:#}");
        return Some(named);
    }
    assert!(named.min(counted) <= attributed, "{record:#}");
    (attributed < counted).then_some(attributed)
}

fn assert_unexplained(record: &Value, rest: u64) {
    let Some(unexplained) = number(record, "unexplained_bytes") else {
        return;
    };
    assert_eq!(unexplained, rest, "{record:#}");
    let causes = record["unexplained"].as_object().unwrap();
    let caused: u64 = causes.values().map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(caused, unexplained, "by cause: {record:#}");
}

/// Who sent what no flow explains is known of at most what was not kept or not followed.
fn assert_dropped(record: &Value) {
    let (Some(dropped), Some(causes)) = (rows(record, "dropped"), record.get("unexplained")) else {
        return;
    };
    let of = |cause| number(causes, cause).unwrap_or(0);
    let most = of("unconfirmed") + of("untracked");
    assert!(bytes(dropped) <= most, "dropped: {record:#}");
}

fn assert_coverage(record: &Value, counted: u64, attributed: u64) {
    let Some(coverage) = record.get("coverage").and_then(Value::as_f64) else {
        return;
    };
    let expected = match counted {
        0 => 1.0,
        counted => attributed as f64 / counted as f64,
    };
    assert!((coverage - expected).abs() < 1e-9, "coverage: {record:#}");
}

fn assert_view(record: &Value, view: &str, all: u64, largest: u64) {
    let Some(rows) = rows(record, view) else {
        return;
    };
    let named = bytes(rows);
    if let Some(remainder) = number(record, &format!("{view}_remainder_bytes")) {
        assert_eq!(named + remainder, all, "{view}: {record:#}");
    }
    assert!(named <= all, "{view}: {record:#}");
    for row in rows {
        let expected = match largest {
            0 => 0.0,
            largest => number(row, "bytes").unwrap() as f64 / largest as f64,
        };
        let share = row["share"].as_f64().unwrap();
        assert!((share - expected).abs() < 1e-9, "{view}: {record:#}");
    }
    let falls = |key| rows.is_sorted_by_key(|row| std::cmp::Reverse(number(row, key)));
    assert!(falls("bytes") || falls("packets"), "{view}: {record:#}");
}

fn assert_nothing_negative(value: &Value) {
    match value {
        Value::Number(number) => assert!(number.as_f64().unwrap() >= 0.0, "{number} is negative"),
        Value::Array(values) => values.iter().for_each(assert_nothing_negative),
        Value::Object(fields) => fields.values().for_each(assert_nothing_negative),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn rows<'a>(record: &'a Value, view: &str) -> Option<&'a Vec<Value>> {
    record.get(view).and_then(Value::as_array)
}

fn bytes(rows: &[Value]) -> u64 {
    rows.iter().map(|row| number(row, "bytes").unwrap()).sum()
}

fn number(record: &Value, key: &str) -> Option<u64> {
    record.get(key).and_then(Value::as_u64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record() -> Value {
        let row =
            |bytes: u64| json!({"bytes": bytes, "packets": bytes, "share": bytes as f64 / 100.0});
        json!({
            "counted_bytes": 100, "attributed_bytes": 80, "excess_bytes": 0, "coverage": 0.8,
            "unexplained_bytes": 20, "unexplained": {"skew": 5, "unconfirmed": 15},
            "hosts": [row(50), row(20)], "hosts_remainder_bytes": 10,
            "flows": [row(80)], "flows_remainder_bytes": 0,
            "outside": [row(80)], "outside_remainder_bytes": 0,
            "services": [row(60)], "services_remainder_bytes": 20,
            "dropped": [row(15)],
        })
    }

    #[test]
    fn whatever_is_wrong_in_a_record_does_not_add_up() {
        assert_adds_up(&record());
        for (pointer, wrong) in [
            ("/counted_bytes", json!(99)),
            ("/attributed_bytes", json!(79)),
            ("/attributed_bytes", json!(101)),
            ("/excess_bytes", json!(1)),
            ("/unexplained_bytes", json!(21)),
            ("/unexplained/skew", json!(6)),
            ("/unexplained/skew", json!(-5)),
            ("/coverage", json!(0.81)),
            ("/hosts/0/bytes", json!(49)),
            ("/hosts/0/share", json!(0.51)),
            ("/flows_remainder_bytes", json!(1)),
            ("/outside/0/bytes", json!(81)),
            ("/services_remainder_bytes", json!(19)),
            ("/dropped/0/bytes", json!(16)),
        ] {
            let mut record = record();
            *record.pointer_mut(pointer).unwrap() = wrong.clone();
            let told = std::panic::catch_unwind(|| assert_adds_up(&record));
            assert!(told.is_err(), "{pointer} = {wrong} went by");
        }
        let mut reversed = record();
        reversed["hosts"].as_array_mut().unwrap().reverse();
        let told = std::panic::catch_unwind(|| assert_adds_up(&reversed));
        assert!(told.is_err(), "hosts in the wrong order went by");
    }

    #[test]
    fn an_alert_names_all_it_has_or_nobody() {
        let row = json!({"bytes": 50, "packets": 1, "share": 0.5});
        let alert = |attributed| {
            let rows = [&row];
            json!({"counted_bytes": 100, "attributed_bytes": attributed, "hosts": rows, "flows": rows})
        };
        assert_adds_up(&alert(50));
        let told = std::panic::catch_unwind(|| assert_adds_up(&alert(60)));
        assert!(told.is_err());
        assert_adds_up(&json!({"hosts": [], "flows": []}));
        let before = json!({"counted_bytes": null, "hosts": [row], "flows": []});
        assert!(std::panic::catch_unwind(|| assert_adds_up(&before)).is_err());
    }
}
