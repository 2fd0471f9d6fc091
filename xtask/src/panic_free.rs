//! `cargo xtask panic-free`: the proof that no exported path of core can panic, or wants memory of an allocator.
//!
//! `tests/panic_free` is a static library with one export for each way into core and a panic handler that calls a
//! function which nobody defines. It is linked with all unused code left out, so the link fails exactly when an export
//! can reach a panic. Nobody defines an allocator either, and for bare machines the crate `alloc` is not even built. That
//! the link can fail is shown each time, with an export that holds an index out of bounds, and that an allocator would be
//! found, with one that has its entry. A public function of core that
//! no export calls is an error.
//!
//! It is linked for this machine and for [bare ones](TARGETS), there as quick and as small code. In small code Rust's own
//! printing of numbers keeps checks that the compiler does not see through, so exports that print are left out there.
//!
//! Deliberately absent: Rust's overflow checks, which the library is built without, as a release is.

mod linker;
mod surface;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSymbol as _};

use self::linker::{Linker, PANIC};
use crate::command::{Tally, cargo, output, target, workspace};
use crate::freestanding::{self, Level, TARGETS};

/// Options of the task.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Leave the bare machines out: seconds instead of minutes
    #[arg(long)]
    host: bool,
    /// Prove it for this machine alone; may be given several times
    #[arg(long, value_parser = TARGETS, conflicts_with = "host")]
    target: Vec<String>,
}

/// Proves for each machine that no export can panic, and that the proof can fail. Each way of making code for a machine
/// counts as a test.
pub(crate) fn run(options: &Options) -> Result<Tally> {
    let source = surface::source(&workspace()?.join(LIBRARY).join("src"))?;
    surface::check(&source, &surface::source(&workspace()?.join("core/src"))?)?;
    let exports = exports(&source)?;
    let linker = Linker::find()?;
    let mut tally = Tally::default();
    if options.target.is_empty() {
        let proved = build(&linker.host).and_then(|library| prove(&linker, &library, &exports, &MEMORY));
        tally += told(&format!("{}, opt-level 3", linker.host), proved);
    }
    let wanted =
        |target: &&str| options.target.is_empty() || options.target.iter().any(|name| name == target);
    for target in TARGETS.into_iter().filter(|target| !options.host && wanted(target)) {
        let machine = |level: Level| {
            let fits: Vec<String> = exports.iter().filter(|export| level.proves(export)).cloned().collect();
            library(target, level).and_then(|library| prove(&linker, &library, &fits, &[]))
        };
        // Each level has a folder of its own to be built in, and the compiler is at work on one processor most of the time.
        let proved = thread::scope(|scope| {
            let threads = Level::ALL.map(|level| (level, scope.spawn(move || machine(level))));
            threads.map(|(level, thread)| (level, thread.join()))
        });
        for (level, proved) in proved {
            let proved = proved.unwrap_or_else(|_| bail!("the proof broke off"));
            tally += told(&format!("{target}, opt-level {}", level.name()), proved);
        }
    }
    Ok(tally)
}

/// The folder that the proof for this machine is built in.
fn folder() -> Result<PathBuf> {
    Ok(target()?.join("panic-free"))
}

/// The exports that call nothing of their caller's, linked for a bare machine with relocations: the program, and their
/// names.
pub(crate) fn closed(target: &str, level: Level) -> Result<(PathBuf, Vec<String>)> {
    let source = surface::source(&workspace()?.join(LIBRARY).join("src"))?;
    let mut exports = exports(&source)?;
    exports.retain(|export| !is_open(&source, export));
    let library = library(target, level)?;
    let program = library.with_extension("closed");
    linked(&library, &exports, &program)?;
    Ok((program, exports))
}

/// One of the negative controls, linked for a bare machine with relocations.
pub(crate) fn control(target: &str, level: Level, name: &str) -> Result<PathBuf> {
    let library = library(target, level)?;
    let program = library.with_extension(name);
    linked(&library, &[name.to_owned()], &program)?;
    Ok(program)
}

fn linked(library: &Path, exports: &[String], program: &Path) -> Result<()> {
    let refused = Linker::find()?.link(library, exports, &[], program)?.err();
    refused.map_or(Ok(()), |refused| bail!("cannot link {}:\n{}", program.display(), refused.message))
}

