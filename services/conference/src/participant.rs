//! One participant's session on this node: carries between its socket, its room and its media router what the session
//! core decides. Lives longer than its socket and never touches a packet.

mod trace;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, SpawnHandle, WeakAddr};
use plenary_media_core as media;
use plenary_model::{Channel, LeaveAction, LeaveReason, ParticipantSid, PeerId, RoomName, Target};
use plenary_protocol::livekit;
use plenary_room_core::{
    notice::Notice,
    session::{Input, MediaCommand, MediaEvent, Output, Published, Session, SocketEnd, Wanted},
    signal::{ClientSignal, Scenario, ServerSignal},
};

use self::trace::SessionTrace;
use crate::{
    edge::{Edge, EdgeFull, EdgeId, ToEdge},
    events::{
        DataRefused, FirstPacket, ParticipantLeft, PeerClosed, PeerConnected, SdpRefused, SignalDropped, SocketEvicted,
    },
    front::convert,
    ids,
    media_router::{FromRouter, Open, Tell},
    neighbours::{Host, Neighbours},
    node::RouterHandle,
    room::{FromSession, PreferTcp, Room, SessionEnded},
    tokens::{Refresher, unix_seconds},
    turn::TurnServers,
};

/// The actor of one session.
#[derive(Debug)]
pub struct Participant {
    session: Session,
    sid: ParticipantSid,
    room: WeakAddr<Room>,
    router: RouterHandle,
    peers: Peers,
    socket: Option<Attached>,
    /// A socket has come, or is no longer waited for.
    attached: bool,
    /// What could not be handed to the socket yet, oldest first.
    backlog: VecDeque<ToEdge>,
    /// Since when the socket does not take what it is given.
    stuck_since: Option<Instant>,
    refresher: Refresher,
    turn: Arc<TurnServers>,
    neighbours: Arc<Neighbours>,
    /// What is wanted of people on routers that are not known yet: all that is wanted.
    unresolved: Option<Vec<Wanted>>,
    trace: SessionTrace,
    /// The client asked for media over TCP in the session before.
    tcp_only: bool,
    /// The client takes packet trailers off frames itself.
    takes_trailers: bool,
    timer: Option<(Instant, SpawnHandle)>,
    started: Instant,
    ended: Option<LeaveReason>,
}

#[derive(Debug)]
struct Attached {
    id: EdgeId,
    edge: Box<dyn Edge>,
}

#[derive(Debug, Default)]
struct Peers {
    publisher: Option<PeerId>,
    subscriber: Option<PeerId>,
}

/// A socket for this session. From the edge, once, right after the upgrade.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Attach {
    pub id: EdgeId,
    pub edge: Box<dyn Edge>,
    pub resumption: Option<Resumption>,
}

/// The client came back to its session.
#[derive(Debug, Clone, Copy)]
pub struct Resumption {
    pub protocol: u32,
}

/// A decoded frame. From the edge by `try_send`; full means this client outruns its session, and it is closed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FromClient {
    pub id: EdgeId,
    pub signal: ClientSignal,
}

/// The socket ended, whoever ended it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct EdgeGone {
    pub id: EdgeId,
}

/// From this session's room, on the same thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct FromRoom(pub Notice);

/// The router does not take this session's commands. To itself, so that one handling never nests in another.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct RouterGone {
    target: Target,
}

/// The node is leaving.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Shutdown {
    pub reconnect: bool,
}

/// The node is drained, or its media is lost: the client shall start over, on another node or here. From the room.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Move;

/// What a participant begins with.
#[derive(Debug)]
pub struct Begin {
    pub session: Session,
    pub room_name: RoomName,
    pub room: WeakAddr<Room>,
    pub router: RouterHandle,
    pub refresher: Refresher,
    pub turn: Arc<TurnServers>,
    pub neighbours: Arc<Neighbours>,
    /// Offer no UDP candidates.
    pub tcp_only: bool,
    /// The trace of the join request.
    pub join: opentelemetry::Context,
}

