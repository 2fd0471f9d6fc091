//! Payloads that are read to their end without a session.
//!
//! Deliberately absent: what a payload means. It is walked to find its end, and not a byte more is taken.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::Layout;
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_core::stream::section::Begins;

use super::Kind;
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
/// them: what it leaves is cleared. Only a FULL section, whose device has a configuration of `layout` or an empty one, may
/// have a CONFIG record.
///
/// # Errors
/// [`Error`].
pub(super) fn payload(
    reader: &mut Reader<impl Transport>,
    piece: usize,
    kind: Kind,
    layout: Option<Layout>,
    mut sink: impl FnMut(&mut Vec<u8>),
) -> Result<Walked, Error> {
    let mut payload = match kind {
        Kind::Begin(Begins::Full) => Payload::full(reader.offset(), layout),
        Kind::Begin(Begins::Start) | Kind::Continue(_) => Payload::new(reader.offset()),
    };
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
