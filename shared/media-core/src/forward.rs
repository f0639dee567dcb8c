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

mod bits;
mod header;
mod history;
mod layer;
mod rewrite;
mod segment;
mod selection;

use std::time::{Duration, Instant};

use header::{Elements, Fixed};
pub(crate) use header::{OutgoingHeader, PassedExtension};
use history::{AsSent, Entry, History, RepairBudget};
pub(crate) use layer::{LayerState, Layering, Target, choose_layer, demanded_layer, is_alive};
use plenary_model::MediaKind;
pub(crate) use rewrite::Red;
use rewrite::{Counters, Payload, continued_timestamp, low_bytes, ntp_span};
use segment::{Offsets, Place, Segment, Segments, Source};
use selection::{Choice, Selection};

use crate::{
    DropReason,
    ingress::{Content, Ingested, SenderClock, ticks},
    rtcp::{ReportBlock, SenderInfo},
    rtp::{
        Codec, Header, LayerId, StreamId,
        dependency::{self, Structure},
        extend,
        layers::Frame,
        picture::{Descriptor, Shift},
        timestamp_distance,
    },
};

/// The state of one subscription to one track.
#[derive(Debug)]
pub(crate) struct Forwarder {
    config: ForwarderConfig,
    target: Target,
    /// Of the stream that flows.
    selection: Selection,
    muted: bool,
    segments: Segments,
    /// Whether the newest segment goes on; if not, the next one begins at the next place a decoder can start.
    live: bool,
    /// The number of the packet that comes next if nothing is lost, and one past the last that was sent.
    next: u64,
    sent_end: u64,
    last: Option<LastSent>,
    counters: Counters,
    history: History,
    budget: RepairBudget,
    next_rtx: u64,
    /// Numbers that are not repaired any more.
    abandoned_before: u64,
    /// The newest packet ended a picture, so padding may follow it.
    frame_ended: bool,
    /// The `mid` goes along until the subscriber is known to have seen it.
    announce_mid: bool,
    packets: u32,
    octets: u32,
    reported: Option<Reported>,
}

#[derive(Debug, Clone)]
pub(crate) struct ForwarderConfig {
    pub(crate) codec: Codec,
    pub(crate) layering: Layering,
    pub(crate) clock_rate: u32,
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    /// How the publisher's redundant audio is passed on.
    pub(crate) red: Option<Red>,
    /// Repairs go out as they were first sent when the subscriber has no RTX.
    pub(crate) rtx: Option<RtxConfig>,
    pub(crate) header: OutgoingHeader,
    /// The publisher appends trailers to its frames, and the subscriber would take them for picture.
    pub(crate) cuts_trailers: bool,
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
    shift: Shift,
    dependency: dependency::Change,
    picture: Option<Descriptor>,
    as_sent: AsSent,
}

impl Rewritten {
    pub(crate) fn marker(&self) -> bool {
        self.as_sent.marker
    }
}

/// What is known of a publisher's stream besides the packet at hand.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Origin<'s> {
    /// Its last sender report.
    pub(crate) clock: Option<SenderClock>,
    pub(crate) structure: Option<&'s Structure>,
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

impl Written {
    pub(crate) fn sequence(&self) -> u16 {
        u16::from_be_bytes(low_bytes(self.extended))
    }
}

/// A packet the subscriber asked for again, to be looked up in the store of the stream it came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Repair {
    pub(crate) stream: StreamId,
    /// SSRC of the publisher's stream, and index in its store.
    pub(crate) source_ssrc: u32,
    pub(crate) index: u64,
    extended: u64,
    segment: Segment,
    entry: Entry,
    cause: Cause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Lost,
    /// Passed over while the first packet of its key frame was missing: it goes out for the first time.
    PassedOver,
    /// Nobody asked for it, so whoever asks still gets it.
    Unasked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NotRepaired {
    /// Nothing of ours, or too long ago.
    Unknown,
    /// Repaired within the last round trip.
    TooSoon,
    OverBudget,
}

