//! What a daemon makes of the state directory it finds: totals that are lost or damaged begin with what the table
//! still counts, nothing unreadable is overwritten, and a directory that cannot be used is said before anything is
//! installed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use flowctl::event::Event;
use flowctl::lab::LabOptions;

use crate::disk::Disk;
use crate::support::{Bench, burst, by, bytes, eventually, lab, namespace, run_in, said};

const CONFIG: &str = r#"
tick = "200ms"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.77.1.0/24"]
"#;

fn lose(file: &Path) {
    fs::remove_file(file).unwrap();
}

fn notes_of_last_start(bench: &Bench<'_>) -> String {
    let records = bench.records();
    let last = records
        .into_iter()
        .rev()
        .find_map(|record| match record.event {
            Event::Started { notes, .. } => Some(notes.join("\n")),
            _ => None,
        });
    last.unwrap()
}

#[test]
fn damaged_totals_are_kept_aside_and_begin_with_what_the_table_counts() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    bench.start().stop();
    let totals = bench.state_dir().join("totals.json");
    let live = bench.state_dir().join("totals-live.json");
    let good = fs::read_to_string(&totals).unwrap();
    let later = good.replace("\"version\":1", "\"version\":2");
    assert_ne!(later, good);
    let damages: [&[u8]; 7] = [
        b"",
        &good.as_bytes()[..good.len() - 9],
        &good.as_bytes()[..10],
        &[0; 4096],
        b"\xff\xfe\x00{}",
        b"{\"version\":1,\"counters\":{\"WAN OUT\":{}}}",
        later.as_bytes(),
    ];
    let mut sent = 0;
    for (number, damage) in damages.iter().enumerate() {
        sent += burst(&lab, 100);
        lose(&live);
        fs::write(&totals, damage).unwrap();
        let daemon = bench.start();
        assert_eq!(bytes(&daemon.status()), sent, "{damage:?}");
        let kept = format!("totals.json.corrupt-{}", number + 1);
        assert_eq!(fs::read(bench.state_dir().join(&kept)).unwrap(), *damage);
        let notes = notes_of_last_start(&bench);
        assert!(notes.contains(&kept), "{notes}");
        sent += burst(&lab, 100);
        assert_eq!(bytes(&daemon.settle()), sent);
        daemon.kill();
    }
    // Without a file there is nothing to say, and with a new table nothing to begin with.
    lose(&totals);
    lose(&live);
    let daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent);
    daemon.kill();
    lose(&totals);
    lose(&live);
    bench.nft(&["flush", "ruleset"]);
    let daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), 0);
    daemon.stop();
    let kept = fs::read_dir(bench.state_dir()).unwrap().count();
    assert_eq!(kept, damages.len() + 3, "totals, log and all that was kept");
}

#[test]
fn totals_that_a_remove_cannot_read_are_kept_too() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    bench.start().stop();
    fs::write(bench.state_dir().join("totals.json"), "{\"half").unwrap();
    assert_eq!(bench.flowctl(&["remove"]).status.code(), Some(0));
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    let kept = bench.state_dir().join("totals.json.corrupt-1");
    assert_eq!(fs::read_to_string(kept).unwrap(), "{\"half");
}

/// It ended with 1, named the place and the remedy, and installed nothing.
fn assert_refused(bench: &Bench<'_>, output: &Output, place: &Path) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&*place.to_string_lossy()), "{text}");
    assert!(text.contains("--state-dir"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    assert!(!bench.socket().exists(), "nothing answers");
}

#[test]
fn a_state_directory_that_cannot_be_used_is_said_before_anything_is_installed() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    let file = bench.path().join("file");
    fs::write(&file, "precious").unwrap();
    for place in [file.clone(), file.join("below")] {
        let bench = Bench::new(&namespace, CONFIG).with_state(place.clone());
        assert_refused(&bench, &bench.flowctl(&["run"]), &place);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

    // A root that may not read and write everything, as under a service manager.
    fs::create_dir(bench.state_dir()).unwrap();
    fs::set_permissions(bench.state_dir(), fs::Permissions::from_mode(0o000)).unwrap();
    let bounded = "--bounding-set=-dac_override,-dac_read_search";
    let run = by(&["setpriv", bounded, "--"], &bench.command(&["run"]));
    assert_refused(&bench, &run_in(&namespace, run), &bench.state_dir());

    let disk = Disk::new(64);
    let bench = Bench::new(&namespace, CONFIG).with_state(disk.path());
    disk.remount("ro");
    assert_refused(&bench, &bench.flowctl(&["run"]), &disk.path());
    disk.remount("rw");
    fs::create_dir(disk.path().join("totals.json")).unwrap();
    assert_refused(&bench, &bench.flowctl(&["run"]), &disk.path());
}

#[test]
fn totals_that_would_not_survive_a_power_cut_are_said_until_they_do() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    fs::create_dir_all(bench.state_dir().join("totals.json.new")).unwrap();
    let daemon = bench.start();
    for _ in 0..3 {
        let report = daemon.settle();
        let mut health = report.health.iter();
        let failed = health.find(|entry| entry.code == "totals_write_failed");
        let message = &failed.unwrap().message;
        assert!(message.contains("totals.json.new"), "{message}");
    }
    fs::remove_dir(bench.state_dir().join("totals.json.new")).unwrap();
    eventually("they survive one again", || {
        let report = daemon.settle();
        let mut health = report.health.iter();
        health
            .all(|entry| entry.code != "totals_write_failed")
            .then_some(())
    });
    daemon.stop();
}

#[test]
fn a_state_directory_that_goes_while_it_runs_is_said_and_used_again_when_it_is_back() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let troubled = |wanted: bool| {
        eventually("what the daemon says of its directory", || {
            let report = daemon.settle();
            let found = report
                .health
                .iter()
                .any(|e| e.code == "totals_write_failed");
            (found == wanted).then_some(())
        });
    };
    let mut sent = burst(&lab, 50);
    fs::remove_dir_all(bench.state_dir()).unwrap();
    troubled(true);
    sent += burst(&lab, 50);
    fs::create_dir(bench.state_dir()).unwrap();
    troubled(false);
    assert_eq!(bytes(&daemon.settle()), sent);
    daemon.kill();
    let daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent);
    let records = bench.records();
    assert!(
        records.iter().any(|record| matches!(&record.event, Event::Health { code, active: false, .. } if code == "totals_write_failed")),
        "{records:?}"
    );
}
