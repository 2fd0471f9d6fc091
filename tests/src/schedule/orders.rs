//! The orders of both roles, by one name each, and the scripts that are made of them.
//!
//! Deliberately absent: which order may follow which. A session that refuses one makes the run fail.

/// An order to a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `Source::setup(false)`.
    Setup,
    /// `Source::setup(true)`.
    SetupPreCopy,
    /// `Source::measure`.
    Measure,
    /// `Source::copy_chunk`.
    Chunk,
    /// `Source::quiesce`.
    Quiesce,
    /// `Source::copy_rest`.
    Rest,
    /// `Source::config`.
    Config,
    /// `Source::finish`.
    Finish,
    /// `Destination::resume`.
    Resume,
    /// `Destination::section`.
    Section,
    /// `stop` of both roles.
    Stop,
    /// `run_p2p` of both roles.
    RunP2p,
    /// `run` of both roles.
    Run,
    /// `cancel` of both roles.
    Cancel,
    /// `Source::retreat`; a destination has none.
    Retreat,
}

use Order::{
    Chunk, Config, Finish, Measure, Quiesce, Rest, Resume, Run, RunP2p, Section, Setup, SetupPreCopy, Stop,
};

/// A device saved without pre-copy, and run again.
pub const STOP_COPY: &[Order] = &[Setup, Stop, Rest, Config, Finish, Run];
/// A stopped device whose data go out in pieces.
pub const IN_CHUNKS: &[Order] = &[Setup, Stop, Chunk, Chunk, Rest, Finish];
/// Saved, run, and saved again.
pub const TWICE: &[Order] = &[Setup, Stop, Rest, Finish, Run, Setup, Stop, Rest, Finish];
/// With pre-copy: initial data, an empty chunk, and what has become dirty comes after the stop.
pub const PRE_COPY: &[Order] = &[SetupPreCopy, Measure, Chunk, Chunk, Stop, Rest, Finish];
/// With pre-copy, of which the device begins anew.
pub const REINIT: &[Order] = &[SetupPreCopy, Measure, Chunk, Measure, Chunk, Stop, Rest];
/// Without pre-copy, beside another device.
pub const QUIESCED: &[Order] = &[Setup, Quiesce, Stop, Rest, Finish, RunP2p, Run];
/// With pre-copy, beside another device.
pub const QUIESCED_PRE_COPY: &[Order] =
    &[SetupPreCopy, Measure, Chunk, Quiesce, Stop, Rest, Finish, RunP2p, Run];
/// With pre-copy and no data, beside another device.
pub const TOGETHER_PRE_COPY: &[Order] = &[SetupPreCopy, Quiesce, Stop, Rest, Finish, RunP2p, Run];
/// A paused machine's device beside another one, which stays paused.
pub const PAUSED: &[Order] = &[Setup, Quiesce, Stop, Rest, Finish];
/// A paused machine's device beside another one, that runs in the end.
pub const PAUSED_RUN: &[Order] = QUIESCED;

/// A device loaded from START, END and FULL.
pub const LOAD: &[Order] = &[Resume, Section, Section, Section, Stop, Run];
/// A device loaded from PART and END, beside another device.
pub const LOAD_P2P: &[Order] = &[Resume, Section, Section, Stop, RunP2p, Run];
/// A device loaded from END alone, beside another device.
pub const LOAD_END: &[Order] = &[Resume, Section, Stop, RunP2p, Run];
