//! What carries two devices' stream breaks, at every byte: a link that takes or gives no more, a stream that was cut, a
//! byte that has changed, a peer that stops in the middle.
//!
//! Deliberately absent: one device alone, which `file.rs` has.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vfio_migration_core::device::State;
use vfio_migration_core::session::{Event, Left};
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::link::Link;
use vfio_migration_host::transfer::{self, Load, Refused, Save};
use vfio_migration_tests::payload;
use vfio_migration_tests::transfer::{Fleet, Log, Role, at, holding, must_end, quick, quiet};

fn sources(log: &Log) -> Fleet {
    Fleet::new("a", &["size=60,seed=1", "size=90,seed=2"], 64, log, 0)
}

fn destinations(log: &Log) -> Fleet {
    Fleet::new("b", &["size=60,seed=8", "size=90,seed=9"], 64, log, 0)
}

fn stream() -> Vec<u8> {
    sources(&Log::default()).save(&Save::default(), &quiet).unwrap().0
}

/// Loads `bytes`, which must be refused, and then a good stream into the same devices.
fn refused(bytes: &[u8], good: &[u8], what: &str) -> transfer::Error {
    let log = Log::default();
    let mut destinations = destinations(&log);
    let Err(error) = destinations.load(bytes, &Load::default()) else { panic!("{what}: loaded") };
    destinations.assert_as_told(&error, what);
    log.assert_lockstep(0..2, Role::Destination);
    assert_eq!(destinations.states(), [State::Running; 2], "{what}: {error}");
    destinations.load(good, &Load::default()).unwrap_or_else(|error| panic!("{what}: afterwards: {error}"));
    assert_eq!(destinations.contents(), sources(&log).contents(), "{what}");
    error
}

#[test]
fn a_stream_cut_at_any_byte_is_refused_and_both_devices_work_afterwards() {
    let good = stream();
    must_end("cut", move || {
        for length in 0..good.len() {
            let error = refused(&good[..length], &good, &format!("cut at {length}"));
            assert_eq!(error.reason.refused(), Refused::Stream, "cut at {length}: {error}");
            assert_eq!(at(&error), None, "cut at {length}: {error}");
            assert!(error.to_string().contains(&length.to_string()), "cut at {length}: {error}");
        }
    });
}

#[test]
fn a_stream_with_any_byte_changed_is_refused_and_both_devices_work_afterwards() {
    let good = stream();
    must_end("changed", move || {
        for place in 0..good.len() {
            let change = [1, 0x80, 0xff][place % 3];
            let mut bytes = good.clone();
            bytes[place] ^= change;
            refused(&bytes, &good, &format!("byte {place} ^ {change:#x}"));
        }
    });
}

#[test]
fn sections_in_another_order_or_of_the_wrong_device_are_refused() {
    let good = stream();
    // The first START's name, its id in its header and footer, the first PART's id, and the first END.
    let find = |bytes: &[u8]| good.windows(bytes.len()).position(|window| window == bytes).unwrap();
    let changes: [(&str, usize, u8); 3] = [
        ("both STARTs with one id", find(b"\x01\0\0\0\x02") + 4, 1),
        ("a PART of a device that is not there", find(b"\x02\0\0\0\x01") + 4, 9),
        ("an END before its PARTs", find(b"\x02\0\0\0\x01"), 3),
    ];
    for (what, place, byte) in changes {
        let mut bytes = good.clone();
        bytes[place] = byte;
        let footer = place + bytes[place..].iter().position(|byte| *byte == 0x7e).unwrap();
        if what.contains("id") {
            bytes[footer + 4] = byte;
        }
        assert_eq!(refused(&bytes, &good, what).reason.refused(), Refused::Stream, "{what}");
    }
}

