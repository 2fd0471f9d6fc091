//! A linked program as its file has it: sections, functions, frames, and who refers to whom.
//!
//! The linker was told to keep relocations (`--emit-relocs`) and the compiler to note each function's frame
//! (`-Zemit-stack-sizes`). Each byte of the program belongs to one symbol or, where the compiler gave a constant no name,
//! to its section.
//!
//! Deliberately absent: what a program does. Which sum over these facts means what is said where they are added up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use object::read::{Object, ObjectSection, ObjectSymbol as _};
use object::{
    Architecture, Relocation, RelocationFlags, RelocationKind, RelocationTarget, SectionFlags, SectionKind,
    SymbolKind, elf,
};

use super::thumb::Thumb;
use super::way::{Way, calls_itself};

/// A linked program.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) machine: Architecture,
    /// Sections that are loaded from the file, with their sizes.
    pub(crate) sections: BTreeMap<String, u64>,
    /// What has a name, by address.
    pub(crate) symbols: Vec<Symbol>,
    /// Functions whose address is taken, and who takes it.
    pub(crate) taken: BTreeMap<String, String>,
    /// Where a call or a jump leads nobody knows where, and which.
    pub(crate) lost: BTreeMap<u64, String>,
}

/// A function, or data with a name.
#[derive(Debug, Default)]
pub(crate) struct Symbol {
    pub(crate) name: String,
    /// Its other names: of functions with the same code the compiler makes one.
    pub(crate) aliases: BTreeSet<String>,
    pub(crate) address: u64,
    pub(crate) size: u64,
    pub(crate) is_function: bool,
    /// The frame of a function, in bytes, where the compiler noted one.
    pub(crate) frame: Option<u64>,
    /// The functions that it calls or goes on to, by their place in the list.
    pub(crate) calls: BTreeSet<usize>,
}

impl Symbol {
    /// Its bytes, seen from the beginning of its section.
    fn range(&self, section: u64) -> Option<Range<usize>> {
        let start = usize::try_from(self.address.checked_sub(section)?).ok()?;
        Some(start..start.checked_add(usize::try_from(self.size).ok()?)?)
    }
}

