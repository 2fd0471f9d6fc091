//! `vfio-migrate`: looks at, saves, loads and moves the state of VFIO devices.
//!
//! Deliberately absent: a network connection of its own, and a file of settings. `-` is a pipe, which ssh can carry.

use std::collections::TryReserveError;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::{fmt, io};

use clap::{Parser, Subcommand};
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::transfer::{Error, Reason, Refused};
use vfio_migration_host::{device, open, sim};

mod bench;
mod conform;
mod demo;
mod dry_run;
mod extract;
mod inspect;
mod load;
mod r#move;
mod output;
mod precopy;
mod probe;
mod progress;
mod recover;
mod save;
mod stdio;
mod target;
mod trace;

use trace::TraceArguments;

/// Looks at, saves, loads and moves the migration state of VFIO devices.
///
/// DEVICE is a character device (/dev/vfio/devices/vfio0), a PCI address, an mdev's UUID, a device's folder below /sys,
/// an inherited file descriptor (fd:N or fd:N,driver=NAME), or a simulated device (sim:size=64MiB,seed=7; `--help` has
/// all its keys).
#[derive(Parser)]
#[command(name = "vfio-migrate", version, arg_required_else_help = true, after_help = AFTER, after_long_help = AFTER.to_owned() + SIMULATED)]
struct Arguments {
    #[command(flatten)]
    trace: TraceArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Moves the state of one simulated device into another and compares them. Needs no device and no root.
    Demo(demo::Arguments),
    /// Tells what a device can do, or which layer keeps it from migrating and why.
    Probe(probe::Arguments),
    /// Saves the state of one device or several into a file that `load` and QEMU take.
    Save(save::Arguments),
    /// Loads the state of one device or several from a file that `save` wrote.
    Load(load::Arguments),
    /// Moves a device's state into another device of this machine.
    Move(r#move::Arguments),
    /// Brings devices back to RUNNING that a killed program left in the middle of a migration.
    Recover(recover::Arguments),
    /// Measures a device: its arcs, save and load, and the downtime of a move.
    Bench(bench::Arguments),
    /// Shows what a file holds, record by record, up to its damage if it has any.
    Inspect(inspect::Arguments),
    /// Takes a device's state out of the stream of a whole machine that QEMU wrote, into a file that `load` takes.
    Extract(extract::Arguments),
    /// Tries the rules of VFIO migration on a device and its driver. The device loses its content.
    Conform(conform::Arguments),
}

const AFTER: &str = "\
Examples:
  vfio-migrate demo
  vfio-migrate probe 0000:3b:00.2
  vfio-migrate save 11111111-1111-1111-1111-111111111111 --output card.state
  vfio-migrate load /dev/vfio/devices/vfio1 --input card.state
  vfio-migrate save sim:seed=7 -o - | vfio-migrate load sim: -i -
  vfio-migrate move 0000:3b:00.2 0000:3b:00.3 --precopy -v
  vfio-migrate inspect card.state --json
  vfio-migrate load 0000:3b:00.2 --input vm.stream --section 0000:00:02.0/vfio

vfio-pci, and every driver built on it, resets a PCI function when it is opened first and closed last: what has the
state is the open file descriptor. To save the live state of a PCI device, run `save fd:N` in the process that holds
it, or with its descriptor inherited; a `save` that opens the device itself saves a device that was just reset.

Exit codes: 0 done; 2 wrong usage; 3 the device refused or can't be used; 4 the stream was refused; 5 a file or a
connection failed; 6 or 7 the driver breaks rules (conform); 129, 130 or 143 ended by SIGHUP, SIGINT or SIGTERM, after
the device was put back.";

/// Behind the examples of `--help`: what a simulated device can be made of.
const SIMULATED: &str = "\n\n\
Simulated devices: sim:KEY=VALUE,...
  size=64MiB seed=0 flags=1|3|5|7; what VFIO_DEVICE_FEATURE_MIG_DATA_SIZE says: data-size=SIZE|exact
  a PCI function, with bytes of configuration space and MSI-X vectors: pci=256|4096[:VECTORS]
  pre-copy: initial= dirty= dirty-for= increment=asked|always reinit= v2=yes|no drained=enomsg|0 info=zeroed|stale
  slow ones: short=BYTES slow=MICROSECONDS slow-set=MICROSECONDS
  failing ones: fail=OPERATION:NTH[:ERRNO[:AFTER]] guest-reset=OPERATION:NTH, where OPERATION is set, set-STATE, get,
  read, write, info, reset or data-size, NTH a number or *, and AFTER old, first, error or unknown";

/// Why the program ends without having done its work.
#[derive(Debug)]
struct Fail {
    exit: u8,
    error: anyhow::Error,
}

type Outcome = Result<(), Fail>;

const USAGE: u8 = 2;
const DEVICE: u8 = 3;
const STREAM: u8 = 4;
const IO: u8 = 5;

fn main() -> ExitCode {
    let Arguments { trace, command } = Arguments::parse();
    let run = || match command {
        Command::Demo(arguments) => demo::run(&arguments, &trace),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Save(arguments) => save::run(&arguments, &trace),
        Command::Load(arguments) => load::run(&arguments, &trace),
        Command::Move(arguments) => r#move::run(&arguments, &trace),
        Command::Recover(arguments) => recover::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Conform(arguments) => conform::run(&arguments, &trace),
    };
    let outcome = trace.begin().and_then(|()| run());
    trace::tell_left_out();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Fail { exit, error }) => {
            stdio::say(format_args!("vfio-migrate: {error:#}"));
            ExitCode::from(exit)
        }
    }
}

