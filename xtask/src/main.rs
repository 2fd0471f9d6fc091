//! The tasks of the workspace, started as `cargo xtask TASK`; each file is one task.
//!
//! Deliberately absent: the library itself. Tasks run commands and read their output.

mod apt;
mod bare;
mod bench;
mod cache;
mod capi;
mod command;
mod cross;
mod freestanding;
mod fuzz;
mod panic_free;
mod size;
mod sysroot;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the VFIO migration workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check of the project and report all failures at once
    Test(test::Options),
    /// Prove that no exported path of core can panic
    PanicFree(panic_free::Options),
    /// Give hostile bytes to every decoder and to whole sessions
    Fuzz(fuzz::Options),
    /// Boot a kernel of ours that moves its device's state by interrupts
    Bare,
    /// Build the crates for other machines, and run the test suites on two of them
    Cross(cross::Options),
    /// Check the library for C: its header, its proof, and the C programs that use it
    Capi(capi::Options),
    /// Boot a Linux kernel with a migratable device under QEMU and test there
    Vm(vm::Options),
    /// Measure core's code, sessions and stacks on bare machines, and hold them against their budgets
    Size(size::Options),
    /// Measure what core's path costs, beside a bare loop of read and write
    Bench(bench::Options),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test(options) => test::run(&options),
        Task::PanicFree(options) => panic_free::run(&options).map(|tally| tally.all_passed()),
        Task::Fuzz(options) => fuzz::run(&options).map(|tally| tally.all_passed()),
        Task::Bare => bare::run().map(|tally| tally.all_passed()),
        Task::Cross(options) => cross::run(&options).map(|tally| tally.all_passed()),
        Task::Size(options) => size::run(&options).map(|tally| tally.all_passed()),
        Task::Bench(options) => bench::run(&options).map(|()| true),
        Task::Capi(options) => capi::run(&options).map(|tally| tally.all_passed()),
        Task::Vm(options) => vm::run(&options).map(|tally| tally.all_passed()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
