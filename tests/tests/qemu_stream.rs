//! The walk through the stream of a whole machine: QEMU's own bytes, and streams made by hand for what those have not.
//!
//! Deliberately absent: what the program prints of it, which `host/tests` has.

use std::os::fd::OwnedFd;
use std::thread;

use proptest::prelude::*;
use rustix::pipe::pipe;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_host::file::Error;
use vfio_migration_host::qemu::{Channel, ChannelEvent, MemoryPacket, StatePacket, Unwalkable};
use vfio_migration_tests::golden::*;
use vfio_migration_tests::machine::{
    Machine, RAM_END, SETUP, Told, data, payloads, ram_entry, ram_start, vfio, walk_fd, walk_file, walk_link,
};

/// A link that gives these bytes, a few at a time.
struct Bytes<'a>(&'a [u8]);

impl Transport for Bytes<'_> {
    fn send(&mut self, _: &[u8]) -> Result<usize, Code> {
        Err(Code(32))
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let count = buffer.len().min(self.0.len()).min(1000);
        let (now, later) = self.0.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.0 = later;
        Ok(count)
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(Code(95))
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        Err(Code(95))
    }
}

/// A machine with memory of 64 KiB and a VFIO device, with one page and one DATA record, up to its devices.
fn small(page: &[u8; 4096]) -> Machine {
    let mut machine = Machine::new(&[]);
    machine.begin(1, 1, "ram", 0, &ram_start(65536));
    machine.begin(1, 2, "0000:00:02.0/vfio", 0, &vfio(&SETUP));
    machine.more(2, 1, &[&ram_entry(0x3008, page)[..], &RAM_END].concat());
    machine.put(&[8, 0, 11, 0, 0]);
    machine.more(3, 1, &RAM_END);
    machine.more(3, 2, &vfio(&data(b"state")));
    machine
}

fn whole(told: &Told, bytes: &[u8]) {
    assert_eq!((told.says(), told.bytes), (String::new(), bytes.len() as u64));
}

#[test]
fn a_stream_of_qemu_is_walked_to_its_last_byte() {
    let told = walk_file(PRECOPY);
    whole(&told, PRECOPY);
    assert_eq!(told.lines[0], "0 configuration of 'pc-i440fx-10.0' to 27");
    let vfio = [
        "197 START of section 38 '0000:00:02.0/vfio', instance 0, setup",
        "139387 PART of section 38 '0000:00:02.0/vfio', instance 0, iterations",
        "336197 PART of section 38 '0000:00:02.0/vfio', instance 0, iterations",
        "554515 END of section 38 '0000:00:02.0/vfio', instance 0, stop-copy",
        "567309 FULL of section 38 '0000:00:02.0/vfio', instance 0, devices",
    ];
    assert_eq!(told.with("/vfio"), vfio);
    assert_eq!(told.with("DATA"), ["139392 DATA of 40", "554520 DATA of 52"]);
    assert_eq!(told.with("CONFIG"), ["567340 CONFIG of 4124"]);
    assert_eq!(told.with("command"), ["336215 command 11 of 5"]);
    assert_eq!(told.with("FULL").len(), 31);
    let [.., end, description] = told.lines.as_slice() else { panic!() };
    assert_eq!((end.as_str(), description.as_str()), ("571641 end", "571642 description of 99170"));
}

#[test]
fn the_main_channel_of_a_machine_with_multifd_is_walked_to_its_last_byte() {
    let told = walk_file(MULTIFD);
    whole(&told, MULTIFD);
    let commands = ["27 command 1 of 5", "32 command 2 of 9", "427 command 11 of 5"];
    assert_eq!(told.with("command"), commands);
    assert_eq!((told.with(" 2 flushes").len(), told.with(" 1 flushes").len()), (1, 2));
    assert_eq!(told.with("INIT_DATA_SENT"), ["334 INIT_DATA_SENT of 8"]);
    assert_eq!(told.with("description"), ["13417 description of 99164"]);
}

#[test]
fn the_payloads_of_the_device_come_byte_for_byte() {
    let found = payloads(PRECOPY);
    let wanted = [PRECOPY_START, PRECOPY_PART1, PRECOPY_PART2, PRECOPY_END, PRECOPY_FULL];
    let heads = [BEGIN_HEADER, CONTINUE_HEADER, CONTINUE_HEADER, CONTINUE_HEADER, BEGIN_HEADER];
    assert_eq!(found.len(), wanted.len());
    for (((_, payload), wanted), head) in found.iter().zip(wanted).zip(heads) {
        assert!(payload == &wanted[head..wanted.len() - 5]);
    }
}

