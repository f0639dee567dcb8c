//! One subscription: packets of a publisher's layers in, one continuous stream for one subscriber out.
//!
//! The outgoing stream must look as if one encoder had made it: layers change only where a decoder can start, sequence
//! numbers run on, time never goes back, and what was lost on the way in stays a gap, so that the subscriber asks for it.
//!
//! A sequence number is never used for two different contents: sealed with the same key it would be the same nonce. So a
//! late packet goes out only if its number is known to be unused, and a repair repeats the first sending bit for bit.
//!
//! Hot: `forward` and `write` run once per outgoing packet. No lock, log, clock read, allocation or unbounded loop here.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod header;
mod history;
mod layer;
mod segment;

use std::time::{Duration, Instant};

use header::{Elements, Fixed};
pub(crate) use header::{OutgoingHeader, PassedExtension};
use history::{Entry, History, RepairBudget};
pub(crate) use layer::{LayerState, Target, choose_layer, is_alive};
use plenary_model::MediaKind;
use segment::{Place, Segment, Segments, Source};

use crate::{
    ingress::{Content, Ingested, SenderClock, low_word, ticks},
    rtcp::{ReportBlock, SenderInfo},
    rtp::{Codec, Header, LayerId, extend, is_newer_timestamp, timestamp_distance, vp8},
};

/// The state of one subscription to one track.
#[derive(Debug)]
pub(crate) struct Forwarder {
    config: ForwarderConfig,
    target: Target,
    muted: bool,
    segments: Segments,
    /// Whether the newest segment goes on; if not, the next one begins at the next place a decoder can start.
    live: bool,
    /// The number of the packet that comes next if nothing is lost, and one past the last that was sent.
    next: u64,
    sent_end: u64,
    last: Option<LastSent>,
    picture: PictureState,
    history: History,
    budget: RepairBudget,
    next_rtx: u64,
    /// The `mid` goes along until the subscriber is known to have seen it.
    announce_mid: bool,
    packets: u32,
    octets: u32,
    reported: Option<Reported>,
}

#[derive(Debug, Clone)]
pub(crate) struct ForwarderConfig {
    pub(crate) codec: Codec,
    pub(crate) clock_rate: u32,
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    /// Repairs go out as they were first sent when the subscriber has no RTX.
    pub(crate) rtx: Option<RtxConfig>,
    pub(crate) header: OutgoingHeader,
    /// Random; its highest bit is not used, since a receiver cannot tell a wrap among the first packets.
    pub(crate) first_sequence: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RtxConfig {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
}

/// Where and how a packet goes out; to be handed to [`Forwarder::write`] before the next packet is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rewritten {
    pub(crate) extended: u64,
    pub(crate) timestamp: u32,
    shift: vp8::Shift,
    vp8: Option<vp8::Descriptor>,
    content: Content,
    with_mid: bool,
}

/// Why a packet does not go out. Not an error: counted, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Skip {
    Paused,
    OtherLayer,
    AwaitingKeyframe,
    PaddingOnly,
    /// It belongs before the place where its layer was switched to.
    BeforeSwitch,
    /// Its number is too far back to know whether it has been used.
    TooOld,
    AlreadySent,
}

/// What sealing needs to know about a packet that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) ssrc: u32,
    /// The roll-over counter is this without its low 16 bits.
    pub(crate) extended: u64,
    pub(crate) header_bytes: usize,
}

/// A packet the subscriber asked for again, to be looked up in the store of the stream it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repair {
    pub(crate) layer: LayerId,
    /// SSRC of the publisher's stream, and index in its store.
    pub(crate) source_ssrc: u32,
    pub(crate) index: u64,
    extended: u64,
    timestamp_shift: u32,
    shift: vp8::Shift,
    entry: Entry,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NotRepaired {
    /// Nothing of ours, or too long ago.
    Unknown,
    /// Repaired within the last round trip.
    TooSoon,
    OverBudget,
}

#[derive(Debug, Clone, Copy)]
struct LastSent {
    timestamp: u32,
    at: Instant,
}

