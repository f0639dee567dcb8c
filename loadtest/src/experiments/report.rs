//! What an experiment found, against what it should have.

use std::{fmt::Write, time::Duration};

use super::people::Silences;

/// One line of the table.
#[derive(Debug)]
pub struct Check {
    pub what: String,
    pub found: String,
    pub limit: String,
    pub holds: bool,
    /// Times depend on the machine; everything else has to hold anywhere.
    pub is_time: bool,
}

#[derive(Debug, Default)]
pub struct Findings(pub Vec<Check>);

/// One experiment with what it found, or why it found nothing.
#[derive(Debug)]
pub struct Outcome {
    pub id: &'static str,
    pub fault: &'static str,
    pub findings: Result<Findings, Missing>,
    /// Load averages before and after, and the longest that our own thread was away.
    pub conditions: String,
}

#[derive(Debug)]
pub enum Missing {
    /// This machine cannot.
    Skipped(String),
    Failed(String),
}

impl Findings {
    /// Something that has to hold, and what was seen of it.
    pub fn must(&mut self, what: impl Into<String>, holds: bool, found: impl ToString) {
        let (what, found, limit) = (what.into(), found.to_string(), String::new());
        self.0.push(Check { what, found, limit, holds, is_time: false });
    }

    /// A count that must not be exceeded.
    pub fn at_most(&mut self, what: impl Into<String>, found: usize, limit: usize) {
        let (what, holds) = (what.into(), found <= limit);
        self.0.push(Check { what, found: found.to_string(), limit: format!("≤ {limit}"), holds, is_time: false });
    }

    /// A time; `None` is never.
    pub fn within(&mut self, what: impl Into<String>, found: Option<Duration>, limit: Duration) {
        let shown = found.map_or("never".to_owned(), seconds);
        let holds = found.is_some_and(|found| found <= limit);
        self.time(what, shown, format!("≤ {}", seconds(limit)), holds);
    }

    /// How long after a fault each of some people was back: all have to be, and the times have limits, in seconds.
    pub fn back(&mut self, what: &str, back: &[Option<Duration>], p95_limit_s: f64, max_limit_s: f64) {
        let count = back.iter().flatten().count();
        self.must(what, count == back.len(), format!("{count} of {}", back.len()));
        self.back_after(&format!("{what}: after"), back, p95_limit_s, max_limit_s);
    }

    /// The times alone; who never was back was late.
    pub fn back_after(&mut self, what: &str, back: &[Option<Duration>], p95_limit_s: f64, max_limit_s: f64) {
        let mut times: Vec<_> = back.iter().map(|back| back.map_or(f64::INFINITY, |back| back.as_secs_f64())).collect();
        times.sort_unstable_by(f64::total_cmp);
        let (p95, max) = (percentile(&times, 0.95), percentile(&times, 1.0));
        let limit = format!("p95 ≤ {p95_limit_s:.1}, max ≤ {max_limit_s:.1} s");
        self.time(what, spread(&times), limit, p95 <= p95_limit_s && max <= max_limit_s);
    }

    /// Seconds that no machine excuses.
    pub fn bounded(&mut self, what: impl Into<String>, seconds: &mut [f64], limit_s: f64) {
        seconds.sort_unstable_by(f64::total_cmp);
        let (what, found, limit) = (what.into(), spread(seconds), format!("≤ {limit_s:.1} s"));
        let holds = percentile(seconds, 1.0) <= limit_s;
        self.0.push(Check { what, found, limit, holds, is_time: false });
    }

    /// Milliseconds with limits for the 95th percentile and for the largest.
    pub fn silences(&mut self, what: &str, sorted_ms: &[f64], p95_limit_ms: f64, max_limit_ms: f64) {
        let (p50, p95) = (percentile(sorted_ms, 0.5), percentile(sorted_ms, 0.95));
        let max = percentile(sorted_ms, 1.0);
        let found = format!("p50 {p50:.0}, p95 {p95:.0}, max {max:.0} ms");
        let limit = format!("p95 ≤ {p95_limit_ms:.0}, max ≤ {max_limit_ms:.0} ms");
        self.time(what, found, limit, p95 <= p95_limit_ms && max <= max_limit_ms);
    }

    /// Milliseconds that may have a limit, and how to show them.
    pub fn milliseconds(&mut self, what: impl Into<String>, shown: String, found_ms: f64, limit_ms: Option<f64>) {
        let limit = limit_ms.map_or(String::new(), |limit| format!("≤ {limit:.0} ms"));
        self.time(what, shown, limit, limit_ms.is_none_or(|limit| found_ms <= limit));
    }

