//! The house rules that a compiler does not check: heads of files, their size, which way imports go, and that the
//! documents name what is there.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Code lines of a file, without its inline tests.
const CODE_LINES_MAX: usize = 400;

/// Pure: no clock, no I/O, no environment, and nothing of the modules that have them.
const PURE: [&str; 36] = [
    "src/units.rs",
    "src/units/",
    "src/meter.rs",
    "src/threshold.rs",
    "src/ask.rs",
    "src/watch.rs",
    "src/demand.rs",
    "src/demand/",
    "src/engine.rs",
    "src/interfaces.rs",
    "src/report.rs",
    "src/event.rs",
    "src/health.rs",
    "src/config/addresses.rs",
    "src/config/discover.rs",
    "src/config/discover_text.rs",
    "src/config/naming.rs",
    "src/drilldown/",
    "src/names/dnsmasq.rs",
    "src/names/ethers.rs",
    "src/names/hosts_file.rs",
    "src/names/json.rs",
    "src/names/kea.rs",
    "src/names/lease.rs",
    "src/names/neighbourhood.rs",
    "src/names/networkd.rs",
    "src/plan/",
    "src/sink/reload.rs",
    "src/sink/service_text.rs",
    "src/kernel/attr.rs",
    "src/kernel/nft.rs",
    "src/kernel/conntrack.rs",
    "src/kernel/flow_request.rs",
    "src/kernel/expression.rs",
    "src/config/hosts.rs",
    "src/kernel/set.rs",
];
const NOT_IN_PURE: [&str; 18] = [
    "crate::daemon",
    "crate::sink",
    "crate::cli",
    "crate::lab",
    "crate::demo",
    "kernel::socket",
    "kernel::nftables",
    "kernel::flows",
    "kernel::flow_events",
    "kernel::facts",
    "kernel::monitor",
    "kernel::probe",
    "std::fs",
    "std::env",
    "std::thread",
    "std::process",
    "Instant",
    "netlink_sys",
];
/// What the core must not know of.
const BELOW_THE_DAEMON: [&str; 2] = ["src/kernel/", "src/config/"];
const ABOVE: [&str; 4] = ["crate::daemon", "crate::cli", "crate::lab", "crate::sink"];
/// Unfinished work has no place in a commit.
const UNFINISHED: [&str; 5] = ["TODO", "FIXME", "XXX", "todo!", "#[ignore"];

fn files_below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// The file without its inline tests.
fn code(path: &Path) -> String {
    let text = text(path);
    text.split("\n#[cfg(test)]\nmod ")
        .next()
        .unwrap()
        .to_owned()
}

fn is_below(path: &Path, places: &[&str]) -> bool {
    let path = path.to_str().unwrap();
    places
        .iter()
        .any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
}

fn complain(broken: Vec<String>) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_decides() {
    let sources = files_below("src", "rs")
        .into_iter()
        .chain(files_below("tests", "rs"));
    let headless = sources.filter(|path| !is_test_module(path) && !text(path).starts_with("//! "));
    complain(
        headless
            .map(|path| format!("{} has no head", path.display()))
            .collect(),
    );
}

/// `tests.rs` beside the code it tests needs no head.
fn is_test_module(path: &Path) -> bool {
    path.starts_with("src")
        && path
            .file_stem()
            .is_some_and(|stem| stem.to_str().unwrap().ends_with("tests"))
}

#[test]
fn no_file_outgrows_its_name() {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let grown = files_below("src", "rs")
        .into_iter()
        .filter(|path| !is_test_module(path))
        .filter_map(|path| {
            let lines = code(&path).lines().filter(is_code).count();
            (lines > CODE_LINES_MAX).then(|| format!("{} has {lines} code lines", path.display()))
        });
    complain(grown.collect());
}

#[test]
fn pure_modules_stay_pure_and_nothing_looks_upwards() {
    let mut broken = Vec::new();
    for path in files_below("src", "rs")
        .into_iter()
        .filter(|path| !is_test_module(path))
    {
        let code = code(&path);
        let banned: &[&str] = if is_below(&path, &PURE) {
            &NOT_IN_PURE
        } else if is_below(&path, &BELOW_THE_DAEMON) {
            &ABOVE
        } else {
            &[]
        };
        let lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            let found = banned.iter().filter(|word| line.contains(**word));
            broken.extend(
                found.map(|word| format!("{} uses {word}: {}", path.display(), line.trim())),
            );
        }
    }
    complain(broken);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut broken = Vec::new();
    for path in files_below("src", "rs")
        .into_iter()
        .chain(files_below("docs", "md"))
    {
        let text = text(&path);
        broken.extend(
            UNFINISHED
                .iter()
                .filter(|word| text.contains(**word))
                .map(|word| format!("{}: {word}", path.display())),
        );
    }
    complain(broken);
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let manifest = text(Path::new("Cargo.toml"));
    let reasons = text(Path::new("docs/dependencies.md"));
    let mut section = "";
    let mut broken = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]")
            && let Some((name, _)) = line.split_once(" = ")
            && !reasons.contains(&format!("| {name} |"))
        {
            broken.push(format!("docs/dependencies.md has no row for {name}"));
        }
    }
    complain(broken);
}

#[test]
fn the_map_of_the_house_is_complete() {
    let map = text(Path::new("docs/architecture.md"));
    let mut broken = Vec::new();
    for entry in fs::read_dir("src").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "lib.rs" && !map.contains(&format!("`{}`", name.trim_end_matches(".rs"))) {
            broken.push(format!("docs/architecture.md does not name {name}"));
        }
    }
    complain(broken);
}
