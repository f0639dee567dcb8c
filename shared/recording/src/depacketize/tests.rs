use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{
    continuity::PictureId,
    testing::{AV1C, AVCC, Picture, SIZE, Sender, VIDEO, hex, start},
};

/// Feeds payloads, each with its timestamp and marker; `None` is a loss.
fn depacketized(codec: Codec, packets: &[Option<(u32, bool, &[u8])>]) -> Vec<Result<Whole, GapReason>> {
    let mut depacketizer = Depacketizer::new(codec);
    let received = start();
    let mut frames = Vec::new();
    for packet in packets {
        match *packet {
            Some((timestamp, marker, payload)) => {
                let payload = Bytes::copy_from_slice(payload);
                depacketizer.push(&Packet { ssrc: 1, sequence: 0, timestamp, marker, payload, received });
            }
            None => depacketizer.lost(),
        }
        frames.extend(std::iter::from_fn(|| depacketizer.pop()));
    }
    depacketizer.end();
    frames.extend(std::iter::from_fn(|| depacketizer.pop()));
    frames
}

/// Payloads of one frame.
fn one(codec: Codec, payloads: &[&[u8]]) -> Result<Whole, GapReason> {
    let last = payloads.len() - 1;
    let packets: Vec<_> = payloads.iter().enumerate().map(|(at, &payload)| Some((0, at == last, payload))).collect();
    let mut frames = depacketized(codec, &packets);
    assert_eq!(frames.len(), 1, "{payloads:02x?}");
    frames.remove(0)
}

fn malformed(malformed: Malformed) -> GapReason {
    GapReason::Malformed(malformed)
}

const VP8_KEY: [u8; 11] = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x42, 0x01, 0xb6, 0x00, 0xee];
const VP9_KEY: [u8; 10] = [0x82, 0x49, 0x83, 0x42, 0x20, 0x14, 0x10, 0x0b, 0x50, 0xee];
const IDR: [u8; 4] = [0x65, 0x88, 0x84, 0];

fn with(head: &[u8], tail: &[u8]) -> Vec<u8> {
    [head, tail].concat()
}

/// SPS and PPS together.
fn parameter_sets() -> Vec<u8> {
    let (sps, pps) = (hex(crate::testing::SPS), hex(crate::testing::PPS));
    [&[0x78, 0, sps.len() as u8], &sps[..], &[0, pps.len() as u8], &pps].concat()
}

#[test]
fn opus_packets_are_frames() {
    let frames = depacketized(
        Codec::Opus,
        &[Some((0, true, &[0xfc, 1])), None, Some((960, false, &[0x78])), Some((9, false, &[0x7b]))],
    );
    let data: Vec<_> = frames.iter().map(|frame| frame.as_ref().map(|frame| frame.data.to_vec())).collect();
    assert_eq!(data, [Ok(vec![0xfc, 1]), Ok(vec![0x78]), Err(&malformed(Malformed::OpusFrames))]);
    assert!(frames[0].as_ref().unwrap().is_key);
}

#[test]
fn every_field_of_a_vp8_descriptor_is_read() {
    let place = Place { picture: Some(PictureId { value: 0x1234, bits: 15 }), ..Place::default() };
    for (descriptor, expected) in [
        (&[0x10][..], Place::default()),
        (&[0x90, 0x80, 0x92, 0x34], place),
        (&[0x90, 0x80, 0x12], Place { picture: Some(PictureId { value: 0x12, bits: 7 }), ..Place::default() }),
        (
            &[0x90, 0xf0, 0x92, 0x34, 0x56, 0b1010_0011],
            Place { base_index: Some(0x56), temporal: 2, needs_base_only: true, ..place },
        ),
        // KEYIDX alone: the rest of the byte says nothing.
        (&[0x90, 0x10, 0b1110_0011], Place::default()),
    ] {
        let frame = one(Codec::Vp8, &[&with(descriptor, &VP8_KEY)]).unwrap();
        assert_eq!((frame.place, frame.is_key, frame.size), (expected, true, Some(SIZE)), "{descriptor:02x?}");
        assert_eq!(frame.data, VP8_KEY[..]);
        for length in 1..descriptor.len() {
            assert!(one(Codec::Vp8, &[&descriptor[..length]]).is_err());
        }
    }
}

