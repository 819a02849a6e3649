//! `[hosts]`: names for addresses, given by whoever knows; `[names]`: where flowctl looks for others.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;

use ipnet::IpNet;

use super::problem::quoted;
use super::problems::{Problems, Wrong};
use super::reader::{Table, entries, one_or_list};
use super::tree::{Entry, Node, Value};
use super::value::{absolute_path, text};
use super::{Host, NamesConfig};
use crate::units::{HostName, Mac};

const EXAMPLES: &str =
    "an address such as \"192.168.1.5\", or a hardware address such as \"02:00:5e:10:00:01\"";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Station {
    Address(IpAddr),
    Mac(Mac),
}

/// Where each address is named first: by the key at this path, on this line.
type FirstByStation = BTreeMap<Station, (Rc<str>, usize)>;

/// `[hosts]`, in the order of the file.
pub(super) fn hosts(root: &mut Table<'_>, problems: &mut Problems<'_>) -> Vec<Host> {
    let Some(node) = root.take("hosts") else {
        return Vec::new();
    };
    let mut firsts = FirstByStation::new();
    let hosts = entries(node, problems).unwrap_or_default().iter();
    hosts
        .filter_map(|entry| host(entry, &mut firsts, problems))
        .collect()
}

/// `None` where something about it was wrong.
fn host(entry: &Entry, firsts: &mut FirstByStation, problems: &mut Problems<'_>) -> Option<Host> {
    let Entry { name, node } = entry;
    if let Value::Table(_) = &node.value {
        problems.wrong_key(node, dotted(name, node));
        return None;
    }
    let name = HostName::new(name)
        .map_err(|error| problems.wrong_key(node, misnamed(name, node, &error)))
        .ok();
    let mut host = Host {
        name: name?,
        addresses: Vec::new(),
        macs: Vec::new(),
    };
    for element in one_or_list(node, problems) {
        let Some(station) = problems.check(element, station(element)) else {
            continue;
        };
        if let Some((path, line)) = firsts.get(&station) {
            let wrong = named_twice(path, *line, node);
            problems.wrong(element, wrong);
            continue;
        }
        let line = problems.line(element.span.start);
        firsts.insert(station, (Rc::clone(&node.path), line));
        match station {
            Station::Address(address) => host.addresses.push(address),
            Station::Mac(mac) => host.macs.push(mac),
        }
    }
    Some(host)
}

fn named_twice(first: &Rc<str>, line: usize, node: &Node) -> Wrong {
    if *first == node.path {
        return Wrong::new("is given twice in this list", "name each address once");
    }
    let message = format!("is named twice: by {first} on line {line} too");
    Wrong::new(message, "an address has one name: keep one of the two")
}

fn is_station(written: &str) -> bool {
    written.parse::<IpAddr>().is_ok() || Mac::parse(written).is_some()
}

/// How to write it with the name on the left.
fn turned(station: &str, value: &Node) -> String {
    let name = match &value.value {
        Value::Text(text) => HostName::new(text).ok(),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Date
        | Value::Null
        | Value::List(_)
        | Value::Table(_) => None,
    };
    let name = name.map_or("NAME".to_owned(), |name| written_key(name.as_str()));
    format!("the name stands on the left: write {name} = \"{station}\"")
}

/// A name as a key: in quotes where a dot would mean a table.
fn written_key(name: &str) -> String {
    if name.contains('.') {
        format!("\"{name}\"")
    } else {
        name.to_owned()
    }
}

fn misnamed(written: &str, node: &Node, error: &impl ToString) -> Wrong {
    if is_station(written) {
        return Wrong::new("is an address, not a name", turned(written, node));
    }
    let remedy = match HostName::reduced(written) {
        Some(name) => format!("write for example {}", quoted(name.as_str())),
        None => "choose another name".to_owned(),
    };
    Wrong::new(error.to_string(), remedy)
}

/// TOML takes `192.168.1.5 = "nas"` and `nas.lan = "192.168.1.5"` for tables in tables.
fn dotted(name: &str, node: &Node) -> Wrong {
    let mut written = name.to_owned();
    let mut value = node;
    while let Value::Table(entries) = &value.value
        && let Some(first) = entries.first()
    {
        written = format!("{written}.{}", first.name);
        value = &first.node;
    }
    if is_station(&written) {
        Wrong::new("is an address, not a name", turned(&written, value))
    } else if HostName::new(&written).is_ok() && written != name {
        let remedy = format!("write the whole name in quotes: \"{written}\" = \"192.168.1.5\"");
        Wrong::new(
            "is a table, since a dot outside of quotes makes one",
            remedy,
        )
    } else {
        let remedy = format!("write {EXAMPLES}, or a list of them");
        Wrong::new("is a table, not an address", remedy)
    }
}

