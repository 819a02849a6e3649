//! The rules of attribution, one test each.

#![allow(clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]

use std::net::IpAddr;

use crate::config::{Addresses, Counter, Format, Selectors, parse};
use crate::drilldown::attribution::{Attribution, Belongs};
use crate::drilldown::scope::Scope;
use crate::kernel::conntrack::{Detail, FlowRecord, Tuple};
use crate::kernel::routes::Path;
use crate::units::{CounterName, DeviceName, InterfaceName};

const ROUTER: &str = "192.168.1.1";
const UPLINK: &str = "198.51.100.7";
const HOST: &str = "192.168.1.5";
const FAR: &str = "203.0.113.9";

/// Label bits: wan 64 and 65, lan 66 and 67, tunnel 68 and 69, all (whose wildcard covers a device of lan) 70 and 71.
const CONFIG: &str = r#"
drilldown.label_base = 64
[interfaces]
wan.device = "ppp0"
lan.device = ["br0", "wg0"]
tunnel.device = "tun0"
all.device = ["br*", "eth9"]
[subnets]
home = "192.168.1.0/24"
"#;

/// Selectors as words: `in=wan from=192.168.1.0/24`; lists with commas.
fn scope(words: &str) -> Scope {
    scope_in(CONFIG, words, ROUTER)
}

fn scope_in(config: &str, words: &str, router: &str) -> Scope {
    let mut selectors = Selectors::default();
    for (key, list) in words
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
    {
        let interfaces = || {
            list.split(',')
                .map(|name| InterfaceName::new(name).unwrap())
        };
        let addresses = || {
            let prefixes = list.split(',').map(|net| net.parse().unwrap());
            Addresses::from(prefixes.collect::<Vec<_>>())
        };
        match key {
            "in" => selectors.in_ = Some(interfaces().collect()),
            "out" => selectors.out = Some(interfaces().collect()),
            "from" => selectors.from = Some(addresses()),
            "to" => selectors.to = Some(addresses()),
            _ => panic!("{key}"),
        }
    }
    let counter = Counter {
        name: CounterName::new("counter").unwrap(),
        existing: None,
        selectors,
        capacity: None,
    };
    let config = parse(config, Format::Toml).unwrap();
    Scope::new(&config, &counter, &[address(router), address(UPLINK)])
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A flow without NAT whose first packets set `labels`.
fn flow(opener: &str, peer: &str, labels: &[u8]) -> FlowRecord {
    let tuple = |source, destination| Tuple {
        source: address(source),
        destination: address(destination),
        protocol: 17,
        detail: Detail::Ports {
            source: 1,
            destination: 2,
        },
    };
    let bits = labels.iter().fold(0, |bits, label| bits | 1u128 << label);
    FlowRecord {
        original: tuple(opener, peer),
        reply: tuple(peer, opener),
        zone: 0,
        id: 1,
        status: 0,
        original_volume: None,
        reply_volume: None,
        start: None,
        stop: None,
        labels: (bits != 0).then_some(bits),
        mark: 0,
        tcp_state: None,
    }
}

/// Original, reply.
fn belongs(words: &str, flow: &FlowRecord) -> (bool, bool) {
    match scope(words).attribute(flow) {
        Attribution::Belongs(belongs) => (belongs.original, belongs.reply),
        Attribution::Foreign => (false, false),
        Attribution::Unlabelled => panic!("unlabelled"),
    }
}

const ORIGINAL: (bool, bool) = (true, false);
const REPLY: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);
const NEITHER: (bool, bool) = (false, false);

#[test]
fn an_upload_and_a_port_forward_are_told_apart() {
    let upload = flow(HOST, FAR, &[66, 65]);
    let forward = flow(FAR, HOST, &[64, 67]);
    assert_eq!(belongs("in=lan", &upload), ORIGINAL);
    assert_eq!(belongs("in=wan", &upload), REPLY);
    assert_eq!(belongs("out=wan", &upload), ORIGINAL);
    assert_eq!(belongs("out=lan", &upload), REPLY);
    assert_eq!(belongs("in=wan", &forward), ORIGINAL);
    assert_eq!(belongs("out=wan", &forward), REPLY);
    assert_eq!(belongs("in=lan out=wan", &forward), REPLY);
}

#[test]
fn every_selector_must_match_and_a_list_is_a_union() {
    let upload = flow(HOST, FAR, &[66, 65]);
    assert_eq!(belongs("from=192.168.1.0/24 out=wan", &upload), ORIGINAL);
    assert_eq!(belongs("from=192.168.1.0/24 out=tunnel", &upload), NEITHER);
    assert_eq!(belongs("out=tunnel,wan", &upload), ORIGINAL);
    assert_eq!(belongs("in=wan,lan", &upload), BOTH);
    assert_eq!(belongs("from=10.0.0.0/8,192.168.1.4/31", &upload), ORIGINAL);
    assert_eq!(belongs("to=192.168.1.0/24", &upload), REPLY);
    assert_eq!(
        belongs("from=192.168.1.0/24 to=192.168.1.0/24", &upload),
        NEITHER
    );
}

