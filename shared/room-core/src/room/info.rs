//! What everybody was told about the room itself, and how long it has been empty.

use std::time::{Duration, Instant};

use plenary_model::RoomInfo;

#[derive(Debug, Default)]
pub(super) struct ToldInfo {
    told: Option<RoomInfo>,
    /// Somebody was welcomed with other counts than the others were told.
    uneven: bool,
    /// Counts do not go out before this.
    counts_from: Option<Instant>,
    /// Changed counts wait until then.
    due: Option<Instant>,
}

impl ToldInfo {
    pub(super) fn welcomed_with(&mut self, room: &RoomInfo) {
        self.uneven |= self.told.as_ref().is_some_and(|told| told != room);
    }

    /// The room as it is now, if everybody is to hear of it now; it counts as told then.
    pub(super) fn news(&mut self, now: Instant, room: RoomInfo, interval: Duration) -> Option<RoomInfo> {
        self.due = None;
        let Some(told) = &self.told else {
            self.told = Some(room);
            return None;
        };
        let only_counts =
            *told == RoomInfo { participants: told.participants, publishers: told.publishers, ..room.clone() };
        if *told == room && !self.uneven {
            return None;
        }
        if let Some(from) = self.counts_from.filter(|from| only_counts && *from > now) {
            self.due = Some(from);
            return None;
        }
        self.counts_from = now.checked_add(interval);
        self.uneven = false;
        self.told = Some(room.clone());
        Some(room)
    }

    /// The room's history ended and nothing is known until the next one starts.
    pub(super) fn wait_for_snapshot(&mut self) {
        self.due = None;
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }
}

/// How long nobody has been here who keeps the room open.
#[derive(Debug)]
pub(super) struct Vacancy {
    since: Option<Instant>,
    history: History,
    /// The store was asked to close the room and is not asked again before this.
    asked_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum History {
    NobodyYet,
    SomebodyLeft,
}

impl Vacancy {
    pub(super) fn since(now: Instant) -> Self {
        Self { since: Some(now), history: History::NobodyYet, asked_until: None }
    }

    pub(super) fn review(&mut self, now: Instant, alive: bool) {
        if alive {
            *self = Self { since: None, history: History::SomebodyLeft, asked_until: None };
        } else if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// When the room has been empty for long enough, or the store is to be asked again.
    pub(super) fn ends(&self, room: &RoomInfo) -> Option<Instant> {
        let seconds = match self.history {
            History::NobodyYet => room.empty_timeout_s,
            History::SomebodyLeft => room.departure_timeout_s,
        };
        let end = self.since?.checked_add(Duration::from_secs(seconds.into()))?;
        Some(self.asked_until.map_or(end, |again| again.max(end)))
    }

    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_until = now.checked_add(CLOSE_AGAIN);
    }
}

/// The store's answer is the `Closed` that comes home; a request that got lost is made again.
const CLOSE_AGAIN: Duration = Duration::from_secs(5);
