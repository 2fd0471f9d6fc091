//! Moves devices to others of the same machine: a save and a load at once, of which both happen or neither.
//!
//! The sources stay in STOP_COPY until the destinations run: where those refuse, the sources go back to what they were.
//!
//! Deliberately absent: two machines. `save` and `load` are for those, and the stream between them.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Cause, Event, Left};

use super::check::sides;
use super::{
    Error, Leave, Load, Member, Migratable, PreCopy, Reason, Report, Save, Watch, lefts, load, save,
};
use crate::file;
use crate::link::Link;

/// Moves the state of `sources` into `destinations`, in their order. The sources are left in STOP, whatever the plan
/// says. With pre-copy the stop waits for the destinations to have loaded all initial data.
///
/// # Errors
/// [`Error`], with what went wrong first on either side, and all devices of both sides.
///
/// # Panics
/// When a thread of it does.
pub fn hand_over<S: Migratable, D: Migratable>(
    sources: Vec<Member<'_, S>>,
    destinations: Vec<Member<'_, D>>,
    save_plan: &Save<'_>,
    load_plan: &Load,
    watch: &impl Watch,
) -> Result<Report, Error> {
    let all: Vec<_> = lefts(&sources).chain(lefts(&destinations)).collect();
    let ends = sides(&sources, &destinations, load_plan.force).and_then(|()| {
        let pair = UnixStream::pair().and_then(|(near, far)| {
            near.set_nonblocking(true).and_then(|()| far.set_nonblocking(true)).map(|()| (near, far))
        });
        pair.map_err(|error| (0, Reason::NoLink(error)))
    });
    let (near, far) = match ends {
        Ok(ends) => ends,
        Err((index, reason)) => return Err(Error::new(reason, index, all)),
    };
    let done = if load_plan.leave == Leave::Running { State::Running } else { State::Stop };
    let loaded_into = destinations.iter().map(|member| (member.idstr.clone(), Left::At(done))).collect();
    let initial_data = AtomicUsize::new(0);
    let far_watch = Far { watch, initial_data: &initial_data };
    // A destination without PRE_COPY takes its data at any time, and can't be told that initial data are through.
    let mut pairs = sources.iter().zip(&destinations);
    let acknowledges = pairs.all(|(source, other)| !source.features.pre_copy || other.features.pre_copy);
    let switchover_ack = acknowledges.then_some(&initial_data);
    let pre_copy = save_plan.pre_copy.map(|plan| PreCopy { switchover_ack, ..plan });
    let interrupt = save_plan.interrupt.clone();
    let save_plan =
        Save { pre_copy, interrupt: interrupt.clone(), leave: Some(Leave::Stopped), ..*save_plan };
    let load_plan = Load { switchover_ack: acknowledges && pre_copy.is_some(), ..*load_plan };
    let near = &near;
    // What the saver waits for is dropped in here, also where the load panics.
    thread::scope(move |scope| {
        let (verdict, judged) = channel();
        let link = Link::new(near, interrupt.clone());
        let saver = scope.spawn(move || {
            let saved = save(sources, link, &save_plan, || wait_for(near, &judged), watch);
            // The other side sees the end of the stream, whole or not.
            let _ = near.shutdown(Shutdown::Both);
            saved
        });
        let loaded = load(destinations, Link::new(&far, interrupt), &load_plan, &far_watch);
        // A saver that has failed before does not wait for it.
        let _ = verdict.send(loaded.is_ok());
        drop(far);
        let saved = saver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        both(saved, loaded, loaded_into)
    })
}

/// Ends the stream, and waits for whether it was loaded.
fn wait_for(near: &UnixStream, judged: &Receiver<bool>) -> io::Result<()> {
    near.shutdown(Shutdown::Write)?;
    match judged.recv() {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(io::Error::other("the destination refused it")),
    }
}

/// One outcome of both sides; `loaded_into` is where the destinations are when they are loaded. The side that only lost
/// its other end did not fail first.
fn both(
    saved: Result<Report, Error>,
    loaded: Result<Report, Error>,
    loaded_into: Vec<(String, Left)>,
) -> Result<Report, Error> {
    match (saved, loaded) {
        (Ok(saved), Ok(_)) => Ok(saved),
        (Err(saved), Ok(_)) => Err(joined(saved, loaded_into)),
        (Ok(_), Err(loaded)) => Err(loaded),
        (Err(saved), Err(loaded)) if lost_its_source(&loaded.reason) => Err(joined(saved, loaded.devices)),
        (Err(saved), Err(loaded)) => Err(joined(loaded, saved.devices)),
    }
}

/// The error of one side with the devices of both.
fn joined(mut first: Error, others: Vec<(String, Left)>) -> Error {
    if first.reason.is_of_one_device() {
        first.at.get_or_insert(0);
    }
    first.devices.extend(others);
    // Once the destinations run nobody can load the stream any more, nor has to.
    first.handed_over = std::mem::take(&mut first.stream_is_whole);
    first
}

fn lost_its_source(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Stream(file::Error::Ended { .. }) | Reason::Session { cause: Cause::RecvClosed { .. }, .. }
    )
}

/// The destinations' watch.
struct Far<'a, W> {
    watch: &'a W,
    /// How often a device has loaded its initial data.
    initial_data: &'a AtomicUsize,
}

impl<W: Watch> Watch for Far<'_, W> {
    fn event(&self, device: &str, event: &Event) {
        self.watch.event(device, event);
    }

    fn initial_data_loaded(&self, device: &str, all: bool) {
        self.initial_data.fetch_add(1, Ordering::Release);
        self.watch.initial_data_loaded(device, all);
    }
}