#[test]
fn inside_addresses_count_not_those_of_the_nat() {
    let mut upload = flow(HOST, FAR, &[66, 65]);
    upload.reply.destination = address(UPLINK);
    assert_eq!(belongs("to=192.168.1.0/24", &upload), REPLY);
    let mut forward = flow(FAR, UPLINK, &[64, 67]);
    forward.reply.source = address(HOST);
    assert_eq!(belongs("to=192.168.1.0/24", &forward), ORIGINAL);
    assert_eq!(belongs("from=192.168.1.0/24 out=wan", &forward), REPLY);
}

#[test]
fn what_is_for_the_router_arrives_but_never_leaves() {
    let query = flow(HOST, ROUTER, &[66]);
    assert_eq!(belongs("in=lan", &query), ORIGINAL);
    assert_eq!(belongs("from=192.168.1.0/24", &query), ORIGINAL);
    assert_eq!(belongs("to=192.168.1.0/24", &query), REPLY);
    assert_eq!(belongs("out=lan", &query), REPLY);
    assert_eq!(
        belongs("from=192.168.1.0/24 to=192.168.1.0/24", &query),
        REPLY
    );
}

#[test]
fn what_the_router_makes_leaves_but_never_arrives() {
    let update = flow(UPLINK, FAR, &[65]);
    assert_eq!(belongs("out=wan", &update), ORIGINAL);
    assert_eq!(belongs("in=wan", &update), REPLY);
    assert_eq!(belongs("from=198.51.100.0/24", &update), NEITHER);
    assert_eq!(belongs("from=198.51.100.0/24 out=wan", &update), ORIGINAL);
    assert_eq!(belongs("in=lan out=wan", &update), NEITHER);
    let unlabelled = flow(UPLINK, FAR, &[]);
    let through = scope("in=lan out=wan");
    assert_eq!(
        through.attribute(&unlabelled),
        Attribution::Foreign,
        "no output, no input"
    );
    assert_eq!(belongs("to=203.0.113.0/24", &update), ORIGINAL);
    let loopback = flow("127.0.0.1", "127.0.0.1", &[]);
    assert_eq!(belongs("from=127.0.0.0/8", &loopback), NEITHER);
    assert_eq!(belongs("to=127.0.0.0/8", &loopback), NEITHER);
}

#[test]
fn link_local_groups_are_not_forwarded() {
    let mdns = flow(HOST, "224.0.0.251", &[66]);
    assert_eq!(belongs("to=224.0.0.0/4", &mdns), NEITHER);
    assert_eq!(belongs("from=192.168.1.0/24", &mdns), ORIGINAL);
    let routers = flow(ROUTER, "224.0.0.5", &[67]);
    assert_eq!(belongs("to=224.0.0.0/4", &routers), ORIGINAL);
}

#[test]
fn between_two_hosts_of_one_subnet_both_directions_belong() {
    let pair = flow(HOST, "192.168.1.6", &[66, 67]);
    for words in [
        "in=lan",
        "out=lan",
        "from=192.168.1.0/24",
        "to=192.168.1.0/24",
    ] {
        assert_eq!(belongs(words, &pair), BOTH, "{words}");
    }
}

#[test]
fn a_flow_without_our_labels_is_set_apart_where_an_interface_is_asked() {
    let old = flow(HOST, FAR, &[]);
    let foreign_label = flow(HOST, FAR, &[3]);
    assert_eq!(scope("out=wan").attribute(&old), Attribution::Unlabelled);
    assert_eq!(
        scope("out=wan").attribute(&foreign_label),
        Attribution::Unlabelled
    );
    assert_eq!(
        scope("out=wan from=10.0.0.0/8").attribute(&old),
        Attribution::Foreign
    );
    assert_eq!(belongs("from=192.168.1.0/24", &old), ORIGINAL);
}

