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
  vfio-migrate recover /dev/vfio/devices/vfio1 --reset

A program that was killed may leave a device in PRE_COPY, RUNNING_P2P, STOP_COPY or STOP: its state is still in it, and
it is brought to RUNNING. In RESUMING it holds half of another state, in ERROR nothing is known of it: only a reset ends
that, and it is done with --reset alone. (A PCI function is reset by vfio-pci when it is opened first.)")]
pub(crate) struct Arguments {
    /// The device: a path, an address, a UUID, fd:N or sim:
    device: String,
    /// Reset the device where nothing else helps: it runs then, and what it held is gone
    #[arg(long)]
    reset: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut target = Target::open(&arguments.device, &new_interrupt()?)?;
    let name = target.identity.idstr();
    let found = target.state();
    if found == State::Running {
        say(format_args!("'{name}' is in RUNNING; nothing was done"));
        return Ok(());
    }
    let why = if keeps_its_state(found) {
        match target.held().set_state(State::Running) {
            Ok(()) => {
                say(format_args!("'{name}' was in {found}; it is in RUNNING now, with its state"));
                return Ok(());
            }
            Err(code) => format!("it refused RUNNING: {}", in_words(code)),
        }
    } else {
        "only a reset ends that".into()
    };
    if !arguments.reset {
        let advice = "with --reset it runs again, and what it holds is gone";
        return Err(Fail::device(anyhow::anyhow!("'{name}' is in {}, and {why}; {advice}", target.state())));
    }
    match target.held().reset() {
        Ok(()) => {
            say(format_args!("'{name}' was in {found}, and {why}; it was reset, and runs"));
            Ok(())
        }
        Err(code) => Err(Fail::device(anyhow::anyhow!(
            "'{name}' was in {found}, {why}, and it refused its reset: {}",
            in_words(code)
        ))),
    }
}

/// Whether the guest's state is still in a device that was left in `state`.
fn keeps_its_state(state: State) -> bool {
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
