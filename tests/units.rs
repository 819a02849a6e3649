//! The files in `systemd/`: systemd finds nothing wrong with the unit, which may do little more than it must, and what it
//! may not do stands in the files beside it. Skipped loudly where the programs are missing.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "this is a test"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use flowctl::kernel::facts::NEEDED_SYSCTLS;

/// In tenths, as systemd-analyze takes it.
const EXPOSURE_MAX: &str = "--threshold=19";
const UNITS: &str = "usr/lib/systemd/system";
const UNIT: &str = "systemd/flowctl.service";

fn file(name: &str) -> String {
    fs::read_to_string(Path::new("systemd").join(name)).unwrap()
}

/// Lines that say something.
fn settings(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// A machine that has flowctl, this unit and the targets that every unit needs; `None` where systemd is missing here.
fn machine(unit: &str) -> Option<tempfile::TempDir> {
    let found = Command::new("systemd-analyze").arg("--version").output();
    let targets = Path::new("/usr/lib/systemd/system");
    if found.is_err() || !targets.join("sysinit.target").exists() {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "the units must not be skipped in CI");
        eprintln!("SKIPPED, no systemd-analyze, or no targets in {targets:?}");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join(UNITS);
    fs::create_dir_all(&units).unwrap();
    for entry in fs::read_dir(targets).unwrap() {
        let path = entry.unwrap().path();
        let wanted =
            ["target", "slice"].map(|ending| path.extension().is_some_and(|e| e == ending));
        if wanted.contains(&true) && path.is_file() {
            fs::copy(&path, units.join(path.file_name().unwrap())).unwrap();
        }
    }
    fs::write(units.join("flowctl.service"), unit).unwrap();
    let programs = root.path().join("usr/bin");
    fs::create_dir_all(&programs).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_flowctl"), programs.join("flowctl")).unwrap();
    Some(root)
}

fn verify(root: &Path) -> Output {
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg("--root").arg(root);
    command.arg(root.join(UNITS).join("flowctl.service"));
    command.output().unwrap()
}

fn exposure(root: &Path) -> Output {
    let mut command = Command::new("systemd-analyze");
    let arguments = ["security", "--offline=true", "--no-pager", EXPOSURE_MAX];
    command.args(arguments).arg("--root").arg(root);
    command.arg("flowctl.service").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let Some(root) = machine(&fs::read_to_string(UNIT).unwrap()) else {
        return;
    };
    let output = verify(root.path());
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "");
    fs::remove_file(root.path().join("usr/bin/flowctl")).unwrap();
    let output = verify(root.path());
    assert!(
        said(&output).contains("flowctl is not executable"),
        "a bare name is looked up: {}",
        said(&output)
    );
}

#[test]
fn a_misspelt_setting_would_be_found() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let Some(root) = machine(&unit.replace("WatchdogSec", "WatchdogSek")) else {
        return;
    };
    assert!(said(&verify(root.path())).contains("WatchdogSek"));
}

#[test]
fn the_unit_is_exposed_to_little_and_privileges_more_would_be_found() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let Some(root) = machine(&unit) else {
        return;
    };
    let output = exposure(root.path());
    assert!(output.status.success(), "{}", said(&output));
    let more = unit.replace("CapabilityBoundingSet=CAP_NET_ADMIN\n", "");
    assert_ne!(more, unit);
    let root = machine(&more).unwrap();
    let output = exposure(root.path());
    assert!(!output.status.success(), "{}", said(&output));
}

#[test]
fn the_unit_says_what_the_daemon_relies_on() {
    let unit = file("flowctl.service");
    let settings = settings(&unit);
    for setting in [
        "Type=notify",
        "ExecStart=flowctl run",
        "ExecReload=flowctl reload",
        "FileDescriptorStoreMax=1",
        "RestartPreventExitStatus=64 77 78",
        "AmbientCapabilities=CAP_NET_ADMIN",
        "StateDirectory=flowctl",
        "RuntimeDirectory=flowctl",
        "Group=flowctl",
    ] {
        assert!(settings.contains(&setting), "{setting}");
    }
}

#[test]
fn what_the_unit_may_not_do_is_done_at_boot() {
    let sysctls = file("flowctl.sysctl.conf");
    let sysctls = settings(&sysctls);
    let wanted =
        NEEDED_SYSCTLS.map(|(name, value)| format!("net.netfilter.nf_conntrack_{name} = {value}"));
    let mut wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    assert_eq!(sysctls, wanted);
    let modules = file("flowctl.modules-load.conf");
    assert_eq!(
        settings(&modules),
        [
            "nfnetlink",
            "nf_tables",
            "nf_conntrack",
            "nf_conntrack_netlink"
        ]
    );
    let users = file("flowctl.sysusers.conf");
    assert_eq!(settings(&users), ["g flowctl -"]);
}
