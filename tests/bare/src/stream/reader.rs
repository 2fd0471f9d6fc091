//! The receiving side's stream: all that stands around the payloads, checked as it comes.
//!
//! Deliberately absent: a look behind the description. A serial line has no end, so what follows is not the stream's.

use core::task::Poll;

use heapless::Vec;
use serde::Deserialize;
use static_cell::ConstStaticCell;
use vfio_migration_core::session::Code;
use vfio_migration_core::stream::section::{
    self, Begins, Continues, FOOTER, ITEM_MAX, Item, NAME_MAX, PREAMBLE,
};

use super::depth;
use super::refusal::{Refusal, SHOWN, show};
use super::{CHECKSUM_KEY, CHECKSUM_TAIL, Checksum, checksum, checksum_tail};
use crate::device::DRIVER;
use crate::machine::interrupts::wait_for;
use crate::machine::serial::Serial;

/// Reads a stream of one device and keeps its checksum.
pub(crate) struct Reader {
    line: Serial,
    checksum: Checksum,
    offset: u64,
    /// Where the present payload begins.
    payload: u64,
    /// The number and the name of the device's sections.
    id: u32,
    name: Vec<u8, NAME_MAX>,
    /// Whether the present section is the END.
    is_last: bool,
}

impl Reader {
    /// A reader at a stream's first byte.
    pub(crate) fn new(line: Serial) -> Self {
        Self { line, checksum: checksum(), offset: 0, payload: 0, id: 0, name: Vec::new(), is_last: false }
    }

    /// Takes what stands before the first payload: a stream of ours, with a START of our kind of device.
    pub(crate) fn start(&mut self) -> Result<(), Refusal> {
        let mut preamble = PREAMBLE;
        self.exact(&mut preamble, "the preamble")?;
        section::decode_preamble(preamble).map_err(|error| Refusal::Section { offset: 0, error })?;
        self.item("a configuration with an empty name", |item| match item {
            Item::Configuration { name_length: 0 } => Some(()),
            _ => None,
        })?;
        let offset = self.offset;
        (self.id, self.name) = self.item("a START with version 1", |item| match *item {
            Item::Begin { kind: Begins::Start, id, name, instance: 0, version: 1 } => {
                Some((id, Vec::from_slice(name).ok()?))
            }
            _ => None,
        })?;
        let rest = self.name.strip_prefix(DRIVER.as_bytes());
        if !rest.is_some_and(|rest| rest.starts_with(b"@") && rest.ends_with(b"/vfio")) {
            return Err(Refusal::Driver { offset, got: self.name.iter().take(SHOWN).copied().collect() });
        }
        self.payload = self.offset;
        Ok(())
    }

    /// Takes what stands between two payloads, or behind the last one, which is the END's: then nothing more comes.
    pub(crate) fn next(&mut self) -> Result<bool, Refusal> {
        let offset = self.offset;
        let mut footer = [0; FOOTER];
        self.exact(&mut footer, "a section's footer")?;
        section::decode_footer(self.id, footer).map_err(|error| Refusal::Section { offset, error })?;
        if self.is_last {
            let end = |item: &Item<'_>| (*item == Item::EndOfStream).then_some(());
            return self.item("the end of the stream", end).map(|()| false);
        }
        let own = self.id;
        let kind = self.item("a PART or the END of the device", |item| match *item {
            Item::Continue { kind, id } if id == own => Some(kind),
            _ => None,
        })?;
        self.is_last = kind == Continues::End;
        self.payload = self.offset;
        Ok(true)
    }

    /// Takes the description, and checks the checksum of all that came and that a device with `data_bytes` of data is
    /// what is described.
    pub(crate) fn finish(&mut self, data_bytes: u64) -> Result<(), Refusal> {
        let length = self.item("a description of at most 64 KiB", |item| match *item {
            Item::Description { length } => {
                usize::try_from(length).ok().filter(|length| *length <= DESCRIPTION_MAX)
            }
            _ => None,
        })?;
        let offset = self.offset;
        let json = &mut DESCRIPTION.take()[..length];
        let (covered, tail) = json.split_at_mut(length.saturating_sub(CHECKSUM_TAIL));
        self.exact(covered, "the description")?;
        let (covers, wanted) = (self.offset, checksum_tail(&self.checksum));
        self.exact(tail, "the description")?;
        if !covered.ends_with(CHECKSUM_KEY.as_bytes()) {
            return Err(Refusal::Description { offset, reason: "does not end in a checksum" });
        }
        if tail != wanted.as_bytes() {
            let got = Vec::from_slice(tail).unwrap_or_default();
            return Err(Refusal::Checksum { covered: covers, wanted, got });
        }
        self.check(offset, json, data_bytes)
    }

