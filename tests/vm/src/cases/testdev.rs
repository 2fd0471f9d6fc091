//! The test device itself: it is what its knobs say, keeps the rules while none is set, and leaves nothing behind.
//!
//! Deliberately absent: what the violations break. That is for the tester of drivers to show.

mod knobs;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::io::{Errno, pread, pwrite};
use rustix::system::delete_module;
use serde_json::Value;
use vfio_migration_core::device::State;
use vfio_migration_core::device::uapi::DmaLoggingRange;
use vfio_migration_core::session::drive::Device as _;
use vfio_migration_core::session::{Code, DataRead};
use vfio_migration_host::device::Device;
use vfio_migration_host::dirty::{Error, Logging};
use vfio_migration_host::ioctl;

use super::library::borrow;
use crate::device::{RESUMING, RUNNING, STOP_COPY};
use crate::modules::Set;
use crate::steps::KernelLog;
use crate::suite::{Bench, Case};
use crate::testdev::{CONTENT, TestDevice, kib, register, set};
use crate::tool::{self, DEVICE_REFUSED, DONE, STREAM_REFUSED};

/// All cases of this room.
pub(super) fn cases() -> Vec<Case> {
    [CASES, knobs::CASES].concat()
}

const CASES: &[Case] = &[
    ("test_device_has_the_flags_that_it_is_given", flags),
    ("test_device_shows_its_content_in_its_regions", regions),
    ("test_device_shows_and_takes_each_byte_of_its_content", content),
    ("test_device_refuses_what_is_no_value_of_a_knob", wrong_values),
    ("test_device_arrives_whole_with_and_without_pre_copy", arrives),
    ("test_device_refuses_a_cut_state", cut),
    ("test_device_logs_exactly_what_its_script_says", logs),
    ("test_device_tells_of_every_page_when_its_log_is_full", full_log),
    ("test_device_refuses_calls_of_its_log_and_the_library_tells_that_all_is_dirty", refused_log),
    ("test_device_refuses_one_reset_and_takes_the_next", refused_reset),
    ("test_device_that_its_guest_resets_is_told_of", guest_reset),
    ("test_device_in_error_is_told_of_and_a_reset_helps", error),
    ("test_device_counts_its_calls", calls),
    ("test_device_keeps_in_mind_which_rules_it_breaks", violations),
    ("test_devices_with_256_mib_are_filled_and_compared", large),
    ("test_devices_come_and_go_and_leave_no_memory_behind", come_and_go),
    ("test_devices_leave_no_warning_in_the_kernels_log", no_warning),
];

/// A pair of test devices, which have the same content at first.
fn pair(bench: &Bench) -> Result<(TestDevice, TestDevice)> {
    let set = bench.source.set();
    Ok((TestDevice::create(set, SOURCE)?, TestDevice::create(set, TARGET)?))
}

fn flags(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    for flags in [1, 3, 5, 7] {
        device.knob("flags", flags)?;
        let probe = tool::run(&format!("probe {} --json", device.argument()?))?.expect(&[DONE])?.output();
        let probe: Value = serde_json::from_str(&probe)?;
        let got = (&probe["driver"], &probe["flags"], &probe["state"]);
        let wanted = (&Value::from("migtest"), &Value::from(flags), &Value::from("RUNNING"));
        ensure!(got == wanted, "wanted {wanted:?}, got {got:?}");
    }
    Ok(())
}

fn regions(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    let before = device.checksum()?;
    let held = device.open()?;
    let read = |place| held.register(place);
    ensure!(read(register::MAGIC) == u64::from_le_bytes(*b"MIGTEST\0"), "no magic number");
    let got = (read(register::SIZE), read(register::CHECKSUM), read(register::SEED), read(register::FLRS));
    ensure!(got == (20_000, before, 1, 0), "wanted 20000 bytes with {before:#x} of seed 1, got {got:x?}");
    held.set_register(register::SEED, 7);
    let (seed, filled) = (read(register::SEED), read(register::CHECKSUM));
    ensure!(seed == 7 && filled != before && filled == device.checksum()?, "seed {seed}: got {filled:#x}");
    held.set_register(register::FLR, 1);
    let (resets, cleared) = (read(register::FLRS), read(register::CHECKSUM));
    ensure!(resets == 1 && cleared != filled, "after a reset: got {resets} and {cleared:#x}");
    drop(held);
    ensure!(device.fill(1)? == before, "the same seed gives another content");
    Ok(())
}

