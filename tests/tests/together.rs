//! Several devices in one stream: its bytes, whose state goes into which device, and what is refused before anything is
//! done.
//!
//! Deliberately absent: failures in the middle; those are in `together_failures.rs`.

use std::os::fd::AsFd;

use vfio_migration_core::device::State;
use vfio_migration_core::session::Left;
use vfio_migration_host::link::Link;
use vfio_migration_host::transfer::{self, Error, Leave, Load, Member, Reason, Refused, Save};
use vfio_migration_tests::transfer::{Fleet, Log, Role, at, holding, must_end, quiet, temporary};
use vfio_migration_tests::walk;

const SIZES: [u64; 8] = [0, 1, 3 << 20, 100, 40, 41, 1 << 20, 4096];

/// Sources of these sizes, no two with the same content, and destinations for them.
fn sides(sizes: &[u64], buffer: usize, log: &Log) -> (Fleet, Fleet) {
    let text = |seed: usize| move |(at, size): (usize, &u64)| format!("size={size},seed={}", seed + at);
    let texts = |seed| sizes.iter().enumerate().map(text(seed)).collect::<Vec<_>>();
    let sources = Fleet::new("a", &texts(1), buffer, log, 0);
    (sources, Fleet::new("b", &texts(1000), buffer, log, sizes.len()))
}

/// What stands in a stream, without offsets.
fn walked(stream: &[u8]) -> Vec<String> {
    let lines = walk::stream(stream, 0).unwrap();
    lines.iter().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
}

#[test]
fn one_to_eight_devices_of_any_size_arrive_with_their_contents_and_all_run() {
    for count in [1, 2, 4, 8] {
        for (buffer, share) in [(64, 32), (1 << 16, 1)] {
            must_end(&format!("{count} devices, {buffer}"), move || {
                let log = Log::default();
                let sizes: Vec<_> = SIZES[..count].iter().map(|size| size.div_ceil(share)).collect();
                let (mut sources, mut destinations) = sides(&sizes, buffer, &log);
                let (stream, saved) = sources.save(&Save::default(), &quiet).unwrap();
                let loaded = destinations.load(&stream, &Load::default()).unwrap();
                assert_eq!(destinations.contents(), sources.contents(), "{count} devices, {buffer}");
                assert_eq!(sources.states(), vec![State::Running; count]);
                assert_eq!(destinations.states(), vec![State::Running; count]);
                assert_eq!(
                    (saved.stream_bytes, loaded.stream_bytes),
                    (stream.len() as u64, stream.len() as u64)
                );
                assert_eq!(saved.entries, loaded.entries);
                let told: Vec<_> = saved.entries.iter().map(|entry| entry.data_bytes).collect();
                assert_eq!(told, sizes.iter().map(|size| size + 24).collect::<Vec<_>>());
                log.assert_lockstep(0..count, Role::Source);
                log.assert_lockstep(count..2 * count, Role::Destination);
            });
        }
    }
}

#[test]
fn devices_that_are_to_stay_stopped_stay_in_stop_on_both_sides() {
    let log = Log::default();
    let (mut sources, mut destinations) = sides(&[100, 7], 64, &log);
    let plan = Save { leave: Some(Leave::Stopped), ..Save::default() };
    let (stream, _) = sources.save(&plan, &quiet).unwrap();
    destinations.load(&stream, &Load { leave: Leave::Stopped, ..Load::default() }).unwrap();
    assert_eq!([sources.states(), destinations.states()], [[State::Stop; 2]; 2]);
    assert_eq!(destinations.contents(), sources.contents());
}

#[test]
fn paused_and_running_devices_travel_together() {
    let log = Log::default();
    let (mut sources, mut destinations) = sides(&[100, 7], 64, &log);
    vfio_migration_core::session::drive::Device::set_state(&mut sources.devices[1].assigned, State::Stop)
        .unwrap();
    let plan = Save { leave: Some(Leave::Stopped), ..Save::default() };
    let (stream, _) = sources.save(&plan, &quiet).unwrap();
    destinations.load(&stream, &Load::default()).unwrap();
    assert_eq!(destinations.contents(), sources.contents());
}