#[test]
fn vp8_frames_end_where_they_end() {
    let first = with(&[0x10], &VP8_KEY);
    let frames = depacketized(
        Codec::Vp8,
        &[Some((0, false, &first)), Some((0, true, &[0x00, 1])), Some((9, true, &[0x10, 0x11, 2, 3]))],
    );
    assert_eq!(frames[0].as_ref().unwrap().data, with(&VP8_KEY, &[1]));
    let frame = frames[1].as_ref().unwrap();
    assert_eq!((frame.is_key, frame.size, &frame.data[..], frame.timestamp), (false, None, &[0x11, 2, 3][..], 9));
}

#[test]
fn key_frames_without_their_header_are_refused() {
    let wrong = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2b, 0x42, 0x01, 0xb6, 0x00];
    assert_eq!(one(Codec::Vp8, &[&wrong]), Err(malformed(Malformed::KeyHeader)));
    let nothing = [0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0, 0, 0xb6, 0x00];
    assert_eq!(one(Codec::Vp8, &[&nothing]), Err(malformed(Malformed::KeyHeader)));
    assert_eq!(one(Codec::Vp8, &[&[0x10, 0x11]]), Err(malformed(Malformed::Truncated)));
    for wrong in [&[0x08, 0x82, 0x49, 0x83, 0x43][..], &[0x08, 0x42], &[0x08, 0x82, 0x49]] {
        assert_eq!(one(Codec::Vp9, &[wrong]), Err(malformed(Malformed::KeyHeader)), "{wrong:02x?}");
    }
}

#[test]
fn pictures_that_no_decoder_should_make_room_for_are_refused() {
    // A key frame's payload with these sides.
    let vp8 = |width: u16, height: u16| {
        let ([left, right], [top, bottom]) = (width.to_le_bytes(), height.to_le_bytes());
        vec![0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, left, right, top, bottom, 0xee]
    };
    let vp9 = |width: u16, height: u16| {
        let sides = u64::from(width - 1) << 20 | u64::from(height - 1) << 4 | 2 << 36;
        with(&[0x0c, 0x82, 0x49, 0x83, 0x42], &sides.to_be_bytes()[3..])
    };
    let av1 = |width: u16, height: u16| {
        // A sequence header with a reduced picture header, both sides in 16 bits; then the picture.
        let header = 1u128 << 123 | 0xff << 110 | u128::from(width - 1) << 94 | u128::from(height - 1) << 78;
        [&[0x28, 17, 0x08], &header.to_be_bytes()[..], &[0x30, 0, 0]].concat()
    };
    for (width, height, fits) in
        [(8192, 4320, true), (4320, 8192, true), (8192, 4321, false), (8193, 16, false), (16, 8193, false)]
    {
        for (codec, payload) in
            [(Codec::Vp8, vp8(width, height)), (Codec::Vp9, vp9(width, height)), (Codec::Av1, av1(width, height))]
        {
            let size = one(codec, &[&payload]).map(|frame| frame.size);
            let read = Some(Size { width: width.into(), height: height.into() });
            let expected = if fits { Ok(read) } else { Err(malformed(Malformed::PictureTooLarge)) };
            assert_eq!(size, expected, "{codec:?} {width}×{height}");
        }
    }
    // A layer of 65535×182, of which the lowest does not tell.
    let layers = with(&[0b1010_1110, 5, 0x00, 1, 0b0011_0000, 0, 161, 0, 91, 0xff, 0xff, 0, 182], &VP9_KEY);
    assert_eq!(one(Codec::Vp9, &[&layers]), Err(malformed(Malformed::PictureTooLarge)));
    for (sequence, fits) in [
        ("67420034da002000087640", true),
        ("67420034da004380100640", true),
        ("67420034da002000087e40", false),
        ("67420034da00201e40", false),
        // 8208×4336, of which all but 16×16 is cropped.
        ("67420034da002010087f80040060021c50", false),
    ] {
        let frame = one(Codec::H264, &[&hex(sequence), &hex("68cb83cb20"), &IDR]);
        assert_eq!(frame.err(), (!fits).then(|| malformed(Malformed::PictureTooLarge)), "{sequence}");
    }
}

