//! The links of a router: whose datagram it is, when each wants to be woken, and what leaves.
//!
//! What is wanted of others stands in `pull`, what others want in `serve`.
//!
//! Hot: `on_link_datagram` per datagram, `forward` per packet, `transmit` per turn. No lock, log or clock read there, and
//! no allocation for media.

use std::time::{Duration, Instant};

use super::{
    Random, Router, Sink, counters::Counters, pull::Pulls, send_control, serve::Serves, track::Track, ways::Way,
};
use crate::{
    DropReason, Event, LinkConfig, LinkEnd, Neighbour, Path, Protocol, RouterId, Transmit,
    egress::Class,
    ingress::{Ingested, after},
    link::{
        ACCEPT, Ack, Bye, Change, ClusterKeys, Control, Frame, Fresh, Gone, HELLO, KeyRequest, LetterPart, LetterRead,
        LetterTold, Link, MEDIA, Ping, Report, SEALED, TrackInfo, Want, frames, session_of,
    },
    rtp::{Header, StreamId},
};
use bytes::Bytes;
use plenary_model::{MediaKind, NodeId, TrackSid};
use prost::Message;
use rustc_hash::FxHashMap;

#[derive(Debug, Default)]
pub(super) struct Links {
    own: Option<Own>,
    /// Slots are stable, since tracks name them; a free one is `None`.
    slots: Vec<Option<Entry>>,
    by_router: FxHashMap<RouterId, usize>,
    by_session: FxHashMap<u32, usize>,
    /// Told over every link.
    reaches_store: Option<bool>,
    due: Option<Instant>,
    /// What the next stream is called, the next state of a track, and the next Hello.
    next_stream: u32,
    next_version: u64,
    next_hello: u64,
}

#[derive(Debug)]
struct Own {
    id: RouterId,
    keys: ClusterKeys,
    /// To a router of another node.
    bits_per_second_max: Option<u64>,
}

/// A link with what is asked for over it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) link: Link,
    pub(super) pulls: Pulls,
    pub(super) serves: Serves,
    pub(super) way: Way,
    /// What the other side says of its node, and what of that was told on.
    reaches_store: Option<bool>,
    told_reaches_store: Option<bool>,
    tick_due: Option<Instant>,
    ticked: Option<Instant>,
    /// Since when nothing is asked over it, either way.
    idle_since: Option<Instant>,
}

impl Router {
    pub(super) fn set_neighbours(&mut self, now: Instant, routers: Vec<Neighbour>) {
        let Some(own) = &self.links.own else { return };
        let me = own.id.clone();
        let gone: Vec<_> =
            self.links.by_router.iter().filter(|(id, _)| !routers.iter().any(|one| one.id == **id)).collect();
        for slot in gone.into_iter().map(|(_, slot)| *slot).collect::<Vec<_>>() {
            self.remove_link(now, slot);
        }
        for Neighbour { id, addresses } in routers.into_iter().filter(|one| one.id != me).take(NEIGHBOURS_MAX) {
            let slot = self.links.slot_for(now, &me, &id);
            if let Some(entry) = self.links.entry(slot) {
                entry.link.set_addresses(addresses);
            }
        }
        self.links.stir(now);
    }

    pub(super) fn set_reaches_store(&mut self, now: Instant, reaches: bool) {
        self.links.reaches_store = Some(reaches);
        for entry in self.links.slots.iter_mut().flatten() {
            entry.link.set_reaches_store(now, Some(reaches));
        }
        self.links.rearm();
    }

    /// Has another router told something. Whoever asks notices when that does not happen.
    pub(super) fn write_letter(&mut self, now: Instant, to: &RouterId, number: u64, contents: Bytes) {
        let slot = self.links.by_router.get(to).copied();
        let entry = slot.and_then(|slot| self.links.entry(slot));
        let written = entry
            .ok_or(DropReason::LinkUnknownRouter)
            .and_then(|entry| entry.link.letters.write(now, number, contents));
        if let Err(reason) = written {
            return self.counters.count_drop(reason);
        }
        if let Some(slot) = slot {
            self.links.stir_one(now, slot);
        }
    }

    fn on_letter(&mut self, now: Instant, slot: usize, part: LetterPart) -> Result<(), DropReason> {
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        let number = part.number;
        let read = entry.link.letters.read(now, part)?;
        if read != LetterRead::Nothing {
            entry.link.send_control(now, &LetterTold { number }, &self.counters);
        }
        if let LetterRead::Whole(letter) = read {
            self.events.push_back(Event::LetterCame { letter });
        }
        Ok(())
    }

