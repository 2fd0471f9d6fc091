//! Running `vfio-migrate` as a user would, and what came of it.
//!
//! Deliberately absent: the texts of its messages. Only words are looked for that a user can't do without.

use std::fs;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// Exit code: the task is done.
pub(crate) const DONE: i32 = 0;
/// Exit code: the command line is wrong.
pub(crate) const USAGE: i32 = 2;
/// Exit code: the device refused.
pub(crate) const DEVICE_REFUSED: i32 = 3;
/// Exit code: the stream was refused.
pub(crate) const STREAM_REFUSED: i32 = 4;
/// Exit code: something cannot be opened, read or written.
pub(crate) const INPUT_OUTPUT: i32 = 5;

/// The command `vfio-migrate` with arguments that are separated by spaces.
pub(crate) fn vfio_migrate(arguments: &str) -> Command {
    let mut command = Command::new("/bin/vfio-migrate");
    command.args(arguments.split_whitespace());
    command
}

/// Runs `vfio-migrate` to its end.
pub(crate) fn run(arguments: &str) -> Result<Outcome> {
    run_with_input(arguments, Stdio::null())
}

/// Runs `vfio-migrate` to its end with this standard input.
pub(crate) fn run_with_input(arguments: &str, input: impl Into<Stdio>) -> Result<Outcome> {
    finish(start(vfio_migrate(arguments).stdin(input).stdout(Stdio::piped()))?)
}

/// Starts a command whose complaints are kept.
pub(crate) fn start(command: &mut Command) -> Result<Child> {
    command.stderr(Stdio::piped()).spawn().with_context(|| format!("cannot run {command:?}"))
}

/// Waits for a process's end, and ends it when that takes too long.
pub(crate) fn finish(child: Child) -> Result<Outcome> {
    let pid = Pid::from_child(&child);
    let (finished, wait) = mpsc::channel::<()>();
    let watch = thread::spawn(move || {
        if wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(pid, Signal::KILL);
        }
    });
    let output = child.wait_with_output();
    drop(finished);
    watch.join().ok().context("the watching thread panicked")?;
    Ok(Outcome(output?))
}

/// Sends a signal to a running process.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<()> {
    Ok(kill_process(Pid::from_child(child), signal)?)
}

/// Waits until a process waits: all its threads sleep, and none has run between two looks.
pub(crate) fn wait_until_stalled(child: &Child) -> Result<()> {
    let mut before = Vec::new();
    wait_until("the process waits", || {
        let now = threads(child)?;
        let stalled = now == before && now.iter().all(|thread| thread.contains("State:\tS"));
        before = now;
        Ok(stalled)
    })
}

/// What the kernel says of each thread of a process. One that ends in between is passed over.
fn threads(child: &Child) -> Result<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id()))?.flatten();
    let threads: Vec<_> = tasks.flat_map(|task| fs::read_to_string(task.path().join("status"))).collect();
    ensure!(!threads.concat().contains("State:\tZ"), "the process ended where it should wait");
    Ok(threads)
}

/// Looks again and again until something is so, for a limited time.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !is_so()? {
        if Instant::now() > end {
            bail!("waited in vain for this: {what}");
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Removes a file that may be there, so that a trace can be written anew.
pub(crate) fn remove(path: &str) -> Result<()> {
    if fs::exists(path)? {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// An exit code, and the words that the message has to hold then.
pub(crate) type Refusal<'a> = (i32, &'a [&'a str]);

/// How a process ended, and what it printed.
pub(crate) struct Outcome(Output);

impl Outcome {
    /// Fails unless the exit code is one of these.
    pub(crate) fn expect(self, wanted: &[i32]) -> Result<Self> {
        let got = self.0.status.code();
        let fits = got.is_some_and(|code| wanted.contains(&code));
        ensure!(fits, "exit code: wanted {wanted:?}, got {got:?}; it said: {}", self.errors());
        Ok(self)
    }

    /// Fails unless it ended in one of these ways, with a message that has all words of that way.
    pub(crate) fn expect_refusal(self, wanted: &[Refusal<'_>]) -> Result<()> {
        let codes: Vec<i32> = wanted.iter().map(|(code, _)| *code).collect();
        let outcome = self.expect(&codes)?;
        let errors = outcome.errors();
        let got = outcome.0.status.code();
        let words = wanted.iter().filter(|(code, _)| Some(*code) == got).flat_map(|(_, words)| *words);
        for word in words {
            ensure!(errors.contains(word), "the message: wanted the word {word:?}, got {errors:?}");
        }
        Ok(())
    }

    /// Its exit code; nothing where a signal ended it.
    pub(crate) fn exit_code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// Whether the task is done.
    pub(crate) fn is_done(&self) -> bool {
        self.0.status.code() == Some(DONE)
    }

    /// What it printed to its standard output.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// What it said to whoever watches.
    pub(crate) fn errors(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }
}

/// How long to wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);