/// The newest VP8 counters that went out.
#[derive(Debug, Clone, Copy, Default)]
struct PictureState {
    picture_id: Option<u16>,
    base_layer_index: Option<u8>,
    key_index: Option<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Reported {
    middle_bits: u32,
    at: Instant,
}

impl Forwarder {
    pub(crate) fn new(now: Instant, config: ForwarderConfig) -> Self {
        let next = u64::from(config.first_sequence & 0x7fff);
        let history = History::new(now, config.codec.kind());
        Self {
            config,
            target: Target::Off,
            muted: false,
            segments: Segments::default(),
            live: false,
            next,
            sent_end: next,
            last: None,
            picture: PictureState::default(),
            history,
            budget: RepairBudget::new(now),
            next_rtx: next,
            announce_mid: true,
            packets: 0,
            octets: 0,
            reported: None,
        }
    }

    /// The layer to aim at. The one that flows goes on until the new one has a key frame; `Off` stops at once.
    pub(crate) fn set_target(&mut self, target: Target) {
        self.target = target;
        self.live &= target != Target::Off;
    }

    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Muted, nothing goes out; after it, video goes on with the next key frame.
    pub(crate) fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
        self.live &= !muted;
    }

    /// The layer without whose key frame this subscription stands still or stays where it should not.
    pub(crate) fn needs_keyframe(&self) -> Option<LayerId> {
        let Target::Layer(wanted) = self.target else { return None };
        let waits = self.config.codec.kind() == MediaKind::Video && !self.muted && self.current_layer() != Some(wanted);
        waits.then_some(wanted)
    }

    /// The layer that flows.
    pub(crate) fn current_layer(&self) -> Option<LayerId> {
        self.segments.newest().filter(|_| self.live).map(|segment| segment.layer)
    }

    /// The subscriber has acknowledged something of this stream, so it knows which section the SSRC belongs to.
    pub(crate) fn acknowledged(&mut self) {
        self.announce_mid = false;
    }

