//! Where a recording's file shall be: what clients wrote, made into a path below the recordings' directory that can do no harm.
//!
//! The parts between slashes are made one by one after everything is filled in, and a slash in a name is no slash: so neither
//! a room nor a person can lead anywhere else. What the template itself says of other places is refused, so that nobody finds
//! their file elsewhere than they asked for.

use std::time::{Duration, UNIX_EPOCH};

use plenary_model::EgressId;
use plenary_recording::Container;

/// What placeholders stand for. What is unset cannot be named.
#[derive(Debug, Clone, Default)]
pub struct Facts<'a> {
    pub room_name: &'a str,
    pub room_id: &'a str,
    pub unix_ms: u64,
    pub publisher_identity: Option<&'a str>,
    pub track: Option<TrackFacts<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub struct TrackFacts<'a> {
    pub id: &'a str,
    /// `audio` or `video`.
    pub kind: &'a str,
    /// `camera`, `microphone`, `screen_share` or `screen_share_audio`.
    pub source: &'a str,
    /// What a file with nothing but the track is.
    pub container: Container,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("filepath must be relative to the recordings' directory")]
    Absolute,
    #[error("filepath must not contain `.` or `..` as a part")]
    Dots,
    #[error("filepath has more than {TEMPLATE_BYTES_MAX} bytes, or more than {PARTS_MAX} parts")]
    TooLong,
    #[error("filepath names {{{0}}}, which this recording does not have")]
    Unknown(&'static str),
}

/// A relative path: parts of letters, digits and a few signs, one slash between two. `default` is the file's name where the template
/// names a directory or nothing; `ending` says what is in it, whatever the template says.
pub fn expand(template: &str, default: &str, ending: &str, facts: &Facts<'_>) -> Result<String, PathError> {
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    let is_drive = template.as_bytes().get(1) == Some(&b':');
    if template.starts_with(['/', '\\']) || is_drive {
        return Err(PathError::Absolute);
    }
    let (directory, file) = template.rsplit_once('/').unwrap_or(("", template));
    let file = if file.is_empty() { default } else { file };
    let mut parts = Vec::new();
    for part in directory.split('/').filter(|part| !part.is_empty()).chain([file]) {
        if matches!(part.trim(), "." | "..") || part.split('\\').any(|piece| piece.trim() == "..") {
            return Err(PathError::Dots);
        }
        parts.push(harmless(&fill(part, facts)?));
    }
    if parts.len() > PARTS_MAX {
        return Err(PathError::TooLong);
    }
    if let Some(file) = parts.last_mut() {
        end_with(file, ending);
    }
    Ok(parts.join("/"))
}

/// What a recording's file may be called, the first that nothing else is called so: as it was asked for, with the recording's id, and
/// where it has several files of that name, with a number.
pub fn names(path: &str, id: &EgressId) -> impl Iterator<Item = String> {
    (0..NAMES_TRIED_MAX).map(move |number| match number {
        0 => path.to_owned(),
        1 => apart(path, id),
        _ => apart(path, &format!("{id}-{number}").as_str().into()),
    })
}

/// The same path for one recording alone.
pub fn apart(path: &str, id: &EgressId) -> String {
    let (directory, file) = path.rsplit_once('/').map_or(("", path), |(directory, file)| (directory, file));
    let (name, ending) = file.rsplit_once('.').unwrap_or((file, ""));
    let own = format!("-{id}.{ending}");
    let mut name = name.to_owned();
    cut(&mut name, PART_BYTES_MAX.saturating_sub(own.len()));
    let slash = if directory.is_empty() { "" } else { "/" };
    format!("{directory}{slash}{name}{own}")
}

fn fill(part: &str, facts: &Facts<'_>) -> Result<String, PathError> {
    let mut filled = String::new();
    let mut rest = part;
    while let Some((before, found)) = rest.split_once('{') {
        filled.push_str(before);
        let named = NAMES.iter().find_map(|name| Some((*name, found.strip_prefix(name)?.strip_prefix('}')?)));
        let Some((name, behind)) = named else {
            filled.push('{');
            rest = found;
            continue;
        };
        let value = value(name, facts).ok_or(PathError::Unknown(name))?;
        filled.push_str(&value);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value(name: &str, facts: &Facts<'_>) -> Option<String> {
    let track = facts.track;
    Some(match name {
        "room_name" => facts.room_name.to_owned(),
        "room_id" => facts.room_id.to_owned(),
        "time" => time(facts.unix_ms, false),
        "utc" => time(facts.unix_ms, true),
        "publisher_identity" => facts.publisher_identity?.to_owned(),
        "track_id" => track?.id.to_owned(),
        "track_type" => track?.kind.to_owned(),
        "track_source" => track?.source.to_owned(),
        _ => return None,
    })
}

/// As `2026-11-22T083000`, or with milliseconds and digits alone.
fn time(unix_ms: u64, digits: bool) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms.min(TIME_MAX_MS));
    let text = humantime::format_rfc3339_millis(at).to_string();
    let (seconds, millis) = text.trim_end_matches('Z').split_once('.').unwrap_or((&text, "000"));
    if digits {
        seconds.chars().chain(millis.chars()).filter(char::is_ascii_digit).collect()
    } else {
        seconds.replace(':', "")
    }
}

