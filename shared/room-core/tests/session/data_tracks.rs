//! Streams of data frames and blobs.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use plenary_model::*;
use plenary_room_core::{
    notice::{Announce, BlobAnswer, Notice, Request},
    session::{Dropped, Input, MediaCommand, Output},
    signal::{ClientSignal, DataHandle, DataWish, PublishDataTrack, RequestOutcome, ServerSignal},
};

use crate::driver::*;

fn publish(handle: u32, name: &str) -> ClientSignal {
    let format = Bytes::from_static(b"format");
    let ask = PublishDataTrack { handle, name: name.to_owned(), encryption: Encryption::Gcm, format };
    ClientSignal::PublishDataTrack(ask)
}

/// A packet of one frame; the payload is its last byte.
fn packet(handle: u16, payload: u8) -> Bytes {
    let [high, low] = handle.to_be_bytes();
    Bytes::copy_from_slice(&[0x18, 0, high, low, 0, 1, 0, 2, 0, 0, 0, 3, payload])
}

fn data_track(sid: &str, handle: u16) -> DataTrack {
    let (name, encryption, format) = (sid.to_owned(), Encryption::None, Bytes::new());
    DataTrack { sid: sid.into(), handle, name, encryption, format }
}

fn with_data(identity: &str, sid: &str, data_tracks: Vec<DataTrack>) -> Notice {
    let who = Participant { data_tracks, ..person(identity, sid, Vec::new()) };
    Notice::Participants { changed: vec![Arc::new(who)] }
}

fn wish(track: &str, subscribe: bool) -> ClientSignal {
    ClientSignal::DataSubscription { updates: vec![DataWish { track: track.into(), subscribe, fps: 0 }] }
}

/// The last map of handles that was sent.
fn handles(driver: &Driver) -> Option<Vec<DataHandle>> {
    driver.sent().into_iter().rev().find_map(|signal| match signal {
        ServerSignal::DataHandles { handles } => Some(handles.clone()),
        _ => None,
    })
}

fn outcomes(driver: &Driver) -> Vec<RequestOutcome> {
    let outcome = |signal: &&ServerSignal| match signal {
        ServerSignal::RequestResponse { reason, .. } => Some(*reason),
        _ => None,
    };
    driver.sent().iter().filter_map(outcome).collect()
}

fn taken(driver: &Driver) -> Option<BTreeSet<DataTrackSid>> {
    driver.asked().into_iter().rev().find_map(|request| match request {
        Request::TakeDataTracks { tracks } => Some(tracks.clone()),
        _ => None,
    })
}

#[test]
fn a_stream_is_published_at_once_and_its_packets_pass_under_its_sid() {
    let mut driver = Driver::active();
    driver.signal(publish(7, "position"));
    let [ServerSignal::DataTrackPublished { track }] = &driver.sent()[..] else { panic!("{:?}", driver.sent()) };
    let track = track.clone();
    assert!(track.sid.as_str().starts_with("DTR_") && track.sid.as_str().len() == 16, "{}", track.sid);
    assert_eq!((track.handle, track.name.as_str(), track.encryption), (7, "position", Encryption::Gcm));
    assert_eq!(driver.asked(), [&Request::UpdateDataTracks { tracks: vec![track.clone()] }]);
    driver.out.clear();
    driver.give(Input::DataFrame { packet: packet(7, 1) });
    assert_eq!(driver.asked(), [&Request::DataFrame { track: track.sid.clone(), packet: packet(7, 1) }]);
    driver.out.clear();
    driver.signal(ClientSignal::UnpublishDataTrack { handle: 7 });
    assert_eq!(driver.sent(), [&ServerSignal::DataTrackUnpublished { track }]);
    assert_eq!(driver.asked(), [&Request::UpdateDataTracks { tracks: Vec::new() }]);
}

#[test]
fn what_is_wrong_with_a_publication_is_said_by_name() {
    let mut driver = Driver::active();
    driver.signal(publish(7, "position"));
    let long = "n".repeat(257);
    for (handle, name) in [(0, "a"), (65_536, "a"), (8, ""), (8, &long), (7, "a"), (8, "position")] {
        driver.signal(publish(handle, name));
    }
    driver.signal(ClientSignal::UnpublishDataTrack { handle: 9 });
    use RequestOutcome::{DuplicateHandle, DuplicateName, InvalidHandle, InvalidName, NotFound};
    let expected = [InvalidHandle, InvalidHandle, InvalidName, InvalidName, DuplicateHandle, DuplicateName, NotFound];
    assert_eq!(outcomes(&driver), expected);
    for handle in 8..72 {
        driver.signal(publish(handle, &format!("stream {handle}")));
    }
    assert_eq!(outcomes(&driver).last(), Some(&RequestOutcome::LimitExceeded));
}

#[test]
fn who_may_not_publish_data_publishes_no_stream_and_loses_those_it_has() {
    let mut driver = Driver::active();
    driver.signal(publish(7, "position"));
    driver.out.clear();
    let permission = Permission { can_publish_data: false, ..Permission::default() };
    let own = Arc::new(Participant { permission, ..person("me", "PA_me", Vec::new()) });
    driver.notice(Notice::OwnChanged { own, announce: Announce::Yes });
    assert!(driver.sent().iter().any(|signal| matches!(signal, ServerSignal::DataTrackUnpublished { .. })));
    assert_eq!(driver.asked(), [&Request::UpdateDataTracks { tracks: Vec::new() }]);
    driver.signal(publish(8, "other"));
    assert_eq!(outcomes(&driver), [RequestOutcome::NotAllowed]);
}

