//! What a migration ioctl carries: request numbers, feature numbers and `repr(C)` payloads.
//!
//! For whoever makes the calls, with or without std. All fields are native-endian. 64-bit fields are `__aligned_u64`
//! in the header, hence `align(8)` also on 32-bit machines. The request numbers are those of `_IO(';', 100 + n)` on
//! every architecture but mips, powerpc and sparc, whose direction bits differ.
//! Source: `include/uapi/linux/vfio.h`, Linux 7.2; `vfio-migration-host` holds layouts and numbers equal to the
//! crate `vfio-bindings` at compile time.
//!
//! Deliberately absent: v1, the region protocol of Linux 5.8 to 5.17, whose constants the header keeps as
//! `*_DEPRECATED`.

/// `VFIO_DEVICE_RESET`, on the device's fd, no argument.
pub const DEVICE_RESET: u32 = request(11);
/// `VFIO_DEVICE_FEATURE`, on the device's fd, argument [`Feature`].
pub const DEVICE_FEATURE: u32 = request(17);
/// `VFIO_MIG_GET_PRECOPY_INFO`, on the **data fd**, argument [`PrecopyInfo`].
pub const MIG_GET_PRECOPY_INFO: u32 = request(21);

/// Flag of [`Feature`]: ask whether the feature is there, together with GET or SET or both.
pub const FEATURE_PROBE: u32 = 1 << 18;
/// Flag of [`Feature`]: set the feature from the payload.
pub const FEATURE_SET: u32 = 1 << 17;
/// Flag of [`Feature`]: get the feature into the payload.
pub const FEATURE_GET: u32 = 1 << 16;

/// Feature number: [`Migration`], GET.
pub const FEATURE_MIGRATION: u32 = 1;
/// Feature number: [`MigState`], GET and SET.
pub const FEATURE_MIG_DEVICE_STATE: u32 = 2;
/// Feature number: DMA logging, SET.
pub const FEATURE_DMA_LOGGING_START: u32 = 6;
/// Feature number: [`MigDataSize`], GET.
pub const FEATURE_MIG_DATA_SIZE: u32 = 9;

/// `struct vfio_device_feature` with its payload.
#[doc(alias = "vfio_device_feature")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Feature<T> {
    /// The size of this whole structure in bytes.
    pub argsz: u32,
    /// The feature's number, with [`FEATURE_GET`], [`FEATURE_SET`] or [`FEATURE_PROBE`].
    pub flags: u32,
    /// The feature's payload.
    pub data: T,
}

impl<T> Feature<T> {
    /// The argument for feature `number`, used as `method` says ([`FEATURE_GET`], [`FEATURE_SET`], [`FEATURE_PROBE`]).
    pub const fn new(number: u32, method: u32, data: T) -> Self {
        const {
            assert!(size_of::<T>() <= 4096);
        }
        #[allow(clippy::cast_possible_truncation)] // at most 4096 and the header
        let argsz = (HEADER + size_of::<T>()) as u32;
        Self { argsz, flags: number | method, data }
    }
}

/// Payload of [`FEATURE_MIGRATION`].
#[doc(alias = "vfio_device_feature_migration")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Migration {
    /// What [`Features::from_raw`](super::Features::from_raw) takes.
    pub flags: u64,
}

/// Payload of [`FEATURE_MIG_DEVICE_STATE`].
#[doc(alias = "vfio_device_feature_mig_state")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MigState {
    /// What [`State::from_raw`](super::State::from_raw) takes.
    pub device_state: u32,
    /// Out: the new session's fd, close-on-exec and the caller's to close, or -1.
    pub data_fd: i32,
}

/// Payload of [`FEATURE_MIG_DATA_SIZE`].
#[doc(alias = "vfio_device_feature_mig_data_size")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct MigDataSize {
    /// An estimate of the bytes that STOP_COPY will give; a driver may say 0.
    pub stop_copy_length: u64,
}

/// Argument of [`MIG_GET_PRECOPY_INFO`]. Zero it before each call: drivers leave fields that they do not set.
#[doc(alias = "vfio_precopy_info")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct PrecopyInfo {
    /// The size of this structure, 24.
    pub argsz: u32,
    /// Bit 0: the device has started its initial data anew (`VFIO_PRECOPY_INFO_REINIT`).
    pub flags: u32,
    /// Bytes that the destination needs before the switchover for it to be quick; starts above zero and falls.
    pub initial_bytes: u64,
    /// Bytes that have changed since they were read.
    pub dirty_bytes: u64,
}

const HEADER: usize = 8;

const fn request(number: u32) -> u32 {
    ((b';' as u32) << 8) | (100 + number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_alignments_are_the_kernels() {
        assert_eq!((size_of::<Migration>(), align_of::<Migration>()), (8, 8));
        assert_eq!((size_of::<MigState>(), align_of::<MigState>()), (8, 4));
        assert_eq!((size_of::<MigDataSize>(), align_of::<MigDataSize>()), (8, 8));
        assert_eq!((size_of::<PrecopyInfo>(), align_of::<PrecopyInfo>()), (24, 8));
        assert_eq!(core::mem::offset_of!(PrecopyInfo, initial_bytes), 8);
        assert_eq!(core::mem::offset_of!(PrecopyInfo, dirty_bytes), 16);
        assert_eq!(core::mem::offset_of!(Feature<MigState>, data), 8);
        assert_eq!(core::mem::offset_of!(Feature<PrecopyInfo>, data), 8);
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!((DEVICE_RESET, DEVICE_FEATURE, MIG_GET_PRECOPY_INFO), (0x3b6f, 0x3b75, 0x3b79));
        assert_eq!(
            Feature::new(FEATURE_MIG_DEVICE_STATE, FEATURE_SET, MigState { device_state: 1, data_fd: -1 })
                .argsz,
            16
        );
        assert_eq!(Feature::new(FEATURE_MIGRATION, FEATURE_PROBE, ()).argsz, 8);
    }
}
