//! The simulated device against a transcript of mtty, the kernel's sample device: the same calls, the same answers.
//!
//! Deliberately absent: what a simulated device does not have (`poll`, `lseek`, a serial port's registers);
//! `UNCOMPARED` names the lines that are passed over, and the number of compared ones is asserted.

use vfio_migration_core::device::State;
use vfio_migration_host::sim::{DataFd, Errno, Sim};
use vfio_migration_tests::golden::MTTY_TRANSCRIPT;
use vfio_migration_tests::kernel::{self, state_number};
use vfio_migration_tests::sim::{mtty_like, whole_state, write_all};

#[test]
fn each_cell_of_mttys_transition_matrices_is_answered_alike() {
    let [nothing_written, whole_state_written] = kernel::matrices();
    assert_eq!((nothing_written.len(), whole_state_written.len()), (70, 10));
    for (cells, state) in [(nothing_written, vec![]), (whole_state_written, whole_state())] {
        for cell in cells {
            let mut sim = mtty_like();
            let data_fd = sim.set_state(cell.from.raw()).unwrap();
            if !state.is_empty() {
                write_all(&data_fd.unwrap(), &state);
            }
            let answer = sim.set_state(cell.to).map(|data_fd| data_fd.is_some());
            assert_eq!(answer.map_err(Errno::raw_os_error), cell.answer, "{cell:?}");
            assert_eq!(sim.get_state(), cell.after, "{cell:?}");
        }
    }
}

#[test]
fn each_call_of_mttys_transcript_is_answered_alike_but_for_the_two_that_follow_the_uapi() {
    let calls = MTTY_TRANSCRIPT.lines().skip_while(|line| !line.starts_with("== SAVE with precopy"));
    let mut replay = Replay::default();
    for line in calls.take_while(|line| !line.starts_with("== transition matrix")) {
        replay.line(line);
    }
    assert_eq!(replay.compared, 79);
    assert_eq!(replay.drained_instead_of_0, 3, "read(16), read again, read dirtied");
    assert_eq!(replay.refused_instead_of_loaded, 3, "after 1 beyond, bad magic, nr_ports=2");
}

/// Makes mtty's calls on simulated devices and compares the answers.
#[derive(Default)]
struct Replay {
    devices: [Option<Replayed>; 2],
    current: usize,
    compared: u32,
    drained_instead_of_0: u32,
    refused_instead_of_loaded: u32,
}

struct Replayed {
    sim: Sim,
    data_fd: Option<DataFd>,
    written: usize,
    refused: bool,
}

impl Replay {
    fn line(&mut self, line: &str) {
        let call = line.trim();
        if let Some(rest) = call.strip_prefix("A ").or(call.strip_prefix("B ")) {
            self.current = usize::from(call.starts_with('B'));
            self.call(rest, line);
        } else if !UNCOMPARED.iter().any(|part| call.contains(part)) && !is_dump(call) {
            self.call(call, line);
        }
    }

    fn call(&mut self, call: &str, line: &str) {
        self.compared += 1;
        let device = self.devices[self.current].get_or_insert_with(|| Replayed {
            sim: mtty_like(),
            data_fd: None,
            written: 0,
            refused: false,
        });
        if call.starts_with("SET ") {
            self.refused_instead_of_loaded += u32::from(device.set(call, line));
        } else if call.contains("VFIO_MIG_GET_PRECOPY_INFO = ") {
            let answer = device.data_fd.as_ref().unwrap().precopy_info();
            let ours = answer.map(|info| (info.flags, info.initial_bytes, info.dirty_bytes));
            let kernel =
                outcome(line).map(|_| (0, number(line, "initial_bytes="), number(line, "dirty_bytes=")));
            assert_eq!(ours.map_err(Errno::raw_os_error), kernel, "{line}");
        } else if call.contains("MIG_DATA_SIZE = 0") {
            assert_eq!(device.sim.data_size(), number(line, "stop_copy_length="), "{line}");
        } else if call.starts_with("read") {
            self.drained_instead_of_0 += u32::from(device.read(call, line));
        } else if call.starts_with("write") {
            device.write(call, line);
        } else if call.starts_with("-- dirty it") {
            device.sim.write_content(0, b"xyz").unwrap();
        } else if call == "state after reset: RUNNING" {
            assert_eq!(device.sim.get_state(), State::Running);
        } else {
            assert!(
                call.to_lowercase().contains("reset") && call.ends_with(" = 0"),
                "not understood: {line}"
            );
            device.sim.reset();
        }
    }
}

