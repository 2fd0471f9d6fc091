//! A `vfio-migrate` that waits in a certain phase, because the other end of its pipe does nothing more.
//!
//! Deliberately absent: a phase in which the driver works. `mtty` is never busy long enough to be met there.

use std::io::{self, PipeReader, PipeWriter, Read as _, Write as _};
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::row::Row;
use crate::steps::{Told, told};
use crate::tool::{self, Outcome, remove, vfio_migrate, wait_until_stalled};

/// What a save of four cards is in the middle of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// The START sections: three cards are in PRE_COPY, and the last is as it was.
    Start,
    /// The data of PRE_COPY, in which all are.
    PreCopy,
    /// The data of STOP_COPY, in which all are from here on.
    StopCopy,
    /// The END sections.
    End,
    /// The description.
    Description,
}

impl Phase {
    /// What it is called for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "in the START sections",
            Self::PreCopy => "in the data of PRE_COPY",
            Self::StopCopy => "in the data of STOP_COPY",
            Self::End => "in the END sections",
            Self::Description => "in the description",
        }
    }
}

/// All phases in their order.
pub(crate) const PHASES: [Phase; 5] =
    [Phase::Start, Phase::PreCopy, Phase::StopCopy, Phase::End, Phase::Description];

/// A process that waits, and the end of its pipe that keeps it waiting.
pub(crate) struct Stalled {
    child: Child,
    _pipe: Pipe,
}

/// Our end of the pipe.
#[expect(dead_code, reason = "held open")]
enum Pipe {
    Read(PipeReader),
    Write(PipeWriter),
}

impl Stalled {
    /// Saves four cards into a pipe that has room for one write, and takes what comes up to a phase.
    pub(crate) fn save(row: &Row, phase: Phase) -> Result<Self> {
        let (mut read, mut write) = io::pipe()?;
        rustix::pipe::fcntl_setpipe_size(&write, PAGE)?;
        write.write_all(&[0; PAGE])?;
        remove(TRACE)?;
        let arguments = format!("save {} {}", row.arguments()?.join(" "), options(phase));
        let command = format!("{arguments} --output - --trace-json {TRACE}");
        let child = tool::start(vfio_migrate(&command).stdin(Stdio::null()).stdout(write))?;
        let waits = take_up_to(&child, &mut read, phase);
        Self { child, _pipe: Pipe::Read(read) }.that(waits).context(phase.name())
    }

    /// Loads four cards from a pipe that gives these bytes and then nothing more.
    pub(crate) fn load(row: &Row, bytes: &[u8]) -> Result<Self> {
        let (read, mut write) = io::pipe()?;
        write.write_all(bytes)?;
        let command = format!("load {} --input -", row.arguments()?.join(" "));
        let child = tool::start(vfio_migrate(&command).stdin(read).stdout(Stdio::null()))?;
        let waits = wait_until_stalled(&child);
        Self { child, _pipe: Pipe::Write(write) }.that(waits)
    }

    /// Kills it.
    pub(crate) fn kill(self) -> Result<()> {
        self.end(Signal::KILL).map(drop)
    }

    /// Sends a signal and waits for the end; the pipe stays as it is until then.
    pub(crate) fn end(self, signal: Signal) -> Result<Outcome> {
        tool::signal(&self.child, signal)?;
        tool::finish(self.child)
    }

    /// It itself where it waits as it should; otherwise it must not keep the cards.
    fn that(self, waits: Result<()>) -> Result<Self> {
        match waits {
            Ok(()) => Ok(self),
            Err(error) => {
                self.kill()?;
                Err(error)
            }
        }
    }
}

/// Takes one write after the other, until the process waits in `phase`.
fn take_up_to(child: &Child, pipe: &mut PipeReader, phase: Phase) -> Result<()> {
    loop {
        wait_until_stalled(child)?;
        let now = phase_of(&told(TRACE)?);
        if now == phase {
            return Ok(());
        }
        ensure!(now < phase, "wanted it to wait there, it waits {}", now.name());
        let taken = pipe.read(&mut [0; PAGE])?;
        ensure!(taken > 0, "wanted it to wait there, it ended {}", now.name());
    }
}

/// Options with which the link, which gathers 512 bytes, gives some to the pipe in `phase`: the length of the sections'
/// names decides that.
fn options(phase: Phase) -> String {
    let named = |length: usize| {
        let id = |card: char| format!("--qemu-id {}", card.to_string().repeat(length - "/vfio".len()));
        "abcd".chars().map(id).collect::<Vec<_>>().join(" ")
    };
    match phase {
        Phase::Start => format!("--precopy {}", named(200)),
        Phase::PreCopy | Phase::Description => "--precopy".into(),
        Phase::StopCopy => String::new(),
        Phase::End => named(100),
    }
}

/// What comes next, by what is done. In STOP_COPY each card has a PART that says there is no more, and then its END.
fn phase_of(told: &[Told]) -> Phase {
    let reached = |state: &str| told.iter().filter(|event| event.state.as_deref() == Some(state)).count();
    let terminators = |event: &&Told| event.action == "send" && event.offered == Some(8);
    let stopped = told.iter().position(|event| event.state.as_deref() == Some("STOP_COPY"));
    let Some(stopped) = stopped else {
        let started = told.iter().filter(|event| event.action == "send").count();
        return if reached("PRE_COPY") == 4 && started >= 4 { Phase::PreCopy } else { Phase::Start };
    };
    match told[stopped..].iter().filter(terminators).count() {
        ..4 => Phase::StopCopy,
        4..8 => Phase::End,
        8.. => Phase::Description,
    }
}

const PAGE: usize = 4096;
const TRACE: &str = "/tmp/trace";