/// A file's or directory's name out of what anybody may have called themselves.
fn harmless(part: &str) -> String {
    let allowed = |letter: char| letter.is_alphanumeric() || "-_.+@=, ".contains(letter);
    let mut name: String = part.chars().map(|letter| if allowed(letter) { letter } else { '_' }).collect();
    // Leading dots hide or climb, a leading dash is an option to programs, a recording's own directory is called by its id, and some
    // systems drop what is at the end.
    name = name.trim_start().trim_end_matches(['.', ' ']).to_owned();
    if name.starts_with(['.', '-']) || name.starts_with("EG_") || is_device(&name) {
        name.insert(0, '_');
    }
    cut(&mut name, PART_BYTES_MAX);
    if name.is_empty() { "_".to_owned() } else { name }
}

/// What some systems take for a device, whatever follows the first dot.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim().to_ascii_lowercase();
    let numbered = |kind: &str| stem.strip_prefix(kind).is_some_and(|digit| digit.chars().count() == 1);
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul") || numbered("com") || numbered("lpt")
}

fn cut(name: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name.truncate(end);
    name.truncate(name.trim_end_matches(['.', ' ']).len());
}

/// An ending that says that something else is in it goes.
fn end_with(file: &mut String, ending: &str) {
    let other = file.rsplit_once('.').filter(|(_, other)| ENDINGS.contains(&&*other.to_ascii_lowercase()));
    if let Some((name, _)) = other {
        file.truncate(name.len());
    }
    cut(file, PART_BYTES_MAX.saturating_sub(ending.len()).saturating_sub(1));
    if file.is_empty() {
        file.push('_');
    }
    file.push('.');
    file.push_str(ending);
}

const NAMES: [&str; 8] =
    ["room_name", "room_id", "time", "utc", "track_id", "track_type", "track_source", "publisher_identity"];

/// Of files with sound or pictures in them.
const ENDINGS: [&str; 9] = ["mp4", "m4a", "ogg", "opus", "mp3", "webm", "mkv", "ivf", "ts"];

const TEMPLATE_BYTES_MAX: usize = 1024;

/// Directories and the file.
const PARTS_MAX: usize = 16;

/// Files of one name.
pub const NAMES_TRIED_MAX: usize = 1_000;

/// Below what file systems take (255), with space for what is added while a file is not whole.
pub const PART_BYTES_MAX: usize = 200;

