//! The commands as an operator types them: what they print, leave behind, and exit with.

use crate::support::{Bench, namespace};

const CONFIG: &str = r#"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.77.1.0/24", "fd77:1::/64"]
"#;

#[test]
fn run_then_remove_leaves_the_ruleset_as_it_was() {
    let Some(namespace) = namespace() else { return };
    let bench = Bench::new(&namespace, CONFIG);
    bench.nft(&["add", "table", "inet", "firewall"]);
    bench.nft(&["add", "counter", "inet", "firewall", "mine"]);
    let before = bench.nft(&["list", "ruleset"]);
    let daemon = bench.start();
    assert_eq!(
        bench.flowctl(&["run"]).status.code(),
        Some(75),
        "a second instance"
    );
    assert!(
        bench
            .nft(&["list", "ruleset"])
            .contains("table inet flowctl")
    );
    daemon.kill();
    assert_eq!(
        bench.flowctl(&["status"]).status.code(),
        Some(3),
        "no daemon"
    );
    assert!(
        bench.nft(&["list", "ruleset"]).contains("counter wan_in"),
        "it goes on counting"
    );
    assert_eq!(bench.flowctl(&["remove"]).status.code(), Some(0));
    assert_eq!(bench.nft(&["list", "ruleset"]), before);
}
