//! The link to one other media router: sessions, whether the other side is there, and what waits to leave.
//!
//! One datagram per several frames, sealed once. A session is opened by Hello and Accept over the same port
//! (`handshake`), in use from the first datagram that opens under it, and replaced every hour; until then the old one goes
//! on, so a Hello alone changes nothing. Both sides can hear each other or the link is not usable. What the frames mean
//! for tracks is the router's affair (`router/links.rs`).
//!
//! Hot: `send_media`, `open` and `flush` run once per datagram or packet. No lock, log, clock read, and no allocation once
//! the buffers have grown.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod budget;
mod frame;
mod handshake;
mod letters;
mod liveness;
mod message;
mod repair;
#[cfg(test)]
mod schema;
mod session;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    ops::Range,
    time::{Duration, Instant},
};

use self::{
    budget::{Budget, Transit},
    handshake::{Opening, RELAYS_FROM},
    letters::Letters,
    liveness::{FORGOTTEN_AFTER, Liveness},
    repair::{Again, Ring},
    session::Session,
};
pub(crate) use self::{
    frame::{Control, Frame, MEDIA, frames, media},
    handshake::{Authentic, ClusterKeys, named_router, router_name},
    letters::LetterRead,
    message::{
        Accept, Ack, Bye, Gone, Hello, KeyRequest, LayerInfo, LetterPart, LetterTold, Ping, Report, StreamReport,
        TrackInfo, Want, WantedTrack,
    },
    session::{HEADER_BYTES, TAG_BYTES, session_of},
};
use crate::{
    DropReason, LinkEnd, RouterId,
    egress::{Class, EgressQueue, Run},
    ingress::after,
    router::Counters,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    me: RouterId,
    pub(crate) peer: RouterId,
    /// Where it may be.
    addresses: Vec<SocketAddr>,
    /// Where it is.
    remote: Option<SocketAddr>,
    opening: Option<Opening>,
    opens_next: Option<Instant>,
    opening_delay: Duration,
    /// Of their last Hello.
    their_sequence: u64,
    proposed: Option<Proposed>,
    current: Option<Session>,
    /// The one before, or one that was closed: what is still under way opens with it.
    previous: Option<(Session, Instant)>,
    /// We asked for the session, so we ask for the next.
    asked: bool,
    /// What Pings count from.
    born: Instant,
    /// When the session did.
    began: Instant,
    liveness: Liveness,
    rtt: Option<Duration>,
    /// What is said of this node.
    reaches_store: Option<bool>,
    /// Of the newest Ping that came, and when.
    echo: Option<(u64, Instant)>,
    ping_due: Instant,
    /// Something came that is to be confirmed: by when, and how many datagrams.
    ack_due: Option<Instant>,
    unconfirmed: u32,
    frames: [Vec<u8>; CLASSES],
    ring: Ring,
    pub(crate) letters: Letters,
    budget: Budget,
    /// Of what comes.
    transit: Transit,
    egress: EgressQueue,
    scratch: Vec<u8>,
    /// Hellos and Accepts, and where to.
    pub(crate) handshakes: Vec<(SocketAddr, Vec<u8>)>,
}

/// A session that we answered with and that has not been used yet.
#[derive(Debug)]
struct Proposed {
    session: Session,
    hello_session: u32,
    accept: Vec<u8>,
}

/// Numbers for a Hello.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fresh {
    /// What no other session of this router is called.
    pub(crate) session: u32,
    /// Greater than in any Hello before.
    pub(crate) sequence: u64,
}

/// What became of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Up,
    /// It may come back as it was.
    Down(LinkEnd),
    /// Whatever was agreed over it is over, and for this reason if it was usable until now.
    Forgotten(Option<LinkEnd>),
}

