//! The events of the crate `tracing`: one for each thing that was done, whether it went well or not, with its device, its
//! sizes and how long it took.
//!
//! Deliberately absent: how the program prints them, which `host/tests/program` has.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Mutex, MutexGuard, OnceLock};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use vfio_migration_core::session::event::{Event as Done, Trace};
use vfio_migration_host::trace::{TARGET, emit};
use vfio_migration_host::transfer::{self, Leave, Load, Save, Watch};
use vfio_migration_tests::transfer::{Fleet, Log, quick, quiet};

/// One event: its level, and its fields as text.
type Line = (Level, BTreeMap<&'static str, String>);

/// Keeps everything that any thread of this process tells.
struct Collector;

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        LINES.lock().unwrap().push((*event.metadata().level(), fields.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

/// From here on events are kept; one test at a time.
fn collecting() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static BEGUN: OnceLock<()> = OnceLock::new();
    let one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    BEGUN.get_or_init(|| tracing::subscriber::set_global_default(Collector).unwrap());
    LINES.lock().unwrap().clear();
    one
}

/// What was told since [`collecting`].
fn told() -> Vec<Line> {
    std::mem::take(&mut *LINES.lock().unwrap())
}

/// Everything that a watch was told, by device.
#[derive(Default)]
struct Watched(Mutex<BTreeMap<String, Vec<Done>>>);

impl Watch for Watched {
    fn event(&self, device: &str, event: &Done) {
        self.0.lock().unwrap().entry(device.to_owned()).or_default().push(*event);
    }
}

/// The lines of each device, without those of the transfer as a whole.
fn by_device(lines: &[Line]) -> BTreeMap<String, Vec<&Line>> {
    let mut by_device: BTreeMap<String, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        if let Some(device) = line.1.get("device") {
            by_device.entry(device.clone()).or_default().push(line);
        }
    }
    by_device
}

/// Holds each line against the event that a watch was told: same order, same words, same level, a duration.
fn check(lines: &[Line], watched: &Watched) {
    let lines = by_device(lines);
    let watched = watched.0.lock().unwrap();
    assert_eq!(lines.keys().collect::<Vec<_>>(), watched.keys().collect::<Vec<_>>());
    for (device, events) in watched.iter() {
        assert_eq!(lines[device].len(), events.len(), "{device}");
        for ((level, fields), event) in lines[device].iter().map(|line| (line.0, &line.1)).zip(events) {
            let whole = Trace { device, event: *event, took: None }.to_string();
            let message = &fields["message"];
            assert!(message.starts_with(&whole), "{message}: wanted {whole}");
            assert!(message.ends_with(&format!(" in {} us", fields["took_us"])), "{message}");
            assert_eq!(fields.contains_key("error"), !event.is_ok(), "{message}");
            assert_eq!(level == Level::WARN, !event.is_ok(), "{message}");
        }
    }
}

#[test]
fn each_thing_done_in_a_save_is_one_event_with_its_device_and_duration() {
    let _one = collecting();
    let configs = ["size=100,seed=1,initial=60", "size=50,seed=2,short=7"];
    for count in [1, 2] {
        let mut sources = Fleet::new("save", &configs[..count], 64, &Log::default(), 0);
        let watched = Watched::default();
        let plan = Save { pre_copy: Some(quick()), ..Save::default() };
        sources.save(&plan, &watched).unwrap();
        check(&told(), &watched);
    }
}

#[test]
fn each_thing_done_in_a_failed_move_is_one_event_and_what_was_refused_is_a_warning() {
    let _one = collecting();
    for fault in
        ["set-resuming:1", "write:2", "set-stop:1", "set-running:1:EIO:error", "reset:1,fail=write:1"]
    {
        let log = Log::default();
        let mut sources = Fleet::new("a", &["size=100,seed=1", "size=50,seed=2"], 64, &log, 0);
        let far = [format!("size=100,fail={fault}"), "size=50".to_owned()];
        let mut destinations = Fleet::new("b", &far, 64, &log, 2);
        let watched = Watched::default();
        let save = Save { leave: Some(Leave::Stopped), ..Save::default() };
        let (save, load) = (&save, &Load::default());
        let moved = transfer::hand_over(sources.members(), destinations.members(), save, load, &watched);
        moved.unwrap_err();
        let lines = told();
        check(&lines, &watched);
        let refused: Vec<_> = lines.iter().filter(|line| line.0 == Level::WARN).map(|line| &line.1).collect();
        let by_device =
            refused.iter().any(|fields| fields["device"] == "sim@b.0/vfio" && fields["error"] == "5");
        assert!(by_device, "{fault}: {refused:?}");
    }
}

#[test]
fn data_have_their_sizes_states_their_names_and_precopy_info_its_answer() {
    let _one = collecting();
    let mut source = Fleet::new("sizes", &["size=100,seed=1,initial=60"], 64, &Log::default(), 0);
    let plan = Save { pre_copy: Some(quick()), ..Save::default() };
    let (_, report) = source.save(&plan, &quiet).unwrap();
    let lines = told();
    let of = |action: &str| -> Vec<_> {
        lines.iter().map(|line| &line.1).filter(|fields| fields["action"] == action).collect()
    };
    let sum: u64 = of("read_data").iter().filter_map(|fields| fields.get("bytes")?.parse::<u64>().ok()).sum();
    assert_eq!(sum, report.entries[0].data_bytes);
    assert!(of("read_data").iter().all(|fields| fields["offered"] == "40"));
    let states: Vec<_> = of("set_state").iter().map(|fields| fields["state"].clone()).collect();
    assert_eq!(states, ["PRE_COPY", "STOP_COPY", "STOP", "RUNNING"]);
    assert!(of("set_state").iter().all(|fields| fields["recovery"] == "false"));
    assert_eq!(
        (&*of("precopy_info")[0]["initial_bytes"], &*of("precopy_info")[0]["dirty_bytes"]),
        ("60", "0")
    );
    let advice = lines.iter().filter(|line| !line.1.contains_key("device"));
    assert!(advice.clone().any(|line| line.1["action"] == "stop_now"), "{lines:?}");
    assert!(advice.clone().all(|line| !line.1["message"].is_empty()));
}

#[test]
fn a_reset_before_a_load_is_told_to_both_with_its_duration() {
    let _one = collecting();
    let mut sources = Fleet::new("a", &["size=100,seed=1"], 64, &Log::default(), 0);
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    told();
    let mut destinations = Fleet::new("b", &["size=100"], 64, &Log::default(), 0);
    let device = &mut destinations.devices[0].assigned;
    vfio_migration_core::session::drive::Device::set_state(
        device,
        vfio_migration_core::device::State::StopCopy,
    )
    .unwrap();
    let watched = Watched::default();
    let link = vfio_migration_host::link::Link::new(vfio_migration_tests::transfer::holding(&stream), None);
    transfer::load(destinations.members(), link, &Load::default(), &watched).unwrap();
    check(&told(), &watched);
}

#[test]
fn every_kind_of_event_has_an_action_of_its_own_and_its_whole_line() {
    use vfio_migration_core::device::State;
    use vfio_migration_core::session::{Code, DataRead, PrecopyInfo};
    let _one = collecting();
    let refused = Code(5);
    let table = [
        (
            Done::SetState { state: State::Stop, recovery: true, result: Err(refused) },
            "set_state",
            Level::WARN,
        ),
        (Done::SetState { state: State::Stop, recovery: false, result: Ok(()) }, "set_state", Level::INFO),
        (Done::PrecopyInfo { result: Ok(PrecopyInfo::default()) }, "precopy_info", Level::INFO),
        (Done::PrecopyInfo { result: Err(refused) }, "precopy_info", Level::WARN),
        (Done::ReadData { offered: 9, result: Ok(DataRead::Drained) }, "read_data", Level::DEBUG),
        (Done::ReadData { offered: 9, result: Err(refused) }, "read_data", Level::WARN),
        (Done::Send { offered: 9, result: Ok(4) }, "send", Level::DEBUG),
        (Done::Send { offered: 9, result: Err(refused) }, "send", Level::WARN),
        (Done::SendConfig { result: Ok(()) }, "send_config", Level::INFO),
        (Done::Recv { offered: 9, result: Ok(4) }, "recv", Level::DEBUG),
        (Done::WriteData { offered: 9, result: Ok(4) }, "write_data", Level::DEBUG),
        (Done::WriteData { offered: 9, result: Err(refused) }, "write_data", Level::WARN),
        (Done::RecvConfig { result: Ok(7) }, "recv_config", Level::INFO),
        (Done::Reset { result: Ok(()) }, "reset", Level::INFO),
        (Done::Reset { result: Err(refused) }, "reset", Level::WARN),
    ];
    for (event, action, level) in table {
        let trace = Trace { device: "card", event, took: Some(std::time::Duration::from_micros(12)) };
        emit(&trace);
        let lines = told();
        let [(got, fields)] = &lines[..] else { panic!("{event:?}: {lines:?}") };
        assert_eq!((*got, &*fields["action"], &*fields["took_us"]), (level, action, "12"), "{event:?}");
        assert_eq!(fields["message"], trace.to_string());
        assert_eq!(fields.get("error").map(String::as_str), (!event.is_ok()).then_some("5"), "{event:?}");
        let offered = matches!(
            event,
            Done::ReadData { .. } | Done::Send { .. } | Done::Recv { .. } | Done::WriteData { .. }
        );
        assert_eq!(fields.get("offered").map(String::as_str), offered.then_some("9"), "{event:?}");
    }
}