    /// Milliseconds of which the largest counts, with the 95th percentile beside it.
    pub fn silence(&mut self, what: impl Into<String>, silences: &Silences, limit_ms: f64) {
        let Silences { sorted_ms, own_ms } = silences;
        let longest = sorted_ms.last().copied().unwrap_or(f64::NAN);
        let shown = format!("{longest:.0} ms (p95 {:.0}, our own {own_ms:.0})", percentile(sorted_ms, 0.95));
        self.time(what, shown, format!("≤ {limit_ms:.0} ms"), longest <= limit_ms);
    }

    fn time(&mut self, what: impl Into<String>, found: String, limit: String, holds: bool) {
        self.0.push(Check { what: what.into(), found, limit, holds, is_time: true });
    }
}

impl Outcome {
    /// Whether everything holds that has to hold anywhere.
    pub fn is_correct(&self) -> bool {
        match &self.findings {
            Ok(findings) => findings.0.iter().all(|check| check.holds || check.is_time),
            Err(missing) => matches!(missing, Missing::Skipped(_)),
        }
    }

    /// Why there are no findings, whole.
    pub fn failure(&self) -> Option<&str> {
        match &self.findings {
            Err(Missing::Failed(why)) => Some(why),
            _ => None,
        }
    }

    /// Rows of the table.
    pub fn rows(&self) -> String {
        let mut out = String::new();
        let mut row = |what: &str, found: &str, limit: &str, verdict: &str| {
            let id = self.id;
            writeln!(out, "| {id} | {what} | {found} | {limit} | {verdict} |").expect("text can be written");
        };
        match &self.findings {
            Ok(findings) => {
                for check in &findings.0 {
                    let verdict = match (check.holds, check.is_time) {
                        (true, _) => "holds",
                        (false, true) => "**missed**",
                        (false, false) => "**WRONG**",
                    };
                    let found = if check.found.is_empty() && check.holds { "yes" } else { &check.found };
                    row(&check.what, found, &check.limit, verdict);
                }
            }
            Err(Missing::Skipped(why)) => row(self.fault, why, "", "skipped"),
            Err(Missing::Failed(why)) => row(self.fault, why.lines().next().unwrap_or_default(), "", "**FAILED**"),
        }
        out
    }
}

pub const HEAD: &str = "| | What | Found | Limit | |\n|---|---|---|---|---|\n";

pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).ceil() as usize).copied().unwrap_or(f64::NAN)
}

/// Of seconds.
fn spread(sorted: &[f64]) -> String {
    let [p50, p95, max] = [0.5, 0.95, 1.0].map(|share| percentile(sorted, share));
    format!("p50 {p50:.2}, p95 {p95:.2}, max {max:.2} s")
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(findings: Result<Findings, Missing>) -> Outcome {
        Outcome { id: "E0", fault: "none", findings, conditions: String::new() }
    }

    #[test]
    fn a_missed_time_is_shown_and_a_wrong_outcome_counts() {
        let mut findings = Findings::default();
        findings.within("back", None, Duration::from_secs(1));
        findings.silence("silence", &Silences { sorted_ms: vec![20.0, 700.0], own_ms: 1.0 }, 100.0);
        let slow = outcome(Ok(findings));
        assert!(slow.is_correct());
        assert!(slow.rows().contains("| E0 | back | never | ≤ 1.00 s | **missed** |"), "{}", slow.rows());
        let mut findings = Findings::default();
        findings.at_most("people let in", 51, 50);
        assert!(!outcome(Ok(findings)).is_correct());
        let mut findings = Findings::default();
        findings.bounded("lost", &mut [2.1, 0.4], 2.0);
        let lost = outcome(Ok(findings));
        assert!(!lost.is_correct() && lost.rows().contains("max 2.10 s | ≤ 2.0 s | **WRONG**"), "{}", lost.rows());
        assert!(!outcome(Err(Missing::Failed("no Redis".into()))).is_correct());
        assert!(outcome(Err(Missing::Skipped("no namespaces".into()))).is_correct());
    }

    #[test]
    fn the_95th_of_a_hundred_leaves_five_above() {
        let sorted: Vec<f64> = (1..=101).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.95), 96.0);
        assert_eq!(percentile(&sorted, 1.0), 101.0);
        assert_eq!(percentile(&[7.0], 0.95), 7.0);
    }
}
