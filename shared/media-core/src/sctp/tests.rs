//! Against the same implementation over a bad network, and against a peer that writes its own packets.

use std::time::Duration;

use super::guard::{STREAM_ID_MAX, TSN_WINDOW, WAITING_CHUNKS_MAX};
use super::testing::*;
use super::*;
use crate::testing::Rng;

/// Writes chunks by hand, after an orderly handshake.
struct Attacker {
    now: Instant,
    victim: Sctp,
    /// The victim's verification tag.
    tag: u32,
    next_tsn: u32,
}

const TAG: u32 = 0x00c0_ffee;

impl Attacker {
    fn new() -> Self {
        let now = Instant::now();
        let victim = Sctp::new(now, DtlsRole::Server, false, 65_535, 0).unwrap();
        let mut attacker = Self { now, victim, tag: 0, next_tsn: INITIAL_TSN };
        let answer = attacker.send(&[init(TAG)]).unwrap().1.remove(0);
        attacker.tag = u32::from_be_bytes(answer[16..20].try_into().unwrap());
        let cookie = chunks(&answer).into_iter().find_map(cookie_of).expect("a cookie in the INIT ACK");
        attacker.send(&[chunk(10, 0, &cookie)]).unwrap();
        assert!(attacker.victim.guard.is_established());
        attacker
    }

    /// What the victim dropped and what it answered, in packets.
    fn send(&mut self, chunks: &[Vec<u8>]) -> Result<(Option<DropReason>, Vec<Vec<u8>>), PeerEnd> {
        let packet = packet(self.tag, chunks);
        let dropped = self.victim.receive(self.now, packet)?;
        let mut out = Vec::new();
        while let Some(output) = self.victim.poll() {
            if let SctpOutput::Packet(packet) = output {
                assert!(packet.len() <= PACKET_MAX, "{} bytes", packet.len());
                out.push(packet);
            }
        }
        Ok((dropped, out))
    }

    fn data(&mut self, stream: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let tsn = self.next_tsn;
        self.next_tsn = tsn.wrapping_add(1);
        data_at(tsn, stream, flags, payload)
    }

    fn tick(&mut self) {
        self.now += Duration::from_millis(200);
        self.victim.handle_timeout(self.now).unwrap();
        while self.victim.poll().is_some() {}
    }
}

const BEGINNING: u8 = 2;
const ENDING: u8 = 1;
const UNORDERED: u8 = 4;
const WHOLE: u8 = BEGINNING | ENDING;

fn data_at(tsn: u32, stream: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    data_with(tsn, stream, 0, flags, 53, payload)
}

#[test]
fn a_hand_written_peer_is_served_if_it_behaves() {
    let mut peer = Attacker::new();
    let open = Open::ours(Channel::Reliable).encode();
    let tsn = peer.next_tsn;
    peer.next_tsn = tsn.wrapping_add(1);
    peer.victim.receive(peer.now, packet(peer.tag, &[data_with(tsn, 0, 0, WHOLE, 50, &open)])).unwrap();
    assert!(std::iter::from_fn(|| peer.victim.poll()).any(|output| output == SctpOutput::Open(Channel::Reliable)));
    for n in 0..2_000_u32 {
        let tsn = peer.next_tsn;
        peer.next_tsn = tsn.wrapping_add(1);
        let chunk = data_with(tsn, 0, 1 + n as u16, WHOLE, 53, &n.to_be_bytes());
        assert_eq!(peer.victim.receive(peer.now, packet(peer.tag, &[chunk])), Ok(None));
        let message =
            SctpOutput::Message { channel: Channel::Reliable, payload: Bytes::copy_from_slice(&n.to_be_bytes()) };
        assert!(std::iter::from_fn(|| peer.victim.poll()).any(|output| output == message), "{n}");
    }
}

#[test]
fn a_flood_of_unfinished_fragments_ends_the_association_early() {
    for flags in [0, UNORDERED] {
        let mut attacker = Attacker::new();
        let first = attacker.data(0, flags | BEGINNING, &[1]);
        attacker.send(&[first]).unwrap();
        let mut sent = 0;
        let end = loop {
            let batch: Vec<Vec<u8>> = (0..50).map(|_| attacker.data(0, flags, &[1])).collect();
            match attacker.send(&batch) {
                Ok(_) => sent += batch.len(),
                Err(end) => break end,
            }
            assert!(sent <= WAITING_CHUNKS_MAX, "{sent} fragments");
        };
        assert_eq!(end, PeerEnd::SctpFailed);
    }
}

