//! What multifd channels begin with and are made of, and the messages of the return path, decoded from any bytes.
//!
//! - What is decoded encodes to what decodes to the same; a message to the same bytes.
//! - Every shorter beginning asks for more of it, and for no byte behind it.
//! - An error's text can be written, and nothing is allocated.
//!
//! Deliberately absent: the order of packets; that is in the target `multifd`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::stream::multifd::{self, Init, PAGES, Packet, RAM_HEAD};
use vfio_migration_core::stream::return_path::{self, MESSAGE_MAX, Message};
use vfio_migration_fuzz::text::show;
use vfio_migration_fuzz::{memory, seeds};

fuzz_target!(init: seeds::write(seeds::packet), |bytes: &[u8]| {
    memory::within(0, || {
        init(bytes);
        messages(bytes);
        packets(bytes);
    });
});

fn init(bytes: &[u8]) {
    match Init::decode(bytes) {
        Ok((init, length)) => {
            assert_eq!(Init::decode(&init.encode()), Ok((init, length)));
            for cut in 0..length {
                assert_eq!(Init::decode(&bytes[..cut]), Err(multifd::Error::Short { wanted: length }));
            }
        }
        Err(error) => show(&error),
    }
}

fn packets(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (packet, length) = match Packet::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                if let multifd::Error::Short { wanted } = error {
                    assert!(bytes.len() < wanted && wanted <= RAM_HEAD, "{wanted}");
                }
                return show(&error);
            }
        };
        let mut out = [0xa5; RAM_HEAD];
        assert_eq!(packet.encode(&mut out), Ok(length));
        assert_eq!(Packet::decode(&out[..length]), Ok((packet, length)));
        for cut in 0..length {
            match Packet::decode(&bytes[..cut]) {
                Err(multifd::Error::Short { wanted }) => {
                    assert!(cut < wanted && wanted <= length, "{wanted}")
                }
                other => panic!("{cut} of {length} bytes are {other:?}"),
            }
        }
        let behind = match packet {
            Packet::DeviceState(state) => state.piece.length.into(),
            Packet::Ram(ram) => ram.rest(PAGES).unwrap_or(0),
        };
        let behind = usize::try_from(behind).unwrap_or(usize::MAX);
        bytes = &bytes[length.saturating_add(behind).min(bytes.len())..];
    }
}

fn messages(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let (message, length) = match Message::decode(bytes) {
            Ok(decoded) => decoded,
            Err(error) => {
                if let return_path::Error::Short { wanted } = error {
                    assert!(bytes.len() < wanted && wanted <= MESSAGE_MAX, "{wanted}");
                }
                return show(&error);
            }
        };
        let mut out = [0xa5; MESSAGE_MAX];
        assert_eq!(message.encode(&mut out), Ok(length));
        assert_eq!(out[..length], bytes[..length]);
        for cut in 0..length {
            match Message::decode(&bytes[..cut]) {
                Err(return_path::Error::Short { wanted }) => assert!(cut < wanted && wanted <= length),
                other => panic!("{cut} of {length} bytes are {other:?}"),
            }
        }
        let behind = if let Message::Other { length, .. } = message { length } else { 0 };
        bytes = &bytes[(length + usize::from(behind)).min(bytes.len())..];
    }
}
