//! Rules about `VFIO_MIG_GET_PRECOPY_INFO`, what a device says of its pre-copy.
//!
//! Deliberately absent: the data themselves, which come whatever is said of them.

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::State;
use vfio_migration_core::device::uapi::PrecopyInfo;

use super::data::Data;
use super::pre::READS;
use super::trial::{Checked, Skip, Trial};
use super::words::{name, said};
use super::{Level, Need, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PRE-01",
        level: Level::Must,
        statement: "PRECOPY_INFO answers in PRE_COPY and PRE_COPY_P2P",
        source: "VFIO_MIG_GET_PRECOPY_INFO: mandatory if a driver claims to support VFIO_MIGRATION_PRE_COPY",
        why: "By these numbers a VMM decides when to stop the machine. On some devices the call also makes \
              the next data ready: without it nothing more ever comes.",
        remedy: "Answer in both states, from what is known without the hardware if it is busy.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: answers,
    },
    Rule {
        id: "PRE-02",
        level: Level::Must,
        statement: "PRECOPY_INFO is refused in STOP_COPY and after the session's end",
        source: "VFIO_MIG_GET_PRECOPY_INFO: valid only in PRE_COPY states",
        why: "In STOP_COPY the machine stands still, and what is left is told by the data's end alone. A VMM \
              that gets numbers there goes on planning its downtime with them.",
        remedy: "Check the state under its lock, and the file for the end of its session.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: refused_elsewhere,
    },
    Rule {
        id: "PRE-03",
        level: Level::Must,
        statement: "PRECOPY_INFO with an argsz below 24 is refused",
        source: "VFIO conventions: argsz, user filled size of this data",
        why: "The caller says how much memory it lends. A driver that writes 24 bytes all the same writes \
              over whatever lies behind.",
        remedy: "Compare argsz with offsetofend(struct vfio_precopy_info, dirty_bytes), and return -EINVAL \
                 below it.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: short_argument,
    },
    Rule {
        id: "PRE-04",
        level: Level::Should,
        statement: "what the caller left in the sizes of PRECOPY_INFO does not come back",
        source: "VFIO_MIG_GET_PRECOPY_INFO: returns an estimate of the current data sizes",
        why: "A VMM that reuses its structure reads its own old numbers for the device's, and stops too early \
              or never. The flags are not judged: before MIG_PRECOPY_INFOv2 a kernel may give the caller's \
              own back.",
        remedy: "Set initial_bytes and dirty_bytes on every call, also where they are 0.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: nothing_stale,
    },
    Rule {
        id: "PRE-05",
        level: Level::Should,
        statement: "the flags of PRECOPY_INFO are 0 for a caller that has not asked for them",
        source: "VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: from then on the flags are valid",
        why: "A VMM from before these flags does not look at them, so what they say is lost on it; one that \
              looks without having asked may take the initial data for begun anew.",
        remedy: "Set flags only when the vfio_device has precopy_info_v2.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: no_flags,
    },
    Rule {
        id: "PRE-06",
        level: Level::Should,
        statement: "initial_bytes is not 0 when pre-copy begins",
        source: "VFIO_MIG_GET_PRECOPY_INFO: this field should have a non-zero initial value",
        why: "A VMM with switchover-ack stops the machine once this reaches 0. Where it begins with 0, the \
              machine is stopped before the other side has prepared itself, and the downtime grows.",
        remedy: "Count what the other side should have before the stop, the header at least.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: some_initial,
    },
    Rule {
        id: "PRE-07",
        level: Level::Should,
        statement: "initial_bytes falls with what is read, and never grows",
        source: "VFIO_MIG_GET_PRECOPY_INFO: decrease as migration data is read from the device",
        why: "A VMM waits for this to reach 0 before it stops the machine. Where it stays, pre-copy never \
              ends, or ends by a timeout.",
        remedy: "Answer the end of the initial data less the position, and no less than 0.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: initial_falls,
    },
    Rule {
        id: "PRE-08",
        level: Level::Should,
        statement: "dirty_bytes is 0 when pre-copy begins",
        source: "VFIO_MIG_GET_PRECOPY_INFO: this field starts at zero",
        why: "Nothing has been read yet that could have changed. A VMM adds both numbers to estimate the \
              stop, and would count the same data twice.",
        remedy: "Count only what has changed since it was read.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: nothing_dirty,
    },
];

