//! `vfio-migrate load`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::OFlags;
use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device as _;
use vfio_migration_host::file::errno;
use vfio_migration_host::link::Link;
use vfio_migration_host::transfer::{self, Job};

use crate::progress::{Progress, amount};
use crate::save::Leave;
use crate::target::Target;
use crate::{Fail, Outcome, interrupt_on_signals, new_buffer, new_interrupt, parse_size, stdio};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate load 22222222-2222-2222-2222-222222222222 --input card.state
  vfio-migrate load /dev/vfio/devices/vfio1 --input - --leave stopped <card.state

A stream that is cut, damaged, of another kind of device or followed by anything is refused before the device runs;
the device is then reset: it runs, and what it held before is gone.")]
pub(crate) struct Arguments {
    /// The device: a path, an address, a UUID, fd:N or sim:
    device: String,
    /// The file to read, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    /// Where to leave the device afterwards
    #[arg(long, value_enum, default_value = "running")]
    leave: Leave,
    /// The size of the buffer: of one read and one write
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    buffer: u64,
    /// Load a stream of another kind of device too; its driver may execute what it is given
    #[arg(long)]
    force: bool,
    /// Print every step with its outcome
    #[arg(long)]
    trace: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut buffer = new_buffer(arguments.buffer)?;
    let input = input(arguments)?;
    let interrupt = new_interrupt()?;
    let mut target = Target::open(&arguments.device, &interrupt)?;
    let now = made_ready(&mut target)?;
    interrupt_on_signals(&interrupt)?;
    let identity = target.identity.clone();
    let job = Job {
        features: target.features(),
        now,
        identity: &identity,
        leave: arguments.leave.into(),
        buffer: &mut buffer,
    };
    let progress = Progress::new("loading", target.data_size(), arguments.trace);
    let link = Link::new(input, Some(interrupt.clone()));
    let loaded = transfer::load(&mut target, link, arguments.force, job, |event| progress.event(event));
    let time = progress.finish();
    let report = loaded.map_err(|error| Fail::transfer(error, &interrupt))?;
    eprintln!(
        "loaded '{}': state of {}; the device is in {}",
        report.entry.idstr,
        amount(report.entry.data_bytes, time),
        target.state()
    );
    Ok(())
}

/// The state of a device that can be loaded. One that a program left in the middle of a migration is reset: what it
/// holds would be overwritten anyhow.
fn made_ready(target: &mut Target) -> Result<State, Fail> {
    let now = target.state();
    if matches!(now, State::Running | State::Stop) {
        return Ok(now);
    }
    eprintln!("vfio-migrate: the device was left in {now}; it is reset");
    target
        .reset()
        .map_err(|code| Fail::device(anyhow::anyhow!("the device refused its reset: {}", errno(code))))?;
    Ok(target.state())
}

fn input(arguments: &Arguments) -> Result<OwnedFd, Fail> {
    if arguments.input.as_os_str() == "-" {
        return stdio::input();
    }
    let failed = |error| Fail::io(arguments.input.display(), error);
    let file = File::open(&arguments.input).map_err(failed)?;
    stdio::interruptible(file.into(), OFlags::RDONLY).map_err(failed)
}
