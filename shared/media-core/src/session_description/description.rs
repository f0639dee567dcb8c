//! Reading an SDP into sections, borrowed from its text.

use super::{Extensions, SdpLimits};
use crate::{Refusal, dtls::Fingerprint, transport::RemoteParameters};

/// A description's sections with what stands before the first of them.
#[derive(Debug)]
pub(super) struct Description<'t> {
    session: Vec<Attribute<'t>>,
    pub(super) sections: Vec<Section<'t>>,
}

#[derive(Debug)]
pub(super) struct Section<'t> {
    pub(super) kind: Kind,
    pub(super) port: u16,
    pub(super) protocol: &'t str,
    pub(super) formats: Vec<&'t str>,
    attributes: Vec<Attribute<'t>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Audio,
    Video,
    Data,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

#[derive(Debug, Clone, Copy)]
struct Attribute<'t> {
    name: &'t str,
    value: &'t str,
}

impl<'t> Description<'t> {
    pub(super) fn parse(text: &'t str, limits: SdpLimits) -> Result<Self, Refusal> {
        if text.len() > limits.bytes {
            return Err(Refusal::SdpTooLarge { bytes: text.len(), limit: limits.bytes });
        }
        let lines = || text.split('\n').map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty());
        let sections = lines().filter(|line| line.starts_with("m=")).count();
        if sections > limits.sections {
            return Err(Refusal::TooManySections { sections, limit: limits.sections });
        }
        if lines().take(LINES_MAX.saturating_add(1)).count() > LINES_MAX {
            return Err(Refusal::Malformed("too many lines"));
        }
        let mut description = Self { session: Vec::new(), sections: Vec::new() };
        let mut has_version = false;
        for line in lines() {
            let (kind, value) = line.split_once('=').ok_or(Refusal::Malformed("a line without ="))?;
            match kind {
                "v" => has_version = value == "0",
                "m" => description.sections.push(Section::parse(value)?),
                "a" => {
                    let (name, value) = value.split_once(':').unwrap_or((value, ""));
                    let attribute = Attribute { name, value };
                    match description.sections.last_mut() {
                        Some(section) => section.attributes.push(attribute),
                        None => description.session.push(attribute),
                    }
                }
                _ => {}
            }
        }
        if has_version { Ok(description) } else { Err(Refusal::Malformed("no version line")) }
    }

    /// The transport that the description's bundle shares: the first section that is not refused speaks for all.
    pub(super) fn remote(&self) -> Result<RemoteParameters, Refusal> {
        let section = self.sections.iter().find(|section| section.port != 0).or(self.sections.first());
        let section = section.ok_or(Refusal::Missing("section"))?;
        let everywhere = |name| self.attributes_of(section, name);
        let fingerprint = everywhere("fingerprint").find_map(sha256).ok_or(Refusal::Missing("sha-256 fingerprint"))?;
        let remote_is_dtls_client = match everywhere("setup").next() {
            Some("active" | "actpass") => true,
            Some("passive") => false,
            _ => return Err(Refusal::Missing("setup attribute")),
        };
        let data = self.sections.iter().find(|section| section.kind == Kind::Data);
        let max_message =
            data.and_then(|section| section.attribute("max-message-size")).and_then(|text| text.parse().ok());
        Ok(RemoteParameters {
            fingerprint,
            remote_is_dtls_client,
            max_message_bytes: max_message.unwrap_or(DEFAULT_MESSAGE_BYTES),
        })
    }

    /// The client's ICE user fragment; another one than before means that it restarts.
    pub(super) fn ufrag(&self) -> Result<&'t str, Refusal> {
        let section = self.sections.iter().find(|section| section.port != 0).or(self.sections.first());
        let section = section.ok_or(Refusal::Missing("section"))?;
        let found = self.attributes_of(section, "ice-ufrag").next();
        found.filter(|ufrag| !ufrag.is_empty() && ufrag.len() <= UFRAG_BYTES_MAX).ok_or(Refusal::Missing("ice-ufrag"))
    }

    fn attributes_of<'s>(&'s self, section: &'s Section<'t>, name: &'s str) -> impl Iterator<Item = &'t str> + 's {
        let named = move |attribute: &&Attribute<'t>| attribute.name == name;
        section
            .attributes
            .iter()
            .filter(named)
            .chain(self.session.iter().filter(named))
            .map(|attribute| attribute.value)
    }
}

impl<'t> Section<'t> {
    fn parse(value: &'t str) -> Result<Self, Refusal> {
        let mut words = value.split_ascii_whitespace();
        let kind = match words.next() {
            Some("audio") => Kind::Audio,
            Some("video") => Kind::Video,
            Some("application") => Kind::Data,
            Some(_) => Kind::Other,
            None => return Err(Refusal::Malformed("an empty media line")),
        };
        let port = words.next().and_then(|port| port.split('/').next()?.parse().ok());
        let port = port.ok_or(Refusal::Malformed("a media line without a port"))?;
        let protocol = words.next().ok_or(Refusal::Malformed("a media line without a protocol"))?;
        Ok(Self { kind, port, protocol, formats: words.take(FORMATS_MAX).collect(), attributes: Vec::new() })
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'t str> {
        self.all(name).next()
    }

