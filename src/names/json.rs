//! What is read of JSON that others write: lists with an end, and text that need not be UTF-8, so that neither a long
//! answer nor one odd name costs all the others.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::lease::LEASES_MAX;

/// The first elements of a list; beyond `LEASES_MAX` they are passed over.
#[derive(Debug)]
pub struct Bounded<T>(pub Vec<T>);

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Bounded(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
    type Value = Bounded<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Bounded<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < LEASES_MAX {
            match elements.next_element()? {
                Some(element) => kept.push(element),
                None => return Ok(Bounded(kept)),
            }
        }
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Bounded(kept))
    }
}

/// Text with a replacement character for what is not UTF-8.
#[derive(Debug, Default)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(AnyText)
    }
}

struct AnyText;

impl Visitor<'_> for AnyText {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
        Ok(Text(String::from_utf8_lossy(bytes).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_without_an_end_is_cut_and_the_rest_is_read_all_the_same() {
        let long = format!("[[{}0], [7]]", "1,".repeat(LEASES_MAX + 5));
        let [Bounded(first), Bounded(second)]: [Bounded<u8>; 2] =
            serde_json::from_str(&long).unwrap();
        assert_eq!((first.len(), second), (LEASES_MAX, vec![7]));
    }

    #[test]
    fn text_that_is_not_utf8_is_text_all_the_same() {
        let Text(text) = serde_json::from_reader(&b"\"a\xff\\u001b\\ud800b\""[..]).unwrap();
        assert!(
            text.starts_with("a\u{fffd}\u{1b}") && text.ends_with('b'),
            "{text:?}"
        );
    }
}
