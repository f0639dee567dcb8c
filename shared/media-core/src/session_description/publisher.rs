//! Answers to a client's offers on its publisher transport.

use plenary_model::{MediaKind, TrackSid};

use super::{
    Extensions, LocalParameters, Payload, SendCodec,
    codec::{self, VIDEO_CLOCK_RATE},
    description::{Description, Kind, Section},
    write::{Setup, Transport, Writer, format_list},
};
use crate::{Announced, Published, Refusal, ingress::Repair, transport::RemoteParameters};

/// What a publisher transport has described so far.
#[derive(Debug, Default)]
pub(crate) struct PublisherSdp {
    known: Vec<Known>,
    ufrag: String,
    answers: u64,
    /// Said in the first answer and never changed: a transport whose roles flip is lost.
    setup: Option<Setup>,
}

/// A section as it stood after the last answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    mid: String,
    kind: Kind,
    refused: bool,
    carries: Option<Carried>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Carried {
    track: TrackSid,
    options: Options,
}

/// What the announcement said about how to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    codec: String,
    stereo: bool,
    dtx: bool,
}

#[derive(Debug)]
pub(crate) struct PublisherAnswer {
    pub(crate) sdp: String,
    pub(crate) remote: RemoteParameters,
    pub(crate) ice_restarted: bool,
    /// Every section that carries a track now.
    pub(crate) receive: Vec<ReceiveSection>,
    pub(crate) published: Vec<Published>,
    pub(crate) gone: Vec<TrackSid>,
}

/// A section of the publisher with a track in it, as far as its packets are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiveSection {
    pub(crate) track: TrackSid,
    pub(crate) mid: String,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) extensions: Extensions,
    /// Layers by their place in the track, low to high.
    pub(crate) rids: Vec<String>,
    pub(crate) ssrcs: Vec<u32>,
    /// (media, repair)
    pub(crate) rtx_ssrcs: Vec<(u32, u32)>,
    repair: Repair,
}

impl ReceiveSection {
    /// The codec that the answer put first, as subscribers are told of it.
    pub(crate) fn send_codec(&self) -> SendCodec {
        self.payloads.first().map_or_else(|| codec::fallback(MediaKind::Video), |payload| payload.codec.clone())
    }

    pub(crate) fn clock_rate(&self, payload_type: u8) -> u32 {
        let found = self.payloads.iter().find(|payload| payload.payload_type == payload_type);
        found.or(self.payloads.first()).map_or(VIDEO_CLOCK_RATE, |payload| payload.clock_rate)
    }

    pub(crate) fn repair(&self) -> Repair {
        self.repair
    }
}

impl PublisherSdp {
    pub(crate) fn answer(
        &mut self,
        offer: &str,
        announced: &[Announced],
        local: &LocalParameters<'_>,
    ) -> Result<PublisherAnswer, Refusal> {
        let offer = Description::parse(offer, local.limits)?;
        let remote = offer.remote()?;
        let ufrag = offer.ufrag()?;
        self.check_order(&offer)?;
        let ice_restarted = !self.ufrag.is_empty() && self.ufrag != ufrag;

        let mut matching = Matching { open: announced.iter().collect(), published: Vec::new() };
        let mut sections = Vec::with_capacity(offer.sections.len());
        for (at, section) in offer.sections.iter().enumerate() {
            let before = self.known.get(at).and_then(|known| known.carries.clone());
            sections.push(matching.section(section, before)?);
        }
        let gone = self.tracks().filter(|track| !sections.iter().any(|one| one.carries(track))).cloned().collect();

        // Only a client that insists on being the DTLS server makes us the client.
        let setup =
            *self.setup.get_or_insert(if remote.remote_is_dtls_client { Setup::Passive } else { Setup::Active });
        self.answers = self.answers.saturating_add(1);
        self.ufrag = ufrag.to_owned();
        let ice = if ice_restarted { local.restart } else { local.ice };
        let sdp = write_answer(self.answers, &offer, &sections, Transport { ice, local, setup })?;
        self.known = sections.iter().map(Answered::known).collect();
        Ok(PublisherAnswer {
            sdp,
            remote,
            ice_restarted,
            receive: sections.iter().filter_map(|one| one.receive.clone()).collect(),
            published: matching.published,
            gone,
        })
    }

