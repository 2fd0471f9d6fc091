//! The example of a VMM, which README shows: it sends and receives what the program does.
//!
//! Deliberately absent: a real device. The VM has one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::{code, folder, run, saved, stderr};

#[test]
fn a_vmm_sends_to_a_vmm() {
    let mut sender = vmm(&["send", "sim:size=3MiB,seed=5"]).stdout(Stdio::piped()).spawn().unwrap();
    let receiver = vmm(&["receive", "sim:size=3MiB"]).stdin(sender.stdout.take().unwrap()).output().unwrap();
    assert_eq!(code(&receiver), Some(0), "{}", stderr(&receiver));
    assert!(stderr(&receiver).contains("set RUNNING: ok"), "{}", stderr(&receiver));
    assert!(sender.wait().unwrap().success());
}

#[test]
fn a_vmm_and_the_program_take_each_others_streams() {
    let folder = folder("vmm");
    let file = folder.join("vmm.state");
    let sent = vmm(&["send", "sim:size=3MiB,seed=5"]).stdout(File::create(&file).unwrap()).output().unwrap();
    assert_eq!(code(&sent), Some(0), "{}", stderr(&sent));
    let loaded = run(&["load", "sim:size=3MiB", "--input", file.to_str().unwrap()]);
    assert_eq!(code(&loaded), Some(0), "{}", stderr(&loaded));
    let received = receive(Path::new(&saved(&folder, "sim:size=3MiB,seed=6")));
    assert_eq!(code(&received), Some(0), "{}", stderr(&received));
}

#[test]
fn a_vmm_refuses_a_damaged_stream_and_says_where_the_device_is() {
    let file = PathBuf::from(saved(&folder("vmm-damaged"), "sim:size=3MiB"));
    let mut bytes = fs::read(&file).unwrap();
    bytes[2 << 20] ^= 1;
    fs::write(&file, bytes).unwrap();
    let received = receive(&file);
    assert_eq!(code(&received), Some(1));
    let told = stderr(&received);
    assert!(told.contains("wanted crc32c") && told.contains("reset to RUNNING"), "{told}");
}

#[test]
fn a_vmm_says_how_it_is_used_before_it_opens_anything() {
    for arguments in [&["bogus", "fd:0"][..], &["send"], &["--help"], &[]] {
        let output = vmm(arguments).output().unwrap();
        assert_eq!(code(&output), Some(2), "{arguments:?}");
        assert!(stderr(&output).starts_with("wanted: vmm send DEVICE"), "{}", stderr(&output));
    }
}

fn receive(file: &Path) -> Output {
    vmm(&["receive", "sim:size=3MiB"]).stdin(File::open(file).unwrap()).output().unwrap()
}

/// The example, which stands beside the program once `cargo test` has built the package's targets.
fn vmm(arguments: &[&str]) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_vfio-migrate")).with_file_name("examples").join("vmm");
    assert!(program.is_file(), "there is no {}: cargo build --examples", program.display());
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::piped());
    command
}
