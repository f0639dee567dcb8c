//! What one subscription does, case by case; what must hold in any case is in `continuity`.

mod continuity;
mod layers;

use super::*;
use crate::{
    ingress::{Repair as Repairing, Stream, StreamConfig},
    rtp::vp8,
};

const FRAME: Duration = Duration::from_millis(33);
/// Index of the first packet of [`video_world`]'s first layer.
const FIRST: u64 = 65_536 + 65_500;
const RTT: Duration = Duration::from_millis(50);
const OUT_SSRC: u32 = 0xd0d0;
const RTX_SSRC: u32 = 0xd1d1;
const NO_MID: OutgoingHeader = OutgoingHeader {
    mid: String::new(),
    mid_id: None,
    transport_sequence_id: None,
    audio_level: None,
    dependency: None,
};

fn config(codec: Codec) -> ForwarderConfig {
    ForwarderConfig {
        codec,
        layering: Layering::Simulcast,
        clock_rate: if codec == Codec::Audio { 48_000 } else { 90_000 },
        ssrc: OUT_SSRC,
        payload_type: 120,
        red: None,
        rtx: None,
        header: OutgoingHeader {
            mid: "7".into(),
            mid_id: Some(4),
            transport_sequence_id: Some(3),
            audio_level: Some(PassedExtension { from: 9, to: 1 }),
            dependency: None,
        },
        cuts_trailers: false,
        first_sequence: 0xffff,
    }
}

/// One layer of a publisher, with its own clock base and counters, and the stream that takes it in.
struct Layer {
    id: StreamId,
    ssrc: u32,
    sequence: u16,
    timestamp_base: u32,
    picture_id: u16,
    base_layer_index: u8,
    stream: Stream,
}

impl Layer {
    fn new(id: u8, sequence: u16, timestamp_base: u32, codec: Codec) -> Self {
        let ssrc = 100 + u32::from(id);
        let clock_rate = if codec == Codec::Audio { 48_000 } else { 90_000 };
        Self {
            id: StreamId(id),
            ssrc,
            sequence,
            timestamp_base,
            picture_id: 0x7ff0 + u16::from(id) * 3,
            base_layer_index: 250 + id,
            stream: Stream::new(StreamConfig {
                ssrc,
                codec,
                clock_rate,
                repair: Repairing::Unavailable,
                dependency_id: None,
            }),
        }
    }

    fn packet(&mut self, timestamp: u32, marker: bool, payload: &[u8]) -> Vec<u8> {
        // With an audio level under the publisher's id 9.
        let mut packet = vec![0x90, if marker { 0x80 | 96 } else { 96 }];
        packet.extend_from_slice(&self.sequence.to_be_bytes());
        packet.extend_from_slice(&timestamp.to_be_bytes());
        packet.extend_from_slice(&self.ssrc.to_be_bytes());
        packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 0x90, 0x23, 0, 0]);
        packet.extend_from_slice(payload);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    /// A VP8 frame of so many packets. Each payload ends with the layer and the time, to be found again.
    fn frame(&mut self, start: Instant, now: Instant, keyframe: bool, packets: usize) -> Vec<Vec<u8>> {
        let timestamp = self.timestamp_base.wrapping_add(ticks(now - start, 90_000));
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.base_layer_index = self.base_layer_index.wrapping_add(1);
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let at = ((now - start).as_micros() as u32).to_be_bytes();
        (0..packets)
            .map(|n| {
                let first = 0x80 | if n == 0 { 0x10 } else { 0 };
                let mut payload = vec![first, 0xc0, high, low, self.base_layer_index, u8::from(!keyframe), self.id.0];
                payload.extend_from_slice(&at);
                self.packet(timestamp, n + 1 == packets, &payload)
            })
            .collect()
    }

    fn padding(&mut self, timestamp: u32) -> Vec<u8> {
        let mut packet = self.packet(timestamp, false, &[0, 0, 0, 4]);
        packet[0] |= 0x20;
        packet
    }
}

