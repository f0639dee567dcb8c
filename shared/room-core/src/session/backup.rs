//! The backup codec of a video: asked for by who cannot decode the first, published on demand, and its policy.
//!
//! The media engine has it as a further track, under a name derived from the track's; everybody else knows one track.

use std::time::Instant;

use plenary_model::{BackupCodecPolicy, Track, TrackSid};

use super::{MediaCommand, Output, Session};

/// How a session receives a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The publisher's section has not been seen yet.
    NotYet,
    Primary,
    Backup,
    /// The backup once there is one; its publisher is asked for it.
    BackupOnDemand,
    /// The client decodes nothing that the publisher could send.
    Nothing,
}

impl Choice {
    /// By what the client decodes of the two.
    pub(super) fn of(track: &Track, decodes: impl Fn(&TrackSid, &str) -> bool) -> Self {
        if track.mime.is_empty() {
            return Self::NotYet;
        }
        let backup = track.backup().filter(|backup| decodes(&track.sid.backup(), &backup.mime));
        match (decodes(&track.sid, &track.mime), backup) {
            (true, Some(backup)) if backup.is_published() && regresses(track) => Self::Backup,
            (true, _) => Self::Primary,
            (false, Some(backup)) if backup.is_published() => Self::Backup,
            (false, Some(_)) => Self::BackupOnDemand,
            (false, None) => Self::Nothing,
        }
    }
}

/// Whether everybody goes over to the backup once it is there, so that the publisher need not encode twice.
fn regresses(track: &Track) -> bool {
    match track.backup_codec_policy {
        BackupCodecPolicy::PreferRegression | BackupCodecPolicy::Regression => true,
        BackupCodecPolicy::Simulcast => false,
    }
}

impl Session {
    /// Somebody needs the backup of one of our videos. Once it is published the media engine says how much of it is wanted.
    pub(super) fn on_backup_wanted(&mut self, now: Instant, sid: &TrackSid) {
        let Some(track) = self.publications.published(sid) else { return };
        let Some(backup) = track.backup().filter(|backup| !backup.is_published()) else { return };
        if self.demands.backup_wanted(now, sid, backup) {
            self.tell_demand(sid);
        }
    }

    pub(super) fn set_muted(&mut self, track: &Track) {
        let muted = track.muted;
        for track in track.engine_sids() {
            self.outputs.push_back(Output::Media(MediaCommand::SetMuted { track, muted }));
        }
    }
}