#[test]
fn repeats_of_what_was_delivered_are_no_reason_to_end() {
    let mut peer = Attacker::new();
    let chunk = peer.data(0, WHOLE, &[1]);
    for n in 0..3 * WAITING_CHUNKS_MAX {
        assert!(peer.send(std::slice::from_ref(&chunk)).is_ok(), "repeat {n}");
    }
}

#[test]
fn a_flood_behind_a_missing_message_ends_the_association_early() {
    let mut attacker = Attacker::new();
    let mut sent = 0_usize;
    let end = loop {
        let batch: Vec<Vec<u8>> = (0..50_u16)
            .map(|n| {
                let tsn = attacker.next_tsn;
                attacker.next_tsn = tsn.wrapping_add(1);
                data_with(tsn, 0, 1 + (sent as u16 + n) % 30_000, WHOLE, 53, &[1])
            })
            .collect();
        match attacker.send(&batch) {
            Ok(_) => sent += batch.len(),
            Err(end) => break end,
        }
        assert!(sent <= WAITING_CHUNKS_MAX);
    };
    assert_eq!(end, PeerEnd::SctpFailed);
}

#[test]
fn a_flood_over_all_streams_reaches_only_those_a_browser_would_use() {
    let mut attacker = Attacker::new();
    for stream in 0..u16::MAX {
        // The same TSN again where it was dropped, as if it were lost.
        let chunk = data_at(attacker.next_tsn, stream, WHOLE | UNORDERED, &[1]);
        let (dropped, _) = attacker.send(&[chunk]).unwrap();
        if stream <= STREAM_ID_MAX {
            assert_eq!(dropped, Some(DropReason::UnknownChannel), "{stream}");
            attacker.next_tsn = attacker.next_tsn.wrapping_add(1);
        } else {
            assert_eq!(dropped, Some(DropReason::SctpGuard), "{stream}");
        }
    }
    let (_, association) = attacker.victim.association.as_ref().unwrap();
    assert_eq!(association.stream_ids().len(), usize::from(STREAM_ID_MAX) + 1);
}

#[test]
fn alternating_tsns_are_taken_to_a_point_and_never_make_a_giant_answer() {
    let mut attacker = Attacker::new();
    let base = attacker.next_tsn;
    let mut taken = 0;
    for n in 1..20_000 {
        // `send` asserts the size of every answer.
        let chunk = data_at(base.wrapping_add(2 * n), 0, WHOLE | UNORDERED, &[1]);
        let (dropped, _) = attacker.send(&[chunk]).unwrap();
        taken += u32::from(dropped != Some(DropReason::SctpGuard));
    }
    assert!((TSN_WINDOW / 2 - 2..=TSN_WINDOW / 2).contains(&taken), "{taken}");
    attacker.tick();
}

#[test]
fn there_is_one_association() {
    let mut attacker = Attacker::new();
    let tag = std::mem::take(&mut attacker.tag);
    for n in 1..2_000 {
        let (dropped, out) = attacker.send(&[init(TAG + n)]).unwrap();
        assert_eq!((dropped, out.len()), (Some(DropReason::SctpGuard), 0));
    }
    attacker.tag = tag;
    let chunk = attacker.data(5, WHOLE, b"?");
    assert_eq!(attacker.send(&[chunk]).unwrap().0, Some(DropReason::UnknownChannel), "and it still lives");
}

#[test]
fn a_repeated_init_is_answered_again_until_the_association_is_up() {
    let now = Instant::now();
    let mut victim = Sctp::new(now, DtlsRole::Server, false, 65_535, 0).unwrap();
    for _ in 0..3 {
        assert_eq!(victim.receive(now, packet(0, &[init(TAG)])), Ok(None));
        assert!(matches!(victim.poll(), Some(SctpOutput::Packet(_))));
        assert_eq!(victim.receive(now, packet(0, &[init(TAG + 1)])), Ok(Some(DropReason::SctpGuard)));
    }
}

