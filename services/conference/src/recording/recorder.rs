//! The actor of one recording at this node: has its room told to the writer, its tracks tapped, and its files made into what was
//! asked for. It lives on the room's thread, and goes on after the room until its files are there.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, WeakRecipient, WrapFuture};
use plenary_cluster::StoreError;
use plenary_media_core::Command;
use plenary_model::{Egress, EgressId, EgressStatus, ParticipantSid, RoomName, TrackSid};
use plenary_recording::{
    recording::DiskFailure,
    session_file::{Epoch, Predecessor, Started, StopReason, VERSION},
};
use plenary_room_core::notice::Notice;

use super::{
    Report, WriterHandle,
    results::{self, Outcome},
    watch::{Order, Watch},
    writer,
};
use crate::{
    egress::Held,
    events::{EncryptedTrackLeftOut, RecordingBegan, RecordingDiskFailed},
    ids,
    media_router::{Record, RouterLevels, StopRecord, Tell},
    neighbours::Host,
    node::{RecordingCounted, RouterHandle, Shared},
    participant::Shutdown,
    room::{Follow, Unfollow},
    rooms::{FollowRoom, RouterLost, UnfollowRoom},
    tokens::unix_ns,
};

/// See the module.
pub struct Recorder {
    shared: Arc<Shared>,
    held: Held,
    phase: Phase,
    /// The room may have been told to tell this one.
    follows: bool,
    /// The room's, once it tells this one.
    levels: Option<WeakRecipient<RouterLevels>>,
    watch: Watch,
    tapped: BTreeMap<TrackSid, Tapped>,
    /// Somebody looks at the files since then, and may have their locks.
    delivering: Option<Instant>,
    /// The node does, and nobody goes on.
    ends: bool,
    /// Since when there is nothing left to record of what was.
    deserted: Option<Instant>,
    span: tracing::Span,
    _counted: RecordingCounted,
}

enum Phase {
    /// Looking for what was recorded before.
    Opening {
        since: Instant,
    },
    Writing(WriterHandle),
    /// The writer has been told, and finishes its files.
    Closing(WriterHandle),
    /// Its files become what was asked for.
    Finishing {
        reason: StopReason,
        since: Instant,
    },
    /// Somebody else has it, or it is over.
    Done,
}

struct Tapped {
    publisher: ParticipantSid,
    /// None as long as no router of this node takes it.
    router: Option<RouterHandle>,
}

/// From the room, before all that it tells. It hears how loud the tracks are that it has recorded, as others may not be here.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Followed {
    pub levels: WeakRecipient<RouterLevels>,
}

/// What everybody in the room is told. From the room, in order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Seen(pub Notice);

/// Nothing more comes from this actor of the room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Unseen {
    /// Everywhere.
    pub is_over: bool,
}

/// From whoever holds the recording for this node.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub enum Ask {
    /// Nothing more is recorded: its files are wanted, unless it is over.
    Stop(Arc<Egress>),
    /// What is asked for has changed.
    Change(Arc<Egress>),
    /// Somebody else has it. To the recorder of this epoch.
    Fence { epoch: u64 },
}

/// From the writer's thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Reported(Report);

impl Recorder {
    pub fn new(shared: Arc<Shared>, held: Held) -> Self {
        let (id, room) = (held.egress.id.as_str(), held.egress.room.as_str());
        let span = tracing::error_span!(parent: None, "recording", recording = id, room);
        Self {
            _counted: shared.recording_opens(),
            watch: Watch::new(held.egress.source.clone(), held.egress.status == EgressStatus::Active),
            shared,
            held,
            phase: Phase::Opening { since: Instant::now() },
            follows: false,
            levels: None,
            tapped: BTreeMap::new(),
            delivering: None,
            ends: false,
            deserted: None,
            span,
        }
    }

    fn id(&self) -> &EgressId {
        &self.held.egress.id
    }

    fn room_name(&self) -> &RoomName {
        &self.held.egress.room
    }

    fn epoch(&self) -> Epoch {
        Epoch { number: self.held.epoch, boot: self.shared.boot }
    }

    fn open(&mut self, ctx: &mut Context<Self>) {
        if self.held.egress.status == EgressStatus::Ending {
            // Whoever recorded did not live to see its files.
            self.finish(StopReason::Requested, ctx);
            return;
        }
        let before = results::predecessor(self.shared.recording.clone(), self.id().clone(), self.epoch());
        ctx.spawn(before.into_actor(self).map(|before, actor, ctx| actor.begin(before, ctx)));
    }

