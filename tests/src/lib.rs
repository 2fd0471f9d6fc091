//! Helpers that several integration tests share.
//!
//! Deliberately absent: anything that knows how core works inside. Sessions are played through their effects and
//! through core's public traits.

pub mod channels;
pub mod config;
pub mod golden;
pub mod kernel;
pub mod machine;
pub mod model;
pub mod payload;
pub mod schedule;
pub mod script;
pub mod sim;
pub mod transfer;
pub mod walk;
pub mod words;

/// The README's example, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
