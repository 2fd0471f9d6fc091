//! Pre-copy of whole transfers: rounds that get smaller, rounds that never do, initial data that must be loaded before a
//! stop, and devices that have nothing.
//!
//! Deliberately absent: the clock. What must not spin is counted, and waits that would be told by time are so long that
//! nothing but an interrupt ends them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::precopy::Backoff;
use vfio_migration_core::session::{Code, DataRead, Event, Left, PrecopyInfo};
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::transfer::{
    self, Error, Leave, Load, Member, Migratable, PreCopy, Reason, Report, Save, Watch,
};
use vfio_migration_tests::transfer::{Fleet, Log, Logged, Role, must_end, quick, quiet};

/// Everything that was told of, in its order.
#[derive(Default)]
struct Told {
    events: Mutex<Vec<(String, Event)>>,
    loaded: Mutex<Vec<usize>>,
}

impl Watch for Told {
    fn event(&self, device: &str, event: &Event) {
        self.events.lock().unwrap().push((device.to_owned(), *event));
    }

    fn initial_data_loaded(&self, _: &str, _: bool) {
        let now = self.events.lock().unwrap().len();
        self.loaded.lock().unwrap().push(now);
    }
}

impl Told {
    /// Where among the events the device `name` was first asked for one of `states`.
    fn first(&self, name: &str, states: &[State]) -> Option<usize> {
        let events = self.events.lock().unwrap();
        events.iter().position(|(device, event)| {
            device == name && matches!(event, Event::SetState { state, .. } if states.contains(state))
        })
    }

    /// How often a device was asked how much it has, and how often it was read in PRE_COPY in vain, by name.
    fn questions(&self) -> HashMap<String, (usize, usize)> {
        let mut counts = HashMap::new();
        for (device, event) in self.events.lock().unwrap().iter() {
            let (asked, vain): &mut (usize, usize) = counts.entry(device.clone()).or_default();
            match event {
                Event::PrecopyInfo { .. } => *asked += 1,
                Event::ReadData { result: Ok(DataRead::Drained), .. } => *vain += 1,
                _ => {}
            }
        }
        counts
    }
}

fn fleets(near: &[&str], far: &[&str], buffer: usize) -> (Log, Fleet, Fleet) {
    let log = Log::default();
    let sources = Fleet::new("a", near, buffer, &log, 0);
    let destinations = Fleet::new("b", far, buffer, &log, near.len());
    (log, sources, destinations)
}

fn hand_over(
    sources: &mut Fleet,
    destinations: &mut Fleet,
    pre_copy: PreCopy<'_>,
    watch: &impl Watch,
) -> Result<Report, Error> {
    let save = Save { leave: Some(Leave::Stopped), pre_copy: Some(pre_copy), ..Save::default() };
    transfer::hand_over(sources.members(), destinations.members(), &save, &Load::default(), watch)
}

const WAYS: [&str; 11] = [
    "initial=24",
    "initial=700",
    "dirty=100,dirty-for=0",
    "initial=24,dirty=100,dirty-for=9",
    "initial=1KiB,dirty=300,dirty-for=3,drained=0",
    "initial=5KiB,dirty=1000,dirty-for=5,increment=always",
    "initial=5KiB,dirty=1000,dirty-for=5,increment=always,drained=0",
    "initial=300,dirty=999,dirty-for=4,reinit=2,short=7",
    "initial=100,dirty=5,dirty-for=2,reinit=0,info=stale,flags=5",
    "reinit=1,v2=no,increment=always",
    "dirty=1KiB,dirty-for=2,data-size=0",
];

#[test]
fn a_device_whose_rounds_end_arrives_with_its_last_content() {
    for way in WAYS {
        for buffer in [64, 4096] {
            must_end(way, move || {
                let near = format!("size=1000,seed=1,{way}");
                let (_, mut sources, mut destinations) = fleets(&[&near], &["size=1000"], buffer);
                let plan = Save { pre_copy: Some(quick()), ..Save::default() };
                let (stream, _) = sources.save(&plan, &quiet).unwrap();
                destinations.load(&stream, &Load::default()).unwrap();
                assert_eq!(destinations.contents(), sources.contents(), "{way}");
            });
        }
    }
}