#[test]
fn real_key_frames_of_vp9_have_their_size() {
    for (profile, head) in [
        (0, "824983420014100b560638241c"),
        (1, "a2498342000282016ac0c70483"),
        (2, "92498342000a0805ab031c120e"),
        // RGB.
        (1, "a2498342e014100b560838241c"),
    ] {
        let frame = one(Codec::Vp9, &[&with(&[0x0c], &hex(head))]).unwrap();
        assert_eq!((frame.is_key, frame.size), (true, Some(SIZE)), "profile {profile}");
    }
}

#[test]
fn layers_of_a_vp9_picture_are_one_block_with_an_index() {
    // I, L, B, V; picture 5; TID 0, SID 0; TL0PICIDX; two layers of 161×91 and 322×182.
    let lowest = with(&[0b1010_1010, 5, 0x00, 1, 0b0011_0000, 0, 161, 0, 91, 1, 66, 0, 182], &VP9_KEY);
    // I, L, B: SID 1, which depends on SID 0; then its end.
    let upper = [0b1010_1000, 5, 0x03, 1, 0x86, 0x07];
    let upper_end = [0b1010_0100, 5, 0x03, 1, 0x09];
    let frame = one(Codec::Vp9, &[&lowest, &upper, &upper_end]).unwrap();
    let index = [0xd9, VP9_KEY.len() as u8, 0, 0, 0, 3, 0, 0, 0, 0xd9];
    assert_eq!(frame.data, [&VP9_KEY[..], &[0x86, 0x07, 0x09], &index].concat());
    assert_eq!((frame.is_key, frame.size), (true, Some(SIZE)));
    assert_eq!(frame.place.base_index, Some(1));
}

#[test]
fn a_vp9_picture_does_not_begin_with_its_second_layer() {
    let upper = [0b1110_1100, 5, 0x03, 1, 0x86, 0x07];
    let lowest = with(&[0b1010_1100, 5, 0x00, 1], &VP9_KEY);
    let frames = depacketized(Codec::Vp9, &[Some((0, true, &lowest)), None, Some((9, true, &upper))]);
    assert!(frames[0].is_ok());
    assert_eq!(frames[1], Err(GapReason::PacketsLost));
    // Where it is the only one that is sent, it does.
    let alone = with(&[0b1010_1100, 5, 0x04, 1], &VP9_KEY);
    let inter = [0b1110_1100, 5, 0x04, 1, 0x86, 0x07];
    let frames = depacketized(Codec::Vp9, &[Some((0, true, &alone)), None, Some((9, true, &inter))]);
    assert!(frames.iter().all(Result::is_ok));
}

#[test]
fn references_of_vp9_are_those_of_all_layers() {
    // I, P, L, F, B, E; SID 0: back by 1 and 3; SID 1: back by 2.
    let lowest = [0b1111_1100, 5, 0x00, 0b0000_0011, 0b0000_0110, 0x86, 1];
    let upper = [0b1111_1100, 5, 0x03, 0b0000_0100, 0x86, 2];
    let frame = one(Codec::Vp9, &[&lowest, &upper]).unwrap();
    assert_eq!((frame.place.references, frame.place.base_index), (Some(0b1110), None));
    let three = [0b1111_1100, 5, 0x00, 0b0000_0011, 0b0000_0111, 0b0000_1000, 0x86, 1];
    assert_eq!(one(Codec::Vp9, &[&three]).unwrap().place.references, Some(0b1_1010));
    let four = [0b1111_1100, 5, 0x00, 0b0000_0011, 0b0000_0111, 0b0000_1001, 0b0000_1010, 0x86, 1];
    assert!(one(Codec::Vp9, &[&four]).is_err());
}

