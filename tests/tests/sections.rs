//! `stream::section` on QEMU's own bytes: decoded, and separately encoded.
//!
//! Deliberately absent: what a damaged payload does to a device; that is in `records.rs`.

use proptest::prelude::*;
use vfio_migration_core::device::State;
use vfio_migration_core::session::{Source, SourceEffect, drive};
use vfio_migration_core::stream::record::{self, Tag};
use vfio_migration_core::stream::section::{
    self, Begins, Continues, Error, ITEM_MAX, Item, NAME_MAX, PREAMBLE, SWITCHOVER_START,
};
use vfio_migration_tests::golden::*;
use vfio_migration_tests::model::{Faults, ModelDevice, ModelLink, Sizes, nobody};
use vfio_migration_tests::script::{ALL, order_source};
use vfio_migration_tests::walk;

const START: &str = "0 START 38 0000:00:02.0/vfio instance 0 version 1";
const FULL: &str = "0 FULL 38 0000:00:02.0/vfio instance 0 version 1";

#[test]
fn every_section_of_qemu_is_walked_record_by_record() {
    let setup = ["31 SETUP", "39 END_OF_STATE", "47 footer 38"];
    let small_end = ["0 END 38", "5 DATA", "13 length 36", "57 END_OF_STATE", "65 footer 38"];
    let config = [FULL, "31 CONFIG", "39 body 4116", "4155 END_OF_STATE", "4163 footer 38"];
    let big_end = [
        "0 END 38",
        "5 DATA",
        "13 length 1048576",
        "1048597 DATA",
        "1048605 length 1048576",
        "2097189 DATA",
        "2097197 length 402908",
        "2500113 END_OF_STATE",
        "2500121 footer 38",
    ];
    let table: [(&[u8], &[&str]); 13] = [
        (PRECOPY_START, &[&[START], &setup[..]].concat()),
        (PRECOPY_PART1, &["0 PART 38", "5 DATA", "13 length 24", "45 END_OF_STATE", "53 footer 38"]),
        (PRECOPY_PART2, &["0 PART 38", "5 END_OF_STATE", "13 footer 38"]),
        (PRECOPY_END, &small_end),
        (PRECOPY_FULL, &config),
        (PAUSED_END, &small_end),
        (PAUSED_FULL, &config),
        (SWITCHACK_PART1, &["0 PART 38", "5 DATA", "13 length 24", "45 INIT_DATA_SENT", "53 footer 38"]),
        (SWITCHACK_END, &small_end),
        (IOMMUFD_END, &small_end),
        (MULTIFD_END, &["0 END 38", "5 END_OF_STATE", "13 footer 38"]),
        (MULTIFD_FULL, &[FULL, "31 END_OF_STATE", "39 footer 38"]),
        (BIGSTOP_END, &big_end),
    ];
    for (bytes, wanted) in table {
        assert_eq!(walk::one_section(bytes, CONFIG_BODY).unwrap(), wanted);
    }
}

#[test]
fn sections_of_a_function_with_msi_x_are_walked_with_their_own_lengths_and_with_no_other() {
    let of = |bytes, body| walk::one_section(bytes, body);
    let wanted = [FULL, "31 CONFIG", "39 body 341", "380 END_OF_STATE", "388 footer 38"];
    assert_eq!(of(MIGTEST_FULL, MIGTEST_CONFIG_BODY).unwrap(), wanted);
    let wanted = [FULL, "31 CONFIG", "39 body 4181", "4220 END_OF_STATE", "4228 footer 38"];
    assert_eq!(of(MIGTEST_4096_FULL, MIGTEST_4096_CONFIG_BODY).unwrap(), wanted);
    for body in (0..MIGTEST_4096_FULL.len()).filter(|body| *body != MIGTEST_CONFIG_BODY) {
        assert!(of(MIGTEST_FULL, body).is_err(), "{body}");
    }
    for body in (0..MIGTEST_4096_FULL.len()).filter(|body| *body != MIGTEST_4096_CONFIG_BODY) {
        assert!(of(MIGTEST_4096_FULL, body).is_err(), "{body}");
    }
}

