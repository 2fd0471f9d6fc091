//! The file that `save` writes and `load` takes: whole, cut, damaged, of another device, and followed by something.
//!
//! Deliberately absent: the program around it, its options, files and exit codes; those are in `host/tests/program.rs`.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::{Code, DataRead, Event, Left, PrecopyInfo};
use vfio_migration_host::file;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::Identity;
use vfio_migration_host::sim::{Assigned, Config, Sim};
use vfio_migration_host::transfer::{
    self, Error, Leave, Load, Member, Migratable, Reason, Refused, Report, Save,
};
use vfio_migration_tests::golden::ONE_END_SECTION;

const SIZE: u64 = 100;

fn device(size: u64, seed: u64) -> Assigned {
    Assigned::new(Sim::new(Config::new(size, seed, Features::default()).unwrap()))
}

fn identity(driver: &str) -> Identity {
    Identity { driver: driver.into(), address: "0000:3b:00.2".into() }
}

fn temporary() -> File {
    File::from(rustix::fs::memfd_create("stream", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
}

fn member<'a>(
    device: &'a mut Assigned,
    identity: &'a Identity,
    buffer: &'a mut [u8],
) -> Member<'a, Assigned> {
    let (features, now) = (device.sim.features(), device.sim.get_state());
    Member { device, features, now, identity, idstr: identity.idstr(), buffer }
}

fn quiet(_: &Event) {}

/// Where the only device was left.
fn left(error: &Error) -> Left {
    let [(_, left)] = &error.devices[..] else { panic!("{error}") };
    *left
}

fn save(device: &mut Assigned, idstr: Option<&str>, leave: Leave) -> Vec<u8> {
    let mut file = temporary();
    let identity = identity("sim");
    let mut buffer = [0; 64];
    let mut member = member(device, &identity, &mut buffer);
    member.idstr = idstr.map_or(member.idstr, str::to_owned);
    let link = Link::new(file.as_fd(), None);
    let plan = Save { leave: Some(leave), ..Save::default() };
    transfer::save(vec![member], link, &plan, || Ok(()), &quiet).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn load_as(device: &mut Assigned, bytes: &[u8], driver: &str, force: bool) -> Result<Report, Error> {
    let mut file = temporary();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    let identity = identity(driver);
    let mut buffer = [0; 64];
    let plan = Load { force, ..Load::default() };
    transfer::load(vec![member(device, &identity, &mut buffer)], Link::new(file, None), &plan, &quiet)
}

fn load(device: &mut Assigned, bytes: &[u8]) -> Result<Report, Error> {
    load_as(device, bytes, "sim", false)
}

/// Loads `bytes`, which must be refused, and then a good stream into the same device.
fn refused(bytes: &[u8], good: &[u8], what: &str) -> Error {
    let mut device = device(SIZE, 9);
    let before = device.sim.content().to_vec();
    let Err(error) = load(&mut device, bytes) else { panic!("{what}: loaded") };
    assert_eq!(device.sim.get_state(), State::Running, "{what}: {error}");
    match left(&error) {
        Left::At(State::Running) => assert_eq!(device.sim.content(), before, "{what}: touched"),
        Left::Reset => assert_ne!(device.sim.content(), before, "{what}: not reset"),
        left => panic!("{what}: {left}"),
    }
    load(&mut device, good).unwrap_or_else(|error| panic!("{what}: not usable afterwards: {error}"));
    assert_eq!(device.sim.content(), self::device(SIZE, 7).sim.content());
    error
}

/// The stream through its end byte.
fn before_description(stream: &[u8]) -> &[u8] {
    &stream[..stream.windows(3).rposition(|window| window == b"\x06\0\0").unwrap()]
}

/// A description in the place of the real one, with a right checksum.
fn with_description(stream: &[u8], json: &str) -> Vec<u8> {
    let mut bytes = before_description(stream).to_vec();
    bytes.push(6);
    bytes.extend(u32::try_from(json.len() + 10).unwrap().to_be_bytes());
    bytes.extend(json.as_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(format!("{checksum:08x}\"}}").bytes());
    bytes
}

#[test]
fn a_saved_device_loads_and_both_run() {
    let mut source = device(SIZE, 7);
    let bytes = save(&mut source, None, Leave::Running);
    assert_eq!(source.sim.get_state(), State::Running);
    let mut destination = device(SIZE, 9);
    let report = load(&mut destination, &bytes).unwrap();
    assert_eq!(destination.sim.content(), source.sim.content());
    assert_eq!(destination.sim.get_state(), State::Running);
    assert_eq!(report.stream_bytes, bytes.len() as u64);
    assert_eq!(report.entries[0].data_bytes, SIZE + 24);
    assert_eq!(report.entries[0].idstr, "sim@0000:3b:00.2/vfio");
}

#[test]
fn a_device_that_is_to_stay_stopped_stays_in_stop() {
    let mut source = device(SIZE, 7);
    save(&mut source, None, Leave::Stopped);
    assert_eq!(source.sim.get_state(), State::Stop);
}

#[test]
fn the_bytes_around_the_payloads_are_the_format() {
    let bytes = save(&mut device(0, 7), Some("0000:00:02.0/vfio"), Leave::Running);
    assert!(
        bytes.starts_with(b"QEVM\0\0\0\x03\x07\0\0\0\0\x01\0\0\0\x01\x110000:00:02.0/vfio\0\0\0\0\0\0\0\x01")
    );
    let text = String::from_utf8_lossy(&bytes);
    let json = &text[text.find("{\"page_size\"").unwrap()..];
    assert!(
        json.starts_with("{\"page_size\":4096,\"devices\":[],\"vfio-migration\":{\"format\":1,"),
        "{json}"
    );
    let covered = bytes.len() - 10;
    assert_eq!(&bytes[covered..], format!("{:08x}\"}}", crc32c::crc32c(&bytes[..covered])).as_bytes());
}

#[test]
fn a_stream_cut_at_any_byte_is_refused_and_the_device_works_afterwards() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    for length in 0..good.len() {
        let error = refused(&good[..length], &good, &format!("cut at {length}"));
        assert_eq!(error.reason.refused(), Refused::Stream, "cut at {length}: {error}");
    }
}

#[test]
fn a_stream_with_any_byte_changed_is_refused_and_the_device_works_afterwards() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    for place in 0..good.len() {
        for change in [1, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[place] ^= change;
            refused(&bytes, &good, &format!("byte {place} ^ {change:#x}"));
        }
    }
}

