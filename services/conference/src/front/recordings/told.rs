//! Recordings as the recordings page reads them. Times that end in `_us` are microseconds since 1970 by the clock of the first
//! epoch's node, but for those of gaps, which count inside the file.

use std::collections::{BTreeMap, BTreeSet};

use plenary_model::{NodeId, ParticipantSid};
use plenary_recording::session_file::{Event, GapReason, Session, TrackEnd, TrackFile};
use serde::Serialize;
use serde_json::{Value, json};

use crate::recording::shelf::{Composed, Listed, State, Video};

/// `{"recordings": […]}`, each as [`summary`] says.
pub fn list(listed: &[(Listed, Composed)]) -> Value {
    json!({ "recordings": listed.iter().map(|(listed, composed)| summary(listed, composed)).collect::<Vec<_>>() })
}

/// `state` is `recording`, `ended`, `interrupted` or `unreadable`; `reason` says why it ended or cannot be read. Room, beginning
/// and duration are null if they are not known. `elsewhere` has the nodes that have parts of it which are not here, null for one
/// whose name is not known.
fn summary(listed: &Listed, Composed { videos, is_awaited }: &Composed) -> Value {
    let Listed { id, state, session, files, elsewhere } = listed;
    let (state, reason) = match state {
        State::Recording => ("recording", Value::Null),
        State::Ended(reason) => ("ended", json!(reason)),
        State::Interrupted => ("interrupted", Value::Null),
        State::Unreadable(error) => ("unreadable", json!(error.to_string())),
    };
    let video = |Video { name, file_name, bytes }: &Video| json!({ "file": name, "name": file_name, "bytes": bytes });
    let bytes = files.iter().map(|(_, bytes)| bytes).chain(videos.iter().map(|video| &video.bytes));
    json!({
        "id": id,
        "room": session.as_ref().map(|session| &session.room_name),
        "began_us": session.as_ref().map(|session| session.began_us),
        "duration_us": session.as_ref().map(|session| us(session.duration)),
        "state": state,
        "reason": reason,
        "tracks": files.len(),
        "bytes": bytes.fold(0, |sum: u64, bytes| sum.saturating_add(*bytes)),
        "composed": videos.iter().map(video).collect::<Vec<_>>(),
        "composing": is_awaited,
        "elsewhere": elsewhere.iter().map(|node| node.as_ref().map(NodeId::as_str)).collect::<Vec<_>>(),
    })
}

/// The summary with `people`, `files` and `chat`; how many `epochs` there were, and how much is `left_out` because it is more
/// than is told.
pub fn one(listed: &Listed, session: Option<&Session>, composed: &Composed) -> Value {
    let mut told = Told::default();
    if let Some(session) = session {
        told.read(session);
    }
    let on_disk: BTreeMap<&str, u64> = listed.files.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    let named: BTreeSet<String> = told.tracks.iter().map(|track| track.file.to_string()).collect();
    let is_stray = |name: &str| {
        let name = name.strip_suffix(TrackFile::PART).unwrap_or(name);
        !named.contains(name)
    };
    let mutes = std::mem::take(&mut told.mutes);
    let tracks = told.tracks.iter().map(|track| {
        let (whole, part) = (track.file.to_string(), track.file.part());
        let (state, bytes) = match (on_disk.get(whole.as_str()), on_disk.get(part.as_str())) {
            (Some(bytes), _) => ("complete", *bytes),
            (None, Some(bytes)) => ("unfinished", *bytes),
            (None, None) => ("missing", 0),
        };
        json!({
            "file": whole, "state": state, "bytes": bytes,
            "identity": track.identity, "name": track.name,
            "source": track.source, "codec": track.codec,
            "zero_us": track.zero_us, "ended_us": track.ended_us, "end": track.end,
            "gaps": track.gaps,
            "muted": mutes.get(track.file.track().as_str()),
        })
    });
    let mut value = summary(listed, composed);
    value["files"] = tracks.collect();
    value["strays"] = on_disk.iter().filter(|(name, _)| is_stray(name)).map(|(name, _)| *name).collect();
    value["people"] = json!(told.people);
    value["chat"] = json!(told.chat);
    value["epochs"] = json!(session.map_or(0, |session| session.stretches.len()));
    value["left_out"] = json!(told.left_out);
    value
}

/// What is told of a session, in the order in which it happened.
#[derive(Default)]
struct Told {
    people: Vec<Person>,
    tracks: Vec<Track>,
    /// By track.
    mutes: BTreeMap<String, Vec<Span>>,
    chat: Vec<Chat>,
    left_out: usize,
    /// How much chat there is already.
    chat_bytes: usize,
    gaps: usize,
    spans: usize,
    /// Who is behind a sid: index into the people, and what they were called last.
    known: BTreeMap<ParticipantSid, (usize, String)>,
}

/// One identity, however often they came.
#[derive(Serialize)]
struct Person {
    identity: String,
    name: String,
    stays: Vec<Span>,
}

#[derive(Serialize)]
struct Span {
    from_us: u64,
    /// None until the end.
    until_us: Option<u64>,
}

struct Track {
    file: TrackFile,
    identity: String,
    name: String,
    source: Value,
    codec: Value,
    zero_us: u64,
    ended_us: Option<u64>,
    end: Option<TrackEnd>,
    gaps: Vec<Gap>,
}

#[derive(Serialize)]
struct Gap {
    from_us: u64,
    until_us: u64,
    reason: GapReason,
}

