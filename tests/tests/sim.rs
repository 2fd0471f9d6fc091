//! The simulated device against the kernel's next-state function, asked for every pair of states, and what it does with
//! states, sessions and resets while nothing special is set up. `sim_transcript.rs` holds it against a real device;
//! `sim_precopy.rs`, `sim_format.rs` and `sim_faults.rs` have what can be set up, and `sim_config.rs` how.
//!
//! Deliberately absent: a `Source` or a `Destination` over it; those are in `file.rs`. Here its calls are made one by
//! one.

use std::sync::mpsc;
use std::thread;

use vfio_migration_core::device::{Features, State, arc};
use vfio_migration_core::session::DataRead;
use vfio_migration_core::session::drive::Device;
use vfio_migration_host::errno::code;
use vfio_migration_host::sim::{Assigned, Config, DataFd, Errno, HEADER_LEN, Sim, steps};
use vfio_migration_tests::kernel;
use vfio_migration_tests::sim::{MTTY_CONTENT, mtty_like, read_up_to, state_of, whole_state, write_all};

const BUSY: [State; 3] = [State::Stop, State::StopCopy, State::Resuming];
/// Every state that a device can be brought to.
const REACHABLE: [State; 7] = [
    State::Stop,
    State::Running,
    State::StopCopy,
    State::Resuming,
    State::RunningP2p,
    State::PreCopy,
    State::PreCopyP2p,
];

#[test]
fn each_row_of_the_kernels_next_state_function_is_the_first_step() {
    let mut rows = 0;
    for row in kernel::steps() {
        let ours = || {
            let features = Features::from_raw(row.flags)?;
            let from = State::from_raw(row.current)?;
            let way = steps(features, from, State::from_raw(row.requested)?)?;
            Some(*way.first().unwrap_or(&from))
        };
        assert_eq!(ours(), row.next.map(|next| State::from_raw(next).unwrap()), "{row:?}");
        rows += 1;
    }
    assert_eq!(rows, 800);
}

#[test]
fn each_row_of_the_kernels_next_state_function_is_what_set_answers() {
    let mut asked = 0;
    for row in kernel::steps() {
        let (Ok(config), Some(current)) =
            (format!("size=36,flags={}", row.flags).parse(), State::from_raw(row.current))
        else {
            assert_eq!(row.next, None, "{row:?}");
            continue;
        };
        let mut sim = Sim::new(config);
        if bring(&mut sim, current).is_err() {
            assert_eq!(row.next, None, "{row:?}");
            continue;
        }
        let answer = sim.set_state(row.requested).map(|_| ());
        assert_eq!(answer, if row.next.is_some() { Ok(()) } else { Err(Errno::INVAL) }, "{row:?}");
        let after = if answer.is_ok() { row.requested } else { row.current };
        assert_eq!(sim.get_state().raw(), after, "{row:?}");
        asked += 1;
    }
    assert_eq!(asked, (4 + 5 + 5 + 7) * 10, "the states that each set of features has, and ten requests");
}

#[test]
fn each_arc_takes_cores_steps_and_gives_a_data_fd_where_core_expects_one() {
    for features in Features::ALL {
        for (from, to) in State::ALL.into_iter().flat_map(|from| State::ALL.map(|to| (from, to))) {
            let way = steps(features, from, to);
            assert_eq!(way, arc::path(features, from, to).map(|way| way.to_vec()), "{features} {from} {to}");
            if way.is_none() {
                continue;
            }
            let mut sim = Sim::new(Config::new(MTTY_CONTENT, 7, features).unwrap());
            bring(&mut sim, from).unwrap();
            let session = arc::data_session(features, from, to).unwrap();
            let data_fd = sim.set_state(to.raw()).unwrap();
            assert_eq!(data_fd.is_some(), session.returns_data_fd(), "{features} {from} {to}");
        }
    }
}

