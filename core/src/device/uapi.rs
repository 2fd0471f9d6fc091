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

/// `VFIO_GET_API_VERSION`, on the container's fd, no argument; returns 0.
pub const GET_API_VERSION: u32 = request(0);
/// `VFIO_SET_IOMMU`, on the container's fd, argument [`TYPE1V2_IOMMU`] by value.
pub const SET_IOMMU: u32 = request(2);
/// `VFIO_GROUP_GET_STATUS`, on the group's fd, argument [`GroupStatus`].
pub const GROUP_GET_STATUS: u32 = request(3);
/// `VFIO_GROUP_SET_CONTAINER`, on the group's fd, argument the container's fd as an `int`.
pub const GROUP_SET_CONTAINER: u32 = request(4);
/// `VFIO_GROUP_GET_DEVICE_FD`, on the group's fd, argument the device's name as a C string; returns the device's fd.
pub const GROUP_GET_DEVICE_FD: u32 = request(6);
/// `VFIO_DEVICE_GET_INFO`, on the device's fd, argument [`DeviceInfo`].
pub const DEVICE_GET_INFO: u32 = request(7);
/// `VFIO_DEVICE_GET_REGION_INFO`, on the device's fd, argument [`RegionInfo`].
pub const DEVICE_GET_REGION_INFO: u32 = request(8);
/// `VFIO_MIG_GET_PRECOPY_INFO`, on the **data fd**, argument [`PrecopyInfo`].
pub const MIG_GET_PRECOPY_INFO: u32 = request(21);
/// `VFIO_DEVICE_BIND_IOMMUFD`, on the character device's fd, argument [`BindIommufd`].
pub const DEVICE_BIND_IOMMUFD: u32 = request(18);
/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`, on the device's fd, argument [`AttachIommufdPt`].
pub const DEVICE_ATTACH_IOMMUFD_PT: u32 = request(19);
/// `IOMMU_IOAS_ALLOC`, on the fd of `/dev/iommu`, argument [`IoasAlloc`].
pub const IOMMU_IOAS_ALLOC: u32 = request(29);
/// `VFIO_DEVICE_RESET`, on the device's fd, no argument.
pub const DEVICE_RESET: u32 = request(11);
/// `VFIO_DEVICE_FEATURE`, on the device's fd, argument [`Feature`].
pub const DEVICE_FEATURE: u32 = request(17);

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
/// Feature number: [`DmaLoggingControl`], SET: starts the log; a PROBE of it says whether the device can log at all.
#[doc(alias = "VFIO_DEVICE_FEATURE_DMA_LOGGING_START")]
pub const FEATURE_DMA_LOGGING_START: u32 = 6;
/// Feature number: no payload, SET: ends the log.
#[doc(alias = "VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP")]
pub const FEATURE_DMA_LOGGING_STOP: u32 = 7;
/// Feature number: [`DmaLoggingReport`], GET: reads a part of the log and clears it there.
#[doc(alias = "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT")]
pub const FEATURE_DMA_LOGGING_REPORT: u32 = 8;
/// Feature number: [`MigDataSize`], GET.
pub const FEATURE_MIG_DATA_SIZE: u32 = 9;
/// Feature number: no payload, SET: from then on [`PrecopyInfo`] has valid flags. Linux 7.1.
#[doc(alias = "VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2")]
pub const FEATURE_MIG_PRECOPY_INFO_V2: u32 = 12;

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

/// Payload of [`FEATURE_DMA_LOGGING_START`]; [`dirty`](super::dirty) makes what it points to.
#[doc(alias = "vfio_device_feature_dma_logging_control")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct DmaLoggingControl {
    /// In: the page size that is wanted, in bytes. Out: the one that the device chose.
    pub page_size: u64,
    /// How many ranges there are: from 1 to [`LIMIT`](super::dirty::LIMIT).
    pub num_ranges: u32,
    /// Zero.
    pub reserved: u32,
    /// The address of as many [`DmaLoggingRange`].
    pub ranges: u64,
}

/// A range of addresses as the device sees them (IOVA).
#[doc(alias = "vfio_device_feature_dma_logging_range")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct DmaLoggingRange {
    /// The first address.
    pub iova: u64,
    /// Bytes.
    pub length: u64,
}

/// Payload of [`FEATURE_DMA_LOGGING_REPORT`].
///
/// Bit n of the bitmap (bit n % 64 of word n / 64) is page n, counted from `iova`. The header's formula says otherwise;
/// this one is that of the kernel's `iova_bitmap.c`.
#[doc(alias = "vfio_device_feature_dma_logging_report")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct DmaLoggingReport {
    /// The first address.
    pub iova: u64,
    /// Bytes, not 0: the kernel calculates the bitmap's end from `length - 1` and does not look.
    pub length: u64,
    /// Bytes that a bit stands for: a power of two from 4096 on.
    pub page_size: u64,
    /// The address of the bitmap, an array of `u64`. The kernel sets bits in it and clears none.
    pub bitmap: u64,
}

/// Payload of [`FEATURE_MIG_DATA_SIZE`].
#[doc(alias = "vfio_device_feature_mig_data_size")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct MigDataSize {
    /// An estimate of the bytes that STOP_COPY will give; a driver may say 0.
    pub stop_copy_length: u64,
}

/// Flag of [`PrecopyInfo`]: the device has started its initial data anew. Only after SET of
/// [`FEATURE_MIG_PRECOPY_INFO_V2`] does a driver say so.
#[doc(alias = "VFIO_PRECOPY_INFO_REINIT")]
pub const PRECOPY_INFO_REINIT: u32 = 1 << 0;

/// Argument of [`MIG_GET_PRECOPY_INFO`]. Zero it before each call: drivers leave fields that they do not set.
#[doc(alias = "vfio_precopy_info")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct PrecopyInfo {
    /// The size of this structure, 24.
    pub argsz: u32,
    /// [`PRECOPY_INFO_REINIT`].
    pub flags: u32,
    /// Bytes that the destination needs before the switchover for it to be quick; starts above zero and falls.
    pub initial_bytes: u64,
    /// Bytes that have changed since they were read.
    pub dirty_bytes: u64,
}

/// Argument of [`SET_IOMMU`]: `VFIO_TYPE1v2_IOMMU`.
pub const TYPE1V2_IOMMU: usize = 3;

/// Argument of [`GROUP_GET_STATUS`].
#[doc(alias = "vfio_group_status")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct GroupStatus {
    /// The size of this structure, 8.
    pub argsz: u32,
    /// [`GROUP_VIABLE`] and others.
    pub flags: u32,
}

/// Flag of [`GroupStatus`]: every device of the group is bound to a vfio driver or to none.
pub const GROUP_VIABLE: u32 = 1 << 0;

/// Argument of [`DEVICE_GET_INFO`].
#[doc(alias = "vfio_device_info")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct DeviceInfo {
    /// The size of this structure, 24.
    pub argsz: u32,
    /// What kind of device it is. `VFIO_DEVICE_FLAGS_RESET` is no proof: mtty can be reset and does not say so.
    pub flags: u32,
    /// How many regions there are.
    pub num_regions: u32,
    /// How many interrupts there are.
    pub num_irqs: u32,
    /// Where capabilities begin in a larger argument.
    pub cap_offset: u32,
    /// Zero.
    pub pad: u32,
}

/// Flag of [`DeviceInfo`]: the device is a PCI function, with the regions of one.
#[doc(alias = "VFIO_DEVICE_FLAGS_PCI")]
pub const DEVICE_FLAGS_PCI: u32 = 1 << 1;
/// The region of a PCI function that is its configuration space.
#[doc(alias = "VFIO_PCI_CONFIG_REGION_INDEX")]
pub const PCI_CONFIG_REGION_INDEX: u32 = 7;

/// The head of the argument of [`DEVICE_GET_REGION_INFO`]; capabilities follow in a larger argument.
#[doc(alias = "vfio_region_info")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct RegionInfo {
    /// The size of the whole argument; out: the size that it should have.
    pub argsz: u32,
    /// Bit 3: capabilities are there.
    pub flags: u32,
    /// In: the region.
    pub index: u32,
    /// Where the first capability begins.
    pub cap_offset: u32,
    /// Bytes of the region.
    pub size: u64,
    /// Where the region begins in the device's fd.
    pub offset: u64,
}

/// Argument of [`DEVICE_BIND_IOMMUFD`] without `token_uuid_ptr`, which Linux 6.18 added.
#[doc(alias = "vfio_device_bind_iommufd")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BindIommufd {
    /// The size of this structure, 16.
    pub argsz: u32,
    /// Zero.
    pub flags: u32,
    /// The fd of `/dev/iommu`.
    pub iommufd: i32,
    /// Out: the device's number in the iommufd.
    pub out_devid: u32,
}

/// Argument of [`DEVICE_ATTACH_IOMMUFD_PT`] without `pasid`, which a later kernel added.
#[doc(alias = "vfio_device_attach_iommufd_pt")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct AttachIommufdPt {
    /// The size of this structure, 12.
    pub argsz: u32,
    /// Zero.
    pub flags: u32,
    /// The page table: what [`IoasAlloc`] gave.
    pub pt_id: u32,
}

/// Argument of [`IOMMU_IOAS_ALLOC`].
#[doc(alias = "iommu_ioas_alloc")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct IoasAlloc {
    /// The size of this structure, 12.
    pub size: u32,
    /// Zero.
    pub flags: u32,
    /// Out: the address space.
    pub out_ioas_id: u32,
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
        assert_eq!((size_of::<DmaLoggingControl>(), align_of::<DmaLoggingControl>()), (24, 8));
        assert_eq!((size_of::<DmaLoggingRange>(), align_of::<DmaLoggingRange>()), (16, 8));
        assert_eq!((size_of::<DmaLoggingReport>(), align_of::<DmaLoggingReport>()), (32, 8));
        assert_eq!(core::mem::offset_of!(Feature<MigState>, data), 8);
        assert_eq!(core::mem::offset_of!(Feature<Migration>, data), 8);
    }

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!((DEVICE_RESET, DEVICE_FEATURE, MIG_GET_PRECOPY_INFO), (0x3b6f, 0x3b75, 0x3b79));
        assert_eq!((GROUP_GET_DEVICE_FD, DEVICE_GET_INFO, IOMMU_IOAS_ALLOC), (0x3b6a, 0x3b6b, 0x3b81));
        assert_eq!(
            Feature::new(FEATURE_MIG_DEVICE_STATE, FEATURE_SET, MigState { device_state: 1, data_fd: -1 })
                .argsz,
            16
        );
        assert_eq!(Feature::new(FEATURE_MIGRATION, FEATURE_PROBE, ()).argsz, 8);
        let report = Feature::new(FEATURE_DMA_LOGGING_REPORT, FEATURE_GET, DmaLoggingReport::default());
        assert_eq!((report.argsz, report.flags), (40, 0x1_0008));
    }
}
