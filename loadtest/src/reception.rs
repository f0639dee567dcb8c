//! What one subscriber receives: counted by header, opened by sample, reported back.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use plenary_testkit::light::{Context, transport_sequence};

use crate::rtcp::{Heard, ReportBlock, read, receiver_report, transport_feedback};

/// What all subscribers together received since the start of the window.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub packets: u64,
    pub bytes: u64,
    /// Retransmissions and padding on repair streams.
    pub repairs: u64,
    /// Kernel messages by how many datagrams of media they held; the last place is that many and more.
    pub runs: [u64; RUNS],
    /// Of a sample, from the sender's hand to the receiver's socket.
    pub delays_us: Vec<u32>,
    sampled: u32,
}

pub const RUNS: usize = 17;

#[derive(Default)]
pub struct Reception {
    streams: HashMap<u32, Stream>,
    announced: HashSet<u32>,
    repairs: HashSet<u32>,
    arrivals: Vec<(u16, i64)>,
    feedback_base: Option<u16>,
    feedback_number: u8,
    bytes_since_feedback: usize,
    last_feedback: Option<Instant>,
    last_report: Option<Instant>,
}

#[derive(Debug)]
struct Stream {
    first: u64,
    highest: u64,
    received: u64,
    sender_report: Option<(u32, Instant)>,
    reported: (u64, u64),
}

impl Reception {
    /// The streams that an offer announces.
    pub fn announce(&mut self, offer: &str) {
        let ssrc = |text: &str| text.split(' ').next()?.parse::<u32>().ok();
        self.repairs = offer
            .lines()
            .filter_map(|line| line.strip_prefix("a=ssrc-group:FID ")?.split(' ').nth(1))
            .filter_map(ssrc)
            .collect();
        let all = offer.lines().filter_map(|line| line.strip_prefix("a=ssrc:")).filter_map(ssrc);
        self.announced = all.filter(|ssrc| !self.repairs.contains(ssrc)).collect();
    }

    /// Media streams announced, and those that something came on.
    pub fn streams(&self) -> (usize, usize) {
        (self.announced.len(), self.streams.len())
    }

    /// Packets that never came, by their sequence numbers.
    pub fn lost(&self) -> u64 {
        self.streams.values().map(|stream| stream.expected().saturating_sub(stream.received)).sum()
    }

