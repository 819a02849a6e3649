//! What ports are for, where operators say the name: the assignments of IANA's service registry that a router meets
//! most. Fixed, so that a verdict says the same everywhere.

use crate::drilldown::flow::Service;
use crate::kernel::conntrack::protocol::{TCP, UDP};

/// Ports that mean the same over TCP and UDP, ascending.
const EITHER: [(u16, &str); 41] = [
    (22, "ssh"),
    (53, "domain"),
    (80, "http"),
    (88, "kerberos"),
    (111, "sunrpc"),
    (123, "ntp"),
    (161, "snmp"),
    (389, "ldap"),
    (443, "https"),
    (500, "isakmp"),
    (514, "syslog"),
    (554, "rtsp"),
    (636, "ldaps"),
    (853, "domain-s"),
    (1194, "openvpn"),
    (1701, "l2tp"),
    (1723, "pptp"),
    (1883, "mqtt"),
    (1900, "ssdp"),
    (2049, "nfs"),
    (3074, "xbox"),
    (3128, "squid"),
    (3306, "mysql"),
    (3389, "ms-wbt-server"),
    (3478, "stun"),
    (4500, "ipsec-nat-t"),
    (5004, "avt-profile-1"),
    (5060, "sip"),
    (5061, "sips"),
    (5201, "iperf3"),
    (5349, "stuns"),
    (5353, "mdns"),
    (5432, "postgresql"),
    (5900, "rfb"),
    (6379, "redis"),
    (6881, "bittorrent"),
    (8080, "http-alt"),
    (8443, "pcsync-https"),
    (8883, "secure-mqtt"),
    (27017, "mongodb"),
    (51820, "wireguard"),
];

/// Ports of one protocol, ascending.
const OVER_TCP: [(u16, &str); 16] = [
    (20, "ftp-data"),
    (21, "ftp"),
    (23, "telnet"),
    (25, "smtp"),
    (110, "pop3"),
    (119, "nntp"),
    (143, "imap"),
    (179, "bgp"),
    (445, "microsoft-ds"),
    (465, "submissions"),
    (563, "nntps"),
    (587, "submission"),
    (873, "rsync"),
    (993, "imaps"),
    (995, "pop3s"),
    (6667, "ircu"),
];

/// As `OVER_TCP`.
const OVER_UDP: [(u16, &str); 7] = [
    (67, "bootps"),
    (68, "bootpc"),
    (69, "tftp"),
    (137, "netbios-ns"),
    (546, "dhcpv6-client"),
    (547, "dhcpv6-server"),
    (4789, "vxlan"),
];

/// What it is widely known as.
pub fn name(service: Service) -> Option<&'static str> {
    let port = service.port?;
    let in_table = |table: &[(u16, &'static str)]| {
        let found = table.binary_search_by_key(&port, |(known, _)| *known);
        found.ok().map(|position| table[position].1)
    };
    let own = match service.protocol {
        TCP => in_table(&OVER_TCP),
        UDP => in_table(&OVER_UDP),
        _ => return None,
    };
    own.or_else(|| in_table(&EITHER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_can_be_searched() {
        for table in [&EITHER[..], &OVER_TCP, &OVER_UDP] {
            assert!(table.is_sorted_by(|a, b| a.0 < b.0));
        }
    }

    #[test]
    fn a_name_is_of_a_port_and_its_protocol() {
        let of = |protocol, port| name(Service { protocol, port });
        assert_eq!(of(TCP, Some(443)), Some("https"));
        assert_eq!((of(TCP, Some(25)), of(UDP, Some(25))), (Some("smtp"), None));
        assert_eq!((of(132, Some(443)), of(1, None)), (None, None));
    }
}
