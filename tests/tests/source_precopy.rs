//! [`Source`] in pre-copy and in lockstep with others, as lists of events: the good paths and what they write.
//!
//! Deliberately absent: failures, which are in `source_precopy_failures.rs`, and when to stop, which is the caller's.

use vfio_migration_core::device::State;
use vfio_migration_core::session::Source;
use vfio_migration_tests::payload::{END, INIT_DATA_SENT, SETUP, content, data};
use vfio_migration_tests::script::{ALL, Ends, TO_PRE_COPY, play_source};

/// Plays the parts of a script with a running device's source and a buffer of 64 bytes; returns what it sends.
fn play(input: &[u8], switchover_ack: bool, parts: &[&[&str]]) -> Vec<u8> {
    let mut ends = Ends::new(input);
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, switchover_ack, &mut buffer).unwrap();
    play_source(&mut source, &mut ends, &parts.concat());
    assert_eq!(ends.taken, input.len(), "all data are read");
    ends.output
}

/// One chunk of this many bytes in PRE_COPY.
fn chunk(count: usize) -> [String; 3] {
    ["> copy_chunk".into(), format!("read data, room for 40: {count}"), format!("send {0}: {0}", count + 24)]
}

/// [`play`], from PRE_COPY on, with parts made on the way; returns what is sent behind START.
fn play_in_pre_copy(input: &[u8], switchover_ack: bool, parts: &[&[String]]) -> Vec<u8> {
    let parts = parts.concat();
    let lines: Vec<&str> = parts.iter().map(String::as_str).collect();
    let output = play(input, switchover_ack, &[TO_PRE_COPY, &lines]);
    assert_eq!(output[..16], [SETUP, END].concat());
    output[16..].to_vec()
}

fn lines<const N: usize>(lines: [&str; N]) -> [String; N] {
    lines.map(String::from)
}

#[test]
fn a_device_is_copied_while_it_works_then_stopped_and_runs_on() {
    let content = content(100);
    let script = [
        "idle Ready(Running)",
        "> setup pre_copy",
        "set PRE_COPY: not yet",
        "set PRE_COPY: ok",
        "send 16: 16",
        "idle PreCopy: 0 read, nothing known",
        "> measure",
        "precopy info: not yet",
        "precopy info: initial 50, dirty 0",
        "idle PreCopy: 0 read, initial 50, dirty 0",
        "> copy_chunk",
        "read data, room for 40: 40",
        "send 64: 64",
        "idle PreCopy: 40 read, initial 10, dirty 0",
        "> copy_chunk",
        "read data, room for 40: 10",
        "send 34: 34",
        "idle PreCopy: 10 read, initial 0, dirty 0, sent",
        "> copy_chunk",
        "read data, room for 40: nothing now",
        "precopy info: initial 0, dirty 30",
        "send 8: 8",
        "idle PreCopy: 0 read, initial 0, dirty 30, sent",
        "> copy_chunk",
        "read data, room for 40: 30",
        "send 54: 54",
        "idle PreCopy: 30 read, initial 0, dirty 0, sent",
        "> quiesce",
        "set PRE_COPY_P2P: ok",
        "idle Quiesced",
        "> stop",
        "set STOP_COPY: ok",
        "idle Copying",
        "> copy_rest",
        "read data, room for 40: 20",
        "send 36: 36",
        "read data, room for 40: end",
        "send 8: 8",
        "idle Copied",
        "> finish",
        "set STOP: ok",
        "idle Stopped",
        "> run_p2p",
        "set RUNNING_P2P: ok",
        "idle Ready(RunningP2p)",
        "> run",
        "set RUNNING: ok",
        "idle Ready(Running)",
    ];
    let wanted = [
        &[SETUP, END].concat()[..],
        &data(&content[..40]),
        &END,
        &data(&content[40..50]),
        &INIT_DATA_SENT,
        &END,
        &data(&content[50..80]),
        &END,
        &data(&content[80..]),
        &END,
    ];
    assert_eq!(play(&content, true, &[&script]), wanted.concat());
}

