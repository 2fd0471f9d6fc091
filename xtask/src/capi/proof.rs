//! The proof: what the library exports, and what that needs. No panic, since the library's panic handler calls a function
//! that nobody defines; and nothing else but the compiler's two memory functions.
//!
//! Deliberately absent: a proof of small code for the exports that write words. Rust's printing of numbers keeps checks
//! there that the compiler does not see through.

use anyhow::{Result, ensure};

use super::header;
use super::own::Own;

/// How much of the library is proved.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// All but the exports that write words for people.
    WithoutWords,
}

/// Checks the library, and prints how large it is.
pub(super) fn prove(own: &Own, part: Part) -> Result<()> {
    let Faults { missing, unknown, panics, more } = Faults::find(own, part)?;
    ensure!(missing.is_empty(), "the library has not all exports of its source: {missing:?} are missing");
    ensure!(unknown.is_empty(), "the library exports what is not in the header: {unknown:?}");
    ensure!(panics.is_empty(), "{} exports can panic: {}", panics.len(), panics.join(", "));
    ensure!(more.is_empty(), "the library needs {more:?}, wanted nothing but {MEMORY:?}");
    let needs: Vec<String> = own.reach(|name| part.has(name)).needs.into_iter().collect();
    let needs = if needs.is_empty() {
        "nothing beside the archive".into()
    } else {
        format!("{} alone", needs.join(" and "))
    };
    let proved = own.exports().into_iter().filter(|name| part.has(name)).count();
    let all = own.exports().len();
    println!("{proved} of {all} exports proved: none can reach a panic, they need {needs}");
    print_sizes(own);
    Ok(())
}

/// Checks that of the negative control, a library with one more export that can panic, all this is seen. Other faults are
/// the library's own, and told of that.
pub(super) fn refute(own: &Own, part: Part) -> Result<()> {
    let faults = Faults::find(own, part)?;
    let has = |names: &[String], name: &str| names.iter().any(|one| one == name);
    let seen = has(&faults.unknown, CONTROL) && has(&faults.panics, CONTROL) && has(&faults.more, PANIC);
    ensure!(seen, "{CONTROL} can panic and was not seen to: the proof proves nothing; it saw {faults:?}");
    println!("the negative control, an index that can fail, reaches {PANIC} as it must");
    Ok(())
}

impl Part {
    fn has(self, export: &str) -> bool {
        match self {
            Self::Whole => true,
            Self::WithoutWords => !export.ends_with(WORDS),
        }
    }
}

/// What is not as it must be.
#[derive(Debug)]
struct Faults {
    /// Exports that stand in the source alone.
    missing: Vec<String>,
    /// Exports that stand in the object alone.
    unknown: Vec<String>,
    /// Exports that can reach a panic.
    panics: Vec<String>,
    /// Functions that nothing in the archive defines, beside [`MEMORY`].
    more: Vec<String>,
}

impl Faults {
    /// All faults; panics and needs are those of a part.
    fn find(own: &Own, part: Part) -> Result<Self> {
        let written = header::exports()?;
        let missing =
            written.iter().filter(|name| !own.exports().contains(&name.as_str())).cloned().collect();
        let unknown = own.exports().into_iter().filter(|name| !written.iter().any(|one| one == name));
        let panics = own.reaching(PANIC).into_iter().filter(|name| part.has(name));
        let needs = own.reach(|name| part.has(name)).needs;
        Ok(Self {
            missing,
            unknown: unknown.map(str::to_owned).collect(),
            panics: panics.map(str::to_owned).collect(),
            more: needs.into_iter().filter(|name| !MEMORY.contains(&name.as_str())).collect(),
        })
    }
}

/// Prints how large the code and constants are that a program holds which leaves out what it does not use.
fn print_sizes(own: &Own) {
    let size = |what: &str, fits: fn(&str) -> bool| println!("  {:>6} bytes: {what}", own.reach(fits).size);
    size("a source", |name| name.starts_with("vfio_source"));
    size("a destination", |name| name.starts_with("vfio_destination"));
    size("both, and the codecs", |name| Part::WithoutWords.has(name));
    size("all, with the words for people", |name| Part::Whole.has(name));
}

/// What the panic handler calls.
const PANIC: &str = "vfio_migration_panicked";
/// The export that can panic, there with the feature `control` only.
const CONTROL: &str = "vfio_control";

/// How the exports end that write words.
const WORDS: &str = "_show";

/// Functions that the compiler takes for granted; the library's front page names them.
const MEMORY: [&str; 2] = ["memcpy", "memset"];