#[test]
fn an_unlabelled_flow_is_judged_by_the_path_its_packets_take_now() {
    let device = |name: &str| DeviceName::new(name).ok();
    let by_path = |words: &str, opener: &str, peer: &str| {
        let path = Path {
            opener: device(opener),
            peer: device(peer),
        };
        scope(words).attribute_by_path(&flow(HOST, FAR, &[]), &path)
    };
    let one_way = |original| {
        Attribution::Belongs(Belongs {
            original,
            reply: !original,
            approximate: true,
        })
    };
    assert_eq!(by_path("out=wan", "br0", "ppp0"), one_way(true));
    assert_eq!(by_path("in=wan", "br0", "ppp0"), one_way(false));
    assert_eq!(by_path("in=all out=wan", "br0", "ppp0"), one_way(true));
    assert_eq!(by_path("in=all out=wan", "br7", "ppp0"), one_way(true));
    assert_eq!(
        by_path("in=lan out=wan", "br7", "ppp0"),
        Attribution::Foreign
    );
    assert_eq!(by_path("out=wan", "br0", "tun0"), Attribution::Foreign);
    assert_eq!(by_path("out=wan", "", ""), Attribution::Foreign);
    assert_eq!(
        by_path("out=wan from=10.0.0.0/8", "br0", "ppp0"),
        Attribution::Foreign
    );
}

#[test]
fn labels_of_two_interfaces_without_a_common_device_are_approximate() {
    let approximate =
        |words: &str, labels: &[u8]| match scope(words).attribute(&flow(HOST, FAR, labels)) {
            Attribution::Belongs(Belongs { approximate, .. }) => approximate,
            other => panic!("{other:?}"),
        };
    assert!(!approximate("out=wan", &[66, 65]));
    assert!(approximate("out=wan", &[66, 65, 69]));
    assert!(
        approximate("in=wan", &[66, 65, 69]),
        "replies arrive where the first packets left"
    );
    assert!(
        !approximate("out=wan,tunnel", &[66, 65, 69]),
        "a member either way"
    );
    assert!(
        !approximate("in=lan", &[66, 70, 65]),
        "both have the device"
    );
    assert!(
        !approximate("out=wan", &[66, 68, 65]),
        "the other side contradicts itself"
    );
}

#[test]
fn a_host_is_in_a_subnet_else_the_routers_else_not_facing_the_interface() {
    let host = |words: &str, sender: &str, receiver: &str| {
        scope(words)
            .host(address(sender), address(receiver))
            .to_string()
    };
    assert_eq!(host("out=wan", FAR, HOST), HOST);
    assert_eq!(host("in=wan", HOST, UPLINK), HOST);
    assert_eq!(host("in=wan", FAR, UPLINK), UPLINK);
    assert_eq!(host("in=wan", FAR, "10.9.9.9"), "10.9.9.9");
    assert_eq!(host("out=wan", "10.9.9.9", FAR), "10.9.9.9");
    assert_eq!(host("from=10.9.0.0/16", "10.9.9.9", FAR), "10.9.9.9");
    assert_eq!(host("to=10.9.0.0/16", FAR, "10.9.9.9"), "10.9.9.9");
}

#[test]
fn an_account_that_goes_on_elsewhere_takes_other_flows_and_knows_its_hosts() {
    let first = scope("from=10.9.1.0/24");
    let elsewhere = CONFIG.replace("192.168.1.0/24", "192.168.2.0/24");
    let later = scope_in(&elsewhere, "from=10.9.2.0/24", "192.168.2.1");
    assert!(!first.judges_as(&later) && first.judges_as(&first.clone()));
    let later = later.after(&first);
    let belongs = |opener: &str| later.attribute(&flow(opener, FAR, &[])) != Attribution::Foreign;
    assert!(belongs("10.9.2.5") && !belongs("10.9.1.5"));
    for inside in [HOST, "192.168.2.5"] {
        let host = later.host(address(FAR), address(inside));
        assert_eq!(host, address(inside));
    }
    assert!(later.is_own(address(ROUTER)) && later.is_own(address("192.168.2.1")));
}

#[test]
fn who_was_in_a_subnet_that_is_none_any_more_is_outside_in_an_account_that_goes_on() {
    let more = CONFIG.replace("[subnets]", "[subnets]\nfar = [\"203.0.113.0/24\"]");
    assert_ne!(more, CONFIG);
    let first = scope_in(&more, "out=wan", ROUTER);
    assert_eq!(first.host(address(HOST), address(FAR)), address(FAR));
    let later = scope_in(CONFIG, "out=wan", ROUTER).after(&first);
    assert_eq!(later.host(address(HOST), address(FAR)), address(HOST));
}

#[test]
fn where_both_ends_are_inside_it_is_the_sender_of_what_arrives_and_the_receiver_of_what_leaves() {
    for (words, expected) in [
        ("in=lan", HOST),
        ("from=192.168.1.0/24", HOST),
        ("out=lan", ROUTER),
        ("to=192.168.1.0/24", ROUTER),
    ] {
        assert_eq!(
            scope(words)
                .host(address(HOST), address(ROUTER))
                .to_string(),
            expected,
            "{words}"
        );
    }
}