impl Participant {
    pub fn new(now: Instant, begin: Begin) -> Self {
        let Begin { session, room_name, room, router, refresher, turn, neighbours, tcp_only, join } = begin;
        let own = session.own();
        Self {
            trace: SessionTrace::begin(room_name.as_str(), own.identity.as_str(), &own.sid, join),
            sid: own.sid.clone(),
            takes_trailers: livekit::takes_trailers(&own.capabilities),
            session,
            room,
            router,
            peers: Peers::default(),
            socket: None,
            attached: false,
            backlog: VecDeque::new(),
            stuck_since: None,
            refresher,
            turn,
            neighbours,
            unresolved: None,
            tcp_only,
            timer: None,
            started: now,
            ended: None,
        }
    }

    fn handle(&mut self, input: Input, ctx: &mut Context<Self>) {
        let _span = self.trace.enter();
        self.session.handle(Instant::now(), input);
        self.flush(ctx);
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::RefreshToken => {
                    // Without a fresh token the client keeps the one it has.
                    if let Some(token) = self.refresher.token(self.session.own()) {
                        self.tell_client(ToEdge::RefreshToken(token));
                    }
                }
                Output::Send(signal) => {
                    if matches!(signal, ServerSignal::Offer { .. }) {
                        self.trace.offered(Target::Subscriber);
                    }
                    self.tell_client(ToEdge::Signal(Box::new(signal)));
                }
                Output::Ask(what) => {
                    if let Some(room) = self.room.upgrade() {
                        room.do_send(FromSession { who: self.sid.clone(), what });
                    }
                }
                Output::Media(command) => self.tell_router(command, ctx),
                Output::CloseSocket(end) => self.close_socket(end),
                Output::Dropped(why) => SignalDropped { why }.emit(),
                Output::End(reason) => {
                    self.ended = Some(reason);
                    // Last words wait for a socket that is still on its way.
                    if self.attached || self.backlog.is_empty() {
                        ctx.stop();
                    }
                }
            }
        }
        self.arm(ctx);
    }

    /// One timer: the session's next deadline, or the socket's patience.
    fn arm(&mut self, ctx: &mut Context<Self>) {
        let retry = self.stuck_since.map(|_| Instant::now() + SOCKET_RETRY);
        let next = self.session.next_deadline().map(|(at, _)| at).into_iter().chain(retry).min();
        if self.timer.as_ref().map(|(at, _)| *at) == next {
            return;
        }
        if let Some((_, old)) = self.timer.take() {
            ctx.cancel_future(old);
        }
        self.timer = next.map(|at| {
            let wait = at.saturating_duration_since(Instant::now());
            let handle = ctx.run_later(wait, |actor, ctx| {
                let _span = actor.trace.enter();
                actor.timer = None;
                actor.push_backlog();
                actor.session.handle_timeout(Instant::now());
                actor.flush(ctx);
            });
            (at, handle)
        });
    }

    fn tell_client(&mut self, message: ToEdge) {
        if self.backlog.len() >= BACKLOG_MAX {
            self.evict();
            return;
        }
        self.backlog.push_back(message);
        self.push_backlog();
    }

    /// Hands over what the socket takes; one that takes nothing for too long is cut.
    fn push_backlog(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(message) = self.backlog.pop_front() {
            if let Err(EdgeFull(message)) = socket.edge.send(message) {
                self.backlog.push_front(message);
                let since = *self.stuck_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= SLOW_CONSUMER_PATIENCE {
                    self.evict();
                }
                return;
            }
        }
        self.stuck_since = None;
    }

    fn evict(&mut self) {
        if let Some(socket) = self.socket.take() {
            socket.edge.evict();
        } else {
            SocketEvicted { reason: "never_attached" }.emit();
        }
        self.backlog.clear();
        self.stuck_since = None;
        self.session.handle(Instant::now(), Input::SocketLost);
    }

    /// The session ends by no decision of its core: its client starts over at once instead of talking to nobody.
    fn give_up(&mut self) {
        let Some(Attached { edge, .. }) = self.socket.take() else { return };
        let leave = ServerSignal::Leave { reason: LeaveReason::StateMismatch, action: LeaveAction::Reconnect };
        let told = edge.send(ToEdge::Signal(Box::new(leave))).and_then(|()| edge.send(ToEdge::Close(SocketEnd::Ended)));
        if told.is_err() {
            edge.evict();
        }
    }

    fn close_socket(&mut self, end: SocketEnd) {
        self.push_backlog();
        if !self.attached {
            self.backlog.push_back(ToEdge::Close(end));
            return;
        }
        if let Some(socket) = self.socket.take()
            && socket.edge.send(ToEdge::Close(end)).is_err()
        {
            socket.edge.evict();
        }
        self.backlog.clear();
        self.stuck_since = None;
    }

    /// Where each track is published. What cannot be found yet is left out and tried again.
    fn located(&mut self, tracks: Vec<Wanted>, ctx: &mut Context<Self>) -> Vec<media::Wanted> {
        let mut found = Vec::with_capacity(tracks.len());
        for one in &tracks {
            let from = match self.neighbours.host(&one.publisher, self.router.index) {
                Host::Here => None,
                Host::Elsewhere(router) => Some(router),
                Host::Unknown => continue,
            };
            found.push(media::Wanted {
                track: one.track.clone(),
                shown: one.shown.clone(),
                publisher: one.publisher.clone(),
                from,
                settings: one.settings,
            });
        }
        self.unresolved = (found.len() < tracks.len()).then_some(tracks);
        if self.unresolved.is_some() {
            ctx.run_later(LOCATE_AGAIN_AFTER, |actor, ctx| {
                if let Some(tracks) = actor.unresolved.take() {
                    actor.tell_router(MediaCommand::Want { tracks }, ctx);
                }
            });
        }
        found
    }

    fn tell_router(&mut self, command: MediaCommand, ctx: &mut Context<Self>) {
        use media::Command;
        let command = match command {
            MediaCommand::Open { target, open_channels, allow_pause, refused_codecs } => {
                let peer = ids::peer();
                self.trace.opened(target);
                *self.peers.slot(target) = Some(peer);
                let open = Command::Open {
                    peer,
                    participant: self.sid.clone(),
                    target,
                    ice: ids::ice_credentials(&self.router),
                    options: media::PeerOptions {
                        open_channels,
                        tcp_only: self.tcp_only,
                        allow_pause,
                        takes_trailers: self.takes_trailers,
                        refused_codecs,
                    },
                };
                let open = Open {
                    command: open,
                    events: ctx.address().downgrade().recipient(),
                    levels: self.room.clone().recipient(),
                };
                if self.router.addr.try_send(open).is_err() {
                    self.overloaded(target, ctx);
                }
                return;
            }
            MediaCommand::Close { target } => {
                let Some(peer) = self.peers.slot(target).take() else { return };
                Command::Close { peer }
            }
            MediaCommand::Offer { sdp, announced } => {
                let Some(peer) = self.peers.publisher else { return };
                let announced: Vec<_> = announced.into_iter().map(announced_track).collect();
                self.trace.offered(Target::Publisher);
                Command::Offer { peer, sdp, announced, restart: ids::ice_credentials(&self.router) }
            }
            MediaCommand::MakeOffer { restart_ice } => {
                let Some(peer) = self.peers.subscriber else { return };
                Command::MakeOffer { peer, restart: restart_ice.then(|| ids::ice_credentials(&self.router)) }
            }
            MediaCommand::Answer { sdp } => {
                let Some(peer) = self.peers.subscriber else { return };
                Command::Answer { peer, sdp }
            }
            MediaCommand::Want { tracks } => {
                let Some(peer) = self.peers.subscriber else { return };
                if !tracks.is_empty() {
                    self.trace.has_media(Target::Subscriber);
                }
                Command::Want { peer, tracks: self.located(tracks, ctx) }
            }
            MediaCommand::SetMuted { track, muted } => Command::SetMuted { track, muted },
            MediaCommand::Unpublish { track } => Command::Unpublish { track },
            MediaCommand::Send { target, channel, payload } => {
                let Some(peer) = *self.peers.slot(target) else { return };
                Command::Send { peers: vec![peer], channel, payload }
            }
            MediaCommand::CapBandwidth { bits_per_second } => {
                let Some(peer) = self.peers.subscriber else { return };
                Command::CapBandwidth { peer, bits_per_second }
            }
        };
        if self.router.addr.try_send(Tell(command)).is_err() {
            self.overloaded(Target::Publisher, ctx);
        }
    }

    /// The router cannot take more or is gone: the client starts over, here later or elsewhere.
    fn overloaded(&mut self, target: Target, ctx: &mut Context<Self>) {
        PeerClosed { target, why: media::PeerEnd::Fault }.emit();
        ctx.notify(RouterGone { target });
    }

    /// What the router says, in the session's words; what is only worth a log line ends here.
    fn media_event(&mut self, event: media::Event) -> Option<Input> {
        use media::Event;
        Some(Input::Media(match event {
            Event::Answered { sdp, published, gone, .. } => {
                let published = published.into_iter().map(|one| Published {
                    track: one.track,
                    mid: one.mid,
                    mime: one.mime,
                    cid: one.cid,
                });
                let published: Vec<_> = published.collect();
                self.trace.answered(Target::Publisher);
                if !published.is_empty() {
                    self.trace.has_media(Target::Publisher);
                }
                MediaEvent::Answered { sdp, published, gone }
            }
            Event::Offered { sdp, .. } => MediaEvent::Offered { sdp },
            Event::Accepted { .. } => {
                self.trace.answered(Target::Subscriber);
                MediaEvent::Accepted
            }
            Event::Refused { peer, why } => {
                SdpRefused { why }.emit();
                MediaEvent::Refused { target: self.peers.target(peer)? }
            }
            Event::OfferNeeded { .. } => MediaEvent::OfferNeeded,
            Event::IceConnected { peer } => {
                let target = self.peers.target(peer)?;
                self.trace.ice_connected(target);
                return None;
            }
            Event::Connected { peer } => {
                let target = self.peers.target(peer)?;
                self.trace.connected(target);
                PeerConnected { target, after: self.started.elapsed() }.emit();
                MediaEvent::Connected { target }
            }
            Event::ChannelOpen { peer, channel } => {
                MediaEvent::ChannelOpen { target: self.peers.target(peer)?, channel }
            }
            Event::Data { channel: Channel::DataTrack, payload, .. } => {
                return Some(Input::DataFrame { packet: payload });
            }
            Event::Data { channel, payload, .. } => {
                return match convert::client_data(channel, payload, self.session.own()) {
                    Ok(data) => Some(Input::Data(data)),
                    Err(why) => {
                        DataRefused { why }.emit();
                        None
                    }
                };
            }
            Event::FirstPacketIn { track, .. } => {
                self.trace.packet(Target::Publisher);
                FirstPacket { target: Target::Publisher, track: &track, after: self.started.elapsed() }.emit();
                return None;
            }
            Event::FirstPacketOut { track, .. } => {
                self.trace.packet(Target::Subscriber);
                FirstPacket { target: Target::Subscriber, track: &track, after: self.started.elapsed() }.emit();
                MediaEvent::Bound { track }
            }
            Event::Undecodable { track, .. } => MediaEvent::Undecodable { track },
            Event::Paused { track, paused, .. } => MediaEvent::Paused { track, paused },
            Event::Demand { track, top, .. } => MediaEvent::Demand { track, top },
            Event::Quality { peer, score } => MediaEvent::Quality { target: self.peers.target(peer)?, score },
            Event::Levels { .. }
            | Event::LinkUp { .. }
            | Event::LinkDown { .. }
            | Event::NeighbourReachesStore { .. }
            | Event::LetterCame { .. }
            | Event::LetterTold { .. }
            | Event::RouterReached { .. } => return None,
            Event::Closed { peer, why } => {
                let target = self.peers.target(peer)?;
                PeerClosed { target, why }.emit();
                *self.peers.slot(target) = None;
                MediaEvent::Closed { target, reason: leave_reason(why) }
            }
        }))
    }
}

