//! Rules that are loaded with the system's ruleset: the daemon reads them in whatever order things start, under traffic and
//! over reloads, says what is wrong with them, and changes nothing of them, ever.

use flowctl::event::{ConfigResult, Event};
use flowctl::kernel::nft::Protection;
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::link::Links;
use flowctl::lab::{Direction, Ends, Family, Lab, LabOptions};
use flowctl::report::{Health, Severity};
use flowctl::units::BitRate;

use crate::naive::settled;
use crate::support::{
    Bench, Daemon, burst, bytes, eventually, gaps, lab, namespace, pause, said, stream,
};
use crate::truth::{Truth, assert_no_excess, await_raised, await_verdict, beats};

const COUNTERS: &str = r#"
tick = "200ms"
[interfaces.wan]
device = "wan0"
[interfaces.lan]
device = "br-lan"
[subnets]
home = ["10.77.1.0/24"]
"#;

const STATIC: &str = "table.static = true";

fn config() -> String {
    format!("{STATIC}{COUNTERS}")
}

/// Writes what `plan --format nft` prints, by the configuration of that moment.
fn print(bench: &Bench<'_>) -> String {
    let printed = bench.flowctl(&["plan", "--format", "nft"]);
    assert!(printed.status.success(), "{}", said(&printed));
    let file = bench.path().join("static.nft");
    std::fs::write(&file, &printed.stdout).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Loads it, as the service that loads the system's ruleset would.
fn load(bench: &Bench<'_>) {
    let file = print(bench);
    bench.nft(&["-f", &file]);
}

fn found(daemon: &Daemon<'_>, code: &str) -> Option<Health> {
    let report = daemon.status();
    let mut health = report.health.into_iter();
    health.find(|entry| entry.code == code)
}

fn await_found(daemon: &Daemon<'_>, code: &str) -> Health {
    eventually(code, || found(daemon, code))
}

fn await_gone(daemon: &Daemon<'_>, code: &str) {
    eventually("it is over", || found(daemon, code).is_none().then_some(()));
}

fn start_notes(daemon: &Daemon<'_>) -> String {
    daemon.await_record("the start", |event| match event {
        Event::Started { notes, .. } => Some(notes.join("\n")),
        _ => None,
    })
}

fn await_gaps(bench: &Bench<'_>, count: usize) {
    eventually("a gap is stated", || {
        (gaps(bench).len() == count).then_some(())
    });
}

/// The ruleset with handles, but for what it has counted, and how often it was changed.
fn ruleset(bench: &Bench<'_>) -> (String, u32) {
    let listed = bench.nft(&["-s", "-a", "list", "ruleset"]);
    let generation = bench.namespace.run(|| Nftables::open()?.generation());
    (listed, generation.unwrap().unwrap())
}

fn tables(bench: &Bench<'_>) -> String {
    bench.nft(&["list", "tables"])
}

/// Nothing that anybody counted is lost but for the gaps that are stated, and nothing is counted twice.
fn assert_within_gaps(bench: &Bench<'_>, counted: u64, sent: u64) {
    let bounds = gaps(bench).iter().map(|gap| gap.bound_bytes.unwrap()).sum();
    let bounds: u64 = bounds;
    assert!(
        counted <= sent && sent - counted <= bounds,
        "{counted} of {sent}, gaps of {bounds}"
    );
}

#[test]
fn a_daemon_that_is_there_before_its_rules_counts_from_their_first_packet() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    let daemon = bench.start();
    let missing = await_found(&daemon, "table_missing");
    assert_eq!(missing.severity, Severity::Error);
    assert!(missing.fix.contains("plan --format nft"), "{missing:?}");
    let counter = daemon.counter("home_from");
    assert!(!counter.present && counter.bytes == 0);
    assert_eq!(
        tables(&bench),
        "table inet lab_nat\n",
        "it installs nothing"
    );

    burst(&lab, 2000);
    daemon.settle();
    load(&bench);
    let sent = burst(&lab, 300);
    let report = daemon.settle();
    assert_eq!(bytes(&report), sent);
    assert_eq!(report.table.protection, Protection::Static);
    assert!(daemon.counter("home_from").present);
    await_gone(&daemon, "table_missing");
    assert_eq!(gaps(&bench), [], "what was never there missed nothing");
    let listed = settled(&lab.router, "flowctl");
    assert_eq!(listed["home_from"].bytes, sent);
    let health: Vec<bool> = (bench.records().into_iter())
        .filter_map(|record| match record.event {
            Event::Health { code, active, .. } if code == "table_missing" => Some(active),
            _ => None,
        })
        .collect();
    assert_eq!(health, [true, false]);
}

