//! What changes in packets so that several sources look like one: counters, times, and the wrapping of audio.

use std::time::{Duration, Instant};

use super::{ForwarderConfig, LastSent, segment::Segment};
use crate::{
    ingress::{SenderClock, low_word, ticks},
    rtp::{
        Header, is_newer_timestamp,
        layers::Frame,
        picture::{Descriptor, Shift},
        red, timestamp_distance,
        trailer::Cut,
    },
};

/// The publisher's redundant audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Red {
    /// The publisher's payload type for it.
    pub(crate) from: u8,
    /// The subscriber's; one without gets what is in it.
    pub(crate) to: Option<u8>,
}

/// What follows the header of an outgoing packet.
pub(super) struct Payload<'p> {
    pub(super) payload_type: u8,
    cut: Cut<'p>,
    /// The blocks of redundant audio get this payload type.
    blocks: Option<u8>,
}

impl<'p> Payload<'p> {
    pub(super) fn of(config: &ForwarderConfig, header: &Header, packet: &'p [u8], is_empty: bool) -> Self {
        let bytes = if is_empty { &[] } else { header.payload_of(packet) };
        let cut = if config.cuts_trailers { Cut::of(config.codec, bytes) } else { Cut::nothing(bytes) };
        let plain = Self { payload_type: config.payload_type, cut, blocks: None };
        match config.red.filter(|red| red.from == header.payload_type) {
            Some(Red { to: Some(payload_type), .. }) => {
                Self { payload_type, blocks: Some(config.payload_type), ..plain }
            }
            Some(Red { to: None, .. }) => Self { cut: Cut::nothing(red::primary(bytes).unwrap_or_default()), ..plain },
            None => plain,
        }
    }

    pub(super) fn bytes(&self) -> &'p [u8] {
        self.cut.bytes
    }

    pub(super) fn append(&self, out: &mut Vec<u8>, picture: Option<Descriptor>, shift: Shift) {
        let start = out.len();
        out.extend_from_slice(self.cut.bytes);
        let Some(copy) = out.get_mut(start..) else { return };
        self.cut.correct(copy);
        if let Some(descriptor) = picture {
            descriptor.rewrite(copy, shift);
        }
        if let Some(payload_type) = self.blocks {
            red::set_payload_types(copy, payload_type);
        }
    }
}

/// The newest counters that went out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    picture_id: Option<u16>,
    base_layer_index: Option<u8>,
    key_index: Option<u8>,
    frame_number: Option<u16>,
}

impl Counters {
    /// What makes the first picture of a segment follow the last one that was sent.
    pub(super) fn shift_to(&self, first: Option<Descriptor>) -> Shift {
        let Some(first) = first else { return Shift::default() };
        let after = |last: u8, value: u8| last.wrapping_add(1).wrapping_sub(value);
        Shift {
            picture_id: self
                .picture_id
                .zip(first.picture_id())
                .map_or(0, |(last, id)| last.wrapping_add(1).wrapping_sub(id.value)),
            base_layer_index: self
                .base_layer_index
                .zip(first.base_layer_index())
                .map_or(0, |(last, field)| after(last, field.value)),
            key_index: self.key_index.zip(first.key_index()).map_or(0, |(last, value)| after(last, value)),
        }
    }

    pub(super) fn note(&mut self, sent: Option<Descriptor>, shift: Shift) {
        let Some(sent) = sent else { return };
        self.picture_id = sent.picture_id().map(|id| id.shifted(shift.picture_id)).or(self.picture_id);
        self.base_layer_index = sent
            .base_layer_index()
            .map(|field| field.value.wrapping_add(shift.base_layer_index))
            .or(self.base_layer_index);
        self.key_index = sent.key_index().map(|value| value.wrapping_add(shift.key_index)).or(self.key_index);
    }

    /// The same for the frame numbers of dependency descriptors.
    pub(super) fn frame_shift_to(&self, first: Option<&Frame>) -> u16 {
        self.frame_number
            .zip(first)
            .map_or(0, |(last, frame)| last.wrapping_add(1).wrapping_sub(low_half(frame.number)))
    }

    pub(super) fn note_frame(&mut self, sent: Option<&Frame>, shift: u16) {
        self.frame_number = sent.map(|frame| low_half(frame.number).wrapping_add(shift)).or(self.frame_number);
    }
}

/// The outgoing timestamp of the packet that begins a segment.
///
/// The sender reports of both streams tell exactly how they relate, and a stream relates to itself. Otherwise, or if that
/// is far from what the time between the two packets suggests (a publisher may report nonsense), that time decides.
pub(super) fn continued_timestamp(
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

/// 32.32 fixed point seconds.
pub(super) fn ntp_span(elapsed: Duration) -> u64 {
    let fraction = (u64::from(elapsed.subsec_nanos()) << 32) / 1_000_000_000;
    elapsed.as_secs().wrapping_shl(32) | fraction
}

pub(super) fn low_bytes(extended: u64) -> [u8; 2] {
    let [.., high, low] = extended.to_be_bytes();
    [high, low]
}

fn low_half(number: u64) -> u16 {
    u16::try_from(number & 0xffff).unwrap_or_default()
}
