//! How the video of a recording is to be encoded, in LiveKit's options. What this server does otherwise is named, never ignored.

use livekit_protocol as pb;
use pb::{
    EncodingOptionsPreset as Preset, egress_info::Request, participant_egress_request, room_composite_egress_request,
    start_egress_request, track_composite_egress_request,
};
use plenary_model::EgressRequest;

use super::egress::request;

/// What of it was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Width and height in pixels.
    pub size: Option<(u32, u32)>,
    pub frames_per_second: Option<u32>,
    pub video_bits_per_second: Option<u32>,
    pub audio_bits_per_second: Option<u32>,
    /// Not at all: a single track as it is.
    pub is_passed_through: bool,
}

/// An option that is not done, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotEncoded(&'static str);

/// Of a request that can be read; of another one nothing was asked for.
///
/// # Errors
/// If something is asked for that is not done.
pub fn encoding(asked: &EgressRequest) -> Result<Encoding, NotEncoded> {
    match request(asked).as_ref().and_then(options) {
        None => Ok(Encoding::default()),
        Some(Options::Preset(preset)) => of_preset(preset),
        Some(Options::Advanced(options)) => of_options(options),
    }
}

enum Options<'r> {
    Preset(i32),
    Advanced(&'r pb::EncodingOptions),
}

fn options(request: &Request) -> Option<Options<'_>> {
    use participant_egress_request::Options as OfParticipant;
    use room_composite_egress_request::Options as OfRoom;
    use start_egress_request::Encoding as Unified;
    use track_composite_egress_request::Options as OfTracks;
    Some(match request {
        Request::Egress(ask) => match ask.encoding.as_ref()? {
            Unified::Preset(preset) => Options::Preset(*preset),
            Unified::Advanced(options) => Options::Advanced(options),
        },
        Request::RoomComposite(ask) => match ask.options.as_ref()? {
            OfRoom::Preset(preset) => Options::Preset(*preset),
            OfRoom::Advanced(options) => Options::Advanced(options),
        },
        Request::Participant(ask) => match ask.options.as_ref()? {
            OfParticipant::Preset(preset) => Options::Preset(*preset),
            OfParticipant::Advanced(options) => Options::Advanced(options),
        },
        Request::TrackComposite(ask) => match ask.options.as_ref()? {
            OfTracks::Preset(preset) => Options::Preset(*preset),
            OfTracks::Advanced(options) => Options::Advanced(options),
        },
        _ => return None,
    })
}

fn of_preset(preset: i32) -> Result<Encoding, NotEncoded> {
    let (size, fps) = match Preset::try_from(preset).map_err(|_| NotEncoded("this preset"))? {
        Preset::H264720p30 => ((1280, 720), 30),
        Preset::H264720p60 => ((1280, 720), 60),
        Preset::H2641080p30 => ((1920, 1080), 30),
        Preset::H2641080p60 => ((1920, 1080), 60),
        Preset::PortraitH264720p30 => ((720, 1280), 30),
        Preset::PortraitH264720p60 => ((720, 1280), 60),
        Preset::PortraitH2641080p30 => ((1080, 1920), 30),
        Preset::PortraitH2641080p60 => ((1080, 1920), 60),
        Preset::Passthrough => return Ok(Encoding { is_passed_through: true, ..Encoding::default() }),
    };
    Ok(Encoding { size: Some(size), frames_per_second: Some(fps), ..Encoding::default() })
}

#[allow(deprecated)]
fn of_options(options: &pb::EncodingOptions) -> Result<Encoding, NotEncoded> {
    let is_kept = [
        (matches!(options.depth, 0 | 24), "depth"),
        (matches!(options.audio_frequency, 0 | 48_000), "audio_frequency other than 48000"),
        // It follows from the type of the file.
        (options.audio_codec == i32::from(pb::AudioCodec::DefaultAc), "audio_codec"),
        (
            [pb::VideoCodec::DefaultVc, pb::VideoCodec::H264High].map(i32::from).contains(&options.video_codec),
            "video_codec other than H264_HIGH",
        ),
        ([0.0, KEY_FRAME_INTERVAL_S].contains(&options.key_frame_interval), "key_frame_interval other than 4"),
        (options.audio_quality == 0, "audio_quality"),
        (options.video_quality == 0, "video_quality"),
    ];
    if let Some((_, what)) = is_kept.into_iter().find(|(is_kept, _)| !is_kept) {
        return Err(NotEncoded(what));
    }
    let size = match (positive(options.width, "width")?, positive(options.height, "height")?) {
        (None, None) => None,
        (Some(width), Some(height)) => Some((width, height)),
        _ => return Err(NotEncoded("width without height")),
    };
    Ok(Encoding {
        size,
        frames_per_second: positive(options.framerate, "framerate")?,
        video_bits_per_second: positive(options.video_bitrate, "video_bitrate")?.map(kilobits),
        audio_bits_per_second: positive(options.audio_bitrate, "audio_bitrate")?.map(kilobits),
        is_passed_through: false,
    })
}