    /// Decides about one packet that `layer`'s stream took in. `clock` is that stream's last sender report.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        layer: LayerId,
        clock: Option<SenderClock>,
        header: &Header,
        ingested: &Ingested,
    ) -> Result<Rewritten, Skip> {
        let Target::Layer(wanted) = self.target else { return Err(Skip::Paused) };
        if self.muted {
            return Err(Skip::Paused);
        }
        let index = ingested.index;
        if self.live
            && let Some(segment) = self.segments.newest_mut()
            && segment.is_from(layer, header.ssrc)
        {
            match segment.place(index, ingested.content) {
                Place::Next(extended) => {
                    segment.clock = clock.or(segment.clock);
                    return Ok(self.emit(now, extended, header, ingested));
                }
                Place::Removed(number) => {
                    self.next = number;
                    return Err(Skip::PaddingOnly);
                }
                Place::Late(place) => return self.emit_late(now, place, header, ingested),
                Place::BeforeStart => return Err(Skip::BeforeSwitch),
                Place::Unknown => return Err(Skip::TooOld),
                // The publisher's numbers jumped: go on as after a pause.
                Place::TooFar => self.live = false,
            }
        }
        if let Some(late) = self.segments.late(layer, header.ssrc, index) {
            return self.emit_late(now, late?, header, ingested);
        }
        if layer != wanted {
            return Err(Skip::OtherLayer);
        }
        // The stream behind the current layer was replaced by another.
        self.live &= self.segments.newest().is_some_and(|segment| segment.layer != layer);
        if ingested.content == Content::PaddingOnly {
            return Err(Skip::PaddingOnly);
        }
        if !ingested.frame.keyframe {
            return Err(Skip::AwaitingKeyframe);
        }
        self.begin_segment(now, layer, clock, header, ingested);
        Ok(self.emit(now, self.next, header, ingested))
    }

    /// Appends the outgoing packet for what [`forward`](Self::forward) has just decided. `stamp` is asked for the
    /// transport-wide sequence number of a packet of so many bytes, if that extension was negotiated.
    pub(crate) fn write(
        &mut self,
        rewritten: &Rewritten,
        header: &Header,
        packet: &[u8],
        stamp: impl FnOnce(usize) -> Option<u16>,
        out: &mut Vec<u8>,
    ) -> Written {
        let payload = match rewritten.content {
            Content::Media => header.payload_of(packet),
            Content::PaddingOnly => &[],
        };
        let mut elements = Elements::new(&self.config.header, rewritten.with_mid, header, packet);
        let transport_sequence =
            if elements.wants_stamp() { stamp(elements.packet_bytes(payload.len())) } else { None };
        elements.transport_sequence = transport_sequence;
        self.history.stamped(rewritten.extended, transport_sequence);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload.len()).unwrap_or_default());

        let fixed = Fixed {
            marker: header.marker,
            payload_type: self.config.payload_type,
            sequence: low_bytes(rewritten.extended),
            timestamp: rewritten.timestamp,
            ssrc: self.config.ssrc,
        };
        let header_bytes = elements.write(&fixed, out);
        append_payload(out, payload, rewritten.vp8, rewritten.shift);
        Written { ssrc: self.config.ssrc, extended: rewritten.extended, header_bytes }
    }

    /// The subscriber misses a packet. Says where to find it, unless it was repaired just now or the budget is spent.
    pub(crate) fn repair(&mut self, now: Instant, rtt: Duration, sequence: u16) -> Result<Repair, NotRepaired> {
        let newest = self.next.checked_sub(1).ok_or(NotRepaired::Unknown)?;
        let extended = extend(newest, sequence);
        let entry = match self.history.get(extended) {
            Some(entry) => entry,
            // Passed over while the first packet of its key frame was missing; the store may have it.
            None if self.history.covers(extended, self.sent_end) => {
                let serial = self.segments.newest_serial();
                let segment = self.segments.get(serial, extended).ok_or(NotRepaired::Unknown)?;
                let index = segment.index_of(extended).ok_or(NotRepaired::Unknown)?;
                Entry::new(extended, index, serial, self.announce_mid)
            }
            None => return Err(NotRepaired::Unknown),
        };
        let segment = self.segments.get(entry.segment(), extended).ok_or(NotRepaired::Unknown)?;
        if self.history.is_held(now, rtt, &entry) {
            return Err(NotRepaired::TooSoon);
        }
        if !self.budget.has_some(now) {
            return Err(NotRepaired::OverBudget);
        }
        Ok(Repair {
            layer: segment.layer,
            source_ssrc: segment.ssrc,
            index: segment.full_index(entry.source()),
            extended,
            timestamp_shift: segment.timestamp_shift,
            shift: segment.shift,
            entry,
        })
    }

    /// Appends the packet again: over RTX with a new number and the old one in its payload (RFC 4588 4), otherwise as
    /// it was first sent. `packet` is what the store holds for the repair; `None` if that is not RTP.
    pub(crate) fn write_repair(
        &mut self,
        now: Instant,
        repair: &Repair,
        packet: &[u8],
        stamp: impl FnOnce(usize) -> Option<u16>,
        out: &mut Vec<u8>,
    ) -> Option<Written> {
        let header = Header::parse(packet).ok()?;
        let payload = header.payload_of(packet);
        let vp8 = self.config.codec.inspect(payload).vp8;
        let mut elements = Elements::new(&self.config.header, repair.entry.with_mid(), &header, packet);
        let mut fixed = Fixed {
            marker: header.marker,
            payload_type: self.config.payload_type,
            sequence: low_bytes(repair.extended),
            timestamp: header.timestamp.wrapping_add(repair.timestamp_shift),
            ssrc: self.config.ssrc,
        };
        let start = out.len();
        let mut extended = repair.extended;
        let header_bytes = match self.config.rtx {
            Some(rtx) => {
                extended = self.next_rtx;
                self.next_rtx = self.next_rtx.saturating_add(1);
                fixed.payload_type = rtx.payload_type;
                fixed.ssrc = rtx.ssrc;
                fixed.sequence = low_bytes(extended);
                if elements.wants_stamp() {
                    elements.transport_sequence = stamp(elements.packet_bytes(payload.len().saturating_add(2)));
                }
                let header_bytes = elements.write(&fixed, out);
                out.extend_from_slice(&low_bytes(repair.extended));
                header_bytes
            }
            None => {
                elements.transport_sequence = repair.entry.transport_sequence();
                elements.write(&fixed, out)
            }
        };
        append_payload(out, payload, vp8, repair.shift);
        self.history.repaired(now, repair.extended, repair.entry);
        self.budget.spend(out.len().saturating_sub(start));
        Some(Written { ssrc: fixed.ssrc, extended, header_bytes })
    }

    /// What a sender report says now, on the publisher's clock, so that its audio and video stay together. `None` until
    /// the publisher has reported itself, and while nothing flows.
    pub(crate) fn sender_report(&mut self, now: Instant) -> Option<SenderInfo> {
        let segment = self.segments.newest().filter(|_| self.live)?;
        let clock = segment.clock?;
        let elapsed = now.saturating_duration_since(clock.received);
        let ntp = clock.ntp.wrapping_add(ntp_span(elapsed));
        let rtp = clock.rtp.wrapping_add(ticks(elapsed, self.config.clock_rate)).wrapping_add(segment.timestamp_shift);
        let now_reported = SenderClock { ntp, rtp, received: now };
        self.reported = Some(Reported { middle_bits: now_reported.middle_bits(), at: now });
        Some(SenderInfo { ntp, rtp, packets: self.packets, octets: self.octets })
    }

    /// The round trip a receiver report implies (RFC 3550 6.4.1), if it answers our newest sender report.
    pub(crate) fn round_trip(&self, now: Instant, block: &ReportBlock) -> Option<Duration> {
        let reported = self.reported.filter(|reported| reported.middle_bits == block.last_report)?;
        let held = Duration::from_micros(u64::from(block.delay_since).saturating_mul(1_000_000) >> 16);
        now.saturating_duration_since(reported.at).checked_sub(held)
    }

    fn begin_segment(
        &mut self,
        now: Instant,
        layer: LayerId,
        clock: Option<SenderClock>,
        header: &Header,
        ingested: &Ingested,
    ) {
        let timestamp = match (self.segments.newest(), self.last) {
            (Some(previous), Some(last)) => {
                continued_timestamp(previous, &last, now, clock, header, self.config.clock_rate)
            }
            _ => header.timestamp,
        };
        // Numbers that were only held free for packets still to come are used after all.
        self.next = self.sent_end;
        self.segments.push(Segment::new(
            Source { layer, ssrc: header.ssrc, clock },
            (ingested.index, self.next),
            timestamp.wrapping_sub(header.timestamp),
            self.picture.shift_to(ingested.frame.vp8),
        ));
        self.live = true;
    }

    /// A packet newer than all before it in the newest segment.
    fn emit(&mut self, now: Instant, extended: u64, header: &Header, ingested: &Ingested) -> Rewritten {
        self.next = extended.saturating_add(1);
        let rewritten = self.rewrite(extended, self.segments.newest_serial(), header, ingested);
        self.note_newest(now, &rewritten);
        rewritten
    }

    /// A packet whose number was left free for it.
    fn emit_late(
        &mut self,
        now: Instant,
        (extended, serial): (u64, u8),
        header: &Header,
        ingested: &Ingested,
    ) -> Result<Rewritten, Skip> {
        if !self.history.covers(extended, self.next) {
            return Err(Skip::TooOld);
        }
        // What follows the last packet before a switch has lost its number to the next segment.
        if serial != self.segments.newest_serial()
            && self.segments.newest().is_none_or(|newest| extended >= newest.first_extended)
        {
            return Err(Skip::BeforeSwitch);
        }
        if self.history.get(extended).is_some() {
            return Err(Skip::AlreadySent);
        }
        let rewritten = self.rewrite(extended, serial, header, ingested);
        // Behind padding even a late packet can be the newest picture.
        self.note_newest(now, &rewritten);
        Ok(rewritten)
    }

    fn note_newest(&mut self, now: Instant, rewritten: &Rewritten) {
        let since_last = self.last.map_or(1, |last| timestamp_distance(last.timestamp, rewritten.timestamp));
        if since_last > 0 {
            self.last = Some(LastSent { timestamp: rewritten.timestamp, at: now });
        }
        // Of one picture every packet says the same, and padding nothing.
        if since_last >= 0 {
            self.picture.note(rewritten.vp8, rewritten.shift);
        }
    }

    fn rewrite(&mut self, extended: u64, serial: u8, header: &Header, ingested: &Ingested) -> Rewritten {
        self.sent_end = self.sent_end.max(extended.saturating_add(1));
        let (timestamp_shift, shift) = match self.segments.get(serial, extended) {
            Some(segment) => (segment.timestamp_shift, segment.shift),
            None => (0, vp8::Shift::default()),
        };
        self.history.record(extended, Entry::new(extended, ingested.index, serial, self.announce_mid));
        Rewritten {
            extended,
            timestamp: header.timestamp.wrapping_add(timestamp_shift),
            shift,
            vp8: ingested.frame.vp8,
            content: ingested.content,
            with_mid: self.announce_mid,
        }
    }
}

