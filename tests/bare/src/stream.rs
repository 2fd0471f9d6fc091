//! What both sides of a stream share: its names and its checksum, as `FORMAT.md` has them.
//!
//! Deliberately absent: payloads, which are a session's; several devices; and configurations of PCI functions.

use core::fmt::Write as _;

use crc::{CRC_32_ISCSI, Crc, Digest};
use heapless::String;

mod depth;
mod reader;
mod refusal;
mod writer;

pub(crate) use reader::Reader;
pub(crate) use refusal::Refusal;
pub(crate) use writer::Writer;

/// The checksum of a stream's bytes so far.
type Checksum = Digest<'static, u32>;

/// The checksum of no bytes.
fn checksum() -> Checksum {
    CRC32C.digest()
}

/// What stands in a description behind the bytes that the checksum covers.
fn checksum_tail(checksum: &Checksum) -> String<CHECKSUM_TAIL> {
    let mut tail = String::new();
    write!(tail, "{:08x}\"}}", checksum.clone().finalize()).expect("it has that many digits");
    tail
}

static CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

const CHECKSUM_KEY: &str = r#","crc32c":""#;
const CHECKSUM_TAIL: usize = 10;
