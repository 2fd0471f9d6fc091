//! VFIO device migration for any hypervisor: protocol v2's state machine and QEMU's stream, as an engine without
//! allocator and without I/O.
//!
//! A device that is assigned to a virtual machine has state inside it. Linux lets whoever holds the device's file
//! descriptor move that state: through a state machine driven by ioctls, and a stream of bytes read from one device
//! and written to another. This crate knows the states, the order of steps, what to do when one fails, and every byte
//! of the stream; it asks for one system call at a time and is told how it went. The caller makes the calls.
//!
//! # The caller's loop
//!
//! A [`Source`](session::Source) takes an order, then asks for effects until it is idle. [`session::drive`] has this
//! loop for callers with a thread to spend; written out, it may as well wait for an interrupt between
//! [`poll`](session::Source::poll) and [`complete`](session::Source::complete):
//!
//! ```
//! use vfio_migration_core::device::{Features, State};
//! use vfio_migration_core::session::drive::{self, Device, Transport};
//! use vfio_migration_core::session::{
//!     Code, DataRead, Destination, DestinationPhase, Event, PrecopyInfo, Source, SourceDone, SourceEffect, SourcePhase,
//! };
//! use vfio_migration_core::stream::record::Terminator;
//! # /// A device of 100 bytes. A real one makes the ioctls that `device::uapi` describes.
//! # struct Card { content: [u8; 100], at: usize }
//! # impl Device for Card {
//! #     fn set_state(&mut self, _: State) -> Result<(), Code> { self.at = 0; Ok(()) }
//! #     fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> { Err(Code(22)) }
//! #     fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
//! #         let count = buffer.len().min(self.content.len() - self.at);
//! #         buffer[..count].copy_from_slice(&self.content[self.at..][..count]);
//! #         self.at += count;
//! #         Ok(DataRead::Bytes(count))
//! #     }
//! #     fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
//! #         self.content[self.at..][..bytes.len()].copy_from_slice(bytes);
//! #         self.at += bytes.len();
//! #         Ok(bytes.len())
//! #     }
//! #     fn reset(&mut self) -> Result<(), Code> { Ok(()) }
//! # }
//! # /// A wire of 1000 bytes.
//! # struct Wire { bytes: [u8; 1000], sent: usize, received: usize }
//! # impl Transport for Wire {
//! #     fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
//! #         self.bytes[self.sent..][..bytes.len()].copy_from_slice(bytes);
//! #         self.sent += bytes.len();
//! #         Ok(bytes.len())
//! #     }
//! #     fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
//! #         let count = buffer.len().min(self.sent - self.received);
//! #         buffer[..count].copy_from_slice(&self.bytes[self.received..][..count]);
//! #         self.received += count;
//! #         Ok(count)
//! #     }
//! #     fn send_config(&mut self) -> Result<(), Code> { Ok(()) }
//! #     fn recv_config(&mut self) -> Result<u64, Code> { Ok(0) }
//! # }
//! # let mut device = Card { content: [7; 100], at: 0 };
//! # let mut other = Card { content: [0; 100], at: 0 };
//! # let mut link = Wire { bytes: [0; 1000], sent: 0, received: 0 };
//!
//! /// Carries out the order that `source` was given. Failures go into `complete` like all else: the session then
//! /// asks for what brings the device back. Leaving the loop early would leave the device where it is.
//! fn carry_out(source: &mut Source<'_>, device: &mut impl Device, link: &mut impl Transport) -> SourcePhase {
//!     loop {
//!         let done = match source.poll() {
//!             SourceEffect::SetState(state) => SourceDone::SetState(device.set_state(state)),
//!             SourceEffect::PrecopyInfo => SourceDone::PrecopyInfo(device.precopy_info()),
//!             SourceEffect::ReadData(buffer) => SourceDone::ReadData(device.read_data(buffer)),
//!             SourceEffect::Send(bytes) => SourceDone::Send(link.send(bytes)),
//!             SourceEffect::SendConfig => SourceDone::SendConfig(link.send_config()),
//!             SourceEffect::Reset => SourceDone::Reset(device.reset()), // and arm the interrupts again
//!             SourceEffect::Idle(phase) => return phase,
//!         };
//!         let event = source.complete(done).expect("an answer to what was asked");
//!         // One event per thing done, whether it worked or not: trace it here.
//!     }
//! }
//!
//! // The sending side. Any buffer from 64 bytes up will do; a larger one means fewer system calls, and
//! // `session::source::HEADERS` says how to lay it out so that a driver copies whole pages.
//! let mut buffer = [0; 4096];
//! let mut source = Source::new(Features::default(), State::Running, false, &mut buffer)?;
//! source.setup(false)?; // the payload of a START section
//! assert_eq!(carry_out(&mut source, &mut device, &mut link), SourcePhase::SetUp);
//! // ... the machine's processors stop here ...
//! source.stop()?;
//! assert_eq!(carry_out(&mut source, &mut device, &mut link), SourcePhase::Copying);
//! source.copy_rest()?; // the payload of an END section: all of the device's state
//! assert_eq!(carry_out(&mut source, &mut device, &mut link), SourcePhase::Copied);
//! source.finish()?;
//! assert_eq!(carry_out(&mut source, &mut device, &mut link), SourcePhase::Stopped);
//!
//! // The receiving side, with the ready-made loop.
//! let mut buffer = [0; 64];
//! let mut destination = Destination::new(Features::default(), State::Running, false, &mut buffer)?;
//! destination.resume()?;
//! drive::destination(&mut destination, &mut other, &mut link, |_event: &Event| ())?;
//! for _payload in ["START", "END"] {
//!     destination.section()?; // one payload, and not a byte past it
//!     let phase = drive::destination(&mut destination, &mut other, &mut link, |_event: &Event| ())?;
//!     assert_eq!(phase, DestinationPhase::Section(Terminator::EndOfState));
//! }
//! destination.stop()?; // the driver accepts or refuses the state as a whole
//! drive::destination(&mut destination, &mut other, &mut link, |_event: &Event| ())?;
//! destination.run()?;
//! let phase = drive::destination(&mut destination, &mut other, &mut link, |_event: &Event| ())?;
//! assert_eq!(phase, DestinationPhase::Running);
//! assert_eq!(other.content, device.content);
//! # Ok::<(), vfio_migration_core::session::Misuse>(())
//! ```
//!
//! [`Source`](session::Source) also has pre-copy, which moves what it can while the device works:
//! [`setup`](session::Source::setup) with `true`, [`measure`](session::Source::measure) to learn what is left, then
//! [`copy_chunk`](session::Source::copy_chunk), with `measure` now and then, until [`session::precopy`] advises to stop. Several devices of one machine move in the lockstep that a
//! [`Fleet`](session::Fleet) keeps.
//!
//! What holds the device's file descriptor also keeps its data fd, which comes and goes with the states:
//! [`device::arc::data_session`] says when, and [`device::uapi`] what the ioctls carry.
//!
//! A machine with a migration stream of its own embeds these payloads in it. For a QEMU, or a file that QEMU loads,
//! [`stream::section`] has what stands around them. A VMM hands its device's configuration space over as a
//! [`stream::pci_config::Body`]; what comes by QEMU's extra channels a [`stream::multifd::Receiver`] makes a payload of.
//!
//! # Where things are
//!
//! | question | folder |
//! |---|---|
//! | what does the kernel say? | [`device`]: states, arcs, recovery, ioctl payloads |
//! | what travels? | [`stream`]: records, the sections around them, PCI configurations, multifd's channels, the way back |
//! | who acts next? | [`session`]: the sending and the receiving side of a device, pre-copy, several devices |
//!
//! `device` and `stream` know nothing of each other, nor of `session`.
//!
//! Deliberately absent: I/O, a clock, an allocator, and policy. When to migrate, how long to wait and what to do with a
//! device that only a reset could save is the caller's to say.

#![no_std]
#![forbid(unsafe_code)]

pub mod device;
pub mod session;
pub mod stream;
