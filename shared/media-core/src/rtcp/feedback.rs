//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! Hot: every subscriber sends one for each 50–100 ms of what it received. Reading allocates nothing and looks at no
//! more than [`STATUSES_MAX`] packets, whatever the run lengths claim.

use super::{
    RtcpError, TRANSPORT_FEEDBACK, TRANSPORT_WIDE,
    write::{packet, put},
};

/// One feedback packet, checked: every status it counts has a chunk, and every arrival a delta.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TwccFeedback<'p> {
    base_sequence: u16,
    statuses: u16,
    reference_us: i64,
    chunks: &'p [u8],
    deltas: &'p [u8],
}

/// What became of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) sequence: u16,
    /// Microseconds on the receiver's clock, whose zero means nothing; `None` if it has not arrived.
    pub(crate) at_us: Option<i64>,
}

impl<'p> TwccFeedback<'p> {
    pub(super) fn parse(body: &'p [u8]) -> Result<Self, RtcpError> {
        let (&[b0, b1, c0, c1, r0, r1, r2, _], rest) = body.split_first_chunk::<8>().ok_or(RtcpError::TooShort)?;
        let statuses = u16::from_be_bytes([c0, c1]);
        if statuses > STATUSES_MAX {
            return Err(RtcpError::FeedbackTooLarge);
        }
        let reference = i32::from_be_bytes([r0, r1, r2, 0]) >> 8;
        let mut uncounted = statuses;
        let mut delta_bytes = 0usize;
        let mut deltas = rest;
        while uncounted > 0 {
            let (chunk, tail) = deltas.split_first_chunk::<2>().ok_or(RtcpError::TooShort)?;
            let chunk = Chunk(u16::from_be_bytes(*chunk));
            let counted = chunk.symbols().min(uncounted);
            delta_bytes = delta_bytes.saturating_add(chunk.delta_bytes(counted));
            uncounted = uncounted.saturating_sub(counted);
            deltas = tail;
        }
        if deltas.len() < delta_bytes {
            return Err(RtcpError::TooShort);
        }
        Ok(Self {
            base_sequence: u16::from_be_bytes([b0, b1]),
            statuses,
            reference_us: i64::from(reference).saturating_mul(REFERENCE_US),
            chunks: rest,
            deltas,
        })
    }

    pub(crate) fn arrivals(&self) -> Arrivals<'p> {
        Arrivals {
            sequence: self.base_sequence,
            left: self.statuses,
            at_us: self.reference_us,
            chunks: self.chunks,
            chunk: Chunk(0),
            position: 0,
            deltas: self.deltas,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Arrivals<'p> {
    sequence: u16,
    left: u16,
    at_us: i64,
    chunks: &'p [u8],
    chunk: Chunk,
    position: u16,
    deltas: &'p [u8],
}

impl Iterator for Arrivals<'_> {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        self.left = self.left.checked_sub(1)?;
        // An empty run takes two bytes of chunks, so this ends with them.
        while self.position >= self.chunk.symbols() {
            let (chunk, rest) = self.chunks.split_first_chunk::<2>()?;
            self.chunk = Chunk(u16::from_be_bytes(*chunk));
            self.chunks = rest;
            self.position = 0;
        }
        let symbol = self.chunk.symbol(self.position);
        self.position = self.position.saturating_add(1);
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let ticks = match symbol {
            SMALL_DELTA => {
                let (&ticks, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(ticks)
            }
            LARGE_DELTA => {
                let (ticks, rest) = self.deltas.split_first_chunk::<2>()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(*ticks))
            }
            _ => return Some(Arrival { sequence, at_us: None }),
        };
        self.at_us = self.at_us.saturating_add(ticks.saturating_mul(TICK_US));
        Some(Arrival { sequence, at_us: Some(self.at_us) })
    }
}

