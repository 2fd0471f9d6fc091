//! `session::fleet` and `session::precopy`: several devices, and when to stop. Each call finds a fleet, a meter or a wait in
//! any state that its type can hold, and each number is arbitrary.
//!
//! Deliberately absent: sessions, which are in `session.rs`.

use core::time::Duration;

use vfio_migration_core::device::uapi;
use vfio_migration_core::session::fleet::{Fleet, Joining, Order, Refused, Verdict};
use vfio_migration_core::session::precopy::{self, Advice, Backoff, Forecast, Meter, PrecopyInfo, Remaining};
use vfio_migration_core::session::{DestinationPhase, Failure, SourcePhase};

/// How many devices a fleet has room for here; the code is the same for each number.
const ROOM: usize = 4;

#[unsafe(no_mangle)]
fn proof_fleet_new<'n>(devices: &[Joining<'n>]) -> Result<Fleet<'n, ROOM>, Refused<'n, ROOM>> {
    Fleet::new(devices)
}

#[unsafe(no_mangle)]
fn proof_fleet_source(fleet: &mut Fleet<'_, ROOM>, index: &usize, phase: &SourcePhase) {
    fleet.source(*index, *phase);
}

#[unsafe(no_mangle)]
fn proof_fleet_destination(fleet: &mut Fleet<'_, ROOM>, index: &usize, phase: &DestinationPhase) {
    fleet.destination(*index, *phase);
}

#[unsafe(no_mangle)]
fn proof_fleet_cancel(fleet: &mut Fleet<'_, ROOM>) {
    fleet.cancel();
}

#[unsafe(no_mangle)]
fn proof_fleet_commit(fleet: &mut Fleet<'_, ROOM>) {
    fleet.commit();
}

#[unsafe(no_mangle)]
fn proof_fleet_may(fleet: &mut Fleet<'_, ROOM>, index: &usize, order: &Order) -> Verdict {
    fleet.may(*index, *order)
}

#[unsafe(no_mangle)]
fn proof_fleet_initial_data_there(fleet: &Fleet<'_, ROOM>) -> bool {
    fleet.initial_data_there()
}

#[unsafe(no_mangle)]
fn proof_fleet_first_failure<'n>(fleet: &Fleet<'n, ROOM>) -> Option<(&'n str, Failure)> {
    fleet.first_failure()
}

#[unsafe(no_mangle)]
fn proof_fleet_report<'n>(fleet: &Fleet<'n, ROOM>, each: &mut dyn FnMut((&'n str, Option<Failure>))) {
    fleet.report().for_each(each);
}

#[unsafe(no_mangle)]
fn proof_precopy_info_total(info: &PrecopyInfo) -> u64 {
    info.total()
}

#[unsafe(no_mangle)]
fn proof_precopy_info_after_reading(info: &PrecopyInfo, count: &u64) -> PrecopyInfo {
    info.after_reading(*count)
}

#[unsafe(no_mangle)]
fn proof_precopy_info_from(raw: &uapi::PrecopyInfo) -> PrecopyInfo {
    PrecopyInfo::from(*raw)
}

#[unsafe(no_mangle)]
fn proof_remaining_at_stop(remaining: &Remaining) -> u64 {
    remaining.at_stop()
}

#[unsafe(no_mangle)]
fn proof_precopy_advise(devices: &[Remaining], link_rate: &u64, downtime: &Duration) -> Advice {
    precopy::advise(devices, *link_rate, *downtime)
}

#[unsafe(no_mangle)]
fn proof_advice_forecast(advice: &Advice) -> &Forecast {
    advice.forecast()
}

#[unsafe(no_mangle)]
fn proof_meter_add(meter: &mut Meter, bytes: &u64, took: &Duration) {
    meter.add(*bytes, *took);
}

#[unsafe(no_mangle)]
fn proof_meter_rate(meter: &Meter) -> u64 {
    meter.rate()
}

#[unsafe(no_mangle)]
fn proof_meter_known_rate(meter: &Meter) -> u64 {
    meter.known_rate()
}

#[unsafe(no_mangle)]
fn proof_backoff_new(first: &Duration, longest: &Duration) -> Backoff {
    Backoff::new(*first, *longest)
}

#[unsafe(no_mangle)]
fn proof_backoff_wait(backoff: &mut Backoff) -> Duration {
    backoff.wait()
}

#[unsafe(no_mangle)]
fn proof_backoff_reset(backoff: &mut Backoff) {
    backoff.reset();
}