pub(super) const MORE_RULES: &[Rule] = &[
    Rule {
        id: "PRE-15",
        level: Level::Should,
        statement: "PRECOPY_INFO on a resuming data fd is refused",
        source: "VFIO_MIG_GET_PRECOPY_INFO: used on the migration data FD in the precopy phase",
        why: "A device that is loaded has no pre-copy. Numbers there are of another session, or of none.",
        remedy: "Give the resuming file operations of its own, without an ioctl.",
        needs: &[Need::StopCopy, Need::PreCopy, Need::Reset],
        check: refused_on_resuming,
    },
    Rule {
        id: "PRE-16",
        level: Level::Should,
        statement: "where PRECOPY_INFO is refused in STOP_COPY or after the end, it says EINVAL",
        source: "VFIO_MIG_GET_PRECOPY_INFO: should return -EINVAL from any other migration state",
        why: "By EINVAL a VMM tells a question at the wrong time from a device that failed.",
        remedy: "Check the state before the file, and return -EINVAL.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: refused_as_einval,
    },
    Rule {
        id: "PRE-17",
        level: Level::Should,
        statement: "PRECOPY_INFO with an argsz above 24 is taken",
        source: "VFIO conventions: argsz, user filled size of this data",
        why: "A VMM built with a later header lends more. Where only the exact size is taken, it can't use \
              pre-copy on this device.",
        remedy: "Refuse what is too small alone, and fill in what is known.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: long_argument,
    },
];

/// A pre-copy session that is the first since a reset, where there is one.
pub(super) fn first_session(trial: &mut Trial<'_, '_>) -> Result<Data, Skip> {
    if trial.facts.resets.is_ok() {
        trial.lab.is_lost();
    }
    trial.session(State::PreCopy)
}

/// As [`first_session`], and what it says of itself.
fn first_info(trial: &mut Trial<'_, '_>) -> Result<(Data, PrecopyInfo), Skip> {
    let data = first_session(trial)?;
    let info = info(&data)?;
    Ok((data, info))
}

fn info(data: &Data) -> Result<PrecopyInfo, Skip> {
    data.info().map_err(|errno| Skip(format!("PRECOPY_INFO answers {}", name(errno))))
}

fn answers(trial: &mut Trial<'_, '_>) -> Checked {
    for at in [State::PreCopy, State::PreCopyP2p] {
        if trial.lab.has(at) {
            let answer = trial.session(at)?.info();
            trial.expect(answer.is_ok(), || format!("in {at}: wanted an answer, got {}", said(&answer)));
        }
    }
    Ok(())
}

fn refused_elsewhere(trial: &mut Trial<'_, '_>) -> Checked {
    elsewhere(trial, |trial, at, answer| {
        trial.expect(answer.is_err(), || format!("{at}: wanted a refusal, got success"));
    })
}

fn refused_as_einval(trial: &mut Trial<'_, '_>) -> Checked {
    elsewhere(trial, |trial, at, answer| {
        if answer.is_err() {
            trial.expect(*answer == Err(Errno::INVAL), || {
                format!("{at}: wanted EINVAL, got {}", said(answer))
            });
        }
    })
}

/// Asks wherever there is nothing to be said.
fn elsewhere(
    trial: &mut Trial<'_, '_>,
    judge: impl Fn(&mut Trial<'_, '_>, &str, &Answer<PrecopyInfo>),
) -> Checked {
    let data = trial.session(State::PreCopy)?;
    let begun = trial.lab.set(State::StopCopy);
    if begun.is_ok() {
        judge(trial, "in STOP_COPY, after PRE_COPY", &data.info());
        let ended = trial.lab.set(State::Stop);
        if ended.is_ok() {
            judge(trial, "after STOP_COPY → STOP", &data.info());
        }
    }
    let data = trial.session(State::StopCopy)?;
    judge(trial, "in STOP_COPY, without PRE_COPY", &data.info());
    let data = trial.session(State::PreCopy)?;
    if trial.lab.set(State::Running).is_ok() {
        judge(trial, "after PRE_COPY → RUNNING", &data.info());
    }
    Ok(())
}

