//! One room on this node: carries between the store, the bus, the sessions and the core, which decides.

mod outgoing;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{
    Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, MessageResult, SpawnHandle,
    StreamHandler, WeakAddr, WrapFuture,
};
use futures_util::{future::BoxFuture, stream};
use plenary_cluster::{
    AdminReply, Barred, BusError, Event, Joined, Lost, NewRoom, ROOM_LIFE, RoomEvent, Seat, StoreError,
};
use plenary_media_core::TrackLevel;
use plenary_model::{
    Admin, AdminRefusal, Audience, Identity, LeaveReason, NodeId, Participant as Info, ParticipantSid,
    ParticipantState, RoomChange, RoomDelta, RoomName, RoomWord,
};
use plenary_protocol::token::Claims;
use plenary_room_core::{
    host::{self, Call, Closing, Host as Core, StoreFailure, TOUCH_INTERVAL},
    notice::{Notice, Request, Welcome},
    room::{self as core, AdminAsk, Input, Output, RecordChange},
    session::{Session, Start, UnfitCodecs},
};
use tokio::sync::oneshot;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use self::outgoing::Outgoing;
use crate::{
    events::{
        JoinAccepted, PanicCaught, RoomClosed, RoomGivesWay, RoomGone, RoomLeft, RoomOpened, StoreFailed, WordsDropped,
        WordsMissed,
    },
    ids,
    media_router::{RouterIndex, RouterLevels},
    node::{
        RouterHandle, SessionCounted, Shared,
        drain::{Person, Seats},
    },
    participant::{Begin, FromRoom, Move, Participant, Shutdown},
    reach,
    recording::{Followed, Recorder, Seen, Unseen},
    rooms::{CountRoom, EnforceBans, JoinRoom, Lapsed, MovePeople, Parted, RoomClosing, RoomEnded, Rooms, RouterLost},
    telemetry,
    tokens::{Refresher, unix_ms, unix_seconds},
};

/// The actor of one room on this node.
pub struct Room {
    name: RoomName,
    shared: Arc<Shared>,
    rooms: WeakAddr<Rooms>,
    core: Core,
    sessions: HashMap<ParticipantSid, Seated>,
    /// What each router measured last: its people and those it has from others are a part of the room.
    levels: HashMap<RouterIndex, (Instant, Vec<TrackLevel>)>,
    /// Who asked for media over TCP: their next session gets no UDP candidates.
    tcp_only: HashSet<Identity>,
    /// Joins the store is deciding or the core is welcoming.
    joining: HashMap<ParticipantSid, Joining>,
    admin: HashMap<u64, oneshot::Sender<AdminReply>>,
    next_admin: u64,
    /// Who records it from here.
    pub(crate) recorders: Vec<Addr<Recorder>>,
    /// On their way to the other nodes, in order.
    words: Outgoing,
    timer: Option<(Instant, SpawnHandle)>,
    /// It holds one of the node's places for rooms.
    counted: bool,
    opened: Instant,
    /// Log lines of the room carry its name.
    span: tracing::Span,
}

struct Seated {
    identity: Identity,
    /// When its token was issued.
    issued_unix_s: Option<u64>,
    addr: Addr<Participant>,
    /// Where its media is.
    router: RouterHandle,
    since: Instant,
    /// To go to another node.
    told: bool,
    /// Gone with the session, also when the room is lost.
    _counted: SessionCounted,
}

struct Joining {
    trace: opentelemetry::Context,
    claims: Claims,
    client: Client,
    router: RouterHandle,
    asked: Instant,
    reply: oneshot::Sender<Result<Addr<Participant>, StoreError>>,
}

/// What the client said about itself when it joined.
#[derive(Debug, Clone, Default)]
pub struct Client {
    pub protocol: u32,
    pub client_protocol: i32,
    pub capabilities: Vec<i32>,
    pub auto_subscribe: bool,
    pub adaptive_stream: bool,
    pub allow_pause: bool,
    pub unfit: UnfitCodecs,
}

/// Seat somebody. From `Rooms`; answered once the session exists.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Join {
    pub identity: Identity,
    pub claims: Claims,
    pub client: Client,
    pub create: Option<NewRoom>,
    /// The trace of the request.
    pub trace: opentelemetry::Context,
    pub reply: oneshot::Sender<Result<Addr<Participant>, StoreError>>,
}

