//! Rules about the data fd: which arcs give one, which end it, and what can't be done with it.
//!
//! Four rules write to resuming sessions that have ended: FD-05, FD-06, FD-07 and FD-13. No other rule does that.
//!
//! Deliberately absent: the bytes that go through it.

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::State;
use vfio_migration_core::device::arc::DataSession;

use super::data::Data;
use super::trial::{Checked, Trial};
use super::walk::{LateWrite, Seen, Walked, late_writes, may_enter, walk};
use super::words::{bytes, said};
use super::{Level, Need, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "FD-01",
        level: Level::Must,
        statement: "each arc that opens a session gives a data fd",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: the FD associated with that session is returned in \
                 data_fd",
        why: "Without the descriptor nothing can be read or written, and the migration fails although the \
              device said yes. From RUNNING_P2P a VMM enters pre-copy when several devices go in lockstep.",
        remedy: "Return a file from every step into PRE_COPY, PRE_COPY_P2P (from RUNNING_P2P), STOP_COPY \
                 (from STOP) and RESUMING, also where it is the last of a combined arc.",
        needs: &[Need::StopCopy],
        check: opens,
    },
    Rule {
        id: "FD-02",
        level: Level::Must,
        statement: "arcs within a session give no data fd, and the old one goes on",
        source: "moving between these states does not terminate or otherwise affect the associated fd",
        why: "A VMM goes on reading where it was. With a second descriptor it does not know which one has the \
              rest, and where the old one has ended the state is cut.",
        remedy: "Return NULL from PRE_COPY → PRE_COPY_P2P, back, and PRE_COPY_P2P → STOP_COPY, and keep the \
                 same file.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: keeps,
    },
    Rule {
        id: "FD-03",
        level: Level::Must,
        statement: "arcs that end a session, and arcs without one, give no data fd",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: data_fd if the new_state starts a new data transfer \
                 session",
        why: "A VMM that gets a descriptor where none can be takes the device for out of step with itself \
              (QEMU reports a bad file descriptor and fails), or leaks one with each migration.",
        remedy: "Return NULL from every step that starts no session.",
        needs: &[Need::StopCopy],
        check: ends_without,
    },
    Rule {
        id: "FD-04",
        level: Level::Must,
        statement: "the data fd of a saving session that has ended gives no data and no end of data",
        source: "STOP_COPY -> STOP, PRE_COPY -> RUNNING, PRE_COPY_P2P -> RUNNING_P2P: terminate a data \
                 transfer session",
        why: "A reader that is late must learn that the session is over. Where it reads 0 it takes the cut \
              state for a whole one; where it reads data they are of another moment. Any errno will do.",
        remedy: "Mark the file as disabled under its lock when the session ends, and return -ENODEV from then \
                 on.",
        needs: &[Need::StopCopy],
        check: ended_saving,
    },
    Rule {
        id: "FD-05",
        level: Level::Must,
        statement: "the data fd of a resuming session that has ended takes no data",
        source: "RESUMING -> STOP: leaving RESUMING terminates a data transfer session",
        why: "A writer that is late must learn that its data go nowhere. Where they are taken, a VMM believes \
              that the device has them, or they change a device that already runs. Any errno will do. A \
              driver that has freed the session's buffers and looks at them first takes the kernel down here: \
              virtio_vfio_pci does.",
        remedy: "Mark the file as disabled under its lock when the session ends, look at that before anything \
                 else in write(), and return -ENODEV from then on.",
        needs: &[Need::StopCopy, Need::Reset, Need::State],
        check: ended_resuming,
    },
    Rule {
        id: "FD-06",
        level: Level::Must,
        statement: "where one SET replaces the session, the old data fd moves no more data",
        source: "combination of an arc that terminates a session and one that starts another",
        why: "RESUMING can be asked for from STOP_COPY in one SET. Two descriptors that both work give and \
              take states at the same time, and neither is whole.",
        remedy: "Do each step of a combined arc as if it were asked for alone, the end of the old session \
                 too.",
        needs: &[Need::StopCopy, Need::Reset],
        check: replaced,
    },
    Rule {
        id: "FD-07",
        level: Level::Must,
        statement: "a reset ends the session",
        source: "any -> ERROR: VFIO_DEVICE_RESET returns the device_state back to RUNNING, which has no \
                 session",
        why: "A reset aborts a migration, also one of the guest's own. A session that goes on gives the state \
              from before the reset, and the other side starts with what the guest has thrown away.",
        remedy: "End the session in the reset handler as the arcs do, under the state's lock.",
        needs: &[Need::StopCopy, Need::Reset],
        check: reset_ends,
    },
    Rule {
        id: "FD-08",
        level: Level::Must,
        statement: "the data fd of a saving session can't be written",
        source: "write(2): EBADF where the file is not open for writing",
        why: "A mistake in a VMM must be seen where it is made. A write that is taken while saving is lost, \
              or changes what is saved.",
        remedy: "Create the file with O_RDONLY and without a write operation: the kernel answers EBADF then.",
        needs: &[Need::StopCopy],
        check: saving_is_read_only,
    },
    Rule {
        id: "FD-09",
        level: Level::Must,
        statement: "the data fd of a resuming session can't be read",
        source: "read(2): EBADF where the file is not open for reading",
        why: "A mistake in a VMM must be seen where it is made. What is read back while loading is of another \
              guest, or of none.",
        remedy: "Create the file with O_WRONLY and without a read operation: the kernel answers EBADF then.",
        needs: &[Need::StopCopy, Need::Reset],
        check: resuming_is_write_only,
    },
    Rule {
        id: "FD-10",
        level: Level::Should,
        statement: "a data fd answers ESPIPE to lseek()",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: the user must preserve the byte order of the stream",
        why: "A data fd is a stream. Programs ask with lseek() whether they may jump in a file; one that is \
              told yes skips or repeats parts of the state.",
        remedy: "Open the file with stream_open(), and have no llseek operation.",
        needs: &[Need::StopCopy],
        check: no_seek,
    },
    Rule {
        id: "FD-11",
        level: Level::Should,
        statement: "data fds answer ESPIPE to pread() and pwrite()",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: the user must preserve the byte order of the stream",
        why: "Data can't be had from a place in a stream. A driver that takes an offset either ignores it, \
              and gives other bytes than were asked for, or jumps in its own state.",
        remedy: "Open the file with stream_open(), and refuse a position with -ESPIPE.",
        needs: &[Need::StopCopy],
        check: no_position,
    },
    Rule {
        id: "FD-12",
        level: Level::Should,
        statement: "a data fd answers ENOTTY to an ioctl that it does not have",
        source: "ioctl(2): ENOTTY where the request is none of the file's",
        why: "Later kernels may give data fds more requests. A VMM tries and looks at the answer; success \
              says that something was done.",
        remedy: "Compare the request's number first, and return -ENOTTY for all others.",
        needs: &[Need::StopCopy],
        check: unknown_request,
    },
    Rule {
        id: "FD-13",
        level: Level::Should,
        statement: "a data fd whose session has ended answers ENODEV to read() and write()",
        source: "not in the uapi; what the kernel's drivers do",
        why: "By ENODEV a VMM tells a session that is over, by a reset of the guest's for instance, from a \
              device that failed while it was read.",
        remedy: "Return -ENODEV from a file that is disabled, before the hardware is asked.",
        needs: &[Need::StopCopy],
        check: ended_is_enodev,
    },
];

