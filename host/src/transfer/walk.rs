//! Payloads that are read to their end without a session.
//!
//! Deliberately absent: what a payload means. It is walked to find its end, and not a byte more is taken.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::Layout;
use vfio_migration_core::stream::record::Terminator;

use crate::file::{Error, Reader};
use crate::qemu::Payload;

/// How a payload ended.
pub(super) struct Walked {
    /// Bytes of its DATA records, without their heads.
    pub(super) data_bytes: u64,
    /// What stood at its end.
    pub(super) terminator: Terminator,
}

/// Reads one payload in pieces of about `piece` bytes at most, and gives each to `sink`, which takes its bytes or leaves
/// them: what it leaves is cleared. `layout` is that of the device's configuration.
///
/// # Errors
/// [`Error`]; without a layout a CONFIG record, whose length only its device knows, is refused.
pub(super) fn payload(
    reader: &mut Reader<impl Transport>,
    piece: usize,
    layout: Option<Layout>,
    mut sink: impl FnMut(&mut Vec<u8>),
) -> Result<Walked, Error> {
    let mut payload = Payload::of_device(reader.offset(), layout);
    let (mut bytes, mut data_bytes) = (Vec::new(), 0);
    loop {
        let step = payload.step(reader, &mut bytes, piece)?;
        data_bytes += step.map_or(0, |step| step.data);
        let terminator = payload.terminator();
        if terminator.is_some() || bytes.len() >= piece || step.is_some_and(|step| step.data > 0) {
            sink(&mut bytes);
            bytes.clear();
        }
        if let Some(terminator) = terminator {
            return Ok(Walked { data_bytes, terminator });
        }
    }
}
