//! Opens a device: by character device and iommufd, by group and container, or as a file descriptor that is there.
//!
//! What can go wrong is told by layer, so that an operator knows whom to ask: the name, the binding, the IOMMU, the
//! permissions, another user of the device, or the kernel.
//!
//! Deliberately absent: binding a device to a vfio driver, and mapping guest memory. The machine's owner does the
//! one, the VMM the other.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::io::Errno;

use crate::attach::{self, Attached};
use crate::ioctl;

/// How a user names a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A character device, for instance `/dev/vfio/devices/vfio0`: bound to an iommufd of its own.
    Cdev(PathBuf),
    /// A device's folder below `/sys`, also given by PCI address or mdev UUID: opened by group and container.
    Sysfs(PathBuf),
    /// An inherited file descriptor, and the driver's name where the user gave it.
    Fd(u32, Option<String>),
}

/// What kind of device it is and which one: what a stream says of its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name of the kernel driver, or `unknown` for a file descriptor that tells nothing.
    pub driver: String,
    /// The bus address or the UUID; `fd<N>` for a file descriptor that tells nothing.
    pub address: String,
}

/// A device's file descriptor with what must stay open as long as it.
#[derive(Debug)]
pub struct Opened {
    device: Attached,
    file: Option<PathBuf>,
}

