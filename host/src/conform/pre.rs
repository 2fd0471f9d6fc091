//! Rules about the data of pre-copy: how they pause, and that they make a whole state with those of STOP_COPY.
//!
//! A device works on in pre-copy, so that data may come without end: how much is read is limited.
//!
//! Deliberately absent: how much comes early. That is the device's choice.

use std::time::{Duration, Instant};

use rustix::io::Errno;
use vfio_migration_core::device::State;

use super::data::Data;
use super::pre_info::first_session;
use super::stream::{End, Held, PIECE, Sink, read_to_end};
use super::trial::{Checked, Skip, Trial};
use super::words::{name, said};
use super::{Level, Need, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "PRE-09",
        level: Level::Should,
        statement: "where there are no data now, read() in PRE_COPY answers ENOMSG",
        source: "VFIO_MIG_GET_PRECOPY_INFO: on this temporary end of stream should return ENOMSG from read()",
        why: "0 is the end of a state everywhere else. A VMM that takes it for one here stops reading while \
              the device goes on changing; the careful ones take both answers for a pause.",
        remedy: "Return -ENOMSG instead of 0 while the device is in PRE_COPY or PRE_COPY_P2P.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: pause_is_enomsg,
    },
    Rule {
        id: "PRE-10",
        level: Level::Should,
        statement: "poll() says not readable in PRE_COPY where there are no data",
        source: "VFIO_MIG_GET_PRECOPY_INFO: userspace can wait for more data by using poll",
        why: "A VMM that waits with poll() for more data is woken at once and finds none, again and again: a \
              processor is busy for as long as pre-copy lasts.",
        remedy: "Have a poll operation that waits on a queue, and wake it when there is more data or the \
                 state changes.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: pause_is_not_readable,
    },
    Rule {
        id: "PRE-11",
        level: Level::Must,
        statement: "poll() says readable in PRE_COPY where there are data",
        source: "VFIO_MIG_GET_PRECOPY_INFO: userspace can wait for more data by using poll",
        why: "A VMM that waits with poll() before it reads never reads anything: pre-copy stands still, and \
              all data come in the downtime.",
        remedy: "Return EPOLLIN | EPOLLRDNORM from poll where a read would give something.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: data_are_readable,
    },
    Rule {
        id: "PRE-12",
        level: Level::Must,
        statement: "after PRE_COPY → RUNNING the next pre-copy gives its initial data again",
        source: "RUNNING -> PRE_COPY: these arcs begin the process of saving the device state",
        why: "A migration that is cancelled and begun again goes to another host, which has nothing yet. \
              Without the initial data its state is refused, or everything comes in the downtime.",
        remedy: "Start each session from the beginning; forget what the last one has sent.",
        needs: &[Need::StopCopy, Need::PreCopy],
        check: begins_again,
    },
    Rule {
        id: "PRE-13",
        level: Level::Must,
        statement: "what comes in PRE_COPY, PRE_COPY_P2P and STOP_COPY makes one state that loads",
        source: "PRE_COPY, PRE_COPY_P2P and STOP_COPY share a data transfer session",
        why: "This is every live migration. Data that are lost where the states change are missed when the \
              machine already stands still, or not at all.",
        remedy: "Keep one position in one stream across these arcs, and let no arc drop what has not been \
                 read.",
        needs: &[Need::StopCopy, Need::PreCopy, Need::Reset, Need::State],
        check: loads_together,
    },
    Rule {
        id: "PRE-14",
        level: Level::Must,
        statement: "what was not read in pre-copy still comes in STOP_COPY",
        source: "VFIO_MIG_GET_PRECOPY_INFO: leaving PRE_COPY earlier might make things slower",
        why: "A VMM may stop the machine whenever it must: early in pre-copy, or without reading anything. \
              Slower is allowed, a state that lacks its beginning is not.",
        remedy: "Give what is left of the pre-copy data first, then the rest.",
        needs: &[Need::StopCopy, Need::PreCopy, Need::Reset, Need::State],
        check: unread_comes,
    },
];

