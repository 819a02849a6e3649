//! Reads the tree table by table: a value that is wrong is reported and does not stop the reading of the next, and
//! a key that nobody asked for is reported too.

use super::problems::{Problems, Wrong};
use super::suggest::{COMPARED_MAX, nearest};
use super::tree::{Entry, Node, Value};
use crate::units::NameError;

/// More keys than this are not listed when an unknown one has no near one.
const LISTED_MAX: usize = 12;

/// A key's value: absent, present but wrong (and reported), or read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Given<T> {
    Absent,
    Wrong,
    Is(T),
}

impl<T> Given<T> {
    /// The value; `default` where it is absent, and where it is wrong, so that reading can go on.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Given::Is(value) => value,
            Given::Absent | Given::Wrong => default,
        }
    }

    /// The value, if there is one.
    pub(super) fn known(self) -> Option<T> {
        match self {
            Given::Is(value) => Some(value),
            Given::Absent | Given::Wrong => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Given::Absent)
    }
}

/// A table being read. Every key that is taken is known; `finish` reports the others.
pub(super) struct Table<'n> {
    pub node: &'n Node,
    entries: &'n [Entry],
    known: Vec<&'static str>,
}

impl<'n> Table<'n> {
    /// `None`, and a problem, where `node` is no table.
    pub(super) fn open(node: &'n Node, problems: &mut Problems<'_>) -> Option<Self> {
        let entries = entries(node, problems)?;
        Some(Table {
            node,
            entries,
            known: Vec::new(),
        })
    }

    /// The value of `key`, if it is given.
    pub(super) fn take(&mut self, key: &'static str) -> Option<&'n Node> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self.entries.iter().find(|entry| entry.name == key)?;
        Some(&entry.node)
    }

    /// The value of `key`, read by `read`.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
        read: impl FnOnce(&Node) -> Result<T, Wrong>,
    ) -> Given<T> {
        let Some(node) = self.take(key) else {
            return Given::Absent;
        };
        match problems.check(node, read(node)) {
            Some(value) => Given::Is(value),
            None => Given::Wrong,
        }
    }

    /// Reports the keys that nobody took.
    pub(super) fn finish(self, problems: &mut Problems<'_>) {
        for Entry { name, node } in self.entries {
            if !self.known.contains(&name.as_str()) {
                let remedy = match nearest(name, self.known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("known here: {}", listed(&self.known)),
                };
                problems.wrong_key(node, Wrong::new("unknown key", remedy));
            }
        }
    }
}

/// The entries of a table; `None`, and a problem, where `node` is none.
pub(super) fn entries<'n>(node: &'n Node, problems: &mut Problems<'_>) -> Option<&'n [Entry]> {
    if let Value::Table(entries) = &node.value {
        return Some(entries);
    }
    let message = format!("is {}, not a table", node.value.kind());
    let remedy = "write a table in TOML, an object in JSON";
    problems.wrong(node, Wrong::new(message, remedy));
    None
}

/// The entries of a table whose keys are names that other keys refer to; none where it is not given.
pub(super) fn named_entries<'n>(
    root: &mut Table<'n>,
    key: &'static str,
    problems: &mut Problems<'_>,
) -> &'n [Entry] {
    let Some(node) = root.take(key) else {
        return &[];
    };
    entries(node, problems).unwrap_or_else(|| {
        problems.incomplete();
        &[]
    })
}

/// The name that the key `written` is, by `check`; `None`, and a problem, where it is none.
pub(super) fn name<N>(
    written: &str,
    node: &Node,
    check: impl Fn(&str) -> Result<N, NameError>,
    problems: &mut Problems<'_>,
) -> Option<N> {
    let error = match check(written) {
        Ok(name) => return Some(name),
        Err(error) => error,
    };
    let near: String = (written.chars().take(COMPARED_MAX))
        .map(|c| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
            _ => '_',
        })
        .collect();
    let remedy = match check(&near) {
        Ok(_) => format!("write for example \"{near}\""),
        Err(_) => "choose another name".to_owned(),
    };
    problems.wrong_key(node, Wrong::new(error.to_string(), remedy));
    None
}

/// The elements of a list, or the one value that stands for a list of one; none, and a problem, where it is empty.
pub(super) fn one_or_list<'n>(node: &'n Node, problems: &mut Problems<'_>) -> &'n [Node] {
    match &node.value {
        Value::List(elements) => {
            if elements.is_empty() {
                let remedy = "name at least one, or leave the key out";
                problems.wrong(node, Wrong::new("is empty", remedy));
            }
            elements
        }
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Date
        | Value::Null
        | Value::Table(_) => std::slice::from_ref(node),
    }
}

fn listed(names: &[&str]) -> String {
    names[..names.len().min(LISTED_MAX)].join(", ")
}
