//! The body of a CONFIG record between a link and a session.
//!
//! Only the word behind a body tells whether it has ended, so that word is read with it and given to the session next.
//!
//! Deliberately absent: what a body says. The device it is for looks at it once its section is through.

use rustix::io::Errno;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::pci_config::{self, Body, Layout};

use crate::errno::code;
use crate::pci::Refused;

/// A link on which a configuration may come for a device with this layout.
pub(super) struct Incoming<'l, T> {
    link: &'l mut T,
    layout: Option<Layout>,
    /// The body that came, behind it what was read of the stream.
    bytes: Vec<u8>,
    /// How much of `bytes` the session has.
    given: usize,
    /// Why it is none for this device.
    pub(super) refused: Option<Refused>,
}

impl<'l, T: Transport> Incoming<'l, T> {
    pub(super) const fn new(link: &'l mut T, layout: Option<Layout>) -> Self {
        Self { link, layout, bytes: Vec::new(), given: 0, refused: None }
    }

    /// The body that came, where one did.
    pub(super) fn body(&self) -> Option<Body<'_>> {
        self.layout.and_then(|layout| Body::decode(layout, &self.bytes).ok()).map(|(body, _)| body)
    }

    /// Reads a body and the word behind it; returns the body's length.
    fn read(&mut self, layout: Layout) -> Result<usize, Code> {
        loop {
            let wanted = match Body::decode(layout, &self.bytes) {
                Ok((_, length)) => return Ok(length),
                Err(pci_config::Error::Short { wanted }) => wanted,
                Err(error) => {
                    self.refused = Some(Refused::Body { error, layout });
                    return Err(code(Errno::BADMSG));
                }
            };
            self.fill(wanted)?;
        }
    }

    fn fill(&mut self, wanted: usize) -> Result<(), Code> {
        let mut have = self.bytes.len();
        self.bytes.resize(wanted, 0);
        while have < wanted {
            have += match self.link.recv(&mut self.bytes[have..])? {
                0 => {
                    self.refused = Some(Refused::Ended { missing: wanted - have });
                    return Err(code(Errno::NODATA));
                }
                count => count,
            };
        }
        Ok(())
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
        let Some(layout) = self.layout else {
            self.refused = Some(Refused::NoFunction);
            return Err(code(Errno::OPNOTSUPP));
        };
        self.given = self.read(layout)?;
        Ok(self.given as u64)
    }
}
