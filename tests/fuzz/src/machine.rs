//! The stream of a whole machine, made of the fuzzer's bytes: VFIO devices, memory, and others whose length only the
//! description tells.
//!
//! Deliberately absent: core's decoder. What was made is known without it.

use vfio_migration_core::stream::section::{self, Begins, Continues, Item, PREAMBLE};
use vfio_migration_host::sim::{Assigned, Sim};
use vfio_migration_host::transfer::Migratable as _;
use vfio_migration_tests::payload::{CONFIG, END, INIT_DATA_SENT, SETUP, data};

use crate::compose::{encoded, flip, next, raw};

/// The PCI function that the VFIO device is, simulated.
pub const FUNCTION: &str = "size=40,pci=256";

/// The name of the VFIO device's sections.
pub const DEVICE: &str = "0000:00:02.0/vfio";

/// A machine's stream, and whether nothing is wrong with it. Without `ends` it has neither end byte nor description.
#[must_use]
pub fn made(steps: &[u8], ends: bool) -> (Vec<u8>, bool) {
    let name = b"pc-i440fx-10.0";
    let mut machine = Machine {
        bytes: [&PREAMBLE[..], &encoded(Item::Configuration { name_length: 14 }), name].concat(),
        described: vec![],
        begun: [false; 2],
        listed: false,
        others: 0,
        honest: ends,
    };
    let mut steps = steps.iter();
    while let Some((step, high)) = next(&mut steps) {
        machine.step(step, high, &mut steps);
    }
    if ends {
        machine.bytes.extend(encoded(Item::EndOfStream));
        let json = format!("{{\"page_size\":4096,\"devices\":[{}]}}", machine.described.join(","));
        let length = u32::try_from(json.len()).expect("a short description");
        machine.bytes.extend(encoded(Item::Description { length }));
        machine.bytes.extend(json.bytes());
    }
    (machine.bytes, machine.honest)
}

#[derive(Debug)]
struct Machine {
    bytes: Vec<u8>,
    /// What the description says of each FULL.
    described: Vec<String>,
    /// Whether memory and the device have had their START.
    begun: [bool; 2],
    /// Whether the blocks of memory are known.
    listed: bool,
    /// How many FULL sections there were of others.
    others: u32,
    honest: bool,
}

impl Machine {
    fn step(&mut self, step: u8, high: usize, steps: &mut std::slice::Iter<'_, u8>) {
        match step {
            0 => self.start(VFIO, DEVICE, &[SETUP, END].concat()),
            1 => self.go_on(VFIO, Continues::Part, &records(raw(steps, high))),
            2 => self.go_on(VFIO, Continues::End, &records(raw(steps, high))),
            3 => {
                let payload = [&CONFIG[..], &config(), &END].concat();
                self.full(VFIO, DEVICE, &payload, payload.len());
            }
            4 => {
                let list =
                    [&(BLOCK | 4).to_be_bytes()[..], b"\x06pc.ram", &BLOCK.to_be_bytes(), &EOS].concat();
                self.start(MEMORY, "ram", &list);
                self.listed = true;
            }
            5 => self.pages(2, &[0], high),
            6 => self.pages(8, &[0xff; 4096], high % 3),
            7 => self.go_on(MEMORY, Continues::End, &EOS),
            8 => {
                let payload = raw(steps, high);
                self.others += 1;
                self.full(100 + self.others, "timer", payload, payload.len());
            }
            9 => {
                let payload = raw(steps, high);
                let length = u16::try_from(payload.len()).expect("few bytes");
                let command = if high > 7 { 11 } else { 2 };
                self.bytes.extend(encoded(Item::Command { command, length }));
                self.bytes.extend(payload);
            }
            _ => {
                self.honest = false;
                self.mistake(step, high, steps);
            }
        }
    }

    fn mistake(&mut self, step: u8, high: usize, steps: &mut std::slice::Iter<'_, u8>) {
        match step {
            10 => self.bytes.extend(raw(steps, high)),
            11 => flip(&mut self.bytes, high, steps),
            12 => self.bytes.truncate(self.bytes.len().saturating_sub(high)),
            13 => self.go_on(MEMORY, Continues::Part, raw(steps, high)),
            14 => {
                let kind = if high & 1 > 0 { Continues::Part } else { Continues::End };
                let payload: &[u8] = match high >> 1 {
                    0 => b"\xff\xff\xff\xff\xef\x10\0\x06",
                    1 => &INIT_DATA_SENT,
                    2 => &[SETUP, END].concat(),
                    3 => &[&CONFIG[..], &config(), &END].concat(),
                    _ => raw(steps, high),
                };
                self.go_on(VFIO, kind, payload);
            }
            _ => self.full(99, "timer", raw(steps, 4), high),
        }
    }

    fn start(&mut self, id: u32, name: &str, payload: &[u8]) {
        let begun = &mut self.begun[usize::from(id == VFIO)];
        self.honest &= !std::mem::replace(begun, true);
        self.section(Self::begin(Begins::Start, id, name), id, payload);
    }

    fn go_on(&mut self, id: u32, kind: Continues, payload: &[u8]) {
        self.honest &= self.begun[usize::from(id == VFIO)];
        self.section(Item::Continue { kind, id }, id, payload);
    }

    fn full(&mut self, id: u32, name: &str, payload: &[u8], described: usize) {
        let instance = if name == DEVICE { 0 } else { id };
        self.described
            .push(format!("{{\"name\":\"{name}\",\"instance_id\":{instance},\"size\":{described}}}"));
        let item = Item::Begin { kind: Begins::Full, id, name: name.as_bytes(), instance, version: 1 };
        self.section(item, id, payload);
    }

    /// Pages of one kind at the beginning of the only block, the first with its name.
    fn pages(&mut self, kind: u64, page: &[u8], more: usize) {
        self.honest &= self.listed;
        let mut payload = [&kind.to_be_bytes()[..], b"\x06pc.ram", page].concat();
        for number in 1..=more as u64 {
            payload.extend((number << 12 | kind | 0x20).to_be_bytes());
            payload.extend(page);
        }
        self.go_on(MEMORY, Continues::Part, &[&payload[..], &EOS].concat());
    }

    const fn begin(kind: Begins, id: u32, name: &str) -> Item<'_> {
        let version = if id == MEMORY { 4 } else { 1 };
        Item::Begin { kind, id, name: name.as_bytes(), instance: 0, version }
    }

    fn section(&mut self, item: Item<'_>, id: u32, payload: &[u8]) {
        self.bytes.extend([&encoded(item)[..], payload, &section::footer(id)].concat());
    }
}

/// The body of the CONFIG record of a simulated [`FUNCTION`].
///
/// # Panics
/// When it has none.
#[must_use]
pub fn config() -> Vec<u8> {
    let function = FUNCTION.parse().expect("a device");
    Assigned::new(Sim::new(function)).config().expect("a PCI function")
}

/// DATA with these bytes, unless there are none, and END_OF_STATE.
fn records(bytes: &[u8]) -> Vec<u8> {
    if bytes.is_empty() { END.to_vec() } else { [&data(bytes)[..], &END].concat() }
}

const MEMORY: u32 = 2;
const VFIO: u32 = 38;

/// The size of the only block of memory, in bytes.
const BLOCK: u64 = 1 << 20;
/// The end of a section of memory.
const EOS: [u8; 8] = *b"\0\0\0\0\0\0\0\x10";