#[test]
fn a_configuration_without_a_description_is_found_by_what_is_in_it() {
    let told = walk_file(ONE_END_SECTION);
    assert_eq!(told.with("CONFIG"), ["190 CONFIG of 4124"]);
    assert_eq!(told.with("end"), ["4327 end"]);
    assert_eq!(
        told.says(),
        "at byte 4333: wanted a description of ours, got one that does not end in a checksum"
    );
}

#[test]
fn memory_that_holds_records_sections_and_a_description_is_memory() {
    let mut page = [0; 4096];
    let bait = [
        &vfio(&data(b"bait"))[..],
        &[0x7e, 0, 0, 0, 2],
        PRECOPY_START,
        PRECOPY_END,
        b"\0\x06\0\0\0\x02{}",
        b"QEVM\0\0\0\x03",
    ]
    .concat();
    for place in page.chunks_exact_mut(bait.len()) {
        place.copy_from_slice(&bait);
    }
    let bytes = small(&page).end();
    let told = walk_file(&bytes);
    whole(&told, &bytes);
    assert_eq!(told.with("DATA").len(), 1);
    assert_eq!(told.with(" of section ").len(), 5);
    assert_eq!(told.with("1 normal, 0 zero").len(), 1);
    let plain = walk_file(&small(&[0; 4096]).end());
    assert_eq!(told.lines, plain.lines, "what memory holds changes nothing");
}

#[test]
fn a_page_of_memory_at_the_very_end_does_not_pass_for_the_description() {
    let mut page = [0; 4096];
    page[4000..4007].copy_from_slice(b"\x06\0\0\0\x02{}");
    let mut machine = small(&page);
    machine.begin(4, 3, "timer", 0, &[7; 24]).describe("timer", 0, "\"size\": 24");
    let bytes = machine.end();
    whole(&walk_file(&bytes), &bytes);
}

#[test]
fn every_kind_of_page_is_read() {
    let mut machine = Machine::new(&[]);
    machine.begin(1, 1, "ram", 0, &ram_start(1 << 20));
    let page = [0xff; 4096];
    let entries = [
        &ram_entry(0x8, &page)[..],
        &(0x1000_u64 | 0x28).to_be_bytes(),
        &page,
        &(0x2000_u64 | 0x22).to_be_bytes(),
        &[0],
        &ram_entry(0x3002, &[0]),
        &ram_entry(0x4040, &[1, 0, 3, 9, 9, 9]),
        &ram_entry(0x5100, &[0, 0, 0, 2, 9, 9]),
        &0x200_u64.to_be_bytes(),
        &RAM_END,
    ];
    machine.more(2, 1, &entries.concat());
    let bytes = machine.end();
    let told = walk_file(&bytes);
    whole(&told, &bytes);
    assert_eq!(told.with("2 normal, 2 zero, 1 xbzrle, 1 compressed pages, 1 flushes").len(), 1, "{told:?}");
}

#[test]
fn subsections_of_the_configuration_change_how_memory_is_read() {
    let capabilities = b"\0\0\0\x01\x0fx-ignore-shared";
    let mut machine = Machine::new(&[
        ("configuration/target-page-bits", &[0, 0, 0, 16]),
        ("configuration/capabilities", capabilities),
        ("configuration/uuid", &[7; 16]),
    ]);
    let length = 0x20000_u64;
    let address = [0; 8];
    let list = [&(length | 4).to_be_bytes()[..], b"\x06pc.ram", &length.to_be_bytes(), &address, &RAM_END];
    machine.begin(1, 1, "ram", 0, &list.concat());
    machine.more(2, 1, &[&ram_entry(0x10008, &[3; 65536])[..], &RAM_END].concat());
    let bytes = machine.end();
    let told = walk_file(&bytes);
    whole(&told, &bytes);
    assert_eq!(told.with("1 normal").len(), 1);
}

#[test]
fn a_file_with_mapped_ram_is_refused_with_the_reason() {
    let capabilities = b"\0\0\0\x02\x0fx-ignore-shared\x0amapped-ram";
    let told = walk_file(&Machine::new(&[("configuration/capabilities", capabilities)]).end());
    assert!(matches!(told.error, Some(Error::Unwalkable { offset: 8, reason: Unwalkable::MappedRam })));
    assert_eq!(told.lines, ["0 configuration of 'pc' to 78"], "what stands before the memory is told");
}

