//! A router on which the firewall's service alone changes the ruleset: it loads flowctl's rules at boot with its own, and
//! flowctl counts by them from then on and changes nothing.

use std::process::Command;
use std::time::Duration;

use flowctl::event::Event;
use flowctl::kernel::nft::Protection;

use crate::flush::{RULES, UNIT};
use crate::machine::Files;
use crate::router::{CONFIG, Place, Router, counter, said, scenes};
use crate::waiting::pause;

scenes!(rules_that_are_loaded_at_boot_are_used_and_never_changed);

/// A machine whose firewall loads flowctl's rules too, and that starts both services.
fn prepare(files: &Files, place: Place, config: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flowctl.toml");
    std::fs::write(&file, config).unwrap();
    let printed = Command::new(env!("CARGO_BIN_EXE_flowctl"))
        .args(["plan", "--format", "nft", "--config"])
        .arg(file)
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", said(&printed));
    let rules = String::from_utf8(printed.stdout).unwrap();
    files.write("etc/firewall.nft", &format!("{RULES}{rules}"));
    files.write("etc/systemd/system/nftables.service", UNIT);
    let wants = "etc/systemd/system/multi-user.target.wants";
    let units = [place.1.path(), "etc/systemd/system/nftables.service"];
    for unit in units {
        let (_, name) = unit.rsplit_once('/').unwrap();
        files.link(&format!("{wants}/{name}"), &format!("/{unit}"));
    }
}

fn rules_that_are_loaded_at_boot_are_used_and_never_changed(place: Place) {
    let config = format!("table.static = true\n{CONFIG}");
    let booted = Router::boot_with(place, &config, |files| prepare(files, place, &config));
    let Some(router) = booted else {
        return;
    };
    // Their handles, and nothing that they counted.
    let ruleset = || router.nft(&["--stateless", "--handle", "list", "ruleset"]);
    let loaded = ruleset();
    assert!(loaded.contains("table inet filter"), "{loaded}");
    let report = router.status();
    assert_eq!(report.table.protection, Protection::Static);
    assert_eq!(router.shown("NFileDescriptorStore"), "0");
    let mut counted = router.count_some();
    assert_eq!(counter(&router.settle(), "home_from").bytes, counted);
    router.systemctl(&["restart", "flowctl"]);
    router.systemctl(&["stop", "flowctl"]);
    counted += router.count_some();
    router.systemctl(&["start", "flowctl"]);
    assert_eq!(router.total(), counted);
    assert_eq!(ruleset(), loaded);
    let upload = router.stream(8e6);
    router.while_totals_only_grow(|| {
        for _ in 0..3 {
            pause(Duration::from_millis(200));
            router.systemctl(&["reload", "nftables"]);
        }
        pause(Duration::from_millis(200));
    });
    upload.stop();
    let sent = counted + upload.finish().unwrap().up.sent.bytes;
    let report = router.settle();
    let missed = sent - counter(&report, "home_from").bytes;
    let gaps = router
        .records()
        .into_iter()
        .filter_map(|record| match record.event {
            Event::Gap { bound_bytes, .. } => bound_bytes,
            _ => None,
        });
    let gaps: Vec<u64> = gaps.collect();
    assert_eq!(gaps.len(), 3, "{gaps:?}");
    let stated = gaps.iter().sum();
    assert!(missed <= stated, "{missed} missed, {stated} stated");
    assert_eq!(router.shown("NRestarts"), "0");
}
