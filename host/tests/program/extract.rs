//! `extract` and `load --section`: what a user is told, which files are left, and the exit codes.
//!
//! Deliberately absent: the bytes that come out, which `tests/tests/extract.rs` has.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::{code, files, folder, golden, program, run, signal, stderr, stdout};

const NAME: &str = "0000:00:02.0/vfio";

fn out(folder: &Path) -> String {
    folder.join("card.state").to_str().unwrap().to_owned()
}

/// A stream of ours in which a simulated device has the name that a QEMU gives it.
fn named(folder: &Path, device: &str) -> String {
    let path = folder.join("named.stream").to_str().unwrap().to_owned();
    let saved = run(&["save", device, "--output", &path, "--qemu-id", "0000:00:02.0"]);
    assert_eq!(code(&saved), Some(0), "{}", stderr(&saved));
    path
}

/// The stream of a machine that has a device of this stream of ours and nothing else.
fn machine(ours: &[u8]) -> Vec<u8> {
    let end = ours.windows(3).rposition(|window| window == [0, 6, 0]).unwrap();
    let json = b"{\"page_size\": 4096, \"devices\": []}";
    let length = u32::try_from(json.len()).unwrap().to_be_bytes();
    [&b"QEVM\0\0\0\x03\x07\0\0\0\x02pc"[..], &ours[13..=end], &[6], &length, json].concat()
}

#[test]
fn a_device_comes_out_of_a_machines_stream_into_a_file_that_is_whole() {
    let folder = folder("extract");
    let (stream, out) = (golden("qemu-10-precopy.bin"), out(&folder));
    let taken = run(&["extract", &stream, "--section", NAME, "--driver", "mtty", "-o", &out]);
    assert_eq!(code(&taken), Some(0), "{}", stderr(&taken));
    assert!(stderr(&taken).contains("took out '0000:00:02.0/vfio': state of 60 B"), "{}", stderr(&taken));
    assert_eq!(files(&folder), ["card.state"]);
    let seen = run(&["inspect", &out]);
    assert_eq!(code(&seen), Some(0), "{}", stderr(&seen));
}

#[test]
fn a_device_whose_driver_was_not_said_is_loaded_only_with_force() {
    let folder = folder("extract_unknown");
    let (stream, out) = (named(&folder, "sim:size=1000,seed=3"), out(&folder));
    let taken = run(&["extract", &stream, "--section", NAME, "-o", &out]);
    assert_eq!(code(&taken), Some(0), "{}", stderr(&taken));
    let told = run(&["load", "sim:size=1000", "--input", &out]);
    assert_eq!(code(&told), Some(0), "a stream of ours names the driver: {}", stderr(&told));
    let bytes = fs::read(&stream).unwrap();
    fs::write(&stream, machine(&bytes)).unwrap();
    let taken = run(&["extract", &stream, "--section", NAME, "-o", &out]);
    assert_eq!(code(&taken), Some(0), "{}", stderr(&taken));
    let refused = run(&["load", "sim:size=1000", "--input", &out]);
    assert_eq!(code(&refused), Some(4), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("of driver 'unknown', wanted 'sim'"), "{}", stderr(&refused));
    let forced = run(&["load", "sim:size=1000", "--input", &out, "--force"]);
    assert_eq!(code(&forced), Some(0), "{}", stderr(&forced));
}

#[test]
fn multifds_channels_are_wanted_and_taken() {
    let folder = folder("extract_multifd");
    let [stream, first, second] = [0, 1, 2].map(|n| golden(&format!("qemu-10-multifd-channel{n}.bin")));
    let out = out(&folder);
    let extract = ["extract", &stream, "--section", NAME, "-o", &out];
    let without = run(&extract);
    assert_eq!(code(&without), Some(4));
    assert!(stderr(&without).contains("channels of multifd"), "{}", stderr(&without));
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
    let with = run(&[&extract[..], &["--channel", &first, "--channel", &second]].concat());
    assert_eq!(code(&with), Some(0), "{}", stderr(&with));
    assert!(stderr(&with).contains("state of 60 B"), "{}", stderr(&with));
}

#[test]
fn a_named_section_is_loaded_into_a_device_and_a_dry_run_says_so_before() {
    let folder = folder("load_section");
    let stream = named(&folder, "sim:size=1000,seed=3");
    let load = ["load", "sim:size=1000", "--input", &stream, "--section", NAME];
    let dry = run(&[&load[..], &["--dry-run"]].concat());
    assert_eq!(code(&dry), Some(0), "{}", stderr(&dry));
    assert!(stdout(&dry).contains("nothing was done"), "{}", stdout(&dry));
    let loaded = run(&load);
    assert_eq!(code(&loaded), Some(0), "{}", stderr(&loaded));
    assert!(stderr(&loaded).contains("loaded '0000:00:02.0/vfio' into sim@"), "{}", stderr(&loaded));
    let other_size = run(&["load", "sim:size=1001", "--input", &stream, "--section", NAME]);
    assert_eq!(code(&other_size), Some(3), "{}", stderr(&other_size));
}

