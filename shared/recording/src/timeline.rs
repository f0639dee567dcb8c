//! When on our clock a frame was made: RTP timestamps, held to the clock by sender reports.
//!
//! All times are of the recording node's monotonic clock. What a sender calls its wall clock may be hours off and may
//! drift; [`SenderClock`] tells where a report lies on ours, [`Timeline`] follows the reports without a jump that could be
//! heard.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How much a second of media may be made longer or shorter, in ms.
pub const SLEW_MS_PER_S: i64 = 5;
/// For so long after its first report a track's zero is still corrected instead of its pace: the first reports may have
/// been held up on their way.
pub const SETTLING: Duration = Duration::from_secs(10);
/// What a sender does not know the capture of (libwebrtc's sound) it says was made when it sends it, later than it was by what
/// held it up. So of this many reports the earliest counts.
pub const REPORTS: usize = 4;
/// Later than all of them by more than that, something is missing at the source, and what follows is as late as it says.
pub const HELD_UP_MAX: Duration = Duration::from_millis(50);
/// Further off than this is no drift: the time is set anew at once.
pub const STEP: Duration = Duration::from_millis(200);
/// A frame is not believed to have been made longer than this before it arrived.
pub const DELAY_MAX: Duration = Duration::from_secs(10);
/// Nor so much after it.
pub const LEAD_MAX: Duration = Duration::from_secs(1);
/// Between the times of two frames of a track: one tick of the files.
pub const TICK: Duration = Duration::from_millis(1);

/// The clock of one sender against ours. One for all tracks of a participant: they keep the lip sync that the sender gave
/// them, however different the ways of their reports were.
///
/// A report says when it was made, by the sender's clock; when it arrives is later by the delay of the network. The
/// quickest of those of the last minute stands for all.
#[derive(Debug, Default)]
pub struct SenderClock {
    /// Of the first report: offsets count from here.
    origin: Option<(u64, Instant)>,
    /// How far our clock was ahead of the sender's at most, in ns, in each of the last stretches of time.
    least: VecDeque<Least>,
}

#[derive(Debug, Clone, Copy)]
struct Least {
    /// Of our clock, in ns since `origin`.
    began: i64,
    offset: i64,
}

impl SenderClock {
    /// When a report was made, on our clock. `ntp` is its NTP timestamp (RFC 3550 6.4.1), 32 bits of seconds before 32 of
    /// fraction.
    pub fn local(&mut self, ntp: u64, received: Instant) -> Instant {
        let (first, origin) = *self.origin.get_or_insert((ntp, received));
        let sent = ntp_nanoseconds(ntp.wrapping_sub(first).cast_signed());
        let arrived = nanoseconds_between(origin, received);
        let offset = arrived.saturating_sub(sent);
        // Held up for longer than anything would be: the sender has set its clock back.
        if self.offset().is_some_and(|least| offset.saturating_sub(least) > nanoseconds(SENDER_STEP)) {
            self.least.clear();
        }
        self.note(arrived, offset);
        let made = sent.saturating_add(self.offset().unwrap_or(offset));
        after(origin, made)
    }

    fn offset(&self) -> Option<i64> {
        self.least.iter().map(|least| least.offset).min()
    }

    fn note(&mut self, arrived: i64, offset: i64) {
        let stretch = nanoseconds(OFFSET_STRETCH);
        match self.least.back_mut() {
            Some(last) if arrived.saturating_sub(last.began) < stretch => last.offset = last.offset.min(offset),
            _ => self.least.push_back(Least { began: arrived, offset }),
        }
        let kept = stretch.saturating_mul(OFFSET_STRETCHES);
        while self.least.front().is_some_and(|first| arrived.saturating_sub(first.began) > kept) {
            self.least.pop_front();
        }
    }
}

/// A minute: at 100 ppm the sender's clock has moved by 6 ms in it.
const OFFSET_STRETCH: Duration = Duration::from_secs(5);
const OFFSET_STRETCHES: i64 = 12;
const SENDER_STEP: Duration = Duration::from_secs(2);

/// The times of one track's frames in its file.
#[derive(Debug)]
pub(crate) struct Timeline {
    clock_rate: u32,
    /// Everything is counted in ns from here, when the first packet arrived.
    origin: Option<Instant>,
    /// RTP timestamp of the newest frame, and its running number of ticks without wraps.
    newest: Option<(u32, i64)>,
    /// From media time, which is ticks by the nominal rate, to our clock.
    offset: i64,
    /// Where the offset is going.
    target: i64,
    /// Where the newest reports would have it be.
    reported: VecDeque<i64>,
    anchor: Anchor,
    /// On our clock, where the file's time begins.
    zero: i64,
    last: Option<Last>,
    /// Came before the first frame did.
    early_report: Option<Report>,
}

/// What the offset rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    /// The arrival of the track's first frame.
    First,
    /// The arrival of a frame that did not follow from those before.
    Arrival,
    /// Sender reports, the first of them made when the media time was this.
    Reports { since: i64 },
}

#[derive(Debug, Clone, Copy)]
struct Last {
    media: i64,
    at: Duration,
}

/// What a sender report says of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The RTP timestamp of the moment at which it was made.
    pub timestamp: u32,
    /// That moment, as [`SenderClock::local`] tells it.
    pub at: Instant,
}

