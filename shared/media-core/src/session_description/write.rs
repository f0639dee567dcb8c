//! Writing descriptions.

use std::fmt::Write as _;

use super::{Extensions, LocalParameters, MESSAGE_BYTES_MAX, Payload};
use crate::IceCredentials;

/// A description as it grows. Lines end as RFC 8866 5 wants.
pub(super) struct Writer {
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    ActPass,
    Active,
    Passive,
}

/// What every section of a bundle repeats.
#[derive(Clone, Copy)]
pub(super) struct Transport<'a> {
    pub(super) ice: &'a IceCredentials,
    pub(super) local: &'a LocalParameters<'a>,
    pub(super) setup: Setup,
}

impl Writer {
    /// `version` counts the descriptions of this transport.
    pub(super) fn new(version: u64, bundled: &[&str]) -> Self {
        let mut writer = Self { text: String::with_capacity(4096) };
        writer.line("v=0");
        writer.line(format_args!("o=- {SESSION_ID} {version} IN IP4 127.0.0.1"));
        writer.line("s=-");
        writer.line("t=0 0");
        writer.line("a=ice-lite");
        if !bundled.is_empty() {
            writer.line(format_args!("a=group:BUNDLE {}", bundled.join(" ")));
        }
        writer.line("a=extmap-allow-mixed");
        writer.line("a=msid-semantic: WMS *");
        writer
    }

    pub(super) fn line(&mut self, line: impl std::fmt::Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.text, "{line}\r\n");
    }

    /// `carries_candidates` for the first section that is not refused: the others share its transport.
    pub(super) fn transport(&mut self, transport: Transport<'_>, carries_candidates: bool) {
        self.line("c=IN IP4 0.0.0.0");
        self.line(format_args!("a=ice-ufrag:{}", transport.ice.ufrag));
        self.line(format_args!("a=ice-pwd:{}", transport.ice.pwd));
        self.line(format_args!("a=fingerprint:sha-256 {}", transport.local.fingerprint));
        self.line(match transport.setup {
            Setup::ActPass => "a=setup:actpass",
            Setup::Active => "a=setup:active",
            Setup::Passive => "a=setup:passive",
        });
        if carries_candidates {
            for candidate in transport.local.candidates {
                self.line(format_args!("a={candidate}"));
            }
            self.line("a=end-of-candidates");
        }
    }

    /// Payload types with their feedback; repairs follow what they repair.
    pub(super) fn payloads(&mut self, payloads: &[Payload]) {
        for payload in payloads {
            let number = payload.payload_type;
            self.line(format_args!("a=rtpmap:{number} {}", payload.codec.name));
            if !payload.format.is_empty() {
                self.line(format_args!("a=fmtp:{number} {}", payload.format));
            }
            self.line(format_args!("a=rtcp-fb:{number} transport-cc"));
            self.line(format_args!("a=rtcp-fb:{number} nack"));
            if payload.codec.kind() == plenary_model::MediaKind::Video {
                self.line(format_args!("a=rtcp-fb:{number} nack pli"));
                self.line(format_args!("a=rtcp-fb:{number} ccm fir"));
            }
            if let Some(rtx) = payload.rtx_payload_type {
                self.line(format_args!("a=rtpmap:{rtx} rtx/90000"));
                self.line(format_args!("a=fmtp:{rtx} apt={number}"));
            }
        }
    }

    pub(super) fn extensions(&mut self, extensions: &Extensions) {
        for (id, uri) in extensions.lines() {
            self.line(format_args!("a=extmap:{id} {uri}"));
        }
    }

    pub(super) fn data_section(&mut self, port: u16, protocol: &str, mid: &str) {
        self.line(format_args!("m=application {port} {protocol} webrtc-datachannel"));
        self.line(format_args!("a=mid:{mid}"));
        self.line("a=sctp-port:5000");
        self.line(format_args!("a=max-message-size:{MESSAGE_BYTES_MAX}"));
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// The numbers of payload types as a media line lists them.
pub(super) fn format_list(payloads: &[Payload]) -> String {
    let numbers = payloads.iter().flat_map(|one| [Some(one.payload_type), one.rtx_payload_type]).flatten();
    let texts: Vec<_> = numbers.map(|number| number.to_string()).collect();
    texts.join(" ")
}

/// The same for every transport: clients tell them apart by their PeerConnection.
const SESSION_ID: u64 = 4_611_686_018_427_387_904;
