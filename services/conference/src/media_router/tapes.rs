//! Which recordings take which of a router's tracks. What a recording cannot take it notes as missed: nothing here waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use actix::{WeakRecipient, prelude::*};
use plenary_media_core::{Command, Input, RouterId, Tapped};
use plenary_model::{EgressId, TrackSid};

use super::{MediaRouter, RouterLevels, pump::Core};
use crate::recording::WriterHandle;

/// Record a track. From its recorder; when the box is full it asks again. Asked again, it tells who hears the track now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Record {
    pub recording: EgressId,
    pub epoch: u64,
    /// Gets what there is of the track, until that ends.
    pub writer: WriterHandle,
    pub track: TrackSid,
    /// The router where it is published; none is this one.
    pub from: Option<RouterId>,
    /// The room hears how loud the track is, though nobody of it may be here.
    pub levels: WeakRecipient<RouterLevels>,
}

/// Undoes [`Record`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopRecord {
    pub recording: EgressId,
    pub epoch: u64,
    pub track: TrackSid,
}

#[derive(Debug, Default)]
pub(super) struct Tapes {
    /// By recording and epoch: a node that takes up again what it gave back has two for a while.
    tapes: BTreeMap<(EgressId, u64), Tape>,
}

#[derive(Debug)]
struct Tape {
    writer: WriterHandle,
    tracks: BTreeSet<TrackSid>,
    /// What came of them in this turn.
    batch: Vec<Tapped>,
}

impl Tapes {
    fn begin(&mut self, recording: (EgressId, u64), writer: WriterHandle, track: TrackSid) {
        let tape = || Tape { writer, tracks: BTreeSet::new(), batch: Vec::new() };
        self.tapes.entry(recording).or_insert_with(tape).tracks.insert(track);
    }

    /// True if nobody records the track here any more.
    fn end(&mut self, recording: &(EgressId, u64), track: &TrackSid) -> bool {
        let Some(tape) = self.tapes.get_mut(recording) else { return false };
        let was_recorded = tape.tracks.remove(track);
        if tape.tracks.is_empty() {
            self.tapes.remove(recording);
        }
        was_recorded && !self.is_recorded(track)
    }

    fn is_recorded(&self, track: &TrackSid) -> bool {
        self.tapes.values().any(|tape| tape.tracks.contains(track))
    }

    /// Once per turn.
    pub fn hand_over<C: Core>(&mut self, now: Instant, core: &mut C) {
        if self.tapes.is_empty() {
            return;
        }
        while let Some(tapped) = core.poll_tapped() {
            for tape in self.tapes.values_mut().filter(|tape| tape.tracks.contains(&tapped.track)) {
                tape.batch.push(tapped.clone());
            }
        }
        for tape in self.tapes.values_mut().filter(|tape| !tape.batch.is_empty()) {
            // A recording that has ended is taken from here by its recorder.
            let _ = tape.writer.try_send(now, std::mem::take(&mut tape.batch));
        }
    }
}

impl<C: Core> Handler<Record> for MediaRouter<C> {
    type Result = ();

    fn handle(&mut self, record: Record, _ctx: &mut Context<Self>) {
        let Record { recording, epoch, writer, track, from, levels } = record;
        if !self.tapes.is_recorded(&track) {
            self.command(Command::Tap { track: track.clone(), from });
        }
        self.routes.record(track.clone(), levels);
        self.tapes.begin((recording, epoch), writer, track);
    }
}

impl<C: Core> Handler<StopRecord> for MediaRouter<C> {
    type Result = ();

    fn handle(&mut self, StopRecord { recording, epoch, track }: StopRecord, _ctx: &mut Context<Self>) {
        if self.tapes.end(&(recording, epoch), &track) {
            self.routes.stop_record(&track);
            // What was tapped since the last turn is still that recording's.
            let now = tokio::time::Instant::now().into_std();
            self.core.handle(now, Input::Command(Command::Untap { track }));
        }
    }
}
