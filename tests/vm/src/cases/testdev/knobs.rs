//! What the knobs of the test device do, seen through the kernel's own calls.
//!
//! Deliberately absent: the program, but for its interrupt in a slow load. What it makes of such devices
//! is looked at elsewhere.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, pwrite};
use rustix::process::Signal;
use vfio_migration_host::ioctl;
use vfio_migration_host::open::Opened;

use super::{FILE, SOURCE, TARGET, stop_copy};
use crate::cases::library::borrow;
use crate::device::{OpenCard, PRE_COPY, RESUMING, RUNNING, STOP, STOP_COPY};
use crate::suite::{Bench, Case};
use crate::testdev::{CONTENT, TestDevice};
use crate::tool::{self, DONE, vfio_migrate, wait_until};

pub(super) const CASES: &[Case] = &[
    ("test_device_gives_in_pre_copy_what_initial_says", initial),
    ("test_device_changes_with_each_read", dirty_per_read),
    ("test_device_changes_at_its_rate_and_stands_still_in_p2p", dirty_rate),
    ("test_device_begins_anew_once_for_those_who_know_of_it", reinit),
    ("test_device_lets_its_reader_wait", delay),
    ("test_device_lets_its_writer_wait", slow_load),
    ("test_device_that_loads_slowly_can_be_interrupted", interrupted_load),
    ("test_device_wakes_its_reader_when_its_guest_changes_it", woken),
    ("test_device_reads_short_and_is_interrupted", short),
    ("test_device_gives_the_same_state_page_by_page_and_at_once", whole),
    ("test_device_that_wrongly_goes_back_to_pre_copy_gives_its_state_once", whole_again),
    ("test_device_takes_its_time_for_a_step", arc_delay),
    ("test_device_fails_between_two_steps", midway),
    ("test_device_says_any_size", data_size),
    ("test_device_is_reset_when_it_is_opened", reset_on_open),
];

/// A device, and the file descriptor by which it is asked; the device is removed when that is closed.
struct Asked {
    opened: Opened,
    _held: OpenCard,
    device: TestDevice,
}

/// A device with these knobs, held open.
fn asked(bench: &Bench, knobs: &[(&str, &str)]) -> Result<Asked> {
    let device = TestDevice::create(bench.source.set(), SOURCE)?;
    knobs.iter().try_for_each(|(name, value)| device.knob(name, value))?;
    let held = device.open()?;
    let opened = borrow(&held)?;
    Ok(Asked { device, _held: held, opened })
}

impl Asked {
    fn set(&self, state: u32) -> Result<Option<OwnedFd>, Errno> {
        ioctl::set_device_state(&self.opened, state)
    }

    /// Opens a session.
    fn session(&self, state: u32) -> Result<File> {
        Ok(File::from(self.set(state)?.context("no data fd")?))
    }
}

/// Reads until there is nothing more; returns how many bytes came.
fn drain(data: &mut File) -> Result<usize> {
    let mut buffer = vec![0; 1 << 20];
    let mut sum = 0;
    loop {
        match data.read(&mut buffer) {
            Ok(0) => return Ok(sum),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOMSG) => return Ok(sum),
            Ok(count) => sum += count,
            Err(error) => return Err(error.into()),
        }
    }
}

/// `initial_bytes`, `dirty_bytes` and flags.
fn info(data: &File) -> Result<(u64, u64, u32)> {
    let info = ioctl::get_precopy_info(data)?;
    Ok((info.initial_bytes, info.dirty_bytes, info.flags))
}

/// Whether poll says so at once.
fn is_ready(data: &File, wanted: PollFlags) -> Result<bool> {
    let mut fds = [PollFd::new(data, wanted)];
    Ok(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? == 1)
}

/// Waits until poll says so; an end of the wait by itself would take a minute.
fn wait_for(data: &File, wanted: PollFlags) -> Result<Duration> {
    let began = Instant::now();
    let mut fds = [PollFd::new(data, wanted)];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 60, tv_nsec: 0 }))?;
    let took = began.elapsed();
    ensure!(ready == 1 && took < Duration::from_secs(45), "poll does not wake up: {took:?}");
    Ok(took)
}

/// What a call of std's answers, as the kernel says it.
fn answer(result: io::Result<usize>) -> Result<usize, Option<Errno>> {
    result.map_err(|error| Errno::from_io_error(&error))
}