#[test]
fn a_device_without_pre_copy_quiesces_in_running_p2p_and_runs_over_it() {
    let script = [
        "> setup",
        "send 16: 16",
        "idle SetUp",
        "> quiesce",
        "set RUNNING_P2P: ok",
        "idle Quiesced",
        "> stop",
        "set STOP_COPY: ok",
        "> copy_rest",
        "read data, room for 40: 5",
        "send 21: 21",
        "read data, room for 40: end",
        "send 8: 8",
        "> finish",
        "set STOP: ok",
        "> run_p2p",
        "set RUNNING_P2P: ok",
        "idle Ready(RunningP2p)",
        "> run",
        "set RUNNING: ok",
        "idle Ready(Running)",
    ];
    let wanted = [&[SETUP, END].concat()[..], &data(b"state"), &END];
    assert_eq!(play(b"state", false, &[&script]), wanted.concat());
}

#[test]
fn nothing_now_is_said_in_three_ways_asks_what_is_left_and_is_an_end_of_state_alone() {
    for answer in ["nothing now", "end", "0"] {
        let read = format!("read data, room for 40: {answer}");
        let empty = [
            "> copy_chunk",
            &read,
            "precopy info: initial 7, dirty 9",
            "send 8: 8",
            "idle PreCopy: 0 read, initial 7, dirty 9",
        ];
        let after_data = [&chunk(3)[..], &lines(["idle PreCopy: 3 read, initial 4, dirty 9"])];
        let parts = [&lines(empty)[..], &after_data.concat(), &lines(empty)];
        let wanted = [&END[..], &data(b"abc"), &END, &END];
        assert_eq!(play_in_pre_copy(b"abc", true, &parts), wanted.concat(), "{answer}");
    }
}

#[test]
fn initial_data_are_read_first_and_no_more_is_left_than_was_said() {
    // Said: initial, dirty. Then what is read, and what is left behind it.
    let table = [
        ((50, 0), 40, "initial 10, dirty 0"),
        ((40, 0), 40, "initial 0, dirty 0, sent"),
        ((10, 50), 40, "initial 0, dirty 20, sent"),
        ((10, 50), 9, "initial 1, dirty 50"),
        ((10, 50), 10, "initial 0, dirty 50, sent"),
        ((10, 5), 40, "initial 0, dirty 0, sent"),
        ((0, 0), 1, "initial 0, dirty 0, sent"),
        ((0, u64::MAX), 1, "initial 0, dirty 18446744073709551614, sent"),
        ((u64::MAX, u64::MAX), 1, "initial 18446744073709551614, dirty 18446744073709551615"),
    ];
    for ((initial, dirty), read, left) in table {
        let said = ["> measure".into(), format!("precopy info: initial {initial}, dirty {dirty}")];
        let idle = [format!("idle PreCopy: {read} read, {left}")];
        let terminator = if left.ends_with("sent") { INIT_DATA_SENT } else { END };
        let wanted = [&data(&content(read))[..], &terminator].concat();
        let sent = play_in_pre_copy(&content(read), true, &[&said, &chunk(read), &idle]);
        assert_eq!(sent, wanted, "{read} of {initial} and {dirty}");
        let idle = [idle[0].replace(", sent", "")];
        let wanted = [&data(&content(read))[..], &END].concat();
        let sent = play_in_pre_copy(&content(read), false, &[&said, &chunk(read), &idle]);
        assert_eq!(sent, wanted, "never without switchover-ack");
    }
}

