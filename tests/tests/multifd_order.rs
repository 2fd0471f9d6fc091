//! `stream::multifd::Receiver`: a device's pieces from channels in any order, and what a `Destination` makes of them.
//!
//! What is guaranteed, against rules that are written once more in [`reference`]: the pieces go on in the order of their
//! numbers, or the state is refused, the latter exactly when each channel's head lies beyond what can be kept.
//! Deliberately absent: the bytes of a head; they are in `multifd.rs`.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use vfio_migration_core::device::State;
use vfio_migration_core::session::{Cause, Destination, DestinationPhase, Failure, Left, drive};
use vfio_migration_core::stream::multifd::{
    Channel, Content, DATA_HEAD, Misuse, Piece, Receiver, Refused, Slot, Wanted,
};
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_tests::channels::{Line, Multifd, packets};
use vfio_migration_tests::golden::*;
use vfio_migration_tests::model::{ECONNRESET, EINVAL, Faults, ModelDevice, nobody};
use vfio_migration_tests::payload::{CONFIG, END, content, data};
use vfio_migration_tests::script::{ALL, order_destination};

/// The bytes of a slot in the tests with small pieces.
const SLOT: usize = 10;

/// A piece with what follows its head.
type Item = (Piece, Vec<u8>);

/// Data with its number; no two are alike.
fn item(index: u32, length: u32) -> Item {
    let bytes = (0..length).map(|at| u8::try_from((index * 17 + at) % 251).unwrap()).collect();
    (Piece { index, content: Content::Data, length }, bytes)
}

/// A configuration with a body of two bytes.
fn config(index: u32) -> Item {
    (Piece { index, content: Content::Config, length: 10 }, [b"cf", &END[..]].concat())
}

/// How channels are read: when one is idle, and how many bytes come at once.
#[derive(Clone, Debug, Default)]
struct Schedule {
    idle: Vec<bool>,
    counts: Vec<usize>,
    steps: usize,
}

impl Schedule {
    /// Whether the channel that is asked for is idle at first; it ends with being ready.
    fn idle(&mut self) -> bool {
        self.idle.pop().unwrap_or(false)
    }

    fn count(&mut self, offered: usize) -> usize {
        self.steps += 1;
        let count = self.counts.get(self.steps % self.counts.len().max(1));
        count.map_or(offered, |&count| count.clamp(1, offered))
    }
}

/// What becomes of `channels` with so many slots: the payload, and the refusal unless it is whole.
fn receive(channels: &[Vec<Item>], slots: usize, mut schedule: Schedule) -> (Vec<u8>, Result<(), Refused>) {
    let mut storage = vec![0xa5; slots * SLOT];
    let (mut slots, mut known) = (vec![Slot::default(); slots], vec![Channel::default(); channels.len()]);
    let mut receiver = Receiver::new(&mut storage, &mut slots, &mut known);
    let mut heads: Vec<VecDeque<Piece>> =
        channels.iter().map(|items| items.iter().map(|(piece, _)| *piece).collect()).collect();
    let mut bytes: Vec<VecDeque<u8>> =
        channels.iter().map(|items| items.iter().flat_map(|(_, bytes)| bytes.clone()).collect()).collect();
    let mut idle = vec![];
    let mut payload = vec![];
    let mut left = 100_000;
    loop {
        left -= 1;
        assert!(left > 0, "it goes on and on");
        let took = match receiver.poll() {
            Err(refused) => return (payload, Err(refused)),
            Ok(Wanted::Head { channel }) if schedule.idle() => {
                receiver.idle(channel).unwrap();
                idle.push(channel);
                continue;
            }
            Ok(Wanted::Head { channel }) => {
                match heads[channel].pop_front() {
                    Some(piece) => receiver.head(channel, piece).unwrap(),
                    None => receiver.closed(channel).unwrap(),
                }
                continue;
            }
            Ok(Wanted::Wait) => {
                receiver.ready(idle.pop().expect("a channel is idle")).unwrap();
                continue;
            }
            Ok(Wanted::Keep { channel, room }) => {
                let count = schedule.count(room.len());
                bytes[channel].drain(..count).zip(room).for_each(|(byte, place)| *place = byte);
                count
            }
            Ok(Wanted::Give(given)) => {
                let count = schedule.count(given.len());
                payload.extend_from_slice(&given[..count]);
                count
            }
            Ok(Wanted::Pass { channel, left }) => {
                let count = schedule.count(left);
                payload.extend(bytes[channel].drain(..count));
                count
            }
            Ok(Wanted::Nothing) => break,
        };
        receiver.took(took).unwrap();
    }
    for (channel, heads) in heads.iter_mut().enumerate() {
        let Some(piece) = heads.pop_front() else { continue };
        // A head that waits already has been looked at.
        let _: Result<(), Misuse> = receiver.head(channel, piece);
    }
    (payload, receiver.poll().map(|wanted| assert_eq!(wanted, Wanted::Nothing)))
}

