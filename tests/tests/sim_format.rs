//! The bytes of a simulated device's state where content comes in PRE_COPY: golden, cut at every length, and damaged.
//!
//! Deliberately absent: the plain state, which `sim.rs` has.

use vfio_migration_core::device::State;
use vfio_migration_host::sim::{DataFd, Errno, HEADER_LEN, Sim};
use vfio_migration_tests::sim::{mtty_like, read_up_to, write_all};

const NOTHING_NOW: Result<usize, Errno> = Err(Errno::NOMSG);

#[test]
fn the_bytes_of_a_state_in_records_are_these() {
    let mut sim = Sim::new("size=11,seed=0,initial=26,reinit=1".parse().unwrap());
    let data_fd = open(&mut sim, State::PreCopy);
    let mut state = read_up_to(&data_fd, 5, NOTHING_NOW);
    sim.write_content(1, b"guest").unwrap();
    for _ in ["a round", "the initial data anew"] {
        data_fd.precopy_info().unwrap();
        state.extend(read_up_to(&data_fd, 5, NOTHING_NOW));
    }
    sim.set_state(State::StopCopy.raw()).unwrap();
    state.extend(read_up_to(&data_fd, 5, Ok(0)));
    #[rustfmt::skip]
    let golden = [
        b'V', b'F', b'I', b'O', b'-', b'S', b'I', b'M', // magic
        2, 0, 0, 0, // version
        2, 0, 0, 0, // initial content
        11, 0, 0, 0, 0, 0, 0, 0, // size
        0xaf, 0xcd, // splitmix64 of seed 0: e220a8397b1dcdaf, then 6e789e6aa1b965f4

        1, 0, 0, 0, 0, 0, 0, 0, // offset
        5, 0, 0, 0, 0, 0, 0, 0, // length
        b'g', b'u', b'e', b's', b't',

        b'V', b'F', b'I', b'O', b'-', b'S', b'I', b'M', // the initial data anew
        2, 0, 0, 0,
        2, 0, 0, 0,
        11, 0, 0, 0, 0, 0, 0, 0,
        0xaf, b'g',

        6, 0, 0, 0, 0, 0, 0, 0, // what neither was initial nor has changed
        5, 0, 0, 0, 0, 0, 0, 0,
        0x20, 0xe2, 0xf4, 0x65, 0xb9,

        14, 0, 0, 0, 0, 0, 0, 0, // 2 + 5 + 2 + 5 bytes of content
        0, 0, 0, 0, 0, 0, 0, 0, // the end
    ];
    assert_eq!(state, golden);
    let (mut target, data_fd) = resuming();
    write_all(&data_fd, &golden);
    target.set_state(State::Stop.raw()).unwrap();
    assert_eq!(target.content(), sim.content());
}

#[test]
fn a_state_in_records_moves_in_pieces_of_any_size_into_any_device_of_its_size() {
    let state = in_records();
    for keys in ["", ",initial=30,dirty=2", ",flags=1"] {
        for piece in 1..=state.len() {
            let mut target = Sim::new(format!("size=11,seed=8{keys}").parse().unwrap());
            let data_fd = open(&mut target, State::Resuming);
            state.chunks(piece).for_each(|bytes| write_all(&data_fd, bytes));
            target.set_state(State::Running.raw()).unwrap();
            assert_eq!(target.content(), b"guests fly!");
        }
    }
}

#[test]
fn a_state_in_records_cut_at_any_length_is_refused_until_the_rest_is_written() {
    let state = in_records();
    for cut in 0..state.len() {
        let (mut target, data_fd) = resuming();
        write_all(&data_fd, &state[..cut]);
        assert_eq!(target.set_state(State::Stop.raw()).unwrap_err(), Errno::INVAL, "{cut}");
        assert_ne!(target.content(), b"guests fly!");
        write_all(&data_fd, &state[cut..]);
        target.set_state(State::Stop.raw()).unwrap();
        assert_eq!(target.content(), b"guests fly!");
    }
}

