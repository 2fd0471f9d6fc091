//! Events: each thing that a session did, with its outcome, and how often an interrupt finished it.
//!
//! Deliberately absent: a buffer. An event is written when it happens.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use vfio_migration_core::session::Event;

use super::console::say;

/// A session sleeps for the answer to what it asked last.
pub(crate) fn waited() {
    WAITED.store(true, Ordering::Relaxed);
}

/// Writes the event and counts it.
pub(crate) fn event(event: &Event) {
    say!("event: {event}");
    let count = &COUNTS[kind(event)];
    count.all.fetch_add(1, Ordering::Relaxed);
    count.late.fetch_add(WAITED.swap(false, Ordering::Relaxed).into(), Ordering::Relaxed);
}

/// Writes how many of each kind there were, and how many of them an interrupt finished after the session had waited.
pub(crate) fn sum_up() {
    for (name, count) in KINDS.iter().zip(&COUNTS) {
        let (all, late) = (count.all.load(Ordering::Relaxed), count.late.load(Ordering::Relaxed));
        if all > 0 {
            say!("{name}: {all}, finished by an interrupt: {late}");
        }
    }
}

struct Count {
    all: AtomicU32,
    late: AtomicU32,
}

const fn kind(event: &Event) -> usize {
    match event {
        Event::SetState { .. } => 0,
        Event::PrecopyInfo { .. } => 1,
        Event::ReadData { .. } => 2,
        Event::Send { .. } => 3,
        Event::SendConfig { .. } => 4,
        Event::Recv { .. } => 5,
        Event::WriteData { .. } => 6,
        Event::RecvConfig { .. } => 7,
        Event::Reset { .. } => 8,
    }
}

const KINDS: [&str; 9] =
    ["SetState", "PrecopyInfo", "ReadData", "Send", "SendConfig", "Recv", "WriteData", "RecvConfig", "Reset"];

static WAITED: AtomicBool = AtomicBool::new(false);
static COUNTS: [Count; KINDS.len()] =
    [const { Count { all: AtomicU32::new(0), late: AtomicU32::new(0) } }; KINDS.len()];
