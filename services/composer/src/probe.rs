//! What is in files: of a recording, and of what ffmpeg made.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    path::Path,
    sync::atomic::AtomicBool,
};

use plenary_recording::{
    PICTURE_PIXELS_MAX,
    session_file::{Epoch, Event, MergeError, ReadError, Session, SessionFile, TrackFile, merge},
};

use crate::{
    ffmpeg::{Media, Product},
    process::{RunError, STALLED_AFTER, gently, lines},
    timeline::Span,
};

/// Far more than a day of a large meeting.
const SESSION_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// By so much a stream may be longer or shorter than it was to be: more than a frame of any sound codec, less than is heard.
const LENGTH_TOLERANCE_US: u64 = 100_000;

#[derive(Debug, thiserror::Error)]
pub enum ReadSessionError {
    #[error("cannot read the recording's directory: {0}")]
    Io(#[from] io::Error),
    #[error("session file {name} {error}")]
    File { name: String, error: ReadError },
    #[error("session file {name} is larger than {SESSION_BYTES_MAX} bytes")]
    TooLarge { name: String },
    #[error(transparent)]
    Merge(#[from] MergeError),
    #[error("it is being recorded")]
    BeingRecorded,
}

/// All session files of a directory as one, unless somebody holds the lock of one: who records does. Those that were not begun
/// are left out, as nothing belongs to them.
pub fn read_session(directory: &Path) -> Result<Session, ReadSessionError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(epoch) = Epoch::of_session_file(&name) else { continue };
        if entry.metadata()?.len() > SESSION_BYTES_MAX {
            return Err(ReadSessionError::TooLarge { name });
        }
        // Shared, so that readers do not take each other for a recorder. Given back at once.
        match File::open(entry.path())?.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ReadSessionError::BeingRecorded),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        match SessionFile::read(epoch, &fs::read(entry.path())?) {
            Ok(file) => files.push(file),
            Err(ReadError::NotBegun) => {}
            Err(error) => return Err(ReadSessionError::File { name, error }),
        }
    }
    Ok(merge(files)?)
}

/// Looks at every file that the session names; those that are not there, or of which ffprobe cannot tell what they hold, are
/// left out. One that was never finished is read as far as it goes.
pub(crate) fn probe(
    directory: &Path,
    session: &Session,
    cancel: &AtomicBool,
) -> Result<BTreeMap<TrackFile, Media>, RunError> {
    let mut found = BTreeMap::new();
    for line in &session.lines {
        let Event::Track { file, .. } = &line.event else { continue };
        let paths = [file.to_string(), file.part()].map(|name| directory.join(name));
        let path = paths.into_iter().find(|path| fs::symlink_metadata(path).is_ok_and(|one| one.is_file()));
        let Some(path) = path else { continue };
        // It was made by a person's browser: nothing but what we wrote is read, whatever it says it is.
        let streams = streams(&path, &["-f", "matroska"], cancel)?;
        if let [Stream { codec, span: Some(span), .. }] = &streams[..] {
            found.insert(file.clone(), Media { path, codec: codec.clone(), span: *span });
        }
    }
    Ok(found)
}

