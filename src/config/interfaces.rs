//! `[interfaces.NAME]`: the devices of an interface and what it carries.

use super::Interface;
use super::problems::{Problems, Wrong};
use super::rate::capacity;
use super::reader::{Given, Table, name, named_entries, one_or_list};
use super::suggest::instead_of;
use super::tree::{Entry, Node, Value};
use super::value::text;
use crate::units::{BitRate, DevicePattern, DevicePatternError, InterfaceName};

/// In every network namespace.
const LOOPBACK: &str = "lo";
/// Every interface takes two of a conntrack label's 128 bits.
pub(super) const INTERFACES_MAX: usize = 64;

/// An interface as far as it could be read: other keys may refer to it all the same.
pub(super) struct InterfaceDraft<'n> {
    pub written: &'n str,
    pub node: &'n Node,
    pub name: Option<InterfaceName>,
    devices: Vec<DevicePattern>,
    pub capacity_in: Given<BitRate>,
    pub capacity_out: Given<BitRate>,
}

impl InterfaceDraft<'_> {
    /// `None` where its name was wrong.
    pub(super) fn finish(self) -> Option<Interface> {
        Some(Interface {
            name: self.name?,
            devices: self.devices,
            capacity_in: self.capacity_in.known(),
            capacity_out: self.capacity_out.known(),
            label: 0,
        })
    }
}

/// `[interfaces]`, in the order of the file.
pub(super) fn read<'n>(
    root: &mut Table<'n>,
    problems: &mut Problems<'_>,
) -> Vec<InterfaceDraft<'n>> {
    let entries = named_entries(root, "interfaces", problems);
    if let Some(Entry { node, .. }) = entries.get(INTERFACES_MAX) {
        let message = format!("is one interface more than {INTERFACES_MAX}");
        let remedy = "give several devices to one interface";
        problems.wrong_key(node, Wrong::new(message, remedy));
    }
    entries.iter().map(|entry| draft(entry, problems)).collect()
}

fn draft<'n>(entry: &'n Entry, problems: &mut Problems<'_>) -> InterfaceDraft<'n> {
    let Entry {
        name: written,
        node,
    } = entry;
    let mut draft = InterfaceDraft {
        written,
        node,
        name: name(written, node, InterfaceName::new, problems),
        devices: Vec::new(),
        capacity_in: Given::Wrong,
        capacity_out: Given::Wrong,
    };
    let Some(mut table) = Table::open(node, problems) else {
        return draft;
    };
    match table.take("device") {
        Some(device) => draft.devices = devices(device, problems),
        None => {
            let remedy = "add device = \"eth0\", or a list of devices";
            problems.missing(node, Wrong::new("has no device", remedy));
        }
    }
    (draft.capacity_in, draft.capacity_out) = match table.take("capacity") {
        Some(capacity) => capacities(capacity, problems),
        None => (Given::Absent, Given::Absent),
    };
    table.finish(problems);
    draft
}

/// The devices that `node` names, none twice.
pub(super) fn devices(node: &Node, problems: &mut Problems<'_>) -> Vec<DevicePattern> {
    let mut devices: Vec<DevicePattern> = Vec::new();
    for element in one_or_list(node, problems) {
        let Some(device) = problems.check(element, device(element)) else {
            continue;
        };
        if devices.contains(&device) {
            let message = "is given twice in this list";
            problems.wrong(element, Wrong::new(message, "name each device once"));
        } else {
            devices.push(device);
        }
    }
    devices
}

fn device(node: &Node) -> Result<DevicePattern, Wrong> {
    let device = text(node, "write the name of a device such as \"eth0\"")?;
    if device == LOOPBACK {
        let message = "is the loopback device, whose traffic is never counted";
        return Err(Wrong::new(message, "name another device"));
    }
    DevicePattern::new(device).map_err(|error| match error {
        DevicePatternError::Name(error) => Wrong::new(
            "is not the name of a device",
            format!("{error}; `ip link` lists them"),
        ),
        DevicePatternError::Everything => Wrong::new(
            "is every device, which tells nothing apart",
            "write how the names begin, such as \"ppp*\", or list the devices",
        ),
        DevicePatternError::Inside => Wrong::new(
            "has a * that is not at its end",
            "write how the names begin and one * behind it, such as \"ppp*\"",
        ),
        DevicePatternError::TooLong => Wrong::new(
            "is longer than a wildcard can be",
            "write at most 14 characters before the *",
        ),
    })
}

