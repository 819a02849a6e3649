//! What an object map holds, as the kernel compares it: to know whether a map that is already there is the one
//! wanted. A map that is made anew misses the packets that are on their way at that moment.

use std::collections::BTreeMap;

use super::ruleset::{KeyValue, ObjectMap};

/// A map's content, comparable between plan and kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// Bytes of a key.
    pub key_length: usize,
    /// Whether it holds intervals rather than single keys.
    pub interval: bool,
    /// Counter and last key, by the first key; both ends belong to it.
    pub elements: BTreeMap<Vec<u8>, (Vec<u8>, String)>,
}

/// One element as the kernel lists it. In a tree of intervals an interval is two: its beginning, and one that ends
/// it and belongs to it no more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// The key, or where an interval begins or has ended.
    pub key: Vec<u8>,
    /// The counter; `None` for the end of an interval.
    pub counter: Option<String>,
    /// The last key, where the kernel keeps both in one element.
    pub last: Option<Vec<u8>>,
}

impl Content {
    /// Of a map of the plan.
    pub fn of(map: &ObjectMap) -> Self {
        let elements = map.elements.iter().map(|element| {
            let (first, last): (Vec<_>, Vec<_>) = element.key.iter().map(KeyValue::bounds).unzip();
            (first.concat(), (last.concat(), element.counter.to_string()))
        });
        Content {
            key_length: map.fields.iter().map(|field| field.width()).sum(),
            interval: map.is_interval(),
            elements: elements.collect(),
        }
    }

    /// Of a map in the kernel, from its elements in any order.
    pub fn listed(key_length: usize, interval: bool, mut listed: Vec<Listed>) -> Self {
        // At one key an end, which has no counter, comes before a beginning.
        listed.sort_by(|a, b| (&a.key, &a.counter).cmp(&(&b.key, &b.counter)));
        let mut elements: BTreeMap<Vec<u8>, (Vec<u8>, String)> = BTreeMap::new();
        let mut open: Option<(Vec<u8>, String)> = None;
        for Listed { key, counter, last } in listed {
            if let Some((first, counter)) = open.take() {
                elements.insert(first, (before(&key), counter));
            }
            match (counter, last) {
                (Some(counter), Some(last)) => drop(elements.insert(key, (last, counter))),
                (Some(counter), None) if interval => open = Some((key, counter)),
                (Some(counter), None) => drop(elements.insert(key.clone(), (key, counter))),
                (None, _) => {}
            }
        }
        // What nothing ends goes on to the highest key.
        elements.extend(open.map(|(first, counter)| (first, (vec![0xff; key_length], counter))));
        Content {
            key_length,
            interval,
            elements,
        }
    }
}

/// The key before, in big-endian order; the lowest stays as it is.
fn before(key: &[u8]) -> Vec<u8> {
    let mut lower = key.to_vec();
    for byte in lower.iter_mut().rev() {
        let (difference, borrowed) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrowed {
            return lower;
        }
    }
    key.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(key: [u8; 2], counter: Option<&str>) -> Listed {
        Listed {
            key: key.to_vec(),
            counter: counter.map(str::to_owned),
            last: None,
        }
    }

    #[test]
    fn beginnings_and_ends_are_intervals_again() {
        let tree = vec![
            listed([20, 0], None),
            listed([10, 0], Some("a")),
            listed([11, 0], None),
            listed([11, 0], Some("b")),
            listed([240, 0], Some("c")),
        ];
        let content = Content::listed(2, true, tree);
        let shown: Vec<_> = content
            .elements
            .into_iter()
            .map(|(first, (last, counter))| (first, last, counter))
            .collect();
        let interval = |first: [u8; 2], last: [u8; 2], counter: &str| {
            (first.to_vec(), last.to_vec(), counter.to_owned())
        };
        assert_eq!(
            shown,
            [
                interval([10, 0], [10, 255], "a"),
                interval([11, 0], [19, 255], "b"),
                interval([240, 0], [255, 255], "c"),
            ]
        );
    }

    #[test]
    fn single_keys_and_ranges_in_one_element_stay_what_they_are() {
        let single = Content::listed(2, false, vec![listed([1, 2], Some("a"))]);
        assert_eq!(single.elements[&vec![1, 2]], (vec![1, 2], "a".to_owned()));
        let range = Listed {
            last: Some(vec![1, 9]),
            ..listed([1, 2], Some("a"))
        };
        let ranges = Content::listed(2, true, vec![range]);
        assert_eq!(ranges.elements[&vec![1, 2]], (vec![1, 9], "a".to_owned()));
    }
}
