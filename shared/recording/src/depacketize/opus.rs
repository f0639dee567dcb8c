//! Opus (RFC 7587): a packet is a frame of the file. Silence that was not sent (DTX) leaves no trace but the time.

use super::{Buffer, Finished, Format, Malformed};
use crate::track::Packet;

#[derive(Debug)]
pub(super) struct Opus;

impl Format for Opus {
    fn begin(&mut self, _: &[u8], _: bool) -> bool {
        true
    }

    fn append(&mut self, payload: &[u8], frame: &mut Buffer) -> Result<(), Malformed> {
        if !is_packet(payload) {
            return Err(Malformed::OpusFrames);
        }
        frame.put(payload)
    }

    fn ends_with(&self, _: &Packet) -> bool {
        true
    }

    fn finish(&mut self, _: &mut Buffer) -> Result<Option<Finished>, Malformed> {
        Ok(Some(Finished { is_key: true, ..Finished::default() }))
    }
}

/// Whether a decoder takes it (RFC 6716 3.4): all but the lengths of frames inside, which do not matter to others.
fn is_packet(payload: &[u8]) -> bool {
    let Some((&toc, rest)) = payload.split_first() else { return false };
    match (toc & 0x03, rest) {
        (0, frame) => frame.len() <= OPUS_FRAME_BYTES_MAX,
        (1, frames) => frames.len() % 2 == 0 && frames.len() / 2 <= OPUS_FRAME_BYTES_MAX,
        // The first frame's length is before it.
        (2, frames) => !frames.is_empty(),
        (_, []) => false,
        (_, &[count, ..]) => {
            let count = u32::from(count & 0x3f);
            count > 0 && frame_us(toc).saturating_mul(count) <= PACKET_US_MAX
        }
    }
}

/// How long each frame of a packet is (RFC 6716 3.1, table 2).
fn frame_us(toc: u8) -> u32 {
    let row: [u32; 4] = match toc >> 3 {
        ..12 => [10_000, 20_000, 40_000, 60_000],
        12..16 => [10_000, 20_000, 10_000, 20_000],
        16.. => [2_500, 5_000, 10_000, 20_000],
    };
    row.get(usize::from(toc >> 3 & 0x03)).copied().unwrap_or_default()
}

const OPUS_FRAME_BYTES_MAX: usize = 1_275;
const PACKET_US_MAX: u32 = 120_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_told_from_nonsense() {
        for (payload, expected) in [
            (&[0xfc, 0xff, 0xfe][..], true), // 20 ms of silence
            (&[0x78], true),                 // DTX: a frame of no bytes
            (&[], false),
            (&[0x79, 1, 2], true),
            (&[0x79, 1, 2, 3], false), // two frames of the same length
            (&[0x7a], false),
            (&[0x7a, 1, 9], true),
            (&[0x7b], false),
            (&[0x7b, 0], false),
            (&[0x7b, 6], true), // 6 × 20 ms
            (&[0x7b, 7], false),
            (&[0x1b, 2], true), // 2 × 60 ms
            (&[0x1b, 3], false),
            (&[0xe3, 48], true), // 48 × 2.5 ms
            (&[0xe3, 49], false),
        ] {
            assert_eq!(is_packet(payload), expected, "{payload:02x?}");
        }
        assert!(!is_packet(&[0x78; 1_277]));
    }
}
