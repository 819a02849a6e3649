//! What is left when flowctl goes: nothing in the kernel and nothing in /run, whether the service was stopped before or
//! runs; the totals stay.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::machine::eventually;
use crate::router::{CONFIG, Place, Router, said, scenes};

scenes!(
    a_stop_leaves_the_table_counting_and_a_remove_leaves_nothing,
    a_remove_ends_the_running_service_for_good,
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

fn a_stop_leaves_the_table_counting_and_a_remove_leaves_nothing(place: Place) {
    let Some(router) = Router::boot(place, &config()) else {
        return;
    };
    let (ruleset, sysctls) = (router.ruleset_of_others(), router.sysctls());
    router.systemctl(&["start", "flowctl"]);
    assert!(router.machine.path("/run/flowctl/control.sock").exists());
    router.systemctl(&["stop", "flowctl"]);
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
    let kept = router.machine.path("/var/lib/private/flowctl/totals.json");
    assert!(fs::metadata(kept).unwrap().len() > 0);
}

fn a_remove_ends_the_running_service_for_good(place: Place) {
    let Some(router) = Router::boot(place, &config()) else {
        return;
    };
    let (ruleset, sysctls) = (router.ruleset_of_others(), router.sysctls());
    router.systemctl(&["start", "flowctl"]);
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
    crate::machine::pause(std::time::Duration::from_secs(2));
    assert_eq!(router.shown("ActiveState"), "inactive");
    assert_eq!(router.shown("Result"), "success");
    assert_eq!(router.shown("NRestarts"), "0");
    assert_eq!(router.shown("NFileDescriptorStore"), "0");
    assert_eq!(router.nft(&["list", "ruleset"]), ruleset);
    assert!(!router.machine.path("/run/flowctl").exists());
}
