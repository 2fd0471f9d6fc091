//! The caller's memory: checked as far as it can be, then read, written, or borrowed.
//!
//! Deliberately absent: whether memory is there. Only the caller knows; the front page has its part of the contract.

use core::mem::size_of;
use core::slice;

use crate::status::vfio_status;

/// A type all of whose bytes may have any value.
///
/// # Safety
/// The type must be `repr(C)` and made of integers, raw pointers, and arrays and unions of them alone.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer, of which every value is one.
unsafe impl Plain for u32 {}

// SAFETY: an integer, of which every value is one.
unsafe impl Plain for usize {}

// SAFETY: an integer, of which every value is one.
unsafe impl Plain for u64 {}

/// Memory of the caller in which something of ours lives, begun with [`begin`].
///
/// # Safety
/// The type must be `repr(C)` and made of integers alone.
pub(crate) unsafe trait Storage: Sized {
    /// What lives in it.
    type Session;
    /// Tells it from others; no two have the same. It is odd, so that no slot's mark is 0, which is nobody's.
    const MARK: usize;
}

/// How it lives there.
#[repr(C)]
pub(crate) struct Slot<T> {
    /// [`Storage::MARK`] and the slot's own address: a copy elsewhere has another.
    mark: usize,
    session: T,
}

/// Writes a session into its storage. Where none can be made, and while one is made, there is none: what lived there
/// before is over, whoever still calls it.
///
/// # Safety
/// `storage` is NULL, misaligned, or points to memory of its type that is there and that nobody else uses.
pub(crate) unsafe fn begin<S: Storage>(
    storage: *mut S,
    make: impl FnOnce() -> Result<S::Session, vfio_status>,
) -> Result<(), vfio_status> {
    const { assert!(size_of::<Slot<S::Session>>() <= size_of::<S>(), "the header's storage is too small") };
    const { assert!(align_of::<Slot<S::Session>>() <= align_of::<S>(), "the header's storage is misaligned") };
    const { assert!(align_of::<S>() > 1 && S::MARK % 2 == 1, "a slot's mark can be 0") };
    check(storage)?;
    let slot = storage.cast::<Slot<S::Session>>();
    // SAFETY: the pointer is neither NULL nor misaligned, and by the caller's contract its memory is there and unused;
    // the mark is the first in a slot, and the first two assertions say that a slot fits there.
    unsafe { slot.cast::<usize>().write(0) };
    let session = make()?;
    // SAFETY: as above. What stood there before needs no drop: sessions have none.
    unsafe { slot.write(Slot { mark: mark(storage), session }) };
    Ok(())
}

/// The session that [`begin`] wrote.
///
/// # Safety
/// As [`begin`], and for as long as `'a`. The memory has been written before, and what the session borrows is there.
pub(crate) unsafe fn open<'a, S: Storage>(storage: *mut S) -> Result<&'a mut S::Session, vfio_status> {
    check(storage)?;
    let slot = storage.cast::<Slot<S::Session>>();
    // SAFETY: the pointer is neither NULL nor misaligned, and by the caller's contract its memory is there and was
    // written; the mark alone is read, the first in a slot, and every value of a number is one. `begin` asserts that the
    // slot lies within the storage, and is aligned as that is.
    let found = unsafe { slot.cast::<usize>().read() };
    if found != mark(storage) {
        return Err(vfio_status::VFIO_STATUS_NOT_INITIALISED);
    }
    // SAFETY: the mark is this type's and this address's, so `begin` wrote a session here; by the caller's contract
    // nobody else uses it during the call.
    Ok(unsafe { &mut (*slot).session })
}

/// Reads what the caller wrote.
///
/// # Safety
/// `pointer` is NULL, misaligned, or points to a value that is there, was written, and that nobody changes meanwhile.
pub(crate) unsafe fn read<T: Plain>(pointer: *const T) -> Result<T, vfio_status> {
    check(pointer)?;
    // SAFETY: the pointer is neither NULL nor misaligned, by the caller's contract its memory is there, and every value
    // of its bytes is one of a plain type.
    Ok(unsafe { pointer.read() })
}