/// What stands between a user and a device, by layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text names no device.
    #[error(
        "wanted a PCI address, an mdev UUID, a path below /sys or /dev/vfio/devices, fd:N or sim:, got '{0}'"
    )]
    Name(String),
    /// There is no such device.
    #[error("there is no device {}", path.display())]
    Missing {
        /// The folder or file that was looked for.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device has no driver.
    #[error("{address} is bound to no driver; bind it to its vfio driver first")]
    Unbound {
        /// The device.
        address: String,
    },
    /// The device has no IOMMU group.
    #[error(
        "{address} has no IOMMU group (driver {driver}): the machine's IOMMU is off, or the driver is not a vfio driver"
    )]
    NoGroup {
        /// The device.
        address: String,
        /// Its driver.
        driver: String,
    },
    /// The group has no file in `/dev/vfio`.
    #[error(
        "the IOMMU group {group} of {address} has no {}: driver {driver} is not a vfio driver, or the kernel has no VFIO groups (try the character device)", path.display()
    )]
    NotVfio {
        /// The device.
        address: String,
        /// Its driver.
        driver: String,
        /// The number of its group.
        group: String,
        /// The file that is missing.
        path: PathBuf,
    },
    /// A file of `/dev` may not be opened.
    #[error("no permission to open {}: run as its owner or give yourself access", path.display())]
    Permission {
        /// The file.
        path: PathBuf,
    },
    /// Someone else has the device.
    #[error("{} is in use by another process{}", path.display(), users(holders))]
    InUse {
        /// The file.
        path: PathBuf,
        /// Who has it open, as far as `/proc` tells.
        holders: Vec<String>,
    },
    /// Another device of the group is bound to an ordinary driver.
    #[error(
        "the IOMMU group {group} is not viable: bind every device of the group to a vfio driver, or to none"
    )]
    NotViable {
        /// The number of the group.
        group: String,
    },
    /// A file descriptor that the user named is not there.
    #[error("file descriptor {number} was not inherited: {errno}")]
    Fd {
        /// Its number.
        number: u32,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A file descriptor that the user named is something else.
    #[error("file descriptor {number} is not a VFIO device: {errno}")]
    NotDevice {
        /// Its number.
        number: u32,
        /// The kernel's answer to VFIO_DEVICE_GET_INFO.
        errno: Errno,
    },
    /// VFIO or iommufd is not there.
    #[error("the kernel has no {}: load the module (vfio, or iommufd)", path.display())]
    NoVfio {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The kernel has another version of the group API.
    #[error("wanted version 0 of the kernel's VFIO group API, got {got}")]
    ApiVersion {
        /// The version.
        got: i32,
    },
    /// A file of `/dev` could not be opened for another reason.
    #[error("{} can't be opened: {errno}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused a step on the way.
    #[error("the kernel refused {call} on {address}: {errno}")]
    Kernel {
        /// The ioctl's name.
        call: &'static str,
        /// The device.
        address: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Identity {
    /// The name that a device's sections have by default, `<driver>@<address>/vfio`.
    #[must_use]
    pub fn idstr(&self) -> String {
        format!("{}@{}/vfio", self.driver, self.address)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(rest) = text.strip_prefix("fd:") {
            return inherited(rest).ok_or_else(|| Error::Name(text.to_owned()));
        }
        if text.starts_with("/dev/vfio/devices/") {
            return Ok(Self::Cdev(text.into()));
        }
        if text.starts_with("/sys/") {
            return Ok(Self::Sysfs(text.into()));
        }
        if is_uuid(text) {
            return Ok(Self::Sysfs(Path::new("/sys/bus/mdev/devices").join(text.to_ascii_lowercase())));
        }
        let text = text.to_ascii_lowercase();
        let address = if text.matches(':').count() == 1 { format!("0000:{text}") } else { text.clone() };
        if is_pci_address(&address) {
            return Ok(Self::Sysfs(Path::new("/sys/bus/pci/devices").join(address)));
        }
        Err(Error::Name(text))
    }
}

impl Name {
    /// Which device this is, from sysfs alone; nothing is opened.
    ///
    /// # Errors
    /// [`Error::Missing`] and [`Error::Unbound`].
    pub fn identify(&self) -> Result<Identity, Error> {
        match self {
            Self::Sysfs(path) => identify(path),
            Self::Cdev(path) => identify(&folder_of_cdev(path)?),
            Self::Fd(number, driver) => {
                let cdev = fs::read_link(format!("/proc/self/fd/{number}"))
                    .ok()
                    .filter(|path| path.starts_with("/dev/vfio/devices"));
                let known = cdev.and_then(|path| identify(&folder_of_cdev(&path).ok()?).ok());
                let address =
                    known.as_ref().map_or_else(|| format!("fd{number}"), |known| known.address.clone());
                let driver = driver.clone().or(known.map(|known| known.driver));
                Ok(Identity { driver: driver.unwrap_or_else(|| UNKNOWN_DRIVER.to_owned()), address })
            }
        }
    }

    /// Opens the device.
    ///
    /// # Errors
    /// [`Error`] names the layer that refused.
    pub fn open(&self) -> Result<Opened, Error> {
        match self {
            Self::Sysfs(path) => open_group(path),
            Self::Cdev(path) => open_cdev(path),
            Self::Fd(number, _) => open_inherited(*number),
        }
    }
}

impl Opened {
    /// The file of `/dev` through which the device was opened: its group's, or its own.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn open_group(folder: &Path) -> Result<Opened, Error> {
    let Identity { driver, address } = identify(folder)?;
    let Some(group_number) = group_of(folder) else { return Err(Error::NoGroup { address, driver }) };
    let path = Path::new("/dev/vfio").join(&group_number);
    let container = Path::new("/dev/vfio/vfio");
    if is_missing(&path) || is_missing(container) {
        return match cdev_of(folder) {
            Some(cdev) => open_cdev(&cdev),
            None if is_missing(container) => Err(Error::NoVfio { path: container.into() }),
            None => Err(Error::NotVfio { address, driver, group: group_number, path }),
        };
    }
    let container = open_vfio(container)?;
    let group = open_file(&path)?;
    let name = CString::new(address.as_str()).map_err(|_| Error::Name(address.clone()))?;
    let device = Attached::by_group(group, container, &name).map_err(|error| match error {
        attach::Error::Kernel { call, errno } => Error::Kernel { call, address, errno },
        attach::Error::ApiVersion { got } => Error::ApiVersion { got },
        attach::Error::NotViable => Error::NotViable { group: group_number },
    })?;
    Ok(Opened { device, file: Some(path) })
}

fn open_cdev(path: &Path) -> Result<Opened, Error> {
    let device = open_file(path)?;
    let iommufd = open_vfio(Path::new("/dev/iommu"))?;
    let device = Attached::to_iommufd(device, iommufd).map_err(|error| match error {
        attach::Error::Kernel { call: attach::BIND, errno: Errno::BUSY } => in_use(path),
        // What the kernel says where the same device file is bound already.
        attach::Error::Kernel { call: attach::BIND, errno: Errno::INVAL }
            if !holders(path, std::process::id()).is_empty() =>
        {
            in_use(path)
        }
        attach::Error::Kernel { call, errno } => {
            Error::Kernel { call, address: path.display().to_string(), errno }
        }
        attach::Error::ApiVersion { got } => Error::ApiVersion { got },
        attach::Error::NotViable => Error::NotViable { group: path.display().to_string() },
    })?;
    Ok(Opened { device, file: Some(path.into()) })
}

/// A duplicate of an inherited descriptor: the number stays open for whoever passed it.
fn open_inherited(number: u32) -> Result<Opened, Error> {
    let wrong = |errno| Error::Fd { number, errno };
    let device = ioctl::duplicate(number).map_err(wrong)?;
    ioctl::device_get_info(&device).map_err(|errno| Error::NotDevice { number, errno })?;
    Ok(Opened { device: Attached::elsewhere(device), file: None })
}

fn open_file(path: &Path) -> Result<OwnedFd, Error> {
    attach::open(path).map_err(|errno| match errno {
        Errno::ACCESS | Errno::PERM => Error::Permission { path: path.into() },
        Errno::BUSY => in_use(path),
        Errno::NOENT | Errno::NODEV | Errno::NXIO => {
            Error::Missing { path: path.into(), source: errno.into() }
        }
        errno => Error::Open { path: path.into(), errno },
    })
}

/// Opens `/dev/vfio/vfio` or `/dev/iommu`, whose file may be there without its module.
fn open_vfio(path: &Path) -> Result<OwnedFd, Error> {
    open_file(path).map_err(|error| match error {
        Error::Missing { path, .. } => Error::NoVfio { path },
        error => error,
    })
}

/// Whether there is no such file; one that may not be looked at is there.
fn is_missing(path: &Path) -> bool {
    path.try_exists().is_ok_and(|exists| !exists)
}

fn in_use(path: &Path) -> Error {
    Error::InUse { path: path.into(), holders: holders(path, std::process::id()) }
}

/// Who else has `path` open, for instance `qemu-system-x86 (pid 4711)`; empty where `/proc` does not tell.
#[must_use]
pub fn holders(path: &Path, except: u32) -> Vec<String> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|&pid| pid != except && has_open(pid, path))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (pid {pid})", name.trim_end())
        })
        .collect()
}