#[test]
fn sizes_of_fields_arrays_and_subsections_lead_to_the_last_byte() {
    let mut machine = small(&[0; 4096]);
    machine.begin(4, 3, "dma", 0, &[7; 24 + 3 * 8 + 6 + 9 + 2 + 6 + 11 + 5]).describe(
        "dma",
        0,
        "\"vmsd_name\": \"dma\", \"version\": 1, \"fields\": [{\"name\": \"a\", \"type\": \"struct\", \"size\": 24, \
         \"struct\": {\"vmsd_name\": \"inner\", \"fields\": [{\"name\": \"b\", \"size\": 20}]}}, \
         {\"name\": \"c\", \"type\": \"uint64\", \"size\": 8, \"array_len\": 3}], \"subsections\": [{\"vmsd_name\": \
         \"dma/outer\", \"version\": 1, \"fields\": [{\"name\": \"d\", \"size\": 2}], \"subsections\": [{\"vmsd_name\": \
         \"dma/outer/2\", \"fields\": [{\"name\": \"e\", \"size\": 5}]}]}]",
    );
    machine.begin(4, 4, "dma", 1, &[7; 99]).describe("dma", 1, "\"size\": 99, \"fields\": []");
    machine.begin(4, 5, "empty", 0, &[]).describe("empty", 0, "\"fields\": []");
    let bytes = machine.end();
    let told = walk_file(&bytes);
    whole(&told, &bytes);
    assert_eq!(told.with("footer, 87 bytes").len(), 1);
    assert_eq!(told.with("footer, 99 bytes").len(), 1, "told apart by the instance");
}

#[test]
fn what_the_description_does_not_say_is_told_with_its_reason() {
    let mut machine = small(&[0; 4096]);
    let sections = machine.bytes.len() as u64;
    machine.begin(4, 3, "timer", 0, &[7; 24]);
    let section = || "FULL of section 3 'timer', instance 0,".to_owned();
    let bytes = machine.end();
    let payload = sections + 14 + 5;
    let table = [
        (walk_file(&bytes), Unwalkable::NotDescribed { section: section() }),
        (walk_file(&machine.bytes), Unwalkable::NoDescription { section: section() }),
        (walk_link(Bytes(&bytes)), Unwalkable::Pipe { section: section() }),
    ];
    for (told, wanted) in table {
        let Some(Error::Unwalkable { offset, reason }) = &told.error else { panic!("{told:?}") };
        assert_eq!((*offset, reason), (payload, &wanted));
        assert_eq!(told.with("timer").len(), 1, "the section's header was told");
    }
}

#[test]
fn a_device_that_the_description_has_and_the_stream_has_not_is_missed() {
    let told = walk_file(&small(&[0; 4096]).describe("timer", 2, "\"size\": 24").end());
    assert_eq!(
        told.says(),
        "wanted a FULL of 'timer', instance 2 by the description, got none in the sections before it"
    );
}

#[test]
fn a_description_that_is_wrong_about_a_size_leads_to_no_footer() {
    let mut machine = small(&[0; 4096]);
    machine.begin(4, 3, "timer", 0, &[7; 24]).describe("timer", 0, "\"size\": 23");
    assert!(walk_file(&machine.end()).says().contains("wanted the footer of section 3"));
    let mut machine = small(&[0; 4096]);
    let full = vfio(&[]);
    machine.begin(4, 2, "0000:00:02.0/vfio", 0, &full).describe("0000:00:02.0/vfio", 0, "\"size\": 9");
    let told = walk_file(&machine.end());
    assert!(
        told.says().ends_with("wanted a section as long as its description, got 8 bytes, described are 9")
    );
}

#[test]
fn sections_that_are_out_of_place_are_told_with_their_place() {
    let begin = |id, name| {
        let mut machine = small(&[0; 4096]);
        let at = machine.bytes.len();
        machine.begin(1, id, name, 0, &[]);
        (at, walk_file(&machine.end()))
    };
    let (at, told) = begin(9, "slirp");
    let payload = at + 14 + 5;
    assert!(told.says().starts_with(&format!("at byte {payload}: how long START of section 9 'slirp'")));
    let (at, told) = begin(2, "other/vfio");
    assert!(told.says().starts_with(&format!("at byte {at}: wanted a section with an id of its own")));
    let mut machine = small(&[0; 4096]);
    let at = machine.bytes.len();
    machine.more(2, 77, &[]);
    let told = walk_file(&machine.end());
    assert_eq!(
        told.says(),
        format!("at byte {at}: wanted a section that a START began, got PART of section 77")
    );
    let mut machine = small(&[0; 4096]);
    machine.put(&[8, 0, 7, 0, 4, 0, 0, 0, 9]);
    assert!(walk_file(&machine.end()).says().ends_with("post-copy begins, which VFIO devices don't have"));
}

