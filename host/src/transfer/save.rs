//! Saves devices into a stream.
//!
//! What can be copied while the devices work goes out first, then they are stopped in lockstep and the rest follows.
//! The stream is kept before any device leaves STOP_COPY: until then a failure brings the devices back with their
//! state, and after that the state is in the stream.
//!
//! One device's stop-copy data are one END section. Those of several are PARTs of one record each, because a section
//! has no length and so can't be interrupted by another one; their END holds END_OF_STATE alone.
//!
//! Deliberately absent: a machine's processors. Whoever has some stops them before `save` stops the devices.

use std::io;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::{self, Transport};
use vfio_migration_core::session::fleet::Order;
use vfio_migration_core::session::precopy::{Meter, PrecopyInfo};
use vfio_migration_core::session::{DataRead, Event, Failure, Left, Misuse, Source, SourcePhase};
use vfio_migration_core::stream::section::{Begins, Continues, Item};

use super::outlet::{Outlet, Section};
use super::precopy::{Board, PreCopy};
use super::together::{Together, fleet, halt, lock};
use super::{
    Closed, Error, Kind, Leave, Member, Migratable, Place, Reason, Report, SECTION_VERSION, Watch, lefts,
};
use crate::file::{Description, Entry, FORMAT, Writer};
use crate::interrupt::Interrupt;
use crate::link::Link;
use crate::open::Identity;
use crate::trace::Tracer;

/// How to save.
#[derive(Clone, Debug, Default)]
pub struct Save<'a> {
    /// Where to leave the devices; nothing: as they were found, running where all of them ran.
    pub leave: Option<Leave>,
    /// Copies what can be copied while they work, from those that run and have PRE_COPY.
    pub pre_copy: Option<PreCopy<'a>>,
    /// Writes the configuration of each device that is a PCI function behind its data ([`Migratable::config`]).
    pub config: bool,
    /// Ends waits in pre-copy; those for the link and for a device's data end by their own.
    pub interrupt: Option<Interrupt>,
}

/// Saves the devices into `link`, in their order. `keep` is called once the stream is whole: what it has to do so that
/// the stream will not get lost.
///
/// # Errors
/// [`Error`]; each device is back in the state that it came from, or the error says where it is.
pub fn save<D: Migratable, Fd: AsFd + Send>(
    members: Vec<Member<'_, D>>,
    mut link: Link<Fd>,
    plan: &Save<'_>,
    keep: impl FnOnce() -> io::Result<()>,
    watch: &impl Watch,
) -> Result<Report, Error> {
    let names: Vec<String> = members.iter().map(|member| member.idstr.clone()).collect();
    let devices = lefts(&members).collect();
    let acknowledged = plan.pre_copy.is_some_and(|plan| plan.switchover_ack.is_some());
    let begin = || -> Result<_, (usize, Reason)> {
        let fleet = fleet(&members, &names).map_err(|reason| (0, reason))?;
        let mut sending = Vec::new();
        for (index, member) in members.into_iter().enumerate() {
            sending.push(Sending::new(member, index, acknowledged).map_err(|misuse| (index, misuse.into()))?);
        }
        let refused = |code| (0, Reason::Write { offset: 0, code });
        let halt = halt(&mut link, sending.len()).map_err(refused)?;
        let writer = Writer::begin(link).map_err(refused)?;
        Ok((Together::new(fleet, halt), sending, Outlet { writer, rate: Meter::default() }))
    };
    let (together, mut sending, outlet) = match begin() {
        Ok((together, sending, outlet)) => (together, sending, Mutex::new(outlet)),
        Err((index, reason)) => return Err(Error::new(reason, index, devices)),
    };
    let stopped = Instant::now();
    let mut saving = Saving { together, outlet, plan, watch, stopped, downtime: None, kept: false };
    match saving.all(&mut sending, keep) {
        Ok(()) => Ok(saving.report(sending)),
        Err((index, reason)) => Err(saving.give_up(sending, index, reason)),
    }
}

/// One device on its way out.
struct Sending<'m, D> {
    source: Source<'m>,
    phase: SourcePhase,
    device: &'m mut D,
    /// The state that it came from.
    found: State,
    has_pre_copy: bool,
    /// The id of its sections.
    id: u32,
    entry: Entry,
    pieces: u64,
    /// How quickly its data are read and sent, which its thread does in turn.
    rate: Meter,
    /// How much of it was read before it was stopped, in bytes.
    before_stop: u64,
    /// When it was last asked what it has left.
    asked: Instant,
}

