use super::*;

const AUDIO: MediaKind = MediaKind::Audio;
const VIDEO: MediaKind = MediaKind::Video;

#[test]
fn channels_alone_are_worth_an_offer() {
    let mut subscriber = SubscriberSdp::new(true);
    let offer = subscriber.offer(&Local::new().parameters());
    assert_eq!(order(&offer), [("m=application".to_owned(), "0".to_owned())]);
    for line in ["a=setup:actpass", "a=sctp-port:5000", "a=end-of-candidates", "a=max-message-size:65535"] {
        assert!(sections(&offer)[0].contains(&line), "{line}");
    }
    assert!(offer.contains("a=ice-lite\r\n"));
    let answer = accept(&mut subscriber, &agreeing_client(&offer));
    assert!(answer.remote.remote_is_dtls_client && answer.send.is_empty());
}

#[test]
fn a_track_is_offered_so_that_clients_find_its_publisher() {
    let mut subscriber = SubscriberSdp::new(true);
    assert!(subscriber.want(&[track("TR_mic", AUDIO, 10), track("TR_cam", VIDEO, 20)]));
    let (offer, send) = negotiate(&mut subscriber);
    let video = &sections(&offer)[2];
    for line in [
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "a=sendonly",
        "a=msid:PA_ann|TR_cam TR_cam",
        "a=ssrc-group:FID 20 21",
        "a=ssrc:20 cname:PA_ann",
        "a=ssrc:20 msid:PA_ann|TR_cam TR_cam",
        "a=ssrc:21 msid:PA_ann|TR_cam TR_cam",
        "a=fmtp:97 apt=96",
    ] {
        assert!(video.contains(&line), "{line} is not in {video:#?}");
    }
    assert!(sections(&offer)[1][0].ends_with("SAVPF 111"));
    let found: Vec<_> =
        send.iter().map(|one| (one.track.as_str(), one.mid.as_str(), one.payload_type, one.rtx_payload_type)).collect();
    assert_eq!(found, [("TR_mic", "1", 111, None), ("TR_cam", "2", 96, Some(97))]);
    assert_eq!((send[0].clock_rate, send[1].clock_rate), (48_000, 90_000));
    assert_eq!(
        (send[0].extensions.mid, send[0].extensions.transport_sequence, send[0].extensions.audio_level),
        (Some(4), Some(3), Some(1))
    );
    assert_eq!((send[1].extensions.mid, send[1].extensions.audio_level), (Some(4), None));
}

#[test]
fn nothing_new_needs_no_offer() {
    let mut subscriber = SubscriberSdp::new(true);
    let tracks = [track("TR_mic", AUDIO, 10)];
    assert!(subscriber.want(&tracks));
    negotiate(&mut subscriber);
    assert!(!subscriber.want(&tracks));
    assert!(subscriber.want(&[]));
}

#[test]
fn twenty_tracks_added_one_by_one_keep_their_places() {
    let mut subscriber = SubscriberSdp::new(true);
    let mut tracks = Vec::new();
    let mut before = Vec::new();
    for number in 0..20 {
        let kind = if number % 2 == 0 { AUDIO } else { VIDEO };
        tracks.push(track(&format!("TR_{number}"), kind, 100 + 2 * number));
        assert!(subscriber.want(&tracks));
        let (offer, send) = negotiate(&mut subscriber);
        let now = order(&offer);
        assert_eq!(now[..before.len()], before);
        assert_eq!(send.len(), tracks.len());
        before = now;
    }
    // All but one go, and others come: they live in the same sections.
    subscriber.want(&tracks[7..8]);
    negotiate(&mut subscriber);
    let others: Vec<_> = (0..9).map(|number| track(&format!("TR_other{number}"), AUDIO, 200 + number)).collect();
    let wanted: Vec<_> = tracks[7..8].iter().chain(&others).cloned().collect();
    subscriber.want(&wanted);
    let (offer, send) = negotiate(&mut subscriber);
    assert_eq!(order(&offer), before, "no section was added, moved or renamed");
    assert_eq!(send.len(), 10);
    assert_eq!(send.iter().find(|one| one.track.as_str() == "TR_7").unwrap().mid, "8");
}

