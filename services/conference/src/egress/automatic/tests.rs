use livekit_protocol as pb;
use plenary_cluster::{InProcess, NewRoom, Seat, Store};
use plenary_model::{
    Egress, EgressFileKind, EgressRequestKind, EgressStatus, LeaveReason, ParticipantState, Permission, Record,
};
use tokio::sync::mpsc;

use super::*;
use crate::egress::testing::{FakeRecorder, Told, name, person, standup, track};

struct Site {
    store: Arc<InProcess>,
}

struct Node {
    egresses: Arc<Egresses>,
    _heard: mpsc::UnboundedReceiver<Told>,
}

impl Site {
    /// With the room `standup`, which records this by itself.
    async fn new(automatic: pb::RoomEgress) -> Self {
        let site = Self { store: Arc::new(InProcess::telling([AUTOMATIC_EGRESS.to_owned()])) };
        site.make("RM_1", automatic).await;
        site
    }

    async fn make(&self, sid: &str, automatic: pb::RoomEgress) {
        let auto_egress = automatic.encode_to_vec().into();
        self.store.create(NewRoom { auto_egress, ..standup(sid) }).await.unwrap();
    }

    fn node(&self, name: &str) -> Node {
        let egresses = Arc::new(Egresses::new(self.store.clone(), name.into()));
        let (recorder, heard) = FakeRecorder::new();
        egresses.record(recorder);
        Node { egresses, _heard: heard }
    }

    /// In the room, with media up and these tracks.
    async fn come(&self, participant: Participant) -> Arc<Record> {
        let joining = Participant { state: ParticipantState::Joined, tracks: Vec::new(), ..participant.clone() };
        let seat = Seat {
            participant: joining,
            node: "ND_1".into(),
            issued_unix_s: None,
            now_unix_s: 1,
            create: None,
            trace: None,
        };
        let joined = self.store.join(name(), seat).await.unwrap().record;
        self.change(&joined, |now| (now.state, now.tracks) = (ParticipantState::Active, participant.tracks)).await
    }

    async fn change(&self, record: &Record, change: impl FnOnce(&mut Participant)) -> Arc<Record> {
        let mut next = record.clone();
        next.participant.version += 1;
        change(&mut next.participant);
        let next = Arc::new(next);
        self.store.put(name(), next.clone()).await.unwrap();
        next
    }

    async fn leave(&self, record: &Record) {
        let Participant { identity, sid, .. } = record.participant.clone();
        self.store.leave(name(), identity, sid, record.generation, LeaveReason::ClientInitiated).await.unwrap();
    }

    /// What is recorded, after everything has settled.
    async fn recorded(&self) -> Vec<Arc<Egress>> {
        sleep(2 * LOOK_INTERVAL).await;
        self.store.egresses(EgressFilter::default()).await.unwrap().into_iter().map(|one| one.egress).collect()
    }

    async fn subjects(&self) -> Vec<String> {
        let mut subjects: Vec<_> = self.recorded().await.iter().map(|one| subject(&one.source)).collect();
        subjects.sort_unstable();
        subjects
    }
}

fn subject(source: &EgressSource) -> String {
    match source {
        EgressSource::Room { .. } => "everybody".into(),
        EgressSource::Participant { identity, .. } => identity.to_string(),
        EgressSource::Tracks { audio, video } => format!("{audio:?} {video:?}"),
        EgressSource::Track { track } => track.to_string(),
    }
}

fn everything() -> pb::RoomEgress {
    let file = |filepath: &str| vec![pb::EncodedFileOutput { filepath: filepath.into(), ..Default::default() }];
    pb::RoomEgress {
        room: Some(pb::RoomCompositeEgressRequest { file_outputs: file("all"), ..Default::default() }),
        participant: Some(pb::AutoParticipantEgress {
            file_outputs: file("{publisher_identity}"),
            ..Default::default()
        }),
        tracks: Some(pb::AutoTrackEgress { filepath: "{track_source}".into(), ..Default::default() }),
    }
}

