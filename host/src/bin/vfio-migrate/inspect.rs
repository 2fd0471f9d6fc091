//! `vfio-migrate inspect`.
//!
//! Deliberately absent: the bytes of memory, of data and of other devices. They may hold a guest's secrets.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use vfio_migration_core::stream::multifd::Content;
use vfio_migration_core::stream::record::{Tag, WORD, encode};
use vfio_migration_host::file;
use vfio_migration_host::link::Link;
use vfio_migration_host::qemu::{Channel, ChannelEvent, Event, Walker};

use crate::output::{self, Output};
use crate::stdio;
use crate::{Fail, IO, Outcome, STREAM, stdout_failed};

mod config;
mod json;
mod picture;
mod pieces;
mod svg;
mod text;
mod totals;

use config::PciConfig;
use json::Json;
use picture::Picture;
use text::Text;
use totals::Totals;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  vfio-migrate inspect card.state
  vfio-migrate inspect card.state --json | jq '.sections[].records[]'
  vfio-migrate inspect machine.bin                 # a whole machine's stream, as QEMU's `migrate file:` writes it
  vfio-migrate inspect main.bin --channel 1.bin --channel 2.bin   # one with multifd, and its channels
  vfio-migrate inspect machine.bin --svg machine.svg    # a picture, for a browser

A damaged file is shown up to its damage, and the program then ends with 4. Other devices' sections have no length; it
stands in the description at the end. A pipe can therefore be read up to the first of them only, which also ends with 4;
a file is read to its last byte. The file of a migration with mapped-ram is not read.")]
pub(crate) struct Arguments {
    /// The file to read, or - for standard input
    file: PathBuf,
    /// A file with one of multifd's channels, which stand beside the machine's file; may be given for each of them
    #[arg(long, value_name = "FILE")]
    channel: Vec<PathBuf>,
    /// Draw the stream as a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let input = stdio::input(&arguments.file, "FILE -")?;
    let channels = arguments.channel.iter().map(|path| Ok((path, stdio::input(path, "--channel -")?)));
    let channels = channels.collect::<Result<Vec<_>, Fail>>()?;
    if let Some(svg) = &arguments.svg {
        check_picture(svg, &input, &channels)?;
    }
    let walker = Walker::open(input, None).map_err(|error| Fail::io(arguments.file.display(), error))?;
    let out = io::BufWriter::new(io::stdout().lock());
    let mut picture = Picture::default();
    let found = if arguments.json {
        look(walker, channels, &mut picture, Json::new(out))
    } else {
        look(walker, channels, &mut picture, Text::new(out))
    };
    let found = found.map_err(stdout_failed)?;
    if let Some(path) = &arguments.svg {
        let title = arguments.file.file_name().unwrap_or_default().to_string_lossy();
        let output = Output::at(path)?;
        keep(&output, &svg::draw(&picture, &title)).map_err(|error| Fail::io(path.display(), error))?;
    }
    match found {
        Ok(()) => Ok(()),
        Err((channel, error)) => {
            let exit = if matches!(error, file::Error::Recv { .. }) { IO } else { STREAM };
            let path = channel.unwrap_or(&arguments.file).display();
            Err(Fail { exit, error: anyhow::anyhow!("{path}: {error}") })
        }
    }
}

/// Fails where no picture can be drawn to `svg`.
fn check_picture(svg: &Path, input: &OwnedFd, channels: &[(&PathBuf, OwnedFd)]) -> Outcome {
    if svg.as_os_str() == "-" {
        return Err(Fail::usage(anyhow::anyhow!("--svg: wanted a file, got -, where the text goes")));
    }
    let inputs = [input.as_fd()].into_iter().chain(channels.iter().map(|(_, channel)| channel.as_fd()));
    output::check_apart(svg, "--svg", inputs)?;
    Output::check(svg)
}