/// A read begins at the end of the content: nothing. One that goes beyond it ends there.
fn content(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    let before = device.checksum()?;
    let held = device.open()?;
    let opened = borrow(&held)?;
    let mut bytes = vec![0; 30_000];
    let got = pread(&opened, &mut bytes[..], CONTENT)?;
    ensure!(got == 20_000, "wanted the whole content of 20000 bytes, got {got}");
    for (value, is_back) in [(!bytes[PLACE], false), (bytes[PLACE], true)] {
        let written = pwrite(&opened, &[value], CONTENT + PLACE as u64)?;
        let mut now = vec![0; 20_000];
        pread(&opened, &mut now[..], CONTENT)?;
        let is_same = device.checksum()? == before;
        ensure!(written == 1 && is_same == is_back, "byte {value:#x}: the old checksum: {is_same}");
        bytes[PLACE] = value;
        ensure!(now == bytes[..20_000], "byte {value:#x}: the content is another one");
    }
    for (at, wanted) in [(19_990, 10), (20_000, 0), (1 << 30, 0)] {
        let got = pread(&opened, &mut bytes[..100], CONTENT + at)?;
        ensure!(got == wanted, "at {at}: wanted {wanted} bytes, got {got}");
    }
    Ok(())
}

fn wrong_values(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    let wrong = [
        ("flags", "x"),
        ("size", "1073741825"),
        ("whole", "2"),
        ("data_size", "left"),
        ("arc_delay", "1 2"),
        ("arc_delay", "1 8 1"),
        ("arc_delay", "1 3 20001"),
        ("fault", "set 1 5 nowhere"),
        ("fault", "read 1 5 error"),
        ("fault", "read 1 0"),
        ("fault", "wrte 1 5"),
        ("dirty_pages", "0x1000"),
        ("dirty_pages", "0x1000 0"),
    ];
    for (knob, value) in wrong {
        ensure!(device.knob(knob, value).is_err(), "{knob}: {value:?} was taken");
    }
    let held = device.open()?;
    ensure!(device.knob("size", 5).is_err() && device.knob("flags", 1).is_err(), "taken while it is open");
    drop(held);
    let (knobs, violations) = (device.knobs()?.len(), device.violations()?.len());
    ensure!(knobs == 18 && violations > 60, "got {knobs} knobs and {violations} violations");
    Ok(())
}

fn arrives(bench: &Bench) -> Result<()> {
    let (source, target) = pair(bench)?;
    for (seed, options) in [(2, ""), (3, "--precopy")] {
        let sent = source.fill(seed)?;
        ensure!(target.fill(99)? != sent, "the checksum does not tell contents apart");
        tool::run(&format!("save {} {options} --output {FILE}", source.argument()?))?.expect(&[DONE])?;
        tool::run(&format!("load {} --input {FILE}", target.argument()?))?.expect(&[DONE])?;
        let got = (source.checksum()?, target.checksum()?);
        ensure!(got == (sent, sent), "{options}: wanted {sent:#x} on both sides, got {got:x?}");
        target.card().check_state(RUNNING)?;
        let open = source.sessions()? + target.sessions()?;
        ensure!(open == 0, "wanted no open data fd, got {open}");
    }
    Ok(())
}

/// The program sees that the file is cut; without it, the driver does.
fn cut(bench: &Bench) -> Result<()> {
    let (source, target) = pair(bench)?;
    tool::run(&format!("save {} --output {FILE}", source.argument()?))?.expect(&[DONE])?;
    let bytes = fs::read(FILE)?;
    fs::write(FILE, &bytes[..bytes.len() / 2])?;
    let load = format!("load {} --input {FILE}", target.argument()?);
    tool::run(&load)?.expect_refusal(&[(STREAM_REFUSED, &["wanted", "byte"])])?;
    target.card().check_state(RUNNING)?;
    let state = stop_copy(&source)?;
    for length in [0, 1, 31, 32, 33, state.len() / 2, state.len() - 1] {
        let refused = write_state(&target, &state[..length])?;
        ensure!(refused == Err(Code(22)), "{length} bytes: wanted EINVAL, got {refused:?}");
        target.card().check_state(RESUMING)?;
        target.flr()?;
    }
    write_state(&target, &state)?.map_err(|code| anyhow!("the whole state: {code}"))?;
    ensure!(target.checksum()? == source.checksum()?, "the whole state did not arrive");
    Ok(())
}

/// What the device gives while it stands.
fn stop_copy(device: &TestDevice) -> Result<Vec<u8>> {
    let held = device.open()?;
    let opened = borrow(&held)?;
    let mut device = Device::new(opened.as_fd())?;
    set(&mut device, State::StopCopy)?;
    let mut state = Vec::new();
    let mut buffer = [0; 1000];
    while let DataRead::Bytes(count) = device.read_data(&mut buffer).map_err(|code| anyhow!("{code}"))? {
        state.extend_from_slice(&buffer[..count]);
    }
    set(&mut device, State::Running)?;
    Ok(state)
}

