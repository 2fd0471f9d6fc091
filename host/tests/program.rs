//! The program as a user meets it: what it prints, where, which files it leaves, and its exit code.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_vfio-migrate"))
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn files(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

fn saved(folder: &Path, device: &str) -> String {
    let path = folder.join("card.state").to_str().unwrap().to_owned();
    let output = run(&["save", device, "--output", &path]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    path
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn the_demo_moves_a_device_and_says_that_the_contents_are_equal() {
    let output = run(&["demo", "--size", "3MiB"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).contains("equals the source's, byte for byte"), "{}", stdout(&output));
    assert!(stdout(&output).contains("source STOP, destination RUNNING"), "{}", stdout(&output));
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_was_wanted() {
    let table: [&[&str]; 9] = [
        &["save", "sim:"],
        &["save", "eth0", "--output", "x"],
        &["save", "sim:size=x", "--output", "x"],
        &["save", "sim:", "--output", "x", "--buffer", "63"],
        &["save", "sim:", "--output", "x", "--buffer", "1MB"],
        &["save", "sim:", "--output", "x", "--qemu-id", ""],
        &["save", "sim:", "--output", "x", "--qemu-id", "a\u{1b}[31m"],
        &["save", "sim:", "--output", "folder/"],
        &["load", "sim:", "--input", "x", "--leave", "paused"],
    ];
    for arguments in table {
        let output = program().args(arguments).current_dir(folder("usage")).output().unwrap();
        assert_eq!(code(&output), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_has_examples_exit_codes_and_the_warning_about_resets() {
    let help = stdout(&run(&["--help"]));
    for text in ["Examples:", "Exit codes:", "resets a PCI function", "fd:N"] {
        assert!(help.contains(text), "{text} in {help}");
    }
    for command in ["demo", "probe", "save", "load", "inspect"] {
        let help = run(&[command, "--help"]);
        assert!(stdout(&help).contains("Examples:"), "{command}");
    }
}

#[test]
fn a_saved_file_loads_and_its_folder_holds_nothing_else() {
    let folder = folder("saved");
    let file = saved(&folder, "sim:size=3MiB,seed=5");
    assert_eq!(files(&folder), ["card.state"]);
    let output = run(&["load", "sim:size=3MiB", "--input", &file, "--leave", "stopped"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("the device is in STOP"), "{}", stderr(&output));
}

#[test]
fn a_stream_goes_through_a_pipe() {
    let mut saver =
        program().args(["save", "sim:size=3MiB", "-o", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let loader = program()
        .args(["load", "sim:size=3MiB", "-i", "-"])
        .stdin(saver.stdout.take().unwrap())
        .output()
        .unwrap();
    assert_eq!(code(&loader), Some(0), "{}", stderr(&loader));
    assert!(saver.wait().unwrap().success());
}

#[test]
fn what_was_saved_before_stays_when_a_save_fails() {
    let folder = folder("kept");
    let file = saved(&folder, "sim:size=10");
    let before = fs::read(&file).unwrap();
    let output = run(&["save", "fd:99", "--output", &file]);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(files(&folder), ["card.state"]);
}

#[test]
fn a_cut_stream_ends_with_4_and_names_section_record_and_byte() {
    let folder = folder("cut");
    let file = saved(&folder, "sim:size=1000");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..200]).unwrap();
    let output = run(&["load", "sim:size=1000", "--input", &file]);
    assert_eq!(code(&output), Some(4));
    for text in
        ["section END of 'sim@", "record DATA", "byte 200 of the stream", "wanted", "reset to RUNNING"]
    {
        assert!(stderr(&output).contains(text), "{text} in {}", stderr(&output));
    }
}

#[test]
fn a_device_that_refuses_ends_with_3_and_another_driver_with_4() {
    let file = saved(&folder("refused"), "sim:size=1000");
    let other_size = run(&["load", "sim:size=1001", "--input", &file]);
    assert_eq!(code(&other_size), Some(3), "{}", stderr(&other_size));
    assert!(stderr(&other_size).contains("Bad address"), "{}", stderr(&other_size));
    let missing = run(&["probe", "ffff:ff:1f.7"]);
    assert_eq!(code(&missing), Some(3), "{}", stderr(&missing));
}

#[test]
fn files_that_cannot_be_read_or_written_end_with_5_and_their_name() {
    let missing = run(&["load", "sim:", "--input", "/nonexistent/card.state"]);
    let unwritable = run(&["save", "sim:size=1", "--output", "/nonexistent/card.state"]);
    let full = run(&["save", "sim:size=1MiB", "--output", "/dev/full"]);
    let folder = run(&["load", "sim:", "--input", "/sys"]);
    let inspected = run(&["inspect", "/sys"]);
    let table = [
        (missing, "/nonexistent"),
        (unwritable, "/nonexistent"),
        (full, "/dev/full"),
        (folder, "/sys"),
        (inspected, "/sys"),
    ];
    for (output, name) in table {
        assert_eq!(code(&output), Some(5), "{}", stderr(&output));
        assert!(stderr(&output).contains(name), "{name} in {}", stderr(&output));
    }
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

#[test]
fn trace_prints_every_step_with_its_outcome() {
    let output = run(&["save", "sim:size=1000", "--output", "/dev/null", "--trace"]);
    for text in
        ["set STOP_COPY: ok", "read data, room for 1048576: 1024", "room for 1048576: end", "set STOP: ok"]
    {
        assert!(stderr(&output).contains(text), "{text} in {}", stderr(&output));
    }
}

#[test]
fn sigint_during_a_save_into_a_pipe_that_nobody_empties_ends_with_130_and_a_running_device() {
    let mut saver = program()
        .args(["save", "sim:size=3MiB", "-o", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 13];
    let mut pipe = saver.stdout.take().unwrap();
    pipe.read_exact(&mut first).unwrap();
    signal(&saver, Signal::INT);
    let output = saver.wait_with_output().unwrap();
    assert_eq!(code(&output), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("the device is in RUNNING"), "{}", stderr(&output));
    drop(pipe);
}

#[test]
fn sigterm_during_a_load_from_a_pipe_that_nobody_fills_ends_with_143_and_a_reset_device() {
    let file = fs::read(saved(&folder("sigterm"), "sim:size=1000")).unwrap();
    let mut loader = program()
        .args(["load", "sim:size=1000", "-i", "-", "--trace"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = loader.stdin.take().unwrap();
    std::io::Write::write_all(&mut pipe, &file[..file.len() / 2]).unwrap();
    let trace = once_resuming(&mut loader);
    signal(&loader, Signal::TERM);
    let rest = all(trace);
    assert_eq!(loader.wait().unwrap().code(), Some(143), "{rest}");
    assert!(rest.contains("reset to RUNNING"), "{rest}");
    drop(pipe);
}

#[test]
fn sigint_during_a_save_into_a_file_leaves_no_file() {
    let folder = folder("interrupted");
    let path = folder.join("card.state");
    let mut saver = program()
        .args(["save", "sim:size=128MiB", "--buffer", "64", "--output", path.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while files(&folder).is_empty() {
        assert!(saver.try_wait().unwrap().is_none(), "ended too early");
        std::thread::yield_now();
    }
    signal(&saver, Signal::INT);
    assert_eq!(saver.wait().unwrap().code(), Some(130));
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
}

#[test]
fn a_save_through_a_link_writes_what_it_links_to_and_keeps_its_mode() {
    let folder = folder("link");
    let real = folder.join("real.state");
    fs::write(&real, "before").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
    let link = folder.join("link.state");
    std::os::unix::fs::symlink("real.state", &link).unwrap();
    let output = run(&["save", "sim:size=10", "--output", link.to_str().unwrap()]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(&real).unwrap().starts_with(b"QEVM"));
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_new_file_is_its_owners_alone() {
    let file = saved(&folder("mode"), "sim:size=10");
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn words_that_nobody_can_read_do_not_stop_the_work() {
    let folder = folder("unread");
    let path = folder.join("card.state");
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let mut save = program();
    save.args(["save", "sim:size=100KiB", "--buffer", "4KiB", "--trace", "--output", path.to_str().unwrap()]);
    assert_eq!(save.stderr(full()).status().unwrap().code(), Some(0));
    let mut load = program();
    load.args(["load", "sim:", "--input", "/nonexistent"]);
    assert_eq!(load.stderr(full()).status().unwrap().code(), Some(5));
}

#[test]
fn a_state_is_not_saved_into_a_closed_standard_output() {
    // What the runtime puts in the place of a closed descriptor.
    let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
    let output = program().args(["save", "sim:size=10", "-o", "-"]).stdout(null).output().unwrap();
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
}

#[test]
fn sighup_during_a_load_from_a_blocking_socket_ends_with_129_and_a_reset_device() {
    let file = fs::read(saved(&folder("sighup"), "sim:size=1000")).unwrap();
    let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    // Whatever runs the tests may have SIGHUP ignored.
    let mut loader = Command::new("env")
        .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_vfio-migrate")])
        .args(["load", "sim:size=1000", "-i", "-", "--trace"])
        .stdin(OwnedFd::from(far))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut near, &file[..file.len() / 2]).unwrap();
    let trace = once_resuming(&mut loader);
    signal(&loader, Signal::HUP);
    let rest = all(trace);
    assert_eq!(loader.wait().unwrap().code(), Some(129), "{rest}");
    assert!(rest.contains("reset to RUNNING"), "{rest}");
    drop(near);
}

/// What a loader with `--trace` says from when it has brought its device to RESUMING.
fn once_resuming(loader: &mut Child) -> impl Read + use<> {
    let mut trace = std::io::BufReader::new(loader.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("set RESUMING: ok") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut trace, &mut line).unwrap(), 0, "ended too early");
    }
    trace
}

fn all(mut from: impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let mut loader = Command::new("sh")
        .args([
            "-c",
            "trap '' HUP; exec \"$0\" load sim:size=1000 -i - --trace",
            env!("CARGO_BIN_EXE_vfio-migrate"),
        ])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let file = fs::read(saved(&folder("ignored"), "sim:size=1000")).unwrap();
    let mut pipe = loader.stdin.take().unwrap();
    std::io::Write::write_all(&mut pipe, &file[..200]).unwrap();
    let trace = once_resuming(&mut loader);
    signal(&loader, Signal::HUP);
    std::io::Write::write_all(&mut pipe, &file[200..]).unwrap();
    drop(pipe);
    let trace = all(trace);
    assert_eq!(loader.wait().unwrap().code(), Some(0), "{trace}");
}

#[test]
fn a_link_that_leads_nowhere_and_a_name_that_is_too_long_are_told_before_the_device_is_stopped() {
    let folder = folder("names");
    std::os::unix::fs::symlink("nowhere", folder.join("link")).unwrap();
    for name in ["link".to_owned(), "x".repeat(300)] {
        let path = folder.join(&name);
        let output = run(&["save", "sim:size=10", "--trace", "--output", path.to_str().unwrap()]);
        assert_eq!(code(&output), Some(5), "{name}: {}", stderr(&output));
        assert!(!stderr(&output).contains("STOP_COPY"), "{}", stderr(&output));
    }
    assert_eq!(files(&folder), ["link"]);
}
