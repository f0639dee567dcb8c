//! Packet trailers: what a publisher appends to its encoded frames for applications, such as the moment of capture.
//!
//! A trailer is a list of elements, each a type, a length and so many bytes, all with their bits inverted so that they
//! hold no H.264 start code; then one byte, inverted too, with the length of the whole; then `LKTS`, as it is. It stands
//! behind the frame and outside of end-to-end encryption (livekit/rust-sdks `webrtc-sys/include/livekit/packet_trailer.h`,
//! livekit/client-sdk-js `src/frameMetadata/frameMetadata.ts` and `src/e2ee/worker/FrameCryptor.ts`; autumn 2026).
//!
//! A decoder that does not expect it reads it as part of the picture, so who has not said that it takes trailers off must
//! not get any. Whether there is one is judged by the payload alone, so that a repair comes out like the first sending.

use super::{Codec, h264, picture::put};

/// A payload less its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut<'p> {
    pub(crate) bytes: &'p [u8],
    /// A length within that counted the trailer: where it stands, and what it is now.
    length: Option<(usize, u16)>,
}

impl<'p> Cut<'p> {
    pub(crate) fn nothing(payload: &'p [u8]) -> Self {
        Self { bytes: payload, length: None }
    }

    /// Takes the trailer off. What is no whole trailer stays: it is the publisher's picture, whatever it looks like.
    ///
    /// Publishers split a frame into packets of about equal size, half a datagram at least, and a trailer is shorter; so
    /// one that began in the packet before is none either, and nothing has to wait for the packet behind.
    pub(crate) fn of(codec: Codec, payload: &'p [u8]) -> Self {
        let whole = Self::nothing(payload);
        let Some(bytes) = frame(payload) else { return whole };
        match codec {
            Codec::Vp8 | Codec::Vp9 => Self { bytes, length: None },
            Codec::H264 => match h264::last_aggregated(payload) {
                // A trailer stands behind a unit, not in its headers.
                None if bytes.len() < h264::header_bytes(payload) => whole,
                None => Self { bytes, length: None },
                Some(Err(h264::Malformed)) => whole,
                Some(Ok(last)) => {
                    let kept = bytes.len().checked_sub(last.start).and_then(|kept| u16::try_from(kept).ok());
                    match kept.filter(|kept| *kept > 0) {
                        Some(kept) => Self { bytes, length: Some((last.length_at, kept)) },
                        None => whole,
                    }
                }
            },
            // In AV1 it is no trailer but an OBU of metadata of a private type, which decoders pass over (AV1 5.8.1, 6.7.1); and
            // audio has none.
            Codec::Av1 | Codec::Audio => whole,
        }
    }

    /// Puts lengths right in a copy of the bytes.
    pub(crate) fn correct(&self, copy: &mut [u8]) {
        if let Some((at, length)) = self.length {
            let [high, low] = length.to_be_bytes();
            put(copy, at, high);
            put(copy, at.saturating_add(1), low);
        }
    }
}

/// What stands in front of a trailer. `None` without one, or if it would be all there is.
fn frame(payload: &[u8]) -> Option<&[u8]> {
    let (&inverted, _) = payload.strip_suffix(MAGIC)?.split_last()?;
    let (frame, trailer) = payload.split_at_checked(payload.len().checked_sub(usize::from(!inverted))?)?;
    let (elements, _) = trailer.split_at_checked(trailer.len().checked_sub(ENVELOPE_BYTES)?)?;
    (!frame.is_empty() && are_elements(elements)).then_some(frame)
}

/// Whether these bytes are elements and nothing else, of whatever types: at most 125, since all have two bytes at least.
fn are_elements(mut rest: &[u8]) -> bool {
    while let Some((&[_, inverted], after)) = rest.split_first_chunk::<2>() {
        let Some(after) = after.get(usize::from(!inverted)..) else { return false };
        rest = after;
    }
    rest.is_empty()
}

