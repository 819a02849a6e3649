//! Names for what has one already that flowctl may not take as it is: in the shape of a name, and no two the same.

/// Of any name, in characters.
const NAME_MAX: usize = 64;

/// ASCII `text` in the shape of a name: lower case, `_` for what is neither letter nor digit, `prefix` before what then
/// does not begin with a letter, cut where it is too long.
pub(super) fn shaped(text: &str, prefix: &str) -> String {
    let characters = text.chars().map(|c| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '_',
    });
    let mut name: String = characters.collect();
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, prefix);
    }
    name.truncate(NAME_MAX);
    name
}

/// The first of `names` that is free, else `last`, else that with a number behind it.
pub(super) fn first_free(
    names: impl IntoIterator<Item = String>,
    last: String,
    is_free: impl Fn(&str) -> bool,
) -> String {
    let numbered = (2_u64..).map(|number| {
        let suffix = format!("_{number}");
        let kept = last.len().min(NAME_MAX - suffix.len());
        format!("{}{suffix}", &last[..kept])
    });
    let mut candidates = (names.into_iter().chain([last.clone()])).chain(numbered);
    // The numbers do not end.
    candidates.find(|name| is_free(name)).unwrap_or(last)
}
