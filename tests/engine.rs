//! The engine's stories: readings go in second by second, and what must be asked of drilldowns and written to the
//! log comes out, with the account's ends where the contract has them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]

mod story;

use std::sync::Arc;
use std::time::Duration;

use flowctl::ask::{Ask, Ending, Inquiry, Outcome, Progress, Question};
use flowctl::config::Connected;
use flowctl::drilldown::verdict::{Findings, HostShare};
use flowctl::event::Event;
use flowctl::kernel::addresses::Address;
use flowctl::kernel::links::Link;
use flowctl::report::StateWord;

use story::{ABOVE, BELOW, CONFIG, Story, parse, tick};

impl Story {
    fn state(&self) -> StateWord {
        self.engine.threshold_reports()[0].state
    }

    /// Seconds above raise until the alert; returns the drilldown's id.
    fn fire(&mut self) -> String {
        let id = begun(&self.second(ABOVE)).id;
        self.second(ABOVE);
        assert_eq!(words(&self.second(ABOVE)), ["raised"]);
        id
    }
}

fn begun(outcome: &Outcome) -> Inquiry {
    match outcome.asks.first() {
        Some(Ask::Begin(inquiry)) => (**inquiry).clone(),
        other => panic!("{other:?}"),
    }
}

fn ended(outcome: &Outcome) -> Ending {
    match outcome.asks.last() {
        Some(Ask::End(ending)) => (**ending).clone(),
        other => panic!("{other:?}"),
    }
}

fn ended_or_discarded(outcome: &Outcome) -> String {
    match outcome.asks.last() {
        Some(Ask::Discard { id }) => id.clone(),
        _ => ended(outcome).id,
    }
}

fn words(outcome: &Outcome) -> Vec<&'static str> {
    let word = |event: &Event| match event {
        Event::Raised(_) => "raised",
        Event::Cleared { .. } => "cleared",
        Event::Reset { .. } => "reset",
        Event::Flows(_) => "flows",
        other => panic!("{other:?}"),
    };
    outcome.events.iter().map(word).collect()
}

fn progress(id: &str) -> Progress {
    let host = HostShare {
        address: [10, 0, 0, 1].into(),
        name: None,
        mac: None,
        addresses: vec![[10, 0, 0, 1].into()],
        bytes: 300,
        packets: 30,
        share: 0.75,
    };
    Progress {
        id: id.to_owned(),
        counted_bytes: Some(400),
        found: Findings {
            attributed_bytes: 300,
            flows_remainder_bytes: 300,
            hosts: vec![host],
            ..Findings::default()
        },
        dumps: 2,
        dump_time: Duration::from_millis(1),
        interval: Duration::from_secs(1),
    }
}

#[test]
fn the_account_begins_at_the_last_reading_not_above_raise_and_ends_where_it_is_idle() {
    let mut story = Story::of(CONFIG);
    story.second(BELOW);
    story.second(BELOW);
    let inquiry = begun(&story.second(ABOVE));
    assert_eq!(inquiry.started, tick(2));
    story.second(ABOVE);
    assert_eq!(words(&story.second(ABOVE)), ["raised"]);
    for _ in 0..2 {
        assert_eq!(words(&story.second(BELOW)), [""; 0]);
    }
    let over = story.second(BELOW);
    assert_eq!(words(&over), ["cleared"]);
    let ending = ended(&over);
    assert_eq!((&ending.id, ending.ended), (&inquiry.id, tick(8)));
    let counted = ending.counted.unwrap();
    assert_eq!(
        (counted.volume.bytes, counted.volume.packets),
        (3 * ABOVE + 3 * BELOW, 63)
    );
    assert_eq!((counted.peak_bits, ending.ended_by), (1600.0, None));
    assert!(story.engine.drilldown_reports().is_empty());
}

#[test]
fn a_reading_that_missed_the_counter_begins_no_account() {
    let mut story = Story::of(CONFIG);
    story.second(BELOW);
    story.blind_second(ABOVE);
    story.blind_second(ABOVE);
    let outcome = story.second(ABOVE);
    assert_eq!(
        begun(&outcome).started,
        tick(1),
        "what was counted since belongs to it"
    );
    let counted = outcome.asks.iter().find_map(|ask| match ask {
        Ask::Counted { counted, .. } => Some(counted.bytes),
        _ => None,
    });
    assert_eq!(counted, Some(3 * ABOVE));
}

