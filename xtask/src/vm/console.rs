//! Watching a VM from outside: its console becomes a log and a verdict, and it never outlives us.
//!
//! Deliberately absent: a way to type into the VM. It gets its orders on the kernel's command line.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::command::{self, Tally};

/// Runs a VM until its console ends, shows the lines of its tests and returns their tally.
///
/// Fails when the console ends without a tally, when `limit` is over, or at Ctrl-C; the VM is
/// ended in each case. All that the console said is in the file `log`.
pub(crate) fn watch(vm: &mut Command, log: &Path, limit: Duration) -> Result<Tally> {
    let (events, received) = mpsc::channel();
    let interrupted = events.clone();
    ctrlc::set_handler(move || drop(interrupted.send(Event::Interrupted)))?;
    vm.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Killed(vm.spawn().with_context(|| format!("cannot run {}", command::show(vm)))?);
    let console = child.0.stdout.take().context("the console is piped")?;
    let complaints = child.0.stderr.take().context("the errors are piped")?;
    thread::spawn({
        let events = events.clone();
        move || forward(complaints, &events)
    });
    thread::spawn(move || {
        forward(console, &events);
        events.send(Event::Closed)
    });
    follow(&received, log, limit)
}

/// What may happen while a VM runs.
enum Event {
    Line(String),
    Closed,
    Interrupted,
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

/// Sends each line that can be read, without the serial line's carriage returns.
fn forward(source: impl Read, events: &Sender<Event>) {
    for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_string();
        if events.send(Event::Line(line)).is_err() {
            return;
        }
    }
}

/// Takes events until the console ends and then says what came of it.
fn follow(events: &Receiver<Event>, log: &Path, limit: Duration) -> Result<Tally> {
    let mut file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let end = Instant::now() + limit;
    let mut text = String::new();
    let reason = loop {
        match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::Line(line)) => {
                writeln!(file, "{line}")?;
                show(&line);
                text = text + &line + "\n";
            }
            Ok(Event::Interrupted) => break "interrupted".to_string(),
            Err(RecvTimeoutError::Timeout) => break format!("not finished after {} s", limit.as_secs()),
            Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => match verdict(&text) {
                Some(tally) => return Ok(tally),
                None => break "ended without the tests' tally".to_string(),
            },
        }
    };
    bail!("the VM: {reason}; its console's end (all of it: {}):\n{}", log.display(), command::tail(&text, 40))
}

/// Prints what tells of the tests: their results and the lines that explain a failure.
fn show(line: &str) {
    if ["ok ", "not ok ", "# "].iter().any(|start| line.starts_with(start)) {
        println!("  {line}");
    }
}

/// The tally that stands alone on a line.
fn verdict(text: &str) -> Option<Tally> {
    text.lines().rev().find_map(|line| Tally::parse(line).filter(|tally| tally.to_string() == line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdict_is_the_tally_alone_on_a_line() {
        let text = "ok one\nnot ok two: wanted 1 passed, 0 failed\n1 passed, 1 failed\nreboot: Power down\n";
        assert_eq!(verdict(text), Some(Tally { passed: 1, failed: 1 }));
    }

    #[test]
    fn console_that_broke_off_has_no_verdict() {
        assert_eq!(verdict("ok one\nKernel panic\n"), None);
    }
}
