//! What every case needs: machines that are started and wired, and the program `vfio-migrate`.
//!
//! Deliberately absent: verdicts. A case says what has to come of it.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::machine::{Machine, Said};
use crate::command::output;
use crate::vm::qemu::Qemu;

/// The content's length of each device here, in bytes.
pub(crate) const SIZE: usize = 40 << 10;

/// What the cases work with.
pub(crate) struct Lab {
    qemu: Qemu,
    kernel: PathBuf,
    programs: PathBuf,
    folder: PathBuf,
    /// What contents are made from, another one in each run.
    pub(crate) seed: u64,
    /// When the time for all machines is over.
    end: Instant,
}

impl Lab {
    /// A lab in an empty folder.
    pub(crate) fn new(qemu: Qemu, kernel: PathBuf, programs: PathBuf, folder: PathBuf) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        Self { qemu, kernel, programs, folder, seed, end: Instant::now() + LIMIT }
    }

    /// Runs a machine that sends, and returns what it put on the wire.
    pub(crate) fn send(&self, name: &str, words: &str) -> Result<(Said, Vec<u8>)> {
        let (own, others) = UnixStream::pair()?;
        let machine = self.start(name, &format!("role=send seed={} {words}", self.seed), others)?;
        let reader = thread::spawn(move || {
            let mut bytes = Vec::new();
            (&own).read_to_end(&mut bytes).map(|_| bytes)
        });
        let said = machine.end(&self.folder)?;
        let bytes = reader.join().ok().context("the reader of the wire panicked")??;
        Ok((said, bytes))
    }

    /// Runs a machine that receives `bytes`, and then silence.
    pub(crate) fn receive(&self, name: &str, words: &str, bytes: &[u8]) -> Result<Said> {
        let (mut own, others) = UnixStream::pair()?;
        let mut machine = self.start(name, &self.receiver(words), others)?;
        machine.wait_for(LISTENING)?;
        // What a machine does not take any more is lost with its end.
        let (wire, bytes) = (own.try_clone()?, bytes.to_vec());
        thread::spawn(move || own.write_all(&bytes));
        let said = machine.end(&self.folder);
        drop(wire);
        said
    }

    /// Runs two machines, one of which sends to the other one.
    pub(crate) fn send_to_receiver(&self, name: &str, words: &str) -> Result<(Said, Said)> {
        let (sends, receives) = UnixStream::pair()?;
        let mut receiver = self.start(&format!("{name} receiver"), &self.receiver(words), receives)?;
        receiver.wait_for(LISTENING)?;
        // A socket whose other end is gone may be closed by a QEMU before it has read all that is in it.
        let wire = sends.try_clone()?;
        let sender = format!("role=send seed={} {words}", self.seed);
        let sender = self.start(&format!("{name} sender"), &sender, sends)?.end(&self.folder)?;
        let receiver = receiver.end(&self.folder)?;
        drop(wire);
        Ok((sender, receiver))
    }

    /// Runs `vfio-migrate` in the lab's folder, and returns what it printed.
    pub(crate) fn program(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new(self.programs.join("vfio-migrate")).args(arguments).current_dir(&self.folder))
    }

    /// The crc32c of what a simulated device with `size` bytes of content holds once `vfio-migrate`'s library has loaded
    /// a file of this folder into it.
    pub(crate) fn loaded(&self, file: &str, size: usize) -> Result<String> {
        let mut example = Command::new(self.programs.join("examples/sim_content"));
        let said = output(example.arg(file).arg(size.to_string()).current_dir(&self.folder))?;
        Ok(said.trim().to_owned())
    }

    /// Writes a file of this folder.
    pub(crate) fn write(&self, file: &str, bytes: &[u8]) -> Result<()> {
        fs::write(self.folder.join(file), bytes).with_context(|| format!("cannot write {file}"))
    }

    /// Reads a file of this folder.
    pub(crate) fn read(&self, file: &str) -> Result<Vec<u8>> {
        fs::read(self.folder.join(file)).with_context(|| format!("cannot read {file}"))
    }

    /// The seed of what a receiver's device holds before.
    pub(crate) const fn seed_before(&self) -> u64 {
        !self.seed
    }

    fn receiver(&self, words: &str) -> String {
        format!("role=receive seed={} {words}", self.seed_before())
    }

    fn start(&self, name: &str, words: &str, wire: UnixStream) -> Result<Machine> {
        let words = format!("size={SIZE} {words}");
        Machine::start(name, &self.qemu.boot_bare(&self.kernel, &words), wire, self.end)
    }
}

/// The crc32c of `size` bytes that splitmix64 makes from `seed`.
pub(crate) fn checksum(seed: u64, size: usize) -> String {
    let mut state = seed;
    let numbers = std::iter::repeat_with(|| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    });
    let content: Vec<u8> = numbers.take(size.div_ceil(8)).flat_map(u64::to_le_bytes).take(size).collect();
    format!("{:08x}", crc32c::crc32c(&content))
}

/// How long all machines together may take; each needs a second, and a few wait for two more.
const LIMIT: Duration = Duration::from_secs(600);

/// What a receiver says when it takes bytes.
const LISTENING: &str = "listening";

#[cfg(test)]
mod tests {
    use super::*;

    /// The first number from seed 0 stands in the paper's own code, e220a8397b1dcdaf.
    #[test]
    fn content_is_made_as_the_simulated_device_makes_it() {
        let number = 0xe220_a839_7b1d_cdaf_u64.to_le_bytes();
        assert_eq!(checksum(0, 8), format!("{:08x}", crc32c::crc32c(&number)));
        assert_eq!(checksum(0, 3), format!("{:08x}", crc32c::crc32c(&number[..3])));
    }
}