    /// Hot. A datagram of another router.
    pub(super) fn on_link_datagram(&mut self, now: Instant, path: Path, bytes: &mut [u8]) -> Result<(), DropReason> {
        let Some(own) = &self.links.own else { return Err(DropReason::LinkDisabled) };
        if path.protocol != Protocol::Udp {
            return Err(DropReason::UnknownProtocol);
        }
        match bytes.first() {
            Some(&SEALED) => self.on_sealed(now, path, bytes),
            Some(&HELLO) => {
                let hello = own.keys.hello(bytes)?;
                let slot = self.links.slot_of(&hello.from, &hello.to)?;
                let session = self.links.free_session(&mut self.random);
                let Links { own: Some(own), slots, .. } = &mut self.links else { return Ok(()) };
                let entry = slots.get_mut(slot).and_then(Option::as_mut).ok_or(DropReason::LinkUnknownRouter)?;
                entry.link.on_hello(now, path.remote, &own.keys, (&hello, bytes), session)?;
                self.links.index_sessions(slot);
                self.send_handshakes(slot);
                self.links.arm(slot);
                Ok(())
            }
            Some(&ACCEPT) => {
                let accept = own.keys.accept(bytes)?;
                let slot = self.links.slot_of(&accept.from, &accept.to)?;
                let Links { own: Some(own), slots, .. } = &mut self.links else { return Ok(()) };
                let entry = slots.get_mut(slot).and_then(Option::as_mut).ok_or(DropReason::LinkUnknownRouter)?;
                entry.link.on_accept(now, path.remote, &own.keys, (&accept, bytes))?;
                self.links.index_sessions(slot);
                self.after_datagram(now, slot);
                Ok(())
            }
            _ => Err(DropReason::LinkMalformed),
        }
    }

    fn on_sealed(&mut self, now: Instant, path: Path, bytes: &mut [u8]) -> Result<(), DropReason> {
        let session = session_of(bytes).ok_or(DropReason::LinkMalformed)?;
        let slot = *self.links.by_session.get(&session).ok_or(DropReason::LinkUnknownSession)?;
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        let received = entry.link.receive(now, path.remote, session, bytes);
        self.send_handshakes(slot);
        let range = received?;
        self.counters.link_packets_in.add(1);
        self.counters.link_bytes_in.add(bytes.len());
        let mut says_more_than_acks = false;
        for frame in frames(bytes.get(range).unwrap_or_default()) {
            let frame = frame?;
            says_more_than_acks |= frame.kind != Ack::KIND;
            let taken = if frame.kind == MEDIA {
                self.on_link_media(now, slot, frame.content)
            } else {
                self.on_link_control(now, slot, session, frame)
            };
            if let Err(reason) = taken {
                self.counters.count_drop(reason);
            }
        }
        if let Some(entry) = self.links.entry(slot).filter(|_| says_more_than_acks) {
            entry.link.confirm_later(now);
        }
        self.after_datagram(now, slot);
        Ok(())
    }

    fn on_link_control(&mut self, now: Instant, slot: usize, session: u32, frame: Frame<'_>) -> Result<(), DropReason> {
        let entry = self.links.entry(slot).ok_or(DropReason::LinkUnknownSession)?;
        match frame.kind {
            Ack::KIND => entry.link.on_ack(now, session, &read(frame)?, &self.counters),
            Ping::KIND => {
                let ping: Ping = read(frame)?;
                entry.link.on_ping(now, &ping);
                entry.reaches_store = ping.reaches_store;
                let rtt = usize::try_from(entry.link.rtt().as_micros()).unwrap_or(usize::MAX);
                self.counters.link_rtt_us.set(rtt);
            }
            Want::KIND => self.on_want(now, slot, read(frame)?),
            KeyRequest::KIND => self.on_key_request(now, slot, read(frame)?)?,
            TrackInfo::KIND => self.on_track_info(now, slot, read(frame)?)?,
            Gone::KIND => self.on_gone(now, slot, &read(frame)?),
            Report::KIND => self.on_report(now, slot, &read(frame)?),
            LetterPart::KIND => self.on_letter(now, slot, read(frame)?)?,
            LetterTold::KIND => {
                let number = read::<LetterTold>(frame)?.number;
                if entry.link.letters.told(number) {
                    self.events.push_back(Event::LetterTold { number });
                }
            }
            Bye::KIND => {
                let is_idle = entry.serves.is_empty() && entry.pulls.is_empty();
                let change = entry.link.on_bye(if is_idle { LinkEnd::Idle } else { LinkEnd::Bye });
                self.on_link_change(now, slot, change);
            }
            // Of a newer version.
            _ => {}
        }
        Ok(())
    }

