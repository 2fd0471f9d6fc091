//! The simulated device in PRE_COPY: initial data, rounds of a guest that goes on, what PRECOPY_INFO says of them, and
//! a whole migration made of them, call by call.
//!
//! Deliberately absent: a `Source` or a `Destination`; and the bytes that travel, which `sim_format.rs` has.

use std::thread;

use proptest::collection::vec;
use proptest::{option, prop_assert, prop_assert_eq, proptest};
use vfio_migration_core::device::uapi::{PRECOPY_INFO_REINIT, PrecopyInfo};
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::{self, Code, DataRead};
use vfio_migration_host::sim::{Assigned, Config, DataFd, Errno, HEADER_LEN, Increment, Precopy, Sim};
use vfio_migration_tests::sim::read_up_to;

const NOTHING_NOW: Result<usize, Errno> = Err(Errno::NOMSG);
const HEADER: u64 = HEADER_LEN as u64;
/// The head of each record.
const HEAD: u64 = 16;

#[test]
fn a_device_whose_guest_goes_on_arrives_with_its_last_content() {
    let keys = [
        "initial=700",
        "initial=24,dirty=100",
        "initial=1KiB,dirty=300,dirty-for=3",
        "initial=5KiB,dirty=1000,increment=always,drained=0",
        "initial=300,dirty=999,reinit=2,short=7",
        "initial=100,dirty=5,reinit=0,info=stale,flags=5",
        "reinit=1,v2=no,increment=always",
        "dirty=1KiB,data-size=0",
        "initial=24",
    ];
    for keys in keys {
        for piece in [1, 16, 100, 4096] {
            let mut source = sim(&format!("size=1000,seed=7,{keys}"));
            let mut target = sim("size=1000,seed=8");
            let _ = source.opt_in_precopy_info_v2();
            migrate(&mut source, &mut target, piece);
            assert_eq!(target.content(), source.content(), "{keys} in pieces of {piece}");
        }
    }
}

/// Six rounds with a guest that also writes on its own, then the rest.
fn migrate(source: &mut Sim, target: &mut Sim, piece: usize) {
    let from = open(source, State::PreCopy);
    let to = open(target, State::Resuming);
    let before = source.content().to_vec();
    let mut buffer = vec![0xa5; piece];
    for round in 0..6_u8 {
        from.precopy_info().unwrap();
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            feed(&to, &buffer[..got]);
            source.write_content(usize::from(round) * 150, &[!round; 9]).unwrap();
        }
    }
    if source.features().p2p {
        source.set_state(State::PreCopyP2p.raw()).unwrap();
        source.write_content(990, b"last").unwrap();
    }
    assert!(source.set_state(State::StopCopy.raw()).unwrap().is_none());
    read_up_to(&from, piece, Ok(0)).chunks(piece).for_each(|bytes| feed(&to, bytes));
    source.set_state(State::Stop.raw()).unwrap();
    target.set_state(State::Running.raw()).unwrap();
    assert_ne!(source.content(), before);
}

proptest! {
    #[test]
    fn in_any_order_of_calls_the_last_content_arrives(
        (size, initial, dirty) in (0..200_usize, 0..250_usize, 0..250_usize),
        (dirty_for, reinit) in (option::of(0..4_u64), option::of(0..4_u64)),
        always: bool,
        calls in vec((0..5_u8, 0..200_usize, 0..40_usize), 0..60),
    ) {
        let mut config = Config::new(size as u64, 7, Features::ALL[3]).unwrap();
        let increment = if always { Increment::Always } else { Increment::Asked };
        let (initial, dirty) = (initial as u64, dirty as u64);
        config.precopy = Precopy { initial, dirty, dirty_for, reinit, increment, ..config.precopy };
        let mut source = Sim::new(config);
        let mut target = sim(&format!("size={size},seed=8"));
        let (from, to) = (open(&mut source, State::PreCopy), open(&mut target, State::Resuming));
        for (call, place, len) in calls {
            let mut buffer = vec![0xa5; len];
            match call {
                0 => {
                    left_of(&from);
                }
                1 => {
                    let _ = source.write_content(place, &buffer);
                }
                _ => feed(&to, from.read(&mut buffer).map_or(&[], |got| &buffer[..got])),
            }
        }
        source.set_state(State::StopCopy.raw()).unwrap();
        let plain = initial <= HEADER && dirty == 0 && reinit.is_none();
        let (said, rest) = (source.data_size(), read_up_to(&from, 50, Ok(0)));
        prop_assert!(plain || said == rest.len() as u64);
        feed(&to, &rest);
        target.set_state(State::Running.raw()).unwrap();
        prop_assert_eq!(target.content(), source.content());
    }
}

