//! docs/json.md names every key, word and health code that programs may read, and none that is not there. What there
//! is, the examples in tests/data say as flowctl writes them; that they leave nothing out, its source says.

#![allow(clippy::unwrap_used, reason = "this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use flowctl::event::Record;
use flowctl::report::Report;
use serde_json::Value;

const DOCUMENT: &str = include_str!("../docs/json.md");
const REPORT: &str = include_str!("data/report.json");
const RECORDS: &str = include_str!("data/log.jsonl");
/// The files whose fields are what programs read.
const CONTRACT: [&str; 3] = ["src/report.rs", "src/event.rs", "src/drilldown/verdict.rs"];
/// What is written as one word out of several.
const WORDS: [(&str, &str); 7] = [
    ("src/report.rs", "DifferenceCause"),
    ("src/report.rs", "StateWord"),
    ("src/report.rs", "Severity"),
    ("src/event.rs", "Event"),
    ("src/event.rs", "ConfigResult"),
    ("src/kernel/nft.rs", "Protection"),
    ("src/sink/reload.rs", "Reloaded"),
];

/// Keys by the object that has them: the key under which it stands itself, or `Event` and its word.
type Keys = BTreeMap<String, BTreeSet<String>>;

/// A source file without its inline tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap()
        .to_owned()
}

/// What is in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The texts in source that are words joined by `_`, or one word.
fn literals(code: &str) -> impl Iterator<Item = &str> {
    let is_word = |text: &&str| {
        let mut characters = text.chars();
        !text.is_empty() && characters.all(|c| c.is_ascii_lowercase() || c == '_')
    };
    code.split('"').filter(is_word)
}

/// What the first column of the tables in a section names.
fn rows(section: &str) -> BTreeSet<&str> {
    let rows = section.lines().filter_map(|line| line.strip_prefix("| "));
    rows.flat_map(|row| quoted(row.split(" |").next().unwrap()))
        .collect()
}

/// The section under a heading.
fn section<'d>(heading: &str) -> &'d str {
    let (_, section) = DOCUMENT.split_once(&format!("\n{heading}\n")).unwrap();
    section.split("\n#").next().unwrap()
}

/// The keys that the document names, by the objects in its headings.
fn documented() -> Keys {
    let headings = DOCUMENT
        .lines()
        .filter_map(|line| Some((line, line.strip_prefix("### ")?)));
    let mut keys = Keys::new();
    for (line, heading) in headings {
        for object in heading.split(", ") {
            let mut named = rows(section(line));
            if section(line).contains("\n| the [findings](#findings) |") {
                named.extend(rows(section("### Findings")));
            }
            let named = named.into_iter().map(str::to_owned);
            keys.insert(object.replace('`', ""), named.collect());
        }
    }
    keys
}

