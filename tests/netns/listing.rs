//! An operator's own tools never break on flowctl's table: what is installed lists without a complaint, what is
//! listed loads again, and it is what `flowctl plan` says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flowctl::config::{Format, parse};
use flowctl::kernel::attr::{Attribute, Writer};
use flowctl::kernel::nft::message;
use flowctl::kernel::nftables::Nftables;
use flowctl::kernel::socket::Netlink;
use flowctl::lab::Namespace;
use flowctl::plan::{self, ruleset::Ruleset};

use crate::support::{Bench, namespace, nft_in};

/// Configurations that need no link, subnet or drilldown: what other rulesets always have may be missing.
pub const BARE: [&str; 7] = [
    "",
    "counters.only_to.to = \"10.0.0.0/8\"",
    "counters.only_from.from = \"::/0\"",
    "interfaces.wan.device = \"a-name-of-15-by\"\ncounters.back.in = \"wan\"\ncounters.back.out = \"wan\"",
    "counters.wide.from = [\"0.0.0.0/0\", \"::/0\"]\ncounters.wide.to = [\"255.255.255.255\", \"0.0.0.0\", \"ffff::/16\"]",
    // Wildcards: side by side, over each other, in every place of a key, and with label rules.
    "interfaces.wan.device = [\"ppp*\", \"ppq*\", \"wan0\"]\ninterfaces.vpn.device = \"wg*\"\n\
     interfaces.all.device = [\"p*\", \"12345678901234*\"]\ncounters.through = { in = \"vpn\", out = \"wan\" }\n\
     counters.up = { from = [\"10.0.0.0/8\", \"fd00::/8\"], out = \"wan\" }\n\
     counters.all_three = { from = \"10.0.0.0/8\", in = \"vpn\", out = [\"all\", \"wan\"] }\n\
     thresholds.t = { counter = \"wan_in\", raise = \"1Mbit/s\" }",
    // The same maps without wildcards: they are no intervals.
    "interfaces.wan.device = [\"ppp0\", \"wan0\"]\ninterfaces.vpn.device = \"wg0\"\n\
     counters.through = { in = \"vpn\", out = \"wan\" }",
];

/// nft loads a listing of a protected table too, but as its own, which goes when nft ends.
const PLAIN: &str = "table.protect = \"off\"\n";

pub fn rulesets() -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rulesets");
    let files = std::fs::read_dir(directory).unwrap();
    let mut found: Vec<(PathBuf, String)> = files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| (path.clone(), std::fs::read_to_string(path).unwrap()))
        // Static rules too are what flowctl would install.
        .map(|(path, text)| (path, text.replace("static = true", "static = false")))
        .collect();
    found.sort();
    assert!(found.len() >= 3, "{found:?}");
    found
}

fn example(name: &str) -> String {
    let named = |(path, _): &(PathBuf, String)| path.file_stem().unwrap() == name;
    rulesets().into_iter().find(named).unwrap().1
}

/// The blocks of a listing, and the elements within each, without the order that the kernel gives them.
fn normalised(listing: &str) -> BTreeSet<String> {
    // The table's own lines are a block too, so that it does not matter what comes first in it.
    let comment = listing.find("\tcomment").unwrap();
    let (table, content) = listing.split_at(comment + listing[comment..].find('\n').unwrap());
    let blocks = [table].into_iter().chain(content.split("\n\n"));
    blocks
        .filter(|block| !block.is_empty())
        .map(|block| {
            // The last block has the table's closing bracket too.
            let block = block.trim().trim_end_matches(['}', '\n', '\t', ' ']);
            let Some((head, elements)) = block.split_once("elements = {") else {
                return block.to_owned();
            };
            let elements: BTreeSet<&str> = elements.split(',').map(str::trim).collect();
            format!("{head}{elements:?}")
        })
        .collect()
}

pub fn assert_same(ours: &str, wanted: &str) {
    assert_equal(&normalised(ours), &normalised(wanted));
}

pub fn assert_equal(ours: &BTreeSet<String>, wanted: &BTreeSet<String>) {
    let extra: Vec<_> = ours.difference(wanted).collect();
    let missing: Vec<_> = wanted.difference(ours).collect();
    assert!(
        extra.is_empty() && missing.is_empty() && !ours.is_empty(),
        "{extra:#?} instead of {missing:#?}"
    );
}

pub fn listed(namespace: &Namespace) -> String {
    nft_in(namespace, &["-s", "list", "ruleset"])
}

/// What a text loads to in a namespace of its own.
pub fn reloaded(directory: &Path, text: &str) -> String {
    let fresh = Namespace::new("fresh").unwrap();
    let file = directory.join("listing.nft");
    std::fs::write(&file, text).unwrap();
    nft_in(&fresh, &["-f", file.to_str().unwrap()]);
    listed(&fresh)
}

