//! Plays a session from a list of lines: orders, effects with their answers, and phases.
//!
//! | line | meaning |
//! |---|---|
//! | `> setup` | the order is given and accepted |
//! | `set STOP_COPY: ok` | the session asks for this, and the part behind the colon is the answer; the line is the text of the event |
//! | `send 16: not yet` | the session asks for this and is not answered |
//! | `precopy info: initial 24, dirty 0, begun anew` | the session asks for this; the last two words are the kernel's flag |
//! | `idle Copying` | the session is idle in this phase |
//! | `idle PreCopy: 24 read, initial 0, dirty 0, sent` | the source is idle in PRE_COPY, and INIT_DATA_SENT is out |
//! | `idle PreCopy: 0 read, nothing known` | the same before the device has said what is left |
//! | `failed: cancelled; the device is in RUNNING` | the session is idle and failed like this |
//!
//! Every question is asked twice and must be the same. Deliberately absent: branches and defaults. What a line does
//! not say fails the test.

use vfio_migration_core::device::Features;
use vfio_migration_core::session::{
    Chunk, Code, DataRead, Destination, DestinationDone, DestinationEffect, DestinationPhase, Misuse,
    PrecopyInfo, Source, SourceDone, SourceEffect, SourcePhase,
};

/// A driver that has every state.
pub const ALL: Features = Features { p2p: true, pre_copy: true };

/// The outer ends of a session: what comes in from the device of a source or from the link of a destination, and what
/// goes out at the other side.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// All bytes that the reading side has.
    pub input: Vec<u8>,
    /// How many of them were taken.
    pub taken: usize,
    /// All bytes that the writing side took.
    pub output: Vec<u8>,
}

impl Ends {
    /// Ends with `input` to give.
    #[must_use]
    pub fn new(input: &[u8]) -> Self {
        Self { input: input.to_vec(), taken: 0, output: Vec::new() }
    }

    fn give(&mut self, buffer: &mut [u8], count: usize) {
        buffer[..count].copy_from_slice(&self.input[self.taken..self.taken + count]);
        self.taken += count;
    }

    fn take(&mut self, bytes: &[u8], count: usize) {
        self.output.extend_from_slice(&bytes[..count]);
    }
}

/// Plays `script` with `source`; `ends` has the device's data and collects what is sent.
///
/// # Panics
/// When the session does anything but what the script says.
pub fn play_source(source: &mut Source<'_>, ends: &mut Ends, script: &[&str]) {
    for &line in script {
        if let Some(order) = line.strip_prefix("> ") {
            order_source(source, order).unwrap_or_else(|misuse| panic!("{line}: {misuse}"));
            continue;
        }
        let seen = see_source(source);
        assert_eq!(seen, see_source(source), "asked twice at {line:?}");
        assert_eq!(seen.0, question(line), "at {line:?}");
        let Some(answer) = answer(line) else { continue };
        let done = match (source.poll(), answer) {
            (SourceEffect::SetState(_), answer) => SourceDone::SetState(answer.plain()),
            (SourceEffect::PrecopyInfo, answer) => SourceDone::PrecopyInfo(answer.left()),
            (SourceEffect::ReadData(buffer), Answer::Count(count)) => {
                ends.give(buffer, count);
                SourceDone::ReadData(Ok(DataRead::Bytes(count)))
            }
            (SourceEffect::ReadData(_), answer) => SourceDone::ReadData(answer.read()),
            (SourceEffect::Send(bytes), answer) => {
                let result = answer.count();
                ends.take(bytes, result.unwrap_or(0));
                SourceDone::Send(result)
            }
            (SourceEffect::SendConfig, answer) => SourceDone::SendConfig(answer.plain()),
            (SourceEffect::Reset, answer) => SourceDone::Reset(answer.plain()),
            (SourceEffect::Idle(_), _) => panic!("{line:?} answers an idle session"),
        };
        let event = source.complete(done).unwrap_or_else(|misuse| panic!("{line}: {misuse}"));
        assert_eq!(event.to_string(), line);
    }
}

