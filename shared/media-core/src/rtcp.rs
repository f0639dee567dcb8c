//! RTCP (RFC 3550 6, RFC 4585, RFC 5104): a borrowed view of what clients send, and writers for what we send.
//!
//! Hot enough to allocate nothing: packets are read in place and written to the caller's buffer. A length that does not
//! fit ends the reading of a datagram with an error; unknown packet types are passed over.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub(crate) mod feedback;
mod write;

pub(crate) use feedback::{FeedbackWriter, Pushed, TwccFeedback};
pub(crate) use write::{write_description, write_nack, write_pli, write_receiver_report, write_sender_report};

/// The packets of one datagram, in order. Reduced-size datagrams (RFC 5506) are accepted.
pub(crate) fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { rest: datagram }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Packet<'p> {
    SenderReport {
        ssrc: u32,
        info: SenderInfo,
        blocks: ReportBlocks<'p>,
    },
    ReceiverReport {
        blocks: ReportBlocks<'p>,
    },
    /// Ends nothing by itself: browsers go on with the same SSRC after it.
    Goodbye,
    Nack {
        media_ssrc: u32,
        lost: NackedSequences<'p>,
    },
    PictureLoss {
        media_ssrc: u32,
    },
    FullIntra {
        ssrcs: FullIntraSsrcs<'p>,
    },
    /// The receiver's own estimate of what it can take (draft-alvestrand-rmcat-remb-03).
    MaximumBitrate {
        bits_per_second: u64,
    },
    TransportFeedback(TwccFeedback<'p>),
    /// SDES, APP, XR and whatever comes next.
    Other,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SenderInfo {
    /// NTP time, 32.32 fixed point.
    pub(crate) ntp: u64,
    pub(crate) rtp: u32,
    pub(crate) packets: u32,
    pub(crate) octets: u32,
}

/// RFC 3550 6.4.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReportBlock {
    pub(crate) ssrc: u32,
    pub(crate) fraction_lost: u8,
    /// 24 bits on the wire, signed: duplicates make it negative.
    pub(crate) cumulative_lost: i32,
    pub(crate) highest_sequence: u32,
    pub(crate) jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time, 0 when none came.
    pub(crate) last_report: u32,
    /// Time since then in 1/65,536 s.
    pub(crate) delay_since: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RtcpError {
    #[error("shorter than its header or length field")]
    TooShort,
    #[error("not RTCP version 2")]
    WrongVersion,
    #[error("padding is longer than the packet, or zero")]
    PaddingLie,
    #[error("transport feedback about more packets than it could describe")]
    FeedbackTooLarge,
}

#[derive(Debug, Clone)]
pub(crate) struct Packets<'p> {
    rest: &'p [u8],
}

impl<'p> Iterator for Packets<'p> {
    type Item = Result<Packet<'p>, RtcpError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = self.split().and_then(|raw| raw.interpret());
        if parsed.is_err() {
            self.rest = &[];
        }
        Some(parsed)
    }
}

impl<'p> Packets<'p> {
    fn split(&mut self) -> Result<Raw<'p>, RtcpError> {
        let (&[first, kind, l0, l1], _) = self.rest.split_first_chunk::<4>().ok_or(RtcpError::TooShort)?;
        if first >> 6 != 2 {
            return Err(RtcpError::WrongVersion);
        }
        let bytes = usize::from(u16::from_be_bytes([l0, l1])).saturating_add(1).saturating_mul(4);
        let (packet, rest) = self.rest.split_at_checked(bytes).ok_or(RtcpError::TooShort)?;
        self.rest = rest;
        let body = packet.get(4..).unwrap_or_default();
        let padding = if first & 0x20 == 0 { 0 } else { usize::from(*body.last().ok_or(RtcpError::PaddingLie)?) };
        if first & 0x20 != 0 && padding == 0 {
            return Err(RtcpError::PaddingLie);
        }
        let kept = body.len().checked_sub(padding).ok_or(RtcpError::PaddingLie)?;
        Ok(Raw { count: first & 0x1f, kind, body: body.get(..kept).unwrap_or_default() })
    }
}

struct Raw<'p> {
    /// Number of blocks, or the feedback format.
    count: u8,
    kind: u8,
    body: &'p [u8],
}

