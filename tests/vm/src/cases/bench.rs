//! `vfio-migrate bench` on real devices: it counts what the kernel counts, and the devices are afterwards what
//! they should be.
//!
//! Deliberately absent: a limit for any time. Where the driver is told to wait, it can't have been quicker.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::device::{RUNNING, STOP, STOP_COPY, new_text};
use crate::steps::{KernelLog, Step};
use crate::suite::{Bench, Case};
use crate::testdev::TestDevice;
use crate::tool::{self, DEVICE_REFUSED, DONE, remove, vfio_migrate, wait_until};

pub(super) const CASES: &[Case] = &[
    ("bench_measures_every_arc_and_never_lets_a_copy_run_beside_its_source", measured),
    ("bench_of_one_device_keeps_its_content", alone),
    ("bench_that_is_interrupted_leaves_both_devices_running", interrupted),
    ("bench_refuses_a_device_that_does_not_run_or_is_in_use", refused),
    ("bench_of_64_mib_counts_the_calls_that_the_driver_sees", large),
    ("bench_tells_how_long_each_arc_of_the_driver_takes", slow_arcs),
];

fn measured(bench: &Bench) -> Result<()> {
    let text = new_text();
    bench.source.fill(&text)?;
    bench.target.fill(&new_text())?;
    let log = KernelLog::from_now()?;
    let options = format!("--to {} --rounds 3", bench.target.argument()?);
    let figures = figures(&format!("{} {options}", bench.source.argument()?))?;
    check_apart(bench, &log.steps()?)?;
    // A reset takes nothing out of mtty's buffer; what it clears is seen in the test device.
    bench.target.check_state(RUNNING).context("the target")?;
    ensure!(rows(&figures, "arcs")?.len() == 15, "wanted 15 arcs, got {}", figures["arcs"]);
    check_calls(&figures, 60)?;
    let moves = rows(&figures, "downtime")?;
    let stopped: Vec<_> = moves.iter().map(|row| number(row, "stopped_bytes")).collect::<Result<_>>()?;
    ensure!(stopped == [60, 36], "bytes at the stop: wanted 60 and 36, got {stopped:?}");
    print_table(&format!("{} {options}", bench.source.argument()?))?;
    bench.source.check(RUNNING, &text).context("the source")
}

fn alone(bench: &Bench) -> Result<()> {
    let text = new_text();
    bench.source.fill(&text)?;
    let figures = figures(&format!("{} --rounds 2", bench.source.argument()?))?;
    ensure!(rows(&figures, "arcs")?.len() == 13, "wanted 13 arcs, got {}", figures["arcs"]);
    ensure!(figures["target"].is_null() && rows(&figures, "load")?.is_empty(), "got {figures}");
    bench.source.check(RUNNING, &text)
}

/// In the middle of the arcs, and once the target is being loaded.
fn interrupted(bench: &Bench) -> Result<()> {
    for moment in ["\"PRE_COPY\"", "\"RESUMING\""] {
        let text = new_text();
        bench.source.fill(&text)?;
        remove(TRACE)?;
        let (source, target) = (bench.source.argument()?, bench.target.argument()?);
        let command = format!("bench {source} --to {target} --rounds 100 --trace-json {TRACE}");
        let child = tool::start(vfio_migrate(&command).stdin(Stdio::null()).stdout(Stdio::null()))?;
        wait_until(moment, || Ok(fs::read_to_string(TRACE).is_ok_and(|trace| trace.contains(moment))))?;
        tool::signal(&child, Signal::INT)?;
        let said = tool::finish(child)?.expect(&[130])?.errors();
        ensure!(said.contains("ended by signal 2"), "{moment}: got {said}");
        bench.target.check_state(RUNNING).context(moment)?;
        bench.source.check(RUNNING, &text).context(moment)?;
    }
    Ok(())
}

fn refused(bench: &Bench) -> Result<()> {
    let (text, other) = (new_text(), new_text());
    bench.source.fill(&text)?;
    bench.target.fill(&other)?;
    let (source, target) = (bench.source.argument()?, bench.target.argument()?);
    let commands = [format!("bench {target}"), format!("bench {source} --to {target}")];
    for state in [STOP, STOP_COPY] {
        let held = bench.target.open()?;
        held.set_state(state)?;
        drop(held);
        for command in &commands {
            let words = ["wanted RUNNING", "recover", "STOP"];
            tool::run(command)?.expect_refusal(&[(DEVICE_REFUSED, &words)]).context(command.clone())?;
            bench.target.check_state(state).context(command.clone())?;
        }
        bench.target.open()?.set_state(RUNNING)?;
    }
    let held = bench.target.open()?;
    for command in &commands {
        tool::run(command)?.expect_refusal(&[(DEVICE_REFUSED, &["in use"])]).context(command.clone())?;
    }
    drop(held);
    bench.target.check(RUNNING, &other)?;
    bench.source.check(RUNNING, &text).context("the source")
}

