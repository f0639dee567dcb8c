//! When a datagram came to its socket. The kernel says it on the wall clock, which may be set at any time; what follows from it
//! is on the clock that only goes forward.

use std::time::{Duration, Instant, SystemTime};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub monotonic: Instant,
    pub wall: SystemTime,
}

/// The arrival times on one socket.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    latest: Option<Instant>,
}

impl Arrivals {
    /// When a datagram that the kernel stamped so came: `present` without a stamp, never after that, and never before a
    /// datagram that was read earlier. That and [`AGE_MAX`] bound what a clock that was set in between can do.
    pub fn time(&mut self, present: Moment, stamp: Option<SystemTime>) -> Instant {
        let age = stamp.and_then(|stamp| present.wall.duration_since(stamp).ok()).unwrap_or_default().min(AGE_MAX);
        let stamped = present.monotonic.checked_sub(age).unwrap_or(present.monotonic);
        let arrival = self.latest.map_or(stamped, |latest| stamped.max(latest)).min(present.monotonic);
        self.latest = Some(arrival);
        arrival
    }
}

/// What waited longer in the kernel says nothing about the network any more.
const AGE_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_in_order_and_no_clock_that_is_set_moves_them_far() {
        let ms = Duration::from_millis;
        let (start, wall) = (Instant::now() + ms(10_000), SystemTime::UNIX_EPOCH + ms(1_000_000));
        let cases = [
            // (read after, wall clock then, stamped, arrived after), in ms
            ("as stamped", 100, 100, Some(40), 40),
            ("the next of the batch", 100, 100, Some(60), 60),
            ("overtaken on its way through the kernel", 100, 100, Some(50), 60),
            ("without a stamp", 100, 100, None, 100),
            ("stamped before one without", 110, 110, Some(90), 100),
            ("while its batch was read", 120, 120, Some(121), 120),
            ("an hour forward in between", 130, 3_600_130, Some(125), 120),
            ("an hour back in between", 140, 140, Some(3_600_135), 140),
            ("too long ago", 5_000, 5_000, Some(200), 4_000),
        ];
        let mut arrivals = Arrivals::default();
        for (case, read, clock, stamp, expected) in cases {
            let present = Moment { monotonic: start + ms(read), wall: wall + ms(clock) };
            let arrived = arrivals.time(present, stamp.map(|stamp: u64| wall + ms(stamp)));
            assert_eq!(arrived, start + ms(expected), "{case}");
        }
    }
}
