//! A start is over when the first reading is done, and systemd is told what goes on.

use crate::root::Suite;
use crate::router::{CONFIG, Router, counter};
use crate::unit::Unit;

#[test]
fn a_start_returns_when_it_counts() {
    let Some(router) = Router::start((Suite::Trixie, Unit::Plain), CONFIG) else {
        return;
    };
    assert_eq!(router.shown("ActiveState"), "active");
    let upload = router.stream(8e6);
    crate::machine::pause(std::time::Duration::from_secs(1));
    upload.stop();
    let sent = upload.finish().unwrap().up.sent;
    assert_eq!(counter(&router.settle(), "home_from").bytes, sent.bytes);
}