#[test]
fn all_starts_stand_first_then_parts_of_one_record_then_empty_ends() {
    let (mut sources, _) = sides(&[100, 0, 41], 64, &Log::default());
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    let lines = walked(&stream);
    let start = |at| {
        let name = format!("START {} sim@a.{at}/vfio instance 0 version 1", at + 1);
        [name, "SETUP".into(), "END_OF_STATE".into(), format!("footer {}", at + 1)]
    };
    let starts: Vec<_> = (0..3).flat_map(start).collect();
    assert_eq!(lines[..2], ["preamble", "CONFIGURATION 0"]);
    assert_eq!(lines[2..14], starts);
    let end = |id: usize| [format!("END {id}"), "END_OF_STATE".into(), format!("footer {id}")];
    let ends: Vec<_> = (1..=3).flat_map(end).collect();
    let last = lines.len() - 2;
    assert_eq!(lines[last - 9..last], ends);
    assert_eq!(lines[last], "end byte");
    assert!(lines[last + 1].starts_with("description "));
    let parts = parts(&lines[14..last - 9]);
    for (id, state) in [(1, 124), (2, 24), (3, 65)] {
        let of_device: Vec<_> = parts.iter().filter(|part| part.0 == id).map(|part| part.1).collect();
        assert_eq!(of_device.iter().sum::<u64>(), state, "device {id}");
        assert!(of_device.iter().all(|length| *length <= 40), "device {id}: {of_device:?}");
    }
}

/// The id and the length of each PART, which must have one record, or none with data.
fn parts(lines: &[String]) -> Vec<(u64, u64)> {
    let number = |line: &str, word: &str| -> Option<u64> { line.strip_prefix(word)?.trim().parse().ok() };
    let mut parts = Vec::new();
    let mut rest = lines;
    while let [part, tail @ ..] = rest {
        let id = number(part, "PART ").unwrap_or_else(|| panic!("no PART: {part}"));
        let (length, tail) = match tail {
            [data, length, tail @ ..] if data == "DATA" => (number(length, "length ").unwrap(), tail),
            _ => (0, tail),
        };
        assert_eq!(tail[..2], ["END_OF_STATE".to_owned(), format!("footer {id}")]);
        parts.push((id, length));
        rest = &tail[2..];
    }
    parts
}

#[test]
fn a_single_devices_data_are_one_end_section() {
    let (mut sources, _) = sides(&[100], 64, &Log::default());
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    let mut wanted = vec!["preamble", "CONFIGURATION 0", "START 1 sim@a.0/vfio instance 0 version 1"];
    wanted.extend(["SETUP", "END_OF_STATE", "footer 1", "END 1"]);
    for length in ["length 40", "length 40", "length 40", "length 4"] {
        wanted.extend(["DATA", length]);
    }
    wanted.extend(["END_OF_STATE", "footer 1", "end byte"]);
    let lines = walked(&stream);
    assert_eq!(lines[..lines.len() - 1], wanted);
}

#[test]
fn names_decide_whose_state_goes_where_and_the_order_decides_for_the_rest() {
    // The streams's devices are a.0, a.1 and a.2; each row: what the destinations are called, and whose content they get.
    let table: [([Option<&str>; 3], [usize; 3]); 6] = [
        ([None, None, None], [0, 1, 2]),
        ([Some("sim@a.2/vfio"), Some("sim@a.0/vfio"), Some("sim@a.1/vfio")], [2, 0, 1]),
        ([None, Some("sim@a.0/vfio"), None], [1, 0, 2]),
        ([Some("sim@a.1/vfio"), None, None], [1, 0, 2]),
        ([None, None, Some("sim@a.0/vfio")], [1, 2, 0]),
        ([Some("sim@a.2/vfio"), None, Some("sim@a.0/vfio")], [2, 1, 0]),
    ];
    let (mut sources, _) = sides(&[50, 50, 50], 64, &Log::default());
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    for (names, gets) in table {
        let (_, mut destinations) = sides(&[50, 50, 50], 64, &Log::default());
        destinations.names = names.iter().map(|name| name.map(str::to_owned)).collect();
        destinations.load(&stream, &Load::default()).unwrap();
        for (content, from) in destinations.contents().iter().zip(gets) {
            assert_eq!(*content, sources.contents()[from], "{names:?}");
        }
    }
}

