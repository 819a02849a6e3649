//! The only place where the lab reads clocks.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::units::Uptime;

/// CLOCK_BOOTTIME: what intervals are measured by.
pub fn uptime() -> Uptime {
    let now = clock_gettime(ClockId::Boottime);
    Uptime(Duration::new(now.tv_sec.unsigned_abs(), nanoseconds(now)))
}

/// CLOCK_REALTIME: what conntrack's stamps and the log's times are taken from. The epoch if the clock stands
/// outside of what a timestamp can hold.
pub fn wall() -> Timestamp {
    let now = clock_gettime(ClockId::Realtime);
    Timestamp::new(now.tv_sec, nanoseconds(now) as i32).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn nanoseconds(time: Timespec) -> u32 {
    u32::try_from(time.tv_nsec).unwrap_or(0)
}