/// Section 3.1.3 and 3.1.4: a run of one symbol, 14 one-bit symbols or 7 two-bit ones.
#[derive(Debug, Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    fn symbols(self) -> u16 {
        match self.0 >> 14 {
            0b10 => 14,
            0b11 => 7,
            _ => self.0 & RUN_LENGTH_MAX,
        }
    }

    fn symbol(self, position: u16) -> u8 {
        let shifted = |bits: u16, mask: u16| {
            let shift = 14u16.saturating_sub(bits.saturating_mul(position.saturating_add(1)));
            let [_, symbol] = (self.0.wrapping_shr(u32::from(shift)) & mask).to_be_bytes();
            symbol
        };
        match self.0 >> 14 {
            0b10 => shifted(1, 1),
            0b11 => shifted(2, 3),
            _ => {
                let [_, symbol] = (self.0 >> 13 & 3).to_be_bytes();
                symbol
            }
        }
    }

    /// Bytes of delta the first `counted` symbols stand for.
    fn delta_bytes(self, counted: u16) -> usize {
        if self.0 >> 15 == 0 {
            return usize::from(counted).saturating_mul(symbol_bytes(self.symbol(0)));
        }
        (0..counted).fold(0usize, |sum, position| sum.saturating_add(symbol_bytes(self.symbol(position))))
    }
}

fn symbol_bytes(symbol: u8) -> usize {
    match symbol {
        SMALL_DELTA => 1,
        LARGE_DELTA => 2,
        _ => 0,
    }
}

/// Collects arrivals in order of sequence number and writes them as one packet. Its buffers are reused.
#[derive(Debug, Default)]
pub(crate) struct FeedbackWriter {
    base_sequence: u16,
    reference: i64,
    last_tick: i64,
    symbols: Vec<u8>,
    deltas: Vec<u8>,
}

/// Whether a status went into the packet being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// The packet is full, or the arrival too far from the one before: it belongs into the next packet.
    Full,
}

impl FeedbackWriter {
    /// `first_arrival_us` sets the reference time; it must not be negative.
    pub(crate) fn start(&mut self, base_sequence: u16, first_arrival_us: i64) {
        self.base_sequence = base_sequence;
        self.reference = first_arrival_us.max(0) / REFERENCE_US;
        self.last_tick = self.reference.saturating_mul(REFERENCE_US / TICK_US);
        self.symbols.clear();
        self.deltas.clear();
    }

    /// The next sequence number, arrived or not.
    pub(crate) fn push(&mut self, arrival_us: Option<i64>) -> Pushed {
        let chunk_bytes = self.symbols.len().saturating_div(7).saturating_add(1).saturating_mul(2);
        if chunk_bytes.saturating_add(self.deltas.len()) >= BODY_BYTES_MAX {
            return Pushed::Full;
        }
        let Some(arrival_us) = arrival_us else {
            self.symbols.push(NOT_RECEIVED);
            return Pushed::Taken;
        };
        let tick = arrival_us.max(0) / TICK_US;
        let delta = tick.saturating_sub(self.last_tick);
        if let Ok(small) = u8::try_from(delta) {
            self.symbols.push(SMALL_DELTA);
            self.deltas.push(small);
        } else if let Ok(large) = i16::try_from(delta) {
            self.symbols.push(LARGE_DELTA);
            self.deltas.extend_from_slice(&large.to_be_bytes());
        } else {
            return Pushed::Full;
        }
        self.last_tick = tick;
        Pushed::Taken
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>, sender_ssrc: u32, media_ssrc: u32, feedback_count: u8) {
        let statuses = u16::try_from(self.symbols.len()).unwrap_or(u16::MAX);
        let [.., r0, r1, r2] = self.reference.to_be_bytes();
        packet(out, TRANSPORT_WIDE, TRANSPORT_FEEDBACK, |out| {
            put(out, sender_ssrc);
            put(out, media_ssrc);
            out.extend_from_slice(&self.base_sequence.to_be_bytes());
            out.extend_from_slice(&statuses.to_be_bytes());
            out.extend_from_slice(&[r0, r1, r2, feedback_count]);
            let mut rest = self.symbols.as_slice();
            while let Some((chunk, tail)) = encode_chunk(rest) {
                out.extend_from_slice(&chunk.to_be_bytes());
                rest = tail;
            }
            out.extend_from_slice(&self.deltas);
        });
    }
}