/// The payload of these items in order.
fn payload<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<u8> {
    items
        .flat_map(|(piece, bytes)| match piece.content {
            Content::Data => data(bytes),
            Content::Config => [&CONFIG[..], bytes].concat(),
        })
        .collect()
}

/// The rules for pieces whose numbers are right: any head that is next or can be kept is taken, until all are there or
/// none can be.
fn reference(channels: &[Vec<Item>], slots: usize) -> (Vec<u8>, Result<(), Refused>) {
    let mut channels: Vec<VecDeque<&Item>> = channels.iter().map(|items| items.iter().collect()).collect();
    let mut all = BTreeMap::new();
    let mut next = 0;
    loop {
        while all.contains_key(&next) {
            next += 1;
        }
        let taken = channels.iter_mut().find_map(|items| {
            let (piece, _) = items.front()?;
            let near = piece.index - next <= u32::try_from(slots).unwrap();
            let fits = near && usize::try_from(piece.length).unwrap() <= SLOT;
            if piece.index == next || fits { items.pop_front() } else { None }
        });
        if let Some(item) = taken {
            all.insert(item.0.index, item);
            continue;
        }
        let payload = payload((0..next).map(|index| all[&index]));
        let heads = channels.iter().filter_map(|items| items.front()).map(|(piece, _)| piece);
        return match heads.min_by_key(|piece| piece.index) {
            None => (payload, Ok(())),
            Some(&Piece { index: nearest, length, .. }) => {
                let slot = if slots == 0 { 0 } else { SLOT };
                (payload, Err(Refused::Beyond { next, nearest, length, slots, slot }))
            }
        };
    }
}

/// Every order of `items`.
fn orders(items: &[Item]) -> Vec<Vec<Item>> {
    let [first, rest @ ..] = items else { return vec![vec![]] };
    let mut all = vec![];
    for order in orders(rest) {
        for at in 0..=order.len() {
            let mut order = order.clone();
            order.insert(at, first.clone());
            all.push(order);
        }
    }
    all
}

/// `items` on so many channels, each where the digit of `number` to the base `channels` says.
fn spread(items: &[Item], channels: usize, mut number: usize) -> Vec<Vec<Item>> {
    let mut spread = vec![vec![]; channels];
    for item in items {
        spread[number % channels].push(item.clone());
        number /= channels;
    }
    spread
}

#[test]
fn four_packets_and_the_configuration_in_every_order_on_every_channel_are_in_order_or_beyond() {
    let items = [item(0, 3), item(1, 10), item(2, 11), item(3, 0), config(4)];
    let (mut whole, mut refused) = (0, 0);
    for order in orders(&items) {
        for channels in 1..=3_usize {
            for number in 0..channels.pow(5) {
                let spread = spread(&order, channels, number);
                for slots in 0..=4 {
                    let outcome = receive(&spread, slots, Schedule::default());
                    assert_eq!(outcome, reference(&spread, slots), "{spread:?} in {slots} slots");
                    if outcome.1.is_ok() {
                        assert_eq!(outcome.0, payload(items.iter()));
                        whole += 1;
                    } else {
                        refused += 1;
                    }
                }
            }
        }
    }
    assert_eq!(whole + refused, 120 * (1 + 32 + 243) * 5);
    assert!(whole > 10_000 && refused > 10_000, "{whole} whole, {refused} refused");
}

/// So many items, the last of them the configuration, each on a channel and in any order or nearly in order.
fn spreads() -> impl Strategy<Value = Vec<Vec<Item>>> {
    let lengths = prop::collection::vec(prop_oneof![9 => 0..=10_u32, 1 => 11..15_u32], 0..20);
    let places = prop::collection::vec((0..1000_u32, 0..4_usize), 20);
    (lengths, places, 0..40_u32, 1..=4_usize).prop_map(|(lengths, places, jitter, channels)| {
        let indices = 0_u32..;
        let mut items: Vec<_> = indices.zip(&lengths).map(|(index, length)| item(index, *length)).collect();
        items.push(config(u32::try_from(lengths.len()).unwrap()));
        let mut items: Vec<_> = items.into_iter().zip(places).collect();
        items.sort_by_key(|((piece, _), (place, _))| piece.index * 8 + place % (jitter + 1));
        let mut spread = vec![vec![]; channels];
        for (item, (_, channel)) in items {
            spread[channel % channels].push(item);
        }
        spread
    })
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let idle = prop::collection::vec(any::<bool>(), 0..40);
    let counts = prop::collection::vec(1..6_usize, 0..5);
    (idle, counts).prop_map(|(idle, counts)| Schedule { idle, counts, steps: 0 })
}

