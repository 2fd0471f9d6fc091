//! `stream::multifd::Receiver`, step by step: what it asks for, what it refuses, and which answers it does not take.
//!
//! Deliberately absent: orders of packets without end; they are in `multifd_order.rs`.

use vfio_migration_core::stream::multifd::{
    Channel, Content, Misuse, Piece, Receiver, Refused, Slot, Wanted,
};
use vfio_migration_tests::payload::{CONFIG, DATA, END, data};

fn piece(index: u32, length: u32) -> Piece {
    Piece { index, content: Content::Data, length }
}

fn config(index: u32, length: u32) -> Piece {
    Piece { index, content: Content::Config, length }
}

/// Runs a test with a receiver of so many slots, of eight bytes each, and channels.
fn with(slots: usize, channels: usize, test: impl FnOnce(&mut Receiver<'_>)) {
    let mut storage = vec![0xa5; slots * 8];
    let (mut slots, mut channels) = (vec![Slot::default(); slots], vec![Channel::default(); channels]);
    test(&mut Receiver::new(&mut storage, &mut slots, &mut channels));
}

/// Lets everything go on that can without a channel's next head; bytes of a channel are zero.
fn drain(receiver: &mut Receiver<'_>) -> Vec<u8> {
    let mut payload = vec![];
    loop {
        let count = match receiver.poll() {
            Ok(Wanted::Keep { room, .. }) => {
                room.fill(0);
                room.len()
            }
            Ok(Wanted::Give(bytes)) => {
                payload.extend_from_slice(bytes);
                bytes.len()
            }
            Ok(Wanted::Pass { left, .. }) => {
                payload.resize(payload.len() + left, 0);
                left
            }
            Ok(Wanted::Head { .. } | Wanted::Wait | Wanted::Nothing) | Err(_) => return payload,
        };
        receiver.took(count).unwrap();
    }
}

#[test]
fn a_packet_that_is_early_is_kept_once_every_channel_has_a_head() {
    with(1, 2, |receiver| {
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 0 }));
        receiver.head(0, piece(1, 3)).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 1 }), "its turn may be next");
        receiver.closed(1).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Keep { channel: 0, room: &mut [0xa5; 3] }));
        let Ok(Wanted::Keep { room, .. }) = receiver.poll() else { panic!() };
        room[..2].copy_from_slice(b"ab");
        receiver.took(2).unwrap();
        let Ok(Wanted::Keep { channel: 0, room }) = receiver.poll() else { panic!() };
        assert_eq!(room, [0xa5]);
        room.copy_from_slice(b"c");
        receiver.took(1).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 0 }));
        receiver.head(0, piece(0, 9)).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Give(&[&DATA[..], &[0, 0, 0, 0, 0, 0, 0, 9]].concat())));
        receiver.took(15).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Give(&[9])));
        receiver.took(1).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Pass { channel: 0, left: 9 }), "larger than a slot");
        receiver.took(8).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Pass { channel: 0, left: 1 }));
        receiver.took(1).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Give(&[&DATA[..], &[0, 0, 0, 0, 0, 0, 0, 3]].concat())));
        receiver.took(16).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Give(b"abc")));
        receiver.took(3).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 0 }));
        receiver.head(0, config(2, 8)).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Give(&CONFIG)));
        receiver.took(8).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Pass { channel: 0, left: 8 }));
        receiver.took(8).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Nothing));
    });
}

#[test]
fn channels_in_order_need_no_slot_and_nothing_is_kept() {
    with(0, 2, |receiver| {
        receiver.head(0, piece(0, 900)).unwrap();
        receiver.head(1, piece(1, 1 << 20)).unwrap();
        assert_eq!(drain(receiver), [data(&[0; 900]), data(&[0; 1 << 20])].concat());
        receiver.head(0, config(2, 8)).unwrap();
        assert_eq!(drain(receiver).len(), 16);
        assert_eq!(receiver.poll(), Ok(Wanted::Nothing));
    });
}

#[test]
fn a_state_without_data_is_the_configuration_alone() {
    with(0, 1, |receiver| {
        receiver.head(0, config(0, 8)).unwrap();
        assert_eq!(drain(receiver), [&CONFIG[..], &[0; 8]].concat());
        assert_eq!((receiver.poll(), END.len()), (Ok(Wanted::Nothing), 8));
    });
}

/// The heads that channels have, in turn, and what becomes of it.
type Row<'a> = (&'a [(usize, Piece)], Refused);

