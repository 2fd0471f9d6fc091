//! What was done to the devices, step by step: as `vfio-migrate` tells it, and as the kernel saw it.
//!
//! Deliberately absent: times. Only the order is looked at.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::OFlags;
use serde_json::Value;

use crate::device::{PRE_COPY, RESUMING, RUNNING, STOP, STOP_COPY};

/// An event of a device, of those that `--trace-json` writes.
pub(crate) struct Told {
    /// The name of the device's sections.
    pub(crate) device: String,
    /// What was done.
    pub(crate) action: String,
    /// The state that was asked for.
    pub(crate) state: Option<String>,
    /// How many bytes were given or wanted.
    pub(crate) offered: Option<u64>,
}

/// Reads what `--trace-json` has written so far of what went well.
pub(crate) fn told(path: &str) -> Result<Vec<Told>> {
    let mut told = Vec::new();
    for line in fs::read_to_string(path)?.lines() {
        let event: Value = serde_json::from_str(line)?;
        let text = |key| event.get(key).and_then(Value::as_str).map(str::to_string);
        let (Some(device), Some(action), None) = (text("device"), text("action"), event.get("error")) else {
            continue;
        };
        let offered = event.get("offered").and_then(Value::as_u64);
        told.push(Told { device, action, state: text("state"), offered });
    }
    Ok(told)
}

/// Fails unless all devices were brought to the first of `states`, then all to the second, and so on.
pub(crate) fn check_order(told: &[Told], devices: usize, states: &[&str]) -> Result<()> {
    let sets: Vec<_> = told.iter().filter(|event| event.action == "set_state").collect();
    let got: Vec<_> = sets.iter().map(|event| event.state.as_deref().unwrap_or_default()).collect();
    let wanted: Vec<_> = states.iter().flat_map(|&state| vec![state; devices]).collect();
    ensure!(got == wanted, "SETs: wanted {wanted:?}, got {got:?}");
    for (of_all, state) in sets.chunks(devices).zip(states) {
        let mut names: Vec<_> = of_all.iter().map(|event| &event.device).collect();
        names.sort();
        names.dedup();
        ensure!(names.len() == devices, "{state}: wanted {devices} devices, got {names:?}");
    }
    Ok(())
}

/// The kernel's log from a certain moment on, in which the driver says each step of each card.
pub(crate) struct KernelLog(File);

/// A step of a card: its name, the state that it was in and the state that it goes to.
pub(crate) type Step = (String, u32, u32);

impl KernelLog {
    /// The log from now on.
    pub(crate) fn from_now() -> Result<Self> {
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let mut log = fs::OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg")?;
        log.seek(SeekFrom::End(0))?;
        Ok(Self(log))
    }

    /// The log as far as it goes back.
    pub(crate) fn whole() -> Result<Self> {
        let mut log = Self::from_now()?;
        log.0.seek(SeekFrom::Start(0))?;
        Ok(log)
    }

    /// What the kernel said, line by line.
    pub(crate) fn lines(self) -> Result<Vec<String>> {
        self.find(|record| record.lines().next().map(str::to_string))
    }

    /// The cards' steps since then, in their order.
    pub(crate) fn steps(self) -> Result<Vec<Step>> {
        self.find(step)
    }

    /// What `look` finds in the records since then.
    fn find<T>(mut self, look: impl Fn(&str) -> Option<T>) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut record = vec![0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => found.extend(look(&String::from_utf8_lossy(&record[..length]))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(found),
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }
}

/// Fails when a card may start a DMA while another one stands still. The cards come from RUNNING; those that are to be
/// loaded count from when all of them stand.
pub(crate) fn check_lockstep(steps: &[Step], devices: usize, loading: bool) -> Result<()> {
    let mut states: BTreeMap<&str, u32> = BTreeMap::new();
    let mut counts = !loading;
    for (card, from, to) in steps {
        let before = states.insert(card, *to).unwrap_or(RUNNING);
        ensure!(before == *from, "{card}: wanted a step from {before}, got one from {from} to {to}");
        let number = |kind: &[u32]| states.values().filter(|&state| kind.contains(state)).count();
        let active = number(&ACTIVE) + devices - states.len();
        let still = number(&STILL);
        counts |= still == devices;
        let together = !counts || active == 0 || still == 0;
        ensure!(together, "{card} from {from} to {to}: {still} cards stand, and {active} may start a DMA");
    }
    ensure!(states.len() == devices, "wanted steps of {devices} cards, got those of {states:?}");
    ensure!(states.values().all(|&state| state == RUNNING), "in the end: wanted RUNNING, got {states:?}");
    Ok(())
}

/// A record of the kernel's log, `...;vfio_mdev UUID: mtty_step_state: FROM -> TO`, where it is one of those.
fn step(record: &str) -> Option<Step> {
    let (front, states) = record.lines().next()?.split_once(": mtty_step_state: ")?;
    let (from, to) = states.split_once(" -> ")?;
    let card = front.rsplit(' ').next()?;
    Some((card.to_string(), from.parse().ok()?, to.parse().ok()?))
}

/// The states in which a device may start a DMA.
const ACTIVE: [u32; 2] = [RUNNING, PRE_COPY];
/// The states in which it must not be reached.
const STILL: [u32; 3] = [STOP, STOP_COPY, RESUMING];
