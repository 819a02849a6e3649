//! Subnets that follow a device: prefixes come, go and flap under traffic. Counters go on, nothing that was counted is
//! lost or moved, and a network that stands still costs nothing.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flowctl::drilldown::verdict::Verdict;
use flowctl::event::Event;
use flowctl::kernel::network_monitor::{Heard, NetworkMonitor};
use flowctl::lab::link::Links;
use flowctl::lab::topology::{LAN, UPLINK};
use flowctl::lab::{Family, Lab, LabOptions, clock};
use flowctl::report::{Report, StateWord};
use ipnet::IpNet;
use rustix::process::Signal;

use crate::support::{Bench, Daemon, eventually, lab, namespace, pause};

const CONFIG: &str = r#"
tick = "100ms"
[interfaces.wan]
device = "wan0"
[subnets]
guests = { device = "br-lan" }
# Around every prefix that is followed: another layer.
fixed = ["10.80.0.0/16", "fd80::/16"]
[counters.guests_up]
from = ["guests", "10.99.0.0/16"]
out = "wan"
"#;

const SOON: Duration = Duration::from_secs(1);
const TIMES: usize = 20;
/// Bytes of UDP payload in every packet.
const PAYLOAD: usize = 500;

/// The prefix of that number, with the host part of an address in it.
fn within(family: Family, number: usize, host: u16) -> IpNet {
    let text = match family {
        Family::V4 => format!("10.80.{number}.{host}/24"),
        Family::V6 => format!("fd80:{number}::{host}/64"),
    };
    text.parse().unwrap()
}

/// Sends all the time, from the address in the prefix of the number that it is told.
struct Sender {
    number: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    _sink: UdpSocket,
}

impl Sender {
    fn start(lab: &Lab, family: Family) -> Sender {
        let host = &lab.lan[0].namespace;
        let mut links = Links::open(host).unwrap();
        for number in 0..=TIMES {
            links
                .add_address(UPLINK, within(family, number, 11))
                .unwrap();
        }
        let sockets: Vec<UdpSocket> = (0..=TIMES)
            .map(|number| {
                let address = SocketAddr::new(within(family, number, 11).addr(), 0);
                host.run(|| UdpSocket::bind(address)).unwrap().unwrap()
            })
            .collect();
        let server = lab.server(family, 0, 9);
        let sink = server.namespace.run(|| UdpSocket::bind(server.address));
        let mut sender = Sender {
            number: Arc::default(),
            stop: Arc::default(),
            sent: Arc::default(),
            thread: None,
            _sink: sink.unwrap().unwrap(),
        };
        let (number, stop) = (Arc::clone(&sender.number), Arc::clone(&sender.stop));
        let (sent, to) = (Arc::clone(&sender.sent), server.address);
        let work = move || {
            while !stop.load(Ordering::SeqCst) {
                let socket = &sockets[number.load(Ordering::SeqCst)];
                socket.send_to(&[0; PAYLOAD], to).unwrap();
                sent.fetch_add(1, Ordering::SeqCst);
                pause(Duration::from_millis(1));
            }
        };
        sender.thread = Some(std::thread::spawn(work));
        sender
    }

    fn go_on_from(&self, number: usize) {
        self.number.store(number, Ordering::SeqCst);
    }

    /// Ends it; how many packets it sent.
    fn finish(mut self) -> u64 {
        self.end();
        self.sent.load(Ordering::SeqCst)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread
            .take()
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.end();
    }
}

fn packets(report: &Report, name: &str) -> u64 {
    let mut counters = report.counters.iter();
    let found = counters.find(|c| c.name.as_str() == name).unwrap();
    assert_eq!((found.resets, found.present), (0, true), "{name}");
    found.packets
}

/// The prefixes that the log told of, one entry for each change.
fn told(bench: &Bench<'_>) -> Vec<Vec<IpNet>> {
    let records = bench.records().into_iter();
    let told = records.filter_map(|record| match record.event {
        Event::Subnet {
            subnet, prefixes, ..
        } => {
            assert_eq!(subnet.as_str(), "guests");
            Some(prefixes)
        }
        _ => None,
    });
    told.collect()
}

fn await_prefixes(daemon: &Daemon<'_>, wanted: impl Fn(&[IpNet]) -> bool) {
    eventually("the log tells of the prefixes", || {
        let last = told(daemon.bench).pop();
        last.filter(|prefixes| wanted(prefixes)).map(drop)
    });
}