/// Keep a room that nobody has joined yet, until its empty timeout. From `Rooms`.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Host;

/// Find the session a client wants to come back to. Without a sid the identity decides.
#[derive(Message)]
#[rtype(result = "Option<Addr<Participant>>")]
pub struct Find {
    pub identity: Identity,
    pub sid: Option<ParticipantSid>,
}

/// From a session, on the same thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FromSession {
    pub who: ParticipantSid,
    pub what: Request,
}

/// Tell a recorder what everybody is told, and first what there is. From the recorder, on the same thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Follow(pub Addr<Recorder>);

/// Undoes [`Follow`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Unfollow(pub Addr<Recorder>);

/// A client wants its media over TCP, or over UDP again, from its next session on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct PreferTcp {
    pub identity: Identity,
    pub tcp: bool,
}

/// A session's death notice.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SessionEnded {
    pub who: ParticipantSid,
    pub reason: LeaveReason,
    pub crashed: bool,
}

/// From the room API.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Administer {
    pub what: Admin,
    pub reply: oneshot::Sender<AdminReply>,
}

impl Room {
    pub fn new(name: RoomName, shared: Arc<Shared>, rooms: WeakAddr<Rooms>) -> Self {
        let opened = Instant::now();
        // The level of errors, so that every line that is written at all says which room it concerns.
        let span = tracing::error_span!(parent: None, "room", room = name.as_str());
        let room = core::Room::new(opened, shared.node.clone(), shared.room_settings.clone());
        Self {
            core: Core::new(opened, room),
            name,
            shared,
            rooms,
            sessions: HashMap::new(),
            levels: HashMap::new(),
            tcp_only: HashSet::new(),
            joining: HashMap::new(),
            admin: HashMap::new(),
            next_admin: 0,
            recorders: Vec::new(),
            words: Outgoing::default(),
            timer: None,
            counted: false,
            opened,
            span,
        }
    }

    fn handle(&mut self, input: Input, ctx: &mut Context<Self>) {
        self.handle_host(host::Input::Room(input), ctx);
    }

    fn handle_host(&mut self, input: host::Input, ctx: &mut Context<Self>) {
        let _span = self.span.clone().entered();
        self.core.handle(Instant::now(), input);
        self.flush(ctx);
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.core.poll_output() {
            match output {
                host::Output::Room(output) => self.carry(output, ctx),
                host::Output::Call(call) => self.call(call, ctx),
                host::Output::Unseated { who } => self.refuse(&who, StoreError::Unavailable),
                host::Output::Closing { why } => {
                    let after = self.opened.elapsed();
                    match why {
                        Closing::Closed { reason } => RoomClosed { reason, after }.emit(),
                        Closing::Left => RoomLeft { after }.emit(),
                    }
                    self.dismiss(matches!(why, Closing::Closed { .. }));
                    if let Some(rooms) = self.rooms.upgrade() {
                        rooms.do_send(RoomClosing { name: self.name.clone(), room: ctx.address() });
                    }
                }
                host::Output::Stop => ctx.stop(),
            }
        }
        self.say_next(ctx);
        self.arm(ctx);
    }

    fn carry(&mut self, output: Output, ctx: &mut Context<Self>) {
        match output {
            Output::Tell { who, what } => {
                if let Some(seated) = self.sessions.get(&who) {
                    seated.addr.do_send(FromRoom(what));
                }
            }
            Output::Watched(notice) => {
                for recorder in &self.recorders {
                    recorder.do_send(Seen(notice.clone()));
                }
            }
            Output::Welcome { who, welcome } => self.welcome(who, welcome, ctx),
            Output::Say(word) => WordsDropped { words: self.words.push(word) }.emit(),
            Output::AdminDone { number, outcome } => {
                if let Some(reply) = self.admin.remove(&number) {
                    // The caller may have given up.
                    let _ = reply.send(outcome);
                }
            }
            Output::Write(_) | Output::Reread | Output::Unattended | Output::Closed { .. } => {
                unreachable!("the host carries these out")
            }
        }
    }

