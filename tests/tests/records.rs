//! `stream::record` on QEMU's own bytes, and what a [`Destination`] makes of payloads that are cut or damaged.
//!
//! What is guaranteed of a damaged payload, for each of its bytes:
//! - cut anywhere: never a whole section; the failure names the offset of the first missing byte and how many bytes the
//!   word or the data still wanted; the device is reset;
//! - a flipped tag or length: an error, a wait for bytes that do not come, a section that ends at another byte, where the
//!   caller then finds no footer, or another terminator in the place of the right one; never the same section;
//! - flipped data: the device gets it as it is. Core can't know better; the checksum of the stream can.
//!
//! Deliberately absent: section headers; they are in `sections.rs`.

use proptest::prelude::*;
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::session::{
    Cause, DataRead, Destination, DestinationPhase, Failure, Left, Source, drive,
};
use vfio_migration_core::stream::record::{self, Error, Tag, Terminator};
use vfio_migration_tests::golden::*;
use vfio_migration_tests::model::{ECONNRESET, Faults, ModelDevice, ModelLink, nobody};
use vfio_migration_tests::script::{ALL, order_destination, order_source};
use vfio_migration_tests::walk;

/// What stands between a section's header and its footer.
fn payload(section: &[u8]) -> &[u8] {
    let header = if matches!(section[0], 1 | 4) { BEGIN_HEADER } else { CONTINUE_HEADER };
    &section[header..section.len() - 5]
}

/// Every golden payload with the data in it and its terminator.
fn payloads() -> Vec<(&'static [u8], Vec<u8>, Terminator)> {
    let small = |section: &'static [u8], length: usize| payload(section)[16..16 + length].to_vec();
    let big = payload(BIGSTOP_END);
    let big = [&big[16..1_048_592], &big[1_048_608..2_097_184], &big[2_097_200..2_500_108]].concat();
    let end = Terminator::EndOfState;
    vec![
        (payload(PRECOPY_START), vec![], end),
        (payload(PRECOPY_PART1), small(PRECOPY_PART1, 24), end),
        (payload(PRECOPY_PART2), vec![], end),
        (payload(PRECOPY_END), small(PRECOPY_END, 36), end),
        (payload(PRECOPY_FULL), vec![], end),
        (payload(PAUSED_END), small(PAUSED_END, 36), end),
        (payload(PAUSED_FULL), vec![], end),
        (payload(SWITCHACK_PART1), small(SWITCHACK_PART1, 24), Terminator::InitDataSent),
        (payload(SWITCHACK_END), small(SWITCHACK_END, 36), end),
        (payload(IOMMUFD_END), small(IOMMUFD_END, 36), end),
        (payload(MULTIFD_END), vec![], end),
        (payload(MULTIFD_FULL), vec![], end),
        (payload(BIGSTOP_END), big, end),
    ]
}

/// What a destination made of a payload.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// The terminator, or what went wrong first.
    end: Result<Terminator, Cause>,
    /// How much of the payload it took.
    taken: usize,
    /// What was written into the device.
    written: Vec<u8>,
}

/// Gives `bytes` to a destination with a buffer of `length` bytes; no `recv` may cross one of `borders`.
fn destination(bytes: &[u8], length: usize, agreed: bool, borders: &[usize]) -> Outcome {
    let faults = Faults::default();
    let mut device = ModelDevice::new(State::Running, &[], &faults);
    let mut link = ModelLink::new(bytes, &faults);
    link.borders = borders.to_vec();
    link.config = vec![0; CONFIG_BODY];
    let mut buffer = vec![0xa5; length];
    let features = Features { p2p: false, pre_copy: agreed };
    let mut destination = Destination::new(features, State::Running, agreed, &mut buffer).unwrap();
    let mut phase = DestinationPhase::Resuming;
    for order in ["resume", "section"] {
        order_destination(&mut destination, order).unwrap();
        phase = drive::destination(&mut destination, &mut device, &mut link, nobody).unwrap();
    }
    let end = match phase {
        DestinationPhase::Section(terminator) => {
            assert_eq!(device.state, State::Resuming);
            Ok(terminator)
        }
        DestinationPhase::Failed(Failure { cause, device: left }) => {
            assert_eq!((left, device.state), (Left::Reset, State::Running), "{cause}");
            Err(cause)
        }
        phase => panic!("{phase:?}"),
    };
    Outcome { end, taken: link.taken, written: device.log }
}

