//! Tells the client which layers of its videos somebody wants in which codec, so that it encodes and sends no others
//! (dynacast), and publishes a backup when it is needed.
//!
//! More is asked for at once; less after a while, since whoever scrolls past a tile is often back soon.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use plenary_model::{Codec, MediaKind, Quality, Track, TrackCodec, TrackSid};

use super::Session;
use crate::signal::{ServerSignal, WantedCodec};

/// By the media engine's names: a track and its backup are two.
#[derive(Debug, Default)]
pub(super) struct Demands(BTreeMap<TrackSid, Demand>);

#[derive(Debug)]
struct Demand {
    /// In short.
    codec: String,
    /// Of each spatial layer, low to high.
    qualities: Vec<Quality>,
    wanted: Option<Quality>,
    /// What the client goes by.
    told: Told,
    /// Before this nothing is taken away: subscribers are still on their way.
    settled_at: Instant,
    falls_at: Option<Instant>,
    /// For a backup that is not published yet: how often and when it will be asked for again. SDKs do not hear what is said
    /// of a track before they are done publishing it.
    repeats: u8,
    repeat_at: Option<Instant>,
}

/// Ordered by how much the client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    UpTo(Option<Quality>),
    /// Without a word from us it sends everything.
    Nothing,
}

impl Demands {
    /// The media engine has a video of the client's now, of which nobody has had the time to want anything.
    pub(super) fn published(&mut self, now: Instant, engine: &TrackSid, track: &Track) {
        if track.kind != MediaKind::Video {
            return;
        }
        let (_, is_backup) = engine.split_backup();
        let Some(codec) = track.codecs.get(usize::from(is_backup)) else { return };
        let settled_at = now + FIRST_FALL_AFTER;
        let told = self.0.get(engine).map_or(Told::Nothing, |asked| asked.told);
        let demand = Demand { told, settled_at, falls_at: Some(settled_at), ..Demand::of(now, codec) };
        self.0.insert(engine.clone(), demand);
    }

    pub(super) fn unpublished(&mut self, track: &TrackSid) {
        self.0.remove(track);
        self.backup_unpublished(track);
    }

    pub(super) fn backup_unpublished(&mut self, track: &TrackSid) {
        self.0.remove(&track.backup());
    }

    /// A backup that is not published is needed; false if that was said.
    pub(super) fn backup_wanted(&mut self, now: Instant, track: &TrackSid, backup: &TrackCodec) -> bool {
        let engine = track.backup();
        if self.0.get(&engine).is_some_and(|asked| asked.repeat_at.is_some()) {
            return false;
        }
        let everything = Some(Quality::High);
        let demand = Demand {
            wanted: everything,
            told: Told::UpTo(everything),
            repeats: REPEATS,
            repeat_at: Some(now + REPEAT_AFTER),
            ..Demand::of(now, backup)
        };
        self.0.insert(engine, demand);
        true
    }

    pub(super) fn falls_at(&self) -> Option<Instant> {
        self.0.values().filter_map(|demand| demand.falls_at.into_iter().chain(demand.repeat_at).min()).min()
    }

    /// What the client goes by, if it has to be said, of a track in all its codecs.
    fn signal(&self, track: &TrackSid) -> Option<ServerSignal> {
        let codecs: Vec<_> = [self.0.get(track)?].into_iter().chain(self.0.get(&track.backup())).collect();
        let is_news = codecs.iter().any(|demand| demand.told != Told::Nothing);
        let codecs = codecs.into_iter().map(Demand::told).collect();
        is_news.then(|| ServerSignal::SubscribedQuality { track: track.clone(), codecs })
    }
}

impl Demand {
    fn of(now: Instant, codec: &TrackCodec) -> Self {
        let name = || codec.mime.rsplit('/').next().unwrap_or_default().to_ascii_lowercase();
        Self {
            codec: Codec::named(&codec.mime).map_or_else(name, |codec| codec.name().to_owned()),
            qualities: codec.layers.iter().map(|layer| layer.quality).collect(),
            wanted: None,
            told: Told::Nothing,
            settled_at: now,
            falls_at: None,
            repeats: 0,
            repeat_at: None,
        }
    }

    /// The quality of a spatial layer, from the lowest. What has a single one is wanted whole.
    fn quality_of(&self, layer: u8) -> Quality {
        match self.qualities.as_slice() {
            [_, _, ..] => self.qualities.get(usize::from(layer)).copied().filter(|quality| *quality != Quality::Off),
            _ => None,
        }
        .unwrap_or(Quality::High)
    }

    fn told(&self) -> WantedCodec {
        let up_to = match self.told {
            Told::UpTo(up_to) => up_to,
            Told::Nothing => Some(Quality::High),
        };
        WantedCodec { codec: self.codec.clone(), up_to }
    }
}

impl Session {
    pub(super) fn on_demand(&mut self, now: Instant, engine: &TrackSid, top: Option<u8>) {
        let Some(demand) = self.demands.0.get_mut(engine) else { return };
        demand.wanted = top.map(|layer| demand.quality_of(layer));
        let everything = demand.told == Told::Nothing && demand.wanted == Some(Quality::High);
        if everything || demand.told == Told::UpTo(demand.wanted) {
            demand.falls_at = None;
        } else if demand.told < Told::UpTo(demand.wanted) {
            demand.falls_at = None;
            demand.told = Told::UpTo(demand.wanted);
            self.tell_demand(&engine.split_backup().0);
        } else {
            demand.falls_at.get_or_insert((now + FALL_AFTER).max(demand.settled_at));
        }
    }

    /// What is wanted no more falls, and what was asked for in vain is asked for again.
    pub(super) fn demands_fall(&mut self, now: Instant) {
        let mut tracks = BTreeSet::new();
        for (engine, demand) in &mut self.demands.0 {
            if demand.falls_at.take_if(|at| *at <= now).is_some() {
                demand.told = Told::UpTo(demand.wanted);
                tracks.insert(engine.split_backup().0);
            }
            if demand.repeat_at.take_if(|at| *at <= now).is_some() {
                demand.repeats = demand.repeats.saturating_sub(1);
                demand.repeat_at = (demand.repeats > 0).then(|| now + REPEAT_AFTER);
                tracks.insert(engine.split_backup().0);
            }
        }
        tracks.iter().for_each(|track| self.tell_demand(track));
    }

    /// To a client that is back and may have missed something.
    pub(super) fn tell_demands(&mut self) {
        let tracks: BTreeSet<_> = self.demands.0.keys().map(|engine| engine.split_backup().0).collect();
        tracks.iter().for_each(|track| self.tell_demand(track));
    }

    pub(super) fn tell_demand(&mut self, track: &TrackSid) {
        if let Some(signal) = self.demands.signal(track) {
            self.send(signal);
        }
    }
}

/// livekit-protocol 5.4.
const FALL_AFTER: Duration = Duration::from_secs(5);
const FIRST_FALL_AFTER: Duration = Duration::from_secs(10);

/// A client that has not published its backup after these will not.
const REPEATS: u8 = 5;
const REPEAT_AFTER: Duration = Duration::from_secs(3);