#[test]
fn what_subsides_before_hold_is_forgotten_without_a_record() {
    let mut story = Story::of(CONFIG);
    let id = begun(&story.second(ABOVE)).id;
    let outcome = story.second(BELOW);
    assert_eq!(
        (outcome.asks, outcome.events),
        (vec![Ask::Discard { id }], vec![])
    );
    assert_eq!(story.state(), StateWord::Idle);
    let again = begun(&story.second(ABOVE));
    assert_eq!(again.started, tick(2), "the next account is its own");
}

#[test]
fn an_alert_says_what_the_drilldown_knows_by_then() {
    let mut story = Story::of(CONFIG);
    let id = begun(&story.second(ABOVE)).id;
    story.engine.explain(tick(1), progress(&id));
    story
        .engine
        .explain(tick(1), progress("of another drilldown"));
    story.second(ABOVE);
    let outcome = story.second(ABOVE);
    let Some(Event::Raised(raised)) = outcome.events.first() else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        (raised.counted_bytes, raised.attributed_bytes),
        (Some(400), Some(300))
    );
    assert_eq!(
        (raised.hosts.len(), raised.drilldown.as_ref()),
        (1, Some(&id))
    );
    assert_eq!(
        (raised.bits_per_second, raised.packets_per_second),
        (Some(1600.0), None)
    );
}

#[test]
fn the_interim_list_comes_every_half_minute() {
    let mut story = Story::of(CONFIG);
    let id = story.fire();
    let mut listed = Vec::new();
    for _ in 0..70 {
        story.second(ABOVE);
        let outcome = story.engine.explain(tick(story.second), progress(&id));
        listed.extend(words(&outcome).first().map(|_| story.second));
    }
    assert_eq!(listed, [33, 63]);
}

#[test]
fn what_is_born_while_nothing_is_counted_before_an_account_counts_whole() {
    let mut story = Story::of(CONFIG);
    story.second(BELOW);
    let busy = begun(&story.second(ABOVE));
    assert_eq!(busy.quiet_since, busy.started.wall);
    for _ in 0..2 {
        story.second(0);
    }
    let quiet = begun(&story.second(ABOVE));
    assert_eq!((quiet.started, quiet.quiet_since), (tick(4), tick(3).wall));
}

#[test]
fn after_max_duration_the_verdict_is_given_once_and_the_alert_goes_on() {
    let mut story = Story::of(&format!("{CONFIG}[drilldown]\nmax_duration = \"5s\"\n"));
    let id = story.fire();
    story.second(ABOVE);
    let ending = ended(&story.second(ABOVE));
    assert_eq!(
        (ending.ended, ending.ended_by.as_deref()),
        (tick(5), Some("max_duration"))
    );
    assert!(story.second(ABOVE).asks.is_empty());
    assert!(story.engine.drilldown_reports().is_empty());
    assert_eq!(story.state(), StateWord::Firing);
    story.second(BELOW);
    story.second(BELOW);
    let over = story.second(BELOW);
    assert!(over.asks.is_empty(), "{over:?}");
    let Some(Event::Cleared { drilldown, .. }) = over.events.first() else {
        panic!("{over:?}")
    };
    assert_eq!(drilldown.as_ref(), Some(&id));
}

#[test]
fn a_reload_keeps_thresholds_that_are_the_same_and_ends_the_drilldowns_of_others() {
    let mut story = Story::of(CONFIG);
    let id = story.fire();
    // Another interface before it: the counter stands elsewhere in the configuration's order.
    let more = format!("[interfaces.dmz]\ndevice = \"dmz0\"\n{CONFIG}");
    let outcome = story.reload(&more);
    assert_eq!((outcome.asks, outcome.events), (vec![], vec![]));
    assert_eq!(story.state(), StateWord::Firing);
    story.second(ABOVE);
    story.second(ABOVE);
    assert_eq!(story.engine.drilldown_reports()[0].id, id);
    let outcome = story.reload(&more.replace("hold = \"2s\"", "hold = \"3s\""));
    let ending = ended(&outcome);
    assert_eq!(ending.id, id);
    assert_eq!(words(&outcome), ["cleared"], "no alert stays open");
    assert_eq!(ending.counted.unwrap().volume.bytes, 5 * ABOVE);
    assert_eq!(
        ending.ended_by.as_deref(),
        Some("the configuration was reloaded")
    );
    assert_eq!(story.state(), StateWord::Idle);
    assert_ne!(begun(&story.second(ABOVE)).id, id);
}