/// The same rules, written once more: the whole payload is at hand, and nothing has a state.
fn reference(bytes: &[u8], agreed: bool) -> Outcome {
    let mut outcome = Outcome { end: Ok(Terminator::EndOfState), taken: 0, written: vec![] };
    outcome.end = read_payload(bytes, agreed, &mut outcome.taken, &mut outcome.written);
    outcome
}

fn read_payload(
    bytes: &[u8],
    agreed: bool,
    taken: &mut usize,
    written: &mut Vec<u8>,
) -> Result<Terminator, Cause> {
    const END: u64 = 0xffff_ffff_ef10_0001;
    loop {
        let offset = *taken as u64;
        match read_word(bytes, taken)? {
            END => return Ok(Terminator::EndOfState),
            0xffff_ffff_ef10_0002 => {
                if bytes.len() - *taken < CONFIG_BODY {
                    let offset = *taken as u64;
                    *taken = bytes.len();
                    return Err(Cause::RecvConfig { offset, code: ECONNRESET });
                }
                *taken += CONFIG_BODY;
                return read_end(bytes, taken, Tag::Config);
            }
            0xffff_ffff_ef10_0003 => return read_end(bytes, taken, Tag::Setup),
            0xffff_ffff_ef10_0004 => {
                let length = read_word(bytes, taken)?;
                let there = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - *taken);
                written.extend(&bytes[*taken..*taken + there]);
                *taken += there;
                if length > there as u64 {
                    let offset = *taken as u64;
                    return Err(Cause::RecvClosed { offset, missing: length - there as u64 });
                }
            }
            0xffff_ffff_ef10_0005 if agreed => return Ok(Terminator::InitDataSent),
            0xffff_ffff_ef10_0005 => return Err(Cause::Unexpected { tag: Tag::InitDataSent, offset }),
            0xffff_ffff_ef10_0006 => return Err(Cause::Unexpected { tag: Tag::ConfigLoadReady, offset }),
            got => return Err(Cause::Record(Error::UnknownTag { offset, got })),
        }
    }
}

fn read_end(bytes: &[u8], taken: &mut usize, after: Tag) -> Result<Terminator, Cause> {
    let offset = *taken as u64;
    match read_word(bytes, taken)? {
        0xffff_ffff_ef10_0001 => Ok(Terminator::EndOfState),
        got => Err(Cause::Record(Error::Unterminated { after, offset, got })),
    }
}

fn read_word(bytes: &[u8], taken: &mut usize) -> Result<u64, Cause> {
    let left = &bytes[*taken..];
    *taken += left.len().min(8);
    let word = left.first_chunk().copied().map(u64::from_be_bytes);
    let (offset, missing) = (bytes.len() as u64, 8 - left.len().min(8) as u64);
    word.ok_or(Cause::RecvClosed { offset, missing })
}

/// Where a record's word or data ends: each line of the walk begins where the one before it ended.
fn borders(payload: &[u8]) -> Vec<usize> {
    let lines = walk::payload(payload, CONFIG_BODY).unwrap();
    let mut borders = vec![payload.len()];
    for line in lines {
        let (start, what) = line.split_once(' ').unwrap();
        let start: usize = start.parse().unwrap();
        borders.push(start);
        if !what.starts_with("body") {
            borders.push(start + 8);
        }
    }
    borders.sort_unstable();
    borders.dedup();
    borders
}

#[test]
fn every_payload_of_qemu_goes_into_the_device_and_no_byte_past_a_record_is_asked_for() {
    for (bytes, data, terminator) in payloads() {
        for length in [64, 4096, 1 << 20, 3 << 20] {
            let wanted = Outcome { end: Ok(terminator), taken: bytes.len(), written: data.clone() };
            let followed = [bytes, b"\x7e\0\0\0\x26what follows"].concat();
            assert!(destination(&followed, length, true, &borders(bytes)) == wanted, "{length}");
            assert!(reference(&followed, true) == wanted);
        }
    }
}

/// The payloads that a source writes for a device with `data`, in this order.
fn source(data: &[u8], buffer: usize, config: &[u8], orders: &[&str]) -> Vec<Vec<u8>> {
    let device = ModelDevice::new(State::Running, data, &Faults::default());
    source_of(device, false, buffer, config, orders)
}

