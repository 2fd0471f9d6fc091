//! The log of a device's writes: what the kernel takes and refuses, and what the library makes of it.
//!
//! Deliberately absent: a page that is dirty. `mtty` takes part in logging and writes to no memory.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result, ensure};
use rustix::io::Errno;
use vfio_migration_core::device::dirty::LIMIT;
use vfio_migration_core::device::uapi::DmaLoggingRange;
use vfio_migration_host::dirty::{Error, Logging};
use vfio_migration_host::ioctl::{dma_logging_start, dma_logging_stop};

use super::library::borrow;
use crate::modules::Set;
use crate::suite::{Bench, Case};

pub(super) const CASES: &[Case] = &[
    ("log_is_started_read_and_stopped_and_all_is_dirty_where_it_cannot_be_read", read),
    ("one_range_more_than_the_kernel_takes_is_logged", one_too_many),
    ("overlapping_and_misaligned_ranges_are_logged", overlapping),
    ("range_at_the_top_of_the_address_space_is_not_logged", at_the_top),
];

/// Debian's kernel is built without the code that a report needs, and says so.
fn read(bench: &Bench) -> Result<()> {
    let held = bench.target.open()?;
    let device = borrow(&held)?;
    let given = [range(0x4000_0000, 0x1000_0000), range(0x123, 1)];
    let mut logging = Logging::start(device.as_fd(), PAGE, &given)?;
    ensure!(logging.page_size() == PAGE, "pages: wanted {PAGE} bytes, got {}", logging.page_size());
    let logged = vec![range(0, 64 * PAGE), given[0]];
    ensure!(logging.ranges() == logged, "wanted {logged:x?}, got {:x?}", logging.ranges());
    for _ in 0..2 {
        let mut dirty = Vec::new();
        let answer = logging.report_all(&mut [0; 100], |run| dirty.push(run));
        match bench.target.set() {
            Set::Stock => {
                let refused = matches!(answer, Err(Error::NotReported(Errno::OPNOTSUPP)));
                ensure!(refused, "a report: wanted EOPNOTSUPP, got {answer:?}");
                let all = logged.iter().all(|range| dirty.contains(range));
                ensure!(all, "wanted {logged:x?} to be dirty, got {dirty:x?}");
            }
            Set::Iommufd => {
                answer.context("a report")?;
                ensure!(dirty.is_empty(), "wanted no page to be dirty, got {dirty:x?}");
            }
        }
    }
    logging.stop().context("STOP")
}

fn one_too_many(bench: &Bench) -> Result<()> {
    let apart = |at: u64| range(at * 0x100_0000, PAGE);
    let ranges: Vec<DmaLoggingRange> = (0..=LIMIT as u64).map(apart).collect();
    check(bench, &ranges, Errno::TOOBIG, LIMIT)?;
    let held = bench.target.open()?;
    let device = borrow(&held)?;
    dma_logging_start(&device, PAGE, &ranges[..LIMIT]).context("START with as many as there may be")?;
    dma_logging_stop(&device).context("STOP")
}

fn overlapping(bench: &Bench) -> Result<()> {
    check(bench, &[range(0, 3 * PAGE), range(2 * PAGE, PAGE)], Errno::INVAL, 1)?;
    check(bench, &[range(0, PAGE + 1)], Errno::INVAL, 1)?;
    check(bench, &[range(1, PAGE)], Errno::INVAL, 1)
}

/// The kernel wants an end that has a number; no rounding can help there.
fn at_the_top(bench: &Bench) -> Result<()> {
    let held = bench.target.open()?;
    let device = borrow(&held)?;
    let ranges = [range(0u64.wrapping_sub(PAGE), PAGE)];
    let got = dma_logging_start(&device, PAGE, &ranges);
    ensure!(got == Err(Errno::OVERFLOW), "START: wanted EOVERFLOW, got {got:?}");
    let got = Logging::start(device.as_fd(), PAGE, &ranges);
    let refused = matches!(got, Err(Error::NotStarted(Errno::OVERFLOW)));
    ensure!(refused, "through the library: wanted EOVERFLOW, got {got:?}");
    Ok(())
}

/// Shows that the kernel refuses `ranges`, and takes what the library makes of them.
fn check(bench: &Bench, ranges: &[DmaLoggingRange], wanted: Errno, count: usize) -> Result<()> {
    let held = bench.target.open()?;
    let device = borrow(&held)?;
    let got = dma_logging_start(&device, PAGE, ranges);
    ensure!(got == Err(wanted), "START: wanted {wanted:?}, got {got:?}");
    let logging = Logging::start(device.as_fd(), PAGE, ranges).context("through the library")?;
    let got = logging.ranges().len();
    ensure!(got == count, "wanted {count} ranges, got {got}");
    logging.stop().context("STOP")
}

fn range(iova: u64, length: u64) -> DmaLoggingRange {
    DmaLoggingRange { iova, length }
}

const PAGE: u64 = 4096;
