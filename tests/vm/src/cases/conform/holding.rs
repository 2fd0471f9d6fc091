//! The tester's hold on a device: it takes none that is someone's, and lets go of it in RUNNING.
//!
//! Deliberately absent: SIGKILL. What it leaves is `recover`'s.

use std::collections::BTreeSet;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use super::{DEVICE, PARTNER, Report};
use crate::cases::library::borrow;
use crate::device::STOP_COPY;
use crate::suite::{Bench, Case};
use crate::testdev::TestDevice;
use crate::tool::{self, DEVICE_REFUSED, INPUT_OUTPUT, USAGE, vfio_migrate, wait_until};

pub(super) const CASES: &[Case] = &[
    ("conform_refuses_a_device_that_is_in_use", in_use),
    ("conform_refuses_a_device_that_someone_migrates", not_running),
    ("conform_refuses_an_inherited_device_that_a_stranger_holds", shared),
    ("conform_refuses_what_is_no_partner", no_partner),
    ("conform_interrupted_while_saving_leaves_the_device_running", |bench| {
        interrupted(bench, &[("delay_per_mib", "60000")], "STOP_COPY", Signal::INT, 130)
    }),
    ("conform_ended_while_loading_leaves_the_device_running", |bench| {
        interrupted(bench, &[("size", "8388608"), ("short", "64")], "RESUMING", Signal::TERM, 143)
    }),
    ("conform_interrupted_between_two_loads_tries_no_other", between_loads),
    ("conform_lets_no_device_run_with_what_it_loaded_wrong", never_runs),
    ("conform_whose_reader_is_gone_leaves_the_device_running", closed_output),
    ("conform_says_that_a_device_does_not_come_back", stuck),
    ("conform_of_a_large_state_says_what_it_passed_over", large),
    ("conform_loads_into_its_partner", into_the_partner),
];

fn in_use(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    let argument = device.argument()?;
    let before = device.checksum()?;
    let held = device.open()?;
    tool::run(&format!("conform {argument}"))?.expect_refusal(&[(DEVICE_REFUSED, &["in use"])])?;
    drop(held);
    ensure!(device.checksum()? == before, "the content is another one");
    Report::of(&argument, 0).map(drop)
}

fn not_running(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    device.open()?.set_state(STOP_COPY)?;
    let wanted = &[(DEVICE_REFUSED, &["STOP_COPY", "recover"][..])];
    tool::run(&format!("conform {}", device.argument()?))?.expect_refusal(wanted)?;
    ensure!(device.state()? == "STOP_COPY", "wanted it untouched, got {}", device.state()?);
    Ok(())
}

/// A parent may hold what its child inherits; a process beside them may not.
fn shared(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    let held = device.open()?;
    let passed = rustix::io::dup(borrow(&held)?.as_fd())?;
    let argument = format!("fd:{},driver=migtest", passed.as_raw_fd());
    let (wait, end) = std::io::pipe()?;
    let stranger = Command::new("/bin/vfio-migrate")
        .args(["load", "sim:", "--input", "-"])
        .stdin(wait)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let holds = || Ok(std::fs::read_link(format!("/proc/{}/exe", stranger.id()))?.ends_with("vfio-migrate"));
    wait_until("the stranger has begun", holds)?;
    let refused = tool::run(&format!("conform {argument}"))?
        .expect_refusal(&[(DEVICE_REFUSED, &["in use", "vfio-migrate (pid"])]);
    drop(end);
    tool::finish(stranger)?;
    refused?;
    ensure!(device.state()? == "RUNNING", "wanted it untouched, got {}", device.state()?);
    Report::of(&argument, 0)?.check_left()
}

fn no_partner(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let (device, other) = (TestDevice::create(set, DEVICE)?, TestDevice::create(set, PARTNER)?);
    let argument = device.argument()?;
    other.knob("flags", 3)?;
    let flags = format!("conform {argument} --partner {}", other.argument()?);
    tool::run(&flags)?.expect_refusal(&[(DEVICE_REFUSED, &["wanted driver", "0x7", "0x3"])])?;
    let driver = format!("conform {argument} --partner {}", bench.source.argument()?);
    tool::run(&driver)?.expect_refusal(&[(DEVICE_REFUSED, &["wanted driver migtest", "mtty"])])?;
    tool::run(&format!("conform {argument} --partner {argument}"))?
        .expect_refusal(&[(USAGE, &["another device"])])?;
    let open = other.open()?;
    let held = borrow(&open)?;
    let twice = [rustix::io::dup(held.as_fd())?, rustix::io::dup(held.as_fd())?];
    let [one, two] = twice.each_ref().map(|fd| format!("fd:{},driver=migtest", fd.as_raw_fd()));
    tool::run(&format!("conform {one} --partner {two}"))?.expect_refusal(&[(USAGE, &["another device"])])?;
    tool::run("conform sim:size=4096,seed=1")?.expect_refusal(&[(USAGE, &["no driver"])])
}