#[test]
fn what_the_daemon_installs_lists_loads_again_and_is_what_plan_prints() {
    let Some(namespace) = namespace() else { return };
    let examples = rulesets().into_iter().map(|(_, text)| text);
    for config in examples.chain(BARE.map(str::to_owned)) {
        let bench = Bench::new(&namespace, &(PLAIN.to_owned() + &config));
        let daemon = bench.start();
        let installed = listed(&namespace);
        assert!(installed.starts_with("table inet flowctl {"), "{installed}");
        let planned = bench.flowctl(&["plan"]);
        assert!(planned.status.success());
        let planned = String::from_utf8(planned.stdout).unwrap();

        let again = reloaded(bench.path(), &installed);
        assert_same(&again, &installed);
        let from_plan = reloaded(bench.path(), &planned);
        assert_same(&from_plan, &installed);
        let plan_alone = planned.split("\n# What each").next().unwrap();
        assert_same(plan_alone, &installed);
        // With its values it loads too: an operator's backup.
        reloaded(bench.path(), &nft_in(&namespace, &["list", "ruleset"]));
        daemon.stop();
        assert_eq!(bench.flowctl(&["remove"]).status.code(), Some(0));
    }
}

#[test]
fn a_protected_table_lists_as_the_plain_one_does_and_loads_without_an_error() {
    let Some(namespace) = namespace() else { return };
    for (_, config) in rulesets() {
        let bench = Bench::new(&namespace, &config);
        let daemon = bench.start();
        let owned = listed(&namespace);
        assert!(owned.contains("flags owner"), "{owned}");
        assert_eq!(reloaded(bench.path(), &owned), "");
        daemon.stop();
        bench.configure(&(PLAIN.to_owned() + &config));
        assert_eq!(bench.flowctl(&["remove"]).status.code(), Some(0));
        let daemon = bench.start();
        let owner = [" # progname flowctl", "\tflags owner\n"];
        let content = (owner.iter()).fold(owned, |text, word| text.replace(word, ""));
        assert_same(&content, &listed(&namespace));
        daemon.stop();
        assert_eq!(bench.flowctl(&["remove"]).status.code(), Some(0));
    }
}

#[test]
fn a_text_of_plan_is_taken_over_as_it_is_by_the_daemon() {
    let Some(namespace) = namespace() else { return };
    let config = PLAIN.to_owned() + &example("home-router");
    let bench = Bench::new(&namespace, &config);
    let planned = String::from_utf8(bench.flowctl(&["plan"]).stdout).unwrap();
    let file = bench.path().join("plan.nft");
    std::fs::write(&file, &planned).unwrap();
    nft_in(&namespace, &["-f", file.to_str().unwrap()]);
    let loaded = listed(&namespace);
    let daemon = bench.start();
    assert_same(&listed(&namespace), &loaded);
    daemon.stop();
}

#[test]
fn each_example_replaces_any_other() {
    let Some(namespace) = namespace() else { return };
    let examples = rulesets().into_iter().map(|(_, text)| text);
    let texts: Vec<String> = examples.chain(BARE.map(str::to_owned)).collect();
    let plans: Vec<Ruleset> = texts
        .iter()
        .map(|text| plan::compile(&parse(text, Format::Toml).unwrap()))
        .collect();
    let directory = tempfile::tempdir().unwrap();
    for old in &plans {
        for new in &plans {
            let moved = namespace.run(|| -> Result<(), flowctl::kernel::error::KernelError> {
                let mut nftables = Nftables::open()?;
                let handle = nftables.install(old)?;
                assert!(nftables.change(old, new, handle)?);
                assert!(!nftables.change(old, new, handle + 1)?, "another table");
                Ok(())
            });
            moved.unwrap().unwrap();
            let changed = listed(&namespace);
            let wanted = reloaded(directory.path(), &plan::text::render(new));
            assert_same(&changed, &wanted);
        }
    }
}

/// NFT_MSG_GETRULE and NFT_MSG_GETSETELEM, which flowctl itself has no use for.
const GET_RULE: u16 = 0x0a07;
const GET_ELEMENT: u16 = 0x0a0d;
/// What may differ between two tables alike in all else: handles, positions, use counts, addresses in the kernel, and
/// how many elements there are (nft begins each map of intervals with an empty one).
const NUMBERED: [(u16, &[u16]); 4] = [
    (message::GET_TABLE, &[3, 4]),
    (message::GET_CHAIN, &[2, 6, 11]),
    (GET_RULE, &[3, 6]),
    (message::GET_SET, &[16, 19, 20]),
];
/// NFTA_SET_USERDATA begins with the key's byte order; nft adds hints of its own.
const SET_USERDATA: u16 = 13;
const NO_BYTE_ORDER: [u8; 6] = [0, 4, 0, 0, 0, 0];
const ELEMENTS: u16 = 3;
const ELEMENT_OBJECT: u16 = 9;

