//! What this router wants of others: the tracks and streams that its own subscribers want now, each once.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use plenary_model::{Source, TrackSid};
use prost::Message;

use super::{
    Router,
    counters::Counters,
    distribute::{Exits, distribute},
    peer::Role,
    track::{Encoding, RemoteStream, Track, TrackOrigin},
};
use crate::{
    DropReason, Event, LayerSize,
    forward::Layering,
    ingress::{KeyframeRequests, LAYER_INTERVAL, Repair, Stream, StreamConfig, after},
    levels::{AudioLevels, WINDOW},
    link::{KeyRequest, Report, TrackInfo, Want, WantedTrack, media},
    rtp::{Codec, Header, StreamId},
    session_description::{Extensions, SendCodec},
};

/// What is wanted over one link.
#[derive(Debug)]
pub(super) struct Pulls {
    tracks: HashMap<TrackSid, Pull>,
    /// Of the tracks that were told of.
    streams: HashMap<u32, (TrackSid, StreamId)>,
    /// Versions that made no sense here: not to be told again.
    refused: HashMap<TrackSid, u64>,
    version: u64,
    repeat_due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pull {
    wish: Wish,
    /// Since when nothing is wanted of it.
    released: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wish {
    /// Bit n: its nth stream.
    streams: u8,
    top: Option<u8>,
    known_version: u64,
}

impl Pulls {
    pub(super) fn new(now: Instant) -> Self {
        Self { tracks: HashMap::new(), streams: HashMap::new(), refused: HashMap::new(), version: 0, repeat_due: now }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    pub(super) fn streams(&self) -> usize {
        let counts =
            self.tracks.values().map(|pull| usize::try_from(pull.wish.streams.count_ones()).unwrap_or_default());
        counts.sum()
    }

    /// Takes over what is wanted now; the tracks of which something changed.
    fn update(&mut self, now: Instant, wanted: &HashMap<TrackSid, Wish>, counters: &Counters) -> Vec<TrackSid> {
        let mut changed = Vec::new();
        self.refused.retain(|track, _| wanted.contains_key(track));
        self.tracks.retain(|_, pull| pull.released.is_none_or(|since| now < after(since, RELEASED_TOLD)));
        for (track, pull) in &mut self.tracks {
            if !wanted.contains_key(track) && pull.released.is_none() {
                *pull = Pull { wish: Wish::default(), released: Some(now) };
                changed.push(track.clone());
            }
        }
        for (track, wish) in wanted {
            let pull = Pull { wish: *wish, released: None };
            if self.tracks.get(track) == Some(&pull) {
                continue;
            }
            if self.tracks.contains_key(track) || self.tracks.len() < PULLS_MAX {
                self.tracks.insert(track.clone(), pull);
                changed.push(track.clone());
            } else {
                counters.count_drop(DropReason::LinkOverLimit);
            }
        }
        changed
    }

    /// These wishes in messages that fit into a datagram each.
    fn messages(&mut self, tracks: &[TrackSid]) -> Vec<Want> {
        let mut messages: Vec<(usize, Want)> = Vec::new();
        for (sid, pull) in tracks.iter().filter_map(|sid| Some((sid, self.tracks.get(sid)?))) {
            let wanted = WantedTrack {
                track: sid.as_str().to_owned(),
                streams: pull.wish.streams.into(),
                top: pull.wish.top.map(u32::from),
                known_version: pull.wish.known_version,
                released: pull.released.is_some(),
            };
            let bytes = wanted.encoded_len().saturating_add(4);
            match messages.last_mut().filter(|(sum, _)| sum.saturating_add(bytes) <= MESSAGE_BYTES) {
                Some((sum, message)) => {
                    *sum = sum.saturating_add(bytes);
                    message.tracks.push(wanted);
                }
                None => {
                    self.version = self.version.saturating_add(1);
                    messages.push((bytes, Want { version: self.version, tracks: vec![wanted] }));
                }
            }
        }
        messages.into_iter().map(|(_, message)| message).collect()
    }
}

impl Router {
    /// Looks what is wanted of a router, and says it.
    pub(super) fn pull(&mut self, now: Instant, slot: usize) {
        let wanted = self.wanted_of(slot);
        let Some(entry) = self.links.entry(slot) else { return };
        let mut told = entry.pulls.update(now, &wanted, &self.counters);
        if !entry.link.is_up() {
            return;
        }
        if entry.pulls.repeat_due <= now {
            entry.pulls.repeat_due = after(now, REPEAT);
            told = entry.pulls.tracks.keys().cloned().collect();
        }
        for message in entry.pulls.messages(&told) {
            entry.link.send_control(now, &message, &self.counters);
        }
        let again_after = entry.link.rtt().saturating_add(KEY_REQUEST_SLACK);
        for (id, (sid, stream)) in &entry.pulls.streams {
            let track = self.tracks.get_mut(sid);
            let Some(encoding) = track.and_then(|track| track.encodings.get_mut(usize::from(stream.0))) else {
                continue;
            };
            let is_wanted = wanted.get(sid).is_some_and(|wish| wish.streams & bit(*stream) != 0);
            if !is_wanted {
                encoding.keyframes.withdraw();
            }
            encoding.keyframes.set_interval(again_after);
            if encoding.keyframes.poll(now) {
                self.counters.keyframe_requests.add(1);
                entry.link.send_control(now, &KeyRequest { stream: *id }, &self.counters);
            }
        }
    }

    /// What subscribers want of a router. Tracks that were told of and that nobody wants any more are forgotten.
    fn wanted_of(&mut self, slot: usize) -> HashMap<TrackSid, Wish> {
        let mut wanted = HashMap::new();
        let mut unused = Vec::new();
        for track in self.tracks.values().filter(|track| track.is_from_link(slot)) {
            if track.receivers.is_empty() {
                unused.push(track.sid.clone());
                continue;
            }
            let streams = |peer: usize, subscription| match &self.peers.get(peer)?.role {
                Role::Subscriber(subscriber) => Some(subscriber.streams(subscription)),
                Role::Publisher(_) => None,
            };
            let each = track.receivers.iter().filter_map(|receiver| streams(receiver.peer, receiver.slot));
            let wish = Wish {
                streams: each.fold(0, |all, one| all | one),
                top: track.demand_here(),
                known_version: track.version,
            };
            wanted.insert(track.sid.clone(), wish);
        }
        for track in unused {
            self.forget_track(slot, &track);
        }
        let Some(entry) = self.links.entry(slot) else { return wanted };
        let (router, refused) = (entry.link.peer.clone(), entry.pulls.refused.clone());
        for peer in self.peers.slots().filter_map(|at| self.peers.get(at)) {
            if let Role::Subscriber(subscriber) = &peer.role {
                let unmet = subscriber.unmet().iter().filter(|wish| wish.from.as_ref() == Some(&router));
                unmet.for_each(|wish| {
                    let known_version = refused.get(&wish.track).copied().unwrap_or_default();
                    wanted.entry(wish.track.clone()).or_insert(Wish { known_version, ..Wish::default() });
                });
            }
        }
        wanted
    }

    /// Hot. A packet of a stream of another router.
    pub(super) fn on_link_media(&mut self, now: Instant, slot: usize, content: &[u8]) -> Result<(), DropReason> {
        let (id, packet) = media(content).ok_or(DropReason::LinkMalformed)?;
        let mut header = Header::parse(packet).map_err(|error| error.reason())?;
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        let (sid, at) = entry.pulls.streams.get(&id).ok_or(DropReason::LinkUnknownStream)?;
        let track = self.tracks.get_mut(sid).ok_or(DropReason::LinkUnknownStream)?;
        if let Some(level) = track.extensions.audio_level.and_then(|id| header.audio_level(packet, id)) {
            track.levels.record(level.below_overload_db);
            if self.levels_due.is_none() {
                self.levels_due = Some(after(now, WINDOW));
            }
        }
        let (codec, at) = (track.codec, *at);
        let encoding = track.encodings.get_mut(usize::from(at.0)).ok_or(DropReason::LinkUnknownStream)?;
        let is_new = encoding.stream.is_none();
        if is_new || encoding.remote.ssrc != Some(header.ssrc) {
            (encoding.remote.ssrc, encoding.remote.is_withheld) = (Some(header.ssrc), false);
            encoding.stream = Some(Stream::new(StreamConfig {
                // A name of our own: after an outage the publisher's numbers may have gone round.
                ssrc: self.random.ssrc(),
                codec,
                clock_rate: track.send_codec.clock_rate(),
                // Repair is the link's.
                repair: Repair::Unavailable,
                dependency_id: track.extensions.dependency,
            }));
        }
        let stream = encoding.stream.as_mut().ok_or(DropReason::LinkUnknownStream)?;
        header.ssrc = stream.ssrc();
        // Its jitter is told to nobody, so it does not matter how long it lay in the socket.
        let ingested = stream.receive(now, now, &header, packet)?;
        if ingested.frame.keyframe {
            encoding.keyframes.arrived();
        }
        if is_new {
            let sid = track.sid.clone();
            self.on_new_stream(now, &sid);
        }
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        let (sid, _) = entry.pulls.streams.get(&id).ok_or(DropReason::LinkUnknownStream)?;
        let track = self.tracks.get(sid).ok_or(DropReason::LinkUnknownStream)?;
        let Self { peers, spares, ready, events, counters, .. } = self;
        distribute(now, track, at, &[(header, ingested)], Exits { peers, spares, ready, events, counters });
        Ok(())
    }

    /// A wanted track is there, or has changed.
    pub(super) fn on_track_info(&mut self, now: Instant, slot: usize, info: TrackInfo) -> Result<(), DropReason> {
        let sid = TrackSid::from(info.track.as_str());
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        if entry.pulls.tracks.get(&sid).is_none_or(|pull| pull.released.is_some()) {
            return Ok(());
        }
        let is_same = match self.tracks.get(&sid) {
            Some(known) if !known.is_from_link(slot) => return Err(DropReason::LinkUnknownStream),
            Some(known) if known.version >= info.version => return Ok(()),
            Some(known) => entry.pulls.is_same(known, &info),
            None => false,
        };
        self.links.stir_one(now, slot);
        if is_same {
            if let Some(track) = self.tracks.get_mut(&sid) {
                track.version = info.version;
                let was_muted = track.muted;
                if was_muted != info.muted {
                    self.set_muted(now, &sid, info.muted);
                }
            }
            return Ok(());
        }
        if self.tracks.contains_key(&sid) {
            self.on_gone(now, slot, &sid);
        }
        let Some(new) = remote_track(slot, &info) else {
            if let Some(entry) = self.links.entry(slot) {
                entry.pulls.refused.insert(sid, info.version);
            }
            return Err(DropReason::LinkMalformed);
        };
        if let Some(entry) = self.links.entry(slot) {
            let numbers = info.streams.iter().zip(0u8..);
            entry.pulls.streams.extend(numbers.map(|(id, at)| (*id, (sid.clone(), StreamId(at)))));
        }
        self.tracks.insert(sid.clone(), new);
        self.counters.tracks.set(self.tracks.len());
        for at in self.peers.slots().collect::<Vec<_>>() {
            let Some(peer) = self.peers.at(at) else { continue };
            let Role::Subscriber(subscriber) = &mut peer.role else { continue };
            let (id, before) = (peer.id, subscriber.len());
            if subscriber.track_found(now, at, &sid, &mut self.tracks, &mut self.random) {
                self.events.push_back(Event::OfferNeeded { peer: id });
            }
            self.counters.subscriptions.moved(before, subscriber.len());
        }
        Ok(())
    }

    /// A track that was told of is not there any more.
    pub(super) fn on_gone(&mut self, now: Instant, slot: usize, sid: &TrackSid) {
        if self.tracks.get(sid).is_some_and(|track| track.is_from_link(slot)) {
            self.unpublish(sid);
            if let Some(entry) = self.links.entry(slot) {
                entry.pulls.streams.retain(|_, (of, _)| of != sid);
                entry.pulls.refused.remove(sid);
            }
            self.links.stir_one(now, slot);
        }
    }

    pub(super) fn on_report(&mut self, now: Instant, slot: usize, report: &Report) {
        let Some(entry) = self.links.entry(slot) else { return };
        let half = entry.link.rtt().checked_div(2).unwrap_or_default();
        for one in &report.streams {
            let Some((sid, at)) = entry.pulls.streams.get(&one.stream) else { continue };
            let track = self.tracks.get_mut(sid);
            let Some(encoding) = track.and_then(|track| track.encodings.get_mut(usize::from(at.0))) else { continue };
            encoding.remote.alive = one.alive.then_some(now);
            if !std::mem::replace(&mut encoding.remote.is_withheld, !one.alive) && !one.alive {
                // What comes after it is no continuation, but begins anew.
                encoding.stream = None;
            }
            encoding.remote.bits_per_second = one.bits_per_second;
            if let (Some(ntp), Some(stream)) = (one.ntp, &mut encoding.stream) {
                let age = Duration::from_micros(one.age_us).saturating_add(half);
                stream.on_sender_report(now.checked_sub(age).unwrap_or(now), ntp, one.rtp);
            }
        }
    }

    /// The link is gone: its tracks stay, and their streams begin anew.
    pub(super) fn forget_streams(&mut self, slot: usize) {
        for track in self.tracks.values_mut().filter(|track| track.is_from_link(slot)) {
            for encoding in &mut track.encodings {
                (encoding.stream, encoding.remote) = (None, RemoteStream::default());
            }
        }
    }

    /// Nobody wants it any more.
    fn forget_track(&mut self, slot: usize, sid: &TrackSid) {
        self.tracks.remove(sid);
        self.counters.tracks.set(self.tracks.len());
        if let Some(entry) = self.links.entry(slot) {
            entry.pulls.streams.retain(|_, (of, _)| of != sid);
        }
    }
}

impl Pulls {
    /// Whether only what may change without beginning anew differs.
    fn is_same(&self, known: &Track, info: &TrackInfo) -> bool {
        let Some(new) = remote_track(0, info) else { return false };
        let numbers = info.streams.iter().zip(0u8..);
        let mut named = numbers.map(|(id, at)| self.streams.get(id) == Some(&(known.sid.clone(), StreamId(at))));
        named.all(|same| same)
            && known.encodings.len() == new.encodings.len()
            && known.send_codec == new.send_codec
            && known.extensions == new.extensions
            && known.red_payload_type == new.red_payload_type
            && (known.layering, known.stereo, known.trailers) == (new.layering, new.stereo, new.trailers)
            && known.sizes == new.sizes
    }
}

/// A track as another router tells it. `None` if that makes no sense here.
fn remote_track(slot: usize, info: &TrackInfo) -> Option<Track> {
    let codec = Codec::of_mime(&info.mime)?;
    let send_codec = SendCodec::of_mime(&info.mime, &info.fmtp, info.red_payload_type.is_some())?;
    if info.streams.is_empty() || info.streams.len() > STREAMS_MAX || info.layers.len() > STREAMS_MAX {
        return None;
    }
    let id = |id: u32| u8::try_from(id).ok().filter(|id| *id > 0);
    let size = |layer: &crate::link::LayerInfo| LayerSize {
        rid: layer.rid.clone(),
        width: layer.width,
        height: layer.height,
        bitrate_bps: layer.bitrate_bps,
    };
    let encoding =
        || Encoding { stream: None, keyframes: KeyframeRequests::new(LAYER_INTERVAL), remote: RemoteStream::default() };
    let mut extensions = Extensions::default();
    extensions.audio_level = id(info.audio_level_id);
    extensions.orientation = id(info.orientation_id);
    extensions.dependency = id(info.dependency_id);
    Some(Track {
        sid: info.track.as_str().into(),
        participant: info.participant.as_str().into(),
        origin: TrackOrigin::Link(slot),
        version: info.version,
        kind: send_codec.kind(),
        source: source(info.source),
        spoke: None,
        codec,
        muted: info.muted,
        layering: if info.svc { Layering::Svc } else { Layering::Simulcast },
        sizes: info.layers.iter().map(size).collect(),
        encodings: std::iter::repeat_with(encoding).take(info.streams.len()).collect(),
        receivers: Vec::new(),
        pullers: Vec::new(),
        first_stream: 0,
        demand: None,
        extensions,
        send_codec,
        red_payload_type: info.red_payload_type.and_then(|number| u8::try_from(number).ok()),
        stereo: info.stereo,
        trailers: info.trailers,
        levels: AudioLevels::default(),
        heard: false,
    })
}

/// The number that a source has in messages, and back.
const SOURCES: [Source; 5] =
    [Source::Unknown, Source::Camera, Source::Microphone, Source::ScreenShare, Source::ScreenShareAudio];

pub(super) fn source_number(source: Source) -> u32 {
    SOURCES.iter().zip(0u32..).find(|(one, _)| **one == source).map_or(0, |(_, number)| number)
}

fn source(number: u32) -> Source {
    let at = usize::try_from(number).unwrap_or(usize::MAX);
    SOURCES.get(at).copied().unwrap_or_default()
}

fn bit(stream: StreamId) -> u8 {
    1u8.checked_shl(stream.0.into()).unwrap_or_default()
}

/// Wishes over one link, those that are over and still told included.
const PULLS_MAX: usize = 4_096;
/// Streams, and layers, of a track: as many as a wish has bits.
pub(super) const STREAMS_MAX: usize = 8;
const REPEAT: Duration = Duration::from_millis(500);
/// As long as a wish that is not repeated would count.
const RELEASED_TOLD: Duration = Duration::from_secs(2);
/// Beyond the round trip, for the publisher to make a key frame.
const KEY_REQUEST_SLACK: Duration = Duration::from_millis(100);
/// Of a message that is one of several.
const MESSAGE_BYTES: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_are_told_in_datagrams_and_are_bounded() {
        let (now, counters) = (Instant::now(), Counters::default());
        let wish = Wish { streams: 7, top: Some(2), known_version: 1 << 40 };
        let wanted: HashMap<_, _> = (0..PULLS_MAX + 9).map(|at| (format!("TR_{at:020}").into(), wish)).collect();
        let mut pulls = Pulls::new(now);
        let told = pulls.update(now, &wanted, &counters);
        assert_eq!((told.len(), counters.dropped(DropReason::LinkOverLimit)), (PULLS_MAX, 9));
        let messages = pulls.messages(&told);
        assert!(messages.iter().all(|message| message.encoded_len() < 1_100), "each fits into a datagram");
        assert!(messages.is_sorted_by_key(|message| message.version));
        assert_eq!(messages.iter().map(|message| message.tracks.len()).sum::<usize>(), PULLS_MAX);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_said_for_two_seconds() {
        let (now, counters) = (Instant::now(), Counters::default());
        let mut pulls = Pulls::new(now);
        let wanted = HashMap::from([(TrackSid::from("TR_1"), Wish { streams: 1, ..Wish::default() })]);
        assert_eq!(pulls.update(now, &wanted, &counters), [TrackSid::from("TR_1")]);
        assert!(pulls.update(now, &wanted, &counters).is_empty(), "it is no news");
        assert_eq!(pulls.update(now, &HashMap::new(), &counters), [TrackSid::from("TR_1")]);
        assert!(pulls.messages(&["TR_1".into()])[0].tracks[0].released);
        pulls.update(after(now, RELEASED_TOLD), &HashMap::new(), &counters);
        assert!(pulls.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_no_track() {
        let sound = TrackInfo {
            track: "TR_1".to_owned(),
            mime: "audio/opus".to_owned(),
            streams: vec![1],
            ..TrackInfo::default()
        };
        assert!(remote_track(0, &sound).is_some());
        for (mime, streams) in [("audio/red", 1), ("video/H265", 1), ("x", 1), ("audio/opus", 0), ("video/VP8", 9)] {
            let info = TrackInfo { mime: mime.to_owned(), streams: (0..streams).collect(), ..sound.clone() };
            assert!(remote_track(0, &info).is_none(), "{mime} in {streams} streams");
        }
    }
}