/// [`source`], for a device that gives a part of its data in PRE_COPY.
fn source_of(
    mut device: ModelDevice,
    switchover_ack: bool,
    buffer: usize,
    config: &[u8],
    orders: &[&str],
) -> Vec<Vec<u8>> {
    let mut link = ModelLink { config: config.to_vec(), ..ModelLink::new(&[], &Faults::default()) };
    let mut buffer = vec![0xa5; buffer];
    let mut source = Source::new(ALL, State::Running, switchover_ack, &mut buffer).unwrap();
    let payloads = orders.iter().map(|order| {
        order_source(&mut source, order).unwrap();
        drive::source(&mut source, &mut device, &mut link, nobody).unwrap();
        std::mem::take(&mut link.bytes)
    });
    payloads.collect()
}

#[test]
fn a_source_writes_the_payloads_of_qemu_byte_for_byte() {
    let orders = ["setup", "stop", "copy_rest", "copy_rest", "config"];
    let table = [
        (PRECOPY_END, PRECOPY_FULL, 64),
        (PAUSED_END, PAUSED_FULL, 4096),
        (SWITCHACK_END, PRECOPY_FULL, 1 << 20),
        (IOMMUFD_END, PRECOPY_FULL, 60 + 24),
        (BIGSTOP_END, PRECOPY_FULL, (1 << 20) + 24),
    ];
    for (end, full, buffer) in table {
        let data = payloads().into_iter().find(|(bytes, ..)| *bytes == payload(end)).unwrap().1;
        let config = &payload(full)[8..8 + CONFIG_BODY];
        let written = source(&data, buffer, config, &orders);
        let wanted = [payload(PRECOPY_START), &[], payload(end), payload(MULTIFD_END), payload(full)];
        assert!(written == wanted, "buffer of {buffer}");
    }
}

#[test]
fn a_source_in_pre_copy_writes_the_payloads_of_qemu_byte_for_byte() {
    let orders = ["setup pre_copy", "measure", "copy_chunk", "copy_chunk", "quiesce", "stop", "copy_rest"];
    let table = [
        (false, PRECOPY_PART1, PRECOPY_END, DataRead::End),
        (false, PRECOPY_PART1, IOMMUFD_END, DataRead::Drained),
        (true, SWITCHACK_PART1, SWITCHACK_END, DataRead::End),
        (true, SWITCHACK_PART1, SWITCHACK_END, DataRead::Drained),
    ];
    for (switchover_ack, part, end, nothing) in table {
        let data = [&payload(part)[16..40], &payload(end)[16..52]].concat();
        let early = ModelDevice::new(State::Running, &data, &Faults::default());
        for buffer in [64, 84, 1 << 20] {
            let device = ModelDevice { early: 24, initial: 24, nothing, ..early.clone() };
            let written = source_of(device, switchover_ack, buffer, &[], &orders);
            let (start, empty) = (payload(PRECOPY_START), payload(PRECOPY_PART2));
            let wanted = [start, &[], payload(part), empty, &[], &[], payload(end)];
            assert_eq!(written, wanted, "buffer of {buffer}, {nothing:?} for nothing now");
        }
    }
}

#[test]
fn records_encode_as_qemu_has_them() {
    let parts = [record::encode(Tag::Setup), record::encode(Tag::EndOfState)];
    assert_eq!(parts.concat(), payload(PRECOPY_START));
    let data = &payload(PRECOPY_PART1)[16..40];
    let part = [&record::encode_data_head(24)[..], data];
    assert_eq!([part.concat(), record::encode(Tag::EndOfState).to_vec()].concat(), payload(PRECOPY_PART1));
    assert_eq!(
        [part.concat(), record::encode(Tag::InitDataSent).to_vec()].concat(),
        payload(SWITCHACK_PART1)
    );
    assert_eq!(record::encode(Tag::Config), payload(PRECOPY_FULL)[..8]);
    assert_eq!(record::encode_data_head(1 << 20), BIGPRE_PART1_HEAD[CONTINUE_HEADER..]);
    assert_eq!(record::encode_data_head(402_908), BIGPRE_END_HEAD[CONTINUE_HEADER..]);
}

#[test]
fn the_state_of_an_mtty_device_comes_out_as_it_went_in() {
    let data = [&payload(PRECOPY_PART1)[16..40], &payload(PRECOPY_END)[16..52]].concat();
    assert_eq!(
        (data.len(), &data[..24]),
        (MTTY_STATE.len(), &MTTY_STATE[..24]),
        "QEMU moved the same layout"
    );
    let [written] = &source(MTTY_STATE, 64, &[], &["setup", "stop", "copy_rest"])[2..] else { panic!() };
    assert_eq!(destination(written, 64, false, &borders(written)).written, MTTY_STATE);
}

