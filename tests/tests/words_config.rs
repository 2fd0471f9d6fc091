//! Every text that `stream::pci_config` has for people: one row for each variant of each enum.
//!
//! Deliberately absent: core's other texts, which are in `words.rs`.

use std::error::Error as _;

use vfio_migration_core::stream::pci_config::bar::{Bar, BarKind};
use vfio_migration_core::stream::pci_config::capability::{Broken, Capability, Id};
use vfio_migration_core::stream::pci_config::identity::{Difference, Register};
use vfio_migration_core::stream::pci_config::space::{Class, Command, HeaderType, Status, Subsystem};
use vfio_migration_core::stream::pci_config::{Error, find};
use vfio_migration_tests::words::check;

const MSI: Capability = Capability { offset: 0x50, id: Id::Conventional(0x05) };
const MSIX: Capability = Capability { offset: 0x98, id: Id::Conventional(0x11) };

#[test]
fn every_error_of_a_body_says_what_was_wanted_and_what_was_there() {
    let table = [
        (Error::Short { wanted: 4124 }, "wanted 4124 bytes of a configuration, got fewer"),
        (Error::Version { got: 3 }, "wanted a configuration of version 2, got 3"),
        (
            Error::Interrupt { offset: 4104, got: 2 },
            "wanted the state of an interrupt, 0 or 1, at byte 4104 of the configuration, got 2",
        ),
        (
            Error::Unterminated { offset: 4116, got: 7 },
            "wanted END_OF_STATE or a display at byte 4116 of the configuration, got 0x0000000000000007",
        ),
        (
            Error::Display { offset: 4146, got: 2 },
            "wanted a display of version 1, got 0x02 at byte 4146 of the configuration",
        ),
        (Error::Vectors { got: 2049 }, "wanted at most 2048 vectors, got 2049"),
        (Error::Space { got: 255 }, "wanted 256 or 4096 bytes of configuration space, got 255"),
        (Error::Table { got: 17 }, "wanted an MSI-X table of 16 bytes for each vector, got 17 bytes"),
        (Error::Pending { wanted: 2, got: 1 }, "wanted 2 bytes of pending bits, got 1"),
        (Error::NoRoom { wanted: 4116, got: 64 }, "wanted room for 4116 bytes, got 64"),
    ];
    let variants = match table[0].0 {
        Error::Short { .. }
        | Error::Version { .. }
        | Error::Interrupt { .. }
        | Error::Unterminated { .. }
        | Error::Display { .. }
        | Error::Vectors { .. }
        | Error::Space { .. }
        | Error::Table { .. }
        | Error::Pending { .. }
        | Error::NoRoom { .. } => 10,
    };
    check(&table, variants);
    assert!(table.iter().all(|(error, _)| error.source().is_none()));
}

#[test]
fn every_error_of_a_search_says_where_it_failed() {
    let table = [
        (find::Error::Version { got: 3 }, "wanted a configuration of version 2, got 3"),
        (
            find::Error::Neither { conventional: 263, extended: 4116 },
            "wanted a configuration, got one that does not fit at byte 263 with 256 bytes of configuration space, \
             and at byte 4116 with 4096",
        ),
        (find::Error::Cut { offset: 300 }, "wanted a whole configuration, got its first 300 bytes"),
    ];
    let variants = match table[0].0 {
        find::Error::Version { .. } | find::Error::Neither { .. } | find::Error::Cut { .. } => 3,
    };
    check(&table, variants);
    assert!(table.iter().all(|(error, _)| error.source().is_none()));
}

#[test]
fn every_difference_names_what_the_device_has_and_what_was_saved() {
    let broken = Broken::Loop { pointer: 0x51, got: 0x40 };
    let capability = |wanted, got| Difference::Capability { wanted, got };
    let table = [
        (
            Difference::Register { register: Register::Vendor, wanted: 0x4348, got: 0x1af4 },
            "wanted the vendor 0x4348, got 0x1af4",
        ),
        (
            capability(Some(Ok(MSI)), Some(Ok(MSIX))),
            "wanted MSI at 0x50 in the list of capabilities, got MSIX at 0x98",
        ),
        (capability(Some(Ok(MSI)), None), "wanted MSI at 0x50 in the list of capabilities, got nothing"),
        (
            capability(None, Some(Err(broken))),
            "wanted nothing in the list of capabilities, got a pointer at 0x51 to 0x40",
        ),
        (
            Difference::Vectors { offset: 0x9a, wanted: 8, got: 16 },
            "wanted an MSI-X table of 8 vectors, got 16",
        ),
    ];
    let variants = match table[0].0 {
        Difference::Register { .. } | Difference::Capability { .. } | Difference::Vectors { .. } => 3,
    };
    check(&table, variants);
    assert_eq!(table.map(|(difference, _)| difference.offset()), [0, 0x98, 0x50, 0x51, 0x9a]);
    assert!(table.iter().all(|(difference, _)| difference.source().is_none()));
}

