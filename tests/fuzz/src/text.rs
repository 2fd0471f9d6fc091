//! The texts of errors.
//!
//! Deliberately absent: what they say; that is tested word by word elsewhere.

use std::fmt::{self, Display, Write};

/// Writes an error's text, keeps none of it, and allocates nothing.
///
/// # Panics
/// When it can't be written, or is empty.
pub fn show(error: &impl Display) {
    let mut counted = Counted(0);
    write!(counted, "{error}").expect("a text");
    assert!(counted.0 > 0, "an error without a word");
}

struct Counted(usize);

impl Write for Counted {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.len();
        Ok(())
    }
}
