//! A device as a PCI function: what its CONFIG record holds, and how much of one a loader can set.
//!
//! A record that the device alone fills has its configuration space as the kernel shows it, no interrupt held, and
//! every vector masked. Of a record that came, the command register is set, as QEMU does.
//!
//! Deliberately absent: what only a VMM has. Where its guest sees the BARs, and the interrupts, which need its eventfds.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::{Errno, pread, pwrite, retry_on_intr};
use vfio_migration_core::device::uapi;
use vfio_migration_core::session::Code;
use vfio_migration_core::stream::pci_config::identity::{self, Difference};
use vfio_migration_core::stream::pci_config::space::Space;
use vfio_migration_core::stream::pci_config::{self, Body, Layout, SpaceLength, msi};

use crate::errno::{code, in_words};
use crate::ioctl;

/// A PCI function's configuration region.
#[derive(Clone, Copy, Debug)]
pub struct Function<'fd> {
    device: BorrowedFd<'fd>,
    /// Where the region begins in the device's file.
    offset: u64,
    /// Its length in bytes.
    length: u64,
}

/// What a loader has set of a configuration, and what it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The command register, which was set.
    pub command: u16,
    /// What is the VMM's to set, one phrase each.
    pub left_out: Vec<String>,
}

/// Why a configuration can't be this device's.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The device has none.
    #[error("the stream has the configuration of a PCI function, and this device is none")]
    NoFunction,
    /// It stands where none can.
    #[error("wanted DATA or the end of the payload, got CONFIG, which only a FULL section has")]
    OutOfPlace,
    /// The bytes are none of this device's layout.
    #[error(
        "{error}; this device has {} bytes of configuration space and {} MSI-X vectors",
        layout.space().bytes(),
        layout.msix_vectors()
    )]
    Body {
        /// What is wrong with them.
        error: pci_config::Error,
        /// The device's layout.
        layout: Layout,
    },
    /// The stream ended within it.
    #[error("the stream ended within the configuration, wanted {missing} more bytes")]
    Ended {
        /// Bytes that were wanted.
        missing: usize,
    },
    /// It is of another kind of function.
    #[error("the configuration is not of such a function: {0}")]
    Differs(Difference),
    /// The configuration region can't be read or written.
    #[error("the device's configuration space can't be {0}: {words}", words = in_words(*.1))]
    Kernel(&'static str, Code),
}

impl<'fd> Function<'fd> {
    /// The function that `device` is; nothing where it is no PCI device.
    ///
    /// # Errors
    /// [`Refused::Kernel`].
    pub fn of(device: &'fd impl AsFd) -> Result<Option<Self>, Refused> {
        let device = device.as_fd();
        let info = ioctl::device_get_info(device).map_err(not_read)?;
        if info.flags & uapi::DEVICE_FLAGS_PCI == 0 {
            return Ok(None);
        }
        let region = ioctl::device_get_region_info::<0>(device, uapi::PCI_CONFIG_REGION_INDEX);
        let uapi::RegionInfo { offset, size: length, .. } = region.map_err(not_read)?.info;
        Ok(Some(Self { device, offset, length }))
    }

    /// What the length of its CONFIG record's body follows from.
    ///
    /// # Errors
    /// [`Refused::Kernel`].
    pub fn layout(&self) -> Result<Layout, Refused> {
        Ok(Layout::of_device(&self.region()?))
    }

    /// The body of its CONFIG record, as far as the device knows it: nobody's interrupts are in it.
    ///
    /// # Errors
    /// [`Refused::Kernel`].
    pub fn body(&self) -> Result<Vec<u8>, Refused> {
        Ok(body(&self.region()?))
    }

    /// Checks that `saved` is of such a function.
    ///
    /// # Errors
    /// [`Refused::Differs`] and [`Refused::Kernel`].
    pub fn check(&self, saved: &Body<'_>) -> Result<(), Refused> {
        check(saved, &self.region()?)
    }

    /// Sets what is a loader's to set of `saved`.
    ///
    /// # Errors
    /// [`Refused::Kernel`].
    pub fn apply(&self, saved: &Body<'_>) -> Result<Applied, Refused> {
        let applied = Applied::of(saved);
        let command = applied.command.to_le_bytes();
        let written = retry_on_intr(|| pwrite(self.device, &command, self.offset + COMMAND));
        match written {
            Ok(count) if count == command.len() => Ok(applied),
            Ok(_) => Err(Refused::Kernel("written", code(Errno::IO))),
            Err(errno) => Err(Refused::Kernel("written", code(errno))),
        }
    }

