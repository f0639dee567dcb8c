use super::*;

#[test]
fn answers_to_known_clients_stay_as_they_are() {
    for (offer, expected) in OFFERS.into_iter().zip(ANSWERS) {
        let codec = if offer == PION_H264 { "video/h264" } else { "vp8" };
        let tracks = [
            announced("TR_VCcamera", MediaKind::Video, "unknown", codec),
            announced("TR_AMmicrophone", MediaKind::Audio, "unknown", ""),
        ];
        let written = answer(&mut PublisherSdp::default(), offer, &tracks).sdp.replace("\r\n", "\n");
        assert_eq!(written, expected);
    }
}

#[test]
fn simulcast_by_rid_is_received_layer_by_layer() {
    let answer = answer(&mut PublisherSdp::default(), CHROMIUM_SIMULCAST, &[camera(), microphone()]);
    let video = &answer.receive[0];
    assert_eq!((video.track.as_str(), video.mid.as_str()), ("TR_VCcamera", "0"));
    assert_eq!(video.rids, ["q", "h", "f"]);
    assert!(video.ssrcs.is_empty() && video.rtx_ssrcs.is_empty());
    let ids = video.extensions;
    assert_eq!((ids.mid, ids.rid, ids.repaired_rid, ids.transport_sequence), (Some(9), Some(10), Some(11), Some(4)));
    let payloads: Vec<_> = video.payloads.iter().map(|one| (one.payload_type, one.rtx_payload_type)).collect();
    assert_eq!(payloads, [(96, Some(97))]);
    let section = &sections(&answer.sdp)[0];
    for line in
        ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f", "a=recvonly", "a=setup:passive"]
    {
        assert!(section.contains(&line), "{line} is not in {section:#?}");
    }
    let audio = &answer.receive[1];
    assert_eq!((audio.extensions.audio_level, audio.extensions.transport_sequence), (Some(12), Some(4)));
    assert_eq!(audio.ssrcs, [3_871_351_320]);
    assert_eq!(answer.published[0].mime, "video/VP8");
    assert_eq!(answer.published[1].mime, "audio/opus");
}

#[test]
fn layers_are_low_to_high_whatever_order_the_client_lists() {
    let answer = answer(&mut PublisherSdp::default(), FIREFOX, &[camera()]);
    assert_eq!(answer.receive[0].rids, ["q", "h", "f"]);
    assert!(answer.sdp.contains("a=simulcast:recv f;h;q\r\n"));
}

#[test]
fn an_extension_for_one_way_is_agreed_for_that_way_if_it_is_ours() {
    let ids = |offer: &str| answer(&mut PublisherSdp::default(), offer, &[camera()]).receive[0].extensions;
    assert_eq!((ids(FIREFOX).rid, ids(FIREFOX).repaired_rid), (Some(9), Some(10)));
    let other_way = FIREFOX.replace("a=extmap:9/sendonly", "a=extmap:9/recvonly");
    assert_eq!(ids(&other_way).rid, None, "the client does not send it");
    let far = FIREFOX.replace("a=extmap:9/sendonly", "a=extmap:99/sendonly");
    assert_eq!(ids(&far).rid, None, "only short ids can be answered for one way");
}

#[test]
fn a_paused_layer_is_taken_as_a_running_one() {
    let offer = CHROMIUM_SIMULCAST.replace("a=simulcast:send q;h;f", "a=simulcast:send ~q;~h,f;f");
    let answer = answer(&mut PublisherSdp::default(), &offer, &[camera()]);
    assert!(answer.sdp.contains("a=simulcast:recv q;h;f\r\n"));
}