impl Actor for Participant {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let _span = self.trace.enter();
        ctx.set_mailbox_capacity(MAILBOX);
        // An upgrade that never completes must not keep a seat.
        ctx.run_later(ATTACH_PATIENCE, |actor, ctx| {
            if std::mem::replace(&mut actor.attached, true) {
                return;
            }
            if actor.ended.is_some() {
                ctx.stop();
            } else {
                actor.handle(Input::SocketLost, ctx);
            }
        });
        self.flush(ctx);
    }

    /// Also runs while a panic unwinds: only what others need to know.
    fn stopped(&mut self, _: &mut Self::Context) {
        let _span = self.trace.enter();
        for peer in [self.peers.publisher.take(), self.peers.subscriber.take()].into_iter().flatten() {
            // A router that is gone has no peers either; one that is full hears of the peer's silence later.
            let _ = self.router.addr.try_send(Tell(media::Command::Close { peer }));
        }
        if self.ended.is_none() {
            self.give_up();
        }
        let reason = self.ended.unwrap_or(LeaveReason::Unknown);
        self.trace.ended(reason);
        ParticipantLeft { reason, after: self.started.elapsed() }.emit();
        if let Some(room) = self.room.upgrade() {
            room.do_send(SessionEnded { who: self.sid.clone(), reason, crashed: std::thread::panicking() });
        }
    }
}

