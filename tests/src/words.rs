//! The rules for every text that people read.
//!
//! Deliberately absent: the texts. Each table stands in a test, `words.rs` and `words_host.rs`, letter for letter.

use std::collections::HashSet;
use std::fmt::{Debug, Display};
use std::mem::discriminant;

/// Holds each text against its row and against the rules for all of them, and counts the variants.
///
/// # Panics
/// When a text is another one or against a rule, when a variant has no row, or when two rows say the same.
pub fn check<T: Display + Debug>(table: &[(T, &str)], variants: usize) {
    for (value, text) in table {
        assert_eq!(value.to_string(), *text, "{value:?}");
        assert!(!text.starts_with(char::is_uppercase), "{text:?} begins with a capital letter");
        assert!(!text.ends_with('.'), "{text:?} ends with a full stop");
        assert!(!text.trim().is_empty() && text.trim() == *text && !text.contains('\n'), "{text:?}");
    }
    let seen: HashSet<_> = table.iter().map(|(value, _)| discriminant(value)).collect();
    assert_eq!(seen.len(), variants, "each variant has a row");
    let texts: HashSet<_> = table.iter().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), table.len(), "no two rows say the same");
}