/// A spatial layer with all its pictures.
fn all_of(spatial: u8) -> Target {
    Target::Layer(LayerId::spatial_layer(spatial))
}

fn origin(stream: &Stream) -> Origin<'_> {
    Origin { clock: stream.sender_clock(), structure: stream.structure() }
}

/// Feeds one packet through stream and forwarder, as the router does.
fn pass(forwarder: &mut Forwarder, layer: &mut Layer, now: Instant, packet: &[u8]) -> Result<(Written, Vec<u8>), Skip> {
    let header = Header::parse(packet).unwrap();
    let ingested = layer.stream.receive(now, now, &header, packet).expect("each packet is offered once");
    let rewritten = forwarder.forward(now, layer.id, origin(&layer.stream), &header, &ingested)?;
    let mut out = b"before".to_vec();
    let written = forwarder.write(&rewritten, &header, packet, |_| Some(0x5a5a), &mut out);
    Ok((written, out.split_off(6)))
}

fn audio_world() -> (Instant, Forwarder, Layer) {
    let now = Instant::now();
    let mut forwarder = Forwarder::new(now, config(Codec::Audio));
    forwarder.set_target(all_of(0));
    (now, forwarder, Layer::new(0, 65_530, 5_000, Codec::Audio))
}

fn video_world(layers: u8) -> (Instant, Forwarder, Vec<Layer>) {
    let now = Instant::now();
    let forwarder = Forwarder::new(now, config(Codec::Vp8));
    let layers = (0..layers).map(|id| Layer::new(id, 65_500 + u16::from(id), u32::MAX / 3 * u32::from(id), Codec::Vp8));
    (now, forwarder, layers.collect())
}

fn timestamp_of(packet: &[u8]) -> u32 {
    Header::parse(packet).unwrap().timestamp
}

#[test]
fn an_audio_packet_is_rewritten_for_its_subscriber() {
    let (now, mut forwarder, mut layer) = audio_world();
    let packet = layer.packet(5_000, true, b"opus");
    let (written, out) = pass(&mut forwarder, &mut layer, now, &packet).unwrap();
    let header = Header::parse(&out).unwrap();
    assert_eq!((header.ssrc, header.payload_type, header.sequence, header.marker), (OUT_SSRC, 120, 0x7fff, true));
    assert_eq!((header.text(&out, 4), header.transport_sequence(&out, 3)), (Some("7"), Some(0x5a5a)));
    assert_eq!(header.audio_level(&out, 1).map(|level| level.below_overload_db), Some(0x23));
    assert_eq!(header.payload_of(&out), b"opus");
    let expected = Written { ssrc: OUT_SSRC, extended: 0x7fff, header_bytes: header.header_bytes() };
    assert_eq!(written, expected);
}

#[test]
fn redundant_audio_is_passed_on_or_unwrapped() {
    // One redundant block of three bytes, the primary of two, of payload type 111.
    let wrapped = [0xef, 0x0f, 0x00, 0x03, 0x6f, 1, 2, 3, 8, 9];
    for (to, payload_type, payload) in
        [(Some(63), 63, &[0xf8, 0x0f, 0x00, 0x03, 0x78, 1, 2, 3, 8, 9][..]), (None, 120, &[8, 9])]
    {
        let (now, _, layer) = audio_world();
        let red = Some(Red { from: 96, to });
        let mut forwarder = Forwarder::new(now, ForwarderConfig { red, ..config(Codec::Audio) });
        forwarder.set_target(all_of(0));
        let mut layers = [layer];
        let packet = layers[0].packet(5_000, false, &wrapped);
        let (_, out) = pass(&mut forwarder, &mut layers[0], now, &packet).unwrap();
        let header = Header::parse(&out).unwrap();
        assert_eq!((header.payload_type, header.payload_of(&out)), (payload_type, payload));
        // The repair asks for a transport-wide number of its own only with RTX.
        let (_, again) = repair(&mut forwarder, &layers, now, 0x7fff).unwrap();
        assert_eq!(again, out);
        // A packet that is not wrapped, as at the beginning of speech.
        let mut plain = layers[0].packet(5_960, false, b"opus");
        plain[1] = 97;
        let (_, out) = pass(&mut forwarder, &mut layers[0], now, &plain).unwrap();
        let header = Header::parse(&out).unwrap();
        assert_eq!((header.payload_type, header.payload_of(&out)), (120, &b"opus"[..]));
        let broken = layers[0].packet(6_920, false, &[0xef, 0x0f, 0x03, 0xff]);
        let (written, out) = pass(&mut forwarder, &mut layers[0], now, &broken).unwrap();
        assert_eq!(to.is_none(), Header::parse(&out).unwrap().payload_of(&out).is_empty());
        assert_eq!(written.extended, 0x8001, "its number is taken");
    }
}

