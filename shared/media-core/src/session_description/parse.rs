//! Text to lines, sections and attributes, all borrowed. Unknown lines and attributes are kept and never judged.

use plenary_model::MediaKind;

use super::SdpLimits;
use crate::{Refusal, dtls::Fingerprint};

#[derive(Debug)]
pub(super) struct Description<'a> {
    session: Attributes<'a>,
    pub(super) sections: Vec<Section<'a>>,
}

/// One `m=` line and what belongs to it.
#[derive(Debug)]
pub(super) struct Section<'a> {
    pub(super) kind: SectionKind,
    /// Kept as written, like the next two: they are repeated when the section is refused.
    pub(super) media: &'a str,
    pub(super) protocol: &'a str,
    pub(super) formats: Vec<&'a str>,
    /// A token; empty only in a stopped section.
    pub(super) mid: &'a str,
    /// Port 0 means stopped or refused, unless the section only lives inside a bundle (RFC 9143 6).
    pub(super) stopped: bool,
    pub(super) direction: Direction,
    attributes: Attributes<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SectionKind {
    Audio,
    Video,
    Data,
    Unknown,
}

impl SectionKind {
    pub(super) fn media(self) -> Option<MediaKind> {
        match self {
            Self::Audio => Some(MediaKind::Audio),
            Self::Video => Some(MediaKind::Video),
            Self::Data | Self::Unknown => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Direction {
    pub(super) sends: bool,
    pub(super) receives: bool,
}

/// RFC 4145 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    Active,
    Passive,
    ActPass,
}

/// What a description says about its sender's end of the transport.
#[derive(Debug)]
pub(super) struct Transport<'a> {
    /// ICE user fragment and password: others than before are a restart (RFC 8839 4.4.3.1.1).
    pub(super) ice: (&'a str, &'a str),
    pub(super) fingerprint: Fingerprint,
    pub(super) setup: Setup,
    /// RFC 8841 6.1: absent means 64 KiB, 0 means any size.
    pub(super) max_message_bytes: usize,
}

impl<'a> Description<'a> {
    pub(super) fn parse(text: &'a str, limits: SdpLimits) -> Result<Self, Refusal> {
        if text.len() > limits.bytes {
            return Err(Refusal::SdpTooLarge { bytes: text.len(), limit: limits.bytes });
        }
        let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        if lines.next() != Some("v=0") {
            return Err(Refusal::Malformed("does not start with v=0"));
        }
        let mut session = Attributes::default();
        let mut media: Vec<(&str, Attributes<'_>)> = Vec::new();
        for (count, line) in lines.enumerate() {
            if count >= LINES_MAX {
                return Err(Refusal::Malformed("too many lines"));
            }
            // A carriage return inside a line is a line break to other parsers: what we repeat must not smuggle one.
            if line.contains(['\r', '\0']) {
                return Err(Refusal::Malformed("control character in a line"));
            }
            match line.split_once('=') {
                Some(("m", value)) => {
                    if media.len() >= limits.sections {
                        let sections = text.split('\n').filter(|line| line.starts_with("m=")).count();
                        return Err(Refusal::TooManySections { sections, limit: limits.sections });
                    }
                    media.push((value, Attributes::default()));
                }
                Some(("a", value)) => {
                    media.last_mut().map_or(&mut session, |(_, attributes)| attributes).push(value)?;
                }
                Some((kind, _)) if kind.len() == 1 => {}
                None if line.is_empty() => {}
                _ => return Err(Refusal::Malformed("a line is not <type>=<value>")),
            }
        }
        let sections = media
            .into_iter()
            .map(|(line, attributes)| Section::parse(line, attributes, &session))
            .collect::<Result<Vec<_>, _>>()?;
        let mut mids: Vec<&str> = sections.iter().map(|section| section.mid).filter(|mid| !mid.is_empty()).collect();
        mids.sort_unstable();
        if mids.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(Refusal::Malformed("two sections with one mid"));
        }
        Ok(Self { session, sections })
    }

    /// Mids of the first BUNDLE group. `None` if nothing is bundled.
    pub(super) fn bundle(&self) -> Option<Vec<&'a str>> {
        let group = self.session.values("group").find_map(|group| group.strip_prefix("BUNDLE"))?;
        Some(group.split_ascii_whitespace().collect())
    }

    pub(super) fn allows_mixed_extensions(&self) -> bool {
        self.session.has("extmap-allow-mixed")
    }

    /// The transport of the section that stands for the bundle. RFC 9143 7.2.1: the first mid of the group; a later
    /// section stands in when that one is stopped.
    pub(super) fn transport(&self) -> Result<Transport<'a>, Refusal> {
        let tagged = self.bundle().and_then(|mids| {
            mids.iter().find_map(|mid| self.sections.iter().find(|section| section.mid == *mid && !section.stopped))
        });
        let section = tagged.or_else(|| self.sections.iter().find(|section| !section.stopped));
        let find =
            |name| section.and_then(|section| section.attributes.value(name)).or_else(|| self.session.value(name));
        let ufrag = find("ice-ufrag").ok_or(Refusal::Missing("ICE user fragment"))?;
        let pwd = find("ice-pwd").ok_or(Refusal::Missing("ICE password"))?;
        // RFC 8839 5.4.
        if !is_ice_text(ufrag, 4) || !is_ice_text(pwd, 22) {
            return Err(Refusal::Malformed("ICE credentials"));
        }
        let fingerprint = section
            .filter(|section| section.attributes.has("fingerprint"))
            .map_or(&self.session, |section| &section.attributes)
            .values("fingerprint")
            .find_map(sha256)
            .ok_or(Refusal::Missing("sha-256 fingerprint"))?;
        let setup = match find("setup") {
            // RFC 4145 4.1: an offer without the attribute means active.
            None | Some("active") => Setup::Active,
            Some("passive") => Setup::Passive,
            Some("actpass") => Setup::ActPass,
            Some(_) => return Err(Refusal::Malformed("setup")),
        };
        let data = self.sections.iter().find(|section| section.kind == SectionKind::Data && !section.stopped);
        let max_message =
            data.and_then(|section| section.value("max-message-size")).and_then(|bytes| bytes.parse().ok());
        let max_message_bytes = max_message.unwrap_or(DEFAULT_MESSAGE_BYTES);
        Ok(Transport { ice: (ufrag, pwd), fingerprint, setup, max_message_bytes })
    }
}

