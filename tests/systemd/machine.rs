//! One booted machine: a root file system with a layer of its own, in the network namespace of a lab's router. It ends,
//! and nothing of it is left, when this value or this process does, however that happens.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use flowctl::lab::Namespace;

use crate::waiting::eventually;

/// What stands in a machine's own layer when it boots.
pub struct Files(tempfile::TempDir);

impl Files {
    pub fn new() -> Self {
        let files = Files(tempfile::tempdir().unwrap());
        fs::create_dir(files.layer()).unwrap();
        // The program is mounted there.
        files.write("usr/bin/flowctl", "");
        // Whatever hangs is to fail within the patience of a test.
        let limits = "[Manager]\nDefaultTimeoutStartSec=15s\nDefaultTimeoutStopSec=15s\n";
        files.write("etc/systemd/system.conf.d/limits.conf", limits);
        files
    }

    /// A file with that text; the path is one below the root.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.place(path), text).unwrap();
    }

    /// A symbolic link.
    pub fn link(&self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.place(path)).unwrap();
    }

    fn place(&self, path: &str) -> PathBuf {
        let place = self.layer().join(path.trim_start_matches('/'));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        place
    }

    // Its permissions become those of the root directory, and nobody else may read a temporary directory.
    fn layer(&self) -> PathBuf {
        self.0.path().join("layer")
    }
}

/// A machine that has booted.
pub struct Machine {
    supervisor: Child,
    /// Its first process, as seen from here.
    leader: u32,
    files: Files,
}

impl Machine {
    /// Boots it and waits until it has.
    pub fn boot(root: &Path, files: Files, namespace: &Namespace) -> Machine {
        let console = File::create(files.0.path().join("console")).unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", include_str!("machine.sh"), "sh"])
            .arg(root)
            .arg(files.layer())
            .arg(env!("CARGO_BIN_EXE_flowctl"))
            .stdin(Stdio::piped())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            // An interrupt at the terminal ends the test, and with that the machine, in order.
            .process_group(0);
        let supervisor = namespace.run(|| command.spawn()).unwrap().unwrap();
        let mut machine = Machine {
            supervisor,
            leader: 0,
            files,
        };
        machine.leader = eventually("the machine begins to boot", || {
            if let Some(status) = machine.supervisor.try_wait().unwrap() {
                panic!("it ended with {status}");
            }
            find_leader(machine.supervisor.id())
        });
        eventually("the machine has booted", || {
            let output = machine.run(&["systemctl", "is-system-running"]);
            ["running\n", "degraded\n"]
                .contains(&&*String::from_utf8_lossy(&output.stdout))
                .then_some(())
        });
        machine
    }

    /// Runs a program in it, as its root, to its end.
    pub fn run(&self, program: &[&str]) -> Output {
        self.command(program).output().unwrap()
    }

    /// The same, not yet started.
    pub fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--all", "--target", &self.leader.to_string(), "--"])
            .args(program)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// Where one of its files is, as seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.leader))
    }

    /// The process that keeps it.
    pub fn supervisor(&self) -> u32 {
        self.supervisor.id()
    }

    /// Where its own files were made.
    pub fn files(&self) -> PathBuf {
        self.files.0.path().to_owned()
    }

    /// Which namespace of that kind its processes are in.
    pub fn namespace(&self, kind: &str) -> PathBuf {
        fs::read_link(format!("/proc/{}/ns/{kind}", self.leader)).unwrap()
    }

    fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.files.0.path().join("console")).unwrap())
            .into_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.leader == 0 {
            eprintln!("{}", self.console());
        } else if std::thread::panicking() {
            let units = ["--unit=flowctl", "--unit=nftables"];
            let journal = ["journalctl", "--no-pager", "--output=short-precise"];
            let journal = self.run(&[&journal[..], &units].concat());
            eprintln!("{}", String::from_utf8_lossy(&journal.stdout));
        }
        // The end of its standard input is the order to end.
        drop(self.supervisor.stdin.take());
        // It was started, so it can be waited for.
        let _ = self.supervisor.wait();
    }
}

/// The first process of the machine among the descendants of the supervisor: the one that is the first of a process
/// namespace within a process namespace, once it is systemd.
fn find_leader(supervisor: u32) -> Option<u32> {
    let depth = numbers(supervisor)?.len();
    let mut processes = vec![supervisor];
    while let Some(pid) = processes.pop() {
        let Some(numbers) = numbers(pid) else {
            continue;
        };
        if numbers.len() == depth + 2 && numbers.last().is_some_and(|number| number == "1") {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            return (name == "systemd\n").then_some(pid);
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        processes.extend(
            children
                .split_whitespace()
                .map(|pid| pid.parse::<u32>().unwrap()),
        );
    }
    None
}

/// What a process is called in each of the process namespaces that it is in, from here inwards.
fn numbers(pid: u32) -> Option<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(line.split_whitespace().map(str::to_owned).collect())
}
