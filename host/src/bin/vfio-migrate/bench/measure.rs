//! Taking the samples: rows in turn, round by round, so that what else the machine does meets all of them.
//!
//! Deliberately absent: a protocol of its own. Arcs are SETs of the library's devices; the rest is its save,
//! load and hand-over on devices that take note.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use vfio_migration_core::device::{Features, State, arc};
use vfio_migration_core::session::Event;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::transfer::{self, Error, Leave, Load, PreCopy, Reason, Report, Save};

use super::calls::{self, Calls};
use super::noted::{Noted, Set};
use super::pair::{Pair, Side, Wrong};
use crate::stdio::say;
use crate::{Fail, new_buffer};

/// What to measure.
pub(super) struct Plan {
    rounds: u32,
    sizes: Vec<Size>,
    moves_with: Size,
    pre_copy: PreCopy<'static>,
}

/// A size of buffers, with one for each side.
struct Size {
    bytes: u64,
    near: Buffer,
    far: Buffer,
}

/// What was measured, a sample a round.
#[derive(Default)]
pub(super) struct Samples {
    /// A SET of RUNNING in RUNNING.
    pub(super) no_op: Vec<Duration>,
    pub(super) arcs: Vec<ArcSamples>,
    pub(super) save: Vec<CopySamples>,
    pub(super) load: Vec<CopySamples>,
    pub(super) downtime: Vec<MoveSamples>,
}

/// Of one single step.
pub(super) struct ArcSamples {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) times: Vec<Duration>,
}

/// Of saves or loads with one size of buffer.
pub(super) struct CopySamples {
    pub(super) buffer: u64,
    pub(super) copies: Vec<Copied>,
}

/// One save or load.
pub(super) struct Copied {
    pub(super) bytes: u64,
    pub(super) time: Duration,
    /// Reads or writes of the data fd.
    pub(super) device_calls: u64,
    pub(super) calls: Option<Calls>,
}

/// Of moves with or without pre-copy.
pub(super) struct MoveSamples {
    pub(super) pre_copy: bool,
    pub(super) buffer: u64,
    pub(super) moves: Vec<Moved>,
}

/// One move.
pub(super) struct Moved {
    pub(super) bytes: u64,
    /// Those of them that were moved while both devices stood still.
    pub(super) stopped_bytes: u64,
    pub(super) stop: Duration,
    pub(super) copy: Duration,
    pub(super) start: Duration,
}

impl Plan {
    /// Fails where there is no memory for the buffers.
    pub(super) fn new(
        rounds: u32,
        sizes: &[u64],
        moves_with: u64,
        pre_copy: PreCopy<'static>,
    ) -> Result<Self, Fail> {
        let sizes = sizes.iter().map(|&bytes| Size::new(bytes)).collect::<Result<_, _>>()?;
        Ok(Self { rounds, sizes, moves_with: Size::new(moves_with)?, pre_copy })
    }

    fn rows_of_copies(&self) -> Vec<CopySamples> {
        self.sizes.iter().map(|size| CopySamples { buffer: size.bytes, copies: Vec::new() }).collect()
    }
}

impl Size {
    fn new(bytes: u64) -> Result<Self, Fail> {
        let (near, far) =
            (new_buffer(bytes, Buffer::for_source)?, new_buffer(bytes, Buffer::for_destination)?);
        Ok(Self { bytes, near, far })
    }
}

impl ArcSamples {
    /// Whether the content is lost by it, so that it is taken on the target.
    pub(super) fn is_of_target(&self) -> bool {
        [self.from, self.to].contains(&State::Resuming)
    }
}

impl Moved {
    pub(super) fn total(&self) -> Duration {
        self.stop + self.copy + self.start
    }
}

/// Fails where a state of the source would not be taken for one of the target's kind.
pub(super) fn check(pair: &mut Pair<'_>, plan: &mut Plan) -> Result<(), Reason> {
    let Pair { source, target: Some(target), .. } = pair else { return Ok(()) };
    let Size { near, far, .. } = &mut plan.moves_with;
    transfer::check_sides(&[source.device.member(None, near)], &[target.device.member(None, far)], false)
}

