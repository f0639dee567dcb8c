//! What a client received: every packet, in order and with its repairs, and the feedback it owes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rtc::{
    rtcp::{
        self,
        payload_feedbacks::{
            picture_loss_indication::PictureLossIndication,
            receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate,
        },
        receiver_report::ReceiverReport,
        reception_report::ReceptionReport,
        sender_report::SenderReport,
        transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers},
    },
    rtp,
};

use super::{
    REPORT_INTERVAL, VideoPayload,
    lines::{MID, Section, TRANSPORT_SEQUENCE},
};

/// See the module.
#[derive(Debug)]
pub struct Inbox {
    /// In the order in which they were described; a section that is used again begins another one.
    pub streams: Vec<ReceivedStream>,
    /// SSRCs that nobody described.
    pub undescribed: BTreeSet<u32>,
    sends_nacks: bool,
    /// How long it waits before it asks for the same packet again.
    pub nack_interval: Duration,
    next_report: Option<Instant>,
    asked: Vec<Box<dyn rtcp::Packet>>,
}

/// One described track.
#[derive(Debug)]
pub struct ReceivedStream {
    pub track: String,
    /// The stream id before the track's in `a=msid`.
    pub stream_id: String,
    pub mid: String,
    pub ssrc: u32,
    pub payload_type: u8,
    /// By sequence number without wraps, repairs in their place.
    pub packets: BTreeMap<u64, Received>,
    pub sender_reports: Vec<(Instant, SenderReport)>,
    /// Came more than once, over RTX or plainly.
    pub duplicates: u32,
    rtx_ssrc: Option<u32>,
    rtx_payload_type: Option<u8>,
    mid_id: Option<u8>,
    transport_sequence_id: Option<u8>,
    missing: Vec<Missing>,
    stuck: Option<Stuck>,
}

/// A packet was given up: only a key frame after it helps, which is asked for until it comes.
#[derive(Debug, Clone, Copy)]
struct Stuck {
    lost: u64,
    due: Instant,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    pub at: Instant,
    pub timestamp: u32,
    pub payload_type: u8,
    pub marker: bool,
    pub payload: Bytes,
    pub mid: Option<String>,
    pub transport_sequence: Option<u16>,
    pub over_rtx: bool,
}

#[derive(Debug)]
struct Missing {
    index: u64,
    due: Instant,
    asked: u8,
}

impl Received {
    pub fn video(&self) -> VideoPayload {
        VideoPayload::read(&self.payload).expect("made-up video")
    }
}

impl Inbox {
    pub(crate) fn new(sends_nacks: bool) -> Self {
        Self {
            streams: Vec::new(),
            undescribed: BTreeSet::new(),
            sends_nacks,
            nack_interval: NACK_INTERVAL,
            next_report: None,
            asked: Vec::new(),
        }
    }

    /// The newest stream of a track.
    pub fn stream(&self, track: &str) -> Option<&ReceivedStream> {
        self.streams.iter().rev().find(|stream| stream.track == track)
    }

    /// The next report is due in an interval from now.
    pub fn report_from(&mut self, now: Instant) {
        self.next_report = Some(now + REPORT_INTERVAL);
    }

    /// Asks for packets again, whatever was received.
    pub fn request_packets(&mut self, ssrc: u32, sequences: &[u16]) {
        let nacks = nack_pairs_from_sequence_numbers(sequences);
        self.asked.push(Box::new(TransportLayerNack { sender_ssrc: OWN_SSRC, media_ssrc: ssrc, nacks }));
    }

    pub fn request_keyframe(&mut self, ssrc: u32) {
        self.asked.push(Box::new(PictureLossIndication { sender_ssrc: OWN_SSRC, media_ssrc: ssrc }));
    }

    /// Says what the path can take, as a client without transport-wide feedback does.
    pub fn estimate(&mut self, bits_per_second: u64) {
        let ssrcs = self.streams.iter().map(|stream| stream.ssrc).collect();
        let bitrate = bits_per_second as f32;
        self.asked.push(Box::new(ReceiverEstimatedMaximumBitrate { sender_ssrc: OWN_SSRC, bitrate, ssrcs }));
    }

