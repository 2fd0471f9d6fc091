//! `session`: who acts next. Each call finds a session in any state that its type can hold.
//!
//! Deliberately absent: an order of calls. Every call may be the first. What needs no session is in `together.rs`.

use core::time::Duration;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::{self, Device, Transport};
use vfio_migration_core::session::event::Observe;
use vfio_migration_core::session::{
    Cause, Code, DataRead, Destination, DestinationDone, DestinationEffect, DestinationPhase, Event, Misuse,
    PrecopyInfo, Source, SourceDone, SourceEffect, SourcePhase,
};
use vfio_migration_core::stream::record::Tag;

#[unsafe(no_mangle)]
fn proof_source_new<'b>(
    features: &Features,
    now: &State,
    switchover_ack: &bool,
    buffer: &'b mut [u8],
) -> Result<Source<'b>, Misuse> {
    Source::new(*features, *now, *switchover_ack, buffer)
}

#[unsafe(no_mangle)]
fn proof_source_setup(source: &mut Source<'_>, pre_copy: &bool) -> Result<(), Misuse> {
    source.setup(*pre_copy)
}

#[unsafe(no_mangle)]
fn proof_source_measure(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.measure()
}

#[unsafe(no_mangle)]
fn proof_source_copy_chunk(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.copy_chunk()
}

#[unsafe(no_mangle)]
fn proof_source_quiesce(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.quiesce()
}

#[unsafe(no_mangle)]
fn proof_source_stop(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.stop()
}

#[unsafe(no_mangle)]
fn proof_source_copy_rest(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.copy_rest()
}

#[unsafe(no_mangle)]
fn proof_source_config(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.config()
}

#[unsafe(no_mangle)]
fn proof_source_finish(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.finish()
}

#[unsafe(no_mangle)]
fn proof_source_run_p2p(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.run_p2p()
}

#[unsafe(no_mangle)]
fn proof_source_run(source: &mut Source<'_>) -> Result<(), Misuse> {
    source.run()
}

#[unsafe(no_mangle)]
fn proof_source_cancel(source: &mut Source<'_>) {
    source.cancel();
}

#[unsafe(no_mangle)]
fn proof_source_retreat(source: &mut Source<'_>) {
    source.retreat();
}

#[unsafe(no_mangle)]
fn proof_source_poll<'a>(source: &'a mut Source<'_>) -> SourceEffect<'a> {
    source.poll()
}

#[unsafe(no_mangle)]
fn proof_source_complete(source: &mut Source<'_>, done: &SourceDone) -> Result<Event, Misuse> {
    source.complete(*done)
}

#[unsafe(no_mangle)]
fn proof_source_drive(
    source: &mut Source<'_>,
    device: &mut AnyDevice<'_>,
    link: &mut AnyTransport<'_>,
    observer: &mut dyn Observe,
) -> Result<SourcePhase, Misuse> {
    drive::source(source, device, link, AnyObserver(observer))
}

#[unsafe(no_mangle)]
fn proof_source_drive_without_a_clock(
    source: &mut Source<'_>,
    device: &mut AnyDevice<'_>,
    link: &mut AnyTransport<'_>,
    observe: &mut dyn FnMut(&Event),
) -> Result<SourcePhase, Misuse> {
    drive::source(source, device, link, observe)
}

#[unsafe(no_mangle)]
fn proof_destination_new<'b>(
    features: &Features,
    now: &State,
    switchover_ack: &bool,
    buffer: &'b mut [u8],
) -> Result<Destination<'b>, Misuse> {
    Destination::new(*features, *now, *switchover_ack, buffer)
}

#[unsafe(no_mangle)]
fn proof_destination_resume(destination: &mut Destination<'_>) -> Result<(), Misuse> {
    destination.resume()
}

#[unsafe(no_mangle)]
fn proof_destination_section(destination: &mut Destination<'_>) -> Result<(), Misuse> {
    destination.section()
}

#[unsafe(no_mangle)]
fn proof_destination_stop(destination: &mut Destination<'_>) -> Result<(), Misuse> {
    destination.stop()
}

#[unsafe(no_mangle)]
fn proof_destination_run_p2p(destination: &mut Destination<'_>) -> Result<(), Misuse> {
    destination.run_p2p()
}

#[unsafe(no_mangle)]
fn proof_destination_run(destination: &mut Destination<'_>) -> Result<(), Misuse> {
    destination.run()
}

#[unsafe(no_mangle)]
fn proof_destination_cancel(destination: &mut Destination<'_>) {
    destination.cancel();
}

#[unsafe(no_mangle)]
fn proof_destination_record(destination: &Destination<'_>) -> Option<Tag> {
    destination.record()
}

#[unsafe(no_mangle)]
fn proof_destination_poll<'a>(destination: &'a mut Destination<'_>) -> DestinationEffect<'a> {
    destination.poll()
}

#[unsafe(no_mangle)]
fn proof_destination_complete(
    destination: &mut Destination<'_>,
    done: &DestinationDone,
) -> Result<Event, Misuse> {
    destination.complete(*done)
}

#[unsafe(no_mangle)]
fn proof_destination_drive(
    destination: &mut Destination<'_>,
    device: &mut AnyDevice<'_>,
    link: &mut AnyTransport<'_>,
    observer: &mut dyn Observe,
) -> Result<DestinationPhase, Misuse> {
    drive::destination(destination, device, link, AnyObserver(observer))
}

#[unsafe(no_mangle)]
fn proof_destination_drive_without_a_clock(
    destination: &mut Destination<'_>,
    device: &mut AnyDevice<'_>,
    link: &mut AnyTransport<'_>,
    observe: &mut dyn FnMut(&Event),
) -> Result<DestinationPhase, Misuse> {
    drive::destination(destination, device, link, observe)
}

#[unsafe(no_mangle)]
fn proof_cause_code(cause: &Cause) -> Option<Code> {
    cause.code()
}

#[unsafe(no_mangle)]
fn proof_cause_offset(cause: &Cause) -> Option<u64> {
    cause.offset()
}

#[unsafe(no_mangle)]
fn proof_event_is_ok(event: &Event) -> bool {
    event.is_ok()
}

/// An observer that the compiler knows nothing of, which may have a clock.
struct AnyObserver<'a>(&'a mut dyn Observe);

impl Observe for AnyObserver<'_> {
    fn now(&self) -> Option<Duration> {
        self.0.now()
    }

    fn observe(&mut self, event: &Event, took: Option<Duration>) {
        self.0.observe(event, took);
    }
}

/// A device that the compiler knows nothing of.
struct AnyDevice<'a>(&'a mut dyn Device);

impl Device for AnyDevice<'_> {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        self.0.set_state(state)
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        self.0.precopy_info()
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        self.0.read_data(buffer)
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.0.write_data(bytes)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.0.reset()
    }
}

/// A link that the compiler knows nothing of.
struct AnyTransport<'a>(&'a mut dyn Transport);

impl Transport for AnyTransport<'_> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.0.send(bytes)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        self.0.recv(buffer)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        self.0.send_config()
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        self.0.recv_config()
    }
}