    /// Nothing more is recorded from here.
    fn dismiss(&mut self, is_over: bool) {
        for recorder in self.recorders.drain(..) {
            recorder.do_send(Unseen { is_over });
        }
    }

    fn arm(&mut self, ctx: &mut Context<Self>) {
        let next = self.core.next_deadline().map(|(at, _)| at);
        if self.timer.as_ref().map(|(at, _)| *at) == next {
            return;
        }
        if let Some((_, old)) = self.timer.take() {
            ctx.cancel_future(old);
        }
        self.timer = next.map(|at| {
            let wait = at.saturating_duration_since(Instant::now());
            let handle = ctx.run_later(wait, |actor, ctx| {
                let _span = actor.span.clone().entered();
                actor.timer = None;
                actor.core.handle_timeout(Instant::now());
                actor.flush(ctx);
            });
            (at, handle)
        });
    }

    fn seated(&mut self, who: ParticipantSid, joined: Result<Joined, StoreError>, ctx: &mut Context<Self>) {
        if let Err(refusal) = joined {
            self.refuse(&who, refusal);
        }
        let outcome = joined.map(|joined| (joined.record, joined.snapshot)).map_err(failure);
        self.handle_host(host::Input::Joined { who, outcome }, ctx);
    }

    fn refuse(&mut self, who: &ParticipantSid, refusal: StoreError) {
        if let Some(joining) = self.joining.remove(who) {
            let _ = joining.reply.send(Err(refusal));
        }
    }

    /// The core has registered the session: from here on it hears everything.
    fn welcome(&mut self, who: ParticipantSid, welcome: Welcome, ctx: &mut Context<Self>) {
        let Some(joining) = self.joining.remove(&who) else { return };
        let now = Instant::now();
        let identity = welcome.own.identity.clone();
        let issued_unix_s = joining.claims.issued();
        if let Some(barred) = self.barred(&identity, issued_unix_s) {
            // Banned after the store had let them in, and before there was a session to end.
            let _ = joining.reply.send(Err(refusal_of(barred)));
            self.handle(Input::SessionLost { who, reason: LeaveReason::ParticipantRemoved }, ctx);
            return;
        }
        let start = Start {
            welcome,
            protocol: joining.client.protocol,
            auto_subscribe: joining.client.auto_subscribe,
            adaptive_stream: joining.client.adaptive_stream,
            allow_pause: joining.client.allow_pause,
            unfit: joining.client.unfit,
            seed: ids::seed(),
            unix_micros: i64::try_from(unix_ms()).unwrap_or(i64::MAX).saturating_mul(1000),
            ice_servers: self.shared.turn.credentials(&who, unix_seconds()),
        };
        let session = Session::new(now, self.shared.session_settings.clone(), start);
        let refresher = Refresher::new(self.shared.keys.clone(), joining.claims);
        let begin = Begin {
            session,
            room_name: self.name.clone(),
            room: ctx.address().downgrade(),
            router: joining.router.clone(),
            refresher,
            turn: self.shared.turn.clone(),
            neighbours: self.shared.neighbours.clone(),
            tcp_only: self.tcp_only.contains(&identity),
            join: joining.trace,
        };
        let addr = Participant::new(now, begin).start();
        JoinAccepted { after: joining.asked.elapsed() }.emit();
        let counted = self.shared.session_opens();
        let (addr_kept, router) = (addr.clone(), joining.router);
        let since = Instant::now();
        let seated = Seated { identity, issued_unix_s, addr: addr_kept, router, since, told: false, _counted: counted };
        self.sessions.insert(who.clone(), seated);
        if joining.reply.send(Ok(addr)).is_err() {
            // The client gave up while the store decided; its seat must not stay.
            self.handle(Input::SessionLost { who, reason: LeaveReason::JoinFailure }, ctx);
        }
    }

    /// Whether this node has heard of a ban.
    fn barred(&self, identity: &Identity, issued_unix_s: Option<u64>) -> Option<Barred> {
        self.shared.bans.verdict(identity, Some(&self.name), issued_unix_s, unix_seconds())
    }

