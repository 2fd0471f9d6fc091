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
use vfio_migration_host::qemu::{Event, Extract, ExtractError, Kind, Walker};
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
    let sections: Vec<_> = sections.iter().map(|name| (*name).to_owned()).collect();
    let drivers: Vec<_> = sections.iter().map(|_| "sim".to_owned()).collect();
    let channels: Vec<File> = channels.iter().map(|bytes| holding(bytes)).collect();
    let plan = Extract { sections: &sections, drivers: &drivers, channels: &channels, interrupt: None };
    let mut out = temporary();
    let walker = Walker::open(holding(stream)).unwrap();
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
    let mut walker = Walker::open(holding(stream)).unwrap();
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
    for (channels, wanted) in [
        (vec![MULTIFD_CHANNEL1], "wanted packet 0 of the device, got the end of every channel"),
        (vec![MULTIFD_CHANNEL2], "wanted packet 1 of the device, got the end of every channel"),
        (vec![MULTIFD_CHANNEL1, MULTIFD_CHANNEL2, MULTIFD_CHANNEL1], "wanted packet 1 of the device once"),
        (vec![MULTIFD_CHANNEL2, MULTIFD_CHANNEL2], "wanted packet 0 of the device once, got it twice"),
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