/// Plays `script` with `destination`; `ends` has the link's bytes and collects what is written into the device.
///
/// # Panics
/// When the session does anything but what the script says.
pub fn play_destination(destination: &mut Destination<'_>, ends: &mut Ends, script: &[&str]) {
    for &line in script {
        if let Some(order) = line.strip_prefix("> ") {
            order_destination(destination, order).unwrap_or_else(|misuse| panic!("{line}: {misuse}"));
            continue;
        }
        let seen = see_destination(destination);
        assert_eq!(seen, see_destination(destination), "asked twice at {line:?}");
        assert_eq!(seen.0, question(line), "at {line:?}");
        let Some(answer) = answer(line) else { continue };
        let done = match destination.poll() {
            DestinationEffect::SetState(_) => DestinationDone::SetState(answer.plain()),
            DestinationEffect::Recv(buffer) => {
                let result = answer.count();
                ends.give(buffer, result.unwrap_or(0));
                DestinationDone::Recv(result)
            }
            DestinationEffect::WriteData(bytes) => {
                let result = answer.count();
                ends.take(bytes, result.unwrap_or(0));
                DestinationDone::WriteData(result)
            }
            DestinationEffect::RecvConfig => {
                let result = answer.count();
                ends.taken += result.unwrap_or(0);
                DestinationDone::RecvConfig(result.map(|count| count as u64))
            }
            DestinationEffect::Reset => DestinationDone::Reset(answer.plain()),
            DestinationEffect::Idle(_) => panic!("{line:?} answers an idle session"),
        };
        let event = destination.complete(done).unwrap_or_else(|misuse| panic!("{line}: {misuse}"));
        assert_eq!(event.to_string(), line);
    }
}

/// A source writes its START payload.
pub const SET_UP: &[&str] = &["> setup", "send 16: 16"];
/// A new source, on its way to STOP_COPY.
pub const TO_COPYING: &[&str] = &["> setup", "send 16: 16", "> stop", "set STOP_COPY: ok"];
/// A source in STOP_COPY with a buffer of 64 bytes, whose device has no data left.
pub const COPIED: &[&str] = &["> copy_rest", "read data, room for 40: end", "send 8: 8"];
/// A new source, on its way to PRE_COPY.
pub const TO_PRE_COPY: &[&str] = &["> setup pre_copy", "set PRE_COPY: ok", "send 16: 16"];
/// A source leaves STOP_COPY.
pub const FINISHED: &[&str] = &["> finish", "set STOP: ok"];

/// A new destination, on its way to RESUMING.
pub const TO_RESUMING: &[&str] = &["> resume", "set RESUMING: ok"];
/// A destination in RESUMING takes a section's first words, for instance the tag and the length of a DATA record.
pub const TO_DATA: &[&str] = &["> section", "receive 8: 8", "receive 8: 8"];
/// Behind [`TO_DATA`], a record of ten bytes goes into the device.
pub const TEN_BYTES: &[&str] = &["receive 10: 10", "write data 10: 10"];
/// A destination leaves RESUMING.
pub const STOPPED: &[&str] = &["> stop", "set STOP: ok"];

/// Every order of a source but cancel and retreat, which have no answer.
pub const SOURCE_ORDERS: [&str; 11] = [
    "setup",
    "setup pre_copy",
    "measure",
    "copy_chunk",
    "quiesce",
    "stop",
    "copy_rest",
    "config",
    "finish",
    "run_p2p",
    "run",
];

/// Every order of a destination but cancel, which has no answer.
pub const DESTINATION_ORDERS: [&str; 5] = ["resume", "section", "stop", "run_p2p", "run"];

/// Gives `source` the order with this name.
///
/// # Errors
/// What the order answers.
///
/// # Panics
/// When there is no such order.
pub fn order_source(source: &mut Source<'_>, order: &str) -> Result<(), Misuse> {
    match order {
        "setup" => source.setup(false),
        "setup pre_copy" => source.setup(true),
        "measure" => source.measure(),
        "copy_chunk" => source.copy_chunk(),
        "quiesce" => source.quiesce(),
        "stop" => source.stop(),
        "copy_rest" => source.copy_rest(),
        "config" => source.config(),
        "finish" => source.finish(),
        "run_p2p" => source.run_p2p(),
        "run" => source.run(),
        "cancel" => {
            source.cancel();
            Ok(())
        }
        "retreat" => {
            source.retreat();
            Ok(())
        }
        _ => panic!("a source has no order {order:?}"),
    }
}

/// Gives `destination` the order with this name.
///
/// # Errors
/// What the order answers.
///
/// # Panics
/// When there is no such order.
pub fn order_destination(destination: &mut Destination<'_>, order: &str) -> Result<(), Misuse> {
    match order {
        "resume" => destination.resume(),
        "section" => destination.section(),
        "stop" => destination.stop(),
        "run_p2p" => destination.run_p2p(),
        "run" => destination.run(),
        "cancel" => {
            destination.cancel();
            Ok(())
        }
        _ => panic!("a destination has no order {order:?}"),
    }
}

/// An effect in words, and the memory that it lends.
type Seen = (String, Option<(*const u8, usize)>);

