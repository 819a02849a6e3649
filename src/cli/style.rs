//! How output looks: colour, units, width, time zone. Decided once at the edge from options and terminal, then
//! handed to the pure renderers.

use std::io::IsTerminal;

use clap::ValueEnum;
use jiff::tz::TimeZone;

use super::format::Units;
use super::output;

/// Where the terminal does not say.
const USUAL_WIDTH: usize = 80;
const USUAL_HEIGHT: usize = 24;

/// `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// How output looks.
#[derive(Debug, Clone)]
pub struct Style {
    /// Whether to use colours.
    pub color: bool,
    /// How rates and volumes are scaled.
    pub units: Units,
    /// Columns to fill.
    pub width: usize,
    /// Rows to fill; `None` for as many as it takes.
    pub height: Option<usize>,
    /// Times are shown in this zone.
    pub timezone: TimeZone,
}

/// What a piece of text means, and so its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// As it is.
    Plain,
    /// Headings and names.
    Strong,
    /// What is there but does not matter now.
    Faint,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Needs somebody.
    Alarm,
}

impl Style {
    /// For standard output as it is.
    pub fn of_stdout(color: ColorChoice, units: Units) -> Style {
        let terminal = output::is_terminal();
        let size = output::terminal_size();
        Style {
            color: use_color(
                color,
                terminal,
                std::env::var("NO_COLOR").ok().as_deref(),
                std::env::var("TERM").ok().as_deref(),
            ),
            units,
            width: size.map_or(USUAL_WIDTH, |(columns, _)| columns),
            height: None,
            timezone: TimeZone::system(),
        }
    }

    /// For standard error, in lines of any length.
    pub fn of_stderr(color: ColorChoice, units: Units) -> Style {
        Style {
            color: use_color(
                color,
                std::io::stderr().is_terminal(),
                std::env::var("NO_COLOR").ok().as_deref(),
                std::env::var("TERM").ok().as_deref(),
            ),
            units,
            width: USUAL_WIDTH,
            height: None,
            timezone: TimeZone::system(),
        }
    }

    /// For the whole terminal as large as it is at the moment, and its height.
    pub fn on_screen(&self) -> (Style, usize) {
        let (width, height) = output::terminal_size().unwrap_or((self.width, USUAL_HEIGHT));
        let style = Style {
            width,
            height: Some(height),
            ..self.clone()
        };
        (style, height)
    }

    /// `text` in the colour of its meaning, if colours are used.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Plain => return text.to_owned(),
            Paint::Strong => "1",
            Paint::Faint => "2",
            Paint::Good => "32",
            Paint::Warn => "33",
            Paint::Alarm => "1;31",
        };
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// NO_COLOR counts when it is set and not empty (no-color.org).
fn use_color(
    choice: ColorChoice,
    terminal: bool,
    no_color: Option<&str>,
    term: Option<&str>,
) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            terminal
                && no_color.is_none_or(str::is_empty)
                && term.is_some_and(|term| term != "dumb")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_that_want_it_unless_said_otherwise() {
        let auto =
            |terminal, no_color, term| use_color(ColorChoice::Auto, terminal, no_color, term);
        assert!(auto(true, None, Some("xterm")));
        assert!(auto(true, Some(""), Some("xterm")));
        assert!(!auto(true, Some("1"), Some("xterm")));
        assert!(!auto(true, None, Some("dumb")));
        assert!(!auto(false, None, Some("xterm")));
        assert!(use_color(ColorChoice::Always, false, Some("1"), None));
        assert!(!use_color(ColorChoice::Never, true, None, Some("xterm")));
    }
}
