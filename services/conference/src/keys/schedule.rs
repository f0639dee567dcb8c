//! When to fetch the keys of an issuer, and how long to believe them. No clock: whoever asks brings the time.

use std::time::{Duration, Instant};

/// How often, how patient, how trusting.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// From a success to the next fetch.
    pub fresh: Duration,
    /// From a success until the keys are no longer believed, if no other success comes.
    pub believed: Duration,
    /// Between fetches that tokens ask for.
    pub asked_every: Duration,
    /// After the first failure; doubled with each further one.
    pub back_off: Duration,
    pub back_off_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            fresh: Duration::from_secs(10 * 60),
            // An outage of the issuer must not end the calls of a day.
            believed: Duration::from_secs(24 * 60 * 60),
            asked_every: Duration::from_secs(60),
            back_off: Duration::from_secs(1),
            back_off_max: Duration::from_secs(5 * 60),
        }
    }
}

/// One issuer's. At most one fetch is in flight.
#[derive(Debug)]
pub struct Schedule {
    timing: Timing,
    next_at: Instant,
    in_flight: bool,
    began_at: Option<Instant>,
    believed_until: Option<Instant>,
    failures: u32,
}

/// What becomes of the wish for newer keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A fetch is due now.
    Fetch,
    InFlight,
    TooSoon,
}

impl Schedule {
    /// Due at once.
    pub fn new(now: Instant, timing: Timing) -> Self {
        Self { timing, next_at: now, in_flight: false, began_at: None, believed_until: None, failures: 0 }
    }

    /// A token names a key that is not known. Strangers can write such tokens, so this is granted now and then only.
    pub fn ask(&mut self, now: Instant) -> Asked {
        if self.in_flight {
            return Asked::InFlight;
        }
        let rested = self.began_at.is_none_or(|began| now >= began + self.timing.asked_every);
        if !rested && now < self.next_at {
            return Asked::TooSoon;
        }
        self.next_at = self.next_at.min(now);
        Asked::Fetch
    }

    /// Begins a fetch if one is due.
    pub fn begin(&mut self, now: Instant) -> bool {
        let due = !self.in_flight && now >= self.next_at;
        if due {
            self.in_flight = true;
            self.began_at = Some(now);
        }
        due
    }

    pub fn succeeded(&mut self, now: Instant) {
        self.in_flight = false;
        self.failures = 0;
        self.next_at = now + self.timing.fresh;
        self.believed_until = Some(now + self.timing.believed);
    }

    /// How long until the next one.
    pub fn failed(&mut self, now: Instant) -> Duration {
        self.in_flight = false;
        let doubled = self.timing.back_off.saturating_mul(2_u32.saturating_pow(self.failures));
        let wait = doubled.min(self.timing.back_off_max);
        self.failures = self.failures.saturating_add(1);
        self.next_at = now + wait;
        wait
    }

    /// Whether the keys have just become too old to be believed. Said once.
    pub fn expire(&mut self, now: Instant) -> bool {
        self.believed_until.take_if(|until| now >= *until).is_some()
    }

    pub fn next_deadline(&self) -> Instant {
        self.believed_until.map_or(self.next_at, |until| until.min(self.next_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fetched(schedule: &mut Schedule, at: Instant) {
        assert!(schedule.begin(at));
        schedule.succeeded(at);
    }

    #[test]
    fn keys_are_fetched_at_once_and_then_every_ten_minutes() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Timing::default());
        assert_eq!(schedule.next_deadline(), start);
        fetched(&mut schedule, start);
        assert_eq!(schedule.next_deadline(), start + 600 * SECOND);
        assert!(!schedule.begin(start + 599 * SECOND));
        assert!(schedule.begin(start + 600 * SECOND));
        assert!(!schedule.begin(start + 601 * SECOND), "one at a time");
    }

    #[test]
    fn failures_wait_longer_and_longer_and_a_success_forgets_them() {
        let mut now = Instant::now();
        let mut schedule = Schedule::new(now, Timing::default());
        let waits: Vec<_> = (0..12)
            .map(|_| {
                assert!(schedule.begin(now));
                let wait = schedule.failed(now);
                assert!(!schedule.begin(now + wait - SECOND / 2));
                now += wait;
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        fetched(&mut schedule, now);
        now += 600 * SECOND;
        assert!(schedule.begin(now));
        assert_eq!(schedule.failed(now), SECOND);
    }

    #[test]
    fn tokens_with_unknown_keys_cause_a_fetch_a_minute_at_most() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Timing::default());
        assert_eq!(schedule.ask(start), Asked::Fetch, "nothing is known yet");
        assert!(schedule.begin(start));
        assert_eq!(schedule.ask(start), Asked::InFlight);
        schedule.succeeded(start);
        let mut fetches = 0;
        for second in 1..=600 {
            let now = start + second * SECOND;
            if schedule.ask(now) == Asked::Fetch {
                assert!(schedule.begin(now), "what was granted is due");
                schedule.succeeded(now);
                fetches += 1;
            }
        }
        assert_eq!(fetches, 10);
    }

    #[test]
    fn an_outage_is_not_made_worse_by_tokens() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Timing::default());
        let mut attempts = 0;
        for half_second in 0..1200 {
            let now = start + half_second * SECOND / 2;
            schedule.ask(now);
            if schedule.begin(now) {
                schedule.failed(now);
                attempts += 1;
            }
        }
        assert!((7..=17).contains(&attempts), "{attempts} in ten minutes");
    }

    #[test]
    fn old_keys_are_believed_for_a_day_of_outage() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start, Timing::default());
        fetched(&mut schedule, start);
        let day = 24 * 3600 * SECOND;
        let mut now = start;
        while now < start + day - SECOND {
            now = schedule.next_deadline().min(start + day - SECOND);
            if schedule.begin(now) {
                schedule.failed(now);
            }
            assert!(!schedule.expire(now));
        }
        assert_eq!(schedule.next_deadline(), start + day);
        assert!(schedule.expire(start + day));
        assert!(!schedule.expire(start + day), "said once");
    }
}
