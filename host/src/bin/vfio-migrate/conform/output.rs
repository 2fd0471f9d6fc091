//! What `conform` prints: for people, for TAP consumers, as JSON, and as pages of Markdown.
//!
//! Deliberately absent: verdicts. They are the library's.

use std::io::{self, Write};

use serde_json::{Value, json};
use vfio_migration_core::device::State;
use vfio_migration_host::conform::{Level, Outcome, Report, Rule, Stuck};

/// How it is printed.
#[derive(Clone, Copy)]
pub(super) enum Format {
    /// For people; verbose: also what was seen of rules that passed.
    Table { verbose: bool },
    /// The Test Anything Protocol, version 14.
    Tap,
    /// One JSON object.
    Json,
    /// A page, or the table of a page.
    Markdown,
}

/// What was tried.
pub(super) struct Header<'a> {
    pub(super) device: &'a str,
    pub(super) partner: Option<&'a str>,
    pub(super) driver: &'a str,
    pub(super) flags: u64,
}

/// Prints the rules.
pub(super) fn list(rules: &[&'static Rule], format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table { .. } | Format::Tap => {
            rules.iter().try_for_each(|Rule { id, level, statement, .. }| {
                writeln!(out, "{id:<8} {level:<7} {statement}")
            })
        }
        Format::Json => {
            object(&mut out, &json!({ "rules": rules.iter().map(described).collect::<Vec<_>>() }))
        }
        Format::Markdown => page(&mut out, rules),
    }
}

/// Prints all that there is to say about a rule.
pub(super) fn explain(rule: &Rule) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Rule { id, level, statement, source, why, remedy, .. } = rule;
    writeln!(out, "{id} ({level}): {statement}\n")?;
    writeln!(
        out,
        "{}\n\n{}\n\n{}",
        folded("source: ", source),
        folded("why: ", why),
        folded("in the driver: ", remedy)
    )
}

/// Prints what came of the rules.
pub(super) fn report(header: &Header<'_>, report: &Report, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table { verbose } => table(&mut out, header, report, verbose),
        Format::Tap => tap(&mut out, header, report),
        Format::Json => object(&mut out, &all(header, report)),
        Format::Markdown => markdown(&mut out, report),
    }
}

fn table(out: &mut impl Write, header: &Header<'_>, report: &Report, verbose: bool) -> io::Result<()> {
    for (rule, outcome) in &report.results {
        let Rule { id, level, statement, .. } = rule;
        let (word, tells) = match outcome {
            Outcome::Pass(_) => ("pass", verbose),
            Outcome::Fail(_) => ("FAIL", true),
            Outcome::Skip(_) => ("skip", true),
        };
        writeln!(out, "{id:<8} {level:<7} {word:<5} {statement}")?;
        if tells && !outcome.detail().is_empty() {
            writeln!(out, "{:23}{}", "", outcome.detail())?;
        }
    }
    let failed = Level::ALL.map(|level| report.failed(level));
    let [must, should, note] = failed;
    let all: usize = failed.iter().sum();
    let (passed, skipped) = (report.passed(), report.skipped());
    writeln!(
        out,
        "{passed} passed, {all} failed ({must} must, {should} should, {note} note), {skipped} skipped; {}: {}",
        header.device,
        report.left.map_or_else(String::from, |()| format!("left in {}", State::Running))
    )
}

fn tap(out: &mut impl Write, header: &Header<'_>, report: &Report) -> io::Result<()> {
    writeln!(out, "TAP version 14\n1..{}", report.results.len())?;
    let partner = header.partner.map(|partner| format!(", partner {partner}")).unwrap_or_default();
    let Header { device, driver, flags, .. } = header;
    writeln!(out, "# {device}, driver {driver}, flags {flags:#x}{partner}")?;
    for (number, (rule, outcome)) in (1..).zip(&report.results) {
        let Rule { id, level, statement, source, .. } = rule;
        let statement = escaped(statement);
        let (word, directive) = match outcome {
            Outcome::Pass(_) => ("ok", String::new()),
            Outcome::Skip(reason) => ("ok", format!(" # SKIP {}", escaped(reason))),
            Outcome::Fail(_) if *level == Level::Note => {
                ("not ok", " # TODO a note; nothing breaks".to_owned())
            }
            Outcome::Fail(_) => ("not ok", String::new()),
        };
        writeln!(out, "{word} {number} - {id} {statement}{directive}")?;
        if let Outcome::Fail(detail) | Outcome::Pass(detail) = outcome
            && !detail.is_empty()
        {
            // A JSON string is a YAML string too.
            writeln!(
                out,
                "  ---\n  level: {level}\n  detail: {}\n  source: {}\n  ...",
                json!(detail),
                json!(source)
            )?;
        }
    }
    writeln!(out, "# left in {}", left(report))
}

