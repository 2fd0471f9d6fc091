//! States of the size that real devices have, on the kernel's test device.
//!
//! Deliberately absent: how quickly it goes. Under emulation a time says nothing; bytes and memory do.

mod killed;
mod live;
mod several;
mod slow;
mod transfer;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::device::RUNNING;
use crate::modules::Set;
use crate::suite::{Bench, Case};
use crate::testdev::{TestDevice, kib};
use crate::tool::{self, Outcome, vfio_migrate};

pub(super) const CASES: &[Case] = &[
    ("large_state_goes_through_file_pipe_and_move_in_little_memory", |bench| {
        timed(bench, transfer::everything)
    }),
    ("state_goes_through_buffers_of_any_size", |bench| timed(bench, transfer::buffers)),
    ("large_state_that_changes_slowly_is_moved_before_the_stop", |bench| timed(bench, live::converges)),
    ("large_state_that_changes_quickly_is_refused_with_advice_and_runs_on", |bench| {
        timed(bench, live::does_not_converge)
    }),
    ("initial_data_that_begin_anew_are_sent_and_told_anew", |bench| timed(bench, live::begins_anew)),
    ("interrupt_of_a_slow_device_ends_soon_and_leaves_it_running", |bench| timed(bench, slow::interrupted)),
    ("interrupt_of_a_device_that_blocks_ends_with_its_call", |bench| timed(bench, slow::blocking)),
    ("killed_save_leaves_the_content_in_each_phase", |bench| timed(bench, killed::saves)),
    ("killed_load_and_killed_move_leave_what_recover_brings_back", |bench| timed(bench, killed::moves)),
    ("four_large_devices_are_saved_and_loaded_in_lockstep", |bench| timed(bench, several::lockstep)),
    ("large_stream_that_is_cut_damaged_or_of_another_driver_is_refused", |bench| {
        timed(bench, several::refusals)
    }),
];

/// Runs a case and tells how long it took, with the making of its devices.
fn timed(bench: &Bench, case: fn(&Bench) -> Result<()>) -> Result<()> {
    let began = Instant::now();
    case(bench)?;
    println!("# all of this took {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Bytes of a large content.
const LARGE: u64 = 256 * MIB;
const MIB: u64 = 1 << 20;

/// Makes the device number `number`, which holds so many bytes.
fn device(set: Set, number: u32, size: u64) -> Result<TestDevice> {
    let device = TestDevice::create(set, &format!("c0000000-0000-0000-0000-{number:012}"))?;
    device.knob("size", size)?;
    device.fill(u64::from(number))?;
    Ok(device)
}

/// How a process ended, and what it took.
struct Measured {
    outcome: Outcome,
    took: Duration,
    /// The most memory that it had at once, in bytes.
    peak: u64,
}

impl Measured {
    /// Runs `vfio-migrate` to its end.
    fn run(arguments: &str) -> Result<Self> {
        Self::start(vfio_migrate(arguments).stdin(Stdio::null()).stdout(Stdio::piped()))?.finish()
    }

    fn start(command: &mut Command) -> Result<Running> {
        let began = Instant::now();
        let child = tool::start(command)?;
        let status = format!("/proc/{}/status", child.id());
        let watch = thread::spawn(move || peak(&status));
        Ok(Running { child, began, watch })
    }

    /// Fails unless it went well; tells what it took.
    fn expect(self, wanted: &[i32], what: &str) -> Result<Outcome> {
        let outcome = self.outcome.expect(wanted)?;
        let (took, peak) = (self.took.as_secs_f64(), self.peak / 1024);
        println!("# {what}: {took:.1} s, at most {peak} KiB of memory");
        Ok(outcome)
    }
}

/// A process whose memory is watched.
struct Running {
    child: Child,
    began: Instant,
    watch: thread::JoinHandle<u64>,
}

impl Running {
    fn finish(self) -> Result<Measured> {
        let outcome = tool::finish(self.child)?;
        let peak = self.watch.join().ok().context("the watching thread panicked")?;
        Ok(Measured { outcome, took: self.began.elapsed(), peak })
    }
}

/// Starts `vfio-migrate` with arguments that are separated by spaces.
fn start(arguments: &str) -> Result<Child> {
    tool::start(vfio_migrate(arguments).stdin(Stdio::null()).stdout(Stdio::null()))
}

/// The most memory that a process had, as long as it was there.
fn peak(status: &str) -> u64 {
    let mut peak = 0;
    while let Ok(now) = kib(status, "VmHWM:") {
        peak = now * 1024;
        thread::sleep(Duration::from_millis(5));
    }
    peak
}

/// Fails unless the device runs and holds this.
fn check(device: &TestDevice, content: u64) -> Result<()> {
    let got = (device.state()?, device.checksum()?);
    ensure!(got.0 == "RUNNING" && got.1 == content, "wanted RUNNING with {content:x}, got {got:x?}");
    Ok(())
}

/// Lets a device run that was left in STOP.
fn let_run(device: &TestDevice) -> Result<()> {
    let state = device.state()?;
    ensure!(state == "STOP", "wanted STOP, got {state}");
    device.open()?.set_state(RUNNING)
}

/// How many bytes were moved while the devices stood still, and how many in all.
fn moved(said: &str) -> Result<(u64, u64)> {
    let part = said.split_once(", in which ").and_then(|(_, rest)| rest.split_once(" bytes of state"));
    let (moved, all) = part.and_then(|(part, _)| part.split_once(" of ")).context("no word of the bytes")?;
    Ok((moved.parse()?, all.parse()?))
}

/// A folder of its own for what is saved, so that nothing else is found there.
struct Folder(&'static str);

impl Folder {
    fn new(path: &'static str) -> Result<Self> {
        fs::create_dir(path)?;
        Ok(Self(path))
    }

    fn file(&self) -> String {
        format!("{}/state", self.0)
    }

    /// Fails if anything was left.
    fn check_empty(&self) -> Result<()> {
        let names = fs::read_dir(self.0)?.flatten().map(|file| file.file_name());
        let names: Vec<_> = names.collect();
        ensure!(names.is_empty(), "wanted no file, got {names:?}");
        Ok(())
    }
}

impl Drop for Folder {
    /// What cannot be removed shows where it is made anew.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}