impl Link {
    pub(crate) fn new(now: Instant, me: RouterId, peer: RouterId) -> Self {
        Self {
            me,
            peer,
            addresses: Vec::new(),
            remote: None,
            opening: None,
            opens_next: None,
            opening_delay: OPENING_DELAY_MIN,
            their_sequence: 0,
            proposed: None,
            current: None,
            previous: None,
            asked: false,
            born: now,
            began: now,
            liveness: Liveness::new(now),
            rtt: None,
            reaches_store: None,
            echo: None,
            ping_due: now,
            ack_due: None,
            unconfirmed: 0,
            frames: Default::default(),
            ring: Ring::default(),
            letters: Letters::default(),
            budget: Budget::default(),
            transit: Transit::default(),
            egress: EgressQueue::default(),
            scratch: Vec::new(),
            handshakes: Vec::new(),
        }
    }

    pub(crate) fn set_addresses(&mut self, addresses: Vec<SocketAddr>) {
        self.addresses = addresses;
        self.addresses.truncate(ADDRESSES_MAX);
    }

    /// There is something to ask of the other side.
    pub(crate) fn open(&mut self, now: Instant) {
        if self.current.is_none() && self.opens_next.is_none() {
            self.opens_next = Some(now);
        }
    }

    /// Nothing is asked of it any more.
    pub(crate) fn rest(&mut self) {
        if self.current.is_none() {
            (self.opening, self.opens_next) = (None, None);
        }
    }

    /// Whether media flows, or shall.
    pub(crate) fn set_active(&mut self, now: Instant, active: bool) {
        if self.liveness.set_active(now, active) {
            self.ping_due = now;
        }
    }

    /// Said at once, and with every Ping.
    pub(crate) fn set_reaches_store(&mut self, now: Instant, reaches: Option<bool>) {
        if self.reaches_store != reaches {
            (self.reaches_store, self.ping_due) = (reaches, now);
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.liveness.is_up()
    }

    /// Whether the other side pulls for this one what is published at a third. Known once there is a session.
    pub(crate) fn relays(&self) -> bool {
        self.current.as_ref().is_some_and(|session| session.version >= RELAYS_FROM)
    }

    /// What may be sent over it, if that is less than all.
    pub(crate) fn budget_bps(&self) -> Option<u64> {
        self.budget.bits_per_second()
    }

    /// All that is wanted crosses, with room to spare.
    pub(crate) fn lift_budget(&mut self) {
        self.budget.lift();
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.rtt.unwrap_or(ASSUMED_RTT)
    }

    /// What the sessions are called under which datagrams may come.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = u32> {
        let proposed = self.proposed.as_ref().map(|proposed| &proposed.session);
        let sessions = [proposed, self.current.as_ref(), self.previous.as_ref().map(|(session, _)| session)];
        sessions.into_iter().flatten().map(|session| session.id)
    }

    /// The other side's Hello. Answered, unless ours comes first. `session`: a number that is free.
    pub(crate) fn on_hello(
        &mut self,
        now: Instant,
        from: SocketAddr,
        keys: &ClusterKeys,
        (hello, datagram): (&Authentic<Hello>, &[u8]),
        session: u32,
    ) -> Result<(), DropReason> {
        let (sequence, hello_session) = (hello.message.sequence, hello.message.session);
        if sequence == self.their_sequence
            && let Some(proposed) = self.proposed.as_ref().filter(|one| one.hello_session == hello_session)
        {
            // Asked again: our answer was lost.
            if self.handshakes.len() < HANDSHAKES_MAX {
                self.handshakes.push((from, proposed.accept.clone()));
            }
            return Ok(());
        }
        if sequence <= self.their_sequence {
            return Err(DropReason::LinkReplayed);
        }
        self.their_sequence = sequence;
        if self.opening.is_some() {
            if self.me < self.peer {
                return Ok(());
            }
            // Theirs comes first. Should nothing come of it, ours is repeated.
            self.opens_next = Some(after(now, OPENING_DELAY_MAX));
        }
        let (accept, keys) = keys.answer(hello, datagram, session)?;
        let session = Session::new(session, hello_session, &keys).ok_or(DropReason::LinkMalformed)?;
        self.handshakes.push((from, accept.clone()));
        self.proposed = Some(Proposed { session, hello_session, accept });
        Ok(())
    }

