//! Links the programs with nothing but what they reach, and with relocations, which say who calls whom.
//!
//! Deliberately absent: a place in a machine's memory. What nobody defines is at an address near the code.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["--gc-sections", "--emit-relocs"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    for function in UNKNOWN {
        println!("cargo:rustc-link-arg-bins=--defsym={function}=0x1000");
    }
}

/// What `machine.rs` declares.
const UNKNOWN: [&str; 14] = [
    "device_features",
    "device_state",
    "device_set_state",
    "device_precopy_info",
    "device_read",
    "device_write",
    "device_reset",
    "wire_send",
    "wire_recv",
    "wire_send_config",
    "wire_recv_config",
    "wants_to_stop",
    "wants_switchover_ack",
    "observe",
];
