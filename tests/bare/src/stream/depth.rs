//! How deep a description is nested, found before it is parsed: the parser takes stack for every level, and whoever wrote
//! the description chose how many there are.
//!
//! The parser skips what it does not know up to a comma or a bracket, whatever stands there, so that it may take for
//! nesting what JSON has in a string: `[0",[[["]`. A quote, a colon or a bracket where JSON has none is refused here.
//!
//! Deliberately absent: everything else of JSON, which is the parser's.

use core::fmt;

/// Why a description is not parsed. Offsets count from its first byte.
pub(crate) enum Error {
    /// A bracket opens one level too many.
    Deep { offset: usize },
    /// A byte that begins a value, or ends a key, stands where that can't be.
    Misplaced { offset: usize, got: u8 },
}

impl Error {
    /// Where in the description.
    pub(crate) const fn offset(&self) -> u64 {
        match self {
            Self::Deep { offset } | Self::Misplaced { offset, .. } => *offset as u64,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deep { .. } => {
                write!(f, "wanted a description of at most {DEPTH_MAX} levels, got one more")
            }
            Self::Misplaced { got, .. } => {
                write!(f, "wanted a description in JSON, got a '{}' in a wrong place", got.escape_ascii())
            }
        }
    }
}

/// Checks that a text of JSON, or of anything else, takes the parser no deeper than [`DEPTH_MAX`] levels.
pub(crate) fn check(json: &[u8]) -> Result<(), Error> {
    let (mut depth, mut before) = (0_usize, b',');
    let mut bytes = json.iter().copied().enumerate();
    while let Some((offset, byte)) = bytes.next() {
        match (byte, before) {
            (b' ' | b'\t' | b'\n' | b'\r', _) => continue,
            (b'"', b'{' | b'[' | b',' | b':') => skip_string(&mut bytes),
            (b'{' | b'[', _) if depth == DEPTH_MAX => return Err(Error::Deep { offset }),
            (b'{' | b'[', b'[' | b',' | b':') => depth += 1,
            (b'}' | b']', _) => depth = depth.saturating_sub(1),
            (b':', b'"') => {}
            (b'"' | b'{' | b'[' | b':', _) => return Err(Error::Misplaced { offset, got: byte }),
            _ => {}
        }
        before = byte;
    }
    Ok(())
}

/// Goes on behind a string's last quote; a backslash takes the byte behind it along.
fn skip_string(bytes: &mut impl Iterator<Item = (usize, u8)>) {
    while let Some((_, byte)) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

/// Levels that a description may have. Those of this format have four.
const DEPTH_MAX: usize = 8;