/// The library for a bare machine.
fn library(target: &str, level: Level) -> Result<PathBuf> {
    Ok(freestanding::build(LIBRARY, target, level)?.join(ARCHIVE))
}

/// Prints how a proof ended.
fn told(machine: &str, proved: Result<usize>) -> Tally {
    match proved {
        Ok(count) => println!("  ok {machine}: {count} exports of core can reach no panic, the control can"),
        Err(error) => {
            println!("  not ok {machine}: {error:#}");
            return Tally::FAILED;
        }
    }
    Tally::PASSED
}

/// Links all exports at once and looks each up in the linked program; where that fails, names those that can panic. Then
/// shows that the link can fail.
fn prove(linker: &Linker, library: &Path, exports: &[String], known: &[&str]) -> Result<usize> {
    let program = library.with_extension("proof");
    if let Err(undefined) = linker.link(library, exports, known, &program)? {
        let culprits = culprits(linker, library, exports, known)?;
        ensure!(!culprits.is_empty(), "the exports of core can't be linked:\n{}", undefined.message);
        bail!("{} of {} exports can panic: {}", culprits.len(), exports.len(), culprits.join(", "));
    }
    let symbols = symbols(&program)?;
    for export in exports {
        let size = symbols.get(export).with_context(|| format!("{export} is not in the linked program"))?;
        ensure!(*size > 0, "{export} is empty in the linked program");
    }
    if let Some(held) = held(symbols.keys()) {
        bail!("the linked program holds {held}");
    }
    refute(linker, library, known)?;
    Ok(exports.len())
}

/// The exports that the linker refuses one by one because of a panic.
fn culprits<'e>(
    linker: &Linker,
    library: &Path,
    exports: &'e [String],
    known: &[&str],
) -> Result<Vec<&'e str>> {
    let program = library.with_extension("alone");
    let mut culprits = Vec::new();
    for export in exports {
        let alone = linker.link(library, std::slice::from_ref(export), known, &program)?;
        if alone.is_err_and(|undefined| undefined.is_panic()) {
            culprits.push(export.as_str());
        }
    }
    Ok(culprits)
}

/// The code of a panic or an allocator among a program's symbols, where there is some.
fn held<'n>(names: impl Iterator<Item = &'n String> + Clone) -> Option<String> {
    [("a panic", &["panicking", PANIC][..]), ("an allocator", &ALLOCATOR)].into_iter().find_map(
        |(what, marks)| {
            let is_marked = |name: &&String| marks.iter().any(|mark| name.contains(mark));
            let found: Vec<&String> = names.clone().filter(is_marked).collect();
            (!found.is_empty()).then(|| format!("the code of {what}: {found:?}"))
        },
    )
}

/// Links the negative controls: one that can panic, which must fail, and for no other reason, and one that has memory of
/// an allocator, which must be found in the linked program.
fn refute(linker: &Linker, library: &Path, known: &[&str]) -> Result<()> {
    let program = library.with_extension("control");
    match linker.link(library, &[CONTROL.into()], known, &program)? {
        Ok(()) => bail!("{CONTROL} can panic and was linked all the same: the proof proves nothing"),
        Err(undefined) if undefined.is_panic() => {}
        Err(undefined) => bail!("{CONTROL} was refused for another reason:\n{}", undefined.message),
    }
    if let Err(undefined) = linker.link(library, &[ALLOCATES.into()], known, &program)? {
        bail!("{ALLOCATES} can't be linked:\n{}", undefined.message);
    }
    let held = held(symbols(&program)?.keys()).unwrap_or_default();
    ensure!(held.contains("an allocator"), "{ALLOCATES} has an allocator, and {held:?} was found in it");
    Ok(())
}

