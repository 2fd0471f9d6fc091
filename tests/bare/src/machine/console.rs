//! The second port, on which the machine says what happens: a byte at a time on the debug console.
//!
//! Deliberately absent: waiting. The console takes every byte at once, so this is no place for a completion.

use core::fmt;

use super::ports::Register;

/// The machine's debug console.
pub(crate) struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| Register::Console.write(byte));
        Ok(())
    }
}

/// Writes a line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let _ = fmt::write(&mut Console, text);
    let _ = fmt::write(&mut Console, format_args!("\n"));
}

/// Writes a line, with the arguments of `format_args!`.
macro_rules! say {
    ($($argument:tt)*) => { $crate::machine::console::line(format_args!($($argument)*)) };
}
pub(crate) use say;