#[test]
fn the_streams_that_qemu_loads_are_walked_to_their_last_byte() {
    let wanted = [
        "0 preamble",
        "8 CONFIGURATION 0",
        "13 START 38 0000:00:02.0/vfio instance 0 version 1",
        "44 SETUP",
        "52 END_OF_STATE",
        "60 footer 38",
        "65 END 38",
        "70 DATA",
        "78 length 60",
        "146 END_OF_STATE",
        "154 footer 38",
        "159 FULL 38 0000:00:02.0/vfio instance 0 version 1",
        "190 CONFIG",
        "198 body 4116",
        "4314 END_OF_STATE",
        "4322 footer 38",
        "4327 end byte",
        "4328 description 67",
    ];
    assert_eq!(walk::stream(ONE_END_SECTION, CONFIG_BODY).unwrap(), wanted);
    let wanted = [
        "65 PART 38",
        "70 DATA",
        "78 length 20",
        "106 END_OF_STATE",
        "114 footer 38",
        "119 PART 38",
        "124 DATA",
        "132 length 20",
        "160 END_OF_STATE",
        "168 footer 38",
        "173 PART 38",
        "178 DATA",
        "186 length 20",
        "214 END_OF_STATE",
        "222 footer 38",
        "227 END 38",
        "232 END_OF_STATE",
        "240 footer 38",
    ];
    let lines = walk::stream(PARTS_THEN_EMPTY_END, CONFIG_BODY).unwrap();
    assert_eq!(lines[6..24], wanted);
    assert_eq!(lines.last().unwrap(), "4414 description 67");
}

#[test]
fn a_stream_or_section_that_is_cut_anywhere_is_never_whole() {
    for whole in [ONE_END_SECTION, PARTS_THEN_EMPTY_END] {
        for length in 0..whole.len() {
            let answer = walk::stream(&whole[..length], CONFIG_BODY);
            assert!(answer.as_ref().is_err_and(|error| error.starts_with("cut: ")), "{length}: {answer:?}");
        }
    }
    for whole in [PRECOPY_START, PRECOPY_PART1, SWITCHACK_PART1, PRECOPY_END, PRECOPY_FULL, MULTIFD_FULL] {
        for length in 0..whole.len() {
            let answer = walk::one_section(&whole[..length], CONFIG_BODY);
            assert!(answer.as_ref().is_err_and(|error| error.starts_with("cut: ")), "{length}: {answer:?}");
        }
    }
}

/// Every kind of item with its golden bytes: from QEMU where QEMU writes it, from a stream that it loads otherwise.
fn items() -> [(Item<'static>, &'static [u8]); 8] {
    let begin = |kind| Item::Begin { kind, id: SECTION_ID, name: SECTION_NAME, instance: 0, version: 1 };
    [
        (begin(Begins::Start), &PRECOPY_START[..BEGIN_HEADER]),
        (begin(Begins::Full), &PRECOPY_FULL[..BEGIN_HEADER]),
        (Item::Continue { kind: Continues::Part, id: 38 }, &PRECOPY_PART1[..CONTINUE_HEADER]),
        (Item::Continue { kind: Continues::End, id: 38 }, &PRECOPY_END[..CONTINUE_HEADER]),
        (Item::Configuration { name_length: 0 }, &ONE_END_SECTION[8..13]),
        (Item::EndOfStream, &ONE_END_SECTION[4327..4328]),
        (Item::Description { length: 67 }, &ONE_END_SECTION[4328..4333]),
        (Item::Command { command: SWITCHOVER_START, length: 0 }, &PRECOPY[336_215..336_220]),
    ]
}

fn encoded(item: Item<'_>) -> Vec<u8> {
    let mut out = [0xa5; ITEM_MAX];
    let length = item.encode(&mut out).unwrap();
    assert!(out[length..].iter().all(|&byte| byte == 0xa5), "{item:?} wrote past its end");
    out[..length].to_vec()
}

#[test]
fn every_item_is_encoded_as_qemu_has_it() {
    for (item, bytes) in items() {
        assert_eq!(encoded(item), bytes, "{item:?}");
    }
    assert_eq!(ONE_END_SECTION[..8], PREAMBLE);
    for section in [PRECOPY_START, PRECOPY_PART1, PRECOPY_PART2, PRECOPY_END, PRECOPY_FULL, MULTIFD_FULL] {
        assert_eq!(section[section.len() - 5..], section::footer(SECTION_ID));
    }
}