/// Takes all samples. The devices are left where they are then.
pub(super) fn all(pair: &mut Pair<'_>, mut plan: Plan) -> Result<Samples, Wrong> {
    let mut samples = Samples { save: plan.rows_of_copies(), ..Samples::default() };
    walks(pair, plan.rounds, &mut samples)?;
    say("measuring save");
    let nothing = nothing().map_err(Reason::Keep)?;
    for _ in 0..plan.rounds {
        for (size, row) in plan.sizes.iter_mut().zip(&mut samples.save) {
            row.copies.push(save(&mut pair.source, pair.interrupt, &mut size.near, &nothing)?);
        }
    }
    let Pair { source, target: Some(target), interrupt } = pair else { return Ok(samples) };
    samples.load = plan.rows_of_copies();
    loads(source, target, interrupt, &mut plan, &mut samples)?;
    moves(pair, &mut plan, &mut samples)?;
    Ok(samples)
}

/// Every single step of a device with these features.
pub(super) fn single_steps(features: Features) -> impl Iterator<Item = (State, State)> {
    let pairs = State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to)));
    pairs.filter(move |&(from, to)| from != to && arc::next(features, from, to) == Some(to))
}

/// Walks all arcs, those of the target without a sample so far.
fn walks(pair: &mut Pair<'_>, rounds: u32, samples: &mut Samples) -> Result<(), Wrong> {
    let features = pair.source.device.features();
    let arcs = single_steps(features).map(|(from, to)| ArcSamples { from, to, times: Vec::new() });
    samples.arcs = arcs.filter(|arc| pair.target.is_some() || !arc.is_of_target()).collect();
    say("measuring arcs");
    for _ in 0..rounds {
        let mut left: Vec<_> = samples.arcs.iter_mut().filter(|arc| !arc.is_of_target()).collect();
        while !left.is_empty() {
            pair.check_interrupt()?;
            let at = pair.source.device.state();
            let next = left.iter().position(|arc| arc.from == at).unwrap_or(0);
            let arc = left.swap_remove(next);
            bring(pair, features, arc.from)?;
            arc.times.push(pair.set(arc.to)?);
        }
        pair.set(State::Running)?;
        samples.no_op.push(pair.set(State::Running)?);
    }
    Ok(())
}

/// Brings the source to `state`, over RUNNING where there is no other way.
fn bring(pair: &mut Pair<'_>, features: Features, state: State) -> Result<(), Wrong> {
    let at = pair.source.device.state();
    if arc::next(features, at, state).is_none() {
        pair.set(State::Running)?;
    }
    if at == state { Ok(()) } else { pair.set(state).map(drop) }
}

/// Saves the source, which runs again afterwards.
fn save(source: &mut Side, interrupt: &Interrupt, buffer: &mut Buffer, sink: &File) -> Result<Copied, Wrong> {
    let interrupt = Some(interrupt.clone());
    let (mut device, about) = Noted::of(source.device.member(None, buffer));
    let member = vec![about.member(&mut device)];
    let link = Link::new(sink.as_fd(), interrupt.clone());
    let plan = Save { interrupt, ..Save::default() };
    let mut kept = None;
    let keep = || {
        kept = Some(Instant::now());
        Ok(())
    };
    let (saved, calls) = calls::during(|| transfer::save(member, link, &plan, keep, &nobody));
    let time = device.set(State::StopCopy).zip(kept).map(|(set, kept)| kept - set.ended);
    let device_calls = device.data_calls();
    let report = saved.map_err(|error| source.failed(error))?;
    Ok(Copied { bytes: all_bytes(&report), time: time.unwrap_or_default(), device_calls, calls })
}

/// Loads the target with every buffer; the first one's loads give the samples of its arcs.
fn loads(
    source: &mut Side,
    target: &mut Side,
    interrupt: &Interrupt,
    plan: &mut Plan,
    samples: &mut Samples,
) -> Result<(), Wrong> {
    say("measuring load");
    let memory = memfd_create("vfio-migrate bench", MemfdFlags::CLOEXEC);
    let mut stream = File::from(memory.map_err(|errno| Reason::Keep(errno.into()))?);
    if let Some(largest) = plan.sizes.iter_mut().max_by_key(|size| size.bytes) {
        save(source, interrupt, &mut largest.near, &stream)?;
    }
    target.become_a_copy()?;
    for _ in 0..plan.rounds {
        for (index, (size, row)) in plan.sizes.iter_mut().zip(&mut samples.load).enumerate() {
            stream.seek(SeekFrom::Start(0)).map_err(Reason::Keep)?;
            let loaded = load(target, interrupt, &mut size.far, &stream);
            let (copied, sets) = loaded.map_err(|error| source.failed(error))?;
            row.copies.push(copied);
            let of_target = samples.arcs.iter_mut().filter(|arc| arc.is_of_target() && index == 0);
            for arc in of_target {
                arc.times.extend(sets.iter().filter(|set| set.state == arc.to).map(|set| set.took));
            }
        }
    }
    Ok(())
}

