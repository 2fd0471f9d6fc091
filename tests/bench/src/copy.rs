//! Throughput: core's path and the bare loop, in turn.
//!
//! Deliberately absent: the program `vfio-migrate`. A simulated device is memory of its own process, so its throughput
//! can't be compared; what the program does with bytes is `transfer::save`, which has rows here.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::scope;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::link::Link;

use crate::files::{drain, fill, memory, nameless, pump, rewind, same};
use crate::{BUFFERS, migrate};

/// Prints one row for each direction, link and buffer, and one for each whole file with its checksum.
pub(crate) fn run(size: u32, rounds: usize, folder: &Path) -> Result<()> {
    println!("{size} MiB of state, {rounds} pairs of runs; files are in {}", folder.display());
    println!("save+sum: with headers, description and checksum, as a file of vfio-migrate has them");
    println!("                               MiB/s, median    core / bare loop");
    println!("         link    buffer     bare loop     core    median    best");
    for buffer in BUFFERS {
        let mut bench = Bench::new(size, buffer, folder)?;
        for link in [Way::File, Way::Socket] {
            let row = bench.compare(rounds, |bench| bench.save_bare(link), |bench| bench.save_core(link))?;
            row.print("save", link.name(), buffer);
        }
        let row = bench.compare(rounds, |bench| bench.save_bare(Way::File), Bench::save_whole)?;
        row.print("save+sum", Way::File.name(), buffer);
        bench.save_core(Way::File)?;
        for link in [Way::File, Way::Socket] {
            let row = bench.compare(rounds, |bench| bench.load_bare(link), |bench| bench.load_core(link))?;
            row.print("load", link.name(), buffer);
        }
        bench.load_core(Way::File)?;
        bench.copy.set_len(u64::from(size) << 20)?; // the bare loop has copied the headers too
        same(&bench.state, &bench.copy)?;
    }
    Ok(())
}

/// What the link is.
#[derive(Clone, Copy)]
enum Way {
    File,
    Socket,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Socket => "socket",
        }
    }
}

/// What all runs with one buffer share.
struct Bench {
    size: u32,
    /// For a source.
    out_of: Buffer,
    /// For a destination and for the bare loop: whole pages.
    into: Buffer,
    /// The device's state before it is saved.
    state: File,
    /// The state of the device that it is loaded into.
    copy: File,
    /// The link, or what is fed into it.
    file: File,
}

impl Bench {
    fn new(size: u32, buffer: usize, folder: &Path) -> Result<Self> {
        let (state, copy, file) = (memory()?, memory()?, nameless(folder)?);
        for each in [&state, &copy, &file] {
            fill(each, size)?;
        }
        copy.set_len(0)?;
        let (out_of, into) = (Buffer::for_source(buffer)?, Buffer::for_destination(buffer)?);
        Ok(Self { size, out_of, into, state, copy, file })
    }

    /// Runs both in turn, the other one first each time, after one run of each that doesn't count.
    fn compare(
        &mut self,
        rounds: usize,
        bare: impl Fn(&mut Self) -> Result<Duration>,
        core: impl Fn(&mut Self) -> Result<Duration>,
    ) -> Result<Row> {
        bare(self)?;
        core(self)?;
        let mut pairs = Vec::new();
        for round in 0..rounds {
            pairs.push(if round % 2 == 0 {
                let bare = bare(self)?;
                (bare, core(self)?)
            } else {
                let core = core(self)?;
                (bare(self)?, core)
            });
        }
        Row::new(self.size, &pairs).context("no rounds, nothing to compare")
    }

    fn save_bare(&mut self, link: Way) -> Result<Duration> {
        rewind(&self.state)?;
        rewind(&self.file)?;
        timed(|| match link {
            Way::File => pump(&self.state, &self.file, self.into.bytes()),
            Way::Socket => to_socket(|socket| pump(&self.state, socket, self.into.bytes())),
        })
    }

