//! Stories of those who ask for a drilldown themselves: where their account begins and ends, what it counts, what they
//! are told and who else is, and that nothing of it is left.

#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]

mod story;

use std::net::IpAddr;
use std::time::Duration;

use flowctl::ask::{Ask, Counted, Ending, Outcome, Progress, Question};
use flowctl::config::Config;
use flowctl::demand::{About, Begun, Conntrack, DEMANDS_MAX, Moment, Refusal, Wish, notes};
use flowctl::drilldown::rank::RankBy;
use flowctl::drilldown::verdict::{Findings, Verdict};
use flowctl::event::Event;
use flowctl::units::{CounterName, Tick, Uptime, Volume};

use story::{ABOVE, BELOW, CONFIG, Story, parse, tick};

/// Without a threshold.
const QUIET: &str = "interfaces.wan.device = \"wan0\"\nsubnets.home = \"10.0.0.0/24\"\n";

fn counter(name: &str) -> About {
    About::Counter(CounterName::new(name).unwrap())
}

fn host() -> IpAddr {
    [10, 0, 0, 7].into()
}

/// So long after a reading.
fn after(second: u64, milliseconds: u64) -> Tick {
    let late = Duration::from_millis(milliseconds);
    let tick = tick(second);
    Tick {
        at: Uptime(tick.at.0 + late),
        wall: tick.wall + late,
        ..tick
    }
}

fn packets(bytes: u64) -> Volume {
    Volume {
        bytes,
        packets: bytes / 10,
    }
}

impl Story {
    /// Half a second after the last reading, when so many bytes more have been counted.
    fn moment(&self, bytes: u64) -> Moment {
        Moment {
            tick: after(self.second, 500),
            now: after(self.second, 500).at,
            kernel: Some(packets(self.kernel + bytes)),
        }
    }

    fn ask(&mut self, about: About, lasting: Option<u64>, moment: Moment) -> (Begun, Outcome) {
        let wish = Wish {
            about,
            lasting: lasting.map(Duration::from_secs),
        };
        let demands = self.engine.demands();
        let begun = demands.begin(wish, moment, Vec::new(), &self.config, &self.meter);
        begun.unwrap()
    }

    fn ask_about_wan_out(&mut self, lasting: Option<u64>, bytes: u64) -> String {
        let moment = self.moment(bytes);
        self.ask(counter("wan_out"), lasting, moment).0.id
    }

    fn end(&mut self, id: &str, moment: Moment) -> Outcome {
        let demands = self.engine.demands();
        demands.end(id, moment, &self.meter, Some("asked to"))
    }

    fn refused(&mut self, about: About) -> Refusal {
        let (moment, demands) = (self.moment(0), self.engine.demands());
        let wish = Wish {
            about,
            lasting: None,
        };
        let begun = demands.begin(wish, moment, Vec::new(), &self.config, &self.meter);
        begun.unwrap_err()
    }

    fn due(&mut self) -> Option<Uptime> {
        self.engine.demands().due()
    }
}

fn ended(outcome: &Outcome) -> Ending {
    match outcome.asks.last() {
        Some(Ask::End(ending)) => (**ending).clone(),
        other => panic!("{other:?}"),
    }
}

fn counted(outcome: &Outcome, of: &str) -> Vec<u64> {
    let counted = outcome.asks.iter().filter_map(|ask| match ask {
        Ask::Counted { id, counted, .. } if id == of => Some(counted.bytes),
        _ => None,
    });
    counted.collect()
}

fn progress(id: &str) -> Progress {
    Progress {
        id: id.to_owned(),
        counted_bytes: Some(400),
        found: Findings {
            attributed_bytes: 300,
            ..Findings::default()
        },
        dumps: 1,
        dump_time: Duration::from_millis(1),
        interval: Duration::from_secs(1),
    }
}

