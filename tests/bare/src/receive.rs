//! The receiving side: takes the state into the device, and lets it run once the whole stream was right.
//!
//! Deliberately absent: a second try, and an answer. A device whose state did not come whole is reset, and nobody tells the
//! sender, whose device stands in STOP with its content.

use core::task::Poll;

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Destination, DestinationDone, DestinationEffect, DestinationPhase};

use crate::device::{Device, NO_CONFIG};
use crate::machine::{interrupts, trace};
use crate::stream::{Reader, Refusal};

/// Receives a state. Where that fails, the device is reset, or was not touched.
pub(crate) fn receive(device: &mut Device, stream: &mut Reader) -> Result<(), Refusal> {
    let mut buffer = [0; 2048];
    let mut destination = Destination::new(device.features(), State::Running, false, &mut buffer)?;
    let received = receive_all(&mut destination, device, stream);
    if received.is_err() {
        destination.cancel();
        let _ = carry_out(&mut destination, device, stream); // what failed first is what is told
    }
    received
}

/// Gives the orders. The device leaves RESUMING behind the checksum, not before.
fn receive_all(
    destination: &mut Destination<'_>,
    device: &mut Device,
    stream: &mut Reader,
) -> Result<(), Refusal> {
    stream.start()?;
    destination.resume()?;
    carry_out(destination, device, stream)?;
    loop {
        destination.section()?;
        carry_out(destination, device, stream)?;
        if !stream.next()? {
            break;
        }
    }
    stream.finish(device.moved())?;
    destination.stop()?; // the driver takes or refuses the state as a whole
    carry_out(destination, device, stream)?;
    destination.run()?;
    carry_out(destination, device, stream).map(|_| ())
}

/// Carries out an order, as the sending side's does.
fn carry_out(
    destination: &mut Destination<'_>,
    device: &mut Device,
    stream: &mut Reader,
) -> Result<DestinationPhase, Refusal> {
    loop {
        let done = match destination.poll() {
            DestinationEffect::SetState(state) => device.set_state(state).map(DestinationDone::SetState),
            DestinationEffect::Recv(buffer) => stream.recv(buffer).map(DestinationDone::Recv),
            DestinationEffect::WriteData(bytes) => device.write_data(bytes).map(DestinationDone::WriteData),
            DestinationEffect::RecvConfig => Poll::Ready(DestinationDone::RecvConfig(Err(NO_CONFIG))),
            DestinationEffect::Reset => device.reset().map(DestinationDone::Reset),
            DestinationEffect::Idle(DestinationPhase::Failed(failure)) => {
                return Err(Refusal::Session { payload: stream.payload(), failure });
            }
            DestinationEffect::Idle(phase) => return Ok(phase),
        };
        match done {
            Poll::Ready(done) => trace::event(&destination.complete(done)?),
            Poll::Pending => interrupts::wait(),
        }
    }
}
