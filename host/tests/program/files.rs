//! Files that are written, and those that can't be.
//!
//! Deliberately absent: their bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::{code, files, folder, program, run, saved, stderr};

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
    save.args(["save", "sim:size=100KiB", "--buffer", "4KiB", "-v", "--output", path.to_str().unwrap()]);
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
fn a_link_that_leads_nowhere_and_a_name_that_is_too_long_are_told_before_the_device_is_stopped() {
    let folder = folder("names");
    std::os::unix::fs::symlink("nowhere", folder.join("link")).unwrap();
    for name in ["link".to_owned(), "x".repeat(300)] {
        let path = folder.join(&name);
        let output = run(&["save", "sim:size=10", "-v", "--output", path.to_str().unwrap()]);
        assert_eq!(code(&output), Some(5), "{name}: {}", stderr(&output));
        assert!(!stderr(&output).contains("STOP_COPY"), "{}", stderr(&output));
    }
    assert_eq!(files(&folder), ["link"]);
}
