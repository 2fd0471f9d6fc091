//! What is said to whoever watches, without an allocator.
//!
//! Deliberately absent: a message that is kept for later. What goes wrong is told where all is known of it; what travels on
//! is the exit code.

use core::fmt::{self, Write as _};

use vfio_migration_core::session::Cause;

use crate::start::Standard;

/// How the program ends where it is not done; the numbers are those of `vfio-migrate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command line is wrong.
    Usage = 2,
    /// The device refused, or can't be used.
    Device = 3,
    /// The stream was refused.
    Stream = 4,
    /// The stream could not be read or written.
    InputOutput = 5,
}

impl Exit {
    /// Whose fault a session's failure is.
    pub(crate) const fn of(cause: &Cause) -> Self {
        match cause {
            Cause::Send(_) | Cause::SendClosed | Cause::Recv { .. } => Self::InputOutput,
            Cause::RecvClosed { .. }
            | Cause::SendConfig(_)
            | Cause::RecvConfig { .. }
            | Cause::Record(_)
            | Cause::Unexpected { .. } => Self::Stream,
            Cause::Cancelled
            | Cause::Refused { .. }
            | Cause::PrecopyInfo(_)
            | Cause::ReadData(_)
            | Cause::DrainedInStopCopy
            | Cause::WriteData { .. }
            | Cause::WriteDataZero { .. } => Self::Device,
        }
    }
}

/// Says why something is refused; it is an exit code.
macro_rules! refuse {
    ($exit:expr, $($words:tt)*) => {{
        $crate::say::say(format_args!($($words)*));
        $exit
    }};
}
pub(crate) use refuse;

/// Writes a line to standard error.
pub(crate) fn say(words: fmt::Arguments<'_>) {
    // Where nobody listens there is nobody to be told so.
    let _ = writeln!(StandardError, "without-std: {words}");
}

struct StandardError;

impl fmt::Write for StandardError {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut bytes = text.as_bytes();
        while !bytes.is_empty() {
            let count = rustix::io::write(Standard::Error.fd(), bytes).map_err(|_| fmt::Error)?;
            bytes = bytes.get(count.max(1)..).unwrap_or_default();
        }
        Ok(())
    }
}