    fn begin(&mut self, predecessor: Option<Predecessor>, ctx: &mut Context<Self>) {
        let _span = self.span.clone().entered();
        if !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        let started = Started {
            version: VERSION,
            recording: self.id().to_string(),
            room: self.held.egress.room_sid.clone(),
            room_name: self.room_name().to_string(),
            node: self.shared.node.clone(),
            predecessor,
            former: self.held.former.clone(),
        };
        let reports = ctx.address();
        // The writer's thread must not wait, and says little.
        let report = move |report| reports.do_send(Reported(report));
        match writer::start(&self.shared.recording, self.epoch(), started, report) {
            Ok(writer) => self.phase = Phase::Writing(writer),
            Err(_) => return self.finish(StopReason::DiskFailed, ctx),
        }
        RecordingBegan { epoch: self.held.epoch }.emit();
        self.held.began(unix_ns());
        self.follow(ctx);
    }

    /// What is known already and told again changes nothing.
    fn follow(&mut self, ctx: &mut Context<Self>) {
        let follow = FollowRoom { room: self.room_name().clone(), follow: Follow(ctx.address()) };
        self.follows = true;
        self.shared.rooms_for(self.room_name()).do_send(follow);
    }

    /// The room's actor ended, for one reason or another.
    fn look_for_room(&self, ctx: &mut Context<Self>) {
        let (store, room, sid) =
            (self.shared.store.clone(), self.room_name().clone(), self.held.egress.room_sid.clone());
        let is_over = async move {
            match store.snapshot(room).await {
                Ok(snapshot) => snapshot.room.sid != sid,
                Err(error) => error == StoreError::NoSuchRoom,
            }
        };
        ctx.spawn(is_over.into_actor(self).map(|is_over, actor, ctx| match is_over {
            true => actor.stop(StopReason::RoomEnded, ctx),
            false => drop(ctx.run_later(TICK, |actor, ctx| {
                if matches!(actor.phase, Phase::Writing(_)) {
                    actor.follow(ctx);
                }
            })),
        }));
    }

