//! `cargo xtask vm`: a real kernel with a real migratable device, and two real QEMUs beside it.
//!
//! Installs nothing and needs neither root nor KVM: kernel, modules and QEMU come out of Debian's
//! packages into the user's cache folder, once; the VM is emulated.
//!
//! Deliberately absent: the guest's tests. They are the program in `tests/vm`.

mod console;
mod initramfs;
mod kernel;
mod kmod;
mod pages;
pub(crate) mod qemu;
mod without_std;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::initramfs::Initramfs;
use self::kernel::Kernel;
use self::qemu::Qemu;
use crate::apt::Apt;
use crate::cache::{self, Cache, Recipe};
use crate::command::{self, Tally, step};

/// Options of the task.
#[derive(clap::Args, Default)]
#[command(after_help = AFTER)]
pub(crate) struct Options {
    /// Run only the guest tests whose names contain this
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Run the guest's long tests too: every way to and from each QEMU, with every kind of damage
    #[arg(long)]
    all: bool,
    /// End the VM after this many seconds [default: 2700, with --all 4000]
    #[arg(long, value_name = "SECONDS")]
    limit: Option<u64>,
    /// Boot this kernel image instead of Debian's
    #[arg(long, value_name = "FILE", requires = "modules")]
    kernel: Option<PathBuf>,
    /// Use the modules in DIR/stock and DIR/iommufd (see --help)
    ///
    /// They belong to the kernel given with --kernel. Both folders hold vfio.ko, vfio_iommu_type1.ko,
    /// mdev.ko, mtty.ko and migtest.ko, which is built from tests/kmod; the second is built with
    /// VFIO_DEVICE_CDEV and holds iommufd.ko too. The kernel has DYNAMIC_DEBUG, so that mtty's steps
    /// can be read in its log.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Use the QEMU (10.0 or newer) below this root folder instead of Debian's 10 and 11; / is the machine's own
    ///
    /// May be given several times: the first QEMU boots the VM, and all of them run inside it.
    #[arg(long, value_name = "DIR")]
    qemu: Vec<PathBuf>,
    /// Fetch and build everything anew
    #[arg(long)]
    refresh: bool,
    /// Write the pages of docs/ that the guest makes
    #[arg(long)]
    bless: bool,
}

/// Brings the VM's parts together, boots it and returns its tests' tally.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    check_libc()?;
    let cache = Cache::new("vm", options.refresh)?;
    let kernel = match (&options.kernel, &options.modules) {
        (Some(image), Some(modules)) => Kernel { image: image.clone(), modules: modules.clone(), kit: None },
        _ => kernel::made(&debians(&cache, &KERNEL)?),
    };
    let qemus = if options.qemu.is_empty() {
        QEMUS.iter().map(|recipe| Qemu::new(&debians(&cache, recipe)?)).collect::<Result<Vec<_>>>()?
    } else {
        options.qemu.iter().map(|root| Qemu::new(root)).collect::<Result<_>>()?
    };
    let programs = step("building vfio-migrate and the guest's tests, static", build_programs)?;
    let small = without_std::build()?;
    let folder = command::target()?.join("vm");
    fs::create_dir_all(&folder)?;
    let own = match &kernel.kit {
        Some(kit) => {
            cache::check_tools(COMPILER, OWN)?;
            step("building the test device's module", || kmod::build(kit, &folder.join("kmod")))?
        }
        None => kernel.modules.clone(),
    };
    let archive = folder.join("initramfs.cpio");
    step("packing the guest", || pack(&archive, &programs, &small, &kernel, &own, &qemus))?;
    let log = folder.join("console.log");
    println!("booting; the console goes to {}", log.display());
    let (job, all) = (options.job.as_deref().unwrap_or_default(), if options.all { "--all" } else { "" });
    let append = format!("{KERNEL_COMMAND_LINE} -- {all} {job}");
    let boot = qemus.first().context("there is a QEMU")?;
    let tally = console::watch(
        &mut boot.boot(&kernel.image, &archive, &append),
        &log,
        Duration::from_secs(options.limit.unwrap_or(if options.all { LIMIT_ALL } else { LIMIT })),
    )?;
    let pages = pages::settle(&fs::read_to_string(&log)?, &command::workspace()?, options.bless)?;
    ensure!(options.job.is_some() || pages != Tally::default(), "the guest printed no page of docs/");
    let tally = [tally, pages].into_iter().sum();
    println!("{tally}");
    Ok(tally)
}

