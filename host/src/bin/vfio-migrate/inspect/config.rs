//! What a PCI device's CONFIG record says, for people and programs.
//!
//! Deliberately absent: names of vendors and devices. Lists of them are long, and out of date.

use std::fmt::Write as _;

use serde::Serialize;
use vfio_migration_core::stream::pci_config::find::{Finder, Found, Progress};
use vfio_migration_core::stream::pci_config::msi::Msix;
use vfio_migration_core::stream::pci_config::space::Space;
use vfio_migration_core::stream::pci_config::{BODY_MAX, Body};
use vfio_migration_core::stream::record::WORD;

/// The longest CONFIG record that can be decoded, with its tag.
pub(super) const RECORD_MAX: usize = WORD + BODY_MAX;

/// A decoded CONFIG record.
#[derive(Serialize)]
pub(super) struct PciConfig {
    vendor: String,
    device: String,
    class: String,
    revision: u8,
    subsystem: Option<String>,
    config_space: usize,
    command: String,
    bars: Vec<Bar>,
    capabilities: Vec<String>,
    /// The pins that the device holds, of INTA to INTD.
    held: Vec<&'static str>,
    msi: Option<Msi>,
    msix: Option<MsixTable>,
    display: Option<Display>,
}

#[derive(Serialize)]
struct Bar {
    index: u8,
    kind: String,
    base: String,
}

#[derive(Serialize)]
struct Msi {
    enabled: bool,
    vectors: u8,
    pending: Vec<u16>,
}

#[derive(Serialize)]
struct MsixTable {
    enabled: bool,
    masked: bool,
    vectors: Vec<Vector>,
}

/// An entry of the table. Where its message goes is the guest's, and no secret.
#[derive(Serialize)]
struct Vector {
    index: u16,
    address: String,
    data: u32,
    masked: bool,
    pending: bool,
}

#[derive(Serialize)]
struct Display {
    width: u32,
    height: u32,
    stride: u32,
    address: String,
}

impl PciConfig {
    /// Decodes the body of a CONFIG record with the END_OF_STATE behind it; nothing where it is not a PCI device's.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let length = bytes.len().checked_sub(WORD)?;
        let (body, _) = Body::decode(found(bytes, length)?.layout, bytes).ok()?;
        Some(Self::new(&body))
    }

    fn new(body: &Body<'_>) -> Self {
        let space = Space::new(body.space);
        let bars = space.bars().map(|bar| {
            let (kind, base) = (bar.kind.to_string(), format!("{:#x}", bar.base));
            Bar { index: bar.index, kind, base }
        });
        let lists = space.capabilities().chain(space.extended_capabilities());
        let capabilities = lists.map(|found| match found {
            Ok(capability) => capability.to_string(),
            Err(broken) => format!("broken: {broken}"),
        });
        let pins = ["INTA", "INTB", "INTC", "INTD"].into_iter().zip(body.interrupts);
        let display = body.display.map(|display| Display {
            width: display.width,
            height: display.height,
            stride: display.stride,
            address: format!("{:#x}", display.address),
        });
        Self {
            vendor: format!("{:04x}", space.vendor()),
            device: format!("{:04x}", space.device()),
            class: space.class().to_string(),
            revision: space.revision(),
            subsystem: space.subsystem().map(|subsystem| subsystem.to_string()),
            config_space: body.space.len(),
            command: space.command().to_string(),
            bars: bars.collect(),
            capabilities: capabilities.collect(),
            held: pins.filter(|(_, held)| *held).map(|(pin, _)| pin).collect(),
            msi: space.msi().map(|msi| {
                let pending = msi.pending.unwrap_or_default();
                let pending = (0..32).filter(|bit| pending >> bit & 1 == 1).collect();
                Msi { enabled: msi.enabled, vectors: msi.vectors, pending }
            }),
            msix: space.msix().map(|msix| MsixTable::new(msix, body)),
            display,
        }
    }

    /// The record in a few lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self { vendor, device, class, revision, config_space, command, .. } = self;
        let subsystem = self.subsystem.as_ref().map(|id| format!(", subsystem {id}")).unwrap_or_default();
        let mut lines = vec![
            format!("device {vendor}:{device}{subsystem}, {class}, revision {revision:02x}"),
            format!("{config_space} bytes of configuration space; command {command}"),
        ];
        lines.extend(self.bars.iter().map(|bar| format!("BAR {} {} at {}", bar.index, bar.kind, bar.base)));
        if !self.capabilities.is_empty() {
            lines.push(format!("capabilities {}", self.capabilities.join(", ")));
        }
        if !self.held.is_empty() {
            lines.push(format!("holds {}", self.held.join(", ")));
        }
        lines.extend(self.msi.as_ref().map(Msi::line));
        lines.extend(self.msix.as_ref().map(MsixTable::line));
        if let Some(Display { width, height, address, .. }) = &self.display {
            lines.push(format!("display of {width} x {height} pixels at {address}"));
        }
        lines
    }
}

impl Msi {
    fn line(&self) -> String {
        format!("MSI {}, {} vectors{}", on(self.enabled), self.vectors, list(" pending", &self.pending))
    }
}

impl MsixTable {
    fn new(msix: Msix, body: &Body<'_>) -> Self {
        let vectors = body.vectors().map(|vector| Vector {
            index: vector.index,
            address: format!("{:#x}", vector.address),
            data: vector.data,
            masked: vector.masked,
            pending: vector.pending,
        });
        Self { enabled: msix.enabled, masked: msix.masked, vectors: vectors.collect() }
    }

    fn line(&self) -> String {
        let with = |is: fn(&Vector) -> bool| -> Vec<u16> {
            self.vectors.iter().filter(|vector| is(vector)).map(|vector| vector.index).collect()
        };
        let in_use = with(|vector| !vector.masked);
        let mut line = format!("MSI-X {}, {} vectors", on(self.enabled), self.vectors.len());
        line.push_str(if self.masked { ", all masked" } else { "" });
        line.push_str(&list(" unmasked", &in_use));
        line.push_str(&list(" pending", &with(|vector| vector.pending)));
        line
    }
}

/// The body that `bytes` are, of the two that may fit the one with this length.
fn found(bytes: &[u8], length: usize) -> Option<Found> {
    let mut finder = Finder::new();
    finder.take(bytes);
    finder.end();
    match finder.progress().ok()? {
        Progress::Found(found) => Some(found),
        Progress::Ambiguous(both) => both.into_iter().find(|found| found.length == length),
        Progress::Empty | Progress::Wanted(_) | Progress::Beyond { .. } => None,
    }
}

const fn on(enabled: bool) -> &'static str {
    if enabled { "on" } else { "off" }
}

/// Numbers with a comma before them and what they are behind them, ranges short; nothing for none.
fn list(what: &str, numbers: &[u16]) -> String {
    let mut text = String::new();
    let mut rest = numbers;
    while let [first, ..] = rest {
        let run =
            rest.iter().zip(u32::from(*first)..).take_while(|(got, next)| u32::from(**got) == *next).count();
        let last = rest[run - 1];
        let _ = if run > 1 { write!(text, ", {first}-{last}") } else { write!(text, ", {first}") };
        rest = &rest[run..];
    }
    if text.is_empty() { text } else { text + what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_a_row_are_a_range() {
        assert_eq!(list(" pending", &[]), "");
        assert_eq!(list(" pending", &[0]), ", 0 pending");
        assert_eq!(list(" pending", &[0, 1, 2, 5, 7, 8]), ", 0-2, 5, 7-8 pending");
        assert_eq!(list("", &[u16::MAX]), ", 65535");
    }
}