#[test]
fn a_whole_state_moves_in_pieces_of_any_size() {
    let whole = whole_state();
    for piece in 1..=whole.len() + 1 {
        let mut source = mtty_like();
        let from = source.set_state(State::StopCopy.raw()).unwrap().unwrap();
        let mut target = Sim::new(Config::new(MTTY_CONTENT, 8, Features::ALL[3]).unwrap());
        let to = target.set_state(State::Resuming.raw()).unwrap().unwrap();
        let mut buffer = vec![0xa5; piece];
        loop {
            let got = from.read(&mut buffer).unwrap();
            if got == 0 {
                break;
            }
            write_all(&to, &buffer[..got]);
        }
        assert_ne!(target.content(), source.content(), "seen before RESUMING → STOP");
        target.set_state(State::Running.raw()).unwrap();
        assert_eq!(target.content(), source.content());
    }
}

#[test]
fn a_state_cut_at_any_length_is_refused_until_the_rest_is_written() {
    let whole = whole_state();
    for cut in 0..whole.len() {
        let (mut sim, data_fd) = resuming();
        let before = sim.content().to_vec();
        write_all(&data_fd, &whole[..cut]);
        for to in [State::Stop, State::Running, State::StopCopy, State::PreCopy] {
            assert_eq!(sim.set_state(to.raw()).unwrap_err(), Errno::INVAL, "{cut}");
            assert_eq!(sim.get_state(), State::Resuming, "{cut}");
        }
        assert_eq!(sim.content(), before, "{cut}");
        write_all(&data_fd, &whole[cut..]);
        assert!(sim.set_state(State::Stop.raw()).unwrap().is_none());
        assert_eq!(sim.content(), &whole[HEADER_LEN..]);
    }
}

#[test]
fn a_header_with_any_byte_changed_is_refused_with_efault_at_its_last_byte() {
    for place in 0..HEADER_LEN {
        let mut other = whole_state();
        other[place] ^= 1;
        let (mut sim, data_fd) = resuming();
        for byte in &other[..HEADER_LEN - 1] {
            assert_eq!(data_fd.write(&[*byte]), Ok(1), "{place}");
        }
        assert_eq!(data_fd.write(&other[HEADER_LEN - 1..]), Err(Errno::FAULT), "{place}");
        assert_eq!(sim.set_state(State::Stop.raw()).unwrap_err(), Errno::INVAL, "{place}");
    }
}

#[test]
fn the_state_of_a_larger_device_is_refused_with_efault_and_a_longer_write_with_enomem() {
    let larger = Sim::new("size=37".parse().unwrap());
    let (_sim, data_fd) = resuming();
    assert_eq!(data_fd.write(&state_of(larger)[..HEADER_LEN]), Err(Errno::FAULT));
    let (_sim, data_fd) = resuming();
    assert_eq!(data_fd.write(&[0; 61]), Err(Errno::NOMEM));
}

#[test]
fn after_a_refused_write_only_a_reset_leaves_resuming_where_mtty_loads_the_state() {
    let mut bad = whole_state();
    bad[0] ^= 1;
    let whole = whole_state();
    let bad_header = (&whole[..0], &bad[..], Errno::FAULT);
    let one_beyond_a_whole_state = (&whole[..], &[0][..], Errno::NOMEM);
    for (accepted, bytes, errno) in [bad_header, one_beyond_a_whole_state] {
        let (mut sim, data_fd) = resuming();
        let before = sim.content().to_vec();
        write_all(&data_fd, accepted);
        assert_eq!(data_fd.write(bytes), Err(errno));
        assert_eq!(data_fd.write(&whole_state()), Err(errno), "the first error stays");
        assert_eq!(data_fd.write(&[]), Ok(0));
        for to in REACHABLE.into_iter().filter(|to| *to != State::Resuming) {
            assert_eq!(sim.set_state(to.raw()).unwrap_err(), Errno::INVAL, "{to}");
            assert_eq!((sim.get_state(), sim.content()), (State::Resuming, &before[..]), "{to}");
        }
        sim.reset();
        assert_eq!(data_fd.write(&whole_state()), Err(Errno::NODEV));
        let data_fd = sim.set_state(State::Resuming.raw()).unwrap().unwrap();
        write_all(&data_fd, &whole_state());
        sim.set_state(State::Running.raw()).unwrap();
    }
}

