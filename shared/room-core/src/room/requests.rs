//! What local sessions ask of their room.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use bytes::Bytes;
use plenary_model::{
    BlobAnswer, Channel, DataTrackSid, Destination, Identity, LeaveReason, NAME_BYTES_MAX, Participant, ParticipantSid,
    ParticipantState, Permission, RoomWord, Track, TrackSid, Version,
};

use super::{Output, RecordChange, Room};
use crate::notice::{Announce, Notice, Request};

impl Room {
    pub(super) fn on_ask(&mut self, now: Instant, who: &ParticipantSid, what: Request) {
        if self.sessions.get(who).is_none() {
            return;
        }
        match what {
            Request::BecameActive => {
                self.change(who, Announce::No, |person| person.state = person.state.max(ParticipantState::Active));
            }
            Request::Publish { tracks } => {
                self.change(who, Announce::No, |person| publish(person, tracks));
            }
            Request::Unpublish { tracks } => {
                self.change(who, Announce::No, |person| keep_tracks(person, |track| !tracks.contains(&track.sid)));
            }
            Request::UpdateTrack { track } => {
                self.change(who, Announce::No, |person| update_track(person, track));
            }
            Request::UpdateMetadata { name, metadata, attributes } => {
                self.on_update_metadata(who, name, metadata, attributes);
            }
            Request::UpdateAudience { audience } => {
                self.change(who, Announce::No, |person| person.audience = audience);
            }
            Request::Data { message } => {
                self.deliver(Some(who), message.channel, &message.to, &message.payload);
                self.say(RoomWord::Data { message });
            }
            Request::UpdateDataTracks { tracks } => {
                let allowed = |person: &Participant| person.permission.can_publish_data;
                self.change(who, Announce::No, |person| {
                    person.data_tracks = if allowed(person) { tracks } else { Vec::new() };
                });
            }
            Request::TakeDataTracks { tracks } => {
                if let Some(session) = self.sessions.get_mut(who) {
                    session.takes = tracks;
                }
            }
            Request::DataFrame { track, packet } => {
                self.deliver_frame(&track, &packet);
                self.say(RoomWord::DataFrame { track, packet });
            }
            Request::StoreBlob { request_id, key, contents } => {
                if let Some(session) = self.sessions.get_mut(who) {
                    let answer = session.blobs.store(key, contents);
                    self.answer_blob(who, request_id, answer);
                }
            }
            Request::GetBlob { request_id, owner, key } => self.on_get_blob(who, request_id, owner, key),
            Request::Bound { track } => self.on_bound(who, &track),
            Request::WantBackup { track } => match self.sessions.publisher_of(&track) {
                Some(publisher) => self.tell(&publisher, Notice::BackupWanted { track }),
                None => self.say(RoomWord::BackupWanted { track }),
            },
            Request::Leave { reason } => self.on_leave(who, reason),
            Request::Quality { quality } => self.on_quality(who, quality),
            Request::SimulateSpeaker { seconds } => {
                if self.replica.person(who).is_some_and(|person| !person.permission.hidden) {
                    self.speakers.simulate(now, who.clone(), seconds);
                    self.tell_speakers();
                }
            }
        }
    }

    pub(super) fn on_leave(&mut self, who: &ParticipantSid, reason: LeaveReason) {
        if let Some(session) = self.sessions.remove(who) {
            self.recount = true;
            self.write_removal(&session.record, reason);
        }
    }

    /// A new version of one of our people: to the store at once, to the others when it comes home.
    pub(super) fn change(
        &mut self,
        who: &ParticipantSid,
        announce: Announce,
        change: impl FnOnce(&mut Participant),
    ) -> Option<Arc<Participant>> {
        let record = self.sessions.change(who, change)?;
        let own = Arc::new(record.participant.clone());
        self.outputs.push_back(Output::Write(RecordChange::Put(record)));
        self.tell(who, Notice::OwnChanged { own: own.clone(), announce });
        Some(own)
    }

    /// To those meant who are here, save the sender; hidden people hear what everybody hears.
    pub(super) fn deliver(
        &mut self,
        from: Option<&ParticipantSid>,
        channel: Channel,
        to: &Destination,
        payload: &Bytes,
    ) {
        // Nobody hears from somebody before hearing of them.
        self.tell_people();
        if *to == Destination::Everybody {
            self.tell_watcher(|| Notice::Data { channel, payload: payload.clone() });
        }
        self.tell_everybody(|session| {
            let person = &session.record.participant;
            let meant = match to {
                Destination::Everybody => true,
                Destination::Identities(identities) => identities.contains(&person.identity),
                Destination::Sids(sids) => sids.contains(&person.sid),
            };
            let here = matches!(person.state, ParticipantState::Joined | ParticipantState::Active);
            let receives = meant && here && from != Some(&person.sid);
            receives.then(|| Notice::Data { channel, payload: payload.clone() })
        });
    }

