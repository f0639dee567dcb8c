use plenary_model::MediaKind;
use proptest::prelude::*;

use super::*;

const SSRC: u32 = 77;
const RTT: Duration = Duration::from_millis(40);

fn stream(codec: Codec) -> Stream {
    let clock_rate = if codec.kind() == MediaKind::Audio { 48_000 } else { 90_000 };
    Stream::new(StreamConfig { ssrc: SSRC, codec, clock_rate, repair: Repair::Requested, dependency_id: None })
}

fn packet(payload_type: u8, sequence: u16, timestamp: u32, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn receive(stream: &mut Stream, now: Instant, packet: &[u8]) -> Result<Ingested, DropReason> {
    stream.receive(now, now, &Header::parse(packet).unwrap(), packet)
}

fn nacks(stream: &mut Stream, now: Instant) -> Vec<u16> {
    let mut out = Vec::new();
    stream.due_nacks(now, RTT, &mut out);
    out
}

#[test]
fn indices_continue_over_the_wrap() {
    let mut stream = stream(Codec::Audio);
    let now = Instant::now();
    let indices: Vec<u64> = [65_534u16, 65_535, 0, 1, 65_533]
        .map(|sequence| receive(&mut stream, now, &packet(111, sequence, 0, SSRC, b"x")).unwrap().index)
        .into();
    assert_eq!(indices, [131_070, 131_071, 131_072, 131_073, 131_069]);
}

#[test]
fn a_packet_is_taken_once() {
    let mut stream = stream(Codec::Audio);
    let now = Instant::now();
    let first = packet(111, 5, 0, SSRC, b"x");
    receive(&mut stream, now, &first).unwrap();
    assert_eq!(receive(&mut stream, now, &first), Err(DropReason::Duplicate));
    receive(&mut stream, now, &packet(111, 2_000, 0, SSRC, b"x")).unwrap();
    assert_eq!(receive(&mut stream, now, &first), Err(DropReason::TooOld));
}

#[test]
fn a_keyframe_is_told() {
    let mut stream = stream(Codec::Vp8);
    let now = Instant::now();
    assert!(receive(&mut stream, now, &packet(96, 1, 0, SSRC, &[0x10, 0x00])).unwrap().frame.keyframe);
    assert!(!receive(&mut stream, now, &packet(96, 2, 0, SSRC, &[0x10, 0x01])).unwrap().frame.keyframe);
}

#[test]
fn encrypted_payloads_are_taken_whatever_they_hold() {
    for codec in [Codec::Audio, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
        let mut stream = stream(codec);
        for byte in 0..=255u8 {
            let packet = packet(96, byte.into(), 0, SSRC, &[byte, !byte]);
            assert!(receive(&mut stream, Instant::now(), &packet).is_ok());
        }
    }
}

#[test]
fn padding_is_named() {
    let mut stream = stream(Codec::Vp8);
    let mut probe = packet(96, 1, 0, SSRC, &[0, 0, 0, 4]);
    probe[0] |= 0x20;
    let ingested = receive(&mut stream, Instant::now(), &probe).unwrap();
    assert_eq!(ingested.content, Content::PaddingOnly);
    assert_eq!(stream.last_heard(), None, "padding does not make a layer alive");
}

#[test]
fn a_lost_packet_is_asked_for_and_repaired_over_rtx() {
    let mut stream = stream(Codec::Vp8);
    let start = Instant::now();
    for sequence in [10, 11, 13] {
        receive(&mut stream, start, &packet(96, sequence, 90, SSRC, &[0x00, sequence as u8])).unwrap();
    }
    let due = stream.nack_deadline().unwrap();
    assert_eq!(nacks(&mut stream, due), [12]);

    // With an extension and padding, neither of which may get lost or stay.
    let mut rtx = vec![0xb0, 0x80 | 97, 0, 1, 0, 0, 0, 90, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x40, b'm', 0, 0];
    rtx.extend_from_slice(&[0, 12, 0x00, 12, 0, 2]);
    let header = Header::parse(&rtx).unwrap();
    let mut scratch = Vec::new();
    let Ok(Rtx::Repaired { header, ingested }) = stream.receive_rtx(due, &header, &rtx, 96, &mut scratch) else {
        panic!()
    };
    assert_eq!((header.sequence, header.payload_type, header.ssrc, header.marker), (12, 96, SSRC, true));
    assert_eq!(header.text(&scratch, 4), Some("m"));
    assert_eq!(header.payload_of(&scratch), [0x00, 12]);
    assert_eq!(stream.store().get(ingested.index), Some(&scratch[..]));
    assert_eq!(stream.nack_deadline(), None);
    let report = stream.report_block(due).unwrap();
    assert_eq!(report.cumulative_lost, 1, "a repaired packet was still lost on the way");
}

#[test]
fn rtx_probes_are_named_and_not_forwarded() {
    let mut stream = stream(Codec::Vp8);
    let now = Instant::now();
    receive(&mut stream, now, &packet(96, 10, 0, SSRC, &[0x00, 1])).unwrap();
    let mut scratch = Vec::new();
    let mut padding = packet(97, 1, 0, 1, &[0, 0, 3]);
    padding[0] |= 0x20;
    let again = packet(97, 2, 0, 1, &[0, 10, 0x00, 1]);
    let short = packet(97, 3, 0, 1, &[7]);
    for probe in [padding, again, short] {
        let header = Header::parse(&probe).unwrap();
        assert_eq!(stream.receive_rtx(now, &header, &probe, 96, &mut scratch), Ok(Rtx::Probe), "{probe:?}");
    }
}

#[test]
fn reports_follow_the_network() {
    let mut stream = stream(Codec::Audio);
    let start = Instant::now();
    assert_eq!(stream.report_block(start), None);
    stream.on_sender_report(start, 0x1111_2222_3333_4444, 0);
    for n in 0..100u16 {
        if n % 4 != 3 {
            let now = start + Duration::from_millis(u64::from(n) * 20);
            receive(&mut stream, now, &packet(111, n, u32::from(n) * 960, SSRC, b"x")).unwrap();
        }
    }
    let report = stream.report_block(start + Duration::from_secs(2)).unwrap();
    assert_eq!((report.ssrc, report.highest_sequence), (SSRC, 98));
    assert_eq!((report.cumulative_lost, report.fraction_lost), (24, 62));
    assert_eq!((report.last_report, report.delay_since), (0x2222_3333, 2 << 16));
    assert_eq!(report.jitter, 0, "packets came exactly in time");
    let quiet = stream.report_block(start + Duration::from_secs(3)).unwrap();
    assert_eq!((quiet.cumulative_lost, quiet.fraction_lost), (24, 0));
}

#[test]
fn jitter_settles_at_the_mean_deviation() {
    let mut stream = stream(Codec::Audio);
    let start = Instant::now();
    for n in 0..500u16 {
        // Every other packet is 5 ms late: successive spacings differ by 240 units.
        let late = if n % 2 == 0 { 0 } else { 5 };
        let now = start + Duration::from_millis(u64::from(n) * 20 + late);
        receive(&mut stream, now, &packet(111, n, u32::from(n) * 960, SSRC, b"x")).unwrap();
    }
    let jitter = stream.report_block(start).unwrap().jitter;
    assert!((235..=240).contains(&jitter), "{jitter}");
}

#[test]
fn a_repaired_or_late_packet_is_not_asked_for_again() {
    let mut stream = stream(Codec::Vp8);
    let start = Instant::now();
    for sequence in [1, 4, 2] {
        receive(&mut stream, start, &packet(96, sequence, 0, SSRC, &[0, 0])).unwrap();
    }
    assert_eq!(nacks(&mut stream, start + Duration::from_millis(5)), [3]);
}

proptest! {
    /// Whatever the network does to a stream, each packet is taken at most once and its index names its bytes.
    #[test]
    fn each_packet_is_taken_at_most_once(
        first in any::<u16>(),
        offsets in proptest::collection::vec(0u16..600, 1..300),
    ) {
        let mut stream = stream(Codec::Vp8);
        let now = Instant::now();
        let mut taken = std::collections::BTreeMap::new();
        for offset in offsets {
            let sequence = first.wrapping_add(offset);
            let packet = packet(96, sequence, 0, SSRC, &sequence.to_be_bytes());
            match receive(&mut stream, now, &packet) {
                Ok(ingested) => {
                    prop_assert_eq!(ingested.index as u16, sequence);
                    prop_assert!(taken.insert(ingested.index, packet).is_none());
                }
                Err(reason) => prop_assert_eq!(reason, DropReason::Duplicate),
            }
        }
        let newest = *taken.keys().last().unwrap();
        for (index, packet) in taken.iter().filter(|(index, _)| **index + 512 > newest) {
            prop_assert_eq!(stream.store().get(*index), Some(packet.as_slice()));
        }
    }
}
