//! What of a saved configuration space must be the device's own.
//!
//! QEMU's loader compares each bit that it emulates as constant: those set in its `cmask` and neither in `wmask` nor in
//! `w1cmask`, which are vendor, device, revision, class, header type, the presence and begin of the list of capabilities,
//! and the bits of each capability that it emulates and the guest can't write. It refuses a space in which one of them
//! differs (EINVAL). The masks are made of QEMU's tables of registers, so without those a loader can check less:
//! [`differs`] compares the identity and, in place of the capabilities' insides, their ids and offsets. It also compares
//! the subsystem, which QEMU does not: a guest's driver may be chosen by it. Of a capability's inside it compares the size
//! of the MSI-X table alone, which the layout follows from. The registers come first, the table's size next and the lists
//! last: a loader that lets another list pass has then seen all that it must not.
//!
//! Deliberately absent: everything that a guest may have written, such as BARs and the command register.

use core::fmt;

use super::capability::{Broken, Capabilities, Capability, MSIX};
use super::space::Space;

/// A register that tells what a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Register {
    /// Who made it.
    Vendor,
    /// What it is to its maker.
    Device,
    /// Which revision it is.
    Revision,
    /// What it is to everybody, 24 bits.
    Class,
    /// Which registers it has, without the bit that says whether its slot has other functions.
    HeaderType,
    /// Who made its card.
    SubsystemVendor,
    /// What its card is.
    Subsystem,
}

/// The first thing in a saved space that is not the device's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Difference {
    /// A register has another value.
    Register {
        /// Which.
        register: Register,
        /// The device's own value.
        wanted: u32,
        /// The saved value.
        got: u32,
    },
    /// The MSI-X table has another size.
    Vectors {
        /// Where the register stands that tells.
        offset: u16,
        /// The device's own entries.
        wanted: u16,
        /// The saved entries.
        got: u16,
    },
    /// A list of capabilities has another one, or ends or breaks elsewhere.
    Capability {
        /// The device's own, or nothing at its list's end.
        wanted: Option<Result<Capability, Broken>>,
        /// The saved one, or nothing at its list's end.
        got: Option<Result<Capability, Broken>>,
    },
}

impl Register {
    /// Every register, in the order of their comparison.
    pub const ALL: [Self; 7] = [
        Self::Vendor,
        Self::Device,
        Self::Revision,
        Self::Class,
        Self::HeaderType,
        Self::SubsystemVendor,
        Self::Subsystem,
    ];

