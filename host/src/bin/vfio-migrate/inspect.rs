//! `vfio-migrate inspect`.
//!
//! Deliberately absent: the bytes of memory, of data and of other devices. They may hold a guest's secrets.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use vfio_migration_core::stream::record::Tag;
use vfio_migration_host::file;
use vfio_migration_host::link::Link;
use vfio_migration_host::qemu::{Event, Walker};

use crate::stdio;
use crate::{Fail, IO, Outcome, STREAM, stdout_failed};

mod config;
mod json;
mod text;
mod totals;

use config::PciConfig;
use json::Json;
use text::Text;
use totals::Totals;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate inspect card.state
  vfio-migrate inspect card.state --json | jq '.sections[].records[]'
  vfio-migrate inspect machine.bin                      # a whole machine's stream, as QEMU's migrate file: writes it

A damaged file is shown up to its damage, and the program then ends with 4. Other devices' sections have no length; it
stands in the description at the end. A pipe can therefore be read up to the first of them only, which also ends with 4;
a file is read to its last byte. The file of a migration with mapped-ram is not read.")]
pub(crate) struct Arguments {
    /// The file to read, or - for standard input
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let input = stdio::input(&arguments.file, "FILE -")?;
    let walker = Walker::open(input).map_err(|error| Fail::io(arguments.file.display(), error))?;
    let out = io::BufWriter::new(io::stdout().lock());
    let printed = if arguments.json { print(walker, Json::new(out)) } else { print(walker, Text::new(out)) };
    match printed.map_err(stdout_failed)? {
        None => Ok(()),
        Some(error) => {
            let exit = if matches!(error, file::Error::Recv { .. }) { IO } else { STREAM };
            Err(Fail { exit, error: anyhow::anyhow!("{}: {error}", arguments.file.display()) })
        }
    }
}

/// A way to tell of a stream, thing by thing while it is read.
trait Report {
    /// Tells of one thing; of the configuration where it is one that ends a CONFIG record of a PCI device.
    fn event(&mut self, event: &Event<'_>, config: Option<&PciConfig>) -> io::Result<()>;

    /// Tells how it ended.
    fn end(&mut self, totals: &Totals, error: Option<&file::Error>) -> io::Result<()>;
}

/// Walks the stream to its end or its damage, which is returned.
fn print(mut walker: Walker<Link<OwnedFd>>, mut report: impl Report) -> io::Result<Option<file::Error>> {
    let (mut totals, mut body) = (Totals::default(), Vec::new());
    let error = loop {
        match walker.next() {
            Ok(Some(event)) => {
                let config = config_in(&event, &mut body);
                totals.count(&event);
                report.event(&event, config.as_ref())?;
            }
            Ok(None) => break None,
            Err(error) => {
                totals.unfinished(&walker);
                break Some(error);
            }
        }
    };
    totals.end(walker.offset(), error.is_none());
    report.end(&totals, error.as_ref())?;
    Ok(error)
}

/// Gathers the bytes of a CONFIG record in `body`, and decodes them when they are whole.
fn config_in(event: &Event<'_>, body: &mut Vec<u8>) -> Option<PciConfig> {
    let Event::Payload { bytes, tag: Tag::Config, record, .. } = event else { return None };
    if body.len() <= config::RECORD_MAX {
        body.extend_from_slice(bytes);
    }
    record.as_ref()?;
    PciConfig::decode(&std::mem::take(body))
}
