//! What this participant receives: who is here, what it asked for, and the set that follows from both.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use plenary_model::{
    Audience, Codec, Participant, ParticipantSid, ParticipantState, Quality, SubscriptionSettings, TrackSid,
};

use super::{Wanted, audience::admits, backup::Choice};
use crate::signal::{ServerSignal, SubscriptionFailure};

#[derive(Debug)]
pub(super) struct Subscriptions {
    auto_subscribe: bool,
    allow_pause: bool,
    /// What a track starts with until the client says how it shows it.
    initial: SubscriptionSettings,
    people: BTreeMap<ParticipantSid, Arc<Participant>>,
    /// Explicit wishes, for tracks that may not exist yet.
    wishes: HashMap<TrackSid, bool>,
    settings: HashMap<TrackSid, SubscriptionSettings>,
    /// Wished for and not there, since when.
    unknown: HashMap<TrackSid, Instant>,
    /// Of tracks and backups by the media engine's names: those that the client refused.
    undecodable: HashSet<TrackSid>,
    /// Codecs that the client had better not get.
    unfit: Vec<Codec>,
    /// Tracks whose publisher was asked for the backup, since when, as long as it is not there; no time once the client was
    /// told that it does not come.
    asked: HashMap<TrackSid, Option<Instant>>,
    /// Tracks of which the client was told that it can have them in no codec.
    failed: HashSet<TrackSid>,
    /// Tracks whose publisher does not let the client have them, as the client was told.
    refused: BTreeMap<TrackSid, ParticipantSid>,
    /// What the media router was told last.
    told: Vec<Wanted>,
}

impl Subscriptions {
    pub(super) fn new(auto_subscribe: bool, adaptive_stream: bool, allow_pause: bool, unfit: Vec<Codec>) -> Self {
        // An adaptive client reports real sizes once its tiles are on screen; until then the smallest layer will do.
        let quality = if adaptive_stream { Quality::Low } else { Quality::High };
        Self {
            auto_subscribe,
            allow_pause,
            initial: SubscriptionSettings { quality, ..SubscriptionSettings::default() },
            people: BTreeMap::new(),
            wishes: HashMap::new(),
            settings: HashMap::new(),
            unknown: HashMap::new(),
            undecodable: HashSet::new(),
            unfit,
            asked: HashMap::new(),
            failed: HashSet::new(),
            refused: BTreeMap::new(),
            told: Vec::new(),
        }
    }

    pub(super) fn allow_pause(&self) -> bool {
        self.allow_pause
    }

    pub(super) fn people(&self) -> impl Iterator<Item = &Arc<Participant>> {
        self.people.values()
    }

    pub(super) fn people_changed(&mut self, changed: Vec<Arc<Participant>>) {
        for who in changed {
            let before = if who.state == ParticipantState::Disconnected {
                self.people.remove(&who.sid)
            } else {
                // The same identity under a new sid is the same person with a new session.
                let old = self.people.values().find(|old| old.identity == who.identity && old.sid != who.sid);
                let old = old.map(|old| old.sid.clone()).and_then(|sid| self.people.remove(&sid));
                for track in &who.tracks {
                    self.unknown.remove(&track.sid);
                }
                let same = self.people.insert(who.sid.clone(), who.clone());
                old.or(same)
            };
            let still_there = |sid: &TrackSid| {
                who.state != ParticipantState::Disconnected && who.tracks.iter().any(|track| track.sid == *sid)
            };
            for track in before.iter().flat_map(|who| &who.tracks).filter(|track| !still_there(&track.sid)) {
                self.wishes.remove(&track.sid);
                self.settings.remove(&track.sid);
                self.try_again(&track.sid);
            }
        }
    }

    /// Remembers what the client wants; false when it wants too much to remember.
    pub(super) fn wish(&mut self, now: Instant, tracks: Vec<TrackSid>, subscribe: bool) -> bool {
        for track in tracks {
            if self.wishes.len() >= WISHES_MAX && !self.wishes.contains_key(&track) {
                return false;
            }
            if !subscribe {
                self.unknown.remove(&track);
            } else if self.publisher_of(&track).is_none() {
                self.unknown.entry(track.clone()).or_insert(now);
            }
            self.try_again(&track);
            self.wishes.insert(track, subscribe);
        }
        true
    }

    pub(super) fn set(&mut self, tracks: &[TrackSid], settings: SubscriptionSettings) -> bool {
        for track in tracks {
            if self.settings.len() >= WISHES_MAX && !self.settings.contains_key(track) {
                return false;
            }
            self.settings.insert(track.clone(), settings);
        }
        true
    }

    pub(super) fn disable(&mut self, tracks: &[TrackSid]) {
        for track in tracks {
            let settings = SubscriptionSettings { disabled: true, ..self.settings_of(track) };
            self.set(std::slice::from_ref(track), settings);
        }
    }

    /// By the media engine's name.
    pub(super) fn undecodable(&mut self, track: TrackSid) {
        self.undecodable.insert(track);
    }