#[test]
fn a_link_that_takes_no_more_at_any_byte_brings_both_devices_back_with_their_content() {
    let whole = stream().len();
    must_end("full", move || {
        for length in 0..whole {
            let file = memfd_create("full", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
            rustix::fs::ftruncate(&file, length as u64).unwrap();
            fcntl_add_seals(&file, SealFlags::GROW).unwrap();
            let log = Log::default();
            let mut sources = sources(&log);
            let link = Link::new(file, None);
            let kept = || panic!("a stream that is not whole is not kept");
            let error = transfer::save(sources.members(), link, &Save::default(), kept, &quiet).unwrap_err();
            let what = format!("room for {length}");
            sources.assert_as_told(&error, &what);
            log.assert_lockstep(0..2, Role::Source);
            assert_eq!(error.reason.refused(), Refused::Io, "{what}: {error}");
            assert!(
                error.devices.iter().all(|(_, left)| *left == Left::At(State::Running)),
                "{what}: {error}"
            );
        }
    });
}

#[test]
fn a_peer_that_goes_after_any_number_of_bytes_ends_a_save_with_all_devices_back() {
    // More is left than a socket holds.
    let configs = ["size=400KiB,seed=1", "size=300KiB,seed=2"];
    for (taken, pre_copy) in
        (0..5).map(|step| step * 47_001).flat_map(|taken| [(taken, false), (taken, true)])
    {
        let what = format!("{taken} taken, pre-copy {pre_copy}");
        must_end(&what.clone(), move || {
            let log = Log::default();
            let mut sources = Fleet::new("a", &configs, 4096, &log, 0);
            let (near, mut far) = UnixStream::pair().unwrap();
            let peer = thread::spawn(move || far.read_exact(&mut vec![0; taken]).unwrap());
            let plan = Save { pre_copy: pre_copy.then(quick), ..Save::default() };
            let saved = transfer::save(sources.members(), Link::new(near, None), &plan, || Ok(()), &quiet);
            peer.join().unwrap();
            let Err(error) = saved else { panic!("{what}: saved") };
            sources.assert_as_told(&error, &what);
            log.assert_lockstep(0..2, Role::Source);
            assert_eq!(error.reason.refused(), Refused::Io, "{what}: {error}");
            assert_eq!(sources.states(), [State::Running; 2], "{what}: {error}");
        });
    }
}

/// Loads two devices from a socket, on which `peer` gets the other end, and a word when the load has ended.
fn load_from(
    destinations: &'static [&str],
    peer: impl FnOnce(UnixStream, std::sync::mpsc::Receiver<()>) + Send + 'static,
) -> transfer::Error {
    let (near, far) = UnixStream::pair().unwrap();
    let (ended, end) = channel();
    let peer = thread::spawn(move || peer(far, end));
    let log = Log::default();
    let mut destinations = Fleet::new("b", destinations, 64, &log, 0);
    let link = Link::new(near, None);
    let error = transfer::load(destinations.members(), link, &Load::default(), &quiet).unwrap_err();
    let _ = ended.send(());
    destinations.assert_as_told(&error, "load");
    peer.join().unwrap();
    error
}

#[test]
fn a_device_that_refuses_its_data_ends_the_load_though_the_peer_sends_no_more() {
    let good = stream();
    // The peer stops when each device has got its first PART, and waits for what becomes of it.
    let behind = |id: u8| {
        let part = good.windows(5).position(|window| window == [2, 0, 0, 0, id]).unwrap();
        part + good[part..].windows(5).position(|window| window == [0x7e, 0, 0, 0, id]).unwrap() + 5
    };
    let stop = behind(1).max(behind(2));
    for destinations in [&["size=60", "size=90,fail=write:1"][..], &["size=60,fail=write:1", "size=90"]] {
        let good = good.clone();
        let (hung, error) = must_end("refused", move || {
            let (told, hung) = channel();
            let error = load_from(destinations, move |mut socket, ended| {
                socket.write_all(&good[..stop]).unwrap();
                // Only a load that waits for more makes this wait to its end.
                let _ = told.send(ended.recv_timeout(Duration::from_secs(2)).is_err());
            });
            (hung.recv().unwrap(), error)
        });
        assert_eq!(error.reason.refused(), Refused::ByDevice, "{error}");
        assert!(!hung, "the load waited for bytes that it had no use for: {error}");
    }
}

#[test]
fn a_link_that_fails_is_no_devices_fault() {
    must_end("full", || {
        let file = memfd_create("full", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        fcntl_add_seals(&file, SealFlags::GROW).unwrap();
        let mut sources = sources(&Log::default());
        let link = Link::new(file, None);
        let error = transfer::save(sources.members(), link, &Save::default(), || Ok(()), &quiet).unwrap_err();
        assert_eq!(at(&error), None, "{error}");
    });
}

#[test]
fn an_interrupt_ends_a_save_of_which_one_device_failed_and_another_waits_for_a_peer_that_takes_no_more() {
    must_end("save", || {
        let configs = ["size=8MiB,seed=1", "size=8MiB,seed=2,slow=20000,fail=read:1"];
        let mut sources = Fleet::new("a", &configs, 1 << 20, &Log::default(), 0);
        let (near, far) = UnixStream::pair().unwrap();
        let interrupt = Interrupt::new().unwrap();
        let watch = |event: &Event| {
            if let Event::ReadData { result: Err(_), .. } = event {
                interrupt.ask(2);
            }
        };
        let link = Link::new(near, Some(interrupt.clone()));
        let error = transfer::save(sources.members(), link, &Save::default(), || Ok(()), &watch).unwrap_err();
        sources.assert_as_told(&error, "save");
        drop(far);
    });
}

#[test]
fn a_peer_that_is_gone_in_the_middle_of_a_load_leaves_both_devices_reset() {
    let good = stream();
    for length in (0..good.len()).step_by(37) {
        let good = good.clone();
        let error = must_end("gone", move || {
            load_from(&["size=60", "size=90"], move |mut socket, _| {
                socket.write_all(&good[..length]).unwrap();
                socket.shutdown(Shutdown::Both).unwrap();
            })
        });
        assert_eq!(error.reason.refused(), Refused::Stream, "{length}: {error}");
    }
}

#[test]
fn an_interrupt_ends_a_load_of_two_devices_wherever_its_peer_stops() {
    let good = stream();
    for length in (0..good.len()).step_by(53) {
        let good = good.clone();
        must_end("interrupt", move || {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(&good[..length]).unwrap();
            let interrupt = Interrupt::new().unwrap();
            let log = Log::default();
            let mut destinations = destinations(&log);
            let asked = interrupt.clone();
            let asker = thread::spawn(move || asked.ask(2));
            let link = Link::new(near, Some(interrupt));
            let loaded = transfer::load(destinations.members(), link, &Load::default(), &quiet);
            asker.join().unwrap();
            let error = loaded.unwrap_err();
            destinations.assert_as_told(&error, "interrupted");
            assert!(error.reason.is_interrupt(), "{length}: {error}");
            drop(far);
        });
    }
}

#[test]
fn an_interrupt_at_any_event_of_a_save_brings_both_devices_back_or_comes_too_late() {
    for pre_copy in [false, true] {
        for nth in 1.. {
            let what = format!("interrupt at {nth}, pre-copy {pre_copy}");
            let events = must_end(&what.clone(), move || save_interrupted_at(nth, pre_copy, &what));
            if events < nth {
                break;
            }
        }
    }
}

/// Asks for an interrupt at the event `nth`; returns how many events there were.
fn save_interrupted_at(nth: usize, pre_copy: bool, what: &str) -> usize {
    let log = Log::default();
    let mut sources =
        Fleet::new("a", &["size=600,seed=1,initial=60", "size=900,seed=2,initial=60"], 64, &log, 0);
    let interrupt = Interrupt::new().unwrap();
    let events = AtomicUsize::new(0);
    let watch = |_: &Event| {
        if events.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            interrupt.ask(2);
        }
    };
    let file = holding(b"");
    let link = Link::new(file.as_fd(), Some(interrupt.clone()));
    let plan = Save { pre_copy: pre_copy.then(quick), interrupt: Some(interrupt.clone()), ..Save::default() };
    let mut kept = false;
    let keep = || {
        kept = true;
        Ok(())
    };
    let saved = transfer::save(sources.members(), link, &plan, keep, &watch);
    log.assert_lockstep(0..2, Role::Source);
    assert_eq!(sources.states(), [State::Running; 2], "{what}");
    if let Err(error) = saved {
        sources.assert_as_told(&error, what);
        assert!(error.reason.is_interrupt() && !kept, "{what}: {error}");
    }
    events.into_inner()
}

#[test]
fn records_without_bytes_are_not_gathered_without_end() {
    const MOST: usize = 4 << 20;
    let good = stream();
    let is_part = |window: &[u8]| matches!(window, [2, 0, 0, 0, 1 | 2]);
    let part = good.windows(5).position(is_part).unwrap() + 5;
    let (first, error) = must_end("empty", move || {
        let bytes = [&good[..part], &payload::data(b"").repeat(MOST / 16)].concat();
        let file = holding(&bytes);
        let same = file.try_clone().unwrap();
        let first = AtomicU64::new(u64::MAX);
        let watch = |event: &Event| {
            if let Event::Recv { .. } = event {
                first.fetch_min(rustix::fs::tell(&same).unwrap(), Ordering::Relaxed);
            }
        };
        let mut destinations = destinations(&Log::default());
        let link = Link::new(file, None);
        let error = transfer::load(destinations.members(), link, &Load::default(), &watch).unwrap_err();
        (first.into_inner(), error)
    });
    assert_eq!(error.reason.refused(), Refused::Stream, "{error}");
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    assert!(first < MOST, "no record had reached its session when {MOST} bytes of them were read");
}
