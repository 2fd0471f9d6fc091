//! Rules about `VFIO_DEVICE_FEATURE`: which features a device says that it has.
//!
//! Deliberately absent: the features that have rules of their own, MIG_DATA_SIZE and DMA logging.

use rustix::io::Errno;
use vfio_migration_core::device::uapi;

use super::trial::{Checked, Trial};
use super::words::said;
use super::{Level, Need, Rule};
use crate::ioctl;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "FEAT-01",
        level: Level::Must,
        statement: "the migration flags have STOP_COPY",
        source: "VFIO_DEVICE_FEATURE_MIGRATION: at least VFIO_MIGRATION_STOP_COPY must be set",
        why: "A VMM takes a device without STOP_COPY for one that can't migrate, and refuses to migrate the \
              whole machine. Other flags mean nothing without it.",
        remedy: "Set VFIO_MIGRATION_STOP_COPY in migration_flags, together with P2P and PRE_COPY if the \
                 device has them.",
        needs: &[],
        check: stop_copy,
    },
    Rule {
        id: "FEAT-02",
        level: Level::Note,
        statement: "the migration flags are those that the header knows",
        source: "VFIO_DEVICE_FEATURE_MIGRATION: other combinations have behavior to be defined in the future",
        why: "VMMs ignore flags that they do not know, so a private flag has no effect today and may get a \
              meaning tomorrow that the driver does not know.",
        remedy: "Use only flags of the uapi header; a new one has to be agreed on there first.",
        needs: &[],
        check: known_flags,
    },
    Rule {
        id: "FEAT-03",
        level: Level::Must,
        statement: "a feature number that nobody has answers ENOTTY",
        source: "vfio_ioctl_device_feature(): -ENOTTY from a driver that does not know the feature",
        why: "VMMs find out by this answer what kernel and driver can do. A driver that says yes to a number \
              that it does not know will be asked for a feature of a later kernel and pretend to have done \
              it.",
        remedy: "End the switch of the device_feature operation with a default that returns -ENOTTY.",
        needs: &[],
        check: unknown_feature,
    },
    Rule {
        id: "FEAT-04",
        level: Level::Must,
        statement: "MIG_PRECOPY_INFOv2 is refused where the flags lack PRE_COPY",
        source: "VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: for drivers with VFIO_MIGRATION_PRE_COPY",
        why: "With this feature a VMM announces that it understands the flags of vfio_precopy_info. A device \
              without PRE_COPY has no such structure, and a VMM that was told yes waits for something that \
              never comes.",
        remedy: "Leave the feature to the kernel, or answer -EINVAL or -ENOTTY unless migration_flags has \
                 PRE_COPY.",
        needs: &[Need::StopCopy, Need::NoPreCopy],
        check: precopy_info_v2,
    },
];

fn stop_copy(trial: &mut Trial<'_, '_>) -> Checked {
    const STOP_COPY: u64 = 1 << 0;
    let flags = trial.lab.flags();
    trial.expect(flags & STOP_COPY != 0, || format!("wanted bit 0 in the flags, got {flags:#x}"));
    trial.tried(format!("flags {flags:#x}"));
    Ok(())
}

fn known_flags(trial: &mut Trial<'_, '_>) -> Checked {
    const KNOWN: u64 = 0x7;
    let flags = trial.lab.flags();
    trial.expect(flags & !KNOWN == 0, || format!("wanted no flags beyond {KNOWN:#x}, got {flags:#x}"));
    Ok(())
}

fn unknown_feature(trial: &mut Trial<'_, '_>) -> Checked {
    let table = [
        ("GET", uapi::FEATURE_GET),
        ("SET", uapi::FEATURE_SET),
        ("PROBE of GET", uapi::FEATURE_PROBE | uapi::FEATURE_GET),
        ("PROBE of SET", uapi::FEATURE_PROBE | uapi::FEATURE_SET),
    ];
    for (method, flags) in table {
        let answer = ioctl::unknown_feature(trial.lab.fd(), flags);
        trial.expect(answer == Err(Errno::NOTTY), || {
            format!("{method} of an unknown feature: wanted ENOTTY, got {}", said(&answer))
        });
    }
    trial.tried("GET, SET and PROBE of both");
    Ok(())
}

fn precopy_info_v2(trial: &mut Trial<'_, '_>) -> Checked {
    let fd = trial.lab.fd();
    let number = uapi::FEATURE_MIG_PRECOPY_INFO_V2;
    let probe = ioctl::probe_feature(fd, number, uapi::FEATURE_SET);
    trial.expect(probe.is_err(), || "PROBE of SET: wanted a refusal, got success".to_owned());
    let set = ioctl::set_precopy_info_v2(fd);
    trial.expect(set.is_err(), || "SET: wanted a refusal, got success".to_owned());
    trial.tried(format!("SET answered {}", said(&set)));
    Ok(())
}