#[test]
fn the_mid_goes_along_until_something_was_acknowledged() {
    let (now, mut forwarder, mut layer) = audio_world();
    let mut mid = |forwarder: &mut Forwarder| {
        let packet = layer.packet(0, false, b"x");
        let (_, out) = pass(forwarder, &mut layer, now, &packet).unwrap();
        Header::parse(&out).unwrap().text(&out, 4).map(str::to_owned)
    };
    assert_eq!(mid(&mut forwarder), Some("7".into()));
    assert_eq!(mid(&mut forwarder), Some("7".into()));
    forwarder.acknowledged();
    assert_eq!(mid(&mut forwarder), None);
}

#[test]
fn the_stamp_is_told_the_size_of_the_packet() {
    let (now, mut forwarder, mut layer) = audio_world();
    let packet = layer.packet(0, false, b"opus");
    let header = Header::parse(&packet).unwrap();
    let ingested = layer.stream.receive(now, now, &header, &packet).unwrap();
    let rewritten = forwarder.forward(now, layer.id, Origin::default(), &header, &ingested).unwrap();
    let (mut out, mut told) = (Vec::new(), 0);
    let stamp = |bytes| {
        told = bytes;
        Some(1)
    };
    forwarder.write(&rewritten, &header, &packet, stamp, &mut out);
    assert_eq!(told, out.len());
}

#[test]
fn long_elements_and_high_ids_take_the_two_byte_form() {
    let (now, _, mut layer) = audio_world();
    for (mid, id) in [("a-section-name-over-sixteen-bytes", 4), ("0", 20)] {
        let header = OutgoingHeader { mid: mid.into(), mid_id: Some(id), ..config(Codec::Audio).header };
        let mut forwarder = Forwarder::new(now, ForwarderConfig { header, ..config(Codec::Audio) });
        forwarder.set_target(all_of(0));
        let packet = layer.packet(0, false, b"x");
        let (_, out) = pass(&mut forwarder, &mut layer, now, &packet).unwrap();
        let header = Header::parse(&out).unwrap();
        assert_eq!((header.text(&out, id), header.transport_sequence(&out, 3)), (Some(mid), Some(0x5a5a)));
        assert_eq!(header.payload_of(&out), b"x");
    }
}

#[test]
fn without_negotiated_extensions_there_is_no_block() {
    let (now, _, mut layer) = audio_world();
    let mut forwarder = Forwarder::new(now, ForwarderConfig { header: NO_MID, ..config(Codec::Audio) });
    forwarder.set_target(all_of(0));
    let packet = layer.packet(0, false, b"x");
    let (written, out) = pass(&mut forwarder, &mut layer, now, &packet).unwrap();
    assert_eq!((written.header_bytes, out.len()), (12, 13));
}

