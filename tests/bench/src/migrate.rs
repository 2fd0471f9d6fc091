//! Core's path: a source or a destination between a memfd and a link.
//!
//! Deliberately absent: a device that refuses. Recovery is no path that has to be fast.

use std::fs::File;
use std::os::fd::AsFd;

use anyhow::{Result, anyhow, bail};
use rustix::io::{Errno, read, write};
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::{self, Device};
use vfio_migration_core::session::{
    Code, DataRead, Destination, DestinationPhase, Event, Misuse, PrecopyInfo, Source, SourcePhase,
};
use vfio_migration_host::errno::{code, data_read};
use vfio_migration_host::link::Link;
use vfio_migration_host::open::Identity;
use vfio_migration_host::transfer::{self, Member, Migratable, Save};

/// The orders of a save whose device is left in STOP_COPY.
pub(crate) const ORDERS: [Order; 3] =
    [|source| source.setup(false), |source| source.stop(), |source| source.copy_rest()];

type Order = fn(&mut Source<'_>) -> Result<(), Misuse>;

/// Saves everything in `state` to `link`: the payloads of a START and an END section, without headers.
pub(crate) fn save(state: &File, link: &mut Link<impl AsFd>, buffer: &mut [u8]) -> Result<()> {
    let mut device = Memory { data: state };
    let mut source = Source::new(Features::default(), State::Running, false, buffer)?;
    for order in ORDERS {
        order(&mut source)?;
        if let SourcePhase::Failed(failure) = drive::source(&mut source, &mut device, link, |_: &Event| ())? {
            bail!(failure);
        }
    }
    link.flush().map_err(|code| anyhow!("the link refused its last bytes: {code}"))
}

/// Saves everything in `state` as a whole file, with headers, description and checksum.
pub(crate) fn save_whole(state: &File, link: Link<impl AsFd + Send>, buffer: &mut [u8]) -> Result<()> {
    let identity = Identity { driver: "memory".into(), address: "bench".into() };
    let (features, now, idstr) = (Features::default(), State::Running, identity.idstr());
    let device = &mut Memory { data: state };
    let member = Member { device, features, now, identity: &identity, idstr, buffer };
    transfer::save(vec![member], link, &Save::default(), || Ok(()), &|_: &Event| ())?;
    Ok(())
}

/// Loads what [`save`] has sent from `link` into `state`.
pub(crate) fn load(state: &File, link: &mut Link<impl AsFd>, buffer: &mut [u8]) -> Result<()> {
    let mut device = Memory { data: state };
    let mut destination = Destination::new(Features::default(), State::Running, false, buffer)?;
    for order in [Destination::resume, Destination::section, Destination::section, Destination::stop] {
        order(&mut destination)?;
        let phase = drive::destination(&mut destination, &mut device, link, |_: &Event| ())?;
        if let DestinationPhase::Failed(failure) = phase {
            bail!(failure);
        }
    }
    Ok(())
}

impl Migratable for Memory<'_> {
    fn data_size(&self) -> Option<u64> {
        None
    }
}

/// A device whose data fd is a file in memory and that agrees to every state.
struct Memory<'a> {
    data: &'a File,
}

impl Device for Memory<'_> {
    fn set_state(&mut self, _: State) -> Result<(), Code> {
        Ok(())
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        Err(code(Errno::INVAL))
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        data_read(read(self.data, buffer))
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        write(self.data, bytes).map_err(code)
    }

    fn reset(&mut self) -> Result<(), Code> {
        Ok(())
    }
}
