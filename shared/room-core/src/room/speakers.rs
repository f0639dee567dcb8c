//! Who speaks how loudly, and what of it everybody was told.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use plenary_model::{Participant, ParticipantSid, SpeakerLevel, TrackSid};

#[derive(Debug, Default)]
pub(super) struct Speakers {
    /// The loudest track of everybody who speaks.
    measured: BTreeMap<ParticipantSid, (TrackSid, SpeakerLevel)>,
    simulated: BTreeMap<ParticipantSid, Instant>,
    told: BTreeMap<ParticipantSid, SpeakerLevel>,
}

impl Speakers {
    /// One window; who is not in it is silent.
    pub(super) fn measured(&mut self, levels: Vec<(ParticipantSid, TrackSid, SpeakerLevel)>) {
        self.measured.clear();
        for (who, track, level) in levels.into_iter().filter(|(_, _, level)| level.active) {
            match self.measured.get(&who) {
                Some((_, louder)) if louder.level >= level.level => {}
                _ => drop(self.measured.insert(who, (track, level))),
            }
        }
    }

    pub(super) fn simulate(&mut self, now: Instant, who: ParticipantSid, seconds: u32) {
        let length = Duration::from_secs(seconds.min(SIMULATED_SECONDS_MAX).into());
        match now.checked_add(length) {
            Some(until) if seconds > 0 => drop(self.simulated.insert(who, until)),
            _ => drop(self.simulated.remove(&who)),
        }
    }

    pub(super) fn end_simulations(&mut self, now: Instant) {
        self.simulated.retain(|_, until| *until > now);
    }

    pub(super) fn simulated_until(&self) -> Option<Instant> {
        self.simulated.values().min().copied()
    }

    /// A track that is gone or muted speaks no more; the next window says who else does.
    pub(super) fn keep_only(&mut self, person: &Participant) {
        if let Some((track, _)) = self.measured.get(&person.sid)
            && !person.tracks.iter().any(|theirs| theirs.sid == *track && !theirs.muted)
        {
            self.measured.remove(&person.sid);
        }
    }

    /// Nobody of this sid is there any more. True if everybody thinks that they speak.
    pub(super) fn forget(&mut self, who: &ParticipantSid) -> bool {
        self.measured.remove(who);
        self.simulated.remove(who);
        self.told.remove(who).is_some()
    }

    /// What changed since it was told, loudest first; it counts as told now.
    pub(super) fn news(&mut self) -> Vec<(ParticipantSid, SpeakerLevel)> {
        let mut speaking: BTreeMap<_, _> =
            self.measured.iter().map(|(who, (_, level))| (who.clone(), *level)).collect();
        speaking.extend(self.simulated.keys().map(|who| (who.clone(), SIMULATED)));
        let silent = SpeakerLevel { level: 0.0, active: false };
        let stopped = self.told.keys().filter(|who| !speaking.contains_key(*who)).map(|who| (who.clone(), silent));
        let changed = speaking.iter().filter(|(who, level)| self.told.get(*who) != Some(*level));
        let news = changed.map(|(who, level)| (who.clone(), *level)).chain(stopped).collect();
        self.told = speaking;
        loudest_first(news)
    }

    /// What everybody was told last.
    pub(super) fn current(&self) -> Vec<(ParticipantSid, SpeakerLevel)> {
        loudest_first(self.told.iter().map(|(who, level)| (who.clone(), *level)).collect())
    }
}

fn loudest_first(mut speakers: Vec<(ParticipantSid, SpeakerLevel)>) -> Vec<(ParticipantSid, SpeakerLevel)> {
    speakers.sort_by(|(_, one), (_, other)| other.level.total_cmp(&one.level));
    speakers
}

const SIMULATED: SpeakerLevel = SpeakerLevel { level: 0.9, active: true };

/// Longest pretence a client may ask for; more becomes this.
const SIMULATED_SECONDS_MAX: u32 = 60;
