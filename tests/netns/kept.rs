//! The table's socket in a service manager's keeping: between two daemons the table is nobody else's, and what is handed
//! over that is not that socket does no harm.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use flowctl::kernel::nft::{Protection, TableInfo};
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::{LabOptions, Namespace};
use flowctl::report::Severity;
use flowctl::units::TableFamily;

use crate::manager::Manager;
use crate::support::{
    Bench, Daemon, WAN_AND_HOME, eventually, gaps, lab, namespace, pause, run_in, said, stream,
};

fn table(namespace: &Namespace, name: &str) -> Option<TableInfo> {
    let look = || Nftables::open().unwrap().table(TableFamily::Inet, name);
    namespace.run(look).unwrap().unwrap()
}

fn owner(namespace: &Namespace) -> Option<u32> {
    table(namespace, "flowctl").unwrap().owner
}

/// What the newest daemon says of what it was handed.
fn notes(bench: &Bench<'_>) -> String {
    let started = bench.records().into_iter().rev();
    let mut notes = started.filter_map(|record| match record.event {
        flowctl::event::Event::Started { notes, .. } => Some(notes.join("\n")),
        _ => None,
    });
    notes.next().unwrap()
}

fn assert_owned(daemon: &Daemon<'_>) {
    assert_eq!(daemon.status().table.protection, Protection::Owned);
    assert!(owner(daemon.bench.namespace).is_some());
}

#[test]
fn between_two_daemons_nobody_can_flush_it_and_not_one_packet_is_missed() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, WAN_AND_HOME);
    let manager = Manager::new();
    let mut daemon = manager.start(&bench, &[]);
    manager.await_kept();
    let (handle, port) = (
        table(&lab.router, "flowctl").unwrap().handle,
        owner(&lab.router),
    );
    let upload = stream(&lab, 200, 16e6);
    for round in 0..4 {
        pause(Duration::from_millis(150));
        if round % 2 == 0 {
            daemon.kill();
        } else {
            daemon.stop();
        }
        assert_eq!(owner(&lab.router), port, "its socket is still open");
        bench.nft(&["flush", "ruleset"]);
        daemon = manager.start_with(&bench, "table", manager.kept().unwrap());
        assert_owned(&daemon);
        assert_eq!(table(&lab.router, "flowctl").unwrap().handle, handle);
        assert_eq!(owner(&lab.router), port);
        // Changed through it, and not taken for a change by others.
        bench.configure(&format!(
            "{WAN_AND_HOME}more{round} = [\"10.88.{round}.0/24\"]\n"
        ));
        let output = bench.flowctl(&["reload"]);
        assert!(output.status.success(), "{}", said(&output));
        bench.nft(&["flush", "ruleset"]);
    }
    upload.stop();
    let sent = upload.finish().unwrap().up.sent;
    daemon.settle();
    let counter = daemon.counter("home_from");
    assert_eq!((counter.packets, counter.bytes), (sent.packets, sent.bytes));
    assert_eq!((gaps(&bench).len(), daemon.status().table.repairs), (0, 0));
    assert_eq!(manager.values("FDSTORE="), ["1"], "it was kept once");
    assert_eq!(manager.values("FDSTOREREMOVE="), [""; 0]);
    assert_eq!(notes(&bench), "");
}

/// As the unit has it: a user of its own with one privilege, and no way to more.
const AS_THE_UNIT: [&str; 7] = [
    "setpriv",
    "--reuid=64321",
    "--regid=64321",
    "--clear-groups",
    "--inh-caps=-all,+net_admin",
    "--ambient-caps=+net_admin",
    "--bounding-set=-all,+net_admin",
];

#[test]
fn a_user_of_its_own_with_cap_net_admin_alone_can_do_all_of_it() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, WAN_AND_HOME);
    let manager = Manager::new();
    std::os::unix::fs::chown(bench.path(), Some(64321), Some(64321)).unwrap();
    let as_the_unit = [&AS_THE_UNIT[..], &["--no-new-privs"]].concat();
    // What has an absolute path does not begin where the daemon was started.
    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = manager.command_by(&as_the_unit, &bench, &[]);
    command.current_dir(closed.path());
    let mut daemon = bench.start_as(command);
    let port = {
        manager.await_kept();
        owner(&lab.router)
    };
    let upload = stream(&lab, 200, 16e6);
    for _ in 0..3 {
        pause(Duration::from_millis(150));
        daemon.kill();
        bench.nft(&["flush", "ruleset"]);
        let settings = [("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "table")];
        let command = manager.command_by(&as_the_unit, &bench, &settings);
        daemon = bench.start_from(command, manager.kept().unwrap().into());
        assert_owned(&daemon);
        assert_eq!((owner(&lab.router), notes(&bench)), (port, String::new()));
    }
    upload.stop();
    let sent = upload.finish().unwrap().up.sent;
    daemon.settle();
    assert_eq!(daemon.counter("home_from").packets, sent.packets);
    let errors: Vec<String> = (daemon.status().health.iter())
        .filter(|entry| entry.severity == Severity::Error)
        .map(|entry| entry.code.clone())
        .collect();
    assert_eq!((errors, gaps(&bench).len()), (Vec::new(), 0));
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
}

#[test]
fn stopped_as_a_unit_it_leaves_a_table_that_anyone_may_have() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let manager = Manager::new();
    let daemon = manager.start(&bench, &[]);
    manager.await_kept();
    daemon.stop();
    manager.release();
    assert_eq!(owner(&namespace), None);
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
}

