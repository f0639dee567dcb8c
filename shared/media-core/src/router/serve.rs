//! What other routers want of this one: the tracks that are published here, and for who cannot reach their router those that
//! this one pulls straight from there.

use std::{
    collections::{BTreeSet, hash_map},
    time::{Duration, Instant},
};

use plenary_model::{MediaKind, TrackSid};
use rustc_hash::FxHashMap;

use super::{
    Router,
    pull::{STREAMS_MAX, source_number},
    shed::{self, Video},
    subscriber::KeyframeNeed,
    track::{Puller, Track},
    ways::Reach,
};
use crate::{
    DropReason, RouterId,
    forward::Layering,
    ingress::{Stream, after},
    link::{Gone, KeyRequest, LayerInfo, Report, StreamReport, TrackInfo, Want, WantedTrack, named_router},
    rtp::{LayerId, StreamId},
};

/// What the router behind one link wants.
#[derive(Debug)]
pub(super) struct Serves {
    tracks: FxHashMap<TrackSid, Served>,
    report_due: Instant,
    /// How many of the tracks are another router's.
    relayed: usize,
    /// How many streams do not cross, while the link does not carry all that is wanted.
    shed: Option<usize>,
}

#[derive(Debug)]
struct Served {
    /// Of the message that says so.
    version: u64,
    /// Unless it is said again.
    until: Instant,
    streams: u8,
    /// So many of them may cross, the lowest first.
    allowed: u8,
    top: Option<u8>,
    known_version: u64,
    /// Where it is published, if who wants it said so.
    origin: Option<RouterId>,
    /// It may cross.
    is_here: bool,
    /// Which version was told last, and when.
    told: Option<(u64, Instant)>,
}

impl Serves {
    pub(super) fn new(now: Instant) -> Self {
        Self { tracks: FxHashMap::default(), report_due: now, relayed: 0, shed: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tracks.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.tracks.len()
    }

    /// Which tracks of this router are asked for as another's.
    pub(super) fn relayed<'s>(&'s self, origin: &'s RouterId) -> impl Iterator<Item = &'s TrackSid> {
        let tracks = (self.relayed > 0).then_some(&self.tracks).into_iter().flatten();
        tracks.filter(|(_, served)| served.origin.as_ref() == Some(origin)).map(|(track, _)| track)
    }

    pub(super) fn relays(&self, origin: &RouterId, track: &TrackSid) -> bool {
        self.tracks.get(track).is_some_and(|served| served.origin.as_ref() == Some(origin))
    }

    fn count_relayed(&mut self) {
        self.relayed = self.tracks.values().filter(|served| served.origin.is_some()).count();
    }

    pub(super) fn withheld(&self) -> usize {
        self.shed.unwrap_or_default()
    }
}

impl Router {
    /// A wish of another router.
    pub(super) fn on_want(&mut self, now: Instant, slot: usize, want: Want) {
        let (mut touched, mut origins) = (Vec::new(), BTreeSet::new());
        for wanted in want.tracks {
            let sid = TrackSid::from(wanted.track.as_str());
            if self.note_want(now, slot, want.version, &sid, &wanted) {
                self.set_puller(slot, &sid);
                touched.push(sid);
                origins.extend(named_router(wanted.origin.as_ref()));
            }
        }
        self.tell_demands(&touched);
        self.links.stir_one(now, slot);
        for home in origins.iter().filter_map(|origin| self.links.slot(origin)).collect::<Vec<_>>() {
            self.links.stir_one(now, home);
        }
    }

