#![no_std]
#![forbid(unsafe_code)]
//! VFIO migration.
