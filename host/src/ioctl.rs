//! One function per ioctl. The only `unsafe` code of core and host stands here.
//!
//! Layouts and numbers are those of [`vfio_migration_core::device::uapi`]; on 64-bit targets they are held equal to
//! the crate `vfio-bindings` at compile time, where there is std.
//!
//! Any descriptor may be passed: one that is no VFIO device, group, container or iommufd answers ENOTTY, since no other
//! driver has these numbers, and nothing is taken from a failed call. EINTR is retried: every request may be repeated but
//! one, a report of dirty pages, which clears what it tells.
//!
//! Deliberately absent: interpretation. Numbers that the kernel returns become enums in [`device`](crate::device).
#![allow(unsafe_code)]

use core::ffi::{CStr, c_void};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::{Errno, Result, fcntl_dupfd_cloexec, retry_on_intr};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
#[cfg(feature = "std")]
use vfio_migration_core::device::dirty::PageSize;
use vfio_migration_core::device::uapi::{self, Feature};

/// The version of the group API, on a container; 0 is the only one there is.
///
/// # Errors
/// The kernel's answer.
pub fn get_api_version(container: impl AsFd) -> Result<i32> {
    // SAFETY: VFIO_GET_API_VERSION takes no argument and touches no memory.
    unsafe { call_with_value(container, uapi::GET_API_VERSION, 0) }
}

/// Gives a container that has a group the type 1 IOMMU driver, version 2.
///
/// # Errors
/// The kernel's answer.
pub fn set_iommu_type1v2(container: impl AsFd) -> Result<()> {
    // SAFETY: VFIO_SET_IOMMU takes a number by value and touches no memory of ours.
    unsafe { call_with_value(container, uapi::SET_IOMMU, uapi::TYPE1V2_IOMMU) }.map(drop)
}

/// The flags of a group, for instance [`uapi::GROUP_VIABLE`].
///
/// # Errors
/// The kernel's answer.
pub fn group_get_status(group: impl AsFd) -> Result<u32> {
    let mut status = uapi::GroupStatus { argsz: size_u32::<uapi::GroupStatus>(), flags: 0 };
    // SAFETY: VFIO_GROUP_GET_STATUS reads and writes at most argsz bytes of the structure.
    unsafe { call(group, uapi::GROUP_GET_STATUS, &mut status) }?;
    Ok(status.flags)
}

/// Puts a group into a container.
///
/// # Errors
/// The kernel's answer.
pub fn group_set_container(group: impl AsFd, container: impl AsFd) -> Result<()> {
    let mut fd = container.as_fd().as_raw_fd();
    // SAFETY: VFIO_GROUP_SET_CONTAINER reads one int, an fd that `container` keeps open during the call.
    unsafe { call(group, uapi::GROUP_SET_CONTAINER, &mut fd) }.map(drop)
}

/// Opens the device that the group knows as `name`: a PCI address or an mdev's UUID.
///
/// # Errors
/// The kernel's answer.
pub fn group_get_device_fd(group: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    let request = Call { request: uapi::GROUP_GET_DEVICE_FD, argument: name.as_ptr().cast_mut().cast() };
    // SAFETY: VFIO_GROUP_GET_DEVICE_FD reads a string up to its NUL, which CStr guarantees, and writes nothing.
    let fd = retry_on_intr(|| unsafe { rustix::ioctl::ioctl(group.as_fd(), request) })?;
    // SAFETY: on success the kernel has installed a new fd with this number, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What the device says of itself.
///
/// # Errors
/// The kernel's answer; EINVAL on a character device that is not bound yet.
pub fn device_get_info(device: impl AsFd) -> Result<uapi::DeviceInfo> {
    let mut info = uapi::DeviceInfo { argsz: size_u32::<uapi::DeviceInfo>(), ..Default::default() };
    // SAFETY: VFIO_DEVICE_GET_INFO reads and writes at most argsz bytes of the structure.
    unsafe { call(device, uapi::DEVICE_GET_INFO, &mut info) }?;
    Ok(info)
}

/// A region with as many bytes of its capabilities as `N`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct RegionWithCapabilities<const N: usize> {
    /// What the kernel always says.
    pub info: uapi::RegionInfo,
    /// The capabilities, where the kernel found room for all of them.
    pub capabilities: [u8; N],
}

