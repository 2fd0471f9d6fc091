//! `stream::pci_config::find`: which layout a body has that is read without its device.
//!
//! The rule is checked by a second one: both layouts are tried with `Body::decode`.
//!
//! Deliberately absent: what stands in a body; that is in `pci_config.rs`.

use proptest::prelude::*;
use vfio_migration_core::stream::pci_config::find::{Error, Finder, Found, Progress};
use vfio_migration_core::stream::pci_config::space::Space;
use vfio_migration_core::stream::pci_config::{Body, Layout};
use vfio_migration_core::stream::record::WORD;
use vfio_migration_tests::config::{END, Made, SUBSECTION, golden};
use vfio_migration_tests::golden::CONFIG_BODY;

/// Feeds a finder exactly what it wants, while there is something; then says that the input ended.
fn find(bytes: &[u8]) -> (Result<Progress, Error>, usize) {
    let mut finder = Finder::new();
    while let Ok(Progress::Wanted(wanted) | Progress::Beyond { wanted, .. }) = finder.progress() {
        assert!(wanted > 0);
        let offset = finder.offset();
        let Some(next) = bytes.get(offset..offset + wanted) else {
            finder.take(&bytes[offset..]);
            finder.end();
            break;
        };
        finder.take(next);
    }
    (finder.progress(), finder.offset())
}

#[test]
fn the_layout_of_every_body_is_found_whatever_follows() {
    for made in Made::all() {
        for behind in [&[][..], b"\x7e\0\0\0\x26", &[0; 40_000], &[0xff; 40_000]] {
            let bytes = [&made.bytes[..], behind].concat();
            assert_eq!(find(&bytes).0, Ok(Progress::Found(made.found())), "{} behind", behind.len());
        }
    }
    for bytes in golden() {
        let layout = Layout::new(255, 0).unwrap();
        let found = Found { layout, length: CONFIG_BODY };
        assert_eq!(find(bytes), (Ok(Progress::Found(found)), bytes.len()));
    }
}

#[test]
fn a_finder_asks_for_no_byte_behind_a_record_unless_it_says_so() {
    let mut beyond = 0;
    for made in Made::all() {
        let bytes = [&made.bytes[..], &[0; 40_000]].concat();
        let mut finder = Finder::new();
        let found = loop {
            match finder.progress().unwrap() {
                Progress::Wanted(wanted) => finder.take(&bytes[finder.offset()..][..wanted]),
                Progress::Found(found) => break found,
                Progress::Beyond { shorter, .. } => {
                    assert_eq!(made.region, 256);
                    beyond += 1;
                    break shorter;
                }
                answer => panic!("{answer:?}"),
            }
        };
        assert_eq!((found, finder.offset()), (made.found(), made.bytes.len()));
    }
    assert_eq!(beyond, 8, "all of 256 bytes but those whose long table rules out the longer body");
}

#[test]
fn an_input_that_is_cut_anywhere_has_no_layout_and_its_last_byte_settles_it() {
    for made in Made::all() {
        let mut finder = Finder::new();
        for (at, byte) in made.bytes.iter().enumerate() {
            let mut ended = finder.clone();
            ended.end();
            assert_eq!(ended.progress(), Err(Error::Cut { offset: at }));
            finder.take(std::slice::from_ref(byte));
        }
        finder.end();
        assert_eq!(finder.progress(), Ok(Progress::Found(made.found())));
    }
}

/// A guest writes into its MSI-X table what ends a body with the shorter space.
#[test]
fn a_table_that_holds_an_end_makes_two_bodies_that_both_fit() {
    let mut made = Made::new(4096, 2048, false);
    let shorter = Layout::new(256, 2048).unwrap();
    for (inside, end) in [(END.to_vec(), 0), ([SUBSECTION, &END].concat(), SUBSECTION.len())] {
        made.bytes[shorter.length()..][..inside.len()].copy_from_slice(&inside);
        let shorter = Found { layout: shorter, length: shorter.length() + end };
        assert_eq!(find(&made.bytes).0, Ok(Progress::Ambiguous([shorter, made.found()])));
        assert!(Body::decode(shorter.layout, &made.bytes).is_ok());
        assert_eq!(Body::decode(made.layout(), &made.bytes), Ok((made.body(), made.length())));
    }
}

