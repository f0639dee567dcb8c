//! Writers: each appends one whole RTCP packet to the caller's buffer.

use super::{
    DESCRIPTION, NACK, PAYLOAD_FEEDBACK, PICTURE_LOSS, RECEIVER_REPORT, ReportBlock, SENDER_REPORT, SenderInfo,
    TRANSPORT_FEEDBACK,
};

pub(crate) fn write_sender_report(out: &mut Vec<u8>, ssrc: u32, info: &SenderInfo) {
    packet(out, 0, SENDER_REPORT, |out| {
        put(out, ssrc);
        out.extend_from_slice(&info.ntp.to_be_bytes());
        for word in [info.rtp, info.packets, info.octets] {
            put(out, word);
        }
    });
}

/// A receiver report; blocks beyond the 31 that fit are left for the next one.
pub(crate) fn write_receiver_report(out: &mut Vec<u8>, ssrc: u32, blocks: &[ReportBlock]) {
    let blocks = blocks.get(..REPORT_BLOCKS_MAX).unwrap_or(blocks);
    let count = u8::try_from(blocks.len()).unwrap_or_default();
    packet(out, count, RECEIVER_REPORT, |out| {
        put(out, ssrc);
        for block in blocks {
            put(out, block.ssrc);
            let lost = block.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0x00ff_ffff;
            put(out, u32::from(block.fraction_lost) << 24 | lost);
            for word in [block.highest_sequence, block.jitter, block.last_report, block.delay_since] {
                put(out, word);
            }
        }
    });
}

/// SDES with nothing but the canonical name (RFC 3550 6.5.1), which every compound packet must hold.
pub(crate) fn write_description(out: &mut Vec<u8>, ssrc: u32, cname: &str) {
    const CNAME: u8 = 1;
    let mut text = cname.as_bytes();
    text = text.get(..CNAME_BYTES_MAX).unwrap_or(text);
    packet(out, 1, DESCRIPTION, |out| {
        put(out, ssrc);
        out.extend_from_slice(&[CNAME, u8::try_from(text.len()).unwrap_or_default()]);
        out.extend_from_slice(text);
        // RFC 3550 6.5: a chunk ends with at least one zero byte; `packet` fills the rest of the word.
        out.push(0);
    });
}

pub(crate) fn write_pli(out: &mut Vec<u8>, sender_ssrc: u32, media_ssrc: u32) {
    packet(out, PICTURE_LOSS, PAYLOAD_FEEDBACK, |out| {
        put(out, sender_ssrc);
        put(out, media_ssrc);
    });
}

/// Packs ascending sequence numbers into pairs. Writes nothing for an empty list; stops when a datagram is full.
pub(crate) fn write_nack(out: &mut Vec<u8>, sender_ssrc: u32, media_ssrc: u32, lost: &[u16]) {
    let Some((&first, rest)) = lost.split_first() else { return };
    packet(out, NACK, TRANSPORT_FEEDBACK, |out| {
        put(out, sender_ssrc);
        put(out, media_ssrc);
        let mut pair = (first, 0u16);
        let mut pairs = 1usize;
        for &sequence in rest {
            let distance = sequence.wrapping_sub(pair.0);
            match distance {
                0 => {}
                1..=16 => pair.1 |= 1u16.wrapping_shl(u32::from(distance.wrapping_sub(1))),
                _ if pairs >= NACK_PAIRS_MAX => break,
                _ => {
                    put(out, u32::from(pair.0) << 16 | u32::from(pair.1));
                    pair = (sequence, 0);
                    pairs = pairs.saturating_add(1);
                }
            }
        }
        put(out, u32::from(pair.0) << 16 | u32::from(pair.1));
    });
}

/// Header, body, zero bytes to a full word, and the length of it all.
pub(super) fn packet(out: &mut Vec<u8>, count: u8, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0x80 | count & 0x1f, kind, 0, 0]);
    body(out);
    let bytes = out.len().saturating_sub(start).next_multiple_of(4);
    out.resize(start.saturating_add(bytes), 0);
    let words = u16::try_from((bytes / 4).saturating_sub(1)).unwrap_or_default();
    if let Some(place) = out.get_mut(start..).and_then(|packet| packet.get_mut(2..4)) {
        place.copy_from_slice(&words.to_be_bytes());
    }
}

pub(super) fn put(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_be_bytes());
}

