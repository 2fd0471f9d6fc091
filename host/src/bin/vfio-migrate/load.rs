//! `vfio-migrate load`.
//!
//! Deliberately absent: the checks of the stream, which are in `transfer`, so that a VMM has them too; and streams of
//! whole machines, which only a QEMU takes.

use std::path::PathBuf;

use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::link::Link;
use vfio_migration_host::transfer::{self, Job};

use crate::progress::{Progress, amount};
use crate::save::Leave;
use crate::stdio::{self, say};
use crate::target::Target;
use crate::{Fail, Outcome, interrupt_on_signals, new_buffer, new_interrupt, parse_size};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate load 22222222-2222-2222-2222-222222222222 --input card.state
  vfio-migrate load /dev/vfio/devices/vfio1 --input - --leave stopped <card.state

A stream that is cut, damaged, of another kind of device or followed by anything is refused before the device runs. A
refusal of the stream's first bytes leaves the device as it was; after a later one it is reset: it runs, and what it
held before is gone. The kind of device stands in the section's name, at the front; in a stream that was saved with
--qemu-id it stands in the description alone, at the end. A device that another program left in the middle of a
migration is reset once the stream's first section was accepted.")]
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
    /// Load a stream of another kind of device, or of one that is not known; a driver may execute what it is given
    #[arg(long)]
    force: bool,
    /// Print every step with its outcome
    #[arg(long)]
    trace: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut buffer = new_buffer(arguments.buffer, Buffer::for_destination)?;
    let input = stdio::input(&arguments.input, "--input -")?;
    let interrupt = new_interrupt()?;
    let mut target = Target::open(&arguments.device, &interrupt)?;
    interrupt_on_signals(&interrupt)?;
    let identity = target.identity.clone();
    let features = target.features();
    let job = Job {
        now: target.state(),
        identity: &identity,
        leave: arguments.leave.into(),
        buffer: buffer.bytes(),
    };
    let progress = Progress::new("loading", target.data_size(), arguments.trace);
    let link = Link::new(input, Some(interrupt.clone()));
    let loaded =
        transfer::load(&mut target, link, features, arguments.force, job, |event| progress.event(event));
    let time = progress.finish();
    let report = loaded.map_err(|error| Fail::transfer(error, &arguments.input, &interrupt))?;
    say(format_args!(
        "loaded '{}': state of {}; the device is in {}",
        report.entry.idstr,
        amount(report.entry.data_bytes, time),
        target.state()
    ));
    Ok(())
}
