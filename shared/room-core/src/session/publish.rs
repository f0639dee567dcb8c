//! What this participant publishes: announced tracks that wait for their section, and published ones.

use std::time::{Duration, Instant};

use plenary_model::{
    Codec, DataTrackSid, Layer, LayerMode, MediaKind, Permission, Quality, Source, Track, TrackCodec, TrackSid, Version,
};

use super::{Announced, Output, Published, Session};
use crate::{
    notice::Request,
    signal::{About, AddTrack, RequestOutcome, ServerSignal},
};

#[derive(Debug)]
pub(super) struct Publications {
    /// Announced by AddTrack, oldest first.
    announced: Vec<Waiting>,
    published: Vec<Track>,
    /// Tracks whose backup has a cid and no section yet, since when, oldest first.
    backups: Vec<(TrackSid, Instant)>,
    /// What is taken from the client, the preferred codec first.
    codecs: Vec<Codec>,
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
    pub(super) fn new(now: Instant, unix_micros: i64, seed: u64, codecs: Vec<Codec>) -> Self {
        Self {
            announced: Vec::new(),
            published: Vec::new(),
            backups: Vec::new(),
            codecs,
            clock: Clock { started: now, unix_micros, last: Version::default() },
            ids: IdSource(seed),
        }
    }

    pub(super) fn codecs(&self) -> &[Codec] {
        &self.codecs
    }

    /// What the next offer's sections may carry.
    pub(super) fn announced(&self) -> Vec<Announced> {
        let track = |waiting: &Waiting| Announced {
            track: waiting.track.clone(),
            cids: waiting
                .track
                .codecs
                .first()
                .map(|codec| codec.cid.clone())
                .into_iter()
                .chain([waiting.cid.clone()])
                .collect(),
        };
        let backup = |(sid, _): &(TrackSid, Instant)| {
            let track = self.find(sid)?;
            let codec = track.backup()?.clone();
            let (cids, layers) = (vec![codec.cid.clone()], codec.layers.clone());
            let sid = track.sid.backup();
            Some(Announced { track: Track { sid, layers, codecs: vec![codec], ..track.clone() }, cids })
        };
        self.announced.iter().map(track).chain(self.backups.iter().filter_map(backup)).collect()
    }

    pub(super) fn unmatched(&self) -> Vec<(String, Track)> {
        self.announced.iter().map(|waiting| (waiting.cid.clone(), waiting.track.clone())).collect()
    }

    pub(super) fn knows(&self, sid: &TrackSid) -> bool {
        self.find(sid).is_some()
    }

    pub(super) fn published(&self, sid: &TrackSid) -> Option<&Track> {
        self.published.iter().find(|track| track.sid == *sid)
    }

    /// Announced tracks whose sections the answer accepted are published from now on, and so are backups. Gives back their
    /// names in the media engine and what the tracks are then.
    pub(super) fn matched(&mut self, now: Instant, published: Vec<Published>) -> Vec<(TrackSid, Track)> {
        let (backups, published): (Vec<_>, Vec<_>) =
            published.into_iter().partition(|section| section.track.split_backup().1);
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
            // The client took another codec than it had announced.
            track.codecs.dedup_by(|backup, first| backup.mime == first.mime);
            self.published.push(track.clone());
            tracks.push((track.sid.clone(), track));
        }
        for Published { track: engine, mid, mime, .. } in backups {
            let (sid, _) = engine.split_backup();
            self.backups.retain(|(waiting, _)| *waiting != sid);
            let version = self.clock.version(now);
            // Without its track it is nothing that anybody could want.
            let Some(track) = self.published.iter_mut().find(|track| track.sid == sid) else { continue };
            let Some(codec) = track.codecs.get_mut(1) else { continue };
            codec.layer_mode = layer_mode(track.kind, &mime);
            (codec.mime, codec.mid) = (mime, mid);
            track.version = version;
            tracks.push((engine, track.clone()));
        }
        tracks
    }

    /// Of the tracks whose sections stopped, those that were published.
    pub(super) fn gone(&mut self, tracks: &[TrackSid]) -> Vec<Track> {
        self.backups.retain(|(waiting, _)| !tracks.contains(waiting));
        self.published.extract_if(.., |track| tracks.contains(&track.sid)).collect()
    }

    /// Tracks of which only the backup's section stopped.
    pub(super) fn backups_gone(&mut self, now: Instant, tracks: &[TrackSid]) -> Vec<Track> {
        let backups = tracks.iter().map(TrackSid::split_backup).filter(|(_, is_backup)| *is_backup);
        let withdraw = |track: &mut Track| {
            if let Some(codec) = track.codecs.get_mut(1) {
                codec.mid.clear();
                codec.cid.clear();
            }
        };
        backups.filter_map(|(sid, _)| self.update(now, &sid, withdraw)).collect()
    }

    pub(super) fn no_longer_allowed(&mut self, permission: &Permission) -> Vec<Track> {
        self.announced.retain(|waiting| may_publish(permission, waiting.track.source));
        let refused = self.published.iter().filter(|track| !may_publish(permission, track.source));
        let refused: Vec<_> = refused.map(|track| track.sid.clone()).collect();
        self.gone(&refused)
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
        self.backups.retain(|(_, since)| *since + timeout > now);
    }

    pub(super) fn oldest_unmatched(&self, timeout: Duration) -> Option<Instant> {
        let backups = self.backups.iter().map(|(_, since)| *since);
        self.announced.iter().map(|waiting| waiting.since).chain(backups).map(|since| since + timeout).min()
    }

    /// Gives a track's backup the cid under which the client publishes it now.
    fn announce_backup(&mut self, now: Instant, sid: &TrackSid, ask: &AddTrack) -> Result<Track, RequestOutcome> {
        let (codec, cid) = ask.codecs.first().map(|(codec, cid)| (codec.as_str(), cid)).unwrap_or(("", &ask.cid));
        let cid = if cid.is_empty() { &ask.cid } else { cid }.clone();
        let track = self.find(sid).ok_or(RequestOutcome::NotFound)?;
        let backup = backup(track, codec, &self.codecs, &cid, layers(ask)).ok_or(RequestOutcome::UnsupportedType)?;
        if track.backup().is_some_and(TrackCodec::is_published) {
            return Ok(track.clone());
        }
        self.backups.retain(|(waiting, _)| waiting != sid);
        self.backups.push((sid.clone(), now));
        let updated = self.update(now, sid, |track| {
            track.codecs.truncate(1);
            track.codecs.push(backup);
        });
        updated.ok_or(RequestOutcome::NotFound)
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
            match self.publications.announce_backup(now, sid, &ask) {
                Ok(track) => self.send(ServerSignal::TrackPublished { cid: ask.cid, track }),
                Err(RequestOutcome::NotFound) => self.respond(0, RequestOutcome::NotFound, "track not found", about),
                Err(why) => self.respond(0, why, "not a codec that this track can have as well", about),
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
        let version = self.publications.clock.version(now);
        let track = describe(&ask, sid, version, &self.publications.codecs);
        if track.backup().is_some_and(|backup| !backup.cid.is_empty()) {
            self.publications.backups.push((track.sid.clone(), now));
        }
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
            self.set_muted(&track);
            self.outputs.push_back(Output::Ask(Request::UpdateTrack { track }));
        }
    }
}

