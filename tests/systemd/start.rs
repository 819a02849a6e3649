//! A start is over when the first reading is done; systemd knows what goes on, and lets the service do little else.

use std::time::Duration;

use flowctl::kernel::nft::Protection;
use flowctl::report::{Health, Severity};

use crate::machine::Files;
use crate::router::{CONFIG, Place, Router, said, scenes};
use crate::waiting::pause;

scenes!(
    a_start_returns_when_it_counts,
    a_machine_that_has_booted_counts_and_is_ready_for_drilldowns,
    the_sandbox_leaves_little_open,
    a_service_with_a_long_tick_is_not_taken_for_a_dead_one,
);

fn a_start_returns_when_it_counts(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let report = router.status();
    let upload = router.stream(8e6);
    assert_eq!(router.shown("Type"), "notify");
    assert_eq!(router.shown("ActiveState"), "active");
    assert_eq!(router.shown("MainPID"), report.pid.to_string());
    assert_eq!(router.shown("NRestarts"), "0");
    let stored = match report.table.protection {
        Protection::Plain | Protection::Static => "0",
        Protection::Owned => "1",
    };
    assert_eq!(router.shown("NFileDescriptorStore"), stored);
    let told = router.shown("StatusText");
    assert!(told.contains("4 counters"), "{told}");
    let page = router.systemctl(&["status", "flowctl"]);
    assert!(page.contains(&format!("Status: \"{told}\"")), "{page}");
    pause(Duration::from_millis(500));
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
}

fn a_machine_that_has_booted_counts_and_is_ready_for_drilldowns(place: Place) {
    let threshold = "[thresholds.busy]\ncounter = \"home_from\"\nraise = \"1Gbit/s\"\n";
    let enable = |files: &Files| {
        let wanted = "etc/systemd/system/multi-user.target.wants/flowctl.service";
        files.link(wanted, &format!("/{}", place.1.path()));
    };
    let Some(router) = Router::boot_with(place, &format!("{CONFIG}{threshold}"), enable) else {
        return;
    };
    assert_eq!(router.shown("ActiveState"), "active");
    assert_eq!(router.shown("NRestarts"), "0");
    let health = router.status().health;
    let informs = |entry: &Health| entry.severity == Severity::Info;
    assert!(health.iter().all(informs), "{health:?}");
    let said_at_boot = ["journalctl", "--no-pager", "--boot", "--output=cat"];
    let said_at_boot = said(&router.machine.run(&said_at_boot));
    assert!(said_at_boot.contains("Reached target"), "{said_at_boot}");
    assert!(!said_at_boot.contains("ordering cycle"), "{said_at_boot}");
}

fn the_sandbox_leaves_little_open(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let unit = "flowctl.service";
    let output = router.machine.run(&[
        "systemd-analyze",
        "--no-pager",
        "security",
        "--threshold=19",
        unit,
    ]);
    assert!(output.status.success(), "{}", said(&output));
    let verified = router
        .machine
        .run(&["systemd-analyze", "verify", "--man=no", unit]);
    assert_eq!(said(&verified), "");
    assert!(verified.status.success());
    let pid = router.shown("MainPID");
    let status = std::fs::read_to_string(router.machine.path(&format!("/proc/{pid}/status")));
    let status = status.unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().trim().to_owned()
    };
    // CAP_NET_ADMIN is the twelfth.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(field(set), "0000000000001000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
    assert_eq!(field("Seccomp:"), "2");
    let user = field("Uid:");
    assert!(!user.split_whitespace().any(|uid| uid == "0"), "{user}");
}

fn a_service_with_a_long_tick_is_not_taken_for_a_dead_one(place: Place) {
    let Some(router) = Router::boot(place, &CONFIG.replace("100ms", "1h")) else {
        return;
    };
    router.amend("[Service]\nWatchdogSec=1s\n");
    router.systemctl(&["start", "flowctl"]);
    let pid = router.shown("MainPID");
    pause(Duration::from_secs(4));
    assert_eq!(router.shown("MainPID"), pid);
    assert_eq!(router.shown("NRestarts"), "0");
    assert_eq!(router.shown("WatchdogUSec"), "1s");
}