fn initial(bench: &Bench) -> Result<()> {
    for (knob, pages) in [("0", 0), ("1", 1), ("8192", 2), ("max", 5)] {
        let asked = asked(bench, &[("initial", knob)])?;
        let mut data = asked.session(PRE_COPY)?;
        let wanted = HEAD + pages * RECORD + u64::min(pages * PAGE, SIZE);
        let (before, got) = (info(&data)?, drain(&mut data)? as u64);
        ensure!(before == (wanted, 0, 0) && got == wanted, "{knob}: wanted {wanted}, got {before:?}, {got}");
        ensure!(
            info(&data)? == (0, 0, 0) && !is_ready(&data, PollFlags::IN)?,
            "{knob}: got {:?}",
            info(&data)?
        );
        let rest = ioctl::get_mig_data_size(&asked.opened)?;
        asked.set(STOP_COPY)?;
        let got = drain(&mut data)? as u64;
        let all = HEAD + 5 * RECORD + SIZE + RECORD;
        ensure!(got == rest && wanted + rest == all, "{knob}: wanted {rest} and {all} in all, got {got}");
    }
    Ok(())
}

fn dirty_per_read(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[("dirty_per_read", "4096")])?;
    let before = asked.device.checksum()?;
    let mut data = asked.session(PRE_COPY)?;
    let mut buffer = vec![0; 1 << 20];
    for read in 0..3 {
        ensure!(data.read(&mut buffer)? > 0, "read {read} gave nothing");
        let got = info(&data)?;
        ensure!(got == (0, PAGE + RECORD, 0), "after read {read}: got {got:?}");
    }
    ensure!(asked.device.checksum()? != before, "the content has not changed");
    Ok(())
}

fn dirty_rate(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[("size", "16777216"), ("dirty_rate", "4194304")])?;
    let mut data = asked.session(PRE_COPY)?;
    drain(&mut data)?;
    let left = info(&data)?.1;
    sleep(Duration::from_millis(500));
    let grown = info(&data)?.1.saturating_sub(left);
    ensure!(grown >= 4_194_304 * 2 / 5, "in half a second at 4 MiB/s: got {grown} bytes");
    asked.set(PRE_COPY_P2P)?;
    let still = info(&data)?.1;
    sleep(Duration::from_millis(50));
    ensure!(info(&data)?.1 == still, "the device works on in P2P");
    Ok(())
}

/// Without the user's word nothing begins anew. The rest of a page that was begun comes before the new start.
fn reinit(bench: &Bench) -> Result<()> {
    let once = HEAD + 5 * RECORD + SIZE;
    let anew = HEAD + 2 * (RECORD + PAGE) + once - HEAD;
    for (knows, flags, wanted) in [(false, 0, once), (true, 1, anew)] {
        let asked = asked(bench, &[("reinit_after", "5000")])?;
        if knows {
            ioctl::set_precopy_info_v2(&asked.opened)?;
        }
        let mut data = asked.session(PRE_COPY)?;
        ensure!(info(&data)? == (once, 0, 0), "at first: wanted {once} bytes, got {:?}", info(&data)?);
        data.read_exact(&mut [0; 5000])?;
        let got = 5000 + drain(&mut data)? as u64;
        ensure!(got == wanted, "knows of it: {knows}: wanted {wanted} bytes, got {got}");
        let told = [info(&data)?, info(&data)?];
        ensure!(told == [(0, 0, flags), (0, 0, 0)], "knows of it: {knows}: got {told:?}");
    }
    Ok(())
}

/// A page takes more than two seconds, the head of 32 bytes some milliseconds.
fn delay(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[("delay_per_mib", "600000")])?;
    let mut data = asked.session(PRE_COPY)?;
    fcntl_setfl(&data, OFlags::NONBLOCK)?;
    let mut buffer = [0; 5000];
    wait_for(&data, PollFlags::IN)?;
    ensure!(data.read(&mut buffer)? == 32, "wanted the head");
    ensure!(!is_ready(&data, PollFlags::IN)?, "readable before there are data");
    let got = answer(data.read(&mut buffer));
    ensure!(got == Err(Some(Errno::AGAIN)), "wanted EAGAIN, got {got:?}");
    wait_for(&data, PollFlags::IN)?;
    ensure!(data.read(&mut buffer[..4096])? == 4096, "wanted a page's worth");
    asked.device.knob("ignore_nonblock", 1)?;
    let began = Instant::now();
    ensure!(data.read(&mut buffer[..100])? == 16, "wanted the page's rest");
    ensure!(data.read(&mut buffer[..100])? == 100, "wanted a part of the next page");
    let took = began.elapsed();
    ensure!(took > Duration::from_secs(1), "a page takes 2.3 s, this took {took:?}");
    asked.device.knob("delay_per_mib", 0)?;
    drain(&mut data).map(drop)
}

