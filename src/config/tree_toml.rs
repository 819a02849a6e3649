//! TOML into the tree, with as many syntax errors as the parser can tell apart.

use std::ops::Range;
use std::rc::Rc;

use toml::de::{DeTable, DeValue, Error};

use super::tree::{Entry, Node, Parsed, SyntaxError, Value, path_of_element, path_of_key};

/// What the parser says of a bare word.
const UNQUOTED: &str = "string values must be quoted";

/// The parser's errors after which the rest of the tree is as written. Should its wording change, more than
/// necessary is held back until the syntax is right, nothing worse.
const CONTAINED: [&str; 3] = [UNQUOTED, "invalid basic string", "invalid literal string"];

/// For so many duplicate keys the first place is looked up; each costs another pass over the file.
const TWICE_MAX: usize = 20;

/// A key that no file has.
const MARKER: &str = "flowctl-marks-the-place-of-a-key-given-twice";

/// Reads a TOML document; the root is a table.
pub(super) fn parse(text: &str) -> Parsed {
    let (root, parse_errors) = DeTable::parse_recoverable(text);
    let mut errors = Vec::new();
    for error in parse_errors {
        let twice = if error.message() == "duplicate key" && errors.len() < TWICE_MAX {
            error.span().and_then(|span| given_twice(text, span))
        } else {
            None
        };
        errors.push(twice.unwrap_or_else(|| malformed(&error)));
    }
    let root = node(&DeValue::Table(root.into_inner()), "".into(), 0..0, 0..0);
    Parsed {
        root: Some(root),
        errors,
    }
}

fn malformed(error: &Error) -> SyntaxError {
    let (message, remedy) = match error.message().split_once(", expected ") {
        Some((UNQUOTED, _)) => (UNQUOTED, "put the value in double quotes".to_owned()),
        Some((message, expected)) => (message, format!("expected here: {expected}")),
        None => (error.message(), "remove or correct it".to_owned()),
    };
    SyntaxError::Malformed {
        offset: error.span().map_or(0, |span| span.start),
        message: format!("not TOML: {message}"),
        remedy,
        contained: CONTAINED.iter().any(|known| message.starts_with(known)),
    }
}

/// The parser does not say where the key at `span` was first. Under another name it is no duplicate, and the
/// first one is its neighbour in the tree.
fn given_twice(text: &str, span: Range<usize>) -> Option<SyntaxError> {
    let alone = format!("{} = 0", text.get(span.clone())?);
    let (alone, _) = DeTable::parse_recoverable(&alone);
    let name = alone.get_ref().keys().next()?.get_ref().to_string();
    // A third one further down would take the first one's place: read no further than this line.
    let line_rest = text.get(span.end..)?.lines().next().unwrap_or_default();
    let renamed = [text.get(..span.start)?, MARKER, line_rest].concat();
    let (tree, _) = DeTable::parse_recoverable(&renamed);
    let (path, table) = table_with_marker(tree.get_ref(), &"".into())?;
    let (first, _) = table.get_key_value(name.as_str())?;
    Some(SyntaxError::Twice {
        path: path_of_key(&path, &name),
        offset: span.start,
        first: first.span().start,
    })
}

fn table_with_marker<'a, 'i>(
    table: &'a DeTable<'i>,
    path: &Rc<str>,
) -> Option<(Rc<str>, &'a DeTable<'i>)> {
    if table.contains_key(MARKER) {
        return Some((Rc::clone(path), table));
    }
    table.iter().find_map(|(key, value)| {
        let inner = value.get_ref().as_table()?;
        table_with_marker(inner, &path_of_key(path, key.get_ref()))
    })
}

fn node(value: &DeValue<'_>, path: Rc<str>, key: Range<usize>, span: Range<usize>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => {
            match i128::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Value::Integer(integer),
                Err(_) => Value::Float(integer.to_string()),
            }
        }
        DeValue::Float(float) => Value::Float(float.as_str().to_owned()),
        DeValue::Boolean(boolean) => Value::Boolean(*boolean),
        DeValue::Datetime(_) => Value::Date,
        DeValue::Array(elements) => Value::List(
            (elements.iter().enumerate())
                .map(|(index, element)| {
                    let path = path_of_element(&path, index);
                    node(element.get_ref(), path, element.span(), element.span())
                })
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(entries(table, &path)),
    };
    Node {
        path,
        key,
        span,
        value,
    }
}

fn entries(table: &DeTable<'_>, path: &Rc<str>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            name: key.get_ref().to_string(),
            node: node(
                value.get_ref(),
                path_of_key(path, key.get_ref()),
                key.span(),
                value.span(),
            ),
        })
        .collect();
    // The parser's map is sorted by name.
    entries.sort_by_key(|entry| entry.node.key.start);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twice(text: &str) -> Vec<(String, usize, usize)> {
        parse(text)
            .errors
            .iter()
            .filter_map(|error| match error {
                SyntaxError::Twice {
                    path,
                    offset,
                    first,
                } => Some((path.to_string(), *offset, *first)),
                SyntaxError::Malformed { .. } => None,
            })
            .collect()
    }

    #[test]
    fn a_key_given_twice_names_both_places() {
        assert_eq!(twice("a = 1\na = 2"), [("a".to_owned(), 6, 0)]);
        assert_eq!(twice("x = {b=1, b=2}"), [("x.b".to_owned(), 10, 5)]);
    }

    #[test]
    fn a_table_given_twice_names_both_places_whatever_stands_between() {
        let text = "[a.x]\n[b.x]\nx = 1\n[a.x]\n";
        assert_eq!(twice(text), [("a.x".to_owned(), 21, 3)]);
        let thrice = twice("[a]\n[a]\n[a]\n");
        assert_eq!(thrice, [("a".to_owned(), 5, 1), ("a".to_owned(), 9, 5)]);
    }

    #[test]
    fn entries_keep_the_order_of_the_file() {
        let Some(Node {
            value: Value::Table(entries),
            ..
        }) = parse("z = 1\n[b]\n[a]\n").root
        else {
            panic!("the root is a table");
        };
        let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["z", "b", "a"]);
    }

    #[test]
    fn several_syntax_errors_are_told_apart() {
        let parsed = parse("a = 1s\nb = \"x\nc = 2\n");
        assert_eq!(parsed.errors.len(), 2);
    }
}
