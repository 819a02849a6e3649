//! Counters of others: a user's own ruleset under real traffic. Its counters are read as `nft` lists them, totals go on
//! over whatever becomes of it, and nothing of it is ever changed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use flowctl::config::adopt;
use flowctl::event::Event;
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, UdpLoad};
use flowctl::report::{CounterReport, Severity};
use flowctl::units::BitRate;

use crate::naive::settled;
use crate::support::{Bench, Daemon, Gap, eventually, gaps, lab, namespace, pause, stream};
use crate::truth::{
    Truth, assert_near, assert_no_excess, await_raised, await_verdict, beat, beats,
};

const NAMES: [&str; 3] = ["wan_bytes_in", "wan_bytes_out", "lan_to_wan"];

/// The example in rulesets/, with the names that the lab's devices have.
fn example(ending: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rulesets");
    let text = std::fs::read_to_string(directory.join(format!("accounting.{ending}"))).unwrap();
    assert!(text.contains("\"lan0\""));
    text.replace("\"lan0\"", "\"br-lan\"")
}

/// The example, read five times a second and with a threshold that answers soon.
fn config() -> String {
    example("toml")
        .replace(
            "tick = \"1s\"",
            "tick = \"200ms\"\n[drilldown]\ninterval = \"200ms\"\n",
        )
        .replace("raise = \"80%\"", "raise = \"4Mbit/s\"")
        .replace("hold = \"3s\"", "hold = \"600ms\"")
        .replace("release = \"10s\"", "release = \"600ms\"")
}

/// Loads the user's ruleset, with `before` in the same transaction.
fn load(bench: &Bench<'_>, before: &str) {
    let file = bench.path().join("accounting.nft");
    std::fs::write(&file, format!("{before}\n{}", example("nft"))).unwrap();
    bench.nft(&["-f", file.to_str().unwrap()]);
}

/// The user's table but for its counts.
fn shape(bench: &Bench<'_>) -> String {
    bench.nft(&["-s", "-a", "list", "table", "inet", "accounting"])
}

fn ends(lab: &Lab, host: usize) -> Ends<'_> {
    Ends::new(
        lab.lan[host].end(Family::V4, 0),
        lab.server(Family::V4, host as u8, 443),
    )
}

/// One upload of that many packets of 1028 bytes, to its end.
fn burst(lab: &Lab, datagrams: u64) {
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 1000,
        rate: Some(BitRate(8e6)),
        datagrams,
        longest: Duration::from_secs(10),
    };
    let burst = Generator::udp("burst", &ends(lab, 0), &load).unwrap();
    assert_eq!(burst.finish().unwrap().up.received.packets, datagrams);
}

fn counter(daemon: &Daemon<'_>) -> CounterReport {
    daemon.counter("lan_to_wan")
}

fn total(daemon: &Daemon<'_>) -> u64 {
    counter(daemon).bytes
}

/// Watches the total for a while: it never falls.
fn watch(daemon: &Daemon<'_>, last: &mut u64) {
    for _ in 0..10 {
        let now = total(daemon);
        assert!(now >= *last, "the total fell from {last} to {now}");
        *last = now;
        pause(Duration::from_millis(40));
    }
}

/// Whether the counters of others are said to be missing.
fn said_missing(daemon: &Daemon<'_>) -> bool {
    let report = daemon.status();
    let mut entries = report.health.iter();
    let entry = entries.find(|entry| entry.code == "existing_missing");
    if let Some(entry) = entry {
        assert_eq!(entry.severity, Severity::Warning);
        assert!(entry.fix.contains("existing"), "{entry:?}");
    }
    entry.is_some()
}

