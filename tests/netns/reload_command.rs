//! `flowctl reload`: it ends when the reload is over, says what came of it, and of many who ask at once each is told of a
//! file that was read after they asked.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use flowctl::event::{ConfigResult, Event};
use flowctl::sink::ask::ask_to_reload;
use flowctl::sink::reload::Reloaded;
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;

use crate::support::{Bench, WAN_AND_HOME, by, eventually, namespace, pause, run_in, said};

#[test]
fn it_says_what_changed_or_all_that_is_wrong_and_the_status_shows_it() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let reload = || {
        let output = bench.flowctl(&["reload"]);
        (output.status.code(), said(&output))
    };
    let (code, text) = reload();
    assert_eq!(code, Some(3), "{text}");
    let daemon = bench.start();
    bench.configure(&format!(
        "{WAN_AND_HOME}iot = [\"10.77.2.0/24\"]\n[thresholds.busy]\ncounter = \"wan_out\"\nraise = \"1Mbit/s\"\n"
    ));
    let (code, text) = reload();
    assert_eq!(code, Some(0));
    assert_eq!(
        text.lines().collect::<Vec<_>>()[..3],
        [
            "reloaded",
            "counters added: iot_from, iot_to",
            "thresholds added: busy"
        ]
    );
    assert_eq!(daemon.status().counters.len(), 6, "at once");
    bench.configure("tick = 1\n[tabel]\n[interfaces.wan]\ndevice = 7\n");
    let socket = bench.socket();
    let output = bench.flowctl(&["reload", "--socket", socket.to_str().unwrap()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    for wrong in [
        "1:8: tick",
        "tabel: unknown key",
        "interfaces.wan.device",
        "3 problems",
    ] {
        assert!(text.contains(wrong), "{wrong}: {text}");
    }
    assert_eq!(
        daemon.status().counters.len(),
        6,
        "the one before is in force"
    );
    bench.configure(WAN_AND_HOME);
    let (code, text) = reload();
    assert_eq!(code, Some(0));
    assert!(
        text.contains("counters removed: iot_from, iot_to"),
        "{text}"
    );
    assert!(text.contains("thresholds removed: busy"), "{text}");
    assert!(
        reload()
            .1
            .contains("no counter and no threshold came or went")
    );
    daemon.stop();
}

#[test]
fn of_very_many_problems_the_first_are_told_and_how_many_more() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let daemon = bench.start();
    let socket = bench.socket();
    let unknown: String = (0..2_000).map(|key| format!("key_{key} = 1\n")).collect();
    fs::write(bench.config(), unknown).unwrap();
    let output = bench.flowctl(&["reload", "--socket", socket.to_str().unwrap()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(78), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 52, "{text}");
    assert!(lines[49].contains(":50:1: key_49: unknown key"), "{text}");
    assert!(lines[50].ends_with(": and 1950 more"), "{text}");
    let messages = daemon.await_record("the record", |event| match event {
        Event::Config { messages, .. } => Some(messages),
        _ => None,
    });
    assert_eq!(messages, lines[..51]);
    let checked = said(&bench.flowctl(&["check"]));
    assert!(checked.contains("\n2000 problems"), "all of them");
    daemon.stop();
}

#[test]
fn what_is_no_fault_of_the_file_is_told_apart_from_what_is() {
    let Some(namespace) = namespace() else { return };
    let unprotected = format!("{WAN_AND_HOME}[table]\nprotect = \"off\"\n");
    let bench = Bench::new(&namespace, &unprotected);
    let daemon = bench.start();
    let reload = || {
        let output = bench.flowctl(&["reload"]);
        (output.status.code(), said(&output))
    };
    bench.configure(&format!("{WAN_AND_HOME}[table]\nname = \"other\"\n"));
    let (code, text) = reload();
    assert_eq!(code, Some(78), "{text}");
    assert!(
        text.contains(
            "table.name, table.protect cannot change while flowctl runs: restart flowctl to apply"
        ),
        "{text}"
    );
    // Whoever takes the table's place keeps the next change from being made.
    let theirs = bench.path().join("theirs.nft");
    fs::write(
        &theirs,
        "delete table inet flowctl\nadd table inet flowctl\n",
    )
    .unwrap();
    bench.nft(&["-f", theirs.to_str().unwrap()]);
    bench.configure(&unprotected.replace("10.77.1.0/24", "10.77.2.0/24"));
    let (code, text) = reload();
    assert_eq!(code, Some(1), "{text}");
    for word in [
        "is not flowctl's",
        "the configuration before stays in force",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let results = || {
        let records = bench.records().into_iter();
        let results = records.filter_map(|record| match record.event {
            Event::Config { result, .. } => Some(result),
            _ => None,
        });
        results.collect::<Vec<_>>()
    };
    eventually("both are in the log", || {
        (results() == [ConfigResult::Rejected; 2]).then_some(())
    });
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    let (code, text) = reload();
    assert_eq!(code, Some(0), "nothing hangs on: {text}");
    daemon.stop();
}

#[test]
fn what_is_no_file_is_read_at_the_start_and_never_waited_for_again() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let asked = || {
        let socket = bench.socket();
        let output = bench.flowctl(&["reload", "--socket", socket.to_str().unwrap()]);
        (output.status.code(), said(&output))
    };
    let from_input = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowctl"));
        command.args(["run", "--config", "/dev/stdin", "--state-dir"]);
        command.arg(bench.state_dir());
        command
    };
    let refused = |path: &str| {
        let (code, text) = asked();
        assert_eq!(code, Some(1), "{text}");
        let why = format!(
            "{path} is not a regular file, so it is not read again; the configuration before stays in force"
        );
        assert!(text.contains(&why), "{text}");
    };
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer
        .write_all(&fs::read(bench.config()).unwrap())
        .unwrap();
    drop(writer);
    let daemon = bench.start_from(from_input(), reader.into());
    for _ in 0..2 {
        refused("/dev/stdin");
        assert_eq!(daemon.status().counters.len(), 4);
    }
    daemon.stop();
    // A regular file can be read again, however it is called.
    let input = File::open(bench.config()).unwrap();
    let daemon = bench.start_from(from_input(), input.into());
    let text = fs::read_to_string(bench.config()).unwrap();
    let more = text.replace("home = ", "iot = [\"10.77.2.0/24\"]\nhome = ");
    fs::write(bench.config(), more).unwrap();
    let (code, text) = asked();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("counters added: iot_from, iot_to"), "{text}");
    daemon.stop();
    bench.configure(WAN_AND_HOME);
    let daemon = bench.start();
    fs::remove_file(bench.config()).unwrap();
    mkfifoat(CWD, bench.config(), Mode::RWXU).unwrap();
    for _ in 0..2 {
        refused(bench.config().to_str().unwrap());
    }
    bench.configure(WAN_AND_HOME);
    assert_eq!(asked().0, Some(0), "nothing hangs on");
    daemon.stop();
}

