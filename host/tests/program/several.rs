//! Several devices, pre-copy and `move`.
//!
//! Deliberately absent: lockstep and the stream's bytes, which `tests/` has.

use std::fs;
use std::process::Stdio;

use crate::{code, files, folder, program, run, stderr, stdout};

#[test]
fn several_devices_go_through_a_pipe() {
    let devices = ["sim:size=1MiB,seed=1", "sim:size=0", "sim:size=1,seed=3", "sim:size=100KiB,seed=4"];
    for more in [&[][..], &["--precopy"], &["--precopy", "--max-downtime", "1s", "--buffer", "64KiB"]] {
        let mut saver = program()
            .arg("save")
            .args(devices)
            .args(["-o", "-"])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let loader = program()
            .args(["load", "sim:size=1MiB", "sim:size=0", "sim:size=1", "sim:size=100KiB", "-i", "-"])
            .stdin(saver.stdout.take().unwrap())
            .output()
            .unwrap();
        assert_eq!(code(&loader), Some(0), "{more:?}: {}", stderr(&loader));
        assert_eq!(stderr(&loader).matches("the device is in RUNNING").count(), 4, "{}", stderr(&loader));
        let saver = saver.wait_with_output().unwrap();
        assert_eq!(code(&saver), Some(0), "{more:?}: {}", stderr(&saver));
        assert_eq!(stderr(&saver).matches("the device is in RUNNING").count(), 4, "{}", stderr(&saver));
        assert!(stderr(&saver).contains("stood still for "), "{}", stderr(&saver));
    }
}

#[test]
fn several_devices_are_saved_with_the_names_that_a_qemu_has_for_them() {
    let folder = folder("several_qemu");
    let path = folder.join("cards.state").to_str().unwrap().to_owned();
    let ids = ["--qemu-id", "0000:00:02.0", "--qemu-id", "0000:00:03.0"];
    let output = run(&[&["save", "sim:size=9", "sim:size=8", "-o", &path][..], &ids].concat());
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let shown = stdout(&run(&["inspect", &path]));
    assert!(shown.contains("0000:00:02.0/vfio") && shown.contains("0000:00:03.0/vfio"), "{shown}");
    let loaded = run(&["load", "sim:size=9", "sim:size=8", "-i", &path]);
    assert_eq!(code(&loaded), Some(0), "{}", stderr(&loaded));
    let too_few = run(&["load", "sim:size=9", "-i", &path]);
    assert_eq!(code(&too_few), Some(4), "{}", stderr(&too_few));
    assert!(stderr(&too_few).contains("got one more, '0000:00:03.0/vfio'"), "{}", stderr(&too_few));
    let too_many = run(&["load", "sim:size=9", "sim:size=8", "sim:size=7", "-i", &path]);
    assert_eq!(code(&too_many), Some(4), "{}", stderr(&too_many));
    assert!(
        stderr(&too_many).contains("wanted the state of 3 devices in the stream, got 2"),
        "{}",
        stderr(&too_many)
    );
}

#[test]
fn several_devices_without_p2p_end_with_3_their_names_and_no_file() {
    let folder = folder("no_p2p");
    let path = folder.join("cards.state");
    let output =
        run(&["save", "sim:size=9,flags=7", "sim:size=9,flags=5", "-o", path.to_str().unwrap(), "-v"]);
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("wanted P2P of every device"), "{}", stderr(&output));
    assert!(!stderr(&output).contains(": set "), "{}", stderr(&output));
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
}

#[test]
fn of_several_devices_the_one_that_refuses_is_named_and_each_is_told_of() {
    let folder = folder("several_refused");
    let path = folder.join("cards.state");
    let output = run(&["save", "sim:size=9", "sim:size=9,fail=read:1", "-o", path.to_str().unwrap()]);
    let text = stderr(&output);
    assert_eq!(code(&output), Some(3), "{text}");
    assert!(text.contains("could not be read: error 5 (Input/output error)"), "{text}");
    assert_eq!(text.matches("the device is in RUNNING").count(), 2, "{text}");
    let bad = text.split_once(".1/vfio': ").unwrap_or_else(|| panic!("{text}")).0;
    assert!(!bad.contains('\n'), "the device that refused stands first: {text}");
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
}

