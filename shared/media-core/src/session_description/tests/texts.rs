//! What clients offer, written after the notes on real ones.

pub(super) const THEIR_FINGERPRINT: &str =
    "0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9:0A:1B:2C:3D:4E:5F:60:71:82:93:A4:B5:C6:D7:E8:F9";

pub(super) const CHROMIUM_HEAD: &str = "v=0\r\no=- 4739847358473584 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
a=group:BUNDLE 0 1 2\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS camera\r\n";

pub(super) fn transport(ufrag: &str, setup: &str) -> String {
    format!(
        "c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:their-password-of-24-bytes\r\n\
         a=ice-options:trickle\r\na=fingerprint:sha-256 {THEIR_FINGERPRINT}\r\na=setup:{setup}\r\n"
    )
}

pub(super) fn data(mid: &str, ufrag: &str, setup: &str) -> String {
    format!(
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{}a=mid:{mid}\r\na=sctp-port:5000\r\n\
         a=max-message-size:262144\r\n",
        transport(ufrag, setup)
    )
}

pub(super) fn audio(mid: &str, ufrag: &str, track: Option<&str>) -> String {
    let (direction, msid) = match track {
        Some(track) => ("sendonly", format!("a=msid:- {track}\r\n")),
        None => ("inactive", String::new()),
    };
    format!(
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r\n{}a=mid:{mid}\r\n\
         a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
         a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n\
         a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n\
         a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na={direction}\r\n{msid}a=rtcp-mux\r\na=rtcp-rsize\r\n\
         a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=fmtp:111 minptime=10;stereo=1;useinbandfec=1\r\n\
         a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\na=rtpmap:9 G722/8000\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\na=rtpmap:13 CN/8000\r\na=rtpmap:110 telephone-event/48000\r\n\
         a=rtpmap:126 telephone-event/8000\r\na=ssrc:1001 cname:them\r\n",
        transport(ufrag, "actpass")
    )
}

/// Simulcast as Chromium offers it: no `a=ssrc` at all, codecs in its order.
pub(super) fn video(mid: &str, ufrag: &str, direction: &str, track: &str, rids: &[&str]) -> String {
    let feedback = |number: u8| {
        let one = |what: &str| format!("a=rtcp-fb:{number} {what}\r\n");
        ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"].map(one).concat()
    };
    let rtx = |number: u8, media: u8| format!("a=rtpmap:{number} rtx/90000\r\na=fmtp:{number} apt={media}\r\n");
    let h264 = |number: u8, mode: u8, profile: &str| {
        format!(
            "a=rtpmap:{number} H264/90000\r\n{}a=fmtp:{number} level-asymmetry-allowed=1;packetization-mode={mode};\
             profile-level-id={profile}\r\n",
            feedback(number)
        )
    };
    let rid_lines: String = rids.iter().map(|rid| format!("a=rid:{rid} send\r\n")).collect();
    let simulcast = if rids.is_empty() { String::new() } else { format!("a=simulcast:send {}\r\n", rids.join(";")) };
    [
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 39 40 45 46 98 99 116 117 118\r\n",
        &transport(ufrag, "actpass"),
        &format!("a=mid:{mid}\r\n"),
        "a=extmap:14 urn:ietf:params:rtp-hdrext:toffset\r\na=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time\r\n",
        "a=extmap:13 urn:3gpp:video-orientation\r\n",
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n",
        "a=extmap:5 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n",
        "a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id\r\n",
        &format!("a={direction}\r\na=msid:- {track}\r\na=rtcp-mux\r\na=rtcp-rsize\r\n"),
        "a=rtpmap:96 VP8/90000\r\n",
        &feedback(96),
        "a=fmtp:96 x-google-start-bitrate=1190\r\n",
        &rtx(97, 96),
        &h264(103, 1, "42001f"),
        &rtx(104, 103),
        &h264(107, 0, "42e01f"),
        &rtx(108, 107),
        &h264(109, 1, "f4001f"),
        &rtx(114, 109),
        &h264(39, 1, "4d001f"),
        &rtx(40, 39),
        "a=rtpmap:45 AV1/90000\r\n",
        &rtx(46, 45),
        "a=rtpmap:98 VP9/90000\r\na=fmtp:98 profile-id=0\r\n",
        &rtx(99, 98),
        "a=rtpmap:116 red/90000\r\na=rtpmap:117 ulpfec/90000\r\na=rtpmap:118 flexfec-03/90000\r\n",
        &rid_lines,
        &simulcast,
    ]
    .concat()
}

/// Chromium publishing microphone and camera.
pub(super) fn chromium() -> String {
    [
        CHROMIUM_HEAD,
        &data("0", "them", "actpass"),
        &audio("1", "them", Some("mic-1")),
        &video("2", "them", "sendonly", "cam-1", &["q", "h", "f"]),
    ]
    .concat()
}

/// A libwebrtc client that fell back to two PeerConnections: three and three sections to receive that nobody needs, and
/// numbers that begin at seven because its first offer used the others up.
pub(super) fn python_after_fallback() -> String {
    let filler = |kind: &str, mid: u8| {
        let (formats, codec) = match kind {
            "audio" => ("111", "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n"),
            _ => ("96 97", "a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"),
        };
        format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\n{}a=mid:{mid}\r\na=recvonly\r\na=rtcp-mux\r\n{codec}",
            transport("them", "actpass").replace("trickle", "trickle goog-sped-v1")
        )
    };
    [
        "v=0\r\no=- 11 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 7 8 9 10 11 12 13 14\r\na=msid-semantic: WMS *\r\n",
        &filler("audio", 7),
        &filler("audio", 8),
        &filler("audio", 9),
        &filler("video", 10),
        &filler("video", 11),
        &filler("video", 12),
        &format!("{}a=sctp-init:AQAAHg==\r\n", data("13", "them", "actpass")),
        &audio("14", "them", Some("mic-py")),
    ]
    .concat()
}