/// What is done to pieces whose numbers are right.
#[derive(Clone, Debug)]
enum Damage {
    Twice,
    Missing,
    BeyondLast,
    SecondConfig,
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_on_any_channels_is_in_order_or_beyond(
        spread in spreads(),
        slots in 0..=8_usize,
        schedule in schedules(),
    ) {
        prop_assert_eq!(receive(&spread, slots, schedule), reference(&spread, slots));
    }

    #[test]
    fn a_state_with_one_wrong_piece_is_never_whole(
        spread in spreads(),
        slots in 0..=8_usize,
        schedule in schedules(),
        damage in prop::sample::select(vec![
            Damage::Twice, Damage::Missing, Damage::BeyondLast, Damage::SecondConfig,
        ]),
        which in any::<prop::sample::Index>(),
        channel in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> = spread.iter().flatten().cloned().collect();
        let last = u32::try_from(all.len()).unwrap() - 1;
        let (piece, bytes) = &all[which.index(all.len())];
        let mut spread = spread;
        let extra = match damage {
            Damage::Twice => Some((*piece, bytes.clone())),
            Damage::Missing => {
                spread.iter_mut().for_each(|items| items.retain(|(other, _)| other != piece));
                None
            }
            Damage::BeyondLast => Some(item(last + 1 + piece.index / 4, 1)),
            Damage::SecondConfig => Some(config(piece.index)),
        };
        if let Some(extra) = extra {
            let channel = channel.index(spread.len());
            let items = &mut spread[channel];
            let at = place.index(items.len() + 1);
            items.insert(at, extra);
        }
        prop_assert!(receive(&spread, slots, schedule).1.is_err());
    }
}

/// Gives these channels to a destination as one section; `config` is the length of the configuration's body. Returns
/// what the destination has to say, the device and the link.
fn load<'s>(
    lines: Vec<Line>,
    (storage, slots, channels): (&'s mut [u8], &'s mut [Slot], &'s mut [Channel]),
    config: usize,
) -> (DestinationPhase, ModelDevice, Multifd<'s>) {
    let mut device = ModelDevice::new(State::Running, &[], &Faults::default());
    let receiver = Receiver::new(storage, slots, channels);
    let mut link = Multifd { lines, receiver, config, refused: None };
    let mut buffer = [0xa5; 100];
    let mut destination = Destination::new(ALL, State::Running, false, &mut buffer).unwrap();
    let mut phase = DestinationPhase::Resuming;
    for order in ["resume", "section"] {
        order_destination(&mut destination, order).unwrap();
        phase = drive::destination(&mut destination, &mut device, &mut link, nobody).unwrap();
    }
    (phase, device, link)
}

const WHOLE: DestinationPhase = DestinationPhase::Section(Terminator::EndOfState);

#[test]
fn the_packets_of_qemu_go_into_the_device_as_one_section() {
    let mut channels = [Channel::default(); 2];
    let lines = vec![Line::new(MULTIFD_CHANNEL1_END), Line::new(MULTIFD_CHANNEL2_STATE)];
    let (phase, device, mut link) = load(lines, (&mut [], &mut [], &mut channels), CONFIG_BODY);
    assert_eq!((phase, device.state), (WHOLE, State::Resuming));
    assert_eq!(device.log, MULTIFD_CHANNEL2_STATE[DATA_HEAD..DATA_HEAD + 36]);
    assert_eq!(link.finish(), Ok(()));
    assert!(link.lines.iter().all(|line| line.taken == line.bytes.len()), "not a byte is left");
}

#[test]
fn the_packets_of_qemu_on_one_channel_in_the_wrong_order_want_a_slot_of_their_size() {
    let (config, state) = (&MULTIFD_CHANNEL1_END[..4420], &MULTIFD_CHANNEL2_STATE[..324]);
    for (size, whole) in [(4123, false), (4124, true)] {
        let (mut storage, mut slots, mut channels) =
            (vec![0xa5; size], [Slot::default()], [Channel::default()]);
        let lines = vec![Line::new(&[config, state].concat())];
        let (phase, device, link) = load(lines, (&mut storage, &mut slots, &mut channels), CONFIG_BODY);
        if whole {
            assert_eq!(phase, WHOLE);
            assert_eq!(device.log, MULTIFD_CHANNEL2_STATE[DATA_HEAD..DATA_HEAD + 36]);
        } else {
            let cause = Cause::Recv { offset: 0, code: EINVAL };
            assert_eq!(phase, DestinationPhase::Failed(Failure { cause, device: Left::Reset }));
            let beyond = Refused::Beyond { next: 0, nearest: 1, length: 4124, slots: 1, slot: 4123 };
            assert_eq!(link.refused, Some(beyond));
        }
    }
}

