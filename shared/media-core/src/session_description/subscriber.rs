//! Our offers on a client's subscriber transport, and its answers.

use plenary_model::{MediaKind, ParticipantSid, TrackSid};

use super::{
    Extensions, LocalParameters, Payload, SdpLimits, SendCodec,
    codec::{self, OPUS, VP8},
    description::{Description, Direction, Kind},
    publisher::DISCARD_PORT,
    write::{Setup, Transport, Writer, format_list},
};
use crate::{Refusal, transport::RemoteParameters};

/// What a subscriber transport has described so far. Sections never move; one that is empty is used again once the client
/// has answered that it is.
#[derive(Debug)]
pub(crate) struct SubscriberSdp {
    sections: Vec<Section>,
    /// Payload types of codecs that differ from the usual by their parameters.
    assigned: Vec<(SendCodec, u8)>,
    offers: u64,
    /// An offer is out.
    pending: bool,
}

#[derive(Debug)]
struct Section {
    mid: String,
    kind: Kind,
    carries: Option<SendTrack>,
    /// What the last accepted answer agreed to.
    agreed: Agreed,
    offered: Agreed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Agreed {
    Nothing,
    Empty,
    Track(TrackSid),
}

/// A track that shall be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendTrack {
    pub(crate) track: TrackSid,
    pub(crate) publisher: ParticipantSid,
    pub(crate) kind: MediaKind,
    pub(crate) codec: SendCodec,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) stereo: bool,
}

#[derive(Debug)]
pub(crate) struct SubscriberAnswer {
    pub(crate) remote: RemoteParameters,
    pub(crate) send: Vec<SendSection>,
    pub(crate) undecodable: Vec<TrackSid>,
}

/// A section that the client accepted, as far as its packets are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendSection {
    pub(crate) track: TrackSid,
    pub(crate) mid: String,
    pub(crate) payload_type: u8,
    pub(crate) rtx_payload_type: Option<u8>,
    pub(crate) clock_rate: u32,
    pub(crate) extensions: Extensions,
}

impl SubscriberSdp {
    pub(crate) fn new(data_channels: bool) -> Self {
        let data = Section {
            mid: "0".to_owned(),
            kind: Kind::Data,
            carries: None,
            agreed: Agreed::Nothing,
            offered: Agreed::Nothing,
        };
        let sections = if data_channels { vec![data] } else { Vec::new() };
        Self { sections, assigned: Vec::new(), offers: 0, pending: false }
    }

    /// What shall be sent from now on. True if the description must change for it.
    pub(crate) fn want(&mut self, tracks: &[SendTrack]) -> bool {
        let mut changed = false;
        for section in &mut self.sections {
            let gone = section.carries.take_if(|carried| !tracks.iter().any(|track| track.track == carried.track));
            changed |= gone.is_some();
        }
        for track in tracks {
            if self.sections.iter().any(|section| section.carries.as_ref().is_some_and(|one| one.track == track.track))
            {
                continue;
            }
            changed = true;
            let kind = match track.kind {
                MediaKind::Audio => Kind::Audio,
                MediaKind::Video => Kind::Video,
            };
            let empty = |one: &&mut Section| {
                one.kind == kind && one.carries.is_none() && one.agreed == Agreed::Empty && one.offered == Agreed::Empty
            };
            match self.sections.iter_mut().find(empty) {
                Some(section) => section.carries = Some(track.clone()),
                None => {
                    let mid = self.sections.len().to_string();
                    let (agreed, offered) = (Agreed::Nothing, Agreed::Nothing);
                    self.sections.push(Section { mid, kind, carries: Some(track.clone()), agreed, offered });
                }
            }
        }
        changed
    }

    pub(crate) fn offer(&mut self, local: &LocalParameters<'_>) -> String {
        self.offers = self.offers.saturating_add(1);
        self.pending = true;
        let bundled: Vec<_> = self.sections.iter().map(|section| section.mid.clone()).collect();
        let bundled: Vec<_> = bundled.iter().map(String::as_str).collect();
        let mut out = Writer::new(self.offers, &bundled);
        let transport = Transport { ice: local.ice, local, setup: Setup::ActPass };
        let assigned = &mut self.assigned;
        let mut first = true;
        for section in &mut self.sections {
            let carries_candidates = std::mem::take(&mut first);
            if section.kind == Kind::Data {
                out.data_section(DISCARD_PORT, "UDP/DTLS/SCTP", &section.mid);
                out.transport(transport, carries_candidates);
                continue;
            }
            let media = if section.kind == Kind::Audio { "audio" } else { "video" };
            let codec = match &section.carries {
                Some(track) => offered_codec(track),
                None if section.kind == Kind::Audio => codec::fallback(MediaKind::Audio),
                None => codec::fallback(MediaKind::Video),
            };
            let payloads = [payload_of(assigned, codec)];
            let formats = format_list(&payloads);
            out.line(format_args!("m={media} {DISCARD_PORT} UDP/TLS/RTP/SAVPF {formats}"));
            out.transport(transport, carries_candidates);
            out.line(format_args!("a=mid:{}", section.mid));
            out.line(if section.carries.is_some() { "a=sendonly" } else { "a=inactive" });
            out.line("a=rtcp-mux");
            out.line("a=rtcp-rsize");
            out.payloads(&payloads);
            out.extensions(&our_extensions(section.kind));
            section.offered = match &section.carries {
                Some(track) => {
                    write_track(&mut out, track);
                    Agreed::Track(track.track.clone())
                }
                None => Agreed::Empty,
            };
        }
        out.finish()
    }