#[test]
fn a_single_stream_brings_its_repair_stream() {
    let answer = answer(
        &mut PublisherSdp::default(),
        PION_H264,
        &[announced("TR_V", MediaKind::Video, "video-cid", "video/h264")],
    );
    let video = &answer.receive[0];
    assert_eq!(
        (video.ssrcs.as_slice(), video.rtx_ssrcs.as_slice()),
        (&[1_931_748_162][..], &[(1_931_748_162, 2_746_501_388)][..])
    );
    // High profile reaches too few receivers, and VP8 was not announced.
    assert_eq!(video.payloads.iter().map(|one| one.payload_type).collect::<Vec<_>>(), [102]);
    assert_eq!(answer.published[0].mime, "video/H264");
}

#[test]
fn filler_sections_are_answered_inactive_under_their_own_mids() {
    let answer = answer(&mut PublisherSdp::default(), PYTHON_FALLBACK, &[microphone()]);
    assert_eq!(answer.published.len(), 1);
    assert_eq!(answer.published[0].mid, "14");
    assert_eq!(order(&answer.sdp), order(PYTHON_FALLBACK));
    assert!(answer.sdp.contains("a=group:BUNDLE 7 8 9 10 11 12 13 14\r\n"));
    for section in &sections(&answer.sdp)[..6] {
        assert!(section[0].contains(" 9 ") && section.contains(&"a=inactive"), "{section:#?}");
    }
}

#[test]
fn a_track_is_found_by_its_id_before_any_older_one() {
    let older = announced("TR_older", MediaKind::Video, "another", "");
    let answer = answer(&mut PublisherSdp::default(), CHROMIUM_SIMULCAST, &[older, camera()]);
    assert_eq!(answer.published[0].track.as_str(), "TR_VCcamera");
    assert_eq!(answer.published[0].cid, CAMERA_CID);
}

#[test]
fn one_of_several_announced_ids_is_enough() {
    let mut camera = camera();
    camera.cids = vec!["primary".to_owned(), CAMERA_CID.to_owned()];
    let older = announced("TR_older", MediaKind::Video, "another", "");
    let answer = answer(&mut PublisherSdp::default(), CHROMIUM_SIMULCAST, &[older, camera]);
    assert_eq!(answer.published[0].track.as_str(), "TR_VCcamera");
}

#[test]
fn an_unknown_id_is_the_oldest_announced_track_of_its_kind() {
    let tracks = [
        announced("TR_audio", MediaKind::Audio, "x", ""),
        announced("TR_older", MediaKind::Video, "y", ""),
        announced("TR_newer", MediaKind::Video, "z", ""),
    ];
    let answer = answer(&mut PublisherSdp::default(), FIREFOX, &tracks);
    let found: Vec<_> = answer.published.iter().map(|one| (one.track.as_str(), one.mid.as_str())).collect();
    assert_eq!(found, [("TR_audio", "1"), ("TR_older", "2")]);
    assert_eq!(answer.published[1].cid, "{90d1e2f3-5a64-4b7c-8d9e-0f1a2b3c4d5e}");
}

#[test]
fn a_section_that_nobody_announced_waits_inactive() {
    let mut publisher = PublisherSdp::default();
    let first = answer(&mut publisher, CHROMIUM_SIMULCAST, &[]);
    assert!(first.receive.is_empty() && first.published.is_empty());
    assert!(sections(&first.sdp)[0].contains(&"a=inactive"));
    let second = answer(&mut publisher, CHROMIUM_SIMULCAST, &[camera()]);
    assert_eq!(second.published.len(), 1);
}

#[test]
fn a_replaced_source_stays_the_same_track() {
    let mut publisher = PublisherSdp::default();
    answer(&mut publisher, CHROMIUM_SIMULCAST, &[camera(), microphone()]);
    let replaced = CHROMIUM_SIMULCAST.replace(CAMERA_CID, "another-camera");
    let waiting = announced("TR_screen", MediaKind::Video, "screen", "");
    let again = answer(&mut publisher, &replaced, &[waiting]);
    assert_eq!(again.receive[0].track.as_str(), "TR_VCcamera");
    assert!(again.published.is_empty() && again.gone.is_empty());
}

