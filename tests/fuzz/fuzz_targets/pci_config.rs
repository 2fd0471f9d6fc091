//! The body of a CONFIG record, decoded with a layout and found without one, and the configuration space in it.
//!
//! - What is decoded encodes to the same bytes, and wants no byte behind its END_OF_STATE.
//! - The finder says the same whatever pieces it is fed with, and its bodies are those that decode.
//! - Lists of capabilities and vectors end, wherever they lead.
//! - Nothing is allocated.
//!
//! Settings: the layout, the bytes of a piece, and whether the bytes stand for themselves or are written into a whole
//! body: a place, a length, and so many bytes, again and again. Deliberately absent: a device that the body is for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::stream::pci_config::find::{Finder, Progress};
use vfio_migration_core::stream::pci_config::identity::differs;
use vfio_migration_core::stream::pci_config::space::Space;
use vfio_migration_core::stream::pci_config::{BODY_MAX, Body, Error, Layout, VECTORS_MAX};
use vfio_migration_core::stream::record::{self, Tag, WORD};
use vfio_migration_fuzz::chance::split;
use vfio_migration_fuzz::text::show;
use vfio_migration_fuzz::{memory, seeds};

fuzz_target!(init: seeds::write(seeds::pci_config), |input: &[u8]| {
    let ([how, high, low, piece], _, bytes) = split(input);
    // Large tables are slow, and few of them will do.
    let most = if how & 0xf8 == 0xf8 { VECTORS_MAX } else { 70 };
    let vectors = u16::from_be_bytes([high, low]) % (most + 1);
    let region = if how & 1 > 0 { 256 } else { 4096 };
    let layout = Layout::new(region, vectors).expect("as many vectors as there may be");
    let bytes = if how & 2 > 0 { made(layout, how & 4 > 0, bytes) } else { bytes.to_vec() };
    memory::within(0, || {
        with_layout(layout, &bytes);
        space(&bytes);
        without_layout(&bytes, usize::from(piece) + 1);
    });
});

/// A body of this layout with its MSI-X capability, perhaps END_OF_STATE, and what was written over it.
fn made(layout: Layout, ends: bool, mut writes: &[u8]) -> Vec<u8> {
    let mut body = vec![0; layout.length()];
    body[3] = 2;
    if layout.msix_vectors() > 0 {
        let [low, high] = (layout.msix_vectors() - 1).to_le_bytes();
        body[4 + 0x06] = 0x10;
        body[4 + 0x34] = 0x40;
        body[4 + 0x40..][..4].copy_from_slice(&[0x11, 0, low, high]);
    }
    if ends {
        body.extend(record::encode(Tag::EndOfState));
    }
    while let Some(([high, low, length], rest)) = writes.split_first_chunk() {
        let (written, rest) = rest.split_at(rest.len().min((*length).into()));
        let from = usize::from(u16::from_be_bytes([*high, *low])) % (body.len() + 1);
        body.resize(body.len().max(from + written.len()), 0);
        body[from..][..written.len()].copy_from_slice(written);
        writes = rest;
    }
    body
}

fn with_layout(layout: Layout, bytes: &[u8]) {
    match Body::decode(layout, bytes) {
        Ok((body, length)) => {
            assert_eq!(body.layout(), Ok(layout));
            assert!(bytes[length..].starts_with(&record::encode(Tag::EndOfState)));
            let mut out = [0xa5; BODY_MAX];
            assert_eq!(body.encode(&mut out), Ok(length));
            assert!(out[..length] == bytes[..length], "another body is encoded");
            assert_eq!(body.vectors().count(), usize::from(layout.msix_vectors()));
            for cut in [0, 1, length / 2, length, length + WORD - 1] {
                let Err(Error::Short { wanted }) = Body::decode(layout, &bytes[..cut]) else {
                    panic!("{cut} bytes of {length} are a body")
                };
                assert!(cut < wanted && wanted <= length + WORD, "{wanted}");
            }
            space(body.space);
        }
        Err(error) => {
            if let Error::Short { wanted } = error {
                assert!(bytes.len() < wanted && wanted <= BODY_MAX + WORD);
            }
            show(&error);
        }
    }
}

fn without_layout(bytes: &[u8], piece: usize) {
    let mut pieces = Finder::new();
    for piece in bytes.chunks(piece) {
        if let Ok(Progress::Wanted(wanted) | Progress::Beyond { wanted, .. }) = pieces.progress() {
            assert!(wanted > 0, "nothing is wanted, and nothing found");
        }
        pieces.take(piece);
    }
    let mut whole = Finder::new();
    whole.take(bytes);
    assert_eq!(pieces.progress(), whole.progress());
    whole.end();
    pieces.end();
    assert_eq!(pieces.progress(), whole.progress());
    match whole.progress() {
        Ok(Progress::Found(found)) => {
            assert_eq!(Body::decode(found.layout, bytes).map(|(_, length)| length), Ok(found.length));
        }
        Ok(Progress::Ambiguous(both)) => {
            for found in both {
                assert_eq!(Body::decode(found.layout, bytes).map(|(_, length)| length), Ok(found.length));
            }
        }
        Ok(Progress::Empty) => assert!(bytes.starts_with(&record::encode(Tag::EndOfState))),
        Ok(progress @ (Progress::Wanted(_) | Progress::Beyond { .. })) => panic!("at the end, {progress:?}"),
        Err(error) => show(&error),
    }
}

fn space(bytes: &[u8]) {
    let space = Space::new(bytes);
    assert!(space.capabilities().count() <= 48 + 1 && space.extended_capabilities().count() <= 960 + 1);
    assert!(space.bars().count() <= 6);
    assert!(space.msix().is_none_or(|msix| (1..=VECTORS_MAX).contains(&msix.vectors)));
    assert_eq!(differs(space, space), None);
    let (front, back) = bytes.split_at(bytes.len() / 2);
    let (front, back) = (Space::new(front), Space::new(back));
    assert_eq!(differs(front, back).is_some(), differs(back, front).is_some());
    let _ =
        (space.msi(), space.class().name(), space.command().names().count(), space.status().names().count());
}
