//! The guest's kernel and two sets of modules, all from Debian's packages.
//!
//! Both sets have `mtty`, the kernel's sample of a migratable device, which needs no hardware, and
//! `migtest`, a device of our own, which is built in each run by [`super::kmod`].
//! The stock set is Debian's own and is opened through groups. Debian builds no iommufd, so the
//! second set builds it, and vfio with device files, from the same kernel's source.
//!
//! Deliberately absent: the source afterwards. Kept are the image, the modules and what builds more modules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::kmod;
use crate::apt::Apt;
use crate::command;

/// A kernel image and the folder with its modules, in `stock/` and `iommufd/`.
pub(crate) struct Kernel {
    /// The bootable image.
    pub(crate) image: PathBuf,
    /// The folder that holds a folder for each set in [`SETS`].
    pub(crate) modules: PathBuf,
    /// What builds more modules for this kernel; a user's own kernel comes with all its modules.
    pub(crate) kit: Option<PathBuf>,
}

/// The module sets by their folders, each set in the order in which it is loaded.
pub(crate) const SETS: [(&str, &[&str]); 2] = [
    ("stock", &["vfio", "vfio_iommu_type1", "mdev", "mtty", "migtest"]),
    ("iommufd", &["iommufd", "vfio", "vfio_iommu_type1", "mdev", "mtty", "migtest"]),
];

/// The options that Debian leaves out, without which the second set's structures have another layout.
pub(crate) const IOMMUFD_FLAGS: &str = "-DCONFIG_IOMMUFD=1 -DCONFIG_IOMMUFD_MODULE=1 \
    -DCONFIG_VFIO_DEVICE_CDEV=1 -DCONFIG_IOMMUFD_DRIVER=1 -DCONFIG_IOMMUFD_DRIVER_CORE=1 \
    -DCONFIG_INTERVAL_TREE_SPAN_ITER=1";

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
    build.keep_kit(&folder.join(KIT))?;
    copy(&work.join(format!("boot/vmlinuz-{version}-amd64")), &folder.join("vmlinuz"))
}

/// The kernel that [`make`] left in a folder.
pub(crate) fn made(folder: &Path) -> Kernel {
    let kit = Some(folder.join(KIT));
    Kernel { image: folder.join("vmlinuz"), modules: folder.to_path_buf(), kit }
}

/// The folder of a kernel's headers in a kit.
pub(crate) fn headers(kit: &Path) -> Result<PathBuf> {
    let version = fs::read_to_string(kit.join(VERSION))?;
    Ok(kit.join(format!("usr/src/linux-headers-{version}-amd64")))
}

/// The exported symbols of the modules in the set `iommufd`, in a kit.
pub(crate) fn iommufd_symbols(kit: &Path) -> PathBuf {
    kit.join("iommufd.symvers")
}

