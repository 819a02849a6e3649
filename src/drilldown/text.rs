//! A verdict as one sentence, as an operator would say it: how much, for how long, who, to where, what is not known.
//! The same input gives the same words.

use std::net::IpAddr;
use std::time::Duration;

use crate::drilldown::flow::Service;
use crate::drilldown::rank::{HostSum, RankBy, Ranking};
use crate::drilldown::services;
use crate::drilldown::shares::{KnownHosts, protocol_name};
use crate::units::{BitRate, CounterName, Volume};

/// Hosts or other ends said by name; the others are said as a number.
const SAID: usize = 3;
/// A host below this part of the whole is not said by name, unless it is the first.
const SAID_FROM: f64 = 0.05;
/// A flow is said to be where a host's traffic goes from this part of it on, and to be all of it from the second.
const MOSTLY_FROM: f64 = 0.5;
const WHOLLY_FROM: f64 = 0.9;

/// What the sentence is about.
pub struct Sentence<'a> {
    /// The counter, or the host asked for.
    pub about: About<'a>,
    /// Between the account's ends.
    pub duration: Duration,
    /// What shares are of: bytes, or packets.
    pub by: RankBy,
    /// Counted within the account; what flows sum to, where nothing counted.
    pub counted: Volume,
    /// Counted and not found in flows.
    pub unexplained: Volume,
    /// Of that, dropped before conntrack kept a flow.
    pub dropped: Volume,
    /// Who sent most of what was dropped.
    pub dropped_most_from: Option<IpAddr>,
    /// Who.
    pub ranking: &'a Ranking,
    /// Names.
    pub known: &'a dyn KnownHosts,
}

/// Whose traffic it is.
#[derive(Debug, Clone, Copy)]
pub enum About<'a> {
    /// All that a counter counted.
    Counter {
        /// The counter.
        name: &'a CounterName,
        /// Of its direction, where known.
        capacity: Option<BitRate>,
        /// The highest of one interval.
        peak_bits_per_second: f64,
        /// The highest of one interval.
        peak_packets_per_second: f64,
    },
    /// All that a host sent and received.
    Host(IpAddr),
}

