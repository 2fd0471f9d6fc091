//! Several devices at once: a thread each, lockstep where it is needed, and the first thing that went wrong.
//!
//! Every step is done for all devices before the next begins, so that a join of the threads is the barrier that
//! lockstep wants; [`Fleet`] says of each order whether it may be given then.
//!
//! Deliberately absent: a queue. A device's thread has one buffer, and waits with it until the link takes it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use vfio_migration_core::session::fleet::{Fleet, Joining, Order, Verdict};
use vfio_migration_core::session::{Code, DestinationPhase, Misuse, SourcePhase};

use super::{DEVICES_MAX, Member, Reason};
use crate::interrupt::Interrupt;
use crate::link::Link;

/// The fleet of these devices, each of which has a name of its own.
///
/// # Errors
/// [`Reason::NotTogether`].
pub(super) fn fleet<'n, D>(
    members: &[Member<'_, D>],
    names: &'n [String],
) -> Result<Fleet<'n, DEVICES_MAX>, Reason> {
    if members.is_empty() {
        return Err(Reason::NotTogether("wanted at least one device, got none".into()));
    }
    if let Some((_, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        return Err(Reason::NotTogether(format!("wanted a name for each device, got '{name}' twice")));
    }
    let joining = members.iter().zip(names);
    let joining: Vec<_> =
        joining.map(|(member, name)| Joining { name, features: member.features, now: member.now }).collect();
    Fleet::new(&joining).map_err(|refused| Reason::NotTogether(refused.to_string()))
}

/// What ends all waits for `link`, where several devices share it: one may fail while another one waits.
///
/// # Errors
/// The kernel has no file descriptor left.
pub(super) fn halt(link: &mut Link<impl AsFd>, devices: usize) -> Result<Option<Interrupt>, Code> {
    let no_fd = |error: std::io::Error| Code(error.raw_os_error().unwrap_or_default());
    (devices > 1).then(|| link.interrupt().map_err(no_fd)).transpose()
}

/// What the threads of a transfer share.
pub(super) struct Together<'n> {
    fleet: Mutex<Fleet<'n, DEVICES_MAX>>,
    /// The member with which something went wrong first.
    first: Mutex<Option<usize>>,
    /// What went wrong with each, in the order in which they have recovered from it.
    wrong: Mutex<Vec<(usize, Reason)>>,
    failed: AtomicBool,
    /// What ends all waits for the link once something went wrong.
    halt: Option<Interrupt>,
}

impl<'n> Together<'n> {
    pub(super) fn new(fleet: Fleet<'n, DEVICES_MAX>, halt: Option<Interrupt>) -> Self {
        Self {
            fleet: Mutex::new(fleet),
            first: Mutex::new(None),
            wrong: Mutex::default(),
            failed: AtomicBool::new(false),
            halt,
        }
    }

    /// Does `work` for every one of `members`, in a thread of its own where there are several.
    ///
    /// # Errors
    /// What went wrong first, of all that did since the transfer began, and the number of its member.
    pub(super) fn each<M: Send>(
        &self,
        members: &mut [M],
        work: impl Fn(usize, &mut M) -> Result<(), Reason> + Sync,
    ) -> Result<(), (usize, Reason)> {
        let work = &work;
        if let [member] = members {
            self.note(0, work(0, member));
        } else {
            thread::scope(|scope| {
                for (index, member) in members.iter_mut().enumerate() {
                    scope.spawn(move || self.note(index, work(index, member)));
                }
            });
        }
        self.outcome()
    }

    /// What went wrong first since this was asked last, and the number of its member.
    pub(super) fn outcome(&self) -> Result<(), (usize, Reason)> {
        let mut wrong = std::mem::take(&mut *lock(&self.wrong));
        let first = *lock(&self.first);
        let of_first = |(index, _): &&(usize, Reason)| Some(*index) == first;
        // What it met itself says more than what the reader of its data met when it stopped.
        let own = wrong.iter().position(|entry| of_first(&entry) && entry.1.is_of_one_device());
        let at = own.or_else(|| wrong.iter().position(|entry| of_first(&entry))).unwrap_or_default();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.swap_remove(at)) }
    }

    /// Takes note of the moment at which something goes wrong with the member `index`, before it has recovered.
    pub(super) fn is_failing(&self, index: usize) {
        lock(&self.first).get_or_insert(index);
        self.failed.store(true, Ordering::Relaxed);
        if let Some(halt) = &self.halt {
            halt.ask(1);
        }
    }

    /// Takes note of how something went with the member `index`.
    pub(super) fn note(&self, index: usize, result: Result<(), Reason>) {
        if let Err(reason) = result {
            lock(&self.wrong).push((index, reason));
            self.is_failing(index);
        }
    }

    /// Whether something has gone wrong with any member, so that the others may stop.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Whether the member `index` is to be given `order`: not where it is there already, nor where another one failed,
    /// which says why.
    ///
    /// # Errors
    /// Another one is not so far yet; a join of all threads would have shown that before.
    pub(super) fn may(&self, index: usize, order: Order) -> Result<bool, Reason> {
        match lock(&self.fleet).may(index, order) {
            Verdict::Go => Ok(true),
            Verdict::Done | Verdict::GoBack => Ok(false),
            Verdict::Wait => Err(Misuse::WrongOrder.into()),
        }
    }

    pub(super) fn source(&self, index: usize, phase: SourcePhase) {
        lock(&self.fleet).source(index, phase);
    }

    /// Takes note of a destination's phase; returns whether all initial data are loaded now.
    pub(super) fn destination(&self, index: usize, phase: DestinationPhase) -> bool {
        let mut fleet = lock(&self.fleet);
        fleet.destination(index, phase);
        fleet.initial_data_there()
    }

    pub(super) fn initial_data_there(&self) -> bool {
        lock(&self.fleet).initial_data_there()
    }

    /// From now on no device goes back.
    pub(super) fn commit(&self) {
        lock(&self.fleet).commit();
    }

    /// From now on every device goes back.
    pub(super) fn cancel(&self) {
        lock(&self.fleet).cancel();
    }
}

/// A thread that panicked while it held the lock can't have left half a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
