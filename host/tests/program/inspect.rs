//! `inspect` and `probe`.
//!
//! Deliberately absent: a kernel's device, which the VM tests have; and the walk itself, which `tests/` has.

use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use vfio_migration_core::session::drive::Transport;
use vfio_migration_core::stream::record::{Tag, encode};
use vfio_migration_core::stream::section::{Begins, Item};
use vfio_migration_host::file::{Description, Entry, FORMAT, Writer};
use vfio_migration_host::link::Link;

use crate::{code, folder, golden, program, run, saved, stderr, stdout};

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error} in {}", stdout(output)))
}

/// Looks at the file at `path` with at most so many KiB of address space.
fn run_within(kib: u32, path: &Path, arguments: &str) -> Output {
    let shell = format!("ulimit -v {kib}; exec \"$0\" inspect \"$1\" {arguments}");
    let program = env!("CARGO_BIN_EXE_vfio-migrate");
    Command::new("sh").args(["-c", &shell, program]).arg(path).output().unwrap()
}

#[test]
fn the_stream_of_a_machine_is_shown_to_its_last_byte_in_lines() {
    let output = run(&["inspect", &golden("qemu-10-precopy.bin")]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    for line in [
        "           0           27  preamble, configuration of machine 'pc-i440fx-10.0'",
        "                               block 'pc.ram', 32.00 MiB",
        "         254       139128    32 pages in 131335 bytes, 865 zero pages in 7785 bytes",
        "      139392           40    DATA",
        "      336215            5  command SWITCHOVER_START (11)",
        "      554604           24    of the device",
        "      567340         4124    CONFIG",
        "                               device 4348:3253, subsystem 4348:3253, communication controller 070002, revision 10",
        "      571642        99170  description of 31 devices; each was there, and nothing follows",
        "0000:00:02.0/vfio                         5         4366           60        9",
        "stop-copy                                 2       218370           36",
        "60 bytes of state in 2 DATA records; 670812 bytes were read",
    ] {
        assert!(stdout(&output).lines().any(|got| got == line), "{line}\nin\n{}", stdout(&output));
    }
}

#[test]
fn the_stream_of_a_machine_is_one_json_object_whose_sums_are_the_files_length() {
    let path = golden("qemu-10-precopy.bin");
    let output = run(&["inspect", &path, "--json"]);
    let (contents, bytes) = (json(&output), fs::read(&path).unwrap());
    let sections = contents["sections"].as_array().unwrap();
    assert_eq!((sections.len(), &contents["machine"]), (39, &Value::from("pc-i440fx-10.0")));
    let records = sections.iter().flat_map(|section| section["records"].as_array().unwrap());
    let data: Vec<_> = records.filter(|record| record["record"] == "DATA").collect();
    assert_eq!(data[1], &serde_json::json!({ "record": "DATA", "offset": 554_520, "length": 52 }));
    let config = &sections.iter().find(|section| section.get("config").is_some()).unwrap()["config"];
    assert_eq!((&config["vendor"], &config["bars"][0]["base"]), (&"4348".into(), &"0xc010".into()));
    let totals = &contents["totals"];
    let phases: u64 =
        totals["phases"].as_array().unwrap().iter().filter_map(|sum| sum["bytes"].as_u64()).sum();
    assert_eq!((phases, totals["stream_bytes"].as_u64()), (bytes.len() as u64, Some(bytes.len() as u64)));
    assert_eq!(
        (&totals["intact"], &contents["damage"], &contents["stopped"]),
        (&true.into(), &Value::Null, &Value::Null)
    );
    assert_eq!(contents["commands"][0]["name"], "SWITCHOVER_START");
}

#[test]
fn channels_are_shown_beside_their_stream_and_a_missing_piece_is_missed() {
    let [main, first, second] =
        [0, 1, 2].map(|number| golden(&format!("qemu-10-multifd-channel{number}.bin")));
    let output = run(&["inspect", "--channel", &first, "--channel", &second, &main]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    for line in [
        "      181056         4420  packet 1 of '0000:00:02.0/vfio', CONFIG",
        "      384128          324  packet 0 of '0000:00:02.0/vfio', DATA",
        "2 channels, 588936 bytes: 584064 of 8325 pages of memory, 4744 of devices",
        "'0000:00:02.0/vfio' on the channels: 36 bytes of data in 2 packets, whole",
    ] {
        assert!(stdout(&output).lines().any(|got| got == line), "{line}\nin\n{}", stdout(&output));
    }
    let output = run(&["inspect", &main, "--json", "--channel", &first]);
    assert_eq!(code(&output), Some(4));
    assert!(stderr(&output).contains("got no number 0"), "{}", stderr(&output));
    let contents = json(&output);
    assert_eq!(contents["totals"]["multifd"][0]["whole"], false);
    assert_eq!(contents["channels"][0]["packets"].as_array().unwrap().len(), 31);
    assert_eq!(contents["channels"][0]["configs"][0]["device"], "3253");
}

#[test]
fn a_stream_whose_rest_went_by_channels_that_are_not_given_is_said_to_lack_it() {
    let [main, first, second] = [0, 1, 2].map(|n| golden(&format!("qemu-10-multifd-channel{n}.bin")));
    let lacks = "'0000:00:02.0/vfio': its stop-copy data went by multifd's channels";
    let alone = run(&["inspect", &main]);
    assert!(stdout(&alone).contains(lacks), "{}", stdout(&alone));
    let all = run(&["inspect", &main, "--channel", &first, "--channel", &second]);
    let plain = run(&["inspect", &golden("qemu-10-precopy.bin")]);
    assert!(!stdout(&all).contains(lacks) && !stdout(&plain).contains(lacks));
    let json: Value = serde_json::from_slice(&run(&["inspect", &main, "--json"]).stdout).unwrap();
    let devices = json["totals"]["devices"].as_array().unwrap();
    let elsewhere = devices.iter().filter(|device| device["elsewhere"] == true).collect::<Vec<_>>();
    assert!(elsewhere.len() == 1 && elsewhere[0]["idstr"] == "0000:00:02.0/vfio", "{devices:?}");
}

#[test]
fn channels_that_can_not_be_of_one_migration_are_told() {
    let [main, first, second] = [0, 1, 2].map(|n| golden(&format!("qemu-10-multifd-channel{n}.bin")));
    let path = folder("alien").join("second.bin").to_str().unwrap().to_owned();
    for at in [8, 24] {
        let mut bytes = fs::read(&second).unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let output = run(&["inspect", &main, "--channel", &first, "--channel", &path]);
        assert_eq!(code(&output), Some(4), "{at}");
        assert!(stderr(&output).contains("wanted numbers of their own and one uuid"), "{}", stderr(&output));
    }
}

#[test]
fn a_picture_onto_its_stream_or_onto_standard_output_is_refused() {
    let folder = folder("picture_onto_itself");
    let file = saved(&folder, "sim:size=100");
    let before = fs::read(&file).unwrap();
    for svg in [file.as_str(), "-"] {
        let output = run(&["inspect", &file, "--svg", svg]);
        assert_eq!(code(&output), Some(2), "{svg}: {}", stderr(&output));
    }
    assert!(fs::read(&file).unwrap() == before, "the stream was changed");
}

#[test]
fn a_damaged_channel_is_shown_up_to_its_damage() {
    let folder = folder("channel");
    let [main, first] = [0, 1].map(|number| golden(&format!("qemu-10-multifd-channel{number}.bin")));
    let mut bytes = fs::read(&first).unwrap();
    bytes[181_056] ^= 1;
    let path = folder.join("1.bin");
    fs::write(&path, bytes).unwrap();
    let output = run(&["inspect", &main, "--json", "--channel", path.to_str().unwrap()]);
    assert_eq!(code(&output), Some(4));
    let wanted = "at byte 181056: wanted the magic number of a multifd channel, 0x11223344, got 0x10223344";
    assert!(stderr(&output).contains(wanted), "{}", stderr(&output));
    let channel = &json(&output)["channels"][0];
    assert_eq!(
        (&channel["damage"]["at"], channel["packets"].as_array().unwrap().len()),
        (&181_056.into(), 28)
    );
}

#[test]
fn a_cut_stream_of_a_machine_is_whole_json_with_its_damage() {
    let folder = folder("cut-machine");
    let bytes = fs::read(golden("qemu-10-precopy.bin")).unwrap();
    let path = folder.join("cut.bin");
    for (length, section) in [(5, None), (20, None), (210, Some("START")), (150_000, Some("PART"))] {
        fs::write(&path, &bytes[..length]).unwrap();
        let output = run(&["inspect", path.to_str().unwrap(), "--json"]);
        assert_eq!(code(&output), Some(4), "{length}");
        let contents = json(&output);
        assert_eq!(contents["damage"]["at"], length, "{contents}");
        let last = contents["sections"].as_array().unwrap().last().map(|last| last["section"].clone());
        assert_eq!(last, section.map(Value::from), "{length}");
        assert_eq!(contents["totals"]["stream_bytes"], length);
    }
}

#[test]
fn a_pipe_is_shown_up_to_the_first_other_device_which_is_no_damage() {
    let mut child = program()
        .args(["inspect", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = fs::read(golden("qemu-10-precopy.bin")).unwrap();
    // It may have ended by then.
    let feeding = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert_eq!(code(&output), Some(4));
    let contents = json(&output);
    assert_eq!((&contents["damage"], &contents["stopped"]["at"]), (&Value::Null, &554_604.into()));
    assert!(stderr(&output).contains("from a pipe it can't be read any further"), "{}", stderr(&output));
}

#[test]
fn a_picture_has_a_row_for_each_device_and_channel_and_is_there_whole_or_not() {
    let folder = folder("picture");
    let svg = folder.join("stream.svg");
    let [main, first, second] =
        [0, 1, 2].map(|number| golden(&format!("qemu-10-multifd-channel{number}.bin")));
    let output =
        run(&["inspect", &main, "--svg", svg.to_str().unwrap(), "--channel", &first, "--channel", &second]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    for text in
        ["memory", "0000:00:02.0/vfio", "other devices", "qemu-10-multifd-channel2.bin", "stop-copy", "DATA"]
    {
        assert!(picture.contains(&format!(">{text}</text>")), "{text}");
    }
    let (opened, closed) = (picture.matches("<text").count(), picture.matches("</text>").count());
    assert_eq!(opened, closed);
    let nowhere = folder.join("none/stream.svg");
    assert_eq!(code(&run(&["inspect", &main, "--svg", nowhere.to_str().unwrap()])), Some(5));
}

#[test]
fn the_picture_in_the_documents_is_the_one_that_the_program_draws() {
    let svg = folder("documents").join("stream.svg");
    let [main, first, second] =
        [0, 1, 2].map(|number| golden(&format!("qemu-10-multifd-channel{number}.bin")));
    let beside = ["--channel", &first, "--channel", &second, "--svg", svg.to_str().unwrap()];
    let output = run(&[&["inspect", &main][..], &beside].concat());
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/stream.svg");
    assert!(
        fs::read(svg).unwrap() == fs::read(page).unwrap(),
        "docs/stream.svg is another picture; this draws it, in tests/golden: \
         vfio-migrate inspect qemu-10-multifd-channel0.bin --channel qemu-10-multifd-channel1.bin \
         --channel qemu-10-multifd-channel2.bin --svg ../../docs/stream.svg"
    );
}

#[test]
fn a_name_in_a_stream_can_not_write_into_the_picture() {
    let folder = folder("hostile");
    let name = b"<script>&/vfio";
    let length = [u8::try_from(name.len()).unwrap()];
    let bytes =
        [b"QEVM\0\0\0\x03\x07\0\0\0\0\x01\0\0\0\x02", &length[..], name, b"\0\0\0\0\0\0\0\x01"].concat();
    let (path, svg) = (folder.join("hostile.bin"), folder.join("hostile.svg"));
    fs::write(&path, bytes).unwrap();
    let output = run(&["inspect", path.to_str().unwrap(), "--svg", svg.to_str().unwrap()]);
    assert_eq!(code(&output), Some(4));
    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.contains("&lt;script&gt;&amp;/vfio") && !picture.contains("<script>"), "{picture}");
    assert!(picture.contains("read up to byte"), "{picture}");
}

/// A stream of ours with a START of a device with this name and driver.
fn named(path: &Path, name: &str, driver: &str) {
    let mut writer = Writer::begin(Link::new(File::create(path).unwrap(), None)).unwrap();
    let item = Item::Begin { kind: Begins::Start, id: 1, name: name.as_bytes(), instance: 0, version: 1 };
    writer.item(&item).unwrap();
    let payload = [encode(Tag::Setup), encode(Tag::EndOfState)].concat();
    assert_eq!(writer.send(&payload), Ok(payload.len()));
    writer.footer(1).unwrap();
    let entry = Entry { idstr: name.into(), driver: driver.into(), address: "0".into(), data_bytes: 0 };
    writer.end(&Description { format: FORMAT, devices: vec![entry] }).unwrap();
}

#[test]
fn no_name_in_a_file_reaches_a_terminal_as_an_order_to_it() {
    let folder = folder("escape");
    let (path, svg) = (folder.join("escape.bin"), folder.join("escape.svg"));
    let paths = [&path, &svg].map(|path| path.to_str().unwrap());
    named(&path, "a\u{1b}[31m\u{9b}b/vfio", "mtty\u{1b}]0;c\u{7}");
    let output = run(&["inspect", paths[0], "--svg", paths[1]]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let said = r"'a\u{1b}[31m\u{9b}b/vfio' of driver mtty\u{1b}]0;c\u{7}, 0 bytes of data";
    assert!(stdout(&output).contains(said), "{}", stdout(&output));
    let picture = fs::read_to_string(&svg).unwrap();
    assert!(picture.contains(">a\u{fffd}[31m\u{fffd}b/vfio</text>"), "{picture}");
    named(&path, "a/vfio\u{1b}[31m", "mtty");
    let unread = run(&["inspect", paths[0]]);
    assert_eq!(code(&unread), Some(4));
    let channel = [&b"\x11\x22\x33\x44\0\0\0\x01"[..], &[0; 56], &packets(1, "a\u{1b}b", 0)].concat();
    fs::write(&path, channel).unwrap();
    let beside = run(&["inspect", &golden("qemu-10-multifd-channel0.bin"), "--channel", paths[0]]);
    assert!(stdout(&beside).contains(r"packet 0 of 'a\u{1b}b0'"), "{}", stdout(&beside));
    for text in [stdout(&output), picture, stdout(&unread), stderr(&unread), stdout(&beside), stderr(&beside)]
    {
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    }
}

/// Packets of so many devices, each with a number of its own behind its name, one packet with this index each.
fn packets(devices: u32, name: &str, index: u32) -> Vec<u8> {
    let packet = |device: u32| {
        let mut name = format!("{name}{device}").into_bytes();
        name.resize(256, 0);
        let head: &[u8] = &[0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1, 0, 0, 0, 0x40];
        let words = [0, 12, 0, index, 0].map(u32::to_be_bytes).concat();
        [head, &name, &words].concat()
    };
    (0..devices).flat_map(packet).collect()
}

#[test]
fn channels_of_any_devices_and_numbers_take_the_same_memory() {
    let path = folder("numbers").join("1.bin");
    let packets = packets(600, "device", (1 << 24) - 1);
    fs::write(&path, [&b"\x11\x22\x33\x44\0\0\0\x01"[..], &[0; 56], &packets].concat()).unwrap();
    let beside = format!("--channel {}", path.to_str().unwrap());
    let output = run_within(48_000, Path::new(&golden("qemu-10-multifd-channel0.bin")), &beside);
    assert_eq!(code(&output), Some(4), "{}", stderr(&output));
    assert!(stdout(&output).contains("'device599' on the channels: "), "{}", stdout(&output));
    let said = "wanted each piece of the state of 'device0', instance 0 on the channels, got none with the configuration";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));
}

/// A stream of ours with one device, whose END holds so many DATA records of so many zeros; the file is sparse. It has no
/// description, so it is damaged behind its end byte.
fn zeros(path: &Path, records: u64, length: u64) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let begin = b"QEVM\0\0\0\x03\x07\0\0\0\0\x01\0\0\0\x01\x06x/vfio\0\0\0\0\0\0\0\x01";
    let tag = |number| [0xff, 0xff, 0xff, 0xff, 0xef, 0x10, 0, number];
    file.write_all(begin).unwrap();
    file.write_all(&[tag(3), tag(1)].concat()).unwrap();
    file.write_all(&[0x7e, 0, 0, 0, 1, 3, 0, 0, 0, 1]).unwrap();
    for _ in 0..records {
        file.write_all(&[tag(4), length.to_be_bytes()].concat()).unwrap();
        match length {
            0..4096 => file.write_all(&[0; 4096][..usize::try_from(length).unwrap()]).unwrap(),
            _ => drop(file.seek(SeekFrom::Current(length.try_into().unwrap())).unwrap()),
        }
    }
    file.write_all(&tag(1)).unwrap();
    file.write_all(&[0x7e, 0, 0, 0, 1, 0]).unwrap();
    file.flush().unwrap();
}

#[test]
fn a_stream_of_any_length_takes_the_same_memory() {
    let path = folder("long").join("long.bin");
    for (records, length) in [(1, 100 << 20), (300_000, 1)] {
        zeros(&path, records, length);
        for arguments in ["--svg /dev/null | tail -1", "--json --svg /dev/null | tail -c 700"] {
            let output = run_within(24_000, &path, arguments);
            let last = stdout(&output);
            assert!(last.contains(&(records * length).to_string()), "{last}{}", stderr(&output));
        }
    }
    fs::remove_file(path).unwrap();
}

/// A machine's stream without a section, with this description.
fn described(path: &Path, json: &str) {
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    fs::write(path, [b"QEVM\0\0\0\x03\x07\0\0\0\x02pc\0\x06", &length[..], json.as_bytes()].concat())
        .unwrap();
}

#[test]
fn a_description_takes_no_more_memory_than_its_bytes_and_its_devices() {
    let path = folder("described").join("machine.bin");
    let [fields, subsections] = ["{\"size\":1}", "{\"vmsd_name\":\"\"}"].map(|item| {
        let count = (8 << 20) / (item.len() + 1);
        vec![item; count].join(",")
    });
    for (list, items) in [("fields", fields), ("subsections", subsections)] {
        described(&path, &format!("{{\"devices\":[{{\"name\":\"timer\",\"{list}\":[{items}]}}]}}"));
        let output = run_within(40_000, &path, "");
        let missed = "wanted a FULL of 'timer', instance 0 by the description, got none";
        assert!(stderr(&output).contains(missed), "{list}: {}", stderr(&output));
    }
    for (count, says) in
        [(65_536, "got none"), (65_537, "one of more than 65536 devices"), (1 << 19, "65536")]
    {
        described(&path, &format!("{{\"devices\":[{}]}}", vec!["{\"name\":\"a\"}"; count].join(",")));
        let output = run_within(40_000, &path, "");
        assert!(stderr(&output).contains(says), "{count}: {}", stderr(&output));
        assert_eq!(code(&output), Some(4));
    }
    fs::remove_file(path).unwrap();
}

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
