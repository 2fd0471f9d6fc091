//! A destination fed with payloads that nobody made, by a link, a device, a guest and a caller who do anything.
//!
//! What must hold is said in [`receiving`](vfio_migration_fuzz::receiving). Settings: flags and state, buffer, state's
//! length, piece; the last bit of the first says whether the payloads are composed, which gets far, or raw.
//!
//! Deliberately absent: sections around the payloads; those are in the target `file`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::device::State;
use vfio_migration_fuzz::chance::{Chance, split};
use vfio_migration_fuzz::link::Memory;
use vfio_migration_fuzz::receiving::{ORDERS, Order, Receiving};
use vfio_migration_fuzz::{compose, seeds};
use vfio_migration_tests::schedule::setting::{CONFIG_BODY, Make};

fuzz_target!(init: seeds::write(seeds::destination), |input: &[u8]| {
    let ([how, room, rest, piece], chance, bytes) = split(input);
    let state = if how & 8 > 0 { State::Stop } else { State::Running };
    let make = Make {
        rest: usize::from(rest),
        piece: if piece == 0 { usize::MAX } else { usize::from(piece) },
        ..Make::destination(u64::from(how & 6 | 1), state, how & 16 > 0)
    };
    let payloads = if how & 1 > 0 { compose::payloads(bytes, make.rest) } else { bytes.to_vec() };
    play(make, how & 32 > 0, usize::from(room), &chance, &payloads);
});

fn play(make: Make, agreed: bool, room: usize, chance: &Chance, payloads: &[u8]) {
    let mut buffer = vec![0xa5; 64 + room];
    let mut link = Memory::new(payloads).with(make.piece, CONFIG_BODY.len(), chance);
    let mut receiving = Receiving::new(make, agreed, payloads.len(), chance, &mut buffer);
    for _ in 0..ORDERS - 1 {
        let more = !link.left().is_empty();
        let order = receiving.any_order().or_else(|| receiving.next_order(more));
        let Some(order) = order else { break };
        receiving.follow(order, &mut link);
    }
    receiving.follow(Order::Cancel, &mut link);
}