/// How a pre-copy session pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// With ENOMSG.
    NoMessage,
    /// With 0 bytes.
    Zero,
    /// Not at all: data went on coming.
    Never,
    /// With another errno.
    Failed(Errno),
}

/// Reads in pre-copy until nothing is there, about `enough` bytes have come, or too many; gives what came to `sink`.
fn drain(trial: &Trial<'_, '_>, data: &Data, enough: u64, sink: Sink<'_>) -> Result<(u64, Pause), Skip> {
    let most = enough.min((trial.facts.length() as u64).saturating_mul(4).saturating_add(4 << 20));
    let mut room = vec![0; usize::try_from(enough).unwrap_or(PIECE).clamp(64, PIECE)];
    let mut total = 0;
    for _ in 0..READS {
        if total >= most {
            break;
        }
        match data.read(&mut room) {
            Ok(0) => return Ok((total, Pause::Zero)),
            Err(Errno::NOMSG) => return Ok((total, Pause::NoMessage)),
            Ok(count) => {
                sink(room.get(..count).unwrap_or(&room))?;
                total += count as u64;
            }
            Err(errno) => return Ok((total, Pause::Failed(errno))),
        }
    }
    Ok((total, Pause::Never))
}

/// As [`drain`], to the pause, where nobody wants the data.
fn skim(trial: &Trial<'_, '_>, data: &Data) -> Result<(u64, Pause), Skip> {
    match drain(trial, data, u64::MAX, &mut |_| Ok(()))? {
        (_, Pause::Failed(errno)) => Err(format!("read() in PRE_COPY answered {}", name(errno)).into()),
        skimmed => Ok(skimmed),
    }
}

fn pause_is_enomsg(trial: &mut Trial<'_, '_>) -> Checked {
    let data = first_session(trial)?;
    let (bytes, pause) = skim(trial, &data)?;
    if pause == Pause::Never {
        return Err(format!("data went on coming, {bytes} bytes").into());
    }
    trial.expect(pause == Pause::NoMessage, || format!("after {bytes} bytes: wanted ENOMSG, got 0 bytes"));
    trial.tried(format!("after {bytes} bytes"));
    Ok(())
}

fn pause_is_not_readable(trial: &mut Trial<'_, '_>) -> Checked {
    let data = first_session(trial)?;
    // A device may have new data between the two answers, but not each time.
    for _ in 0..8 {
        if let (_, Pause::Never) = skim(trial, &data)? {
            return Err("data went on coming".into());
        }
        if data.is_readable(Duration::ZERO) == Ok(false) {
            trial.expect(true, String::new);
            return Ok(());
        }
        let (bytes, _) = skim(trial, &data)?;
        if bytes == 0 {
            trial.expect(false, || "without data: wanted nothing from poll(), got POLLIN".to_owned());
            return Ok(());
        }
    }
    Err("data went on coming".into())
}

fn data_are_readable(trial: &mut Trial<'_, '_>) -> Checked {
    let data = first_session(trial)?;
    let end = Instant::now() + SLOW;
    loop {
        if data.is_readable(MOMENT) == Ok(true) {
            trial.expect(true, String::new);
            return Ok(());
        }
        match data.peek(&mut [0; 4096]) {
            Err(Errno::AGAIN) if Instant::now() < end => {}
            Ok(0) | Err(_) => return Err("nothing came in PRE_COPY".into()),
            Ok(count) => {
                trial.expect(false, || format!("wanted POLLIN, got nothing, and read() gave {count} bytes"));
                return Ok(());
            }
        }
    }
}