    pub(crate) fn described(&mut self, sections: &[Section]) {
        for section in sections {
            let (Some(msid), Some(ssrc)) = (&section.msid, section.ssrcs.first()) else { continue };
            if section.direction != "sendonly" || self.streams.iter().any(|stream| stream.ssrc == *ssrc) {
                continue;
            }
            let (stream_id, track) = msid.split_once(' ').expect("a stream and a track");
            let payload_type = section.formats.first().copied().unwrap_or_default();
            self.streams.push(ReceivedStream {
                track: track.to_owned(),
                stream_id: stream_id.to_owned(),
                mid: section.mid.clone(),
                ssrc: *ssrc,
                payload_type,
                packets: BTreeMap::new(),
                sender_reports: Vec::new(),
                duplicates: 0,
                rtx_ssrc: section.repairs.get(ssrc).copied(),
                rtx_payload_type: section.rtx.get(&payload_type).copied(),
                mid_id: section.extensions.get(MID).copied(),
                transport_sequence_id: section.extensions.get(TRANSPORT_SEQUENCE).copied(),
                missing: Vec::new(),
                stuck: None,
            });
        }
    }

    pub(crate) fn rtp(&mut self, now: Instant, packet: rtp::Packet) {
        let ssrc = packet.header.ssrc;
        let found = self.streams.iter_mut().rev().find(|one| one.ssrc == ssrc || one.rtx_ssrc == Some(ssrc));
        match found {
            Some(stream) => stream.receive(now, packet),
            None => _ = self.undescribed.insert(ssrc),
        }
    }

    pub(crate) fn rtcp(&mut self, now: Instant, packets: &[Box<dyn rtcp::Packet>]) {
        for packet in packets {
            let Some(report) = packet.as_any().downcast_ref::<SenderReport>() else { continue };
            if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == report.ssrc) {
                stream.sender_reports.push((now, report.clone()));
            }
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if !self.asked.is_empty() {
            // Due already, whenever that was.
            return self.next_report.map(|at| at - REPORT_INTERVAL);
        }
        let due = |stream: &ReceivedStream| {
            let missing = stream.missing.iter().map(|missing| missing.due).min();
            missing.into_iter().chain(stream.stuck.map(|stuck| stuck.due)).min()
        };
        let missing = self.streams.iter().filter_map(due).min();
        missing.filter(|_| self.sends_nacks).into_iter().chain(self.next_report).min()
    }

    /// What is due to be said.
    pub(crate) fn feedback(&mut self, now: Instant) -> Vec<Box<dyn rtcp::Packet>> {
        let mut out = std::mem::take(&mut self.asked);
        if *self.next_report.get_or_insert(now + REPORT_INTERVAL) <= now {
            self.next_report = Some(now + REPORT_INTERVAL);
            let reports: Vec<_> = self.streams.iter().filter_map(|stream| stream.report(now)).collect();
            for reports in reports.chunks(31) {
                let report = ReceiverReport { ssrc: OWN_SSRC, reports: reports.to_vec(), ..Default::default() };
                out.push(Box::new(report));
            }
        }
        for stream in self.streams.iter_mut().filter(|_| self.sends_nacks) {
            let sequences = stream.due_nacks(now, self.nack_interval);
            if stream.is_keyframe_due(now) {
                out.push(Box::new(PictureLossIndication { sender_ssrc: OWN_SSRC, media_ssrc: stream.ssrc }));
            }
            if !sequences.is_empty() {
                let nacks = nack_pairs_from_sequence_numbers(&sequences);
                out.push(Box::new(TransportLayerNack { sender_ssrc: OWN_SSRC, media_ssrc: stream.ssrc, nacks }));
            }
        }
        out
    }
}

impl ReceivedStream {
    /// Sequence numbers between the first and the last that never came.
    pub fn gaps(&self) -> u64 {
        let (Some(first), Some(last)) = (self.packets.keys().next(), self.packets.keys().next_back()) else { return 0 };
        last - first + 1 - self.packets.len() as u64
    }

    pub fn repaired_over_rtx(&self) -> usize {
        self.packets.values().filter(|packet| packet.over_rtx).count()
    }

    /// Packets that arrived since then.
    pub fn since(&self, then: Instant) -> impl Iterator<Item = &Received> {
        self.packets.values().filter(move |packet| packet.at >= then)
    }

    /// Panics unless this is what one encoder could have sent: no gap, time and VP8 counters that run on, layers that
    /// change at key frames only.
    pub fn assert_continuous_video(&self) {
        assert_eq!(self.gaps(), 0, "sequence numbers of {}", self.track);
        let mut packets = self.packets.values();
        let first = packets.next().expect("some packets");
        let mut before = (first.timestamp, first.video());
        assert!(before.1.keyframe && before.1.starts_frame, "begins with a key frame: {:?}", before.1);
        for packet in packets {
            let (timestamp, video) = (packet.timestamp, packet.video());
            if video.starts_frame {
                assert_eq!(video.picture_id, before.1.picture_id.wrapping_add(1) & 0x7fff, "picture ids");
                assert_eq!(video.base_layer_index, before.1.base_layer_index.wrapping_add(1), "TL0PICIDX");
                let passed = timestamp.wrapping_sub(before.0);
                assert!((1..=90_000 * 10).contains(&passed), "time passes, {passed} ticks");
                assert!(video.layer == before.1.layer || video.keyframe, "{video:?} after {:?}", before.1);
                let key_index = before.1.key_index.wrapping_add(u8::from(video.keyframe)) & 0x1f;
                assert_eq!(video.key_index, key_index, "key index");
            } else {
                assert_eq!((video.picture_id, video.frame, timestamp), (before.1.picture_id, before.1.frame, before.0));
                assert_eq!(video.part, before.1.part + 1);
            }
            before = (timestamp, video);
        }
    }

