//! The walk through the stream of a whole machine, on QEMU's own bytes.
//!
//! Deliberately absent: what the program prints of it, which `host/tests` has.

use vfio_migration_tests::golden::*;
use vfio_migration_tests::machine::{payloads, walk_file};

#[test]
fn a_stream_of_qemu_is_walked_to_its_last_byte() {
    let told = walk_file(PRECOPY);
    assert_eq!((told.says(), told.bytes), (String::new(), PRECOPY.len() as u64));
    assert_eq!(told.lines[0], "0 configuration of 'pc-i440fx-10.0' to 27");
    let vfio = [
        "197 START of section 38 '0000:00:02.0/vfio', instance 0, setup",
        "139387 PART of section 38 '0000:00:02.0/vfio', instance 0, iterations",
        "336197 PART of section 38 '0000:00:02.0/vfio', instance 0, iterations",
        "554515 END of section 38 '0000:00:02.0/vfio', instance 0, stop-copy",
        "567309 FULL of section 38 '0000:00:02.0/vfio', instance 0, devices",
    ];
    assert_eq!(told.with("/vfio"), vfio);
    assert_eq!(told.with("DATA"), ["139392 DATA of 40", "554520 DATA of 52"]);
    assert_eq!(told.with("CONFIG"), ["567340 CONFIG of 4124"]);
    assert_eq!(told.with("command"), ["336215 command 11 of 5"]);
    assert_eq!(told.with("FULL").len(), 31);
    let [.., end, description] = told.lines.as_slice() else { panic!() };
    assert_eq!((end.as_str(), description.as_str()), ("571641 end", "571642 description of 99170"));
}

#[test]
fn the_payloads_of_the_device_come_byte_for_byte() {
    let found = payloads(PRECOPY);
    let wanted = [PRECOPY_START, PRECOPY_PART1, PRECOPY_PART2, PRECOPY_END, PRECOPY_FULL];
    let heads = [BEGIN_HEADER, CONTINUE_HEADER, CONTINUE_HEADER, CONTINUE_HEADER, BEGIN_HEADER];
    assert_eq!(found.len(), wanted.len());
    for (((_, payload), wanted), head) in found.iter().zip(wanted).zip(heads) {
        assert!(payload == &wanted[head..wanted.len() - 5]);
    }
}

#[test]
fn a_configuration_without_a_description_is_found_by_what_is_in_it() {
    let told = walk_file(ONE_END_SECTION);
    assert_eq!(told.with("CONFIG"), ["190 CONFIG of 4124"]);
    assert_eq!(told.with("end"), ["4327 end"]);
    assert_eq!(
        told.says(),
        "at byte 4333: wanted a description of ours, got one that does not end in a checksum"
    );
}
