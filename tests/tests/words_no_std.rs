//! Every text for people that host has without std, too: one row for each variant of each enum of errors.
//!
//! Deliberately absent: what the kernel's answers are called there. Without std they are numbers.

use vfio_migration_core::session::Code;
use vfio_migration_core::stream::section;
use vfio_migration_host::{attach, file, frame};
use vfio_migration_tests::words::check;

#[test]
fn every_frame_error_says_where_and_what_was_wanted_and_got_as_the_one_of_a_file_does() {
    use frame::Error;
    let footer = section::Error::Footer { wanted: 1, got: [0x7e, 0, 0, 0, 2] };
    let table = [
        (
            Error::Ended { offset: 60, missing: 3, what: "a section's footer" },
            "the stream ended at byte 60, wanted 3 more bytes of a section's footer",
        ),
        (
            Error::Section { offset: 60, error: footer },
            "at byte 60: wanted the footer of section 1, [7e, 00, 00, 00, 01], got [7e, 00, 00, 00, 02]",
        ),
        (
            Error::NoChecksum { offset: 300 },
            "at byte 300: wanted a description of ours, got one that does not end in a checksum",
        ),
        (
            Error::Checksum { wanted: 0x0a0b_0c0d, got: *b"00000000\"}", covered: 400 },
            "the stream is damaged: wanted crc32c 0a0b0c0d of its first 400 bytes, its description has \"00000000\"",
        ),
        (
            Error::Checksum { wanted: 0x0a0b_0c0d, got: *b"0a0b0c0dxx", covered: 400 },
            "the stream is damaged: wanted crc32c 0a0b0c0d of its first 400 bytes, its description has \"0a0b0c0dxx\"",
        ),
        (
            Error::Nested { offset: 308 },
            "at byte 308: wanted a description of ours, got one that has more than 8 levels",
        ),
        (
            Error::Misplaced { offset: 308, got: b':' },
            "at byte 308: wanted a description of ours, got one that has a ':' in a wrong place",
        ),
        (
            Error::Trailing { offset: 400 },
            "at byte 400: wanted the end of the stream behind its description, got more bytes",
        ),
        (Error::Recv { offset: 60, code: Code(22) }, "the stream could not be read at byte 60: error 22"),
    ];
    let variants = match table[0].0 {
        Error::Recv { .. }
        | Error::Ended { .. }
        | Error::Section { .. }
        | Error::NoChecksum { .. }
        | Error::Checksum { .. }
        | Error::Nested { .. }
        | Error::Misplaced { .. }
        | Error::Trailing { .. } => 8,
    };
    check(&table, variants);
    for (error, text) in &table[..8] {
        assert_eq!(file::Error::from(*error).to_string(), *text);
    }
}

#[test]
fn every_attach_error_names_the_step_that_was_refused() {
    use attach::Error;
    let table = [
        (
            Error::Kernel { call: "VFIO_SET_IOMMU", errno: rustix::io::Errno::PERM },
            "the kernel refused VFIO_SET_IOMMU: Operation not permitted (os error 1)",
        ),
        (Error::ApiVersion { got: 1 }, "wanted version 0 of the kernel's VFIO group API, got 1"),
        (
            Error::NotViable,
            "the IOMMU group is not viable: bind every device of the group to a vfio driver, or to none",
        ),
    ];
    let variants = match table[0].0 {
        Error::Kernel { .. } | Error::ApiVersion { .. } | Error::NotViable => 3,
    };
    check(&table, variants);
}