/// Loads `stream`, which must be refused before a device is touched.
fn refused_untouched(destinations: &mut Fleet, log: &Log, stream: &[u8], what: &str) -> Error {
    let first = 1000;
    let Err(error) = destinations.load(stream, &Load::default()) else { panic!("{what}: loaded") };
    destinations.assert_as_told(&error, what);
    let done: usize = (first..first + destinations.devices.len()).map(|number| log.count(number)).sum();
    assert_eq!(done, 0, "{what}: SETs and resets before it was refused: {error}");
    assert!(
        error.devices.iter().all(|(_, left)| matches!(left, Left::At(State::Running))),
        "{what}: {error}"
    );
    error
}

fn destinations(count: usize, log: &Log) -> Fleet {
    Fleet::new("b", &vec!["size=50"; count], 64, log, 1000)
}

#[test]
fn fewer_devices_in_the_stream_than_were_given_are_refused_before_any_is_touched() {
    for (has, wanted) in [(1, 2), (2, 3), (1, 8)] {
        let (mut sources, _) = sides(&vec![50; has], 64, &Log::default());
        let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
        let log = Log::default();
        let error = refused_untouched(&mut destinations(wanted, &log), &log, &stream, "fewer");
        assert!(matches!(error.reason, Reason::FewerDevices { wanted: w, got } if (w, got) == (wanted, has)));
        assert_eq!(error.reason.refused(), Refused::Stream);
    }
}

#[test]
fn more_devices_in_the_stream_than_were_given_are_refused_before_any_is_touched() {
    for (has, wanted) in [(2, 1), (3, 2), (8, 1)] {
        let (mut sources, _) = sides(&vec![50; has], 64, &Log::default());
        let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
        let log = Log::default();
        let error = refused_untouched(&mut destinations(wanted, &log), &log, &stream, "more");
        let next = format!("sim@a.{wanted}/vfio");
        assert!(
            matches!(&error.reason, Reason::MoreDevices { wanted: w, name } if *w == wanted && *name == next),
            "{error}"
        );
        assert_eq!(error.reason.refused(), Refused::Stream);
    }
}

#[test]
fn two_devices_with_one_name_are_not_saved_into_one_stream() {
    let log = Log::default();
    let (mut sources, _) = sides(&[50, 50, 50], 64, &log);
    sources.names = vec![Some("card/vfio".into()), None, Some("card/vfio".into())];
    let Err(error) = sources.save(&Save::default(), &quiet) else { panic!("saved") };
    assert!(matches!(error.reason, Reason::NotTogether(_)), "{error}");
    assert!(error.to_string().contains("'card/vfio' twice"), "{error}");
    assert_eq!(log.count(0) + log.count(1) + log.count(2), 0);
}

#[test]
fn devices_without_p2p_are_refused_with_their_names_before_anything_is_done_or_written() {
    let log = Log::default();
    let configs = ["size=9,flags=7", "size=9,flags=1", "size=9,flags=3", "size=9,flags=5"];
    let mut sources = Fleet::new("a", &configs, 64, &log, 0);
    let file = temporary();
    let members = sources.members();
    let link = Link::new(file.as_fd(), None);
    let error = transfer::save(members, link, &Save::default(), || Ok(()), &quiet).unwrap_err();
    let wanted = "without it are sim@a.1/vfio, sim@a.3/vfio";
    assert!(error.to_string().contains(wanted), "{error}");
    assert_eq!((error.reason.refused(), file.metadata().unwrap().len()), (Refused::ByDevice, 0));
    sources.assert_as_told(&error, "save");
    let mut destinations = Fleet::new("a", &configs, 64, &log, 0);
    let error = destinations.load(b"", &Load::default()).unwrap_err();
    assert!(error.to_string().contains(wanted), "{error}");
    destinations.assert_as_told(&error, "load");
    assert_eq!((0..4).map(|number| log.count(number)).sum::<usize>(), 0);
}

#[test]
fn one_device_without_p2p_travels_alone() {
    for flags in [1, 5] {
        let log = Log::default();
        let mut source = Fleet::new("a", &[format!("size=9,seed=3,flags={flags}")], 64, &log, 0);
        let mut destination = Fleet::new("b", &[format!("size=9,flags={flags}")], 64, &log, 1);
        let (stream, _) = source.save(&Save::default(), &quiet).unwrap();
        destination.load(&stream, &Load::default()).unwrap();
        assert_eq!(destination.contents(), source.contents());
    }
}

