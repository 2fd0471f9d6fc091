//! `stream::multifd` as bytes: on QEMU's own channels, and written by hand.
//!
//! Deliberately absent: the order of packets; that is in `multifd_order.rs`.

use proptest::prelude::*;
use vfio_migration_core::stream::multifd::{
    CONFIG_HEAD, Content, DATA_HEAD, DeviceState, Error, INIT, Init, NAME_MAX, PAGES, Packet, Piece,
    RAM_HEAD, Ram, Sender,
};
use vfio_migration_tests::channels::{Line, packets};
use vfio_migration_tests::golden::*;
use vfio_migration_tests::payload::{CONFIG, END};

const SYNC: usize = RAM_HEAD + 8 * PAGES as usize;

const NO_PAGES: Ram<'_> = Ram {
    sync: true,
    pages_alloc: 0,
    normal_pages: 0,
    zero_pages: 0,
    next_packet_size: 0,
    packet_num: 1,
    block: b"",
};
const PAGES_OF_RAM: Ram<'_> = Ram {
    sync: false,
    pages_alloc: 128,
    normal_pages: 30,
    zero_pages: 98,
    next_packet_size: 30 * 4096,
    packet_num: 3,
    block: b"pc.ram",
};

fn device_state(index: u32, content: Content, length: u32) -> Packet<'static> {
    let piece = Piece { index, content, length };
    Packet::DeviceState(DeviceState { name: SECTION_NAME, instance: 0, piece })
}

/// Each kind of head that QEMU wrote, with what it holds.
fn heads() -> [(Packet<'static>, &'static [u8]); 4] {
    let config = u32::try_from(CONFIG_BODY + 8).unwrap();
    [
        (Packet::Ram(NO_PAGES), &MULTIFD_CHANNEL1_BEGIN[INIT..INIT + RAM_HEAD]),
        (Packet::Ram(PAGES_OF_RAM), &MULTIFD_CHANNEL1_BEGIN[INIT + SYNC..INIT + SYNC + RAM_HEAD]),
        (device_state(0, Content::Data, 36), &MULTIFD_CHANNEL2_STATE[..DATA_HEAD]),
        (device_state(1, Content::Config, config), &MULTIFD_CHANNEL1_END[..CONFIG_HEAD]),
    ]
}

fn encoded(packet: Packet<'_>) -> Vec<u8> {
    let mut out = [0xa5; RAM_HEAD + 1];
    let length = packet.encode(&mut out).unwrap();
    assert!(out[length..].iter().all(|&byte| byte == 0xa5), "{packet:?} wrote past its end");
    out[..length].to_vec()
}

#[test]
fn every_head_of_qemu_is_decoded_and_leaves_what_follows() {
    for (packet, bytes) in heads() {
        assert_eq!(Packet::decode(bytes), Ok((packet, bytes.len())));
        assert_eq!(Packet::decode(&[bytes, b"what follows"].concat()), Ok((packet, bytes.len())));
    }
}

#[test]
fn every_head_is_encoded_as_qemu_has_it() {
    for (packet, bytes) in heads() {
        assert_eq!(encoded(packet), bytes, "{packet:?}");
    }
}

#[test]
fn a_channel_begins_as_qemu_has_it() {
    let init = Init { uuid: [0; 16], id: 1 };
    assert_eq!(Init::decode(MULTIFD_CHANNEL1_BEGIN), Ok((init, INIT)));
    assert_eq!(init.encode(), MULTIFD_CHANNEL1_BEGIN[..INIT]);
    let init = Init { uuid: *b"0123456789abcdef", id: 0xfe };
    let bytes = [&b"\x11\x22\x33\x44\0\0\0\x010123456789abcdef\xfe"[..], &[0; 39]].concat();
    assert_eq!(init.encode()[..], bytes);
    assert_eq!(Init::decode(&bytes), Ok((init, INIT)));
}

