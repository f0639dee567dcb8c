use plenary_cluster::{EGRESS_LEASE_LIFE, InProcess, NewRoom, Seat, Stored};
use plenary_model::{
    EgressFileKind, EgressOutput, EgressRequest, EgressRequestKind, LeaveReason, Participant, RoomName, Track,
};
use tokio::sync::mpsc;

use super::*;
use crate::egress::{
    EgressAsk, Egresses, FileAsk,
    testing::{FakeRecorder, Told as Heard, name, person, standup, track},
};

/// Nodes around one store, and time that passes for both.
struct Site {
    store: Arc<InProcess>,
    now_ms: u64,
}

struct Node {
    egresses: Arc<Egresses>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Site {
    /// With the room `standup`, in which nobody is.
    async fn new() -> Self {
        let now_ms = unix_ms();
        let store = Arc::new(InProcess::timed(now_ms));
        store.create(standup("RM_1")).await.unwrap();
        Self { store, now_ms }
    }

    fn node(&self, name: &str) -> Node {
        let (recorder, heard) = FakeRecorder::new();
        let egresses = Arc::new(Egresses::new(self.store.clone(), name.into()));
        egresses.record(recorder);
        Node { egresses, heard }
    }

    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.now_ms += STEP.as_millis() as u64;
            self.store.set_time(self.now_ms);
            let _ = self.store.touch(name()).await;
            sleep(STEP).await;
        }
    }

    async fn stored(&self) -> (Arc<Egress>, u64, Option<NodeId>) {
        let StoredEgress { egress, epoch, recorder, is_held } =
            self.store.egresses(Default::default()).await.unwrap().pop().unwrap();
        (egress, epoch, recorder.filter(|_| is_held))
    }

    async fn status(&self) -> EgressStatus {
        self.stored().await.0.status
    }

    async fn join(&self, node: &str, identity: &str, tracks: &[&str]) {
        self.seat(node, person(identity, tracks)).await;
    }

    async fn seat(&self, node: &str, participant: Participant) {
        let create = None;
        let seat = Seat { participant, node: node.into(), issued_unix_s: None, now_unix_s: 1, create, trace: None };
        self.store.join(name(), seat).await.unwrap();
    }
}

impl Node {
    async fn start(&self) -> Arc<Egress> {
        self.egresses.start(of_everybody()).await.unwrap()
    }

    fn hears(&mut self) -> Option<Heard> {
        self.heard.try_recv().ok()
    }

    fn started(&mut self) -> Held {
        match self.hears() {
            Some(Heard::Start(held)) => held,
            other => panic!("it was to start: {other:?}"),
        }
    }

