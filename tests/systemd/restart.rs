//! The end of the process and its next beginning, wanted or not, under traffic and while another program flushes the
//! ruleset all the time: the table is always somebody's, and not one packet is missed.

use std::fs;
use std::time::Duration;

use flowctl::event::Event;

use crate::router::{CONFIG, Place, Router, counter, scenes};
use crate::waiting::{eventually, pause};

scenes!(
    restarts_while_others_flush_the_ruleset_miss_nothing,
    kills_while_others_flush_the_ruleset_miss_nothing,
    a_service_that_hangs_is_killed_and_started_again_and_misses_nothing,
    what_passes_while_the_service_is_stopped_is_counted,
    a_restart_into_another_table_lets_go_of_the_one_that_was_kept,
);

const STOP: &str = "/run/stop-flushing";
const FLUSHES: &str = "/run/flushes";

impl Router {
    /// Another program flushes the ruleset as fast as it can while `work` goes on.
    fn while_others_flush(&self, work: impl FnOnce()) {
        self.nft(&["add", "table", "inet", "of_others"]);
        let flush = format!(
            "n=0; until [ -e {STOP} ]; do nft flush ruleset && n=$((n + 1)); echo $n >{FLUSHES}; done"
        );
        let mut flushing = self.machine.command(&["sh", "-c", &flush]).spawn().unwrap();
        self.await_flushes(3);
        work();
        self.await_flushes(3);
        fs::write(self.machine.path(STOP), "").unwrap();
        assert!(flushing.wait().unwrap().success());
        let tables = self.nft(&["list", "tables"]);
        assert_eq!(tables, "table inet flowctl\n");
    }

    fn await_flushes(&self, more: u32) {
        let path = self.machine.path(FLUSHES);
        let flushes = || fs::read_to_string(&path).ok()?.trim().parse::<u32>().ok();
        let before = flushes().unwrap_or(0);
        eventually("the ruleset is flushed", || {
            flushes().filter(|now| *now >= before + more)
        });
    }

    /// Waits for another process of the service than that; returns it.
    fn await_another_than(&self, pid: &str) -> String {
        eventually("the service is started again", || {
            let now = self.shown("MainPID");
            let active = self.shown("ActiveState") == "active";
            (active && now != pid && now != "0").then_some(now)
        })
    }

    fn assert_no_gap(&self) {
        let gaps = |event: &Event| matches!(event, Event::Gap { .. } | Event::Reset { .. });
        let records = self.records();
        assert!(
            !records.iter().any(|record| gaps(&record.event)),
            "{records:#?}"
        );
    }
}

fn restarts_while_others_flush_the_ruleset_miss_nothing(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let handle = router.handle();
    let mut pid = router.shown("MainPID");
    let upload = router.stream(16e6);
    router.while_others_flush(|| {
        router.while_totals_only_grow(|| {
            for _ in 0..4 {
                router.systemctl(&["restart", "flowctl"]);
                let now = router.shown("MainPID");
                assert_ne!(now, pid);
                pid = now;
                assert_eq!(router.shown("NFileDescriptorStore"), "1");
            }
        });
    });
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
    assert_eq!(router.handle(), handle);
    router.assert_no_gap();
}

fn kills_while_others_flush_the_ruleset_miss_nothing(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let handle = router.handle();
    let upload = router.stream(16e6);
    let mut pid = router.shown("MainPID");
    router.while_others_flush(|| {
        router.while_totals_only_grow(|| {
            for _ in 0..2 {
                pause(Duration::from_millis(150));
                router.systemctl(&["kill", "--signal=KILL", "flowctl"]);
                pid = router.await_another_than(&pid);
            }
        });
    });
    assert_eq!(router.shown("NRestarts"), "2");
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
    assert_eq!(router.handle(), handle);
    router.assert_no_gap();
}

fn a_service_that_hangs_is_killed_and_started_again_and_misses_nothing(place: Place) {
    let Some(router) = Router::boot(place, CONFIG) else {
        return;
    };
    router.amend("[Service]\nWatchdogSec=1s\n");
    router.systemctl(&["start", "flowctl"]);
    let (pid, handle) = (router.shown("MainPID"), router.handle());
    let upload = router.stream(8e6);
    router.systemctl(&["kill", "--signal=STOP", "flowctl"]);
    router.await_another_than(&pid);
    let journal = router.journal();
    assert!(journal.contains("Watchdog timeout"), "{journal}");
    assert_eq!(router.shown("NRestarts"), "1");
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
    assert_eq!(router.handle(), handle);
    router.assert_no_gap();
}

fn what_passes_while_the_service_is_stopped_is_counted(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let handle = router.handle();
    let upload = router.stream(8e6);
    router.while_totals_only_grow(|| {
        for _ in 0..2 {
            router.systemctl(&["stop", "flowctl"]);
            assert_eq!(router.shown("NFileDescriptorStore"), "0");
            pause(Duration::from_millis(300));
            router.systemctl(&["start", "flowctl"]);
            assert_eq!(router.shown("NFileDescriptorStore"), "1");
            pause(Duration::from_millis(300));
        }
    });
    router.assert_nothing_missed(upload, &["home_from", "wan_out"]);
    assert_eq!(router.handle(), handle);
    router.assert_no_gap();
}

fn a_restart_into_another_table_lets_go_of_the_one_that_was_kept(place: Place) {
    let Some(router) = Router::start(place, CONFIG) else {
        return;
    };
    let mut counted = router.count_some();
    let changes = [
        ("table.name = \"accounting\"", "accounting", "1"),
        (
            "table = { name = \"accounting\", protect = \"off\" }",
            "accounting",
            "0",
        ),
        ("", "flowctl", "1"),
        ("table.protect = \"off\"", "flowctl", "0"),
    ];
    // systemd refuses the sixth start within ten seconds.
    for (change, table, stored) in changes {
        router.configure(&format!("{change}\n{CONFIG}"));
        router.systemctl(&["restart", "flowctl"]);
        assert_eq!(router.total(), counted, "{change}");
        assert_eq!(router.shown("NFileDescriptorStore"), stored, "{change}");
        let tables = router.nft(&["list", "tables"]);
        assert_eq!(tables, format!("table inet {table}\n"), "{change}");
        counted += router.count_some();
        let report = router.settle();
        assert_eq!(counter(&report, "home_from").bytes, counted, "{change}");
    }
    assert_eq!(router.shown("NRestarts"), "0");
}