impl PictureState {
    /// What makes the first picture of a segment follow the last one that was sent.
    fn shift_to(&self, first: Option<vp8::Descriptor>) -> vp8::Shift {
        let Some(first) = first else { return vp8::Shift::default() };
        let after = |last: u8, value: u8| last.wrapping_add(1).wrapping_sub(value);
        vp8::Shift {
            picture_id: self
                .picture_id
                .zip(first.picture_id)
                .map_or(0, |(last, id)| last.wrapping_add(1).wrapping_sub(id.value)),
            base_layer_index: self
                .base_layer_index
                .zip(first.base_layer_index)
                .map_or(0, |(last, field)| after(last, field.value)),
            key_index: self.key_index.zip(first.key_index()).map_or(0, |(last, value)| after(last, value)),
        }
    }

    fn note(&mut self, sent: Option<vp8::Descriptor>, shift: vp8::Shift) {
        let Some(sent) = sent else { return };
        self.picture_id = sent.picture_id.map(|id| id.shifted(shift.picture_id)).or(self.picture_id);
        self.base_layer_index = sent
            .base_layer_index
            .map(|field| field.value.wrapping_add(shift.base_layer_index))
            .or(self.base_layer_index);
        self.key_index = sent.key_index().map(|value| value.wrapping_add(shift.key_index)).or(self.key_index);
    }
}

