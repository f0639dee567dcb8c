//! What stands between an authenticated but hostile peer and the SCTP implementation, whose queues are searched linearly.
//!
//! Reads chunk headers only. Everything it lets through is bounded: which streams exist, how many chunks wait for the rest
//! of their message, how far ahead of the acknowledged a TSN may be, that there is one association.

use super::{PACKET_MAX, RECEIVE_BUFFER_BYTES};

#[derive(Debug)]
pub(super) struct Guard {
    role: Role,
    /// Initiate tag of the one association, if the peer began it.
    association: Option<u32>,
    established: bool,
    /// Highest TSN acknowledged cumulatively, as of our last SACK.
    acknowledged: Option<u32>,
    /// DATA chunks received that are not part of a delivered message. Counts repeats too: emptied whenever our SACK shows
    /// that nothing is waiting.
    waiting: usize,
    peer_is_closing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Accepts,
    Connects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    /// No sender with good intentions comes here.
    End,
}

impl Guard {
    pub fn new(role: Role) -> Self {
        Self { role, association: None, established: false, acknowledged: None, waiting: 0, peer_is_closing: false }
    }

    pub fn established(&mut self) {
        self.established = true;
    }

    pub fn delivered(&mut self, chunks: usize) {
        self.waiting = self.waiting.saturating_sub(chunks);
    }

    /// Whether the peer has ended the association itself.
    pub fn peer_is_closing(&self) -> bool {
        self.peer_is_closing
    }

    pub fn inbound(&mut self, packet: &[u8]) -> Verdict {
        let mut chunks = Chunks::of(packet);
        let mut data_chunks: usize = 0;
        for chunk in &mut chunks {
            match chunk.kind {
                INIT if !self.admits_association(&chunk) => return Verdict::Drop,
                INIT | INIT_ACK => {
                    // A repeated INIT of ours may be answered with another TSN; the first answer is the one that counts
                    // (RFC 9260 section 5.2.3).
                    if self.acknowledged.is_none()
                        && let Some(initial_tsn) = chunk.word(12)
                    {
                        self.acknowledged = Some(initial_tsn.wrapping_sub(1));
                    }
                }
                DATA => {
                    let (Some(tsn), Some(stream)) = (chunk.word(0), chunk.half(4)) else { return Verdict::Drop };
                    if stream > STREAM_ID_MAX || chunk.value.len() <= DATA_HEADER_BYTES || self.is_far_ahead(tsn) {
                        return Verdict::Drop;
                    }
                    data_chunks = data_chunks.saturating_add(1);
                }
                // Never negotiated (RFC 8260).
                I_DATA | I_FORWARD_TSN => return Verdict::Drop,
                ABORT | SHUTDOWN | SHUTDOWN_ACK | SHUTDOWN_COMPLETE => self.peer_is_closing = true,
                _ => {}
            }
        }
        if !chunks.rest.is_empty() {
            return Verdict::Drop;
        }
        self.waiting = self.waiting.saturating_add(data_chunks);
        if self.waiting > WAITING_CHUNKS_MAX { Verdict::End } else { Verdict::Pass }
    }

    /// Whether a packet of ours may leave. One that is too large answers something no client sends.
    pub fn outbound(&mut self, packet: &[u8]) -> bool {
        for chunk in Chunks::of(packet).filter(|chunk| chunk.kind == SACK) {
            self.acknowledged = chunk.word(0).or(self.acknowledged);
            if chunk.word(4).is_some_and(|window| window >= RECEIVE_BUFFER_BYTES) {
                self.waiting = 0;
            }
        }
        packet.len() <= PACKET_MAX
    }

    fn admits_association(&mut self, init: &Chunk<'_>) -> bool {
        // Both ends may begin (RFC 9260 section 5.2.1). Where we began, the peer answers our INIT and needs no reply to its
        // own.
        if self.role == Role::Connects || self.established {
            return false;
        }
        let Some(tag) = init.word(0) else { return false };
        *self.association.get_or_insert(tag) == tag
    }

    fn is_far_ahead(&self, tsn: u32) -> bool {
        self.acknowledged.is_some_and(|acknowledged| (TSN_WINDOW..1 << 31).contains(&tsn.wrapping_sub(acknowledged)))
    }
}

#[cfg(test)]
impl Guard {
    pub fn is_established(&self) -> bool {
        self.established
    }
}

#[derive(Debug, Clone, Copy)]
struct Chunk<'a> {
    kind: u8,
    value: &'a [u8],
}

impl Chunk<'_> {
    fn word(&self, at: usize) -> Option<u32> {
        self.value.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    fn half(&self, at: usize) -> Option<u16> {
        self.value.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
    }
}

/// The chunks of a packet (RFC 9260 section 3.2); stops at the first that is none, with `rest` not empty.
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Chunks<'a> {
    fn of(packet: &'a [u8]) -> Self {
        // A packet shorter than its common header holds one chunk that is none.
        Self { rest: packet.get(COMMON_HEADER_BYTES..).unwrap_or(&[0]) }
    }
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let [kind, _flags, l0, l1] = *self.rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = self.rest.get(4..length)?;
        // The last chunk may come without its padding.
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Chunk { kind, value })
    }
}

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const SHUTDOWN_COMPLETE: u8 = 14;
const I_DATA: u8 = 64;
const I_FORWARD_TSN: u8 = 194;

const COMMON_HEADER_BYTES: usize = 12;
/// TSN, stream, sequence and payload protocol, without the chunk header.
const DATA_HEADER_BYTES: usize = 12;
/// A browser has at most this many channels; each stream that is named costs memory.
pub(super) const STREAM_ID_MAX: u16 = 1_023;
/// A full receive buffer of chunks of 256 bytes. Honest senders fill datagrams when they send that much.
pub(super) const WAITING_CHUNKS_MAX: usize = 4_096;
/// Further ahead than a full receive buffer of small chunks: it could only be answered with a list of gaps.
pub(super) const TSN_WINDOW: u32 = 4_096;
