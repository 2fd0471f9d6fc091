//! Rules about the log of a device's DMA.
//!
//! No guest memory is mapped and no DMA is done here: what a device reports is read, never checked against memory. The
//! range that is logged is 1 MiB from 1 GiB on.
//!
//! Deliberately absent: the IOMMU's own log, which is not the driver's.

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::dirty::LIMIT;
use vfio_migration_core::device::uapi::DmaLoggingRange;

use super::trial::{Checked, Skip, Trial};
use super::words::said;
use super::{Level, Need, Rule};
use crate::ioctl::{self, BitForEachByte};

const NEEDS: &[Need] = &[Need::Logging];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "DMA-01",
        level: Level::Must,
        statement: "where PROBE says that the device can log, START works",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_START: PROBE can be used to detect support",
        why: "A VMM decides by PROBE who logs: the device or the IOMMU. Where START fails then, it is too \
              late for another choice, and all memory counts as dirty.",
        remedy: "Register log_ops only where the hardware can log.",
        needs: NEEDS,
        check: start,
    },
    Rule {
        id: "DMA-02",
        level: Level::Must,
        statement: "REPORT works after START",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: read back and clear the device DMA log",
        why: "If any error is returned a VMM has to take all memory for dirty, again in each round: the \
              migration does not converge. EOPNOTSUPP comes from a kernel without iova_bitmap, whatever the \
              driver does.",
        remedy: "Answer every report while the log goes on; select IOMMUFD_DRIVER in the driver's Kconfig \
                 entry.",
        needs: NEEDS,
        check: report,
    },
    Rule {
        id: "DMA-03",
        level: Level::Must,
        statement: "START answers with a page size that is a power of two",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_START: on output the device will return the page size it \
                 selected",
        why: "A VMM rounds its ranges to these pages and reads the bits by them. With another number, pages \
              are missed.",
        remedy: "Return the granularity that the hardware tracks.",
        needs: NEEDS,
        check: page_size,
    },
    Rule {
        id: "DMA-04",
        level: Level::Should,
        statement: "a second START is refused",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_START: another start is not allowed in the meantime",
        why: "Two parts of a VMM that both log would take each other's pages. The second one must learn that \
              there is a log already.",
        remedy: "Keep whether a log goes on, and return -EINVAL or -EBUSY for another.",
        needs: NEEDS,
        check: second_start,
    },
    Rule {
        id: "DMA-05",
        level: Level::Should,
        statement: "REPORT without START is refused",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: if DMA logging is not enabled, an error will be \
                 returned",
        why: "An empty report of a log that does not go on says that nothing is dirty. What the device wrote \
              is lost.",
        remedy: "Return -EINVAL from log_read_and_clear unless a log goes on.",
        needs: NEEDS,
        check: report_without_start,
    },
    Rule {
        id: "DMA-06",
        level: Level::Should,
        statement: "REPORT after STOP is refused",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: if DMA logging is not enabled, an error will be \
                 returned",
        why: "An empty report of a log that has ended says that nothing is dirty. What the device wrote since \
              is lost.",
        remedy: "Forget the log in log_stop, and return -EINVAL from log_read_and_clear then.",
        needs: NEEDS,
        check: report_after_stop,
    },
    Rule {
        id: "DMA-07",
        level: Level::Must,
        statement: "a REPORT clears what it told",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT: during querying the log is cleared for the IOVA \
                 range",
        why: "A VMM sends what is reported, again and again, until little is left. Pages that are reported \
              for ever are sent for ever, and the migration does not converge.",
        remedy: "Clear the hardware's log with the read that reports it.",
        needs: NEEDS,
        check: report_clears,
    },
    Rule {
        id: "DMA-08",
        level: Level::Must,
        statement: "START works again after STOP",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_START: a matching stop should follow at the end",
        why: "A migration that was cancelled is tried again. Where the log can be started once only, the next \
              one has to take all memory for dirty.",
        remedy: "Free everything of the log in log_stop.",
        needs: NEEDS,
        check: start_again,
    },
    Rule {
        id: "DMA-09",
        level: Level::Must,
        statement: "STOP works after START",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: stop device DMA logging that was started",
        why: "A log costs the device's throughput. One that can't be stopped slows the guest down for as long \
              as it lives.",
        remedy: "Stop the hardware's log in log_stop, and report an error only where it goes on.",
        needs: NEEDS,
        check: stop,
    },
    Rule {
        id: "DMA-10",
        level: Level::Note,
        statement: "START without ranges answers EINVAL",
        source: "vfio_ioctl_device_feature_logging_start(): the kernel's own check",
        why: "The kernel looks at the ranges before the driver is asked. Another answer is another kernel \
              than this program knows.",
        remedy: "Nothing in the driver; look at the kernel's version.",
        needs: NEEDS,
        check: no_ranges,
    },
    Rule {
        id: "DMA-11",
        level: Level::Note,
        statement: "START with 257 ranges answers E2BIG",
        source: "VFIO_DEVICE_FEATURE_DMA_LOGGING_START: guarantees to support num_ranges that fit into a page",
        why: "A VMM joins its ranges until as many are left as the kernel takes: 256 where pages have 4096 \
              bytes. With larger pages there may be more, and this note fails.",
        remedy: "Nothing in the driver; the limit is the kernel's.",
        needs: NEEDS,
        check: too_many_ranges,
    },
    Rule {
        id: "DMA-12",
        level: Level::Note,
        statement: "START with overlapping ranges answers EINVAL",
        source: "vfio_ioctl_device_feature_logging_start(): the kernel's own check",
        why: "A VMM has to join what overlaps. Another answer is another kernel than this program knows.",
        remedy: "Nothing in the driver; look at the kernel's version.",
        needs: NEEDS,
        check: overlapping,
    },
    Rule {
        id: "DMA-13",
        level: Level::Note,
        statement: "START with ranges that are no whole pages answers EINVAL",
        source: "vfio_ioctl_device_feature_logging_start(): the kernel's own check",
        why: "A VMM has to round its ranges to the pages that it asks for. Another answer is another kernel \
              than this program knows.",
        remedy: "Nothing in the driver; look at the kernel's version.",
        needs: NEEDS,
        check: misaligned,
    },
    Rule {
        id: "DMA-14",
        level: Level::Note,
        statement: "START with a range up to the end of the address space answers EOVERFLOW",
        source: "vfio_ioctl_device_feature_logging_start(): the kernel's own check",
        why: "The end of such a range has no number. A VMM has to leave its last page out.",
        remedy: "Nothing in the driver; look at the kernel's version.",
        needs: NEEDS,
        check: at_the_top,
    },
    Rule {
        id: "DMA-15",
        level: Level::Note,
        statement: "REPORT in pages below 4096 bytes, or of no power of two, answers EINVAL",
        source: "vfio_ioctl_device_feature_logging_report(): the kernel's own check",
        why: "The kernel looks at the page size before the driver is asked. Another answer is another kernel \
              than this program knows.",
        remedy: "Nothing in the driver; look at the kernel's version.",
        needs: NEEDS,
        check: strange_pages,
    },
];