    fn save_core(&mut self, link: Way) -> Result<Duration> {
        rewind(&self.state)?;
        rewind(&self.file)?;
        timed(|| match link {
            Way::File => migrate::save(&self.state, &mut Link::new(&self.file, None), self.out_of.bytes()),
            Way::Socket => to_socket(|socket| {
                migrate::save(&self.state, &mut Link::new(socket, None), self.out_of.bytes())
            }),
        })
    }

    fn save_whole(&mut self) -> Result<Duration> {
        rewind(&self.state)?;
        rewind(&self.file)?;
        timed(|| migrate::save_whole(&self.state, Link::new(&self.file, None), self.out_of.bytes()))
    }

    fn load_bare(&mut self, link: Way) -> Result<Duration> {
        rewind(&self.copy)?;
        rewind(&self.file)?;
        timed(|| match link {
            Way::File => pump(&self.file, &self.copy, self.into.bytes()),
            Way::Socket => from_socket(&self.file, |socket| pump(socket, &self.copy, self.into.bytes())),
        })
    }

    fn load_core(&mut self, link: Way) -> Result<Duration> {
        rewind(&self.copy)?;
        rewind(&self.file)?;
        timed(|| match link {
            Way::File => migrate::load(&self.copy, &mut Link::new(&self.file, None), self.into.bytes()),
            Way::Socket => from_socket(&self.file, |socket| {
                migrate::load(&self.copy, &mut Link::new(socket, None), self.into.bytes())
            }),
        })
    }
}

/// Gives one end of a unix socket to `work` and drains the other on a thread of its own; returns when all has arrived.
fn to_socket(work: impl FnOnce(UnixStream) -> Result<()>) -> Result<()> {
    let (near, far) = UnixStream::pair()?;
    scope(|scope| {
        let other = scope.spawn(move || drain(far, &mut vec![0; OTHER_END]));
        let done = work(near);
        other.join().map_err(|_| anyhow!("the thread at the other end panicked"))?.and(done)
    })
}

/// Gives one end of a unix socket to `work` and feeds `file` into the other on a thread of its own.
fn from_socket(file: &File, work: impl FnOnce(UnixStream) -> Result<()>) -> Result<()> {
    let (near, far) = UnixStream::pair()?;
    scope(|scope| {
        let other = scope.spawn(move || pump(file, far, &mut vec![0; OTHER_END]));
        let done = work(near);
        other.join().map_err(|_| anyhow!("the thread at the other end panicked"))?.and(done)
    })
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// What a table says of pairs of runs.
struct Row {
    bare: f64,
    core: f64,
    ratio: f64,
    best_ratio: f64,
}

impl Row {
    /// The row of `(bare, core)` pairs; nothing where there are none.
    fn new(size: u32, pairs: &[(Duration, Duration)]) -> Option<Self> {
        let seconds = |pick: fn(&(Duration, Duration)) -> Duration| {
            sorted(pairs.iter().map(|pair| pick(pair).as_secs_f64()))
        };
        let (bare, core) = (seconds(|pair| pair.0), seconds(|pair| pair.1));
        let ratios = sorted(pairs.iter().map(|(bare, core)| bare.as_secs_f64() / core.as_secs_f64()));
        Some(Self {
            bare: f64::from(size) / median(&bare)?,
            core: f64::from(size) / median(&core)?,
            ratio: median(&ratios)?,
            best_ratio: bare.first()? / core.first()?,
        })
    }

    fn print(&self, name: &str, link: &str, buffer: usize) {
        let Self { bare, core, ratio, best_ratio } = self;
        let buffer = buffer >> 10;
        println!(
            "{name:<8} {link:<6} {buffer:>4} KiB    {bare:>10.0} {core:>8.0}     {ratio:>5.3}   {best_ratio:>5.3}"
        );
    }
}

fn sorted(numbers: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers
}

/// The middle of sorted numbers, of an even count the lower one.
fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// The buffer at the other end of a socket, in bytes; the same for every row.
const OTHER_END: usize = 1 << 20;
