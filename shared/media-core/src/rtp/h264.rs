//! Key frame detection in H.264 payloads (RFC 6184): single NAL units, STAP-A and FU-A.

/// Whether this payload begins what a decoder can start from: a parameter set, or the first part of an IDR slice.
pub(super) fn is_keyframe(payload: &[u8]) -> bool {
    let Some((&first, rest)) = payload.split_first() else { return false };
    match first & NAL_TYPE_MASK {
        STAP_A => aggregated_types(rest).any(starts_decoding),
        // RFC 6184 5.8: the unit's type is in the second byte, whose first bit marks the first fragment.
        FU_A => rest.first().is_some_and(|&header| header & 0x80 != 0 && starts_decoding(header & NAL_TYPE_MASK)),
        nal_type => starts_decoding(nal_type),
    }
}

/// What says of a payload that is no STAP-A which unit it is, or is a part of.
pub(super) fn header_bytes(payload: &[u8]) -> usize {
    let is_fragment = payload.first().is_some_and(|first| first & NAL_TYPE_MASK == FU_A);
    if is_fragment { 2 } else { 1 }
}

/// The last unit of a STAP-A. The offsets count from the start of the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastUnit {
    /// Where its length stands.
    pub(super) length_at: usize,
    /// Where it begins; it goes on to the end of the payload.
    pub(super) start: usize,
}

/// Its units do not add up to the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Where the last unit of a STAP-A is; `None` if the payload is none.
pub(super) fn last_aggregated(payload: &[u8]) -> Option<Result<LastUnit, Malformed>> {
    let (&first, mut units) = payload.split_first()?;
    if first & NAL_TYPE_MASK != STAP_A {
        return None;
    }
    let mut last = Err(Malformed);
    while !units.is_empty() {
        let Some((unit, rest)) = split_unit(units) else { return Some(Err(Malformed)) };
        let start = payload.len().saturating_sub(rest.len()).saturating_sub(unit.len());
        last = Ok(LastUnit { length_at: start.saturating_sub(2), start });
        units = rest;
    }
    Some(last)
}

/// The types of the units in a STAP-A; stops at the first that is empty or longer than what is left.
fn aggregated_types(mut units: &[u8]) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let (unit, rest) = split_unit(units)?;
        units = rest;
        unit.first().map(|first| first & NAL_TYPE_MASK)
    })
}

/// The first unit of those in a STAP-A, each behind its length, and the rest.
fn split_unit(units: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&bytes, rest) = units.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(bytes)))
}

fn starts_decoding(nal_type: u8) -> bool {
    matches!(nal_type, IDR_SLICE | SEQUENCE_PARAMETERS)
}

const NAL_TYPE_MASK: u8 = 0x1f;
const IDR_SLICE: u8 = 5;
const SEQUENCE_PARAMETERS: u8 = 7;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keyframes_are_told_from_the_rest() {
        for (payload, expected) in [
            (&[0x65, 0x88][..], true),                           // IDR slice
            (&[0x67, 0x42], true),                               // SPS
            (&[0x68, 0xce], false),                              // PPS alone
            (&[0x41, 0x9a], false),                              // other slice
            (&[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce], true), // STAP-A with SPS, PPS
            (&[0x78, 0, 1, 0x06, 0, 2, 0x41, 0x9a], false),      // STAP-A without
            (&[0x7c, 0x85, 0], true),                            // FU-A, first of an IDR slice
            (&[0x7c, 0x05, 0], false),                           // FU-A, later part
            (&[0x7c, 0x81, 0], false),                           // FU-A, first of another slice
            (&[0x7c], false),
            (&[], false),
        ] {
            assert_eq!(is_keyframe(payload), expected, "{payload:02x?}");
        }
    }

    /// Bytes that made a public depacketiser panic.
    #[test]
    fn aggregation_with_a_trailing_byte_is_survived() {
        assert!(!is_keyframe(&[0x18, 0x00, 0x01, 0xaa, 0x00]));
        assert!(!is_keyframe(&[0x18, 0xff, 0xff]));
        assert!(!is_keyframe(&[0x18, 0x00, 0x00, 0x00, 0x00]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            is_keyframe(&payload);
        }
    }
}
