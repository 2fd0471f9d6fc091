//! Rules about saving: what a stopped device gives, and how it ends.
//!
//! Deliberately absent: pre-copy. Here the whole state comes in STOP_COPY.

use std::time::Duration;

use rustix::io::Errno;
use vfio_migration_core::device::State;

use super::data::Data;
use super::facts::{Again, LARGE};
use super::stream::{End, PIECE, read_to_end};
use super::trial::{Checked, Skip, Trial};
use super::words::{bytes, name, said};
use super::{Level, Need, Rule};

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "SAVE-01",
        level: Level::Must,
        statement: "at the end of data in STOP_COPY read() returns 0, again and again",
        source: "VFIO_MIG_GET_PRECOPY_INFO: permanent end of stream signaled by read() always returning 0",
        why: "The 0 is how a VMM knows that the state is whole. A VMM with several readers, or one that reads \
              once more to be sure, takes an error behind the end for a failed migration.",
        remedy: "Return 0 whenever the position is at the end of the data and the device is in STOP_COPY.",
        needs: &[Need::StopCopy],
        check: end_stays,
    },
    Rule {
        id: "SAVE-02",
        level: Level::Must,
        statement: "read() never answers ENOMSG in STOP_COPY",
        source: "VFIO_MIG_GET_PRECOPY_INFO: ENOMSG may not be returned in STOP_COPY",
        why: "ENOMSG says that more may come. In STOP_COPY the machine stands still: a VMM that waits then \
              waits for ever, and one that does not fails the migration.",
        remedy: "Return -ENOMSG only while the device is in PRE_COPY or PRE_COPY_P2P.",
        needs: &[Need::StopCopy],
        check: no_enomsg,
    },
    Rule {
        id: "SAVE-03",
        level: Level::Must,
        statement: "reads of any size give the same bytes",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: the migration data stream is opaque, its byte order is \
                 kept",
        why: "VMMs read with buffers from a few bytes to many megabytes, at any alignment. Bytes that are \
              lost or doubled at a border make a state that is refused at best, and wrong at worst.",
        remedy: "Copy out no more than was asked for, advance the position by what was copied, and keep the \
                 rest.",
        needs: &[Need::StopCopy, Need::State],
        check: any_size,
    },
    Rule {
        id: "SAVE-04",
        level: Level::Must,
        statement: "a second session of a stopped device gives a whole state again",
        source: "STOP -> STOP_COPY: begins the process of saving the device state",
        why: "After a migration that failed on the network, a VMM goes back to STOP and tries again. An empty \
              or cut second state makes every further try fail. Its bytes may be others, if they load.",
        remedy: "Start each session from the beginning; keep no position beyond its end.",
        needs: &[Need::StopCopy, Need::State],
        check: again,
    },
    Rule {
        id: "SAVE-05",
        level: Level::Note,
        statement: "two saves of an unchanged device are equal, byte by byte",
        source: "not in the uapi; the stream is opaque",
        why: "Nothing needs it, but equal bytes let tools compare, checksum and deduplicate states, and let \
              this program look into what a load does.",
        remedy: "Leave counters, times and addresses out of the stream, and zero what is padded.",
        needs: &[Need::StopCopy, Need::State],
        check: equal,
    },
    Rule {
        id: "SAVE-06",
        level: Level::Should,
        statement: "a read of 0 bytes returns 0 and takes nothing",
        source: "read(2)",
        why: "Generic code may read into an empty buffer at a border. An error there is reported as a failed \
              device.",
        remedy: "Return 0 for a length of 0 before anything else is looked at.",
        needs: &[Need::StopCopy, Need::State],
        check: empty_read,
    },
    Rule {
        id: "SAVE-07",
        level: Level::Must,
        statement: "at the end of data in STOP_COPY poll() says readable",
        source: "VFIO_MIG_GET_PRECOPY_INFO: permanent end of stream signaled by poll always returning \
                 readable",
        why: "A VMM that waits with poll() before each read never learns of the end, and the stopped machine \
              stands until someone cancels the migration.",
        remedy: "Return EPOLLIN | EPOLLRDNORM from poll when the state is complete, or have no poll \
                 operation.",
        needs: &[Need::StopCopy],
        check: end_is_readable,
    },
];

