//! What this participant publishes: announced tracks that wait for their section, and published ones.

use std::time::{Duration, Instant};

use plenary_model::{
    DataTrackSid, Layer, LayerMode, MediaKind, Permission, Quality, Source, Track, TrackCodec, TrackSid, Version,
};

use super::{Announced, MediaCommand, Output, Published, Session};
use crate::{
    notice::Request,
    signal::{About, AddTrack, RequestOutcome, ServerSignal},
};

#[derive(Debug)]
pub(super) struct Publications {
    /// Announced by AddTrack, oldest first.
    announced: Vec<Waiting>,
    published: Vec<Track>,
    clock: Clock,
    ids: IdSource,
}

#[derive(Debug)]
struct Waiting {
    cid: String,
    track: Track,
    since: Instant,
}

impl Publications {
    pub(super) fn new(now: Instant, unix_micros: i64, seed: u64) -> Self {
        Self {
            announced: Vec::new(),
            published: Vec::new(),
            clock: Clock { started: now, unix_micros, last: Version::default() },
            ids: IdSource(seed),
        }
    }

    /// What the next offer's sections may carry.
    pub(super) fn announced(&self) -> Vec<Announced> {
        let announced = |waiting: &Waiting| Announced {
            track: waiting.track.clone(),
            cids: waiting.track.codecs.iter().map(|codec| codec.cid.clone()).chain([waiting.cid.clone()]).collect(),
        };
        self.announced.iter().map(announced).collect()
    }

    pub(super) fn unmatched(&self) -> Vec<(String, Track)> {
        self.announced.iter().map(|waiting| (waiting.cid.clone(), waiting.track.clone())).collect()
    }

    pub(super) fn knows(&self, sid: &TrackSid) -> bool {
        self.find(sid).is_some()
    }

    /// Announced tracks whose sections the answer accepted are published from now on.
    pub(super) fn matched(&mut self, now: Instant, published: Vec<Published>) -> Vec<Track> {
        let mut tracks = Vec::new();
        for section in published {
            let Some(at) = self.announced.iter().position(|waiting| waiting.track.sid == section.track) else {
                continue;
            };
            let mut track = self.announced.remove(at).track;
            track.version = self.clock.version(now);
            track.mid = section.mid.clone();
            track.mime = section.mime.clone();
            match track.codecs.first_mut() {
                Some(codec) => {
                    codec.layer_mode = layer_mode(track.kind, &section.mime);
                    (codec.mime, codec.mid) = (section.mime, section.mid);
                }
                None => track.codecs.push(TrackCodec {
                    layer_mode: layer_mode(track.kind, &section.mime),
                    mime: section.mime,
                    mid: section.mid,
                    cid: section.cid,
                    layers: track.layers.clone(),
                }),
            }
            self.published.push(track.clone());
            tracks.push(track);
        }
        tracks
    }

    /// Of the tracks whose sections stopped, those that were published.
    pub(super) fn gone(&mut self, tracks: Vec<TrackSid>) -> Vec<TrackSid> {
        self.published.extract_if(.., |track| tracks.contains(&track.sid)).map(|track| track.sid).collect()
    }

    pub(super) fn no_longer_allowed(&mut self, permission: &Permission) -> Vec<TrackSid> {
        self.announced.retain(|waiting| may_publish(permission, waiting.track.source));
        let refused = self.published.iter().filter(|track| !may_publish(permission, track.source));
        let refused = refused.map(|track| track.sid.clone()).collect();
        self.gone(refused)
    }

    /// Changes a track; gives it back if others must hear of it.
    pub(super) fn update(&mut self, now: Instant, sid: &TrackSid, change: impl FnOnce(&mut Track)) -> Option<Track> {
        let version = self.clock.version(now);
        let announced = self.announced.iter_mut().map(|waiting| &mut waiting.track);
        let track = announced.chain(&mut self.published).find(|track| track.sid == *sid)?;
        change(track);
        track.version = version;
        Some(track.clone())
    }

    pub(super) fn forget_unmatched(&mut self, now: Instant, timeout: Duration) {
        self.announced.retain(|waiting| waiting.since + timeout > now);
    }

    pub(super) fn oldest_unmatched(&self, timeout: Duration) -> Option<Instant> {
        self.announced.iter().map(|waiting| waiting.since + timeout).min()
    }

