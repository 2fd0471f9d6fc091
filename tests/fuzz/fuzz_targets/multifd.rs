//! A device's state by multifd channels that nobody made, put in order for a destination.
//!
//! - What the destination gets is the payload that the channels hold, piece by piece, whatever is idle or short.
//! - A state that is whole is refused only where its pieces lie further apart than what was lent can keep.
//! - Of the destination all holds that is said in [`receiving`](vfio_migration_fuzz::receiving).
//!
//! Settings: flags, state and form; slots and channels; the bytes of a slot; the state's length.
//! Deliberately absent: the bytes of heads; those are in the target `packet`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::device::State;
use vfio_migration_core::session::DestinationPhase;
use vfio_migration_core::stream::multifd::{Channel, Receiver, Refused, Slot};
use vfio_migration_fuzz::chance::{Chance, split};
use vfio_migration_fuzz::channels::{Channels, Made, as_they_are, made};
use vfio_migration_fuzz::receiving::{Order, Receiving};
use vfio_migration_fuzz::seeds;
use vfio_migration_tests::golden::CONFIG_BODY;
use vfio_migration_tests::schedule::setting::{self, Make};

fuzz_target!(init: seeds::write(seeds::multifd), |input: &[u8]| {
    let ([how, counts, slot, rest], chance, bytes) = split(input);
    let state = if how & 8 > 0 { State::Stop } else { State::Running };
    let make = Make { rest: rest.into(), ..Make::destination(u64::from(how & 6 | 1), state, how & 16 > 0) };
    let channels = usize::from(counts & 3) + 1;
    let made = match how & 1 {
        0 => Made { lines: as_they_are(bytes, channels), honest: None },
        _ => made(bytes, channels, make.rest, &setting::CONFIG_BODY),
    };
    let config = if how & 32 > 0 { CONFIG_BODY } else { setting::CONFIG_BODY.len() };
    play(make, made, usize::from(counts >> 2) % 9, slot.into(), config, &chance);
});

fn play(make: Make, made: Made, slots: usize, slot: usize, config: usize, chance: &Chance) {
    let mut storage = vec![0xa5; slots * slot];
    let mut slots = vec![Slot::default(); slots];
    let mut channels = vec![Channel::default(); made.lines.len()];
    let bytes = made.lines.iter().map(|line| line.bytes.len()).sum();
    let receiver = Receiver::new(&mut storage, &mut slots, &mut channels);
    let mut link = Channels::new(made.lines, receiver, config, chance);
    let mut buffer = [0xa5; 100];
    let mut receiving = Receiving::new(make, false, bytes, chance, &mut buffer);
    receiving.follow(Order::Resume, &mut link);
    let phase = receiving.follow(Order::Section, &mut link);
    if let Some(payload) = made.honest.filter(|_| config == setting::CONFIG_BODY.len()) {
        assert!(payload.starts_with(&link.given), "other bytes came than the channels hold");
        let is_section = matches!(phase, DestinationPhase::Section(_));
        assert!(!is_section || (link.given == payload && link.is_whole()), "{phase:?}");
        let beyond = matches!(link.refused, Some(Refused::Beyond { .. }));
        assert!(is_section || beyond || chance.count() > 0, "{phase:?}: {:?}", link.refused);
    }
    while let Some(order) = receiving.next_order(false) {
        receiving.follow(order, &mut link);
    }
    receiving.follow(Order::Cancel, &mut link);
}
