//! A rule's trial: the devices, what is known of them already, and what was found.
//!
//! A trial asserts the matter of its own rule alone. What it needs on the way and does not get is a reason to skip it,
//! since another rule is about that.
//!
//! Deliberately absent: judgement without a try. A trial that has checked nothing has not passed.

use std::rc::Rc;

use rustix::io::Errno;
use vfio_migration_core::device::{Features, State};

use super::data::Data;
use super::facts::Facts;
use super::lab::{Lab, Stuck};
use super::stream::{Loaded, PIECE};
use super::words::{first_few, name, said};
use super::{Need, Outcome};

/// Why something could not be tried.
#[derive(Debug)]
pub(super) struct Skip(pub(super) String);

impl From<String> for Skip {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<Stuck> for Skip {
    fn from(stuck: Stuck) -> Self {
        Self(stuck.to_string())
    }
}

impl From<&str> for Skip {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

/// What a rule's check returns: it was gone through, or not to its end.
pub(super) type Checked = Result<(), Skip>;

/// One rule on one device, and where there is one its partner.
pub(super) struct Trial<'t, 'a> {
    /// The device under test.
    pub(super) lab: &'t mut Lab<'a>,
    /// Where states are loaded, if that is not the device itself.
    partner: Option<&'t mut Lab<'a>>,
    pub(super) facts: &'t mut Facts,
    findings: Findings,
}

impl<'t, 'a> Trial<'t, 'a> {
    /// Begins a trial.
    pub(super) fn new(lab: &'t mut Lab<'a>, partner: Option<&'t mut Lab<'a>>, facts: &'t mut Facts) -> Self {
        Self { lab, partner, facts, findings: Findings::default() }
    }

    /// Goes through a check and says what came of it.
    pub(super) fn run(mut self, needs: &[Need], check: fn(&mut Trial<'_, '_>) -> Checked) -> Outcome {
        let missing = needs.iter().find_map(|need| need.missing(&self));
        let answer = match (missing, self.home()) {
            (Some(reason), _) => Err(Skip(reason)),
            (None, Err(reason)) => Err(reason),
            (None, Ok(())) => check(&mut self),
        };
        self.findings.outcome(answer)
    }

    /// Whoever asked for an end gets it between two tries.
    pub(super) fn go_on(&self) -> Checked {
        if self.lab.interrupt().asked().is_some() { Err("interrupted".into()) } else { Ok(()) }
    }

    /// Counts a check; one that does not hold is a finding.
    pub(super) fn expect(&mut self, holds: bool, finding: impl FnOnce() -> String) {
        self.findings.checked += 1;
        if !holds {
            self.findings.found.push(finding());
        }
    }

    /// A part of the rule could not be tried.
    pub(super) fn missed(&mut self, reason: impl Into<String>) {
        self.findings.missed.push(reason.into());
    }

    /// What was tried, for whoever wonders how much that was.
    pub(super) fn tried(&mut self, what: impl Into<String>) {
        self.findings.tried.push(what.into());
    }

    /// The driver's features.
    pub(super) fn features(&self) -> Features {
        self.lab.features().unwrap_or_default()
    }

    /// Both devices in RUNNING.
    pub(super) fn home(&mut self) -> Checked {
        self.lab.home()?;
        match &mut self.partner {
            Some(partner) => partner.home().map_err(|reason| Skip(format!("the partner: {reason}"))),
            None => Ok(()),
        }
    }

    /// Brings the device to a state; gives the session's data fd.
    pub(super) fn session(&mut self, state: State) -> Result<Data, Skip> {
        self.lab.reach(state)?.ok_or_else(|| Skip(format!("no data fd came with {state}")))
    }

    /// A SET within a session, which must be accepted and give no data fd for the rule to go on.
    pub(super) fn step(&mut self, state: State) -> Checked {
        match self.lab.set(state) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Skip(format!("{state} opened a session anew"))),
            refused @ Err(_) => Err(Skip(format!("{state} is refused: {}", said(&refused)))),
        }
    }

    /// The state that the device was found with.
    pub(super) fn held(&self) -> Result<Rc<Vec<u8>>, Skip> {
        self.facts.held.clone().map_err(Skip)
    }

    /// A read that failed is a finding, unless it was an interrupt that ended it.
    pub(super) fn read_failed(&mut self, at: State, behind: u64, errno: Errno) -> Checked {
        self.go_on()?;
        self.expect(false, || {
            format!("after {behind} bytes in {at}: wanted data or their end, got {}", name(errno))
        });
        Ok(())
    }

    /// Resets the device, which is in `at`. That it works is a rule of its own.
    pub(super) fn resets_in(&mut self, at: State) -> bool {
        let reset = self.lab.reset();
        if reset.is_err() {
            self.missed(format!("the reset in {at} answered {}", said(&reset)));
        }
        reset.is_ok()
    }

    /// A few bytes that a resuming session takes at first.
    pub(super) fn beginning(&self) -> Result<Vec<u8>, Skip> {
        let held = self.held()?;
        let beginning = &held[..held.len().min(4096)];
        if beginning.is_empty() { Err("the device's state is empty".into()) } else { Ok(beginning.to_vec()) }
    }

