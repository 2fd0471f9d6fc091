//! Items, preambles and footers, decoded from any bytes.
//!
//! - What is decoded encodes to the same bytes again.
//! - Every shorter beginning of an item asks for more of it, and for no byte behind it.
//! - An error's text can be written, and nothing is allocated.
//!
//! Deliberately absent: what stands between the items; that is in the target `record`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::stream::section::{self, Error, FOOTER, ITEM_MAX, Item, PREAMBLE};
use vfio_migration_fuzz::text::show;
use vfio_migration_fuzz::{memory, seeds};

fuzz_target!(init: seeds::write(seeds::section), |bytes: &[u8]| {
    memory::within(0, || {
        preamble(bytes);
        footer(bytes);
        items(bytes);
    });
});

fn items(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match Item::decode(bytes) {
            Ok((item, length)) => {
                assert_same(&item, &bytes[..length]);
                (0..length).for_each(|cut| assert_wants_more(&bytes[..cut], length));
                bytes = &bytes[length..];
            }
            Err(error) => {
                if let Error::Short { wanted } = error {
                    assert!(bytes.len() < wanted && wanted <= ITEM_MAX, "{error:?}");
                } else {
                    assert_eq!(error, Error::UnknownType { got: bytes[0] });
                }
                show(&error);
                bytes = &bytes[1..];
            }
        }
    }
}

fn assert_same(item: &Item<'_>, bytes: &[u8]) {
    let mut out = [0xa5; ITEM_MAX];
    assert_eq!(item.encode(&mut out), Ok(bytes.len()));
    assert_eq!(&out[..bytes.len()], bytes);
    let too_short = Err(Error::NoRoom { wanted: bytes.len(), got: bytes.len() - 1 });
    assert_eq!(item.encode(&mut out[..bytes.len() - 1]), too_short);
}

fn assert_wants_more(beginning: &[u8], length: usize) {
    match Item::decode(beginning) {
        Err(Error::Short { wanted }) => assert!(beginning.len() < wanted && wanted <= length, "{wanted}"),
        other => panic!("{} of {length} bytes are {other:?}", beginning.len()),
    }
}

fn preamble(bytes: &[u8]) {
    let Some(&bytes) = bytes.first_chunk() else { return };
    match section::decode_preamble(bytes) {
        Ok(()) => assert_eq!(bytes, PREAMBLE),
        Err(error) => show(&error),
    }
}

fn footer(bytes: &[u8]) {
    let Some((id, rest)) = bytes.split_first_chunk() else { return };
    let id = u32::from_be_bytes(*id);
    assert_eq!(section::decode_footer(id, section::footer(id)), Ok(()));
    let Some(&rest) = rest.first_chunk::<FOOTER>() else { return };
    match section::decode_footer(id, rest) {
        Ok(()) => assert_eq!(rest, section::footer(id)),
        Err(error) => show(&error),
    }
}
