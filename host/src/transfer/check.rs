//! What would be refused, found out without touching a device.
//!
//! Deliberately absent: what a driver would say to its data. Only the driver knows.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::Layout;
use vfio_migration_core::stream::record::{Terminator, WORD};

use super::load::{accept, check_driver, described, next_section};
use super::together::fleet;
use super::walk::{self, Walked};
use super::{Member, Migratable, Place, Reason};
use crate::file::{self, Entry, Reader};

/// Checks that `link` has the state of these devices, whole and undamaged, and returns what it says of each. Nothing is
/// done to them.
///
/// # Errors
/// [`Reason`], as `load` would give it.
pub fn check<D: Migratable>(
    members: &[Member<'_, D>],
    link: impl Transport,
    force: bool,
) -> Result<Vec<Entry>, Reason> {
    check_together(members)?;
    let layouts: Vec<_> = members.iter().map(layout_of).collect::<Result<_, _>>()?;
    let (mut reader, starts) = accept(members, link, force).map_err(|(_, reason)| reason)?;
    let mut ended = vec![false; starts.len()];
    let mut data_bytes = vec![0; starts.len()];
    while let Some((index, _)) = next_section(&mut reader, &starts, &mut ended)? {
        data_bytes[index] += payload(&mut reader, layouts[index])?;
        reader.footer(starts[index].id)?;
    }
    let read = members.iter().zip(&starts).zip(data_bytes);
    let read = read.map(|((member, start), data_bytes)| (member.identity, start, data_bytes));
    described(&mut reader, read, force).map_err(|(_, reason)| reason)
}

/// Checks that the devices can be in one transfer: that each has a name of its own, and several have P2P.
///
/// # Errors
/// [`Reason::NotTogether`], as `save` and `load` would give it.
pub fn check_together<D>(members: &[Member<'_, D>]) -> Result<(), Reason> {
    let names: Vec<_> = members.iter().map(|member| member.idstr.clone()).collect();
    fleet(members, &names).map(drop)
}

/// Checks what of a hand-over would else show only when the sources have begun.
///
/// # Errors
/// [`Reason`], as `hand_over` would give it.
pub fn check_sides<S, D>(
    sources: &[Member<'_, S>],
    destinations: &[Member<'_, D>],
    force: bool,
) -> Result<(), Reason> {
    sides(sources, destinations, force).map_err(|(_, reason)| reason)
}

/// [`check_sides`] with the number of the device that is at fault, the sources' first.
pub(super) fn sides<S, D>(
    sources: &[Member<'_, S>],
    destinations: &[Member<'_, D>],
    force: bool,
) -> Result<(), (usize, Reason)> {
    let (wanted, got) = (destinations.len(), sources.len());
    if got < wanted {
        return Err((0, Reason::FewerDevices { wanted, got }));
    }
    if let Some(more) = sources.get(wanted) {
        return Err((0, Reason::MoreDevices { wanted, name: more.idstr.clone() }));
    }
    check_together(sources).and_then(|()| check_together(destinations)).map_err(|reason| (0, reason))?;
    for (index, (source, destination)) in sources.iter().zip(destinations).enumerate() {
        let written_by = Some(source.identity.driver.as_str()).filter(|_| !force);
        check_driver(destination.identity, written_by).map_err(|reason| (got + index, reason))?;
    }
    Ok(())
}

/// What the length of a device's configuration follows from.
pub(super) fn layout_of<D: Migratable>(member: &Member<'_, D>) -> Result<Option<Layout>, Reason> {
    member.device.config_layout().map_err(|refused| Reason::config(Place::default(), refused))
}

/// Reads one payload, which ends as `load` wants it; returns how many bytes of data it has.
fn payload(reader: &mut Reader<impl Transport>, layout: Option<Layout>) -> Result<u64, Reason> {
    let Walked { data_bytes, terminator } = walk::payload(reader, PIECE, layout, |_| ())?;
    let got = match terminator {
        Terminator::EndOfState => return Ok(data_bytes),
        Terminator::InitDataSent => "INIT_DATA_SENT",
        Terminator::ConfigLoadReady => "CONFIG_LOAD_READY",
    };
    let (offset, wanted) = (reader.offset().saturating_sub(WORD as u64), "END_OF_STATE");
    Err(file::Error::Unexpected { offset, wanted, got: got.into() }.into())
}

const PIECE: usize = 64 << 10;
