//! Many rounds in one process: no open file and no memory of the kernel is left behind.
//!
//! Deliberately absent: this process's own memory. What the library allocates is dropped with each round by its type.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use vfio_migration_core::session::Event;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::device::Device;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::{Name, Opened};
use vfio_migration_host::transfer::{Load, Member, PreCopy, Save, load, save};

use crate::device::{Card, RUNNING, new_text};
use crate::suite::{Bench, Case};

pub(super) const CASES: &[Case] =
    &[("two_hundred_rounds_leave_no_file_and_no_memory_of_the_kernel_behind", leaves_nothing)];

fn leaves_nothing(bench: &Bench) -> Result<()> {
    let text = new_text();
    bench.source.fill(&text)?;
    (0..WARM_UP).try_for_each(|_| round(bench))?;
    let before = Figures::now()?;
    let began = Instant::now();
    (0..ROUNDS).try_for_each(|_| round(bench))?;
    let took = began.elapsed();
    let after = before.settled()?;
    let grown = after.grown_since(&before);
    println!(
        "# {ROUNDS} rounds of save and load in {:.1} s: open files {} before, {} after; kernel's slabs {} KiB \
         before, {} KiB after; grown most: {}",
        took.as_secs_f64(),
        before.files,
        after.files,
        before.slabs,
        after.slabs,
        show(&grown)
    );
    ensure!(after.files == before.files, "open files: wanted {}, got {}", before.files, after.files);
    check_growth(&grown)?;
    bench.target.check(RUNNING, &text)?;
    bench.source.check(RUNNING, &text).context("the source")?;
    check_that_a_leak_is_seen()
}

/// Shows that the figures see what they are there for.
fn check_that_a_leak_is_seen() -> Result<()> {
    let before = Figures::now()?;
    let leaked: Result<Vec<_>, _> = (0..ROUNDS).map(|_| File::open("/proc/self/status")).collect();
    let after = Figures::now()?;
    drop(leaked?);
    ensure!(after.files == before.files + ROUNDS, "open files: got {} more", after.files - before.files);
    let grown = after.grown_since(&before);
    ensure!(check_growth(&grown).is_err(), "wanted {ROUNDS} more objects, got {}", show(&grown));
    Ok(())
}

/// Opens both cards, saves the one with pre-copy, loads the other, and closes everything.
fn round(bench: &Bench) -> Result<()> {
    let plan = Save { pre_copy: Some(PreCopy::default()), ..Save::default() };
    let nobody = |_: &Event| {};
    with(&bench.source, |member| {
        let link = Link::new(File::create("/tmp/state")?, None);
        save(vec![member], link, &plan, || Ok(()), &nobody)?;
        Ok(())
    })?;
    with(&bench.target, |member| {
        let link = Link::new(File::open("/tmp/state")?, None);
        load(vec![member], link, &Load::default(), &nobody)?;
        Ok(())
    })
}

/// Opens a card through the library for one transfer.
fn with(card: &Card, work: impl FnOnce(Member<'_, Device<Opened>>) -> Result<()>) -> Result<()> {
    let name: Name = card.argument()?.parse()?;
    let identity = name.identify()?;
    let mut device = Device::new(name.open()?)?;
    let (features, now, idstr) = (device.features(), device.state(), identity.idstr());
    let mut buffer = Buffer::for_source(4096)?;
    let buffer = buffer.bytes();
    work(Member { device: &mut device, features, now, identity: &identity, idstr, buffer })
}

/// What this process and the kernel hold.
struct Figures {
    /// This process's open files.
    files: usize,
    /// The kernel's objects by their caches.
    objects: BTreeMap<String, u64>,
    /// The kernel's memory for objects that it can't give back, in KiB.
    slabs: u64,
}

impl Figures {
    /// What is held now that the kernel was asked to give back what it can.
    fn now() -> Result<Self> {
        fs::write("/proc/sys/vm/drop_caches", "3")?;
        for cache in fs::read_dir("/sys/kernel/slab")? {
            // A name of a cache that has another one too, or one that does not shrink, is no loss.
            let _ = fs::write(cache?.path().join("shrink"), "1");
        }
        let info = fs::read_to_string("/proc/slabinfo")?;
        let count = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_string(), words.next()?.parse().ok()?))
        };
        let memory = fs::read_to_string("/proc/meminfo")?;
        let slabs = memory.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
        let slabs = slabs.and_then(|rest| rest.split_whitespace().next()).context("no SUnreclaim")?;
        Ok(Self {
            files: fs::read_dir("/proc/self/fd")?.count(),
            objects: info.lines().filter_map(count).collect(),
            slabs: slabs.parse()?,
        })
    }

    /// What is held once the kernel has done what it does later, for instance after a grace period of RCU: as soon as
    /// nothing has grown by [`LIMIT`] objects, or in the end.
    fn settled(&self) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = Self::now()?;
            let most = now.grown_since(self).first().map_or(0, |(grown, _)| *grown);
            if most < LIMIT || Instant::now() > end {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// By how many objects each cache has grown, the most first.
    fn grown_since(&self, before: &Self) -> Vec<(u64, &str)> {
        let was = |name: &str| before.objects.get(name).copied().unwrap_or_default();
        let grown = self.objects.iter().map(|(name, count)| (count.saturating_sub(was(name)), name.as_str()));
        let mut grown: Vec<_> = grown.collect();
        grown.sort_unstable_by(|a, b| b.cmp(a));
        grown
    }
}

/// Fails when a cache has grown by an object in every other round.
fn check_growth(grown: &[(u64, &str)]) -> Result<()> {
    let most = grown.first().map_or(0, |(grown, _)| *grown);
    ensure!(
        most < ROUNDS as u64,
        "the kernel's objects: wanted less than {ROUNDS} more, got {}",
        show(grown)
    );
    Ok(())
}

fn show(grown: &[(u64, &str)]) -> String {
    let most = grown.iter().take(4).map(|(grown, name)| format!("{name} {grown}"));
    most.collect::<Vec<_>>().join(", ")
}

const WARM_UP: usize = 10;
const ROUNDS: usize = 200;
/// From how many objects on it is a leak, and not what else goes on in the kernel.
const LIMIT: u64 = 100;
const PATIENCE: Duration = Duration::from_secs(10);
