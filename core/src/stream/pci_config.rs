//! The body of a PCI device's CONFIG record: its configuration space, the state of its interrupt pins, its MSI-X table.
//!
//! The body has no length and no names. How long it is follows from two numbers that a loader knows of its own device,
//! its [`Layout`]; an inspector who has no device [finds](find) it. Behind the body may stand the state of a display,
//! and only the word behind tells, so [`Body::decode`] wants the END_OF_STATE that ends the record too, and not a byte
//! more. Devices that are not PCI have an empty body.
//! Source: what QEMU's `hw/vfio/pci.c`, `hw/pci/pci.c`, `hw/pci/msix.c` and `hw/display/ramfb.c` write, 5.2 to 11.1; all
//! numbers are big-endian but for the insides of the space and of the table, which are PCI's, little-endian.
//!
//! Deliberately absent: what a loader does with it. Which registers are written to a device is for whoever emulates the
//! others.

use core::fmt;

use self::ramfb::{DISPLAY, Ramfb};
use self::space::Space;
use super::bytes::copy;
use super::record::{self, Tag, WORD};

pub mod bar;
pub mod capability;
pub mod find;
pub mod identity;
pub mod msi;
pub mod ramfb;
pub mod space;

/// How many bytes of configuration space a body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SpaceLength {
    /// 256 bytes.
    #[doc(alias = "PCI_CONFIG_SPACE_SIZE")]
    Conventional,
    /// 4096 bytes.
    #[doc(alias = "PCIE_CONFIG_SPACE_SIZE")]
    Extended,
}

impl SpaceLength {
    /// Both lengths, the shorter one first.
    pub const ALL: [Self; 2] = [Self::Conventional, Self::Extended];

    /// What a device gets whose VFIO config region has `length` bytes: 256 for exactly 256 bytes, 4096 for any other
    /// length. The bytes that a region of 255 has not are 0 in the body.
    #[must_use]
    pub const fn of_region(length: u64) -> Self {
        if length == 256 { Self::Conventional } else { Self::Extended }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Conventional => 256,
            Self::Extended => 4096,
        }
    }
}

/// What a body's length follows from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Layout {
    space: SpaceLength,
    msix_vectors: u16,
}

impl Layout {
    /// The layout of a device whose VFIO config region has `region_length` bytes, with `msix_vectors` entries in its
    /// MSI-X table, 0 without MSI-X.
    ///
    /// # Errors
    /// [`Error::Vectors`] for more than [`VECTORS_MAX`]: no device has them, and a smaller number would be another length.
    pub const fn new(region_length: u64, msix_vectors: u16) -> Result<Self, Error> {
        if msix_vectors > VECTORS_MAX {
            return Err(Error::Vectors { got: msix_vectors as usize });
        }
        Ok(Self { space: SpaceLength::of_region(region_length), msix_vectors })
    }

    /// The layout of a device whose VFIO config region, read whole, is `region`.
    #[must_use]
    pub fn of_device(region: &[u8]) -> Self {
        let space = if region.len() == 256 { SpaceLength::Conventional } else { SpaceLength::Extended };
        Self { space, msix_vectors: Space::new(region).msix().map_or(0, |msix| msix.vectors) }
    }

    /// How much configuration space there is.
    #[must_use]
    pub const fn space(self) -> SpaceLength {
        self.space
    }

    /// The entries of the MSI-X table, 0 without MSI-X.
    #[must_use]
    pub const fn msix_vectors(self) -> u16 {
        self.msix_vectors
    }

    /// The bytes of the body without a display's state: 276 at least, 37140 at most.
    #[must_use]
    pub const fn length(self) -> usize {
        VERSION_LENGTH
            .saturating_add(self.space.bytes())
            .saturating_add(INTERRUPTS_LENGTH)
            .saturating_add(self.table_length())
            .saturating_add(self.pending_length())
    }

    const fn table_length(self) -> usize {
        (self.msix_vectors as usize).saturating_mul(msi::ENTRY)
    }

    const fn pending_length(self) -> usize {
        self.msix_vectors.div_ceil(8) as usize
    }
}