    fn find(&self, sid: &TrackSid) -> Option<&Track> {
        self.announced.iter().map(|waiting| &waiting.track).chain(&self.published).find(|track| track.sid == *sid)
    }

    fn is_published(&self, sid: &TrackSid) -> bool {
        self.published.iter().any(|track| track.sid == *sid)
    }
}

impl Session {
    pub(super) fn on_add_track(&mut self, now: Instant, ask: AddTrack) {
        let about = About::AddTrack { cid: ask.cid.clone(), source: ask.source, name: ask.name.clone() };
        if !may_publish(&self.own.permission, ask.source) {
            self.respond(0, RequestOutcome::NotAllowed, "does not have permission to publish", about);
            return;
        }
        if let Some(sid) = &ask.existing {
            match self.publications.update(now, sid, |track| add_codec(track, &ask)) {
                Some(track) => self.send(ServerSignal::TrackPublished { cid: ask.cid, track }),
                None => self.respond(0, RequestOutcome::NotFound, "track not found", about),
            }
            return;
        }
        // A client that restarts its negotiation announces again; it must get the same sid.
        if let Some(waiting) = self.publications.announced.iter().find(|waiting| waiting.cid == ask.cid) {
            let track = waiting.track.clone();
            self.send(ServerSignal::TrackPublished { cid: ask.cid, track });
            return;
        }
        let announced = self.publications.announced.len();
        let all = announced.saturating_add(self.publications.published.len());
        if announced >= self.settings.announced_max || all >= self.settings.tracks_max {
            self.respond(0, RequestOutcome::LimitExceeded, "too many tracks", about);
            return;
        }
        let sid = self.publications.ids.track(ask.kind, ask.source);
        let track = describe(&ask, sid, self.publications.clock.version(now));
        self.publications.announced.push(Waiting { cid: ask.cid.clone(), track: track.clone(), since: now });
        self.send(ServerSignal::TrackPublished { cid: ask.cid, track });
    }

    pub(super) fn on_mute(&mut self, now: Instant, sid: TrackSid, muted: bool) {
        let Some(track) = self.publications.update(now, &sid, |track| track.muted = muted) else {
            let about = About::Mute { track: sid, muted };
            self.respond(0, RequestOutcome::NotFound, "track not found", about);
            return;
        };
        if self.publications.is_published(&sid) {
            self.outputs.push_back(Output::Media(MediaCommand::SetMuted { track: sid, muted }));
            self.outputs.push_back(Output::Ask(Request::UpdateTrack { track }));
        }
    }
}

fn may_publish(permission: &Permission, source: Source) -> bool {
    let sources = &permission.can_publish_sources;
    permission.can_publish && (sources.is_empty() || sources.contains(&source))
}

/// The track as everybody will see it, from what the publisher announced.
fn describe(ask: &AddTrack, sid: TrackSid, version: Version) -> Track {
    let mut layers = ask.layers.clone();
    layers.sort_by_key(|layer| layer.quality);
    layers.truncate(RIDS.len());
    // Two layers are q and h, one is q: names count from the lowest.
    for (index, (layer, rid)) in layers.iter_mut().zip(RIDS).enumerate() {
        layer.rid = rid.to_owned();
        layer.spatial_layer = u8::try_from(index).unwrap_or(u8::MAX);
    }
    if ask.kind == MediaKind::Video && layers.is_empty() {
        let (width, height) = (ask.width, ask.height);
        let quality = Quality::High;
        layers.push(Layer {
            quality,
            width,
            height,
            bitrate_bps: 0,
            ssrc: 0,
            spatial_layer: 0,
            rid: RIDS[0].to_owned(),
        });
    }
    let stream = if !ask.stream.is_empty() {
        ask.stream.clone()
    } else if matches!(ask.source, Source::ScreenShare | Source::ScreenShareAudio) {
        "screen".to_owned()
    } else {
        "camera".to_owned()
    };
    let mut track = Track {
        sid,
        kind: ask.kind,
        source: ask.source,
        name: ask.name.clone(),
        muted: ask.muted,
        width: ask.width,
        height: ask.height,
        simulcast: ask.kind == MediaKind::Video && layers.len() > 1,
        stream,
        mime: String::new(),
        mid: String::new(),
        codecs: Vec::new(),
        layers,
        encryption: ask.encryption,
        disable_red: ask.disable_red,
        audio_features: ask.audio_features.clone(),
        backup_codec_policy: ask.backup_codec_policy,
        version,
    };
    add_codec(&mut track, ask);
    track
}

