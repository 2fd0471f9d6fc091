//! Writes the data of several devices at once: one thread reads the stream and hands each device's payloads to the
//! thread that writes them into it.
//!
//! A lane holds [`AHEAD`] pieces of at most [`PIECE`] bytes; the reader waits where one is full.
//!
//! Deliberately absent: what a payload means. The device's session decides that; here it is walked to find its end.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use rustix::io::Errno;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::Layout;

use super::load::{Loading, Receiving, next_section};
use super::{Closed, Kind, Migratable, Reason, Watch, walk};
use crate::errno::code;
use crate::file::Reader;

/// Reads all sections up to the end byte.
///
/// # Errors
/// What went wrong first, and with which device.
pub(super) fn sections<D: Migratable, W: Watch>(
    loading: &Loading<'_, '_, W>,
    receiving: &mut [Receiving<'_, D>],
    reader: &mut Reader<impl Transport>,
) -> Result<(), (usize, Reason)> {
    let starts: Vec<_> = receiving.iter().map(|member| member.start.clone()).collect();
    let layouts: Vec<_> = receiving.iter().map(|member| member.layout).collect();
    let mut ended = vec![false; starts.len()];
    thread::scope(|scope| {
        let lanes: Vec<_> = receiving
            .iter_mut()
            .enumerate()
            .map(|(index, member)| {
                let (lane, end) = lane();
                scope.spawn(move || loading.together.note(index, write(loading, index, member, end)));
                lane
            })
            .collect();
        while !loading.together.has_failed() {
            match next_section(reader, &starts, &mut ended) {
                Ok(Some((index, kind))) => {
                    let read = lanes[index].payload(reader, kind, layouts[index]);
                    let read = read.and_then(|()| Ok(reader.footer(starts[index].id)?));
                    loading.together.note(index, read);
                }
                Ok(None) => break,
                Err(reason) => loading.together.note(0, Err(reason)),
            }
        }
    });
    loading.together.outcome()
}

/// Writes what comes over a lane, payload by payload, until its other end is gone.
fn write<D: Migratable, W: Watch>(
    loading: &Loading<'_, '_, W>,
    index: usize,
    member: &mut Receiving<'_, D>,
    mut end: LaneEnd,
) -> Result<(), Reason> {
    while let Ok(piece) = end.pieces.recv() {
        if let Piece::Payload(kind, offset) = piece {
            loading.payload(index, member, kind, offset, &mut end)?;
        }
    }
    Ok(())
}

/// What goes over a lane.
enum Piece {
    /// A payload of a section of this kind begins, at this byte of the stream.
    Payload(Kind, u64),
    /// Bytes of it.
    Bytes(Vec<u8>),
}

/// The reader's end of a lane.
struct Lane {
    pieces: SyncSender<Piece>,
    /// Memory that was used before.
    spare: Receiver<Vec<u8>>,
}

/// The device's end of a lane, and the transport of its session.
struct LaneEnd {
    pieces: Receiver<Piece>,
    spare: Sender<Vec<u8>>,
    bytes: Vec<u8>,
    taken: usize,
}

fn lane() -> (Lane, LaneEnd) {
    let (pieces_in, pieces) = sync_channel(AHEAD);
    let (spare, spare_out) = channel();
    (Lane { pieces: pieces_in, spare: spare_out }, LaneEnd { pieces, spare, bytes: Vec::new(), taken: 0 })
}

impl Lane {
    /// Reads one payload, and not a byte more, and sends it on its way.
    fn payload(
        &self,
        reader: &mut Reader<impl Transport>,
        kind: Kind,
        layout: Option<Layout>,
    ) -> Result<(), Reason> {
        self.send(Piece::Payload(kind, reader.offset()));
        walk::payload(reader, PIECE, layout, |bytes| {
            self.send(Piece::Bytes(std::mem::replace(bytes, self.memory())));
        })?;
        Ok(())
    }

    /// Where the device's thread has ended, it has said why.
    fn send(&self, piece: Piece) {
        let _ = self.pieces.send(piece);
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = self.spare.try_recv().unwrap_or_default();
        bytes.clear();
        bytes
    }
}

impl Transport for LaneEnd {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        Closed.send(bytes)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        while self.taken == self.bytes.len() {
            let Ok(Piece::Bytes(bytes)) = self.pieces.recv() else { return Ok(0) };
            let used = std::mem::replace(&mut self.bytes, bytes);
            self.taken = 0;
            // Nobody wants it back any more where the reader has ended.
            let _ = self.spare.send(used);
        }
        let count = buffer.len().min(self.bytes.len() - self.taken);
        buffer[..count].copy_from_slice(&self.bytes[self.taken..][..count]);
        self.taken += count;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(code(Errno::OPNOTSUPP))
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        Err(code(Errno::OPNOTSUPP))
    }
}

/// How many pieces wait in a lane at most.
const AHEAD: usize = 4;
/// The most bytes of data in a piece; those of records without data are so many at most.
const PIECE: usize = 256 << 10;
