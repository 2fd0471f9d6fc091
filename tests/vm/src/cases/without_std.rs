//! The program of `tests/without_std`: no libc, no allocator, and as much memory for a large state as for a small one.
//!
//! Each of its runs is confined to a few system calls, with none for memory among them.
//!
//! Deliberately absent: failures of every call. They are the same code's as in `vfio-migrate`, and are tried with that.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::device::{Card, RUNNING, STOP, new_text};
use crate::modules::Set;
use crate::sandbox::{ALLOWED, confine};
use crate::stream::sections;
use crate::suite::{Bench, Case};
use crate::testdev::{TestDevice, kib};
use crate::tool::{
    self, DEVICE_REFUSED, DONE, INPUT_OUTPUT, Outcome, Refusal, STREAM_REFUSED, USAGE, vfio_migrate,
    wait_until_stalled,
};

pub(super) const CASES: &[Case] = &[
    ("program_without_std_carries_the_content", carries),
    ("program_without_std_and_vfio_migrate_load_what_the_other_saved", exchange),
    ("program_without_std_has_no_system_call_for_memory_and_another_program_has", confined),
    ("program_without_std_has_the_same_memory_for_a_state_of_any_size", same_memory),
    ("program_without_std_refuses_what_is_damaged_and_the_device_runs_without_it", damaged),
    ("program_without_std_puts_a_device_back_that_refuses", refused),
    ("program_without_std_puts_a_device_back_when_nobody_reads", nobody_reads),
    ("program_without_std_leaves_a_stopped_device_stopped", stopped),
    ("program_without_std_refuses_another_device_and_one_that_is_not_there", other_device),
];

fn carries(bench: &Bench) -> Result<()> {
    for options in ["", "--precopy"] {
        let text = new_text();
        bench.source.fill(&text)?;
        bench.target.fill("something else")?;
        save(&bench.source, "mtty", options)?.expect(&[DONE]).context("save")?;
        load(&bench.target, "mtty")?.expect(&[DONE]).context("load")?;
        bench.target.check(RUNNING, &text)?;
        bench.source.check(RUNNING, &text).context("the source")?;
    }
    Ok(())
}

/// `inspect` reads it as one of ours, too: by the name and the kinds of its sections.
fn exchange(bench: &Bench) -> Result<()> {
    let (source, target) = pair(bench)?;
    let name = format!("migtest@{}/vfio", source.card().uuid());
    for (seed, options, kinds) in
        [(1, "", vec!["START", "END"]), (2, "--precopy", vec!["START", "PART", "END"])]
    {
        let sent = source.fill(seed)?;
        target.fill(99)?;
        save(source.card(), "migtest", options)?.expect(&[DONE])?;
        let found = sections(FILE)?;
        let mut got: Vec<_> = found.iter().map(|section| section.kind.as_str()).collect();
        got.dedup();
        let named = found.iter().all(|section| section.name == name);
        ensure!(got == kinds && named, "sections: wanted {kinds:?} of {name}, got {got:?}");
        tool::run(&format!("load {} --input {FILE}", target.argument()?))?.expect(&[DONE])?;
        check(&target, sent).with_context(|| format!("loaded by vfio-migrate {options}"))?;
        let sent = source.fill(seed + 10)?;
        tool::run(&format!("save {} {options} --output {FILE}", source.argument()?))?.expect(&[DONE])?;
        load(target.card(), "migtest")?.expect(&[DONE])?;
        check(&target, sent).with_context(|| format!("saved by vfio-migrate {options}"))?;
    }
    Ok(())
}

/// The negative control is a program with an allocator.
fn confined(bench: &Bench) -> Result<()> {
    let names: Vec<_> = ALLOWED.iter().map(|(name, _)| *name).collect();
    println!("# the program without std may call {}", names.join(" "));
    save(&bench.source, "mtty", "")?.expect(&[DONE])?;
    let other = finish(confine(vfio_migrate("--version"))?, Stdio::null(), Stdio::null())?;
    let got = other.exit_code();
    ensure!(got.is_none(), "vfio-migrate, confined: wanted it to be killed, got exit code {got:?}");
    Ok(())
}

