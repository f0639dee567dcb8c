//! The backup codec of a video, and the codecs that are taken at all.

use std::time::Duration;

use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    session::{MediaCommand, MediaEvent, Published, Settings, UnfitCodecs},
    signal::{AddTrack, ClientSignal, RequestOutcome, ServerSignal, SubscriptionFailure, WantedCodec},
};

use crate::driver::*;

const HIGH: Option<Quality> = Some(Quality::High);

fn codec(mime: &str, mid: &str) -> TrackCodec {
    TrackCodec {
        mime: mime.into(),
        mid: mid.into(),
        cid: String::new(),
        layers: Vec::new(),
        layer_mode: LayerMode::Unused,
    }
}

/// Somebody's VP9 camera with VP8 behind it, which is published if it has a mid.
fn ann(policy: BackupCodecPolicy, backup_mid: &str) -> Notice {
    let codecs = vec![codec("video/VP9", "0"), codec("video/VP8", backup_mid)];
    let track = Track { mime: "video/VP9".into(), codecs, backup_codec_policy: policy, ..camera("TR_a") };
    here(vec![person("ann", "PA_ann", vec![track])])
}

fn undecodable(track: &str) -> MediaEvent {
    MediaEvent::Undecodable { track: track.into() }
}

/// What is wanted, by both names.
fn wanted(driver: &Driver) -> Option<Vec<(String, String)>> {
    driver.commands().into_iter().rev().find_map(|command| match command {
        MediaCommand::Want { tracks } => {
            Some(tracks.iter().map(|one| (one.track.to_string(), one.shown.to_string())).collect())
        }
        _ => None,
    })
}

fn first() -> Option<Vec<(String, String)>> {
    Some(vec![("TR_a".into(), "TR_a".into())])
}

fn second() -> Option<Vec<(String, String)>> {
    Some(vec![("TR_a/backup".into(), "TR_a".into())])
}

fn asks(driver: &Driver) -> usize {
    let ask = Request::WantBackup { track: "TR_a".into() };
    driver.asked().into_iter().filter(|request| **request == ask).count()
}

fn failures(driver: &Driver) -> Vec<(TrackSid, SubscriptionFailure)> {
    let failure = |signal: &ServerSignal| match signal {
        ServerSignal::SubscriptionFailed { track, why } => Some((track.clone(), *why)),
        _ => None,
    };
    driver.sent().into_iter().filter_map(failure).collect()
}

#[test]
fn who_cannot_decode_the_first_codec_asks_for_the_backup_and_waits_for_it() {
    let mut driver = Driver::active();
    driver.notice(ann(BackupCodecPolicy::Simulcast, ""));
    assert_eq!(wanted(&driver), first());
    driver.media(undecodable("TR_a"));
    assert_eq!((wanted(&driver), asks(&driver), failures(&driver)), (Some(Vec::new()), 1, Vec::new()));
    driver.notice(ann(BackupCodecPolicy::Simulcast, ""));
    assert_eq!(asks(&driver), 1, "once");
    driver.notice(ann(BackupCodecPolicy::Simulcast, "3"));
    assert_eq!(wanted(&driver), second(), "shown under the track's own name");

    driver.take();
    driver.media(MediaEvent::Bound { track: "TR_a/backup".into() });
    assert_eq!(driver.asked(), [&Request::Bound { track: "TR_a".into() }]);
    driver.media(MediaEvent::Paused { track: "TR_a/backup".into(), paused: true });
    let (publisher, track) = ("PA_ann".into(), "TR_a".into());
    assert_eq!(driver.sent(), [&ServerSignal::StreamState { publisher, track, paused: true }]);

    driver.notice(ann(BackupCodecPolicy::Simulcast, ""));
    assert_eq!((wanted(&driver), asks(&driver)), (Some(Vec::new()), 1), "gone again, asked for again");
}

#[test]
fn a_backup_that_does_not_come_is_a_failure_and_one_that_comes_late_is_taken() {
    let mut driver = Driver::active();
    driver.notice(ann(BackupCodecPolicy::Simulcast, ""));
    driver.media(undecodable("TR_a"));
    driver.wait_alive(Duration::from_secs(19));
    assert_eq!(failures(&driver), []);
    driver.wait_alive(Duration::from_secs(60));
    assert_eq!(failures(&driver), [("TR_a".into(), SubscriptionFailure::CodecUnsupported)], "said once");
    assert_eq!(asks(&driver), 1);
    driver.notice(ann(BackupCodecPolicy::Simulcast, "3"));
    assert_eq!(wanted(&driver), second());
}