/// Region `index` of a device. `info.argsz` says how large the structure should have been.
///
/// # Errors
/// The kernel's answer.
pub fn device_get_region_info<const N: usize>(
    device: impl AsFd,
    index: u32,
) -> Result<RegionWithCapabilities<N>> {
    let argsz = size_u32::<RegionWithCapabilities<N>>();
    let info = uapi::RegionInfo { argsz, index, ..Default::default() };
    let mut region = RegionWithCapabilities { info, capabilities: [0; N] };
    // SAFETY: VFIO_DEVICE_GET_REGION_INFO reads and writes at most argsz bytes, the size of this structure.
    unsafe { call(device, uapi::DEVICE_GET_REGION_INFO, &mut region) }?;
    Ok(region)
}

/// Resets the device; it is RUNNING afterwards.
///
/// # Errors
/// The kernel's answer.
pub fn device_reset(device: impl AsFd) -> Result<()> {
    // SAFETY: VFIO_DEVICE_RESET takes no argument and touches no memory of ours.
    unsafe { call_with_value(device, uapi::DEVICE_RESET, 0) }.map(drop)
}

/// Whether the device has a feature for `methods` ([`uapi::FEATURE_GET`] and [`uapi::FEATURE_SET`]).
///
/// # Errors
/// The kernel's answer: ENOTTY where kernel or driver does not have the feature.
pub fn probe_feature(device: impl AsFd, number: u32, methods: u32) -> Result<()> {
    let mut feature = Feature::new(number, uapi::FEATURE_PROBE | methods, ());
    // SAFETY: with PROBE, VFIO_DEVICE_FEATURE reads the header alone and writes nothing.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }.map(drop)
}

/// The `flags` of `VFIO_DEVICE_FEATURE_MIGRATION`.
///
/// # Errors
/// The kernel's answer: ENOTTY where kernel or driver has no migration v2.
pub fn get_migration(device: impl AsFd) -> Result<u64> {
    let mut feature = Feature::new(uapi::FEATURE_MIGRATION, uapi::FEATURE_GET, uapi::Migration::default());
    // SAFETY: VFIO_DEVICE_FEATURE writes at most argsz bytes, the size of this structure.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }?;
    Ok(feature.data.flags)
}

/// The number of the state that the device is in.
///
/// # Errors
/// The kernel's answer.
pub fn get_device_state(device: impl AsFd) -> Result<u32> {
    let state = uapi::MigState { device_state: 0, data_fd: -1 };
    let mut feature = Feature::new(uapi::FEATURE_MIG_DEVICE_STATE, uapi::FEATURE_GET, state);
    // SAFETY: VFIO_DEVICE_FEATURE writes at most argsz bytes, the size of this structure.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }?;
    Ok(feature.data.device_state)
}

