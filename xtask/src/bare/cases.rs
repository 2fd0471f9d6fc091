//! The cases: what a machine is told, and what has to come of it.
//!
//! Deliberately absent: luck. No case depends on how quick a machine is, but those in which nothing more comes, which
//! wait for that.

use anyhow::{Context as _, Result, ensure};

use super::damage::{self, Damage};
use super::lab::{Lab, SIZE, checksum};
use super::machine::Said;
use crate::command::Tally;

/// Runs all cases and says of each how it went.
pub(crate) fn run(lab: &Lab) -> Tally {
    println!("contents are made from the seed {}", lab.seed);
    let mut tally = Tally::default();
    let mut case = |name: &str, result: Result<String>| match result {
        Ok(what) => {
            println!("  ok {name}: {what}");
            tally.passed += 1;
        }
        Err(error) => {
            println!("  not ok {name}: {error:#}");
            tally.failed += 1;
        }
    };
    case("two machines", between(lab));
    for features in [1, 3, 5, 7] {
        case(&format!("machine with features {features} to vfio-migrate"), to_program(lab, features));
    }
    case("vfio-migrate save to machine", from_program(lab, &[]));
    case("vfio-migrate save --precopy to machine", from_program(lab, &["--precopy"]));
    for refusal in &REFUSALS {
        case(&format!("sender whose device refuses {}", refusal.name), send_refused(lab, refusal));
    }
    match lab.send("whole", "features=7").and_then(|(_, whole)| Ok((damage::all(&whole)?, whole))) {
        Ok((damages, whole)) => {
            case("receiver whose device refuses RESUMING", receive_refused(lab, "RESUMING", &whole));
            case("receiver whose device refuses STOP", receive_refused(lab, "STOP", &whole));
            case("description that whoever wrote it added to", added(lab, &whole));
            for damage in damages {
                case(&format!("damage: {}", damage.name), refuse(lab, &damage));
            }
        }
        Err(error) => case("a stream to damage", Err(error)),
    }
    case("command line that nobody understands", panicked(lab));
    case("stack that overflows", overflowed(lab));
    tally
}

/// A state goes from one machine to another one. Both have pre-copy and peer-to-peer states.
fn between(lab: &Lab) -> Result<String> {
    let (sender, receiver) = lab.send_to_receiver("two machines", "features=7")?;
    sender.show();
    receiver.show();
    let content = is_in(&sender, DONE, "STOP")?;
    let got = is_in(&receiver, DONE, "RUNNING")?;
    ensure!(got == content, "wanted content {content}, got {got}");
    let (sent, received) = (sender.rest("sent ")?, receiver.rest("received ")?);
    ensure!(sent == received, "{sent} were sent, {received} were received");
    sender.finished_by_interrupts(&["SetState", "PrecopyInfo", "ReadData", "Send"])?;
    receiver.finished_by_interrupts(&["SetState", "Recv", "WriteData"])?;
    Ok(format!("{sent}, content {content} on both sides"))
}

/// A machine's stream is whole and loadable for the program.
fn to_program(lab: &Lab, features: u32) -> Result<String> {
    let name = format!("features {features}");
    let (sender, stream) = lab.send(&name, &format!("features={features}"))?;
    let content = is_in(&sender, DONE, "STOP")?;
    let sent = format!("{} bytes", stream.len());
    ensure!(sender.rest("sent ")? == sent, "{sent} were on the wire");
    let has_pre_copy = features & PRE_COPY != 0;
    ensure!(sender.did("set PRE_COPY: ok") == has_pre_copy, "wanted pre-copy where there is some");
    let is_changed = content != checksum(lab.seed, SIZE);
    ensure!(
        is_changed == has_pre_copy,
        "wanted a content that its guest changed in pre-copy, and then alone"
    );
    let file = format!("{name}.state");
    lab.write(&file, &stream)?;
    lab.program(&["inspect", &file])?;
    lab.program(&["load", &format!("sim:size={SIZE}B"), "--input", &file])?;
    let got = lab.loaded(&file, SIZE)?;
    ensure!(got == content, "wanted content {content}, got {got}");
    Ok(format!("{sent}, content {content} on both sides"))
}

