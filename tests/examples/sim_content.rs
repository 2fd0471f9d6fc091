//! Loads a file of ours into a simulated device and prints the crc32c of what the device then holds:
//! `sim_content FILE SIZE`. `cargo xtask bare` compares it with what the sender said.
//!
//! Deliberately absent: the checks of `vfio-migrate load`, which are the library's own.

use std::fs::File;

use vfio_migration_core::device::Features;
use vfio_migration_core::session::Event;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::Identity;
use vfio_migration_host::sim::{Assigned, Config, Sim};
use vfio_migration_host::transfer::{self, Load, Member};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(file), Some(size)) = (arguments.next(), arguments.next()) else {
        panic!("wanted a file and a size in bytes");
    };
    let size = size.parse().expect("a size in bytes");
    let features = Features { p2p: true, pre_copy: true };
    let mut device =
        Assigned::new(Sim::new(Config::new(size, 0, features).expect("a size that a device can have")));
    let identity = Identity { driver: "sim".into(), address: "example".into() };
    let mut buffer = [0; 4096];
    let (now, idstr) = (device.sim.get_state(), identity.idstr());
    let member =
        Member { device: &mut device, features, now, identity: &identity, idstr, buffer: &mut buffer };
    let link = Link::new(File::open(file).expect("a file that can be read"), None);
    if let Err(error) = transfer::load(vec![member], link, &Load::default(), &|_: &Event| ()) {
        panic!("{error}");
    }
    println!("{:08x}", crc32c::crc32c(device.sim.content()));
}
