//! A verdict as one sentence, as an operator would say it: how much, for how long, who, to where, what is not known.
//! The same input gives the same words.

use std::net::IpAddr;
use std::time::Duration;

use crate::drilldown::flow::Flow;
use crate::drilldown::rank::{HostSum, RankBy, Ranking};
use crate::drilldown::shares::{ports, protocol_name};
use crate::units::{BitRate, CounterName, Volume};

/// Hosts said by name; the others are said as a number.
const HOSTS_SAID: usize = 3;
/// A host below this part of the whole is not said by name, unless it is the first.
const SAID_FROM: f64 = 0.05;
/// A flow is said to be where a host's traffic goes from this part of it on, and to be all of it from the second.
const MOSTLY_FROM: f64 = 0.5;
const WHOLLY_FROM: f64 = 0.9;

/// What the sentence is about.
pub struct Sentence<'a> {
    /// The counter.
    pub counter: &'a CounterName,
    /// Of its direction, where known.
    pub capacity: Option<BitRate>,
    /// The highest of one interval.
    pub peak_bits_per_second: f64,
    /// The highest of one interval.
    pub peak_packets_per_second: f64,
    /// Between the account's ends.
    pub duration: Duration,
    /// What shares are of: bytes, or packets.
    pub by: RankBy,
    /// Counted within the account.
    pub counted: Volume,
    /// Counted and not found in flows.
    pub unexplained: Volume,
    /// Who.
    pub ranking: &'a Ranking<'a>,
}

impl Sentence<'_> {
    /// The sentence; `name` gives an address's name, if known.
    pub fn render(&self, name: &dyn Fn(IpAddr) -> Option<String>) -> String {
        format!(
            "{} {} for {}: {}",
            self.counter,
            self.peak(),
            duration(self.duration),
            self.clauses(name).join("; ")
        )
    }

    fn peak(&self) -> String {
        match self.by {
            RankBy::Packets => rate(self.peak_packets_per_second, "pps", "kpps", "Mpps", "Gpps"),
            RankBy::Bytes => {
                let bits = |value| rate(value, "bit/s", "kbit/s", "Mbit/s", "Gbit/s");
                let peak = bits(self.peak_bits_per_second);
                match self.capacity.filter(|capacity| capacity.0 > 0.0) {
                    None => peak,
                    Some(capacity) => format!(
                        "{peak} ({} of {})",
                        percent(self.peak_bits_per_second / capacity.0),
                        bits(capacity.0)
                    ),
                }
            }
        }
    }

    fn clauses(&self, name: &dyn Fn(IpAddr) -> Option<String>) -> Vec<String> {
        let mut clauses = Vec::new();
        let mut said = Volume::default();
        for (position, host) in self.ranking.hosts.iter().take(HOSTS_SAID).enumerate() {
            let part = self.part(host.volume);
            if position > 0 && part < SAID_FROM {
                break;
            }
            said = said.plus(host.volume);
            clauses.push(format!("{} {}", percent(part), self.host(host, name)));
        }
        let unsaid = self.part(self.ranking.moved.since(said));
        let others = self.ranking.hosts_total - clauses.len();
        if clauses.is_empty() && self.ranking.moved == Volume::default() {
            clauses.push("no flow found".to_owned());
        } else if unsaid > 0.0 {
            clauses.push(match others {
                0 => format!("{} flows not named", percent(unsaid)),
                1 => format!("{} 1 other host", percent(unsaid)),
                more => format!("{} {more} other hosts", percent(unsaid)),
            });
        }
        let unexplained = self.part(self.unexplained);
        if unexplained >= 0.005 {
            clauses.push(format!("{} unexplained", percent(unexplained)));
        }
        clauses
    }

    fn host(&self, host: &HostSum<'_>, name: &dyn Fn(IpAddr) -> Option<String>) -> String {
        let who = match name(host.address) {
            Some(name) => format!("{name} ({})", host.address),
            None => host.address.to_string(),
        };
        let main = self.amount(host.main_volume) as f64 / self.amount(host.volume).max(1) as f64;
        let peer = peer(host);
        let whither = if main >= WHOLLY_FROM {
            format!(" {peer}")
        } else if main >= MOSTLY_FROM {
            format!(" mostly {peer}")
        } else {
            String::new()
        };
        let flows = if host.flows == 1 { "flow" } else { "flows" };
        format!("{who}{whither}, {} {flows}", host.flows)
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
fn peer(host: &HostSum<'_>) -> String {
    let flow: &Flow = host.main;
    let (opener, opened) = flow.inside_ends();
    let service = ports(flow.reply.detail).0;
    let protocol = protocol_name(flow.original.protocol);
    let received = host.volume.since(host.sent);
    let (way, back) = if host.sent == Volume::default() {
        ("from", "to")
    } else if received == Volume::default() {
        ("to", "from")
    } else {
        ("with", "on")
    };
    match service {
        None => {
            let other = if host.address == opener {
                opened
            } else {
                opener
            };
            format!("{way} {other} {protocol}")
        }
        Some(port) if host.address == opener => {
            format!("{way} {} {protocol}", endpoint(opened, port))
        }
        Some(port) => format!("{way} {opener} {back} port {port} {protocol}"),
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn percent(part: f64) -> String {
    let rounded = (part * 100.0).round();
    if part > 0.0 && rounded < 1.0 {
        "<1 %".to_owned()
    } else {
        format!("{rounded} %")
    }
}

/// Three digits, SI.
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
        let bits = |value| rate(value, "bit/s", "kbit/s", "Mbit/s", "Gbit/s");
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
