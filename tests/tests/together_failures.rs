//! Two devices of which one fails: at every operation, at each of its calls, wherever that leaves it, and with a recovery
//! that fails too. Nothing hangs, the first cause and its device are told, every device is where it is told to be, and
//! no device works while another one stands still.
//!
//! Deliberately absent: both sides at once, which `hand_over.rs` has, and the links between them (`transfer_links.rs`).

use std::collections::BTreeSet;

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Code, Left};
use vfio_migration_host::transfer::{Error, Load, Reason, Save};
use vfio_migration_tests::transfer::{Fleet, Log, Role, at, must_end, quick, quiet};

/// A healthy device of these tests; in PRE_COPY it has initial data, and then three rounds.
const HEALTHY: &str = "size=150,initial=60,dirty=30,dirty-for=3";
const EIO: Code = Code(5);

/// Each way in which one call fails, and what else does.
fn faults(operation: &str) -> Vec<String> {
    let mut faults: Vec<_> = ["", ",fail=reset:1", ",fail=reset:*,fail=get:*"]
        .iter()
        .map(|more| format!("fail={operation}:NTH{more}"))
        .collect();
    if operation.starts_with("set") {
        for after in ["first", "error"] {
            faults.push(format!("fail={operation}:NTH:EIO:{after}"));
            faults.push(format!("fail={operation}:NTH:EIO:{after},fail=reset:1:EIO:unknown"));
        }
        faults.push(format!("fail={operation}:NTH,fail={operation}:NEXT"));
        faults.push(format!("fail={operation}:NTH:EIO:first,fail={operation}:NEXT:EIO:first,fail=reset:1"));
    }
    faults
}

/// The configurations of two devices of which number `bad` has `fault`, at the call `nth`.
fn configs(bad: usize, fault: &str, nth: usize) -> [String; 2] {
    let fault = fault.replace("NTH", &nth.to_string()).replace("NEXT", &(nth + 1).to_string());
    [0, 1].map(|number| {
        let fault = if number == bad { format!(",{fault}") } else { String::new() };
        format!("{HEALTHY},seed={}{fault}", number + 1)
    })
}

/// Runs `once` for every fault of `operation` in either device, for as many calls as there are; returns how many failed.
fn at_every_call(operation: &'static str, once: fn(&[String; 2], usize) -> bool) -> usize {
    let mut failed = 0;
    for fault in faults(operation) {
        for bad in [0, 1] {
            // How many calls of pre-copy there are is for the threads to say: one that was not made may be the next time.
            let (mut nth, mut missed) = (1, 0);
            while missed < 3 {
                let configs = configs(bad, &fault, nth);
                let what = format!("{configs:?}");
                assert!(nth < 1000, "{what}: it always fails");
                let was = must_end(&what, move || once(&configs, bad));
                failed += usize::from(was);
                missed = if was { 0 } else { missed + 1 };
                nth += 1;
            }
        }
    }
    failed
}

/// What the first cause must be, at whom.
fn check(error: &Error, fleet: &Fleet, bad: usize, what: &str) {
    assert_eq!(at(error), Some(&*fleet.idstrs()[bad]), "{what}: {error}");
    let Reason::Session { cause, .. } = &error.reason else { panic!("{what}: {error}") };
    assert_eq!(cause.code(), Some(EIO), "{what}: {error}");
    fleet.assert_as_told(error, what);
    let [name, other] = [bad, 1 - bad].map(|number| fleet.idstrs()[number].clone());
    assert!(error.to_string().starts_with(&format!("'{name}': ")), "{what}: {error}");
    assert!(error.to_string().contains(&other), "{what}: {error}");
}

/// Saves two devices; returns whether it failed, as it should.
fn save(configs: &[String; 2], bad: usize, plan: &Save<'_>) -> bool {
    let what = format!("{configs:?}");
    let log = Log::default();
    let mut sources = Fleet::new("a", configs, 64, &log, 0);
    let saved = sources.save(plan, &quiet);
    log.assert_lockstep(0..2, Role::Source);
    let Err(error) = saved else { return false };
    let guest_wrote = plan.pre_copy.is_some();
    if guest_wrote {
        sources.take_contents_as_given();
    }
    check(&error, &sources, bad, &what);
    let healthy = error.devices[1 - bad].1;
    assert_eq!(healthy, Left::At(State::Running), "{what}: the healthy device: {error}");
    true
}

fn save_stopped(configs: &[String; 2], bad: usize) -> bool {
    save(configs, bad, &Save::default())
}

fn save_with_pre_copy(configs: &[String; 2], bad: usize) -> bool {
    save(configs, bad, &Save { pre_copy: Some(quick()), ..Save::default() })
}

