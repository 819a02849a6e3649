//! The commands as an operator types them: what they print, leave behind, and exit with.

use std::process::{Command, Output};

use flowctl::lab::Namespace;
use flowctl::report::StateWord;

use crate::support::{Bench, by, lab, namespace, run_in, said};

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

#[test]
fn every_exit_code_means_what_the_contract_says() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    let code = |arguments: &[&str]| bench.flowctl(arguments).status.code();
    for command in ["check", "plan", "doctor"] {
        assert_eq!(code(&[command]), Some(0), "{command}");
    }
    assert_eq!(code(&["log"]), Some(1), "there is no log yet");
    assert_eq!(code(&["status"]), Some(3));
    assert_eq!(code(&["status", "--check"]), Some(3));
    assert_eq!(code(&["stauts"]), Some(64));
    assert_eq!(
        code(&["remove"]),
        Some(0),
        "nothing to remove is no failure"
    );
    assert_eq!(
        bench.nft(&["list", "ruleset"]),
        "",
        "none of these touched anything"
    );
    bench.configure("[interfaces.wan]\ndevice = 7\n");
    for command in ["check", "plan", "run", "status", "doctor", "log", "remove"] {
        assert_eq!(code(&[command]), Some(78), "{command} with a bad file");
    }
    std::fs::remove_file(bench.config()).unwrap();
    for command in ["check", "plan", "run", "status", "doctor", "log", "remove"] {
        assert_eq!(
            code(&[command]),
            Some(78),
            "{command} without the file that it was given"
        );
    }
}

#[test]
fn without_privilege_it_says_which_one_is_missing() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    for command in ["run", "doctor", "remove"] {
        let output = unprivileged(&namespace, bench.command(&[command]));
        assert_eq!(
            output.status.code(),
            Some(77),
            "{command}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains("CAP_NET_ADMIN"),
            "{command}: {}",
            said(&output)
        );
    }
    assert_eq!(bench.nft(&["list", "ruleset"]), "");
    assert!(!bench.state_dir().exists(), "nothing is left behind");
    let daemon = bench.start();
    let output = unprivileged(&namespace, bench.command(&["remove"]));
    assert_eq!(output.status.code(), Some(77));
    daemon.settle();
}

/// The same command without any capability, which root too may lack.
fn unprivileged(namespace: &Namespace, command: Command) -> Output {
    let dropped = by(
        &["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"],
        &command,
    );
    run_in(namespace, dropped)
}

#[test]
fn status_check_follows_the_thresholds_and_the_health() {
    let Some(lab) = lab(flowctl::lab::LabOptions::default()) else {
        return;
    };
    let config = |raise: &str| {
        format!(
            "tick = \"100ms\"\n{CONFIG}\n[thresholds.any]\ncounter = \"wan_out\"\nraise = \"{raise}\"\nrelease = \"60s\"\n"
        )
    };
    let bench = Bench::new(&lab.router, &config("1Gbit/s"));
    let daemon = bench.start();
    daemon.settle();
    let check = || bench.flowctl(&["status", "--check"]);
    assert_eq!(check().status.code(), Some(0), "{}", said(&check()));
    bench.configure(&config("0bit/s"));
    daemon.signal(rustix::process::Signal::HUP);
    daemon.await_record("a reload", |event| {
        matches!(event, flowctl::event::Event::Config { .. }).then_some(())
    });
    let ping = flowctl::lab::Ends::new(
        lab.router_end(flowctl::lab::Family::V4, 0),
        lab.server(flowctl::lab::Family::V4, 0, 9),
    );
    let load = flowctl::lab::UdpLoad {
        direction: flowctl::lab::Direction::Upload,
        payload: 10,
        rate: None,
        datagrams: 1,
        longest: std::time::Duration::from_secs(5),
    };
    flowctl::lab::Generator::udp("one", &ping, &load)
        .unwrap()
        .finish()
        .unwrap();
    daemon.await_state(StateWord::Clearing);
    assert_eq!(check().status.code(), Some(2), "clearing is not over yet");
}

#[test]
fn what_comes_from_a_file_reaches_the_terminal_without_control_characters() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(
        &namespace,
        "[interfaces.wan]\ndevice = \"a\\u001b[31m\\u202e\"\n\"k\\u0007\" = 1\n",
    );
    let output = bench.flowctl(&["check"]);
    assert_eq!(output.status.code(), Some(78));
    let printed = said(&output);
    let raw = printed
        .chars()
        .find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
    assert_eq!(raw, None, "{printed:?}");
    assert!(printed.contains("2 problems"), "{printed}");
    for arguments in [
        ["log", "--state-dir", "/a\x1b[31m\n"],
        ["status", "--socket", "/a\u{202e}\u{9b}31m"],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowctl"));
        command.args(arguments);
        let printed = said(&run_in(&namespace, command));
        let line = printed.strip_suffix('\n').unwrap();
        assert!(
            !line.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{printed:?}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let Some(namespace) = namespace() else {
        return;
    };
    let bench = Bench::new(&namespace, CONFIG);
    let mut shell = Command::new("sh");
    let plan = format!(
        "{} plan --config {} | head -n 1",
        env!("CARGO_BIN_EXE_flowctl"),
        bench.config().display()
    );
    shell.args(["-c", &plan]);
    let output = run_in(&namespace, shell);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "table inet flowctl {\n"
    );
}
