//! Saves the device: pre-copy, stop-copy, its configuration, in the sections that a QEMU wants around them.
//!
//! Deliberately absent: several devices.

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::{self, Transport as _};
use vfio_migration_core::session::{Source, SourcePhase};
use vfio_migration_core::stream::section::{self, Begins, Continues, Item};

use crate::machine::{self, Card, Wire};
use crate::{Failed, ID, NAME};

/// Saves the device with `buffer`; what fails brings the device back.
///
/// # Errors
/// [`Failed`].
pub fn save(buffer: &mut [u8]) -> Result<(), Failed> {
    let features = Features::from_raw(machine::features()).ok_or(Failed)?;
    let now = State::from_raw(machine::state()).ok_or(Failed)?;
    let mut source = Source::new(features, now, machine::switchover_ack(), buffer).map_err(|_| Failed)?;
    let saved = write(&mut source, features);
    if saved.is_err() {
        source.cancel();
        carry_out(&mut source)?;
    }
    saved
}

fn write(source: &mut Source<'_>, features: Features) -> Result<(), Failed> {
    send(&section::PREAMBLE)?;
    item(Item::Configuration { name_length: 0 })?;
    begin(Begins::Start)?;
    source.setup(features.pre_copy).map_err(|_| Failed)?;
    let mut phase = end(source)?;
    while let SourcePhase::PreCopy(chunk) = phase
        && !machine::stop_now(chunk.bytes)
    {
        item(Item::Continue { kind: Continues::Part, id: ID })?;
        source.copy_chunk().map_err(|_| Failed)?;
        phase = end(source)?;
    }
    source.stop().map_err(|_| Failed)?;
    carry_out(source)?;
    item(Item::Continue { kind: Continues::End, id: ID })?;
    source.copy_rest().map_err(|_| Failed)?;
    end(source)?;
    begin(Begins::Full)?;
    source.config().map_err(|_| Failed)?;
    end(source)?;
    item(Item::EndOfStream)?;
    source.finish().map_err(|_| Failed)?;
    carry_out(source)?;
    Ok(())
}

/// Carries out an order that writes a payload, and writes the footer behind it.
fn end(source: &mut Source<'_>) -> Result<SourcePhase, Failed> {
    let phase = carry_out(source)?;
    send(&section::footer(ID))?;
    Ok(phase)
}

fn carry_out(source: &mut Source<'_>) -> Result<SourcePhase, Failed> {
    match drive::source(source, &mut Card, &mut Wire, machine::tell) {
        Ok(SourcePhase::Failed(_)) | Err(_) => Err(Failed),
        Ok(phase) => Ok(phase),
    }
}

fn begin(kind: Begins) -> Result<(), Failed> {
    item(Item::Begin { kind, id: ID, name: NAME, instance: 0, version: 1 })
}

fn item(item: Item<'_>) -> Result<(), Failed> {
    let mut bytes = [0; 32];
    let length = item.encode(&mut bytes).map_err(|_| Failed)?;
    send(bytes.get(..length).unwrap_or_default())
}

fn send(mut bytes: &[u8]) -> Result<(), Failed> {
    while !bytes.is_empty() {
        let count = Wire.send(bytes).ok().filter(|&count| count > 0).ok_or(Failed)?;
        bytes = bytes.get(count..).ok_or(Failed)?;
    }
    Ok(())
}
