//! The kernel's answers in core's words, and in words for people.
//!
//! Deliberately absent: what to do about them. Sessions recover; callers decide.

use rustix::io::{Errno, Result};
use vfio_migration_core::session::{Code, DataRead};

/// An errno as core's [`Code`].
#[must_use]
pub fn code(errno: Errno) -> Code {
    Code(errno.raw_os_error())
}

/// What a `read` of a data fd says: 0 is the end, ENOMSG that there is nothing now.
///
/// # Errors
/// Any other errno.
pub fn data_read(answer: Result<usize>) -> core::result::Result<DataRead, Code> {
    match answer {
        Ok(0) => Ok(DataRead::End),
        Ok(count) => Ok(DataRead::Bytes(count)),
        Err(Errno::NOMSG) => Ok(DataRead::Drained),
        Err(errno) => Err(code(errno)),
    }
}

/// A code of the kernel in words, without its number.
#[cfg(feature = "std")]
#[must_use]
pub fn in_words(code: Code) -> String {
    let mut text = std::io::Error::from_raw_os_error(code.0).to_string();
    text.truncate(text.find(" (os error").unwrap_or(text.len()));
    text
}