#[test]
fn removal_has_it_let_go_and_says_what_to_do_while_no_daemon_can() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let manager = Manager::new();
    let daemon = manager.start(&bench, &[]);
    manager.await_kept();
    let output = bench.flowctl(&["remove"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    assert!(manager.kept().is_none());
    drop(daemon);
    manager.start(&bench, &[]).kill();
    manager.await_kept();
    let output = bench.flowctl(&["remove"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(75), "{text}");
    assert!(text.contains("`systemctl stop flowctl`"), "{text}");
    assert!(table(&namespace, "flowctl").is_some());
    manager.release();
    assert!(bench.flowctl(&["remove"]).status.success());
}

#[test]
fn a_socket_that_a_killed_daemon_left_half_read_is_read_to_its_end_first() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, &many_counters());
    let manager = Manager::new();
    let daemon = manager.start(&bench, &[]);
    let socket = manager.await_kept();
    let port = owner(&namespace);
    daemon.kill();
    for flags in [0x301_u16, 0x1] {
        // A dump of all counters, of which nobody reads the answer; then a question to which there is one.
        for sequence in 1..=3_u32 {
            let mut request = Vec::new();
            request.extend_from_slice(&20_u32.to_ne_bytes());
            request.extend_from_slice(&0x0a13_u16.to_ne_bytes());
            request.extend_from_slice(&flags.to_ne_bytes());
            request.extend_from_slice(&sequence.to_ne_bytes());
            request.extend_from_slice(&0_u32.to_ne_bytes());
            request.extend_from_slice(&[1, 0, 0, 0]);
            rustix::net::send(&socket, &request, rustix::net::SendFlags::empty()).unwrap();
        }
    }
    let daemon = manager.start_with(&bench, "table", socket);
    assert_owned(&daemon);
    assert_eq!((owner(&namespace), notes(&bench)), (port, String::new()));
    assert_eq!(daemon.status().counters.len(), 2 + 2 * 600);
    assert!(
        daemon
            .status()
            .counters
            .iter()
            .all(|counter| counter.present)
    );
    assert_eq!(daemon.status().table.repairs, 0);
    daemon.stop();
}

fn many_counters() -> String {
    let subnets = (0..600).map(|number| {
        let (high, low) = (number / 200, number % 200);
        format!("s{number} = [\"10.{high}.{low}.0/24\"]\n")
    });
    "tick = \"100ms\"\n[interfaces.wan]\ndevice = \"wan0\"\n[subnets]\n".to_owned()
        + &subnets.collect::<String>()
}

#[test]
fn what_is_no_socket_of_netfilter_is_closed_and_a_new_one_is_kept() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let manager = Manager::new();
    let (pipe, _other) = UnixStream::pair().unwrap();
    let daemon = manager.start_with(&bench, "table", OwnedFd::from(pipe));
    manager.await_kept();
    assert_owned(&daemon);
    assert!(
        notes(&bench).contains("it is not a netlink socket of netfilter"),
        "{}",
        notes(&bench)
    );
    let said = manager.said();
    let position = |wanted: &str| {
        said.iter()
            .position(|s| s.lines.iter().any(|l| l == wanted))
    };
    assert!(position("FDSTOREREMOVE=1").unwrap() < position("FDSTORE=1").unwrap());
    daemon.stop();
    let (pipe, other) = UnixStream::pair().unwrap();
    manager.release();
    let _daemon = manager.start_with(&bench, "other", OwnedFd::from(pipe));
    // Whoever has the other end sees that it was closed.
    other
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let read = std::io::Read::read(&mut &other, &mut [0]);
    assert_eq!(read.unwrap(), 0);
    assert_eq!(notes(&bench), "");
}