#[test]
fn initial_data_are_exactly_as_many_as_set_up_and_fall_as_they_are_read() {
    for initial in [24, 25, 40, 41, 999, 1024] {
        let mut sim = sim(&format!("size=1000,dirty=1,initial={initial}"));
        let data_fd = open(&mut sim, State::PreCopy);
        for left in (1..=initial).rev() {
            assert_eq!(left_of(&data_fd), (left, 0));
            assert_eq!(data_fd.read(&mut [0]), Ok(1));
        }
        assert_eq!(data_fd.read(&mut [0]), NOTHING_NOW);
    }
}

#[test]
fn initial_data_are_never_less_than_the_header_nor_more_than_the_state() {
    for (initial, said) in [("0", HEADER), ("23B", HEADER), ("1025", 1024), ("8GiB", 1024)] {
        let mut sim = sim(&format!("size=1000,initial={initial}"));
        assert_eq!(left_of(&open(&mut sim, State::PreCopy)), (said, 0), "{initial}");
    }
}

#[test]
fn without_a_question_no_more_data_ever_come() {
    let mut sim = sim("size=1000,dirty=100");
    let data_fd = open(&mut sim, State::PreCopy);
    read_up_to(&data_fd, 1000, NOTHING_NOW);
    sim.write_content(5, b"x").unwrap();
    for _ in 0..10 {
        assert_eq!(data_fd.read(&mut [0; 9]), NOTHING_NOW);
    }
    assert_eq!(left_of(&data_fd), (0, HEAD + 100));
    assert_eq!(read_up_to(&data_fd, 1000, NOTHING_NOW).len(), 116);
}

#[test]
fn a_question_starts_a_round_only_where_all_was_read() {
    let mut sim = sim("size=1000,dirty=100");
    let data_fd = open(&mut sim, State::PreCopy);
    for (read, left) in [(0, (24, 0)), (4, (20, 0)), (20, (0, 116)), (0, (0, 116)), (115, (0, 1))] {
        read_some(&data_fd, read);
        assert_eq!(left_of(&data_fd), left, "{read}");
    }
    read_some(&data_fd, 1);
    assert_eq!(left_of(&data_fd), (0, 116), "the second round");
}

#[test]
fn where_a_read_starts_a_round_a_question_starts_none() {
    let mut sim = sim("size=1000,dirty=100,increment=always");
    let data_fd = open(&mut sim, State::PreCopy);
    for _ in 0..3 {
        read_up_to(&data_fd, 1000, NOTHING_NOW);
        assert_eq!((left_of(&data_fd), left_of(&data_fd)), ((0, HEAD + 100), (0, HEAD + 100)));
        data_fd.read(&mut [0; 116]).unwrap();
        assert_eq!((left_of(&data_fd), left_of(&data_fd)), ((0, 0), (0, 0)));
    }
}

#[test]
fn what_a_question_counts_is_what_a_read_finds_before_it_finds_nothing() {
    let mut sim = sim("size=10000,dirty=700,initial=3000,reinit=3");
    sim.opt_in_precopy_info_v2().unwrap();
    let data_fd = open(&mut sim, State::PreCopy);
    for round in 0..8_usize {
        let (initial, dirty) = left_of(&data_fd);
        let read = read_up_to(&data_fd, 64, NOTHING_NOW).len() as u64;
        assert_eq!(read, initial + dirty, "round {round}");
        for place in 0..round {
            sim.write_content(place * 1000, b"scattered").unwrap();
        }
    }
}

