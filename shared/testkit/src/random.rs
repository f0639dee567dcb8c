//! Numbers that follow from a seed.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to just below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.fraction() < probability
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }
}

/// The seed of this run: `PLENARY_SEED` if it is set, otherwise the test's own. Printed, so that a failure says it.
#[allow(clippy::print_stderr, reason = "the seed of a failed test must be seen")]
pub fn seed(of_test: u64) -> u64 {
    let seed = std::env::var("PLENARY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(of_test);
    eprintln!("PLENARY_SEED={seed}");
    seed
}
