//! What is found out once and used by many rules: the state that the device was found with, whether resets work, what
//! each arc answered.
//!
//! Deliberately absent: verdicts. A fact that a driver could have got wrong is judged by its rule.

use std::rc::Rc;

use vfio_migration_core::device::State;

use super::lab::Lab;
use super::walk::{LateWrite, Refused, Walked};
use super::words::name;

/// What is known of the devices.
pub(super) struct Facts {
    /// The state as the device was found, or why there is none.
    pub(super) held: Result<Rc<Vec<u8>>, String>,
    /// What the next session of the stopped device gave, or why there was none.
    pub(super) again: Result<Again, String>,
    /// Whether a reset of each device works in RUNNING.
    pub(super) resets: Result<(), String>,
    /// Whether a state that is loaded comes out again byte by byte.
    pub(super) copies: Option<bool>,
    /// Every arc, once.
    pub(super) walk: Option<Rc<Vec<Walked>>>,
    /// Every impossible SET, once.
    pub(super) refusals: Option<Rc<Vec<Refused>>>,
    /// Every write to a resuming session that a SET has ended, once.
    pub(super) late_writes: Option<Rc<Vec<LateWrite>>>,
}

/// A second session of a device that has not run since the first.
pub(super) struct Again {
    /// How many bytes it gave.
    pub(super) bytes: u64,
    /// How they differ from the first session's.
    pub(super) difference: Option<String>,
}

impl Facts {
    /// Saves the device as it is, twice, and tries a reset.
    pub(super) fn of(lab: &mut Lab<'_>, partner: Option<&mut Lab<'_>>) -> Self {
        let held = hold(lab).map(Rc::new);
        let again = held.as_ref().map_err(Clone::clone).and_then(|held| {
            let compare = lab.compare(held)?;
            Ok(Again { bytes: compare.count as u64, difference: compare.difference() })
        });
        let resets = reset(lab)
            .and_then(|()| partner.map_or(Ok(()), reset).map_err(|reason| format!("the partner: {reason}")));
        Self { held, again, resets, copies: None, walk: None, refusals: None, late_writes: None }
    }

    /// Whether two sessions of the stopped device gave the same bytes.
    pub(super) fn is_deterministic(&self) -> bool {
        self.again.as_ref().is_ok_and(|again| again.difference.is_none())
    }

    /// Bytes of the state that is held.
    pub(super) fn length(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.len())
    }

    /// Whether the state is so large that few passes over it are made.
    pub(super) fn is_large(&self) -> bool {
        self.length() > LARGE
    }
}

fn hold(lab: &mut Lab<'_>) -> Result<Vec<u8>, String> {
    lab.reach(State::Stop)?;
    lab.hold()
}

/// A reset of a running device.
fn reset(lab: &mut Lab<'_>) -> Result<(), String> {
    lab.home()?;
    let answer = lab.reset();
    lab.home()?;
    answer.map_err(|errno| format!("a reset is refused: {}", name(errno)))
}

/// A state of more bytes is large.
pub(super) const LARGE: usize = 64 << 20;
