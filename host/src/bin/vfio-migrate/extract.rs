//! `vfio-migrate extract`, and the same on the way into a device for `load --section`.
//!
//! Deliberately absent: the walk and the translation, which are the library's, so that a VMM has them too.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::fstat;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use vfio_migration_core::session::Code;
use vfio_migration_host::errno::code;
use vfio_migration_host::file::{self, Entry};
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::UNKNOWN_DRIVER;
use vfio_migration_host::qemu::{ChannelsError, Extract, ExtractError, Walker, Wanted};
use vfio_migration_host::sim::Errno;
use vfio_migration_host::transfer;

use crate::output::{self, Output};
use crate::progress::{Progress, amount};
use crate::stdio::{self, say};
use crate::{Fail, IO, Outcome, STREAM, new_interrupt};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate extract vm.stream --section 0000:00:02.0/vfio --driver mlx5_vfio_pci --output card.state
  vfio-migrate extract vm.stream --section 0000:00:02.0/vfio --channel vm.1 --channel vm.2 --output card.state
  vfio-migrate inspect vm.stream                        # which sections there are

The stream is one that QEMU wrote with `migrate file:` or into a pipe that was kept. It has to be a file: how long other
devices' sections are stands at its end. The channels are those of multifd, each in a file of its own; channels of another
migration can't be told where their numbers and the machine's uuid fit. What comes out is a stream as `save` writes one,
for `load` and for QEMU. QEMU's does not name a device's driver: without --driver `load` takes the new one only with
--force.")]
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
    let devices = wanted(&arguments.section, &drivers(arguments)?)?;
    let interrupt = new_interrupt()?;
    let from = From::open(&arguments.file, "FILE -", &arguments.channel)?;
    from.check_apart(&arguments.output, "--output")?;
    let output = Output::open(&arguments.output, &interrupt)?;
    let progress = Progress::new("extracting", from.size, false);
    let link = Link::new(&output, Some(interrupt.clone()));
    let taken = from.take(&devices, link, &interrupt, |offset| progress.at(offset));
    let time = progress.finish();
    let entries = taken.map_err(|error| from.fail(error, &interrupt, ""))?;
    output.keep().map_err(|error| Fail::io(arguments.output.display(), error))?;
    for entry in entries {
        say(format_args!("took out '{}': state of {}", entry.idstr, amount(entry.data_bytes, time)));
    }
    Ok(())
}

/// The drivers on the command line, or those that are not known.
fn drivers(Arguments { section, driver, .. }: &Arguments) -> Result<Vec<String>, Fail> {
    let (wanted, got) = (section.len(), driver.len());
    if got != 0 && got != wanted {
        let text = format!("--driver: wanted one for each of {wanted} sections, or none, got {got}");
        return Err(Fail::usage(anyhow::anyhow!(text)));
    }
    if let Some(wrong) = driver.iter().find(|name| name.is_empty() || name.contains(char::is_control)) {
        let text =
            format!("--driver: wanted a name without control characters, got '{}'", wrong.escape_debug());
        return Err(Fail::usage(anyhow::anyhow!(text)));
    }
    Ok(if got == 0 { vec![UNKNOWN_DRIVER.to_owned(); wanted] } else { driver.clone() })
}

/// The devices to take out: a name of sections, and a driver, for each.
pub(crate) fn wanted(sections: &[String], drivers: &[String]) -> Result<Vec<Wanted>, Fail> {
    if let Some((_, twice)) = sections.iter().enumerate().find(|(at, name)| sections[..*at].contains(name)) {
        let text = format!("--section: wanted another for each device, got '{}' twice", twice.escape_debug());
        return Err(Fail::usage(anyhow::anyhow!(text)));
    }
    let wanted =
        |(section, driver): (&String, &String)| Wanted { section: section.clone(), driver: driver.clone() };
    Ok(sections.iter().zip(drivers).map(wanted).collect())
}

/// A stream that QEMU wrote, with its channels.
pub(crate) struct From<'a> {
    path: &'a Path,
    input: OwnedFd,
    channels: Vec<File>,
    channel_paths: &'a [PathBuf],
    /// The stream's length, where it is a file.
    size: Option<u64>,
}

impl<'a> From<'a> {
    /// Opens all files; the command line calls standard input `option`.
    pub(crate) fn open(path: &'a Path, option: &str, channel_paths: &'a [PathBuf]) -> Result<Self, Fail> {
        let input = stdio::input(path, option)?;
        let channel = |path: &PathBuf| File::open(path).map_err(|error| Fail::io(path.display(), error));
        let channels = channel_paths.iter().map(channel).collect::<Result<_, _>>()?;
        let size = fstat(&input).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
        Ok(Self { path, input, channels, channel_paths, size })
    }