    /// Where the media of whoever comes next goes.
    fn router_for_next(&self) -> RouterHandle {
        let seated = self.sessions.values().map(|seated| &seated.router);
        let joining = self.joining.values().map(|joining| &joining.router);
        let mut people: HashMap<RouterIndex, u32> = HashMap::new();
        // Whose router died is on the way out.
        for router in seated.chain(joining).filter(|router| router.addr.connected()) {
            *people.entry(router.index).or_default() += 1;
        }
        self.shared.router_for(&self.name, |router| people.get(&router).copied().unwrap_or_default())
    }

    fn call(&mut self, call: Call, ctx: &mut Context<Self>) {
        let (store, room) = (self.shared.store.clone(), self.name.clone());
        let answer: BoxFuture<'static, host::Input> = match call {
            Call::Write(change) => Box::pin(async move {
                let written = match change {
                    RecordChange::Put(record) => store.put(room, record).await.map(|_| Vec::new()),
                    RecordChange::Remove { identity, sid, generation, reason } => {
                        store.leave(room, identity, sid, generation, reason).await.map(|_| Vec::new())
                    }
                    RecordChange::CloseIfEmpty => store.delete_if_empty(room).await.map(|_| Vec::new()),
                    RecordChange::Restore { view, seq, info, records } => {
                        store.restore(room, Lost { view, seq, info, records }).await
                    }
                };
                host::Input::Written(reported(written))
            }),
            Call::Read => Box::pin(async move { host::Input::Read(reported(store.snapshot(room).await)) }),
            Call::Touch => Box::pin(async move { host::Input::Touched(store.touch(room).await.map_err(failure)) }),
        };
        let answer = answer.instrument(self.span.clone());
        ctx.spawn(answer.into_actor(self).map(|answer, actor, ctx| actor.handle_host(answer, ctx)));
    }

    fn say_next(&mut self, ctx: &mut Context<Self>) {
        let Some((number, words)) = self.words.next() else { return };
        let (shared, room, others) = (self.shared.clone(), self.name.clone(), self.other_nodes());
        let say = async move {
            let said = shared.say(room, others, number, words).await;
            if said.is_err() {
                tokio::time::sleep(SAY_AGAIN_AFTER).await;
            }
            said
        };
        ctx.spawn(say.into_actor(self).map(|said, actor, ctx| {
            WordsDropped { words: actor.words.done(said.is_ok()) }.emit();
            actor.say_next(ctx);
        }));
    }

    /// Who has people of the room besides this one, as far as is known here.
    fn other_nodes(&self) -> BTreeSet<NodeId> {
        let nodes = self.core.room().records().map(|record| &record.node);
        nodes.filter(|node| **node != self.shared.node).cloned().collect()
    }

    /// Somebody's coming at another node is part of the trace of their join.
    fn others_join(&self, delta: &RoomDelta) -> Option<tracing::Span> {
        let trace = delta.trace.as_deref()?;
        let RoomChange::Put(record) = &delta.change else { return None };
        if record.node == self.shared.node {
            return None;
        }
        let sid = record.participant.sid.as_str();
        let span = tracing::info_span!(parent: None, "join.seen", room = self.name.as_str(), sid);
        // Without telemetry behind it there is no trace to belong to.
        let _ = span.set_parent(telemetry::continued(Some(trace)));
        Some(span)
    }
}

impl Actor for Room {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let _span = self.span.clone().entered();
        ctx.set_mailbox_capacity(MAILBOX);
        if !self.shared.room_opens() {
            ctx.stop();
            return;
        }
        self.counted = true;
        RoomOpened.emit();
        let subscribe = {
            let (shared, room) = (self.shared.clone(), self.name.clone());
            async move {
                let words = shared.bus.hear(room.clone(), shared.node.clone()).await?;
                Ok::<_, BusError>((shared.bus.subscribe(room).await?, words))
            }
        };
        self.arm(ctx);
        // Nothing is handled before the room is subscribed, so no change falls between its snapshot and its first delta.
        ctx.wait(subscribe.into_actor(self).map(|outcome, _, ctx| match outcome {
            Ok((changes, words)) => {
                ctx.add_stream(Box::pin(stream::unfold(changes, async |mut changes| {
                    let event = changes.next().await?;
                    Some((event, changes))
                })));
                ctx.add_stream(Box::pin(stream::unfold(words, async |mut words| {
                    let event = words.next().await?;
                    Some((event, words))
                })));
            }
            Err(_) => ctx.stop(),
        }));
    }

    /// Also runs while a panic unwinds. The sessions of a room that is lost start over, which brings them back.
    fn stopped(&mut self, _: &mut Self::Context) {
        if std::mem::take(&mut self.counted) {
            self.shared.room_closed();
            RoomGone.emit();
        }
        for seated in self.sessions.values() {
            seated.addr.do_send(FromRoom(Notice::End { reason: LeaveReason::StateMismatch }));
        }
        for (_, joining) in self.joining.drain() {
            let _ = joining.reply.send(Err(StoreError::Unavailable));
        }
        self.dismiss(false);
        if let Some(rooms) = self.rooms.upgrade() {
            let (crashed, deserted) = (std::thread::panicking(), !self.sessions.is_empty());
            rooms.do_send(RoomEnded { name: self.name.clone(), crashed, deserted });
        }
    }
}