    /// A message of RTP packets of equal size.
    pub fn receive<'a>(
        &mut self,
        packets: impl Iterator<Item = &'a [u8]>,
        at_ns: i64,
        keys: &mut Context,
        totals: &mut Totals,
        arrived: &mut dyn FnMut(u32, i64),
    ) -> Result<()> {
        let mut run = 0;
        for packet in packets {
            let (Some(sequence), Some(ssrc)) = (number(packet, 2, 2), number(packet, 8, 4)) else { continue };
            run += 1;
            self.bytes_since_feedback += packet.len();
            if let Some(number) = transport_sequence(packet) {
                self.arrivals.push((number, at_ns / 1_000));
            }
            if self.repairs.contains(&ssrc) {
                totals.repairs += 1;
                continue;
            }
            arrived(ssrc, at_ns);
            totals.packets += 1;
            totals.bytes += packet.len() as u64;
            self.streams.entry(ssrc).or_insert_with(|| Stream::new(sequence)).count(sequence);
            totals.sampled += 1;
            if totals.sampled.is_multiple_of(SAMPLE_EVERY) {
                let opened = keys.decrypt_rtp(packet).context("a packet of the server is not authentic")?;
                let stamp = opened.last_chunk().map_or(0, |stamp| i64::from_be_bytes(*stamp));
                totals.delays_us.push(u32::try_from((at_ns - stamp) / 1_000).unwrap_or(0));
            }
        }
        if run > 0 {
            totals.runs[run.min(RUNS) - 1] += 1;
        }
        Ok(())
    }

    pub fn hear(&mut self, now: Instant, packet: &[u8]) {
        read(packet, |heard| {
            if let Heard::SenderReport { ssrc, ntp } = heard
                && let Some(stream) = self.streams.get_mut(&ssrc)
            {
                stream.sender_report = Some((ntp, now));
            }
        });
    }

    /// What is due to be told, not sealed yet.
    pub fn reports(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let since = |last: Option<Instant>| now - last.unwrap_or(now);
        if since(self.last_feedback) >= feedback_interval(self.bits_per_second(now)) {
            out.extend(self.feedback());
            self.last_feedback = Some(now);
        }
        if since(self.last_report) >= REPORT_INTERVAL {
            let blocks: Vec<_> = self.streams.iter_mut().map(|(ssrc, stream)| stream.report(*ssrc, now)).collect();
            out.extend(blocks.chunks(31).map(receiver_report));
            self.last_report = Some(now);
        }
        self.last_feedback.get_or_insert(now);
        self.last_report.get_or_insert(now);
        out
    }

    fn bits_per_second(&self, now: Instant) -> f64 {
        let since = self.last_feedback.map_or(Duration::ZERO, |last| now - last);
        self.bytes_since_feedback as f64 * 8.0 / since.as_secs_f64().max(0.001)
    }

    fn feedback(&mut self) -> Option<Vec<u8>> {
        let (first, _) = *self.arrivals.first()?;
        let base = *self.feedback_base.get_or_insert(first);
        self.arrivals.retain(|(number, _)| number.wrapping_sub(base) < FEEDBACK_SPAN);
        self.arrivals.sort_by_key(|(number, _)| number.wrapping_sub(base));
        self.arrivals.dedup_by_key(|(number, _)| *number);
        let (last, _) = *self.arrivals.last()?;
        let feedback = transport_feedback(base, &self.arrivals, self.feedback_number);
        self.feedback_base = Some(last.wrapping_add(1));
        self.feedback_number = self.feedback_number.wrapping_add(1);
        self.arrivals.clear();
        self.bytes_since_feedback = 0;
        Some(feedback)
    }
}

impl Stream {
    fn new(sequence: u32) -> Self {
        let first = 1 << 16 | u64::from(sequence);
        Self { first, highest: first, received: 0, sender_report: None, reported: (0, 0) }
    }

    fn count(&mut self, sequence: u32) {
        self.received += 1;
        let ahead = (sequence as u16).wrapping_sub(self.highest as u16);
        if ahead < 1 << 15 {
            self.highest += u64::from(ahead);
        }
    }

    fn expected(&self) -> u64 {
        self.highest - self.first + 1
    }

    fn report(&mut self, ssrc: u32, now: Instant) -> ReportBlock {
        let (expected, received) = (self.expected(), self.received);
        let (due, came) = (expected - self.reported.0, received - self.reported.1);
        self.reported = (expected, received);
        let fraction = (due.saturating_sub(came) * 256).checked_div(due).unwrap_or(0);
        let (last_report, since) = self.sender_report.map_or((0, 0.0), |(ntp, at)| (ntp, (now - at).as_secs_f64()));
        ReportBlock {
            ssrc,
            fraction_lost: fraction.min(255) as u8,
            lost: expected.saturating_sub(received) as u32,
            highest: self.highest as u32,
            last_report,
            since_last_report: (since * 65_536.0) as u32,
        }
    }
}

/// How often transport-wide feedback is sent. As libwebrtc: 5 % of what is received, within limits.
pub fn feedback_interval(bits_per_second: f64) -> Duration {
    let interval = Duration::from_micros(FEEDBACK_BITS * 20 * 1_000_000).div_f64(bits_per_second.max(1.0));
    interval.clamp(FEEDBACK_MIN, FEEDBACK_MAX)
}

fn number(packet: &[u8], at: usize, bytes: usize) -> Option<u32> {
    packet.get(at..at + bytes).map(|bytes| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// Coprime to the packets of a frame and to how many people a room has, so that every place in a run gets its turn.
const SAMPLE_EVERY: u32 = 7;
const FEEDBACK_BITS: u64 = 68 * 8;
const FEEDBACK_MIN: Duration = Duration::from_millis(50);
const FEEDBACK_MAX: Duration = Duration::from_millis(250);
/// What one feedback may cover.
const FEEDBACK_SPAN: u16 = 8_191;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
