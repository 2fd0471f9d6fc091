//! Payloads and streams that are made of the fuzzer's bytes, so that most of them get far before they go wrong.
//!
//! Each byte is a step: its low half says what comes next, its high half how much of it or for which device; what a
//! step needs beside that it takes from the bytes behind.
//!
//! Deliberately absent: core's decoder. What was made is known without it.

use std::slice::Iter;

use vfio_migration_core::stream::section::{self, Begins, Continues, ITEM_MAX, Item, PREAMBLE};
use vfio_migration_tests::payload::{CONFIG, DATA, END, INIT_DATA_SENT, SETUP, content, data};
use vfio_migration_tests::schedule::setting::CONFIG_BODY;

/// Payloads that hold a model device's state of `rest` bytes, or something like it.
#[must_use]
pub fn payloads(steps: &[u8], rest: usize) -> Vec<u8> {
    let state = content(rest);
    let (mut made, mut sent) = (Vec::new(), 0);
    let mut steps = steps.iter();
    while let Some((step, count)) = next(&mut steps) {
        match step {
            0 => made.extend([SETUP, END].concat()),
            1 => made.extend(data(take(&state, &mut sent, count))),
            2 | 13 => made.extend(END),
            3 => made.extend(INIT_DATA_SENT),
            4 => made.extend([&CONFIG[..], &CONFIG_BODY, &END].concat()),
            5 => made.extend(raw(&mut steps, count)),
            6 => made.extend(data(take(&state, &mut sent, rest))),
            7 => made.extend([&DATA[..], &[0; 7], raw(&mut steps, 1)].concat()),
            8 => made.extend(CONFIG_LOAD_READY),
            9 => made.truncate(made.len().saturating_sub(count)),
            10 => made.extend([&DATA[..], raw(&mut steps, 8)].concat()),
            11 => made.extend(data(raw(&mut steps, count))),
            12 => flip(&mut made, count, &mut steps),
            _ => made.extend([&data(take(&state, &mut sent, rest))[..], &END].concat()),
        }
    }
    made
}

/// A stream of ours, or something like it.
#[derive(Debug)]
pub struct Stream<'s> {
    /// The states of its devices.
    states: &'s [Vec<u8>],
    /// The bodies of their CONFIG records, each empty where the device is no PCI function.
    configs: &'s [Vec<u8>],
    /// What there is of it.
    bytes: Vec<u8>,
    /// How much of each state was sent.
    sent: Vec<usize>,
    /// How many bytes of data each device's sections have.
    data: Vec<usize>,
    /// The kind of each device's last section.
    last: Vec<Option<Kind>>,
    /// Whether it is what a source would write, so far.
    honest: bool,
}

/// A stream for the devices with these states and configurations, and whether it holds them, in no other order and
/// without a mistake.
#[must_use]
pub fn stream(steps: &[u8], states: &[Vec<u8>], configs: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let mut stream = Stream {
        states,
        configs,
        bytes: [&PREAMBLE[..], &encoded(Item::Configuration { name_length: 0 })].concat(),
        sent: vec![0; states.len()],
        data: vec![0; states.len()],
        last: vec![None; states.len()],
        honest: true,
    };
    let mut steps = steps.iter();
    while let Some((step, high)) = next(&mut steps) {
        stream.step(step, high, &mut steps);
    }
    stream.bytes.extend(encoded(Item::EndOfStream));
    let all_sent = stream.sent.iter().zip(states).all(|(sent, state)| *sent == state.len());
    let honest = stream.honest && all_sent && stream.last.iter().all(|last| last.is_some_and(Kind::is_end));
    (sealed(&stream.bytes, stream.description().as_bytes()), honest)
}

/// `body`, and behind it the description `json`, which lacks its end, with the right checksum.
#[must_use]
pub fn sealed(body: &[u8], json: &[u8]) -> Vec<u8> {
    let json = [json, b",\"crc32c\":\""].concat();
    let length = u32::try_from(json.len() + CHECKSUM_TAIL).unwrap_or(u32::MAX);
    let mut bytes = [body, &encoded(Item::Description { length }), &json].concat();
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(format!("{checksum:08x}\"}}").bytes());
    bytes
}

/// Writes the right checksum over the end of a stream, whatever stands there.
pub fn seal(stream: &mut Vec<u8>) {
    stream.truncate(stream.len().saturating_sub(CHECKSUM_TAIL));
    let checksum = crc32c::crc32c(stream);
    stream.extend(format!("{checksum:08x}\"}}").bytes());
}

/// Whether a stream ends in the checksum of all that stands before it.
#[must_use]
pub fn is_sealed(stream: &[u8]) -> bool {
    let mut other = stream.to_vec();
    seal(&mut other);
    other == stream
}

/// The name of a device's sections.
#[must_use]
pub fn name(device: usize) -> String {
    format!("sim@source.{device}/vfio")
}

