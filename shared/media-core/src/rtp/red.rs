//! Redundant audio (RFC 2198): earlier packets' payloads in front of the newest, the primary.

/// The payload of the primary block. `None` if the blocks are longer than the packet.
pub(crate) fn primary(payload: &[u8]) -> Option<&[u8]> {
    let mut rest = payload;
    let mut redundant_bytes = 0usize;
    loop {
        let (&first, tail) = rest.split_first()?;
        // RFC 2198 3: the primary's header is one byte, the others' four.
        if first & FOLLOWED == 0 {
            return tail.get(redundant_bytes..);
        }
        let (&[_, high, low], tail) = tail.split_first_chunk::<3>()?;
        redundant_bytes = redundant_bytes.saturating_add(usize::from(u16::from_be_bytes([high & 0x03, low])));
        rest = tail;
    }
}

/// Gives every block this payload type. Stops where the headers end.
pub(crate) fn set_payload_types(payload: &mut [u8], payload_type: u8) {
    for header in payload.chunks_mut(4) {
        let Some(first) = header.first_mut() else { return };
        let is_last = *first & FOLLOWED == 0;
        *first = *first & FOLLOWED | payload_type & !FOLLOWED;
        if is_last {
            return;
        }
    }
}

const FOLLOWED: u8 = 0x80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One redundant block of three bytes, 960 units old, and a primary of two.
    const ONE_BACK: [u8; 10] = [0xef, 0x0f, 0x00, 0x03, 0x6f, 1, 2, 3, 8, 9];

    #[test]
    fn the_primary_is_what_follows_all_others() {
        let two_back = [0xef, 0x1e, 0x00, 0x01, 0xef, 0x0f, 0x00, 0x02, 0x6f, 1, 2, 2, 7];
        for (payload, expected) in [
            (&ONE_BACK[..], Some(&[8, 9][..])),
            (&two_back, Some(&[7])),
            (&[0x6f, 5], Some(&[5])),
            (&[0x6f], Some(&[])),
            (&[0xef, 0x0f, 0x03, 0xff, 0x6f, 1, 2], None),
            (&[0xef, 0x0f, 0x00], None),
            (&[0xef, 0x0f, 0x00, 0x00], None),
            (&[], None),
        ] {
            assert_eq!(primary(payload), expected, "{payload:02x?}");
        }
    }

    #[test]
    fn blocks_are_renumbered() {
        let mut payload = ONE_BACK;
        set_payload_types(&mut payload, 96);
        assert_eq!(payload, [0xe0, 0x0f, 0x00, 0x03, 0x60, 1, 2, 3, 8, 9]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut payload in proptest::collection::vec(any::<u8>(), 0..64), number in 0u8..128) {
            let before = primary(&payload).map(<[u8]>::to_vec);
            set_payload_types(&mut payload, number);
            let once = payload.clone();
            prop_assert_eq!(primary(&payload).map(<[u8]>::to_vec), before, "blocks stay where they are");
            set_payload_types(&mut payload, number);
            prop_assert_eq!(payload, once);
        }
    }
}