    /// The answer to our Hello.
    pub(crate) fn on_accept(
        &mut self,
        now: Instant,
        from: SocketAddr,
        keys: &ClusterKeys,
        (accept, datagram): (&Authentic<Accept>, &[u8]),
    ) -> Result<(), DropReason> {
        let is_ours = |opening: &mut Opening| opening.session == accept.message.hello_session;
        // A second answer, by way of another address.
        let opening = self.opening.take_if(is_ours).ok_or(DropReason::LinkReplayed)?;
        let id = opening.session;
        let keys = keys.answered(opening, accept, datagram)?;
        let session = Session::new(id, accept.message.session, &keys).ok_or(DropReason::LinkMalformed)?;
        self.asked = true;
        self.remote = Some(from);
        self.begin(now, session);
        Ok(())
    }

    /// Opens a sealed datagram in place and says where its frames lie.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        session: u32,
        datagram: &mut [u8],
    ) -> Result<Range<usize>, DropReason> {
        if let Some(current) = self.current.as_mut().filter(|current| current.id == session) {
            let newest = current.arrived.highest();
            let (counter, frames) = current.open(datagram)?;
            if newest.is_none_or(|newest| counter > newest) {
                // Authentic and newest: it moves the link if it comes from elsewhere.
                self.remote = Some(from);
            }
            self.liveness.hear(now);
            return Ok(frames);
        }
        if let Some(proposed) = self.proposed.as_mut().filter(|proposed| proposed.session.id == session) {
            let (_, frames) = proposed.session.open(datagram)?;
            let session = self.proposed.take().map(|proposed| proposed.session);
            (self.asked, self.opening) = (false, None);
            self.remote = Some(from);
            self.begin(now, session.ok_or(DropReason::LinkUnknownSession)?);
            return Ok(frames);
        }
        let previous = self.previous.as_mut().filter(|(previous, _)| previous.id == session);
        let (previous, _) = previous.ok_or(DropReason::LinkUnknownSession)?;
        let (_, frames) = previous.open(datagram)?;
        if self.current.is_none() {
            self.say_bye_again(from, datagram.get(frames).unwrap_or_default());
            return Err(DropReason::LinkUnknownSession);
        }
        self.liveness.hear(now);
        Ok(frames)
    }

    /// A datagram with something besides acks came in.
    pub(crate) fn confirm_later(&mut self, now: Instant) {
        self.unconfirmed = self.unconfirmed.saturating_add(1);
        let due = if self.unconfirmed >= ACK_DATAGRAMS { now } else { after(now, ACK_DELAY) };
        self.ack_due = Some(self.ack_due.map_or(due, |before| before.min(due)));
    }

    pub(crate) fn on_ack(&mut self, now: Instant, session: u32, ack: &Ack, counters: &Counters) {
        // Counters mean nothing in another session, and a highest that was never sent is not ours.
        if !self.current.as_ref().is_some_and(|current| current.id == session && ack.highest < current.sealed()) {
            return;
        }
        let news = self.ring.on_ack(ack);
        let (rtt, spares) = (self.rtt(), self.budget.spares_repairs(now));
        let mut frames = std::mem::take(&mut self.scratch);
        let mut missing = 0usize;
        while let Some(again) = self.ring.next_missing(now, rtt, ack, &mut frames) {
            missing = missing.saturating_add(1);
            if !spares || again.class == Class::Audio {
                counters.link_retransmitted.add(1);
                self.seal(now, Class::Repair, &frames, Some(again), counters);
            }
        }
        self.scratch = frames;
        self.budget.confirmed(news.datagrams, news.bytes, missing);
    }

    pub(crate) fn on_ping(&mut self, now: Instant, ping: &Ping) {
        self.echo = Some((ping.sent_us, now));
        self.transit.note(now, ping.sent_us, as_micros(now.saturating_duration_since(self.born)));
        self.budget.set_queue(Duration::from_millis(ping.queue_ms.into()));
        let heard_us = now.checked_sub(Duration::from_millis(ping.heard_ms.into()));
        self.liveness.told(heard_us, ping.active);
        if let Some(echo) = ping.echo_us {
            let sent = self.born.checked_add(Duration::from_micros(echo)).filter(|sent| *sent <= now);
            let round = sent.map(|sent| now.saturating_duration_since(sent).saturating_sub(micros(ping.held_us)));
            if let Some(round) = round.filter(|round| *round < FORGOTTEN_AFTER) {
                let smooth = |rtt: Duration| rtt.saturating_mul(7).saturating_add(round).checked_div(8).unwrap_or(rtt);
                self.rtt = Some(self.rtt.map_or(round, smooth));
            }
        }
    }

    /// The other side ended it.
    pub(crate) fn on_bye(&mut self, why: LinkEnd) -> Change {
        Change::Forgotten(self.forget().then_some(why))
    }

    pub(crate) fn has_session(&self) -> bool {
        self.current.is_some()
    }

    /// Nothing is asked over it, either way: the other side is told.
    pub(crate) fn close(&mut self, now: Instant) -> Change {
        let session = self.current.take();
        let remote = self.remote;
        let change = Change::Forgotten(self.forget().then_some(LinkEnd::Idle));
        self.previous = session.map(|session| (session, after(now, OLD_KEYS_KEPT)));
        if let Some(remote) = remote {
            self.say_bye(remote);
        }
        change
    }

    /// Hot. A packet of one of our streams.
    pub(crate) fn send_media(
        &mut self,
        now: Instant,
        class: Class,
        stream: u32,
        packet: &[u8],
        counters: &Counters,
    ) -> Result<(), DropReason> {
        let bytes = frame::media_bytes(packet);
        if bytes > FRAMES_MAX {
            return Err(DropReason::MessageTooLarge);
        }
        self.make_room(now, class, bytes, counters);
        let open = self.frames.get_mut(place(class)).ok_or(DropReason::QueueFull)?;
        frame::write_media(stream, packet, open);
        Ok(())
    }

    pub(crate) fn send_control<M: Control>(&mut self, now: Instant, message: &M, counters: &Counters) {
        let bytes = frame::control_bytes(message);
        if bytes > FRAMES_MAX {
            return counters.count_drop(DropReason::MessageTooLarge);
        }
        self.make_room(now, CONTROL, bytes, counters);
        if let Some(open) = self.frames.get_mut(place(CONTROL)) {
            frame::write_control(message, open);
        }
    }

    /// Any frames at all, in a datagram of their own.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn send_frames(&mut self, now: Instant, frames: &[u8], counters: &Counters) {
        self.seal(now, CONTROL, frames, None, counters);
    }

    /// Whether something waits to leave.
    pub(crate) fn has_frames(&self) -> bool {
        !self.egress.is_empty() || self.frames.iter().any(|frames| !frames.is_empty())
    }

    /// Seals what was collected, so that it can leave.
    pub(crate) fn flush(&mut self, now: Instant, counters: &Counters) {
        for class in [CONTROL, Class::Audio, Class::Video] {
            self.close_datagram(now, class, counters);
        }
    }

    pub(crate) fn front(&self) -> Option<(SocketAddr, Run<'_>)> {
        self.remote.zip(self.egress.front(usize::MAX))
    }

    pub(crate) fn pop_front(&mut self) {
        self.egress.pop_front(usize::MAX, |_| {});
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let alive = self.current.as_ref().map(|_| self.ping_due);
        let old = self.previous.as_ref().map(|(_, until)| *until);
        let letters = self.letters.next_deadline(self.is_up());
        [alive, old, self.ack_due, self.opens_next, letters].into_iter().flatten().min()
    }

    /// `fresh` is for the next Hello.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Instant,
        keys: &ClusterKeys,
        fresh: Fresh,
        counters: &Counters,
    ) -> Option<Change> {
        if self.previous.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.previous = None;
        }
        let (passed, lost) = self.ring.expire(now);
        counters.link_lost.add(lost);
        self.budget.passed(passed, lost);
        if self.budget.poll(now) {
            counters.link_cuts.add(1);
        }
        if self.current.is_some() {
            if self.liveness.is_over(now) {
                return Some(Change::Forgotten(self.forget().then_some(LinkEnd::Silent)));
            }
            let is_old = now.saturating_duration_since(self.began) >= KEYS_KEPT;
            let is_worn = self.current.as_ref().is_some_and(|current| current.sealed() >= SEALED_MAX);
            if self.asked && (is_old || is_worn) && self.opens_next.is_none() {
                self.opens_next = Some(now);
            }
            if self.ping_due <= now {
                self.ping(now, counters);
            }
            if self.ack_due.is_some_and(|due| due <= now) {
                (self.ack_due, self.unconfirmed) = (None, 0);
                if let Some(ack) = self.current.as_ref().and_then(|current| current.arrived.ack()) {
                    self.send_control(now, &ack, counters);
                }
            }
        }
        if self.opens_next.is_some_and(|at| at <= now) {
            self.say_hello(now, keys, fresh);
        }
        let change = self.poll_change(now);
        for part in self.letters.poll(now, self.is_up(), self.rtt()) {
            self.send_control(now, &part, counters);
        }
        change
    }

    /// Whether it has become usable, or ceased to be.
    pub(crate) fn poll_change(&mut self, now: Instant) -> Option<Change> {
        self.liveness.poll(now, self.current.is_some())
    }

    fn begin(&mut self, now: Instant, session: Session) {
        self.previous = self.current.replace(session).map(|old| (old, after(now, OLD_KEYS_KEPT)));
        (self.opens_next, self.opening_delay) = (None, OPENING_DELAY_MIN);
        self.began = now;
        // Acks of the new session say nothing about datagrams of the old.
        self.ring.clear();
        (self.ack_due, self.unconfirmed, self.ping_due) = (None, 0, now);
        self.liveness.begin(now);
    }

    /// True if it was usable until now.
    fn forget(&mut self) -> bool {
        // What was proposed may still be taken up.
        (self.current, self.previous, self.opening) = (None, None, None);
        (self.opens_next, self.opening_delay) = (None, OPENING_DELAY_MIN);
        (self.ack_due, self.remote, self.rtt, self.echo) = (None, None, None, None);
        self.ring.clear();
        (self.budget, self.transit) = (Budget::default(), Transit::default());
        self.frames.iter_mut().for_each(Vec::clear);
        self.egress = EgressQueue::default();
        self.liveness.forget()
    }

    fn say_hello(&mut self, now: Instant, keys: &ClusterKeys, fresh: Fresh) {
        if self.opening.is_none() {
            self.opening = keys.open(&self.me, &self.peer, fresh.session, fresh.sequence);
        }
        if let Some(opening) = &self.opening {
            let moved = self.remote.filter(|remote| !self.addresses.contains(remote));
            let addresses = self.addresses.iter().copied().chain(moved);
            self.handshakes.extend(addresses.map(|address| (address, opening.datagram.clone())));
        }
        self.opens_next = Some(after(now, self.opening_delay));
        self.opening_delay = self.opening_delay.saturating_mul(2).min(OPENING_DELAY_MAX);
    }

    /// In the session that was closed.
    fn say_bye(&mut self, remote: SocketAddr) {
        let (mut frames, mut datagram) = (Vec::new(), Vec::new());
        frame::write_control(&Bye {}, &mut frames);
        let sealed = self.previous.as_mut().and_then(|(session, _)| session.seal(&frames, &mut datagram));
        if sealed.is_some() && self.handshakes.len() < HANDSHAKES_MAX {
            self.handshakes.push((remote, datagram));
        }
    }

    /// The other side goes on as if the session had not been closed: it did not hear so, unless it says the same.
    fn say_bye_again(&mut self, remote: SocketAddr, heard: &[u8]) {
        if frames(heard).flatten().any(|frame| frame.kind == Bye::KIND) {
            self.previous = None;
        } else {
            self.say_bye(remote);
        }
    }

    fn ping(&mut self, now: Instant, counters: &Counters) {
        self.ping_due = after(now, self.liveness.ping_interval());
        let since = |at: Instant| now.saturating_duration_since(at);
        let ping = Ping {
            sent_us: as_micros(since(self.born)),
            echo_us: self.echo.map(|(sent, _)| sent),
            held_us: self.echo.map_or(0, |(_, at)| as_micros(since(at))),
            heard_ms: u32::try_from(self.liveness.since_heard(now).as_millis()).unwrap_or(u32::MAX),
            active: self.liveness.is_active(),
            queue_ms: u32::try_from(self.transit.excess().as_millis()).unwrap_or(u32::MAX),
            reaches_store: self.reaches_store,
        };
        self.send_control(now, &ping, counters);
    }

    /// Closes the datagram that is being filled if another frame would make it too long.
    fn make_room(&mut self, now: Instant, class: Class, bytes: usize, counters: &Counters) {
        let open = self.frames.get(place(class)).map_or(0, Vec::len);
        if open.saturating_add(bytes) > BUNDLE_BYTES {
            self.close_datagram(now, class, counters);
        }
    }

    fn close_datagram(&mut self, now: Instant, class: Class, counters: &Counters) {
        let Some(open) = self.frames.get_mut(place(class)).filter(|open| !open.is_empty()) else { return };
        let mut frames = std::mem::take(open);
        self.seal(now, class, &frames, None, counters);
        frames.clear();
        if let Some(open) = self.frames.get_mut(place(class)) {
            *open = frames;
        }
    }

    fn seal(&mut self, now: Instant, class: Class, frames: &[u8], again: Option<Again>, counters: &Counters) {
        let Some(session) = &mut self.current else { return };
        // Control has the right of way of audio.
        let lane = if class == CONTROL { Class::Audio } else { class };
        if !self.egress.has_room(lane, usize::MAX) {
            return counters.count_drop(DropReason::QueueFull);
        }
        let mut counter = None;
        let sealed = self.egress.append(lane, |out, _| {
            counter = session.seal(frames, out);
            counter.map(|_| None).ok_or(DropReason::NotConnected)
        });
        match (sealed, counter) {
            (Ok(bytes), Some(counter)) => {
                counters.link_packets_out.add(1);
                counters.link_bytes_out.add(bytes);
                if class != CONTROL {
                    let again = again.unwrap_or(Again { first_at: now, tries: 0, class });
                    self.ring.push(now, counter, frames, again);
                }
            }
            (result, _) => counters.count_drop(result.err().unwrap_or(DropReason::QueueFull)),
        }
    }
}

