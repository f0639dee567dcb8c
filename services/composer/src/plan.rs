//! The edit list: pieces of picture, each with who stands where, and windows of sound. Every frame of the meeting is in one
//! piece, every sample in one window.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use plenary_model::{ParticipantSid, Source, TrackSid};
use plenary_recording::session_file::{Session, TrackFile};

use crate::{
    layout::{Canvas, GRID_TILES_MAX, Layout, Rect, STRIP_TILES_MAX, grid, with_strip},
    timeline::{Change, SECOND_US, Spans, Take, Timeline, TimelineError, timeline},
};

/// A longer piece is cut, so that little is rendered again after a stop.
pub const PIECE_US_MAX: u64 = 300 * SECOND_US;
/// Of more changes, some are shown later than they were, and those undone meanwhile not at all: somebody who switches a camera
/// on and off all day must not keep the composer from everybody else's recordings.
pub const SCENES_MAX: usize = 10_000;
/// How much sound is mixed at once.
///
/// Silence before and between sounds is held in memory, so a window is short.
pub const WINDOW_US: u64 = 60 * SECOND_US;
/// Files of one window that are mixed at once; more are added to their sum, as many at a time.
pub const SOUNDS_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub length_us: u64,
    /// In order, each beginning where the one before ends.
    pub pieces: Vec<Piece>,
    /// Likewise.
    pub windows: Vec<Window>,
    /// Files that the session names and that are not there, or cannot be read. Their tiles show the name.
    pub missing: Vec<TrackFile>,
}

/// A stretch in which the same people are seen at the same places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// By number, at the rate of the plan.
    pub frames: Range<u64>,
    pub tiles: Vec<Tile>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    pub rect: Rect,
    pub participant: ParticipantSid,
    /// One line, perhaps empty.
    pub name: String,
    /// Without one it shows the name alone: no camera, muted, or a gap.
    pub picture: Option<Picture>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    pub file: TrackFile,
    /// Where in the file the piece begins; negative if before its zero.
    pub seek_us: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    pub from_us: u64,
    pub length_us: u64,
    pub sounds: Vec<Sound>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    pub file: TrackFile,
    /// In the window.
    pub at_us: u64,
    /// In the file.
    pub seek_us: i64,
    pub length_us: u64,
}

/// Merges what was written of a meeting and what was found of it into the plan for one video.
pub fn plan(session: &Session, spans: &Spans, layout: Layout, canvas: Canvas, fps: u32) -> Result<Plan, TimelineError> {
    let timeline = timeline(session, spans)?;
    Ok(Plan {
        length_us: timeline.length_us,
        pieces: pieces(&timeline, layout, canvas, fps),
        windows: windows(&timeline),
        missing: timeline.missing,
    })
}

