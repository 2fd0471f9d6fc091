//! Several devices of one machine in lockstep, because they may reach each other by peer-to-peer DMA.
//!
//! No device may start a DMA of its own while another one stands still. So all are quiesced before any is stopped, all
//! are stopped before any is finished, and on the way back all are in RUNNING_P2P before any runs. A [`Fleet`] is told
//! the phase of each device's session and says whether an order may be given now. It owns no session: each may have
//! its own thread.
//!
//! When one device fails, [`Verdict::GoBack`] answers every other order: each session is ordered to retreat, also one
//! that has finished, which brings it as far as RUNNING_P2P, and cancelled once [`Order::Cancel`] may go. A device that
//! only a reset could save is not waited for: it has lost its guest's set-up and starts nothing. Where devices of a
//! paused machine were saved and one of them runs already, the others run on, too.
//!
//! Once the machine's state has been handed over there is no way back: a source that ran again would run the machine
//! twice. From [`Fleet::commit`] on a device that fails is lost alone, and the others finish, or run on, without it.
//!
//! # What a caller does
//!
//! For each order on the way, ask [`Fleet::may`] for each device. [`Verdict::Go`]: give the order, carry it out, tell
//! the phase with [`Fleet::source`] or [`Fleet::destination`]. [`Verdict::Done`]: the device needs no such order.
//! [`Verdict::Wait`]: see to the other devices first, then ask again. Tell every phase, also those of chunks and of
//! orders that need no leave. On [`Verdict::GoBack`]: order every session to retreat, carry that out and tell its
//! phase; then ask for [`Order::Cancel`] for each, cancel, carry that out and tell again. Once the state is handed
//! over, [`Fleet::commit`].
//!
//! Source: uapi, comment on `VFIO_DEVICE_STATE_RUNNING_P2P`.
//!
//! Deliberately absent: data and the link, which need no lockstep. Of pre-copy a fleet knows only whether all initial
//! data are there; each device copies at its own pace.

use core::fmt;

use heapless::Vec;

use super::{DestinationPhase, Failure, Left, SourcePhase};
use crate::device::{Features, State};
use crate::stream::record::Terminator;

/// A device as it joins a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining<'n> {
    /// What it is called in reports.
    pub name: &'n str,
    /// What its driver can do.
    pub features: Features,
    /// The state that GET says.
    pub now: State,
}

/// An order that needs lockstep. The others of a session can be given at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Order {
    /// `Source::quiesce`.
    Quiesce,
    /// `Source::stop`.
    Stop,
    /// `Source::finish`.
    Finish,
    /// `run_p2p` of both roles.
    RunP2p,
    /// `run` of both roles.
    Run,
    /// `Source::cancel` behind `Source::retreat`, which needs no leave; nor does `Destination::cancel`, which resets.
    /// After [`Fleet::commit`] it must not be given: [`Verdict::Done`] is answered, as there is nothing to go back to.
    Cancel,
}

/// Whether an order may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Verdict {
    /// It may.
    Go,
    /// Another device is not so far yet: ask again when a phase was told.
    Wait,
    /// The device is there already, or needs no such step.
    Done,
    /// A device failed or the fleet was cancelled: retreat, then cancel. Never answered after [`Fleet::commit`], since
    /// the machine could run twice then: here, and where its state went.
    GoBack,
}

/// Why devices can't migrate together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused<'n, const N: usize> {
    /// Without P2P a device could reach into one that stands still already.
    NoP2p {
        /// The devices whose drivers lack it.
        names: Vec<&'n str, N>,
    },
    /// More devices than the fleet has room for.
    TooMany {
        /// How many there were.
        got: usize,
    },
}

impl<const N: usize> fmt::Display for Refused<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoP2p { names } => {
                f.write_str("wanted P2P of every device, since several migrate together; without it are")?;
                names
                    .iter()
                    .enumerate()
                    .try_for_each(|(index, name)| write!(f, "{} {name}", if index == 0 { "" } else { "," }))
            }
            Self::TooMany { got } => write!(f, "wanted at most {N} devices, got {got}"),
        }
    }
}

impl<const N: usize> core::error::Error for Refused<'_, N> {}

/// Up to `N` devices that migrate together.
#[derive(Clone, Debug)]
pub struct Fleet<'n, const N: usize> {
    members: Vec<Member<'n>, N>,
    /// Whether a device failed or the fleet was cancelled; not once it is committed.
    going_back: bool,
    committed: bool,
    /// Whether leave was given to run: then all others are in RUNNING_P2P at least.
    runs: bool,
    /// The first that failed.
    first: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Member<'n> {
    name: &'n str,
    stand: Stand,
    home: Stand,
    /// The order that it had leave for, until its phase is told.
    given: Option<Order>,
    is_destination: bool,
    failure: Option<Failure>,
    initial_data_there: bool,
}

