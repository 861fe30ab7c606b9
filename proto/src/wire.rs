//! Big-endian fields taken off the front of a slice. `None` takes nothing and means that the slice is too short.

/// Takes `N` bytes.
pub(crate) fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (field, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*field)
}

/// Takes a 16-bit number.
pub(crate) fn take_u16(input: &mut &[u8]) -> Option<u16> {
    take(input).map(u16::from_be_bytes)
}

/// Takes a 32-bit number.
pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    take(input).map(u32::from_be_bytes)
}

/// Takes a 64-bit number.
pub(crate) fn take_u64(input: &mut &[u8]) -> Option<u64> {
    take(input).map(u64::from_be_bytes)
}

/// Takes `len` bytes.
pub(crate) fn take_bytes<'a>(input: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (field, rest) = input.split_at_checked(len)?;
    *input = rest;
    Some(field)
}

/// Takes a 32-bit length and the bytes it counts.
pub(crate) fn take_counted<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut rest = *input;
    let len = usize::try_from(take_u32(&mut rest)?).ok()?;
    let field = take_bytes(&mut rest, len)?;
    *input = rest;
    Some(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_slice_is_left_as_it_was() {
        let mut input: &[u8] = &[0, 0, 0, 9, 1];
        assert_eq!(take_u64(&mut input), None);
        assert_eq!(take_counted(&mut input), None);
        assert_eq!(input.len(), 5);
        assert_eq!(take_u32(&mut input), Some(9));
        assert_eq!(take_bytes(&mut input, 2), None);
        assert_eq!(input, [1]);
    }
}
