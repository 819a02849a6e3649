//! Tests of the whole way from text to `Config`, and what the tests of its parts share. Rules of one section are
//! tested beside it.

use proptest::prelude::*;

use super::{Config, Format, LoadError, Problem, load, parse};

/// The contract's example, as far as it is supported.
const EXAMPLE: &str = r#"
tick = "1s"

[table]
name = "flowctl"
protect = "auto"

[interfaces.wan]
device = "ppp0"
capacity = { in = "500Mbit/s", out = "50Mbit/s" }
[interfaces.lan]
device = ["br-lan", "wg0"]

[subnets]
home = ["192.168.1.0/24", "fd00:1::/64"]
iot  = ["192.168.20.0/24"]

[counters.iot_to_internet]
from = "iot"
out  = "wan"
[counters.old_wan_in]
existing = "inet accounting wan_bytes_in"

[thresholds.uplink_full]
counter = "wan_out"
raise = "80%"
clear = "60%"
hold = "3s"
release = "10s"
drilldown = true
[thresholds.iot_phones_home]
counter = "iot_to_internet"
raise = "0bit/s"

[drilldown]
interval = "1s"
top = 10
max_duration = "10m"
cpu_budget = "5%"

[log]
path = "drilldowns.jsonl"
max_size = "16MiB"
keep = 4

[control]
socket = "/run/flowctl/control.sock"

[hosts]
nas = ["192.168.1.5", "fd00:1::5"]
printer = "02:00:5e:10:00:01"

[names]
leases = ["/var/lib/kea/kea-leases4.csv"]
"#;

const EXAMPLE_AS_JSON: &str = r#"{
    "tick": "1s",
    "table": {"name": "flowctl", "protect": "auto"},
    "interfaces": {
        "wan": {"device": "ppp0", "capacity": {"in": "500Mbit/s", "out": "50Mbit/s"}},
        "lan": {"device": ["br-lan", "wg0"]}
    },
    "subnets": {"home": ["192.168.1.0/24", "fd00:1::/64"], "iot": ["192.168.20.0/24"]},
    "counters": {
        "iot_to_internet": {"from": "iot", "out": "wan"},
        "old_wan_in": {"existing": "inet accounting wan_bytes_in"}
    },
    "thresholds": {
        "uplink_full": {
            "counter": "wan_out", "raise": "80%", "clear": "60%",
            "hold": "3s", "release": "10s", "drilldown": true
        },
        "iot_phones_home": {"counter": "iot_to_internet", "raise": "0bit/s"}
    },
    "drilldown": {"interval": "1s", "top": 10, "max_duration": "10m", "cpu_budget": "5%"},
    "log": {"path": "drilldowns.jsonl", "max_size": "16MiB", "keep": 4},
    "control": {"socket": "/run/flowctl/control.sock"},
    "hosts": {"nas": ["192.168.1.5", "fd00:1::5"], "printer": "02:00:5e:10:00:01"},
    "names": {"leases": ["/var/lib/kea/kea-leases4.csv"]}
}"#;

/// The configuration that the TOML `text` is.
pub fn config(text: &str) -> Config {
    parse(text, Format::Toml).unwrap_or_else(|problems| panic!("{text}\n{problems:#?}"))
}

/// What is wrong with the TOML `text`.
pub fn problems(text: &str) -> Vec<Problem> {
    parse(text, Format::Toml).expect_err(text)
}

/// What is wrong with the TOML `text`, without place and remedy.
pub fn messages(text: &str) -> Vec<String> {
    (problems(text).into_iter().map(|problem| problem.message)).collect()
}

#[test]
fn toml_and_json_of_one_content_are_one_configuration() {
    let from_toml = config(EXAMPLE);
    assert_eq!(parse(EXAMPLE_AS_JSON, Format::Json), Ok(from_toml));
}

#[test]
fn the_example_of_the_documentation_is_this_one() {
    assert!(include_str!("../../docs/configuration.md").contains(EXAMPLE.trim()));
}

#[test]
fn the_example_spells_out_the_defaults() {
    let example = config(EXAMPLE);
    let empty = config("");
    assert_eq!(
        (example.tick, &example.table, &example.drilldown),
        (empty.tick, &empty.table, &empty.drilldown)
    );
    assert_eq!(
        (&example.log, &example.control),
        (&empty.log, &empty.control)
    );
}

