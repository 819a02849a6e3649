//! Which of the configured devices are there. Rules name devices, so one that comes back counts from its first packet
//! on; what it moved before, under another name perhaps, its own statistics bound. Told what is so, it reads nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::lookout::Sighting;
use crate::config::Config;
use crate::event::Event;
use crate::kernel::devices::Moved;
use crate::kernel::links::Link;
use crate::units::{DevicePattern, Uptime};

/// An event is heard that much after what it tells of, at most, unless the machine is overwhelmed.
const HEARING: Duration = Duration::from_millis(50);

/// The configured devices.
#[derive(Debug, Default)]
pub struct Presence {
    states: BTreeMap<DevicePattern, State>,
    /// What all devices had moved at the last two readings, the newer one first.
    readings: [DevicesMoved; 2],
    /// When the changes that are not looked at yet began, and what devices had moved before.
    stirred: Option<Before>,
}

#[derive(Debug, Clone, Default)]
struct DevicesMoved {
    at: Uptime,
    moved: Vec<Moved>,
}

/// The world before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Before {
    time: Timestamp,
    /// Of those devices that live on; empty where no reading is old enough.
    moved: Vec<Moved>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Never seen in this run.
    Unseen,
    /// There, by these indexes.
    There(BTreeSet<u32>),
    /// It was there. `unseen`: devices of its name came and went that nobody looked at.
    Gone { before: Before, unseen: bool },
}

impl Presence {
    /// Takes what all devices had moved at a reading.
    pub fn note(&mut self, at: Uptime, moved: &[Moved]) {
        self.readings.swap(0, 1);
        self.readings[0].at = at;
        self.readings[0].moved.clear();
        self.readings[0].moved.extend_from_slice(moved);
    }

    /// A change was heard at `at`, which is `time`.
    pub fn stir(&mut self, at: Uptime, time: Timestamp) {
        let old_enough = |reading: &&DevicesMoved| reading.at.0 + HEARING <= at.0;
        let reading = self.readings.iter().find(old_enough);
        let moved = || {
            reading
                .map(|reading| reading.moved.clone())
                .unwrap_or_default()
        };
        self.stirred.get_or_insert_with(|| Before {
            time,
            moved: moved(),
        });
    }

    /// When the change that is not looked at yet was heard, and what devices had moved before it; nothing where no reading
    /// is old enough.
    pub fn stirred(&self) -> Option<(Timestamp, Vec<Moved>)> {
        let before = self.stirred.as_ref()?;
        Some((before.time, before.moved.clone()))
    }

    /// The devices of this configuration are the ones to know.
    pub fn reconfigure(&mut self, config: &Config, links: &[Link]) {
        let old = std::mem::take(&mut self.states);
        for pattern in configured(config) {
            let known = old.get(&pattern).cloned();
            let state = known.unwrap_or_else(|| {
                let indexes = indexes(&pattern, links);
                if indexes.is_empty() {
                    State::Unseen
                } else {
                    State::There(indexes)
                }
            });
            self.states.insert(pattern, state);
        }
    }

    /// Takes what was seen at `now`. Returns a gap for each device that is back.
    pub fn see(&mut self, sighting: &Sighting, now: Timestamp) -> Vec<Event> {
        let stirred = self.stirred.take();
        let mut before = stirred.unwrap_or(Before {
            time: now,
            moved: Vec::new(),
        });
        before.forget(&sighting.deleted);
        let mut gaps = Vec::new();
        for (pattern, state) in &mut self.states {
            if let Some((before, told)) = state.see(pattern, sighting, &before) {
                let bound = || bound(pattern, &sighting.network.links, &before);
                gaps.push(Event::Gap {
                    from: before.time,
                    to: now,
                    bound_bytes: told.then(bound).flatten(),
                    cause: cause(pattern),
                });
            }
        }
        gaps
    }
}

impl Before {
    /// Who has such an index now is another device.
    fn forget(&mut self, deleted: &BTreeSet<u32>) {
        self.moved.retain(|device| !deleted.contains(&device.index));
    }
}

