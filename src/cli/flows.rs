//! Hosts, outside ends, services and flows in words: the same in the status, in the log and in a drilldown.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::format::{foreign, percent, volume};
use super::style::Style;
use crate::drilldown::verdict::{EndShare, Findings, FlowShare, HostShare, ServiceShare};
use crate::units::CounterName;

/// What a drilldown is about: the counter, or the host asked for.
pub fn about(counter: Option<&CounterName>, host: Option<IpAddr>) -> String {
    match (counter, host) {
        (Some(counter), _) => counter.to_string(),
        (None, host) => host.map(|host| host.to_string()).unwrap_or_default(),
    }
}

/// `93 % of 1.05 GiB explained`; how much was found where nothing counts.
pub fn so_far(counted: Option<u64>, found: &Findings, style: &Style) -> String {
    match counted {
        Some(0) => "nothing counted yet".to_owned(),
        Some(counted) => format!(
            "{} of {} explained",
            percent((found.attributed_bytes as f64 / counted as f64).min(1.0)),
            volume(counted, style.units)
        ),
        None => volume(found.attributed_bytes, style.units),
    }
}

/// `nas (192.168.1.5)`, or the address alone.
pub fn host(host: &HostShare) -> String {
    named(host.name.as_deref(), host.address)
}

/// The same for the other end.
pub fn outside(end: &EndShare) -> String {
    named(end.name.as_deref(), end.address)
}

/// `https (tcp 443)`, `tcp 50000` or `gre`.
pub fn service(service: &ServiceShare) -> String {
    let protocol = foreign(&service.protocol);
    let number = match service.port {
        Some(port) => format!("{protocol} {port}"),
        None => protocol.into_owned(),
    };
    match &service.name {
        Some(name) => format!("{} ({number})", foreign(name)),
        None => number,
    }
}

fn named(name: Option<&str>, address: IpAddr) -> String {
    match name {
        Some(name) => format!("{} ({address})", foreign(name)),
        None => address.to_string(),
    }
}

/// `tcp 192.168.1.5:50312 to 203.0.113.9:443`.
pub fn flow(flow: &FlowShare) -> String {
    let source = end(flow.source, flow.source_port);
    let destination = end(flow.destination, flow.destination_port);
    let mut text = format!("{} {source} to {destination}", foreign(&flow.protocol));
    // Writing to a String does not fail.
    if let Some(icmp_type) = flow.icmp_type {
        let _ = write!(text, " type {icmp_type}");
    }
    if let Some(icmp_code) = flow.icmp_code {
        let _ = write!(text, " code {icmp_code}");
    }
    if flow.approximate {
        text.push_str(" (uncertain)");
    }
    text
}

fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}