fn verdict(id: &str) -> Verdict {
    Verdict {
        threshold: None,
        counter: CounterName::new("wan_out").ok(),
        host: None,
        drilldown: id.to_owned(),
        started: tick(0).wall,
        ended: tick(1).wall,
        duration_seconds: 1.0,
        peak_bits_per_second: None,
        peak_packets_per_second: None,
        counted_bytes: None,
        counted_packets: None,
        coverage: None,
        unexplained_bytes: None,
        unexplained: None,
        ended_by: None,
        found: Findings::default(),
        text: String::new(),
    }
}

#[test]
fn an_account_begins_and_ends_between_readings_and_counts_what_came_between() {
    let mut story = Story::of(CONFIG);
    story.second(BELOW);
    let moment = story.moment(3);
    let (begun, outcome) = story.ask(counter("wan_out"), None, moment);
    assert_eq!(begun.started, moment.tick.wall);
    let [
        Ask::Begin(inquiry),
        Ask::Counted {
            counted, kernel, ..
        },
    ] = &outcome.asks[..]
    else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (inquiry.threshold.as_ref(), inquiry.started),
        (None, moment.tick)
    );
    assert_eq!(inquiry.rank_by, RankBy::Bytes);
    assert!(matches!(&inquiry.question, Question::Counter(of) if of.name.as_str() == "wan_out"));
    assert_eq!((counted.bytes, Some(*kernel)), (0, moment.kernel));
    // Three of these were before the account.
    let second = story.second(BELOW);
    assert_eq!(self::counted(&second, &begun.id), [BELOW - 3]);
    let second = story.second(BELOW);
    assert_eq!(self::counted(&second, &begun.id), [2 * BELOW - 3]);
    let end = story.moment(5);
    let ending = ended(&story.end(&begun.id, end));
    assert_eq!((ending.id, ending.ended), (begun.id.clone(), end.tick));
    assert_eq!(ending.ended_by.as_deref(), Some("asked to"));
    assert_eq!(ending.counted.unwrap().volume.bytes, 2 * BELOW + 5 - 3);
    let again = story.moment(9);
    assert!(story.end(&begun.id, again).asks.is_empty(), "once only");
    assert_eq!(counted_after_the_end(&mut story, &begun.id), [0; 0]);
}

fn counted_after_the_end(story: &mut Story, id: &str) -> Vec<u64> {
    counted(&story.second(ABOVE), id)
}

#[test]
fn peaks_are_of_whole_intervals_within_the_account_and_of_a_shorter_one_the_mean() {
    let mut story = Story::of(QUIET);
    story.second(BELOW);
    let id = story.ask_about_wan_out(None, 0);
    // Half of this interval lies before the account.
    story.second(1000);
    story.second(100);
    story.second(30);
    let end = story.moment(0);
    let Counted {
        volume,
        peak_bits,
        peak_packets,
        ..
    } = ended(&story.end(&id, end)).counted.unwrap();
    assert_eq!(volume.bytes, 1130);
    // 1130 bytes in 3 seconds: the mean is above every whole interval, and the peak cannot be below it.
    assert!((peak_bits - 1130.0 * 8.0 / 3.0).abs() < 1e-6, "{peak_bits}");
    assert!((peak_packets - 113.0 / 3.0).abs() < 1e-6, "{peak_packets}");
    let id = story.ask_about_wan_out(None, 0);
    story.second(10);
    story.second(400);
    let end = story.moment(0);
    let counted = ended(&story.end(&id, end)).counted.unwrap();
    assert_eq!((counted.peak_bits, counted.peak_packets), (3200.0, 40.0));
}

#[test]
fn a_counter_that_cannot_be_read_now_goes_by_its_last_reading() {
    let mut story = Story::of(QUIET);
    story.second(BELOW);
    let last = Moment {
        tick: tick(1),
        now: tick(1).at,
        kernel: None,
    };
    let (begun, _) = story.ask(counter("wan_out"), None, last);
    assert_eq!(begun.started, tick(1).wall);
    let blind = story.blind_second(ABOVE);
    assert_eq!(counted(&blind, &begun.id), [0; 0], "nothing was read");
    assert_eq!(counted(&story.second(ABOVE), &begun.id), [2 * ABOVE]);
    let last = Moment {
        tick: tick(3),
        now: tick(3).at,
        kernel: None,
    };
    let ending = ended(&story.end(&begun.id, last));
    assert_eq!(ending.counted.unwrap().volume.bytes, 2 * ABOVE);
}