#[test]
fn a_new_track_that_names_an_old_section_takes_it_over() {
    let mut publisher = PublisherSdp::default();
    answer(&mut publisher, CHROMIUM_SIMULCAST, &[camera(), microphone()]);
    let again = announced("TR_again", MediaKind::Video, CAMERA_CID, "vp8");
    let answer = answer(&mut publisher, CHROMIUM_SIMULCAST, &[again]);
    assert_eq!(answer.receive[0].track.as_str(), "TR_again");
    assert_eq!(sids(&answer.gone), ["TR_VCcamera"]);
}

#[test]
fn a_track_is_gone_when_its_section_stops_sending() {
    for (from, to) in [
        ("a=sendonly\na=msid:b5", "a=inactive\na=msid:b5"),
        ("m=video 9", "m=video 0"),
        ("a=sendonly\na=msid:b5", "a=recvonly\na=msid:b5"),
    ] {
        let mut publisher = PublisherSdp::default();
        answer(&mut publisher, CHROMIUM_SIMULCAST, &[camera(), microphone()]);
        let stopped = CHROMIUM_SIMULCAST.replacen(from, to, 1);
        assert_ne!(stopped, CHROMIUM_SIMULCAST);
        let second = answer(&mut publisher, &stopped, &[]);
        assert_eq!(sids(&second.gone), ["TR_VCcamera"], "{to}");
        assert_eq!(second.receive.len(), 1);
        let third = answer(&mut publisher, &stopped, &[]);
        assert!(third.gone.is_empty(), "said once");
    }
}

#[test]
fn a_stopped_section_is_refused_and_leaves_the_bundle() {
    let stopped = CHROMIUM_SIMULCAST.replacen("m=video 9", "m=video 0", 1);
    let answer = answer(&mut PublisherSdp::default(), &stopped, &[microphone()]);
    assert!(sections(&answer.sdp)[0][0].starts_with("m=video 0 "));
    assert!(answer.sdp.contains("a=group:BUNDLE 1 2\r\n"));
    assert!(sections(&answer.sdp)[1].contains(&"a=end-of-candidates"), "the next section speaks for the bundle");
}

#[test]
fn a_stopped_section_is_recycled_for_another_kind() {
    let mut publisher = PublisherSdp::default();
    let stopped = CHROMIUM_SIMULCAST.replacen("m=video 9", "m=video 0", 1);
    answer(&mut publisher, &stopped, &[microphone()]);
    // A second microphone in the place of the camera, under a new mid.
    let audio = CHROMIUM_SIMULCAST.split("m=audio").nth(1).unwrap().split("m=application").next().unwrap();
    let audio = audio.replace("a=mid:1", "a=mid:3").replace(MICROPHONE_CID, "second");
    let (head, rest) = CHROMIUM_SIMULCAST.split_once("m=video").unwrap();
    let (_, tail) = rest.split_once("m=audio").unwrap();
    let recycled = format!("{}m=audio{audio}m=audio{tail}", head.replace("BUNDLE 0 1 2", "BUNDLE 3 1 2"));
    let answer = answer(&mut publisher, &recycled, &[announced("TR_second", MediaKind::Audio, "second", "")]);
    assert_eq!(answer.published[0].mid, "3");
    assert_eq!(answer.receive.len(), 2);
}

#[test]
fn sections_never_move() {
    let changed = [
        CHROMIUM_SIMULCAST.replace("a=mid:0", "a=mid:5").replace("BUNDLE 0", "BUNDLE 5"),
        CHROMIUM_SIMULCAST.replace("m=video 9", "m=audio 9"),
        CHROMIUM_SIMULCAST.split("m=application").next().unwrap().to_owned(),
    ];
    for offer in changed {
        let mut publisher = PublisherSdp::default();
        answer(&mut publisher, CHROMIUM_SIMULCAST, &[camera(), microphone()]);
        let refused = publisher.answer(&offer, &[], &Local::new().parameters());
        assert_eq!(refused.unwrap_err(), Refusal::SectionsChanged);
        let after = answer(&mut publisher, CHROMIUM_SIMULCAST, &[]);
        assert_eq!(after.receive.len(), 2, "a refused offer changes nothing");
    }
}

