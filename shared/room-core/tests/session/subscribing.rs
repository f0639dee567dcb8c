//! What a participant receives.

use std::time::Duration;

use plenary_model::*;
use plenary_room_core::{
    notice::{Notice, Request},
    session::{Input, MediaCommand, MediaEvent, Output},
    signal::{ClientSignal, RequestOutcome, ServerSignal, SubscriptionFailure},
};

use crate::driver::*;

fn tracks(names: &[&str]) -> Vec<TrackSid> {
    names.iter().map(|name| TrackSid::from(*name)).collect()
}

#[test]
fn a_new_publication_is_wanted_once_its_codec_is_known() {
    let mut driver = Driver::active();
    let unseen = Track { mime: String::new(), ..camera("TR_a") };
    driver.notice(here(vec![person("ann", "PA_ann", vec![unseen])]));
    assert_eq!(driver.wanted(), None);
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    assert_eq!(driver.wanted(), Some(tracks(&["TR_a"])));
}

#[test]
fn nothing_is_said_twice_when_nothing_changed() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    driver.take();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    assert_eq!(driver.wanted(), None);
}

#[test]
fn wishes_override_the_default_both_ways() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a"), camera("TR_b")])]));
    driver.signal(ClientSignal::Subscription { tracks: tracks(&["TR_a"]), subscribe: false });
    assert_eq!(driver.wanted(), Some(tracks(&["TR_b"])));
    driver.signal(ClientSignal::Subscription { tracks: tracks(&["TR_a"]), subscribe: true });
    assert_eq!(driver.wanted(), Some(tracks(&["TR_a", "TR_b"])));
}

#[test]
fn a_wish_for_a_track_that_does_not_exist_waits_and_then_fails() {
    let mut driver = Driver::active();
    driver.signal(ClientSignal::Subscription { tracks: tracks(&["TR_late", "TR_never"]), subscribe: true });
    driver.wait_alive(Duration::from_secs(30));
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_late")])]));
    driver.wait_alive(Duration::from_secs(31));
    let failed: Vec<_> =
        driver.sent().into_iter().filter(|one| matches!(one, ServerSignal::SubscriptionFailed { .. })).collect();
    let why = SubscriptionFailure::TrackNotFound;
    assert_eq!(failed, [&ServerSignal::SubscriptionFailed { track: "TR_never".into(), why }]);
}

#[test]
fn a_tile_s_settings_go_with_what_is_wanted() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    let settings = SubscriptionSettings { width: 320, height: 180, ..SubscriptionSettings::default() };
    driver.signal(ClientSignal::TrackSetting { tracks: tracks(&["TR_a"]), settings });
    let Some(MediaCommand::Want { tracks }) = driver.commands().last().copied() else { panic!() };
    assert_eq!(tracks[0].settings, settings);
}

#[test]
fn who_leaves_takes_their_tracks_along_and_a_new_session_replaces_the_old() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_1", vec![camera("TR_1")])]));
    driver.notice(here(vec![person("ann", "PA_2", vec![camera("TR_2")])]));
    assert_eq!(driver.wanted(), Some(tracks(&["TR_2"])));
    driver.notice(Notice::Participants { changed: vec![gone("ann", "PA_2")] });
    assert_eq!(driver.wanted(), Some(Vec::new()));
}

#[test]
fn an_undecodable_track_fails_and_is_let_go() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    driver.media(MediaEvent::Undecodable { track: "TR_a".into() });
    assert_eq!(driver.wanted(), Some(Vec::new()));
    assert!(
        driver.sent().iter().any(|one| matches!(
            one,
            ServerSignal::SubscriptionFailed { why: SubscriptionFailure::CodecUnsupported, .. }
        ))
    );
}

#[test]
fn subscribing_follows_the_permission() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    driver.notice(own_changed(Permission { can_subscribe: false, ..Permission::default() }));
    assert_eq!(driver.wanted(), Some(Vec::new()));
    driver.notice(own_changed(Permission::default()));
    assert_eq!(driver.wanted(), Some(tracks(&["TR_a"])));
}