#[test]
fn a_prefix_that_comes_before_the_old_one_goes_loses_no_packet_in_20_changes() {
    for family in [Family::V4, Family::V6] {
        let Some(lab) = lab(LabOptions::default()) else {
            return;
        };
        let mut router = Links::open(&lab.router).unwrap();
        let ours = |number| within(family, number, 1);
        router.add_address(LAN, ours(0)).unwrap();
        let bench = Bench::new(&lab.router, CONFIG);
        let daemon = bench.start();
        let sender = Sender::start(&lab, family);
        let mut last = 0;
        for number in 1..=TIMES {
            router.add_address(LAN, ours(number)).unwrap();
            let new = ours(number).trunc();
            await_prefixes(&daemon, |prefixes| prefixes.contains(&new));
            sender.go_on_from(number);
            pause(Duration::from_millis(20));
            let old = ours(number - 1);
            router.remove_address(LAN, old).unwrap();
            await_prefixes(&daemon, |prefixes| !prefixes.contains(&old.trunc()));
            let now = packets(&daemon.settle(), "guests_up");
            assert!(now > last, "{family:?} {number}");
            last = now;
            if number % 5 == 0 {
                // The file is the same; what it means is what it means now.
                daemon.signal(Signal::HUP);
            }
        }
        let sent = sender.finish();
        let report = daemon.settle();
        for name in ["guests_from", "guests_up", "fixed_from"] {
            assert_eq!(packets(&report, name), sent, "{family:?} {name}");
        }
        assert_eq!(report.table.repairs, 0);
        assert_eq!(told(&bench).len(), 2 * TIMES, "one change for each");
    }
}

#[test]
fn a_prefix_that_is_replaced_at_once_counts_again_within_a_second_20_times() {
    for family in [Family::V4, Family::V6] {
        let Some(lab) = lab(LabOptions::default()) else {
            return;
        };
        let mut router = Links::open(&lab.router).unwrap();
        let ours = |number| within(family, number, 1);
        router.add_address(LAN, ours(0)).unwrap();
        let bench = Bench::new(&lab.router, CONFIG);
        let daemon = bench.start();
        let sender = Sender::start(&lab, family);
        let mut last = packets(&daemon.settle(), "guests_from");
        for number in 1..=TIMES {
            router.remove_address(LAN, ours(number - 1)).unwrap();
            sender.go_on_from(number);
            router.add_address(LAN, ours(number)).unwrap();
            let begun = clock::uptime();
            // What the old prefix had sent is counted by the next reading.
            last = packets(&daemon.settle(), "guests_from").max(last);
            last = eventually("the new prefix counts", || {
                let now = packets(&daemon.status(), "guests_from");
                assert!(now >= last, "a total fell");
                (now > last + 1).then_some(now)
            });
            let took = clock::uptime().since(begun);
            assert!(took < SOON, "{family:?} {number}: {took:?}");
        }
        let (before, sent) = (last, sender.sent.load(Ordering::SeqCst));
        pause(SOON);
        let sent = sender.finish() - sent;
        let counted = packets(&daemon.settle(), "guests_from") - before;
        assert!(counted >= sent, "all of it counts by then");
    }
}

#[test]
fn an_address_that_flaps_changes_the_table_a_few_times_only() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let mut router = Links::open(&lab.router).unwrap();
    let address = within(Family::V4, 1, 1);
    let begun = clock::uptime();
    for _ in 0..50 {
        router.add_address(LAN, address).unwrap();
        pause(Duration::from_millis(10));
        router.remove_address(LAN, address).unwrap();
        pause(Duration::from_millis(10));
    }
    router.add_address(LAN, address).unwrap();
    let lasted = clock::uptime().since(begun);
    await_prefixes(&daemon, |prefixes| prefixes.contains(&address.trunc()));
    let changes = told(&bench).len();
    let most = lasted.as_millis() as usize / 600 + 2;
    assert!(changes <= most, "{changes} changes in {lasted:?}");
}

#[test]
fn a_device_without_a_prefix_counts_nothing_and_is_not_any() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let config = CONFIG.replace("br-lan", "br-guest*");
    let bench = Bench::new(&lab.router, &config);
    let daemon = bench.start();
    let mut router = Links::open(&lab.router).unwrap();
    router.add_address(LAN, within(Family::V4, 0, 1)).unwrap();
    let sender = Sender::start(&lab, Family::V4);
    eventually("the uplink counts", || {
        (packets(&daemon.status(), "wan_out") > 100).then_some(())
    });
    let report = daemon.settle();
    for name in ["guests_from", "guests_to", "guests_up"] {
        assert_eq!(packets(&report, name), 0, "{name}");
    }
    let codes: Vec<&str> = report
        .health
        .iter()
        .map(|entry| entry.code.as_str())
        .collect();
    assert!(codes.contains(&"device_missing"), "{codes:?}");
    let said = |command: &str| String::from_utf8(bench.flowctl(&[command]).stdout).unwrap();
    let nowhere = "nowhere now (br-guest* has no prefix)";
    assert!(said("check").contains(&format!("guests: {nowhere}")));
    assert!(said("plan").contains(&format!("guests_from: what arrives from {nowhere}")));
    let doctor = said("doctor");
    assert!(doctor.contains("no device matches br-guest*"), "{doctor}");
    // The device that it waits for takes the prefix over.
    router.rename(LAN, "br-guest7").unwrap();
    eventually("its prefix counts", || {
        (packets(&daemon.status(), "guests_from") > 100).then_some(())
    });
    let following = "10.80.0.0/24, fd77:1::/64 (following br-guest*)";
    assert!(
        said("check").contains(&following.replace(", ", " or ")),
        "{}",
        said("check")
    );
    drop(sender);
}

