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

use super::check::check_together;
use super::load::check_driver;
use super::{Error, Leave, Load, Member, Migratable, PreCopy, Reason, Report, Save, Watch, load, save};
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
    plans: (&Save<'_>, &Load),
    watch: &impl Watch,
) -> io::Result<Result<Report, Error>> {
    if let Err((index, reason)) = check_sides(&sources, &destinations, plans.1.force) {
        let devices = lefts(&sources).chain(lefts(&destinations)).collect();
        return Ok(Err(Error::new(reason, index, devices)));
    }
    let done = if plans.1.leave == Leave::Running { State::Running } else { State::Stop };
    let loaded_into = destinations.iter().map(|member| (member.idstr.clone(), Left::At(done))).collect();
    let (near, far) = UnixStream::pair()?;
    for end in [&near, &far] {
        end.set_nonblocking(true)?;
    }
    let (verdict, judged) = channel();
    let initial_data = AtomicUsize::new(0);
    let far_watch = Far { watch, initial_data: &initial_data };
    let pre_copy = plans.0.pre_copy.map(|plan| PreCopy { switchover_ack: Some(&initial_data), ..plan });
    let interrupt = plans.0.interrupt.clone();
    let save_plan = Save { pre_copy, interrupt: interrupt.clone(), leave: Leave::Stopped };
    let load_plan = Load { switchover_ack: pre_copy.is_some(), ..*plans.1 };
    Ok(thread::scope(|scope| {
        let (near, save_plan) = (&near, &save_plan);
        let link = Link::new(near, interrupt.clone());
        let saver = scope.spawn(move || {
            let saved = save(sources, link, save_plan, || wait_for(near, &judged), watch);
            // The other side sees the end of the stream, whole or not.
            let _ = near.shutdown(Shutdown::Both);
            saved
        });
        let loaded = load(destinations, Link::new(&far, interrupt.clone()), &load_plan, &far_watch);
        // A saver that has failed before does not wait for it.
        let _ = verdict.send(loaded.is_ok());
        let _ = far.shutdown(Shutdown::Both);
        let saved = saver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        both(saved, loaded, loaded_into)
    }))
}

/// Ends the stream, and waits for whether it was loaded.
fn wait_for(near: &UnixStream, judged: &Receiver<bool>) -> io::Result<()> {
    near.shutdown(Shutdown::Write)?;
    match judged.recv() {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(io::Error::other("the destination refused it")),
    }
}

/// Checks, before a device is touched, what would else show only when the sources have begun.
fn check_sides<S, D>(
    sources: &[Member<'_, S>],
    destinations: &[Member<'_, D>],
    force: bool,
) -> Result<(), (usize, Reason)> {
    let (wanted, got) = (destinations.len(), sources.len());
    if got < wanted {
        return Err((0, Reason::FewerDevices { wanted, got }));
    }
    if let Some(more) = sources.get(wanted) {
        return Err((0, Reason::MoreDevices { wanted, name: more.idstr.clone() }));
    }
    check_together(destinations).map_err(|reason| (0, reason))?;
    for (index, (source, destination)) in sources.iter().zip(destinations).enumerate() {
        let written_by = Some(source.identity.driver.as_str()).filter(|_| !force);
        check_driver(destination.identity, written_by).map_err(|reason| (got + index, reason))?;
    }
    Ok(())
}

fn lefts<D>(members: &[Member<'_, D>]) -> impl Iterator<Item = (String, Left)> {
    members.iter().map(|member| (member.idstr.clone(), Left::At(member.now)))
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
    // Nobody can load it any more.
    first.stream_is_whole = false;
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
