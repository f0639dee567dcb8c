//! One meeting out of what several nodes wrote, one after the other and sometimes at once.

use std::collections::HashMap;

use plenary_model::NodeId;

use super::{Epoch, Event, Line, SessionFile, Started, StopReason, TrackFile};

/// A recording from its first epoch to its last. All wall-clock times in it are by the clock of the first epoch's node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// In order, never empty.
    pub stretches: Vec<Stretch>,
    /// By time. Tracks have the zeros known best, so no line corrects one. Where a stretch begins, what was said before of
    /// who is there, speaks and is muted no longer holds: no line tells who left while nobody recorded.
    pub lines: Vec<Line>,
}

/// An epoch's part of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    pub epoch: Epoch,
    pub started: Started,
    pub from_us: u64,
    /// When a newer epoch began: from then on that one tells what happens. None of the last.
    pub until_us: Option<u64>,
    /// Lines of the file that could not be read.
    pub lines_unread: usize,
    /// Lines that were written when a newer epoch had begun.
    pub lines_fenced: usize,
}

impl Session {
    /// Nodes that have session files which are not among these, in the order in which they recorded; None for one whose name is
    /// not known.
    pub fn elsewhere(&self) -> Vec<Option<NodeId>> {
        let is_here = |number: u64| self.stretches.iter().any(|one| one.epoch.number == number);
        let mut nodes = Vec::new();
        for Started { node, predecessor, former, .. } in self.stretches.iter().map(|stretch| &stretch.started) {
            match (former, predecessor) {
                // It may not have come to recording.
                (Some(former), _) if former.node == *node => {}
                (Some(former), _) if !is_here(former.epoch) => nodes.push(Some(former.node.clone())),
                (_, Some(before)) if !is_here(before.epoch.number) => nodes.push(None),
                _ => {}
            }
        }
        // An epoch in which nothing happened has no line of its own.
        if let Some(Line { at_us, event: Event::Stopped { reason: StopReason::Moved } }) = self.lines.last()
            && self.stretches.last().is_some_and(|stretch| stretch.from_us <= *at_us)
        {
            nodes.push(None);
        }
        nodes
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("no session file")]
    NoFile,
    #[error("the session files are of several recordings")]
    SeveralRecordings,
}

/// Puts the files of all epochs together, in whatever order they come.
pub fn merge(mut files: Vec<SessionFile>) -> Result<Session, MergeError> {
    files.sort_by_key(|file| file.epoch);
    let recording = &files.first().ok_or(MergeError::NoFile)?.started.recording;
    if files.iter().any(|file| file.started.recording != *recording) {
        return Err(MergeError::SeveralRecordings);
    }
    to_one_clock(&mut files);
    let mut session = Session { stretches: Vec::new(), lines: Vec::new() };
    let fences = fences(&files);
    for (file, until_us) in files.into_iter().zip(fences) {
        let is_told = |line: &Line| until_us.is_none_or(|until_us| line.at_us < until_us);
        let (told, fenced): (Vec<_>, Vec<_>) = file.lines.into_iter().partition(is_told);
        session.lines.extend(with_best_zeros(told));
        session.stretches.push(Stretch {
            epoch: file.epoch,
            started: file.started,
            from_us: file.at_us,
            until_us,
            lines_unread: file.lines_unread,
            lines_fenced: fenced.len(),
        });
    }
    session.lines.sort_by_key(|line| line.at_us);
    Ok(session)
}

/// For each file when the first of the newer epochs began.
fn fences(files: &[SessionFile]) -> Vec<Option<u64>> {
    let mut first_us = None;
    let mut fences: Vec<_> = files
        .iter()
        .rev()
        .map(|file| first_us.replace(first_us.map_or(file.at_us, |first_us: u64| first_us.min(file.at_us))))
        .collect();
    fences.reverse();
    fences
}

/// Sets all times to the first node's clock. An epoch whose predecessor's file is lost is measured by the newest one before
/// that is left, which is as good as the nodes' clocks are set.
fn to_one_clock(files: &mut [SessionFile]) {
    let mut ahead_us: Vec<(Epoch, i64)> = Vec::new();
    for file in files {
        let known = |epoch: Epoch| ahead_us.iter().rev().find(|(one, _)| *one <= epoch).map_or(0, |(_, ahead)| *ahead);
        let own = match file.started.predecessor {
            Some(before) => known(before.epoch).saturating_add(before.clock_ahead_us),
            None => known(file.epoch),
        };
        ahead_us.push((file.epoch, own));
        let shift = |at_us: &mut u64| *at_us = at_us.saturating_add_signed(own.saturating_neg());
        shift(&mut file.at_us);
        for line in &mut file.lines {
            shift(&mut line.at_us);
            match &mut line.event {
                Event::Track { zero_us, .. } | Event::TrackZero { zero_us, .. } => shift(zero_us),
                _ => {}
            }
        }
    }
}

fn with_best_zeros(mut lines: Vec<Line>) -> Vec<Line> {
    let mut zeros: HashMap<TrackFile, u64> = HashMap::new();
    lines.retain(|line| match &line.event {
        Event::TrackZero { file, zero_us } => {
            zeros.insert(file.clone(), *zero_us);
            false
        }
        _ => true,
    });
    for line in &mut lines {
        if let Event::Track { file, zero_us, .. } = &mut line.event
            && let Some(better) = zeros.get(file)
        {
            *zero_us = *better;
        }
    }
    lines
}
