//! `cargo xtask panic-free`: the proof that no exported path of core can panic.
//!
//! `tests/panic_free` is a static library with one export for each way into core and a panic handler that calls a
//! function which nobody defines. It is linked with all unused code left out, so the link fails exactly when an export
//! can reach a panic. That the link can fail is shown each time, with an export that holds an index out of bounds. A
//! public function of core that no export calls is an error.
//!
//! Deliberately absent: Rust's overflow checks, which the library is built without, as a release is.

mod surface;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSymbol as _};

use crate::bare;
use crate::command::{self, cargo, output, target, workspace};

/// Proves that no export can panic, then that the proof can fail.
pub(crate) fn run() -> Result<()> {
    let source = surface::source(&workspace()?.join(LIBRARY).join("src"))?;
    surface::check(&source, &surface::source(&workspace()?.join("core/src"))?)?;
    let exports = exports(&source)?;
    let linker = Linker::find()?;
    let library = build(&linker.host, &[])?;
    prove(&linker, &library, &exports)?;
    println!("{} exports of core are linked, none can reach a panic", exports.len());
    let library = build(&linker.host, &["--features", "control"])?;
    refute(&linker, &library)?;
    println!("the negative control, an index that can fail, is refused by the linker as it must be");
    Ok(())
}

pub(crate) fn link_for_stack(target: &str) -> Result<(PathBuf, Vec<String>)> {
    let source = surface::source(&workspace()?.join(LIBRARY).join("src"))?;
    let mut exports = exports(&source)?;
    exports.retain(|export| {
        !export.contains("_show_") && !export.contains("_drive") && export != "proof_fleet_report"
    });
    let library = bare::build(LIBRARY, target, bare::Level::Small)?.join("libpanic_free.a");
    let program = library.with_extension("stack");
    let linker = Linker::find()?;
    let mut command = Command::new(&linker.path);
    command
        .args([
            "-flavor",
            "gnu",
            "--gc-sections",
            "--emit-relocs",
            "--defsym=a_panic_can_be_reached=0x1000",
            "-e",
            "0",
            "-o",
        ])
        .arg(&program);
    command.args(exports.iter().flat_map(|name| ["-u", name])).arg(&library);
    output(&mut command)?;
    Ok((program, exports))
}

/// The folder that the proof is built in.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(target()?.join("panic-free"))
}

/// Links all exports at once and looks each up in the linked program; where that fails, names those that can panic.
fn prove(linker: &Linker, library: &Path, exports: &[String]) -> Result<()> {
    let program = library.with_extension("proof");
    if let Err(undefined) = linker.link(library, exports, &program)? {
        let culprits = culprits(linker, library, exports)?;
        ensure!(!culprits.is_empty(), "the exports of core can't be linked:\n{}", undefined.message);
        bail!("{} of {} exports can panic: {}", culprits.len(), exports.len(), culprits.join(", "));
    }
    let symbols = symbols(&program)?;
    for export in exports {
        let size = symbols.get(export).with_context(|| format!("{export} is not in the linked program"))?;
        ensure!(*size > 0, "{export} is empty in the linked program");
    }
    let panics: Vec<&String> =
        symbols.keys().filter(|name| name.contains("panicking") || *name == PANIC).collect();
    ensure!(panics.is_empty(), "the linked program holds the code of a panic: {panics:?}");
    Ok(())
}

/// The exports that the linker refuses one by one because of a panic.
fn culprits<'e>(linker: &Linker, library: &Path, exports: &'e [String]) -> Result<Vec<&'e str>> {
    let program = library.with_extension("alone");
    let mut culprits = Vec::new();
    for export in exports {
        let alone = linker.link(library, std::slice::from_ref(export), &program)?;
        if alone.is_err_and(|undefined| undefined.is_panic()) {
            culprits.push(export.as_str());
        }
    }
    Ok(culprits)
}

/// Links the negative control, which must fail, and for no other reason than its panic.
fn refute(linker: &Linker, library: &Path) -> Result<()> {
    let program = library.with_extension("control");
    match linker.link(library, &[CONTROL.into()], &program)? {
        Ok(()) => bail!("{CONTROL} can panic and was linked all the same: the proof proves nothing"),
        Err(undefined) if undefined.is_panic() => Ok(()),
        Err(undefined) => bail!("{CONTROL} was refused for another reason:\n{}", undefined.message),
    }
}