impl NotRepaired {
    pub(crate) fn reason(self) -> DropReason {
        match self {
            Self::Unknown => DropReason::NackUnknown,
            Self::TooSoon => DropReason::NackRepeated,
            Self::OverBudget => DropReason::NackOverBudget,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct LastSent {
    timestamp: u32,
    at: Instant,
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
            selection: Selection::new(LayerId::spatial_layer(0)),
            muted: false,
            segments: Segments::default(),
            live: false,
            next,
            sent_end: next,
            last: None,
            counters: Counters::default(),
            history,
            budget: RepairBudget::new(now),
            next_rtx: next,
            abandoned_before: 0,
            frame_ended: false,
            announce_mid: true,
            packets: 0,
            octets: 0,
            reported: None,
        }
    }

    /// The layer to aim at. The one that flows goes on until the new one has a key frame; `Off` stops at once.
    pub(crate) fn set_target(&mut self, target: Target) {
        self.target = target;
        if let Target::Layer(layer) = target {
            self.selection.want(self.config.layering.within_stream(layer));
        }
        self.live &= target != Target::Off;
    }

    /// Stops what flows until the layer aimed at has a key frame.
    pub(crate) fn stop(&mut self) {
        self.live = false;
    }

    /// Stops, and forgets what was sent so far: the path cannot carry it any more, and its repairs neither.
    pub(crate) fn abandon(&mut self) {
        self.live = false;
        self.abandoned_before = self.next.max(self.sent_end);
    }

    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// Muted, nothing goes out; after it, video goes on with the next key frame.
    pub(crate) fn set_muted(&mut self, muted: bool) {
        self.muted = muted;
        self.live &= !muted;
    }

    pub(crate) fn is_muted(&self) -> bool {
        self.muted
    }

    /// The stream without whose key frame this subscription stands still or stays where it should not.
    pub(crate) fn needs_keyframe(&self) -> Option<StreamId> {
        let Target::Layer(wanted) = self.target else { return None };
        let wanted = self.config.layering.stream_of(wanted);
        let is_elsewhere = self.current_stream() != Some(wanted) || self.selection.needs_keyframe();
        let waits = self.config.codec.kind() == MediaKind::Video && !self.muted && is_elsewhere;
        waits.then_some(wanted)
    }

    /// The stream that flows.
    pub(crate) fn current_stream(&self) -> Option<StreamId> {
        self.segments.newest().filter(|_| self.live).map(|segment| segment.stream)
    }

    /// The streams that flow or are aimed at: bit n is the track's nth.
    pub(crate) fn streams(&self) -> u8 {
        let aimed = match self.target {
            Target::Layer(layer) => Some(self.config.layering.stream_of(layer)),
            Target::Off => None,
        };
        let bits = self.current_stream().into_iter().chain(aimed).filter_map(|one| 1u8.checked_shl(one.0.into()));
        bits.fold(0, |all, bit| all | bit)
    }

    /// The layer that flows.
    pub(crate) fn current_layer(&self) -> Option<LayerId> {
        Some(self.config.layering.layer_of(self.current_stream()?, self.selection.current()))
    }

    /// The layer that flowed last, whether or not it has been stopped since.
    pub(crate) fn last_layer(&self) -> Option<LayerId> {
        Some(self.config.layering.layer_of(self.segments.newest()?.stream, self.selection.current()))
    }

    /// Whether another stream than the one that flowed last would have to begin for this.
    pub(crate) fn leaves_stream(&self, target: Target) -> bool {
        let Target::Layer(layer) = target else { return true };
        let last = self.segments.newest();
        last.is_some_and(|segment| segment.stream != self.config.layering.stream_of(layer))
    }

    /// The subscriber has acknowledged something of this stream, so it knows which section the SSRC belongs to.
    pub(crate) fn acknowledged(&mut self) {
        self.announce_mid = false;
    }

    /// Decides about one packet that `stream` took in.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        stream: StreamId,
        origin: Origin<'_>,
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
            && segment.is_from(stream, header.ssrc)
        {
            let frame = ingested.frame.frame.as_ref();
            let kept_back =
                frame.is_some_and(|frame| self.selection.choose(frame, header.timestamp) == Choice::KeepBack);
            match segment.place(index, ingested.content == Content::Media && !kept_back) {
                Place::Next(extended) => {
                    segment.clock = origin.clock.or(segment.clock);
                    self.follow_selection((index, extended), origin.structure);
                    return Ok(self.emit(now, extended, header, ingested));
                }
                Place::Removed(number) => {
                    self.next = number;
                    if let Some(frame) = frame.filter(|_| kept_back && self.config.codec == Codec::Vp8) {
                        segment.leave_out(frame.number);
                    }
                    return Err(if kept_back { Skip::OtherLayer } else { Skip::PaddingOnly });
                }
                Place::Late(place) => return self.emit_late(now, place, header, ingested, kept_back),
                // Before other layers of the same source were gone over to.
                Place::BeforeStart => {
                    let late = self.segments.late(stream, header.ssrc, index).ok_or(Skip::BeforeSwitch)?;
                    return self.emit_late(now, late?, header, ingested, kept_back);
                }
                Place::Unknown => return Err(Skip::TooOld),
                // The publisher's numbers jumped: go on as after a pause.
                Place::TooFar => self.live = false,
            }
        }
        if let Some(late) = self.segments.late(stream, header.ssrc, index) {
            return self.emit_late(now, late?, header, ingested, false);
        }
        if stream != self.config.layering.stream_of(wanted) {
            return Err(Skip::OtherLayer);
        }
        // The stream behind the current layer was replaced by another.
        self.live &= self.segments.newest().is_some_and(|segment| segment.stream != stream);
        if ingested.content == Content::PaddingOnly {
            return Err(Skip::PaddingOnly);
        }
        if !ingested.frame.keyframe {
            return Err(Skip::AwaitingKeyframe);
        }
        self.begin_segment(now, stream, origin, header, ingested);
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
        let AsSent { with_mid, marker, is_empty, .. } = rewritten.as_sent;
        let payload = Payload::of(&self.config, header, packet, is_empty);
        let mut room;
        let dependency = match self.config.header.dependency.filter(|_| !is_empty) {
            Some(passed) => {
                room = [0; dependency::EXTENSION_BYTES_MAX];
                passed.rewritten(header, packet, rewritten.dependency, &mut room)
            }
            None => None,
        };
        let mut elements = Elements::new(&self.config.header, with_mid, header, packet, dependency);
        let transport_sequence =
            if elements.wants_stamp() { stamp(elements.packet_bytes(payload.bytes().len())) } else { None };
        elements.transport_sequence = transport_sequence;
        self.history.stamped(rewritten.extended, transport_sequence);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(u32::try_from(payload.bytes().len()).unwrap_or_default());

        let fixed = Fixed {
            marker,
            payload_type: payload.payload_type,
            sequence: low_bytes(rewritten.extended),
            timestamp: rewritten.timestamp,
            ssrc: self.config.ssrc,
        };
        let header_bytes = elements.write(&fixed, out);
        payload.append(out, rewritten.picture, rewritten.shift);
        Written { ssrc: self.config.ssrc, extended: rewritten.extended, header_bytes }
    }

