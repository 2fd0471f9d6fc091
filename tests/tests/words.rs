//! Every text that core has for people: one row for each variant of each enum.
//!
//! Deliberately absent: the texts of events, which stand beside them in core, those of a CONFIG record, in
//! `words_config.rs`, and host's, in `words_host.rs`.

use std::error::Error;
use std::time::Duration;

use vfio_migration_core::device::{Features, State, dirty};
use vfio_migration_core::session::fleet::{Fleet, Joining, Refused};
use vfio_migration_core::session::precopy::{Advice, PrecopyInfo, Remaining, advise};
use vfio_migration_core::session::{BUFFER_MIN, Cause, Code, Failure, Left, Misuse};
use vfio_migration_core::stream::record::{self, Tag};
use vfio_migration_core::stream::{multifd, return_path, section};
use vfio_migration_tests::words::check;

const CODE: Code = Code(22);

/// An error that prints its cause itself must not also name it as its source.
fn check_sources<T: Error>(table: &[(T, &str)]) {
    for (error, text) in table {
        assert!(error.source().is_none(), "{text}");
    }
}

#[test]
fn every_misuse_says_what_was_wanted() {
    let table = [
        (Misuse::WrongOrder, "the order is not possible now"),
        (Misuse::WrongDone, "what was reported was not asked for"),
        (Misuse::TooMany { offered: 16, got: 17 }, "17 bytes were reported, 16 were offered"),
        (Misuse::SmallBuffer { got: 63 }, "wanted a buffer of at least 64 bytes, got 63"),
        (Misuse::NoState(State::PreCopyP2p), "wanted a device that has PRE_COPY_P2P"),
        (Misuse::WrongState(State::PreCopyP2p), "wanted a device in RUNNING or STOP, got PRE_COPY_P2P"),
    ];
    let variants = match table[0].0 {
        Misuse::WrongOrder
        | Misuse::WrongDone
        | Misuse::TooMany { .. }
        | Misuse::SmallBuffer { .. }
        | Misuse::NoState(_)
        | Misuse::WrongState(_) => 6,
    };
    check(&table, variants);
    check_sources(&table);
    assert_eq!(BUFFER_MIN, 64);
}

#[test]
fn every_cause_says_what_went_wrong_and_where() {
    let unknown = record::Error::UnknownTag { offset: 8, got: 7 };
    let table = [
        (Cause::Cancelled, "cancelled"),
        (Cause::Refused { state: State::StopCopy, code: CODE }, "the device refused STOP_COPY: error 22"),
        (Cause::PrecopyInfo(CODE), "the device refused PRECOPY_INFO: error 22"),
        (Cause::ReadData(CODE), "the device's data could not be read: error 22"),
        (Cause::DrainedInStopCopy, "the device answered ENOMSG in STOP_COPY, wanted data or the end"),
        (Cause::Send(CODE), "the link refused bytes: error 22"),
        (Cause::SendClosed, "the link took no byte, its other end is gone"),
        (Cause::SendConfig(CODE), "the configuration could not be sent: error 22"),
        (Cause::Recv { offset: 9, code: CODE }, "the link failed at byte 9 of the payload: error 22"),
        (
            Cause::RecvClosed { offset: 9, missing: 3 },
            "the stream ended at byte 9 of the payload, wanted 3 more bytes of a record",
        ),
        (
            Cause::WriteData { offset: 16, code: CODE },
            "the device refused the data at byte 16 of the payload: error 22",
        ),
        (
            Cause::WriteDataZero { offset: 16 },
            "the device took nothing of the data at byte 16 of the payload",
        ),
        (
            Cause::RecvConfig { offset: 8, code: CODE },
            "the configuration at byte 8 of the payload was refused: error 22",
        ),
        (Cause::Record(unknown), "wanted a record's tag at byte 8 of the payload, got 0x0000000000000007"),
        (
            Cause::Unexpected { tag: Tag::InitDataSent, offset: 8 },
            "wanted a record that was agreed on at byte 8 of the payload, got INIT_DATA_SENT",
        ),
    ];
    let variants = match table[0].0 {
        Cause::Cancelled
        | Cause::Refused { .. }
        | Cause::PrecopyInfo(_)
        | Cause::ReadData(_)
        | Cause::DrainedInStopCopy
        | Cause::Send(_)
        | Cause::SendClosed
        | Cause::SendConfig(_)
        | Cause::Recv { .. }
        | Cause::RecvClosed { .. }
        | Cause::WriteData { .. }
        | Cause::WriteDataZero { .. }
        | Cause::RecvConfig { .. }
        | Cause::Record(_)
        | Cause::Unexpected { .. } => 15,
    };
    check(&table, variants);
}

