//! The guest's two sets of kernel modules, of which one is loaded at a time.
//!
//! Deliberately absent: what the modules need of each other. No `modprobe` is in the guest; the order stands here.

use std::ffi::{CStr, CString};
use std::fs::{self, File};

use anyhow::{Context as _, Result};
use rustix::system::{delete_module, finit_module};

/// A set of kernel modules, and with it a way to open devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    /// The distribution's own modules: devices are opened through their group.
    Stock,
    /// Modules with iommufd: devices have a device file.
    Iommufd,
}

impl Set {
    /// How devices are opened with this set; the tests' names begin with it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stock => "group",
            Self::Iommufd => "cdev",
        }
    }

    /// Loads the set.
    pub(crate) fn load(self) -> Result<()> {
        for name in self.modules() {
            let path = format!("/modules/{}/{name}.ko", self.folder());
            let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
            finit_module(file, DEBUG, 0).with_context(|| format!("cannot load {path}"))?;
        }
        Ok(())
    }

    /// Unloads what there is of the set, the last module first.
    pub(crate) fn unload(self) -> Result<()> {
        for name in self.modules().iter().rev() {
            if fs::exists(format!("/sys/module/{name}"))? {
                delete_module(&CString::new(*name)?, 0).with_context(|| format!("cannot unload {name}"))?;
            }
        }
        Ok(())
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Iommufd => "iommufd",
        }
    }

    /// The modules in the order in which they need each other.
    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Stock => &["vfio", "vfio_iommu_type1", "mdev", "mtty", "migtest"],
            Self::Iommufd => &["iommufd", "vfio", "vfio_iommu_type1", "mdev", "mtty", "migtest"],
        }
    }
}

/// Lets a module write its debug messages into the kernel's log; its console does not show them.
const DEBUG: &CStr = c"dyndbg=+p";
