//! What a publisher sends: one [`Stream`] per SSRC, and what we tell the publisher about it.
//!
//! Hot: `receive` runs once per received packet. No lock, log, clock read or unbounded loop here, and no allocation once
//! the packet store is warm. Everything is bounded: the loss list, the replay window, the arrival ring.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod frames;
mod keyframes;
mod layer_rates;
mod loss;
mod rate;
mod statistics;
mod twcc;

use std::time::{Duration, Instant};

use frames::Frames;
pub(crate) use keyframes::{KeyframeRequests, LAYER_INTERVAL, LOW_LAYER_INTERVAL};
pub(crate) use layer_rates::{LayerRates, SpatialLayer};
use loss::LossList;
pub(crate) use rate::RateMeter;
use statistics::{ReplayWindow, Statistics};
pub(crate) use statistics::{SenderClock, low_word, ticks};
pub(crate) use twcc::TwccReceiver;

use crate::{
    DropReason,
    rtcp::ReportBlock,
    rtp::{Codec, FIRST_INDEX, FrameInfo, Header, dependency::Structure, extend},
    store::PacketStore,
};

/// One SSRC of a publisher: one layer of one track.
#[derive(Debug)]
pub(crate) struct Stream {
    config: StreamConfig,
    /// Index of the newest packet, once there is one.
    highest: Option<u64>,
    seen: ReplayWindow,
    statistics: Statistics,
    lost: LossList,
    store: PacketStore,
    frames: Frames,
    rate: RateMeter,
    last_heard: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamConfig {
    pub(crate) ssrc: u32,
    pub(crate) codec: Codec,
    pub(crate) clock_rate: u32,
    pub(crate) repair: Repair,
    /// Id of the dependency descriptor, if that was agreed.
    pub(crate) dependency_id: Option<u8>,
}

/// Whether `nack` was negotiated for the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repair {
    Requested,
    Unavailable,
}

/// A packet that was taken in and may be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ingested {
    /// Its sequence number without wraps; names it in the store.
    pub(crate) index: u64,
    pub(crate) frame: FrameInfo,
    pub(crate) content: Content,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Media,
    /// Sent to fill the pipe; it holds a sequence number and nothing else.
    PaddingOnly,
}

/// What an RTX packet (RFC 4588) turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one at a time, on the stack")]
pub(crate) enum Rtx {
    /// Padding that measures bandwidth; there is nothing to forward.
    Probe,
    /// A packet of the media stream, rebuilt in the caller's scratch buffer.
    Repaired { header: Header, ingested: Ingested },
}

impl Stream {
    pub(crate) fn new(config: StreamConfig) -> Self {
        Self {
            config,
            highest: None,
            seen: ReplayWindow::default(),
            statistics: Statistics::new(config.clock_rate),
            lost: LossList::default(),
            store: PacketStore::new(config.codec.kind()),
            frames: Frames::new(config.codec, config.dependency_id),
            rate: RateMeter::default(),
            last_heard: None,
        }
    }

