//! The whole of [`Destination`] as lists of events: the good paths, and what it touches.
//!
//! Deliberately absent: failures and misuse, which are in `destination_failures.rs` and `destination_misuse.rs`, and
//! damaged bytes, which are in `records.rs`.

use vfio_migration_core::device::State;
use vfio_migration_core::session::{
    BUFFER_MIN, Destination, DestinationDone, DestinationEffect, DestinationPhase, drive,
};
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_tests::model::{Faults, ModelDevice, ModelLink, Sizes, nobody};
use vfio_migration_tests::payload::{CONFIG, DATA, END, INIT_DATA_SENT, SETUP, content, data};
use vfio_migration_tests::script::{
    ALL, Ends, STOPPED, TO_DATA, TO_RESUMING, order_destination, play_destination,
};

/// Plays a script with a destination in RUNNING and a buffer of 64 bytes; returns what is written into the device.
fn play(link: &[u8], script: &[&str]) -> Vec<u8> {
    let mut ends = Ends::new(link);
    let mut buffer = [0xa5; 64];
    let mut destination = Destination::new(ALL, State::Running, true, &mut buffer).unwrap();
    play_destination(&mut destination, &mut ends, script);
    assert_eq!(ends.taken, link.len(), "the whole link is taken");
    ends.output
}

#[test]
fn a_device_takes_three_sections_and_runs() {
    let content: Vec<u8> = (0..100).collect();
    let link = [&SETUP[..], &END, &data(&content), &data(b"more"), &END, &CONFIG, b"configuration", &END];
    let script = [
        "idle Ready(Running)",
        "> resume",
        "set RESUMING: ok",
        "idle Resuming",
        "> section",
        "receive 8: 8",
        "receive 8: 8",
        "idle Section(EndOfState)",
        "> section",
        "receive 8: 8",
        "receive 8: 8",
        "receive 64: 64",
        "write data 64: 64",
        "receive 36: 36",
        "write data 36: 36",
        "receive 8: 8",
        "receive 8: 8",
        "receive 4: 4",
        "write data 4: 4",
        "receive 8: 8",
        "idle Section(EndOfState)",
        "> section",
        "receive 8: 8",
        "receive configuration: 13",
        "receive 8: 8",
        "idle Section(EndOfState)",
        "> stop",
        "set STOP: ok",
        "idle Stopped",
        "> run",
        "set RUNNING: ok",
        "idle Running",
    ];
    assert_eq!(play(&link.concat(), &script), [&content[..], b"more"].concat());
}

#[test]
fn a_device_without_any_section_stops_and_runs() {
    let script = [TO_RESUMING, STOPPED, &["> run", "set RUNNING: ok"]];
    assert_eq!(play(&[], &script.concat()), Vec::<u8>::new());
}

#[test]
fn a_device_runs_without_p2p_dma_of_its_own_before_it_runs() {
    let script = [
        TO_RESUMING,
        STOPPED,
        &["> run_p2p", "set RUNNING_P2P: not yet", "set RUNNING_P2P: ok", "idle RunningP2p"],
        &["> run", "set RUNNING: ok", "idle Running"],
    ];
    assert_eq!(play(&[], &script.concat()), Vec::<u8>::new());
}

#[test]
fn a_stopped_device_is_resumed_too() {
    let mut buffer = [0xa5; 64];
    let mut destination = Destination::new(ALL, State::Stop, false, &mut buffer).unwrap();
    let script = [&["idle Ready(Stop)"], TO_RESUMING, STOPPED, &["idle Stopped"]];
    play_destination(&mut destination, &mut Ends::default(), &script.concat());
}

#[test]
fn few_bytes_from_the_link_and_few_into_the_device_are_gone_on_with() {
    let link = [&SETUP[..], &END, &data(b"0123456789"), &END, &CONFIG, b"c", &END];
    let script = [
        "> resume",
        "set RESUMING: not yet",
        "set RESUMING: ok",
        "> section",
        "receive 8: 1",
        "receive 7: 6",
        "receive 1: 1",
        "receive 8: 8",
        "> section",
        "receive 8: 7",
        "receive 1: 1",
        "receive 8: 5",
        "receive 3: not yet",
        "receive 3: 3",
        "receive 10: 1",
        "write data 1: 1",
        "receive 9: 8",
        "write data 8: 3",
        "write data 5: not yet",
        "write data 5: 1",
        "write data 4: 4",
        "receive 1: 1",
        "write data 1: 1",
        "receive 8: 4",
        "receive 4: 4",
        "idle Section(EndOfState)",
        "> section",
        "receive 8: 8",
        "receive configuration: not yet",
        "receive configuration: 1",
        "receive 8: 2",
        "receive 6: 6",
        "idle Section(EndOfState)",
    ];
    assert_eq!(play(&link.concat(), &script), b"0123456789");
}

#[test]
fn empty_data_and_an_empty_configuration_are_taken() {
    let link = [&data(b"")[..], &data(b""), &END, &CONFIG, &END];
    let words = ["receive 8: 8"; 4];
    let script = [
        TO_RESUMING,
        &["> section"],
        &words,
        &["receive 8: 8", "idle Section(EndOfState)"],
        &[
            "> section",
            "receive 8: 8",
            "receive configuration: 0",
            "receive 8: 8",
            "idle Section(EndOfState)",
        ],
    ];
    assert_eq!(play(&link.concat(), &script.concat()), Vec::<u8>::new());
}

