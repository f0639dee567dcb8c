//! How fast packets arrive, by the receiver's clock: feedback comes in lumps and late.

#[derive(Debug, Default)]
pub(super) struct ArrivalRate {
    /// Number of the newest bucket, counted from the receiver's zero.
    newest: i64,
    buckets: [Bucket; BUCKETS],
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Of the first arrival in it.
    first_us: Option<i64>,
    bytes: u32,
}

impl ArrivalRate {
    pub(super) fn add(&mut self, at_us: i64, bytes: usize) {
        let number = at_us.div_euclid(BUCKET_US);
        let passed = number.saturating_sub(self.newest);
        if passed.unsigned_abs() > CLOCK_JUMP {
            *self = Self { newest: number, ..Self::default() };
        } else if passed > 0 {
            for stale in (0..passed).take(BUCKETS) {
                if let Some(bucket) = self.buckets.get_mut(place(number.saturating_sub(stale))) {
                    *bucket = Bucket::default();
                }
            }
            self.newest = number;
        } else if passed.unsigned_abs() >= BUCKETS as u64 {
            return;
        }
        if let Some(bucket) = self.buckets.get_mut(place(number)) {
            bucket.first_us = Some(bucket.first_us.map_or(at_us, |first| first.min(at_us)));
            bucket.bytes = bucket.bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    /// Over the last 400 ms that are told of.
    pub(super) fn bits_per_second(&self) -> f64 {
        self.over(BUCKETS as i64)
    }

    /// Over the last 200 ms, or twice that where so little arrives that each packet would count for much.
    pub(super) fn recent_bits_per_second(&self) -> f64 {
        let recent = self.over(RECENT_BUCKETS);
        if recent < SPARSE_BPS { self.bits_per_second() } else { recent }
    }

    /// From the first arrival to that of the newest bucket, whose bytes do not count: a whole number of buckets would be
    /// off by a packet.
    fn over(&self, buckets: i64) -> f64 {
        let bucket = |back: i64| self.buckets.get(place(self.newest.saturating_sub(back))).copied().unwrap_or_default();
        let Some(end_us) = bucket(0).first_us else { return 0.0 };
        let (mut begin_us, mut bytes) = (end_us, 0u32);
        for back in 1..buckets {
            let Bucket { first_us, bytes: more } = bucket(back);
            begin_us = first_us.unwrap_or(begin_us);
            bytes = bytes.saturating_add(more);
        }
        let span = u32::try_from(end_us.saturating_sub(begin_us)).ok().filter(|span| *span > 0);
        span.map_or(0.0, |span| f64::from(bytes) * 8_000_000.0 / f64::from(span))
    }
}

fn place(number: i64) -> usize {
    usize::try_from(number.rem_euclid(BUCKETS as i64)).unwrap_or_default()
}

const BUCKETS: usize = 17;
const RECENT_BUCKETS: i64 = 8;
const SPARSE_BPS: f64 = 250_000.0;
const BUCKET_US: i64 = 25_000;
/// In buckets: the receiver's clock was set.
const CLOCK_JUMP: u64 = 400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_follows_a_step_within_its_window() {
        let mut rate = ArrivalRate::default();
        for ms in (0..2_000).step_by(10) {
            rate.add(ms * 1_000, if ms < 1_000 { 2_500 } else { 250 });
            match ms {
                300..1_000 => assert!((1_900_000.0..2_100_000.0).contains(&rate.bits_per_second()), "{ms}"),
                1_430.. => assert!((190_000.0..210_000.0).contains(&rate.bits_per_second()), "{ms}"),
                _ => {}
            }
        }
    }

    #[test]
    fn gaps_late_arrivals_and_clock_jumps_are_taken() {
        let mut rate = ArrivalRate::default();
        rate.add(0, 1_000);
        assert_eq!(rate.bits_per_second(), 0.0, "one arrival says nothing");
        rate.add(200_000, 1_000);
        rate.add(100_000, 1_000);
        rate.add(300_000, 0);
        assert_eq!(rate.bits_per_second(), 80_000.0);
        rate.add(3_600_000_000, 1_000);
        rate.add(3_600_025_000, 0);
        assert_eq!(rate.bits_per_second(), 320_000.0);
        rate.add(i64::MIN, 1);
        rate.add(i64::MAX, 1);
    }
}