#[test]
fn bytes_that_fit_neither_way_are_refused_with_both_places() {
    let mut made = Made::new(4096, 1, false);
    made.bytes[260] = 7;
    let end = made.bytes.len() - 1;
    made.bytes[end] = 2;
    let error = Error::Neither { conventional: 260, extended: end };
    assert_eq!(find(&made.bytes), (Err(error), made.bytes.len()));
}

/// The layouts that decode, and with them the rules of the finder written once more.
fn reference(bytes: &[u8]) -> Option<Progress> {
    if bytes.starts_with(&END) {
        return Some(Progress::Empty);
    }
    let vectors = Space::new(bytes.get(4..260)?).msix().map_or(0, |msix| msix.vectors);
    let fits = [256, 4096].map(|region| {
        let layout = Layout::new(region, vectors).unwrap();
        Body::decode(layout, bytes).ok().map(|(_, length)| Found { layout, length })
    });
    match fits {
        [Some(shorter), Some(longer)] => Some(Progress::Ambiguous([shorter, longer])),
        [one, other] => one.or(other).map(Progress::Found),
    }
}

#[test]
fn a_finder_and_the_decoder_agree_on_every_flipped_byte() {
    for made in [Made::new(256, 1, true), Made::new(4096, 0, true), Made::new(4096, 8, false)] {
        for at in (0..made.bytes.len()).filter(|at| !(280..4000).contains(at) || at % 128 == 0) {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = made.bytes.clone();
                bytes[at] ^= flip;
                assert_eq!(find(&bytes).0.ok(), reference(&bytes), "byte {at} ^ {flip:#x}");
            }
        }
    }
}

#[test]
fn a_version_that_qemu_never_wrote_is_refused() {
    for got in [0, 1, 3, 0x0200_0000, u32::MAX] {
        let mut made = Made::new(256, 0, false);
        made.bytes[..4].copy_from_slice(&got.to_be_bytes());
        let taken = if got == u32::MAX { 8 } else { 4 };
        assert_eq!(find(&made.bytes), (Err(Error::Version { got }), taken));
    }
}

#[test]
fn an_empty_body_is_found_whatever_follows() {
    let bytes = [&END[..], b"\x7e\0\0\0\x26"].concat();
    assert_eq!(find(&bytes), (Ok(Progress::Empty), WORD));
    assert_eq!(find(&END), (Ok(Progress::Empty), WORD));
    for offset in 0..WORD {
        assert_eq!(find(&END[..offset]).0, Err(Error::Cut { offset }));
    }
}

/// A body, damaged and with the end of another one in it here and there.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let kind = (prop::sample::select(vec![256, 4096]), 0..20_u16, any::<bool>());
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    let shift = prop::sample::select(vec![None, Some(-3840), Some(3840), Some(1)]);
    (kind, damage, shift, 0..5000_usize).prop_map(|((region, vectors, display), damage, shift, behind)| {
        let made = Made::new(region, vectors, display);
        let mut bytes = [&made.bytes[..], &vec![0; behind]].concat();
        let end = shift.and_then(|shift| made.length().checked_add_signed(shift));
        if let Some(end) = end.and_then(|at| bytes.get_mut(at..at + WORD)) {
            end.copy_from_slice(&END);
        }
        for (at, byte) in damage {
            let length = bytes.len();
            bytes[at.index(length)] = byte;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_finder_and_the_decoder_agree_on_damaged_bodies_in_any_pieces(bytes in damaged(), piece in 1..3000_usize) {
        let wanted = reference(&bytes);
        prop_assert_eq!(find(&bytes).0.ok(), wanted);
        let mut finder = Finder::default();
        bytes.chunks(piece).for_each(|piece| finder.take(piece));
        finder.end();
        prop_assert_eq!(finder.progress().ok(), wanted);
    }
}
