//! Scenes of floods that have no ports: echo requests and GRE name their host as TCP and UDP do.

use flowctl::lab::{Ends, Family, Host, LabOptions};

use crate::scenes_stage::{ANY, M, assert_exact, config, datagrams, sent, udp, verdict, wake};
use crate::scenes_traffic::{Echo, Sink, ping, tunnel};
use crate::support::{Bench, lab};

#[test]
fn a_flood_of_echo_requests_names_who_asks_and_its_answers_who_is_answered() {
    let options = LabOptions {
        lan_hosts: 4,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let counters = ["wan_out", "wan_in", "home_from", "lan_out"];
    let bench = Bench::new(
        &lab.router,
        &config(&counters.map(|counter| (counter, ANY))),
    );
    let daemon = bench.start();
    let woken = wake(&lab, &daemon);
    let [quiet, loud, modern] = [0, 1, 2].map(|position| &lab.lan[position]);
    let server = |family| lab.server(family, 2, 0).address.ip();
    let flood = |host: &Host, from, family, count| {
        let echo = Echo {
            id: 4711,
            payload: 1000,
            count,
        };
        (from, ping(&host.namespace, from, server(family), echo))
    };
    let truth = [
        flood(loud, loud.v4, Family::V4, 900),
        flood(modern, modern.v6, Family::V6, 600),
        flood(quiet, quiet.v4, Family::V4, 50),
        (lab.lan[3].v6, woken),
    ];
    for counter in counters {
        let verdict = verdict(&daemon, counter);
        assert_exact(&verdict, &truth);
        let icmp: Vec<_> = (verdict.flows.iter())
            .map(|flow| {
                (
                    flow.protocol.as_str(),
                    flow.icmp_type,
                    flow.icmp_code,
                    flow.source_port,
                )
            })
            .collect();
        let wanted = [
            ("icmp", Some(8), Some(0), None),
            ("icmpv6", Some(128), Some(0), None),
            ("icmp", Some(8), Some(0), None),
        ];
        assert_eq!(icmp[..3], wanted, "{verdict:#?}");
    }
}

#[test]
fn a_flood_of_gre_names_its_host() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY), ("lan_in", ANY)]));
    let daemon = bench.start();
    let ends = Ends::new(
        lab.lan[0].end(Family::V4, 0),
        lab.server(Family::V4, 0, 443),
    );
    // More packets, fewer bytes.
    let upload = udp("upload", &ends, &datagrams(6.0 * M, 400, 1500));
    let mut far = Sink::raw(lab.server(Family::V4, 4, 0));
    let tunnelled = tunnel(&lab.lan[2], &mut far, 1200, 1000);
    let truth = [(lab.lan[2].v4, tunnelled), (lab.lan[0].v4, sent(upload))];
    for counter in ["wan_out", "lan_in"] {
        let verdict = verdict(&daemon, counter);
        assert_exact(&verdict, &truth);
        let flow = &verdict.flows[0];
        assert_eq!((flow.protocol.as_str(), flow.source_port), ("gre", None));
        assert_eq!(
            (flow.source, flow.destination),
            (lab.lan[2].v4, far.address.ip())
        );
    }
}
