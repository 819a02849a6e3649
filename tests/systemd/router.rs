//! What the scenes share: a router of the lab that runs flowctl as a service, its operator, and traffic through it that
//! is known to the packet.

use std::fs;
use std::process::Output;
use std::time::Duration;

use flowctl::event::Record;
use flowctl::lab::latch::Latch;
use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, UdpLoad};
use flowctl::report::{CounterReport, Report};
use flowctl::units::BitRate;

use crate::machine::{Files, Machine};
use crate::root::{self, Suite};
use crate::unit::Unit;
use crate::waiting::{eventually, pause};

pub const CONFIG: &str = r#"
tick = "100ms"
[interfaces.wan]
device = "wan0"
[subnets]
home = ["10.77.1.0/24"]
"#;
const CONFIG_FILE: &str = "/etc/flowctl/flowctl.toml";

/// Where a scene takes place.
pub type Place = (Suite, Unit);

/// Has each of these scenes played in both places.
macro_rules! scenes {
    ($($scene:ident),+ $(,)?) => {
        mod plain_unit_and_systemd_252 {
            $(#[test] fn $scene() {
                super::$scene(($crate::root::Suite::Bookworm, $crate::unit::Unit::Plain));
            })+
        }
        mod nixos_unit_and_systemd_257 {
            $(#[test] fn $scene() {
                super::$scene(($crate::root::Suite::Trixie, $crate::unit::Unit::Evaluated));
            })+
        }
    };
}
pub(crate) use scenes;

/// The router.
pub struct Router {
    // Before the lab: the machine is in its network.
    pub machine: Machine,
    pub lab: Lab,
}

impl Router {
    /// A booted router with that configuration, flowctl installed but not started; or `None` where there cannot be one.
    pub fn boot(place: Place, config: &str) -> Option<Router> {
        Router::boot_with(place, config, |_| {})
    }

    /// The same with more of the operator's files.
    pub fn boot_with(
        (suite, unit): Place,
        config: &str,
        prepare: impl FnOnce(&Files),
    ) -> Option<Router> {
        let root = root::of(suite)?;
        let files = Files::new();
        if !unit.install(&files) {
            return None;
        }
        files.write(CONFIG_FILE, config);
        prepare(&files);
        // As it is without a firewall: a scene may flush the ruleset, and sysctls are the machine's business.
        let options = LabOptions {
            masquerade: false,
            conntrack: None,
            ..LabOptions::default()
        };
        let lab = Lab::build(&options).unwrap();
        let machine = Machine::boot(&root, files, &lab.router);
        Some(Router { machine, lab })
    }

    /// The same with the service started.
    pub fn start(place: Place, config: &str) -> Option<Router> {
        let router = Router::boot(place, config)?;
        router.systemctl(&["start", "flowctl"]);
        Some(router)
    }