#[test]
fn anything_behind_the_description_is_refused() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    for more in [&b"\0"[..], b"\n", &good] {
        let bytes = [&good[..], more].concat();
        let error = refused(&bytes, &good, "followed by something");
        let offset = good.len() as u64;
        assert!(
            matches!(error.reason, Reason::Stream(file::Error::Trailing { offset: at }) if at == offset),
            "{error}"
        );
    }
}

#[test]
fn a_stream_of_another_driver_does_not_reach_the_device_unless_forced() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let mut destination = device(SIZE, 9);
    let error = load_as(&mut destination, &good, "mlx5_vfio_pci", false).unwrap_err();
    assert!(matches!(error.reason, Reason::OtherDriver { .. }), "{error}");
    assert_eq!(left(&error), Left::At(State::Running));
    assert_eq!(destination.sim.content(), device(SIZE, 9).sim.content());
    load_as(&mut destination, &good, "mlx5_vfio_pci", true).unwrap();
    assert_eq!(destination.sim.content(), device(SIZE, 7).sim.content());
}

#[test]
fn a_stream_named_for_qemu_of_another_driver_is_refused_by_its_description() {
    let bytes = save(&mut device(SIZE, 7), Some("0000:00:02.0/vfio"), Leave::Running);
    load(&mut device(SIZE, 9), &bytes).unwrap();
    let mut destination = device(SIZE, 9);
    let error = load_as(&mut destination, &bytes, "mlx5_vfio_pci", false).unwrap_err();
    assert!(matches!(error.reason, Reason::OtherDriver { .. }), "{error}");
    assert_eq!((left(&error), destination.sim.get_state()), (Left::Reset, State::Running));
}

#[test]
fn a_device_whose_driver_is_not_known_takes_no_stream_unless_forced() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    assert!(load_as(&mut device(SIZE, 9), &good, "unknown", false).is_err());
    load_as(&mut device(SIZE, 9), &good, "unknown", true).unwrap();
}

