//! The two devices of a run, and the commands that work on them.
//!
//! Deliberately absent: what may go wrong, and what must hold then; that is in `fault` and `verdict`.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::modules::Set;
use crate::testdev::TestDevice;
use crate::tool::{self, DONE, Outcome};

/// Which of the two devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Destination,
}

/// A command that migrates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Save,
    SaveLive,
    Load,
    Move,
    MoveLive,
}

/// Two devices, each with a content of its own, and a folder.
pub(super) struct Scene {
    source: TestDevice,
    destination: TestDevice,
    /// The checksum of the source's content.
    pub(super) good: u64,
    /// The checksum of what the destination holds before anything is loaded.
    pub(super) other: u64,
    /// The checksum of a device that was reset.
    pub(super) empty: u64,
    buffer: &'static str,
}

/// How much is moved, and in which pieces.
pub(super) struct Size {
    content: u64,
    buffer: &'static str,
}

impl Size {
    /// No whole number of pages nor of pieces, of which it takes a dozen.
    pub(super) const SMALL: Self = Self { content: 40_000, buffer: "4KiB" };
    /// As real devices have it.
    pub(super) const LARGE: Self = Self { content: 256 << 20, buffer: "1MiB" };
}

impl Side {
    /// What it is called for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

impl Command {
    /// Whose devices it works on.
    pub(super) const fn sides(self) -> &'static [Side] {
        match self {
            Self::Save | Self::SaveLive => &[Side::Source],
            Self::Load => &[Side::Destination],
            Self::Move | Self::MoveLive => &[Side::Source, Side::Destination],
        }
    }

    /// Whether it writes a file.
    pub(super) const fn writes(self) -> bool {
        match self {
            Self::Save | Self::SaveLive => true,
            Self::Load | Self::Move | Self::MoveLive => false,
        }
    }

    /// Whether devices are copied while they work: how many calls that takes depends on how quick the machine
    /// is.
    pub(super) const fn is_live(self) -> bool {
        match self {
            Self::SaveLive | Self::MoveLive => true,
            Self::Save | Self::Load | Self::Move => false,
        }
    }

    /// Whether it makes as many calls each time. Between two devices a link passes on what it has.
    pub(super) const fn is_exact(self) -> bool {
        match self {
            Self::Save | Self::Load => true,
            Self::SaveLive | Self::Move | Self::MoveLive => false,
        }
    }

    /// What it is called for people.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Save => "save",
            Self::SaveLive => "save --precopy",
            Self::Load => "load",
            Self::Move => "move",
            Self::MoveLive => "move --precopy",
        }
    }
}

impl Scene {
    /// Makes two devices with these migration flags and contents of this size.
    pub(super) fn create(set: Set, flags: u32, size: &Size) -> Result<Self> {
        let source = TestDevice::create(set, "e0000000-0000-0000-0000-000000000001")?;
        let destination = TestDevice::create(set, "f0000000-0000-0000-0000-000000000001")?;
        for device in [&source, &destination] {
            device.knob("flags", flags)?;
            device.knob("size", size.content)?;
        }
        let (good, other) = (source.fill(GOOD_SEED)?, destination.fill(OTHER_SEED)?);
        destination.flr()?;
        let (empty, buffer) = (destination.checksum()?, size.buffer);
        let scene = Self { empty, buffer, source, destination, good, other };
        let all = [scene.good, scene.other, scene.empty];
        ensure!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "checksums: got {all:x?}");
        scene.begin()?;
        tool::run(&scene.line(Command::Save)?)?.expect(&[DONE])?;
        fs::rename(SAVED, INPUT)?;
        Ok(scene)
    }

    /// A device.
    pub(super) fn device(&self, side: Side) -> &TestDevice {
        match side {
            Side::Source => &self.source,
            Side::Destination => &self.destination,
        }
    }

    /// Puts everything where a run begins: no faults, contents, no file, and all calls uncounted. The devices
    /// run.
    pub(super) fn begin(&self) -> Result<()> {
        for (device, seed) in [(&self.source, GOOD_SEED), (&self.destination, OTHER_SEED)] {
            device.knob("fault", "")?;
            device.fill(seed)?;
            device.count_anew()?;
        }
        if fs::exists(FOLDER)? {
            fs::remove_dir_all(FOLDER)?;
        }
        Ok(fs::create_dir(FOLDER)?)
    }

    /// Runs a command to its end.
    pub(super) fn run(&self, command: Command) -> Result<Outcome> {
        tool::run(&self.line(command)?)
    }

    /// Loads what was saved, and fails unless that is one of these contents.
    pub(super) fn check_saved(&self, wanted: &[u64]) -> Result<()> {
        self.destination.fill(OTHER_SEED)?;
        let load = format!("load {} --input {SAVED}", self.destination.argument()?);
        tool::run(&load)?.expect(&[DONE]).context("what was saved")?;
        let got = self.destination.checksum()?;
        ensure!(wanted.contains(&got), "what was saved: wanted one of {wanted:x?}, got {got:x}");
        Ok(())
    }

    /// The names of the files that there are.
    pub(super) fn files(&self) -> Result<Vec<String>> {
        let files = fs::read_dir(FOLDER)?.flatten();
        Ok(files.map(|file| file.file_name().to_string_lossy().into_owned()).collect())
    }

    fn line(&self, command: Command) -> Result<String> {
        let (source, destination) = (self.source.argument()?, self.destination.argument()?);
        let line = match command {
            Command::Save | Command::SaveLive => format!("{} {source} --output {SAVED}", command.name()),
            Command::Load => format!("load {destination} --input {INPUT}"),
            Command::Move | Command::MoveLive => format!("{} {source} {destination}", command.name()),
        };
        Ok(format!("{line} --buffer {}", self.buffer))
    }
}

const GOOD_SEED: u64 = 7;
const OTHER_SEED: u64 = 8;
const FOLDER: &str = "/tmp/injected";
const SAVED: &str = "/tmp/injected/state";
const INPUT: &str = "/tmp/injected.state";