/// Each arc that was taken, of those whose session goes as wanted.
fn each(
    trial: &mut Trial<'_, '_>,
    wanted: &[DataSession],
    judge: impl Fn(&mut Trial<'_, '_>, &Walked, &Seen),
) {
    let walked = walk(trial);
    let meant = walked.iter().filter(|walked| walked.steps > 0 && wanted.contains(&walked.session));
    for walked in meant {
        match &walked.seen {
            Ok(seen) if seen.answer.is_ok() => judge(trial, walked, seen),
            Ok(seen) => {
                let Walked { from, to, .. } = walked;
                trial.missed(format!("{from} → {to} is refused: {}", said(&seen.answer)));
            }
            Err(reason) => trial.missed(reason.clone()),
        }
    }
}

fn opens(trial: &mut Trial<'_, '_>) -> Checked {
    each(trial, &[DataSession::Opens, DataSession::Replaced], |trial, Walked { from, to, .. }, seen| {
        trial.expect(seen.answer == Ok(true), || format!("{from} → {to}: wanted a data fd, got none"));
    });
    Ok(())
}

fn keeps(trial: &mut Trial<'_, '_>) -> Checked {
    each(trial, &[DataSession::Kept], |trial, Walked { from, to, .. }, seen| {
        trial.expect(seen.answer == Ok(false), || format!("{from} → {to}: wanted no data fd, got one"));
        trial.expect(seen.old != Some(Err(Errno::NODEV)), || {
            format!("{from} → {to}: wanted the data fd to go on, got ENODEV")
        });
    });
    Ok(())
}

