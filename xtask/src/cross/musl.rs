//! What links a program with musl when Rust's standard library is built from source.
//!
//! Rust's own build of it brings musl and LLVM's unwinder along. From source it asks for both: musl is Debian's, and so
//! is the unwinder, whose package is unpacked into the cache folder without being installed. It is built for glibc, and
//! misses one function of it here, which is added. (gcc's unwinder, for its part, can't do without glibc's loader.)
//!
//! Deliberately absent: dynamic linking. The program needs no file of the machine it runs on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::apt::Apt;
use crate::cache::{Cache, Recipe};
use crate::command::{output, step};
use crate::sysroot;

/// The flags for rustc, one by one: they hold paths. `folder` is for what is made.
pub(super) fn flags(folder: &Path) -> Result<Vec<String>> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let package = Cache::new(sysroot::PART, false)?.folder(&UNWINDER)?;
    let (source, object) = (folder.join("fprintf_chk.c"), folder.join("fprintf_chk.o"));
    fs::write(&source, FPRINTF_CHK)?;
    output(Command::new("musl-gcc").args(["-O1", "-c", "-o"]).arg(&object).arg(&source))?;
    let unwinder = package.join("usr/lib/llvm-14/lib/libunwind.a");
    fs::write(folder.join("libunwind.a"), script([&unwinder, &object])?)?;
    let folder = format!("-Lnative={}", folder.display());
    Ok(vec!["-Clink-self-contained=no".into(), "-Crelocation-model=static".into(), folder])
}

/// A text that is a library to the linker, all that is in these files. A path may hold spaces, but no quote.
fn script(files: [&Path; 2]) -> Result<String> {
    let [first, second] = files.map(|file| file.display().to_string());
    for file in [&first, &second] {
        ensure!(
            !file.contains('"'),
            "the linker takes no path with a quote: choose another folder than {file}"
        );
    }
    Ok(format!("INPUT(\"{first}\" \"{second}\")\n"))
}

fn fetch(apt: &Apt, _work: &Path, folder: &Path) -> Result<()> {
    step("fetching Debian's package of LLVM's unwinder", || apt.unpack(&["libunwind-14-dev".into()], folder))
}

/// The package with the unwinder as a static library.
const UNWINDER: Recipe = Recipe {
    name: "unwinder",
    suites: &["bookworm"],
    tools: &[("apt-get", "apt"), ("dpkg", "dpkg")],
    otherwise: "use the installed standard library: rustup target add x86_64-unknown-linux-musl",
    make: fetch,
};

/// What glibc's headers make of `fprintf`, with which the unwinder says why it gives up.
const FPRINTF_CHK: &str = "\
#include <stdarg.h>
#include <stdio.h>

int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
\tva_list list;
\tva_start(list, format);
\tint length = vfprintf(file, format, list);
\tva_end(list);
\treturn length;
}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_spaces_are_quoted_and_those_with_quotes_refused() {
        let one = Path::new("/a b/one.a");
        assert_eq!(script([one, Path::new("/two.o")]).unwrap(), "INPUT(\"/a b/one.a\" \"/two.o\")\n");
        let error = script([one, Path::new("/\"/two.o")]).unwrap_err().to_string();
        assert!(error.ends_with("than /\"/two.o"), "{error}");
    }
}
