//! The only place that reads clocks for the daemon: boot time, wall time, and what the process has cost.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::report::Cost;
use crate::units::{Tick, Uptime};

/// Boot time, suspend included.
pub fn uptime() -> Uptime {
    Uptime(duration(ClockId::Boottime))
}

/// Wall time, as conntrack stamps flows.
#[expect(
    clippy::disallowed_methods,
    reason = "the daemon's one reading of the wall clock"
)]
pub fn wall() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// This moment, as the tick of that number.
pub fn tick(sequence: u64) -> Tick {
    Tick {
        sequence,
        at: uptime(),
        wall: wall(),
    }
}

/// For waiting: the clock that condition variables use.
#[expect(
    clippy::disallowed_methods,
    reason = "the daemon's one reading of the clock it waits by"
)]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> Duration {
    duration(ClockId::ThreadCPUTime)
}

/// CPU time and memory of the process.
pub fn cost() -> Cost {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let resident = pages.and_then(|text| text.split_whitespace().nth(1)?.parse::<u64>().ok());
    Cost {
        cpu_seconds: duration(ClockId::ProcessCPUTime).as_secs_f64(),
        rss_bytes: resident.unwrap_or(0) * rustix::param::page_size() as u64,
    }
}

fn duration(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec as u32)
}