impl Replayed {
    /// Returns whether the simulated device refused what mtty did.
    fn set(&mut self, call: &str, line: &str) -> bool {
        let (to, rest) = call["SET ".len()..].split_once(": ").unwrap();
        let (from, rest) = rest.split_once(" -> ").unwrap();
        assert_eq!(self.sim.get_state().name(), from, "{line}");
        let answer = self.sim.set_state(state_number(to));
        if self.refused && from == "RESUMING" {
            assert_eq!(answer.unwrap_err(), Errno::INVAL, "{line}");
            assert!(
                rest.starts_with("ret=0 data_fd=-1") && self.sim.get_state() == State::Resuming,
                "{line}"
            );
            self.sim.reset();
            assert!(self.sim.set_state(state_number(to)).unwrap().is_none());
            return true;
        }
        let given = answer.as_ref().is_ok_and(Option::is_some);
        assert_eq!(given, !rest.contains("data_fd=-1"), "{line}");
        if given {
            (self.written, self.refused) = (0, false);
        }
        match answer {
            Ok(data_fd) => {
                assert!(rest.starts_with("ret=0 "), "{line}");
                self.data_fd = data_fd.or(self.data_fd.take());
            }
            Err(errno) => {
                assert!(
                    rest.starts_with(&format!("ret=-1 errno=EINVAL ({})", errno.raw_os_error())),
                    "{line}"
                );
            }
        }
        assert!(rest.ends_with(&format!("state-now={}", self.sim.get_state())), "{line}");
        false
    }

    /// Returns whether the simulated device said ENOMSG where mtty said 0.
    fn read(&mut self, call: &str, line: &str) -> bool {
        let asked = call.strip_prefix("read(").and_then(|rest| rest.split_once(')')?.0.parse().ok());
        let mut buffer = vec![0xa5; asked.unwrap_or(4096)];
        let answer = self.data_fd.as_ref().unwrap().read(&mut buffer);
        let pre_copy = matches!(self.sim.get_state(), State::PreCopy | State::PreCopyP2p);
        if pre_copy && outcome(line) == Ok(0) {
            assert_eq!(answer, Err(Errno::NOMSG), "{line}");
            return true;
        }
        assert_eq!(answer.map_err(Errno::raw_os_error), outcome(line), "{line}");
        false
    }

    fn write(&mut self, call: &str, line: &str) {
        let mut whole = whole_state();
        let bytes = match (call, outcome(line)) {
            (call, _) if call.contains("bad magic") => {
                whole[0] ^= 1;
                &whole[..]
            }
            (call, _) if call.contains("nr_ports=2") => {
                whole[16] ^= 1;
                &whole[..]
            }
            (call, _) if call.contains("too long") => {
                whole.push(0);
                &whole[..]
            }
            (_, Ok(len)) => &whole[self.written..][..len],
            (_, Err(_)) => &[0],
        };
        let answer = self.data_fd.as_ref().unwrap().write(bytes);
        assert_eq!(answer.map_err(Errno::raw_os_error), outcome(line), "{line}");
        self.written += answer.unwrap_or(0);
        self.refused |= matches!(answer, Err(Errno::FAULT | Errno::NOMEM));
    }
}

fn is_dump(call: &str) -> bool {
    call.is_empty() || call.starts_with("00")
}

/// What in a line says that it is about something that a simulated device does not have, or repeats another line.
const UNCOMPARED: [&str; 13] = [
    "== ",
    "poll(",
    "F_GETFL",
    "argsz=8",
    "ioctl(data_fd",
    "on the device fd",
    "lseek(",
    "pread(",
    "mmap(",
    "(data_fd from",
    "state A (",
    "identical to",
    "SCR=",
];

/// The answer at the end of a line: a number, or an errno's.
fn outcome(line: &str) -> Result<usize, i32> {
    let (_, answer) = line.rsplit_once(" = ").unwrap();
    match answer.split_once(" errno=") {
        Some((_, errno)) => {
            let number = errno.rsplit_once('(').unwrap().1.trim_end_matches(')');
            Err(number.parse().unwrap())
        }
        None => Ok(answer.split(' ').next().unwrap().parse().unwrap()),
    }
}

fn number(line: &str, name: &str) -> u64 {
    line.split_once(name).unwrap().1.split(' ').next().unwrap().parse().unwrap()
}
