//! What core's path costs beside time: system calls, allocations, memory.
//!
//! System calls are those that the kernel counts as reads and writes of this thread. The link waits for nothing here, so
//! there are no others.
//!
//! Deliberately absent: time. `copy` measures it, in a process that counts nothing.

use std::fs::read_to_string;

use anyhow::{Context as _, Result};
use stats_alloc::Region;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::link::Link;

use crate::files::{fill, memory, rewind, same};
use crate::{ALLOCATOR, BUFFERS, migrate};

/// Prints one row for each direction and buffer, file to file.
pub(crate) fn run(size: u32) -> Result<()> {
    println!("                   reads and writes        allocations");
    println!("      buffer     per MiB   and beside   on core's path");
    for buffer in BUFFERS {
        let (small, large) = (Cost::of(size, buffer)?, Cost::of(size * 2, buffer)?);
        small.save.print("save", buffer, size, large.save);
        small.load.print("load", buffer, size, large.load);
    }
    Ok(())
}

/// Saves and loads `size` MiB and prints the most memory that this process ever had, in KiB.
pub(crate) fn peak(size: u32) -> Result<()> {
    Cost::of(size, 1 << 20)?;
    println!("{}", number_in("/proc/self/status", "VmHWM:")?);
    Ok(())
}

/// What one save and one load cost.
struct Cost {
    save: Count,
    load: Count,
}

impl Cost {
    fn of(size: u32, buffer: usize) -> Result<Self> {
        let (state, copy, file) = (memory()?, memory()?, memory()?);
        fill(&state, size)?;
        let (mut out_of, mut into) = (Buffer::for_source(buffer)?, Buffer::for_destination(buffer)?);
        let mut link = Link::new(&file, None);
        let save = Count::of(|| migrate::save(&state, &mut link, out_of.bytes()))?;
        rewind(&file)?;
        let mut link = Link::new(&file, None);
        let load = Count::of(|| migrate::load(&copy, &mut link, into.bytes()))?;
        same(&state, &copy)?;
        Ok(Self { save, load })
    }
}

#[derive(Clone, Copy)]
struct Count {
    calls: u32,
    allocations: usize,
}

impl Count {
    /// What `work` takes on this thread, which must be the only one that allocates.
    fn of(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let idle = calls()?;
        let asking = calls()? - idle;
        let before = calls()?;
        let region = Region::new(ALLOCATOR);
        let done = work();
        let heap = region.change();
        let calls = calls()? - before - asking;
        done?;
        Ok(Self { calls, allocations: heap.allocations + heap.reallocations })
    }

    /// Prints the row of `size` MiB, with `twice` for twice the size.
    fn print(self, name: &str, buffer: usize, size: u32, twice: Self) {
        let slope = f64::from(twice.calls - self.calls) / f64::from(size);
        let constant = f64::from(self.calls) - slope * f64::from(size);
        let (buffer, allocations) = (buffer >> 10, self.allocations + twice.allocations);
        println!("{name}  {buffer:>4} KiB  {slope:>10.2}   {constant:>10.0}   {allocations:>14}");
    }
}

/// The reads and writes of this thread until now, with those of earlier questions.
fn calls() -> Result<u32> {
    let file = "/proc/thread-self/io";
    Ok(number_in(file, "syscr:")? + number_in(file, "syscw:")?)
}

/// The number behind `name` in a file of the kernel.
fn number_in(file: &str, name: &str) -> Result<u32> {
    let text = read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok()).with_context(|| format!("{file} has no number behind {name}"))
}
