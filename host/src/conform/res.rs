//! Rules about loading: what a device takes, what it refuses, and what a refusal leaves.
//!
//! Each load goes into the partner, or into the device itself after a reset. What was taken although it is wrong is
//! never let run: a reset ends it, or the device stays stopped. RES-11 alone asks for RUNNING with half a state, which
//! must be refused.
//!
//! Deliberately absent: damage that only the driver's author can make, with checksums that fit.

use vfio_migration_core::device::State;
use vfio_migration_core::device::arc::path;

use super::save::sizes;
use super::stream::{Loaded, PIECE, write_all};
use super::trial::{Checked, Skip, Trial};
use super::words::{bytes, said, state};
use super::{Level, Need, Rule};

const NEEDS: &[Need] = &[Need::StopCopy, Need::Reset, Need::State];

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "RES-01",
        level: Level::Must,
        statement: "data that are cut are refused",
        source: "RESUMING -> STOP: if found to be incomplete, the migration driver must fail the SET_STATE \
                 ioctl",
        why: "A connection breaks, a disk is full. Where half a state is taken, the guest's device runs with \
              the other half from somewhere else, and nobody is told. What is seen names the place of the cut: \
              a beginning that is a state of its own is taken too, as the first bytes of hisi_acc's are, \
              which say that its device was not ready.",
        remedy: "Know the state's length or its end, and return an error from RESUMING → STOP until all of it \
                 has come.",
        needs: NEEDS,
        check: cut,
    },
    Rule {
        id: "RES-02",
        level: Level::Must,
        statement: "no data at all are refused, where a save gives some",
        source: "RESUMING -> STOP: if found to be incomplete, the migration driver must fail the SET_STATE \
                 ioctl",
        why: "A VMM whose source failed before its first byte asks for STOP all the same. Where that \
              succeeds, the guest goes on with an empty device.",
        remedy: "Treat a session without data as one that is cut.",
        needs: NEEDS,
        check: nothing,
    },
    Rule {
        id: "RES-03",
        level: Level::Should,
        statement: "after a refused write RESUMING → STOP is refused too",
        source: "RESUMING -> STOP: final validity checking; inconsistent or otherwise invalid data must fail",
        why: "What was written before the refusal is not a state. A VMM that does not look at each write, or \
              whose writer is another thread, learns of it only here; where STOP succeeds it runs half a \
              state.",
        remedy: "Remember the error in the session, and return it from RESUMING → STOP.",
        needs: NEEDS,
        check: refused_write,
    },
    Rule {
        id: "RES-04",
        level: Level::Should,
        statement: "data with a damaged head are refused",
        source: "RESUMING -> STOP: if found to be inconsistent or otherwise invalid, must fail the SET_STATE \
                 ioctl",
        why: "The head says what kind of state it is, and of which version. A driver that does not look loads \
              the state of another device, or of another firmware, into this one.",
        remedy: "Begin the stream with a magic number and a version, and check both before anything is used.",
        needs: NEEDS,
        check: damaged_head,
    },
    Rule {
        id: "RES-05",
        level: Level::Note,
        statement: "damage anywhere is noticed",
        source: "RESUMING -> STOP: perform final validity and consistency checking of the new device state",
        why: "A VMM's own checksums cover the wire, not the memory of both hosts. A driver that has a \
              checksum notices the rest, and damage never reaches a guest.",
        remedy: "Put a checksum of the whole state behind it, and compare it at RESUMING → STOP.",
        needs: NEEDS,
        check: damage,
    },
    Rule {
        id: "RES-06",
        level: Level::Should,
        statement: "a byte too many is refused",
        source: "RESUMING -> STOP: if found to be inconsistent or otherwise invalid, must fail the SET_STATE \
                 ioctl",
        why: "More data than a state has is the state of another device, or two states in one stream. A \
              driver that takes them has overrun its buffer, or ignored what it was told.",
        remedy: "Refuse what comes behind the end, in write() or in RESUMING → STOP.",
        needs: NEEDS,
        check: too_many,
    },
    Rule {
        id: "RES-07",
        level: Level::Must,
        statement: "writes of any size load the same state",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: the user is not required to preserve buffer \
                 segmentation",
        why: "The pieces that arrive are the network's, not the source's. A driver that needs its header in \
              one piece works in the laboratory and fails behind a slow link.",
        remedy: "Collect what was written until a unit is whole, and keep the rest for the next write.",
        needs: NEEDS,
        check: any_size,
    },
    Rule {
        id: "RES-08",
        level: Level::Should,
        statement: "save, load, save gives equal bytes (where two saves of an unchanged device are equal)",
        source: "not in the uapi, whose stream is opaque; RESUMING -> STOP: complete the incorporation of data",
        why: "This is what a migration is for. A byte that is another one after a load may be a guest that \
              goes on with another device than it had, or a number that only the stream has: the driver's \
              author has to tell them apart.",
        remedy: "Restore every field that is saved, and save every field that is restored.",
        needs: NEEDS,
        check: copied,
    },
    Rule {
        id: "RES-09",
        level: Level::Must,
        statement: "after a refused load and a reset the next load works",
        source: "RESUMING -> STOP: to abort a RESUMING session the device must be reset",
        why: "A migration that failed is tried again. Where something of the refused load stays, the host can \
              take no machine with this device until it is closed.",
        remedy: "Free everything of the session in the reset handler.",
        needs: NEEDS,
        check: after_a_refusal,
    },
    Rule {
        id: "RES-10",
        level: Level::Should,
        statement: "a write of 0 bytes returns 0 and changes nothing",
        source: "write(2)",
        why: "Generic code may write an empty buffer at a border. An error there ends a migration that was \
              fine.",
        remedy: "Return 0 for a length of 0 before anything else is looked at.",
        needs: NEEDS,
        check: empty_write,
    },
    Rule {
        id: "RES-11",
        level: Level::Must,
        statement: "a refused SET from RESUMING leaves RESUMING, a state on the way, or ERROR",
        source: "VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: may be the original state or some other along the path",
        why: "A VMM that was refused asks for nothing but a reset. A device that runs by then runs with half \
              a state, and does DMA with it.",
        remedy: "Leave the state as it was when a step fails, or go to ERROR.",
        needs: NEEDS,
        check: where_refused,
    },
];