/// The small golden payloads and one of several records from a source.
fn small_payloads() -> Vec<Vec<u8>> {
    let golden = payloads().into_iter().map(|(bytes, ..)| bytes.to_vec());
    let small = golden.filter(|bytes| bytes.len() < 5000);
    small.chain([source(&[0x5a; 95], 64, &[], &["setup", "stop", "copy_rest"]).remove(2)]).collect()
}

#[test]
fn a_payload_that_is_cut_anywhere_is_never_whole_and_names_what_is_missing() {
    for whole in small_payloads() {
        for length in 0..whole.len() {
            let outcome = destination(&whole[..length], 64, true, &[]);
            assert_eq!(outcome, reference(&whole[..length], true), "cut at {length} of {}", whole.len());
            assert_eq!(outcome.taken, length);
            match outcome.end {
                Err(Cause::RecvClosed { offset, missing }) => {
                    assert_eq!(offset, length as u64);
                    let wanted = length as u64 + missing;
                    assert!(
                        borders(&whole).contains(&usize::try_from(wanted).unwrap()),
                        "{wanted} is no border"
                    );
                }
                Err(Cause::RecvConfig { offset: 8, .. }) => assert!((8..8 + CONFIG_BODY).contains(&length)),
                end => panic!("{end:?} when cut at {length}"),
            }
        }
    }
}

#[test]
fn a_big_payload_that_is_cut_near_a_border_is_never_whole_and_names_what_is_missing() {
    let whole = payload(BIGSTOP_END);
    for border in borders(whole) {
        for length in border.saturating_sub(2)..(border + 2).min(whole.len()) {
            let outcome = destination(&whole[..length], 1 << 20, true, &[]);
            assert!(outcome == reference(&whole[..length], true), "cut at {length}");
            let named =
                matches!(outcome.end, Err(Cause::RecvClosed { offset, .. }) if offset == length as u64);
            assert!(named, "cut at {length}");
        }
    }
}

#[test]
fn a_flipped_tag_or_length_is_never_the_whole_section_and_flipped_data_goes_through() {
    for whole in small_payloads() {
        for agreed in [false, true] {
            let good = destination(&whole, 64, agreed, &[]);
            assert_eq!(good, reference(&whole, agreed));
            for at in 0..whole.len() {
                let config = whole.len() > 4000 && (8..8 + CONFIG_BODY).contains(&at);
                for flip in (0..8).map(|bit| 1 << bit).chain([0xff]).filter(|flip| !config || *flip == 0xff) {
                    let mut bytes = whole.clone();
                    bytes[at] ^= flip;
                    let outcome = destination(&bytes, 64, agreed, &[]);
                    assert_eq!(outcome, reference(&bytes, agreed), "byte {at} ^ {flip:#x}");
                    if is_data(&whole, at) || config {
                        assert_eq!((outcome.end, outcome.taken), (good.end, good.taken), "byte {at}");
                        assert_eq!(outcome.written != good.written, is_data(&whole, at), "byte {at}");
                    } else {
                        assert_ne!(
                            (outcome.end, outcome.taken),
                            (good.end, good.taken),
                            "byte {at} ^ {flip:#x}"
                        );
                    }
                }
            }
        }
    }
}

/// Whether the byte at `at` is one of a DATA record's data.
fn is_data(payload: &[u8], at: usize) -> bool {
    let lines = walk::payload(payload, CONFIG_BODY).unwrap();
    lines.iter().any(|line| {
        let Some((start, length)) = line.split_once(" length ") else { return false };
        let data = start.parse::<usize>().unwrap() + 8;
        (data..data + length.parse::<usize>().unwrap()).contains(&at)
    })
}

/// Words that stand in payloads, and some that do not.
fn words() -> impl Strategy<Value = Vec<u8>> {
    let tag = (0_u64..9).prop_map(|low| (0xffff_ffff_ef10_0000 | low).to_be_bytes().to_vec());
    let small = (0_u64..100).prop_map(|length| length.to_be_bytes().to_vec());
    let any_bytes = prop::collection::vec(any::<u8>(), 0..30);
    let huge = any::<u64>().prop_map(|length| length.to_be_bytes().to_vec());
    prop_oneof![6 => tag, 4 => small, 2 => any_bytes, 1 => huge]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_have_the_outcome_of_the_rules_written_once_more(
        words in prop::collection::vec(words(), 0..12),
        length in 64_usize..200,
        agreed in any::<bool>(),
    ) {
        let bytes = words.concat();
        prop_assert_eq!(destination(&bytes, length, agreed, &[]), reference(&bytes, agreed));
    }
}