#[test]
fn who_can_decode_neither_is_told_so_once() {
    let mut driver = Driver::active();
    driver.notice(ann(BackupCodecPolicy::Simulcast, "3"));
    driver.media(undecodable("TR_a"));
    assert_eq!((wanted(&driver), failures(&driver)), (second(), Vec::new()), "it is there already");
    driver.media(undecodable("TR_a/backup"));
    assert_eq!(wanted(&driver), Some(Vec::new()));
    driver.notice(ann(BackupCodecPolicy::Simulcast, "3"));
    assert_eq!(failures(&driver), [("TR_a".into(), SubscriptionFailure::CodecUnsupported)]);
    driver.signal(ClientSignal::Subscription { tracks: vec!["TR_a".into()], subscribe: true });
    assert_eq!(wanted(&driver), first(), "who asks again gets another try");
}

#[test]
fn with_regression_everybody_goes_over_to_the_backup_once_it_is_there() {
    for (policy, then) in [
        (BackupCodecPolicy::Simulcast, first()),
        (BackupCodecPolicy::PreferRegression, second()),
        (BackupCodecPolicy::Regression, second()),
    ] {
        let mut driver = Driver::active();
        driver.notice(ann(policy, ""));
        assert_eq!(wanted(&driver), first());
        driver.notice(ann(policy, "3"));
        assert_eq!(wanted(&driver), then, "{policy:?}");
        driver.media(undecodable("TR_a/backup"));
        assert_eq!(wanted(&driver), first(), "{policy:?}: better than nothing");
        assert_eq!(failures(&driver), []);
    }
}

#[test]
fn who_is_known_to_break_on_a_codec_never_gets_it() {
    let unfit = UnfitCodecs { receiving: vec![Codec::Vp9], publishing: Vec::new() };
    let mut driver = Driver::start_with(settings(), unfit, Permission::default(), Vec::new());
    driver.connect();
    driver.out.clear();
    driver.notice(ann(BackupCodecPolicy::Simulcast, ""));
    assert_eq!((wanted(&driver), asks(&driver), failures(&driver)), (None, 1, Vec::new()));
    driver.notice(ann(BackupCodecPolicy::Simulcast, "3"));
    assert_eq!(wanted(&driver), second());
    let alone = Track { sid: "TR_b".into(), mime: "video/VP9".into(), ..camera("TR_b") };
    driver.notice(here(vec![person("bob", "PA_bob", vec![alone])]));
    assert_eq!(failures(&driver), [("TR_b".into(), SubscriptionFailure::CodecUnsupported)]);
}

fn ask(codecs: &[(&str, &str)]) -> AddTrack {
    let codecs = codecs.iter().map(|(codec, cid)| ((*codec).to_owned(), (*cid).to_owned())).collect();
    AddTrack { codecs, ..add_track("cam", Source::Camera) }
}

/// The track that the last answer to AddTrack named, with the cid of that answer.
fn confirmed(driver: &Driver) -> (String, Track) {
    let confirmed = driver.sent().into_iter().rev().find_map(|signal| match signal {
        ServerSignal::TrackPublished { cid, track } => Some((cid.clone(), track.clone())),
        _ => None,
    });
    confirmed.expect("an answer")
}

/// A session that publishes VP9 and declared VP8 as its backup.
fn publisher() -> (Driver, TrackSid) {
    let mut driver = Driver::active();
    driver.signal(ClientSignal::AddTrack(ask(&[("vp9", "cam"), ("vp8", "")])));
    let (_, track) = confirmed(&driver);
    let mimes: Vec<_> = track.codecs.iter().map(|codec| (codec.mime.as_str(), codec.cid.as_str())).collect();
    assert_eq!(mimes, [("video/VP9", "cam"), ("video/VP8", "")]);
    answer(&mut driver, &[(&track.sid, "0", "video/VP9")], &[]);
    driver.out.clear();
    (driver, track.sid)
}

/// An offer, and what the media engine made of its sections.
fn answer(driver: &mut Driver, published: &[(&TrackSid, &str, &str)], gone: &[&TrackSid]) {
    driver.signal(ClientSignal::Offer { sdp: "publish".into(), id: 0 });
    let section = |(track, mid, mime): &(&TrackSid, &str, &str)| Published {
        track: (*track).clone(),
        mid: (*mid).into(),
        mime: (*mime).into(),
        cid: String::new(),
    };
    let (published, gone) = (published.iter().map(section).collect(), gone.iter().map(|one| (*one).clone()).collect());
    driver.media(MediaEvent::Answered { sdp: "answer".into(), published, gone });
}

