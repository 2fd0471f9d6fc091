//! The first process of the test VM: it moves real devices with `vfio-migrate` and says how it went.
//!
//! Contents and states are checked through another project's VFIO code, so that a mistake of ours
//! cannot hide itself. Nothing here stands between the tool and the kernel.
//!
//! Deliberately absent: an init system and a shell. The VM has this process and those that it starts.

mod cases;
mod device;
mod guest;
mod modules;
mod qemu;
mod row;
mod sandbox;
mod stalled;
mod steps;
mod stream;
mod suite;
mod testdev;
mod tool;

use anyhow::Result;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use self::modules::Set;
use self::suite::Suite;

fn main() {
    let (options, filters): (Vec<_>, Vec<_>) = std::env::args().skip(1).partition(|word| word == "--all");
    let mut suite = Suite::new(filters.first().map_or("", String::as_str), !options.is_empty());
    match set_up() {
        Ok(()) => [Set::Stock, Set::Iommufd].into_iter().for_each(|set| suite.run_with(set)),
        Err(error) => println!("cannot set the guest up: {error:#}"),
    }
    suite.finish();
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        println!("cannot power off: {error}");
    }
}

/// Makes the file systems that everything else looks into.
fn set_up() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp")] {
        std::fs::create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), None)?;
    }
    Ok(())
}