#[test]
fn h264_units_stand_behind_their_lengths() {
    let (sps, pps) = (hex(crate::testing::SPS), hex(crate::testing::PPS));
    let frame = one(
        Codec::H264,
        &[
            &[0x09, 0xf0],
            &parameter_sets(),
            &[0x06, 5, 1, 9, 0x80],
            &[0x7c, 0x85, 0x88, 1],
            &[0x7c, 0x05, 2],
            &[0x7c, 0x45, 3],
        ],
    )
    .unwrap();
    let expected = [
        &[0, 0, 0, sps.len() as u8][..],
        &sps,
        &[0, 0, 0, pps.len() as u8],
        &pps,
        &[0, 0, 0, 5, 0x06, 5, 1, 9, 0x80],
        &[0, 0, 0, 5, 0x65, 0x88, 1, 2, 3],
    ];
    assert_eq!(frame.data, expected.concat());
    assert_eq!((frame.is_key, frame.size, frame.codec_private), (true, Some(SIZE), Some(hex(AVCC).into())));
}

#[test]
fn interleaving_and_nonsense_in_h264_are_refused_by_name() {
    for (payloads, expected) in [
        (&[&[0x19, 0, 0, 0, 1, 0x41][..]][..], Malformed::StapB),
        (&[&[0x1a, 0]], Malformed::Mtap16),
        (&[&[0x1b, 0]], Malformed::Mtap24),
        (&[&[0x1d, 0x81, 0]], Malformed::FuB),
        (&[&[0x1e]], Malformed::NalType(30)),
        (&[&[0x00, 1]], Malformed::NalType(0)),
        (&[&[0x18]], Malformed::EmptyUnit),
        (&[&[0x18, 0, 2, 0x67]], Malformed::Truncated),
        // Bytes that made a public depacketiser panic.
        (&[&[0x18, 0x00, 0x01, 0x67, 0x00]], Malformed::Truncated),
        (&[&[0x18, 0x00, 0x01, 0x06, 0x00]], Malformed::Truncated),
        (&[&[0x18, 0x00, 0x00, 0x00, 0x00]], Malformed::EmptyUnit),
        (&[&[0x18, 0x00, 0x02, 0x78, 0x00]], Malformed::NalType(24)),
        (&[&[0x7c, 0x81, 0x80], &[0x41, 0x80]], Malformed::FragmentNotEnded),
        (&[&[0x7c, 0x81, 0x80], &[0x7c, 0x81, 0x80]], Malformed::FragmentNotEnded),
        (&[&[0x7c, 0x81, 0x80]], Malformed::FragmentNotEnded),
        (&[&[0x41, 0x80], &[0x7c, 0x01, 0x80]], Malformed::FragmentNotBegun),
        (&[&[0x41, 0x80], &[0x7c]], Malformed::Truncated),
        (&[&[0x06, 0x80], &[0x7c, 0x9c, 0x80]], Malformed::NalType(28)),
    ] {
        // A frame first, so that nothing counts as lost.
        let packets = std::iter::once(Some((1, true, &[0x41, 0x80][..])));
        let packets = packets.chain(payloads.iter().map(|&payload| Some((2, false, payload))));
        let packets: Vec<_> = packets.chain([Some((3, true, &[0x41, 0x80][..]))]).collect();
        let frames = depacketized(Codec::H264, &packets);
        assert_eq!(frames[1], Err(malformed(expected)), "{payloads:02x?}");
    }
}

#[test]
fn frames_end_when_the_timestamp_changes_too() {
    let slices =
        [Some((0, false, &[0x41, 0x80][..])), Some((0, false, &[0x41, 0x40])), Some((9, false, &[0x41, 0x81]))];
    let frames = depacketized(Codec::H264, &slices);
    assert_eq!(frames[0].as_ref().unwrap().data, [0, 0, 0, 2, 0x41, 0x80, 0, 0, 0, 2, 0x41, 0x40][..]);
    assert_eq!(frames[1], Err(GapReason::PacketsLost), "more of it may have been sent");
}

