//! Core's events, and a transfer's own steps, as events of the crate `tracing`.
//!
//! Each has the whole line as its message, for people, and its parts as fields, for programs: `device`, `action`,
//! `state`, `recovery`, `offered`, `bytes`, `outcome` (of a read: data, nothing now, end), `initial_bytes`, `dirty_bytes`,
//! `reinit`, `error` and `took_us`, those that it has.
//! What is done to a device is INFO, or WARN where it was refused; what moves data is DEBUG. The target is [`TARGET`].
//!
//! Deliberately absent: a subscriber. Whoever runs the program chooses where events go.

use std::time::{Duration, Instant};

use tracing::{Level, event};
use vfio_migration_core::session::event::{Event, Observe, Trace};
use vfio_migration_core::session::{Code, DataRead};

/// The target of all events.
pub const TARGET: &str = "vfio_migration";

/// Tells `tracing` of one device's events, with their durations, and then whoever else wants to know.
pub struct Tracer<'a, F> {
    device: &'a str,
    clock: Instant,
    also: F,
}

impl<'a, F: FnMut(&Event, Duration)> Tracer<'a, F> {
    /// A tracer for `device`; `also` is told of every event and of the time that it took.
    pub fn new(device: &'a str, also: F) -> Self {
        Self { device, clock: Instant::now(), also }
    }
}

impl<F: FnMut(&Event, Duration)> Observe for Tracer<'_, F> {
    fn now(&self) -> Option<Duration> {
        Some(self.clock.elapsed())
    }

    fn observe(&mut self, event: &Event, took: Option<Duration>) {
        emit(&Trace { device: self.device, event: *event, took });
        (self.also)(event, took.unwrap_or_default());
    }
}

/// Tells `tracing` of one event.
pub fn emit(trace: &Trace<'_>) {
    let Parts { action, state, recovery, offered, bytes, outcome, initial_bytes, dirty_bytes, reinit, error } =
        Parts::of(&trace.event);
    let took_us = trace.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    macro_rules! emit {
        ($level:expr) => {
            event!(
                target: TARGET, $level, device = trace.device, action, state, recovery, offered, bytes,
                outcome, initial_bytes, dirty_bytes, reinit, error, took_us, "{trace}"
            )
        };
    }
    match trace.event {
        Event::ReadData { .. } | Event::Send { .. } | Event::Recv { .. } | Event::WriteData { .. }
            if error.is_none() =>
        {
            emit!(Level::DEBUG);
        }
        _ if error.is_none() => emit!(Level::INFO),
        _ => emit!(Level::WARN),
    }
}

/// An event in parts.
#[derive(Default)]
struct Parts {
    action: &'static str,
    state: Option<&'static str>,
    recovery: Option<bool>,
    offered: Option<u64>,
    bytes: Option<u64>,
    outcome: Option<&'static str>,
    initial_bytes: Option<u64>,
    dirty_bytes: Option<u64>,
    reinit: Option<bool>,
    error: Option<i32>,
}

impl Parts {
    fn of(event: &Event) -> Self {
        let error = |result: Result<(), Code>| result.err().map(|Code(number)| number);
        let moved = |action, offered: usize, result: Result<usize, Code>| Self {
            action,
            offered: Some(offered as u64),
            bytes: result.ok().map(|count| count as u64),
            error: error(result.map(drop)),
            ..Self::default()
        };
        match *event {
            Event::SetState { state, recovery, result } => Self {
                action: "set_state",
                state: Some(state.name()),
                recovery: Some(recovery),
                error: error(result),
                ..Self::default()
            },
            Event::PrecopyInfo { result } => Self {
                action: "precopy_info",
                initial_bytes: result.ok().map(|info| info.initial_bytes),
                dirty_bytes: result.ok().map(|info| info.dirty_bytes),
                reinit: result.ok().map(|info| info.reinit),
                error: error(result.map(drop)),
                ..Self::default()
            },
            Event::ReadData { offered, result } => {
                let outcome = result.ok().map(outcome);
                Self { outcome, ..moved("read_data", offered, result.map(count)) }
            }
            Event::Send { offered, result } => moved("send", offered, result),
            Event::Recv { offered, result } => moved("recv", offered, result),
            Event::WriteData { offered, result } => moved("write_data", offered, result),
            Event::SendConfig { result } => {
                Self { action: "send_config", error: error(result), ..Self::default() }
            }
            Event::RecvConfig { result } => Self {
                action: "recv_config",
                bytes: result.ok(),
                error: error(result.map(drop)),
                ..Self::default()
            },
            Event::Reset { result } => Self { action: "reset", error: error(result), ..Self::default() },
        }
    }
}

fn outcome(read: DataRead) -> &'static str {
    match read {
        DataRead::Bytes(_) => "data",
        DataRead::Drained => "nothing now",
        DataRead::End => "end",
    }
}

fn count(read: DataRead) -> usize {
    match read {
        DataRead::Bytes(count) => count,
        DataRead::Drained | DataRead::End => 0,
    }
}
