//! Whatever is encoded decodes to itself, and what is cut is never a value: records, items, footers, descriptions, and
//! the messages of the return path.
//!
//! The golden bytes of the same are in `records.rs`, `sections.rs` and `file.rs`; here are values that nobody has
//! written yet. Those of multifd and of the configuration have files of their own.
//!
//! Deliberately absent: bytes that no encoder wrote. The fuzz targets have those.

use proptest::prelude::*;
use vfio_migration_core::session::Code;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::record::{self, Decoder, Tag, Terminator, WORD, Wanted, Word};
use vfio_migration_core::stream::return_path::{self, Kind, MESSAGE_MAX, Message};
use vfio_migration_core::stream::section::{
    Begins, Continues, Error, ITEM_MAX, Item, PREAMBLE, decode_footer, decode_preamble, footer,
};
use vfio_migration_host::file::{self, Description, Entry, FORMAT, Reader, Writer};
use vfio_migration_host::link::Link;
use vfio_migration_tests::transfer::temporary;

/// A record with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
enum Record {
    Setup,
    Data(Vec<u8>),
    Config(Vec<u8>),
    End(Terminator),
}

/// Records up to a terminator. What SETUP and CONFIG want behind them they have.
fn payloads() -> impl Strategy<Value = Vec<Record>> {
    let data = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Record::Data);
    let front = prop::collection::vec(data(), 0..6);
    let end = Record::End(Terminator::EndOfState);
    let terminator = prop_oneof![
        Just(Terminator::EndOfState),
        Just(Terminator::InitDataSent),
        Just(Terminator::ConfigLoadReady),
    ];
    let back = prop_oneof![
        terminator.prop_map(|terminator| vec![Record::End(terminator)]),
        Just(vec![Record::Setup, end.clone()]),
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(move |body| vec![Record::Config(body), end.clone()]),
    ];
    (front, back).prop_map(|(front, back)| [front, back].concat())
}

fn encode(record: &Record) -> Vec<u8> {
    match record {
        Record::Setup => record::encode(Tag::Setup).to_vec(),
        Record::Data(bytes) => [&record::encode_data_head(bytes.len() as u64)[..], bytes].concat(),
        Record::Config(body) => [&record::encode(Tag::Config)[..], body].concat(),
        Record::End(Terminator::EndOfState) => record::encode(Tag::EndOfState).to_vec(),
        Record::End(Terminator::InitDataSent) => record::encode(Tag::InitDataSent).to_vec(),
        Record::End(Terminator::ConfigLoadReady) => record::encode(Tag::ConfigLoadReady).to_vec(),
    }
}

/// Decodes a payload whose configuration has `config` bytes, from data in pieces of at most `piece` bytes.
///
/// # Errors
/// How many bytes more it wants, where it is cut.
fn decode(bytes: &[u8], config: usize, piece: usize) -> Result<(Vec<Record>, usize), u64> {
    let (mut decoder, mut records, mut taken) = (Decoder::new(), vec![], 0);
    loop {
        let left = &bytes[taken..];
        assert_eq!(decoder.offset(), taken as u64);
        let missing = |wanted: usize| (wanted - left.len()) as u64;
        taken += match decoder.wanted() {
            Wanted::Word => {
                let word = left.first_chunk().ok_or_else(|| missing(WORD))?;
                match decoder.word(*word).unwrap() {
                    Word::Tag(Tag::Setup) => records.push(Record::Setup),
                    Word::Tag(Tag::Data) => records.push(Record::Data(vec![])),
                    Word::Tag(Tag::Config) => records.push(Record::Config(vec![])),
                    Word::Tag(Tag::EndOfState | Tag::InitDataSent | Tag::ConfigLoadReady)
                    | Word::DataLength(_) => {}
                }
                WORD
            }
            Wanted::Data(wanted) => {
                let count = left.len().min(piece).min(wanted.try_into().unwrap());
                let Some(Record::Data(data)) = records.last_mut() else { panic!("{records:?}") };
                data.extend(&left[..count]);
                decoder.data(count as u64);
                if count == 0 {
                    return Err(wanted);
                }
                count
            }
            Wanted::Config => {
                let body = left.get(..config).ok_or_else(|| missing(config))?;
                *records.last_mut().unwrap() = Record::Config(body.to_vec());
                decoder.config(config as u64);
                config
            }
            Wanted::Nothing(terminator) => {
                records.push(Record::End(terminator));
                return Ok((records, taken));
            }
        }
    }
}