fn ends_without(trial: &mut Trial<'_, '_>) -> Checked {
    each(trial, &[DataSession::Ends, DataSession::Absent], |trial, Walked { from, to, .. }, seen| {
        trial.expect(seen.answer == Ok(false), || format!("{from} → {to}: wanted no data fd, got one"));
    });
    Ok(())
}

/// Each write behind the end of a resuming session, of those that ended as wanted.
fn each_late(
    trial: &mut Trial<'_, '_>,
    wanted: DataSession,
    judge: impl Fn(&mut Trial<'_, '_>, &str, &Answer<usize>),
) {
    let writes = late_writes(trial);
    for LateWrite { to, answer, .. } in writes.iter().filter(|write| write.session == wanted) {
        match answer {
            Ok(answer) => judge(trial, &format!("{} → {to}", State::Resuming), answer),
            Err(reason) => trial.missed(reason.clone()),
        }
    }
}

fn ended_saving(trial: &mut Trial<'_, '_>) -> Checked {
    each(trial, &[DataSession::Ends], |trial, Walked { from, to, .. }, seen| {
        if let Some(old) = &seen.old {
            trial.expect(old.is_err(), || {
                format!("read() after {from} → {to}: wanted an errno, got {}", bytes(old))
            });
        }
    });
    Ok(())
}

fn ended_resuming(trial: &mut Trial<'_, '_>) -> Checked {
    each_late(trial, DataSession::Ends, |trial, arc, answer| {
        trial.expect(answer.is_err(), || {
            format!("write() after {arc}: wanted an errno, got {}", bytes(answer))
        });
    });
    Ok(())
}

/// Which errno it is. Whether it is one is for other rules.
fn ended_is_enodev(trial: &mut Trial<'_, '_>) -> Checked {
    let judge = |trial: &mut Trial<'_, '_>, what: &str, answer: &Answer<usize>| {
        if answer.is_err() {
            trial.expect(*answer == Err(Errno::NODEV), || {
                format!("{what}: wanted ENODEV, got {}", bytes(answer))
            });
        }
    };
    each(trial, &[DataSession::Ends], |trial, Walked { from, to, .. }, seen| {
        if let Some(old) = &seen.old {
            judge(trial, &format!("read() after {from} → {to}"), old);
        }
    });
    each_late(trial, DataSession::Ends, |trial, arc, answer| {
        judge(trial, &format!("write() after {arc}"), answer);
    });
    Ok(())
}

fn replaced(trial: &mut Trial<'_, '_>) -> Checked {
    let judge = |trial: &mut Trial<'_, '_>, arc: &str, old: &Answer<usize>| {
        trial.expect(!old.is_ok_and(|count| count > 0), || {
            format!("{arc}: wanted an end of the old data fd, got {} through it", bytes(old))
        });
    };
    each(trial, &[DataSession::Replaced], |trial, Walked { from, to, .. }, seen| {
        if let Some(old) = &seen.old {
            judge(trial, &format!("{from} → {to}"), old);
        }
    });
    if takes_late_writes(trial) {
        trial.missed(AFTER_ANY_END);
    } else {
        each_late(trial, DataSession::Replaced, judge);
    }
    Ok(())
}

