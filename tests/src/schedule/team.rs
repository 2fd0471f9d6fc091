//! Devices that are run together, how their turns go, and hosts that do otherwise than their fleet says.
//!
//! Deliberately absent: the run; that is [`fleet`](super::fleet).

use vfio_migration_core::session::fleet::{Order, Verdict};

use super::setting::Setting;

/// Who has the turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// The same device until it has to wait.
    AsFarAsItGoes,
    /// Each in turn for an order, an operation, or a report.
    ByStep,
}

/// A fleet, and how it is run.
#[derive(Clone, Debug)]
pub struct Team {
    /// The devices.
    pub settings: Vec<Setting>,
    /// The device that begins.
    pub first: usize,
    /// Who goes on.
    pub turns: Turns,
    /// Whether a device retreats in the middle of an order, once another one has failed.
    pub prompt: bool,
}

/// A host that does not do as the fleet says.
#[derive(Clone, Copy, Debug)]
pub struct Unruly {
    /// What is wrong with it.
    pub name: &'static str,
    /// What it makes of a verdict.
    pub hears: fn(Order, Verdict) -> Verdict,
    /// Whether its sources retreat before they are cancelled.
    pub retreats: bool,
}

impl Team {
    /// The devices, and how they are run, for reports.
    #[must_use]
    pub fn title(&self) -> String {
        let devices: Vec<_> = self.settings.iter().map(Setting::title).collect();
        let prompt = if self.prompt { ", prompt" } else { "" };
        format!("{}; {} first, {:?}{prompt}", devices.join(" and "), self.first, self.turns)
    }
}
