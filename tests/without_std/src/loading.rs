//! A session that loads, with the stream around it.
//!
//! Deliberately absent: several devices in one stream, and a QEMU's stream; `vfio-migrate extract` makes a file of one.

use rustix::fd::BorrowedFd;
use serde::Deserialize;
use vfio_migration_core::session::drive;
use vfio_migration_core::session::{Destination, DestinationPhase, Event, Misuse};
use vfio_migration_core::stream::section::{Begins, Continues, Item};
use vfio_migration_host::attach::Attached;
use vfio_migration_host::device::Device;
use vfio_migration_host::frame::{DESCRIPTION_MAX, Error, FORMAT, Reader};
use vfio_migration_host::link::Link;

use crate::arguments::Arguments;
use crate::saving::misuse;
use crate::say::{Exit, refuse};
use crate::start::Standard;

/// A device on its way in.
pub(crate) struct Loading<'m> {
    destination: Destination<'m>,
    card: &'m mut Device<Attached>,
    stream: Reader<Link<BorrowedFd<'static>>>,
    /// The number and the name of the device's sections.
    id: u32,
    idstr: heapless::Vec<u8, 255>,
    /// Where the payload begins that is being read.
    payload: u64,
    data_bytes: u64,
}

impl<'m> Loading<'m> {
    /// A session with the stream on standard input.
    pub(crate) fn new(card: &'m mut Device<Attached>, piece: &'m mut [u8]) -> Result<Self, Exit> {
        let destination = Destination::new(card.features(), card.state(), false, piece).map_err(misuse)?;
        let stream = Reader::new(Link::new(Standard::Input.fd(), None));
        Ok(Self { destination, card, stream, id: 0, idstr: heapless::Vec::new(), payload: 0, data_bytes: 0 })
    }

    /// Reads the stream's beginning and the head of the START section, whose name may tell the driver.
    pub(crate) fn begin(&mut self, what: &Arguments<'_>) -> Result<(), Exit> {
        self.stream.preamble().map_err(damaged)?;
        let offset = self.stream.offset();
        match self.stream.item().map_err(damaged)? {
            Item::Configuration { name_length: 0 } => {}
            item => return Err(unexpected(offset, "a configuration with an empty machine name", &item)),
        }
        let offset = self.stream.offset();
        match self.stream.item().map_err(damaged)? {
            Item::Begin { kind: Begins::Start, id, name, instance: 0, version: 1 }
                if name.ends_with(b"vfio") =>
            {
                self.id = id;
                self.idstr.extend_from_slice(name).unwrap_or_default(); // a name has 255 bytes at most
            }
            item => {
                return Err(unexpected(offset, "the START of a VFIO device, instance 0, version 1", &item));
            }
        }
        match self.idstr.split(|&byte| byte == b'@').next() {
            // A QEMU's name has no driver; on POWER it begins in `pci@`.
            Some(got) if got.len() < self.idstr.len() && got != b"pci" => check_driver(what, got),
            _ => Ok(()),
        }
    }