/// In and out: one rate for both, or a table.
fn capacities(node: &Node, problems: &mut Problems<'_>) -> (Given<BitRate>, Given<BitRate>) {
    if !matches!(node.value, Value::Table(_)) {
        return match problems.check(node, capacity(node)) {
            Some(rate) => (Given::Is(rate), Given::Is(rate)),
            None => (Given::Wrong, Given::Wrong),
        };
    }
    let Some(mut table) = Table::open(node, problems) else {
        return (Given::Wrong, Given::Wrong);
    };
    let capacities = (
        table.read("in", problems, capacity),
        table.read("out", problems, capacity),
    );
    table.finish(problems);
    capacities
}

/// The interfaces that `node` names, none twice; wrong, and a problem, where one is not defined.
pub(super) fn referenced<'i, 'n>(
    node: &Node,
    interfaces: &'i [InterfaceDraft<'n>],
    problems: &mut Problems<'_>,
) -> Given<Vec<&'i InterfaceDraft<'n>>> {
    let mut found: Vec<&InterfaceDraft<'n>> = Vec::new();
    let elements = one_or_list(node, problems);
    let mut complete = !elements.is_empty();
    for element in elements {
        let read = text(element, "write the name of an interface");
        let Some(written) = problems.check(element, read) else {
            complete = false;
            continue;
        };
        match interfaces.iter().find(|draft| draft.written == written) {
            Some(draft) => {
                if !found.iter().any(|known| known.written == written) {
                    found.push(draft);
                }
            }
            None => {
                complete = false;
                let names = interfaces.iter().map(|draft| draft.written);
                let remedy = instead_of(written, names, "define it under interfaces");
                problems.undefined(element, Wrong::new("is not a defined interface", remedy));
            }
        }
    }
    if complete {
        Given::Is(found)
    } else {
        Given::Wrong
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, messages};
    use crate::units::BitRate;

    #[test]
    fn a_plain_capacity_is_that_of_both_directions() {
        let config = config("interfaces.wan = { device = \"ppp0\", capacity = \"1Gbit/s\" }");
        let wan = &config.interfaces[0];
        let both = (Some(BitRate(1e9)), Some(BitRate(1e9)));
        assert_eq!((wan.capacity_in, wan.capacity_out), both);
    }

    #[test]
    fn an_interface_has_devices_none_twice() {
        for (text, message) in [
            ("interfaces.wan = {}", "has no device"),
            ("interfaces.wan.device = []", "is empty"),
            (
                "interfaces.wan.device = [\"a\", \"a\"]",
                "is given twice in this list",
            ),
            (
                "interfaces.wan.device = \"a b\"",
                "is not the name of a device",
            ),
            (
                "interfaces.wan.device = \"lo\"",
                "is the loopback device, whose traffic is never counted",
            ),
            (
                "interfaces.wan.device = 3",
                "is a number, not text in quotes",
            ),
            ("interfaces.wan = \"ppp0\"", "is text, not a table"),
            (
                "interfaces.wan.device = \"*\"",
                "is every device, which tells nothing apart",
            ),
            (
                "interfaces.wan.device = [\"eth0\", \"p*p\"]",
                "has a * that is not at its end",
            ),
            (
                "interfaces.wan.device = \"123456789012345*\"",
                "is longer than a wildcard can be",
            ),
            (
                "interfaces.wan.device = [\"wg*\", \"wg*\"]",
                "is given twice in this list",
            ),
        ] {
            assert_eq!(messages(text), [message], "{text}");
        }
    }

    #[test]
    fn names_and_wildcards_mix_even_where_one_covers_the_other() {
        let config = config("interfaces.wan.device = [\"ppp0\", \"ppp*\", \"wg*\"]");
        let shown: Vec<String> = (config.interfaces[0].devices.iter())
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["ppp0", "ppp*", "wg*"]);
    }

    #[test]
    fn two_interfaces_may_share_a_device() {
        config("interfaces.a.device = \"eth0\"\ninterfaces.b.device = \"eth0\"");
    }

    #[test]
    fn there_are_at_most_64() {
        let many = |count| {
            (0..count)
                .map(|n| format!("interfaces.i{n}.device = \"eth{n}\"\n"))
                .collect::<String>()
        };
        assert_eq!(config(&many(64)).interfaces.len(), 64);
        assert_eq!(messages(&many(65)), ["is one interface more than 64"]);
    }
}
