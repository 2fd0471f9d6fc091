//! The tester of drivers, as far as it gets without a device: its list, its explanations and its refusals.
//!
//! Deliberately absent: a device. What the rules find is shown in the VM.

use std::fs;

use serde_json::Value;

use crate::{code, run, stderr, stdout};

#[test]
fn the_page_of_the_rules_is_what_the_program_prints() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/conformance.md");
    let printed = run(&["conform", "--list", "--markdown"]);
    assert_eq!(code(&printed), Some(0), "{}", stderr(&printed));
    let kept = fs::read_to_string(page).unwrap_or_default();
    let command = "cargo run --bin vfio-migrate -- conform --list --markdown > docs/conformance.md";
    assert!(kept == stdout(&printed), "docs/conformance.md is not up to date; this writes it: {command}");
}

#[test]
fn the_list_says_of_each_rule_all_there_is_and_a_part_of_it_can_be_had() {
    let list = run(&["conform", "--list", "--json"]);
    let list: Value = serde_json::from_str(&stdout(&list)).unwrap();
    let rules = list["rules"].as_array().unwrap();
    assert!(rules.len() >= 40, "{}", rules.len());
    for key in ["id", "level", "statement", "source", "why", "remedy"] {
        assert!(rules.iter().all(|rule| rule[key].as_str().is_some_and(|text| !text.is_empty())), "{key}");
    }
    let part = stdout(&run(&["conform", "--list", "--rule", "rst", "--rule", "FSM-07"]));
    let ids: Vec<_> = part.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(ids, ["FSM-07", "RST-01", "RST-02", "RST-03", "RST-04"]);
}

#[test]
fn each_rule_is_explained_with_its_source_its_reason_and_what_to_do() {
    let explained = run(&["conform", "--explain", "fd-04"]);
    assert_eq!(code(&explained), Some(0), "{}", stderr(&explained));
    for text in ["FD-04 (must): ", "ENODEV", "source: ", "why: ", "in the driver: "] {
        assert!(stdout(&explained).contains(text), "{text} in {}", stdout(&explained));
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_what_was_wanted() {
    let table: [(&[&str], &str); 10] = [
        (&["conform"], "DEVICE"),
        (&["conform", "sim:"], "a simulated one has no driver"),
        (&["conform", "fd:900", "--partner", "fd:900"], "wanted another device"),
        (&["conform", "eth0"], "wanted a PCI address"),
        (&["conform", "fd:900", "--rule", "FSM-99"], "conform --list"),
        (&["conform", "--explain", "FSM"], "conform --list"),
        (&["conform", "--list", "fd:900"], "cannot be used with"),
        (&["conform", "--list", "--partner", "fd:900"], "cannot be used with"),
        (&["conform", "--explain", "FD-04", "--partner", "fd:900"], "cannot be used with"),
        (&["conform", "fd:900", "--json", "--tap"], "cannot be used with"),
    ];
    for (arguments, words) in table {
        let output = run(arguments);
        assert_eq!(code(&output), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn a_device_that_is_not_there_ends_with_3_and_nothing_is_said_to_be_lost() {
    for device in ["fd:900", "ffff:ff:1f.7"] {
        let output = run(&["conform", device]);
        assert_eq!(code(&output), Some(3), "{}", stderr(&output));
        assert!(!stderr(&output).contains("is lost"), "{}", stderr(&output));
    }
}

#[test]
fn help_has_examples_the_warning_and_the_exit_codes() {
    let help = stdout(&run(&["conform", "--help"]));
    for text in ["Examples:", "loses its content", "may be lost", "virtio", "Exit codes:", "--partner"] {
        assert!(help.contains(text), "{text} in {help}");
    }
    assert!(help.contains("conform --list [--rule") && !help.contains("--list [DEVICE]"), "{help}");
}