#[test]
fn packets_that_name_no_stream_are_dropped_by_name() {
    let mut driver = Driver::active();
    driver.signal(publish(7, "position"));
    driver.out.clear();
    for packet in [packet(8, 1), Bytes::from_static(b"short"), Bytes::from(vec![0xff; 12])] {
        driver.give(Input::DataFrame { packet });
    }
    assert_eq!(driver.take(), vec![Output::Dropped(Dropped::DataFrameUnknown); 3]);
}

#[test]
fn streams_are_taken_when_wished_for_under_numbers_of_the_receivers() {
    let mut driver = Driver::active();
    driver.signal(wish("DTR_a", true));
    assert_eq!(handles(&driver), None, "it is not there yet");
    driver.notice(with_data("ann", "PA_ann", vec![data_track("DTR_a", 5), data_track("DTR_b", 6)]));
    let [handle] = &handles(&driver).expect("it is there now")[..] else { panic!("one is wished for") };
    assert_eq!((handle.publisher.as_str(), handle.track.as_str()), ("PA_ann", "DTR_a"));
    assert_eq!(taken(&driver), Some(BTreeSet::from(["DTR_a".into()])));
    let first = handle.handle;
    driver.signal(wish("DTR_b", true));
    let both = handles(&driver).unwrap();
    assert_eq!(both.len(), 2, "the whole map each time");
    assert!(both.iter().any(|one| one.track.as_str() == "DTR_a" && one.handle == first), "numbers stay");
    driver.media(plenary_room_core::session::MediaEvent::ChannelOpen {
        target: Target::Subscriber,
        channel: Channel::DataTrack,
    });
    driver.out.clear();
    driver.notice(Notice::DataFrame { track: "DTR_a".into(), packet: packet(5, 9) });
    let [MediaCommand::Send { target: Target::Subscriber, channel: Channel::DataTrack, payload }] =
        &driver.commands()[..]
    else {
        panic!("{:?}", driver.out)
    };
    assert_eq!(*payload, packet(first, 9), "nothing else has changed");
    driver.signal(wish("DTR_a", false));
    assert_eq!(handles(&driver).unwrap().len(), 1);
    driver.out.clear();
    driver.notice(Notice::DataFrame { track: "DTR_a".into(), packet: packet(5, 9) });
    assert!(driver.out.is_empty(), "{:?}", driver.out);
    driver.notice(with_data("ann", "PA_ann", Vec::new()));
    assert_eq!(handles(&driver), Some(Vec::new()), "its publisher withdrew the other");
}

#[test]
fn wishes_end_with_their_streams_so_that_a_long_session_does_not_run_out_of_them() {
    let mut driver = Driver::active();
    for round in 0..1_100 {
        driver.wait_alive(Duration::from_secs(1));
        let sid = format!("DTR_{round}");
        driver.notice(with_data("ann", "PA_ann", vec![data_track(&sid, 5)]));
        driver.out.clear();
        driver.signal(wish(&sid, true));
        assert_eq!(handles(&driver).map(|handles| handles.len()), Some(1), "round {round}");
    }
}

#[test]
fn a_client_that_comes_back_is_told_its_numbers_again() {
    let mut driver = Driver::active();
    driver.notice(with_data("ann", "PA_ann", vec![data_track("DTR_a", 5)]));
    driver.signal(wish("DTR_a", true));
    let before = handles(&driver);
    driver.out.clear();
    driver.give(Input::SocketLost);
    driver.give(Input::Resumed { protocol: 17, ice_servers: Vec::new() });
    assert_eq!(handles(&driver), before);
}

#[test]
fn blobs_are_asked_of_the_room_and_answered_with_the_request_that_asked() {
    let mut driver = Driver::active();
    let (key, contents) = (Bytes::from_static(b"k"), Bytes::from_static(b"c"));
    driver.signal(ClientSignal::StoreBlob { request_id: 3, key: key.clone(), contents: contents.clone() });
    assert_eq!(driver.asked(), [&Request::StoreBlob { request_id: 3, key: key.clone(), contents: contents.clone() }]);
    driver.out.clear();
    driver.signal(ClientSignal::GetBlob { request_id: 4, owner: String::new(), key: key.clone() });
    assert_eq!(outcomes(&driver), [RequestOutcome::NotFound], "nobody is called that");
    driver.out.clear();
    let answer = BlobAnswer::Found { key: key.clone(), contents: contents.clone() };
    driver.notice(Notice::Blob { request_id: 5, answer });
    assert_eq!(driver.sent(), [&ServerSignal::Blob { request_id: 5, key, contents }]);
    driver.out.clear();
    driver.notice(Notice::Blob { request_id: 6, answer: BlobAnswer::Duplicate });
    assert!(matches!(driver.sent()[..], [ServerSignal::RequestResponse { request_id: 6, .. }]));
}
