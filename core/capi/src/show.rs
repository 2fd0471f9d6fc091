//! In words, for people who debug: what was done, how a session failed, what a function answered.
//!
//! All end in NUL and are cut where the room is short. Numbers that name nothing are VFIO_STATUS_UNKNOWN_VALUE, and then
//! the text is empty.
//!
//! Deliberately absent: a logger, and the device's name. The caller has both.

use core::ffi::c_char;
use core::fmt::{self, Write as _};

use vfio_migration_core::session::{Cause, Event, Failure};

use crate::effect::vfio_event;
use crate::memory::{check_if_wanted, read, room, write};
use crate::phase::{state, vfio_cause, vfio_failure};
use crate::status::vfio_status;

/// Writes an event in words to the `room` bytes of `out`, for instance "set STOP_COPY: ok" or "read data, room for 40:
/// error 5", and the length of the whole text without its NUL into `length`, which may be NULL.
///
/// VFIO_STATUS_NO_ROOM where it was cut; it ends in NUL all the same unless `room` is 0. The rest of `out` is set to 0.
/// Where there is nothing to say, for numbers that name nothing or an `event` that can't be read, the text is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_event_show(
    event: *const vfio_event,
    out: *mut c_char,
    room: usize,
    length: *mut usize,
) -> vfio_status {
    // SAFETY: by the contract of this function the caller has written `event`.
    let event = unsafe { read(event) }.and_then(Event::try_from);
    // SAFETY: the contract of this function is that of `show`.
    unsafe { show(event, out, room, length) }
}

/// Writes in words how a session failed, with the first cause and where its device is, as vfio_event_show does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_failure_show(
    failure: *const vfio_failure,
    out: *mut c_char,
    room: usize,
    length: *mut usize,
) -> vfio_status {
    // SAFETY: by the contract of this function the caller has written `failure`.
    let failure = unsafe { read(failure) }.and_then(Failure::try_from);
    // SAFETY: the contract of this function is that of `show`.
    unsafe { show(failure, out, room, length) }
}

/// Writes a cause in words, as vfio_event_show does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_cause_show(
    cause: *const vfio_cause,
    out: *mut c_char,
    room: usize,
    length: *mut usize,
) -> vfio_status {
    // SAFETY: by the contract of this function the caller has written `cause`.
    let cause = unsafe { read(cause) }.and_then(Cause::try_from);
    // SAFETY: the contract of this function is that of `show`.
    unsafe { show(cause, out, room, length) }
}

/// Writes a function's answer in words, as vfio_event_show does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_status_show(
    status: u32,
    out: *mut c_char,
    room: usize,
    length: *mut usize,
) -> vfio_status {
    // SAFETY: the contract of this function is that of `show`.
    unsafe { show(vfio_status::from_raw(status).map(vfio_status::words), out, room, length) }
}

/// Writes the name of a state, for instance STOP_COPY, as vfio_event_show does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_state_show(
    state_: u32,
    out: *mut c_char,
    room: usize,
    length: *mut usize,
) -> vfio_status {
    // SAFETY: the contract of this function is that of `show`.
    unsafe { show(state(state_), out, room, length) }
}

/// Writes a text and its NUL; where there is none, the NUL alone.
///
/// # Safety
/// `out` is NULL, or points to `length` bytes that are there and that nobody else uses; `told` as for `write`.
unsafe fn show<T: fmt::Display>(
    what: Result<T, vfio_status>,
    out: *mut c_char,
    length: usize,
    told: *mut usize,
) -> vfio_status {
    let shown = || {
        check_if_wanted(told)?;
        // SAFETY: the contract of this function is that of `room`, which sets all bytes to 0, the last one for good.
        let out = unsafe { room(out.cast(), length) }?;
        let fits = out.len().saturating_sub(1);
        let mut text = Text { room: out.get_mut(..fits).unwrap_or_default(), length: 0 };
        // Texts of ours never fail, and neither does the place they go to.
        let _ = write!(text, "{}", what?);
        let whole = text.length;
        // SAFETY: by the contract of this function `told` is NULL or the caller's.
        unsafe { write(told, whole) }?;
        if whole <= fits && length > 0 { Ok(()) } else { Err(vfio_status::VFIO_STATUS_NO_ROOM) }
    };
    shown().into()
}

/// A text that is cut where its room ends, and counted further.
struct Text<'a> {
    room: &'a mut [u8],
    length: usize,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = self.room.get_mut(self.length..).unwrap_or_default();
        free.iter_mut().zip(text.bytes()).for_each(|(place, byte)| *place = byte);
        self.length = self.length.saturating_add(text.len());
        Ok(())
    }
}