/// The body of a CONFIG record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// The configuration space, 256 or 4096 bytes; [`space::Space`] reads it.
    pub space: &'a [u8],
    /// Whether the device holds INTA to INTD.
    pub interrupts: [bool; 4],
    /// The MSI-X table, [`msi::ENTRY`] bytes for each vector; empty without MSI-X.
    pub msix_table: &'a [u8],
    /// The pending bits, the first vector in the lowest bit of the first byte; a bit for each vector, whole bytes.
    pub pending: &'a [u8],
    /// The framebuffer of a device with a display, where its owner moves it along.
    pub display: Option<Ramfb>,
}

/// Why bytes are not a body, or parts do not make one. `offset` counts from the body's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Error {
    /// Body and END_OF_STATE are not whole: at least `wanted` bytes of them are needed.
    Short {
        /// Bytes from the body's first on.
        wanted: usize,
    },
    /// The body begins with a version other than [`VERSION`].
    Version {
        /// The number in its place.
        got: u32,
    },
    /// The state of an interrupt pin is neither 0 nor 1.
    Interrupt {
        /// Where it stands.
        offset: usize,
        /// The number in its place.
        got: u32,
    },
    /// Behind the body stands neither END_OF_STATE nor a display's state.
    Unterminated {
        /// Where the eight bytes begin.
        offset: usize,
        /// Their value.
        got: u64,
    },
    /// A display's state has another name or version.
    Display {
        /// Where the first byte stands that is not as wanted.
        offset: usize,
        /// The byte.
        got: u8,
    },
    /// There are more vectors than an MSI-X table can have.
    Vectors {
        /// Their number.
        got: usize,
    },
    /// The configuration space has neither 256 nor 4096 bytes.
    Space {
        /// Bytes that it has.
        got: usize,
    },
    /// The bytes of the MSI-X table are no whole number of entries.
    Table {
        /// Bytes that it has.
        got: usize,
    },
    /// There are not as many bytes of pending bits as the table's entries want.
    Pending {
        /// Bytes that they want.
        wanted: usize,
        /// Bytes that there are.
        got: usize,
    },
    /// The buffer can't hold the body.
    NoRoom {
        /// Bytes that the body has.
        wanted: usize,
        /// Bytes that there are.
        got: usize,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Short { wanted } => write!(f, "wanted {wanted} bytes of a configuration, got fewer"),
            Self::Version { got } => write!(f, "wanted a configuration of version {VERSION}, got {got}"),
            Self::Interrupt { offset, got } => {
                write!(
                    f,
                    "wanted the state of an interrupt, 0 or 1, at byte {offset} of the configuration, got {got}"
                )
            }
            Self::Unterminated { offset, got } => write!(
                f,
                "wanted END_OF_STATE or a display at byte {offset} of the configuration, got {got:#018x}"
            ),
            Self::Display { offset, got } => {
                write!(
                    f,
                    "wanted a display of version 1, got {got:#04x} at byte {offset} of the configuration"
                )
            }
            Self::Vectors { got } => write!(f, "wanted at most {VECTORS_MAX} vectors, got {got}"),
            Self::Space { got } => write!(f, "wanted 256 or 4096 bytes of configuration space, got {got}"),
            Self::Table { got } => {
                write!(f, "wanted an MSI-X table of {} bytes for each vector, got {got} bytes", msi::ENTRY)
            }
            Self::Pending { wanted, got } => write!(f, "wanted {wanted} bytes of pending bits, got {got}"),
            Self::NoRoom { wanted, got } => write!(f, "wanted room for {wanted} bytes, got {got}"),
        }
    }
}

impl core::error::Error for Error {}

impl<'a> Body<'a> {
    /// The layout that the parts have.
    ///
    /// # Errors
    /// [`Error::Space`], [`Error::Table`], [`Error::Vectors`] and [`Error::Pending`] when they have none.
    pub fn layout(&self) -> Result<Layout, Error> {
        let got = self.space.len();
        let space = SpaceLength::ALL
            .iter()
            .copied()
            .find(|space| space.bytes() == got)
            .ok_or(Error::Space { got })?;
        let got = self.msix_table.len();
        if !got.is_multiple_of(msi::ENTRY) {
            return Err(Error::Table { got });
        }
        let got = got / msi::ENTRY;
        let vectors = u16::try_from(got).ok().filter(|vectors| *vectors <= VECTORS_MAX);
        let layout = Layout { space, msix_vectors: vectors.ok_or(Error::Vectors { got })? };
        let (wanted, got) = (layout.pending_length(), self.pending.len());
        if wanted == got { Ok(layout) } else { Err(Error::Pending { wanted, got }) }
    }

