//! The sending side of one device.
//!
//! Deliberately absent: section headers and footers, and the body of the configuration. The caller writes them.

use vfio_migration_core::device::Features;
use vfio_migration_core::session::{Misuse, Source};

use crate::effect::{vfio_done, vfio_effect, vfio_event};
use crate::memory::{Storage, begin, check, check_apart, check_if_wanted, open, read, room, write};
use crate::phase::state;
use crate::status::vfio_status;

/// The sending side of one device: storage for the session, begun with vfio_source_init. It may be static. Its content
/// is the session's alone.
///
/// Orders on the way of a stop-copy migration: setup, stop, copy_rest, for a PCI device config, then finish. With
/// pre-copy, measure and copy_chunk come before stop, as often as the caller likes, and where several devices migrate
/// together quiesce. setup, copy_chunk, copy_rest and config each write the payload of one section, the other orders
/// nothing. Carry an order out with vfio_source_poll and vfio_source_complete until the effect is VFIO_EFFECT_IDLE.
///
/// What goes wrong with the data or the link brings the device back to the state it came from, as vfio_source_cancel
/// does, or after quiesce as far as RUNNING_P2P, as vfio_source_retreat does.
#[repr(C)]
pub struct vfio_source {
    /// The session's.
    pub words: [u64; 16],
}

// SAFETY: repr(C), of integers.
unsafe impl Storage for vfio_source {
    type Session = Source<'static>;
    const MARK: usize = 0x5f50_7263;
}

/// Begins a session for a device with `features` (the flags of VFIO_DEVICE_FEATURE_MIGRATION) that GET says is in state
/// `now`: RUNNING, or STOP for a paused machine's device. With `switchover_ack` it sends INIT_DATA_SENT, which the
/// destination must have agreed to. Of the `length` bytes of `buffer`, at least VFIO_BUFFER_MIN, all but
/// VFIO_SOURCE_HEADERS hold data; the first VFIO_SOURCE_DATA_AT are not read to. The buffer is set to 0, and is the
/// session's up to its last call. Storage that held a session may be begun anew.
///
/// Where `source` is aligned and not NULL, what lived there before is over whatever the answer: after a refusal there is
/// no session, and the buffer was set to 0 or left alone.
/// Answers VFIO_STATUS_SMALL_BUFFER, VFIO_STATUS_WRONG_STATE, VFIO_STATUS_NOT_MIGRATABLE,
/// VFIO_STATUS_BAD_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_init(
    source: *mut vfio_source,
    features: u64,
    now: u32,
    switchover_ack: u32,
    buffer: *mut u8,
    length: usize,
) -> vfio_status {
    let make = || {
        check_apart(source, buffer, length)?;
        let features = Features::from_raw(features).ok_or(vfio_status::VFIO_STATUS_NOT_MIGRATABLE)?;
        let now = state(now)?;
        // SAFETY: by the contract of this function the buffer is the session's as long as it is called.
        let buffer = unsafe { room(buffer, length) }?;
        Ok(Source::new(features, now, switchover_ack != 0, buffer)?)
    };
    // SAFETY: the contract of this function is that of `begin`.
    unsafe { begin(source, make) }.into()
}

/// Writes a START payload: SETUP, END_OF_STATE. With `pre_copy` the device is brought to PRE_COPY before.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is READY in RUNNING or STOP, and for `pre_copy` in RUNNING: a stopped
/// device can't enter PRE_COPY without running. VFIO_STATUS_NO_STATE where it has no PRE_COPY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_setup(source: *mut vfio_source, pre_copy: u32) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, |source| source.setup(pre_copy != 0)) }
}

/// Asks how much PRE_COPY has left; writes nothing. For some drivers the question itself starts the next piece.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is PRE_COPY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_measure(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::measure) }
}

/// Writes a PART payload: one DATA where the device has one, and END_OF_STATE, or in PRE_COPY INIT_DATA_SENT once the
/// initial data are through. Where PRE_COPY has nothing now, measure is done as well; where STOP_COPY has no more, the
/// phase becomes COPIED.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is PRE_COPY or COPYING.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_copy_chunk(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::copy_chunk) }
}

/// Keeps the device from starting DMA to others: RUNNING_P2P, or PRE_COPY_P2P in pre-copy. From here on what goes wrong
/// leads back to RUNNING_P2P alone, and vfio_source_cancel to RUNNING.
///
/// VFIO_STATUS_WRONG_ORDER unless the device runs and the phase is SET_UP or PRE_COPY; VFIO_STATUS_NO_STATE where it
/// has no P2P.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_quiesce(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::quiesce) }
}