/// The end of the year 9999, the last with four digits.
const TIME_MAX_MS: u64 = 253_402_300_799_999;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            room_name: "Stand up",
            room_id: "RM_1",
            unix_ms: 1_795_336_245_678,
            publisher_identity: Some("ann"),
            track: Some(TrackFacts { id: "TR_1", kind: "video", source: "screen_share", container: Container::WebM }),
        }
    }

    fn mp4(template: &str, facts: &Facts<'_>) -> Result<String, PathError> {
        expand(template, "{room_name}-{time}", "mp4", facts)
    }

    #[test]
    fn placeholders_are_filled_in() {
        for (template, expected) in [
            ("", "Stand up-2026-11-22T083045.mp4"),
            ("calls/", "calls/Stand up-2026-11-22T083045.mp4"),
            ("a//b/{room_id}.mp4", "a/b/RM_1.mp4"),
            ("{room_id}.MP4", "RM_1.mp4"),
            ("talk.ogg", "talk.mp4"),
            (".webm", "_.mp4"),
            ("{utc}", "20261122083045678.mp4"),
            ("{track_id}-{track_type}-{track_source}/{publisher_identity}", "TR_1-video-screen_share/ann.mp4"),
            ("{what}{room_id}{", "_what_RM_1_.mp4"),
            ("talk.v1", "talk.v1.mp4"),
            ("naïve 日本", "naïve 日本.mp4"),
        ] {
            assert_eq!(mp4(template, &facts()).as_deref(), Ok(expected), "{template}");
        }
        let direct = expand("", "{track_id}-{time}", "webm", &facts());
        assert_eq!(direct.as_deref(), Ok("TR_1-2026-11-22T083045.webm"));
    }

    #[test]
    fn one_recordings_path_is_told_from_those_of_others() {
        let id = EgressId::from("EG_1");
        assert_eq!(apart("calls/talk.v1.mp4", &id), "calls/talk.v1-EG_1.mp4");
        assert_eq!(apart("x.webm", &id), "x-EG_1.webm");
        let long = expand(&"é".repeat(150), "", "mp4", &facts()).unwrap();
        let own = apart(&long, &id);
        assert!(own.ends_with("é-EG_1.mp4") && own.len() <= PART_BYTES_MAX, "{own}");
    }

    #[test]
    fn templates_that_lead_elsewhere_are_refused() {
        for (template, expected) in [
            ("/etc/passwd", PathError::Absolute),
            ("\\\\host\\share", PathError::Absolute),
            ("C:/x", PathError::Absolute),
            ("..", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("a/ .. /b", PathError::Dots),
            ("a\\..\\b", PathError::Dots),
            ("./a", PathError::Dots),
            (&"a/".repeat(40), PathError::TooLong),
            (&"a".repeat(1025), PathError::TooLong),
        ] {
            assert_eq!(mp4(template, &facts()), Err(expected), "{template}");
        }
        let room = Facts { track: None, publisher_identity: None, ..facts() };
        for name in ["track_id", "track_type", "track_source", "publisher_identity"] {
            assert_eq!(mp4(&format!("x{{{name}}}"), &room), Err(PathError::Unknown(name)));
        }
    }

    #[test]
    fn hostile_names_become_names() {
        for (name, expected) in [
            ("../../etc/passwd", "_.._.._etc_passwd.mp4"),
            ("..", "_.mp4"),
            ("CON", "_CON.mp4"),
            ("aux.txt", "_aux.txt.mp4"),
            ("-rf", "_-rf.mp4"),
            ("EG_2", "_EG_2.mp4"),
            ("a\0b\nc\u{1b}[31m", "a_b_c__31m.mp4"),
            ("':x=1,drawbox", "__x=1,drawbox.mp4"),
            ("<img onerror>", "_img onerror_.mp4"),
            ("\u{202e}gpj.exe", "_gpj.exe.mp4"),
            ("   ", "_.mp4"),
        ] {
            let facts = Facts { room_name: name, ..facts() };
            assert_eq!(mp4("{room_name}", &facts).as_deref(), Ok(expected), "{name:?}");
        }
    }

    /// Text with what has been used to break out of directories.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("..".to_owned()),
            Just("/".to_owned()),
            Just("\\".to_owned()),
            Just("\0".to_owned()),
            Just("{room_name}".to_owned()),
            Just("{publisher_identity}".to_owned()),
            Just("{{}".to_owned()),
            Just(" ".to_owned()),
            Just(".".to_owned()),
            Just("nul".to_owned()),
            Just("EG_2".to_owned()),
            Just("\u{202e}".to_owned()),
            Just("é".repeat(150)),
            any::<String>(),
        ];
        prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_template_and_no_name_leads_out_of_the_directory(
            template in hostile(),
            room_name in hostile(),
            identity in hostile(),
            track in hostile(),
        ) {
            let track = TrackFacts { id: &track, kind: "audio", source: "microphone", container: Container::WebM };
            let facts = Facts {
                room_name: &room_name,
                publisher_identity: Some(&identity),
                track: Some(track),
                ..facts()
            };
            let Ok(path) = expand(&template, "{room_name}-{track_id}", "mp4", &facts) else { return Ok(()) };
            for path in [apart(&path, &EgressId::from("EG_1")), path] {
                prop_assert!(path.ends_with(".mp4"), "{path:?}");
                let parts: Vec<_> = path.split('/').collect();
                prop_assert!(parts.len() <= PARTS_MAX, "{path:?}");
                for part in parts {
                    prop_assert!(!part.is_empty() && part.len() <= PART_BYTES_MAX, "{path:?}");
                    prop_assert!(!part.starts_with("EG_"), "{path:?}");
                    prop_assert!(!part.starts_with(['.', '-', ' ']) && !part.ends_with(['.', ' ']), "{path:?}");
                    prop_assert!(!part.contains(['\\', ':', '{', '}', '\'', '"', '%', '$', '`', '*', '?']), "{path:?}");
                    prop_assert!(!part.chars().any(char::is_control), "{path:?}");
                }
                let components = std::path::Path::new(&path).components();
                prop_assert!(components.into_iter().all(|one| matches!(one, std::path::Component::Normal(_))));
            }
        }
    }
}