fn config_of(records: &[Record]) -> usize {
    let body = |record: &Record| if let Record::Config(body) = record { Some(body.len()) } else { None };
    records.iter().find_map(body).unwrap_or(0)
}

/// What an item is made of but its name.
type Parts = (u8, u32, u32, u32);

fn item((which, id, instance, version): Parts, name: &[u8]) -> Item<'_> {
    let begin = |kind| Item::Begin { kind, id, name, instance, version };
    match which {
        0 => begin(Begins::Start),
        1 => begin(Begins::Full),
        2 => Item::Continue { kind: Continues::Part, id },
        3 => Item::Continue { kind: Continues::End, id },
        4 => Item::Configuration { name_length: id },
        5 => Item::Description { length: id },
        6 => Item::Command { command: low(instance), length: low(version) },
        7 => Item::Subsection { name, version },
        _ => Item::EndOfStream,
    }
}

fn low(number: u32) -> u16 {
    let [_, _, high, low] = number.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// Messages of every kind, those of no other length with theirs.
fn messages() -> impl Strategy<Value = Message> {
    let other = |kind, length| Message::Other { kind, length };
    prop_oneof![
        any::<u32>().prop_map(|value| Message::Shut { value }),
        any::<u32>().prop_map(|value| Message::Pong { value }),
        Just(Message::SwitchoverAck),
        Just(other(Kind::ReqPages, 12)),
        Just(other(Kind::ResumeAck, 4)),
        any::<u16>().prop_map(move |length| other(Kind::ReqPagesId, length)),
        any::<u16>().prop_map(move |length| other(Kind::RecvBitmap, length)),
    ]
}

fn descriptions() -> impl Strategy<Value = Description> {
    let text = || prop_oneof![any::<String>(), "[ -~]{0,12}"];
    let entry = (text(), text(), text(), any::<u64>())
        .prop_map(|(idstr, driver, address, data_bytes)| Entry { idstr, driver, address, data_bytes });
    let devices = prop::collection::vec(entry, 0..4);
    (0..=FORMAT, devices).prop_map(|(format, devices)| Description { format, devices })
}

/// The end byte's successor: description and checksum, as they stand behind everything else.
fn written(description: &Description) -> Vec<u8> {
    use std::io::{Read as _, Seek as _};
    let mut file = temporary();
    let mut writer = Writer::begin(Link::new(&file, None)).unwrap();
    writer.end(description).unwrap();
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Result<Description, file::Error> {
    let mut reader = Reader::begin(Bytes(bytes))?;
    let offset = reader.offset();
    match reader.item()? {
        Item::EndOfStream => reader.end(),
        item => Err(file::Error::Unexpected { offset, wanted: "the end byte", got: format!("{item:?}") }),
    }
}

/// A link that gives what there is.
struct Bytes<'a>(&'a [u8]);

impl Transport for Bytes<'_> {
    fn send(&mut self, _: &[u8]) -> Result<usize, Code> {
        Err(Code(32))
    }

    fn recv(&mut self, buffer: &mut [u8]) -> Result<usize, Code> {
        let (given, left) = self.0.split_at(buffer.len().min(self.0.len()));
        buffer[..given.len()].copy_from_slice(given);
        self.0 = left;
        Ok(given.len())
    }

    fn send_config(&mut self) -> Result<(), Code> {
        Err(Code(32))
    }

    fn recv_config(&mut self) -> Result<u64, Code> {
        Err(Code(32))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_records_are_encoded_to_what_decodes_to_them_and_no_byte_of_what_follows(
        records in payloads(),
        behind in prop::collection::vec(any::<u8>(), 0..20),
        piece in 1..50_usize,
    ) {
        let bytes = records.iter().map(encode).collect::<Vec<_>>().concat();
        let followed = [&bytes[..], &behind].concat();
        let config = config_of(&records);
        prop_assert_eq!(decode(&followed, config, piece), Ok((records, bytes.len())));
    }

    #[test]
    fn records_that_are_cut_anywhere_want_more_of_themselves(records in payloads(), piece in 1..50_usize) {
        let bytes = records.iter().map(encode).collect::<Vec<_>>().concat();
        for cut in 0..bytes.len() {
            let missing = decode(&bytes[..cut], config_of(&records), piece).unwrap_err();
            prop_assert!(missing > 0 && missing <= (bytes.len() - cut) as u64, "{missing} at {cut}");
        }
    }

    #[test]
    fn any_length_of_data_is_encoded_to_what_decodes_to_it(length in any::<u64>()) {
        let mut decoder = Decoder::new();
        let head = record::encode_data_head(length);
        let (tag, number) = head.split_first_chunk().unwrap();
        prop_assert_eq!(decoder.word(*tag), Ok(Word::Tag(Tag::Data)));
        prop_assert_eq!(decoder.word(number.try_into().unwrap()), Ok(Word::DataLength(length)));
        let goes_on = if length == 0 { Wanted::Word } else { Wanted::Data(length) };
        prop_assert_eq!(decoder.wanted(), goes_on);
    }

    #[test]
    fn any_item_is_encoded_to_what_decodes_to_it_and_wants_more_where_it_is_cut(
        parts in (0..9_u8, any::<u32>(), any::<u32>(), any::<u32>()),
        name in prop::collection::vec(any::<u8>(), 0..=255),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let item = item(parts, &name);
        let mut out = [0xa5; ITEM_MAX];
        let length = item.encode(&mut out).unwrap();
        let bytes = [&out[..length], &behind].concat();
        prop_assert_eq!(Item::decode(&bytes), Ok((item, length)));
        for cut in 0..length {
            let Err(Error::Short { wanted }) = Item::decode(&bytes[..cut]) else { panic!("{item:?} at {cut}") };
            prop_assert!(cut < wanted && wanted <= length, "{wanted} bytes at {cut}");
        }
    }

    #[test]
    fn any_message_is_encoded_to_what_decodes_to_it_and_wants_more_where_it_is_cut(
        message in messages(),
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut out = [0xa5; MESSAGE_MAX];
        let length = message.encode(&mut out).unwrap();
        let bytes = [&out[..length], &behind].concat();
        prop_assert_eq!(Message::decode(&bytes), Ok((message, length)));
        for cut in 0..length {
            let Err(return_path::Error::Short { wanted }) = Message::decode(&bytes[..cut]) else {
                panic!("{message:?} at {cut}")
            };
            prop_assert!(cut < wanted && wanted <= length, "{wanted} bytes at {cut}");
        }
    }

    #[test]
    fn a_footer_is_that_of_its_section_and_of_no_other(id in any::<u32>(), other in any::<u32>()) {
        prop_assert_eq!(decode_footer(id, footer(id)), Ok(()));
        let answer = decode_footer(other, footer(id));
        let wanted = if other == id { Ok(()) } else { Err(Error::Footer { wanted: other, got: footer(id) }) };
        prop_assert_eq!(answer, wanted);
    }

    #[test]
    fn no_other_bytes_than_the_preamble_are_one(got in any::<[u8; 8]>()) {
        prop_assert_eq!(decode_preamble(got).is_ok(), got == PREAMBLE);
    }

    #[test]
    fn any_description_is_written_to_what_is_read_as_it(description in descriptions()) {
        prop_assert_eq!(read(&written(&description)).unwrap(), description);
    }

    #[test]
    fn a_description_that_is_cut_or_goes_on_is_refused(description in descriptions(), more in any::<u8>()) {
        let bytes = written(&description);
        for cut in 0..bytes.len() {
            match read(&bytes[..cut]) {
                Err(file::Error::Ended { offset, missing, .. }) => {
                    prop_assert_eq!(offset, cut as u64);
                    prop_assert!(missing > 0 && offset + missing <= bytes.len() as u64);
                }
                other => prop_assert!(false, "{other:?} at {cut} of {}", bytes.len()),
            }
        }
        let longer = read(&[&bytes[..], &[more]].concat());
        let trails = matches!(longer, Err(file::Error::Trailing { offset }) if offset == bytes.len() as u64);
        prop_assert!(trails, "{longer:?}");
    }

    #[test]
    fn a_description_with_a_flipped_bit_is_never_a_description(
        description in descriptions(),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let mut bytes = written(&description);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&bytes).is_err(), "byte {at}");
    }
}