impl Sentence<'_> {
    /// The sentence.
    pub fn render(&self) -> String {
        let duration = duration(self.duration);
        let clauses = self.clauses().join("; ");
        match self.about {
            About::Host(address) => {
                let who = self.named(address);
                let moved = bytes(self.ranking.moved.bytes);
                format!("{who} {moved} in {duration}: {clauses}")
            }
            About::Counter { name, .. } => {
                format!("{name} {} for {duration}: {clauses}", self.peak())
            }
        }
    }

    fn peak(&self) -> String {
        let About::Counter {
            capacity,
            peak_bits_per_second,
            peak_packets_per_second,
            ..
        } = self.about
        else {
            return String::new();
        };
        match self.by {
            RankBy::Packets => packet_rate(peak_packets_per_second),
            RankBy::Bytes => {
                let peak = bits(peak_bits_per_second);
                match capacity.filter(|capacity| capacity.0 > 0.0) {
                    None => peak,
                    Some(capacity) => format!(
                        "{peak} ({} of {})",
                        percent(peak_bits_per_second / capacity.0),
                        bits(capacity.0)
                    ),
                }
            }
        }
    }

    fn clauses(&self) -> Vec<String> {
        let mut clauses = match self.about {
            About::Counter { .. } => self.by_host(),
            About::Host(_) => self.by_outside_end(),
        };
        if clauses.is_empty() {
            clauses.push("no flow found".to_owned());
        }
        let dropped_part = self.part(self.dropped);
        if dropped_part >= 0.005 {
            let most = match self.dropped_most_from {
                Some(sender) => format!(", most from {}", self.named(sender)),
                None => String::new(),
            };
            clauses.push(format!(
                "{} dropped before conntrack kept a flow{most}",
                percent(dropped_part)
            ));
        }
        let unexplained = (self.part(self.unexplained) - dropped_part).max(0.0);
        if unexplained >= 0.005 {
            clauses.push(format!("{} unexplained", percent(unexplained)));
        }
        clauses
    }

    fn by_host(&self) -> Vec<String> {
        let mut clauses = Vec::new();
        let mut said = Volume::default();
        let hosts = &self.ranking.hosts;
        for (position, host) in hosts.named.iter().take(SAID).enumerate() {
            let part = self.part(host.host.volume);
            if position > 0 && part < SAID_FROM {
                break;
            }
            said = said.plus(host.host.volume);
            clauses.push(format!("{} {}", percent(part), self.host(host)));
        }
        self.others(&mut clauses, said, hosts.total, "host");
        clauses
    }

    fn by_outside_end(&self) -> Vec<String> {
        let mut clauses = Vec::new();
        let mut said = Volume::default();
        let outside = &self.ranking.outside;
        for (position, (address, volume)) in outside.named.iter().take(SAID).enumerate() {
            let part = self.part(*volume);
            if position > 0 && part < SAID_FROM {
                break;
            }
            said = said.plus(*volume);
            clauses.push(format!("{} with {}", percent(part), self.named(*address)));
        }
        self.others(&mut clauses, said, outside.total, "other end");
        if let Some((service, volume)) = self.ranking.services.named.first() {
            let what = service_name(*service);
            clauses.push(format!("{} by {what}", percent(self.part(*volume))));
        }
        clauses
    }

    fn others(&self, clauses: &mut Vec<String>, said: Volume, total: u64, what: &str) {
        let unsaid = self.part(self.ranking.moved.since(said));
        let others = total.saturating_sub(clauses.len() as u64);
        let what = what.trim_start_matches("other ");
        if unsaid > 0.0 && !(clauses.is_empty() && self.ranking.moved == Volume::default()) {
            clauses.push(match others {
                0 => format!("{} flows not named", percent(unsaid)),
                1 => format!("{} 1 other {what}", percent(unsaid)),
                more => format!("{} {more} other {what}s", percent(unsaid)),
            });
        }
    }

    fn named(&self, address: IpAddr) -> String {
        match self.known.known(address).name {
            Some(name) => format!("{name} ({address})"),
            None => address.to_string(),
        }
    }

    fn host(&self, sum: &HostSum) -> String {
        let host = &sum.host;
        let names = sum
            .addresses
            .iter()
            .map(|address| self.known.known(*address).name);
        let who = match names.flatten().next() {
            Some(name) => format!("{name} ({})", sum.address()),
            None => sum.address().to_string(),
        };
        let main = self.amount(host.main_volume) as f64 / self.amount(host.volume).max(1) as f64;
        let peer = peer(sum);
        let whither = if main >= WHOLLY_FROM {
            format!(" {peer}")
        } else if main >= MOSTLY_FROM {
            format!(" mostly {peer}")
        } else {
            String::new()
        };
        // A row that was let go and came back has lost its count, not its flow.
        let flows = match host.flows.max(1) {
            1 => "1 flow".to_owned(),
            more => format!("{more} flows"),
        };
        format!("{who}{whither}, {flows}")
    }

    fn amount(&self, volume: Volume) -> u64 {
        self.by.weight(volume).0
    }

    fn part(&self, volume: Volume) -> f64 {
        match self
            .amount(self.counted)
            .max(self.amount(self.ranking.moved))
        {
            0 => 0.0,
            whole => self.amount(volume) as f64 / whole as f64,
        }
    }
}

