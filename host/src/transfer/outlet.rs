//! The link of a save, which one device's thread at a time has for one section.
//!
//! Deliberately absent: a copy. A thread waits with its data in its own buffer until the link is its.

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use rustix::io::Errno;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::session::precopy::Meter;
use vfio_migration_core::stream::section::Item;

use super::Closed;
use super::together::lock;
use crate::errno::code;
use crate::file::Writer;

/// Who owns the link: a device's thread has it for one section.
pub(super) struct Outlet<Fd> {
    pub(super) writer: Writer<Fd>,
    /// How quickly it takes bytes.
    pub(super) rate: Meter,
}

/// One section on the link, which begins with the first byte of its payload.
pub(super) struct Section<'s, Fd> {
    outlet: &'s Mutex<Outlet<Fd>>,
    item: Item<'s>,
    pub(super) held: Option<MutexGuard<'s, Outlet<Fd>>>,
    /// Where the payload begins in the stream; 0 before its first byte.
    pub(super) payload: u64,
    /// The body of its CONFIG record, where it is to have one.
    pub(super) config: Option<Vec<u8>>,
}

impl<'s, Fd: AsFd> Section<'s, Fd> {
    pub(super) fn new(outlet: &'s Mutex<Outlet<Fd>>, item: Item<'s>) -> Self {
        Self { outlet, item, held: None, payload: 0, config: None }
    }

    fn hold(&mut self) -> Result<&mut Outlet<Fd>, Code> {
        let held = if let Some(held) = self.held.take() {
            held
        } else {
            let mut outlet = lock(self.outlet);
            outlet.writer.item(&self.item)?;
            self.payload = outlet.writer.offset();
            outlet
        };
        Ok(self.held.insert(held))
    }
}

impl<Fd: AsFd> Transport for Section<'_, Fd> {
    fn send(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        let outlet = self.hold()?;
        let began = Instant::now();
        let count = outlet.writer.send(bytes)?;
        outlet.rate.add(count as u64, began.elapsed());
        Ok(count)
    }

    fn recv(&mut self, _: &mut [u8]) -> Result<usize, Code> {
        Closed.recv(&mut [])
    }

    fn send_config(&mut self) -> Result<(), Code> {
        let body = self.config.take().ok_or(code(Errno::OPNOTSUPP))?;
        let mut rest = &body[..];
        while !rest.is_empty() {
            let count = self.send(rest)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        Closed.recv_config()
    }
}
