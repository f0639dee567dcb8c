//! Lines of the descriptions we write.

use std::fmt;

use super::{Extensions, LocalParameters, parse::Setup, section::Feedback};
use crate::sctp::MESSAGE_BYTES_MAX;

/// Who describes a session, RFC 8866 5.2: one id for its life, and a version that grows with each description.
#[derive(Debug, Default)]
pub(super) struct Origin {
    id: Option<u64>,
    version: u64,
}

impl Origin {
    /// Counts one description. The id comes from the first ICE user fragment, which is random and unique: the core
    /// draws nothing itself.
    pub(super) fn next(&mut self, ice_ufrag: &str) -> (u64, u64) {
        let id = *self.id.get_or_insert_with(|| session_id(ice_ufrag));
        self.version = self.version.saturating_add(1);
        (id, self.version)
    }
}

#[derive(Debug)]
pub(super) struct Writer {
    text: String,
}

impl Writer {
    pub(super) fn session((id, version): (u64, u64), bundle: &[&str], mixed_extensions: bool) -> Self {
        let mut out = Self { text: String::with_capacity(4_096) };
        out.line(format_args!("v=0"));
        out.line(format_args!("o=- {id} {version} IN IP4 127.0.0.1"));
        out.line(format_args!("s=-"));
        out.line(format_args!("t=0 0"));
        out.line(format_args!("a=ice-lite"));
        if mixed_extensions {
            out.line(format_args!("a=extmap-allow-mixed"));
        }
        out.line(format_args!("a=msid-semantic: WMS *"));
        if !bundle.is_empty() {
            out.line(format_args!("a=group:BUNDLE {}", bundle.join(" ")));
        }
        out
    }

    /// Our end of the transport. Candidates stand in the section that speaks for the bundle.
    pub(super) fn transport(&mut self, mid: &str, local: &LocalParameters<'_>, setup: Setup, candidates: bool) {
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        if candidates {
            for candidate in local.candidates {
                self.line(format_args!("a={candidate}"));
            }
            self.line(format_args!("a=end-of-candidates"));
        }
        self.line(format_args!("a=ice-ufrag:{}", local.ice.ufrag));
        self.line(format_args!("a=ice-pwd:{}", local.ice.pwd));
        self.line(format_args!("a=fingerprint:sha-256 {}", local.fingerprint));
        self.line(format_args!("a=setup:{}", setup.word()));
        self.line(format_args!("a=mid:{mid}"));
    }

    pub(super) fn data(&mut self, mid: &str, local: &LocalParameters<'_>, setup: Setup, candidates: bool) {
        self.line(format_args!("m=application 9 UDP/DTLS/SCTP webrtc-datachannel"));
        self.transport(mid, local, setup, candidates);
        self.line(format_args!("a=sctp-port:5000"));
        self.line(format_args!("a=max-message-size:{MESSAGE_BYTES_MAX}"));
    }

    pub(super) fn extensions(&mut self, extensions: &Extensions) {
        for (id, uri) in extensions.mappings() {
            let direction = if extensions.is_one_way(id) { "/recvonly" } else { "" };
            self.line(format_args!("a=extmap:{id}{direction} {uri}"));
        }
    }

    pub(super) fn payload(&mut self, number: u8, rtpmap: &str, feedback: Feedback, fmtp: &str) {
        self.line(format_args!("a=rtpmap:{number} {rtpmap}"));
        for value in feedback.values() {
            self.line(format_args!("a=rtcp-fb:{number} {value}"));
        }
        if !fmtp.is_empty() {
            self.line(format_args!("a=fmtp:{number} {fmtp}"));
        }
    }

    pub(super) fn repair(&mut self, number: u8, payload_type: u8) {
        self.line(format_args!("a=rtpmap:{number} rtx/90000"));
        self.line(format_args!("a=fmtp:{number} apt={payload_type}"));
    }

    pub(super) fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = fmt::Write::write_fmt(&mut self.text, line);
        self.text.push_str("\r\n");
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

impl Setup {
    fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
            Self::ActPass => "actpass",
        }
    }
}

/// FNV-1a, kept to 62 bits: clients read it as a signed number.
fn session_id(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    hash >> 2
}
