//! A start that cannot succeed ends at once, for good, and says why where an operator looks first.

use std::time::Duration;

use flowctl::lab::clock;

use crate::router::{CONFIG, Place, Router, said, scenes};
use crate::waiting::pause;

scenes!(
    a_start_with_a_bad_configuration_fails_for_good_and_says_why,
    a_start_without_the_capability_fails_for_good_and_says_which,
);

impl Router {
    /// Starts it, which fails with that exit code and stays so; returns what `systemctl status` says of it.
    fn fail(&self, code: &str) -> String {
        let began = clock::uptime();
        let started = self.try_systemctl(&["start", "flowctl"]);
        assert!(!started.status.success());
        assert!(clock::uptime().since(began) < Duration::from_secs(5));
        // Longer than a restart would take.
        pause(Duration::from_secs(4));
        assert_eq!(self.shown("ActiveState"), "failed");
        assert_eq!(self.shown("ExecMainStatus"), code);
        assert_eq!(self.shown("NRestarts"), "0");
        assert_eq!(self.nft(&["list", "ruleset"]), "");
        said(&self.try_systemctl(&["status", "flowctl"]))
    }
}

fn a_start_with_a_bad_configuration_fails_for_good_and_says_why(place: Place) {
    let broken = CONFIG.replace("10.77.1.0/24", "10.77.1.1/24");
    let Some(router) = Router::boot(place, &broken) else {
        return;
    };
    let page = router.fail("78");
    for wanted in ["flowctl.toml:6:", "subnets.home", "10.77.1.0/24"] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    router.configure(CONFIG);
    router.systemctl(&["start", "flowctl"]);
    assert_eq!(router.status().counters.len(), 4);
}

fn a_start_without_the_capability_fails_for_good_and_says_which(place: Place) {
    let Some(router) = Router::boot(place, CONFIG) else {
        return;
    };
    router.amend("[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n");
    let page = router.fail("77");
    assert!(page.contains("CAP_NET_ADMIN"), "{page}");
}
