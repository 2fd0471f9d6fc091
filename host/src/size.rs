//! Sizes as people write them: `64KiB`, `1MiB`, `4096`.
//!
//! Deliberately absent: powers of ten. Buffers and device states come in powers of two.

/// What [`parse_size`] takes, for messages.
pub const WANTED: &str = "a number of B, KiB, MiB or GiB";

/// The bytes that `text` says, or nothing where it is not [`WANTED`].
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_times_their_unit_and_nothing_else_is_a_size() {
        for (text, bytes) in
            [("0", 0), ("64", 64), ("7B", 7), ("64KiB", 65536), ("1MiB", 1 << 20), ("4GiB", 4 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "KiB", "1kb", "1MB", "-1", "1.5GiB", "99999999999GiB", " 1"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