/// How much a device may still do of its own accord.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It may start DMA to others: RUNNING, PRE_COPY.
    Active,
    /// It starts none, but others may reach it: RUNNING_P2P, PRE_COPY_P2P.
    Quiet,
    /// It stands still, and its state is not on its way: STOP, of a paused machine or after a failure.
    Paused,
    /// It stands still, and its state is on its way: STOP_COPY, RESUMING.
    Still,
    /// It stands still, and its state has arrived: STOP.
    Settled,
    /// It was reset, or nothing is known of it.
    Lost,
}

impl<'n, const N: usize> Fleet<'n, N> {
    /// A fleet of these devices.
    ///
    /// # Errors
    /// [`Refused`]; nothing has been done to any device.
    pub fn new(devices: &[Joining<'n>]) -> Result<Self, Refused<'n, N>> {
        let mut members = Vec::new();
        let mut names = Vec::new();
        for &Joining { name, features, now } in devices {
            let home = stand_in(now);
            let initial_data_there = !features.pre_copy;
            let member = Member {
                name,
                stand: home,
                home,
                given: None,
                is_destination: false,
                failure: None,
                initial_data_there,
            };
            let too_many = Refused::TooMany { got: devices.len() };
            if members.push(member).is_err() || (!features.p2p && names.push(name).is_err()) {
                return Err(too_many);
            }
        }
        if members.len() > 1 && !names.is_empty() {
            return Err(Refused::NoP2p { names });
        }
        Ok(Self { members, going_back: false, committed: false, runs: false, first: None })
    }

    /// Takes note of the phase of a source. A number past the last device changes nothing.
    pub fn source(&mut self, index: usize, phase: SourcePhase) {
        self.told(index, false);
        match phase {
            SourcePhase::Ready(state) => self.stands(index, stand_in(state)),
            // A device that goes without pre-copy has no initial data to wait for.
            SourcePhase::SetUp => self.initial_data(index, true),
            SourcePhase::PreCopy(chunk) => {
                self.stands(index, Stand::Active);
                self.initial_data(index, chunk.init_data_sent);
            }
            SourcePhase::Quiesced => self.stands(index, Stand::Quiet),
            SourcePhase::Copying | SourcePhase::Copied => self.stands(index, Stand::Still),
            SourcePhase::Stopped => self.stands(index, Stand::Settled),
            SourcePhase::Failed(failure) => self.failed(index, failure),
        }
    }

    /// Takes note of the phase of a destination. A number past the last device changes nothing.
    pub fn destination(&mut self, index: usize, phase: DestinationPhase) {
        self.told(index, true);
        match phase {
            DestinationPhase::Ready(state) => self.stands(index, stand_in(state)),
            DestinationPhase::Resuming | DestinationPhase::Section(Terminator::EndOfState) => {
                self.stands(index, Stand::Still);
            }
            DestinationPhase::Section(Terminator::InitDataSent) => {
                self.stands(index, Stand::Still);
                self.initial_data(index, true);
            }
            DestinationPhase::Section(Terminator::ConfigLoadReady) => self.stands(index, Stand::Still),
            DestinationPhase::Stopped => self.stands(index, Stand::Settled),
            DestinationPhase::RunningP2p => self.stands(index, Stand::Quiet),
            DestinationPhase::Running => self.stands(index, Stand::Active),
            DestinationPhase::Failed(failure) => self.failed(index, failure),
        }
    }

    /// Gives up: from now on every order but [`Order::Cancel`] is answered with [`Verdict::GoBack`]. Changes nothing
    /// after [`Fleet::commit`].
    pub fn cancel(&mut self) {
        self.going_back = !self.committed;
    }

    /// Takes note that the machine's state has been handed over: the stream is kept, or the destination runs. From here
    /// no device goes back, whatever fails; a failed one is not waited for any more where it was reset or nothing is
    /// known of it, and the others finish and run as before; for it no leave must be asked. There is no way to take it
    /// back.
    ///
    /// Wanted: that all devices' data are out, at a source, or loaded, at a destination, and that none has turned back.
    /// One that has stays where it is, and the others wait for it.
    pub fn commit(&mut self) {
        self.committed = true;
        self.going_back = false;
    }

    /// Whether `order` may be given to the session of device `index`. After [`Verdict::Go`] give it: the others go by
    /// that until a phase of the device is told. A number past the last device waits for ever.
    pub fn may(&mut self, index: usize, order: Order) -> Verdict {
        let verdict = self.verdict(index, order);
        if verdict == Verdict::Go
            && let Some(member) = self.members.get_mut(index)
        {
            member.given = Some(order);
            self.runs |= order == Order::Run;
        }
        verdict
    }

    fn verdict(&self, index: usize, order: Order) -> Verdict {
        let Some(member) = self.members.get(index) else { return Verdict::Wait };
        let go_if = |fits: bool| if fits { Verdict::Go } else { Verdict::Wait };
        let mut others = self.others(index);
        // The device of a paused machine can't go back to STOP while another one runs already.
        let runs_on = order == Order::Run
            && self.runs
            && member.may_run_on()
            && self.others(index).all(|other| !other.may_be_still());
        if self.going_back && order != Order::Cancel && !runs_on {
            return Verdict::GoBack;
        }
        match order {
            Order::Quiesce | Order::Stop | Order::Cancel if self.committed => Verdict::Done,
            Order::Cancel => go_if(others.all(|other| other.stand == other.home || !other.may_be_still())),
            Order::Quiesce if self.is_alone() || member.stand != Stand::Active => Verdict::Done,
            Order::Quiesce => Verdict::Go,
            Order::Stop if member.stand == Stand::Still => Verdict::Done,
            Order::Stop if !self.is_alone() && member.stand == Stand::Active => Verdict::Wait,
            Order::Stop => go_if(others.all(|other| other.stand != Stand::Active)),
            Order::Finish if member.stand == Stand::Settled => Verdict::Done,
            Order::Finish => go_if(others.all(Member::is_still)),
            Order::RunP2p if self.is_alone() || member.stand == Stand::Quiet => Verdict::Done,
            Order::RunP2p => go_if(others.all(|other| matches!(other.stand, Stand::Settled | Stand::Quiet))),
            Order::Run if member.stand == Stand::Active => Verdict::Done,
            Order::Run if !self.is_alone() && member.stand != Stand::Quiet => Verdict::Wait,
            Order::Run => go_if(others.all(|other| matches!(other.stand, Stand::Quiet | Stand::Active))),
        }
    }

    /// Whether every device that has pre-copy is past its initial data: sent, at a source, with INIT_DATA_SENT behind
    /// it; loaded, at a destination. Then the switchover may be acknowledged.
    #[must_use]
    pub fn initial_data_there(&self) -> bool {
        self.members.iter().all(|member| member.initial_data_there)
    }

    /// The device that failed first, and how.
    #[must_use]
    pub fn first_failure(&self) -> Option<(&'n str, Failure)> {
        let member = self.members.get(self.first?)?;
        Some((member.name, member.failure?))
    }

    /// Each device's name, and how it failed where it did: where it stands is in there.
    pub fn report(&self) -> impl Iterator<Item = (&'n str, Option<Failure>)> {
        self.members.iter().map(|member| (member.name, member.failure))
    }

    /// The other devices that still count.
    fn others(&self, index: usize) -> impl Iterator<Item = &Member<'n>> {
        let others = self.members.iter().enumerate().filter(move |&(other, _)| other != index);
        others.map(|(_, other)| other).filter(|other| other.stand != Stand::Lost)
    }

    fn is_alone(&self) -> bool {
        self.members.len() < 2
    }

    fn told(&mut self, index: usize, is_destination: bool) {
        if let Some(member) = self.members.get_mut(index) {
            member.given = None;
            member.is_destination = is_destination;
        }
    }

    fn stands(&mut self, index: usize, stand: Stand) {
        if let Some(member) = self.members.get_mut(index) {
            member.stand = stand;
        }
    }

    fn initial_data(&mut self, index: usize, there: bool) {
        if let Some(member) = self.members.get_mut(index) {
            member.initial_data_there = there;
        }
    }

    fn failed(&mut self, index: usize, failure: Failure) {
        let Some(member) = self.members.get_mut(index) else { return };
        member.failure = Some(failure);
        member.stand = match failure.device {
            Left::At(state) => stand_in(state),
            Left::Reset | Left::Unknown => Stand::Lost,
        };
        self.going_back = !self.committed;
        self.first = self.first.or(Some(index));
    }
}

impl Member<'_> {
    fn is_still(&self) -> bool {
        matches!(self.stand, Stand::Paused | Stand::Still | Stand::Settled)
    }

    /// Whether it is a paused machine's source, on its way to run.
    fn may_run_on(&self) -> bool {
        self.home == Stand::Paused && self.stand == Stand::Quiet && !self.is_destination
    }

    /// Whether it stands still, or is on its way there.
    fn may_be_still(&self) -> bool {
        self.is_still() || self.given == Some(Order::Stop)
    }
}

/// What a device does in `state`.
fn stand_in(state: State) -> Stand {
    match state {
        State::Running | State::PreCopy => Stand::Active,
        State::RunningP2p | State::PreCopyP2p => Stand::Quiet,
        State::StopCopy | State::Resuming | State::Error => Stand::Still,
        State::Stop => Stand::Paused,
    }
}