/// The outgoing timestamp of the packet that begins a segment.
///
/// The sender reports of both streams tell exactly how they relate, and a stream relates to itself. Otherwise, or if that
/// is far from what the time between the two packets suggests (a publisher may report nonsense), that time decides.
fn continued_timestamp(
    previous: &Segment,
    last: &LastSent,
    now: Instant,
    clock: Option<SenderClock>,
    header: &Header,
    clock_rate: u32,
) -> u32 {
    let earliest = last.timestamp.wrapping_add(1);
    let expected = last.timestamp.wrapping_add(ticks(now.saturating_duration_since(last.at), clock_rate).max(1));
    let aligned = if previous.ssrc == header.ssrc {
        Some(header.timestamp.wrapping_add(previous.timestamp_shift))
    } else {
        previous.clock.zip(clock).map(|(old, new)| {
            let apart = i128::from(new.ntp.wrapping_sub(old.ntp).cast_signed());
            let apart = apart.saturating_mul(i128::from(clock_rate)) >> 32;
            let since_report = header.timestamp.wrapping_sub(new.rtp);
            old.rtp
                .wrapping_add(low_word(u64::try_from(apart & 0xffff_ffff).unwrap_or_default()))
                .wrapping_add(since_report)
                .wrapping_add(previous.timestamp_shift)
        })
    };
    let plausible = |timestamp: &u32| timestamp_distance(expected, *timestamp).unsigned_abs() <= clock_rate;
    let timestamp = aligned.filter(plausible).unwrap_or(expected);
    if is_newer_timestamp(timestamp, last.timestamp) { timestamp } else { earliest }
}

fn append_payload(out: &mut Vec<u8>, payload: &[u8], vp8: Option<vp8::Descriptor>, shift: vp8::Shift) {
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(descriptor), Some(copy)) = (vp8, out.get_mut(start..)) {
        descriptor.rewrite(copy, shift);
    }
}

/// 32.32 fixed point seconds.
fn ntp_span(elapsed: Duration) -> u64 {
    let fraction = (u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000;
    elapsed.as_secs().wrapping_shl(32) | fraction
}

fn low_bytes(extended: u64) -> [u8; 2] {
    let [.., high, low] = extended.to_be_bytes();
    [high, low]
}

#[cfg(test)]
mod tests;