#[tokio::test(start_paused = true)]
async fn everything_that_a_room_records_by_itself_begins_once() {
    let site = Site::new(everything()).await;
    let nodes = [site.node("ND_1"), site.node("ND_2")];
    let ann = site.come(person("ann", &["TR_1"])).await;
    let ann = site.change(&ann, |ann| ann.tracks.push(track("TR_2"))).await;
    assert_eq!(site.subjects().await, ["TR_1", "TR_2", "ann", "everybody"]);
    site.change(&ann, |ann| ann.tracks[0].muted = true).await;
    site.come(person("bob", &[])).await;
    assert_eq!(site.subjects().await, ["TR_1", "TR_2", "ann", "bob", "everybody"]);
    for one in site.recorded().await {
        let (path, kind, output) = match &one.source {
            EgressSource::Room { .. } => ("all.mp4", EgressRequestKind::RoomComposite, EgressFileKind::Mp4),
            EgressSource::Participant { identity, .. } if identity.as_str() == "ann" => {
                ("ann.mp4", EgressRequestKind::Participant, EgressFileKind::Mp4)
            }
            EgressSource::Track { track } if track.as_str() == "TR_1" => {
                ("camera.webm", EgressRequestKind::Track, EgressFileKind::AsPublished)
            }
            _ => continue,
        };
        assert_eq!((one.outputs[0].path.as_str(), one.outputs[0].kind, one.request.kind), (path, output, kind));
        assert_eq!(one.room_sid.as_str(), "RM_1");
    }
    site.store.delete(name(), LeaveReason::RoomDeleted).await.unwrap();
    site.make("RM_2", pb::RoomEgress { room: everything().room, ..Default::default() }).await;
    let next_life = site.recorded().await;
    assert_eq!(next_life.iter().filter(|one| one.room_sid.as_str() == "RM_2").count(), 1);
    drop(nodes);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_seen_is_not_recorded_alone() {
    let site = Site::new(pb::RoomEgress { room: None, ..everything() }).await;
    let _node = site.node("ND_1");
    let hidden = Permission { hidden: true, ..Permission::default() };
    site.come(Participant { permission: hidden, ..person("hal", &["TR_1"]) }).await;
    let recorder = Permission { recorder: true, ..Permission::default() };
    site.come(Participant { permission: recorder, ..person("rob", &["TR_2"]) }).await;
    site.come(Participant { kind: ParticipantKind::Egress, ..person("eve", &["TR_3"]) }).await;
    site.come(Participant { kind: ParticipantKind::Agent, ..person("abe", &["TR_4"]) }).await;
    assert_eq!(site.subjects().await, ["TR_4", "abe"]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_is_in_the_recording_that_goes_on() {
    let site = Site::new(pb::RoomEgress { participant: everything().participant, ..Default::default() }).await;
    let node = site.node("ND_1");
    let ann = site.come(person("ann", &[])).await;
    let [first] = &site.recorded().await[..] else { panic!("one was to be") };
    site.leave(&ann).await;
    let ann = site.come(Participant { sid: "PA_again".into(), ..person("ann", &[]) }).await;
    assert_eq!(site.recorded().await.len(), 1);
    site.leave(&ann).await;
    node.egresses.stop(&first.id).await.unwrap();
    site.come(Participant { sid: "PA_last".into(), ..person("ann", &[]) }).await;
    let recorded = site.recorded().await;
    let statuses: Vec<_> = recorded.iter().map(|one| one.status).collect();
    assert_eq!(statuses, [EgressStatus::Aborted, EgressStatus::Starting]);
    assert_ne!(recorded[0].outputs[0].path, recorded[1].outputs[0].path);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_before_it_could_begin_is_left_out() {
    let site = Site::new(everything()).await;
    let ann = site.come(person("ann", &["TR_1", "TR_2"])).await;
    site.change(&ann, |ann| ann.tracks.truncate(1)).await;
    let bob = site.come(person("bob", &["TR_3"])).await;
    site.leave(&bob).await;
    let _node = site.node("ND_1");
    assert_eq!(site.subjects().await, ["TR_1", "ann", "everybody"]);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_nobody_reads_holds_up_no_other() {
    let site = Site { store: Arc::new(InProcess::telling([AUTOMATIC_EGRESS.to_owned()])) };
    let unreadable =
        NewRoom { auto_egress: b"\xff\xff".to_vec().into(), name: "other".try_into().unwrap(), ..standup("RM_0") };
    site.store.create(unreadable).await.unwrap();
    site.make("RM_1", everything()).await;
    let _node = site.node("ND_1");
    assert_eq!(site.subjects().await, ["everybody"]);
}
