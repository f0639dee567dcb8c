//! What is to be rendered is asked of the composer, by files in the recording's directory (`proto/plenary/v1/compose.md`), one output
//! after the other.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use plenary_composer::{
    Content, Format, Layout,
    watch::{FAILED, Outcome, REQUEST, RESULT, Request, ResultFile},
};
use plenary_model::{Egress, EgressFile, EgressFileKind, EgressMedia, EgressOutput, EgressSource};

use crate::egress::apart;

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
    if directory.join(REQUEST).is_file() {
        return Ok(None);
    }
    let own = apart(&output.path, &egress.id);
    if let Some(answer) = read(&directory.join(RESULT))? {
        let is_ours = match &answer {
            Outcome::Complete { path, .. } => [&output.path, &own].iter().any(|own| path == Path::new(own)),
            Outcome::Failed { .. } => true,
        };
        if is_ours {
            // Whoever asks after a crash, or for the next output, finds what became of this one.
            fs::rename(directory.join(RESULT), kept)?;
            return file_of(answer).map(Some);
        }
    }
    let is_taken = root.join(&output.path).symlink_metadata().is_ok();
    ask(directory, &request(egress, output.kind, if is_taken { own } else { output.path.clone() }))?;
    Ok(None)
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
        format,
        layout,
        content: if has_picture { content } else { Content::Audio },
        names: matches!(egress.source, EgressSource::Room { .. }),
        ..Request::default()
    }
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
