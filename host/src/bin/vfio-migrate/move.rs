//! `vfio-migrate move`.
//!
//! Deliberately absent: another machine. `save --leave stopped -o - | ssh … load -i -` moves a device there, without the
//! way back that a move has.

use std::path::Path;

use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::transfer::{self, Load, Save};

use crate::precopy::PreCopyArguments;
use crate::progress::{Progress, amount, stood_still};
use crate::save::{check_startable, prepare_pre_copy};
use crate::stdio::say;
use crate::target::Target;
use crate::trace::TraceArguments;
use crate::{Fail, Outcome, dry_run, interrupt_on_signals, new_buffer, new_interrupt, parse_size};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate move 0000:3b:00.2 0000:3b:00.3 --precopy
  vfio-migrate move /dev/vfio/devices/vfio0 /dev/vfio/devices/vfio1 --dry-run
  vfio-migrate move sim:size=64MiB,seed=7 sim:size=64MiB -v

The source is left in STOP, the destination runs. Where the destination can't be brought to run, the source goes back to
what it was, with its state.")]
pub(crate) struct Arguments {
    /// The device whose state is moved: a path, an address, a UUID, fd:N or sim:
    source: String,
    /// The device that gets it
    destination: String,
    /// The size of each side's buffer
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    buffer: u64,
    #[command(flatten)]
    pre_copy: PreCopyArguments,
    /// Move into another kind of device, or one that is not known; a driver may execute what it is given
    #[arg(long)]
    force: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, trace: &TraceArguments) -> Outcome {
    let mut near = new_buffer(arguments.buffer, Buffer::for_source)?;
    let mut far = new_buffer(arguments.buffer, Buffer::for_destination)?;
    let interrupt = new_interrupt()?;
    let mut source = Target::open(&arguments.source, &interrupt)?;
    let mut destination = Target::open(&arguments.destination, &interrupt)?;
    check_startable(source.state(), &arguments.source)?;
    let pre_copy = arguments.pre_copy.plan();
    let save = Save { pre_copy, interrupt: Some(interrupt.clone()), ..Save::default() };
    let load = Load { force: arguments.force, ..Load::default() };
    interrupt_on_signals(&interrupt)?;
    if save.pre_copy.is_some() && !arguments.dry_run {
        prepare_pre_copy(std::slice::from_mut(&mut source));
    }
    let estimate = source.data_size();
    let members = (vec![source.member(None, &mut near)], vec![destination.member(None, &mut far)]);
    let between = Path::new("the socket between them");
    if arguments.dry_run {
        let refused = |reason| Fail::reason(reason, between, &interrupt);
        transfer::check_sides(&members.0, &members.1, load.force).map_err(refused)?;
        return dry_run::hand_over(&source, &destination, &save);
    }
    let progress = Progress::new("moving", estimate, trace.is_verbose());
    let moved = transfer::hand_over(members.0, members.1, &save, &load, &progress.of_reads());
    let time = progress.finish();
    let report = moved.map_err(|error| Fail::transfer(error, between, &interrupt))?;
    for entry in &report.entries {
        say(format_args!(
            "moved '{}' into {}: state of {}; the source is in {}, the destination in {}",
            entry.idstr,
            destination.identity.idstr(),
            amount(entry.data_bytes, time),
            source.state(),
            destination.state()
        ));
    }
    say(stood_still(&report, pre_copy));
    Ok(())
}
