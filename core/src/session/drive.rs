//! The blocking loop over a source and a destination, for callers who have a thread to spend.
//!
//! Deliberately absent: waiting. A [`Device`] or a [`Transport`] returns when it has an answer.

use core::time::Duration;

use super::event::Observe;
use super::{
    Code, DataRead, Destination, DestinationDone, DestinationEffect, DestinationPhase, Misuse, PrecopyInfo,
    Source, SourceDone, SourceEffect, SourcePhase,
};
use crate::device::State;

/// A device that migrates: what a session asks of the kernel.
pub trait Device {
    /// SETs a state and keeps the data fd in step with it: [`data_session`](crate::device::arc::data_session) says
    /// when a new one comes, when the old one goes on, and when it has to be closed. After a refusal GET says where the
    /// device is.
    ///
    /// # Errors
    /// The kernel's answer, or an answer of its own when a data fd came unexpectedly or is missing.
    fn set_state(&mut self, state: State) -> Result<(), Code>;

    /// Asks the data fd how much PRE_COPY has left, with a zeroed structure: drivers leave fields that they do not set.
    /// A device without PRE_COPY is never asked.
    ///
    /// # Errors
    /// The kernel's answer.
    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code>;

    /// One read of the data fd.
    ///
    /// # Errors
    /// The kernel's answer; ENOMSG is no error but [`DataRead::Drained`].
    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code>;

    /// One write to the data fd; returns how many bytes it took.
    ///
    /// # Errors
    /// The kernel's answer.
    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code>;

    /// Resets the device and arms its interrupts again.
    ///
    /// # Errors
    /// The kernel's answer.
    fn reset(&mut self) -> Result<(), Code>;
}

/// A stream of bytes to or from the other side.
pub trait Transport {
    /// Gives bytes to the other side; returns how many were taken, 0 where it is gone.
    ///
    /// # Errors
    /// What went wrong.
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code>;

    /// Takes bytes from the other side, from the front of `buffer` on; returns how many, 0 at the end.
    ///
    /// # Errors
    /// What went wrong.
    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code>;

    /// Sends the whole body of the device's configuration.
    ///
    /// # Errors
    /// What went wrong.
    fn send_config(&mut self) -> Result<(), Code>;

    /// Receives the whole body of the device's configuration, applies it, and returns its length in bytes.
    ///
    /// # Errors
    /// What went wrong, also that the body is not this device's.
    fn recv_config(&mut self) -> Result<u64, Code>;
}

/// Carries out the order that `source` has, with every failure's recovery, tells `observer` of each thing done, and
/// returns the phase it ends in.
///
/// # Errors
/// [`Misuse`] when `device` or `link` reports more bytes than it was offered, which is a mistake in them. The device is
/// where it was: [`Source::cancel`] and another call bring it back.
pub fn source(
    source: &mut Source<'_>,
    device: &mut impl Device,
    link: &mut impl Transport,
    mut observer: impl Observe,
) -> Result<SourcePhase, Misuse> {
    loop {
        let began = observer.now();
        let done = match source.poll() {
            SourceEffect::SetState(state) => SourceDone::SetState(device.set_state(state)),
            SourceEffect::PrecopyInfo => SourceDone::PrecopyInfo(device.precopy_info()),
            SourceEffect::ReadData(buffer) => SourceDone::ReadData(device.read_data(buffer)),
            SourceEffect::Send(bytes) => SourceDone::Send(link.send(bytes)),
            SourceEffect::SendConfig => SourceDone::SendConfig(link.send_config()),
            SourceEffect::Reset => SourceDone::Reset(device.reset()),
            SourceEffect::Idle(phase) => return Ok(phase),
        };
        let took = since(began, &observer);
        observer.observe(&source.complete(done)?, took);
    }
}

/// Carries out the order that `destination` has, with every failure's recovery, tells `observer` of each thing done, and
/// returns the phase it ends in.
///
/// # Errors
/// [`Misuse`] when `device` or `link` reports more bytes than it was offered, which is a mistake in them. The device is
/// where it was: [`Destination::cancel`] and another call bring it back.
pub fn destination(
    destination: &mut Destination<'_>,
    device: &mut impl Device,
    link: &mut impl Transport,
    mut observer: impl Observe,
) -> Result<DestinationPhase, Misuse> {
    loop {
        let began = observer.now();
        let done = match destination.poll() {
            DestinationEffect::SetState(state) => DestinationDone::SetState(device.set_state(state)),
            DestinationEffect::Recv(buffer) => DestinationDone::Recv(link.recv(buffer)),
            DestinationEffect::WriteData(bytes) => DestinationDone::WriteData(device.write_data(bytes)),
            DestinationEffect::RecvConfig => DestinationDone::RecvConfig(link.recv_config()),
            DestinationEffect::Reset => DestinationDone::Reset(device.reset()),
            DestinationEffect::Idle(phase) => return Ok(phase),
        };
        let took = since(began, &observer);
        observer.observe(&destination.complete(done)?, took);
    }
}

fn since(began: Option<Duration>, observer: &impl Observe) -> Option<Duration> {
    // Subtracted as numbers: a subtraction of durations can panic, as far as the compiler sees.
    let nanos = observer.now()?.as_nanos().saturating_sub(began?.as_nanos());
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}
