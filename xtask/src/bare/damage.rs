//! Streams that are not as they were sent, what has to be said of each, and where it has to leave the device.
//!
//! What stands where is found by the bytes around it, and what is said of it is written down here once more.
//!
//! Deliberately absent: damage of every byte. The tests of the host's loader do that; here it is whether a machine holds
//! to each of its checks.

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};

/// A damaged stream.
pub(crate) struct Damage {
    /// What was done to it.
    pub(crate) name: &'static str,
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// How the receiver's reason begins.
    pub(crate) told: String,
    /// Whether the device had to do with it already, and must have been reset.
    pub(crate) reset: bool,
}

/// Every kind of damage of a `whole` stream of a machine's device with pre-copy.
pub(crate) fn all(whole: &[u8]) -> Result<Vec<Damage>> {
    let stream = Stream::new(whole)?;
    let all = [
        stream.at_the_front()?,
        stream.in_sections(),
        stream.in_data(),
        stream.in_description()?,
        stream.nested(),
        stream.missing(),
    ];
    Ok(all.into_iter().flatten().collect())
}

/// A `whole` stream whose description has one more `value`, with a length and a checksum that fit.
pub(crate) fn described(whole: &[u8], value: &str) -> Result<Vec<u8>> {
    Ok(Stream::new(whole)?.described("", value, 0, "").bytes)
}

/// A value within so many lists.
pub(crate) fn nested(levels: usize, value: &str) -> String {
    [&"[".repeat(levels), value, &"]".repeat(levels)].concat()
}

/// A whole stream and where its parts are.
struct Stream<'a> {
    whole: &'a [u8],
    /// Where each section behind the START begins, the END's last.
    sections: Vec<usize>,
    /// Where the end byte stands, behind the END.
    end: usize,
    /// The description.
    json: usize,
    /// The first digit of the checksum.
    digits: usize,
}

impl<'a> Stream<'a> {
    fn new(whole: &'a [u8]) -> Result<Self> {
        let mut sections: Vec<_> =
            places(whole, &FOOTER).iter().map(|footer| footer + FOOTER.len()).collect();
        let end = sections.pop().context("the stream has sections")?;
        ensure!(sections.len() > 8, "wanted a stream of several PARTs, got {} sections", sections.len());
        let (json, digits) = (place(whole, b"{\"page_size\"")?, whole.len() - CHECKSUM_TAIL);
        Ok(Self { whole, sections, end, json, digits })
    }

    fn at_the_front(&self) -> Result<Vec<Damage>> {
        let name = place(self.whole, b"sim@")?;
        let state = place(self.whole, b"VFIO-SIM")?;
        let wanted = "wanted a configuration with an empty name, got a configuration with a name of 1 bytes";
        let kind = format!("at byte {}: wanted a device of driver 'sim', got 'rim@", name - 6);
        Ok(vec![
            self.flipped("a bit of the preamble", (0, 1), "at byte 0: wanted the preamble").untouched(),
            self.flipped("a bit of the machine's name", (12, 1), &format!("at byte 8: {wanted}")).untouched(),
            self.flipped("a bit of the driver's name", (name, 1), &kind).untouched(),
            self.flipped(
                "a bit of the device's own header",
                (state, 1),
                &format!("at byte {state}: in the payload"),
            ),
        ])
    }

    fn in_sections(&self) -> Vec<Damage> {
        let next = self.sections[2];
        let footer = next - FOOTER.len();
        let (kind, own) = ("wanted the type byte of a section", "wanted a PART or the END of the device");
        let marks = "wanted the footer of section 1";
        vec![
            self.flipped("a bit of a footer", (footer + 4, 1), &format!("at byte {footer}: {marks}")),
            self.flipped("a bit of a section's type", (next, 0x40), &format!("at byte {next}: {kind}")),
            self.flipped(
                "a bit of a section's number",
                (next + 4, 2),
                &format!("at byte {next}: {own}, got PART of section 3"),
            ),
        ]
    }