    /// Takes in one decrypted packet of this SSRC, which came to the socket at `received`.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        received: Instant,
        header: &Header,
        packet: &[u8],
    ) -> Result<Ingested, DropReason> {
        let ingested = self.ingest(now, header, packet)?;
        self.statistics.on_packet(received, ingested.index, header.timestamp);
        Ok(ingested)
    }

    /// Takes in one decrypted packet of the repair SSRC that belongs to this stream. `media_payload_type` is the `apt`
    /// of its payload type. A repaired packet is built in `scratch`, from where it is forwarded.
    pub(crate) fn receive_rtx(
        &mut self,
        now: Instant,
        header: &Header,
        packet: &[u8],
        media_payload_type: u8,
        scratch: &mut Vec<u8>,
    ) -> Result<Rtx, DropReason> {
        let Some((original_sequence, payload)) = header.payload_of(packet).split_first_chunk::<2>() else {
            return Ok(Rtx::Probe);
        };
        let clear = packet.get(..header.header_bytes()).unwrap_or_default();
        let Some((&[first, second, _, _, t0, t1, t2, t3, ..], extensions)) = clear.split_first_chunk::<12>() else {
            return Err(DropReason::RtpMalformed);
        };
        scratch.clear();
        // The rebuilt packet has no padding: what the payload range left out is not copied.
        scratch.extend_from_slice(&[first & !0x20, second & 0x80 | media_payload_type & 0x7f]);
        scratch.extend_from_slice(original_sequence);
        scratch.extend_from_slice(&[t0, t1, t2, t3]);
        scratch.extend_from_slice(&self.config.ssrc.to_be_bytes());
        scratch.extend_from_slice(extensions);
        scratch.extend_from_slice(payload);
        let header = Header::parse(scratch).map_err(|error| error.reason())?;
        match self.ingest(now, &header, scratch) {
            Ok(ingested) => Ok(Rtx::Repaired { header, ingested }),
            // Clients also probe with packets they have sent before.
            Err(DropReason::Duplicate | DropReason::TooOld) => Ok(Rtx::Probe),
            Err(reason) => Err(reason),
        }
    }

    /// Appends the sequence numbers to ask for now, at most [`NACKS_PER_TURN`](loss::NACKS_PER_TURN), in ascending order.
    pub(crate) fn due_nacks(&mut self, now: Instant, rtt: Duration, out: &mut Vec<u16>) {
        self.lost.due(now, rtt, out);
    }

    /// When [`due_nacks`](Self::due_nacks) next has something.
    pub(crate) fn nack_deadline(&self) -> Option<Instant> {
        self.lost.deadline()
    }

    pub(crate) fn on_sender_report(&mut self, received: Instant, ntp: u64, rtp: u32) {
        self.statistics.on_sender_report(received, ntp, rtp);
    }

    /// How this stream's timestamps relate to the publisher's clock, after its first sender report.
    pub(crate) fn sender_clock(&self) -> Option<SenderClock> {
        self.statistics.sender_clock()
    }

    /// The block about this stream for the next receiver report; `None` before the first packet.
    pub(crate) fn report_block(&mut self, now: Instant) -> Option<ReportBlock> {
        self.statistics.report_block(now, self.config.ssrc)
    }

    pub(crate) fn store(&self) -> &PacketStore {
        &self.store
    }

    /// Whether this packet was passed over, and would still be taken and forwarded.
    pub(crate) fn awaits(&self, index: u64) -> bool {
        let behind = self.highest.and_then(|highest| highest.checked_sub(index));
        behind.is_some_and(|behind| behind > 0 && behind < self.store.packets()) && self.store.get(index).is_none()
    }

    pub(crate) fn ssrc(&self) -> u32 {
        self.config.ssrc
    }

    /// Media over the last second.
    pub(crate) fn bits_per_second(&self, now: Instant) -> u64 {
        self.rate.bits_per_second(now)
    }

    /// What each layer takes, of a stream that has some.
    pub(crate) fn layers(&self) -> Option<&LayerRates> {
        self.frames.rates()
    }

    /// What the newest key frame said of all others.
    pub(crate) fn structure(&self) -> Option<&Structure> {
        self.frames.structure()
    }

    /// The number of a stored packet's frame.
    pub(crate) fn frame_number(&self, packet: &[u8]) -> Option<u64> {
        self.frames.number_of(&Header::parse(packet).ok()?, packet)
    }

    /// When the last packet with content came.
    pub(crate) fn last_heard(&self) -> Option<Instant> {
        self.last_heard
    }

    fn ingest(&mut self, now: Instant, header: &Header, packet: &[u8]) -> Result<Ingested, DropReason> {
        let previous = self.highest;
        let index = match previous {
            Some(highest) => extend(highest, header.sequence),
            None => FIRST_INDEX.saturating_add(u64::from(header.sequence)),
        };
        self.seen.accept(index)?;
        match previous {
            Some(highest) if index > highest => {
                if self.config.repair == Repair::Requested {
                    self.lost.on_gap(now, highest.saturating_add(1)..index);
                }
                self.highest = Some(index);
            }
            Some(_) => self.lost.on_arrival(index),
            None => self.highest = Some(index),
        }
        let payload = header.payload_of(packet);
        self.store.insert(index, packet);
        let is_newest = self.highest == Some(index);
        if payload.is_empty() {
            return Ok(Ingested { index, frame: FrameInfo::default(), content: Content::PaddingOnly });
        }
        self.rate.add(now, packet.len());
        self.last_heard = Some(now);
        let frame = self.frames.inspect(now, header, packet, is_newest);
        Ok(Ingested { index, frame, content: Content::Media })
    }
}

/// The instant `delay` after `now`; `now` itself at the end of time.
pub(crate) fn after(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay).unwrap_or(now)
}

#[cfg(test)]
mod tests;
