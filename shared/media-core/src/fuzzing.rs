//! One function for each parser that meets the network: `shared/fuzz` makes up their input, the tests below replay what
//! was found. They live here so that a change that breaks them does not build.
//!
//! A target panics when something is wrong and is quiet otherwise. To add one: a function and its line in [`TARGETS`],
//! and a first input in `shared/fuzz/corpus/<name>/`.
#![allow(clippy::disallowed_methods, reason = "one reading of the clock starts virtual time")]

mod association;
mod description;
mod handshake;
mod link;
mod whole_router;

use crate::{
    demux::{classify, local_ufrag},
    rtcp::{FeedbackWriter, Packet, Pushed, packets},
    rtp::{
        Codec, Header,
        dependency::{Change, EXTENSION_BYTES_MAX, Mandatory, Structure},
        picture::{Descriptor, Shift},
        red,
        trailer::Cut,
    },
    srtp::{Keys, Profile},
    stun,
};

/// What is done with an input.
pub type Body = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: &[(&str, Body)] = &[
    ("stun", stun),
    ("rtp", rtp),
    ("vp8", |input| picture(Codec::Vp8, input)),
    ("vp9", |input| picture(Codec::Vp9, input)),
    ("h264", |payload| inspect(Codec::H264, payload)),
    ("av1", |payload| inspect(Codec::Av1, payload)),
    ("dependency", dependency),
    ("red", redundancy),
    ("trailer", trailer),
    ("rtcp", rtcp),
    ("twcc", twcc),
    ("srtp", srtp),
    ("dtls", handshake::dtls),
    ("sctp", association::sctp),
    ("dcep", association::dcep),
    ("sdp", description::sdp),
    ("router", whole_router::router),
    ("link", link::link),
];

/// Decisions read off the front of an input. What is not there reads as zero.
#[derive(Debug)]
struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn half(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn word(&mut self) -> u32 {
        u32::from(self.half()) << 16 | u32::from(self.half())
    }

    /// As many bytes as the next two say.
    fn bytes(&mut self) -> &'a [u8] {
        let count = usize::from(self.half());
        self.take(count)
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}

fn stun(datagram: &[u8]) {
    classify(datagram);
    local_ufrag(datagram);
    let Ok(message) = stun::Message::parse(datagram) else { return };
    let key = stun::key("a password of some length");
    message.is_authentic(&key);
    // What it would be answered with, were it authentic.
    let from = "[2001:db8::1]:9".parse().unwrap();
    let mut answers = vec![message.success(from, &key)];
    answers.extend(message.unknown().map(|unknown| message.refuse_unknown(unknown, &key)));
    for answer in answers {
        let answer = stun::Message::parse(&answer).expect("what we write can be read");
        assert!(answer.is_authentic(&key));
    }
}

fn rtp(packet: &[u8]) {
    let sealed = Header::parse_sealed(packet);
    let Ok(header) = Header::parse(packet) else { return };
    let sealed = sealed.expect("padding is all that is judged later");
    assert_eq!(sealed.header_bytes(), header.header_bytes());
    let payload = header.payload();
    assert!(payload.start <= payload.end && payload.end <= packet.len());
    assert_eq!(header.payload_of(packet).len(), payload.len());
    for id in 0..=u8::MAX {
        header.extension(packet, id);
        header.text(packet, id);
        header.audio_level(packet, id);
        header.transport_sequence(packet, id);
    }
    inspect(Codec::Vp8, header.payload_of(packet));
}

/// The first four bytes say by how much the counters are moved.
fn picture(codec: Codec, input: &[u8]) {
    let mut tape = Tape::new(input);
    let shift = Shift { picture_id: tape.half(), base_layer_index: tape.byte(), key_index: tape.byte() };
    let payload = tape.rest;
    let keyframe = codec.inspect(payload).keyframe;
    let Some(descriptor) = codec.descriptor(payload) else { return };
    if let Descriptor::Vp9(descriptor) = descriptor {
        assert!(descriptor.references.iter().count() <= 3);
        assert!(descriptor.structure.is_none_or(|structure| structure.sizes().count() <= 8));
    }
    let mut moved = payload.to_vec();
    descriptor.rewrite(&mut moved, shift);
    let again = codec.descriptor(&moved).expect("a rewritten descriptor is one");
    assert_eq!(codec.inspect(&moved).keyframe, keyframe);
    assert_eq!(again.picture_id().map(|id| id.width), descriptor.picture_id().map(|id| id.width));
    assert_eq!(again.picture_id().map(|id| id.value), descriptor.picture_id().map(|id| id.shifted(shift.picture_id)));
}

/// After the layers to keep and what to add to frame numbers: a descriptor that may bring a structure, its length before
/// it, and one that is read by that structure.
fn dependency(input: &[u8]) {
    let mut tape = Tape::new(input);
    let (spatial, temporal, frame_number) = (tape.byte(), tape.byte(), tape.half());
    let (first, second) = (tape.bytes(), tape.rest);
    let Some(Some(structure)) = Structure::of(first) else { return };
    assert!(structure.sizes().count() <= 4);
    let change = Change { frame_number, active: structure.active_up_to(spatial, temporal) };
    for data in [first, second] {
        let Some(mandatory) = Mandatory::parse(data) else { continue };
        let described = structure.describe(&mandatory, data);
        let mut room = [0; EXTENSION_BYTES_MAX];
        let written = change.apply(data, &mut room);
        let again = Mandatory::parse(written).expect("what we write can be read");
        let Some(before) = described else { continue };
        let after = structure.describe(&again, written).expect("what we write can be read");
        assert_eq!((after.spatial, after.temporal, after.needs), (before.spatial, before.temporal, before.needs));
        assert_eq!((after.present, after.switch), (before.present, before.switch));
    }
}