/// The program's stream is whole and loadable for a machine.
fn from_program(lab: &Lab, options: &[&str]) -> Result<String> {
    let file = format!("save{}.state", options.concat());
    let device = format!("sim:size={SIZE}B,seed={},initial=8KiB", lab.seed);
    lab.program(&[&["save", &device, "--output", &file], options].concat())?;
    let stream = lab.read(&file)?;
    let receiver = lab.receive(&file, "features=7", &stream)?;
    let (got, content) = (is_in(&receiver, DONE, "RUNNING")?, checksum(lab.seed, SIZE));
    ensure!(got == content, "wanted content {content}, got {got}");
    let received = format!("{} bytes", stream.len());
    ensure!(receiver.rest("received ")? == received, "{received} were sent");
    Ok(format!("{received}, content {content} on both sides"))
}

/// What a sender's device refuses, and what becomes of it.
struct Refusal {
    name: &'static str,
    words: &'static str,
    /// What has to be tried, in this order, and what it gives.
    events: &'static [&'static str],
    told: &'static str,
    /// Whether the device has its content afterwards, or was reset.
    is_kept: bool,
    /// Whether all was sent before it refused.
    is_whole: bool,
}

/// A device that refuses is in RUNNING afterwards. What was sent is no state, or it is whole, and then the machine says
/// that it must not run on, for another one runs the state.
fn send_refused(lab: &Lab, refusal: &Refusal) -> Result<String> {
    let name = format!("refuses {}", refusal.name);
    let (sender, stream) = lab.send(&name, refusal.words)?;
    let code = if refusal.is_whole { SENT } else { FAILED };
    let content = is_in(&sender, code, "RUNNING")?;
    let wanted = if refusal.is_kept { checksum(lab.seed, SIZE) } else { zeros() };
    ensure!(content == wanted, "wanted content {wanted}, got {content}");
    let sets: Vec<_> = sender.lines.iter().filter_map(|line| line.strip_prefix("event: ")).collect();
    ensure!(sets.ends_with(refusal.events), "wanted the events {:?}, got {sets:?}", refusal.events);
    if !refusal.is_kept {
        sender.finished_by_interrupts(&["Reset"])?;
    }
    let told = sender.rest("failed: ")?;
    ensure!(told == refusal.told, "wanted '{}', got '{told}'", refusal.told);
    let file = format!("{name}.state");
    lab.write(&file, &stream)?;
    let loaded = lab.program(&["load", &format!("sim:size={SIZE}B"), "--input", &file]);
    let is_loaded = loaded.is_ok();
    ensure!(is_loaded == refusal.is_whole, "vfio-migrate loads {} sent bytes: {is_loaded}", stream.len());
    if !refusal.is_whole {
        return Ok(format!("{told}; the device is in RUNNING"));
    }
    let told = format!("{told}; the stream is whole{}", sender.rest("the stream is whole")?);
    ensure!(told.ends_with("this machine must not run on"), "wanted what must not be, got '{told}'");
    let receiver = lab.receive(&format!("{name} receiver"), "features=7", &stream)?;
    let (got, content) = (is_in(&receiver, DONE, "RUNNING")?, checksum(lab.seed, SIZE));
    ensure!(got == content, "wanted content {content}, got {got}");
    Ok(told)
}

/// A receiver whose device refuses a state leaves it in RUNNING, never with what came.
fn receive_refused(lab: &Lab, state: &str, stream: &[u8]) -> Result<String> {
    let receiver = lab.receive(&format!("refuses {state}"), &format!("features=7 refuse={state}"), stream)?;
    let content = is_in(&receiver, FAILED, "RUNNING")?;
    let wanted = if state == "STOP" { zeros() } else { checksum(lab.seed_before(), SIZE) };
    ensure!(content == wanted, "wanted content {wanted}, got {content}");
    let (told, wanted) = (receiver.rest("failed: ")?, format!("the device refused {state}: error 5"));
    ensure!(told == wanted, "wanted '{wanted}', got '{told}'");
    Ok(format!("{told}; the device is in RUNNING"))
}