#[test]
fn what_is_refused_is_refused_for_good_and_names_the_packet() {
    let beyond = |next, nearest, length| Refused::Beyond { next, nearest, length, slots: 2, slot: 8 };
    let table: [Row<'_>; 17] = [
        (&[(0, piece(0, 1)), (1, piece(0, 1))], Refused::Twice { index: 0 }),
        (&[(0, piece(2, 1)), (1, piece(2, 1))], Refused::Twice { index: 2 }),
        (&[(0, piece(0, 1)), (0, piece(1, 1)), (0, piece(0, 1))], Refused::Twice { index: 0 }),
        (&[(0, config(0, 8)), (0, config(0, 8))], Refused::Twice { index: 0 }),
        (&[(0, config(0, 8)), (0, piece(1, 1))], Refused::BeyondLast { last: 0, got: 1 }),
        (&[(0, config(0, 8)), (0, config(1, 8))], Refused::BeyondLast { last: 0, got: 1 }),
        (
            &[(0, config(0, 8)), (1, piece(u32::MAX - 1, 1))],
            Refused::BeyondLast { last: 0, got: u32::MAX - 1 },
        ),
        (&[(0, piece(2, 1)), (1, config(1, 8))], Refused::BeyondLast { last: 1, got: 2 }),
        (&[(0, config(1, 8)), (1, piece(2, 1))], Refused::BeyondLast { last: 1, got: 2 }),
        (&[(0, config(2, 8)), (1, config(1, 8))], Refused::BeyondLast { last: 1, got: 2 }),
        (&[(0, config(2, 8)), (1, config(2, 8))], Refused::Twice { index: 2 }),
        (&[(0, piece(3, 1)), (1, piece(4, 1))], beyond(0, 3, 1)),
        (&[(0, piece(1, 9)), (1, piece(9, 1))], beyond(0, 1, 9)),
        (&[(0, piece(0, 9)), (0, piece(2, 9)), (1, piece(4, 0))], beyond(1, 2, 9)),
        (&[(0, piece(1, 9)), (1, piece(u32::MAX - 1, 0))], beyond(0, 1, 9)),
        (&[(0, piece(u32::MAX - 1, u32::MAX)), (1, piece(7, 0))], beyond(0, 7, 0)),
        (&[(0, config(3, 8)), (1, piece(9, 1))], beyond(0, 3, 8)),
    ];
    for (heads, refused) in table {
        with(2, 2, |receiver| {
            for &(channel, piece) in heads {
                receiver.head(channel, piece).unwrap();
                drain(receiver);
            }
            assert_eq!(receiver.poll(), Err(refused), "{heads:?}");
            for channel in 0..2 {
                let _ = receiver.head(channel, piece(0, 1));
                let _ = receiver.closed(channel);
                assert_eq!(receiver.took(0), Err(Misuse::WrongDone));
                assert_eq!(receiver.poll(), Err(refused), "{heads:?}");
            }
        });
    }
}

#[test]
fn a_packet_that_no_channel_has_is_missing_once_all_have_ended() {
    with(2, 2, |receiver| {
        receiver.head(0, piece(0, 1)).unwrap();
        drain(receiver);
        receiver.closed(1).unwrap();
        receiver.head(0, piece(2, 1)).unwrap();
        drain(receiver);
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 0 }));
        receiver.closed(0).unwrap();
        assert_eq!(receiver.poll(), Err(Refused::Missing { next: 1 }));
    });
    with(2, 0, |receiver| assert_eq!(receiver.poll(), Err(Refused::Missing { next: 0 })));
}

#[test]
fn a_channel_that_ends_within_a_packet_is_refused_with_what_is_missing() {
    with(1, 1, |receiver| {
        receiver.head(0, piece(1, 4)).unwrap();
        receiver.took(1).unwrap();
        receiver.closed(0).unwrap();
        assert_eq!(receiver.poll(), Err(Refused::Cut { index: 1, missing: 3 }));
    });
    for gone in [0, 9, 16, 17] {
        with(0, 1, |receiver| {
            receiver.head(0, piece(0, 4)).unwrap();
            receiver.took(gone.min(16)).unwrap();
            receiver.took(gone.saturating_sub(16)).unwrap();
            receiver.closed(0).unwrap();
            let missing = 20 - gone.max(16);
            assert_eq!(receiver.poll(), Err(Refused::Cut { index: 0, missing }));
        });
    }
}

#[test]
fn an_idle_channel_is_waited_for_only_when_nothing_else_can_be_done() {
    with(1, 2, |receiver| {
        receiver.idle(0).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 1 }));
        receiver.head(1, piece(1, 4)).unwrap();
        assert!(matches!(receiver.poll(), Ok(Wanted::Keep { channel: 1, .. })));
        drain(receiver);
        receiver.head(1, piece(2, 4)).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Wait), "it is beyond, but a channel goes on");
        receiver.ready(0).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 0 }));
        receiver.idle(0).unwrap();
        receiver.head(0, piece(0, 4)).unwrap();
        assert_eq!(drain(receiver), data(&[0; 4]).repeat(3));
    });
    with(1, 2, |receiver| {
        receiver.idle(0).unwrap();
        receiver.head(1, piece(2, 4)).unwrap();
        assert_eq!(receiver.poll(), Ok(Wanted::Wait));
        receiver.closed(0).unwrap();
        let beyond = Refused::Beyond { next: 0, nearest: 2, length: 4, slots: 1, slot: 8 };
        assert_eq!(receiver.poll(), Err(beyond));
    });
}

