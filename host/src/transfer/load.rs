//! Loads devices from a stream.
//!
//! All START sections are read first. Who wrote the stream is checked before any driver gets a byte of it, where the
//! names of its sections tell, and that the stream is whole and undamaged before any device leaves RESUMING.
//!
//! Deliberately absent: what a CONFIG record's body says. Its device sets that, as far as it can.

use std::os::fd::AsFd;
use std::slice;
use std::time::{Duration, Instant};

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::{self, Transport};
use vfio_migration_core::session::event::{Event, Observe};
use vfio_migration_core::session::fleet::Order;
use vfio_migration_core::session::{Code, Destination, DestinationPhase, Failure, Left, Misuse};
use vfio_migration_core::stream::pci_config::Layout;
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_core::stream::section::{Begins, Continues, Item};

use super::check::layout_of;
use super::config::Incoming;
use super::lanes;
use super::together::{Together, fleet, halt};
use super::walk::{self, Walked};
use super::{
    Closed, Error, Kind, Leave, Member, Migratable, Place, Reason, Report, SECTION_VERSION, Watch, lefts,
};
use crate::file::{self, Entry, Reader, show};
use crate::link::Link;
use crate::open::{Identity, UNKNOWN_DRIVER};
use crate::pci::Applied;
use crate::trace::Tracer;

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Where to leave the devices.
    pub leave: Leave,
    /// Takes a stream of another kind of device, or of one that is not known; a driver may execute what it is given.
    pub force: bool,
    /// Whether the source may send INIT_DATA_SENT; [`Watch::initial_data_loaded`] answers it.
    pub switchover_ack: bool,
}

/// Loads the devices from `link`. Each gets the state of the device with its name ([`Member::idstr`]); those without a
/// namesake in the stream get the others in their order. A device that was left in the middle of a migration is reset
/// first, once the stream's first sections were accepted.
///
/// # Errors
/// [`Error`]; the devices are as they were where the stream was refused by its first sections, reset to RUNNING where
/// something went wrong later, or the error says where each is.
pub fn load<D: Migratable, Fd: AsFd>(
    members: Vec<Member<'_, D>>,
    mut link: Link<Fd>,
    plan: &Load,
    watch: &impl Watch,
) -> Result<Report, Error> {
    let names: Vec<String> = members.iter().map(|member| member.idstr.clone()).collect();
    let mut devices: Vec<_> = lefts(&members).collect();
    let begin = || -> Result<_, (usize, Reason)> {
        let fleet = fleet(&members, &names).map_err(|reason| (0, reason))?;
        let halt = halt(&mut link, members.len());
        let halt = halt.map_err(|code| (0, file::Error::Recv { offset: 0, code }.into()))?;
        let (reader, starts) = accept(&members, link, plan.force)?;
        Ok((Together::new(fleet, halt), reader, starts))
    };
    let (together, mut reader, starts) = match begin() {
        Ok(begun) => begun,
        Err((index, reason)) => return Err(Error::new(reason, index, devices)),
    };
    let mut receiving = Vec::new();
    for (index, (mut member, start)) in members.into_iter().zip(starts).enumerate() {
        let ready = make_ready(&mut member, &mut devices[index].1, watch);
        match ready.and_then(|()| Receiving::new(member, start, devices[index].1, plan)) {
            Ok(member) => receiving.push(member),
            Err(reason) => return Err(Error::new(reason, index, devices)),
        }
    }
    let loading = Loading { together, plan, watch };
    match loading.all(&mut receiving, &mut reader) {
        Ok((entries, downtime)) => Ok(Report {
            entries,
            stream_bytes: reader.offset(),
            pieces: receiving.iter().map(|member| member.pieces).sum(),
            downtime,
            downtime_bytes: 0,
            configs: receiving.into_iter().map(|member| member.applied).collect(),
        }),
        Err((index, reason)) => Err(loading.give_up(receiving, index, reason)),
    }
}

/// The section that a device's sections refer to.
#[derive(Clone, Debug)]
pub(super) struct Start {
    pub(super) id: u32,
    pub(super) name: String,
}

