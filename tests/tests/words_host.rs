//! Every text that host has for people: one row for each variant of each enum of errors.
//!
//! Deliberately absent: what the program puts around them, and a failed transfer's place in a stream, which only a
//! transfer can make; `host/tests/program.rs` and `file.rs` have those.

use std::error::Error;
use std::io;
use std::time::Duration;

use vfio_migration_core::device::State;
use vfio_migration_core::session::precopy::Forecast;
use vfio_migration_core::session::{Cause, Code, Left, Misuse};
use vfio_migration_core::stream::pci_config::identity::{Difference, Register};
use vfio_migration_core::stream::pci_config::{self, Layout};
use vfio_migration_core::stream::{multifd, record, section};
use vfio_migration_host::device::Unsupported;
use vfio_migration_host::qemu::Unwalkable;
use vfio_migration_host::sim::{ConfigError, Errno, SIZE_MAX};
use vfio_migration_host::transfer::{self, Place, Reason};
use vfio_migration_host::{file, open, pci};
use vfio_migration_tests::words::check;

const EINVAL: Code = Code(22);

/// An error's chain is printed as `text: source: its source`, so none may say what the next one says.
fn check_sources<T: Error>(table: &[(T, &str)]) {
    for (error, text) in table {
        let source = error.source().map(ToString::to_string);
        assert!(source.is_none_or(|source| !text.contains(&source)), "{text}");
    }
}

