//! Hostile clients of the control socket beside a daemon at work: no tick is late for them, others get their answer,
//! memory stays where it was, and who may only read may not command.

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flowctl::lab::clock;
use flowctl::report::Report;
use flowctl::sink::ask::{AskError, ask};
use rustix::fs::{Gid, Uid};

use crate::support::{Bench, namespace, pause};

/// So many counters that a status does not fit into a socket's buffers.
const SUBNETS: usize = 500;
const TICK: Duration = Duration::from_millis(500);
const SIEGE: Duration = Duration::from_secs(6);
/// Answers of a report this long, rendered once a tick, and one copy for each client would be 64 times as much.
const MEMORY_GROWTH_MAX: u64 = 8 << 20;

fn config() -> String {
    let subnets = (0..SUBNETS).map(|n| format!("n{n} = [\"10.{}.{}.0/24\"]\n", n / 250, n % 250));
    format!(
        "tick = \"500ms\"\n[interfaces.wan]\ndevice = \"wan0\"\n[subnets]\n{}",
        subnets.collect::<String>()
    )
}

/// Clients that do their worst until dropped.
struct Crowd {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u64>>,
}

impl Crowd {
    fn gather(socket: &Path) -> Crowd {
        let over = Arc::new(AtomicBool::new(false));
        let kinds: [fn(&mut UnixStream); 8] = [
            |_| {},
            |stream| offer(stream, b"{\"request\":\"sta"),
            |stream| offer(stream, &vec![b'a'; 4 << 20]),
            |stream| offer(stream, &[0xff, 0, 0x1b, b'\n', 0x80].repeat(50)),
            |stream| offer(stream, b"[[[[{}{}{}]]\n\n\n"),
            // Asks and never reads, so that the answer has to wait.
            |stream| offer(stream, b"{\"request\":\"status\"}\n"),
            // Asks and reads a little now and then.
            |stream| {
                offer(stream, b"{\"request\":\"status\"}\n");
                let _ = stream.read(&mut [0; 10]);
            },
            |stream| drop(stream.shutdown(std::net::Shutdown::Both)),
        ];
        let threads = kinds.into_iter().map(|annoy| {
            let (over, socket) = (Arc::clone(&over), socket.to_owned());
            std::thread::spawn(move || besiege(&socket, &over, annoy))
        });
        Crowd {
            threads: threads.collect(),
            over,
        }
    }

    /// How many connections there were.
    fn disperse(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        let counts = self
            .threads
            .into_iter()
            .map(|thread| thread.join().unwrap());
        counts.sum()
    }
}

/// Holds forty connections and makes each anew as it is closed or gets old.
fn besiege(socket: &Path, over: &AtomicBool, annoy: fn(&mut UnixStream)) -> u64 {
    let mut held = std::collections::VecDeque::new();
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        if let Ok(mut stream) = UnixStream::connect(socket) {
            count += 1;
            stream
                .set_write_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            annoy(&mut stream);
            held.push_back(stream);
        }
        if held.len() > 40 {
            held.pop_front();
        }
        pause(Duration::from_millis(2));
    }
    count
}

/// Sends as much as is taken.
fn offer(stream: &mut UnixStream, bytes: &[u8]) {
    // Being refused is what it is here for.
    let _ = stream.write_all(bytes);
}

/// Asks again where the crowd was faster: the oldest of too many connections is closed.
fn report(socket: &Path) -> Report {
    loop {
        match ask(socket, "status") {
            Ok(answer) => return serde_json::from_str(&answer).unwrap(),
            Err(AskError::Closed { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn hundreds_of_hostile_clients_delay_no_tick_and_no_answer() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, &config());
    let daemon = bench.start();
    let calm = daemon.settle();
    let begun = clock::uptime();
    let before = report(&bench.socket());
    let crowd = Crowd::gather(&bench.socket());
    let mut slowest = Duration::ZERO;
    while clock::uptime().since(begun) < SIEGE {
        let asked = clock::uptime();
        let seen = report(&bench.socket());
        slowest = slowest.max(clock::uptime().since(asked));
        assert_eq!(seen.counters.len(), 2 * SUBNETS + 2);
        let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
        assert!(open.count() < 100, "connections are limited");
        pause(Duration::from_millis(50));
    }
    let after = report(&bench.socket());
    let lasted = clock::uptime().since(begun);
    let connections = crowd.disperse();
    assert!(connections > 1000, "{connections} connections only");
    assert!(
        slowest < Duration::from_secs(1),
        "an answer took {slowest:?}"
    );
    assert_eq!(after.tick.missed, calm.tick.missed, "ticks were missed");
    let ticks = after.tick.sequence - before.tick.sequence;
    let due = lasted.as_millis() / TICK.as_millis();
    assert!(
        u128::from(ticks).abs_diff(due) <= 1,
        "{ticks} ticks where {due} were due"
    );
    let grown = after.cost.rss_bytes.saturating_sub(calm.cost.rss_bytes);
    assert!(grown < MEMORY_GROWTH_MAX, "{grown} bytes more than before");
    daemon.stop();
}

#[test]
fn with_few_descriptors_a_crowd_takes_nobodys_answer_and_no_save() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, &config());
    let run = bench.command(&["run"]);
    let daemon = bench.start_as(crate::support::by(&["prlimit", "--nofile=40", "--"], &run));
    let crowd = Crowd::gather(&bench.socket());
    let begun = clock::uptime();
    let mut answered = 0;
    while clock::uptime().since(begun) < SIEGE {
        let seen = report(&bench.socket());
        answered += 1;
        assert_eq!(seen.tick.missed, 0);
        let troubled = |code: &str| seen.health.iter().any(|entry| entry.code == code);
        for code in ["totals_write_failed", "log_write_failed", "facts_unknown"] {
            assert!(!troubled(code), "{code}: {:?}", seen.health);
        }
        pause(Duration::from_millis(50));
    }
    assert!(answered > 20, "{answered} answers");
    crowd.disperse();
    daemon.stop();
}

/// What a user without privileges, in the socket's group, is answered.
fn asked_by_nobody(socket: PathBuf, request: &'static str) -> Result<String, AskError> {
    let asking = std::thread::spawn(move || {
        let (user, group) = (Uid::from_raw(65534), Gid::from_raw(65534));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        ask(&socket, request)
    });
    asking.join().unwrap()
}

#[test]
fn the_sockets_group_may_read_and_only_root_may_command() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, "[interfaces.wan]\ndevice = \"wan0\"\n");
    let daemon = bench.start();
    let open = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(bench.path(), open).unwrap();
    for request in ["status", "stop", "reload"] {
        let refused = asked_by_nobody(bench.socket(), request).unwrap_err();
        assert!(matches!(refused, AskError::Denied { .. }), "{refused}");
    }
    chown(bench.socket(), None, Some(65534)).unwrap();
    let answer = asked_by_nobody(bench.socket(), "status").unwrap();
    let seen: Report = serde_json::from_str(&answer).unwrap();
    assert_eq!(seen.counters.len(), 2);
    let records = bench.records().len();
    for request in ["stop", "reload"] {
        let refused = asked_by_nobody(bench.socket(), request).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("is for root"), "{said}");
        assert!(said.contains("you are user 65534"), "{said}");
    }
    daemon.settle();
    assert_eq!(bench.records().len(), records, "nothing came of it");
    assert!(ask(&bench.socket(), "reload").is_ok());
    daemon.await_record("a reload", |event| {
        matches!(event, flowctl::event::Event::Config { .. }).then_some(())
    });
}
