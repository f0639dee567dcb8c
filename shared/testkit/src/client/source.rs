//! A made-up camera or microphone and how it is sent: packets, repairs, reports, key frames on request.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plenary_model::MediaKind;
use rtc::{
    rtcp::{
        self,
        payload_feedbacks::{full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication},
        receiver_report::ReceiverReport,
        reception_report::ReceptionReport,
        sender_report::SenderReport,
        transport_feedbacks::transport_layer_nack::TransportLayerNack,
    },
    rtp,
};

use super::{
    REPORT_INTERVAL, VideoPayload,
    lines::{AUDIO_LEVEL, MID, REPAIRED_RID, RID, Section, TRANSPORT_SEQUENCE},
    ntp,
    svc::{SPATIAL_LAYERS, SvcPayload},
};

/// One published track.
#[derive(Debug)]
pub struct Source {
    pub cid: String,
    pub kind: MediaKind,
    /// Low to high.
    pub streams: Vec<SentStream>,
    /// Nothing is sent while it is muted at its source.
    pub paused: bool,
    /// What the microphone's packets say, in dB below overload.
    pub level_db: u8,
    /// Unpublished.
    pub ended: bool,
    pub answers_nacks: bool,
    /// Packets per stream that name their section and layer; a browser stops once it was told that they arrived.
    pub naming_packets: u32,
    /// VP9 with all layers in one stream, otherwise VP8.
    pub(crate) is_svc: bool,
    wire: Option<Wire>,
    next_frame: Option<Instant>,
    next_report: Option<Instant>,
    frame: u32,
}

/// One SSRC of a source.
#[derive(Debug)]
pub struct SentStream {
    pub rid: String,
    pub ssrc: u32,
    pub rtx_ssrc: u32,
    /// Switched off by the encoder.
    pub active: bool,
    /// Key frames that the server asked for: when.
    pub keyframe_requests: Vec<Instant>,
    pub keyframes: u32,
    /// Packets that the server asked for again: when, and which.
    pub nacks: Vec<(Instant, u16)>,
    /// What the server says it received.
    pub reports: Vec<(Instant, ReceptionReport)>,
    pub packets: u32,
    pub shape: FrameShape,
    /// Ends every frame of video.
    pub trailer: Vec<u8>,
    layer: u8,
    sequence: u16,
    rtx_sequence: u16,
    timestamp_base: u32,
    picture_id: u16,
    base_layer_index: u8,
    key_index: u8,
    wants_keyframe: bool,
    history: VecDeque<rtp::Packet>,
    octets: u32,
}

/// How large the pictures of a stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameShape {
    pub packets: u8,
    pub packet_bytes: usize,
    /// Of a key frame.
    pub key_packets: u8,
}

impl FrameShape {
    /// Packets of usual size, and key frames of six times a picture.
    pub fn of_rate(bits_per_second: u64) -> Self {
        let bytes = (bits_per_second as f64 / 8.0 * VIDEO_FRAME_INTERVAL.as_secs_f64()) as usize;
        let packets = bytes.div_ceil(1_100).clamp(1, 40);
        Self { packets: packets as u8, packet_bytes: bytes / packets, key_packets: packets as u8 * 6 }
    }
}

/// What the answer said.
#[derive(Debug, Clone)]
struct Wire {
    mid: String,
    payload_type: u8,
    rtx_payload_type: Option<u8>,
    section: Section,
}

impl Source {
    pub(crate) fn new(kind: MediaKind, cid: &str, rids: &[&str], base_ssrc: u32) -> Self {
        let rids = if rids.is_empty() { &[""] } else { rids };
        let stream = |(layer, rid): (usize, &&str)| SentStream::new(layer as u8, rid, base_ssrc + 10 * layer as u32);
        Self {
            cid: cid.to_owned(),
            kind,
            streams: rids.iter().enumerate().map(stream).collect(),
            paused: false,
            level_db: 127,
            ended: false,
            answers_nacks: true,
            naming_packets: u32::MAX,
            is_svc: false,
            wire: None,
            next_frame: None,
            next_report: None,
            frame: 0,
        }
    }

