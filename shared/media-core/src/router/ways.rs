//! By which link the tracks of each router come: by the one to that router, or, while that is cut, through a third.
//!
//! Whoever cannot reach a router wishes for its tracks from another, and names it. Who is asked so pulls from the named
//! router itself and from nobody else: a packet crosses two links at most, and none comes back to where it was, whatever
//! is cut. The wishes over the straight link stand meanwhile; once it is whole both ways bring the same packets for a
//! while, of which the second is a duplicate, and then the other ends.

use std::time::{Duration, Instant};

use plenary_model::{NodeId, TrackSid};

use super::{
    Router,
    links::{Entry, Links},
    track::Track,
};
use crate::{Crossing, Event, RouterId, ingress::after};

/// How the router behind one link is reached.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Of a link over which something is wanted and that is not up: until when it may come up before another way is looked for.
    awaited_until: Option<Instant>,
    through: Option<Through>,
    /// Nodes that were asked in vain since the link went down; none again until all were.
    tried: Vec<NodeId>,
    /// There was no way at all when one was looked for. The link is opened again and again then, whether or not it is wanted
    /// by now: who could not be reached is not wished for, and whether they can be again somebody has to find out.
    is_lost: bool,
}

#[derive(Debug)]
struct Through {
    /// Of the link to who is asked instead.
    slot: usize,
    /// By then it has told of something.
    answers_until: Instant,
    /// Since when the straight link is up again.
    whole_since: Option<Instant>,
}

/// What a router can do for another that asks it for a third's tracks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Straight,
    /// Its link is being opened.
    Perhaps,
    No,
}

impl Way {
    pub(super) fn is_straight(&self) -> bool {
        self.through.is_none()
    }

    /// Over which link else its tracks are asked for.
    pub(super) fn through(&self) -> Option<usize> {
        self.through.as_ref().map(|through| through.slot)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// It was waited for in vain.
    fn is_overdue(&self, now: Instant) -> bool {
        self.awaited_until.is_some_and(|until| until <= now)
    }

    /// Who was asked is no neighbour any more.
    pub(super) fn forget(&mut self, slot: usize) {
        self.through.take_if(|through| through.slot == slot);
    }

    /// Its link has failed after it was up: there is nothing to wait for.
    pub(super) fn has_failed(&mut self, now: Instant) {
        self.awaited_until = Some(now);
    }
}

impl Router {
    /// What it sends to other routers now.
    pub fn sent_to_routers(&self) -> Vec<Crossing> {
        let pullers = self.tracks.values().flat_map(|track| track.pullers.iter().map(move |puller| (track, puller)));
        let sent = pullers.filter_map(|(track, puller)| {
            let router = self.links.at(puller.link)?.link.peer.clone();
            Some(Crossing { router, track: track.sid.clone(), streams: puller.streams })
        });
        sent.collect()
    }

    /// What it wants of other routers now.
    pub fn wanted_of_routers(&self) -> Vec<Crossing> {
        let each = self.links.entries().flat_map(|(_, entry)| {
            let crossing = |(track, streams): (&TrackSid, u8)| Crossing {
                router: entry.link.peer.clone(),
                track: track.clone(),
                streams,
            };
            entry.pulls.wanted().map(crossing)
        });
        each.collect()
    }

    /// Looks whether the tracks of the router behind a link come the way they should.
    pub(super) fn find_way(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.links.entry(slot) else { return };
        let (is_up, is_asked) = (entry.link.is_up(), !entry.pulls.is_empty());
        if is_up || !is_asked {
            entry.way.awaited_until = None;
            entry.way.tried.clear();
        } else {
            entry.way.awaited_until = entry.way.awaited_until.or(Some(after(now, OPENED_WITHIN)));
        }
        if is_up {
            self.set_lost(slot, false);
        }
        let Some(entry) = self.links.entry(slot).filter(|entry| !entry.way.is_straight() || (is_asked && !is_up))
        else {
            return;
        };
        let before = entry.way.through();
        if self.own_wishes(slot, None).is_empty() {
            self.end_relay(slot);
        } else if is_up {
            if self.is_whole(now, slot) {
                self.end_relay(slot);
            }
        } else {
            self.check_relay(now, slot);
            self.choose_relay(now, slot);
        }
        let through = self.links.entry(slot).and_then(|entry| entry.way.through());
        if before != through {
            // What it is asked for has changed; so has what is served to others.
            self.links.stir(now);
        }
    }

    fn end_relay(&mut self, slot: usize) {
        if let Some(entry) = self.links.entry(slot) {
            entry.way.through = None;
        }
    }

    /// Whether the straight link has been back for long enough to rely on it alone, and brings each track that is received here.
    fn is_whole(&mut self, now: Instant, slot: usize) -> bool {
        let Self { links, tracks, .. } = self;
        let Some(entry) = links.entry(slot) else { return false };
        let Some(through) = &mut entry.way.through else { return true };
        let since = *through.whole_since.get_or_insert(now);
        let mut received = tracks.values().filter(|track| track.is_from_link(slot) && track.is_received_here());
        now >= after(since, BOTH_FOR) && received.all(|track| entry.pulls.is_told(&track.sid))
    }