    /// The subscriber misses a packet. Says where to find it, unless it was repaired just now or the budget is spent.
    pub(crate) fn repair(&mut self, now: Instant, rtt: Duration, sequence: u16) -> Result<Repair, NotRepaired> {
        let newest = self.next.checked_sub(1).ok_or(NotRepaired::Unknown)?;
        let extended = extend(newest, sequence);
        if extended < self.abandoned_before {
            return Err(NotRepaired::Unknown);
        }
        let (entry, cause) = match self.history.get(extended) {
            Some(entry) => (entry, Cause::Lost),
            // Passed over while the first packet of its key frame was missing; the store may have it.
            None if self.history.covers(extended, self.sent_end) => {
                let serial = self.segments.newest_serial();
                let segment = self.segments.get(serial, extended).ok_or(NotRepaired::Unknown)?;
                let index = segment.index_of(extended).ok_or(NotRepaired::Unknown)?;
                let as_sent = AsSent { with_mid: self.announce_mid, marker: false, is_empty: false, picture_shift: 0 };
                (Entry::new(extended, index, serial, as_sent), Cause::PassedOver)
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
        Ok(Repair::new(segment, extended, entry, cause))
    }

    /// Appends the packet again: over RTX with a new number and the old one in its payload (RFC 4588 4), otherwise as
    /// it was first sent. `packet` is what the store holds for the repair, `number` that of its frame. `None` if that is
    /// not RTP or was never meant for this subscriber.
    pub(crate) fn write_repair(
        &mut self,
        now: Instant,
        repair: &Repair,
        (packet, number): (&[u8], Option<u64>),
        stamp: impl FnOnce(usize) -> Option<u16>,
        out: &mut Vec<u8>,
    ) -> Option<Written> {
        let header = Header::parse(packet).ok()?;
        let mut entry = repair.entry;
        let mut shift = repair.segment.shift_of(None)?;
        if repair.cause == Cause::PassedOver {
            if self.selection.current().is_some() && self.selection.was_sent(number?) != Some(true) {
                return None;
            }
            let picture_shift = repair.segment.shift_of(number)?.picture_id;
            let as_sent = AsSent { marker: header.marker, picture_shift, ..entry.as_sent() };
            entry = Entry::new(repair.extended, repair.index, entry.segment(), as_sent);
        }
        let AsSent { with_mid, marker, is_empty, picture_shift } = entry.as_sent();
        shift.picture_id = picture_shift;
        let payload = Payload::of(&self.config, &header, packet, is_empty);
        let picture = self.config.codec.descriptor(payload.bytes());
        let mut room = [0; dependency::EXTENSION_BYTES_MAX];
        let dependency = self.config.header.dependency.filter(|_| !is_empty);
        let dependency =
            dependency.and_then(|passed| passed.rewritten(&header, packet, repair.segment.dependency, &mut room));
        let mut elements = Elements::new(&self.config.header, with_mid, &header, packet, dependency);
        let mut fixed = Fixed {
            marker,
            payload_type: payload.payload_type,
            sequence: low_bytes(repair.extended),
            timestamp: header.timestamp.wrapping_add(repair.segment.timestamp_shift),
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
                    let bytes = payload.bytes().len().saturating_add(2);
                    elements.transport_sequence = stamp(elements.packet_bytes(bytes));
                }
                let header_bytes = elements.write(&fixed, out);
                out.extend_from_slice(&low_bytes(repair.extended));
                header_bytes
            }
            None => {
                elements.transport_sequence = entry.transport_sequence();
                elements.write(&fixed, out)
            }
        };
        payload.append(out, picture, shift);
        if repair.cause != Cause::Unasked {
            self.history.repaired(now, repair.extended, entry);
        }
        self.budget.spend(out.len().saturating_sub(start));
        Some(Written { ssrc: fixed.ssrc, extended, header_bytes })
    }