#[test]
fn new_ice_credentials_are_answered_with_new_ones() {
    let mut publisher = PublisherSdp::default();
    let first = answer(&mut publisher, CHROMIUM_SIMULCAST, &[]);
    assert!(!first.ice_restarted && first.sdp.contains("a=ice-ufrag:ours\r\n"));
    assert!(!answer(&mut publisher, CHROMIUM_SIMULCAST, &[]).ice_restarted);
    let restart = CHROMIUM_SIMULCAST.replace("a=ice-ufrag:XNmt", "a=ice-ufrag:Next");
    let second = answer(&mut publisher, &restart, &[]);
    assert!(second.ice_restarted);
    assert!(second.sdp.contains("a=ice-ufrag:restarted\r\n") && !second.sdp.contains("a=ice-ufrag:ours\r\n"));
    assert!(!answer(&mut publisher, &restart, &[]).ice_restarted);
}

#[test]
fn the_dtls_role_is_chosen_once() {
    let passive = CHROMIUM_SIMULCAST.replace("a=setup:actpass", "a=setup:passive");
    let active = CHROMIUM_SIMULCAST.replace("a=setup:actpass", "a=setup:active");
    for (first, ours, is_client) in
        [(CHROMIUM_SIMULCAST, "passive", true), (&passive, "active", false), (&active, "passive", true)]
    {
        let mut publisher = PublisherSdp::default();
        for offer in [first, &active, &passive, CHROMIUM_SIMULCAST] {
            let answer = answer(&mut publisher, offer, &[]);
            assert_eq!(answer.remote.remote_is_dtls_client, is_client);
            let said: Vec<_> = answer.sdp.lines().filter_map(|line| line.strip_prefix("a=setup:")).collect();
            assert_eq!(said, [ours; 3]);
        }
    }
}

#[test]
fn the_sha_256_fingerprint_is_found_on_either_level() {
    let line = CHROMIUM_DATA.lines().find(|line| line.starts_with("a=fingerprint:")).unwrap();
    let other = "a=fingerprint:sha-512 AA:BB";
    let before_it = CHROMIUM_DATA.replace(line, &format!("{other}\n{}", line.replace("sha-256", "SHA-256")));
    let fingerprint = answer(&mut PublisherSdp::default(), CHROMIUM_DATA, &[]).remote.fingerprint;
    assert_eq!(answer(&mut PublisherSdp::default(), &before_it, &[]).remote.fingerprint, fingerprint);
    let session = CHROMIUM_DATA.replace(&format!("{line}\n"), "").replace("t=0 0\n", &format!("t=0 0\n{line}\n"));
    assert_eq!(answer(&mut PublisherSdp::default(), &session, &[]).remote.fingerprint, fingerprint);
    for missing in [other, "a=fingerprint:sha-256 AA:BB", "a=fingerprint:sha-256", "a=nothing"] {
        let refused =
            PublisherSdp::default().answer(&CHROMIUM_DATA.replace(line, missing), &[], &Local::new().parameters());
        assert_eq!(refused.unwrap_err(), Refusal::Missing("sha-256 fingerprint"));
    }
}

#[test]
fn opus_is_answered_as_announced() {
    let format = |stereo, dtx| {
        let announced = Announced { stereo, dtx, ..microphone() };
        let sdp = answer(&mut PublisherSdp::default(), CHROMIUM_SIMULCAST, &[announced]).sdp;
        sdp.lines().find_map(|line| line.strip_prefix("a=fmtp:111 ")).unwrap().to_owned()
    };
    assert_eq!(format(false, true), "minptime=10;useinbandfec=1;usedtx=1");
    assert_eq!(format(true, false), "minptime=10;useinbandfec=1;stereo=1;maxaveragebitrate=510000");
    assert_eq!(format(false, false), "minptime=10;useinbandfec=1");
}