/// No log goes on, and none has since a reset, where there is one.
fn fresh(trial: &mut Trial<'_, '_>) -> Checked {
    end(trial);
    if trial.facts.resets.is_ok() {
        trial.lab.is_lost();
    }
    trial.home()
}

/// A log that goes on, for rules that need one.
fn begin(trial: &mut Trial<'_, '_>) -> Result<u64, Skip> {
    fresh(trial)?;
    let answer = started(trial, &[RANGE]);
    answer.map_err(|_| Skip(format!("START answered {}", said(&answer))))
}

/// No log goes on any more, as far as the driver lets it be ended.
fn end(trial: &Trial<'_, '_>) {
    // That STOP works is a rule of its own.
    let _ = ioctl::dma_logging_stop(trial.lab.fd());
}

fn started(trial: &Trial<'_, '_>, ranges: &[DmaLoggingRange]) -> Answer<u64> {
    ioctl::dma_logging_start(trial.lab.fd(), PAGE, ranges)
}

fn start(trial: &mut Trial<'_, '_>) -> Checked {
    fresh(trial)?;
    starts(trial)
}

fn starts(trial: &mut Trial<'_, '_>) -> Checked {
    let answer = started(trial, &[RANGE]);
    end(trial);
    trial.expect(answer.is_ok(), || format!("wanted success, got {}", said(&answer)));
    Ok(())
}

fn report(trial: &mut Trial<'_, '_>) -> Checked {
    let page = begin(trial)?;
    let answer = reported(trial, page);
    end(trial);
    trial.expect(answer.is_ok(), || format!("wanted success, got {}", said(&answer)));
    Ok(())
}

fn page_size(trial: &mut Trial<'_, '_>) -> Checked {
    let page = begin(trial)?;
    end(trial);
    trial.expect(page.is_power_of_two(), || format!("wanted a power of two, got {page}"));
    trial.tried(format!("{page} bytes"));
    Ok(())
}

fn second_start(trial: &mut Trial<'_, '_>) -> Checked {
    begin(trial)?;
    let answer = started(trial, &[RANGE]);
    end(trial);
    trial.expect(answer.is_err(), || "wanted a refusal, got success".to_owned());
    trial.tried(said(&answer));
    Ok(())
}

fn report_without_start(trial: &mut Trial<'_, '_>) -> Checked {
    fresh(trial)?;
    refused_report(trial)
}

