//! Where a command's events go: to whoever watches (`-v`), and to a file for programs (`--trace-json`).
//!
//! Deliberately absent: settings in the environment. What is printed stands on the command line.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

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
    /// Write every step and every piece of data, one JSON object a line
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
            .with_writer(People)
            .with_filter(level);
        let programs = self.file()?.map(|file| {
            let layer =
                tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(Mutex::new(file));
            layer.with_filter(LevelFilter::DEBUG)
        });
        tracing_subscriber::registry().with(people).with(programs).init();
        Ok(())
    }

    /// Whether people watch the steps, and want no bar in between.
    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose > 0
    }

    fn file(&self) -> Result<Option<File>, Fail> {
        let create = |path: &PathBuf| File::create(path).map_err(|error| Fail::io(path.display(), error));
        self.trace_json.as_ref().map(create).transpose()
    }
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

/// Standard error, which may be gone.
struct People;

impl<'a> MakeWriter<'a> for People {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line
    }
}

/// One line of standard error.
struct Line;

impl std::io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        say(String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