    fn tracks(&self) -> impl Iterator<Item = &TrackSid> {
        self.known.iter().filter_map(|known| Some(&known.carries.as_ref()?.track))
    }

    /// RFC 9429 5.2.2: sections are never removed or moved; one that was refused may be used for something else.
    fn check_order(&self, offer: &Description<'_>) -> Result<(), Refusal> {
        if offer.sections.len() < self.known.len() {
            return Err(Refusal::SectionsChanged);
        }
        for (known, section) in self.known.iter().zip(&offer.sections) {
            let same = known.mid == section.mid()? && known.kind == section.kind;
            if !same && !known.refused {
                return Err(Refusal::SectionsChanged);
            }
        }
        Ok(())
    }
}

/// A section with what the answer says to it.
struct Answered {
    mid: String,
    kind: Kind,
    reply: Reply,
    carried: Option<Carried>,
    receive: Option<ReceiveSection>,
    payloads: Vec<Payload>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Receive,
    Data,
    Inactive,
    /// Port 0: there is nothing in it that we take.
    Refuse,
}

impl Answered {
    fn carries(&self, track: &TrackSid) -> bool {
        self.carried.as_ref().is_some_and(|carried| carried.track == *track)
    }

    fn known(&self) -> Known {
        let refused = self.reply == Reply::Refuse;
        Known { mid: self.mid.clone(), kind: self.kind, refused, carries: self.carried.clone() }
    }
}

/// Announced tracks that no section carries yet.
struct Matching<'a> {
    open: Vec<&'a Announced>,
    published: Vec<Published>,
}

impl Matching<'_> {
    fn section(&mut self, section: &Section<'_>, before: Option<Carried>) -> Result<Answered, Refusal> {
        let mid = section.mid()?.to_owned();
        let kind = section.kind;
        let plain =
            |reply, payloads| Answered { mid: mid.clone(), kind, reply, carried: None, receive: None, payloads };
        let media = match kind {
            Kind::Data if section.port == 0 => return Ok(plain(Reply::Refuse, Vec::new())),
            Kind::Data => return Ok(plain(Reply::Data, Vec::new())),
            Kind::Other => return Ok(plain(Reply::Refuse, Vec::new())),
            Kind::Audio => MediaKind::Audio,
            Kind::Video => MediaKind::Video,
        };
        if section.port == 0 {
            return Ok(plain(Reply::Refuse, Vec::new()));
        }
        let any = codec::taken(section, "");
        if any.is_empty() {
            return Ok(plain(Reply::Refuse, Vec::new()));
        }
        if !section.sends() {
            return Ok(plain(Reply::Inactive, any));
        }
        let Some((carried, new)) = self.track_for(section, media, before) else {
            return Ok(plain(Reply::Inactive, any));
        };
        let mut payloads = codec::taken(section, &carried.options.codec);
        payloads.retain(|payload| payload.codec.kind() == media);
        for payload in &mut payloads {
            if media == MediaKind::Audio {
                payload.format = opus_format(&carried.options);
            }
        }
        let Some(first) = payloads.first() else { return Ok(plain(Reply::Refuse, Vec::new())) };
        if new {
            let mime = first.codec.mime().to_owned();
            let cid = section.track_id().unwrap_or_default().to_owned();
            self.published.push(Published { track: carried.track.clone(), mid: mid.clone(), mime, cid });
        }
        let (ssrcs, rtx_ssrcs) = section.ssrcs();
        let receive = ReceiveSection {
            track: carried.track.clone(),
            mid: mid.clone(),
            payloads: payloads.clone(),
            extensions: section.extensions(),
            rids: low_to_high(section.send_rids()),
            ssrcs,
            rtx_ssrcs,
            // Audio is asked for it in the answer whether it offered or not.
            repair: if media == MediaKind::Audio || section.offers_nack() {
                Repair::Requested
            } else {
                Repair::Unavailable
            },
        };
        Ok(Answered { mid, kind, reply: Reply::Receive, carried: Some(carried), receive: Some(receive), payloads })
    }

    /// The track of a sending section, and whether it is a new one.
    ///
    /// An announcement for the very track id wins even over what the section carries: it was unpublished and published
    /// again before an offer could say so. A section that carries a track keeps it when its track id changes, since that
    /// is a replaced source. Otherwise the oldest announcement of the kind is meant: some browsers make up track ids.
    fn track_for(
        &mut self,
        section: &Section<'_>,
        kind: MediaKind,
        before: Option<Carried>,
    ) -> Option<(Carried, bool)> {
        let id = section.track_id().unwrap_or_default();
        let named = self.open.iter().position(|one| one.kind == kind && one.cids.iter().any(|cid| cid == id));
        let found = match (named, before) {
            (Some(at), _) => at,
            (None, Some(before)) => return Some((before, false)),
            (None, None) => self.open.iter().position(|one| one.kind == kind)?,
        };
        let announced = self.open.remove(found);
        let options = Options { codec: announced.codec.clone(), stereo: announced.stereo, dtx: announced.dtx };
        Some((Carried { track: announced.track.clone(), options }, true))
    }
}