#[test]
fn the_status_says_what_nft_lists_and_the_verdict_names_the_culprit() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench, "");
    let before = shape(&bench);
    burst(&lab, 100);
    let daemon = bench.start();
    assert_eq!(counter(&daemon).packets, 100, "counted before flowctl came");

    let truth = Truth::record();
    let film = truth.tcp("film", ends(&lab, 1), 2e6, Direction::Download);
    let less = truth.udp("less", ends(&lab, 0), 2e6, 1000);
    beat(&daemon);
    let culprit = truth.udp("culprit", ends(&lab, 2), 20e6, 1200);
    let raised = await_raised(&daemon);
    assert_eq!(raised.counter.as_str(), "lan_to_wan");
    assert_eq!(raised.hosts[0].address, lab.lan[2].v4);
    beats(&daemon, 10);
    for generator in [culprit, less, film] {
        generator.stop();
    }
    let verdict = await_verdict(&daemon, "lan_fills_uplink");
    assert_no_excess(&verdict);
    assert_eq!(verdict.found.hosts[0].address, lab.lan[2].v4);
    let up = truth.shares(["culprit", "less"], flowctl::lab::Way::Up, &verdict);
    let named = verdict.found.hosts[0].share
        / (verdict.found.hosts[0].share + verdict.found.hosts[1].share);
    assert_near("the culprit", named, up[0]);
    assert!(verdict.coverage.unwrap() >= 0.95, "{verdict:#?}");

    let listed = settled(&lab.router, "accounting");
    let report = daemon.settle();
    for name in NAMES {
        let found = report.counters.iter().find(|c| c.name.as_str() == name);
        let found = found.unwrap();
        assert_eq!(
            (found.bytes, found.packets),
            (listed[name].bytes, listed[name].packets)
        );
        assert!(
            found.present && found.resets == 0 && found.bytes > 0,
            "{found:?}"
        );
        let existing = found.existing.as_ref().unwrap().to_string();
        assert_eq!(existing, format!("inet accounting {name}"));
    }
    assert_eq!(counter(&daemon).capacity_bits_per_second, Some(40e6));
    let text = String::from_utf8(bench.flowctl(&["status"]).stdout).unwrap();
    assert!(text.contains("inet accounting"), "{text}");
    assert_eq!(daemon.status().table.repairs, 0);
    let own = bench.nft(&["list", "table", "inet", "flowctl"]);
    assert!(
        !own.contains("lan_to_wan") && own.contains("wan_in"),
        "{own}"
    );
    assert_eq!(shape(&bench), before);
    daemon.stop();
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(shape(&bench), before, "nothing of it was changed");
    assert_eq!(settled(&lab.router, "accounting"), listed);
}

#[test]
fn a_drilldown_reads_the_counter_beside_its_dumps() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    // Dumps are many times as frequent as ticks: what was counted at the last tick alone would be far behind the flows.
    let slow = config().replace("tick = \"200ms\"", "tick = \"1s\"");
    let bench = Bench::new(
        &lab.router,
        &slow.replace("hold = \"600ms\"", "hold = \"0s\""),
    );
    load(&bench, "");
    let daemon = bench.start();
    let truth = Truth::record();
    let upload = truth.udp("upload", ends(&lab, 0), 10e6, 1000);
    await_raised(&daemon);
    for _ in 0..3 {
        beat(&daemon);
        let report = daemon.status();
        let found = &report.drilldowns[0];
        assert!(found.counted_bytes.unwrap() > 0);
        assert!(
            found.found.excess_bytes <= found.counted_bytes.unwrap() / 20,
            "{found:#?}"
        );
    }
    upload.stop();
}

#[test]
fn totals_go_on_over_resets_and_over_tables_made_anew() {
    goes_on("auto");
}

#[test]
fn totals_go_on_where_the_ruleset_is_flushed_with_our_table() {
    goes_on("off");
}

fn goes_on(protect: &str) {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(
        &lab.router,
        &format!("table.protect = \"{protect}\"\n{}", config()),
    );
    load(&bench, "");
    let daemon = bench.start();
    let upload = stream(&lab, 1000, 2e6);
    let mut last = 0;
    watch(&daemon, &mut last);
    bench.nft(&["reset", "counters", "table", "inet", "accounting"]);
    daemon.await_record("a reset", |event| match event {
        Event::Reset { counter, .. } => counter.filter(|name| name.as_str() == "lan_to_wan"),
        _ => None,
    });
    assert_eq!(counter(&daemon).resets, 1);
    watch(&daemon, &mut last);
    for reloads in 1..=3 {
        // In one transaction, as a reload of NixOS' ruleset does it: it is never absent.
        load(&bench, "flush ruleset");
        eventually("a gap is stated", || {
            let of_table = |gap: &&Gap| gap.cause == "table inet accounting was made anew";
            (gaps(&bench).iter().filter(of_table).count() == reloads).then_some(())
        });
        watch(&daemon, &mut last);
    }
    assert_eq!(counter(&daemon).resets, 1, "another table is no reset");
    assert!(!said_missing(&daemon));
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    daemon.settle();
    let counted = total(&daemon);
    // Of the reset nobody knows what it took: at most what came since the reading before, a few ticks on a busy machine.
    let bound: u64 = gaps(&bench)
        .iter()
        .map(|gap| gap.bound_bytes.unwrap())
        .sum();
    assert!(
        counted <= sent && sent - counted <= bound + 250_000,
        "{counted} of {sent}, {bound}"
    );
}

