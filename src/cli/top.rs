//! What `flowctl drill` shows of a drilldown: four views of who moved the bytes, and a line above that says of how much.
//! Pure text, as wide and as high as the style says, with no foreign text unescaped.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::columns::{Align, Cell, lines, wrapped};
use super::flows;
use super::format::{between, bit_rate, counted, duration, foreign, percent, volume};
use super::style::{Paint, Style};
use crate::drilldown::verdict::{EndShare, Findings, Verdict};
use crate::event::TopList;

/// Shown of each view even where the terminal is too low for anything else.
const ENTRIES_MIN: usize = 1;

/// A drilldown that is looked at while it goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// The counter or the host.
    pub what: String,
    /// Where the account begins.
    pub started: Timestamp,
    /// What makes the answer less than it could be, known from the beginning.
    pub notes: Vec<String>,
    /// The newest list, and when it came.
    newest: Option<(Timestamp, TopList)>,
    before: Option<(Timestamp, TopList)>,
    /// The verdict was asked for.
    pub ending: bool,
}

impl Watched {
    /// Nothing found yet.
    pub fn new(what: String, started: Timestamp, notes: Vec<String>) -> Watched {
        Watched {
            what,
            started,
            notes,
            newest: None,
            before: None,
            ending: false,
        }
    }

    /// Takes what has been found by `time`.
    pub fn take(&mut self, time: Timestamp, list: TopList) {
        self.before = self.newest.replace((time, list));
    }

    /// The whole of it, every line ended.
    pub fn render(&self, style: &Style) -> String {
        let mut all = vec![self.title(style)];
        let below = self.below(style);
        if let Some((time, list)) = &self.newest {
            all.push(String::new());
            let speed = match &self.before {
                Some((earlier, before)) => Speed::Since(&before.found, between(*earlier, *time)),
                None => Speed::Unknown,
            };
            let taken = all.len() + below.len();
            let rows = style.height.map(|height| height.saturating_sub(taken));
            let views = views(&list.found, &speed, rows, style);
            let none = views.is_empty().then(|| "no flow found".to_owned());
            all.extend(views.into_iter().chain(none));
        }
        all.extend(below);
        all.join("\n") + "\n"
    }

    fn title(&self, style: &Style) -> String {
        let what = style.paint(Paint::Strong, &format!("drilldown of {}", self.what));
        let Some((time, list)) = &self.newest else {
            return format!("{what}: no look at conntrack yet");
        };
        let lasted = duration(between(self.started, *time));
        let so_far = flows::so_far(list.counted_bytes, &list.found, style);
        let rate = self.rate().map(|rate| bit_rate(rate, style.units));
        let rate = rate.map_or(String::new(), |rate| format!(", {rate}"));
        format!("{what}, {lasted}: {so_far}{rate}")
    }

    /// Of all that counts, since the list before.
    fn rate(&self) -> Option<f64> {
        let ((earlier, before), (time, newest)) = (self.before.as_ref()?, self.newest.as_ref()?);
        let moved = |list: &TopList| list.counted_bytes.unwrap_or(list.found.attributed_bytes);
        per_second(
            moved(newest).checked_sub(moved(before))?,
            between(*earlier, *time),
        )
    }

    fn below(&self, style: &Style) -> Vec<String> {
        let notes = match &self.newest {
            Some((_, list)) => &list.found.notes,
            None => &self.notes,
        };
        let mut below = notes_in_lines(notes, style);
        let hint = match self.ending {
            true => "the verdict is asked for; Ctrl-C again leaves without it",
            false => "Ctrl-C ends it with the verdict",
        };
        below.extend([String::new(), style.paint(Paint::Faint, hint)]);
        below
    }
}

/// A verdict: why it ended, and who.
pub fn verdict(verdict: &Verdict, style: &Style) -> String {
    let lasted = Duration::try_from_secs_f64(verdict.duration_seconds).unwrap_or_default();
    let rows = views(&verdict.found, &Speed::Mean(lasted), None, style);
    let ended = verdict.ended_by.as_ref().filter(|by| *by != "asked to");
    let ended = ended.map(|by| format!("ended by: {}", foreign(by)));
    let notes = notes_in_lines(&verdict.found.notes, style);
    let all: Vec<String> = ended.into_iter().chain(rows).chain(notes).collect();
    all.into_iter().map(|line| line + "\n").collect()
}