/// Loads something that is wrong. The device never runs with it.
fn load_wrong(trial: &mut Trial<'_, '_>, parts: &[&[u8]]) -> Result<Loaded, Skip> {
    trial.go_on()?;
    let target = trial.target();
    target.home()?;
    let loaded = target.load(parts, PIECE);
    target.holds_wrong();
    if let Loaded::NotBegun(reason) = loaded {
        return Err(Skip(reason));
    }
    Ok(loaded)
}

/// Loads something that is wrong; if it is taken, that is a finding.
fn must_refuse(trial: &mut Trial<'_, '_>, what: &str, parts: &[&[u8]]) -> Result<Loaded, Skip> {
    let loaded = load_wrong(trial, parts)?;
    trial.expect(loaded != Loaded::Taken, || format!("{what}: wanted a refusal, got success"));
    Ok(loaded)
}

fn cut(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let places = cuts(held.len());
    for &place in &places {
        let what = format!("cut behind {place} of {} bytes", held.len());
        must_refuse(trial, &what, &[&held[..place]])?;
    }
    trial.tried(format!("cut at {}", places_in_words(&places, held.len())));
    if places.is_empty() { Err("a state of one byte can't be cut".into()) } else { Ok(()) }
}

fn nothing(trial: &mut Trial<'_, '_>) -> Checked {
    must_refuse(trial, "no data", &[]).map(drop)
}

fn refused_write(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let head = inverted(&held[..held.len().min(HEAD)]);
    let target = trial.target();
    target.home()?;
    let loaded = target.load(&[&head, &held[head.len()..]], PIECE);
    let Loaded::NotWritten(at, answer) = loaded else {
        target.holds_wrong();
        return Err("no write is refused, not even with a damaged head".into());
    };
    let stop = target.set(State::Stop);
    target.holds_wrong();
    trial.expect(stop.is_err(), || {
        let answer = bytes(&answer);
        format!("after {at} bytes write() answered {answer}: wanted STOP to be refused, got success")
    });
    trial.tried(format!("write() answered {}, STOP {}", bytes(&answer), said(&stop)));
    Ok(())
}