/// A device that takes longer than [`SHORT`] on any machine to give all that it has.
const LARGE: &str = "size=4MiB,seed=2,initial=8MiB,short=65536,slow=2000";
const SHORT: Duration = Duration::from_millis(60);

#[test]
fn what_would_take_too_long_in_a_stop_is_copied_before_it() {
    for more in ["", ",drained=0", ",dirty=64B,dirty-for=5", ",increment=always"] {
        must_end(more, move || {
            let near = format!("{LARGE}{more}");
            let (_, mut sources, _) = fleets(&[&near], &[], 1 << 18);
            let pre_copy = PreCopy { downtime: SHORT, ..quick() };
            let plan = Save { pre_copy: Some(pre_copy), ..Save::default() };
            let (_, saved) = sources.save(&plan, &quiet).unwrap();
            assert!(saved.downtime_bytes < 3 << 20, "{near}: {}", saved.downtime_bytes);
        });
    }
}

#[test]
fn a_stop_is_not_taken_for_a_short_one_before_any_data_have_moved() {
    for size in ["100KiB", "1MiB"] {
        must_end(size, move || {
            let near = format!("size={size},seed=2,initial=8MiB");
            let (_, mut sources, _) = fleets(&[&near], &[], 1 << 18);
            let told = Told::default();
            let plan = Save { pre_copy: Some(quick()), ..Save::default() };
            sources.save(&plan, &told).unwrap();
            let stop = told.first("sim@a.0/vfio", &[State::StopCopy]).unwrap();
            let events = told.events.lock().unwrap();
            let read = events.iter().position(|(_, event)| matches!(event, Event::ReadData { .. })).unwrap();
            assert!(read < stop, "{size}: nothing was read, and nothing known, when the device was stopped");
        });
    }
}

#[test]
fn devices_with_and_without_pre_copy_move_together_with_their_last_contents() {
    for way in WAYS.into_iter().filter(|way| !way.contains("flags")) {
        must_end(way, move || {
            let near = [
                format!("size=1000,seed=1,{way}"),
                "size=500,seed=2,flags=3".into(),
                format!("size=1000,seed=3,{way}"),
            ];
            let near: Vec<_> = near.iter().map(String::as_str).collect();
            let far = ["size=1000", "size=500,flags=3", "size=1000"];
            let (log, mut sources, mut destinations) = fleets(&near, &far, 64);
            hand_over(&mut sources, &mut destinations, quick(), &quiet).unwrap();
            assert_eq!(destinations.contents(), sources.contents(), "{way}");
            log.assert_lockstep(0..3, Role::Source);
            log.assert_lockstep(3..6, Role::Destination);
        });
    }
}

#[test]
fn initial_data_are_loaded_on_the_other_side_before_any_source_is_stopped() {
    let table: [(&[&str], &[&str], usize); 5] = [
        (&["size=300,initial=200"], &["size=300,slow=3000"], 1),
        (&["size=300,initial=200", "size=0"], &["size=300,slow=3000", "size=0"], 2),
        (&["size=300,initial=200,flags=3", "size=90"], &["size=300,flags=3", "size=90,slow=3000"], 1),
        (&["size=300,initial=200,dirty=10,dirty-for=3,reinit=2"], &["size=300,slow=3000"], 2),
        (
            &["size=300,initial=200,dirty=10,dirty-for=3,reinit=1", "size=300,dirty=10,dirty-for=2,reinit=2"],
            &["size=300,slow=1000", "size=300"],
            4,
        ),
    ];
    for (near, far, loaded) in table {
        must_end(&format!("{near:?}"), move || {
            let (_, mut sources, mut destinations) = fleets(near, far, 64);
            let told = Told::default();
            hand_over(&mut sources, &mut destinations, quick(), &told).unwrap();
            assert_eq!(destinations.contents(), sources.contents(), "{near:?}");
            let quiet = [State::RunningP2p, State::PreCopyP2p, State::StopCopy];
            let stop = sources.idstrs().iter().filter_map(|name| told.first(name, &quiet)).min().unwrap();
            let before = told.loaded.lock().unwrap().iter().filter(|at| **at <= stop).count();
            assert_eq!(before, loaded, "{near:?}: loaded before the first stop");
        });
    }
}

