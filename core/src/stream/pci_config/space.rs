//! PCI configuration space, decoded for people: what the device is, what it may do, and the way to all else.
//!
//! Any bytes can be read so; those that are not there are 0, as QEMU has them. Bytes of a header that is not a device's
//! are read where a device has them, but for the subsystem, which such a header has not.
//! Source: the PCI Local Bus Specification 3.0, 6.1 to 6.2.4; the names are those of the kernel's `pci_regs.h`.
//!
//! Deliberately absent: names of vendors and devices. Lists of them are long, and out of date.

use core::fmt;

use super::bar::Bars;
use super::capability::{Broken, Capabilities, Capability, Id, MSI, MSIX};
use super::msi::{Msi, Msix};

/// A configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space<'a> {
    bytes: &'a [u8],
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Class {
    /// The base class, 0x02 for a network controller.
    pub base: u8,
    /// The class within it.
    pub sub: u8,
    /// The programming interface.
    pub interface: u8,
}

/// Which registers a header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum HeaderType {
    /// A device's.
    #[doc(alias = "PCI_HEADER_TYPE_NORMAL")]
    Normal,
    /// A bridge's to another PCI bus.
    #[doc(alias = "PCI_HEADER_TYPE_BRIDGE")]
    Bridge,
    /// A bridge's to a CardBus.
    #[doc(alias = "PCI_HEADER_TYPE_CARDBUS")]
    CardBus,
}

/// The card that a device is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Subsystem {
    /// Who made it.
    pub vendor: u16,
    /// What it is.
    pub device: u16,
}

/// The command register: what the device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Command(pub u16);

/// The status register: what the device has and what has happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Status(pub u16);

impl<'a> Space<'a> {
    /// The space that these bytes are; what is behind the first 4096 is left out.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.get(..4096).unwrap_or(bytes) }
    }

    /// The bytes that there are.
    #[must_use]
    pub const fn length(self) -> usize {
        self.bytes.len()
    }

    /// Who made the device.
    #[must_use]
    pub fn vendor(self) -> u16 {
        self.u16(0x00)
    }

    /// What it is to its maker.
    #[must_use]
    pub fn device(self) -> u16 {
        self.u16(0x02)
    }

    /// What it may do.
    #[must_use]
    pub fn command(self) -> Command {
        Command(self.u16(0x04))
    }

    /// What it has and what has happened to it.
    #[must_use]
    pub fn status(self) -> Status {
        Status(self.u16(0x06))
    }

    /// Which revision of the device it is.
    #[must_use]
    pub fn revision(self) -> u8 {
        self.u8(0x08)
    }

    /// What it is to everybody.
    #[must_use]
    pub fn class(self) -> Class {
        Class { base: self.u8(0x0b), sub: self.u8(0x0a), interface: self.u8(0x09) }
    }

    /// Which registers follow, or nothing where that is not known.
    #[must_use]
    pub fn header_type(self) -> Option<HeaderType> {
        match self.u8(0x0e) & 0x7f {
            0 => Some(HeaderType::Normal),
            1 => Some(HeaderType::Bridge),
            2 => Some(HeaderType::CardBus),
            _ => None,
        }
    }

    /// Whether its slot may hold other functions.
    #[must_use]
    pub fn is_multifunction(self) -> bool {
        self.u8(0x0e) & 0x80 != 0
    }

    /// The card that it is on, where its header has that.
    #[must_use]
    pub fn subsystem(self) -> Option<Subsystem> {
        let normal = self.header_type() == Some(HeaderType::Normal);
        normal.then(|| Subsystem { vendor: self.u16(0x2c), device: self.u16(0x2e) })
    }

    /// The pin that it holds to interrupt, 1 for INTA to 4 for INTD, 0 for none.
    #[must_use]
    pub fn interrupt_pin(self) -> u8 {
        self.u8(0x3d)
    }

    /// The BARs that are in use. A register of 0 is not: nobody can tell it from one that does not exist.
    #[must_use]
    pub fn bars(self) -> Bars<'a> {
        Bars::new(self)
    }

    /// The list of capabilities in the first 256 bytes.
    #[must_use]
    pub fn capabilities(self) -> Capabilities<'a> {
        Capabilities::conventional(self)
    }

    /// The list of capabilities behind them.
    #[must_use]
    pub fn extended_capabilities(self) -> Capabilities<'a> {
        Capabilities::extended(self)
    }

    /// The first MSI capability in its list.
    #[must_use]
    pub fn msi(self) -> Option<Msi> {
        self.find(MSI).map(|offset| Msi::at(self, offset))
    }

    /// The first MSI-X capability in its list.
    #[must_use]
    pub fn msix(self) -> Option<Msix> {
        self.find(MSIX).map(|offset| Msix::at(self, offset))
    }

    /// Where the first capability of this kind is.
    pub(super) fn find(self, id: Id) -> Option<u16> {
        let here =
            |capability: Result<Capability, Broken>| capability.ok().filter(|capability| capability.id == id);
        self.capabilities().find_map(here).map(|capability| capability.offset)
    }

    pub(super) fn u8(self, offset: u16) -> u8 {
        self.bytes.get(usize::from(offset)).copied().unwrap_or_default()
    }

    pub(super) fn u16(self, offset: u16) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset.saturating_add(1))])
    }

    pub(super) fn u32(self, offset: u16) -> u32 {
        let behind = self.bytes.get(usize::from(offset)..).unwrap_or_default();
        match behind.first_chunk::<4>() {
            Some(bytes) => u32::from_le_bytes(*bytes),
            None => u32::from(self.u16(offset)) | u32::from(self.u16(offset.saturating_add(2))) << 16,
        }
    }
}

