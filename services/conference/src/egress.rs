//! Recordings that host apps ask for: kept by the store, and carried out by whoever claims them there ([`keeper`]).

mod automatic;
mod keeper;
mod path;
#[cfg(test)]
pub(crate) mod testing;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use plenary_cluster::{EgressFilter, EgressRefusal, Store, StoreError};
use plenary_model::{
    Codec, Egress, EgressFileKind, EgressId, EgressMedia, EgressOutput, EgressRequest, EgressSource, EgressStatus,
    MediaKind, NodeId, Participant, RoomName, RoomSnapshot, Source, Track, TrackSid,
};
use plenary_recording::Container;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use self::keeper::Keeper;
use self::path::{Facts, TrackFacts, apart};
pub use self::{
    keeper::Held,
    path::{NAMES_TRIED_MAX, PathError, names},
};
use crate::{front::room_api::ApiError, ids, tokens::unix_ms};

/// Whoever records at this node. What it is told of one recording comes from one task, and nothing may be made wait.
pub trait Recorder: Send + Sync {
    /// It is this node's from here on. Of one that is `Active` another node has recorded some; of one that is `Ending` nothing more
    /// is recorded, and what there is becomes its files.
    fn start(&self, held: Held);
    /// Nothing more is recorded of it: `Ending`, what there is becomes its files; `Aborted`, before it was said to have begun,
    /// nobody wants them.
    fn stop(&self, egress: &Arc<Egress>);
    /// Its source has another layout now.
    fn update_layout(&self, egress: &Arc<Egress>);
    /// Somebody else records it, or will. What was written under this epoch may be closed; what others write and what they
    /// read of it stays as it is.
    fn fenced(&self, egress: &EgressId, epoch: u64);
}

/// A recording as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressAsk {
    pub room: RoomName,
    pub source: EgressSource,
    pub outputs: Vec<FileAsk>,
    pub request: EgressRequest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAsk {
    pub kind: EgressFileKind,
    /// With placeholders.
    pub template: String,
}

pub struct Egresses {
    store: Arc<dyn Store>,
    node: NodeId,
    /// None where nothing is recorded.
    recording: OnceLock<Recording>,
}

struct Recording {
    keeper: Arc<Keeper>,
    tasks: [JoinHandle<()>; 2],
}

impl Egresses {
    /// Nothing is recorded here until there is a recorder; what is started is for others.
    pub fn new(store: Arc<dyn Store>, node: NodeId) -> Self {
        Self { store, node, recording: OnceLock::new() }
    }

    /// Has this node claim recordings and make them. Needs a running runtime; once.
    pub fn record(self: &Arc<Self>, recorder: Arc<dyn Recorder>) {
        self.recording.get_or_init(|| {
            let keeper = Arc::new(Keeper::new(self.store.clone(), self.node.clone(), recorder));
            let tasks = [tokio::spawn(keeper.clone().run()), tokio::spawn(automatic::begin(self.clone()))];
            Recording { keeper, tasks }
        });
    }

    /// Leaves everything that this node records to others, and claims nothing more; or claims again.
    pub fn hand_over(&self, leaves: bool) {
        if let Some(recording) = self.recording.get() {
            recording.keeper.hand_over(leaves);
        }
    }

    /// Waits for the last words of what is recorded here, for this long at most.
    pub async fn finish(&self, within: Duration) {
        if let Some(Recording { keeper, tasks }) = self.recording.get() {
            keeper.finished(within).await;
            tasks.iter().for_each(JoinHandle::abort);
        }
    }

    pub async fn start(&self, ask: EgressAsk) -> Result<Arc<Egress>, ApiError> {
        let snapshot = self.with_source(&ask).await?;
        self.start_as(ids::egress(), ask, snapshot).await
    }

