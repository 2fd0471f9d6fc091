//! What the corpora begin with: the golden files, cut and put into the form that each target reads.
//!
//! Deliberately absent: files of their own. The golden ones are compiled in, and a target writes its seeds where it is
//! asked to.

use std::path::Path;

use vfio_migration_core::stream::record::{Tag, encode};
use vfio_migration_host::transfer::Save;
use vfio_migration_tests::golden::{
    BEGIN_HEADER, BIGPRE_END_HEAD, BIGPRE_PART1_HEAD, CONFIG_BODY, CONTINUE_HEADER, IOMMUFD_END,
    MULTIFD_CHANNEL1_BEGIN, MULTIFD_CHANNEL1_END, MULTIFD_CHANNEL2_STATE, MULTIFD_END, MULTIFD_FULL,
    ONE_END_SECTION, PARTS_THEN_EMPTY_END, PAUSED_END, PAUSED_FULL, PRECOPY, PRECOPY_END, PRECOPY_FULL,
    PRECOPY_PART1, PRECOPY_PART2, PRECOPY_START, SWITCHACK_END, SWITCHACK_PART1,
};
use vfio_migration_tests::schedule::setting::{end_alone, part_end, start_end_full};
use vfio_migration_tests::transfer::{Fleet, Log, quick, quiet};

use crate::chance::join;

/// The variable with the folder that a target writes its seeds to, in the place of running.
pub const FOLDER: &str = "FUZZ_SEEDS";

/// Writes the seeds where that is asked for, and ends the program then.
///
/// # Panics
/// When they can't be written.
pub fn write(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    for (number, seed) in seeds().into_iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{number:02}")), seed)
            .expect("a folder for seeds");
    }
    std::process::exit(0);
}

/// For the target `section`: whole sections and streams without the large configuration.
#[must_use]
pub fn section() -> Vec<Vec<u8>> {
    let sections = SECTIONS.iter().chain([&BIGPRE_PART1_HEAD, &BIGPRE_END_HEAD]);
    let sections = sections.map(|section| section[..section.len().min(100)].to_vec());
    sections.chain([ONE_END_SECTION[..200].to_vec(), ONE_END_SECTION[4327..].to_vec()]).collect()
}

/// For the target `record`: payloads, with a configuration of QEMU's length cut down to what one byte can say.
#[must_use]
pub fn record() -> Vec<Vec<u8>> {
    let payloads = SECTIONS.iter().map(|section| payload(section));
    let short = payloads.map(|bytes| match bytes.len() {
        ..1000 => join(&[4, 255], bytes),
        _ => join(&[4, 7], &[&bytes[..12], &bytes[bytes.len() - 8..]].concat()),
    });
    let tags = Tag::ALL.iter().map(|tag| join(&[0, 0], &tag.raw().to_be_bytes()));
    short.chain(tags).collect()
}

/// For the target `destination`: golden payloads, those of the schedules, and steps that make the latter.
#[must_use]
pub fn destination() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = SECTIONS
        .iter()
        .map(|section| payload(section))
        .filter(|payload| payload.len() < 1000)
        .map(|payload| join(&[0x36, 0, 36, 0], payload))
        .collect();
    for how in [0, 0x10, 0x3e, 0x08] {
        for payloads in [start_end_full(), part_end(), end_alone()] {
            seeds.push(join(&[how, 0, 5, 0], &payloads));
            seeds.push(join(&[how, 0, 5, 1], &payloads));
        }
    }
    for steps in [&[0x00, 0x0f, 0x04][..], &[0x31, 0x03, 0x06, 0x02], &[0x0f]] {
        seeds.push(join(&[0x37, 0, 5, 0], steps));
        seeds.push(join(&[0x27, 0, 200, 9], steps));
    }
    seeds
}

/// For the target `source`: each script without a failure and with some.
#[must_use]
pub fn source() -> Vec<Vec<u8>> {
    let plain = (0..16_u8).map(|script| join(&[script << 4 | 7, 0x93, 4, 0], &[]));
    let failing = (0..8_u8).map(|script| join(&[script << 4 | 7, 0x93, 4, 5], &[2, 9, 3, 12, 1, 3]));
    plain.chain(failing).collect()
}

