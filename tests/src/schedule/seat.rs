//! One device of a fleet: its session, its order, and where it is on its way.
//!
//! Deliberately absent: the fleet. What it answers is followed in [`fleet`](super::fleet).

use vfio_migration_core::device::State;
use vfio_migration_core::session::fleet::{self, Joining};
use vfio_migration_core::session::{Failure, Left, SourcePhase};

use super::bench::Bench;
use super::device::ModelDevice;
use super::link::ModelLink;
use super::mutant::Layer;
use super::orders::Order;
use super::session::{Done, Phase, Session};
use super::setting::{Role, Setting};

/// What the devices are called.
pub(super) const NAMES: [&str; 2] = ["left", "right"];

/// A device of a fleet, with its session.
pub(super) struct Seat<'t, 'b> {
    pub(super) setting: &'t Setting,
    pub(super) session: Session<'b>,
    pub(super) device: ModelDevice,
    pub(super) link: ModelLink,
    pub(super) layer: Layer,
    /// The order of the script that comes next.
    pub(super) next: usize,
    /// The order that is being carried out, or was last.
    pub(super) order: Option<Order>,
    /// Whether an order is being carried out.
    pub(super) busy: bool,
    /// An operation that was done and is not told yet.
    pub(super) held: Option<Done>,
    /// Whether it had leave to stop since the fleet was told of it last.
    pub(super) may_stop: bool,
    /// The phase that the fleet was told last.
    pub(super) phase: Option<Phase>,
    pub(super) way: Way,
}

/// Where a device is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    /// The retreat was ordered.
    Back,
    /// The cancel was ordered.
    Home,
}

impl<'t, 'b> Seat<'t, 'b> {
    pub(super) fn new(who: usize, setting: &'t Setting, buffer: &'b mut [u8], bench: &Bench) -> Self {
        Self {
            setting,
            session: Session::new(setting, buffer),
            device: ModelDevice::new(who, setting.make, bench),
            link: ModelLink::new(who, &setting.incoming, setting.make.piece, bench),
            layer: Layer::new(setting.make, None),
            next: 0,
            order: None,
            busy: false,
            held: None,
            may_stop: false,
            phase: None,
            way: Way::Out,
        }
    }

    pub(super) fn joining((who, seat): (usize, &Self)) -> Joining<'t> {
        let make = &seat.setting.make;
        Joining { name: NAMES[who], features: make.features(), now: make.state }
    }

    pub(super) fn next_order(&self) -> Option<Order> {
        self.setting.script.get(self.next).copied()
    }

    pub(super) fn failure(&mut self) -> Option<Failure> {
        self.session.idle().and_then(|phase| phase.failure())
    }

    /// Whether it has nothing to do any more, unless another device fails.
    pub(super) fn has_arrived(&self) -> bool {
        let at_end = self.way == Way::Out && self.next_order().is_none();
        !self.busy && (self.way == Way::Home || at_end)
    }

    /// The fleet's word for an order of this device, where it needs lockstep. Nothing stands still for what a destination
    /// is stopped from.
    pub(super) fn lockstep(&self, order: Order) -> Option<fleet::Order> {
        match (self.setting.make.role, order) {
            (Role::Source, Order::Quiesce) => Some(fleet::Order::Quiesce),
            (Role::Source, Order::Stop) => Some(fleet::Order::Stop),
            (Role::Source, Order::Finish) => Some(fleet::Order::Finish),
            (_, Order::RunP2p) => Some(fleet::Order::RunP2p),
            (_, Order::Run) => Some(fleet::Order::Run),
            _ => None,
        }
    }

    /// Whether others have to wait for it: it stands still, by the last that was told, or is about to.
    pub(super) fn holds_others(&self) -> bool {
        let stands = match self.phase {
            None => self.setting.make.state,
            Some(Phase::Source(SourcePhase::Copying | SourcePhase::Copied)) => State::StopCopy,
            Some(Phase::Source(SourcePhase::Stopped)) => State::Stop,
            Some(Phase::Source(SourcePhase::Ready(state))) => state,
            Some(phase) => match phase.failure() {
                Some(Failure { device: Left::At(state), .. }) => state,
                _ => State::Running,
            },
        };
        self.may_stop || matches!(stands, State::Stop | State::StopCopy)
    }
}
