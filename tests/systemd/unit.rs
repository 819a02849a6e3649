//! The units that are tried: the plain one that every distribution can install, and the one that the NixOS module
//! makes. With each come the sysctls and what else is set at boot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::machine::Files;
use crate::root;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// The files in `systemd/`, where a package puts them.
    Plain,
    /// What the module evaluates to.
    Evaluated,
}

/// A configuration of `nix/tests/configs.nix` on a machine with a firewall of NixOS' own, which flowctl starts after.
const CONFIGURATION: &str = "nftables-enabled";
/// Where the evaluated unit has the program.
const PACKAGE: &str = "/opt/flowctl";

impl Unit {
    /// Where it is installed.
    pub fn path(self) -> &'static str {
        match self {
            Unit::Plain => "usr/lib/systemd/system/flowctl.service",
            Unit::Evaluated => "etc/systemd/system/flowctl.service",
        }
    }

    /// Puts its files where they belong; `false`, having said so, where they cannot be made.
    pub fn install(self, files: &Files) -> bool {
        match self {
            Unit::Plain => {
                install_plain(files);
                true
            }
            Unit::Evaluated => {
                static EVALUATED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
                match EVALUATED.get_or_init(evaluate) {
                    Ok(folder) => install_evaluated(files, folder),
                    Err(missing) => root::skip(missing),
                }
                EVALUATED.get().is_some_and(Result::is_ok)
            }
        }
    }
}

fn install_plain(files: &Files) {
    let places = [
        ("service", Unit::Plain.path()),
        ("sysctl.conf", "usr/lib/sysctl.d/50-flowctl.conf"),
        ("modules-load.conf", "usr/lib/modules-load.d/flowctl.conf"),
        ("sysusers.conf", "usr/lib/sysusers.d/flowctl.conf"),
    ];
    for (ending, place) in places {
        let text = fs::read_to_string(format!("systemd/flowctl.{ending}")).unwrap();
        files.write(place, &text);
    }
}

fn install_evaluated(files: &Files, folder: &Path) {
    let places = [
        ("flowctl.service", Unit::Evaluated.path()),
        ("sysctl.conf", "etc/sysctl.d/60-nixos.conf"),
        ("modules-load.conf", "etc/modules-load.d/nixos.conf"),
    ];
    for (name, place) in places {
        let text = fs::read_to_string(folder.join(name)).unwrap();
        files.write(place, &text);
    }
    // NixOS makes the group by a way of its own.
    files.write("usr/lib/sysusers.d/flowctl.conf", "g flowctl -\n");
    files.link(&format!("{PACKAGE}/bin/flowctl"), "/usr/bin/flowctl");
}

/// Where the evaluated files are, or what is missing for it.
fn evaluate() -> Result<PathBuf, String> {
    let folder = root::place("evaluated");
    let emit = Command::new("nix/tests/emit")
        .arg(CONFIGURATION)
        .arg(&folder)
        .arg(PACKAGE)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&emit.stderr);
    match said.lines().find_map(|line| line.strip_prefix("SKIPPED: ")) {
        Some(missing) => Err(missing.to_owned()),
        None => {
            assert!(emit.status.success(), "{said}");
            Ok(folder)
        }
    }
}
