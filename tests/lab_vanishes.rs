//! Nothing of a lab is left when it is gone. Alone in its process, because it counts the threads and descriptors of
//! the process: what keeps a namespace alive. Skipped without privileges, except where CI is `true`.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the report"
)]

use std::fs;
use std::time::Duration;

use flowctl::lab::latch::Latch;
use flowctl::lab::{
    Direction, Ends, Family, Generator, Lab, LabOptions, Namespace, TcpLoad, Timeline,
};

/// What can keep a namespace alive: threads, and descriptors of namespaces and sockets.
fn holders() -> (usize, Vec<String>) {
    let threads = fs::read_dir("/proc/self/task").unwrap().count();
    let mut open: Vec<String> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.unwrap().path()).ok())
        .map(|link| link.display().to_string())
        .filter(|link| link.starts_with("net:") || link.starts_with("socket:"))
        .collect();
    open.sort();
    (threads, open)
}

#[test]
fn nothing_is_left_when_the_lab_is_gone() {
    if let Err(error) = Namespace::new("probe") {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        assert!(!ci, "kernel tests must not be skipped in CI: {error}");
        eprintln!("SKIPPED, no privileges: {error}");
        return;
    }
    let before = holders();
    let lab = Lab::build(&LabOptions::default()).unwrap();
    assert_eq!(
        holders().1.len() - before.1.len(),
        6,
        "one descriptor a namespace"
    );
    let router = fs::read_link(lab.router.path()).unwrap();
    let guest = lab
        .router
        .spawn("guest", || fs::read_link("/proc/thread-self/ns/net"));
    assert_eq!(guest.unwrap().join().unwrap().unwrap(), router);
    assert_ne!(fs::read_link("/proc/thread-self/ns/net").unwrap(), router);
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 0));
    let load = TcpLoad {
        direction: Direction::Upload,
        rate: None,
        bytes: u64::MAX,
        longest: Duration::from_secs(60),
    };
    let timeline = Timeline::start().unwrap();
    let generator = Generator::tcp("endless", &ends, &load).unwrap();
    timeline.watch(&generator);
    drop((lab, timeline, generator));
    // A thread that was joined is in /proc for a moment longer.
    let gone = (0..100).any(|_| {
        Latch::default().wait(Duration::from_millis(10));
        holders() == before
    });
    assert!(gone, "{:?} before, {:?} after", before, holders());
}