#[test]
fn a_state_of_another_size_is_refused_by_the_device_which_is_reset() {
    let bytes = save(&mut device(SIZE + 1, 7), None, Leave::Running);
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let error = refused(&bytes, &good, "another size");
    assert_eq!((error.reason.refused(), left(&error)), (Refused::ByDevice, Left::Reset));
}

#[test]
fn descriptions_are_read_with_unknown_keys_and_refused_when_newer_or_not_ours() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let entry = r#"{"idstr":"sim@0000:3b:00.2/vfio","driver":"sim","address":"x","data_bytes":124,"new":0}"#;
    let ours = |format: u32, devices: &str| {
        format!(
            r#"{{"page_size":4096,"x":[],"vfio-migration":{{"format":{format},"y":1,"devices":[{devices}]}},"crc32c":""#
        )
    };
    load(&mut device(SIZE, 9), &with_description(&good, &ours(1, entry))).unwrap();
    let newer = refused(&with_description(&good, &ours(2, entry)), &good, "newer format");
    assert!(matches!(newer.reason, Reason::Stream(file::Error::NewerFormat { got: 2 })), "{newer}");
    let other = entry.replace("124", "125");
    let size = refused(&with_description(&good, &ours(1, &other)), &good, "another sum");
    assert!(matches!(size.reason, Reason::Stream(file::Error::Mismatch { .. })), "{size}");
    let missing = refused(&with_description(&good, &ours(1, "")), &good, "no device");
    assert!(matches!(missing.reason, Reason::Stream(file::Error::Mismatch { .. })), "{missing}");
    let foreign = refused(&with_description(&good, r#"{"page_size":4096,"crc32c":""#), &good, "not ours");
    assert!(matches!(foreign.reason, Reason::Stream(file::Error::Description { .. })), "{foreign}");
    let broken = refused(&with_description(&good, r#"{"page_size":,"crc32c":""#), &good, "no JSON");
    assert!(matches!(broken.reason, Reason::Stream(file::Error::Description { .. })), "{broken}");
}

#[test]
fn a_description_of_more_than_64_kibibytes_is_refused_unread() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let padding = " ".repeat(70_000);
    let bytes = with_description(&good, &format!("{{{padding}\"crc32c\":\""));
    let error = refused(&bytes, &good, "long description");
    assert!(matches!(error.reason, Reason::Stream(file::Error::Unexpected { .. })), "{error}");
}

#[test]
fn a_description_that_is_nested_too_deep_is_refused_before_it_is_parsed() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let nested = |deep: usize| {
        let (open, close) = ("[".repeat(deep), "]".repeat(deep));
        with_description(&good, &format!("{{\"x\":{open}{close},\"crc32c\":\""))
    };
    let error = refused(&nested(8), &good, "nine levels");
    assert!(error.to_string().contains("got one that has more than 8 levels"), "{error}");
    let error = refused(&nested(7), &good, "eight levels, and not ours");
    assert!(!error.to_string().contains("levels"), "{error}");
}

#[test]
fn a_stream_whose_description_has_no_checksum_is_refused() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    // QEMU loads this description; it was made by hand, and nothing protects what stands before it.
    let bytes = [before_description(&good), &ONE_END_SECTION[4328..]].concat();
    let error = refused(&bytes, &good, "no checksum");
    assert!(error.to_string().contains("got one that does not end in a checksum"), "{error}");
}

#[test]
fn a_forced_stream_of_another_kind_of_device_is_refused_by_the_device_which_is_reset() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let mut device = device(SIZE, 9);
    let error = load_as(&mut device, ONE_END_SECTION, "sim", true).unwrap_err();
    assert_eq!((error.reason.refused(), left(&error)), (Refused::ByDevice, Left::Reset), "{error}");
    assert_eq!(device.sim.get_state(), State::Running, "{error}");
    load(&mut device, &good).unwrap();
}

#[test]
fn the_stream_of_a_whole_machine_is_refused_before_the_device_is_touched() {
    let mut bytes = Vec::new();
    bytes.write_all(b"QEVM\0\0\0\x03\x07\0\0\0\x05pc-10\x01").unwrap();
    let error = load(&mut device(SIZE, 9), &bytes).unwrap_err();
    assert!(error.to_string().contains("whole machine"), "{error}");
    assert_eq!(left(&error), Left::At(State::Running));
}