#[test]
fn loss_stays_a_gap_and_a_late_packet_fills_it() {
    let (now, mut forwarder, mut layer) = audio_world();
    let packets: Vec<_> = (0..8).map(|n| layer.packet(n * 960, false, b"x")).collect();
    let mut sent = |n: usize| pass(&mut forwarder, &mut layer, now, &packets[n]).unwrap().0.extended - 0x7fff;
    assert_eq!([0, 1, 3, 6, 4, 2, 7].map(&mut sent), [0, 1, 3, 6, 4, 2, 7]);
}

#[test]
fn padding_in_order_leaves_no_gap_and_late_padding_fills_its_own() {
    let (now, mut forwarder, mut layers) = video_world(1);
    let layer = &mut layers[0];
    forwarder.set_target(all_of(0));
    let key = layer.frame(now, now, true, 1).remove(0);
    let paddings: Vec<_> = (0..3).map(|_| layer.padding(0)).collect();
    let after = layer.frame(now, now + FRAME, false, 1).remove(0);
    let late = layer.padding(0);
    let last = layer.frame(now, now + 2 * FRAME, false, 1).remove(0);
    let lost = layer.frame(now, now + 3 * FRAME, false, 1).remove(0);
    let cut = layer.padding(0);
    let end = layer.frame(now, now + 4 * FRAME, false, 1).remove(0);

    let mut sent = |packet: &Vec<u8>| {
        pass(&mut forwarder, layer, now, packet)
            .map(|(written, out)| (written.extended - 0x7fff, Header::parse(&out).unwrap().payload().is_empty()))
    };
    assert_eq!(sent(&key), Ok((0, false)));
    assert_eq!(sent(&paddings[0]), Err(Skip::PaddingOnly));
    assert_eq!(sent(&paddings[2]), Err(Skip::PaddingOnly));
    assert_eq!(sent(&after), Ok((2, false)), "the second padding is still missing");
    assert_eq!(sent(&paddings[1]), Ok((1, true)), "so it fills its place, empty");
    assert_eq!(sent(&last), Ok((4, false)));
    assert_eq!(sent(&late), Ok((3, true)));
    assert_eq!(sent(&cut), Err(Skip::PaddingOnly));
    assert_eq!(sent(&end), Ok((6, false)));
    assert_eq!(sent(&lost), Ok((5, false)), "from before the padding that was cut");
}

#[test]
fn a_late_packet_behind_padding_takes_its_number_unless_a_switch_took_it() {
    for switches in [false, true] {
        let (now, mut forwarder, mut layers) = video_world(2);
        let [low, high] = &mut layers[..] else { panic!() };
        forwarder.set_target(all_of(0));
        let key = low.frame(now, now, true, 1).remove(0);
        let late = low.frame(now, now + FRAME, false, 1).remove(0);
        let padding = low.padding(0);
        let switch = high.frame(now, now + FRAME, true, 1).remove(0);
        assert_eq!(pass(&mut forwarder, low, now, &key).unwrap().0.extended, 0x7fff);
        assert_eq!(pass(&mut forwarder, low, now, &padding).unwrap_err(), Skip::PaddingOnly);
        assert_eq!(forwarder.repair(now, RTT, 0x8000).unwrap_err(), NotRepaired::Unknown, "its number is not final");
        if switches {
            forwarder.set_target(all_of(1));
            assert_eq!(pass(&mut forwarder, high, now, &switch).unwrap().0.extended, 0x8000);
            assert_eq!(pass(&mut forwarder, low, now, &late).unwrap_err(), Skip::BeforeSwitch);
        } else {
            assert_eq!(pass(&mut forwarder, low, now, &late).unwrap().0.extended, 0x8000);
        }
    }
}