/// A device whose address is the first of that prefix.
fn connected(prefix: &str) -> Connected {
    let prefix: ipnet::IpNet = prefix.parse().unwrap();
    let link = Link {
        index: 2,
        name: "br0".into(),
        ..Link::default()
    };
    let address = Address {
        device: 2,
        address: prefix.hosts().next().unwrap(),
        peer: None,
        prefix_length: prefix.prefix_len(),
        host_only: false,
        tentative: false,
        temporary: false,
        deprecated: false,
        permanent: true,
    };
    Connected::new(&[link], &[address])
}

#[test]
fn other_prefixes_on_a_followed_device_change_no_threshold_not_even_with_a_reload() {
    let text = "subnets.guests.device = \"br0\"\ninterfaces.up.device = \"wan0\"\n\
                counters.wan_out = { from = \"guests\", out = \"up\" }\n[thresholds.full]\n\
                counter = \"wan_out\"\nraise = \"800bit/s\"\nhold = \"2s\"\nrelease = \"2s\"\n";
    let mut story = Story::of(text);
    let id = story.fire();
    let with = |prefix| Arc::new(parse(text).resolved(&connected(prefix)));
    story.engine.follow(with("10.0.1.0/24"));
    assert_eq!(words(&story.second(ABOVE)), [""; 0]);
    let outcome = story.reload_as(with("10.0.2.0/24"));
    assert_eq!((outcome.asks, outcome.events), (vec![], vec![]));
    assert_eq!(story.state(), StateWord::Firing);
    assert_eq!(story.engine.drilldown_reports()[0].id, id);
    // What begins from here on is about the prefix of the moment.
    for _ in 0..4 {
        story.second(BELOW);
    }
    let inquiry = begun(&story.second(ABOVE));
    let Question::Counter(counter) = inquiry.question else {
        panic!("{inquiry:?}");
    };
    let from = counter.selectors.from.unwrap();
    assert_eq!(from.prefixes()[0].to_string(), "10.0.2.0/24");
    let other = text.replace("\"guests\"", "\"10.0.2.0/24\"");
    assert_eq!(ended_or_discarded(&story.reload(&other)), inquiry.id);
}

#[test]
fn a_stop_ends_what_fires_and_forgets_what_is_pending() {
    let mut story = Story::of(CONFIG);
    let id = story.fire();
    let ending = ended(&story.stop());
    assert_eq!(
        (ending.id, ending.ended_by.as_deref()),
        (id, Some("flowctl was stopped"))
    );
    assert_eq!(ending.counted.unwrap().volume.bytes, 3 * ABOVE);
    let mut story = Story::of(CONFIG);
    let id = begun(&story.second(ABOVE)).id;
    assert_eq!(story.stop().asks, [Ask::Discard { id }]);
}

#[test]
fn at_once_means_with_the_reading_that_is_above() {
    let mut story = Story::of(
        &CONFIG
            .replace("800bit/s", "0bit/s")
            .replace("hold = \"2s\"\n", ""),
    );
    story.second(0);
    let outcome = story.second(60);
    assert_eq!(words(&outcome), ["raised"]);
    assert_eq!(begun(&outcome).started, tick(1));
    story.second(0);
    story.second(0);
    let ending = ended(&story.second(0));
    assert_eq!(
        (ending.counted.unwrap().volume.bytes, ending.ended),
        (60, tick(5))
    );
}

#[test]
fn a_reset_is_recorded_and_takes_nothing_from_the_account() {
    let mut story = Story::of(CONFIG);
    story.fire();
    story.kernel = 0;
    assert_eq!(words(&story.second(ABOVE)), ["reset"]);
    assert_eq!(
        ended(&story.stop()).counted.unwrap().volume.bytes,
        4 * ABOVE
    );
}
