//! Arithmetic on counters that wrap: 16-bit sequence numbers into 64-bit indices, 32-bit timestamps into distances.

/// Where the index of a stream's first packet starts, one wrap up, so that packets reordered before it have an index.
pub(crate) const FIRST_INDEX: u64 = 1 << 16;

/// The 64-bit index nearest to `highest` whose low 16 bits are `sequence`.
pub(crate) fn extend(highest: u64, sequence: u16) -> u64 {
    let distance = sequence.wrapping_sub(low_bits(highest)).cast_signed();
    highest.checked_add_signed(i64::from(distance)).unwrap_or(u64::from(sequence))
}

/// How far `to` lies after `from`, counters of so many bits; negative when it lies before.
pub(crate) fn distance(from: u16, to: u16, bits: u32) -> i16 {
    let unused = u16::BITS.saturating_sub(bits);
    let forward = to.wrapping_sub(from).checked_shl(unused).unwrap_or_default();
    forward.cast_signed().checked_shr(unused).unwrap_or_default()
}

/// How far `to` lies after `from`; negative when it lies before.
pub(crate) fn timestamp_distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

pub(crate) fn is_newer_timestamp(candidate: u32, than: u32) -> bool {
    timestamp_distance(than, candidate) > 0
}

pub(super) fn low_bits(index: u64) -> u16 {
    let [.., high, low] = index.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_index_is_chosen() {
        for (highest, sequence, expected) in [
            (FIRST_INDEX, 0, FIRST_INDEX),
            (FIRST_INDEX, 0xffff, FIRST_INDEX - 1),
            (FIRST_INDEX + 0xffff, 0, FIRST_INDEX + 0x1_0000),
            (FIRST_INDEX + 0xffff, 0xfffe, FIRST_INDEX + 0xfffe),
            (FIRST_INDEX + 10, 0x7fff, FIRST_INDEX + 0x7fff),
            (FIRST_INDEX + 0x9000, 5, FIRST_INDEX + 0x1_0005),
            (0, 0xffff, 0xffff),
        ] {
            assert_eq!(extend(highest, sequence), expected, "highest {highest}, sequence {sequence}");
        }
    }

    #[test]
    fn counters_of_any_width_have_a_shortest_way() {
        for (from, to, bits, expected) in [
            (0x7fff, 0, 15, 1),
            (0, 0x7fff, 15, -1),
            (0x7f, 1, 7, 2),
            (1, 0x7f, 7, -2),
            (0xffff, 3, 16, 4),
            (9, 9, 7, 0),
        ] {
            assert_eq!(distance(from, to, bits), expected, "{from} to {to} in {bits} bits");
        }
    }

    #[test]
    fn timestamps_compare_across_the_wrap() {
        for (from, to, distance) in [(0, 1, 1), (u32::MAX, 0, 1), (5, 3, -2), (0x8000_0000, 0x7fff_ffff, -1)] {
            assert_eq!(timestamp_distance(from, to), distance);
            assert_eq!(is_newer_timestamp(to, from), distance > 0);
        }
    }
}
