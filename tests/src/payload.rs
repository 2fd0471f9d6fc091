//! Payloads written out by hand, for what sessions send and take.
//!
//! Deliberately absent: core's encoder. These bytes are the second writing of the format, so that a wrong tag in core
//! shows.

use byteorder::{BE, ByteOrder as _};

/// The tag of a SETUP record, which is the whole record.
pub const SETUP: [u8; 8] = *b"\xff\xff\xff\xff\xef\x10\0\x03";
/// The tag of a DATA record; [`data`] writes a whole one.
pub const DATA: [u8; 8] = *b"\xff\xff\xff\xff\xef\x10\0\x04";
/// The tag of a CONFIG record, behind which its body stands.
pub const CONFIG: [u8; 8] = *b"\xff\xff\xff\xff\xef\x10\0\x02";
/// The tag of an END_OF_STATE record, which is the whole record.
pub const END: [u8; 8] = *b"\xff\xff\xff\xff\xef\x10\0\x01";
/// The tag of an INIT_DATA_SENT record, which is the whole record.
pub const INIT_DATA_SENT: [u8; 8] = *b"\xff\xff\xff\xff\xef\x10\0\x05";

/// A DATA record.
#[must_use]
pub fn data(bytes: &[u8]) -> Vec<u8> {
    [&DATA[..], &big_endian(bytes.len() as u64), bytes].concat()
}

/// A number as it stands on the wire, by byteorder's hand; core has the standard library's.
#[must_use]
pub fn big_endian(number: u64) -> [u8; 8] {
    let mut bytes = [0; 8];
    BE::write_u64(&mut bytes, number);
    bytes
}

/// DATA of ten bytes, CONFIG with a body of four, END_OF_STATE: every kind of effect of a destination in one section.
#[must_use]
pub fn every_effect() -> Vec<u8> {
    [&data(b"0123456789")[..], &CONFIG, b"conf", &END].concat()
}

/// Device data of which no two neighbouring 256 bytes are alike.
#[must_use]
pub fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((at * 7 + at / 256) % 251).expect("below 251")).collect()
}