#[test]
fn a_destination_without_pre_copy_is_not_waited_for_in_a_move() {
    must_end("no pre-copy", || {
        let (_, mut sources, mut destinations) = fleets(&["size=300,seed=1"], &["size=300,flags=3"], 64);
        hand_over(&mut sources, &mut destinations, quick(), &quiet).unwrap();
        assert_eq!(destinations.contents(), sources.contents());
        assert_eq!((sources.states(), destinations.states()), (vec![State::Stop], vec![State::Running]));
    });
}

/// Saves a device whose guest never stops writing, and which nothing but patience or an interrupt stops; returns the
/// error and the device.
fn never_converging(config: &'static str, downtime: Duration) -> (Error, Fleet) {
    must_end(config, move || {
        let (_, mut sources, _) = fleets(&[config], &[], 1 << 20);
        let interrupt = Interrupt::new().unwrap();
        let rounds = std::sync::atomic::AtomicUsize::new(0);
        let watch = |event: &Event| {
            let asked = matches!(event, Event::PrecopyInfo { .. });
            if asked && rounds.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == ROUNDS {
                interrupt.ask(2);
            }
        };
        let pre_copy = PreCopy { downtime, patience: Duration::from_millis(20), ..quick() };
        let plan = Save { pre_copy: Some(pre_copy), interrupt: Some(interrupt.clone()), ..Save::default() };
        let Err(error) = sources.save(&plan, &watch) else { panic!("{config}: saved") };
        (error, sources)
    })
}

/// So many rounds are more than any patience of these tests.
const ROUNDS: usize = 500;

#[test]
fn a_guest_that_writes_as_quickly_as_is_copied_ends_pre_copy_after_its_patience_and_the_device_runs() {
    let configs = [
        "size=1MiB,seed=1,initial=8MiB,dirty=1MiB",
        "size=1MiB,seed=1,initial=8MiB,dirty=1MiB,short=4096",
        "size=1MiB,seed=1,initial=8MiB,dirty=1MiB,increment=always",
        "size=1MiB,seed=1,initial=8MiB,dirty=1MiB,drained=0",
    ];
    for config in configs {
        let (error, sources) = never_converging(config, Duration::from_nanos(1));
        assert!(matches!(error.reason, Reason::WillNotConverge(_)), "{config}: {error}");
        assert_eq!(error.devices[0].1, Left::At(State::Running), "{config}: {error}");
        assert_eq!(sources.states(), [State::Running]);
    }
}

#[test]
fn rounds_that_never_get_smaller_end_pre_copy_after_its_patience_though_each_is_read_quickly() {
    // Each round is made while the last one is read and sent, which together take longer than either. One read takes a
    // whole round: a stop is never asked about in the middle of one.
    let table = [
        ("size=256KiB,seed=1,initial=8MiB,dirty=256KiB,slow=1000", Duration::from_micros(900)),
        ("size=512KiB,seed=1,initial=8MiB,dirty=512KiB", Duration::from_micros(5)),
    ];
    for (config, downtime) in table {
        let (error, sources) = never_converging(config, downtime);
        assert!(matches!(error.reason, Reason::WillNotConverge(_)), "{config}: {error}");
        assert_eq!(sources.states(), [State::Running]);
    }
}

#[test]
fn a_state_that_only_stop_copy_gives_and_takes_too_long_ends_pre_copy_after_its_patience() {
    let config = "size=1MiB,seed=1,initial=128KiB,data-size=1GiB";
    let (error, sources) = never_converging(config, Duration::from_micros(10));
    assert!(matches!(error.reason, Reason::WillNotConverge(_)), "{error}");
    sources.assert_as_told(&error, "only in STOP_COPY");
}