/// What the client was last asked to send.
fn told(driver: &mut Driver) -> Vec<Vec<(String, Option<Quality>)>> {
    let told = driver.sent().into_iter().filter_map(|signal| match signal {
        ServerSignal::SubscribedQuality { codecs, .. } => {
            Some(codecs.iter().map(|WantedCodec { codec, up_to }| (codec.clone(), *up_to)).collect())
        }
        _ => None,
    });
    let told = told.collect();
    driver.out.clear();
    told
}

fn said(codecs: &[(&str, Option<Quality>)]) -> Vec<(String, Option<Quality>)> {
    codecs.iter().map(|(codec, up_to)| ((*codec).to_owned(), *up_to)).collect()
}

#[test]
fn a_backup_that_somebody_needs_is_asked_for_published_and_known_as_part_of_its_track() {
    let (mut driver, video) = publisher();
    driver.media(MediaEvent::Demand { track: video.clone(), top: Some(1) });
    driver.notice(Notice::BackupWanted { track: video.clone() });
    driver.notice(Notice::BackupWanted { track: video.clone() });
    assert_eq!(
        told(&mut driver),
        [said(&[("vp9", HIGH), ("vp8", HIGH)])],
        "the first is named too, and all of it once"
    );

    let more = AddTrack { cid: "cam-vp8".into(), existing: Some(video.clone()), ..ask(&[("vp8", "cam-vp8")]) };
    driver.signal(ClientSignal::AddTrack(more));
    let (cid, track) = confirmed(&driver);
    assert_eq!((cid.as_str(), &track.sid, track.codecs[1].cid.as_str()), ("cam-vp8", &video, "cam-vp8"));
    driver.out.clear();
    answer(&mut driver, &[(&video.backup(), "1", "video/VP8")], &[]);
    let [MediaCommand::Offer { announced, .. }] = &driver.commands()[..] else { panic!("{:?}", driver.commands()) };
    let [announced] = &announced[..] else { panic!("{announced:?}") };
    assert_eq!((&announced.track.sid, &announced.cids[..]), (&video.backup(), &["cam-vp8".to_owned()][..]));
    assert_eq!(announced.track.codecs[0].mime, "video/VP8");
    let [Request::Publish { tracks }] = &driver.asked()[..] else { panic!("{:?}", driver.asked()) };
    assert_eq!((tracks[0].mime.as_str(), tracks[0].mid.as_str()), ("video/VP9", "0"), "the first stays what it was");
    assert_eq!((tracks[0].codecs[1].mime.as_str(), tracks[0].codecs[1].mid.as_str()), ("video/VP8", "1"));

    driver.out.clear();
    driver.notice(Notice::BackupWanted { track: video.clone() });
    assert_eq!(told(&mut driver), Vec::<Vec<_>>::new(), "it is there");
    driver.media(MediaEvent::Demand { track: video.backup(), top: Some(0) });
    driver.media(MediaEvent::Demand { track: video.clone(), top: None });
    driver.wait_alive(Duration::from_secs(11));
    let low = Some(Quality::Low);
    assert_eq!(
        told(&mut driver).last(),
        Some(&said(&[("vp9", None), ("vp8", low)])),
        "each falls by what is wanted of it"
    );
}

#[test]
fn a_backup_is_asked_for_again_until_it_comes_and_not_for_ever() {
    let (mut driver, video) = publisher();
    driver.media(MediaEvent::Demand { track: video.clone(), top: Some(1) });
    driver.notice(Notice::BackupWanted { track: video.clone() });
    driver.wait_alive(Duration::from_secs(60));
    assert_eq!(told(&mut driver).len(), 6);
    driver.notice(Notice::BackupWanted { track: "TR_none".into() });
    assert_eq!(told(&mut driver).len(), 0);
}

