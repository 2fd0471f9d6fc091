//! `vfio-migrate demo`.
//!
//! The source goes on changing its content while it is copied. Deliberately absent: a kernel's device, and a second
//! process. Both devices are simulated and each has a thread; `move`, `save` and `load` move what is real.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use vfio_migration_core::device::Features;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::sim::{Config, Precopy, Sim};
use vfio_migration_host::transfer::{Load, PreCopy, Report, Save, hand_over};

use crate::progress::{Progress, amount, stood_still};
use crate::target::Target;
use crate::trace::TraceArguments;
use crate::{
    DEVICE, Fail, Outcome, interrupt_on_signals, new_buffer, new_interrupt, parse_size, stdout_failed,
};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate demo
  vfio-migrate demo --size 1GiB --buffer 64KiB
  vfio-migrate demo -v")]
pub(crate) struct Arguments {
    /// The size of the device's content
    #[arg(long, default_value = "256MiB", value_parser = parse_size)]
    size: u64,
    /// What the content is made from
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The size of each side's buffer
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    buffer: u64,
}

pub(crate) fn run(arguments: &Arguments, trace: &TraceArguments) -> Outcome {
    let features = Features { p2p: true, pre_copy: true };
    let mut full = Config::new(arguments.size, arguments.seed, features)?;
    full.precopy = Precopy { initial: arguments.size, dirty: arguments.size / 64, ..full.precopy };
    let other = Config::new(arguments.size, !arguments.seed, features)?;
    let mut source = Target::of_sim(Sim::new(full));
    let mut destination = Target::of_sim(Sim::new(other));
    let mut near = new_buffer(arguments.buffer, Buffer::for_source)?;
    let mut far = new_buffer(arguments.buffer, Buffer::for_destination)?;
    let interrupt = new_interrupt()?;
    interrupt_on_signals(&interrupt)?;
    let progress = Progress::new("moving", source.data_size(), trace.is_verbose());
    let pre_copy = Some(PreCopy { downtime: DOWNTIME, ..PreCopy::default() });
    let save = Save { pre_copy, interrupt: Some(interrupt.clone()), ..Save::default() };
    let members = (vec![source.member(None, &mut near)], vec![destination.member(None, &mut far)]);
    let moved = hand_over(members.0, members.1, &save, &Load::default(), &progress.of_reads());
    let time = progress.finish();
    let report = moved.map_err(|error| Fail::transfer(error, Path::new("the socket"), &interrupt))?;
    if content(&source) != content(&destination) {
        return Err(Fail {
            exit: DEVICE,
            error: anyhow::anyhow!("the destination's content is not the source's"),
        });
    }
    tell(&report, &source, &destination, time).map_err(stdout_failed)
}

fn tell(report: &Report, source: &Target, destination: &Target, time: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for entry in &report.entries {
        writeln!(out, "moved '{}' over a unix socket: {}", entry.idstr, amount(entry.data_bytes, time))?;
    }
    writeln!(out, "a stream of {} bytes, {} reads of the device", report.stream_bytes, report.pieces)?;
    writeln!(out, "{}", stood_still(report, None))?;
    writeln!(out, "source {}, destination {}", source.state(), destination.state())?;
    let checksum = crc32c::crc32c(content(destination));
    writeln!(out, "the destination's content equals the source's, byte for byte (crc32c {checksum:08x})")
}

fn content(target: &Target) -> &[u8] {
    target.sim().map(Sim::content).unwrap_or_default()
}

/// How long the source may stand still, which leaves most of its state to pre-copy.
const DOWNTIME: Duration = Duration::from_millis(20);