#[test]
fn a_reset_within_the_account_takes_nothing_back() {
    let mut story = Story::of(QUIET);
    let id = story.ask_about_wan_out(None, 0);
    story.second(ABOVE);
    story.kernel = 0;
    assert_eq!(counted(&story.second(BELOW), &id), [ABOVE + BELOW]);
    story.kernel = 0;
    let end = story.moment(1);
    let ending = ended(&story.end(&id, end));
    assert_eq!(ending.counted.unwrap().volume.bytes, ABOVE + BELOW);
}

#[test]
fn its_time_is_up_when_it_is_due_and_max_duration_bounds_it() {
    let mut story = Story::of(&format!("{QUIET}drilldown.max_duration = \"60s\"\n"));
    assert_eq!(story.due(), None);
    let begun = after(0, 500).at;
    let long = story.ask_about_wan_out(Some(90), 0);
    let open = story.ask_about_wan_out(None, 0);
    let short = story.ask_about_wan_out(Some(5), 0);
    let due = Uptime(begun.0 + Duration::from_secs(5));
    assert_eq!(story.due(), Some(due));
    let demands = story.engine.demands();
    assert!(demands.overdue(after(5, 499).at).is_empty());
    assert_eq!(demands.overdue(due), [(short.clone(), None)]);
    let end = story.moment(0);
    story.end(&short, end);
    let due = Uptime(begun.0 + Duration::from_secs(60));
    assert_eq!(story.due(), Some(due));
    let bounded = Some("max_duration");
    let overdue = story.engine.demands().overdue(due);
    assert_eq!(overdue, [(long, bounded), (open, bounded)]);
}

#[test]
fn who_asked_is_told_and_the_log_is_not() {
    let mut story = Story::of(CONFIG);
    let id = story.ask_about_wan_out(None, 0);
    let outcome = story.engine.explain(tick(1), progress(&id));
    assert!(outcome.events.is_empty() && outcome.asks.is_empty());
    let [answer] = &outcome.answers[..] else {
        panic!("{outcome:?}");
    };
    let Ok(Event::Flows(list)) = &answer.told else {
        panic!("{answer:?}");
    };
    assert_eq!((&answer.id, &list.drilldown), (&id, &id));
    assert_eq!((list.threshold.as_ref(), list.host), (None, None));
    assert_eq!(list.counter.as_ref().unwrap().as_str(), "wan_out");
    assert_eq!(list.counted_bytes, Some(400));
    let reports = story.engine.drilldown_reports();
    assert_eq!((reports[0].id.as_str(), reports.len()), (id.as_str(), 1));
    assert_eq!(
        (reports[0].threshold.as_ref(), reports[0].coverage),
        (None, Some(0.75))
    );
    let end = story.moment(0);
    story.end(&id, end);
    assert!(story.engine.drilldown_reports().is_empty());
    let outcome = story.engine.conclude(verdict(&id));
    assert!(outcome.events.is_empty());
    assert!(
        matches!(&outcome.answers[..], [answer] if matches!(answer.told, Ok(Event::Verdict(_))))
    );
    assert_eq!(story.engine.last_verdict(), None);
    assert_eq!(story.due(), None, "nothing is left");
    let outcome = story.engine.conclude(verdict(&id));
    assert!(outcome.answers.is_empty(), "nobody waits any more");
}

