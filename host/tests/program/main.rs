//! The program as a user meets it: what it prints, where, which files it leaves, and its exit code.
//!
//! Deliberately absent: what happens to a device in a transfer, which `tests/` has; here it is what is said of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

mod bench;
mod conform;
mod dry_run;
mod extract;
mod files;
mod inspect;
mod several;
mod signals;
mod trace;
mod vmm;

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

/// The path of a golden file.
fn golden(name: &str) -> String {
    format!("{}/../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
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
    for command in ["demo", "probe", "save", "load", "move", "inspect", "extract"] {
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