#[test]
fn the_channels_of_qemu_are_walked_packet_by_packet() {
    let mut line = Line::new(&MULTIFD_CHANNEL1_BEGIN[..INIT + SYNC]);
    assert_eq!(line.init(), Ok(Init { uuid: [0; 16], id: 1 }));
    assert_eq!(line.head(), Ok(None));
    let mut line = Line { bytes: MULTIFD_CHANNEL1_BEGIN.to_vec(), taken: INIT + SYNC };
    assert_eq!(line.head(), Err(Error::Short { wanted: SYNC + 30 * 4096 }), "its pages are not here");
    let mut line = Line::new(MULTIFD_CHANNEL1_END);
    let (name, instance, piece) = line.head().unwrap().unwrap();
    assert_eq!((&name[..], instance), (SECTION_NAME, 0));
    assert_eq!(piece, Piece { index: 1, content: Content::Config, length: 4124 });
    line.taken += 4124;
    assert_eq!(line.head(), Ok(None));
    assert_eq!(line.taken, line.bytes.len());
    let mut line = Line::new(MULTIFD_CHANNEL2_STATE);
    let (.., piece) = line.head().unwrap().unwrap();
    assert_eq!(piece, Piece { index: 0, content: Content::Data, length: 36 });
    line.taken += 36;
    assert_eq!(line.head(), Ok(None));
    assert_eq!(line.taken, line.bytes.len());
}

#[test]
fn a_packet_without_pages_has_its_offsets_all_the_same() {
    assert_eq!(NO_PAGES.rest(PAGES), Ok(1024));
    assert_eq!(NO_PAGES.rest(8), Ok(64), "pages of 64 KiB");
    assert_eq!(PAGES_OF_RAM.rest(PAGES), Ok(1024 + 30 * 4096));
    assert_eq!(PAGES_OF_RAM.rest(8), Err(Error::PagesAlloc { wanted: 8, got: 128 }));
    let most = Ram { pages_alloc: u32::MAX, next_packet_size: u32::MAX, ..PAGES_OF_RAM };
    assert_eq!(most.rest(u32::MAX), Ok(9 * u64::from(u32::MAX)));
}

#[test]
fn a_sender_makes_the_packets_of_qemu_byte_for_byte() {
    let data = MULTIFD_CHANNEL2_STATE[DATA_HEAD..DATA_HEAD + 36].to_vec();
    let config = &MULTIFD_CHANNEL1_END[CONFIG_HEAD..CONFIG_HEAD + CONFIG_BODY];
    let made = packets(SECTION_NAME, &[data], config);
    assert_eq!(made[0], MULTIFD_CHANNEL2_STATE[..made[0].len()]);
    assert_eq!(made[1], MULTIFD_CHANNEL1_END[..made[1].len()]);
    assert_eq!((made[0].len(), made[1].len()), (324, 4420));
}

#[test]
fn a_sender_counts_its_packets_and_sends_nothing_behind_the_configuration() {
    let mut sender = Sender::new(b"nic/vfio", 7).unwrap();
    let mut out = [0; CONFIG_HEAD];
    for index in 0..3 {
        assert_eq!(sender.data(index + 10, &mut out), Ok(DATA_HEAD));
        let piece = Piece { index, content: Content::Data, length: index + 10 };
        let state = DeviceState { name: b"nic/vfio", instance: 7, piece };
        assert_eq!(Packet::decode(&out), Ok((Packet::DeviceState(state), DATA_HEAD)));
    }
    assert_eq!(sender.data(1, &mut out[1..]), Ok(DATA_HEAD), "as much room as it takes");
    assert_eq!(
        sender.data(1, &mut [0; 287]),
        Err(Error::NoRoom { wanted: DATA_HEAD, got: 287 }),
        "no number is used up"
    );
    assert_eq!(sender.config(0, &mut out[1..]), Err(Error::NoRoom { wanted: CONFIG_HEAD, got: 295 }));
    assert_eq!(
        sender.config(u32::MAX - 27, &mut out),
        Err(Error::TooLong { wanted: u32::MAX - 28, got: u32::MAX - 27 })
    );
    assert_eq!(
        sender.data(u32::MAX - 11, &mut out),
        Err(Error::TooLong { wanted: u32::MAX - 12, got: u32::MAX - 11 })
    );
    assert_eq!(sender.config(u32::MAX - 28, &mut out), Ok(CONFIG_HEAD));
    let piece = Piece { index: 4, content: Content::Config, length: u32::MAX - 20 };
    let state = DeviceState { name: b"nic/vfio", instance: 7, piece };
    assert_eq!(Packet::decode(&out), Ok((Packet::DeviceState(state), CONFIG_HEAD)));
    assert_eq!(sender.data(1, &mut out), Err(Error::Ended));
    assert_eq!(sender.config(1, &mut out), Err(Error::Ended));
}