fn see_source(source: &mut Source<'_>) -> Seen {
    match source.poll() {
        SourceEffect::SetState(state) => (format!("set {state}"), None),
        SourceEffect::PrecopyInfo => ("precopy info".into(), None),
        SourceEffect::ReadData(buffer) => {
            (format!("read data, room for {}", buffer.len()), Some((buffer.as_ptr(), buffer.len())))
        }
        SourceEffect::Send(bytes) => (format!("send {}", bytes.len()), Some((bytes.as_ptr(), bytes.len()))),
        SourceEffect::SendConfig => ("send configuration".into(), None),
        SourceEffect::Reset => ("reset".into(), None),
        SourceEffect::Idle(SourcePhase::Failed(failure)) => (format!("failed: {failure}"), None),
        SourceEffect::Idle(SourcePhase::PreCopy(chunk)) => (format!("idle PreCopy: {}", so_far(chunk)), None),
        SourceEffect::Idle(phase) => (format!("idle {phase:?}"), None),
    }
}

fn so_far(Chunk { bytes, left, init_data_sent }: Chunk) -> String {
    let left = left.map_or("nothing known".into(), |PrecopyInfo { initial_bytes, dirty_bytes, reinit }| {
        let anew = if reinit { ", begun anew" } else { "" };
        format!("initial {initial_bytes}, dirty {dirty_bytes}{anew}")
    });
    let sent = if init_data_sent { ", sent" } else { "" };
    format!("{bytes} read, {left}{sent}")
}

fn see_destination(destination: &mut Destination<'_>) -> Seen {
    match destination.poll() {
        DestinationEffect::SetState(state) => (format!("set {state}"), None),
        DestinationEffect::Recv(buffer) => {
            (format!("receive {}", buffer.len()), Some((buffer.as_ptr(), buffer.len())))
        }
        DestinationEffect::WriteData(bytes) => {
            (format!("write data {}", bytes.len()), Some((bytes.as_ptr(), bytes.len())))
        }
        DestinationEffect::RecvConfig => ("receive configuration".into(), None),
        DestinationEffect::Reset => ("reset".into(), None),
        DestinationEffect::Idle(DestinationPhase::Failed(failure)) => (format!("failed: {failure}"), None),
        DestinationEffect::Idle(phase) => (format!("idle {phase:?}"), None),
    }
}

/// What the session is to ask at `line`. That a SET is a recovery shows in the event alone.
fn question(line: &str) -> String {
    if is_idle(line) {
        return line.into();
    }
    line.rsplit_once(": ").map_or(line, |(asked, _)| asked).replace(" to recover", "")
}

fn answer(line: &str) -> Option<Answer> {
    if is_idle(line) {
        return None;
    }
    let (_, answer) = line.rsplit_once(": ").unwrap_or_else(|| panic!("{line:?} has no answer"));
    match answer {
        "ok" => Some(Answer::Ok),
        "end" => Some(Answer::End),
        "nothing now" => Some(Answer::NothingNow),
        "not yet" => None,
        _ if answer.starts_with("initial ") => Some(Answer::Left(left(answer))),
        _ => Some(match answer.strip_prefix("error ") {
            Some(code) => Answer::Error(Code(code.parse().expect(line))),
            None => Answer::Count(answer.parse().expect(line)),
        }),
    }
}

fn left(answer: &str) -> PrecopyInfo {
    let (initial, rest) = answer["initial ".len()..].split_once(", dirty ").expect(answer);
    let (dirty, reinit) = match rest.split_once(", ") {
        Some((dirty, "begun anew")) => (dirty, true),
        None => (rest, false),
        Some(_) => panic!("{answer}"),
    };
    PrecopyInfo {
        initial_bytes: initial.parse().expect(answer),
        dirty_bytes: dirty.parse().expect(answer),
        reinit,
    }
}

fn is_idle(line: &str) -> bool {
    line.starts_with("idle ") || line.starts_with("failed: ")
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Ok,
    End,
    NothingNow,
    Count(usize),
    Left(PrecopyInfo),
    Error(Code),
}

impl Answer {
    fn plain(self) -> Result<(), Code> {
        match self {
            Self::Ok => Ok(()),
            Self::Error(code) => Err(code),
            answer => panic!("wanted ok or an error, got {answer:?}"),
        }
    }

    fn count(self) -> Result<usize, Code> {
        match self {
            Self::Count(count) => Ok(count),
            Self::Error(code) => Err(code),
            answer => panic!("wanted a count or an error, got {answer:?}"),
        }
    }

    fn left(self) -> Result<PrecopyInfo, Code> {
        match self {
            Self::Left(info) => Ok(info),
            Self::Error(code) => Err(code),
            answer => panic!("wanted what is left or an error, got {answer:?}"),
        }
    }

    fn read(self) -> Result<DataRead, Code> {
        match self {
            Self::End => Ok(DataRead::End),
            Self::NothingNow => Ok(DataRead::Drained),
            Self::Error(code) => Err(code),
            answer => panic!("wanted the end or an error, got {answer:?}"),
        }
    }
}