    /// Nothing more is recorded here; its files become whole.
    fn stop(&mut self, reason: StopReason, ctx: &mut Context<Self>) {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Opening { .. } => self.finish(reason, ctx),
            Phase::Writing(writer) => {
                self.unfollow(ctx);
                // If it has ended already its last word is on the way.
                let _ = writer.stop(Instant::now(), reason);
                self.phase = Phase::Closing(writer);
            }
            other => self.phase = other,
        }
    }

    /// What is here is closed, and nothing said of it.
    fn stop_silently(&mut self, ctx: &mut Context<Self>) {
        match std::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Writing(writer) => {
                self.unfollow(ctx);
                let _ = writer.stop(Instant::now(), StopReason::Moved);
            }
            // Its last word ends it.
            Phase::Closing(_) => {}
            _ => ctx.stop(),
        }
    }

    fn unfollow(&mut self, ctx: &mut Context<Self>) {
        if std::mem::take(&mut self.follows) {
            let unfollow = UnfollowRoom { room: self.room_name().clone(), unfollow: Unfollow(ctx.address()) };
            self.shared.rooms_for(self.room_name()).do_send(unfollow);
        }
        for (track, tapped) in std::mem::take(&mut self.tapped) {
            self.untap(track, tapped);
        }
    }

    fn reported(&mut self, report: Report, ctx: &mut Context<Self>) {
        let _span = self.span.clone().entered();
        let reason = match report {
            Report::KeyframeNeeded(track) => {
                if let Some(router) = self.tapped.get(&track).and_then(|tapped| tapped.router.as_ref()) {
                    // If there is no room for it, the next gap asks again.
                    let _ = router.addr.try_send(Tell(Command::RefreshTap { track }));
                }
                return;
            }
            Report::Ended(ended) => ended.reason,
            // Its files are repaired by whoever goes on.
            Report::Crashed => return ctx.stop(),
        };
        self.unfollow(ctx);
        match self.phase {
            Phase::Done => ctx.stop(),
            _ => self.finish(reason, ctx),
        }
    }

    fn finish(&mut self, reason: StopReason, ctx: &mut Context<Self>) {
        let since = Instant::now();
        self.phase = Phase::Finishing { reason, since };
        self.held.ended(unix_ns());
        self.deliver(reason, since, ctx);
    }

    /// Asked again with each tick until it is done.
    fn deliver(&mut self, reason: StopReason, since: Instant, ctx: &mut Context<Self>) {
        if self.delivering.is_some() {
            return;
        }
        self.delivering = Some(Instant::now());
        let waits = since.elapsed() < FORMER_CLOSES_WITHIN;
        let delivered = results::deliver(self.shared.recording.clone(), self.held.egress.clone(), reason, waits);
        ctx.spawn(delivered.into_actor(self).map(|outcome, actor, ctx| {
            actor.delivering = None;
            let stopped_early = || {
                let (status, error) = (EgressStatus::Failed, STOPPED_EARLY.to_owned());
                actor.ends.then_some(Outcome { status, error, files: Vec::new() })
            };
            let Some(outcome) = outcome.or_else(stopped_early) else { return };
            if matches!(actor.phase, Phase::Finishing { .. }) {
                actor.end(outcome, ctx);
            }
        }));
    }

    fn end(&mut self, Outcome { status, error, files }: Outcome, ctx: &mut Context<Self>) {
        self.phase = Phase::Done;
        self.held.over(status, error, files);
        ctx.stop();
    }

    /// Whoever is at the disk for this one waits there, perhaps for ever.
    fn is_stuck(&self) -> bool {
        match &self.phase {
            Phase::Opening { since } => since.elapsed() > OPENED_WITHIN,
            Phase::Writing(writer) | Phase::Closing(writer) => writer.is_stuck(Instant::now()),
            Phase::Finishing { .. } => self.delivering.is_some_and(|since| since.elapsed() > LOOKED_WITHIN),
            Phase::Done => false,
        }
    }

    /// What is on the disk stays as it is, for the next repair.
    fn give_up(&mut self, ctx: &mut Context<Self>) {
        let failure = DiskFailure::Slow;
        RecordingDiskFailed { recording: self.id().as_str(), failure, error: &io::ErrorKind::TimedOut.into() }.emit();
        self.unfollow(ctx);
        self.end(Outcome { status: EgressStatus::Failed, error: failure.to_string(), files: Vec::new() }, ctx);
    }

    fn carry_out(&mut self) {
        let _span = self.span.clone().entered();
        while let Some(order) = self.watch.poll() {
            let Phase::Writing(writer) = &self.phase else { continue };
            match order {
                // What the queue has no place for is a line less.
                Order::Write(input) => drop(writer.tell(Instant::now(), input)),
                Order::Tap { track, publisher } => {
                    let router = self.tap(writer, &track, &publisher);
                    self.tapped.insert(track, Tapped { publisher, router });
                }
                Order::Untap { track } => {
                    if let Some(tapped) = self.tapped.remove(&track) {
                        self.untap(track, tapped);
                    }
                }
                Order::Encrypted { track } => EncryptedTrackLeftOut { track: &track }.emit(),
            }
        }
    }

    /// The router that taps it now.
    fn tap(&self, writer: &WriterHandle, track: &TrackSid, publisher: &ParticipantSid) -> Option<RouterHandle> {
        let here = ids::host_of(publisher).filter(|(node, _)| *node == self.shared.node);
        let (router, from) = match here.and_then(|(_, index)| self.shared.router_at(index)) {
            Some(router) => (router, None),
            None => {
                let router = self.shared.own_router(self.room_name());
                let from = match self.shared.neighbours.host(publisher, router.index) {
                    Host::Here => None,
                    Host::Elsewhere(from) => Some(from),
                    Host::Unknown => return None,
                };
                (router, from)
            }
        };
        let record = Record {
            recording: self.id().clone(),
            epoch: self.held.epoch,
            writer: writer.clone(),
            track: track.clone(),
            from,
            levels: self.levels.clone()?,
        };
        router.addr.try_send(record).ok().map(|()| router)
    }

    fn untap(&self, track: TrackSid, tapped: Tapped) {
        if let Some(router) = tapped.router {
            let (recording, epoch) = (self.id().clone(), self.held.epoch);
            // A few per recording, and not to be lost: a track would be tapped for ever.
            router.addr.do_send(StopRecord { recording, epoch, track });
        }
    }

    /// Tracks that no router took, or whose router died.
    fn tap_again(&mut self) {
        self.tap_where(|router| !router.is_some_and(|router| router.addr.connected()));
    }

    fn tap_where(&mut self, is_meant: impl Fn(Option<&RouterHandle>) -> bool) {
        let Phase::Writing(writer) = &self.phase else { return };
        let mut taps = std::mem::take(&mut self.tapped);
        for (track, tapped) in taps.iter_mut().filter(|(_, tapped)| is_meant(tapped.router.as_ref())) {
            let router = self.tap(writer, track, &tapped.publisher);
            // Where it was tapped it still is.
            tapped.router = router.or(tapped.router.take().filter(|before| before.addr.connected()));
        }
        self.tapped = taps;
    }

    fn tick(&mut self, ctx: &mut Context<Self>) {
        if self.is_stuck() {
            return self.give_up(ctx);
        }
        self.tap_again();
        match self.phase {
            Phase::Finishing { reason, since } => self.deliver(reason, since, ctx),
            Phase::Writing(_) => {
                let is_deserted = self.watch.is_deserted();
                self.deserted = is_deserted.then(|| self.deserted.unwrap_or_else(Instant::now));
                if self.deserted.is_some_and(|since| since.elapsed() >= DESERTED_FOR) {
                    self.stop(StopReason::SourceEnded, ctx);
                }
            }
            _ => {}
        }
    }
}

