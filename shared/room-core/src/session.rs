//! One participant's session on this node: signalling, negotiation order, publish and subscribe intent, resume window.
//!
//! Dual-PeerConnection mode: the client offers on its publisher transport, we offer on the subscriber transport. There is
//! one ordered stream of [`Output`]s; the shell drains it after every input, so a participant update always reaches the
//! client before the offer that carries its track. While the socket is away nothing is queued for it: a resume tells
//! the whole state again.

mod api;
mod audience;
mod backup;
mod data_tracks;
mod demand;
mod limits;
mod moving;
mod negotiation;
mod publish;
mod quality;
mod resume;
mod subscribe;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use plenary_model::{
    Channel, Codec, IceServer, LeaveAction, LeaveReason, MediaKind, Participant, ParticipantKind, ParticipantSid,
    RoomInfo, SpeakerLevel, Target, TrackSid,
};

pub use api::{
    Announced, Deadline, Dropped, Input, MediaCommand, MediaEvent, Output, Published, Settings, SocketEnd, Start,
    UnfitCodecs, Wanted,
};
use data_tracks::DataTracks;
use demand::Demands;
use limits::Bucket;
use negotiation::{PublisherNegotiation, SubscriberNegotiation};
use publish::Publications;
use quality::Qualities;
use resume::Link;
use subscribe::Subscriptions;

use crate::{
    notice::{Announce, Notice, Request},
    signal::{About, ClientData, ClientSignal, DataKind, Join, RequestOutcome, Scenario, ServerSignal},
};

/// The state machine of one participant's session.
#[derive(Debug)]
pub struct Session {
    settings: Settings,
    protocol: u32,
    own: Arc<Participant>,
    room: RoomInfo,
    link: Link,
    /// Which transport decides "connected" and carries data to the client; fixed for the session's life.
    primary: Target,
    transports: Transports,
    publisher: PublisherNegotiation,
    subscriber: SubscriberNegotiation,
    publications: Publications,
    demands: Demands,
    subscriptions: Subscriptions,
    data_tracks: DataTracks,
    data: DataGate,
    messages: Bucket,
    /// Who speaks now, received by the client or not yet, and who stopped while the client was away.
    speaking: BTreeMap<ParticipantSid, SpeakerLevel>,
    qualities: Qualities,
    timers: Timers,
    /// Since when the client knows that it shall start over elsewhere.
    told_to_move: Option<Instant>,
    phase: Phase,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Default)]
struct Transports {
    publisher: TransportState,
    subscriber: TransportState,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum TransportState {
    #[default]
    Unopened,
    Connecting,
    Connected,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The primary transport has not connected yet.
    Joining,
    Active,
    Ended,
}

#[derive(Debug)]
struct Timers {
    join: Option<Instant>,
    quality: Instant,
    refresh: Instant,
}

/// Messages to the client's data channels, and the sequence of those from it.
#[derive(Debug, Default)]
struct DataGate {
    open: Vec<Channel>,
    /// Reliable messages that wait for the channel to open.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// Last reliable sequence accepted from the client.
    last_sequence: u32,
}

impl Session {
    pub fn new(now: Instant, settings: Settings, start: Start) -> Self {
        let Start {
            welcome,
            protocol,
            auto_subscribe,
            adaptive_stream,
            allow_pause,
            unfit,
            seed,
            unix_micros,
            ice_servers,
        } = start;
        let permission = &welcome.own.permission;
        let primary = if permission.can_subscribe { Target::Subscriber } else { Target::Publisher };
        let mut session = Self {
            timers: Timers {
                join: now.checked_add(settings.join_timeout),
                quality: now + settings.quality_interval,
                refresh: now + settings.refresh_interval,
            },
            messages: Bucket::new(now, settings.messages_per_window, settings.messages_window, settings.messages_burst),
            link: Link::live(now),
            primary,
            transports: Transports::default(),
            publisher: PublisherNegotiation::default(),
            subscriber: SubscriberNegotiation::new(seed),
            publications: Publications::new(now, unix_micros, seed, publishable(&settings.codecs, &unfit.publishing)),
            demands: Demands::default(),
            subscriptions: Subscriptions::new(auto_subscribe, adaptive_stream, allow_pause, unfit.receiving),
            data_tracks: DataTracks::new(seed),
            data: DataGate::default(),
            speaking: BTreeMap::new(),
            qualities: Qualities::default(),
            told_to_move: None,
            phase: Phase::Joining,
            outputs: VecDeque::new(),
            own: welcome.own,
            room: welcome.room,
            protocol,
            settings,
        };
        session.begin(now, welcome.others, ice_servers);
        session
    }

