//! A recorder that only remembers what it was told, and a room with people to be recorded.

use std::sync::Arc;

use plenary_cluster::{NewRoom, RoomDefaults};
use plenary_model::{
    Egress, EgressId, LeaveReason, MediaKind, Participant, ParticipantKind, ParticipantState, Permission, RoomName,
    Source, Track, TrackSid,
};
use tokio::sync::mpsc;

use super::{Held, Recorder};

#[derive(Debug)]
pub(crate) enum Told {
    Start(Held),
    Stop(Arc<Egress>),
    Layout(Arc<Egress>),
    Fenced(u64),
}

pub(crate) struct FakeRecorder {
    told: mpsc::UnboundedSender<Told>,
}

impl FakeRecorder {
    pub(crate) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Told>) {
        let (told, heard) = mpsc::unbounded_channel();
        (Arc::new(Self { told }), heard)
    }

    fn note(&self, told: Told) {
        // A test that is over does not listen.
        let _ = self.told.send(told);
    }
}

impl Recorder for FakeRecorder {
    fn start(&self, held: Held) {
        self.note(Told::Start(held));
    }

    fn stop(&self, egress: &Arc<Egress>) {
        self.note(Told::Stop(egress.clone()));
    }

    fn update_layout(&self, egress: &Arc<Egress>) {
        self.note(Told::Layout(egress.clone()));
    }

    fn fenced(&self, _egress: &EgressId, epoch: u64) {
        self.note(Told::Fenced(epoch));
    }
}

pub(crate) fn name() -> RoomName {
    RoomName::try_from("standup").unwrap()
}

pub(crate) fn standup(sid: &str) -> NewRoom {
    NewRoom {
        name: name(),
        sid: sid.into(),
        view: 1,
        now_unix_ms: 1,
        metadata: None,
        empty_timeout_s: None,
        departure_timeout_s: None,
        max_participants: None,
        auto_egress: Default::default(),
        defaults: RoomDefaults { empty_timeout_s: 3000, departure_timeout_s: 20, max_participants: 0 },
    }
}

pub(crate) fn person(identity: &str, tracks: &[&str]) -> Participant {
    Participant {
        sid: format!("PA_{identity}").into(),
        identity: identity.try_into().unwrap(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        state: ParticipantState::Active,
        kind: ParticipantKind::Standard,
        permission: Permission::default(),
        tracks: tracks.iter().map(|sid| track(sid)).collect(),
        audience: Default::default(),
        data_tracks: Vec::new(),
        joined_at_ms: 1,
        version: 1,
        is_publisher: true,
        leave_reason: LeaveReason::Unknown,
        client_protocol: 0,
        capabilities: Vec::new(),
    }
}

pub(crate) fn track(sid: &str) -> Track {
    Track {
        sid: TrackSid::from(sid),
        kind: MediaKind::Video,
        source: Source::Camera,
        name: String::new(),
        muted: false,
        width: 0,
        height: 0,
        simulcast: false,
        stream: String::new(),
        mime: "video/VP8".into(),
        mid: "0".into(),
        codecs: Vec::new(),
        layers: Vec::new(),
        encryption: Default::default(),
        disable_red: false,
        audio_features: Vec::new(),
        trailer_features: Vec::new(),
        backup_codec_policy: Default::default(),
        version: Default::default(),
    }
}