#[test]
fn a_section_is_used_again_only_after_the_client_knows_that_it_ended() {
    let mut subscriber = SubscriberSdp::new(false);
    subscriber.want(&[track("TR_first", VIDEO, 1)]);
    negotiate(&mut subscriber);
    // One goes and one comes in the same breath.
    subscriber.want(&[track("TR_second", VIDEO, 3)]);
    let (offer, send) = negotiate(&mut subscriber);
    assert!(sections(&offer)[0].contains(&"a=inactive"));
    assert!(!offer.contains("TR_first"));
    assert_eq!(send[0].mid, "1");
    subscriber.want(&[track("TR_second", VIDEO, 3), track("TR_third", VIDEO, 5)]);
    let (offer, send) = negotiate(&mut subscriber);
    assert_eq!(send[0].mid, "0");
    assert!(sections(&offer)[0].contains(&"a=msid:PA_ann|TR_third TR_third"));
}

#[test]
fn a_track_that_left_before_it_was_offered_leaves_no_trace() {
    let mut subscriber = SubscriberSdp::new(true);
    subscriber.want(&[track("TR_mic", AUDIO, 10)]);
    subscriber.want(&[]);
    assert_eq!(sections(&subscriber.offer(&Local::new().parameters())).len(), 1);
}

#[test]
fn wishes_during_an_offer_do_not_change_what_the_answer_means() {
    let mut subscriber = SubscriberSdp::new(true);
    subscriber.want(&[track("TR_mic", AUDIO, 10)]);
    let offer = subscriber.offer(&Local::new().parameters());
    assert!(subscriber.want(&[track("TR_mic", AUDIO, 10), track("TR_cam", VIDEO, 20)]));
    let answer = accept(&mut subscriber, &agreeing_client(&offer));
    assert_eq!(answer.send.len(), 1);
    let (offer, send) = negotiate(&mut subscriber);
    assert_eq!((sections(&offer).len(), send.len()), (3, 2));
}

#[test]
fn an_unanswered_offer_is_superseded() {
    let mut subscriber = SubscriberSdp::new(true);
    subscriber.want(&[track("TR_mic", AUDIO, 10)]);
    let lost = subscriber.offer(&Local::new().parameters());
    subscriber.want(&[track("TR_mic", AUDIO, 10), track("TR_cam", VIDEO, 20)]);
    let (offer, send) = negotiate(&mut subscriber);
    assert_eq!(order(&offer)[..2], order(&lost));
    assert_eq!(send.len(), 2);
}

#[test]
fn a_codec_the_client_lacks_is_told_once_and_not_offered_again() {
    for refusal in ["a=inactive", "port"] {
        let mut subscriber = SubscriberSdp::new(true);
        let tracks = [track("TR_mic", AUDIO, 10), track("TR_cam", VIDEO, 20)];
        subscriber.want(&tracks);
        let offer = subscriber.offer(&Local::new().parameters());
        let answered = agreeing_client(&offer);
        let (head, video) = answered.split_once("m=video").unwrap();
        let video = match refusal {
            "port" => video.replacen(" 9 ", " 0 ", 1).replace("a=recvonly", "a=inactive"),
            _ => video.replace("a=recvonly", refusal),
        };
        let answer = accept(&mut subscriber, &format!("{head}m=video{video}"));
        assert_eq!(sids(&answer.undecodable), ["TR_cam"], "{refusal}");
        assert_eq!(answer.send.len(), 1);
        assert!(!subscriber.want(&tracks), "asking again does not help");
        subscriber.want(&tracks[..1]);
        assert!(subscriber.want(&tracks), "a new wish is a new chance");
    }
}

#[test]
fn an_answer_with_another_codec_in_the_section_is_a_refusal() {
    let mut subscriber = SubscriberSdp::new(false);
    let h264 = SendTrack { codec: codec_of(PION_H264, VIDEO, "video/h264"), ..track("TR_cam", VIDEO, 20) };
    subscriber.want(&[h264]);
    let offer = subscriber.offer(&Local::new().parameters());
    assert!(offer.contains("packetization-mode=1"));
    let other_mode = agreeing_client(&offer).replace("packetization-mode=1", "packetization-mode=0");
    assert_eq!(sids(&accept(&mut subscriber, &other_mode).undecodable), ["TR_cam"]);
}

#[test]
fn a_refused_section_is_recycled_under_a_new_mid() {
    let mut subscriber = SubscriberSdp::new(true);
    subscriber.want(&[track("TR_cam", VIDEO, 20)]);
    let offer = subscriber.offer(&Local::new().parameters());
    let (head, video) = offer.split_once("m=video 9").unwrap();
    accept(&mut subscriber, &agreeing_client(&format!("{head}m=video 0{video}")));
    subscriber.want(&[track("TR_mic", AUDIO, 10)]);
    let (offer, send) = negotiate(&mut subscriber);
    assert_eq!(order(&offer)[1], ("m=audio".to_owned(), "2".to_owned()));
    assert!(offer.contains("a=group:BUNDLE 0 2\r\n"));
    assert_eq!(send[0].mid, "2");
}

