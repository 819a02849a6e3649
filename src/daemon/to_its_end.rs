//! What a thread of one task came to, also where it panicked: the loop would wait for a task without an end for ever.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What comes of `task`, or that the thread that `does` it panicked.
pub fn to_its_end<T>(does: &str, task: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(task)).map_err(|_| {
        format!(
            "the thread that {does} panicked; its last words are on the daemon's standard error"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_end_too() {
        let panics = || -> u8 { panic!("as a test does") };
        let why = to_its_end("tests", panics).unwrap_err();
        assert!(why.starts_with("the thread that tests panicked"), "{why}");
        assert_eq!(to_its_end("tests", || 7), Ok(7));
    }
}
