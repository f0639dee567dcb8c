//! AddTrack, mute, unpublish, permissions and metadata.

use std::{collections::BTreeMap, time::Duration};

use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    session::{MediaCommand, Output},
    signal::{About, AddTrack, ClientSignal, RequestOutcome, ServerSignal},
};

use crate::driver::*;

fn refusals(driver: &Driver) -> Vec<RequestOutcome> {
    let reason = |one: &&ServerSignal| match one {
        ServerSignal::RequestResponse { reason, .. } => Some(*reason),
        _ => None,
    };
    driver.sent().iter().filter_map(reason).collect()
}

#[test]
fn an_announced_track_is_answered_before_any_offer_and_published_with_its_section() {
    let mut driver = Driver::active();
    let sid = driver.add_track("cam", Source::Camera);
    assert!(sid.as_str().starts_with("TR_VC") && sid.as_str().len() == 17, "{sid}");
    assert!(driver.asked().is_empty(), "nobody hears of it yet");
    driver.signal(ClientSignal::Offer { sdp: "o".into(), id: 1 });
    driver.media(answered(&[(&sid, "cam")], &[]));
    let [Request::Publish { tracks }] = &driver.asked()[..] else { panic!("{:?}", driver.asked()) };
    assert_eq!((tracks[0].mime.as_str(), tracks[0].mid.as_str()), ("video/VP8", "0"));
    assert!(tracks[0].simulcast);
    let rids: Vec<_> = tracks[0].layers.iter().map(|layer| (layer.rid.as_str(), layer.width)).collect();
    assert_eq!(rids, [("q", 320), ("h", 1280)], "low to high, named from the lowest");
}

#[test]
fn a_codec_that_carries_all_layers_in_one_stream_says_so() {
    use LayerMode::{MultipleSpatialLayersPerStream as Svc, OneSpatialLayerPerStream as Simulcast};
    for (asked, mime, mode) in [
        ("vp9", "video/VP9", Svc),
        ("video/av1", "video/AV1", Svc),
        ("vp8", "video/VP8", Simulcast),
        ("video/H264", "video/H264", Simulcast),
        ("h265", "video/VP8", Simulcast),
    ] {
        let mut driver = Driver::active();
        let ask = AddTrack { codecs: vec![(asked.to_owned(), "cam".to_owned())], ..add_track("cam", Source::Camera) };
        driver.signal(ClientSignal::AddTrack(ask));
        let [.., ServerSignal::TrackPublished { track, .. }] = &driver.sent()[..] else {
            panic!("{:?}", driver.sent())
        };
        assert_eq!((track.codecs[0].mime.as_str(), track.codecs[0].layer_mode), (mime, mode), "{asked}");
        assert_eq!(track.simulcast, mode == Simulcast, "{asked}");
        let layers: Vec<_> = track.codecs[0].layers.iter().map(|layer| (layer.spatial_layer, layer.width)).collect();
        assert_eq!(layers, [(0, 320), (1, 1_280)], "low to high");
    }
}

#[test]
fn the_trailers_of_a_video_are_agreed_to_and_those_of_audio_are_not() {
    let features = vec![TrailerFeature::FrameId, TrailerFeature::UserTimestamp];
    for (source, agreed) in [(Source::Camera, features.clone()), (Source::Microphone, Vec::new())] {
        let mut driver = Driver::active();
        let ask = AddTrack { trailer_features: features.clone(), ..add_track("one", source) };
        driver.signal(ClientSignal::AddTrack(ask));
        let answer = driver.sent();
        let [.., ServerSignal::TrackPublished { track, .. }] = &answer[..] else { panic!("{answer:?}") };
        assert_eq!(track.trailer_features, agreed, "to the publisher");
        let sid = track.sid.clone();
        driver.signal(ClientSignal::Offer { sdp: "o".into(), id: 1 });
        let [.., MediaCommand::Offer { announced, .. }] = &driver.commands()[..] else { panic!("{:?}", driver.out) };
        assert_eq!(announced[0].track.trailer_features, agreed, "to the media engine");
        driver.media(answered(&[(&sid, "one")], &[]));
        let [Request::Publish { tracks }] = &driver.asked()[..] else { panic!("{:?}", driver.asked()) };
        assert_eq!(tracks[0].trailer_features, agreed, "to everybody");
    }
}

#[test]
fn twenty_tracks_at_once_are_all_answered_and_one_more_is_refused() {
    let mut driver = Driver::active();
    let sids: std::collections::HashSet<_> =
        (0..20).map(|at| driver.add_track(&format!("c{at}"), Source::Camera)).collect();
    assert_eq!(sids.len(), 20);
    driver.signal(ClientSignal::AddTrack(add_track("c20", Source::Camera)));
    assert_eq!(refusals(&driver), [RequestOutcome::LimitExceeded]);
}

#[test]
fn announcing_the_same_cid_again_gives_the_same_sid_until_it_is_published() {
    let mut driver = Driver::active();
    let first = driver.add_track("cam", Source::Camera);
    assert_eq!(driver.add_track("cam", Source::Camera), first);
    driver.signal(ClientSignal::Offer { sdp: "o".into(), id: 1 });
    driver.media(answered(&[(&first, "cam")], &[]));
    assert_ne!(driver.add_track("cam", Source::Camera), first, "publish, unpublish, publish in quick succession");
}