impl Handler<Join> for Room {
    type Result = ();

    fn handle(&mut self, join: Join, ctx: &mut Self::Context) {
        if self.core.is_closing() {
            // The registry has forgotten this room and opens another.
            if let Some(rooms) = self.rooms.upgrade() {
                rooms.do_send(JoinRoom { room: self.name.clone(), join });
            }
            return;
        }
        let router = self.router_for_next();
        let sid = ids::participant(&self.shared.node, router.index);
        let Join { identity, claims, client, create, trace, reply } = join;
        let span = tracing::info_span!(parent: None, "seat");
        // Without telemetry behind it there is no trace to belong to.
        let _ = span.set_parent(trace.clone());
        let participant = newcomer(sid.clone(), identity, &claims, &client);
        let seat = Seat {
            participant,
            node: self.shared.node.clone(),
            issued_unix_s: claims.issued(),
            now_unix_s: unix_seconds(),
            create,
            trace: telemetry::trace_parent(&span),
        };
        self.joining.insert(sid.clone(), Joining { trace, claims, client, router, asked: Instant::now(), reply });
        self.handle_host(host::Input::Joining { who: sid.clone() }, ctx);
        let (store, room) = (self.shared.store.clone(), self.name.clone());
        let ask = async move { store.join(room, seat).await }.instrument(span);
        ctx.spawn(ask.into_actor(self).map(move |joined, actor, ctx| actor.seated(sid, joined, ctx)));
    }
}

impl Handler<Host> for Room {
    type Result = ();

    fn handle(&mut self, Host: Host, ctx: &mut Self::Context) {
        self.handle_host(host::Input::Open, ctx);
    }
}

impl Handler<Find> for Room {
    type Result = Option<Addr<Participant>>;

    fn handle(&mut self, Find { identity, sid }: Find, _: &mut Self::Context) -> Self::Result {
        match sid {
            // A sid is no secret: the token must be for the same person.
            Some(sid) => self.sessions.get(&sid).filter(|seated| seated.identity == identity),
            None => self.sessions.values().find(|seated| seated.identity == identity),
        }
        .map(|seated| seated.addr.clone())
    }
}

impl Handler<FromSession> for Room {
    type Result = ();

    fn handle(&mut self, FromSession { who, what }: FromSession, ctx: &mut Self::Context) {
        self.handle(Input::Ask { who, what }, ctx);
    }
}

impl Handler<Follow> for Room {
    type Result = ();

    fn handle(&mut self, Follow(recorder): Follow, ctx: &mut Self::Context) {
        if self.core.is_closing() {
            // Whether it is over everywhere its next claim tells.
            recorder.do_send(Unseen { is_over: false });
            return;
        }
        recorder.do_send(Followed { levels: ctx.address().downgrade().recipient() });
        self.recorders.push(recorder);
        self.handle(Input::Watch(true), ctx);
    }
}

impl Handler<Unfollow> for Room {
    type Result = ();

    fn handle(&mut self, Unfollow(recorder): Unfollow, ctx: &mut Self::Context) {
        self.recorders.retain(|one| *one != recorder);
        if self.recorders.is_empty() {
            self.handle(Input::Watch(false), ctx);
        }
    }
}