fn may_publish(permission: &Permission, source: Source) -> bool {
    let sources = &permission.can_publish_sources;
    permission.can_publish && (sources.is_empty() || sources.contains(&source))
}

/// The track as everybody will see it, from what the publisher announced.
fn describe(ask: &AddTrack, sid: TrackSid, version: Version, taken: &[Codec]) -> Track {
    let layers = layers(ask);
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
        // Of audio nobody takes them off again, so an audio publisher is told to append none.
        trailer_features: if ask.kind == MediaKind::Video { ask.trailer_features.clone() } else { Vec::new() },
        backup_codec_policy: ask.backup_codec_policy,
        version,
    };
    let asked = ask.codecs.first().map_or("", |(codec, _)| codec.as_str());
    let cid = ask.codecs.first().map(|(_, cid)| cid).filter(|cid| !cid.is_empty()).unwrap_or(&ask.cid).clone();
    let mime = match ask.kind {
        MediaKind::Audio => Codec::Opus,
        MediaKind::Video => taken_video(asked, taken).or_else(|| first_video(taken)).unwrap_or(Codec::Vp8),
    }
    .mime();
    let layer_mode = layer_mode(track.kind, mime);
    track.simulcast &= layer_mode == LayerMode::OneSpatialLayerPerStream;
    let layers = track.layers.clone();
    track.codecs.push(TrackCodec { mime: mime.to_owned(), mid: String::new(), cid, layers, layer_mode });
    if let Some((codec, cid)) = ask.codecs.get(1) {
        let layers = track.layers.clone();
        let backup = backup(&track, codec, taken, cid, layers);
        track.codecs.extend(backup);
    }
    track
}

/// From low to high, with the names that clients give them.
fn layers(ask: &AddTrack) -> Vec<Layer> {
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
    layers
}

/// A codec beside a track's first, if it is one that is taken and another.
fn backup(track: &Track, codec: &str, taken: &[Codec], cid: &str, layers: Vec<Layer>) -> Option<TrackCodec> {
    let mime = taken_video(codec, taken).filter(|_| track.kind == MediaKind::Video)?.mime();
    let is_first = track.codecs.first().is_some_and(|first| first.mime == mime);
    let layer_mode = layer_mode(track.kind, mime);
    let backup = TrackCodec { mime: mime.to_owned(), mid: String::new(), cid: cid.to_owned(), layers, layer_mode };
    (!is_first).then_some(backup)
}

fn taken_video(name: &str, taken: &[Codec]) -> Option<Codec> {
    Codec::named(name).filter(|codec| codec.kind() == MediaKind::Video && taken.contains(codec))
}

/// A codec that is not taken is replaced by this, to which the client adapts.
fn first_video(taken: &[Codec]) -> Option<Codec> {
    taken.iter().copied().find(|codec| codec.kind() == MediaKind::Video)
}

fn layer_mode(kind: MediaKind, mime: &str) -> LayerMode {
    match kind {
        MediaKind::Audio => LayerMode::Unused,
        MediaKind::Video if matches!(Codec::named(mime), Some(Codec::Vp9 | Codec::Av1)) => {
            LayerMode::MultipleSpatialLayersPerStream
        }
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

const SID_CHARACTERS: usize = 12;

/// Without the characters people mistake for each other.
const BASE57: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