/// Writes for the caller, who may not want it: then the pointer is NULL. Where something has changed before, the pointer
/// must have been checked before that.
///
/// # Safety
/// `pointer` is NULL, misaligned, or points to memory of its type that is there and that nobody else uses.
pub(crate) unsafe fn write<T: Plain>(pointer: *mut T, value: T) -> Result<(), vfio_status> {
    check_if_wanted(pointer)?;
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: the pointer is neither NULL nor misaligned, and by the caller's contract its memory is there and unused.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Copies bytes of ours to the front of the caller's room, behind which nothing changes. Where the room is too short,
/// nothing does.
///
/// # Safety
/// `out` is NULL, or points to `room` bytes that are there and that nobody else uses; `bytes` is none of them.
pub(crate) unsafe fn put(out: *mut u8, room: usize, bytes: &[u8]) -> Result<(), vfio_status> {
    check(out)?;
    if bytes.len() > room {
        return Err(vfio_status::VFIO_STATUS_NO_ROOM);
    }
    // SAFETY: the pointer is not NULL, and bytes need no alignment; there are no more bytes than room, which by the
    // caller's contract is there, unused, and apart from them.
    unsafe { out.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(())
}

/// Bytes to read.
///
/// # Safety
/// `bytes` is NULL, or points to `length` bytes that are there, were written, and that nobody changes during `'a`.
pub(crate) unsafe fn bytes<'a>(bytes: *const u8, length: usize) -> Result<&'a [u8], vfio_status> {
    if length == 0 {
        return Ok(&[]);
    }
    check_bytes(bytes, length)?;
    // SAFETY: the pointer is not NULL and bytes need no alignment; the length is below the largest of an object, and the
    // end below the end of memory; by the caller's contract the bytes are there, and nobody changes them.
    Ok(unsafe { slice::from_raw_parts(bytes, length) })
}

/// Room for bytes, all of them set to 0: from then on they have a value, whatever the caller had there.
///
/// # Safety
/// `room` is NULL, or points to `length` bytes that are there and that nobody else uses during `'a`.
pub(crate) unsafe fn room<'a>(room: *mut u8, length: usize) -> Result<&'a mut [u8], vfio_status> {
    if length == 0 {
        return Ok(&mut []);
    }
    check_bytes(room, length)?;
    // SAFETY: the pointer is not NULL and bytes need no alignment; by the caller's contract the bytes are there and unused.
    unsafe { room.write_bytes(0, length) };
    // SAFETY: as above, and they have a value now; the length is below the largest of an object, and the end below the
    // end of memory.
    Ok(unsafe { slice::from_raw_parts_mut(room, length) })
}

/// That a pointer may be followed: what can be told of it.
pub(crate) fn check<T>(pointer: *const T) -> Result<(), vfio_status> {
    if pointer.is_null() {
        return Err(vfio_status::VFIO_STATUS_NULL);
    }
    if !pointer.is_aligned() {
        return Err(vfio_status::VFIO_STATUS_MISALIGNED);
    }
    Ok(())
}

/// As [`check`], of a pointer that may be NULL.
pub(crate) fn check_if_wanted<T>(pointer: *const T) -> Result<(), vfio_status> {
    if pointer.is_null() { Ok(()) } else { check(pointer) }
}

/// That a buffer lies beside a session's storage.
pub(crate) fn check_apart<S>(storage: *const S, buffer: *const u8, length: usize) -> Result<(), vfio_status> {
    let (storage, buffer) = (storage.addr(), buffer.addr());
    let apart = buffer.saturating_add(length) <= storage || storage.saturating_add(size_of::<S>()) <= buffer;
    if apart { Ok(()) } else { Err(vfio_status::VFIO_STATUS_BAD_MEMORY) }
}

fn check_bytes(bytes: *const u8, length: usize) -> Result<(), vfio_status> {
    check(bytes)?;
    let fits = isize::try_from(length).is_ok() && bytes.addr().checked_add(length).is_some();
    if fits { Ok(()) } else { Err(vfio_status::VFIO_STATUS_BAD_MEMORY) }
}

fn mark<S: Storage>(storage: *const S) -> usize {
    S::MARK ^ storage.addr()
}
