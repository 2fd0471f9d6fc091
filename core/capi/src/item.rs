//! Layer 2: QEMU's migration stream around the payloads, as far as a stream of VFIO sections needs it.
//!
//! Deliberately absent: payloads of other devices and of memory, and what stands in a description.

use vfio_migration_core::stream::section::{self, Begins, Continues, Error, Item};

use crate::memory::{Plain, bytes, check, put, read, write};
use crate::record::array;
use crate::status::{numbered, vfio_status};

/// What stands between payloads; all numbers are big-endian on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum vfio_item_kind {
    /// The machine's name, `length` bytes, follows; none in a stream that holds only VFIO sections.
    VFIO_ITEM_CONFIGURATION = 1,
    /// A part of the configuration that only some machines have: `name`, `version`; its body follows, whose length its
    /// name tells.
    VFIO_ITEM_SUBSECTION = 2,
    /// The first of a device's sections: `id`, `name`, `instance`, `version`; its payload follows.
    VFIO_ITEM_START = 3,
    /// A section between START and END: `id`; its payload follows.
    VFIO_ITEM_PART = 4,
    /// The last section of its id but for a FULL: `id`; its payload follows.
    VFIO_ITEM_END = 5,
    /// A section that stands alone: `id`, `name`, `instance`, `version`; its payload follows.
    VFIO_ITEM_FULL = 6,
    /// What the source tells the destination between two sections: `command`; `length` bytes of data follow.
    VFIO_ITEM_COMMAND = 7,
    /// The end byte: no section follows, at most a description.
    VFIO_ITEM_END_OF_STREAM = 8,
    /// The description, `length` bytes of JSON, follows.
    VFIO_ITEM_DESCRIPTION = 9,
}

/// What stands between payloads. What its kind does not name is 0 when decoded, and not looked at when encoded.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct vfio_item {
    /// Of enum vfio_item_kind.
    pub kind: u32,
    /// The number by which later sections and the footer refer to it.
    pub id: u32,
    /// The name (idstr), for a VFIO device `<device path>/vfio`; not terminated. Decoded, it lies in the bytes that
    /// were decoded.
    pub name: *const u8,
    /// Bytes of the name, at most VFIO_NAME_MAX.
    pub name_length: usize,
    /// Tells sections of one name apart; 0 where there is one.
    pub instance: u32,
    /// The version of the payload's layout, 1 for VFIO.
    pub version: u32,
    /// Which command it is, for instance VFIO_SWITCHOVER_START; at most 65535.
    pub command: u32,
    /// Bytes of what follows; for a command at most 65535.
    pub length: u32,
}

// SAFETY: repr(C), of integers and a raw pointer.
unsafe impl Plain for vfio_item {}

/// Writes the item to the front of the `room` bytes of `out`, and its length in bytes into `length`, which may be NULL.
///
/// VFIO_STATUS_NO_ROOM where `out` is too short, VFIO_ITEM_MAX bytes always suffice; then `length` is what was wanted.
/// VFIO_STATUS_UNKNOWN_VALUE for a kind that is none, a name longer than VFIO_NAME_MAX, and a number of a command that is
/// too large.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_item_encode(
    item: *const vfio_item,
    out: *mut u8,
    room: usize,
    length: *mut usize,
) -> vfio_status {
    let encoded = || {
        check(out)?;
        // SAFETY: by the contract of this function the caller has written `item`.
        let raw = unsafe { read(item) }?;
        let (name, name_length) = raw.name()?;
        // SAFETY: by the contract of this function the name is there.
        let item = raw.item(unsafe { bytes(name, name_length) }?)?;
        let mut whole = [0; section::ITEM_MAX];
        let size = item.encode(&mut whole).map_err(|error| vfio_status::from(&error))?;
        // SAFETY: by the contract of this function `length` is NULL or the caller's.
        unsafe { write(length, size) }?;
        let whole = whole.get(..size).ok_or(vfio_status::VFIO_STATUS_NO_ROOM)?;
        // SAFETY: by the contract of this function `out` has so much room.
        unsafe { put(out, room, whole) }
    };
    encoded().into()
}

