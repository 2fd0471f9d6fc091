//! Sessions of both roles behind one face, driven one operation at a time.
//!
//! Core's blocking loop is here too, for runs in which nothing comes between an operation and its report.
//!
//! Deliberately absent: which order follows which.

use vfio_migration_core::session::drive::{self, Device, Transport};
use vfio_migration_core::session::{
    Destination, DestinationDone, DestinationEffect, DestinationPhase, Event, Failure, Misuse, Source,
    SourceDone, SourceEffect, SourcePhase,
};

use super::device::ModelDevice;
use super::link::ModelLink;
use super::log::Ask;
use super::mutant::Layer;
use super::orders::Order;
use super::setting::{Role, Setting};

/// A session.
#[derive(Debug)]
pub enum Session<'b> {
    /// The sending side.
    Source(Source<'b>),
    /// The receiving side.
    Destination(Destination<'b>),
}

/// Where an idle session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The sending side.
    Source(SourcePhase),
    /// The receiving side.
    Destination(DestinationPhase),
}

/// What was done for a session.
#[derive(Clone, Copy, Debug)]
pub enum Done {
    /// The sending side.
    Source(SourceDone),
    /// The receiving side.
    Destination(DestinationDone),
}

impl Phase {
    /// How the session failed, where it did.
    #[must_use]
    pub const fn failure(&self) -> Option<Failure> {
        match self {
            Self::Source(SourcePhase::Failed(failure))
            | Self::Destination(DestinationPhase::Failed(failure)) => Some(*failure),
            Self::Source(_) | Self::Destination(_) => None,
        }
    }

    /// This phase, with another failure in the place of the one that is there.
    #[must_use]
    pub fn failed(self, failure: impl FnOnce(Failure) -> Failure) -> Self {
        match self {
            Self::Source(SourcePhase::Failed(old)) => Self::Source(SourcePhase::Failed(failure(old))),
            Self::Destination(DestinationPhase::Failed(old)) => {
                Self::Destination(DestinationPhase::Failed(failure(old)))
            }
            Self::Source(_) | Self::Destination(_) => self,
        }
    }
}

impl<'b> Session<'b> {
    /// A session for the device of `setting`.
    ///
    /// # Panics
    /// When the session refuses the device.
    #[must_use]
    pub fn new(setting: &Setting, buffer: &'b mut [u8]) -> Self {
        let (make, ack) = (&setting.make, setting.ack);
        let refused = "a device that can migrate";
        match make.role {
            Role::Source => {
                Self::Source(Source::new(make.features(), make.state, ack, buffer).expect(refused))
            }
            Role::Destination => {
                Self::Destination(Destination::new(make.features(), make.state, ack, buffer).expect(refused))
            }
        }
    }

    /// Gives an order.
    ///
    /// # Errors
    /// What the session says; an order that the role does not have is [`Misuse::WrongOrder`].
    pub fn order(&mut self, order: Order) -> Result<(), Misuse> {
        match self {
            Self::Source(source) => order_source(source, order),
            Self::Destination(destination) => order_destination(destination, order),
        }
    }

    /// The phase, where the session is idle.
    pub fn idle(&mut self) -> Option<Phase> {
        match self {
            Self::Source(source) => match source.poll() {
                SourceEffect::Idle(phase) => Some(Phase::Source(phase)),
                _ => None,
            },
            Self::Destination(destination) => match destination.poll() {
                DestinationEffect::Idle(phase) => Some(Phase::Destination(phase)),
                _ => None,
            },
        }
    }

    /// Does what the session wants done, unless it is idle.
    pub fn step(
        &mut self,
        device: &mut ModelDevice,
        link: &mut ModelLink,
        layer: &mut Layer,
    ) -> Option<Done> {
        match self {
            Self::Source(source) => step_source(source, device, link, layer).map(Done::Source),
            Self::Destination(destination) => {
                step_destination(destination, device, link, layer).map(Done::Destination)
            }
        }
    }

    /// Carries out the order by core's blocking loop, and notes each thing that was told.
    ///
    /// # Errors
    /// What the loop says.
    pub fn drive(
        &mut self,
        device: &mut ModelDevice,
        link: &mut ModelLink,
        told: impl Fn(),
    ) -> Result<Phase, Misuse> {
        let observer = |_: &Event| told();
        match self {
            Self::Source(source) => drive::source(source, device, link, observer).map(Phase::Source),
            Self::Destination(destination) => {
                drive::destination(destination, device, link, observer).map(Phase::Destination)
            }
        }
    }

