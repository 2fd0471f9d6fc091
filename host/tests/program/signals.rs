//! Signals: the device is put back, and the exit code says which one it was.
//!
//! Deliberately absent: SIGKILL, after which nothing can be put back.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::{code, files, folder, program, saved, signal, stderr};

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
        .args(["load", "sim:size=1000", "-i", "-", "-v"])
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
fn sighup_during_a_load_from_a_blocking_socket_ends_with_129_and_a_reset_device() {
    let file = fs::read(saved(&folder("sighup"), "sim:size=1000")).unwrap();
    let (mut near, far) = std::os::unix::net::UnixStream::pair().unwrap();
    // Whatever runs the tests may have SIGHUP ignored.
    let mut loader = Command::new("env")
        .args(["--default-signal=HUP", env!("CARGO_BIN_EXE_vfio-migrate")])
        .args(["load", "sim:size=1000", "-i", "-", "-v"])
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

/// What a loader with `-v` says from when it has brought its device to RESUMING.
fn once_resuming(loader: &mut Child) -> impl Read + use<> {
    once(loader, "set RESUMING: ok")
}

/// What a program says from the line on that has `words`.
fn once(child: &mut Child, words: &str) -> impl Read + use<> {
    let mut trace = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(words) {
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
            "trap '' HUP; exec \"$0\" load sim:size=1000 -i - -v",
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
fn sigint_during_pre_copy_ends_with_130_running_devices_and_no_file() {
    let folder = folder("precopy_interrupted");
    let path = folder.join("cards.state");
    let device = "sim:size=1MiB,initial=8MiB,dirty=1MiB,slow=1000";
    let mut saver = program()
        .args(["save", device, device, "--precopy", "--max-downtime", "0s", "--patience", "1h", "-v", "-o"])
        .arg(&path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let trace = once(&mut saver, ": precopy info: ");
    signal(&saver, Signal::INT);
    let rest = all(trace);
    assert_eq!(saver.wait().unwrap().code(), Some(130), "{rest}");
    assert_eq!(rest.matches("the device is in RUNNING").count(), 2, "{rest}");
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
}

#[test]
fn sigterm_during_a_move_ends_with_143_and_the_source_as_it_was() {
    let source = "sim:size=1MiB,initial=8MiB,dirty=1MiB,slow=1000";
    let mut mover = program()
        .args([
            "move",
            source,
            "sim:size=1MiB",
            "--precopy",
            "--max-downtime",
            "0s",
            "--patience",
            "1h",
            "-v",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let trace = once(&mut mover, ": precopy info: ");
    signal(&mover, Signal::TERM);
    let rest = all(trace);
    assert_eq!(mover.wait().unwrap().code(), Some(143), "{rest}");
    assert!(rest.contains("the device is in RUNNING") && rest.contains("ended by signal 15"), "{rest}");
}
