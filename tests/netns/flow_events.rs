//! Flows that begin and end, as the kernel tells them, and dumps of one address: beside generators that know what they
//! sent, and beside a full dump.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use flowctl::kernel::attr::Writer;
use flowctl::kernel::conntrack::{FlowRecord, message};
use flowctl::kernel::flow_events::{FlowEvent, FlowEvents, Heard, Told};
use flowctl::kernel::flow_request::End;
use flowctl::kernel::flows::Flows;
use flowctl::kernel::socket::Netlink;
use flowctl::lab::conntrack::{Conntrack, Entry};
use flowctl::lab::sysctl::{self, ConntrackSysctls};
use flowctl::lab::topology::{LAN, WAN};
use flowctl::lab::{Ends, Family, Lab, LabOptions, Namespace, Protocol};
use netlink_sys::{Socket, SocketAddr as NetlinkAddress, protocols::NETLINK_NETFILTER};

use crate::exact::{BOTH, masqueraded, send, volume};
use crate::support::{eventually, lab, namespace, nft_in, run_in};

/// As many as the socket must hold: what 50,000 flows a second are told to begin and end in 0.3 s.
const ROOM: u64 = 30_000;

fn listen(namespace: &Namespace, births: bool) -> FlowEvents {
    namespace.run(|| FlowEvents::open(births)).unwrap().unwrap()
}

/// All that waits. A loss would be a defect of the test.
fn told(events: &mut FlowEvents) -> Vec<Told> {
    let mut all = Vec::new();
    loop {
        match events.next().unwrap() {
            Heard::Nothing => return all,
            Heard::Lost => panic!("the buffer is large enough"),
            Heard::Told(told) => all.push(told),
        }
    }
}

fn births(told: &[Told]) -> Vec<FlowRecord> {
    let born = told.iter().filter_map(|told| match told.event {
        FlowEvent::Born(flow) => Some(flow),
        FlowEvent::Ended(_) => None,
    });
    born.collect()
}

fn ends(told: &[Told]) -> Vec<FlowRecord> {
    let ended = told.iter().filter_map(|told| match told.event {
        FlowEvent::Ended(flow) => Some(flow),
        FlowEvent::Born(_) => None,
    });
    ended.collect()
}

fn flows(namespace: &Namespace) -> Vec<FlowRecord> {
    let mut all = Vec::new();
    let dump = || {
        let mut flows = Flows::open().unwrap();
        flows.dump(|flow| all.push(*flow), || {}).unwrap();
    };
    namespace.run(dump).unwrap();
    all
}

/// A flow like no other of a lower number.
fn entry(number: u64) -> Entry {
    let [.., a, b, c, d] = number.to_be_bytes();
    let source = IpAddr::from([10, a, b, c]);
    Entry::udp(
        (source, 1_024 + u16::from(d)),
        (IpAddr::from([198, 51, 100, 1]), 9),
    )
}

#[test]
fn births_and_ends_are_told_with_what_the_kernel_keeps_of_a_flow() {
    let Some(lab) = masqueraded() else { return };
    let labels = "table inet labels { chain c { type filter hook prerouting priority -90; \
                  ct state new ct label set 5; ct state new ct mark set 7; }; }";
    nft_in(&lab.router, &[labels]);
    sysctl::write(&lab.router, &[("netfilter/nf_conntrack_udp_timeout", "1")]).unwrap();
    let mut events = listen(&lab.router, true);
    for family in BOTH {
        let server = lab.server(family, 0, 9);
        send(&Ends::new(lab.lan[0].end(family, 4_000), server), 50);
        let born = births(&told(&mut events));
        assert_eq!(born.len(), 1, "{born:?}");
        let address = match family {
            Family::V4 => lab.lan[0].v4,
            Family::V6 => lab.lan[0].v6,
        };
        assert_eq!(
            (born[0].original.source, born[0].reply.destination),
            (address, lab.wan_address(family))
        );
        assert_eq!((born[0].labels, born[0].mark), (Some(1 << 5), 7));
        assert_eq!((born[0].original_volume, born[0].start), (None, None));
        let kept = flows(&lab.router).into_iter();
        let kept = kept.filter(|flow| flow.original == born[0].original);
        assert_eq!(kept.map(|flow| flow.id).collect::<Vec<_>>(), [born[0].id]);
        // Who looks at a flow that is over ends it.
        let ended = eventually("the flow ends", || {
            flows(&lab.router);
            Some(told(&mut events)).filter(|told| !told.is_empty())
        });
        let [
            Told {
                event: FlowEvent::Ended(flow),
                by: 0,
            },
        ] = ended[..]
        else {
            panic!("{ended:?}")
        };
        assert_eq!((flow.id, flow.original), (born[0].id, born[0].original));
        assert_eq!(flow.original_volume, Some(volume(family, 50)));
        assert_eq!((flow.labels, flow.mark), (None, 7));
        assert!(flow.start.unwrap() + 900_000_000 <= flow.stop.unwrap());
    }
}

