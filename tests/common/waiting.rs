//! Waiting in tests that run real programs: by the lab's clock, and never for ever.

use std::time::Duration;

use flowctl::lab::clock;
use flowctl::lab::latch::Latch;

/// How long anything may take that must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits.
pub fn pause(time: Duration) {
    Latch::default().wait(time);
}

/// Waits until `check` gives something; panics with `what` if it never does.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = clock::uptime().0 + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(clock::uptime().0 < until, "this never happened: {what}");
        pause(Duration::from_millis(20));
    }
}