/// Messages go in datagrams of their own: repeated media must not repeat what is no longer true.
const CONTROL: Class = Class::Padding;
const CLASSES: usize = 4;

fn place(class: Class) -> usize {
    usize::from(class as u8)
}

fn as_micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

fn micros(count: u64) -> Duration {
    Duration::from_micros(count)
}

/// First bytes, outside of what RFC 7983 gives to others on the port.
pub(crate) const HELLO: u8 = 0xc0;
pub(crate) const ACCEPT: u8 = 0xc1;
pub(crate) const SEALED: u8 = 0xc2;

/// A datagram is not filled beyond this by more frames.
const BUNDLE_BYTES: usize = 1_200;
/// What a single frame may have, so that a datagram is no longer than an Ethernet frame.
const FRAMES_MAX: usize = 1_500 - HEADER_BYTES - TAG_BYTES;
const ADDRESSES_MAX: usize = 8;
/// Answers that wait to leave; all are asked for again.
const HANDSHAKES_MAX: usize = 16;

const ACK_DELAY: Duration = Duration::from_millis(50);
const ACK_DATAGRAMS: u32 = 64;
const ASSUMED_RTT: Duration = Duration::from_millis(50);
const OPENING_DELAY_MIN: Duration = Duration::from_millis(250);
const OPENING_DELAY_MAX: Duration = Duration::from_secs(1);
const KEYS_KEPT: Duration = Duration::from_secs(3_600);
const SEALED_MAX: u64 = 1 << 40;
/// Longer than a datagram is under way.
const OLD_KEYS_KEPT: Duration = Duration::from_secs(3);
