//! `stream::pci_config` on QEMU's own CONFIG records, and on bodies that a second, plainer rule has put together: with
//! 256 and 4096 bytes of configuration space, MSI-X tables of each size, and a display.
//!
//! What is guaranteed of a damaged body, for each of its bytes:
//! - cut anywhere: never a body; what is asked for lies within the record;
//! - flipped in version, interrupts, a display's name or END_OF_STATE: an error that names the place, or another value;
//! - flipped elsewhere: a body that holds the flipped byte. Only the device's own space can tell.
//!
//! Deliberately absent: bodies whose layout is not known; they are in `pci_config_find.rs`.

use proptest::prelude::*;
use vfio_migration_core::stream::pci_config::identity::differs;
use vfio_migration_core::stream::pci_config::msi::{ENTRY, Place};
use vfio_migration_core::stream::pci_config::ramfb::Ramfb;
use vfio_migration_core::stream::pci_config::space::Space;
use vfio_migration_core::stream::pci_config::{BODY_MAX, Body, Error, Layout, VECTORS_MAX};
use vfio_migration_core::stream::record::{Decoder, Tag, Terminator, WORD, Wanted, Word, encode};
use vfio_migration_tests::config::{END, Made, SUBSECTION, golden};
use vfio_migration_tests::golden::{BEGIN_HEADER, CONFIG_BODY, PRECOPY_FULL};

fn encoded(body: &Body<'_>) -> Vec<u8> {
    let mut out = vec![0xa5; body.length().unwrap() + 9];
    let length = body.encode(&mut out).unwrap();
    assert!(out[length..].iter().all(|&byte| byte == 0xa5), "wrote past its end");
    out.truncate(length);
    out
}

#[test]
fn a_configuration_of_qemu_is_decoded_and_encoded_byte_for_byte() {
    let layout = Layout::new(255, 0).unwrap();
    for bytes in golden() {
        let (body, length) = Body::decode(layout, bytes).unwrap();
        assert_eq!((length, body.interrupts, body.display), (CONFIG_BODY, [false; 4], None));
        assert_eq!(Layout::of_device(&body.space[..255]), layout);
        assert_eq!(body.layout(), Ok(layout));
        assert_eq!(body.vectors().next(), None);
        assert!(encoded(&body) == bytes[..CONFIG_BODY]);
    }
}

#[test]
fn the_configuration_space_of_an_mtty_device_is_read() {
    let (body, _) = Body::decode(Layout::new(255, 0).unwrap(), golden()[0]).unwrap();
    let space = Space::new(body.space);
    let told = [
        format!("{:04x}:{:04x} rev {:02x}", space.vendor(), space.device(), space.revision()),
        format!("{}, {}", space.class(), space.header_type().unwrap()),
        format!("on {}", space.subsystem().unwrap()),
        format!("command {}, status {}", space.command(), space.status()),
        format!("{:?}", space.bars().map(|bar| format!("{}: {bar}", bar.index)).collect::<Vec<_>>()),
    ];
    let wanted = [
        "4348:3253 rev 10",
        "communication controller 070002, NORMAL",
        "on 4348:3253",
        "command IO MEMORY SERR, status DEVSEL_MEDIUM",
        "[\"0: io at 0xc010\"]",
    ];
    assert_eq!(told, wanted);
    assert_eq!((space.msi(), space.msix(), space.interrupt_pin()), (None, None, 1));
    assert_eq!((space.capabilities().count(), space.extended_capabilities().count()), (0, 0));
}

#[test]
fn configurations_of_one_device_before_and_after_its_guest_booted_do_not_differ() {
    let layout = Layout::new(255, 0).unwrap();
    let spaces = golden().map(|bytes| Space::new(Body::decode(layout, bytes).unwrap().0.space));
    assert_ne!(spaces[0].command(), spaces[1].command());
    for saved in spaces {
        for own in spaces {
            assert_eq!(differs(saved, own), None);
        }
    }
}

#[test]
fn a_record_of_qemu_is_walked_with_the_length_that_its_body_has() {
    let payload = &PRECOPY_FULL[BEGIN_HEADER..];
    let mut decoder = Decoder::new();
    decoder.word(*payload.first_chunk().unwrap()).unwrap();
    assert_eq!(decoder.wanted(), Wanted::Config);
    let Err(Error::Short { wanted }) = Body::decode(Layout::new(255, 0).unwrap(), &[]) else { panic!() };
    let bytes = &payload[WORD..WORD + wanted];
    let (_, length) = Body::decode(Layout::new(255, 0).unwrap(), bytes).unwrap();
    decoder.config(length as u64);
    let word = bytes[length..].try_into().unwrap();
    assert_eq!(decoder.word(word), Ok(Word::Tag(Tag::EndOfState)));
    assert_eq!(decoder.wanted(), Wanted::Nothing(Terminator::EndOfState));
    assert_eq!(payload.len(), WORD + wanted + 5, "the footer is left");
}