#[test]
fn video_begins_and_switches_at_keyframes_only() {
    let (start, mut forwarder, mut layers) = video_world(2);
    forwarder.set_target(all_of(0));
    assert_eq!(forwarder.needs_keyframe(), Some(StreamId(0)));
    let mut run = |forwarder: &mut Forwarder, layer: usize, frame: u32, keyframe: bool| {
        let now = start + FRAME * frame;
        let packet = layers[layer].frame(start, now, keyframe, 1).remove(0);
        pass(forwarder, &mut layers[layer], now, &packet).map(|(written, out)| {
            let header = Header::parse(&out).unwrap();
            let vp8 = vp8::Descriptor::parse(header.payload_of(&out)).unwrap();
            (written.extended - 0x7fff, vp8.picture_id.unwrap().value, vp8.base_layer_index.unwrap().value)
        })
    };
    assert_eq!(run(&mut forwarder, 0, 0, false), Err(Skip::AwaitingKeyframe));
    assert_eq!(run(&mut forwarder, 0, 1, true), Ok((0, 0x7ff2, 252)));
    assert_eq!(run(&mut forwarder, 1, 1, true), Err(Skip::OtherLayer));
    assert_eq!((forwarder.needs_keyframe(), forwarder.current_stream()), (None, Some(StreamId(0))));

    forwarder.set_target(all_of(1));
    assert_eq!(forwarder.needs_keyframe(), Some(StreamId(1)));
    assert_eq!(run(&mut forwarder, 0, 2, false), Ok((1, 0x7ff3, 253)), "the old layer goes on meanwhile");
    assert_eq!(run(&mut forwarder, 1, 2, false), Err(Skip::AwaitingKeyframe));
    assert_eq!(run(&mut forwarder, 1, 3, true), Ok((2, 0x7ff4, 254)));
    assert_eq!(run(&mut forwarder, 0, 3, false), Err(Skip::OtherLayer));
    assert_eq!((forwarder.needs_keyframe(), forwarder.current_stream()), (None, Some(StreamId(1))));
}

#[test]
fn a_late_packet_of_the_layer_left_behind_still_fills_its_gap() {
    let (now, mut forwarder, mut layers) = video_world(2);
    let [low, high] = &mut layers[..] else { panic!() };
    forwarder.set_target(all_of(0));
    let old = low.frame(now, now, true, 4);
    pass(&mut forwarder, low, now, &old[0]).unwrap();
    pass(&mut forwarder, low, now, &old[2]).unwrap();
    forwarder.set_target(all_of(1));
    let before = high.frame(now, now, false, 1).remove(0);
    let new = high.frame(now, now + FRAME, true, 1).remove(0);
    assert_eq!(pass(&mut forwarder, high, now + FRAME, &new).unwrap().0.extended, 0x7fff + 3);
    assert_eq!(pass(&mut forwarder, low, now + FRAME, &old[1]).unwrap().0.extended, 0x7fff + 1);
    assert_eq!(pass(&mut forwarder, low, now + FRAME, &old[3]).unwrap_err(), Skip::OtherLayer);
    assert_eq!(pass(&mut forwarder, high, now + FRAME, &before).unwrap_err(), Skip::BeforeSwitch);
}

#[test]
fn after_a_pause_the_stream_goes_on_without_a_jump() {
    let (start, mut forwarder, mut layers) = video_world(1);
    let layer = &mut layers[0];
    let target = all_of(0);
    forwarder.set_target(target);
    let mut frame = |forwarder: &mut Forwarder, number: u32, keyframe: bool| {
        let now = start + FRAME * number;
        let packet = layer.frame(start, now, keyframe, 1).remove(0);
        pass(forwarder, layer, now, &packet).map(|(written, out)| (written.extended - 0x7fff, timestamp_of(&out)))
    };
    let first = frame(&mut forwarder, 0, true).unwrap().1;
    forwarder.set_muted(true);
    assert_eq!(frame(&mut forwarder, 1, false), Err(Skip::Paused));
    assert_eq!(forwarder.needs_keyframe(), None, "a muted subscription needs nothing");
    forwarder.set_muted(false);
    assert_eq!(forwarder.needs_keyframe(), Some(StreamId(0)));
    assert_eq!(frame(&mut forwarder, 2, false), Err(Skip::AwaitingKeyframe));
    assert_eq!(frame(&mut forwarder, 300, true), Ok((1, first.wrapping_add(300 * 2_970))));
    forwarder.set_target(Target::Off);
    assert_eq!(frame(&mut forwarder, 301, true), Err(Skip::Paused));
    forwarder.set_target(target);
    assert_eq!(frame(&mut forwarder, 302, true), Ok((2, first.wrapping_add(302 * 2_970))));
}

