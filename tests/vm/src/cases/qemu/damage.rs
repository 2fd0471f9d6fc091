//! Streams that are damaged in one place: what QEMU says of them, what we say, and where each leaves the device.
//!
//! The page `docs/qemu-refusals.md` is made here, and printed in lines that `cargo xtask vm` looks for.
//!
//! Deliberately absent: all places. Each kind of damage stands for itself here; each byte's turn comes in `tests/tests`.

use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};

use super::{KINDS, Kind, Subject, section};
use crate::device::{RUNNING, state_name};
use crate::modules::Set;
use crate::qemu::{self, DEVICES, End, Qemu, Setup};
use crate::stream::{Section, sections};
use crate::suite::Bench;
use crate::tool::{self, DONE};

/// Files of `vfio-migrate save --qemu-id`.
pub(super) fn of_ours(bench: &Bench) -> Result<()> {
    table(bench.source.set(), &OURS)
}

/// Streams of whole machines that QEMU saved.
pub(super) fn of_qemu(bench: &Bench) -> Result<()> {
    table(bench.source.set(), &QEMUS)
}

/// A whole stream, and the sections of the device in it.
struct Intact {
    bytes: Vec<u8>,
    device: Vec<Section>,
    end: usize,
}

impl Intact {
    fn read() -> Result<Self> {
        let bytes = fs::read(INTACT)?;
        let all = sections(INTACT)?;
        let end = all.last().context("no section")?.place.end;
        let device = all.into_iter().filter(|one| one.name == section(0)).collect();
        Ok(Self { bytes, device, end })
    }

    fn section(&self, kind: &str) -> Option<&Section> {
        self.device.iter().find(|section| section.kind == kind)
    }

    /// The last data that the device gets: the tag, the length and the bytes.
    fn data(&self) -> Option<(Range<usize>, Range<usize>, Range<usize>)> {
        let records = self.device.iter().flat_map(|section| &section.records);
        let (_, place) = records.rev().find(|(name, _)| name == "DATA")?;
        let Range { start, end } = *place;
        Some((start..start + 8, start + 8..start + 16, start + 16..end))
    }

    /// The stream with other bytes in a place.
    fn with(&self, place: Range<usize>, new: &[u8]) -> Vec<u8> {
        [&self.bytes[..place.start], new, &self.bytes[place.end..]].concat()
    }

    /// The stream with the last data's length this much larger and other bytes for them.
    fn with_data(&self, more: i64, bytes: impl Fn(&[u8]) -> Vec<u8>) -> Option<Vec<u8>> {
        let (_, length, data) = self.data()?;
        let new = (data.len() as u64).wrapping_add_signed(more).to_be_bytes();
        Some(self.with(length.start..data.end, &[&new[..], &bytes(&self.bytes[data])].concat()))
    }

    /// The stream with a bit of each of these bytes turned.
    fn flipped(&self, places: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        places.into_iter().for_each(|place| bytes[place] ^= 1);
        bytes
    }
}

