//! The test device as a PCI function: what it shows, and what a real QEMU and its guest make of it, with megabytes of
//! state.
//!
//! Deliberately absent: its migration by itself. It is that of the other face, of which `testdev` has the cases.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use vfio_ioctls::VfioDevice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::guest::Guest;
use crate::qemu::{self, DEVICES, Qemu, Setup};
use crate::suite::{Bench, Case};
use crate::testdev::{TestDevice, register};
use crate::tool::{self, DONE};

pub(super) const CASES: &[Case] = &[
    ("function_has_a_configuration_space_that_tells_its_bars", configuration),
    ("function_raises_the_interrupts_that_are_armed_and_no_other", interrupts),
    ("function_with_megabytes_goes_into_a_qemu_and_on_into_the_next", |bench| goes_on(bench, 256)),
    ("function_with_4096_bytes_of_configuration_goes_into_a_qemu_and_on", |bench| goes_on(bench, 4096)),
];

/// A write of all ones tells a BAR's size; a reset takes it back.
fn configuration(bench: &Bench) -> Result<()> {
    let api =
        fs::read_to_string("/sys/class/mdev_bus/migtest-pci/mdev_supported_types/migtest-pci/device_api")?;
    ensure!(api == "vfio-pci\n", "the API: got {api:?}");
    for size in [256, 4096] {
        let device = TestDevice::create_function(bench.source.set(), size, UUID)?;
        let held = device.open()?;
        let vfio = held.vfio();
        let sizes: Vec<_> = (0..9).map(|index| vfio.get_region_size(index)).collect();
        let wanted = [4096, 0, 0, 0, 4096, 0, 0, u64::try_from(size)?, 0];
        ensure!(sizes == wanted, "regions: wanted {wanted:?}, got {sizes:?}");
        let before = configuration_of(vfio, size)?;
        ensure!(before[..4] == *b"MTPC" && before[0x40] == 0x11, "got {before:02x?}");
        vfio.region_write(CONFIGURATION, &vec![0xff; size], 0);
        let after = configuration_of(vfio, size)?;
        let changed = (0..size).filter(|&at| after[at] != before[at]);
        let changed: Vec<_> = changed.map(|at| (at, after[at])).collect();
        ensure!(changed == WRITABLE, "what was written: wanted {WRITABLE:x?}, got {changed:x?}");
        vfio.reset();
        ensure!(configuration_of(vfio, size)? == before, "a reset leaves what was written");
    }
    Ok(())
}

fn configuration_of(vfio: &VfioDevice, size: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0xa5; size];
    vfio.region_read(CONFIGURATION, &mut bytes, 0);
    ensure!(bytes.iter().any(|byte| *byte != 0xa5), "the configuration space cannot be read");
    Ok(bytes)
}

/// By the register, and by the loop-back of `VFIO_DEVICE_SET_IRQS`; also behind a reset, until they are disarmed.
fn interrupts(bench: &Bench) -> Result<()> {
    let device = TestDevice::create_function(bench.source.set(), 256, UUID)?;
    let held = device.open()?;
    let vfio = held.vfio();
    let counts: Vec<_> = (0..5).map(|index| vfio.get_irq_info(index).map(|irq| irq.count)).collect();
    ensure!(counts == [0, 0, 4, 0, 0].map(Some), "vectors: got {counts:?}");
    let events = [0; 4].map(|_| EventFd::new(EFD_NONBLOCK));
    let events: Vec<EventFd> = events.into_iter().collect::<Result<_, _>>()?;
    let raised = || events.iter().map(|event| event.read().unwrap_or(0)).collect::<Vec<_>>();
    let check = |what: &str, wanted: [u64; 4]| {
        let got = raised();
        ensure!(got == wanted, "{what}: wanted {wanted:?}, got {got:?}");
        Ok(())
    };
    held.set_register(register::RAISE, 2);
    check("armed none", [0, 0, 0, 0])?;
    vfio.enable_irq(MSIX, events.iter().take(3).collect())?;
    for vector in [2, 2, 1, 3, 4, u64::MAX] {
        held.set_register(register::RAISE, vector);
    }
    vfio.trigger_irq(MSIX, 0)?;
    vfio.trigger_irq(MSIX, 3)?;
    check("armed three", [1, 1, 2, 0])?;
    vfio.reset();
    held.set_register(register::RAISE, 1);
    check("behind a reset", [0, 1, 0, 0])?;
    vfio.disable_irq(MSIX)?;
    held.set_register(register::RAISE, 1);
    check("disarmed", [0, 0, 0, 0])?;
    vfio.enable_irq(MSIX, events.iter().collect())?;
    drop(held);
    device.open()?.set_register(register::RAISE, 1);
    check("opened anew", [0, 0, 0, 0])
}