fn markdown(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "| rule | level | result | statement | what was seen |\n|---|---|---|---|---|")?;
    for (rule, outcome) in &report.results {
        let Rule { id, level, statement, .. } = rule;
        let statement = in_a_cell(statement);
        let (word, detail) = (outcome.name(), in_a_cell(outcome.detail()));
        let word = if matches!(outcome, Outcome::Fail(_)) { format!("**{word}**") } else { word.to_owned() };
        writeln!(out, "| {id} | {level} | {word} | {statement} | {detail} |")?;
    }
    Ok(())
}

fn all(header: &Header<'_>, report: &Report) -> Value {
    let rules: Vec<Value> = report
        .results
        .iter()
        .map(|(rule, outcome)| {
            let Rule { id, level, .. } = rule;
            json!({ "id": id, "level": level.name(), "result": outcome.name(), "detail": outcome.detail() })
        })
        .collect();
    let [must, should, note] = Level::ALL.map(|level| report.failed(level));
    json!({
        "device": header.device,
        "partner": header.partner,
        "driver": header.driver,
        "flags": header.flags,
        "left": left(report),
        "partner_left": report.partner_left.as_ref().map(in_words),
        "rules": rules,
        "passed": report.passed(),
        "failed": { "must": must, "should": should, "note": note },
        "skipped": report.skipped(),
    })
}

fn described(rule: &&'static Rule) -> Value {
    let Rule { id, level, statement, source, why, remedy, .. } = rule;
    json!({
        "id": id, "level": level.name(), "statement": statement, "source": source, "why": why, "remedy": remedy,
    })
}