#[test]
fn init_data_sent_never_stands_before_the_devices_first_answer_and_stands_once() {
    let parts = [
        &chunk(2)[..],
        &lines(["idle PreCopy: 2 read, nothing known"]),
        &chunk(1),
        &lines(["> copy_chunk", "read data, room for 40: end"]),
        &lines(["precopy info: initial 0, dirty 8", "send 8: 8"]),
        &lines(["idle PreCopy: 0 read, initial 0, dirty 8, sent"]),
        &lines(["> measure", "precopy info: initial 0, dirty 2"]),
        &lines(["idle PreCopy: 0 read, initial 0, dirty 2, sent"]),
        &chunk(2),
        &lines(["> copy_chunk", "read data, room for 40: end"]),
        &lines(["precopy info: initial 0, dirty 0", "send 8: 8"]),
        &lines(["idle PreCopy: 0 read, initial 0, dirty 0, sent"]),
    ];
    let wanted =
        [&data(b"ab")[..], &END, &data(b"c"), &END, &INIT_DATA_SENT, &data(b"de"), &END, &END].concat();
    assert_eq!(play_in_pre_copy(b"abcde", true, &parts), wanted);
}

#[test]
fn initial_data_that_grow_without_being_begun_anew_are_not_announced_again() {
    let parts = [
        &lines(["> measure", "precopy info: initial 0, dirty 0"])[..],
        &chunk(1),
        &lines(["> measure", "precopy info: initial 1, dirty 0"]),
        &lines(["idle PreCopy: 1 read, initial 1, dirty 0, sent"]),
        &chunk(1),
        &lines(["idle PreCopy: 1 read, initial 0, dirty 0, sent"]),
    ];
    let wanted = [&data(b"a")[..], &INIT_DATA_SENT, &data(b"b"), &END].concat();
    assert_eq!(play_in_pre_copy(b"ab", true, &parts), wanted);
}

#[test]
fn initial_data_that_are_begun_anew_are_announced_again_once_they_are_read() {
    let parts = [
        &lines(["> measure", "precopy info: initial 1, dirty 0"])[..],
        &chunk(1),
        &lines(["idle PreCopy: 1 read, initial 0, dirty 0, sent"]),
        &lines(["> measure", "precopy info: initial 3, dirty 0, begun anew"]),
        &lines(["idle PreCopy: 1 read, initial 3, dirty 0, begun anew"]),
        &chunk(2),
        &lines(["idle PreCopy: 2 read, initial 1, dirty 0, begun anew"]),
        &chunk(1),
        &lines(["idle PreCopy: 1 read, initial 0, dirty 0, begun anew, sent"]),
        &lines(["> copy_chunk", "read data, room for 40: nothing now"]),
        &lines(["precopy info: initial 0, dirty 0, begun anew", "send 8: 8"]),
        &lines(["idle PreCopy: 0 read, initial 0, dirty 0, begun anew, sent"]),
        &lines(["> copy_chunk", "read data, room for 40: nothing now"]),
        &lines(["precopy info: initial 0, dirty 0", "send 8: 8"]),
        &lines(["idle PreCopy: 0 read, initial 0, dirty 0, sent"]),
    ];
    let wanted = [
        &data(b"a")[..],
        &INIT_DATA_SENT,
        &data(b"bc"),
        &END,
        &data(b"d"),
        &INIT_DATA_SENT,
        &INIT_DATA_SENT,
        &END,
    ];
    assert_eq!(play_in_pre_copy(b"abcd", true, &parts), wanted.concat());
}

#[test]
fn a_link_that_takes_few_bytes_gets_the_rest_of_a_chunk_again() {
    let script = [
        "> setup pre_copy",
        "set PRE_COPY: ok",
        "send 16: 1",
        "send 15: not yet",
        "send 15: 15",
        "> measure",
        "precopy info: initial 3, dirty 0",
        "> copy_chunk",
        "read data, room for 40: not yet",
        "read data, room for 40: 3",
        "send 27: 15",
        "send 12: 4",
        "send 8: 7",
        "send 1: 1",
        "idle PreCopy: 3 read, initial 0, dirty 0, sent",
        "> copy_chunk",
        "read data, room for 40: nothing now",
        "precopy info: not yet",
        "precopy info: initial 0, dirty 0",
        "send 8: 5",
        "send 3: 3",
        "idle PreCopy: 0 read, initial 0, dirty 0, sent",
    ];
    let wanted = [&[SETUP, END].concat()[..], &data(b"abc"), &INIT_DATA_SENT, &END];
    assert_eq!(play(b"abc", true, &[&script]), wanted.concat());
}