/// What the device says to these bytes as its state, at the latest when it leaves RESUMING.
fn write_state(device: &TestDevice, mut bytes: &[u8]) -> Result<Result<(), Code>> {
    let held = device.open()?;
    let opened = borrow(&held)?;
    let mut device = Device::new(opened.as_fd())?;
    set(&mut device, State::Resuming)?;
    while !bytes.is_empty() {
        match device.write_data(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(code) => return Ok(Err(code)),
        }
    }
    Ok(device.set_state(State::Stop))
}

/// A kernel without iommufd can't report, so that the device has no log there.
fn logs(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    device.knob("dirty_pages", "0x40003000 4096\n0x40010000 0x3000\n0x7fff0000 1\n0x123000 4096")?;
    let held = device.open()?;
    let opened = borrow(&held)?;
    let ranges = [range(0x4000_0000, 0x1000_0000), range(0x7000_0000, 0x1000_0000)];
    let started = Logging::start(opened.as_fd(), 4096, &ranges);
    if bench.source.set() == Set::Stock {
        let refused = matches!(started, Err(Error::NotStarted(Errno::NOTTY)));
        ensure!(refused, "START: wanted ENOTTY, got {started:?}");
        return Ok(());
    }
    let mut logging = started?;
    let mut bitmap = vec![0; 2048];
    for wanted in
        [vec![range(0x4000_3000, 0x1000), range(0x4001_0000, 0x3000), range(0x7fff_0000, 0x1000)], Vec::new()]
    {
        let mut got = Vec::new();
        logging.report_all(&mut bitmap, |run| got.push(run))?;
        ensure!(got == wanted, "wanted {wanted:x?}, got {got:x?}");
    }
    logging.stop().context("STOP")
}

fn range(iova: u64, length: u64) -> DmaLoggingRange {
    DmaLoggingRange { iova, length }
}

/// The middle of a range is told while there is no room for what is behind it as a range of its own.
fn full_log(bench: &Bench) -> Result<()> {
    if bench.source.set() == Set::Stock {
        return Ok(());
    }
    let (device, _) = pair(bench)?;
    device.knob("dirty_pages", format!("0x40000000 0xc0000\n{}", "0 1\n".repeat(511)))?;
    let held = device.open()?;
    let opened = borrow(&held)?;
    let (all, middle) = (range(0x4000_0000, 0xc_0000), range(0x4004_0000, 0x4_0000));
    let mut logging = Logging::start(opened.as_fd(), 4096, &[all])?;
    let mut got = Vec::new();
    logging.report(middle, &mut [0; 8], |run| got.push(run))?;
    ensure!(got == [middle], "wanted {middle:x?}, got {got:x?}");
    got.clear();
    logging.report_all(&mut [0; 8], |run| got.push(run))?;
    ensure!(got == [all], "wanted {all:x?}, got {got:x?}");
    logging.stop().context("STOP")
}

/// After a refused report all is dirty, again and again, and the driver is not asked any more.
fn refused_log(bench: &Bench) -> Result<()> {
    if bench.source.set() == Set::Stock {
        return Ok(());
    }
    let (device, _) = pair(bench)?;
    device.knob("dirty_pages", "0x40003000 4096")?;
    device.knob("fault", "start 1 5\nreport 1 16\nstop 1 12")?;
    let held = device.open()?;
    let opened = borrow(&held)?;
    let all = range(0x4000_0000, 0x10_0000);
    let start = || Logging::start(opened.as_fd(), 4096, &[all]);
    let got = start();
    ensure!(matches!(got, Err(Error::NotStarted(Errno::IO))), "START: wanted EIO, got {got:?}");
    let mut logging = start()?;
    for report in 1..3 {
        let mut dirty = Vec::new();
        let got = logging.report_all(&mut [0; 8], |run| dirty.push(run));
        ensure!(matches!(got, Err(Error::NotReported(Errno::BUSY))), "REPORT: wanted EBUSY, got {got:?}");
        ensure!(dirty.contains(&all), "report {report}: wanted {all:x?}, got {dirty:x?}");
    }
    let asked = device.calls()?["report"];
    ensure!(asked == 1, "reports that the driver saw: wanted 1, got {asked}");
    let got = logging.stop();
    ensure!(got == Err(Errno::NOMEM), "STOP: wanted ENOMEM, got {got:?}");
    // The log that could not be stopped is still on.
    let got = start();
    ensure!(matches!(got, Err(Error::NotStarted(Errno::BUSY))), "START: wanted EBUSY, got {got:?}");
    ioctl::dma_logging_stop(&opened).context("STOP again")?;
    let (mut logging, mut dirty) = (start()?, Vec::new());
    logging.report_all(&mut [0; 8], |run| dirty.push(run))?;
    ensure!(dirty == [range(0x4000_3000, 4096)], "a new log: got {dirty:x?}");
    logging.stop().context("STOP of the new log")
}