    /// Fails where `output`, which the command line calls `option`, is one of the files that are read.
    fn check_apart(&self, output: &Path, option: &str) -> Outcome {
        let fds = [self.input.as_fd()].into_iter().chain(self.channels.iter().map(File::as_fd));
        output::check_apart(output, option, fds)
    }

    /// Takes devices out, and writes them to `link`.
    fn take(
        &self,
        devices: &[Wanted],
        link: Link<impl AsFd>,
        interrupt: &Interrupt,
        told: impl FnMut(u64),
    ) -> Result<Vec<Entry>, ExtractError> {
        let unreadable = |error: io::Error| file::Error::Recv {
            offset: 0,
            code: Code(error.raw_os_error().unwrap_or_default()),
        };
        let walker = Walker::open(&self.input, Some(interrupt.clone())).map_err(unreadable)?;
        Extract { devices, channels: &self.channels, interrupt: Some(interrupt) }.run(walker, link, told)
    }

    /// Gives the stream to `load`, or where devices are to be taken out of it what comes of that.
    pub(crate) fn stream<T>(
        self,
        devices: &[Wanted],
        interrupt: &Interrupt,
        load: impl FnOnce(Link) -> Result<T, transfer::Error>,
    ) -> Result<T, Fail> {
        if !devices.is_empty() {
            return self.give(devices, interrupt, load);
        }
        let loaded = load(Link::new(self.input, Some(interrupt.clone())));
        loaded.map_err(|error| Fail::transfer(error, self.path, interrupt))
    }

    /// Takes devices out and gives the new stream to `load`, which gets it as from any other pipe.
    fn give<T>(
        &self,
        devices: &[Wanted],
        interrupt: &Interrupt,
        load: impl FnOnce(Link) -> Result<T, transfer::Error>,
    ) -> Result<T, Fail> {
        let no_pipe = |error: io::Error| Fail::io("there is no pipe", error);
        let (near, far) =
            pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|errno| no_pipe(errno.into()))?;
        // A smaller one is as good, and slower.
        let _ = fcntl_setpipe_size(&far, PIPE);
        let halt = Interrupt::below(Some(interrupt.clone())).map_err(no_pipe)?;
        let (taken, loaded) = thread::scope(|scope| {
            let link = Link::new(far, Some(halt.clone()));
            let taker = scope.spawn(|| self.take(devices, link, &halt, |_| ()));
            let loaded = load(Link::new(near, Some(interrupt.clone())));
            if loaded.is_err() {
                halt.ask(1);
            }
            (taker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), loaded)
        });
        match (taken, loaded) {
            (_, Ok(loaded)) => Ok(loaded),
            // The loader has seen the end of what could be taken out.
            (Err(reason), Err(error)) if error.reason.is_of_cut_stream() && !is_canceled(&reason) => {
                Err(self.fail(reason, interrupt, &error.where_devices_are()))
            }
            (_, Err(error)) => {
                let taken_out = PathBuf::from(format!("what was taken out of {}", self.path.display()));
                Err(Fail::transfer(error, &taken_out, interrupt))
            }
        }
    }

    /// A device's state that could not be taken out, and where that leaves the devices.
    fn fail(&self, error: ExtractError, interrupt: &Interrupt, left: &str) -> Fail {
        if let Some(signal) = interrupt.asked().filter(|_| is_canceled(&error)) {
            return Fail::signal(signal, left);
        }
        let is_io = match &error {
            ExtractError::Stream(error) | ExtractError::Channels(ChannelsError::Channel { error, .. }) => {
                matches!(error, file::Error::Recv { .. })
            }
            ExtractError::Rewind { .. } | ExtractError::Write { .. } => true,
            _ => false,
        };
        let error = match error {
            ExtractError::Channels(ChannelsError::Channel { channel, error }) => {
                let path = self.channel_paths.get(channel).map_or(self.path, PathBuf::as_path);
                anyhow::anyhow!("{}: {error}{left}", path.display())
            }
            error => anyhow::anyhow!("{}: {error}{left}", self.path.display()),
        };
        Fail { exit: if is_io { IO } else { STREAM }, error }
    }
}

/// Whether it ended because that was asked for.
fn is_canceled(error: &ExtractError) -> bool {
    let answer = match error {
        ExtractError::Stream(file::Error::Recv { code, .. })
        | ExtractError::Channels(ChannelsError::Channel { error: file::Error::Recv { code, .. }, .. })
        | ExtractError::Write { code, .. } => *code,
        _ => return false,
    };
    answer == code(Errno::CANCELED)
}

/// Bytes that the pipe to a loader is to hold.
const PIPE: usize = 1 << 20;
