//! What does the kernel say? The uapi's states, the arcs between them, what to try after a refusal, what a device has
//! written to, and what an ioctl carries.
//!
//! Deliberately absent: system calls. Whoever holds the device's file descriptor makes them.

pub mod arc;
pub mod dirty;
pub mod recover;
pub mod state;
pub mod uapi;

pub use state::{Features, State};
