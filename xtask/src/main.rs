//! Tasks of the workspace; none of them is part of the library.
fn main() {}
