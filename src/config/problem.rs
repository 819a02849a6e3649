//! What is wrong with a configuration file, and where: one `Problem` each. Text that comes from the file is made
//! printable here, so that a problem can be written to a terminal or a log as it is.

use std::fmt;

/// How much of a value or a name is quoted, in characters: enough to recognise it in the file.
const QUOTED_MAX: usize = 48;

/// How long a sentence about it may be, in characters, whatever it quotes.
const SENTENCE_MAX: usize = 400;

/// One mistake in a configuration file. All text is printable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, e.g. `thresholds.uplink_full.raise`; empty where no key can be named.
    pub key_path: String,
    /// Counts from 1.
    pub line: usize,
    /// In characters, counts from 1.
    pub column: usize,
    /// The value as written, shortened; `None` where the key itself is the problem.
    pub value: Option<String>,
    /// What is wrong; reads on from the value.
    pub message: String,
    /// What would be right.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.key_path.is_empty() {
            write!(f, "{}: ", self.key_path)?;
        }
        if let Some(value) = &self.value {
            write!(f, "{value} ")?;
        }
        write!(f, "{}; {}", self.message, self.remedy)
    }
}

/// `text` with everything that a terminal would not show as a character of its own escaped: control characters,
/// escape sequences, bidirectional and invisible formatting, line separators.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    shown
}

/// The beginning of a name or a value, printable.
pub(super) fn shortened(text: &str) -> String {
    cut(text, QUOTED_MAX)
}

/// The beginning of a sentence, printable.
pub(super) fn sentence(text: &str) -> String {
    cut(text, SENTENCE_MAX)
}

fn cut(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((end, _)) => printable(&text[..end]) + "...",
        None => printable(text),
    }
}

/// The beginning of `text`, printable and in quotes.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// Turns byte offsets into lines and columns.
pub(super) struct Positions<'t> {
    text: &'t str,
    line_starts: Vec<usize>,
}

impl<'t> Positions<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Positions {
            text,
            line_starts: std::iter::once(0).chain(breaks).collect(),
        }
    }

    /// The line of the byte at `offset`, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset)
    }

    /// Line and column of the byte at `offset`, both from 1; an offset beyond the end is the end.
    pub(super) fn of(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.line(offset);
        let before = &self.text.as_bytes()[self.line_starts[line - 1]..offset];
        // Every byte that does not continue a UTF-8 sequence (0b10xx_xxxx) begins a character.
        let characters = before.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        (line, characters + 1)
    }

    /// What is written from `start` to `end`, shortened and printable.
    pub(super) fn excerpt(&self, span: &std::ops::Range<usize>) -> String {
        self.text
            .get(span.clone())
            .map(shortened)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_interpret_is_escaped() {
        let shown = printable("a\u{1b}[31m\u{202e}\u{200b}\n\u{2028}\u{9b}é");
        assert_eq!(shown, "a\\u{1b}[31m\\u{202e}\\u{200b}\\n\\u{2028}\\u{9b}é");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(shortened(&"é".repeat(60)), "é".repeat(48) + "...");
        assert_eq!(shortened(&"é".repeat(48)), "é".repeat(48));
        assert_eq!(sentence(&"é".repeat(401)), "é".repeat(400) + "...");
    }

    #[test]
    fn columns_count_characters() {
        let positions = Positions::new("é = 1\nab");
        assert_eq!(positions.of(3), (1, 3));
        assert_eq!(positions.of(8), (2, 2));
        assert_eq!(positions.of(99), (2, 3));
    }
}