    pub(crate) fn svc(cid: &str, ssrc: u32) -> Self {
        Self { is_svc: true, ..Self::new(MediaKind::Video, cid, &[], ssrc) }
    }

    /// What its streams shall take, low to high.
    pub fn set_rates(&mut self, bits_per_second: &[u64]) {
        for (stream, rate) in self.streams.iter_mut().zip(bits_per_second) {
            stream.shape = FrameShape::of_rate(*rate);
        }
    }

    /// Frames made so far.
    pub fn frames(&self) -> u32 {
        self.frame
    }

    pub fn is_negotiated(&self) -> bool {
        self.wire.is_some()
    }

    pub(crate) fn negotiated(&mut self, now: Instant, section: &Section, has_rtx: bool) {
        let payload_type = section.formats.first().copied().unwrap_or_default();
        let wire = Wire {
            mid: section.mid.clone(),
            payload_type,
            rtx_payload_type: section.rtx.get(&payload_type).copied().filter(|_| has_rtx),
            section: section.clone(),
        };
        self.wire = (section.port != 0 && section.direction == "recvonly").then_some(wire);
        self.next_frame.get_or_insert(now);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let frame = self.next_frame.filter(|_| self.is_sending());
        frame.into_iter().chain(self.next_report).min().filter(|_| self.wire.is_some() && !self.ended)
    }

    /// The packets of the frames that are due.
    pub(crate) fn media(&mut self, now: Instant, since: Duration) -> Vec<rtp::Packet> {
        if !self.is_sending() {
            self.next_frame = None;
            return Vec::new();
        }
        let next = self.next_frame.get_or_insert(now);
        if *next > now {
            return Vec::new();
        }
        *next += match self.kind {
            MediaKind::Audio => AUDIO_FRAME_INTERVAL,
            MediaKind::Video => VIDEO_FRAME_INTERVAL,
        };
        self.frame += 1;
        let Some(wire) = &self.wire else { return Vec::new() };
        let mut packets = Vec::new();
        for stream in self.streams.iter_mut().filter(|stream| stream.active) {
            if self.is_svc {
                stream.svc_picture(wire.payload_type, since, &mut packets);
            } else {
                stream.frame(self.kind, wire.payload_type, self.frame, since, &mut packets);
            }
        }
        packets
    }

    /// Adds what every packet says in its header's extensions.
    pub(crate) fn stamp(&self, mut packet: rtp::Packet, next_transport_sequence: &mut u16) -> rtp::Packet {
        let Some(wire) = &self.wire else { return packet };
        let ssrc = packet.header.ssrc;
        let repairs = self.streams.iter().find(|stream| stream.rtx_ssrc == ssrc);
        let stream = self.streams.iter().find(|stream| stream.ssrc == ssrc).or(repairs);
        let rid_extension = if repairs.is_some() { REPAIRED_RID } else { RID };
        let names = repairs.is_some() || stream.is_some_and(|stream| stream.packets <= self.naming_packets);
        let rid = stream.map(|stream| stream.rid.clone()).filter(|rid| names && !rid.is_empty());
        *next_transport_sequence = next_transport_sequence.wrapping_add(1);
        let elements = [
            (MID, names.then(|| wire.mid.clone().into_bytes())),
            (rid_extension, rid.map(String::into_bytes)),
            (TRANSPORT_SEQUENCE, Some(next_transport_sequence.to_be_bytes().to_vec())),
            (AUDIO_LEVEL, (self.kind == MediaKind::Audio).then(|| vec![0x80 | self.level_db])),
        ];
        for (name, value) in elements {
            if let (Some(id), Some(value)) = (wire.section.extensions.get(name), value) {
                packet.header.set_extension(*id, Bytes::from(value)).expect("an extension is set");
            }
        }
        packet
    }

