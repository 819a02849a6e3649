//! Which of the known names a misspelt one was probably meant to be.

use super::problem::quoted;

/// No name of ours is longer; comparing longer ones with each other costs time for nothing.
pub(super) const COMPARED_MAX: usize = 64;

/// So many known names are compared: a file of nothing but wrong references must not take minutes.
const CANDIDATES_MAX: usize = 1000;

/// The candidate that `name` was probably meant to be.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let length = name.chars().count();
    if length > COMPARED_MAX {
        return None;
    }
    let near_enough = 1 + length / 4;
    candidates
        .into_iter()
        .take(CANDIDATES_MAX)
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= near_enough)
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= near_enough)
        .min()
        .map(|(_, candidate)| candidate)
}

/// What to write instead of a reference to something that is not defined.
pub(super) fn instead_of<'a>(
    name: &str,
    defined: impl Iterator<Item = &'a str>,
    how_to_define: &str,
) -> String {
    match nearest(name, defined) {
        Some(near) => format!("did you mean {}?", quoted(near)),
        None => how_to_define.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_near() {
        let known = ["device", "capacity"];
        assert_eq!(nearest("devise", known), Some("device"));
        assert_eq!(nearest("capcity", known), Some("capacity"));
        assert_eq!(nearest("speed", known), None);
        assert_eq!(nearest(&"d".repeat(65), known), None);
    }
}
