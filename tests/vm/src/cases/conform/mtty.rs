//! The kernel's sample driver, which is lax: what it does otherwise is known, and `docs/conformance-mtty.md` explains it.
//!
//! The page is made here, of the real report, and printed in lines that `cargo xtask vm` looks for.
//!
//! Deliberately absent: the driver's source. All of this is seen from outside.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

use super::Report;
use crate::modules::Set;
use crate::suite::{Bench, Case};
use crate::tool;

pub(super) const CASES: &[Case] = &[
    ("conform_finds_of_mtty_what_is_known_and_nothing_else", known),
    ("conform_tells_of_mtty_in_tap", tap),
    ("conform_page_of_mtty", page),
];

/// A rule that mtty breaks, the set of modules with which it shows, and why.
struct Deviation {
    rule: &'static str,
    set: Option<Set>,
    why: &'static str,
}

impl Deviation {
    fn is_for(&self, set: Set) -> bool {
        self.set.is_none_or(|own| own == set)
    }
}

const DEVIATIONS: &[Deviation] = &[
    Deviation {
        rule: "PRE-09",
        set: None,
        why: "When the head has been read, a read in PRE_COPY gives 0 bytes. Other drivers do the same (hisi_acc, qat), \
              so that a VMM has to take 0 for a pause there.",
    },
    Deviation {
        rule: "PRE-10",
        set: None,
        why: "The data fd has no poll operation, and the kernel then says that it is always ready. A VMM that waits \
              for more data with poll() is woken for nothing; it needs a timer.",
    },
    Deviation { rule: "RST-02", set: None, why: "The card can be reset, and does not say so." },
    Deviation {
        rule: "RES-03",
        set: None,
        why: "A write with a wrong magic number is refused, and what was written before counts as nothing; RESUMING → \
              STOP then finds nothing that is wrong and succeeds. A VMM must never ask for STOP after a refused write.",
    },
    Deviation {
        rule: "RES-05",
        set: None,
        why: "The state of a port has no checksum: any registers are taken. The head alone is checked.",
    },
    Deviation {
        rule: "DMA-02",
        set: Some(Set::Stock),
        why: "Debian's kernel is built without what a report is made with (`iova_bitmap`, which comes with \
              `CONFIG_IOMMUFD_DRIVER`): it answers before the driver is asked. PROBE says yes all the same, and START \
              works, so that a VMM learns of it late and has to take all memory for dirty.",
    },
    Deviation {
        rule: "DMA-04",
        set: None,
        why: "The card logs nothing, and its log is not on or off: START always succeeds.",
    },
    Deviation {
        rule: "DMA-05",
        set: Some(Set::Iommufd),
        why: "For the same reason a report is given, an empty one, whether there is a log or not.",
    },
    Deviation {
        rule: "DMA-06",
        set: Some(Set::Iommufd),
        why: "As before: an empty report of a log that has ended.",
    },
];

/// With a partner and without, the same rules fail.
fn known(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let wanted = |deviation: &&Deviation| deviation.is_for(set);
    let wanted: BTreeSet<String> = DEVIATIONS.iter().filter(wanted).map(|known| known.rule.into()).collect();
    let exit = if set == Set::Stock { 7 } else { 6 };
    for partner in [String::new(), format!(" --partner {}", bench.target.argument()?)] {
        let report = Report::of(&format!("{}{partner}", bench.source.argument()?), exit)?;
        report.check("fail", &wanted)?;
        report.check_left()?;
    }
    Ok(())
}

/// What a consumer of TAP counts: the plan, and failures that are no TODO.
fn tap(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let known = DEVIATIONS.iter().filter(|known| known.is_for(set));
    let wanted = known.map(|known| known.rule).filter(|rule| *rule != "RES-05").count();
    let said = tool::run(&format!("conform {} --tap", bench.source.argument()?))?.expect(&[6, 7])?.output();
    let tests: Vec<_> =
        said.lines().filter(|line| line.starts_with("ok ") || line.starts_with("not ok ")).collect();
    let plan = format!("1..{}", tests.len());
    ensure!(said.starts_with(&format!("TAP version 14\n{plan}\n")), "wanted the plan {plan}, got {said}");
    let failed =
        tests.iter().filter(|line| line.starts_with("not ok ") && !line.contains(" # TODO ")).count();
    ensure!(failed == wanted, "wanted {wanted} failures, got {failed} in {said}");
    for (number, line) in (1..).zip(&tests) {
        ensure!(line.contains(&format!("ok {number} - ")), "wanted number {number}, got {line:?}");
    }
    Ok(())
}

/// Prints one half of the page.
fn page(bench: &Bench) -> Result<()> {
    let set = bench.source.set();
    let command = format!("conform {} --partner {}", bench.source.argument()?, bench.target.argument()?);
    let table = tool::run(&format!("{command} --markdown"))?.expect(&[6, 7])?.output();
    ensure!(!table.contains(bench.source.uuid()), "the page has the card's name in it");
    let (part, head, title) = match set {
        Set::Stock => ("1/2", HEAD, "Through the group: Debian's own modules"),
        Set::Iommufd => ("2/2", "\n", "Through the character device: modules with iommufd"),
    };
    let mut page = format!("{head}## {title}\n\n{table}\nWhat mtty does otherwise there:\n\n");
    for Deviation { rule, why, .. } in DEVIATIONS.iter().filter(|known| known.is_for(set)) {
        let link = rule.to_lowercase();
        page += &format!("- **[{rule}](conformance.md#{link})**: {why}\n");
    }
    page.lines().for_each(|line| println!("page docs/conformance-mtty.md {part}|{line}"));
    Ok(())
}

const HEAD: &str = "\
# mtty, the kernel's sample driver

What `vfio-migrate conform` says of two cards with one port each (a state of 60 bytes), the second one the partner of the
first. The VM of `cargo xtask vm` prints this page; `cargo xtask vm --bless` writes it. What the rules say stands in
[conformance.md](conformance.md).

mtty shows how a driver is written. It is lax, and what is found here in it is known; the tests fail when it is less or
more.

";
