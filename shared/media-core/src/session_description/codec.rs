//! Codecs: which of an offer's payload types are taken, and how a track's codec is described to its subscribers.

use plenary_model::MediaKind;

use super::description::Section;

/// A payload type of a publisher's section that is taken, with the one that repairs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) payload_type: u8,
    pub(crate) rtx_payload_type: Option<u8>,
    pub(crate) clock_rate: u32,
    pub(crate) codec: SendCodec,
    /// Parameters as this description says them. Echoed in answers: a client that finds others under its number takes a
    /// new number for its own, and has none left after some renegotiations.
    pub(crate) format: String,
}

/// A codec as subscribers are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SendCodec {
    /// As in `a=rtpmap`: `opus/48000/2`, `VP8/90000`.
    pub(crate) name: &'static str,
    pub(crate) format: String,
}

impl SendCodec {
    pub(crate) fn mime(&self) -> &'static str {
        match self.name {
            OPUS => "audio/opus",
            H264 => "video/H264",
            _ => "video/VP8",
        }
    }

    pub(crate) fn kind(&self) -> MediaKind {
        if self.name == OPUS { MediaKind::Audio } else { MediaKind::Video }
    }

    pub(crate) fn clock_rate(&self) -> u32 {
        if self.name == OPUS { AUDIO_CLOCK_RATE } else { VIDEO_CLOCK_RATE }
    }
}

/// What a section that carries nothing is written with.
pub(super) fn fallback(kind: MediaKind) -> SendCodec {
    match kind {
        MediaKind::Audio => SendCodec { name: OPUS, format: OPUS_FORMAT.to_owned() },
        MediaKind::Video => SendCodec { name: VP8, format: String::new() },
    }
}

/// The payload types of a section that we take, the preferred codec first, otherwise as offered.
pub(super) fn taken(section: &Section<'_>, preferred: &str) -> Vec<Payload> {
    let mut payloads: Vec<_> = section.formats.iter().filter_map(|format| payload(section, format)).collect();
    let is_preferred = |one: &Payload| {
        let name = preferred.rsplit('/').next().unwrap_or_default();
        one.codec.mime().rsplit('/').next().is_some_and(|mine| mine.eq_ignore_ascii_case(name))
    };
    // Stable, so that the client's order stays within each half.
    payloads.sort_by_key(|one| !is_preferred(one));
    payloads
}

/// The payload of a section that carries this codec, in a client's answer.
pub(super) fn find(section: &Section<'_>, wanted: &SendCodec) -> Option<Payload> {
    let mut offered = section.formats.iter().filter_map(|format| payload(section, format));
    offered.find(|one| one.codec.name == wanted.name)
}

fn payload(section: &Section<'_>, format: &str) -> Option<Payload> {
    let payload_type: u8 = format.parse().ok().filter(|payload_type| *payload_type < 128)?;
    let rtpmap = map_line(section, "rtpmap", format)?;
    let parameters = map_line(section, "fmtp", format).unwrap_or_default();
    let known = [OPUS, VP8, H264].into_iter().find(|known| same_codec(known, rtpmap))?;
    let (own, common) = match known {
        H264 => (parameters.to_owned(), h264_format(parameters)?),
        OPUS => (OPUS_FORMAT.to_owned(), OPUS_FORMAT.to_owned()),
        _ => (String::new(), String::new()),
    };
    let codec = SendCodec { name: known, format: common };
    let rtx_payload_type = rtx_of(section, format);
    Some(Payload { payload_type, rtx_payload_type, clock_rate: codec.clock_rate(), codec, format: own })
}

/// The repair payload type whose `apt` is this one (RFC 4588 8.1).
fn rtx_of(section: &Section<'_>, format: &str) -> Option<u8> {
    let repairs = |candidate: &&&str| {
        let is_rtx = map_line(section, "rtpmap", candidate).is_some_and(|name| same_codec("rtx/90000", name));
        is_rtx && parameter(map_line(section, "fmtp", candidate).unwrap_or_default(), "apt") == Some(format)
    };
    section.formats.iter().find(repairs)?.parse().ok().filter(|payload_type: &u8| *payload_type < 128)
}

fn map_line<'t>(section: &Section<'t>, name: &str, format: &str) -> Option<&'t str> {
    let value_of = |line: &'t str| {
        let (first, rest) = line.split_once(' ')?;
        (first == format).then_some(rest.trim())
    };
    section.all(name).find_map(value_of)
}

fn same_codec(known: &str, rtpmap: &str) -> bool {
    known.eq_ignore_ascii_case(rtpmap)
}

fn parameter<'t>(parameters: &'t str, name: &str) -> Option<&'t str> {
    parameters.split(';').find_map(|one| {
        let (key, value) = one.trim().split_once('=')?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Baseline and main, which every subscriber decodes; a high profile would reach those who do not.
fn h264_format(parameters: &str) -> Option<String> {
    let profile = parameter(parameters, "profile-level-id").unwrap_or("42001f");
    let mode = parameter(parameters, "packetization-mode").unwrap_or("0");
    let family = profile.get(..2)?;
    if !["42", "4d", "4D"].contains(&family) || !["0", "1"].contains(&mode) {
        return None;
    }
    // Clients offer both members of the baseline family under one or the other name.
    let profile = if family == "42" { "42e01f" } else { "4d001f" };
    Some(format!("level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}"))
}

pub(super) const OPUS: &str = "opus/48000/2";
pub(super) const VP8: &str = "VP8/90000";
pub(super) const H264: &str = "H264/90000";
pub(super) const OPUS_FORMAT: &str = "minptime=10;useinbandfec=1";
pub(super) const AUDIO_CLOCK_RATE: u32 = 48_000;
pub(super) const VIDEO_CLOCK_RATE: u32 = 90_000;