/// A way to tell of a stream, thing by thing while it is read.
trait Report {
    /// Tells of one thing in the stream; of the configuration where it ends the CONFIG record of a PCI device.
    fn event(&mut self, event: &Event<'_>, config: Option<&PciConfig>) -> io::Result<()>;

    /// Tells how the stream ended, at this byte.
    fn stream_end(&mut self, offset: u64, error: Option<&file::Error>) -> io::Result<()>;

    /// Begins to tell of a channel.
    fn channel(&mut self, path: &Path) -> io::Result<()>;

    /// Tells of one thing on the channel; of the configuration where it ends the packet of a PCI device's.
    fn packet(&mut self, event: &ChannelEvent<'_>, config: Option<&PciConfig>) -> io::Result<()>;

    /// Tells how the channel ended, at this byte.
    fn channel_end(&mut self, offset: u64, error: Option<&file::Error>) -> io::Result<()>;

    /// Tells the sums.
    fn end(&mut self, totals: &Totals) -> io::Result<()>;
}

/// What was wrong first, and with which channel if it was one.
type Found<'a> = Result<(), (Option<&'a PathBuf>, file::Error)>;

/// Reads the stream and the channels beside it, each to its end or its damage.
fn look<'a>(
    mut walker: Walker<Link<OwnedFd>>,
    channels: Vec<(&'a PathBuf, OwnedFd)>,
    picture: &mut Picture,
    mut report: impl Report,
) -> io::Result<Found<'a>> {
    let mut totals = Totals::default();
    let error = stream(&mut walker, &mut totals, picture, &mut report)?;
    let mut found = error.map_or(Ok(()), |error| Err((None, error)));
    for (path, input) in channels {
        let channel = Channel::open(input, walker.page_size(), None);
        let error = look_at_channel(path, channel, &mut totals, picture, &mut report)?;
        found = found.and(error.map_or(Ok(()), |error| Err((Some(path), error))));
    }
    found = found.and_then(|()| totals.check_pieces().map_err(|error| (None, error)));
    totals.end(found.is_ok());
    report.end(&totals)?;
    Ok(found)
}

fn stream(
    walker: &mut Walker<Link<OwnedFd>>,
    totals: &mut Totals,
    picture: &mut Picture,
    report: &mut impl Report,
) -> io::Result<Option<file::Error>> {
    let mut body = Vec::new();
    let error = loop {
        match walker.next() {
            Ok(Some(event)) => {
                let config = config_in(&event, &mut body);
                totals.count(&event);
                picture.take(&event);
                report.event(&event, config.as_ref())?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    totals.stream_end(walker);
    picture.stream_end(walker, error.as_ref());
    report.stream_end(walker.offset(), error.as_ref())?;
    Ok(error)
}

fn look_at_channel(
    path: &Path,
    mut channel: Channel<Link<OwnedFd>>,
    totals: &mut Totals,
    picture: &mut Picture,
    report: &mut impl Report,
) -> io::Result<Option<file::Error>> {
    report.channel(path)?;
    picture.channel(&path.file_name().unwrap_or_default().to_string_lossy());
    let mut body = Vec::new();
    let error = loop {
        match channel.next() {
            Ok(Some(event)) => {
                let config = config_on(&event, &mut body);
                totals.count_packet(&event);
                picture.packet(&event);
                report.packet(&event, config.as_ref())?;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    totals.channel_end(channel.offset());
    picture.channel_end(channel.offset());
    report.channel_end(channel.offset(), error.as_ref())?;
    Ok(error)
}

/// Writes a picture into its file, which is there whole or not at all.
fn keep(output: &Output, svg: &str) -> io::Result<()> {
    let mut rest = svg.as_bytes();
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(output, rest)?..];
    }
    output.keep()
}

/// Gathers the bytes of a CONFIG record in `body`, and decodes them when they are whole.
fn config_in(event: &Event<'_>, body: &mut Vec<u8>) -> Option<PciConfig> {
    let Event::Payload { bytes, tag: Tag::Config, record, .. } = event else { return None };
    if body.len() <= config::RECORD_MAX {
        body.extend_from_slice(bytes);
    }
    record.as_ref()?;
    let record = std::mem::take(body);
    PciConfig::decode(&[record.get(WORD..)?, &encode(Tag::EndOfState)].concat())
}

/// Gathers the bytes of a packet with a configuration in `body`, and decodes them when they are whole.
fn config_on(event: &ChannelEvent<'_>, body: &mut Vec<u8>) -> Option<PciConfig> {
    let ChannelEvent::Bytes { packet, bytes, last } = event else { return None };
    if packet.content != Content::Config {
        return None;
    }
    if body.len() <= config::RECORD_MAX {
        body.extend_from_slice(bytes);
    }
    if *last { PciConfig::decode(&std::mem::take(body)) } else { None }
}