#[test]
fn chunks_that_lie_about_their_length_and_random_packets_are_dropped_or_end_it() {
    let seed = 17;
    let mut rng = Rng::new(seed);
    for round in 0..200 {
        let mut attacker = Attacker::new();
        for n in 0..50 {
            let kind = [0, 0, 0, 3, 4, 6, 9, 130, 192, 194, 64, rng.below(256) as u8][rng.below(12) as usize];
            let (length, flags) = (rng.below(60) as usize, rng.below(8) as u8);
            let mut made = chunk(kind, flags, &rng.bytes(length));
            if rng.below(4) == 0 {
                made[2..4].copy_from_slice(&(rng.next() as u16).to_be_bytes());
            }
            if kind == 0 && made.len() >= 10 {
                made[4..8].copy_from_slice(&attacker.next_tsn.to_be_bytes());
                made[8..10].copy_from_slice(&[0, 1]);
            }
            if attacker.send(&[made]).is_err() {
                break;
            }
            // Nothing but the absence of a panic and of a hang is asked of random input.
            assert!(attacker.victim.channels.len() <= CHANNELS_MAX, "seed {seed} round {round} chunk {n}");
        }
    }
}

#[test]
fn a_message_over_the_announced_size_ends_the_association() {
    let mut attacker = Attacker::new();
    let mut end = None;
    for n in 0..70 {
        let flags = if n == 0 { BEGINNING } else { 0 };
        let chunk = attacker.data(0, flags, &[0; 1_000]);
        if let Err(why) = attacker.send(&[chunk]) {
            end = Some((n, why));
            break;
        }
    }
    assert_eq!(end, Some((MESSAGE_BYTES_MAX / 1_000, PeerEnd::SctpFailed)));
}

#[test]
fn an_abort_of_the_peer_closes_the_channels_and_nothing_else() {
    let mut attacker = Attacker::new();
    let open = Open::ours(Channel::Lossy).encode();
    let tsn = attacker.next_tsn;
    attacker.send(&[data_with(tsn, 0, 0, WHOLE, 50, &open)]).unwrap();
    assert_eq!(attacker.victim.send(attacker.now, Channel::Lossy, b"x"), Ok(()));
    attacker.send(&[chunk(6, 0, &[])]).unwrap();
    assert_eq!(attacker.victim.send(attacker.now, Channel::Lossy, b"x"), Err(SendRefused::NotOpen));
    attacker.tick();
}

#[test]
fn channels_we_do_not_know_are_opened_and_their_messages_dropped() {
    let mut attacker = Attacker::new();
    let tsn = attacker.next_tsn;
    let open = b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x04\x00\x00chat";
    let (dropped, out) = attacker.send(&[data_with(tsn, 2, 0, WHOLE, 50, open)]).unwrap();
    assert_eq!(dropped, None);
    assert!(out.iter().flat_map(|packet| chunks(packet)).any(|(kind, value)| kind == 0 && value.ends_with(&dcep::ACK)));
    let message = data_with(tsn.wrapping_add(1), 2, 1, WHOLE, 51, b"hello");
    assert_eq!(attacker.send(&[message]).unwrap().0, Some(DropReason::UnknownChannel));
    let garbage = data_with(tsn.wrapping_add(2), 4, 0, WHOLE, 50, b"\x03\x00");
    assert_eq!(attacker.send(&[garbage]).unwrap().0, Some(DropReason::DcepMalformed));
    let again = data_with(tsn.wrapping_add(3), 2, 2, WHOLE, 50, open);
    assert_eq!(attacker.send(&[again]).unwrap().0, Some(DropReason::DcepMalformed), "that stream is taken");
}

#[test]
fn channels_are_bounded() {
    let mut attacker = Attacker::new();
    let open = Open::ours(Channel::Lossy).encode();
    for stream in 0..200 {
        let tsn = attacker.next_tsn;
        attacker.next_tsn = tsn.wrapping_add(1);
        let (dropped, _) = attacker.send(&[data_with(tsn, stream, 0, WHOLE, 50, &open)]).unwrap();
        let expected = (usize::from(stream) >= CHANNELS_MAX).then_some(DropReason::SctpGuard);
        assert_eq!(dropped, expected, "stream {stream}");
        attacker.tick();
    }
}

