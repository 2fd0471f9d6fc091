//! `vfio-migrate recover`.
//!
//! Deliberately absent: a guess whether someone else is migrating the device. Who holds its file is asked by the kernel
//! when it is opened; with an inherited descriptor (fd:N) the caller must know.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device;
use vfio_migration_host::errno::in_words;

use crate::stdio::say;
use crate::target::Target;
use crate::{Fail, Outcome, new_interrupt};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate recover 11111111-1111-1111-1111-111111111111
  vfio-migrate recover 0000:3b:00.2 0000:3b:00.3
  vfio-migrate recover /dev/vfio/devices/vfio1 --reset

A program that was killed may leave a device in PRE_COPY, RUNNING_P2P, STOP_COPY or STOP: its state is still in it, and
it is brought to RUNNING; several devices of one machine in lockstep, if they are given together. Make sure first that
no destination runs with the same state. In RESUMING a device holds half of another state, in ERROR nothing is known of
it: only a reset ends that, and it is done with --reset alone. (A PCI function is reset by vfio-pci when it is opened
first.)")]
pub(crate) struct Arguments {
    /// The devices: paths, addresses, UUIDs, fd:N or sim:
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// Reset a device where nothing else helps: it runs then, and what it held is gone
    #[arg(long)]
    reset: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let targets = Target::open_all(&arguments.devices, &new_interrupt()?)?;
    let mut left: Vec<_> = targets.into_iter().map(Abandoned::new).collect();
    check_p2p(&left)?;
    left.iter_mut().for_each(|device| device.bring_to(State::RunningP2p));
    // Where one still stands, none of the others may run.
    if left.len() == 1 || left.iter().all(|device| device.refused.is_none() || arguments.reset) {
        left.iter_mut().for_each(|device| device.bring_to(State::Running));
    }
    let mut outcome = Ok(());
    for device in &mut left {
        match (device.end(arguments.reset), &outcome) {
            (Ok(()), _) => {}
            (ended, Ok(())) => outcome = ended,
            (Err(Fail { error, .. }), Err(_)) => say(error),
        }
    }
    outcome
}

/// Fails where several devices are given of which one can't wait in RUNNING_P2P for the others.
fn check_p2p(left: &[Abandoned]) -> Outcome {
    match left.iter().find(|device| !device.target.features().p2p) {
        Some(device) if left.len() > 1 => Err(Fail::device(anyhow::anyhow!(
            "wanted P2P of every device, since several are brought back together; without it is '{}'",
            device.target.identity.idstr()
        ))),
        _ => Ok(()),
    }
}

/// A device that a program has left somewhere.
struct Abandoned {
    target: Target,
    found: State,
    /// Why it can't be brought to RUNNING.
    refused: Option<String>,
}

impl Abandoned {
    fn new(target: Target) -> Self {
        let found = target.state();
        let refused = (!keeps_its_state(found)).then(|| "only a reset ends that".to_owned());
        Self { target, found, refused }
    }

    /// Brings the device to `state`, if it has that and is on its way there.
    fn bring_to(&mut self, state: State) {
        let on_its_way = self.found != State::Running && self.target.features().have(state);
        if on_its_way && self.refused.is_none() {
            let set = self.target.held().set_state(state);
            self.refused = set.err().map(|code| format!("it refused {state}: {}", in_words(code)));
        }
    }

    /// Says what came of it, and resets the device where that is wanted and all that is left.
    fn end(&mut self, reset: bool) -> Outcome {
        let (name, found) = (self.target.identity.idstr(), self.found);
        match &self.refused {
            None if found == State::Running => {
                say(format_args!("'{name}' is in RUNNING; nothing was done"));
                Ok(())
            }
            None if self.target.state() == State::Running => {
                say(format_args!("'{name}' was in {found}; it is in RUNNING now, with its state"));
                Ok(())
            }
            None => Err(Fail::device(anyhow::anyhow!(
                "'{name}' is in {}, with its state; it does not run before the others can",
                self.target.state()
            ))),
            Some(why) if !reset => Err(Fail::device(anyhow::anyhow!(
                "'{name}' is in {}, and {why}; with --reset it runs again, and what it holds is gone",
                self.target.state()
            ))),
            Some(why) => match self.target.held().reset() {
                Ok(()) => {
                    say(format_args!("'{name}' was in {found}, and {why}; it was reset, and runs"));
                    Ok(())
                }
                Err(code) => Err(Fail::device(anyhow::anyhow!(
                    "'{name}' was in {found}, {why}, and it refused its reset: {}",
                    in_words(code)
                ))),
            },
        }
    }
}

/// Whether the guest's state is still in a device that was left in `state`.
pub(crate) fn keeps_its_state(state: State) -> bool {
    match state {
        State::Error | State::Resuming => false,
        State::Stop
        | State::Running
        | State::StopCopy
        | State::RunningP2p
        | State::PreCopy
        | State::PreCopyP2p => true,
    }
}