#[test]
fn the_end_of_the_data_is_enomsg_in_pre_copy_where_mtty_says_0_and_0_in_stop_copy() {
    let mut sim = mtty_like();
    let data_fd = sim.set_state(State::PreCopy.raw()).unwrap().unwrap();
    let mut buffer = [0xa5; 100];
    assert_eq!(data_fd.read(&mut buffer), Ok(HEADER_LEN));
    assert_eq!(data_fd.read(&mut buffer), Err(Errno::NOMSG));
    assert_eq!(data_fd.read(&mut []), Ok(0));
    sim.set_state(State::PreCopyP2p.raw()).unwrap();
    assert_eq!(data_fd.read(&mut buffer), Err(Errno::NOMSG));
    sim.set_state(State::StopCopy.raw()).unwrap();
    assert_eq!(data_fd.read(&mut buffer), Ok(36));
    assert_eq!(data_fd.read(&mut buffer), Ok(0));
    assert_eq!(data_fd.read(&mut buffer), Ok(0));
}

#[test]
fn what_the_guest_writes_in_pre_copy_travels_in_stop_copy() {
    let mut sim = mtty_like();
    let data_fd = sim.set_state(State::PreCopy.raw()).unwrap().unwrap();
    let mut state = read_up_to(&data_fd, 1000, Err(Errno::NOMSG));
    sim.write_content(3, b"late").unwrap();
    sim.set_state(State::PreCopyP2p.raw()).unwrap();
    sim.write_content(9, b"later").unwrap();
    sim.set_state(State::StopCopy.raw()).unwrap();
    state.extend(read_up_to(&data_fd, 1000, Ok(0)));
    assert_eq!((&state[HEADER_LEN + 3..][..4], &state[HEADER_LEN + 9..][..5]), (&b"late"[..], &b"later"[..]));
    assert_eq!(&state[HEADER_LEN..], sim.content());
}

#[test]
fn the_guest_changes_content_only_where_the_device_runs_and_only_inside_it() {
    for state in REACHABLE {
        let mut sim = mtty_like();
        sim.set_state(state.raw()).unwrap();
        let wanted = if BUSY.contains(&state) { Err(Errno::BUSY) } else { Ok(()) };
        assert_eq!(sim.write_content(32, &[0; 4]), wanted, "{state}");
    }
    let mut sim = mtty_like();
    let before = sim.content().to_vec();
    assert_eq!(sim.write_content(33, &[0; 4]), Err(Errno::INVAL));
    assert_eq!(sim.write_content(usize::MAX, &[0; 4]), Err(Errno::INVAL));
    assert_eq!(sim.write_content(36, &[]), Ok(()));
    assert_eq!(sim.content(), before);
}

#[test]
fn a_reset_in_any_state_leads_to_running_without_session_and_with_a_content_of_zeros() {
    for state in REACHABLE {
        let mut sim = mtty_like();
        let data_fd = bring(&mut sim, state).unwrap();
        sim.reset();
        assert_eq!((sim.get_state(), sim.content()), (State::Running, &[0; 36][..]), "{state}");
        if let Some(data_fd) = data_fd {
            assert_eq!(dead_answer(&data_fd), Errno::NODEV, "{state}");
        }
    }
}

#[test]
fn an_ended_session_stays_ended_when_another_begins() {
    for state in [State::StopCopy, State::Resuming, State::PreCopy, State::PreCopyP2p] {
        let mut sim = mtty_like();
        let first = bring(&mut sim, state).unwrap().unwrap();
        sim.set_state(State::Running.raw()).unwrap();
        assert_eq!(dead_answer(&first), Errno::NODEV, "{state}");
        for next in [State::PreCopy, State::StopCopy, State::Resuming] {
            let other = bring(&mut sim, next).unwrap();
            assert_eq!(dead_answer(&first), Errno::NODEV, "{state} then {next}");
            drop(other);
            sim.set_state(State::Running.raw()).unwrap();
        }
    }
}