/// All that the kernel says of a table with these sets and maps, attribute by attribute.
pub fn on_the_wire(namespace: &Namespace, table: &str, sets: &[&str]) -> BTreeSet<String> {
    let netlink = namespace.run(|| Netlink::open(netlink_sys::protocols::NETLINK_NETFILTER));
    let mut netlink = netlink.unwrap().unwrap();
    let mut found = BTreeSet::new();
    let about = |w: &mut Writer| {
        w.nfgen(1, 0);
        w.text(1, table);
    };
    for (kind, numbered) in NUMBERED {
        let dumped = netlink.dump("compare", kind, about, |message| {
            let attributes = message.attributes()?.map(Result::unwrap);
            let kept: Vec<String> = attributes
                .filter(|attribute| !numbered.contains(&attribute.kind))
                .filter_map(|Attribute { kind: at, value }| match (kind, at) {
                    (message::GET_SET, SET_USERDATA) => {
                        let order = value.get(..6)?;
                        (order != NO_BYTE_ORDER).then(|| format!("{at}: {order:?}"))
                    }
                    _ => Some(format!("{at}: {value:?}")),
                })
                .collect();
            found.insert(format!("{kind:#x} {kept:?}"));
            Ok(())
        });
        dumped.unwrap();
    }
    for set in sets {
        let of_set = |w: &mut Writer| {
            about(w);
            w.text(2, set);
        };
        let dumped = netlink.dump("compare", GET_ELEMENT, of_set, |message| {
            let attributes = message.attributes()?.map(Result::unwrap);
            for list in attributes.filter(|attribute| attribute.kind == ELEMENTS) {
                let elements = list.nested().map(Result::unwrap);
                let told = elements.filter(|element| !is_empty_beginning(element));
                found.extend(told.map(|element| format!("{set} {:?}", element.value)));
            }
            Ok(())
        });
        dumped.unwrap();
    }
    found
}

/// The end of no interval at the lowest key.
fn is_empty_beginning(element: &Attribute<'_>) -> bool {
    let mut attributes = element.nested().map(Result::unwrap);
    let (mut lowest, mut refers) = (false, false);
    attributes.by_ref().for_each(|attribute| {
        lowest |= attribute.kind == 1 && attribute.value[4..].iter().all(|byte| *byte == 0);
        refers |= attribute.kind == ELEMENT_OBJECT;
    });
    lowest && !refers
}

#[test]
fn what_is_installed_is_to_the_byte_what_nft_itself_would_install() {
    let Some(_) = namespace() else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("plan.nft");
    let examples = rulesets().into_iter().map(|(_, text)| text);
    for text in examples.chain(BARE.map(str::to_owned)) {
        let ruleset = plan::compile(&parse(&text, Format::Toml).unwrap());
        let (ours, theirs) = (
            Namespace::new("ours").unwrap(),
            Namespace::new("nft").unwrap(),
        );
        let installed = ours.run(|| Nftables::open()?.install(&ruleset));
        installed.unwrap().unwrap();
        std::fs::write(&file, plan::text::render(&ruleset)).unwrap();
        nft_in(&theirs, &["-f", file.to_str().unwrap()]);
        let maps: Vec<&str> = ruleset.maps.iter().map(|map| map.name.as_str()).collect();
        let wire = |namespace| on_the_wire(namespace, "flowctl", &maps);
        assert_equal(&wire(&ours), &wire(&theirs));
    }
}

#[test]
fn a_chain_that_someone_made_drop_accepts_again_and_a_dormant_table_counts_again() {
    let Some(namespace) = namespace() else { return };
    let config = example("home-router");
    let ruleset = plan::compile(&parse(&config, Format::Toml).unwrap());
    let install = || {
        let installed = namespace.run(|| Nftables::open()?.install(&ruleset));
        installed.unwrap().unwrap();
        listed(&namespace)
    };
    let good = install();
    let policy = "{ policy drop; }";
    nft_in(&namespace, &["chain", "inet", "flowctl", "forward", policy]);
    nft_in(&namespace, &["add table inet flowctl { flags dormant; }"]);
    let bad = listed(&namespace);
    assert!(bad.contains("policy drop") && bad.contains("flags dormant"));
    assert_eq!(install(), good);
}