#[test]
fn a_flow_that_another_program_makes_or_ends_is_told_with_its_port() {
    let Some(namespace) = namespace() else { return };
    ConntrackSysctls::default().apply(&namespace).unwrap();
    let mut events = listen(&namespace, true);
    let mut conntrack = Conntrack::open(&namespace).unwrap();
    conntrack.create((0..20).map(entry)).unwrap();
    let made = told(&mut events);
    assert_eq!(births(&made).len(), 20);
    let by = made[0].by;
    assert!(by != 0 && made.iter().all(|told| told.by == by));
    conntrack.delete((0..10).map(entry)).unwrap();
    let deleted = told(&mut events);
    assert_eq!(ends(&deleted).len(), 10);
    assert!(deleted.iter().all(|told| told.by == by));
    let mut flush = Command::new("conntrack");
    flush.arg("-F");
    assert!(run_in(&namespace, flush).status.success());
    let flushed = told(&mut events);
    assert_eq!(ends(&flushed).len(), 10);
    let by_another = |told: &Told| told.by != 0 && told.by != by;
    assert!(flushed.iter().all(by_another), "{flushed:?}");
}

#[test]
fn births_are_told_only_while_they_are_wanted() {
    let Some(namespace) = namespace() else { return };
    let mut events = listen(&namespace, false);
    let mut conntrack = Conntrack::open(&namespace).unwrap();
    let mut pass = |births| {
        events.listen_to_births(births).unwrap();
        conntrack.create((0..5).map(entry)).unwrap();
        conntrack.delete((0..5).map(entry)).unwrap();
        let told = told(&mut events);
        (self::births(&told).len(), ends(&told).len())
    };
    assert_eq!(pass(false), (0, 5));
    assert_eq!(pass(true), (5, 5));
    assert_eq!(pass(false), (0, 5));
}

#[test]
fn what_the_room_does_not_hold_is_told_as_lost_and_what_comes_after_is_heard() {
    let Some(namespace) = namespace() else { return };
    ConntrackSysctls::default().apply(&namespace).unwrap();
    let mut conntrack = Conntrack::open(&namespace).unwrap();
    // Flows of IPv6 that ended are the largest events there are.
    let large = |number: u64| {
        let source = IpAddr::from((0xfd77 << 112 | u128::from(number)).to_be_bytes());
        let destination = IpAddr::from((0x2001_0db8 << 96 | 1_u128).to_be_bytes());
        let entry = Entry::udp((source, 4_000), (destination, 9));
        Entry {
            zone: 3,
            mark: 7,
            ..entry
        }
    };
    let mut events = listen(&namespace, false);
    conntrack.create((0..3 * ROOM).map(large)).unwrap();
    conntrack.delete((0..3 * ROOM).map(large)).unwrap();
    assert_eq!(events.next().unwrap(), Heard::Lost, "before all that waits");
    let waited = told(&mut events).len() as u64;
    assert!((ROOM..3 * ROOM).contains(&waited), "{waited} waited");
    conntrack.create([entry(0)]).unwrap();
    conntrack.delete([entry(0)]).unwrap();
    assert_eq!(ends(&told(&mut events)).len(), 1);
}

#[test]
fn what_another_program_says_in_the_kernels_place_is_not_heard() {
    let Some(namespace) = namespace() else { return };
    let mut events = listen(&namespace, true);
    let mut conntrack = Conntrack::open(&namespace).unwrap();
    conntrack.create([entry(1)]).unwrap();
    let forge = || {
        let socket = Socket::new(NETLINK_NETFILTER).unwrap();
        let mut end = Writer::new();
        end.message(message::DELETE, 0, 0, |w| w.nfgen(2, 0));
        let group_of_ends = 1 << 2;
        let everyone = NetlinkAddress::new(0, group_of_ends);
        socket.send_to(end.bytes(), &everyone, 0).unwrap();
    };
    namespace.run(forge).unwrap();
    conntrack.delete([entry(1)]).unwrap();
    // A forged message that were taken could not be read, and would be a loss.
    let told = told(&mut events);
    assert_eq!((births(&told).len(), ends(&told).len()), (1, 1));
}

