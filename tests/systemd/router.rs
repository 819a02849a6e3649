//! What the scenes share: a router of the lab that runs flowctl as a service, its operator, and traffic through it that
//! is known to the packet.

use std::fs;
use std::process::Output;
use std::time::Duration;

use flowctl::lab::{Direction, Ends, Family, Generator, Lab, LabOptions, UdpLoad};
use flowctl::report::{CounterReport, Report};
use flowctl::units::BitRate;

use crate::machine::{Files, Machine, eventually};
use crate::root::{self, Suite};
use crate::unit::Unit;

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

/// The router.
pub struct Router {
    // Before the lab: the machine is in its network.
    pub machine: Machine,
    pub lab: Lab,
}

impl Router {
    /// A booted router with that configuration, flowctl installed but not started; or `None` where there cannot be one.
    pub fn boot((suite, unit): Place, config: &str) -> Option<Router> {
        let root = root::of(suite)?;
        let files = Files::new();
        unit.install(&files);
        files.write(CONFIG_FILE, config);
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
