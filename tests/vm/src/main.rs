//! The first process of the test VM.
fn main() {}