/// The implementation does not count padding when it fills a packet.
#[test]
fn packets_full_of_tiny_messages_fit_and_arrive() {
    let now = Instant::now();
    let mut ours = Sctp::new(now, DtlsRole::Server, false, 65_535, 0).unwrap();
    let mut theirs = Sctp::new(now, DtlsRole::Client, true, 65_535, 0).unwrap();
    let mut arrived = 0;
    let mut largest = 0;
    let mut sent = false;
    for _ in 0..1_000 {
        let mut moved = false;
        while let Some(output) = theirs.poll() {
            moved = true;
            match output {
                SctpOutput::Packet(packet) => drop(ours.receive(now, packet).unwrap()),
                SctpOutput::Message { .. } => arrived += 1,
                SctpOutput::Open(_) => {}
            }
        }
        while let Some(output) = ours.poll() {
            moved = true;
            if let SctpOutput::Packet(packet) = output {
                largest = largest.max(packet.len());
                theirs.receive(now, packet).unwrap();
            }
        }
        if !sent && ours.channels.len() == 3 {
            sent = true;
            moved = true;
            for _ in 0..3_000 {
                let (_, association) = ours.association.as_mut().unwrap();
                association.stream(0).unwrap().write_with_ppi(&[1], PayloadProtocolIdentifier::Binary).unwrap();
            }
            ours.transmit(now);
        }
        if !moved {
            break;
        }
    }
    assert_eq!(arrived, 3_000);
    assert!(largest > 1_200 && largest <= PACKET_MAX, "{largest}");
}

/// Two ends on a perfect network of no length.
struct Pair {
    now: Instant,
    ours: Sctp,
    theirs: Sctp,
    received: usize,
    dropped: Vec<DropReason>,
}

impl Pair {
    fn connected(bytes_per_second: u64) -> Self {
        let now = Instant::now();
        let ours = Sctp::new(now, DtlsRole::Server, false, 65_535, bytes_per_second).unwrap();
        let theirs = Sctp::new(now, DtlsRole::Client, true, 65_535, 0).unwrap();
        let mut pair = Self { now, ours, theirs, received: 0, dropped: Vec::new() };
        pair.run(Duration::from_millis(100));
        pair
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(5);
            self.ours.handle_timeout(self.now).unwrap();
            self.theirs.handle_timeout(self.now).unwrap();
            loop {
                let (ours, theirs) = (self.ours.poll(), self.theirs.poll());
                if ours.is_none() && theirs.is_none() {
                    break;
                }
                match ours {
                    Some(SctpOutput::Packet(packet)) => drop(self.theirs.receive(self.now, packet).unwrap()),
                    Some(SctpOutput::Message { payload, .. }) => self.received += payload.len(),
                    Some(SctpOutput::Open(_)) | None => {}
                }
                if let Some(SctpOutput::Packet(packet)) = theirs {
                    self.dropped.extend(self.ours.receive(self.now, packet).unwrap());
                }
            }
        }
    }
}

#[test]
fn reliable_data_beyond_the_allowance_comes_later_and_none_is_lost() {
    let mut pair = Pair::connected(100_000);
    let message = vec![7; 10_000];
    for _ in 0..50 {
        pair.theirs.send(pair.now, Channel::Reliable, &message).unwrap();
    }
    pair.run(Duration::from_secs(1));
    assert!((100_000..250_000).contains(&pair.received), "{}", pair.received);
    pair.run(Duration::from_secs(1));
    assert!((200_000..350_000).contains(&pair.received), "{}", pair.received);
    pair.run(Duration::from_secs(4));
    assert_eq!((pair.received, pair.dropped.len()), (500_000, 0));
}

#[test]
fn lossy_data_beyond_the_allowance_is_dropped_by_name() {
    let mut pair = Pair::connected(100_000);
    let message = vec![7; 10_000];
    for _ in 0..5 {
        for _ in 0..10 {
            pair.theirs.send(pair.now, Channel::Lossy, &message).unwrap();
        }
        pair.run(Duration::from_millis(200));
    }
    assert!((150_000..250_000).contains(&pair.received), "{}", pair.received);
    assert!(!pair.dropped.is_empty() && pair.dropped.iter().all(|why| *why == DropReason::TooMuchData));
}
