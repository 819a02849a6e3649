//! What the benchmarks share: configurations of any size, medians, and CPU time.

use std::time::Duration;

use flowctl::config::{self, Config, Format};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use rustix::time::{ClockId, clock_gettime};

/// Subnets of /24, each with its two counters; the lab's LAN is among them.
pub fn subnets(count: usize) -> String {
    let mut text = String::from("[subnets]\n");
    for at in 0..count {
        // 10.77.1.0/24, where the lab's hosts are, comes in the middle of a long list.
        let number = (at + 77 * 256 + 1).wrapping_sub(count / 2) % 65536;
        text.push_str(&format!(
            "s{at} = [\"10.{}.{}.0/24\"]\n",
            number / 256,
            number % 256
        ));
    }
    text
}

/// A configuration with that many counters.
pub fn with_counters(count: usize) -> Config {
    config::parse(&subnets(count / 2), Format::Toml).unwrap()
}

/// The middle value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// CPU time of this thread.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// CPU time of all children that were waited for, in seconds; the kernel counts it in hundredths.
pub fn children_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| fields[at].parse::<f64>().unwrap();
    (ticks(13) + ticks(14)) / 100.0
}

/// A netfilter socket of this thread's namespace.
pub fn connected() -> Socket {
    let mut socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.bind_auto().unwrap();
    socket.connect(&SocketAddr::new(0, 0)).unwrap();
    socket
}

/// The dump that is asked for, its datagrams taken and thrown away: the floor below which no reading can be. Of each only
/// the last 20 bytes are looked at, where NLMSG_DONE (type 3) stands when the dump is over.
pub fn receive_only(socket: &Socket, request: &[u8], buffer: &mut [u8]) {
    socket.send(request, 0).unwrap();
    loop {
        let received = socket.recv(&mut &mut *buffer, 0).unwrap();
        let last = &buffer[received - 20..received];
        if (last[0], u16::from_ne_bytes([last[4], last[5]])) == (20, 3) {
            return;
        }
    }
}

/// A row of a markdown table.
pub fn row(cells: &[String]) {
    println!("| {} |", cells.join(" | "));
}

/// The head of a markdown table.
pub fn head(title: &str, cells: &[&str]) {
    println!("\n## {title}\n\n| {} |", cells.join(" | "));
    println!("|{}", "---|".repeat(cells.len()));
}
