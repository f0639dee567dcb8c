//! Our offers to a subscriber and the client's answers: which section carries which track, over all renegotiations.
//!
//! Sections are never removed and never move. One whose track ended is offered inactive, and carries another track of
//! its kind once the client has answered that; one the client refused is taken over under a new mid.
//! Chromium keeps the first track id of a section for good, so in a section that is used again only the stream id tells
//! which track it is.

use plenary_model::{MediaKind, ParticipantSid, TrackSid};

use super::{
    Extensions, LocalParameters, SECTIONS_MAX, SdpLimits, SendCodec,
    codec::{Codec, Offered},
    parse::{Description, Section, SectionKind, Setup, Transport},
    section::{self, Feedback},
    write::{Origin, Writer},
};
use crate::{Refusal, transport::RemoteParameters};

/// A track as it is offered to one subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendTrack {
    pub(crate) track: TrackSid,
    /// The name that the client sees. Of those with one name, in different codecs, one is sent at a time.
    pub(crate) shown: TrackSid,
    /// Goes into the stream id, from which clients find the participant.
    pub(crate) publisher: ParticipantSid,
    pub(crate) kind: MediaKind,
    pub(crate) codec: SendCodec,
    /// Never used before on this transport.
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) stereo: bool,
}

/// What is remembered between the offers of one subscriber transport.
#[derive(Debug)]
pub(crate) struct SubscriberSdp {
    data_channels: bool,
    wanted: Vec<SendTrack>,
    /// Wanted, but the client said that it cannot decode them. Forgotten when no longer wanted.
    undecodable: Vec<SendTrack>,
    slots: Vec<Slot>,
    mids_used: u32,
    awaits_answer: bool,
    remote_is_dtls_client: Option<bool>,
    origin: Origin,
}

/// What one answer came to.
#[derive(Debug)]
pub(crate) struct SubscriberAnswer {
    pub(crate) remote: RemoteParameters,
    /// Every section that may send from now on.
    pub(crate) send: Vec<SendSection>,
    /// Tracks the client refused in this answer.
    pub(crate) undecodable: Vec<TrackSid>,
}

/// How the packets of one track are to look for this subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendSection {
    pub(crate) track: TrackSid,
    pub(crate) mid: String,
    pub(crate) payload_type: u8,
    /// Agreed only for a track that has a repair stream.
    pub(crate) rtx_payload_type: Option<u8>,
    /// Redundant audio is passed on under this number; without one it is unwrapped.
    pub(crate) red_payload_type: Option<u8>,
    pub(crate) clock_rate: u32,
    pub(crate) extensions: Extensions,
}

impl SubscriberSdp {
    pub(crate) fn new(data_channels: bool) -> Self {
        Self {
            data_channels,
            wanted: Vec::new(),
            undecodable: Vec::new(),
            slots: Vec::new(),
            mids_used: 0,
            awaits_answer: false,
            remote_is_dtls_client: None,
            origin: Origin::default(),
        }
    }

    /// The whole set of tracks to send from now on. True if that is news for which the description must change. Tracks
    /// of a codec that this version does not speak are left out.
    pub(crate) fn want(&mut self, tracks: &[SendTrack]) -> bool {
        let wanted: Vec<_> = tracks.iter().filter(|track| Offered::of_track(track).is_some()).cloned().collect();
        if wanted == self.wanted {
            return false;
        }
        self.wanted = wanted;
        self.undecodable.retain(|refused| self.wanted.contains(refused));
        self.needs_offer()
    }

    /// Whether what is wanted differs from what was last offered, as far as there is room.
    fn needs_offer(&self) -> bool {
        let first = self.data_channels && self.slots.is_empty();
        let ended = || self.slots.iter().any(|slot| slot.track().is_some_and(|track| !self.wanted.contains(track)));
        let placeable = || self.unplaced().any(|track| self.place_for(track.kind).is_some());
        first || ended() || placeable()
    }

