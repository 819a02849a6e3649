//! Aligned columns without borders, and wrapped text. A cell is measured by its characters, so a cell holds names
//! and numbers only; text that others chose stands at the end of a line.

use super::style::{Paint, Style};

/// Between two columns.
const GAP: &str = "  ";

/// To which side a column's cells are pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// What it means.
    pub paint: Paint,
}

impl Cell {
    /// Text with a meaning.
    pub fn new(paint: Paint, text: impl Into<String>) -> Cell {
        Cell {
            text: text.into(),
            paint,
        }
    }

    /// Text as it is.
    pub fn plain(text: impl Into<String>) -> Cell {
        Cell::new(Paint::Plain, text)
    }
}

/// The rows as lines; every row has one cell for each of `aligns`. No line ends with blanks.
pub fn lines(rows: &[Vec<Cell>], aligns: &[Align], style: &Style) -> Vec<String> {
    let widths: Vec<usize> = (0..aligns.len())
        .map(|column| width_of(rows, column))
        .collect();
    rows.iter()
        .map(|row| {
            let mut line = String::new();
            let mut pending = 0;
            for (column, cell) in row.iter().enumerate() {
                let length = cell.text.chars().count();
                let blanks = widths[column] - length;
                let (before, after) = match aligns[column] {
                    Align::Left => (0, blanks),
                    Align::Right => (blanks, 0),
                };
                pending += before;
                if length > 0 {
                    line.push_str(&" ".repeat(pending));
                    line.push_str(&style.paint(cell.paint, &cell.text));
                    pending = 0;
                }
                pending += after + GAP.len();
            }
            line
        })
        .collect()
}

/// The width of one column, its heading included.
pub fn width_of(rows: &[Vec<Cell>], column: usize) -> usize {
    rows.iter()
        .filter_map(|row| row.get(column))
        .map(|cell| cell.text.chars().count())
        .max()
        .unwrap_or(0)
}

/// `text` in lines of at most `width` characters, broken between words, each beginning with `indent`.
pub fn wrapped(text: &str, width: usize, indent: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::from(indent);
    let mut empty = true;
    for word in text.split(' ') {
        let wide = line.chars().count() + 1 + word.chars().count() > width;
        if wide && !empty {
            lines.push(std::mem::replace(&mut line, String::from(indent)));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::format::Units;

    fn style(color: bool) -> Style {
        Style {
            color,
            units: Units::Usual,
            width: 80,
            height: None,
            timezone: jiff::tz::TimeZone::UTC,
        }
    }

    #[test]
    fn columns_are_aligned_whatever_their_colour() {
        let rows = vec![
            vec![Cell::plain("name"), Cell::plain("rate"), Cell::plain("x")],
            vec![
                Cell::new(Paint::Good, "a"),
                Cell::plain("12"),
                Cell::plain(""),
            ],
        ];
        let aligns = [Align::Left, Align::Right, Align::Left];
        assert_eq!(
            lines(&rows, &aligns, &style(false)),
            ["name  rate  x", "a       12"]
        );
        assert_eq!(
            lines(&rows, &aligns, &style(true))[1],
            "\x1b[32ma\x1b[0m       12"
        );
    }

    #[test]
    fn text_is_broken_between_words() {
        assert_eq!(wrapped("one two three", 9, "  "), ["  one two", "  three"]);
        assert_eq!(wrapped("unbreakable", 4, " "), [" unbreakable"]);
    }
}