#[test]
fn what_makes_the_answer_less_stands_in_every_list_and_in_the_verdict() {
    let mut story = Story::of(CONFIG);
    let wish = Wish {
        about: counter("wan_out"),
        lasting: None,
    };
    let (moment, demands) = (story.moment(0), story.engine.demands());
    let notes = vec!["a note".to_owned()];
    let begun = demands.begin(wish, moment, notes.clone(), &story.config, &story.meter);
    let id = begun.unwrap().0.id;
    assert_eq!(story.engine.drilldown_reports()[0].found.notes, notes);
    let mut found = progress(&id);
    found.found.notes = vec!["its own".to_owned()];
    let all = ["its own", "a note"];
    let list = story.engine.explain(tick(1), found).answers.remove(0);
    assert!(matches!(list.told, Ok(Event::Flows(list)) if list.found.notes == all));
    let last = story.engine.conclude(verdict(&id)).answers.remove(0);
    assert!(matches!(last.told, Ok(Event::Verdict(verdict)) if verdict.found.notes == notes));
}

#[test]
fn of_a_host_nothing_is_counted() {
    let mut story = Story::of(QUIET);
    let moment = Moment {
        tick: after(0, 500),
        now: after(0, 500).at,
        kernel: None,
    };
    let (begun, outcome) = story.ask(About::Host(host()), Some(5), moment);
    assert_eq!(outcome.asks.len(), 1, "{outcome:?}");
    assert!(
        matches!(&outcome.asks[0], Ask::Begin(inquiry) if inquiry.question == Question::Host(host()))
    );
    assert!(counted(&story.second(ABOVE), &begun.id).is_empty());
    let report = &story.engine.drilldown_reports()[0];
    assert_eq!((report.host, report.counter.as_ref()), (Some(host()), None));
    assert_eq!(report.counted_bytes, None);
    let ending = ended(&story.end(&begun.id, moment));
    assert_eq!(ending.counted, None);
}

#[test]
fn a_threshold_and_several_askers_have_their_own_accounts() {
    let mut story = Story::of(CONFIG);
    let first = story.ask_about_wan_out(None, 0);
    story.second(ABOVE);
    let second = story.ask_about_wan_out(None, 0);
    assert_ne!(first, second);
    let outcome = story.second(ABOVE);
    assert_eq!(counted(&outcome, &first), [2 * ABOVE]);
    assert_eq!(counted(&outcome, &second), [ABOVE]);
    assert_eq!(story.engine.drilldown_reports().len(), 3);
    assert_eq!(
        story.engine.demands().discard(&first).asks,
        [Ask::Discard { id: first.clone() }]
    );
    assert!(story.engine.demands().discard(&first).asks.is_empty());
    assert_eq!(story.engine.drilldown_reports().len(), 2);
    assert_eq!(counted(&story.second(ABOVE), &second), [2 * ABOVE]);
}

#[test]
fn there_are_only_so_many_at_once() {
    let mut story = Story::of(CONFIG);
    let ids: Vec<String> = (0..DEMANDS_MAX)
        .map(|_| story.ask_about_wan_out(None, 0))
        .collect();
    assert_eq!(story.refused(counter("wan_out")), Refusal::TooMany);
    story.engine.demands().discard(&ids[3]);
    let another = story.ask_about_wan_out(None, 0);
    assert!(!ids.contains(&another), "{another} was somebody else's");
}

#[test]
fn what_cannot_be_answered_is_refused_with_what_to_do() {
    let mut story = Story::of(&format!(
        "{CONFIG}[counters.old]\nexisting = \"inet accounting x\"\n"
    ));
    assert_eq!(
        story.refused(counter("wan_uot")).to_string(),
        "there is no counter wan_uot: did you mean wan_out?"
    );
    assert_eq!(
        story.refused(counter("elsewhere")).to_string(),
        "there is no counter elsewhere; `flowctl status` shows those there are"
    );
    let refused = story.refused(counter("old")).to_string();
    assert!(refused.ends_with("under counters.old"), "{refused}");
    assert!(story.engine.demands().due().is_none());
}

