//! Two daemons at once: in one network namespace the second is turned away and the first is not disturbed, however
//! little they share; in two namespaces both work.

use std::process::{Child, Command, Output, Stdio};

use flowctl::lab::Namespace;

use crate::support::{Bench, Daemon, by, eventually, namespace, run_in, said};

const CONFIG: &str = r#"
tick = "200ms"
[interfaces.wan]
device = "wan0"
"#;

/// All that another daemon could have changed of the first.
fn state(daemon: &Daemon<'_>) -> (u32, u64, u64, usize, String) {
    let report = daemon.settle();
    let ruleset = daemon.bench.nft(&["-a", "list", "ruleset"]);
    let records = daemon.bench.records().len();
    let missed = report.tick.missed;
    (report.pid, missed, report.table.repairs, records, ruleset)
}

#[test]
fn a_second_daemon_is_turned_away_whatever_it_shares() {
    let Some(namespace) = namespace() else {
        return;
    };
    let first = Bench::new(&namespace, CONFIG);
    let daemon = first.start();
    let before = state(&daemon);
    // Nothing in common but the namespace; another table's name; another configuration on the same state; all.
    let apart = Bench::new(&namespace, CONFIG);
    let renamed = Bench::new(&namespace, &format!("{CONFIG}[table]\nname = \"other\"\n"));
    let same_state = Bench::new(&namespace, CONFIG).with_state(first.state_dir());
    for bench in [&apart, &renamed, &same_state, &first] {
        let output = attempt(bench, &["run"]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(75), "{text}");
        assert!(text.contains(&format!("process {}", before.0)), "{text}");
        assert_eq!(state(&daemon), before);
    }
    for bench in [&apart, &renamed] {
        assert!(!bench.state_dir().exists() && !bench.socket().exists());
    }
    assert!(
        !same_state.socket().exists() && first.socket().exists(),
        "the first one's socket is where it was"
    );
    daemon.stop();
    apart.start().stop();
}

#[test]
fn in_another_namespace_only_the_socket_is_in_the_way() {
    let (Some(here), Some(there)) = (namespace(), namespace()) else {
        return;
    };
    let first = Bench::new(&here, CONFIG);
    let daemon = first.start();
    let before = state(&daemon);
    let socket = first.socket();
    let second = Bench::new(&there, CONFIG);
    let output = attempt(&second, &["run", "--socket", socket.to_str().unwrap()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(75), "{text}");
    assert!(text.contains(&*socket.to_string_lossy()), "{text}");
    assert_eq!(second.nft(&["list", "ruleset"]), "");
    let other = second.start();
    assert_ne!(other.settle().pid, before.0);
    other.stop();
    assert_eq!(state(&daemon), before);
}

#[test]
fn removal_says_that_the_state_directory_is_a_daemons_elsewhere() {
    let (Some(here), Some(there)) = (namespace(), namespace()) else {
        return;
    };
    let first = Bench::new(&here, CONFIG);
    let daemon = first.start();
    let second = Bench::new(&there, CONFIG);
    let stopped = second.start();
    let mistaken = Bench::new(&there, CONFIG).with_state(first.state_dir());
    let socket = second.socket();
    let output = mistaken.flowctl(&["remove", "--socket", socket.to_str().unwrap()]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(75), "{text}");
    assert!(text.contains("another flowctl uses it"), "{text}");
    assert!(!text.contains("has not ended"), "{text}");
    drop(stopped);
    assert!(second.flowctl(&["remove"]).status.success());
    assert_eq!(second.nft(&["list", "ruleset"]), "");
    daemon.stop();
}

/// What `flowctl run` comes to. Where it is not turned away it runs, but not for ever.
fn attempt(bench: &Bench<'_>, arguments: &[&str]) -> Output {
    let run = by(&["timeout", "10"], &bench.command(arguments));
    run_in(bench.namespace, run)
}

/// Killed when dropped.
struct Racer(Child);

impl Drop for Racer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn race(namespace: &Namespace, bench: &Bench<'_>) -> Racer {
    let mut command: Command = bench.command(&["run"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Racer(namespace.run(|| command.spawn()).unwrap().unwrap())
}

#[test]
fn of_many_started_at_once_one_runs() {
    let Some(namespace) = namespace() else {
        return;
    };
    let benches: Vec<Bench<'_>> = (0..6).map(|_| Bench::new(&namespace, CONFIG)).collect();
    for _ in 0..3 {
        let mut racers: Vec<Racer> = benches.iter().map(|b| race(&namespace, b)).collect();
        let winner = eventually("all but one have ended", || {
            let mut running = Vec::new();
            for (number, racer) in racers.iter_mut().enumerate() {
                match racer.0.try_wait().unwrap() {
                    Some(status) => assert_eq!(status.code(), Some(75)),
                    None => running.push(number),
                }
            }
            let [winner] = running[..] else { return None };
            Some(winner)
        });
        eventually("the winner answers", || {
            let status = benches[winner].flowctl(&["status"]);
            status.status.success().then_some(())
        });
        // Killed, it leaves no lock behind for the next round.
        drop(racers);
    }
}