#[test]
fn a_stream_without_a_description_ends_with_its_end_byte() {
    let mut bytes = small(&[0; 4096]).bytes;
    bytes.push(0);
    whole(&walk_file(&bytes), &bytes);
    whole(&walk_link(Bytes(&bytes)), &bytes);
}

#[test]
fn a_pipe_is_read_up_to_the_first_device_that_only_the_description_knows() {
    let (reader, writer): (OwnedFd, OwnedFd) = pipe().unwrap();
    let feeding = thread::spawn(move || {
        let mut rest = PRECOPY;
        while let Ok(count) = rustix::io::write(&writer, rest) {
            rest = &rest[count..];
            if rest.is_empty() {
                break;
            }
        }
    });
    let told = walk_fd(reader);
    feeding.join().unwrap();
    assert_eq!(
        told.says(),
        "at byte 554604: how long FULL of section 0 'timer', instance 0, is stands in the description, the last thing in \
         the stream: from a pipe it can't be read any further, from a file it can"
    );
    let file = walk_file(PRECOPY).lines;
    assert_eq!(told.lines, file[..told.lines.len()], "up to there it is told as from a file");
}

#[test]
fn a_stream_that_is_cut_is_told_up_to_its_cut_and_never_whole() {
    let all = walk_file(PRECOPY).lines;
    let places = (0..PRECOPY.len()).filter(|at| *at < 270 || at % 23_011 == 0 || *at > PRECOPY.len() - 20);
    for at in places {
        for told in [walk_file(&PRECOPY[..at]), walk_link(Bytes(&PRECOPY[..at]))] {
            let error = told.error.as_ref().unwrap_or_else(|| panic!("cut at {at}"));
            assert!(error.offset().is_some_and(|offset| offset <= at as u64), "{at}: {error}");
            assert_eq!(told.lines, all[..told.lines.len()], "cut at {at}");
        }
    }
}

#[test]
fn damage_is_told_with_its_place_behind_all_that_came_before() {
    let table: [(usize, &[u8], u64, &str); 8] = [
        (3, b"X", 0, "wanted the preamble"),
        (8, &[0x41], 8, "wanted the type byte"),
        (27, &[0x41], 27, "wanted the type byte"),
        (192, &[0x7f], 192, "wanted the footer of section 1"),
        (235, &[0x09], 228, "wanted a record's tag at byte 0 of the payload"),
        (249, &[0x09], 249, "wanted the type byte"),
        (261, &[0x01], 254, "wanted an entry of guest memory, got one with the flags 0x1"),
        (571_641, &[0x06], 571_641, "wanted a section or the end of the stream, got a description"),
    ];
    let all = walk_file(PRECOPY).lines;
    for (at, bytes, place, wanted) in table {
        let mut damaged = PRECOPY.to_vec();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        let told = walk_file(&damaged);
        assert!(told.says().contains(wanted), "{at}: {}", told.says());
        assert_eq!(told.error.as_ref().and_then(Error::offset), Some(place), "{at}: {}", told.says());
        assert_eq!(told.lines, all[..told.lines.len()], "{at}");
    }
}

