//! [`Source`] when something goes wrong in pre-copy or in lockstep with others, and when it is given up there.
//!
//! Deliberately absent: every operation of every way refused, which is in `source_exhaustive.rs`.

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Cause, Code, Misuse, Source, SourceDone};
use vfio_migration_tests::script::{ALL, COPIED, Ends, FINISHED, SET_UP, TO_PRE_COPY, play_source};

const RESET: &str = "the device was reset to RUNNING, its former content is gone";
const UNKNOWN: &str = "the device refused its reset, its state is unknown";

/// Plays the parts of a script with a running device.
fn play(parts: &[&[&str]]) {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, true, &mut buffer).unwrap();
    play_source(&mut source, &mut Ends::new(&[0x5a; 256]), &parts.concat());
}

/// Plays `parts`, behind which the session wants to go back to `state` because of `cause`: the way is open, or refused,
/// or refused as the reset is that follows.
fn play_back(parts: &[&[&str]], state: &str, cause: &str) {
    let parts = parts.concat();
    let back = format!("set {state} to recover: ok");
    play(&[&parts, &[&back, &format!("failed: {cause}; the device is in {state}")]]);
    let refused = format!("set {state} to recover: error 17");
    play(&[&parts, &[&refused, "reset: ok", &format!("failed: {cause}; {RESET}")]]);
    play(&[&parts, &[&refused, "reset: error 18", &format!("failed: {cause}; {UNKNOWN}")]]);
}

