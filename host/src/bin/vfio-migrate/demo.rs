//! `vfio-migrate demo`.
//!
//! Deliberately absent: a kernel's device, and a second process. Both devices are simulated and each has a thread;
//! `save` and `load` move what is real.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use vfio_migration_core::device::Features;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::sim::{Config, Sim};
use vfio_migration_host::transfer::{self, Error, Job, Leave, Report};

use crate::progress::{Progress, amount};
use crate::target::Target;
use crate::{
    DEVICE, Fail, Outcome, interrupt_on_signals, new_buffer, new_interrupt, parse_size, stdout_failed,
};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate demo
  vfio-migrate demo --size 1GiB --buffer 64KiB")]
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
    /// Print every step of the destination with its outcome
    #[arg(long)]
    trace: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let features = Features { p2p: true, pre_copy: true };
    let full = Config::new(arguments.size, arguments.seed, features)?;
    let other = Config::new(arguments.size, !arguments.seed, features)?;
    let mut source = Target::of_sim(Sim::new(full));
    let mut destination = Target::of_sim(Sim::new(other));
    let interrupt = new_interrupt()?;
    interrupt_on_signals(&interrupt)?;
    let progress = Progress::new("moving", source.data_size(), arguments.trace);
    let moved = transfer(arguments.buffer, &mut source, &mut destination, &interrupt, &progress)?;
    let time = progress.finish();
    let report = moved.map_err(|error| Fail::transfer(error, Path::new("the socket"), &interrupt))?;
    if content(&source) != content(&destination) {
        return Err(Fail {
            exit: DEVICE,
            error: anyhow::anyhow!("the destination's content is not the source's"),
        });
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "moved '{}' over a unix socket: {}",
        report.entry.idstr,
        amount(report.entry.data_bytes, time)
    )
    .and_then(|()| {
        writeln!(out, "a stream of {} bytes, {} writes to the device", report.stream_bytes, report.pieces)
    })
    .and_then(|()| writeln!(out, "source {}, destination {}", source.state(), destination.state()))
    .and_then(|()| {
        let checksum = crc32c::crc32c(content(&destination));
        writeln!(out, "the destination's content equals the source's, byte for byte (crc32c {checksum:08x})")
    })
    .map_err(stdout_failed)
}

/// Saves `source` in one thread and loads `destination` in another; the destination's failure is told first, since a
/// source fails with it.
fn transfer(
    buffer: u64,
    source: &mut Target,
    destination: &mut Target,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Result<Report, Error>, Fail> {
    let (mut near, mut far) =
        (new_buffer(buffer, Buffer::for_source)?, new_buffer(buffer, Buffer::for_destination)?);
    let (out, into) = UnixStream::pair().map_err(|error| Fail::io("a pair of sockets", error))?;
    for end in [&out, &into] {
        end.set_nonblocking(true).map_err(|error| Fail::io("a socket", error))?;
    }
    let (near_id, far_id) = (source.identity.clone(), destination.identity.clone());
    let features = destination.features();
    let near_job =
        Job { now: source.state(), identity: &near_id, leave: Leave::Stopped, buffer: near.bytes() };
    let far_job =
        Job { now: destination.state(), identity: &far_id, leave: Leave::Running, buffer: far.bytes() };
    Ok(thread::scope(|scope| {
        let saver = scope.spawn(|| {
            let link = Link::new(&out, Some(interrupt.clone()));
            let saved = transfer::save(source, link, &near_id.idstr(), near_job, || Ok(()), |_| ());
            // The other side sees the end of the stream, whole or not.
            let _ = out.shutdown(Shutdown::Write);
            saved
        });
        let link = Link::new(&into, Some(interrupt.clone()));
        let loaded =
            transfer::load(destination, link, features, false, far_job, |event| progress.event(event));
        let _ = into.shutdown(Shutdown::Both);
        let saved = saver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        loaded.and_then(|report| saved.map(|_| report))
    }))
}

fn content(target: &Target) -> &[u8] {
    target.sim().map(Sim::content).unwrap_or_default()
}