#[test]
fn initial_data_sent_ends_a_section_more_than_once_where_it_was_agreed_on() {
    let link = [&data(b"initial")[..], &INIT_DATA_SENT, &INIT_DATA_SENT, &END];
    let script = [
        "> resume",
        "set RESUMING: ok",
        "> section",
        "receive 8: 8",
        "receive 8: 8",
        "receive 7: 7",
        "write data 7: 7",
        "receive 8: 8",
        "idle Section(InitDataSent)",
        "> section",
        "receive 8: 8",
        "idle Section(InitDataSent)",
        "> section",
        "receive 8: 8",
        "idle Section(EndOfState)",
    ];
    assert_eq!(play(&link.concat(), &script), b"initial");
}

/// The payload of an END section with `content` in records of `piece` bytes.
fn payload(content: &[u8], piece: usize) -> Vec<u8> {
    content.chunks(piece).map(data).chain([END.to_vec()]).flatten().collect()
}

/// Takes one payload into a device through `buffer`; the link fails the test when it is asked for a byte past it.
fn take(payload: &[u8], buffer: &mut [u8], link_sizes: &[usize], device_sizes: &[usize]) -> Vec<u8> {
    let faults = Faults::default();
    let mut device = ModelDevice::new(State::Running, &[], &faults);
    device.sizes = Sizes::new(device_sizes);
    let mut link = ModelLink::new(payload, &faults);
    link.borders = vec![payload.len()];
    link.sizes = Sizes::new(link_sizes);
    let mut destination = Destination::new(ALL, State::Running, false, buffer).unwrap();
    let mut phase = DestinationPhase::Ready(State::Running);
    for order in ["resume", "section"] {
        order_destination(&mut destination, order).unwrap();
        phase = drive::destination(&mut destination, &mut device, &mut link, nobody).unwrap();
    }
    assert_eq!(phase, DestinationPhase::Section(Terminator::EndOfState));
    assert_eq!((link.taken, device.state), (payload.len(), State::Resuming));
    device.written
}

#[test]
fn records_of_every_size_come_through_the_smallest_buffer() {
    let content = content(300);
    for piece in 1..=300 {
        assert_eq!(take(&payload(&content, piece), &mut [0xa5; 64], &[], &[]), content, "{piece}");
    }
}

#[test]
fn buffers_of_every_length_take_the_same_data() {
    let content = content(5000);
    for length in (BUFFER_MIN..=320).chain((9..=20).map(|power| 1 << power)) {
        assert_eq!(take(&payload(&content, 1999), &mut vec![0xa5; length], &[], &[]), content, "{length}");
    }
}

#[test]
fn links_and_devices_that_take_every_size_carry_the_same_data() {
    let content = content(200);
    for size in 1..=65 {
        let through = take(&payload(&content, 150), &mut [0xa5; 64], &[size], &[3, 66 - size]);
        assert_eq!(through, content, "{size}");
    }
}

#[test]
fn no_byte_behind_the_longest_record_is_touched() {
    for length in 1..=200 {
        let mut buffer = [0xa5; 400];
        take(&payload(&vec![1; length], length), &mut buffer, &[], &[]);
        assert!(buffer[length.max(8)..].iter().all(|&byte| byte == 0xa5), "{length}");
    }
}

#[test]
fn what_is_lent_to_a_receive_is_as_the_caller_left_it_and_goes_to_the_device_unchanged() {
    let mut buffer = [0xa5; 256];
    let mut destination = Destination::new(ALL, State::Running, false, &mut buffer).unwrap();
    let script = [TO_RESUMING, TO_DATA].concat();
    play_destination(&mut destination, &mut Ends::new(&data(&[0; 100])[..16]), &script);
    let DestinationEffect::Recv(lent) = destination.poll() else { panic!("no receive") };
    assert_eq!(lent.len(), 100);
    assert!(lent[8..].iter().all(|&byte| byte == 0xa5), "behind the last word nothing is touched");
    lent[..3].copy_from_slice(b"abc");
    destination.complete(DestinationDone::Recv(Ok(3))).unwrap();
    assert_eq!(destination.poll(), DestinationEffect::WriteData(b"abc"));
}

#[test]
fn one_record_of_five_gibibytes_goes_through_a_buffer_of_one_gibibyte() {
    const GIB: u64 = 1 << 30;
    let mut buffer = vec![0; 1 << 30];
    let mut destination = Destination::new(ALL, State::Running, false, &mut buffer).unwrap();
    let script = [TO_RESUMING, TO_DATA].concat();
    let head = [DATA, (5 * GIB + 3).to_be_bytes()].concat();
    play_destination(&mut destination, &mut Ends::new(&head), &script);
    let mut received = 0;
    let mut written = 0;
    while written < 5 * GIB + 3 {
        let done = match destination.poll() {
            DestinationEffect::Recv(lent) => {
                assert_eq!(lent.len() as u64, GIB.min(5 * GIB + 3 - received));
                received += lent.len() as u64;
                DestinationDone::Recv(Ok(lent.len()))
            }
            DestinationEffect::WriteData(bytes) => {
                written += bytes.len() as u64;
                DestinationDone::WriteData(Ok(bytes.len()))
            }
            effect => panic!("{effect:?}"),
        };
        destination.complete(done).unwrap();
    }
    assert_eq!(received, written);
    let script = [
        "receive 8: 8",
        "idle Section(EndOfState)",
        "> section",
        "receive 8: 8",
        "receive 8: 8",
        "receive 1: 0",
        "reset: ok",
    ];
    play_destination(&mut destination, &mut Ends::new(&[&END, &data(b"x")[..16]].concat()), &script);
}