fn has_open(pid: u32, path: &Path) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path))
}

fn users(holders: &[String]) -> String {
    if holders.is_empty() { String::new() } else { format!(": {}", holders.join(", ")) }
}

fn identify(folder: &Path) -> Result<Identity, Error> {
    let folder = fs::canonicalize(folder).map_err(|source| Error::Missing { path: folder.into(), source })?;
    if !folder.starts_with("/sys/devices") {
        return Err(Error::Name(folder.display().to_string()));
    }
    let address = last_part(&folder);
    let Ok(driver) = fs::read_link(folder.join("driver")) else { return Err(Error::Unbound { address }) };
    Ok(Identity { driver: last_part(&driver), address })
}

fn folder_of_cdev(path: &Path) -> Result<PathBuf, Error> {
    let folder = Path::new("/sys/class/vfio-dev").join(last_part(path)).join("device");
    fs::canonicalize(&folder).map_err(|source| Error::Missing { path: path.into(), source })
}

fn cdev_of(folder: &Path) -> Option<PathBuf> {
    let name = fs::read_dir(folder.join("vfio-dev")).ok()?.flatten().next()?.file_name();
    Some(Path::new("/dev/vfio/devices").join(name))
}

fn group_of(folder: &Path) -> Option<String> {
    fs::read_link(folder.join("iommu_group")).ok().map(|link| last_part(&link))
}

fn last_part(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn inherited(text: &str) -> Option<Name> {
    let (number, driver) = match text.split_once(",driver=") {
        Some((number, driver)) if is_driver_name(driver) => (number, Some(driver.to_owned())),
        Some(_) => return None,
        None => (text, None),
    };
    number.parse().ok().map(|number| Name::Fd(number, driver))
}

/// Whether a kernel driver may be called so; what a section's name is made of has no room for more.
fn is_driver_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'@' | b'/'))
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12])
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// `dddd:bb:dd.f`, all hexadecimal; the domain of a virtual bus may have more digits.
fn is_pci_address(text: &str) -> bool {
    let parts: Vec<&str> = text.split([':', '.']).collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    matches!(lengths[..], [4..=8, 2, 2, 1])
        && text.matches(':').count() == 2
        && parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The driver of a file descriptor that does not tell.
pub const UNKNOWN_DRIVER: &str = "unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_device_is_understood() {
        let uuid = "11111111-2222-3333-4444-55555555abcd";
        let table = [
            ("/dev/vfio/devices/vfio3", Name::Cdev("/dev/vfio/devices/vfio3".into())),
            ("/sys/bus/x/y", Name::Sysfs("/sys/bus/x/y".into())),
            (uuid, Name::Sysfs(Path::new("/sys/bus/mdev/devices").join(uuid))),
            ("0000:3b:00.2", Name::Sysfs("/sys/bus/pci/devices/0000:3b:00.2".into())),
            ("3b:00.2", Name::Sysfs("/sys/bus/pci/devices/0000:3b:00.2".into())),
            ("10000:E1:00.0", Name::Sysfs("/sys/bus/pci/devices/10000:e1:00.0".into())),
            ("fd:7", Name::Fd(7, None)),
            ("fd:7,driver=mlx5_vfio_pci", Name::Fd(7, Some("mlx5_vfio_pci".into()))),
        ];
        for (text, name) in table {
            assert_eq!(text.parse::<Name>().unwrap(), name, "{text}");
        }
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for text in [
            "",
            "fd:",
            "fd:-1",
            "fd:7,driver=",
            "fd:7,driver=a@b",
            "fd:x",
            "0000:3b:00:2",
            "3b:00.22",
            "eth0",
            "/dev/null",
        ] {
            assert!(matches!(text.parse::<Name>(), Err(Error::Name(got)) if got == text), "{text}");
        }
    }

    #[test]
    fn a_descriptor_that_was_not_inherited_is_named() {
        assert!(matches!(
            open_inherited(1 << 30),
            Err(Error::Fd { number: 0x4000_0000, errno: Errno::BADF })
        ));
    }
}