/// From the first device by our program into a QEMU with the second, and by that QEMU's file into one with the third. The
/// first QEMU's guest arms its interrupts, of which one stays pending; the second one's finds them so.
fn goes_on(bench: &Bench, config: usize) -> Result<()> {
    let function = |number| function(bench, config, number);
    let (first, second, third) = (function(1)?, function(2)?, function(3)?);
    let sent = first.checksum()?;
    let save = format!("save {} --output {OURS} --qemu-id {}", first.argument()?, DEVICES[0]);
    tool::run(&save)?.expect(&[DONE])?;
    let version = version(config)?;
    Qemu::load_and(&Setup::waiting(&version, &[second.card()]), &format!("file:{OURS}"), |qemu| {
        check(&second, "RUNNING", sent).context("what QEMU has loaded")?;
        let mut guest = Guest::connect()?;
        guest.set_up()?;
        guest.interrupt(1)?;
        guest.interrupt_masked(3)?;
        second.count_anew()?;
        qemu.migrate(&format!("file:{QEMUS}"))
    })?;
    check(&second, "STOP", sent).context("what QEMU has saved")?;
    let calls = second.calls()?;
    ensure!(calls["info"] > 0, "wanted a save with pre-copy, got {calls:?}");
    let length = check_config(config)?;
    Qemu::load_and(&Setup::waiting(&version, &[third.card()]), &format!("file:{QEMUS}"), |_| {
        check(&third, "RUNNING", sent).context("what the next QEMU has loaded")?;
        let mut guest = Guest::connect()?;
        guest.interrupt(2)?;
        guest.unmask(3)
    })?;
    println!(
        "# {SIZE} bytes went through two QEMUs {version}, with {length} bytes of configuration beside them"
    );
    fs::remove_file(OURS)?;
    Ok(fs::remove_file(QEMUS)?)
}

/// Makes the device number `number` with a content of its own.
fn function(bench: &Bench, config: usize, number: u64) -> Result<TestDevice> {
    let uuid = format!("d0000000-0000-0000-0000-{number:012}");
    let device = TestDevice::create_function(bench.source.set(), config, &uuid)?;
    device.knob("size", SIZE)?;
    device.fill(number)?;
    Ok(device)
}

/// The oldest QEMU for the smaller configuration space, the newest for the larger one.
fn version(config: usize) -> Result<String> {
    let versions = qemu::versions()?;
    let version = if config == 256 { versions.first() } else { versions.last() };
    version.cloned().context("there is a QEMU")
}

/// Fails unless the CONFIG record in QEMU's file has the layout that the function's configuration space wants; returns
/// the length of its body.
fn check_config(config: usize) -> Result<usize> {
    let file = fs::read(QEMUS)?;
    let name = format!("{}/vfio", DEVICES[0]);
    let head = [&[u8::try_from(name.len())?], name.as_bytes(), &[0, 0, 0, 0, 0, 0, 0, 1], &CONFIG].concat();
    let mut found = file.windows(head.len()).enumerate().filter(|(_, bytes)| *bytes == head);
    let (Some((at, _)), None) = (found.next(), found.next()) else { bail!("wanted one CONFIG") };
    let begin = at + head.len();
    // A version, four words of interrupts, four vectors and a byte of what is pending.
    let length = 4 + config + 16 + 4 * 16 + 1;
    let footer = [&END_OF_STATE[..], &[0x7e], &file[at - 4..at]].concat();
    let end = file.get(begin + length..begin + length + footer.len());
    ensure!(end == Some(&footer[..]), "behind {length} bytes: wanted {footer:02x?}, got {end:02x?}");
    Ok(length)
}

/// Fails unless a device is in this state and has this content.
fn check(device: &TestDevice, state: &str, content: u64) -> Result<()> {
    let got = (device.state()?, device.checksum()?);
    ensure!(got.0 == state && got.1 == content, "wanted {state} with {content:x}, got {got:x?}");
    Ok(())
}

const UUID: &str = "d0000000-0000-0000-0000-000000000000";

/// The region with the configuration space.
const CONFIGURATION: u32 = 7;
/// The index of the interrupts that are MSI-X.
const MSIX: u32 = 2;

/// What is different after a write of all ones, byte by byte: command, BAR 0, BAR 4, interrupt line, MSI-X's switches.
const WRITABLE: [(usize, u8); 10] = [
    (0x04, 0x06),
    (0x05, 0x04),
    (0x11, 0xf0),
    (0x12, 0xff),
    (0x13, 0xff),
    (0x21, 0xf0),
    (0x22, 0xff),
    (0x23, 0xff),
    (0x3c, 0xff),
    (0x43, 0xc0),
];

const SIZE: u64 = 6 << 20;
const OURS: &str = "/tmp/function";
const QEMUS: &str = "/tmp/machine";
const END_OF_STATE: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 1];
const CONFIG: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 2];