/// Takes an item off the front of the `count` bytes, into `item`, and its length in bytes into `length`.
///
/// VFIO_STATUS_SHORT: come back with `length` bytes; read exactly those, none belongs to the next item.
/// VFIO_STATUS_DAMAGED where no known item begins here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_item_decode(
    bytes_: *const u8,
    count: usize,
    item: *mut vfio_item,
    length: *mut usize,
) -> vfio_status {
    let decoded = || {
        check(item)?;
        check(length)?;
        // SAFETY: by the contract of this function there are so many bytes.
        match Item::decode(unsafe { bytes(bytes_, count) }?) {
            Ok((found, taken)) => {
                // SAFETY: by the contract of this function `item` is the caller's.
                unsafe { write(item, found.into()) }?;
                // SAFETY: by the contract of this function `length` is the caller's.
                unsafe { write(length, taken) }
            }
            Err(error) => {
                if let Error::Short { wanted } = error {
                    // SAFETY: by the contract of this function `length` is the caller's.
                    unsafe { write(length, wanted) }?;
                }
                Err((&error).into())
            }
        }
    };
    decoded().into()
}

/// Writes the VFIO_PREAMBLE bytes that a stream begins with to `out`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_preamble_encode(out: *mut u8) -> vfio_status {
    // SAFETY: by the contract of this function there are so many bytes.
    unsafe { put(out, VFIO_PREAMBLE, &section::PREAMBLE) }.into()
}

/// Checks the first VFIO_PREAMBLE bytes of a stream: VFIO_STATUS_DAMAGED where it does not begin so.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_preamble_decode(bytes: *const u8) -> vfio_status {
    // SAFETY: by the contract of this function there are so many bytes.
    let bytes = unsafe { array(bytes) };
    bytes.and_then(|bytes| section::decode_preamble(bytes).map_err(|error| (&error).into())).into()
}

/// Writes the VFIO_FOOTER bytes behind the payload of section `id` to `out`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_footer_encode(id: u32, out: *mut u8) -> vfio_status {
    // SAFETY: by the contract of this function there are so many bytes.
    unsafe { put(out, VFIO_FOOTER, &section::footer(id)) }.into()
}

/// Checks the VFIO_FOOTER bytes behind the payload of section `id`: VFIO_STATUS_DAMAGED where they are not its footer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_footer_decode(id: u32, bytes: *const u8) -> vfio_status {
    // SAFETY: by the contract of this function there are so many bytes.
    let bytes = unsafe { array(bytes) };
    bytes.and_then(|bytes| section::decode_footer(id, bytes).map_err(|error| (&error).into())).into()
}

impl vfio_item {
    /// Where its name is and how long; NULL and 0 where its kind has none.
    fn name(&self) -> Result<(*const u8, usize), vfio_status> {
        use vfio_item_kind as of;
        match of::from_raw(self.kind)? {
            of::VFIO_ITEM_SUBSECTION | of::VFIO_ITEM_START | of::VFIO_ITEM_FULL => {
                let fits = self.name_length <= VFIO_NAME_MAX;
                let name = fits.then_some((self.name, self.name_length));
                name.ok_or(vfio_status::VFIO_STATUS_UNKNOWN_VALUE)
            }
            of::VFIO_ITEM_CONFIGURATION
            | of::VFIO_ITEM_PART
            | of::VFIO_ITEM_END
            | of::VFIO_ITEM_COMMAND
            | of::VFIO_ITEM_END_OF_STREAM
            | of::VFIO_ITEM_DESCRIPTION => Ok((core::ptr::null(), 0)),
        }
    }

