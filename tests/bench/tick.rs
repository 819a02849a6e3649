//! Reading all counters: our read beside the same answers only received, the whole tick, and `nft -j`.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use flowctl::config::Config;
use flowctl::engine::Engine;
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::{Namespace, clock};
use flowctl::meter::{Carried, Meter, Unread};
use flowctl::plan;
use flowctl::units::{TableFamily, Tick};

use crate::setup::{
    children_cpu, connected, head, median, receive_only, row, thread_cpu, with_counters,
};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];

pub fn run(quick: bool) {
    head(
        "Reading all counters, microseconds of CPU",
        &[
            "counters",
            "received only",
            "flowctl reads",
            "ratio",
            "whole tick",
            "`nft -j list counters`",
            "nft / flowctl",
        ],
    );
    for size in SIZES {
        let namespace = Namespace::new("bench").unwrap();
        let cells = namespace
            .run(|| measure(size, if quick { 10 } else { 60 }))
            .unwrap();
        row(&cells);
    }
}

/// Rounds are interleaved, so that what disturbs the machine disturbs all alike.
fn measure(size: usize, rounds: usize) -> Vec<String> {
    let config = with_counters(size);
    let mut nftables = Nftables::open().unwrap();
    nftables.install(&plan::compile(&config)).unwrap();
    let mut meter = meter(&config);
    let config = Arc::new(config);
    let mut engine = Engine::new(Arc::clone(&config), now(0));
    let floor_socket = connected();
    let mut buffer = vec![0_u8; 64 * 1024];
    let repeats = (20_000 / size).clamp(1, 200);
    let (mut floor, mut read, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        floor.push(each(repeats, || {
            receive_only(&floor_socket, &REQUEST, &mut buffer)
        }));
        read.push(each(repeats, || read_into(&mut nftables, &mut meter)));
        whole.push(each(repeats, || {
            read_into(&mut nftables, &mut meter);
            engine.observe(now(1), &meter);
            std::hint::black_box(engine.counter_reports(&meter));
        }));
    }
    let peer = nft_json(size, rounds);
    let (floor, read, whole) = (median(floor), median(read), median(whole));
    vec![
        size.to_string(),
        format!("{floor:.1}"),
        format!("{read:.1}"),
        format!("{:.2}", read / floor),
        format!("{whole:.1}"),
        format!("{peer:.0}"),
        format!("{:.0}", peer / read),
    ]
}

fn meter(config: &Config) -> Meter {
    Meter::new(
        config
            .counters
            .iter()
            .map(|counter| (counter.name.clone(), Carried::default())),
    )
}

fn now(sequence: u64) -> Tick {
    Tick {
        sequence,
        at: clock::uptime(),
        wall: clock::wall(),
    }
}

fn read_into(nftables: &mut Nftables, meter: &mut Meter) {
    let at = clock::uptime();
    meter.begin();
    nftables
        .counters(TableFamily::Inet, "flowctl", |record| meter.record(record))
        .unwrap();
    assert_eq!(meter.end(at), Unread::default());
}

/// CPU microseconds of one call.
fn each(repeats: usize, mut call: impl FnMut()) -> f64 {
    let before = thread_cpu();
    (0..repeats).for_each(|_| call());
    (thread_cpu() - before).as_secs_f64() * 1e6 / repeats as f64
}

/// GETOBJ, dump, family inet, table "flowctl", type counter.
const REQUEST: [u8; 40] = {
    let mut bytes = [0; 40];
    bytes[0] = 40;
    [bytes[4], bytes[5]] = [19, 10];
    [bytes[6], bytes[7]] = [1, 3];
    bytes[16] = 1;
    [bytes[20], bytes[22]] = [12, 1];
    let name = b"flowctl\0";
    let mut at = 0;
    while at < name.len() {
        bytes[24 + at] = name[at];
        at += 1;
    }
    [bytes[32], bytes[34]] = [8, 3];
    bytes[39] = 1;
    bytes
};

/// CPU microseconds of one run of the program, started and ended.
fn nft_json(size: usize, rounds: usize) -> f64 {
    let runs = rounds * if size > 1_000 { 1 } else { 5 };
    let before = children_cpu();
    let began = Instant::now();
    for _ in 0..runs {
        let mut nft = Command::new("nft");
        let status = nft
            .args(["-j", "list", "counters"])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
    }
    let cpu = children_cpu() - before;
    assert!(
        cpu <= began.elapsed().as_secs_f64() * 2.0,
        "more than this machine has"
    );
    cpu * 1e6 / runs as f64
}