    /// Gives bytes of a payload.
    pub(crate) fn recv(&mut self, buffer: &mut [u8]) -> Poll<Result<usize, Code>> {
        let received = self.line.recv(buffer);
        if let Poll::Ready(Ok(count)) = received {
            self.checksum.update(&buffer[..count]);
            self.offset += count as u64;
        }
        received
    }

    /// The bytes of the stream so far.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Where in the stream the present payload begins.
    pub(crate) const fn payload(&self) -> u64 {
        self.payload
    }

    fn check(&self, offset: u64, json: &[u8], data_bytes: u64) -> Result<(), Refusal> {
        depth::check(json).map_err(|error| Refusal::Depth { offset, error })?;
        let (Whole { ours: Ours { format, devices: (device,) } }, _) = serde_json_core::from_slice(json)
            .map_err(|_| Refusal::Description { offset, reason: "is not that of one device" })?;
        let refuse = |reason| Err(Refusal::Description { offset, reason });
        if format != FORMAT {
            refuse("has another format than 1")
        } else if device.idstr.as_bytes() != self.name.as_slice() {
            refuse("names another device than the sections")
        } else if device.driver != DRIVER {
            refuse("names another driver than the sections")
        } else if device.data_bytes != data_bytes {
            refuse("counts another number of data bytes than came")
        } else {
            Ok(())
        }
    }

    /// Reads an item, and not a byte past it; `take` says whether it is what is `wanted`.
    fn item<T>(
        &mut self,
        wanted: &'static str,
        take: impl FnOnce(&Item<'_>) -> Option<T>,
    ) -> Result<T, Refusal> {
        let offset = self.offset;
        let mut bytes = [0; ITEM_MAX];
        let mut have = 0;
        loop {
            match Item::decode(&bytes[..have]) {
                Ok((item, _)) => {
                    return take(&item).ok_or_else(|| Refusal::Unexpected {
                        offset,
                        wanted,
                        got: show(&item),
                    });
                }
                Err(section::Error::Short { wanted }) => {
                    self.exact(&mut bytes[have..wanted], "a section's header")?;
                    have = wanted;
                }
                Err(error) => return Err(Refusal::Section { offset, error }),
            }
        }
    }

    /// Waits until `buffer` is full of bytes that belong to `what`.
    fn exact(&mut self, buffer: &mut [u8], what: &'static str) -> Result<(), Refusal> {
        let mut have = 0;
        while have < buffer.len() {
            let offset = self.offset;
            match wait_for(|| self.recv(&mut buffer[have..])) {
                Ok(0) => return Err(Refusal::Ended { offset, missing: buffer.len() - have, what }),
                Ok(count) => have += count,
                Err(code) => return Err(Refusal::Line { offset, code }),
            }
        }
        Ok(())
    }
}

/// A whole description; what is not named here is not looked at.
#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(rename = "vfio-migration", borrow)]
    ours: Ours<'a>,
}

#[derive(Deserialize)]
struct Ours<'a> {
    format: u32,
    #[serde(borrow)]
    devices: (Entry<'a>,),
}

#[derive(Deserialize)]
struct Entry<'a> {
    idstr: &'a str,
    driver: &'a str,
    data_bytes: u64,
}

static DESCRIPTION: ConstStaticCell<[u8; DESCRIPTION_MAX]> = ConstStaticCell::new([0; DESCRIPTION_MAX]);

/// The longest description, in bytes.
const DESCRIPTION_MAX: usize = 64 << 10;
/// The version of our part of it.
const FORMAT: u32 = 1;