impl Handler<PreferTcp> for Room {
    type Result = ();

    fn handle(&mut self, PreferTcp { identity, tcp }: PreferTcp, _: &mut Self::Context) {
        if !tcp {
            self.tcp_only.remove(&identity);
        } else if self.tcp_only.len() < TCP_ONLY_MAX {
            self.tcp_only.insert(identity);
        }
    }
}

impl Handler<SessionEnded> for Room {
    type Result = ();

    fn handle(&mut self, SessionEnded { who, reason, crashed }: SessionEnded, ctx: &mut Self::Context) {
        if crashed {
            PanicCaught { what: "participant" }.emit();
        }
        self.sessions.remove(&who);
        self.handle(Input::SessionLost { who, reason }, ctx);
    }
}

impl Handler<RouterLevels> for Room {
    type Result = ();

    fn handle(&mut self, levels: RouterLevels, ctx: &mut Self::Context) {
        let now = Instant::now();
        self.levels.retain(|_, (at, _)| now.saturating_duration_since(*at) < LEVELS_KEPT);
        self.levels.insert(levels.router, (now, levels.levels));
        let level = |one: &TrackLevel| {
            let speaker = plenary_model::SpeakerLevel { level: one.level, active: one.active };
            (one.participant.clone(), one.track.clone(), speaker)
        };
        let levels = self.levels.values().flat_map(|(_, levels)| levels).map(level).collect();
        self.handle(Input::Levels { levels }, ctx);
    }
}

impl Handler<Administer> for Room {
    type Result = ();

    fn handle(&mut self, Administer { what, reply }: Administer, ctx: &mut Self::Context) {
        if !self.core.is_warm() {
            let _ = reply.send(Err(AdminRefusal::NoSuchRoom));
            return;
        }
        let number = self.next_admin;
        self.next_admin = number.wrapping_add(1);
        self.admin.insert(number, reply);
        self.handle(Input::Admin(AdminAsk { number, what }), ctx);
    }
}

impl Handler<EnforceBans> for Room {
    type Result = ();

    fn handle(&mut self, _: EnforceBans, ctx: &mut Self::Context) {
        let barred = |seated: &&Seated| self.barred(&seated.identity, seated.issued_unix_s).is_some();
        let barred: Vec<_> = self.sessions.values().filter(barred).map(|seated| seated.identity.clone()).collect();
        for identity in barred {
            // Nobody waits for the outcome.
            let number = self.next_admin;
            self.next_admin = number.wrapping_add(1);
            self.handle(Input::Admin(AdminAsk { number, what: Admin::Remove { identity } }), ctx);
        }
    }
}

impl Handler<CountRoom> for Room {
    type Result = MessageResult<CountRoom>;

    fn handle(&mut self, CountRoom: CountRoom, _: &mut Self::Context) -> Self::Result {
        let person = |(sid, seated): (&ParticipantSid, &Seated)| Person {
            sid: sid.clone(),
            publishes: self.core.room().publishes(sid),
            told: seated.told,
        };
        MessageResult(Seats { room: self.name.clone(), people: self.sessions.iter().map(person).collect() })
    }
}

impl Handler<MovePeople> for Room {
    type Result = ();

    fn handle(&mut self, MovePeople { people, .. }: MovePeople, _: &mut Self::Context) {
        for sid in people {
            if let Some(seated) = self.sessions.get_mut(&sid) {
                seated.told = true;
                seated.addr.do_send(Move);
            }
        }
    }
}

impl Handler<Parted> for Room {
    type Result = ();

    fn handle(&mut self, Parted(parted): Parted, _: &mut Self::Context) {
        let _span = self.span.clone().entered();
        let hosts = self.core.room().records().map(|record| &record.node);
        let Some(began) = reach::gives_way(&self.shared.node, hosts, &parted) else { return };
        // Who came later was let in as the larger side, perhaps from there.
        let to_go = self.sessions.values_mut().filter(|seated| !seated.told && seated.since < began);
        let mut people = 0;
        for seated in to_go {
            seated.told = true;
            seated.addr.do_send(Move);
            people += 1;
        }
        if people > 0 {
            RoomGivesWay { people }.emit();
        }
    }
}

impl Handler<Lapsed> for Room {
    type Result = ();

