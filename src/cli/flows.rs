//! Hosts and flows in words: the same in the status and in the log.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::format::foreign;
use crate::drilldown::verdict::{FlowShare, HostShare};

/// `nas (192.168.1.5)`, or the address alone.
pub fn host(host: &HostShare) -> String {
    match &host.name {
        Some(name) => format!("{} ({})", foreign(name), host.address),
        None => host.address.to_string(),
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