#[test]
fn what_can_not_be_taken_out_leaves_the_device_as_it_was_or_reset_and_says_where() {
    let folder = folder("load_section_refused");
    let stream = named(&folder, "sim:size=3MiB,seed=3");
    let absent = run(&["load", "sim:size=3MiB", "--input", &stream, "--section", "0000:00:03.0/vfio"]);
    assert_eq!(code(&absent), Some(4));
    let wanted = "wanted a section '0000:00:03.0/vfio' of a VFIO device, got '0000:00:02.0/vfio'";
    assert!(stderr(&absent).contains(wanted), "{}", stderr(&absent));
    assert!(stderr(&absent).contains("the device is in RUNNING"), "{}", stderr(&absent));
    let bytes = fs::read(&stream).unwrap();
    fs::write(&stream, &bytes[..2_000_000]).unwrap();
    let cut = run(&["load", "sim:size=3MiB", "--input", &stream, "--section", NAME]);
    assert_eq!(code(&cut), Some(4));
    for text in ["named.stream", "the stream ended at byte 2000000", "reset to RUNNING"] {
        assert!(stderr(&cut).contains(text), "{text} in {}", stderr(&cut));
    }
}

#[test]
fn a_machines_stream_from_a_pipe_is_refused_at_the_first_section_that_only_a_file_tells_of() {
    let folder = folder("extract_pipe");
    let out = out(&folder);
    let mut cat = std::process::Command::new("cat")
        .stdin(File::open(golden("qemu-10-precopy.bin")).unwrap())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pipe = cat.stdout.take().unwrap();
    let taken = program().args(["extract", "-", "--section", NAME, "-o", &out]).stdin(pipe).output().unwrap();
    let _ = cat.wait();
    assert_eq!(code(&taken), Some(4), "{}", stderr(&taken));
    assert!(stderr(&taken).contains("from a file it can"), "{}", stderr(&taken));
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
}

#[test]
fn an_output_that_is_an_input_is_refused_and_stays_as_it_is() {
    let folder = folder("extract_onto_itself");
    let stream = named(&folder, "sim:size=1000,seed=3");
    let before = fs::read(&stream).unwrap();
    let link = folder.join("link").to_str().unwrap().to_owned();
    std::os::unix::fs::symlink(&stream, &link).unwrap();
    for output in [&stream, &link] {
        let taken = run(&["extract", &stream, "--section", NAME, "-o", output]);
        assert_eq!(code(&taken), Some(2), "{}", stderr(&taken));
    }
    let channel = run(&[
        "extract",
        &golden("qemu-10-precopy.bin"),
        "--section",
        NAME,
        "--channel",
        &stream,
        "-o",
        &stream,
    ]);
    assert_eq!(code(&channel), Some(2), "{}", stderr(&channel));
    assert!(fs::read(&stream).unwrap() == before, "the input was changed");
}

/// A pipe in a folder, whose writer stays until it is dropped and writes nothing but these bytes.
fn silent(folder: &Path, bytes: &[u8]) -> (String, File) {
    let path = folder.join("pipe").to_str().unwrap().to_owned();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let mut writer = File::options().read(true).write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    (path, writer)
}

/// Waits until the program handles a signal by itself.
fn wait_until_caught(child: &Child, signal: Signal) {
    let is_caught = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
    };
    while !is_caught() {
        std::thread::yield_now();
    }
}

#[test]
fn a_wait_for_a_stream_that_does_not_come_is_ended_by_an_interrupt() {
    let folder = folder("extract_interrupted");
    let (pipe, _writer) = silent(&folder, b"");
    let out = out(&folder);
    for arguments in [
        &["extract", &pipe, "--section", NAME, "-o", &out][..],
        &["load", "sim:size=1000", "--input", &pipe, "--section", NAME],
    ] {
        let child = program().args(arguments).stderr(Stdio::piped()).spawn().unwrap();
        wait_until_caught(&child, Signal::INT);
        signal(&child, Signal::INT);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(code(&ended), Some(130), "{arguments:?}: {}", stderr(&ended));
        assert!(stderr(&ended).contains("ended by signal 2"), "{}", stderr(&ended));
    }
    assert!(!folder.join("card.state").exists());
}

#[test]
fn a_device_that_refuses_is_told_at_once_though_the_stream_goes_on() {
    let folder = folder("extract_refused");
    let path = folder.join("small.stream").to_str().unwrap().to_owned();
    let save = ["save", "sim:size=100KiB", "-o", &path, "--qemu-id", "0000:00:02.0", "--buffer", "4KiB"];
    assert_eq!(code(&run(&save)), Some(0));
    let (pipe, _writer) = silent(&folder, &fs::read(&path).unwrap()[..50_000]);
    let load = run(&["load", "sim:size=100KiB,fail=set-resuming:1", "--input", &pipe, "--section", NAME]);
    assert_eq!(code(&load), Some(3), "{}", stderr(&load));
    assert!(stderr(&load).contains("the device refused RESUMING"), "{}", stderr(&load));
}

#[test]
fn wrong_numbers_of_names_end_with_2_before_anything_is_opened() {
    let table: [&[&str]; 6] = [
        &["extract", "x", "-o", "y"],
        &["extract", "x", "--section", "a", "--section", "b", "--driver", "c", "-o", "y"],
        &["load", "sim:", "--input", "x", "--section", "a", "--section", "b"],
        &["load", "sim:", "--input", "x", "--channel", "c"],
        &["extract", "/dev/null", "--section", "a", "--section", "a", "-o", "y"],
        &["extract", "/dev/null", "--section", "a", "--driver", "b\u{1b}[31m", "-o", "y"],
    ];
    for arguments in table {
        let output = run(arguments);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {}", stderr(&output));
    }
}
