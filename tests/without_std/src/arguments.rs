//! The command line.
//!
//! Deliberately absent: a way to leave the driver's name out. Who wrote a stream is checked against it.

use core::ffi::CStr;
use core::fmt::Write as _;

use vfio_migration_core::stream::section::NAME_MAX;

use crate::say::{Exit, refuse};

/// What is to be done with which device.
pub(crate) struct Arguments<'a> {
    pub(crate) order: Order,
    /// Whether it moves what it can while the device works.
    pub(crate) pre_copy: bool,
    /// The file of the device, or of its group.
    pub(crate) path: &'a str,
    /// The name of its kernel driver.
    pub(crate) driver: &'a str,
    /// Its bus address or UUID.
    pub(crate) address: &'a CStr,
    idstr: Name,
}

/// What is to be done.
pub(crate) enum Order {
    Save,
    Load,
}

/// The name of a device's sections.
type Name = heapless::String<NAME_MAX>;

impl<'a> Arguments<'a> {
    /// The words behind the program's name.
    pub(crate) fn parse(mut words: impl Iterator<Item = &'a CStr>) -> Result<Self, Exit> {
        let usage = || refuse!(Exit::Usage, "{USAGE}");
        let mut word = || words.next();
        let (Some(order), Some(path), Some(name)) = (word(), word(), word()) else { return Err(usage()) };
        let (order, pre_copy) = match (order.to_bytes(), word().map(CStr::to_bytes)) {
            (b"save", None) => (Order::Save, false),
            (b"save", Some(b"--precopy")) => (Order::Save, true),
            (b"load", None) => (Order::Load, false),
            _ => return Err(usage()),
        };
        if word().is_some() {
            return Err(usage());
        }
        let got = || name.to_bytes().escape_ascii();
        let Ok(path) = path.to_str() else {
            let got = path.to_bytes().escape_ascii();
            return Err(refuse!(Exit::Usage, "wanted a path in UTF-8, got {got}"));
        };
        let Some((driver, address)) = split(name) else {
            return Err(refuse!(Exit::Usage, "wanted DRIVER@ADDRESS, got {}\n{USAGE}", got()));
        };
        let mut idstr = Name::new();
        write!(idstr, "{driver}@{}/vfio", address.to_str().unwrap_or_default())
            .map_err(|_| refuse!(Exit::Usage, "wanted DRIVER@ADDRESS of at most 250 bytes, got {}", got()))?;
        Ok(Self { order, pre_copy, path, driver, address, idstr })
    }

    /// Whether the file is a group's: its name is a number.
    pub(crate) fn is_group(&self) -> bool {
        let mut last = self.path.bytes().rev().take_while(|&byte| byte != b'/');
        last.all(|byte| byte.is_ascii_digit())
    }

    /// The name of the device's sections.
    pub(crate) fn idstr(&self) -> &str {
        &self.idstr
    }
}

/// A driver's name and an address, both of bytes that may stand in a stream's description.
fn split(name: &CStr) -> Option<(&str, &CStr)> {
    let (driver, address) = name.to_str().ok().filter(|text| text.bytes().all(is_plain))?.split_once('@')?;
    let address = name.to_bytes_with_nul().get(name.count_bytes() - address.len()..)?;
    let address = CStr::from_bytes_with_nul(address).ok().filter(|address| !address.is_empty())?;
    Some((driver, address)).filter(|(driver, _)| !driver.is_empty())
}

/// Whether a byte may stand in a name: the description has it in quotes.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'/')
}

const USAGE: &str = "usage:
  without-std save DEVICE DRIVER@ADDRESS [--precopy] > FILE
  without-std load DEVICE DRIVER@ADDRESS < FILE
DEVICE is /dev/vfio/devices/vfioN, or its group /dev/vfio/N; for example:
  without-std save /dev/vfio/devices/vfio0 mlx5_vfio_pci@0000:3b:00.2 > card.state
A signal that ends it leaves the device in the middle: see vfio-migrate recover --help";