    /// False if it is no news.
    fn note_want(&mut self, now: Instant, slot: usize, version: u64, sid: &TrackSid, wanted: &WantedTrack) -> bool {
        let is_local = self.tracks.get(sid).is_some_and(Track::is_local);
        let origin = named_router(wanted.origin.as_ref()).ok().filter(|origin| !self.links.is_own(origin));
        let Some(entry) = self.links.entry(slot) else { return false };
        let is_full =
            entry.serves.tracks.len() >= SERVED_MAX || (origin.is_some() && entry.serves.relayed >= RELAYED_MAX);
        // Of another's track its router knows.
        if wanted.known_version > 0 && !is_local && !wanted.released && origin.is_none() {
            let gone = Gone { track: wanted.track.clone(), unreachable: false };
            entry.link.send_control(now, &gone, &self.counters);
        }
        let news = Served {
            version,
            until: after(now, WANT_KEPT),
            streams: u8::try_from(wanted.streams & 0xff).unwrap_or_default(),
            allowed: ALL,
            top: wanted.top.and_then(|top| u8::try_from(top).ok()),
            known_version: wanted.known_version,
            origin,
            is_here: false,
            told: None,
        };
        match entry.serves.tracks.entry(sid.clone()) {
            hash_map::Entry::Occupied(known) if known.get().version >= version => return false,
            hash_map::Entry::Occupied(known) if wanted.released => {
                known.remove();
            }
            hash_map::Entry::Occupied(mut known) => {
                let Served { told, allowed, is_here, .. } = *known.get();
                known.insert(Served { told, allowed, is_here, ..news });
            }
            hash_map::Entry::Vacant(_) if wanted.released => return false,
            hash_map::Entry::Vacant(_) if is_full => {
                self.counters.count_drop(DropReason::LinkOverLimit);
                return false;
            }
            hash_map::Entry::Vacant(place) => {
                entry.serves.relayed = entry.serves.relayed.saturating_add(usize::from(news.origin.is_some()));
                place.insert(news);
            }
        }
        true
    }

    /// Has a track know what a router wants of it.
    fn set_puller(&mut self, slot: usize, sid: &TrackSid) {
        let Self { links, tracks, .. } = self;
        let served = || links.at(slot)?.serves.tracks.get(sid);
        let may = |track: &Track| served().is_some_and(|served| links.may_serve(slot, track, served.origin.as_ref()));
        let is_up = links.at(slot).is_some_and(|entry| entry.link.is_up());
        let is_here = is_up && tracks.get(sid).is_some_and(may);
        let served = links.entry(slot).and_then(|entry| entry.serves.tracks.get_mut(sid));
        let puller = served.and_then(|served| {
            served.is_here = is_here;
            let streams = served.streams & shed::mask(served.allowed);
            is_here.then_some(Puller { link: slot, streams, demand: served.top })
        });
        let Some(track) = tracks.get_mut(sid) else { return };
        let known = track.pullers.iter().position(|known| known.link == slot);
        match (known, puller) {
            (Some(at), Some(puller)) => {
                if let Some(place) = track.pullers.get_mut(at) {
                    *place = puller;
                }
            }
            (Some(at), None) => {
                track.pullers.swap_remove(at);
            }
            (None, Some(puller)) => track.pullers.push(puller),
            (None, None) => {}
        }
    }

    /// Says what is to be said of the tracks that a router wants.
    pub(super) fn serve(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.links.entry(slot) else { return };
        let is_over = |(sid, served): (&TrackSid, &Served)| (served.until <= now).then(|| sid.clone());
        let mut over: Vec<_> = entry.serves.tracks.iter().filter_map(is_over).collect();
        over.extend(self.refuse_relays(now, slot));
        let Some(entry) = self.links.entry(slot) else { return };
        for sid in &over {
            entry.serves.tracks.remove(sid);
        }
        entry.serves.count_relayed();
        let wanted: Vec<_> = entry.serves.tracks.keys().cloned().collect();
        self.shed(now, slot);
        for sid in over.iter().chain(&wanted) {
            self.set_puller(slot, sid);
        }
        self.tell_demands(&over);
        self.tell_demands(&wanted);
        let Some(entry) = self.links.entry(slot).filter(|entry| entry.link.is_up()) else { return };
        let repeated_after = entry.link.rtt().saturating_add(INFO_SLACK);
        for (sid, served) in &mut entry.serves.tracks {
            let Some(track) = self.tracks.get(sid).filter(|_| served.is_here) else { continue };
            let is_told =
                served.told.is_some_and(|(version, at)| version == track.version && now < after(at, repeated_after));
            if served.known_version == track.version || is_told {
                continue;
            }
            served.told = Some((track.version, now));
            entry.link.send_control(now, &info(track), &self.counters);
            // How its streams are belongs to it.
            entry.serves.report_due = now;
        }
        if entry.serves.report_due <= now && !wanted.is_empty() {
            entry.serves.report_due = after(now, REPORT_INTERVAL);
            let here = entry.serves.tracks.iter().filter(|(_, served)| served.is_here);
            let tracks = here.filter_map(|(sid, served)| Some((self.tracks.get(sid)?, served)));
            let streams: Vec<_> = tracks.flat_map(|(track, served)| reports(now, track, served.allowed)).collect();
            for chunk in streams.chunks(REPORTS_MAX) {
                entry.link.send_control(now, &Report { streams: chunk.to_vec() }, &self.counters);
            }
        }
    }

