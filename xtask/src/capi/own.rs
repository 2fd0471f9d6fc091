//! The library's own object: what it exports, and what each export reaches.
//!
//! Every function has a section of its own, and a section's relocations name what it calls, so that this sees what a
//! linker that leaves unused code out would keep.
//!
//! Deliberately absent: the compiler's own functions, which stand in the archive's other objects.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use object::read::archive::ArchiveFile;
use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex};

/// The library's own object.
pub(super) struct Own {
    /// The functions that it exports, each with the section that it stands in.
    exports: BTreeMap<String, SectionIndex>,
    sections: HashMap<SectionIndex, Section>,
    /// What the archive's other objects define.
    others: BTreeSet<String>,
}

/// A section that a program can hold.
struct Section {
    size: u64,
    calls: Vec<SectionIndex>,
    needs: Vec<String>,
}

/// What some exports reach together.
pub(super) struct Reach {
    /// Bytes of code and constants.
    pub(super) size: u64,
    /// The functions that somebody else must define.
    pub(super) needs: BTreeSet<String>,
}

impl Own {
    /// Reads the object out of the library's archive.
    pub(super) fn read(library: &Path) -> Result<Self> {
        let bytes = fs::read(library).with_context(|| format!("cannot read {}", library.display()))?;
        let archive = ArchiveFile::parse(&*bytes)?;
        let (mut own, mut others) = (None, BTreeSet::new());
        for member in archive.members() {
            let member = member?;
            let Ok(file) = File::parse(member.data(&*bytes)?) else { continue };
            if !member.name().starts_with(OBJECT.as_bytes()) {
                others.extend(defined(&file)?.into_keys());
            } else if own.replace((defined(&file)?, sections(&file)?)).is_some() {
                bail!("{} has more than one object {OBJECT}*", library.display());
            }
        }
        let (exports, sections) =
            own.with_context(|| format!("no object {OBJECT}* in {}", library.display()))?;
        ensure!(!exports.is_empty(), "{} exports nothing", library.display());
        Ok(Self { exports, sections, others })
    }

    /// The names of all exports, in their order.
    pub(super) fn exports(&self) -> Vec<&str> {
        self.exports.keys().map(String::as_str).collect()
    }

    /// What those exports reach whose name fits.
    pub(super) fn reach(&self, fits: impl Fn(&str) -> bool) -> Reach {
        let mut waiting: Vec<_> =
            self.exports.iter().filter(|(name, _)| fits(name)).map(|(_, section)| *section).collect();
        let mut seen = HashSet::new();
        let mut reach = Reach { size: 0, needs: BTreeSet::new() };
        while let Some(index) = waiting.pop() {
            let Some(section) = self.sections.get(&index).filter(|_| seen.insert(index)) else { continue };
            reach.size += section.size;
            reach.needs.extend(section.needs.iter().filter(|name| !self.others.contains(*name)).cloned());
            waiting.extend(&section.calls);
        }
        reach
    }

    /// The exports that reach a function which somebody else must define.
    pub(super) fn reaching(&self, function: &str) -> Vec<&str> {
        let reaches = |export: &&str| self.reach(|name| name == *export).needs.contains(function);
        self.exports().into_iter().filter(reaches).collect()
    }
}

/// The global symbols that an object defines, and their sections.
fn defined(file: &File<'_>) -> Result<BTreeMap<String, SectionIndex>> {
    let mut found = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.is_global()) {
        if let Some(section) = symbol.section_index() {
            found.insert(symbol.name()?.to_owned(), section);
        }
    }
    Ok(found)
}

/// The sections of an object with what each refers to.
fn sections(file: &File<'_>) -> Result<HashMap<SectionIndex, Section>> {
    let mut found = HashMap::new();
    for section in file.sections() {
        let mut held = Section { size: section.size(), calls: Vec::new(), needs: Vec::new() };
        for (_, relocation) in section.relocations() {
            let RelocationTarget::Symbol(index) = relocation.target() else { continue };
            let symbol = file.symbol_by_index(index)?;
            let name = symbol.name()?;
            held.calls.extend(symbol.section_index());
            // A relocation that only tells the linker what it may do has no name.
            let is_needed = symbol.is_undefined() && !name.is_empty() && name != LINKERS;
            held.needs.extend(is_needed.then(|| name.to_owned()));
        }
        found.insert(section.index(), held);
    }
    Ok(found)
}

/// What the linker makes itself, where code refers to it.
const LINKERS: &str = "_GLOBAL_OFFSET_TABLE_";

/// How the library's own object begins in the archive.
const OBJECT: &str = "vfio_migration";
