//! The sending side's stream: what stands around a payload goes out before the payload's next bytes.
//!
//! Deliberately absent: waiting, but for the last bytes. Whoever sends a payload waits for the rest.

use core::fmt::Write as _;
use core::task::Poll;

use heapless::Vec;
use vfio_migration_core::session::Code;
use vfio_migration_core::stream::section::{self, Begins, Continues, ITEM_MAX, Item, PREAMBLE};

use super::{CHECKSUM_KEY, CHECKSUM_TAIL, Checksum, Refusal, checksum, checksum_tail};
use crate::device::DRIVER;
use crate::machine::interrupts::wait_for;
use crate::machine::serial::Serial;

/// Writes a stream of one device and keeps its checksum.
pub(crate) struct Writer {
    line: Serial,
    /// What has to go out before anything else.
    queue: Vec<u8, 1024>,
    checksum: Checksum,
    offset: u64,
    is_whole: bool,
}

impl Writer {
    /// Begins a stream, whose CONFIGURATION has an empty name.
    pub(crate) fn new(line: Serial) -> Self {
        let mut writer = Self { line, queue: Vec::new(), checksum: checksum(), offset: 0, is_whole: false };
        writer.put(&PREAMBLE);
        writer.item(&Item::Configuration { name_length: 0 });
        writer
    }

    /// Begins the device's START.
    pub(crate) fn start(&mut self) {
        let mut name = Vec::<u8, 64>::new();
        write!(name, "{DRIVER}@{ADDRESS}/vfio").expect("it is short");
        self.item(&Item::Begin { kind: Begins::Start, id: ID, name: &name, instance: 0, version: 1 });
    }

    /// Begins a PART.
    pub(crate) fn part(&mut self) {
        self.item(&Item::Continue { kind: Continues::Part, id: ID });
    }

    /// Begins the END.
    pub(crate) fn end(&mut self) {
        self.item(&Item::Continue { kind: Continues::End, id: ID });
    }

    /// Ends a section.
    pub(crate) fn footer(&mut self) {
        self.put(&section::footer(ID));
    }

    /// Ends the stream of a device with `data_bytes` of data, and waits until all of it is on the wire.
    ///
    /// # Errors
    /// The line's answer.
    pub(crate) fn finish(&mut self, data_bytes: u64) -> Result<(), Refusal> {
        let mut json = Vec::<u8, 512>::new();
        let written =
            write!(json, r#"{{"page_size":4096,"devices":[],"vfio-migration":{{"format":1,"devices":[{{"#)
                .and_then(|()| write!(json, r#""idstr":"{DRIVER}@{ADDRESS}/vfio","driver":"{DRIVER}","#))
                .and_then(|()| {
                    write!(json, r#""address":"{ADDRESS}","data_bytes":{data_bytes}}}]}}{CHECKSUM_KEY}"#)
                });
        written.expect("it is short");
        let length = u32::try_from(json.len() + CHECKSUM_TAIL).expect("it is short");
        self.item(&Item::EndOfStream);
        self.item(&Item::Description { length });
        self.put(&json);
        let tail = checksum_tail(&self.checksum);
        self.put(tail.as_bytes());
        wait_for(|| self.flush()).map_err(|code| Refusal::Line { offset: self.offset, code })?;
        wait_for(|| self.line.drained());
        self.is_whole = true;
        Ok(())
    }

    /// Whether all of the stream is on the wire: then another machine can run the state.
    pub(crate) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Sends bytes of a payload, behind what stands before it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Poll<Result<usize, Code>> {
        match self.flush() {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(code)) => return Poll::Ready(Err(code)),
            Poll::Pending => return Poll::Pending,
        }
        let sent = self.line.send(bytes);
        if let Poll::Ready(Ok(count)) = sent {
            self.count(&bytes[..count]);
        }
        sent
    }

    /// The bytes of the stream so far.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    fn flush(&mut self) -> Poll<Result<(), Code>> {
        while !self.queue.is_empty() {
            match self.line.send(&self.queue) {
                Poll::Ready(Ok(count)) => drop(self.queue.drain(..count)),
                Poll::Ready(Err(code)) => return Poll::Ready(Err(code)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn item(&mut self, item: &Item<'_>) {
        let mut bytes = [0; ITEM_MAX];
        let length = item.encode(&mut bytes).expect("there is room for any item");
        self.put(&bytes[..length]);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes).expect("what stands between two payloads is short");
        self.count(bytes);
    }

    fn count(&mut self, bytes: &[u8]) {
        self.checksum.update(bytes);
        self.offset += bytes.len() as u64;
    }
}

/// The number of the device's sections.
const ID: u32 = 1;
/// Where the device is, for people.
const ADDRESS: &str = "bare";