    /// Carries out an order.
    pub(crate) fn order(
        &mut self,
        order: fn(&mut Destination<'m>) -> Result<(), Misuse>,
    ) -> Result<(), Exit> {
        order(&mut self.destination).map_err(misuse)?;
        let DestinationPhase::Failed(failure) = self.drive().map_err(misuse)? else { return Ok(()) };
        let cause = failure.cause;
        Err(match cause.offset() {
            Some(offset) => {
                let place = self.payload.saturating_add(offset);
                refuse!(
                    Exit::of(&cause),
                    "at byte {place}, in the payload that begins at byte {}: {cause}",
                    self.payload
                )
            }
            None => refuse!(Exit::of(&cause), "{cause}"),
        })
    }

    /// Gives the device what is in its sections, up to the end of the stream's sections.
    pub(crate) fn sections(&mut self) -> Result<(), Exit> {
        self.section()?;
        if self.data_bytes > 0 {
            return Err(refuse!(
                Exit::Stream,
                "at byte {}: wanted a START without data, got DATA",
                self.payload
            ));
        }
        loop {
            let offset = self.stream.offset();
            let kind = match self.stream.item().map_err(damaged)? {
                Item::Continue { kind, id } if id == self.id => kind,
                item => return Err(unexpected(offset, "a PART or END of the device", &item)),
            };
            self.section()?;
            if kind == Continues::End {
                return Ok(());
            }
        }
    }

    /// Gives the device one payload.
    fn section(&mut self) -> Result<(), Exit> {
        self.payload = self.stream.offset();
        self.order(Destination::section)?;
        self.stream.footer(self.id).map_err(damaged)
    }

    /// Reads the stream to its last byte, and checks that it is whole and describes what was read.
    pub(crate) fn end(&mut self, what: &Arguments<'_>, room: &mut [u8]) -> Result<(), Exit> {
        let offset = self.stream.offset();
        match self.stream.item().map_err(damaged)? {
            Item::EndOfStream => {}
            item => return Err(unexpected(offset, "the end of the stream (saved without --config)", &item)),
        }
        let offset = self.stream.offset();
        let length = match self.stream.item().map_err(damaged)? {
            Item::Description { length } => length,
            item => return Err(unexpected(offset, "a description", &item)),
        };
        let json = usize::try_from(length).ok().and_then(|length| room.get_mut(..length));
        let json = json.ok_or_else(|| {
            let wanted = DESCRIPTION_MAX;
            refuse!(
                Exit::Stream,
                "at byte {offset}: wanted a description of at most {wanted} bytes, got {length}"
            )
        })?;
        self.stream.description(json).map_err(damaged)?;
        let Ours { format, devices: [entry] } = parse(json, offset)?;
        if format > FORMAT {
            return Err(refuse!(
                Exit::Stream,
                "the description has format {format}, wanted at most {FORMAT}"
            ));
        }
        if entry.idstr.as_bytes() != self.idstr.as_slice() || entry.data_bytes != self.data_bytes {
            return Err(refuse!(
                Exit::Stream,
                "wanted {} bytes of data of '{}' by the description, got {} of '{}' in the sections before it",
                entry.data_bytes,
                entry.idstr,
                self.data_bytes,
                self.idstr.escape_ascii()
            ));
        }
        check_driver(what, entry.driver.as_bytes())
    }

    /// Resets the device if it got anything, and says where it is.
    pub(crate) fn give_up(&mut self, exit: Exit) -> Exit {
        self.destination.cancel();
        match self.drive() {
            Ok(DestinationPhase::Failed(failure)) => refuse!(exit, "{}", failure.device),
            _ => exit,
        }
    }

    /// Does what the session asks for, until it asks for nothing more.
    fn drive(&mut self) -> Result<DestinationPhase, Misuse> {
        let count = |event: &Event| {
            if let Event::WriteData { result: Ok(count), .. } = event {
                self.data_bytes += *count as u64;
            }
        };
        drive::destination(&mut self.destination, self.card, &mut self.stream, count)
    }
}

/// A description, as far as it is looked at.
#[derive(Deserialize)]
struct Description<'a> {
    #[serde(borrow, rename = "vfio-migration")]
    ours: Ours<'a>,
}

#[derive(Deserialize)]
struct Ours<'a> {
    format: u32,
    #[serde(borrow)]
    devices: [Entry<'a>; 1],
}

#[derive(Deserialize)]
struct Entry<'a> {
    idstr: &'a str,
    driver: &'a str,
    data_bytes: u64,
}

fn parse(json: &[u8], offset: u64) -> Result<Ours<'_>, Exit> {
    serde_json_core::from_slice(json).map(|(Description { ours }, _)| ours).map_err(|error| {
        refuse!(
            Exit::Stream,
            "at byte {offset}: wanted a description of ours of one device, got one that can't be read: {error}"
        )
    })
}

fn check_driver(what: &Arguments<'_>, got: &[u8]) -> Result<(), Exit> {
    if got == what.driver.as_bytes() {
        return Ok(());
    }
    let (wanted, got) = (what.driver, got.escape_ascii());
    Err(refuse!(Exit::Stream, "the stream is of a device of driver '{got}', wanted '{wanted}'"))
}

fn damaged(error: Error) -> Exit {
    let exit = if let Error::Recv { .. } = error { Exit::InputOutput } else { Exit::Stream };
    refuse!(exit, "{error}")
}

fn unexpected(offset: u64, wanted: &str, got: &Item<'_>) -> Exit {
    let (what, name): (_, &[u8]) = match got {
        Item::Begin { kind, name, .. } => (kind.name(), name),
        Item::Continue { kind, .. } => (kind.name(), b""),
        Item::Configuration { .. } => ("the configuration of a whole machine", b""),
        Item::Subsection { name, .. } => ("the subsection", name),
        Item::Command { .. } => ("a command", b""),
        Item::EndOfStream => ("the end of the stream", b""),
        Item::Description { .. } => ("a description", b""),
    };
    refuse!(Exit::Stream, "at byte {offset}: wanted {wanted}, got {what} {}", name.escape_ascii())
}