    pub(super) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'t str> + 's {
        self.attributes.iter().filter(move |attribute| attribute.name == name).map(|attribute| attribute.value)
    }

    pub(super) fn mid(&self) -> Result<&'t str, Refusal> {
        let usable = |mid: &&str| {
            let token = mid.bytes().all(|byte| byte.is_ascii_graphic());
            !mid.is_empty() && mid.len() <= MID_BYTES_MAX && token
        };
        self.attribute("mid").filter(usable).ok_or(Refusal::Missing("mid"))
    }

    pub(super) fn direction(&self) -> Direction {
        let of = |attribute: &Attribute<'_>| match attribute.name {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        };
        // RFC 8866 6.7: without a word it is both.
        self.attributes.iter().find_map(of).unwrap_or(Direction::SendRecv)
    }

    pub(super) fn sends(&self) -> bool {
        self.port != 0 && matches!(self.direction(), Direction::SendRecv | Direction::SendOnly)
    }

    /// Whether lost packets may be asked for again (RFC 4585 4.2).
    pub(super) fn offers_nack(&self) -> bool {
        self.all("rtcp-fb").any(|line| line.split_ascii_whitespace().skip(1).eq(["nack"]))
    }

    /// The track id of `a=msid:<stream> <track>`.
    pub(super) fn track_id(&self) -> Option<&'t str> {
        self.attribute("msid")?.split_ascii_whitespace().nth(1)
    }

    /// Ids of the extensions we use. Of an id that is given twice the first meaning counts.
    pub(super) fn extensions(&self) -> Extensions {
        let mut extensions = Extensions::default();
        for line in self.all("extmap") {
            let mut words = line.split_ascii_whitespace();
            let (Some(id), Some(uri)) = (words.next(), words.next()) else { continue };
            // The id may carry a direction (RFC 8285 5).
            let id = id.split('/').next().and_then(|id| id.parse().ok()).filter(|id| (1..=14).contains(id));
            let (Some(id), Some(slot)) = (id, extensions.slot(uri)) else { continue };
            slot.get_or_insert(id);
        }
        extensions
    }

    /// Layers the client sends, in the order it names them in `a=simulcast`.
    pub(super) fn send_rids(&self) -> Vec<String> {
        let declared = |rid: &str| {
            let is = |line: &str| {
                let mut words = line.split_ascii_whitespace();
                words.next() == Some(rid) && words.next() == Some("send")
            };
            self.all("rid").any(is)
        };
        let Some(simulcast) = self.attribute("simulcast") else { return Vec::new() };
        let mut words = simulcast.split_ascii_whitespace();
        let list = loop {
            match words.next() {
                Some("send") => break words.next(),
                Some(_) => continue,
                None => break None,
            }
        };
        // Alternatives are separated by commas and paused layers marked by a tilde (RFC 8853 5.1).
        let first = |one: &str| one.split(',').next().unwrap_or_default().trim_start_matches('~').to_owned();
        let usable = |rid: &String| !rid.is_empty() && rid.len() <= RID_BYTES_MAX && declared(rid);
        list.unwrap_or_default().split(';').map(first).filter(usable).take(RIDS_MAX).collect()
    }

    /// SSRCs that are written down, and which of them repairs which.
    pub(super) fn ssrcs(&self) -> (Vec<u32>, Vec<(u32, u32)>) {
        let mut ssrcs: Vec<u32> = Vec::new();
        for line in self.all("ssrc") {
            let ssrc = line.split_ascii_whitespace().next().and_then(|ssrc| ssrc.parse().ok());
            if let Some(ssrc) = ssrc.filter(|ssrc| !ssrcs.contains(ssrc) && ssrcs.len() < SSRCS_MAX) {
                ssrcs.push(ssrc);
            }
        }
        let pair = |line: &str| {
            let mut words = line.strip_prefix("FID ")?.split_ascii_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        let pairs: Vec<(u32, u32)> = self.all("ssrc-group").filter_map(pair).take(SSRCS_MAX).collect();
        ssrcs.retain(|ssrc| !pairs.iter().any(|(_, repair)| repair == ssrc));
        (ssrcs, pairs)
    }
}

fn sha256(value: &str) -> Option<Fingerprint> {
    let (algorithm, hex) = value.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut bytes = [0; 32];
    let mut pairs = hex.trim().split(':');
    for byte in &mut bytes {
        let pair = pairs.next().filter(|pair| pair.len() == 2)?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(Fingerprint(bytes))
}

/// More than 512 sections need; each further line costs memory.
const LINES_MAX: usize = 40_000;
const FORMATS_MAX: usize = 128;
const MID_BYTES_MAX: usize = 16;
const RID_BYTES_MAX: usize = 16;
const RIDS_MAX: usize = 3;
const SSRCS_MAX: usize = 16;
const UFRAG_BYTES_MAX: usize = 256;

/// RFC 8841 6.1: where nothing is said.
const DEFAULT_MESSAGE_BYTES: usize = 65_536;