#[test]
fn each_round_changes_every_byte_of_its_share_and_goes_on_where_the_last_has_ended() {
    let table = [
        (30, vec![vec![0..30], vec![30..60], vec![60..90], vec![90..100, 0..20], vec![20..50]]),
        (50, vec![vec![0..50], vec![50..100], vec![0..50]]),
    ];
    for (dirty, rounds) in table {
        let mut sim = sim(&format!("size=100,dirty={dirty}"));
        let data_fd = open(&mut sim, State::PreCopy);
        read_up_to(&data_fd, 1000, NOTHING_NOW);
        for changed in rounds {
            let before = sim.content();
            let left = left_of(&data_fd);
            let after = sim.content();
            for place in 0..100 {
                let in_share = changed.iter().any(|range| range.contains(&place));
                assert_eq!(before[place] != after[place], in_share, "{place} in {changed:?}");
            }
            assert_eq!(left, (0, dirty + HEAD * changed.len() as u64), "{changed:?}");
            read_some(&data_fd, usize::try_from(left.1).unwrap());
        }
    }
}

#[test]
fn a_guest_that_changes_more_than_there_is_changes_all_of_it() {
    for (size, dirty) in [(100, 116), (1, 17), (0, 0)] {
        let mut sim = sim(&format!("size={size},dirty=1GiB"));
        let data_fd = open(&mut sim, State::PreCopy);
        read_up_to(&data_fd, 1000, NOTHING_NOW);
        for _ in 0..3 {
            assert_eq!(left_of(&data_fd), (0, dirty), "{size}");
            read_up_to(&data_fd, 1000, NOTHING_NOW);
        }
    }
}

#[test]
fn a_guest_goes_quiet_after_its_rounds_and_its_own_writes_still_come() {
    let mut sim = sim("size=1000,dirty=100,dirty-for=2");
    let data_fd = open(&mut sim, State::PreCopy);
    read_up_to(&data_fd, 1000, NOTHING_NOW);
    for dirty in [116, 116, 0, 0] {
        assert_eq!(left_of(&data_fd), (0, dirty));
        read_up_to(&data_fd, 1000, NOTHING_NOW);
    }
    sim.write_content(3, b"awake").unwrap();
    assert_eq!(left_of(&data_fd), (0, HEAD + 5));
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let run = || {
        let mut sim = sim("size=1000,dirty=300,initial=200,reinit=2");
        let data_fd = open(&mut sim, State::PreCopy);
        let mut state = Vec::new();
        for _ in 0..5 {
            data_fd.precopy_info().unwrap();
            state.extend(read_up_to(&data_fd, 77, NOTHING_NOW));
        }
        sim.set_state(State::StopCopy.raw()).unwrap();
        state.extend(read_up_to(&data_fd, 77, Ok(0)));
        state
    };
    assert_eq!(run(), run());
}

#[test]
fn initial_data_anew_are_told_once_and_replace_a_round() {
    let mut sim = sim("size=1000,initial=524,dirty=100,reinit=2");
    sim.opt_in_precopy_info_v2().unwrap();
    let data_fd = open(&mut sim, State::PreCopy);
    let rounds =
        [(0, 524, 0), (0, 0, 116), (0, 0, 116), (PRECOPY_INFO_REINIT, 524, 0), (0, 0, 116), (0, 0, 116)];
    for (round, wanted) in rounds.into_iter().enumerate() {
        let info = data_fd.precopy_info().unwrap();
        assert_eq!((info.flags, info.initial_bytes, info.dirty_bytes), wanted, "{round}");
        let again = data_fd.precopy_info().unwrap();
        assert_eq!((again.flags, again.initial_bytes, again.dirty_bytes), (0, wanted.1, wanted.2), "{round}");
        read_up_to(&data_fd, 1000, NOTHING_NOW);
    }
}

#[test]
fn what_changed_before_initial_data_anew_comes_with_them_or_with_the_next_round() {
    let mut sim = sim("size=1000,initial=524,reinit=0");
    sim.opt_in_precopy_info_v2().unwrap();
    let data_fd = open(&mut sim, State::PreCopy);
    read_up_to(&data_fd, 1000, NOTHING_NOW);
    sim.write_content(497, b"inside").unwrap();
    for wanted in [(524, 0), (0, HEAD + 3), (0, 0)] {
        assert_eq!(left_of(&data_fd), wanted);
        read_up_to(&data_fd, 1000, NOTHING_NOW);
    }
}

