//! VFIO device migration on Linux: the system calls around `vfio-migration-core`.

pub mod device;
pub mod file;
pub mod interrupt;
pub mod ioctl;
pub mod link;
pub mod open;
pub mod sim;
pub mod size;
pub mod transfer;
pub mod v1;
