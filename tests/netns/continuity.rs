//! Totals across ends and beginnings: what a daemon has shown never falls, whatever happened to it, to its table and to
//! its files; what may be missing is stated, and what others put back is not counted again.

use std::process::Command;
use std::time::Duration;

use flowctl::lab::{Generator, LabOptions};

use crate::support::{
    Bench, Daemon, burst, eventually, gaps, lab, namespace, pause, run_in, stream,
};

const CONFIG: &str = r#"
tick = "100ms"
table.protect = "off"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.77.1.0/24"]
"#;

fn total(daemon: &Daemon<'_>) -> u64 {
    daemon.counter("home_from").bytes
}

/// Ends the upload; what was sent and not counted.
fn missed(daemon: &Daemon<'_>, upload: Generator) -> u64 {
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    daemon.settle();
    let counted = total(daemon);
    assert!(counted <= sent, "{counted} counted, {sent} sent");
    sent - counted
}

#[test]
fn what_was_shown_before_a_kill_and_a_flush_is_never_taken_back() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let mut daemon = bench.start();
    let upload = stream(&lab, 1000, 8e6);
    for _ in 0..5 {
        pause(Duration::from_millis(330));
        let mut shown = 0;
        for _ in 0..8 {
            shown = total(&daemon);
            pause(Duration::from_millis(7));
        }
        daemon.kill();
        bench.nft(&["flush", "ruleset"]);
        daemon = bench.start();
        let now = total(&daemon);
        assert!(now >= shown, "the total fell from {shown} to {now}");
    }
    let gaps = gaps(&bench);
    assert_eq!(gaps.len(), 5, "{gaps:?}");
    assert!(gaps[0].cause.contains("was gone when flowctl started"));
    let bound: u64 = gaps.iter().map(|gap| gap.bound_bytes.unwrap()).sum();
    let missed = missed(&daemon, upload);
    assert!(missed > 0, "five flushes lose something");
    assert!(missed <= bound, "{missed} missed, {bound} stated");
}

/// Over whole ticks this burst is far below raise, over the moment between a tick and the end far above.
#[test]
fn the_end_soon_after_a_tick_counts_what_passed_and_alerts_nobody() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let slow = CONFIG.replace("100ms", "3s");
    let bench = Bench::new(
        &lab.router,
        &format!(
            "{slow}[thresholds.busy]\ncounter = \"home_from\"\nraise = \"1500kbit/s\"\nhold = \"0s\"\n"
        ),
    );
    let daemon = bench.start();
    let before = daemon.status().tick.sequence;
    eventually("the next tick", || {
        (daemon.status().tick.sequence > before).then_some(())
    });
    let sent = burst(&lab, 200);
    let said = daemon.stop();
    assert!(!said.contains("busy"), "{said}");
    let raised = |line: &serde_json::Value| line["event"] == "raised";
    assert!(!bench.lines().iter().any(raised));
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    assert_eq!(total(&bench.start()), sent, "saved at the end");
}

#[test]
fn a_table_put_back_with_old_values_counts_nothing_twice() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let upload = stream(&lab, 1000, 8e6);
    pause(Duration::from_millis(700));
    let file = bench.path().join("saved.nft");
    let put_back = || {
        let listing = bench.nft(&["list", "table", "inet", "flowctl"]);
        std::fs::write(&file, format!("delete table inet flowctl\n{listing}")).unwrap();
        bench.nft(&["-f", file.to_str().unwrap()]);
    };
    for repairs in 1..=3 {
        put_back();
        eventually("the table is repaired", || {
            (daemon.status().table.repairs >= repairs).then_some(())
        });
    }
    daemon.kill();
    put_back();
    let daemon = bench.start();
    let stated = gaps(&bench);
    let causes: Vec<&str> = stated.iter().map(|gap| gap.cause.as_str()).collect();
    assert!(causes.last().unwrap().contains("made anew"), "{causes:?}");
    let bound: u64 = stated.iter().map(|gap| gap.bound_bytes.unwrap()).sum();
    // It never counts more than was sent.
    let missed = missed(&daemon, upload);
    assert!(missed <= bound, "{missed} missed, {bound} stated");
}

