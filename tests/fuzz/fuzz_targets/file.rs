//! Whole streams, loaded into one and several simulated devices.
//!
//! - A device runs only where the checksum at the end is that of all bytes before it, and with the content that was
//!   sent where the stream was honest; else it is where the error says, as it was or reset, never with a part of a state.
//! - The dry run refuses what the load refuses, but for what only a device can refuse.
//! - No more is held than [`BOUND`] bytes, [`PER_DEVICE`] more for each device, and the stream.
//!
//! Settings: how many devices, whether they are PCI functions, and how the stream is made: as it is, with the right
//! checksum put over its end, from its parts, or composed; the plan; what the devices fail at; their buffer. Deliberately absent: links that wait.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::device::State;
use vfio_migration_fuzz::chance::split;
use vfio_migration_fuzz::link::Memory;
use vfio_migration_fuzz::{compose, memory, seeds};
use vfio_migration_host::sim::{Assigned, Config, Sim};
use vfio_migration_host::transfer::{self, Leave, Load, Migratable as _, Refused};
use vfio_migration_tests::sim::state_of;
use vfio_migration_tests::transfer::{Fleet, Log};

fuzz_target!(init: seeds::write(seeds::file), |input: &[u8]| {
    let ([how, plan, failing, room], _, bytes) = split(input);
    let devices = usize::from(how >> 2) % 3 + 1;
    let pci = PCI[usize::from(how >> 4) % PCI.len()];
    let sources: Vec<_> = (0..devices).map(|device| source(device, pci)).collect();
    let states: Vec<_> = sources.iter().cloned().map(Sim::new).map(state_of).collect();
    let (stream, honest) = match how & 3 {
        0 => (bytes.to_vec(), false),
        1 => (resealed(bytes), false),
        2 => (from_parts(bytes), false),
        _ => {
            let configs: Vec<_> = sources.iter().map(config).collect();
            compose::stream(bytes, &states, &configs)
        }
    };
    let plan = Load {
        leave: if plan & 1 > 0 { Leave::Stopped } else { Leave::Running },
        force: plan & 4 > 0,
        switchover_ack: plan & 2 > 0,
    };
    let failure = FAILURES.get(usize::from(failing)).copied().unwrap_or("");
    let config = format!("size={CONTENT}{pci}{failure}");
    let fleet = Fleet::new("destination", &vec![config; devices], 64 + usize::from(room), &Log::default(), 0);
    let contents = || sources.iter().map(|source| Sim::new(source.clone()).content().to_vec()).collect();
    let loaded = load(fleet, &stream, &plan, honest.then(contents));
    assert!(loaded || !honest || !failure.is_empty(), "an honest stream is refused");
});

/// Loads the stream and holds what came of it against the rules; says whether the devices have loaded it. An honest one
/// has these contents.
fn load(mut fleet: Fleet, stream: &[u8], plan: &Load, honest: Option<Vec<Vec<u8>>>) -> bool {
    let devices = fleet.devices.len();
    let dry = memory::within(BOUND, || {
        let checked = transfer::check(&fleet.members(), Memory::new(stream), plan.force);
        checked.map_err(|reason| reason.to_string())
    });
    let bound = BOUND + devices * PER_DEVICE + stream.len();
    let loaded = memory::within(bound, || fleet.load(stream, plan));
    match &loaded {
        Ok(_) => {
            assert!(compose::is_sealed(stream), "devices run, and the checksum is wrong");
            assert!(dry.is_ok() || plan.switchover_ack, "loaded, and the dry run says {dry:?}");
            let left = if plan.leave == Leave::Stopped { State::Stop } else { State::Running };
            assert_eq!(fleet.states(), vec![left; devices]);
            assert!(honest.is_none_or(|honest| fleet.contents() == honest), "another content than was sent");
        }
        Err(error) => {
            let of_device = error.reason.refused() == Refused::ByDevice;
            assert!(dry.is_err() || of_device, "the dry run is content, and the load says {error}");
            match honest {
                // Behind its end, a device may have been accepted, and be brought to what has the content.
                Some(honest) => fleet.assert_as_told_or_loaded(error, &honest, "an honest stream"),
                None if compose::is_sealed(stream) => {}
                None => fleet.assert_as_told(error, "a damaged stream"),
            }
        }
    }
    loaded.is_ok()
}

fn source(device: usize, pci: &str) -> Config {
    format!("size={CONTENT},seed={}{pci}", 9 + device).parse().expect("a device")
}

/// The body of a device's CONFIG record, empty where it is no PCI function.
fn config(source: &Config) -> Vec<u8> {
    Assigned::new(Sim::new(source.clone())).config().unwrap_or_default()
}

fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut stream = bytes.to_vec();
    compose::seal(&mut stream);
    stream
}

/// A length, so many bytes of a description without its checksum, and what stands before it.
fn from_parts(bytes: &[u8]) -> Vec<u8> {
    let (length, rest) = bytes.split_first_chunk().unwrap_or((&[0; 2], &[]));
    let (json, body) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
    compose::sealed(body, json)
}

/// The length of each device's content, in bytes.
const CONTENT: usize = 40;

/// Which PCI functions the devices are, if they are.
const PCI: [&str; 4] = ["", ",pci=256", ",pci=256:9", ",pci=4096:2"];

/// What a device fails at, from number 1 on. That its guest resets it within the SET that leaves RESUMING is not among
/// it: nobody can see that, and the device runs, reset.
const FAILURES: [&str; 9] = [
    "",
    ",short=3",
    ",fail=write:2",
    ",fail=set-stop:1:EIO:first",
    ",fail=set-running:1,fail=reset:1",
    ",fail=set-resuming:1:EIO:error",
    ",guest-reset=write:1",
    ",guest-reset=set-resuming:1",
    ",fail=reset:1:EIO:unknown,fail=write:1",
];

/// How much memory a load holds at most, in bytes, whatever comes: 64 KiB of description, its strings and an error's.
const BOUND: usize = 1 << 20;
/// How much more for each device: the pieces that wait in its lane.
const PER_DEVICE: usize = 2 << 20;
