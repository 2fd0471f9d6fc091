//! `--dry-run`: everything that would be done is said, nothing is done, and what would be refused before anything is done
//! is refused here too.
//!
//! Deliberately absent: what only a driver can refuse.

use std::fs;

use crate::{code, files, folder, program, run, saved, stderr, stdout};

#[test]
fn a_dry_save_says_its_steps_and_makes_no_file() {
    let folder = folder("dry_save");
    let path = folder.join("cards.state").to_str().unwrap().to_owned();
    let devices = ["sim:size=3MiB", "sim:size=9,flags=3"];
    let output = run(&[&["save"][..], &devices, &["-o", &path, "--precopy", "--dry-run", "-v"]].concat());
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    assert!(files(&folder).is_empty(), "{:?}", files(&folder));
    let text = stdout(&output);
    let steps = [
        ": RUNNING → PRE_COPY\n",
        "at most 300.000 ms",
        ": PRE_COPY → PRE_COPY_P2P\n",
        ": RUNNING → RUNNING_P2P\n",
        ": PRE_COPY_P2P → STOP_COPY\n",
        ": RUNNING_P2P → STOP → STOP_COPY\n",
        ": STOP_COPY → STOP\n",
        ": STOP → RUNNING_P2P\n",
        ": RUNNING_P2P → RUNNING\n",
        "state of 3145752 bytes",
        "nothing was done\n",
    ];
    let mut rest = &text[..];
    for step in steps.iter().filter(|step| step.contains('→')) {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step} in {rest} of {text}"));
        rest = &rest[at..];
    }
    assert!(steps.iter().all(|step| text.contains(step)), "{text}");
    assert!(!stderr(&output).contains(": set "), "{}", stderr(&output));
}

#[test]
fn a_dry_save_says_exactly_the_sets_that_a_save_makes() {
    let table: [&[&str]; 5] = [
        &["sim:size=9"],
        &["sim:size=9,flags=1"],
        &["sim:size=9", "--leave", "stopped", "--precopy"],
        &["sim:size=9", "sim:size=9,flags=3", "--precopy"],
        &["sim:size=9", "sim:size=9", "--leave", "stopped"],
    ];
    for arguments in table {
        let save = [&["save", "-o", "/dev/null", "-v"][..], arguments].concat();
        let real = run(&save);
        let dry = run(&[&save[..], &["--dry-run"]].concat());
        assert_eq!((code(&real), code(&dry)), (Some(0), Some(0)), "{arguments:?}");
        let mut done: Vec<_> = stderr(&real).lines().filter_map(set).collect();
        let mut said: Vec<_> = stdout(&dry).lines().filter_map(step).collect();
        done.sort();
        said.sort();
        assert_eq!(said, done, "{arguments:?}");
    }
}

/// A device's number and the state that a line of `-v` says it was set to.
fn set(line: &str) -> Option<(bool, String)> {
    let (device, rest) = line.split_once("/vfio: set ")?;
    Some((device.ends_with(".1"), rest.split_once(": ok")?.0.to_owned()))
}

/// The same of a line of a dry run: the last state of the way.
fn step(line: &str) -> Option<(bool, String)> {
    let (device, way) = line.split_once("/vfio: ")?;
    Some((device.ends_with(".1"), way.rsplit_once(" → ")?.1.to_owned()))
}

#[test]
fn a_dry_load_says_what_it_would_load_and_where_and_refuses_a_damaged_file_with_4() {
    let file = saved(&folder("dry_load"), "sim:size=1000,seed=3");
    let good = run(&["load", "sim:size=1000", "-i", &file, "--dry-run", "-v"]);
    assert_eq!(code(&good), Some(0), "{}", stderr(&good));
    for words in ["whole and undamaged", "gets the 1024 bytes of 'sim@", "→ RESUMING\n", "nothing was done\n"]
    {
        assert!(stdout(&good).contains(words), "{words} in {}", stdout(&good));
    }
    assert!(!stderr(&good).contains(": set "), "{}", stderr(&good));
    let bytes = fs::read(&file).unwrap();
    for place in [0, 20, 90, bytes.len() / 2, bytes.len() - 3] {
        let mut damaged = bytes.clone();
        damaged[place] ^= 0x10;
        fs::write(&file, &damaged).unwrap();
        let output = run(&["load", "sim:size=1000", "-i", &file, "--dry-run"]);
        assert_eq!(code(&output), Some(4), "byte {place}: {}", stderr(&output));
        assert!(!stdout(&output).contains("nothing was done"), "{}", stdout(&output));
    }
}

#[test]
fn a_dry_move_says_the_steps_of_both_sides() {
    let output = run(&["move", "sim:size=9", "sim:size=9", "--precopy", "--dry-run"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for step in
        ["RUNNING → PRE_COPY\n", "→ RESUMING\n", "RESUMING → STOP\n", "→ RUNNING\n", "STOP_COPY → STOP\n"]
    {
        assert!(text.contains(step), "{step} in {text}");
    }
    assert!(text.ends_with("nothing was done\n"), "{text}");
}

#[test]
fn what_is_refused_before_anything_is_done_is_refused_in_a_dry_run_too() {
    let folder = folder("dry_refused");
    let file = saved(&folder, "sim:size=100");
    let bytes = fs::read(&file).unwrap();
    fs::write(folder.join("cut.state"), &bytes[..100]).unwrap();
    let table: [&[&str]; 11] = [
        &["save", "sim:size=9", "sim:size=9,flags=5", "-o", "x.state"],
        &["save", "sim:size=9", "sim:size=9", "-o", "x.state", "--qemu-id", "a", "--qemu-id", "a"],
        &["save", "sim:size=9", "-o", "/nonexistent/x.state"],
        &["save", "sim:size=9", "-o", "folder/"],
        &["save", "fd:99", "-o", "x.state"],
        &["save", "sim:size=9", "-o", "x.state", "--buffer", "63"],
        &["load", "sim:size=100", "-i", "missing.state"],
        &["load", "sim:size=100", "-i", "cut.state"],
        &["load", "sim:size=100", "sim:size=100", "-i", "card.state"],
        &["load", "sim:size=100", "sim:size=100,flags=1", "-i", "card.state"],
        &["move", "sim:size=9", "fd:99"],
    ];
    let mut others = Vec::new();
    for arguments in table {
        let in_folder = |more: &[&str]| {
            code(&program().args(arguments).args(more).current_dir(&folder).output().unwrap())
        };
        let (real, dry) = (in_folder(&[]), in_folder(&["--dry-run"]));
        assert_ne!(real, Some(0), "{arguments:?}");
        others.extend((real != dry).then_some((arguments, real, dry)));
    }
    assert!(others.is_empty(), "another exit code in the dry run: {others:#?}");
    let mut left = files(&folder);
    left.sort();
    assert_eq!(left, ["card.state", "cut.state"]);
}
