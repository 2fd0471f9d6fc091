//! What QEMU and `load` say of damaged streams, and where each leaves the device.
//!
//! The page `docs/qemu-refusals.md` is made here, and printed in lines that `cargo xtask vm` looks for.
//!
//! Deliberately absent: the damage itself, which is in `damage`.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::damage::{DAMAGES, Intact};
use super::{Kind, Subject, WITH_PRE_COPY};
use crate::device::{RUNNING, state_name};
use crate::modules::Set;
use crate::qemu::{self, DEVICES, End, Qemu, Setup};
use crate::suite::Bench;
use crate::tool::{self, DONE};

/// Files of `vfio-migrate save --qemu-id`, which have a checksum: all damage is refused.
pub(super) fn of_ours(bench: &Bench) -> Result<()> {
    table(bench.source.set(), &OURS)
}

/// Streams of whole machines that QEMU saved.
pub(super) fn of_qemu(bench: &Bench) -> Result<()> {
    table(bench.source.set(), &QEMUS)
}

/// How a stream is saved for a table, and how `load` is told to take it.
struct Origin {
    /// Saves a device, for this version of QEMU or by it, to [`INTACT`]; returns the device's content.
    save: fn(&dyn Subject, &str) -> Result<String>,
    load: &'static str,
    has_checksum: bool,
    /// The part of the page, and what stands above its tables.
    part: &'static str,
    head: &'static str,
}

/// What came of a damage: with QEMU, and with `load`.
struct Row {
    qemu: String,
    ours: String,
}

/// Saves a stream for each QEMU, damages it in each way, and gives it to that QEMU and to `load`. Prints a part of the
/// page.
fn table(set: Set, origin: &Origin) -> Result<()> {
    let versions = qemu::versions()?;
    let mut page = origin.head.to_string();
    for kind in WITH_PRE_COPY {
        page += &format!("\n### {}\n\n| damage | QEMU | vfio-migrate load |\n|---|---|---|\n", kind.0);
        let columns = versions.iter().map(|version| column(set, kind, origin, version));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        for (place, (what, _)) in DAMAGES.iter().enumerate() {
            let of_all = columns.iter().zip(&versions);
            let of_all = of_all.filter_map(|(rows, version)| Some((version, rows.get(place)?.as_ref()?)));
            let of_all: Vec<_> = of_all.collect();
            if !of_all.is_empty() {
                let qemu = together(of_all.iter().map(|(version, row)| (*version, &row.qemu)));
                let ours = together(of_all.iter().map(|(version, row)| (*version, &row.ours)));
                page += &format!("| {what} | {qemu} | {ours} |\n");
            }
        }
    }
    page.lines().for_each(|line| println!("page docs/qemu-refusals.md {}|{line}", origin.part));
    Ok(())
}

/// Each damage of a stream for a QEMU; nothing where the stream can't have it.
fn column(set: Set, kind: &Kind, origin: &Origin, version: &str) -> Result<Vec<Option<Row>>> {
    let make = |number| kind.1(set, &format!("e0000000-0000-0000-0000-{number:012}"));
    let source = make(1)?;
    let content = (origin.save)(source.as_ref(), version)?;
    let intact = Intact::read(INTACT)?;
    let mut rows = Vec::new();
    for (place, (what, damage)) in DAMAGES.iter().enumerate() {
        let Some(bytes) = damage(&intact) else {
            rows.push(None);
            continue;
        };
        fs::write(DAMAGED, bytes)?;
        // A device that was left in RESUMING can't be used again.
        let (for_qemu, for_us) = (make(2)?, make(3)?);
        let here = || format!("{what}, {}, QEMU {version}", kind.0);
        let qemu = by_qemu(for_qemu.as_ref(), version, &content).with_context(here)?;
        let ours = by_us(for_us.as_ref(), origin.load, &content).with_context(here)?;
        let is_intact = place == 0;
        let right = if is_intact {
            [&qemu, &ours].iter().all(|said| *said == TAKEN)
        } else {
            !origin.has_checksum || ours.starts_with("refused")
        };
        ensure!(right, "{}: QEMU {qemu}, vfio-migrate {ours}", here());
        rows.push(Some(Row { qemu, ours }));
    }
    Ok(rows)
}

