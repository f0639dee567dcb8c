//! The socket comes and goes; the session stays for a while.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_model::{IceServer, LeaveAction, LeaveReason, Participant, ParticipantSid, ParticipantState, TrackSid};

use super::{MediaCommand, Output, Phase, Session, Settings, SocketEnd, TransportState, subscribe::Review};
use crate::{
    notice::Request,
    signal::{ServerSignal, SubscriptionFailure, SyncState},
};

/// The client's signalling socket as the session sees it.
#[derive(Debug)]
pub(super) struct Link {
    state: State,
    /// Who left while nobody was there to hear it.
    missed: Vec<Arc<Participant>>,
    simulated: Simulated,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Live { heard: Instant },
    Lost { since: Instant },
}

/// Faults the client asked for.
#[derive(Debug, Clone, Copy, Default)]
struct Simulated {
    drop_after_messages: bool,
    drops_before_messages: u8,
}

impl Link {
    pub(super) fn live(now: Instant) -> Self {
        Self { state: State::Live { heard: now }, missed: Vec::new(), simulated: Simulated::default() }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.state, State::Live { .. })
    }

    pub(super) fn heard(&mut self, now: Instant) {
        if let State::Live { heard } = &mut self.state {
            *heard = now;
        }
    }

    /// When silence on the socket counts as its loss.
    pub(super) fn silent_at(&self, timeout: Duration) -> Option<Instant> {
        match self.state {
            State::Live { heard } => heard.checked_add(timeout),
            State::Lost { .. } => None,
        }
    }

    /// When waiting for the client to resume ends: soon if its media is gone too.
    pub(super) fn given_up_at(&self, settings: &Settings, media_lives: bool) -> Option<Instant> {
        let patience = if media_lives { settings.resume_window } else { settings.detached_timeout };
        match self.state {
            State::Live { .. } => None,
            State::Lost { since } => since.checked_add(patience),
        }
    }

    pub(super) fn lose(&mut self, now: Instant) {
        self.state = State::Lost { since: now };
    }

    pub(super) fn missed(&mut self, changed: &[Arc<Participant>]) {
        let gone = changed.iter().filter(|who| who.state == ParticipantState::Disconnected).cloned();
        self.missed.extend(gone);
        // The oldest are the likeliest to be known gone: the snapshot leaves them out as well.
        let surplus = self.missed.len().saturating_sub(MISSED_MAX);
        self.missed.drain(..surplus);
    }

    pub(super) fn drop_next_resume_after_messages(&mut self) {
        self.simulated.drop_after_messages = true;
    }

    pub(super) fn drop_next_resumes_before_messages(&mut self) {
        self.simulated.drops_before_messages = SIMULATED_DROPS;
    }
}

impl Session {
    pub(super) fn on_socket_lost(&mut self, now: Instant) {
        if !self.link.is_live() {
            return;
        }
        self.link.lose(now);
        if self.phase == Phase::Joining && self.told_to_move.is_none() {
            // Nothing was ever up: there is nothing to resume.
            self.end(LeaveReason::SignalClose, None);
        }
    }

    pub(super) fn on_resumed(&mut self, now: Instant, protocol: u32, ice_servers: Vec<IceServer>) {
        self.link.state = State::Live { heard: now };
        self.protocol = protocol;
        if self.told_to_move.is_some() {
            self.refuse_resume(now);
            return;
        }
        if self.link.simulated.drops_before_messages > 0 {
            self.link.simulated.drops_before_messages -= 1;
            self.drop_socket(now);
            return;
        }
        let dead = [self.transports.publisher, self.transports.subscriber].contains(&TransportState::Closed);
        if dead {
            self.end(LeaveReason::StateMismatch, Some(LeaveAction::Reconnect));
            return;
        }
        // Clients drop whatever comes before this one.
        let last_message_seq = self.data.last_sequence;
        self.send(ServerSignal::Reconnect { last_message_seq, ice_servers });
        let missed = std::mem::take(&mut self.link.missed);
        if !missed.is_empty() {
            self.send(ServerSignal::Update { participants: missed });
        }
        // Some clients delete whom the snapshot omits, so it is whole and holds the client itself.
        let mut everybody = vec![self.own.clone()];
        everybody.extend(self.subscriptions.people().cloned());
        self.send(ServerSignal::Update { participants: everybody });
        let room = self.room.clone();
        self.send(ServerSignal::RoomUpdate { room });
        self.tell_permissions();
        self.tell_speakers(|_| true);
        self.speaking.retain(|_, level| level.active);
        self.tell_demands();
        self.tell_data_handles();
        self.refresh_token();
        for (cid, track) in self.publications.unmatched() {
            self.send(ServerSignal::TrackPublished { cid, track });
        }
        self.make_offer(now, true);
        if std::mem::take(&mut self.link.simulated.drop_after_messages) {
            self.drop_socket(now);
        }
    }

    fn drop_socket(&mut self, now: Instant) {
        self.outputs.push_back(Output::CloseSocket(SocketEnd::Simulated));
        self.link.lose(now);
    }

    pub(super) fn on_sync_state(&mut self, now: Instant, state: SyncState) {
        if state.published.iter().any(|track| !self.publications.knows(track)) {
            self.end(LeaveReason::StateMismatch, Some(LeaveAction::Reconnect));
            return;
        }
        if let Some((tracks, subscribe)) = state.subscription {
            self.wish(now, tracks, subscribe);
        }
        self.subscriptions.disable(&state.disabled);
        self.want(now);
    }

    pub(super) fn wish(&mut self, now: Instant, tracks: Vec<TrackSid>, subscribe: bool) {
        if !self.subscriptions.wish(now, tracks, subscribe) {
            self.outputs.push_back(Output::Dropped(super::Dropped::TooManyWishes));
        }
    }

    /// Tells the media router what this client shall receive, if that changed, and the client who of the new ones speaks.
    pub(super) fn want(&mut self, now: Instant) {
        self.tell_permissions();
        if self.transports.subscriber == TransportState::Unopened {
            return;
        }
        let heard: HashSet<_> = self.subscriptions.publishers().collect();
        let Review { wanted, ask, failed } = self.subscriptions.review(now, &self.own);
        for track in failed {
            self.send(ServerSignal::SubscriptionFailed { track, why: SubscriptionFailure::CodecUnsupported });
        }
        for track in ask {
            self.outputs.push_back(Output::Ask(Request::WantBackup { track }));
        }
        let Some(tracks) = wanted else { return };
        self.outputs.push_back(Output::Media(MediaCommand::Want { tracks }));
        self.tell_speakers(|sid| !heard.contains(sid));
    }

    /// Of those whose media the client takes.
    fn tell_speakers(&mut self, which: impl Fn(&ParticipantSid) -> bool) {
        let speakers = self.speaking.iter().filter(|(sid, _)| self.subscriptions.hears(sid) && which(sid));
        let speakers: Vec<_> = speakers.map(|(sid, level)| (sid.clone(), *level)).collect();
        if !speakers.is_empty() {
            self.send(ServerSignal::SpeakersChanged { speakers });
        }
    }
}

/// Departures remembered for a client without a socket.
const MISSED_MAX: usize = 1024;

/// How many resumes the "no messages" scenario drops.
const SIMULATED_DROPS: u8 = 3;
