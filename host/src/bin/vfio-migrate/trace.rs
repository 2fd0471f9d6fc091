//! Where a command's events go: to whoever watches (`-v`), and to a file for programs (`--trace-json`).
//!
//! Deliberately absent: settings in the environment. What is printed stands on the command line.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use std::{fmt, io};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::PIPE_BUF;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::stdio::say;
use crate::{Fail, Outcome};

/// What every command takes.
#[derive(clap::Args)]
pub(crate) struct TraceArguments {
    /// Print every step with its outcome; twice: every piece of data too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Write every step and every piece of data into a new file, one JSON object a line, or - for standard error
    #[arg(long, global = true, value_name = "FILE")]
    trace_json: Option<PathBuf>,
}

impl TraceArguments {
    /// From here on events go where they are wanted.
    pub(crate) fn begin(&self) -> Outcome {
        let level = match self.verbose {
            0 => LevelFilter::OFF,
            1 => LevelFilter::INFO,
            _ => LevelFilter::DEBUG,
        };
        let people = tracing_subscriber::fmt::layer()
            .event_format(Lines { began: Instant::now() })
            .with_writer(Patient::new(standard_error()?))
            .with_filter(level);
        let programs = self.file()?.map(|file| {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
            layer.with_writer(Patient::new(file)).with_filter(LevelFilter::DEBUG)
        });
        tracing_subscriber::registry().with(people).with(programs).init();
        Ok(())
    }

    /// Fails where `output` would take the trace's place.
    pub(crate) fn check_apart(&self, output: &Path) -> Outcome {
        let same = |path: &PathBuf| {
            let (trace, output) = (std::fs::metadata(path).ok()?, std::fs::metadata(output).ok()?);
            Some(trace.is_file() && (trace.dev(), trace.ino()) == (output.dev(), output.ino()))
        };
        match &self.trace_json {
            Some(path) if same(path) == Some(true) => Err(Fail::usage(anyhow::anyhow!(
                "--trace-json: wanted another file than the output, got {}",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Whether people watch the steps, and want no bar in between.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    /// The file for programs. One that is there is not written over: it may be the stream itself.
    fn file(&self) -> Result<Option<OwnedFd>, Fail> {
        let Some(path) = &self.trace_json else { return Ok(None) };
        if path.as_os_str() == "-" {
            return standard_error().map(Some);
        }
        let is_special = std::fs::metadata(path).is_ok_and(|existing| !existing.is_file());
        let mut options = OpenOptions::new();
        options.write(true).create_new(!is_special).mode(0o600);
        let what = format!("--trace-json {}", path.display());
        options.open(path).map(|file| Some(file.into())).map_err(|error| Fail::io(what, error))
    }
}

fn standard_error() -> Result<OwnedFd, Fail> {
    let error = std::io::stderr();
    error.as_fd().try_clone_to_owned().map_err(|error| Fail::io("standard error", error))
}

/// Seconds since the start, and the event's line.
struct Lines {
    began: Instant,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>, F: for<'a> FormatFields<'a> + 'static> FormatEvent<S, F>
    for Lines
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, F>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message(String::new());
        event.record(&mut message);
        writeln!(writer, "{:>10.6} {}", self.began.elapsed().as_secs_f64(), message.0)
    }
}

/// The line of an event.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Writes lines to whoever reads them, and waits for nobody: a device may stand still meanwhile. What a reader does not
/// take in time is left out, and told at the end.
struct Patient {
    fd: OwnedFd,
    is_late: AtomicBool,
}

/// How many lines were left out.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Says how much of the trace is missing.
pub(crate) fn tell_left_out() {
    let left_out = LEFT_OUT.load(Ordering::Relaxed);
    if left_out > 0 {
        say(format_args!("{left_out} lines of the trace were left out: they could not be written in time"));
    }
}

impl Patient {
    fn new(fd: OwnedFd) -> Self {
        Self { fd, is_late: AtomicBool::new(false) }
    }

    /// Writes all of `line`, or nothing where the reader has no room for it now and has been waited for once.
    fn write(&self, line: &[u8]) -> rustix::io::Result<()> {
        let patience = if self.is_late.load(Ordering::Relaxed) { NONE } else { PATIENCE };
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        if rustix::event::poll(&mut fds, Some(&patience))? == 0 {
            return Err(Errno::AGAIN);
        }
        // A pipe that is ready takes so many bytes at once.
        for piece in line.chunks(PIPE_BUF) {
            rustix::io::write(&self.fd, piece)?;
        }
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Patient {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// One line.
struct Line<'a>(&'a Patient);

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.write(bytes).is_err() {
            self.0.is_late.store(true, Ordering::Relaxed);
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How long a reader is waited for, once.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
const NONE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