/// For the target `file`: streams that QEMU loads, streams of ours whole and in parts, and steps that make such.
#[must_use]
pub fn file() -> Vec<Vec<u8>> {
    let mut seeds = vec![join(&[0, 0, 0, 0], ONE_END_SECTION), join(&[0, 4, 0, 0], PARTS_THEN_EMPTY_END)];
    for devices in 1..=3_u8 {
        for pre_copy in [false, true] {
            let stream = saved(devices.into(), pre_copy);
            let (body, json) = take_apart(&stream);
            let length = u16::try_from(json.len()).expect("a short description").to_be_bytes();
            let apart = [&length[..], json, body].concat();
            let how = (devices - 1) << 2;
            seeds.push(join(&[how, 0, 0, 0], &stream));
            seeds.push(join(&[how | 1, 0, 0, 9], &stream));
            seeds.push(join(&[how | 2, 0, 0, 0], &apart));
        }
        let how = (devices - 1) << 2 | 3;
        seeds.push(join(&[how, 0, 0, 0], &[0x0c, 0x01, 0x11, 0x21, 0x03, 0x13, 0x23]));
        for pci in [0x10, 0x20, 0x30] {
            seeds.push(join(&[how | pci, 0, 0, 0], &[0x0c, 0x03, 0x13, 0x23, 0x06, 0x16, 0x26]));
        }
        seeds.push(join(&[how, 1, 2, 0], &[0x0c, 0x02, 0x21, 0x05, 0x03, 0x13, 0x23, 0x04]));
    }
    seeds
}

