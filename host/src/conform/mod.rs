//! Whether a driver keeps the rules of VFIO migration v2: for its author, on the device itself.
//!
//! A rule is a value: what it says, where the uapi says so, why it matters, and how it is tried. The list, the
//! explanations and `docs/conformance.md` are made of it. [`run`] tries rules on a device that nobody else uses; the
//! device loses its content and is left in RUNNING.
//!
//! Deliberately absent: what a guest sees. Whether a device works after a load is for its own tests; here is what every
//! VMM relies on.

mod data;
mod dma;
mod facts;
mod fd;
mod feat;
mod fsm;
mod lab;
mod pre;
mod pre_info;
mod res;
mod rst;
mod save;
mod size;
mod stream;
mod trial;
mod walk;
mod words;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub use self::lab::{Lab, Stuck};

use self::facts::Facts;
use self::trial::{Checked, Trial};
use crate::dirty::can_log;

/// How much a rule weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing breaks where it is not so.
    Note,
    /// The uapi recommends it, or VMMs are slower or blind without it.
    Should,
    /// VMMs rely on it.
    Must,
}

/// A rule that a driver keeps or does not.
#[derive(Debug)]
pub struct Rule {
    /// Its stable name, for instance `FSM-07`.
    pub id: &'static str,
    /// How much it weighs.
    pub level: Level,
    /// What it says, in one line.
    pub statement: &'static str,
    /// Where the uapi says so.
    pub source: &'static str,
    /// Why it matters to a VMM, and what breaks without it.
    pub why: &'static str,
    /// What to do in the driver.
    pub remedy: &'static str,
    needs: &'static [Need],
    check: fn(&mut Trial<'_, '_>) -> Checked,
}

/// What came of a rule, with what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The driver keeps it.
    Pass(String),
    /// The driver does not: wanted and got, and where.
    Fail(String),
    /// It does not apply, or could not be tried; why.
    Skip(String),
}

/// What came of all rules.
#[derive(Debug)]
pub struct Report {
    /// Each rule with its outcome, in the order of the trials. The last one is not to be believed where the interrupt was
    /// asked.
    pub results: Vec<(&'static Rule, Outcome)>,
    /// The device was left in RUNNING, or not.
    pub left: Result<(), Stuck>,
    /// The same of the partner, where there is one.
    pub partner_left: Option<Result<(), Stuck>>,
}

/// A name that is no rule's and no family's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted a rule's id or its family, got '{0}'")]
pub struct UnknownRule(pub String);

/// What a rule needs of a device to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Migration v2 with STOP_COPY.
    StopCopy,
    /// PRE_COPY.
    PreCopy,
    /// No PRE_COPY.
    NoPreCopy,
    /// A reset that works.
    Reset,
    /// A state that can be saved and is not empty.
    State,
    /// A device that says it can log its DMA.
    Logging,
}

/// Every rule, family by family.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let families: [&'static [Rule]; 11] = [
        feat::RULES,
        fsm::RULES,
        fd::RULES,
        save::RULES,
        pre_info::RULES,
        pre::RULES,
        pre_info::MORE_RULES,
        size::RULES,
        rst::RULES,
        res::RULES,
        dma::RULES,
    ];
    families.into_iter().flatten()
}

/// The rules with these ids, or of these families (`FSM`), in their own order; all where nothing is given.
///
/// # Errors
/// [`UnknownRule`].
pub fn select(names: &[String]) -> Result<Vec<&'static Rule>, UnknownRule> {
    let is = |name: &str, rule: &Rule| {
        let family = rule.id.split('-').next().unwrap_or_default();
        rule.id.eq_ignore_ascii_case(name) || family.eq_ignore_ascii_case(name)
    };
    match names.iter().find(|name| !rules().any(|rule| is(name, rule))) {
        Some(unknown) => Err(UnknownRule(unknown.clone())),
        None => {
            Ok(rules().filter(|rule| names.is_empty() || names.iter().any(|name| is(name, rule))).collect())
        }
    }
}