    /// The same id is started once.
    async fn start_as(&self, id: EgressId, ask: EgressAsk, snapshot: RoomSnapshot) -> Result<Arc<Egress>, ApiError> {
        let now_ms = unix_ms();
        let facts = Facts {
            room_name: ask.room.as_str(),
            room_id: snapshot.room.sid.as_str(),
            unix_ms: now_ms,
            ..of_source(&ask.source, &snapshot)?
        };
        let default = default_name(&ask.source);
        let others = self.list(EgressFilter { room: Some(ask.room.clone()), ..EgressFilter::default() }).await?;
        let others = others.iter().filter(|one| one.id != id);
        let is_taken = |path: &str| others.clone().flat_map(|one| &one.outputs).any(|output| output.path == path);
        let output = |one: &FileAsk| {
            let path = path::expand(&one.template, default, ending(one.kind, &facts), &facts)?;
            let path = if is_taken(&path) { apart(&path, &id) } else { path };
            Ok(EgressOutput { kind: one.kind, path })
        };
        let outputs = ask.outputs.iter().map(output).collect::<Result<_, PathError>>().map_err(ApiError::BadPath)?;
        let now_ns = nanoseconds(now_ms);
        let egress = Egress {
            id,
            room: ask.room.clone(),
            room_sid: snapshot.room.sid.clone(),
            source: ask.source,
            outputs,
            request: ask.request,
            status: EgressStatus::Starting,
            asked_at_ns: now_ns,
            started_at_ns: 0,
            ended_at_ns: 0,
            updated_at_ns: now_ns,
            error: String::new(),
            files: Vec::new(),
            version: 1,
        };
        let egress = self.store.start_egress(egress).await?;
        if let Some(Recording { keeper, .. }) = self.recording.get() {
            keeper.look();
        }
        Ok(egress)
    }

    /// What has not begun is given up at once.
    pub async fn stop(&self, id: &EgressId) -> Result<Arc<Egress>, ApiError> {
        let stopped = self.change(id, |egress| {
            (egress.status, egress.error) = match egress.status {
                EgressStatus::Starting => (EgressStatus::Aborted, "stopped before it began".to_owned()),
                EgressStatus::Active => (EgressStatus::Ending, String::new()),
                status => return Err(ApiError::EgressNotStopped(status)),
            };
            if egress.status.is_over() {
                egress.ended_at_ns = egress.updated_at_ns;
            }
            Ok(())
        });
        stopped.await
    }

    pub async fn update_layout(&self, id: &EgressId, layout: &str) -> Result<Arc<Egress>, ApiError> {
        let changed = self.change(id, |egress| match (&mut egress.source, egress.status) {
            (EgressSource::Room { layout: old, .. }, EgressStatus::Starting | EgressStatus::Active) => {
                layout.clone_into(old);
                Ok(())
            }
            (EgressSource::Room { .. }, status) => Err(ApiError::EgressNotUpdated(status)),
            _ => Err(ApiError::NoLayout),
        });
        changed.await
    }

    pub async fn list(&self, filter: EgressFilter) -> Result<Vec<Arc<Egress>>, ApiError> {
        Ok(self.store.egresses(filter).await?.into_iter().map(|one| one.egress).collect())
    }

