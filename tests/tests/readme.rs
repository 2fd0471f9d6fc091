//! README shows whole programs, which other tests run: they are the files that it names.
//!
//! Deliberately absent: its short example, which is compiled as a documentation test.

use std::fs;
use std::path::PathBuf;

#[test]
fn programs_in_the_readme_are_the_files_that_it_names() {
    let readme = fs::read_to_string(file("README.md")).unwrap();
    let parts: Vec<&str> = readme.split("\n```rs\n").collect();
    assert_eq!(parts.len() - 1, PROGRAMS.len(), "programs");
    for (around, path) in parts.windows(2).zip(PROGRAMS) {
        let (before, (shown, _)) = (around[0], around[1].split_once("\n```\n").unwrap());
        let heading = before.lines().rev().find(|line| !line.is_empty()).unwrap();
        assert!(heading.contains(&format!("({path})")), "wanted the name of {path}, got: {heading}");
        let wanted = fs::read_to_string(file(path)).unwrap();
        assert_eq!(
            shown,
            wanted.trim_end(),
            "README.md has another program than {path}: copy the file into it"
        );
    }
}

/// A file of the project.
fn file(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// The programs in their order: on bare metal, on Linux without std, on Linux with std.
const PROGRAMS: [&str; 3] =
    ["tests/bare/src/main.rs", "tests/without_std/src/main.rs", "host/examples/vmm.rs"];