    pub fn handle(&mut self, now: Instant, input: Input) {
        if self.phase == Phase::Ended {
            return;
        }
        match input {
            Input::Signal(signal) => self.on_signal(now, signal),
            Input::SocketLost => self.on_socket_lost(now),
            Input::Resumed { protocol, ice_servers } => self.on_resumed(now, protocol, ice_servers),
            Input::Media(event) => self.on_media(now, event),
            Input::Notice(notice) => self.on_notice(now, notice),
            Input::Data(data) => self.on_data(data),
            Input::DataFrame { packet } => self.on_own_data_frame(packet),
            Input::Shutdown { reconnect } => {
                let action = if reconnect { LeaveAction::Reconnect } else { LeaveAction::Disconnect };
                self.end(LeaveReason::ServerShutdown, Some(action));
            }
            Input::Move => self.on_move(now),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while self.phase != Phase::Ended
            && let Some((at, deadline)) = self.next_deadline()
            && at <= now
        {
            match deadline {
                Deadline::Join => self.end(LeaveReason::JoinFailure, Some(LeaveAction::Disconnect)),
                Deadline::PingTimeout => {
                    self.outputs.push_back(Output::CloseSocket(SocketEnd::Silent));
                    self.on_socket_lost(now);
                }
                Deadline::Resume => self.end(LeaveReason::SignalClose, None),
                Deadline::Move => self.on_move_deadline(now),
                Deadline::Negotiation => self.end(LeaveReason::StateMismatch, Some(LeaveAction::Reconnect)),
                Deadline::Debounce => self.make_offer_if_needed(now),
                Deadline::Quality => self.tell_quality(now),
                Deadline::Refresh => {
                    self.timers.refresh = now + self.settings.refresh_interval;
                    self.refresh_token();
                }
                Deadline::Announced => self.publications.forget_unmatched(now, self.settings.announced_timeout),
                Deadline::Demand => self.demands_fall(now),
                Deadline::NoBackup => {
                    for signal in self.subscriptions.give_up_backups(now) {
                        self.send(signal);
                    }
                }
                Deadline::NotFound => {
                    for signal in self.subscriptions.give_up_unknown(now, self.settings.not_found_timeout) {
                        self.send(signal);
                    }
                }
            }
        }
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub fn next_deadline(&self) -> Option<(Instant, Deadline)> {
        if self.phase == Phase::Ended {
            return None;
        }
        let moves = self.move_deadline().map(|at| (at, Deadline::Move));
        if moves.is_some() && !self.link.is_live() {
            // Nobody is there for whom anything else could be late.
            return moves;
        }
        let media_lives = self.primary_state() == TransportState::Connected;
        let join = if self.phase == Phase::Joining { self.timers.join } else { None };
        [
            moves,
            join.map(|at| (at, Deadline::Join)),
            self.link.silent_at(self.settings.ping_timeout).map(|at| (at, Deadline::PingTimeout)),
            self.link.given_up_at(&self.settings, media_lives).map(|at| (at, Deadline::Resume)),
            self.negotiation_deadline().map(|at| (at, Deadline::Negotiation)),
            self.offer_deadline().map(|at| (at, Deadline::Debounce)),
            self.link.is_live().then_some((self.timers.quality, Deadline::Quality)),
            self.link.is_live().then_some((self.timers.refresh, Deadline::Refresh)),
            self.publications.oldest_unmatched(self.settings.announced_timeout).map(|at| (at, Deadline::Announced)),
            self.subscriptions.oldest_unknown(self.settings.not_found_timeout).map(|at| (at, Deadline::NotFound)),
            self.subscriptions.backups_given_up_at().map(|at| (at, Deadline::NoBackup)),
            self.demands.falls_at().map(|at| (at, Deadline::Demand)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at)
    }

    /// Who this is, as the room last said.
    pub fn own(&self) -> &Arc<Participant> {
        &self.own
    }

    fn begin(&mut self, now: Instant, others: Vec<Arc<Participant>>, ice_servers: Vec<IceServer>) {
        let can_subscribe = self.primary == Target::Subscriber;
        self.send(ServerSignal::Join(Box::new(Join {
            room: self.room.clone(),
            own: self.own.clone(),
            others: others.clone(),
            subscriber_primary: can_subscribe,
            ice_servers,
            ping_interval_s: whole_seconds(self.settings.ping_interval),
            ping_timeout_s: whole_seconds(self.settings.ping_timeout),
            fast_publish: self.own.permission.can_publish,
            publish_codecs: self.publications.codecs().to_vec(),
        })));
        self.refresh_token();
        self.subscriptions.people_changed(others);
        if can_subscribe {
            self.open(Target::Subscriber);
            self.want(now);
            // A client whose primary is the subscriber transport waits for this offer even if it carries no track.
            self.make_offer(now, false);
        }
    }

    fn on_signal(&mut self, now: Instant, signal: ClientSignal) {
        self.link.heard(now);
        let weight = if matches!(signal, ClientSignal::Trickle { .. }) { CANDIDATE_WEIGHT } else { 1.0 };
        if !self.messages.take(now, weight) {
            self.outputs.push_back(Output::Dropped(Dropped::TooManyMessages));
            self.send_leave(LeaveReason::StateMismatch, LeaveAction::Disconnect);
            self.finish(LeaveReason::StateMismatch, SocketEnd::TooManyMessages);
            return;
        }
        match signal {
            ClientSignal::Offer { sdp, id } => self.on_offer(now, sdp, id),
            ClientSignal::Answer { sdp, id } => self.on_answer(now, sdp, id),
            ClientSignal::AddTrack(ask) => self.on_add_track(now, ask),
            ClientSignal::Mute { track, muted } => self.on_mute(now, track, muted),
            ClientSignal::Subscription { tracks, subscribe } => {
                self.wish(now, tracks, subscribe);
                self.want(now);
            }
            ClientSignal::TrackSetting { tracks, settings } => {
                if !self.subscriptions.set(&tracks, settings) {
                    self.outputs.push_back(Output::Dropped(Dropped::TooManyWishes));
                }
                self.want(now);
            }
            // A part of its move: it closes what it has before it starts over.
            ClientSignal::Leave { .. } if self.told_to_move.is_some() => self.set_out(now),
            ClientSignal::Leave { .. } => self.finish(LeaveReason::ClientInitiated, SocketEnd::Left),
            ClientSignal::SyncState(state) => self.on_sync_state(now, state),
            ClientSignal::Simulate(scenario) => self.on_simulate(scenario),
            ClientSignal::Ping { timestamp_ms } => self.send(ServerSignal::Pong { timestamp_ms }),
            ClientSignal::PingReq { timestamp_ms, .. } => {
                self.send(ServerSignal::PongResp { last_ping_timestamp_ms: timestamp_ms });
            }
            ClientSignal::UpdateMetadata { request_id, name, metadata, attributes } => {
                self.on_update_metadata(request_id, name, metadata, attributes);
            }
            ClientSignal::UpdateAudioTrack { track, features } => {
                let updated = self.publications.update(now, &track, |track| track.audio_features = features);
                self.track_updated(updated, track);
            }
            ClientSignal::UpdateVideoTrack { track, width, height } => {
                let updated =
                    self.publications.update(now, &track, |track| (track.width, track.height) = (width, height));
                self.track_updated(updated, track);
            }
            ClientSignal::Audience(audience) => self.on_audience(audience),
            ClientSignal::PublishDataTrack(ask) => self.on_publish_data_track(ask),
            ClientSignal::UnpublishDataTrack { handle } => self.on_unpublish_data_track(handle),
            ClientSignal::DataSubscription { updates } => self.on_data_subscription(updates),
            ClientSignal::StoreBlob { request_id, key, contents } => self.on_store_blob(request_id, key, contents),
            ClientSignal::GetBlob { request_id, owner, key } => self.on_get_blob(request_id, &owner, key),
            ClientSignal::Trickle { .. } | ClientSignal::Ignored => {}
        }
    }

    fn on_media(&mut self, now: Instant, event: MediaEvent) {
        match event {
            MediaEvent::Answered { sdp, published, gone } => self.on_answered(now, sdp, published, gone),
            MediaEvent::Offered { sdp } => self.on_offered(now, sdp),
            MediaEvent::Accepted => {
                self.subscriber.accepted();
                self.make_offer_if_needed(now);
            }
            MediaEvent::Refused { .. } => self.end(LeaveReason::StateMismatch, Some(LeaveAction::Reconnect)),
            MediaEvent::OfferNeeded => {
                self.subscriber.needed(now, self.settings.offer_debounce);
                self.make_offer_if_needed(now);
            }
            MediaEvent::Connected { target } => self.on_connected(now, target),
            MediaEvent::ChannelOpen { target, channel } if target == self.primary => self.on_channel_open(channel),
            MediaEvent::ChannelOpen { .. } => {}
            MediaEvent::Bound { track } => {
                let (track, _) = track.split_backup();
                self.outputs.push_back(Output::Ask(Request::Bound { track }));
            }
            MediaEvent::Undecodable { track } => {
                self.subscriptions.undecodable(track);
                self.want(now);
            }
            MediaEvent::Paused { track, paused } => {
                let (track, _) = track.split_backup();
                if let Some(publisher) = self.subscriptions.publisher_of(&track) {
                    self.send(ServerSignal::StreamState { publisher, track, paused });
                }
            }
            MediaEvent::Demand { track, top } => self.on_demand(now, &track, top),
            MediaEvent::Quality { target, score } => {
                let quality = self.qualities.measured(target, score);
                self.outputs.push_back(Output::Ask(Request::Quality { quality }));
            }
            MediaEvent::Closed { target, reason } => self.on_transport_closed(target, reason),
        }
    }

    fn on_notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::Participants { changed } => self.on_participants(now, changed),
            Notice::OwnChanged { own, announce } => self.on_own_changed(now, own, announce),
            Notice::Room { room } => {
                self.room = room.clone();
                self.send(ServerSignal::RoomUpdate { room });
            }
            Notice::Speakers { speakers } => self.on_speakers(speakers),
            Notice::Quality { changed } => self.qualities.changed(changed),
            Notice::Data { channel, payload } => self.deliver(channel, payload),
            Notice::DataFrame { track, packet } => self.on_data_frame(now, &track, &packet),
            Notice::Blob { request_id, answer } => self.on_blob(request_id, answer),
            Notice::TrackSubscribed { track } => self.send(ServerSignal::TrackSubscribed { track }),
            Notice::BackupWanted { track } => self.on_backup_wanted(now, &track),
            Notice::MuteTrack { track, muted } => {
                if let Some(changed) = self.publications.update(now, &track, |track| track.muted = muted) {
                    self.send(ServerSignal::Mute { track, muted });
                    self.set_muted(&changed);
                }
            }
            Notice::SetSubscription { tracks, subscribe } => {
                self.wish(now, tracks, subscribe);
                self.want(now);
            }
            Notice::End { reason: LeaveReason::DuplicateIdentity } if self.told_to_move.is_some() => {
                self.finish(LeaveReason::Migration, SocketEnd::Moved);
            }
            Notice::End { reason } => self.end(reason, Some(action_after(reason))),
        }
    }

    fn on_participants(&mut self, now: Instant, changed: Vec<Arc<Participant>>) {
        if !self.link.is_live() {
            self.link.missed(&changed);
        }
        for gone in changed.iter().filter(|who| who.state == plenary_model::ParticipantState::Disconnected) {
            self.qualities.gone(&gone.sid);
            self.speaking.remove(&gone.sid);
        }
        self.send(ServerSignal::Update { participants: changed.clone() });
        self.subscriptions.people_changed(changed);
        self.want(now);
        self.take_data_tracks();
    }

    /// The client hears of those whose media it takes, and of itself.
    fn on_speakers(&mut self, mut speakers: Vec<(ParticipantSid, SpeakerLevel)>) {
        for (sid, level) in &speakers {
            // Who falls silent while the client is away is told when it comes back.
            if level.active || !self.link.is_live() {
                self.speaking.insert(sid.clone(), *level);
            } else {
                self.speaking.remove(sid);
            }
        }
        speakers.retain(|(sid, _)| *sid == self.own.sid || self.subscriptions.hears(sid));
        if !speakers.is_empty() {
            self.send(ServerSignal::SpeakersChanged { speakers });
        }
    }

    fn on_own_changed(&mut self, now: Instant, own: Arc<Participant>, announce: Announce) {
        let before = std::mem::replace(&mut self.own, own);
        if announce == Announce::Yes {
            self.send(ServerSignal::Update { participants: vec![self.own.clone()] });
            self.refresh_token();
        }
        if before.permission == self.own.permission {
            return;
        }
        self.withdraw_data_tracks();
        for track in self.publications.no_longer_allowed(&self.own.permission) {
            self.demands.unpublished(&track.sid);
            self.send(ServerSignal::TrackUnpublished { track: track.sid.clone() });
            for engine in track.engine_sids() {
                self.outputs.push_back(Output::Media(MediaCommand::Unpublish { track: engine }));
            }
            self.outputs.push_back(Output::Ask(Request::Unpublish { tracks: vec![track.sid] }));
        }
        if self.own.permission.can_subscribe && self.transports.subscriber == TransportState::Unopened {
            self.open(Target::Subscriber);
            self.subscriber.needed(now, self.settings.offer_debounce);
        }
        self.want(now);
        self.take_data_tracks();
    }

    fn on_connected(&mut self, now: Instant, target: Target) {
        *self.transport_mut(target) = TransportState::Connected;
        if target == self.primary && self.phase == Phase::Joining {
            self.phase = Phase::Active;
            self.timers.quality = now;
            self.outputs.push_back(Output::Ask(Request::BecameActive));
        }
    }

    fn on_transport_closed(&mut self, target: Target, reason: LeaveReason) {
        *self.transport_mut(target) = TransportState::Closed;
        // The association is gone on our side, so an ICE restart could not bring it back: a whole new session can. While the
        // socket is away the short detached timeout runs instead (see `next_deadline`).
        if self.link.is_live() && self.told_to_move.is_none() {
            self.end(reason, Some(LeaveAction::Reconnect));
        }
    }

    fn on_update_metadata(
        &mut self,
        request_id: u32,
        name: String,
        metadata: String,
        attributes: BTreeMap<String, String>,
    ) {
        let settings = &self.settings;
        let attribute_bytes = limits::merged_bytes(&self.own.attributes, &attributes);
        let (reason, message) = if !self.own.permission.can_update_metadata {
            (RequestOutcome::NotAllowed, "does not have permission to update own metadata")
        } else if name.len() > settings.name_bytes_max {
            (RequestOutcome::LimitExceeded, "name is too long")
        } else if metadata.len() > settings.metadata_bytes_max {
            (RequestOutcome::LimitExceeded, "metadata is too large")
        } else if attribute_bytes > settings.attributes_bytes_max {
            (RequestOutcome::LimitExceeded, "attributes are too large")
        } else {
            (RequestOutcome::Ok, "")
        };
        // Older clients know only refusals.
        if reason != RequestOutcome::Ok || self.protocol > PROTOCOL_WITHOUT_OK {
            self.respond(request_id, reason, message, About::UpdateMetadata);
        }
        if reason == RequestOutcome::Ok {
            let some = |text: String| (!text.is_empty()).then_some(text);
            let change = Request::UpdateMetadata { name: some(name), metadata: some(metadata), attributes };
            self.outputs.push_back(Output::Ask(change));
        }
    }

    fn on_simulate(&mut self, scenario: Scenario) {
        match scenario {
            Scenario::SpeakerUpdate { seconds } => {
                self.outputs.push_back(Output::Ask(Request::SimulateSpeaker { seconds }));
            }
            // The state is to be gone when the client resumes, without a word before.
            Scenario::NodeFailure | Scenario::Migration => self.finish(LeaveReason::Migration, SocketEnd::Simulated),
            Scenario::ServerLeave => self.end(LeaveReason::ServerShutdown, Some(LeaveAction::Disconnect)),
            // The client starts over by itself; its next session is told of no UDP candidates.
            Scenario::SwitchCandidateProtocol { .. } => {}
            Scenario::SubscriberBandwidth { bits_per_second } => {
                self.outputs.push_back(Output::Media(MediaCommand::CapBandwidth { bits_per_second }));
            }
            Scenario::DisconnectSignalOnResume => self.link.drop_next_resume_after_messages(),
            Scenario::DisconnectSignalOnResumeNoMessages => self.link.drop_next_resumes_before_messages(),
            Scenario::LeaveRequestFullReconnect => self.end(LeaveReason::StateMismatch, Some(LeaveAction::Reconnect)),
        }
    }

    fn on_data(&mut self, data: ClientData) {
        let permission = &self.own.permission;
        let refused = if !permission.can_publish_data {
            Some(Dropped::DataNotAllowed)
        } else {
            match data.kind {
                DataKind::Transcription if !permission.agent && self.own.kind != ParticipantKind::Agent => {
                    Some(Dropped::DataKindNotAllowed)
                }
                _ if data.channel == Channel::Reliable && data.sequence > 0 => {
                    let repeated = data.sequence <= self.data.last_sequence;
                    self.data.last_sequence = self.data.last_sequence.max(data.sequence);
                    repeated.then_some(Dropped::DataRepeated)
                }
                _ => None,
            }
        };
        self.outputs.push_back(match refused {
            Some(why) => Output::Dropped(why),
            None => Output::Ask(Request::Data {
                message: plenary_model::DataMessage { channel: data.channel, to: data.to, payload: data.payload },
            }),
        });
    }

    /// To the client's data channel; reliable messages wait for it while the client is still connecting.
    fn deliver(&mut self, channel: Channel, payload: Bytes) {
        if self.data.open.contains(&channel) {
            self.outputs.push_back(Output::Media(MediaCommand::Send { target: self.primary, channel, payload }));
        } else if channel == Channel::Reliable
            && self.data.waiting_bytes.saturating_add(payload.len()) <= WAITING_BYTES_MAX
        {
            self.data.waiting_bytes = self.data.waiting_bytes.saturating_add(payload.len());
            self.data.waiting.push_back(payload);
        } else {
            self.outputs.push_back(Output::Dropped(Dropped::DataBeforeOpen));
        }
    }

    fn on_channel_open(&mut self, channel: Channel) {
        if !self.data.open.contains(&channel) {
            self.data.open.push(channel);
        }
        if channel == Channel::Reliable {
            self.data.waiting_bytes = 0;
            for payload in std::mem::take(&mut self.data.waiting) {
                self.outputs.push_back(Output::Media(MediaCommand::Send { target: self.primary, channel, payload }));
            }
        }
    }

    /// The client hears of those whose media it takes, and of itself.
    fn tell_quality(&mut self, now: Instant) {
        self.timers.quality = now + self.settings.quality_interval;
        let mut people: Vec<_> = self.subscriptions.publishers().collect();
        if self.phase == Phase::Active {
            people.push(self.own.sid.clone());
        }
        let updates = self.qualities.news(&self.own.sid, people);
        if !updates.is_empty() {
            self.send(ServerSignal::ConnectionQuality { updates });
        }
    }

    fn track_updated(&mut self, updated: Option<plenary_model::Track>, track: TrackSid) {
        match updated {
            Some(track) => self.outputs.push_back(Output::Ask(Request::UpdateTrack { track })),
            None => {
                let about = About::UpdateTrack { track };
                self.respond(0, RequestOutcome::NotFound, "track not found", about);
            }
        }
    }

    fn respond(&mut self, request_id: u32, reason: RequestOutcome, message: &str, about: About) {
        self.send(ServerSignal::RequestResponse { request_id, reason, message: message.to_owned(), about });
    }

    /// To the client if it is there. What is missed while it is away is told again by the resume.
    fn send(&mut self, signal: ServerSignal) {
        if self.link.is_live() {
            self.outputs.push_back(Output::Send(signal));
        }
    }

    fn refresh_token(&mut self) {
        if self.link.is_live() {
            self.outputs.push_back(Output::RefreshToken);
        }
    }

    fn send_leave(&mut self, reason: LeaveReason, action: LeaveAction) {
        self.send(ServerSignal::Leave { reason, action });
    }

    /// Ends the session, telling the client if it shall hear of it.
    fn end(&mut self, reason: LeaveReason, told: Option<LeaveAction>) {
        if let Some(action) = told {
            self.send_leave(reason, action);
        }
        self.finish(reason, SocketEnd::Ended);
    }

    fn finish(&mut self, reason: LeaveReason, socket: SocketEnd) {
        self.outputs.push_back(Output::Ask(Request::Leave { reason }));
        if self.link.is_live() {
            self.outputs.push_back(Output::CloseSocket(socket));
        }
        self.outputs.push_back(Output::End(reason));
        self.phase = Phase::Ended;
    }

    fn open(&mut self, target: Target) {
        *self.transport_mut(target) = TransportState::Connecting;
        let open_channels = target == Target::Subscriber && self.primary == Target::Subscriber;
        let allow_pause = target == Target::Subscriber && self.subscriptions.allow_pause();
        let refused_codecs = match target {
            Target::Publisher => {
                let taken = self.publications.codecs();
                Codec::ALL.into_iter().filter(|codec| !taken.contains(codec)).collect()
            }
            Target::Subscriber => Vec::new(),
        };
        let open = MediaCommand::Open { target, open_channels, allow_pause, refused_codecs };
        self.outputs.push_back(Output::Media(open));
    }

    fn transport_mut(&mut self, target: Target) -> &mut TransportState {
        match target {
            Target::Publisher => &mut self.transports.publisher,
            Target::Subscriber => &mut self.transports.subscriber,
        }
    }

    fn primary_state(&self) -> TransportState {
        match self.primary {
            Target::Publisher => self.transports.publisher,
            Target::Subscriber => self.transports.subscriber,
        }
    }
}

/// What a client may publish. Without a video codec at all SDKs would fail, so a list that comes to that is left as it is.
fn publishable(taken: &[Codec], unfit: &[Codec]) -> Vec<Codec> {
    let fit: Vec<_> = taken.iter().copied().filter(|codec| !unfit.contains(codec)).collect();
    if fit.iter().any(|codec| codec.kind() == MediaKind::Video) { fit } else { taken.to_vec() }
}

/// What a client does when the room ends its session.
fn action_after(reason: LeaveReason) -> LeaveAction {
    match reason {
        LeaveReason::StateMismatch
        | LeaveReason::MediaFailure
        | LeaveReason::ConnectionTimeout
        | LeaveReason::Migration => LeaveAction::Reconnect,
        LeaveReason::Unknown
        | LeaveReason::ClientInitiated
        | LeaveReason::DuplicateIdentity
        | LeaveReason::ServerShutdown
        | LeaveReason::ParticipantRemoved
        | LeaveReason::RoomDeleted
        | LeaveReason::RoomClosed
        | LeaveReason::JoinFailure
        | LeaveReason::SignalClose => LeaveAction::Disconnect,
    }
}

/// Clients count these in whole seconds, and some divide by them.
fn whole_seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// What a candidate counts as among messages: nothing is done with it, and clients cannot help their number. libwebrtc gathers
/// those of TCP anew whenever another connection of its process begins to gather, which makes hundreds within milliseconds
/// where one process joins several rooms at once.
const CANDIDATE_WEIGHT: f64 = 1.0 / 16.0;

/// Up to this protocol version clients do not expect a response to what succeeded.
const PROTOCOL_WITHOUT_OK: u32 = 14;

/// Reliable data kept for a client whose channel is not open yet: about two seconds of the sustained rate of a talkative
/// room. What comes beyond is dropped by name.
const WAITING_BYTES_MAX: usize = 1024 * 1024;
