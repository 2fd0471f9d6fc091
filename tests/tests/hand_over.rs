//! Devices that hand their state over to others of the same machine: both sides end well, or the sources go on as if
//! nothing had been.
//!
//! Deliberately absent: pre-copy's rounds, which `transfer_precopy.rs` has.

use std::sync::atomic::{AtomicUsize, Ordering};

use vfio_migration_core::device::State;
use vfio_migration_core::session::{Code, Event, Left};
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::transfer::{self, Error, Leave, Load, Reason, Report, Save, Watch};
use vfio_migration_tests::transfer::{Fleet, Log, Role, at, must_end, quick, quiet};

/// A healthy device of these tests; in PRE_COPY it has initial data, and then three rounds.
const HEALTHY: &str = "size=150,initial=60,dirty=30,dirty-for=3";

/// Both sides of a move.
struct Sides {
    log: Log,
    sources: Fleet,
    destinations: Fleet,
}

impl Sides {
    fn new(sources: &[String], destinations: &[String]) -> Self {
        let log = Log::default();
        let near = Fleet::new("a", sources, 64, &log, 0);
        let far = Fleet::new("b", destinations, 64, &log, sources.len());
        Self { log, sources: near, destinations: far }
    }

    fn hand_over(
        &mut self,
        pre_copy: bool,
        interrupt: Option<Interrupt>,
        watch: &impl Watch,
    ) -> Result<Report, Error> {
        let pre_copy = pre_copy.then(quick);
        let save = Save { leave: Some(Leave::Stopped), pre_copy, interrupt, ..Save::default() };
        let (near, far) = (self.sources.members(), self.destinations.members());
        let report = transfer::hand_over(near, far, &save, &Load::default(), watch);
        if save.pre_copy.is_some() {
            self.sources.take_contents_as_given();
        }
        report
    }

    /// Holds both sides against what must be true however it ended; returns the error, where there is one.
    fn check(&self, outcome: Result<Report, Error>, what: &str) -> Option<Error> {
        let (near, far) = (self.sources.devices.len(), self.destinations.devices.len());
        self.log.assert_lockstep(0..near, Role::Source);
        self.log.assert_lockstep(near..near + far, Role::Destination);
        let Err(error) = outcome else {
            assert_eq!(self.sources.states(), vec![State::Stop; near], "{what}");
            assert_eq!(self.destinations.states(), vec![State::Running; far], "{what}");
            assert_eq!(self.destinations.contents(), self.sources.contents(), "{what}");
            return None;
        };
        self.assert_one_life(&error, what);
        self.sources.assert_as_told(&error, what);
        self.destinations.assert_as_told_or_loaded(&error, self.sources.given(), what);
        Some(error)
    }

    /// Never do both a source and its destination run with the same content, and never does neither have it, unless the
    /// source had to be reset, or is not known.
    fn assert_one_life(&self, error: &Error, what: &str) {
        for at in 0..self.sources.devices.len().min(self.destinations.devices.len()) {
            let (near, far) = (self.sources.sim(at), self.destinations.sim(at));
            let has = near.content().iter().any(|byte| *byte != 0);
            let runs = |state| state == State::Running;
            let twice = has && near.content() == far.content();
            assert!(
                !(twice && runs(near.get_state()) && runs(far.get_state())),
                "{what}: number {at} runs twice: {error}"
            );
        }
    }
}

fn healthy(seeds: [u64; 2]) -> [String; 2] {
    seeds.map(|seed| format!("{HEALTHY},seed={seed}"))
}

#[test]
fn one_to_four_devices_move_with_and_without_pre_copy() {
    for count in 1..=4_usize {
        for pre_copy in [false, true] {
            must_end(&format!("{count} devices"), move || {
                let configs = |seed: usize| -> Vec<String> {
                    (0..count).map(|at| format!("size={},initial=60,seed={}", at * 1000, seed + at)).collect()
                };
                let mut sides = Sides::new(&configs(1), &configs(100));
                let outcome = sides.hand_over(pre_copy, None, &quiet);
                assert_eq!(outcome.as_ref().map(|report| report.entries.len()).ok(), Some(count));
                assert!(sides.check(outcome, "healthy").is_none());
            });
        }
    }
}