#[test]
fn every_open_error_names_what_was_asked_for_and_who_refused() {
    use open::Error;
    let address = || "0000:3b:00.2".to_owned();
    let driver = || "mlx5_core".to_owned();
    let group = || "41".to_owned();
    let file = || "/dev/vfio/41".into();
    let table = [
        (
            Error::Name("eth0".into()),
            "wanted a PCI address, an mdev UUID, a path below /sys or /dev/vfio/devices, fd:N or sim:, got 'eth0'",
        ),
        (
            Error::Missing { path: file(), source: io::ErrorKind::NotFound.into() },
            "there is no device /dev/vfio/41",
        ),
        (
            Error::Unbound { address: address() },
            "0000:3b:00.2 is bound to no driver; bind it to its vfio driver first",
        ),
        (
            Error::NoGroup { address: address(), driver: driver() },
            "0000:3b:00.2 has no IOMMU group (driver mlx5_core): the machine's IOMMU is off, or the driver is not a \
             vfio driver",
        ),
        (
            Error::NotVfio { address: address(), driver: driver(), group: group(), path: file() },
            "the IOMMU group 41 of 0000:3b:00.2 has no /dev/vfio/41: driver mlx5_core is not a vfio driver, or the \
             kernel has no VFIO groups (try the character device)",
        ),
        (
            Error::Permission { path: file() },
            "no permission to open /dev/vfio/41: run as its owner or give yourself access",
        ),
        (Error::InUse { path: file(), holders: vec![] }, "/dev/vfio/41 is in use by another process"),
        (
            Error::InUse { path: file(), holders: vec!["qemu (pid 7)".into(), "dpdk (pid 8)".into()] },
            "/dev/vfio/41 is in use by another process: qemu (pid 7), dpdk (pid 8)",
        ),
        (
            Error::NotViable { group: group() },
            "the IOMMU group 41 is not viable: bind every device of the group to a vfio driver, or to none",
        ),
        (
            Error::Fd { number: 7, errno: Errno::BADF },
            "file descriptor 7 was not inherited: Bad file descriptor (os error 9)",
        ),
        (
            Error::NotDevice { number: 7, errno: Errno::NOTTY },
            "file descriptor 7 is not a VFIO device: Inappropriate ioctl for device (os error 25)",
        ),
        (Error::ApiVersion { got: 7 }, "wanted version 0 of the kernel's VFIO group API, got 7"),
        (
            Error::NoVfio { path: "/dev/iommu".into() },
            "the kernel has no /dev/iommu: load the module (vfio, or iommufd)",
        ),
        (
            Error::Open { path: file(), errno: Errno::MFILE },
            "/dev/vfio/41 can't be opened: Too many open files (os error 24)",
        ),
        (
            Error::Kernel { call: "VFIO_SET_IOMMU", address: address(), errno: Errno::PERM },
            "the kernel refused VFIO_SET_IOMMU on 0000:3b:00.2: Operation not permitted (os error 1)",
        ),
    ];
    let variants = match table[0].0 {
        Error::Name(_)
        | Error::Missing { .. }
        | Error::Unbound { .. }
        | Error::NoGroup { .. }
        | Error::NotVfio { .. }
        | Error::Permission { .. }
        | Error::InUse { .. }
        | Error::NotViable { .. }
        | Error::Fd { .. }
        | Error::NotDevice { .. }
        | Error::ApiVersion { .. }
        | Error::NoVfio { .. }
        | Error::Open { .. }
        | Error::Kernel { .. } => 14,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_reason_why_a_device_cannot_migrate_says_what_it_lacks() {
    let table = [
        (Unsupported::NoMigration, "the driver has no migration v2, or the kernel is older than 5.18"),
        (
            Unsupported::NotAsked(Errno::NODEV),
            "the kernel refused VFIO_DEVICE_FEATURE_MIGRATION: No such device (os error 19)",
        ),
        (Unsupported::NoStopCopy(0x6), "the driver's migration flags 0x6 lack STOP_COPY"),
        (
            Unsupported::NoState(Errno::IO),
            "the device's state can't be read (VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE: Input/output error (os error 5))",
        ),
        (Unsupported::UnknownState(9), "the device says that it is in state 9, wanted one from 0 to 7"),
    ];
    let variants = match table[0].0 {
        Unsupported::NoMigration
        | Unsupported::NotAsked(_)
        | Unsupported::NoStopCopy(_)
        | Unsupported::NoState(_)
        | Unsupported::UnknownState(_) => 5,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_file_error_says_where_and_what_was_wanted_and_got() {
    use file::Error;
    let footer = section::Error::Footer { wanted: 1, got: [0x7e, 0, 0, 0, 2] };
    let tag = record::Error::UnknownTag { offset: 24, got: 7 };
    let table = [
        (
            Error::Recv { offset: 60, code: EINVAL },
            "the stream could not be read at byte 60: Invalid argument",
        ),
        (
            Error::Ended { offset: 60, missing: 3, what: "a section's footer" },
            "the stream ended at byte 60, wanted 3 more bytes of a section's footer",
        ),
        (
            Error::Section { offset: 60, error: footer },
            "at byte 60: wanted the footer of section 1, [7e, 00, 00, 00, 01], got [7e, 00, 00, 00, 02]",
        ),
        (
            Error::Record { payload: 60, error: tag },
            "at byte 84: wanted a record's tag at byte 24 of the payload, got 0x0000000000000007",
        ),
        (
            Error::Unexpected { offset: 8, wanted: "a configuration", got: "the end of the stream".into() },
            "at byte 8: wanted a configuration, got the end of the stream",
        ),
        (
            Error::Channel { offset: 64, error: multifd::Error::Version { got: 2 } },
            "at byte 64: wanted version 1 of a multifd channel, got 2",
        ),
        (
            Error::Channels { wanted: "each piece of the state of 'x'".into(), got: "no number 1".into() },
            "wanted each piece of the state of 'x' on the channels, got no number 1",
        ),
        (
            Error::Config { offset: 60, error: pci_config::find::Error::Version { got: 7 } },
            "at byte 60: wanted a configuration of version 2, got 7",
        ),
        (
            Error::Unwalkable { offset: 900, reason: Unwalkable::Config },
            "at byte 900: how long the CONFIG record is only its device knows: two lengths fit",
        ),
        (
            Error::Checksum { wanted: 0x0a0b_0c0d, got: "00000000\"}".into(), covered: 400 },
            "the stream is damaged: wanted crc32c 0a0b0c0d of its first 400 bytes, its description has \"00000000\"",
        ),
        (
            Error::Description { offset: 300, reason: "has no key vfio-migration".into() },
            "at byte 300: wanted a description of ours, got one that has no key vfio-migration",
        ),
        (
            Error::NewerFormat { got: 2 },
            "the description has format 2, wanted at most 1: a newer program wrote this file",
        ),
        (
            Error::Mismatch { wanted: "125 bytes of data".into(), got: "124 bytes of data".into() },
            "wanted 125 bytes of data by the description, got 124 bytes of data in the sections before it",
        ),
        (
            Error::Body { offset: 300, error: pci_config::Error::Version { got: 3 } },
            "at byte 300: wanted a configuration of version 2, got 3",
        ),
        (
            Error::Trailing { offset: 400 },
            "at byte 400: wanted the end of the stream behind its description, got more bytes",
        ),
    ];
    let variants = match table[0].0 {
        Error::Recv { .. }
        | Error::Ended { .. }
        | Error::Section { .. }
        | Error::Record { .. }
        | Error::Body { .. }
        | Error::Unexpected { .. }
        | Error::Channel { .. }
        | Error::Channels { .. }
        | Error::Config { .. }
        | Error::Unwalkable { .. }
        | Error::Checksum { .. }
        | Error::Description { .. }
        | Error::NewerFormat { .. }
        | Error::Mismatch { .. }
        | Error::Trailing { .. } => 15,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_reason_why_a_stream_can_not_be_read_further_says_what_would_help_or_what_is_missing() {
    let section = || "FULL of section 3 'timer', instance 0,".to_owned();
    let table = [
        (
            Unwalkable::Pipe { section: section() },
            "how long FULL of section 3 'timer', instance 0, is stands in the description, the last thing in the stream: \
             from a pipe it can't be read any further, from a file it can",
        ),
        (
            Unwalkable::NoDescription { section: section() },
            "how long FULL of section 3 'timer', instance 0, is stands in a description, and none is at the end of the \
             file",
        ),
        (
            Unwalkable::NotDescribed { section: section() },
            "how long FULL of section 3 'timer', instance 0, is stands in no entry of the description at the end of the \
             file",
        ),
        (
            Unwalkable::Live { section: "START of section 5 'slirp', instance 0,".into() },
            "how long START of section 5 'slirp', instance 0, is can't be told: it is no VFIO device, and not described",
        ),
        (Unwalkable::Config, "how long the CONFIG record is only its device knows: two lengths fit"),
        (
            Unwalkable::MappedRam,
            "the capability mapped-ram is on: memory lies at fixed places of the file, and QEMU itself can't load a VFIO \
             device from such a file; migrate without mapped-ram",
        ),
        (Unwalkable::Rdma, "memory was moved by RDMA, past the stream"),
        (Unwalkable::Packaged, "post-copy begins, which VFIO devices don't have"),
        (
            Unwalkable::Subsection { name: "configuration/new".into() },
            "how long the subsection 'configuration/new' of the configuration is can't be told",
        ),
    ];
    let variants = match table[0].0 {
        Unwalkable::Pipe { .. }
        | Unwalkable::NoDescription { .. }
        | Unwalkable::NotDescribed { .. }
        | Unwalkable::Live { .. }
        | Unwalkable::Config
        | Unwalkable::MappedRam
        | Unwalkable::Rdma
        | Unwalkable::Packaged
        | Unwalkable::Subsection { .. } => 9,
    };
    check(&table, variants);
}

#[test]
fn every_reason_of_a_failed_transfer_says_what_went_wrong_first() {
    let place = Place::default;
    let refused = Cause::Refused { state: State::StopCopy, code: EINVAL };
    let forecast = Forecast {
        bytes: 3_000_000,
        left: 1000,
        rate: 1_000_000,
        dirty_rate: 0,
        stop: Some(Duration::from_secs(3)),
        downtime: Duration::from_millis(300),
    };
    let table = [
        (Reason::Session { place: place(), cause: Cause::Cancelled }, "cancelled"),
        (
            Reason::Session { place: place(), cause: refused },
            "the device refused STOP_COPY: error 22 (Invalid argument)",
        ),
        (
            Reason::Stream(file::Error::NewerFormat { got: 2 }),
            "the description has format 2, wanted at most 1: a newer program wrote this file",
        ),
        (
            Reason::Write { offset: 60, code: Code(28) },
            "the stream could not be written at byte 60: No space left on device",
        ),
        (
            Reason::OtherDriver { wanted: "mlx5_vfio_pci".into(), got: "si\u{1b}m".into() },
            "the stream is of a device of driver 'si\\u{1b}m', wanted 'mlx5_vfio_pci'; the driver of a file \
             descriptor is said with fd:N,driver=NAME",
        ),
        (
            Reason::Keep(io::Error::from_raw_os_error(28)),
            "the stream could not be kept: No space left on device (os error 28)",
        ),
        (
            Reason::NotReset { state: State::StopCopy, code: EINVAL },
            "the device was left in STOP_COPY and refused its reset: Invalid argument",
        ),
        (Reason::FewerDevices { wanted: 3, got: 2 }, "wanted the state of 3 devices in the stream, got 2"),
        (
            Reason::MoreDevices { wanted: 1, name: "sim@1/vfio".into() },
            "wanted the state of 1 devices in the stream, got one more, 'sim@1/vfio'",
        ),
        (
            Reason::NotTogether("wanted a name for each device, got 'x' twice".into()),
            "wanted a name for each device, got 'x' twice",
        ),
        (
            Reason::WillNotConverge(forecast),
            "pre-copy will not converge: a stop would move 3000000 bytes, 1000 of which can be copied before it, at \
             1000000 bytes/s in 3000 ms; allowed are 300 ms; allow a longer downtime, or save without pre-copy",
        ),
        (
            Reason::NotAcknowledged { sent: 2, loaded: 1 },
            "pre-copy could stop, but of 2 times that initial data were sent, 1 were loaded; a driver whose initial bytes \
             never end has to be saved without pre-copy",
        ),
        (
            Reason::NoLink(io::Error::from_raw_os_error(24)),
            "there is no pair of sockets: Too many open files (os error 24)",
        ),
        (
            Reason::Config { place: place(), refused: pci::Refused::Kernel("read", EINVAL).into() },
            "the device's configuration space can't be read: Invalid argument",
        ),
        (Reason::Interrupted, "interrupted"),
        (Reason::Misuse(Misuse::SmallBuffer { got: 63 }), "wanted a buffer of at least 64 bytes, got 63"),
    ];
    let variants = match table[0].0 {
        Reason::Session { .. }
        | Reason::Stream(_)
        | Reason::Write { .. }
        | Reason::OtherDriver { .. }
        | Reason::Keep(_)
        | Reason::NotReset { .. }
        | Reason::FewerDevices { .. }
        | Reason::MoreDevices { .. }
        | Reason::NotTogether(_)
        | Reason::WillNotConverge(_)
        | Reason::NotAcknowledged { .. }
        | Reason::NoLink(_)
        | Reason::Config { .. }
        | Reason::Interrupted
        | Reason::Misuse(_) => 15,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_refusal_of_a_configuration_says_what_was_wanted_and_what_was_there() {
    let register = Register::Vendor;
    let table = [
        (
            pci::Refused::NoFunction,
            "the stream has the configuration of a PCI function, and this device is none",
        ),
        (
            pci::Refused::Body {
                error: pci_config::Error::Version { got: 3 },
                layout: Layout::new(256, 4).unwrap(),
            },
            "wanted a configuration of version 2, got 3; this device has 256 bytes of configuration space and 4 MSI-X \
             vectors",
        ),
        (
            pci::Refused::Ended { missing: 9 },
            "the stream ended within the configuration, wanted 9 more bytes",
        ),
        (
            pci::Refused::Differs(Difference::Register { register, wanted: 0x15b3, got: 0x1af4 }),
            "the configuration is not of such a function: wanted the vendor 0x15b3, got 0x1af4",
        ),
        (
            pci::Refused::Kernel("written", EINVAL),
            "the device's configuration space can't be written: Invalid argument",
        ),
    ];
    let variants = match table[0].0 {
        pci::Refused::NoFunction
        | pci::Refused::Body { .. }
        | pci::Refused::Ended { .. }
        | pci::Refused::Differs(_)
        | pci::Refused::Kernel(..) => 5,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn a_failed_transfer_says_why_where_the_device_is_and_whether_the_stream_holds_its_state() {
    let failed = |left, stream_is_whole| transfer::Error {
        reason: Reason::Stream(file::Error::Trailing { offset: 9 }),
        at: None,
        devices: vec![("sim@1/vfio".into(), left)],
        stream_is_whole,
        handed_over: false,
    };
    let of_several = transfer::Error {
        at: Some(1),
        devices: vec![("sim@1/vfio".into(), Left::Reset), ("sim@2/vfio".into(), Left::At(State::Stop))],
        ..failed(Left::Reset, false)
    };
    let table = [
        (
            failed(Left::At(State::Running), false),
            "at byte 9: wanted the end of the stream behind its description, got more bytes; the device is in \
             RUNNING",
        ),
        (
            failed(Left::Unknown, true),
            "at byte 9: wanted the end of the stream behind its description, got more bytes; the device refused \
             its reset, its state is unknown; the stream is whole and can be loaded",
        ),
        (
            of_several,
            "'sim@2/vfio': at byte 9: wanted the end of the stream behind its description, got more bytes; \
             'sim@1/vfio': the device was reset to RUNNING, its former content is gone; 'sim@2/vfio': the device is \
             in STOP",
        ),
    ];
    check(&table, 1);
    check_sources(&table);
}

#[test]
fn every_config_error_says_what_was_wanted_and_what_was_there() {
    let too_big = format!("size: wanted at most {SIZE_MAX} bytes, got 5368709120");
    let table = [
        (
            ConfigError::WrongPart { got: "sise=3".into() },
            "wanted size=, seed=, flags=, initial=, dirty=, dirty-for=, increment=, reinit=, v2=, drained=, info=, \
             data-size=, pci=, short=, slow= or slow-set=, each once, or fail= or guest-reset=, got \"sise=3\"",
        ),
        (
            ConfigError::WrongValue { key: "flags", wanted: "1, 3, 5 or 7", got: "2".into() },
            "flags: wanted 1, 3, 5 or 7, got \"2\"",
        ),
        (ConfigError::TooBig { got: 5 << 30 }, &too_big),
    ];
    let variants = match table[0].0 {
        ConfigError::WrongPart { .. } | ConfigError::WrongValue { .. } | ConfigError::TooBig { .. } => 3,
    };
    check(&table, variants);
    check_sources(&table);
}
