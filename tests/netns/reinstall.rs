//! An install where the table is already in force is invisible to traffic: at full speed not one packet is missed.

use std::time::Duration;

use flowctl::config::{Format, parse};
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::{Direction, Ends, Family, Generator, LabOptions, UdpLoad};
use flowctl::plan;
use flowctl::units::TableFamily;

use crate::support::lab;

const CONFIG: &str = r#"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.77.1.0/24", "fd77:1::/64"]
[counters.home_to_wan]
from = "home"
out = "wan"
"#;

#[test]
fn installs_under_load_miss_no_packet() {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let ruleset = plan::compile(&parse(CONFIG, Format::Toml).unwrap());
    let mut nftables = lab.router.run(|| Nftables::open().unwrap()).unwrap();
    nftables.install(&ruleset).unwrap();
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9));
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 64,
        rate: None,
        datagrams: 200_000,
        longest: Duration::from_secs(60),
    };
    let upload = Generator::udp("upload", &ends, &load).unwrap();
    let mut installs = 0;
    while !upload.is_finished() {
        nftables.install(&ruleset).unwrap();
        installs += 1;
    }
    let sent = upload.finish().unwrap().up.sent;
    assert!(installs > 20, "{installs} installs");
    for wanted in ["home_from", "wan_out", "home_to_wan"] {
        let mut counted = 0;
        let mut take = |record: flowctl::kernel::nft::CounterRecord<'_>| {
            if record.name == wanted.as_bytes() {
                counted = record.packets;
            }
        };
        nftables
            .counters(TableFamily::Inet, "flowctl", &mut take)
            .unwrap();
        assert_eq!(counted, sent.packets, "{wanted}, {installs} installs");
    }
}
