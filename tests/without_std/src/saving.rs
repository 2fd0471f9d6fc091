//! A session that saves, with the stream around it.
//!
//! Deliberately absent: advice on when to stop. Pre-copy ends when the device has nothing now, or after twice what it had
//! at first.

use core::fmt::Write as _;

use rustix::fd::BorrowedFd;
use vfio_migration_core::device::State;
use vfio_migration_core::session::drive;
use vfio_migration_core::session::{Code, DataRead, Event, Misuse, Source, SourceEffect, SourcePhase};
use vfio_migration_core::stream::section::{Begins, Continues, Item};
use vfio_migration_host::attach::Attached;
use vfio_migration_host::device::Device;
use vfio_migration_host::frame::{FORMAT, Writer};
use vfio_migration_host::link::Link;

use crate::arguments::Arguments;
use crate::say::{Exit, refuse};
use crate::start::Standard;

/// The number of the device's sections; QEMU takes any but 0.
const ID: u32 = 1;
/// The head of a section with data.
pub(crate) const PART: Item<'static> = Item::Continue { kind: Continues::Part, id: ID };
/// The head of the section with the last data.
pub(crate) const END: Item<'static> = Item::Continue { kind: Continues::End, id: ID };

/// An order to a session.
type Order<'m> = fn(&mut Source<'m>) -> Result<(), Misuse>;

/// A device on its way out.
pub(crate) struct Saving<'m> {
    source: Source<'m>,
    card: &'m mut Device<Attached>,
    out: Writer<BorrowedFd<'static>>,
    data_bytes: u64,
    /// How much pre-copy may move at most, once that is known.
    limit: Option<u64>,
    is_whole: bool,
}

impl<'m> Saving<'m> {
    /// A session with the stream, which begins, on standard output.
    pub(crate) fn new(card: &'m mut Device<Attached>, piece: &'m mut [u8]) -> Result<Self, Exit> {
        let source = Source::new(card.features(), card.state(), false, piece).map_err(misuse)?;
        let out = Writer::begin(Link::new(Standard::Output.fd(), None)).map_err(|code| write(0, code))?;
        Ok(Self { source, card, out, data_bytes: 0, limit: None, is_whole: false })
    }

    /// Carries out an order.
    pub(crate) fn order(&mut self, order: Order<'m>) -> Result<(), Exit> {
        order(&mut self.source).map_err(misuse)?;
        match self.drive().map_err(misuse)? {
            SourcePhase::Failed(failure) => {
                let offset = self.out.offset();
                Err(refuse!(
                    Exit::of(&failure.cause),
                    "behind byte {offset} of the stream: {}",
                    failure.cause
                ))
            }
            _ => Ok(()),
        }
    }

    /// Writes a section, whose payload is that of an order.
    pub(crate) fn section(&mut self, head: &Item<'_>, order: Order<'m>) -> Result<(), Exit> {
        self.out.item(head).map_err(|code| write(self.out.offset(), code))?;
        self.order(order)?;
        self.out.footer(ID).map_err(|code| write(self.out.offset(), code))
    }

    /// Writes the START section, before which a device with pre-copy is brought there.
    pub(crate) fn start(&mut self, what: &Arguments<'_>) -> Result<(), Exit> {
        if what.pre_copy && self.card.state() != State::Running {
            return Err(refuse!(
                Exit::Device,
                "wanted a device in RUNNING for pre-copy, got {}",
                self.card.state()
            ));
        }
        let name = what.idstr().as_bytes();
        let head = Item::Begin { kind: Begins::Start, id: ID, name, instance: 0, version: 1 };
        self.section(
            &head,
            if what.pre_copy { |source| source.setup(true) } else { |source| source.setup(false) },
        )
    }

    /// Whether another chunk of pre-copy is worth it.
    pub(crate) fn has_more(&mut self) -> Result<bool, Exit> {
        self.order(Source::measure)?;
        let SourceEffect::Idle(SourcePhase::PreCopy(chunk)) = self.source.poll() else { return Ok(false) };
        let left = chunk.left.map_or(0, |left| left.total());
        let limit = *self.limit.get_or_insert(left.saturating_mul(2));
        Ok(left > 0 && self.data_bytes < limit)
    }

    /// Ends the stream with its description and checksum.
    pub(crate) fn end(&mut self, what: &Arguments<'_>) -> Result<(), Exit> {
        let mut json = heapless::String::<1024>::new();
        let (idstr, driver, data_bytes) = (what.idstr(), what.driver, self.data_bytes);
        let address = what.address.to_str().unwrap_or_default();
        let written = write!(
            json,
            r#"{{"page_size":4096,"devices":[],"vfio-migration":{{"format":{FORMAT},"devices":[{{"idstr":"{idstr}","driver":"{driver}","address":"{address}","data_bytes":{data_bytes}}}]}}"#
        );
        written.map_err(|_| refuse!(Exit::Usage, "wanted names that fit 1024 bytes of description"))?;
        self.out.end_with(json.as_bytes()).map_err(|code| write(self.out.offset(), code))?;
        self.is_whole = true;
        Ok(())
    }

    /// Brings the device back to where it was found, and says where it is.
    pub(crate) fn give_up(&mut self, exit: Exit) -> Exit {
        self.source.cancel();
        if let Ok(SourcePhase::Failed(failure)) = self.drive() {
            let whole = if self.is_whole { "; the stream is whole and can be loaded" } else { "" };
            return refuse!(exit, "{}{whole}", failure.device);
        }
        exit
    }

    /// Does what the session asks for, until it asks for nothing more.
    fn drive(&mut self) -> Result<SourcePhase, Misuse> {
        let count = |event: &Event| {
            if let Event::ReadData { result: Ok(DataRead::Bytes(count)), .. } = event {
                self.data_bytes += *count as u64;
            }
        };
        drive::source(&mut self.source, self.card, &mut self.out, count)
    }
}

/// A session refuses an order that its device has no state for.
pub(crate) fn misuse(misuse: Misuse) -> Exit {
    refuse!(Exit::Device, "{misuse}")
}

fn write(offset: u64, code: Code) -> Exit {
    refuse!(Exit::InputOutput, "the stream could not be written at byte {offset}: {code}")
}