#[test]
fn memory_that_does_not_fit_the_list_of_blocks_is_damage() {
    let of_part = |entry: &[u8]| {
        let mut machine = Machine::new(&[]);
        machine.begin(1, 1, "ram", 0, &ram_start(65536));
        machine.more(2, 1, &[entry, &RAM_END].concat());
        walk_file(&machine.end()).says()
    };
    let table: [(&[u8], &str); 5] = [
        (&[&8_u64.to_be_bytes()[..], b"\x05vram1"].concat(), "got one of 'vram1'"),
        (
            &ram_entry(0x10008, &[0; 4096]),
            "wanted a page within its block, got one at 0x10000 of 'pc.ram', 0x10000",
        ),
        (&0x28_u64.to_be_bytes(), "wanted a page with its block's name"),
        (&ram_entry(0x40, &[1, 0xff, 0xff]), "got 65535 bytes"),
        (&0x80_u64.to_be_bytes(), "memory was moved by RDMA"),
    ];
    for (entry, wanted) in table {
        let says = of_part(entry);
        assert!(says.contains(wanted), "{wanted}: {says}");
    }
    let mut machine = Machine::new(&[]);
    let list = [&0x1004_u64.to_be_bytes()[..], b"\x06pc.ram", &0x2000_u64.to_be_bytes(), &RAM_END];
    machine.begin(1, 1, "ram", 0, &list.concat());
    assert!(walk_file(&machine.end()).says().contains("got 'pc.ram' of 8192 bytes where 4096 are left"));
}

/// What a walk along a channel told, and the error that ended it.
fn channel(bytes: &[u8], page_size: u64) -> (Vec<String>, String) {
    let mut channel = Channel::new(Bytes(bytes), page_size);
    let mut lines = Vec::new();
    let error = loop {
        let event = match channel.next() {
            Ok(Some(event)) => event,
            Ok(None) => break String::new(),
            Err(error) => break error.to_string(),
        };
        lines.push(match event {
            ChannelEvent::Init(init) => format!("channel {}", init.id),
            ChannelEvent::Memory(packet) => {
                let MemoryPacket { offset, length, sync, normal_pages, zero_pages, block } = packet;
                format!("{offset} memory of {length}, {sync}, {normal_pages}, {zero_pages}, '{block}'")
            }
            ChannelEvent::State(packet) => {
                let StatePacket { offset, length, idstr, index, content, bytes, .. } = packet;
                format!("{offset} {content:?} {index} of '{idstr}', {length}, {bytes} of it")
            }
            ChannelEvent::Bytes { bytes, last, .. } => format!("{} bytes, {last}", bytes.len()),
        });
    };
    assert!(channel.offset() == bytes.len() as u64 || !error.is_empty());
    (lines, error)
}

#[test]
fn the_channels_of_qemu_are_walked_to_their_last_byte() {
    let (lines, error) = channel(MULTIFD_CHANNEL1, 4096);
    assert_eq!(error, "");
    assert_eq!(lines[..2], ["channel 1", "64 memory of 1344, true, 0, 0, ''"]);
    assert_eq!(lines.len(), 1 + 30 + 2);
    let state = ["181056 Config 1 of '0000:00:02.0/vfio', 4420, 4124 of it", "4124 bytes, true"];
    assert_eq!(lines[29..31], state);
    let (lines, error) = channel(MULTIFD_CHANNEL2, 4096);
    assert_eq!((lines.len(), error.as_str()), (1 + 48 + 2, ""));
    assert_eq!(lines[46..48], ["384128 Data 0 of '0000:00:02.0/vfio', 324, 36 of it", "36 bytes, true"]);
}

#[test]
fn a_channel_that_is_cut_or_of_another_size_of_page_is_never_whole() {
    let (all, _) = channel(MULTIFD_CHANNEL1, 4096);
    let (_, error) = channel(MULTIFD_CHANNEL1, 8192);
    assert!(error.contains("wanted the magic number of a multifd channel"), "{error}");
    for at in (0..1500).chain(181_000..182_000).chain([185_476 + 1343, 188_163]) {
        let (lines, error) = channel(&MULTIFD_CHANNEL1[..at], 4096);
        let whole = [64, 64 + 1344, 181_056, 185_476].contains(&at);
        assert_eq!(error.is_empty(), whole, "{at}: {error}");
        let told = lines.len() - usize::from(lines.last().is_some_and(|line| line.ends_with("false")));
        assert_eq!(lines[..told], all[..told], "{at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_behind_a_preamble_are_walked_or_refused(bytes in prop::collection::vec(0_u8..12, 0..200)) {
        let stream = [&b"QEVM\0\0\0\x03"[..], &bytes].concat();
        prop_assert!(walk_file(&stream).bytes <= stream.len() as u64);
    }

    #[test]
    fn a_damaged_stream_is_walked_or_refused(at in 0..MULTIFD.len(), flip in 1_u8..) {
        let mut bytes = MULTIFD.to_vec();
        bytes[at] ^= flip;
        let told = walk_file(&bytes);
        prop_assert!(told.error.is_some() || told.bytes == bytes.len() as u64);
    }
}
