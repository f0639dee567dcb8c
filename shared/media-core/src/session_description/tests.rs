mod hostile;
mod interop;
mod publisher;
mod subscriber;

use plenary_model::{MediaKind, ParticipantSid, Source, TrackSid};

use super::*;
use crate::{Announced, Refusal};

/// One file of `tests/goldens/sdp`.
macro_rules! golden {
    ($name:literal) => {
        include_str!(concat!("../../tests/goldens/sdp/", $name, ".sdp"))
    };
}

/// Offers of real clients: Chromium 156 as it wrote them, the Python client's fallback with its three and three filler
/// sections, and the ways of pion and Firefox.
const CHROMIUM_SIMULCAST: &str = golden!("chromium-simulcast.offer");
const CHROMIUM_SINGLE: &str = golden!("chromium-single-stream.offer");
const CHROMIUM_DATA: &str = golden!("chromium-data-only.offer");
const PYTHON_FALLBACK: &str = golden!("python-fallback.offer");
const PION_H264: &str = golden!("pion-h264.offer");
const FIREFOX: &str = golden!("firefox-simulcast.offer");

const OFFERS: [&str; 6] = [CHROMIUM_SIMULCAST, CHROMIUM_SINGLE, CHROMIUM_DATA, PYTHON_FALLBACK, PION_H264, FIREFOX];

/// Our answers to them.
const ANSWERS: [&str; 6] = [
    golden!("chromium-simulcast.answer"),
    golden!("chromium-single-stream.answer"),
    golden!("chromium-data-only.answer"),
    golden!("python-fallback.answer"),
    golden!("pion-h264.answer"),
    golden!("firefox-simulcast.answer"),
];

const CAMERA_CID: &str = "ed98a081-6366-4bcd-ab7a-bca07dc0d6dc";
const MICROPHONE_CID: &str = "565455b5-c678-4938-a79e-c0fddfeefffd";

/// Our end of a transport.
struct Local {
    ice: IceCredentials,
    restart: IceCredentials,
    fingerprint: String,
    candidates: Vec<String>,
}

impl Local {
    fn new() -> Self {
        let ice =
            |name: &str| IceCredentials { ufrag: name.to_owned(), pwd: format!("{name}-password-of-enough-length") };
        let fingerprint: Vec<_> = (0..32).map(|byte| format!("{byte:02X}")).collect();
        Self {
            ice: ice("ours"),
            restart: ice("restarted"),
            fingerprint: fingerprint.join(":"),
            candidates: vec![
                "candidate:1 1 udp 2130706431 203.0.113.1 7882 typ host".to_owned(),
                "candidate:2 1 tcp 1518280447 203.0.113.1 7881 typ host tcptype passive".to_owned(),
            ],
        }
    }

    fn parameters(&self) -> LocalParameters<'_> {
        LocalParameters {
            ice: &self.ice,
            restart: &self.restart,
            fingerprint: &self.fingerprint,
            candidates: &self.candidates,
            limits: SdpLimits::default(),
            refused_codecs: &[],
        }
    }
}

fn announced(track: &str, kind: MediaKind, cid: &str, codec: &str) -> Announced {
    Announced {
        source: Source::Unknown,
        track: TrackSid::from(track),
        kind,
        cids: vec![cid.to_owned()],
        codec: codec.to_owned(),
        stereo: false,
        dtx: true,
        red: false,
        encrypted: false,
        trailers: false,
        layers: Vec::new(),
    }
}

fn camera() -> Announced {
    announced("TR_VCcamera", MediaKind::Video, CAMERA_CID, "video/vp8")
}

fn microphone() -> Announced {
    announced("TR_AMmicrophone", MediaKind::Audio, MICROPHONE_CID, "")
}

fn answer(publisher: &mut PublisherSdp, offer: &str, announced: &[Announced]) -> PublisherAnswer {
    publisher.answer(offer, announced, &Local::new().parameters()).unwrap()
}

fn sids(tracks: &[TrackSid]) -> Vec<&str> {
    tracks.iter().map(TrackSid::as_str).collect()
}

/// The lines of each section of a description, its `m=` line first.
fn sections(sdp: &str) -> Vec<Vec<&str>> {
    let mut sections: Vec<Vec<&str>> = Vec::new();
    for line in sdp.lines() {
        if line.starts_with("m=") {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections
}

/// Which section stands where: its kind and mid.
fn order(sdp: &str) -> Vec<(String, String)> {
    let kind = |line: &str| line.split(' ').next().unwrap().to_owned();
    let mid = |section: &[&str]| section.iter().find_map(|line| line.strip_prefix("a=mid:")).unwrap().to_owned();
    sections(sdp).iter().map(|section| (kind(section[0]), mid(section))).collect()
}

fn track(name: &str, kind: MediaKind, ssrc: u32) -> SendTrack {
    let offer = if kind == MediaKind::Audio { CHROMIUM_SIMULCAST } else { CHROMIUM_SINGLE };
    SendTrack {
        track: TrackSid::from(name),
        shown: TrackSid::from(name),
        publisher: ParticipantSid::from("PA_ann"),
        kind,
        codec: codec_of(offer, kind, if kind == MediaKind::Audio { "audio/opus" } else { "video/VP8" }),
        ssrc,
        rtx_ssrc: (kind == MediaKind::Video).then_some(ssrc + 1),
        stereo: false,
    }
}

/// The codec that subscribers are told of when a publisher with this offer announces this one.
fn codec_of(offer: &str, kind: MediaKind, mime: &str) -> SendCodec {
    let mut publisher = PublisherSdp::default();
    let received = answer(&mut publisher, offer, &[announced("TR_any", kind, "any", mime)]).receive;
    received[0].send_codec()
}

/// A client that takes whatever it is offered, in libwebrtc's words.
fn agreeing_client(offer: &str) -> String {
    let drop = ["a=ice-lite", "a=candidate", "a=end-of-candidates", "a=msid:", "a=ssrc", "a=msid-semantic"];
    let kept = offer.lines().filter(|line| !drop.iter().any(|start| line.starts_with(start)));
    let answered: Vec<_> = kept
        .map(|line| match line {
            "a=sendonly" => "a=recvonly",
            "a=setup:actpass" => "a=setup:active",
            line => line,
        })
        .collect();
    answered.join("\r\n") + "\r\n"
}

fn accept(subscriber: &mut SubscriberSdp, answer: &str) -> super::subscriber::SubscriberAnswer {
    subscriber.accept(answer, SdpLimits::default()).unwrap()
}

/// One whole round of offer and answer with a client that takes everything.
fn negotiate(subscriber: &mut SubscriberSdp) -> (String, Vec<SendSection>) {
    let offer = subscriber.offer(&Local::new().parameters());
    let answer = accept(subscriber, &agreeing_client(&offer));
    assert!(answer.undecodable.is_empty());
    (offer, answer.send)
}
