//! Rules about MIG_DATA_SIZE, the driver's estimate of what STOP_COPY gives.
//!
//! Deliberately absent: what is left in pre-copy, which PRECOPY_INFO tells.

use vfio_migration_core::device::State;

use super::stream::PIECE;
use super::trial::{Checked, Skip, Trial};
use super::walk::states;
use super::words::{name, said};
use super::{Level, Need, Rule};
use crate::ioctl;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "SIZE-01",
        level: Level::Must,
        statement: "MIG_DATA_SIZE answers in every state",
        source: "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: can be called on each device state",
        why: "A VMM asks before it stops the machine, and again while it copies, to keep its promise about \
              downtime. Where it gets an error it either guesses or refuses to migrate.",
        remedy: "Answer from what is known without the hardware where the hardware can't be asked.",
        needs: &[Need::StopCopy],
        check: in_every_state,
    },
    Rule {
        id: "SIZE-02",
        level: Level::Should,
        statement: "MIG_DATA_SIZE in STOP is not far below what STOP_COPY then gives",
        source: "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: the estimated data length that will be required",
        why: "The number decides when a machine is stopped. Where it is too low, the machine stands still \
              longer than its owner allowed, with no warning. 4096 bytes and a sixteenth of the state are \
              allowed for the headers, which drivers count or do not.",
        remedy: "Count all that the hardware gives, and round up.",
        needs: &[Need::StopCopy],
        check: not_below,
    },
    Rule {
        id: "SIZE-03",
        level: Level::Note,
        statement: "MIG_DATA_SIZE is at most twice what STOP_COPY gives, and 64 KiB",
        source: "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: the estimated data length that will be required",
        why: "Where the number is far too high, a VMM never dares to stop the machine, or asks for more \
              downtime than it takes.",
        remedy: "Estimate from the device's configuration, not from the largest device that there is.",
        needs: &[Need::StopCopy],
        check: not_far_above,
    },
];

fn in_every_state(trial: &mut Trial<'_, '_>) -> Checked {
    for at in states(trial) {
        match trial.lab.reach(at) {
            Ok(_) => {
                let answer = ioctl::get_mig_data_size(trial.lab.fd());
                trial.expect(answer.is_ok(), || format!("in {at}: wanted a size, got {}", said(&answer)));
            }
            Err(reason) => trial.missed(reason),
        }
    }
    Ok(())
}

fn not_below(trial: &mut Trial<'_, '_>) -> Checked {
    let (estimate, bytes) = both(trial)?;
    let least = bytes.saturating_sub(4096 + bytes / 16);
    trial.expect(estimate >= least, || format!("the estimate is {estimate} bytes, STOP_COPY gave {bytes}"));
    trial.tried(format!("{estimate} bytes for {bytes}"));
    Ok(())
}

fn not_far_above(trial: &mut Trial<'_, '_>) -> Checked {
    let (estimate, bytes) = both(trial)?;
    let most = bytes.saturating_mul(2).saturating_add(64 << 10);
    trial.expect(estimate <= most, || format!("the estimate is {estimate} bytes, STOP_COPY gave {bytes}"));
    Ok(())
}

/// The estimate in STOP, or where that is refused in RUNNING, and what came then. In STOP_COPY some drivers tell what is
/// left.
fn both(trial: &mut Trial<'_, '_>) -> Result<(u64, u64), Skip> {
    let running = ioctl::get_mig_data_size(trial.lab.fd());
    trial.lab.reach(State::Stop)?;
    let estimate = ioctl::get_mig_data_size(trial.lab.fd()).or(running);
    let estimate = estimate.map_err(|errno| Skip(format!("MIG_DATA_SIZE answers {}", name(errno))))?;
    Ok((estimate, trial.lab.print(PIECE)?.bytes))
}
