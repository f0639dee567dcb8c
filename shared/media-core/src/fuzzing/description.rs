//! Descriptions one after the other, as offers to a publisher transport and as answers to a subscriber transport.

use plenary_model::{MediaKind, ParticipantSid, Source, TrackSid};

use crate::{
    Announced, IceCredentials, SdpLimits,
    session_description::{LocalParameters, PublisherSdp, SendTrack, SubscriberSdp},
};

/// Descriptions are kept apart by zero bytes.
pub(super) fn sdp(input: &[u8]) {
    let ice = IceCredentials { ufrag: "ours".into(), pwd: "a-password-of-24-bytes-or-so".into() };
    let restart = IceCredentials { ufrag: "next".into(), pwd: "another-password-of-24-bytes".into() };
    let candidates = ["candidate:1 1 udp 2130706431 203.0.113.1 7882 typ host".to_owned()];
    let limits = SdpLimits { bytes: 64 << 10, sections: 32 };
    let local = LocalParameters {
        ice: &ice,
        restart: &restart,
        fingerprint: &["AB"; 32].join(":"),
        candidates: &candidates,
        limits,
        refused_codecs: &[],
    };
    let announced = [
        announced("TR_cam", MediaKind::Video, "video/vp8"),
        announced("TR_screen", MediaKind::Video, ""),
        announced("TR_mic", MediaKind::Audio, ""),
    ];
    let mut publisher = PublisherSdp::default();
    let mut subscriber = SubscriberSdp::new(true);
    let mut tracks = Vec::new();
    let mut sections_before = 0;
    for text in input.split(|byte| *byte == 0).take(DESCRIPTIONS_MAX) {
        let Ok(text) = std::str::from_utf8(text) else { continue };
        if let Ok(answer) = publisher.answer(text, &announced, &local) {
            let sections = sections(&answer.sdp);
            assert!(sections >= sections_before && sections <= limits.sections, "{sections_before}, then {sections}");
            sections_before = sections;
            assert!(answer.receive.iter().all(|section| !section.payloads.is_empty()));
            // Nothing of theirs can end a line of ours.
            assert!(answer.sdp.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')), "{}", answer.sdp);
            tracks = answer
                .receive
                .iter()
                .zip(1_u32..)
                .map(|(section, n)| SendTrack {
                    track: section.track.clone(),
                    shown: section.track.clone(),
                    publisher: ParticipantSid::from("PA_ann"),
                    kind: announced.iter().find(|one| one.track == section.track).expect("it was announced").kind,
                    codec: section.send_codec(),
                    ssrc: 2 * n,
                    rtx_ssrc: Some(2 * n + 1),
                    stereo: false,
                })
                .collect();
        }
        // As what is sent on to somebody else, who answers with the same text.
        subscriber.want(&tracks);
        let offer = subscriber.offer(&local);
        assert!(offer.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')), "{offer}");
        let _ = subscriber.accept(text, limits);
    }
}

fn sections(sdp: &str) -> usize {
    sdp.lines().filter(|line| line.starts_with("m=")).count()
}

fn announced(track: &str, kind: MediaKind, codec: &str) -> Announced {
    Announced {
        track: TrackSid::from(track),
        kind,
        source: Source::Unknown,
        cids: vec!["565455b5-c678-4938-a79e-c0fddfeefffd".to_owned()],
        codec: codec.to_owned(),
        stereo: true,
        dtx: true,
        red: true,
        encrypted: false,
        trailers: false,
        layers: Vec::new(),
    }
}

const DESCRIPTIONS_MAX: usize = 8;
