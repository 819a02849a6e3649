//! The file as a tree in which every key and value knows its place, whichever syntax it was written in. What the
//! keys mean is not known here.

use std::ops::Range;
use std::rc::Rc;

use super::problem::shortened;

/// Paths are not made longer than this: a file can nest deeper than any key of ours.
const PATH_MAX: usize = 256;

/// A value with its place.
#[derive(Debug)]
pub(super) struct Node {
    /// The dotted key that leads here, printable.
    pub path: Rc<str>,
    /// Where its key is written; for an element of a list, the element itself.
    pub key: Range<usize>,
    /// Where the value is written; for a table with a header, the header.
    pub span: Range<usize>,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i128),
    /// As written: a fraction, an exponent, inf, nan, or an integer beyond 128 bits.
    Float(String),
    Boolean(bool),
    Date,
    Null,
    List(Vec<Node>),
    /// In the order of the file, no name twice.
    Table(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    pub node: Node,
}

/// A file read: the tree as far as it could be read, and what is wrong with the syntax.
pub(super) struct Parsed {
    /// `None` where nothing could be read.
    pub root: Option<Node>,
    pub errors: Vec<SyntaxError>,
}

/// What is wrong with the syntax.
pub(super) enum SyntaxError {
    Malformed {
        offset: usize,
        message: String,
        remedy: String,
        /// Whether the rest of the tree is as written all the same.
        contained: bool,
    },
    Twice {
        path: Rc<str>,
        offset: usize,
        first: usize,
    },
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "text",
            Value::Integer(_) | Value::Float(_) => "a number",
            Value::Boolean(_) => "true or false",
            Value::Date => "a date",
            Value::Null => "null",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// The path of the key `name` in the table at `parent`.
pub(super) fn path_of_key(parent: &Rc<str>, name: &str) -> Rc<str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let shown = match shortened(name) {
        shown if !name.is_empty() && name.chars().all(plain) => shown,
        shown => format!("\"{shown}\""),
    };
    match parent.len() {
        0 => shown.into(),
        1..=PATH_MAX => format!("{parent}.{shown}").into(),
        _ => Rc::clone(parent),
    }
}

/// The path of the element at `index` of the list at `parent`.
pub(super) fn path_of_element(parent: &Rc<str>, index: usize) -> Rc<str> {
    match parent.len() {
        0..=PATH_MAX => format!("{parent}[{index}]").into(),
        _ => Rc::clone(parent),
    }
}