    /// Where states are loaded: the partner, or the device itself.
    pub(super) fn target(&mut self) -> &mut Lab<'a> {
        match &mut self.partner {
            Some(partner) => partner,
            None => self.lab,
        }
    }

    /// Whether states are loaded into another device.
    pub(super) const fn has_partner(&self) -> bool {
        self.partner.is_some()
    }

    /// Loads the state that the device was found with into the target.
    pub(super) fn load_held(&mut self, piece: usize) -> Result<Loaded, Skip> {
        let held = self.held()?;
        self.load(&held, piece)
    }

    /// Loads a state into the target. What one refusal leaves behind for the next load is a rule of its own: here it is
    /// tried twice.
    pub(super) fn load(&mut self, state: &[u8], piece: usize) -> Result<Loaded, Skip> {
        self.go_on()?;
        let target = self.target();
        target.home()?;
        match target.load(&[state], piece) {
            Loaded::Taken => Ok(Loaded::Taken),
            Loaded::NotWritten(..) | Loaded::NotStopped(_) | Loaded::NotBegun(_) => {
                target.is_lost();
                self.go_on()?;
                let target = self.target();
                target.home()?;
                Ok(target.load(&[state], piece))
            }
        }
    }

    /// As [`Trial::load_held`], where the rule can't go on without.
    pub(super) fn must_load_held(&mut self) -> Checked {
        match self.load_held(PIECE)?.refusal() {
            None => Ok(()),
            Some(refusal) => Err(Skip(format!("its own state is not taken back: {refusal}"))),
        }
    }

    /// A reset before anything is loaded, so that what comes out afterwards was loaded.
    pub(super) fn blank_target(&mut self) -> Checked {
        let target = self.target();
        target.home()?;
        let reset = target.reset();
        if reset.is_err() {
            return Err(Skip(format!("a reset is refused: {}", said(&reset))));
        }
        Ok(target.home()?)
    }

    /// Gives the device under test back what it was found with, as far as it takes it: a device that was reset may have
    /// nothing to tell.
    pub(super) fn fill(&mut self) -> Checked {
        if self.lab.is_emptied() && self.facts.resets.is_ok() {
            let held = self.held()?;
            if self.lab.load(&[&held], PIECE) != Loaded::Taken {
                self.lab.is_lost();
            }
            self.lab.home()?;
            self.lab.is_filled_again();
        }
        Ok(())
    }

    /// Whether a state that is loaded comes out again byte by byte, so that contents can be compared.
    pub(super) fn copies(&mut self) -> Result<bool, Skip> {
        if let Some(known) = self.facts.copies {
            return Ok(known);
        }
        let copies = self.facts.is_deterministic() && self.copy()?.is_none();
        self.home()?;
        self.facts.copies = Some(copies);
        Ok(copies)
    }

    /// Loads the held state into a blank target and says how what comes out is different.
    pub(super) fn copy(&mut self) -> Result<Option<String>, Skip> {
        let held = self.held()?;
        self.blank_target()?;
        self.must_load_held()?;
        Ok(self.target().compare(&held)?.difference())
    }
}

/// What a trial has found so far.
#[derive(Debug, Default)]
struct Findings {
    checked: usize,
    found: Vec<String>,
    missed: Vec<String>,
    tried: Vec<String>,
}

impl Findings {
    fn outcome(mut self, answer: Checked) -> Outcome {
        self.missed.extend(answer.err().map(|Skip(reason)| reason));
        if !self.found.is_empty() {
            return Outcome::Fail(first_few(&self.found));
        }
        let missed = first_few(&self.missed);
        if self.checked == 0 {
            let nothing = "nothing could be tried".to_owned();
            return Outcome::Skip(if missed.is_empty() { nothing } else { missed });
        }
        if !missed.is_empty() {
            self.tried.push(format!("not tried: {missed}"));
        }
        Outcome::Pass(self.tried.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(checked: usize, found: &[&str], missed: &[&str]) -> Findings {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Findings { checked, found: own(found), missed: own(missed), tried: own(&["all of it"]) }
    }

    #[test]
    fn a_trial_that_checked_nothing_is_skipped_with_its_reason() {
        let none = findings(0, &[], &[]).outcome(Ok(()));
        assert_eq!(none, Outcome::Skip("nothing could be tried".into()));
        let missed = findings(0, &[], &["no fd"]).outcome(Err("no reset".into()));
        assert_eq!(missed, Outcome::Skip("no fd; no reset".into()));
    }

    #[test]
    fn what_was_found_fails_and_what_was_missed_is_told() {
        let found = findings(2, &["one", "two"], &["x"]).outcome(Err("y".into()));
        assert_eq!(found, Outcome::Fail("one; two".into()));
        let partly = findings(1, &[], &[]).outcome(Err("no reset".into()));
        assert_eq!(partly, Outcome::Pass("all of it; not tried: no reset".into()));
        assert_eq!(findings(1, &[], &[]).outcome(Ok(())), Outcome::Pass("all of it".into()));
    }
}