/// Brings the device to STOP_COPY, from PRE_COPY with the data session that is there. The machine's processors must
/// have stopped.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is SET_UP, PRE_COPY or QUIESCED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_stop(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::stop) }
}

/// Writes an END payload: DATA until the device has no more, END_OF_STATE; the latter alone where all is copied.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is COPYING or COPIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_copy_rest(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::copy_rest) }
}

/// Writes a FULL payload: CONFIG, the body by the caller, END_OF_STATE.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is COPIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_config(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::config) }
}

/// Brings the device from STOP_COPY to STOP, which costs time in firmware and so is an order of its own: give it once
/// the last byte is on its way.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is COPIED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_finish(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::finish) }
}

/// Brings a finished device to RUNNING_P2P, where several devices of a machine go on together.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED; VFIO_STATUS_NO_STATE where it has no P2P.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_run_p2p(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::run_p2p) }
}

/// Brings a finished device back to RUNNING, for a machine that goes on after its state was saved.
///
/// VFIO_STATUS_WRONG_ORDER unless the phase is STOPPED, or READY in RUNNING_P2P.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_run(source: *mut vfio_source) -> vfio_status {
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, Source::run) }
}

/// Gives up: the device goes back to the state it came from. Possible at any time, also after a failure that left the
/// device in another state. What was asked for last must not be in progress any more. A payload that was begun stays
/// cut: close the link. Carry it out like any order; the phase becomes FAILED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_cancel(source: *mut vfio_source) -> vfio_status {
    let give = |source: &mut Source<'static>| {
        source.cancel();
        Ok(())
    };
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, give) }
}

/// As vfio_source_cancel, but after quiesce the device goes back to RUNNING_P2P, and stays there until
/// vfio_source_cancel takes it on: other devices may still stand.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_retreat(source: *mut vfio_source) -> vfio_status {
    let give = |source: &mut Source<'static>| {
        source.retreat();
        Ok(())
    };
    // SAFETY: the contract of this function is that of `order`.
    unsafe { order(source, give) }
}

/// Writes into `effect` what is wanted now. Asking twice changes nothing; "not yet" is said by not completing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_poll(source: *mut vfio_source, effect: *mut vfio_effect) -> vfio_status {
    let polled = || {
        check(effect)?;
        // SAFETY: the contract of this function is that of `open`.
        let source = unsafe { open(source) }?;
        // SAFETY: by the contract of this function `effect` is the caller's, and no part of the session.
        unsafe { write(effect, source.poll().into()) }
    };
    polled().into()
}

/// Takes the outcome of what vfio_source_poll asked for; the only way forward. Unless `event` is NULL, what was done is
/// written there, for whoever traces.
///
/// Answers VFIO_STATUS_WRONG_DONE, VFIO_STATUS_TOO_MANY, VFIO_STATUS_UNKNOWN_VALUE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_source_complete(
    source: *mut vfio_source,
    done: *const vfio_done,
    event: *mut vfio_event,
) -> vfio_status {
    let completed = || {
        check_if_wanted(event)?;
        // SAFETY: by the contract of this function the caller has written `done`.
        let done = unsafe { read(done) }?;
        // SAFETY: the contract of this function is that of `open`.
        let source = unsafe { open(source) }?;
        let what = source.complete(done.for_source()?)?;
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
    source: *mut vfio_source,
    give: impl FnOnce(&mut Source<'static>) -> Result<(), Misuse>,
) -> vfio_status {
    // SAFETY: the contract of this function is that of `open`.
    let session = unsafe { open(source) };
    session.and_then(|session| give(session).map_err(Into::into)).into()
}

/// The smallest buffer that a session takes, in bytes.
pub const VFIO_BUFFER_MIN: usize = 64;
/// Where in a source's buffer data are read to, in bytes.
pub const VFIO_SOURCE_DATA_AT: usize = 16;
/// Bytes of a source's buffer that are no data. A buffer of whole pages and so many bytes more, in which the data begin
/// with a page, lets a driver copy whole pages.
pub const VFIO_SOURCE_HEADERS: usize = 24;

// cbindgen takes numbers, not names of another crate.
const _: () = {
    use vfio_migration_core::session::{BUFFER_MIN, source};
    assert!(VFIO_BUFFER_MIN == BUFFER_MIN);
    assert!(VFIO_SOURCE_DATA_AT == source::DATA_AT);
    assert!(VFIO_SOURCE_HEADERS == source::HEADERS);
};
