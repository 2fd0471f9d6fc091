//! `vfio-migrate extract`, and the same on the way into a device for `load --section`.
//!
//! Deliberately absent: the walk and the translation, which are the library's, so that a VMM has them too.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread;

use vfio_migration_host::errno::code;
use vfio_migration_host::file;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::UNKNOWN_DRIVER;
use vfio_migration_host::qemu::{ChannelsError, Extract, ExtractError, Walker};
use vfio_migration_host::sim::Errno;
use vfio_migration_host::transfer;

use crate::output::Output;
use crate::progress::{Progress, amount};
use crate::stdio::{self, say};
use crate::{Fail, IO, Outcome, STREAM, new_interrupt};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate extract vm.stream --section 0000:00:02.0/vfio --driver mlx5_vfio_pci --output card.state
  vfio-migrate extract vm.stream --section 0000:00:02.0/vfio --channel vm.1 --channel vm.2 --output card.state
  vfio-migrate inspect vm.stream                        # which sections there are

The stream is one that QEMU wrote with `migrate file:` or into a pipe that was kept; the channels are those of multifd,
each in a file of its own. It has to be a file: how long other devices' sections are stands at its end. What comes out
is a stream as `save` writes one, for `load` and for QEMU. QEMU's does not name a device's driver: without --driver
`load` takes the new one only with --force.")]
pub(crate) struct Arguments {
    /// The stream that QEMU wrote
    file: PathBuf,
    /// The name of a device's sections in it; several for several devices
    #[arg(long, required = true, value_name = "NAME")]
    section: Vec<String>,
    /// A file with one of multifd's channels, where the stream was written with those
    #[arg(long, value_name = "FILE")]
    channel: Vec<PathBuf>,
    /// The driver of a device, one for each section
    #[arg(long, value_name = "NAME")]
    driver: Vec<String>,
    /// The file to write, or - for standard output; it gets its name when it is complete
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let sections = arguments.section.len();
    let drivers = match arguments.driver.len() {
        0 => vec![UNKNOWN_DRIVER.to_owned(); sections],
        count if count == sections => arguments.driver.clone(),
        got => {
            let wanted = format!("--driver: wanted one for each of {sections} sections, or none, got {got}");
            return Err(Fail::usage(anyhow::anyhow!(wanted)));
        }
    };
    let input = stdio::input(&arguments.file, "FILE -")?;
    let channels = open_channels(&arguments.channel)?;
    let size = rustix::fs::fstat(&input).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
    let interrupt = new_interrupt()?;
    let output = Output::open(&arguments.output, &interrupt)?;
    let plan = Extract {
        sections: &arguments.section,
        drivers: &drivers,
        channels: &channels,
        interrupt: Some(&interrupt),
    };
    let progress = Progress::new("extracting", size, false);
    let link = Link::new(&output, Some(interrupt.clone()));
    let taken = plan.run(walker(input, &arguments.file)?, link, |offset| progress.at(offset));
    let time = progress.finish();
    let entries = taken.map_err(|error| Fail::extract(error, &arguments.file, &interrupt, ""))?;
    output.keep().map_err(|error| Fail::io(arguments.output.display(), error))?;
    for entry in entries {
        say(format_args!("took out '{}': state of {}", entry.idstr, amount(entry.data_bytes, time)));
    }
    Ok(())
}

/// Takes devices out of the stream `input` and gives the new one to `load`, which gets it as from any other pipe.
pub(crate) fn into<T>(
    plan: &Extract<'_>,
    input: OwnedFd,
    path: &Path,
    interrupt: &Interrupt,
    load: impl FnOnce(Link) -> Result<T, transfer::Error>,
) -> Result<T, Fail> {
    let walker = walker(input, path)?;
    let (near, far) = io::pipe().map_err(|error| Fail::io("there is no pipe", error))?;
    let (taken, loaded) = thread::scope(|scope| {
        let taker =
            scope.spawn(|| plan.run(walker, Link::new(far, Some(interrupt.clone())), |_| ()).map(drop));
        let loaded = load(Link::new(near.into(), Some(interrupt.clone())));
        (taker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), loaded)
    });
    match (taken, loaded) {
        (_, Ok(loaded)) => Ok(loaded),
        // The loader, which went first, says why.
        (Ok(()) | Err(ExtractError::Write { .. } | ExtractError::Interrupted), Err(error)) => {
            Err(Fail::transfer(error, &path.with_added_extension("(as extracted)"), interrupt))
        }
        (Err(reason), Err(error)) => Err(Fail::extract(reason, path, interrupt, &error.where_devices_are())),
    }
}

/// Opens the files of multifd's channels.
pub(crate) fn open_channels(paths: &[PathBuf]) -> Result<Vec<File>, Fail> {
    paths.iter().map(|path| File::open(path).map_err(|error| Fail::io(path.display(), error))).collect()
}

fn walker(input: OwnedFd, path: &Path) -> Result<Walker<Link>, Fail> {
    Walker::open(input).map_err(|error| Fail::io(path.display(), error))
}

impl Fail {
    /// A device's state that could not be taken out of `stream`, and where that leaves the devices.
    fn extract(error: ExtractError, stream: &Path, interrupt: &Interrupt, left: &str) -> Self {
        let is_interrupt = match &error {
            ExtractError::Interrupted => true,
            ExtractError::Write { code: answer, .. } => *answer == code(Errno::CANCELED),
            _ => false,
        };
        if let Some(signal) = interrupt.asked().filter(|_| is_interrupt) {
            return Self::signal(signal, left);
        }
        let exit = match &error {
            ExtractError::Stream(file::Error::Recv { .. })
            | ExtractError::Channels(ChannelsError::Channel { error: file::Error::Recv { .. }, .. })
            | ExtractError::Rewind { .. }
            | ExtractError::Write { .. } => IO,
            _ => STREAM,
        };
        Self { exit, error: anyhow::anyhow!("{}: {error}{left}", stream.display()) }
    }
}
