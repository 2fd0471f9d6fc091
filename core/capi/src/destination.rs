//! The receiving side of one device.
//!
//! Deliberately absent: section headers and footers, and a check that all data has come. A stream's integrity is the
//! caller's to check before it orders stop.

use vfio_migration_core::device::Features;
use vfio_migration_core::session::{Destination, Misuse};

use crate::effect::{vfio_done, vfio_effect, vfio_event};
use crate::memory::{Storage, begin, check, check_apart, check_if_wanted, open, read, room, write};
use crate::phase::state;
use crate::record::vfio_tag;
use crate::status::vfio_status;

/// The receiving side of one device: storage for the session, begun with vfio_destination_init. It may be static. Its
/// content is the session's alone.
///
/// Orders: resume, one section for each section of the device, then stop and run; where several devices migrate
/// together, run_p2p for each of them before run for any. Carry an order out with vfio_destination_poll and
/// vfio_destination_complete until the effect is VFIO_EFFECT_IDLE.
///
/// Once the device is in RESUMING, whatever goes wrong ends in a reset: nothing else aborts RESUMING, and a driver that
/// refused a write may let RESUMING to STOP succeed with half a state.
#[repr(C)]
pub struct vfio_destination {
    /// The session's.
    pub words: [u64; 16],
}

// SAFETY: repr(C), of integers.
unsafe impl Storage for vfio_destination {
    type Session = Destination<'static>;
    const MARK: usize = 0x4c44_6573;
}

/// Begins a session for a device with `features` (the flags of VFIO_DEVICE_FEATURE_MIGRATION) that GET says is in state
/// `now`: RUNNING or STOP. With `switchover_ack` the source may send INIT_DATA_SENT, provided that the device has
/// PRE_COPY. All `length` bytes of `buffer`, at least VFIO_BUFFER_MIN, take data. The buffer is set to 0, and is the
/// session's up to its last call. Storage that held a session may be begun anew.
///
/// Where `destination` is aligned and not NULL, what lived there before is over whatever the answer: after a refusal
/// there is no session, and the buffer was set to 0 or left alone.
/// Answers VFIO_STATUS_SMALL_BUFFER, VFIO_STATUS_WRONG_STATE, VFIO_STATUS_NOT_MIGRATABLE,
/// VFIO_STATUS_BAD_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_init(
    destination: *mut vfio_destination,
    features: u64,
    now: u32,
    switchover_ack: u32,
    buffer: *mut u8,
    length: usize,
) -> vfio_status {
    let make = || {
        check_apart(destination, buffer, length)?;
        let features = Features::from_raw(features).ok_or(vfio_status::VFIO_STATUS_NOT_MIGRATABLE)?;
        let now = state(now)?;
        // SAFETY: by the contract of this function the buffer is the session's as long as it is called.
        let buffer = unsafe { room(buffer, length) }?;
        Ok(Destination::new(features, now, switchover_ack != 0, buffer)?)
    };
    // SAFETY: the contract of this function is that of `begin`.
    unsafe { begin(destination, make) }.into()
}

/// Brings the device to RESUMING. What it held before is lost from here on.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is READY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_resume(destination: *mut vfio_destination) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(destination, Destination::resume) }
}

/// Takes one payload, through its terminator and not a byte more.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is RESUMING or SECTION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_section(destination: *mut vfio_destination) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(destination, Destination::section) }
}

/// Brings the device from RESUMING to STOP, which makes the driver accept or refuse the state as a whole.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is RESUMING or SECTION.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_stop(destination: *mut vfio_destination) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(destination, Destination::stop) }
}

/// Brings the device from STOP to RUNNING_P2P.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED; VFIO_STATUS_NO_STATE where it has no P2P.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_run_p2p(destination: *mut vfio_destination) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(destination, Destination::run_p2p) }
}

/// Brings the device from STOP or RUNNING_P2P to RUNNING.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED or RUNNING_P2P.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_run(destination: *mut vfio_destination) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(destination, Destination::run) }
}

/// Gives up: after resume the device is reset, before it nothing happens to it. Possible at any time. What was asked for
/// last must not be in progress any more. Carry it out like any order; the phase becomes FAILED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_cancel(destination: *mut vfio_destination) -> vfio_status {
    let give = |destination: &mut Destination<'static>| {
        destination.cancel();
        Ok(())
    };
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(destination, give) }
}

/// Writes into `tag` the record that the last section stands in or failed in, of enum vfio_tag, or 0 between two records.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_record(
    destination: *mut vfio_destination,
    tag: *mut u32,
) -> vfio_status {
    let told = || {
        check(tag)?;
        // SAFETY: the contract of this function is that of `open`.
        let destination = unsafe { open(destination) }?;
        let record = destination.record().map_or(0, |tag| vfio_tag::from(tag) as u32);
        // SAFETY: by the contract of this function `tag` is the caller's, and no part of the session.
        unsafe { write(tag, record) }
    };
    told().into()
}

/// Writes into `effect` what is wanted now. Asking twice changes nothing; "not yet" is said by not completing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_poll(
    destination: *mut vfio_destination,
    effect: *mut vfio_effect,
) -> vfio_status {
    let polled = || {
        check(effect)?;
        // SAFETY: the contract of this function is that of `open`.
        let destination = unsafe { open(destination) }?;
        // SAFETY: by the contract of this function `effect` is the caller's, and no part of the session.
        unsafe { write(effect, destination.poll().into()) }
    };
    polled().into()
}

/// Takes the outcome of what vfio_destination_poll asked for; the only way forward. Unless `event` is NULL, what was
/// done is written there, for whoever traces.
///
/// Answers VFIO_STATUS_WRONG_DONE, VFIO_STATUS_TOO_MANY, VFIO_STATUS_UNKNOWN_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_destination_complete(
    destination: *mut vfio_destination,
    done: *const vfio_done,
    event: *mut vfio_event,
) -> vfio_status {
    let completed = || {
        check_if_wanted(event)?;
        // SAFETY: by the contract of this function the caller has written `done`.
        let done = unsafe { read(done) }?;
        // SAFETY: the contract of this function is that of `open`.
        let destination = unsafe { open(destination) }?;
        let what = destination.complete(done.for_destination()?)?;
        // SAFETY: by the contract of this function `event` is NULL or the caller's, and no part of the session.
        unsafe { write(event, what.into()) }
    };
    completed().into()
}

/// Gives an order.
///
/// # Safety
/// That of [`open`].
unsafe fn order(
    destination: *mut vfio_destination,
    give: impl FnOnce(&mut Destination<'static>) -> Result<(), Misuse>,
) -> vfio_status {
    // SAFETY: the contract of this function is that of `open`.
    let session = unsafe { open(destination) };
    session.and_then(|session| give(session).map_err(Into::into)).into()
}
