//! Against another implementation: its PeerConnection takes what we write and we take what it writes, and its parser
//! reads every description of ours.

use std::io::Cursor;
use std::time::Instant;

use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::RTCConfigurationBuilder;
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_OPUS, MIME_TYPE_VP8, MediaEngine};
use rtc::peer_connection::sdp::RTCSessionDescription;
use rtc::peer_connection::{RTCPeerConnection, RTCPeerConnectionBuilder};
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::sdp::SessionDescription;

use super::*;

struct Client {
    connection: RTCPeerConnection,
    now: Instant,
}

impl Client {
    #[allow(clippy::disallowed_methods, reason = "a test must begin at some time")]
    fn new() -> Self {
        let now = Instant::now();
        let mut media = MediaEngine::default();
        media.register_default_codecs().unwrap();
        for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
            for uri in ["urn:ietf:params:rtp-hdrext:sdes:mid", "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"] {
                let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
                media.register_header_extension(extension, kind, None).unwrap();
            }
        }
        let connection = RTCPeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(media)
            .build(now)
            .unwrap();
        Self { connection, now }
    }

    fn answer(&mut self, offer: &str) -> String {
        let offer = RTCSessionDescription::offer(offer.to_owned()).unwrap();
        self.connection.set_remote_description(self.now, offer).unwrap();
        let answer = self.connection.create_answer(None).unwrap();
        self.connection.set_local_description(self.now, answer.clone()).unwrap();
        answer.sdp
    }

    fn offer(&mut self) -> String {
        let offer = self.connection.create_offer(None).unwrap();
        self.connection.set_local_description(self.now, offer.clone()).unwrap();
        offer.sdp
    }

    fn take_answer(&mut self, answer: &str) {
        let answer = RTCSessionDescription::answer(answer.to_owned()).unwrap();
        self.connection.set_remote_description(self.now, answer).unwrap();
    }

    fn publish(&mut self, cid: &str, kind: RtpCodecKind, ssrcs: &[(&str, u32)]) {
        let (mime, clock_rate, channels) = match kind {
            RtpCodecKind::Video => (MIME_TYPE_VP8, 90_000, 0),
            _ => (MIME_TYPE_OPUS, 48_000, 2),
        };
        let codec = RTCRtpCodec { mime_type: mime.to_owned(), clock_rate, channels, ..Default::default() };
        let encoding = |(rid, ssrc): &(&str, u32)| RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                rid: (*rid).to_owned(),
                ssrc: Some(*ssrc),
                ..Default::default()
            },
            codec: codec.clone(),
            ..Default::default()
        };
        let encodings = ssrcs.iter().map(encoding).collect();
        let track = MediaStreamTrack::new("stream".to_owned(), cid.to_owned(), cid.to_owned(), kind, encodings);
        self.connection.add_track(track).unwrap();
    }
}

fn readable(sdp: &str) {
    let parsed = SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes())).expect(sdp);
    assert_eq!(parsed.media_descriptions.len(), sections(sdp).len());
}

#[test]
fn another_implementation_subscribes_over_many_rounds() {
    let mut client = Client::new();
    let mut subscriber = SubscriberSdp::new(true);
    let mut tracks = Vec::new();
    for round in 0..20_u32 {
        let kind = if round % 2 == 0 { MediaKind::Audio } else { MediaKind::Video };
        tracks.push(track(&format!("TR_{round}"), kind, 100 + 2 * round));
        if round % 5 == 4 {
            tracks.remove(0);
        }
        subscriber.want(&tracks);
        let offer = subscriber.offer(&Local::new().parameters());
        readable(&offer);
        let answer = accept(&mut subscriber, &client.answer(&offer));
        // It wants to be the DTLS server for an ICE-lite agent, as pion does, and libwebrtc does not.
        assert!(!answer.remote.remote_is_dtls_client);
        assert_eq!(answer.undecodable, []);
        assert_eq!(answer.send.len(), tracks.len(), "round {round}");
        assert!(answer.send.iter().all(|one| one.extensions.mid == Some(4)));
    }
}

#[test]
fn another_implementation_publishes_and_publishes_more() {
    let mut client = Client::new();
    let mut publisher = PublisherSdp::default();
    client.connection.create_data_channel("_reliable", None).unwrap();
    client.publish("mic", RtpCodecKind::Audio, &[("", 10)]);
    let first = answer(&mut publisher, &client.offer(), &[announced("TR_mic", MediaKind::Audio, "mic", "")]);
    readable(&first.sdp);
    client.take_answer(&first.sdp);
    assert_eq!((first.published.len(), first.receive[0].ssrcs.as_slice()), (1, &[10][..]));

    client.publish("cam", RtpCodecKind::Video, &[("q", 20), ("h", 21), ("f", 22)]);
    let second = answer(&mut publisher, &client.offer(), &[announced("TR_cam", MediaKind::Video, "cam", "vp8")]);
    readable(&second.sdp);
    client.take_answer(&second.sdp);
    assert_eq!(second.published.len(), 1);
    let video = second.receive.iter().find(|section| section.track.as_str() == "TR_cam").unwrap();
    assert_eq!(video.rids, ["q", "h", "f"]);
}

#[test]
fn every_answer_to_a_known_client_is_readable() {
    for offer in OFFERS {
        readable(&answer(&mut PublisherSdp::default(), offer, &[camera(), microphone()]).sdp);
    }
}
