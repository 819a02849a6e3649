//! A machine leaves nothing behind: no process, no cgroup, no file, whether its test ends it or its supervisor is
//! killed.

use std::fs;
use std::path::PathBuf;

use flowctl::lab::Namespace;
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::{Files, Machine};
use crate::root::{self, Suite};
use crate::waiting::eventually;

fn boot() -> Option<(Namespace, Machine)> {
    let root = root::of(Suite::Trixie)?;
    let namespace = Namespace::new("alone").unwrap();
    let machine = Machine::boot(&root, Files::new(), &namespace);
    Some((namespace, machine))
}

/// All processes in a namespace, by what `/proc/PID/ns/KIND` says.
fn in_it(kind: &str, namespace: &PathBuf) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap();
    processes
        .map(|entry| entry.unwrap().path())
        .filter(|path| fs::read_link(path.join("ns").join(kind)).is_ok_and(|is| is == *namespace))
        .map(|path| fs::read_to_string(path.join("comm")).unwrap_or_default())
        .collect()
}

/// Cgroups of any machine of ours whose supervisor is that process.
fn groups(supervisor: u32) -> Vec<PathBuf> {
    let name = format!("flowctl-test-{supervisor}");
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        // What vanishes while it is read is gone.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_name() == *name {
                found.push(entry.path());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn nothing_is_left_of_a_machine_that_was_ended() {
    let Some((_namespace, machine)) = boot() else {
        return;
    };
    let (supervisor, files) = (machine.supervisor(), machine.files());
    let processes = machine.namespace("pid");
    assert!(in_it("pid", &processes).len() > 3);
    assert_eq!(groups(supervisor).len(), 1);
    drop(machine);
    assert_eq!(in_it("pid", &processes), Vec::<String>::new());
    assert_eq!(groups(supervisor), Vec::<PathBuf>::new());
    assert!(!files.exists());
}

#[test]
fn nothing_runs_on_when_the_supervisor_is_killed_and_the_next_one_clears_up() {
    let Some((_namespace, machine)) = boot() else {
        return;
    };
    let supervisor = machine.supervisor();
    let processes = machine.namespace("pid");
    let pid = Pid::from_raw(supervisor as i32).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    eventually("all its processes end", || {
        in_it("pid", &processes).is_empty().then_some(())
    });
    drop(machine);
    assert_eq!(groups(supervisor).len(), 1);
    drop(boot());
    assert_eq!(groups(supervisor), Vec::<PathBuf>::new());
}
