//! vfio-migrate
fn main() {}