    /// The configuration region, as far as it is configuration space.
    fn region(&self) -> Result<Vec<u8>, Refused> {
        let longest = SpaceLength::Extended.bytes();
        let mut space = vec![0; usize::try_from(self.length).unwrap_or(longest).min(longest)];
        let mut at = 0;
        while at < space.len() {
            let rest = &mut space[at..];
            match retry_on_intr(|| pread(self.device, &mut *rest, self.offset + at as u64))
                .map_err(not_read)?
            {
                0 => return Err(not_read(Errno::IO)),
                count => at += count,
            }
        }
        Ok(space)
    }
}

impl Applied {
    /// What is set of `saved`, and what is not.
    #[must_use]
    pub fn of(saved: &Body<'_>) -> Self {
        let space = Space::new(saved.space);
        let mut left_out = Vec::new();
        let bars = space.bars().filter(|bar| bar.base != 0).count();
        if bars > 0 {
            left_out.push(format!("the addresses of {bars} BARs"));
        }
        if let Some(msi) = space.msi().filter(|msi| msi.enabled) {
            left_out.push(format!("MSI with {} vectors", msi.vectors));
        }
        if let Some(msix) = space.msix().filter(|msix| msix.enabled) {
            left_out.push(format!("MSI-X with {} vectors", msix.vectors));
        }
        if saved.interrupts.contains(&true) {
            left_out.push("an interrupt that is held".into());
        }
        if saved.display.is_some() {
            left_out.push("a display's framebuffer".into());
        }
        Self { command: space.command().0, left_out }
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the command register {:#06x}", self.command)?;
        match &self.left_out[..] {
            [] => Ok(()),
            parts => write!(f, "; left to the VMM: {}", parts.join(", ")),
        }
    }
}

/// Fails unless `saved` is of such a function as the one with the configuration space `own`.
///
/// # Errors
/// [`Refused::Differs`].
pub fn check(saved: &Body<'_>, own: &[u8]) -> Result<(), Refused> {
    match identity::differs(Space::new(saved.space), Space::new(own)) {
        // A VMM shows its guest another list than the kernel: QEMU leaves some out, and chains the others anew.
        None | Some(Difference::Capability { .. }) => Ok(()),
        Some(difference) => Err(Refused::Differs(difference)),
    }
}

/// The body of a function with this configuration region whose interrupts nobody has set up.
#[must_use]
pub fn body(region: &[u8]) -> Vec<u8> {
    let layout = Layout::of_device(region);
    let mut space = vec![0; layout.space().bytes()];
    let there = region.len().min(space.len());
    space[..there].copy_from_slice(&region[..there]);
    let mut masked = [0; msi::ENTRY];
    masked[12] = 1;
    let msix_table = masked.repeat(layout.msix_vectors().into());
    let pending = vec![0; usize::from(layout.msix_vectors()).div_ceil(8)];
    let (interrupts, display) = ([false; 4], None);
    let body = Body { space: &space, interrupts, msix_table: &msix_table, pending: &pending, display };
    let mut bytes = vec![0; layout.length()];
    let written = body.encode(&mut bytes);
    debug_assert_eq!(written, Ok(layout.length()));
    bytes
}

/// Reads a body of this layout to the end of `bytes`, and the word behind it, which alone tells whether it has ended;
/// `fill` is given what is to be filled next. Returns the body's length, or what is wrong with it.
pub(crate) fn read_body<E>(
    layout: Layout,
    bytes: &mut Vec<u8>,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<Result<usize, pci_config::Error>, E> {
    let from = bytes.len();
    loop {
        let wanted = match Body::decode(layout, &bytes[from..]) {
            Ok((_, length)) => return Ok(Ok(length)),
            Err(pci_config::Error::Short { wanted }) => wanted,
            Err(error) => return Ok(Err(error)),
        };
        let have = bytes.len();
        bytes.resize(from + wanted, 0);
        fill(&mut bytes[have..])?;
    }
}

/// Where the command register is in the configuration space.
const COMMAND: u64 = 4;

fn not_read(errno: Errno) -> Refused {
    Refused::Kernel("read", code(errno))
}