    /// What the client is to receive now.
    pub(super) fn review(&mut self, now: Instant, own: &Participant) -> Review {
        let mut review = Review::default();
        let mut wanted = Vec::new();
        for (sid, who) in self.people.iter().filter(|_| own.permission.can_subscribe) {
            for track in &who.tracks {
                let wished = self.wishes.get(&track.sid).copied().unwrap_or(self.auto_subscribe);
                if !wished || !admits(&who.audience, own, &track.sid) {
                    continue;
                }
                let engine = match Choice::of(track, |engine, mime| self.decodes(engine, mime)) {
                    Choice::NotYet => continue,
                    Choice::Primary => track.sid.clone(),
                    Choice::Backup => {
                        // Should it go, it is asked for again.
                        self.asked.remove(&track.sid);
                        track.sid.backup()
                    }
                    Choice::BackupOnDemand => {
                        self.asked.entry(track.sid.clone()).or_insert_with_key(|sid| {
                            review.ask.push(sid.clone());
                            Some(now)
                        });
                        continue;
                    }
                    Choice::Nothing => {
                        review.failed.extend(self.failed.insert(track.sid.clone()).then(|| track.sid.clone()));
                        continue;
                    }
                };
                wanted.push(Wanted {
                    track: engine,
                    shown: track.sid.clone(),
                    kind: track.kind,
                    publisher: sid.clone(),
                    settings: self.settings_of(&track.sid),
                });
            }
        }
        if wanted != self.told {
            self.told.clone_from(&wanted);
            review.wanted = Some(wanted);
        }
        review
    }

    /// Tracks that the client may no longer have, or may have again, since this was asked last.
    pub(super) fn permissions_changed(&mut self, own: &Participant) -> Vec<(ParticipantSid, TrackSid, bool)> {
        let mut refused = BTreeMap::new();
        for who in self.people.values().filter(|who| who.audience != Audience::Everybody) {
            let tracks = who.tracks.iter().filter(|track| !admits(&who.audience, own, &track.sid));
            refused.extend(tracks.map(|track| (track.sid.clone(), who.sid.clone())));
        }
        let before = std::mem::replace(&mut self.refused, refused);
        let newly = self.refused.iter().filter(|(track, _)| !before.contains_key(*track));
        let newly = newly.map(|(track, publisher)| (publisher.clone(), track.clone(), false));
        let again = before.iter().filter(|(track, publisher)| {
            let still_there = |who: &Arc<Participant>| who.tracks.iter().any(|one| one.sid == **track);
            !self.refused.contains_key(*track) && self.people.get(*publisher).is_some_and(still_there)
        });
        let again = again.map(|(track, publisher)| (publisher.clone(), track.clone(), true));
        again.chain(newly).collect()
    }

    /// Of backups that were asked for in vain. One that comes late is taken all the same.
    pub(super) fn give_up_backups(&mut self, now: Instant) -> Vec<ServerSignal> {
        let failed = |(track, since): (&TrackSid, &mut Option<Instant>)| {
            since.take_if(|since| *since + BACKUP_AFTER <= now)?;
            let why = SubscriptionFailure::CodecUnsupported;
            Some(ServerSignal::SubscriptionFailed { track: track.clone(), why })
        };
        self.asked.iter_mut().filter_map(failed).collect()
    }

    pub(super) fn backups_given_up_at(&self) -> Option<Instant> {
        self.asked.values().flatten().min().map(|since| *since + BACKUP_AFTER)
    }

    pub(super) fn give_up_unknown(&mut self, now: Instant, timeout: Duration) -> Vec<ServerSignal> {
        let late: Vec<_> =
            self.unknown.extract_if(|_, since| *since + timeout <= now).map(|(track, _)| track).collect();
        let failed = |track: TrackSid| {
            self.wishes.remove(&track);
            ServerSignal::SubscriptionFailed { track, why: SubscriptionFailure::TrackNotFound }
        };
        late.into_iter().map(failed).collect()
    }

    pub(super) fn oldest_unknown(&self, timeout: Duration) -> Option<Instant> {
        self.unknown.values().min().map(|since| *since + timeout)
    }

    pub(super) fn publisher_of(&self, track: &TrackSid) -> Option<ParticipantSid> {
        let publishes = |who: &&Arc<Participant>| who.tracks.iter().any(|theirs| theirs.sid == *track);
        self.people.values().find(publishes).map(|who| who.sid.clone())
    }

    /// Whether something of this participant is received.
    pub(super) fn hears(&self, publisher: &ParticipantSid) -> bool {
        self.told.iter().any(|wanted| wanted.publisher == *publisher)
    }

    pub(super) fn publishers(&self) -> impl Iterator<Item = ParticipantSid> {
        self.told.iter().map(|wanted| wanted.publisher.clone())
    }

    fn decodes(&self, engine: &TrackSid, mime: &str) -> bool {
        !self.undecodable.contains(engine) && Codec::named(mime).is_none_or(|codec| !self.unfit.contains(&codec))
    }

    /// Forgets what came of receiving a track before.
    fn try_again(&mut self, track: &TrackSid) {
        self.undecodable.remove(track);
        self.undecodable.remove(&track.backup());
        self.asked.remove(track);
        self.failed.remove(track);
    }

    fn settings_of(&self, track: &TrackSid) -> SubscriptionSettings {
        self.settings.get(track).copied().unwrap_or(self.initial)
    }
}

/// What follows from who is here and what the client wishes.
#[derive(Debug, Default)]
pub(super) struct Review {
    /// The whole set for the media router, if it differs from what that was told last.
    pub(super) wanted: Option<Vec<Wanted>>,
    /// Tracks whose backup is needed, not asked for before.
    pub(super) ask: Vec<TrackSid>,
    /// Tracks that the client can have in no codec, not said before.
    pub(super) failed: Vec<TrackSid>,
}

/// How long a client waits for a backup before it is told that it cannot decode the track: longer than its publisher is asked.
const BACKUP_AFTER: Duration = Duration::from_secs(20);

/// Tracks a client may have wishes or settings for; more are dropped by name.
const WISHES_MAX: usize = 4096;