/// A page takes more than two seconds: a write is taken when the device is done with what it has.
fn slow_load(bench: &Bench) -> Result<()> {
    let (state, sent) = {
        let source = TestDevice::create(bench.source.set(), SOURCE)?;
        let sent = source.fill(5)?;
        (stop_copy(&source)?, sent)
    };
    let asked = asked(bench, &[("delay_per_mib", "600000")])?;
    let mut data = asked.session(RESUMING)?;
    fcntl_setfl(&data, OFlags::NONBLOCK)?;
    let began = Instant::now();
    let got = answer(data.write(&state));
    ensure!(got == Ok(4096), "wanted a page to be taken at once, got {got:?}");
    ensure!(!is_ready(&data, PollFlags::OUT)?, "writable while it is busy");
    let got = answer(data.write(&state[4096..]));
    ensure!(got == Err(Some(Errno::AGAIN)), "wanted EAGAIN, got {got:?}");
    wait_for(&data, PollFlags::OUT)?;
    let took = began.elapsed();
    ensure!(took > Duration::from_secs(2), "a page takes 2.3 s, this took {took:?}");
    asked.device.knob("ignore_nonblock", 1)?;
    for write in [1, 2] {
        let got = answer(data.write(&state[write * 4096..][..4096]));
        ensure!(got == Ok(4096), "write {write}: wanted a page to be taken, got {got:?}");
    }
    let took = began.elapsed();
    ensure!(took > Duration::from_secs(4), "two pages take 4.6 s, this took {took:?}");
    asked.device.knob("delay_per_mib", 0)?;
    data.write_all(&state[3 * 4096..])?;
    asked.set(STOP)?;
    let got = asked.device.checksum()?;
    ensure!(got == sent, "the content: wanted {sent:x}, got {got:x}");
    Ok(())
}

/// All of it would take minutes, or where the driver blocks one minute in calls of a quarter of a second.
fn interrupted_load(bench: &Bench) -> Result<()> {
    let source = TestDevice::create(bench.source.set(), SOURCE)?;
    let target = TestDevice::create(bench.source.set(), TARGET)?;
    source.knob("size", 1 << 20)?;
    target.knob("size", 1 << 20)?;
    tool::run(&format!("save {} --output {FILE}", source.argument()?))?.expect(&[DONE])?;
    for (delay, blocks) in [(600_000, 0), (60_000, 1)] {
        target.knob("delay_per_mib", delay)?;
        target.knob("ignore_nonblock", blocks)?;
        target.count_anew()?;
        let load = format!("load {} --input {FILE}", target.argument()?);
        let child = tool::start(vfio_migrate(&load).stdin(Stdio::null()).stdout(Stdio::null()))?;
        wait_until("the device is written to", || Ok(target.calls()?["write"] >= 2))?;
        let began = Instant::now();
        tool::signal(&child, Signal::INT)?;
        let said = tool::finish(child)?.expect(&[INTERRUPTED])?.errors();
        let took = began.elapsed();
        println!(
            "# SIGINT of a load of a slow device, ignore_nonblock {blocks}: over in {} ms",
            took.as_millis()
        );
        ensure!(took < Duration::from_secs(20), "wanted it to end soon, it took {took:?}");
        ensure!(said.contains("signal 2"), "wanted a word of the signal, got {said}");
        let left = (target.state()?, target.sessions()?);
        ensure!(left == ("RUNNING".into(), 0), "wanted RUNNING without a data fd, got {left:?}");
    }
    target.knob("delay_per_mib", 0)?;
    tool::run(&format!("load {} --input {FILE}", target.argument()?))?.expect(&[DONE])?;
    ensure!(target.checksum()? == source.checksum()?, "the next load did not arrive");
    Ok(())
}

/// No clock ticks in a device that is neither slow nor restless.
fn woken(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[])?;
    let mut data = asked.session(PRE_COPY)?;
    drain(&mut data)?;
    for way in ["a seed", "the region"] {
        ensure!(!is_ready(&data, PollFlags::IN)?, "before {way}: there are data");
        thread::scope(|scope| {
            let waits = scope.spawn(|| wait_for(&data, PollFlags::IN));
            sleep(Duration::from_millis(500));
            match way {
                "a seed" => asked.device.knob("seed", 6)?,
                _ => drop(pwrite(&asked.opened, &[1, 2], CONTENT)?),
            }
            waits.join().ok().context("the waiting thread panicked")?.with_context(|| way).map(drop)
        })?;
        ensure!(drain(&mut data)? > 0, "{way}: got no data");
    }
    Ok(())
}

