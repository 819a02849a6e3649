//! The same bytes seen four ways: by inside host, by outside end, by service and by flow, each to the byte.

use std::time::Duration;

use flowctl::lab::{Ends, Family, LabOptions};

use crate::scenes_stage::{ANY, M, assert_exact, config, datagrams, sent, udp, verdict};
use crate::scenes_traffic::{Sink, port, rounds};
use crate::support::{Bench, lab};

#[test]
fn a_verdict_has_four_views_and_each_is_what_was_sent() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY)]));
    let daemon = bench.start();
    let send = |host: usize, server, port, count| {
        let client = lab.lan[host].end(Family::V4, 0);
        let ends = Ends::new(client, lab.server(Family::V4, server, port));
        sent(udp("upload", &ends, &datagrams(16.0 * M, 1000, count)))
    };
    let [a, b, c] = [
        send(0, 0, 443, 400),
        send(1, 0, 53, 250),
        send(1, 1, 443, 300),
    ];
    // So many small ends that not all are named.
    let mut small = 0;
    for number in 0..12 {
        let server = lab.server(Family::V4, 2 + (number % 8) as u8, 6000 + number);
        let mut sink = Sink::open(server);
        let socket = port(lab.lan[2].end(Family::V4, 0));
        rounds(&[socket], &mut sink, 100, 1, Duration::ZERO);
        small += 128;
    }
    let verdict = verdict(&daemon, "wan_out");
    let hosts = [
        (lab.lan[1].v4, b + c),
        (lab.lan[0].v4, a),
        (lab.lan[2].v4, small),
    ];
    assert_exact(&verdict, &hosts);
    let server = |position| lab.server(Family::V4, position, 0).address.ip();
    let outside = verdict.outside.unwrap();
    let ends: Vec<_> = outside.iter().map(|end| (end.address, end.bytes)).collect();
    assert_eq!(ends[..2], [(server(0), a + b), (server(1), c)]);
    assert_eq!(ends.len(), 10, "{outside:#?}");
    assert_eq!(verdict.outside_remainder_bytes, Some(0));
    let services = verdict.services.unwrap();
    let first: Vec<_> = services[..2]
        .iter()
        .map(|service| (service.protocol.as_str(), service.port, service.bytes))
        .collect();
    let wanted = [("udp", Some(443), a + c), ("udp", Some(53), b)];
    assert_eq!(first, wanted, "{services:#?}");
    assert!(
        services[..2].iter().all(|service| service.name.is_some()),
        "{services:#?}"
    );
    // 443, 53 and 12 others, of which 8 have a name in the list.
    assert_eq!(
        (services.len(), verdict.services_remainder_bytes),
        (10, Some(4 * 128))
    );
    assert_eq!(verdict.flows_remainder_bytes, 5 * 128);
}