    /// Tells the session what was done.
    ///
    /// # Errors
    /// What the session says.
    pub fn complete(&mut self, done: Done) -> Result<(), Misuse> {
        match (self, done) {
            (Self::Source(source), Done::Source(done)) => source.complete(done).map(|_| ()),
            (Self::Destination(destination), Done::Destination(done)) => {
                destination.complete(done).map(|_| ())
            }
            (Self::Source(_), Done::Destination(_)) | (Self::Destination(_), Done::Source(_)) => {
                Err(Misuse::WrongDone)
            }
        }
    }
}

fn step_source(
    source: &mut Source<'_>,
    device: &mut ModelDevice,
    link: &mut ModelLink,
    layer: &mut Layer,
) -> Option<SourceDone> {
    Some(match source.poll() {
        SourceEffect::Idle(_) => return None,
        SourceEffect::SetState(state) => SourceDone::SetState(layer.carry_out(Ask::Set(state), device)),
        SourceEffect::Reset => SourceDone::Reset(layer.carry_out(Ask::Reset, device)),
        SourceEffect::PrecopyInfo => SourceDone::PrecopyInfo(layer.saw(Ask::Info, device.precopy_info())),
        SourceEffect::ReadData(buffer) => {
            SourceDone::ReadData(layer.saw(Ask::Read, device.read_data(buffer)))
        }
        SourceEffect::Send(bytes) => SourceDone::Send(layer.saw(Ask::Send, link.send(bytes))),
        SourceEffect::SendConfig => SourceDone::SendConfig(layer.saw(Ask::SendConfig, link.send_config())),
    })
}

fn step_destination(
    destination: &mut Destination<'_>,
    device: &mut ModelDevice,
    link: &mut ModelLink,
    layer: &mut Layer,
) -> Option<DestinationDone> {
    Some(match destination.poll() {
        DestinationEffect::Idle(_) => return None,
        DestinationEffect::SetState(state) => {
            DestinationDone::SetState(layer.carry_out(Ask::Set(state), device))
        }
        DestinationEffect::Reset => DestinationDone::Reset(layer.carry_out(Ask::Reset, device)),
        DestinationEffect::Recv(buffer) => DestinationDone::Recv(layer.saw(Ask::Recv, link.recv(buffer))),
        DestinationEffect::WriteData(bytes) => {
            DestinationDone::WriteData(layer.saw(Ask::Write, device.write_data(bytes)))
        }
        DestinationEffect::RecvConfig => {
            DestinationDone::RecvConfig(layer.saw(Ask::RecvConfig, link.recv_config()))
        }
    })
}

fn order_source(source: &mut Source<'_>, order: Order) -> Result<(), Misuse> {
    match order {
        Order::Setup => source.setup(false),
        Order::SetupPreCopy => source.setup(true),
        Order::Measure => source.measure(),
        Order::Chunk => source.copy_chunk(),
        Order::Quiesce => source.quiesce(),
        Order::Rest => source.copy_rest(),
        Order::Config => source.config(),
        Order::Finish => source.finish(),
        Order::Stop => source.stop(),
        Order::RunP2p => source.run_p2p(),
        Order::Run => source.run(),
        Order::Cancel => {
            source.cancel();
            Ok(())
        }
        Order::Retreat => {
            source.retreat();
            Ok(())
        }
        Order::Resume | Order::Section => Err(Misuse::WrongOrder),
    }
}

fn order_destination(destination: &mut Destination<'_>, order: Order) -> Result<(), Misuse> {
    match order {
        Order::Resume => destination.resume(),
        Order::Section => destination.section(),
        Order::Stop => destination.stop(),
        Order::RunP2p => destination.run_p2p(),
        Order::Run => destination.run(),
        Order::Cancel => {
            destination.cancel();
            Ok(())
        }
        Order::Setup
        | Order::SetupPreCopy
        | Order::Measure
        | Order::Chunk
        | Order::Quiesce
        | Order::Rest
        | Order::Config
        | Order::Finish
        | Order::Retreat => Err(Misuse::WrongOrder),
    }
}
