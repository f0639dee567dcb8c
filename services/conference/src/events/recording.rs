//! What happens to recordings.

use std::path::Path;

use opentelemetry::KeyValue;
use plenary_composer::{Progress, RunError};
use plenary_model::{EgressId, EgressStatus, RoomName, TrackSid};
use plenary_recording::{
    Repaired,
    recording::{DiskFailure, Ended, Refusal},
};
use tracing::{debug, error, info, warn};

use crate::{
    metrics::{instruments, label},
    recording::shelf::{Left, Outcome},
};

/// A recording ends because of its disk.
#[derive(Debug)]
pub struct RecordingDiskFailed<'a> {
    pub recording: &'a str,
    pub failure: DiskFailure,
    pub error: &'a std::io::Error,
}

impl RecordingDiskFailed<'_> {
    pub fn emit(self) {
        let Self { recording, failure, error } = self;
        error!(recording, %failure, %error, "recording ends");
    }
}

/// The configured directory cannot be read or written.
#[derive(Debug)]
pub struct RecordingsUnusable<'a> {
    pub directory: &'a Path,
    pub error: &'a std::io::Error,
}

impl RecordingsUnusable<'_> {
    pub fn emit(self) {
        error!(directory = %self.directory.display(), error = %self.error, "recordings unusable");
    }
}

/// A file was there that a recorder had not finished.
#[derive(Debug)]
pub struct LeftRecordingSeen {
    pub left: Left,
}

impl LeftRecordingSeen {
    pub fn emit(self) {
        let Left { path, outcome } = self.left;
        let file = path.display();
        match outcome {
            Outcome::Repaired(Repaired { duration, frames, cut_bytes, .. }) => {
                info!(%file, duration_s = duration.as_secs_f64(), frames, cut_bytes, "recording repaired");
            }
            Outcome::Removed => info!(%file, "recording without a beginning removed"),
            Outcome::BeingRecorded => debug!(%file, "recorded elsewhere"),
            Outcome::Failed(error) => warn!(%file, %error, "recording not repaired"),
        }
    }
}

/// A recording was kept for as long as the configuration says, and is gone.
#[derive(Debug)]
pub struct RecordingExpired<'a> {
    pub directory: &'a Path,
}

impl RecordingExpired<'_> {
    pub fn emit(self) {
        info!(directory = %self.directory.display(), "recording expired");
    }
}

/// Packets found a full queue to a recording's disk.
#[derive(Debug)]
pub struct RecordingOverrun {
    pub packets: u64,
}

impl RecordingOverrun {
    pub fn emit(self) {
        debug!(packets = self.packets, "recording overrun");
        instruments().recording_overruns.add(self.packets, &[]);
    }
}

/// The composer has done something for a recording.
#[derive(Debug)]
pub struct RenderingGoesOn<'a> {
    pub recording: &'a Path,
    pub progress: &'a Progress,
}

impl RenderingGoesOn<'_> {
    pub fn emit(self) {
        let Self { recording, progress } = self;
        match progress {
            // Hundreds, of a long meeting.
            Progress::Step { .. } => debug!(recording = %recording.display(), %progress, "rendering goes on"),
            _ => info!(recording = %recording.display(), %progress, "rendering"),
        }
    }
}

/// This node is to render, and has no ffmpeg.
#[derive(Debug)]
pub struct NothingToRenderWith<'a> {
    pub error: &'a RunError,
}

impl NothingToRenderWith<'_> {
    pub fn emit(self) {
        warn!(error = %self.error, "nothing to render recordings with");
    }
}

/// The composer cannot make what a recording asks for now, and tries again.
#[derive(Debug)]
pub struct RenderingWaits<'a> {
    pub recording: &'a Path,
    pub why: &'a str,
}

impl RenderingWaits<'_> {
    pub fn emit(self) {
        warn!(recording = %self.recording.display(), why = self.why, "rendering waits");
    }
}

/// The composer has given up.
#[derive(Debug)]
pub struct RenderingFailed<'a> {
    pub recording: &'a Path,
    pub why: &'a str,
}