const REPORT_BLOCKS_MAX: usize = 31;
const CNAME_BYTES_MAX: usize = 255;
/// Keeps a NACK, with whatever precedes it in the datagram, well below an MTU.
const NACK_PAIRS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtcp::{
        payload_feedbacks::picture_loss_indication::PictureLossIndication, receiver_report::ReceiverReport,
        reception_report::ReceptionReport, sender_report::SenderReport, source_description::SourceDescription,
        transport_feedbacks::transport_layer_nack::TransportLayerNack,
    };
    use rtc::shared::marshal::{Marshal, Unmarshal};

    use super::*;
    use crate::rtcp::{Packet, packets};

    #[test]
    fn sender_report_reads_back_here_and_elsewhere() {
        let info = SenderInfo { ntp: 0x0123_4567_89ab_cdef, rtp: 9, packets: 10, octets: 11 };
        let mut out = Vec::new();
        write_sender_report(&mut out, 7, &info);
        let Some(Ok(Packet::SenderReport { ssrc: 7, info: read, .. })) = packets(&out).next() else { panic!() };
        assert_eq!(read, info);
        let theirs = SenderReport::unmarshal(&mut &out[..]).unwrap();
        assert_eq!((theirs.ssrc, theirs.ntp_time, theirs.rtp_time), (7, info.ntp, 9));
        assert_eq!((theirs.packet_count, theirs.octet_count), (10, 11));
    }

    #[test]
    fn receiver_report_reads_back_here_and_elsewhere() {
        let block = ReportBlock {
            ssrc: 1,
            fraction_lost: 64,
            cumulative_lost: 1_000,
            highest_sequence: 0x0001_0002,
            jitter: 5,
            last_report: 6,
            delay_since: 7,
        };
        let mut out = Vec::new();
        write_receiver_report(&mut out, 9, &[block, ReportBlock { cumulative_lost: -3, ..block }]);
        let Some(Ok(Packet::ReceiverReport { blocks })) = packets(&out).next() else { panic!() };
        assert_eq!(blocks.collect::<Vec<_>>(), [block, ReportBlock { cumulative_lost: -3, ..block }]);
        let theirs = ReceiverReport::unmarshal(&mut &out[..]).unwrap();
        let expected = ReceptionReport {
            ssrc: 1,
            fraction_lost: 64,
            total_lost: 1_000,
            last_sequence_number: 0x0001_0002,
            jitter: 5,
            last_sender_report: 6,
            delay: 7,
        };
        assert_eq!(theirs.reports[0], expected);
    }

    #[test]
    fn at_most_thirty_one_blocks_are_written() {
        let mut out = Vec::new();
        write_receiver_report(&mut out, 9, &[ReportBlock::default(); 40]);
        let Some(Ok(Packet::ReceiverReport { blocks, .. })) = packets(&out).next() else { panic!() };
        assert_eq!(blocks.count(), 31);
    }

    #[test]
    fn description_reads_elsewhere_at_every_length() {
        for bytes in 0..=300 {
            let name = "x".repeat(bytes);
            let mut out = Vec::new();
            write_description(&mut out, 5, &name);
            assert!(packets(&out).all(|packet| packet.is_ok()));
            let theirs = SourceDescription::unmarshal(&mut &out[..]).unwrap();
            assert_eq!(theirs.chunks[0].source, 5);
            assert_eq!(theirs.chunks[0].items[0].text.len(), bytes.min(255));
        }
    }

    #[test]
    fn picture_loss_is_what_others_write() {
        let mut out = Vec::new();
        write_pli(&mut out, 1, 2);
        assert_eq!(out, PictureLossIndication { sender_ssrc: 1, media_ssrc: 2 }.marshal().unwrap());
        assert!(matches!(packets(&out).next(), Some(Ok(Packet::PictureLoss { media_ssrc: 2 }))));
    }

    #[test]
    fn a_long_nack_is_cut_to_a_datagram() {
        let lost: Vec<u16> = (0..1_000).map(|n| n * 40).collect();
        let mut out = Vec::new();
        write_nack(&mut out, 1, 2, &lost);
        assert_eq!(out.len(), 12 + NACK_PAIRS_MAX * 4);
        let Some(Ok(Packet::Nack { lost: read, .. })) = packets(&out).next() else { panic!() };
        assert!(read.eq(lost[..NACK_PAIRS_MAX].iter().copied()));
    }

    proptest! {
        #[test]
        fn nacks_read_back_here_and_elsewhere(start in any::<u16>(), steps in proptest::collection::vec(1u16..40, 1..100)) {
            let lost: Vec<u16> = steps
                .iter()
                .scan(start, |at, step| {
                    *at = at.wrapping_add(*step);
                    Some(*at)
                })
                .collect();
            let mut out = Vec::new();
            write_nack(&mut out, 1, 2, &lost);
            let Some(Ok(Packet::Nack { media_ssrc: 2, lost: read })) = packets(&out).next() else { panic!() };
            prop_assert_eq!(read.collect::<Vec<_>>(), lost.clone());
            let theirs = TransportLayerNack::unmarshal(&mut &out[..]).unwrap();
            let theirs: Vec<u16> = theirs.nacks.iter().flat_map(|pair| pair.packet_list()).collect();
            prop_assert_eq!(theirs, lost);
        }
    }
}