#[test]
fn h264_keeps_the_publishers_packetization_and_gets_a_common_profile() {
    for (offer, mode, payload_type) in [
        (PION_H264.to_owned(), 1, 108),
        (
            PION_H264.replace(
                "packetization-mode=1;profile-level-id=42001f",
                "packetization-mode=0;profile-level-id=42001f",
            ),
            0,
            125,
        ),
    ] {
        let mut subscriber = SubscriberSdp::new(false);
        let codec = codec_of(&offer, VIDEO, "video/h264");
        subscriber.want(&[SendTrack { codec, ..track("TR_cam", VIDEO, 20) }]);
        let (offer, send) = negotiate(&mut subscriber);
        assert_eq!(send[0].payload_type, payload_type);
        let format = format!(
            "a=fmtp:{payload_type} level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id=42e01f"
        );
        assert!(offer.contains(&format), "{offer}");
    }
}

#[test]
fn stereo_is_said_for_stereo_alone() {
    let mut subscriber = SubscriberSdp::new(false);
    subscriber.want(&[track("TR_mic", AUDIO, 10), SendTrack { stereo: true, ..track("TR_music", AUDIO, 12) }]);
    let (offer, _) = negotiate(&mut subscriber);
    let formats: Vec<_> = offer.lines().filter_map(|line| line.strip_prefix("a=fmtp:111 ")).collect();
    assert_eq!(formats, ["minptime=10;useinbandfec=1", "minptime=10;useinbandfec=1;sprop-stereo=1;stereo=1"]);
}

#[test]
fn an_extension_the_client_left_out_is_not_sent() {
    let mut subscriber = SubscriberSdp::new(false);
    subscriber.want(&[track("TR_mic", AUDIO, 10)]);
    let offer = subscriber.offer(&Local::new().parameters());
    let lines = agreeing_client(&offer);
    let lines: Vec<_> =
        lines.lines().filter(|line| !line.contains("transport-wide-cc") && !line.contains("audio-level")).collect();
    let send = accept(&mut subscriber, &(lines.join("\r\n") + "\r\n")).send;
    let ids = send[0].extensions;
    assert_eq!((ids.mid, ids.transport_sequence, ids.audio_level), (Some(4), None, None));
}

#[test]
fn only_an_answer_that_is_waited_for_counts() {
    let mut subscriber = SubscriberSdp::new(true);
    let limits = SdpLimits::default();
    assert_eq!(subscriber.accept(CHROMIUM_DATA, limits).unwrap_err(), Refusal::NotExpected);
    let offer = subscriber.offer(&Local::new().parameters());
    let answer = agreeing_client(&offer);
    assert_eq!(subscriber.accept("nonsense", limits).unwrap_err(), Refusal::Malformed("does not start with v=0"));
    assert!(subscriber.accept(&answer, limits).is_ok(), "a refused answer leaves the offer open");
    assert_eq!(subscriber.accept(&answer, limits).unwrap_err(), Refusal::NotExpected);
}

#[test]
fn an_answer_has_the_sections_of_its_offer() {
    let mut subscriber = SubscriberSdp::new(true);
    subscriber.want(&[track("TR_mic", AUDIO, 10), track("TR_cam", VIDEO, 20)]);
    let answer = agreeing_client(&subscriber.offer(&Local::new().parameters()));
    let swapped = answer.replace("a=mid:1", "a=mid:x").replace("a=mid:2", "a=mid:1").replace("a=mid:x", "a=mid:2");
    let shorter = answer.split("m=video").next().unwrap().to_owned();
    for wrong in [swapped, shorter, answer.replace("m=video", "m=audio")] {
        assert_eq!(subscriber.accept(&wrong, SdpLimits::default()).unwrap_err(), Refusal::SectionsChanged);
    }
}

#[test]
fn tracks_beyond_the_last_section_wait_for_one_to_end() {
    let mut subscriber = SubscriberSdp::new(false);
    let tracks: Vec<_> = (0..513).map(|number| track(&format!("TR_{number}"), AUDIO, 1_000 + number)).collect();
    subscriber.want(&tracks);
    let (offer, send) = negotiate(&mut subscriber);
    assert_eq!((sections(&offer).len(), send.len()), (512, 512));
    subscriber.want(&tracks[1..]);
    negotiate(&mut subscriber);
    let (_, send) = negotiate(&mut subscriber);
    assert!(send.iter().any(|one| one.track.as_str() == "TR_512"));
}