impl Handler<Attach> for Participant {
    type Result = ();

    fn handle(&mut self, Attach { id, edge, resumption }: Attach, ctx: &mut Self::Context) {
        let _span = self.trace.enter();
        if self.socket.is_some() {
            self.close_socket(SocketEnd::Replaced);
        }
        self.socket = Some(Attached { id, edge });
        self.attached = true;
        match resumption {
            Some(Resumption { protocol }) => {
                // What waited for the old socket is told again by the resume.
                self.backlog.clear();
                let ice_servers = self.turn.credentials(&self.sid, unix_seconds());
                self.handle(Input::Resumed { protocol, ice_servers }, ctx);
            }
            None => {
                self.push_backlog();
                if self.ended.is_some() {
                    ctx.stop();
                } else {
                    self.arm(ctx);
                }
            }
        }
    }
}

impl Handler<FromClient> for Participant {
    type Result = ();

    fn handle(&mut self, FromClient { id, signal }: FromClient, ctx: &mut Self::Context) {
        if self.socket.as_ref().is_none_or(|socket| socket.id != id) {
            return;
        }
        if let ClientSignal::Simulate(Scenario::SwitchCandidateProtocol { tcp }) = &signal
            && let Some(room) = self.room.upgrade()
        {
            room.do_send(PreferTcp { identity: self.session.own().identity.clone(), tcp: *tcp });
        }
        #[cfg(any(test, feature = "fault-injection"))]
        crate::faults::obey(&signal, self.room.upgrade(), &self.router);
        self.handle(Input::Signal(signal), ctx);
    }
}

