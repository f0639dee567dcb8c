//! The sessions of this node: the newest truth about its own people, of which the store may not have heard yet.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use plenary_model::{DataTrackSid, Identity, Participant, ParticipantSid, QualityScore, Record, TrackSid};

use super::{blobs::Blobs, people::Tick};

/// At most one per identity.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_sid: BTreeMap<ParticipantSid, Session>,
    sids: HashMap<Identity, ParticipantSid>,
    /// Tracks published here.
    tracks: HashMap<TrackSid, Published>,
}

#[derive(Debug)]
pub(super) struct Session {
    /// Newest truth; the store's is this one or on its way to it.
    pub(super) record: Arc<Record>,
    pub(super) registered: Tick,
    seen_in_store: bool,
    doubt: Doubt,
    /// How well its media gets through, from the first measurement on.
    pub(super) quality: Option<QualityScore>,
    /// Writes repeated since one came home.
    rewrites: u8,
    /// Streams of data frames that it receives.
    pub(super) takes: BTreeSet<DataTrackSid>,
    pub(super) blobs: Blobs,
}

/// Whether the store's answer to the last write leaves a question that the next snapshot settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    WriteFailed,
}

#[derive(Debug)]
struct Published {
    by: ParticipantSid,
    audience: Audience,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    Nobody,
    Somebody,
}

impl Sessions {
    pub(super) fn seat(&mut self, session: Session) {
        let person = &session.record.participant;
        self.sids.insert(person.identity.clone(), person.sid.clone());
        self.publish(person);
        self.by_sid.insert(person.sid.clone(), session);
    }

    pub(super) fn remove(&mut self, sid: &ParticipantSid) -> Option<Session> {
        let session = self.by_sid.remove(sid)?;
        self.sids.remove(&session.record.participant.identity);
        let tracks: Vec<_> = session.record.participant.tracks.iter().map(|track| track.sid.clone()).collect();
        self.unpublish(sid, &tracks);
        Some(session)
    }

    /// Changes the record of one of our people; gives back the new one if it differs.
    pub(super) fn change(
        &mut self,
        sid: &ParticipantSid,
        change: impl FnOnce(&mut Participant),
    ) -> Option<Arc<Record>> {
        let session = self.by_sid.get_mut(sid)?;
        let before = session.record.clone();
        let mut record = (*before).clone();
        change(&mut record.participant);
        if record == *before {
            return None;
        }
        record.participant.version = before.participant.version.saturating_add(1);
        let record = Arc::new(record);
        session.record = record.clone();
        let kept = |old: &TrackSid| record.participant.tracks.iter().any(|track| track.sid == *old);
        let old = before.participant.tracks.iter().map(|track| track.sid.clone());
        self.unpublish(sid, &old.filter(|old| !kept(old)).collect::<Vec<_>>());
        self.publish(&record.participant);
        Some(record)
    }

    /// The publisher to tell, the first time somebody receives its track.
    pub(super) fn first_audience(&mut self, track: &TrackSid) -> Option<ParticipantSid> {
        let published = self.tracks.get_mut(track)?;
        let before = std::mem::replace(&mut published.audience, Audience::Somebody);
        (before == Audience::Nobody).then(|| published.by.clone())
    }

    /// Whose track it is, if it is published here.
    pub(super) fn publisher_of(&self, track: &TrackSid) -> Option<ParticipantSid> {
        self.tracks.get(track).map(|published| published.by.clone())
    }

    pub(super) fn get(&self, sid: &ParticipantSid) -> Option<&Session> {
        self.by_sid.get(sid)
    }

    pub(super) fn get_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Session> {
        self.by_sid.get_mut(sid)
    }

    pub(super) fn of(&self, identity: &Identity) -> Option<&Session> {
        self.by_sid.get(self.sids.get(identity)?)
    }

    pub(super) fn of_mut(&mut self, identity: &Identity) -> Option<&mut Session> {
        self.by_sid.get_mut(self.sids.get(identity)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_sid.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_sid.is_empty()
    }

    pub(super) fn seen_in_store(&self) -> Vec<ParticipantSid> {
        self.those(|session| session.seen_in_store)
    }

    pub(super) fn doubted(&self) -> Vec<ParticipantSid> {
        self.those(|session| session.doubt == Doubt::WriteFailed)
    }

    fn those(&self, which: impl Fn(&Session) -> bool) -> Vec<ParticipantSid> {
        self.by_sid.iter().filter(|(_, session)| which(session)).map(|(sid, _)| sid.clone()).collect()
    }

    fn publish(&mut self, person: &Participant) {
        for track in &person.tracks {
            let published = || Published { by: person.sid.clone(), audience: Audience::Nobody };
            self.tracks.entry(track.sid.clone()).or_insert_with(published);
        }
    }

    fn unpublish(&mut self, by: &ParticipantSid, tracks: &[TrackSid]) {
        for track in tracks {
            if self.tracks.get(track).is_some_and(|published| published.by == *by) {
                self.tracks.remove(track);
            }
        }
    }
}

impl Session {
    pub(super) fn new(record: Arc<Record>, seen_in_store: bool, registered: Tick) -> Self {
        Self {
            record,
            registered,
            seen_in_store,
            doubt: Doubt::None,
            quality: None,
            rewrites: 0,
            takes: BTreeSet::new(),
            blobs: Blobs::default(),
        }
    }

    /// Whether this record is of this session and not of another one of the same identity.
    pub(super) fn is(&self, record: &Record) -> bool {
        self.record.generation == record.generation && self.record.participant.sid == record.participant.sid
    }

    /// Whether the store has the newest truth.
    pub(super) fn is_stored_as(&self, stored: &Record) -> bool {
        self.is(stored) && stored.participant.version >= self.record.participant.version
    }

    /// The store says so too.
    pub(super) fn came_home(&mut self, stored: &Record) {
        self.seen_in_store = true;
        if stored.participant.version >= self.record.participant.version {
            self.doubt = Doubt::None;
            self.rewrites = 0;
        }
    }

    pub(super) fn doubt(&mut self) {
        self.doubt = Doubt::WriteFailed;
    }

    /// Whether the newest truth may be written once more.
    pub(super) fn may_rewrite(&mut self) -> bool {
        self.doubt = Doubt::None;
        self.rewrites = self.rewrites.saturating_add(1);
        self.rewrites <= REWRITES_MAX
    }
}

/// Failed writes of one session that are repeated in a row; then it starts over.
const REWRITES_MAX: u8 = 3;