    pub(crate) fn accept(&mut self, answer: &str, limits: SdpLimits) -> Result<SubscriberAnswer, Refusal> {
        if !std::mem::take(&mut self.pending) {
            return Err(Refusal::NotExpected);
        }
        let answer = Description::parse(answer, limits)?;
        let remote = answer.remote()?;
        // Sections that a change has added since the offer are not in the answer yet.
        let offered =
            self.sections.iter().filter(|one| one.kind == Kind::Data || one.offered != Agreed::Nothing).count();
        if answer.sections.len() != offered {
            return Err(Refusal::SectionsChanged);
        }
        let (mut send, mut undecodable) = (Vec::new(), Vec::new());
        for (section, answered) in self.sections.iter_mut().zip(&answer.sections) {
            if answered.kind != section.kind || answered.mid()? != section.mid {
                return Err(Refusal::SectionsChanged);
            }
            section.agreed = section.offered.clone();
            let Agreed::Track(offered) = &section.offered else { continue };
            // The track may have been withdrawn since the offer.
            let Some(track) = section.carries.as_ref().filter(|track| track.track == *offered) else { continue };
            let receives =
                answered.port != 0 && matches!(answered.direction(), Direction::RecvOnly | Direction::SendRecv);
            match codec::find(answered, &track.codec).filter(|_| receives) {
                Some(payload) => send.push(SendSection {
                    track: track.track.clone(),
                    mid: section.mid.clone(),
                    payload_type: payload.payload_type,
                    rtx_payload_type: payload.rtx_payload_type,
                    clock_rate: payload.clock_rate,
                    extensions: answered.extensions(),
                }),
                None => undecodable.push(track.track.clone()),
            }
        }
        Ok(SubscriberAnswer { remote, send, undecodable })
    }
}

/// Clients find the participant by the stream id and the track by the track id.
fn write_track(out: &mut Writer, track: &SendTrack) {
    let msid = format!("{}|{} {}", track.publisher, track.track, track.track);
    out.line(format_args!("a=msid:{msid}"));
    if let Some(rtx) = track.rtx_ssrc {
        out.line(format_args!("a=ssrc-group:FID {} {rtx}", track.ssrc));
    }
    for ssrc in [Some(track.ssrc), track.rtx_ssrc].into_iter().flatten() {
        out.line(format_args!("a=ssrc:{ssrc} cname:{}", track.publisher));
        out.line(format_args!("a=ssrc:{ssrc} msid:{msid}"));
    }
}

/// Receivers decode stereo only where the sender says that it is.
fn offered_codec(track: &SendTrack) -> SendCodec {
    let mut codec = track.codec.clone();
    if track.kind == MediaKind::Audio {
        codec.format = codec::OPUS_FORMAT.to_owned();
        if track.stereo {
            codec.format.push_str(";sprop-stereo=1;stereo=1");
        }
    }
    codec
}

/// The same codec with the same parameters has the same number on the whole transport (RFC 8843 9.1).
fn payload_of(assigned: &mut Vec<(SendCodec, u8)>, codec: SendCodec) -> Payload {
    let known = assigned.iter().find(|(known, _)| *known == codec).map(|(_, number)| *number);
    let payload_type = known.unwrap_or_else(|| {
        let usual = match codec.name {
            OPUS => OPUS_PAYLOAD_TYPE,
            VP8 => VP8_PAYLOAD_TYPE,
            _ => H264_PAYLOAD_TYPE,
        };
        let taken =
            |number: u8| assigned.iter().any(|(_, taken)| *taken == number || taken.checked_add(1) == Some(number));
        let free = std::iter::once(usual).chain((FIRST_FREE..LAST_FREE).step_by(2)).find(|number| !taken(*number));
        let number = free.unwrap_or(usual);
        assigned.push((codec.clone(), number));
        number
    });
    let rtx_payload_type = (codec.kind() == MediaKind::Video).then(|| payload_type.saturating_add(1));
    let format = codec.format.clone();
    Payload { payload_type, rtx_payload_type, clock_rate: codec.clock_rate(), codec, format }
}

fn our_extensions(kind: Kind) -> Extensions {
    Extensions {
        mid: Some(4),
        transport_sequence: Some(3),
        audio_level: (kind == Kind::Audio).then_some(1),
        orientation: (kind == Kind::Video).then_some(5),
        ..Extensions::default()
    }
}

const OPUS_PAYLOAD_TYPE: u8 = 111;
const VP8_PAYLOAD_TYPE: u8 = 96;
const H264_PAYLOAD_TYPE: u8 = 108;
/// Dynamic payload types for variants, two apart because a repair's follows.
const FIRST_FREE: u8 = 98;
const LAST_FREE: u8 = 126;
