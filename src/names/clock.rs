//! The only place where names read clocks: leases end by the wall clock, and what is slow is not read all the time.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Unix time in whole seconds.
    pub wall: u64,
    /// Since boot, suspend included.
    pub uptime: Duration,
}

/// This moment.
pub fn now() -> Moment {
    Moment {
        wall: duration(clock_gettime(ClockId::Realtime)).as_secs(),
        uptime: uptime(),
    }
}

/// Time since boot, suspend included.
pub fn uptime() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

fn duration(time: Timespec) -> Duration {
    Duration::new(
        time.tv_sec.max(0).unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
