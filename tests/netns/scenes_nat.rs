//! Scenes behind address translation: a port forward abused from outside, hairpin, and the router's own traffic beside
//! that of its hosts under one address.

use std::net::SocketAddr;

use flowctl::lab::topology::{LAN, WAN};
use flowctl::lab::{Direction, Ends, Family, Generator, LabOptions, Protocol, UdpLoad};

use crate::scenes_stage::{
    ANY, M, assert_complete, assert_exact, assert_share, config, datagrams, payload, sent, udp,
    verdict, wake,
};
use crate::support::{Bench, lab};

#[test]
fn a_port_forward_abused_from_outside_names_the_host_it_leads_to_both_ways() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let through = SocketAddr::new(lab.wan_address(Family::V4), 8053);
    let inside = lab.lan[1].end(Family::V4, 53);
    let mut firewall = lab.firewall().unwrap();
    firewall
        .forward_port(WAN, Protocol::Udp, through, inside.address)
        .unwrap();
    let counters = ["wan_in", "wan_out", "home_to", "home_from"];
    let bench = Bench::new(
        &lab.router,
        &config(&counters.map(|counter| (counter, ANY))),
    );
    let daemon = bench.start();
    let woken = wake(&lab, &daemon);
    let ends = Ends {
        through: Some(through),
        ..Ends::new(lab.server(Family::V4, 5, 0), inside)
    };
    // Small questions, large answers: what an open resolver is abused for.
    let questions = UdpLoad {
        direction: Direction::Exchange { reply: 1200 },
        ..datagrams(1.0 * M, 60, 1500)
    };
    let attack = udp("attack", &ends, &questions);
    let browse = Ends::new(
        lab.lan[0].end(Family::V4, 0),
        lab.server(Family::V4, 3, 443),
    );
    let browsing = UdpLoad {
        direction: Direction::Exchange { reply: 100 },
        ..datagrams(1.0 * M, 100, 300)
    };
    let browse = udp("browse", &browse, &browsing);
    let (attacker, browser) = (attack.source, browse.source);
    let (attack, browse) = (attack.finish().unwrap(), browse.finish().unwrap());
    let (forwarded, browsing) = (lab.lan[1].v4, lab.lan[0].v4);
    for counter in ["wan_in", "home_to"] {
        let truth = [
            (forwarded, attack.up.sent.bytes),
            (browsing, browse.down.sent.bytes),
            (lab.lan[2].v6, woken),
        ];
        assert_exact(&verdict(&daemon, counter), &truth);
    }
    for counter in ["wan_out", "home_from"] {
        let verdict = verdict(&daemon, counter);
        let truth = [
            (forwarded, attack.down.sent.bytes),
            (browsing, browse.up.sent.bytes),
            (lab.lan[2].v6, woken),
        ];
        assert_exact(&verdict, &truth);
        let attack = verdict.flow(attacker.port());
        let ends = (attack.source, attack.destination, attack.destination_port);
        assert_eq!(ends, (attacker.ip(), forwarded, Some(53)));
        assert_eq!(attack.outside(), [None, Some(through)]);
        let own = SocketAddr::new(lab.wan_address(Family::V4), browser.port());
        let browse = verdict.flow(browser.port());
        assert_eq!(browse.outside(), [Some(own), None]);
    }
    let said = &verdict(&daemon, "wan_out").text;
    assert!(said.contains("10.77.1.12 to 198.51.100.15"), "{said}");
}

#[test]
fn hairpin_traffic_counts_once_and_has_both_ends_inside() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let through = SocketAddr::new(lab.wan_address(Family::V4), 8080);
    let inside = lab.lan[1].end(Family::V4, 80);
    let mut firewall = lab.firewall().unwrap();
    firewall
        .forward_port(LAN, Protocol::Udp, through, inside.address)
        .unwrap();
    firewall.masquerade(Family::V4, LAN).unwrap();
    let counters = ["lan_in", "lan_out", "home_from", "home_to"];
    let bench = Bench::new(
        &lab.router,
        &config(&counters.map(|counter| (counter, ANY))),
    );
    let daemon = bench.start();
    let hairpin = Ends {
        through: Some(through),
        ..Ends::new(lab.lan[0].end(Family::V4, 0), inside)
    };
    let hairpin = udp("hairpin", &hairpin, &datagrams(8.0 * M, 1000, 900));
    let upload = Ends::new(
        lab.lan[2].end(Family::V4, 0),
        lab.server(Family::V4, 3, 443),
    );
    let upload = udp("upload", &upload, &datagrams(8.0 * M, 1000, 400));
    let source = hairpin.source;
    let (hairpin, upload) = (sent(hairpin), sent(upload));
    let (client, server, third) = (lab.lan[0].v4, lab.lan[1].v4, lab.lan[2].v4);
    for counter in ["lan_in", "home_from"] {
        let verdict = verdict(&daemon, counter);
        assert_exact(&verdict, &[(client, hairpin), (third, upload)]);
        let flow = verdict.flow(source.port());
        assert_eq!((flow.source, flow.destination), (client, server));
        let router = SocketAddr::new("10.77.1.1".parse().unwrap(), source.port());
        assert_eq!(flow.outside(), [Some(router), Some(through)]);
    }
    for counter in ["lan_out", "home_to"] {
        assert_exact(&verdict(&daemon, counter), &[(server, hairpin)]);
    }
}

