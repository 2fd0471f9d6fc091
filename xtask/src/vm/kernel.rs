//! The guest's kernel and two sets of modules, all from Debian's packages.
//!
//! Both sets end in `mtty`, the kernel's sample of a migratable device, which needs no hardware.
//! The stock set is Debian's own and is opened through groups. Debian builds no iommufd, so the
//! second set builds it, and vfio with device files, from the same kernel's source.
//!
//! Deliberately absent: the source afterwards. Only the image and the modules are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::apt::Apt;
use crate::command;

/// A kernel image and the folder with its modules, in `stock/` and `iommufd/`.
pub(crate) struct Kernel {
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The folder that holds a folder for each set in [`SETS`].
    pub(crate) modules: PathBuf,
}

/// The module sets by their folders, each set in the order in which it is loaded.
pub(crate) const SETS: [(&str, &[&str]); 2] = [
    ("stock", &["vfio", "vfio_iommu_type1", "mdev", "mtty"]),
    ("iommufd", &["iommufd", "vfio", "vfio_iommu_type1", "mdev", "mtty"]),
];

/// Makes the kernel in `folder`; `work` is for what may be thrown away afterwards.
pub(crate) fn make(apt: &Apt, work: &Path, folder: &Path) -> Result<()> {
    let version = newest(&apt.names("linux-headers-6.12.")?)?;
    let build = Build { version: version.clone(), work: work.to_path_buf() };
    command::step(&format!("fetching Debian's kernel {version} and its source"), || {
        apt.unpack(&build.packages(), work)
    })?;
    command::step("taking the modules' source out", || build.extract())?;
    command::step("building mtty for the stock modules", || build.stock(&folder.join("stock")))?;
    command::step("building the modules with iommufd", || build.iommufd(&folder.join("iommufd")))?;
    copy(&work.join(format!("boot/vmlinuz-{version}-amd64")), &folder.join("vmlinuz"))
}

/// The kernel that [`make`] left in a folder.
pub(crate) fn made(folder: &Path) -> Kernel {
    Kernel { image: folder.join("vmlinuz"), modules: folder.to_path_buf() }
}

/// A kernel version, and the folder with its unpacked packages.
struct Build {
    version: String,
    work: PathBuf,
}

impl Build {
    /// With the kernel's packages come the programs that building needs beside a compiler.
    fn packages(&self) -> Vec<String> {
        let version = &self.version;
        let number = version.split('+').next().unwrap_or(version);
        let mut packages = ["make", "xz-utils", "libelf1"].map(|name| format!("{name}/bookworm")).to_vec();
        packages.extend([
            format!("linux-image-{version}-amd64"),
            format!("linux-headers-{version}-amd64"),
            format!("linux-headers-{version}-common"),
            format!("linux-kbuild-{version}"),
            format!("linux-source-6.12={number}-*"),
        ]);
        packages
    }

    /// A program that finds the unpacked ones first.
    fn program(&self, name: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("env");
        command.arg(format!("PATH={}:{path}", self.work.join("usr/bin").display()));
        command.arg(format!("LD_LIBRARY_PATH={}", self.work.join("usr/lib/x86_64-linux-gnu").display()));
        command.arg(name);
        command
    }

    fn extract(&self) -> Result<()> {
        let mut tar = self.program("tar");
        tar.arg("-xf").arg(self.work.join("usr/src/linux-source-6.12.tar.xz")).arg("-C").arg(&self.work);
        tar.args(SOURCES.map(|path| format!("linux-source-6.12/{path}")));
        command::output(&mut tar)?;
        fs::write(self.source("Kbuild"), KBUILD)?;
        let common = self.work.join(format!("usr/src/linux-headers-{}-common/Makefile", self.version));
        Ok(fs::write(self.headers().join("Makefile"), format!("include {}\n", common.display()))?)
    }

    /// Debian's own modules, unpacked, and mtty against them.
    fn stock(&self, out: &Path) -> Result<()> {
        let samples = self.source("samples/vfio-mdev");
        self.build(&samples, "CONFIG_SAMPLE_VFIO_MDEV_MTTY=m")?;
        copy(&samples.join("mtty.ko"), &out.join("mtty.ko"))?;
        let modules = self.work.join(format!("lib/modules/{}-amd64/kernel/drivers/vfio", self.version));
        for (place, name) in [("", "vfio.ko"), ("", "vfio_iommu_type1.ko"), ("mdev", "mdev.ko")] {
            let module = modules.join(place).join(name);
            command::output(self.program("xz").arg("-dk").arg(module.with_extension("ko.xz")))?;
            copy(&module, &out.join(name))?;
        }
        Ok(())
    }