#[test]
fn totals_go_on_when_the_same_rules_are_loaded_anew_under_traffic() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench);
    let daemon = bench.start();
    let upload = stream(&lab, 1000, 4e6);
    let mut last = 0;
    for reloads in 1..=4 {
        for _ in 0..10 {
            let now = bytes(&daemon.status());
            assert!(now >= last, "the total fell from {last} to {now}");
            last = now;
            pause(std::time::Duration::from_millis(40));
        }
        load(&bench);
        await_gaps(&bench, reloads);
    }
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    let counted = bytes(&daemon.settle());
    assert_within_gaps(&bench, counted, sent);
    assert!(counted > sent / 2, "{counted} of {sent}");
    let report = daemon.status();
    assert_eq!(report.table.repairs, 0);
    assert!(report.counters.iter().all(|counter| counter.resets == 0));
    assert!(found(&daemon, "static_rules_differ").is_none());
}

#[test]
fn what_a_long_beat_missed_is_bounded_by_what_devices_moved_until_the_load() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let slow = config().replace("tick = \"200ms\"", "tick = \"5s\"");
    let bench = Bench::new(&lab.router, &slow);
    load(&bench);
    let daemon = bench.start();
    let lost = burst(&lab, 20);
    load(&bench);
    // The watcher has heard of it by the time that the daemon says anything after it.
    pause(std::time::Duration::from_millis(300));
    let sent = burst(&lab, 2000);
    await_gaps(&bench, 1);
    assert_eq!(gaps(&bench)[0].cause, "table inet flowctl was loaded anew");
    assert_eq!(bytes(&daemon.status()), sent);
    let bound = gaps(&bench)[0].bound_bytes.unwrap();
    assert!(bound >= lost && bound < sent / 2, "{bound} for {lost}");
}

/// A threshold that answers soon.
const WATCHED: &str = r#"
[thresholds.busy]
counter = "out_of_lan"
raise = "4Mbit/s"
hold = "600ms"
release = "600ms"
[drilldown]
interval = "200ms"
[counters.out_of_lan]
in = "lan"
out = "wan"
"#;

fn ends(lab: &Lab, host: usize) -> Ends<'_> {
    Ends::new(
        lab.lan[host].end(Family::V4, 0),
        lab.server(Family::V4, host as u8, 443),
    )
}

#[test]
fn a_verdict_comes_of_rules_in_which_nothing_was_changed() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &format!("{}{WATCHED}", config()));
    load(&bench);
    let before = ruleset(&bench);
    let daemon = bench.start();
    let truth = Truth::record();
    let less = truth.udp("less", ends(&lab, 0), 2e6, 1000);
    let film = truth.tcp("film", ends(&lab, 1), 2e6, Direction::Download);
    let culprit = truth.udp("culprit", ends(&lab, 2), 20e6, 1200);
    let raised = await_raised(&daemon);
    assert_eq!(raised.hosts[0].address, lab.lan[2].v4);
    beats(&daemon, 5);
    assert_eq!(ruleset(&bench), before, "while a drilldown goes on");
    for generator in [culprit, less, film] {
        generator.stop();
    }
    let verdict = await_verdict(&daemon, "busy");
    assert_no_excess(&verdict);
    assert_eq!(verdict.found.hosts[0].address, lab.lan[2].v4);
    assert!(verdict.coverage.unwrap() >= 0.95, "{verdict:#?}");
    let notes = verdict.found.notes.join("\n");
    assert!(notes.contains("table.static"), "{notes}");
    assert!(found(&daemon, "drops_unmeasured").is_none());
    let drilled = bench.flowctl(&["drill", "out_of_lan", "--for", "1s", "--json"]);
    assert!(drilled.status.success(), "{}", said(&drilled));
    daemon.stop();
    assert_eq!(ruleset(&bench), before, "through its whole life");
}