    /// Adds lines to the service's unit.
    pub fn amend(&self, lines: &str) {
        let folder = self.machine.path("/etc/systemd/system/flowctl.service.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("scene.conf"), lines).unwrap();
        self.systemctl(&["daemon-reload"]);
    }

    /// Writes the configuration, all at once.
    pub fn configure(&self, config: &str) {
        let new = self.machine.path(&format!("{CONFIG_FILE}.new"));
        fs::write(&new, config).unwrap();
        fs::rename(new, self.machine.path(CONFIG_FILE)).unwrap();
    }

    /// `systemctl ARGUMENTS`, which must do it.
    pub fn systemctl(&self, arguments: &[&str]) -> String {
        let output = self.try_systemctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, which may fail.
    pub fn try_systemctl(&self, arguments: &[&str]) -> Output {
        self.machine
            .run(&[&["systemctl", "--no-pager", "--full"], arguments].concat())
    }

    /// A property of the service.
    pub fn shown(&self, property: &str) -> String {
        let property = format!("--property={property}");
        let value = self.systemctl(&["show", "--value", &property, "flowctl"]);
        value.trim().to_owned()
    }

    /// `flowctl ARGUMENTS` as root.
    pub fn flowctl(&self, arguments: &[&str]) -> Output {
        self.machine.run(&[&["flowctl"], arguments].concat())
    }

    /// The newest report.
    pub fn status(&self) -> Report {
        let output = self.flowctl(&["status", "--json"]);
        assert!(output.status.success(), "{}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Waits for the next tick after this moment, so that all that was sent before is counted.
    pub fn settle(&self) -> Report {
        let before = self.status().tick.sequence;
        eventually("the next tick", || {
            Some(self.status()).filter(|report| report.tick.sequence > before + 1)
        })
    }

    /// Datagrams of 1028 bytes from the first host to the internet until it is stopped.
    pub fn stream(&self, bits_per_second: f64) -> Generator {
        let ends = Ends::new(
            self.lab.lan[0].end(Family::V4, 0),
            self.lab.server(Family::V4, 0, 9),
        );
        let load = UdpLoad {
            direction: Direction::Upload,
            payload: 1000,
            rate: Some(BitRate(bits_per_second)),
            datagrams: u64::MAX,
            longest: Duration::from_secs(120),
        };
        Generator::udp("stream", &ends, &load).unwrap()
    }

    /// Some datagrams, to the last; returns their bytes.
    pub fn count_some(&self) -> u64 {
        let upload = self.stream(8e6);
        pause(Duration::from_millis(300));
        upload.stop();
        upload.finish().unwrap().up.sent.bytes
    }

    /// Ends the upload: what it sent is what these counters counted, in a table that was never touched.
    pub fn assert_nothing_missed(&self, upload: Generator, names: &[&str]) {
        upload.stop();
        let up = upload.finish().unwrap().up;
        assert_eq!(up.sent, up.received, "forwarding was never interrupted");
        assert!(up.sent.packets > 100, "{up:?}");
        let report = self.settle();
        for name in names {
            let counter = counter(&report, name);
            let counted = (counter.packets, counter.bytes, counter.resets);
            assert_eq!(counted, (up.sent.packets, up.sent.bytes, 0), "{name}");
        }
        assert_eq!(report.table.repairs, 0);
    }

    /// What was counted by `home_from`, as soon as the service answers.
    pub fn total(&self) -> u64 {
        eventually("the service answers", || {
            let output = self.flowctl(&["status", "--json"]);
            let report: Option<Report> = serde_json::from_slice(&output.stdout).ok();
            report.map(|report| counter(&report, "home_from").bytes)
        })
    }

    /// Looks at the total again and again while `work` goes on: it never falls.
    pub fn while_totals_only_grow<T>(&self, work: impl FnOnce() -> T) -> T {
        let done = Latch::default();
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let (mut last, mut looks) = (0, 0);
                while !done.is_set() {
                    let total = self.total();
                    assert!(total >= last, "the total fell from {last} to {total}");
                    (last, looks) = (total, looks + 1);
                    pause(Duration::from_millis(10));
                }
                looks
            });
            // Told also when `work` panics, or the other thread would look for ever.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            done.set();
            let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let looks = watch.join().unwrap();
            assert!(looks > 3, "only {looks} looks");
            result
        })
    }

    /// All records of the log.
    pub fn records(&self) -> Vec<Record> {
        let output = self.flowctl(&["log", "--json"]);
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        (text.lines())
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// What systemd kept of what the service said.
    pub fn journal(&self) -> String {
        let journal = ["journalctl", "--no-pager", "--unit=flowctl", "--output=cat"];
        said(&self.machine.run(&journal))
    }

    /// By what the kernel knows the table; another one under the same name has another.
    pub fn handle(&self) -> String {
        let table = ["list", "table", "inet", "flowctl"];
        let listing = self.nft(&[&["--handle", "--terse"], &table[..]].concat());
        let line = listing.lines().find(|line| line.contains("# handle"));
        line.unwrap().to_owned()
    }

    /// `nft ARGUMENTS` in it, which must do it.
    pub fn nft(&self, arguments: &[&str]) -> String {
        let output = self.machine.run(&[&["nft"], arguments].concat());
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// One counter of a report.
pub fn counter<'a>(report: &'a Report, name: &str) -> &'a CounterReport {
    let mut counters = report.counters.iter();
    counters
        .find(|counter| counter.name.as_str() == name)
        .unwrap()
}

/// All that a command said.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
