//! What can be set up to go wrong with a simulated device: which call fails, with what, where it leaves the device,
//! what its guest does in between, and how little and how slowly it moves.
//!
//! Deliberately absent: how a session recovers; `source_failures.rs` and `destination_failures.rs` have that.

use std::time::{Duration, Instant};

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::{Code, DataRead};
use vfio_migration_host::sim::{After, Assigned, Call, DataFd, Errno, Fault, HEADER_LEN, Operation, Sim};
use vfio_migration_tests::sim::{read_up_to, state_of, whole_state, write_all};

const EIO: Code = Code(5);
const EBADF: Code = Code(9);
const ENODEV: Code = Code(19);
const EINVAL: Code = Code(22);

#[test]
fn each_operation_fails_at_its_call_alone() {
    type Ask = fn(&mut Sim, &DataFd) -> Result<(), Errno>;
    let table: [(&str, State, Ask); 7] = [
        ("set-stop", State::StopCopy, |sim, _| sim.set_state(State::Stop.raw()).map(|_| ())),
        ("get", State::StopCopy, |sim, _| sim.try_get_state().map(|_| ())),
        ("read", State::StopCopy, |_, data_fd| data_fd.read(&mut [0]).map(|_| ())),
        ("write", State::Resuming, |_, data_fd| data_fd.write(b"V").map(|_| ())),
        ("info", State::PreCopy, |_, data_fd| data_fd.precopy_info().map(|_| ())),
        ("reset", State::StopCopy, |sim, _| sim.try_reset()),
        ("data-size", State::StopCopy, |sim, _| sim.try_data_size().map(|_| ())),
    ];
    for (operation, state, ask) in table {
        let mut sim = sim(&format!("fail={operation}:2:EINTR"));
        let data_fd = open(&mut sim, state);
        let answers = [(); 4].map(|()| ask(&mut sim, &data_fd));
        assert_eq!(answers, [Ok(()), Err(Errno::INTR), Ok(()), Ok(())], "{operation}");
    }
}

#[test]
fn each_call_fails_where_each_is_to() {
    let mut sim = sim("fail=reset:*:EBUSY,fail=read:*");
    let data_fd = open(&mut sim, State::StopCopy);
    for _ in 0..5 {
        assert_eq!((sim.try_reset(), data_fd.read(&mut [0])), (Err(Errno::BUSY), Err(Errno::IO)));
    }
    assert_eq!((sim.get_state(), sim.data_size()), (State::StopCopy, 60));
}

#[test]
fn a_set_is_counted_by_its_state_and_with_all_others() {
    let mut device = Assigned::new(sim("fail=set-stop_copy:2:EBUSY,fail=set:6"));
    let answers =
        [State::StopCopy, State::Stop, State::StopCopy, State::StopCopy, State::Stop, State::Running]
            .map(|state| device.set_state(state));
    assert_eq!(answers, [Ok(()), Ok(()), Err(Code(16)), Ok(()), Ok(()), Err(EIO)]);
}

#[test]
fn a_call_counts_whatever_it_answers_and_the_first_fault_that_is_due_wins() {
    let mut sim = sim("fail=set:2:EBUSY,fail=set-error:1:EPERM,fail=set-error:2:EPERM");
    assert_eq!(sim.set_state(99).unwrap_err(), Errno::INVAL);
    assert_eq!(sim.set_state(State::Error.raw()).unwrap_err(), Errno::BUSY);
    assert_eq!(sim.set_state(State::Error.raw()).unwrap_err(), Errno::PERM);
}