#[test]
fn a_reload_keeps_those_whose_counter_is_as_it_was() {
    let text = format!("{QUIET}[counters.pair]\nfrom = \"home\"\nout = \"wan\"\n");
    let mut story = Story::of(&text);
    let kept = story.ask_about_wan_out(None, 0);
    let moment = story.moment(0);
    let (pair, _) = story.ask(counter("pair"), None, moment);
    let (of_host, _) = story.ask(About::Host(host()), None, moment);
    story.second(ABOVE);
    // Another interface before it: the counter stands elsewhere in the configuration's order.
    let more = text.replace("\nout = \"wan\"", "").replace(
        "interfaces.wan",
        "interfaces.dmz.device = \"dmz0\"\ninterfaces.wan",
    );
    let ending = ended(&story.reload(&more));
    assert_eq!(ending.id, pair.id);
    assert_eq!(
        ending.ended_by.as_deref(),
        Some("the configuration was reloaded")
    );
    assert_eq!(ending.ended, tick(1));
    assert_eq!(counted(&story.second(ABOVE), &kept), [2 * ABOVE]);
    let going: Vec<String> = (story.engine.drilldown_reports().into_iter())
        .map(|report| report.id)
        .collect();
    assert_eq!(going, [kept, of_host.id]);
}

#[test]
fn a_stop_gives_every_asker_a_verdict() {
    let mut story = Story::of(QUIET);
    let id = story.ask_about_wan_out(Some(600), 0);
    story.second(ABOVE);
    let moment = story.moment(0);
    story.ask(About::Host(host()), None, moment);
    let outcome = story.stop();
    let ends: Vec<&Ending> = (outcome.asks.iter())
        .map(|ask| match ask {
            Ask::End(ending) => &**ending,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(ends.len(), 2);
    assert_eq!((&ends[0].id, ends[0].ended), (&id, tick(1)));
    assert_eq!(ends[0].counted.unwrap().volume.bytes, ABOVE);
    for ending in ends {
        assert_eq!(ending.ended_by.as_deref(), Some("flowctl was stopped"));
    }
}

#[test]
fn a_verdict_that_never_comes_is_not_waited_for_for_ever() {
    let mut story = Story::of(QUIET);
    let id = story.ask_about_wan_out(None, 0);
    let end = story.moment(0);
    story.end(&id, end);
    let due = story.due().unwrap();
    assert_eq!(due.since(end.tick.at), Duration::from_secs(60));
    let demands = story.engine.demands();
    assert!(demands.overdue(due).is_empty(), "it has ended already");
    let early = Uptime(due.0 - Duration::from_millis(1));
    assert_eq!(demands.give_up(early), Outcome::default());
    let outcome = demands.give_up(due);
    assert_eq!(outcome.asks, [Ask::Discard { id: id.clone() }]);
    assert!(matches!(&outcome.answers[..], [answer] if answer.id == id && answer.told.is_err()));
    assert_eq!(story.due(), None);
}

#[test]
fn where_nobody_can_be_named_the_notes_say_so_and_what_helps() {
    let said = |config: &Config, name, accounting, flows| {
        let known = Conntrack { accounting, flows };
        notes(config, &counter(name), known).join("\n")
    };
    let (quiet, drilling) = (parse(QUIET), parse(CONFIG));
    assert_eq!(said(&drilling, "wan_out", Some(1), 0), "");
    assert!(said(&drilling, "wan_out", Some(0), 9).contains("nf_conntrack_acct=1"));
    assert!(said(&drilling, "wan_out", None, 0).contains("no connection tracking"));
    assert_eq!(said(&quiet, "home_from", Some(1), 9), "");
    let off = said(&quiet, "home_from", Some(1), 0);
    assert!(
        off.contains("knows no flow") && off.contains("a threshold"),
        "{off}"
    );
    let unlabelled = said(&quiet, "wan_out", Some(1), 9);
    assert!(unlabelled.contains("no rule labels flows"), "{unlabelled}");
    let all = said(&quiet, "wan_out", Some(0), 0);
    assert_eq!(all.lines().count(), 3, "{all}");
    assert_eq!(said(&quiet, "wan_out", None, 0).lines().count(), 1);
    let about = About::Host(host());
    let known = Conntrack {
        accounting: Some(1),
        flows: 9,
    };
    assert!(
        notes(&quiet, &about, known).is_empty(),
        "a host needs no label"
    );
}