    fn receive(&mut self, now: Instant, packet: rtp::Packet) {
        let over_rtx = packet.header.ssrc != self.ssrc;
        let (sequence, payload, payload_type) = if over_rtx {
            let [high, low, ..] = packet.payload[..] else { return };
            assert_eq!(Some(packet.header.payload_type), self.rtx_payload_type, "RTX payload type");
            (u16::from_be_bytes([high, low]), packet.payload.slice(2..), self.payload_type)
        } else {
            (packet.header.sequence_number, packet.payload, packet.header.payload_type)
        };
        let newest = self.packets.keys().next_back().copied();
        let index = match newest {
            None => u64::from(sequence) + (1 << 16),
            Some(newest) => newest.wrapping_add_signed(i64::from(sequence.wrapping_sub(newest as u16).cast_signed())),
        };
        if let Some(newest) = newest {
            for index in newest + 1..index {
                self.missing.push(Missing { index, due: now + NACK_AFTER, asked: 0 });
            }
        }
        self.missing.retain(|missing| missing.index != index);
        let is_keyframe = VideoPayload::read(&payload).is_some_and(|video| video.keyframe);
        self.stuck.take_if(|stuck| is_keyframe && index > stuck.lost);
        let text = |id: u8| packet.header.get_extension(id).map(|value| String::from_utf8_lossy(&value).into_owned());
        let stamp = self.transport_sequence_id.and_then(|id| packet.header.get_extension(id));
        let received = Received {
            at: now,
            timestamp: packet.header.timestamp,
            payload_type,
            marker: packet.header.marker,
            payload,
            mid: self.mid_id.and_then(text),
            transport_sequence: stamp.and_then(|stamp| Some(u16::from_be_bytes(stamp.get(..2)?.try_into().ok()?))),
            over_rtx,
        };
        if let Some(known) = self.packets.get(&index) {
            self.duplicates += 1;
            assert_eq!(known.payload, received.payload, "a number means one content");
        } else {
            self.packets.insert(index, received);
        }
    }

    /// What to ask for again.
    fn due_nacks(&mut self, now: Instant, interval: Duration) -> Vec<u16> {
        let given_up = self.missing.extract_if(.., |missing| missing.asked >= NACKS_MAX && missing.due <= now);
        if let Some(lost) = given_up.map(|missing| missing.index).max() {
            let due = self.stuck.map_or(now, |stuck| stuck.due);
            self.stuck = Some(Stuck { lost, due });
        }
        let due = self.missing.iter_mut().filter(|missing| missing.due <= now);
        let ask = |missing: &mut Missing| {
            missing.asked += 1;
            missing.due = now + interval;
            missing.index as u16
        };
        due.map(ask).collect()
    }

    fn is_keyframe_due(&mut self, now: Instant) -> bool {
        let due = self.stuck.as_mut().filter(|stuck| stuck.due <= now);
        due.map(|stuck| stuck.due = now + KEYFRAME_INTERVAL).is_some()
    }

    fn report(&self, now: Instant) -> Option<ReceptionReport> {
        let newest = self.packets.keys().next_back()?;
        let last = self.sender_reports.last();
        let delay = |at: Instant| (now.saturating_duration_since(at).as_secs_f64() * 65_536.0) as u32;
        Some(ReceptionReport {
            ssrc: self.ssrc,
            total_lost: u32::try_from(self.gaps()).unwrap_or(u32::MAX),
            last_sequence_number: *newest as u32,
            last_sender_report: last.map_or(0, |(_, report)| (report.ntp_time >> 16) as u32),
            delay: last.map_or(0, |(at, _)| delay(*at)),
            ..ReceptionReport::default()
        })
    }
}

const OWN_SSRC: u32 = 0x5e1f;
const NACK_AFTER: Duration = Duration::from_millis(10);
const NACK_INTERVAL: Duration = Duration::from_millis(60);
const NACKS_MAX: u8 = 8;
/// Between two requests for the same key frame.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
