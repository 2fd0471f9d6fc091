//! The log of the pages that a device writes to, behind the device's file descriptor.
//!
//! No failure loses a page. A report that fails says that all is dirty, and as the uapi wants it so does every later one
//! ("userspace should assume that the dirty log is corrupted"), until logging is started anew.
//! Pages are rounded to the words of a driver's bitmap and small gaps are logged with what is around them, so that a run
//! may lie where the machine has no memory: it is for the caller to leave that out.
//!
//! Deliberately absent: the IOMMU's log (iommufd, type 1), which is not a device's.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::dirty::{self, LIMIT, PageSize, prepare};
use vfio_migration_core::device::uapi::{self, DmaLoggingRange};

use crate::ioctl;

/// A device that logs, behind `Fd`: an [`OwnedFd`], a borrowed one, or whatever else holds one. The log ends with it.
#[derive(Debug)]
pub struct Logging<Fd: AsFd = OwnedFd> {
    fd: Fd,
    ranges: Vec<DmaLoggingRange>,
    page_size: PageSize,
    failed: Option<Errno>,
    stopped: bool,
}

/// Why a log was not started, or says that all is dirty.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ranges, the page size or the bitmap can't be.
    #[error(transparent)]
    Wrong(#[from] dirty::Error),
    /// The kernel does not start the log.
    #[error("the kernel refused VFIO_DEVICE_FEATURE_DMA_LOGGING_START: {0}")]
    NotStarted(Errno),
    /// The device wants larger pages, and the log that it has begun can't be stopped to begin another.
    #[error("the kernel refused VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP: {0}")]
    NotStopped(Errno),
    /// A report failed; everything that is logged is dirty.
    #[error("the kernel refused VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, so all is dirty: {0}")]
    NotReported(Errno),
    /// A report was wanted of what is not logged; nothing was asked of the kernel.
    #[error(
        "wanted a report of {length:#x} bytes at {iova:#x}, which are not all in one range that is logged"
    )]
    NotLogged {
        /// The first address.
        iova: u64,
        /// Bytes.
        length: u64,
    },
}

/// Whether the device behind `device` says that it can log.
#[must_use]
pub fn can_log(device: impl AsFd) -> bool {
    ioctl::probe_feature(device, uapi::FEATURE_DMA_LOGGING_START, uapi::FEATURE_SET).is_ok()
}

impl<Fd: AsFd> Logging<Fd> {
    /// Starts the log of the device's writes into `ranges`, any ranges, in pages of `page_size` bytes if the device can.
    ///
    /// Where the device can only do with larger pages, it is stopped and started again with ranges of such pages, since
    /// a page that begins before its range would not be reported.
    ///
    /// # Errors
    /// All of [`Error`] but [`Error::NotReported`] and [`Error::NotLogged`].
    pub fn start(fd: Fd, page_size: u64, ranges: &[DmaLoggingRange]) -> Result<Self, Error> {
        let mut ranges = ranges.to_vec();
        let start = |page_size: u64, ranges: &[_]| ioctl::dma_logging_start(&fd, page_size, ranges);
        let page_size = agree(page_size, &mut ranges, start, || ioctl::dma_logging_stop(&fd))?;
        Ok(Self { fd, ranges, page_size, failed: None, stopped: false })
    }

    /// What is logged: sorted, apart from each other, whole words of 64 pages.
    pub fn ranges(&self) -> &[DmaLoggingRange] {
        &self.ranges
    }

    /// Bytes of the pages that the device tells apart, and that a bit of a bitmap stands for.
    pub const fn page_size(&self) -> u64 {
        self.page_size.bytes()
    }

    /// Reads and clears the log of `range`, which is in one of [`Logging::ranges`], and gives `dirty` what was written to.
    /// It is widened to whole words of 64 pages, and so are the runs.
    ///
    /// `bitmap` is room for the kernel: each of its words saves a call for 64 pages more.
    ///
    /// # Errors
    /// [`Error::NotReported`], [`Error::NotLogged`] and [`Error::Wrong`]; with each, `dirty` has got all of `range`. After
    /// the first all that is logged is dirty, also what an earlier report did not name.
    pub fn report(
        &mut self,
        range: DmaLoggingRange,
        bitmap: &mut [u64],
        mut dirty: impl FnMut(DmaLoggingRange),
    ) -> Result<(), Error> {
        self.read(range, bitmap, &mut dirty).inspect_err(|_| dirty(range))
    }

