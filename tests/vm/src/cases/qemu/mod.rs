//! A real QEMU at the other end: it takes what we save, and we take what it saves.
//!
//! A case is a way that a stream goes. It is tried with each QEMU of the guest and each kind of device, always with a
//! new content, and says so in a line that begins with `# qemu`.
//!
//! Deliberately absent: a network. A stream between two machines is a file or a socket here.

mod damage;
mod give;
mod refusals;
mod splice;
mod take;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use crate::device::{Card, new_text};
use crate::modules::Set;
use crate::qemu::{self, DEVICES};
use crate::suite::{Bench, Case};
use crate::testdev::TestDevice;

/// What shows soonest that both sides understand each other: with each QEMU, and one kind of device.
pub(super) const CASES: &[Case] = &[
    ("qemu_loads_a_saved_file", |bench| each("give, one END", bench, &KINDS[..1], give::one_end)),
    ("stream_of_a_qemu_with_multifd_is_loaded", |bench| {
        each("take, multifd", bench, &KINDS[..1], take::multifd_and_switchover_ack)
    }),
];

/// All ways, with each kind of device; damage on one set of modules each.
pub(super) fn long(set: Set) -> Vec<Case> {
    let damage: Case = match set {
        Set::Stock => ("file_for_a_qemu_that_is_damaged_is_refused", refusals::of_ours),
        Set::Iommufd => ("stream_of_a_qemu_that_is_damaged_is_refused", refusals::of_qemu),
    };
    [WAYS, &[damage]].concat()
}

const WAYS: &[Case] = &[
    ("way_to_qemu_in_one_end", |bench| each("give, one END", bench, KINDS, give::one_end)),
    ("way_to_qemu_in_parts", |bench| each("give, PARTs", bench, KINDS, give::parts)),
    ("way_to_qemu_with_configuration", |bench| each("give, CONFIG", bench, KINDS, give::config)),
    ("way_to_qemu_with_two_devices", |bench| each("give, two devices", bench, KINDS, give::two)),
    ("way_to_qemu_within_its_own_stream", |bench| each("give, spliced", bench, KINDS, splice::ours)),
    ("way_from_qemu_with_pre_copy", |bench| each("take, pre-copy", bench, KINDS, take::pre_copy)),
    ("way_from_qemu_that_is_stopped", |bench| each("take, stopped", bench, KINDS, take::stopped)),
    ("way_from_qemu_with_switchover_ack", |bench| {
        each("take, switchover-ack", bench, WITH_PRE_COPY, take::switchover_ack)
    }),
    ("way_from_qemu_with_multifd", |bench| each("take, multifd", bench, KINDS, take::multifd)),
    ("way_from_qemu_with_multifd_and_switchover_ack", |bench| {
        each("take, multifd, switchover-ack", bench, WITH_PRE_COPY, take::multifd_and_switchover_ack)
    }),
    ("way_from_qemu_with_two_devices", |bench| each("take, two devices", bench, KINDS, take::two)),
];

/// A device that is given to a QEMU, and whose content is another one each time.
trait Subject {
    /// The device as QEMU and `vfio-migrate` open it.
    fn card(&self) -> &Card;
    /// Puts a new content into the device, and says which.
    fn renew(&self) -> Result<String>;
    /// Says what content the device has, now that its machine runs: another one where the machine's reset took it away.
    fn renew_in_machine(&self, before: String) -> Result<String>;
    /// The device's content, which it may lose by that.
    fn content(&self) -> Result<String>;

    /// Fails unless the device is in this state and has this content.
    fn check(&self, state: u32, content: &str) -> Result<()> {
        self.card().check_state(state)?;
        let got = self.content()?;
        ensure!(got == content, "content: wanted {content:?}, got {got:?}");
        Ok(())
    }
}

impl Subject for Card {
    fn card(&self) -> &Card {
        self
    }

    fn renew(&self) -> Result<String> {
        let text = new_text();
        self.fill(&text).map(|()| text)
    }

    fn renew_in_machine(&self, before: String) -> Result<String> {
        Ok(before)
    }

    fn content(&self) -> Result<String> {
        self.take_text()
    }
}

impl Subject for TestDevice {
    fn card(&self) -> &Card {
        self.card()
    }

    fn renew(&self) -> Result<String> {
        let content = self.fill(RandomState::new().build_hasher().finish() >> 1)?;
        Ok(format!("{content:016x}"))
    }

    fn renew_in_machine(&self, _: String) -> Result<String> {
        self.renew()
    }

    fn content(&self) -> Result<String> {
        Ok(format!("{:016x}", self.checksum()?))
    }
}

/// A kind of device: its name, and how one is made.
type Kind = (&'static str, fn(Set, &str) -> Result<Box<dyn Subject>>);

const KINDS: &[Kind] = &[
    ("mtty", |set, uuid| Ok(Box::new(Card::create(set, "mtty-1", uuid)?))),
    ("migtest-pci", |set, uuid| Ok(Box::new(function(set, 256, uuid)?))),
    ("migtest-pci-4096 without PRE_COPY", |set, uuid| {
        let device = function(set, 4096, uuid)?;
        device.knob("flags", STOP_COPY_AND_P2P)?;
        Ok(Box::new(device))
    }),
];

/// The kinds with initial data: without any a destination would acknowledge at once.
const WITH_PRE_COPY: &[Kind] = KINDS.split_at(2).0;

/// A QEMU's version, with two devices to save and two to load into.
struct Scene {
    version: String,
    sources: [Box<dyn Subject>; 2],
    targets: [Box<dyn Subject>; 2],
}

/// A function with megabytes.
fn function(set: Set, config: usize, uuid: &str) -> Result<TestDevice> {
    let device = TestDevice::create_function(set, config, uuid)?;
    device.knob("size", SIZE)?;
    Ok(device)
}

/// Tries a way with each QEMU and each of these kinds of devices; `way` returns what was seen.
fn each(name: &str, bench: &Bench, kinds: &[Kind], way: fn(&Scene) -> Result<String>) -> Result<()> {
    let set = bench.source.set();
    for version in qemu::versions()? {
        for (kind, make) in kinds {
            let device = |number: u32| make(set, &format!("e0000000-0000-0000-0000-{number:012}"));
            let began = Instant::now();
            let sources = [device(1)?, device(2)?];
            let scene = Scene { version: version.clone(), sources, targets: [device(3)?, device(4)?] };
            let seen = way(&scene).with_context(|| format!("{name}, QEMU {version}, {kind}"))?;
            let seconds = began.elapsed().as_secs_f64();
            println!("# qemu | {name} | QEMU {version} | {kind} | {} | {seen} | {seconds:.1} s", set.name());
        }
    }
    Ok(())
}

/// The section of the device at a place in a QEMU's machine.
fn section(place: usize) -> String {
    format!("{}/vfio", DEVICES[place])
}

/// Flags of a driver that lacks PRE_COPY.
const STOP_COPY_AND_P2P: u32 = 3;

/// Bytes of a function's content.
const SIZE: u64 = (3 << 20) + 12 * 4096;