#[test]
fn an_alert_and_its_drilldown_go_on_over_a_change_and_name_the_hosts_of_both_prefixes() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let mut router = Links::open(&lab.router).unwrap();
    let ours = |number| within(Family::V4, number, 1);
    router.add_address(LAN, ours(0)).unwrap();
    let threshold = "[thresholds.busy]\ncounter = \"guests_up\"\nraise = \"1Mbit/s\"\nhold = \"300ms\"\n\
                     release = \"1s\"\n[drilldown]\ninterval = \"300ms\"\n";
    let bench = Bench::new(&lab.router, &format!("{CONFIG}{threshold}"));
    let daemon = bench.start();
    let sender = Sender::start(&lab, Family::V4);
    let since = daemon.await_state(StateWord::Firing).thresholds[0].since;
    let id = daemon.status().drilldowns[0].id.clone();
    router.add_address(LAN, ours(1)).unwrap();
    await_prefixes(&daemon, |prefixes| prefixes.contains(&ours(1).trunc()));
    sender.go_on_from(1);
    pause(Duration::from_millis(500));
    router.remove_address(LAN, ours(0)).unwrap();
    await_prefixes(&daemon, |prefixes| !prefixes.contains(&ours(0).trunc()));
    pause(Duration::from_secs(1));
    let report = daemon.settle();
    let busy = &report.thresholds[0];
    assert_eq!((busy.state, busy.since), (StateWord::Firing, since));
    assert_eq!(report.drilldowns[0].id, id);
    sender.finish();
    let verdict: Verdict = daemon.await_record("the verdict", |event| match event {
        Event::Verdict(verdict) => Some(*verdict),
        _ => None,
    });
    assert_eq!(verdict.drilldown, id);
    let hosts: Vec<IpAddr> = verdict
        .found
        .hosts
        .iter()
        .map(|host| host.address)
        .collect();
    for number in [0, 1] {
        let host = within(Family::V4, number, 11).addr();
        assert!(hosts.contains(&host), "{host} of {hosts:?}");
    }
    assert!(verdict.coverage.unwrap() > 0.9, "{verdict:#?}");
}

#[test]
fn events_that_find_no_room_are_a_reason_to_look_and_the_next_ones_are_heard() {
    let Some(namespace) = namespace() else { return };
    let monitor = namespace.run(NetworkMonitor::open);
    let mut monitor = monitor.unwrap().unwrap();
    let (_call, called) = UnixStream::pair().unwrap();
    let mut listen = || {
        let heard = monitor.listen(called.as_fd(), Some(Duration::from_millis(100)));
        heard.unwrap()
    };
    let mut links = Links::open(&namespace).unwrap();
    let address: IpNet = "10.80.0.1/24".parse().unwrap();
    let mut change = |times: usize| {
        for _ in 0..times {
            links.add_address("lo", address).unwrap();
            links.remove_address("lo", address).unwrap();
        }
    };
    assert_eq!(listen(), Heard::Silence);
    change(1);
    assert_eq!([listen(), listen()], [Heard::Change, Heard::Change]);
    assert_eq!(listen(), Heard::Silence);
    change(5000);
    let heard: Vec<Heard> =
        std::iter::from_fn(|| Some(listen()).filter(|h| *h != Heard::Silence)).collect();
    assert!(heard.contains(&Heard::Lost), "{} events", heard.len());
    change(1);
    assert_eq!([listen(), listen()], [Heard::Change, Heard::Change]);
}

/// How often a thread of that name had to wait, and what it cost in nanoseconds.
fn cost_of(pid: i32, thread: &str) -> (u64, u64) {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    let mut found = tasks
        .map(|task| task.unwrap().path())
        .filter(|task| read(task.join("comm")).trim() == thread);
    let task = found.next().unwrap();
    let status = read(task.join("status"));
    let waits = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let schedstat = read(task.join("schedstat"));
    let spent = schedstat.split_whitespace().next().unwrap();
    (
        waits.unwrap().trim().parse().unwrap(),
        spent.parse().unwrap(),
    )
}

#[test]
fn nothing_costs_anything_while_the_network_stands_still() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, CONFIG);
    let daemon = bench.start();
    let sender = Sender::start(&lab, Family::V4);
    // The addresses of the host were changes of another namespace.
    let before = cost_of(daemon.pid(), "lookout");
    pause(Duration::from_secs(3));
    assert_eq!(cost_of(daemon.pid(), "lookout"), before);
    Links::open(&lab.router)
        .unwrap()
        .add_address(LAN, within(Family::V4, 0, 1))
        .unwrap();
    await_prefixes(&daemon, |prefixes| prefixes.len() == 3);
    assert_ne!(cost_of(daemon.pid(), "lookout"), before);
    drop(sender);
}
