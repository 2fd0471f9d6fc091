//! Who else holds a device whose file descriptor was inherited, and whether two descriptors are of one device.
//!
//! Whoever passed the descriptor holds it too: the processes that this one descends from are not counted. What others
//! hold is told by `/proc`, as far as it may be read; since Linux 6.10 each device has an inode of its own, before that
//! all devices that were opened through groups share one: a process that holds any of them is counted, and two of them
//! are taken for one.
//!
//! Deliberately absent: a lock. A process that gets the descriptor later is not seen.

use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::fstat;

/// Whether two descriptors are of one device, as far as the kernel tells them apart.
pub(super) fn are_one(device: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let identity = |fd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino, stat.st_rdev));
    identity(device).is_ok_and(|known| identity(other) == Ok(known))
}

/// The processes that hold the same device, for instance `qemu-system-x86 (pid 4711)`.
pub(super) fn of(device: BorrowedFd<'_>) -> Vec<String> {
    let (Ok(stat), Ok(processes)) = (fstat(device), fs::read_dir("/proc")) else { return Vec::new() };
    let ours = (stat.st_dev, stat.st_ino, stat.st_rdev);
    let family = ancestors(std::process::id());
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers
        .filter(|pid| !family.contains(pid) && holds(*pid, ours))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("{} (pid {pid})", name.trim_end())
        })
        .collect()
}

/// Whether a process has a descriptor of this file.
fn holds(pid: u32, file: (u64, u64, u64)) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let is_it =
        |path: &Path| fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino(), found.rdev()) == file);
    fds.flatten().any(|fd| is_it(&fd.path()))
}

/// A process and those that it descends from.
fn ancestors(pid: u32) -> Vec<u32> {
    std::iter::successors(Some(pid), |pid| parent(*pid)).collect()
}

/// The fourth field of `/proc/PID/stat`, behind a name in parentheses that may hold anything.
fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent != 0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[test]
    fn a_child_that_holds_the_same_file_is_named_and_this_process_and_its_parents_are_not() {
        // The child gets the one end that it is given, and sees the end of data.
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert_eq!(of(read.as_fd()), Vec::<String>::new());
        let mut child = Command::new("cat").stdin(Stdio::from(read.try_clone().unwrap())).spawn().unwrap();
        let sharers = of(read.as_fd());
        drop(write);
        child.wait().unwrap();
        assert_eq!(sharers.len(), 1, "{sharers:?}");
        assert!(sharers[0].contains(&format!("(pid {})", child.id())), "{sharers:?}");
    }

    #[test]
    fn descriptors_of_one_file_are_one_and_others_are_not() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let (other, _end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert!(are_one(read.as_fd(), read.try_clone().unwrap().as_fd()));
        assert!(are_one(read.as_fd(), write.as_fd()));
        assert!(!are_one(read.as_fd(), other.as_fd()));
    }

    #[test]
    fn ancestors_begin_with_the_process_and_end_with_the_first_one() {
        let family = ancestors(std::process::id());
        assert_eq!(family[0], std::process::id());
        assert_eq!(family.get(1).copied(), Some(std::os::unix::process::parent_id()));
    }
}
