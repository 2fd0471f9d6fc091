//! What a session does, learnt from the session itself: each place that it can be in, and where each order leads.
//!
//! Deliberately absent: a fleet, and what may be done when.

use std::collections::{BTreeMap, HashMap};

use vfio_migration_core::device::{Features, State, arc};
use vfio_migration_core::session::{
    Destination, DestinationEffect, DestinationPhase, Event, Source, SourceEffect, SourcePhase, drive,
};
use vfio_migration_tests::model::{Faults, ModelDevice, ModelLink};
use vfio_migration_tests::script::{order_destination, order_source};

/// One side's device, as it comes to the fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) role: Role,
    pub(crate) features: Features,
    pub(crate) now: State,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// Migrates and stays stopped.
    Leaves,
    /// Is saved, then runs on.
    RunsOn,
    Comes,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Phase {
    Source(SourcePhase),
    Destination(DestinationPhase),
}

/// Where a session can be.
pub(crate) struct Place {
    pub(crate) phase: Phase,
    pub(crate) at: State,
    /// Whether the device was reset, so that what it does is nobody's any more.
    pub(crate) lost: bool,
    /// Where each order leads, first when nothing fails.
    pub(crate) edges: BTreeMap<&'static str, Vec<Edge>>,
}

/// One order carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edge {
    pub(crate) to: usize,
    /// Each state that the device may have been in meanwhile, before a reset.
    pub(crate) through: Vec<State>,
}

/// An order and the operations of it that fail.
type Step = (&'static str, Vec<usize>);

/// What a session has come to after some steps.
struct Replayed {
    phase: Phase,
    at: State,
    lost: bool,
    /// All that the session knows, but for the bytes in its buffer.
    key: String,
    through: Vec<State>,
    operations: usize,
}

fn replay(kind: Kind, steps: &[Step]) -> Replayed {
    let mut device = ModelDevice::new(kind.now, b"state", &Faults::default());
    device.early = 2;
    let mut link = ModelLink::new(&[], &Faults::default());
    let mut buffer = [0; 64];
    let mut session = match kind.role {
        Role::Leaves | Role::RunsOn => {
            Session::Source(Source::new(kind.features, kind.now, false, &mut buffer).unwrap())
        }
        Role::Comes => {
            Session::Destination(Destination::new(kind.features, kind.now, false, &mut buffer).unwrap())
        }
    };
    let (mut through, mut operations, mut lost) = (vec![kind.now], 0, false);
    for (order, fails) in steps {
        let faults = Faults::at(fails);
        (device.faults, link.faults) = (faults.clone(), faults.clone());
        let (mut current, mut seen) = (device.state, vec![device.state]);
        session.order(order);
        session.drive(&mut device, &mut link, |event: &Event| match *event {
            Event::SetState { state, result, .. } if !lost => {
                seen.extend(arc::path(kind.features, current, state).unwrap());
                current = if result.is_ok() { state } else { current };
            }
            Event::Reset { .. } => lost = true,
            _ => {}
        });
        (through, operations) = (seen, faults.operations());
    }
    let (phase, key) = session.look();
    through.sort_unstable_by_key(|state| state.raw());
    through.dedup();
    Replayed { phase, at: device.state, lost, key, through, operations }
}

enum Session<'b> {
    Source(Source<'b>),
    Destination(Destination<'b>),
}

impl Session<'_> {
    fn order(&mut self, order: &str) {
        match self {
            Self::Source(source) => order_source(source, order).unwrap(),
            Self::Destination(destination) => order_destination(destination, order).unwrap(),
        }
    }

    fn drive(&mut self, device: &mut ModelDevice, link: &mut ModelLink, observe: impl FnMut(&Event)) {
        match self {
            Self::Source(source) => drive::source(source, device, link, observe).map(|_| ()).unwrap(),
            Self::Destination(destination) => {
                drive::destination(destination, device, link, observe).map(|_| ()).unwrap();
            }
        }
    }

    fn look(&mut self) -> (Phase, String) {
        let (phase, text) = match self {
            Self::Source(source) => {
                let SourceEffect::Idle(phase) = source.poll() else { panic!("not idle") };
                (Phase::Source(phase), format!("{source:?}"))
            }
            Self::Destination(destination) => {
                let DestinationEffect::Idle(phase) = destination.poll() else { panic!("not idle") };
                (Phase::Destination(phase), format!("{destination:?}"))
            }
        };
        let (_, knows) = text.split_once(']').unwrap();
        (phase, knows.to_owned())
    }
}

/// Every order that a thread ever gives in this phase.
pub(crate) fn orders(kind: Kind, phase: Phase) -> Vec<&'static str> {
    let forward: &[_] = match phase {
        Phase::Source(SourcePhase::Ready(State::RunningP2p)) => &["run"],
        Phase::Source(SourcePhase::Ready(State::Running)) if kind.features.pre_copy => &["setup pre_copy"],
        Phase::Source(SourcePhase::Ready(_)) => &["setup"],
        Phase::Source(SourcePhase::SetUp) if kind.features.p2p && kind.now == State::Running => {
            &["quiesce", "stop"]
        }
        Phase::Source(SourcePhase::PreCopy(_)) if kind.features.p2p => &["copy_chunk", "quiesce", "stop"],
        Phase::Source(SourcePhase::PreCopy(_)) => &["copy_chunk", "stop"],
        Phase::Source(SourcePhase::SetUp | SourcePhase::Quiesced) => &["stop"],
        Phase::Source(SourcePhase::Copying) => &["copy_rest"],
        Phase::Source(SourcePhase::Copied) => &["finish"],
        Phase::Source(SourcePhase::Stopped) if kind.role == Role::Leaves => &[],
        Phase::Source(SourcePhase::Stopped) if kind.features.p2p => &["run_p2p", "run"],
        Phase::Source(SourcePhase::Stopped) => &["run"],
        Phase::Destination(DestinationPhase::Ready(_)) => &["resume"],
        Phase::Destination(DestinationPhase::Resuming) => &["stop"],
        Phase::Destination(DestinationPhase::Stopped) if kind.features.p2p => &["run_p2p", "run"],
        Phase::Destination(DestinationPhase::Stopped | DestinationPhase::RunningP2p) => &["run"],
        Phase::Destination(DestinationPhase::Running | DestinationPhase::Section(_)) => &[],
        Phase::Source(SourcePhase::Failed(_)) | Phase::Destination(DestinationPhase::Failed(_)) => &[],
    };
    let back: &[_] = if kind.role == Role::Comes { &["cancel"] } else { &["retreat", "cancel"] };
    [forward, back].concat()
}