/// The other end of a host's largest flow. The port said is the one that the flow was opened to.
fn peer(sum: &HostSum) -> String {
    let (host, main) = (&sum.host, sum.host.main);
    let is_opener = sum.addresses.contains(&main.opener);
    let protocol = protocol_name(main.service.protocol);
    let received = host.volume.since(host.sent);
    let (way, back) = if host.sent == Volume::default() {
        ("from", "to")
    } else if received == Volume::default() {
        ("to", "from")
    } else {
        ("with", "on")
    };
    match main.service.port {
        None => {
            let other = if is_opener { main.opened } else { main.opener };
            format!("{way} {other} {protocol}")
        }
        Some(port) if is_opener => format!("{way} {} {protocol}", endpoint(main.opened, port)),
        Some(port) => format!("{way} {} {back} port {port} {protocol}", main.opener),
    }
}

/// `https (443/tcp)`, `443/tcp` or `icmp`.
fn service_name(service: Service) -> String {
    let protocol = protocol_name(service.protocol);
    match (service.port, services::name(service)) {
        (None, _) => protocol,
        (Some(port), None) => format!("{port}/{protocol}"),
        (Some(port), Some(name)) => format!("{name} ({port}/{protocol})"),
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

pub(crate) fn percent(part: f64) -> String {
    let rounded = (part * 100.0).round();
    if part > 0.0 && rounded < 1.0 {
        "<1 %".to_owned()
    } else {
        format!("{rounded} %")
    }
}

/// Three digits, SI.
pub(crate) fn bits(bits_per_second: f64) -> String {
    rate(bits_per_second, "bit/s", "kbit/s", "Mbit/s", "Gbit/s")
}

/// Three digits, SI.
pub(crate) fn packet_rate(packets_per_second: f64) -> String {
    rate(packets_per_second, "pps", "kpps", "Mpps", "Gpps")
}

fn rate(value: f64, one: &str, kilo: &str, mega: &str, giga: &str) -> String {
    let (scaled, unit) = [(1e9, giga), (1e6, mega), (1e3, kilo)]
        .into_iter()
        // 999.95 kbit/s would be rounded to 1000 kbit/s.
        .find(|(scale, _)| value >= 0.9995 * scale)
        .map_or((value, one), |(scale, unit)| (value / scale, unit));
    let digits = match scaled {
        scaled if scaled >= 99.95 => 0,
        scaled if scaled >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{scaled:.digits$}");
    let short = if digits == 0 {
        &text
    } else {
        text.trim_end_matches('0').trim_end_matches('.')
    };
    format!("{short} {unit}")
}

/// Three digits, IEC.
fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = |(power, _): &(u32, &str)| bytes >> power > 0;
    match units.into_iter().find(fits) {
        None => format!("{bytes} B"),
        Some((power, unit)) => {
            let value = bytes as f64 / f64::from(1u32 << power);
            let digits = if value < 100.0 { 1 } else { 0 };
            format!("{value:.digits$} {unit}")
        }
    }
}

/// `12s`, `3m12s`, `2h05m`; below ten seconds with a tenth.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..=9 if duration.subsec_millis() >= 50 => format!("{:.1}s", duration.as_secs_f64()),
        0..=59 => format!("{seconds}s"),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits_and_no_empty_ones() {
        let said = [0.0, 984.0, 47_200_000.0, 50_000_000.0, 999_990.0, 1.234e9];
        assert_eq!(
            said.map(bits),
            [
                "0 bit/s",
                "984 bit/s",
                "47.2 Mbit/s",
                "50 Mbit/s",
                "1 Mbit/s",
                "1.23 Gbit/s"
            ]
        );
    }

    #[test]
    fn durations_read_as_an_operator_says_them() {
        let said = [4.24, 9.0, 59.9, 192.0, 7500.0].map(Duration::from_secs_f64);
        assert_eq!(said.map(duration), ["4.2s", "9s", "59s", "3m12s", "2h05m"]);
    }

    #[test]
    fn a_part_below_one_percent_is_not_nothing() {
        assert_eq!(
            [0.0, 0.001, 0.806, 1.0].map(percent),
            ["0 %", "<1 %", "81 %", "100 %"]
        );
    }
}