impl Fail {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: USAGE, error: error.into() }
    }

    fn io(what: impl fmt::Display, errno: impl Into<io::Error>) -> Self {
        Self { exit: IO, error: anyhow::Error::new(errno.into()).context(what.to_string()) }
    }

    fn device(error: impl Into<anyhow::Error>) -> Self {
        Self { exit: DEVICE, error: error.into() }
    }

    /// A failed transfer from or to `stream`: the signal where one was asked for, else whoever refused.
    fn transfer(error: Error, stream: &Path, interrupt: &Interrupt) -> Self {
        if let Some(signal) = interrupt.asked().filter(|_| error.reason.is_interrupt()) {
            return Self::signal(signal, &error.where_devices_are());
        }
        Self::refused(error.reason.refused(), error.into(), stream)
    }

    /// The end that a signal asked for, and where it leaves the devices.
    fn signal(signal: usize, left: &str) -> Self {
        let exit = u8::try_from(128 + signal).unwrap_or(u8::MAX);
        Self { exit, error: anyhow::anyhow!("ended by signal {signal}{left}") }
    }

    /// A stream that was refused before anything was done.
    fn reason(reason: Reason, stream: &Path, interrupt: &Interrupt) -> Self {
        Self::transfer(Error::of_nothing(reason), stream, interrupt)
    }

    fn refused(refused: Refused, error: anyhow::Error, stream: &Path) -> Self {
        let (exit, is_device) = match refused {
            Refused::ByDevice => (DEVICE, true),
            Refused::Stream => (STREAM, false),
            Refused::Io => (IO, false),
        };
        Self { exit, error: if is_device { error } else { error.context(stream.display().to_string()) } }
    }
}

impl From<open::Error> for Fail {
    fn from(error: open::Error) -> Self {
        match error {
            open::Error::Name(_) => Self::usage(error),
            _ => Self::device(error),
        }
    }
}

impl From<sim::ConfigError> for Fail {
    fn from(error: sim::ConfigError) -> Self {
        Self::usage(error)
    }
}

impl From<device::Unsupported> for Fail {
    fn from(error: device::Unsupported) -> Self {
        Self::device(error)
    }
}

/// From here on SIGINT, SIGTERM and, unless it was ignored at the start (nohup), SIGHUP ask `interrupt` to stop; call it
/// once nothing but a link or a device's data can block. A file that grows past its limit is an error, not a signal.
fn interrupt_on_signals(interrupt: &Interrupt) -> Outcome {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
    let ignored = signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop);
    let hang_up = if is_ignored(SIGHUP) { Ok(()) } else { interrupt.on(&[SIGHUP]) };
    ignored
        .and(hang_up)
        .and_then(|()| interrupt.on(&[SIGINT, SIGTERM]))
        .map_err(|error| Fail::io("signals can't be caught", error))
}

/// Whether the program was started with `signal` ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (signal - 1) & 1 == 1
}

fn new_interrupt() -> Result<Interrupt, Fail> {
    Interrupt::new().map_err(|error| Fail::io("no pipe for signals", error))
}

/// The buffer of a session, from what `make` makes of the size on the command line.
fn new_buffer(size: u64, make: fn(usize) -> Result<Buffer, TryReserveError>) -> Result<Buffer, Fail> {
    let wrong = || Fail::usage(anyhow::anyhow!("--buffer: wanted 64B to 1GiB, got {size} bytes"));
    let length = usize::try_from(size).ok().filter(|length| (64..=1 << 30).contains(length));
    make(length.ok_or_else(wrong)?).map_err(|error| {
        Fail::io(format_args!("--buffer {size}"), io::Error::new(io::ErrorKind::OutOfMemory, error))
    })
}

/// A size on the command line.
fn parse_size(text: &str) -> Result<u64, String> {
    use vfio_migration_host::size::{WANTED, parse_size};
    parse_size(text).ok_or_else(|| format!("wanted {WANTED}"))
}

/// An error of writing to standard output, which may be a closed pipe.
fn stdout_failed(error: io::Error) -> Fail {
    Fail::io("standard output can't be written", error)
}