#[test]
fn another_boot_or_another_namespace_is_a_gap_without_a_bound() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    bench.start().stop();
    for name in ["totals.json", "totals-live.json"] {
        let path = bench.state_dir().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut saved: serde_json::Value = serde_json::from_str(&text).unwrap();
        saved["boot_id"] = "an earlier one".into();
        saved["counters"]["wan_in"]["total"]["bytes"] = 12_345.into();
        std::fs::write(&path, saved.to_string()).unwrap();
    }
    let daemon = bench.start();
    assert_eq!(daemon.counter("wan_in").bytes, 12_345);
    let gaps = gaps(&bench);
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].bound_bytes, None);
    assert!(gaps[0].cause.contains("started anew"), "{gaps:?}");
}

#[test]
fn a_clean_stop_or_a_removal_leaves_no_gap() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    bench.start().stop();
    bench.start().stop();
    assert!(bench.flowctl(&["remove"]).status.success());
    bench.start().stop();
    assert_eq!(gaps(&bench), []);
}

#[test]
fn two_namespaces_do_not_share_a_state_directory() {
    let (Some(one), Some(other)) = (namespace(), namespace()) else {
        return;
    };
    let bench = Bench::new(&one, CONFIG);
    let daemon = bench.start();
    let mut command = bench.command(&["run"]);
    command.arg("--socket").arg(bench.path().join("other.sock"));
    let output = run_in(&other, command);
    assert_eq!(output.status.code(), Some(75));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("give each its own with --state-dir"),
        "{said}"
    );
    assert_eq!(
        crate::support::nft_in(&other, &["list", "ruleset"]),
        "",
        "nothing is left where it could not start"
    );
    drop(daemon);
}

#[test]
fn a_start_that_fails_after_looking_at_the_kernel_leaves_nothing() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    std::fs::write(bench.socket(), "not a socket").unwrap();
    let output = bench.flowctl(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    std::fs::remove_file(bench.socket()).unwrap();
}

#[test]
fn a_start_that_runs_out_of_descriptors_leaves_nothing() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    let mut failed = 0;
    for descriptors in 4..64 {
        let daemon = bench.command(&["run"]);
        let mut command = Command::new("timeout");
        let limit = format!("--nofile={descriptors}");
        command.args(["--signal=KILL", "1", "prlimit", &limit, "--"]);
        command.arg(daemon.get_program()).args(daemon.get_args());
        // Killed after a second: it had started.
        if run_in(&namespace, command)
            .status
            .code()
            .is_none_or(|code| code == 137)
        {
            break;
        }
        failed += 1;
        assert_eq!(bench.nft(&["list", "ruleset"]), "", "with {descriptors}");
        assert!(!bench.socket().exists());
    }
    assert!(failed > 10, "only {failed} starts failed");
}

#[test]
fn an_interface_keeps_its_label_bits_over_reload_and_restart() {
    let Some(namespace) = namespace() else {
        return;
    };
    let threshold = "[thresholds.full]\ncounter = \"wan_in\"\nraise = \"1Mbit/s\"\n";
    let with = |interfaces: &str| format!("[interfaces]\n{interfaces}{threshold}");
    let bench = Bench::new(
        &namespace,
        &with("wan.device = \"wan0\"\nlan.device = \"lan0\"\n"),
    );
    let daemon = bench.start();
    let labels = || {
        let listing = bench.nft(&["list", "chain", "inet", "flowctl", "label_in"]);
        let mut rules: Vec<String> = (listing.lines())
            .filter(|line| line.contains("label set"))
            .map(|line| line.trim().to_owned())
            .collect();
        rules.sort();
        rules
    };
    let rule = |device: &str, bit: u8| format!("iifname \"{device}\" ct label set {bit}");
    assert_eq!(labels(), [rule("lan0", 2), rule("wan0", 0)]);
    let file = with("dmz.device = \"dmz0\"\nlan.device = \"lan0\"\nwan.device = \"wan0\"\n");
    bench.configure(&file);
    daemon.signal(rustix::process::Signal::HUP);
    let wanted = [rule("dmz0", 4), rule("lan0", 2), rule("wan0", 0)];
    eventually("the reload", || (labels() == wanted).then_some(()));
    daemon.kill();
    bench.configure(&with("dmz.device = \"dmz0\"\nwan.device = \"wan0\"\n"));
    let daemon = bench.start();
    assert_eq!(labels(), [rule("dmz0", 4), rule("wan0", 0)]);
    let planned = bench.flowctl(&["plan"]);
    let planned = String::from_utf8(planned.stdout).unwrap();
    assert!(planned.contains(&rule("dmz0", 4)), "{planned}");
    drop(daemon);
}
