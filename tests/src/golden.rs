//! The files of `golden/`; its README says where each comes from.
//!
//! Deliberately absent: bytes that our own code wrote.

/// SETUP, END_OF_STATE.
pub const PRECOPY_START: &[u8] = include_bytes!("../golden/qemu-10-precopy-start.bin");
/// DATA 24, END_OF_STATE.
pub const PRECOPY_PART1: &[u8] = include_bytes!("../golden/qemu-10-precopy-part1.bin");
/// END_OF_STATE.
pub const PRECOPY_PART2: &[u8] = include_bytes!("../golden/qemu-10-precopy-part2.bin");
/// DATA 36, END_OF_STATE.
pub const PRECOPY_END: &[u8] = include_bytes!("../golden/qemu-10-precopy-end.bin");
/// CONFIG, [`CONFIG_BODY`] bytes, END_OF_STATE.
pub const PRECOPY_FULL: &[u8] = include_bytes!("../golden/qemu-10-precopy-full.bin");
/// DATA 36, END_OF_STATE.
pub const PAUSED_END: &[u8] = include_bytes!("../golden/qemu-10-paused-end.bin");
/// CONFIG, [`CONFIG_BODY`] bytes, END_OF_STATE.
pub const PAUSED_FULL: &[u8] = include_bytes!("../golden/qemu-10-paused-full.bin");
/// DATA 24, INIT_DATA_SENT.
pub const SWITCHACK_PART1: &[u8] = include_bytes!("../golden/qemu-10-switchack-part1.bin");
/// DATA 36, END_OF_STATE.
pub const SWITCHACK_END: &[u8] = include_bytes!("../golden/qemu-10-switchack-end.bin");
/// DATA 36, END_OF_STATE.
pub const IOMMUFD_END: &[u8] = include_bytes!("../golden/qemu-10-iommufd-end.bin");
/// END_OF_STATE.
pub const MULTIFD_END: &[u8] = include_bytes!("../golden/qemu-10-multifd-channel0-end.bin");
/// END_OF_STATE.
pub const MULTIFD_FULL: &[u8] = include_bytes!("../golden/qemu-10-multifd-channel0-full.bin");
/// The front of a multifd channel: what it begins with, a SYNC, a packet of memory without its pages.
pub const MULTIFD_CHANNEL1_BEGIN: &[u8] = MULTIFD_CHANNEL1.split_at(2752).0;
/// The back of a multifd channel: the device's configuration, two SYNC.
pub const MULTIFD_CHANNEL1_END: &[u8] = MULTIFD_CHANNEL1.split_at(181_056).1;
/// A piece of a multifd channel: the device's 36 bytes of data, a SYNC.
pub const MULTIFD_CHANNEL2_STATE: &[u8] = MULTIFD_CHANNEL2.split_at(384_128).1.split_at(1668).0;
/// Two DATA of 1 MiB, DATA 402908, END_OF_STATE.
pub const BIGSTOP_END: &[u8] = include_bytes!("../golden/qemu-10-bigstop-end.bin");
/// Section header and DATA head of 1 MiB.
pub const BIGPRE_PART1_HEAD: &[u8] = include_bytes!("../golden/qemu-10-bigpre-part1-head.bin");
/// Section header and DATA head of 402908.
pub const BIGPRE_END_HEAD: &[u8] = include_bytes!("../golden/qemu-10-bigpre-end-head.bin");
/// CONFIG, [`MIGTEST_CONFIG_BODY`] bytes, END_OF_STATE.
pub const MIGTEST_FULL: &[u8] = include_bytes!("../golden/qemu-10-migtest-full.bin");
/// CONFIG, [`MIGTEST_4096_CONFIG_BODY`] bytes, END_OF_STATE.
pub const MIGTEST_4096_FULL: &[u8] = include_bytes!("../golden/qemu-10-migtest-4096-full.bin");
/// A whole machine's stream, whose VFIO sections are the `PRECOPY_` ones here.
pub const PRECOPY: &[u8] = include_bytes!("../golden/qemu-10-precopy.bin");
/// A whole machine's stream, the main channel of one with multifd.
pub const MULTIFD: &[u8] = include_bytes!("../golden/qemu-10-multifd-channel0.bin");
/// One of its other channels: memory, and the device's configuration.
pub const MULTIFD_CHANNEL1: &[u8] = include_bytes!("../golden/qemu-10-multifd-channel1.bin");
/// One of its other channels: memory, and the device's data.
pub const MULTIFD_CHANNEL2: &[u8] = include_bytes!("../golden/qemu-10-multifd-channel2.bin");
/// A whole stream that QEMU loads, with all data in the END section.
pub const ONE_END_SECTION: &[u8] = include_bytes!("../golden/one-end-section.bin");
/// A whole stream that QEMU loads, with the data in three PART sections.
pub const PARTS_THEN_EMPTY_END: &[u8] = include_bytes!("../golden/parts-then-empty-end.bin");
/// An mtty device's state.
pub const MTTY_STATE: &[u8] = include_bytes!("../golden/mtty-state.bin");
/// `vfio_mig_get_next_state` of the kernel, for every input.
pub const FSM_ORACLE: &str = include_str!("../golden/fsm-oracle.csv");
/// What an mtty device answered, call by call.
pub const MTTY_TRANSCRIPT: &str = include_str!("../golden/mtty-transcript.txt");

/// The length of the configuration's body in the files of an mtty: version, 4096 bytes of config space, four words of
/// interrupt state, no MSI-X.
pub const CONFIG_BODY: usize = 4 + 4096 + 16;
/// The same of a PCI function that has 256 bytes of config space, and four vectors of MSI-X with a byte of pending bits.
pub const MIGTEST_CONFIG_BODY: usize = 4 + 256 + 16 + 4 * 16 + 1;
/// The same of one that has 4096 bytes of config space.
pub const MIGTEST_4096_CONFIG_BODY: usize = 4 + 4096 + 16 + 4 * 16 + 1;
/// The id of the section in all these files.
pub const SECTION_ID: u32 = 38;
/// The name of the section in all these files.
pub const SECTION_NAME: &[u8] = b"0000:00:02.0/vfio";
/// What stands before the payload of a START or FULL section with this name.
pub const BEGIN_HEADER: usize = 14 + SECTION_NAME.len();
/// What stands before the payload of a PART or END section.
pub const CONTINUE_HEADER: usize = 5;