#[test]
fn a_header_with_any_byte_changed_or_that_a_record_is_not_in_place_of_is_refused_with_efault() {
    let state = in_records();
    let initial_content = 12..16;
    for place in (0..HEADER_LEN).filter(|place| !initial_content.contains(place)) {
        let mut other = state.clone();
        other[place] ^= 4;
        assert_eq!(refusal_of(&other), Errno::FAULT, "{place}");
        let anew = [&state[..28], &other[..HEADER_LEN]].concat();
        // Without its magic it is a record, whose offset is beyond the content.
        assert_eq!(refusal_of(&anew), if place < 8 { Errno::NOMEM } else { Errno::FAULT }, "{place}");
    }
    let more_initial_content_than_there_is = [&state[..12], &[12, 0, 0, 0], &state[16..]].concat();
    assert_eq!(refusal_of(&more_initial_content_than_there_is), Errno::FAULT);
    let plain = read_up_to(&open(&mut mtty_like(), State::StopCopy), 1000, Ok(0));
    assert_eq!(refusal_of(&[&state[..28], &plain[..HEADER_LEN]].concat()), Errno::FAULT);
}

#[test]
fn what_lies_beyond_the_content_or_behind_the_end_is_refused_with_enomem() {
    let state = in_records();
    for (offset, length) in [(0, 12), (11, 1), (10, 2), (u64::MAX, 1), (1, u64::MAX), (1 << 40, 1)] {
        let bytes = [&state[..28], &record(offset, length)].concat();
        assert_eq!(refusal_of(&bytes), Errno::NOMEM, "{offset} {length}");
    }
    assert_eq!(refusal_of(&[&state[..], &[0]].concat()), Errno::NOMEM);
    assert_eq!(refusal_of(&[&state[..], &state[..]].concat()), Errno::NOMEM);
}

#[test]
fn an_end_with_another_sum_is_refused_with_efault_and_one_before_all_content_with_einval() {
    let state = in_records();
    let without_end = &state[..state.len() - 16];
    for sum in [0, 15, 17, u64::MAX] {
        assert_eq!(refusal_of(&[without_end, &record(sum, 0)].concat()), Errno::FAULT, "{sum}");
    }
    let a_byte_twice_and_one_never = [&state[..28], &record(0, 7), b"guests ", &record(11, 0)].concat();
    let (mut target, data_fd) = resuming();
    write_all(&data_fd, &a_byte_twice_and_one_never);
    assert_eq!(target.set_state(State::Stop.raw()).unwrap_err(), Errno::INVAL);
    assert_eq!(data_fd.write(&[0]), Err(Errno::NOMEM));
}

#[test]
fn what_begins_in_stop_copy_is_plain_whatever_comes_in_pre_copy() {
    let mut sim = Sim::new("size=36,seed=7,initial=30,dirty=9,reinit=0".parse().unwrap());
    let data_fd = open(&mut sim, State::StopCopy);
    let plain = read_up_to(&open(&mut mtty_like(), State::StopCopy), 1000, Ok(0));
    assert_eq!(read_up_to(&data_fd, 1000, Ok(0)), plain);
}

/// A state in records of a device whose content is "guests fly!", with a byte that comes twice.
fn in_records() -> Vec<u8> {
    let mut sim = Sim::new("size=11,initial=28".parse().unwrap());
    sim.write_content(0, b"gues  fly!!").unwrap();
    let data_fd = open(&mut sim, State::PreCopy);
    let mut state = read_up_to(&data_fd, 1000, NOTHING_NOW);
    sim.write_content(2, b"ests fly").unwrap();
    data_fd.precopy_info().unwrap();
    state.extend(read_up_to(&data_fd, 1000, NOTHING_NOW));
    sim.set_state(State::StopCopy.raw()).unwrap();
    state.extend(read_up_to(&data_fd, 1000, Ok(0)));
    state
}

fn record(offset: u64, length: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// The error of the write that refuses one of `bytes`, after which the device does not leave RESUMING.
fn refusal_of(bytes: &[u8]) -> Errno {
    let (mut target, data_fd) = resuming();
    let errno = bytes.iter().find_map(|byte| data_fd.write(&[*byte]).err()).expect("a refusal");
    assert_eq!(target.set_state(State::Stop.raw()).unwrap_err(), Errno::INVAL);
    errno
}

fn resuming() -> (Sim, DataFd) {
    let mut sim = Sim::new("size=11,seed=8".parse().unwrap());
    let data_fd = open(&mut sim, State::Resuming);
    (sim, data_fd)
}

fn open(sim: &mut Sim, state: State) -> DataFd {
    sim.set_state(state.raw()).unwrap().unwrap()
}
