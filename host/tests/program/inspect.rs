//! `inspect` and `probe`.
//!
//! Deliberately absent: a kernel's device, which the VM tests have.

use std::fs;

use serde_json::Value;

use crate::{code, folder, run, saved, stderr, stdout};

#[test]
fn inspect_shows_records_as_json_and_no_total_looks_like_one() {
    let file = saved(&folder("inspect"), "sim:size=100");
    let output = run(&["inspect", &file, "--json"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let contents: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = fs::read(&file).unwrap();
    let mut names = Vec::new();
    for section in contents["sections"].as_array().unwrap() {
        for record in section["records"].as_array().unwrap() {
            let offset = usize::try_from(record["offset"].as_u64().unwrap()).unwrap();
            assert_eq!(bytes[offset..][..6], [0xff, 0xff, 0xff, 0xff, 0xef, 0x10], "{record}");
            assert!(record["length"].as_u64().unwrap() >= 8);
            names.push(record["record"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(names, ["SETUP", "END_OF_STATE", "DATA", "END_OF_STATE"]);
    let totals = contents["totals"].as_object().unwrap();
    assert!(["record", "offset", "length"].iter().all(|key| !totals.contains_key(*key)));
    assert_eq!(totals["data_bytes"], 124);
    assert_eq!(totals["intact"], true);
}

#[test]
fn inspect_shows_a_damaged_file_up_to_its_damage() {
    let folder = folder("damaged");
    let file = saved(&folder, "sim:size=100");
    let mut bytes = fs::read(&file).unwrap();
    let end =
        bytes.windows(8).rposition(|window| window == [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, 1]).unwrap();
    bytes[end + 7] = 9;
    fs::write(&file, &bytes).unwrap();
    let output = run(&["inspect", &file]);
    assert_eq!(code(&output), Some(4));
    assert!(stdout(&output).contains("DATA"), "{}", stdout(&output));
    assert!(stdout(&output).contains(&format!("at byte {end}")), "{end} in {}", stdout(&output));
    let json: Value = serde_json::from_slice(&run(&["inspect", &file, "--json"]).stdout).unwrap();
    assert_eq!(json["totals"]["intact"], false);
    assert!(json["damage"]["message"].as_str().unwrap().contains("got 0xffffffffef100009"));
}

#[test]
fn probe_tells_what_a_simulated_device_can_do() {
    let output = run(&["probe", "sim:flags=3,size=100", "--json"]);
    let probe: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(probe["migratable"], true);
    assert_eq!((probe["flags"].as_u64(), probe["stop_copy_length"].as_u64()), (Some(3), Some(124)));
    assert_eq!(probe["features"], serde_json::json!(["STOP_COPY", "P2P"]));
}
