//! What would be refused, found out without touching a device.
//!
//! Deliberately absent: what a driver would say to its data. Only the driver knows.

use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::{BODY_MAX, Body, Layout};
use vfio_migration_core::stream::record::{Tag, Terminator, WORD, encode};
use vfio_migration_core::stream::section::Begins;

use super::config::in_its_words;
use super::load::{Sections, accept, check_data, check_driver, described, next_section};
use super::together::fleet;
use super::walk::{self, Walked};
use super::{Kind, Member, Migratable, Place, Reason};
use crate::file::{self, Entry, Reader};
use crate::pci::Applied;

/// What a stream has for devices that can be loaded from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it says of each.
    pub entries: Vec<Entry>,
    /// What would be set of each device's configuration, where the stream has one.
    pub configs: Vec<Option<Applied>>,
}

/// Checks that `link` has the state of these devices, whole and undamaged, and returns what it has of each. Nothing is
/// done to them.
///
/// # Errors
/// [`Reason`], as `load` would give it.
pub fn check<D: Migratable>(
    members: &[Member<'_, D>],
    link: impl Transport,
    force: bool,
) -> Result<Checked, Reason> {
    check_together(members)?;
    let layouts = layouts(members).map_err(|(_, reason)| reason)?;
    let (mut reader, starts) = accept(members, link, force).map_err(|(_, reason)| reason)?;
    let mut sections = vec![Sections::Going; starts.len()];
    let (mut data_bytes, mut configs) = (vec![0; starts.len()], vec![None; starts.len()]);
    while let Some((index, kind)) = next_section(&mut reader, &starts, &mut sections)? {
        let payload = payload(&mut reader, kind, layouts[index])?;
        data_bytes[index] += payload.data_bytes;
        if let Some((body, _)) = layouts[index].and_then(|layout| Body::decode(layout, payload.config()).ok())
        {
            let checked = members[index].device.check_config(&body);
            checked.map_err(|refused| Reason::config(Place::default(), refused))?;
            configs[index] = Some(Applied::of(&body));
        }
        reader.footer(starts[index].id)?;
    }
    let read = members.iter().zip(&starts).zip(data_bytes);
    let read = read.map(|((member, start), data_bytes)| (member.identity, start, data_bytes));
    let entries = described(&mut reader, read, force).map_err(|(_, reason)| reason)?;
    Ok(Checked { entries, configs })
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

/// What the lengths of the devices' configurations follow from, or which device's can't be told.
pub(super) fn layouts<D: Migratable>(
    members: &[Member<'_, D>],
) -> Result<Vec<Option<Layout>>, (usize, Reason)> {
    let layout = |(index, member): (usize, &Member<'_, D>)| {
        let layout = member.device.config_layout();
        layout.map_err(|refused| (index, Reason::config(Place::default(), refused)))
    };
    members.iter().enumerate().map(layout).collect()
}

/// A payload that was read to its end.
struct Payload {
    data_bytes: u64,
    /// Of a FULL section all bytes, as far as they can be a configuration's.
    bytes: Vec<u8>,
}

impl Payload {
    /// The body of its CONFIG record, and what is behind it.
    fn config(&self) -> &[u8] {
        self.bytes.strip_prefix(&encode(Tag::Config)).unwrap_or_default()
    }
}

/// Reads one payload, which ends as `load` wants it.
fn payload(
    reader: &mut Reader<impl Transport>,
    kind: Kind,
    layout: Option<Layout>,
) -> Result<Payload, Reason> {
    let (begins, mut bytes) = (reader.offset(), Vec::new());
    let is_full = matches!(kind, Kind::Begin(Begins::Full));
    let keep = |piece: &mut Vec<u8>| {
        if is_full && bytes.len() <= BODY_MAX {
            bytes.append(piece);
        }
    };
    let walked = walk::payload(reader, PIECE, kind, layout, keep);
    let Walked { data_bytes, terminator } = walked.map_err(|error| in_its_words(error.into(), layout))?;
    check_data(kind, data_bytes, begins)?;
    let got = match terminator {
        Terminator::EndOfState => return Ok(Payload { data_bytes, bytes }),
        Terminator::InitDataSent => "INIT_DATA_SENT",
        Terminator::ConfigLoadReady => "CONFIG_LOAD_READY",
    };
    let (offset, wanted) = (reader.offset().saturating_sub(WORD as u64), "END_OF_STATE");
    Err(file::Error::Unexpected { offset, wanted, got: got.into() }.into())
}

const PIECE: usize = 64 << 10;
