//! The measurements as one table for people, and its place in README.md.
//!
//! Deliberately absent: functions of programs and of stacks, which `--by-function` prints.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::budget::Budget;
use super::measure::{Kind, Row};
use crate::freestanding::TARGETS;

/// A table in Markdown with a column for each machine, and in front which compiler it is of.
pub(crate) fn markdown(rows: &[Row], compiler: &str, budget: &Budget) -> Result<String> {
    for row in rows {
        let is_there = LINES.iter().any(|(_, kind, is_of)| *kind == row.kind && is_of(&row.entry));
        ensure!(is_there, "{} of {} is in no line of the table", row.kind, row.entry);
    }
    let mut text = format!("In bytes, by {compiler}:\n\n| |");
    TARGETS.iter().for_each(|target| text += &format!(" {target} |"));
    text += "\n|---|";
    TARGETS.iter().for_each(|_| text += "---:|");
    for (title, kind, is_of) in LINES {
        let _ = write!(text, "\n| {title} |");
        for target in TARGETS {
            let fits = |row: &&Row| row.kind == kind && row.target == target && is_of(&row.entry);
            let worst = rows.iter().filter(fits).max_by_key(|row| row.bytes);
            let worst = worst.with_context(|| format!("nothing was measured of {title} on {target}"))?;
            let mark = if budget.aim(worst).is_some_and(|aim| worst.bytes > aim) { "\\*" } else { "" };
            let _ = write!(text, " {}{mark} |", worst.bytes);
        }
    }
    text.push('\n');
    if text.contains("\\*") {
        text += "\n\\* more than its aim; the reason is in `tests/size/size-budget.toml`\n";
    }
    Ok(text)
}

/// Holds the table in README.md against a new one, or with `bless` writes that. One of another compiler is left alone.
pub(crate) fn settle(workspace: &Path, table: &str, compiler: &str, bless: bool) -> Result<String> {
    let path = workspace.join(README);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {README}"))?;
    let (before, kept, after) = cut(&text)?;
    if kept.trim() == table.trim() {
        return Ok(format!("{README} has this table"));
    }
    if bless {
        fs::write(&path, format!("{before}\n{table}{after}"))
            .with_context(|| format!("cannot write {README}"))?;
        return Ok(format!("{README} has the new table"));
    }
    let is_of_another = !kept.trim().is_empty() && !kept.contains(compiler);
    ensure!(is_of_another, "{README} has another table; this writes it: cargo xtask size --bless");
    Ok(format!("{README} has the table of another compiler, which is left alone"))
}

/// What stands before the table with its mark, the table, and what stands behind it.
fn cut(text: &str) -> Result<(&str, &str, &str)> {
    let missing = || format!("{README} has no lines {BEGIN} and {END}, between which the table stands");
    let begin = text.find(BEGIN).with_context(missing)? + BEGIN.len();
    let end = begin + text[begin..].find(END).with_context(missing)?;
    Ok((&text[..begin], &text[begin..end], &text[end..]))
}

