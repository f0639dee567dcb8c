//! A client's publisher transport: which stream a packet belongs to, and what the client is told about its streams.
//!
//! Hot: `route` runs once per received packet. No allocation, lock, log or clock read there once a stream is known.

use std::time::{Duration, Instant};

use plenary_model::{Codec, TrackSid};
use rustc_hash::FxHashMap;

use super::{
    counters::Counters,
    track::{Track, Tracks},
};
use crate::{
    Deadline, DropReason,
    ingress::{TwccReceiver, after},
    quality::QualityMeter,
    rtcp::{self, Packet, ReportBlock},
    rtp::{Header, StreamId},
    session_description::{PublisherSdp, ReceiveSection},
};

#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) sdp: PublisherSdp,
    pub(super) refused_codecs: Vec<Codec>,
    sections: Vec<ReceiveSection>,
    /// Streams by SSRC, at most [`ROUTES_MAX`].
    routes: FxHashMap<u32, Route>,
    twcc: TwccReceiver,
    reports_due: Option<Instant>,
    /// Names us in feedback; clients do not care.
    own_ssrc: u32,
    blocks: Vec<ReportBlock>,
    lost: Vec<u16>,
    quality: QualityMeter,
}

/// Where the packets of one SSRC go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Route {
    pub(super) section: usize,
    pub(super) stream: StreamId,
    pub(super) part: Part,
    /// The payload type that `part` was told by.
    payload_type: u8,
}

impl Route {
    /// Whether both are of one stream: its media or repairs of it.
    pub(super) fn is_stream_of(self, other: Self) -> bool {
        (self.section, self.stream) == (other.section, other.stream)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Media,
    /// RTX for the media stream of the same layer.
    Repair {
        media_payload_type: u8,
    },
}

impl Publisher {
    pub(super) fn new(now: Instant, own_ssrc: u32, refused_codecs: Vec<Codec>) -> Self {
        Self {
            sdp: PublisherSdp::default(),
            refused_codecs,
            sections: Vec::new(),
            routes: FxHashMap::default(),
            twcc: TwccReceiver::new(),
            reports_due: None,
            own_ssrc,
            blocks: Vec::new(),
            lost: Vec::new(),
            quality: QualityMeter::new(now),
        }
    }

    /// What the last answer accepted. A stream stays with its section, whatever track that carries now: a client names
    /// the section at the beginning of a stream only, and publishing a source again need not begin another.
    pub(super) fn set_sections(&mut self, sections: Vec<ReceiveSection>) {
        let same = |old: &ReceiveSection, new: &ReceiveSection| old.mid == new.mid && old.rids == new.rids;
        self.routes.retain(|_, route| {
            let Some(old) = self.sections.get(route.section) else { return false };
            let at = sections.iter().position(|new| same(old, new));
            at.inspect(|at| route.section = *at).is_some()
        });
        self.sections = sections;
    }

    pub(super) fn section(&self, route: Route) -> Option<&ReceiveSection> {
        self.sections.get(route.section)
    }

    pub(super) fn tracks(&self) -> impl Iterator<Item = &TrackSid> {
        self.sections.iter().map(|section| &section.track)
    }

    /// The stream of a packet, found out at its first packet and known by its SSRC from then on. Its payload type may
    /// change: with redundant audio, and when the section goes on with another codec.
    pub(super) fn route(&mut self, header: &Header, packet: &[u8]) -> Result<Route, DropReason> {
        if let Some(route) = self.routes.get_mut(&header.ssrc) {
            if route.payload_type != header.payload_type {
                let section = self.sections.get(route.section).ok_or(DropReason::UnknownStream)?;
                route.part = payload_part(section, header).ok_or(DropReason::UnknownPayloadType)?;
                route.payload_type = header.payload_type;
            }
            return Ok(*route);
        }
        if self.routes.len() >= ROUTES_MAX {
            return Err(DropReason::TooManySsrcs);
        }
        let route = self.find(header, packet)?;
        self.routes.insert(header.ssrc, route);
        Ok(route)
    }

