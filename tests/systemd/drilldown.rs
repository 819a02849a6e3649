//! Within its sandbox the service names who crossed a threshold; what conntrack keeps for that was set at boot.

use std::time::Duration;

use flowctl::event::Event;
use flowctl::report::Severity;

use crate::router::{CONFIG, Place, Router, scenes};
use crate::waiting::{eventually, pause};

scenes!(a_verdict_names_the_host_from_within_the_sandbox);

fn a_verdict_names_the_host_from_within_the_sandbox(place: Place) {
    let threshold = "[thresholds.busy]\ncounter = \"home_from\"\nraise = \"1Mbit/s\"\nhold = \"400ms\"\nrelease = \"400ms\"\n";
    let Some(router) = Router::start(place, &format!("{CONFIG}{threshold}")) else {
        return;
    };
    for (name, wanted) in [("acct", "1"), ("timestamp", "1"), ("events", "1")] {
        let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        let found = router.machine.run(&["cat", &path]).stdout;
        assert_eq!(String::from_utf8(found).unwrap().trim(), wanted, "{name}");
    }
    let health = router.status().health;
    assert!(
        health.iter().all(|entry| entry.severity == Severity::Info),
        "{health:?}"
    );
    let upload = router.stream(8e6);
    pause(Duration::from_millis(1500));
    upload.stop();
    let sent = upload.finish().unwrap().up.sent.bytes;
    let verdict = eventually("the verdict", || {
        router
            .records()
            .into_iter()
            .find_map(|record| match record.event {
                Event::Verdict(verdict) => Some(*verdict),
                _ => None,
            })
    });
    let lab = &router.lab;
    assert_eq!(verdict.found.hosts[0].address, lab.lan[0].v4);
    assert_eq!(verdict.found.hosts[0].bytes, sent);
    assert_eq!(verdict.counted_bytes, Some(sent));
    assert_eq!(verdict.coverage, Some(1.0), "{verdict:#?}");
}