/// A session of the stopped device, read to its end: how many bytes came, and what ended them.
fn ended(trial: &mut Trial<'_, '_>) -> Result<(Data, u64, End), Skip> {
    let data = trial.session(State::StopCopy)?;
    let (bytes, end) = read_to_end(&data, PIECE, &mut |_| Ok(()))?;
    Ok((data, bytes, end))
}

fn end_stays(trial: &mut Trial<'_, '_>) -> Checked {
    let (data, bytes, end) = ended(trial)?;
    match end {
        End::Zero => still_at_the_end(trial, &data),
        End::Message => return Err("the end of data is ENOMSG".into()),
        End::Failed(errno) => trial.read_failed(State::StopCopy, bytes, errno)?,
        End::Never => trial.expect(false, || format!("after {bytes} bytes: wanted an end, got more")),
    }
    Ok(())
}

fn still_at_the_end(trial: &mut Trial<'_, '_>, data: &Data) {
    for nth in 2..=4 {
        let answer = data.read(&mut [0; 4096]);
        trial.expect(answer == Ok(0), || {
            format!("read number {nth} at the end of data: wanted 0 bytes, got {}", bytes(&answer))
        });
    }
}

fn no_enomsg(trial: &mut Trial<'_, '_>) -> Checked {
    let (data, _, end) = ended(trial)?;
    end.came()?;
    trial.expect(end != End::Message, || "at the end of data: wanted 0 bytes, got ENOMSG".to_owned());
    let answer = data.read(&mut [0; 4096]);
    trial.expect(answer != Err(Errno::NOMSG), || "behind the end of data: got ENOMSG".to_owned());
    Ok(())
}

fn any_size(trial: &mut Trial<'_, '_>) -> Checked {
    let (first, second) = (trial.facts.length(), again_of(trial)?.bytes);
    if second != first as u64 {
        return Err(format!("two saves of the unchanged device gave {first} and {second} bytes").into());
    }
    trial.fill()?;
    trial.lab.reach(State::Stop)?;
    let reference = trial.lab.print(PIECE)?;
    let compares_bytes = trial.facts.is_deterministic();
    let sizes = sizes(first);
    for &size in &sizes {
        let got = trial.lab.print(size)?;
        let is_same = if compares_bytes { got == reference } else { got.bytes == reference.bytes };
        trial.expect(is_same, || {
            let what = if got.bytes == reference.bytes { "other bytes" } else { "another number" };
            let (wanted, got) = (reference.bytes, got.bytes);
            format!("reads of {size} bytes: wanted the same {wanted} bytes, got {what} ({got})")
        });
    }
    let bytes = if compares_bytes { "" } else { "; lengths alone, since two saves differ" };
    trial.tried(format!("reads of {sizes:?} bytes{bytes}"));
    Ok(())
}

fn again_of<'f>(trial: &'f Trial<'_, '_>) -> Result<&'f Again, Skip> {
    trial.facts.again.as_ref().map_err(|reason| Skip(reason.clone()))
}

/// States may have other bytes each time, and be longer or shorter: what counts is whether they load.
fn again(trial: &mut Trial<'_, '_>) -> Checked {
    let first = trial.facts.length();
    let Again { bytes: second, difference } = again_of(trial)?;
    let (second, is_same) = (*second, difference.is_none());
    trial.expect(second > 0, || format!("the first session gave {first} bytes, the second none"));
    trial.tried(format!("{first} and {second} bytes"));
    if second == 0 || is_same {
        return Ok(());
    }
    if let Err(reason) = &trial.facts.resets {
        let reason = format!("the second state is another one and is not loaded: {reason}");
        trial.missed(reason);
        return Ok(());
    }
    loads_again(trial)
}