    fn in_data(&self) -> Vec<Damage> {
        let tag = self.sections[1] + PART;
        let length = tag + WORD;
        // A length that is one too many takes a byte of END_OF_STATE for data, and a tag is wanted a byte too late.
        let next = self.sections[2] - FOOTER.len() - WORD + 1;
        let record = format!("in the payload from byte {tag} on, wanted a record's tag");
        vec![
            self.flipped("a bit of a record's tag", (tag + 7, 0x80), &format!("at byte {tag}: {record}")),
            self.flipped("a bit of a record's length", (length + 7, 1), &format!("at byte {next}: {record}")),
            self.flipped("a bit of the data", (length + 1000, 1), &self.wanted_checksum(length + 1000, 1)),
        ]
    }

    fn in_description(&self) -> Result<Vec<Damage>> {
        let driver = place(self.whole, b"\"driver\":\"sim\"")? + 10;
        let count = place(self.whole, b",\"data_bytes\":")? + 14;
        let fits =
            format!("at byte {}: wanted a description that fits the sections, got one that", self.json);
        let checksum = format!("at byte {}: wanted crc32c {}", self.digits, self.checksum());
        Ok(vec![
            self.flipped(
                "a bit of the description",
                (self.json + 3, 1),
                &self.wanted_checksum(self.json + 3, 1),
            ),
            self.flipped("a bit of the checksum", (self.digits + 3, 1), &checksum),
            self.flipped(
                "another driver in the description, checksum right",
                (driver, 1),
                &format!("{fits} names another driver"),
            )
            .right(),
            self.flipped(
                "another length in the description, checksum right",
                (count, 1),
                &format!("{fits} counts another number"),
            )
            .right(),
        ])
    }

    /// Descriptions that would take a parser deeper than its stack goes. The object around the value is a level too.
    fn nested(&self) -> Vec<Damage> {
        let more = "wanted a description of at most 8 levels, got one more";
        let quote = "wanted a description in JSON, got a '\\\"' in a wrong place";
        vec![
            self.described("a description of 9 levels, checksum right", &nested(8, "0"), 7, more),
            self.described("a description of 2020 levels, checksum right", &nested(2019, "0"), 7, more),
            self.described(
                "a description of 2020 levels behind half a string, checksum right",
                &format!("[0\",{}]", nested(2018, "\"")),
                2,
                quote,
            ),
        ]
    }

    /// The stream with one more value in its description, and what is told of the byte `at` of it.
    fn described(&self, name: &'static str, value: &str, at: usize, told: &str) -> Damage {
        let mut bytes = self.whole.to_vec();
        let at = self.json + KEY.len() + at;
        bytes.splice(self.json + 1..=self.json, format!("{}{value},", &KEY[1..]).into_bytes());
        let length = u32::try_from(bytes.len() - self.json).unwrap_or(u32::MAX);
        bytes[self.json - LENGTH..self.json].copy_from_slice(&length.to_be_bytes());
        Damage { name, bytes, told: format!("at byte {at}: {told}"), reset: true }.right()
    }

    /// What is left out, and ends that do not come.
    fn missing(&self) -> Vec<Damage> {
        let (second, third, total) = (self.sections[1], self.sections[2], self.whole.len());
        let last = self.sections[self.sections.len() - 1];
        let cut =
            |name, at: usize, told: &str| self.without(name, at..total, &format!("at byte {at}: {told}"));
        let own = "wanted a PART or the END of the device, got the end of the stream";
        // Without the second PART the device's first record is looked for within content, in the seventh PART.
        let seventh = self.sections[6] + PART - (third - second);
        let refused = format!("in the payload from byte {seventh} on, the device refused the data");
        let ended = format!("in the payload from byte {} on, the stream ended", second + PART);
        vec![
            self.without("END left out, checksum right", last..self.end, &format!("at byte {last}: {own}"))
                .right(),
            self.without(
                "PART left out, checksum right",
                second..third,
                &format!("at byte {}: {refused}", seventh + 2 * WORD),
            )
            .right(),
            cut("cut within the data", usize::midpoint(second, third), &ended),
            cut(
                "cut behind the END",
                self.end,
                "the stream ended, wanted 1 more bytes of a section's header",
            ),
            cut(
                "cut within the checksum",
                total - 5,
                "the stream ended, wanted 5 more bytes of the description",
            ),
        ]
    }