#[test]
fn flows_that_carry_the_label_bits_of_other_rules_are_named_as_approximate() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &format!("{}{WATCHED}", config()));
    load(&bench);
    let daemon = bench.start();
    let truth = Truth::record();
    // Answered, so that none of its later packets is a new flow's and gets other bits too.
    let old = truth.tcp("old", ends(&lab, 0), 5e4, Direction::Upload);
    daemon.settle();
    // The file's order gives the bits: what stood for one interface stands for another now.
    let wan = "[interfaces.wan]\ndevice = \"wan0\"\n";
    let lan = "[interfaces.lan]\ndevice = \"br-lan\"\n";
    let swapped = config().replace(&format!("{wan}{lan}"), &format!("{lan}{wan}"));
    assert_ne!(swapped, config());
    bench.configure(&format!("{swapped}{WATCHED}"));
    daemon.signal(rustix::process::Signal::HUP);
    await_found(&daemon, "static_rules_differ");
    load(&bench);
    await_gone(&daemon, "static_rules_differ");
    await_gaps(&bench, 1);
    let young = truth.udp("young", ends(&lab, 2), 6e6, 1000);
    old.set_rate(BitRate(12e6));
    await_raised(&daemon);
    beats(&daemon, 5);
    let sources = [old.source.port(), young.source.port()];
    old.stop();
    young.stop();
    let verdict = await_verdict(&daemon, "busy");
    let named: Vec<(Option<u16>, bool)> = (verdict.found.flows.iter())
        .map(|flow| (flow.source_port, flow.approximate))
        .collect();
    assert_eq!(
        named,
        [(Some(sources[0]), true), (Some(sources[1]), false)],
        "{verdict:#?}"
    );
    assert!(verdict.coverage.unwrap() >= 0.9, "{verdict:#?}");
}

#[test]
fn rules_put_back_with_old_values_count_nothing_twice() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench);
    let mut daemon = bench.start();
    let mut sent = burst(&lab, 500);
    daemon.settle();
    let listing = bench.nft(&["list", "table", "inet", "flowctl"]);
    let file = bench.path().join("saved.nft");
    std::fs::write(&file, format!("delete table inet flowctl\n{listing}")).unwrap();
    let put_back = || bench.nft(&["-f", file.to_str().unwrap()]);
    sent += burst(&lab, 300);
    assert_eq!(bytes(&daemon.settle()), sent);
    put_back();
    await_gaps(&bench, 1);
    assert_eq!(bytes(&daemon.settle()), sent);
    sent += burst(&lab, 10);
    assert_eq!(bytes(&daemon.settle()), sent);
    daemon.stop();
    put_back();
    daemon = bench.start();
    assert_eq!(
        bytes(&daemon.status()),
        sent,
        "put back while nobody looked"
    );
    sent += burst(&lab, 10);
    assert_eq!(bytes(&daemon.settle()), sent);
    assert!(
        found(&daemon, "static_rules_differ").is_none(),
        "the rules are those"
    );
}

#[test]
fn a_reload_waits_for_its_rules_and_says_so() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench);
    let daemon = bench.start();
    let mut sent = burst(&lab, 50);
    let more = "[counters.up]\nfrom = \"home\"\nout = \"wan\"\n";
    bench.configure(&(config() + more));
    daemon.signal(rustix::process::Signal::HUP);
    let differ = await_found(&daemon, "static_rules_differ");
    assert_eq!(differ.severity, Severity::Warning);
    assert!(differ.fix.contains("plan --format nft"), "{differ:?}");
    assert!(
        bench
            .flowctl(&["doctor"])
            .stdout
            .windows(19)
            .any(|word| word == b"static_rules_differ")
    );
    assert!(!daemon.counter("up").present);
    sent += burst(&lab, 50);
    assert_eq!(bytes(&daemon.settle()), sent, "the others go on");
    load(&bench);
    await_gone(&daemon, "static_rules_differ");
    await_gaps(&bench, 1);
    let up = burst(&lab, 70);
    assert_eq!(bytes(&daemon.settle()), sent + up);
    let counter = daemon.counter("up");
    assert_eq!((counter.present, counter.bytes), (true, up));

    // Somebody adds a rule of his own to what was loaded.
    bench.nft(&["add", "rule", "inet", "flowctl", "ingress", "accept"]);
    await_found(&daemon, "static_rules_differ");

    bench.configure(&(COUNTERS.to_owned() + more));
    daemon.signal(rustix::process::Signal::HUP);
    let messages = daemon.await_record("the reload", |event| match event {
        Event::Config {
            result: ConfigResult::Rejected,
            messages,
        } => Some(messages),
        _ => None,
    });
    assert!(messages[0].contains("restart"), "{messages:?}");
}

