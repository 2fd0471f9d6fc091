//! The machine under the hypervisor: how it begins and ends, what interrupts it, and its devices that do not migrate.
//!
//! Deliberately absent: anything of a migration but the words for its events.

pub(crate) mod boot;
pub(crate) mod console;
pub(crate) mod interrupts;
mod ports;
pub(crate) mod serial;
pub(crate) mod setup;
pub(crate) mod trace;
