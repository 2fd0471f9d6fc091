//! Devices' states taken out of streams of whole machines: what QEMU wrote, with and without multifd, and what is made
//! by hand for what QEMU's streams here have not.
//!
//! Deliberately absent: the program's options, which `host/tests` has, and a driver's verdict, which the VM has.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use vfio_migration_core::device::State;
use vfio_migration_core::session::Left;
use vfio_migration_host::file::Entry;
use vfio_migration_host::link::Link;
use vfio_migration_host::qemu::{Event, Extract, ExtractError, Kind, Walker, Wanted};
use vfio_migration_host::transfer::{Leave, Load, Save};
use vfio_migration_tests::golden::*;
use vfio_migration_tests::machine::{Machine, RAM_END, SETUP, data, payloads, ram_start, vfio, walk_file};
use vfio_migration_tests::transfer::{Fleet, Log, holding, quiet, temporary};

const NAME: &str = "0000:00:02.0/vfio";
const OTHER: &str = "0000:00:03.0/vfio";

/// Takes the devices with these sections out of `stream`; returns the new stream as far as it was written.
fn extract(
    stream: &[u8],
    channels: &[&[u8]],
    sections: &[&str],
) -> (Vec<u8>, Result<Vec<Entry>, ExtractError>) {
    let wanted = |name: &&str| Wanted { section: (*name).to_owned(), driver: "sim".to_owned() };
    let devices: Vec<_> = sections.iter().map(wanted).collect();
    let channels: Vec<File> = channels.iter().map(|bytes| holding(bytes)).collect();
    let plan = Extract { devices: &devices, channels: &channels, interrupt: None };
    let mut out = temporary();
    let walker = Walker::open(holding(stream), None).unwrap();
    let taken = plan.run(walker, Link::new(out.as_fd(), None), |_| ());
    let mut bytes = Vec::new();
    out.rewind().unwrap();
    out.read_to_end(&mut bytes).unwrap();
    (bytes, taken)
}

fn extracted(stream: &[u8], channels: &[&[u8]]) -> Vec<u8> {
    let (bytes, taken) = extract(stream, channels, &[NAME]);
    let entries = taken.unwrap();
    let told = walk_file(&bytes);
    assert_eq!((told.says(), told.bytes), (String::new(), bytes.len() as u64));
    assert_eq!(entries.len(), 1);
    bytes
}

fn refused(stream: &[u8], channels: &[&[u8]], sections: &[&str]) -> String {
    let (bytes, taken) = extract(stream, channels, sections);
    assert!(walk_file(&bytes).error.is_some(), "what is not whole looks so");
    taken.unwrap_err().to_string()
}

/// The payloads of a stream's VFIO sections without what stands around them.
fn only_payloads(stream: &[u8]) -> Vec<Vec<u8>> {
    payloads(stream).into_iter().map(|(_, payload)| payload).collect()
}

/// The stream of a machine whose VFIO devices have the states of a stream of ours, by these names.
fn machine(stream: &[u8], names: &[&str]) -> Vec<u8> {
    let mut machine = Machine::new(&[]);
    machine.begin(1, 1, "ram", 0, &ram_start(65536));
    let mut walker = Walker::open(holding(stream), None).unwrap();
    let mut payload = Vec::new();
    let mut is_running = true;
    while let Some(event) = walker.next().unwrap() {
        match event {
            Event::Payload { bytes, .. } => payload.extend_from_slice(bytes),
            Event::SectionEnd { section, .. } => {
                let (payload, id) = (std::mem::take(&mut payload), section.id + 37);
                let name = names[section.id as usize - 1];
                match section.kind {
                    Kind::Start => machine.begin(1, id, name, 0, &payload),
                    Kind::Part => machine.more(2, id, &payload),
                    Kind::End => {
                        if std::mem::take(&mut is_running) {
                            machine.put(&[8, 0, 11, 0, 0]).more(3, 1, &RAM_END);
                        }
                        machine.more(3, id, &payload)
                    }
                    Kind::Full => {
                        let size = format!("\"size\": {}", payload.len());
                        machine.begin(4, id, name, 0, &payload).describe(name, 0, &size)
                    }
                };
            }
            _ => {}
        }
    }
    machine.begin(4, 90, "timer", 0, &[7; 24]).describe("timer", 0, "\"size\": 24");
    machine.end()
}