    pub(crate) fn sender_reports(&mut self, now: Instant, since: Duration) -> Option<Vec<Box<dyn rtcp::Packet>>> {
        if self.ended || self.wire.is_none() || self.next_report.is_some_and(|at| at > now) {
            return None;
        }
        let first = self.next_report.is_none();
        self.next_report = Some(now + REPORT_INTERVAL);
        if first {
            return None;
        }
        let sent = self.streams.iter().filter(|stream| stream.packets > 0);
        let report = |stream: &SentStream| -> Box<dyn rtcp::Packet> {
            Box::new(SenderReport {
                ssrc: stream.ssrc,
                ntp_time: ntp(since),
                rtp_time: stream.timestamp(self.kind, since),
                packet_count: stream.packets,
                octet_count: stream.octets,
                ..SenderReport::default()
            })
        };
        Some(sent.map(report).collect()).filter(|reports: &Vec<_>| !reports.is_empty())
    }

    /// What the server says about this source. Gives back repairs.
    pub(crate) fn feedback(&mut self, now: Instant, packet: &dyn rtcp::Packet) -> Vec<rtp::Packet> {
        let any = packet.as_any();
        let mut repairs = Vec::new();
        for stream in &mut self.streams {
            let asked = any.downcast_ref::<PictureLossIndication>().is_some_and(|pli| pli.media_ssrc == stream.ssrc)
                || any
                    .downcast_ref::<FullIntraRequest>()
                    .is_some_and(|fir| fir.fir.iter().any(|entry| entry.ssrc == stream.ssrc));
            if asked {
                stream.keyframe_requests.push(now);
                stream.wants_keyframe = true;
            }
            if let Some(nack) = any.downcast_ref::<TransportLayerNack>().filter(|nack| nack.media_ssrc == stream.ssrc) {
                for sequence in nack.nacks.iter().flat_map(|pair| pair.packet_list()) {
                    stream.nacks.push((now, sequence));
                    let rtx = self.wire.as_ref().and_then(|wire| wire.rtx_payload_type);
                    repairs.extend(stream.repair(sequence, rtx).filter(|_| self.answers_nacks));
                }
            }
            if let Some(report) = any.downcast_ref::<ReceiverReport>() {
                let about = report.reports.iter().filter(|block| block.ssrc == stream.ssrc);
                stream.reports.extend(about.map(|block| (now, block.clone())));
            }
        }
        repairs
    }

    fn is_sending(&self) -> bool {
        self.wire.is_some() && !self.paused && !self.ended
    }
}

impl SentStream {
    fn new(layer: u8, rid: &str, ssrc: u32) -> Self {
        Self {
            rid: rid.to_owned(),
            ssrc,
            rtx_ssrc: ssrc + 1,
            active: true,
            keyframe_requests: Vec::new(),
            keyframes: 0,
            nacks: Vec::new(),
            reports: Vec::new(),
            packets: 0,
            shape: FrameShape { packets: layer + 1, packet_bytes: 300, key_packets: layer + 3 },
            trailer: Vec::new(),
            layer,
            // Near the wraps, so that every test crosses them.
            sequence: 65_500 - 7 * u16::from(layer),
            rtx_sequence: 65_530,
            timestamp_base: u32::MAX - 30_000 * (u32::from(layer) + 1),
            picture_id: 32_700 + 20 * u16::from(layer),
            base_layer_index: 200 + layer,
            key_index: 30,
            wants_keyframe: true,
            history: VecDeque::new(),
            octets: 0,
        }
    }

    /// The encoder begins anew under another name.
    pub fn restart_with_ssrc(&mut self, ssrc: u32) {
        (self.ssrc, self.rtx_ssrc) = (ssrc, ssrc.wrapping_add(1));
        (self.sequence, self.packets, self.octets) = (100, 0, 0);
        self.timestamp_base = self.timestamp_base.wrapping_mul(7);
        self.wants_keyframe = true;
        self.history.clear();
    }

    fn timestamp(&self, kind: MediaKind, since: Duration) -> u32 {
        let rate = if kind == MediaKind::Audio { 48_000 } else { 90_000 };
        self.timestamp_base.wrapping_add((since.as_micros() * rate / 1_000_000) as u32)
    }

