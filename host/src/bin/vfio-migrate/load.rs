//! `vfio-migrate load`.
//!
//! Deliberately absent: the checks of the stream, which are in `transfer`, so that a VMM has them too; and all of a
//! machine's stream but its VFIO devices, which only a QEMU takes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::qemu::Extract;
use vfio_migration_host::transfer::{self, Load};

use crate::progress::{Progress, amount, milliseconds};
use crate::save::{Leave, new_buffers};
use crate::stdio::{self, say};
use crate::target::Target;
use crate::trace::TraceArguments;
use crate::{Fail, Outcome, dry_run, extract, interrupt_on_signals, new_interrupt, parse_size};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate load 22222222-2222-2222-2222-222222222222 --input card.state
  vfio-migrate load /dev/vfio/devices/vfio1 --input - --leave stopped <card.state
  vfio-migrate load 0000:3b:00.2 0000:3b:00.3 --input cards.state
  vfio-migrate load 0000:3b:00.2 --input card.state --dry-run
  vfio-migrate load 0000:3b:00.2 --input vm.stream --section 0000:00:02.0/vfio
  vfio-migrate load 0000:3b:00.2 --input vm.stream --section 0000:00:02.0/vfio --channel vm.1 --channel vm.2

A stream that is cut, damaged, of another kind of device or followed by anything is refused before a device runs. A
refusal of the stream's first sections leaves the devices as they were; after a later one they are reset: they run, and
what they held before is gone. The kind of device stands in the section's name, at the front; in a stream that was saved
with --qemu-id it stands in the description alone, at the end. A device that another program left in the middle of a
migration is reset once the stream's first sections were accepted.

A stream that QEMU wrote (`migrate file:`) does not name drivers and has no checksum: with --section the user says whose
state it is, and what is damaged in it only the device's driver can tell. It has to be a file.

Several devices: each gets the state that was saved from a device of its name (<driver>@<address>); those without a
namesake in the stream get the others in their order.")]
pub(crate) struct Arguments {
    /// The devices: paths, addresses, UUIDs, fd:N or sim:
    #[arg(required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// The file to read, or - for standard input
    #[arg(short, long, value_name = "FILE")]
    input: PathBuf,
    /// Take the states out of a stream that QEMU wrote: the name of a device's sections in it, one for each DEVICE
    #[arg(long, value_name = "NAME")]
    section: Vec<String>,
    /// A file with one of multifd's channels, where QEMU wrote the stream with those
    #[arg(long, value_name = "FILE", requires = "section")]
    channel: Vec<PathBuf>,
    /// Where to leave the devices afterwards
    #[arg(long, value_enum, default_value = "running")]
    leave: Leave,
    /// The size of each device's buffer: of one read and one write
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    buffer: u64,
    /// Load a stream of another kind of device, or of one that is not known; a driver may execute what it is given
    #[arg(long)]
    force: bool,
    /// Check the whole stream, say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, trace: &TraceArguments) -> Outcome {
    let (devices, sections) = (arguments.devices.len(), arguments.section.len());
    if sections != 0 && sections != devices {
        let wanted = format!("--section: wanted one for each of {devices} devices, or none, got {sections}");
        return Err(Fail::usage(anyhow::anyhow!(wanted)));
    }
    let mut buffers = new_buffers(arguments.devices.len(), arguments.buffer, Buffer::for_destination)?;
    let input = stdio::input(&arguments.input, "--input -")?;
    let interrupt = new_interrupt()?;
    let mut targets = Target::open_all(&arguments.devices, &interrupt)?;
    interrupt_on_signals(&interrupt)?;
    let estimate = targets.iter().map(Target::data_size).sum();
    let leave = arguments.leave.into();
    let from = From { arguments, input, interrupt: &interrupt };
    let drivers: Vec<_> = targets.iter().map(|target| target.identity.driver.clone()).collect();
    let mut names = arguments.section.iter().cloned();
    let members = targets.iter_mut().zip(&mut buffers);
    let members: Vec<_> = members.map(|(target, buffer)| target.member(names.next(), buffer)).collect();
    // Whose state it is was said by name.
    let force = arguments.force || !arguments.section.is_empty();
    if arguments.dry_run {
        let check = |link| transfer::check(&members, link, force).map_err(transfer::Error::of_nothing);
        let entries = from.give(&drivers, check)?;
        return dry_run::load(&entries, &targets, leave, &arguments.input.display().to_string());
    }
    let plan = Load { leave, force, switchover_ack: false };
    let progress = Progress::new("loading", estimate, trace.is_verbose());
    let loaded = from.give(&drivers, |link| transfer::load(members, link, &plan, &progress));
    let time = progress.finish();
    let report = loaded?;
    for ((entry, target), config) in report.entries.iter().zip(&targets).zip(&report.configs) {
        say(format_args!(
            "loaded '{}' into {}: state of {}; the device is in {}",
            entry.idstr,
            target.identity.idstr(),
            amount(entry.data_bytes, time),
            target.state()
        ));
        if let Some(applied) = config {
            say(format_args!("  of its configuration {applied}"));
        }
    }
    say(format_args!("from the stream's last byte to the end took {}", milliseconds(report.downtime)));
    Ok(())
}

/// Where a stream of ours comes from: what was given, or a machine's stream that it is taken out of.
struct From<'a> {
    arguments: &'a Arguments,
    input: OwnedFd,
    interrupt: &'a Interrupt,
}

impl From<'_> {
    /// Gives the stream to `load`, for devices of these drivers.
    fn give<T>(
        self,
        drivers: &[String],
        load: impl FnOnce(Link) -> Result<T, transfer::Error>,
    ) -> Result<T, Fail> {
        let Self { arguments: Arguments { input: path, section, channel, .. }, input, interrupt } = self;
        if section.is_empty() {
            let loaded = load(Link::new(input, Some(interrupt.clone())));
            return loaded.map_err(|error| Fail::transfer(error, path, interrupt));
        }
        let channels = &extract::open_channels(channel)?[..];
        let plan = Extract { sections: section, drivers, channels, interrupt: Some(interrupt) };
        extract::into(&plan, input, path, interrupt, load)
    }
}