fn loads_again(trial: &mut Trial<'_, '_>) -> Checked {
    trial.fill()?;
    trial.lab.reach(State::Stop)?;
    trial.lab.print(PIECE)?;
    let second = trial.lab.hold()?;
    trial.must_load_held()?;
    let refusal = trial.load(&second, PIECE)?.refusal();
    if refusal.is_some() {
        trial.target().is_lost();
    }
    trial.expect(refusal.is_none(), || {
        format!("what the second session gave does not load: {}", refusal.unwrap_or_default())
    });
    Ok(())
}

fn equal(trial: &mut Trial<'_, '_>) -> Checked {
    let again = again_of(trial)?;
    if again.bytes == 0 {
        return Err("a second session of the stopped device is empty".into());
    }
    let difference = again.difference.clone();
    trial.expect(difference.is_none(), || difference.unwrap_or_default());
    Ok(())
}

fn empty_read(trial: &mut Trial<'_, '_>) -> Checked {
    trial.fill()?;
    trial.lab.reach(State::Stop)?;
    let opened = trial.lab.set(State::StopCopy);
    let data = match opened {
        Ok(Some(data)) => data,
        opened => return Err(format!("STOP → STOP_COPY gave no session: {}", said(&opened)).into()),
    };
    let answer = data.read(&mut []);
    trial.expect(answer == Ok(0), || format!("read of 0 bytes: wanted 0, got {}", bytes(&answer)));
    let (with, end) = read_to_end(&data, PIECE, &mut |_| Ok(()))?;
    end.came()?;
    let ended = trial.lab.set(State::Stop).map(drop);
    ended.map_err(|errno| Skip(format!("STOP_COPY → STOP is refused: {}", name(errno))))?;
    let without = trial.lab.print(PIECE)?.bytes;
    if without > 0 && trial.facts.is_deterministic() {
        trial.expect(with == without, || {
            format!("behind a read of 0 bytes: wanted {without} bytes, got {with}")
        });
    }
    Ok(())
}

fn end_is_readable(trial: &mut Trial<'_, '_>) -> Checked {
    let (data, _, end) = ended(trial)?;
    end.came()?;
    let answer = data.is_readable(Duration::from_millis(200));
    trial.expect(answer == Ok(true), || "at the end of data: wanted POLLIN, got nothing".to_owned());
    Ok(())
}

/// The sizes of reads and writes that are tried with a state of so many bytes: none that takes too many calls, of those
/// that hold it whole the smallest, and for a large state few.
pub(super) fn sizes(length: usize) -> Vec<usize> {
    let whole = SIZES.into_iter().filter(|&size| size < length).count();
    let most = SIZES.get(whole).copied().unwrap_or(usize::MAX);
    let fits = |size: &usize| *size <= most && length.div_ceil(*size) <= CALLS;
    let sizes: Vec<usize> = SIZES.into_iter().filter(fits).collect();
    let few = if length > LARGE { 3 } else { SIZES.len() };
    sizes[sizes.len().saturating_sub(few)..].to_vec()
}

const SIZES: [usize; 8] = [1, 7, 4095, 4096, 4097, 64 << 10, 1 << 20, 8 << 20];
/// One call for each byte of 64 KiB.
const CALLS: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_from_single_bytes_for_small_states_to_many_at_once() {
        assert_eq!(sizes(60), [1, 7, 4095]);
        assert_eq!(sizes(20_000), [1, 7, 4095, 4096, 4097, 64 << 10]);
        assert_eq!(sizes(64 << 10), [1, 7, 4095, 4096, 4097, 64 << 10]);
        assert_eq!(sizes((64 << 10) + 1), [7, 4095, 4096, 4097, 64 << 10, 1 << 20]);
        assert_eq!(sizes(64 << 20), [4095, 4096, 4097, 64 << 10, 1 << 20, 8 << 20]);
        for large in [66 << 20, 1 << 30] {
            assert_eq!(sizes(large), [64 << 10, 1 << 20, 8 << 20]);
        }
    }
}