#[test]
fn all_problems_are_reported_in_one_run_each_with_its_place() {
    let mistakes = [
        (
            "tick = \"1s\"",
            "tick = \"1\"",
            "1:8: tick: \"1\" has no unit",
        ),
        (
            "protect = ",
            "protekt = ",
            "5:1: table.protekt: unknown key; did you mean \"protect\"?",
        ),
        (
            "500Mbit/s",
            "500Mb/s",
            "9:19: interfaces.wan.capacity.in: \"500Mb/s\" could mean bits or bytes",
        ),
        (
            "wg0",
            "br-lan",
            "11:21: interfaces.lan.device[1]: \"br-lan\" is given twice",
        ),
        (
            "192.168.1.0/24",
            "192.168.1.5/24",
            "14:9: subnets.home[0]: \"192.168.1.5/24\" has host bits set",
        ),
        (
            "out  = \"wan\"",
            "out  = \"wam\"",
            "19:8: counters.iot_to_internet.out: \"wam\" is not a defined interface; did you mean \"wan\"?",
        ),
        (
            "inet accounting",
            "inett accounting",
            "21:12: counters.old_wan_in.existing: \"inett accounting wan_bytes_in\" does not begin with a family of \
             tables; did you mean \"inet\"?",
        ),
        (
            "counter = \"wan_out\"",
            "counter = \"wan_uot\"",
            "24:11: thresholds.uplink_full.counter: \"wan_uot\" is not a defined counter; did you mean \"wan_out\"?",
        ),
        (
            "clear = \"60%\"",
            "clear = \"90%\"",
            "26:9: thresholds.uplink_full.clear: \"90%\" is above raise",
        ),
        (
            "drilldown = true",
            "drilldown = \"yes\"",
            "29:13: thresholds.uplink_full.drilldown: \"yes\" is text, not true or false",
        ),
        (
            "raise = \"0bit/s\"",
            "# none",
            "30:13: thresholds.iot_phones_home: has no raise",
        ),
        (
            "top = 10",
            "top = 0",
            "36:7: drilldown.top: 0 is out of bounds",
        ),
        (
            "keep = 4",
            "keep = 4\nkeep = 5",
            "44:1: log.keep: given twice, first on line 43",
        ),
        (
            "/run/flowctl",
            "run/flowctl",
            "47:10: control.socket: \"run/flowctl/control.sock\" is a relative path",
        ),
        (
            "\"fd00:1::5\"",
            "\"fd00:1:5\"",
            "50:23: hosts.nas[1]: \"fd00:1:5\" is neither an address nor the hardware address of one device",
        ),
        (
            "printer = \"02",
            "\"192.168.1.9\" = \"02",
            "51:1: hosts.\"192.168.1.9\": is an address, not a name",
        ),
        (
            "leases =",
            "lease =",
            "54:1: names.lease: unknown key; did you mean \"leases\"?",
        ),
    ];
    let mut text = EXAMPLE.trim_start().to_owned();
    for (right, wrong, _) in mistakes {
        assert!(text.contains(right), "{right}");
        text = text.replacen(right, wrong, 1);
    }
    let found: Vec<String> = problems(&text).iter().map(Problem::to_string).collect();
    for (found, (.., expected)) in found.iter().zip(mistakes) {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    assert_eq!(found.len(), mistakes.len(), "{found:#?}");
}

#[test]
fn json_problems_have_the_same_text_and_their_own_place() {
    let text = EXAMPLE_AS_JSON.replace("\"80%\"", "\"80\"");
    let found = parse(&text, Format::Json).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "15:44: thresholds.uplink_full.raise: \"80\" has no unit; \
         write \"80%\" or a rate such as \"80Mbit/s\""
    );
    let text = EXAMPLE_AS_JSON.replace("\"lan\":", "\"wan\":");
    let found = parse(&text, Format::Json).unwrap_err();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].message, "given twice, first on line 5");
}

#[test]
fn a_contained_syntax_error_hides_nothing_else() {
    let text = EXAMPLE
        .replace("tick = \"1s\"", "tick = 1s")
        .replace("wan_out", "wan_uot")
        .replace("[interfaces.lan]", "[interfaces.wan]");
    let found = messages(&text);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert_eq!(found[0], "not TOML: string values must be quoted");
}

#[test]
fn after_a_syntax_error_that_may_swallow_more_only_what_stands_before_is_reported() {
    let text = EXAMPLE
        .replace("protect = \"auto\"", "protect = \"on\"")
        .replace("[control]", "[control");
    let found = problems(&text);
    assert_eq!(found[0].key_path, "table.protect");
    let rest = &found[1..];
    assert!(!rest.is_empty());
    let all_syntax = rest
        .iter()
        .all(|problem| problem.message.starts_with("not TOML"));
    assert!(all_syntax, "{rest:#?}");
}

#[test]
fn what_is_printed_is_printable() {
    let text =
        "\"a\\u001b[31m\u{202e}\" = 1\ntick = \"\u{202e}1s\u{9b}\"\nsubnets.\"\\u0007\" = \"x\"\n";
    for problem in problems(text) {
        let shown = problem.to_string();
        let raw = |c: char| c.is_control() || c == '\u{202e}';
        assert!(!shown.contains(raw), "{shown:?}");
    }
}

