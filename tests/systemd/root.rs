//! The root file systems that are booted: Debian's smallest with systemd, made once and kept below `target/` with the
//! recipe they were made by. Nothing is ever written to one; a machine has a layer of its own above it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// With systemd 252.
    Bookworm,
    /// With systemd 257.
    Trixie,
}

const PACKAGES: &str = "--include=systemd,systemd-sysv,dbus,iproute2,nftables";
const PROGRAMS: [&str; 5] = [
    "debootstrap",
    "systemd-nspawn",
    "unshare",
    "nsenter",
    "setpriv",
];

/// Its directory, or `None` where there cannot be one; then it says so.
pub fn of(suite: Suite) -> Option<PathBuf> {
    static BOOKWORM: OnceLock<Result<(), String>> = OnceLock::new();
    static TRIXIE: OnceLock<Result<(), String>> = OnceLock::new();
    let made_once = match suite {
        Suite::Bookworm => &BOOKWORM,
        Suite::Trixie => &TRIXIE,
    };
    let made = made_once.get_or_init(|| match missing_for_it() {
        Some(missing) => Err(missing),
        None => make(suite),
    });
    match made {
        Ok(()) => Some(place(suite.name())),
        Err(missing) => {
            skip(missing);
            None
        }
    }
}

/// Says that nothing is shown, and why; where all must be shown, that is an error.
pub fn skip(missing: &str) {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "systemd tests must not be skipped in CI: {missing}");
    eprintln!("SKIPPED, no service of systemd: {missing}");
}

fn missing_for_it() -> Option<String> {
    if !geteuid().is_root() {
        return Some("this is not root".to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let missing = PROGRAMS
        .into_iter()
        .find(|program| !places.iter().any(|place| place.join(program).exists()));
    missing.map(|program| format!("{program} is not installed"))
}

/// Makes it unless it is there, made by the same recipe.
fn make(suite: Suite) -> Result<(), String> {
    fs::create_dir_all(place("")).unwrap();
    let lock = File::create(place(&format!("{}.lock", suite.name()))).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let recipe = ["--variant=minbase", PACKAGES, suite.name()];
    let written = place(&format!("{}.recipe", suite.name()));
    if fs::read_to_string(&written).is_ok_and(|text| text == recipe.join(" ")) {
        return Ok(());
    }
    let (root, new) = (place(suite.name()), place(&format!("{}.new", suite.name())));
    for old in [&root, &new] {
        if old.exists() {
            fs::remove_dir_all(old).unwrap();
        }
    }
    // What debootstrap mounts is gone with the mount namespace, also when it is interrupted.
    let output = Command::new("unshare")
        .args(["--mount", "debootstrap"])
        .args(recipe)
        .arg(&new)
        .output()
        .unwrap();
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let last: Vec<&str> = said.lines().rev().take(3).collect();
        return Err(format!("debootstrap failed: {last:?}"));
    }
    for waste in ["var/cache/apt", "var/lib/apt/lists"] {
        fs::remove_dir_all(new.join(waste)).unwrap();
    }
    fs::rename(&new, &root).unwrap();
    fs::write(&written, recipe.join(" ")).unwrap();
    Ok(())
}

/// Where things are kept that are made once.
pub fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("systemd")
        .join(name)
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Suite::Bookworm => "bookworm",
            Suite::Trixie => "trixie",
        }
    }
}