/// A network with a flow of each kind: uploads of three hosts, behind NAT and not, a port forward, a hairpin, and the
/// router's own. No port is used twice: the kernel frees it a little later than the generator ends.
fn with_flows_of_every_kind() -> Option<Lab> {
    let lab = lab(LabOptions::default())?;
    for family in BOTH {
        for host in &lab.lan {
            for server in 0..3 {
                let server = lab.server(family, server, 0);
                send(&Ends::new(host.end(family, 0), server), 3);
            }
        }
        let server = lab.server(family, 3, 0);
        send(&Ends::new(lab.router_end(family, 0), server), 3);
    }
    let mut firewall = lab.firewall().unwrap();
    firewall.masquerade(Family::V4, LAN).unwrap();
    let from_outside = (WAN, lab.server(Family::V4, 4, 0), 5_000);
    let hairpin = (LAN, lab.lan[0].end(Family::V4, 0), 5_001);
    for (device, client, port) in [from_outside, hairpin] {
        let inside = lab.lan[1].end(Family::V4, port);
        let outside = SocketAddr::new(lab.wan_address(Family::V4), port + 10);
        firewall
            .forward_port(device, Protocol::Udp, outside, inside.address)
            .unwrap();
        let forwarded = Ends {
            through: Some(outside),
            ..Ends::new(client, inside)
        };
        send(&forwarded, 3);
    }
    Some(lab)
}

/// What tells flows apart, in an order.
fn told_apart(flows: impl IntoIterator<Item = FlowRecord>) -> BTreeSet<String> {
    let name = |flow: FlowRecord| format!("{:?} {:?} {}", flow.original, flow.reply, flow.id);
    flows.into_iter().map(name).collect()
}

#[test]
fn a_dump_of_one_address_is_what_a_full_dump_has_of_it() {
    let Some(lab) = with_flows_of_every_kind() else {
        return;
    };
    let all = flows(&lab.router);
    let mut doors = lab.router.run(Flows::open).unwrap().unwrap();
    let mut of = |address: IpAddr| {
        let mut found = Vec::new();
        let dumped = doors.dump_of(address, |flow| found.push(*flow), || {});
        dumped.unwrap();
        told_apart(found)
    };
    let ends = |flow: &FlowRecord| [flow.original.source, flow.reply.source];
    let addresses: BTreeSet<IpAddr> = all.iter().flat_map(ends).collect();
    for &address in &addresses {
        let ours = all
            .iter()
            .copied()
            .filter(|flow| ends(flow).contains(&address));
        assert_eq!(of(address), told_apart(ours), "{address}");
    }
    // Three uploads, a port forward and a hairpin.
    assert_eq!(of(lab.lan[1].v4).len(), 3 + 2);
    assert!(addresses.len() > 10 && of(IpAddr::from([192, 0, 2, 1])).is_empty());
}

#[test]
fn the_kernel_leaves_out_of_a_filtered_dump_what_was_not_asked_for() {
    let Some(lab) = with_flows_of_every_kind() else {
        return;
    };
    let netlink = lab.router.run(|| Netlink::open(NETLINK_NETFILTER));
    let mut netlink = netlink.unwrap().unwrap();
    for (end, address) in [(End::Opener, lab.lan[0].v4), (End::Peer, lab.lan[1].v4)] {
        let IpAddr::V4(v4) = address else { panic!() };
        let mut found = Vec::new();
        let filter = |w: &mut Writer| end.write_filter(w, v4);
        let dumped = netlink.dump("test", message::GET, filter, |message| {
            found.push(end.of(&FlowRecord::decode(message.payload)?));
            Ok(())
        });
        dumped.unwrap();
        assert!(!found.is_empty() && found.iter().all(|found| *found == address));
    }
}

#[test]
fn events_are_heard_between_the_chunks_of_a_dump() {
    let Some(namespace) = namespace() else { return };
    let mut conntrack = Conntrack::open(&namespace).unwrap();
    conntrack.create((0..5_000).map(entry)).unwrap();
    let mut events = listen(&namespace, true);
    let mut heard = Vec::new();
    let (mut seen, mut next) = (0, 5_000);
    let mut flows = namespace.run(Flows::open).unwrap().unwrap();
    let between = || {
        conntrack.create([entry(next)]).unwrap();
        next += 1;
        heard.extend(told(&mut events));
    };
    flows.dump(|_| seen += 1, between).unwrap();
    assert!(seen >= 5_000, "{seen} flows");
    // A flow takes more than 100 bytes, and a chunk has at most 32 KiB.
    let chunks = births(&heard).len();
    assert!(
        (5_000 * 100 / 32_768..2_500).contains(&chunks),
        "{chunks} chunks"
    );
}
