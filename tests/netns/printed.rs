//! The file that `flowctl plan --format nft` prints: it loads as it is and any number of times, also as the body of a table
//! that something else writes, it lists to what loads again, and what it makes is what flowctl would install itself; with
//! the nft of this machine and with the newest one, which `tests/run` fetches.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use flowctl::config::{Format, parse};
use flowctl::kernel::nftables::Nftables;
use flowctl::lab::Namespace;
use flowctl::plan::text::TABLE_COMMENT;
use flowctl::plan::{self, printed};

use crate::listing::{BARE, assert_same, on_the_wire, rulesets};
use crate::support::{Bench, namespace, run_in, said};

/// One version of nft, and the root that it sees.
struct Nft {
    root: PathBuf,
}

impl Nft {
    /// This machine's, and the newest where it was fetched.
    fn all() -> Vec<Nft> {
        let newest = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("nftables-newest");
        let mut all = vec![Nft { root: "/".into() }];
        if newest.join("usr/sbin/nft").exists() {
            all.push(Nft { root: newest });
        } else {
            eprintln!("SKIPPED, no newer nft than this machine's: as root, tests/run fetches one");
        }
        all
    }

    fn version(&self, namespace: &Namespace) -> String {
        self.run(namespace, &["--version"])
    }

    fn run(&self, namespace: &Namespace, arguments: &[&str]) -> String {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg("nft").args(arguments);
        let output = run_in(namespace, command);
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "nft {arguments:?} in {:?} ended with {}: {}",
            self.root,
            output.status,
            said(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// A directory that it sees.
    fn directory(&self) -> tempfile::TempDir {
        tempfile::tempdir_in(self.root.join("tmp")).unwrap()
    }

    /// Loads a text from a file of that name.
    fn load(&self, namespace: &Namespace, directory: &tempfile::TempDir, text: &str) {
        let file = directory.path().join("loaded.nft");
        std::fs::write(&file, text).unwrap();
        self.run(namespace, &["-f", &self.seen(&file)]);
    }

    /// The path of a file, as it sees it.
    fn seen(&self, file: &Path) -> String {
        let inside = file.strip_prefix(&self.root).unwrap();
        format!("/{}", inside.display())
    }

    fn list(&self, namespace: &Namespace) -> String {
        self.run(namespace, &["list", "ruleset"])
    }
}

/// What stands between the brackets of the table, as `sed` cuts it out.
fn body(printed: &str) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), printed).unwrap();
    let cut = Command::new("sed")
        .args(["1,/^table inet .* {$/d; $d"])
        .arg(file.path())
        .output()
        .unwrap();
    String::from_utf8(cut.stdout).unwrap()
}

/// But for the table itself, whose comment says who made it, and for how many elements the set of packet types was said
/// to have, which newer nft leaves out.
fn wire(namespace: &Namespace, maps: &[&str]) -> BTreeSet<String> {
    let all = on_the_wire(namespace, "flowctl", maps).into_iter();
    all.filter(|line| !line.starts_with("0xa01 "))
        .map(|line| line.replace("9: [8, 0, 1, 0, 0, 0, 0, 2]", "9: []"))
        .collect()
}

#[test]
fn it_loads_again_and_again_and_is_what_flowctl_would_install() {
    let Some(_) = namespace() else { return };
    let examples = rulesets().into_iter().map(|(_, text)| text);
    let texts: Vec<String> = examples.chain(BARE.map(str::to_owned)).collect();
    let mut versions = BTreeSet::new();
    for nft in Nft::all() {
        for text in &texts {
            let fresh = || Namespace::new("printed").unwrap();
            let (namespace, directory) = (fresh(), nft.directory());
            versions.insert(nft.version(&namespace));
            let bench = Bench::new(&namespace, text);
            let output = bench.flowctl(&["plan", "--format", "nft"]);
            assert!(output.status.success(), "{}", said(&output));
            let text_of_file = String::from_utf8(output.stdout).unwrap();
            nft.load(&namespace, &directory, &text_of_file);
            let listed = nft.list(&namespace);
            for _ in 0..2 {
                nft.load(&namespace, &directory, &text_of_file);
                assert_eq!(nft.list(&namespace), listed);
            }
            let elsewhere = fresh();
            nft.load(&elsewhere, &directory, &listed);
            assert_eq!(
                nft.list(&elsewhere),
                listed,
                "what it lists loads to the same"
            );

            // As a module of the system's ruleset writes its tables.
            let file = directory.path().join("body.nft");
            std::fs::write(&file, body(&text_of_file)).unwrap();
            let table = "table inet flowctl";
            let include = format!("include \"{}\"", nft.seen(&file));
            let included = format!("{table}\ndelete {table}\n{table} {{\n  {include}\n}}\n");
            for place in [&elsewhere, &fresh()] {
                nft.load(place, &directory, &included);
                assert_eq!(nft.list(place), listed, "included in a table");
            }

            let ruleset = plan::compile(&parse(text, Format::Toml).unwrap());
            let ours = fresh();
            let installed = ours.run(|| Nftables::open()?.install(&ruleset));
            installed.unwrap().unwrap();
            let own_comment = listed.replace(&printed::comment(&ruleset), TABLE_COMMENT);
            assert_same(&nft.list(&ours), &own_comment);
            let maps: Vec<&str> = ruleset.maps.iter().map(|map| map.name.as_str()).collect();
            let (ours, theirs) = (wire(&ours, &maps), wire(&namespace, &maps));
            let extra: Vec<_> = ours.difference(&theirs).collect();
            let missing: Vec<_> = theirs.difference(&ours).collect();
            assert!(
                extra.is_empty() && missing.is_empty(),
                "{extra:#?} instead of {missing:#?}"
            );
        }
    }
    println!("{versions:?}");
}