fn load(configs: &[String; 2], bad: usize) -> bool {
    let what = format!("{configs:?}");
    let log = Log::default();
    let mut sources = Fleet::new("a", &configs_of_sources(), 64, &log, 10);
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    let mut destinations = Fleet::new("b", configs, 64, &log, 0);
    let loaded = destinations.load(&stream, &Load::default());
    log.assert_lockstep(0..2, Role::Destination);
    let Err(error) = loaded else {
        assert_eq!(destinations.contents(), sources.contents(), "{what}");
        return false;
    };
    check(&error, &destinations, bad, &what);
    let healthy = error.devices[1 - bad].1;
    assert!(matches!(healthy, Left::At(State::Running) | Left::Reset), "{what}: the healthy device: {error}");
    true
}

fn configs_of_sources() -> [String; 2] {
    [11, 12].map(|seed| format!("{HEALTHY},seed={seed}"))
}

#[test]
fn a_source_that_refuses_any_set_is_told_and_all_come_back_in_lockstep() {
    assert!(at_every_call("set", save_stopped) >= 4 * 2 * 9);
}

#[test]
fn a_source_that_refuses_any_set_with_pre_copy_is_told_and_all_come_back_in_lockstep() {
    assert!(at_every_call("set", save_with_pre_copy) >= 5 * 2 * 9);
}

#[test]
fn a_source_that_refuses_any_read_is_told_and_all_come_back_in_lockstep() {
    assert!(at_every_call("read", save_stopped) >= 5 * 2 * 3);
    assert!(at_every_call("read", save_with_pre_copy) >= 5 * 2 * 3);
}

#[test]
fn a_source_that_refuses_any_precopy_info_is_told_and_all_come_back() {
    assert!(at_every_call("info", save_with_pre_copy) >= 2 * 3);
}

#[test]
fn a_destination_that_refuses_any_set_is_told_and_all_are_reset_or_as_they_were() {
    assert!(at_every_call("set", load) >= 4 * 2 * 9);
}

#[test]
fn a_destination_that_refuses_any_write_is_told_and_all_are_reset() {
    assert!(at_every_call("write", load) >= 4 * 2 * 3);
}

#[test]
fn a_device_that_does_not_say_where_it_is_nor_how_much_it_has_migrates_all_the_same() {
    for operation in ["get", "data-size", "reset"] {
        for bad in [0, 1] {
            let configs = configs(bad, &format!("fail={operation}:*"), 1);
            must_end(operation, move || {
                assert!(!save_stopped(&configs, bad), "{configs:?}");
                assert!(!save_with_pre_copy(&configs, bad), "{configs:?}");
                assert!(!load(&configs, bad), "{configs:?}");
            });
        }
    }
}

#[test]
fn where_both_fail_one_of_them_is_told_as_first_and_both_are_as_told() {
    let mut first = BTreeSet::new();
    for (operation, nth) in
        [("set-stop_copy", 1), ("read", 1), ("read", 3), ("set-stop", 1), ("set-running_p2p", 1)]
    {
        for more in ["", ",fail=reset:1"] {
            let configs = [1, 2].map(|seed| format!("size=100,seed={seed},fail={operation}:{nth}{more}"));
            let at = must_end(operation, move || {
                let log = Log::default();
                let mut sources = Fleet::new("a", &configs, 64, &log, 0);
                let error = sources.save(&Save::default(), &quiet).unwrap_err();
                sources.assert_as_told(&error, &format!("{configs:?}"));
                log.assert_lockstep(0..2, Role::Source);
                at(&error).unwrap().to_owned()
            });
            first.insert(at);
        }
    }
    assert!(!first.is_empty());
}

#[test]
fn a_device_that_its_guest_resets_is_told_and_the_others_come_back() {
    for call in ["set-running_p2p:1", "set-stop_copy:1", "read:1", "read:3", "set-stop:1", "set-running:1"] {
        let configs = [format!("size=100,seed=1,guest-reset={call}"), "size=100,seed=2".to_owned()];
        must_end(call, move || {
            let log = Log::default();
            let mut sources = Fleet::new("a", &configs, 64, &log, 0);
            let Err(error) = sources.save(&Save::default(), &quiet) else { return };
            assert_eq!(at(&error), Some("sim@a.0/vfio"), "{configs:?}: {error}");
            assert_eq!(sources.states(), [State::Running; 2], "{configs:?}: {error}");
            assert_eq!(error.devices[1].1, Left::At(State::Running), "{configs:?}: {error}");
        });
    }
}
