//! Conntrack: dumping a large table beside the same dump only received and beside `conntrack -L`, and hearing of flows
//! that begin and end beside `conntrack -E`.

use std::io::Read;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use flowctl::kernel::attr::Writer;
use flowctl::kernel::conntrack::{FlowRecord, message};
use flowctl::kernel::flow_events::{FlowEvent, FlowEvents, Heard};
use flowctl::kernel::flow_request::dump_request;
use flowctl::kernel::flows::Flows;
use flowctl::kernel::socket::Netlink;
use flowctl::lab::Namespace;
use flowctl::lab::conntrack::{Conntrack, Entry};
use flowctl::lab::latch::Latch;
use flowctl::lab::sysctl::ConntrackSysctls;
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::setup::{children_cpu, connected, head, median, receive_only, row, thread_cpu};

/// Below nf_conntrack_max, 262,144 on most machines, which is not for a benchmark to change.
pub const LARGEST: u64 = 250_000;
/// Each inside host has so many flows of the table.
const FLOWS_A_HOST: u64 = 1_000;
/// Flows that begin within a second, as many as end.
const BIRTHS_A_SECOND: u64 = 55_000;
/// How long the reader of events rests between two looks: 1,100 events at that rate.
const REST: Duration = Duration::from_millis(10);

pub fn run(quick: bool) {
    let (sizes, rounds) = match (wanted_flows(), quick) {
        (Some(wanted), _) => (vec![wanted], 3),
        (None, true) => (vec![50_000], 3),
        (None, false) => (vec![10_000, 100_000, LARGEST], 11),
    };
    head(
        "Dumping conntrack, milliseconds of CPU",
        &[
            "flows",
            "received only",
            "flowctl dumps",
            "ratio",
            "decoding, ns a flow",
            "flows of one address",
            "`conntrack -L`",
            "conntrack / flowctl",
        ],
    );
    for size in sizes {
        let namespace = filled(size);
        let cells = namespace.run(|| dump(size, rounds)).unwrap();
        row(&cells);
    }
    if wanted_flows().is_some() {
        return;
    }
    let seconds = if quick { 4 } else { 20 };
    head(
        &format!("Flows that begin and end, {BIRTHS_A_SECOND} a second wanted, for {seconds} s"),
        &[
            "reader",
            "flows a second",
            "events",
            "lost",
            "CPU, us an event",
            "times flowctl's",
        ],
    );
    events(Duration::from_secs(seconds));
}

/// As many flows as `--flows=N` says: for a kernel whose limits are one's own, as tests/guest/run has it.
pub fn wanted_flows() -> Option<u64> {
    let mut arguments = std::env::args();
    let flows = arguments.find_map(|argument| Some(argument.strip_prefix("--flows=")?.to_owned()));
    flows.map(|flows| flows.parse().unwrap())
}

/// A masqueraded flow of datagrams like no other of a lower number.
pub fn entry(number: u64) -> Entry {
    let [.., a, b] = (number / FLOWS_A_HOST).to_be_bytes();
    let server = IpAddr::from([198, 18, a, b]);
    let port = 10_000 + (number % FLOWS_A_HOST) as u16;
    let mut entry = Entry::udp((IpAddr::from([10, 77, a, b]), port), (server, 443));
    entry.reply.destination = IpAddr::from([203, 0, 113, 2]);
    entry
}

fn filled(size: u64) -> Namespace {
    let namespace = Namespace::new("bench").unwrap();
    ConntrackSysctls::default().apply(&namespace).unwrap();
    let mut conntrack = Conntrack::open(&namespace).unwrap();
    conntrack.create((0..size).map(entry)).unwrap();
    namespace
}

/// Rounds are interleaved, so that what disturbs the machine disturbs all alike.
fn dump(size: u64, rounds: usize) -> Vec<String> {
    let socket = connected();
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut flows = Flows::open().unwrap();
    let (mut floor, mut dumped, mut one, mut peer) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        floor.push(cpu(|| {
            receive_only(&socket, &dump_request(1), &mut buffer);
        }));
        dumped.push(cpu(|| {
            let mut seen = 0;
            let each = |flow: &FlowRecord| seen += u64::from(flow.id != 0);
            flows.dump(each, || {}).unwrap();
            assert!(seen + 5 > size, "{seen} of {size} flows");
        }));
        one.push(cpu(|| {
            let mut seen = 0;
            let host = IpAddr::from([10, 77, 0, 3]);
            flows.dump_of(host, |_| seen += 1, || {}).unwrap();
            assert_eq!(seen, FLOWS_A_HOST);
        }));
        peer.push(listed());
    }
    let decode = decode_nanoseconds(rounds);
    let [floor, dumped, one, peer] = [floor, dumped, one, peer].map(median);
    vec![
        size.to_string(),
        format!("{floor:.1}"),
        format!("{dumped:.1}"),
        format!("{:.2}", dumped / floor),
        format!("{decode:.0}"),
        format!("{one:.1}"),
        format!("{peer:.0}"),
        format!("{:.1}", peer / dumped),
    ]
}

/// CPU milliseconds of one call.
fn cpu(call: impl FnOnce()) -> f64 {
    let before = thread_cpu();
    call();
    (thread_cpu() - before).as_secs_f64() * 1e3
}