#[test]
fn it_depends_on_the_configuration_alone() {
    let Some(namespace) = namespace() else { return };
    let threshold = "[thresholds.busy]\ncounter = \"wan_in\"\nraise = \"1Mbit/s\"\n";
    let wan = format!("[interfaces.wan]\ndevice = \"wan0\"\n{threshold}");
    let bench = Bench::new(&namespace, &wan);
    bench.start().stop();
    bench.configure(&format!("[interfaces.lan]\ndevice = \"lan0\"\n{wan}"));
    let labels = |arguments: &[&str]| {
        let printed = said(&bench.flowctl(arguments));
        let rule = printed
            .lines()
            .find(|line| line.contains("\"wan0\" ct label set"));
        rule.unwrap().trim().to_owned()
    };
    assert_eq!(
        labels(&["plan"]),
        "iifname \"wan0\" ct label set 0",
        "as flows have it"
    );
    let printed = labels(&["plan", "--format", "nft"]);
    assert_eq!(
        printed, "iifname \"wan0\" ct label set 2",
        "as the file has it"
    );
}

#[test]
fn it_is_printed_without_privileges_and_without_a_kernel_to_ask() {
    let Some(namespace) = namespace() else { return };
    let (_, text) = rulesets().into_iter().next().unwrap();
    let bench = Bench::new(&namespace, &text);
    let arguments = ["plan", "--format", "nft"];
    let printed = bench.flowctl(&arguments).stdout;
    // No /proc, no /sys, and no socket but to be refused.
    let hide = "mount -t tmpfs none /proc && mount -t tmpfs none /sys && exec setpriv --reuid=65534 --regid=65534 \
                --clear-groups --bounding-set=-all --no-new-privs \"$@\"";
    let config = bench.path().join("readable.toml");
    std::fs::copy(bench.config(), &config).unwrap();
    let binary = bench.path().join("flowctl");
    std::fs::copy(env!("CARGO_BIN_EXE_flowctl"), &binary).unwrap();
    std::fs::set_permissions(
        bench.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", hide, "sh"])
        .arg(binary);
    command.args(arguments).arg("--config").arg(config);
    let output = run_in(&namespace, command);
    assert!(output.status.success(), "{}", said(&output));
    assert!(output.stdout == printed && !printed.is_empty());
}

#[test]
fn what_cannot_stand_still_is_refused() {
    let Some(namespace) = namespace() else { return };
    let follows = "[subnets]\nguests = { device = \"br0\" }\n";
    let bench = Bench::new(&namespace, follows);
    let arguments = ["plan", "--format", "nft"];
    let refused = bench.flowctl(&arguments);
    assert_eq!(refused.status.code(), Some(78));
    assert!(refused.stdout.is_empty());
    assert!(
        said(&refused).contains("subnets.guests"),
        "{}",
        said(&refused)
    );
    bench.configure(&format!("table.static = true\n{follows}"));
    for arguments in [&arguments[..], &["check"], &["run"]] {
        let refused = bench.flowctl(arguments);
        assert_eq!(refused.status.code(), Some(78));
        let text = said(&refused);
        assert!(
            text.contains(":3:10: subnets.guests: ") && text.contains("write its prefixes"),
            "{text}"
        );
    }
    bench.configure("interfaces.wan.devise = \"wan0\"");
    assert_eq!(bench.flowctl(&arguments).status.code(), Some(78));
}
