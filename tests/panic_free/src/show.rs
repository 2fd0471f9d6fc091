//! What people read: the `Display` of every word of core.
//!
//! Deliberately absent: `Debug`, which the compiler writes.

use core::fmt::{Display, Formatter, Result};

use vfio_migration_core::device::{Features, State, dirty};
use vfio_migration_core::session::event::Trace;
use vfio_migration_core::session::fleet::Refused;
use vfio_migration_core::session::precopy::{Advice, Forecast};
use vfio_migration_core::session::{Cause, Code, Event, Failure, Left, Misuse};
use vfio_migration_core::stream::pci_config;
use vfio_migration_core::stream::pci_config::bar::{Bar, BarKind};
use vfio_migration_core::stream::pci_config::capability::{Broken, Capability, Id};
use vfio_migration_core::stream::pci_config::find;
use vfio_migration_core::stream::pci_config::identity::{Difference, Register};
use vfio_migration_core::stream::pci_config::space::{Class, Command, HeaderType, Status, Subsystem};
use vfio_migration_core::stream::record::{self, Tag};
use vfio_migration_core::stream::{multifd, return_path, section};

#[unsafe(no_mangle)]
fn proof_show_state(state: &State, f: &mut Formatter<'_>) -> Result {
    state.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_features(features: &Features, f: &mut Formatter<'_>) -> Result {
    features.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_dirty_error(error: &dirty::Error, f: &mut Formatter<'_>) -> Result {
    error.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_tag(tag: &Tag, f: &mut Formatter<'_>) -> Result {
    tag.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_record_error(error: &record::Error, f: &mut Formatter<'_>) -> Result {
    error.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_section_error(error: &section::Error, f: &mut Formatter<'_>) -> Result {
    error.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_multifd_error(error: &multifd::Error, f: &mut Formatter<'_>) -> Result {
    error.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_multifd_refused(refused: &multifd::Refused, f: &mut Formatter<'_>) -> Result {
    refused.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_multifd_misuse(misuse: &multifd::Misuse, f: &mut Formatter<'_>) -> Result {
    misuse.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_return_path_error(error: &return_path::Error, f: &mut Formatter<'_>) -> Result {
    error.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_return_path_kind(kind: &return_path::Kind, f: &mut Formatter<'_>) -> Result {
    kind.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_pci_config_error(error: &pci_config::Error, f: &mut Formatter<'_>) -> Result {
    error.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_find_error(error: &find::Error, f: &mut Formatter<'_>) -> Result {
    error.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_bar(bar: &Bar, f: &mut Formatter<'_>) -> Result {
    bar.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_bar_kind(bar_kind: &BarKind, f: &mut Formatter<'_>) -> Result {
    bar_kind.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_broken(broken: &Broken, f: &mut Formatter<'_>) -> Result {
    broken.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_capability(capability: &Capability, f: &mut Formatter<'_>) -> Result {
    capability.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_capability_id(capability_id: &Id, f: &mut Formatter<'_>) -> Result {
    capability_id.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_difference(difference: &Difference, f: &mut Formatter<'_>) -> Result {
    difference.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_register(register: &Register, f: &mut Formatter<'_>) -> Result {
    register.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_class(class: &Class, f: &mut Formatter<'_>) -> Result {
    class.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_command(command: &Command, f: &mut Formatter<'_>) -> Result {
    command.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_header_type(header_type: &HeaderType, f: &mut Formatter<'_>) -> Result {
    header_type.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_status(status: &Status, f: &mut Formatter<'_>) -> Result {
    status.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_subsystem(subsystem: &Subsystem, f: &mut Formatter<'_>) -> Result {
    subsystem.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_code(code: &Code, f: &mut Formatter<'_>) -> Result {
    code.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_cause(cause: &Cause, f: &mut Formatter<'_>) -> Result {
    cause.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_left(left: &Left, f: &mut Formatter<'_>) -> Result {
    left.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_failure(failure: &Failure, f: &mut Formatter<'_>) -> Result {
    failure.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_misuse(misuse: &Misuse, f: &mut Formatter<'_>) -> Result {
    misuse.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_event(event: &Event, f: &mut Formatter<'_>) -> Result {
    event.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_trace(trace: &Trace<'_>, f: &mut Formatter<'_>) -> Result {
    trace.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_refused(refused: &Refused<'_, 4>, f: &mut Formatter<'_>) -> Result {
    refused.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_advice(advice: &Advice, f: &mut Formatter<'_>) -> Result {
    advice.fmt(f)
}

#[unsafe(no_mangle)]
fn proof_show_forecast(forecast: &Forecast, f: &mut Formatter<'_>) -> Result {
    forecast.fmt(f)
}