impl<'p> Raw<'p> {
    fn interpret(self) -> Result<Packet<'p>, RtcpError> {
        Ok(match (self.kind, self.count) {
            (SENDER_REPORT, count) => {
                let (ssrc, rest) = take_u32(self.body)?;
                let (ntp_high, rest) = take_u32(rest)?;
                let (ntp_low, rest) = take_u32(rest)?;
                let (rtp, rest) = take_u32(rest)?;
                let (packets, rest) = take_u32(rest)?;
                let (octets, rest) = take_u32(rest)?;
                let ntp = u64::from(ntp_high) << 32 | u64::from(ntp_low);
                let info = SenderInfo { ntp, rtp, packets, octets };
                Packet::SenderReport { ssrc, info, blocks: ReportBlocks::take(rest, count)? }
            }
            (RECEIVER_REPORT, count) => {
                let (_, rest) = take_u32(self.body)?;
                Packet::ReceiverReport { blocks: ReportBlocks::take(rest, count)? }
            }
            (GOODBYE, _) => Packet::Goodbye,
            (TRANSPORT_FEEDBACK, NACK) => {
                let (media_ssrc, rest) = self.feedback()?;
                Packet::Nack { media_ssrc, lost: NackedSequences { rest, pending: None } }
            }
            (TRANSPORT_FEEDBACK, TRANSPORT_WIDE) => Packet::TransportFeedback(TwccFeedback::parse(self.feedback()?.1)?),
            (PAYLOAD_FEEDBACK, PICTURE_LOSS) => Packet::PictureLoss { media_ssrc: self.feedback()?.0 },
            (PAYLOAD_FEEDBACK, FULL_INTRA) => Packet::FullIntra { ssrcs: FullIntraSsrcs { rest: self.feedback()?.1 } },
            (PAYLOAD_FEEDBACK, APPLICATION) => interpret_application(self.feedback()?.1),
            _ => Packet::Other,
        })
    }

    /// RFC 4585 6.1: SSRC of the sender, SSRC of the media, then the feedback itself.
    fn feedback(&self) -> Result<(u32, &'p [u8]), RtcpError> {
        let (_, rest) = take_u32(self.body)?;
        take_u32(rest)
    }
}

/// The only application layer feedback we know is REMB.
fn interpret_application<'p>(body: &[u8]) -> Packet<'p> {
    let Some((b"REMB", rest)) = body.split_first_chunk::<4>() else { return Packet::Other };
    let Some((&[_, rate, low0, low1], _)) = rest.split_first_chunk::<4>() else { return Packet::Other };
    let mantissa = u64::from(u32::from_be_bytes([0, rate & 0x03, low0, low1]));
    let scale = 1u64.checked_shl(u32::from(rate >> 2));
    let bits_per_second = scale.and_then(|scale| mantissa.checked_mul(scale)).unwrap_or(u64::MAX);
    Packet::MaximumBitrate { bits_per_second }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ReportBlocks<'p> {
    rest: &'p [u8],
}

impl<'p> ReportBlocks<'p> {
    fn take(body: &'p [u8], count: u8) -> Result<Self, RtcpError> {
        let bytes = usize::from(count).saturating_mul(REPORT_BLOCK_BYTES);
        Ok(Self { rest: body.get(..bytes).ok_or(RtcpError::TooShort)? })
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.rest.split_first_chunk::<REPORT_BLOCK_BYTES>()?;
        self.rest = rest;
        let word = |at: usize| {
            let bytes = block.get(at..).and_then(|tail| tail.first_chunk::<4>()).copied().unwrap_or_default();
            u32::from_be_bytes(bytes)
        };
        let [fraction_lost, ..] = word(4).to_be_bytes();
        Some(ReportBlock {
            ssrc: word(0),
            fraction_lost,
            // Sign-extends the low 24 bits.
            cumulative_lost: (word(4) << 8).cast_signed() >> 8,
            highest_sequence: word(8),
            jitter: word(12),
            last_report: word(16),
            delay_since: word(20),
        })
    }
}

/// RFC 5104 4.3.1: entries of SSRC, command sequence number and reserved bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FullIntraSsrcs<'p> {
    rest: &'p [u8],
}

impl Iterator for FullIntraSsrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (&[s0, s1, s2, s3, ..], rest) = self.rest.split_first_chunk::<8>()?;
        self.rest = rest;
        Some(u32::from_be_bytes([s0, s1, s2, s3]))
    }
}

/// RFC 4585 6.2.1: pairs of a sequence number and a bit for each of the sixteen after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NackedSequences<'p> {
    rest: &'p [u8],
    pending: Option<(u16, u16)>,
}

impl Iterator for NackedSequences<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if let Some((base, bits)) = self.pending {
            let skip = u16::try_from(bits.trailing_zeros()).unwrap_or_default();
            let left = bits & bits.wrapping_sub(1);
            self.pending = (left != 0).then_some((base, left));
            return Some(base.wrapping_add(skip).wrapping_add(1));
        }
        let (&[p0, p1, b0, b1], rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        let (base, bits) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([b0, b1]));
        self.pending = (bits != 0).then_some((base, bits));
        Some(base)
    }
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), RtcpError> {
    let (word, rest) = bytes.split_first_chunk::<4>().ok_or(RtcpError::TooShort)?;
    Ok((u32::from_be_bytes(*word), rest))
}

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;

