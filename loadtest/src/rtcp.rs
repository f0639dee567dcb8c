//! The reports that a client writes, and the little it reads of the server's.

use std::time::{SystemTime, UNIX_EPOCH};

/// What a server's compound packet says that concerns us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// From this stream's sender: the middle of its NTP time.
    SenderReport {
        ssrc: u32,
        ntp: u32,
    },
    /// A key picture of this stream is wanted.
    KeyWanted {
        ssrc: u32,
    },
    Nack,
}

/// Reads a compound packet.
pub fn read(mut packet: &[u8], mut heard: impl FnMut(Heard)) {
    while let [first, kind, high, low, ..] = *packet {
        let bytes = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        let Some((block, rest)) = packet.split_at_checked(bytes) else { return };
        let word = |at: usize| block.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let said = match (kind, first & 0x1f) {
            (SENDER_REPORT, _) => word(4)
                .zip(word(8))
                .zip(word(12))
                .map(|((ssrc, seconds), fraction)| Heard::SenderReport { ssrc, ntp: seconds << 16 | fraction >> 16 }),
            (PAYLOAD_FEEDBACK, PLI) => word(8).map(|ssrc| Heard::KeyWanted { ssrc }),
            (PAYLOAD_FEEDBACK, FIR) => word(12).map(|ssrc| Heard::KeyWanted { ssrc }),
            (TRANSPORT_FEEDBACK, NACK) => Some(Heard::Nack),
            _ => None,
        };
        said.into_iter().for_each(&mut heard);
        packet = rest;
    }
}

/// RFC 3550 6.4.1.
pub fn sender_report(ssrc: u32, timestamp: u32, packets: u32, octets: u32) -> Vec<u8> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = (since.as_secs() + NTP_TO_UNIX_S) as u32;
    let fraction = ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000) as u32;
    words(0x80, SENDER_REPORT, &[ssrc, seconds, fraction, timestamp, packets, octets])
}

/// One stream as its receiver saw it, RFC 3550 6.4.1.
#[derive(Debug, Clone, Copy)]
pub struct ReportBlock {
    pub ssrc: u32,
    pub fraction_lost: u8,
    pub lost: u32,
    pub highest: u32,
    /// Middle of the NTP time in the last sender report, and how long ago it came in 1/65536 s.
    pub last_report: u32,
    pub since_last_report: u32,
}

/// At most 31 blocks.
pub fn receiver_report(blocks: &[ReportBlock]) -> Vec<u8> {
    let mut out = vec![OUR_SSRC];
    for block in blocks {
        let lost = u32::from(block.fraction_lost) << 24 | block.lost & 0xff_ffff;
        // Jitter is 0: nothing stands between us and the server.
        out.extend_from_slice(&[block.ssrc, lost, block.highest, 0, block.last_report, block.since_last_report]);
    }
    words(0x80 | blocks.len() as u8, RECEIVER_REPORT, &out)
}

/// Transport-wide feedback on packets that arrived, by sequence number from `first` on and arrival in microseconds
/// (draft-holmer-rmcat-transport-wide-cc-extensions-01, 3.1). Sorted, without duplicates, within 8,191 of `first`.
pub fn transport_feedback(first: u16, arrivals: &[(u16, i64)], number: u8) -> Vec<u8> {
    let (Some((_, earliest)), Some((last, _))) = (arrivals.first(), arrivals.last()) else { return Vec::new() };
    let count = last.wrapping_sub(first).wrapping_add(1);
    let reference = earliest / REFERENCE_US;
    let mut before = reference * (REFERENCE_US / DELTA_US);
    let (mut symbols, mut deltas) = (vec![0_u16; usize::from(count)], Vec::new());
    for (sequence, at_us) in arrivals {
        let ticks = at_us / DELTA_US;
        let delta = (ticks - before).clamp(i64::from(i16::MIN), i64::from(i16::MAX));
        before += delta;
        let small = u8::try_from(delta);
        match small {
            Ok(delta) => deltas.push(delta),
            Err(_) => deltas.extend_from_slice(&(delta as i16).to_be_bytes()),
        }
        if let Some(symbol) = symbols.get_mut(usize::from(sequence.wrapping_sub(first))) {
            *symbol = if small.is_ok() { 1 } else { 2 };
        }
    }
    let mut out = vec![0x8f, TRANSPORT_FEEDBACK, 0, 0];
    out.extend_from_slice(&OUR_SSRC.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(&(reference as u32).to_be_bytes()[1..]);
    out.push(number);
    if symbols.iter().all(|symbol| *symbol == 1) {
        out.extend_from_slice(&(0x2000 | count).to_be_bytes());
    } else {
        for seven in symbols.chunks(7) {
            let chunk = seven.iter().enumerate().fold(0xc000, |chunk, (at, symbol)| chunk | symbol << (12 - 2 * at));
            out.extend_from_slice(&chunk.to_be_bytes());
        }
    }
    out.extend_from_slice(&deltas);
    out.resize(out.len().next_multiple_of(4), 0);
    let words = (out.len() / 4 - 1) as u16;
    out[2..4].copy_from_slice(&words.to_be_bytes());
    out
}

fn words(first: u8, kind: u8, words: &[u32]) -> Vec<u8> {
    let mut out = vec![first, kind];
    out.extend_from_slice(&(words.len() as u16).to_be_bytes());
    out.extend(words.iter().flat_map(|word| word.to_be_bytes()));
    out
}

/// Every client may have the same: the transport says who speaks.
const OUR_SSRC: u32 = 1;
const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const NACK: u8 = 1;
const PLI: u8 = 1;
const FIR: u8 = 4;
const REFERENCE_US: i64 = 64_000;
const DELTA_US: i64 = 250;
const NTP_TO_UNIX_S: u64 = 2_208_988_800;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feedback_says_what_came_when_and_what_did_not() {
        let at = [(65_535, 640_000), (0, 640_250), (2, 720_250), (3, 720_000)];
        let feedback = transport_feedback(65_535, &at, 7);
        assert_eq!(feedback[..4], [0x8f, 205, 0, 6]);
        assert_eq!(feedback[12..16], [0xff, 0xff, 0, 5], "base and count");
        assert_eq!(feedback[16..20], [0, 0, 10, 7], "reference in 64 ms, number");
        assert_eq!(feedback[20..22], [0b1101_0100, 0b1010_0000], "small, small, lost, large, negative");
        assert_eq!(feedback[22..], [0, 1, 1, 64, 0xff, 0xff]);
        let whole = transport_feedback(8, &[(8, 0), (9, 0), (10, 500)], 0);
        assert_eq!(whole[20..], [0x20, 3, 0, 0, 2, 0, 0, 0], "one run, three deltas, padding");
    }

    #[test]
    fn requests_of_the_server_are_understood() {
        let mut packet = receiver_report(&[]);
        packet.extend(sender_report(9, 1, 2, 3));
        packet.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 5]);
        packet.extend([0x84, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 6, 1, 0, 0, 0]);
        packet.extend([0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 5, 0, 9, 0, 0]);
        let mut all = Vec::new();
        read(&packet, |heard| all.push(heard));
        let [Heard::SenderReport { ssrc: 9, ntp }, rest @ ..] = &all[..] else { panic!("{all:?}") };
        assert_ne!(*ntp, 0);
        assert_eq!(*rest, [Heard::KeyWanted { ssrc: 5 }, Heard::KeyWanted { ssrc: 6 }, Heard::Nack]);
    }
}
