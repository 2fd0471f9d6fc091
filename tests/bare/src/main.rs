//! A hypervisor without an operating system, as small as one can be: it moves the state of its device, and while the
//! device or the wire is at work, the processor sleeps until an interrupt comes. This is the sending side; `receive` is
//! the other one.
//!
//! Deliberately absent: an allocator, threads, and everything else of a hypervisor.

#![no_std]
#![no_main]

mod device;
mod machine;
mod outcome;
mod receive;
mod stream;

use core::task::Poll;

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Source, SourceDone, SourceEffect, SourcePhase};

use crate::device::{Device, NO_CONFIG};
use crate::machine::{interrupts, trace};
use crate::stream::{Refusal, Writer};

/// Sends the device's state. Where that fails, the device goes back to the state that it came from, but not once the
/// stream is whole: then another machine can run the state, and this one must not.
fn send(device: &mut Device, stream: &mut Writer) -> Result<(), Refusal> {
    let mut buffer = [0; 2048]; // from 64 bytes up; nothing is allocated
    let mut source = Source::new(device.features(), State::Running, false, &mut buffer)?;
    let sent = send_all(&mut source, device, stream);
    if sent.is_err() && !stream.is_whole() {
        source.cancel();
        let _ = carry_out(&mut source, device, stream); // what failed first is what is told
    }
    sent
}

/// Gives the orders, and puts around each payload what the stream has there.
fn send_all(source: &mut Source<'_>, device: &mut Device, stream: &mut Writer) -> Result<(), Refusal> {
    let features = device.features();
    stream.start();
    source.setup(features.pre_copy)?;
    carry_out(source, device, stream)?;
    stream.footer();
    if features.pre_copy {
        source.measure()?;
        while much_is_left(carry_out(source, device, stream)?) {
            stream.part();
            source.copy_chunk()?;
            carry_out(source, device, stream)?;
            stream.footer();
            source.measure()?;
        }
    }
    if features.p2p {
        source.quiesce()?;
        carry_out(source, device, stream)?;
    }
    source.stop()?; // the machine's processors stand still from here on
    carry_out(source, device, stream)?;
    stream.end();
    source.copy_rest()?;
    carry_out(source, device, stream)?;
    stream.footer();
    stream.finish(device.moved())?;
    source.finish()?;
    carry_out(source, device, stream).map(|_| ())
}

/// Carries out an order. What is asked for is begun at once, and an interrupt finishes it; until then the answer is
/// "not yet", and the session asks for the same again.
fn carry_out(
    source: &mut Source<'_>,
    device: &mut Device,
    stream: &mut Writer,
) -> Result<SourcePhase, Refusal> {
    loop {
        let done = match source.poll() {
            SourceEffect::SetState(state) => device.set_state(state).map(SourceDone::SetState),
            SourceEffect::PrecopyInfo => device.precopy_info().map(SourceDone::PrecopyInfo),
            SourceEffect::ReadData(buffer) => device.read_data(buffer).map(SourceDone::ReadData),
            SourceEffect::Send(bytes) => stream.send(bytes).map(SourceDone::Send),
            SourceEffect::SendConfig => Poll::Ready(SourceDone::SendConfig(Err(NO_CONFIG))),
            SourceEffect::Reset => device.reset().map(SourceDone::Reset),
            SourceEffect::Idle(SourcePhase::Failed(failure)) => return Err(failure.into()),
            SourceEffect::Idle(phase) => return Ok(phase),
        };
        match done {
            Poll::Ready(done) => trace::event(&source.complete(done)?),
            Poll::Pending => interrupts::wait(),
        }
    }
}

/// Whether to go on with pre-copy before the machine's processors stop: this is the hypervisor's policy.
fn much_is_left(phase: SourcePhase) -> bool {
    matches!(phase, SourcePhase::PreCopy(chunk) if chunk.left.is_none_or(|left| left.total() >= 4096))
}