    /// The packet that was sent so many before the newest, to go out again unasked.
    pub(crate) fn repeat(&mut self, now: Instant, back: u64) -> Option<Repair> {
        let extended = self.sent_end.checked_sub(back.saturating_add(1))?;
        if extended < self.abandoned_before || !self.budget.has_some(now) {
            return None;
        }
        let entry = self.history.get(extended)?;
        let segment = self.segments.get(entry.segment(), extended)?;
        Some(Repair::new(segment, extended, entry, Cause::Unasked))
    }

    /// A packet that was sent a while ago, to go out again over RTX as padding that may be of use: `back` before the newest.
    pub(crate) fn replay(&self, back: u64) -> Option<Repair> {
        let extended = self.sent_end.checked_sub(back.saturating_add(1))?;
        if self.config.rtx.is_none() || extended < self.abandoned_before {
            return None;
        }
        let entry = self.history.get(extended)?;
        let segment = self.segments.get(entry.segment(), extended)?;
        Some(Repair::new(segment, extended, entry, Cause::Lost))
    }

    /// Appends a packet of nothing but so many bytes of padding (RFC 3550 5.1): in the RTX stream, which is free of gaps to
    /// fill, otherwise in the stream itself behind the end of a picture. `None` if neither is possible now.
    pub(crate) fn write_padding(
        &mut self,
        bytes: u8,
        stamp: impl FnOnce(usize) -> Option<u16>,
        out: &mut Vec<u8>,
    ) -> Option<Written> {
        let header = Header::parse(&BARE_PACKET).ok().filter(|_| bytes > 0)?;
        let (ssrc, payload_type, extended) = match self.config.rtx {
            Some(rtx) => {
                let extended = self.next_rtx;
                self.next_rtx = extended.saturating_add(1);
                (rtx.ssrc, rtx.payload_type, extended)
            }
            None => (self.config.ssrc, self.config.payload_type, self.pad_stream()?),
        };
        let timestamp = self.last.map_or(0, |last| last.timestamp);
        let sequence = low_bytes(extended);
        let fixed = Fixed { marker: false, payload_type, sequence, timestamp, ssrc };
        let mut elements = Elements::new(&self.config.header, self.announce_mid, &header, &BARE_PACKET, None);
        if elements.wants_stamp() {
            elements.transport_sequence = stamp(elements.packet_bytes(bytes.into()));
        }
        let start = out.len();
        let header_bytes = elements.write(&fixed, out);
        if let Some(first) = out.get_mut(start) {
            *first |= PADDING_BIT;
        }
        out.resize(out.len().saturating_add(usize::from(bytes)).saturating_sub(1), 0);
        out.push(bytes);
        Some(Written { ssrc, extended, header_bytes })
    }