fn write_answer(
    version: u64,
    offer: &Description<'_>,
    sections: &[Answered],
    transport: Transport<'_>,
) -> Result<String, Refusal> {
    let bundled: Vec<_> =
        sections.iter().filter(|one| one.reply != Reply::Refuse).map(|one| one.mid.as_str()).collect();
    let mut out = Writer::new(version, &bundled);
    let mut first = true;
    for (section, answered) in offer.sections.iter().zip(sections) {
        let kind = match section.kind {
            Kind::Audio => "audio",
            Kind::Video => "video",
            Kind::Data => "application",
            Kind::Other => return Err(Refusal::Malformed("a section of an unknown kind")),
        };
        if answered.reply == Reply::Refuse {
            let formats = section.formats.first().copied().unwrap_or("0");
            out.line(format_args!("m={kind} 0 {} {formats}", section.protocol));
            out.line("c=IN IP4 0.0.0.0");
            out.line(format_args!("a=mid:{}", answered.mid));
            out.line("a=inactive");
            continue;
        }
        if answered.reply == Reply::Data {
            out.data_section(DISCARD_PORT, section.protocol, &answered.mid);
            out.transport(transport, std::mem::take(&mut first));
            continue;
        }
        out.line(format_args!("m={kind} {DISCARD_PORT} {} {}", section.protocol, format_list(&answered.payloads)));
        out.transport(transport, std::mem::take(&mut first));
        out.line(format_args!("a=mid:{}", answered.mid));
        out.line(if answered.reply == Reply::Receive { "a=recvonly" } else { "a=inactive" });
        out.line("a=rtcp-mux");
        out.line("a=rtcp-rsize");
        out.payloads(&answered.payloads);
        out.extensions(&section.extensions());
        let rids = section.send_rids();
        if answered.reply == Reply::Receive && !rids.is_empty() {
            for rid in &rids {
                out.line(format_args!("a=rid:{rid} recv"));
            }
            // A layer left out here would be off for good.
            out.line(format_args!("a=simulcast:recv {}", rids.join(";")));
        }
    }
    Ok(out.finish())
}

/// Layers go by their names, since clients list them in either order.
fn low_to_high(mut rids: Vec<String>) -> Vec<String> {
    let rank = |rid: &String| ["q", "h", "f"].iter().position(|known| known == rid);
    if rids.iter().all(|rid| rank(rid).is_some()) {
        rids.sort_by_key(rank);
    }
    rids
}

fn opus_format(options: &Options) -> String {
    let mut format = codec::OPUS_FORMAT.to_owned();
    if options.dtx {
        format.push_str(";usedtx=1");
    }
    if options.stereo {
        format.push_str(";stereo=1;maxaveragebitrate=510000");
    }
    format
}

/// RFC 8840 4.1.1: the port of a section whose candidates are its transport's.
pub(super) const DISCARD_PORT: u16 = 9;
