//! The whole of [`Source`] as lists of events: the good paths, and what it touches.
//!
//! Deliberately absent: failures and misuse, which are in `source_failures.rs` and `source_misuse.rs`.

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive;
use vfio_migration_core::session::{BUFFER_MIN, DataRead, Source, SourceDone, SourceEffect, SourcePhase};
use vfio_migration_tests::model::{Faults, ModelDevice, ModelLink, Sizes, nobody};
use vfio_migration_tests::payload::{CONFIG, DATA, END, SETUP, content, data};
use vfio_migration_tests::script::{ALL, COPIED, Ends, FINISHED, TO_COPYING, order_source, play_source};

#[test]
fn a_running_device_is_saved_and_runs_on() {
    let content = content(100);
    let mut ends = Ends::new(&content);
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    play_source(
        &mut source,
        &mut ends,
        &[
            "idle Ready(Running)",
            "> setup",
            "send 16: 16",
            "idle SetUp",
            "> stop",
            "set STOP_COPY: ok",
            "idle Copying",
            "> copy_rest",
            "read data, room for 40: 40",
            "send 56: 56",
            "read data, room for 40: 40",
            "send 56: 56",
            "read data, room for 40: 20",
            "send 36: 36",
            "read data, room for 40: end",
            "send 8: 8",
            "idle Copied",
            "> config",
            "send 8: 8",
            "send configuration: ok",
            "send 8: 8",
            "idle Copied",
            "> finish",
            "set STOP: ok",
            "idle Stopped",
            "> run",
            "set RUNNING: ok",
            "idle Ready(Running)",
        ],
    );
    let wanted = [
        &SETUP[..],
        &END,
        &data(&content[..40]),
        &data(&content[40..80]),
        &data(&content[80..]),
        &END,
        &CONFIG,
        &END,
    ];
    assert_eq!(ends.output, wanted.concat());
}

#[test]
fn a_paused_machines_device_is_saved_and_stays_stopped() {
    let mut ends = Ends::new(b"state");
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Stop, false, &mut buffer).unwrap();
    play_source(
        &mut source,
        &mut ends,
        &[
            "idle Ready(Stop)",
            "> setup",
            "send 16: 16",
            "> stop",
            "set STOP_COPY: ok",
            "> copy_rest",
            "read data, room for 40: 5",
            "send 21: 21",
            "read data, room for 40: end",
            "send 8: 8",
            "> finish",
            "set STOP: ok",
            "idle Stopped",
        ],
    );
}

#[test]
fn a_device_that_runs_after_its_save_is_saved_again_and_came_from_running() {
    let mut ends = Ends::default();
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Stop, false, &mut buffer).unwrap();
    play_source(&mut source, &mut ends, TO_COPYING);
    play_source(&mut source, &mut ends, COPIED);
    play_source(&mut source, &mut ends, FINISHED);
    play_source(&mut source, &mut ends, &["> run", "set RUNNING: ok"]);
    play_source(&mut source, &mut ends, TO_COPYING);
    play_source(
        &mut source,
        &mut ends,
        &[
            "> copy_rest",
            "read data, room for 40: error 5",
            "set RUNNING to recover: ok",
            "failed: the device's data could not be read: error 5; the device is in RUNNING",
        ],
    );
}

#[test]
fn a_device_without_data_gives_an_end_of_state_alone() {
    for end in ["read data, room for 40: end", "read data, room for 40: 0"] {
        let mut ends = Ends::default();
        let mut buffer = [0xa5; 64];
        let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
        play_source(&mut source, &mut ends, TO_COPYING);
        play_source(&mut source, &mut ends, &["> copy_rest", end, "send 8: 8", "idle Copied"]);
        assert_eq!(ends.output, [SETUP, END, END].concat());
    }
}

#[test]
fn when_all_is_copied_each_further_copy_rest_gives_an_end_of_state_alone() {
    let mut ends = Ends::default();
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    play_source(&mut source, &mut ends, TO_COPYING);
    play_source(&mut source, &mut ends, COPIED);
    for _ in 0..3 {
        play_source(&mut source, &mut ends, &["> copy_rest", "send 8: 8", "idle Copied"]);
    }
    assert_eq!(ends.output, [SETUP, END, END, END, END, END].concat());
}

#[test]
fn a_link_that_takes_few_bytes_gets_the_rest_again() {
    let mut ends = Ends::new(b"0123456789");
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    play_source(
        &mut source,
        &mut ends,
        &[
            "> setup",
            "send 16: 7",
            "send 9: 1",
            "send 8: not yet",
            "send 8: 8",
            "> stop",
            "set STOP_COPY: not yet",
            "set STOP_COPY: ok",
            "> copy_rest",
            "read data, room for 40: 10",
            "send 26: 15",
            "send 11: 2",
            "send 9: 8",
            "send 1: 1",
            "read data, room for 40: not yet",
            "read data, room for 40: end",
            "send 8: 3",
            "send 5: 5",
            "> config",
            "send 8: 6",
            "send 2: 2",
            "send configuration: not yet",
            "send configuration: ok",
            "send 8: 7",
            "send 1: 1",
            "idle Copied",
        ],
    );
    let wanted = [&SETUP[..], &END, &data(b"0123456789"), &END, &CONFIG, &END];
    assert_eq!(ends.output, wanted.concat());
}