/// A kind of damage: what it is, and the damaged stream; nothing where the stream has no such place.
type Damage = (&'static str, fn(&Intact) -> Option<Vec<u8>>);

const DAMAGES: &[Damage] = &[
    ("nothing", |intact| Some(intact.bytes.clone())),
    ("the tag of the last data is unknown", |intact| Some(intact.flipped([intact.data()?.0.end - 2]))),
    ("cut in the middle of the last data", |intact| {
        let data = intact.data()?.2;
        Some(intact.bytes[..data.start + data.len() / 2].to_vec())
    }),
    ("the length of the last data is larger by 1", |intact| intact.with_data(1, <[u8]>::to_vec)),
    ("the length of the last data is larger by 2^40", |intact| intact.with_data(1 << 40, <[u8]>::to_vec)),
    ("the last data are shorter by a byte", |intact| {
        intact.with_data(-1, |data| data[..data.len() - 1].to_vec())
    }),
    ("the last data are longer by a byte", |intact| intact.with_data(1, |data| [data, &[0]].concat())),
    ("a bit in the last data is turned", |intact| {
        let data = intact.data()?.2;
        Some(intact.flipped([data.start + data.len() * 3 / 5]))
    }),
    ("a bit of the first data's first byte is turned", |intact| {
        let mut records = intact.device.iter().flat_map(|section| &section.records);
        let (_, first) = records.find(|(name, _)| name == "DATA")?;
        Some(intact.flipped([first.start + 16]))
    }),
    ("END_OF_STATE of the END section is missing", |intact| {
        let payload = intact.section("END")?.payload.end;
        Some(intact.with(payload - 8..payload, &[]))
    }),
    ("the END section's footer is missing", |intact| {
        let section = intact.section("END")?;
        Some(intact.with(section.payload.end..section.place.end, &[]))
    }),
    ("the END section's footer has another id", |intact| {
        Some(intact.flipped([intact.section("END")?.place.end - 1]))
    }),
    ("the END section has an id that never began", |intact| {
        let begins = intact.section("END")?.place.start;
        Some(intact.with(begins + 1..begins + 5, &[0, 0, 0xff, 0xff]))
    }),
    ("the START section is missing", |intact| Some(intact.with(intact.section("START")?.place.clone(), &[]))),
    ("the END section is missing", |intact| Some(intact.with(intact.section("END")?.place.clone(), &[]))),
    ("the sections are named after another device", |intact| {
        let mut bytes = intact.bytes.clone();
        let begin = intact.device.iter().filter(|section| ["START", "FULL"].contains(&section.kind.as_str()));
        begin.for_each(|section| bytes[section.place.start + 6 + "0000:00:02".len() - 1] = b'9');
        Some(bytes)
    }),
    ("the START section has version 2", |intact| {
        Some(
            intact.with(
                intact.section("START")?.payload.start - 1..intact.section("START")?.payload.start,
                &[2],
            ),
        )
    }),
    ("the version in the CONFIG record is 3", |intact| {
        let config = intact.section("FULL")?.payload.start + 8;
        Some(intact.with(config..config + 4, &[0, 0, 0, 3]))
    }),
    ("the CONFIG record is shorter by a byte", |intact| {
        let end = intact.section("FULL")?.payload.end - 8;
        Some(intact.with(end - 1..end, &[]))
    }),
    ("a bit of the vendor's number in the CONFIG record is turned", |intact| {
        Some(intact.flipped([intact.section("FULL")?.payload.start + 8 + 4]))
    }),
    ("the description is cut", |intact| Some(intact.bytes[..intact.bytes.len() - 5].to_vec())),
    ("the description is missing", |intact| Some(intact.bytes[..=intact.end].to_vec())),
];

/// How a stream is saved for a table, which returns the device's content, and how `load` is told to take it.
struct Origin {
    save: fn(&dyn Subject, &str) -> Result<String>,
    load: &'static str,
    /// The part of the page, and what stands above its tables.
    part: &'static str,
    head: &'static str,
}

/// Lets each QEMU save a device, or saves it for it, damages the stream in each way, and gives it to that QEMU and to
/// `load`. Prints a part of the page.
fn table(set: Set, origin: &Origin) -> Result<()> {
    let mut page = origin.head.to_string();
    for kind in &KINDS[..2] {
        page += &format!("\n### {}\n\n| damage | QEMU | vfio-migrate load |\n|---|---|---|\n", kind.0);
        let rows: Vec<_> = qemu::versions()?
            .iter()
            .map(|version| of_version(set, kind, origin, version))
            .collect::<Result<_>>()?;
        for (place, (what, _)) in DAMAGES.iter().enumerate() {
            let of_all = rows.iter().filter_map(|rows| rows.get(place)?.as_ref());
            let (qemu, ours): (Vec<_>, Vec<_>) = of_all.cloned().unzip();
            if !qemu.is_empty() {
                page += &format!("| {what} | {} | {} |\n", together(&qemu), together(&ours));
            }
        }
    }
    page.lines().for_each(|line| println!("page docs/qemu-refusals.md {}|{line}", origin.part));
    Ok(())
}

/// What came of a damage: with a QEMU, named after its version, and with `load`.
type Row = ((String, String), (String, String));

/// All damages of a stream for a QEMU.
fn of_version(set: Set, kind: &Kind, origin: &Origin, version: &str) -> Result<Vec<Option<Row>>> {
    let make = |number| kind.1(set, &format!("e0000000-0000-0000-0000-{number:012}"));
    let source = make(1)?;
    let content = (origin.save)(source.as_ref(), version)?;
    let intact = Intact::read()?;
    let mut rows = Vec::new();
    for (what, damage) in DAMAGES {
        let Some(bytes) = damage(&intact) else {
            rows.push(None);
            continue;
        };
        fs::write(DAMAGED, bytes)?;
        let name = |verdict| (version.to_string(), verdict);
        // A device that was left in RESUMING can't be used again.
        let qemu = by_qemu(make(2)?.as_ref(), version, &content)
            .with_context(|| format!("{what}, QEMU {version}"))?;
        let ours = by_us(make(3)?.as_ref(), origin.load, &content, what == &DAMAGES[0].0)
            .with_context(|| format!("{what}, stream of {version}"))?;
        rows.push(Some((name(qemu), name(ours))));
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

/// What `load` makes of the damaged stream.
fn by_us(target: &dyn Subject, options: &str, content: &str, is_intact: bool) -> Result<String> {
    target.renew()?;
    let outcome = tool::run(&format!("load {} --input {DAMAGED} {options}", target.card().argument()?))?;
    ensure!(!is_intact || outcome.is_done(), "it is intact, and is refused: {}", outcome.errors());
    if outcome.is_done() {
        return taken(target, content);
    }
    target.card().check_state(RUNNING)?;
    refused(target, outcome.exit_code(), &outcome.errors())
}

fn taken(target: &dyn Subject, content: &str) -> Result<String> {
    let is_right = target.content()? == content;
    Ok(format!("taken; the content is {}", if is_right { "right" } else { "**another one**" }))
}

fn refused(target: &dyn Subject, exit: Option<i32>, said: &str) -> Result<String> {
    let said = said.replace(&target.card().argument()?, "DEVICE").replace(target.card().uuid(), "UUID");
    let said = said
        .split_once("; the device ")
        .map_or(said.as_str(), |(said, _)| said)
        .trim_start_matches(OURS_BEGINS);
    let is_usual = |line: &&str| USUAL.iter().any(|words| line.contains(words));
    let lines = said.lines().filter(|line| !is_usual(line));
    let lines: Vec<_> = lines.map(|line| line.trim_start_matches("qemu-system-x86_64: ")).collect();
    let (said, state) = (masked(&lines.join(" / ")).replace('|', "\\|"), state_name(target.card().state()?));
    let exit = exit.map_or("a signal".to_string(), |code| format!("exit code {code}"));
    Ok(format!("refused, {exit}, device in {state}: `{said}`"))
}

/// Numbers of five digits and more are another time others.
fn masked(said: &str) -> String {
    let mut masked = String::new();
    for word in said.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
        let digits = word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let is_number = digits.len() >= 5 && digits.chars().any(|letter| letter.is_ascii_digit());
        let hides = is_number && digits.chars().all(|letter| letter.is_ascii_hexdigit());
        masked += &if hides { word.replace(digits, "…") } else { word.to_string() };
    }
    masked
}

/// The verdicts of all versions: once where they are the same.
fn together(verdicts: &[(String, String)]) -> String {
    let first = verdicts.first().map_or("", |(_, verdict)| verdict);
    if verdicts.iter().all(|(_, verdict)| verdict == first) {
        return first.to_string();
    }
    let each: Vec<_> = verdicts.iter().map(|(version, verdict)| format!("{version}: {verdict}")).collect();
    each.join("<br>")
}

/// What QEMU says of these devices in any case.
const USUAL: [&str; 2] = [": warning: ", "Cannot reset device"];

/// How what `load` says begins here.
const OURS_BEGINS: &str = "vfio-migrate: ";

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
    part: "2/2",
    head: "\n## A stream of a whole machine, which QEMU saved\n",
};
