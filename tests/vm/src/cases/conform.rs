//! The tester of drivers, on a driver that keeps all its rules, on one that breaks each of them when it is told to, and
//! on the kernel's sample.
//!
//! Deliberately absent: what a rule means. `docs/conformance.md` says that; here is what makes it fail.

mod holding;
mod mtty;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use self::rows::{ROWS, Row};
use crate::modules::Set;
use crate::suite::{Bench, Case};
use crate::testdev::TestDevice;
use crate::tool;

/// All cases of this room.
pub(super) fn cases() -> Vec<Case> {
    [CASES, mtty::CASES, holding::CASES].concat()
}

const CASES: &[Case] = &[
    ("conform_finds_nothing_on_a_device_that_keeps_the_rules", no_knob),
    ("conform_finds_nothing_on_a_pci_function", function),
    ("conform_finds_what_each_knob_breaks_and_nothing_else", each_row),
    ("conform_table_has_every_knob_every_violation_and_every_rule", complete),
];

/// What `conform --json` said.
struct Report(Value);

impl Report {
    /// Tries the rules; fails unless the program ends with `exit`.
    fn of(arguments: &str, exit: i32) -> Result<Self> {
        let said = tool::run(&format!("conform {arguments} --json"))?.expect(&[exit])?.output();
        Ok(Self(serde_json::from_str(&said)?))
    }

    /// The rules with this result, and what was seen of each.
    fn with(&self, result: &str) -> BTreeMap<String, String> {
        let rules = self.0["rules"].as_array().into_iter().flatten();
        let meant = rules.filter(|rule| rule["result"] == *result);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        meant.map(|rule| (text(&rule["id"]), text(&rule["detail"]))).collect()
    }

    /// Fails unless exactly these rules have this result.
    fn check(&self, result: &str, wanted: &BTreeSet<String>) -> Result<()> {
        let got = self.with(result);
        let other = got.iter().filter(|(id, _)| !wanted.contains(*id));
        let other: Vec<_> = other.map(|(id, detail)| format!("{id} ({detail})")).collect();
        let missing: Vec<_> = wanted.iter().filter(|id| !got.contains_key(*id)).collect();
        ensure!(other.is_empty() && missing.is_empty(), "{result}: also got {other:?}, and not {missing:?}");
        Ok(())
    }

    /// Fails unless the devices were left running, as the program says.
    fn check_left(&self) -> Result<()> {
        let (left, partner) = (&self.0["left"], &self.0["partner_left"]);
        ensure!(left == "RUNNING", "left in {left}");
        ensure!(partner.is_null() || partner == "RUNNING", "the partner was left in {partner}");
        Ok(())
    }
}

/// The rules' levels, by their ids.
fn levels() -> Result<BTreeMap<String, String>> {
    let list: Value = serde_json::from_str(&tool::run("conform --list --json")?.expect(&[0])?.output())?;
    let text = |value: &Value| value.as_str().map(str::to_string);
    let rules = list["rules"].as_array().context("no list of rules")?.iter();
    rules.map(|rule| text(&rule["id"]).zip(text(&rule["level"])).context("a rule without a name")).collect()
}

