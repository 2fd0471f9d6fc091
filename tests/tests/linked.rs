//! A [`Source`] and a [`Destination`], linked: what one reads, the other writes. And what the loop tells of it.
//!
//! Deliberately absent: failures. Each side has its own tests of them.

use std::cell::RefCell;
use std::time::Duration;

use proptest::prelude::*;
use vfio_migration_core::device::State;
use vfio_migration_core::session::event::Observe;
use vfio_migration_core::session::{
    DataRead, Destination, DestinationPhase, Event, Source, SourceEffect, SourcePhase, drive,
};
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_tests::model::{Faults, ModelDevice, ModelLink, Sizes, nobody};
use vfio_migration_tests::script::{ALL, order_destination, order_source};

/// How a device is carried over.
#[derive(Clone, Debug)]
struct Way {
    from: State,
    to: State,
    /// The lengths of the two sides' buffers.
    buffers: [usize; 2],
    /// How much a read, a send, a receive and a write take.
    sizes: [Vec<usize>; 4],
    /// Whether there is lockstep, and how many chunks are copied in STOP_COPY before the rest.
    quiesce: bool,
    chunks: usize,
    pre_copy: Option<PreCopy>,
}

/// How a device is carried over before it stops.
#[derive(Clone, Debug)]
struct PreCopy {
    chunks: usize,
    early: usize,
    initial: usize,
    grows: usize,
    nothing: DataRead,
}

/// A way of a stop-copy migration, in as large pieces as there are.
fn plain(from: State, to: State, buffers: [usize; 2]) -> Way {
    let sizes = [const { vec![] }; 4];
    Way { from, to, buffers, sizes, quiesce: false, chunks: 0, pre_copy: None }
}

/// The source's orders.
fn orders(way: &Way) -> Vec<&'static str> {
    let mut orders = match &way.pre_copy {
        None => vec!["setup"],
        Some(pre_copy) => {
            let chunks = vec!["copy_chunk"; pre_copy.chunks];
            [vec!["setup pre_copy", "measure"], chunks].concat()
        }
    };
    if way.quiesce {
        orders.push("quiesce");
    }
    orders.push("stop");
    orders.extend(vec!["copy_chunk"; way.chunks]);
    orders.extend(["copy_rest", "config", "finish"]);
    orders
}

/// Carries a device's content from one to the other; returns the receiving device.
fn migrate(content: &[u8], config: &[u8], way: &Way) -> ModelDevice {
    let faults = Faults::default();
    let [read, send, receive, write] = way.sizes.each_ref().map(|sizes| Sizes::new(sizes));
    let mut link = ModelLink { config: config.to_vec(), sizes: send, ..ModelLink::new(&[], &faults) };

    let mut device = ModelDevice { sizes: read, ..ModelDevice::new(way.from, content, &faults) };
    if let Some(PreCopy { early, initial, grows, nothing, .. }) = way.pre_copy {
        let early = early.min(content.len());
        device = ModelDevice { early, initial: initial.min(early), grows, nothing, ..device };
    }
    let initial = device.initial;
    let mut buffer = vec![0xa5; way.buffers[0]];
    let mut source = Source::new(ALL, way.from, true, &mut buffer).unwrap();
    for order in orders(way) {
        let before = link.bytes.len();
        // A device that has no data left any more takes no further chunk.
        if order == "copy_chunk" && phase(&mut source) == SourcePhase::Copied {
            continue;
        }
        order_source(&mut source, order).unwrap();
        let phase = drive::source(&mut source, &mut device, &mut link, nobody).unwrap();
        assert!(!matches!(phase, SourcePhase::Failed(_)), "{phase:?}");
        if link.bytes.len() > before {
            link.borders.push(link.bytes.len());
        }
    }
    assert_eq!(device.state, State::Stop);

    // Behind the last payload stands something else, which no one may ask for.
    link.bytes.extend(b"\x7e the rest of the stream");
    link.sizes = receive;
    let mut device = ModelDevice { sizes: write, ..ModelDevice::new(way.to, &[], &faults) };
    let mut buffer = vec![0xa5; way.buffers[1]];
    let mut destination = Destination::new(ALL, way.to, true, &mut buffer).unwrap();
    let sections = vec!["section"; link.borders.len()];
    let end = if way.quiesce { &["stop", "run_p2p", "run"][..] } else { &["stop", "run"] };
    let mut announced = 0;
    for order in ["resume"].iter().chain(&sections).chain(end) {
        order_destination(&mut destination, order).unwrap();
        let phase = drive::destination(&mut destination, &mut device, &mut link, nobody).unwrap();
        match phase {
            DestinationPhase::Section(Terminator::InitDataSent) => {
                announced += 1;
                assert!(device.written.len() >= initial, "announced before all initial data were there");
            }
            DestinationPhase::Section(terminator) => assert_eq!(terminator, Terminator::EndOfState),
            DestinationPhase::Failed(failure) => panic!("{failure}"),
            _ => assert_ne!(*order, "section"),
        }
    }
    assert!(announced <= usize::from(way.pre_copy.is_some()), "announced {announced} times");
    assert_eq!(link.taken + b"\x7e the rest of the stream".len(), link.bytes.len());
    device
}

fn phase(source: &mut Source<'_>) -> SourcePhase {
    let SourceEffect::Idle(phase) = source.poll() else { panic!("not idle") };
    phase
}