    /// The stream without a part of it.
    fn without(&self, name: &'static str, part: Range<usize>, told: &str) -> Damage {
        let bytes = [&self.whole[..part.start], &self.whole[part.end..]].concat();
        Damage { name, bytes, told: told.to_owned(), reset: true }
    }

    /// The stream with these bits of a byte flipped.
    fn flipped(&self, name: &'static str, (at, bits): (usize, u8), told: &str) -> Damage {
        let mut bytes = self.whole.to_vec();
        bytes[at] ^= bits;
        Damage { name, bytes, told: told.to_owned(), reset: true }
    }

    /// The reason to refuse a stream in which nothing but the checksum is wrong.
    fn wanted_checksum(&self, at: usize, bits: u8) -> String {
        let Damage { bytes, .. } = self.flipped("", (at, bits), "");
        let wanted = crc32c::crc32c(&bytes[..self.digits]);
        format!(
            "at byte {}: wanted crc32c {wanted:08x} of all before it, got {}",
            self.digits,
            self.checksum()
        )
    }

    /// The checksum that the stream has.
    fn checksum(&self) -> String {
        String::from_utf8_lossy(&self.whole[self.digits..][..8]).into_owned()
    }
}

impl Damage {
    /// The device is not touched before this is found.
    fn untouched(self) -> Self {
        Self { reset: false, ..self }
    }

    /// The same with a checksum that fits.
    fn right(mut self) -> Self {
        self.bytes.truncate(self.bytes.len() - CHECKSUM_TAIL);
        let checksum = crc32c::crc32c(&self.bytes);
        self.bytes.extend(format!("{checksum:08x}\"}}").bytes());
        self
    }
}

/// Where `wanted` stands, from the front on.
fn places(bytes: &[u8], wanted: &[u8]) -> Vec<usize> {
    bytes
        .windows(wanted.len())
        .enumerate()
        .filter(|(_, window)| *window == wanted)
        .map(|(at, _)| at)
        .collect()
}

fn place(bytes: &[u8], wanted: &[u8]) -> Result<usize> {
    let place = places(bytes, wanted).first().copied();
    place.with_context(|| format!("wanted '{}' in the stream", wanted.escape_ascii()))
}

const FOOTER: [u8; 5] = [0x7e, 0, 0, 0, 1];
/// The bytes of a PART's header.
const PART: usize = 5;
/// The bytes of a tag, and of a length.
const WORD: usize = 8;
/// The bytes of a description's length.
const LENGTH: usize = 4;
/// What stands before a value that is put in at the front of a description.
const KEY: &str = "{\"x\":";
/// The checksum's digits and what follows.
const CHECKSUM_TAIL: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_checksum_is_that_of_all_before_it() {
        let bytes = b"123456789\"crc32c\":\"00000000\"}".to_vec();
        let damage = Damage { name: "", bytes, told: String::new(), reset: true }.right();
        let (covered, tail) = damage.bytes.split_at(damage.bytes.len() - CHECKSUM_TAIL);
        assert_eq!(covered, b"123456789\"crc32c\":\"");
        assert_eq!(tail, format!("{:08x}\"}}", crc32c::crc32c(covered)).as_bytes());
    }

    #[test]
    fn places_are_all_from_the_front_on() {
        assert_eq!(places(b"abcabcab", b"ab"), [0, 3, 6]);
        assert!(places(b"abc", b"abcd").is_empty());
    }
}