    /// What it is called in a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vendor => "vendor",
            Self::Device => "device",
            Self::Revision => "revision",
            Self::Class => "class",
            Self::HeaderType => "header type",
            Self::SubsystemVendor => "subsystem vendor",
            Self::Subsystem => "subsystem",
        }
    }

    /// Where it is, in bytes from the space's begin.
    #[must_use]
    pub const fn offset(self) -> u16 {
        match self {
            Self::Vendor => 0x00,
            Self::Device => 0x02,
            Self::Revision => 0x08,
            Self::Class => 0x09,
            Self::HeaderType => 0x0e,
            Self::SubsystemVendor => 0x2c,
            Self::Subsystem => 0x2e,
        }
    }

    fn read(self, space: Space<'_>) -> u32 {
        let offset = self.offset();
        match self {
            Self::Revision => u32::from(space.u8(offset)),
            // Whether its slot has other functions is the slot's to say.
            Self::HeaderType => u32::from(space.u8(offset) & 0x7f),
            Self::Class => space.u32(0x08) >> 8,
            Self::Vendor | Self::Device | Self::SubsystemVendor | Self::Subsystem => {
                u32::from(space.u16(offset))
            }
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Difference {
    /// Where it is in the saved space, or in the device's own where the saved one has nothing in its place; in bytes from
    /// the space's begin.
    #[must_use]
    pub fn offset(&self) -> u16 {
        match *self {
            Self::Register { register, .. } => register.offset(),
            Self::Capability { wanted, got } => match got.or(wanted) {
                Some(Ok(capability)) => capability.offset,
                Some(Err(Broken::Outside { pointer, .. } | Broken::Loop { pointer, .. })) => pointer,
                None => 0,
            },
            Self::Vectors { offset, .. } => offset,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Register { register, wanted, got } => {
                write!(f, "wanted the {register} {wanted:#x}, got {got:#x}")
            }
            Self::Capability { wanted, got } => {
                write!(f, "wanted ")?;
                listed(f, wanted)?;
                write!(f, " in the list of capabilities, got ")?;
                listed(f, got)
            }
            Self::Vectors { wanted, got, .. } => {
                write!(f, "wanted an MSI-X table of {wanted} vectors, got {got}")
            }
        }
    }
}

impl core::error::Error for Difference {}

/// The first thing in a saved space that must be the device's own and is not, of registers, size of the MSI-X table and
/// lists of capabilities in this order: see the [module](self).
#[must_use]
pub fn differs(saved: Space<'_>, own: Space<'_>) -> Option<Difference> {
    let registers = Register::ALL.iter().copied().find_map(|register| {
        let (wanted, got) = (register.read(own), register.read(saved));
        (wanted != got).then_some(Difference::Register { register, wanted, got })
    });
    registers
        .or_else(|| vectors_differ(saved, own))
        .or_else(|| lists_differ(saved, own, Space::capabilities))
        .or_else(|| lists_differ(saved, own, Space::extended_capabilities))
}

// On its own, so that the walks along one list leave the stack before those along the other come: each has a map of where
// it has been.
#[inline(never)]
fn lists_differ<'a>(
    saved: Space<'a>,
    own: Space<'a>,
    list: impl Fn(Space<'a>) -> Capabilities<'a>,
) -> Option<Difference> {
    let (mut saved, mut own) = (list(saved), list(own));
    loop {
        let (wanted, got) = (own.next(), saved.next());
        if wanted != got {
            return Some(Difference::Capability { wanted, got });
        }
        let _same = wanted?;
    }
}

fn vectors_differ(saved: Space<'_>, own: Space<'_>) -> Option<Difference> {
    let (wanted, got) = (own.msix()?.vectors, saved.msix()?.vectors);
    let offset = saved.find(MSIX)?.saturating_add(2);
    (wanted != got).then_some(Difference::Vectors { offset, wanted, got })
}

fn listed(f: &mut fmt::Formatter<'_>, item: Option<Result<Capability, Broken>>) -> fmt::Result {
    match item {
        Some(Ok(capability)) => write!(f, "{capability}"),
        Some(Err(Broken::Outside { pointer, got } | Broken::Loop { pointer, got })) => {
            write!(f, "a pointer at {pointer:#x} to {got:#x}")
        }
        None => write!(f, "nothing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> [u8; 0x48] {
        let mut bytes = [0; 0x48];
        bytes[..0x10].copy_from_slice(&[
            0xf4, 0x1a, 0x41, 0x10, 0x07, 0x04, 0x10, 0x00, 0x01, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00,
        ]);
        bytes[0x2c..0x30].copy_from_slice(&[0xf4, 0x1a, 0x01, 0x00]);
        bytes[0x34] = 0x40;
        bytes[0x40..].copy_from_slice(&[0x09, 0x44, 0, 0, 0x05, 0x00, 0, 0]);
        bytes
    }

    #[test]
    fn what_a_guest_may_write_is_no_difference() {
        let own = own();
        let mut saved = own;
        for at in [0x04, 0x05, 0x07, 0x10, 0x13, 0x3c, 0x42, 0x46] {
            saved[at] ^= 0xff;
        }
        assert_eq!(differs(Space::new(&saved), Space::new(&own)), None);
    }

    #[test]
    fn each_register_that_differs_is_named_with_both_values() {
        let table = [
            (0x00, Register::Vendor, 0x1af4, 0x1a0b),
            (0x03, Register::Device, 0x1041, 0xef41),
            (0x08, Register::Revision, 0x01, 0xfe),
            (0x0b, Register::Class, 0x02_0000, 0xfd_0000),
            (0x09, Register::Class, 0x02_0000, 0x02_00ff),
            (0x0e, Register::HeaderType, 0x00, 0x7f),
            (0x2c, Register::SubsystemVendor, 0x1af4, 0x1a0b),
            (0x2f, Register::Subsystem, 0x0001, 0xff01),
        ];
        let own = own();
        for (at, register, wanted, got) in table {
            let mut saved = own;
            saved[at] ^= 0xff;
            let difference = Difference::Register { register, wanted, got };
            assert_eq!(differs(Space::new(&saved), Space::new(&own)), Some(difference), "{at:#x}");
            assert_eq!(difference.offset(), register.offset());
        }
    }

    #[test]
    fn a_list_that_goes_another_way_is_a_difference_where_it_does() {
        let own = own();
        let differs_with = |at: usize, byte| {
            let mut saved = own;
            saved[at] = byte;
            differs(Space::new(&saved), Space::new(&own)).map(|difference| difference.offset())
        };
        assert_eq!(differs_with(0x44, 0x11), Some(0x44), "another id");
        assert_eq!(differs_with(0x41, 0x00), Some(0x44), "one less: the device's own is missing");
        assert_eq!(differs_with(0x45, 0x40), Some(0x45), "a loop");
        assert_eq!(differs_with(0x34, 0x44), Some(0x44), "another begin");
        assert_eq!(differs_with(0x06, 0x00), Some(0x40), "no list");
    }

    #[test]
    fn another_extended_capability_is_a_difference_and_its_inside_is_none() {
        let mut own = [0; 0x110];
        own[..0x48].copy_from_slice(&self::own());
        own[0x100..0x104].copy_from_slice(&[0x03, 0x00, 0x01, 0x00]);
        let mut saved = own;
        saved[0x104] = 0xff;
        assert_eq!(differs(Space::new(&saved), Space::new(&own)), None);
        saved[0x102] = 0x02;
        let difference = differs(Space::new(&saved), Space::new(&own)).unwrap();
        assert_eq!(difference.offset(), 0x100, "another version");
        let missing = differs(Space::new(&own[..256]), Space::new(&own)).unwrap();
        assert!(matches!(missing, Difference::Capability { wanted: Some(Ok(_)), got: None }), "no list");
    }

    #[test]
    fn another_size_of_the_table_is_a_difference_and_its_flags_are_none() {
        let mut own = [0; 0x50];
        own[..0x48].copy_from_slice(&self::own());
        own[0x44..].copy_from_slice(&[0x11, 0, 0x07, 0x00, 0x01, 0, 0, 0, 0x01, 0x08, 0, 0]);
        let mut saved = own;
        saved[0x47] = 0xc0;
        assert_eq!(differs(Space::new(&saved), Space::new(&own)), None);
        saved[0x46] = 0x08;
        let difference = Difference::Vectors { offset: 0x46, wanted: 8, got: 9 };
        assert_eq!(differs(Space::new(&saved), Space::new(&own)), Some(difference));
        assert_eq!(difference.offset(), 0x46);
    }

    #[test]
    fn another_size_of_the_table_is_told_before_a_list_that_goes_another_way() {
        let mut own = [0; 0x50];
        own[..0x48].copy_from_slice(&self::own());
        own[0x44..].copy_from_slice(&[0x11, 0, 0x07, 0x00, 0x01, 0, 0, 0, 0x01, 0x08, 0, 0]);
        let mut saved = own;
        (saved[0x40], saved[0x46]) = (0x12, 0x08);
        let vectors = Difference::Vectors { offset: 0x46, wanted: 8, got: 9 };
        assert_eq!(differs(Space::new(&saved), Space::new(&own)), Some(vectors));
        saved[0x00] ^= 0xff;
        let difference = differs(Space::new(&saved), Space::new(&own));
        assert!(matches!(difference, Some(Difference::Register { register: Register::Vendor, .. })));
        (saved[0x00], saved[0x46]) = (own[0x00], own[0x46]);
        let difference = differs(Space::new(&saved), Space::new(&own));
        assert!(matches!(difference, Some(Difference::Capability { .. })), "the list alone");
    }
}