/// The chunk that says most about the first of these symbols, and the symbols after it.
fn encode_chunk(symbols: &[u8]) -> Option<(u16, &[u8])> {
    let &first = symbols.first()?;
    let run = symbols.iter().take(usize::from(RUN_LENGTH_MAX)).take_while(|&&symbol| symbol == first).count();
    let one_bit = symbols.iter().take(14).take_while(|&&symbol| symbol <= SMALL_DELTA).count();
    let (chunk, taken) = if run >= one_bit.max(7) || run == symbols.len() {
        (u16::from(first) << 13 | u16::try_from(run).unwrap_or_default(), run)
    } else if one_bit == symbols.len().min(14) {
        (vector(symbols, 14, 1, 0x8000), one_bit)
    } else {
        (vector(symbols, 7, 2, 0xc000), symbols.len().min(7))
    };
    Some((chunk, symbols.get(taken..).unwrap_or_default()))
}

fn vector(symbols: &[u8], count: usize, bits: u32, kind: u16) -> u16 {
    let padded = symbols.iter().copied().chain(std::iter::repeat(NOT_RECEIVED)).take(count);
    kind | padded.fold(0u16, |list, symbol| list.wrapping_shl(bits) | u16::from(symbol))
}

/// More than any subscriber has in flight; a larger count is an attempt to make us count.
pub(crate) const STATUSES_MAX: u16 = 8_192;
const RUN_LENGTH_MAX: u16 = 0x1fff;
const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;
const TICK_US: i64 = 250;
const REFERENCE_US: i64 = 64_000;
/// Chunks and deltas of one packet, so that it stays below an MTU with its header and SRTCP trailer.
const BODY_BYTES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
        PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, StatusVectorChunk, SymbolSizeTypeTcc,
        SymbolTypeTcc, TransportLayerCc,
    };
    use rtc::shared::marshal::{Marshal, Unmarshal};

    use super::*;
    use crate::rtcp::{Packet, packets};

    fn ours(bytes: &[u8]) -> TwccFeedback<'_> {
        match packets(bytes).next() {
            Some(Ok(Packet::TransportFeedback(feedback))) => feedback,
            other => panic!("{other:?}"),
        }
    }

    fn symbols(theirs: &TransportLayerCc) -> Vec<SymbolTypeTcc> {
        let chunks = theirs.packet_chunks.iter().flat_map(|chunk| match chunk {
            PacketStatusChunk::RunLengthChunk(run) => vec![run.packet_status_symbol; run.run_length.into()],
            PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
        });
        chunks.take(theirs.packet_status_count.into()).collect()
    }

    /// What the other implementation's structure means, in our terms.
    fn meaning(theirs: &TransportLayerCc) -> Vec<Arrival> {
        let mut at_us = i64::from(theirs.reference_time) * REFERENCE_US;
        let mut deltas = theirs.recv_deltas.iter();
        let arrival = |(sequence, symbol)| match symbol {
            SymbolTypeTcc::PacketReceivedSmallDelta | SymbolTypeTcc::PacketReceivedLargeDelta => {
                at_us += deltas.next().unwrap().delta;
                Arrival { sequence, at_us: Some(at_us) }
            }
            _ => Arrival { sequence, at_us: None },
        };
        let sequences = (0..).map(|n| theirs.base_sequence_number.wrapping_add(n));
        sequences.zip(symbols(theirs)).map(arrival).collect()
    }

    fn arrivals() -> impl Strategy<Value = Vec<Option<i64>>> {
        let gap = prop_oneof![4 => 0i64..60_000, 1 => -500_000i64..2_000_000];
        let status = prop_oneof![4 => gap.prop_map(Some), 1 => Just(None)];
        let runs = proptest::collection::vec((status, 1usize..30), 1..12);
        runs.prop_map(|runs| {
            let mut at = 400_000_000i64;
            let flat = runs.into_iter().flat_map(|(status, count)| std::iter::repeat_n(status, count));
            flat.map(|gap| {
                gap.map(|gap| {
                    at += gap;
                    at
                })
            })
            .collect()
        })
    }

    proptest! {
        #[test]
        fn what_we_write_means_the_same_to_the_other_implementation(base in any::<u16>(), arrivals in arrivals()) {
            let mut writer = FeedbackWriter::default();
            writer.start(base, arrivals.iter().flatten().next().copied().unwrap_or_default());
            let taken = arrivals.iter().take_while(|at| writer.push(**at) == Pushed::Taken).count();
            let mut out = Vec::new();
            writer.write(&mut out, 1, 2, 3);
            prop_assert!(out.len() <= BODY_BYTES_MAX + 24);

            let read: Vec<Arrival> = ours(&out).arrivals().collect();
            prop_assert_eq!(read.len(), taken);
            for (n, (arrival, pushed)) in read.iter().zip(&arrivals).enumerate() {
                prop_assert_eq!(arrival.sequence, base.wrapping_add(n as u16));
                prop_assert_eq!(arrival.at_us, pushed.map(|at| at / TICK_US * TICK_US));
            }
            // Its reader wants a byte behind the last chunk, so a packet without any arrival is not for it.
            if read.iter().any(|arrival| arrival.at_us.is_some()) {
                let theirs = TransportLayerCc::unmarshal(&mut &out[..]).unwrap();
                prop_assert_eq!((theirs.sender_ssrc, theirs.media_ssrc, theirs.fb_pkt_count), (1, 2, 3));
                prop_assert_eq!(meaning(&theirs), read);
            }
        }

        #[test]
        fn what_the_other_implementation_writes_means_the_same_to_us(
            base in any::<u16>(),
            reference in 0u32..0x7f_ffff,
            chunks in proptest::collection::vec((0u16..3, proptest::collection::vec(0u16..3, 14), 1u16..40), 1..12),
            ticks in proptest::collection::vec((0i64..256, -32_768i64..32_768), 480),
        ) {
            let packet_chunks: Vec<_> = chunks
                .into_iter()
                .map(|(kind, symbols, run_length)| match kind {
                    0 => PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                        type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                        packet_status_symbol: symbols[0].into(),
                        run_length,
                    }),
                    1 => PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                        type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                        symbol_size: SymbolSizeTypeTcc::OneBit,
                        symbol_list: symbols.iter().map(|symbol| (symbol & 1).into()).collect(),
                    }),
                    _ => PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                        type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                        symbol_size: SymbolSizeTypeTcc::TwoBit,
                        symbol_list: symbols[..7].iter().map(|symbol| (*symbol).into()).collect(),
                    }),
                })
                .collect();
            let mut theirs = TransportLayerCc {
                sender_ssrc: 1,
                media_ssrc: 2,
                base_sequence_number: base,
                reference_time: reference,
                packet_status_count: u16::MAX,
                packet_chunks,
                ..TransportLayerCc::default()
            };
            let symbols = symbols(&theirs);
            theirs.packet_status_count = symbols.len() as u16;
            theirs.recv_deltas = symbols
                .iter()
                .zip(&ticks)
                .filter_map(|(symbol, (small, large))| match symbol {
                    SymbolTypeTcc::PacketReceivedSmallDelta => Some((*symbol, *small)),
                    SymbolTypeTcc::PacketReceivedLargeDelta => Some((*symbol, *large)),
                    _ => None,
                })
                .map(|(type_tcc_packet, ticks)| RecvDelta { type_tcc_packet, delta: ticks * TICK_US })
                .collect();
            let bytes = theirs.marshal().unwrap();
            prop_assert_eq!(ours(&bytes).arrivals().collect::<Vec<_>>(), meaning(&theirs));
        }
    }

    #[test]
    fn a_count_beyond_reason_is_refused() {
        let run = 0x1fffu16.to_be_bytes();
        let mut packet = vec![0x8f, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0xff, 0xff, 0, 0, 0, 0];
        packet.extend(std::iter::repeat_n(run, 8).flatten());
        assert!(matches!(packets(&packet).next(), Some(Err(RtcpError::FeedbackTooLarge))));
    }

    #[test]
    fn arrivals_without_deltas_are_refused() {
        let packet = [0x8f, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 9, 0, 0, 0, 0, 0x20, 9, 1, 1];
        assert!(matches!(packets(&packet).next(), Some(Err(RtcpError::TooShort))));
    }

    #[test]
    fn an_arrival_eight_seconds_later_needs_another_packet() {
        let mut writer = FeedbackWriter::default();
        writer.start(0, 0);
        assert_eq!(writer.push(Some(0)), Pushed::Taken);
        assert_eq!(writer.push(Some(8_000_000)), Pushed::Taken);
        assert_eq!(writer.push(Some(16_200_000)), Pushed::Full);
    }
}