#[test]
fn what_happened_while_no_daemon_ran_is_counted_or_a_gap() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench);
    let mut daemon = bench.start();
    let mut sent = burst(&lab, 200);
    daemon.settle();
    daemon.kill();
    sent += burst(&lab, 100);
    daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent, "the same table");
    assert_eq!(gaps(&bench), []);
    daemon.kill();
    let lost = burst(&lab, 40);
    load(&bench);
    sent += burst(&lab, 500);
    daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent, "a table loaded meanwhile");
    let stated = gaps(&bench);
    assert_eq!(stated.len(), 1, "{stated:?}");
    assert!(stated[0].bound_bytes.unwrap() >= lost, "{stated:?}");
    daemon.stop();

    boot_anew(&bench);
    load(&bench);
    sent += burst(&lab, 30);
    daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent, "loaded by this boot");
    let stated = gaps(&bench);
    assert_eq!(stated.len(), 2, "{stated:?}");
    assert_eq!(stated[1].cause, "the machine was started anew");
    assert_eq!(stated[1].bound_bytes, None);
    daemon.stop();

    // Another one, which begins with a listing that was saved with its values: more than devices moved since.
    boot_anew(&bench);
    let listing = bench.nft(&["list", "table", "inet", "flowctl"]);
    let counted = format!(
        "bytes {}",
        settled(&lab.router, "flowctl")["home_from"].bytes
    );
    assert!(listing.contains(&counted), "{listing}");
    let old = listing.replace(&counted, "bytes 900000000000");
    let file = bench.path().join("saved.nft");
    std::fs::write(&file, format!("delete table inet flowctl\n{old}")).unwrap();
    bench.nft(&["-f", file.to_str().unwrap()]);
    daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent, "put back by this boot");
    sent += burst(&lab, 10);
    assert_eq!(bytes(&daemon.settle()), sent);
}

/// What was saved is of a kernel that is gone.
fn boot_anew(bench: &Bench<'_>) {
    for name in ["totals.json", "totals-live.json"] {
        let path = bench.state_dir().join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut saved: serde_json::Value = serde_json::from_str(&text).unwrap();
        saved["boot_id"] = "earlier".into();
        std::fs::write(&path, saved.to_string()).unwrap();
    }
}

#[test]
fn rules_that_are_found_are_used_without_being_asked_for() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, COUNTERS);
    load(&bench);
    let before = ruleset(&bench);
    let daemon = bench.start();
    let sent = burst(&lab, 50);
    assert_eq!(bytes(&daemon.settle()), sent);
    let notes = start_notes(&daemon);
    assert!(notes.contains("installs and repairs nothing"), "{notes}");
    assert!(notes.contains("is loaded with"), "{notes}");
    let doctor = said(&bench.flowctl(&["doctor"]));
    assert!(doctor.contains("static_rules_found"), "{doctor}");
    // What is not under [table] may change.
    bench.configure(&COUNTERS.replace("200ms", "300ms"));
    daemon.signal(rustix::process::Signal::HUP);
    let result = daemon.await_record("the reload", |event| match event {
        Event::Config { result, .. } => Some(result),
        _ => None,
    });
    assert_eq!(result, ConfigResult::Reloaded);
    assert_eq!(ruleset(&bench), before);
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    let missing = await_found(&daemon, "table_missing");
    assert!(missing.fix.contains("restart"), "{missing:?}");
    daemon.settle();
    assert_eq!(tables(&bench), "table inet lab_nat\n", "not repaired");
    daemon.stop();
    let daemon = bench.start();
    assert_eq!(daemon.status().table.protection, Protection::Owned);
    assert_eq!(bytes(&daemon.status()), sent);
    let more = burst(&lab, 5);
    assert_eq!(bytes(&daemon.settle()), sent + more);
}

#[test]
fn rules_that_are_found_and_cannot_follow_devices_follow_none() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, COUNTERS);
    load(&bench);
    let follows = COUNTERS.replace(
        "home = [\"10.77.1.0/24\"]",
        "home = { device = \"br-lan\" }",
    );
    assert_ne!(follows, COUNTERS);
    bench.configure(&follows);
    let daemon = bench.start();
    let differ = await_found(&daemon, "static_rules_differ");
    assert!(differ.message.contains("subnets.home"), "{differ:?}");
    assert!(differ.fix.contains("as a list"), "{differ:?}");
    let mut links = Links::open(&lab.router).unwrap();
    let more = "10.77.9.1/24".parse().unwrap();
    links.add_address("br-lan", more).unwrap();
    pause(std::time::Duration::from_millis(1500));
    let subnet = |event: &Event| matches!(event, Event::Subnet { .. });
    assert!(!bench.records().iter().any(|record| subnet(&record.event)));
    let sent = burst(&lab, 20);
    assert_eq!(bytes(&daemon.settle()), sent);
}

