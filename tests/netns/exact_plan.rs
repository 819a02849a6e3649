//! Random small plans of traffic in the lab: UDP, TCP and echo requests, both families, between hosts, things, the
//! internet and the router, through port forwards and masquerading; and what each flow of a plan moved.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use flowctl::lab::topology::WAN;
use flowctl::lab::{Direction, Endpoint, Ends, Family, Generator, Lab, Protocol, TcpLoad, UdpLoad};
use flowctl::units::BitRate;

use crate::scenes_stage::{M, datagrams};
use crate::scenes_traffic::{Echo, ping};

const MOST_FLOWS: u16 = 8;
/// Packets that wake the thresholds, at most.
pub const OVERTURE: u16 = 5;
/// Flows of a case, at most.
pub const NUMBERS: u16 = OVERTURE + MOST_FLOWS;

/// Where packets come from and go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Lan(usize),
    Thing(usize),
    Internet(u8),
    Router,
}

impl Place {
    fn end(self, lab: &Lab, family: Family, port: u16) -> Endpoint<'_> {
        match self {
            Place::Lan(position) => lab.lan[position].end(family, port),
            Place::Thing(position) => lab.iot[position].end(family, port),
            Place::Internet(position) => lab.server(family, position, port),
            Place::Router => lab.router_end(family, port),
        }
    }

    /// The interface before it; the router has none before itself.
    pub fn interface(self) -> &'static str {
        match self {
            Place::Lan(_) => "lan",
            Place::Thing(_) => "iot",
            Place::Internet(_) => "wan",
            Place::Router => "none",
        }
    }

    pub fn is_inside(self) -> bool {
        matches!(self, Place::Lan(_) | Place::Thing(_))
    }
}

/// What a flow carries, and how.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    Udp(UdpLoad),
    Tcp(Direction, u64),
    Ping(Echo),
}

/// One flow of a plan. Its number, which no other flow of a run has, is in its ports.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub number: u16,
    pub family: Family,
    pub opener: Place,
    pub peer: Place,
    pub load: Load,
}

/// What one direction moved.
#[derive(Debug, Clone, Copy)]
pub enum Moved {
    /// At layer 3.
    Bytes(u64),
    /// And a header a segment.
    Payload(u64),
}

/// A flow that was played: what it moved from opener to peer and back.
#[derive(Debug)]
pub struct Played {
    pub planned: Planned,
    pub moved: [Moved; 2],
}

fn random_load(random: &mut Rng, number: u16) -> Load {
    let directions = [
        Direction::Upload,
        Direction::Download,
        Direction::Exchange {
            reply: random.u16(0..1400),
        },
    ];
    match random.u8(0..6) {
        0..3 => Load::Udp(UdpLoad {
            direction: directions[random.usize(..3)],
            payload: random.u16(0..1400),
            rate: Some(BitRate(10.0 * M)),
            datagrams: random.u64(1..200),
            longest: Duration::from_secs(30),
        }),
        3..5 => Load::Tcp(directions[random.usize(..2)], random.u64(1..300_000)),
        _ => Load::Ping(Echo {
            id: 5000 + number,
            payload: random.usize(0..1000),
            count: random.usize(1..120),
        }),
    }
}

/// The families of hosts: one a case, for what names a device joins its addresses.
pub fn random_families(random: &mut Rng, lab: &Lab) -> Vec<Family> {
    let hosts = lab.lan.iter().chain(&lab.iot);
    let families = hosts.map(|_| [Family::V4, Family::V6][random.usize(..2)]);
    families.collect()
}

/// A packet for each counter, which begins the accounts before anything else does.
pub fn overture(lab: &Lab, families: &[Family], first_number: u16) -> Vec<Planned> {
    let (lan, iot) = (Place::Lan(0), Place::Thing(0));
    let (of_lan, of_things) = families.split_at(lab.lan.len());
    let ways = [
        (lan, Place::Internet(0), of_lan[0]),
        (Place::Internet(0), lan, of_lan[0]),
        (iot, Place::Internet(0), of_things[0]),
        (Place::Internet(0), iot, of_things[0]),
    ];
    let across = of_things.iter().enumerate().find_map(|(thing, family)| {
        let other = of_lan.iter().position(|other| other == family)?;
        Some((Place::Thing(thing), Place::Lan(other), *family))
    });
    let numbered = ways.into_iter().chain(across).zip(first_number..);
    let planned = numbered.map(|((opener, peer, family), number)| Planned {
        number,
        family,
        opener,
        peer,
        load: Load::Udp(datagrams(M, 1, 1)),
    });
    planned.collect()
}