fn short(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[("short", "100"), ("eintr", "3")])?;
    let mut data = asked.session(STOP_COPY)?;
    let mut buffer = vec![0; 1000];
    for read in 1..10 {
        let got = answer(data.read(&mut buffer));
        let wanted = if read % 3 == 0 { Err(Some(Errno::INTR)) } else { Ok(100) };
        ensure!(got == wanted, "read {read}: wanted {wanted:?}, got {got:?}");
    }
    Ok(())
}

fn whole(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), SOURCE)?;
    let pages = stop_copy(&device)?;
    device.knob("whole", 1)?;
    ensure!(stop_copy(&device)? == pages, "the state differs");
    ensure!(pages.len() as u64 == HEAD + 6 * RECORD + SIZE, "got {} bytes", pages.len());
    Ok(())
}

/// The serialised state is there once, however often the device is stopped.
fn whole_again(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[("whole", "1")])?;
    asked.device.violate("back_to_precopy")?;
    let mut data = asked.session(STOP_COPY)?;
    data.read_exact(&mut [0; 5000])?;
    asked.set(PRE_COPY)?;
    asked.set(STOP_COPY)?;
    let rest = ioctl::get_mig_data_size(&asked.opened)?;
    let got = drain(&mut data)? as u64;
    let wanted = HEAD + 6 * RECORD + SIZE - 5000;
    ensure!((got, rest) == (wanted, wanted), "wanted {wanted} bytes more, got {got} and {rest}");
    Ok(())
}

fn arc_delay(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[("arc_delay", "2 5 4500\n5 1 500\n1 3 0")])?;
    let took = |state| -> Result<Duration> {
        let began = Instant::now();
        asked.set(state)?;
        Ok(began.elapsed())
    };
    let (to, back) = (took(STOP_COPY)?, took(RUNNING)?);
    let both = Duration::from_secs(5);
    ensure!(to >= both && back < both, "took {to:?}, {back:?}");
    asked.device.knob("arc_delay", "")?;
    let again = took(STOP_COPY)?;
    ensure!(again < both, "took {again:?}");
    Ok(())
}

fn midway(bench: &Bench) -> Result<()> {
    for (end, left) in [("", "RUNNING"), ("old", "RUNNING"), ("midway", "RUNNING_P2P"), ("error", "ERROR")] {
        let asked = asked(bench, &[("fault", &format!("set 2 5 {end}"))])?;
        asked.set(RUNNING)?;
        let got = asked.set(STOP_COPY).map(drop);
        ensure!(got == Err(Errno::IO), "wanted EIO, got {got:?}");
        let state = asked.device.state()?;
        ensure!(state == left, "{end}: wanted {left}, got {state}");
        let got = asked.set(STOP_COPY).map(drop);
        let wanted = if end == "error" { Err(Errno::IO) } else { Ok(()) };
        ensure!(got == wanted, "{end}, again: wanted {wanted:?}, got {got:?}");
        ioctl::device_reset(&asked.opened)?;
        ensure!(asked.device.state()? == "RUNNING", "{end}: a reset leads to {}", asked.device.state()?);
    }
    Ok(())
}

fn data_size(bench: &Bench) -> Result<()> {
    let asked = asked(bench, &[])?;
    let right = HEAD + 6 * RECORD + SIZE;
    for (knob, wanted) in [("right", right), ("0", 0), ("1099511627776", 1 << 40), ("right", right)] {
        asked.device.knob("data_size", knob)?;
        let got = ioctl::get_mig_data_size(asked.opened.as_fd())?;
        ensure!(got == wanted, "{knob}: wanted {wanted}, got {got}");
    }
    Ok(())
}

fn reset_on_open(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), SOURCE)?;
    let zeros = {
        device.flr()?;
        device.checksum()?
    };
    for seed in [1, 2] {
        let filled = device.fill(seed)?;
        device.open()?;
        ensure!(filled != zeros && device.checksum()? == filled, "the content is lost without a reset");
    }
    device.knob("reset_on_open", 1)?;
    device.open()?;
    ensure!(device.checksum()? == zeros, "the content is still there");
    Ok(())
}

/// `VFIO_DEVICE_STATE_PRE_COPY_P2P`.
const PRE_COPY_P2P: u32 = 7;
/// The program's exit code after SIGINT.
const INTERRUPTED: i32 = 130;
/// Bytes of the head, of a record before its page, of a page, and of the content.
const HEAD: u64 = 32;
const RECORD: u64 = 16;
const PAGE: u64 = 4096;
const SIZE: u64 = 20_000;