fn notes_in_lines(notes: &[String], style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    for note in notes {
        let mut note = wrapped(&format!("note: {}", foreign(note)), style.width, "");
        for line in note.iter_mut().skip(1) {
            line.insert_str(0, "  ");
        }
        lines.extend(note);
    }
    lines
}

/// By what an entry's rate is told.
enum Speed<'a> {
    /// It is not known yet.
    Unknown,
    /// By what it had in the list before, so long ago.
    Since(&'a Findings, Duration),
    /// By the whole account.
    Mean(Duration),
}

/// One view of the same bytes.
struct View {
    word: &'static str,
    noun: &'static str,
    entries: Vec<Entry>,
    remainder_bytes: u64,
    total: u64,
}

struct Entry {
    share: f64,
    bytes: u64,
    who: String,
}

/// All views that have anything, within `rows` lines if that is possible.
fn views(found: &Findings, speed: &Speed<'_>, rows: Option<usize>, style: &Style) -> Vec<String> {
    let views: Vec<View> = (views_of(found).into_iter())
        .filter(|view| !view.entries.is_empty())
        .collect();
    let before = match speed {
        Speed::Since(before, _) => views_of(before).into(),
        Speed::Unknown | Speed::Mean(_) => Vec::new(),
    };
    // Each has a line for what is not shown of it.
    let shown = rows.map(|rows| {
        (rows / views.len().max(1))
            .saturating_sub(1)
            .max(ENTRIES_MIN)
    });
    let shown = shown.unwrap_or(usize::MAX);
    let mut table = Vec::new();
    for view in &views {
        let earlier = before.iter().find(|earlier| earlier.word == view.word);
        table.extend(view_rows(view, earlier, speed, shown, style));
    }
    let aligns = [
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Left,
    ];
    lines(&table, &aligns, style)
}

fn view_rows(
    view: &View,
    earlier: Option<&View>,
    speed: &Speed<'_>,
    shown: usize,
    style: &Style,
) -> Vec<Vec<Cell>> {
    let bytes_before: BTreeMap<&str, u64> = (earlier.into_iter())
        .flat_map(|view| &view.entries)
        .map(|entry| (entry.who.as_str(), entry.bytes))
        .collect();
    let rate = |entry: &Entry| match speed {
        Speed::Unknown => None,
        Speed::Mean(time) => per_second(entry.bytes, *time),
        Speed::Since(_, time) => {
            let before = bytes_before.get(entry.who.as_str())?;
            per_second(entry.bytes.checked_sub(*before)?, *time)
        }
    };
    let mut rows = Vec::new();
    for (position, entry) in view.entries.iter().take(shown).enumerate() {
        let word = if position == 0 { view.word } else { "" };
        let rate = rate(entry).map(|rate| bit_rate(rate, style.units));
        rows.push(vec![
            Cell::new(Paint::Faint, word),
            Cell::plain(percent(entry.share)),
            Cell::plain(volume(entry.bytes, style.units)),
            Cell::plain(rate.unwrap_or_default()),
            Cell::plain(entry.who.as_str()),
        ]);
    }
    let unshown = view.entries.iter().skip(shown);
    let rest = unshown.fold(view.remainder_bytes, |sum, entry| {
        sum.saturating_add(entry.bytes)
    });
    let others = view.total.saturating_sub(rows.len() as u64);
    if rest > 0 || others > 0 {
        let others = match others {
            0 => format!("other {}s", view.noun),
            others => counted(others, &format!("more {}", view.noun)),
        };
        rows.push(vec![
            Cell::plain(""),
            Cell::plain(""),
            Cell::plain(volume(rest, style.units)),
            Cell::plain(""),
            Cell::new(Paint::Faint, others),
        ]);
    }
    rows
}

fn views_of(found: &Findings) -> [View; 5] {
    let ends = |ends: &[EndShare]| -> Vec<Entry> {
        let entry = |end: &EndShare| Entry {
            share: end.share,
            bytes: end.bytes,
            who: flows::outside(end),
        };
        ends.iter().map(entry).collect()
    };
    let hosts = found.hosts.iter().map(|host| Entry {
        share: host.share,
        bytes: host.bytes,
        who: flows::host(host),
    });
    let services = found.services.iter().map(|service| Entry {
        share: service.share,
        bytes: service.bytes,
        who: flows::service(service),
    });
    let flows = found.flows.iter().map(|flow| Entry {
        share: flow.share,
        bytes: flow.bytes,
        who: flows::flow(flow),
    });
    let view = |word, noun, entries, remainder_bytes, total| View {
        word,
        noun,
        entries,
        remainder_bytes,
        total,
    };
    [
        view(
            "hosts",
            "host",
            hosts.collect(),
            found.hosts_remainder_bytes,
            found.hosts_total,
        ),
        view(
            "outside",
            "outside end",
            ends(&found.outside),
            found.outside_remainder_bytes,
            found.outside_total,
        ),
        view(
            "services",
            "service",
            services.collect(),
            found.services_remainder_bytes,
            found.services_total,
        ),
        view(
            "flows",
            "flow",
            flows.collect(),
            found.flows_remainder_bytes,
            found.flows_total,
        ),
        view(
            "dropped",
            "sender",
            ends(&worth_naming(&found.dropped)),
            0,
            0,
        ),
    ]
}