#[test]
fn a_document_is_a_table() {
    for text in ["[]", "3", "null"] {
        assert_eq!(parse(text, Format::Json).unwrap_err().len(), 1, "{text}");
    }
    let section =
        messages("thresholds = 3\ncounters = []\n[interfaces]\nwan = { device = \"e\" }\n");
    assert_eq!(
        section,
        ["is a number, not a table", "is a list, not a table"]
    );
}

#[test]
fn a_section_that_is_no_table_does_not_make_references_wrong() {
    let text = "interfaces = 3\ncounters.c.in = \"wan\"\nthresholds.t = { counter = \"wan_in\", raise = \"1pps\" }";
    assert_eq!(messages(text), ["is a number, not a table"]);
}

#[test]
fn a_deep_file_is_refused_without_a_crash() {
    let deep = 100_000;
    assert!(!problems(&format!("a = {}", "[".repeat(deep))).is_empty());
    assert!(!problems(&format!("{}b = 1", "a.".repeat(deep))).is_empty());
    assert!(parse(&"[".repeat(deep), Format::Json).is_err());
}

#[test]
fn a_file_is_loaded_by_the_ending_of_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("a.toml"), EXAMPLE).unwrap();
    std::fs::write(path("a.json"), EXAMPLE_AS_JSON).unwrap();
    std::fs::write(path("b.toml"), b"tick = \"1s\"\n# \xff").unwrap();
    assert_eq!(
        load(&path("a.toml")).unwrap(),
        load(&path("a.json")).unwrap()
    );
    let LoadError::Invalid { problems, .. } = load(&path("b.toml")).unwrap_err() else {
        panic!("the file is not UTF-8");
    };
    assert_eq!((problems[0].line, problems[0].column), (2, 3));
    let missing = load(&path("\u{1b}.toml")).unwrap_err();
    assert!(matches!(missing, LoadError::Read { .. }));
    assert!(!missing.to_string().contains('\u{1b}'));
}

/// Every place is in the file, and everything shown can be shown.
fn assert_sound(text: &str, format: Format) {
    let Err(found) = parse(text, format) else {
        return;
    };
    assert!(!found.is_empty(), "no configuration and no problem");
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in found {
        let length = lines[problem.line - 1].chars().count();
        assert!((1..=length + 1).contains(&problem.column), "{problem:?}");
        assert!(
            !problem.to_string().contains(char::is_control),
            "{problem:?}"
        );
        assert!(!problem.message.is_empty() && !problem.remedy.is_empty());
    }
}

/// `text` with a piece of it cut out and something else put in.
fn mutated(text: &str, at: usize, cut: usize, with: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let start = at % characters.len();
    let end = (start + cut).min(characters.len());
    let head = characters[..start].iter();
    let tail = characters[end..].iter();
    head.copied()
        .chain(with.chars())
        .chain(tail.copied())
        .collect()
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        assert_sound(&text, Format::Toml);
        assert_sound(&text, Format::Json);
    }

    #[test]
    fn no_text_of_syntax_makes_it_panic(text in "([\\[\\]{}=.,\"'#:\n a-c0-9]|wan|in|null){0,60}") {
        assert_sound(&text, Format::Toml);
        assert_sound(&text, Format::Json);
    }

    #[test]
    fn no_damage_to_a_file_makes_it_panic(
        at in any::<usize>(),
        cut in 0_usize..40,
        with in "(\"|\\[|\\]|\\{|\\}|=|\n|é|[0-9a-z%/.]|\\PC){0,6}",
    ) {
        assert_sound(&mutated(EXAMPLE, at, cut, &with), Format::Toml);
        assert_sound(&mutated(EXAMPLE_AS_JSON, at, cut, &with), Format::Json);
    }

    #[test]
    fn no_value_makes_it_panic(value in any::<String>(), key in 0_usize..12) {
        let quoted: Vec<&str> = EXAMPLE_AS_JSON.split('"').skip(1).step_by(2).collect();
        let old = quoted[(key * 7 + value.len()) % quoted.len()];
        let new = serde_json::to_string(&value).unwrap();
        let text = EXAMPLE_AS_JSON.replacen(&format!("\"{old}\""), &new, 2);
        assert_sound(&text, Format::Json);
    }
}

#[test]
fn no_problem_repeats_a_file_of_one_value() {
    let digits = "9".repeat(100_000);
    for text in [
        format!("tick = {digits}"),
        format!("[thresholds.x]\ncounter = \"a\"\nraise = \"{digits}\"\nhold = \"{digits}\""),
        format!("[log]\nmax_size = {digits}\n[drilldown]\ncpu_budget = {digits}"),
    ] {
        let problems = parse(&text, Format::Toml).unwrap_err();
        for problem in problems {
            let said = problem.to_string();
            assert!(said.len() < 1_000, "{} bytes: {}", said.len(), &said[..200]);
        }
    }
}