pub fn random_plan(
    random: &mut Rng,
    lab: &Lab,
    families: &[Family],
    first_number: u16,
) -> Vec<Planned> {
    let (lan, iot) = (lab.lan.len(), lab.iot.len());
    let count = random.u16(2..=MOST_FLOWS);
    let planned = (first_number..first_number + count).map(|number| {
        let at = random.usize(..lan + iot);
        let inside = match at.checked_sub(lan) {
            None => Place::Lan(at),
            Some(thing) => Place::Thing(thing),
        };
        let load = random_load(random, number);
        let internet = Place::Internet(random.u8(..10));
        let other = (0..iot).find(|thing| families[lan + thing] == families[at]);
        let (opener, peer) = match (random.u8(..8), inside, other, load) {
            (0, ..) => (inside, Place::Router),
            (1, ..) => (Place::Router, internet),
            (2..4, Place::Lan(_), Some(thing), _) => (inside, Place::Thing(thing)),
            (4, Place::Lan(_), Some(thing), _) => (Place::Thing(thing), inside),
            // Behind masquerading nobody outside can ask for an echo.
            (5..7, _, _, Load::Udp(_) | Load::Tcp(..)) => (internet, inside),
            _ => (inside, internet),
        };
        let family = families[at];
        Planned {
            number,
            family,
            opener,
            peer,
            load,
        }
    });
    planned.collect()
}

impl Planned {
    pub fn source_port(&self) -> u16 {
        20_000 + self.number
    }

    pub fn address(&self, lab: &Lab, place: Place) -> IpAddr {
        place.end(lab, self.family, 0).address.ip()
    }

    fn ends<'a>(&self, lab: &'a Lab) -> Ends<'a> {
        let peer = self.peer.end(lab, self.family, 1000 + self.number);
        let ends = Ends::new(self.opener.end(lab, self.family, self.source_port()), peer);
        let forwarded = matches!(self.opener, Place::Internet(_)) && self.family == Family::V4;
        if !forwarded {
            return ends;
        }
        let through = SocketAddr::new(lab.wan_address(Family::V4), peer.address.port());
        let protocol = match self.load {
            Load::Udp(_) => Protocol::Udp,
            Load::Tcp(..) | Load::Ping(_) => Protocol::Tcp,
        };
        let mut firewall = lab.firewall().unwrap();
        firewall
            .forward_port(WAN, protocol, through, peer.address)
            .unwrap();
        Ends {
            through: Some(through),
            ..ends
        }
    }

    /// Begins; an echo is answered when this returns.
    fn begin(&self, lab: &Lab) -> Result<Generator, u64> {
        match self.load {
            Load::Udp(load) => Ok(Generator::udp("udp", &self.ends(lab), &load).unwrap()),
            Load::Tcp(direction, bytes) => {
                let load = TcpLoad {
                    direction,
                    rate: None,
                    bytes,
                    longest: Duration::from_secs(30),
                };
                Ok(Generator::tcp("tcp", &self.ends(lab), &load).unwrap())
            }
            Load::Ping(echo) => {
                let from = self.opener.end(lab, self.family, 0);
                let to = self.address(lab, self.peer);
                Err(ping(from.namespace, from.address.ip(), to, echo))
            }
        }
    }
}

/// All at once, to the end.
pub fn play(lab: &Lab, plan: &[Planned]) -> Vec<Played> {
    let begun: Vec<_> = plan.iter().map(|planned| planned.begin(lab)).collect();
    let played = plan.iter().zip(begun).map(|(planned, begun)| {
        let moved = match begun {
            Err(echo) => [Moved::Bytes(echo); 2],
            Ok(generator) => {
                let totals = generator.finish().unwrap();
                let ways = [totals.up, totals.down];
                assert!(ways.iter().all(|way| way.sent.bytes == way.received.bytes));
                let is_tcp = matches!(planned.load, Load::Tcp(..));
                let moved = if is_tcp { Moved::Payload } else { Moved::Bytes };
                ways.map(|way| moved(way.sent.bytes))
            }
        };
        Played {
            planned: *planned,
            moved,
        }
    });
    played.collect()
}