fn no_knob(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let (device, partner) = (TestDevice::create(set, DEVICE)?, TestDevice::create(set, PARTNER)?);
    let all: BTreeSet<String> = levels()?.into_keys().collect();
    let begin = Instant::now();
    for flags in [1_u64, 3, 5, 7] {
        device.knob("flags", flags)?;
        partner.knob("flags", flags)?;
        for with in [String::new(), format!(" --partner {}", partner.argument()?)] {
            let report = Report::of(&format!("{}{with}", device.argument()?), 0)?;
            let judge = || {
                report.check("fail", &BTreeSet::new())?;
                let out = not_for(flags, set, &all);
                report.check("skip", &out)?;
                report.check("pass", &all.difference(&out).cloned().collect())?;
                report.check_left()
            };
            judge().with_context(|| format!("flags {flags}{with}"))?;
            ensure!(device.state()? == "RUNNING" && partner.state()? == "RUNNING", "not left in RUNNING");
        }
    }
    println!("# conform: 8 runs on a device that keeps the rules, {:.2} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// The other face of the device that keeps the rules.
fn function(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let all: BTreeSet<String> = levels()?.into_keys().collect();
    let out = not_for(7, set, &all);
    for config in [256, 4096] {
        let device = TestDevice::create_function(set, config, DEVICE)?;
        let report = Report::of(&device.argument()?, 0)?;
        report.check("fail", &BTreeSet::new())?;
        report.check("skip", &out)?;
        report.check("pass", &all.difference(&out).cloned().collect())?;
        report.check_left()?;
        ensure!(device.state()? == "RUNNING", "left in {}", device.state()?);
    }
    Ok(())
}

/// The rules that a device with these flags has nothing to do with, while it writes to no memory.
fn not_for(flags: u64, set: Set, all: &BTreeSet<String>) -> BTreeSet<String> {
    let pre_copy = flags & 4 != 0;
    let of_pre_copy = |id: &str| id.starts_with("PRE-") || ["FSM-05", "FD-02"].contains(&id);
    let is_out = |id: &str| match set {
        // Debian's kernel has no reports, and the test device says so.
        Set::Stock if id.starts_with("DMA-") => true,
        Set::Stock | Set::Iommufd => {
            (of_pre_copy(id) && !pre_copy)
                || (id == "FEAT-04" && pre_copy)
                || (id == "FSM-06" && flags == 7)
                || id == "DMA-07"
        }
    };
    all.iter().filter(|id| is_out(id)).cloned().collect()
}

fn each_row(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let levels = levels()?;
    let begin = Instant::now();
    let rows: Vec<_> = ROWS.iter().filter(|row| row.is_for(set)).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let judged = judge(row, set, &levels).with_context(|| row.to_string());
        wrong.extend(judged.err().map(|error| format!("{error:#}")));
    }
    let (count, seconds) = (rows.len(), begin.elapsed().as_secs_f64());
    println!("# conform: {count} rows of the table, {} rules, {seconds:.1} s", levels.len());
    ensure!(wrong.is_empty(), "{} of {count} rows are otherwise:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// One row on a new device: exactly its rules fail, and the device runs afterwards.
fn judge(row: &Row, set: Set, levels: &BTreeMap<String, String>) -> Result<()> {
    let device = TestDevice::create(set, DEVICE)?;
    row.apply(&device)?;
    let report = Report::of(&device.argument()?, row.exit_code(levels)?)?;
    report.check("fail", &row.breaks())?;
    let (skipped, passed) = (report.with("skip"), report.with("pass"));
    if row.is_legal() {
        let all: BTreeSet<String> = levels.keys().cloned().collect();
        let known = not_for(7, set, &all);
        let must = |id: &&String| levels[*id] == "must" && !known.contains(*id);
        let blind: Vec<_> = skipped.iter().filter(|(id, _)| must(id)).collect();
        ensure!(blind.is_empty(), "is legal, and rules of level must are skipped: {blind:?}");
    }
    for id in row.reveals() {
        ensure!(passed.contains_key(*id), "{id}: wanted it to pass, got {:?}", skipped.get(*id));
    }
    report.check_left()?;
    ensure!(device.state()? == "RUNNING", "left in {}", device.state()?);
    Ok(())
}

/// The table leaves nothing out: no file of the device, and no rule that a driver can break.
fn complete(bench: &Bench) -> Result<()> {
    let device = TestDevice::create(bench.source.set(), DEVICE)?;
    let used: BTreeSet<String> = ROWS.iter().flat_map(Row::knobs).map(str::to_string).collect();
    let violated: BTreeSet<String> = ROWS.iter().filter_map(Row::violation).map(str::to_string).collect();
    let there = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>();
    let (knobs, violations) = (there(device.knobs()?), there(device.violations()?));
    ensure!(used == knobs, "knobs: wanted a row for each of {knobs:?}, got {used:?}");
    ensure!(violated == violations, "violations: wanted a row for each of {violations:?}, got {violated:?}");
    let broken: BTreeSet<String> = ROWS.iter().flat_map(Row::breaks).collect();
    let levels = levels()?;
    // Of the notes these are answered by the kernel, whatever the driver is.
    let kernels = |id: &String| levels[id] == "note" && id.as_str() >= "DMA-10" && id.starts_with("DMA-");
    let breakable: BTreeSet<String> = levels.keys().filter(|id| !kernels(id)).cloned().collect();
    ensure!(broken == breakable, "rules: wanted {breakable:?}, got {broken:?}");
    let (rows, rules) = (ROWS.len(), levels.len());
    println!("# conform: {rows} rows, {} violations, {} knobs, {rules} rules", violations.len(), knobs.len());
    Ok(())
}

const DEVICE: &str = "c0000000-0000-0000-0000-000000000001";
const PARTNER: &str = "c0000000-0000-0000-0000-000000000002";
