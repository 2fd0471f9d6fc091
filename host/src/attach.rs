//! Makes a device's files usable: the character device with an iommufd, or the group with a container.
//!
//! Without std a caller knows the files; the module `open` finds them in sysfs and tells an operator what is wrong.
//!
//! Deliberately absent: guest memory. The address space that a device is attached to is empty, and the VMM's to fill.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;
use vfio_migration_core::device::uapi;

use crate::ioctl;

/// A device's file descriptor with what must stay open as long as it.
#[derive(Debug)]
pub struct Attached {
    device: OwnedFd,
    /// The iommufd, or group and container.
    _holders: [Option<OwnedFd>; 2],
}

/// Which step the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A step on the way.
    #[error("the kernel refused {call}: {errno}")]
    Kernel {
        /// The ioctl's name.
        call: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel has another version of the group API.
    #[error("wanted version 0 of the kernel's VFIO group API, got {got}")]
    ApiVersion {
        /// The version.
        got: i32,
    },
    /// Another device of the group is bound to an ordinary driver.
    #[error("the IOMMU group is not viable: bind every device of the group to a vfio driver, or to none")]
    NotViable,
}

impl Attached {
    /// A character device, `/dev/vfio/devices/vfioN`, bound to the iommufd that `/dev/iommu` gave, and attached to an
    /// address space of its own there.
    ///
    /// # Errors
    /// [`Error::Kernel`].
    pub fn to_iommufd(device: OwnedFd, iommufd: OwnedFd) -> Result<Self, Error> {
        ioctl::bind_iommufd(&device, &iommufd).map_err(refused(BIND))?;
        let ioas = ioctl::ioas_alloc(&iommufd).map_err(refused("IOMMU_IOAS_ALLOC"))?;
        ioctl::attach_iommufd_pt(&device, ioas).map_err(refused("VFIO_DEVICE_ATTACH_IOMMUFD_PT"))?;
        Ok(Self { device, _holders: [Some(iommufd), None] })
    }

    /// The device that `group`, `/dev/vfio/N`, knows as `name` (a PCI address or an mdev's UUID), with the group in a
    /// container that `/dev/vfio/vfio` gave.
    ///
    /// # Errors
    /// [`Error`].
    pub fn by_group(group: OwnedFd, container: OwnedFd, name: &CStr) -> Result<Self, Error> {
        let version = ioctl::get_api_version(&container).map_err(refused("VFIO_GET_API_VERSION"))?;
        if version != 0 {
            return Err(Error::ApiVersion { got: version });
        }
        let flags = ioctl::group_get_status(&group).map_err(refused("VFIO_GROUP_GET_STATUS"))?;
        if flags & uapi::GROUP_VIABLE == 0 {
            return Err(Error::NotViable);
        }
        ioctl::group_set_container(&group, &container).map_err(refused("VFIO_GROUP_SET_CONTAINER"))?;
        ioctl::set_iommu_type1v2(&container).map_err(refused("VFIO_SET_IOMMU"))?;
        let device = ioctl::group_get_device_fd(&group, name).map_err(refused("VFIO_GROUP_GET_DEVICE_FD"))?;
        Ok(Self { device, _holders: [Some(group), Some(container)] })
    }

    /// A device that someone else has attached, and keeps so.
    #[must_use]
    pub const fn elsewhere(device: OwnedFd) -> Self {
        Self { device, _holders: [None, None] }
    }
}

impl AsFd for Attached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Opens a file of `/dev` as VFIO's files are opened: to read and write, and for no child.
///
/// # Errors
/// The kernel's answer.
pub fn open(path: impl Arg) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

fn refused(call: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::Kernel { call, errno }
}

/// The ioctl that a device in use refuses.
pub(crate) const BIND: &str = "VFIO_DEVICE_BIND_IOMMUFD";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_not_vfio_s_are_refused_with_the_step_that_failed() {
        let null = || open(c"/dev/null").unwrap();
        let kernel = |call| Some(Error::Kernel { call, errno: Errno::NOTTY });
        assert_eq!(Attached::to_iommufd(null(), null()).err(), kernel("VFIO_DEVICE_BIND_IOMMUFD"));
        assert_eq!(Attached::by_group(null(), null(), c"x").err(), kernel("VFIO_GET_API_VERSION"));
        assert_eq!(open(c"/dev/nothing").err(), Some(Errno::NOENT));
    }
}
