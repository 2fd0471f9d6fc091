//! A machine under QEMU: started, listened to, and never left behind.
//!
//! Deliberately absent: a way to speak to it other than its serial line. It gets its orders on the command line.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Instant;
use std::{fs, thread};

use anyhow::{Context as _, Result, bail, ensure};

use crate::command;

/// A running machine.
pub(crate) struct Machine {
    name: String,
    child: Killed,
    lines: Receiver<String>,
    said: Vec<String>,
    end: Instant,
}

/// What a machine has said and how it ended.
pub(crate) struct Said {
    /// Which machine it was.
    pub(crate) name: String,
    /// All its lines.
    pub(crate) lines: Vec<String>,
    /// The code with which its QEMU ended.
    pub(crate) code: Option<i32>,
}

impl Machine {
    /// Starts `qemu` with `wire` as its serial line. It is ended when it is not over at `end`, and with the thread that
    /// calls this.
    pub(crate) fn start(name: &str, qemu: &Command, wire: UnixStream, end: Instant) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(qemu.get_program()).args(qemu.get_args());
        command.stdin(OwnedFd::from(wire)).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot run {}", command::show(&command)))?;
        let mut child = Killed(child);
        let console = BufReader::new(child.0.stdout.take().context("the console is piped")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || console.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Ok(Self { name: name.to_owned(), child, lines, said: Vec::new(), end })
    }

    /// Waits until it says `line`.
    pub(crate) fn wait_for(&mut self, line: &str) -> Result<()> {
        while self.said.last().map(String::as_str) != Some(line) {
            ensure!(self.listen()?, "{}: ended before it said '{line}':\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Waits for its end, and keeps what it said in `folder`.
    pub(crate) fn end(mut self, folder: &Path) -> Result<Said> {
        while self.listen()? {}
        let code = self.child.0.wait()?.code();
        let log = folder.join(format!("{}.log", self.name));
        fs::write(&log, self.said.join("\n")).with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Said { name: self.name, lines: self.said, code })
    }

    /// Takes a line; returns whether there was one.
    fn listen(&mut self) -> Result<bool> {
        match self.lines.recv_timeout(self.end.saturating_duration_since(Instant::now())) {
            Ok(line) => self.said.push(line),
            Err(RecvTimeoutError::Disconnected) => return Ok(false),
            Err(RecvTimeoutError::Timeout) => {
                bail!("{}: not finished when the time for all machines was over:\n{}", self.name, self.tail())
            }
        }
        Ok(true)
    }

    fn tail(&self) -> String {
        command::tail(&self.said.join("\n"), 20)
    }
}

impl Said {
    /// Checks how it ended, and returns where its device is and the crc32c of what that holds.
    pub(crate) fn ended(&self, code: i32) -> Result<(&str, &str)> {
        let tail = || command::tail(&self.lines.join("\n"), 20);
        let got = self.code;
        ensure!(got == Some(code), "{}: wanted exit code {code}, got {got:?}:\n{}", self.name, tail());
        self.rest("the device is in ")?
            .split_once(", its content has crc32c ")
            .with_context(|| format!("{}: wanted where its device is, got\n{}", self.name, tail()))
    }

    /// Checks that it did each of these `kinds` at least once, and that an interrupt finished every one of them.
    pub(crate) fn finished_by_interrupts(&self, kinds: &[&str]) -> Result<()> {
        for kind in kinds {
            let counts = self.rest(&format!("{kind}: "))?;
            let (all, late) = counts.split_once(", finished by an interrupt: ").unwrap_or((counts, ""));
            ensure!(all == late && all != "0", "{}: {kind}: {counts}: wanted all of them", self.name);
        }
        Ok(())
    }

    /// What follows `begin` in the only line that begins so.
    pub(crate) fn rest(&self, begin: &str) -> Result<&str> {
        let mut rests = self.lines.iter().filter_map(|line| line.strip_prefix(begin));
        match (rests.next(), rests.next()) {
            (Some(rest), None) => Ok(rest),
            (first, _) => bail!(
                "{}: wanted one line '{begin}…', got {}",
                self.name,
                first.map_or("none", |_| "several")
            ),
        }
    }

    /// Whether this event was there.
    pub(crate) fn did(&self, event: &str) -> bool {
        self.lines.iter().any(|line| line.strip_prefix("event: ") == Some(event))
    }

    /// Prints its lines, without the events of pieces of data.
    pub(crate) fn show(&self) {
        for line in self.lines.iter().filter(|line| DATA.iter().all(|begin| !line.starts_with(begin))) {
            println!("    {}: {line}", self.name);
        }
    }
}

/// A child process that ends with its handle.
struct Killed(Child);

impl Drop for Killed {
    /// Killing fails only for a child that has ended already, which is what is wanted.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Events that come with each piece of data.
const DATA: [&str; 5] =
    ["event: read data", "event: send", "event: receive", "event: write data", "event: precopy info"];