#[test]
fn initial_data_anew_that_a_read_has_begun_are_told_with_the_next_question() {
    let mut sim = sim("size=1000,initial=524,reinit=0,increment=always");
    sim.opt_in_precopy_info_v2().unwrap();
    let data_fd = open(&mut sim, State::PreCopy);
    read_up_to(&data_fd, 524, NOTHING_NOW);
    data_fd.read(&mut [0; 10]).unwrap();
    let info = data_fd.precopy_info().unwrap();
    assert_eq!((info.flags, info.initial_bytes, info.dirty_bytes), (PRECOPY_INFO_REINIT, 514, 0));
}

#[test]
fn without_the_opt_in_initial_data_anew_are_dirty_data() {
    let mut sim = sim("size=1000,initial=524,reinit=0");
    let data_fd = open(&mut sim, State::PreCopy);
    read_up_to(&data_fd, 1000, NOTHING_NOW);
    let info = data_fd.precopy_info().unwrap();
    assert_eq!((info.flags, info.initial_bytes, info.dirty_bytes), (0, 0, 524));
}

#[test]
fn the_opt_in_is_refused_where_kernel_or_device_lacks_it_and_outlives_a_reset() {
    assert_eq!(sim("size=9,flags=7,v2=no").opt_in_precopy_info_v2(), Err(Errno::NOTTY));
    assert_eq!(sim("size=9,flags=3,v2=no").opt_in_precopy_info_v2(), Err(Errno::NOTTY));
    assert_eq!(sim("size=9,flags=3").opt_in_precopy_info_v2(), Err(Errno::INVAL));
    let mut sim = sim("size=10,flags=5,reinit=0");
    sim.opt_in_precopy_info_v2().unwrap();
    sim.try_reset().unwrap();
    let data_fd = open(&mut sim, State::PreCopy);
    read_up_to(&data_fd, 1000, NOTHING_NOW);
    assert_eq!(data_fd.precopy_info().map(|info| info.flags), Ok(PRECOPY_INFO_REINIT));
}

#[test]
fn a_structure_that_was_not_zeroed_keeps_one_of_its_fields_where_the_driver_is_mlx5s() {
    let stale = PrecopyInfo { argsz: 24, flags: 9, initial_bytes: 111, dirty_bytes: 222 };
    let fields = |info: PrecopyInfo| (info.flags, info.initial_bytes, info.dirty_bytes);
    for (keys, opt_in, first, second) in [
        ("info=zeroed", false, (0, 24, 0), (0, 0, 116)),
        ("info=stale", false, (9, 24, 222), (9, 111, 116)),
        ("info=stale", true, (0, 24, 222), (0, 111, 116)),
    ] {
        let mut sim = sim(&format!("size=1000,dirty=100,{keys}"));
        if opt_in {
            sim.opt_in_precopy_info_v2().unwrap();
        }
        let data_fd = open(&mut sim, State::PreCopy);
        for wanted in [first, second] {
            let mut info = stale;
            data_fd.get_precopy_info(&mut info).unwrap();
            assert_eq!(fields(info), wanted, "{keys}");
            read_up_to(&data_fd, 1000, NOTHING_NOW);
        }
        let mut short = PrecopyInfo { argsz: 23, ..stale };
        assert_eq!(data_fd.get_precopy_info(&mut short), Err(Errno::INVAL));
    }
}

#[test]
fn a_read_that_finds_nothing_says_0_where_the_driver_is_mttys() {
    let mut sim = sim("size=36,drained=0");
    let data_fd = open(&mut sim, State::PreCopy);
    assert_eq!(read_up_to(&data_fd, 1000, Ok(0)).len(), HEADER_LEN);
    assert_eq!(data_fd.read(&mut [0; 9]), Ok(0));
    sim.set_state(State::StopCopy.raw()).unwrap();
    assert_eq!(read_up_to(&data_fd, 1000, Ok(0)), sim.content());
}