    /// Describes what is wanted now. An earlier offer that was not answered is superseded.
    pub(crate) fn offer(&mut self, local: &LocalParameters<'_>) -> String {
        self.arrange();
        self.awaits_answer = true;
        let origin = self.origin.next(&local.ice.ufrag);
        let bundle: Vec<&str> =
            self.slots.iter().filter(|slot| slot.content != Content::Refused).map(|slot| slot.mid.as_str()).collect();
        let mut out = Writer::session(origin, &bundle, true);
        for slot in &self.slots {
            slot.write(&mut out, local, bundle.first() == Some(&slot.mid.as_str()));
        }
        out.finish()
    }

    /// The answer to the last offer.
    pub(crate) fn accept(&mut self, answer: &str, limits: SdpLimits) -> Result<SubscriberAnswer, Refusal> {
        if !self.awaits_answer {
            return Err(Refusal::NotExpected);
        }
        let answer = Description::parse(answer, limits)?;
        let unchanged = self.slots.len() == answer.sections.len()
            && self.slots.iter().zip(&answer.sections).all(|(slot, section)| slot.is_answered_by(section));
        if !unchanged {
            return Err(Refusal::SectionsChanged);
        }
        let Transport { fingerprint, setup, max_message_bytes, .. } = answer.transport()?;
        if setup == Setup::ActPass {
            return Err(Refusal::Malformed("an answer must choose its DTLS role"));
        }

        self.awaits_answer = false;
        let mut send = Vec::new();
        let mut refused = Vec::new();
        for (slot, section) in self.slots.iter_mut().zip(&answer.sections) {
            match slot.accept(section) {
                Answered::Sends(agreed) => send.push(agreed),
                Answered::Undecodable(track) => refused.push(track),
                Answered::Nothing => {}
            }
        }
        let undecodable = refused.iter().map(|track| track.track.clone()).collect();
        self.undecodable.extend(refused.into_iter().filter(|track| self.wanted.contains(track)));
        Ok(SubscriberAnswer {
            remote: RemoteParameters {
                fingerprint,
                remote_is_dtls_client: *self.remote_is_dtls_client.get_or_insert(setup == Setup::Active),
                max_message_bytes,
            },
            send,
            undecodable,
        })
    }

    /// Gives every wanted track a section, as far as there is room.
    fn arrange(&mut self) {
        if self.data_channels && self.slots.is_empty() {
            self.add_slot(SectionKind::Data, Content::Data);
        }
        for slot in &mut self.slots {
            let Some(track) = slot.track() else { continue };
            if !self.wanted.contains(track) {
                // The same track with another codec or stream goes on in its section.
                let changed = self.wanted.iter().find(|wanted| wanted.continues(track)).cloned();
                slot.content = changed.map_or(Content::Ending, Content::Track);
            }
        }
        let unplaced: Vec<SendTrack> = self.unplaced().cloned().collect();
        for track in unplaced {
            let kind = track.kind;
            let content = Content::Track(track);
            match self.place_for(kind) {
                Some(Place::Slot(index)) => {
                    if let Some(slot) = self.slots.get_mut(index) {
                        slot.content = content;
                    }
                }
                Some(Place::Recycled(index)) => {
                    let mid = self.next_mid();
                    if let Some(slot) = self.slots.get_mut(index) {
                        *slot = Slot { mid, kind: kind.into(), content };
                    }
                }
                Some(Place::New) => self.add_slot(kind.into(), content),
                None => {}
            }
        }
    }

    /// Wanted tracks that no section carries and that the client may be able to decode.
    fn unplaced(&self) -> impl Iterator<Item = &SendTrack> {
        self.wanted.iter().filter(|wanted| {
            let carried = self.slots.iter().filter_map(Slot::track).any(|track| track.track == wanted.track);
            !carried && !self.undecodable.contains(wanted)
        })
    }