/// SETs the state with number `state`; returns the new data fd where the arc opens a session.
///
/// # Errors
/// The kernel's answer; the device may be in any state of the way then.
pub fn set_device_state(device: impl AsFd, state: u32) -> Result<Option<OwnedFd>> {
    let state = uapi::MigState { device_state: state, data_fd: -1 };
    let mut feature = Feature::new(uapi::FEATURE_MIG_DEVICE_STATE, uapi::FEATURE_SET, state);
    // SAFETY: VFIO_DEVICE_FEATURE reads and writes at most argsz bytes, the size of this structure.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }?;
    let fd = feature.data.data_fd;
    // SAFETY: on success the kernel has written -1 or the number of a new fd, which nobody else owns.
    Ok((fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// The driver's estimate of the bytes that STOP_COPY will give.
///
/// # Errors
/// The kernel's answer.
pub fn get_mig_data_size(device: impl AsFd) -> Result<u64> {
    let mut feature =
        Feature::new(uapi::FEATURE_MIG_DATA_SIZE, uapi::FEATURE_GET, uapi::MigDataSize::default());
    // SAFETY: VFIO_DEVICE_FEATURE writes at most argsz bytes, the size of this structure.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }?;
    Ok(feature.data.stop_copy_length)
}

/// What a data fd in PRE_COPY still has. Drivers leave fields that they do not set, so all of them are zero before.
///
/// # Errors
/// The kernel's answer: EINVAL in any state but PRE_COPY and PRE_COPY_P2P.
pub fn get_precopy_info(data: impl AsFd) -> Result<uapi::PrecopyInfo> {
    let mut info = uapi::PrecopyInfo { argsz: size_u32::<uapi::PrecopyInfo>(), ..Default::default() };
    // SAFETY: VFIO_MIG_GET_PRECOPY_INFO reads and writes at most argsz bytes of the structure.
    unsafe { call(data, uapi::MIG_GET_PRECOPY_INFO, &mut info) }?;
    Ok(info)
}

/// What a data fd answers to `VFIO_MIG_GET_PRECOPY_INFO` where the caller says `argsz` and has left bytes `left` in the
/// fields behind it. The argument has room for 64 bytes, and `argsz` says no more than that.
///
/// # Errors
/// The kernel's answer.
#[cfg(feature = "std")]
pub(crate) fn get_precopy_info_as(data: impl AsFd, argsz: u32, left: u8) -> Result<uapi::PrecopyInfo> {
    #[repr(C)]
    struct Room {
        info: uapi::PrecopyInfo,
        behind: [u64; 5],
    }
    let word = u64::from_ne_bytes([left; 8]);
    let flags = u32::from_ne_bytes([left; 4]);
    let argsz = argsz.min(size_u32::<Room>());
    let info = uapi::PrecopyInfo { argsz, flags, initial_bytes: word, dirty_bytes: word };
    let mut room = Room { info, behind: [word; 5] };
    // SAFETY: VFIO_MIG_GET_PRECOPY_INFO reads and writes vfio_precopy_info, the first 24 bytes, also where argsz says
    // less, and where it says more at most argsz bytes, which this structure spans. It has no pointer, and any bits are
    // valid integers.
    unsafe { call(data, uapi::MIG_GET_PRECOPY_INFO, &mut room) }?;
    Ok(room.info)
}

/// What the device answers to a feature number that nobody has, used as `flags` say ([`uapi::FEATURE_GET`],
/// [`uapi::FEATURE_SET`], [`uapi::FEATURE_PROBE`]).
///
/// # Errors
/// The kernel's answer.
#[cfg(feature = "std")]
pub(crate) fn unknown_feature(device: impl AsFd, flags: u32) -> Result<()> {
    const NUMBER: u32 = 0xfff0;
    let mut feature = Feature::new(NUMBER, flags, [0_u64; 32]);
    // SAFETY: VFIO_DEVICE_FEATURE reads and writes at most argsz bytes, the size of this structure. What a driver would
    // take for a pointer in its payload is null, behind which nothing of ours lies.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }.map(drop)
}

/// What a descriptor answers to a request that VFIO does not have.
///
/// # Errors
/// The kernel's answer.
#[cfg(feature = "std")]
pub(crate) fn unknown_request(fd: impl AsFd) -> Result<()> {
    const REQUEST: u32 = uapi::DEVICE_FEATURE + 150 - 17;
    // SAFETY: nobody has this request. A driver that had it would find a null pointer, behind which nothing of ours lies,
    // or the number 0.
    unsafe { call_with_value(fd, REQUEST, 0) }.map(drop)
}

/// Lets the device use the flags of [`uapi::PrecopyInfo`], until it is closed.
///
/// # Errors
/// The kernel's answer: ENOTTY or EINVAL before Linux 7.1, EINVAL from a driver without PRE_COPY.
pub fn set_precopy_info_v2(device: impl AsFd) -> Result<()> {
    set_feature(device, uapi::FEATURE_MIG_PRECOPY_INFO_V2)
}

/// Starts the log of the device's writes into `ranges` and returns the page size that the device chose, in bytes;
/// `page_size` is a wish. [`prepare`](vfio_migration_core::device::dirty::prepare) makes ranges that the kernel takes.
///
/// # Errors
/// The kernel's answer: ENOTTY where kernel or driver can't log, E2BIG for too many ranges, EINVAL for none, overlapping
/// or misaligned ones and for a second log, EOVERFLOW for a range that ends at 2^64.
pub fn dma_logging_start(device: impl AsFd, page_size: u64, ranges: &[uapi::DmaLoggingRange]) -> Result<u64> {
    let control = uapi::DmaLoggingControl {
        page_size,
        num_ranges: ranges.len().try_into().map_err(|_| Errno::TOOBIG)?,
        reserved: 0,
        ranges: ranges.as_ptr().expose_provenance() as u64,
    };
    let mut feature = Feature::new(uapi::FEATURE_DMA_LOGGING_START, uapi::FEATURE_SET, control);
    // SAFETY: VFIO_DEVICE_FEATURE reads and writes at most argsz bytes, the size of this structure. Through `ranges` it
    // reads num_ranges structures and writes nothing: that many are borrowed during the call, of the kernel's layout.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }?;
    Ok(feature.data.page_size)
}

/// Ends the log.
///
/// # Errors
/// The kernel's answer.
pub fn dma_logging_stop(device: impl AsFd) -> Result<()> {
    set_feature(device, uapi::FEATURE_DMA_LOGGING_STOP)
}

/// Reads the log of `length` bytes from `iova` on and clears it there: bit n of `bitmap` is page n, counted from `iova`.
/// After an error every bit is set.
///
/// Not public, since `page_size` must not be below what START returned, which [`Logging`](crate::dirty::Logging) knows:
/// `iova_bitmap.c` (Linux 6.12) sets the bits of all of a device's page, also those behind the range and the bitmap.
///
/// # Errors
/// EINVAL before the kernel is asked, where the pages are none, not whole, or more than the bitmap has bits for; else the
/// kernel's answer.
#[cfg(feature = "std")]
pub(crate) fn dma_logging_report(
    device: impl AsFd,
    iova: u64,
    length: u64,
    page_size: u64,
    bitmap: &mut [u64],
) -> Result<()> {
    // The kernel sets bits and clears none.
    bitmap.fill(0);
    let answer = report(device, iova, length, page_size, bitmap);
    if answer.is_err() {
        bitmap.fill(u64::MAX);
    }
    answer
}

#[cfg(feature = "std")]
fn report(device: impl AsFd, iova: u64, length: u64, page_size: u64, bitmap: &mut [u64]) -> Result<()> {
    let page = PageSize::new(page_size).map_err(|_| Errno::INVAL)?;
    let whole = length != 0 && (iova | length) & (page_size - 1) == 0;
    if !whole || page.words(length) > bitmap.len() as u64 {
        return Err(Errno::INVAL);
    }
    let place = bitmap.as_mut_ptr().expose_provenance() as u64;
    let report = uapi::DmaLoggingReport { iova, length, page_size, bitmap: place };
    let mut feature = Feature::new(uapi::FEATURE_DMA_LOGGING_REPORT, uapi::FEATURE_GET, report);
    // SAFETY: VFIO_DEVICE_FEATURE reads at most argsz bytes, the size of this structure, and writes none of them. Through
    // `bitmap` it writes a bit for each page of the range, which has at least one and is whole pages, and none beyond it,
    // since no page of the device is larger (see above). The slice has a bit for each, is borrowed mutably during the
    // call, and any bits are a valid u64.
    unsafe { call_once(device.as_fd(), uapi::DEVICE_FEATURE, &mut feature) }.map(drop)
}

/// Bits for a report of up to 1 MiB: one for each byte of it, whatever a page is.
#[cfg(feature = "std")]
pub(crate) type BitForEachByte = [u64; 1 << 14];

/// As [`dma_logging_report`], and `page_size` may be what no kernel takes: `bitmap` has room for whatever it means.
///
/// # Errors
/// EINVAL before the kernel is asked, where the range is empty or longer than 1 MiB; else the kernel's answer.
#[cfg(feature = "std")]
pub(crate) fn dma_logging_report_in(
    device: impl AsFd,
    iova: u64,
    length: u64,
    page_size: u64,
    bitmap: &mut BitForEachByte,
) -> Result<()> {
    if !(1..=1 << 20).contains(&length) {
        return Err(Errno::INVAL);
    }
    bitmap.fill(0);
    let place = bitmap.as_mut_ptr().expose_provenance() as u64;
    let report = uapi::DmaLoggingReport { iova, length, page_size, bitmap: place };
    let mut feature = Feature::new(uapi::FEATURE_DMA_LOGGING_REPORT, uapi::FEATURE_GET, report);
    // SAFETY: VFIO_DEVICE_FEATURE reads at most argsz bytes, the size of this structure, and writes none of them. Through
    // `bitmap` it writes a bit for each page of the range, of which there are no more than bytes, and the array has a bit
    // for each of these. All bits of a device's page are set, also of one that is larger than the range: a page_size is
    // refused below 4096, so that a page of up to 4 GiB has its bits here. The array is borrowed mutably during the
    // call, and any bits are a valid u64.
    unsafe { call_once(device.as_fd(), uapi::DEVICE_FEATURE, &mut feature) }.map(drop)
}

/// Binds a character device to an iommufd; nothing else works on it before.
///
/// # Errors
/// The kernel's answer.
pub fn bind_iommufd(device: impl AsFd, iommufd: impl AsFd) -> Result<()> {
    let mut bind = uapi::BindIommufd {
        argsz: size_u32::<uapi::BindIommufd>(),
        iommufd: iommufd.as_fd().as_raw_fd(),
        ..Default::default()
    };
    // SAFETY: VFIO_DEVICE_BIND_IOMMUFD reads and writes at most argsz bytes; `iommufd` stays open during the call.
    unsafe { call(device, uapi::DEVICE_BIND_IOMMUFD, &mut bind) }.map(drop)
}

/// Attaches a bound device to an address space of its iommufd.
///
/// # Errors
/// The kernel's answer.
pub fn attach_iommufd_pt(device: impl AsFd, ioas: u32) -> Result<()> {
    let argsz = size_u32::<uapi::AttachIommufdPt>();
    let mut attach = uapi::AttachIommufdPt { argsz, flags: 0, pt_id: ioas };
    // SAFETY: VFIO_DEVICE_ATTACH_IOMMUFD_PT reads and writes at most argsz bytes of the structure.
    unsafe { call(device, uapi::DEVICE_ATTACH_IOMMUFD_PT, &mut attach) }.map(drop)
}

/// A new, empty address space of an iommufd.
///
/// # Errors
/// The kernel's answer.
pub fn ioas_alloc(iommufd: impl AsFd) -> Result<u32> {
    let mut alloc = uapi::IoasAlloc { size: size_u32::<uapi::IoasAlloc>(), ..Default::default() };
    // SAFETY: IOMMU_IOAS_ALLOC reads and writes at most `size` bytes of the structure.
    unsafe { call(iommufd, uapi::IOMMU_IOAS_ALLOC, &mut alloc) }?;
    Ok(alloc.out_ioas_id)
}

/// A duplicate of the descriptor with this number, which whoever started the process passed, or a VMM has.
///
/// # Errors
/// EBADF where there is none.
pub fn duplicate(number: u32) -> Result<OwnedFd> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: the number is not -1, and the borrow ends with the call: where nothing is open under it, the kernel says
    // so. What the descriptor stands for is not changed by a duplicate.
    fcntl_dupfd_cloexec(unsafe { BorrowedFd::borrow_raw(number) }, 3)
}

/// A request with a pointer, or a number in the pointer's place; its output is what `ioctl` returns.
#[derive(Clone, Copy)]
struct Call {
    request: u32,
    argument: *mut c_void,
}

// SAFETY: the output is the returned number, taken without looking at the pointer. That request and argument belong
// together is what the callers of `call` and `call_with_value` promise. Requests may write to memory: IS_MUTATING.
unsafe impl Ioctl for Call {
    type Output = i32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.request as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> Result<i32> {
        Ok(output)
    }
}

/// SETs a feature that has no payload.
fn set_feature(device: impl AsFd, number: u32) -> Result<()> {
    let mut feature = Feature::new(number, uapi::FEATURE_SET, ());
    // SAFETY: VFIO_DEVICE_FEATURE reads and writes at most argsz bytes, the header alone.
    unsafe { call(device, uapi::DEVICE_FEATURE, &mut feature) }.map(drop)
}

/// # Safety
/// `request` must read and write no other memory of ours than what `T` spans and what it validly points to, and leave
/// a valid `T` behind.
unsafe fn call<T>(fd: impl AsFd, request: u32, argument: &mut T) -> Result<i32> {
    // SAFETY: the caller's promise.
    retry_on_intr(|| unsafe { call_once(fd.as_fd(), request, argument) })
}

/// As [`call`], and EINTR is an answer.
///
/// # Safety
/// As for [`call`].
unsafe fn call_once<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> Result<i32> {
    let argument: *mut T = argument;
    let call = Call { request, argument: argument.cast() };
    // SAFETY: the pointer is valid for reads and writes of a T during the call; the rest is the caller's promise.
    unsafe { rustix::ioctl::ioctl(fd, call) }
}

/// # Safety
/// `request` must take its argument by value, or none, and touch no memory of ours.
unsafe fn call_with_value(fd: impl AsFd, request: u32, value: usize) -> Result<i32> {
    let call = Call { request, argument: core::ptr::without_provenance_mut(value) };
    // SAFETY: nothing is dereferenced; the rest is the caller's promise.
    retry_on_intr(|| unsafe { rustix::ioctl::ioctl(fd.as_fd(), call) })
}

/// The size of an argument, as the kernel wants it.
const fn size_u32<T>() -> u32 {
    const { assert!(size_of::<T>() <= 4096) };
    #[allow(clippy::cast_possible_truncation)] // at most 4096
    let size = size_of::<T>() as u32;
    size
}

/// Our layouts and numbers are the kernel's.
#[cfg(all(feature = "std", target_pointer_width = "64"))]
const _: () = {
    use core::mem::offset_of;

    use vfio_bindings::bindings::vfio as kernel;
    use vfio_migration_core::device::State;

    macro_rules! same {
        ($($ours:expr, $theirs:expr;)*) => { $(assert!($ours as u64 == $theirs as u64);)* };
    }
    macro_rules! same_layout {
        ($($ours:ty, $theirs:ident { $($field:ident)* };)*) => { $(
            same! { size_of::<$ours>(), size_of::<kernel::$theirs>(); align_of::<$ours>(), align_of::<kernel::$theirs>(); }
            $(assert!(offset_of!($ours, $field) == offset_of!(kernel::$theirs, $field));)*
        )* };
    }
    macro_rules! same_head {
        ($($ours:ty, $theirs:ident { $($field:ident)* };)*) => { $(
            assert!(size_of::<$ours>() <= size_of::<kernel::$theirs>());
            $(assert!(offset_of!($ours, $field) == offset_of!(kernel::$theirs, $field));)*
        )* };
    }

    same_layout! {
        uapi::Migration, vfio_device_feature_migration { flags };
        uapi::MigState, vfio_device_feature_mig_state { device_state data_fd };
        uapi::MigDataSize, vfio_device_feature_mig_data_size { stop_copy_length };
        uapi::PrecopyInfo, vfio_precopy_info { argsz flags initial_bytes dirty_bytes };
        uapi::DmaLoggingControl, vfio_device_feature_dma_logging_control { page_size num_ranges ranges };
        uapi::DmaLoggingRange, vfio_device_feature_dma_logging_range { iova length };
        uapi::DmaLoggingReport, vfio_device_feature_dma_logging_report { iova length page_size bitmap };
        uapi::GroupStatus, vfio_group_status { argsz flags };
        uapi::DeviceInfo, vfio_device_info { argsz flags num_regions num_irqs cap_offset pad };
        uapi::RegionInfo, vfio_region_info { argsz flags index cap_offset size offset };
    }
    same_head! {
        uapi::BindIommufd, vfio_device_bind_iommufd { argsz flags iommufd out_devid };
        uapi::AttachIommufdPt, vfio_device_attach_iommufd_pt { argsz flags pt_id };
    }
    assert!(
        offset_of!(uapi::DmaLoggingControl, reserved)
            == offset_of!(kernel::vfio_device_feature_dma_logging_control, __reserved)
    );
    assert!(offset_of!(Feature<uapi::MigState>, data) == size_of::<kernel::vfio_device_feature>());

    same! {
        uapi::FEATURE_PROBE, kernel::VFIO_DEVICE_FEATURE_PROBE;
        uapi::FEATURE_SET, kernel::VFIO_DEVICE_FEATURE_SET;
        uapi::FEATURE_GET, kernel::VFIO_DEVICE_FEATURE_GET;
        uapi::FEATURE_MIGRATION, kernel::VFIO_DEVICE_FEATURE_MIGRATION;
        uapi::FEATURE_MIG_DEVICE_STATE, kernel::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
        uapi::FEATURE_DMA_LOGGING_START, kernel::VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
        uapi::FEATURE_DMA_LOGGING_STOP, kernel::VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP;
        uapi::FEATURE_DMA_LOGGING_REPORT, kernel::VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT;
        uapi::FEATURE_MIG_DATA_SIZE, kernel::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE;
        uapi::FEATURE_MIG_PRECOPY_INFO_V2, kernel::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2;
        uapi::PRECOPY_INFO_REINIT, kernel::VFIO_PRECOPY_INFO_REINIT;
        uapi::DEVICE_FLAGS_PCI, kernel::VFIO_DEVICE_FLAGS_PCI;
        uapi::PCI_CONFIG_REGION_INDEX, kernel::VFIO_PCI_CONFIG_REGION_INDEX;
        uapi::GROUP_VIABLE, kernel::VFIO_GROUP_FLAGS_VIABLE;
        uapi::TYPE1V2_IOMMU, kernel::VFIO_TYPE1v2_IOMMU;
        uapi::GET_API_VERSION, ((kernel::VFIO_TYPE as u32) << 8) + kernel::VFIO_BASE;
        State::Error, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_ERROR;
        State::Stop, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP;
        State::Running, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING;
        State::StopCopy, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP_COPY;
        State::Resuming, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_RESUMING;
        State::RunningP2p, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING_P2P;
        State::PreCopy, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY;
        State::PreCopyP2p, kernel::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY_P2P;
    }
};

#[cfg(all(test, feature = "std"))]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn report_that_cannot_be_is_refused_before_the_kernel_is_asked_and_all_bits_are_set_after_any_error() {
        let none = File::open("/dev/null").unwrap();
        let table = [
            (0, 65 << 12, 4096, Errno::INVAL),
            (0, 0, 4096, Errno::INVAL),
            (1 << 11, 1 << 12, 4096, Errno::INVAL),
            (0, (1 << 12) + 1, 4096, Errno::INVAL),
            (0, 1 << 12, 2048, Errno::INVAL),
            (0, 1 << 12, 0, Errno::INVAL),
            (0, 1 << 63, 1 << 14, Errno::INVAL),
            (1 << 12, 64 << 12, 4096, Errno::NOTTY),
            (0, 1 << 63, 1 << 57, Errno::NOTTY),
        ];
        for (iova, length, page_size, errno) in table {
            let mut bitmap = [0];
            let answer = dma_logging_report(&none, iova, length, page_size, &mut bitmap);
            assert_eq!((answer, bitmap), (Err(errno), [u64::MAX]), "{length:#x} at {iova:#x}");
        }
        let mut bitmap = [0; 1 << 14];
        for (length, errno) in [(0, Errno::INVAL), ((1 << 20) + 1, Errno::INVAL), (1 << 20, Errno::NOTTY)] {
            assert_eq!(dma_logging_report_in(&none, 0, length, 1, &mut bitmap), Err(errno), "{length:#x}");
        }
    }

    #[test]
    fn what_nobody_has_is_asked_of_nobody() {
        let none = File::open("/dev/null").unwrap();
        assert_eq!(unknown_request(&none), Err(Errno::NOTTY));
        assert_eq!(unknown_feature(&none, uapi::FEATURE_GET), Err(Errno::NOTTY));
        assert_eq!(get_precopy_info_as(&none, u32::MAX, 0xa5), Err(Errno::NOTTY));
    }
}
