//! From lines and files to facts over time: which file shows or sounds when, who is there, who speaks.

use std::collections::{BTreeMap, BTreeSet};

use plenary_model::{Codec, ParticipantSid, Source, TrackSid};
use plenary_recording::session_file::{Event, Line, Session, TrackFile};

/// What was found of a file on disk. Times are microseconds inside the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// Of the first frame.
    pub first_us: u64,
    /// Of the last frame.
    pub last_us: u64,
}

/// The files that are there and can be read.
pub type Spans = BTreeMap<TrackFile, Span>;

/// A longer recording is refused: one damaged time must not become years of black.
pub const MEETING_US_MAX: u64 = 48 * 3600 * SECOND_US;

/// How long a file's last frame is taken to last.
const FRAME_US: u64 = 40_000;
/// A shorter gap is bridged by the picture before it.
const GAP_US_MIN: u64 = SECOND_US;
/// Who speaks for less does not become the active speaker.
const SPEECH_US_MIN: u64 = SECOND_US;
pub(crate) const SECOND_US: u64 = 1_000_000;

/// All times are microseconds since the recording began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Timeline {
    pub(crate) length_us: u64,
    pub(crate) takes: Vec<Take>,
    /// By time; of those at the same time, the later one holds.
    pub(crate) changes: Vec<(u64, Change)>,
    /// Files that the session names and that are not there.
    pub(crate) missing: Vec<TrackFile>,
}

/// The use that is made of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Take {
    pub(crate) file: TrackFile,
    pub(crate) participant: ParticipantSid,
    pub(crate) source: Source,
    pub(crate) is_sound: bool,
    /// When the file's zero was.
    pub(crate) zero_us: i64,
    pub(crate) from_us: u64,
    pub(crate) until_us: u64,
    span: Span,
}