impl Image {
    /// Reads the program in a file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let file = object::File::parse(&*bytes).with_context(|| format!("{} is no ELF", path.display()))?;
        let machine = file.architecture();
        let mut image = Self {
            machine,
            sections: sections(&file)?,
            symbols: symbols(&file, machine == Architecture::Arm)?,
            taken: BTreeMap::new(),
            lost: BTreeMap::new(),
        };
        image.frames(&file).and_then(|()| image.references(&file)).and_then(|()| image.own_calls(&file))?;
        Ok(image)
    }

    /// All bytes of code and constants.
    pub(crate) fn size(&self) -> u64 {
        self.sections.values().sum()
    }

    /// The bytes of code and constants that are in no symbol: constants without a name, and gaps.
    pub(crate) fn nameless(&self) -> Result<u64> {
        let named = self.symbols.iter().map(|symbol| symbol.size).sum();
        self.size().checked_sub(named).context("the symbols are larger than the sections that they are in")
    }

    /// The place of a function in the list, by any of its names.
    pub(crate) fn function(&self, name: &str) -> Option<usize> {
        let is_named = |symbol: &Symbol| symbol.name == name || symbol.aliases.contains(name);
        self.symbols.iter().position(|symbol| symbol.is_function && is_named(symbol))
    }

    /// Reads the compiler's notes: an address and a number of variable length for each function.
    fn frames<'d>(&mut self, file: &impl Object<'d>) -> Result<()> {
        let width = if file.is_64() { 8 } else { 4 };
        for section in file.sections().filter(|section| section.name() == Ok(".stack_sizes")) {
            let mut notes = section.data()?;
            while let Some((address, rest)) = notes.split_at_checked(width) {
                let mut wide = [0; 8];
                wide[..width].copy_from_slice(address);
                let address = even(u64::from_le_bytes(wide), self.machine);
                let (frame, rest) = number(rest).context("the note of a frame is cut")?;
                notes = rest;
                if let Some(function) = self.at_start(address) {
                    self.symbols[function].frame = Some(frame);
                }
            }
            ensure!(notes.is_empty(), "{} bytes are left behind the notes of frames", notes.len());
        }
        Ok(())
    }

    /// Goes through what the linker resolved: who calls whom, and whose address is taken.
    fn references<'d>(&mut self, file: &impl Object<'d>) -> Result<()> {
        for section in file.sections().filter(|section| is_loaded(section.flags())) {
            let (name, code) = (section.name()?, section.data()?);
            if UNWINDING.contains(&name) {
                continue;
            }
            let thumb = thumb(file, &section, self.machine)?;
            let mut explained = BTreeSet::new();
            for (place, relocation) in section.relocations() {
                let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
                let at = usize::try_from(place.wrapping_sub(section.address()))?;
                let Some(mut way) = Way::of(self.machine, r_type, code, at) else { continue };
                let Some(address) = target(file, &relocation, way)? else { continue };
                if way == Way::Address
                    && let Some(calls) = self.calls_of(thumb.as_ref(), section.address(), place)
                {
                    explained.extend(calls);
                    way = Way::Call;
                }
                self.refer(way, place, even(address, self.machine), name)?;
            }
            self.unexplained(thumb.as_ref(), section.address(), &explained);
        }
        Ok(())
    }

    /// Notes that the code or data at a place refers to an address.
    fn refer(&mut self, way: Way, place: u64, address: u64, section: &str) -> Result<()> {
        match (way, self.around(place), self.at_start(address)) {
            // A loop.
            (Way::Jump, Some(from), _) if self.around(address) == Some(from) => {}
            (Way::Call | Way::Jump, Some(from), Some(to)) => {
                self.symbols[from].calls.insert(to);
            }
            (Way::Call | Way::Jump, Some(from), None) => {
                let from = &self.symbols[from].name;
                let what = format!("{from} goes to {address:#x}, where no function of a known size begins");
                self.lost.insert(place, what);
            }
            (Way::Call | Way::Jump, None, _) => {
                bail!("what goes to {address:#x} at {place:#x} is in no function")
            }
            (Way::Address, from, Some(to)) => {
                let by = from.map_or(section, |from| &self.symbols[from].name).to_owned();
                self.taken.insert(self.symbols[to].name.clone(), by);
            }
            (Way::Address, _, None) => {}
        }
        Ok(())
    }

    /// The calls by a register of the address that is at a place, where it is for such calls alone.
    fn calls_of(&self, thumb: Option<&Thumb>, section: u64, place: u64) -> Option<BTreeSet<usize>> {
        let function = &self.symbols[self.around(place)?];
        let at = usize::try_from(place.checked_sub(section)?).ok()?;
        thumb?.calls_of(function.range(section).filter(|_| function.is_function)?, at)
    }

    /// Notes the calls by a register of which it is not explained whom they call.
    fn unexplained(&mut self, thumb: Option<&Thumb>, section: u64, explained: &BTreeSet<usize>) {
        for function in self.symbols.iter().filter(|symbol| symbol.is_function) {
            let calls = thumb.zip(function.range(section)).map(|(thumb, range)| thumb.by_register(range));
            for at in calls.unwrap_or_default().difference(explained) {
                let place = section.saturating_add(*at as u64);
                let what = format!("{} goes at {place:#x} to what a register has", function.name);
                self.lost.insert(place, what);
            }
        }
    }

    /// A call of itself needs no relocation where the assembler knows the distance: those are looked for in the bytes.
    fn own_calls<'d>(&mut self, file: &impl Object<'d>) -> Result<()> {
        for index in 0..self.symbols.len() {
            let Symbol { address, size, is_function, .. } = self.symbols[index];
            let code = file.sections().find_map(|section| section.data_range(address, size).ok().flatten());
            if is_function && calls_itself(self.machine, code.context("a function has no code")?) {
                self.symbols[index].calls.insert(index);
            }
        }
        Ok(())
    }

    /// The function that begins at an address.
    fn at_start(&self, address: u64) -> Option<usize> {
        let index = self.symbols.binary_search_by_key(&address, |symbol| symbol.address).ok()?;
        self.symbols[index].is_function.then_some(index)
    }

    /// The function or data that an address lies in.
    fn around(&self, address: u64) -> Option<usize> {
        let index = self.symbols.partition_point(|symbol| symbol.address <= address).checked_sub(1)?;
        let symbol = &self.symbols[index];
        (address < symbol.address.saturating_add(symbol.size)).then_some(index)
    }
}