#[test]
fn what_a_sender_spreads_over_four_channels_goes_into_the_device_byte_for_byte() {
    let data: Vec<_> = content(50_000).chunks(777).map(<[u8]>::to_vec).collect();
    let packets = packets(b"nic/vfio", &data, b"the configuration");
    let (mut storage, mut slots, mut channels) =
        (vec![0xa5; 3 * 777], [Slot::default(); 3], [Channel::default(); 4]);
    let mut lines = vec![Line::default(); 4];
    for (number, packet) in packets.iter().enumerate() {
        // One channel has the packets of three, so that the others run ahead of it.
        lines[[0, 0, 1, 0, 2, 3][number % 6]].bytes.extend(packet);
    }
    let (phase, device, mut link) = load(lines, (&mut storage, &mut slots, &mut channels), 17);
    assert_eq!(phase, WHOLE);
    assert!(device.log == content(50_000));
    assert_eq!(link.finish(), Ok(()));
}

#[test]
fn a_configuration_of_another_length_is_not_a_whole_section() {
    for (config, wanted) in [(16, true), (18, false), (25, false), (26, false)] {
        let packets = packets(b"nic/vfio", &[b"data".to_vec()], b"the configuration");
        let mut channels = [Channel::default()];
        let lines = vec![Line::new(&packets.concat())];
        let (phase, _, link) = load(lines, (&mut [], &mut [], &mut channels), config);
        let DestinationPhase::Failed(Failure { cause, device: Left::Reset }) = phase else {
            panic!("{phase:?}")
        };
        match cause {
            Cause::Record(_) => assert!(wanted),
            Cause::RecvClosed { offset, missing } => {
                assert_eq!((offset, missing), (53, u64::try_from(config).unwrap() - 17));
            }
            Cause::RecvConfig { code: ECONNRESET, .. } => assert_eq!(config, 26),
            cause => panic!("{config}: {cause}"),
        }
        assert_eq!(link.refused, None);
    }
}

#[test]
fn what_stands_or_is_missing_behind_the_end_of_state_in_the_last_packet_is_seen() {
    let mut packets = packets(b"nic/vfio", &[], &[&b"conf"[..], &END, b"more"].concat()).concat();
    let mut channels = [Channel::default()];
    let (phase, _, mut link) = load(vec![Line::new(&packets)], (&mut [], &mut [], &mut channels), 4);
    assert_eq!(phase, WHOLE, "a destination ends with the terminator");
    assert_eq!(link.receiver.poll(), Ok(Wanted::Pass { channel: 0, left: 12 }), "but the payload does not");
    packets.truncate(packets.len() - 1);
    let mut channels = [Channel::default()];
    let (phase, _, mut link) = load(vec![Line::new(&packets)], (&mut [], &mut [], &mut channels), 4 + 8 + 4);
    let cause = Cause::Recv { offset: 8 + 16 + 7, code: EINVAL };
    assert_eq!(phase, DestinationPhase::Failed(Failure { cause, device: Left::Reset }));
    assert_eq!(link.receiver.poll(), Err(Refused::Cut { index: 0, missing: 1 }));
}

#[test]
fn channels_that_are_cut_anywhere_are_never_a_whole_section() {
    let data = [b"0123456789".to_vec(), b"abc".to_vec(), vec![7; 30]];
    let packets = packets(b"nic/vfio", &data, b"conf");
    let whole = [[&packets[1][..], &packets[3]].concat(), [&packets[0][..], &packets[2]].concat()];
    for (cut, length) in (0..2).flat_map(|cut| (0..whole[cut].len()).map(move |length| (cut, length))) {
        let mut lines = whole.each_ref().map(|bytes| Line::new(bytes)).to_vec();
        lines[cut].bytes.truncate(length);
        let (mut storage, mut slots, mut channels) =
            ([0xa5; 64], [Slot::default(); 2], [Channel::default(); 2]);
        let (phase, ..) = load(lines, (&mut storage, &mut slots, &mut channels), 4);
        let DestinationPhase::Failed(Failure { device: Left::Reset, .. }) = phase else {
            panic!("{cut} cut at {length}: {phase:?}")
        };
    }
}