fn refused_reset(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    let before = device.checksum()?;
    device.knob("fault", "reset 1 5")?;
    let held = device.open()?;
    let opened = borrow(&held)?;
    let mut library = Device::new(opened.as_fd())?;
    set(&mut library, State::Stop)?;
    let got = library.reset();
    ensure!(got == Err(Code(5)), "the first reset: wanted EIO, got {got:?}");
    let left = (device.state()?, device.checksum()?);
    ensure!(left == ("STOP".into(), before), "after it: wanted STOP with {before:x}, got {left:x?}");
    library.reset().map_err(|code| anyhow!("the second reset: {code}"))?;
    let left = (device.state()?, device.checksum()?);
    ensure!(left.0 == "RUNNING" && left.1 != before, "after the second: got {left:x?}");
    Ok(())
}

fn guest_reset(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    reset_behind(&device)?;
    device.knob("fault", "read 3 flr")?;
    let save = format!("save {} --precopy --output {FILE} --buffer 4KiB", device.argument()?);
    tool::run(&save)?.expect_refusal(&[(DEVICE_REFUSED, &["read"])])?;
    device.card().check_state(RUNNING)
}

/// A session in pre-copy that the guest ends: the next SET gives a data fd where none was expected.
fn reset_behind(device: &TestDevice) -> Result<()> {
    let held = device.open()?;
    let opened = borrow(&held)?;
    let mut library = Device::new(opened.as_fd())?;
    set(&mut library, State::PreCopy)?;
    device.flr()?;
    let told = library.set_state(State::StopCopy);
    ensure!(told == Err(Code(9)), "wanted EBADF, got {told:?}");
    set(&mut library, State::Running)
}

/// The program resets a device in ERROR. Where that fails too, the device stays there.
fn error(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    let save = format!("save {} --output {FILE}", device.argument()?);
    device.knob("fault", "set 1 5 error")?;
    tool::run(&save)?.expect_refusal(&[(DEVICE_REFUSED, &["STOP_COPY", "reset"])])?;
    device.card().check_state(RUNNING)?;
    device.knob("fault", "set 1 5 error\nreset 1 16")?;
    tool::run(&save)?.expect_refusal(&[(DEVICE_REFUSED, &["STOP_COPY", "reset", "unknown"])])?;
    ensure!(device.state()? == "ERROR", "wanted ERROR, got {}", device.state()?);
    tool::run(&format!("recover {} --reset", device.argument()?))?.expect(&[DONE])?;
    device.card().check_state(RUNNING)?;
    tool::run(&save)?.expect(&[DONE]).map(drop)
}

fn calls(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    device.count_anew()?;
    tool::run(&format!("save {} --output {FILE}", device.argument()?))?.expect(&[DONE])?;
    let calls = device.calls()?;
    let names: BTreeSet<_> = calls.keys().map(String::as_str).collect();
    let wanted = ["get", "info", "read", "report", "reset", "set", "size", "start", "stop", "write"];
    ensure!(names == BTreeSet::from(wanted), "wanted {wanted:?}, got {names:?}");
    ensure!(calls["set"] >= 2 && calls["read"] >= 2 && calls["write"] == 0, "got {calls:?}");
    device.knob("fault", format!("read {} 5", calls["read"]))?;
    tool::run(&format!("save {} --output {FILE}", device.argument()?))?
        .expect_refusal(&[(DEVICE_REFUSED, &["read"])])?;
    device.card().check_state(RUNNING)
}

fn violations(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    let is_on = |name: &str| fs::read_to_string(device.card().sysfs().join("violations").join(name));
    for name in device.violations()? {
        let before = is_on(&name)?;
        device.violate(&name)?;
        let during = is_on(&name)?;
        device.obey(&name)?;
        let got = (before, during, is_on(&name)?);
        ensure!(got == ("0\n".into(), "1\n".into(), "0\n".into()), "{name}: got {got:?}");
    }
    Ok(())
}