/// A driver that takes writes after any end is FD-05's.
fn takes_late_writes(trial: &mut Trial<'_, '_>) -> bool {
    let writes = late_writes(trial);
    let ends = writes.iter().filter(|write| write.session == DataSession::Ends);
    let mut answers = ends.filter_map(|write| write.answer.as_ref().ok()).peekable();
    answers.peek().is_none() || answers.any(|answer| answer.is_ok_and(|count| count > 0))
}

fn reset_ends(trial: &mut Trial<'_, '_>) -> Checked {
    for at in [State::PreCopy, State::PreCopyP2p, State::StopCopy] {
        if trial.lab.has(at) {
            behind_a_reset(trial, at, |data| data.peek(&mut [0; 4096]))?;
        }
    }
    if takes_late_writes(trial) {
        trial.missed(AFTER_ANY_END);
        return Ok(());
    }
    let beginning = trial.beginning()?;
    behind_a_reset(trial, State::Resuming, |data| data.write(&beginning))
}

fn behind_a_reset(trial: &mut Trial<'_, '_>, at: State, call: impl Fn(&Data) -> Answer<usize>) -> Checked {
    trial.go_on()?;
    let data = trial.session(at)?;
    if trial.resets_in(at) {
        let got = call(&data);
        trial.expect(!got.is_ok_and(|count| count > 0), || {
            format!("after a reset in {at}: wanted an end of the data fd, got {} through it", bytes(&got))
        });
    }
    Ok(())
}

fn saving_is_read_only(trial: &mut Trial<'_, '_>) -> Checked {
    for at in saving(trial) {
        let answer = trial.session(at)?.write(&[0; 64]);
        trial.expect(answer.is_err(), || format!("write() in {at}: wanted EBADF, got {}", bytes(&answer)));
        trial.tried(format!("{} in {at}", bytes(&answer)));
    }
    Ok(())
}

fn resuming_is_write_only(trial: &mut Trial<'_, '_>) -> Checked {
    let answer = trial.session(State::Resuming)?.peek(&mut [0; 64]);
    trial.expect(answer.is_err(), || format!("read() in RESUMING: wanted EBADF, got {}", bytes(&answer)));
    trial.tried(bytes(&answer));
    Ok(())
}

fn no_seek(trial: &mut Trial<'_, '_>) -> Checked {
    in_each_session(trial, |trial, at, data| {
        let answer = data.seek();
        trial.expect(answer == Err(Errno::SPIPE), || {
            format!("lseek() in {at}: wanted ESPIPE, got {}", said(&answer))
        });
    })
}

fn no_position(trial: &mut Trial<'_, '_>) -> Checked {
    in_each_session(trial, |trial, at, data| {
        let (call, answer) = if at == State::Resuming {
            ("pwrite()", data.write_at(&[0; 64]))
        } else {
            ("pread()", data.read_at(&mut [0; 64]))
        };
        trial.expect(answer == Err(Errno::SPIPE), || {
            format!("{call} in {at}: wanted ESPIPE, got {}", bytes(&answer))
        });
    })
}

fn unknown_request(trial: &mut Trial<'_, '_>) -> Checked {
    in_each_session(trial, |trial, at, data| {
        let answer = data.unknown_request();
        trial.expect(answer == Err(Errno::NOTTY), || {
            format!("an unknown ioctl in {at}: wanted ENOTTY, got {}", said(&answer))
        });
    })
}

/// Does something with a data fd of each kind.
fn in_each_session(trial: &mut Trial<'_, '_>, judge: impl Fn(&mut Trial<'_, '_>, State, &Data)) -> Checked {
    for at in saving(trial).into_iter().chain([State::Resuming]) {
        if may_enter(trial, at) {
            let data = trial.session(at)?;
            judge(trial, at, &data);
        }
    }
    Ok(())
}

/// One state of each kind of saving session.
fn saving(trial: &Trial<'_, '_>) -> Vec<State> {
    [State::PreCopy, State::StopCopy].into_iter().filter(|&at| trial.lab.has(at)).collect()
}

const AFTER_ANY_END: &str = "RESUMING: writes are taken after any end, or none could be tried";
