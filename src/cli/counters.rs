//! The table of counters in `flowctl status`: rates, share of capacity, totals, and the course of the last ticks.
//! What does not fit into the width is left out, the course first; what does not fit into the height, the idlest.

use super::columns::{Align, Cell, lines, width_of, wrapped};
use super::format::{bar, bit_rate, counted, packet_rate, percent, sparkline, volume};
use super::style::{Paint, Style};
use crate::report::{CounterReport, Report};
use crate::units::ForeignTable;

/// Cells of the bar that shows the share of capacity.
const BAR_WIDTH: usize = 8;
/// A shorter course tells nothing.
const COURSE_MIN: usize = 8;
/// From this share of capacity on a link is worth a look.
const BUSY: f64 = 0.8;

/// The table; at most `rows` counters of it if given.
pub fn render(report: &Report, rows: Option<usize>, style: &Style) -> Vec<String> {
    let shown = busiest(&report.counters, rows);
    let left_out = report.counters.len() - shown.len();
    let mut all = table(&shown, style);
    if left_out > 0 {
        let more = counted(left_out as u64, "more counter");
        all.push(style.paint(Paint::Faint, &format!("and {more}")));
    }
    all.extend(read_from_others(&shown, style));
    for counter in shown.iter().filter(|counter| counter.resets > 0) {
        let times = counted(counter.resets, "time");
        let note = format!(
            "{} was reset in the kernel {times}; its total is kept",
            counter.name
        );
        all.push(style.paint(Paint::Faint, &note));
    }
    all
}

/// Which of them are read from tables of others: a note for each table.
fn read_from_others(counters: &[&CounterReport], style: &Style) -> Vec<String> {
    let mut notes: Vec<(&ForeignTable, String)> = Vec::new();
    for counter in counters {
        let Some(existing) = &counter.existing else {
            continue;
        };
        let name = counter.name.as_str();
        let shown = match existing.counter() {
            object if object == name => name.to_owned(),
            object => format!("{name} ({object})"),
        };
        let table = existing.table();
        match notes.iter_mut().find(|(known, _)| *known == table) {
            Some((_, names)) => *names += &format!(", {shown}"),
            None => notes.push((table, shown)),
        }
    }
    let lines = notes.into_iter().flat_map(|(table, names)| {
        let note = format!("read from table {table}: {names}");
        wrapped(&note, style.width, "")
    });
    lines.map(|line| style.paint(Paint::Faint, &line)).collect()
}

/// In the report's order.
fn busiest(counters: &[CounterReport], rows: Option<usize>) -> Vec<&CounterReport> {
    let rows = rows.unwrap_or(counters.len());
    let mut positions: Vec<usize> = (0..counters.len()).collect();
    if counters.len() > rows {
        positions.sort_by(|a, b| {
            let rate = |position: usize| counters[position].bits_per_second;
            rate(*b).total_cmp(&rate(*a))
        });
        positions.truncate(rows);
        positions.sort_unstable();
    }
    positions
        .into_iter()
        .map(|position| &counters[position])
        .collect()
}

fn table(counters: &[&CounterReport], style: &Style) -> Vec<String> {
    let load: Vec<Option<f64>> = counters.iter().map(|counter| load_of(counter)).collect();
    let mut rows = vec![
        ["counter", "rate", "load", "", "packets", "total", ""]
            .map(|word| Cell::new(Paint::Faint, word))
            .to_vec(),
    ];
    for (counter, load) in counters.iter().zip(&load) {
        rows.push(row(counter, *load, style));
    }
    if load.iter().all(Option::is_none) {
        rows[0][2].text.clear();
    }
    let taken: usize = (0..6).map(|column| width_of(&rows, column) + 2).sum();
    let free = style.width.saturating_sub(taken);
    let longest = counters
        .iter()
        .map(|counter| counter.history_bits_per_second.len())
        .max()
        .unwrap_or(0);
    let with_bar = load.iter().any(Option::is_some) && free >= BAR_WIDTH;
    let course = free
        .saturating_sub(if with_bar { BAR_WIDTH } else { 0 })
        .min(longest);
    for ((row, counter), load) in rows.iter_mut().skip(1).zip(counters).zip(&load) {
        if with_bar && let Some(load) = load {
            row[3] = Cell::new(paint_of(*load), bar(*load, BAR_WIDTH));
        }
        if course >= COURSE_MIN.min(longest) {
            row[6].text = sparkline(&counter.history_bits_per_second, course);
        }
    }
    let aligns = [
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
    ];
    lines(&rows, &aligns, style)
}

fn row(counter: &CounterReport, load: Option<f64>, style: &Style) -> Vec<Cell> {
    let quiet = counter.packets_per_second == 0.0;
    let paint = if quiet { Paint::Faint } else { Paint::Plain };
    let rate = if counter.present {
        Cell::new(paint, bit_rate(counter.bits_per_second, style.units))
    } else {
        Cell::new(Paint::Warn, "absent")
    };
    let packets = if counter.present {
        packet_rate(counter.packets_per_second, style.units)
    } else {
        String::new()
    };
    let total = volume(counter.bytes, style.units);
    vec![
        Cell::new(Paint::Strong, counter.name.as_str()),
        rate,
        load.map_or(Cell::plain(""), |load| {
            Cell::new(paint_of(load), percent(load))
        }),
        Cell::plain(""),
        Cell::new(paint, packets),
        Cell::plain(total),
        Cell::plain(""),
    ]
}

/// The share of capacity in use, where the capacity is known.
fn load_of(counter: &CounterReport) -> Option<f64> {
    let capacity = counter.capacity_bits_per_second?;
    (counter.present && capacity > 0.0).then(|| counter.bits_per_second / capacity)
}

fn paint_of(load: f64) -> Paint {
    if load >= BUSY {
        Paint::Warn
    } else {
        Paint::Good
    }
}