/// A line's title, its kind, and which entries it has the worst of.
type Line = (&'static str, Kind, fn(&str) -> bool);

const LINES: [Line; 24] = [
    ("code: a program that saves", Kind::Code, |entry| entry == "save"),
    ("code: a program that loads", Kind::Code, |entry| entry == "load"),
    ("code: a program that does both", Kind::Code, |entry| entry == "both"),
    ("memory: `Source`", Kind::Memory, |entry| entry == "source"),
    ("memory: `Destination`", Kind::Memory, |entry| entry == "destination"),
    ("memory: `Fleet` of one device", Kind::Memory, |entry| entry == "fleet_1"),
    ("memory: `Fleet` of eight", Kind::Memory, |entry| entry == "fleet_8"),
    ("memory: multifd's `Receiver`", Kind::Memory, |entry| entry == "receiver"),
    ("memory: multifd's `Slot`, lent to a `Receiver`", Kind::Memory, |entry| entry == "slot"),
    ("memory: multifd's `Channel`, lent to a `Receiver`", Kind::Memory, |entry| entry == "channel"),
    ("memory: multifd's `Sender`", Kind::Memory, |entry| entry == "sender"),
    ("stack: `Source::poll`", Kind::Stack, |entry| entry == "source_poll"),
    ("stack: `Source::complete`", Kind::Stack, |entry| entry == "source_complete"),
    ("stack: orders of a `Source`", Kind::Stack, |entry| is_order(entry, "source_")),
    ("stack: `Destination::poll`", Kind::Stack, |entry| entry == "destination_poll"),
    ("stack: `Destination::complete`", Kind::Stack, |entry| entry == "destination_complete"),
    ("stack: orders of a `Destination`", Kind::Stack, |entry| is_order(entry, "destination_")),
    ("stack: `Fleet` of four", Kind::Stack, |entry| entry.starts_with("fleet_")),
    ("stack: records", Kind::Stack, |entry| is_of(entry, &["decoder_", "record_", "tag_"])),
    ("stack: sections", Kind::Stack, |entry| entry.starts_with("section_")),
    ("stack: the body of a CONFIG", Kind::Stack, |entry| entry.starts_with("pci_config_body_")),
    ("stack: multifd's packets", Kind::Stack, |entry| {
        is_of(entry, &["multifd_init_", "multifd_packet_", "multifd_ram_", "multifd_sender_"])
    }),
    ("stack: multifd's `Receiver`", Kind::Stack, |entry| entry.starts_with("multifd_receiver_")),
    ("stack: the deepest of all that are added up", Kind::Stack, |_| true),
];

fn is_order(entry: &str, role: &str) -> bool {
    entry.strip_prefix(role).is_some_and(|order| !["poll", "complete"].contains(&order))
}

fn is_of(entry: &str, begins: &[&str]) -> bool {
    begins.iter().any(|begin| entry.starts_with(begin))
}

const README: &str = "README.md";
const BEGIN: &str = "<!-- sizes -->";
const END: &str = "<!-- /sizes -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_a_file_is_held_against_the_new_one_and_written_when_blessed() {
        let folder = std::env::temp_dir().join(format!("vfio-migration-sizes-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join(README);
        fs::write(&file, "a\n<!-- sizes -->\n<!-- /sizes -->\nb\n").unwrap();
        let settle = |table: &str, compiler: &str, bless| super::settle(&folder, table, compiler, bless);
        let empty = settle("by c1: 7\n", "c1", false).unwrap_err().to_string();
        let blessed = settle("by c1: 7\n", "c1", true).unwrap();
        let written = fs::read_to_string(&file).unwrap();
        let (same, grown) = (settle("by c1: 7\n", "c1", false), settle("by c1: 8\n", "c1", false));
        let other = settle("by c2: 8\n", "c2", false);
        fs::remove_dir_all(&folder).unwrap();
        assert!(empty.contains("--bless"), "{empty}");
        assert_eq!(blessed, "README.md has the new table");
        assert_eq!(written, "a\n<!-- sizes -->\nby c1: 7\n<!-- /sizes -->\nb\n");
        assert_eq!(same.unwrap(), "README.md has this table");
        assert!(grown.unwrap_err().to_string().contains("--bless"));
        assert!(other.unwrap().contains("another compiler"));
    }

    #[test]
    fn measurement_without_a_line_is_an_error_that_names_it() {
        let row = Row {
            kind: Kind::Memory,
            target: TARGETS[0],
            entry: "other".into(),
            bytes: 1,
            parts: Vec::new(),
        };
        let told = markdown(&[row], "c1", &Budget::default()).unwrap_err().to_string();
        assert_eq!(told, "memory of other is in no line of the table");
    }

    #[test]
    fn file_without_the_marks_is_an_error_that_names_them() {
        assert!(cut("<!-- sizes --> no end").unwrap_err().to_string().contains(END));
    }
}
