//! A client's offers and our answers to them: which section carries which announced track, over all renegotiations.

use plenary_model::{MediaKind, TrackSid};

use super::{
    Extensions, LocalParameters, ReceiveSection,
    codec::{self, Codec},
    parse::{Description, Section, SectionKind, Setup, Transport},
    section::{self, Payload},
    write::{Origin, Writer},
};
use crate::{Announced, Published, Refusal, transport::RemoteParameters};

/// What is remembered between the offers of one publisher transport.
#[derive(Debug, Default)]
pub(crate) struct PublisherSdp {
    slots: Vec<Slot>,
    remote_ice: Option<(String, String)>,
    remote_is_dtls_client: Option<bool>,
    origin: Origin,
}

/// What one offer came to.
#[derive(Debug)]
pub(crate) struct PublisherAnswer {
    pub(crate) sdp: String,
    pub(crate) remote: RemoteParameters,
    /// The client's ICE credentials are new, and the answer names `restart` as ours.
    pub(crate) ice_restarted: bool,
    /// Every section that carries a track from now on.
    pub(crate) receive: Vec<ReceiveSection>,
    /// Tracks that found their section in this offer.
    pub(crate) published: Vec<Published>,
    /// Tracks whose section ended in this offer.
    pub(crate) gone: Vec<TrackSid>,
}

impl PublisherSdp {
    /// Answers an offer. `announced` comes oldest first.
    pub(crate) fn answer(
        &mut self,
        offer: &str,
        announced: &[Announced],
        local: &LocalParameters<'_>,
    ) -> Result<PublisherAnswer, Refusal> {
        let offer = Description::parse(offer, local.limits)?;
        let Transport { ice, fingerprint, setup, max_message_bytes } = offer.transport()?;
        let bundle = offer.bundle();
        let mut has_data = false;
        let mut sections = Vec::with_capacity(offer.sections.len());
        for (index, section) in offer.sections.iter().enumerate() {
            let slot = self.slots.get(index);
            if slot.is_some_and(|slot| !slot.may_become(section)) {
                return Err(Refusal::SectionsChanged);
            }
            let bundled = bundle.as_ref().map_or(index == 0, |mids| mids.contains(&section.mid));
            let agreed = if section.stopped || !bundled {
                Agreed::Nothing
            } else {
                Agreed::on(section, has_data, local.refused_codecs)
            };
            has_data |= agreed == Agreed::Data;
            sections.push((section, agreed, slot.filter(|slot| section.mid.is_empty() || slot.mid == section.mid)));
        }
        if sections.len() < self.slots.len() {
            return Err(Refusal::SectionsChanged);
        }

        let (slots, published) = assign(&sections, announced);
        let carried = |slots: &[Slot], track: &TrackSid| slots.iter().any(|slot| slot.carries(track));
        let gone = self.slots.iter().filter_map(|slot| Some(&slot.carried.as_ref()?.track));
        let gone = gone.filter(|track| !carried(&slots, track)).cloned().collect();

        // RFC 8842 5.3 lets a new association change the roles, ours never does: Chromium does not recover from it.
        let remote_is_dtls_client = *self.remote_is_dtls_client.get_or_insert(setup != Setup::Passive);
        let ice_restarted = self.remote_ice.as_ref().is_some_and(|(ufrag, pwd)| (ufrag.as_str(), pwd.as_str()) != ice);
        self.remote_ice = Some((ice.0.to_owned(), ice.1.to_owned()));
        let local = LocalParameters { ice: if ice_restarted { local.restart } else { local.ice }, ..*local };
        let sections: Vec<_> = sections.into_iter().map(|(section, agreed, _)| (section, agreed)).collect();
        let is_fresh = self.slots.iter().all(|slot| slot.carried.is_none());
        self.slots = slots;
        let answered: Vec<_> =
            sections.iter().zip(&self.slots).map(|((section, agreed), slot)| (*section, agreed, slot)).collect();
        let origin = self.origin.next(&local.ice.ufrag);
        let setup = if remote_is_dtls_client { Setup::Passive } else { Setup::Active };
        Ok(PublisherAnswer {
            sdp: write(&answered, origin, &offer, &local, setup, is_fresh),
            remote: RemoteParameters { fingerprint, remote_is_dtls_client, max_message_bytes },
            ice_restarted,
            receive: answered.iter().filter_map(|(section, agreed, slot)| agreed.receive(section, slot)).collect(),
            published,
            gone,
        })
    }
}

