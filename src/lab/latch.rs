//! A flag that is set once and can be waited for: how the lab's threads pause, and how they are told to stop.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Set once; wakes everyone who waits.
#[derive(Debug, Default)]
pub struct Latch {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Latch {
    /// Sets it, for good.
    pub fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Whether it is set.
    pub fn is_set(&self) -> bool {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is set, at most for `longest`; whether it is set.
    pub fn wait(&self, longest: Duration) -> bool {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, _) = self
            .changed
            .wait_timeout_while(set, longest, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner);
        *set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_another_thread_sets_it_and_not_before() {
        let latch = Latch::default();
        assert!(!latch.wait(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            scope.spawn(|| latch.set());
            assert!(latch.wait(Duration::from_secs(60)));
        });
        assert!(latch.is_set());
    }
}
