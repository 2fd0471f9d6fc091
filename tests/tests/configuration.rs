//! The configuration of PCI functions in a stream: saved behind the data, set where it is such a function's, refused
//! where it is not.
//!
//! Deliberately absent: the bytes of its body, which are in `pci_config.rs`, and a kernel's function, which the VM has.

use vfio_migration_core::device::State;
use vfio_migration_core::session::Left;
use vfio_migration_core::stream::record::{Tag, encode};
use vfio_migration_host::pci::{Applied, Refused};
use vfio_migration_host::transfer::{self, Error, Leave, Load, Reason, Save};
use vfio_migration_tests::transfer::{Fleet, Log, quiet};

const COMMAND: u16 = 0x0106;

/// A fleet whose devices have the command register set.
fn fleet(side: &str, configs: &[&str]) -> Fleet {
    let mut fleet = Fleet::new(side, configs, 64, &Log::default(), 0);
    fleet.devices.iter_mut().for_each(|device| device.assigned.sim.write_command(COMMAND));
    fleet
}

fn saved(configs: &[&str]) -> Vec<u8> {
    let plan = Save { config: true, leave: Some(Leave::Stopped), ..Save::default() };
    fleet("a", configs).save(&plan, &quiet).unwrap().0
}

fn command(fleet: &Fleet, at: usize) -> Option<[u8; 2]> {
    fleet.sim(at).config_space().map(|space| [space[4], space[5]])
}

/// Loads into a fleet of new devices, which must fail.
fn refused(stream: &[u8], configs: &[&str]) -> Error {
    let mut target = Fleet::new("b", configs, 64, &Log::default(), 0);
    let error = target.load(stream, &Load::default()).expect_err("loaded");
    target.assert_as_told(&error, "refused");
    assert!(error.devices.iter().all(|(_, left)| *left == Left::Reset), "{error}");
    error
}

/// Where the CONFIG record's tag is, which no content of a simulated device has.
fn config_at(stream: &[u8]) -> usize {
    stream.windows(8).position(|word| word == encode(Tag::Config)).expect("a CONFIG record")
}

#[test]
fn a_configuration_comes_behind_the_data_and_its_command_register_is_set() {
    for pci in ["pci=256", "pci=4096", "pci=256:1", "pci=4096:9", "pci=4096:2048"] {
        let config = format!("size=100,seed=7,{pci}");
        let stream = saved(&[&config]);
        let mut target = Fleet::new("b", &[&format!("size=100,{pci}")], 64, &Log::default(), 0);
        let report = target.load(&stream, &Load::default()).unwrap();
        assert_eq!(report.configs, [Some(Applied { command: COMMAND, left_out: vec![] })], "{pci}");
        assert_eq!(command(&target, 0), Some(COMMAND.to_le_bytes()), "{pci}");
        assert_eq!(target.sim(0).content(), fleet("c", &[&config]).sim(0).content());
    }
}

#[test]
fn several_devices_get_a_configuration_each_and_one_that_is_no_function_gets_none() {
    let configs = ["size=100,seed=1,pci=256:3", "size=200,seed=2", "size=300,seed=3,pci=4096"];
    let stream = saved(&configs);
    let mut target =
        Fleet::new("b", &["size=100,pci=256:3", "size=200", "size=300,pci=4096"], 64, &Log::default(), 0);
    let report = target.load(&stream, &Load::default()).unwrap();
    let got: Vec<_> =
        report.configs.iter().map(|config| config.as_ref().map(|applied| applied.command)).collect();
    assert_eq!(got, [Some(COMMAND), None, Some(COMMAND)]);
    assert_eq!(target.contents(), fleet("c", &configs).contents());
    assert_eq!(target.states(), [State::Running; 3]);
}

#[test]
fn nothing_is_said_of_the_configuration_unless_it_was_asked_for() {
    let mut source = fleet("a", &["size=100,pci=4096"]);
    let (stream, _) = source.save(&Save::default(), &quiet).unwrap();
    assert!(!stream.windows(8).any(|word| word == encode(Tag::Config)));
    let mut target = Fleet::new("b", &["size=100,pci=4096"], 64, &Log::default(), 0);
    assert_eq!(target.load(&stream, &Load::default()).unwrap().configs, [None]);
    assert_eq!(command(&target, 0), Some([0; 2]));
}

#[test]
fn a_configuration_of_another_layout_or_for_no_function_is_refused_and_resets_the_device() {
    let stream = saved(&["size=100,pci=4096:4"]);
    for (config, wanted) in [
        ("size=100", "this device is none"),
        ("size=100,pci=4096", "this device has 4096 bytes of configuration space and 0 MSI-X vectors"),
        ("size=100,pci=4096:5", "5 MSI-X vectors"),
        ("size=100,pci=256:4", "this device has 256 bytes"),
    ] {
        let error = refused(&stream, &[config]).to_string();
        assert!(error.contains(wanted), "{config}: {error}");
        assert!(error.contains("section FULL of 'sim@a.0/vfio'"), "{config}: {error}");
    }
}

#[test]
fn a_configuration_of_another_kind_of_function_is_refused_whatever_the_guest_has_written_is_not() {
    let stream = saved(&["size=100,pci=256:4"]);
    let space = config_at(&stream) + 8 + 4;
    for (register, name) in
        [(0, "vendor"), (2, "device"), (8, "revision"), (9, "class"), (0x2c, "subsystem vendor")]
    {
        let mut other = stream.clone();
        other[space + register] ^= 1;
        let reason = refused(&other, &["size=100,pci=256:4"]).reason;
        let Reason::Config { refused, .. } = &reason else { panic!("{name}: {reason}") };
        assert!(matches!(**refused, Refused::Differs(_)) && refused.to_string().contains(name), "{reason}");
    }
    // A BAR's address, the cache line's size, an interrupt's line: the guest's. The stream's checksum tells of the change.
    for register in [0x10, 0x0c, 0x3c] {
        let mut other = stream.clone();
        other[space + register] ^= 1;
        let reason = refused(&other, &["size=100,pci=256:4"]).reason;
        assert!(matches!(reason, Reason::Stream(_)), "{register}: {reason}");
    }
}

#[test]
fn a_stream_that_is_cut_within_the_configuration_is_refused_with_what_is_missing() {
    let stream = saved(&["size=100,pci=256"]);
    let body = config_at(&stream) + 8;
    // The version is read first, and the others once it is right.
    let (version, end) = (body + 4, body + 276 + 8);
    for (cut, wanted) in
        [(body, version), (body + 3, version), (version, end), (body + 275, end), (end - 1, end)]
    {
        let reason = refused(&stream[..cut], &["size=100,pci=256"]).reason;
        let missing = wanted - cut;
        let Reason::Config { refused, .. } = &reason else { panic!("{cut}: {reason}") };
        assert!(matches!(**refused, Refused::Ended { missing: got } if got == missing), "{cut}: {reason}");
    }
}

#[test]
fn a_check_finds_a_configuration_that_this_device_can_not_have() {
    let stream = saved(&["size=100,pci=4096:4"]);
    for (config, is_good) in
        [("size=100,pci=4096:4", true), ("size=100,pci=4096:5", false), ("size=100", false)]
    {
        let mut target = Fleet::new("b", &[config], 64, &Log::default(), 0);
        let link =
            vfio_migration_host::link::Link::new(vfio_migration_tests::transfer::holding(&stream), None);
        let checked = transfer::check(&target.members(), link, false);
        assert_eq!(checked.is_ok(), is_good, "{config}: {checked:?}");
    }
}