/// The QEMU that boots the VM, fetched unless it is in the cache; `otherwise` is what to do where it can't be.
pub(crate) fn qemu(otherwise: &'static str) -> Result<Qemu> {
    Qemu::new(&debians(&Cache::new("vm", false)?, &Recipe { otherwise, ..QEMUS[0] })?)
}

/// A folder of the cache with Debian's programs, which are for our machine's architecture.
fn debians(cache: &Cache, recipe: &Recipe) -> Result<PathBuf> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "Debian's {} here is for x86_64 machines: {}",
        recipe.name,
        recipe.otherwise
    );
    cache.folder(recipe)
}

fn fetch_qemu_10(apt: &Apt, _work: &Path, folder: &Path) -> Result<()> {
    step("fetching Debian's QEMU 10", || apt.unpack_with_dependencies(QEMU, "trixie", folder))
}

fn fetch_qemu_11(apt: &Apt, _work: &Path, folder: &Path) -> Result<()> {
    step("fetching Debian's QEMU 11", || apt.unpack_with_dependencies(QEMU, "trixie-backports", folder))
}

/// Says at once that the C library is missing which the guest's programs are linked with: in the guest is no other.
fn check_libc() -> Result<()> {
    let asked = command::output(Command::new("cc").arg("-print-file-name=libc.a"));
    let found = asked.is_ok_and(|path| Path::new(path.trim()).is_file());
    ensure!(found, "the C compiler `cc` has no static libc.a: install the Debian packages gcc and libc6-dev");
    Ok(())
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

/// Writes the guest's file system; `own` holds the sets' modules that are built in each run.
fn pack(
    archive: &Path,
    programs: &Path,
    small: &Path,
    kernel: &Kernel,
    own: &Path,
    qemus: &[Qemu],
) -> Result<()> {
    let mut initramfs = Initramfs::new(archive)?;
    initramfs.add("init", &programs.join("vfio-migration-vm-tests"))?;
    initramfs.add("bin/vfio-migrate", &programs.join("vfio-migrate"))?;
    initramfs.add("bin/without-std", small)?;
    for (set, names) in kernel::SETS {
        for name in names {
            let module = format!("{set}/{name}.ko");
            let folder = if *name == kmod::NAME { own } else { &kernel.modules };
            initramfs.add(&format!("modules/{module}"), &folder.join(&module))?;
        }
    }
    for qemu in qemus {
        for (name, file) in qemu.guest_files()? {
            initramfs.add(&name, &file)?;
        }
    }
    initramfs.finish()
}

const AFTER: &str = "\
Examples:
  cargo xtask vm --job interrupt
  cargo xtask vm --kernel ~/linux/arch/x86/boot/bzImage --modules ~/modules --qemu /";

/// Seconds that the guest's tests may take; on two cores they take about ten minutes.
const LIMIT: u64 = 2700;
/// The same with the long tests.
const LIMIT_ALL: u64 = 4000;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// After `--` stand the arguments of the guest's first process; a panic ends the VM.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet loglevel=1";

/// The kernel and its modules, whose build needs more programs; make and xz come with the kernel's packages.
const KERNEL: Recipe = Recipe {
    name: "kernel",
    suites: &["bookworm"],
    tools: &[
        ("apt-get", "apt"),
        ("apt-cache", "apt"),
        ("dpkg", "dpkg"),
        ("tar", "tar"),
        ("gcc", "gcc"),
        ("ld", "binutils"),
    ],
    otherwise: OWN,
    make: kernel::make,
};

/// The QEMUs; the first one boots the VM.
const QEMUS: [Recipe; 2] = [
    Recipe { name: "qemu", suites: &["trixie"], tools: QEMU_TOOLS, otherwise: OWN, make: fetch_qemu_10 },
    Recipe {
        name: "qemu-11",
        suites: &["trixie", "trixie-backports"],
        tools: QEMU_TOOLS,
        otherwise: OWN,
        make: fetch_qemu_11,
    },
];

/// What to do where Debian's packages can't be used.
const OWN: &str = "give your own with --kernel, --modules and --qemu";

/// The package of the QEMU that emulates our machine.
const QEMU: &str = "qemu-system-x86";

/// Programs that fetching needs, and their Debian packages.
const QEMU_TOOLS: &[(&str, &str)] = &[("apt-get", "apt"), ("dpkg", "dpkg")];

/// Programs that the test device's build needs in each run, also where the kernel is in the cache.
const COMPILER: &[(&str, &str)] = &[("gcc", "gcc"), ("ld", "binutils")];