/// How what ffmpeg made differs from what it was to make. It says that all is well after a file of no frames too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    #[error("it has streams of {found:?} instead of {expected:?}")]
    Streams { found: Vec<String>, expected: Vec<&'static str> },
    #[error("its {codec} has {found} frames instead of {expected}")]
    Frames { codec: &'static str, found: u64, expected: u64 },
    #[error("its {codec} is {found_us} µs long instead of {expected_us}")]
    Length { codec: &'static str, found_us: u64, expected_us: u64 },
}

/// By what is in it, not by what its head says.
pub(crate) fn verify(path: &Path, products: &[Product], cancel: &AtomicBool) -> Result<Result<(), Defect>, RunError> {
    Ok(check(&streams(path, &[], cancel)?, products))
}

fn check(streams: &[Stream], products: &[Product]) -> Result<(), Defect> {
    if !streams.iter().map(|stream| &*stream.codec).eq(products.iter().map(|product| product.codec)) {
        let found = streams.iter().map(|stream| stream.codec.clone()).collect();
        return Err(Defect::Streams { found, expected: products.iter().map(|product| product.codec).collect() });
    }
    for (stream, product) in streams.iter().zip(products) {
        let codec = product.codec;
        if let Some(expected) = product.frames.filter(|expected| *expected != stream.packets) {
            return Err(Defect::Frames { codec, found: stream.packets, expected });
        }
        if stream.end_us.abs_diff(product.length_us) > LENGTH_TOLERANCE_US {
            return Err(Defect::Length { codec, found_us: stream.end_us, expected_us: product.length_us });
        }
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Stream {
    codec: String,
    packets: u64,
    /// None if nothing can be decoded.
    span: Option<Span>,
    end_us: u64,
}

/// Reads the time of every packet: a file that was never finished does not say how long it is. One that cannot be read has no
/// streams.
fn streams(path: &Path, format: &[&str], cancel: &AtomicBool) -> Result<Vec<Stream>, RunError> {
    let mut url = OsString::from("file:");
    url.push(path);
    let mut command = gently("ffprobe");
    command.args(["-v", "quiet", "-protocol_whitelist", "file", "-max_pixels", &PICTURE_PIXELS_MAX.to_string()]);
    command.args(format);
    command.args([
        "-show_entries",
        "packet=stream_index,pts_time,duration_time:stream=index,codec_name,codec_type,pix_fmt,width,height",
    ]);
    // Streams come last, each `stream|index=0|…`.
    command.args(["-of", "compact", "-i"]).arg(url);
    let (mut by_index, mut known) = (BTreeMap::new(), Vec::new());
    lines(command, STALLED_AFTER, cancel, |line| {
        let field = |name: &str| line.split('|').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        if let Some(index) = field("stream_index") {
            by_index
                .entry(index.to_owned())
                .or_insert_with(Stream::default)
                .add(field("pts_time").and_then(microseconds), field("duration_time").and_then(microseconds));
        } else if let (Some(index), Some(codec)) = (field("index"), field("codec_name")) {
            let mut stream = by_index.remove(index).unwrap_or_default();
            codec.clone_into(&mut stream.codec);
            // ffprobe has decoded the beginning where it could not tell otherwise what pixels come of it, and gives pictures that are
            // too large no size.
            let has_pixels = field("pix_fmt").is_some_and(|format| format != "unknown");
            let has_size = ["width", "height"].iter().all(|side| field(side).is_some_and(|pixels| pixels != "0"));
            if field("codec_type") == Some("video") && !(has_pixels && has_size) {
                stream.span = None;
            }
            known.push(stream);
        }
    })?;
    Ok(known)
}

impl Stream {
    fn add(&mut self, at_us: Option<u64>, length_us: Option<u64>) {
        self.packets += 1;
        let Some(us) = at_us else { return };
        let span = self.span.get_or_insert(Span { first_us: us, last_us: us });
        span.first_us = span.first_us.min(us);
        span.last_us = span.last_us.max(us);
        self.end_us = self.end_us.max(us.saturating_add(length_us.unwrap_or(0)));
    }
}

/// Of a decimal number of seconds. Opus begins before zero by what its decoder needs to get going: that is none to hear.
fn microseconds(seconds: &str) -> Option<u64> {
    let seconds: f64 = seconds.parse().ok()?;
    // Saturates, and what is no number is zero.
    Some((seconds * 1e6).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_packets_are_read_as_ffprobe_prints_them() {
        let table = [("0.000000", Some(0)), ("-0.007000", Some(0)), ("12.345678", Some(12_345_678)), ("N/A", None)];
        for (text, us) in table {
            assert_eq!(microseconds(text), us, "{text}");
        }
    }

    #[test]
    fn what_is_not_as_it_was_to_be_has_a_name() {
        let stream = |codec: &str, packets, end_us| Stream { codec: codec.into(), packets, span: None, end_us };
        let products = [
            Product { codec: "h264", frames: Some(50), length_us: 2_000_000 },
            Product { codec: "aac", frames: None, length_us: 2_000_000 },
        ];
        assert_eq!(check(&[stream("h264", 50, 2_000_000), stream("aac", 95, 2_021_000)], &products), Ok(()));
        for (streams, defect) in [
            (vec![], "it has streams of []"),
            (vec![stream("h264", 50, 2_000_000)], "it has streams of [\"h264\"]"),
            (vec![stream("h264", 0, 0), stream("aac", 95, 2_000_000)], "its h264 has 0 frames instead of 50"),
            (vec![stream("h264", 50, 2_000_000), stream("aac", 9, 200_000)], "its aac is 200000 µs long"),
        ] {
            let found = check(&streams, &products).unwrap_err().to_string();
            assert!(found.starts_with(defect), "{found}");
        }
    }
}
