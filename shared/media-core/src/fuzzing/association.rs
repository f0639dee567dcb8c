//! A peer that writes its own SCTP after an orderly beginning, and the two messages that open channels.

use std::time::{Duration, Instant};

use super::Tape;
use crate::{
    dtls::DtlsRole,
    sctp::{
        Sctp, SctpOutput,
        testing::{self, INITIAL_TSN, chunk, cookie_of, init, packet},
    },
};

pub(super) fn dcep(message: &[u8]) {
    testing::dcep(message);
}

/// The input is a list of packets, each of so many chunks.
pub(super) fn sctp(input: &[u8]) {
    let mut tape = Tape::new(input);
    let now = Instant::now();
    let allowance = if tape.byte() & 1 == 0 { 0 } else { 100_000 };
    let victim = Sctp::new(now, DtlsRole::Server, true, 65_535, allowance).expect("an endpoint");
    let mut peer = Peer { now, victim, tag: 0, next_tsn: INITIAL_TSN };
    let Some(answer) = peer.send(&[init(TAG)]) else { panic!("an INIT ends nothing") };
    peer.tag = u32::from_be_bytes(*answer[0][16..].first_chunk().expect("an INIT ACK"));
    let cookie = testing::chunks(&answer[0]).into_iter().find_map(cookie_of).expect("a cookie in the INIT ACK");
    peer.send(&[chunk(10, 0, &cookie)]);
    for _ in 0..PACKETS_MAX {
        if tape.is_empty() {
            break;
        }
        let what = tape.byte();
        if what & 0x0f == 0 {
            peer.wait(Duration::from_millis(u64::from(tape.byte()) * 8));
            continue;
        }
        let chunks: Vec<_> = (0..what & 0x07).map(|_| peer.chunk(&mut tape)).collect();
        if peer.send(&chunks).is_none() {
            return;
        }
    }
    peer.wait(Duration::from_secs(60));
}

struct Peer {
    now: Instant,
    victim: Sctp,
    /// The victim's verification tag.
    tag: u32,
    next_tsn: u32,
}

impl Peer {
    fn chunk(&mut self, tape: &mut Tape<'_>) -> Vec<u8> {
        let (kind, flags) = (tape.byte(), tape.byte());
        let lies = flags & 0x80 != 0;
        let mut made = if kind == 0 {
            // Data near the next number, so that it is not only ever far ahead.
            let ahead = u32::from(tape.byte() % 16);
            let tsn = self.next_tsn.wrapping_add(ahead);
            self.next_tsn = self.next_tsn.wrapping_add(u32::from(ahead == 0));
            let (stream, sequence, protocol) = (tape.half(), tape.half(), tape.byte());
            let stream = if stream & 0x8000 == 0 { stream % 8 } else { stream };
            testing::data_with(tsn, stream, sequence, flags & 0x07, u32::from(protocol), tape.bytes())
        } else {
            chunk(kind, flags & 0x07, tape.bytes())
        };
        if lies {
            made[2..4].copy_from_slice(&tape.half().to_be_bytes());
        }
        made
    }

    /// What the victim answered in packets, unless it ended.
    fn send(&mut self, chunks: &[Vec<u8>]) -> Option<Vec<Vec<u8>>> {
        self.victim.receive(self.now, packet(self.tag, chunks)).ok()?;
        Some(self.collect())
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        for turn in 0.. {
            let Some(at) = self.victim.deadline().filter(|at| *at <= end) else { break };
            assert!(turn < TURNS_MAX, "its timer spins");
            self.now = self.now.max(at);
            if self.victim.handle_timeout(self.now).is_err() {
                break;
            }
            self.collect();
        }
        self.now = end;
    }

    fn collect(&mut self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        while let Some(output) = self.victim.poll() {
            match output {
                SctpOutput::Packet(packet) => {
                    assert!(packet.len() <= 1_400, "{} bytes", packet.len());
                    packets.push(packet);
                }
                SctpOutput::Message { payload, .. } => assert!(payload.len() <= crate::MESSAGE_BYTES_MAX),
                SctpOutput::Open(_) => {}
            }
        }
        assert!(packets.len() <= ANSWERS_MAX, "{} answers to one packet", packets.len());
        packets
    }
}

const TAG: u32 = 0x00c0_ffee;
const PACKETS_MAX: usize = 200;
const TURNS_MAX: usize = 10_000;
const ANSWERS_MAX: usize = 1_024;