/// What goes wrong while the device is in PRE_COPY, and the cause.
const IN_PRE_COPY: [(&[&[&str]], &str); 11] = [
    (&[&["> setup pre_copy", "set PRE_COPY: error 16"]], "the device refused PRE_COPY: error 16"),
    (&[&["> setup pre_copy", "set PRE_COPY: ok", "send 16: error 32"]], "the link refused bytes: error 32"),
    (
        &[&["> setup pre_copy", "set PRE_COPY: ok", "send 16: 3", "send 13: 0"]],
        "the link took no byte, its other end is gone",
    ),
    (&[TO_PRE_COPY, &["> measure", "precopy info: error 22"]], "the device refused PRECOPY_INFO: error 22"),
    (
        &[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: error 5"]],
        "the device's data could not be read: error 5",
    ),
    (
        &[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: 9", "send 33: error 32"]],
        "the link refused bytes: error 32",
    ),
    (
        &[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: 9", "send 33: 0"]],
        "the link took no byte, its other end is gone",
    ),
    (
        &[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: 9", "send 33: 32", "send 1: error 32"]],
        "the link refused bytes: error 32",
    ),
    (
        &[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: nothing now", "precopy info: error 22"]],
        "the device refused PRECOPY_INFO: error 22",
    ),
    (
        &[
            TO_PRE_COPY,
            &["> copy_chunk", "read data, room for 40: end", "precopy info: initial 0, dirty 0"],
            &["send 8: error 32"],
        ],
        "the link refused bytes: error 32",
    ),
    (
        &[
            TO_PRE_COPY,
            &["> copy_chunk", "read data, room for 40: 0", "precopy info: initial 0, dirty 0"],
            &["send 8: 7", "send 1: 0"],
        ],
        "the link took no byte, its other end is gone",
    ),
];

#[test]
fn what_goes_wrong_in_pre_copy_brings_the_device_back_to_running_or_to_a_reset() {
    for (script, cause) in IN_PRE_COPY {
        play_back(script, "RUNNING", cause);
    }
}

#[test]
fn a_refused_precopy_info_names_its_code() {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, true, &mut buffer).unwrap();
    let measure = [TO_PRE_COPY, &["> measure", "precopy info: not yet"]].concat();
    play_source(&mut source, &mut Ends::default(), &measure);
    source.complete(SourceDone::PrecopyInfo(Err(Code(-7)))).unwrap();
    let failed = [
        "set RUNNING to recover: ok",
        "failed: the device refused PRECOPY_INFO: error -7; the device is in RUNNING",
    ];
    play_source(&mut source, &mut Ends::default(), &failed);
    assert_eq!(Cause::PrecopyInfo(Code(-7)).code(), Some(Code(-7)));
    assert_eq!(Cause::PrecopyInfo(Code(-7)).offset(), None);
}

#[test]
fn a_refused_quiesce_leaves_the_device_running_with_its_content() {
    for (script, state) in [(SET_UP, "RUNNING_P2P"), (TO_PRE_COPY, "PRE_COPY_P2P")] {
        let refused = ["> quiesce", &format!("set {state}: error 16")];
        let cause = format!("the device refused {state}: error 16");
        play_back(&[script, &refused], "RUNNING", &cause);
        // It is as far back as it goes: giving up changes nothing any more.
        let failed = format!("failed: {cause}; the device is in RUNNING");
        let pending =
            ["set RUNNING: not yet", "> retreat", "> cancel", "set RUNNING to recover: ok", &failed];
        play(&[script, &refused, &pending, &["> retreat", &failed, "> cancel", &failed]]);
    }
}

/// Each way to a quiesced device.
const QUIESCED: [&[&[&str]]; 2] = [
    &[SET_UP, &["> quiesce", "set RUNNING_P2P: ok"]],
    &[TO_PRE_COPY, &["> quiesce", "set PRE_COPY_P2P: ok"]],
];

/// What goes wrong with data or link in STOP_COPY, and the cause.
const IN_STOP_COPY: [(&[&[&str]], &str); 8] = [
    (&[&["> copy_chunk", "read data, room for 40: error 5"]], "the device's data could not be read: error 5"),
    (
        &[&["> copy_chunk", "read data, room for 40: nothing now"]],
        "the device answered ENOMSG in STOP_COPY, wanted data or the end",
    ),
    (
        &[&["> copy_chunk", "read data, room for 40: 9", "send 33: error 32"]],
        "the link refused bytes: error 32",
    ),
    (
        &[&["> copy_chunk", "read data, room for 40: 9", "send 33: 32", "send 1: 0"]],
        "the link took no byte, its other end is gone",
    ),
    (
        &[&["> copy_chunk", "read data, room for 40: end", "send 8: error 32"]],
        "the link refused bytes: error 32",
    ),
    (&[&["> copy_rest", "read data, room for 40: error 5"]], "the device's data could not be read: error 5"),
    (&[COPIED, &["> copy_rest", "send 8: 0"]], "the link took no byte, its other end is gone"),
    (
        &[COPIED, &["> config", "send 8: 8", "send configuration: error 71"]],
        "the configuration could not be sent: error 71",
    ),
];

#[test]
fn what_goes_wrong_with_the_data_of_a_quiesced_device_brings_it_to_running_p2p_and_cancel_takes_it_on() {
    for quiesced in QUIESCED {
        for (script, cause) in IN_STOP_COPY {
            let start = [&quiesced.concat()[..], &["> stop", "set STOP_COPY: ok"], &script.concat()].concat();
            play_back(&[&start], "RUNNING_P2P", cause);
            let quiet = format!("failed: {cause}; the device is in RUNNING_P2P");
            let runs = format!("failed: {cause}; the device is in RUNNING");
            let back = ["set RUNNING_P2P to recover: ok", &quiet, "> retreat", &quiet, "> cancel"];
            play(&[&start, &back, &["set RUNNING to recover: ok", &runs, "> retreat", "> cancel", &runs]]);
            // Cancelled while it goes there: it goes on at once.
            let pending = ["set RUNNING_P2P: not yet", "> retreat", "set RUNNING_P2P: not yet", "> cancel"];
            play(&[&start, &pending, &["> retreat", "set RUNNING to recover: ok", &runs]]);
        }
    }
}

#[test]
fn without_quiesce_the_same_brings_the_device_to_running_at_once() {
    for start in [SET_UP, TO_PRE_COPY] {
        for (script, cause) in IN_STOP_COPY {
            play_back(&[start, &["> stop", "set STOP_COPY: ok"], &script.concat()], "RUNNING", cause);
        }
    }
}

#[test]
fn a_refused_stop_copy_is_followed_by_stop_from_which_retreat_and_cancel_lead_on() {
    let cause = "the device refused STOP_COPY: error 16";
    let [stop, quiet, runs] =
        ["STOP", "RUNNING_P2P", "RUNNING"].map(|state| format!("failed: {cause}; the device is in {state}"));
    for quiesced in QUIESCED {
        let start = [&quiesced.concat()[..], &["> stop", "set STOP_COPY: error 16"]].concat();
        play_back(&[&start], "STOP", cause);
        let to_quiet =
            ["set STOP to recover: ok", &stop, "> retreat", "set RUNNING_P2P to recover: ok", &quiet];
        let to_run = ["> cancel", "set RUNNING to recover: ok", &runs];
        play(&[&start, &to_quiet, &to_run]);
        play(&[&start, &["set STOP to recover: ok", &stop], &to_run]);
        play(&[
            &start,
            &["set STOP: not yet", "> retreat", "set RUNNING_P2P to recover: ok", &quiet],
            &to_run,
        ]);
        play(&[&start, &["set STOP: not yet"], &to_run]);
    }
    // Without lockstep retreat is cancel.
    for start in [SET_UP, TO_PRE_COPY] {
        let refused = [start, &["> stop", "set STOP_COPY: error 16"]].concat();
        play_back(&[&refused], "STOP", cause);
        let to_run = ["set STOP to recover: ok", &stop, "> retreat", "set RUNNING to recover: ok", &runs];
        play(&[&refused, &to_run]);
    }
}

#[test]
fn a_refused_run_p2p_or_run_leads_to_a_reset() {
    for quiesced in QUIESCED {
        let stopped = [&quiesced.concat()[..], &["> stop", "set STOP_COPY: ok"], COPIED, FINISHED].concat();
        let p2p = ["> run_p2p", "set RUNNING_P2P: error 16"];
        let run = ["> run_p2p", "set RUNNING_P2P: ok", "> run", "set RUNNING: error 16"];
        for (refused, state) in [(&p2p[..], "RUNNING_P2P"), (&run, "RUNNING")] {
            let cause = format!("failed: the device refused {state}: error 16");
            play(&[&stopped, refused, &["reset: ok", &format!("{cause}; {RESET}")]]);
            play(&[&stopped, refused, &["reset: error 18", &format!("{cause}; {UNKNOWN}")]]);
        }
    }
}

/// Every phase behind `quiesce` and before RUNNING, and whether the device is in RUNNING_P2P there.
const IN_LOCKSTEP: [(&[&[&str]], bool); 5] = [
    (&[&["idle Quiesced"]], false),
    (&[&["> stop", "set STOP_COPY: ok", "idle Copying"]], false),
    (&[&["> stop", "set STOP_COPY: ok"], COPIED, &["idle Copied"]], false),
    (&[&["> stop", "set STOP_COPY: ok"], COPIED, FINISHED, &["idle Stopped"]], false),
    (
        &[
            &["> stop", "set STOP_COPY: ok"],
            COPIED,
            FINISHED,
            &["> run_p2p", "set RUNNING_P2P: ok", "idle Ready(RunningP2p)"],
        ],
        true,
    ),
];

#[test]
fn retreat_stays_in_running_p2p_until_cancel_takes_the_device_on() {
    let quiet = "failed: cancelled; the device is in RUNNING_P2P";
    let runs = "failed: cancelled; the device is in RUNNING";
    let to_run = ["> cancel", "> cancel", "set RUNNING to recover: ok", runs, "> retreat", runs];
    for (quiesced, p2p) in [(QUIESCED[0], true), (QUIESCED[1], false)] {
        for (script, there) in IN_LOCKSTEP {
            let there = there || (p2p && script == IN_LOCKSTEP[0].0);
            let start = [quiesced.concat(), script.concat()].concat();
            let back = ["set RUNNING_P2P to recover: ok"];
            let back = if there { &[][..] } else { &back };
            play(&[&start, &["> retreat", "> retreat"], back, &[quiet], &to_run]);
            play(&[&start, &to_run]);
        }
        // While it quiesces it is not known where the device is: RUNNING_P2P is asked for.
        let question = if p2p { "set RUNNING_P2P: not yet" } else { "set PRE_COPY_P2P: not yet" };
        let start = [if p2p { SET_UP } else { TO_PRE_COPY }, &["> quiesce", question]].concat();
        play(&[&start, &["> retreat", "set RUNNING_P2P to recover: ok", quiet], &to_run]);
        play(&[&start, &to_run]);
    }
}

#[test]
fn without_quiesce_retreat_is_cancel_in_every_phase() {
    let runs = "failed: cancelled; the device is in RUNNING";
    let back = ["set RUNNING to recover: ok", runs];
    let phases: [(&[&[&str]], bool); 8] = [
        (&[&["idle Ready(Running)"]], true),
        (&[SET_UP, &["idle SetUp"]], true),
        (&[&["> setup pre_copy", "set PRE_COPY: not yet"]], false),
        (&[TO_PRE_COPY, &["idle PreCopy: 0 read, nothing known"]], false),
        (&[TO_PRE_COPY, &["> measure", "precopy info: not yet"]], false),
        (&[TO_PRE_COPY, &["> copy_chunk", "read data, room for 40: not yet"]], false),
        (&[TO_PRE_COPY, &["> stop", "set STOP_COPY: not yet"]], false),
        (&[TO_PRE_COPY, &["> stop", "set STOP_COPY: ok"], COPIED, FINISHED, &["idle Stopped"]], false),
    ];
    for (script, there) in phases {
        for order in ["> cancel", "> retreat"] {
            let end = &back[usize::from(there)..];
            play(&[&script.concat(), &[order], end, &["> cancel", runs, "> retreat", runs]]);
        }
    }
}

#[test]
fn giving_up_changes_nothing_once_a_reset_is_on_its_way_or_done() {
    let refused = ["> retreat", "set RUNNING_P2P to recover: error 16"];
    for quiesced in QUIESCED {
        let start = [&quiesced.concat()[..], &["> stop", "set STOP_COPY: ok"], &refused].concat();
        for (answer, end) in [("reset: ok", RESET), ("reset: error 18", UNKNOWN)] {
            let failed = format!("failed: cancelled; {end}");
            let give_up = ["reset: not yet", "> cancel", "> retreat", answer, &failed];
            play(&[&start, &give_up, &["> cancel", &failed, "> retreat", &failed]]);
        }
    }
}

#[test]
fn a_second_retreat_leaves_the_question_of_the_first_as_it_is() {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, true, &mut buffer).unwrap();
    let pending = ["> stop", "set STOP_COPY: ok", "> retreat", "set RUNNING_P2P: not yet", "> retreat"];
    play_source(&mut source, &mut Ends::default(), &[&QUIESCED[1].concat()[..], &pending].concat());
    source.complete(SourceDone::SetState(Ok(()))).unwrap();
    let quiet = ["failed: cancelled; the device is in RUNNING_P2P"];
    play_source(&mut source, &mut Ends::default(), &quiet);
}

#[test]
fn an_answer_behind_a_retreat_is_misuse() {
    let mut buffer = [0xa5; 64];
    let mut source = Source::new(ALL, State::Running, true, &mut buffer).unwrap();
    let measure = [TO_PRE_COPY, &["> measure", "precopy info: not yet", "> retreat"]].concat();
    play_source(&mut source, &mut Ends::default(), &measure);
    let late = SourceDone::PrecopyInfo(Ok(Default::default()));
    assert_eq!(source.complete(late), Err(Misuse::WrongDone));
    let back = ["set RUNNING to recover: ok", "failed: cancelled; the device is in RUNNING"];
    play_source(&mut source, &mut Ends::default(), &back);
}