#[test]
fn every_item_is_decoded_from_its_bytes_and_leaves_what_follows() {
    for (item, bytes) in items() {
        assert_eq!(Item::decode(bytes), Ok((item, bytes.len())));
        assert_eq!(Item::decode(&[bytes, b"\x7ewhat follows"].concat()), Ok((item, bytes.len())));
    }
}

#[test]
fn an_item_that_is_cut_anywhere_asks_for_more_of_itself_and_no_more() {
    for (item, bytes) in items() {
        for have in 0..bytes.len() {
            let Err(Error::Short { wanted }) = Item::decode(&bytes[..have]) else {
                panic!("{item:?}, {have}")
            };
            assert!(have < wanted && wanted <= bytes.len(), "{item:?}: {have} bytes, {wanted} wanted");
        }
    }
}

#[test]
fn an_item_with_a_flipped_bit_is_never_the_same_item() {
    for (item, bytes) in items() {
        for at in 0..bytes.len() {
            for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= flip;
                match Item::decode(&bytes) {
                    Ok((other, length)) => {
                        assert_ne!(other, item, "byte {at} ^ {flip:#x}");
                        assert_eq!(encoded(other), bytes[..length], "byte {at} ^ {flip:#x}");
                    }
                    Err(Error::Short { wanted }) => assert!(wanted > bytes.len(), "byte {at} ^ {flip:#x}"),
                    Err(error) => assert_eq!((at, error), (0, Error::UnknownType { got: bytes[0] })),
                }
            }
        }
    }
}

#[test]
fn the_type_bytes_are_these_nine_and_no_other() {
    let known = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08];
    for got in 0..=u8::MAX {
        let mut bytes = [0; 14];
        bytes[0] = got;
        let answer = Item::decode(&bytes);
        if known.contains(&got) {
            assert!(answer.is_ok(), "{got:#04x}");
        } else {
            assert_eq!(answer, Err(Error::UnknownType { got }));
        }
    }
}