fn large(bench: &Bench) -> Result<()> {
    let (source, target) = test_devices(bench)?;
    for device in [&source, &target] {
        device.knob("size", 64 << 20)?;
    }
    let (kept, lost) = (source.fill(7)?, target.fill(8)?);
    source.count_anew()?;
    let alone = figures(&format!("{} --rounds 2 --buffer 64KiB", source.argument()?))?;
    let save = &rows(&alone, "save")?[0];
    let told = 2 * number(save, "device_calls")?;
    let seen = *source.calls()?.get("read").context("no count of reads")?;
    ensure!(seen == told, "reads: the driver has seen {seen}, and {told} are told");
    let state = number(save, "state_bytes")?;
    ensure!(state > 64 << 20, "wanted more than 64 MiB of state, got {state} bytes");
    let both = format!("{} --to {}", source.argument()?, target.argument()?);
    check_calls(&figures(&format!("{both} --rounds 1"))?, state)?;
    print_table(&format!("{both} --rounds 3 --buffer 64KiB --buffer 1MiB"))?;
    ensure!(source.checksum()? == kept, "the source's content is another one");
    let got = target.checksum()?;
    ensure!(got != kept && got != lost, "the target still holds something: got {got:#x}");
    for device in [&source, &target] {
        device.card().check_state(RUNNING)?;
        ensure!(device.sessions()? == 0, "wanted no open data fd, got {}", device.sessions()?);
    }
    Ok(())
}

/// The kernel sleeps by its ticks, and those of an emulated machine may be late: half of the time will do.
fn slow_arcs(bench: &Bench) -> Result<()> {
    let (source, target) = test_devices(bench)?;
    for device in [&source, &target] {
        device.knob("arc_delay", "2 5 40\n4 1 60\n7 3 80\n")?;
    }
    let options = format!("--to {} --rounds 1 --buffer 64KiB", target.argument()?);
    let figures = figures(&format!("{} {options}", source.argument()?))?;
    for (from, to, half) in
        [("RUNNING", "RUNNING_P2P", 20), ("RESUMING", "STOP", 30), ("PRE_COPY_P2P", "STOP_COPY", 40)]
    {
        let is_this = |arc: &&Value| arc["from"] == from && arc["to"] == to;
        let arc = rows(&figures, "arcs")?.iter().find(is_this).context("no such arc")?;
        check_took(arc, half).with_context(|| format!("{from} to {to}"))?;
    }
    let [without, with] = rows(&figures, "downtime")? else { bail!("wanted two rows, got {figures}") };
    for (row, part, half) in [(without, "stop", 20), (with, "stop", 40), (with, "start", 30)] {
        check_took(&row[part], half).with_context(|| format!("{part} of {row}"))?;
    }
    Ok(())
}

fn check_took(time: &Value, wanted: u32) -> Result<()> {
    let got = time["min_us"].as_f64().context("no time")? / 1e3;
    ensure!(got >= f64::from(wanted), "wanted at least {wanted} ms, got {got} ms");
    Ok(())
}

/// A pair of test devices.
fn test_devices(bench: &Bench) -> Result<(TestDevice, TestDevice)> {
    let make = |digit: &str| TestDevice::create(bench.source.set(), &UUID.replace('0', digit));
    Ok((make("7")?, make("8")?))
}

/// Runs a bench, and reads its JSON object.
fn figures(arguments: &str) -> Result<Value> {
    let text = tool::run(&format!("bench {arguments} --json"))?.expect(&[DONE])?.output();
    serde_json::from_str(&text).with_context(|| format!("got {text}"))
}

fn print_table(arguments: &str) -> Result<()> {
    let text = tool::run(&format!("bench {arguments}"))?.expect(&[DONE])?.output();
    ensure!(text.contains("compare the ratios"), "got {text}");
    text.lines().for_each(|line| println!("# {line}"));
    Ok(())
}

/// Fails unless every save and load moved all of the state in as few calls as there have to be, and the kernel
/// counts as many.
fn check_calls(figures: &Value, state: u64) -> Result<()> {
    for (key, counted, beyond) in [("save", "read_calls", 1), ("load", "write_calls", 0)] {
        let rows = rows(figures, key)?;
        ensure!(rows.len() == 4, "{key}: wanted 4 rows, got {}", rows.len());
        for row in rows {
            let wanted = state.div_ceil(number(row, "buffer_bytes")?) + beyond;
            let got = (number(row, "state_bytes")?, number(row, "device_calls")?, number(row, counted)?);
            ensure!(
                got == (state, wanted, wanted),
                "{key}: wanted {wanted} calls for {state} bytes, got {row}"
            );
        }
    }
    Ok(())
}

/// Fails unless the target ran with the copy only while the source stood still, and the source only while the
/// copy did.
fn check_apart(bench: &Bench, steps: &[Step]) -> Result<()> {
    let (mut source, mut target, mut moves) = (RUNNING, None, 0);
    for (card, _, to) in steps {
        if card == bench.source.uuid() {
            source = *to;
        } else {
            target = Some(*to);
            moves += u32::from(*to == RUNNING);
        }
        let stands = [STOP, STOP_COPY].contains(&source);
        ensure!(stands || target != Some(RUNNING), "both run after {card} went to {to}: {steps:?}");
    }
    ensure!(moves == 6, "wanted the copy to run 6 times, got {moves}");
    Ok(())
}

fn rows<'a>(figures: &'a Value, key: &str) -> Result<&'a [Value]> {
    let rows = figures[key].as_array().with_context(|| format!("no {key} in {figures}"))?;
    Ok(rows)
}

fn number(row: &Value, key: &str) -> Result<u64> {
    row[key].as_u64().with_context(|| format!("no {key} in {row}"))
}

const TRACE: &str = "/tmp/bench-trace";
const UUID: &str = "00000000-0000-0000-0000-0000000000be";