#[test]
fn every_refusal_says_what_was_wanted_in_a_sentence_and_where_the_device_is() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let table = [
        (good[..30].to_vec(), "the stream ended at byte 30, wanted "),
        (good[..90].to_vec(), "section END of 'sim@0000:3b:00.2/vfio', record DATA, byte 90 of the stream"),
        ([&good[..4], &[9], &good[5..]].concat(), "wanted the preamble"),
    ];
    for (bytes, text) in table {
        let error = refused(&bytes, &good, text).to_string();
        assert!(error.contains(text) && error.contains("wanted"), "{error}");
        assert!(error.contains("; the device "), "{error}");
        assert!(!error.ends_with('.') && error.starts_with(|first: char| first.is_lowercase()), "{error}");
    }
}

#[test]
fn a_stream_without_an_end_section_or_with_something_behind_it_is_refused() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let end = good.windows(5).position(|window| window == [3, 0, 0, 0, 1]).unwrap();
    let tail = good.windows(5).rposition(|window| window == [0x7e, 0, 0, 0, 1]).unwrap() + 5;
    let parts: Vec<u8> =
        good.iter().enumerate().map(|(at, &byte)| if at == end { 2 } else { byte }).collect();
    let twice = [&good[..tail], &[3, 0, 0, 0, 1][..], &good[end + 5..]].concat();
    for (bytes, what) in [(parts, "PART or END"), (twice, "FULL of the device")] {
        let error = refused(&bytes, &good, what);
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn a_device_left_in_a_migration_is_reset_once_the_streams_first_section_is_accepted() {
    let good = save(&mut device(SIZE, 7), None, Leave::Running);
    let mut found = device(SIZE, 9);
    found.set_state(State::StopCopy).unwrap();
    let error = load(&mut found, &good[..20]).unwrap_err();
    assert_eq!((left(&error), found.sim.get_state()), (Left::At(State::StopCopy), State::StopCopy));
    load(&mut found, &good).unwrap();
    assert_eq!(found.sim.content(), device(SIZE, 7).sim.content());
}

/// A device that refuses STOP, as firmware may.
struct Stubborn(Assigned);

impl Device for Stubborn {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        if state == State::Stop { Err(Code(5)) } else { self.0.set_state(state) }
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        self.0.precopy_info()
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        self.0.read_data(buffer)
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.0.write_data(bytes)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.0.reset()
    }
}

impl Migratable for Stubborn {
    fn data_size(&self) -> Option<u64> {
        Migratable::data_size(&self.0)
    }
}

#[test]
fn a_device_that_refuses_to_leave_stop_copy_is_reset_after_its_stream_was_kept() {
    let identity = identity("sim");
    let mut buffer = [0; 64];
    let mut kept = false;
    let keep = || {
        kept = true;
        Ok(())
    };
    let mut device = Stubborn(device(SIZE, 7));
    let (features, now, idstr) = (Features::default(), State::Running, identity.idstr());
    let device = &mut device;
    let member = Member { device, features, now, identity: &identity, idstr, buffer: &mut buffer };
    let link = Link::new(temporary(), None);
    let error = transfer::save(vec![member], link, &Save::default(), keep, &quiet).unwrap_err();
    assert!(kept && error.stream_is_whole, "{error}");
    assert_eq!(left(&error), Left::Reset);
}

#[test]
fn a_stream_that_cannot_be_kept_brings_the_device_back_with_its_content() {
    let identity = identity("sim");
    let mut buffer = [0; 64];
    let mut source = device(SIZE, 7);
    let link = Link::new(temporary(), None);
    let full = || Err(std::io::ErrorKind::StorageFull.into());
    let plan = Save { leave: Some(Leave::Stopped), ..Save::default() };
    let members = vec![member(&mut source, &identity, &mut buffer)];
    let error = transfer::save(members, link, &plan, full, &quiet).unwrap_err();
    assert!(matches!(error.reason, Reason::Keep(_)) && !error.stream_is_whole, "{error}");
    assert_eq!((left(&error), source.sim.get_state()), (Left::At(State::Running), State::Running));
    assert_eq!(source.sim.content(), device(SIZE, 7).sim.content());
}

#[test]
fn a_qemus_name_with_an_at_sign_names_no_driver() {
    let bytes = save(&mut device(SIZE, 7), Some("pci@800000020000000:01.0/vfio"), Leave::Running);
    load(&mut device(SIZE, 9), &bytes).unwrap();
}