    /// The bytes of the body, with a display's state where it has one.
    ///
    /// # Errors
    /// Those of [`Body::layout`].
    pub fn length(&self) -> Result<usize, Error> {
        let display = if self.display.is_some() { DISPLAY } else { 0 };
        Ok(self.layout()?.length().saturating_add(display))
    }

    /// Writes the body to the front of `out` and returns its length; tag and END_OF_STATE are not part of it. That the
    /// MSI-X capability in the space has as many vectors as there are entries is the caller's to see to: a loader in
    /// QEMU reads as many as its own device has.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when `out` is too short ([`BODY_MAX`] always suffices), and those of [`Body::layout`]. `out` is
    /// as it was.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, Error> {
        let wanted = self.length()?;
        let no_room = Error::NoRoom { wanted, got: out.len() };
        let mut rest = out.get_mut(..wanted).ok_or(no_room)?;
        let written = put(&mut rest, &VERSION.to_be_bytes())
            .and_then(|()| put(&mut rest, self.space))
            .and_then(|()| {
                self.interrupts
                    .into_iter()
                    .try_for_each(|held| put(&mut rest, &u32::from(held).to_be_bytes()))
            })
            .and_then(|()| put(&mut rest, self.msix_table))
            .and_then(|()| put(&mut rest, self.pending))
            .and_then(|()| self.display.map_or(Some(()), |ramfb| ramfb.put(&mut rest)));
        written.map(|()| wanted).ok_or(no_room)
    }

    /// Takes a body off the front of `bytes` that end with the END_OF_STATE behind it; returns it and its length, at
    /// which END_OF_STATE stands. The caller gives the length to [`record::Decoder::config`], then those eight bytes to
    /// [`record::Decoder::word`].
    ///
    /// # Errors
    /// [`Error::Short`] says how many bytes to come back with: first those of the version, so that an empty body is refused
    /// within its record, then those of a body of this layout. Read exactly those, none is behind a record that has one.
    /// Another error when no body of this layout begins here.
    pub fn decode(layout: Layout, bytes: &'a [u8]) -> Result<(Self, usize), Error> {
        let version = bytes.first_chunk::<VERSION_LENGTH>().ok_or(Error::Short { wanted: VERSION_LENGTH })?;
        let got = u32::from_be_bytes(*version);
        if got != VERSION {
            return Err(Error::Version { got });
        }
        let length = layout.length();
        let short = Error::Short { wanted: length.saturating_add(WORD) };
        let (mut rest, behind) = bytes.split_at_checked(length).ok_or(short)?;
        let _version = rest.split_off(..VERSION_LENGTH).ok_or(short)?;
        let space = rest.split_off(..layout.space.bytes()).ok_or(short)?;
        let interrupts = rest.split_off(..INTERRUPTS_LENGTH).ok_or(short)?;
        let interrupts = interrupts_from(interrupts, VERSION_LENGTH.saturating_add(space.len()))?;
        let msix_table = rest.split_off(..layout.table_length()).ok_or(short)?;
        let display = Ramfb::behind(behind, length)?;
        let body = Self { space, interrupts, msix_table, pending: rest, display };
        Ok((body, display.map_or(length, |_| length.saturating_add(DISPLAY))))
    }

    /// The vectors of the MSI-X table with their pending bits, in order.
    #[must_use]
    pub const fn vectors(&self) -> msi::Vectors<'a> {
        msi::Vectors::new(self.msix_table, self.pending)
    }
}