    fn after_datagram(&mut self, now: Instant, slot: usize) {
        let change = self.links.entry(slot).and_then(|entry| entry.link.poll_change(now));
        if let Some(change) = change {
            self.on_link_change(now, slot, change);
        }
        if let Some(entry) = self.links.entry(slot).filter(|entry| entry.link.is_up())
            && entry.told_reaches_store != entry.reaches_store
        {
            entry.told_reaches_store = entry.reaches_store;
            let router = entry.link.peer.clone();
            let told = entry.reaches_store.map(|reaches| Event::NeighbourReachesStore { router, reaches });
            self.events.extend(told);
        }
        self.links.arm(slot);
    }

    pub(super) fn on_links_timeout(&mut self, now: Instant) {
        if self.links.due.is_none_or(|due| now < due) {
            return;
        }
        for slot in 0..self.links.slots.len() {
            if self.links.deadline_of(slot).is_none_or(|due| now < due) {
                continue;
            }
            let session = self.links.free_session(&mut self.random);
            let Links { own: Some(own), slots, next_hello, .. } = &mut self.links else { return };
            let Some(Some(entry)) = slots.get_mut(slot) else { continue };
            *next_hello = next_hello.saturating_add(1);
            let fresh = Fresh { session, sequence: *next_hello };
            let change = entry.link.handle_timeout(now, &own.keys, fresh, &self.counters);
            let ticks = entry.tick_due.take_if(|due| *due <= now).is_some();
            if let Some(change) = change {
                self.on_link_change(now, slot, change);
            }
            if ticks {
                self.tick(now, slot);
            }
            self.send_handshakes(slot);
        }
        self.links.rearm();
    }

    fn on_link_change(&mut self, now: Instant, slot: usize, change: Change) {
        let Some(entry) = self.links.entry(slot) else { return };
        if change != Change::Up {
            // It is said again when the link is back.
            (entry.reaches_store, entry.told_reaches_store) = (None, None);
        }
        if matches!(change, Change::Down(_)) {
            entry.way.has_failed(now);
        }
        let router = entry.link.peer.clone();
        match change {
            Change::Up => self.events.push_back(Event::LinkUp { router }),
            Change::Down(why) => self.events.push_back(Event::LinkDown { router, why }),
            Change::Forgotten(why) => {
                self.events.extend(why.map(|why| Event::LinkDown { router, why }));
                self.forget_served(slot);
                self.forget_streams(slot);
                self.links.index_sessions(slot);
            }
        }
        self.count_links();
        // Others may depend on it.
        self.links.stir(now);
    }

    fn count_links(&self) {
        let entries = || self.links.slots.iter().flatten();
        self.counters.links.set(entries().filter(|entry| entry.link.is_up()).count());
        self.counters.link_pulls.set(entries().map(|entry| entry.pulls.streams()).sum());
        self.counters.link_wants.set(entries().map(|entry| entry.serves.len()).sum());
        self.counters.link_withheld.set(entries().map(|entry| entry.serves.withheld()).sum());
    }

    /// What is to be said over a link besides what its core says by itself.
    fn tick(&mut self, now: Instant, slot: usize) {
        self.find_way(now, slot);
        self.pull(now, slot);
        self.serve(now, slot);
        self.count_links();
        let Some(entry) = self.links.entry(slot) else { return };
        let is_asked = !entry.serves.is_empty();
        let asks = !entry.pulls.is_empty() || entry.link.letters.has_outgoing();
        entry.link.set_active(now, is_asked || asks);
        if asks || entry.way.is_lost() {
            entry.link.open(now)
        } else {
            entry.link.rest()
        }
        entry.ticked = Some(now);
        let is_idle = !is_asked && !asks;
        entry.idle_since = entry.idle_since.or(Some(now)).filter(|_| is_idle && entry.link.has_session());
        let next = match entry.idle_since {
            Some(since) if now >= after(since, IDLE_KEPT) => {
                let change = entry.link.close(now);
                return self.on_link_change(now, slot, change);
            }
            Some(since) => after(since, IDLE_KEPT),
            None if is_idle => return,
            None => after(now, TICK),
        };
        entry.tick_due = Some(entry.tick_due.map_or(next, |due| due.min(next)));
    }

