//! The payload of a section of guest memory, idstr `ram`, version 4.
//!
//! Entries up to an end mark. Each begins with a big-endian u64: in its upper bits an address in a block of memory, in
//! those below a page's size what follows.
//! Source: what QEMU's `migration/ram.c` reads, 5.2 to 11.1.
//!
//! Deliberately absent: the content of memory. It is counted, and may hold anything, a VFIO record too.

use vfio_migration_core::session::drive::Transport;

use super::{Unwalkable, array, skip};
use crate::file::{Error, Reader};

/// A block of guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its name, for instance `pc.ram`.
    pub name: String,
    /// Its size, in bytes.
    pub length: u64,
}

/// What a section of guest memory holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamEntries {
    /// Pages that are written as they are.
    pub normal: Pages,
    /// Pages of zeros.
    pub zero: Pages,
    /// Pages as differences from what was sent before.
    pub xbzrle: Pages,
    /// Compressed pages (QEMU up to 9.0).
    pub compressed: Pages,
    /// Marks for the multifd channels: what they carried up to here comes before what follows.
    pub flushes: u64,
    /// Bytes of the list of blocks.
    pub list_bytes: u64,
}

/// Pages of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pages {
    /// How many.
    pub count: u64,
    /// Bytes in the stream, with their heads.
    pub bytes: u64,
}

impl RamEntries {
    /// Pages of every kind.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.normal.count + self.zero.count + self.xbzrle.count + self.compressed.count
    }

    /// What of `more` is not counted yet.
    pub fn add(&mut self, more: &Self) {
        self.normal.add(more.normal);
        self.zero.add(more.zero);
        self.xbzrle.add(more.xbzrle);
        self.compressed.add(more.compressed);
        self.flushes += more.flushes;
        self.list_bytes += more.list_bytes;
    }
}

impl Pages {
    const fn add(&mut self, more: Self) {
        self.count += more.count;
        self.bytes += more.bytes;
    }
}

/// Guest memory, as far as its sections are read.
#[derive(Debug)]
pub(super) struct Ram {
    /// The size of a page, a power of two.
    pub(super) page_size: u64,
    /// Whether an address stands behind each block in the list.
    pub(super) ignore_shared: bool,
    blocks: Vec<Block>,
    /// The block of the last page.
    last: Option<usize>,
}

impl Ram {
    pub(super) const fn new() -> Self {
        Self { page_size: 4096, ignore_shared: false, blocks: Vec::new(), last: None }
    }

    pub(super) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Reads a payload to its end, and counts in `found` what is whole.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn payload(
        &mut self,
        reader: &mut Reader<impl Transport>,
        found: &mut RamEntries,
    ) -> Result<(), Error> {
        loop {
            let offset = reader.offset();
            let word = u64::from_be_bytes(array(reader, WHAT)?);
            let below = self.page_size - 1;
            let (address, flags) = (word & !below, word & below);
            let pages = match flags & !CONTINUE {
                EOS => return Ok(()),
                MEM_SIZE => {
                    self.list(reader, address)?;
                    found.list_bytes += reader.offset() - offset;
                    continue;
                }
                MULTIFD_FLUSH => {
                    found.flushes += 1;
                    continue;
                }
                ZERO => &mut found.zero,
                PAGE => &mut found.normal,
                XBZRLE => &mut found.xbzrle,
                COMPRESS_PAGE => &mut found.compressed,
                HOOK => return Err(Error::Unwalkable { offset, reason: Unwalkable::Rdma }),
                _ => {
                    let (wanted, got) =
                        ("an entry of guest memory", format!("one with the flags {flags:#x}"));
                    return Err(Error::Unexpected { offset, wanted, got });
                }
            };
            self.place(reader, offset, address, flags & CONTINUE != 0)?;
            self.page(reader, flags & !CONTINUE)?;
            pages.add(Pages { count: 1, bytes: reader.offset() - offset });
        }
    }

    /// Reads the list of blocks, whose sizes add up to `total`.
    fn list(&mut self, reader: &mut Reader<impl Transport>, total: u64) -> Result<(), Error> {
        (self.blocks, self.last) = (Vec::new(), None);
        let mut left = total;
        while left > 0 {
            let offset = reader.offset();
            let name = name(reader)?;
            let length = u64::from_be_bytes(array(reader, WHAT)?);
            if self.ignore_shared {
                skip(reader, ADDRESS, WHAT)?;
            }
            if length > left || self.blocks.len() == BLOCKS_MAX {
                let wanted =
                    "blocks of guest memory, 4096 at most, whose sizes add up to the sum before them";
                let got = format!("'{}' of {length} bytes where {left} are left", name.escape_debug());
                return Err(Error::Unexpected { offset, wanted, got });
            }
            left -= length;
            self.blocks.push(Block { name, length });
        }
        Ok(())
    }

    /// Reads which block the page at `address` belongs to, and checks that it has such a page.
    fn place(
        &mut self,
        reader: &mut Reader<impl Transport>,
        offset: u64,
        address: u64,
        same: bool,
    ) -> Result<(), Error> {
        let unexpected = |wanted, got| Err(Error::Unexpected { offset, wanted, got });
        if !same {
            let name = name(reader)?;
            self.last = self.blocks.iter().position(|block| block.name == name);
            if self.last.is_none() {
                let got = format!("one of '{}'", name.escape_debug());
                return unexpected("a page of a block of guest memory in the list at the start", got);
            }
        }
        let Some(block) = self.last.and_then(|index| self.blocks.get(index)) else {
            return unexpected("a page with its block's name", "one of the same block as before".into());
        };
        if address < block.length {
            return Ok(());
        }
        let (name, length) = (block.name.escape_debug(), block.length);
        unexpected(
            "a page within its block",
            format!("one at {address:#x} of '{name}', {length:#x} bytes long"),
        )
    }

    /// Reads what a page of this kind holds.
    fn page(&self, reader: &mut Reader<impl Transport>, kind: u64) -> Result<(), Error> {
        let length = match kind {
            ZERO => 1,
            XBZRLE => {
                let [_, high, low] = array(reader, WHAT)?;
                u64::from(u16::from_be_bytes([high, low]))
            }
            COMPRESS_PAGE => u64::from(u32::from_be_bytes(array(reader, WHAT)?)),
            _ => self.page_size,
        };
        if length > 2 * self.page_size {
            let (offset, wanted) = (reader.offset(), "a page that is no longer for being compressed");
            return Err(Error::Unexpected { offset, wanted, got: format!("{length} bytes") });
        }
        skip(reader, length, WHAT)
    }
}

/// A name with its length before it.
fn name(reader: &mut Reader<impl Transport>) -> Result<String, Error> {
    let [length] = array(reader, WHAT)?;
    let mut name = [0; 255];
    let name = &mut name[..length.into()];
    reader.exact(name, WHAT)?;
    Ok(String::from_utf8_lossy(name).into_owned())
}

const WHAT: &str = "guest memory";
const ZERO: u64 = 0x02;
const MEM_SIZE: u64 = 0x04;
const PAGE: u64 = 0x08;
const EOS: u64 = 0x10;
/// The page is of the same block as the one before.
const CONTINUE: u64 = 0x20;
const XBZRLE: u64 = 0x40;
/// An entry of RDMA, which has memory of its own.
const HOOK: u64 = 0x80;
const COMPRESS_PAGE: u64 = 0x100;
const MULTIFD_FLUSH: u64 = 0x200;
/// The bytes of an address behind a block's size.
const ADDRESS: u64 = 8;
/// The most blocks that are believed.
const BLOCKS_MAX: usize = 4096;