fn begins_again(trial: &mut Trial<'_, '_>) -> Checked {
    let data = first_session(trial)?;
    let (first, _) = skim(trial, &data)?;
    if first == 0 {
        return Err("nothing came in PRE_COPY".into());
    }
    let ended = trial.lab.set(State::Running);
    if ended.is_err() {
        return Err(format!("PRE_COPY → RUNNING is refused: {}", said(&ended)).into());
    }
    let data = trial.session(State::PreCopy)?;
    let (second, _) = skim(trial, &data)?;
    trial.expect(second > 0, || format!("the first pre-copy gave {first} bytes, the next one none"));
    trial.tried(format!("{first} and {second} bytes"));
    Ok(())
}

fn loads_together(trial: &mut Trial<'_, '_>) -> Checked {
    trial.fill()?;
    let half = trial.facts.length() as u64 / 2;
    let data = trial.session(State::PreCopy)?;
    let mut state = Held::new(trial.lab);
    let (early, pause) = drain(trial, &data, half.max(1), &mut |piece| state.take(piece))?;
    if let Pause::Failed(errno) = pause {
        return trial.read_failed(State::PreCopy, early, errno);
    }
    let mut in_p2p = 0;
    if trial.lab.has(State::PreCopyP2p) {
        trial.step(State::PreCopyP2p)?;
        let (bytes, pause) = drain(trial, &data, u64::MAX, &mut |piece| state.take(piece))?;
        if let Pause::Failed(errno) = pause {
            return trial.read_failed(State::PreCopyP2p, bytes, errno);
        }
        in_p2p = bytes;
    }
    trial.tried(format!("{early} bytes in PRE_COPY, {in_p2p} in PRE_COPY_P2P"));
    rest_arrives(trial, &data, state)
}

fn unread_comes(trial: &mut Trial<'_, '_>) -> Checked {
    trial.fill()?;
    let data = trial.session(State::PreCopy)?;
    let state = Held::new(trial.lab);
    trial.tried("nothing before STOP_COPY");
    rest_arrives(trial, &data, state)
}

/// Reads what is left of a pre-copy session in STOP_COPY, and loads all of it.
fn rest_arrives(trial: &mut Trial<'_, '_>, data: &Data, mut state: Held) -> Checked {
    trial.step(State::StopCopy)?;
    let (rest, end) = read_to_end(data, PIECE, &mut |piece| state.take(piece))?;
    if let End::Failed(errno) = end {
        return trial.read_failed(State::StopCopy, rest, errno);
    }
    end.came()?;
    trial.tried(format!("{rest} bytes in STOP_COPY"));
    arrives(trial, &state.bytes)
}

/// Loads a state that came over pre-copy, whose source is in STOP_COPY, and where contents can be compared looks
/// whether it is the source's.
fn arrives(trial: &mut Trial<'_, '_>, state: &[u8]) -> Checked {
    let ended = trial.lab.set(State::Stop);
    if ended.is_err() {
        return Err(format!("STOP_COPY → STOP is refused: {}", said(&ended)).into());
    }
    let source = trial.lab.print(PIECE)?;
    if !trial.has_partner() {
        trial.home()?;
    }
    trial.blank_target()?;
    let refusal = trial.load(state, PIECE)?.refusal();
    let is_taken = refusal.is_none();
    trial.expect(is_taken, || format!("its load is refused: {}", refusal.unwrap_or_default()));
    if !is_taken {
        trial.target().is_lost();
        return trial.home();
    }
    let target = trial.target().print(PIECE)?;
    // The source has run on where it is the target too; a driver whose plain copies differ has a rule for that.
    if source.bytes > 0 && trial.copies()? {
        trial.expect(target == source, || {
            format!("it is taken, but is another state ({} and {} bytes)", source.bytes, target.bytes)
        });
    }
    Ok(())
}

/// How often to read in pre-copy at most.
pub(super) const READS: u32 = 100_000;
/// How long `poll` may take to see what is there.
const MOMENT: Duration = Duration::from_millis(500);
/// How long a slow device may take for its first data.
const SLOW: Duration = Duration::from_secs(20);