fn station(node: &Node) -> Result<Station, Wrong> {
    let write = format!("write {EXAMPLES}");
    let written = text(node, &write)?;
    if let Some(mac) = Mac::parse(written) {
        return Ok(Station::Mac(mac));
    }
    match written.parse() {
        Ok(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some() => {
            let four = IpAddr::V6(six).to_canonical();
            let message = "is an IPv4 address written as IPv6, which no packet carries";
            Err(Wrong::new(message, format!("write \"{four}\"")))
        }
        Ok(address) => Ok(Station::Address(address)),
        Err(_) if written.parse::<IpNet>().is_ok() => Err(Wrong::new(
            "is a prefix, not the address of one host",
            format!("{write}; prefixes have names under subnets"),
        )),
        Err(_) => Err(Wrong::new(
            "is neither an address nor the hardware address of one device",
            write,
        )),
    }
}

/// `[names]`.
pub(super) fn names(root: &mut Table<'_>, problems: &mut Problems<'_>) -> NamesConfig {
    let mut config = NamesConfig { leases: None };
    let Some(node) = root.take("names") else {
        return config;
    };
    if let Some(mut section) = Table::open(node, problems) {
        config.leases = section.take("leases").map(|node| places(node, problems));
        section.finish(problems);
    }
    config
}

/// An empty list means that none are read.
fn places(node: &Node, problems: &mut Problems<'_>) -> Vec<PathBuf> {
    const REMEDY: &str = "write the absolute path of a lease file or of Kea's control socket, such as \"/var/lib/misc/dnsmasq.leases\"";
    let mut places = Vec::new();
    let elements = match &node.value {
        Value::List(elements) if elements.is_empty() => return places,
        Value::List(_)
        | Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Date
        | Value::Null
        | Value::Table(_) => one_or_list(node, problems),
    };
    for element in elements {
        let Some(path) = problems.check(element, absolute_path(element, REMEDY)) else {
            continue;
        };
        if places.contains(&path) {
            let message = "is given twice in this list";
            problems.wrong(element, Wrong::new(message, "name each file once"));
        } else {
            places.push(path);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, messages, problems};

    #[test]
    fn a_host_has_addresses_and_hardware_addresses() {
        let config = config(
            "hosts.nas = [\"192.168.1.5\", \"fd00:1::5\", \"02:00:00:00:00:05\"]\nhosts.\"tv.lan\" = \"2:0:0:0:0:6\"",
        );
        let [nas, tv] = &config.hosts[..] else {
            panic!("two hosts");
        };
        assert_eq!((nas.name.as_str(), nas.addresses.len()), ("nas", 2));
        assert_eq!(nas.macs[0].to_string(), "02:00:00:00:00:05");
        assert_eq!((tv.name.as_str(), tv.macs.len()), ("tv.lan", 1));
    }

    #[test]
    fn an_address_on_the_left_is_told_how_to_be_written() {
        for key in [
            "192.168.1.5",
            "\"192.168.1.5\"",
            "\"02:00:00:00:00:05\"",
            "\"fd00::5\"",
        ] {
            let text = format!("[hosts]\n{key} = \"nas\"");
            let found = problems(&text);
            assert_eq!(found.len(), 1, "{found:#?}");
            assert_eq!(found[0].message, "is an address, not a name");
            let address = key.trim_matches('"');
            let remedy = format!("the name stands on the left: write nas = \"{address}\"");
            assert_eq!(found[0].remedy, remedy);
            assert_eq!((found[0].line, found[0].column), (2, 1));
        }
        let unnamed = problems("hosts.\"fd00::5\" = [\"nas\", \"disk\"]");
        assert!(unnamed[0].remedy.ends_with("write NAME = \"fd00::5\""));
    }

    #[test]
    fn a_name_with_dots_stands_in_quotes() {
        let found = problems("[hosts]\nnas.lan = \"192.168.1.5\"");
        let remedy = "write the whole name in quotes: \"nas.lan\" = \"192.168.1.5\"";
        assert_eq!((found[0].remedy.as_str(), found.len()), (remedy, 1));
        assert_eq!(
            messages("[hosts]\nnas = {}"),
            ["is a table, not an address"]
        );
    }

    #[test]
    fn a_name_that_is_none_is_told_with_one_that_is_near() {
        let found = problems("hosts.\"the nas\" = \"192.168.1.5\"");
        assert!(found[0].message.starts_with("a host's name has letters"));
        assert_eq!(found[0].remedy, "write for example \"the_nas\"");
    }

    #[test]
    fn every_wrong_address_is_reported() {
        for (value, message) in [
            ("192.168.1.0/24", "is a prefix, not the address of one host"),
            (
                "::ffff:192.168.1.5",
                "is an IPv4 address written as IPv6, which no packet carries",
            ),
            (
                "192.168.1",
                "is neither an address nor the hardware address of one device",
            ),
            (
                "ff:ff:ff:ff:ff:ff",
                "is neither an address nor the hardware address of one device",
            ),
        ] {
            let text = format!("hosts.nas = [\"{value}\", 5, \"10.0.0.1\"]");
            assert_eq!(
                messages(&text),
                [message, "is a number, not text in quotes"]
            );
        }
        assert_eq!(messages("hosts.nas = []"), ["is empty"]);
        assert_eq!(messages("hosts = 5"), ["is a number, not a table"]);
    }

    #[test]
    fn an_address_has_one_name() {
        let text = "[hosts]\na = [\"10.0.0.1\", \"02::1\"]\nb = [\"0002::1\", \"10.0.0.1\"]";
        let twice = "is named twice: by hosts.a on line 2 too";
        assert_eq!(messages(text), [twice, twice]);
        let text = "hosts.a = [\"02:00:00:00:00:05\", \"2-0-0-0-0-5\"]";
        assert_eq!(messages(text), ["is given twice in this list"]);
    }

    #[test]
    fn lease_files_are_absolute_paths_or_none_at_all() {
        let leases = |text: &str| config(text).names.leases.map(|leases| leases.len());
        assert_eq!(leases(""), None, "the well-known places");
        assert_eq!(leases("names.leases = []"), Some(0));
        assert_eq!(leases("names.leases = \"/a\""), Some(1));
        assert_eq!(leases("names.leases = [\"/a\", \"/b\"]"), Some(2));
        for (value, message) in [
            ("[\"a.csv\"]", "is a relative path"),
            ("[\"/a\", \"/a\"]", "is given twice in this list"),
            ("[\"/\"]", "names no file"),
            ("5", "is a number, not text in quotes"),
        ] {
            assert_eq!(messages(&format!("names.leases = {value}")), [message]);
        }
        assert_eq!(messages("names.lease = \"/a\""), ["unknown key"]);
    }
}