    /// Whether who is asked instead does what it is asked for.
    fn check_relay(&mut self, now: Instant, slot: usize) {
        let Some(Entry { link, way, .. }) = self.links.entry(slot) else { return };
        let home = link.peer.clone();
        let Some(through) = &mut way.through else { return };
        through.whole_since = None;
        let (relay, answers_until) = (through.slot, through.answers_until);
        let answers = self.links.entry(relay).is_some_and(|entry| entry.link.is_up() && entry.pulls.is_told_of(&home));
        let may_answer = |entry: &mut Entry| !entry.link.is_up() || entry.link.relays();
        if answers {
            self.set_lost(slot, false);
        } else if now >= answers_until || !self.links.entry(relay).is_some_and(may_answer) {
            self.forsake(slot, relay);
        }
    }

    /// Asks the next if nobody is asked.
    fn choose_relay(&mut self, now: Instant, slot: usize) {
        let Some(entry) = self.links.entry(slot) else { return };
        if entry.way.through.is_some() || entry.way.awaited_until.is_none_or(|until| now < until) {
            return;
        }
        let Some(relay) = self.links.relay_for(now, slot) else {
            if let Some(entry) = self.links.entry(slot) {
                entry.way.tried.clear();
                entry.way.awaited_until = Some(after(now, LOOKED_AGAIN_AFTER));
            }
            return self.set_lost(slot, true);
        };
        let is_open = self.links.entry(relay).is_some_and(|entry| entry.link.is_up());
        let patience = if is_open { ANSWERED_WITHIN } else { OPENED_WITHIN.saturating_add(ANSWERED_WITHIN) };
        if let Some(entry) = self.links.entry(slot) {
            let answers_until = after(now, patience);
            entry.way.through = Some(Through { slot: relay, answers_until, whole_since: None });
        }
        self.begin_anew(slot);
    }

    /// Who was asked for the tracks of the router behind a link cannot bring them.
    pub(super) fn forsake(&mut self, slot: usize, relay: usize) {
        let node = self.links.entry(relay).map(|entry| entry.link.peer.node.clone());
        let Some(entry) = self.links.entry(slot).filter(|entry| entry.way.through() == Some(relay)) else { return };
        entry.way.through = None;
        entry.way.tried.extend(node);
    }

    pub(super) fn set_lost(&mut self, slot: usize, is_lost: bool) {
        let Some(entry) = self.links.entry(slot) else { return };
        if std::mem::replace(&mut entry.way.is_lost, is_lost) != is_lost {
            let router = entry.link.peer.clone();
            self.events.push_back(Event::RouterReached { router, is_reached: !is_lost });
        }
    }
}

impl Links {
    /// Whether a track may cross a link, to who named its router so in its wish: what is published here to anybody, and
    /// what comes straight from where it is published to who says that it cannot reach that.
    pub(super) fn may_serve(&self, slot: usize, track: &Track, origin: Option<&RouterId>) -> bool {
        let home = track.home();
        home.is_none_or(|home| {
            let is_straight = self.at(home).is_some_and(|entry| entry.link.is_up() && entry.way.is_straight());
            home != slot && is_straight && origin.is_some_and(|origin| self.slot(origin) == Some(home))
        })
    }

    /// Whether tracks of a router can be had for who asks over a link.
    pub(super) fn reach(&self, now: Instant, slot: usize, router: &RouterId) -> Reach {
        let Some(home) = self.slot(router).filter(|home| *home != slot) else { return Reach::No };
        let Some(Entry { link, way, .. }) = self.at(home) else { return Reach::No };
        if !way.is_straight() || way.is_lost || (!link.is_up() && way.is_overdue(now)) {
            Reach::No
        } else if link.is_up() {
            Reach::Straight
        } else {
            Reach::Perhaps
        }
    }

    /// Whom to ask for the tracks of the router behind a link: a router of a third node, since what cuts two nodes cuts all
    /// of theirs, and one that is spoken to anyway if there is such.
    fn relay_for(&self, now: Instant, slot: usize) -> Option<usize> {
        let (home, own) = (self.at(slot)?, self.own_node()?);
        let may = |(_, Entry { link, way, .. }): &(usize, &Entry)| {
            let can = if link.is_up() { link.relays() } else { !way.is_overdue(now) };
            let node = &link.peer.node;
            let is_third = *node != home.link.peer.node && node != own;
            is_third && can && way.is_straight() && !home.way.tried.contains(node)
        };
        let others = self.entries().filter(may);
        others.min_by_key(|(at, entry)| (!entry.link.is_up(), *at)).map(|(at, _)| at)
    }
}

/// As long as a Hello and its answer take on a long way, one of them lost.
const OPENED_WITHIN: Duration = Duration::from_secs(1);
/// As long as who is asked takes to open its own link, on such a way.
const ANSWERED_WITHIN: Duration = Duration::from_millis(800);
/// When all have been asked in vain.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// For how long both ways bring everything: whatever one of them has yet to bring comes meanwhile.
const BOTH_FOR: Duration = Duration::from_secs(1);