/// `docs/conformance.md`.
fn page(out: &mut impl Write, rules: &[&'static Rule]) -> io::Result<()> {
    writeln!(out, "{HEAD}")?;
    writeln!(out, "| rule | level | statement |\n|---|---|---|")?;
    for Rule { id, level, statement, .. } in rules {
        let link = id.to_lowercase();
        writeln!(out, "| [{id}](#{link}) | {level} | {} |", in_a_cell(statement))?;
    }
    for Rule { id, level, statement, source, why, remedy, .. } in rules {
        writeln!(out, "\n## {id}\n\n**{level}: {statement}.**\n\n{}", folded("Source: ", source))?;
        writeln!(out, "\n{}\n\n{}", folded("", why), folded("In the driver: ", remedy))?;
    }
    Ok(())
}

fn object(out: &mut impl Write, value: &Value) -> io::Result<()> {
    crate::stdio::json(out, value)
}

fn left(report: &Report) -> String {
    in_words(&report.left)
}

fn in_words(left: &Result<(), Stuck>) -> String {
    left.map_or_else(String::from, |()| State::Running.name().to_owned())
}

/// A text in lines of at most 112 columns.
fn folded(before: &str, text: &str) -> String {
    let mut lines = vec![before.trim_end().to_owned()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 112 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// A text in which TAP sees no directive.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('#', "\\#")
}

/// A text that ends no cell of a table.
fn in_a_cell(text: &str) -> String {
    text.replace('|', "\\|")
}

const HEAD: &str = "\
# Rules for VFIO migration drivers

`vfio-migrate conform DEVICE` tries these rules on a device; this page is `vfio-migrate conform --list --markdown`.
`--explain ID` prints one of them.

- **must**: VMMs rely on it. A rule that fails ends the program with 7.
- **should**: the uapi recommends it, or VMMs are slower or blind without it; 6.
- **note**: nothing breaks where it is not so.

The device loses its content, and nobody else may use it: `fd:N` is refused where a process holds the device that this
one does not descend from. Held in memory are the device's state as it was found, and what a second save or pre-copy
gives of it: each up to 1 GiB and sixteen times MIG_DATA_SIZE, so that data without an end do not take all memory. Data
of a session have no end where more than 64 GiB come. Above 64 MiB few passes are made over a state, and the report says
which. A rule that needs what the flags lack, or what another rule's failure keeps from it, is skipped with the reason.

A rule may trip a bug that takes the kernel down with all that runs on it: try a driver on a machine that may be lost.
FD-05, FD-06, FD-07 and FD-13 write to a data fd whose session has ended. `virtio_vfio_pci` frees the session's buffers
then, and its write() looks into them before it looks at the session: a NULL dereference in the kernel. No other rule
does that.

States are loaded into the partner (`--partner DEVICE`: same driver, same flags), or into the device itself after a
reset. Without a partner a driver whose reset keeps the state can hide that its load does nothing.
";

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use vfio_migration_host::conform::rules;

    use super::*;

    const HEADER: Header<'_> = Header { device: "fd:7", partner: None, driver: "any", flags: 7 };

    /// A rule of each level that failed, one that passed and one that was skipped.
    fn example() -> Report {
        let rule = |id: &str| rules().find(|rule| rule.id == id).unwrap();
        let results = vec![
            (rule("FSM-03"), Outcome::Fail("wanted STOP, got 9".into())),
            (rule("FD-10"), Outcome::Fail("lseek() # 0".into())),
            (rule("RES-05"), Outcome::Fail("byte | 24".into())),
            (rule("FEAT-01"), Outcome::Pass("flags 0x7".into())),
            (rule("FSM-06"), Outcome::Skip("has # every state".into())),
        ];
        Report { results, left: Ok(()), partner_left: None }
    }

    fn printed(print: impl Fn(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_tells_what_failed_and_was_skipped_and_verbose_what_passed_too() {
        let quiet = printed(|out| table(out, &HEADER, &example(), false));
        let last = "1 passed, 3 failed (1 must, 1 should, 1 note), 1 skipped; fd:7: left in RUNNING";
        assert_eq!(quiet.lines().last(), Some(last));
        assert!(quiet.contains("FSM-03   must    FAIL  after a SET, GET says the new state\n"), "{quiet}");
        assert!(quiet.contains("                       wanted STOP, got 9\n"), "{quiet}");
        assert!(quiet.contains("has # every state") && !quiet.contains("flags 0x7"), "{quiet}");
        assert!(printed(|out| table(out, &HEADER, &example(), true)).contains("flags 0x7"));
    }

    #[test]
    fn tap_has_a_plan_a_line_for_each_rule_and_directives_that_no_text_can_forge() {
        let text = printed(|out| tap(out, &HEADER, &example()));
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with([' ', '#'])).collect();
        assert_eq!(lines[..2], ["TAP version 14", "1..5"]);
        assert_eq!(lines[2], "not ok 1 - FSM-03 after a SET, GET says the new state");
        assert!(lines[3].starts_with("not ok 2 - FD-10 ") && !lines[3].contains('#'), "{}", lines[3]);
        assert!(lines[4].starts_with("not ok 3 - RES-05 ") && lines[4].contains(" # TODO "), "{}", lines[4]);
        assert_eq!(lines[5], "ok 4 - FEAT-01 the migration flags have STOP_COPY");
        assert!(lines[6].ends_with(" # SKIP has \\# every state"), "{}", lines[6]);
        assert_eq!(lines.len(), 7);
        assert!(text.contains("  ---\n  level: must\n  detail: \"wanted STOP, got 9\"\n"), "{text}");
        assert_eq!(text.matches("\n  ---\n").count(), text.matches("\n  ...\n").count());
    }

    #[test]
    fn json_counts_by_level_and_says_where_the_device_was_left() {
        let value = all(&HEADER, &example());
        assert_eq!(value["failed"], json!({ "must": 1, "should": 1, "note": 1 }));
        assert_eq!(
            (&value["passed"], &value["skipped"], &value["left"]),
            (&json!(1), &json!(1), &json!("RUNNING"))
        );
        let first =
            json!({ "id": "FSM-03", "level": "must", "result": "fail", "detail": "wanted STOP, got 9" });
        assert_eq!(value["rules"][0], first);
        let stuck = Stuck { at: Some(State::Error), reset: Err(Errno::IO) };
        let words = "the device is in ERROR and does not come back: its reset answered EIO";
        assert_eq!(all(&HEADER, &Report { left: Err(stuck), ..example() })["left"], json!(words));
    }

    #[test]
    fn markdown_keeps_what_was_seen_in_its_cell() {
        let text = printed(|out| markdown(out, &example()));
        assert!(
            text.contains("| RES-05 | note | **fail** | damage anywhere is noticed | byte \\| 24 |\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 7);
    }

    #[test]
    fn folded_lines_hold_all_words_and_are_not_long() {
        let text = folded("why: ", &"word ".repeat(100));
        assert!(text.lines().all(|line| line.len() <= 112) && text.starts_with("why: word word"), "{text}");
        assert_eq!(text.matches("word").count(), 100);
    }
}