impl Timeline {
    pub(crate) fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate: clock_rate.max(1),
            origin: None,
            newest: None,
            offset: 0,
            target: 0,
            reported: VecDeque::new(),
            anchor: Anchor::First,
            zero: 0,
            last: None,
            early_report: None,
        }
    }

    /// The time in the file of the next frame, at least a [`TICK`] after the last.
    pub(crate) fn frame(&mut self, timestamp: u32, received: Instant) -> Duration {
        let origin = *self.origin.get_or_insert(received);
        let arrived = nanoseconds_between(origin, received);
        let ticks = self.ticks(timestamp);
        self.newest = Some((timestamp, ticks));
        let media = self.media(ticks);
        let Some(last) = self.last else {
            self.offset = arrived.saturating_sub(media);
            if let Some(report) = self.early_report.take() {
                self.report(report);
            }
            self.zero = media.saturating_add(self.offset);
            self.last = Some(Last { media, at: Duration::ZERO });
            return Duration::ZERO;
        };
        if matches!(self.anchor, Anchor::Reports { .. }) {
            let most = media.saturating_sub(last.media).max(0).saturating_mul(SLEW_MS_PER_S) / 1_000;
            let step = self.target.saturating_sub(self.offset).clamp(most.saturating_neg(), most);
            self.offset = self.offset.saturating_add(step);
        }
        let delay = arrived.saturating_sub(media.saturating_add(self.offset));
        if delay > nanoseconds(DELAY_MAX) || delay < nanoseconds(LEAD_MAX).saturating_neg() {
            self.anchor_at(arrived, media);
        }
        let made = media.saturating_add(self.offset).saturating_sub(self.zero);
        let at = duration(made).max(last.at.saturating_add(TICK));
        self.last = Some(Last { media, at });
        at
    }

    /// Takes a report to heart. The new zero, on our clock, if it says that the file began at another time.
    pub(crate) fn report(&mut self, report: Report) -> Option<Instant> {
        let (Some(origin), Some(_)) = (self.origin, self.newest) else {
            self.early_report = Some(report);
            return None;
        };
        let media = self.media(self.ticks(report.timestamp));
        let target = nanoseconds_between(origin, report.at).saturating_sub(media);
        // Says something of another stream, or nothing true.
        if target.saturating_sub(self.offset).saturating_abs() > nanoseconds(DELAY_MAX) {
            return None;
        }
        let target = self.earliest(target);
        let error = target.saturating_sub(self.offset);
        let settling = nanoseconds(SETTLING);
        match self.anchor {
            Anchor::First => self.anchor = Anchor::Reports { since: media },
            Anchor::Reports { since }
                if media.saturating_sub(since) <= settling && error.saturating_abs() >= nanoseconds(TICK) => {}
            Anchor::Reports { .. } => {
                self.target = target;
                if error.saturating_abs() > nanoseconds(STEP) {
                    self.offset = target;
                }
                return None;
            }
            Anchor::Arrival => {
                // Longer ago than settling takes: the zero stays, frames lie before this one.
                self.anchor = Anchor::Reports { since: media.saturating_sub(settling).saturating_sub(1) };
                self.offset = target;
                self.target = target;
                return None;
            }
        }
        self.offset = target;
        self.target = target;
        self.zero = self.zero.saturating_add(error);
        (self.last.is_some() && error != 0).then(|| after(origin, self.zero))
    }

    /// Of what the newest reports say, this one included.
    fn earliest(&mut self, target: i64) -> i64 {
        let held_up = nanoseconds(HELD_UP_MAX);
        if self.reported.iter().all(|before| target.saturating_sub(*before) > held_up) {
            self.reported.clear();
        }
        self.reported.push_front(target);
        self.reported.truncate(REPORTS);
        self.reported.iter().copied().min().unwrap_or(target)
    }

    /// The next frame's timestamp does not follow from those before: it is made when it arrives, until a report says more.
    pub(crate) fn restart(&mut self, timestamp: u32, received: Instant) {
        self.early_report = None;
        let (Some(origin), Some((_, ticks))) = (self.origin, self.newest) else { return };
        self.newest = Some((timestamp, ticks));
        self.anchor_at(nanoseconds_between(origin, received), self.media(ticks));
    }

    /// On our clock, where the file's time begins. `None` before the first frame.
    pub(crate) fn zero(&self) -> Option<Instant> {
        self.last.and(self.origin).map(|origin| after(origin, self.zero))
    }

    fn anchor_at(&mut self, arrived: i64, media: i64) {
        self.offset = arrived.saturating_sub(media);
        self.target = self.offset;
        self.reported.clear();
        self.anchor = Anchor::Arrival;
    }

    /// The running number that is nearest to the newest frame's.
    fn ticks(&self, timestamp: u32) -> i64 {
        self.newest
            .map_or(0, |(newest, ticks)| ticks.saturating_add(i64::from(timestamp.wrapping_sub(newest).cast_signed())))
    }

    fn media(&self, ticks: i64) -> i64 {
        let nanoseconds = i128::from(ticks).saturating_mul(1_000_000_000).checked_div(i128::from(self.clock_rate));
        nanoseconds.and_then(|nanoseconds| i64::try_from(nanoseconds).ok()).unwrap_or_default()
    }
}

fn ntp_nanoseconds(fixed_point: i64) -> i64 {
    let nanoseconds = i128::from(fixed_point).saturating_mul(1_000_000_000) >> 32;
    i64::try_from(nanoseconds).unwrap_or_default()
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn duration(nanoseconds: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or_default())
}

fn nanoseconds_between(from: Instant, to: Instant) -> i64 {
    match to.checked_duration_since(from) {
        Some(after) => nanoseconds(after),
        None => nanoseconds(from.saturating_duration_since(to)).saturating_neg(),
    }
}

fn after(origin: Instant, nanoseconds: i64) -> Instant {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let moved = if nanoseconds < 0 { origin.checked_sub(distance) } else { origin.checked_add(distance) };
    moved.unwrap_or(origin)
}
