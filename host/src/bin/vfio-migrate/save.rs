//! `vfio-migrate save`.
//!
//! Deliberately absent: a guest. Its processors are stopped by whoever has some; `save` stops devices.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use vfio_migration_core::device::State;
use vfio_migration_core::stream::section::NAME_MAX;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::transfer::{self, PreCopy, Report, Save};

use crate::output::Output;
use crate::precopy::PreCopyArguments;
use crate::progress::{Progress, amount, stood_still};
use crate::stdio::say;
use crate::target::Target;
use crate::trace::TraceArguments;
use crate::{Fail, Outcome, dry_run, new_buffer, new_interrupt, parse_size};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate save 11111111-1111-1111-1111-111111111111 --output card.state
  vfio-migrate save fd:7,driver=mlx5_vfio_pci --leave stopped -o - | ssh other vfio-migrate load 0000:3b:00.2 -i -
  vfio-migrate save fd:7 fd:8 --precopy --max-downtime 50ms --output cards.state
  vfio-migrate save /dev/vfio/devices/vfio0 --output for-qemu.state --qemu-id 0000:00:02.0 --config
  vfio-migrate save /dev/vfio/devices/vfio0 --precopy --output card.state --dry-run

Several devices are of one machine: they are stopped in lockstep, which needs P2P of each of their drivers. Into a pipe,
`save` does not know whether the other side took the state: look there before the device runs again.")]
pub(crate) struct Arguments {
    /// The devices: paths, addresses, UUIDs, fd:N or sim:
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// The file to write, or - for standard output; it gets its name when it is complete. A new file is its owner's
    /// alone, an existing one keeps its mode
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Where to leave the devices afterwards; as they were found unless given
    #[arg(long, value_enum)]
    leave: Option<Leave>,
    /// The size of each device's buffer: of one read and one write
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    buffer: u64,
    /// Name the section as a QEMU names its device, so that this QEMU loads the file; one for each device
    #[arg(long, value_name = "PATH")]
    qemu_id: Vec<String>,
    /// Write the configuration of each PCI function too, as the kernel shows it: no interrupt is set up in it
    #[arg(long)]
    config: bool,
    #[command(flatten)]
    pre_copy: PreCopyArguments,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
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

pub(crate) fn run(arguments: &Arguments, trace: &TraceArguments) -> Outcome {
    let mut buffers = new_buffers(arguments.devices.len(), arguments.buffer, Buffer::for_source)?;
    check_qemu_ids(&arguments.qemu_id, arguments.devices.len())?;
    trace.check_apart(&arguments.output)?;
    let interrupt = new_interrupt()?;
    let output = output(arguments, &interrupt)?;
    let mut targets = Target::open_all(&arguments.devices, &interrupt)?;
    for (target, name) in targets.iter().zip(&arguments.devices) {
        check_startable(target.state(), name)?;
    }
    let plan = Save {
        leave: arguments.leave.map(Into::into),
        pre_copy: arguments.pre_copy.plan(),
        config: arguments.config,
        interrupt: Some(interrupt.clone()),
    };
    if plan.pre_copy.is_some() && !arguments.dry_run {
        prepare_pre_copy(&mut targets);
    }
    let estimate = targets.iter().map(Target::data_size).sum();
    let progress = Progress::new("saving", estimate, trace.is_verbose());
    let mut ids = arguments.qemu_id.iter().map(|path| format!("{path}/vfio"));
    let members = targets.iter_mut().zip(&mut buffers);
    let members: Vec<_> = members.map(|(target, buffer)| target.member(ids.next(), buffer)).collect();
    let Some(output) = output else {
        transfer::check_together(&members)
            .map_err(|reason| Fail::reason(reason, &arguments.output, &interrupt))?;
        return dry_run::save(&targets, &plan, &arguments.output);
    };
    let link = Link::new(&output, Some(interrupt.clone()));
    let saved = transfer::save(members, link, &plan, || output.keep(), &progress);
    let time = progress.finish();
    let report = saved.map_err(|error| Fail::transfer(error, &arguments.output, &interrupt))?;
    tell(&report, &targets, time, plan.pre_copy);
    Ok(())
}

fn tell(report: &Report, targets: &[Target], time: Duration, pre_copy: Option<PreCopy<'_>>) {
    for (entry, target) in report.entries.iter().zip(targets) {
        say(format_args!(
            "saved '{}': state of {}; the device is in {}",
            entry.idstr,
            amount(entry.data_bytes, time),
            target.state()
        ));
    }
    say(format_args!("stream of {} bytes; {}", report.stream_bytes, stood_still(report, pre_copy)));
}

/// Makes devices ready for pre-copy, and says where that can't be had.
pub(crate) fn prepare_pre_copy(targets: &mut [Target]) {
    targets.iter_mut().for_each(Target::prepare_pre_copy);
    let can = |target: &Target| target.features().pre_copy && target.state() == State::Running;
    if !targets.iter().any(can) {
        say("--precopy: no device runs and has PRE_COPY, so all is copied while they stand still");
    }
}

/// Buffers for so many sessions.
pub(crate) fn new_buffers(
    count: usize,
    size: u64,
    make: fn(usize) -> Result<Buffer, std::collections::TryReserveError>,
) -> Result<Vec<Buffer>, Fail> {
    (0..count).map(|_| new_buffer(size, make)).collect()
}

/// Fails unless a migration can begin in the state `now`.
pub(crate) fn check_startable(now: State, device: &str) -> Outcome {
    match now {
        State::Running | State::Stop => Ok(()),
        _ => Err(Fail::device(anyhow::anyhow!(
            "{device} is in {now}, wanted RUNNING or STOP: another program is migrating it, or left it there; \
             see `vfio-migrate recover --help`"
        ))),
    }
}

fn check_qemu_ids(paths: &[String], devices: usize) -> Outcome {
    let longest = NAME_MAX - "/vfio".len();
    let wrong = |path: &&String| path.is_empty() || path.len() > longest || path.contains(char::is_control);
    if let Some(path) = paths.iter().find(wrong) {
        let wanted = format!("wanted 1 to {longest} bytes without control characters");
        return Err(Fail::usage(anyhow::anyhow!("--qemu-id: {wanted}, got '{}'", path.escape_debug())));
    }
    if let Some((_, path)) = paths.iter().enumerate().find(|(at, path)| paths[..*at].contains(path)) {
        return Err(Fail::usage(anyhow::anyhow!(
            "--qemu-id: wanted another for each device, got '{path}' twice"
        )));
    }
    if paths.is_empty() || paths.len() == devices {
        return Ok(());
    }
    Err(Fail::usage(anyhow::anyhow!(
        "--qemu-id: wanted one for each of {devices} devices, or none, got {}",
        paths.len()
    )))
}

/// Opens the output; in a dry run only looks whether a file could be made.
fn output(arguments: &Arguments, interrupt: &Interrupt) -> Result<Option<Output>, Fail> {
    if arguments.dry_run {
        if arguments.output.as_os_str() != "-" {
            Output::check(&arguments.output)?;
        }
        return Ok(None);
    }
    Output::open(&arguments.output, interrupt).map(Some)
}