#[test]
fn of_two_devices_the_one_that_is_done_neither_ends_it_for_the_other_nor_asks_on() {
    must_end("two", || {
        let near = ["size=0,seed=1", "size=64KiB,seed=2,initial=1MiB,dirty=1KiB,dirty-for=300"];
        let (_, mut sources, _) = fleets(&near, &[], 1 << 12);
        let interrupt = Interrupt::new().unwrap();
        let told = Told::default();
        let watch = Both(&told, |device: &str, event: &Event| {
            // The other one has nothing any more: nothing but this ends the first one's hour.
            let done = matches!(event, Event::PrecopyInfo { result: Ok(info) } if info.total() == 0);
            if done && device.contains("a.1") {
                interrupt.ask(2);
            }
        });
        let hour = Duration::from_secs(3600);
        let pre_copy = PreCopy { backoff: Backoff::new(hour, hour), downtime: Duration::ZERO, ..quick() };
        let plan = Save { pre_copy: Some(pre_copy), interrupt: Some(interrupt.clone()), ..Save::default() };
        let error = sources.save(&plan, &watch).map(drop).unwrap_err();
        assert!(error.reason.is_interrupt(), "{error}");
        let questions = told.questions();
        let (asked, vain) = questions["sim@a.0/vfio"];
        assert!(asked <= 3 && vain <= 1, "asked {asked} times, read {vain} times in vain");
        assert!(questions["sim@a.1/vfio"].0 >= 300, "{questions:?}");
    });
}

/// A watch and a closure.
struct Both<'a, F>(&'a Told, F);

impl<F: Fn(&str, &Event) + Sync> Watch for Both<'_, F> {
    fn event(&self, device: &str, event: &Event) {
        self.0.event(device, event);
        (self.1)(device, event);
    }
}

/// A device whose first answer to PRECOPY_INFO comes once `until` says so, or not at all for a while.
struct Late<'a> {
    inner: &'a mut Logged,
    until: Box<dyn FnMut() + Send + 'a>,
}

impl Device for Late<'_> {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        self.inner.set_state(state)
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        (self.until)();
        self.inner.precopy_info()
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        self.inner.read_data(buffer)
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.inner.write_data(bytes)
    }

    fn reset(&mut self) -> Result<(), Code> {
        self.inner.reset()
    }
}

impl Migratable for Late<'_> {
    fn data_size(&self) -> Option<u64> {
        self.inner.data_size()
    }
}

#[test]
fn a_device_that_answers_late_what_it_has_is_copied_before_the_stop_all_the_same() {
    must_end("late", || {
        let (_, mut sources, _) = fleets(&["size=100,seed=1,initial=1KiB", LARGE], &[], 1 << 18);
        let told = Told::default();
        let questions = || told.questions().get("sim@a.0/vfio").map_or(0, |(asked, _)| *asked);
        let mut late: Vec<_> =
            sources.devices.iter_mut().map(|inner| Late { inner, until: Box::new(|| {}) }).collect();
        // By its fourth question the other device has had nothing twice, and would have been decided on; where it was
        // decided, no more come.
        let mut first = true;
        late[1].until = Box::new(move || {
            let mut patience = std::mem::take(&mut first).then_some(300);
            while let Some(left @ 1..) = patience.filter(|_| questions() < 4) {
                std::thread::park_timeout(Duration::from_millis(1));
                patience = Some(left - 1);
            }
        });
        let mut buffers = vec![vec![0xa5; 1 << 18]; 2];
        let identities = &sources.identities;
        let members =
            late.iter_mut().zip(identities).zip(&mut buffers).map(|((device, identity), buffer)| {
                let (features, now) = (device.inner.assigned.sim.features(), State::Running);
                Member { device, features, now, identity, idstr: identity.idstr(), buffer }
            });
        let pre_copy = PreCopy { downtime: SHORT, ..quick() };
        let plan = Save { pre_copy: Some(pre_copy), ..Save::default() };
        let link = vfio_migration_host::link::Link::new(vfio_migration_tests::transfer::temporary(), None);
        let report = transfer::save(members.collect(), link, &plan, || Ok(()), &told).unwrap();
        let in_downtime = report.downtime_bytes;
        assert!(in_downtime < 3 << 20, "{in_downtime} bytes were copied while the devices stood still");
    });
}
