//! The test device of `tests/kmod`: a card that holds as much as one wants, and misbehaves when it is told to.
//!
//! Deliberately absent: what its knobs and violations mean. They are named here as the kernel names them in sysfs.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device as _;
use vfio_migration_host::device::Device;

use crate::device::{Card, OpenCard};
use crate::modules::Set;

/// A test device, which exists until it is dropped.
pub(crate) struct TestDevice {
    card: Card,
}

impl TestDevice {
    /// Makes a device with no knob set.
    pub(crate) fn create(set: Set, uuid: &str) -> Result<Self> {
        Ok(Self { card: Card::create_by(set, "migtest", "migtest-device", uuid)? })
    }

    /// Makes a device that is a PCI function with so many bytes of configuration space, 256 or 4096.
    pub(crate) fn create_function(set: Set, config: usize, uuid: &str) -> Result<Self> {
        let kind = if config == 256 { "migtest-pci" } else { "migtest-pci-4096" };
        Ok(Self { card: Card::create_by(set, "migtest-pci", kind, uuid)? })
    }

    /// The device as one of those that [`Card`] stands for.
    pub(crate) fn card(&self) -> &Card {
        &self.card
    }

    /// What `vfio-migrate` takes for its DEVICE.
    pub(crate) fn argument(&self) -> Result<String> {
        self.card.argument()
    }

    /// Opens the device; while it is open nobody else can.
    pub(crate) fn open(&self) -> Result<OpenCard> {
        self.card.open()
    }

    /// Sets a knob. An empty value clears one of several lines.
    pub(crate) fn knob(&self, name: &str, value: impl ToString) -> Result<()> {
        self.write("knobs", name, &value.to_string())
    }

    /// Breaks a rule from now on.
    pub(crate) fn violate(&self, name: &str) -> Result<()> {
        self.write("violations", name, "1")
    }

    /// Keeps a rule from now on.
    pub(crate) fn obey(&self, name: &str) -> Result<()> {
        self.write("violations", name, "0")
    }

    /// The names of all knobs.
    pub(crate) fn knobs(&self) -> Result<Vec<String>> {
        self.names("knobs")
    }

    /// The names of all violations.
    pub(crate) fn violations(&self) -> Result<Vec<String>> {
        self.names("violations")
    }

    /// How often each operation was called since the device was made, or since [`TestDevice::count_anew`].
    pub(crate) fn calls(&self) -> Result<BTreeMap<String, u64>> {
        let text = self.read("observed", "calls")?;
        let line = |line: &str| {
            let (operation, count) = line.split_once(' ')?;
            Some((operation.to_string(), count.parse().ok()?))
        };
        text.lines().map(|text| line(text).with_context(|| format!("calls: got {text:?}"))).collect()
    }

    /// Counts calls from 0 on.
    pub(crate) fn count_anew(&self) -> Result<()> {
        self.write("observed", "calls", "0")
    }

    /// The content's checksum, which the kernel computes now.
    pub(crate) fn checksum(&self) -> Result<u64> {
        Ok(u64::from_str_radix(self.read("observed", "checksum")?.trim(), 16)?)
    }

    /// The state's name, also while somebody else has the device open.
    pub(crate) fn state(&self) -> Result<String> {
        Ok(self.read("observed", "state")?.trim().to_string())
    }

    /// How many data fds are open.
    pub(crate) fn sessions(&self) -> Result<u64> {
        Ok(self.read("observed", "sessions")?.trim().parse()?)
    }

    /// Fills the content out of a seed, and returns its checksum.
    pub(crate) fn fill(&self, seed: u64) -> Result<u64> {
        self.knob("seed", seed)?;
        self.checksum()
    }

    /// Resets the device as its guest would, whoever has it open.
    pub(crate) fn flr(&self) -> Result<()> {
        self.write("observed", "flr", "1")
    }

    fn file(&self, folder: &str, name: &str) -> PathBuf {
        self.card.sysfs().join(folder).join(name)
    }

    fn read(&self, folder: &str, name: &str) -> Result<String> {
        let file = self.file(folder, name);
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The kernel gets to see no write of nothing, so that there is always a line's end.
    fn write(&self, folder: &str, name: &str, value: &str) -> Result<()> {
        let file = self.file(folder, name);
        fs::write(&file, format!("{value}\n"))
            .with_context(|| format!("cannot write {value:?} to {}", file.display()))
    }

    fn names(&self, folder: &str) -> Result<Vec<String>> {
        let files = fs::read_dir(self.card.sysfs().join(folder))?;
        let mut names = Vec::new();
        for file in files {
            names.push(file?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// Brings a device that the library holds to a state.
pub(crate) fn set<Fd: AsFd>(device: &mut Device<Fd>, state: State) -> Result<()> {
    device.set_state(state).map_err(|code| anyhow!("{code}")).with_context(|| format!("SET {state}"))
}

/// What a file of `/proc` says in KiB behind `name`.
pub(crate) fn kib(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number =
        line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no {name}"))?;
    Ok(number.parse()?)
}

/// Where region 1 begins in the device's file: the content.
pub(crate) const CONTENT: u64 = 1 << 40;

/// Registers of region 0.
pub(crate) mod register {
    /// "MIGTEST" and a zero.
    pub(crate) const MAGIC: u64 = 0x00;
    /// Bytes of the content.
    pub(crate) const SIZE: u64 = 0x08;
    /// The content's checksum.
    pub(crate) const CHECKSUM: u64 = 0x10;
    /// The last seed; a write fills the content from it.
    pub(crate) const SEED: u64 = 0x18;
    /// A write is a guest's reset.
    pub(crate) const FLR: u64 = 0x20;
    /// The number of such resets.
    pub(crate) const FLRS: u64 = 0x28;
    /// A write raises the vector of that number, of a PCI function.
    pub(crate) const RAISE: u64 = 0x30;
}
