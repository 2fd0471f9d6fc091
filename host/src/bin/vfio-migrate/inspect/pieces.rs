//! Which pieces of each device's state the channels hold.
//!
//! Deliberately absent: their bytes. A piece that is there is whole, or its channel is damaged.

use std::collections::BTreeMap;

use serde::Serialize;
use vfio_migration_core::stream::multifd::Content;
use vfio_migration_host::file;
use vfio_migration_host::qemu::StatePacket;

/// The pieces of all devices, by name and instance.
#[derive(Default)]
pub(super) struct Pieces {
    devices: BTreeMap<(String, u32), Device>,
    /// A device behind the last that could be noted.
    left_out: bool,
}

/// What the channels hold of a device's state.
#[derive(Serialize)]
pub(super) struct OnChannels {
    pub(super) idstr: String,
    pub(super) instance: u32,
    pub(super) pieces: u64,
    pub(super) data_bytes: u64,
    /// Whether each piece is there once, up to the configuration, which is the last.
    pub(super) whole: bool,
}

#[derive(Default)]
struct Device {
    /// A bit for each piece that is there.
    seen: Vec<u64>,
    pieces: u64,
    data_bytes: u64,
    /// The number of the configuration.
    config: Option<u32>,
    /// What is wrong with a piece.
    wrong: Option<String>,
}

impl Pieces {
    /// Takes note of a piece.
    pub(super) fn take(&mut self, packet: &StatePacket) {
        let key = (packet.idstr.clone(), packet.instance);
        if self.devices.len() >= DEVICES_MAX && !self.devices.contains_key(&key) {
            self.left_out = true;
            return;
        }
        self.devices.entry(key).or_default().take(packet);
    }

    /// Checks that each device's state is whole.
    pub(super) fn check(&self) -> Result<(), file::Error> {
        let wrong = self.devices.iter().find_map(|((idstr, instance), device)| {
            let what = format!("each piece of the state of '{}', instance {instance}", idstr.escape_debug());
            device.wrong().map(|got| (what, got))
        });
        let left_out = || (format!("at most {DEVICES_MAX} devices"), "one more".to_owned());
        match wrong.or_else(|| self.left_out.then(left_out)) {
            None => Ok(()),
            Some((wanted, got)) => Err(file::Error::Channels { wanted, got }),
        }
    }

    /// The sums by device.
    pub(super) fn sums(&self) -> Vec<OnChannels> {
        let sums = self.devices.iter().map(|((idstr, instance), device)| OnChannels {
            idstr: idstr.clone(),
            instance: *instance,
            pieces: device.pieces,
            data_bytes: device.data_bytes,
            whole: device.wrong().is_none(),
        });
        sums.collect()
    }
}

impl Device {
    fn take(&mut self, packet: &StatePacket) {
        let (word, bit) = ((packet.index / 64) as usize, 1 << (packet.index % 64));
        if packet.index >= INDEX_MAX {
            self.wrong.get_or_insert(format!("number {}, too large to be noted", packet.index));
            return;
        }
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.wrong.get_or_insert(format!("number {} twice", packet.index));
        }
        self.seen[word] |= bit;
        self.pieces += 1;
        match packet.content {
            Content::Data => self.data_bytes += u64::from(packet.bytes),
            Content::Config => self.config = Some(packet.index),
        }
    }

    fn wrong(&self) -> Option<String> {
        if let Some(wrong) = &self.wrong {
            return Some(wrong.clone());
        }
        let Some(last) = self.config else { return Some("none with the configuration, the last one".into()) };
        let there = |index: &u32| {
            let word = self.seen.get((index / 64) as usize).copied().unwrap_or_default();
            word >> (index % 64) & 1 == 1
        };
        let missing = (0..last).find(|index| !there(index)).map(|index| format!("no number {index}"));
        let behind =
            || (self.pieces > u64::from(last) + 1).then(|| format!("more behind number {last}, the last"));
        missing.or_else(behind)
    }
}

/// The most devices that are told apart.
const DEVICES_MAX: usize = 4096;
/// The highest number that is noted and one more: a state of 16 TiB, and 2 MiB of memory for it.
const INDEX_MAX: u32 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(index: u32, content: Content) -> StatePacket {
        StatePacket {
            offset: 64,
            length: 298,
            idstr: "0000:00:02.0/vfio".into(),
            instance: 0,
            index,
            content,
            bytes: 10,
        }
    }

    fn says(data: &[u32], config: Option<u32>) -> String {
        let mut pieces = Pieces::default();
        data.iter().for_each(|index| pieces.take(&packet(*index, Content::Data)));
        config.iter().for_each(|index| pieces.take(&packet(*index, Content::Config)));
        pieces.check().map_or_else(|error| error.to_string(), |()| format!("{}", pieces.sums()[0].data_bytes))
    }

    #[test]
    fn pieces_in_any_order_are_whole_once_each_is_there_up_to_the_configuration() {
        assert_eq!(says(&[2, 0, 1], Some(3)), "30");
        assert_eq!(says(&(0..200).collect::<Vec<_>>(), Some(200)), "2000");
        for (data, config, got) in [
            (&[0, 1][..], None, "got none with the configuration, the last one"),
            (&[0, 2], Some(3), "got no number 1"),
            (&[0, 1, 1], Some(2), "got number 1 twice"),
            (&[0, 1, 5], Some(2), "got more behind number 2, the last"),
            (&[0, u32::MAX - 1], Some(1), "got number 4294967294, too large to be noted"),
        ] {
            let says = says(data, config);
            assert!(says.ends_with(got), "{says}");
        }
    }
}