fn collect(object: &str, value: &Value, keys: &mut Keys) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let known = keys.entry(object.to_owned()).or_default();
                known.insert(key.clone());
                collect(key, member, keys);
            }
        }
        Value::Array(elements) => {
            let elements = elements.iter();
            elements.for_each(|element| collect(object, element, keys));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What the examples become when flowctl writes them.
fn written() -> Keys {
    let mut keys = Keys::new();
    let report: Report = serde_json::from_str(REPORT).unwrap();
    collect("report", &serde_json::to_value(report).unwrap(), &mut keys);
    for line in RECORDS.lines() {
        let record: Record = serde_json::from_str(line).unwrap();
        let mut record = serde_json::to_value(record).unwrap();
        let members = record.as_object_mut().unwrap();
        members.remove("time").unwrap();
        let event = members.remove("event").unwrap();
        let object = format!("Event {}", event.as_str().unwrap());
        collect(&object, &record, &mut keys);
    }
    // One object in two places.
    let verdict = keys["Event verdict"].clone();
    keys.entry("last_verdict".to_owned())
        .or_default()
        .extend(verdict);
    keys
}

/// What `of` has beyond `others`.
fn beyond(of: &Keys, others: &Keys) -> Vec<String> {
    let none = BTreeSet::new();
    let beyond = of.iter().flat_map(|(object, keys)| {
        let known = others.get(object).unwrap_or(&none);
        let keys = keys.difference(known);
        keys.map(move |key| format!("{object}: {key}"))
    });
    beyond.collect()
}

#[test]
fn every_key_of_a_report_and_of_a_record_is_documented_where_it_stands() {
    let mut documented = documented();
    documented.remove("demo").unwrap();
    documented.remove("Findings").unwrap();
    let written = written();
    assert_eq!(
        beyond(&written, &documented),
        [""; 0],
        "not in docs/json.md"
    );
    assert_eq!(beyond(&documented, &written), [""; 0], "not in tests/data");
}

/// The name of a field in its line of source.
fn field(line: &str) -> Option<&str> {
    let declared = line
        .strip_prefix("    pub ")
        // In a variant.
        .or_else(|| line.strip_prefix("        "))?;
    let (name, of) = declared.strip_suffix(',')?.split_once(": ")?;
    let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let is_type = of.chars().all(|c| c.is_alphanumeric() || "<>:".contains(c));
    (is_name && is_type).then_some(name)
}

#[test]
fn the_examples_have_every_field() {
    let mut known: BTreeSet<String> = written().into_values().flatten().collect();
    // What is written in place has no key of its own.
    known.extend(["time", "event", "found"].map(str::to_owned));
    for path in CONTRACT {
        let code = code(Path::new(path));
        let fields: Vec<&str> = code.lines().filter_map(field).collect();
        assert!(fields.len() > 20, "{path}: {fields:?}");
        for name in fields {
            assert!(known.contains(name), "tests/data has no {name} of {path}");
        }
    }
}

#[test]
fn every_word_that_stands_for_one_of_several_is_documented() {
    for (path, name) in WORDS {
        let code = code(Path::new(path));
        let (_, body) = code.split_once(&format!("pub enum {name} {{\n")).unwrap();
        let body = body.split("\n}\n").next().unwrap();
        let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
        for line in lines.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase())) {
            let variant = line.split(|c: char| !c.is_alphanumeric()).next().unwrap();
            let word = snake_case(variant);
            let told = match name {
                "Event" => DOCUMENT.contains(&format!("\n### Event `{word}`")),
                "Reloaded" => DOCUMENT.contains(&format!("\n| `{{\"{word}\": ")),
                _ => DOCUMENT.contains(&format!("`{word}`")),
            };
            assert!(told, "docs/json.md does not name {word} of {name}");
        }
    }
}

fn snake_case(variant: &str) -> String {
    let mut word = String::new();
    for c in variant.chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}

#[test]
fn every_key_of_the_demo_is_documented() {
    let code = code(Path::new("src/cli/demo.rs"));
    let (_, body) = code.split_once("\nfn as_json").unwrap();
    let body = body.split("\n}\n").next().unwrap();
    let keys: BTreeSet<&str> = literals(body).collect();
    let named: BTreeSet<&str> = quoted(section("### `demo`")).collect();
    assert_eq!(keys, named);
}

/// Where health entries are made, words that `_` joins are codes.
#[test]
fn every_health_code_is_documented_and_none_beside() {
    let daemon = fs::read_dir("src/daemon").unwrap();
    let daemon = daemon.map(|entry| entry.unwrap().path());
    let others = ["src/health.rs", "src/cli/doctor.rs"].map(|path| Path::new(path).to_owned());
    let sources: Vec<String> = daemon.chain(others).map(|path| code(&path)).collect();
    let words = sources.iter().flat_map(|source| literals(source));
    let codes: BTreeSet<&str> = words.filter(|word| word.contains('_')).collect();
    assert_eq!(codes, rows(section("## Health codes")));
}