/// The names of all exports, from the library's source, so that one the compiler drops is missed.
fn exports(source: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = source.lines().filter_map(export_of).collect();
    let marked = source.lines().filter(|line| line.starts_with("#[unsafe(no_mangle)]")).count();
    ensure!(names.len() == marked, "{marked} exports, names of {names:?}");
    names.retain(|name| !name.starts_with(CONTROL));
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

/// Whether an export calls what its caller hands over, seen from its parameters: a place to print, a device, a closure.
fn is_open(source: &str, export: &str) -> bool {
    let behind = [format!("fn {export}("), format!("fn {export}<")];
    let head = behind.iter().find_map(|name| source.split_once(name.as_str())?.1.split_once(" {\n"));
    head.is_none_or(|(parameters, _)| OPEN.iter().any(|open| parameters.contains(open)))
}

/// Builds the library for this machine and returns its archive.
fn build(host: &str) -> Result<PathBuf> {
    let folder = folder()?;
    let mut command = cargo();
    command
        .current_dir(workspace()?.join(LIBRARY))
        .args(["build", "--quiet", "--release", "--target", host, "--target-dir"])
        .arg(&folder)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    output(&mut command)?;
    Ok(folder.join(host).join("release").join(ARCHIVE))
}

impl Level {
    /// Whether an export can be proved in such code.
    fn proves(self, export: &str) -> bool {
        self == Self::Quick || !export.starts_with(PRINTS)
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

const EXAMPLES: &str = "\
Examples:
  cargo xtask panic-free                                 this machine and all bare ones
  cargo xtask panic-free --host                          this machine alone
  cargo xtask panic-free --target thumbv7em-none-eabihf  a Cortex-M4";

const LIBRARY: &str = "tests/panic_free";
const ARCHIVE: &str = "libpanic_free.a";

/// The export that can panic; the other controls' names begin like it.
const CONTROL: &str = "proof_control";

/// The one that has memory of an allocator.
const ALLOCATES: &str = "proof_control_allocator";

/// How the names of exports begin that print.
const PRINTS: &str = "proof_show_";

/// Types of parameters that have code of the caller's.
const OPEN: [&str; 6] = ["dyn ", "fn(", "impl ", "Formatter", "AnyDevice", "AnyTransport"];

/// Parts of names that only code of an allocator has: Rust's entries to one, and the crate `alloc`.
const ALLOCATOR: [&str; 3] = ["__rust_alloc", "__rust_dealloc", "5alloc"];

/// Functions that the compiler takes for granted, and that this machine has from its C library. None can panic; the
/// program never runs, so an address will do. For bare machines they are Rust's own, and linked.
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
    fn export_is_open_when_a_parameter_has_code() {
        let source = "\
fn proof_a<'b>(
    bytes: &'b [u8],
) -> &'b [u8] {
fn proof_ab(f: &mut Formatter<'_>) -> Result {
fn proof_b(each: &mut dyn FnMut(u8)) {
fn proof_c(each: &fn(u8)) {
";
        let open = ["proof_a", "proof_ab", "proof_b", "proof_c"].map(|name| is_open(source, name));
        assert_eq!(open, [false, true, true, true]);
    }

    #[test]
    fn code_of_a_panic_and_of_an_allocator_is_found_by_its_name() {
        let held = |names: &[&str]| held(names.iter().map(ToString::to_string).collect::<Vec<_>>().iter());
        assert_eq!(held(&["proof_source_poll", "memcpy", "_RNvNtCs_4core5slice"]), None);
        // As rustc 1.95 and 1.97 name the entry to an allocator and what grows a vector.
        for name in [
            "_RNvCsfLfy6EI15iL_7___rustc12___rust_alloc",
            "_ZN5alloc7raw_vec20RawVecInner$LT$A$GT$7reserve21do_reserve_and_handle17hb77cbe8b8cb6cc49E",
            "_RNvNtCsbEht8wFNRx7_5alloc7raw_vec12handle_error",
        ] {
            assert!(held(&["memcpy", name]).unwrap().starts_with("the code of an allocator: "), "{name}");
        }
        let panic = "_RNvNtCslNYArtu3iFV_4core9panicking9panic_fmt";
        assert_eq!(held(&[panic]).unwrap(), format!("the code of a panic: [{panic:?}]"));
    }

    #[test]
    fn controls_are_no_exports() {
        let source = "#[unsafe(no_mangle)]\nfn proof_a() {\n#[unsafe(no_mangle)]\nfn proof_control_b() {";
        assert_eq!(exports(source).unwrap(), ["proof_a"]);
    }
}