/// Tries rules on a device in RUNNING, one after the other; `watch` is told each before it is tried. States are loaded
/// into `partner`, a device of the same driver with the same flags, or into the device itself after a reset: a driver
/// whose reset keeps the state can hide there that its load does nothing.
///
/// Ends early when the labs' interrupt is asked, and brings the devices to RUNNING in any case.
pub fn run<'a>(
    lab: &mut Lab<'a>,
    mut partner: Option<&mut Lab<'a>>,
    rules: &[&'static Rule],
    watch: impl FnMut(&'static Rule),
) -> Report {
    let tried = catch_unwind(AssertUnwindSafe(|| try_all(lab, partner.as_deref_mut(), rules, watch)));
    let left = lab.leave();
    let partner_left = partner.map(Lab::leave);
    match tried {
        Ok(results) => Report { results, left, partner_left },
        Err(panic) => resume_unwind(panic),
    }
}

fn try_all<'a>(
    lab: &mut Lab<'a>,
    mut partner: Option<&mut Lab<'a>>,
    rules: &[&'static Rule],
    mut watch: impl FnMut(&'static Rule),
) -> Vec<(&'static Rule, Outcome)> {
    let mut facts = Facts::of(lab, partner.as_deref_mut());
    let mut results = Vec::new();
    for &rule in rules {
        if lab.interrupt().asked().is_some() {
            break;
        }
        watch(rule);
        let trial = Trial::new(lab, partner.as_deref_mut(), &mut facts);
        results.push((rule, trial.run(rule.needs, rule.check)));
    }
    results
}

impl Level {
    /// All levels, the heaviest first.
    pub const ALL: [Self; 3] = [Self::Must, Self::Should, Self::Note];

    /// The level in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Outcome {
    /// The outcome in one word.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Pass(_) => "pass",
            Self::Fail(_) => "fail",
            Self::Skip(_) => "skip",
        }
    }

    /// What was seen.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Pass(detail) | Self::Fail(detail) | Self::Skip(detail) => detail,
        }
    }
}

impl Report {
    /// How many rules of `level` failed.
    #[must_use]
    pub fn failed(&self, level: Level) -> usize {
        let failed =
            |(rule, outcome): &&(&Rule, Outcome)| rule.level == level && matches!(outcome, Outcome::Fail(_));
        self.results.iter().filter(failed).count()
    }

    /// How many rules passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.results.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Pass(_))).count()
    }

    /// How many rules were skipped.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.results.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Skip(_))).count()
    }
}

impl Need {
    /// Why a device does not have it, or nothing where it has.
    fn missing(self, trial: &Trial<'_, '_>) -> Option<String> {
        let flags = trial.lab.flags();
        let lacks = |there: bool, what: &str| (!there).then(|| format!("the flags {flags:#x} lack {what}"));
        let features = trial.lab.features();
        match self {
            Self::StopCopy => lacks(features.is_some(), "STOP_COPY"),
            Self::PreCopy => lacks(features.is_some_and(|features| features.pre_copy), "PRE_COPY"),
            Self::NoPreCopy => {
                let has = features.is_some_and(|features| features.pre_copy);
                has.then(|| format!("the flags {flags:#x} have PRE_COPY"))
            }
            Self::Reset => trial.facts.resets.as_ref().err().cloned(),
            Self::State => match &trial.facts.held {
                Ok(held) if held.is_empty() => Some("the device's state is empty".to_owned()),
                held => held.as_ref().err().cloned(),
            },
            Self::Logging => {
                (!can_log(trial.lab.fd())).then(|| "the device says that it can't log its DMA".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_numbered_from_one_in_each_family_without_a_gap() {
        let mut next = std::collections::BTreeMap::new();
        for rule in rules() {
            let (family, number) = rule.id.split_once('-').unwrap();
            let expected = next.entry(family).or_insert(1);
            assert_eq!(number, format!("{expected:02}"), "{}", rule.id);
            *expected += 1;
        }
        assert!(rules().count() >= 40);
    }

    #[test]
    fn every_rule_says_what_where_why_and_what_to_do() {
        for rule in rules() {
            for (text, least) in [(rule.statement, 10), (rule.source, 7), (rule.why, 60), (rule.remedy, 30)] {
                assert!(text.len() >= least, "{}: {text}", rule.id);
                assert!(!text.contains('\n') && !text.contains("  "), "{}: {text}", rule.id);
            }
            assert!(!rule.statement.ends_with('.') && rule.statement.len() <= 100, "{}", rule.id);
            assert!(rule.why.ends_with('.') && rule.remedy.ends_with('.'), "{}", rule.id);
        }
        let statements: BTreeSet<_> = rules().map(|rule| rule.statement).collect();
        assert_eq!(statements.len(), rules().count());
    }

    #[test]
    fn rules_are_selected_by_id_and_family_in_their_order() {
        let ids = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            select(&names).map(|rules| rules.iter().map(|rule| rule.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["rst", "feat-02"]).unwrap(), ["FEAT-02", "RST-01", "RST-02", "RST-03", "RST-04"]);
        assert_eq!(ids(&[]).unwrap().len(), rules().count());
        assert_eq!(ids(&["FSM", "FSM-99"]), Err(UnknownRule("FSM-99".to_owned())));
    }
}
