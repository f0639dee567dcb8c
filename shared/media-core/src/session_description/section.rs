//! What one media section of a client says, as values.

use plenary_model::{MediaKind, TrackSid};

use super::{
    codec::{self, Codec, SendCodec},
    parse::{Section, is_token},
};
use crate::ingress::Repair;

/// A section of a publisher that carries a track, as agreed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiveSection {
    pub(crate) track: TrackSid,
    pub(crate) mid: String,
    /// In the order of preference; never empty.
    pub(crate) payloads: Vec<Payload>,
    pub(crate) extensions: Extensions,
    /// Simulcast layers by name, low to high.
    pub(crate) rids: Vec<String>,
    /// Announced media streams; empty for simulcast by rid.
    pub(crate) ssrcs: Vec<u32>,
    /// Media stream and its repair stream.
    pub(crate) rtx_ssrcs: Vec<(u32, u32)>,
}

impl ReceiveSection {
    /// The codec that subscribers are told of.
    pub(crate) fn send_codec(&self) -> SendCodec {
        let (codec, fmtp) = self.told().map_or((Codec::Opus, ""), |payload| (payload.codec, payload.fmtp.as_str()));
        SendCodec { codec, fmtp: fmtp.to_owned(), red: self.red_payload_type().is_some() }
    }

    /// Whether this is the codec that subscribers are told of, or wraps it.
    pub(crate) fn forwards(&self, payload: &Payload) -> bool {
        payload.codec == Codec::Red
            || self.told().is_some_and(|told| {
                let same_profile = || codec::vp9_profile(&told.fmtp) == codec::vp9_profile(&payload.fmtp);
                told.codec == payload.codec && (told.codec != Codec::Vp9 || same_profile())
            })
    }

    /// The publisher's number for redundant audio.
    pub(crate) fn red_payload_type(&self) -> Option<u8> {
        self.payloads.iter().find(|payload| payload.codec == Codec::Red).map(|payload| payload.payload_type)
    }

    /// Of the codecs that were agreed the first, since it is what subscribers were told.
    fn told(&self) -> Option<&Payload> {
        self.payloads.iter().find(|payload| payload.codec != Codec::Red)
    }

    pub(crate) fn clock_rate(&self, payload_type: u8) -> u32 {
        let found = self.payloads.iter().find(|payload| payload.payload_type == payload_type);
        found.or(self.payloads.first()).map_or(Codec::Opus.clock_rate(), |payload| payload.codec.clock_rate())
    }

    /// Whether lost packets may be asked for again.
    pub(crate) fn repair(&self) -> Repair {
        let agreed = self.payloads.iter().any(|payload| payload.feedback.nack);
        if agreed { Repair::Requested } else { Repair::Unavailable }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) payload_type: u8,
    /// Of its repair stream.
    pub(crate) rtx_payload_type: Option<u8>,
    pub(super) codec: Codec,
    /// Format parameters in the client's words.
    pub(super) fmtp: String,
    /// The payload type that redundant audio carries.
    pub(super) wrapped: Option<u8>,
    pub(super) feedback: Feedback,
}

impl Payload {
    /// Whether `red` is redundant audio with this in it.
    pub(super) fn is_wrapped_by(&self, red: &Self) -> bool {
        red.wrapped == Some(self.payload_type)
    }
}

/// RTCP feedback that is agreed for a payload type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Feedback {
    pub(super) nack: bool,
    pub(super) pli: bool,
    pub(super) fir: bool,
    pub(super) transport_cc: bool,
    pub(super) remb: bool,
}

/// Header extension ids agreed on one transport. They differ from peer to peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    pub(crate) mid: Option<u8>,
    pub(crate) rid: Option<u8>,
    pub(crate) repaired_rid: Option<u8>,
    /// Only together with the feedback of the same name.
    pub(crate) transport_sequence: Option<u8>,
    pub(crate) audio_level: Option<u8>,
    /// Which frames need which (AV1 RTP payload format, appendix A).
    pub(crate) dependency: Option<u8>,
    /// Ids, one bit each, that the client offered for the way from itself alone.
    pub(super) one_way: u16,
}

impl Extensions {
    /// Every mapping that we know and that holds for what the client sends.
    pub(super) fn sent_in(section: &Section<'_>) -> Self {
        Self::of(section, "sendonly")
    }

    /// Every mapping that we know and that holds for what the client receives.
    pub(super) fn received_in(section: &Section<'_>) -> Self {
        Self::of(section, "recvonly")
    }