const MAGIC: &[u8] = b"LKTS";
/// The length and the magic.
const ENVELOPE_BYTES: usize = 5;

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// A trailer with these elements.
    pub(crate) fn trailer(elements: &[(u8, &[u8])]) -> Vec<u8> {
        let elements = elements.iter().flat_map(|(kind, value)| {
            [*kind, u8::try_from(value.len()).unwrap()].into_iter().chain(value.iter().copied())
        });
        let mut trailer: Vec<u8> = elements.map(|byte| !byte).collect();
        trailer.push(!u8::try_from(trailer.len() + ENVELOPE_BYTES).unwrap());
        trailer.extend_from_slice(MAGIC);
        trailer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{testing::trailer, *};

    const VIDEO: [Codec; 3] = [Codec::Vp8, Codec::Vp9, Codec::H264];

    fn with(frame: &[u8], trailer: &[u8]) -> Vec<u8> {
        [frame, trailer].concat()
    }

    /// What goes out for a payload.
    fn sent(codec: Codec, payload: &[u8]) -> Vec<u8> {
        let cut = Cut::of(codec, payload);
        let mut copy = cut.bytes.to_vec();
        cut.correct(&mut copy);
        copy
    }

    #[test]
    fn a_trailer_is_taken_off() {
        let timestamp = (1, &7u64.to_be_bytes()[..]);
        let number = (2, &9u32.to_be_bytes()[..]);
        let most = vec![0xab; 248];
        for elements in
            [&[timestamp][..], &[number], &[timestamp, number], &[(3, &most)], &[(99, &[])], &[timestamp, (3, b"x")]]
        {
            for codec in VIDEO {
                let payload = with(&[0x41, 0x9a, 3], &trailer(elements));
                assert_eq!(sent(codec, &payload), [0x41, 0x9a, 3], "{codec:?} {elements:?}");
            }
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_released_clients() {
        // What client-sdk-js writes behind a frame with the timestamp 0x0102030405060708 and the number 0x0a0b0c0d.
        let written = [
            0xfe, 0xf7, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8, 0xf7, 0xfd, 0xfb, 0xf5, 0xf4, 0xf3, 0xf2, 0xea, b'L',
            b'K', b'T', b'S',
        ];
        let elements = [(1, &0x0102_0304_0506_0708u64.to_be_bytes()[..]), (2, &[10, 11, 12, 13])];
        assert_eq!(trailer(&elements), written);
        assert_eq!(sent(Codec::Vp8, &with(&[0x10, 1], &written)), [0x10, 1]);
    }

    #[test]
    fn what_is_no_whole_trailer_stays() {
        let good = trailer(&[(1, &[0; 8])]);
        let claims = |length: u8| {
            let mut trailer = good.clone();
            let at = trailer.len() - ENVELOPE_BYTES;
            trailer[at] = !length;
            with(&[0x41, 0x9a, 3], &trailer)
        };
        let too_long_an_element = [0x41, 0x9a, !3, !200, !7, b'L', b'K', b'T', b'S'];
        let half_an_element = [0x41, 0x9a, !3, !6, b'L', b'K', b'T', b'S'];
        for payload in [
            &[][..],
            b"LKTS",
            b"S",
            &good,                          // all there is
            &with(&[1, 2, 3], &good[..14]), // the packet ends before it does
            &with(&[], &good[4..]),         // it began in the packet before
            &with(&[1, 2, 3], b"lkts"),     // nearly
            &with(&good, &[0]),             // not at the end
            &claims(0),                     // shorter than itself
            &claims(4),
            &claims(14),
            &claims(17),  // elements that do not add up
            &claims(255), // longer than the packet
            &too_long_an_element,
            &half_an_element,
        ] {
            for codec in VIDEO {
                assert_eq!(sent(codec, payload), payload, "{codec:?} {payload:02x?}");
            }
        }
    }

    #[test]
    fn the_unit_that_it_ended_gets_shorter_too() {
        // RFC 6184 5.7.1: a STAP-A of parameters and a slice.
        let trailer = trailer(&[(2, &[0, 0, 0, 1])]);
        let bytes = u8::try_from(2 + trailer.len()).unwrap();
        let payload = with(&[0x78, 0, 2, 0x67, 0x42, 0, bytes, 0x65, 0x88], &trailer);
        assert_eq!(sent(Codec::H264, &payload), [0x78, 0, 2, 0x67, 0x42, 0, 2, 0x65, 0x88]);
        // The last part of a slice has no length.
        let payload = with(&[0x7c, 0x45, 7], &trailer);
        assert_eq!(sent(Codec::H264, &payload), [0x7c, 0x45, 7]);
    }

    #[test]
    fn an_aggregate_that_does_not_add_up_stays() {
        let trailer = trailer(&[(2, &[0, 0, 0, 1])]);
        let bytes = u8::try_from(trailer.len()).unwrap();
        for units in [
            &[0x78, 0, bytes][..],             // a unit of nothing else
            &[0x78, 0, bytes + 3, 0x65, 0x88], // longer than the packet
            &[0x78, 0, bytes + 1, 0x65, 0x88], // shorter
            &[0x78, 0, 2, 0x65, 0x88],         // the trailer in no unit
            &[0x78],
        ] {
            let payload = with(units, &trailer);
            assert_eq!(sent(Codec::H264, &payload), payload, "{units:02x?}");
        }
    }

    #[test]
    fn audio_and_av1_are_left_alone() {
        let payload = with(&[1, 2, 3], &trailer(&[(1, &[0; 8])]));
        for codec in [Codec::Audio, Codec::Av1] {
            assert_eq!(sent(codec, &payload), payload);
        }
    }

    proptest! {
        #[test]
        fn a_made_up_end_takes_nothing_from_in_front_of_it(
            frame in proptest::collection::vec(any::<u8>(), 0..64),
            end in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            for codec in VIDEO {
                let payload = [&frame[..], &end, MAGIC].concat();
                let cut = Cut::of(codec, &payload);
                prop_assert!(payload.starts_with(cut.bytes));
                prop_assert!(payload.len() - cut.bytes.len() <= usize::from(u8::MAX));
                let trailer = &payload[cut.bytes.len()..];
                prop_assert!(trailer.is_empty() || usize::from(!trailer[trailer.len() - ENVELOPE_BYTES]) == trailer.len());
            }
        }
    }
}