/// A track of a publisher with this offer, who announced this codec.
fn track_of(offer: &str, kind: MediaKind, codec: &str, red: bool) -> SendTrack {
    let announced = Announced { red, ..announced("TR_any", kind, "any", codec) };
    let received = answer(&mut PublisherSdp::default(), offer, &[announced]).receive;
    SendTrack { codec: received[0].send_codec(), ..track("TR_any", kind, 20) }
}

#[test]
fn each_codec_is_offered_under_its_own_number() {
    let profile_2 = CHROMIUM_SIMULCAST.replace("98 99 100 101", "100 101");
    for (offer, codec, formats, fmtp) in [
        (CHROMIUM_SIMULCAST, "vp9", "98 99", "a=fmtp:98 profile-id=0"),
        (&profile_2, "vp9", "100 101", "a=fmtp:100 profile-id=2"),
        (CHROMIUM_SIMULCAST, "av1", "35 36", "a=fmtp:35 level-idx=5;profile=0;tier=0"),
    ] {
        let mut subscriber = SubscriberSdp::new(false);
        subscriber.want(&[track_of(offer, VIDEO, codec, false)]);
        let (offer, send) = negotiate(&mut subscriber);
        let section = &sections(&offer)[0];
        assert_eq!(section[0], format!("m=video 9 UDP/TLS/RTP/SAVPF {formats}"));
        assert!(section.contains(&fmtp), "{section:#?}");
        let descriptor =
            "a=extmap:6 https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
        assert!(section.contains(&descriptor) && offer.contains("a=extmap-allow-mixed"), "{section:#?}");
        assert_eq!(send[0].extensions.dependency, Some(6));
        let [media, rtx] = formats.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<u8>>()[..] else {
            panic!()
        };
        assert_eq!((send[0].payload_type, send[0].rtx_payload_type), (media, Some(rtx)));
    }
}

#[test]
fn vp9_of_another_profile_is_a_refusal() {
    let mut subscriber = SubscriberSdp::new(false);
    subscriber.want(&[track_of(CHROMIUM_SIMULCAST, VIDEO, "vp9", false)]);
    let offer = subscriber.offer(&Local::new().parameters());
    let other = agreeing_client(&offer).replace("profile-id=0", "profile-id=2");
    assert_eq!(sids(&accept(&mut subscriber, &other).undecodable), ["TR_any"]);
}

#[test]
fn redundant_audio_goes_to_those_who_take_it() {
    let (takes, leaves) = (|answer: String| answer, |answer: String| answer.replace(" 111 63", " 111"));
    for (name, client, expected) in
        [("takes it", takes as fn(String) -> String, Some(63)), ("leaves it", leaves as fn(String) -> String, None)]
    {
        let mut subscriber = SubscriberSdp::new(false);
        subscriber.want(&[track_of(CHROMIUM_SIMULCAST, AUDIO, "", true)]);
        let offer = subscriber.offer(&Local::new().parameters());
        let section = &sections(&offer)[0];
        assert_eq!(section[0], "m=audio 9 UDP/TLS/RTP/SAVPF 111 63");
        assert!(section.contains(&"a=rtpmap:63 red/48000/2") && section.contains(&"a=fmtp:63 111/111"));
        let answer = accept(&mut subscriber, &client(agreeing_client(&offer)));
        assert_eq!((answer.send[0].payload_type, answer.send[0].red_payload_type), (111, expected), "{name}");
    }
    let mut subscriber = SubscriberSdp::new(false);
    subscriber.want(&[track_of(CHROMIUM_SIMULCAST, AUDIO, "", false)]);
    assert!(!negotiate(&mut subscriber).0.contains("red/48000"), "whose publisher sends none");
}

#[test]
fn a_section_is_used_again_for_another_codec() {
    let mut subscriber = SubscriberSdp::new(false);
    subscriber.want(&[track("TR_first", VIDEO, 1)]);
    negotiate(&mut subscriber);
    subscriber.want(&[]);
    negotiate(&mut subscriber);
    subscriber.want(&[track_of(CHROMIUM_SIMULCAST, VIDEO, "av1", false)]);
    let (offer, send) = negotiate(&mut subscriber);
    assert_eq!(sections(&offer).len(), 1);
    assert_eq!((send[0].mid.as_str(), send[0].payload_type), ("0", 35));
}
