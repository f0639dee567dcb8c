//! What is to be rendered is asked of the composer, by files in the recording's directory (`proto/plenary/v1/compose.md`), one output
//! after the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use plenary_composer::{
    BadSettings, Canvas, Content, Format, Layout, Settings,
    watch::{FAILED, Failure, Outcome, REQUEST, RESULT, Request, ResultFile},
};
use plenary_model::{Egress, EgressFile, EgressFileKind, EgressMedia, EgressOutput, EgressSource};
use plenary_protocol::livekit::{self, Encoding};

use crate::egress::{NAMES_TRIED_MAX, names};

/// An output of a recording that has ended, the composer being asked for it if nobody has. None as long as it has not answered.
///
/// # Errors
/// If it cannot be rendered, in the composer's words.
pub(super) fn rendered(
    root: &Path,
    directory: &Path,
    egress: &Egress,
    output: &EgressOutput,
    number: usize,
) -> io::Result<Option<EgressFile>> {
    let kept = directory.join(format!("compose.result.{number}.json"));
    if let Some(answer) = read(&kept)? {
        return file_of(answer).map(Some);
    }
    if is_under_way(directory) {
        return Ok(None);
    }
    if directory.join(REQUEST).is_file() {
        // It says where something may have been begun.
        fs::rename(directory.join(REQUEST), directory.join(FAILED))?;
        return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody has rendered it within a day"));
    }
    let mut refused = None;
    if let Some(answer) = read(&directory.join(RESULT))? {
        let is_ours = match &answer {
            Outcome::Complete { path, .. } => names(&output.path, &egress.id).any(|own| path == Path::new(&own)),
            Outcome::Failed { error: Failure::Exists, .. } => {
                refused = refused_name(directory);
                false
            }
            Outcome::Failed { .. } => true,
        };
        if is_ours {
            // Whoever asks after a crash, or for the next output, finds what became of this one.
            fs::rename(directory.join(RESULT), kept)?;
            return file_of(answer).map(Some);
        }
    }
    // The composer has the last word: until it renders this, others may be called so. It may also see what is not seen here yet.
    let is_free =
        |name: &String| refused.as_deref() != Some(Path::new(name)) && root.join(name).symlink_metadata().is_err();
    let name = names(&output.path, &egress.id).find(is_free).ok_or_else(|| {
        let message = format!("{NAMES_TRIED_MAX} files are called like {}", output.path);
        io::Error::new(io::ErrorKind::AlreadyExists, message)
    })?;
    ask(directory, &request(egress, output.kind, name))?;
    Ok(None)
}

/// What the output of a request was called that the composer has set aside.
fn refused_name(directory: &Path) -> Option<PathBuf> {
    let request: Request = serde_json::from_slice(&fs::read(directory.join(FAILED)).ok()?).ok()?;
    request.output
}

/// Whether the composer has been asked and may yet answer.
pub(super) fn is_under_way(directory: &Path) -> bool {
    let asked = fs::metadata(directory.join(REQUEST)).and_then(|request| request.modified());
    // A clock that was set back says nothing of the composer.
    asked.is_ok_and(|asked| asked.elapsed().is_ok_and(|age| age < RENDERED_WITHIN) || asked > SystemTime::now())
}

fn file_of(answer: Outcome) -> io::Result<EgressFile> {
    match answer {
        Outcome::Complete { path, size, duration_us, started_us, ended_us, .. } => Ok(EgressFile {
            path: path.to_string_lossy().into_owned(),
            started_at_ns: started_us.saturating_mul(1_000),
            ended_at_ns: ended_us.saturating_mul(1_000),
            duration_ns: duration_us.saturating_mul(1_000),
            bytes: size,
        }),
        Outcome::Failed { message, .. } => Err(io::Error::other(format!("could not be rendered: {message}"))),
    }
}