/// Loads the target, from STOP to STOP; returns the SETs to RESUMING and from there as well.
fn load(
    target: &mut Side,
    interrupt: &Interrupt,
    buffer: &mut Buffer,
    stream: &File,
) -> Result<(Copied, Vec<Set>), Error> {
    let (mut device, about) = Noted::of(target.device.member(None, buffer));
    let member = vec![about.member(&mut device)];
    let link = Link::new(stream.as_fd(), Some(interrupt.clone()));
    let plan = Load { leave: Leave::Stopped, ..Load::default() };
    let (loaded, calls) = calls::during(|| transfer::load(member, link, &plan, &nobody));
    let bytes = all_bytes(&loaded?);
    let (resuming, stop) = (device.set(State::Resuming), device.set(State::Stop));
    let time = resuming.zip(stop).map(|(resuming, stop)| stop.began - resuming.ended);
    let device_calls = device.data_calls();
    let copied = Copied { bytes, time: time.unwrap_or_default(), device_calls, calls };
    Ok((copied, resuming.into_iter().chain(stop).collect()))
}

/// Moves the source into the target without pre-copy and with it, where both have it.
fn moves(pair: &mut Pair<'_>, plan: &mut Plan, samples: &mut Samples) -> Result<(), Wrong> {
    let has = |side: &Side| side.device.features().pre_copy;
    let can_pre_copy = has(&pair.source) && pair.target.as_ref().is_some_and(has);
    let ways = [Some(false), can_pre_copy.then_some(true)].into_iter().flatten();
    let row = |pre_copy| MoveSamples { pre_copy, buffer: plan.moves_with.bytes, moves: Vec::new() };
    samples.downtime = ways.map(row).collect();
    say("measuring downtime");
    if can_pre_copy {
        pair.source.device.prepare_pre_copy();
    }
    for round in 0..plan.rounds {
        for row in &mut samples.downtime {
            // What did not come to a stop once is not waited for again.
            if row.pre_copy && row.moves.len() < usize::try_from(round).unwrap_or_default() {
                continue;
            }
            let pre_copy = row.pre_copy.then_some(plan.pre_copy);
            row.moves.extend(hand_over(pair, &mut plan.moves_with, pre_copy)?);
            pair.part()?;
        }
    }
    Ok(())
}

/// One move; nothing where pre-copy did not come to a stop that is short enough.
fn hand_over(
    pair: &mut Pair<'_>,
    size: &mut Size,
    pre_copy: Option<PreCopy<'static>>,
) -> Result<Option<Moved>, Wrong> {
    let Pair { source, target: Some(target), interrupt } = pair else { return Ok(None) };
    let (mut near, about_near) = Noted::of(source.device.member(None, &mut size.near));
    let (mut far, about_far) = Noted::of(target.device.member(None, &mut size.far));
    let members = (vec![about_near.member(&mut near)], vec![about_far.member(&mut far)]);
    let plan = Save { pre_copy, interrupt: Some(interrupt.clone()), ..Save::default() };
    let moved = transfer::hand_over(members.0, members.1, &plan, &Load::default(), &nobody);
    let stopped = near.set(State::StopCopy);
    let started = far.set(State::Stop).zip(far.set(State::Running));
    let report = match moved {
        Ok(report) => report,
        Err(error) => {
            let wrong = source.failed(error);
            let went_on = matches!(wrong.reason, Reason::WillNotConverge(_) | Reason::NotAcknowledged { .. });
            let are_well = source.runs_with_its_content() && target.device.state() == State::Running;
            return if went_on && are_well { Ok(None) } else { Err(wrong) };
        }
    };
    Ok(stopped.zip(started).map(|(stopped, (loaded, runs))| Moved {
        bytes: all_bytes(&report),
        stopped_bytes: report.downtime_bytes,
        stop: stopped.ended - stopped.began,
        copy: loaded.began - stopped.ended,
        start: runs.ended - loaded.began,
    }))
}

fn all_bytes(report: &Report) -> u64 {
    report.entries.iter().map(|entry| entry.data_bytes).sum()
}

/// What takes all bytes at once and keeps none; it never blocks, so that the link need not ask.
fn nothing() -> io::Result<File> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().write(true).custom_flags(nonblocking).open("/dev/null")
}

fn nobody(_: &Event) {}