/// The sections that are loaded from the file.
fn sections<'d>(file: &impl Object<'d>) -> Result<BTreeMap<String, u64>> {
    let mut sections = BTreeMap::new();
    for section in file.sections().filter(|section| is_loaded(section.flags())) {
        if is_in_file(&section) {
            *sections.entry(section.name()?.to_owned()).or_insert(0) += section.size();
        }
    }
    Ok(sections)
}

/// What has a name and a size, by address.
fn symbols<'d>(file: &impl Object<'d>, is_arm: bool) -> Result<Vec<Symbol>> {
    let mut symbols: BTreeMap<u64, Symbol> = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.size() > 0) {
        let is_function = symbol.kind() == SymbolKind::Text;
        let section = symbol.section_index().map(|index| file.section_by_index(index)).transpose()?;
        let is_counted = section.is_some_and(|section| is_in_file(&section));
        if !is_counted || !(is_function || symbol.kind() == SymbolKind::Data) {
            continue;
        }
        // A function of Arm's short instructions has an odd address in the symbol table.
        let address = symbol.address() & !u64::from(is_arm && is_function);
        let (name, size) = (symbol.name()?.to_owned(), symbol.size());
        let kept = symbols.entry(address).or_default();
        if kept.size == 0 {
            kept.name = name;
        } else {
            kept.aliases.insert(name);
        }
        (kept.address, kept.size, kept.is_function) = (address, size.max(kept.size), is_function);
    }
    let symbols: Vec<Symbol> = symbols.into_values().collect();
    for pair in symbols.windows(2) {
        let end = pair[0].address.saturating_add(pair[0].size);
        ensure!(end <= pair[1].address, "{} and {} share bytes", pair[0].name, pair[1].name);
    }
    Ok(symbols)
}

/// The instructions of a section with Arm's short ones. Symbols of its assemblers say where among them data begins and ends.
fn thumb<'d>(
    file: &impl Object<'d>,
    section: &impl ObjectSection<'d>,
    machine: Architecture,
) -> Result<Option<Thumb>> {
    if machine != Architecture::Arm || section.kind() != SectionKind::Text {
        return Ok(None);
    }
    let end = section.address().saturating_add(section.size());
    let is_here = |address: &u64| (section.address()..end).contains(address);
    let mut marks = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| is_here(&symbol.address())) {
        match symbol.name()?.split('.').next() {
            Some("$d") => marks.insert(symbol.address(), true),
            Some("$t" | "$a") => marks.insert(symbol.address(), false),
            _ => None,
        };
    }
    let ends = marks.keys().copied().skip(1).chain([end]);
    let (mut data, at) = (Vec::new(), |address: u64| usize::try_from(address - section.address()));
    for ((&start, _), end) in marks.iter().zip(ends).filter(|((_, is_data), _)| **is_data) {
        data.push(at(start)?..at(end)?);
    }
    Ok(Some(Thumb::new(section.data()?.to_vec(), &data)))
}

