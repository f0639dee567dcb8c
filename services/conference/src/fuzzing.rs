//! The fuzz targets of the doors; see `plenary_media_core::fuzzing`.
#![allow(clippy::unwrap_used, reason = "a target panics when something is wrong")]

mod data;

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt;
use livekit_protocol as pb;
use plenary_model::{
    Channel, Identity, LeaveReason, Participant, ParticipantKind, ParticipantState, Permission, RoomInfo, RoomName,
    Target,
};
use plenary_protocol::{
    livekit,
    token::{Claims, DEVELOPMENT_KEY, Keys, Minter, VideoGrant},
};
use plenary_room_core::{
    notice::Welcome,
    session::{Input, MediaCommand, MediaEvent, Output, Session, Start, UnfitCodecs},
    signal::ServerSignal,
};
use prost::Message;
use serde::de::DeserializeOwned;

use crate::{
    config::{Settings, Sources},
    front::{
        authorize::{Access, Authorizer},
        convert::{self, Encoding, ServerIdentity},
        twirp::Format,
        twirp_json::ProtoJson,
    },
    node::session_settings,
};

/// What is done with an input.
pub type Body = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Body)] = &[
    ("signal_protobuf", |frame| signal(frame, Encoding::Binary)),
    ("signal_json", |frame| signal(frame, Encoding::Json)),
    ("session", session),
    ("data_packet", data_packet),
    ("data_track", data::data_track),
    ("blobs", data::blobs),
    ("twirp_protobuf", |body| twirp(body, Format::Protobuf)),
    ("twirp_json", |body| twirp(body, Format::Json)),
    ("join_query", join_query),
    ("tcp_frames", crate::media_router::tcp::fuzz),
    ("recorded_chat", crate::recording::chat::fuzz),
];

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| Settings::load(&Sources::default()).unwrap());
const NOW: u64 = 1_800_000_000;

fn signal(frame: &[u8], encoding: Encoding) {
    let _ = convert::decode(frame, encoding);
}

/// Frames of one client, each behind a length of two bytes whose highest bit means JSON. What the session asks of its
/// media is done at once, as a willing router would.
fn session(input: &[u8]) {
    let mut now = Instant::now();
    let own = Arc::new(person());
    let start = Start {
        welcome: Welcome { own, room: room(), others: Vec::new() },
        protocol: 17,
        auto_subscribe: true,
        adaptive_stream: true,
        allow_pause: true,
        unfit: UnfitCodecs::default(),
        seed: 7,
        unix_micros: 1_000_000,
        ice_servers: Vec::new(),
    };
    let mut session = Session::new(now, session_settings(&SETTINGS), start);
    let mut rest = input;
    while let Some((&length, after)) = rest.split_first_chunk::<2>() {
        let length = u16::from_be_bytes(length);
        let encoding = if length & 0x8000 == 0 { Encoding::Binary } else { Encoding::Json };
        let (frame, after) = after.split_at(usize::from(length & 0x7fff).min(after.len()));
        rest = after;
        if let Ok(signal) = convert::decode(frame, encoding) {
            session.handle(now, Input::Signal(signal));
        }
        if carry(now, &mut session, encoding) {
            return;
        }
        now += Duration::from_millis(20);
        for turn in 0.. {
            let Some((at, why)) = session.next_deadline().filter(|(at, _)| *at <= now) else { break };
            assert!(turn < 100, "{why:?} at {at:?} does not pass");
            session.handle_timeout(now);
            if carry(now, &mut session, encoding) {
                return;
            }
        }
    }
}

/// Writes what the session says as the client would read it. True when the session has ended.
fn carry(now: Instant, session: &mut Session, encoding: Encoding) -> bool {
    let server = server();
    while let Some(output) = session.poll_output() {
        match output {
            Output::Send(signal) => written(&convert::encode(&signal, &server, 1, encoding), &signal, encoding),
            Output::Media(MediaCommand::Offer { announced, .. }) => {
                let published = announced.iter().zip(0..).map(|(one, mid)| plenary_room_core::session::Published {
                    track: one.track.sid.clone(),
                    mid: i32::to_string(&mid),
                    mime: "video/VP8".into(),
                    cid: one.cids.first().cloned().unwrap_or_default(),
                });
                let answered =
                    MediaEvent::Answered { sdp: "answer".into(), published: published.collect(), gone: Vec::new() };
                session.handle(now, Input::Media(answered));
                session.handle(now, Input::Media(MediaEvent::Connected { target: Target::Publisher }));
            }
            Output::Media(MediaCommand::MakeOffer { .. }) => {
                session.handle(now, Input::Media(MediaEvent::Offered { sdp: "offer".into() }));
            }
            Output::Media(MediaCommand::Answer { .. }) => {
                session.handle(now, Input::Media(MediaEvent::Accepted));
                session.handle(now, Input::Media(MediaEvent::Connected { target: Target::Subscriber }));
            }
            Output::End(_) => return true,
            _ => {}
        }
    }
    false
}

fn written(bytes: &[u8], signal: &ServerSignal, encoding: Encoding) {
    let is_read = match encoding {
        Encoding::Binary => pb::SignalResponse::decode(bytes).is_ok(),
        Encoding::Json => serde_json::from_slice::<pb::SignalResponse>(bytes).is_ok(),
    };
    assert!(is_read, "{signal:?} cannot be read");
}

