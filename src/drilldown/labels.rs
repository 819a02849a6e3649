//! Label bits of a million flows in two bytes each: flows that came the same way have the same, so the few that differ
//! are kept once. Bounded; what finds no room is not remembered.

/// A flow's labels, as the book has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered(u16);

impl Remembered {
    /// None known.
    pub const NOTHING: Remembered = Remembered(0);
    /// What routes say now, not what the flow's packets set.
    const BY_ROUTE: u16 = 1 << 15;

    /// Whether it is what routes said.
    pub fn is_by_route(self) -> bool {
        self.0 & Remembered::BY_ROUTE != 0
    }
}

/// Every set of labels met.
#[derive(Debug, Clone, Default)]
pub struct LabelBook {
    /// The one with the number n stands at n - 1.
    sets: Vec<u128>,
}

impl LabelBook {
    /// 64 interfaces can meet in 4096 ways; routes that change bring a few more.
    const SETS_MAX: usize = 1 << 13;

    /// Writes them down.
    pub fn remember(&mut self, labels: u128, by_route: bool) -> Remembered {
        let known = self.sets.iter().position(|set| *set == labels);
        let position = match known {
            Some(position) => position,
            None if self.sets.len() < Self::SETS_MAX => {
                self.sets.push(labels);
                self.sets.len() - 1
            }
            None => return Remembered::NOTHING,
        };
        let mark = if by_route { Remembered::BY_ROUTE } else { 0 };
        Remembered((position + 1) as u16 | mark)
    }

    /// The labels, and whether they are what routes say; `None` where nothing was remembered.
    pub fn recall(&self, remembered: Remembered) -> Option<(u128, bool)> {
        let number = usize::from(remembered.0 & !Remembered::BY_ROUTE);
        let labels = self.sets.get(number.checked_sub(1)?)?;
        Some((*labels, remembered.is_by_route()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_is_recalled_with_its_source() {
        let mut book = LabelBook::default();
        let set = book.remember(5 << 64, false);
        let guessed = book.remember(5 << 64, true);
        let none = book.remember(0, true);
        assert_eq!(book.recall(set), Some((5 << 64, false)));
        assert_eq!(book.recall(guessed), Some((5 << 64, true)));
        assert_eq!(book.recall(none), Some((0, true)));
        assert_eq!(book.recall(Remembered::NOTHING), None);
        assert_eq!(book.sets.len(), 2);
    }

    #[test]
    fn a_full_book_remembers_no_more() {
        let mut book = LabelBook::default();
        for labels in 0..LabelBook::SETS_MAX as u128 {
            assert_ne!(book.remember(labels, false), Remembered::NOTHING);
        }
        assert_eq!(book.remember(1 << 100, false), Remembered::NOTHING);
        assert_eq!(book.recall(book.clone().remember(7, true)), Some((7, true)));
    }
}