#[test]
fn the_rate_that_a_client_wants_to_start_from_is_given_back_to_it() {
    let format = |offer: &str, codec: &str, payload_type: u8| {
        let camera = announced("TR_VCcamera", MediaKind::Video, CAMERA_CID, codec);
        let sdp = answer(&mut PublisherSdp::default(), offer, &[camera]).sdp;
        let prefix = format!("a=fmtp:{payload_type} ");
        sdp.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    };
    let asking = |kbps: &str| {
        let rate = format!("x-google-start-bitrate={kbps}");
        let vp8 = CHROMIUM_SIMULCAST
            .replace("a=rtpmap:96 VP8/90000\n", &format!("a=rtpmap:96 VP8/90000\na=fmtp:96 {rate}\n"));
        vp8.replace("a=fmtp:98 profile-id=0", &format!("a=fmtp:98 profile-id=0;{rate}"))
    };
    let usual = "x-google-start-bitrate=1000";
    assert_eq!(format(&asking("1000"), "vp8", 96).as_deref(), Some(usual));
    assert_eq!(format(&asking("1000"), "vp9", 98), Some(format!("profile-id=0;{usual}")));
    for nonsense in ["", "fast", "-1", "99999999999"] {
        assert_eq!(format(&asking(nonsense), "vp8", 96), None, "{nonsense}");
    }
    assert_eq!(format(CHROMIUM_SIMULCAST, "vp8", 96), None);

    let mut publisher = PublisherSdp::default();
    assert!(answer(&mut publisher, &asking("1000"), &[camera()]).sdp.contains(usual));
    let second = answer(&mut publisher, &asking("1000"), &[]);
    assert!(!second.sdp.contains(usual), "it has an estimate of its own by now");
}

#[test]
fn the_options_of_a_track_outlive_its_announcement() {
    let mut publisher = PublisherSdp::default();
    let tracks = [
        announced("TR_VCcamera", MediaKind::Video, CAMERA_CID, "video/H264"),
        Announced { stereo: true, ..microphone() },
    ];
    let first = answer(&mut publisher, CHROMIUM_SIMULCAST, &tracks);
    let second = answer(&mut publisher, CHROMIUM_SIMULCAST, &[]);
    assert_eq!(sections(&first.sdp), sections(&second.sdp));
    assert!(sections(&first.sdp)[0][0].ends_with("SAVPF 102 103 104 107 108 109 114 115"));
}

#[test]
fn a_video_without_a_codec_we_speak_is_refused() {
    let offer = PION_H264.replace("H264/90000", "H266/90000").replace("VP8/90000", "VP7/90000");
    let answer = answer(&mut PublisherSdp::default(), &offer, &[announced("TR_V", MediaKind::Video, "video-cid", "")]);
    assert!(answer.published.is_empty());
    assert!(sections(&answer.sdp)[0][0].starts_with("m=video 0 "));
}

#[test]
fn transport_feedback_is_agreed_whole_or_not_at_all() {
    let without_feedback = CHROMIUM_SIMULCAST.replace("transport-cc", "x-cc");
    let answer = answer(&mut PublisherSdp::default(), &without_feedback, &[camera()]);
    assert_eq!(answer.receive[0].extensions.transport_sequence, None);
    assert!(!answer.sdp.contains("transport-wide-cc"));
}

#[test]
fn a_description_without_a_bundle_has_one_section_answered() {
    let offer = CHROMIUM_SIMULCAST.replace("a=group:BUNDLE 0 1 2\n", "");
    let answer = answer(&mut PublisherSdp::default(), &offer, &[camera(), microphone()]);
    assert!(!answer.sdp.contains("BUNDLE"));
    let ports: Vec<_> = sections(&answer.sdp).iter().map(|section| section[0].split(' ').nth(1).unwrap()).collect();
    assert_eq!(ports, ["9", "0", "0"]);
}

