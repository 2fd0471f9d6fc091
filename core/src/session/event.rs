//! One event per thing done, with its outcome whether it worked or not: events are there for people who debug.
//!
//! `complete` returns the event of what it was told, so that none can be missed and none needs a place to be stored.
//!
//! [`Observe`] is whoever is told of them; where it has a clock, it is also told how long each thing took. [`Trace`] is
//! an event with the name of its device and that time, for a line in a log.
//!
//! Deliberately absent: a logger. With the feature `defmt` events can be printed on targets without a console.

use core::fmt;
use core::time::Duration;

use super::{Code, DataRead, PrecopyInfo};
use crate::device::State;

/// What a session asked for, and how it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event {
    /// A state was asked for.
    SetState {
        /// The state.
        state: State,
        /// Whether this was recovery from a failure or a cancel.
        recovery: bool,
        /// The kernel's answer.
        result: Result<(), Code>,
    },
    /// The device was asked how much PRE_COPY has left.
    PrecopyInfo {
        /// What it said.
        result: Result<PrecopyInfo, Code>,
    },
    /// The device's data were read.
    ReadData {
        /// Bytes of the buffer.
        offered: usize,
        /// What came.
        result: Result<DataRead, Code>,
    },
    /// Bytes were given to the link.
    Send {
        /// Bytes that were given.
        offered: usize,
        /// Bytes that it took.
        result: Result<usize, Code>,
    },
    /// The configuration's body was sent.
    SendConfig {
        /// How it went.
        result: Result<(), Code>,
    },
    /// Bytes were taken from the link.
    Recv {
        /// Bytes that were wanted.
        offered: usize,
        /// Bytes that came.
        result: Result<usize, Code>,
    },
    /// Data were written into the device.
    WriteData {
        /// Bytes that were given.
        offered: usize,
        /// Bytes that it took.
        result: Result<usize, Code>,
    },
    /// The configuration's body was read.
    RecvConfig {
        /// Its length in bytes.
        result: Result<u64, Code>,
    },
    /// The device was reset.
    Reset {
        /// The kernel's answer.
        result: Result<(), Code>,
    },
}

/// Whoever is told of events. A closure that takes an [`Event`] is one without a clock.
pub trait Observe {
    /// The time now, counted from any fixed moment; nothing without a clock.
    fn now(&self) -> Option<Duration> {
        None
    }

    /// Takes note of an event, and of how long it took where there is a clock.
    fn observe(&mut self, event: &Event, took: Option<Duration>);
}

impl<F: FnMut(&Event)> Observe for F {
    fn observe(&mut self, event: &Event, _: Option<Duration>) {
        self(event);
    }
}

/// An event of a device, as a line of a log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Trace<'a> {
    /// The device's name.
    pub device: &'a str,
    /// What was done, and how it went.
    pub event: Event,
    /// How long it took, where the caller has a clock.
    pub took: Option<Duration>,
}

impl Event {
    /// Whether what was tried went well.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        match self {
            Self::SetState { result, .. } | Self::SendConfig { result } | Self::Reset { result } => {
                result.is_ok()
            }
            Self::PrecopyInfo { result } => result.is_ok(),
            Self::ReadData { result, .. } => result.is_ok(),
            Self::Send { result, .. } | Self::Recv { result, .. } | Self::WriteData { result, .. } => {
                result.is_ok()
            }
            Self::RecvConfig { result } => result.is_ok(),
        }
    }
}

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.device, self.event)?;
        let micros = self.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        micros.map_or(Ok(()), |micros| write!(f, " in {micros} us"))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetState { state, recovery, result } => {
                let why = if *recovery { " to recover" } else { "" };
                write!(f, "set {state}{why}")?;
                outcome(f, result, |()| "ok")
            }
            Self::PrecopyInfo { result } => {
                f.write_str("precopy info")?;
                outcome(f, result, Told::Left)
            }
            Self::ReadData { offered, result } => {
                write!(f, "read data, room for {offered}")?;
                outcome(f, result, |read| match read {
                    DataRead::Bytes(count) => Told::Count(count),
                    DataRead::Drained => Told::Word("nothing now"),
                    DataRead::End => Told::Word("end"),
                })
            }
            Self::Send { offered, result } => {
                write!(f, "send {offered}")?;
                outcome(f, result, |count| count)
            }
            Self::SendConfig { result } => {
                f.write_str("send configuration")?;
                outcome(f, result, |()| "ok")
            }
            Self::Recv { offered, result } => {
                write!(f, "receive {offered}")?;
                outcome(f, result, |count| count)
            }
            Self::WriteData { offered, result } => {
                write!(f, "write data {offered}")?;
                outcome(f, result, |count| count)
            }
            Self::RecvConfig { result } => {
                f.write_str("receive configuration")?;
                outcome(f, result, |count| count)
            }
            Self::Reset { result } => {
                f.write_str("reset")?;
                outcome(f, result, |()| "ok")
            }
        }
    }
}

