//! What the made-up media needs to know of a description: read line by line, apart from either implementation.

use std::collections::HashMap;

#[derive(Debug, Default, Clone)]
pub(crate) struct Section {
    pub(crate) mid: String,
    pub(crate) port: u16,
    pub(crate) direction: String,
    pub(crate) formats: Vec<u8>,
    /// Payload type of a repair by what it repairs.
    pub(crate) rtx: HashMap<u8, u8>,
    /// Ids by the last part of their URIs.
    pub(crate) extensions: HashMap<String, u8>,
    pub(crate) msid: Option<String>,
    pub(crate) ssrcs: Vec<u32>,
    pub(crate) repairs: HashMap<u32, u32>,
}

pub(crate) fn sections(sdp: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in sdp.lines() {
        if let Some(media) = line.strip_prefix("m=") {
            let mut words = media.split(' ');
            sections.push(Section {
                port: words.nth(1).and_then(|port| port.parse().ok()).unwrap_or_default(),
                formats: words.skip(1).filter_map(|format| format.parse().ok()).collect(),
                ..Section::default()
            });
        }
        let (Some(section), Some(attribute)) = (sections.last_mut(), line.strip_prefix("a=")) else { continue };
        let (name, value) = attribute.split_once(':').unwrap_or((attribute, ""));
        let (first, rest) = value.split_once(' ').unwrap_or((value, ""));
        match name {
            "mid" => section.mid = value.to_owned(),
            "sendrecv" | "sendonly" | "recvonly" | "inactive" => section.direction = name.to_owned(),
            "fmtp" => {
                if let (Ok(rtx), Some(Ok(media))) = (first.parse(), rest.strip_prefix("apt=").map(str::parse)) {
                    section.rtx.insert(media, rtx);
                }
            }
            "extmap" => {
                let uri = rest.rsplit(':').next().unwrap_or_default();
                let uri = uri.rsplit('/').next().unwrap_or_default();
                if let Some(id) = first.split('/').next().and_then(|id| id.parse().ok()) {
                    section.extensions.insert(uri.to_owned(), id);
                }
            }
            "msid" => section.msid = Some(value.to_owned()),
            "ssrc" => {
                let ssrc = first.parse().unwrap_or_default();
                if !section.ssrcs.contains(&ssrc) {
                    section.ssrcs.push(ssrc);
                }
            }
            "ssrc-group" if first == "FID" => {
                let mut words = rest.split(' ').filter_map(|ssrc| ssrc.parse().ok());
                if let (Some(media), Some(repair)) = (words.next(), words.next()) {
                    section.repairs.insert(media, repair);
                }
            }
            _ => {}
        }
    }
    sections
}

/// The description with VP8 and VP9 in each section that has one of them.
pub(crate) fn with_both_codecs(sdp: &str) -> String {
    let mut out = String::new();
    for line in sdp.lines() {
        let other = match line.split(' ').nth(3).filter(|_| line.starts_with("m=video")) {
            Some("96") => Some((98, "VP9/90000\r\na=fmtp:98 profile-id=0")),
            Some("98") => Some((96, "VP8/90000")),
            _ => None,
        };
        match other {
            Some((format, described)) => out += &format!("{line} {format}\r\na=rtpmap:{format} {described}\r\n"),
            None => out += &format!("{line}\r\n"),
        }
    }
    out
}

pub(crate) const MID: &str = "mid";
pub(crate) const RID: &str = "rtp-stream-id";
pub(crate) const REPAIRED_RID: &str = "repaired-rtp-stream-id";
pub(crate) const TRANSPORT_SEQUENCE: &str = "draft-holmer-rmcat-transport-wide-cc-extensions-01";
pub(crate) const AUDIO_LEVEL: &str = "ssrc-audio-level";