#[test]
fn muted_audio_resumes_with_the_next_packet() {
    let (now, mut forwarder, mut layer) = audio_world();
    let packets: Vec<_> = (0..100).map(|n| layer.packet(n * 960, false, b"x")).collect();
    for (n, packet) in packets.iter().enumerate() {
        let now = now + Duration::from_millis(20) * n as u32;
        forwarder.set_muted((10..90).contains(&n));
        let sent = pass(&mut forwarder, &mut layer, now, packet).map(|(written, _)| written.extended - 0x7fff);
        match n {
            0..10 => assert_eq!(sent, Ok(n as u64)),
            10..90 => assert_eq!(sent, Err(Skip::Paused)),
            _ => assert_eq!(sent, Ok(n as u64 - 80)),
        }
    }
}

#[test]
fn a_jump_of_the_publishers_numbers_does_not_eat_the_subscribers() {
    let (now, mut forwarder, mut layer) = audio_world();
    let first = layer.packet(0, false, b"x");
    layer.sequence = layer.sequence.wrapping_add(20_000);
    let second = layer.packet(960, false, b"x");
    assert_eq!(pass(&mut forwarder, &mut layer, now, &first).unwrap().0.extended, 0x7fff);
    assert_eq!(pass(&mut forwarder, &mut layer, now, &second).unwrap().0.extended, 0x8000);
}

#[test]
fn a_replaced_stream_continues_at_its_keyframe() {
    let (start, mut forwarder, mut layers) = video_world(1);
    forwarder.set_target(all_of(0));
    let packet = layers[0].frame(start, start, true, 1).remove(0);
    let first = pass(&mut forwarder, &mut layers[0], start, &packet).unwrap().1;
    let mut replaced = Layer { ssrc: 999, ..Layer::new(0, 7, 77, Codec::Vp8) };
    let now = start + Duration::from_secs(2);
    let delta = replaced.frame(start, now, false, 1).remove(0);
    assert_eq!(pass(&mut forwarder, &mut replaced, now, &delta).unwrap_err(), Skip::AwaitingKeyframe);
    assert_eq!(forwarder.needs_keyframe(), Some(StreamId(0)));
    let key = replaced.frame(start, now, true, 1).remove(0);
    let (written, out) = pass(&mut forwarder, &mut replaced, now, &key).unwrap();
    assert_eq!(written.extended, 0x8000);
    assert_eq!(timestamp_of(&out).wrapping_sub(timestamp_of(&first)), 180_000, "by the time between the arrivals");
}