/// The address that a relocation leads to, where it leads to one that a function may have.
fn target<'d>(file: &impl Object<'d>, relocation: &Relocation, way: Way) -> Result<Option<u64>> {
    let RelocationTarget::Symbol(index) = relocation.target() else {
        ensure!(way == Way::Address, "a call or a jump leads to no symbol");
        return Ok(None);
    };
    let symbol = file.symbol_by_index(index)?;
    let is_section = symbol.kind() == SymbolKind::Section;
    if is_section {
        let section = symbol.section_index().context("the symbol of a section is in none")?;
        if way == Way::Address && file.section_by_index(section)?.kind() != SectionKind::Text {
            return Ok(None);
        }
        ensure!(!relocation.has_implicit_addend(), "a relocation says where it leads in an instruction");
    } else if way == Way::Address || relocation.has_implicit_addend() {
        return Ok(Some(symbol.address()));
    }
    // What counts from the end of the instruction's four bytes says four less.
    let is_from_end = file.architecture() == Architecture::X86_64
        && (way != Way::Address || relocation.kind() == RelocationKind::Relative);
    let addend = relocation.addend().wrapping_add(if is_from_end { 4 } else { 0 });
    Ok(Some(symbol.address().wrapping_add_signed(addend)))
}

/// Whether a section has bytes in the file: memory that begins as zeros has none.
fn is_in_file<'d>(section: &impl ObjectSection<'d>) -> bool {
    section.file_range().is_some_and(|(_, size)| size > 0)
}

/// Whether a section is in memory when the program runs.
fn is_loaded(flags: SectionFlags) -> bool {
    matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags.contains(elf::SHF_ALLOC))
}

/// An address without the mark of Arm's short instructions.
fn even(address: u64, machine: Architecture) -> u64 {
    address & !u64::from(machine == Architecture::Arm)
}

/// A number of seven bits in each byte, the lowest first, and what is behind it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at_checked(end.checked_add(1)?)?;
    let value = number.iter().rev().fold(0, |value: u64, byte| value << 7 | u64::from(byte & 0x7f));
    Some((value, rest))
}

/// Tables of a debugger or of exceptions: they refer to each function, and call none.
const UNWINDING: [&str; 3] = [".ARM.exidx", ".eh_frame", ".eh_frame_hdr"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_and_jump_lead_to_where_a_function_begins_or_are_lost() {
        let function = |name: &str, address| Symbol {
            name: name.into(),
            address,
            size: 16,
            is_function: true,
            ..Symbol::default()
        };
        let mut image = Image {
            machine: Architecture::X86_64,
            sections: BTreeMap::new(),
            symbols: vec![function("a", 0x10), function("b", 0x20)],
            taken: BTreeMap::new(),
            lost: BTreeMap::new(),
        };
        let ways = [
            (Way::Call, 0x11, 0x20),
            (Way::Jump, 0x12, 0x10), // a loop
            (Way::Jump, 0x13, 0x18), // a loop
            (Way::Jump, 0x14, 0x28), // into the middle of another one
            (Way::Call, 0x15, 0x18), // into the middle of itself
            (Way::Call, 0x16, 0x40), // where nothing is
            (Way::Address, 0x17, 0x40),
        ];
        for (way, place, address) in ways {
            image.refer(way, place, address, ".text").unwrap();
        }
        assert_eq!(Vec::from_iter(&image.symbols[0].calls), [&1]);
        assert_eq!(Vec::from_iter(image.lost.keys().copied()), [0x14, 0x15, 0x16]);
        assert_eq!(image.lost[&0x16], "a goes to 0x40, where no function of a known size begins");
        let nowhere = image.refer(Way::Call, 0x30, 0x20, ".text").unwrap_err().to_string();
        assert_eq!(nowhere, "what goes to 0x20 at 0x30 is in no function");
    }

    #[test]
    fn number_ends_with_the_first_byte_below_128() {
        assert_eq!(number(&[0x08, 9]), Some((8, &[9][..])));
        assert_eq!(number(&[0xbc, 0x05]), Some((700, &[][..])));
        assert_eq!(number(&[0x80]), None);
    }
}
