//! JSON into the tree. `serde_json` decides what is JSON, to the letter; `jsonc_parser`, which is more tolerant,
//! only says where everything stands.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::tree::{Entry, Node, Parsed, SyntaxError, Value, path_of_element, path_of_key};

const REMEDY: &str = "write strict JSON: keys and text in double quotes, no comments, no comma before a closing bracket";

/// Reads a JSON document. The root may be of any kind.
pub(super) fn parse(text: &str) -> Parsed {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let full = error.to_string();
        let message = full
            .rsplit_once(" at line ")
            .map_or(full.as_str(), |(m, _)| m);
        return malformed(offset_of(text, error.line(), error.column()), message);
    }
    let options = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    match parse_to_ast(text, &CollectOptions::default(), &options) {
        Err(error) => malformed(error.range().start, &error.kind().to_string()),
        Ok(parsed) => {
            let mut errors = Vec::new();
            let root = parsed
                .value
                .map(|value| node(value, "".into(), 0..0, &mut errors));
            Parsed { root, errors }
        }
    }
}

fn malformed(offset: usize, message: &str) -> Parsed {
    Parsed {
        root: None,
        errors: vec![SyntaxError::Malformed {
            offset,
            message: format!("not JSON: {message}"),
            remedy: REMEDY.to_owned(),
            contained: false,
        }],
    }
}

/// `serde_json` counts columns in bytes, from 1, and says 0 for a line's very beginning.
fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    (start + column.saturating_sub(1)).min(text.len())
}

fn node(
    value: ast::Value<'_>,
    path: Rc<str>,
    key: Range<usize>,
    errors: &mut Vec<SyntaxError>,
) -> Node {
    let range = value.range();
    let value = match value {
        ast::Value::StringLit(text) => Value::Text(text.value.into_owned()),
        ast::Value::NumberLit(number) => match number.value.parse() {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Float(number.value.to_owned()),
        },
        ast::Value::BooleanLit(boolean) => Value::Boolean(boolean.value),
        ast::Value::NullKeyword(_) => Value::Null,
        ast::Value::Array(array) => Value::List(
            (array.elements.into_iter().enumerate())
                .map(|(index, element)| {
                    let Range { start, end } = span(element.range());
                    node(element, path_of_element(&path, index), start..end, errors)
                })
                .collect(),
        ),
        ast::Value::Object(object) => Value::Table(entries(object, &path, errors)),
    };
    Node {
        path,
        key,
        span: span(range),
        value,
    }
}

fn entries(object: ast::Object<'_>, path: &Rc<str>, errors: &mut Vec<SyntaxError>) -> Vec<Entry> {
    let mut first_by_name: BTreeMap<String, usize> = BTreeMap::new();
    let mut entries = Vec::new();
    for property in object.properties {
        let key = span(property.name.range());
        let name = property.name.into_string();
        let path = path_of_key(path, &name);
        if let Some(&first) = first_by_name.get(&name) {
            let offset = key.start;
            errors.push(SyntaxError::Twice {
                path,
                offset,
                first,
            });
            continue;
        }
        first_by_name.insert(name.clone(), key.start);
        let node = node(property.value, path, key, errors);
        entries.push(Entry { name, node });
    }
    entries
}

fn span(range: jsonc_parser::common::Range) -> Range<usize> {
    range.start..range.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_json_is_accepted() {
        for text in [
            "{\"a\":1,}",
            "{\"a\":1} //",
            "{'a':1}",
            "{a:1}",
            "{\"a\":0x1}",
            "{\"a\":\"\n\"}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":.5}",
            "{\u{a0}}",
            "",
        ] {
            let parsed = parse(text);
            assert!(parsed.root.is_none(), "{text:?}");
            assert_eq!(parsed.errors.len(), 1, "{text:?}");
        }
    }

    #[test]
    fn a_key_given_twice_names_both_places() {
        let parsed = parse("{\"a\": {\"b\": 1, \"b\": 2}}");
        let [
            SyntaxError::Twice {
                path,
                offset,
                first,
            },
        ] = &parsed.errors[..]
        else {
            panic!("one error is expected");
        };
        assert_eq!((&**path, *offset, *first), ("a.b", 15, 7));
    }

    #[test]
    fn the_place_of_a_mistake_survives_earlier_lines() {
        let [SyntaxError::Malformed { offset, .. }] = parse("{\n\"é\": 1,\n\"b\" 2}").errors[..]
        else {
            panic!("one error is expected");
        };
        assert_eq!(offset, 15);
    }
}