fn sizes() -> impl Strategy<Value = [Vec<usize>; 4]> {
    let one = || prop::collection::vec(prop_oneof![1_usize..10, 1_usize..600], 0..8);
    [one(), one(), one(), one()]
}

fn start() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::Running), Just(State::Stop)]
}

fn pre_copies() -> impl Strategy<Value = PreCopy> {
    let nothing = prop_oneof![Just(DataRead::Drained), Just(DataRead::End), Just(DataRead::Bytes(0))];
    (0_usize..12, 0_usize..4000, 0_usize..2000, 0_usize..500, nothing).prop_map(
        |(chunks, early, initial, grows, nothing)| PreCopy { chunks, early, initial, grows, nothing },
    )
}

fn ways() -> impl Strategy<Value = Way> {
    let buffers = [64_usize..2000, 64_usize..2000];
    let how = (any::<bool>(), 0_usize..5, prop::option::of(pre_copies()));
    (start(), start(), buffers, sizes(), how).prop_map(
        |(from, to, buffers, sizes, (quiesce, chunks, pre_copy))| {
            // A paused machine's device has neither pre-copy nor a lockstep to keep.
            let runs = from == State::Running;
            let (quiesce, pre_copy) = (quiesce && runs, pre_copy.filter(|_| runs));
            Way { from, to, buffers, sizes, quiesce, chunks, pre_copy }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_way_and_the_sizes_the_destination_has_the_sources_content_and_runs(
        content in prop::collection::vec(any::<u8>(), 0..4000),
        config in prop::collection::vec(any::<u8>(), 0..300),
        way in ways(),
    ) {
        let device = migrate(&content, &config, &way);
        prop_assert_eq!(device.written, content);
        prop_assert_eq!(device.state, State::Running);
    }
}

#[test]
fn a_content_that_looks_like_records_goes_through_as_content() {
    let tags = (1..=6).flat_map(|low| [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, low]);
    let content: Vec<u8> = tags.cycle().take(1000).collect();
    for buffer in 64..120 {
        let stop_copy = plain(State::Running, State::Stop, [buffer, 184 - buffer]);
        assert_eq!(migrate(&content, &content, &stop_copy).written, content, "{buffer}");
        let pre_copy = PreCopy { chunks: 5, early: 300, initial: 200, grows: 10, nothing: DataRead::Drained };
        let pre_copy = Way { quiesce: true, chunks: 3, pre_copy: Some(pre_copy), ..stop_copy };
        assert_eq!(migrate(&content, &content, &pre_copy).written, content, "{buffer}");
    }
}

/// An observer whose clock gives these times in turn, in milliseconds, and then none.
struct Clock {
    times: RefCell<Vec<u64>>,
    took: Vec<Option<u128>>,
}

impl Observe for Clock {
    fn now(&self) -> Option<Duration> {
        self.times.borrow_mut().pop().map(Duration::from_millis)
    }

    fn observe(&mut self, _: &Event, took: Option<Duration>) {
        self.took.push(took.map(|took| took.as_millis()));
    }
}

#[test]
fn an_observer_with_a_clock_is_told_how_long_each_thing_took() {
    // Two times for each of three events; behind the last one the loop asks once more before it finds nothing to do.
    let table: [(&[u64], [Option<u128>; 3]); 5] = [
        (&[1, 4, 4, 4, 10, 15, 20], [Some(3), Some(0), Some(5)]),
        // A clock that is set back does not make an event end before it began; 584 years are the longest.
        (&[9, 4, u64::MAX, 0, 0, u64::MAX, 1], [Some(0), Some(0), Some(u128::from(u64::MAX / 1_000_000))]),
        (&[1, 4, 7], [Some(3), None, None]),
        (&[1], [None, None, None]),
        (&[], [None, None, None]),
    ];
    for (times, took) in table {
        let clock = || Clock { times: RefCell::new(times.iter().rev().copied().collect()), took: vec![] };
        let faults = Faults::default();
        let mut device = ModelDevice::new(State::Running, b"", &faults);
        let mut link = ModelLink::new(&[], &faults);
        let (mut buffer, mut observer) = ([0; 64], clock());
        let mut source = Source::new(ALL, State::Running, false, &mut buffer).unwrap();
        source.setup(true).unwrap();
        link.sizes = Sizes::new(&[9]);
        drive::source(&mut source, &mut device, &mut link, Told(&mut observer)).unwrap();
        assert_eq!(observer.took, took, "a source, {times:?}");

        let (mut buffer, mut observer) = ([0; 64], clock());
        let mut destination = Destination::new(ALL, State::Running, false, &mut buffer).unwrap();
        let mut device = ModelDevice { state: State::Resuming, ..device };
        order_destination(&mut destination, "resume").unwrap();
        drive::destination(&mut destination, &mut device, &mut link, nobody).unwrap();
        destination.section().unwrap();
        link.sizes = Sizes::new(&[8, 4]);
        drive::destination(&mut destination, &mut device, &mut link, Told(&mut observer)).unwrap();
        assert_eq!(observer.took, took, "a destination, {times:?}");
    }
}

/// An observer that is there for longer than the loop.
struct Told<'a>(&'a mut Clock);

impl Observe for Told<'_> {
    fn now(&self) -> Option<Duration> {
        self.0.now()
    }

    fn observe(&mut self, event: &Event, took: Option<Duration>) {
        self.0.observe(event, took);
    }
}
