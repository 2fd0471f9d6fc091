//! Loads the device from the sections that [`save`](crate::save) or a QEMU writes.
//!
//! Deliberately absent: the description behind the stream's end, and sections of other devices, which are refused.

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::{self, Transport as _};
use vfio_migration_core::session::{Destination, DestinationPhase};
use vfio_migration_core::stream::section::{self, Error, Item};

use crate::machine::{self, Card, Wire};
use crate::{Failed, NAME};

/// Loads the device with `buffer` and lets it run; what fails resets the device.
///
/// # Errors
/// [`Failed`].
pub fn load(buffer: &mut [u8]) -> Result<(), Failed> {
    let features = Features::from_raw(machine::features()).ok_or(Failed)?;
    let now = State::from_raw(machine::state()).ok_or(Failed)?;
    let mut destination =
        Destination::new(features, now, machine::switchover_ack(), buffer).map_err(|_| Failed)?;
    let loaded = read(&mut destination);
    if loaded.is_err() {
        destination.cancel();
        carry_out(&mut destination)?;
    }
    loaded
}

fn read(destination: &mut Destination<'_>) -> Result<(), Failed> {
    let mut preamble = [0; 8];
    recv(&mut preamble)?;
    section::decode_preamble(preamble).map_err(|_| Failed)?;
    destination.resume().map_err(|_| Failed)?;
    carry_out(destination)?;
    let mut ours = None;
    let mut bytes = [0; 64];
    loop {
        match item(&mut bytes)? {
            Item::Configuration { name_length: 0 } => {}
            Item::Begin { id, name: NAME, instance: 0, version: 1, .. } => {
                ours = Some(id);
                payload(destination, id)?;
            }
            Item::Continue { id, .. } if ours == Some(id) => payload(destination, id)?,
            Item::EndOfStream => break,
            Item::Configuration { .. }
            | Item::Subsection { .. }
            | Item::Begin { .. }
            | Item::Continue { .. }
            | Item::Command { .. }
            | Item::Description { .. } => return Err(Failed),
        }
    }
    destination.stop().map_err(|_| Failed)?;
    carry_out(destination)?;
    destination.run().map_err(|_| Failed)?;
    carry_out(destination)
}

fn payload(destination: &mut Destination<'_>, id: u32) -> Result<(), Failed> {
    destination.section().map_err(|_| Failed)?;
    carry_out(destination)?;
    let mut footer = [0; section::FOOTER];
    recv(&mut footer)?;
    section::decode_footer(id, footer).map_err(|_| Failed)
}

fn carry_out(destination: &mut Destination<'_>) -> Result<(), Failed> {
    match drive::destination(destination, &mut Card, &mut Wire, machine::tell) {
        Ok(DestinationPhase::Failed(_)) | Err(_) => Err(Failed),
        Ok(_) => Ok(()),
    }
}

/// Takes the next item, and not a byte more.
fn item(bytes: &mut [u8; 64]) -> Result<Item<'_>, Failed> {
    let mut have = 0;
    while let Err(Error::Short { wanted }) = Item::decode(bytes.get(..have).unwrap_or_default()) {
        recv(bytes.get_mut(have..wanted).ok_or(Failed)?)?;
        have = wanted;
    }
    Item::decode(bytes.get(..have).unwrap_or_default()).map(|(item, _)| item).map_err(|_| Failed)
}

fn recv(mut bytes: &mut [u8]) -> Result<(), Failed> {
    while !bytes.is_empty() {
        let count = Wire.recv(bytes).ok().filter(|&count| count > 0).ok_or(Failed)?;
        bytes = bytes.split_off_mut(count..).ok_or(Failed)?;
    }
    Ok(())
}
