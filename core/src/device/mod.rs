//! What does the kernel say? The uapi's states, the arcs between them, what to try after a refusal, and what an
//! ioctl carries.
//!
//! Deliberately absent: system calls. Whoever holds the device's file descriptor makes them.

pub mod arc;
pub mod recover;
pub mod state;
pub mod uapi;

pub use state::{Features, State};