    fn place_for(&self, kind: MediaKind) -> Option<Place> {
        let free = |slot: &Slot| slot.content == Content::Free && slot.kind == kind.into();
        let refused = |slot: &Slot| slot.content == Content::Refused;
        if let Some(index) = self.slots.iter().position(free) {
            return Some(Place::Slot(index));
        }
        if let Some(index) = self.slots.iter().position(refused) {
            return Some(Place::Recycled(index));
        }
        (self.slots.len() < SECTIONS_MAX).then_some(Place::New)
    }

    fn add_slot(&mut self, kind: SectionKind, content: Content) {
        let mid = self.next_mid();
        self.slots.push(Slot { mid, kind, content });
    }

    fn next_mid(&mut self) -> String {
        let mid = self.mids_used;
        self.mids_used = mid.wrapping_add(1);
        mid.to_string()
    }
}

impl SendTrack {
    /// Whether this is `other` with something about it changed.
    fn continues(&self, other: &Self) -> bool {
        self.shown == other.shown && self.kind == other.kind
    }
}

/// Where a track finds its section.
enum Place {
    Slot(usize),
    /// Under a new mid.
    Recycled(usize),
    New,
}

#[derive(Debug)]
struct Slot {
    mid: String,
    kind: SectionKind,
    content: Content,
}

/// What a section was last described with, and what the client made of it.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Data,
    Track(SendTrack),
    /// Inactive, and the client has not said that it knows.
    Ending,
    /// Inactive on both sides.
    Free,
    /// The client answered port 0.
    Refused,
}

/// What the answer means to one section.
enum Answered {
    Nothing,
    Sends(SendSection),
    Undecodable(SendTrack),
}

impl Slot {
    fn track(&self) -> Option<&SendTrack> {
        match &self.content {
            Content::Track(track) => Some(track),
            Content::Data | Content::Ending | Content::Free | Content::Refused => None,
        }
    }

    fn is_answered_by(&self, section: &Section<'_>) -> bool {
        let unnamed = section.stopped && section.mid.is_empty();
        self.kind == section.kind && (self.mid == section.mid || unnamed)
    }

    fn accept(&mut self, section: &Section<'_>) -> Answered {
        if section.stopped {
            return match std::mem::replace(&mut self.content, Content::Refused) {
                Content::Track(track) => Answered::Undecodable(track),
                Content::Data | Content::Ending | Content::Free | Content::Refused => Answered::Nothing,
            };
        }
        match &self.content {
            Content::Track(track) => {
                if let Some(agreed) = agree(&self.mid, track, section) {
                    return Answered::Sends(agreed);
                }
                let refused = track.clone();
                self.content = Content::Ending;
                Answered::Undecodable(refused)
            }
            Content::Ending => {
                self.content = Content::Free;
                Answered::Nothing
            }
            Content::Data | Content::Free | Content::Refused => Answered::Nothing,
        }
    }

    fn write(&self, out: &mut Writer, local: &LocalParameters<'_>, candidates: bool) {
        let kind = match self.kind {
            SectionKind::Data => return out.data(&self.mid, local, Setup::ActPass, candidates),
            SectionKind::Video => MediaKind::Video,
            SectionKind::Audio | SectionKind::Unknown => MediaKind::Audio,
        };
        let track = self.track();
        let offered = track.and_then(Offered::of_track).unwrap_or(Offered::idle(kind));
        let rtx = offered.rtx.filter(|_| track.is_none_or(|track| track.rtx_ssrc.is_some()));
        let (word, port) = match kind {
            MediaKind::Audio => ("audio", if self.content == Content::Refused { 0 } else { 9 }),
            MediaKind::Video => ("video", if self.content == Content::Refused { 0 } else { 9 }),
        };
        let payload_type = offered.payload_type;
        let others: String = rtx.into_iter().chain(offered.red).map(|number| format!(" {number}")).collect();
        out.line(format_args!("m={word} {port} UDP/TLS/RTP/SAVPF {payload_type}{others}"));
        out.transport(&self.mid, local, Setup::ActPass, candidates);
        out.extensions(&extensions(offered.codec));
        out.line(format_args!("a={}", if track.is_some() { "sendonly" } else { "inactive" }));
        out.line(format_args!("a=rtcp-mux"));
        out.line(format_args!("a=rtcp-rsize"));
        out.payload(payload_type, &offered.codec.rtpmap(), feedback(kind), offered.fmtp);
        if let Some(rtx) = rtx {
            out.repair(rtx, payload_type);
        }
        if let Some(red) = offered.red {
            out.payload(red, &Codec::Red.rtpmap(), Feedback::default(), &format!("{payload_type}/{payload_type}"));
        }
        if let Some(track) = track {
            track.write(out);
        }
    }
}

