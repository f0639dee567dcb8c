//! The aggregation header of AV1 (RTP payload format for AV1, 4.4). Layers are told by the dependency descriptor.

/// Whether a coded video sequence begins with this packet (N): a decoder can start here.
pub(super) fn starts_sequence(payload: &[u8]) -> bool {
    // 4.4: a packet that continues an OBU (Z) cannot be the first of a sequence.
    payload.first().is_some_and(|aggregation| aggregation & (CONTINUES | NEW_SEQUENCE) == NEW_SEQUENCE)
}

const CONTINUES: u8 = 0x80;
const NEW_SEQUENCE: u8 = 0x08;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_starts_with_a_new_coded_sequence() {
        for (payload, expected) in [
            (&[0x18][..], true),
            (&[0x28, 0x0a, 0x0b], true),
            (&[0x10], false),
            (&[0x88], false),
            (&[], false),
            // Bytes that made a public depacketiser panic.
            (&[0x17, 0x5f], false),
        ] {
            assert_eq!(starts_sequence(payload), expected, "{payload:02x?}");
        }
    }
}