#[test]
fn the_data_size_is_what_a_stop_now_would_give_or_what_was_set_up() {
    let mut source = sim("size=1000,initial=324,dirty=100,dirty-for=3");
    assert_eq!(source.data_size(), 1024);
    let data_fd = open(&mut source, State::PreCopy);
    for (read, size) in [(0, 324 + 16 + 700 + 16), (300, 24 + 716 + 16), (24, 716 + 16), (0, 732)] {
        read_some(&data_fd, read);
        assert_eq!(source.data_size(), size, "{read}");
    }
    source.write_content(0, &[1; 8]).unwrap();
    source.write_content(500, &[1; 8]).unwrap();
    let size = source.data_size();
    assert_eq!(size, 732 + 16 + 8);
    source.set_state(State::StopCopy.raw()).unwrap();
    assert_eq!(source.data_size(), size);
    assert_eq!(read_up_to(&data_fd, 1, Ok(0)).len() as u64, size);
    assert_eq!(source.data_size(), 0);
    for (text, said) in [("0", 0), ("5", 5), ("8GiB", 8 << 30)] {
        let mut sim = sim(&format!("size=1000,data-size={text}"));
        for state in [State::PreCopy, State::StopCopy, State::Running] {
            sim.set_state(state.raw()).unwrap();
            assert_eq!((sim.data_size(), sim.try_data_size()), (said, Ok(said)));
        }
    }
}

#[test]
fn a_session_that_was_given_up_is_followed_by_a_whole_one() {
    let mut source = sim("size=1000,initial=300,dirty=70,reinit=1");
    let mut target = sim("size=1000,seed=9");
    let first = open(&mut source, State::PreCopy);
    for _ in 0..4 {
        first.precopy_info().unwrap();
        first.read(&mut [0xa5; 100]).unwrap();
    }
    source.set_state(State::Running.raw()).unwrap();
    source.write_content(600, b"in between").unwrap();
    migrate(&mut source, &mut target, 50);
    assert_eq!(target.content(), source.content());
}

#[test]
fn a_vmm_hears_of_rounds_and_of_initial_data_anew() {
    let mut source = Assigned::new(sim("size=1000,initial=524,dirty=100,reinit=1,info=stale"));
    let mut target = Assigned::new(sim("size=1000,seed=9"));
    assert_eq!(source.precopy_info(), Err(Code(9)), "EBADF");
    source.set_state(State::PreCopy).unwrap();
    target.set_state(State::Resuming).unwrap();
    for wanted in [(524, 0, false), (0, 116, false), (524, 0, true), (0, 116, false)] {
        let session::PrecopyInfo { initial_bytes, dirty_bytes, reinit } = source.precopy_info().unwrap();
        assert_eq!((initial_bytes, dirty_bytes, reinit), wanted);
        hand_over(&mut source, &mut target);
    }
    source.set_state(State::StopCopy).unwrap();
    hand_over(&mut source, &mut target);
    target.set_state(State::Running).unwrap();
    assert_eq!(target.sim.content(), source.sim.content());
}

#[test]
fn rounds_go_on_in_another_thread_and_a_content_that_was_looked_at_stays() {
    fn is_send<T: Send + Sync>(_: &T) {}
    let mut sim = sim("size=1MiB,dirty=4KiB");
    let data_fd = open(&mut sim, State::PreCopy);
    is_send(&(&sim, &data_fd));
    let before = sim.content();
    let copy = before.to_vec();
    thread::spawn(move || {
        for _ in 0..3 {
            read_up_to(&data_fd, 1000, NOTHING_NOW);
            data_fd.precopy_info().unwrap();
        }
    })
    .join()
    .unwrap();
    assert!(before == copy && sim.content() != copy);
    assert!(sim.content()[3 * 4096..] == copy[3 * 4096..]);
}

fn sim(text: &str) -> Sim {
    Sim::new(text.parse().unwrap())
}

fn open(sim: &mut Sim, state: State) -> DataFd {
    sim.set_state(state.raw()).unwrap().unwrap()
}

/// The initial and the dirty bytes that PRECOPY_INFO says are left.
fn left_of(data_fd: &DataFd) -> (u64, u64) {
    let info = data_fd.precopy_info().unwrap();
    (info.initial_bytes, info.dirty_bytes)
}

fn read_some(data_fd: &DataFd, count: usize) {
    assert_eq!(data_fd.read(&mut vec![0xa5; count]), Ok(count));
}

/// Writes bytes of which the device may take fewer at once.
fn feed(data_fd: &DataFd, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        rest = &rest[data_fd.write(rest).unwrap()..];
    }
}

/// Moves what the source has now.
fn hand_over(source: &mut Assigned, target: &mut Assigned) {
    let mut buffer = [0xa5; 90];
    while let DataRead::Bytes(got) = source.read_data(&mut buffer).unwrap() {
        assert_eq!(target.write_data(&buffer[..got]), Ok(got));
    }
}
