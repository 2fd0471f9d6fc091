//! How much memory the sessions take beside their caller's buffers: each static has the size of a type. The
//! last is larger than its aim: the check must refuse it.
//!
//! Deliberately absent: code. The sizes are read off the symbols, for each machine its own.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use size as _;
use vfio_migration_core::session::{Destination, Fleet, Source};
use vfio_migration_core::stream::multifd::{Channel, Receiver, Sender, Slot};

macro_rules! sizes {
    ($($name:ident: $type:ty,)*) => {
        $(
            /// As large as the type.
            #[unsafe(no_mangle)]
            #[used]
            static $name: Room<$type> = Room(MaybeUninit::uninit());
        )*
    };
}

struct Room<T>(#[allow(dead_code)] MaybeUninit<T>);

// SAFETY: nobody looks into it.
unsafe impl<T> Sync for Room<T> {}

sizes! {
    size_source: Source<'static>,
    size_destination: Destination<'static>,
    size_fleet_1: Fleet<'static, 1>,
    size_fleet_8: Fleet<'static, 8>,
    size_receiver: Receiver<'static>,
    size_sender: Sender<'static>,
    size_slot: Slot,
    size_channel: Channel,
    control_source: [Source<'static>; 2],
}

/// Where the linker begins.
#[unsafe(no_mangle)]
pub fn _start() {}