#[test]
fn the_routers_own_download_is_the_routers() {
    let options = LabOptions {
        merge: false,
        ..LabOptions::default()
    };
    let Some(lab) = lab(options) else { return };
    let counters = ["wan_in", "from_servers", "wan_out"];
    let bench = Bench::new(
        &lab.router,
        &config(&counters.map(|counter| (counter, ANY))),
    );
    let daemon = bench.start();
    wake(&lab, &daemon);
    let own = Ends::new(
        lab.router_end(Family::V4, 0),
        lab.server(Family::V4, 0, 443),
    );
    let update = payload(Direction::Download, 16.0 * M, 2_000_000);
    let update = Generator::tcp("update", &own, &update).unwrap();
    let film = Ends::new(
        lab.lan[0].end(Family::V4, 0),
        lab.server(Family::V4, 1, 443),
    );
    let watch = payload(Direction::Download, 8.0 * M, 1_000_000);
    let film = Generator::tcp("film", &film, &watch).unwrap();
    let source = update.source;
    update.finish().unwrap();
    film.finish().unwrap();
    let router = lab.wan_address(Family::V4);
    let downloads = ["wan_in", "from_servers"].map(|counter| {
        let verdict = verdict(&daemon, counter);
        assert_complete(&verdict);
        assert_eq!(verdict.named()[..2], [router, lab.lan[0].v4]);
        assert_share("the router", verdict.hosts[0].share, 2.0 / 3.0);
        assert_share("the host", verdict.hosts[1].share, 1.0 / 3.0);
        let update = verdict.flow(source.port());
        assert_eq!((update.source, update.outside()), (router, [None, None]));
        update.bytes
    });
    // A header a segment, and a segment sent again here and there.
    let beyond = downloads[0] as f64 / 2e6;
    assert!((1.02..1.06).contains(&beyond), "{beyond}");
    assert_eq!(downloads[0], downloads[1]);
    let acknowledged = verdict(&daemon, "wan_out");
    assert_complete(&acknowledged);
    assert!(acknowledged.host(router).bytes < downloads[0] / 10);
}

#[test]
fn hosts_and_the_router_under_one_address_stay_apart() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let bench = Bench::new(&lab.router, &config(&[("wan_out", ANY), ("lan_in", ANY)]));
    let daemon = bench.start();
    // The same port for all, so that masquerading has to give two of them another.
    let uploads = [
        (lab.lan[0].end(Family::V4, 6000), 900),
        (lab.lan[1].end(Family::V4, 6000), 600),
        (lab.router_end(Family::V4, 6000), 300),
    ];
    let generators = uploads.map(|(client, count)| {
        let ends = Ends::new(client, lab.server(Family::V4, 0, count));
        udp("upload", &ends, &datagrams(6.0 * M, 1000, count.into()))
    });
    let bytes = generators.map(sent);
    let router = lab.wan_address(Family::V4);
    let hosts = [lab.lan[0].v4, lab.lan[1].v4, router];
    let truth: Vec<_> = hosts.into_iter().zip(bytes).collect();
    let leaving = verdict(&daemon, "wan_out");
    assert_exact(&leaving, &truth);
    for flow in &leaving.flows {
        assert_eq!(flow.source_port, Some(6000));
        let seen_outside = flow.outside()[0].map_or(flow.source, |end| end.ip());
        assert_eq!(seen_outside, router);
    }
    assert_exact(&verdict(&daemon, "lan_in"), &truth[..2]);
}