#[test]
fn a_section_outside_the_bundle_has_no_transport_here() {
    let offer = CHROMIUM_SIMULCAST.replace("BUNDLE 0 1 2", "BUNDLE 0 2");
    let answer = answer(&mut PublisherSdp::default(), &offer, &[camera(), microphone()]);
    assert_eq!(answer.receive.len(), 1);
    assert!(answer.sdp.contains("a=group:BUNDLE 0 2\r\n"));
}

#[test]
fn sections_that_live_only_in_the_bundle_are_not_stopped() {
    let offer = CHROMIUM_SIMULCAST.replace("m=audio 9", "m=audio 0").replace("a=mid:1", "a=mid:1\na=bundle-only");
    let answer = answer(&mut PublisherSdp::default(), &offer, &[camera(), microphone()]);
    assert_eq!(answer.receive.len(), 2);
}

#[test]
fn each_answer_is_a_new_version_of_one_session() {
    let mut publisher = PublisherSdp::default();
    let origins: Vec<(String, u64)> = (0..3)
        .map(|_| {
            let sdp = answer(&mut publisher, CHROMIUM_SIMULCAST, &[]).sdp;
            let words: Vec<_> = sdp.lines().nth(1).unwrap().split(' ').collect();
            (words[1].to_owned(), words[2].parse().unwrap())
        })
        .collect();
    assert!(origins.windows(2).all(|pair| pair[0].0 == pair[1].0 && pair[0].1 < pair[1].1), "{origins:?}");
}

#[test]
fn the_codec_that_was_announced_is_the_one_that_is_answered() {
    for (codec, formats, mime, has_descriptor) in [
        ("vp9", "98 99", "video/VP9", true),
        ("video/AV1", "45 46", "video/AV1", true),
        ("video/vp8", "96 97", "video/VP8", false),
        ("video/h265", "96 97 102 103", "video/VP8", false),
    ] {
        let camera = announced("TR_VCcamera", MediaKind::Video, CAMERA_CID, codec);
        let answer = answer(&mut PublisherSdp::default(), CHROMIUM_SIMULCAST, &[camera]);
        let section = &sections(&answer.sdp)[0];
        assert!(section[0].contains(&format!("SAVPF {formats}")), "{codec}: {}", section[0]);
        assert_eq!(answer.published[0].mime, mime);
        let descriptor = section.iter().any(|line| line.starts_with("a=extmap:13 https://aomediacodec.github.io"));
        assert_eq!((descriptor, answer.receive[0].extensions.dependency.is_some()), (has_descriptor, has_descriptor));
    }
}

#[test]
fn vp9_keeps_its_profile_and_what_few_decode_is_not_agreed() {
    let camera = || announced("TR_VCcamera", MediaKind::Video, CAMERA_CID, "vp9");
    let formats = |offer: &str| {
        let answer = answer(&mut PublisherSdp::default(), offer, &[camera()]);
        let receive = &answer.receive[0];
        let forwarded: Vec<_> =
            receive.payloads.iter().filter(|one| receive.forwards(one)).map(|one| one.payload_type).collect();
        let fmtp: Vec<String> =
            answer.sdp.lines().filter(|line| line.contains("profile-id")).map(str::to_owned).collect();
        (forwarded, fmtp)
    };
    let profile_0 = "a=fmtp:98 profile-id=0".to_owned();
    let profile_2 = "a=fmtp:100 profile-id=2".to_owned();
    assert_eq!(formats(CHROMIUM_SIMULCAST), (vec![98], vec![profile_0.clone(), profile_2.clone()]));
    let other_order = CHROMIUM_SIMULCAST.replace("98 99 100 101", "100 101 98 99");
    assert_eq!(formats(&other_order), (vec![100], vec![profile_2.clone(), profile_0]));
    let odd_profile = CHROMIUM_SIMULCAST.replace("a=fmtp:98 profile-id=0", "a=fmtp:98 profile-id=1");
    assert_eq!(formats(&odd_profile), (vec![100], vec![profile_2]));
    let professional = CHROMIUM_SIMULCAST.replace("level-idx=5;profile=0", "level-idx=5;profile=1");
    let av1 = announced("TR_VCcamera", MediaKind::Video, CAMERA_CID, "av1");
    let answer = answer(&mut PublisherSdp::default(), &professional, &[av1]);
    assert_eq!(answer.published[0].mime, "video/VP8", "another profile of AV1 is as good as none");
}