impl State {
    /// What it was like before, if it is back, and whether all of its kind were looked at.
    fn see(
        &mut self,
        pattern: &DevicePattern,
        sighting: &Sighting,
        before: &Before,
    ) -> Option<(Before, bool)> {
        let indexes = indexes(pattern, &sighting.network.links);
        let fleeting = sighting.fleeting.iter().any(|name| pattern.matches(name));
        let missed = sighting.lost || fleeting;
        let mut gone = match self {
            State::Unseen => None,
            State::There(known) => {
                let stayed = |index: &&u32| {
                    indexes.contains(index)
                        && !sighting.deleted.contains(index)
                        && !sighting.renamed.contains(index)
                };
                (!known.iter().any(|index| stayed(&index))).then(|| (before.clone(), false))
            }
            State::Gone { before, unseen } => {
                before.forget(&sighting.deleted);
                Some((before.clone(), *unseen))
            }
        };
        if let Some((_, unseen)) = &mut gone {
            *unseen |= missed;
        }
        if !indexes.is_empty() {
            *self = State::There(indexes);
            return gone.map(|(before, unseen)| (before, !unseen));
        }
        if let Some((before, unseen)) = gone {
            *self = State::Gone { before, unseen };
        }
        None
    }
}

/// All devices that the configuration names, none twice.
fn configured(config: &Config) -> BTreeSet<DevicePattern> {
    let of_interfaces = config
        .interfaces
        .iter()
        .flat_map(|interface| &interface.devices);
    let of_subnets = config
        .subnets
        .iter()
        .flat_map(|subnet| subnet.addresses.follows());
    of_interfaces.chain(of_subnets).cloned().collect()
}

fn indexes(pattern: &DevicePattern, links: &[Link]) -> BTreeSet<u32> {
    let meant = links.iter().filter(|link| pattern.matches(&link.name));
    meant.map(|link| link.index).collect()
}

/// At most what devices of that name moved since then: all that they moved in their lives, or since the reading before
/// if they lived already.
fn bound(pattern: &DevicePattern, links: &[Link], before: &Before) -> Option<u64> {
    let mut sum = 0u64;
    for link in links.iter().filter(|link| pattern.matches(&link.name)) {
        let statistics = link.statistics?;
        let moved = (statistics.received.bytes).saturating_add(statistics.sent.bytes);
        let base = (before.moved.iter()).find(|device| device.index == link.index);
        sum = sum.saturating_add(moved.saturating_sub(base.map_or(0, |base| base.bytes)));
    }
    Some(sum)
}

