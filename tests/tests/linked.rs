//! A [`Source`] and a [`Destination`], linked: what one reads, the other writes.
//!
//! Deliberately absent: failures. Each side has its own tests of them.

use proptest::prelude::*;
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::{Destination, DestinationPhase, Source, SourcePhase, drive};
use vfio_migration_core::stream::record::Terminator;
use vfio_migration_tests::model::{Faults, ModelDevice, ModelLink, Sizes};
use vfio_migration_tests::script::{order_destination, order_source};

/// Carries a device's content from one to the other; returns the receiving device.
fn migrate(
    content: &[u8],
    config: &[u8],
    buffers: [usize; 2],
    sizes: &[Vec<usize>; 4],
    (from, to): (State, State),
) -> ModelDevice {
    let faults = Faults::default();
    let [read, send, receive, write] = sizes.each_ref().map(|sizes| Sizes::new(sizes));
    let mut link = ModelLink { config: config.to_vec(), sizes: send, ..ModelLink::new(&[], &faults) };

    let mut device = ModelDevice { sizes: read, ..ModelDevice::new(from, content, &faults) };
    let mut buffer = vec![0xa5; buffers[0]];
    let mut source = Source::new(from, &mut buffer).unwrap();
    for order in ["setup", "stop", "copy_rest", "config", "finish"] {
        order_source(&mut source, order).unwrap();
        let phase = drive::source(&mut source, &mut device, &mut link, |_| ()).unwrap();
        assert!(!matches!(phase, SourcePhase::Failed(_)), "{phase:?}");
        link.borders.push(link.bytes.len());
    }
    assert_eq!(device.state, State::Stop);

    // Behind the last payload stands something else, which no one may ask for.
    link.bytes.extend(b"\x7e the rest of the stream");
    link.sizes = receive;
    let mut device = ModelDevice { sizes: write, ..ModelDevice::new(to, &[], &faults) };
    let mut buffer = vec![0xa5; buffers[1]];
    let mut destination = Destination::new(Features::default(), to, false, &mut buffer).unwrap();
    for order in ["resume", "section", "section", "section", "stop", "run"] {
        order_destination(&mut destination, order).unwrap();
        let phase = drive::destination(&mut destination, &mut device, &mut link, |_| ()).unwrap();
        if order == "section" {
            assert_eq!(phase, DestinationPhase::Section(Terminator::EndOfState));
        }
    }
    assert_eq!(link.taken + b"\x7e the rest of the stream".len(), link.bytes.len());
    device
}

fn sizes() -> impl Strategy<Value = [Vec<usize>; 4]> {
    let one = || prop::collection::vec(prop_oneof![1_usize..10, 1_usize..600], 0..8);
    [one(), one(), one(), one()]
}

fn start() -> impl Strategy<Value = State> {
    prop_oneof![Just(State::Running), Just(State::Stop)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_sizes_the_destination_has_the_sources_content_and_runs(
        content in prop::collection::vec(any::<u8>(), 0..4000),
        config in prop::collection::vec(any::<u8>(), 0..300),
        buffers in [64_usize..2000, 64_usize..2000],
        sizes in sizes(),
        states in (start(), start()),
    ) {
        let device = migrate(&content, &config, buffers, &sizes, states);
        prop_assert_eq!(device.written, content);
        prop_assert_eq!(device.state, State::Running);
    }
}

#[test]
fn a_content_that_looks_like_records_goes_through_as_content() {
    let tags = (1..=6).flat_map(|low| [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, low]);
    let content: Vec<u8> = tags.cycle().take(1000).collect();
    for buffer in 64..120 {
        let none = [const { vec![] }; 4];
        let device =
            migrate(&content, &content, [buffer, 184 - buffer], &none, (State::Running, State::Stop));
        assert_eq!(device.written, content, "{buffer}");
    }
}