/// Whatever a client writes into a data packet, others read that it came from this client.
#[allow(deprecated)]
fn data_packet(message: &[u8]) {
    let sender = person();
    for channel in [Channel::Reliable, Channel::Lossy] {
        let Ok(data) = convert::client_data(channel, Bytes::copy_from_slice(message), &sender) else { return };
        let read = pb::DataPacket::decode(data.payload).expect("what we forward can be read");
        assert_eq!((read.participant_identity.as_str(), read.participant_sid.as_str()), ("me", "PA_me"));
        if let Some(pb::data_packet::Value::User(user)) = read.value {
            assert_eq!((user.participant_identity.as_str(), user.participant_sid.as_str()), ("me", "PA_me"));
        }
    }
}

/// Every request of the room API, and every answer written in both dialects.
fn twirp(body: &[u8], format: Format) {
    fn reads<M: Message + Default + DeserializeOwned>(format: Format, body: &[u8]) {
        let _ = format.read::<M>(body);
    }
    fn answers<M: Message + Default + DeserializeOwned + ProtoJson>(format: Format, body: &[u8]) {
        if let Ok(message) = format.read::<M>(body) {
            message.proto_json();
        }
    }
    reads::<pb::CreateRoomRequest>(format, body);
    reads::<pb::ListRoomsRequest>(format, body);
    reads::<pb::DeleteRoomRequest>(format, body);
    reads::<pb::ListParticipantsRequest>(format, body);
    reads::<pb::RoomParticipantIdentity>(format, body);
    reads::<pb::MuteRoomTrackRequest>(format, body);
    reads::<pb::UpdateSubscriptionsRequest>(format, body);
    reads::<pb::SendDataRequest>(format, body);
    reads::<pb::UpdateRoomMetadataRequest>(format, body);
    answers::<pb::Room>(format, body);
    answers::<pb::ParticipantInfo>(format, body);
    if let Ok(update) = format.read::<pb::UpdateParticipantRequest>(body)
        && let Some(permission) = &update.permission
    {
        livekit::permission_from(permission);
    }
}

/// A query beside a good token, and the whole of it without one.
fn join_query(input: &[u8]) {
    static AUTHORIZER: LazyLock<Authorizer> = LazyLock::new(|| Authorizer::new(&SETTINGS, Access::new(&SETTINGS)));
    static BEARER: LazyLock<String> = LazyLock::new(|| {
        let claims = Claims {
            issuer: DEVELOPMENT_KEY.into(),
            subject: Some("me".into()),
            expires_at: Some(NOW + 60),
            video: VideoGrant {
                room_join: true,
                room: "r".into(),
                can_update_own_metadata: Some(true),
                ..VideoGrant::default()
            },
            ..Claims::default()
        };
        format!("Bearer {}", Minter::new(&Keys::development()).mint(&claims).unwrap())
    });
    let Ok(query) = std::str::from_utf8(input) else { return };
    // No keys have to be fetched here.
    let at_once = |bearer| AUTHORIZER.join(Some(bearer), query, NOW).now_or_never().expect("nothing to wait for");
    let _ = at_once(query);
    if let Ok(ask) = at_once(&BEARER) {
        assert_eq!((ask.identity.as_str(), ask.room.as_str()), ("me", "r"), "the token says who it is");
    }
}

fn server() -> ServerIdentity {
    ServerIdentity { node_id: "ND_1".into(), region: String::new(), sif_trailer: vec![1], codecs: Vec::new() }
}

fn person() -> Participant {
    Participant {
        sid: "PA_me".into(),
        identity: Identity::try_from("me").unwrap(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        state: ParticipantState::Joined,
        kind: ParticipantKind::Standard,
        permission: Permission::default(),
        tracks: Vec::new(),
        joined_at_ms: 1,
        version: 1,
        is_publisher: false,
        leave_reason: LeaveReason::Unknown,
        client_protocol: 0,
        capabilities: Vec::new(),
        audience: plenary_model::Audience::default(),
        data_tracks: Vec::new(),
    }
}

fn room() -> RoomInfo {
    RoomInfo {
        sid: "RM_1".into(),
        name: RoomName::try_from("r").unwrap(),
        created_at_ms: 1,
        metadata: String::new(),
        empty_timeout_s: 300,
        departure_timeout_s: 20,
        max_participants: 0,
        participants: 1,
        publishers: 0,
        active_recording: false,
        has_active_egress: false,
        auto_egress: Default::default(),
    }
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "the input is shown when the test fails")]
mod tests {
    use super::*;

    #[test]
    fn every_kept_input_is_quiet() {
        let corpora = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fuzz/corpus");
        for (name, target) in TARGETS {
            target(&[]);
            let mut kept = 0;
            for entry in std::fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("corpus {name}: {error}"))
            {
                let path = entry.unwrap().path();
                eprintln!("{}", path.display());
                target(&std::fs::read(path).unwrap());
                kept += 1;
            }
            assert!(kept > 0, "{name} has a first input");
        }
    }
}