/// Moves devices of which one side's number `bad` has `fault`; returns whether it failed, as it should.
fn with_fault(fault: &str, of_source: bool, bad: usize, pre_copy: bool) -> bool {
    let what = format!("{fault}, {} {bad}", if of_source { "source" } else { "destination" });
    let (mut near, mut far) = (healthy([1, 2]), healthy([101, 102]));
    let place = if of_source { &mut near[bad] } else { &mut far[bad] };
    place.push(',');
    place.push_str(fault);
    let mut sides = Sides::new(&near, &far);
    let outcome = sides.hand_over(pre_copy, None, &quiet);
    let Some(error) = sides.check(outcome, &what) else { return false };
    let side = if of_source { &sides.sources } else { &sides.destinations };
    assert_eq!(at(&error), Some(&*side.idstrs()[bad]), "{what}: {error}");
    let Reason::Session { cause, .. } = &error.reason else { panic!("{what}: {error}") };
    assert_eq!(cause.code(), Some(Code(5)), "{what}: {error}");
    assert_eq!(error.devices.len(), 4, "{what}: {error}");
    true
}

/// Lets each call of `operation` fail; returns how many did.
fn each_call(operation: &str, more: &str, of_source: bool, pre_copy: bool) -> usize {
    let mut failed = 0;
    for bad in [0, 1] {
        for nth in 1.. {
            let fault = format!("fail={operation}:{nth}{more}");
            let what = fault.clone();
            if !must_end(&what, move || with_fault(&fault, of_source, bad, pre_copy)) {
                break;
            }
            failed += 1;
        }
    }
    failed
}

#[test]
fn a_source_that_refuses_a_set_before_the_destinations_run_takes_its_state_back() {
    for more in ["", ":EIO:first", ":EIO:error"] {
        for state in ["running_p2p", "stop_copy"] {
            assert_eq!(each_call(&format!("set-{state}"), more, true, false), 2, "{state}");
        }
        for state in ["pre_copy", "pre_copy_p2p", "stop_copy"] {
            assert_eq!(each_call(&format!("set-{state}"), more, true, true), 2, "{state}");
        }
    }
}

#[test]
fn a_source_that_refuses_to_finish_once_the_destinations_run_lets_no_device_run_twice() {
    for more in ["", ":EIO:first", ":EIO:error", ",fail=reset:1"] {
        for bad in [0, 1] {
            let fault = format!("fail=set-stop:1{more}");
            assert!(must_end("finish", move || with_fault(&fault, true, bad, false)));
        }
    }
}

#[test]
fn a_source_that_refuses_a_read_takes_its_state_back() {
    assert!(each_call("read", "", true, false) >= 2 * 5);
    assert!(each_call("read", ",fail=reset:1", true, true) >= 2 * 5);
    assert!(each_call("info", "", true, true) >= 2);
}

#[test]
fn a_destination_that_refuses_a_set_leaves_the_sources_as_they_were() {
    for more in ["", ":EIO:first", ":EIO:error", ",fail=reset:1"] {
        assert!(each_call("set", more, false, false) >= 2 * 4);
        assert!(each_call("set", more, false, true) >= 2 * 4);
    }
}

#[test]
fn a_destination_that_refuses_a_write_leaves_the_sources_as_they_were() {
    assert!(each_call("write", "", false, false) >= 2 * 5);
    assert!(each_call("write", "", false, true) >= 2 * 5);
}