    /// Records a packet's arrival for the sender's congestion control.
    pub(super) fn arrived(&mut self, received: Instant, route: Route, header: &Header, packet: &[u8]) {
        let id = self.sections.get(route.section).and_then(|section| section.extensions.transport_sequence);
        if let Some(sequence) = id.and_then(|id| header.transport_sequence(packet, id)) {
            self.twcc.record(received, sequence);
        }
        if self.reports_due.is_none() {
            self.reports_due = Some(after(received, REPORT_INTERVAL));
        }
    }

    fn find(&self, header: &Header, packet: &[u8]) -> Result<Route, DropReason> {
        let signalled = |section: &ReceiveSection| {
            let media = section.ssrcs.contains(&header.ssrc);
            media || section.rtx_ssrcs.iter().any(|(_, rtx)| *rtx == header.ssrc)
        };
        let names = |section: &ReceiveSection| {
            let mid = section.extensions.mid.and_then(|id| header.text(packet, id));
            mid.is_some_and(|mid| mid == section.mid)
        };
        // Without a mid and without a signalled SSRC a payload type says enough where only one section has it.
        let mut by_payload = self.sections.iter().enumerate().filter(|(_, one)| payload_part(one, header).is_some());
        let found = self
            .sections
            .iter()
            .position(names)
            .or_else(|| self.sections.iter().position(signalled))
            .or_else(|| by_payload.next().filter(|_| by_payload.next().is_none()).map(|(at, _)| at))
            .ok_or(DropReason::UnknownStream)?;
        let section = self.sections.get(found).ok_or(DropReason::UnknownStream)?;
        let part = payload_part(section, header).ok_or(DropReason::UnknownPayloadType)?;
        let rid = match part {
            Part::Media => section.extensions.rid,
            Part::Repair { .. } => section.extensions.repaired_rid,
        };
        let stream = match rid.and_then(|id| header.text(packet, id)) {
            Some(rid) => section.rids.iter().position(|known| known == rid).ok_or(DropReason::UnknownStream)?,
            None if section.rids.len() <= 1 => 0,
            // A simulcast stream must say which layer it is before it is anybody's.
            None => return Err(DropReason::UnknownStream),
        };
        let stream = StreamId(u8::try_from(stream).map_err(|_| DropReason::UnknownStream)?);
        Ok(Route { section: found, stream, part, payload_type: header.payload_type })
    }

    /// Takes in what the client says of its streams.
    pub(super) fn on_rtcp(
        &mut self,
        received: Instant,
        datagram: &[u8],
        tracks: &mut Tracks,
    ) -> Result<(), DropReason> {
        for packet in rtcp::packets(datagram) {
            if let Packet::SenderReport { ssrc, info, .. } = packet.map_err(|_| DropReason::RtcpMalformed)?
                && let Some(route) = self.routes.get(&ssrc)
                && route.part == Part::Media
                && let Some(stream) = self.track_mut(*route, tracks).and_then(|track| track.stream_mut(route.stream))
            {
                stream.on_sender_report(received, info.ntp, info.rtp);
            }
        }
        Ok(())
    }

    /// When the next thing is due that a received packet may have made due.
    pub(super) fn feedback_deadline(&self) -> Option<(Instant, Deadline)> {
        let feedback = self.twcc.deadline().map(|at| (at, Deadline::Feedback));
        let reports = self.reports_due.map(|at| (at, Deadline::Reports));
        feedback.into_iter().chain(reports).min_by_key(|(at, _)| *at)
    }

    /// When [`write_feedback`](Self::write_feedback) next has something to say.
    pub(super) fn next_deadline(&self, now: Instant, tracks: &Tracks) -> Option<(Instant, Deadline)> {
        let streams = self.sections.iter().filter_map(|section| tracks.get(&section.track)).flat_map(Track::streams);
        let nack = streams.filter_map(|(stream, _)| stream.nack_deadline()).min();
        let keyframe = self.sections.iter().filter_map(|section| tracks.get(&section.track));
        let keyframe = keyframe.filter_map(|track| track.keyframe_deadline(now)).min();
        let repair = nack.into_iter().chain(keyframe).min().map(|at| (at, Deadline::Nack));
        self.feedback_deadline().into_iter().chain(repair).min_by_key(|(at, _)| *at)
    }

