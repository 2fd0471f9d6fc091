//! Who stands in the place of the QEMU that a QEMU sends its machine to: it takes all channels, and answers what a
//! destination answers.
//!
//! Deliberately absent: a machine. What comes is kept as it came.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::tool::{self, wait_until};

/// A destination that waits for its channels.
pub(crate) struct StandIn(JoinHandle<Result<Vec<Vec<u8>>>>);

impl StandIn {
    /// Where a QEMU's `migrate` finds it.
    pub(crate) const ADDRESS: &str = "unix:/tmp/destination";

    /// Listens for a main channel and so many others.
    pub(crate) fn listen(others: usize) -> Result<Self> {
        let path = Self::ADDRESS.trim_start_matches("unix:");
        tool::remove(path)?;
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self(thread::spawn(move || receive(&listener, others))))
    }

    /// Waits for the end of all channels and writes each to a file, `PREFIX-0` the main one; returns their paths.
    pub(crate) fn finish(self, prefix: &str) -> Result<Vec<String>> {
        let channels = self.0.join().map_err(|_| anyhow!("the destination panicked"))??;
        let mut paths = Vec::new();
        for (number, bytes) in channels.iter().enumerate() {
            let path = format!("{prefix}-{number}");
            fs::write(&path, bytes)?;
            paths.push(path);
        }
        Ok(paths)
    }
}

/// Takes all channels at once; the main one comes first.
fn receive(listener: &UnixListener, others: usize) -> Result<Vec<Vec<u8>>> {
    let streams = (0..=others).map(|_| accept(listener)).collect::<Result<Vec<_>>>()?;
    let channels: Vec<_> = streams.into_iter().map(|stream| thread::spawn(move || channel(stream))).collect();
    let channels = channels.into_iter().map(|one| one.join().map_err(|_| anyhow!("a channel panicked"))?);
    let mut channels = channels.collect::<Result<Vec<_>>>()?;
    channels.sort_by_key(|bytes| !bytes.starts_with(MAGIC));
    let mains = channels.iter().filter(|bytes| bytes.starts_with(MAGIC)).count();
    ensure!(mains == 1, "channels: wanted one that begins a stream, got {mains}");
    Ok(channels)
}

fn accept(listener: &UnixListener) -> Result<UnixStream> {
    let mut stream = None;
    wait_until("QEMU opens another channel", || match listener.accept() {
        Ok((accepted, _)) => {
            stream = Some(accepted);
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    })?;
    stream.context("it is accepted")
}

/// Reads a channel to its end. On the main one each device that has sent its initial data is acknowledged, and the
/// stream's end.
fn channel(mut stream: UnixStream) -> Result<Vec<u8>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let (mut bytes, mut looked, mut is_over) = (Vec::new(), 0, false);
    let mut piece = vec![0; 1 << 16];
    loop {
        let count = stream.read(&mut piece).context("a channel")?;
        if count == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece[..count]);
        if !bytes.starts_with(MAGIC) {
            continue;
        }
        let new = bytes[looked..].windows(INIT_DATA_SENT.len()).filter(|tag| *tag == INIT_DATA_SENT);
        for _ in 0..new.count() {
            stream.write_all(&SWITCHOVER_ACK)?;
        }
        looked = bytes.len().saturating_sub(INIT_DATA_SENT.len() - 1);
        if !is_over && ends(&bytes) {
            stream.write_all(&SHUT)?;
            is_over = true;
        }
    }
}

/// Whether a stream ends here: with an end byte and a description of just the length that is left.
fn ends(bytes: &[u8]) -> bool {
    let begin = bytes.len().saturating_sub(DESCRIPTION_MAX);
    bytes.last() == Some(&b'}')
        && bytes[begin..].windows(7).enumerate().any(|(place, head)| {
            let [0, 6, length @ .., b'{'] = head else {
                return false;
            };
            let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            begin + place + 6 + length == bytes.len()
        })
}

/// How a stream begins; the other channels begin with a magic number of their own.
const MAGIC: &[u8] = b"QEVM";
/// The record by which a device says that its initial data are sent.
const INIT_DATA_SENT: [u8; 8] = 0xffff_ffff_ef10_0005_u64.to_be_bytes();
/// The answer to it: type 7, without a body.
const SWITCHOVER_ACK: [u8; 4] = [0, 7, 0, 0];
/// The answer to a whole stream: type 1, with a status of four bytes.
const SHUT: [u8; 8] = [0, 1, 0, 4, 0, 0, 0, 0];
/// No description is longer.
const DESCRIPTION_MAX: usize = 1 << 18;