/// What a device told, for people.
enum Told {
    Left(PrecopyInfo),
    Count(usize),
    Word(&'static str),
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left(PrecopyInfo { initial_bytes, dirty_bytes, reinit }) => {
                let anew = if *reinit { ", begun anew" } else { "" };
                write!(f, "initial {initial_bytes}, dirty {dirty_bytes}{anew}")
            }
            Self::Count(count) => count.fmt(f),
            Self::Word(word) => f.write_str(word),
        }
    }
}

fn outcome<T: Copy, D: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    result: &Result<T, Code>,
    show: impl FnOnce(T) -> D,
) -> fmt::Result {
    match result {
        Ok(value) => write!(f, ": {}", show(*value)),
        Err(code) => write!(f, ": {code}"),
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::string::ToString;

    use super::*;

    #[test]
    fn every_event_says_what_was_done_and_how_it_went() {
        let table = [
            (
                Event::SetState { state: State::StopCopy, recovery: false, result: Ok(()) },
                "set STOP_COPY: ok",
            ),
            (
                Event::SetState { state: State::Stop, recovery: true, result: Err(Code(22)) },
                "set STOP to recover: error 22",
            ),
            (
                Event::PrecopyInfo {
                    result: Ok(PrecopyInfo { initial_bytes: 24, dirty_bytes: 4096, reinit: false }),
                },
                "precopy info: initial 24, dirty 4096",
            ),
            (
                Event::PrecopyInfo {
                    result: Ok(PrecopyInfo { initial_bytes: 24, dirty_bytes: 0, reinit: true }),
                },
                "precopy info: initial 24, dirty 0, begun anew",
            ),
            (Event::PrecopyInfo { result: Err(Code(22)) }, "precopy info: error 22"),
            (Event::ReadData { offered: 40, result: Ok(DataRead::Bytes(7)) }, "read data, room for 40: 7"),
            (
                Event::ReadData { offered: 40, result: Ok(DataRead::Drained) },
                "read data, room for 40: nothing now",
            ),
            (Event::ReadData { offered: 40, result: Ok(DataRead::End) }, "read data, room for 40: end"),
            (Event::Send { offered: 9, result: Ok(4) }, "send 9: 4"),
            (Event::SendConfig { result: Err(Code(5)) }, "send configuration: error 5"),
            (Event::Recv { offered: 8, result: Ok(0) }, "receive 8: 0"),
            (Event::WriteData { offered: 8, result: Err(Code(14)) }, "write data 8: error 14"),
            (Event::RecvConfig { result: Ok(276) }, "receive configuration: 276"),
            (Event::Reset { result: Ok(()) }, "reset: ok"),
        ];
        for (event, text) in table {
            assert_eq!(event.to_string(), text);
            assert_eq!(event.is_ok(), !text.contains("error"), "{text}");
        }
    }

    #[test]
    fn a_trace_names_its_device_and_says_how_long_it_took_where_that_is_known() {
        let event = Event::Reset { result: Ok(()) };
        let trace = Trace { device: "0000:3b:00.2", event, took: None };
        assert_eq!(trace.to_string(), "0000:3b:00.2: reset: ok");
        let trace = Trace { took: Some(Duration::from_micros(1500)), ..trace };
        assert_eq!(trace.to_string(), "0000:3b:00.2: reset: ok in 1500 us");
    }
}