    fn handle(&mut self, Lapsed: Lapsed, ctx: &mut Self::Context) {
        self.handle(Input::Lapsed, ctx);
    }
}

impl Handler<RouterLost> for Room {
    type Result = ();

    /// Others see them stay: their places are kept until their next sessions take them.
    fn handle(&mut self, RouterLost: RouterLost, _: &mut Self::Context) {
        for seated in self.sessions.values().filter(|seated| !seated.router.addr.connected()) {
            seated.addr.do_send(Move);
        }
        self.recorders.iter().for_each(|recorder| recorder.do_send(RouterLost));
    }
}

impl Handler<Shutdown> for Room {
    type Result = ();

    fn handle(&mut self, Shutdown { reconnect }: Shutdown, _: &mut Self::Context) {
        for seated in self.sessions.values() {
            seated.addr.do_send(Shutdown { reconnect });
        }
    }
}

impl StreamHandler<RoomEvent> for Room {
    fn handle(&mut self, event: RoomEvent, ctx: &mut Self::Context) {
        match event {
            RoomEvent::Delta(delta) => {
                let _span = self.others_join(&delta).map(tracing::Span::entered);
                self.handle(Input::Delta(delta), ctx);
            }
            RoomEvent::Resync => self.handle_host(host::Input::Missed, ctx),
        }
    }

    /// The bus is gone: what the room knows is no longer true for long.
    fn finished(&mut self, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl StreamHandler<Event<RoomWord>> for Room {
    fn handle(&mut self, event: Event<RoomWord>, ctx: &mut Self::Context) {
        match event {
            Event::Delta(word) => self.handle(Input::Heard((*word).clone()), ctx),
            Event::Resync => WordsMissed.emit(),
        }
    }

    fn finished(&mut self, _: &mut Self::Context) {}
}

fn refusal_of(barred: Barred) -> StoreError {
    match barred {
        Barred::Banned => StoreError::Banned,
        Barred::Revoked => StoreError::Revoked,
    }
}

/// As the core is told of it.
fn failure(error: StoreError) -> StoreFailure {
    match error {
        StoreError::NoSuchRoom => StoreFailure::NoSuchRoom,
        StoreError::Unavailable => StoreFailure::Unavailable,
        StoreError::Full
        | StoreError::Banned
        | StoreError::Revoked
        | StoreError::TooManyBans
        | StoreError::Egress(_)
        | StoreError::Superseded => StoreFailure::Refused,
    }
}

/// The same, logged. That a room is not there is an answer like others.
fn reported<T>(outcome: Result<T, StoreError>) -> Result<T, StoreFailure> {
    outcome.map_err(|error| {
        if error != StoreError::NoSuchRoom {
            StoreFailed { error }.emit();
        }
        failure(error)
    })
}

/// The record a session starts with; version and generation are the store's to give.
fn newcomer(sid: ParticipantSid, identity: Identity, claims: &Claims, client: &Client) -> Info {
    Info {
        sid,
        identity,
        name: claims.name.clone(),
        metadata: claims.metadata.clone(),
        attributes: claims.attributes.clone(),
        state: ParticipantState::Joined,
        kind: claims.kind,
        permission: claims.permission(),
        tracks: Vec::new(),
        audience: Audience::default(),
        data_tracks: Vec::new(),
        joined_at_ms: unix_ms(),
        version: 1,
        is_publisher: false,
        leave_reason: LeaveReason::Unknown,
        client_protocol: client.client_protocol,
        capabilities: client.capabilities.clone(),
    }
}

/// Requests of sessions and levels of routers that may wait for this room.
const MAILBOX: usize = 1024;

/// Longer than two of a router's windows: one that measures nothing more says nothing more.
const LEVELS_KEPT: Duration = Duration::from_secs(1);

/// People whose wish for TCP is remembered; beyond, the wish is not.
const TCP_ONLY_MAX: usize = 1024;

/// Two lost words of a host are no reason to forget its room.
const _: () = assert!(TOUCH_INTERVAL.as_secs() * 3 <= ROOM_LIFE.as_secs());

/// While the bus is away.
const SAY_AGAIN_AFTER: Duration = Duration::from_millis(500);
