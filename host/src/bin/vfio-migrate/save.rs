//! `vfio-migrate save`.
//!
//! Deliberately absent: a second device in the file, and pre-copy: the device is stopped for the whole of the save.

use std::path::PathBuf;

use clap::ValueEnum;
use vfio_migration_core::device::State;
use vfio_migration_core::stream::section::NAME_MAX;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::transfer::{self, Job};

use crate::output::Output;
use crate::progress::{Progress, amount};
use crate::stdio::{self, say};
use crate::target::Target;
use crate::{Fail, Outcome, interrupt_on_signals, new_buffer, new_interrupt, parse_size};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate save 11111111-1111-1111-1111-111111111111 --output card.state
  vfio-migrate save fd:7,driver=mlx5_vfio_pci --output - | ssh other vfio-migrate load 0000:3b:00.2 --input -
  vfio-migrate save /dev/vfio/devices/vfio0 --output for-qemu.state --qemu-id 0000:00:02.0")]
pub(crate) struct Arguments {
    /// The device: a path, an address, a UUID, fd:N or sim:
    device: String,
    /// The file to write, or - for standard output; it gets its name when it is complete, and is its owner's alone
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Where to leave the device afterwards
    #[arg(long, value_enum, default_value = "running")]
    leave: Leave,
    /// The size of the buffer: of one read and one write
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    buffer: u64,
    /// Name the section as a QEMU names its device, so that this QEMU loads the file
    #[arg(long, value_name = "PATH")]
    qemu_id: Option<String>,
    /// Print every step with its outcome
    #[arg(long)]
    trace: bool,
}

/// Where to leave a device.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Leave {
    Running,
    Stopped,
}

impl From<Leave> for transfer::Leave {
    fn from(leave: Leave) -> Self {
        match leave {
            Leave::Running => Self::Running,
            Leave::Stopped => Self::Stopped,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut buffer = new_buffer(arguments.buffer, Buffer::for_source)?;
    check_qemu_id(arguments.qemu_id.as_deref())?;
    let interrupt = new_interrupt()?;
    let output = output(arguments, &interrupt)?;
    let mut target = Target::open(&arguments.device, &interrupt)?;
    let now = startable(target.state(), &arguments.device)?;
    let identity = target.identity.clone();
    let idstr = arguments.qemu_id.as_ref().map_or_else(|| identity.idstr(), |path| format!("{path}/vfio"));
    let job = Job { now, identity: &identity, leave: arguments.leave.into(), buffer: buffer.bytes() };
    let progress = Progress::new("saving", target.data_size(), arguments.trace);
    let link = Link::new(&output, Some(interrupt.clone()));
    let keep = || output.keep();
    let saved = transfer::save(&mut target, link, &idstr, job, keep, |event| progress.event(event));
    let time = progress.finish();
    let report = saved.map_err(|error| Fail::transfer(error, &arguments.output, &interrupt))?;
    say(format_args!(
        "saved '{idstr}': state of {}, stream of {} bytes; the device is in {}",
        amount(report.entry.data_bytes, time),
        report.stream_bytes,
        target.state()
    ));
    Ok(())
}

/// `now`, where a migration can begin in it.
fn startable(now: State, device: &str) -> Result<State, Fail> {
    match now {
        State::Running | State::Stop => Ok(now),
        _ => Err(Fail::device(anyhow::anyhow!(
            "{device} is in {now}, wanted RUNNING or STOP: another program is migrating it, or left it there; \
             `vfio-migrate load` would reset it"
        ))),
    }
}

fn check_qemu_id(path: Option<&str>) -> Outcome {
    let longest = NAME_MAX - "/vfio".len();
    match path {
        Some(path) if path.is_empty() || path.len() > longest || path.contains(char::is_control) => {
            let wanted = format!("wanted 1 to {longest} bytes without control characters");
            Err(Fail::usage(anyhow::anyhow!("--qemu-id: {wanted}, got '{}'", path.escape_debug())))
        }
        _ => Ok(()),
    }
}

/// Opens the output. From when a file of ours is there, signals end the program through [`Output`]'s drop.
fn output(arguments: &Arguments, interrupt: &Interrupt) -> Result<Output, Fail> {
    let open = if arguments.output.as_os_str() == "-" {
        Some(Output::of(stdio::output("--output -")?))
    } else {
        Output::existing(&arguments.output)?
    };
    interrupt_on_signals(interrupt)?;
    open.map_or_else(|| Output::begin(&arguments.output), Ok)
}