#[test]
fn a_body_of_every_kind_is_decoded_from_its_bytes_and_encoded_to_them() {
    assert_eq!(encode(Tag::EndOfState), END);
    for made in Made::all() {
        let body = made.body();
        assert_eq!(Body::decode(made.layout(), &made.bytes), Ok((body, made.length())));
        let followed = [&made.bytes[..], b"\x7e\0\0\0\x26what follows"].concat();
        assert_eq!(Body::decode(made.layout(), &followed), Ok((body, made.length())));
        assert!(encoded(&body) == made.bytes[..made.length()]);
        assert_eq!((body.layout(), body.length()), (Ok(made.layout()), Ok(made.length())));
        assert_eq!(Layout::of_device(body.space), made.layout());
    }
    assert_eq!(Made::new(4096, VECTORS_MAX, true).length(), BODY_MAX);
}

#[test]
fn a_reader_that_takes_what_is_wanted_ends_with_the_record() {
    for made in Made::all() {
        let (mut have, mut asked) = (0, vec![]);
        while let Err(error) = Body::decode(made.layout(), &made.bytes[..have]) {
            let Error::Short { wanted } = error else { panic!("{error}") };
            asked.push(wanted - have);
            have = wanted;
        }
        let first = made.layout().length() + WORD;
        assert_eq!(asked, if made.display { vec![first, SUBSECTION.len()] } else { vec![first] });
        assert_eq!(have, made.bytes.len());
    }
}

#[test]
fn a_body_that_is_cut_anywhere_asks_for_more_of_itself_and_no_more() {
    for made in Made::all() {
        for have in 0..made.bytes.len() {
            let Err(Error::Short { wanted }) = Body::decode(made.layout(), &made.bytes[..have]) else {
                panic!("{have} of {}", made.bytes.len())
            };
            assert!(have < wanted && wanted <= made.bytes.len(), "{have} bytes, {wanted} wanted");
        }
    }
}

#[test]
fn a_buffer_that_is_short_and_parts_that_make_no_body_are_refused() {
    let made = Made::new(256, 9, true);
    for room in 0..made.length() {
        let mut out = vec![0xa5; room];
        let wanted = Err(Error::NoRoom { wanted: made.length(), got: room });
        assert_eq!(made.body().encode(&mut out), wanted);
        assert!(out.iter().all(|&byte| byte == 0xa5));
    }
    let (body, large) = (made.body(), [0; 2049 * ENTRY]);
    let table = [
        (Body { space: &large[..255], ..body }, Error::Space { got: 255 }),
        (Body { space: &[], ..body }, Error::Space { got: 0 }),
        (Body { msix_table: &large[..143], ..body }, Error::Table { got: 143 }),
        (Body { msix_table: &large, ..body }, Error::Vectors { got: 2049 }),
        (Body { msix_table: &large[..128], ..body }, Error::Pending { wanted: 1, got: 2 }),
        (Body { pending: &[], ..body }, Error::Pending { wanted: 2, got: 0 }),
    ];
    for (body, error) in table {
        assert_eq!(body.encode(&mut [0; 40_000]), Err(error));
        assert_eq!((body.layout(), body.length()), (Err(error), Err(error)));
    }
}

#[test]
fn the_table_of_a_body_is_read_vector_by_vector_with_the_places_that_its_capability_names() {
    let made = Made::new(4096, 9, false);
    let msix = Space::new(made.body().space).msix().unwrap();
    assert_eq!((msix.vectors, msix.enabled, msix.masked), (9, true, false));
    let places = (Place { bar: 1, offset: 0 }, Place { bar: 1, offset: 0x8000 });
    assert_eq!((msix.table, msix.pending), places);
    let vectors: Vec<_> = made.body().vectors().collect();
    assert_eq!(vectors.len(), 9);
    assert_eq!(
        (vectors[8].index, vectors[8].address, vectors[8].data),
        (8, 0x8786_8584_8382_8180, 0x8b8a_8988)
    );
    assert!(vectors.iter().all(|vector| !vector.masked), "each entry's control begins with an even byte");
    let pending: Vec<_> = vectors.iter().filter(|vector| vector.pending).map(|vector| vector.index).collect();
    assert_eq!(pending, [1, 3, 4, 5, 6, 7, 8], "0xfa, 0xf9");
}

/// What a flipped byte of a body may make of it: the same length and another value, or the named error.
#[test]
fn a_flipped_byte_is_an_error_that_names_its_place_or_another_value() {
    for made in Made::small() {
        let fixed = made.layout().length();
        let interrupts = 4 + made.region;
        for at in 0..made.bytes.len() {
            for flip in [0x01, 0x04, 0x80, 0xff] {
                let mut bytes = made.bytes.clone();
                bytes[at] ^= flip;
                let answer = Body::decode(made.layout(), &bytes);
                match answer {
                    Ok((body, length)) => {
                        assert_ne!(body, made.body(), "byte {at} ^ {flip:#x}");
                        assert!(encoded(&body) == bytes[..length], "byte {at} ^ {flip:#x}");
                        assert_eq!(length, made.length());
                    }
                    Err(Error::Version { .. }) => assert!(at < 4),
                    Err(Error::Interrupt { offset, .. }) => {
                        assert_eq!(offset, interrupts + (at - interrupts) / 4 * 4);
                        assert!((interrupts..interrupts + 16).contains(&at));
                    }
                    Err(Error::Unterminated { offset, .. }) => {
                        let border = if at < made.length() { fixed } else { made.length() };
                        assert_eq!(offset, border, "byte {at} ^ {flip:#x}");
                        assert!((border..border + WORD).contains(&at));
                    }
                    Err(Error::Display { offset, got }) => assert_eq!((offset, got), (at, bytes[at])),
                    Err(error) => panic!("{error}"),
                }
                let strict = at < 4
                    || (fixed..(fixed + 31).min(made.bytes.len())).contains(&at)
                    || at >= made.length();
                assert!(!strict || answer.is_err(), "byte {at} ^ {flip:#x}");
            }
        }
    }
}

