//! Links the program as a kernel that a machine loads at a fixed address.
//!
//! Deliberately absent: a choice of the target; whoever builds names x86_64-unknown-none.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    for argument in [&format!("-T{folder}/kernel.ld"), "--no-pie", "-zmax-page-size=0x1000"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rerun-if-changed=kernel.ld");
}