    /// RFC 8285 5: `<id>["/"<direction>] <uri>`. Firefox narrows what a camera's layers are named by.
    fn of(section: &Section<'_>, narrowed_to: &str) -> Self {
        let mut known = Self::default();
        let mut ids: Vec<u8> = Vec::new();
        for mapping in section.values("extmap") {
            let mut words = mapping.split_ascii_whitespace();
            let (Some(id), Some(uri)) = (words.next(), words.next()) else { continue };
            let (id, direction) = id.split_once('/').unwrap_or((id, "sendrecv"));
            let Some(id) = id.parse::<u8>().ok() else { continue };
            // RFC 8285 4.2: 0 is padding and 15 reserved.
            if matches!(id, 0 | 15) || ids.contains(&id) {
                continue;
            }
            let bit = if direction == "sendrecv" { Some(0) } else { 1u16.checked_shl(id.into()) };
            let Some(bit) = bit.filter(|_| direction == "sendrecv" || direction == narrowed_to) else { continue };
            let Some(place) = known.place(uri) else { continue };
            if place.is_none() {
                *place = Some(id);
                known.one_way |= bit;
                ids.push(id);
            }
        }
        known
    }

    /// What a publisher's section is answered with.
    pub(super) fn agreed_with_publisher(self, kind: MediaKind, transport_cc: bool) -> Self {
        let video = kind == MediaKind::Video;
        Self {
            mid: self.mid,
            rid: self.rid.filter(|_| video),
            repaired_rid: self.repaired_rid.filter(|_| video),
            transport_sequence: self.transport_sequence.filter(|_| transport_cc),
            audio_level: self.audio_level.filter(|_| !video),
            dependency: self.dependency.filter(|_| video),
            one_way: self.one_way,
        }
    }

    /// Without what the codec does not need.
    pub(super) fn for_codec(self, codec: Option<Codec>) -> Self {
        let described = codec.is_some_and(Codec::has_dependency_descriptor);
        Self { dependency: self.dependency.filter(|_| described), ..self }
    }

    /// Whether the client offered this id for the way from itself alone; then that is all we agree to.
    pub(super) fn is_one_way(&self, id: u8) -> bool {
        1u16.checked_shl(id.into()).is_some_and(|bit| self.one_way & bit != 0)
    }

    pub(super) fn mappings(&self) -> impl Iterator<Item = (u8, &'static str)> {
        [
            (self.audio_level, URI_AUDIO_LEVEL),
            (self.transport_sequence, URI_TRANSPORT_CC),
            (self.mid, URI_MID),
            (self.rid, URI_RID),
            (self.repaired_rid, URI_REPAIRED_RID),
            (self.dependency, URI_DEPENDENCY),
        ]
        .into_iter()
        .filter_map(|(id, uri)| Some((id?, uri)))
    }

    fn place(&mut self, uri: &str) -> Option<&mut Option<u8>> {
        Some(match uri {
            URI_MID => &mut self.mid,
            URI_RID => &mut self.rid,
            URI_REPAIRED_RID => &mut self.repaired_rid,
            URI_TRANSPORT_CC => &mut self.transport_sequence,
            URI_AUDIO_LEVEL => &mut self.audio_level,
            URI_DEPENDENCY => &mut self.dependency,
            _ => return None,
        })
    }
}

impl Feedback {
    fn of(section: &Section<'_>, payload_type: u8) -> Self {
        let mut feedback = Self::default();
        for value in section.values_for("rtcp-fb", payload_type) {
            match value {
                "nack" => feedback.nack = true,
                "nack pli" => feedback.pli = true,
                "ccm fir" => feedback.fir = true,
                "transport-cc" => feedback.transport_cc = true,
                "goog-remb" => feedback.remb = true,
                _ => {}
            }
        }
        feedback
    }

    pub(super) fn values(self) -> impl Iterator<Item = &'static str> {
        [
            (self.nack, "nack"),
            (self.pli, "nack pli"),
            (self.fir, "ccm fir"),
            (self.transport_cc, "transport-cc"),
            (self.remb, "goog-remb"),
        ]
        .into_iter()
        .filter_map(|(agreed, value)| agreed.then_some(value))
    }
}

/// The payload types of codecs this version speaks, in the client's order.
pub(super) fn payloads(section: &Section<'_>, kind: MediaKind) -> Vec<Payload> {
    let mut found: Vec<Payload> = Vec::new();
    for format in &section.formats {
        let Some(payload_type) = format.parse().ok().filter(|number| *number < 128) else { continue };
        let rtpmap = section.values_for("rtpmap", payload_type).next();
        let Some(codec) = rtpmap.and_then(|value| Codec::of_rtpmap(value, kind)) else { continue };
        let fmtp = section.values_for("fmtp", payload_type).next().unwrap_or_default();
        let forwardable = match codec {
            Codec::H264 => codec::baseline_profile(fmtp).is_some() && codec::packetization_mode(fmtp) <= 1,
            Codec::Vp9 => codec::vp9_profile(fmtp).is_some(),
            Codec::Av1 => codec::is_av1_main(fmtp),
            _ => codec.is_spoken(),
        };
        if !forwardable || found.iter().any(|known| known.payload_type == payload_type) {
            continue;
        }
        found.push(Payload {
            payload_type,
            rtx_payload_type: repair_of(section, payload_type),
            codec,
            fmtp: fmtp.to_owned(),
            wrapped: if codec == Codec::Red { codec::wrapped(fmtp) } else { None },
            feedback: Feedback::of(section, payload_type),
        });
    }
    found
}

