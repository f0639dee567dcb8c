//! Cutting RTCP into datagrams.

/// What is to be said to one peer, in parts that fit into a datagram each: what a path does not carry whole would be lost
/// whole. Cut between packets only; with reduced-size RTCP (RFC 5506) any of them may come first.
pub(super) fn datagrams(mut compound: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let mut end = 0usize;
        while let Some(length) = packet_bytes(compound.get(end..)?) {
            let longer = end.saturating_add(length);
            if end > 0 && longer > DATAGRAM_BYTES_MAX {
                break;
            }
            end = longer;
        }
        let (part, rest) = compound.split_at_checked(end).filter(|_| end > 0)?;
        compound = rest;
        Some(part)
    })
}

/// RFC 3550 6.4.1: the length in words, less one.
fn packet_bytes(rest: &[u8]) -> Option<usize> {
    let [_, _, high, low, ..] = *rest else { return None };
    Some(usize::from(u16::from_be_bytes([high, low])).saturating_add(1).saturating_mul(4))
}

/// With the tag and the index of SRTCP still below what every path carries.
const DATAGRAM_BYTES_MAX: usize = 1_150;

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: usize) -> Vec<u8> {
        let words = u16::try_from(bytes / 4 - 1).unwrap().to_be_bytes();
        let mut packet = vec![0x80, 200, words[0], words[1]];
        packet.resize(bytes, 7);
        packet
    }

    #[test]
    fn packets_are_kept_whole_and_in_order() {
        let sizes = [400, 400, 400, 8, 1_148, 1_152, 4, 1_200, 1_200];
        let compound = sizes.map(packet).concat();
        let parts: Vec<_> = datagrams(&compound).map(<[u8]>::len).collect();
        assert_eq!(parts, [800, 408, 1_148, 1_152, 4, 1_200, 1_200]);
        assert_eq!(datagrams(&compound).collect::<Vec<_>>().concat(), compound);
        assert_eq!(datagrams(&[]).count(), 0);
    }
}
