//! Who plays in the demo: the generators, and the truth about what each of them sent.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::{DemoError, Sent};
use crate::lab::{
    Direction, Endpoint, Ends, Family, Generator, Host, Lab, TcpLoad, Timeline, UdpLoad, Way,
};
use crate::units::BitRate;

/// No generator outlives a show.
const LONGEST: Duration = Duration::from_secs(3600);

/// Who plays: the generators, and the recorder of what they send.
pub(super) struct Cast {
    timeline: Timeline,
    generators: Vec<Generator>,
    roles: Vec<(String, IpAddr, &'static str)>,
}

impl Cast {
    /// Everyone but the culprit.
    pub(super) fn enter(lab: &Lab) -> Result<Self, DemoError> {
        let timeline = Timeline::start().map_err(|source| DemoError::System {
            operation: "start a recorder",
            source,
        })?;
        let mut cast = Cast {
            timeline,
            generators: Vec::new(),
            roles: Vec::new(),
        };
        let (lan, iot) = (&lab.lan, &lab.iot);
        cast.udp(
            &lan[0],
            lab,
            Family::V4,
            "a video call",
            1.5e6,
            Direction::Exchange { reply: 1000 },
        )?;
        cast.tcp(
            &lan[1],
            lab,
            Family::V6,
            "photos to a cloud",
            1e6,
            Direction::Upload,
        )?;
        cast.tcp(
            &lan[2],
            lab,
            Family::V4,
            "watches a film",
            8e6,
            Direction::Download,
        )?;
        cast.udp(
            &iot[0],
            lab,
            Family::V4,
            "a camera",
            0.6e6,
            Direction::Upload,
        )?;
        cast.udp(
            &iot[1],
            lab,
            Family::V6,
            "a thermostat",
            0.1e6,
            Direction::Upload,
        )?;
        Ok(cast)
    }

    fn udp(
        &mut self,
        host: &Host,
        lab: &Lab,
        family: Family,
        role: &'static str,
        rate: f64,
        direction: Direction,
    ) -> Result<(), DemoError> {
        let (client, server) = self.ends(host, lab, family);
        let load = UdpLoad {
            direction,
            payload: 1000,
            rate: Some(BitRate(rate)),
            datagrams: u64::MAX,
            longest: LONGEST,
        };
        self.cast(
            Generator::udp(role, &Ends::new(client, server), &load)?,
            client,
            role,
        );
        Ok(())
    }

    pub(super) fn tcp(
        &mut self,
        host: &Host,
        lab: &Lab,
        family: Family,
        role: &'static str,
        rate: f64,
        direction: Direction,
    ) -> Result<(), DemoError> {
        let (client, server) = self.ends(host, lab, family);
        let load = TcpLoad {
            direction,
            rate: Some(BitRate(rate)),
            bytes: u64::MAX,
            longest: LONGEST,
        };
        self.cast(
            Generator::tcp(role, &Ends::new(client, server), &load)?,
            client,
            role,
        );
        Ok(())
    }

    /// Each speaks with a server of its own.
    fn ends<'a>(
        &self,
        host: &'a Host,
        lab: &'a Lab,
        family: Family,
    ) -> (Endpoint<'a>, Endpoint<'a>) {
        (
            host.end(family, 0),
            lab.server(family, self.generators.len() as u8, 443),
        )
    }

    fn cast(&mut self, generator: Generator, client: Endpoint<'_>, role: &'static str) {
        self.timeline.watch(&generator);
        self.roles
            .push((generator.name.clone(), client.address.ip(), role));
        self.generators.push(generator);
    }

    pub(super) fn stop_last(&mut self) {
        if let Some(last) = self.generators.last() {
            last.stop();
        }
    }

    pub(super) fn leave(&mut self) {
        self.generators.iter().for_each(Generator::stop);
        self.generators.clear();
        self.timeline.stop();
    }

    /// The truth about a window, most first.
    pub(super) fn sent_between(&self, start: Timestamp, end: Timestamp) -> Vec<Sent> {
        let sent = |name: &str| {
            self.timeline
                .volume_between(name, Way::Up, start, end)
                .unwrap_or_default()
                .bytes
        };
        let all: u64 = self.roles.iter().map(|(name, ..)| sent(name)).sum();
        let mut list: Vec<Sent> = self
            .roles
            .iter()
            .map(|(name, address, role)| {
                let bytes = sent(name);
                Sent {
                    address: *address,
                    role,
                    bytes,
                    share: bytes as f64 / all.max(1) as f64,
                }
            })
            .collect();
        list.sort_by_key(|sent| std::cmp::Reverse(sent.bytes));
        list
    }
}