    /// Takes the next number for padding; the source goes on behind it.
    fn pad_stream(&mut self) -> Option<u64> {
        let number = self.next;
        if !self.live || !self.frame_ended || number != self.sent_end {
            return None;
        }
        self.segments.make_room(number.saturating_add(1))?;
        self.next = number.saturating_add(1);
        self.sent_end = self.next;
        Some(number)
    }

    /// What a sender report says now, on the publisher's clock, so that its audio and video stay together. `None` until
    /// the publisher has reported itself, and while nothing flows.
    pub(crate) fn sender_report(&mut self, now: Instant) -> Option<SenderInfo> {
        let clock = self.source_clock()?;
        let elapsed = now.saturating_duration_since(clock.received);
        let ntp = clock.ntp.wrapping_add(ntp_span(elapsed));
        let rtp = clock.rtp.wrapping_add(ticks(elapsed, self.config.clock_rate));
        let now_reported = SenderClock { ntp, rtp, received: now };
        self.reported = Some(Reported { middle_bits: now_reported.middle_bits(), at: now });
        Some(SenderInfo { ntp, rtp, packets: self.packets, octets: self.octets })
    }

    /// The publisher's last sender report, as it holds for what goes out.
    pub(crate) fn source_clock(&self) -> Option<SenderClock> {
        let segment = self.segments.newest().filter(|_| self.live)?;
        let clock = segment.clock?;
        Some(SenderClock { rtp: clock.rtp.wrapping_add(segment.timestamp_shift), ..clock })
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
        stream: StreamId,
        origin: Origin<'_>,
        header: &Header,
        ingested: &Ingested,
    ) {
        let timestamp = match (self.segments.newest(), self.last) {
            (Some(previous), Some(last)) => {
                continued_timestamp(previous, &last, now, origin.clock, header, self.config.clock_rate)
            }
            _ => header.timestamp,
        };
        // Numbers that were only held free for packets still to come are used after all.
        self.next = self.sent_end;
        let offsets = Offsets {
            timestamp: timestamp.wrapping_sub(header.timestamp),
            picture: self.counters.shift_to(ingested.frame.picture),
            frame_number: self.counters.frame_shift_to(ingested.frame.frame.as_ref()),
        };
        let source = Source { stream, ssrc: header.ssrc, clock: origin.clock };
        self.segments.push(Segment::new(source, (ingested.index, self.next), offsets));
        self.selection = Selection::new(self.selection.wanted());
        if let Some(frame) = &ingested.frame.frame {
            self.selection.begin(frame);
            self.selection.choose(frame, header.timestamp);
            self.follow_selection((ingested.index, self.next), origin.structure);
        }
        self.live = true;
    }

    /// What subscribers are told of active layers changes with a packet, so that packet begins a segment.
    fn follow_selection(&mut self, place: (u64, u64), structure: Option<&Structure>) {
        let (Some(current), Some(structure)) = (self.selection.current(), structure) else { return };
        let Some(segment) = self.segments.newest_mut() else { return };
        let active = structure.active_up_to(current.spatial(), current.temporal());
        let dependency = dependency::Change { active, ..segment.dependency };
        if segment.layer.is_none() {
            (segment.layer, segment.dependency) = (Some(current), dependency);
        } else if segment.dependency != dependency {
            let continued = segment.continued(place, current, dependency);
            self.segments.push(continued);
        }
    }

