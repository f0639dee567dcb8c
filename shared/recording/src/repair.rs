//! Makes a file that a [`Writer`](crate::Writer) left unfinished, wherever it ends, a finished one.
//!
//! Reads the heads of clusters and blocks and keeps the index alone, whatever the length of the file. The result depends on
//! the clusters alone, so a repair may be stopped at any byte and done again, and repairs nothing of a finished file.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

#[cfg(test)]
mod tests;

use std::{
    io::{self, Read, Seek, SeekFrom, Write},
    time::Duration,
};

use crate::matroska::{
    BLOCK_HEAD_BYTES, BLOCK_IS_KEY, BLOCK_TRACK, Finish, Index, Layout, OPENING_BYTES, Patch, Span, head, id, unsigned,
};

/// More than that behind the last whole cluster was not left by a process or machine that died, but is damage in the
/// middle: rather an unfinished file than hours cut off.
pub const TORN_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Head of an element, and of the block if it is one.
const HEAD_BYTES: usize = 16;
const WINDOW_BYTES: usize = 4096;

/// The file under repair.
pub trait Storage: Read + Write + Seek {
    fn truncate(&mut self, length: u64) -> io::Result<()>;
    /// Returns when what was written would survive a loss of power.
    fn sync(&mut self) -> io::Result<()>;
}