impl Take {
    /// Where in the file that moment is. At least `before_end_us` before the last frame, so that there is something to show.
    pub(crate) fn seek_us(&self, at_us: u64, before_end_us: u64) -> i64 {
        let latest_us = self.span.last_us.cast_signed().saturating_sub_unsigned(before_end_us);
        at_us.cast_signed().saturating_sub(self.zero_us).min(latest_us)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Another epoch begins: nobody is there, speaks or is muted until its lines say so.
    Forget,
    Present {
        participant: ParticipantSid,
        name: String,
    },
    Left(ParticipantSid),
    Mute {
        track: TrackSid,
        muted: bool,
    },
    Speaker(ParticipantSid),
    /// Index into the takes.
    TakeBegins(usize),
    TakeEnds(usize),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimelineError {
    #[error("nothing was recorded")]
    Empty,
    #[error("the recording would be {hours} hours long, and {} is the most", MEETING_US_MAX / SECOND_US / 3600)]
    TooLong { hours: u64 },
}

/// Leaves out of a session who is none of these, and what they sent.
pub(crate) fn keep_only(session: &mut Session, identities: &BTreeSet<String>) {
    let is_kept = |line: &Line| match &line.event {
        Event::Participant { participant, identity, .. } if identities.contains(identity) => Some(participant.clone()),
        _ => None,
    };
    let kept: BTreeSet<ParticipantSid> = session.lines.iter().filter_map(is_kept).collect();
    session.lines.retain_mut(|line| match &mut line.event {
        Event::Participant { participant, .. }
        | Event::ParticipantLeft { participant }
        | Event::Track { participant, .. }
        | Event::NotRecorded { participant, .. } => kept.contains(participant),
        Event::Speakers { participants } => {
            participants.retain(|participant| kept.contains(participant));
            true
        }
        _ => true,
    });
}

pub(crate) fn timeline(session: &Session, spans: &Spans) -> Result<Timeline, TimelineError> {
    let start_us = session.stretches.first().ok_or(TimelineError::Empty)?.from_us;
    let since = |at_us: u64| at_us.saturating_sub(start_us);
    let (mut takes, missing) = takes(&session.lines, start_us, spans);
    let length_us = length(session, &takes, since);
    if length_us == 0 {
        return Err(TimelineError::Empty);
    }
    if length_us > MEETING_US_MAX {
        return Err(TimelineError::TooLong { hours: length_us / SECOND_US / 3600 });
    }
    for take in &mut takes {
        take.until_us = take.until_us.min(length_us);
    }
    takes.retain(|take| take.from_us < take.until_us);

    let mut changes: Vec<_> = session.stretches.iter().map(|one| (since(one.from_us), Change::Forget)).collect();
    changes.extend(session.lines.iter().filter_map(|line| Some((since(line.at_us), change(&line.event)?))));
    changes.extend(speakers(&session.lines, start_us, length_us));
    for (index, take) in takes.iter().enumerate() {
        let gaps = if take.is_sound { Vec::new() } else { gaps(&session.lines, take) };
        changes.push((take.from_us, Change::TakeBegins(index)));
        for (from_us, until_us) in gaps {
            changes.extend([(from_us, Change::TakeEnds(index)), (until_us, Change::TakeBegins(index))]);
        }
        changes.push((take.until_us, Change::TakeEnds(index)));
    }
    changes.sort_by_key(|(at_us, _)| *at_us);
    Ok(Timeline { length_us, takes, changes, missing })
}

/// By the last word of the last epoch. Without one, as long as something is known of it.
fn length(session: &Session, takes: &[Take], since: impl Fn(u64) -> u64) -> u64 {
    let last_began_us = session.stretches.last().map_or(0, |stretch| stretch.from_us);
    let is_stop = |line: &&Line| line.at_us >= last_began_us && matches!(line.event, Event::Stopped { .. });
    match session.lines.iter().rfind(is_stop) {
        Some(stop) => since(stop.at_us),
        None => {
            let lines = session.lines.iter().map(|line| since(line.at_us));
            lines.chain(takes.iter().map(|take| take.until_us)).max().unwrap_or(0)
        }
    }
}

fn takes(lines: &[Line], start_us: u64, spans: &Spans) -> (Vec<Take>, Vec<TrackFile>) {
    let relative = |at_us: u64| at_us.cast_signed().saturating_sub(start_us.cast_signed());
    let ended: BTreeMap<&TrackFile, u64> = lines
        .iter()
        .filter_map(|line| match &line.event {
            Event::TrackEnded { file, .. } => Some((file, line.at_us.saturating_sub(start_us))),
            _ => None,
        })
        .collect();
    let (mut takes, mut missing, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for line in lines {
        let Event::Track { file, participant, source, codec, zero_us } = &line.event else { continue };
        if !seen.insert(file) {
            continue;
        }
        let Some(span) = spans.get(file) else {
            missing.push(file.clone());
            continue;
        };
        let zero_us = relative(*zero_us);
        let at = |in_file_us: u64| u64::try_from(zero_us.saturating_add_unsigned(in_file_us)).unwrap_or(0);
        // A screen on which nothing moves has its last frame long before its track ends.
        let last_us = at(span.last_us.saturating_add(FRAME_US));
        takes.push(Take {
            file: file.clone(),
            participant: participant.clone(),
            source: *source,
            is_sound: matches!(codec, Codec::Opus | Codec::Red),
            zero_us,
            from_us: at(span.first_us),
            until_us: ended.get(file).map_or(last_us, |ended_us| (*ended_us).max(last_us)),
            span: *span,
        });
    }
    // Of two files of a track, the newer one tells what the older may tell too.
    takes.sort_by(|a: &Take, b: &Take| (a.file.track(), &a.file).cmp(&(b.file.track(), &b.file)));
    let mut newer: Option<(TrackSid, u64)> = None;
    for take in takes.iter_mut().rev() {
        let fence_us = newer.as_ref().filter(|(track, _)| track == take.file.track()).map(|(_, from_us)| *from_us);
        take.until_us = take.until_us.min(fence_us.unwrap_or(u64::MAX));
        newer = Some((take.file.track().clone(), fence_us.unwrap_or(u64::MAX).min(take.from_us)));
    }
    (takes, missing)
}

fn change(event: &Event) -> Option<Change> {
    match event {
        Event::Participant { participant, identity, name } => {
            let name = [name, identity].map(|text| shown(text)).into_iter().find(|text| !text.is_empty());
            Some(Change::Present { participant: participant.clone(), name: name.unwrap_or_default() })
        }
        Event::ParticipantLeft { participant } => Some(Change::Left(participant.clone())),
        Event::Mute { track, muted } => Some(Change::Mute { track: track.clone(), muted: *muted }),
        _ => None,
    }
}

/// Characters of a name that are drawn; what is wider than its tile ends at the tile's edge.
const NAME_CHARS_MAX: usize = 48;

/// A name as one line of text that cannot turn what stands beside it.
fn shown(name: &str) -> String {
    let is_turning = |char| matches!(char, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let is_break = |char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}');
    let text: String = name.chars().filter(|char| !is_turning(*char)).collect();
    let words: Vec<_> =
        text.split(|char: char| char.is_whitespace() || is_break(char)).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(NAME_CHARS_MAX).collect()
}

/// Who is heard for long enough to be looked at, from when they began.
fn speakers(lines: &[Line], start_us: u64, length_us: u64) -> Vec<(u64, Change)> {
    let mut runs: Vec<(u64, Option<&ParticipantSid>)> = Vec::new();
    for line in lines {
        if let Event::Speakers { participants } = &line.event
            && runs.last().is_none_or(|(_, who)| *who != participants.first())
        {
            runs.push((line.at_us.saturating_sub(start_us), participants.first()));
        }
    }
    let ends = runs.iter().skip(1).map(|(at_us, _)| *at_us).chain([length_us]).collect::<Vec<_>>();
    let lasting =
        runs.iter().zip(ends).filter(|((from_us, _), end_us)| end_us.saturating_sub(*from_us) >= SPEECH_US_MIN);
    lasting.filter_map(|((from_us, who), _)| Some((*from_us, Change::Speaker((*who)?.clone())))).collect()
}

/// Of this take, those long enough to be shown as such: apart, in order, inside it.
fn gaps(lines: &[Line], take: &Take) -> Vec<(u64, u64)> {
    let at = |in_file_us: u64| u64::try_from(take.zero_us.saturating_add_unsigned(in_file_us)).unwrap_or(0);
    let mut gaps: Vec<_> = lines
        .iter()
        .filter_map(|line| match &line.event {
            Event::Gap { file, from_us, until_us, .. } if *file == take.file => Some((at(*from_us), at(*until_us))),
            _ => None,
        })
        .map(|(from_us, until_us)| (from_us.max(take.from_us), until_us.min(take.until_us)))
        .filter(|(from_us, until_us)| until_us.saturating_sub(*from_us) >= GAP_US_MIN)
        .collect();
    gaps.sort_unstable();
    let mut apart: Vec<(u64, u64)> = Vec::new();
    for (from_us, until_us) in gaps {
        match apart.last_mut() {
            Some(last) if from_us <= last.1 => last.1 = last.1.max(until_us),
            _ => apart.push((from_us, until_us)),
        }
    }
    apart
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn names_become_one_line_and_stay_what_they_are() {
        for (name, line) in [
            ("Ann \"A\"\n", "Ann \"A\""),
            (" a\r\n\tb\u{2028}c\0d ", "a b c d"),
            ("%{pts}:x='1'\\", "%{pts}:x='1'\\"),
            ("\u{202E}moc.live", "moc.live"),
            ("محمد علي", "محمد علي"),
            ("李小龍 🥋", "李小龍 🥋"),
            ("\n", ""),
        ] {
            assert_eq!(shown(name), line, "{name:?}");
        }
        assert_eq!(shown(&"é".repeat(999)).chars().count(), 48);
    }
}