#[test]
fn a_version_that_qemu_never_wrote_is_refused() {
    for got in [0, 1, 3, 0x0200_0000, u32::MAX] {
        let mut made = Made::new(256, 0, false);
        made.bytes[..4].copy_from_slice(&got.to_be_bytes());
        assert_eq!(Body::decode(made.layout(), &made.bytes), Err(Error::Version { got }));
    }
}

#[test]
fn a_body_that_is_read_with_another_layout_is_refused_where_its_end_should_be() {
    let made = Made::new(4096, 8, false);
    for (region, vectors) in [(4096, 0), (4096, 7), (256, 8)] {
        let layout = Layout::new(region, vectors).unwrap();
        let Err(error) = Body::decode(layout, &made.bytes) else { panic!("{layout:?}") };
        let Error::Unterminated { offset, .. } = error else { panic!("{error}") };
        assert_eq!(offset, layout.length());
    }
    let layout = Layout::new(4096, 9).unwrap();
    assert_eq!(Body::decode(layout, &made.bytes), Err(Error::Short { wanted: layout.length() + WORD }));
}

/// Bytes with a space in front whose registers, lists and flags are like a device's, or are not.
fn spaces() -> impl Strategy<Value = Vec<u8>> {
    let space = prop::collection::vec(prop_oneof![any::<u8>(), 0x40..=0x50_u8, Just(0x11)], 0..300);
    (space, any::<bool>()).prop_map(|(mut space, listed)| {
        if listed && space.len() > 0x34 {
            (space[0x06], space[0x34]) = (0x10, 0x40);
        }
        space
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_parts_are_encoded_to_what_decodes_to_them(
        (region, vectors) in (prop::sample::select(vec![256_usize, 4096]), 0..=VECTORS_MAX),
        filling in any::<[u8; 7]>(),
        interrupts in any::<[bool; 4]>(),
        display in any::<Option<(u64, [u32; 5])>>(),
    ) {
        let fill = |count: usize| filling.iter().copied().cycle().take(count).collect::<Vec<_>>();
        let (space, entries) = (fill(region), usize::from(vectors));
        let (table, pending) = (fill(entries * ENTRY), fill(entries.div_ceil(8)));
        let display = display.map(|(address, [fourcc, flags, width, height, stride])| {
            Ramfb { address, fourcc, flags, width, height, stride }
        });
        let body = Body { space: &space, interrupts, msix_table: &table, pending: &pending, display };
        let bytes = [encoded(&body), END.to_vec()].concat();
        let layout = Layout::new(region as u64, vectors).unwrap();
        prop_assert_eq!(Body::decode(layout, &bytes), Ok((body, bytes.len() - WORD)));
        prop_assert_eq!(body.vectors().count(), entries);
    }

    #[test]
    fn any_bytes_are_a_body_that_encodes_to_them_or_an_error(
        bytes in prop::collection::vec(0_u8..3, 270..400),
        vectors in 0..4_u16,
        ended in any::<bool>(),
    ) {
        let layout = Layout::new(256, vectors).unwrap();
        let mut bytes = [&[0, 0, 0, 2], &bytes[..]].concat();
        if ended {
            bytes.truncate(layout.length());
            bytes.resize(layout.length(), 0);
            bytes.extend(END);
        }
        match Body::decode(layout, &bytes) {
            Ok((body, length)) => prop_assert_eq!(encoded(&body), &bytes[..length]),
            Err(Error::Short { wanted }) => prop_assert!(wanted > bytes.len()),
            Err(Error::Interrupt { .. } | Error::Unterminated { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn any_space_is_read_to_an_end_and_does_not_differ_from_itself(bytes in spaces()) {
        let space = Space::new(&bytes);
        prop_assert!(space.capabilities().count() <= 49);
        prop_assert!(space.extended_capabilities().count() <= 961);
        prop_assert!(space.bars().count() <= 6);
        prop_assert_eq!(differs(space, space), None);
        let broken = space.capabilities().position(|capability| capability.is_err());
        prop_assert!(broken.is_none_or(|at| at + 1 == space.capabilities().count()), "nothing follows a break");
        if let Some(msix) = space.msix() {
            prop_assert!((1..=VECTORS_MAX).contains(&msix.vectors));
        }
    }
}