#[test]
fn parameter_sets_sent_ahead_stand_before_their_frame() {
    let frames = depacketized(Codec::H264, &[Some((0, true, &parameter_sets())), Some((9, true, &IDR))]);
    let [Ok(frame)] = &frames[..] else { panic!("{frames:?}") };
    assert!(frame.is_key && frame.codec_private.is_some() && frame.data.len() == 4 + 27 + 4 + 6 + 4 + 4);
    let endless: Vec<_> = (0..200u32).map(|at| Some((at, true, &[0x06, 5, 1, 9, 0x80][..]))).collect();
    let frames = depacketized(Codec::H264, &[&endless[..], &[Some((999, true, &[0x41, 0x80]))]].concat());
    let [Ok(_)] = &frames[..] else { panic!("{frames:?}") };
    let endless: Vec<_> = (0..500u32).map(|at| Some((at, true, &[0x06, 5, 1, 9, 0x80][..]))).collect();
    assert_eq!(depacketized(Codec::H264, &endless)[0], Err(malformed(Malformed::NoPicture)));
}

#[test]
fn an_idr_picture_is_a_key_frame_if_its_parameter_sets_are_there() {
    let is_key = |packets: &[Option<(u32, bool, &[u8])>]| {
        depacketized(Codec::H264, packets).last().unwrap().as_ref().unwrap().is_key
    };
    let sets = parameter_sets();
    assert!(!is_key(&[Some((0, true, &IDR))]), "none came yet");
    let first = [Some((0, false, &sets[..])), Some((0, true, &IDR[..]))];
    assert!(is_key(&first));
    assert!(is_key(&[&first[..], &[Some((1, true, &IDR))]].concat()), "sent once for all");
    assert!(!is_key(&[&first[..], &[None, Some((1, true, &IDR))]].concat()), "they may have been new and lost");
    let seldom = [&first[..], &[Some((1, true, &IDR)), None, Some((2, true, &IDR))]].concat();
    assert!(is_key(&seldom), "this sender sends them once");
}

#[test]
fn av1_units_have_their_sizes_and_only_those_that_belong() {
    // W 0, N: temporal delimiter, sequence header, padding, tile list, and the first part of a frame.
    let header = hex(crate::testing::SEQUENCE_HEADER);
    let first =
        [&[0x48][..], &[1, 0x10], &[header.len() as u8], &header, &[2, 0x78, 9], &[2, 0x40, 9], &[3, 0x30, 0x10, 1]]
            .concat();
    // Z, W 1: its rest.
    let frame = one(Codec::Av1, &[&first, &[0x90, 2, 3]]).unwrap();
    assert_eq!(frame.data, [&hex("0a0b")[..], &header[1..], &[0x32, 4, 0x10, 1, 2, 3]].concat());
    assert_eq!((frame.is_key, frame.size, frame.codec_private), (true, Some(SIZE), Some(hex(AV1C).into())));
}

#[test]
fn nonsense_in_av1_is_refused_by_name() {
    for (payloads, expected) in [
        (&[&[0x10, 0x30, 0x30][..], &[0x90, 1]][..], Malformed::FragmentNotBegun),
        (&[&[0x50, 0x30, 0x30], &[0x10, 1]], Malformed::FragmentNotEnded),
        (&[&[0x50, 0x30, 0x30]], Malformed::FragmentNotEnded),
        (&[&[0x00, 0x05, 0x30]], Malformed::Truncated),
        (&[&[0x20, 0x02, 0x30, 0x30]], Malformed::Truncated),
        (&[&[0x00, 0x80]], Malformed::Truncated),
        (&[&[0x00, 0x00]], Malformed::EmptyUnit),
        (&[&[0x10, 0x34]], Malformed::Truncated),
        (&[&[0x10, 0x32, 5, 1]], Malformed::Truncated),
        (&[&[0x10, 0x08, 0x00]], Malformed::ParameterSet),
        (&[&[0x10, 0x20, 0x00]], Malformed::NotAStart),
        // Bytes that made a public depacketiser panic.
        (&[&[0x17, 0x5f]], Malformed::Truncated),
        (&[&[0x90, 0x30, 0x30]], Malformed::NotAStart),
    ] {
        let packets = std::iter::once(Some((1, true, &[0x18, 0x30, 0x30][..])));
        let packets = packets.chain(payloads.iter().map(|&payload| Some((2, false, payload))));
        let packets: Vec<_> = packets.chain([Some((3, true, &[0x10, 0x30, 0x30][..]))]).collect();
        assert_eq!(depacketized(Codec::Av1, &packets)[1], Err(malformed(expected)), "{payloads:02x?}");
    }
}