#[test]
fn of_two_single_devices_the_one_that_refuses_is_named() {
    let table = [
        ("fail=set-stop_copy:1", "", "sim@a.0/vfio"),
        ("fail=read:1", "", "sim@a.0/vfio"),
        ("fail=set-stop:1", "", "sim@a.0/vfio"),
        ("", "fail=set-resuming:1", "sim@b.0/vfio"),
        ("", "fail=write:1", "sim@b.0/vfio"),
        ("", "fail=set-stop:1", "sim@b.0/vfio"),
        ("", "fail=set-running:1", "sim@b.0/vfio"),
    ];
    for (near, far, name) in table {
        let configs =
            [near, far].map(|more| [format!("size=100,seed=3,{more}").trim_end_matches(',').to_owned()]);
        let error = must_end(name, move || {
            let mut sides = Sides::new(&configs[0], &configs[1]);
            sides.hand_over(false, None, &quiet).unwrap_err()
        });
        assert_eq!(at(&error), Some(name), "{near} {far}: {error}");
        assert!(error.to_string().starts_with(&format!("'{name}': ")), "{error}");
        assert_eq!(error.devices.len(), 2, "{error}");
    }
}

#[test]
fn destinations_that_cannot_take_part_are_refused_before_a_source_is_touched() {
    let other_count = [healthy([1, 2]).to_vec(), vec![HEALTHY.to_owned()]];
    let too_many = [vec![HEALTHY.to_owned()], healthy([1, 2]).to_vec()];
    let no_p2p = [healthy([1, 2]).to_vec(), vec![HEALTHY.to_owned(), format!("{HEALTHY},flags=5")]];
    for pre_copy in [false, true] {
        for [near, far] in [&other_count, &too_many, &no_p2p] {
            let (near, far) = (near.clone(), far.clone());
            must_end("refused", move || {
                let mut sides = Sides::new(&near, &far);
                let error = sides.hand_over(pre_copy, None, &quiet).unwrap_err();
                let all = near.len() + far.len();
                let touched: usize = (0..all).map(|number| sides.log.count(number)).sum();
                assert_eq!(touched, 0, "SETs and resets: {error}");
                assert_eq!(error.devices.len(), all, "{error}");
            });
        }
    }
}

#[test]
fn a_destination_of_another_driver_leaves_the_sources_running_with_their_content() {
    for bad in [0, 1] {
        must_end("driver", move || {
            let mut sides = Sides::new(&healthy([1, 2]), &healthy([101, 102]));
            sides.destinations.identities[bad].driver = "mlx5_vfio_pci".into();
            let outcome = sides.hand_over(false, None, &quiet);
            let error = sides.check(outcome, "driver").unwrap();
            assert!(matches!(error.reason, Reason::OtherDriver { .. }), "{error}");
            assert_eq!(at(&error), Some(&*sides.destinations.idstrs()[bad]), "{error}");
            assert_eq!(sides.sources.states(), [State::Running; 2]);
        });
    }
}

#[test]
fn an_interrupt_at_any_event_ends_it_with_the_sources_as_they_were_or_comes_too_late() {
    let mut interrupted = 0;
    for pre_copy in [false, true] {
        for nth in 1.. {
            let (events, was) = must_end("interrupt", move || interrupt_at(nth, pre_copy));
            interrupted += usize::from(was);
            if events < nth {
                break;
            }
        }
    }
    assert!(interrupted > 40, "{interrupted}");
}

/// Asks for an interrupt at the event `nth`; returns how many events there were, and whether it was heeded.
fn interrupt_at(nth: usize, pre_copy: bool) -> (usize, bool) {
    let interrupt = Interrupt::new().unwrap();
    let events = AtomicUsize::new(0);
    let watch = |_: &Event| {
        if events.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            interrupt.ask(2);
        }
    };
    let mut sides = Sides::new(&healthy([1, 2]), &healthy([101, 102]));
    let outcome = sides.hand_over(pre_copy, Some(interrupt.clone()), &watch);
    let error = sides.check(outcome, &format!("interrupt at {nth}"));
    if let Some(error) = &error {
        assert!(error.reason.is_interrupt(), "interrupt at {nth}: {error}");
        assert_eq!(sides.sources.states(), [State::Running; 2], "interrupt at {nth}: {error}");
        assert!(error.devices[..].iter().all(|(_, left)| *left != Left::Unknown));
    }
    (events.into_inner(), error.is_some())
}