impl<'m, D: Migratable> Sending<'m, D> {
    /// The device number `index`. The id of its sections is one more: a QEMU that looks for the section of a PART or an
    /// END by an id of 0 finds the first of those that it has not loaded yet, which all have 0.
    fn new(member: Member<'m, D>, index: usize, switchover_ack: bool) -> Result<Self, Misuse> {
        let Member { device, features, now, identity, idstr, buffer } = member;
        let source = Source::new(features, now, switchover_ack, buffer)?;
        let Identity { driver, address } = identity.clone();
        Ok(Self {
            source,
            phase: SourcePhase::Ready(now),
            device,
            found: now,
            has_pre_copy: features.pre_copy,
            id: u32::try_from(index + 1).unwrap_or(u32::MAX),
            entry: Entry { idstr, driver, address, data_bytes: 0 },
            pieces: 0,
            rate: Meter::default(),
            before_stop: 0,
            asked: Instant::now(),
        })
    }

    /// What it has left for PRE_COPY, as far as is known.
    fn left(&self) -> Option<PrecopyInfo> {
        match self.phase {
            SourcePhase::PreCopy(chunk) => chunk.left,
            _ => None,
        }
    }

    fn init_data_sent(&self) -> bool {
        matches!(self.phase, SourcePhase::PreCopy(chunk) if chunk.init_data_sent)
    }
}

struct Saving<'n, 's, Fd, W> {
    together: Together<'n>,
    outlet: Mutex<Outlet<Fd>>,
    plan: &'s Save<'s>,
    watch: &'s W,
    /// When the devices were first asked to be quiet or to stop.
    stopped: Instant,
    downtime: Option<Duration>,
    kept: bool,
}

/// How a step for all devices went wrong: at which of them, and how.
type First = (usize, Reason);

impl<Fd: AsFd + Send, W: Watch> Saving<'_, '_, Fd, W> {
    fn all<D: Migratable>(
        &mut self,
        sending: &mut [Sending<'_, D>],
        keep: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), First> {
        for (index, member) in sending.iter_mut().enumerate() {
            self.set_up(index, member).map_err(|reason| (index, reason))?;
        }
        if let Some(plan) = self.plan.pre_copy {
            let devices = sending.iter().map(|member| {
                let takes_part = matches!(member.phase, SourcePhase::PreCopy(_));
                (member.device.data_size().unwrap_or_default(), takes_part)
            });
            let board = Mutex::new(Board::new(plan, devices));
            self.together.each(sending, |index, member| self.pre_copy(index, member, &board, plan))?;
        }
        self.stopped = Instant::now();
        self.together.each(sending, |index, member| {
            member.before_stop = member.entry.data_bytes;
            self.lockstep(index, member, Order::Quiesce, Source::quiesce)
        })?;
        let alone = sending.len() == 1;
        self.together.each(sending, |index, member| self.stop_and_copy(index, member, alone))?;
        if !alone {
            for (index, member) in sending.iter_mut().enumerate() {
                self.copy_rest(index, member).map_err(|reason| (index, reason))?;
            }
        }
        if self.plan.config {
            for (index, member) in sending.iter_mut().enumerate() {
                self.config(index, member).map_err(|reason| (index, reason))?;
            }
        }
        self.keep(sending, keep).map_err(|reason| (0, reason))?;
        self.go_on(sending)
    }

    /// The START section, and PRE_COPY before it where that is wanted and possible.
    fn set_up<D: Migratable>(&self, index: usize, member: &mut Sending<'_, D>) -> Result<(), Reason> {
        let can_pre_copy = member.has_pre_copy && member.found == State::Running;
        member.source.setup(self.plan.pre_copy.is_some() && can_pre_copy)?;
        self.section(index, member, Kind::Begin(Begins::Start))
    }

    fn pre_copy<D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'_, D>,
        board: &Mutex<Board<'_>>,
        plan: PreCopy<'_>,
    ) -> Result<(), Reason> {
        let SourcePhase::PreCopy(_) = member.phase else { return Ok(()) };
        let mut backoff = plan.backoff;
        self.measure(index, member, board)?;
        while !lock(board).is_over() && !self.together.has_failed() {
            self.check_interrupt()?;
            let (expected, had_sent) = (member.left(), member.init_data_sent());
            member.source.copy_chunk()?;
            self.section(index, member, Kind::Continue(Continues::Part))?;
            if !had_sent && member.init_data_sent() {
                lock(board).init_data_sent();
            }
            if matches!(member.phase, SourcePhase::PreCopy(chunk) if chunk.bytes == 0) {
                self.decide(index, member, board, expected)?;
                self.flush()?;
                self.wait(backoff.wait());
                continue;
            }
            backoff.reset();
            if member.left().is_none_or(|left| left.total() == 0) || member.asked.elapsed() >= ASK_AGAIN {
                self.measure(index, member, board)?;
            }
        }
        Ok(())
    }