#[test]
fn more_devices_than_a_stream_may_have_are_refused() {
    let log = Log::default();
    let mut sources = Fleet::new("a", &vec!["size=0"; transfer::DEVICES_MAX + 1], 64, &log, 0);
    let Err(error) = sources.save(&Save::default(), &quiet) else { panic!("saved") };
    assert!(error.to_string().contains("wanted at most 64 devices, got 65"), "{error}");
    assert_eq!(log.count(0), 0);
    let mut sources = Fleet::new("a", &vec!["size=0"; transfer::DEVICES_MAX], 64, &log, 0);
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    let mut destinations = Fleet::new("b", &vec!["size=0"; transfer::DEVICES_MAX], 64, &log, 100);
    destinations.load(&stream, &Load::default()).unwrap();
}

/// The error of a load of `destinations` from a stream of their like.
fn error_of(mut destinations: Fleet) -> Error {
    let (mut sources, _) = sides(&[50, 50], 64, &Log::default());
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    let error = destinations.load(&stream, &Load::default()).unwrap_err();
    destinations.assert_as_told(&error, "refused");
    error
}

#[test]
fn of_several_devices_the_one_whose_driver_is_another_is_named() {
    for number in [0, 1] {
        let mut destinations = destinations(2, &Log::default());
        destinations.identities[number].driver = "mlx5_vfio_pci".into();
        let name = destinations.idstrs()[number].clone();
        let error = error_of(destinations);
        assert!(matches!(error.reason, Reason::OtherDriver { .. }), "{error}");
        assert_eq!(at(&error), Some(&*name), "{error}");
    }
}

#[test]
fn of_several_devices_the_one_whose_driver_the_description_denies_is_named() {
    let (mut sources, _) = sides(&[50, 50], 64, &Log::default());
    sources.names = vec![Some("0000:00:02.0/vfio".into()), Some("0000:00:03.0/vfio".into())];
    let (stream, _) = sources.save(&Save::default(), &quiet).unwrap();
    for number in [0, 1] {
        let mut destinations = destinations(2, &Log::default());
        destinations.identities[number].driver = "mlx5_vfio_pci".into();
        let error = destinations.load(&stream, &Load::default()).unwrap_err();
        destinations.assert_as_told(&error, "denied");
        assert!(matches!(error.reason, Reason::OtherDriver { .. }), "{error}");
        assert_eq!(at(&error), Some(&*destinations.idstrs()[number]), "{error}");
    }
}

#[test]
fn of_several_devices_the_one_that_refuses_its_reset_before_a_load_is_named() {
    let mut destinations = Fleet::new("b", &["size=50", "size=50,fail=reset:1"], 64, &Log::default(), 0);
    for device in &mut destinations.devices {
        vfio_migration_core::session::drive::Device::set_state(&mut device.assigned, State::StopCopy)
            .unwrap();
    }
    let error = error_of(destinations);
    assert!(matches!(error.reason, Reason::NotReset { .. }), "{error}");
    assert_eq!(at(&error), Some("sim@b.1/vfio"), "{error}");
}

#[test]
fn of_several_devices_the_one_whose_buffer_is_too_small_is_named() {
    let log = Log::default();
    let (mut sources, _) = sides(&[50, 50], 64, &log);
    let mut members = sources.members();
    let Member { buffer, .. } = &mut members[1];
    *buffer = &mut std::mem::take(buffer)[..63];
    let link = Link::new(holding(b""), None);
    let error = transfer::save(members, link, &Save::default(), || Ok(()), &quiet).unwrap_err();
    assert_eq!(at(&error), Some("sim@a.1/vfio"), "{error}");
    assert_eq!(log.count(0) + log.count(1), 0);
}

#[test]
fn a_device_that_was_reset_before_its_load_is_not_told_to_be_as_it_was() {
    let mut destinations =
        Fleet::new("b", &["size=50,seed=3,fail=set-resuming:1", "size=50"], 64, &Log::default(), 0);
    vfio_migration_core::session::drive::Device::set_state(
        &mut destinations.devices[0].assigned,
        State::StopCopy,
    )
    .unwrap();
    let error = error_of(destinations);
    assert_eq!(error.devices[0].1, Left::Reset, "{error}");
}
