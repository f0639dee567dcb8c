//! What this router wants of others: the tracks and streams that its own subscribers want now, each once.

use std::time::{Duration, Instant};

use plenary_model::{MediaKind, Source, TrackSid};
use prost::Message;
use rustc_hash::FxHashMap;

use super::{
    Router,
    counters::Counters,
    distribute::{Exits, distribute},
    peer::Role,
    track::{Encoding, Receiver, RemoteStream, Track, TrackOrigin},
};
use crate::{
    DropReason, Event, LayerSize, RouterId,
    forward::Layering,
    ingress::{KeyframeRequests, LAYER_INTERVAL, Repair, Stream, StreamConfig, after},
    levels::{AudioLevels, WINDOW},
    link::{Gone, KeyRequest, Report, TrackInfo, Want, WantedTrack, media, router_name},
    rtp::{Codec, Header, StreamId},
    session_description::{Extensions, SendCodec},
};

/// What is wanted over one link.
#[derive(Debug)]
pub(super) struct Pulls {
    tracks: FxHashMap<TrackSid, Pull>,
    /// Of the tracks that were told of.
    streams: FxHashMap<u32, (TrackSid, StreamId)>,
    version: u64,
    repeat_due: Instant,
}

#[derive(Debug, Clone)]
struct Pull {
    wish: Wish,
    /// Of what was told of it last over this link, whether or not that made sense; 0 is nothing.
    known_version: u64,
    /// What the other side has not been told yet.
    is_news: bool,
    /// Since when nothing is wanted of it.
    released: Option<Instant>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// Where it is published, if that is not behind this link.
    origin: Option<RouterId>,
    /// Bit n: its nth stream.
    streams: u8,
    top: Option<u8>,
}

