//! `vfio-migrate bench`.
//!
//! Everything is done by the library as `save`, `load` and `move` do it: here is only measured. `measure` takes
//! the samples, `figures` makes of them what is told, `table` prints it for people.
//!
//! Deliberately absent: pass and fail. A time belongs to a machine and to what else it did; ratios of one run
//! can be compared.

use std::io;
use std::path::Path;
use std::time::Duration;

use vfio_migration_core::device::State;
use vfio_migration_core::session::Left;
use vfio_migration_host::transfer::{self, PreCopy};

use crate::stdio::{json, say};
use crate::target::Target;
use crate::{Fail, Outcome, interrupt_on_signals, new_interrupt, parse_size, stdout_failed};

mod calls;
mod figures;
mod measure;
mod noted;
mod pair;
mod table;

use figures::Figures;
use measure::Plan;
use pair::{Pair, Wrong};

#[derive(clap::Args)]
#[command(after_help = AFTER, after_long_help = AFTER.to_owned() + MORE)]
pub(crate) struct Arguments {
    /// The device that is measured: a path, an address, a UUID, fd:N or sim:
    device: String,
    /// A device of the same kind to load into; what it holds is lost
    #[arg(long, value_name = "DEVICE")]
    to: Option<String>,
    /// How often everything is done
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// A size of buffers to save and load with, as often as wanted; 4KiB, 64KiB, 1MiB and 8MiB unless given
    #[arg(long = "buffer", value_name = "SIZE", value_parser = parse_size)]
    buffers: Vec<u64>,
    /// How long the devices may stand still with pre-copy, by what is known before the stop
    #[arg(long, value_name = "TIME", requires = "to", default_value = "300ms")]
    #[arg(value_parser = humantime::parse_duration)]
    max_downtime: Duration,
    /// How long pre-copy goes on without a prospect of a stop that is short enough
    #[arg(long, value_name = "TIME", requires = "to", default_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    patience: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER: &str = "\
Examples:
  vfio-migrate bench 0000:3b:00.2
  vfio-migrate bench fd:7,driver=mlx5_vfio_pci --to 0000:3b:00.3 --rounds 20
  vfio-migrate bench sim:size=64MiB --to sim:size=64MiB --buffer 64KiB --buffer 1MiB
  vfio-migrate bench 0000:3b:00.2 --json | jq '.arcs[] | [.from, .to, .median_us]'

The device has to be in RUNNING. It is stopped again and again, so nothing may need it meanwhile; it keeps what
it holds and ends in RUNNING. What the device of --to holds is lost; it has a copy of the other one's state
meanwhile, with which it runs only while the other one is stopped, and is reset at the end (a reset that clears
nothing, as that of the sample driver mtty, leaves the copy in it). Where that can't be, the error says where
both are.";

/// Behind the examples of `--help`: what is measured, and what the JSON object has.
const MORE: &str = "\n\n\
What is measured:
  arcs      each single step between the states that the device has: the ioctl alone. Those to and from RESUMING
            lose the content and are taken on the device of --to, where it is loaded with the first buffer. The
            no-op is a SET of RUNNING in RUNNING
  save      from where STOP_COPY is reached until the stream has ended: the library's own save, into /dev/null
  load      from where RESUMING is reached until it is left: the library's own load of a stream in memory, which
            takes as much memory as the device has state; its records are as large as the largest buffer
  downtime  a move with the first --buffer, or 1MiB where none is given: from the SET that stops the device
            until the one of --to is in RUNNING. 'stop' of it is up to STOP_COPY, 'start' begins with the SET
            that leaves RESUMING, 'copy' is between them. With pre-copy where both devices have it

  Rows take turns in each round. A ratio is the median of the ratios within a round: of an arc's time to the
  no-op's, of a throughput to the first row's, of a downtime to the first row's.