fn same_memory(bench: &Bench) -> Result<()> {
    bench.source.fill(&new_text())?;
    let (source, target) = pair(bench)?;
    let mut seen = Vec::new();
    seen.push(measure("60 bytes", "mtty", &bench.source, &bench.target)?);
    for (name, size) in [("3 MB", 3_000_000), ("66 MiB", 66 << 20)] {
        for device in [&source, &target] {
            device.knob("size", size)?;
        }
        let sent = source.fill(7)?;
        seen.push(measure(name, "migtest", source.card(), target.card())?);
        check(&target, sent).context(name)?;
    }
    for [save, load] in &seen {
        ensure!(save.fixed() == seen[0][0].fixed(), "save: wanted {:?}, got {save:?}", seen[0][0]);
        ensure!(load.fixed() == seen[0][1].fixed(), "load: wanted {:?}, got {load:?}", seen[0][1]);
    }
    Ok(())
}

/// Lets the program save and load, looks at its memory when all but the last byte was moved, and compares the streams.
fn measure(name: &str, driver: &str, source: &Card, target: &Card) -> Result<[Memory; 2]> {
    save(source, driver, "")?.expect(&[DONE])?;
    let whole = fs::read(FILE)?;
    let (mut read, mut write) = io::pipe()?;
    // The pipe holds as much as this, so that one byte more has to wait.
    let filler = vec![0; rustix::pipe::fcntl_getpipe_size(&write)?];
    write.write_all(&filler)?;
    let child = tool::start(command("save", source, driver, "")?.stdin(Stdio::null()).stdout(write))?;
    let mut got = vec![0; whole.len() - 1];
    read.read_exact(&mut got)?;
    wait_until_stalled(&child)?;
    let saving = Memory::of(&child)?;
    read.read_to_end(&mut got)?;
    tool::finish(child)?.expect(&[DONE])?;
    ensure!(got[filler.len()..] == whole, "{name}: saved once more, the stream is another one");

    let (read, mut write) = io::pipe()?;
    let child = tool::start(command("load", target, driver, "")?.stdin(read).stdout(Stdio::null()))?;
    write.write_all(&whole)?;
    wait_until_stalled(&child)?;
    let loading = Memory::of(&child)?;
    drop(write);
    tool::finish(child)?.expect(&[DONE])?;
    for (what, Memory { peak, data, stack, resident }) in [("save", &saving), ("load", &loading)] {
        println!(
            "# {what} of {name}: VmPeak {peak} KiB, VmData {data} KiB, VmStk {stack} KiB, VmHWM {resident} KiB"
        );
    }
    Ok([saving, loading])
}

/// What the kernel says of a process's memory, in KiB.
#[derive(Debug)]
struct Memory {
    peak: u64,
    data: u64,
    stack: u64,
    /// The most that was resident: a small state does not come to all pages of the buffer.
    resident: u64,
}

impl Memory {
    fn of(child: &Child) -> Result<Self> {
        let value = |name| kib(&format!("/proc/{}/status", child.id()), name);
        Ok(Self {
            peak: value("VmPeak:")?,
            data: value("VmData:")?,
            stack: value("VmStk:")?,
            resident: value("VmHWM:")?,
        })
    }

    /// What must not depend on the state.
    fn fixed(&self) -> (u64, u64, u64) {
        (self.peak, self.data, self.stack)
    }
}

fn damaged(bench: &Bench) -> Result<()> {
    let (source, target) = pair(bench)?;
    let sent = source.fill(5)?;
    save(source.card(), "migtest", "")?.expect(&[DONE])?;
    let whole = fs::read(FILE)?;
    let found = sections(FILE)?;
    let description = whole.windows(11).position(|word| word == b"{\"page_size").context("no description")?;
    let mut places = vec![0, 7, 8, 12, description - 6, description - 1, description + 30, whole.len() - 5];
    for section in &found {
        let (place, payload) = (&section.place, &section.payload);
        places.extend([
            place.start,
            place.start + 2,
            payload.start,
            payload.end - 1,
            payload.end,
            place.end - 1,
        ]);
        places.extend([payload.start + 8, payload.start + payload.len() / 2]);
    }
    for &at in &places {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x02;
        refuse(&target, &bytes, sent).with_context(|| format!("damaged at byte {at} of {}", bytes.len()))?;
        refuse(&target, &whole[..at], sent)
            .with_context(|| format!("cut at byte {at} of {}", whole.len()))?;
    }
    for more in [&b"\0"[..], b"\n", &whole] {
        refuse(&target, &[&whole, more].concat(), sent).with_context(|| format!("{} more", more.len()))?;
    }
    println!("# {} streams were refused, each with a word and a place", 2 * places.len() + 3);
    fs::write(FILE, whole)?;
    load(target.card(), "migtest")?.expect(&[DONE])?;
    check(&target, sent).context("the whole stream")
}