/// 0 is what nobody asked for.
fn positive(value: i32, name: &'static str) -> Result<Option<u32>, NotEncoded> {
    let value = u32::try_from(value).map_err(|_| NotEncoded(name))?;
    Ok(Some(value).filter(|value| *value > 0))
}

fn kilobits(value: u32) -> u32 {
    value.saturating_mul(1_000)
}

/// That of what is rendered here.
const KEY_FRAME_INTERVAL_S: f64 = 4.0;

#[cfg(test)]
mod tests {
    use plenary_model::EgressRequestKind;
    use prost::Message;

    use super::*;

    fn asked(kind: EgressRequestKind, message: &impl Message) -> EgressRequest {
        EgressRequest { kind, message: message.encode_to_vec().into() }
    }

    fn advanced(options: pb::EncodingOptions) -> Result<Encoding, NotEncoded> {
        let options = Some(room_composite_egress_request::Options::Advanced(options));
        let message = pb::RoomCompositeEgressRequest { options, ..Default::default() };
        encoding(&asked(EgressRequestKind::RoomComposite, &message))
    }

    #[test]
    fn every_kind_of_request_can_say_how() {
        let portrait = i32::from(Preset::PortraitH2641080p30);
        let as_asked = Ok(Encoding { size: Some((1080, 1920)), frames_per_second: Some(30), ..Encoding::default() });
        let room = pb::RoomCompositeEgressRequest {
            options: Some(room_composite_egress_request::Options::Preset(portrait)),
            ..Default::default()
        };
        assert_eq!(encoding(&asked(EgressRequestKind::RoomComposite, &room)), as_asked);
        let participant = pb::ParticipantEgressRequest {
            options: Some(participant_egress_request::Options::Preset(portrait)),
            ..Default::default()
        };
        assert_eq!(encoding(&asked(EgressRequestKind::Participant, &participant)), as_asked);
        let tracks = pb::TrackCompositeEgressRequest {
            options: Some(track_composite_egress_request::Options::Preset(portrait)),
            ..Default::default()
        };
        assert_eq!(encoding(&asked(EgressRequestKind::TrackComposite, &tracks)), as_asked);
        let unified = pb::StartEgressRequest {
            encoding: Some(start_egress_request::Encoding::Preset(portrait)),
            ..Default::default()
        };
        assert_eq!(encoding(&asked(EgressRequestKind::Unified, &unified)), as_asked);
        let track = pb::TrackEgressRequest::default();
        assert_eq!(encoding(&asked(EgressRequestKind::Track, &track)), Ok(Encoding::default()));
    }

    #[test]
    #[allow(deprecated)]
    fn what_is_not_done_is_named() {
        let mine = pb::EncodingOptions { width: 640, height: 360, framerate: 15, ..Default::default() };
        let usual = pb::EncodingOptions {
            depth: 24,
            audio_frequency: 48_000,
            video_codec: pb::VideoCodec::H264High.into(),
            key_frame_interval: 4.0,
            video_bitrate: 800,
            audio_bitrate: 64,
            ..mine
        };
        let as_asked = Encoding {
            size: Some((640, 360)),
            frames_per_second: Some(15),
            video_bits_per_second: Some(800_000),
            audio_bits_per_second: Some(64_000),
            is_passed_through: false,
        };
        assert_eq!(advanced(usual), Ok(as_asked));
        let cases = [
            (pb::EncodingOptions { depth: 10, ..mine }, "depth"),
            (pb::EncodingOptions { audio_frequency: 44_100, ..mine }, "audio_frequency"),
            (pb::EncodingOptions { audio_codec: pb::AudioCodec::Opus.into(), ..mine }, "audio_codec"),
            (pb::EncodingOptions { video_codec: pb::VideoCodec::H264Baseline.into(), ..mine }, "video_codec"),
            (pb::EncodingOptions { key_frame_interval: 1.0, ..mine }, "key_frame_interval"),
            (pb::EncodingOptions { audio_quality: 1, ..mine }, "audio_quality"),
            (pb::EncodingOptions { video_quality: 1, ..mine }, "video_quality"),
            (pb::EncodingOptions { height: 0, ..mine }, "width without height"),
            (pb::EncodingOptions { width: -1, ..mine }, "width"),
            (pb::EncodingOptions { video_bitrate: -1, ..mine }, "video_bitrate"),
        ];
        for (options, name) in cases {
            let refused = advanced(options).unwrap_err();
            assert!(refused.to_string().starts_with(name), "{refused}");
        }
    }
}