const NACK: u8 = 1;
const TRANSPORT_WIDE: u8 = 15;
const PICTURE_LOSS: u8 = 1;
const FULL_INTRA: u8 = 4;
const APPLICATION: u8 = 15;

const REPORT_BLOCK_BYTES: usize = 24;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtcp::{
        goodbye::Goodbye,
        payload_feedbacks::{full_intra_request::*, receiver_estimated_maximum_bitrate::*},
    };
    use rtc::shared::marshal::Marshal;

    use super::*;

    fn one(bytes: &[u8]) -> Packet<'_> {
        let mut packets = packets(bytes);
        let packet = packets.next().unwrap().unwrap();
        assert!(packets.next().is_none());
        packet
    }

    #[test]
    fn what_another_implementation_writes_is_understood() {
        let goodbye = Goodbye { sources: vec![1, 2], reason: "bye".into() }.marshal().unwrap();
        assert!(matches!(one(&goodbye), Packet::Goodbye));

        let fir = FullIntraRequest {
            sender_ssrc: 1,
            media_ssrc: 0,
            fir: vec![FirEntry { ssrc: 7, sequence_number: 1 }, FirEntry { ssrc: 8, sequence_number: 1 }],
        };
        let fir = fir.marshal().unwrap();
        let Packet::FullIntra { ssrcs } = one(&fir) else { panic!() };
        assert_eq!(ssrcs.collect::<Vec<_>>(), [7, 8]);

        let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 1_250_000.0, ssrcs: vec![5] };
        let remb = remb.marshal().unwrap();
        let Packet::MaximumBitrate { bits_per_second } = one(&remb) else { panic!() };
        assert!((1_249_000..=1_250_000).contains(&bits_per_second), "{bits_per_second}");
    }

    #[test]
    fn a_length_beyond_the_datagram_ends_it() {
        let datagram = [0x80, 201, 0, 1, 0, 0, 0, 9, 0x81, 203, 0, 9, 0, 0, 0, 1];
        let read: Vec<_> = packets(&datagram).collect();
        assert!(matches!(read[..], [Ok(Packet::ReceiverReport { .. }), Err(RtcpError::TooShort)]), "{read:?}");
    }

    #[test]
    fn more_blocks_than_bytes_are_refused() {
        assert!(matches!(packets(&[0x9f, 201, 0, 1, 0, 0, 0, 9]).next(), Some(Err(RtcpError::TooShort))));
    }

    #[test]
    fn every_padding_byte_is_checked() {
        for padding in 0..=255u8 {
            let packet = [0xa0, 201, 0, 2, 0, 0, 0, 9, 0, 0, 0, padding];
            let read = packets(&packet).next().unwrap();
            match padding {
                0 | 9.. => assert!(matches!(read, Err(RtcpError::PaddingLie)), "{padding}: {read:?}"),
                1..=4 => assert!(matches!(read, Ok(Packet::ReceiverReport { .. })), "{padding}: {read:?}"),
                _ => assert!(matches!(read, Err(RtcpError::TooShort)), "{padding}: {read:?}"),
            }
        }
    }

    #[test]
    fn negative_loss_is_read_as_such() {
        let mut bytes = vec![0x81, 201, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0x40, 0xff, 0xff, 0xfe];
        bytes.resize(32, 0);
        let Packet::ReceiverReport { mut blocks, .. } = one(&bytes) else { panic!() };
        let block = blocks.next().unwrap();
        assert_eq!((block.ssrc, block.fraction_lost, block.cumulative_lost), (2, 0x40, -2));
    }

    fn walk(bytes: &[u8]) {
        for packet in packets(bytes).flatten() {
            match packet {
                Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => {
                    assert!(blocks.count() < 32)
                }
                Packet::Nack { lost, .. } => assert!(lost.count() <= bytes.len() * 17 / 4),
                Packet::FullIntra { ssrcs } => assert!(ssrcs.count() <= bytes.len() / 8),
                Packet::TransportFeedback(feedback) => assert!(feedback.arrivals().count() <= 0xffff),
                Packet::PictureLoss { .. } | Packet::MaximumBitrate { .. } | Packet::Goodbye | Packet::Other => {}
            }
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            walk(&bytes);
        }

        #[test]
        fn arbitrary_bodies_never_panic(
            count in 0u8..32,
            kind in 199u8..208,
            mut body in proptest::collection::vec(any::<u8>(), 0..256),
        ) {
            body.truncate(body.len() / 4 * 4);
            let mut packet = vec![0x80 | count, kind];
            packet.extend_from_slice(&((body.len() / 4) as u16).to_be_bytes());
            packet.extend_from_slice(&body);
            walk(&packet);
        }
    }
}
