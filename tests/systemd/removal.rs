//! What is left when flowctl goes: nothing in the kernel and nothing in /run, whether the service was stopped before or
//! runs; the totals stay.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::router::{CONFIG, Place, Router, counter, said, scenes};
use crate::waiting::{eventually, pause};

scenes!(
    a_stop_leaves_the_table_counting_and_a_remove_leaves_nothing,
    a_remove_ends_the_running_service_for_good,
    a_remove_while_systemd_starts_it_again_says_to_stop_it_first,
    a_run_by_root_does_not_shut_the_service_out,
);

/// Asks for a drilldown, so that conntrack is wanted too.
fn config() -> String {
    format!("{CONFIG}[thresholds.full]\ncounter = \"wan_out\"\nraise = \"1Gbit/s\"\n")
}

impl Router {
    /// All sysctls of the network that can be read, but those that count.
    fn sysctls(&self) -> BTreeMap<PathBuf, String> {
        let mut values = BTreeMap::new();
        let listing =
            self.machine
                .run(&["sh", "-c", "cd /proc/sys/net && grep -r . . 2>/dev/null"]);
        for line in String::from_utf8_lossy(&listing.stdout).lines() {
            let (path, value) = line.split_once(':').unwrap();
            values.insert(PathBuf::from(path), value.to_owned());
        }
        values.retain(|path, _| !path.ends_with("nf_conntrack_count"));
        assert!(values.len() > 100, "{}", values.len());
        values
    }

    /// A table of somebody else, with a rule, and all there is.
    fn ruleset_of_others(&self) -> String {
        self.nft(&["add", "table", "ip", "others"]);
        let chain = "add chain ip others c { type filter hook input priority 0; }";
        self.nft(&[chain]);
        self.nft(&[
            "add", "rule", "ip", "others", "c", "tcp", "dport", "22", "accept",
        ]);
        self.nft(&["list", "ruleset"])
    }
}

impl Router {
    /// Starts it again: with the totals it had, whoever wrote them last.
    fn assert_goes_on_from(&self, total: u64) {
        self.systemctl(&["start", "flowctl"]);
        assert_eq!(self.total(), total);
        assert!(!self.records().is_empty());
        let more = self.count_some();
        assert_eq!(counter(&self.settle(), "home_from").bytes, total + more);
    }
}

fn a_stop_leaves_the_table_counting_and_a_remove_leaves_nothing(place: Place) {
    let Some(router) = Router::boot(place, &config()) else {
        return;
    };
    let (ruleset, sysctls) = (router.ruleset_of_others(), router.sysctls());
    router.systemctl(&["start", "flowctl"]);
    assert!(router.machine.path("/run/flowctl/control.sock").exists());
    let counted = router.count_some();
    router.systemctl(&["stop", "flowctl"]);
    let counted = counted + router.count_some();
    assert!(
        router
            .nft(&["list", "ruleset"])
            .contains("table inet flowctl")
    );
    assert!(!router.machine.path("/run/flowctl").exists());
    assert_eq!(router.shown("NFileDescriptorStore"), "0");
    let removed = router.flowctl(&["remove"]);
    assert!(removed.status.success(), "{}", said(&removed));
    assert_eq!(router.nft(&["list", "ruleset"]), ruleset);
    assert_eq!(router.sysctls(), sysctls);
    assert_eq!(router.shown("ActiveState"), "inactive");
    router.assert_goes_on_from(counted);
}

fn a_remove_ends_the_running_service_for_good(place: Place) {
    let Some(router) = Router::boot(place, &config()) else {
        return;
    };
    let (ruleset, sysctls) = (router.ruleset_of_others(), router.sysctls());
    router.systemctl(&["start", "flowctl"]);
    let counted = router.count_some();
    let removed = router.flowctl(&["remove"]);
    assert!(removed.status.success(), "{}", said(&removed));
    let told = ["stopped the daemon", "removed table inet flowctl"];
    assert!(
        told.iter().all(|told| said(&removed).contains(told)),
        "{}",
        said(&removed)
    );
    assert_eq!(router.nft(&["list", "ruleset"]), ruleset);
    assert_eq!(router.sysctls(), sysctls);
    eventually("systemd has seen the end", || {
        (router.shown("ActiveState") == "inactive").then_some(())
    });
    // Longer than a restart would take.
    pause(Duration::from_secs(4));
    assert_eq!(router.shown("ActiveState"), "inactive");
    assert_eq!(router.shown("Result"), "success");
    assert_eq!(router.shown("NRestarts"), "0");
    assert_eq!(router.shown("NFileDescriptorStore"), "0");
    assert_eq!(router.nft(&["list", "ruleset"]), ruleset);
    assert!(!router.machine.path("/run/flowctl").exists());
    router.assert_goes_on_from(counted);
}

fn a_remove_while_systemd_starts_it_again_says_to_stop_it_first(place: Place) {
    let Some(router) = Router::boot(place, &config()) else {
        return;
    };
    let ruleset = router.ruleset_of_others();
    router.amend("[Service]\nRestartSec=1h\n");
    router.systemctl(&["start", "flowctl"]);
    let counted = router.count_some();
    router.settle();
    router.systemctl(&["kill", "--signal=KILL", "flowctl"]);
    eventually("systemd has seen the end", || {
        (router.shown("SubState") == "auto-restart").then_some(())
    });
    let refused = router.flowctl(&["remove"]);
    assert_eq!(refused.status.code(), Some(75), "{}", said(&refused));
    assert!(
        said(&refused).contains("`systemctl stop flowctl`"),
        "{}",
        said(&refused)
    );
    router.systemctl(&["stop", "flowctl"]);
    let removed = router.flowctl(&["remove"]);
    assert!(removed.status.success(), "{}", said(&removed));
    assert_eq!(router.nft(&["list", "ruleset"]), ruleset);
    router.assert_goes_on_from(counted);
}

fn a_run_by_root_does_not_shut_the_service_out(place: Place) {
    let Some(router) = Router::boot(place, CONFIG) else {
        return;
    };
    // Before systemd has made the directories that are private to the service, and after.
    let mut counted = 0;
    for _ in 0..2 {
        let run = [
            "timeout",
            "--preserve-status",
            "2",
            "flowctl",
            "run",
            "--socket=/run/f.sock",
        ];
        let mut run = router.machine.command(&run).spawn().unwrap();
        eventually("it runs", || {
            let status = router.flowctl(&["status", "--socket=/run/f.sock"]);
            status.status.success().then_some(())
        });
        counted += router.count_some();
        assert!(run.wait().unwrap().success());
        router.systemctl(&["start", "flowctl"]);
        assert_eq!(router.total(), counted);
        router.systemctl(&["stop", "flowctl"]);
    }
    router.assert_goes_on_from(counted);
}