    /// Has what crosses fit into what the link carries. The other side hears which streams do not cross, and makes do with
    /// lower ones.
    fn shed(&mut self, now: Instant, slot: usize) {
        let Self { links, tracks, .. } = self;
        let budget = links.budget_bps(slot);
        let Some(entry) = links.entry(slot) else { return };
        let serves = &mut entry.serves;
        let Some(budget) = budget else {
            if serves.shed.take().is_some() {
                serves.tracks.values_mut().for_each(|served| served.allowed = ALL);
                serves.report_due = now;
            }
            return;
        };
        let here = serves.tracks.iter_mut().filter(|(_, served)| served.is_here);
        let mut served: Vec<_> = here.filter_map(|(sid, served)| Some((tracks.get(sid)?, served))).collect();
        // In some order that stays.
        served.sort_unstable_by(|(one, _), (other, _)| one.sid.cmp(&other.sid));
        let is_audio = |track: &Track| track.kind == MediaKind::Audio;
        let audio = served.iter().filter(|(track, served)| is_audio(track) && served.streams > 0);
        let audio = audio.map(|(track, _)| track.stream_bits_per_second(now, 0)).fold(0, u64::saturating_add);
        served.retain(|(track, _)| !is_audio(track));
        let mut videos: Vec<_> = served.iter().map(|(track, served)| video(now, track, served)).collect();
        if shed::fit(&mut videos, budget.saturating_sub(audio)) {
            entry.link.lift_budget();
        }
        for ((_, served), video) in served.iter_mut().zip(&videos) {
            if std::mem::replace(&mut served.allowed, video.allowed) != video.allowed {
                serves.report_due = now;
            }
        }
        let withheld = videos.iter().map(|video| usize::from(video.withheld()));
        serves.shed = Some(withheld.fold(0, usize::saturating_add));
    }

    /// Somebody elsewhere cannot decode a stream.
    pub(super) fn on_key_request(&mut self, now: Instant, slot: usize, asked: KeyRequest) -> Result<(), DropReason> {
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        let numbers = |track: &Track| {
            let at = asked.stream.wrapping_sub(track.first_stream);
            usize::try_from(at).ok().filter(|at| *at < track.encodings.len())
        };
        let here = entry.serves.tracks.iter().filter(|(_, served)| served.is_here);
        let mut tracks = here.filter_map(|(sid, _)| self.tracks.get(sid));
        let found = tracks.find_map(|track| Some((track.sid.clone(), numbers(track)?)));
        let (track, at) = found.ok_or(DropReason::LinkUnknownStream)?;
        let stream = StreamId(u8::try_from(at).unwrap_or(u8::MAX));
        self.need_keyframes(now, vec![KeyframeNeed { track, stream }]);
        Ok(())
    }

    /// Says of which tracks their router is not reached from here. Who wants them looks elsewhere.
    fn refuse_relays(&mut self, now: Instant, slot: usize) -> Vec<TrackSid> {
        let Some(entry) = self.links.at(slot).filter(|entry| entry.serves.relayed > 0) else { return Vec::new() };
        let is_out_of_reach = |(sid, served): (&TrackSid, &Served)| {
            let reach = self.links.reach(now, slot, served.origin.as_ref()?);
            (reach == Reach::No).then(|| sid.clone())
        };
        let refused: Vec<_> = entry.serves.tracks.iter().filter_map(is_out_of_reach).collect();
        if let Some(entry) = self.links.entry(slot) {
            for sid in &refused {
                let gone = Gone { track: sid.as_str().to_owned(), unreachable: true };
                entry.link.send_control(now, &gone, &self.counters);
            }
        }
        refused
    }