#[test]
fn redundant_audio_comes_first_where_it_is_wanted() {
    let answered = |red: bool, offer: &str| {
        let answer = answer(&mut PublisherSdp::default(), offer, &[Announced { red, ..microphone() }]);
        let line = sections(&answer.sdp)[1][0].to_owned();
        (line, answer.published[0].mime.clone(), answer.receive[0].red_payload_type(), answer.sdp)
    };
    let (line, mime, red, sdp) = answered(true, CHROMIUM_SIMULCAST);
    assert_eq!((line.as_str(), mime.as_str(), red), ("m=audio 9 UDP/TLS/RTP/SAVPF 63 111", "audio/red", Some(63)));
    assert!(sdp.contains("a=rtpmap:63 red/48000/2\r\n") && sdp.contains("a=fmtp:63 111/111\r\n"));
    let plain = ("m=audio 9 UDP/TLS/RTP/SAVPF 111", "audio/opus", None);
    let of = |(line, mime, red, _): &(String, String, Option<u8>, String)| (line.clone(), mime.clone(), *red);
    let plain = (plain.0.to_owned(), plain.1.to_owned(), plain.2);
    assert_eq!(of(&answered(false, CHROMIUM_SIMULCAST)), plain, "not wanted");
    let others = CHROMIUM_SIMULCAST.replace("a=fmtp:63 111/111", "a=fmtp:63 9/111");
    assert_eq!(of(&answered(true, &others)), plain, "blocks of several codecs");
    let none = CHROMIUM_SIMULCAST.replace("a=fmtp:63 111/111\n", "");
    assert_eq!(of(&answered(true, &none)), plain, "unknown blocks");
}

#[test]
fn a_section_goes_on_with_a_track_of_another_codec() {
    let mut publisher = PublisherSdp::default();
    answer(&mut publisher, CHROMIUM_SIMULCAST, &[camera()]);
    let again = announced("TR_again", MediaKind::Video, CAMERA_CID, "vp9");
    let answer = answer(&mut publisher, CHROMIUM_SIMULCAST, &[again]);
    assert_eq!(sids(&answer.gone), ["TR_VCcamera"]);
    assert_eq!(answer.receive[0].payloads[0].payload_type, 98);
    assert_eq!(answer.receive[0].extensions.dependency, Some(13));
}

#[test]
fn codecs_that_are_not_taken_are_agreed_to_nowhere() {
    use plenary_model::Codec;
    let local = Local::new();
    let answered = |offer: &str, refused: &[Codec]| {
        let parameters = LocalParameters { refused_codecs: refused, ..local.parameters() };
        PublisherSdp::default().answer(offer, &[camera(), microphone()], &parameters).unwrap()
    };
    let all = answered(CHROMIUM_SIMULCAST, &[]);
    assert!(all.sdp.contains("VP8/90000"));
    let some = answered(CHROMIUM_SIMULCAST, &[Codec::Vp8, Codec::Red]);
    assert!(!some.sdp.contains("VP8/90000") && !some.sdp.contains("red/48000") && some.sdp.contains("opus/48000"));
    assert_ne!(some.published[0].mime, "video/VP8", "the camera goes on with another");
    let video = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1];
    let none = answered(CHROMIUM_SIMULCAST, &video);
    let kinds: Vec<_> = none.published.iter().map(|one| one.mime.as_str()).collect();
    assert_eq!(kinds, ["audio/opus"]);
    assert!(sections(&none.sdp)[0][0].starts_with("m=video 0 "), "{}", none.sdp);
}
