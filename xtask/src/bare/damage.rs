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
        stream.missing(),
    ];
    Ok(all.into_iter().flatten().collect())
}

/// A whole stream and where its parts are.
struct Stream<'a> {
    whole: &'a [u8],
    /// The footers of the START and of three PARTs.
    footers: [usize; 4],
    /// The END and its footer.
    last: usize,
    end: usize,
    /// The tag of a DATA record in the PART behind the second footer.
    data: usize,
    /// The description.
    json: usize,
    /// The first digit of the checksum.
    digits: usize,
}

impl<'a> Stream<'a> {
    fn new(whole: &'a [u8]) -> Result<Self> {
        let footers = places(whole, &FOOTER);
        ensure!(footers.len() > 5, "wanted a stream of several PARTs, got {} sections", footers.len());
        let (last, end) = (footers[footers.len() - 2] + FOOTER.len(), footers[footers.len() - 1]);
        let data = footers[1] + FOOTER.len() + PART.len();
        ensure!(whole[data..].starts_with(&DATA), "wanted a DATA record at byte {data}");
        let (json, digits) = (place(whole, b"{\"page_size\"")?, whole.len() - CHECKSUM_TAIL);
        let footers = [footers[0], footers[1], footers[2], footers[3]];
        Ok(Self { whole, footers, last, end, data, json, digits })
    }

    fn at_the_front(&self) -> Result<Vec<Damage>> {
        let name = place(self.whole, b"sim@")?;
        let state = place(self.whole, b"VFIO-SIM")?;
        let wanted = "wanted a configuration with an empty name, got a configuration with a name of 1 bytes";
        let kind = format!("at byte {}: wanted a device of driver 'sim', got 'rim@", name - 6);
        Ok(vec![
            self.flipped("preamble", (0, 1), "at byte 0: wanted the preamble").untouched(),
            self.flipped("machine's name", (12, 1), &format!("at byte 8: {wanted}")).untouched(),
            self.flipped("driver's name", (name, 1), &kind).untouched(),
            self.flipped(
                "header of the device's state",
                (state, 1),
                &format!("at byte {state}: in the payload"),
            ),
        ])
    }

    fn in_sections(&self) -> Vec<Damage> {
        let footer = self.footers[2];
        let next = footer + FOOTER.len();
        let (kind, own) = ("wanted the type byte of a section", "wanted a PART or the END of the device");
        vec![
            self.flipped(
                "footer",
                (footer + 4, 1),
                &format!("at byte {footer}: wanted the footer of section 1"),
            ),
            self.flipped("section's type", (next, 0x40), &format!("at byte {next}: {kind}")),
            self.flipped(
                "section's number",
                (next + 4, 2),
                &format!("at byte {next}: {own}, got PART of section 3"),
            ),
        ]
    }

    fn in_data(&self) -> Vec<Damage> {
        let (tag, length) = (self.data, self.data + DATA.len());
        // The length takes the next tag's first byte for data, so that a tag is wanted one byte too late.
        let next = self.footers[2] - 8 + 1;
        vec![
            self.flipped(
                "record's tag",
                (tag + 7, 0x80),
                &format!("at byte {tag}: in the payload from byte {tag} on, wanted a record's tag"),
            ),
            self.flipped(
                "record's length",
                (length + 7, 1),
                &format!("at byte {next}: in the payload from byte {tag} on, wanted a record's tag"),
            ),
            self.flipped("byte of the data", (length + 1000, 1), &self.wanted_checksum(length + 1000, 1)),
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
                "byte of the description",
                (self.json + 3, 1),
                &self.wanted_checksum(self.json + 3, 1),
            ),
            self.flipped("checksum's digit", (self.digits + 3, 1), &checksum),
            self.flipped(
                "driver in the description, with a right checksum",
                (driver, 1),
                &format!("{fits} names another driver"),
            )
            .right(),
            self.flipped(
                "number in the description, with a right checksum",
                (count, 1),
                &format!("{fits} counts another number"),
            )
            .right(),
        ])
    }

    /// What is left out, and ends that do not come.
    fn missing(&self) -> Vec<Damage> {
        let [_, first, second, third] = self.footers.map(|footer| footer + FOOTER.len());
        let (total, end, middle) =
            (self.whole.len(), self.end + FOOTER.len(), usize::midpoint(second, third));
        let cut =
            |name, at: usize, told: &str| self.without(name, at..total, &format!("at byte {at}: {told}"));
        let own = "wanted a PART or the END of the device, got the end of the stream";
        let fits = "wanted a description that fits the sections, got one that counts another number";
        let json = self.json - (second - first);
        let payload = second + PART.len();
        vec![
            self.without(
                "END, with a right checksum",
                self.last..end,
                &format!("at byte {}: {own}", self.last),
            )
            .right(),
            self.without("PART, with a right checksum", first..second, &format!("at byte {json}: {fits}"))
                .right(),
            cut(
                "rest, from within the data",
                middle,
                &format!("in the payload from byte {payload} on, the stream ended"),
            ),
            cut("rest behind the END", end, "the stream ended, wanted 1 more bytes of a section's header"),
            cut("last bytes", total - 5, "the stream ended, wanted 5 more bytes of the description"),
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
/// The header of a PART, and of the END but for its first byte.
const PART: [u8; 5] = [2, 0, 0, 0, 1];
const DATA: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 4];
/// The checksum's digits and what follows.
const CHECKSUM_TAIL: usize = 10;