    /// As if its process were.
    fn kill(self) -> mpsc::UnboundedReceiver<Heard> {
        self.egresses.recording.get().unwrap().tasks.iter().for_each(tokio::task::JoinHandle::abort);
        self.heard
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_is_claimed_and_followed_to_its_end() {
    let mut site = Site::new().await;
    let mut node = site.node("ND_1");
    let asked = node.start().await;
    site.pass(STEP).await;
    let held = node.started();
    assert_eq!(held.egress, asked);
    let (_, epoch, recorder) = site.stored().await;
    assert_eq!((held.epoch, recorder), (epoch, Some("ND_1".into())));
    site.pass(10 * EGRESS_LEASE_LIFE).await;
    assert_eq!(site.stored().await.2, Some("ND_1".into()), "it is renewed");

    held.began(5);
    site.pass(STEP).await;
    let (egress, ..) = site.stored().await;
    assert_eq!((egress.status, egress.started_at_ns, egress.ended_at_ns), (EgressStatus::Active, 5, 0));
    held.ended(7);
    site.pass(STEP).await;
    let (egress, ..) = site.stored().await;
    assert_eq!((egress.status, egress.ended_at_ns), (EgressStatus::Ending, 7));
    held.over(EgressStatus::Complete, String::new(), vec![file()]);
    site.pass(STEP).await;
    let (egress, ..) = site.stored().await;
    assert_eq!((egress.status, &egress.files[..]), (EgressStatus::Complete, &[file()][..]));
    assert_eq!((egress.started_at_ns, egress.ended_at_ns, egress.version), (5, 7, 4));
    drop(held);
    site.pass(2 * EGRESS_LEASE_LIFE).await;
    assert!(node.hears().is_none(), "what it said itself it need not hear");
    node.egresses.finish(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn no_step_is_left_out_whatever_the_recorder_says_at_once() {
    for (last, versions) in [
        (EgressStatus::Complete, 4),
        (EgressStatus::LimitReached, 3),
        (EgressStatus::Failed, 2),
        (EgressStatus::Aborted, 2),
    ] {
        let mut site = Site::new().await;
        let mut node = site.node("ND_1");
        node.start().await;
        site.pass(STEP).await;
        node.started().over(last, "why".into(), Vec::new());
        site.pass(STEP).await;
        let (egress, ..) = site.stored().await;
        assert_eq!((egress.status, egress.version, egress.error.as_str()), (last, versions, "why"));
        assert!(egress.ended_at_ns > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_or_arranges_a_recording_is_heard_at_the_node_that_makes_it() {
    let mut site = Site::new().await;
    let mut here = site.node("ND_1");
    let asked = here.start().await;
    site.pass(STEP).await;
    let there = site.node("ND_2");
    let held = here.started();
    held.began(1);
    site.pass(STEP).await;
    there.egresses.update_layout(&asked.id, "speaker").await.unwrap();
    site.pass(RENEW_INTERVAL + STEP).await;
    let arranged = EgressSource::Room { layout: "speaker".into(), media: plenary_model::EgressMedia::Both };
    assert!(matches!(here.hears(), Some(Heard::Layout(egress)) if egress.source == arranged));
    there.egresses.stop(&asked.id).await.unwrap();
    site.pass(RENEW_INTERVAL + STEP).await;
    assert!(matches!(here.hears(), Some(Heard::Stop(egress)) if egress.status == EgressStatus::Ending));
    held.over(EgressStatus::Complete, String::new(), vec![file()]);
    site.pass(STEP).await;
    assert_eq!(site.status().await, EgressStatus::Complete);
    assert!(here.hears().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_stopped_before_it_began_is_over() {
    let mut site = Site::new().await;
    let mut node = site.node("ND_1");
    let asked = node.start().await;
    site.pass(STEP).await;
    let held = node.started();
    node.egresses.stop(&asked.id).await.unwrap();
    // Too late: the store has it already.
    held.began(1);
    site.pass(STEP).await;
    assert!(matches!(node.hears(), Some(Heard::Stop(egress)) if egress.status == EgressStatus::Aborted));
    site.pass(2 * EGRESS_LEASE_LIFE).await;
    assert_eq!(site.status().await, EgressStatus::Aborted);
    assert!(node.hears().is_none());
}

#[tokio::test(start_paused = true)]
async fn another_node_goes_on_when_the_recorders_dies() {
    let mut site = Site::new().await;
    let mut here = site.node("ND_1");
    here.start().await;
    site.pass(STEP).await;
    let first = here.started();
    first.began(1);
    site.pass(STEP).await;
    let mut others = [site.node("ND_2"), site.node("ND_3")];
    let mut gone = here.kill();
    let began = Instant::now();
    let second = loop {
        site.pass(STEP).await;
        match others.iter_mut().find_map(Node::hears) {
            Some(Heard::Start(held)) => break held,
            Some(other) => panic!("{other:?}"),
            None => assert!(began.elapsed() < EGRESS_LEASE_LIFE + LOOK_INTERVAL + STEP),
        }
    };
    assert!(second.epoch > first.epoch);
    assert_eq!((second.egress.status, second.egress.started_at_ns), (EgressStatus::Active, 1));
    let former = Former { epoch: first.epoch, node: "ND_1".into() };
    assert_eq!((&first.former, &second.former), (&None, &Some(former)));
    second.began(9);
    site.pass(2 * EGRESS_LEASE_LIFE).await;
    assert_eq!(site.stored().await.0.started_at_ns, 1, "it began with the first");
    assert!(others.iter_mut().all(|node| node.hears().is_none()) && gone.try_recv().is_err(), "one alone goes on");
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_slept_while_another_took_over_touches_nothing_more() {
    let mut site = Site::new().await;
    let mut node = site.node("ND_1");
    let asked = node.start().await;
    site.pass(STEP).await;
    let held = node.started();
    held.began(1);
    site.pass(STEP).await;
    // Time passes for the store alone, as for a process that is paused.
    site.now_ms += 10_000;
    site.store.set_time(site.now_ms);
    let by = Claimant { node: "ND_2".into(), life: 1, known_epoch: 0 };
    let (lease, taken) = site.store.claim_egress(name(), asked.id.clone(), by).await.unwrap();
    held.over(EgressStatus::Failed, "it knows no better".into(), Vec::new());
    site.pass(STEP).await;
    assert!(matches!(node.hears(), Some(Heard::Fenced(epoch)) if epoch == held.epoch));
    assert_eq!(site.stored().await, (taken, lease.epoch, Some("ND_2".into())));
    site.pass(RENEW_INTERVAL + STEP).await;
    assert!(node.hears().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_goes_on_until_another_has_begun() {
    let mut site = Site::new().await;
    let mut here = site.node("ND_1");
    here.start().await;
    site.pass(STEP).await;
    let first = here.started();
    let mut there = site.node("ND_2");
    here.egresses.hand_over(true);
    site.pass(LOOK_INTERVAL + STEP).await;
    let second = there.started();
    assert!(second.epoch > first.epoch && here.hears().is_none());
    site.pass(OVERLAP).await;
    assert!(matches!(here.hears(), Some(Heard::Fenced(epoch)) if epoch == first.epoch));
    here.egresses.finish(Duration::from_secs(60)).await;

    there.egresses.hand_over(true);
    site.pass(OVERLAP + EGRESS_LEASE_LIFE).await;
    assert!(matches!(there.hears(), Some(Heard::Fenced(_))));
    assert_eq!(site.stored().await.2, None, "it claims nothing while it leaves");
    there.egresses.hand_over(false);
    site.pass(LOOK_INTERVAL + STEP).await;
    assert!(there.started().epoch > second.epoch);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_lost_is_put_back_by_who_records() {
    let mut site = Site::new().await;
    let mut node = site.node("ND_1");
    node.start().await;
    site.pass(STEP).await;
    let held = node.started();
    held.began(1);
    site.pass(STEP).await;
    let before = site.stored().await;
    site.store.roll_back(&Stored::default(), site.now_ms);
    site.pass(RENEW_INTERVAL + STEP).await;
    assert_eq!(site.stored().await, before);
    held.over(EgressStatus::Complete, String::new(), Vec::new());
    site.pass(STEP).await;
    assert_eq!(site.status().await, EgressStatus::Complete);
    assert!(node.hears().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_node_with_most_of_what_is_recorded_comes_first() {
    let mut site = Site::new().await;
    let (mut here, mut there) = (site.node("ND_1"), site.node("ND_2"));
    site.join("ND_1", "ann", &["TR_1"]).await;
    site.join("ND_2", "bob", &["TR_2", "TR_3"]).await;
    here.start().await;
    site.pass(LOOK_INTERVAL + STEP).await;
    let _of_all = there.started();
    assert!(here.hears().is_none());
    here.egresses
        .start(EgressAsk { source: EgressSource::Track { track: "TR_1".into() }, ..of_everybody() })
        .await
        .unwrap();
    site.pass(STEP).await;
    let _of_ann = here.started();
    there.kill();
    let of_bob = EgressSource::Participant { identity: "bob".try_into().unwrap(), screen_share: false };
    here.egresses.start(EgressAsk { source: of_bob, ..of_everybody() }).await.unwrap();
    site.pass(PATIENCE - LOOK_INTERVAL).await;
    assert!(here.hears().is_none());
    site.pass(2 * LOOK_INTERVAL).await;
    here.started();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_in_a_room_that_is_gone() {
    for (status, expected) in
        [(EgressStatus::Starting, EgressStatus::Aborted), (EgressStatus::Active, EgressStatus::Ending)]
    {
        let mut site = Site::new().await;
        let asked = Egress { status, ..egress() };
        site.store.start_egress(asked).await.unwrap();
        site.store.delete(name(), LeaveReason::RoomDeleted).await.unwrap();
        site.store.create(standup("RM_2")).await.unwrap();
        let mut node = site.node("ND_1");
        site.pass(STEP).await;
        assert_eq!(site.status().await, expected);
        match expected {
            EgressStatus::Ending => assert_eq!(node.started().egress.status, EgressStatus::Ending),
            _ => assert!(node.hears().is_none()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_recorder_goes_on_at_once_where_one_dies() {
    let mut site = Site::new().await;
    let mut node = site.node("ND_1");
    let asked = node.start().await;
    site.pass(STEP).await;
    let first = node.started();
    first.began(1);
    let epoch = first.epoch;
    drop(first);
    site.pass(STEP).await;
    let second = node.started();
    assert!(second.epoch > epoch);
    assert_eq!((second.egress.status, second.egress.started_at_ns), (EgressStatus::Active, 1), "what it said last");
    second.began(2);
    node.egresses.stop(&asked.id).await.unwrap();
    // Before it could hear of that.
    drop(second);
    site.pass(STEP).await;
    assert!(matches!(node.hears(), Some(Heard::Stop(_))));
    let third = node.started();
    assert_eq!(third.egress.status, EgressStatus::Ending);
    third.over(EgressStatus::Complete, String::new(), vec![file()]);
    drop(third);
    site.pass(LOOK_INTERVAL + STEP).await;
    assert_eq!(site.status().await, EgressStatus::Complete);
    assert!(node.hears().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_recording_whose_recorders_die_one_after_the_other_fails_when_every_node_has_tried() {
    let mut site = Site::new().await;
    let mut here = site.node("ND_1");
    here.start().await;
    site.pass(STEP).await;
    let mut there = site.node("ND_2");
    for node in [&mut here, &mut there] {
        for _ in 0..DEATHS_MAX {
            assert!(!site.status().await.is_over());
            drop(node.started());
            site.pass(STEP).await;
        }
        site.pass(LOOK_INTERVAL).await;
    }
    site.pass(PATIENCE).await;
    let (egress, ..) = site.stored().await;
    assert_eq!((egress.status, egress.error.as_str()), (EgressStatus::Failed, RECORDERS_DIED));
    assert!(here.hears().is_none() && there.hears().is_none());
}

#[tokio::test(start_paused = true)]
async fn recorders_that_die_from_time_to_time_do_not_end_a_recording() {
    let mut site = Site::new().await;
    let mut node = site.node("ND_1");
    node.start().await;
    for _ in 0..3 * DEATHS_MAX {
        site.pass(LOOK_INTERVAL).await;
        drop(node.started());
        site.pass(DEATHS_COUNTED_FOR / 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_holds_no_more_than_it_may() {
    let mut site = Site::new().await;
    for number in 0..=HELD_MAX {
        let room = RoomName::try_from(&*format!("room {number}")).unwrap();
        let sid = format!("RM_{number}");
        site.store.create(NewRoom { name: room.clone(), ..standup(&sid) }).await.unwrap();
        let id = format!("EG_{number}").into();
        site.store.start_egress(Egress { id, room, room_sid: sid.into(), ..egress() }).await.unwrap();
    }
    let mut node = site.node("ND_1");
    site.pass(2 * LOOK_INTERVAL).await;
    let held: Vec<_> = std::iter::from_fn(|| node.hears()).collect();
    assert_eq!(held.len(), HELD_MAX);
    let Some(Heard::Start(first)) = held.first() else { panic!("{held:?}") };
    first.over(EgressStatus::Failed, String::new(), Vec::new());
    site.pass(LOOK_INTERVAL + STEP).await;
    node.started();
}

#[tokio::test(start_paused = true)]
async fn the_file_of_a_track_is_called_after_what_it_is_in() {
    let site = Site::new().await;
    let node = site.node("ND_1");
    let declared = |mime: &str| plenary_model::TrackCodec {
        mime: mime.into(),
        mid: String::new(),
        cid: String::new(),
        layers: Vec::new(),
        layer_mode: Default::default(),
    };
    for (number, (mime, codecs, path)) in (0..).zip([
        ("video/VP8", vec![], "x.webm"),
        ("video/H264", vec![], "x.mkv"),
        ("audio/red", vec![], "x.webm"),
        ("", vec![declared("video/h264"), declared("video/vp8")], "x.mkv"),
        ("", vec![], "x.webm"),
        ("video/AV1", vec![declared("video/av1"), declared("video/h264")], "x.webm"),
    ]) {
        let sid = format!("TR_{number}");
        let track = Track { mime: mime.into(), codecs, ..track(&sid) };
        let track = Participant { tracks: vec![track], ..person(&sid, &[]) };
        let of_track = EgressSource::Track { track: sid.as_str().into() };
        site.seat("ND_1", track).await;
        let file = FileAsk { kind: EgressFileKind::AsPublished, template: format!("{number}/x") };
        let ask = EgressAsk { source: of_track, outputs: vec![file], ..of_everybody() };
        let started = node.egresses.start(ask).await.unwrap();
        assert_eq!(started.outputs[0].path, format!("{number}/{path}"));
    }
}

fn of_everybody() -> EgressAsk {
    EgressAsk {
        room: name(),
        source: EgressSource::Room { layout: String::new(), media: plenary_model::EgressMedia::Both },
        outputs: vec![FileAsk { kind: EgressFileKind::Mp4, template: "x".into() }],
        request: EgressRequest { kind: EgressRequestKind::RoomComposite, message: Default::default() },
    }
}

fn egress() -> Egress {
    Egress {
        id: "EG_1".into(),
        room: name(),
        room_sid: "RM_1".into(),
        source: of_everybody().source,
        outputs: vec![EgressOutput { kind: EgressFileKind::Mp4, path: "x.mp4".into() }],
        request: of_everybody().request,
        status: EgressStatus::Starting,
        asked_at_ns: 1,
        started_at_ns: 0,
        ended_at_ns: 0,
        updated_at_ns: 1,
        error: String::new(),
        files: Vec::new(),
        version: 1,
    }
}

fn file() -> EgressFile {
    EgressFile { path: "x.mp4".into(), started_at_ns: 5, ended_at_ns: 7, duration_ns: 2, bytes: 3 }
}

const STEP: Duration = Duration::from_millis(100);