/// One section as it stood in the last offer.
#[derive(Debug)]
struct Slot {
    mid: String,
    kind: SectionKind,
    /// Port 0 in the offer or in our answer: the place may be taken by any other section (RFC 9429 5.2.2).
    stopped: bool,
    carried: Option<Carried>,
}

/// The track of a section, with what its announcement says about the answer.
#[derive(Debug, Clone)]
struct Carried {
    track: TrackSid,
    codec: Option<Codec>,
    stereo: bool,
    dtx: bool,
    red: bool,
}

impl Slot {
    fn carries(&self, track: &TrackSid) -> bool {
        self.carried.as_ref().is_some_and(|carried| carried.track == *track)
    }

    fn may_become(&self, section: &Section<'_>) -> bool {
        let unnamed = section.stopped && section.mid.is_empty();
        self.stopped || (self.kind == section.kind && (self.mid == section.mid || unnamed))
    }
}

impl Carried {
    fn of(announced: &Announced) -> Self {
        Self {
            track: announced.track.clone(),
            codec: Codec::of_mime(&announced.codec),
            stereo: announced.stereo,
            dtx: announced.dtx,
            red: announced.red,
        }
    }

    /// Only the wanted codec if it was offered, so that what the subscribers are promised is what comes. Redundant audio
    /// stands first: what is first is what clients send.
    fn choose(&self, payloads: &[Payload]) -> Vec<Payload> {
        let plain = || payloads.iter().filter(|payload| payload.codec != Codec::Red);
        let mut chosen: Vec<_> = plain().filter(|payload| Some(payload.codec) == self.codec).cloned().collect();
        if chosen.is_empty() {
            chosen = plain().cloned().collect();
        }
        let red = payloads
            .iter()
            .find(|payload| self.red && chosen.first().is_some_and(|first| first.is_wrapped_by(payload)));
        chosen.splice(..0, red.cloned());
        chosen
    }
}

/// What we agree to in a section, whether or not it carries a track.
#[derive(Debug, PartialEq, Eq)]
enum Agreed {
    Nothing,
    Data,
    Media { kind: MediaKind, payloads: Vec<Payload>, extensions: Extensions, sends: bool },
}

impl Agreed {
    fn on(section: &Section<'_>, has_data: bool, refused: &[plenary_model::Codec]) -> Self {
        if section.kind == SectionKind::Data {
            return if has_data { Self::Nothing } else { Self::Data };
        }
        let Some(kind) = section.kind.media() else { return Self::Nothing };
        let mut payloads = section::payloads(section, kind);
        payloads.retain(|payload| !refused.iter().any(|codec| payload.codec.mime() == codec.mime()));
        if payloads.iter().all(|payload| payload.codec == Codec::Red)
            || !section.has("rtcp-mux")
            || !section.protocol.ends_with("TLS/RTP/SAVPF")
        {
            return Self::Nothing;
        }
        let offered = Extensions::sent_in(section);
        let transport_cc = payloads.iter().any(|payload| payload.feedback.transport_cc);
        let extensions = offered.agreed_with_publisher(kind, transport_cc);
        for Payload { codec, feedback, .. } in &mut payloads {
            feedback.transport_cc &= extensions.transport_sequence.is_some();
            // Upstream congestion is told by transport-cc alone.
            feedback.remb = false;
            // No client offers it for audio, all of them honour it.
            feedback.nack |= *codec == Codec::Opus;
        }
        Self::Media { kind, payloads, extensions, sends: section.direction.sends }
    }

    /// Kind of the media that the client sends here.
    fn sent_kind(&self) -> Option<MediaKind> {
        match self {
            Self::Media { kind, sends: true, .. } => Some(*kind),
            Self::Media { .. } | Self::Data | Self::Nothing => None,
        }
    }

    fn receive(&self, section: &Section<'_>, slot: &Slot) -> Option<ReceiveSection> {
        let (Self::Media { payloads, extensions, .. }, Some(carried)) = (self, &slot.carried) else {
            return None;
        };
        let (ssrcs, rtx_ssrcs) = section::streams(section);
        let payloads = carried.choose(payloads);
        Some(ReceiveSection {
            track: carried.track.clone(),
            mid: slot.mid.clone(),
            extensions: extensions.for_codec(payloads.first().map(|payload| payload.codec)),
            payloads,
            rids: section::low_to_high(section::rids(section)),
            ssrcs,
            rtx_ssrcs,
        })
    }
}