impl Class {
    /// What the base class is, or nothing where it has no meaning.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        CLASSES.get(usize::from(self.base)).copied()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().unwrap_or("unknown class");
        write!(f, "{name} {:02x}{:02x}{:02x}", self.base, self.sub, self.interface)
    }
}

impl HeaderType {
    /// The name in the kernel's header without its prefix.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::Bridge => "BRIDGE",
            Self::CardBus => "CARDBUS",
        }
    }
}

impl fmt::Display for HeaderType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Display for Subsystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

impl Command {
    /// The names of the bits that are set, the lowest first.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        names(self.0, COMMAND)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.names())
    }
}

impl Status {
    /// Whether the device has a list of capabilities.
    #[must_use]
    pub const fn has_capabilities(self) -> bool {
        self.0 & 0x10 != 0
    }

    /// The names of the bits that are set, the lowest first; the two bits of DEVSEL timing have one name together.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let devsel = match self.0 >> 9 & 3 {
            1 => Some("DEVSEL_MEDIUM"),
            2 => Some("DEVSEL_SLOW"),
            _ => None,
        };
        names(self.0 & 0x01ff, STATUS).chain(devsel).chain(names(self.0 & 0xf800, STATUS))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(f, self.names())
    }
}

/// The names of the bits in `register`.
fn names(register: u16, table: &'static [(u16, &'static str)]) -> impl Iterator<Item = &'static str> {
    table.iter().filter(move |(bit, _)| register & bit != 0).map(|(_, name)| *name)
}

/// Writes names with spaces between them, or that there is none.
fn list(f: &mut fmt::Formatter<'_>, mut names: impl Iterator<Item = &'static str>) -> fmt::Result {
    f.write_str(names.next().unwrap_or("none"))?;
    names.try_for_each(|name| write!(f, " {name}"))
}

const COMMAND: &[(u16, &str)] = &[
    (0x0001, "IO"),
    (0x0002, "MEMORY"),
    (0x0004, "MASTER"),
    (0x0008, "SPECIAL"),
    (0x0010, "INVALIDATE"),
    (0x0020, "VGA_PALETTE"),
    (0x0040, "PARITY"),
    (0x0080, "WAIT"),
    (0x0100, "SERR"),
    (0x0200, "FAST_BACK"),
    (0x0400, "INTX_DISABLE"),
];