/// The states of the pins, from their four numbers that begin at `offset`.
fn interrupts_from(bytes: &[u8], offset: usize) -> Result<[bool; 4], Error> {
    let mut held = [false; 4];
    for (at, (held, number)) in held.iter_mut().zip(bytes.as_chunks().0).enumerate() {
        *held = match u32::from_be_bytes(*number) {
            0 => false,
            1 => true,
            got => return Err(Error::Interrupt { offset: offset.saturating_add(at.saturating_mul(4)), got }),
        };
    }
    Ok(held)
}

fn end_of_state(word: &[u8; WORD], offset: usize) -> Result<(), Error> {
    if *word == record::encode(Tag::EndOfState) {
        return Ok(());
    }
    Err(Error::Unterminated { offset, got: u64::from_be_bytes(*word) })
}

/// Writes to the front of a buffer and leaves the rest; nothing where there is no room.
fn put(out: &mut &mut [u8], bytes: &[u8]) -> Option<()> {
    copy(out.split_off_mut(..bytes.len())?, bytes);
    Some(())
}

/// The version of the body's layout. QEMU's loader takes 0 and 1 as well and reads the same bytes; no QEMU that
/// migrates VFIO devices has ever written them, so here they are damage.
pub const VERSION: u32 = 2;

/// The most entries that an MSI-X table has.
pub const VECTORS_MAX: u16 = 2048;

/// The longest body, in bytes: 4096 of configuration space, [`VECTORS_MAX`] vectors, a display's state.
pub const BODY_MAX: usize =
    Layout { space: SpaceLength::Extended, msix_vectors: VECTORS_MAX }.length().saturating_add(DISPLAY);

const VERSION_LENGTH: usize = 4;
const INTERRUPTS_LENGTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_region_of_256_bytes_has_256_bytes() {
        for length in [0, 1, 64, 255, 257, 4095, 4096, u64::MAX] {
            assert_eq!(SpaceLength::of_region(length), SpaceLength::Extended, "{length}");
        }
        assert_eq!(SpaceLength::of_region(256), SpaceLength::Conventional);
    }

    #[test]
    fn lengths_are_those_of_the_parts() {
        let table = [
            (256, 0, 4 + 256 + 16),
            (256, 1, 4 + 256 + 16 + 16 + 1),
            (255, 0, 4 + 4096 + 16),
            (4096, 8, 4 + 4096 + 16 + 128 + 1),
            (4096, 9, 4 + 4096 + 16 + 144 + 2),
            (4096, 2048, 4 + 4096 + 16 + 32768 + 256),
        ];
        for (region, vectors, length) in table {
            assert_eq!(Layout::new(region, vectors).unwrap().length(), length, "{region}, {vectors}");
        }
        assert_eq!(Layout::new(4096, 2049), Err(Error::Vectors { got: 2049 }));
        assert_eq!(BODY_MAX, 37140 + 59);
    }

    #[test]
    fn a_body_is_its_bytes() {
        let mut space = [0; 256];
        space[0] = 0x34;
        let body = Body {
            space: &space,
            interrupts: [false, true, false, true],
            msix_table: &[0x11; 16],
            pending: &[1],
            display: Some(Ramfb {
                address: 0x8000,
                fourcc: 0x3432_5258,
                flags: 0,
                width: 640,
                height: 480,
                stride: 2560,
            }),
        };
        let mut out = [0xa5; 400];
        assert_eq!(body.encode(&mut out), Ok(352));
        assert_eq!(out[..6], [0, 0, 0, 2, 0x34, 0]);
        assert_eq!(out[260..276], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(
            out[276..293],
            [
                0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11,
                0x11, 1
            ]
        );
        assert_eq!(&out[293..324], b"\x05\x19VFIOPCIDevice/VFIODisplay\0\0\0\x01");
        assert_eq!(&out[324..352], b"\0\0\0\0\0\0\x80\x0042RX\0\0\0\0\0\0\x02\x80\0\0\x01\xe0\0\0\x0a\0");
        assert!(out[352..].iter().all(|&byte| byte == 0xa5), "wrote past its end");
        out[352..360].copy_from_slice(&record::encode(Tag::EndOfState));
        let layout = Layout::new(256, 1).unwrap();
        assert_eq!(Body::decode(layout, &out[..360]), Ok((body, 352)));
    }
}