#[test]
fn a_table_that_flowctl_had_installed_goes_on_counting_until_rules_are_loaded() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, COUNTERS);
    let mut daemon = bench.start();
    let mut sent = burst(&lab, 100);
    daemon.settle();
    daemon.stop();
    bench.configure(&config());
    let before = ruleset(&bench);
    sent += burst(&lab, 20);
    daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent);
    let notes = start_notes(&daemon);
    assert!(notes.contains("installed by flowctl itself"), "{notes}");
    assert!(!notes.contains("is loaded with"), "{notes}");
    let differ = await_found(&daemon, "static_rules_differ");
    assert!(differ.fix.contains("flowctl remove"), "{differ:?}");
    assert_eq!(ruleset(&bench), before, "not even owned again");
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    load(&bench);
    await_gaps(&bench, 1);
    sent += burst(&lab, 30);
    assert_eq!(bytes(&daemon.settle()), sent);
    await_gone(&daemon, "static_rules_differ");
    daemon.stop();
    // And back.
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    bench.configure(COUNTERS);
    daemon = bench.start();
    sent += burst(&lab, 10);
    assert_eq!(bytes(&daemon.settle()), sent);
    assert_eq!(
        gaps(&bench)[1].cause,
        "the table was gone when flowctl started"
    );
}

#[test]
fn a_table_of_flowctls_own_that_is_read_as_static_for_a_while_counts_nothing_twice() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, COUNTERS);
    let mut sent = 0;
    let mut run = |configuration: &str| {
        bench.configure(configuration);
        let daemon = bench.start();
        sent += burst(&lab, 50);
        assert_eq!(bytes(&daemon.settle()), sent);
        daemon.kill();
        sent += burst(&lab, 10);
    };
    run(COUNTERS);
    run(&config());
    run(COUNTERS);
    run(&config());
    let removed = bench.flowctl(&["remove"]);
    assert!(removed.status.success(), "{}", said(&removed));
    bench.configure(COUNTERS);
    let daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent, "what remove took in");
    assert_eq!(gaps(&bench), []);
}

#[test]
fn a_counter_that_a_reload_brings_back_counts_from_the_load_of_its_rules() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let more = "[counters.up]\nfrom = \"home\"\nout = \"wan\"\n";
    let bench = Bench::new(&lab.router, &(config() + more));
    load(&bench);
    let daemon = bench.start();
    let mut up = burst(&lab, 50);
    daemon.settle();
    bench.configure(&config());
    load(&bench);
    await_gaps(&bench, 1);
    daemon.signal(rustix::process::Signal::HUP);
    await_gone(&daemon, "static_rules_differ");
    burst(&lab, 20);
    daemon.settle();
    // The rules first, and the daemon is told when it has long counted with them.
    bench.configure(&(config() + more));
    load(&bench);
    await_gaps(&bench, 2);
    up += burst(&lab, 200);
    daemon.settle();
    daemon.signal(rustix::process::Signal::HUP);
    let counter = eventually("the counter is read", || {
        let report = daemon.status();
        let mut counters = report.counters.iter();
        let up = counters.find(|counter| counter.name.as_str() == "up" && counter.present);
        up.cloned()
    });
    assert_eq!(counter.bytes, up);
    up += burst(&lab, 10);
    daemon.settle();
    assert_eq!(daemon.counter("up").bytes, up);
    assert_eq!(gaps(&bench).len(), 2, "nothing was loaded since");
}

#[test]
fn static_rules_of_another_name_go_on_with_a_gap() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let named = |name: &str| format!("table.name = \"{name}\"\n{}", config());
    let bench = Bench::new(&lab.router, &named("one"));
    load(&bench);
    let daemon = bench.start();
    let mut sent = burst(&lab, 50);
    daemon.settle();
    daemon.stop();
    let lost = burst(&lab, 20);
    bench.nft(&["delete", "table", "inet", "one"]);
    bench.configure(&named("two"));
    load(&bench);
    sent += burst(&lab, 300);
    let daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent);
    let stated = gaps(&bench);
    assert_eq!(stated.len(), 1, "{stated:?}");
    assert!(stated[0].cause.contains("another name"), "{stated:?}");
    assert!(stated[0].bound_bytes.unwrap() >= lost, "{stated:?}");
    sent += burst(&lab, 10);
    assert_eq!(bytes(&daemon.settle()), sent);
}

