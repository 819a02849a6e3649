//! What each generator had sent at which time, so that the truth about any window can be asked afterwards.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use jiff::Timestamp;

use super::latch::Latch;
use super::ledger::Ledger;
use super::{Generator, clock};
use crate::units::Volume;

const INTERVAL: Duration = Duration::from_millis(20);
/// Two hours; what comes later is not recorded.
const MOST_POINTS: usize = 360_000;

/// A direction of a generator's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From client to server.
    Up,
    /// From server to client.
    Down,
}

/// Totals at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    at: Timestamp,
    up: Volume,
    down: Volume,
}

#[derive(Debug)]
struct Series {
    name: String,
    ledger: Arc<Ledger>,
    points: Vec<Point>,
}

impl Series {
    fn record(&mut self) {
        if self.points.len() < MOST_POINTS {
            let totals = self.ledger.totals();
            let at = clock::wall();
            self.points.push(Point {
                at,
                up: totals.up.sent,
                down: totals.down.sent,
            });
        }
    }

    fn sent_until(&self, way: Way, at: Timestamp) -> Volume {
        let value = |point: &Point| match way {
            Way::Up => point.up,
            Way::Down => point.down,
        };
        let later = self.points.partition_point(|point| point.at <= at);
        match (
            later
                .checked_sub(1)
                .and_then(|before| self.points.get(before)),
            self.points.get(later),
        ) {
            (Some(before), Some(after)) => {
                let share = nanoseconds(before.at, at) / nanoseconds(before.at, after.at);
                between(value(before), value(after), share)
            }
            (Some(last), None) => value(last),
            (None, first) => first.map(value).unwrap_or_default(),
        }
    }
}

/// A recorder of generators, every 20 ms by CLOCK_REALTIME.
#[derive(Debug)]
pub struct Timeline {
    series: Arc<Mutex<Vec<Series>>>,
    stop: Arc<Latch>,
    thread: Option<JoinHandle<()>>,
}

impl Timeline {
    /// Starts the recorder.
    pub fn start() -> io::Result<Timeline> {
        let series = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(Latch::default());
        let (recorded, stopped) = (series.clone(), stop.clone());
        let thread = thread::Builder::new()
            .name("timeline".into())
            .spawn(move || {
                while !stopped.wait(INTERVAL) {
                    record(&recorded);
                }
            })?;
        Ok(Timeline {
            series,
            stop,
            thread: Some(thread),
        })
    }

    /// Records this generator from now on, also after it has ended. Of two with one name the first is found.
    pub fn watch(&self, generator: &Generator) {
        let mut added = Series {
            name: generator.name.clone(),
            ledger: generator.ledger().clone(),
            points: vec![Point {
                at: generator.started,
                up: Volume::default(),
                down: Volume::default(),
            }],
        };
        added.record();
        self.series
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(added);
    }

    /// What the generator of that name sent within a window, interpolated between recordings; `None` when no
    /// generator of that name was watched. Between its start and `watch` it is taken to have sent evenly.
    pub fn volume_between(
        &self,
        name: &str,
        way: Way,
        start: Timestamp,
        end: Timestamp,
    ) -> Option<Volume> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let series = series.iter().find(|series| series.name == name)?;
        Some(
            series
                .sent_until(way, end)
                .since(series.sent_until(way, start)),
        )
    }

    /// Ends recording, with one last point; questions can still be asked.
    pub fn stop(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // It only records; a panic in it has been printed, and the points stay.
            let _ = thread.join();
            record(&self.series);
        }
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.stop();
    }
}

fn record(series: &Mutex<Vec<Series>>) {
    let mut series = series.lock().unwrap_or_else(PoisonError::into_inner);
    series.iter_mut().for_each(Series::record);
}

fn nanoseconds(from: Timestamp, to: Timestamp) -> f64 {
    (to.as_nanosecond() - from.as_nanosecond()) as f64
}

fn between(before: Volume, after: Volume, share: f64) -> Volume {
    let gained = after.since(before);
    before.plus(Volume {
        bytes: (gained.bytes as f64 * share).round() as u64,
        packets: (gained.packets as f64 * share).round() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).unwrap()
    }

    fn series(points: &[(i64, u64)]) -> Series {
        let volume = |bytes| Volume {
            bytes,
            packets: bytes / 100,
        };
        Series {
            name: "upload".into(),
            ledger: Arc::default(),
            points: points
                .iter()
                .map(|&(time, bytes)| Point {
                    at: at(time),
                    up: volume(bytes),
                    down: Volume::default(),
                })
                .collect(),
        }
    }

    #[test]
    fn between_two_points_the_truth_is_on_the_line() {
        let series = series(&[(1000, 0), (1020, 1000), (1040, 1000)]);
        assert_eq!(
            series.sent_until(Way::Up, at(1010)),
            Volume {
                bytes: 500,
                packets: 5
            }
        );
        assert_eq!(series.sent_until(Way::Up, at(1030)).bytes, 1000);
        assert_eq!(series.sent_until(Way::Down, at(1030)).bytes, 0);
    }

    #[test]
    fn outside_of_the_recording_nothing_moves() {
        let series = series(&[(1000, 300), (1020, 1000)]);
        assert_eq!(series.sent_until(Way::Up, at(1)).bytes, 300);
        assert_eq!(series.sent_until(Way::Up, at(9000)).bytes, 1000);
    }
}