  System calls are the reads and writes that the kernel counts for this process (/proc/self/io: read, readv,
  write, writev, also those that were interrupted or found nothing), of the device and of the stream together;
  ioctl and poll are not counted. A simulated device makes none. Without /proc/self/io they are null. Beside
  them stand the library's own reads or writes of the device, as it makes them.

JSON, one object; the unit stands at the end of a key (_us: microseconds, _bytes, _mib_per_s, _calls), and what
has none is a ratio or a count:
  device, target    name, driver, flags (of VFIO_DEVICE_FEATURE_MIGRATION), left (the state it was left in);
                    target is null without --to
  rounds
  no_op             min_us median_us max_us
  arcs              an array of: from, to, on (device or target), min_us median_us max_us, ratio_to_no_op
  save, load        arrays, one row a buffer: buffer_bytes, state_bytes, min_us median_us max_us,
                    median_mib_per_s, ratio_to_first (of throughputs), device_calls, read_calls, write_calls,
                    calls_per_mib; all but the times and the ratio are medians, load is empty without --to
  downtime          an array, without pre-copy and with: pre_copy, buffer_bytes, rounds (that came to a stop;
                    with pre-copy it may be none), state_bytes, stopped_bytes (of them moved while both stood
                    still), total, stop, copy, start (each min_us median_us max_us), ratio_to_first (of
                    totals)";

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let mut plan = arguments.plan()?;
    if arguments.to.as_ref().is_some_and(|to| *to == arguments.device && !to.starts_with("sim:")) {
        return Err(twice(&arguments.device));
    }
    let interrupt = new_interrupt()?;
    let device = Target::open(&arguments.device, &interrupt)?;
    check_running(device.state(), &arguments.device)?;
    let target = arguments.to.as_ref().map(|name| {
        let target = Target::open(name, &interrupt)?;
        check_running(target.state(), name)?;
        if target.identity.idstr() == device.identity.idstr() { Err(twice(name)) } else { Ok(target) }
    });
    let mut pair = Pair::new(device, target.transpose()?, &interrupt);
    measure::check(&mut pair, &mut plan)
        .map_err(|reason| Fail::reason(reason, Path::new(STREAM), &interrupt))?;
    interrupt_on_signals(&interrupt)?;
    warn(&pair);
    let measured = measure::all(&mut pair, plan);
    let (devices, handed_over) = pair.end();
    match measured {
        Ok(samples) => {
            let figures = Figures::new(&pair, arguments.rounds, &samples);
            tell(&figures, arguments.json).map_err(stdout_failed)?;
            check_end(&devices)
        }
        Err(Wrong { reason, at }) => {
            let at = at.filter(|_| devices.len() > 1);
            let error = transfer::Error { reason, at, devices, stream_is_whole: false, handed_over };
            Err(Fail::transfer(error, Path::new(STREAM), &interrupt))
        }
    }
}

impl Arguments {
    fn plan(&self) -> Result<Plan, Fail> {
        let first = self.buffers.first().copied();
        let buffers = if self.buffers.is_empty() { BUFFERS.to_vec() } else { self.buffers.clone() };
        let pre_copy = PreCopy { downtime: self.max_downtime, patience: self.patience, ..PreCopy::default() };
        Plan::new(self.rounds, &buffers, first.unwrap_or(MOVES_WITH), pre_copy)
    }
}

/// Fails unless a device of this state may be measured.
fn check_running(now: State, device: &str) -> Outcome {
    match now {
        State::Running => Ok(()),
        State::Error
        | State::Stop
        | State::StopCopy
        | State::Resuming
        | State::RunningP2p
        | State::PreCopy
        | State::PreCopyP2p => Err(Fail::device(anyhow::anyhow!(
            "{device} is in {now}, wanted RUNNING: it is a paused machine's, another program is migrating it, \
             or one left it there; see `vfio-migrate recover --help`"
        ))),
    }
}

fn twice(name: &str) -> Fail {
    Fail::usage(anyhow::anyhow!("--to: wanted another device, got '{name}' twice"))
}

/// Says what will happen to the devices.
fn warn(pair: &Pair<'_>) {
    say(format_args!("'{}' is stopped again and again now; it keeps what it holds", pair.source.name()));
    if let Some(target) = &pair.target {
        say(format_args!("what '{}' holds is lost from now on; it is reset at the end", target.name()));
    }
}

fn tell(figures: &Figures, as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json { json(&mut out, figures) } else { table::show(&mut out, figures) }
}

/// Says where the devices are, and fails unless they are where they should be.
fn check_end(devices: &[(String, Left)]) -> Outcome {
    let is_right = |left: &Left| matches!(left, Left::At(State::Running) | Left::Reset);
    let lines: Vec<_> = devices.iter().map(|(name, left)| format!("'{name}': {left}")).collect();
    if devices.iter().all(|(_, left)| is_right(left)) {
        lines.iter().for_each(say);
        return Ok(());
    }
    Err(Fail::device(anyhow::anyhow!(
        "measured, but the devices are not where they should be; {}; see `vfio-migrate recover --help`",
        lines.join("; ")
    )))
}

/// What errors call the stream.
const STREAM: &str = "the stream between the devices";
/// The buffers that are measured unless others are given, in bytes.
const BUFFERS: [u64; 4] = [4 << 10, 64 << 10, 1 << 20, 8 << 20];
/// The buffer that `move` has unless another is given, in bytes.
const MOVES_WITH: u64 = 1 << 20;