/// The names of all exports, from the library's source, so that one the compiler drops is missed.
fn exports(source: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = source.lines().filter_map(export_of).collect();
    let marked = source.lines().filter(|line| line.starts_with("#[unsafe(no_mangle)]")).count();
    ensure!(names.len() == marked, "{marked} exports, names of {names:?}");
    names.retain(|name| name != CONTROL);
    names.sort();
    ensure!(!names.is_empty(), "no export in {LIBRARY}");
    Ok(names)
}

/// The name in a line that begins an export.
fn export_of(line: &str) -> Option<String> {
    let name = line.trim_start_matches("pub ").strip_prefix("fn ")?;
    let name = name.split(['(', '<']).next()?;
    name.starts_with("proof_").then(|| name.to_owned())
}

/// Builds the library and returns its archive.
fn build(host: &str, features: &[&str]) -> Result<PathBuf> {
    let folder = folder()?;
    let mut command = cargo();
    command
        .current_dir(workspace()?.join(LIBRARY))
        .args(["build", "--quiet", "--release", "--target", host, "--target-dir"])
        .arg(&folder)
        .args(features)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    output(&mut command)?;
    Ok(folder.join(host).join("release").join("libpanic_free.a"))
}

/// The linker that comes with the toolchain.
struct Linker {
    host: String,
    path: PathBuf,
}

impl Linker {
    fn find() -> Result<Self> {
        let rustc = || Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        let host = output(rustc().args(["--print", "host-tuple"]))?.trim().to_owned();
        let sysroot = PathBuf::from(output(rustc().args(["--print", "sysroot"]))?.trim());
        let path = sysroot.join("lib/rustlib").join(&host).join("bin/rust-lld");
        ensure!(
            path.is_file(),
            "the toolchain has no {}; rustup's toolchains bring it, some distributions' leave it out",
            path.display()
        );
        Ok(Self { host, path })
    }

    /// Links `library` with nothing but what `exports` reach; the inner error is the linker's refusal.
    fn link(&self, library: &Path, exports: &[String], program: &Path) -> Result<Result<(), Undefined>> {
        let mut command = Command::new(&self.path);
        command.args(["-flavor", "gnu", "--gc-sections", "--error-limit=0", "-o"]).arg(program);
        command.args(["-e", "0"]);
        command.args(MEMORY.iter().map(|name| format!("--defsym={name}=0")));
        command.args(exports.iter().flat_map(|name| ["-u", name]));
        let output = command
            .arg(library)
            .output()
            .with_context(|| format!("cannot run {}", command::show(&command)))?;
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(if output.status.success() { Ok(()) } else { Err(Undefined { message }) })
    }
}

/// The linker's refusal.
struct Undefined {
    message: String,
}

impl Undefined {
    /// Whether the panic is the only thing that is missing.
    fn is_panic(&self) -> bool {
        let mut errors = self.message.lines().filter(|line| line.contains("error:")).peekable();
        errors.peek().is_some() && errors.all(|line| line.ends_with(&format!("undefined symbol: {PANIC}")))
    }
}

/// The defined symbols of a linked program and their sizes.
fn symbols(program: &Path) -> Result<BTreeMap<String, u64>> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no ELF", program.display()))?;
    let mut symbols = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| !symbol.is_undefined()) {
        symbols.insert(symbol.name()?.to_owned(), symbol.size());
    }
    Ok(symbols)
}

const LIBRARY: &str = "tests/panic_free";

/// What the panic handler calls.
const PANIC: &str = "a_panic_can_be_reached";

/// The export that can panic, there with the feature `control` only.
const CONTROL: &str = "proof_control";

/// Functions that the compiler takes for granted. None can panic; the program never runs, so an address will do.
const MEMORY: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_is_found_with_and_without_lifetimes() {
        assert_eq!(export_of("fn proof_source_stop(source: &mut").as_deref(), Some("proof_source_stop"));
        assert_eq!(export_of("pub fn proof_source_poll<'a>(").as_deref(), Some("proof_source_poll"));
        assert_eq!(export_of("fn panic(_: &PanicInfo<'_>) -> ! {"), None);
        assert_eq!(export_of("    fn proof_inside()"), None);
    }

    #[test]
    fn refusal_is_a_panic_only_when_nothing_else_is_missing() {
        let refusal = |names: &[&str]| {
            let lines =
                names.iter().map(|name| format!("rust-lld: error: undefined symbol: {name}\n>>> by x\n"));
            Undefined { message: lines.collect() }
        };
        assert!(refusal(&[PANIC]).is_panic());
        assert!(!refusal(&[PANIC, "malloc"]).is_panic());
        assert!(!refusal(&[]).is_panic());
    }
}