    /// Whoever records may change it at the same time: then once more, on what came of that. If that is another node, it hears of
    /// it when it renews its lease.
    async fn change(
        &self,
        id: &EgressId,
        change: impl Fn(&mut Egress) -> Result<(), ApiError>,
    ) -> Result<Arc<Egress>, ApiError> {
        for _ in 0..CHANGES_TRIED_MAX {
            let filter = EgressFilter { id: Some(id.clone()), ..EgressFilter::default() };
            let stored = self.list(filter).await?.pop().ok_or(ApiError::NoSuchEgress)?;
            let mut egress = (*stored).clone();
            egress.version = egress.version.saturating_add(1);
            egress.updated_at_ns = nanoseconds(unix_ms());
            change(&mut egress)?;
            match self.store.put_egress(egress.clone(), None).await {
                Ok(()) => {
                    if let Some(Recording { keeper, .. }) = self.recording.get() {
                        keeper.read_again();
                    }
                    return Ok(Arc::new(egress));
                }
                Err(StoreError::Egress(EgressRefusal::Changed | EgressRefusal::Over)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApiError::Unavailable)
    }

    /// The room, once it has what is to be recorded: whoever publishes has the id of a track before others hear of it.
    async fn with_source(&self, ask: &EgressAsk) -> Result<RoomSnapshot, ApiError> {
        let deadline = Instant::now() + SOURCE_WITHIN;
        loop {
            let snapshot = self.store.snapshot(ask.room.clone()).await?;
            match of_source(&ask.source, &snapshot) {
                Err(ApiError::NoSuchTrack) if Instant::now() < deadline => sleep(SOURCE_POLL).await,
                found => return found.map(drop).map(|()| snapshot),
            }
        }
    }
}

/// Whether its paths can be, whatever they name.
pub fn check_paths(ask: &EgressAsk) -> Result<(), PathError> {
    let anybody = Some("anybody");
    let track = TrackFacts { id: "TR_any", kind: "audio", source: "microphone", container: Container::WebM };
    let (publisher_identity, track) = match ask.source {
        EgressSource::Room { .. } => (None, None),
        EgressSource::Participant { .. } | EgressSource::Tracks { .. } => (anybody, None),
        EgressSource::Track { .. } => (anybody, Some(track)),
    };
    let facts = Facts { room_name: ask.room.as_str(), publisher_identity, track, ..Facts::default() };
    let mut templates = ask.outputs.iter().map(|one| &one.template);
    templates.try_for_each(|template| path::expand(template, default_name(&ask.source), "mp4", &facts).map(drop))
}

/// What a path may name of it. Tracks have to be there; people may come later.
fn of_source<'a>(source: &'a EgressSource, snapshot: &'a RoomSnapshot) -> Result<Facts<'a>, ApiError> {
    let find = |sid: &TrackSid| {
        let of = |person: &'a Participant| Some((person, person.tracks.iter().find(|track| track.sid == *sid)?));
        snapshot.records.iter().find_map(|record| of(&record.participant)).ok_or(ApiError::NoSuchTrack)
    };
    let publisher = |person: &'a Participant| Some(person.identity.as_str());
    Ok(match source {
        EgressSource::Room { .. } => Facts::default(),
        EgressSource::Participant { identity, .. } => {
            Facts { publisher_identity: Some(identity.as_str()), ..Facts::default() }
        }
        EgressSource::Tracks { audio, video } => {
            let mut facts = Facts::default();
            for (wanted, kind) in [(audio, MediaKind::Audio), (video, MediaKind::Video)] {
                let Some(sid) = wanted else { continue };
                let (person, track) = find(sid)?;
                if track.kind != kind {
                    return Err(ApiError::NoSuchTrack);
                }
                facts.publisher_identity = publisher(person);
            }
            facts
        }
        EgressSource::Track { track } => {
            let (person, track) = find(track)?;
            Facts { publisher_identity: publisher(person), track: Some(track_facts(track)), ..Facts::default() }
        }
    })
}

/// Whether a recording of this has a track of this person in it.
pub fn takes(source: &EgressSource, person: &Participant, track: &Track) -> bool {
    match source {
        EgressSource::Room { media, .. } => match media {
            EgressMedia::Both => true,
            EgressMedia::AudioOnly => track.kind == MediaKind::Audio,
            EgressMedia::VideoOnly => track.kind == MediaKind::Video,
        },
        EgressSource::Participant { identity, screen_share } => {
            let is_screen = matches!(track.source, Source::ScreenShare | Source::ScreenShareAudio);
            person.identity == *identity && is_screen == *screen_share
        }
        EgressSource::Tracks { audio, video } => [audio, video].contains(&&Some(track.sid.clone())),
        EgressSource::Track { track: wanted } => track.sid == *wanted,
    }
}

fn track_facts(track: &Track) -> TrackFacts<'_> {
    TrackFacts {
        id: track.sid.as_str(),
        kind: match track.kind {
            MediaKind::Audio => "audio",
            MediaKind::Video => "video",
        },
        source: match track.source {
            Source::Unknown => "unknown",
            Source::Camera => "camera",
            Source::Microphone => "microphone",
            Source::ScreenShare => "screen_share",
            Source::ScreenShareAudio => "screen_share_audio",
        },
        container: match codec(track) {
            Some(Codec::H264) => Container::Matroska,
            _ => Container::WebM,
        },
    }
}

/// What it is published with, or what the publisher said it would be.
fn codec(track: &Track) -> Option<Codec> {
    let declared = track.codecs.first().map(|codec| &codec.mime);
    [Some(&track.mime), declared].into_iter().flatten().find_map(|mime| Codec::named(mime))
}

/// Of the file's name.
fn ending(kind: EgressFileKind, facts: &Facts<'_>) -> &'static str {
    match kind {
        EgressFileKind::Mp4 => "mp4",
        EgressFileKind::Ogg => "ogg",
        EgressFileKind::Mp3 => "mp3",
        EgressFileKind::AsPublished => facts.track.map_or(Container::WebM, |track| track.container).extension(),
    }
}

fn default_name(source: &EgressSource) -> &'static str {
    match source {
        EgressSource::Room { .. } => "{room_name}-{time}",
        EgressSource::Participant { .. } | EgressSource::Tracks { .. } => "{publisher_identity}-{time}",
        EgressSource::Track { .. } => "{track_id}-{time}",
    }
}

fn nanoseconds(unix_ms: u64) -> u64 {
    unix_ms.saturating_mul(1_000_000)
}

/// What it takes to negotiate a track.
const SOURCE_WITHIN: Duration = Duration::from_secs(3);
const SOURCE_POLL: Duration = Duration::from_millis(100);

/// A recorder changes what it records a few times in all.
const CHANGES_TRIED_MAX: usize = 8;