/// A few packets are always dropped, neighbour discovery among them.
fn worth_naming(dropped: &[EndShare]) -> Vec<EndShare> {
    let counts = |sender: &&EndShare| sender.share >= 0.005;
    dropped.iter().filter(counts).cloned().collect()
}

/// In bits; `None` over no time at all, as after a step of the wall clock.
fn per_second(bytes: u64, time: Duration) -> Option<f64> {
    (!time.is_zero()).then(|| bytes as f64 * 8.0 / time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format::Units;
    use crate::event::{Event, Record};

    const ANSWER: &str = include_str!("../../tests/data/drill.jsonl");

    fn style(height: usize) -> Style {
        Style {
            color: false,
            units: Units::Usual,
            width: 80,
            height: Some(height),
            timezone: jiff::tz::TimeZone::UTC,
        }
    }

    /// As far as the example's lists.
    fn watched(lists: usize) -> Watched {
        let started = "2026-11-23T05:00:00.5Z".parse().unwrap();
        let mut watched = Watched::new("wan_out".to_owned(), started, vec!["a note".to_owned()]);
        for line in ANSWER.lines().skip(1).take(lists) {
            let record: Record = serde_json::from_str(line).unwrap();
            let Event::Flows(list) = record.event else {
                panic!("{line}");
            };
            watched.take(record.time, list);
        }
        watched
    }

    #[test]
    fn a_drilldown_that_goes_on_reads_like_this() {
        let text = watched(2).render(&style(24));
        assert_eq!(
            text,
            include_str!("../../tests/data/drill_screen.txt"),
            "{text}"
        );
    }

    #[test]
    fn before_the_first_look_there_are_the_notes() {
        let text = watched(0).render(&style(24));
        assert_eq!(
            text,
            "drilldown of wan_out: no look at conntrack yet\nnote: a note\n\n\
             Ctrl-C ends it with the verdict\n"
        );
    }

    #[test]
    fn the_first_list_has_no_rates_and_an_earlier_clock_gives_none() {
        let first = watched(1).render(&style(24));
        assert!(!first.contains("bit/s"), "{first}");
        let mut backward = watched(2);
        let (_, list) = backward.newest.clone().unwrap();
        backward.take(backward.started, list);
        assert!(!backward.render(&style(24)).contains("bit/s"));
    }

    #[test]
    fn a_low_terminal_shows_the_first_of_every_view_and_what_is_left_out() {
        let text = watched(2).render(&style(10));
        for first in ["nas", "backup.example", "https", "tcp 192.168.1.5"] {
            assert!(text.contains(first), "{text}");
        }
        assert!(!text.contains("udp 50000"), "{text}");
        // 15 % of 3 MB, the host that the list has beside the first, and its remainder.
        assert!(
            text.contains("498 KiB               4 more hosts"),
            "{text}"
        );
    }

    #[test]
    fn every_view_with_what_is_left_out_sums_to_the_whole() {
        let watched = watched(2);
        let (_, list) = watched.newest.as_ref().unwrap();
        let mut text = String::new();
        for shown in [0, 1, 2, 100] {
            for view in views_of(&list.found).iter().take(4) {
                let rows = view_rows(view, None, &Speed::Unknown, shown, &raw());
                let bytes = rows.iter().map(|row| row[2].text.trim_end_matches(" B"));
                let sum: u64 = bytes.map(|bytes| bytes.parse::<u64>().unwrap()).sum();
                text.push_str(&format!("{} ", sum));
            }
        }
        let all = list.found.attributed_bytes.to_string() + " ";
        assert_eq!(text, all.repeat(16));
    }

    fn raw() -> Style {
        Style {
            units: Units::Raw,
            ..style(24)
        }
    }
}