#[test]
fn heads_may_come_while_bytes_go_on() {
    with(2, 3, |receiver| {
        receiver.head(1, piece(0, 4)).unwrap();
        receiver.head(0, piece(2, 4)).unwrap();
        receiver.took(3).unwrap();
        receiver.head(2, piece(1, 4)).unwrap();
        assert!(matches!(receiver.poll(), Ok(Wanted::Give(bytes)) if bytes.len() == 13));
        assert_eq!(drain(receiver).len(), 3 * 20 - 3, "nothing of it was kept");
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 0 }));
    });
}

#[test]
fn an_answer_that_does_not_fit_is_misuse_and_changes_nothing() {
    with(1, 2, |receiver| {
        let missing = Err(Misuse::NoChannel { wanted: 2, got: 2 });
        assert_eq!(receiver.head(2, piece(0, 1)), missing);
        assert_eq!((receiver.idle(2), receiver.ready(2), receiver.closed(2)), (missing, missing, missing));
        assert_eq!(receiver.took(0), Err(Misuse::WrongDone));
        assert_eq!(receiver.ready(0), Err(Misuse::WrongDone), "it was never idle");
        assert_eq!(receiver.poll(), Ok(Wanted::Head { channel: 0 }));
        receiver.head(0, piece(1, 4)).unwrap();
        let wrong = Err(Misuse::WrongDone);
        assert_eq!(receiver.head(0, piece(0, 1)), wrong);
        assert_eq!((receiver.idle(0), receiver.ready(0), receiver.closed(0)), (wrong, wrong, wrong));
        receiver.closed(1).unwrap();
        assert_eq!((receiver.idle(1), receiver.ready(1), receiver.closed(1)), (wrong, wrong, wrong));
        assert_eq!(receiver.head(1, piece(0, 1)), wrong);
        assert_eq!(receiver.took(5), Err(Misuse::TooMany { offered: 4, got: 5 }));
        receiver.took(3).unwrap();
        assert_eq!(receiver.took(2), Err(Misuse::TooMany { offered: 1, got: 2 }));
        assert_eq!(receiver.head(0, piece(0, 1)), wrong, "its packet is being kept");
        receiver.took(1).unwrap();
        receiver.head(0, piece(0, 4)).unwrap();
        assert_eq!(receiver.took(17), Err(Misuse::TooMany { offered: 16, got: 17 }));
        receiver.took(16).unwrap();
        assert_eq!(receiver.took(usize::MAX), Err(Misuse::TooMany { offered: 4, got: usize::MAX }));
        assert_eq!(receiver.poll(), Ok(Wanted::Pass { channel: 0, left: 4 }));
    });
}

#[test]
fn memory_that_was_used_before_is_as_good_as_new() {
    let (mut storage, mut slots, mut channels) = ([0xa5; 4], [Slot::default()], [Channel::default()]);
    for _ in 0..2 {
        let mut receiver = Receiver::new(&mut storage, &mut slots, &mut channels);
        receiver.head(0, piece(1, 4)).unwrap();
        receiver.took(4).unwrap();
        receiver.closed(0).unwrap();
        assert_eq!(receiver.poll(), Err(Refused::Missing { next: 0 }));
    }
}

/// Two devices on two channels. Each has a receiver, for which a channel is idle while the other's head is on it.
#[test]
fn two_devices_on_the_same_channels_have_a_receiver_each() {
    let lines = [
        vec![(0, piece(0, 1)), (1, piece(1, 2)), (1, config(2, 8)), (0, piece(2, 3))],
        vec![(0, piece(1, 2)), (1, piece(0, 1)), (0, config(3, 8))],
    ];
    let (mut one, mut other) = ([Channel::default(); 2], [Channel::default(); 2]);
    let mut receivers =
        [Receiver::new(&mut [], &mut [], &mut one), Receiver::new(&mut [], &mut [], &mut other)];
    let mut read = [0, 0];
    let mut payloads = [vec![], vec![]];
    for _ in 0..20 {
        for channel in 0..2 {
            let Some((device, piece)) = lines[channel].get(read[channel]) else { continue };
            // Taken if the channel's former packet is.
            if receivers[*device].head(channel, *piece).is_ok() {
                let _ = receivers[1 - device].idle(channel);
                read[channel] += 1;
            }
        }
        for (receiver, payload) in receivers.iter_mut().zip(&mut payloads) {
            payload.extend(drain(receiver));
        }
    }
    assert_eq!(read, [4, 3]);
    assert!(receivers.iter_mut().all(|receiver| receiver.poll() == Ok(Wanted::Nothing)));
    let config = [&CONFIG[..], &[0; 8]].concat();
    assert_eq!(payloads[0], [data(&[0]), data(&[0; 2]), data(&[0; 3]), config.clone()].concat());
    assert_eq!(payloads[1], [data(&[0]), data(&[0; 2]), config].concat());
}