/// Only the first codec is published; a codec we do not take is replaced by one we do, to which the client adapts.
fn add_codec(track: &mut Track, ask: &AddTrack) {
    let (asked, cid) = match ask.codecs.first() {
        Some((codec, cid)) if !cid.is_empty() => (codec.as_str(), cid.clone()),
        Some((codec, _)) => (codec.as_str(), ask.cid.clone()),
        None => ("", ask.cid.clone()),
    };
    let mime = match track.kind {
        MediaKind::Audio => AUDIO_MIME,
        MediaKind::Video => {
            let name = asked.rsplit('/').next().unwrap_or_default();
            VIDEO_MIMES.into_iter().find(|mime| mime.ends_with(&name.to_ascii_uppercase())).unwrap_or(VIDEO_MIMES[0])
        }
    };
    if track.codecs.iter().any(|codec| codec.cid == cid) || track.codecs.len() >= CODECS_MAX {
        return;
    }
    let layer_mode = layer_mode(track.kind, mime);
    let layers = track.layers.clone();
    if track.codecs.is_empty() {
        track.simulcast &= layer_mode == LayerMode::OneSpatialLayerPerStream;
    }
    track.codecs.push(TrackCodec { mime: mime.to_owned(), mid: String::new(), cid, layers, layer_mode });
}

fn layer_mode(kind: MediaKind, mime: &str) -> LayerMode {
    match kind {
        MediaKind::Audio => LayerMode::Unused,
        MediaKind::Video if SVC_MIMES.contains(&mime) => LayerMode::MultipleSpatialLayersPerStream,
        MediaKind::Video => LayerMode::OneSpatialLayerPerStream,
    }
}

/// Unix time for track versions, advanced by the monotonic clock and never repeated.
#[derive(Debug)]
struct Clock {
    started: Instant,
    unix_micros: i64,
    last: Version,
}

impl Clock {
    fn version(&mut self, now: Instant) -> Version {
        let passed = i64::try_from(now.saturating_duration_since(self.started).as_micros()).unwrap_or(i64::MAX);
        let unix_micros = self.unix_micros.saturating_add(passed);
        let ticks = if unix_micros == self.last.unix_micros { self.last.ticks.saturating_add(1) } else { 0 };
        self.last = Version { unix_micros, ticks };
        self.last
    }
}

/// Sids from the session's seed (SplitMix64): unique enough within a room, and no secret.
#[derive(Debug)]
pub(super) struct IdSource(u64);

impl IdSource {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn track(&mut self, kind: MediaKind, source: Source) -> TrackSid {
        let kind = match kind {
            MediaKind::Audio => 'A',
            MediaKind::Video => 'V',
        };
        let source = match source {
            Source::Camera => "C",
            Source::Microphone => "M",
            Source::ScreenShare => "S",
            Source::ScreenShareAudio => "s",
            Source::Unknown => "",
        };
        self.sid(format!("TR_{kind}{source}")).into()
    }

    pub(super) fn data_track(&mut self) -> DataTrackSid {
        self.sid("DTR_".to_owned()).into()
    }

    fn sid(&mut self, mut sid: String) -> String {
        let mut random = 0;
        for place in 0..SID_CHARACTERS {
            if place % 10 == 0 {
                random = self.next();
            }
            let index = usize::try_from(random % BASE57.len() as u64).unwrap_or_default();
            random /= BASE57.len() as u64;
            sid.push(char::from(BASE57[index]));
        }
        sid
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Layer names from low to high, as clients use them.
const RIDS: [&str; 3] = ["q", "h", "f"];

const AUDIO_MIME: &str = "audio/opus";

/// Video codecs taken from publishers, the preferred one first.
const VIDEO_MIMES: [&str; 4] = ["video/VP8", "video/H264", "video/VP9", "video/AV1"];

/// Of these a publisher sends all spatial layers in one stream.
const SVC_MIMES: [&str; 2] = ["video/VP9", "video/AV1"];

/// A track and its backup.
const CODECS_MAX: usize = 2;

const SID_CHARACTERS: usize = 12;

/// Without the characters people mistake for each other.
const BASE57: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