    /// Everything that is due, as one compound per call into `out`; empty when nothing is.
    pub(super) fn write_feedback(&mut self, now: Instant, tracks: &mut Tracks, out: &mut Vec<u8>, counters: &Counters) {
        if self.reports_due.is_some_and(|at| at <= now) {
            self.reports_due = Some(after(now, REPORT_INTERVAL));
            self.write_reports(now, tracks, out);
        }
        let media_ssrc = self.routes.keys().next().copied().unwrap_or_default();
        while out.len() < RTCP_BYTES_MAX && self.twcc.write_feedback(now, self.own_ssrc, media_ssrc, out) {}
        for section in &self.sections {
            let Some(track) = tracks.get_mut(&section.track) else { continue };
            let nobody_watches = track.muted || !track.is_received();
            for (stream, keyframes) in track.streams_mut() {
                if nobody_watches {
                    keyframes.withdraw();
                }
                self.lost.clear();
                stream.due_nacks(now, ASSUMED_RTT, &mut self.lost);
                if !self.lost.is_empty() {
                    counters.nacks_sent.add(self.lost.len());
                    rtcp::write_nack(out, self.own_ssrc, stream.ssrc(), &self.lost);
                }
                if keyframes.poll(now) {
                    counters.keyframe_requests.add(1);
                    rtcp::write_pli(out, self.own_ssrc, stream.ssrc());
                }
            }
        }
    }

    /// How well the client's media arrives, if that is news.
    pub(super) fn quality(&mut self, now: Instant, silence: Duration) -> Option<f32> {
        self.quality.close(now, silence)
    }

    fn write_reports(&mut self, now: Instant, tracks: &mut Tracks, out: &mut Vec<u8>) {
        self.blocks.clear();
        for section in &self.sections {
            let Some(track) = tracks.get_mut(&section.track) else { continue };
            self.blocks.extend(track.streams_mut().filter_map(|(stream, _)| stream.report_block(now)));
        }
        // The stream that suffers most says how it sounds or looks.
        if let Some(worst) = self.blocks.iter().map(|block| block.fraction_lost).max() {
            self.quality.packets(worst.into(), 256);
        }
        for blocks in self.blocks.chunks(REPORT_BLOCKS_MAX) {
            rtcp::write_receiver_report(out, self.own_ssrc, blocks);
        }
    }

    fn track_mut<'t>(&self, route: Route, tracks: &'t mut Tracks) -> Option<&'t mut Track> {
        tracks.get_mut(&self.sections.get(route.section)?.track)
    }
}

/// Whether a payload type is media or repair of this section. Of the codecs that were agreed only the first is forwarded,
/// since it is what subscribers were told.
fn payload_part(section: &ReceiveSection, header: &Header) -> Option<Part> {
    section.payloads.iter().find_map(|payload| {
        if !section.forwards(payload) {
            None
        } else if payload.payload_type == header.payload_type {
            Some(Part::Media)
        } else if payload.rtx_payload_type == Some(header.payload_type) {
            Some(Part::Repair { media_payload_type: payload.payload_type })
        } else {
            None
        }
    })
}

const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// RFC 3550 6.4.1: five bits count the blocks.
const REPORT_BLOCKS_MAX: usize = 31;

/// Streams a client may begin while its sections stay: twice what its keys hold at a time.
const ROUTES_MAX: usize = 256;

/// Feedback about received packets stops here for now; the rest of it is due at once.
const RTCP_BYTES_MAX: usize = 1_000;

/// Until the publisher's round trip is measured: close to what people have, and only the hold-off of repeats depends on it.
const ASSUMED_RTT: Duration = Duration::from_millis(70);