fn read(path: &Path) -> io::Result<Option<Outcome>> {
    match fs::read(path) {
        Ok(text) => {
            let answer: ResultFile = serde_json::from_slice(&text)?;
            Ok(Some(answer.outcome))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Under its name when it is whole.
fn ask(directory: &Path, request: &Request) -> io::Result<()> {
    // An answer to somebody else is none to this.
    for old in [RESULT, FAILED] {
        match fs::remove_file(directory.join(old)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let written = directory.join("compose.new.json");
    fs::write(&written, serde_json::to_vec_pretty(request)?)?;
    fs::rename(written, directory.join(REQUEST))
}

fn request(egress: &Egress, kind: EgressFileKind, path: String) -> Request {
    let (format, has_picture) = match kind {
        EgressFileKind::Mp4 | EgressFileKind::AsPublished => (Format::Mp4, true),
        EgressFileKind::Ogg => (Format::Ogg, false),
        EgressFileKind::Mp3 => (Format::Mp3, false),
    };
    let (layout, content) = match &egress.source {
        EgressSource::Room { layout, media } => (layout_of(layout), content_of(*media)),
        // One person, who needs no name to be told from others.
        EgressSource::Participant { .. } => (Layout::SingleSpeaker, Content::All),
        EgressSource::Tracks { audio, video } => {
            let content = match (audio, video) {
                (Some(_), None) => Content::Audio,
                (None, Some(_)) => Content::Video,
                _ => Content::All,
            };
            (Layout::SingleSpeaker, content)
        }
        EgressSource::Track { .. } => (Layout::SingleSpeaker, Content::All),
    };
    Request {
        output: Some(PathBuf::from(path)),
        // The store says so, also when who recorded last could not write it down.
        ended: true,
        format,
        layout,
        content: if has_picture { content } else { Content::Audio },
        names: matches!(egress.source, EgressSource::Room { .. }),
        ..encoded(livekit::encoding(&egress.request).unwrap_or_default())
    }
}

fn encoded(encoding: Encoding) -> Request {
    let default = Request::default();
    let (width, height) = encoding.size.unwrap_or((default.width, default.height));
    Request {
        width,
        height,
        fps: encoding.frames_per_second.unwrap_or(default.fps),
        video_bits_per_second: encoding.video_bits_per_second,
        audio_bits_per_second: encoding.audio_bits_per_second,
        ..default
    }
}

/// Whether a composer would take it.
pub fn check_encoding(encoding: Encoding) -> Result<(), BadSettings> {
    let Request { width, height, fps, video_bits_per_second, audio_bits_per_second, .. } = encoded(encoding);
    let canvas = Canvas { width, height };
    Settings { canvas, fps, video_bits_per_second, audio_bits_per_second, ..Settings::default() }.check()
}

/// By the names of LiveKit's templates, of which only the dark ones exist.
fn layout_of(name: &str) -> Layout {
    match name.trim_end_matches("-light").trim_end_matches("-dark") {
        "speaker" => Layout::Speaker,
        "single-speaker" => Layout::SingleSpeaker,
        _ => Layout::ScreenShareFirst,
    }
}

fn content_of(media: EgressMedia) -> Content {
    match media {
        EgressMedia::Both => Content::All,
        EgressMedia::AudioOnly => Content::Audio,
        EgressMedia::VideoOnly => Content::Video,
    }
}

/// A composer has this long to answer, whatever it has to render before.
const RENDERED_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use livekit_protocol as pb;
    use prost::Message;
    use tempfile::tempdir;

    use super::*;
    use crate::recording::testing::egress;

    fn room(layout: &str) -> Egress {
        egress(EgressSource::Room { layout: layout.into(), media: EgressMedia::Both })
    }

    fn mp4(path: &str) -> EgressOutput {
        EgressOutput { kind: EgressFileKind::Mp4, path: path.into() }
    }

    fn answer(directory: &Path, outcome: Outcome) {
        let answer = ResultFile { version: 1, outcome };
        fs::write(directory.join(RESULT), serde_json::to_vec(&answer).unwrap()).unwrap();
        fs::rename(directory.join(REQUEST), directory.join(FAILED)).unwrap();
    }

    fn asked(directory: &Path) -> Request {
        serde_json::from_slice(&fs::read(directory.join(REQUEST)).unwrap()).unwrap()
    }

    fn complete(path: PathBuf) -> Outcome {
        Outcome::Complete { path, size: 9, duration_us: 4, started_us: 1, ended_us: 5, missing: Vec::new() }
    }

    #[test]
    fn each_output_is_asked_for_once_and_its_answer_kept() {
        let root = tempdir().unwrap();
        let directory = root.path();
        let egress = room("speaker-dark");
        fs::write(root.path().join("b.mp4"), "somebody's").unwrap();
        for (number, path, given) in [(0, "a.mp4", "a.mp4"), (1, "b.mp4", "b-EG_local.mp4")] {
            let output = mp4(path);
            let rendered = || rendered(root.path(), directory, &egress, &output, number);
            assert_eq!(rendered().unwrap(), None);
            assert_eq!(rendered().unwrap(), None, "nobody has answered");
            let request = asked(directory);
            assert_eq!((request.layout, request.names, request.ended), (Layout::Speaker, true, true));
            assert_eq!(request.output.as_deref(), Some(Path::new(given)));
            answer(directory, complete(given.into()));
            let file = EgressFile {
                path: given.into(),
                started_at_ns: 1_000,
                ended_at_ns: 5_000,
                duration_ns: 4_000,
                bytes: 9,
            };
            assert_eq!(rendered().unwrap(), Some(file.clone()));
            assert_eq!(rendered().unwrap(), Some(file), "asked again after a crash");
        }
    }

    #[test]
    fn it_is_encoded_as_it_was_asked_for() {
        let options =
            pb::room_composite_egress_request::Options::Preset(pb::EncodingOptionsPreset::PortraitH264720p60.into());
        let message = pb::RoomCompositeEgressRequest { options: Some(options), ..Default::default() };
        let mut egress = room("");
        assert_eq!(request(&egress, EgressFileKind::Mp4, "a.mp4".into()).fps, Request::default().fps);
        egress.request.message = message.encode_to_vec().into();
        let asked = request(&egress, EgressFileKind::Mp4, "a.mp4".into());
        assert_eq!((asked.width, asked.height, asked.fps), (720, 1280, 60));
    }

    #[test]
    fn what_somebody_else_was_called_meanwhile_is_asked_for_by_another_name() {
        let root = tempdir().unwrap();
        let output = mp4("a.mp4");
        let rendered = || rendered(root.path(), root.path(), &room(""), &output, 0);
        let exists = Outcome::Failed { error: Failure::Exists, message: "there".into(), log: String::new() };
        for name in ["a.mp4", "a-EG_local.mp4", "a-EG_local-2.mp4"] {
            assert_eq!(rendered().unwrap(), None);
            assert_eq!(asked(root.path()).output.as_deref(), Some(Path::new(name)));
            fs::write(root.path().join(name), "somebody's").unwrap();
            answer(root.path(), exists.clone());
        }
        // Of which this node does not know yet.
        fs::remove_file(root.path().join("a-EG_local-2.mp4")).unwrap();
        assert_eq!(rendered().unwrap(), None);
        assert_eq!(asked(root.path()).output.as_deref(), Some(Path::new("a-EG_local-3.mp4")));
        answer(root.path(), complete("a-EG_local-3.mp4".into()));
        assert_eq!(rendered().unwrap().unwrap().path, "a-EG_local-3.mp4");
    }

    #[test]
    fn what_cannot_be_rendered_says_why() {
        let root = tempdir().unwrap();
        let output = mp4("a.mp4");
        let rendered = || rendered(root.path(), root.path(), &room(""), &output, 0);
        assert_eq!(rendered().unwrap(), None);
        let error = plenary_composer::watch::Failure::Disk;
        answer(root.path(), Outcome::Failed { error, message: "the disk failed".into(), log: String::new() });
        assert_eq!(rendered().unwrap_err().to_string(), "could not be rendered: the disk failed");
    }

    #[test]
    fn nobody_waits_for_a_composer_for_ever() {
        let root = tempdir().unwrap();
        let output = mp4("a.mp4");
        let rendered = || rendered(root.path(), root.path(), &room(""), &output, 0);
        assert_eq!(rendered().unwrap(), None);
        let request = fs::File::open(root.path().join(REQUEST)).unwrap();
        request.set_modified(SystemTime::now() - RENDERED_WITHIN).unwrap();
        assert_eq!(rendered().unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!root.path().join(REQUEST).exists() && root.path().join(FAILED).exists());
    }
}