#[test]
fn a_frame_has_a_largest_size() {
    for (codec, first, more) in [
        (Codec::Vp8, &VP8_KEY[..], &[0x00][..]),
        (Codec::H264, &[0x7c, 0x81, 0x80], &[0x7c, 0x01]),
        (Codec::Av1, &[0x58, 0x30, 0x30], &[0xd0]),
    ] {
        let first = if codec == Codec::Vp8 { with(&[0x10], first) } else { first.to_vec() };
        let payload = with(more, &[0; 60_000]);
        let mut packets = vec![Some((0, false, &first[..]))];
        packets.extend((0..=FRAME_BYTES_MAX / 60_000).map(|_| Some((0, false, &payload[..]))));
        assert_eq!(depacketized(codec, &packets), [Err(malformed(Malformed::FrameTooLarge))], "{codec:?}");
    }
}

#[test]
fn padding_belongs_to_no_frame() {
    let first = with(&[0x10], &VP8_KEY);
    let frames = depacketized(
        Codec::Vp8,
        &[Some((0, true, &first)), Some((0, false, &[])), Some((5, true, &[])), Some((9, true, &[0x10, 0x11, 2, 3]))],
    );
    assert_eq!(frames.len(), 2);
    assert!(frames.iter().all(Result::is_ok));
}

#[test]
fn who_comes_in_the_middle_of_a_frame_waits_for_the_next() {
    for codec in VIDEO {
        let mut sender = Sender::new(codec, 7);
        let middle = Picture::new(codec, false, 500, &mut sender.random);
        let packets = sender.packets(&middle, 0, start()).split_off(1);
        let packets: Vec<_> = packets.iter().map(|packet| Some((0, packet.marker, &packet.payload[..]))).collect();
        assert_eq!(depacketized(codec, &packets), [Err(GapReason::PacketsLost)], "{codec:?}");
    }
}

proptest! {
    #[test]
    fn what_is_cut_is_put_together(seed: u64, payload_bytes_max in 30usize..1_200) {
        for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            let mut sender = Sender { payload_bytes_max, ..Sender::new(codec, seed) };
            if codec == Codec::Opus {
                sender.payload_bytes_max = sender.payload_bytes_max.min(200);
            }
            let mut depacketizer = Depacketizer::new(codec);
            for number in 0..10 {
                let picture = sender.picture(number % 5 == 0 || codec == Codec::Opus);
                for packet in sender.packets(&picture, number * 3_000, start()) {
                    prop_assert_eq!(depacketizer.pop(), None);
                    depacketizer.push(&packet);
                }
                let frame = depacketizer.pop().unwrap().unwrap();
                prop_assert_eq!(&frame.data[..], &picture.in_file(codec)[..], "{:?}", codec);
                prop_assert_eq!((frame.is_key, frame.timestamp), (picture.is_key, number * 3_000));
                let is_key_video = picture.is_key && codec != Codec::Opus;
                prop_assert_eq!(frame.size, is_key_video.then_some(SIZE));
                let private = match codec {
                    Codec::H264 => Some(hex(AVCC)),
                    Codec::Av1 => Some(hex(AV1C)),
                    _ => None,
                };
                prop_assert_eq!(frame.codec_private, private.filter(|_| is_key_video).map(Bytes::from));
            }
        }
    }

    #[test]
    fn arbitrary_payloads_never_panic(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8)) {
        for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            let packets: Vec<_> = payloads.iter().enumerate().map(|(at, payload)| Some((at as u32 / 3, at % 3 == 2, &payload[..]))).collect();
            depacketized(codec, &packets);
        }
    }
}