/// For the target `description`: what QEMU's stream and ours end in.
#[must_use]
pub fn description() -> Vec<Vec<u8>> {
    let of_ours = (1..=3).map(|devices| join(&[1, 0], take_apart(&saved(devices, false)).1));
    let of_qemu = join(&[0, 0], &ONE_END_SECTION[4328..]);
    let newer = join(&[1, 3], br#"{"page_size":4096,"vfio-migration":{"format":2,"more":[{"a":null}]}"#);
    of_ours.chain([of_qemu, newer]).collect()
}

/// For the target `pci_config`: the body of QEMU with and without its device's layout, and whole ones of every kind.
#[must_use]
pub fn pci_config() -> Vec<Vec<u8>> {
    let body = &PRECOPY_FULL[BEGIN_HEADER + 8..][..CONFIG_BODY + 8];
    let mut seeds = vec![join(&[0, 0, 0, 255], body), join(&[0, 0, 0, 6], &body[..260])];
    for how in [6, 7, 2] {
        seeds.push(join(&[how, 0, 0, 99], &[]));
        seeds.push(join(&[how, 0, 9, 3], &[0, 0x44, 4, 1, 0, 0, 0]));
        seeds.push(join(&[how | 0xf8, 8, 0, 255], &[1, 4, 8, 0, 0, 0, 1, 0, 0, 0, 1]));
    }
    let display = [
        &[1, 20, 67][..],
        b"\x05\x19VFIOPCIDevice/VFIODisplay\0\0\0\x01",
        &[0; 28],
        &encode(Tag::EndOfState),
    ];
    seeds.push(join(&[7, 0, 0, 5], &display.concat()));
    seeds
}

/// For the target `packet`: heads of QEMU, alone and one behind the other, and messages.
#[must_use]
pub fn packet() -> Vec<Vec<u8>> {
    let messages: [&[u8]; 3] =
        [b"\0\x07\0\0", b"\0\x02\0\x04\0\0\0\x01\0\x07\0\0", b"\0\x03\0\x02ab\0\x01\0\x04\0\0\0\0"];
    let channels = [&MULTIFD_CHANNEL1_BEGIN[..64], &MULTIFD_CHANNEL1_BEGIN[64..], MULTIFD_CHANNEL2_STATE];
    let config = &MULTIFD_CHANNEL1_END[..400];
    channels.into_iter().chain([config]).chain(messages).map(<[u8]>::to_vec).collect()
}

/// For the target `multifd`: the packets of QEMU, and steps that make such, in order and not.
#[must_use]
pub fn multifd() -> Vec<Vec<u8>> {
    let line = |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let (config, state) = (&MULTIFD_CHANNEL1_END[..4420], &MULTIFD_CHANNEL2_STATE[..324]);
    let mut seeds = vec![
        join(&[0x36, 1, 0, 36], &[line(config), line(state)].concat()),
        join(&[0x36, 0, 0, 36], &line(&[state, config].concat())),
        join(&[0x16, 4, 40, 36], &line(state)),
    ];
    for steps in [
        &[0x00, 0x10, 0x01, 255, 0x12][..],
        &[0x03, 0x13, 0x20, 0x14, 0x04, 0x22],
        &[0x07, 0x0d, 0x01, 40, 0x02],
    ] {
        seeds.push(join(&[0x17, 0x02, 0, 20], steps));
        seeds.push(join(&[0x07, 0x0e, 16, 40], steps));
        seeds.push(join(&[0x1f, 0x1c, 255, 20], steps));
    }
    seeds
}

/// For the target `walk`: the front of a machine's stream of QEMU, streams of ours, and steps that make such.
#[must_use]
pub fn walk() -> Vec<Vec<u8>> {
    let mut seeds = vec![
        join(&[0, 0], &PRECOPY[..400]),
        join(&[2, 0], ONE_END_SECTION),
        join(&[0, 9], PARTS_THEN_EMPTY_END),
        join(&[2, 0], &saved(2, true)),
    ];
    for steps in [
        &[0x40, 0x04, 0x00, 0x35, 0x41, 1, 2, 3, 4, 0x09, 0xb9, 0x07, 0x02, 0x38, 7, 7, 7, 0x03][..],
        &[0x04, 0x16, 0x25, 0x07],
        &[0x00, 0x02, 0x03, 0x28, 1, 2, 0x48, 1, 2, 3, 4],
    ] {
        for how in [1, 3, 5, 7] {
            seeds.push(join(&[how, 0], steps));
        }
    }
    // A pipe that closes behind the end byte.
    seeds.push(vec![1, 4, 8, 0, 0, 0, 0, 0, 0, 0, 182]);
    seeds
}

/// For the target `extract`: streams of ours, and steps that make a machine's, with and without channels.
#[must_use]
pub fn extract() -> Vec<Vec<u8>> {
    let front =
        |bytes: &[u8]| [&u16::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat();
    let mut seeds =
        vec![join(&[0, 0, 0], &front(&saved(1, true))), join(&[0, 0, 0], &front(ONE_END_SECTION))];
    let data = [0x40, 0x04, 0x00, 0x35, 0x41, 1, 2, 3, 4, 0xb9, 0x07, 0x22, 7, 7, 0x38, 7, 7, 7, 0x03];
    let elsewhere = [0x04, 0x00, 0x21, 1, 2, 0x07, 0x02];
    seeds.push(join(&[1, 0, 0], &front(&data)));
    for steps in [&[0x00, 0x10, 0x02][..], &[0x03, 0x10, 0x04, 0x07, 0x12], &[0x00, 0x05, 0x12]] {
        seeds.push(join(&[7, 1, 20], &[&front(&elsewhere)[..], steps].concat()));
        seeds.push(join(&[3, 1, 20], &[&front(&elsewhere)[..], steps].concat()));
        seeds.push(join(&[14, 2, 30], &[&[0, 0], steps].concat()));
    }
    // A configuration without a byte.
    let empty = [&[0xff; 5][..], &[0xef, 0x10, 0, 1]].concat();
    seeds.push(join(&[14, 1, 2], &[&[0, 0, 0, 0][..], &empty].concat()));
    seeds
}

/// A stream that our own code wrote of simulated devices.
fn saved(devices: usize, pre_copy: bool) -> Vec<u8> {
    let configs = vec!["size=40,seed=9,initial=34,dirty=8,dirty-for=2"; devices];
    let mut fleet = Fleet::new("source", &configs, 100, &Log::default(), 0);
    let plan = Save { pre_copy: pre_copy.then(quick), ..Save::default() };
    fleet.save(&plan, &quiet).expect("healthy devices").0
}

/// What stands before a stream's description, and the description without its checksum.
fn take_apart(stream: &[u8]) -> (&[u8], &[u8]) {
    let length =
        |at: usize| stream.get(at + 1..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes) as usize);
    let begins = |&at: &usize| stream[at] == 6 && length(at) == Some(stream.len() - at - 5);
    let at = (0..stream.len()).rev().find(begins).expect("a description");
    (&stream[..at], &stream[at + 5..stream.len() - 21])
}

fn payload(section: &[u8]) -> &[u8] {
    let header = if matches!(section[0], 1 | 4) { BEGIN_HEADER } else { CONTINUE_HEADER };
    &section[header..section.len() - 5]
}

const SECTIONS: [&[u8]; 12] = [
    PRECOPY_START,
    PRECOPY_PART1,
    PRECOPY_PART2,
    PRECOPY_END,
    PRECOPY_FULL,
    PAUSED_END,
    PAUSED_FULL,
    SWITCHACK_PART1,
    SWITCHACK_END,
    IOMMUFD_END,
    MULTIFD_END,
    MULTIFD_FULL,
];
