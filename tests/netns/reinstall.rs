//! What changes the table is invisible to traffic: at full speed not one packet of a counter that stays is missed.

use std::time::Duration;

use flowctl::config::{Format, parse};
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::{Direction, Ends, Family, Generator, LabOptions, UdpLoad};
use flowctl::plan;
use flowctl::plan::ruleset::Ruleset;
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

const HOME: &str = "home = [\"10.77.1.0/24\", \"fd77:1::/64\"]\n";

fn compile(text: &str) -> Ruleset {
    plan::compile(&parse(text, Format::Toml).unwrap())
}

/// Uploads while `act` is done again and again, and asserts that every packet is in these counters.
fn assert_none_missed(what: &str, mut act: impl FnMut(&mut Nftables, usize)) {
    let Some(lab) = lab(LabOptions::default()) else {
        return;
    };
    let mut nftables = lab.router.run(|| Nftables::open().unwrap()).unwrap();
    act(&mut nftables, 0);
    let ends = Ends::new(lab.lan[0].end(Family::V4, 0), lab.server(Family::V4, 0, 9));
    let load = UdpLoad {
        direction: Direction::Upload,
        payload: 64,
        rate: None,
        datagrams: 300_000,
        longest: Duration::from_secs(60),
    };
    let upload = Generator::udp("upload", &ends, &load).unwrap();
    let mut acts = 1;
    while !upload.is_finished() {
        act(&mut nftables, acts);
        acts += 1;
    }
    let sent = upload.finish().unwrap().up.sent;
    assert!(acts > 20, "{acts} times");
    for wanted in ["home_from", "wan_out", "home_to_wan"] {
        let counted = nftables.counter(TableFamily::Inet, "flowctl", wanted);
        let packets = counted.unwrap().unwrap().packets;
        assert_eq!(packets, sent.packets, "{what}: {wanted}, {acts} times");
    }
}

#[test]
fn installs_under_load_miss_no_packet() {
    let ruleset = compile(CONFIG);
    assert_none_missed("the same", |nftables, _| {
        nftables.install(&ruleset).unwrap();
    });
}

/// Where elements of counters that stay get another place.
fn others() -> [(&'static str, String); 4] {
    let with = |more: &str| CONFIG.replace(HOME, &format!("{HOME}{more}"));
    [
        (
            "a map becomes one of intervals",
            with("[interfaces.ppp]\ndevice = \"ppp*\"\n"),
        ),
        ("a prefix around", with("site = [\"10.0.0.0/8\"]\n")),
        ("a prefix beside", with("guests = [\"10.77.2.0/24\"]\n")),
        (
            "a wider prefix",
            CONFIG.replace("10.77.1.0/24", "10.77.0.0/16"),
        ),
    ]
}

#[test]
fn changes_under_load_miss_no_packet() {
    for (what, other) in others() {
        let variants = [CONFIG, &other].map(compile);
        assert_ne!(variants[0], variants[1], "{what}");
        let mut handle = 0;
        assert_none_missed(what, |nftables, times| {
            let [old, new] = [times + 1, times].map(|times| &variants[times % 2]);
            if times == 0 {
                handle = nftables.install(new).unwrap();
            } else {
                assert!(nftables.change(old, new, handle).unwrap());
            }
        });
    }
}

#[test]
fn installs_of_another_ruleset_under_load_miss_no_packet() {
    for (what, other) in others() {
        let variants = [CONFIG, &other].map(compile);
        assert_none_missed(what, |nftables, times| {
            nftables.install(&variants[times % 2]).unwrap();
        });
    }
}