#[test]
fn mute_and_unpublish_go_to_both_codecs() {
    let (mut driver, video) = publisher();
    let more = AddTrack { cid: "b".into(), existing: Some(video.clone()), ..ask(&[("vp8", "b")]) };
    driver.signal(ClientSignal::AddTrack(more));
    driver.signal(ClientSignal::Mute { track: video.clone(), muted: true });
    driver.out.clear();
    answer(&mut driver, &[(&video.backup(), "1", "video/VP8")], &[]);
    let muted = |track: TrackSid, muted| MediaCommand::SetMuted { track, muted };
    assert!(driver.commands().contains(&&muted(video.backup(), true)), "muted before its first packet");
    driver.out.clear();
    driver.signal(ClientSignal::Mute { track: video.clone(), muted: false });
    assert_eq!(driver.commands(), [&muted(video.clone(), false), &muted(video.backup(), false)]);

    driver.out.clear();
    answer(&mut driver, &[], &[&video]);
    assert!(driver.commands().contains(&&MediaCommand::Unpublish { track: video.backup() }), "it does not stay behind");
    assert_eq!(driver.asked(), [&Request::Unpublish { tracks: vec![video] }]);
}

#[test]
fn a_backup_that_stops_alone_leaves_its_track_and_may_come_again() {
    let (mut driver, video) = publisher();
    let more = AddTrack { cid: "b".into(), existing: Some(video.clone()), ..ask(&[("vp8", "b")]) };
    driver.signal(ClientSignal::AddTrack(more));
    answer(&mut driver, &[(&video.backup(), "1", "video/VP8")], &[]);
    driver.out.clear();
    answer(&mut driver, &[], &[&video.backup()]);
    let [Request::UpdateTrack { track }] = &driver.asked()[..] else { panic!("{:?}", driver.asked()) };
    assert_eq!((track.codecs[1].mime.as_str(), track.codecs[1].mid.as_str()), ("video/VP8", ""));
    driver.out.clear();
    driver.notice(Notice::BackupWanted { track: video });
    assert_eq!(told(&mut driver), [said(&[("vp9", HIGH), ("vp8", HIGH)])]);
}

#[test]
fn only_another_video_codec_that_is_taken_can_be_a_backup() {
    for codecs in [&[("vp9", "cam"), ("vp9", "")][..], &[("vp9", "cam"), ("opus", "")], &[("vp9", "cam"), ("h265", "")]]
    {
        let mut driver = Driver::active();
        driver.signal(ClientSignal::AddTrack(ask(codecs)));
        let (_, track) = confirmed(&driver);
        assert_eq!(track.codecs.len(), 1, "{codecs:?}");
        let more = AddTrack { cid: "b".into(), existing: Some(track.sid), ..ask(&[codecs[1]]) };
        driver.signal(ClientSignal::AddTrack(more));
        let refused = |signal: &&ServerSignal| {
            matches!(signal, ServerSignal::RequestResponse { reason: RequestOutcome::UnsupportedType, .. })
        };
        assert!(driver.sent().iter().any(refused), "{codecs:?}");
    }
}

#[test]
fn codecs_that_are_not_taken_are_told_replaced_and_refused() {
    let settings = Settings { codecs: vec![Codec::H264, Codec::Vp8, Codec::Av1, Codec::Opus], ..settings() };
    let unfit = UnfitCodecs { publishing: vec![Codec::Av1], receiving: Vec::new() };
    let mut driver = Driver::start_with(settings, unfit, Permission::default(), Vec::new());
    let Some(ServerSignal::Join(join)) = driver.sent().first().copied() else { panic!() };
    assert_eq!(join.publish_codecs, [Codec::H264, Codec::Vp8, Codec::Opus]);
    driver.connect();
    driver.out.clear();
    driver.signal(ClientSignal::AddTrack(ask(&[("av1", "cam"), ("vp8", "")])));
    let mimes: Vec<_> = confirmed(&driver).1.codecs.iter().map(|codec| codec.mime.clone()).collect();
    assert_eq!(mimes, ["video/H264", "video/VP8"], "the preferred one instead");
    driver.signal(ClientSignal::Offer { sdp: "publish".into(), id: 1 });
    let refused = driver.commands().into_iter().find_map(|command| match command {
        MediaCommand::Open { refused_codecs, .. } => Some(refused_codecs.clone()),
        _ => None,
    });
    assert_eq!(refused, Some(vec![Codec::Vp9, Codec::Av1, Codec::Red]));
}

#[test]
fn a_client_that_breaks_on_all_that_is_taken_is_offered_it_all_the_same() {
    let settings = Settings { codecs: vec![Codec::Av1, Codec::Opus], ..settings() };
    let unfit = UnfitCodecs { publishing: vec![Codec::Av1], receiving: Vec::new() };
    let driver = Driver::start_with(settings, unfit, Permission::default(), Vec::new());
    let Some(ServerSignal::Join(join)) = driver.sent().first().copied() else { panic!() };
    assert_eq!(join.publish_codecs, [Codec::Av1, Codec::Opus], "SDKs fail without any video codec");
}