fn pieces(timeline: &Timeline, layout: Layout, canvas: Canvas, fps: u32) -> Vec<Piece> {
    // The first frame at or behind a moment.
    let frame = |at_us: u64| (at_us * u64::from(fps)).div_ceil(SECOND_US);
    let time = |frame: u64| frame * SECOND_US / u64::from(fps);
    let end = frame(timeline.length_us).max(1);
    let mut stage = Stage::default();
    // Each holds until the next begins.
    let mut scenes: Vec<(u64, Vec<Actor<'_>>)> = Vec::new();
    let simultaneous = |a: &(u64, Change), b: &(u64, Change)| frame(a.0) == frame(b.0);
    for changes in timeline.changes.chunk_by(simultaneous) {
        for (_, change) in changes {
            stage.apply(change);
        }
        let from = changes.first().map_or(0, |(at_us, _)| frame(*at_us));
        let scene = stage.scene(&timeline.takes, layout);
        if from < end && scenes.last().is_none_or(|(_, last)| *last != scene) {
            scenes.push((from, scene));
        }
    }
    let scenes = thinned(scenes, end);
    let ends: Vec<_> = scenes.iter().skip(1).map(|(from, _)| *from).chain([end]).collect();
    let longest = frame(PIECE_US_MAX);
    let mut pieces = Vec::new();
    for ((from, scene), until) in scenes.iter().zip(ends) {
        let mut from = *from;
        while from < until {
            let frames = from..until.min(from + longest);
            pieces.push(Piece { tiles: tiles(scene, time(from), time(1), layout, canvas), frames: frames.clone() });
            from = frames.end;
        }
    }
    pieces
}

/// At most [`SCENES_MAX`], by having them begin at every second, fourth, eighth … frame only.
fn thinned<T>(mut scenes: Vec<(u64, T)>, end: u64) -> Vec<(u64, T)> {
    let mut apart = 1;
    while scenes.len() > SCENES_MAX {
        apart *= 2;
        let mut kept: Vec<(u64, T)> = Vec::new();
        for (from, scene) in scenes {
            let from = u64::next_multiple_of(from, apart);
            // Of those that would begin together, the last is what holds from then on.
            kept.pop_if(|(last, _)| *last == from);
            if from < end {
                kept.push((from, scene));
            }
        }
        scenes = kept;
    }
    scenes
}

/// Who and what could be seen at a moment.
#[derive(Debug, Default)]
struct Stage {
    /// By arrival.
    people: Vec<(ParticipantSid, String)>,
    muted: BTreeSet<TrackSid>,
    speaker: Option<ParticipantSid>,
    takes: BTreeSet<usize>,
    /// Of everybody who ever was there.
    names: BTreeMap<ParticipantSid, String>,
    /// Whose media may be a little longer than their stay.
    gone: BTreeSet<ParticipantSid>,
}

/// A tile that has no place yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Actor<'a> {
    participant: ParticipantSid,
    name: String,
    is_screen: bool,
    is_speaker: bool,
    take: Option<&'a Take>,
}

impl Stage {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Forget => {
                self.people.clear();
                self.muted.clear();
                self.gone.clear();
                self.speaker = None;
            }
            Change::Present { participant, name } => {
                self.names.insert(participant.clone(), name.clone());
                self.gone.remove(participant);
                match self.people.iter_mut().find(|(one, _)| one == participant) {
                    Some((_, known)) => known.clone_from(name),
                    None => self.people.push((participant.clone(), name.clone())),
                }
            }
            Change::Left(participant) => {
                self.people.retain(|(one, _)| one != participant);
                self.gone.insert(participant.clone());
            }
            Change::Mute { track, muted: true } => drop(self.muted.insert(track.clone())),
            Change::Mute { track, muted: false } => drop(self.muted.remove(track)),
            Change::Speaker(participant) => self.speaker = Some(participant.clone()),
            Change::TakeBegins(index) => drop(self.takes.insert(*index)),
            Change::TakeEnds(index) => drop(self.takes.remove(index)),
        }
    }

    /// Who is seen, in the order of their places.
    fn scene<'a>(&self, takes: &'a [Take], layout: Layout) -> Vec<Actor<'a>> {
        let live = self.takes.iter().filter_map(|index| takes.get(*index));
        let is_seen = |take: &&Take| {
            !take.is_sound && !self.muted.contains(take.file.track()) && !self.gone.contains(&take.participant)
        };
        let live = live.filter(is_seen);
        let (screens, cameras): (Vec<_>, Vec<_>) = live.partition(|take| take.source == Source::ScreenShare);
        let actor = |participant: &ParticipantSid, take: Option<&'a Take>, is_screen| Actor {
            participant: participant.clone(),
            name: self.names.get(participant).cloned().unwrap_or_default(),
            is_screen,
            is_speaker: !is_screen && self.speaker.as_ref() == Some(participant),
            take,
        };
        let mut actors: Vec<_> = screens.iter().map(|take| actor(&take.participant, Some(take), true)).collect();
        for (participant, _) in &self.people {
            let own: Vec<_> = cameras.iter().filter(|take| take.participant == *participant).collect();
            actors.extend(own.iter().map(|take| actor(participant, Some(take), false)));
            if own.is_empty() {
                actors.push(actor(participant, None, false));
            }
        }
        // A session file may have lost the line that tells of them.
        let is_stranger = |take: &&&Take| self.people.iter().all(|(one, _)| *one != take.participant);
        actors.extend(cameras.iter().filter(is_stranger).map(|take| actor(&take.participant, Some(take), false)));

        if has_main(&actors, layout) {
            // The screen shared last, else who speaks, else the first with a picture.
            let newest = |actor: &Actor<'_>| actor.take.map_or(0, |take| take.from_us);
            let rank = |actor: &Actor<'_>| (actor.is_screen, actor.is_speaker, actor.take.is_some());
            let main = (0..actors.len()).rev().max_by_key(|index| {
                let actor = &actors[*index];
                (rank(actor), if actor.is_screen { newest(actor) } else { 0 })
            });
            if let Some(main) = main {
                actors[..=main].rotate_right(1);
            }
            let strip = if layout == Layout::SingleSpeaker { 0 } else { STRIP_TILES_MAX };
            choose(&mut actors, 1, 1 + strip);
        } else {
            choose(&mut actors, 0, GRID_TILES_MAX);
        }
        // Who speaks matters to the choice alone, and must not cut where nothing else changes.
        actors.iter_mut().for_each(|actor| actor.is_speaker = false);
        actors
    }
}