impl Pulls {
    pub(super) fn new(now: Instant) -> Self {
        Self { tracks: FxHashMap::default(), streams: FxHashMap::default(), version: 0, repeat_due: now }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    pub(super) fn streams(&self) -> usize {
        let counts =
            self.tracks.values().map(|pull| usize::try_from(pull.wish.streams.count_ones()).unwrap_or_default());
        counts.sum()
    }

    /// Whether a track was told of over this link.
    pub(super) fn is_told(&self, track: &TrackSid) -> bool {
        self.tracks.get(track).is_some_and(Pull::is_told)
    }

    /// Whether any track of a router behind another link was.
    pub(super) fn is_told_of(&self, router: &RouterId) -> bool {
        self.tracks.values().any(|pull| pull.is_told() && pull.wish.origin.as_ref() == Some(router))
    }

    /// Takes over what is wanted now; the tracks of which there is something new to say.
    fn update(&mut self, now: Instant, wanted: &FxHashMap<TrackSid, Wish>, counters: &Counters) -> Vec<TrackSid> {
        self.tracks.retain(|_, pull| pull.released.is_none_or(|since| now < after(since, RELEASED_TOLD)));
        for (track, pull) in &mut self.tracks {
            if !wanted.contains_key(track) && pull.released.is_none() {
                let wish = Wish { origin: pull.wish.origin.take(), ..Wish::default() };
                *pull = Pull { wish, known_version: 0, is_news: true, released: Some(now) };
                self.streams.retain(|_, (of, _)| of != track);
            }
        }
        for (track, wish) in wanted {
            let known = self.tracks.get(track);
            if known.is_some_and(|known| known.released.is_none() && known.wish == *wish) {
                continue;
            }
            let is_same = |known: &&Pull| known.wish.origin == wish.origin;
            let known_version = known.filter(is_same).map_or(0, |known| known.known_version);
            if known.is_some() || self.tracks.len() < PULLS_MAX {
                let pull = Pull { wish: wish.clone(), known_version, is_news: true, released: None };
                self.tracks.insert(track.clone(), pull);
            } else {
                counters.count_drop(DropReason::LinkOverLimit);
            }
        }
        let news =
            self.tracks.iter_mut().filter_map(|(track, pull)| std::mem::take(&mut pull.is_news).then_some(track));
        news.cloned().collect()
    }

    /// These wishes in messages that fit into a datagram each. Who does not relay is asked for its own tracks only.
    fn messages(&mut self, tracks: &[TrackSid], relays: bool) -> Vec<Want> {
        let mut messages: Vec<(usize, Want)> = Vec::new();
        for (sid, pull) in tracks.iter().filter_map(|sid| Some((sid, self.tracks.get(sid)?))) {
            if pull.wish.origin.is_some() && !relays {
                continue;
            }
            let wanted = WantedTrack {
                track: sid.as_str().to_owned(),
                streams: pull.wish.streams.into(),
                top: pull.wish.top.map(u32::from),
                known_version: pull.known_version,
                released: pull.released.is_some(),
                origin: pull.wish.origin.as_ref().map(router_name),
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

    /// A track is not there any more. If it is still wanted and comes back, it is to be told of again.
    pub(super) fn forget(&mut self, track: &TrackSid) {
        self.streams.retain(|_, (of, _)| of != track);
        if let Some(pull) = self.tracks.get_mut(track).filter(|pull| pull.is_told()) {
            (pull.known_version, pull.is_news) = (0, true);
        }
    }

    /// What is wanted.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&TrackSid, u8)> {
        let wanted = self.tracks.iter().filter(|(_, pull)| pull.released.is_none());
        wanted.map(|(track, pull)| (track, pull.wish.streams))
    }
}

impl Pull {
    fn is_told(&self) -> bool {
        self.known_version > 0
    }
}

impl Router {
    /// Looks what is wanted of a router, and says it.
    pub(super) fn pull(&mut self, now: Instant, slot: usize) {
        self.forget_unwanted(slot);
        let wanted = self.wishes(slot);
        let Some(entry) = self.links.entry(slot) else { return };
        let mut told = entry.pulls.update(now, &wanted, &self.counters);
        if !entry.link.is_up() {
            return;
        }
        if entry.pulls.repeat_due <= now {
            entry.pulls.repeat_due = after(now, REPEAT);
            told = entry.pulls.tracks.keys().cloned().collect();
        }
        for message in entry.pulls.messages(&told, entry.link.relays()) {
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

    /// Forgets tracks of the router behind a link that were told of and that nobody wants any more.
    fn forget_unwanted(&mut self, slot: usize) {
        let Self { links, tracks, .. } = self;
        let Some(peer) = links.entry(slot).map(|entry| entry.link.peer.clone()) else { return };
        let is_unwanted = |track: &&Track| {
            track.is_from_link(slot) && !track.is_received_here() && !links.is_relayed(&peer, &track.sid)
        };
        let unwanted: Vec<_> = tracks.values().filter(is_unwanted).map(|track| track.sid.clone()).collect();
        for sid in &unwanted {
            tracks.remove(sid);
            links.forget_track(sid);
        }
        if !unwanted.is_empty() {
            self.counters.tracks.set(self.tracks.len());
        }
    }

    /// What is wanted over a link: what its router publishes, for who is here and for other routers that do not reach it;
    /// and, for who is here alone, what routers publish that this one reaches only through it.
    fn wishes(&self, slot: usize) -> FxHashMap<TrackSid, Wish> {
        let Some(entry) = self.links.at(slot) else { return FxHashMap::default() };
        let mut wanted = self.own_wishes(slot, None);
        for (_, sid) in self.links.relayed(&entry.link.peer).filter(|(asking, _)| *asking != slot) {
            let wish = wanted.entry(sid.clone()).or_default();
            let pullers = self.tracks.get(sid).into_iter().flat_map(|track| &track.pullers);
            for puller in pullers {
                wish.streams |= puller.streams;
                wish.top = wish.top.max(puller.demand);
            }
        }
        for (home, there) in self.links.entries().filter(|(_, there)| there.way.through() == Some(slot)) {
            for (sid, wish) in self.own_wishes(home, Some(&there.link.peer)) {
                wanted.entry(sid).or_insert(wish);
            }
        }
        wanted
    }

    /// What subscribers here want of the router behind a link. `origin`: its name, if it is somebody else that is asked.
    pub(super) fn own_wishes(&self, slot: usize, origin: Option<&RouterId>) -> FxHashMap<TrackSid, Wish> {
        let mut wanted = FxHashMap::default();
        let Some(entry) = self.links.at(slot) else { return wanted };
        let of_it = |track: &&Track| track.is_from_link(slot) && track.is_received_here();
        for track in self.tracks.values().filter(of_it) {
            let streams = |receiver: &Receiver| match &self.peers.get(receiver.peer)?.role {
                Role::Subscriber(subscriber) => Some(subscriber.streams(receiver.slot)),
                Role::Publisher(_) => None,
            };
            let tapped = self.taps.streams(&track.sid);
            let streams = track.receivers.iter().filter_map(streams).fold(tapped, |all, one| all | one);
            let wish = Wish { origin: origin.cloned(), streams, top: track.demand_here() };
            wanted.insert(track.sid.clone(), wish);
        }
        for peer in self.peers.slots().filter_map(|at| self.peers.get(at)) {
            if let Role::Subscriber(subscriber) = &peer.role {
                let unmet = subscriber.unmet().iter().filter(|wish| wish.from.as_ref() == Some(&entry.link.peer));
                for wish in unmet {
                    let unknown = || Wish { origin: origin.cloned(), ..Wish::default() };
                    wanted.entry(wish.track.clone()).or_insert_with(unknown);
                }
            }
        }
        for track in self.taps.unmet(&entry.link.peer) {
            wanted.entry(track.clone()).or_insert_with(|| Wish { origin: origin.cloned(), ..Wish::default() });
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
        let packets = [(header, ingested)];
        if track.is_from_link(slot) {
            // Whatever came through another router ends here.
            self.links.forward(now, track, at, &packets, &self.counters);
        }
        let Self { peers, spares, ready, events, taps, counters, .. } = self;
        distribute(now, track, at, &packets, Exits { peers, spares, ready, events, taps, counters });
        Ok(())
    }

    /// A wanted track is there, or has changed.
    pub(super) fn on_track_info(&mut self, now: Instant, slot: usize, info: TrackInfo) -> Result<(), DropReason> {
        let sid = TrackSid::from(info.track.as_str());
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        let Some(pull) = entry.pulls.tracks.get_mut(&sid).filter(|pull| pull.released.is_none()) else { return Ok(()) };
        if pull.known_version >= info.version {
            return Ok(());
        }
        (pull.known_version, pull.is_news) = (info.version, true);
        let origin = pull.wish.origin.clone();
        self.links.stir_one(now, slot);
        let home = origin.map_or(Some(slot), |origin| self.links.slot(&origin));
        let home = home.ok_or(DropReason::LinkUnknownRouter)?;
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        match self.tracks.get(&sid) {
            Some(known) if !known.is_from_link(home) => return Err(DropReason::LinkUnknownStream),
            Some(known) if entry.pulls.is_same(known, &info) => {
                let was_muted = known.muted;
                entry.pulls.name_streams(&sid, &info);
                if was_muted != info.muted {
                    self.set_muted(now, &sid, info.muted);
                }
                return Ok(());
            }
            Some(_) => self.unpublish(&sid),
            None => {}
        }
        let mut new = remote_track(home, &info).ok_or(DropReason::LinkMalformed)?;
        self.links.name(&mut new);
        self.tracks.insert(sid.clone(), new);
        self.counters.tracks.set(self.tracks.len());
        if let Some(entry) = self.links.entry(slot) {
            entry.pulls.name_streams(&sid, &info);
            // Forgotten with what it was before.
            entry.pulls.know(&sid, info.version);
        }
        for at in self.peers.slots().collect::<Vec<_>>() {
            let Some(peer) = self.peers.at(at) else { continue };
            let Role::Subscriber(subscriber) = &mut peer.role else { continue };
            let (id, before) = (peer.id, subscriber.len());
            if subscriber.track_found(now, at, &sid, &mut self.tracks, &mut self.random) {
                self.events.push_back(Event::OfferNeeded { peer: id });
            }
            self.counters.subscriptions.moved(before, subscriber.len());
        }
        self.aim_taps(now);
        // Who asked for it through this router is told now.
        self.links.stir(now);
        Ok(())
    }

    /// A track that was told of is not there any more, or who was asked for it cannot reach its router.
    pub(super) fn on_gone(&mut self, now: Instant, slot: usize, gone: &Gone) {
        let sid = TrackSid::from(gone.track.as_str());
        let Some(entry) = self.links.entry(slot) else { return };
        let Some(pull) = entry.pulls.tracks.get(&sid).filter(|pull| pull.released.is_none()) else { return };
        let origin = pull.wish.origin.clone();
        let home = origin.as_ref().map_or(Some(slot), |origin| self.links.slot(origin));
        let Some(home) = home else { return };
        if gone.unreachable {
            self.forsake(home, slot);
        } else if self.tracks.get(&sid).is_some_and(|track| track.is_from_link(home)) {
            self.unpublish(&sid);
        }
        self.links.stir_one(now, slot);
        self.links.stir_one(now, home);
    }

    pub(super) fn on_report(&mut self, now: Instant, slot: usize, report: &Report) {
        let Some(entry) = self.links.entry(slot) else { return };
        let half = entry.link.rtt().checked_div(2).unwrap_or_default();
        for one in &report.streams {
            let Some((sid, at)) = entry.pulls.streams.get(&one.stream) else { continue };
            let is_relayed = entry.pulls.tracks.get(sid).is_some_and(|pull| pull.wish.origin.is_some());
            if !is_relayed && !entry.way.is_straight() {
                // Of a way that nothing depends on yet.
                continue;
            }
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

    /// The link is gone: the tracks that came straight over it stay, and their streams begin anew.
    pub(super) fn forget_streams(&mut self, slot: usize) {
        if self.links.entry(slot).is_none_or(|entry| !entry.way.is_straight()) {
            return;
        }
        for track in self.tracks.values_mut().filter(|track| track.is_from_link(slot)) {
            for encoding in &mut track.encodings {
                (encoding.stream, encoding.remote) = (None, RemoteStream::default());
            }
        }
    }

    /// The tracks of the router behind a link come another way from now on. What comes first is no continuation.
    pub(super) fn begin_anew(&mut self, slot: usize) {
        for track in self.tracks.values_mut().filter(|track| track.is_from_link(slot)) {
            for encoding in &mut track.encodings {
                if encoding.stream.take().is_some() && track.kind == MediaKind::Video {
                    encoding.keyframes.need();
                }
            }
        }
    }
}

impl Pulls {
    /// Whether only what may change without beginning anew differs.
    fn is_same(&self, known: &Track, info: &TrackInfo) -> bool {
        let Some(new) = remote_track(0, info) else { return false };
        // By another way they have other numbers, and have none over this link yet.
        let has_none = self.streams.values().all(|(of, _)| *of != known.sid);
        let numbers = info.streams.iter().zip(0u8..);
        let mut named = numbers.map(|(id, at)| self.streams.get(id) == Some(&(known.sid.clone(), StreamId(at))));
        (has_none || named.all(|same| same))
            && known.encodings.len() == new.encodings.len()
            && known.send_codec == new.send_codec
            && known.extensions == new.extensions
            && known.red_payload_type == new.red_payload_type
            && (known.layering, known.stereo, known.trailers) == (new.layering, new.stereo, new.trailers)
            && known.sizes == new.sizes
    }

    fn name_streams(&mut self, sid: &TrackSid, info: &TrackInfo) {
        let numbers = info.streams.iter().zip(0u8..);
        self.streams.extend(numbers.map(|(id, at)| (*id, (sid.clone(), StreamId(at)))));
    }

    fn know(&mut self, sid: &TrackSid, version: u64) {
        if let Some(pull) = self.tracks.get_mut(sid) {
            pull.known_version = version;
        }
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
        is_tapped: false,
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
        let wish = Wish { origin: None, streams: 7, top: Some(2) };
        let wanted: FxHashMap<_, _> =
            (0..PULLS_MAX + 9).map(|at| (format!("TR_{at:020}").into(), wish.clone())).collect();
        let mut pulls = Pulls::new(now);
        let told = pulls.update(now, &wanted, &counters);
        assert_eq!((told.len(), counters.dropped(DropReason::LinkOverLimit)), (PULLS_MAX, 9));
        let messages = pulls.messages(&told, true);
        assert!(messages.iter().all(|message| message.encoded_len() < 1_100), "each fits into a datagram");
        assert!(messages.is_sorted_by_key(|message| message.version));
        assert_eq!(messages.iter().map(|message| message.tracks.len()).sum::<usize>(), PULLS_MAX);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_said_for_two_seconds() {
        let (now, counters) = (Instant::now(), Counters::default());
        let mut pulls = Pulls::new(now);
        let wanted = FxHashMap::from_iter([(TrackSid::from("TR_1"), Wish { streams: 1, ..Wish::default() })]);
        assert_eq!(pulls.update(now, &wanted, &counters), [TrackSid::from("TR_1")]);
        assert!(pulls.update(now, &wanted, &counters).is_empty(), "it is no news");
        assert_eq!(pulls.update(now, &FxHashMap::default(), &counters), [TrackSid::from("TR_1")]);
        assert!(pulls.messages(&["TR_1".into()], true)[0].tracks[0].released);
        pulls.update(after(now, RELEASED_TOLD), &FxHashMap::default(), &counters);
        assert!(pulls.is_empty());
    }

    #[test]
    fn who_does_not_relay_is_asked_for_its_own_tracks_only() {
        let (now, counters) = (Instant::now(), Counters::default());
        let third = RouterId { node: "ND_c".into(), boot: 1, index: 0 };
        let relayed = Wish { origin: Some(third.clone()), streams: 1, top: None };
        let own = Wish { origin: None, ..relayed.clone() };
        let wanted = FxHashMap::from_iter([(TrackSid::from("TR_1"), own), (TrackSid::from("TR_2"), relayed)]);
        let mut pulls = Pulls::new(now);
        let told = pulls.update(now, &wanted, &counters);
        let asked = |messages: Vec<Want>| -> Vec<_> {
            let mut tracks: Vec<_> = messages.into_iter().flat_map(|message| message.tracks).collect();
            tracks.sort_by(|one, other| one.track.cmp(&other.track));
            tracks.into_iter().map(|track| (track.track, track.origin)).collect()
        };
        let (first, second) = (("TR_1".to_owned(), None), ("TR_2".to_owned(), Some(router_name(&third))));
        assert_eq!(asked(pulls.messages(&told, false)), std::slice::from_ref(&first));
        assert_eq!(asked(pulls.messages(&told, true)), [first, second]);
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
