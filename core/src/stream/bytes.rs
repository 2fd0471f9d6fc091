//! Bytes put into place. Numbers become bytes by the standard library, whose arrays have a length that the compiler knows.
//!
//! Deliberately absent: the check for equal lengths that `copy_from_slice` has. Where the compiler makes small code it
//! does not see through that check, and a panic would be part of every program.

/// Copies as many bytes as both have.
pub(in crate::stream) fn copy(to: &mut [u8], from: &[u8]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// The first numbers of four bytes each; 0 where there are no bytes.
pub(in crate::stream) fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; 4]) -> u32) -> [u32; N] {
    let mut numbers = [0; N];
    numbers.iter_mut().zip(bytes.as_chunks().0).for_each(|(place, bytes)| *place = number(*bytes));
    numbers
}
