//! Gathers the problems of a file. What merely follows from a syntax error, and nothing else, is held back.

use std::collections::BTreeSet;

use super::problem::{Positions, Problem, sentence};
use super::tree::{Node, SyntaxError, Value};

/// What is wrong with a value, and what would be right. Where it stands is added by whoever read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub message: String,
    pub remedy: String,
}

impl Wrong {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Wrong {
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// The problems found so far.
pub(super) struct Problems<'t> {
    positions: Positions<'t>,
    found: Vec<Problem>,
    /// Lines with a syntax error: what is read from them is not what was meant.
    malformed_lines: BTreeSet<usize>,
    /// From this line on the tree may not be as written.
    trusted_before_line: usize,
    /// Whether what the tree does not have is really not in the file.
    complete: bool,
}

impl<'t> Problems<'t> {
    /// Starts with the syntax errors of `text`.
    pub(super) fn new(text: &'t str, errors: Vec<SyntaxError>) -> Self {
        let mut problems = Problems {
            positions: Positions::new(text),
            found: Vec::new(),
            malformed_lines: BTreeSet::new(),
            trusted_before_line: usize::MAX,
            complete: true,
        };
        for error in errors {
            problems.syntax(error);
        }
        problems
    }

    fn syntax(&mut self, error: SyntaxError) {
        match error {
            SyntaxError::Malformed {
                offset,
                message,
                remedy,
                contained,
            } => {
                self.add(offset, "", None, Wrong::new(message, remedy));
                let line = self.line(offset);
                self.malformed_lines.insert(line);
                if !contained {
                    self.complete = false;
                    self.trusted_before_line = self.trusted_before_line.min(line);
                }
            }
            SyntaxError::Twice {
                path,
                offset,
                first,
            } => {
                let message = format!("given twice, first on line {}", self.line(first));
                let wrong = Wrong::new(message, "keep one of the two");
                self.add(offset, &path, None, wrong);
            }
        }
    }

    fn add(&mut self, offset: usize, path: &str, value: Option<String>, wrong: Wrong) {
        let (line, column) = self.positions.of(offset);
        self.found.push(Problem {
            key_path: path.to_owned(),
            line,
            column,
            value,
            message: sentence(&wrong.message),
            remedy: sentence(&wrong.remedy),
        });
    }

    fn trusts(&self, offset: usize) -> bool {
        let line = self.line(offset);
        line < self.trusted_before_line && !self.malformed_lines.contains(&line)
    }

    /// The line of `offset`, from 1.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.positions.line(offset)
    }

    /// The value of `node` is wrong.
    pub(super) fn wrong(&mut self, node: &Node, wrong: Wrong) {
        if self.trusts(node.span.start) {
            // A table's place is its header, and its text would be a whole section.
            let is_table = matches!(node.value, Value::Table(_));
            let value = (!is_table).then(|| self.positions.excerpt(&node.span));
            self.add(node.span.start, &node.path, value, wrong);
        }
    }

    /// The key of `node` is wrong, whatever its value.
    pub(super) fn wrong_key(&mut self, node: &Node, wrong: Wrong) {
        if self.trusts(node.key.start) {
            self.add(node.key.start, &node.path, None, wrong);
        }
    }

    /// Something that belongs to the table `node` is not there.
    pub(super) fn missing(&mut self, node: &Node, wrong: Wrong) {
        if self.complete {
            self.wrong_key(node, wrong);
        }
    }

    /// The value of `node` names something that is not there.
    pub(super) fn undefined(&mut self, node: &Node, wrong: Wrong) {
        if self.complete {
            self.wrong(node, wrong);
        }
    }

    /// Names may be defined in what could not be read: no reference is held to be undefined from now on.
    pub(super) fn incomplete(&mut self) {
        self.complete = false;
    }

    /// The result, with what is wrong reported at `node`.
    pub(super) fn check<T>(&mut self, node: &Node, result: Result<T, Wrong>) -> Option<T> {
        result.map_err(|wrong| self.wrong(node, wrong)).ok()
    }

    /// All of them, in the order of the file.
    pub(super) fn into_sorted(mut self) -> Vec<Problem> {
        self.found
            .sort_by_key(|problem| (problem.line, problem.column));
        // One unclosed bracket is told once for each level that it leaves open.
        self.found.dedup();
        self.found
    }
}
