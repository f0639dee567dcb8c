//! What a meeting was: one JSON object per line, appended while it happens. `proto/plenary/v1/session.md` describes it for
//! those who read it.
//!
//! Each epoch writes its own file and each file tells the whole, so [`merge`] can do with those that are left.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod merge;
mod names;
#[cfg(test)]
mod tests;
mod text;

use plenary_model::{Codec, NodeId, ParticipantSid, RoomSid, Source, TrackSid};
use serde::{Deserialize, Serialize};

pub use self::{
    merge::{MergeError, Session, Stretch, merge},
    names::{Epoch, NotAnId, TrackFile},
};

/// Grows when a reader of the one before would misunderstand; new events and new fields do not count.
pub const VERSION: u32 = 1;

/// A longer line is left out by readers.
pub const LINE_BYTES_MAX: usize = 256 * 1024;

/// Something that happened. Encoded, it is a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds since 1970 by the clock of the recording node, as are all times here but those inside of media.
    pub at_us: u64,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The first line of every file and no other.
    Started(Started),
    /// Is in the room from now on, or was when the epoch began, or is called otherwise from now on.
    Participant {
        #[serde(with = "text::id")]
        participant: ParticipantSid,
        identity: String,
        name: String,
    },
    ParticipantLeft {
        #[serde(with = "text::id")]
        participant: ParticipantSid,
    },
    /// A file has begun.
    Track {
        #[serde(with = "text::name")]
        file: TrackFile,
        #[serde(with = "text::id")]
        participant: ParticipantSid,
        #[serde(with = "text::SourceText")]
        source: Source,
        #[serde(with = "text::codec")]
        codec: Codec,
        /// The moment that is zero in the file.
        zero_us: u64,
    },
    /// The file's zero was another moment: what the publisher's clock says is known better now. The last one counts.
    TrackZero {
        #[serde(with = "text::name")]
        file: TrackFile,
        zero_us: u64,
    },
    TrackEnded {
        #[serde(with = "text::name")]
        file: TrackFile,
        reason: TrackEnd,
    },
    /// Between these times of the file, frames are missing that were sent.
    Gap {
        #[serde(with = "text::name")]
        file: TrackFile,
        from_us: u64,
        until_us: u64,
        reason: GapReason,
    },
    /// Nothing of a track is recorded while it is published.
    NotRecorded {
        #[serde(with = "text::id")]
        track: TrackSid,
        #[serde(with = "text::id")]
        participant: ParticipantSid,
        #[serde(with = "text::SourceText")]
        source: Source,
        reason: Omission,
    },
    /// A track without such a line is not muted.
    Mute {
        #[serde(with = "text::id")]
        track: TrackSid,
        muted: bool,
    },
    /// Who speaks, the loudest first; nobody else does.
    Speakers {
        #[serde(with = "text::ids")]
        participants: Vec<ParticipantSid>,
    },
    Chat {
        id: String,
        /// Empty for a message of the server.
        #[serde(with = "text::id")]
        participant: ParticipantSid,
        text: String,
    },
    /// The last line of a file whose epoch ended in order.
    Stopped { reason: StopReason },
    /// One that a later Plenary writes.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub version: u32,
    /// `EG_…`, the same in all files of a recording.
    pub recording: String,
    #[serde(with = "text::id")]
    pub room: RoomSid,
    pub room_name: String,
    #[serde(with = "text::id")]
    pub node: NodeId,
    /// None of the first epoch, and where there was no file of one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<Predecessor>,
    /// None of the first epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<Former>,
}

/// Who had the recording before, wherever its files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The number of its epoch.
    pub epoch: u64,
    #[serde(with = "text::id")]
    pub node: NodeId,
}

/// How this node's clock relates to that of the node that recorded before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    #[serde(with = "text::name")]
    pub epoch: Epoch,
    /// What this node's clock shows less what the predecessor's shows at the same moment.
    pub clock_ahead_us: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackEnd {
    Unpublished,
    /// Another file goes on with it.
    CodecChanged,
    /// The recording ended.
    Stopped,
    /// One that a later Plenary writes.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// Packets did not arrive.
    Loss,
    /// The disk did not keep up.
    Overrun,
    /// One that a later Plenary writes.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Omission {
    /// Only those who receive the track have its key.
    Encrypted,
    /// One that a later Plenary writes.
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    Requested,
    RoomEnded,
    /// What was recorded of the room is over.
    SourceEnded,
    /// Another node goes on with it.
    Moved,
    DiskFull,
    DiskSlow,
    DiskFailed,
    PermissionDenied,
    LimitReached,
    /// One that a later Plenary writes.
    #[serde(other)]
    Unknown,
}

impl Line {
    /// With its newline, to be appended in one write.
    pub fn encode(&self) -> Vec<u8> {
        // Nothing here lacks a JSON form.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// The file of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFile {
    pub epoch: Epoch,
    pub at_us: u64,
    pub started: Started,
    /// All that came after, in the order of the file, without what is unknown to us.
    pub lines: Vec<Line>,
    /// Lines that were torn, damaged, too long or about files that are not this epoch's.
    pub lines_unread: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("does not begin with a whole `started` line")]
    NotBegun,
    #[error("is of version {version}, and this Plenary reads up to {VERSION}")]
    Newer { version: u32 },
}

impl SessionFile {
    /// Reads what a file of this epoch holds. A line that cannot be read spoils no other, unless it is the first.
    pub fn read(epoch: Epoch, bytes: &[u8]) -> Result<Self, ReadError> {
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n').map(|line| decode(epoch, line));
        let Some(Some(Line { at_us, event: Event::Started(started) })) = lines.next() else {
            return Err(ReadError::NotBegun);
        };
        if started.version > VERSION {
            return Err(ReadError::Newer { version: started.version });
        }
        let mut file = Self { epoch, at_us, started, lines: Vec::new(), lines_unread: 0 };
        for line in lines {
            match line {
                Some(Line { event: Event::Unknown, .. }) => {}
                None | Some(Line { event: Event::Started(_), .. }) => {
                    file.lines_unread = file.lines_unread.saturating_add(1);
                }
                Some(line) => file.lines.push(line),
            }
        }
        Ok(file)
    }
}

fn decode(epoch: Epoch, line: &[u8]) -> Option<Line> {
    // Without its newline a line was not written to its end.
    let line = line.strip_suffix(b"\n").filter(|line| line.len() <= LINE_BYTES_MAX)?;
    let line: Line = serde_json::from_slice(line).ok()?;
    match &line.event {
        Event::Track { file, .. }
        | Event::TrackZero { file, .. }
        | Event::TrackEnded { file, .. }
        | Event::Gap { file, .. }
            if file.epoch() != epoch =>
        {
            None
        }
        _ => Some(line),
    }
}
