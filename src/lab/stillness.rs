//! When a lab keeps still: the kernel announces the multicast groups of each device that comes up, and of each new
//! IPv6 address, in packets that no generator sends. On a busy machine they come late, so they are waited for by
//! their count and not by time alone. A kernel that makes fewer costs the longest wait and nothing else.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::latch::Latch;
use super::link::Links;
use super::{LabError, Namespace, clock};

/// How often an announcement is made, of the whole machine: the robustness variable of RFC 3810, 9.1.
const ROBUSTNESS: &str = "/proc/sys/net/ipv6/mld_qrv";
const STATISTICS: &str = "/proc/thread-self/net/snmp6";
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Several times the interval between two announcements.
const STILL: Duration = Duration::from_millis(50);

/// A namespace, and what it has still to announce.
#[derive(Debug)]
pub(super) struct Announcer<'a> {
    namespace: &'a Namespace,
    reports: u64,
}

impl<'a> Announcer<'a> {
    /// A new namespace that announces the groups of so many devices.
    pub(super) fn of_devices(namespace: &'a Namespace, devices: usize) -> Result<Self, LabError> {
        let reports = devices as u64 * robustness()?;
        Ok(Announcer { namespace, reports })
    }

    /// One that is about to get an IPv6 address.
    pub(super) fn of_address(namespace: &'a Namespace) -> Result<Self, LabError> {
        let reports = reports(namespace)? + robustness()?;
        Ok(Announcer { namespace, reports })
    }
}

/// Waits until all of them have announced what they have to.
pub(super) fn wait_for_reports(announcers: &[Announcer<'_>]) -> Result<(), LabError> {
    let begun = clock::uptime();
    let pause = Latch::default();
    for announcer in announcers {
        while reports(announcer.namespace)? < announcer.reports
            && clock::uptime().since(begun) < LONGEST_WAIT
        {
            pause.wait(LOOK_AGAIN);
        }
    }
    Ok(())
}

/// Waits until these devices carry nothing any more.
pub(super) fn wait(links: &mut Links, devices: &[&str]) -> Result<(), LabError> {
    let begun = clock::uptime();
    let pause = Latch::default();
    let mut before = None;
    loop {
        let counted = devices.iter().map(|device| links.statistics(device));
        let now = Some(counted.collect::<Result<Vec<_>, _>>()?);
        if now == before || clock::uptime().since(begun) > LONGEST_WAIT {
            return Ok(());
        }
        before = now;
        pause.wait(STILL);
    }
}

fn robustness() -> Result<u64, LabError> {
    let text = fs::read_to_string(ROBUSTNESS).map_err(unreadable(ROBUSTNESS))?;
    Ok(text.trim().parse().unwrap_or(0))
}

/// How many announcements a namespace has made.
fn reports(namespace: &Namespace) -> Result<u64, LabError> {
    let text = namespace.run(|| fs::read_to_string(STATISTICS))?;
    let text = text.map_err(unreadable(STATISTICS))?;
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix("Icmp6OutMLDv2Reports"));
    Ok(found
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0))
}

fn unreadable(path: &str) -> impl FnOnce(std::io::Error) -> LabError {
    let path = PathBuf::from(path);
    move |source| LabError::Read { path, source }
}
