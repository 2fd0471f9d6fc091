//! What an arc does to the data session, for whoever holds the data fd.
//!
//! Deliberately absent: the steps that the kernel takes. A caller names the state that it wants.

use vfio_migration_core::device::Features;
use vfio_migration_core::device::arc::{DataSession, data_session};

use crate::memory::{check, write};
use crate::phase::state;
use crate::status::vfio_status;

/// What an arc does to the data session, the data_fd of VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub enum vfio_data_session {
    /// The kernel refuses the arc.
    VFIO_DATA_SESSION_REFUSED = 0,
    /// Neither end of the arc has a session.
    VFIO_DATA_SESSION_ABSENT = 1,
    /// The arc starts a session: the kernel returns a new data_fd.
    VFIO_DATA_SESSION_OPENS = 2,
    /// The session goes on with the data_fd that is already there; the kernel returns -1.
    VFIO_DATA_SESSION_KEPT = 3,
    /// The session is over: the old data_fd answers ENODEV and must be closed.
    VFIO_DATA_SESSION_ENDS = 4,
    /// The old session is over and a new one starts: close the old data_fd, take the new one.
    VFIO_DATA_SESSION_REPLACED = 5,
}

/// Writes into `session` what the arc between two states, of enum vfio_state, does to the data session of a device with
/// `features`: of enum vfio_data_session. After a refusal by the kernel nothing of it holds.
///
/// VFIO_STATUS_UNKNOWN_VALUE for a number that is no state, VFIO_STATUS_NOT_MIGRATABLE for features without STOP_COPY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_arc(features: u64, from: u32, to: u32, session: *mut u32) -> vfio_status {
    let told = || {
        check(session)?;
        let features = Features::from_raw(features).ok_or(vfio_status::VFIO_STATUS_NOT_MIGRATABLE)?;
        let found = vfio_data_session::from(data_session(features, state(from)?, state(to)?));
        // SAFETY: by the contract of this function `session` is the caller's.
        unsafe { write(session, found as u32) }
    };
    told().into()
}

impl From<Option<DataSession>> for vfio_data_session {
    fn from(session: Option<DataSession>) -> Self {
        match session {
            None => Self::VFIO_DATA_SESSION_REFUSED,
            Some(DataSession::Absent) => Self::VFIO_DATA_SESSION_ABSENT,
            Some(DataSession::Opens) => Self::VFIO_DATA_SESSION_OPENS,
            Some(DataSession::Kept) => Self::VFIO_DATA_SESSION_KEPT,
            Some(DataSession::Ends) => Self::VFIO_DATA_SESSION_ENDS,
            Some(DataSession::Replaced) => Self::VFIO_DATA_SESSION_REPLACED,
        }
    }
}