#[test]
fn precopy_info_is_answered_in_pre_copy_alone_and_by_its_own_session_alone() {
    let mut sim = mtty_like();
    let data_fd = sim.set_state(State::PreCopy.raw()).unwrap().unwrap();
    data_fd.read(&mut [0; 7]).unwrap();
    let info = data_fd.precopy_info().unwrap();
    assert_eq!((info.argsz, info.flags, info.initial_bytes, info.dirty_bytes), (24, 0, 17, 0));
    sim.set_state(State::StopCopy.raw()).unwrap();
    assert_eq!(data_fd.precopy_info(), Err(Errno::INVAL));
    sim.set_state(State::Running.raw()).unwrap();
    assert_eq!(data_fd.precopy_info(), Err(Errno::INVAL));
    let second = sim.set_state(State::PreCopy.raw()).unwrap().unwrap();
    assert_eq!(data_fd.precopy_info(), Err(Errno::NODEV));
    assert_eq!(second.precopy_info().map(|info| info.initial_bytes), Ok(24));
    sim.set_state(State::Running.raw()).unwrap();
    let resume = sim.set_state(State::Resuming.raw()).unwrap().unwrap();
    assert_eq!(resume.precopy_info(), Err(Errno::NOTTY));
}

#[test]
fn the_data_size_is_the_same_in_every_state() {
    for state in REACHABLE {
        let mut sim = mtty_like();
        sim.set_state(state.raw()).unwrap();
        assert_eq!(sim.data_size(), 60, "{state}");
    }
}

#[test]
fn a_device_without_content_has_the_header_alone() {
    let mut source = Sim::new("size=0".parse().unwrap());
    let data_fd = source.set_state(State::PreCopy.raw()).unwrap().unwrap();
    let mut state = read_up_to(&data_fd, 1000, Err(Errno::NOMSG));
    source.set_state(State::StopCopy.raw()).unwrap();
    state.extend(read_up_to(&data_fd, 1000, Ok(0)));
    assert_eq!(state.len(), HEADER_LEN);
    let mut target = Sim::new("size=0".parse().unwrap());
    let data_fd = target.set_state(State::Resuming.raw()).unwrap().unwrap();
    write_all(&data_fd, &state);
    target.set_state(State::Running.raw()).unwrap();
}

#[test]
fn the_bytes_of_a_state_are_these() {
    #[rustfmt::skip]
    let golden = [
        b'V', b'F', b'I', b'O', b'-', b'S', b'I', b'M', // magic
        1, 0, 0, 0, // version
        0, 0, 0, 0,
        11, 0, 0, 0, 0, 0, 0, 0, // size
        0xaf, 0xcd, 0x1d, 0x7b, 0x39, 0xa8, 0x20, 0xe2, // splitmix64 of seed 0: e220a8397b1dcdaf
        0xf4, 0x65, 0xb9, // then 6e789e6aa1b965f4
    ];
    assert_eq!(state_of(Sim::new("size=11,seed=0".parse().unwrap())), golden);
}

#[test]
fn a_session_runs_in_threads_of_its_own_while_the_devices_stay_here() {
    let mut source = Sim::new("size=1MiB,seed=1".parse().unwrap());
    let mut target = Sim::new("size=1MiB,seed=2".parse().unwrap());
    let from = source.set_state(State::StopCopy.raw()).unwrap().unwrap();
    let to = target.set_state(State::Resuming.raw()).unwrap().unwrap();
    let (sender, receiver) = mpsc::sync_channel::<Vec<u8>>(2);
    let reading = thread::spawn(move || {
        let mut buffer = vec![0xa5; 4099];
        while let Ok(got @ 1..) = from.read(&mut buffer) {
            sender.send(buffer[..got].to_vec()).unwrap();
        }
    });
    let writing = thread::spawn(move || receiver.into_iter().for_each(|bytes| write_all(&to, &bytes)));
    reading.join().unwrap();
    writing.join().unwrap();
    target.set_state(State::Running.raw()).unwrap();
    assert!(target.content() == source.content());
}

