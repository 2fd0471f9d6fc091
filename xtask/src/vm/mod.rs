//! `cargo xtask vm`: a real kernel with a real migratable device, and a real QEMU beside it.
//!
//! Installs nothing and needs neither root nor KVM: kernel, modules and QEMU come out of Debian's
//! packages into the user's cache folder, once; the VM is emulated.

mod apt;
mod console;
mod initramfs;
mod kernel;
mod qemu;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::apt::Apt;
use self::initramfs::Initramfs;
use self::kernel::Kernel;
use self::qemu::Qemu;
use crate::command::{self, Tally, step};

/// Options of the task.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Run only the guest tests whose names contain this
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// End the VM after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
    /// Boot this kernel image instead of Debian's
    #[arg(long, value_name = "FILE", requires = "modules")]
    kernel: Option<PathBuf>,
    /// Use the modules in DIR/stock and DIR/iommufd (see --help)
    ///
    /// They belong to the kernel given with --kernel. Both folders hold vfio.ko, vfio_iommu_type1.ko,
    /// mdev.ko and mtty.ko; the second is built with VFIO_DEVICE_CDEV and holds iommufd.ko too.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Use the QEMU (10.0 or newer) below this root folder; / is the machine's own
    #[arg(long, value_name = "DIR")]
    qemu: Option<PathBuf>,
    /// Fetch and build everything anew
    #[arg(long)]
    refresh: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { job: None, limit: 900, kernel: None, modules: None, qemu: None, refresh: false }
    }
}

/// Brings the VM's parts together, boots it and returns its tests' tally.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    let cache = Cache::new(options.refresh)?;
    let kernel = match (&options.kernel, &options.modules) {
        (Some(image), Some(modules)) => Kernel { image: image.clone(), modules: modules.clone() },
        _ => kernel::made(&cache.folder("kernel", KERNEL_TOOLS, kernel::make)?),
    };
    let qemu = match &options.qemu {
        Some(root) => Qemu::new(root)?,
        None => Qemu::new(&cache.folder("qemu", QEMU_TOOLS, fetch_qemu)?)?,
    };
    let programs = step("building vfio-migrate and the guest's tests, static", build_programs)?;
    let folder = command::target()?.join("vm");
    fs::create_dir_all(&folder)?;
    let archive = folder.join("initramfs.cpio");
    step("packing the guest", || pack(&archive, &programs, &kernel, &qemu))?;
    let log = folder.join("console.log");
    println!("booting; the console goes to {}", log.display());
    let append = format!("{KERNEL_COMMAND_LINE} -- {}", options.job.as_deref().unwrap_or_default());
    let tally = console::watch(
        &mut qemu.boot(&kernel.image, &archive, &append),
        &log,
        Duration::from_secs(options.limit),
    )?;
    println!("{tally}");
    Ok(tally)
}

/// The user's cache folder of this task.
struct Cache {
    root: PathBuf,
    refresh: bool,
}

impl Cache {
    fn new(refresh: bool) -> Result<Self> {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || Some(Path::new(&std::env::var_os("HOME")?).join(".cache"));
        let base = cache.or_else(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
        Ok(Self { root: base.join("vfio-migration/vm"), refresh })
    }

    /// A folder of the cache, made now unless an earlier run has made the whole of it.
    fn folder(&self, name: &str, tools: &[(&str, &str)], make: Make) -> Result<PathBuf> {
        let folder = self.root.join(name);
        let complete = folder.join("complete");
        if !self.refresh && fs::read_to_string(&complete).is_ok_and(|recipe| recipe == RECIPE) {
            return Ok(folder);
        }
        check_machine(tools)?;
        let work = self.root.join("work");
        for place in [&folder, &work] {
            remove(place)?;
            fs::create_dir_all(place)?;
        }
        let apt = step("reading Debian's package lists", || Apt::new(&self.root.join("apt")))?;
        make(&apt, &work, &folder)?;
        for place in [work, self.root.join("apt")] {
            remove(&place)?;
        }
        fs::write(complete, RECIPE)?;
        Ok(folder)
    }
}

/// Makes a folder's content (the last argument) with a folder for what is thrown away afterwards.
type Make = fn(&Apt, &Path, &Path) -> Result<()>;

/// Says at once what is missing for using Debian's packages, rather than one thing after another.
fn check_machine(tools: &[(&str, &str)]) -> Result<()> {
    let own = "give your own with --kernel, --modules and --qemu";
    ensure!(cfg!(target_arch = "x86_64"), "Debian's kernel here is for x86_64 machines: {own}");
    let missing: Vec<_> = tools.iter().filter(|(program, _)| !command::is_installed(program)).collect();
    let packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    ensure!(
        missing.is_empty(),
        "programs are missing: install the Debian packages {} or {own}",
        packages.join(" ")
    );
    Ok(())
}

fn fetch_qemu(apt: &Apt, _work: &Path, folder: &Path) -> Result<()> {
    step("fetching Debian's QEMU 10", || apt.unpack_with_dependencies("qemu-system-x86/trixie", folder))
}

/// Builds the two programs of the guest; returns their folder.
fn build_programs() -> Result<PathBuf> {
    let target = command::target()?.join("static");
    let mut build = command::cargo();
    build.args(["build", "--release", "--target", TARGET, "--target-dir"]).arg(&target);
    build.args(["--package", "vfio-migration-host", "--bin", "vfio-migrate"]);
    build.args(["--package", "vfio-migration-vm-tests", "--bin", "vfio-migration-vm-tests"]);
    build.env("RUSTFLAGS", "-C target-feature=+crt-static").current_dir(command::workspace()?);
    command::output(&mut build)?;
    Ok(target.join(TARGET).join("release"))
}

/// Writes the guest's file system.
fn pack(archive: &Path, programs: &Path, kernel: &Kernel, qemu: &Qemu) -> Result<()> {
    let mut initramfs = Initramfs::new(archive)?;
    initramfs.add("init", &programs.join("vfio-migration-vm-tests"))?;
    initramfs.add("bin/vfio-migrate", &programs.join("vfio-migrate"))?;
    for (set, names) in kernel::SETS {
        for name in names {
            let module = format!("{set}/{name}.ko");
            initramfs.add(&format!("modules/{module}"), &kernel.modules.join(&module))?;
        }
    }
    for (name, file) in qemu.guest_files()? {
        initramfs.add(&name, &file)?;
    }
    initramfs.finish()
}

/// Removes a folder that may not be there.
fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Stands in a folder of the cache once it is complete; a new number makes all of them anew.
const RECIPE: &str = "1";

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// After `--` stand the arguments of the guest's first process; a panic ends the VM.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet loglevel=1";

/// Programs that fetching needs, and their Debian packages.
const QEMU_TOOLS: &[(&str, &str)] = &[("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg", "dpkg")];

/// Programs that the modules' build needs too; make and xz come with the kernel's packages.
const KERNEL_TOOLS: &[(&str, &str)] = &[
    ("apt-get", "apt"),
    ("apt-cache", "apt"),
    ("dpkg", "dpkg"),
    ("tar", "tar"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
];
