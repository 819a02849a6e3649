//! A firewall service that flushes the whole ruleset on every start, reload and stop, as NixOS' does: a protected table
//! does not notice, one that is not is repaired, and what that may have cost is stated.

use std::fs;
use std::time::Duration;

use flowctl::event::Event;

use crate::router::{CONFIG, Place, Router, counter, scenes};
use crate::waiting::{eventually, pause};

scenes!(
    a_protected_table_outlives_a_firewall_that_flushes,
    an_unprotected_table_is_repaired_after_a_firewall_flushed_and_the_gap_is_stated,
);

pub const UNIT: &str = "[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/firewall.nft
ExecReload=/usr/sbin/nft -f /etc/firewall.nft
ExecStop=/usr/sbin/nft flush ruleset
";
pub const RULES: &str = "flush ruleset
table inet filter {
    chain forward { type filter hook forward priority 0; policy accept; }
}
";

impl Router {
    /// All that the firewall's operator may do, each a flush.
    fn firewall(&self) {
        fs::write(self.machine.path("/etc/firewall.nft"), RULES).unwrap();
        let unit = self.machine.path("/etc/systemd/system/nftables.service");
        fs::write(unit, UNIT).unwrap();
        self.systemctl(&["daemon-reload"]);
        for verb in ["start", "reload", "restart", "stop", "start"] {
            self.systemctl(&[verb, "nftables"]);
            pause(Duration::from_millis(300));
        }
        assert!(self.nft(&["list", "tables"]).contains("table inet filter"));
    }
}

fn a_protected_table_outlives_a_firewall_that_flushes(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let handle = router.handle();
    let upload = router.stream(8e6);
    router.while_totals_only_grow(|| router.firewall());
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
    assert_eq!(router.handle(), handle);
    assert_eq!(router.shown("NRestarts"), "0");
}

fn an_unprotected_table_is_repaired_after_a_firewall_flushed_and_the_gap_is_stated(place: Place) {
    let Some(router) = Router::start(place, &format!("table.protect = \"off\"\n{CONFIG}")) else {
        return;
    };
    assert_eq!(router.shown("NFileDescriptorStore"), "0");
    let upload = router.stream(8e6);
    router.while_totals_only_grow(|| router.firewall());
    upload.stop();
    let sent = upload.finish().unwrap().up.sent;
    let report = router.settle();
    assert!(report.table.repairs >= 4, "{:?}", report.table);
    let counted = counter(&report, "home_from").bytes;
    let missed = sent.bytes - counted;
    let stated: u64 = eventually("the gaps are in the log", || {
        let gaps = router
            .records()
            .into_iter()
            .filter_map(|record| match record.event {
                Event::Gap { bound_bytes, .. } => bound_bytes,
                _ => None,
            });
        let gaps: Vec<u64> = gaps.collect();
        (gaps.len() as u64 == report.table.repairs).then(|| gaps.iter().sum())
    });
    assert!(missed <= stated, "{missed} missed, {stated} stated");
    assert!(counted > sent.bytes / 2, "{counted} of {}", sent.bytes);
    let more = router.stream(8e6);
    pause(Duration::from_millis(300));
    more.stop();
    let more = more.finish().unwrap().up.sent.bytes;
    assert_eq!(counter(&router.settle(), "home_from").bytes, counted + more);
}
