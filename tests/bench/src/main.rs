//! Measurements of core's path over real file descriptors, run by `cargo xtask bench`.
//!
//! The device's data fd is a memfd: the kernel copies to and from it page by page, as a driver does. The link is the one
//! of `vfio-migration-host`.
//!
//! Deliberately absent: pass and fail. Numbers depend on the machine; only their ratios can be compared.

mod copy;
mod cost;
mod files;
mod migrate;
mod records;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Measurements of core's path; `cargo xtask bench` runs all of them.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    measurement: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// Throughput of save and load, each against a bare loop of read and write
    Copy {
        /// Size of the device's state
        #[arg(long, value_name = "MIB")]
        size: u32,
        /// Pairs of runs in each row
        #[arg(long)]
        rounds: usize,
        /// Folder for the file that stands for the link
        #[arg(long)]
        folder: PathBuf,
    },
    /// System calls and allocations, file to file
    Cost {
        /// Size of the device's state
        #[arg(long, value_name = "MIB")]
        size: u32,
    },
    /// Peak memory of this process while it saves and loads, in KiB
    Peak {
        /// Size of the device's state
        #[arg(long, value_name = "MIB")]
        size: u32,
    },
    /// Handles so many records and ends: what a counter of instructions runs
    Records {
        /// The path that handles them
        path: records::Path,
        /// How many
        count: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().measurement {
        Measurement::Copy { size, rounds, folder } => copy::run(size, rounds, &folder),
        Measurement::Cost { size } => cost::run(size),
        Measurement::Peak { size } => cost::peak(size),
        Measurement::Records { path, count } => records::run(path, count),
    }
}

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// The buffers that are measured, in bytes.
const BUFFERS: [usize; 2] = [64 << 10, 1 << 20];