/// Each way to STOP_COPY.
const TO_STOP_COPY: [&[&[&str]]; 4] = [
    &[TO_PRE_COPY, &["> stop", "set STOP_COPY: ok"]],
    &[TO_PRE_COPY, &["> quiesce", "set PRE_COPY_P2P: ok", "> stop", "set STOP_COPY: ok"]],
    &[&["> setup", "send 16: 16", "> stop", "set STOP_COPY: ok"]],
    &[&["> setup", "send 16: 16", "> quiesce", "set RUNNING_P2P: ok", "> stop", "set STOP_COPY: ok"]],
];

#[test]
fn in_stop_copy_each_chunk_is_one_record_and_the_end_holds_an_end_of_state_alone() {
    for to_stop_copy in TO_STOP_COPY {
        let to_stop_copy = to_stop_copy.concat();
        let parts = [
            "> copy_chunk",
            "read data, room for 40: 4",
            "send 28: 28",
            "idle Copying",
            "> copy_chunk",
            "read data, room for 40: 1",
            "send 25: 9",
            "send 16: 16",
            "idle Copying",
        ];
        let sent = [&[SETUP, END].concat()[..], &data(b"0123"), &END, &data(b"4"), &END].concat();
        // The end is met by copy_rest, or by a chunk before it.
        let rest = ["> copy_rest", "read data, room for 40: end", "send 8: 8", "idle Copied"];
        let output = play(b"01234", true, &[&to_stop_copy, &parts, &rest]);
        assert_eq!(output, [&sent[..], &END].concat());
        for end in ["end", "0"] {
            let end = format!("read data, room for 40: {end}");
            let chunk = ["> copy_chunk", &end, "send 8: 8", "idle Copied"];
            let rest = ["> copy_rest", "send 8: 8", "idle Copied"];
            let output = play(b"01234", true, &[&to_stop_copy, &parts, &chunk, &rest]);
            assert_eq!(output, [&sent[..], &END, &END].concat());
        }
        // The rest may also be more than the end.
        let rest = ["> copy_rest", "read data, room for 40: 2", "send 18: 18", "read data, room for 40: end"];
        let output = play(b"0123456", true, &[&to_stop_copy, &parts, &rest, &["send 8: 8", "idle Copied"]]);
        assert_eq!(output, [&sent[..], &data(b"56"), &END].concat());
    }
}

#[test]
fn a_second_migration_of_a_device_that_runs_again_starts_afresh() {
    let mut ends = Ends::new(b"abcdef");
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, true, &mut buffer).unwrap();
    for round in ["first", "second"] {
        ends.output.clear();
        let copied = [
            TO_PRE_COPY,
            &["idle PreCopy: 0 read, nothing known"],
            &["> measure", "precopy info: initial 1, dirty 0"],
            &["> copy_chunk", "read data, room for 40: 1", "send 25: 25"],
            &["idle PreCopy: 1 read, initial 0, dirty 0, sent"],
            &["> quiesce", "set PRE_COPY_P2P: ok"],
            &["> stop", "set STOP_COPY: ok"],
            &["> copy_chunk", "read data, room for 40: 1", "send 25: 25"],
            &["> copy_rest", "read data, room for 40: end", "send 8: 8"],
            &["> finish", "set STOP: ok", "> run_p2p", "set RUNNING_P2P: ok"],
            &["> run", "set RUNNING: ok", "idle Ready(Running)"],
        ];
        play_source(&mut source, &mut ends, &copied.concat());
        let (before, after) = if round == "first" { (b"a", b"b") } else { (b"c", b"d") };
        let wanted = [&[SETUP, END].concat()[..], &data(before), &INIT_DATA_SENT, &data(after), &END, &END];
        assert_eq!(ends.output, wanted.concat(), "{round}");
    }
    // Nor is the lockstep of the one before remembered.
    let third = [
        TO_PRE_COPY,
        &["> retreat", "set RUNNING to recover: ok", "failed: cancelled; the device is in RUNNING"],
    ];
    play_source(&mut source, &mut ends, &third.concat());
}
