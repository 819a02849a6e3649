//! `systemctl reload` under traffic: it returns when the new configuration counts, fails with the reason when there is
//! one, and costs not one packet either way.

use crate::router::{CONFIG, Place, Router, counter, said, scenes};

scenes!(
    a_reload_adds_a_counter_and_misses_nothing,
    a_reload_of_a_broken_file_fails_with_the_reason_and_changes_nothing,
);

fn a_reload_adds_a_counter_and_misses_nothing(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let pid = router.shown("MainPID");
    let handle = router.handle();
    let upload = router.stream(16e6);
    router.while_totals_only_grow(|| {
        for round in 0..5 {
            let more =
                format!("{CONFIG}[counters.added_{round}]\nfrom = \"home\"\nout = \"wan\"\n");
            router.configure(&more);
            router.systemctl(&["reload", "flowctl"]);
            // At once: who reloads may rely on it.
            let name = format!("added_{round}");
            assert_eq!(counter(&router.status(), &name).resets, 0);
        }
    });
    assert!(counter(&router.settle(), "added_4").bytes > 0);
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
    assert_eq!((router.shown("MainPID"), router.handle()), (pid, handle));
    assert_eq!(router.shown("NRestarts"), "0");
    assert!(router.journal().contains("added_4"));
}

fn a_reload_of_a_broken_file_fails_with_the_reason_and_changes_nothing(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let pid = router.shown("MainPID");
    let upload = router.stream(8e6);
    let broken = CONFIG.replace("10.77.1.0/24", "10.77.1.1/24");
    router.configure(&format!(
        "{broken}[thresholds.full]\ncounter = \"wna_out\"\nraise = \"5\"\n"
    ));
    let reload = router.try_systemctl(&["reload", "flowctl"]);
    assert!(!reload.status.success(), "{}", said(&reload));
    let page = said(&router.try_systemctl(&["status", "flowctl"]));
    let reasons = [
        ("subnets.home", "10.77.1.0/24"),
        ("thresholds.full.counter", "wan_out"),
        ("thresholds.full.raise", "Mbit/s"),
    ];
    for (key, remedy) in reasons {
        let told = page
            .lines()
            .any(|line| line.contains(key) && line.contains(remedy));
        assert!(told, "{key}, {remedy}: {page}");
    }
    assert_eq!(router.shown("ActiveState"), "active");
    assert_eq!(router.shown("MainPID"), pid);
    assert_eq!(router.status().counters.len(), 4);
    router.configure(CONFIG);
    router.systemctl(&["reload", "flowctl"]);
    assert_eq!(router.shown("MainPID"), pid);
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
}
