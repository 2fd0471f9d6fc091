//! What a VMM on Linux does to move a device: `vmm send DEVICE > stream` here, `vmm receive DEVICE < stream` there.
//!
//! Deliberately absent: the guest; a look at where the stream goes; and an answer of the receiver, which a VMM waits for
//! before it forgets the device.

use std::error::Error;
use std::io::{self, stdin, stdout};
use std::os::fd::AsFd as _;
use std::{env, process};

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::Event;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::device::Device;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::{Identity, Name};
use vfio_migration_host::sim::{Assigned, Sim};
use vfio_migration_host::transfer::{self, Leave, Load, Member, Migratable, PreCopy, Report, Save};

/// Which side of the migration this is.
#[derive(Clone, Copy)]
enum Role {
    Send,
    Receive,
}

fn main() {
    let arguments: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into()).collect();
    let (role, name) = match &arguments[..] {
        [role, name] if role == "send" => (Role::Send, name),
        [role, name] if role == "receive" => (Role::Receive, name),
        _ => {
            eprintln!("wanted: vmm send DEVICE > STREAM, or vmm receive DEVICE < STREAM");
            process::exit(2);
        }
    };
    match open_and_migrate(role, name) {
        Ok(report) => eprintln!("{} bytes, stood still for {:?}", report.stream_bytes, report.downtime),
        Err(error) => {
            eprintln!("vmm: {error}");
            process::exit(1);
        }
    }
}

fn open_and_migrate(role: Role, name: &str) -> Result<Report, Box<dyn Error>> {
    if let Some(config) = name.strip_prefix("sim:") {
        let (sim, address) = (Sim::new(config.parse()?), process::id().to_string());
        let (features, now) = (sim.features(), sim.get_state());
        migrate(role, Assigned::new(sim), features, now, &Identity { driver: "sim".into(), address })
    } else {
        let name: Name = name.parse()?; // a VMM has its device open already: Name::Fd
        let device = Device::new(name.open()?)?;
        let (features, now) = (device.features(), device.state());
        migrate(role, device, features, now, &name.identify()?)
    }
}

/// Sends or receives one device. Whatever goes wrong, the error says it, and where the device is then.
fn migrate<D: Migratable>(
    role: Role,
    mut device: D,
    features: Features,
    now: State,
    identity: &Identity,
) -> Result<Report, Box<dyn Error>> {
    let mut buffer = Buffer::for_source(1 << 20)?;
    let (device, idstr) = (&mut device, identity.idstr());
    let member = Member { device, features, now, identity, idstr, buffer: buffer.bytes() };
    let watch = |event: &Event| eprintln!("{event}"); // each thing done, whether it worked or not
    match role {
        // What can be copied while the guest works goes first; `keep` is called before the device goes on.
        Role::Send => {
            let plan =
                Save { leave: Some(Leave::Stopped), pre_copy: Some(PreCopy::default()), ..Save::default() };
            Ok(transfer::save(vec![member], Link::new(stdout().as_fd(), None), &plan, keep, &watch)?)
        }
        Role::Receive => {
            Ok(transfer::load(vec![member], Link::new(stdin().as_fd(), None), &Load::default(), &watch)?)
        }
    }
}

/// The other side has the stream, or the disk: what is done here so that it can't get lost.
fn keep() -> io::Result<()> {
    Ok(())
}
