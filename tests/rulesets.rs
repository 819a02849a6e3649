//! The pairs in rulesets/: what `flowctl plan` prints for each configuration is the file beside it, but where that is a
//! user's own ruleset, whose counters the configuration reads; for static rules it is the file to load. Needs no privilege. `FLOWCTL_BLESS=1` writes the planned
//! files anew.

#![allow(clippy::unwrap_used, reason = "this is a test")]
#![allow(clippy::disallowed_methods, reason = "the program under test is run")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A user's own ruleset, and the configuration that reads it.
const USERS_OWN: &str = "accounting";

/// Rules that are loaded with the system's ruleset.
const STATIC: &str = "static";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("rulesets")
}

/// The names of the planned pairs; each has both files.
fn names() -> Vec<String> {
    let stems = |wanted: &str| -> BTreeSet<String> {
        let files = std::fs::read_dir(directory()).unwrap();
        files
            .map(|file| file.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == wanted)
            })
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .filter(|name| name != USERS_OWN)
            .collect()
    };
    let configurations = stems("toml");
    assert!(configurations.len() >= 3);
    if !blessing() {
        assert_eq!(stems("nft"), configurations, "each has its pair");
    }
    configurations.into_iter().collect()
}

fn blessing() -> bool {
    std::env::var_os("FLOWCTL_BLESS").is_some_and(|value| value == "1")
}

fn flowctl(command: &[&str], name: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_flowctl"))
        .args(command)
        .arg("--config")
        .arg(directory().join(format!("{name}.toml")))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} {name}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn plan_prints_the_ruleset_beside_each_configuration() {
    for name in names() {
        let planned = match name.as_str() {
            STATIC => flowctl(&["plan", "--format", "nft"], STATIC),
            planned => flowctl(&["plan"], planned),
        };
        let file = directory().join(format!("{name}.nft"));
        if blessing() {
            std::fs::write(&file, &planned).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap();
        let differs = planned.lines().zip(golden.lines()).find(|(a, b)| a != b);
        assert!(
            planned == golden,
            "{name}: {differs:?}; if it is meant, FLOWCTL_BLESS=1 writes it anew"
        );
    }
}

#[test]
fn check_has_nothing_to_say_against_any_of_them() {
    for name in names() {
        flowctl(&["check"], &name);
    }
}

/// `#   NAME: sentence` for every counter, and every counter an operator can see is explained.
#[test]
fn every_counter_is_explained_under_the_ruleset() {
    for name in names() {
        let planned = flowctl(&["plan"], &name);
        let declared: Vec<&str> = planned
            .lines()
            .filter_map(|line| line.strip_prefix("\tcounter ")?.strip_suffix(" {"))
            .collect();
        let explained: Vec<&str> = planned
            .lines()
            .filter_map(|line| line.strip_prefix("#   ")?.split_once(": "))
            .map(|(counter, _)| counter)
            .collect();
        assert_eq!(declared, explained, "{name}");
        assert!(declared.len() > 5);
    }
}

/// The words after `before` on each line of the file that has it, without quotes.
fn words_after(file: &str, before: &str) -> Vec<String> {
    let text = std::fs::read_to_string(directory().join(file)).unwrap();
    let after = |line: &str| line.trim_start().strip_prefix(before).map(str::to_owned);
    let word = |rest: String| rest.trim_matches(['"', ' ', '{', '}']).to_owned();
    text.lines().filter_map(after).map(word).collect()
}

#[test]
fn what_a_users_own_ruleset_counts_is_read_and_not_installed() {
    flowctl(&["check"], USERS_OWN);
    let table = words_after(&format!("{USERS_OWN}.nft"), "table ");
    let counters = words_after(&format!("{USERS_OWN}.nft"), "counter ");
    assert!(counters.len() >= 3, "{counters:?}");
    let read = words_after(&format!("{USERS_OWN}.toml"), "existing = ");
    let declared: Vec<String> = (counters.iter())
        .map(|counter| format!("{} {counter}", table[0]))
        .collect();
    assert_eq!(read, declared);

    let planned = flowctl(&["plan"], USERS_OWN);
    for counter in &counters {
        assert!(!planned.contains(&format!("\tcounter {counter} {{")));
        let explained = format!(
            "#   {counter}: what the counter {counter} of table {} counts",
            table[0]
        );
        assert!(planned.contains(&explained), "{planned}");
    }
    let flows = "; in drilldowns what leaves by wan0 having arrived by lan0\n";
    assert_eq!(planned.matches(flows).count(), 1, "{planned}");
    assert!(planned.contains("\tcounter wan_in {"));
}
