//! What `-v` and `--trace-json` tell.
//!
//! Deliberately absent: that each thing done is told, which `tests/tests/trace.rs` has.

use std::fs;

use serde_json::Value;

use crate::{code, folder, program, run, saved, stderr};

#[test]
fn verbose_prints_every_step_and_twice_every_piece_of_data_with_its_outcome() {
    let output = run(&["save", "sim:size=1000", "--output", "/dev/null", "-vv"]);
    for text in
        ["set STOP_COPY: ok", "read data, room for 1048576: 1024", "room for 1048576: end", "set STOP: ok"]
    {
        assert!(stderr(&output).contains(text), "{text} in {}", stderr(&output));
    }
}

/// The lines of a trace, each of which must be one object.
fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(Value::is_object), "{text}");
    lines
}

/// Holds each line against what a program may rely on: what was done, to which device, and how it went.
fn check(lines: &[Value]) {
    for line in lines {
        let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("no {key}: {line}")).to_owned();
        assert!(!text("action").is_empty() && !text("message").is_empty(), "{line}");
        assert_eq!(text("level") == "WARN", !line["error"].is_null(), "{line}");
        let of_all = ["keep_copying", "stop_now", "will_not_converge"].contains(&&*text("action"));
        assert!(of_all || text("device").starts_with("sim@"), "{line}");
        assert!(of_all || line["took_us"].is_u64(), "{line}");
    }
}

#[test]
fn once_verbose_prints_steps_and_no_data() {
    let output = run(&["save", "sim:size=1000", "--output", "/dev/null", "-v"]);
    assert!(stderr(&output).contains("set STOP_COPY: ok"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("read data"), "{}", stderr(&output));
}

#[test]
fn a_trace_is_one_json_object_a_line_with_device_action_and_outcome() {
    let path = folder("trace").join("trace.json");
    let trace = ["--trace-json", path.to_str().unwrap()];
    let moves = ["move", "sim:size=100KiB,initial=64KiB", "sim:size=100KiB", "--precopy", "--buffer", "4KiB"];
    let output = run(&[&trace[..], &moves].concat());
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let lines = lines(&path);
    check(&lines);
    let actions = ["set_state", "precopy_info", "read_data", "send", "recv", "write_data", "stop_now"];
    for action in actions {
        assert!(lines.iter().any(|line| line["action"] == action), "{action}");
    }
    let devices: std::collections::BTreeSet<_> =
        lines.iter().filter_map(|line| line["device"].as_str()).collect();
    assert_eq!(devices.len(), 2, "{devices:?}");
}

#[test]
fn a_trace_tells_what_was_refused_and_each_recovery() {
    let path = folder("refused_trace").join("trace.json");
    let arguments = ["save", "sim:size=1000,fail=read:1:ENXIO,fail=reset:1", "sim:size=9", "-o", "/dev/null"];
    let output = run(&[&arguments[..], &["--trace-json", path.to_str().unwrap()]].concat());
    assert_eq!(code(&output), Some(3), "{}", stderr(&output));
    let lines = lines(&path);
    check(&lines);
    assert!(lines.iter().any(|line| line["action"] == "read_data" && line["error"] == 6), "{lines:?}");
    assert!(lines.iter().any(|line| line["recovery"] == true && line["state"] == "RUNNING"), "{lines:?}");
}

#[test]
fn a_trace_that_cannot_be_begun_ends_with_5_before_the_device_is_touched() {
    let output = run(&["save", "sim:size=9", "-o", "/dev/null", "-v", "--trace-json", "/nonexistent/trace"]);
    assert_eq!(code(&output), Some(5), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("/nonexistent/trace") && !stderr(&output).contains("STOP"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_trace_that_nobody_can_write_does_not_stop_the_work() {
    let file = saved(&folder("full_trace"), "sim:size=1000");
    for arguments in [
        &["save", "sim:size=1000", "sim:size=9", "-o", "/dev/null"][..],
        &["load", "sim:size=1000", "-i", &file],
    ] {
        let mut command = program();
        command.args(arguments).args(["--trace-json", "/dev/full"]);
        let full = || fs::File::options().write(true).open("/dev/full").unwrap();
        assert_eq!(command.output().unwrap().status.code(), Some(0), "{arguments:?}");
        assert_eq!(
            command.stderr(full()).status().unwrap().code(),
            Some(0),
            "{arguments:?}, and nobody reads errors"
        );
    }
}

#[test]
fn a_trace_is_never_written_over_a_file_that_is_there_nor_in_the_outputs_place() {
    let folder = folder("trace_over");
    let file = saved(&folder, "sim:size=1000");
    let before = fs::read(&file).unwrap();
    let output = run(&["load", "sim:size=1000", "-i", &file, "--trace-json", &file]);
    assert_eq!(code(&output), Some(5), "{}", stderr(&output));
    assert_eq!(fs::read(&file).unwrap(), before);
    let both = folder.join("both");
    let both = both.to_str().unwrap();
    let output = run(&["save", "sim:size=9", "-o", both, "--trace-json", both]);
    assert_eq!(code(&output), Some(2), "{}", stderr(&output));
}

#[test]
fn a_reader_that_takes_no_line_holds_no_device_up_and_the_rest_is_told_to_be_missing() {
    let folder = folder("trace_stalled");
    let output = folder.join("state");
    let (read, write) = std::io::pipe().unwrap();
    let mut saver = {
        let mut saver = program();
        saver.args(["save", "sim:size=200KiB,short=100", "-vv", "-o", output.to_str().unwrap()]);
        saver.stderr(write).spawn().unwrap()
    };
    // The pipe holds 64 KiB, and the trace is longer; nobody reads it before the file has its name.
    for _ in 0..2000 {
        if output.exists() {
            break;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    assert!(output.exists(), "the trace holds the save up");
    let said = std::io::read_to_string(read).unwrap();
    assert_eq!(saver.wait().unwrap().code(), Some(0));
    assert!(said.contains("lines of the trace were left out"), "{said}");
}