#[test]
fn a_vmm_moves_a_device_through_pre_copy() {
    let mut source = Assigned::new(mtty_like());
    let mut target = Assigned::new(Sim::new("size=36,seed=8".parse().unwrap()));
    let mut buffer = [0xa5; 10];
    target.set_state(State::Resuming).unwrap();
    for (state, end) in [(State::PreCopy, DataRead::Drained), (State::StopCopy, DataRead::End)] {
        source.set_state(state).unwrap();
        loop {
            match source.read_data(&mut buffer).unwrap() {
                DataRead::Bytes(got) => assert_eq!(target.write_data(&buffer[..got]), Ok(got)),
                other => break assert_eq!(other, end, "{state}"),
            }
        }
    }
    source.set_state(State::Stop).unwrap();
    assert_eq!(source.read_data(&mut buffer), Err(code(Errno::BADF)), "the fd is closed");
    target.set_state(State::Running).unwrap();
    assert_eq!(target.sim.content(), source.sim.content());
}

#[test]
fn a_vmm_sees_each_refusal_as_its_errno() {
    let mut device = Assigned::new(mtty_like());
    assert_eq!(device.write_data(&[0]), Err(code(Errno::BADF)));
    assert_eq!(device.set_state(State::Error), Err(code(Errno::INVAL)));
    device.set_state(State::Resuming).unwrap();
    assert_eq!(device.read_data(&mut [0]), Err(code(Errno::BADF)));
    assert_eq!(device.precopy_info(), Err(code(Errno::NOTTY)));
    assert_eq!(device.set_state(State::Stop), Err(code(Errno::INVAL)));
    assert_eq!(device.write_data(&[0; 24]), Err(code(Errno::FAULT)), "the fd is still held");
    device.reset().unwrap();
    assert_eq!(device.write_data(&[0]), Err(code(Errno::BADF)));
    device.set_state(State::PreCopy).unwrap();
    assert_eq!(device.precopy_info().map(|info| info.initial_bytes), Ok(24));
}

#[test]
fn a_guests_reset_behind_the_vmms_back_shows_in_the_data_and_in_the_next_set() {
    let mut device = Assigned::new(mtty_like());
    device.set_state(State::PreCopy).unwrap();
    device.sim.reset();
    assert_eq!(device.read_data(&mut [0]), Err(code(Errno::NODEV)));
    assert_eq!(device.set_state(State::StopCopy), Err(code(Errno::BADF)), "a data fd came unexpectedly");
    assert_eq!(device.set_state(State::Stop), Ok(()));
    device.set_state(State::StopCopy).unwrap();
    device.sim.reset();
    assert_eq!(device.set_state(State::Running), Ok(()));
}

fn resuming() -> (Sim, DataFd) {
    let mut sim = Sim::new("size=36,seed=8".parse().unwrap());
    let data_fd = sim.set_state(State::Resuming.raw()).unwrap().unwrap();
    (sim, data_fd)
}

/// Brings a device to a state; in RESUMING the whole state is written, so that it can be left.
fn bring(sim: &mut Sim, state: State) -> Result<Option<DataFd>, Errno> {
    let data_fd = sim.set_state(state.raw())?;
    if let (State::Resuming, Some(data_fd)) = (state, &data_fd) {
        write_all(data_fd, &whole_state());
    }
    Ok(data_fd)
}

/// The error of an ended session's data fd, whichever way its data went.
fn dead_answer(data_fd: &DataFd) -> Errno {
    match data_fd.read(&mut [0]) {
        Err(Errno::BADF) => data_fd.write(&[0]).unwrap_err(),
        answer => answer.unwrap_err(),
    }
}
