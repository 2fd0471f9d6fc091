//! `stream`: what travels.
//!
//! Deliberately absent: streams. Each call gets bytes that nobody has checked before.

use vfio_migration_core::stream::record::{self, DATA_HEAD, Decoder, Tag, WORD, Wanted, Word};
use vfio_migration_core::stream::section::{self, Begins, Continues, FOOTER, Item};

#[unsafe(no_mangle)]
fn proof_tag_from_raw(raw: &u64) -> Option<Tag> {
    Tag::from_raw(*raw)
}

#[unsafe(no_mangle)]
fn proof_tag_raw(tag: &Tag) -> u64 {
    tag.raw()
}

#[unsafe(no_mangle)]
fn proof_tag_name(tag: &Tag) -> &'static str {
    tag.name()
}

#[unsafe(no_mangle)]
fn proof_record_encode(tag: &Tag) -> [u8; WORD] {
    record::encode(*tag)
}

#[unsafe(no_mangle)]
fn proof_record_encode_data_head(length: &u64) -> [u8; DATA_HEAD] {
    record::encode_data_head(*length)
}

#[unsafe(no_mangle)]
fn proof_decoder_new() -> Decoder {
    Decoder::new()
}

#[unsafe(no_mangle)]
fn proof_decoder_default() -> Decoder {
    Decoder::default()
}

#[unsafe(no_mangle)]
fn proof_decoder_wanted(decoder: &Decoder) -> Wanted {
    decoder.wanted()
}

#[unsafe(no_mangle)]
fn proof_decoder_offset(decoder: &Decoder) -> u64 {
    decoder.offset()
}

#[unsafe(no_mangle)]
fn proof_decoder_record(decoder: &Decoder) -> Option<Tag> {
    decoder.record()
}

#[unsafe(no_mangle)]
fn proof_decoder_word(decoder: &mut Decoder, bytes: &[u8; WORD]) -> Result<Word, record::Error> {
    decoder.word(*bytes)
}

#[unsafe(no_mangle)]
fn proof_decoder_data(decoder: &mut Decoder, count: &u64) {
    decoder.data(*count);
}

#[unsafe(no_mangle)]
fn proof_decoder_config(decoder: &mut Decoder, length: &u64) {
    decoder.config(*length);
}

#[unsafe(no_mangle)]
fn proof_record_error_offset(error: &record::Error) -> u64 {
    error.offset()
}

#[unsafe(no_mangle)]
fn proof_section_begins_name(kind: &Begins) -> &'static str {
    kind.name()
}

#[unsafe(no_mangle)]
fn proof_section_continues_name(kind: &Continues) -> &'static str {
    kind.name()
}

#[unsafe(no_mangle)]
fn proof_section_encode(item: &Item<'_>, out: &mut [u8]) -> Result<usize, section::Error> {
    item.encode(out)
}

#[unsafe(no_mangle)]
fn proof_section_decode(bytes: &[u8]) -> Result<(Item<'_>, usize), section::Error> {
    Item::decode(bytes)
}

#[unsafe(no_mangle)]
fn proof_section_decode_preamble(bytes: &[u8; 8]) -> Result<(), section::Error> {
    section::decode_preamble(*bytes)
}

#[unsafe(no_mangle)]
fn proof_section_footer(id: &u32) -> [u8; FOOTER] {
    section::footer(*id)
}

#[unsafe(no_mangle)]
fn proof_section_decode_footer(id: &u32, bytes: &[u8; FOOTER]) -> Result<(), section::Error> {
    section::decode_footer(*id, *bytes)
}