#[test]
fn rules_that_this_boot_loads_after_the_daemon_leave_a_gap_until_then() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config());
    load(&bench);
    let daemon = bench.start();
    let mut sent = burst(&lab, 50);
    daemon.settle();
    daemon.stop();
    boot_anew(&bench);
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    let daemon = bench.start();
    burst(&lab, 20);
    daemon.settle();
    load(&bench);
    sent += burst(&lab, 30);
    assert_eq!(bytes(&daemon.settle()), sent);
    let stated = gaps(&bench);
    assert!(stated[0].to <= stated[1].from, "no time twice: {stated:?}");
    let causes: Vec<String> = stated.into_iter().map(|gap| gap.cause).collect();
    let expected = [
        "the machine was started anew",
        "table inet flowctl was loaded anew",
    ];
    assert_eq!(causes, expected);
}

#[test]
fn rules_loaded_under_a_daemon_with_a_table_of_its_own_are_left_alone_until_it_is_restarted() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    // Of others, and still read.
    let others = "[counters.others]\nexisting = \"inet others seen\"\n";
    let counters = format!("table.protect = \"off\"{COUNTERS}{others}");
    let bench = Bench::new(&lab.router, &counters);
    bench.nft(&["add", "table", "inet", "others"]);
    bench.nft(&[
        "add",
        "counter",
        "inet",
        "others",
        "seen",
        "{ packets 1 bytes 70; }",
    ]);
    let mut daemon = bench.start();
    let mut sent = burst(&lab, 100);
    daemon.settle();
    load(&bench);
    let before = ruleset(&bench);
    let failed = await_found(&daemon, "repair_failed");
    assert!(failed.message.contains("restart flowctl"), "{failed:?}");
    assert_eq!(bytes(&daemon.settle()), sent);
    assert!(found(&daemon, "reading_failed").is_none());
    let counter = daemon.counter("others");
    assert_eq!((counter.present, counter.bytes), (true, 70));
    sent += burst(&lab, 20);
    daemon.stop();
    daemon = bench.start();
    assert_eq!(bytes(&daemon.status()), sent);
    assert!(found(&daemon, "repair_failed").is_none());
    assert_eq!(ruleset(&bench), before);
    assert_eq!(gaps(&bench).len(), 1);
}

#[test]
fn a_table_of_another_name_must_be_removed_first() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, &format!("table.name = \"old\"{COUNTERS}"));
    bench.start().stop();
    bench.configure(&config());
    let refused = bench.flowctl(&["run"]);
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(
        text.contains("table inet old") && text.contains("flowctl remove"),
        "{text}"
    );
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(tables(&bench), "");
    bench.start().stop();
}

#[test]
fn doctor_tells_the_rules_wanted_from_all_others() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, &config());
    let says = |word: &str| said(&bench.flowctl(&["doctor"])).contains(word);
    assert!(says("table_missing"));
    load(&bench);
    assert!(!says("table_missing") && !says("static_rules") && !says("table_unprotected"));
    // As many rules and elements, but not these.
    bench.configure(&config().replace("wan0", "wan1"));
    assert!(says("static_rules_differ") && says("was not made from this configuration"));
    load(&bench);
    assert!(!says("static_rules"));
    bench.nft(&["delete", "table", "inet", "flowctl"]);
    bench.nft(&["add", "table", "inet", "flowctl"]);
    assert!(says("static_rules_differ") && says("is none that"));
}

#[test]
fn removing_flowctl_leaves_what_the_configuration_loaded() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, &config());
    load(&bench);
    let before = ruleset(&bench);
    let daemon = bench.start();
    let removed = bench.flowctl(&["remove"]);
    assert!(removed.status.success());
    let text = said(&removed);
    assert!(text.contains("table inet flowctl stays"), "{text}");
    assert!(text.contains("nft delete table inet flowctl"), "{text}");
    assert_eq!(ruleset(&bench), before);
    eventually("it has ended", || (!bench.socket().exists()).then_some(()));
    drop(daemon);
}