impl<'a> Section<'a> {
    fn parse(line: &'a str, attributes: Attributes<'a>, session: &Attributes<'a>) -> Result<Self, Refusal> {
        const MALFORMED: Refusal = Refusal::Malformed("m= line");
        let mut words = line.split_ascii_whitespace();
        let media = words.next().ok_or(MALFORMED)?;
        let port: u16 = words.next().and_then(|port| port.parse().ok()).ok_or(MALFORMED)?;
        let protocol = words.next().ok_or(MALFORMED)?;
        let stopped = port == 0 && !attributes.has("bundle-only");
        let mid = match attributes.value("mid") {
            Some(mid) if is_token(mid) => mid,
            Some(_) => return Err(Refusal::Malformed("mid")),
            // pion refuses a section without naming it.
            None if stopped => "",
            None => return Err(Refusal::Missing("mid")),
        };
        Ok(Self {
            kind: match (media, protocol) {
                ("audio", _) => SectionKind::Audio,
                ("video", _) => SectionKind::Video,
                ("application", "UDP/DTLS/SCTP" | "TCP/DTLS/SCTP") => SectionKind::Data,
                _ => SectionKind::Unknown,
            },
            media,
            protocol,
            formats: words.take(FORMATS_MAX).collect(),
            mid,
            stopped,
            direction: Direction::of(&attributes).or_else(|| Direction::of(session)).unwrap_or(Direction::BOTH),
            attributes,
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.attributes.has(name)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a str> {
        self.attributes.value(name)
    }

    /// Values of every attribute of this name, in order.
    pub(super) fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.attributes.values(name)
    }

    /// Values of an attribute that starts with a payload type, for this one. `*` stands for all (RFC 4585 4.2).
    pub(super) fn values_for<'s>(&'s self, name: &'s str, payload_type: u8) -> impl Iterator<Item = &'a str> + 's {
        self.values(name).filter_map(move |value| {
            let (number, rest) = value.split_once(' ')?;
            (number == "*" || number.parse() == Ok(payload_type)).then_some(rest.trim())
        })
    }
}

impl Direction {
    const BOTH: Self = Self { sends: true, receives: true };

    fn of(attributes: &Attributes<'_>) -> Option<Self> {
        attributes.all.iter().find_map(|(name, _)| Self::of_word(name))
    }

    pub(super) fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "sendrecv" => Self::BOTH,
            "sendonly" => Self { sends: true, receives: false },
            "recvonly" => Self { sends: false, receives: true },
            "inactive" => Self { sends: false, receives: false },
            _ => return None,
        })
    }
}

/// The `a=` lines of one level in their order.
#[derive(Debug, Default)]
struct Attributes<'a> {
    all: Vec<(&'a str, &'a str)>,
}

impl<'a> Attributes<'a> {
    fn push(&mut self, text: &'a str) -> Result<(), Refusal> {
        if self.all.len() >= ATTRIBUTES_MAX {
            return Err(Refusal::Malformed("too many attributes in one section"));
        }
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        self.all.push((name.trim(), value.trim()));
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.all.iter().any(|(known, _)| *known == name)
    }

    fn value(&self, name: &str) -> Option<&'a str> {
        self.all.iter().find_map(|(known, value)| (*known == name).then_some(*value))
    }

    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'a str> + 's {
        self.all.iter().filter_map(move |(known, value)| (*known == name).then_some(*value))
    }
}

/// RFC 8866 9, `token`: what a mid may be made of. We repeat mids, so nothing else passes.
pub(super) fn is_token(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`{|}~".contains(&byte);
    !text.is_empty() && text.len() <= TOKEN_BYTES_MAX && text.bytes().all(allowed)
}

fn is_ice_text(text: &str, shortest: usize) -> bool {
    // RFC 8839 5.4 allows letters, digits, plus and slash; some stacks add punctuation, which harms nobody.
    (shortest..=ICE_TEXT_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// RFC 8122 5: hash name without regard to case, then hexadecimal pairs.
fn sha256(value: &str) -> Option<Fingerprint> {
    let (algorithm, digits) = value.split_once(' ')?;
    if !algorithm.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut fingerprint = [0; 32];
    let mut pairs = digits.trim().split(':');
    for byte in &mut fingerprint {
        let pair =
            pairs.next().filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(Fingerprint(fingerprint))
}

/// Most lines of a description: 32 for each of the most sections.
pub(super) const LINES_MAX: usize = 512 * 32;
/// Most attributes of one section or of the session. The largest seen in practice is 170.
pub(super) const ATTRIBUTES_MAX: usize = 1_024;
/// There are no more payload types; each is looked up in the attributes.
const FORMATS_MAX: usize = 128;
const TOKEN_BYTES_MAX: usize = 64;
const DEFAULT_MESSAGE_BYTES: usize = 65_536;
const ICE_TEXT_BYTES_MAX: usize = 256;