/// CPU milliseconds of the program.
fn listed() -> f64 {
    let before = children_cpu();
    let mut list = Command::new("conntrack");
    list.arg("-L").stdout(Stdio::null()).stderr(Stdio::null());
    assert!(list.status().unwrap().success());
    (children_cpu() - before) * 1e3
}

/// Nanoseconds that one flow takes from bytes to a record, without the kernel, over the table as dumped once.
fn decode_nanoseconds(rounds: usize) -> f64 {
    let mut payloads: Vec<Box<[u8]>> = Vec::new();
    let mut netlink = Netlink::open(NETLINK_NETFILTER).unwrap();
    let all = |w: &mut Writer| w.nfgen(0, 0);
    let keep = |message: &flowctl::kernel::attr::Message<'_>| {
        payloads.push(message.payload.into());
        Ok(())
    };
    netlink.dump("keep", message::GET, all, keep).unwrap();
    // As they come: 32 KiB at a time, warm in the cache.
    let chunk = &payloads[..payloads.len().min(100)];
    let repeats = 2_000;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let milliseconds = cpu(|| {
            for _ in 0..repeats {
                for payload in chunk {
                    let record = FlowRecord::decode(std::hint::black_box(payload));
                    std::hint::black_box(record.unwrap());
                }
            }
        });
        times.push(milliseconds * 1e6 / (repeats * chunk.len()) as f64);
    }
    median(times)
}

/// What a reader of events did.
struct Reading {
    births_a_second: f64,
    told: u64,
    heard: u64,
    cpu: Duration,
}

fn events(time: Duration) {
    let ours = read_by_flowctl(time);
    let theirs = read_by_conntrack(time);
    let each = |reading: &Reading| reading.cpu.as_secs_f64() * 1e6 / reading.heard as f64;
    for (name, reading) in [("flowctl", &ours), ("`conntrack -E`", &theirs)] {
        row(&[
            name.to_owned(),
            format!("{:.0}", reading.births_a_second),
            reading.heard.to_string(),
            (reading.told - reading.heard).to_string(),
            format!("{:.2}", each(reading)),
            format!("{:.1}", each(reading) / each(&ours)),
        ]);
    }
}

/// Makes and ends flows at the wanted rate: the kernel tells of each of them twice. Each lives for 10 ms. Returns how
/// many there were, and how many in a second.
fn generate(namespace: &Namespace, time: Duration) -> (u64, f64) {
    const STEPS_A_SECOND: u64 = 100;
    const STEP: u64 = BIRTHS_A_SECOND / STEPS_A_SECOND;
    let mut conntrack = Conntrack::open(namespace).unwrap();
    let (began, pause) = (Instant::now(), Latch::default());
    let steps = time.as_secs() * STEPS_A_SECOND;
    for step in 0..steps {
        let due = Duration::from_secs(1) * step as u32 / STEPS_A_SECOND as u32;
        pause.wait(due.saturating_sub(began.elapsed()));
        let first = step * STEP;
        conntrack.create((first..first + STEP).map(entry)).unwrap();
        let last = first.saturating_sub(STEP);
        conntrack.delete((last..first).map(entry)).unwrap();
    }
    let flows = steps * STEP;
    conntrack.delete((flows - STEP..flows).map(entry)).unwrap();
    (flows, flows as f64 / began.elapsed().as_secs_f64())
}

fn read_by_flowctl(time: Duration) -> Reading {
    let namespace = filled(0);
    let generated = Latch::default();
    let mut events = namespace.run(|| FlowEvents::open(true)).unwrap().unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let (before, mut heard) = (thread_cpu(), 0);
            loop {
                // Whatever is told after this look was told before the last one.
                let is_last = generated.wait(REST);
                heard += drain(&mut events);
                if is_last {
                    return (heard, thread_cpu() - before);
                }
            }
        });
        let (flows, births_a_second) = generate(&namespace, time);
        generated.set();
        let (heard, cpu) = reader.join().unwrap();
        Reading {
            births_a_second,
            told: 2 * flows,
            heard,
            cpu,
        }
    })
}

/// How many events waited.
fn drain(events: &mut FlowEvents) -> u64 {
    let mut heard = 0;
    loop {
        match events.next().unwrap() {
            Heard::Nothing => return heard,
            Heard::Lost => {}
            Heard::Told(told) => {
                let (FlowEvent::Born(flow) | FlowEvent::Ended(flow)) = told.event;
                std::hint::black_box(flow);
                heard += 1;
            }
        }
    }
}

/// The program, its output thrown away, with a receive buffer as large as ours.
fn read_by_conntrack(time: Duration) -> Reading {
    let namespace = filled(0);
    let before = children_cpu();
    let mut command = Command::new("conntrack");
    command.args(["-E", "-e", "NEW,DESTROY", "-b", "25165824"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = namespace.run(|| command.spawn()).unwrap().unwrap();
    Latch::default().wait(Duration::from_millis(300));
    let (flows, births_a_second) = generate(&namespace, time);
    // It has more to read than it could so far.
    Latch::default().wait(Duration::from_secs(3));
    let heard = shown(&mut child);
    Reading {
        births_a_second,
        told: 2 * flows,
        heard,
        cpu: Duration::from_secs_f64(children_cpu() - before),
    }
}

/// Ends it; of how many events it says that it has shown them.
fn shown(child: &mut Child) -> u64 {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    let line = said
        .lines()
        .find(|line| line.ends_with("flow events have been shown."));
    let words = line.unwrap().split_whitespace();
    words.rev().nth(5).unwrap().parse().unwrap()
}