/// The device runs, and has not got what was sent.
fn refuse(target: &TestDevice, bytes: &[u8], sent: u64) -> Result<()> {
    target.fill(99)?;
    fs::write(FILE, bytes)?;
    let ways: [Refusal<'_>; 2] =
        [(STREAM_REFUSED, &["wanted", "device"]), (DEVICE_REFUSED, &["at byte", "reset"])];
    load(target.card(), "migtest")?.expect_refusal(&ways)?;
    let got = (target.state()?, target.checksum()?);
    ensure!(got.0 == "RUNNING" && got.1 != sent, "wanted RUNNING without what was sent, got {got:x?}");
    Ok(())
}

fn refused(bench: &Bench) -> Result<()> {
    let (source, target) = pair(bench)?;
    let sent = source.fill(5)?;
    for (fault, word) in [("set 1 5", "STOP_COPY"), ("read 1 5", "read"), ("set 1 5 error", "STOP_COPY")] {
        source.knob("fault", fault)?;
        save(source.card(), "migtest", "")?.expect_refusal(&[(DEVICE_REFUSED, &[word, "the device"])])?;
        source.card().check_state(RUNNING).context(fault)?;
        ensure!(
            fault.ends_with("error") || source.checksum()? == sent,
            "{fault}: the content is another one"
        );
    }
    source.fill(5)?;
    save(source.card(), "migtest", "")?.expect(&[DONE])?;
    for (fault, word) in [("set 1 5", "RESUMING"), ("write 1 5", "data"), ("set 2 5", "STOP")] {
        target.fill(99)?;
        target.knob("fault", fault)?;
        load(target.card(), "migtest")?.expect_refusal(&[(DEVICE_REFUSED, &[word, "the device"])])?;
        target.card().check_state(RUNNING).context(fault)?;
        ensure!(target.checksum()? != sent, "{fault}: it has what it refused");
    }
    load(target.card(), "migtest")?.expect(&[DONE])?;
    check(&target, sent)
}

fn nobody_reads(bench: &Bench) -> Result<()> {
    let (source, _) = pair(bench)?;
    let content = source.fill(5)?;
    for options in ["", "--precopy"] {
        let (read, write) = io::pipe()?;
        drop(read);
        let save = finish(command("save", source.card(), "migtest", options)?, Stdio::null(), write)?;
        save.expect_refusal(&[(INPUT_OUTPUT, &["stream", "RUNNING"])])?;
        check(&source, content).context(options)?;
    }
    let full = File::options().write(true).open("/dev/full");
    ensure!(full.is_ok(), "the guest has no /dev/full");
    let save = finish(command("save", source.card(), "migtest", "")?, Stdio::null(), full?)?;
    save.expect_refusal(&[(INPUT_OUTPUT, &["stream", "error 28", "RUNNING"])])?;
    check(&source, content)
}

fn stopped(bench: &Bench) -> Result<()> {
    let (source, target) = pair(bench)?;
    let sent = source.fill(5)?;
    source.open()?.set_state(STOP)?;
    let with_pre_copy = save(source.card(), "migtest", "--precopy")?;
    with_pre_copy.expect_refusal(&[(DEVICE_REFUSED, &["wanted a device in RUNNING", "got STOP"])])?;
    save(source.card(), "migtest", "")?.expect(&[DONE])?;
    let got = (source.state()?, source.checksum()?);
    ensure!(got == ("STOP".into(), sent), "wanted STOP with {sent:x}, got {got:x?}");
    load(target.card(), "migtest")?.expect(&[DONE])?;
    check(&target, sent)
}

fn other_device(bench: &Bench) -> Result<()> {
    let (_, target) = pair(bench)?;
    let content = target.fill(99)?;
    bench.source.fill(&new_text())?;
    save(&bench.source, "mtty", "")?.expect(&[DONE])?;
    let other = load(target.card(), "migtest")?;
    other.expect_refusal(&[(STREAM_REFUSED, &["driver 'mtty'", "wanted 'migtest'", "RUNNING"])])?;
    check(&target, content).context("of another driver")?;
    bench.two_ports.fill(&new_text())?;
    save(&bench.two_ports, "mtty", "")?.expect(&[DONE])?;
    load(&bench.target, "mtty")?.expect_refusal(&[(DEVICE_REFUSED, &["at byte", "reset"])])?;
    bench.target.check_state(RUNNING).context("of a card with two ports")?;
    let held = target.open()?;
    let way: Refusal<'_> = (DEVICE_REFUSED, &["/dev/vfio/"]);
    load(target.card(), "migtest")?.expect_refusal(&[way]).context("in use")?;
    drop(held);
    for (words, code) in [
        ("save /dev/vfio/devices/vfio99 mtty@x", DEVICE_REFUSED),
        ("save /dev/null mtty@x", DEVICE_REFUSED),
        ("save /dev/vfio/99 mtty@x", DEVICE_REFUSED),
        ("save", USAGE),
        ("save /dev/vfio/devices/vfio0 mtty", USAGE),
        ("load /dev/vfio/devices/vfio0 mtty@x --precopy", USAGE),
    ] {
        let refused = finish(program(words)?, Stdio::null(), Stdio::null())?;
        refused.expect_refusal(&[(code, &["without-std"])]).context(words)?;
    }
    check(&target, content)
}

/// A pair of test devices, which have the same content at first.
fn pair(bench: &Bench) -> Result<(TestDevice, TestDevice)> {
    let set = bench.source.set();
    Ok((TestDevice::create(set, SOURCE)?, TestDevice::create(set, TARGET)?))
}

/// Saves a device into [`FILE`].
fn save(card: &Card, driver: &str, options: &str) -> Result<Outcome> {
    finish(command("save", card, driver, options)?, Stdio::null(), File::create(FILE)?)
}

/// Loads a device from [`FILE`].
fn load(card: &Card, driver: &str) -> Result<Outcome> {
    finish(command("load", card, driver, "")?, File::open(FILE)?, Stdio::null())
}

fn finish(mut command: Command, input: impl Into<Stdio>, output: impl Into<Stdio>) -> Result<Outcome> {
    let child = tool::start(command.stdin(input).stdout(output))?;
    drop(command);
    tool::finish(child)
}

/// The program on a device: by its device file, or by its group's.
fn command(order: &str, card: &Card, driver: &str, options: &str) -> Result<Command> {
    let file = match card.set() {
        Set::Iommufd => card.argument()?,
        Set::Stock => {
            let group = fs::read_link(card.sysfs().join("iommu_group"))?;
            format!("/dev/vfio/{}", group.file_name().context("no group")?.to_string_lossy())
        }
    };
    program(&format!("{order} {file} {driver}@{} {options}", card.uuid()))
}

/// The program with arguments that are separated by spaces, confined.
fn program(arguments: &str) -> Result<Command> {
    let mut command = Command::new("/bin/without-std");
    command.args(arguments.split_whitespace());
    confine(command)
}

/// Fails unless the device runs and holds this.
fn check(device: &TestDevice, content: u64) -> Result<()> {
    let got = (device.state()?, device.checksum()?);
    ensure!(got.0 == "RUNNING" && got.1 == content, "wanted RUNNING with {content:x}, got {got:x?}");
    Ok(())
}

const FILE: &str = "/tmp/without-std";
const SOURCE: &str = "e0e0e0e0-0000-0000-0000-000000000001";
const TARGET: &str = "e0e0e0e0-0000-0000-0000-000000000002";
