//! What would be refused, found out without touching a device.
//!
//! Deliberately absent: what a driver would say to its data. Only the driver knows.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::record::{Decoder, WORD, Wanted};

use super::load::{accept, check_driver, next_section};
use super::together::fleet;
use super::{Member, Reason};
use crate::file::{self, Entry, Reader};

/// Checks that `link` has the state of these devices, whole and undamaged, and returns what it says of each. Nothing is
/// done to them.
///
/// # Errors
/// [`Reason`], as `load` would give it.
pub fn check<D>(members: &[Member<'_, D>], link: impl Transport, force: bool) -> Result<Vec<Entry>, Reason> {
    let (mut reader, starts) = accept(members, link, force).map_err(|(_, reason)| reason)?;
    let starts: Vec<_> = starts.iter().collect();
    let mut ended = vec![false; starts.len()];
    let mut data_bytes = vec![0; starts.len()];
    while let Some((index, _)) = next_section(&mut reader, &starts, &mut ended)? {
        data_bytes[index] += payload(&mut reader)?;
        reader.footer(starts[index].id)?;
    }
    let description = reader.end()?;
    let entries = members.iter().zip(starts).zip(data_bytes).map(|((member, start), data_bytes)| {
        let entry = description.entry(&start.name, data_bytes)?;
        if !force {
            check_driver(member.identity, Some(&entry.driver))?;
        }
        Ok(entry.clone())
    });
    entries.collect()
}

/// Checks that the devices can be in one transfer: that each has a name of its own, and several have P2P.
///
/// # Errors
/// [`Reason::NotTogether`], as `save` and `load` would give it.
pub fn check_together<D>(members: &[Member<'_, D>]) -> Result<(), Reason> {
    let names: Vec<_> = members.iter().map(|member| member.idstr.clone()).collect();
    fleet(members, &names).map(drop)
}

/// Reads one payload; returns how many bytes of data it has.
fn payload(reader: &mut Reader<impl Transport>) -> Result<u64, Reason> {
    let payload = reader.offset();
    let mut decoder = Decoder::new();
    let mut data_bytes = 0;
    let mut piece = vec![0; PIECE];
    loop {
        match decoder.wanted() {
            Wanted::Word => {
                let mut word = [0; WORD];
                reader.exact(&mut word, "a record")?;
                decoder.word(word).map_err(|error| file::Error::Record { payload, error })?;
            }
            Wanted::Data(left) => {
                let count = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
                reader.exact(&mut piece[..count], "a record")?;
                decoder.data(count as u64);
                data_bytes += count as u64;
            }
            Wanted::Config => {
                let (offset, wanted) = (reader.offset(), "DATA or the end of the payload");
                return Err(file::Error::Unexpected { offset, wanted, got: "CONFIG".into() }.into());
            }
            Wanted::Nothing(_) => return Ok(data_bytes),
        }
    }
}

const PIECE: usize = 64 << 10;
