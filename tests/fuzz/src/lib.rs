//! What the fuzz targets share: decisions drawn from the fuzzer's bytes, a device and a link that follow them, streams
//! that are made by such decisions, memory that is counted, and the seeds of their corpora.
//!
//! A target is a file of `fuzz_targets/`; what it holds to be true is in its doc comment. `cargo xtask fuzz` runs them.
//!
//! Deliberately absent: chance. The same bytes do the same, so that a finding can be played again.

pub mod chance;
pub mod channels;
pub mod compose;
pub mod device;
pub mod link;
pub mod machine;
pub mod memory;
pub mod receiving;
pub mod seeds;
pub mod text;
