//! Scenes of a flood that the firewall drops: it arrives and is counted, conntrack keeps nothing of it, and the hosts
//! whose traffic is accepted are named beside it.

use flowctl::lab::{Ends, Family, Generator, Lab, LabOptions, Protocol, UdpLoad};

use crate::scenes_stage::{
    ANY, M, assert_exact, await_awake, config, datagrams, endless, sent, stopped, udp, verdict,
};
use crate::support::{Bench, lab};
use crate::truth::beats;

/// Bytes on their way to the internet.
struct Sent {
    /// By lan 0, dropped.
    flood: u64,
    /// By lan 1.
    more: u64,
    /// By lan 2.
    less: u64,
}

/// The first host floods what the firewall drops.
fn refused_flood(lab: &Lab, load: &UdpLoad) -> Generator {
    let refused = lab.server(Family::V4, 6, 9);
    let mut firewall = lab.firewall().unwrap();
    firewall
        .drop_flow(Protocol::Udp, lab.lan[0].v4, refused.address)
        .unwrap();
    udp(
        "flood",
        &Ends::new(lab.lan[0].end(Family::V4, 0), refused),
        load,
    )
}

/// One host floods what the firewall drops, two others upload.
fn flood_beside_uploads(lab: &Lab) -> Sent {
    let flood = refused_flood(lab, &datagrams(20.0 * M, 1000, 6000));
    let [more, less] = [(1, 1200), (2, 800)].map(|(position, count)| {
        let client = lab.lan[position].end(Family::V4, 0);
        let ends = Ends::new(client, lab.server(Family::V4, 1, position as u16));
        udp("upload", &ends, &datagrams(6.0 * M, 1000, count))
    });
    let (more, less) = (sent(more), sent(less));
    let flood = flood.finish().unwrap().up;
    assert_eq!(flood.received.packets, 0, "all of it is dropped");
    Sent {
        flood: flood.sent.bytes,
        more,
        less,
    }
}

#[test]
fn a_flood_that_is_dropped_is_unexplained_to_the_byte_and_hides_nobody() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("lan_in", ANY), ("wan_out", ANY)]));
    let daemon = bench.start();
    let sent = flood_beside_uploads(&lab);
    let accepted = [(lab.lan[1].v4, sent.more), (lab.lan[2].v4, sent.less)];
    let arrived = verdict(&daemon, "lan_in");
    let all = sent.flood + sent.more + sent.less;
    assert_eq!(arrived.counted_bytes, all);
    assert_eq!(arrived.attributed_bytes, sent.more + sent.less);
    assert_eq!(
        (arrived.unexplained_bytes, arrived.excess_bytes),
        (sent.flood, 0)
    );
    let hosts = arrived.hosts.iter().map(|host| (host.address, host.bytes));
    assert_eq!(hosts.collect::<Vec<_>>(), accepted, "{arrived:#?}");
    let said = format!(
        "dropped before conntrack kept a flow, most from {}",
        lab.lan[0].v4
    );
    assert!(arrived.text.contains(&said), "{}", arrived.text);
    assert_exact(&verdict(&daemon, "wan_out"), &accepted);
}

#[test]
fn a_flood_that_is_dropped_is_said_to_be_unconfirmed_and_by_whom() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("lan_in", ANY)]));
    let daemon = bench.start();
    let flood = refused_flood(&lab, &endless(10.0 * M, 1000));
    let accepted = Ends::new(lab.lan[1].end(Family::V4, 0), lab.server(Family::V4, 1, 1));
    let accepted = udp("accepted", &accepted, &endless(3.0 * M, 1000));
    await_awake(&daemon);
    // What was dropped before there were rules that count it is a small part.
    beats(&daemon, 15);
    let accepted = stopped(accepted);
    flood.stop();
    let flood = flood.finish().unwrap().up.sent.bytes;
    let verdict = verdict(&daemon, "lan_in");
    assert_eq!(verdict.counted_bytes, flood + accepted);
    assert_eq!(
        (verdict.attributed_bytes, verdict.unexplained_bytes),
        (accepted, flood)
    );
    assert_eq!(verdict.named(), [lab.lan[1].v4]);
    let unconfirmed = verdict.because_of("unconfirmed");
    assert!(
        unconfirmed <= flood && unconfirmed >= flood / 2,
        "{flood}: {verdict:#?}"
    );
    let dropped = &verdict.dropped[0];
    assert_eq!(
        (dropped.address, dropped.bytes),
        (lab.lan[0].v4, unconfirmed)
    );
    drop(daemon);
    assert!(bench.flowctl(&["remove"]).status.success());
    assert_eq!(bench.nft(&["list", "tables"]), "table inet lab_nat\n");
}
