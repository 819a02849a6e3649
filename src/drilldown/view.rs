//! Sums by key, in bounded memory: one view of what moved. When there are more keys than it holds, the smaller half
//! goes into the remainder; how much a row may lack for that is known.

use std::collections::HashMap;
use std::hash::Hash;

use crate::units::Volume;

/// Keys a view holds: with rows of 200 bytes some 1.5 MiB.
pub const ROWS_MAX: usize = 7_168;

/// What a row is ranked by when the smaller ones must go.
pub trait Row {
    /// Its sum so far.
    fn volume(&self) -> Volume;
}

impl Row for Volume {
    fn volume(&self) -> Volume {
        *self
    }
}

/// Rows by key.
#[derive(Debug)]
pub struct View<K, R> {
    rows: Vec<(K, R)>,
    positions_by_key: HashMap<K, u32>,
    rows_max: usize,
    let_go: u64,
    lacking: Volume,
}

impl<K: Copy + Eq + Hash + Ord, R: Row> View<K, R> {
    /// Empty, for at most `rows_max` keys.
    pub fn new(rows_max: usize) -> Self {
        View {
            rows: Vec::new(),
            positions_by_key: HashMap::new(),
            rows_max: rows_max.max(2),
            let_go: 0,
            lacking: Volume::default(),
        }
    }

    /// The row of `key`; a fresh one where it has none. `weight` says which rows are the smaller ones.
    pub fn row(
        &mut self,
        key: K,
        fresh: impl FnOnce() -> R,
        weight: impl Fn(Volume) -> u64,
    ) -> &mut R {
        let position = match self.positions_by_key.get(&key) {
            Some(position) => *position as usize,
            None => {
                if self.rows.len() >= self.rows_max {
                    self.let_go_of_half(weight);
                }
                self.positions_by_key.insert(key, self.rows.len() as u32);
                self.rows.push((key, fresh()));
                self.rows.len() - 1
            }
        };
        &mut self.rows[position].1
    }

    /// The row of `key`, if it has one.
    pub fn get(&self, key: &K) -> Option<&R> {
        let position = *self.positions_by_key.get(key)?;
        Some(&self.rows[position as usize].1)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut R> {
        let position = *self.positions_by_key.get(key)?;
        Some(&mut self.rows[position as usize].1)
    }

    /// All rows, in no order that means anything.
    pub fn rows(&self) -> &[(K, R)] {
        &self.rows
    }

    /// Keys met; one that came back after it was let go counts again.
    pub fn keys(&self) -> u64 {
        self.let_go + self.rows.len() as u64
    }

    /// What any row may lack at most, for it was let go before.
    pub fn lacking(&self) -> Volume {
        self.lacking
    }

    fn let_go_of_half(&mut self, weight: impl Fn(Volume) -> u64) {
        let kept = self.rows_max / 2;
        self.rows.select_nth_unstable_by_key(kept, |(key, row)| {
            (std::cmp::Reverse(weight(row.volume())), *key)
        });
        let largest = self.rows[kept..]
            .iter()
            .fold(Volume::default(), |largest, (_, row)| Volume {
                bytes: largest.bytes.max(row.volume().bytes),
                packets: largest.packets.max(row.volume().packets),
            });
        self.lacking = self.lacking.plus(largest);
        self.let_go += (self.rows.len() - kept) as u64;
        self.rows.truncate(kept);
        self.positions_by_key.clear();
        for (position, (key, _)) in self.rows.iter().enumerate() {
            self.positions_by_key.insert(*key, position as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(view: &mut View<u32, Volume>, key: u32, bytes: u64) {
        let row = view.row(key, Volume::default, |volume| volume.bytes);
        *row = row.plus(Volume { bytes, packets: 1 });
    }

    #[test]
    fn the_large_stay_whatever_comes_after_them() {
        let mut view = View::new(8);
        add(&mut view, 1, 1_000);
        for mouse in 0..10_000 {
            add(&mut view, 100 + mouse, u64::from(mouse % 7) + 1);
            add(&mut view, 2, 1);
        }
        assert!(view.rows().len() <= 8);
        assert_eq!(view.get_mut(&1).map(|row| row.bytes), Some(1_000));
        let steady = view.get_mut(&2).map_or(0, |row| row.bytes);
        assert!(steady <= 10_000 && steady + view.lacking().bytes >= 10_000);
        assert!(view.keys() >= 10_002);
    }

    #[test]
    fn nothing_is_lacking_while_there_is_room() {
        let mut view = View::new(8);
        for key in 0..8 {
            add(&mut view, key, 5);
        }
        assert_eq!((view.keys(), view.lacking()), (8, Volume::default()));
        assert_eq!(view.rows().len(), 8);
    }
}