impl Handler<EdgeGone> for Participant {
    type Result = ();

    fn handle(&mut self, EdgeGone { id }: EdgeGone, ctx: &mut Self::Context) {
        if self.socket.as_ref().is_some_and(|socket| socket.id == id) {
            self.socket = None;
            self.backlog.clear();
            self.stuck_since = None;
            self.handle(Input::SocketLost, ctx);
        }
    }
}

impl Handler<FromRoom> for Participant {
    type Result = ();

    fn handle(&mut self, FromRoom(notice): FromRoom, ctx: &mut Self::Context) {
        self.handle(Input::Notice(notice), ctx);
    }
}

impl Handler<FromRouter> for Participant {
    type Result = ();

    fn handle(&mut self, FromRouter { event, .. }: FromRouter, ctx: &mut Self::Context) {
        let _span = self.trace.enter();
        if let Some(input) = self.media_event(event) {
            self.handle(input, ctx);
        }
    }
}

impl Handler<RouterGone> for Participant {
    type Result = ();

    fn handle(&mut self, RouterGone { target }: RouterGone, ctx: &mut Self::Context) {
        let closed = MediaEvent::Closed { target, reason: LeaveReason::MediaFailure };
        self.handle(Input::Media(closed), ctx);
    }
}

impl Handler<Shutdown> for Participant {
    type Result = ();