fn damaged_head(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let head = inverted(&held[..held.len().min(HEAD)]);
    let what = format!("the first {} bytes inverted", head.len());
    let loaded = must_refuse(trial, &what, &[&head, &held[head.len()..]])?;
    trial.tried(loaded.refusal().unwrap_or_default());
    Ok(())
}

fn damage(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let most = if trial.facts.is_large() { 3 } else { 16 };
    let places = damages(held.len(), most);
    let mut taken = Vec::new();
    for &place in &places {
        let other = inverted(&held[place..=place]);
        if load_wrong(trial, &[&held[..place], &other, &held[place + 1..]])? == Loaded::Taken {
            taken.push(place);
        }
    }
    if places.is_empty() {
        return Err("there is nothing behind the head".into());
    }
    trial.expect(taken.is_empty(), || {
        let (first, length) = (taken.first().copied().unwrap_or_default(), held.len());
        let (taken, tried) = (taken.len(), places.len());
        format!("an inverted byte is taken at {taken} of {tried} places, first at byte {first} of {length}")
    });
    trial.tried(format!("{} places, one after the other", places.len()));
    Ok(())
}

fn too_many(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let loaded = must_refuse(trial, "one byte too many", &[&held, &[0]])?;
    trial.tried(loaded.refusal().unwrap_or_default());
    Ok(())
}

fn any_size(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let compares_bytes = trial.copies()?;
    let sizes = sizes(held.len());
    for &size in &sizes {
        trial.blank_target()?;
        let loaded = trial.load_held(size)?;
        let refusal = loaded.refusal();
        let is_taken = refusal.is_none();
        trial.expect(is_taken, || format!("writes of {size} bytes: {}", refusal.unwrap_or_default()));
        if is_taken && compares_bytes {
            let difference = trial.target().compare(&held)?.difference();
            trial.expect(difference.is_none(), || {
                format!("after writes of {size} bytes: {}", difference.unwrap_or_default())
            });
        }
        if !is_taken {
            trial.target().is_lost();
        }
    }
    let what = if compares_bytes { "" } else { "; whether they are taken alone, since copies differ" };
    trial.tried(format!("writes of {sizes:?} bytes{what}"));
    Ok(())
}

fn copied(trial: &mut Trial<'_, '_>) -> Checked {
    if !trial.facts.is_deterministic() {
        return Err("two saves of the unchanged device differ".into());
    }
    let difference = trial.copy()?;
    trial.expect(difference.is_none(), || difference.unwrap_or_default());
    trial.tried(if trial.has_partner() {
        "into the partner"
    } else {
        "into the device itself after a reset, which a reset that keeps the state would hide"
    });
    Ok(())
}

fn after_a_refusal(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let half = held.len() / 2;
    let head = inverted(&held[..held.len().min(HEAD)]);
    let wrong: [(&str, &[&[u8]]); 2] =
        [("a cut one", &[&held[..half]]), ("a damaged one", &[&head, &held[head.len()..]])];
    trial.must_load_held()?;
    for (what, parts) in wrong {
        if load_wrong(trial, parts)? == Loaded::Taken {
            trial.missed(format!("{what} is not refused"));
            continue;
        }
        let target = trial.target();
        target.home()?;
        let next = target.load(&[&held], PIECE).refusal();
        if next.is_some() {
            target.is_lost();
        }
        trial.expect(next.is_none(), || format!("after {what} and a reset: {}", next.unwrap_or_default()));
    }
    Ok(())
}

