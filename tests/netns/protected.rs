//! A table that the daemon owns: whatever others do to the ruleset, not one packet goes uncounted; and what becomes of
//! it when the daemon ends, comes back, or is not allowed to own it.

use std::time::Duration;

use flowctl::event::Event;
use flowctl::kernel::nft::Protection;
use flowctl::lab::{Generator, LabOptions};

use crate::support::{Bench, Daemon, WAN_AND_HOME, gaps, lab, namespace, pause, stream};

/// As NixOS' nftables service loads its ruleset: a flush and all tables in one transaction.
const FIREWALL: &str = "flush ruleset\n\
    table inet fw { chain forward { type filter hook forward priority 0; policy accept; counter; }; }\n";

fn load_firewall(bench: &Bench<'_>) {
    let file = bench.path().join("firewall.nft");
    std::fs::write(&file, FIREWALL).unwrap();
    bench.nft(&["-f", file.to_str().unwrap()]);
}

/// Nothing that was sent is missing, and nothing counted twice.
fn assert_complete(daemon: &Daemon<'_>, upload: Generator) {
    upload.stop();
    let sent = upload.finish().unwrap().up.sent;
    daemon.settle();
    let counter = daemon.counter("home_from");
    assert_eq!(counter.packets, sent.packets);
    assert_eq!(counter.bytes, sent.bytes);
}

#[test]
fn a_flush_a_reload_and_every_edit_pass_it_by() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, WAN_AND_HOME);
    let daemon = bench.start();
    assert_eq!(daemon.status().table.protection, Protection::Owned);
    let upload = stream(&lab, 200, 16e6);
    for _ in 0..20 {
        bench.nft(&["flush", "ruleset"]);
        load_firewall(&bench);
        pause(Duration::from_millis(20));
    }
    for refused in [
        &["delete", "table", "inet", "flowctl"][..],
        &["flush", "table", "inet", "flowctl"],
        &["flush", "chain", "inet", "flowctl", "ingress"],
    ] {
        let mut nft = std::process::Command::new("nft");
        nft.args(refused);
        let output = crate::support::run_in(&lab.router, nft);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            said.contains("Operation not permitted"),
            "{refused:?}: {said}"
        );
    }
    assert_complete(&daemon, upload);
    assert_eq!((gaps(&bench).len(), daemon.status().table.repairs), (0, 0));
}

#[test]
fn a_restart_a_kill_and_a_reload_take_it_over_with_its_counters() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, WAN_AND_HOME);
    let mut daemon = bench.start();
    let upload = stream(&lab, 200, 16e6);
    for round in 0..6 {
        pause(Duration::from_millis(150));
        if round % 2 == 0 {
            daemon.kill();
        } else {
            daemon.stop();
        }
        pause(Duration::from_millis(50));
        daemon = bench.start();
        assert_eq!(daemon.status().table.protection, Protection::Owned);
        bench.configure(&format!(
            "{WAN_AND_HOME}more{round} = [\"10.88.{round}.0/24\"]\n"
        ));
        daemon.signal(rustix::process::Signal::HUP);
        bench.nft(&["flush", "ruleset"]);
    }
    assert_complete(&daemon, upload);
    assert_eq!(gaps(&bench).len(), 0);
}

#[test]
fn flushed_while_nobody_owned_it_it_is_made_again_and_totals_go_on() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, WAN_AND_HOME);
    let daemon = bench.start();
    let upload = stream(&lab, 200, 16e6);
    pause(Duration::from_millis(300));
    let shown = daemon.counter("home_from").bytes;
    daemon.kill();
    load_firewall(&bench);
    let daemon = bench.start();
    assert!(daemon.counter("home_from").bytes >= shown);
    assert_eq!(gaps(&bench).len(), 1);
    assert_eq!(daemon.status().table.protection, Protection::Owned);
    drop(upload);
}

#[test]
fn a_plain_table_becomes_protected_and_back_without_losing_its_totals() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let plain = format!("{WAN_AND_HOME}[table]\nprotect = \"off\"\n");
    let bench = Bench::new(&lab.router, &plain);
    let daemon = bench.start();
    assert_eq!(daemon.status().table.protection, Protection::Plain);
    let upload = stream(&lab, 200, 16e6);
    pause(Duration::from_millis(300));
    daemon.stop();
    bench.configure(WAN_AND_HOME);
    let daemon = bench.start();
    assert_eq!(daemon.status().table.protection, Protection::Owned);
    let (mut missing, mut bound) = (0, 0);
    for gap in gaps(&bench) {
        bound += gap.bound_bytes.unwrap();
    }
    daemon.stop();
    bench.configure(&plain);
    let daemon = bench.start();
    assert_eq!(daemon.status().table.protection, Protection::Plain);
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    daemon.settle();
    let counted = daemon.counter("home_from").bytes;
    assert!(counted <= sent, "{counted} counted, {sent} sent");
    missing += sent - counted;
    assert!(missing <= bound, "{missing} missed, {bound} stated");
}

#[test]
fn a_reload_does_not_change_who_may_change_the_table() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let daemon = bench.start();
    bench.configure(&format!("{WAN_AND_HOME}[table]\nprotect = \"off\"\n"));
    daemon.signal(rustix::process::Signal::HUP);
    let said = daemon.await_record("a refusal", |event| match event {
        Event::Config { messages, .. } => Some(messages.join("\n")),
        _ => None,
    });
    assert!(said.contains("table.protect cannot change"), "{said}");
}

#[test]
fn removal_takes_it_away_with_and_without_a_daemon() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let daemon = bench.start();
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    drop(daemon);
    bench.start().kill();
    assert_ne!(bench.nft(&["list", "tables"]), "");
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
}

#[test]
fn a_table_that_another_process_owns_is_left_to_it() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let owner = namespace.run(|| {
        let mut nftables = flowctl::kernel::nftables::Nftables::open().unwrap();
        assert_eq!(nftables.protect().unwrap(), Protection::Owned);
        let ruleset = flowctl::plan::ruleset::Ruleset::empty("flowctl");
        nftables.install(&ruleset).unwrap();
        nftables
    });
    for command in ["run", "remove"] {
        let output = bench.flowctl(&[command]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(75), "{command}: {said}");
        assert!(said.contains("is owned by another process"), "{said}");
    }
    drop(owner);
    bench.start().stop();
}