    fn remove_link(&mut self, now: Instant, slot: usize) {
        self.set_lost(slot, false);
        let Some(entry) = self.links.entry(slot) else { return };
        let router = entry.link.peer.clone();
        entry.link.send_control(now, &Bye {}, &self.counters);
        entry.link.flush(now, &self.counters);
        while let Some((remote, run)) = entry.link.front() {
            let path = Path { protocol: Protocol::Udp, remote };
            for datagram in run.bytes.chunks(run.segment_bytes.unwrap_or(run.bytes.len()).max(1)) {
                send_control(&mut self.control, &self.counters, path, datagram.to_vec());
            }
            entry.link.pop_front();
        }
        if entry.link.is_up() {
            self.on_link_change(now, slot, Change::Forgotten(Some(LinkEnd::Removed)));
        } else {
            self.on_link_change(now, slot, Change::Forgotten(None));
        }
        let tracks: Vec<_> =
            self.tracks.values().filter(|track| track.is_from_link(slot)).map(|one| one.sid.clone()).collect();
        for track in tracks {
            self.unpublish(&track);
        }
        self.links.slots.iter_mut().flatten().for_each(|entry| entry.way.forget(slot));
        self.links.by_router.remove(&router);
        self.links.by_session.retain(|_, of| *of != slot);
        if let Some(place) = self.links.slots.get_mut(slot) {
            *place = None;
        }
        self.count_links();
    }

    fn send_handshakes(&mut self, slot: usize) {
        let Some(entry) = self.links.entry(slot) else { return };
        for (remote, datagram) in entry.link.handshakes.drain(..) {
            send_control(&mut self.control, &self.counters, Path { protocol: Protocol::Udp, remote }, datagram);
        }
    }
}

impl Links {
    pub(super) fn new(config: Option<&LinkConfig>) -> Self {
        let own = config.map(|config| Own {
            id: config.me.clone(),
            keys: ClusterKeys::new(&config.keys),
            bits_per_second_max: Some(config.bits_per_second_max).filter(|max| *max > 0),
        });
        Self { own, ..Self::default() }
    }

    pub(super) fn entry(&mut self, slot: usize) -> Option<&mut Entry> {
        self.slots.get_mut(slot)?.as_mut()
    }

    pub(super) fn at(&self, slot: usize) -> Option<&Entry> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn slot(&self, router: &RouterId) -> Option<usize> {
        self.by_router.get(router).copied()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, &Entry)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    pub(super) fn own_node(&self) -> Option<&NodeId> {
        self.own.as_ref().map(|own| &own.id.node)
    }

