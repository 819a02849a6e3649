//! Sysctls of one network namespace. Only keys that the kernel keeps per namespace are written here, never a
//! machine-wide one such as nf_conntrack_max.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{LabError, Namespace};

/// What conntrack keeps about a flow, decided when the flow is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConntrackSysctls {
    /// Whether packets and bytes are counted.
    pub acct: bool,
    /// Whether start and stop are stamped.
    pub timestamp: bool,
    /// 0 no events, 1 for every flow, 2 for flows born while somebody listens.
    pub events: u8,
}

/// What a drilldown needs.
impl Default for ConntrackSysctls {
    fn default() -> ConntrackSysctls {
        ConntrackSysctls {
            acct: true,
            timestamp: true,
            events: 1,
        }
    }
}

impl ConntrackSysctls {
    /// Writes all three.
    pub fn apply(self, namespace: &Namespace) -> Result<(), LabError> {
        write(
            namespace,
            &[
                ("netfilter/nf_conntrack_acct", flag(self.acct)),
                ("netfilter/nf_conntrack_timestamp", flag(self.timestamp)),
                ("netfilter/nf_conntrack_events", &self.events.to_string()),
            ],
        )
    }
}

/// Silences what IPv6 does of its own accord, so that only generators send: no link-local addresses, no duplicate
/// address detection, no router solicitations, and multicast listener reports only right after a device is up. To
/// be written before a device exists, which then inherits it.
pub fn quiet(namespace: &Namespace) -> Result<(), LabError> {
    write(
        namespace,
        &[
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv6/conf/default/accept_ra", "0"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv6/conf/default/addr_gen_mode", "1"),
            ("ipv6/conf/default/mldv2_unsolicited_report_interval", "1"),
        ],
    )
}

/// Makes it a router, IPv4 and IPv6.
pub fn forward(namespace: &Namespace) -> Result<(), LabError> {
    write(
        namespace,
        &[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")],
    )
}

/// Whether bridged frames pass the inet hooks (br_netfilter). Without br_netfilter they never do, which is fine
/// when that is what is wanted.
pub fn bridge_nf(namespace: &Namespace, on: bool) -> Result<(), LabError> {
    let written = write(
        namespace,
        &[
            ("bridge/bridge-nf-call-iptables", flag(on)),
            ("bridge/bridge-nf-call-ip6tables", flag(on)),
        ],
    );
    match written {
        Err(LabError::Sysctl { source, .. }) if !on && source.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other,
    }
}

/// Writes values to keys below /proc/sys/net, in the order given, as seen from that namespace.
pub fn write(namespace: &Namespace, values: &[(&str, &str)]) -> Result<(), LabError> {
    namespace.run(|| {
        values.iter().try_for_each(|(key, value)| {
            // /proc/sys/net shows the namespace of the thread that looks, unlike /proc/net.
            let path: PathBuf = Path::new("/proc/sys/net").join(key);
            fs::write(&path, value).map_err(|source| LabError::Sysctl {
                path,
                value: (*value).to_owned(),
                source,
            })
        })
    })?
}

fn flag(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}
