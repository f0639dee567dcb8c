//! Who may offer, and when.
//!
//! Publisher transport: the client's offers are answered one by one in order of arrival. Subscriber transport: at most one
//! offer of ours is out; whatever changes meanwhile is one next offer.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use plenary_model::{LeaveAction, LeaveReason, Target, TrackSid};

use super::{Dropped, MediaCommand, Output, Published, Session, TransportState};
use crate::{notice::Request, signal::ServerSignal};

#[derive(Debug, Default)]
pub(super) struct PublisherNegotiation {
    /// Id of the offer the media router is answering.
    answering: Option<u32>,
    waiting: VecDeque<(u32, String)>,
}

#[derive(Debug)]
pub(super) struct SubscriberNegotiation {
    last_id: u32,
    state: State,
    /// The sections must change; an offer follows as soon as one may be made.
    needed: bool,
    /// Several changes within this time become one offer.
    debounced_until: Option<Instant>,
    /// Offers asked for whose text will come but which a restart has overtaken.
    overtaken: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// The media router is writing the offer.
    Making {
        since: Instant,
    },
    /// The client has it.
    Out {
        since: Instant,
    },
    /// The answer is being applied.
    Applying,
}

impl SubscriberNegotiation {
    pub(super) fn new(seed: u64) -> Self {
        // Clients tell offers of one session from those of another by where the count starts.
        let last_id = u32::from(seed.to_le_bytes()[0]);
        Self { last_id, state: State::Idle, needed: false, debounced_until: None, overtaken: 0 }
    }

    pub(super) fn needed(&mut self, now: Instant, debounce: Duration) {
        if !self.needed {
            self.needed = true;
            self.debounced_until = Some(now + debounce);
        }
    }

    pub(super) fn accepted(&mut self) {
        if self.state == State::Applying {
            self.state = State::Idle;
        }
    }

    /// Until when changes are gathered; none while an offer is out, whose answer is waited for anyway.
    pub(super) fn debounced_until(&self) -> Option<Instant> {
        (self.needed && self.state == State::Idle).then_some(self.debounced_until).flatten()
    }

    fn out_since(&self) -> Option<Instant> {
        match self.state {
            State::Making { since } | State::Out { since } => Some(since),
            State::Idle | State::Applying => None,
        }
    }
}

impl Session {
    pub(super) fn on_offer(&mut self, _now: Instant, sdp: String, id: u32) {
        if self.transports.publisher == TransportState::Unopened {
            self.open(Target::Publisher);
        }
        if self.publisher.answering.is_some() {
            if self.publisher.waiting.len() >= OFFERS_WAITING_MAX {
                self.end(LeaveReason::StateMismatch, Some(LeaveAction::Reconnect));
            } else {
                self.publisher.waiting.push_back((id, sdp));
            }
            return;
        }
        self.answer(id, sdp);
    }

    fn answer(&mut self, id: u32, sdp: String) {
        self.publisher.answering = Some(id);
        let announced = self.publications.announced();
        self.outputs.push_back(Output::Media(MediaCommand::Offer { sdp, announced }));
    }

    pub(super) fn on_answered(&mut self, now: Instant, sdp: String, published: Vec<Published>, gone: Vec<TrackSid>) {
        let Some(id) = self.publisher.answering.take() else { return };
        let ended = self.publications.gone(&gone);
        for track in &ended {
            self.demands.unpublished(&track.sid);
            // A backup does not outlive its track, whatever its own section says.
            for track in track.engine_sids().filter(|engine| !gone.contains(engine)) {
                self.outputs.push_back(Output::Media(MediaCommand::Unpublish { track }));
            }
        }
        if !ended.is_empty() {
            let tracks = ended.into_iter().map(|track| track.sid).collect();
            self.outputs.push_back(Output::Ask(Request::Unpublish { tracks }));
        }
        for track in self.publications.backups_gone(now, &gone) {
            self.demands.backup_unpublished(&track.sid);
            self.outputs.push_back(Output::Ask(Request::UpdateTrack { track }));
        }
        let mut tracks = Vec::new();
        for (engine, track) in self.publications.matched(now, published) {
            self.demands.published(now, &engine, &track);
            if track.muted {
                self.outputs.push_back(Output::Media(MediaCommand::SetMuted { track: engine, muted: true }));
            }
            tracks.push(track);
        }
        if !tracks.is_empty() {
            self.outputs.push_back(Output::Ask(Request::Publish { tracks }));
        }
        self.send(ServerSignal::Answer { sdp, id });
        if let Some((id, sdp)) = self.publisher.waiting.pop_front() {
            self.answer(id, sdp);
        }
    }

    pub(super) fn make_offer_if_needed(&mut self, now: Instant) {
        let negotiation = &self.subscriber;
        let gathered = negotiation.debounced_until.is_none_or(|until| until <= now);
        if negotiation.needed && negotiation.state == State::Idle && gathered && self.link.is_live() {
            self.make_offer(now, false);
        }
    }

    /// When gathered changes become an offer. None while none can be made: a deadline that cannot be met would never pass.
    pub(super) fn offer_deadline(&self) -> Option<Instant> {
        let possible = self.link.is_live() && self.transports.subscriber != TransportState::Unopened;
        self.subscriber.debounced_until().filter(|_| possible)
    }

    /// A restart may overtake an offer that is being made or out; the client drops the older one.
    pub(super) fn make_offer(&mut self, now: Instant, restart_ice: bool) {
        if self.transports.subscriber == TransportState::Unopened {
            return;
        }
        if matches!(self.subscriber.state, State::Making { .. }) {
            self.subscriber.overtaken = self.subscriber.overtaken.saturating_add(1);
        }
        self.subscriber.state = State::Making { since: now };
        self.subscriber.needed = false;
        self.subscriber.debounced_until = None;
        self.outputs.push_back(Output::Media(MediaCommand::MakeOffer { restart_ice }));
    }

    pub(super) fn on_offered(&mut self, now: Instant, sdp: String) {
        if self.subscriber.overtaken > 0 {
            self.subscriber.overtaken -= 1;
            return;
        }
        // 0 means "unknown" to clients, so the count leaves it out.
        self.subscriber.last_id = self.subscriber.last_id.checked_add(1).unwrap_or(1);
        self.subscriber.state = State::Out { since: now };
        let id = self.subscriber.last_id;
        self.send(ServerSignal::Offer { sdp, id });
    }

    pub(super) fn on_answer(&mut self, _now: Instant, sdp: String, id: u32) {
        let expected = matches!(self.subscriber.state, State::Out { .. });
        // Some clients always say 0.
        if !expected || (id != 0 && id != self.subscriber.last_id) {
            self.outputs.push_back(Output::Dropped(Dropped::StaleAnswer));
            return;
        }
        self.subscriber.state = State::Applying;
        self.outputs.push_back(Output::Media(MediaCommand::Answer { sdp }));
    }

    pub(super) fn negotiation_deadline(&self) -> Option<Instant> {
        // Without a socket no answer can come; the resume window decides then.
        let since = self.subscriber.out_since().filter(|_| self.link.is_live())?;
        since.checked_add(self.settings.negotiation_timeout)
    }
}

/// Offers of a client that wait behind the one being answered; more is a client gone wild and starts over.
const OFFERS_WAITING_MAX: usize = 16;
