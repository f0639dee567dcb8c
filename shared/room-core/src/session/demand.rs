//! Tells the client which layers of its videos somebody wants, so that it encodes and sends no others (dynacast).
//!
//! More is asked for at once; less after a while, since whoever scrolls past a tile is often back soon.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use plenary_model::{MediaKind, Quality, Track, TrackSid};

use super::Session;
use crate::signal::ServerSignal;

#[derive(Debug, Default)]
pub(super) struct Demands(BTreeMap<TrackSid, Demand>);

#[derive(Debug)]
struct Demand {
    mime: String,
    /// Of each spatial layer, low to high.
    qualities: Vec<Quality>,
    wanted: Option<Quality>,
    /// What the client goes by.
    told: Told,
    /// Before this nothing is taken away: subscribers are still on their way.
    settled_at: Instant,
    falls_at: Option<Instant>,
}

/// Ordered by how much the client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    UpTo(Option<Quality>),
    /// Without a word from us it sends everything.
    Nothing,
}

impl Demands {
    pub(super) fn published(&mut self, now: Instant, track: &Track) {
        if track.kind != MediaKind::Video {
            return;
        }
        let settled_at = now + FIRST_FALL_AFTER;
        self.0.insert(
            track.sid.clone(),
            Demand {
                mime: track.mime.clone(),
                qualities: track.layers.iter().map(|layer| layer.quality).collect(),
                wanted: None,
                told: Told::Nothing,
                settled_at,
                falls_at: Some(settled_at),
            },
        );
    }

    pub(super) fn unpublished(&mut self, track: &TrackSid) {
        self.0.remove(track);
    }

    pub(super) fn falls_at(&self) -> Option<Instant> {
        self.0.values().filter_map(|demand| demand.falls_at).min()
    }
}

impl Demand {
    /// The quality of a spatial layer, from the lowest. What has a single one is wanted whole.
    fn quality_of(&self, layer: u8) -> Quality {
        match self.qualities.as_slice() {
            [_, _, ..] => self.qualities.get(usize::from(layer)).copied().filter(|quality| *quality != Quality::Off),
            _ => None,
        }
        .unwrap_or(Quality::High)
    }

    /// What the client goes by, if it has to be said.
    fn signal(&self, track: &TrackSid) -> Option<ServerSignal> {
        let Told::UpTo(up_to) = self.told else { return None };
        Some(ServerSignal::SubscribedQuality { track: track.clone(), mime: self.mime.clone(), up_to })
    }
}

impl Session {
    pub(super) fn on_demand(&mut self, now: Instant, track: &TrackSid, top: Option<u8>) {
        let Some(demand) = self.demands.0.get_mut(track) else { return };
        demand.wanted = top.map(|layer| demand.quality_of(layer));
        let everything = demand.told == Told::Nothing && demand.wanted == Some(Quality::High);
        if everything || demand.told == Told::UpTo(demand.wanted) {
            demand.falls_at = None;
        } else if demand.told < Told::UpTo(demand.wanted) {
            demand.falls_at = None;
            demand.told = Told::UpTo(demand.wanted);
            let signal = demand.signal(track);
            signal.into_iter().for_each(|signal| self.send(signal));
        } else {
            demand.falls_at.get_or_insert((now + FALL_AFTER).max(demand.settled_at));
        }
    }

    pub(super) fn demands_fall(&mut self, now: Instant) {
        let mut signals = Vec::new();
        for (track, demand) in &mut self.demands.0 {
            if demand.falls_at.take_if(|at| *at <= now).is_some() {
                demand.told = Told::UpTo(demand.wanted);
                signals.extend(demand.signal(track));
            }
        }
        signals.into_iter().for_each(|signal| self.send(signal));
    }

    /// To a client that is back and may have missed something.
    pub(super) fn tell_demands(&mut self) {
        let signals: Vec<_> = self.demands.0.iter().filter_map(|(track, demand)| demand.signal(track)).collect();
        signals.into_iter().for_each(|signal| self.send(signal));
    }
}

/// livekit-protocol 5.4.
const FALL_AFTER: Duration = Duration::from_secs(5);
const FIRST_FALL_AFTER: Duration = Duration::from_secs(10);