fn report_after_stop(trial: &mut Trial<'_, '_>) -> Checked {
    begin(trial)?;
    end(trial);
    refused_report(trial)
}

fn refused_report(trial: &mut Trial<'_, '_>) -> Checked {
    let answer = reported(trial, PAGE);
    if answer == Err(Errno::OPNOTSUPP) {
        return Err("the kernel has no reports at all: EOPNOTSUPP".into());
    }
    trial.expect(answer.is_err(), || "wanted a refusal, got success".to_owned());
    trial.tried(said(&answer));
    Ok(())
}

fn report_clears(trial: &mut Trial<'_, '_>) -> Checked {
    let page = begin(trial)?;
    let answers = [reported(trial, page), reported(trial, page)];
    end(trial);
    let [Ok(first), Ok(second)] = answers else {
        return Err(format!("REPORT answered {}", said(&answers[0].and(answers[1]))).into());
    };
    if first == 0 {
        return Err("the device has written to no page".into());
    }
    trial.expect(second == 0, || format!("{first} pages were told, and {second} of them again"));
    trial.tried(format!("{first} pages"));
    Ok(())
}

fn start_again(trial: &mut Trial<'_, '_>) -> Checked {
    begin(trial)?;
    end(trial);
    starts(trial)
}

fn stop(trial: &mut Trial<'_, '_>) -> Checked {
    begin(trial)?;
    let answer = ioctl::dma_logging_stop(trial.lab.fd());
    trial.expect(answer.is_ok(), || format!("wanted success, got {}", said(&answer)));
    Ok(())
}

fn no_ranges(trial: &mut Trial<'_, '_>) -> Checked {
    refused_start(trial, "no ranges", &[], Errno::INVAL)
}

fn too_many_ranges(trial: &mut Trial<'_, '_>) -> Checked {
    let apart = |nth: u64| DmaLoggingRange { iova: nth * 2 * PAGE, length: PAGE };
    let ranges: Vec<_> = (0..=LIMIT as u64).map(apart).collect();
    refused_start(trial, "257 ranges", &ranges, Errno::TOOBIG)
}

fn overlapping(trial: &mut Trial<'_, '_>) -> Checked {
    let twice = [RANGE, DmaLoggingRange { iova: RANGE.iova + PAGE, length: PAGE }];
    refused_start(trial, "overlapping ranges", &twice, Errno::INVAL)
}

fn misaligned(trial: &mut Trial<'_, '_>) -> Checked {
    let begin = DmaLoggingRange { iova: RANGE.iova + 1, length: PAGE };
    let end = DmaLoggingRange { iova: RANGE.iova, length: PAGE + 1 };
    refused_start(trial, "a range that begins in a page", &[begin], Errno::INVAL)?;
    refused_start(trial, "a range that ends in a page", &[end], Errno::INVAL)
}

fn at_the_top(trial: &mut Trial<'_, '_>) -> Checked {
    let last = DmaLoggingRange { iova: 0_u64.wrapping_sub(PAGE), length: PAGE };
    refused_start(trial, "the last page", &[last], Errno::OVERFLOW)
}

fn refused_start(
    trial: &mut Trial<'_, '_>,
    what: &str,
    ranges: &[DmaLoggingRange],
    wanted: Errno,
) -> Checked {
    fresh(trial)?;
    let answer = started(trial, ranges);
    end(trial);
    let is_wanted = answer == Err(wanted);
    let wanted = said(&Err::<(), _>(wanted));
    trial.expect(is_wanted, || format!("{what}: wanted {wanted}, got {}", said(&answer)));
    Ok(())
}

fn strange_pages(trial: &mut Trial<'_, '_>) -> Checked {
    fresh(trial)?;
    for page in [0, 1, 2048, 3 * PAGE] {
        let answer = pages(trial, page).map(drop);
        trial.expect(answer == Err(Errno::INVAL), || {
            format!("pages of {page} bytes: wanted EINVAL, got {}", said(&answer))
        });
    }
    Ok(())
}

/// A report of the range in pages that are no smaller than those of the device, and how many of them it told.
fn reported(trial: &Trial<'_, '_>, page: u64) -> Answer<u32> {
    let page = page.checked_next_power_of_two().unwrap_or(RANGE.length).clamp(PAGE, RANGE.length);
    pages(trial, page)
}

fn pages(trial: &Trial<'_, '_>, page: u64) -> Answer<u32> {
    let mut bitmap: Box<BitForEachByte> = Box::new([0; 1 << 14]);
    ioctl::dma_logging_report_in(trial.lab.fd(), RANGE.iova, RANGE.length, page, &mut bitmap)?;
    Ok(bitmap.iter().map(|word| word.count_ones()).sum())
}

const PAGE: u64 = 4096;
const RANGE: DmaLoggingRange = DmaLoggingRange { iova: 1 << 30, length: 1 << 20 };