#[test]
fn a_table_put_back_with_its_values_counts_nothing_twice() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench, "");
    let mut daemon = bench.start();
    let file = bench.path().join("saved.nft");
    let save = || {
        let listing = bench.nft(&["list", "table", "inet", "accounting"]);
        std::fs::write(&file, format!("delete table inet accounting\n{listing}")).unwrap();
    };
    burst(&lab, 500);
    save();
    let old = std::fs::read_to_string(&file).unwrap();
    burst(&lab, 300);
    daemon.settle();
    assert_eq!(counter(&daemon).packets, 800);
    save();
    bench.nft(&["-f", file.to_str().unwrap()]);
    daemon.settle();
    assert_eq!(counter(&daemon).packets, 800, "as it was saved just now");
    burst(&lab, 10);
    daemon.settle();
    assert_eq!(counter(&daemon).packets, 810);
    std::fs::write(&file, old).unwrap();
    bench.nft(&["-f", file.to_str().unwrap()]);
    daemon.settle();
    assert_eq!(counter(&daemon).packets, 810, "as it was saved before");
    burst(&lab, 10);
    daemon.settle();
    assert_eq!(counter(&daemon).packets, 820);
    daemon.stop();
    bench.nft(&["-f", file.to_str().unwrap()]);
    daemon = bench.start();
    assert_eq!(
        counter(&daemon).packets,
        820,
        "put back while nobody looked"
    );
}

#[test]
fn a_restart_and_a_removal_of_our_table_lose_nothing_and_count_nothing_twice() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench, "");
    let mut daemon = bench.start();
    burst(&lab, 200);
    daemon.settle();
    daemon.kill();
    burst(&lab, 100);
    daemon = bench.start();
    assert_eq!(counter(&daemon).packets, 300, "counted while nobody looked");
    daemon.stop();
    assert!(bench.flowctl(&["remove"]).status.success());
    burst(&lab, 50);
    daemon = bench.start();
    assert_eq!(counter(&daemon).packets, 350);
    assert_eq!(gaps(&bench), []);
    daemon.stop();
    load(&bench, "delete table inet accounting");
    burst(&lab, 20);
    daemon = bench.start();
    assert_eq!(counter(&daemon).packets, 370, "another table, counted anew");
    let gaps = gaps(&bench);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert!(
        gaps[0].cause.contains("inet accounting was made anew") && gaps[0].bound_bytes.is_some()
    );
    assert_eq!(counter(&daemon).resets, 0);
}

#[test]
fn a_table_may_come_and_go() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    let doctor_finds = || {
        let found = bench.flowctl(&["doctor"]).stdout;
        String::from_utf8(found)
            .unwrap()
            .contains("existing_missing")
    };
    assert!(doctor_finds());
    let daemon = bench.start();
    assert!(said_missing(&daemon) && !counter(&daemon).present);
    load(&bench, "");
    burst(&lab, 100);
    daemon.settle();
    assert_eq!(counter(&daemon).packets, 100);
    assert!(counter(&daemon).present && !said_missing(&daemon));
    assert!(!doctor_finds());
    assert_eq!(gaps(&bench), [], "what was never there missed nothing");

    bench.nft(&["delete", "table", "inet", "accounting"]);
    eventually("it is gone", || said_missing(&daemon).then_some(()));
    let gone = counter(&daemon);
    assert_eq!(
        (gone.present, gone.packets),
        (false, 100),
        "its total stays"
    );
    burst(&lab, 300);
    // Longer ago than one reading.
    daemon.settle();
    load(&bench, "");
    burst(&lab, 20);
    eventually("it is back", || (!said_missing(&daemon)).then_some(()));
    daemon.settle();
    assert_eq!(counter(&daemon).packets, 120);
    let gaps = gaps(&bench);
    let of_300 = 300 * 1028;
    assert!(
        gaps.len() == 1 && gaps[0].bound_bytes.unwrap() >= of_300,
        "{gaps:?}"
    );
    assert_eq!(daemon.status().table.repairs, 0, "ours had no part in it");

    let events: Vec<bool> = (bench.records().into_iter())
        .filter_map(|record| match record.event {
            Event::Health { code, active, .. } if code == "existing_missing" => Some(active),
            _ => None,
        })
        .collect();
    assert_eq!(events, [true, false, true, false]);
}

