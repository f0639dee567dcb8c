//! What the room API asks of people whose sessions are here.

use std::sync::Arc;

use plenary_model::{Admin, AdminRefusal, Identity, LeaveReason, Participant, ParticipantUpdate, TrackSid};

use super::{
    AdminAsk, Output, Room,
    census::{Census, is_counted},
    requests::{describe, keep_tracks, may_publish, update_track},
    sessions::Session,
};
use crate::notice::{Announce, Notice};

type Outcome = Result<Option<Arc<Participant>>, AdminRefusal>;

impl Room {
    pub(super) fn on_admin(&mut self, ask: AdminAsk) {
        let outcome = if self.replica.info().is_none() {
            Err(AdminRefusal::NoSuchRoom)
        } else {
            match ask.what {
                Admin::Remove { identity } => self.remove(&identity),
                Admin::Mute { identity, track, muted } => self.mute(&identity, track, muted),
                Admin::Update { identity, update } => self.update(&identity, update),
                Admin::Subscribe { identity, tracks, subscribe } => self.subscribe(&identity, tracks, subscribe),
                Admin::Send { channel, to, payload } => {
                    self.deliver(None, channel, &to, &payload);
                    Ok(None)
                }
            }
        };
        self.outputs.push_back(Output::AdminDone { number: ask.number, outcome });
    }

    fn remove(&mut self, identity: &Identity) -> Outcome {
        let reason = LeaveReason::ParticipantRemoved;
        if let Some(session) = self.sessions.of(identity) {
            let record = session.record.clone();
            self.write_removal(&record, reason);
            self.end(&record.participant.sid, reason);
            return Ok(None);
        }
        // Ours by the record, without a session: a removal that the store never got.
        let orphan = self.replica.record(identity).filter(|record| record.node == self.node).cloned();
        let orphan = orphan.ok_or(AdminRefusal::NoSuchParticipant)?;
        self.write_removal(&orphan, reason);
        Ok(None)
    }

    fn mute(&mut self, identity: &Identity, sid: TrackSid, muted: bool) -> Outcome {
        let person = &self.here(identity)?.record.participant;
        let mut track =
            person.tracks.iter().find(|track| track.sid == sid).cloned().ok_or(AdminRefusal::NoSuchTrack)?;
        if !muted && !self.settings.remote_unmute {
            return Err(AdminRefusal::RemoteUnmuteDisabled);
        }
        let (who, unchanged) = (person.sid.clone(), person.clone());
        if track.muted == muted {
            return Ok(Some(Arc::new(unchanged)));
        }
        track.muted = muted;
        self.tell(&who, Notice::MuteTrack { track: sid, muted });
        Ok(self.change(&who, Announce::Yes, |person| update_track(person, track)))
    }

    fn update(&mut self, identity: &Identity, update: ParticipantUpdate) -> Outcome {
        let ParticipantUpdate { name, metadata, attributes, permission } = update;
        let person = &self.here(identity)?.record.participant;
        if !self.fits(person, name.as_deref(), metadata.as_deref(), &attributes) {
            return Err(AdminRefusal::TooLarge);
        }
        let (who, mut changed) = (person.sid.clone(), person.clone());
        describe(&mut changed, name, metadata, attributes);
        if let Some(permission) = permission {
            keep_tracks(&mut changed, |track| may_publish(&permission, track));
            changed.permission = permission;
        }
        if is_counted(&changed) && !is_counted(person) && self.is_full() {
            return Err(AdminRefusal::TooLarge);
        }
        let unchanged = Arc::new(changed.clone());
        Ok(Some(self.change(&who, Announce::Yes, |person| *person = changed).unwrap_or(unchanged)))
    }

    fn subscribe(&mut self, identity: &Identity, tracks: Vec<TrackSid>, subscribe: bool) -> Outcome {
        let who = self.here(identity)?.record.participant.sid.clone();
        self.tell(&who, Notice::SetSubscription { tracks, subscribe });
        Ok(None)
    }

    fn here(&self, identity: &Identity) -> Result<&Session, AdminRefusal> {
        self.sessions.of(identity).ok_or(AdminRefusal::NoSuchParticipant)
    }

    /// As far as this node knows; the store has the last word.
    fn is_full(&self) -> bool {
        let census: Census = self.census();
        self.replica.info().is_some_and(|info| {
            let cap = info.max_participants;
            cap > 0 && census.fill(info.clone()).participants >= cap
        })
    }
}