/// What a QEMU makes of the damaged stream.
fn by_qemu(target: &dyn Subject, version: &str, content: &str) -> Result<String> {
    target.renew()?;
    match Qemu::try_load(&Setup::waiting(version, &[target.card()]), &format!("file:{DAMAGED}"))? {
        End::Quit => taken(target, content),
        End::Refused(exit, said) => refused(target, exit, &said),
    }
}

/// What `load` makes of the damaged stream. It never leaves a device that does not run.
fn by_us(target: &dyn Subject, options: &str, content: &str) -> Result<String> {
    target.renew()?;
    let outcome = tool::run(&format!("load {} --input {DAMAGED} {options}", target.card().argument()?))?;
    target.card().check_state(RUNNING)?;
    if outcome.is_done() {
        taken(target, content)
    } else {
        refused(target, outcome.exit_code(), &outcome.errors())
    }
}

fn taken(target: &dyn Subject, content: &str) -> Result<String> {
    Ok(if target.content()? == content { TAKEN } else { TAKEN_WRONG }.to_string())
}

fn refused(target: &dyn Subject, exit: Option<i32>, said: &str) -> Result<String> {
    let state = state_name(target.card().state()?);
    let said = said.replace(&target.card().argument()?, "DEVICE").replace(target.card().uuid(), "UUID");
    // What `load` says of the state is in the table anyway.
    let said = said.split_once("; the device ").map_or(said.as_str(), |(said, _)| said);
    let lines = said.lines().filter(|line| !USUAL.iter().any(|words| line.contains(words)));
    let lines = lines.map(|line| PREFIXES.iter().fold(line, |line, prefix| line.trim_start_matches(prefix)));
    let said = masked(&lines.collect::<Vec<_>>().join(" / ")).replace('|', "\\|");
    let exit = exit.map_or("a signal".to_string(), |code| format!("exit code {code}"));
    Ok(format!("refused, {exit}, device in {state}: `{said}`"))
}

/// Numbers of five digits and more are others each time.
fn masked(said: &str) -> String {
    let is_number = |word: &str| {
        word.len() >= 5
            && word.contains(|letter: char| letter.is_ascii_digit())
            && word.chars().all(|letter| letter.is_ascii_hexdigit())
    };
    let mut masked = String::new();
    for piece in said.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
        masked += if is_number(word) { "…" } else { word };
        masked += &piece[word.len()..];
    }
    masked
}

/// What all versions say: once where it is the same.
fn together<'a>(said: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let said: Vec<_> = said.collect();
    match said.as_slice() {
        [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other == first) => (*first).clone(),
        _ => said.iter().map(|(version, one)| format!("{version}: {one}")).collect::<Vec<_>>().join("<br>"),
    }
}

const TAKEN: &str = "taken; the content is right";
const TAKEN_WRONG: &str = "taken; the content is **another one**";

/// What QEMU says of these devices in any case.
const USUAL: [&str; 2] = [": warning: ", "Cannot reset device"];
/// How messages begin.
const PREFIXES: [&str; 3] = ["qemu-system-x86_64: ", "vfio-migrate: ", "/tmp/damaged: "];

const INTACT: &str = "/tmp/intact";
const DAMAGED: &str = "/tmp/damaged";

const OURS: Origin = Origin {
    save: |source, _| {
        let device = source.card().argument()?;
        let save = format!("save {device} --qemu-id {} --config --output {INTACT}", DEVICES[0]);
        let content = source.renew()?;
        tool::run(&save)?.expect(&[DONE]).map(|_| content)
    },
    load: "",
    has_checksum: true,
    part: "1/2",
    head: "\
# Damaged streams

What QEMU and `vfio-migrate load` say of a stream that is damaged in one place, and the state in which they leave the
device. The VM of `cargo xtask vm --all` prints this page; `cargo xtask vm --all --bless` writes it. Numbers that are
others each time are left out. A device that a QEMU leaves in RESUMING refuses the next QEMU; a reset helps, or
`vfio-migrate recover`.

## A file of `vfio-migrate save --qemu-id --config`
",
};

const QEMUS: Origin = Origin {
    save: |source, version| {
        let mut content = source.renew()?;
        Qemu::save(&Setup::running(version, &[source.card()]), &format!("file:{INTACT}"), |_| {
            content = source.renew_in_machine(content.clone())?;
            Ok(())
        })?;
        Ok(content)
    },
    load: "--section 0000:00:02.0/vfio",
    has_checksum: false,
    part: "2/2",
    head: "\n## A stream of a whole machine, which QEMU saved\n",
};
