//! Saves and loads a device on Linux without std, without libc and without an allocator.
//!
//!     without-std save DEVICE DRIVER@ADDRESS [--precopy] > card.state
//!     without-std load DEVICE DRIVER@ADDRESS < card.state
//!
//! DEVICE is `/dev/vfio/devices/vfioN`, or `/dev/vfio/N` where the kernel has groups. The files are those of
//! `vfio-migrate`. Exit codes: 0 done; 2 wrong usage; 3 the device refused; 4 the stream was refused; 5 it could not be
//! read or written; 101 a mistake
//! in this program.
//!
//! Deliberately absent: a look into sysfs, and the configuration of a PCI function: a hypervisor knows its devices. And what
//! happens on a signal: one that ends the program leaves the device in the middle, and `vfio-migrate recover` brings it back.

#![no_std]
#![no_main]

mod arguments;
mod loading;
mod memory;
mod saving;
mod say;
mod start;

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Destination, Source};
use vfio_migration_host::attach::{self, Attached};
use vfio_migration_host::device::Device;

use crate::arguments::{Arguments, Order};
use crate::loading::Loading;
use crate::saving::{END, PART, Saving};
use crate::say::{Exit, refuse};
use crate::start::Memory;

/// All that the program does, with all the memory that it has.
fn main(arguments: &Arguments<'_>, memory: &mut Memory) -> Result<(), Exit> {
    let mut card = open(arguments)?;
    match arguments.order {
        Order::Save => save(&mut card, arguments, memory),
        Order::Load => load(&mut card, arguments, memory),
    }
}

/// The device behind its file: with an iommufd, or by its group with a container.
fn open(arguments: &Arguments<'_>) -> Result<Device<Attached>, Exit> {
    let path = arguments.path;
    let open = |path: &str| {
        attach::open(path).map_err(|errno| refuse!(Exit::Device, "{path} can't be opened: {errno}"))
    };
    let attached = if arguments.is_group() {
        Attached::by_group(open(path)?, open("/dev/vfio/vfio")?, arguments.address)
    } else {
        Attached::to_iommufd(open(path)?, open("/dev/iommu")?)
    };
    let attached = attached.map_err(|error| refuse!(Exit::Device, "{path}: {error}"))?;
    Device::new(attached).map_err(|unsupported| refuse!(Exit::Device, "{path}: {unsupported}"))
}

/// Writes the device's state to standard output, and leaves the device as it was found.
fn save(card: &mut Device<Attached>, what: &Arguments<'_>, memory: &mut Memory) -> Result<(), Exit> {
    let found = card.state();
    let mut saving = Saving::new(card, &mut memory.piece)?;
    let mut orders = || {
        saving.start(what)?;
        while what.pre_copy && saving.has_more()? {
            saving.section(&PART, Source::copy_chunk)?;
        }
        saving.order(Source::stop)?; // a machine's processors stop before this
        saving.section(&END, Source::copy_rest)?;
        saving.end(what)?; // description and checksum: the stream is whole
        saving.order(Source::finish)?;
        if found == State::Running { saving.order(Source::run) } else { Ok(()) }
    };
    let saved = orders();
    saved.map_err(|exit| saving.give_up(exit))
}

/// Takes the device's state from standard input. The device does not run before all of the stream was checked.
fn load(card: &mut Device<Attached>, what: &Arguments<'_>, memory: &mut Memory) -> Result<(), Exit> {
    let mut loading = Loading::new(card, &mut memory.piece)?;
    let mut orders = || {
        loading.begin(what)?; // is it of a device of this kind? Nothing was done to ours yet
        loading.order(Destination::resume)?;
        loading.sections()?;
        loading.end(what, &mut memory.description)?; // description and checksum, and nothing behind them
        loading.order(Destination::stop)?;
        loading.order(Destination::run)
    };
    let loaded = orders();
    loaded.map_err(|exit| loading.give_up(exit))
}