/// Every place of a session, from its first on.
pub(crate) fn learn(kind: Kind) -> Vec<Place> {
    let mut histories = vec![vec![]];
    let first = replay(kind, &[]);
    let mut numbers = HashMap::from([((first.key.clone(), first.at, first.lost), 0)]);
    let mut places = vec![place(&first)];
    let mut next = 0;
    while let Some(history) = histories.get(next).cloned() {
        // One migration is enough: what runs on gets no more orders.
        let runs_on = history.last().is_some_and(|(order, _): &Step| *order == "run");
        let runs_on = runs_on && !failed(places[next].phase);
        for order in if runs_on { vec![] } else { orders(kind, places[next].phase) } {
            let with = |fails: Vec<usize>| [history.clone(), vec![(order, fails)]].concat();
            let operations = replay(kind, &with(vec![])).operations;
            let fails = (0..operations).flat_map(|at| (1..=3).map(move |count| (at..at + count).collect()));
            for fails in [vec![]].into_iter().chain(fails) {
                let steps = with(fails);
                let replayed = replay(kind, &steps);
                let key = (replayed.key.clone(), replayed.at, replayed.lost);
                let to = *numbers.entry(key).or_insert_with(|| {
                    places.push(place(&replayed));
                    histories.push(steps);
                    places.len() - 1
                });
                let edge = Edge { to, through: replayed.through };
                let edges = places[next].edges.entry(order).or_default();
                if !edges.contains(&edge) {
                    edges.push(edge);
                }
            }
        }
        next += 1;
    }
    places
}

fn place(replayed: &Replayed) -> Place {
    let Replayed { phase, at, lost, .. } = *replayed;
    Place { phase, at, lost, edges: BTreeMap::new() }
}

/// Whether a session has failed.
pub(crate) fn failed(phase: Phase) -> bool {
    matches!(phase, Phase::Source(SourcePhase::Failed(_)) | Phase::Destination(DestinationPhase::Failed(_)))
}