    /// A track that is published here ends: who pulls it is told at once, and again when it asks.
    pub(super) fn tell_gone(&mut self, track: &Track) {
        let Some(now) = self.now else { return };
        for puller in &track.pullers {
            if let Some(entry) = self.links.entry(puller.link) {
                let gone = Gone { track: track.sid.as_str().to_owned(), unreachable: false };
                entry.link.send_control(now, &gone, &self.counters);
            }
        }
    }

    /// The link is gone, and with it all that was wanted over it.
    pub(super) fn forget_served(&mut self, slot: usize) {
        let Some(entry) = self.links.entry(slot) else { return };
        let tracks: Vec<_> = entry.serves.tracks.drain().map(|(sid, _)| sid).collect();
        entry.serves.relayed = 0;
        for sid in &tracks {
            self.set_puller(slot, sid);
        }
        self.tell_demands(&tracks);
    }
}

fn info(track: &Track) -> TrackInfo {
    let layer = |size: &crate::LayerSize| LayerInfo {
        rid: size.rid.clone(),
        width: size.width,
        height: size.height,
        bitrate_bps: size.bitrate_bps,
    };
    let id = |id: Option<u8>| id.map_or(0, u32::from);
    let streams = (0u32..).zip(&track.encodings).map(|(at, _)| track.first_stream.wrapping_add(at));
    TrackInfo {
        track: track.sid.as_str().to_owned(),
        version: track.version,
        participant: track.participant.as_str().to_owned(),
        source: source_number(track.source),
        mime: track.send_codec.mime().to_owned(),
        fmtp: track.send_codec.fmtp().to_owned(),
        red_payload_type: track.red_payload_type.map(u32::from),
        clock_rate: track.send_codec.clock_rate(),
        stereo: track.stereo,
        muted: track.muted,
        svc: track.layering == Layering::Svc,
        audio_level_id: id(track.extensions.audio_level),
        dependency_id: id(track.extensions.dependency),
        layers: track.sizes.iter().map(layer).collect(),
        streams: streams.collect(),
        trailers: track.trailers,
    }
}

fn video(now: Instant, track: &Track, served: &Served) -> Video {
    let mut rates = [0; STREAMS_MAX];
    for (at, rate) in rates.iter_mut().enumerate() {
        *rate = track.stream_bits_per_second(now, at);
    }
    let top = served.top.map(|top| track.layering.stream_of(LayerId::spatial_layer(top)).0);
    Video { rank: track.rank(now), rates, streams: served.streams, top, allowed: served.allowed }
}

fn reports(now: Instant, track: &Track, allowed: u8) -> impl Iterator<Item = StreamReport> {
    let states = track.layer_states(now, 0);
    let is_alive = move |spatial: u8| states.get(usize::from(spatial)).is_some_and(|state| state.alive);
    (0u8..).zip(&track.encodings).map(move |(at, encoding)| {
        let clock = encoding.stream.as_ref().and_then(Stream::sender_clock);
        let age = clock.map_or(Duration::ZERO, |clock| now.saturating_duration_since(clock.received));
        StreamReport {
            stream: track.first_stream.wrapping_add(at.into()),
            alive: is_alive(at) && at < allowed,
            bits_per_second: track.bits_per_second(now, LayerId::spatial_layer(at)),
            ntp: clock.map(|clock| clock.ntp),
            rtp: clock.map_or(0, |clock| clock.rtp),
            age_us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
        }
    })
}

/// Streams of a track that may cross a link with room for all.
const ALL: u8 = 8;
const _: () = assert!(ALL as usize == STREAMS_MAX);
/// Tracks that one router may want of this one; more are ignored.
const SERVED_MAX: usize = 4_096;
/// Tracks of third routers among them: what one router asks for must not fill this one's own wishes.
const RELAYED_MAX: usize = 1_024;
const WANT_KEPT: Duration = Duration::from_secs(2);
/// Beyond the round trip, before what was not confirmed is said again.
const INFO_SLACK: Duration = Duration::from_millis(100);
/// A layer counts as gone after a second: three of these may be lost.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// In one message, which then fits into a datagram.
const REPORTS_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, DtlsIdentity, Input, LinkConfig, Neighbour, RouterConfig, RouterId, SdpLimits};

    #[test]
    fn another_routers_wishes_are_bounded_and_an_older_one_undoes_nothing() {
        let id = |index| RouterId { node: "ND_a".into(), boot: 1, index };
        let link = Some(LinkConfig { me: id(0), keys: vec![b"secret".to_vec()], bits_per_second_max: 0 });
        let sdp = SdpLimits::default();
        let config = RouterConfig { candidates: Vec::new(), seed: 1, sdp, data_bytes_per_second: 0, link };
        let (mut router, now) = (Router::new(config, DtlsIdentity::generate().unwrap()), Instant::now());
        let routers = vec![Neighbour { id: id(1), addresses: Vec::new() }];
        router.handle(now, Input::Command(Command::SetNeighbours { routers }));
        let wanted =
            |at: usize, released| WantedTrack { track: format!("TR_{at}"), released, ..WantedTrack::default() };
        let want = |version, count: usize, released| Want {
            version,
            tracks: (0..count).map(|at| wanted(at, released)).collect(),
        };
        router.on_want(now, 0, want(5, SERVED_MAX + 3, false));
        let dropped = router.counters().dropped(DropReason::LinkOverLimit);
        let served = |router: &mut Router| router.links.entry(0).unwrap().serves.len();
        assert_eq!((served(&mut router), dropped), (SERVED_MAX, 3));
        router.on_want(now, 0, want(4, 10, true));
        assert_eq!(served(&mut router), SERVED_MAX, "said before, heard after");
        router.on_want(now, 0, want(6, 10, true));
        assert_eq!(served(&mut router), SERVED_MAX - 10);
    }

    #[test]
    fn what_one_router_asks_for_of_others_leaves_room_for_who_is_here() {
        let id = |index| RouterId { node: format!("ND_{index}").as_str().into(), boot: 1, index };
        let link = Some(LinkConfig { me: id(0), keys: vec![b"secret".to_vec()], bits_per_second_max: 0 });
        let sdp = SdpLimits::default();
        let config = RouterConfig { candidates: Vec::new(), seed: 1, sdp, data_bytes_per_second: 0, link };
        let (mut router, now) = (Router::new(config, DtlsIdentity::generate().unwrap()), Instant::now());
        let routers = [1, 2].map(|index| Neighbour { id: id(index), addresses: Vec::new() }).to_vec();
        router.handle(now, Input::Command(Command::SetNeighbours { routers }));
        let origin = Some(crate::link::router_name(&id(2)));
        let wanted =
            |at: usize| WantedTrack { track: format!("TR_{at}"), origin: origin.clone(), ..Default::default() };
        let asking = router.links.slot(&id(1)).unwrap();
        router.on_want(now, asking, Want { version: 1, tracks: (0..SERVED_MAX).map(wanted).collect() });
        let dropped = router.counters().dropped(DropReason::LinkOverLimit);
        assert_eq!(usize::try_from(dropped).unwrap(), SERVED_MAX - RELAYED_MAX);
        router.handle_timeout(now);
        assert_eq!(router.wanted_of_routers().len(), RELAYED_MAX, "asked of their router, without being received here");
        // It does not come up: who asked is told to look elsewhere, and nothing is kept.
        (1..30).for_each(|tick| router.handle_timeout(after(now, tick * Duration::from_millis(50))));
        assert_eq!(router.links.entry(asking).unwrap().serves.len(), 0);
        assert_eq!(router.wanted_of_routers().len(), 0);
    }
}