#[test]
fn who_may_ask_for_the_status_only_is_told_who_may_reload() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let daemon = bench.start();
    fs::set_permissions(bench.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=0", "--clear-groups"];
    let socket = bench.socket();
    let ask = |what: &str| {
        let command = bench.command(&[what, "--socket", socket.to_str().unwrap()]);
        run_in(&namespace, by(&nobody, &command))
    };
    assert!(ask("status").status.success());
    let output = ask("reload");
    assert_eq!(output.status.code(), Some(77), "{}", said(&output));
    let text = said(&output);
    assert!(
        text.contains("reload is for root and user 0; you are user 65534"),
        "{text}"
    );
    assert!(bench.lines().iter().all(|line| line["event"] != "config"));
    daemon.stop();
}

#[test]
fn each_of_many_is_told_of_a_file_read_after_they_asked_and_no_tick_waits_for_them() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, WAN_AND_HOME);
    let daemon = bench.start();
    let mut deaf = Vec::new();
    for round in 0..30 {
        // A reading goes on already, of the file before.
        daemon.signal(Signal::HUP);
        let good = round % 2 == 0;
        bench.configure(if good { WAN_AND_HOME } else { "[broken\n" });
        let asking: Vec<_> = (0..6)
            .map(|_| {
                let socket = bench.socket();
                std::thread::spawn(move || ask_to_reload(&socket).unwrap())
            })
            .collect();
        if deaf.len() < 20 {
            let mut stream = UnixStream::connect(bench.socket()).unwrap();
            stream.write_all(b"{\"request\":\"reload\"}\n").unwrap();
            deaf.push(stream);
        }
        for asked in asking {
            let told = asked.join().unwrap();
            assert_eq!(
                matches!(told, Reloaded::Reloaded(_)),
                good,
                "round {round}: {told:?}"
            );
        }
    }
    pause(Duration::from_millis(300));
    assert_eq!(daemon.settle().tick.missed, 0);
    daemon.stop();
}