#[test]
fn speakers_are_those_one_hears_and_oneself() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")]), person("bob", "PA_bob", Vec::new())]));
    driver.take();
    let loud = SpeakerLevel { level: 0.5, active: true };
    let all = ["PA_ann", "PA_bob", "PA_me"].map(|sid| (ParticipantSid::from(sid), loud));
    driver.notice(Notice::Speakers { speakers: all.to_vec() });
    let [ServerSignal::SpeakersChanged { speakers }] = &driver.sent()[..] else { panic!() };
    assert_eq!(speakers.iter().map(|(sid, _)| sid.as_str()).collect::<Vec<_>>(), ["PA_ann", "PA_me"]);
}

#[test]
fn whoever_speaks_already_is_told_with_the_first_of_their_tracks() {
    let mut driver = Driver::active();
    let loud = SpeakerLevel { level: 0.5, active: true };
    driver.notice(here(vec![person("ann", "PA_ann", Vec::new()), person("bob", "PA_bob", Vec::new())]));
    driver.notice(Notice::Speakers { speakers: vec![("PA_ann".into(), loud), ("PA_bob".into(), loud)] });
    driver.notice(Notice::Speakers { speakers: vec![("PA_bob".into(), SpeakerLevel { level: 0.0, active: false })] });
    driver.take();
    let published = [person("ann", "PA_ann", vec![camera("TR_a")]), person("bob", "PA_bob", vec![camera("TR_b")])];
    driver.notice(here(published.to_vec()));
    assert_eq!(driver.speakers(), [vec![("PA_ann".into(), loud)]]);
    driver.take();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a"), camera("TR_c")])]));
    assert!(driver.speakers().is_empty(), "she was told of already");
}

#[test]
fn who_fell_silent_while_the_client_was_away_is_told_when_it_comes_back() {
    let mut driver = Driver::active();
    let loud = SpeakerLevel { level: 0.5, active: true };
    let silent = SpeakerLevel { level: 0.0, active: false };
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    driver.notice(Notice::Speakers { speakers: vec![("PA_ann".into(), loud)] });
    driver.give(Input::SocketLost);
    driver.notice(Notice::Speakers { speakers: vec![("PA_ann".into(), silent)] });
    driver.take();
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    assert_eq!(driver.speakers(), [vec![("PA_ann".into(), silent)]]);
    driver.give(Input::SocketLost);
    driver.take();
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    assert!(driver.speakers().is_empty(), "told once");
}

fn only(who: Receiver, tracks: AdmittedTracks) -> Audience {
    Audience::Only(vec![Admitted { who, tracks }])
}

fn with_audience(audience: Audience) -> Notice {
    let ann = person("ann", "PA_ann", vec![camera("TR_a"), camera("TR_b")]);
    here(vec![Participant { audience, ..ann }])
}

/// What was said of tracks that may be received, or not.
fn permissions(driver: &mut Driver) -> Vec<(String, bool)> {
    let said = |output: Output| match output {
        Output::Send(ServerSignal::SubscriptionPermission { track, allowed, .. }) => Some((track.to_string(), allowed)),
        _ => None,
    };
    driver.take().into_iter().filter_map(said).collect()
}

#[test]
fn a_publisher_decides_who_receives_which_of_its_tracks() {
    let mut driver = Driver::active();
    driver.notice(with_audience(Audience::Everybody));
    assert_eq!(driver.wanted(), Some(tracks(&["TR_a", "TR_b"])));
    for (audience, left) in [
        (only(Receiver::Identity("me".try_into().unwrap()), AdmittedTracks::These(vec!["TR_b".into()])), vec!["TR_b"]),
        (only(Receiver::Sid("PA_other".into()), AdmittedTracks::All), vec![]),
        (only(Receiver::Sid("PA_me".into()), AdmittedTracks::All), vec!["TR_a", "TR_b"]),
        (Audience::Only(Vec::new()), vec![]),
        (Audience::Everybody, vec!["TR_a", "TR_b"]),
    ] {
        driver.notice(with_audience(audience));
        assert_eq!(driver.wanted(), Some(tracks(&left)));
    }
}