/// Reads the START sections, one for each of `members`, and returns them in the order of `members`.
///
/// # Errors
/// What is wrong, and with which of `members` where it is one's.
pub(super) fn accept<D, T: Transport>(
    members: &[Member<'_, D>],
    link: T,
    force: bool,
) -> Result<(Reader<T>, Vec<Start>), (usize, Reason)> {
    let mut reader = Reader::begin(link).map_err(|error| (0, error.into()))?;
    let starts = all_starts(&mut reader, members.len()).map_err(|reason| (0, reason))?;
    let starts = arrange(members, starts);
    for (index, (member, start)) in members.iter().zip(&starts).enumerate() {
        check_start(member.identity, start, force).map_err(|reason| (index, reason))?;
    }
    Ok((reader, starts))
}

/// Reads `wanted` START sections, and looks whether another one follows.
fn all_starts(reader: &mut Reader<impl Transport>, wanted: usize) -> Result<Vec<Start>, Reason> {
    let mut starts = Vec::new();
    while starts.len() < wanted {
        let offset = reader.offset();
        let next = start(reader, wanted, starts.len())?;
        if starts.iter().any(|start: &Start| start.name == next.name || start.id == next.id) {
            let (wanted, got) = ("a section with an id and a name of its own", format!("'{}'", next.name));
            return Err(file::Error::Unexpected { offset, wanted, got }.into());
        }
        starts.push(next);
    }
    if let Item::Begin { kind: Begins::Start, name, .. } = reader.item()?
        && name.ends_with(NAME_END)
    {
        let name = String::from_utf8_lossy(name).escape_debug().to_string();
        return Err(Reason::MoreDevices { wanted, name });
    }
    reader.unread();
    Ok(starts)
}

/// Reads one START section: a header, SETUP and END_OF_STATE, and a footer.
fn start(reader: &mut Reader<impl Transport>, wanted: usize, got: usize) -> Result<Start, Reason> {
    let offset = reader.offset();
    let start = match reader.item()? {
        Item::Begin { kind: Begins::Start, id, name, instance: 0, version: SECTION_VERSION }
            if name.ends_with(NAME_END) && !String::from_utf8_lossy(name).contains(char::is_control) =>
        {
            Start { id, name: String::from_utf8_lossy(name).into_owned() }
        }
        Item::Continue { .. } if got > 0 => return Err(Reason::FewerDevices { wanted, got }),
        item => {
            let wanted = "the START section of a VFIO device, instance 0, version 1";
            return Err(file::Error::Unexpected { offset, wanted, got: show(&item) }.into());
        }
    };
    let offset = reader.offset();
    let Walked { data_bytes, terminator } = walk::payload(reader, PIECE, None, |_| ())?;
    if data_bytes > 0 || terminator != Terminator::EndOfState {
        let (wanted, got) = ("SETUP and END_OF_STATE in a START section", "something else".into());
        return Err(file::Error::Unexpected { offset, wanted, got }.into());
    }
    reader.footer(start.id)?;
    Ok(start)
}

/// The sections for each of `members`: of its name, or where no section has it, the next whose name no member has. There
/// are as many as members, and no name is there twice.
fn arrange<D>(members: &[Member<'_, D>], starts: Vec<Start>) -> Vec<Start> {
    let is_named = |start: &Start| members.iter().any(|member| member.idstr == start.name);
    let (mut named, others): (Vec<_>, Vec<_>) = starts.into_iter().partition(is_named);
    let mut others = others.into_iter();
    let mut of = |member: &Member<'_, D>| {
        let namesake = named.iter().position(|start| start.name == member.idstr);
        namesake.map(|at| named.swap_remove(at)).or_else(|| others.next())
    };
    members.iter().filter_map(&mut of).collect()
}

fn check_start(identity: &Identity, start: &Start, force: bool) -> Result<(), Reason> {
    let unknown = identity.driver == UNKNOWN_DRIVER;
    let written_by = driver_of(&start.name).or(unknown.then_some("which its name does not tell"));
    if force { Ok(()) } else { check_driver(identity, written_by) }
}

/// The driver in a name of ours, `<driver>@<address>/vfio`. A QEMU's name has none; on POWER it may begin in `pci@`.
fn driver_of(name: &str) -> Option<&str> {
    name.split_once('@').map(|(driver, _)| driver).filter(|&driver| driver != "pci")
}

pub(super) fn check_driver(Identity { driver, .. }: &Identity, got: Option<&str>) -> Result<(), Reason> {
    match got {
        Some(got) if driver != got || driver == UNKNOWN_DRIVER => {
            Err(Reason::OtherDriver { wanted: driver.clone(), got: got.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Resets a device that was left in the middle of a migration: what it holds would be overwritten anyhow.
fn make_ready<D: Migratable>(
    member: &mut Member<'_, D>,
    left: &mut Left,
    watch: &impl Watch,
) -> Result<(), Reason> {
    if matches!(member.now, State::Running | State::Stop) {
        return Ok(());
    }
    let mut tracer = Tracer::new(&member.idstr, |event: &Event, _| watch.event(&member.idstr, event));
    let result = member.device.reset();
    tracer.observe(&Event::Reset { result }, tracer.now());
    *left = if result.is_ok() { Left::Reset } else { Left::Unknown };
    let state = std::mem::replace(&mut member.now, State::Running);
    result.map_err(|code: Code| Reason::NotReset { state, code })
}

/// One device on its way in.
pub(super) struct Receiving<'m, D> {
    destination: Destination<'m>,
    phase: DestinationPhase,
    device: &'m mut D,
    /// What it is called, on this machine.
    name: String,
    identity: &'m Identity,
    /// Its sections.
    pub(super) start: Start,
    /// Where it was before anything was loaded: as it was found, or reset.
    found: Left,
    data_bytes: u64,
    pieces: u64,
    /// What the length of a CONFIG record's body follows from, where it is a PCI function.
    pub(super) layout: Option<Layout>,
    /// What was set of its configuration.
    applied: Option<Applied>,
}

impl<'m, D: Migratable> Receiving<'m, D> {
    fn new(member: Member<'m, D>, start: Start, found: Left, plan: &Load) -> Result<Self, Reason> {
        let layout = layout_of(&member)?;
        let Member { device, features, now, identity, idstr: name, buffer } = member;
        let destination = Destination::new(features, now, plan.switchover_ack, buffer)?;
        Ok(Self {
            destination,
            phase: DestinationPhase::Ready(now),
            device,
            name,
            identity,
            start,
            found,
            data_bytes: 0,
            pieces: 0,
            layout,
            applied: None,
        })
    }

    /// Where it is after a failure.
    fn left(&self) -> Left {
        match self.phase {
            // Where it goes back to what it was, it was reset before.
            DestinationPhase::Failed(Failure { device: Left::At(_), .. }) if self.found == Left::Reset => {
                Left::Reset
            }
            DestinationPhase::Failed(Failure { device, .. }) => device,
            _ => Left::Unknown,
        }
    }
}

/// What the threads of a load share.
pub(super) struct Loading<'n, 's, W> {
    pub(super) together: Together<'n>,
    plan: &'s Load,
    watch: &'s W,
}

impl<W: Watch> Loading<'_, '_, W> {
    /// Loads everything; returns what the stream says of each device, and how long they stood still behind its end.
    fn all<D: Migratable>(
        &self,
        receiving: &mut [Receiving<'_, D>],
        reader: &mut Reader<impl Transport>,
    ) -> Result<(Vec<Entry>, Duration), (usize, Reason)> {
        self.together.each(receiving, |index, member| {
            member.destination.resume()?;
            self.order(index, member)
        })?;
        match &mut *receiving {
            [member] => self.sections_of_one(member, reader).map_err(|reason| (0, reason))?,
            several => lanes::sections(self, several, reader)?,
        }
        let loaded = receiving.iter().map(|member| (member.identity, &member.start, member.data_bytes));
        let entries = described(reader, loaded, self.plan.force)?;
        let ended = Instant::now();
        self.together.each(receiving, |index, member| {
            member.destination.stop()?;
            self.order(index, member)
        })?;
        if self.plan.leave == Leave::Running {
            let p2p =
                |index, member: &mut _| self.lockstep(index, member, Order::RunP2p, Destination::run_p2p);
            self.together.each(receiving, p2p)?;
            let run = |index, member: &mut _| self.lockstep(index, member, Order::Run, Destination::run);
            self.together.each(receiving, run)?;
        }
        Ok((entries, ended.elapsed()))
    }

    fn sections_of_one<D: Migratable>(
        &self,
        member: &mut Receiving<'_, D>,
        reader: &mut Reader<impl Transport>,
    ) -> Result<(), Reason> {
        let mut ended = [false];
        while let Some((_, kind)) = next_section(reader, slice::from_ref(&member.start), &mut ended)? {
            let payload = reader.offset();
            self.payload(0, member, kind, payload, reader)?;
            reader.footer(member.start.id)?;
        }
        Ok(())
    }

    /// Gives the device one payload.
    pub(super) fn payload<D: Migratable>(
        &self,
        index: usize,
        member: &mut Receiving<'_, D>,
        kind: Kind,
        payload: u64,
        link: &mut impl Transport,
    ) -> Result<(), Reason> {
        member.destination.section()?;
        let mut link = Incoming::new(link, member.layout);
        let driven = self.drive(index, member, &mut link);
        let place = |member: &Receiving<'_, D>| {
            let section = Some((kind, member.start.name.clone(), payload));
            Place { section, record: member.destination.record() }
        };
        driven.map_err(|reason| match (reason, link.refused.take()) {
            (Reason::Session { .. }, Some(refused)) => Reason::config(place(member), refused),
            (Reason::Session { cause, .. }, None) => Reason::Session { place: place(member), cause },
            (reason, _) => reason,
        })?;
        if let Some(body) = link.body() {
            let applied = member.device.apply_config(&body);
            member.applied = Some(applied.map_err(|refused| Reason::config(place(member), refused))?);
        }
        Ok(())
    }

    fn lockstep<'m, D: Migratable>(
        &self,
        index: usize,
        member: &mut Receiving<'m, D>,
        order: Order,
        give: fn(&mut Destination<'m>) -> Result<(), Misuse>,
    ) -> Result<(), Reason> {
        if self.together.may(index, order)? {
            give(&mut member.destination)?;
            self.order(index, member)?;
        }
        Ok(())
    }

    /// Carries out an order that takes nothing from the link.
    fn order<D: Migratable>(&self, index: usize, member: &mut Receiving<'_, D>) -> Result<(), Reason> {
        self.drive(index, member, &mut Closed)
    }

    fn drive<D: Migratable>(
        &self,
        index: usize,
        member: &mut Receiving<'_, D>,
        link: &mut impl Transport,
    ) -> Result<(), Reason> {
        let Receiving { destination, device, name, data_bytes, pieces, .. } = member;
        let tracer = Tracer::new(name, |event: &Event, _| {
            if let Event::WriteData { result: Ok(bytes), .. } = event {
                *data_bytes += *bytes as u64;
                *pieces += 1;
            }
            if !event.is_ok() {
                self.together.is_failing(index);
            }
            self.watch.event(name, event);
        });
        let phase = drive::destination(destination, *device, link, tracer)?;
        let initial_data_there = self.together.destination(index, phase);
        member.phase = phase;
        match phase {
            DestinationPhase::Failed(Failure { cause, .. }) => {
                Err(Reason::Session { place: Place::default(), cause })
            }
            DestinationPhase::Section(Terminator::InitDataSent) => {
                self.watch.initial_data_loaded(name, initial_data_there);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn give_up<D: Migratable>(
        &self,
        mut receiving: Vec<Receiving<'_, D>>,
        index: usize,
        reason: Reason,
    ) -> Error {
        self.together.cancel();
        // What goes wrong on the way back is in the phase that the session ends in.
        let _ = self.together.each(&mut receiving, |index, member| {
            member.destination.cancel();
            let _ = self.order(index, member);
            Ok(())
        });
        let devices = receiving.iter().map(|member| (member.name.clone(), member.left())).collect();
        Error::new(reason, index, devices)
    }
}

/// Whose the next section is, and its kind, or nothing at the end byte. Behind a device's END stands a FULL at most.
pub(super) fn next_section(
    reader: &mut Reader<impl Transport>,
    starts: &[Start],
    ended: &mut [bool],
) -> Result<Option<(usize, Kind)>, Reason> {
    let offset = reader.offset();
    let all_ended = ended.iter().all(|&ended| ended);
    let wanted = match all_ended {
        true => "a FULL of the device, or the end of the stream",
        false => "a PART or END of the device",
    };
    let with_id = |id| starts.iter().position(|start| start.id == id);
    let item = reader.item()?;
    match item {
        Item::Continue { kind, id } => {
            if let Some(index) = with_id(id).filter(|&index| !ended[index]) {
                ended[index] = kind == Continues::End;
                return Ok(Some((index, Kind::Continue(kind))));
            }
        }
        Item::Begin { kind: Begins::Full, id, name, instance: 0, version: SECTION_VERSION } => {
            let named = |&index: &usize| ended[index] && starts[index].name.as_bytes() == name;
            if let Some(index) = with_id(id).filter(named) {
                return Ok(Some((index, Kind::Begin(Begins::Full))));
            }
        }
        Item::EndOfStream if all_ended => return Ok(None),
        _ => {}
    }
    Err(file::Error::Unexpected { offset, wanted, got: show(&item) }.into())
}

/// Reads the end of the stream, and checks that it describes what was read: of each device what it is, its sections and
/// their bytes of data.
///
/// # Errors
/// What is wrong, and with which device where it is one's.
pub(super) fn described<'a>(
    reader: &mut Reader<impl Transport>,
    read: impl ExactSizeIterator<Item = (&'a Identity, &'a Start, u64)>,
    force: bool,
) -> Result<Vec<Entry>, (usize, Reason)> {
    let described = reader.end().and_then(|description| {
        description.check_count(read.len())?;
        Ok(description)
    });
    let description = described.map_err(|error| (0, error.into()))?;
    let entry = |(index, (identity, start, data_bytes)): (usize, (&Identity, &Start, u64))| {
        let entry = description.entry(&start.name, data_bytes).map_err(|error| (index, error.into()))?;
        if !force {
            check_driver(identity, Some(&entry.driver)).map_err(|reason| (index, reason))?;
        }
        Ok(entry.clone())
    };
    read.enumerate().map(entry).collect()
}

/// How much of a START's payload is looked at at once.
const PIECE: usize = 4096;
/// What the name of every VFIO section ends in.
const NAME_END: &[u8] = b"vfio";
