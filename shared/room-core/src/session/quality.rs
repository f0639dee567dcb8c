//! How well this session's and other people's media gets through, and what of it the client was told.

use std::collections::HashMap;

use plenary_model::{ConnectionQuality, ParticipantSid, QualityScore, Target};

#[derive(Debug, Default)]
pub(super) struct Qualities {
    /// Of our own transports.
    publisher: Option<f32>,
    subscriber: Option<f32>,
    /// Of everybody who is not well.
    known: HashMap<ParticipantSid, QualityScore>,
    told: HashMap<ParticipantSid, QualityScore>,
}

impl Qualities {
    /// One of the session's transports was measured: the worse of the two counts.
    pub(super) fn measured(&mut self, target: Target, score: f32) -> QualityScore {
        match target {
            Target::Publisher => self.publisher = Some(score),
            Target::Subscriber => self.subscriber = Some(score),
        }
        let worse = self.publisher.into_iter().chain(self.subscriber).fold(BEST.score, f32::min);
        QualityScore { quality: class(worse), score: worse }
    }

    pub(super) fn changed(&mut self, changed: Vec<(ParticipantSid, QualityScore)>) {
        self.known.extend(changed);
    }

    pub(super) fn gone(&mut self, who: &ParticipantSid) {
        self.known.remove(who);
        self.told.remove(who);
    }

    /// What is new about these people; it counts as told now. Nobody hears of themselves that they are lost: some
    /// clients start over then, when the transport may still come back.
    pub(super) fn news(
        &mut self,
        own: &ParticipantSid,
        people: Vec<ParticipantSid>,
    ) -> Vec<(ParticipantSid, QualityScore)> {
        let mut news: Vec<_> = people
            .into_iter()
            .map(|who| {
                let known = self.known.get(&who).copied().unwrap_or(BEST);
                let lost = who == *own && known.quality == ConnectionQuality::Lost;
                let shown = if lost { QualityScore { quality: ConnectionQuality::Poor, score: WORST } } else { known };
                (who, shown)
            })
            .filter(|(who, shown)| self.told.get(who).is_none_or(|told| told.quality != shown.quality))
            .collect();
        news.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        news.dedup_by(|(one, _), (other, _)| one == other);
        self.told.extend(news.iter().cloned());
        news
    }
}

/// The borders of G.107 Annex B: at a rating of 80 users are satisfied, from 60 down many are not.
fn class(score: f32) -> ConnectionQuality {
    match score {
        ..=0.0 => ConnectionQuality::Lost,
        ..3.1 => ConnectionQuality::Poor,
        ..4.0 => ConnectionQuality::Good,
        _ => ConnectionQuality::Excellent,
    }
}

/// Of whom nothing was measured.
const BEST: QualityScore = QualityScore { quality: ConnectionQuality::Excellent, score: 4.4 };
/// The lowest score that is not lost.
const WORST: f32 = 1.0;