#[derive(Serialize)]
struct Chat {
    at_us: u64,
    identity: String,
    /// Empty for a message of the server.
    name: String,
    text: String,
}

impl Told {
    fn read(&mut self, session: &Session) {
        let mut begins = session.stretches.iter().map(|stretch| stretch.from_us).peekable();
        for line in &session.lines {
            while let Some(from_us) = begins.next_if(|from_us| *from_us <= line.at_us) {
                self.forget(from_us);
            }
            self.happened(line.at_us, &line.event);
        }
    }

    /// What was said of who is there and is muted holds no longer. Who is there still is said anew at once.
    fn forget(&mut self, at_us: u64) {
        let stays = self.people.iter_mut().map(|person| &mut person.stays);
        for spans in stays.chain(self.mutes.values_mut()) {
            end(spans, at_us);
        }
    }

    fn happened(&mut self, at_us: u64, event: &Event) {
        match event {
            Event::Participant { participant, identity, name } => self.came(at_us, participant, identity, name),
            Event::ParticipantLeft { participant } => {
                if let Some(person) = self.known.get(participant).and_then(|(index, _)| self.people.get_mut(*index)) {
                    end(&mut person.stays, at_us);
                }
            }
            Event::Track { file, participant, zero_us, .. } => {
                if self.tracks.len() >= TOLD_MAX {
                    return self.left_out += 1;
                }
                let (identity, name) = self.called(participant);
                // The words of the session file.
                let written = serde_json::to_value(event).unwrap_or_default();
                self.tracks.push(Track {
                    file: file.clone(),
                    identity,
                    name,
                    source: written["source"].clone(),
                    codec: written["codec"].clone(),
                    zero_us: *zero_us,
                    ended_us: None,
                    end: None,
                    gaps: Vec::new(),
                });
            }
            Event::TrackEnded { file, reason } => {
                if let Some(track) = self.tracks.iter_mut().rfind(|track| track.file == *file) {
                    (track.ended_us, track.end) = (Some(at_us), Some(*reason));
                }
            }
            Event::Gap { file, from_us, until_us, reason } => {
                if self.gaps >= TOLD_MAX {
                    self.left_out += 1;
                } else if let Some(track) = self.tracks.iter_mut().rfind(|track| track.file == *file) {
                    self.gaps += 1;
                    track.gaps.push(Gap { from_us: *from_us, until_us: *until_us, reason: *reason });
                }
            }
            Event::Mute { track, muted } => {
                let spans = self.mutes.entry(track.as_str().to_owned()).or_default();
                if *muted { begin(spans, at_us, &mut self.spans, &mut self.left_out) } else { end(spans, at_us) }
            }
            Event::Chat { participant, text, .. } => {
                self.chat_bytes = self.chat_bytes.saturating_add(text.len());
                if self.chat.len() >= TOLD_MAX || self.chat_bytes > CHAT_BYTES_MAX {
                    return self.left_out += 1;
                }
                let (identity, name) = self.called(participant);
                self.chat.push(Chat { at_us, identity, name, text: text.clone() });
            }
            Event::Started(_)
            | Event::TrackZero { .. }
            | Event::NotRecorded { .. }
            | Event::Speakers { .. }
            | Event::Stopped { .. }
            | Event::Unknown => {}
        }
    }

    fn came(&mut self, at_us: u64, participant: &ParticipantSid, identity: &str, name: &str) {
        let index = self.people.iter().position(|person| person.identity == identity);
        let index = match index {
            Some(index) => index,
            None if self.people.len() >= PEOPLE_MAX => return self.left_out += 1,
            None => {
                self.people.push(Person { identity: identity.to_owned(), name: String::new(), stays: Vec::new() });
                self.people.len() - 1
            }
        };
        self.known.insert(participant.clone(), (index, name.to_owned()));
        if let Some(person) = self.people.get_mut(index) {
            person.name = name.to_owned();
            begin(&mut person.stays, at_us, &mut self.spans, &mut self.left_out);
        }
    }

    /// Identity and name, both empty for nobody who is known.
    fn called(&self, participant: &ParticipantSid) -> (String, String) {
        let known = self.known.get(participant);
        let identity = |index: usize| self.people.get(index).map(|person| person.identity.clone());
        known.map_or_else(Default::default, |(index, name)| (identity(*index).unwrap_or_default(), name.clone()))
    }
}

/// Goes on with what ended a moment ago: an epoch says anew what holds, and a client may reconnect.
fn begin(spans: &mut Vec<Span>, at_us: u64, count: &mut usize, left_out: &mut usize) {
    match spans.last_mut() {
        Some(Span { until_us: None, .. }) => {}
        Some(Span { until_us, .. }) if until_us.is_some_and(|until| at_us.saturating_sub(until) <= MOMENT_US) => {
            *until_us = None;
        }
        _ if *count >= TOLD_MAX => *left_out += 1,
        _ => {
            *count += 1;
            spans.push(Span { from_us: at_us, until_us: None });
        }
    }
}

fn end(spans: &mut [Span], at_us: u64) {
    if let Some(Span { until_us: until @ None, .. }) = spans.last_mut() {
        *until = Some(at_us);
    }
}

fn us(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Of tracks, of gaps, of messages, and of stays and mutes together.
const TOLD_MAX: usize = 10_000;
const PEOPLE_MAX: usize = 2_000;
const CHAT_BYTES_MAX: usize = 8 << 20;
const MOMENT_US: u64 = 2_000_000;

#[cfg(test)]
mod tests;