fn redundancy(payload: &[u8]) {
    let primary = red::primary(payload);
    assert!(primary.is_none_or(|primary| primary.len() < payload.len()));
    let mut renamed = payload.to_vec();
    red::set_payload_types(&mut renamed, 111);
    assert_eq!(red::primary(&renamed), primary);
}

/// The first byte chooses the codec, the rest is a payload that may end in a trailer.
fn trailer(input: &[u8]) {
    let mut tape = Tape::new(input);
    let codec = [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1, Codec::Audio][usize::from(tape.byte() % 5)];
    let payload = tape.rest;
    let cut = Cut::of(codec, payload);
    assert!(payload.starts_with(cut.bytes) && payload.len() - cut.bytes.len() <= usize::from(u8::MAX));
    assert!(payload.is_empty() || !cut.bytes.is_empty());
    let mut copy = cut.bytes.to_vec();
    cut.correct(&mut copy);
    assert_eq!(copy.len(), cut.bytes.len());
    if codec == Codec::H264 {
        assert_eq!(codec.inspect(&copy).keyframe, codec.inspect(payload).keyframe, "units are where they were");
    } else {
        assert_eq!(copy, cut.bytes);
    }
}

fn inspect(codec: Codec, payload: &[u8]) {
    codec.inspect(payload);
}

fn rtcp(datagram: &[u8]) {
    for packet in packets(datagram).flatten() {
        let (said, at_most) = match packet {
            Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks } => (blocks.count(), 31),
            // Seventeen numbers in each four bytes.
            Packet::Nack { lost, .. } => (lost.count(), datagram.len() / 4 * 17),
            Packet::FullIntra { ssrcs } => (ssrcs.count(), datagram.len() / 8),
            Packet::TransportFeedback(feedback) => (feedback.arrivals().count(), usize::from(u16::MAX)),
            Packet::PictureLoss { .. } | Packet::MaximumBitrate { .. } | Packet::Goodbye | Packet::Other => (0, 0),
        };
        assert!(said <= at_most, "{said} things said in {} bytes", datagram.len());
    }
}

/// The input is the body of a feedback packet, and then decisions about one that we write.
fn twcc(input: &[u8]) {
    let mut body = input.to_vec();
    body.truncate(4 * usize::from(u16::MAX) - 16);
    body.resize(body.len().next_multiple_of(4), 0);
    let words = u16::try_from(body.len() / 4 + 2).expect("it was truncated");
    let mut packet = vec![0x8f, 205];
    packet.extend_from_slice(&words.to_be_bytes());
    packet.extend_from_slice(&[0; 8]);
    packet.extend_from_slice(&body);
    rtcp(&packet);

    let mut tape = Tape::new(input);
    let mut writer = FeedbackWriter::default();
    let (base, mut at_us) = (tape.half(), i64::from(tape.word()));
    writer.start(base, at_us);
    let mut pushed: u16 = 0;
    while !tape.is_empty() {
        let gap = i64::from(i16::from_be_bytes(tape.half().to_be_bytes()));
        at_us = at_us.saturating_add(gap * 250).max(0);
        if writer.push((gap != 0).then_some(at_us)) == Pushed::Full {
            break;
        }
        pushed += 1;
    }
    let mut written = Vec::new();
    writer.write(&mut written, 1, 2, 3);
    assert!(written.len() < 1_400, "{} bytes", written.len());
    if pushed > 0 {
        let Some(Ok(Packet::TransportFeedback(feedback))) = packets(&written).next() else {
            panic!("what we write can be read")
        };
        assert_eq!(feedback.arrivals().map(|arrival| arrival.sequence).next(), Some(base));
        assert_eq!(feedback.arrivals().count(), usize::from(pushed));
    }
}

/// The first byte chooses cipher and protocol, the rest is a datagram.
fn srtp(input: &[u8]) {
    let mut tape = Tape::new(input);
    let choice = tape.byte();
    let profile = [Profile::Aes256Gcm, Profile::Aes128Gcm, Profile::Aes128CmSha1][usize::from(choice % 3)];
    let now = std::time::Instant::now();
    let mut keys = Keys::from_dtls(profile, &[7; 128], crate::dtls::DtlsRole::Server).expect("enough material");
    let mut datagram = tape.rest.to_vec();
    // Both directions have the same keys, so that what was sealed can be opened.
    let (sealed, opened) = if choice & 0x80 == 0 {
        let header = Header::parse_sealed(&datagram);
        let sealed = header.is_ok_and(|header| keys.seal_rtp(0, header.header_bytes(), &mut datagram, 0).is_ok());
        (sealed, keys.open_rtp(now, &mut datagram))
    } else {
        (keys.seal_rtcp(&mut datagram, 0).is_ok(), keys.open_rtcp(now, &mut datagram))
    };
    assert_eq!(opened.ok().as_deref(), sealed.then_some(tape.rest));
}

#[cfg(test)]
#[allow(clippy::print_stderr, reason = "the input is shown when the test fails")]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_kept_input_is_quiet() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            target(&[]);
            let kept = std::fs::read_dir(corpora.join(name)).unwrap_or_else(|error| panic!("corpus {name}: {error}"));
            let mut kept: Vec<_> = kept.map(|entry| entry.unwrap().path()).collect();
            kept.sort();
            assert!(!kept.is_empty(), "{name} has a first input");
            for path in kept {
                eprintln!("{}", path.display());
                target(&std::fs::read(&path).unwrap());
            }
        }
    }
}