#[test]
fn a_refused_set_leaves_the_device_where_the_fault_says() {
    use State::{Error, PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
    let table = [
        (Running, "old", StopCopy, Running),
        (Running, "first", StopCopy, RunningP2p),
        (Running, "error", StopCopy, Error),
        (PreCopy, "old", StopCopy, PreCopy),
        (PreCopy, "first", StopCopy, PreCopyP2p),
        (PreCopy, "error", StopCopy, Error),
        (PreCopy, "first", Resuming, Running),
        (StopCopy, "first", Running, Stop),
        (Stop, "first", StopCopy, StopCopy),
        (Running, "first", Running, Running),
        (Resuming, "first", Running, Resuming), // nothing was written: this step the device refuses itself
        (Resuming, "error", Running, Error),
        (StopCopy, "first", PreCopy, StopCopy), // no such way
    ];
    for (from, after, to, wanted) in table {
        let mut sim = sim("");
        sim.set_state(from.raw()).unwrap();
        let text = format!("fail=set:1:EIO:{after}");
        let config: vfio_migration_host::sim::Config = text.parse().unwrap();
        sim.fail(config.faults[0]);
        assert_eq!(sim.set_state(to.raw()).unwrap_err(), Errno::IO);
        assert_eq!(sim.get_state(), wanted, "{from} {to} {after}");
    }
}

#[test]
fn a_session_goes_on_or_ends_with_the_state_that_a_refused_set_leaves() {
    for (fault, read) in [("old", Ok(HEADER_LEN)), ("first", Ok(HEADER_LEN)), ("error", Err(Errno::NODEV))] {
        let mut sim = sim(&format!("fail=set-stop_copy:1:EIO:{fault}"));
        let data_fd = open(&mut sim, State::PreCopy);
        sim.set_state(State::StopCopy.raw()).unwrap_err();
        assert_eq!(data_fd.read(&mut [0; HEADER_LEN]), read, "{fault}");
    }
}

#[test]
fn in_error_nothing_is_possible_but_a_reset() {
    for state in [State::Running, State::PreCopy, State::StopCopy, State::Resuming] {
        let mut sim = sim("fail=set-stop:1:EIO:error");
        let data_fd = sim.set_state(state.raw()).unwrap();
        sim.set_state(State::Stop.raw()).unwrap_err();
        for to in State::ALL {
            assert_eq!(sim.set_state(to.raw()).unwrap_err(), Errno::INVAL, "{state} {to}");
        }
        if let Some(data_fd) = data_fd {
            let answer = data_fd.read(&mut [0]).or_else(|_| data_fd.write(&[0]));
            assert!(matches!(answer, Err(Errno::NODEV | Errno::BADF)), "{state}");
            assert!(data_fd.precopy_info().is_err());
        }
        assert_eq!(sim.write_content(0, &[1]), Err(Errno::BUSY));
        assert_eq!((sim.get_state(), sim.data_size()), (State::Error, 60));
        sim.try_reset().unwrap();
        assert_eq!(sim.get_state(), State::Running);
        assert!(state_of(sim).ends_with(&[0; 36]));
    }
}

#[test]
fn a_refused_reset_leaves_the_device_where_it_was_or_in_error() {
    let mut sim = sim("fail=reset:1,fail=reset:2:EIO:unknown");
    let data_fd = open(&mut sim, State::StopCopy);
    assert_eq!((sim.try_reset(), sim.get_state()), (Err(Errno::IO), State::StopCopy));
    assert_eq!(data_fd.read(&mut [0]), Ok(1));
    assert_eq!((sim.try_reset(), sim.get_state()), (Err(Errno::IO), State::Error));
    assert_eq!(data_fd.read(&mut [0]), Err(Errno::NODEV));
    assert_eq!((sim.try_reset(), sim.get_state()), (Ok(()), State::Running));
}

#[test]
fn a_failed_read_loses_no_byte() {
    let mut sim = sim("fail=read:2,fail=read:3:EINTR");
    let data_fd = open(&mut sim, State::StopCopy);
    let mut state = vec![];
    for wanted in [Ok(30), Err(Errno::IO), Err(Errno::INTR), Ok(30)] {
        let mut buffer = [0xa5; 30];
        let got = data_fd.read(&mut buffer);
        assert_eq!(got, wanted);
        state.extend_from_slice(&buffer[..got.unwrap_or(0)]);
    }
    assert_eq!(state, whole_state());
}

#[test]
fn after_a_failed_write_only_a_reset_leaves_resuming_unless_it_was_no_more_than_again() {
    let whole = whole_state();
    for (errno, lasts) in [("EIO", true), ("ENOMEM", true), ("EINTR", false), ("EAGAIN", false)] {
        let mut sim = sim(&format!("fail=write:2:{errno}"));
        let data_fd = open(&mut sim, State::Resuming);
        write_all(&data_fd, &whole[..30]);
        let refused = data_fd.write(&whole[30..]).unwrap_err();
        if lasts {
            assert_eq!(data_fd.write(&whole[30..]), Err(refused), "{errno}");
            assert_eq!(sim.set_state(State::Stop.raw()).unwrap_err(), Errno::INVAL, "{errno}");
            assert_eq!(sim.get_state(), State::Resuming);
        } else {
            write_all(&data_fd, &whole[30..]);
            sim.set_state(State::Stop.raw()).unwrap();
            assert_eq!(sim.content(), &whole[HEADER_LEN..], "{errno}");
        }
    }
}

#[test]
fn a_guest_resets_its_device_just_before_any_call() {
    let mut sim =
        sim("guest-reset=set-stop_copy:2,guest-reset=read:2,guest-reset=info:1,guest-reset=data-size:1");
    let data_fd = open(&mut sim, State::StopCopy);
    assert_eq!(data_fd.read(&mut [0]), Ok(1));
    assert_eq!(data_fd.read(&mut [0]), Err(Errno::NODEV));
    assert_eq!((sim.get_state(), sim.content()), (State::Running, &[0; 36][..]));
    sim.set_state(State::PreCopy.raw()).unwrap();
    assert!(sim.set_state(State::StopCopy.raw()).unwrap().is_some(), "from RUNNING: a new session");
    sim.set_state(State::Running.raw()).unwrap();
    let data_fd = open(&mut sim, State::PreCopy);
    assert_eq!((data_fd.precopy_info(), sim.get_state()), (Err(Errno::INVAL), State::Running));
    sim.set_state(State::Stop.raw()).unwrap();
    assert_eq!((sim.try_data_size(), sim.get_state()), (Ok(60), State::Running));
}

#[test]
fn a_guest_resets_its_device_while_its_state_is_written_or_asked_for() {
    let mut sim = sim("guest-reset=write:2,guest-reset=get:1,guest-reset=reset:1,fail=reset:1");
    let data_fd = open(&mut sim, State::Resuming);
    let whole = whole_state();
    write_all(&data_fd, &whole[..30]);
    assert_eq!(data_fd.write(&whole[30..]), Err(Errno::NODEV));
    sim.set_state(State::Stop.raw()).unwrap();
    assert_eq!(sim.try_get_state(), Ok(State::Running));
    sim.set_state(State::Stop.raw()).unwrap();
    assert_eq!((sim.try_reset(), sim.get_state()), (Err(Errno::IO), State::Running));
}

#[test]
fn a_vmm_meets_a_guests_reset_as_a_dead_fd_an_unexpected_one_or_a_missing_one() {
    let mut device = Assigned::new(sim("guest-reset=read:1"));
    device.set_state(State::StopCopy).unwrap();
    assert_eq!(device.read_data(&mut [0]), Err(ENODEV));
    let mut device = Assigned::new(sim("guest-reset=set-stop_copy:1"));
    device.set_state(State::PreCopy).unwrap();
    assert_eq!(device.set_state(State::StopCopy), Err(EBADF));
    let mut device = Assigned::new(sim("guest-reset=set-pre_copy:2"));
    device.set_state(State::StopCopy).unwrap();
    device.set_state(State::Stop).unwrap();
    device.set_state(State::PreCopy).unwrap();
    assert_eq!(device.set_state(State::PreCopy), Err(EBADF), "kept was wanted, opened it was");
}

#[test]
fn a_vmm_keeps_its_data_fd_after_a_refusal_only_where_the_session_goes_on() {
    for (keys, read) in [
        ("fail=set-stop_copy:1:EIO:old", Ok(DataRead::Bytes(1))),
        ("fail=set-stop_copy:1:EIO:first", Ok(DataRead::Bytes(1))),
        ("fail=set-stop_copy:1:EIO:error", Err(EBADF)),
        ("fail=set-stop_copy:1:EIO:old,fail=get:1", Err(EBADF)), // where the device is, it does not know
    ] {
        let mut device = Assigned::new(sim(keys));
        device.set_state(State::PreCopy).unwrap();
        assert_eq!(device.set_state(State::StopCopy), Err(EIO), "{keys}");
        assert_eq!(device.read_data(&mut [0]), read, "{keys}");
    }
    let mut device = Assigned::new(sim("fail=set-stop_copy:1:EIO:first,flags=1"));
    device.set_state(State::Stop).unwrap();
    assert_eq!(device.set_state(State::StopCopy), Err(EIO));
    assert_eq!((device.sim.get_state(), device.read_data(&mut [0])), (State::StopCopy, Err(EBADF)));
    device.set_state(State::Stop).unwrap();
    device.set_state(State::StopCopy).unwrap();
    assert_eq!(device.read_data(&mut [0]), Ok(DataRead::Bytes(1)));
}

#[test]
fn a_vmm_asks_a_device_in_error_for_no_state() {
    let mut device = Assigned::new(sim("fail=set:2:EIO:error,fail=set:3:EPERM"));
    device.set_state(State::PreCopy).unwrap();
    assert_eq!(device.set_state(State::StopCopy), Err(EIO));
    assert_eq!([State::Running, State::Stop].map(|state| device.set_state(state)), [Err(EINVAL); 2]);
    device.reset().unwrap();
    assert_eq!(device.set_state(State::Stop), Err(Code(1)), "the third SET that the device gets");
}

#[test]
fn a_vmm_that_does_not_know_where_its_device_is_brings_it_back_by_name_and_takes_no_session() {
    let mut device = Assigned::new(sim("fail=set-stop_copy:1:EIO:first,fail=get:1"));
    let content = device.sim.content().to_vec();
    device.set_state(State::PreCopy).unwrap();
    assert_eq!(device.set_state(State::StopCopy), Err(EIO));
    device.set_state(State::Running).unwrap();
    assert_eq!((device.sim.get_state(), device.sim.content()), (State::Running, &content[..]));
    let mut device = Assigned::new(sim("fail=set-resuming:1:EIO:first,fail=get:1"));
    assert_eq!(device.set_state(State::Resuming), Err(EIO));
    device.set_state(State::StopCopy).unwrap();
    assert_eq!((device.sim.get_state(), device.read_data(&mut [0])), (State::StopCopy, Err(EBADF)));
    device.set_state(State::Stop).unwrap();
    device.set_state(State::StopCopy).unwrap();
    assert_eq!(device.read_data(&mut [0]), Ok(DataRead::Bytes(1)));
}

#[test]
fn a_vmm_hears_each_refusal() {
    let keys = "fail=info:1,fail=read:1,fail=reset:1:EBUSY:unknown,fail=write:1:EPERM,fail=data-size:1";
    let mut device = Assigned::new(sim(keys));
    assert_eq!(device.data_size(), Err(Errno::IO));
    assert_eq!(device.data_size(), Ok(60));
    device.set_state(State::PreCopy).unwrap();
    assert_eq!(device.precopy_info().unwrap_err(), EIO);
    assert_eq!(device.read_data(&mut [0]), Err(EIO));
    assert_eq!(device.reset(), Err(Code(16)));
    assert_eq!(device.set_state(State::Running), Err(EINVAL));
    device.reset().unwrap();
    device.set_state(State::Resuming).unwrap();
    assert_eq!(device.write_data(&[0]), Err(Code(1)));
}

#[test]
fn a_fault_that_is_added_later_counts_from_then_on() {
    let mut sim = sim("");
    let data_fd = open(&mut sim, State::StopCopy);
    data_fd.read(&mut [0]).unwrap();
    sim.fail(Fault::eio(Call::nth(Operation::Read, 2)).with(Errno::BUSY).leaving(After::Old));
    sim.guest_resets_before(Call::nth(Operation::Read, 4));
    let answers = [(); 4].map(|()| data_fd.read(&mut [0]));
    assert_eq!(answers, [Ok(1), Err(Errno::BUSY), Ok(1), Err(Errno::NODEV)]);
}

#[test]
fn a_device_takes_and_gives_few_bytes_at_once() {
    let mut source = sim("short=7");
    let data_fd = open(&mut source, State::StopCopy);
    assert_eq!((data_fd.read(&mut [0xa5; 100]), data_fd.read(&mut [0xa5; 3])), (Ok(7), Ok(3)));
    assert_eq!(read_up_to(&data_fd, 100, Ok(0)).len(), 50);
    let mut target = sim("short=7");
    let data_fd = open(&mut target, State::Resuming);
    let whole = whole_state();
    assert_eq!((data_fd.write(&whole), data_fd.write(&whole[7..10])), (Ok(7), Ok(3)));
    whole[10..].chunks(7).for_each(|bytes| write_all(&data_fd, bytes));
    target.set_state(State::Stop.raw()).unwrap();
    assert_eq!(target.content(), source.content());
}

#[test]
fn a_slow_device_takes_its_time() {
    let mut sim = sim("slow=1000,slow-set=2000");
    let start = Instant::now();
    let data_fd = open(&mut sim, State::StopCopy); // three steps
    assert!(start.elapsed() >= Duration::from_millis(6));
    let start = Instant::now();
    (0..3).for_each(|_| assert_eq!(data_fd.read(&mut [0]), Ok(1)));
    assert!(start.elapsed() >= Duration::from_millis(3));
}

/// A device whose state is as long as mtty's.
fn sim(keys: &str) -> Sim {
    let comma = if keys.is_empty() { "" } else { "," };
    Sim::new(format!("size=36,seed=7{comma}{keys}").parse().unwrap())
}

fn open(sim: &mut Sim, state: State) -> DataFd {
    sim.set_state(state.raw()).unwrap().unwrap()
}
