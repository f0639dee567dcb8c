//! LiveKit's Egress API: what is asked for in the model's words, and by name what this server does not do.

use std::sync::Arc;

use bytes::Bytes;
use livekit_protocol as pb;
use pb::{
    encoded_file_output, media_source, output, room_composite_egress_request, start_egress_request,
    track_composite_egress_request, track_egress_request,
};
use plenary_model::{
    Egress, EgressFileKind, EgressId, EgressMedia, EgressRequest, EgressRequestKind, EgressSource, Identity, RoomName,
    TrackSid,
};
use plenary_protocol::{livekit, token::VideoGrant};
use prost::Message;

use super::{
    room_api::{ApiError, RoomCall, RoomReply},
    room_service::{Answer, Call, unexpected},
    twirp::{Code, TwirpError},
};
use crate::{
    egress::{EgressAsk, FileAsk},
    recording::check_encoding,
};

impl Call<'_> {
    pub(super) async fn carry_out_egress(&self, method: &str) -> Answer {
        self.needs(|grant| grant.room_record)?;
        match method {
            "StartRoomCompositeEgress" => self.start(room_composite(&self.format.read(self.body)?)?).await,
            "StartParticipantEgress" => self.start(participant(&self.format.read(self.body)?)?).await,
            "StartTrackCompositeEgress" => self.start(track_composite(&self.format.read(self.body)?)?).await,
            "StartTrackEgress" => self.start(track(&self.format.read(self.body)?)?).await,
            "StartEgress" => self.start(unified(&self.format.read(self.body)?)?).await,
            "StartWebEgress" => Err(not_done("recording of web pages")),
            "UpdateStream" => Err(not_done("stream outputs")),
            "StopEgress" => {
                let ask: pb::StopEgressRequest = self.format.read(self.body)?;
                self.egress(RoomCall::StopEgress { egress: self.within_reach(&ask.egress_id).await? }).await
            }
            "UpdateLayout" => {
                let ask: pb::UpdateLayoutRequest = self.format.read(self.body)?;
                let layout = layout(&ask.layout)?;
                let egress = self.within_reach(&ask.egress_id).await?;
                self.egress(RoomCall::UpdateLayout { egress, layout }).await
            }
            "ListEgress" => self.list_egress().await,
            _ => Err(TwirpError::new(Code::BadRoute, "no such method")),
        }
    }

    async fn start(&self, ask: EgressAsk) -> Answer {
        self.needs(|grant| is_of(grant, &ask.room))?;
        self.egress(RoomCall::StartEgress(ask)).await
    }

    /// A recording that this token may change; another one does not exist for it.
    async fn within_reach(&self, id: &str) -> Result<EgressId, TwirpError> {
        let id = egress_id(id)?;
        match self.recordings(None, Some(id.clone()), false).await?.is_empty() {
            true => Err(ApiError::NoSuchEgress.into()),
            false => Ok(id),
        }
    }

    /// Those that this token may know of.
    async fn recordings(
        &self,
        room: Option<RoomName>,
        egress: Option<EgressId>,
        active: bool,
    ) -> Result<Vec<Arc<Egress>>, TwirpError> {
        match self.rooms.call(RoomCall::ListEgress { room, egress, active }).await? {
            RoomReply::Egresses(all) => {
                Ok(all.into_iter().filter(|one| self.needs(|grant| is_of(grant, &one.room)).is_ok()).collect())
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn egress(&self, call: RoomCall) -> Answer {
        match self.rooms.call(call).await? {
            RoomReply::Egress(egress) => Ok(self.format.write(&livekit::egress_info(&egress))),
            other => Err(unexpected(&other)),
        }
    }

    /// All at once: what is listed is bounded.
    async fn list_egress(&self) -> Answer {
        let ask: pb::ListEgressRequest = self.format.read(self.body)?;
        let room = (!ask.room_name.is_empty()).then(|| RoomName::try_from(&*ask.room_name)).transpose();
        let egress = (!ask.egress_id.is_empty()).then(|| egress_id(&ask.egress_id)).transpose();
        let items = match (room, egress) {
            (Ok(room), Ok(egress)) => {
                let all = self.recordings(room, egress, ask.active).await?;
                all.iter().map(|one| livekit::egress_info(one)).collect()
            }
            // What cannot be the name of one is the name of none.
            _ => Vec::new(),
        };
        Ok(self.format.write(&pb::ListEgressResponse { items, next_page_token: None }))
    }
}

/// Whoever is let into one room records that one and knows of no other.
fn is_of(grant: &VideoGrant, room: &RoomName) -> bool {
    grant.room.is_empty() || grant.room == room.as_str()
}

fn egress_id(text: &str) -> Result<EgressId, TwirpError> {
    if (1..=SID_BYTES_MAX).contains(&text.len()) { Ok(text.into()) } else { Err(ApiError::NoSuchEgress.into()) }
}

pub type Asked = Result<EgressAsk, TwirpError>;

#[allow(deprecated)]
fn room_composite(ask: &pb::RoomCompositeEgressRequest) -> Asked {
    use room_composite_egress_request::Output;
    let old = match &ask.output {
        None => None,
        Some(Output::File(file)) => Some(file),
        Some(Output::Stream(_)) => return Err(not_done("stream outputs")),
        Some(Output::Segments(_)) => return Err(not_done("segment outputs")),
    };
    only_files(&ask.stream_outputs, &ask.segment_outputs, &ask.image_outputs, &ask.webhooks)?;
    if ask.audio_mixing != 0 {
        return Err(not_done("audio_mixing"));
    }
    let source = template(&ask.layout, ask.audio_only, ask.video_only, &ask.custom_base_url)?;
    let outputs = files(old, &ask.file_outputs, is_audio(&source))?;
    asked(&ask.room_name, source, outputs, EgressRequestKind::RoomComposite, ask)
}

fn participant(ask: &pb::ParticipantEgressRequest) -> Asked {
    only_files(&ask.stream_outputs, &ask.segment_outputs, &ask.image_outputs, &ask.webhooks)?;
    let source = of_participant(&ask.identity, ask.screen_share)?;
    let outputs = files(None, &ask.file_outputs, false)?;
    asked(&ask.room_name, source, outputs, EgressRequestKind::Participant, ask)
}

#[allow(deprecated)]
fn track_composite(ask: &pb::TrackCompositeEgressRequest) -> Asked {
    use track_composite_egress_request::Output;
    let old = match &ask.output {
        None => None,
        Some(Output::File(file)) => Some(file),
        Some(Output::Stream(_)) => return Err(not_done("stream outputs")),
        Some(Output::Segments(_)) => return Err(not_done("segment outputs")),
    };
    only_files(&ask.stream_outputs, &ask.segment_outputs, &ask.image_outputs, &ask.webhooks)?;
    let source = tracks(&ask.audio_track_id, &ask.video_track_id)?;
    let outputs = files(old, &ask.file_outputs, is_audio(&source))?;
    asked(&ask.room_name, source, outputs, EgressRequestKind::TrackComposite, ask)
}

fn track(ask: &pb::TrackEgressRequest) -> Asked {
    use track_egress_request::Output;
    no_webhooks(&ask.webhooks)?;
    let file = match &ask.output {
        Some(Output::File(file)) => file,
        Some(Output::WebsocketUrl(_)) => return Err(not_done("websocket_url")),
        None => return Err(missing("output")),
    };
    if file.output.is_some() {
        return Err(not_done("uploads to cloud storage (S3, GCP, Azure, AliOSS)"));
    }
    let source = EgressSource::Track { track: track_sid(&ask.track_id).ok_or_else(|| missing("track_id"))? };
    let outputs = vec![FileAsk { kind: EgressFileKind::AsPublished, template: file.filepath.clone() }];
    asked(&ask.room_name, source, outputs, EgressRequestKind::Track, ask)
}

fn unified(ask: &pb::StartEgressRequest) -> Asked {
    use start_egress_request::{Encoding, Source};
    no_webhooks(&ask.webhooks)?;
    no_storage(ask.storage.as_ref())?;
    let is_direct = ask.encoding == Some(Encoding::Preset(pb::EncodingOptionsPreset::Passthrough.into()));
    let source = match &ask.source {
        None => return Err(missing("source")),
        Some(Source::Web(_)) => return Err(not_done("recording of web pages")),
        Some(Source::Template(one)) => template(&one.layout, one.audio_only, one.video_only, &one.custom_base_url)?,
        Some(Source::Media(one)) => media(one, is_direct)?,
    };
    let outputs = ask.outputs.iter().map(|output| {
        no_storage(output.storage.as_ref())?;
        match &output.config {
            Some(output::Config::File(file)) => file_ask(file.file_type, &file.filepath, &source),
            Some(output::Config::Stream(_)) => Err(not_done("stream outputs")),
            Some(output::Config::Segments(_)) => Err(not_done("segment outputs")),
            Some(output::Config::Images(_)) => Err(not_done("image outputs")),
            None => Err(missing("output")),
        }
    });
    let outputs = one_file(outputs.collect::<Result<_, _>>()?)?;
    asked(&ask.room_name, source, outputs, EgressRequestKind::Unified, ask)
}

/// What a room records by itself, as it is kept with the room. Empty if nothing. All of it can be recorded.
pub fn kept(ask: Option<&pb::RoomEgress>, room: &RoomName) -> Result<Bytes, TwirpError> {
    let Some(ask) = ask else { return Ok(Bytes::new()) };
    let anybody = Identity::try_from("anybody").map_err(|_| ApiError::Fault)?;
    let of_each = [of_room(ask, room), of_who_joins(ask, room, &anybody), of_what_is_published(ask, room, "TR_any")];
    for asked in of_each.into_iter().flatten() {
        crate::egress::check_paths(&asked?).map_err(ApiError::BadPath)?;
    }
    let kept = ask.encode_to_vec();
    if kept.len() > AUTOMATIC_BYTES_MAX {
        return Err(TwirpError::new(Code::InvalidArgument, "the automatic recordings are too large"));
    }
    Ok(kept.into())
}

/// From the room's beginning on. Asked for with the room, so it need not name it.
pub fn of_room(ask: &pb::RoomEgress, room: &RoomName) -> Option<Asked> {
    let composite = ask.room.as_ref()?;
    if !composite.room_name.is_empty() && composite.room_name != room.as_str() {
        return Some(Err(missing("room_name")));
    }
    Some(room_composite(&pb::RoomCompositeEgressRequest { room_name: room.to_string(), ..composite.clone() }))
}

/// For each participant.
pub fn of_who_joins(ask: &pb::RoomEgress, room: &RoomName, identity: &Identity) -> Option<Asked> {
    use pb::{auto_participant_egress::Options as Automatic, participant_egress_request::Options};
    let pb::AutoParticipantEgress { file_outputs, segment_outputs, options } = ask.participant.clone()?;
    let options = options.map(|options| match options {
        Automatic::Preset(preset) => Options::Preset(preset),
        Automatic::Advanced(advanced) => Options::Advanced(advanced),
    });
    Some(participant(&pb::ParticipantEgressRequest {
        room_name: room.to_string(),
        identity: identity.to_string(),
        file_outputs,
        segment_outputs,
        options,
        ..pb::ParticipantEgressRequest::default()
    }))
}

/// For each track.
pub fn of_what_is_published(ask: &pb::RoomEgress, room: &RoomName, track_id: &str) -> Option<Asked> {
    use pb::{auto_track_egress::Output as Automatic, direct_file_output::Output};
    let pb::AutoTrackEgress { filepath, disable_manifest, output } = ask.tracks.clone()?;
    let output = output.map(|output| match output {
        Automatic::S3(upload) => Output::S3(upload),
        Automatic::Gcp(upload) => Output::Gcp(upload),
        Automatic::Azure(upload) => Output::Azure(upload),
        Automatic::AliOss(upload) => Output::AliOss(upload),
    });
    let file = pb::DirectFileOutput { filepath, disable_manifest, output };
    Some(track(&pb::TrackEgressRequest {
        room_name: room.to_string(),
        track_id: track_id.to_owned(),
        output: Some(track_egress_request::Output::File(file)),
        ..pb::TrackEgressRequest::default()
    }))
}

/// Layouts that can be rendered, by LiveKit's names; dark and light are the same here.
fn layout(name: &str) -> Result<String, TwirpError> {
    let plain = name.strip_suffix("-light").or_else(|| name.strip_suffix("-dark")).unwrap_or(name);
    if LAYOUTS.contains(&plain) { Ok(name.to_owned()) } else { Err(not_done("this layout")) }
}

fn asked(
    room: &str,
    source: EgressSource,
    outputs: Vec<FileAsk>,
    kind: EgressRequestKind,
    message: &impl Message,
) -> Asked {
    if room.is_empty() {
        return Err(missing("room_name"));
    }
    let room = RoomName::try_from(room).map_err(|_| ApiError::NoSuchRoom)?;
    let message = message.encode_to_vec();
    if message.len() > REQUEST_BYTES_MAX {
        return Err(TwirpError::new(Code::InvalidArgument, "the request is too large"));
    }
    let request = EgressRequest { kind, message: message.into() };
    let encoding = livekit::encoding(&request).map_err(|what| not_done(&what.to_string()))?;
    if encoding.is_passed_through && !matches!(source, EgressSource::Track { .. }) {
        return Err(not_done("PASSTHROUGH of more than a single track"));
    }
    check_encoding(encoding).map_err(|why| TwirpError::new(Code::InvalidArgument, why.to_string()))?;
    Ok(EgressAsk { room, source, outputs, request })
}

fn template(name: &str, audio_only: bool, video_only: bool, base_url: &str) -> Result<EgressSource, TwirpError> {
    if !base_url.is_empty() {
        return Err(not_done("custom_base_url"));
    }
    let media = match (audio_only, video_only) {
        (false, false) => EgressMedia::Both,
        (true, false) => EgressMedia::AudioOnly,
        (false, true) => EgressMedia::VideoOnly,
        (true, true) => return Err(missing("audio_only")),
    };
    Ok(EgressSource::Room { layout: layout(name)?, media })
}

fn of_participant(identity: &str, screen_share: bool) -> Result<EgressSource, TwirpError> {
    let identity = Identity::try_from(identity).map_err(|_| missing("identity"))?;
    Ok(EgressSource::Participant { identity, screen_share })
}

fn tracks(audio: &str, video: &str) -> Result<EgressSource, TwirpError> {
    match (track_sid(audio), track_sid(video)) {
        (None, None) => Err(missing("audio_track_id or video_track_id")),
        (audio, video) => Ok(EgressSource::Tracks { audio, video }),
    }
}

/// Of a choice of sources what the older calls can name too.
fn media(ask: &pb::MediaSource, is_direct: bool) -> Result<EgressSource, TwirpError> {
    use pb::audio_route::Match;
    if ask.audio.as_ref().is_some_and(|audio| audio.capture_all) {
        return Err(not_done("audio routes"));
    }
    let routes = ask.audio.as_ref().map(|audio| audio.routes.as_slice()).unwrap_or_default();
    let plain = routes.iter().all(|route| route.channel == 0) && routes.len() <= 1;
    if !plain {
        return Err(not_done("audio routes"));
    }
    let audio = routes.first().and_then(|route| route.r#match.as_ref());
    match (&ask.video, audio) {
        (None, None) => Err(missing("media")),
        (Some(media_source::Video::ParticipantVideo(of)), None) => of_participant(&of.identity, of.prefer_screen_share),
        (Some(media_source::Video::ParticipantVideo(of)), Some(Match::ParticipantIdentity(who)))
            if *who == of.identity =>
        {
            of_participant(who, of.prefer_screen_share)
        }
        (Some(media_source::Video::VideoTrackId(video)), None) if is_direct => direct(video),
        (None, Some(Match::TrackId(audio))) if is_direct => direct(audio),
        (Some(media_source::Video::VideoTrackId(video)), None) => tracks("", video),
        (Some(media_source::Video::VideoTrackId(video)), Some(Match::TrackId(audio))) => tracks(audio, video),
        (None, Some(Match::TrackId(audio))) => tracks(audio, ""),
        _ => Err(not_done("this combination of audio and video")),
    }
}

fn direct(track: &str) -> Result<EgressSource, TwirpError> {
    Ok(EgressSource::Track { track: track_sid(track).ok_or_else(|| missing("track_id"))? })
}

fn track_sid(text: &str) -> Option<TrackSid> {
    (1..=SID_BYTES_MAX).contains(&text.len()).then(|| text.into())
}

fn is_audio(source: &EgressSource) -> bool {
    match source {
        EgressSource::Room { media, .. } => *media == EgressMedia::AudioOnly,
        EgressSource::Tracks { video, .. } => video.is_none(),
        EgressSource::Participant { .. } | EgressSource::Track { .. } => false,
    }
}

fn files(
    old: Option<&pb::EncodedFileOutput>,
    new: &[pb::EncodedFileOutput],
    is_audio: bool,
) -> Result<Vec<FileAsk>, TwirpError> {
    // The Node SDK says the same file in both.
    let old = old.filter(|_| new.is_empty());
    let files = old.into_iter().chain(new).map(|file| {
        use encoded_file_output::Output;
        match &file.output {
            None => Ok(FileAsk { kind: kind(file.file_type, is_audio)?, template: file.filepath.clone() }),
            Some(Output::S3(_)) => Err(not_done("S3 uploads")),
            Some(Output::Gcp(_)) => Err(not_done("GCP uploads")),
            Some(Output::Azure(_)) => Err(not_done("Azure uploads")),
            Some(Output::AliOss(_)) => Err(not_done("AliOSS uploads")),
        }
    });
    one_file(files.collect::<Result<_, _>>()?)
}

fn file_ask(file_type: i32, template: &str, source: &EgressSource) -> Result<FileAsk, TwirpError> {
    let kind = match source {
        EgressSource::Track { .. } if file_type == 0 => EgressFileKind::AsPublished,
        EgressSource::Track { .. } => return Err(missing("file_type")),
        _ => kind(file_type, is_audio(source))?,
    };
    Ok(FileAsk { kind, template: template.to_owned() })
}

fn kind(file_type: i32, is_audio: bool) -> Result<EgressFileKind, TwirpError> {
    match pb::EncodedFileType::try_from(file_type) {
        Ok(pb::EncodedFileType::DefaultFiletype) if is_audio => Ok(EgressFileKind::Ogg),
        Ok(pb::EncodedFileType::DefaultFiletype | pb::EncodedFileType::Mp4) => Ok(EgressFileKind::Mp4),
        Ok(pb::EncodedFileType::Ogg) if is_audio => Ok(EgressFileKind::Ogg),
        Ok(pb::EncodedFileType::Mp3) if is_audio => Ok(EgressFileKind::Mp3),
        _ => Err(missing("file_type")),
    }
}

fn one_file(files: Vec<FileAsk>) -> Result<Vec<FileAsk>, TwirpError> {
    match files.len() {
        0 => Err(missing("output")),
        1 => Ok(files),
        _ => Err(not_done("more than one file of a recording")),
    }
}

fn only_files<A, B, C>(
    streams: &[A],
    segments: &[B],
    images: &[C],
    webhooks: &[pb::WebhookConfig],
) -> Result<(), TwirpError> {
    let asked_for = [
        (streams.is_empty(), "stream outputs"),
        (segments.is_empty(), "segment outputs"),
        (images.is_empty(), "image outputs"),
    ];
    if let Some((_, what)) = asked_for.into_iter().find(|(is_empty, _)| !is_empty) {
        return Err(not_done(what));
    }
    no_webhooks(webhooks)
}

fn no_webhooks(webhooks: &[pb::WebhookConfig]) -> Result<(), TwirpError> {
    if webhooks.is_empty() { Ok(()) } else { Err(not_done("webhooks of a single recording")) }
}

fn no_storage(storage: Option<&pb::StorageConfig>) -> Result<(), TwirpError> {
    use pb::storage_config::Provider;
    match storage.and_then(|storage| storage.provider.as_ref()) {
        None => Ok(()),
        Some(Provider::S3(_)) => Err(not_done("S3 uploads")),
        Some(Provider::Gcp(_)) => Err(not_done("GCP uploads")),
        Some(Provider::Azure(_)) => Err(not_done("Azure uploads")),
        Some(Provider::AliOss(_)) => Err(not_done("AliOSS uploads")),
    }
}

pub fn not_done(what: &str) -> TwirpError {
    TwirpError::new(Code::Unimplemented, format!("{what}: not supported by this server"))
}

/// In the words of LiveKit's server.
fn missing(field: &str) -> TwirpError {
    TwirpError::new(Code::InvalidArgument, format!("request has missing or invalid field: {field}"))
}

const LAYOUTS: [&str; 5] = ["", "grid", "speaker", "single-speaker", "screen-share"];

/// Of a request, which is kept and given back whole.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Of what a room records by itself, which goes with all that is told of the room.
const AUTOMATIC_BYTES_MAX: usize = 4 * 1024;

/// Longer than any sid of ours.
const SID_BYTES_MAX: usize = 64;
