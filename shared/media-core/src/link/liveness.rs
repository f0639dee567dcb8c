//! Whether two routers hear each other. One way is no way: a link is usable only while both directions work.

use std::time::{Duration, Instant};

use super::Change;
use crate::LinkEnd;

#[derive(Debug)]
pub(super) struct Liveness {
    heard: Instant,
    /// When the other side heard us, as far as we know.
    heard_us: Instant,
    /// Media flows, in either direction; since when.
    active: Option<Instant>,
    /// The same in the other side's words.
    peer_active: bool,
    is_up: bool,
    /// Since when it is not, of a session that was.
    down_since: Option<Instant>,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, heard_us: now, active: None, peer_active: false, is_up: false, down_since: None }
    }

    /// A session begins: by its handshake both have heard each other.
    pub(super) fn begin(&mut self, now: Instant) {
        (self.heard, self.heard_us, self.down_since) = (now, now, None);
    }

    /// There is no session any more. True if it was usable until now.
    pub(super) fn forget(&mut self) -> bool {
        self.active = None;
        std::mem::take(&mut self.is_up)
    }

    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The other side says when it heard us, and whether media flows.
    pub(super) fn told(&mut self, heard_us: Option<Instant>, is_active: bool) {
        self.heard_us = heard_us.map_or(self.heard_us, |at| at.max(self.heard_us));
        self.peer_active = is_active;
    }

    /// True if media begins to flow.
    pub(super) fn set_active(&mut self, now: Instant, is_active: bool) -> bool {
        let begins = is_active && self.active.is_none();
        self.active = if is_active { self.active.or(Some(now)) } else { None };
        begins
    }

    pub(super) fn is_active(&self) -> bool {
        self.active.is_some()
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn since_heard(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    pub(super) fn ping_interval(&self) -> Duration {
        if self.active.is_some() || self.peer_active { PING_ACTIVE } else { PING_IDLE }
    }

    /// Nobody knows any more what the other side remembers.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.silence(now) >= FORGOTTEN_AFTER.max(self.patience(now))
    }

    /// Whether it has become usable, or ceased to be.
    pub(super) fn poll(&mut self, now: Instant, has_session: bool) -> Option<Change> {
        // Once down, it is up again when both have heard each other since, however patient one may be by then.
        let has_news = self.down_since.is_none_or(|down| self.heard.min(self.heard_us) > down);
        let is_up = has_session && has_news && self.silence(now) < self.patience(now);
        if std::mem::replace(&mut self.is_up, is_up) == is_up {
            return None;
        }
        self.down_since = (!is_up).then_some(now);
        // What the other side hears is known later than what we hear.
        let is_silent = self.since_heard(now).saturating_mul(2) >= self.patience(now);
        let end = if is_silent { LinkEnd::Silent } else { LinkEnd::Unheard };
        Some(if is_up { Change::Up } else { Change::Down(end) })
    }

    /// How long one of the two has not heard the other.
    fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard.min(self.heard_us))
    }

    /// The silence that makes it unusable: shorter while both ping often.
    fn patience(&self, now: Instant) -> Duration {
        let settled = |since: Instant| now.saturating_duration_since(since) > SETTLED_AFTER;
        if self.active.is_some_and(settled) { SUSPECT_AFTER } else { SUSPECT_AFTER_IDLE }
    }
}

const PING_ACTIVE: Duration = Duration::from_millis(100);
const PING_IDLE: Duration = Duration::from_secs(1);
/// Six pings in a row.
const SUSPECT_AFTER: Duration = Duration::from_millis(600);
/// The other side's word for what it heard is two pings old at times, and one of each may be lost.
const SUSPECT_AFTER_IDLE: Duration = Duration::from_secs(4);
/// By then both ping often.
const SETTLED_AFTER: Duration = Duration::from_millis(1_500);
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(3);
