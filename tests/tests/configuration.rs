//! The configuration of PCI functions in a stream: saved behind the data, set where it is such a function's, refused
//! where it is not.
//!
//! Deliberately absent: the bytes of its body, which are in `pci_config.rs`, and a kernel's function, which the VM has.

use vfio_migration_core::device::State;
use vfio_migration_core::session::Left;
use vfio_migration_core::stream::record::{Tag, encode};
use vfio_migration_host::link::Link;
use vfio_migration_host::pci::{Applied, Refused};
use vfio_migration_host::transfer::{self, Checked, Error, Leave, Load, Reason, Save};
use vfio_migration_tests::payload::data;
use vfio_migration_tests::transfer::{Fleet, Log, holding, quiet};

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

/// Checks it for a new device.
fn checked(stream: &[u8], config: &str) -> Result<Checked, Reason> {
    let mut target = Fleet::new("b", &[config], 64, &Log::default(), 0);
    transfer::check(&target.members(), Link::new(holding(stream), None), false)
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
        let checked = checked(&stream, config);
        assert_eq!(checked.is_ok(), is_good, "{config}: {checked:?}");
    }
}

/// The stream with a change in front of its description, and a checksum that is right again.
fn changed(stream: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let end = stream.windows(3).rposition(|window| window == [0, 6, 0]).expect("an end");
    let mut bytes = stream[..end].to_vec();
    change(&mut bytes);
    bytes.extend_from_slice(&stream[end..]);
    let digits = bytes.len() - 10;
    let checksum = format!("{:08x}", crc32c::crc32c(&bytes[..digits]));
    bytes[digits..digits + 8].copy_from_slice(checksum.as_bytes());
    bytes
}

#[test]
fn a_second_full_section_a_configuration_elsewhere_and_data_beside_it_are_refused() {
    let stream = saved(&["size=100,pci=256:4"]);
    let config = config_at(&stream);
    let header = 14 + "sim@a.0/vfio".len();
    let footer = [0x7e, 0, 0, 0, 1];
    let twice = changed(&stream, |bytes| {
        let full = bytes[config - header..].to_vec();
        bytes.extend_from_slice(&full);
    });
    let data = data(b"more");
    let beside = changed(&stream, |bytes| drop(bytes.splice(config..config, data)));
    let in_end = changed(&stream, |bytes| {
        // Without END_OF_STATE and the footer of the END, and without the header of the FULL.
        drop(bytes.drain(config - header - 8 - footer.len()..config));
    });
    for (stream, wanted) in [
        (twice, "got FULL of section 1"),
        (beside, "wanted CONFIG or the end of the payload in a FULL section, got DATA"),
        (in_end, "wanted DATA or the end of the payload, got CONFIG"),
    ] {
        refused(&stream, &["size=100,pci=256:4"]);
        // A load may hear of its device first that it wants no more data.
        let reason = checked(&stream, "size=100,pci=256:4").expect_err("checked").to_string();
        assert!(reason.contains(wanted), "{wanted}: {reason}");
    }
}

#[test]
fn nothing_is_set_before_the_whole_stream_was_checked() {
    let stream = saved(&["size=100,pci=256:4"]);
    let mut damaged = stream.clone();
    let space = config_at(&stream) + 8 + 4;
    damaged[space + 0x3c] ^= 1;
    let mut target = Fleet::new("b", &["size=100,pci=256:4"], 64, &Log::default(), 0);
    target.load(&damaged, &Load::default()).expect_err("loaded");
    assert_eq!(target.devices[0].commands, 0, "the command register was written");
    target.load(&stream, &Load::default()).unwrap();
    assert_eq!(target.devices[0].commands, 1);
}

#[test]
fn a_check_refuses_another_kind_of_function_as_a_load_does() {
    let stream = saved(&["size=100,pci=256:4"]);
    let space = config_at(&stream) + 8 + 4;
    let other = changed(&stream, |bytes| bytes[space] ^= 1);
    let config = "size=100,pci=256:4";
    let reason = checked(&other, config).expect_err("checked");
    assert_eq!(
        reason.to_string().split(": ").last(),
        refused(&other, &[config]).reason.to_string().split(": ").last()
    );
}