#[test]
fn a_name_that_does_not_fit_is_not_written() {
    let long = [b'n'; NAME_MAX + 1];
    assert!(Sender::new(&long[1..], 0).is_ok());
    assert_eq!(Sender::new(&long, 0).unwrap_err(), Error::NoRoom { wanted: 256, got: NAME_MAX });
    assert_eq!(Sender::new(b"nic\0", 0).unwrap_err(), Error::Nul { offset: 3 });
    for name in [&long[..], b"pc\0ram"] {
        let ram = Packet::Ram(Ram { block: name, ..NO_PAGES });
        assert!(matches!(ram.encode(&mut [0; 512]), Err(Error::NoRoom { .. } | Error::Nul { offset: 2 })));
    }
    let mut out = [0; 512];
    Sender::new(&long[1..], 0).unwrap().data(1, &mut out).unwrap();
    let Ok((Packet::DeviceState(state), _)) = Packet::decode(&out) else { panic!() };
    assert_eq!(state.name, &long[1..]);
}

#[test]
fn a_head_that_is_cut_anywhere_asks_for_more_of_itself_and_no_more() {
    for (packet, bytes) in heads() {
        let asked = match packet {
            Packet::Ram(_) => &[12, 320][..],
            Packet::DeviceState(DeviceState { piece: Piece { content: Content::Data, .. }, .. }) => {
                &[12, 276, 288]
            }
            Packet::DeviceState(_) => &[12, 276, 288, 296],
        };
        for have in 0..bytes.len() {
            let wanted = *asked.iter().find(|&&wanted| wanted > have).unwrap();
            assert_eq!(Packet::decode(&bytes[..have]), Err(Error::Short { wanted }), "{have} bytes");
            assert_eq!(
                packet.encode(&mut vec![0; have]),
                Err(Error::NoRoom { wanted: bytes.len(), got: have })
            );
        }
    }
    for have in 0..INIT {
        assert_eq!(Init::decode(&MULTIFD_CHANNEL1_BEGIN[..have]), Err(Error::Short { wanted: INIT }));
    }
}

/// The head of QEMU's packet with the configuration, with four of its bytes replaced.
fn with(at: usize, number: u32) -> Vec<u8> {
    let mut bytes = MULTIFD_CHANNEL1_END[..CONFIG_HEAD].to_vec();
    bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
    bytes
}