#[test]
fn a_socket_of_another_namespace_is_let_go_of() {
    let (Some(here), Some(there)) = (namespace(), namespace()) else {
        return;
    };
    let elsewhere = Bench::new(&there, WAN_AND_HOME);
    let manager = Manager::new();
    let daemon = manager.start(&elsewhere, &[]);
    let socket = manager.await_kept();
    daemon.kill();
    let bench = Bench::new(&here, WAN_AND_HOME);
    // A table of the same name and handle, which nobody owns.
    bench.start().stop();
    let handles = [&here, &there].map(|namespace| table(namespace, "flowctl").unwrap().handle);
    assert_eq!(handles[0], handles[1], "handles are numbers of a namespace");
    let daemon = manager.start_with(&bench, "table", socket);
    assert_owned(&daemon);
    assert!(
        notes(&bench).contains("does not own table inet flowctl of this network namespace"),
        "{}",
        notes(&bench)
    );
    eventually("the socket of the other namespace is closed", || {
        owner(&there).is_none().then_some(())
    });
    daemon.stop();
}

#[test]
fn protected_no_more_or_under_another_name_the_table_is_let_go_of() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let manager = Manager::new();
    manager.start(&bench, &[]).kill();
    let socket = manager.await_kept();
    bench.configure(&format!("{WAN_AND_HOME}[table]\nname = \"other\"\n"));
    let daemon = manager.start_with(&bench, "table", socket);
    assert!(
        table(&namespace, "flowctl").is_none(),
        "its totals went over"
    );
    assert!(table(&namespace, "other").unwrap().owner.is_some());
    daemon.kill();
    let socket = manager.await_kept();
    bench.configure(&format!(
        "{WAN_AND_HOME}[table]\nname = \"other\"\nprotect = \"off\"\n"
    ));
    let daemon = manager.start_with(&bench, "table", socket);
    assert_eq!(daemon.status().table.protection, Protection::Plain);
    assert_eq!(table(&namespace, "other").unwrap().owner, None);
    assert!(manager.kept().is_none());
    daemon.stop();
}

#[test]
fn where_the_rules_are_static_now_it_is_let_go_of_and_the_table_is_read() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let manager = Manager::new();
    manager.start(&bench, &[]).kill();
    let socket = manager.await_kept();
    bench.configure(&format!("{WAN_AND_HOME}[table]\nstatic = true\n"));
    let daemon = manager.start_with(&bench, "table", socket);
    let notes = notes(&bench);
    assert!(
        notes.contains("table.static is set, so the table is one that nobody owns"),
        "{notes}"
    );
    assert_eq!(daemon.status().table.protection, Protection::Static);
    assert_eq!(owner(&namespace), None);
    assert!(manager.kept().is_none());
    assert_eq!(manager.values("FDSTORE="), ["1"], "and none is kept anew");
    let report = daemon.status();
    let codes: Vec<&str> = (report.health.iter())
        .map(|entry| entry.code.as_str())
        .collect();
    assert!(codes.contains(&"static_rules_differ"), "{codes:?}");
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    daemon.stop();
}

#[test]
fn a_socket_whose_table_is_gone_is_let_go_of() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let manager = Manager::new();
    manager.start(&bench, &[]).kill();
    let socket = manager.await_kept();
    let clone = socket.try_clone().unwrap();
    namespace
        .run(|| {
            let handed = flowctl::kernel::handed::Handed::new("table", clone);
            let mut nftables = Nftables::through(handed.netfilter().unwrap());
            assert!(nftables.remove("flowctl").unwrap());
        })
        .unwrap();
    let daemon = manager.start_with(&bench, "table", socket);
    assert_owned(&daemon);
    assert!(
        notes(&bench).contains("does not own table"),
        "{}",
        notes(&bench)
    );
    assert_eq!(manager.values("FDSTORE="), ["1", "1"]);
    daemon.stop();
}

#[test]
fn descriptors_that_are_for_another_process_are_left_alone() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let mut command: Command = bench.command(&["run"]);
    command
        .env("LISTEN_PID", "1")
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "table");
    let daemon = bench.start_as(command);
    assert_eq!(notes(&bench), "");
    daemon.stop();
    let mut command = bench.command(&["run"]);
    command.env("NOTIFY_SOCKET", "/nowhere/notify");
    let daemon = bench.start_as(command);
    eventually("it is said that nobody can be told", || {
        let report = daemon.status();
        let mut health = report.health.iter();
        health
            .any(|entry| entry.code == "service_manager_deaf")
            .then_some(())
    });
    let output = run_in(&namespace, bench.command(&["remove"]));
    assert!(output.status.success(), "{}", said(&output));
}