/// A description may have keys that nobody knows, brackets within strings, and as many levels as are allowed.
fn added(lab: &Lab, whole: &[u8]) -> Result<String> {
    let stream = damage::described(whole, &damage::nested(7, r#""[[[[[[[[[\"[""#))?;
    let receiver = lab.receive("added", "features=7", &stream)?;
    is_in(&receiver, DONE, "RUNNING")?;
    Ok(format!("received {}", receiver.rest("received ")?))
}

/// A damaged stream is refused with its reason, and nothing of it runs.
fn refuse(lab: &Lab, damage: &Damage) -> Result<String> {
    let patience = if damage.told.contains("the stream ended") { "patience=2000" } else { "" };
    let name = format!("damage {}", damage.name);
    let receiver = lab.receive(&name, &format!("features=7 {patience}"), &damage.bytes)?;
    let content = is_in(&receiver, FAILED, "RUNNING")?;
    let told = receiver.rest("failed: ")?;
    ensure!(told.starts_with(&damage.told), "wanted '{}', got '{told}'", damage.told);
    let wanted = if damage.reset { zeros() } else { checksum(lab.seed_before(), SIZE) };
    ensure!(content == wanted, "wanted content {wanted}, got {content}");
    ensure!(receiver.did("reset: ok") == damage.reset, "wanted a reset where the device had got something");
    ensure!(
        receiver.did("set RESUMING: ok") == damage.reset,
        "wanted RESUMING for a stream of the device's kind alone"
    );
    ensure!(!receiver.did("set STOP: ok"), "the device left RESUMING with a damaged state");
    if damage.reset {
        receiver.finished_by_interrupts(&["Reset"])?;
    }
    Ok(told.to_owned())
}

/// A machine that panics says why, and ends with a code of its own.
fn panicked(lab: &Lab) -> Result<String> {
    let (machine, stream) = lab.send("panic", "role=fly")?;
    ensure!(machine.code == Some(PANICKED), "wanted exit code {PANICKED}, got {:?}", machine.code);
    ensure!(stream.is_empty(), "wanted nothing on the wire, got {} bytes", stream.len());
    let told = machine.lines.last().context("it said nothing")?;
    ensure!(told.ends_with("got role=fly"), "wanted the word in its last line, got '{told}'");
    Ok(told.clone())
}

/// A machine whose stack overflows has nothing behind it overwritten: it says so, and ends with a code of its own.
fn overflowed(lab: &Lab) -> Result<String> {
    let (machine, _) = lab.send("overflow", "role=overflow")?;
    let told = machine.lines.last().map_or("nothing", String::as_str);
    ensure!(machine.code == Some(FAULTED), "wanted exit code {FAULTED}, got {:?}: {told}", machine.code);
    ensure!(
        told.starts_with("the stack overflowed: byte "),
        "wanted that the stack overflowed, got '{told}'"
    );
    Ok(told.to_owned())
}

/// Checks how a machine ended and where its device is; returns what the device holds.
fn is_in<'s>(said: &'s Said, code: i32, wanted: &str) -> Result<&'s str> {
    let (state, content) = said.ended(code)?;
    ensure!(state == wanted, "{}: wanted its device in {wanted}, got {state}", said.name);
    Ok(content)
}

/// What a device holds after its reset.
fn zeros() -> String {
    format!("{:08x}", crc32c::crc32c(&[0; SIZE]))
}

const REFUSALS: [Refusal; 5] = [
    Refusal {
        name: "PRE_COPY",
        words: "features=7 refuse=PRE_COPY",
        events: &["set PRE_COPY: error 5", "set RUNNING to recover: ok"],
        told: "the device refused PRE_COPY: error 5",
        is_kept: true,
        is_whole: false,
    },
    Refusal {
        name: "RUNNING_P2P",
        words: "features=3 refuse=RUNNING_P2P",
        events: &["set RUNNING_P2P: error 5", "set RUNNING to recover: ok"],
        told: "the device refused RUNNING_P2P: error 5",
        is_kept: true,
        is_whole: false,
    },
    Refusal {
        name: "STOP_COPY",
        words: "features=1 refuse=STOP_COPY",
        events: &["set STOP_COPY: error 5", "set STOP to recover: ok", "set RUNNING to recover: ok"],
        told: "the device refused STOP_COPY: error 5",
        is_kept: true,
        is_whole: false,
    },
    Refusal {
        name: "STOP_COPY and the way back",
        words: "features=1 refuse=STOP_COPY refuse=STOP",
        events: &["set STOP_COPY: error 5", "set STOP to recover: error 5", "reset: ok"],
        told: "the device refused STOP_COPY: error 5",
        is_kept: false,
        is_whole: false,
    },
    Refusal {
        name: "STOP behind the stream",
        words: "features=1 refuse=STOP",
        events: &["send 8: 8", "set STOP: error 5", "reset: ok"],
        told: "the device refused STOP: error 5",
        is_kept: false,
        is_whole: true,
    },
];

/// The codes with which a machine's QEMU ends: see `tests/bare/src/machine/boot.rs`.
const DONE: i32 = 33;
const FAILED: i32 = 35;
const PANICKED: i32 = 37;
const SENT: i32 = 39;
const FAULTED: i32 = 41;

/// The uapi's flag in a device's features.
const PRE_COPY: u32 = 4;