fn large(bench: &Bench) -> Result<()> {
    let (source, target) = pair(bench)?;
    let began = Instant::now();
    for device in [&source, &target] {
        device.knob("size", 256 << 20)?;
    }
    let filled = began.elapsed();
    let (one, other) = (source.checksum()?, target.checksum()?);
    let compared = began.elapsed() - filled;
    ensure!(one == other, "the same seed gives other contents: {one:#x} and {other:#x}");
    println!(
        "# two contents of 256 MiB: made in {:.1} s, checksums in {:.1} s; {} MiB of the machine are left",
        filled.as_secs_f64(),
        compared.as_secs_f64(),
        kib("/proc/meminfo", "MemAvailable:")? / 1024
    );
    drop(target);
    source.knob("size", 1 << 30)?;
    let grown = source.open()?.register(register::SIZE);
    ensure!(grown == 1 << 30, "wanted 1 GiB, got {grown} bytes");
    source.knob("size", 0)?;
    tool::run(&format!("save {} --output {FILE}", source.argument()?))?.expect(&[DONE]).map(drop)
}

/// The module's memory is what the kernel lists by its functions' names; slabs are looked at roughly.
fn come_and_go(bench: &Bench) -> Result<()> {
    come_once(bench)?;
    let before = kib("/proc/meminfo", "SUnreclaim:")?;
    (0..ROUNDS).try_for_each(|_| come_once(bench))?;
    let areas = fs::read_to_string("/proc/vmallocinfo")?;
    let areas: Vec<_> = areas.lines().filter(|line| line.contains("[migtest]")).collect();
    // Its code and data are there for as long as it is loaded.
    let left = areas.iter().filter(|line| !line.contains("module")).count();
    let after = kib("/proc/meminfo", "SUnreclaim:")?;
    println!(
        "# {ROUNDS} devices came and went: {left} areas of memory left, slabs {before} KiB before, {after} KiB after"
    );
    ensure!(left == 0, "wanted no area of memory, got {areas:?}");
    let grown = after.saturating_sub(before);
    ensure!(grown < 4 * ROUNDS, "slabs: wanted less than {} KiB more, got {grown}", 4 * ROUNDS);
    Ok(())
}

/// Makes a device, lets it have a session, and removes it while the session's file is open; the module stays then too.
fn come_once(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), SOURCE)?;
    device.knob("size", 1 << 20)?;
    let data = {
        let held = device.open()?;
        let opened = borrow(&held)?;
        File::from(ioctl::set_device_state(&opened, STOP_COPY)?.context("no data fd")?)
    };
    let areas = fs::read_to_string("/proc/vmallocinfo")?;
    ensure!(areas.contains("[migtest]"), "the device's memory is not in the list of the kernel's");
    drop(device);
    let got = (&data).read(&mut [0; 100]).map_err(|error| Errno::from_io_error(&error));
    ensure!(got == Err(Some(Errno::NODEV)), "read without the device: wanted ENODEV, got {got:?}");
    let got = delete_module(c"migtest", 0);
    ensure!(got == Err(Errno::AGAIN), "unloading under an open file: wanted EAGAIN, got {got:?}");
    Ok(())
}

/// Walks through what a careless driver is warned of, and looks at the whole log.
fn no_warning(bench: &Bench) -> Result<()> {
    let (device, _) = pair(bench)?;
    device.knob("fault", "set 2 5 error")?;
    for flags in [2, 0x17, 1, 7] {
        device.knob("flags", flags)?;
        let held = device.open()?;
        let opened = borrow(&held)?;
        for state in (0..10).chain([u32::MAX]).chain(0..8) {
            drop(ioctl::set_device_state(&opened, state));
        }
        ioctl::device_reset(&opened)?;
    }
    let lines = KernelLog::whole()?.lines()?;
    ensure!(lines.iter().any(|line| line.contains("migtest step")), "the device's steps are not in the log");
    let is_warning = |line: &&String| WARNINGS.iter().any(|word| line.contains(word));
    let warnings: Vec<_> = lines.iter().filter(is_warning).collect();
    ensure!(warnings.is_empty(), "the kernel warned: {warnings:?}");
    Ok(())
}

/// A byte in the middle of a page.
const PLACE: usize = 4103;
const ROUNDS: u64 = 200;
/// How the kernel begins to tell of what it does not like.
const WARNINGS: [&str; 5] = ["WARNING: ", "BUG: ", "Oops: ", "INFO: task ", "refcount_t: "];
const FILE: &str = "/tmp/test-device";
const SOURCE: &str = "5a5a5a5a-0000-0000-0000-000000000001";
const TARGET: &str = "5a5a5a5a-0000-0000-0000-000000000002";