/// A signal that comes in this state.
fn interrupted(bench: &Bench, knobs: &[(&str, &str)], state: &str, signal: Signal, exit: i32) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    knobs.iter().try_for_each(|(name, value)| device.knob(name, value))?;
    let mut command = vfio_migrate(&format!("conform {} --rule RES", device.argument()?));
    let child = tool::start(command.stdout(Stdio::piped()))?;
    let arrived = wait_until(&format!("the device is in {state}"), || Ok(device.state()? == state));
    tool::signal(&child, signal)?;
    let outcome = tool::finish(child)?.expect(&[exit])?;
    arrived?;
    ensure!(outcome.output().is_empty(), "wanted no report, got {}", outcome.output());
    ensure!(outcome.errors().contains("the device is in RUNNING"), "it said: {}", outcome.errors());
    ensure!(device.state()? == "RUNNING", "left in {}", device.state()?);
    Ok(())
}

/// Each cut of a state is a load of its own; a signal ends all of them, not one.
fn between_loads(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    device.knob("size", 100)?;
    device.knob("arc_delay", "1 4 50")?;
    let child = tool::start(&mut vfio_migrate(&format!("conform {} --rule RES-01", device.argument()?)))?;
    let resets = || -> Result<u64> { Ok(device.calls()?.get("reset").copied().unwrap_or_default()) };
    let arrived = wait_until("two states were loaded", || Ok(resets()? >= 3));
    tool::signal(&child, Signal::INT)?;
    let before = resets()?;
    tool::finish(child)?.expect(&[130])?;
    arrived?;
    let after = resets()?;
    ensure!(before < 50 && after <= before + 3, "{before} resets before the signal, {after} in all");
    ensure!(device.state()? == "RUNNING", "left in {}", device.state()?);
    Ok(())
}

/// A cut state is taken, and no reset ends it: the device stays stopped.
fn never_runs(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    device.violate("takes_cut")?;
    // The first reset is the program's own question whether there is one.
    let refused: Vec<_> = (2..10).map(|nth| format!("reset {nth} 5")).collect();
    device.knob("fault", refused.join("\n"))?;
    let argument = device.argument()?;
    let outcome = tool::run(&format!("conform {argument} --rule RES-01"))?.expect(&[7])?;
    let said = outcome.errors();
    ensure!(said.contains("recover") && said.contains("EIO"), "it said: {said}");
    ensure!(device.state()? == "STOP", "left in {}", device.state()?);
    device.knob("fault", "")?;
    tool::run(&format!("recover {argument} --reset"))?.expect(&[0]).map(drop)
}

fn closed_output(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = vfio_migrate(&format!("conform {}", device.argument()?));
    let outcome = tool::finish(tool::start(command.stdout(writer))?)?;
    outcome.expect_refusal(&[(INPUT_OUTPUT, &["standard output"])])?;
    ensure!(device.state()? == "RUNNING", "left in {}", device.state()?);
    Ok(())
}

/// A device that goes to ERROR, and whose reset fails: no SET may be asked of it then.
fn stuck(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    device.knob("fault", "set 3 5 error\nreset 0 5")?;
    let argument = device.argument()?;
    let wanted = &[(DEVICE_REFUSED, &["ERROR", "EIO", "recover"][..])];
    tool::run(&format!("conform {argument}"))?.expect_refusal(wanted)?;
    ensure!(device.state()? == "ERROR", "left in {}", device.state()?);
    let calls = device.calls()?;
    ensure!(calls.get("set") == Some(&3), "wanted no SET after the third, got {calls:?}");
    device.knob("fault", "")?;
    tool::run(&format!("recover {argument} --reset"))?.expect(&[0])?;
    Report::of(&argument, 0)?.check_left()
}

/// The rules that make the most passes over a state.
fn large(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    device.knob("size", 66 << 20)?;
    let begin = Instant::now();
    let rules = ["FSM-02", "SAVE-03", "RST-03", "RES-05"];
    let selected: String = rules.iter().map(|rule| format!(" --rule {rule}")).collect();
    let report = Report::of(&format!("{}{selected}", device.argument()?), 0)?;
    println!("# conform: {} on 66 MiB of state, {:.1} s", rules.join(" "), begin.elapsed().as_secs_f64());
    let passed = report.with("pass");
    let said = [
        ("FSM-02", "large"),
        ("SAVE-03", "[65536, 1048576, 8388608]"),
        ("RST-03", "2 states"),
        ("RES-05", "3 places"),
    ];
    for (rule, words) in said {
        let got = passed.get(rule).with_context(|| format!("{rule} did not pass"))?;
        ensure!(got.contains(words), "{rule}: wanted {words:?}, got {got:?}");
    }
    report.check_left()
}

/// What the partner does with a state is the partner's; without one the device loads its own.
fn into_the_partner(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let (device, partner) = (TestDevice::create(set, DEVICE)?, TestDevice::create(set, PARTNER)?);
    let both = format!("{} --partner {}", device.argument()?, partner.argument()?);
    let broken = BTreeSet::from(["RES-08".to_string()]);
    partner.violate("load_changes_a_byte")?;
    Report::of(&both, 6)?.check("fail", &broken).context("the partner changes a byte")?;
    partner.obey("load_changes_a_byte")?;
    device.violate("load_changes_a_byte")?;
    Report::of(&both, 0)?
        .check("fail", &BTreeSet::new())
        .context("the device does, and nothing is loaded into it")?;
    Report::of(&device.argument()?, 6)?.check("fail", &broken).context("the device does, without a partner")
}