    fn handle(&mut self, Shutdown { reconnect }: Shutdown, ctx: &mut Self::Context) {
        self.handle(Input::Shutdown { reconnect }, ctx);
    }
}

impl Handler<Move> for Participant {
    type Result = ();

    fn handle(&mut self, Move: Move, ctx: &mut Self::Context) {
        self.handle(Input::Move, ctx);
    }
}

impl Peers {
    fn slot(&mut self, target: Target) -> &mut Option<PeerId> {
        match target {
            Target::Publisher => &mut self.publisher,
            Target::Subscriber => &mut self.subscriber,
        }
    }

    fn target(&self, peer: PeerId) -> Option<Target> {
        if self.publisher == Some(peer) {
            Some(Target::Publisher)
        } else {
            (self.subscriber == Some(peer)).then_some(Target::Subscriber)
        }
    }
}

fn announced_track(one: plenary_room_core::session::Announced) -> media::Announced {
    use plenary_model::{AudioFeature, Encryption};
    let track = one.track;
    let size = |layer: plenary_model::Layer| media::LayerSize {
        rid: layer.rid,
        width: layer.width,
        height: layer.height,
        bitrate_bps: layer.bitrate_bps,
    };
    media::Announced {
        codec: track.codecs.first().map(|codec| codec.mime.clone()).unwrap_or_default(),
        stereo: track.audio_features.contains(&AudioFeature::Stereo),
        dtx: !track.audio_features.contains(&AudioFeature::NoDtx),
        red: !track.disable_red,
        encrypted: track.encryption != Encryption::None,
        trailers: !track.trailer_features.is_empty(),
        layers: track.layers.into_iter().map(size).collect(),
        track: track.sid,
        kind: track.kind,
        source: track.source,
        cids: one.cids,
    }
}

fn leave_reason(why: media::PeerEnd) -> LeaveReason {
    use media::PeerEnd;
    match why {
        PeerEnd::Asked => LeaveReason::ClientInitiated,
        PeerEnd::IceTimeout => LeaveReason::ConnectionTimeout,
        PeerEnd::NeverConnected => LeaveReason::JoinFailure,
        PeerEnd::SlowReceiver => LeaveReason::StateMismatch,
        PeerEnd::DtlsFailed | PeerEnd::WrongFingerprint | PeerEnd::SctpFailed | PeerEnd::Fault => {
            LeaveReason::MediaFailure
        }
    }
}

/// Frames, notices and events that may wait for this session.
const MAILBOX: usize = 1024;

/// Messages kept for a socket that is not there yet or does not take them.
const BACKLOG_MAX: usize = 2048;

const SOCKET_RETRY: Duration = Duration::from_millis(50);

/// How long a client may not read before it is cut.
const SLOW_CONSUMER_PATIENCE: Duration = Duration::from_secs(2);

/// A node is heard of within a second of its start.
const LOCATE_AGAIN_AFTER: Duration = Duration::from_millis(300);

/// From the verdict to the socket being there.
const ATTACH_PATIENCE: Duration = Duration::from_secs(10);