#[test]
fn a_source_that_is_not_granted_is_refused_by_name() {
    let only_microphone = Permission { can_publish_sources: vec![Source::Microphone], ..Permission::default() };
    for (permission, source) in [
        (Permission { can_publish: false, ..Permission::default() }, Source::Microphone),
        (only_microphone, Source::Camera),
    ] {
        let mut driver = Driver::start(permission, Vec::new());
        driver.out.clear();
        driver.signal(ClientSignal::AddTrack(add_track("x", source)));
        assert!(matches!(&driver.sent()[..], [ServerSignal::RequestResponse {
            reason: RequestOutcome::NotAllowed,
            about: About::AddTrack { cid, .. },
            ..
        }] if cid == "x"));
    }
}

#[test]
fn a_stopped_section_unpublishes_its_track() {
    let mut driver = Driver::active();
    let sid = driver.publish("cam", Source::Camera);
    driver.take();
    driver.signal(ClientSignal::Offer { sdp: "without".into(), id: 2 });
    driver.media(answered(&[], &[&sid]));
    assert_eq!(driver.asked(), [&Request::Unpublish { tracks: vec![sid] }]);
}

#[test]
fn an_announced_track_that_never_comes_is_forgotten() {
    let mut driver = Driver::active();
    let sid = driver.add_track("cam", Source::Camera);
    driver.wait_alive(Duration::from_secs(31));
    driver.signal(ClientSignal::Offer { sdp: "late".into(), id: 1 });
    assert!(
        driver
            .commands()
            .iter()
            .any(|one| matches!(one, MediaCommand::Offer { announced, .. } if announced.is_empty()))
    );
    driver.media(answered(&[(&sid, "cam")], &[]));
    assert!(driver.asked().is_empty());
}

#[test]
fn muting_stops_media_and_tells_the_room_and_an_unknown_track_is_refused() {
    let mut driver = Driver::active();
    let sid = driver.publish("cam", Source::Camera);
    driver.take();
    driver.signal(ClientSignal::Mute { track: sid.clone(), muted: true });
    assert!(driver.commands().contains(&&MediaCommand::SetMuted { track: sid.clone(), muted: true }));
    assert!(matches!(&driver.asked()[..], [Request::UpdateTrack { track }] if track.muted && track.sid == sid));
    driver.signal(ClientSignal::Mute { track: "TR_none".into(), muted: true });
    assert_eq!(refusals(&driver), [RequestOutcome::NotFound]);
}

#[test]
fn a_track_announced_muted_is_muted_from_its_first_packet() {
    let mut driver = Driver::active();
    let sid = driver.add_track("mic", Source::Microphone);
    driver.signal(ClientSignal::Mute { track: sid.clone(), muted: true });
    driver.signal(ClientSignal::Offer { sdp: "o".into(), id: 1 });
    driver.media(answered(&[(&sid, "mic")], &[]));
    assert!(driver.commands().contains(&&MediaCommand::SetMuted { track: sid, muted: true }));
}

#[test]
fn a_mute_by_the_room_api_reaches_the_client_and_the_media() {
    let mut driver = Driver::active();
    let sid = driver.publish("mic", Source::Microphone);
    driver.take();
    driver.notice(Notice::MuteTrack { track: sid.clone(), muted: true });
    assert_eq!(driver.sent(), [&ServerSignal::Mute { track: sid.clone(), muted: true }]);
    assert_eq!(driver.commands(), [&MediaCommand::SetMuted { track: sid, muted: true }]);
}

#[test]
fn a_withdrawn_permission_ends_what_runs() {
    let mut driver = Driver::active();
    let sid = driver.publish("cam", Source::Camera);
    driver.take();
    driver.notice(own_changed(Permission { can_publish: false, ..Permission::default() }));
    assert!(driver.sent().contains(&&ServerSignal::TrackUnpublished { track: sid.clone() }));
    assert!(driver.commands().contains(&&MediaCommand::Unpublish { track: sid.clone() }));
    assert!(driver.asked().contains(&&Request::Unpublish { tracks: vec![sid] }));
    assert!(driver.out.contains(&Output::RefreshToken));
}

#[test]
fn metadata_needs_the_grant_and_keeps_its_limits() {
    let update = |metadata: &str, attributes: &[(&str, &str)]| ClientSignal::UpdateMetadata {
        request_id: 9,
        name: String::new(),
        metadata: metadata.into(),
        attributes: attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
    };
    let mut driver = Driver::active();
    driver.signal(update("m", &[]));
    assert_eq!(refusals(&driver), [RequestOutcome::NotAllowed]);
    let allowed = Permission { can_update_metadata: true, ..Permission::default() };
    let mut driver = Driver::start(allowed, Vec::new());
    driver.out.clear();
    driver.signal(update("m", &[("k", "v")]));
    driver.signal(update(&"m".repeat(513), &[]));
    driver.signal(update("", &[("k", &"v".repeat(64))]));
    assert_eq!(refusals(&driver), [RequestOutcome::Ok, RequestOutcome::LimitExceeded, RequestOutcome::LimitExceeded]);
    assert_eq!(
        driver.asked(),
        [&Request::UpdateMetadata {
            name: None,
            metadata: Some("m".into()),
            attributes: BTreeMap::from([("k".into(), "v".into())]),
        }]
    );
}