const STATUS: &[(u16, &str)] = &[
    (0x0001, "IMM_READY"),
    (0x0008, "INTERRUPT"),
    (0x0010, "CAP_LIST"),
    (0x0020, "66MHZ"),
    (0x0040, "UDF"),
    (0x0080, "FAST_BACK"),
    (0x0100, "PARITY"),
    (0x0800, "SIG_TARGET_ABORT"),
    (0x1000, "REC_TARGET_ABORT"),
    (0x2000, "REC_MASTER_ABORT"),
    (0x4000, "SIG_SYSTEM_ERROR"),
    (0x8000, "DETECTED_PARITY"),
];

const CLASSES: &[&str] = &[
    "unclassified device",
    "mass storage controller",
    "network controller",
    "display controller",
    "multimedia controller",
    "memory controller",
    "bridge",
    "communication controller",
    "system peripheral",
    "input device",
    "docking station",
    "processor",
    "serial bus controller",
    "wireless controller",
    "intelligent controller",
    "satellite communication controller",
    "encryption controller",
    "signal processing controller",
    "processing accelerator",
    "non-essential instrumentation",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a virtio network device, as a PC's firmware leaves it.
    const HEADER: [u8; 0x40] = [
        0xf4, 0x1a, 0x41, 0x10, 0x07, 0x05, 0x10, 0x00, 0x01, 0x00, 0x00, 0x02, 0x00, 0x00, 0x80,
        0x00, // 00
        0x01, 0xc0, 0x00, 0x00, 0x00, 0x10, 0xa0, 0xfe, 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00,
        0xf0, // 10
        0x0c, 0x40, 0x00, 0x00, 0x80, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf4, 0x1a, 0x00,
        0x11, // 20
        0x00, 0x00, 0x00, 0x00, 0x98, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0b, 0x01, 0x00,
        0x00, // 30
    ];

    #[test]
    fn a_header_is_read_register_by_register() {
        let space = Space::new(&HEADER);
        assert_eq!((space.vendor(), space.device(), space.revision()), (0x1af4, 0x1041, 1));
        assert_eq!((space.command(), space.status()), (Command(0x0507), Status(0x0010)));
        assert_eq!(space.class(), Class { base: 2, sub: 0, interface: 0 });
        assert_eq!((space.header_type(), space.is_multifunction()), (Some(HeaderType::Normal), true));
        assert_eq!(space.subsystem(), Some(Subsystem { vendor: 0x1af4, device: 0x1100 }));
        assert_eq!(space.interrupt_pin(), 1);
    }

    #[test]
    fn bridges_and_unknown_headers_have_no_subsystem_and_fewer_bars() {
        for (raw, header_type, bars) in
            [(0x01, Some(HeaderType::Bridge), 2), (0x82, Some(HeaderType::CardBus), 0), (0x03, None, 0)]
        {
            let mut header = HEADER;
            header[0x0e] = raw;
            let space = Space::new(&header);
            assert_eq!((space.header_type(), space.bars().count()), (header_type, bars));
            assert_eq!(space.subsystem(), None);
        }
    }

    #[test]
    fn bytes_that_are_not_there_are_zero() {
        let whole = Space::new(&HEADER);
        for length in 0..HEADER.len() {
            let mut padded = HEADER;
            padded[length..].fill(0);
            let (cut, padded) = (Space::new(&HEADER[..length]), Space::new(&padded));
            for offset in 0..0x42 {
                assert_eq!(cut.u32(offset), padded.u32(offset), "{offset} of {length}");
                assert_eq!(cut.u16(offset), padded.u16(offset), "{offset} of {length}");
                assert_eq!(cut.u8(offset), padded.u8(offset), "{offset} of {length}");
            }
        }
        assert_eq!((whole.u32(u16::MAX), whole.u16(u16::MAX), whole.length()), (0, 0, 64));
        assert_eq!(Space::new(&[1; 5000]).length(), 4096);
    }
}