#[test]
fn what_is_wrong_with_a_head_is_said_with_its_number() {
    let memory = |at: usize, number: u32| {
        let mut bytes = MULTIFD_CHANNEL1_BEGIN[INIT + SYNC..].to_vec();
        bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    let mut endless = with(268, 0);
    endless[12..268].fill(b'n');
    let mut endless_block = memory(12, 128);
    endless_block[64..320].fill(b'n');
    let table = [
        (with(0, 0x5145_564d), Error::Magic { got: 0x5145_564d }),
        (with(4, 2), Error::Version { got: 2 }),
        (with(8, 2), Error::Flags { got: 2 }),
        (with(8, 0x41), Error::Flags { got: 0x41 }),
        (with(8, 0x80), Error::Flags { got: 0x80 }),
        (memory(8, 1 << 1), Error::Flags { got: 2 }),
        (memory(8, 1 << 5), Error::Flags { got: 32 }),
        (memory(12, 127), Error::Pages { wanted: 127, got: 128 }),
        (memory(16, u32::MAX), Error::Pages { wanted: 128, got: (1 << 32) + 97 }),
        (memory(32, 99), Error::Pages { wanted: 128, got: 129 }),
        (endless, Error::Unterminated),
        (endless_block, Error::Unterminated),
        (with(272, 11), Error::Length { wanted: 12, got: 11 }),
        (with(272, 27), Error::Length { wanted: 28, got: 27 }),
        (with(276, 1), Error::StateVersion { got: 1 }),
        (with(280, u32::MAX), Error::Index),
        (with(284, 2), Error::StateFlags { got: 2 }),
        (with(284, 3), Error::StateFlags { got: 3 }),
        (with(292, 0xef10_0004), Error::NotConfig { got: 0xffff_ffff_ef10_0004 }),
    ];
    for (bytes, error) in table {
        assert_eq!(Packet::decode(&bytes), Err(error));
    }
    let index = device_state(u32::MAX, Content::Data, 1);
    assert_eq!(index.encode(&mut [0; 512]), Err(Error::Index));
    for at in [0, 4] {
        let mut bytes = MULTIFD_CHANNEL1_BEGIN.to_vec();
        bytes[at] ^= 1;
        let wanted =
            if at == 0 { Error::Magic { got: 0x1022_3344 } } else { Error::Version { got: 0x0100_0001 } };
        assert_eq!(Init::decode(&bytes), Err(wanted));
    }
}

#[test]
fn a_packet_may_announce_as_much_as_its_field_holds() {
    let bytes = with(272, u32::MAX);
    let Ok((Packet::DeviceState(state), _)) = Packet::decode(&bytes) else { panic!() };
    assert_eq!(state.piece.length, u32::MAX - 20);
}

/// Whether QEMU and we take a byte of a head as it comes: reserved, or behind a name's NUL.
fn is_ignored(packet: Packet<'_>, at: usize) -> bool {
    match packet {
        Packet::Ram(ram) => (36..64).contains(&at) || at > 64 + ram.block.len(),
        Packet::DeviceState(state) => (12 + state.name.len() + 1..268).contains(&at),
    }
}

#[test]
fn a_head_with_a_flipped_bit_is_another_head_or_none() {
    for (packet, whole) in heads() {
        for at in 0..whole.len() {
            for flip in (0..8).map(|bit| 1 << bit).chain([0xff]) {
                let mut bytes = whole.to_vec();
                bytes[at] ^= flip;
                match Packet::decode(&bytes) {
                    Ok((other, length)) => {
                        assert_eq!(other == packet, is_ignored(packet, at), "byte {at} ^ {flip:#x}");
                        assert_eq!(Packet::decode(&encoded(other)), Ok((other, length)));
                    }
                    Err(Error::Short { wanted }) => assert!(wanted > bytes.len(), "byte {at} ^ {flip:#x}"),
                    Err(_) => assert!(!is_ignored(packet, at), "byte {at} ^ {flip:#x}"),
                }
            }
        }
    }
    for at in 0..INIT {
        let mut bytes = MULTIFD_CHANNEL1_BEGIN[..INIT].to_vec();
        bytes[at] ^= 0xff;
        match Init::decode(&bytes) {
            Ok((init, _)) => {
                assert!(at >= 8, "byte {at}");
                assert_eq!(init == Init { uuid: [0; 16], id: 1 }, at > 24, "byte {at}");
            }
            Err(error) => {
                assert!(matches!((at, error), (0..4, Error::Magic { .. }) | (4..8, Error::Version { .. })))
            }
        }
    }
}

/// Heads that encode.
fn packet() -> impl Strategy<Value = (Vec<u8>, Vec<u32>, bool, bool)> {
    let name = prop::collection::vec(1..=u8::MAX, 0..=NAME_MAX);
    (name, prop::collection::vec(any::<u32>(), 6), any::<bool>(), any::<bool>())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_head_that_encodes_decodes_to_itself((name, numbers, is_ram, flag) in packet()) {
        let packet = if is_ram {
            Packet::Ram(Ram {
                sync: flag,
                pages_alloc: numbers[0],
                normal_pages: numbers[1] % numbers[0].max(1),
                zero_pages: numbers[0] - numbers[1] % numbers[0].max(1),
                next_packet_size: numbers[2],
                packet_num: u64::from(numbers[3]) << 32 | u64::from(numbers[4]),
                block: &name,
            })
        } else {
            let (content, length) = if flag {
                (Content::Config, numbers[1].clamp(8, u32::MAX - 20))
            } else {
                (Content::Data, numbers[1].min(u32::MAX - 12))
            };
            let piece = Piece { index: numbers[0].min(u32::MAX - 1), content, length };
            Packet::DeviceState(DeviceState { name: &name, instance: numbers[2], piece })
        };
        let bytes = encoded(packet);
        prop_assert_eq!(Packet::decode(&bytes), Ok((packet, bytes.len())));
    }

    #[test]
    fn any_bytes_behind_a_good_front_are_a_head_or_refused(
        flags in prop::sample::select(vec![0_u8, 1, 0x40]),
        bytes in prop::collection::vec(0_u8..3, 0..320),
    ) {
        let front = [&b"\x11\x22\x33\x44\0\0\0\x01\0\0\0"[..], &[flags], &bytes].concat();
        match Packet::decode(&front) {
            Ok((packet, length)) => {
                let bytes = encoded(packet);
                prop_assert_eq!(Packet::decode(&bytes), Ok((packet, length)));
            }
            Err(Error::Short { wanted }) => prop_assert!(wanted > front.len()),
            Err(_) => {}
        }
    }
}

#[test]
fn the_tag_and_the_end_of_a_configuration_stand_in_its_packet() {
    let [.., packet] = &packets(b"gpu/vfio", &[], b"body")[..] else { panic!() };
    assert_eq!(packet[288..], [&CONFIG[..], b"body", &END].concat());
    assert_eq!(packet[272..288], [0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}