    fn item<'a>(&self, name: &'a [u8]) -> Result<Item<'a>, vfio_status> {
        use vfio_item_kind as of;
        let Self { id, instance, version, length, .. } = *self;
        let begin = |kind| Item::Begin { kind, id, name, instance, version };
        Ok(match of::from_raw(self.kind)? {
            of::VFIO_ITEM_CONFIGURATION => Item::Configuration { name_length: length },
            of::VFIO_ITEM_SUBSECTION => Item::Subsection { name, version },
            of::VFIO_ITEM_START => begin(Begins::Start),
            of::VFIO_ITEM_PART => Item::Continue { kind: Continues::Part, id },
            of::VFIO_ITEM_END => Item::Continue { kind: Continues::End, id },
            of::VFIO_ITEM_FULL => begin(Begins::Full),
            of::VFIO_ITEM_COMMAND => Item::Command { command: half(self.command)?, length: half(length)? },
            of::VFIO_ITEM_END_OF_STREAM => Item::EndOfStream,
            of::VFIO_ITEM_DESCRIPTION => Item::Description { length },
        })
    }

    const fn new(kind: vfio_item_kind) -> Self {
        Self {
            kind: kind as u32,
            id: 0,
            name: core::ptr::null(),
            name_length: 0,
            instance: 0,
            version: 0,
            command: 0,
            length: 0,
        }
    }

    const fn named(self, name: &[u8]) -> Self {
        Self { name: name.as_ptr(), name_length: name.len(), ..self }
    }
}

impl From<Item<'_>> for vfio_item {
    fn from(item: Item<'_>) -> Self {
        use vfio_item_kind as of;
        match item {
            Item::Configuration { name_length: length } => {
                Self { length, ..Self::new(of::VFIO_ITEM_CONFIGURATION) }
            }
            Item::Subsection { name, version } => {
                Self { version, ..Self::new(of::VFIO_ITEM_SUBSECTION) }.named(name)
            }
            Item::Begin { kind, id, name, instance, version } => {
                let kind = match kind {
                    Begins::Start => of::VFIO_ITEM_START,
                    Begins::Full => of::VFIO_ITEM_FULL,
                };
                Self { id, instance, version, ..Self::new(kind) }.named(name)
            }
            Item::Continue { kind, id } => {
                let kind = match kind {
                    Continues::Part => of::VFIO_ITEM_PART,
                    Continues::End => of::VFIO_ITEM_END,
                };
                Self { id, ..Self::new(kind) }
            }
            Item::Command { command, length } => {
                Self { command: command.into(), length: length.into(), ..Self::new(of::VFIO_ITEM_COMMAND) }
            }
            Item::EndOfStream => Self::new(of::VFIO_ITEM_END_OF_STREAM),
            Item::Description { length } => Self { length, ..Self::new(of::VFIO_ITEM_DESCRIPTION) },
        }
    }
}

fn half(number: u32) -> Result<u16, vfio_status> {
    u16::try_from(number).map_err(|_| vfio_status::VFIO_STATUS_UNKNOWN_VALUE)
}

numbered!(vfio_item_kind {
    VFIO_ITEM_CONFIGURATION,
    VFIO_ITEM_SUBSECTION,
    VFIO_ITEM_START,
    VFIO_ITEM_PART,
    VFIO_ITEM_END,
    VFIO_ITEM_FULL,
    VFIO_ITEM_COMMAND,
    VFIO_ITEM_END_OF_STREAM,
    VFIO_ITEM_DESCRIPTION,
});

/// Bytes of what a stream begins with: "QEVM" and version 3.
pub const VFIO_PREAMBLE: usize = 8;
/// Bytes of what stands behind a section's payload.
pub const VFIO_FOOTER: usize = 5;
/// The longest name that a section can have, in bytes.
pub const VFIO_NAME_MAX: usize = 255;
/// The longest item, in bytes: the begin of a section with the longest name.
pub const VFIO_ITEM_MAX: usize = 269;
/// The command behind which the source has stopped: what is left of each device follows.
pub const VFIO_SWITCHOVER_START: u32 = 11;

// cbindgen takes numbers, not names of another crate.
const _: () = {
    assert!(VFIO_PREAMBLE == section::PREAMBLE.len());
    assert!(VFIO_FOOTER == section::FOOTER);
    assert!(VFIO_NAME_MAX == section::NAME_MAX);
    assert!(VFIO_ITEM_MAX == section::ITEM_MAX);
    assert!(VFIO_SWITCHOVER_START == section::SWITCHOVER_START as u32);
};
