//! The body of a CONFIG record between a link and a session.
//!
//! Only the word behind a body tells whether it has ended, so that word is read with it and given to the session next.
//!
//! Deliberately absent: what a body says. Its device looks at it once its section is through.

use rustix::io::Errno;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::session::{Cause, Code};
use vfio_migration_core::stream::pci_config::Layout;
use vfio_migration_core::stream::record::{self, Tag};
use vfio_migration_core::stream::section::Begins;

use super::{Kind, Place, Reason};
use crate::errno::code;
use crate::file;
use crate::pci::{Refused, read_body};

/// A link with a section of this kind for a device whose configuration has this layout, or is empty.
pub(super) struct Incoming<'l, T> {
    link: &'l mut T,
    kind: Kind,
    layout: Option<Layout>,
    /// A body that came, behind it what was read of the stream.
    pub(super) bytes: Vec<u8>,
    /// How much of `bytes` the session has.
    given: usize,
    /// Why it is none for this device.
    pub(super) refused: Option<Refused>,
}

impl<'l, T: Transport> Incoming<'l, T> {
    pub(super) const fn new(link: &'l mut T, kind: Kind, layout: Option<Layout>) -> Self {
        Self { link, kind, layout, bytes: Vec::new(), given: 0, refused: None }
    }

    fn body(&mut self) -> Result<usize, Code> {
        let Some(layout) = self.layout else { return Ok(0) };
        let Self { link, bytes, refused, .. } = self;
        match read_body(layout, bytes, |rest| fill(*link, rest, refused))? {
            Ok(length) => Ok(length),
            Err(error) => {
                *refused = Some(Refused::Body { error, layout });
                Err(code(Errno::BADMSG))
            }
        }
    }
}

impl<T: Transport> Transport for Incoming<'_, T> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.link.send(bytes)
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let left = &self.bytes[self.given..];
        if left.is_empty() {
            return self.link.recv(buffer);
        }
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.given += count;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        self.link.send_config()
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        match self.kind {
            Kind::Begin(Begins::Full) => {}
            Kind::Begin(Begins::Start) | Kind::Continue(_) => {
                self.refused = Some(Refused::OutOfPlace);
                return Err(code(Errno::BADMSG));
            }
        }
        self.given = self.body()?;
        Ok(self.given as u64)
    }
}

/// What went wrong with a section's payload, in the words of its device: one that is no PCI function has an empty body,
/// behind which END_OF_STATE is wanted.
pub(super) fn in_its_words(reason: Reason, layout: Option<Layout>) -> Reason {
    let is_body =
        |error: &record::Error| matches!(error, record::Error::Unterminated { after: Tag::Config, .. });
    match reason {
        Reason::Session { place, cause: Cause::Record(error) } if layout.is_none() && is_body(&error) => {
            Reason::config(place, Refused::NoFunction)
        }
        Reason::Stream(file::Error::Record { error, .. }) if layout.is_none() && is_body(&error) => {
            Reason::config(Place::default(), Refused::NoFunction)
        }
        reason => reason,
    }
}

/// Fills `buffer` from `link`.
fn fill(link: &mut impl Transport, buffer: &mut [u8], refused: &mut Option<Refused>) -> Result<(), Code> {
    let mut have = 0;
    while have < buffer.len() {
        have += match link.recv(&mut buffer[have..])? {
            0 => {
                *refused = Some(Refused::Ended { missing: buffer.len() - have });
                return Err(code(Errno::NODATA));
            }
            count => count,
        };
    }
    Ok(())
}