    /// Reads and clears the whole log, as [`Logging::report`] does for a part of it.
    ///
    /// # Errors
    /// [`Error::NotReported`] and [`Error::Wrong`]; with each, `dirty` has got everything that is logged.
    pub fn report_all(
        &mut self,
        bitmap: &mut [u64],
        mut dirty: impl FnMut(DmaLoggingRange),
    ) -> Result<(), Error> {
        let answer = (0..self.ranges.len()).try_for_each(|at| self.read(self.ranges[at], bitmap, &mut dirty));
        answer.inspect_err(|_| self.ranges.iter().copied().for_each(dirty))
    }

    /// Ends the log and says how that went; dropping it ends it in silence.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn stop(mut self) -> Answer<()> {
        self.stopped = true;
        ioctl::dma_logging_stop(&self.fd)
    }

    fn read(
        &mut self,
        range: DmaLoggingRange,
        bitmap: &mut [u64],
        dirty: &mut impl FnMut(DmaLoggingRange),
    ) -> Result<(), Error> {
        if let Some(errno) = self.failed {
            return Err(Error::NotReported(errno));
        }
        let mut words = [range];
        prepare(&mut words, self.page_size.word(), LIMIT)?;
        if !self.ranges.iter().any(|logged| is_in(words[0], *logged)) {
            return Err(Error::NotLogged { iova: range.iova, length: range.length });
        }
        for piece in dirty::pieces(words[0], self.page_size, bitmap.len())? {
            let DmaLoggingRange { iova, length } = piece;
            let words = usize::try_from(self.page_size.words(length)).unwrap_or(usize::MAX).min(bitmap.len());
            let bitmap = &mut bitmap[..words];
            let answer = ioctl::dma_logging_report(&self.fd, iova, length, self.page_size.bytes(), bitmap);
            dirty::runs(piece, self.page_size, bitmap, &answer).for_each(&mut *dirty);
            self.failed = answer.err();
            answer.map_err(Error::NotReported)?;
        }
        Ok(())
    }
}

impl<Fd: AsFd> Drop for Logging<Fd> {
    fn drop(&mut self) {
        if !self.stopped {
            // Nobody is left to be told.
            let _ = ioctl::dma_logging_stop(&self.fd);
        }
    }
}

/// Starts a log with pages that the device can do and ranges of such pages; returns what a page is then.
fn agree(
    wanted: u64,
    ranges: &mut Vec<DmaLoggingRange>,
    mut start: impl FnMut(u64, &[DmaLoggingRange]) -> Answer<u64>,
    mut stop: impl FnMut() -> Answer<()>,
) -> Result<PageSize, Error> {
    let mut wanted = PageSize::new(wanted)?;
    loop {
        let count = prepare(ranges, wanted.word(), LIMIT)?.len();
        ranges.truncate(count);
        let chosen = PageSize::new(start(wanted.bytes(), ranges).map_err(Error::NotStarted)?);
        match chosen {
            Ok(chosen) if chosen <= wanted => return Ok(chosen),
            Ok(_) | Err(_) => stop().map_err(Error::NotStopped)?,
        }
        wanted = chosen?;
    }
}