/// Saves a device with `content` through a buffer of `length` bytes whose reads take `sizes`.
fn save(content: &[u8], buffer: &mut [u8], sizes: &[usize]) -> Vec<u8> {
    let faults = Faults::default();
    let mut device = ModelDevice::new(State::Running, content, &faults);
    device.sizes = Sizes::new(sizes);
    let mut link = ModelLink::new(&[], &faults);
    let mut source = Source::new(ALL, State::Running, false, buffer).unwrap();
    for order in ["setup", "stop", "copy_rest", "finish"] {
        order_source(&mut source, order).unwrap();
        let phase = drive::source(&mut source, &mut device, &mut link, nobody).unwrap();
        assert!(!matches!(phase, SourcePhase::Failed(_)), "{phase:?}");
    }
    assert_eq!(device.state, State::Stop);
    link.bytes
}

/// What a save of `content` in pieces of `piece` bytes writes.
fn saved(content: &[u8], piece: usize) -> Vec<u8> {
    let records = content.chunks(piece).map(data);
    [SETUP, END].into_iter().map(Vec::from).chain(records).chain([END.to_vec()]).flatten().collect()
}

#[test]
fn a_read_of_every_size_is_one_record_of_that_size() {
    let content = content(83);
    for size in 1..=40 {
        assert_eq!(save(&content, &mut [0xa5; 64], &[size]), saved(&content, size), "reads of {size}");
    }
}

#[test]
fn a_buffer_of_every_length_is_read_into_but_for_24_bytes() {
    let content = content(5000);
    let lengths = (BUFFER_MIN..=320).chain((9..=20).map(|power| 1 << power)).chain([5015, 5016, 5024]);
    for length in lengths {
        let mut buffer = vec![0xa5; length];
        assert_eq!(save(&content, &mut buffer, &[]), saved(&content, length - 24), "{length} bytes");
    }
}

#[test]
fn no_byte_behind_the_longest_read_is_touched() {
    let content = content(500);
    for size in 1..=200 {
        let mut buffer = vec![0xa5; 400];
        save(&content, &mut buffer, &[size]);
        assert!(buffer[16 + size..].iter().all(|&byte| byte == 0xa5), "reads of {size}");
    }
}

#[test]
fn what_is_lent_to_a_read_is_as_the_caller_left_it() {
    let mut buffer = [0xa5; 256];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    play_source(&mut source, &mut Ends::default(), TO_COPYING);
    order_source(&mut source, "copy_rest").unwrap();
    let SourceEffect::ReadData(lent) = source.poll() else { panic!("no read") };
    assert!(lent.len() == 232 && lent.iter().all(|&byte| byte == 0xa5));
    lent[..3].copy_from_slice(b"abc");
    let SourceEffect::ReadData(lent) = source.poll() else { panic!("no read") };
    assert!(lent.starts_with(b"abc\xa5"), "what the caller wrote stays until it is completed");
    source.complete(SourceDone::ReadData(Ok(DataRead::Bytes(3)))).unwrap();
    assert_eq!(source.poll(), SourceEffect::Send(&data(b"abc")));
}

#[test]
fn five_gibibytes_go_through_a_buffer_of_one_gibibyte() {
    const GIB: usize = 1 << 30;
    const LENGTH: [u8; 8] = [0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xe8]; // 1 GiB less 24
    let mut buffer = vec![0; GIB];
    let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
    play_source(&mut source, &mut Ends::default(), TO_COPYING);
    order_source(&mut source, "copy_rest").unwrap();
    let mut reads = 0;
    let mut sent = 0_u64;
    loop {
        let done = match source.poll() {
            SourceEffect::ReadData(lent) if reads < 5 => {
                assert_eq!(lent.len(), GIB - 24);
                reads += 1;
                SourceDone::ReadData(Ok(DataRead::Bytes(lent.len())))
            }
            SourceEffect::ReadData(_) => SourceDone::ReadData(Ok(DataRead::End)),
            SourceEffect::Send(bytes) => {
                assert!(bytes == END || bytes.starts_with(&[DATA, LENGTH].concat()));
                sent += bytes.len() as u64;
                SourceDone::Send(Ok(bytes.len()))
            }
            effect => {
                assert_eq!(effect, SourceEffect::Idle(SourcePhase::Copied));
                break;
            }
        };
        source.complete(done).unwrap();
    }
    assert_eq!((reads, sent), (5, 5 * (GIB as u64 - 8) + 8));
}