impl RenderingFailed<'_> {
    pub fn emit(self) {
        error!(recording = %self.recording.display(), why = self.why, "rendering failed");
    }
}

/// A recording has begun at this node, or goes on here.
#[derive(Debug)]
pub struct RecordingBegan {
    pub epoch: u64,
}

impl RecordingBegan {
    pub fn emit(self) {
        info!(epoch = self.epoch, "recording began");
        instruments().recordings_begun.add(1, &[]);
    }
}

/// Only those who receive a track have its key: it is not in the recording.
#[derive(Debug)]
pub struct EncryptedTrackLeftOut<'a> {
    pub track: &'a TrackSid,
}

impl EncryptedTrackLeftOut<'_> {
    pub fn emit(self) {
        warn!(track = self.track.as_str(), "encrypted track is not recorded");
    }
}

/// A recording has ended at this node.
#[derive(Debug)]
pub struct RecordingEnded<'a> {
    pub recording: &'a str,
    pub ended: &'a Ended,
}

impl RecordingEnded<'_> {
    pub fn emit(self) {
        let Ended { reason, files } = self.ended;
        let reason = label(reason);
        let unfinished = files.iter().filter(|file| !file.is_complete).count();
        info!(recording = self.recording, reason, files = files.len(), unfinished, "recording ended");
        instruments().recordings_ended.add(1, &[KeyValue::new("reason", reason)]);
        instruments().recording_bytes.add(files.iter().map(|file| file.bytes).sum(), &[]);
    }
}

/// Something that happened in a recorded room is not in its recording.
#[derive(Debug)]
pub struct NotRecorded {
    pub refusal: Refusal,
}

impl NotRecorded {
    pub fn emit(self) {
        debug!(refusal = %self.refusal, "not recorded");
    }
}

/// Somebody may look at recordings for a while.
#[derive(Debug)]
pub struct RecordingsOpened<'a> {
    /// The key of the token.
    pub by: &'a str,
}

impl RecordingsOpened<'_> {
    pub fn emit(self) {
        info!(by = self.by, "recordings opened");
    }
}

/// A recording is this node's.
#[derive(Debug)]
pub struct EgressHeld<'a> {
    pub egress: &'a EgressId,
    pub room: &'a RoomName,
    pub epoch: u64,
    /// Beyond `Starting` if another node had it before.
    pub status: EgressStatus,
}

impl EgressHeld<'_> {
    pub fn emit(self) {
        let status = label(self.status);
        info!(egress = %self.egress, room = %self.room, epoch = self.epoch, status, "recording claimed");
    }
}

/// A recording is this node's no longer, and not over.
#[derive(Debug)]
pub struct EgressFenced<'a> {
    pub egress: &'a EgressId,
    pub epoch: u64,
}

impl EgressFenced<'_> {
    pub fn emit(self) {
        info!(egress = %self.egress, epoch = self.epoch, "recording left to another node");
    }
}

/// A recorder of this node ended without its last word, or its writer did. The recording begins anew.
#[derive(Debug)]
pub struct RecorderDied<'a> {
    pub egress: &'a EgressId,
    pub epoch: u64,
}

impl RecorderDied<'_> {
    pub fn emit(self) {
        let what = "recorder";
        error!(egress = %self.egress, epoch = self.epoch, what, "ended by a fault");
        instruments().panics.add(1, &[KeyValue::new("what", what)]);
    }
}

/// What a room was to record by itself is not recorded.
#[derive(Debug)]
pub struct AutoEgressFailed<'a> {
    pub room: &'a RoomName,
    /// `room`, `participant` or `track`.
    pub kind: &'static str,
    pub why: &'a str,
}

impl AutoEgressFailed<'_> {
    pub fn emit(self) {
        error!(room = %self.room, kind = self.kind, why = self.why, "automatic recording not begun");
    }
}

/// More happened in rooms that record by themselves than could wait.
#[derive(Debug)]
pub struct AutoEgressesDropped {
    pub changes: u64,
}

impl AutoEgressesDropped {
    pub fn emit(self) {
        if self.changes > 0 {
            error!(changes = self.changes, "too much waits to be recorded, the oldest was dropped");
        }
    }
}