    /// What is asked of this router of another's tracks: over which link, and which.
    pub(super) fn relayed<'l>(&'l self, origin: &'l RouterId) -> impl Iterator<Item = (usize, &'l TrackSid)> {
        self.entries().flat_map(move |(slot, entry)| entry.serves.relayed(origin).map(move |track| (slot, track)))
    }

    pub(super) fn is_relayed(&self, origin: &RouterId, track: &TrackSid) -> bool {
        self.entries().any(|(_, entry)| entry.serves.relays(origin, track))
    }

    /// A track of another router is not known any more.
    pub(super) fn forget_track(&mut self, track: &TrackSid) {
        self.slots.iter_mut().flatten().for_each(|entry| entry.pulls.forget(track));
    }

    /// What may be sent over a link, if that is limited or not all gets through.
    pub(super) fn budget_bps(&self, slot: usize) -> Option<u64> {
        let link = &self.slots.get(slot)?.as_ref()?.link;
        let own = self.own.as_ref().filter(|own| own.id.node != link.peer.node);
        own.and_then(|own| own.bits_per_second_max).into_iter().chain(link.budget_bps()).min()
    }

    pub(super) fn is_own(&self, router: &RouterId) -> bool {
        self.own.as_ref().is_some_and(|own| own.id == *router)
    }

    /// Hot. A packet of a track, to the routers that want its stream.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        track: &Track,
        at: StreamId,
        packets: &[(Header, Ingested)],
        counters: &Counters,
    ) {
        if track.pullers.is_empty() || track.muted {
            return;
        }
        let class = match track.kind {
            MediaKind::Audio => Class::Audio,
            MediaKind::Video => Class::Video,
        };
        let (Some(bit), Some(stream)) = (1u8.checked_shl(at.0.into()), track.stream(at)) else { return };
        let id = track.first_stream.wrapping_add(at.0.into());
        for puller in track.pullers.iter().filter(|puller| puller.streams & bit != 0) {
            let Some(Some(entry)) = self.slots.get_mut(puller.link) else { continue };
            for packet in packets.iter().filter_map(|(_, ingested)| stream.store().get(ingested.index)) {
                if let Err(reason) = entry.link.send_media(now, class, id, packet, counters) {
                    counters.count_drop(reason);
                }
            }
        }
    }

    /// Hot. Seals and hands out what waits. False if the socket has no room.
    pub(super) fn transmit(&mut self, now: Instant, sink: &mut dyn Sink, counters: &Counters) -> bool {
        for entry in self.slots.iter_mut().flatten().filter(|entry| entry.link.has_frames()) {
            entry.link.flush(now, counters);
            while let Some((remote, run)) = entry.link.front() {
                let path = Path { protocol: Protocol::Udp, remote };
                if sink.send(&[Transmit { path, bytes: run.bytes, segment_bytes: run.segment_bytes }]) == 0 {
                    return false;
                }
                entry.link.pop_front();
            }
        }
        true
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A state of a track that was never told before.
    pub(super) fn next_version(&mut self) -> u64 {
        self.next_version = self.next_version.saturating_add(1);
        self.next_version
    }

    /// A new track gets what it is called by on links.
    pub(super) fn name(&mut self, track: &mut Track) {
        track.version = self.next_version();
        track.first_stream = self.next_stream;
        self.next_stream = self.next_stream.wrapping_add(u32::try_from(track.encodings.len()).unwrap_or_default());
    }

    /// Something changed of what is wanted or told: every link looks what it is, and soon.
    pub(super) fn stir(&mut self, now: Instant) {
        for slot in 0..self.slots.len() {
            self.stir_one(now, slot);
        }
    }

    pub(super) fn stir_one(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.entry(slot) else { return };
        let soon = entry.ticked.map_or(now, |ticked| now.max(after(ticked, TICKS_APART)));
        entry.tick_due = Some(entry.tick_due.map_or(soon, |due| due.min(soon)));
        self.arm(slot);
    }

    fn slot_of(&self, from: &RouterId, to: &RouterId) -> Result<usize, DropReason> {
        self.by_router.get(from).copied().filter(|_| self.is_own(to)).ok_or(DropReason::LinkUnknownRouter)
    }

    fn slot_for(&mut self, now: Instant, me: &RouterId, router: &RouterId) -> usize {
        if let Some(slot) = self.by_router.get(router) {
            return *slot;
        }
        let mut link = Link::new(now, me.clone(), router.clone());
        link.set_reaches_store(now, self.reaches_store);
        let entry = Entry {
            link,
            pulls: Pulls::new(now),
            serves: Serves::new(now),
            way: Way::default(),
            reaches_store: None,
            told_reaches_store: None,
            tick_due: None,
            ticked: None,
            idle_since: None,
        };
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        match self.slots.get_mut(slot) {
            Some(place) => *place = Some(entry),
            None => self.slots.push(Some(entry)),
        }
        self.by_router.insert(router.clone(), slot);
        slot
    }

    fn free_session(&self, random: &mut Random) -> u32 {
        loop {
            let session = random.ssrc();
            if !self.by_session.contains_key(&session) {
                return session;
            }
        }
    }

    fn index_sessions(&mut self, slot: usize) {
        self.by_session.retain(|_, of| *of != slot);
        if let Some(Some(entry)) = self.slots.get(slot) {
            self.by_session.extend(entry.link.sessions().map(|session| (session, slot)));
        }
    }

    /// Notes when a link wants to be woken.
    fn arm(&mut self, slot: usize) {
        self.due = self.due.into_iter().chain(self.deadline_of(slot)).min();
    }

    fn deadline_of(&self, slot: usize) -> Option<Instant> {
        self.slots.get(slot)?.as_ref()?.next_deadline()
    }

    fn rearm(&mut self) {
        self.due = self.slots.iter().flatten().filter_map(Entry::next_deadline).min();
    }
}

impl Entry {
    fn next_deadline(&self) -> Option<Instant> {
        self.link.next_deadline().into_iter().chain(self.tick_due).min()
    }
}

fn read<M: Message + Default>(frame: Frame<'_>) -> Result<M, DropReason> {
    M::decode(frame.content).map_err(|_| DropReason::LinkMalformed)
}

/// Between two looks at what is wanted and what is told, while media flows; a change is told no more often than this.
const TICK: Duration = Duration::from_millis(50);
const TICKS_APART: Duration = Duration::from_millis(5);
/// Longer than a call is silent, or a room is left and entered again: opening it anew costs a round trip.
const IDLE_KEPT: Duration = Duration::from_secs(30);
/// Routers that one router speaks to: 64 nodes of 16 threads.
const NEIGHBOURS_MAX: usize = 1_024;
