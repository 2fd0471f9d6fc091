//! A source under any number of failures, of the device, the link, the guest and the caller.
//!
//! The schedules of `vfio_migration_tests` try every failure, two and three of them; here are more at once, of devices
//! of any size. The same rule is held against it: what is done after each, what is reported, where the device is, and
//! that what was sent is the beginning of what a run without failures sends.
//!
//! Settings: flags, state and script; the device's sizes; its piece. Each failure is two bytes: how many operations
//! after the one before, and what. Deliberately absent: bytes of the other side; a source takes none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vfio_migration_core::device::State;
use vfio_migration_fuzz::chance::split;
use vfio_migration_fuzz::seeds;
use vfio_migration_tests::schedule::check::{Against, check};
use vfio_migration_tests::schedule::fault::{Fault, Kind};
use vfio_migration_tests::schedule::orders::{
    IN_CHUNKS, Order, PRE_COPY, QUIESCED, QUIESCED_PRE_COPY, REINIT, STOP_COPY, TOGETHER_PRE_COPY, TWICE,
};
use vfio_migration_tests::schedule::run::{Driver, run};
use vfio_migration_tests::schedule::setting::{Make, Setting};

fuzz_target!(init: seeds::write(seeds::source), |input: &[u8]| {
    let ([how, sizes, more, piece], _, bytes) = split(input);
    let (script, pre_copy, p2p) = SCRIPTS[usize::from(how >> 4) % SCRIPTS.len()];
    let flags = u64::from(how & 6 | 1) | if pre_copy { 4 } else { 0 } | if p2p { 2 } else { 0 };
    let state = if how & 8 > 0 && !pre_copy && !p2p { State::Stop } else { State::Running };
    let mut setting = Setting::source("fuzzed", flags, state, script);
    let size = |bits: u8| usize::from(bits & 7);
    setting.make = Make {
        initial: size(sizes),
        dirty: size(sizes >> 3),
        reinit: sizes & 64 > 0,
        enomsg: sizes & 128 > 0,
        // A device that has nothing to give is through before its script is.
        rest: 1 + size(more),
        // What goes byte by byte has more operations than a run may have.
        piece: if piece < 4 { usize::MAX } else { usize::from(piece) },
        ..setting.make
    };
    setting.ack = how & 1 > 0;
    setting.retreats = more & 128 > 0;
    play(&setting, &faults(bytes));
});

fn faults(bytes: &[u8]) -> Vec<Fault> {
    let mut number = 0;
    let pairs = bytes.chunks_exact(2).take(12);
    let fault = pairs.map(|pair| {
        number += usize::from(pair[0] & 63);
        Fault { number, kind: Kind::ALL[usize::from(pair[1]) % Kind::ALL.len()] }
    });
    // With one device the turn goes to nobody else.
    fault.filter(|fault| !matches!(fault.kind, Kind::Pause | Kind::Late)).collect()
}

fn play(setting: &Setting, faults: &[Fault]) {
    let drive = |faults: &[Fault]| run(setting, faults, Driver::Steps(None));
    let run = drive(faults);
    let met = run.record.met.clone();
    let harmless: Vec<_> = met.iter().copied().filter(|fault| fault.kind.is_harmless()).collect();
    let whole = drive(&harmless).sent;
    if let Err(wrong) = check(&[setting], &met, &run, &whole, Against::Both) {
        panic!("{}: {met:?}: {wrong}", setting.title());
    }
}

/// Scripts, and whether they need pre-copy and P2P.
const SCRIPTS: [(&[Order], bool, bool); 8] = [
    (STOP_COPY, false, false),
    (IN_CHUNKS, false, false),
    (TWICE, false, false),
    (PRE_COPY, true, false),
    (REINIT, true, false),
    (QUIESCED, false, true),
    (QUIESCED_PRE_COPY, true, true),
    (TOGETHER_PRE_COPY, true, true),
];
