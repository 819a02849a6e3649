//! Real DHCP servers and a real client, each in a namespace, with all that they write in a directory of their own. No
//! service of the machine is touched; where a program is missing, that is said and the test skipped.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flowctl::lab::Namespace;
use serde_json::{Value, json};

use crate::support::{eventually, run_in, said};

/// Where programs and libraries are: the user's PATH, and where they are on systems that leave some out of it.
fn prefixes() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).collect::<Vec<_>>();
    let of_path = folders.iter().filter_map(|folder| folder.parent());
    let usual = ["/usr", "/usr/local", "/run/current-system/sw"].map(Path::new);
    of_path.chain(usual).map(Path::to_path_buf).collect()
}

/// A program's path; `None`, and a word, where this machine has not got it.
fn program(name: &str, package: &str) -> Option<PathBuf> {
    let mut places = prefixes().into_iter().flat_map(|prefix| {
        let folders = ["sbin", "bin"].map(|folder| prefix.join(folder));
        folders.map(|folder| folder.join(name))
    });
    let found = places.find(|path| path.exists());
    if found.is_none() {
        missing(name, package);
    }
    found
}

fn missing(what: &str, package: &str) {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "tests must not be skipped in CI: no {what}");
    eprintln!("SKIPPED, no {what}: install {package} (tests/run does, as root)");
}

/// Kea's library that answers for leases.
fn lease_commands() -> Option<PathBuf> {
    const NAME: &str = "kea/hooks/libdhcp_lease_cmds.so";
    let below = |prefix: PathBuf| {
        let lib = prefix.join("lib");
        let inner = std::fs::read_dir(&lib).into_iter().flatten().flatten();
        let mut places = vec![lib.join(NAME)];
        places.extend(inner.map(|entry| entry.path().join(NAME)));
        places
    };
    let mut places = prefixes().into_iter().flat_map(below);
    let found = places.find(|path| path.exists());
    if found.is_none() {
        missing("libdhcp_lease_cmds.so", "kea-dhcp4-server");
    }
    found
}

/// A server; killed when dropped.
struct Server(Child);