impl Storage for std::fs::File {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// What a repaired file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repaired {
    pub duration: Duration,
    pub frames: u64,
    /// What stood behind the last whole cluster.
    pub cut_bytes: u64,
    /// False of a file that was finished before.
    pub is_changed: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    #[error("no file of a recording, or one that ends before its first frame could be written")]
    Headless,
    #[error("no whole cluster")]
    Empty,
    #[error("damaged at byte {at}, with more than {TORN_BYTES_MAX} bytes behind")]
    DamagedInside { at: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Cuts the file behind its last whole cluster and finishes it there. After an error it is as it was, or plays as it did.
pub fn repair(file: &mut impl Storage) -> Result<Repaired, RepairError> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut opening = Vec::new();
    read_at(file, 0, OPENING_BYTES, &mut opening)?;
    let layout = Layout::read(&opening).ok_or(RepairError::Headless)?;
    let found = Scan { file, window: Vec::new(), window_at: 0 }.clusters(&layout, length)?;
    if found.index.is_empty() {
        return Err(RepairError::Empty);
    }
    if length.saturating_sub(found.end) > TORN_BYTES_MAX {
        return Err(RepairError::DamagedInside { at: found.end });
    }
    let finish = layout.finish(found.end, &found.index);
    let is_changed = !is_finished(file, length, found.end, &finish)?;
    if is_changed {
        write_patches(file, &layout.unfinish())?;
        file.truncate(found.end)?;
        file.seek(SeekFrom::Start(found.end))?;
        file.write_all(&finish.tail)?;
        // The index is there before anything points to it.
        file.sync()?;
        write_patches(file, &finish.patches)?;
        file.sync()?;
    }
    Ok(Repaired {
        duration: Duration::from_millis(found.index.span.duration_ms()),
        frames: found.frames,
        cut_bytes: if is_changed { length.saturating_sub(found.end) } else { 0 },
        is_changed,
    })
}

fn is_finished(file: &mut impl Storage, length: u64, end: u64, finish: &Finish) -> io::Result<bool> {
    if length != end.saturating_add(finish.tail.len() as u64) {
        return Ok(false);
    }
    // But for its first byte, which is among the patches.
    let tail = Patch { at: end.saturating_add(1), bytes: finish.tail.slice(1..) };
    let mut there = Vec::new();
    for Patch { at, bytes } in finish.patches.iter().chain([&tail]) {
        read_at(file, *at, bytes.len(), &mut there)?;
        if there != *bytes {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Fewer bytes where the file ends.
fn read_at(file: &mut impl Storage, at: u64, bytes: usize, into: &mut Vec<u8>) -> io::Result<()> {
    into.clear();
    file.seek(SeekFrom::Start(at))?;
    Read::by_ref(file).take(bytes as u64).read_to_end(into).map(drop)
}

fn write_patches(file: &mut impl Storage, patches: &[Patch]) -> io::Result<()> {
    for Patch { at, bytes } in patches {
        file.seek(SeekFrom::Start(*at))?;
        file.write_all(bytes)?;
    }
    Ok(())
}

struct Found {
    /// Of the last whole cluster.
    end: u64,
    index: Index,
    frames: u64,
}

struct Cluster {
    at_ms: u64,
    begins_with_key: bool,
    frames: u64,
    /// The file's, this cluster included.
    span: Span,
}

struct Scan<'a, F> {
    file: &'a mut F,
    window: Vec<u8>,
    window_at: u64,
}

impl<F: Storage> Scan<'_, F> {
    /// Follows the clusters from head to head. One that is damaged inside (a page that was never written) is no reason to
    /// lose those behind it, but if it is the last, it goes.
    fn clusters(mut self, layout: &Layout, length: u64) -> io::Result<Found> {
        let mut found = Found { end: layout.clusters, index: Index::default(), frames: 0 };
        let mut at = layout.clusters;
        while let Some((inside, end)) = self.element(at, id::CLUSTER, length)? {
            if let Some(cluster) = self.cluster(inside, end, found.index.span)? {
                found.index.add(cluster.at_ms, at, cluster.begins_with_key);
                found.index.span = cluster.span;
                found.frames = found.frames.saturating_add(cluster.frames);
                found.end = end;
            }
            at = end;
        }
        Ok(found)
    }

    /// A timestamp and nothing but whole blocks to the end, or `None`.
    fn cluster(&mut self, inside: u64, end: u64, mut span: Span) -> io::Result<Option<Cluster>> {
        let Some((timestamp, mut at)) = self.element(inside, id::TIMESTAMP, end)? else { return Ok(None) };
        let Some(bytes) = at.checked_sub(timestamp).and_then(|bytes| usize::try_from(bytes).ok()) else {
            return Ok(None);
        };
        let at_ms = match self.peek(timestamp)?.get(..bytes) {
            Some(value) if bytes <= 8 => unsigned(value),
            _ => return Ok(None),
        };
        let (mut begins_with_key, mut frames) = (None, 0u64);
        while at < end {
            let Some((block, next)) = self.element(at, id::SIMPLE_BLOCK, end)? else { return Ok(None) };
            let &[BLOCK_TRACK, time_high, time_low, flags, ..] = self.peek(block)? else { return Ok(None) };
            if next < block.saturating_add(BLOCK_HEAD_BYTES) {
                return Ok(None);
            }
            span.frame(at_ms.saturating_add_signed(i64::from(i16::from_be_bytes([time_high, time_low]))));
            begins_with_key.get_or_insert(flags & BLOCK_IS_KEY != 0);
            frames = frames.saturating_add(1);
            at = next;
        }
        Ok(begins_with_key.map(|begins_with_key| Cluster { at_ms, begins_with_key, frames, span }))
    }

    /// Where the content of the element at `at` begins and ends, if it is one of these and ends within `limit`.
    fn element(&mut self, at: u64, id: u32, limit: u64) -> io::Result<Option<(u64, u64)>> {
        let Some(head) = head(self.peek(at)?).filter(|head| head.id == id) else { return Ok(None) };
        let inside = at.saturating_add(head.bytes as u64);
        let end = inside.checked_add(head.size).filter(|end| *end <= limit);
        Ok(end.map(|end| (inside, end)))
    }

    /// The [`HEAD_BYTES`] at `at`, fewer where the file ends.
    fn peek(&mut self, at: u64) -> io::Result<&[u8]> {
        let whole = at.checked_sub(self.window_at).and_then(|from| usize::try_from(from).ok());
        let is_inside = whole.is_some_and(|from| self.window.get(from..from.saturating_add(HEAD_BYTES)).is_some());
        if !is_inside {
            self.window_at = at;
            read_at(self.file, at, WINDOW_BYTES, &mut self.window)?;
        }
        let from = usize::try_from(at.saturating_sub(self.window_at)).unwrap_or(usize::MAX);
        let rest = self.window.get(from..).unwrap_or_default();
        Ok(rest.get(..HEAD_BYTES).unwrap_or(rest))
    }
}