#[test]
fn every_register_has_its_name() {
    let names = ["vendor", "device", "revision", "class", "header type", "subsystem vendor", "subsystem"];
    assert_eq!(Register::ALL.map(|register| register.to_string()), names);
}

#[test]
fn a_list_that_breaks_says_where() {
    let table = [
        (Broken::Outside { pointer: 0x34, got: 0x10 }, "wanted the offset of a capability at 0x34, got 0x10"),
        (
            Broken::Loop { pointer: 0x51, got: 0x40 },
            "wanted the offset of another capability at 0x51, got 0x40 again",
        ),
    ];
    let variants = match table[0].0 {
        Broken::Outside { .. } | Broken::Loop { .. } => 2,
    };
    check(&table, variants);
    assert!(table.iter().all(|(broken, _)| broken.source().is_none()));
}

#[test]
fn every_kind_of_bar_has_its_name() {
    let bar = |kind| Bar { index: 0, kind, base: 0xfe00_0000 };
    let table = [
        (BarKind::Io, "io at 0xfe000000"),
        (BarKind::Mem32 { prefetchable: false }, "mem32 at 0xfe000000"),
        (BarKind::Mem1M { prefetchable: false }, "mem1m at 0xfe000000"),
        (BarKind::Mem64 { prefetchable: true }, "mem64 prefetchable at 0xfe000000"),
        (BarKind::Reserved { prefetchable: true }, "reserved prefetchable at 0xfe000000"),
    ];
    let variants = match table[0].0 {
        BarKind::Io
        | BarKind::Mem32 { .. }
        | BarKind::Mem1M { .. }
        | BarKind::Mem64 { .. }
        | BarKind::Reserved { .. } => 5,
    };
    check(&table.map(|(kind, text)| (kind, text.split_once(" at ").unwrap().0)), variants);
    check(&table.map(|(kind, text)| (bar(kind), text)), 1);
}

#[test]
fn what_a_device_is_is_told_in_words_and_numbers() {
    let class = |base, sub, interface| Class { base, sub, interface };
    let table = [
        (class(2, 0, 0), "network controller 020000"),
        (class(7, 0, 2), "communication controller 070002"),
        (class(0x12, 0, 0), "processing accelerator 120000"),
        (class(0x13, 0, 0), "non-essential instrumentation 130000"),
        (class(0x14, 1, 2), "unknown class 140102"),
        (class(0xff, 0, 0), "unknown class ff0000"),
    ];
    for (class, text) in table {
        assert_eq!(class.to_string(), text);
    }
    assert_eq!(Subsystem { vendor: 0x1af4, device: 1 }.to_string(), "1af4:0001");
    let headers = [HeaderType::Normal, HeaderType::Bridge, HeaderType::CardBus];
    assert_eq!(headers.map(|header| format!("[{header:>8}]")), ["[  NORMAL]", "[  BRIDGE]", "[ CARDBUS]"]);
}

/// Each bit alone, then all, by the kernel's names.
#[test]
fn every_bit_of_command_and_status_has_the_kernels_name() {
    let command = "IO MEMORY MASTER SPECIAL INVALIDATE VGA_PALETTE PARITY WAIT SERR FAST_BACK INTX_DISABLE";
    let alone: Vec<_> = (0..11).map(|bit| Command(1 << bit).to_string()).collect();
    assert_eq!(alone.join(" "), command);
    assert_eq!(Command(u16::MAX).to_string(), command);
    let status = [
        (0x0000, "none"),
        (0x0001, "IMM_READY"),
        (0x0006, "none"),
        (0x0008, "INTERRUPT"),
        (0x0010, "CAP_LIST"),
        (0x0020, "66MHZ"),
        (0x0040, "UDF"),
        (0x0080, "FAST_BACK"),
        (0x0100, "PARITY"),
        (0x0200, "DEVSEL_MEDIUM"),
        (0x0400, "DEVSEL_SLOW"),
        (0x0600, "none"),
        (0x0800, "SIG_TARGET_ABORT"),
        (0x1000, "REC_TARGET_ABORT"),
        (0x2000, "REC_MASTER_ABORT"),
        (0x4000, "SIG_SYSTEM_ERROR"),
        (0x8000, "DETECTED_PARITY"),
        (0x8310, "CAP_LIST PARITY DEVSEL_MEDIUM DETECTED_PARITY"),
    ];
    for (raw, text) in status {
        assert_eq!(Status(raw).to_string(), text, "{raw:#06x}");
    }
    assert_eq!(Command(0).to_string(), "none");
}

#[test]
fn capabilities_are_named_where_they_have_a_name() {
    let extended = |id| Capability { offset: 0x100, id: Id::Extended { id, version: 1 } };
    let table = [
        (MSI, "MSI at 0x50"),
        (Capability { offset: 0x40, id: Id::Conventional(0) }, "0x0 at 0x40"),
        (extended(0x10), "SRIOV at 0x100"),
        (extended(0xffff), "0xffff at 0x100"),
    ];
    for (capability, text) in table {
        assert_eq!(capability.to_string(), text);
    }
    assert_eq!(format!("[{:<6}]", MSIX.id), "[MSIX  ]");
}