#[test]
fn one_table_with_our_names_does_not_mix_with_ours() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = "tick = \"200ms\"\ninterfaces.wan.device = \"wan0\"\n[counters]\n\
                theirs = { existing = \"ip accounting wan_out\" }\n\
                too = { existing = \"netdev accounting wan_out\" }\n";
    let bench = Bench::new(&lab.router, text);
    let file = bench.path().join("names.nft");
    let theirs = [("ip", 7), ("netdev", 9), ("inet", 1)].map(|(family, packets)| {
        let counter = format!("counter wan_out {{\n packets {packets} bytes 70\n }}");
        format!("table {family} accounting {{\n {counter}\n}}\n")
    });
    std::fs::write(&file, theirs.concat()).unwrap();
    bench.nft(&["-f", file.to_str().unwrap()]);
    let daemon = bench.start();
    burst(&lab, 100);
    daemon.settle();
    let packets = ["wan_out", "theirs", "too"].map(|name| daemon.counter(name).packets);
    assert_eq!(packets, [100, 7, 9]);
}

#[test]
fn the_named_counters_of_every_family_are_found_and_can_be_adopted() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(
        &namespace,
        "tick = \"200ms\"\n[interfaces.wan]\ndevice = \"wan0\"",
    );
    let families = ["arp", "bridge", "inet", "ip", "ip6", "netdev"];
    for family in families {
        bench.nft(&["add", "table", family, "fw-4"]);
        bench.nft(&["add", "counter", family, "fw-4", "wan_in"]);
    }
    bench.nft(&["add", "counter", "inet", "fw-4", "Old.One"]);
    bench.nft(&["add", "quota", "inet", "fw-4", "no_counter", "1 mbytes"]);
    let daemon = bench.start();
    let found = namespace.run(|| Nftables::open()?.named_counters());
    let found = found.unwrap().unwrap();
    let read: BTreeSet<String> = (found.iter().map(ToString::to_string))
        .filter(|counter| !counter.starts_with("inet flowctl "))
        .collect();
    let mut wanted: BTreeSet<String> = (families.iter())
        .map(|family| format!("{family} fw-4 wan_in"))
        .collect();
    wanted.insert("inet fw-4 Old.One".to_owned());
    assert_eq!(read, wanted);

    let taken = ["wan_in", "wan_out"].map(str::to_owned).into();
    let adopted = adopt::render(&found, &["flowctl"], &taken);
    bench.configure(&format!("[interfaces.wan]\ndevice = \"wan0\"\n{adopted}"));
    daemon.stop();
    let daemon = bench.start();
    let report = daemon.status();
    let counters = report.counters.iter();
    let shown: BTreeSet<String> = (counters.filter(|counter| counter.present))
        .filter_map(|counter| Some(counter.existing.as_ref()?.to_string()))
        .collect();
    assert_eq!(shown, wanted);
    assert!(!said_missing(&daemon));
}

#[test]
fn a_reload_takes_counters_of_others_up_and_points_a_name_elsewhere() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let text = |existing: &str| format!("tick = \"200ms\"\n[counters]\n{existing}\n");
    let bench = Bench::new(&lab.router, &text(""));
    load(&bench, "");
    burst(&lab, 100);
    let daemon = bench.start();
    let reload = |config: &str| {
        bench.configure(config);
        let before = bench.records().len();
        daemon.signal(rustix::process::Signal::HUP);
        eventually("the reload", || {
            let records = bench.records();
            let reloaded = |event: &Event| matches!(event, Event::Config { .. });
            (records[before..]
                .iter()
                .any(|record| reloaded(&record.event)))
            .then_some(())
        });
        daemon.settle();
    };
    reload(&text("up.existing = \"inet accounting lan_to_wan\""));
    assert_eq!(daemon.counter("up").packets, 100);
    reload(&text("up.existing = \"inet accounting wan_bytes_out\""));
    assert_eq!(
        daemon.counter("up").packets,
        100,
        "what the other had is no news"
    );
    burst(&lab, 10);
    daemon.settle();
    assert_eq!(daemon.counter("up").packets, 110);
    reload(&text(""));
    burst(&lab, 5);
    reload(&text("up.existing = \"inet accounting wan_bytes_out\""));
    assert_eq!(
        daemon.counter("up").packets,
        115,
        "counted while nobody read it"
    );
}
