//! `device`: what the kernel says.
//!
//! Deliberately absent: `uapi`'s structs and numbers, which hold no code, and `Display`, which is in `show.rs`.

use vfio_migration_core::device::arc::{self, DataSession, LONGEST_PATH};
use vfio_migration_core::device::dirty::{self, PageSize, Pieces, Runs};
use vfio_migration_core::device::recover::{self, Recovery};
use vfio_migration_core::device::uapi::{DmaLoggingRange, Feature, MigState};
use vfio_migration_core::device::{Features, State};

use heapless::Vec;

#[unsafe(no_mangle)]
fn proof_state_from_raw(raw: &u32) -> Option<State> {
    State::from_raw(*raw)
}

#[unsafe(no_mangle)]
fn proof_state_raw(state: &State) -> u32 {
    state.raw()
}

#[unsafe(no_mangle)]
fn proof_state_name(state: &State) -> &'static str {
    state.name()
}

#[unsafe(no_mangle)]
fn proof_features_from_raw(flags: &u64) -> Option<Features> {
    Features::from_raw(*flags)
}

#[unsafe(no_mangle)]
fn proof_features_raw(features: &Features) -> u64 {
    features.raw()
}

#[unsafe(no_mangle)]
fn proof_features_have(features: &Features, state: &State) -> bool {
    features.have(*state)
}

#[unsafe(no_mangle)]
fn proof_arc_next(features: &Features, from: &State, to: &State) -> Option<State> {
    arc::next(*features, *from, *to)
}

#[unsafe(no_mangle)]
fn proof_arc_path(features: &Features, from: &State, to: &State) -> Option<Vec<State, LONGEST_PATH>> {
    arc::path(*features, *from, *to)
}

#[unsafe(no_mangle)]
fn proof_arc_data_session(features: &Features, from: &State, to: &State) -> Option<DataSession> {
    arc::data_session(*features, *from, *to)
}

#[unsafe(no_mangle)]
fn proof_arc_returns_data_fd(session: &DataSession) -> bool {
    session.returns_data_fd()
}

#[unsafe(no_mangle)]
fn proof_recover_after_refusal(wanted: &State, came_from: &State, quiescing: &bool) -> Recovery {
    recover::after_refusal(*wanted, *came_from, *quiescing)
}

#[unsafe(no_mangle)]
fn proof_dirty_page_size_new(bytes: &u64) -> Result<PageSize, dirty::Error> {
    PageSize::new(*bytes)
}

#[unsafe(no_mangle)]
fn proof_dirty_page_size_bytes(page_size: &PageSize) -> u64 {
    page_size.bytes()
}

#[unsafe(no_mangle)]
fn proof_dirty_page_size_word(page_size: &PageSize) -> PageSize {
    page_size.word()
}

#[unsafe(no_mangle)]
fn proof_dirty_page_size_words(page_size: &PageSize, length: &u64) -> u64 {
    page_size.words(*length)
}

#[unsafe(no_mangle)]
fn proof_dirty_prepare<'r>(
    ranges: &'r mut [DmaLoggingRange],
    page_size: &PageSize,
    limit: &usize,
) -> Result<&'r mut [DmaLoggingRange], dirty::Error> {
    dirty::prepare(ranges, *page_size, *limit)
}

#[unsafe(no_mangle)]
fn proof_dirty_pieces(
    range: &DmaLoggingRange,
    page_size: &PageSize,
    words: &usize,
) -> Result<Pieces, dirty::Error> {
    dirty::pieces(*range, *page_size, *words)
}

#[unsafe(no_mangle)]
fn proof_dirty_pieces_next(pieces: &mut Pieces) -> Option<DmaLoggingRange> {
    pieces.next()
}

#[unsafe(no_mangle)]
fn proof_dirty_runs<'b>(
    piece: &DmaLoggingRange,
    page_size: &PageSize,
    bitmap: &'b [u64],
    answer: &Result<(), i32>,
) -> Runs<'b> {
    dirty::runs(*piece, *page_size, bitmap, answer)
}

#[unsafe(no_mangle)]
fn proof_dirty_runs_next(runs: &mut Runs<'_>) -> Option<DmaLoggingRange> {
    runs.next()
}

#[unsafe(no_mangle)]
fn proof_uapi_feature_new(number: &u32, method: &u32, data: &MigState) -> Feature<MigState> {
    Feature::new(*number, *method, *data)
}