impl SendTrack {
    fn write(&self, out: &mut Writer) {
        let Self { shown: track, publisher, ssrc, rtx_ssrc, .. } = self;
        out.line(format_args!("a=msid:{publisher}|{track} {track}"));
        if let Some(rtx) = rtx_ssrc {
            out.line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
        }
        for ssrc in [Some(*ssrc), *rtx_ssrc].into_iter().flatten() {
            out.line(format_args!("a=ssrc:{ssrc} cname:{publisher}"));
            out.line(format_args!("a=ssrc:{ssrc} msid:{publisher}|{track} {track}"));
        }
    }
}

/// What the client agreed to for a track that was offered. `None`: it does not receive it.
fn agree(mid: &str, track: &SendTrack, section: &Section<'_>) -> Option<SendSection> {
    if !section.direction.receives {
        return None;
    }
    let kind = track.kind;
    let offered = Offered::of_track(track)?;
    // An answer may number its formats differently (RFC 3264 6.1); then its numbers count for what we send.
    let payloads = section::payloads(section, kind);
    let payload = payloads.iter().find(|payload| offered.is_taken_as(payload.codec, &payload.fmtp))?;
    let red = payloads.iter().find(|red| offered.red.is_some() && payload.is_wrapped_by(red));
    let ours = extensions(offered.codec);
    let theirs = Extensions::received_in(section);
    // A mapping we did not offer, or under another number, was never agreed.
    let both = |ours: Option<u8>, theirs: Option<u8>| ours.filter(|_| ours == theirs);
    let extensions = Extensions {
        mid: both(ours.mid, theirs.mid),
        transport_sequence: both(ours.transport_sequence, theirs.transport_sequence)
            .filter(|_| payload.feedback.transport_cc),
        audio_level: both(ours.audio_level, theirs.audio_level),
        dependency: both(ours.dependency, theirs.dependency),
        ..Extensions::default()
    };
    Some(SendSection {
        track: track.track.clone(),
        mid: mid.to_owned(),
        payload_type: payload.payload_type,
        rtx_payload_type: payload.rtx_payload_type.filter(|_| track.rtx_ssrc.is_some()),
        red_payload_type: red.map(|red| red.payload_type),
        clock_rate: payload.codec.clock_rate(),
        extensions,
    })
}

/// Header extensions of our offers: one number means the same in all sections of a bundle (RFC 9143 9.2).
fn extensions(codec: Codec) -> Extensions {
    let kind = codec.kind();
    Extensions {
        audio_level: (kind == MediaKind::Audio).then_some(1),
        transport_sequence: Some(3),
        mid: Some(4),
        dependency: codec.has_dependency_descriptor().then_some(6),
        ..Extensions::default()
    }
}

fn feedback(kind: MediaKind) -> Feedback {
    let video = kind == MediaKind::Video;
    // Clients without transport-cc estimate by themselves and say so by REMB.
    Feedback { nack: true, transport_cc: true, pli: video, fir: video, remb: video }
}

impl From<MediaKind> for SectionKind {
    fn from(kind: MediaKind) -> Self {
        match kind {
            MediaKind::Audio => Self::Audio,
            MediaKind::Video => Self::Video,
        }
    }
}