fn has_main(actors: &[Actor<'_>], layout: Layout) -> bool {
    match layout {
        Layout::Grid => false,
        Layout::Speaker | Layout::SingleSpeaker => true,
        Layout::ScreenShareFirst => actors.iter().any(|actor| actor.is_screen),
    }
}

/// Where there are more than places: screens, who speaks and who has a picture stay, in their order.
fn choose(actors: &mut Vec<Actor<'_>>, fixed: usize, most: usize) {
    if actors.len() <= most {
        return;
    }
    let mut ranked: Vec<usize> = (fixed..actors.len()).collect();
    ranked.sort_by_key(|index| {
        let actor = &actors[*index];
        std::cmp::Reverse((actor.is_screen, actor.is_speaker, actor.take.is_some()))
    });
    let kept: BTreeSet<usize> = (0..fixed).chain(ranked.into_iter().take(most - fixed)).collect();
    let mut index = 0;
    actors.retain(|_| {
        index += 1;
        kept.contains(&(index - 1))
    });
}

/// A picture begins two frames before the file's end at the latest: ffmpeg shows no frame whose end is where it begins.
fn tiles(scene: &[Actor<'_>], at_us: u64, frame_us: u64, layout: Layout, canvas: Canvas) -> Vec<Tile> {
    let rects = if has_main(scene, layout) { with_strip(canvas, scene.len()) } else { grid(canvas, scene.len()) };
    let tile = |(actor, rect): (&Actor<'_>, Rect)| Tile {
        rect,
        participant: actor.participant.clone(),
        name: actor.name.clone(),
        picture: actor.take.map(|take| Picture { file: take.file.clone(), seek_us: take.seek_us(at_us, 2 * frame_us) }),
    };
    scene.iter().zip(rects).map(tile).collect()
}

fn windows(timeline: &Timeline) -> Vec<Window> {
    let starts = (0..timeline.length_us).step_by(WINDOW_US as usize);
    let window = |from_us: u64| {
        let until_us = timeline.length_us.min(from_us + WINDOW_US);
        let sound = |take: &Take| {
            let (begin_us, end_us) = (take.from_us.max(from_us), take.until_us.min(until_us));
            (take.is_sound && begin_us < end_us).then(|| Sound {
                file: take.file.clone(),
                at_us: begin_us - from_us,
                seek_us: take.seek_us(begin_us, 0),
                length_us: end_us - begin_us,
            })
        };
        let sounds = timeline.takes.iter().filter_map(sound).collect();
        Window { from_us, length_us: until_us - from_us, sounds }
    };
    starts.map(window).collect()
}