/// RFC 4588 8.6: the `rtx` format whose `apt` is this payload type.
fn repair_of(section: &Section<'_>, payload_type: u8) -> Option<u8> {
    section.values("fmtp").find_map(|value| {
        let (number, fmtp) = value.split_once(' ')?;
        let number: u8 = number.parse().ok().filter(|number| *number < 128)?;
        let associated: u8 = codec::parameter(fmtp, "apt")?.parse().ok()?;
        let is_rtx = || section.values_for("rtpmap", number).any(|map| map.to_ascii_lowercase().starts_with("rtx/"));
        (associated == payload_type && is_rtx()).then_some(number)
    })
}

/// The client's id of the track that a section sends: the second word of `a=msid`, or of an older `a=ssrc … msid:`.
pub(super) fn track_id<'a>(section: &Section<'a>) -> Option<&'a str> {
    let of_streams = || section.values("ssrc").find_map(|value| value.split_once(' ')?.1.strip_prefix("msid:"));
    let msid = section.value("msid").or_else(of_streams)?;
    msid.split_ascii_whitespace().nth(1).filter(|id| id.len() <= TRACK_ID_BYTES_MAX)
}

/// Names of the layers that a section sends, in its order, RFC 8853 5.1. Of alternatives the first is taken, and a paused layer is
/// taken as a running one: layers go on and off by signalling.
pub(super) fn rids(section: &Section<'_>) -> Vec<String> {
    let mut declared: Vec<&str> = Vec::new();
    for value in section.values("rid") {
        let mut words = value.split_ascii_whitespace();
        if let (Some(rid), Some("send")) = (words.next(), words.next())
            && is_token(rid)
            && !declared.contains(&rid)
        {
            declared.push(rid);
        }
    }
    let mut words = section.value("simulcast").unwrap_or_default().split_ascii_whitespace();
    let mut layers = None;
    while let Some(word) = words.next() {
        if word == "send" {
            layers = words.next();
        }
    }
    let listed: Vec<&str> = match layers {
        Some(layers) => layers
            .split(';')
            .filter_map(|alternatives| alternatives.split(',').next())
            .map(|rid| rid.strip_prefix('~').unwrap_or(rid))
            .filter(|rid| declared.contains(rid))
            .collect(),
        None => declared,
    };
    let mut names: Vec<String> = Vec::new();
    for rid in listed.into_iter().take(RIDS_MAX) {
        if !names.iter().any(|known| known == rid) {
            names.push(rid.to_owned());
        }
    }
    names
}

/// By their names: clients list layers in either order. Names we do not know stay as they came.
pub(super) fn low_to_high(mut rids: Vec<String>) -> Vec<String> {
    let rank = |rid: &String| ["q", "h", "f"].iter().position(|known| known == rid);
    if rids.iter().all(|rid| rank(rid).is_some()) {
        rids.sort_by_key(rank);
    }
    rids
}

/// Media streams of a section, and the pairs of media and repair streams (RFC 5576 4.2). Streams of other groups, such
/// as forward error correction, are left out.
pub(super) fn streams(section: &Section<'_>) -> (Vec<u32>, Vec<(u32, u32)>) {
    let mut repair: Vec<(u32, u32)> = Vec::new();
    let mut others: Vec<u32> = Vec::new();
    for group in section.values("ssrc-group") {
        let mut words = group.split_ascii_whitespace();
        let semantics = words.next();
        let ssrcs = [words.next(), words.next()].map(|word| word.and_then(|word| word.parse().ok()));
        match (semantics, ssrcs) {
            (Some("FID"), [Some(media), Some(rtx)]) if repair.len() < SSRCS_MAX => repair.push((media, rtx)),
            (Some("FEC-FR" | "FEC"), [_, Some(fec)]) if others.len() < SSRCS_MAX => others.push(fec),
            _ => {}
        }
    }
    let mut media: Vec<u32> = Vec::new();
    for value in section.values("ssrc") {
        let ssrc = value.split_ascii_whitespace().next().and_then(|ssrc| ssrc.parse().ok());
        let Some(ssrc) = ssrc else { continue };
        let secondary = others.contains(&ssrc) || repair.iter().any(|(_, rtx)| *rtx == ssrc);
        if !secondary && !media.contains(&ssrc) && media.len() < SSRCS_MAX {
            media.push(ssrc);
        }
    }
    (media, repair)
}

/// Most layers of a track; further ones are not agreed to.
const RIDS_MAX: usize = 8;
/// Most streams of a section; further ones are unknown streams to the packet path.
const SSRCS_MAX: usize = 16;
/// Longest track id that is looked at.
const TRACK_ID_BYTES_MAX: usize = 256;

const URI_MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const URI_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const URI_REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const URI_DEPENDENCY: &str = "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
const URI_AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const URI_TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