/// Finds each sending section's track.
///
/// An announcement for the very id that a section says now is meant, even if the section carried another track: that one
/// ended and this one began between two offers. Otherwise a section keeps its track, whatever id it says now, since a
/// replaced source stays the same publication. What is left takes the oldest announcement of its kind: some browsers
/// make up ids.
fn assign(sections: &[(&Section<'_>, Agreed, Option<&Slot>)], announced: &[Announced]) -> (Vec<Slot>, Vec<Published>) {
    let mut slots: Vec<Slot> = sections
        .iter()
        .map(|(section, agreed, before)| Slot {
            mid: if section.mid.is_empty() {
                before.map(|slot| slot.mid.clone()).unwrap_or_default()
            } else {
                section.mid.to_owned()
            },
            kind: section.kind,
            stopped: *agreed == Agreed::Nothing,
            carried: before.and_then(|slot| slot.carried.clone()).filter(|_| agreed.sent_kind().is_some()),
        })
        .collect();
    let mut left: Vec<&Announced> =
        announced.iter().filter(|announced| !slots.iter().any(|slot| slot.carries(&announced.track))).collect();
    let mut published = Vec::new();
    for by_id in [true, false] {
        for ((section, agreed, _), slot) in sections.iter().zip(&mut slots) {
            let Some(kind) = agreed.sent_kind().filter(|_| by_id || slot.carried.is_none()) else { continue };
            let id = section::track_id(section);
            let is_its_own = |announced: &Announced| id.is_some_and(|id| announced.cids.iter().any(|cid| cid == id));
            let position =
                left.iter().position(|announced| announced.kind == kind && (!by_id || is_its_own(announced)));
            let Some(position) = position else { continue };
            let track = left.remove(position);
            let carried = Carried::of(track);
            if let Agreed::Media { payloads, .. } = agreed {
                published.push(Published {
                    track: track.track.clone(),
                    mid: slot.mid.clone(),
                    mime: carried.choose(payloads).first().map_or("", |payload| payload.codec.mime()).to_owned(),
                    cid: id.or(track.cids.first().map(String::as_str)).unwrap_or_default().to_owned(),
                });
            }
            slot.carried = Some(carried);
        }
    }
    (slots, published)
}

fn write(
    sections: &[(&Section<'_>, &Agreed, &Slot)],
    origin: (u64, u64),
    offer: &Description<'_>,
    local: &LocalParameters<'_>,
    setup: Setup,
    is_fresh: bool,
) -> String {
    let mut bundle: Vec<&str> =
        sections.iter().filter(|(_, _, slot)| !slot.stopped).map(|(section, ..)| section.mid).collect();
    let tagged = bundle.first().copied();
    if offer.bundle().is_none() {
        bundle.clear();
    }
    let mut out = Writer::session(origin, &bundle, offer.allows_mixed_extensions());
    for (section, agreed, slot) in sections {
        let candidates = tagged == Some(section.mid);
        match agreed {
            Agreed::Nothing => write_refused(&mut out, section),
            Agreed::Data => out.data(section.mid, local, setup, candidates),
            Agreed::Media { payloads, extensions, .. } => {
                let plain = || payloads.iter().filter(|payload| payload.codec != Codec::Red).cloned().collect();
                let payloads = slot.carried.as_ref().map_or_else(plain, |carried| carried.choose(payloads));
                let extensions = extensions.for_codec(payloads.first().map(|payload| payload.codec));
                write_media_line(&mut out, section, &payloads);
                out.transport(section.mid, local, setup, candidates);
                write_media(&mut out, section, &payloads, &extensions, slot, is_fresh);
            }
        }
    }
    out.finish()
}

/// RFC 9429 5.3.1: port 0, everything else as offered.
fn write_refused(out: &mut Writer, section: &Section<'_>) {
    out.line(format_args!("m={} 0 {} {}", section.media, section.protocol, section.formats.join(" ")));
    out.line(format_args!("c=IN IP4 0.0.0.0"));
    if !section.mid.is_empty() {
        out.line(format_args!("a=mid:{}", section.mid));
    }
    out.line(format_args!("a=inactive"));
}

fn write_media_line(out: &mut Writer, section: &Section<'_>, payloads: &[Payload]) {
    let formats = payloads.iter().flat_map(|payload| [Some(payload.payload_type), payload.rtx_payload_type]).flatten();
    let formats: Vec<String> = formats.map(|number| number.to_string()).collect();
    out.line(format_args!("m={} 9 {} {}", section.media, section.protocol, formats.join(" ")));
}

fn write_media(
    out: &mut Writer,
    section: &Section<'_>,
    payloads: &[Payload],
    extensions: &Extensions,
    slot: &Slot,
    is_fresh: bool,
) {
    out.extensions(extensions);
    if section.has("extmap-allow-mixed") {
        out.line(format_args!("a=extmap-allow-mixed"));
    }
    out.line(format_args!("a={}", if slot.carried.is_some() { "recvonly" } else { "inactive" }));
    out.line(format_args!("a=rtcp-mux"));
    if section.has("rtcp-rsize") {
        out.line(format_args!("a=rtcp-rsize"));
    }
    for payload in payloads {
        let fmtp = answered_fmtp(payload, slot.carried.as_ref(), is_fresh);
        out.payload(payload.payload_type, &payload.codec.rtpmap(), payload.feedback, &fmtp);
        if let Some(rtx) = payload.rtx_payload_type {
            out.repair(rtx, payload.payload_type);
        }
    }
    let rids = if slot.carried.is_some() { section::rids(section) } else { Vec::new() };
    for rid in &rids {
        out.line(format_args!("a=rid:{rid} recv"));
    }
    // libwebrtc turns a layer that the answer leaves out off for good, so all of them stay.
    if !rids.is_empty() && section.has("simulcast") {
        out.line(format_args!("a=simulcast:recv {}", rids.join(";")));
    }
}

/// What we as the receiver say about a format. Limits that the client set for its own receiving are not ours to repeat.
/// `is_fresh`: the transport has carried no track yet.
fn answered_fmtp(payload: &Payload, carried: Option<&Carried>, is_fresh: bool) -> String {
    let mut parameters: Vec<String> = Vec::new();
    match payload.codec {
        Codec::Opus => {
            for name in ["minptime", "useinbandfec"] {
                let offered = codec::parameter(&payload.fmtp, name).and_then(|value| value.parse::<u16>().ok());
                parameters.extend(offered.map(|value| format!("{name}={value}")));
            }
            if carried.is_some_and(|carried| carried.dtx) {
                parameters.push("usedtx=1".to_owned());
            }
            if carried.is_some_and(|carried| carried.stereo) {
                parameters.push("stereo=1".to_owned());
                parameters.push(format!("maxaveragebitrate={STEREO_BPS_MAX}"));
            }
        }
        Codec::H264 => {
            if codec::parameter(&payload.fmtp, "level-asymmetry-allowed") == Some("1") {
                parameters.push("level-asymmetry-allowed=1".to_owned());
            }
            parameters.push(format!("packetization-mode={}", codec::packetization_mode(&payload.fmtp)));
            let profile = codec::baseline_profile(&payload.fmtp);
            parameters.extend(profile.map(|profile| format!("profile-level-id={profile:06x}")));
        }
        Codec::Vp9 => {
            parameters.extend(codec::vp9_profile(&payload.fmtp).map(|profile| format!("profile-id={profile}")))
        }
        Codec::Av1 => {
            for name in ["level-idx", "profile", "tier"] {
                let offered = codec::parameter(&payload.fmtp, name).and_then(|value| value.parse::<u8>().ok());
                parameters.extend(offered.map(|value| format!("{name}={value}")));
            }
        }
        Codec::Red => parameters.extend(payload.wrapped.map(|inner| format!("{inner}/{inner}"))),
        Codec::Pcmu | Codec::Pcma | Codec::G722 | Codec::Vp8 | Codec::H265 => {}
    }
    if is_fresh && payload.codec.kind() == MediaKind::Video {
        // The rate in kb/s that the client's estimate shall start from: SDKs write it into their offer, libwebrtc takes it
        // from the answer. Later it would replace what the client has measured.
        let asked = codec::parameter(&payload.fmtp, START_BITRATE).and_then(|value| value.parse::<u32>().ok());
        parameters.extend(asked.map(|kbps| format!("{START_BITRATE}={kbps}")));
    }
    parameters.join(";")
}

const START_BITRATE: &str = "x-google-start-bitrate";

/// What clients are told to send at most for music in stereo.
const STEREO_BPS_MAX: u32 = 510_000;