    /// A packet newer than all before it in the newest segment.
    fn emit(&mut self, now: Instant, extended: u64, header: &Header, ingested: &Ingested) -> Rewritten {
        self.next = extended.saturating_add(1);
        let shift = self.segments.newest().and_then(|segment| segment.shift_of(number_of(ingested)));
        let is_empty = ingested.content == Content::PaddingOnly;
        let place = (extended, self.segments.newest_serial());
        let rewritten = self.rewrite(place, shift.unwrap_or_default(), header, ingested, is_empty);
        self.frame_ended = rewritten.as_sent.marker;
        self.note_newest(now, &rewritten, ingested.frame.frame.as_ref());
        rewritten
    }

    /// A packet whose number was left free for it. One that is not wanted only takes its number: a gap would be asked for.
    fn emit_late(
        &mut self,
        now: Instant,
        (extended, serial): (u64, u8),
        header: &Header,
        ingested: &Ingested,
        kept_back: bool,
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
        let segment = self.segments.get(serial, extended).ok_or(Skip::TooOld)?;
        let shift = segment.shift_of(number_of(ingested)).ok_or(Skip::TooOld)?;
        let is_empty = kept_back || ingested.content == Content::PaddingOnly;
        let rewritten = self.rewrite((extended, serial), shift, header, ingested, is_empty);
        // Behind padding even a late packet can be the newest picture.
        self.note_newest(now, &rewritten, ingested.frame.frame.as_ref());
        Ok(rewritten)
    }

    fn note_newest(&mut self, now: Instant, rewritten: &Rewritten, frame: Option<&Frame>) {
        let since_last = self.last.map_or(1, |last| timestamp_distance(last.timestamp, rewritten.timestamp));
        if since_last > 0 {
            self.last = Some(LastSent { timestamp: rewritten.timestamp, at: now });
        }
        // Of one picture every packet says the same, and padding nothing.
        if since_last >= 0 && !rewritten.as_sent.is_empty {
            self.counters.note(rewritten.picture, rewritten.shift);
            self.counters.note_frame(frame, rewritten.dependency.frame_number);
        }
    }

    fn rewrite(
        &mut self,
        (extended, serial): (u64, u8),
        shift: Shift,
        header: &Header,
        ingested: &Ingested,
        is_empty: bool,
    ) -> Rewritten {
        self.sent_end = self.sent_end.max(extended.saturating_add(1));
        let segment = self.segments.get(serial, extended);
        let top = segment.and(self.selection.current()).map(LayerId::spatial);
        // The highest layer that goes out ends the picture.
        let ends_picture = ingested.frame.frame.is_some_and(|frame| frame.ends && Some(frame.spatial) == top);
        let as_sent = AsSent {
            with_mid: self.announce_mid,
            marker: header.marker || ends_picture,
            is_empty,
            picture_shift: shift.picture_id,
        };
        self.history.record(extended, Entry::new(extended, ingested.index, serial, as_sent));
        Rewritten {
            extended,
            timestamp: header.timestamp.wrapping_add(segment.map_or(0, |segment| segment.timestamp_shift)),
            shift,
            dependency: segment.map(|segment| segment.dependency).unwrap_or_default(),
            picture: ingested.frame.picture.filter(|_| !is_empty),
            as_sent,
        }
    }
}

impl Repair {
    fn new(segment: &Segment, extended: u64, entry: Entry, cause: Cause) -> Self {
        Self {
            stream: segment.stream,
            source_ssrc: segment.ssrc,
            index: segment.full_index(entry.source()),
            extended,
            segment: *segment,
            entry,
            cause,
        }
    }
}

fn number_of(ingested: &Ingested) -> Option<u64> {
    ingested.frame.frame.map(|frame| frame.number)
}

/// A header that passes nothing on.
const BARE_PACKET: [u8; 12] = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// RFC 3550 5.1.
const PADDING_BIT: u8 = 0x20;

#[cfg(test)]
mod tests;
