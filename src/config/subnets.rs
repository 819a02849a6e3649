//! `[subnets]`: names for lists of prefixes.

use std::collections::BTreeMap;

use ipnet::IpNet;

use super::Subnet;
use super::prefix::{looks_like_prefix, prefix, union};
use super::problems::{Problems, Wrong};
use super::reader::{Given, Table, name, named_entries, one_or_list};
use super::suggest::instead_of;
use super::tree::{Entry, Node, Value};
use super::value::text;
use crate::units::SubnetName;

/// A subnet as far as it could be read: other keys may refer to it all the same.
pub(super) struct SubnetDraft<'n> {
    pub written: &'n str,
    pub node: &'n Node,
    pub name: Option<SubnetName>,
    /// None inside another; `None` where one of them was wrong.
    pub prefixes: Option<Vec<IpNet>>,
}

impl SubnetDraft<'_> {
    /// `None` where something about it was wrong.
    pub(super) fn finish(self) -> Option<Subnet> {
        Some(Subnet {
            name: self.name?,
            prefixes: self.prefixes?,
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
    let prefixes = if let Value::Table(_) = node.value {
        let message = "is a table, which is not supported yet";
        problems.wrong_key(node, Wrong::new(message, "write a list of prefixes"));
        None
    } else {
        let elements = one_or_list(node, problems);
        let read: Vec<IpNet> = elements
            .iter()
            .filter_map(|element| problems.check(element, prefix_of(element)))
            .collect();
        (!read.is_empty() && read.len() == elements.len()).then(|| union(read))
    };
    SubnetDraft {
        written,
        node,
        name,
        prefixes,
    }
}

fn prefix_of(node: &Node) -> Result<IpNet, Wrong> {
    prefix(text(node, "write a prefix such as \"192.168.1.0/24\"")?)
}

/// The prefixes that `from` or `to` names, as prefixes or as subnets.
pub(super) fn referenced(
    node: &Node,
    subnets: &SubnetDrafts<'_>,
    problems: &mut Problems<'_>,
) -> Given<Vec<IpNet>> {
    let elements = one_or_list(node, problems);
    let mut prefixes = Vec::new();
    let mut complete = !elements.is_empty();
    for element in elements {
        match prefixes_of(element, subnets, problems) {
            Some(found) => prefixes.extend(found),
            None => complete = false,
        }
    }
    if complete {
        Given::Is(union(prefixes))
    } else {
        Given::Wrong
    }
}

fn prefixes_of(
    node: &Node,
    subnets: &SubnetDrafts<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<IpNet>> {
    let written = problems.check(node, text(node, "write a subnet's name or a prefix"))?;
    if looks_like_prefix(written) {
        return problems
            .check(node, prefix(written))
            .map(|prefix| vec![prefix]);
    }
    let Some(subnet) = subnets.find(written) else {
        let names = subnets.list.iter().map(|draft| draft.written);
        let remedy = instead_of(written, names, "define it under subnets, or write a prefix");
        problems.undefined(node, Wrong::new("is not a defined subnet", remedy));
        return None;
    };
    subnet.prefixes.clone()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{config, messages};

    #[test]
    fn a_subnet_is_a_list_or_one_prefix() {
        let config = config("subnets.a = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\nsubnets.b = \"::/0\"");
        assert_eq!(config.subnets[0].prefixes.len(), 1);
        assert_eq!(config.subnets[1].prefixes[0].to_string(), "::/0");
    }

    #[test]
    fn every_wrong_prefix_is_reported() {
        let text = "subnets.a = [\"10.0.0.1/8\", \"x\", 3]";
        assert_eq!(messages(text).len(), 3);
        assert_eq!(messages("subnets.a = []"), ["is empty"]);
        let table = "subnets.guests = { device = \"br-guests\" }";
        assert_eq!(messages(table), ["is a table, which is not supported yet"]);
    }
}