fn short_argument(trial: &mut Trial<'_, '_>) -> Checked {
    let data = trial.session(State::PreCopy)?;
    for argsz in [0, 8, 16, 23] {
        let answer = data.info_as(argsz, 0);
        trial.expect(answer.is_err(), || format!("argsz {argsz}: wanted a refusal, got success"));
        trial.tried(format!("argsz {argsz} answers {}", said(&answer)));
    }
    Ok(())
}

fn long_argument(trial: &mut Trial<'_, '_>) -> Checked {
    let data = trial.session(State::PreCopy)?;
    info(&data)?;
    for argsz in [32, 64] {
        let answer = data.info_as(argsz, 0);
        trial.expect(answer.is_ok(), || format!("argsz {argsz}: wanted success, got {}", said(&answer)));
    }
    Ok(())
}

fn nothing_stale(trial: &mut Trial<'_, '_>) -> Checked {
    const LEFT: u8 = 0xa5;
    let data = trial.session(State::PreCopy)?;
    let got = data.info_as(24, LEFT);
    let got = got.map_err(|errno| Skip(format!("PRECOPY_INFO answers {}", name(errno))))?;
    let word = u64::from_ne_bytes([LEFT; 8]);
    let fields = [("initial_bytes", got.initial_bytes), ("dirty_bytes", got.dirty_bytes)];
    for (field, value) in fields {
        trial.expect(value != word, || format!("{field} came back as the caller had left it"));
    }
    let are_stale = got.flags == u32::from_ne_bytes([LEFT; 4]);
    trial.tried(if are_stale { "the flags came back as the caller had left them" } else { "the flags too" });
    Ok(())
}

fn no_flags(trial: &mut Trial<'_, '_>) -> Checked {
    let (_data, PrecopyInfo { flags, .. }) = first_info(trial)?;
    trial.expect(flags == 0, || format!("wanted flags 0, got {flags:#x}"));
    Ok(())
}

fn some_initial(trial: &mut Trial<'_, '_>) -> Checked {
    let (_data, PrecopyInfo { initial_bytes, .. }) = first_info(trial)?;
    trial.expect(initial_bytes > 0, || "initial_bytes: wanted more than 0, got 0".to_owned());
    trial.tried(format!("{initial_bytes} bytes"));
    Ok(())
}

fn nothing_dirty(trial: &mut Trial<'_, '_>) -> Checked {
    let (_data, PrecopyInfo { dirty_bytes, .. }) = first_info(trial)?;
    trial.expect(dirty_bytes == 0, || format!("dirty_bytes: wanted 0, got {dirty_bytes}"));
    Ok(())
}

fn initial_falls(trial: &mut Trial<'_, '_>) -> Checked {
    let (data, PrecopyInfo { initial_bytes: first, .. }) = first_info(trial)?;
    if first == 0 {
        return Err("initial_bytes is 0 from the beginning".into());
    }
    let piece = usize::try_from(first / 8).unwrap_or(usize::MAX).clamp(4096, 1 << 20);
    let mut room = vec![0; piece];
    let (mut read, mut last) = (0_u64, first);
    for _ in 0..READS {
        if read >= first {
            break;
        }
        let count = match data.read(&mut room) {
            Ok(0) | Err(Errno::NOMSG) => break,
            Ok(count) => count as u64,
            Err(errno) => return Err(format!("read() in PRE_COPY answered {}", name(errno)).into()),
        };
        read += count;
        let now = info(&data)?.initial_bytes;
        trial.expect(now <= last, || {
            format!("after {read} bytes: wanted initial_bytes of at most {last}, got {now}")
        });
        last = now;
    }
    if read == 0 {
        return Err("nothing came in PRE_COPY".into());
    }
    trial.expect(last < first, || format!("after {read} of {first} bytes: wanted less, got {last}"));
    trial.tried(format!("from {first} to {last} with {read} bytes read"));
    Ok(())
}

fn refused_on_resuming(trial: &mut Trial<'_, '_>) -> Checked {
    let data = trial.session(State::Resuming)?;
    if data.unknown_request().is_ok() {
        return Err("the data fd answers every ioctl".into());
    }
    let answer = data.info();
    trial.expect(answer.is_err(), || "on a resuming data fd: wanted a refusal, got success".to_owned());
    trial.tried(said(&answer));
    Ok(())
}