#[test]
fn a_state_that_qemu_wrote_comes_out_record_by_record() {
    let (bytes, taken) = extract(PRECOPY, &[], &[NAME]);
    let (idstr, driver, address) = (NAME.into(), "sim".into(), "0000:00:02.0".into());
    assert_eq!(taken.unwrap(), [Entry { idstr, driver, address, data_bytes: 60 }]);
    assert_eq!(only_payloads(&bytes), only_payloads(PRECOPY));
    let kinds = ["START", "PART", "PART", "END", "FULL"];
    let told = walk_file(&bytes);
    let sections: Vec<_> = told.with(" of section 1 ");
    assert!(
        sections.len() == kinds.len() && sections.iter().zip(kinds).all(|(line, kind)| line.contains(kind))
    );
}

#[test]
fn what_went_by_multifds_channels_comes_into_the_sections_that_a_stream_without_them_has() {
    let channels = [MULTIFD_CHANNEL1, MULTIFD_CHANNEL2];
    for channels in [channels, [channels[1], channels[0]]] {
        let payloads = only_payloads(&extracted(MULTIFD, &channels));
        let [setup, parts @ .., end, full] = &payloads[..] else { panic!("{payloads:?}") };
        assert_eq!(setup, &vfio(&SETUP));
        // INIT_DATA_SENT, which ended the first PART, can't be agreed on in a file.
        assert_eq!(parts[0], vfio(&data(&SWITCHACK_PART1[21..45])));
        let state = &MULTIFD_CHANNEL2_STATE[288..324];
        assert_eq!(end, &vfio(&data(state)));
        assert_eq!(full, &MULTIFD_CHANNEL1_END[288..4420]);
    }
}

#[test]
fn a_state_whose_rest_went_by_channels_that_are_not_there_is_refused() {
    let wanted = "the stream has no stop-copy data of '0000:00:02.0/vfio'";
    assert!(refused(MULTIFD, &[], &[NAME]).starts_with(wanted));
    let as_number = |number| [&MULTIFD_CHANNEL1[..24], &[number], &MULTIFD_CHANNEL1[25..]].concat();
    let (third, fourth) = (as_number(2), as_number(3));
    let alien = [&MULTIFD_CHANNEL2[..8], &[7], &MULTIFD_CHANNEL2[9..]].concat();
    for (channels, wanted) in [
        (vec![MULTIFD_CHANNEL1], "wanted packet 0 of the device, got the end of every channel"),
        (vec![MULTIFD_CHANNEL2], "wanted packet 1 of the device, got the end of every channel"),
        (vec![MULTIFD_CHANNEL2, MULTIFD_CHANNEL2], "channels 0 and 1 are not of one migration"),
        (
            vec![MULTIFD_CHANNEL1, MULTIFD_CHANNEL2, &third],
            "wanted packet 1 of the device once, got it twice",
        ),
        (vec![&third, &fourth], "wanted packet 1 of the device once, got it twice"),
        (vec![MULTIFD_CHANNEL1, &alien], "channels 0 and 1 are not of one migration"),
        (vec![PRECOPY], "channel 0: at byte 0: wanted the magic number of a multifd channel"),
        (vec![MULTIFD_CHANNEL2, &MULTIFD_CHANNEL1[..181_200]], "channel 1: the stream ended at byte 181200"),
    ] {
        let error = refused(MULTIFD, &channels, &[NAME]);
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn a_damaged_packet_of_the_configuration_is_refused() {
    let mut channel = MULTIFD_CHANNEL1.to_vec();
    let at = channel.len() - 2 * 1344 - 8;
    assert_eq!(channel[at..at + 8], [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 1]);
    channel[at + 7] = 2;
    let error = refused(MULTIFD, &[&channel, MULTIFD_CHANNEL2], &[NAME]);
    assert!(error.contains("wanted END_OF_STATE behind CONFIG"), "{error}");
}

#[test]
fn a_packet_of_the_configuration_that_goes_on_behind_its_end_is_refused() {
    let mut channel = MULTIFD_CHANNEL1.to_vec();
    let end = channel.len() - 2 * 1344;
    let length = end - 181_056 - 276;
    let more = 70_000;
    channel.splice(end..end, std::iter::repeat_n(0xa5, more));
    channel[181_056 + 272..181_056 + 276]
        .copy_from_slice(&u32::try_from(length + more).unwrap().to_be_bytes());
    channel[181_056 + 288 + 8 + 65_536 - 8..][..8]
        .copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 1]);
    let error = refused(MULTIFD, &[&channel, MULTIFD_CHANNEL2], &[NAME]);
    assert!(error.starts_with("the configuration of '0000:00:02.0/vfio' is none: wanted "), "{error}");
}

