//! Bad networks between the router and one subscriber, in virtual time and by seed: each scenario prints what the
//! subscriber got and asserts the figures of `measure::Bar`.

mod measure;
mod scenarios;

use std::time::Duration;

use plenary_testkit::Conditions;

const SECOND: Duration = Duration::from_secs(1);

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A link of this rate with 25 ms each way.
fn link(kilobits_per_second: u64) -> Conditions {
    Conditions { bits_per_second: Some(kilobits_per_second * 1_000), delay: ms(25), ..Conditions::default() }
}