impl Stream<'_> {
    fn step(&mut self, step: u8, high: usize, steps: &mut Iter<'_, u8>) {
        let device = high % self.states.len();
        match step {
            0 => self.start(device),
            1 => self.part(device, 8),
            2 => {
                let count = raw(steps, 1).first().copied().unwrap_or(0);
                self.part(device, count.into());
            }
            3 => {
                let rest = take(&self.states[device], &mut self.sent[device], usize::MAX);
                self.section(device, Continues::End.into(), &[&data(rest)[..], &END].concat(), rest.len());
            }
            4 => self.section(device, Kind::Full, &END, 0),
            5 => self.section(device, Continues::Part.into(), &END, 0),
            6 if !self.configs[device].is_empty() => {
                let config = [&CONFIG[..], &self.configs[device], &END].concat();
                self.section(device, Kind::Full, &config, 0);
            }
            12 => (0..self.states.len()).for_each(|device| self.start(device)),
            _ => {
                self.honest = false;
                self.mistake(step, high, steps);
            }
        }
    }

    fn mistake(&mut self, step: u8, high: usize, steps: &mut Iter<'_, u8>) {
        let (device, part) = (high % self.states.len(), Continues::Part.into());
        match step {
            6 => self.section(device, Kind::Full, &[&CONFIG[..], &CONFIG_BODY, &END].concat(), 0),
            7 => self.section(device, part, &INIT_DATA_SENT, 0),
            8 => self.section(device, part, raw(steps, high), 0),
            9 => self.bytes.extend(raw(steps, high)),
            10 => self.bytes.truncate(self.bytes.len().saturating_sub(high)),
            11 => flip(&mut self.bytes, high, steps),
            13 => self.section(device, part, &[SETUP, END].concat(), 0),
            14 => {
                let wrong = raw(steps, high);
                self.section(device, part, &[&data(wrong)[..], &END].concat(), wrong.len());
            }
            _ => self.sent[device] = (self.sent[device] + high).min(self.states[device].len()),
        }
    }

    fn start(&mut self, device: usize) {
        self.section(device, Kind::Start, &[SETUP, END].concat(), 0);
    }

    fn part(&mut self, device: usize, count: usize) {
        let piece = take(&self.states[device], &mut self.sent[device], count);
        self.section(device, Continues::Part.into(), &[&data(piece)[..], &END].concat(), piece.len());
    }

    fn section(&mut self, device: usize, kind: Kind, payload: &[u8], data: usize) {
        let id = u32::try_from(device + 1).expect("few devices");
        let name = name(device);
        let begin = |kind| Item::Begin { kind, id, name: name.as_bytes(), instance: 0, version: 1 };
        let item = match kind {
            Kind::Start => begin(Begins::Start),
            Kind::Full => begin(Begins::Full),
            Kind::Continue(kind) => Item::Continue { kind, id },
        };
        self.bytes.extend([&encoded(item)[..], payload, &section::footer(id)].concat());
        self.data[device] += data;
        self.honest &= self.may_follow(device, kind);
        self.last[device] = Some(kind);
    }

    /// Whether a device's section may stand here: all START sections, in the devices' order, then PARTs up to an END, and
    /// one FULL behind it.
    fn may_follow(&self, device: usize, kind: Kind) -> bool {
        let last = self.last[device];
        match kind {
            Kind::Start => {
                let (before, behind) = self.last.split_at(device);
                before.iter().all(|last| *last == Some(Kind::Start)) && behind.iter().all(Option::is_none)
            }
            Kind::Continue(_) => {
                self.last.iter().all(Option::is_some) && last.is_some_and(|last| !last.is_end())
            }
            Kind::Full => last == Some(Continues::End.into()),
        }
    }

    fn description(&self) -> String {
        let entry = |(device, bytes): (usize, &usize)| {
            let name = name(device);
            let what = format!("\"idstr\":\"{name}\",\"driver\":\"sim\",\"address\":\"source.{device}\"");
            format!("{{{what},\"data_bytes\":{bytes}}}")
        };
        let entries: Vec<_> = self.data.iter().enumerate().map(entry).collect();
        let entries = entries.join(",");
        format!(
            "{{\"page_size\":4096,\"devices\":[],\"vfio-migration\":{{\"format\":1,\"devices\":[{entries}]}}"
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start,
    Full,
    Continue(Continues),
}

impl Kind {
    /// Whether a device's data are over behind it.
    fn is_end(self) -> bool {
        matches!(self, Self::Full | Self::Continue(Continues::End))
    }
}

impl From<Continues> for Kind {
    fn from(kind: Continues) -> Self {
        Self::Continue(kind)
    }
}

/// The bytes of an item.
///
/// # Panics
/// When its name is too long.
#[must_use]
pub fn encoded(item: Item<'_>) -> Vec<u8> {
    let mut out = [0; ITEM_MAX];
    let length = item.encode(&mut out).expect("room for every item");
    out[..length].to_vec()
}

/// The next step: what, and how much of it.
pub(crate) fn next(steps: &mut Iter<'_, u8>) -> Option<(u8, usize)> {
    steps.next().map(|step| (step & 15, usize::from(step >> 4)))
}

/// So many bytes as they are, or as many as there are.
pub(crate) fn raw<'a>(steps: &mut Iter<'a, u8>, count: usize) -> &'a [u8] {
    let left = steps.as_slice();
    let (raw, rest) = left.split_at(count.min(left.len()));
    *steps = rest.iter();
    raw
}

/// The next bytes of a state.
pub(crate) fn take<'a>(state: &'a [u8], sent: &mut usize, count: usize) -> &'a [u8] {
    let left = &state[*sent..];
    let piece = &left[..count.min(left.len())];
    *sent += piece.len();
    piece
}

/// Changes one of the last bytes.
pub(crate) fn flip(made: &mut [u8], back: usize, steps: &mut Iter<'_, u8>) {
    let mask = raw(steps, 2);
    if let [far, mask] = *mask
        && let Some(at) = made.len().checked_sub(1 + back + 16 * usize::from(far))
    {
        made[at] ^= mask;
    }
}

const CONFIG_LOAD_READY: [u8; 8] = *b"\xff\xff\xff\xff\xef\x10\0\x06";

/// What stands behind the bytes that a description's checksum covers: eight digits, a quotation mark and a brace.
const CHECKSUM_TAIL: usize = 10;
