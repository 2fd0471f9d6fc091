//! The library's device behind a refusal that leaves more open than where it is.
//!
//! Deliberately absent: sessions. What they ask for then is tried in `tests/tests`.

use anyhow::{Result, anyhow, ensure};
use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device as _;
use vfio_migration_core::session::{Code, DataRead};
use vfio_migration_host::device::Device;
use vfio_migration_host::open::{Name, Opened};

use crate::suite::Bench;
use crate::testdev::{TestDevice, set};

/// A driver asks the kernel's table of arcs, which warns of a SET from ERROR: some kernels end at a warning.
pub(super) fn error(bench: &Bench) -> Result<()> {
    let (card, mut device) = open(bench)?;
    set(&mut device, State::PreCopy)?;
    card.knob("fault", "set 1 5 error")?;
    refused(&mut device, State::StopCopy, EIO)?;
    check(&card, &device, (State::Error, "ERROR"), 0)?;
    card.count_anew()?;
    refused(&mut device, State::Running, EINVAL)?;
    refused(&mut device, State::StopCopy, EINVAL)?;
    let asked = card.calls()?["set"];
    ensure!(asked == 0, "SETs of a device in ERROR: wanted none, got {asked}");
    device.reset().map_err(|code| anyhow!("reset: {code}"))?;
    check(&card, &device, (State::Running, "RUNNING"), 0)?;
    gives_data(&card, &mut device)
}

/// GET fails behind a refused SET: the session is given up, and whatever is asked for next is taken to be true.
pub(super) fn unknown(bench: &Bench) -> Result<()> {
    let (card, mut device) = open(bench)?;
    let content = card.checksum()?;
    set(&mut device, State::PreCopy)?;
    card.knob("fault", "set 1 5\nget 1 5")?;
    refused(&mut device, State::StopCopy, EIO)?;
    check(&card, &device, (State::Error, "PRE_COPY"), 0)?;
    set(&mut device, State::Running)?;
    check(&card, &device, (State::Running, "RUNNING"), 0)?;
    // A session that is opened from where nobody knows is nobody's.
    card.knob("fault", "set 1 5 midway\nget 1 5")?;
    refused(&mut device, State::Resuming, EIO)?;
    check(&card, &device, (State::Error, "RUNNING_P2P"), 0)?;
    set(&mut device, State::StopCopy)?;
    check(&card, &device, (State::StopCopy, "STOP_COPY"), 0)?;
    let read = device.read_data(&mut [0; 64]);
    ensure!(read == Err(EBADF), "read: wanted EBADF, got {read:?}");
    set(&mut device, State::Running)?;
    // The same with a reset: its answer counts, also where GET fails behind it.
    set(&mut device, State::PreCopy)?;
    ensure!(card.checksum()? == content, "the content is another one");
    card.knob("fault", "get 1 5")?;
    device.reset().map_err(|code| anyhow!("reset: {code}"))?;
    check(&card, &device, (State::Error, "RUNNING"), 0)?;
    set(&mut device, State::Running)?;
    gives_data(&card, &mut device)
}

fn open(bench: &Bench) -> Result<(TestDevice, Device<Opened>)> {
    let card = TestDevice::create(bench.source.set(), "e0000000-0000-0000-0000-000000000002")?;
    let name: Name = card.argument()?.parse()?;
    let device = Device::new(name.open()?)?;
    Ok((card, device))
}

/// Fails unless the library and the kernel say these states, and so many data sessions are open.
fn check(card: &TestDevice, device: &Device<Opened>, wanted: (State, &str), sessions: u64) -> Result<()> {
    let got = (device.state(), card.state()?, card.sessions()?);
    let fits = got.0 == wanted.0 && got.1 == wanted.1 && got.2 == sessions;
    ensure!(fits, "library, kernel and open data sessions: wanted {wanted:?} and {sessions}, got {got:?}");
    Ok(())
}

fn refused(device: &mut Device<Opened>, state: State, wanted: Code) -> Result<()> {
    let got = device.set_state(state);
    ensure!(got == Err(wanted), "SET {state}: wanted {wanted}, got {got:?}");
    Ok(())
}

/// Shows that a device works.
fn gives_data(card: &TestDevice, device: &mut Device<Opened>) -> Result<()> {
    for state in [State::PreCopy, State::StopCopy] {
        set(device, state)?;
        check(card, device, (state, state.name()), 1)?;
        let read = device.read_data(&mut [0; 64]);
        ensure!(read == Ok(DataRead::Bytes(64)), "read in {state}: wanted 64 bytes, got {read:?}");
    }
    set(device, State::Running)?;
    check(card, device, (State::Running, "RUNNING"), 0)
}

const EIO: Code = Code(5);
const EBADF: Code = Code(9);
const EINVAL: Code = Code(22);