/// The command that builds the modules in a folder against the headers in `root`, an unpacked kernel package
/// or a kit, without debug information, which would need more programs.
pub(crate) fn make_modules(root: &Path, headers: &Path, folder: &Path) -> Result<Command> {
    let name =
        headers.file_name().and_then(|name| name.to_str()).context("a folder of headers has a name")?;
    let common = headers.with_file_name(name.replace("-amd64", "-common"));
    let mut make = program(root, "make");
    make.arg("-C").arg(headers).arg("-f").arg(common.join("Makefile"));
    make.arg(format!("M={}", folder.display()));
    make.arg(format!("-j{}", std::thread::available_parallelism()?));
    make.args(["CC=gcc", "CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
    Ok(make)
}

/// A program that finds those below `root` first.
fn program(root: &Path, name: &str) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("env");
    command.arg(format!("PATH={}:{path}", root.join("usr/bin").display()));
    command.arg(format!("LD_LIBRARY_PATH={}", root.join("usr/lib/x86_64-linux-gnu").display()));
    command.arg(name);
    command
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

    fn extract(&self) -> Result<()> {
        let mut tar = program(&self.work, "tar");
        tar.arg("-xf").arg(self.work.join("usr/src/linux-source-6.12.tar.xz")).arg("-C").arg(&self.work);
        tar.args(SOURCES.map(|path| format!("linux-source-6.12/{path}")));
        command::output(&mut tar)?;
        Ok(fs::write(self.source("Kbuild"), format!("ccflags-y := {IOMMUFD_FLAGS}\n{KBUILD}"))?)
    }

    /// Debian's own modules, unpacked, and mtty against them.
    fn stock(&self, out: &Path) -> Result<()> {
        let samples = self.source("samples/vfio-mdev");
        self.build(&samples, "CONFIG_SAMPLE_VFIO_MDEV_MTTY=m")?;
        copy(&samples.join("mtty.ko"), &out.join("mtty.ko"))?;
        let modules = self.work.join(format!("lib/modules/{}-amd64/kernel/drivers/vfio", self.version));
        for (place, name) in [("", "vfio.ko"), ("", "vfio_iommu_type1.ko"), ("mdev", "mdev.ko")] {
            let module = modules.join(place).join(name);
            command::output(program(&self.work, "xz").arg("-dk").arg(module.with_extension("ko.xz")))?;
            copy(&module, &out.join(name))?;
        }
        Ok(())
    }

    /// iommufd, and vfio with device files, which Debian's configuration leaves out.
    fn iommufd(&self, out: &Path) -> Result<()> {
        self.build(&self.source(""), "KBUILD_MODPOST_WARN=1")?;
        for name in SETS[1].1.iter().filter(|name| **name != kmod::NAME) {
            let name = format!("{name}.ko");
            copy(&self.source(&name), &out.join(&name))?;
        }
        Ok(())
    }

    /// Keeps what builds more modules for this kernel, without what no module of ours can need.
    fn keep_kit(&self, kit: &Path) -> Result<()> {
        let common = format!("usr/src/linux-headers-{}-common", self.version);
        prune(&self.work.join(&common).join("arch"), |name, _| name != "x86")?;
        prune(&self.work.join(&common).join("include"), |name, _| NOT_INCLUDED.contains(&name))?;
        // One empty file for each option, by which the kernel's own build sees changes.
        prune(&self.headers().join("include/config"), |_, length| length == 0)?;
        prune(&self.headers(), |name, _| name == "vmlinux")?;
        for part in ["usr/src", "usr/lib", "usr/bin/make"] {
            let to = kit.join(part);
            fs::create_dir_all(to.parent().context("a file's path has a folder")?)?;
            fs::rename(self.work.join(part), to).with_context(|| format!("cannot keep {part}"))?;
        }
        prune(&kit.join("usr/src"), |name, _| name.ends_with(".tar.xz"))?;
        copy(&self.source("Module.symvers"), &iommufd_symbols(kit))?;
        Ok(fs::write(kit.join(VERSION), &self.version)?)
    }

    /// Builds the modules in a folder.
    fn build(&self, folder: &Path, option: &str) -> Result<()> {
        command::output(make_modules(&self.work, &self.headers(), folder)?.arg(option)).map(drop)
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

/// Removes the entries of a folder whose name and length `is_superfluous` says are.
fn prune(folder: &Path, is_superfluous: impl Fn(&str, u64) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        match entry.file_name().to_str() {
            Some(name) if !is_superfluous(name, entry.metadata()?.len()) => {}
            _ if is_folder => fs::remove_dir_all(entry.path())?,
            _ => fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Copies a file and makes the folder for it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file's path has a folder")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Where this kernel's packages are.
const WHERE: &str = "only bookworm-security has (is it among the machine's apt sources?)";

/// The kit's folder in the cache, and in it the file that names the kernel's version.
const KIT: &str = "kit";
const VERSION: &str = "version";

/// Headers of hardware that the guest does not have.
const NOT_INCLUDED: [&str; 10] =
    ["drm", "dt-bindings", "media", "pcmcia", "rdma", "scsi", "soc", "sound", "target", "ufs"];

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
