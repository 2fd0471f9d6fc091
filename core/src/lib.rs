#![no_std]
#![forbid(unsafe_code)]
//! VFIO migration.
pub mod device;
pub mod session;
pub mod stream;