impl Actor for Recorder {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(TICK, Self::tick);
        self.open(ctx);
    }

    /// Also runs while a panic unwinds. What is still being written then is gone on with by another recorder.
    fn stopped(&mut self, ctx: &mut Self::Context) {
        self.unfollow(ctx);
        if let Phase::Writing(writer) = &self.phase {
            let _ = writer.stop(Instant::now(), StopReason::Moved);
        }
    }
}

impl Handler<Followed> for Recorder {
    type Result = ();

    fn handle(&mut self, Followed { levels }: Followed, _: &mut Self::Context) {
        self.levels = Some(levels);
        // What was tapped for a room that was lost is told to the next.
        self.tap_where(|_| true);
    }
}

impl Handler<Seen> for Recorder {
    type Result = ();

    fn handle(&mut self, Seen(notice): Seen, _: &mut Self::Context) {
        self.watch.hear(notice);
        self.carry_out();
    }
}

impl Handler<Unseen> for Recorder {
    type Result = ();

    fn handle(&mut self, Unseen { is_over }: Unseen, ctx: &mut Self::Context) {
        match self.phase {
            Phase::Writing(_) if is_over => self.stop(StopReason::RoomEnded, ctx),
            Phase::Writing(_) => {
                self.watch.lose_sight();
                self.look_for_room(ctx);
            }
            _ => {}
        }
    }
}

impl Handler<Ask> for Recorder {
    type Result = ();

    fn handle(&mut self, ask: Ask, ctx: &mut Self::Context) {
        match ask {
            Ask::Stop(egress) if egress.status.is_over() => self.stop_silently(ctx),
            Ask::Stop(egress) => {
                self.held.egress = egress;
                self.stop(StopReason::Requested, ctx);
            }
            Ask::Change(egress) => self.held.egress = egress,
            Ask::Fence { .. } => self.stop_silently(ctx),
        }
    }
}

impl Handler<Reported> for Recorder {
    type Result = ();

    fn handle(&mut self, Reported(report): Reported, ctx: &mut Self::Context) {
        self.reported(report, ctx);
    }
}

impl Handler<RouterLost> for Recorder {
    type Result = ();

    fn handle(&mut self, RouterLost: RouterLost, _: &mut Self::Context) {
        self.tap_again();
    }
}

impl Handler<Shutdown> for Recorder {
    type Result = ();

    /// Of a node that is alone: what others could go on with is left to them by whoever holds it.
    fn handle(&mut self, _: Shutdown, ctx: &mut Self::Context) {
        if !self.shared.is_alone() {
            return;
        }
        self.ends = true;
        match self.phase {
            Phase::Finishing { reason, since } => self.deliver(reason, since, ctx),
            _ => self.stop(StopReason::RoomEnded, ctx),
        }
    }
}

const STOPPED_EARLY: &str = "this server stopped before its files were made";

/// How often what could not be tapped is tried again, and whether files are ready.
const TICK: Duration = Duration::from_secs(1);

/// A node that gave the recording to this one has closed its files by then, unless it sleeps or its disk is slow: what it has is
/// then left out of the results.
const FORMER_CLOSES_WITHIN: Duration = Duration::from_secs(10);

/// Reading what was recorded before takes a moment.
const OPENED_WITHIN: Duration = Duration::from_secs(30);

/// Looking at all the files of a recording, and repairing what has to be, takes seconds for many hours of it.
const LOOKED_WITHIN: Duration = Duration::from_secs(10 * 60);

/// Somebody whose connection broke is back by then.
const DESERTED_FOR: Duration = Duration::from_secs(10);

/// Notices of the room that may wait.
const MAILBOX: usize = 1024;