#[test]
fn who_is_refused_a_track_hears_of_it_once_and_of_its_return() {
    let mut driver = Driver::active();
    driver.notice(with_audience(Audience::Only(Vec::new())));
    assert_eq!(permissions(&mut driver), [("TR_a".to_owned(), false), ("TR_b".to_owned(), false)]);
    driver.notice(with_audience(Audience::Only(Vec::new())));
    assert_eq!(permissions(&mut driver), []);
    driver.give(Input::SocketLost);
    driver.notice(with_audience(only(Receiver::Sid("PA_me".into()), AdmittedTracks::These(vec!["TR_b".into()]))));
    assert_eq!(permissions(&mut driver), []);
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    assert_eq!(permissions(&mut driver), [("TR_b".to_owned(), true)]);
    driver.notice(with_audience(Audience::Everybody));
    assert_eq!(permissions(&mut driver), [("TR_a".to_owned(), true)]);
}

#[test]
fn an_audience_goes_to_the_room_and_one_without_end_is_refused() {
    let mut driver = Driver::active();
    driver.signal(ClientSignal::Audience(Audience::Only(Vec::new())));
    assert_eq!(driver.asked(), [&Request::UpdateAudience { audience: Audience::Only(Vec::new()) }]);
    driver.take();
    let many = (0..2_000).map(|n| format!("TR_{n}").as_str().into()).collect();
    driver.signal(ClientSignal::Audience(only(Receiver::Sid("PA_x".into()), AdmittedTracks::These(many))));
    assert!(driver.asked().is_empty());
    let refused = |one: &&ServerSignal| {
        matches!(one, ServerSignal::RequestResponse { reason: RequestOutcome::LimitExceeded, .. })
    };
    assert!(driver.sent().iter().any(refused));
}

#[test]
fn quality_is_told_of_everybody_once_and_again_when_its_class_changes() {
    let mut driver = Driver::active();
    driver.notice(here(vec![person("ann", "PA_ann", vec![camera("TR_a")])]));
    let excellent = ConnectionQuality::Excellent;
    driver.wait_alive(Duration::from_secs(30));
    assert_eq!(qualities(&mut driver), [("PA_ann".into(), excellent), ("PA_me".into(), excellent)]);
    let hear = |driver: &mut Driver, who: &str, quality, score| {
        driver.notice(Notice::Quality { changed: vec![(who.into(), QualityScore { quality, score })] });
        driver.wait_alive(Duration::from_secs(5));
        qualities(driver)
    };
    let poor = ConnectionQuality::Poor;
    assert_eq!(hear(&mut driver, "PA_ann", poor, 2.5), [("PA_ann".into(), poor)]);
    assert_eq!(hear(&mut driver, "PA_ann", poor, 2.0), []);
    assert_eq!(hear(&mut driver, "PA_bob", poor, 2.0), [], "nothing of his is received");
    let lost = ConnectionQuality::Lost;
    assert_eq!(hear(&mut driver, "PA_ann", lost, 0.0), [("PA_ann".into(), lost)]);
    assert_eq!(hear(&mut driver, "PA_me", lost, 0.0), [("PA_me".into(), poor)], "it would start over");
}

#[test]
fn the_worse_of_the_two_transports_is_the_sessions_quality() {
    let mut driver = Driver::active();
    let measured = |driver: &mut Driver, target, score| {
        driver.take();
        driver.media(MediaEvent::Quality { target, score });
        let asked = driver.asked();
        let [Request::Quality { quality }] = asked.as_slice() else { panic!("{asked:?}") };
        (quality.quality, quality.score)
    };
    use ConnectionQuality::{Excellent, Good, Lost, Poor};
    for (target, score, expected) in [
        (Target::Publisher, 4.2, (Excellent, 4.2)),
        (Target::Subscriber, 3.5, (Good, 3.5)),
        (Target::Publisher, 2.0, (Poor, 2.0)),
        (Target::Subscriber, 4.3, (Poor, 2.0)),
        (Target::Publisher, 0.0, (Lost, 0.0)),
        (Target::Publisher, 4.3, (Excellent, 4.3)),
    ] {
        assert_eq!(measured(&mut driver, target, score), expected);
    }
}

fn qualities(driver: &mut Driver) -> Vec<(ParticipantSid, ConnectionQuality)> {
    let update = |one: &ServerSignal| {
        if let ServerSignal::ConnectionQuality { updates } = one { Some(updates.clone()) } else { None }
    };
    let told: Vec<_> = driver.sent().into_iter().filter_map(update).flatten().collect();
    driver.take();
    told.into_iter().map(|(who, measured)| (who, measured.quality)).collect()
}