    /// iommufd, and vfio with device files, which Debian's configuration leaves out.
    fn iommufd(&self, out: &Path) -> Result<()> {
        self.build(&self.source(""), "KBUILD_MODPOST_WARN=1")?;
        for name in SETS[1].1 {
            let name = format!("{name}.ko");
            copy(&self.source(&name), &out.join(&name))?;
        }
        Ok(())
    }

    /// Builds the modules in a folder, without debug information, which would need more programs.
    fn build(&self, folder: &Path, option: &str) -> Result<()> {
        let mut make = self.program("make");
        make.arg("-C").arg(self.headers()).arg(format!("M={}", folder.display()));
        make.arg(format!("-j{}", std::thread::available_parallelism()?));
        make.args(["CC=gcc", "CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF_MODULES=", option, "modules"]);
        command::output(&mut make).map(drop)
    }

    fn headers(&self) -> PathBuf {
        self.work.join(format!("usr/src/linux-headers-{}-amd64", self.version))
    }

    fn source(&self, path: &str) -> PathBuf {
        self.work.join("linux-source-6.12").join(path)
    }
}

/// The highest version among `linux-headers-VERSION+deb12-amd64`, without the architecture.
fn newest(names: &[String]) -> Result<String> {
    let versions = names.iter().filter_map(|name| {
        let version = name.strip_prefix("linux-headers-")?.strip_suffix("-amd64")?;
        let numbers = version.strip_suffix("+deb12")?.split('.').map(|part| part.parse::<u32>().ok());
        Some((numbers.collect::<Option<Vec<u32>>>()?, version.to_string()))
    });
    let newest = versions.max().map(|(_, version)| version);
    newest.with_context(|| {
        format!("no kernel package: wanted linux-headers-6.12.*+deb12-amd64, which {WHERE}, got {names:?}")
    })
}

/// Copies a file and makes the folder for it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file's path has a folder")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Where this kernel's packages are.
const WHERE: &str = "only bookworm-security has (is it among the machine's apt sources?)";

/// What is taken out of the kernel's source.
const SOURCES: [&str; 5] = [
    "drivers/iommu/iommu-priv.h",
    "drivers/iommu/iommufd",
    "drivers/vfio",
    "lib/interval_tree.c",
    "samples/vfio-mdev",
];

/// The second set, built from where the source lies, with the options that Debian leaves out.
///
/// iommufd needs the interval tree's span iterator, which the kernel then lacks: the module gets
/// the whole tree once more and exports nothing of it.
const KBUILD: &str = "\
ccflags-y := -DCONFIG_IOMMUFD=1 -DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_VFIO_DEVICE_CDEV=1
ccflags-y += -DCONFIG_IOMMUFD_DRIVER=1 -DCONFIG_IOMMUFD_DRIVER_CORE=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1
CFLAGS_lib/interval_tree.o := -D__DISABLE_EXPORTS
obj-m := iommufd.o vfio.o vfio_iommu_type1.o mdev.o mtty.o
iommufd-y := $(addprefix drivers/iommu/iommufd/, device.o fault.o hw_pagetable.o io_pagetable.o ioas.o)
iommufd-y += $(addprefix drivers/iommu/iommufd/, main.o pages.o vfio_compat.o iova_bitmap.o)
iommufd-y += lib/interval_tree.o
vfio-y := $(addprefix drivers/vfio/, vfio_main.o group.o container.o virqfd.o iommufd.o device_cdev.o)
vfio_iommu_type1-y := drivers/vfio/vfio_iommu_type1.o
mdev-y := $(addprefix drivers/vfio/mdev/, mdev_core.o mdev_sysfs.o mdev_driver.o)
mtty-y := samples/vfio-mdev/mtty.o
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_is_the_highest_number_of_the_right_kind() {
        let names = [
            "linux-headers-6.12.9+deb12-amd64",
            "linux-headers-6.12.41+deb12-amd64",
            "linux-headers-6.12.90+deb12-cloud-amd64",
            "linux-headers-6.12.99+bpo-amd64",
        ];
        assert_eq!(newest(&names.map(str::to_string)).unwrap(), "6.12.41+deb12");
    }

    #[test]
    fn machine_without_kernel_packages_is_told_what_was_wanted() {
        let error = newest(&[]).unwrap_err().to_string();
        let wanted = "wanted linux-headers-6.12.*+deb12-amd64";
        assert_eq!(error, format!("no kernel package: {wanted}, which {WHERE}, got []"));
    }
}
