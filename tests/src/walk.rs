//! Walks sections and streams with core's decoders, each of which gets exactly the bytes that it asks for.
//!
//! Deliberately absent: reading ahead. A decoder that asked for a byte past its item would find it missing here.

use vfio_migration_core::stream::record::{Decoder, Wanted, Word};
use vfio_migration_core::stream::section::{self, Error, Item, decode_footer, decode_preamble};

/// What a walk found: one line for each item, record and footer, each with its offset.
pub type Lines = Vec<String>;

/// Walks a stream of VFIO sections whose configurations have `config` bytes.
///
/// # Errors
/// What the decoders say, or that the bytes end inside an item or go on behind the description.
pub fn stream(bytes: &[u8], config: usize) -> Result<Lines, String> {
    let mut walk = Walk { bytes, taken: 0, config, lines: vec![] };
    walk.preamble()?;
    while walk.item()? {}
    walk.end()
}

/// Walks one section, from its type byte through its footer.
///
/// # Errors
/// As [`stream`].
pub fn one_section(bytes: &[u8], config: usize) -> Result<Lines, String> {
    let mut walk = Walk { bytes, taken: 0, config, lines: vec![] };
    walk.item()?;
    walk.end()
}

/// Walks one payload, through its terminator.
///
/// # Errors
/// As [`stream`].
pub fn payload(bytes: &[u8], config: usize) -> Result<Lines, String> {
    let mut walk = Walk { bytes, taken: 0, config, lines: vec![] };
    walk.payload()?;
    walk.end()
}

struct Walk<'a> {
    bytes: &'a [u8],
    taken: usize,
    config: usize,
    lines: Lines,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let missing = || format!("cut: {count} bytes wanted at {}", self.taken);
        let bytes = self.bytes.get(self.taken..self.taken.saturating_add(count)).ok_or_else(missing)?;
        self.taken += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N).map(|bytes| bytes.try_into().expect("as long as asked"))
    }

    fn say(&mut self, at: usize, what: &str) {
        self.lines.push(format!("{at} {what}"));
    }

    fn end(self) -> Result<Lines, String> {
        if self.taken == self.bytes.len() { Ok(self.lines) } else { Err(format!("more at {}", self.taken)) }
    }

    fn preamble(&mut self) -> Result<(), String> {
        decode_preamble(self.array()?).map_err(|error| error.to_string())?;
        self.say(0, "preamble");
        Ok(())
    }

    /// One item and what belongs to it; says whether another follows.
    fn item(&mut self) -> Result<bool, String> {
        let start = self.taken;
        match self.header()? {
            Item::Configuration { name_length } => {
                self.say(start, &format!("CONFIGURATION {name_length}"));
                self.take(name_length.try_into().expect("fits"))?;
            }
            Item::Begin { kind, id, name, instance, version } => {
                let (kind, name) = (kind.name(), name.escape_ascii());
                self.say(start, &format!("{kind} {id} {name} instance {instance} version {version}"));
                self.body(id)?;
            }
            Item::Continue { kind, id } => {
                self.say(start, &format!("{} {id}", kind.name()));
                self.body(id)?;
            }
            Item::Subsection { .. } | Item::Command { .. } => {
                return Err(format!("of a whole machine at {start}"));
            }
            Item::EndOfStream => self.say(start, "end byte"),
            Item::Description { length } => {
                self.say(start, &format!("description {length}"));
                self.take(length.try_into().expect("fits"))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An item without what belongs to it, from as many bytes as its decoder asks for.
    fn header(&mut self) -> Result<Item<'a>, String> {
        let start = self.taken;
        loop {
            let have = self.taken - start;
            match Item::decode(&self.bytes[start..self.taken]) {
                Ok((item, length)) => {
                    assert_eq!(length, have, "every byte that was asked for belongs to the item");
                    return Ok(item);
                }
                Err(Error::Short { wanted }) => {
                    assert!(wanted > have, "{wanted} bytes are wanted where {have} are there");
                    self.take(wanted - have)?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn body(&mut self, id: u32) -> Result<(), String> {
        self.payload()?;
        let start = self.taken;
        decode_footer(id, self.array::<{ section::FOOTER }>()?).map_err(|error| error.to_string())?;
        self.say(start, &format!("footer {id}"));
        Ok(())
    }

    fn payload(&mut self) -> Result<(), String> {
        let mut decoder = Decoder::new();
        let payload = self.taken;
        loop {
            let start = self.taken;
            assert_eq!(decoder.offset(), (start - payload) as u64);
            match decoder.wanted() {
                Wanted::Word => match decoder.word(self.array()?).map_err(|error| error.to_string())? {
                    Word::Tag(tag) => self.say(start, tag.name()),
                    Word::DataLength(length) => self.say(start, &format!("length {length}")),
                },
                Wanted::Data(count) => {
                    self.take(count.try_into().map_err(|_| "too long")?)?;
                    decoder.data(count);
                }
                Wanted::Config => {
                    self.take(self.config)?;
                    self.say(start, &format!("body {}", self.config));
                    decoder.config(self.config as u64);
                }
                Wanted::Nothing(_) => return Ok(()),
            }
        }
    }
}