    fn frame(&mut self, kind: MediaKind, payload_type: u8, frame: u32, since: Duration, out: &mut Vec<rtp::Packet>) {
        let timestamp = self.timestamp(kind, since);
        let keyframe = std::mem::take(&mut self.wants_keyframe);
        let FrameShape { packets, packet_bytes, key_packets } = self.shape;
        let parts = match kind {
            MediaKind::Audio => 1,
            MediaKind::Video if keyframe => key_packets,
            MediaKind::Video => packets,
        };
        if kind == MediaKind::Video {
            self.picture_id = self.picture_id.wrapping_add(1) & 0x7fff;
            self.base_layer_index = self.base_layer_index.wrapping_add(1);
            self.key_index = self.key_index.wrapping_add(u8::from(keyframe)) & 0x1f;
            self.keyframes += u32::from(keyframe);
        }
        for part in 0..parts {
            let mut payload = match kind {
                MediaKind::Audio => [&[AUDIO][..], &frame.to_be_bytes(), &[7; 60]].concat(),
                MediaKind::Video => VideoPayload {
                    picture_id: self.picture_id,
                    base_layer_index: self.base_layer_index,
                    key_index: self.key_index,
                    starts_frame: part == 0,
                    keyframe,
                    layer: self.layer,
                    frame,
                    part,
                }
                .write(packet_bytes),
            };
            let marker = kind == MediaKind::Video && part + 1 == parts;
            if marker {
                payload.extend_from_slice(&self.trailer);
            }
            out.push(self.packet(payload_type, marker, timestamp, payload));
        }
    }

    /// A picture in all its layers, of two packets each and more the higher they are.
    fn svc_picture(&mut self, payload_type: u8, since: Duration, out: &mut Vec<rtp::Packet>) {
        let timestamp = self.timestamp(MediaKind::Video, since);
        let keyframe = std::mem::take(&mut self.wants_keyframe);
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7fff;
        self.base_layer_index = self.base_layer_index.wrapping_add(1);
        self.keyframes += u32::from(keyframe);
        for spatial in 0..SPATIAL_LAYERS {
            for starts_frame in [true, false] {
                let payload = SvcPayload {
                    picture_id: self.picture_id,
                    base_layer_index: self.base_layer_index,
                    keyframe,
                    spatial,
                    starts_frame,
                    ends_frame: !starts_frame,
                };
                let marker = !starts_frame && spatial + 1 == SPATIAL_LAYERS;
                let mut payload = payload.write(SVC_PACKET_BYTES << spatial);
                if !starts_frame {
                    payload.extend_from_slice(&self.trailer);
                }
                out.push(self.packet(payload_type, marker, timestamp, payload));
            }
        }
    }

    fn packet(&mut self, payload_type: u8, marker: bool, timestamp: u32, payload: Vec<u8>) -> rtp::Packet {
        let header = rtp::Header {
            version: 2,
            marker,
            payload_type,
            sequence_number: self.sequence,
            timestamp,
            ssrc: self.ssrc,
            ..rtp::Header::default()
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.packets += 1;
        self.octets += payload.len() as u32;
        let packet = rtp::Packet { header, payload: Bytes::from(payload) };
        self.history.push_back(packet.clone());
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        packet
    }

    /// RFC 4588 4 with RTX, otherwise the packet once more.
    fn repair(&mut self, sequence: u16, rtx_payload_type: Option<u8>) -> Option<rtp::Packet> {
        let mut packet = self.history.iter().find(|packet| packet.header.sequence_number == sequence)?.clone();
        if let Some(payload_type) = rtx_payload_type {
            packet.header.payload_type = payload_type;
            packet.header.ssrc = self.rtx_ssrc;
            packet.header.sequence_number = self.rtx_sequence;
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
            packet.payload = Bytes::from([&sequence.to_be_bytes()[..], &packet.payload].concat());
        }
        Some(packet)
    }
}

pub const AUDIO_FRAME_INTERVAL: Duration = Duration::from_millis(20);
pub const VIDEO_FRAME_INTERVAL: Duration = Duration::from_millis(33);
const AUDIO: u8 = b'A';
/// Of the lowest spatial layer; each above takes twice as much.
const SVC_PACKET_BYTES: usize = 300;
const HISTORY: usize = 500;