/// Whether all of `range` lies in `logged`.
fn is_in(range: DmaLoggingRange, logged: DmaLoggingRange) -> bool {
    let rest = range.iova.checked_sub(logged.iova).and_then(|offset| logged.length.checked_sub(offset));
    rest.is_some_and(|rest| range.length <= rest)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs::File;

    use super::*;

    const PAGE: PageSize = match PageSize::new(4096) {
        Ok(page) => page,
        Err(_) => panic!(),
    };

    fn range(iova: u64, length: u64) -> DmaLoggingRange {
        DmaLoggingRange { iova, length }
    }

    /// A log that a file pretends to have.
    fn pretended(ranges: Vec<DmaLoggingRange>) -> Logging<File> {
        let fd = File::open("/dev/null").unwrap();
        Logging { fd, ranges, page_size: PAGE, failed: None, stopped: false }
    }

    /// What a device that chooses one page size after the other is told, and what comes of it.
    fn told(wanted: u64, choices: &[u64], stop: Answer<()>) -> (Vec<String>, Result<PageSize, String>) {
        let calls = RefCell::new(Vec::new());
        let mut choices = choices.iter();
        let start = |page_size: u64, ranges: &[DmaLoggingRange]| {
            let ranges: Vec<_> = ranges.iter().map(|range| (range.iova, range.length)).collect();
            calls.borrow_mut().push(format!("start {page_size:#x} {ranges:x?}"));
            choices.next().copied().ok_or(Errno::IO)
        };
        let stops = || {
            calls.borrow_mut().push("stop".to_owned());
            stop
        };
        let got = agree(wanted, &mut vec![range(0x123_4567, 1)], start, stops);
        (calls.take(), got.map_err(|error| error.to_string()))
    }

    #[test]
    fn device_that_can_do_with_the_pages_or_smaller_ones_is_started_once() {
        for chosen in [4096, 16384] {
            let started = vec!["start 0x4000 [(1200000, 100000)]".to_owned()];
            assert_eq!(told(16384, &[chosen], Ok(())), (started, Ok(PageSize::new(chosen).unwrap())));
        }
    }

    #[test]
    fn device_that_wants_larger_pages_is_started_again_with_ranges_of_them() {
        let calls = ["start 0x1000 [(1200000, 40000)]", "stop", "start 0x10000 [(1000000, 400000)]"];
        let wanted = (calls.map(str::to_owned).to_vec(), Ok(PageSize::new(0x10000).unwrap()));
        assert_eq!(told(4096, &[0x10000, 0x10000], Ok(())), wanted);
    }

    #[test]
    fn device_that_refuses_or_chooses_what_is_no_page_is_left_without_a_log() {
        let table: [(&[u64], _, _, _); 4] = [
            (&[], Ok(()), 1, "LOGGING_START: "),
            (&[0x10000], Ok(()), 3, "LOGGING_START: "),
            (&[0x10000], Err(Errno::IO), 2, "LOGGING_STOP: "),
            (&[0], Ok(()), 2, "got 0"),
        ];
        for (choices, stop, count, words) in table {
            let (calls, got) = told(4096, choices, stop);
            assert_eq!(calls.len(), count, "{calls:?}");
            assert!(calls.iter().skip(1).step_by(2).all(|call| call == "stop"), "{calls:?}");
            assert!(got.unwrap_err().contains(words), "{words}");
        }
    }

    #[test]
    fn report_that_fails_says_that_all_is_dirty_and_so_do_all_after_it() {
        let mut logging = pretended(vec![range(0, 0x8_0000), range(0x100_0000, 0x8_0000)]);
        for _ in 0..2 {
            let mut got = Vec::new();
            let answer = logging.report_all(&mut [0], |run| got.push(run));
            assert!(matches!(answer, Err(Error::NotReported(Errno::NOTTY))), "{answer:?}");
            assert!(logging.ranges().iter().all(|range| got.contains(range)), "{got:?}");
        }
        let mut got = Vec::new();
        let answer = logging.report(range(0x100_0000, 1), &mut [0], |run| got.push(run));
        assert!(matches!(answer, Err(Error::NotReported(Errno::NOTTY))), "{answer:?}");
        assert_eq!(got, [range(0x100_0000, 1)]);
    }

    #[test]
    fn report_of_what_is_not_logged_is_dirty_and_spoils_nothing() {
        let mut logging = pretended(vec![range(0x4_0000, 0x8_0000)]);
        for wrong in [range(0, 1), range(0xb_ffff, 2), range(0x3_ffff, 2), range(0, u64::MAX / 2)] {
            let mut got = Vec::new();
            let answer = logging.report(wrong, &mut [0], |run| got.push(run));
            assert!(matches!(answer, Err(Error::NotLogged { .. })), "{answer:?}");
            assert_eq!((got, logging.failed), (vec![wrong], None));
        }
        let answer = logging.report(range(0x4_0000, 1), &mut [], drop);
        assert!(matches!(answer, Err(Error::Wrong(dirty::Error::NoBitmap))), "{answer:?}");
        assert_eq!(logging.failed, None);
    }
}
