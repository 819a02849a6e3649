//! `[subnets]`: names for lists of prefixes, or for those that devices have.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::interfaces::devices;
use super::prefix::{looks_like_prefix, prefix};
use super::problems::{Problems, Wrong};
use super::reader::{Given, Table, name, named_entries, one_or_list};
use super::suggest::instead_of;
use super::tree::{Entry, Node, Value};
use super::value::text;
use super::{Addresses, Subnet};
use crate::units::SubnetName;

/// A subnet as far as it could be read: other keys may refer to it all the same.
pub(super) struct SubnetDraft<'n> {
    pub written: &'n str,
    pub node: &'n Node,
    pub name: Option<SubnetName>,
    /// `None` where something about them was wrong.
    pub addresses: Option<Addresses>,
}

impl SubnetDraft<'_> {
    /// `None` where something about it was wrong.
    pub(super) fn finish(self) -> Option<Subnet> {
        Some(Subnet {
            name: self.name?,
            addresses: self.addresses?,
        })
    }
}

/// The subnets, in the order of the file, and where each name stands among them.
pub(super) struct SubnetDrafts<'n> {
    pub list: Vec<SubnetDraft<'n>>,
    index_by_name: BTreeMap<&'n str, usize>,
}

impl<'n> SubnetDrafts<'n> {
    fn find(&self, name: &str) -> Option<&SubnetDraft<'n>> {
        self.index_by_name.get(name).map(|index| &self.list[*index])
    }

    /// Reports those whose prefixes change, which rules that stay as they were loaded cannot follow.
    pub(super) fn stand_still(&self, problems: &mut Problems<'_>) {
        let follows = |draft: &&SubnetDraft<'_>| {
            let addresses = draft.addresses.as_ref();
            addresses.is_some_and(|addresses| !addresses.follows().is_empty())
        };
        for draft in self.list.iter().filter(follows) {
            let message = "follows a device, whose prefixes change, while table.static leaves the rules as they were loaded";
            let remedy = "write its prefixes as a list, or table.static = false";
            problems.wrong(draft.node, Wrong::new(message, remedy));
        }
    }
}

/// `[subnets]`.
pub(super) fn read<'n>(root: &mut Table<'n>, problems: &mut Problems<'_>) -> SubnetDrafts<'n> {
    let list: Vec<SubnetDraft<'n>> = named_entries(root, "subnets", problems)
        .iter()
        .map(|entry| draft(entry, problems))
        .collect();
    let index_by_name = (list.iter().enumerate())
        .map(|(index, draft)| (draft.written, index))
        .collect();
    SubnetDrafts {
        list,
        index_by_name,
    }
}

fn draft<'n>(entry: &'n Entry, problems: &mut Problems<'_>) -> SubnetDraft<'n> {
    let Entry {
        name: written,
        node,
    } = entry;
    let name = name(written, node, SubnetName::new, problems);
    let addresses = match node.value {
        Value::Table(_) => followed(node, problems),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Date
        | Value::Null
        | Value::List(_) => listed(node, problems),
    };
    SubnetDraft {
        written,
        node,
        name,
        addresses,
    }
}

/// `["192.168.1.0/24", "fd00:1::/64"]`, or one prefix.
fn listed(node: &Node, problems: &mut Problems<'_>) -> Option<Addresses> {
    let elements = one_or_list(node, problems);
    let read: Vec<IpNet> = elements
        .iter()
        .filter_map(|element| problems.check(element, prefix_of(element)))
        .collect();
    (!read.is_empty() && read.len() == elements.len()).then(|| read.into())
}

/// `{ device = "br-guests" }`.
fn followed(node: &Node, problems: &mut Problems<'_>) -> Option<Addresses> {
    let mut table = Table::open(node, problems)?;
    let devices = match table.take("device") {
        Some(device) => devices(device, problems),
        None => {
            let remedy =
                "add device = \"br-lan\" to follow its prefixes, or write a list of prefixes";
            problems.missing(node, Wrong::new("has no device", remedy));
            Vec::new()
        }
    };
    table.finish(problems);
    (!devices.is_empty()).then(|| Addresses::new(Vec::new(), devices))
}

fn prefix_of(node: &Node) -> Result<IpNet, Wrong> {
    prefix(text(node, "write a prefix such as \"192.168.1.0/24\"")?)
}

/// What `from` or `to` names, as prefixes or as subnets.
pub(super) fn referenced(
    node: &Node,
    subnets: &SubnetDrafts<'_>,
    problems: &mut Problems<'_>,
) -> Given<Addresses> {
    let elements = one_or_list(node, problems);
    let found: Vec<Addresses> = elements
        .iter()
        .filter_map(|element| addresses_of(element, subnets, problems))
        .collect();
    if !elements.is_empty() && found.len() == elements.len() {
        Given::Is(Addresses::joined(&found))
    } else {
        Given::Wrong
    }
}

fn addresses_of(
    node: &Node,
    subnets: &SubnetDrafts<'_>,
    problems: &mut Problems<'_>,
) -> Option<Addresses> {
    let written = problems.check(node, text(node, "write a subnet's name or a prefix"))?;
    if looks_like_prefix(written) {
        return problems
            .check(node, prefix(written))
            .map(|prefix| vec![prefix].into());
    }
    let Some(subnet) = subnets.find(written) else {
        let names = subnets.list.iter().map(|draft| draft.written);
        let remedy = instead_of(written, names, "define it under subnets, or write a prefix");
        problems.undefined(node, Wrong::new("is not a defined subnet", remedy));
        return None;
    };
    subnet.addresses.clone()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, messages};

    #[test]
    fn a_subnet_is_a_list_or_one_prefix() {
        let config = config("subnets.a = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\nsubnets.b = \"::/0\"");
        let prefixes = |at: usize| config.subnets[at].addresses.prefixes();
        assert_eq!(prefixes(0).len(), 1);
        assert_eq!(prefixes(1)[0].to_string(), "::/0");
    }

    #[test]
    fn every_wrong_prefix_is_reported() {
        let text = "subnets.a = [\"10.0.0.1/8\", \"x\", 3]";
        assert_eq!(messages(text).len(), 3);
        assert_eq!(messages("subnets.a = []"), ["is empty"]);
    }

    #[test]
    fn a_subnet_follows_devices_that_are_named_as_those_of_an_interface() {
        let text = "subnets.guests = { device = [\"br-guests\", \"wg0\", \"wg*\"] }";
        let config = config(text);
        let follows = config.subnets[0].addresses.follows();
        let shown: Vec<String> = follows.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["br-guests", "wg*"]);
        for (text, message) in [
            ("subnets.guests = {}", "has no device"),
            ("subnets.guests.device = []", "is empty"),
            (
                "subnets.guests.device = \"*\"",
                "is every device, which tells nothing apart",
            ),
            (
                "subnets.guests = { device = \"a\", prefix = \"::/0\" }",
                "unknown key",
            ),
        ] {
            assert_eq!(messages(text), [message], "{text}");
        }
    }
}