#[test]
fn a_body_that_is_no_configuration_is_refused_since_nobody_could_find_its_end() {
    let tag = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 2];
    let golden = &PRECOPY_FULL[BEGIN_HEADER + 8..][..CONFIG_BODY];
    let table: [(&[u8], &str); 3] = [
        (&[7; 292], "is none: wanted a configuration of version 2"),
        (&golden[..CONFIG_BODY - 8], "is none: wanted a configuration, got one that does not fit"),
        (&[golden, &[0; 8]].concat(), "is none: wanted a configuration, got one that does not fit"),
    ];
    for (body, wanted) in table {
        let full = vfio(&[&tag[..], body].concat());
        let mut machine = Machine::new(&[]);
        machine.begin(1, 2, NAME, 0, &vfio(&SETUP)).more(3, 2, &vfio(&data(b"state")));
        machine.begin(4, 2, NAME, 0, &full).describe(NAME, 0, &format!("\"size\": {}", full.len()));
        let error = refused(&machine.end(), &[], &[NAME]);
        assert!(error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn a_state_that_is_in_its_section_and_on_channels_is_refused_and_channels_without_it_are_not() {
    let error = refused(PRECOPY, &[MULTIFD_CHANNEL1], &[NAME]);
    assert!(error.contains("in its END section or on the channels, got both"), "{error}");
    let memory_alone = &MULTIFD_CHANNEL1[..181_056];
    assert_eq!(extracted(PRECOPY, &[memory_alone]), extracted(PRECOPY, &[]));
}

#[test]
fn sections_and_records_that_qemu_does_not_write_there_are_refused_with_their_places() {
    let (start, end) = (vfio(&SETUP), vfio(&data(b"state")));
    let config = vfio(&[0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 2]);
    let begun = |payload: &[u8]| {
        let mut machine = Machine::new(&[]);
        machine.begin(1, 2, NAME, 0, payload);
        machine
    };
    let size = |bytes: &[u8]| format!("\"size\": {}", bytes.len());
    let full = |machine: &mut Machine, payload: &[u8]| {
        machine.begin(4, 2, NAME, 0, payload).describe(NAME, 0, &size(payload));
    };
    let mut twice_ended = begun(&start);
    twice_ended.more(3, 2, &end).more(3, 2, &end);
    let mut early_full = begun(&start);
    full(&mut early_full, &config);
    let mut two_fulls = begun(&start);
    two_fulls.more(3, 2, &end);
    full(&mut two_fulls, &config);
    full(&mut two_fulls, &config);
    let mut data_in_full = begun(&start);
    data_in_full.more(3, 2, &end);
    full(&mut data_in_full, &end);
    let mut config_in_end = begun(&start);
    config_in_end.more(3, 2, &config);
    for (machine, wanted) in [
        (twice_ended, "wanted a FULL at most of '0000:00:02.0/vfio', got END"),
        (early_full, "wanted a PART or END of '0000:00:02.0/vfio', got FULL"),
        (two_fulls, "wanted no more sections of '0000:00:02.0/vfio', got FULL"),
        (
            data_in_full,
            "wanted one CONFIG or the end of the payload in the FULL of '0000:00:02.0/vfio', got DATA",
        ),
        (config_in_end, "got CONFIG"),
        (begun(&end), "wanted SETUP in the START of '0000:00:02.0/vfio', got DATA"),
    ] {
        let error = refused(&machine.end(), &[], &[NAME]);
        assert!(error.contains(wanted) && error.starts_with("at byte "), "{wanted}: {error}");
    }
}

#[test]
fn a_device_whose_state_is_its_configuration_alone_is_whole() {
    let config = vfio(&[0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 2]);
    let mut machine = Machine::new(&[]);
    machine.begin(1, 2, NAME, 0, &vfio(&SETUP)).more(3, 2, &vfio(&[]));
    machine.begin(4, 2, NAME, 0, &config).describe(NAME, 0, "\"size\": 16");
    assert_eq!(only_payloads(&extracted(&machine.end(), &[])).len(), 3);
}

#[test]
fn a_section_that_is_not_there_is_refused_with_those_that_are() {
    let error = refused(PRECOPY, &[], &[OTHER]);
    assert_eq!(error, "wanted a section '0000:00:03.0/vfio' of a VFIO device, got '0000:00:02.0/vfio'");
    let mut none = Machine::new(&[]);
    none.begin(1, 1, "ram", 0, &ram_start(65536)).more(3, 1, &RAM_END);
    let error = refused(&none.end(), &[], &[NAME]);
    assert_eq!(error, "wanted a section '0000:00:02.0/vfio' of a VFIO device, got a stream without any");
}

#[test]
fn sections_of_another_version_and_two_of_one_name_are_refused() {
    let at = PRECOPY.windows(NAME.len()).position(|window| window == NAME.as_bytes()).unwrap();
    let mut newer = PRECOPY.to_vec();
    newer[at + NAME.len() + 7] = 2;
    let error = refused(&newer, &[], &[NAME]);
    assert!(error.contains("wanted version 1 of section '0000:00:02.0/vfio', got 2"), "{error}");
    let mut twice = Machine::new(&[]);
    for (id, instance) in [(2, 0), (3, 1)] {
        twice.begin(1, id, NAME, instance, &vfio(&SETUP));
    }
    let error = refused(&twice.end(), &[], &[NAME]);
    assert_eq!(error, "wanted one device with the section '0000:00:02.0/vfio', got two");
}

#[test]
fn a_device_without_its_end_and_sections_behind_it_are_refused() {
    let begun = || {
        let mut machine = Machine::new(&[]);
        machine.begin(1, 2, NAME, 0, &vfio(&SETUP)).more(2, 2, &vfio(&data(b"ab")));
        machine
    };
    let error = refused(&begun().end(), &[], &[NAME]);
    assert_eq!(error, "wanted an END section of '0000:00:02.0/vfio', got the end of the stream");
    for kind in [2, 3] {
        let mut machine = begun();
        machine.more(3, 2, &vfio(&data(b"c"))).more(kind, 2, &vfio(&data(b"d")));
        let error = refused(&machine.end(), &[], &[NAME]);
        assert!(error.contains("wanted a FULL at most of '0000:00:02.0/vfio', got "), "{error}");
    }
    let mut early = begun();
    early.begin(4, 2, NAME, 0, &vfio(&[])).describe(NAME, 0, "\"size\": 8");
    let error = refused(&early.more(3, 2, &vfio(&data(b"c"))).end(), &[], &[NAME]);
    assert!(error.contains("wanted a PART or END of '0000:00:02.0/vfio', got FULL"), "{error}");
}

#[test]
fn a_configuration_said_to_be_on_the_channels_where_none_can_be_is_refused() {
    const CONFIG_LOAD_READY: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 6];
    for kind in [2, 3] {
        let mut ready = Machine::new(&[]);
        ready.begin(1, 2, NAME, 0, &vfio(&SETUP)).more(
            kind,
            2,
            &[&data(b"a")[..], &CONFIG_LOAD_READY].concat(),
        );
        let error = refused(&ready.more(3, 2, &vfio(&data(b"b"))).end(), &[], &[NAME]);
        assert!(error.contains("got CONFIG_LOAD_READY"), "{error}");
    }
}

#[test]
fn devices_of_a_machine_are_loaded_each_with_its_own_state() {
    let configs = ["size=1000,seed=1,pci=256:2", "size=2000,seed=2"];
    let mut sources = Fleet::new("a", &configs, 64, &Log::default(), 0);
    let plan = Save { config: true, leave: Some(Leave::Stopped), ..Save::default() };
    let stream = machine(&sources.save(&plan, &quiet).unwrap().0, &[NAME, OTHER]);
    let (both, taken) = extract(&stream, &[], &[OTHER, NAME]);
    assert_eq!(taken.unwrap().iter().map(|entry| entry.data_bytes).collect::<Vec<_>>(), [2024, 1024]);
    let mut targets = Fleet::new("b", &["size=2000", "size=1000,pci=256:2"], 64, &Log::default(), 0);
    targets.names = vec![Some(OTHER.into()), Some(NAME.into())];
    let report = targets.load(&both, &Load::default()).unwrap();
    assert!(report.configs[0].is_none() && report.configs[1].is_some());
    let [first, second] = &sources.contents()[..] else { panic!() };
    assert_eq!(targets.contents(), [second.clone(), first.clone()]);
    let (one, _) = extract(&stream, &[], &[OTHER]);
    let mut target = Fleet::new("c", &["size=2000"], 64, &Log::default(), 0);
    target.load(&one, &Load::default()).unwrap();
    assert_eq!((target.sim(0).content(), target.states()), (&second[..], vec![State::Running]));
}

#[test]
fn a_stream_that_is_cut_anywhere_gives_nothing_that_looks_whole() {
    let mut source = Fleet::new("a", &["size=100"], 64, &Log::default(), 0);
    let stream = machine(&source.save(&Save::default(), &quiet).unwrap().0, &[NAME]);
    extracted(&stream, &[]);
    for cut in 0..stream.len() {
        let (bytes, taken) = extract(&stream[..cut], &[], &[NAME]);
        assert!(taken.is_err(), "cut at {cut}");
        let mut target = Fleet::new("b", &["size=100"], 64, &Log::default(), 0);
        let error = target.load(&bytes, &Load { force: true, ..Load::default() }).expect_err("loaded");
        assert!(
            matches!(error.devices[0].1, Left::Reset | Left::At(State::Running)),
            "cut at {cut}: {error}"
        );
    }
}