#[test]
fn every_place_that_a_failure_leaves_a_device_in_has_its_words() {
    let table = [
        (Left::At(State::Stop), "the device is in STOP"),
        (Left::Reset, "the device was reset to RUNNING, its former content is gone"),
        (Left::Unknown, "the device refused its reset, its state is unknown"),
    ];
    let variants = match table[0].0 {
        Left::At(_) | Left::Reset | Left::Unknown => 3,
    };
    check(&table, variants);
    let failure = table.map(|(device, _)| Failure { cause: Cause::Cancelled, device });
    let table = [
        (failure[0], "cancelled; the device is in STOP"),
        (failure[1], "cancelled; the device was reset to RUNNING, its former content is gone"),
        (failure[2], "cancelled; the device refused its reset, its state is unknown"),
    ];
    check(&table, 1);
    check_sources(&table);
}

#[test]
fn devices_that_cannot_migrate_together_are_named() {
    let joining = |name, features| Joining { name, features, now: State::Running };
    let (without, with) = (Features::ALL[2], Features::ALL[3]);
    let refused = |devices: &[Joining<'static>]| Fleet::<3>::new(devices).unwrap_err();
    let table = [
        (
            refused(&[joining("nic", without), joining("gpu", with)]),
            "wanted P2P of every device, since several migrate together; without it are nic",
        ),
        (
            refused(&[joining("nic", without), joining("gpu", with), joining("0000:00:05.0", without)]),
            "wanted P2P of every device, since several migrate together; without it are nic, 0000:00:05.0",
        ),
        (refused(&[joining("nic", with); 4]), "wanted at most 3 devices, got 4"),
    ];
    let variants = match &table[0].0 {
        Refused::NoP2p { .. } | Refused::TooMany { .. } => 2,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_advice_says_how_long_a_stop_would_take_and_may_take() {
    let millis = Duration::from_millis(300);
    let device = |initial_bytes, data_size, rate, dirty_rate| {
        let left = PrecopyInfo { initial_bytes, dirty_bytes: 20, reinit: false };
        advise(&[Remaining { left, data_size, rate, dirty_rate }], 0, millis)
    };
    let table = [
        (
            device(80, 100, 100, 0),
            "keep copying: a stop would move 100 bytes, 100 of which can be copied before it, at 100 bytes/s in \
             1000 ms; allowed are 300 ms",
        ),
        (
            device(80, 0, 0, 0),
            "keep copying: a stop would move 100 bytes, 100 of which can be copied before it, at a rate that is \
             not known; allowed are 300 ms",
        ),
        (
            device(80, 100, 3000, 7),
            "stop now: a stop would move 100 bytes, 100 of which can be copied before it, at 3000 bytes/s in \
             34 ms; allowed are 300 ms, and 7 bytes/s are made anew",
        ),
        (
            device(0, 1000, 1000, 0),
            "will not converge: a stop would move 1000 bytes, 20 of which can be copied before it, at \
             1000 bytes/s in 1000 ms; allowed are 300 ms",
        ),
    ];
    let variants = match table[0].0 {
        Advice::KeepCopying(_) | Advice::StopNow(_) | Advice::WillNotConverge(_) => 3,
    };
    check(&table, variants);
    for (advice, text) in table {
        assert!(text.ends_with(&format!(": {}", advice.forecast())), "{text}");
    }
}

#[test]
fn every_record_error_names_its_offset_and_value() {
    let got = 0xffff_ffff_ef10_0007;
    let table = [
        (
            record::Error::UnknownTag { offset: 24, got },
            "wanted a record's tag at byte 24 of the payload, got 0xffffffffef100007",
        ),
        (
            record::Error::Unterminated { after: Tag::Setup, offset: 8, got: 0 },
            "wanted END_OF_STATE behind SETUP at byte 8 of the payload, got 0x0000000000000000",
        ),
    ];
    let variants = match table[0].0 {
        record::Error::UnknownTag { .. } | record::Error::Unterminated { .. } => 2,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_section_error_says_what_was_wanted_and_what_was_there() {
    use section::Error;
    let table = [
        (Error::Short { wanted: 31 }, "wanted 31 bytes of an item, got fewer"),
        (
            Error::UnknownType { got: 0x42 },
            "wanted the type byte of a section or of the stream's end, got 0x42",
        ),
        (
            Error::Preamble { got: *b"QEVM\0\0\0\x02" },
            "wanted the preamble [51, 45, 56, 4d, 00, 00, 00, 03], got [51, 45, 56, 4d, 00, 00, 00, 02]",
        ),
        (
            Error::Footer { wanted: 38, got: [0x7e, 0, 0, 0, 39] },
            "wanted the footer of section 38, [7e, 00, 00, 00, 26], got [7e, 00, 00, 00, 27]",
        ),
        (Error::NoRoom { wanted: 269, got: 64 }, "wanted room for 269 bytes, got 64"),
    ];
    let variants = match table[0].0 {
        Error::Short { .. }
        | Error::UnknownType { .. }
        | Error::Preamble { .. }
        | Error::Footer { .. }
        | Error::NoRoom { .. } => 5,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_error_of_a_multifd_channel_says_what_was_wanted_and_what_was_there() {
    use multifd::Error;
    let table = [
        (Error::Short { wanted: 276 }, "wanted 276 bytes of a packet's head, got fewer"),
        (
            Error::Magic { got: 0x5145_564d },
            "wanted the magic number of a multifd channel, 0x11223344, got 0x5145564d",
        ),
        (Error::Version { got: 2 }, "wanted version 1 of a multifd channel, got 2"),
        (
            Error::Flags { got: 0x42 },
            "wanted a packet's flags without compression, 0x0, 0x1 (SYNC) or 0x40 (device state), got 0x42",
        ),
        (Error::Unterminated, "wanted a name of at most 255 bytes, got no end of one"),
        (Error::Pages { wanted: 128, got: 129 }, "wanted at most 128 pages in a packet, got 129"),
        (Error::PagesAlloc { wanted: 128, got: 8 }, "wanted room for 128 pages in a packet, got 8"),
        (
            Error::Length { wanted: 12, got: 11 },
            "wanted a packet of device state of at least 12 bytes, got 11",
        ),
        (Error::StateVersion { got: 1 }, "wanted version 0 of a piece of device state, got 1"),
        (Error::Index, "wanted the number of a piece of device state below 4294967295, got 4294967295"),
        (
            Error::StateFlags { got: 2 },
            "wanted the flags of a piece of device state, 0x0 or 0x1 (configuration), got 0x2",
        ),
        (
            Error::NotConfig { got: 7 },
            "wanted the tag of CONFIG, 0xffffffffef100002, in the packet of the configuration, got \
             0x0000000000000007",
        ),
        (Error::NoRoom { wanted: 288, got: 64 }, "wanted room for 288 bytes, got 64"),
        (Error::Nul { offset: 3 }, "wanted a name without NUL, got one at byte 3"),
        (
            Error::TooLong { wanted: 4_294_967_283, got: 4_294_967_284 },
            "wanted at most 4294967283 bytes of device state in a packet, got 4294967284",
        ),
        (Error::Full, "wanted at most 4294967294 packets of a device's data, got one more"),
        (Error::Ended, "wanted nothing behind the configuration, the last packet, got one more"),
    ];
    let variants = match table[0].0 {
        Error::Short { .. }
        | Error::Magic { .. }
        | Error::Version { .. }
        | Error::Flags { .. }
        | Error::Unterminated
        | Error::Pages { .. }
        | Error::PagesAlloc { .. }
        | Error::Length { .. }
        | Error::StateVersion { .. }
        | Error::Index
        | Error::StateFlags { .. }
        | Error::NotConfig { .. }
        | Error::NoRoom { .. }
        | Error::Nul { .. }
        | Error::TooLong { .. }
        | Error::Full
        | Error::Ended => 17,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_refusal_of_a_multifd_receiver_names_the_packet() {
    use multifd::{Misuse, Refused};
    let table = [
        (Refused::Twice { index: 7 }, "wanted packet 7 of the device once, got it twice"),
        (
            Refused::BeyondLast { last: 3, got: 5 },
            "wanted no packet of the device behind 3, which has the configuration, got 5",
        ),
        (
            Refused::Beyond { next: 3, nearest: 9, length: 4096, slots: 2, slot: 1024 },
            "wanted packet 3 of the device on a channel, got 9 with 4096 bytes as the nearest; 2 packets of \
             1024 bytes can be kept",
        ),
        (Refused::Missing { next: 3 }, "wanted packet 3 of the device, got the end of every channel"),
        (
            Refused::Cut { index: 3, missing: 9 },
            "wanted 9 more bytes of packet 3 of the device, got the channel's end",
        ),
    ];
    let variants = match table[0].0 {
        Refused::Twice { .. }
        | Refused::BeyondLast { .. }
        | Refused::Beyond { .. }
        | Refused::Missing { .. }
        | Refused::Cut { .. } => 5,
    };
    check(&table, variants);
    check_sources(&table);
    let table = [
        (Misuse::WrongDone, "what was reported was not asked for"),
        (Misuse::NoChannel { wanted: 2, got: 5 }, "wanted one of 2 channels, got number 5"),
        (Misuse::TooMany { offered: 16, got: 17 }, "17 bytes were reported, 16 were offered"),
    ];
    let variants = match table[0].0 {
        Misuse::WrongDone | Misuse::NoChannel { .. } | Misuse::TooMany { .. } => 3,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn every_error_and_kind_of_the_return_path_has_its_words() {
    use return_path::{Error, Kind};
    let table = [
        (Error::Short { wanted: 8 }, "wanted 8 bytes of a message, got fewer"),
        (Error::UnknownType { got: 8 }, "wanted the type of a message of the return path, got 0x0008"),
        (
            Error::Length { kind: Kind::SwitchoverAck, wanted: 0, got: 4 },
            "wanted 0 bytes of data in SWITCHOVER_ACK, got 4",
        ),
        (Error::NoRoom { wanted: 8, got: 4 }, "wanted room for 8 bytes, got 4"),
    ];
    let variants = match table[0].0 {
        Error::Short { .. } | Error::UnknownType { .. } | Error::Length { .. } | Error::NoRoom { .. } => 4,
    };
    check(&table, variants);
    check_sources(&table);
    let names = Kind::ALL.map(|kind| kind.to_string());
    let wanted = ["SHUT", "PONG", "REQ_PAGES_ID", "REQ_PAGES", "RECV_BITMAP", "RESUME_ACK", "SWITCHOVER_ACK"];
    assert_eq!(names, wanted);
    assert_eq!(Kind::ALL.map(Kind::name), wanted);
}

#[test]
fn every_error_of_dma_logging_says_what_was_wanted() {
    use dirty::Error;
    let table = [
        (
            Error::PageSize { got: 2048 },
            "wanted a page size that is a power of two and at least 4096, got 2048",
        ),
        (Error::Empty { iova: 0x1000 }, "wanted a range of at least one byte at 0x1000, got 0"),
        (
            Error::Overflow { iova: u64::MAX, length: 2 },
            "wanted a range within 64-bit addresses, got 0x2 bytes at 0xffffffffffffffff",
        ),
        (Error::Everything, "wanted a range of less than 2^64 bytes, got one over all addresses"),
        (Error::NoBitmap, "wanted a bitmap of at least one word, got none"),
    ];
    let variants = match table[0].0 {
        Error::PageSize { .. }
        | Error::Empty { .. }
        | Error::Overflow { .. }
        | Error::Everything
        | Error::NoBitmap => 5,
    };
    check(&table, variants);
    check_sources(&table);
}

#[test]
fn a_code_is_its_number() {
    check(&[(Code(0), "error 0"), (Code(i32::MIN), "error -2147483648")], 1);
}

/// Names are the uapi's and QEMU's, in capital letters, and can be set in columns.
#[test]
fn states_features_and_tags_have_the_headers_names() {
    let states =
        ["ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P"];
    assert_eq!(State::ALL.map(|state| state.to_string()), states);
    let tags = ["END_OF_STATE", "CONFIG", "SETUP", "DATA", "INIT_DATA_SENT", "CONFIG_LOAD_READY"];
    assert_eq!(Tag::ALL.map(|tag| tag.to_string()), tags);
    let features = ["STOP_COPY", "STOP_COPY P2P", "STOP_COPY PRE_COPY", "STOP_COPY P2P PRE_COPY"];
    assert_eq!(Features::ALL.map(|features| features.to_string()), features);
    assert_eq!(format!("[{:>9}] [{:<6}]", State::Stop, Tag::Data), "[     STOP] [DATA  ]");
}