    fn measure<D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'_, D>,
        board: &Mutex<Board<'_>>,
    ) -> Result<(), Reason> {
        let expected = member.left();
        member.source.measure()?;
        self.order(index, member)?;
        self.decide(index, member, board, expected)
    }

    /// Tells the board what a device has just answered, and lets it decide.
    fn decide<D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'_, D>,
        board: &Mutex<Board<'_>>,
        expected: Option<PrecopyInfo>,
    ) -> Result<(), Reason> {
        member.asked = Instant::now();
        let link = lock(&self.outlet).rate;
        let data_size = member.device.data_size().unwrap_or_default();
        let all_sent = self.together.initial_data_there();
        let mut board = lock(board);
        board.measured(index, expected, member.left().unwrap_or_default(), data_size, member.rate);
        board.decide(&link, all_sent)
    }

    fn stop_and_copy<D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'_, D>,
        alone: bool,
    ) -> Result<(), Reason> {
        self.lockstep(index, member, Order::Stop, Source::stop)?;
        if alone {
            return self.copy_rest(index, member);
        }
        while member.phase == SourcePhase::Copying && !self.together.has_failed() {
            member.source.copy_chunk()?;
            self.section(index, member, Kind::Continue(Continues::Part))?;
        }
        Ok(())
    }

    fn copy_rest<D: Migratable>(&self, index: usize, member: &mut Sending<'_, D>) -> Result<(), Reason> {
        member.source.copy_rest()?;
        self.section(index, member, Kind::Continue(Continues::End))
    }

    /// The FULL section, with the configuration of a PCI function; what is none has no such section.
    fn config<D: Migratable>(&self, index: usize, member: &mut Sending<'_, D>) -> Result<(), Reason> {
        let refused = |refused| Reason::config(Place::default(), refused);
        if member.device.config_layout().map_err(refused)?.is_none() {
            return Ok(());
        }
        let body = member.device.config().map_err(refused)?;
        member.source.config()?;
        self.section_with(index, member, Kind::Begin(Begins::Full), Some(body))
    }

    /// Ends the stream and has it kept.
    fn keep<D: Migratable>(
        &mut self,
        sending: &[Sending<'_, D>],
        keep: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Reason> {
        let devices = sending.iter().map(|member| member.entry.clone()).collect();
        let mut outlet = lock(&self.outlet);
        let offset = outlet.writer.offset();
        let end = outlet.writer.end(&Description { format: FORMAT, devices });
        end.map_err(|code| Reason::Write { offset, code })?;
        keep().map_err(Reason::Keep)?;
        drop(outlet);
        self.downtime = Some(self.stopped.elapsed());
        self.kept = true;
        Ok(())
    }

    /// Takes the devices to where they are left. The state is in the stream: where one fails the others go on, since none
    /// may go back to run with it.
    fn go_on<D: Migratable>(&mut self, sending: &mut [Sending<'_, D>]) -> Result<(), First> {
        self.together.commit();
        let finish = |index, member: &mut _| self.lockstep(index, member, Order::Finish, Source::finish);
        let finished = self.together.each(sending, finish);
        let runs = match self.plan.leave {
            Some(leave) => leave == Leave::Running,
            None => sending.iter().all(|member| member.found == State::Running),
        };
        if !runs {
            return finished;
        }
        let p2p = |index, member: &mut _| self.lockstep(index, member, Order::RunP2p, Source::run_p2p);
        let quiet = self.together.each(sending, p2p);
        let run = |index, member: &mut _| self.lockstep(index, member, Order::Run, Source::run);
        let ran = self.together.each(sending, run);
        self.downtime = Some(self.stopped.elapsed());
        finished.and(quiet).and(ran)
    }

    /// Gives `order` where the device needs it, now that all others are so far.
    fn lockstep<'m, D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'m, D>,
        order: Order,
        give: fn(&mut Source<'m>) -> Result<(), Misuse>,
    ) -> Result<(), Reason> {
        let has_failed = matches!(member.phase, SourcePhase::Failed(_));
        if !has_failed && self.together.may(index, order)? {
            give(&mut member.source)?;
            self.order(index, member)?;
        }
        Ok(())
    }

    /// Writes a section whose payload is the source's present order.
    fn section<D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'_, D>,
        kind: Kind,
    ) -> Result<(), Reason> {
        self.section_with(index, member, kind, None)
    }

    /// The same, with the body of a CONFIG record.
    fn section_with<D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'_, D>,
        kind: Kind,
        config: Option<Vec<u8>>,
    ) -> Result<(), Reason> {
        let id = member.id;
        let name;
        let item = match kind {
            Kind::Begin(kind) => {
                name = member.entry.idstr.clone();
                Item::Begin { kind, id, name: name.as_bytes(), instance: 0, version: SECTION_VERSION }
            }
            Kind::Continue(kind) => Item::Continue { kind, id },
        };
        let mut section = Section::new(&self.outlet, item);
        section.config = config;
        let result = self.drive(index, member, &mut section);
        let payload = section.payload;
        let in_section = |reason| match reason {
            Reason::Session { cause, .. } if payload > 0 => {
                let section = Some((kind, member.entry.idstr.clone(), payload));
                Reason::Session { place: Place { section, record: None }, cause }
            }
            reason => reason,
        };
        result.map_err(in_section)?;
        let Some(outlet) = &mut section.held else { return Ok(()) };
        outlet.writer.footer(id).map_err(|code| Reason::Write { offset: outlet.writer.offset(), code })
    }

    /// Carries out an order that writes nothing.
    fn order<D: Migratable>(&self, index: usize, member: &mut Sending<'_, D>) -> Result<(), Reason> {
        self.drive(index, member, &mut Closed)
    }

    fn drive<D: Migratable>(
        &self,
        index: usize,
        member: &mut Sending<'_, D>,
        link: &mut impl Transport,
    ) -> Result<(), Reason> {
        let Sending { source, device, entry: Entry { idstr, data_bytes, .. }, pieces, rate, .. } = member;
        let tracer = Tracer::new(idstr, |event: &Event, took| {
            if let Event::ReadData { result: Ok(DataRead::Bytes(bytes)), .. } = event {
                *data_bytes += *bytes as u64;
                *pieces += 1;
                rate.add(*bytes as u64, took);
            } else if let Event::Send { .. } = event {
                rate.add(0, took);
            }
            if !event.is_ok() {
                self.together.is_failing(index);
            }
            self.watch.event(idstr, event);
        });
        let phase = drive::source(source, *device, link, tracer)?;
        self.together.source(index, phase);
        member.phase = phase;
        match phase {
            SourcePhase::Failed(Failure { cause, .. }) => {
                Err(Reason::Session { place: Place::default(), cause })
            }
            _ => Ok(()),
        }
    }

    fn flush(&self) -> Result<(), Reason> {
        let mut outlet = lock(&self.outlet);
        outlet.writer.flush().map_err(|code| Reason::Write { offset: outlet.writer.offset(), code })
    }

    fn check_interrupt(&self) -> Result<(), Reason> {
        let asked = self.plan.interrupt.as_ref().is_some_and(|interrupt| interrupt.asked().is_some());
        if asked { Err(Reason::Interrupted) } else { Ok(()) }
    }

    fn wait(&self, time: Duration) {
        match &self.plan.interrupt {
            Some(interrupt) => interrupt.sleep(time),
            None => thread::sleep(time),
        }
    }

    fn report<D: Migratable>(&self, sending: Vec<Sending<'_, D>>) -> Report {
        Report {
            stream_bytes: lock(&self.outlet).writer.offset(),
            pieces: sending.iter().map(|member| member.pieces).sum(),
            downtime: self.downtime.unwrap_or_default(),
            downtime_bytes: sending.iter().map(|member| member.entry.data_bytes - member.before_stop).sum(),
            configs: vec![None; sending.len()],
            entries: sending.into_iter().map(|member| member.entry).collect(),
        }
    }

    /// Brings every device back: all as far as they may go while others stand, then each to where it came from.
    fn give_up<D: Migratable>(
        &self,
        mut sending: Vec<Sending<'_, D>>,
        index: usize,
        reason: Reason,
    ) -> Error {
        if self.kept {
            return self.error(&sending, index, reason);
        }
        self.together.cancel();
        // What goes wrong on the way back is in the phase that the session ends in.
        let _ = self.together.each(&mut sending, |index, member| {
            member.source.retreat();
            let _ = self.order(index, member);
            Ok(())
        });
        let _ = self.together.each(&mut sending, |index, member| {
            if self.together.may(index, Order::Cancel).is_ok() {
                member.source.cancel();
                let _ = self.order(index, member);
            }
            Ok(())
        });
        self.error(&sending, index, reason)
    }

    fn error<D: Migratable>(&self, sending: &[Sending<'_, D>], index: usize, reason: Reason) -> Error {
        let left = |member: &Sending<'_, D>| match member.phase {
            SourcePhase::Failed(Failure { device, .. }) => device,
            SourcePhase::Stopped => Left::At(State::Stop),
            SourcePhase::Ready(state) => Left::At(state),
            _ => Left::Unknown,
        };
        let devices = sending.iter().map(|member| (member.entry.idstr.clone(), left(member))).collect();
        Error { stream_is_whole: self.kept, ..Error::new(reason, index, devices) }
    }
}

/// How often a device that has data is asked what it has left.
const ASK_AGAIN: Duration = Duration::from_millis(100);
