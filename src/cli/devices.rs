//! The table of interfaces and their devices in `flowctl status`: what the devices counted themselves, and where that
//! parts from flowctl's counters.

use std::time::Duration;

use super::columns::{Align, Cell, lines, wrapped};
use super::format::{bit_rate, duration, foreign, volume};
use super::style::{Paint, Style};
use crate::report::{
    DeviceDirectionReport, DeviceReport, DifferenceCause, DifferenceReport, InterfaceReport, Report,
};

/// The table, and a sentence for each difference; nothing where there are no interfaces.
pub fn render(report: &Report, style: &Style) -> Vec<String> {
    if report.interfaces.is_empty() {
        return Vec::new();
    }
    let heading = [
        "interface",
        "device",
        "received",
        "sent",
        "dropped",
        "speed",
    ];
    let mut rows = vec![heading.map(|word| Cell::new(Paint::Faint, word)).to_vec()];
    for interface in &report.interfaces {
        rows.extend(rows_of(interface, style));
    }
    let aligns = [
        Align::Left,
        Align::Left,
        Align::Right,
        Align::Right,
        Align::Right,
        Align::Right,
    ];
    let mut all = lines(&rows, &aligns, style);
    let differences = report.interfaces.iter().flat_map(|of| &of.differences);
    for difference in differences {
        let sentence = sentence(difference, style);
        let told = wrapped(&sentence, style.width.saturating_sub(2), "  ");
        all.extend(told.iter().map(|line| style.paint(Paint::Warn, line)));
    }
    all
}

fn rows_of(interface: &InterfaceReport, style: &Style) -> Vec<Vec<Cell>> {
    let name = |first: bool| match first {
        true => Cell::new(Paint::Strong, interface.name.as_str()),
        false => Cell::plain(""),
    };
    if interface.devices.is_empty() {
        let mut row = vec![name(true), Cell::new(Paint::Warn, "absent")];
        row.resize(6, Cell::plain(""));
        return vec![row];
    }
    let devices = interface.devices.iter().enumerate();
    devices
        .map(|(position, device)| {
            let mut row = vec![name(position == 0)];
            row.extend(cells_of(device, style));
            row
        })
        .collect()
}

fn cells_of(device: &DeviceReport, style: &Style) -> [Cell; 5] {
    let paint = if device.up { Paint::Plain } else { Paint::Warn };
    let down = if device.up { "" } else { " (down)" };
    let rate = |of: &DeviceDirectionReport| Cell::plain(bit_rate(of.bits_per_second, style.units));
    let dropped = device.received.dropped.saturating_add(device.sent.dropped);
    let speed = device.speed_bits_per_second;
    [
        Cell::new(paint, format!("{}{down}", foreign(&device.name))),
        rate(&device.received),
        rate(&device.sent),
        Cell::plain(dropped.to_string()),
        Cell::plain(speed.map_or(String::new(), |speed| bit_rate(speed, style.units))),
    ]
}

fn sentence(difference: &DifferenceReport, style: &Style) -> String {
    let amount = |bytes| volume(bytes, style.units);
    let why = match difference.cause {
        DifferenceCause::Offloaded => "a flowtable carries flows past every counter",
        DifferenceCause::Bridged => {
            "the device is a port of a bridge or bond: name that one instead"
        }
        DifferenceCause::DevicesAbove => {
            "VLANs or tunnels stand on the device: name those that carry the traffic"
        }
        DifferenceCause::DroppedByQueue => {
            "the device's queue dropped the rest, or IPsec packets counted twice, once as ESP"
        }
        DifferenceCause::Unseen => {
            "the rest is not IP (PPPoE for one), or was dropped before flowctl's hook"
        }
    };
    let time = duration(Duration::try_from_secs_f64(difference.seconds).unwrap_or_default());
    format!(
        "{} counted {} in {time}, its devices moved {}: {why}",
        difference.counter,
        amount(difference.counted_bytes),
        amount(difference.device_bytes)
    )
}