fn empty_write(trial: &mut Trial<'_, '_>) -> Checked {
    trial.must_load_held()?;
    let held = trial.held()?;
    let (first, second) = held.split_at(held.len() / 2);
    let target = trial.target();
    let data = target.reach(State::Resuming)?.ok_or("no data fd came with RESUMING")?;
    let answers = [first, second].map(|part| {
        let answer = data.write(&[]);
        (answer, write_all(&data, &[part], PIECE))
    });
    let stop = target.set(State::Stop);
    if stop.is_err() {
        target.is_lost();
    }
    for (answer, _) in &answers {
        trial.expect(*answer == Ok(0), || format!("wanted 0, got {}", bytes(answer)));
    }
    let is_loaded = answers.iter().all(|(_, written)| written.is_ok()) && stop.is_ok();
    // A driver that does not take the state in two pieces has a rule for that.
    let two_pieces = is_loaded || loads_in_two_pieces(trial)?;
    trial.expect(is_loaded || !two_pieces, || {
        format!("with empty writes in between the load is refused: STOP answered {}", said(&stop))
    });
    Ok(())
}

fn loads_in_two_pieces(trial: &mut Trial<'_, '_>) -> Result<bool, Skip> {
    let held = trial.held()?;
    let half = held.len().div_ceil(2);
    let target = trial.target();
    target.home()?;
    let loaded = target.load(&[&held], half) == Loaded::Taken;
    if !loaded {
        target.is_lost();
    }
    Ok(loaded)
}

fn where_refused(trial: &mut Trial<'_, '_>) -> Checked {
    let held = trial.held()?;
    let features = trial.features();
    for to in [State::Stop, State::Running] {
        trial.go_on()?;
        let target = trial.target();
        let data = target.reach(State::Resuming)?.ok_or("no data fd came with RESUMING")?;
        if let Err((_, answer)) = write_all(&data, &[&held[..held.len() / 2]], PIECE) {
            target.holds_wrong();
            return Err(format!("half a state is refused by write(): {}", bytes(&answer)).into());
        }
        let answer = target.set(to);
        let after = target.get();
        target.holds_wrong();
        if answer.is_ok() {
            trial.missed(format!("half a state is taken by RESUMING → {to}"));
            continue;
        }
        let Some(now) = after.ok().and_then(State::from_raw) else {
            trial.missed(format!("GET answered {}", state(&after)));
            continue;
        };
        let way = path(features, State::Resuming, to).unwrap_or_default();
        let is_on_its_way = now != to && way.contains(&now);
        trial.expect(is_on_its_way || [State::Resuming, State::Error].contains(&now), || {
            format!("RESUMING → {to} is refused, and the device is in {now}")
        });
    }
    Ok(())
}

fn inverted(part: &[u8]) -> Vec<u8> {
    part.iter().map(|byte| !byte).collect()
}

/// Where a state of so many bytes is cut: everywhere, or at its ends, its head and its middle.
fn cuts(length: usize) -> Vec<usize> {
    if length <= SMALL {
        return (1..length).collect();
    }
    vec![1, HEAD, length / 2, length - 1]
}

/// Where a state of so many bytes is damaged behind its head: everywhere, or at so many places.
fn damages(length: usize, most: usize) -> Vec<usize> {
    if length <= SMALL {
        return (HEAD..length).collect();
    }
    (0..most).map(|nth| BEHIND + nth * (length - 1 - BEHIND) / (most - 1)).collect()
}

fn places_in_words(places: &[usize], length: usize) -> String {
    if length <= SMALL {
        return format!("every byte of {length}");
    }
    let places: Vec<_> = places.iter().map(ToString::to_string).collect();
    format!("{} of {length} bytes", places.join(", "))
}

/// What every state's head has: a magic number, and mostly a version.
const HEAD: usize = 16;
/// Where no large state has its head any more.
const BEHIND: usize = 64;
/// A state of no more bytes is cut and damaged everywhere.
const SMALL: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_state_is_cut_and_damaged_everywhere_and_a_large_one_from_end_to_end() {
        assert_eq!(cuts(4), [1, 2, 3]);
        assert_eq!(cuts(1), [0; 0]);
        assert_eq!(cuts(20_000), [1, 16, 10_000, 19_999]);
        assert_eq!(damages(20, 16), [16, 17, 18, 19]);
        assert_eq!(damages(10, 16), [0; 0]);
        let places = damages(20_000, 16);
        assert_eq!((places.len(), places[0], places[15]), (16, 64, 19_999));
        assert_eq!(damages(1 << 30, 3), [64, 64 + ((1 << 30) - 65) / 2, (1 << 30) - 1]);
    }
}