impl Server {
    /// What it says goes to `said` in its directory.
    fn start(namespace: &Namespace, mut command: Command, directory: &Path) -> Server {
        let file = std::fs::File::create(directory.join("said")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        Server(namespace.run(|| command.spawn()).unwrap().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kea for one family, which listens on no device and is told its leases over the control socket.
pub struct Kea {
    server: Server,
    directory: tempfile::TempDir,
    family: u8,
}

impl Kea {
    /// With or without its lease commands; it cleans up its file every so many seconds, or never.
    pub fn start(family: u8, with_hook: bool, clean_up: u32) -> Option<Kea> {
        let installed = program(
            &format!("kea-dhcp{family}"),
            &format!("kea-dhcp{family}-server"),
        )?;
        let hook = lease_commands()?;
        let directory = tempfile::tempdir().unwrap();
        // AppArmor confines the program by its path to files that are not ours.
        let program = directory.path().join("kea");
        std::fs::copy(installed, &program).unwrap();
        let config = directory.path().join("config.json");
        let text = configuration(
            family,
            with_hook.then_some(&hook),
            clean_up,
            directory.path(),
        );
        std::fs::write(&config, text.to_string()).unwrap();
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(config)
            .env("KEA_PIDFILE_DIR", directory.path())
            .env("KEA_LOCKFILE_DIR", directory.path());
        let kea = Kea {
            server: Server::start(&Namespace::new("kea").unwrap(), command, directory.path()),
            directory,
            family,
        };
        eventually("Kea answers", || UnixStream::connect(kea.socket()).ok());
        Some(kea)
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub fn memfile(&self) -> PathBuf {
        self.directory.path().join("leases.csv")
    }

    /// Sends a command; panics where Kea does not do it.
    pub fn tell(&self, command: &str, arguments: &Value) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let command = json!({ "command": command, "arguments": arguments }).to_string();
        stream.write_all(command.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let _ = stream.shutdown(Shutdown::Both);
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["result"], 0, "{command}: {answer}");
    }

    /// Lends an address, with whatever else is to be said of the lease.
    pub fn lend(&self, address: &str, mac: &str, name: &str, more: Value) {
        let mut lease = json!({
            "ip-address": address, "hw-address": mac, "hostname": name, "subnet-id": 1,
        });
        if self.family == 6 {
            lease["duid"] = format!("00:03:00:01:{mac}").into();
            lease["iaid"] = 1.into();
        }
        let more = more.as_object().unwrap().clone();
        lease.as_object_mut().unwrap().extend(more);
        self.tell(&format!("lease{}-add", self.family), &lease);
    }

    /// Stops it from answering until it goes on.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.server.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

fn configuration(family: u8, hook: Option<&PathBuf>, clean_up: u32, directory: &Path) -> Value {
    let hooks: Vec<Value> = hook.iter().map(|hook| json!({ "library": hook })).collect();
    let mut server = json!({
        "interfaces-config": { "interfaces": [] },
        "control-socket": { "socket-type": "unix", "socket-name": directory.join("socket") },
        "lease-database": {
            "type": "memfile", "name": directory.join("leases.csv"), "lfc-interval": clean_up,
        },
        "hooks-libraries": hooks,
        "valid-lifetime": 3600,
        "loggers": [{
            "name": format!("kea-dhcp{family}"), "severity": "INFO",
            "output_options": [{ "output": "stdout" }],
        }],
    });
    if family == 4 {
        server["subnet4"] = json!([{ "id": 1, "subnet": "192.168.1.0/24" }]);
    } else {
        server["subnet6"] = json!([{ "id": 1, "subnet": "fd00:1::/64" }]);
        // Without a device there is nothing to make an identifier of, and the usual place for it is the machine's.
        server["server-id"] = json!({
            "type": "EN", "enterprise-id": 2495, "identifier": "0A0B", "persist": false,
        });
    }
    json!({ format!("Dhcp{family}"): server })
}

/// dnsmasq that serves addresses on one device.
pub struct Dnsmasq {
    _server: Server,
    directory: tempfile::TempDir,
}

impl Dnsmasq {
    /// On `device` of a namespace, from the range of addresses.
    pub fn start(namespace: &Namespace, device: &str, range: &str) -> Option<Dnsmasq> {
        let program = program("dnsmasq", "dnsmasq-base")?;
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(program);
        command
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"])
            .args(["--user=root", "--bind-interfaces", "--log-facility=-"])
            .arg(format!("--interface={device}"))
            .arg(format!("--dhcp-range={range},1h"))
            .arg(argument(
                "--dhcp-leasefile=",
                &directory.path().join("leases"),
            ))
            .arg(argument("--pid-file=", &directory.path().join("pid")));
        let dnsmasq = Dnsmasq {
            _server: Server::start(namespace, command, directory.path()),
            directory,
        };
        eventually("dnsmasq is there", || {
            dnsmasq.directory.path().join("pid").exists().then_some(())
        });
        Some(dnsmasq)
    }

    pub fn leases(&self) -> PathBuf {
        self.directory.path().join("leases")
    }
}

fn argument(key: &str, path: &Path) -> String {
    format!("{key}{}", path.display())
}

/// Asks for an address as `name` on `device`, and takes none of it to the device. `None` where there is no client.
pub fn ask_for_address(namespace: &Namespace, device: &str, name: &str) -> Option<()> {
    let mut command = Command::new(program("udhcpc", "udhcpc")?);
    let script = program("true", "coreutils")?;
    command
        .args(["-f", "-n", "-q", "-t", "10", "-i", device])
        .arg("-s")
        .arg(script)
        .args(["-x", &format!("hostname:{name}")]);
    let output = run_in(namespace, command);
    assert!(output.status.success(), "{}", said(&output));
    Some(())
}