/// Timestamps over a switch: name, sender reports of both (NTP seconds, timestamp), source timestamps, wait, advance.
#[test]
fn timestamps_are_aligned_by_sender_reports_when_they_make_sense() {
    type Report = Option<(u64, u32)>;
    type Case = (&'static str, Report, Report, u32, u32, u64, u32);
    let cases: [Case; 6] = [
        ("no reports: the time that passed", None, None, 0, 500_000, 100, 9_000),
        ("both: what the reports say", Some((10, 0)), Some((10, 500_000)), 1_000, 508_000, 100, 7_000),
        ("reports at different times", Some((10, 0)), Some((11, 590_000)), 1_000, 508_000, 100, 7_000),
        ("across the wrap", Some((10, u32::MAX - 999)), Some((10, 0)), 0, 9_000, 100, 8_000),
        ("a lagging layer never goes back", Some((10, 0)), Some((10, 500_000)), 5_000, 503_000, 100, 1),
        ("nonsense is not believed", Some((10, 0)), Some((9_999, 0)), 0, 500_000, 100, 9_000),
    ];
    for (name, old, new, from, to, wait_ms, advance) in cases {
        let (start, mut forwarder, mut layers) = video_world(2);
        for (layer, report) in layers.iter_mut().zip([old, new]) {
            if let Some((seconds, rtp)) = report {
                layer.stream.on_sender_report(start, seconds << 32, rtp);
            }
        }
        let [low, high] = &mut layers[..] else { panic!() };
        forwarder.set_target(all_of(0));
        let packet = low.packet(from, true, &[0x10, 0x00]);
        let first = timestamp_of(&pass(&mut forwarder, low, start, &packet).unwrap().1);
        forwarder.set_target(all_of(1));
        let packet = high.packet(to, true, &[0x10, 0x00]);
        let now = start + Duration::from_millis(wait_ms);
        let second = timestamp_of(&pass(&mut forwarder, high, now, &packet).unwrap().1);
        assert_eq!(second.wrapping_sub(first), advance, "{name}");
    }
}

#[test]
fn sender_reports_carry_the_publishers_clock_and_answer_with_a_round_trip() {
    let (start, mut forwarder, mut layers) = video_world(1);
    forwarder.set_target(all_of(0));
    let layer = &mut layers[0];
    layer.stream.on_sender_report(start, 100 << 32, 4_000);
    assert_eq!(forwarder.sender_report(start), None, "nothing flows");
    let packet = layer.packet(5_000, true, &[0x10, 0x00]);
    pass(&mut forwarder, layer, start, &packet).unwrap();
    let now = start + Duration::from_millis(1_500);
    let report = forwarder.sender_report(now).unwrap();
    assert_eq!(report, SenderInfo { ntp: 0x65_8000_0000, rtp: 4_000 + 135_000, packets: 1, octets: 2 });
    let block = ReportBlock { last_report: 0x65_8000, delay_since: 1 << 15, ..ReportBlock::default() };
    let later = now + Duration::from_millis(530);
    assert_eq!(forwarder.round_trip(later, &block), Some(Duration::from_millis(30)));
    let stale = ReportBlock { last_report: 1, ..block };
    assert_eq!(forwarder.round_trip(later, &stale), None);
}

/// Repairs `sequence` and yields the bytes.
fn repair(
    forwarder: &mut Forwarder,
    layers: &[Layer],
    now: Instant,
    sequence: u16,
) -> Result<(Written, Vec<u8>), NotRepaired> {
    let repair = forwarder.repair(now, RTT, sequence)?;
    let layer = layers.iter().find(|layer| layer.ssrc == repair.source_ssrc).unwrap();
    let packet = layer.stream.store().get(repair.index).ok_or(NotRepaired::Unknown)?;
    let mut out = Vec::new();
    let written = forwarder
        .write_repair(now, &repair, (packet, layer.stream.frame_number(packet)), |_| Some(0x7777), &mut out)
        .unwrap();
    Ok((written, out))
}

#[test]
fn a_packet_is_repaired_once_per_round_trip() {
    let (now, mut forwarder, layer) = audio_world();
    let mut layers = [layer];
    let packet = layers[0].packet(0, false, b"x");
    pass(&mut forwarder, &mut layers[0], now, &packet).unwrap();
    assert!(repair(&mut forwarder, &layers, now, 0x7fff).is_ok());
    assert_eq!(repair(&mut forwarder, &layers, now + RTT / 2, 0x7fff), Err(NotRepaired::TooSoon));
    assert!(repair(&mut forwarder, &layers, now + RTT, 0x7fff).is_ok());
    assert_eq!(repair(&mut forwarder, &layers, now, 0x8000), Err(NotRepaired::Unknown), "not sent yet");
    assert_eq!(repair(&mut forwarder, &layers, now, 0x7ffe), Err(NotRepaired::Unknown), "never sent");
}

#[test]
fn the_rest_of_a_keyframe_that_came_before_its_first_packet_is_had_for_the_asking() {
    let (now, mut forwarder, mut layers) = video_world(1);
    forwarder.set_target(all_of(0));
    let frame = layers[0].frame(now, now, true, 3);
    let next = layers[0].frame(now, now + FRAME, false, 1).remove(0);
    assert_eq!(pass(&mut forwarder, &mut layers[0], now, &frame[1]).unwrap_err(), Skip::AwaitingKeyframe);
    assert!(pass(&mut forwarder, &mut layers[0], now, &frame[0]).is_ok());
    assert_eq!(repair(&mut forwarder, &layers, now, 0x8000), Err(NotRepaired::Unknown), "nothing came after it yet");
    assert_eq!(pass(&mut forwarder, &mut layers[0], now, &next).unwrap().0.extended, 0x7fff + 3);
    let (written, out) = repair(&mut forwarder, &layers, now, 0x8000).unwrap();
    assert_eq!(written.extended, 0x8000);
    assert_eq!(Header::parse(&out).unwrap().payload_of(&out)[5..], frame[1][frame[1].len() - 6..]);
    assert_eq!(forwarder.repair(now, RTT, 0x8001).unwrap().index, FIRST + 2);
    assert!(layers[0].stream.store().get(FIRST + 2).is_none(), "the last packet is still on its way");
    assert_eq!(pass(&mut forwarder, &mut layers[0], now, &frame[2]).unwrap().0.extended, 0x7fff + 2);
}

#[test]
fn a_storm_of_nacks_is_cut_at_the_budget() {
    let (now, mut forwarder, mut layers) = video_world(1);
    forwarder.set_target(all_of(0));
    for n in 0..400u32 {
        let mut payload = vec![0x10, u8::from(n > 0)];
        payload.resize(1_100, 7);
        let packet = layers[0].packet(n, false, &payload);
        pass(&mut forwarder, &mut layers[0], now, &packet).unwrap();
    }
    let mut bytes = 0;
    for ms in 0..1_000u64 {
        for sequence in 0..400u16 {
            let now = now + Duration::from_millis(ms);
            bytes += repair(&mut forwarder, &layers, now, 0x7fff + sequence).map_or(0, |(_, out)| out.len() as i64);
        }
    }
    let budget = history::REPAIR_BURST_BYTES + history::REPAIR_BYTES_PER_SECOND;
    assert!(bytes > budget / 2 && bytes <= budget + 1_200, "{bytes} of {budget}");
}

#[test]
fn rewriting_is_idempotent_on_its_own_output() {
    let (now, mut forwarder, layer) = audio_world();
    let mut layers = [layer];
    let packet = layers[0].packet(0, true, b"opus");
    let (_, once) = pass(&mut forwarder, &mut layers[0], now, &packet).unwrap();
    // The same configuration, fed with what it wrote: its own audio level now has id 1.
    let same = OutgoingHeader { audio_level: Some(PassedExtension { from: 1, to: 1 }), ..config(Codec::Audio).header };
    let mut again = Forwarder::new(now, ForwarderConfig { header: same, ..config(Codec::Audio) });
    again.set_target(all_of(0));
    let mut layer = Layer::new(0, 0, 0, Codec::Audio);
    let (_, twice) = pass(&mut again, &mut layer, now, &once).unwrap();
    assert_eq!(once, twice);
}

#[test]
fn hostile_payloads_never_panic() {
    let (now, mut forwarder, mut layers) = video_world(1);
    forwarder.set_target(all_of(0));
    for first in 0..=255u8 {
        for length in 0..8 {
            let packet = layers[0].packet(0, false, &vec![first; length]);
            let _ = pass(&mut forwarder, &mut layers[0], now, &packet);
        }
    }
}
