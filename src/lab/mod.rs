//! A router of its own in network namespaces, with hosts, links, NAT and traffic that knows to the byte what it
//! moved: what `flowctl demo`, the kernel tests and the benchmarks stand on. No program is run, nothing is mounted,
//! nothing of the machine is touched, and all of it vanishes with the last descriptor, also after SIGKILL.

pub mod clock;
pub mod conntrack;
mod error;
pub mod firewall;
pub mod latch;
mod ledger;
pub mod link;
pub mod namespace;
mod netlink;
mod nft;
mod numbering;
mod pace;
mod rtnl;
mod stillness;
pub mod sysctl;
mod tcp;
pub mod timeline;
pub mod topology;
pub mod traffic;
mod udp;

pub use error::LabError;
pub use ledger::{Moved, Totals};
pub use namespace::{Namespace, enter_own_users};
pub use timeline::{Timeline, Way};
pub use topology::{Host, Lab, LabOptions};
pub use traffic::{Direction, Endpoint, Ends, Generator, Protocol, TcpLoad, UdpLoad};

/// Which internet protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}