fn cause(pattern: &DevicePattern) -> String {
    if pattern.is_wildcard() {
        format!("there was no device {pattern}")
    } else {
        format!("the device {pattern} was gone")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Format, parse};
    use crate::kernel::links::{DirectionStatistics, Statistics};

    const HEARD: u64 = 10;

    fn config(devices: &str) -> Config {
        let text = format!("interfaces.wan.device = {devices}");
        parse(&text, Format::Toml).unwrap()
    }

    fn link(index: u32, name: &str, bytes: u64) -> Link {
        let received = DirectionStatistics {
            bytes,
            ..DirectionStatistics::default()
        };
        let statistics = Statistics {
            received,
            ..Statistics::default()
        };
        Link {
            index,
            name: name.to_owned(),
            statistics: Some(statistics),
            ..Link::default()
        }
    }

    fn sighting(links: Vec<Link>) -> Sighting {
        let mut sighting = Sighting::default();
        sighting.network.links = links;
        sighting
    }

    fn known(devices: &str, links: &[Link]) -> Presence {
        let mut presence = Presence::default();
        presence.reconfigure(&config(devices), links);
        let at = |seconds| Uptime(Duration::from_secs(seconds));
        let moved = [Moved {
            index: 5,
            bytes: 1000,
        }];
        presence.note(at(HEARD - 1), &moved);
        presence
    }

    /// What comes of a change at that second, seen a second later: from, to and bound of each gap.
    fn change(
        presence: &mut Presence,
        at: u64,
        sighting: &Sighting,
    ) -> Vec<(i64, i64, Option<u64>)> {
        let time = |seconds: u64| Timestamp::from_second(seconds as i64).unwrap();
        presence.stir(Uptime(Duration::from_secs(at)), time(at));
        let gaps = presence.see(sighting, time(at + 1)).into_iter();
        gaps.map(|gap| {
            let Event::Gap {
                from,
                to,
                bound_bytes,
                ..
            } = gap
            else {
                panic!("{gap:?}");
            };
            (from.as_second(), to.as_second(), bound_bytes)
        })
        .collect()
    }

    #[test]
    fn a_device_that_is_back_leaves_a_gap_from_when_it_went_and_as_much_as_it_moved_in_its_life() {
        let mut presence = known("\"ppp0\"", &[link(5, "ppp0", 1000)]);
        let mut gone = sighting(vec![]);
        gone.deleted.insert(5);
        assert_eq!(change(&mut presence, HEARD, &gone), []);
        assert_eq!(change(&mut presence, 15, &sighting(vec![])), []);
        let back = sighting(vec![link(8, "ppp0", 70)]);
        assert_eq!(change(&mut presence, 20, &back), [(10, 21, Some(70))]);
        assert_eq!(change(&mut presence, 30, &back), [], "it was there");
    }

    #[test]
    fn one_that_had_another_name_meanwhile_moved_what_it_has_beyond_the_reading_before() {
        let mut presence = known("\"ppp0\"", &[link(5, "ppp0", 1000)]);
        assert_eq!(
            change(&mut presence, HEARD, &sighting(vec![link(5, "old", 1100)])),
            []
        );
        let back = sighting(vec![link(5, "ppp0", 1500)]);
        assert_eq!(change(&mut presence, 20, &back), [(10, 21, Some(500))]);
        // And back between two sightings.
        let mut at_once = sighting(vec![link(5, "ppp0", 1700)]);
        at_once.renamed.insert(5);
        assert_eq!(change(&mut presence, 30, &at_once), [(30, 31, Some(700))]);
    }

    #[test]
    fn an_index_that_is_used_again_is_another_device() {
        let mut presence = known("\"ppp0\"", &[link(5, "ppp0", 1000)]);
        let mut anew = sighting(vec![link(5, "ppp0", 1200)]);
        anew.deleted.insert(5);
        assert_eq!(change(&mut presence, HEARD, &anew), [(10, 11, Some(1200))]);
    }

    #[test]
    fn a_reading_that_is_younger_than_the_change_is_no_basis() {
        let mut presence = known("\"ppp0\"", &[link(5, "ppp0", 1000)]);
        let late = [Moved {
            index: 5,
            bytes: 1400,
        }];
        presence.note(Uptime(Duration::from_secs(HEARD)), &late);
        let mut renamed = sighting(vec![link(5, "ppp0", 1500)]);
        renamed.renamed.insert(5);
        assert_eq!(
            change(&mut presence, HEARD, &renamed),
            [(10, 11, Some(500))]
        );
    }

    #[test]
    fn what_devices_moved_that_nobody_looked_at_is_unknown() {
        let mut presence = known("\"ppp0\"", &[link(5, "ppp0", 1000)]);
        let mut fleeting = sighting(vec![]);
        fleeting.fleeting.insert("ppp0".to_owned());
        change(&mut presence, HEARD, &fleeting);
        let back = sighting(vec![link(8, "ppp0", 70)]);
        assert_eq!(change(&mut presence, 20, &back), [(10, 21, None)]);
        let lost = Sighting {
            lost: true,
            ..sighting(vec![link(9, "ppp0", 70)])
        };
        assert_eq!(change(&mut presence, 30, &lost), [(30, 31, None)]);
    }

    #[test]
    fn a_wildcard_is_gone_while_nothing_matches_it() {
        let two = [link(5, "ppp0", 1000), link(6, "ppp1", 10)];
        let mut presence = known("\"ppp*\"", &two);
        let one = sighting(vec![link(6, "ppp1", 20)]);
        assert_eq!(change(&mut presence, HEARD, &one), []);
        assert_eq!(change(&mut presence, 20, &sighting(vec![])), []);
        let back = sighting(vec![link(8, "ppp0", 30), link(9, "ppp1", 40)]);
        assert_eq!(change(&mut presence, 30, &back), [(20, 31, Some(70))]);
    }

    #[test]
    fn a_device_that_was_never_there_is_no_gap_when_it_comes() {
        let mut presence = known("[\"ppp0\", \"wg*\"]", &[]);
        let there = sighting(vec![link(8, "ppp0", 70), link(9, "wg1", 5)]);
        assert_eq!(change(&mut presence, HEARD, &there), []);
    }
}
