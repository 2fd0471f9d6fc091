//! Whether a device speaks v1, the deprecated migration region of Linux 5.8 to 5.17.
//!
//! Deliberately absent: v1 itself. It is recognised so that a user learns why the device can't migrate.

use std::os::fd::AsFd;

use crate::ioctl::{self, RegionWithCapabilities};

/// Whether one of the device's regions is a v1 migration region.
pub fn has_v1_region(device: impl AsFd) -> bool {
    let regions = ioctl::device_get_info(&device).map_or(0, |info| info.num_regions);
    (0..regions).any(|index| {
        ioctl::device_get_region_info::<ROOM>(&device, index).is_ok_and(
            |region: RegionWithCapabilities<ROOM>| is_v1(region.info.cap_offset, &region.capabilities),
        )
    })
}

/// Walks the capabilities behind a `vfio_region_info`; offsets count from the structure's start.
fn is_v1(first: u32, capabilities: &[u8]) -> bool {
    let word = |offset: usize| -> Option<u32> {
        let place = offset.checked_sub(INFO)?;
        capabilities.get(place..place + 4)?.try_into().ok().map(u32::from_ne_bytes)
    };
    let half = |offset: usize| -> Option<u16> {
        let place = offset.checked_sub(INFO)?;
        capabilities.get(place..place + 2)?.try_into().ok().map(u16::from_ne_bytes)
    };
    let mut at = first as usize;
    // Each capability takes 8 bytes at least, so that a ring of them ends too.
    for _ in 0..capabilities.len() / 8 {
        if at == 0 {
            return false;
        }
        if half(at) == Some(CAP_TYPE)
            && word(at + 8) == Some(TYPE_MIGRATION)
            && word(at + 12) == Some(SUBTYPE_MIGRATION)
        {
            return true;
        }
        at = word(at + 4).unwrap_or(0) as usize;
    }
    false
}

/// Bytes of `struct vfio_region_info`.
const INFO: usize = 32;
/// Room for capabilities: a type takes 16 bytes, a list of sparse areas some more.
const ROOM: usize = 992;
/// `VFIO_REGION_INFO_CAP_TYPE`.
const CAP_TYPE: u16 = 2;
/// `VFIO_REGION_TYPE_MIGRATION_DEPRECATED` and its only subtype.
const TYPE_MIGRATION: u32 = 3;
const SUBTYPE_MIGRATION: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn capability(id: u16, next: u32, words: [u32; 2]) -> Vec<u8> {
        let mut bytes = Vec::from(id.to_ne_bytes());
        bytes.extend(1u16.to_ne_bytes());
        bytes.extend(next.to_ne_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_ne_bytes()));
        bytes
    }

    #[test]
    fn a_migration_region_is_found_behind_another_capability() {
        let mut bytes = capability(1, 48, [0, 0]);
        bytes.extend(capability(CAP_TYPE, 0, [TYPE_MIGRATION, SUBTYPE_MIGRATION]));
        assert!(is_v1(32, &bytes));
    }

    #[test]
    fn other_types_no_capabilities_rings_and_cut_lists_are_none() {
        assert!(!is_v1(32, &capability(CAP_TYPE, 0, [1, 1])));
        assert!(!is_v1(0, &[]));
        assert!(!is_v1(32, &capability(1, 32, [0, 0])));
        assert!(!is_v1(32, &capability(CAP_TYPE, 0, [TYPE_MIGRATION, SUBTYPE_MIGRATION])[..12]));
        assert!(!is_v1(4, &[0; 64]));
    }
}