#[test]
fn a_flipped_bit_in_preamble_or_footer_is_refused() {
    for bit in 0..64 {
        let mut got = PREAMBLE;
        got[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(section::decode_preamble(got), Err(Error::Preamble { got }));
    }
    for bit in 0..40 {
        let mut got = section::footer(SECTION_ID);
        got[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(section::decode_footer(SECTION_ID, got), Err(Error::Footer { wanted: SECTION_ID, got }));
    }
}

#[test]
fn names_of_every_length_fit_and_one_byte_more_does_not() {
    let name = [b'n'; NAME_MAX + 1];
    for length in 0..=NAME_MAX {
        let name = &name[..length];
        let item = Item::Begin { kind: Begins::Full, id: u32::MAX, name, instance: 1, version: 2 };
        let bytes = encoded(item);
        assert_eq!(bytes.len(), 14 + length);
        assert_eq!(Item::decode(&bytes), Ok((item, bytes.len())));
        for room in [0, bytes.len() - 1] {
            let wanted = Err(Error::NoRoom { wanted: bytes.len(), got: room });
            assert_eq!(item.encode(&mut vec![0; room]), wanted);
        }
    }
    let long = Item::Begin { kind: Begins::Start, id: 0, name: &name, instance: 0, version: 1 };
    assert_eq!(long.encode(&mut [0; 512]), Err(Error::NoRoom { wanted: 256, got: NAME_MAX }));
}

/// The payloads that a source writes for a device with `state`, which it gives in pieces of at most `piece` bytes, and a
/// configuration: each after its header and before its footer.
fn written(state: &[u8], piece: usize, config: &[u8], sections: &[(&str, Item<'_>)]) -> Vec<u8> {
    let faults = Faults::default();
    let mut device = ModelDevice::new(State::Running, state, &faults);
    device.sizes = Sizes::new(&[piece]);
    let mut link = ModelLink { config: config.to_vec(), ..ModelLink::new(&[], &faults) };
    let mut buffer = [0xa5; 1024];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    for (order, item) in sections {
        link.bytes.extend(encoded(*item));
        order_source(&mut source, order).unwrap();
        drive::source(&mut source, &mut device, &mut link, nobody).unwrap();
        link.bytes.extend(section::footer(SECTION_ID));
        if *order == "setup" {
            source.stop().unwrap();
            drive::source(&mut source, &mut device, &mut link, nobody).unwrap();
        }
    }
    assert!(matches!(source.poll(), SourceEffect::Idle(_)));
    link.bytes
}

#[test]
fn a_source_and_the_items_write_the_stream_that_qemu_loads_byte_for_byte() {
    let [(start, _), (full, _), (_, _), (end, _), (configuration, _), (end_byte, _), (description, _), _] =
        items();
    let state = &ONE_END_SECTION[86..146];
    let config = &ONE_END_SECTION[198..4314];
    let sections = written(state, 1000, config, &[("setup", start), ("copy_rest", end), ("config", full)]);
    let stream = [
        &PREAMBLE[..],
        &encoded(configuration),
        &sections,
        &encoded(end_byte),
        &encoded(description),
        &ONE_END_SECTION[4333..],
    ];
    assert!(stream.concat() == ONE_END_SECTION);
}

#[test]
fn items_and_records_write_the_stream_of_parts_byte_for_byte() {
    let [(start, _), (full, _), (part, _), (end, _), ..] = items();
    let mut state = ONE_END_SECTION[86..146].to_vec();
    assert_eq!(&state[32..45], b"text-of-a-one");
    state[32..45].copy_from_slice(b"text-of-b-two");
    let mut bytes = PARTS_THEN_EMPTY_END[..13].to_vec();
    bytes.extend(encoded(start));
    bytes.extend(record::encode(Tag::Setup));
    bytes.extend(record::encode(Tag::EndOfState));
    bytes.extend(section::footer(SECTION_ID));
    for piece in state.chunks(20) {
        bytes.extend(encoded(part));
        bytes.extend(record::encode_data_head(20));
        bytes.extend(piece);
        bytes.extend(record::encode(Tag::EndOfState));
        bytes.extend(section::footer(SECTION_ID));
    }
    bytes.extend(encoded(end));
    bytes.extend(record::encode(Tag::EndOfState));
    bytes.extend(section::footer(SECTION_ID));
    bytes.extend(encoded(full));
    assert_eq!(bytes, PARTS_THEN_EMPTY_END[..bytes.len()]);
}

#[test]
fn a_source_in_chunks_and_the_items_write_the_stream_of_parts_byte_for_byte() {
    let [(start, _), (full, _), (part, _), (end, _), (configuration, _), (end_byte, _), ..] = items();
    let mut state = ONE_END_SECTION[86..146].to_vec();
    state[32..45].copy_from_slice(b"text-of-b-two");
    let chunk = ("copy_chunk", part);
    let orders = [("setup", start), chunk, chunk, chunk, ("copy_rest", end), ("config", full)];
    let body = PARTS_THEN_EMPTY_END.len() - ONE_END_SECTION.len() + 198;
    let config = &PARTS_THEN_EMPTY_END[body..body + CONFIG_BODY];
    let sections = written(&state, 20, config, &orders);
    let stream = [&PREAMBLE[..], &encoded(configuration), &sections, &encoded(end_byte)].concat();
    assert!(stream == PARTS_THEN_EMPTY_END[..stream.len()]);
    let description = &PARTS_THEN_EMPTY_END[stream.len()..];
    assert_eq!((description[0], description.last()), (6, Some(&b'}')), "nothing but the description follows");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_an_item_that_encodes_to_them_or_an_error(bytes in prop::collection::vec(0_u8..12, 0..40)) {
        match Item::decode(&bytes) {
            Ok((item, length)) => prop_assert_eq!(encoded(item), &bytes[..length]),
            Err(Error::Short { wanted }) => prop_assert!(wanted > bytes.len()),
            Err(error) => prop_assert_eq!(error, Error::UnknownType { got: bytes[0] }),
        }
    }

    #[test]
    fn any_stream_is_walked_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = walk::stream(&[&PREAMBLE[..], &bytes].concat(), 20);
        let _ = walk::one_section(&bytes, 20);
    }
}