#[test]
fn a_move_leaves_the_source_in_stop_and_the_destination_running_and_says_how_long_they_stood() {
    for more in [&[][..], &["--precopy"], &["--precopy", "--max-downtime", "20s", "--patience", "2s"]] {
        let source = "sim:size=1MiB,seed=7,initial=512KiB";
        let output = run(&[&["move", source, "sim:size=1MiB"][..], more].concat());
        assert_eq!(code(&output), Some(0), "{more:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("the source is in STOP, the destination in RUNNING"), "{text}");
        assert!(text.contains("stood still for "), "{text}");
    }
}

#[test]
fn a_move_that_a_side_refuses_says_which_and_where_both_are() {
    let table = [
        ("sim:size=9,fail=set-stop_copy:1", "sim:size=9", 3, "the device refused STOP_COPY"),
        ("sim:size=9", "sim:size=9,fail=set-resuming:1", 3, "the device refused RESUMING"),
        ("sim:size=9", "sim:size=9,fail=write:1", 3, "the device refused the data"),
        ("sim:size=9", "sim:size=10", 3, "the device refused the data"),
        ("sim:size=9", "sim:size=9,fail=set-running:1", 3, "the device refused RUNNING"),
    ];
    for (source, destination, exit, words) in table {
        let output = run(&["move", source, destination]);
        let text = stderr(&output);
        assert_eq!(code(&output), Some(exit), "{source} {destination}: {text}");
        assert!(text.contains(words), "{words} in {text}");
        assert_eq!(text.matches("sim@").count(), text.matches("/vfio'").count(), "{text}");
        assert!(text.matches("the device is in RUNNING").count() >= 1, "{text}");
        assert!(text.starts_with("vfio-migrate: 'sim@"), "which of both: {text}");
    }
}

#[test]
fn pre_copy_that_does_not_converge_ends_with_3_after_its_patience_and_says_what_helps() {
    let folder = folder("patience");
    let path = folder.join("card.state");
    let device = "sim:size=1MiB,initial=128KiB,data-size=1GiB";
    let output = program()
        .args(["save", device, "--precopy", "--max-downtime", "1us", "--patience", "10ms", "-o"])
        .arg(&path)
        .output()
        .unwrap();
    let text = stderr(&output);
    assert_eq!(code(&output), Some(3), "{text}");
    for words in ["pre-copy will not converge", "allow a longer downtime", "the device is in RUNNING"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
}

#[test]
fn wrong_usage_of_what_several_devices_take_ends_with_2_and_what_was_wanted() {
    let table: [(&[&str], &str); 11] = [
        (&["save", "-o", "x"], "DEVICE"),
        (&["load", "-i", "x"], "DEVICE"),
        (&["move", "sim:size=9"], "<DESTINATION>"),
        (&["save", "sim:size=9", "-o", "x", "--max-downtime", "1s"], "--precopy"),
        (&["save", "sim:size=9", "-o", "x", "--patience", "1s"], "--precopy"),
        (&["move", "sim:size=9", "sim:size=9", "--precopy", "--max-downtime", "fast"], "--max-downtime"),
        (&["move", "sim:size=9", "sim:size=9", "--precopy", "--max-downtime", "5"], "unit"),
        (
            &["save", "sim:size=9", "sim:size=9", "-o", "x", "--qemu-id", "a"],
            "wanted one for each of 2 devices",
        ),
        (
            &["save", "sim:size=9", "-o", "x", "--qemu-id", "a", "--qemu-id", "b"],
            "wanted one for each of 1 devices",
        ),
        (&["save", "sim:size=9", "sim:colour=red", "-o", "x"], "colour=red"),
        (&["save", "sim:size=9", "-o", "x", "--trace-json"], "--trace-json"),
    ];
    let folder = folder("wrong_usage");
    for (arguments, wanted) in table {
        let output = program().args(arguments).current_dir(&folder).output().unwrap();
        assert_eq!(code(&output), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(wanted), "{arguments:?}: {wanted} in {}", stderr(&output));
        assert!(files(&folder).is_empty(), "{arguments:?}: {:?}", files(&folder));
    }
}

#[test]
fn two_devices_with_one_name_are_refused_without_a_file() {
    let folder = folder("one_name");
    let path = folder.join("cards.state").to_str().unwrap().to_owned();
    let ids = ["--qemu-id", "0000:00:02.0", "--qemu-id", "0000:00:02.0"];
    let output = run(&[&["save", "sim:size=9", "sim:size=8", "-o", &path][..], &ids].concat());
    assert!(matches!(code(&output), Some(2 | 3)), "{}", stderr(&output));
    assert!(stderr(&output).contains("0000:00:02.0"), "{}", stderr(&output));
    assert!(fs::read(&path).is_err() && files(&folder).is_empty());
}