    pub(super) fn deliver_frame(&mut self, track: &DataTrackSid, packet: &Bytes) {
        self.tell_everybody(|session| {
            let takes = session.takes.contains(track);
            takes.then(|| Notice::DataFrame { track: track.clone(), packet: packet.clone() })
        });
    }

    fn on_get_blob(&mut self, who: &ParticipantSid, request_id: u32, owner: Identity, key: Bytes) {
        if let Some(session) = self.sessions.of(&owner) {
            let answer = session.blobs.get(&key);
            self.answer_blob(who, request_id, answer);
        } else if self.replica.record(&owner).is_some() {
            self.say(RoomWord::GetBlob { asker: who.clone(), request_id, owner, key });
        } else {
            self.answer_blob(who, request_id, BlobAnswer::NotFound);
        }
    }

    /// The session has refused, with an answer, what is too large or not allowed; this is the second lock.
    fn on_update_metadata(
        &mut self,
        who: &ParticipantSid,
        name: Option<String>,
        metadata: Option<String>,
        attributes: BTreeMap<String, String>,
    ) {
        let Some(session) = self.sessions.get(who) else { return };
        let person = &session.record.participant;
        let allowed = person.permission.can_update_metadata;
        if allowed && self.fits(person, name.as_deref(), metadata.as_deref(), &attributes) {
            // The client waits for its own update.
            self.change(who, Announce::Yes, |person| describe(person, name, metadata, attributes));
        }
    }

    fn on_bound(&mut self, who: &ParticipantSid, track: &TrackSid) {
        let hidden = self.sessions.get(who).is_none_or(|session| session.record.participant.permission.hidden);
        if hidden {
            return;
        }
        if self.sessions.publisher_of(track).is_none() {
            self.say(RoomWord::Bound { track: track.clone() });
        } else if let Some(publisher) = self.sessions.first_audience(track) {
            self.tell(&publisher, Notice::TrackSubscribed { track: track.clone() });
        }
    }

    pub(super) fn fits(
        &self,
        person: &Participant,
        name: Option<&str>,
        metadata: Option<&str>,
        attributes: &BTreeMap<String, String>,
    ) -> bool {
        let attributes_fit = || {
            let sizes =
                merged(person, attributes).into_iter().map(|(key, value)| key.len().saturating_add(value.len()));
            sizes.fold(0, usize::saturating_add) <= self.settings.attributes_bytes_max
        };
        name.is_none_or(|name| name.len() <= NAME_BYTES_MAX)
            && metadata.is_none_or(|metadata| metadata.len() <= self.settings.metadata_bytes_max)
            && (attributes.is_empty() || attributes_fit())
    }
}

/// Fields that are `None` stay; attributes are merged, an empty value deletes its key.
pub(super) fn describe(
    person: &mut Participant,
    name: Option<String>,
    metadata: Option<String>,
    attributes: BTreeMap<String, String>,
) {
    person.attributes =
        merged(person, &attributes).into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    if let Some(name) = name {
        person.name = name;
    }
    if let Some(metadata) = metadata {
        person.metadata = metadata;
    }
}

pub(super) fn keep_tracks(person: &mut Participant, keep: impl Fn(&Track) -> bool) {
    person.tracks.retain(keep);
    person.is_publisher = !person.tracks.is_empty();
}

pub(super) fn may_publish(permission: &Permission, track: &Track) -> bool {
    let sources = &permission.can_publish_sources;
    permission.can_publish && (sources.is_empty() || sources.contains(&track.source))
}

/// Changes a track under a version that clients take for newer.
pub(super) fn update_track(person: &mut Participant, mut track: Track) {
    if let Some(old) = person.tracks.iter_mut().find(|old| old.sid == track.sid) {
        if track != *old && track.version <= old.version {
            track.version = Version { ticks: old.version.ticks.saturating_add(1), ..old.version };
        }
        *old = track;
    }
}

/// The permission may have been withdrawn while the request was on its way; the session hears of that by itself.
fn publish(person: &mut Participant, tracks: Vec<Track>) {
    for track in tracks {
        if !may_publish(&person.permission, &track) {
            continue;
        }
        if person.tracks.iter().any(|old| old.sid == track.sid) {
            update_track(person, track);
        } else if person.tracks.len() < TRACKS_MAX {
            person.tracks.push(track);
        }
    }
    person.is_publisher = !person.tracks.is_empty();
}

fn merged<'a>(person: &'a Participant, attributes: &'a BTreeMap<String, String>) -> BTreeMap<&'a str, &'a str> {
    let all = person.attributes.iter().chain(attributes);
    let mut merged: BTreeMap<_, _> = all.map(|(key, value)| (key.as_str(), value.as_str())).collect();
    merged.retain(|_, value| !value.is_empty());
    merged
}

/// Tracks in one record, far above what sessions let through; more are not published.
const TRACKS_MAX: usize = 256;
