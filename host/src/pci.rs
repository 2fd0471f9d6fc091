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
use vfio_migration_core::stream::pci_config::{self, Body, Layout, msi};

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
        layout(&self.space()?, self.length)
    }

    /// The body of its CONFIG record, as far as the device knows it: nobody's interrupts are in it.
    ///
    /// # Errors
    /// [`Refused::Kernel`].
    pub fn body(&self) -> Result<Vec<u8>, Refused> {
        let space = self.space()?;
        Ok(body(&space, layout(&space, self.length)?))
    }

    /// Checks that `saved` is of such a function, and sets what is a loader's to set.
    ///
    /// # Errors
    /// [`Refused::Differs`] and [`Refused::Kernel`].
    pub fn apply(&self, saved: &Body<'_>) -> Result<Applied, Refused> {
        check(saved, &self.space()?)?;
        let applied = Applied::of(saved);
        let command = applied.command.to_le_bytes();
        let written = retry_on_intr(|| pwrite(self.device, &command, self.offset + COMMAND));
        match written {
            Ok(count) if count == command.len() => Ok(applied),
            Ok(_) => Err(Refused::Kernel("written", code(Errno::IO))),
            Err(errno) => Err(Refused::Kernel("written", code(errno))),
        }
    }

    /// The configuration space; bytes that the region has not are 0.
    fn space(&self) -> Result<Vec<u8>, Refused> {
        let layout = Layout::new(self.length, 0).map_err(|_| not_read(Errno::OVERFLOW))?;
        let mut space = vec![0; layout.space().bytes()];
        let there = usize::try_from(self.length).unwrap_or(usize::MAX).min(space.len());
        let mut at = 0;
        while at < there {
            let rest = &mut space[at..there];
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
        write!(f, "the command register was set to {:#06x}", self.command)?;
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

/// The layout of a function whose region holds all of `space`.
///
/// # Errors
/// [`Refused::Kernel`] where the space is none.
pub fn layout_of(space: &[u8]) -> Result<Layout, Refused> {
    layout(space, space.len() as u64)
}

/// The layout of a function with this configuration space, whose region has `length` bytes.
fn layout(space: &[u8], length: u64) -> Result<Layout, Refused> {
    let vectors = Space::new(space).msix().map_or(0, |msix| msix.vectors);
    Layout::new(length, vectors).map_err(|_| not_read(Errno::OVERFLOW))
}

/// The body of a function with this space and layout whose interrupts nobody has set up.
#[must_use]
pub fn body(space: &[u8], layout: Layout) -> Vec<u8> {
    let mut masked = [0; msi::ENTRY];
    masked[12] = 1;
    let msix_table = masked.repeat(layout.msix_vectors().into());
    let pending = vec![0; usize::from(layout.msix_vectors()).div_ceil(8)];
    let body =
        Body { space, interrupts: [false; 4], msix_table: &msix_table, pending: &pending, display: None };
    let mut bytes = vec![0; layout.length()];
    let written = body.encode(&mut bytes);
    debug_assert_eq!(written, Ok(layout.length()));
    bytes
}

/// Where the command register is in the configuration space.
const COMMAND: u64 = 4;

fn not_read(errno: Errno) -> Refused {
    Refused::Kernel("read", code(errno))
}
