//! Recordings made of ffmpeg's pictures and our own files, and a look at what is composed of them.

use std::{
    fs::{self, File},
    num::NonZeroU32,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use plenary_composer::{Canvas, Settings, default_font};
use plenary_model::{Codec, Source};
use plenary_recording::{
    Container, Frame, TrackInfo, VideoCodec, Writer,
    session_file::{Epoch, Event, Line, Predecessor, Started, TrackFile, VERSION},
};

pub const BEGAN_US: u64 = 1_764_000_000_000_000;
pub const CANVAS: Canvas = Canvas { width: 320, height: 180 };
/// What is looked at is as large.
const SEEN: (usize, usize) = (64, 36);

pub fn settings(fps: u32) -> Settings {
    let settings = Settings { canvas: CANVAS, fps, font: default_font(), free_bytes_min: 0, ..Settings::default() };
    assert!(settings.font.is_some(), "ffmpeg's package brings a font");
    settings
}

/// Of one track.
pub struct Media {
    pub info: TrackInfo,
    pub frames: Vec<Frame>,
}

/// A source of ffmpeg in a codec, with a key frame every so many frames.
pub fn picture(codec: VideoCodec, key_every: u32, source: &str) -> Media {
    let options: &[&str] = match codec {
        VideoCodec::Vp8 => &["libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "300k"],
        VideoCodec::Vp9 => &["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0"],
        VideoCodec::H264 => &["libx264", "-preset", "ultrafast", "-bf", "0"],
        VideoCodec::Av1 => &["libsvtav1", "-preset", "12"],
    };
    media(source, &[&["-c:v"], options, &["-g", &key_every.to_string(), "-pix_fmt", "yuv420p"]].concat())
}

pub fn sound(source: &str) -> Media {
    media(source, &["-c:a", "libopus", "-b:a", "64k"])
}

fn media(source: &str, codec: &[&str]) -> Media {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("input.mkv");
    let made = Command::new("ffmpeg")
        .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", source])
        .args(codec)
        .args(["-threads", "1"])
        .arg(&path)
        // One of the encoders talks.
        .stderr(Stdio::null())
        .status()
        .expect("ffmpeg is installed by .ci/install-test-tools");
    assert!(made.success(), "{source}");
    let mut file = matroska_demuxer::MatroskaFile::open(File::open(&path).unwrap()).unwrap();
    let info = info(&file.tracks()[0]);
    let (mut frames, mut read) = (Vec::new(), matroska_demuxer::Frame::default());
    while file.next_frame(&mut read).unwrap() {
        frames.push(Frame {
            at: Duration::from_millis(read.timestamp),
            is_key: read.is_keyframe.unwrap_or(true),
            data: std::mem::take(&mut read.data).into(),
        });
    }
    Media { info, frames }
}

fn info(track: &matroska_demuxer::TrackEntry) -> TrackInfo {
    let codec = match track.codec_id() {
        "A_OPUS" => return TrackInfo::Opus { channels: 1 },
        "V_VP8" => VideoCodec::Vp8,
        "V_VP9" => VideoCodec::Vp9,
        "V_AV1" => VideoCodec::Av1,
        "V_MPEG4/ISO/AVC" => VideoCodec::H264,
        other => panic!("{other}"),
    };
    let has_private = matches!(codec, VideoCodec::Av1 | VideoCodec::H264);
    let codec_private = track.codec_private().filter(|_| has_private).unwrap_or_default().to_vec().into();
    let size = |pixels: u64| NonZeroU32::new(pixels as u32).unwrap();
    let video = track.video().unwrap();
    TrackInfo::Video {
        codec,
        width: size(video.pixel_width().get()),
        height: size(video.pixel_height().get()),
        codec_private,
    }
}

/// What one recorder writes, at milliseconds since [`BEGAN_US`].
pub struct Recorder<'a> {
    directory: &'a Path,
    epoch: Epoch,
    /// What its clock shows is later by so much.
    ahead_us: u64,
    lines: Vec<(u64, Event)>,
}

impl<'a> Recorder<'a> {
    pub fn new(directory: &'a Path, epoch: Epoch, at_ms: u64, predecessor: Option<Predecessor>) -> Self {
        let ahead_us = predecessor.map_or(0, |predecessor| predecessor.clock_ahead_us as u64);
        let started = Event::Started(Started {
            version: VERSION,
            recording: "EG_x".into(),
            room: "RM_r".into(),
            room_name: "room".into(),
            node: "ND_n".into(),
            predecessor,
            former: None,
        });
        Self { directory, epoch, ahead_us, lines: vec![(at_ms, started)] }
    }

    pub fn tell(&mut self, at_ms: u64, event: Event) {
        self.lines.push((at_ms, event));
    }

    /// `ann` is `PA_ann`.
    pub fn joined(&mut self, at_ms: u64, who: &str, name: &str) {
        let participant = format!("PA_{who}").into();
        self.tell(at_ms, Event::Participant { participant, identity: who.to_owned(), name: name.to_owned() });
    }

    /// Writes the file too, whose zero is that moment. One that is not finished is what a killed recorder leaves.
    pub fn track(
        &mut self,
        at_ms: u64,
        sid: &str,
        who: &str,
        source: Source,
        media: &Media,
        is_finished: bool,
    ) -> TrackFile {
        let codec = media.info.codec();
        let container = if codec == Codec::H264 { Container::Matroska } else { Container::WebM };
        let file = TrackFile::new(self.epoch, &sid.into(), 0, container).unwrap();
        let name = if is_finished { file.to_string() } else { file.part() };
        fs::write(self.directory.join(name), written(media, is_finished)).unwrap();
        let zero_us = self.at_us(at_ms);
        let participant = format!("PA_{who}").into();
        self.tell(at_ms, Event::Track { file: file.clone(), participant, source, codec, zero_us });
        file
    }

    /// The session file. Without `stopped` it died.
    pub fn end(self) {
        let encoded = |(ms, event): &(u64, Event)| Line { at_us: self.at_us(*ms), event: event.clone() }.encode();
        let lines: Vec<u8> = self.lines.iter().flat_map(encoded).collect();
        fs::write(self.directory.join(self.epoch.session_file()), lines).unwrap();
    }

    fn at_us(&self, ms: u64) -> u64 {
        BEGAN_US + self.ahead_us + ms * 1000
    }
}

fn written(media: &Media, is_finished: bool) -> Vec<u8> {
    let (mut writer, header) = Writer::new(&media.info);
    let mut bytes = header.to_vec();
    for frame in &media.frames {
        bytes.extend(writer.push(frame).into_iter().flatten());
    }
    if !is_finished {
        bytes.extend(writer.flush().into_iter().flatten());
        return bytes;
    }
    let finish = writer.finish().unwrap();
    bytes.extend(finish.tail);
    for patch in finish.patches {
        let at = patch.at as usize;
        bytes[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
    }
    bytes
}

pub fn probe(path: &Path, entries: &str) -> Vec<String> {
    let mut command = Command::new("ffprobe");
    command.args(["-v", "error", "-show_entries", entries, "-of", "default=nw=1:nk=1"]).arg(path);
    let told = command.output().unwrap();
    String::from_utf8(told.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// In seconds.
pub fn length(path: &Path) -> f64 {
    probe(path, "format=duration")[0].parse().unwrap()
}

fn decoded(path: &Path, before: &[&str], after: &[&str]) -> Vec<u8> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-loglevel", "error"]).args(before).arg("-i").arg(file_url(path)).args(after).arg("-");
    let out = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(out.status.success());
    out.stdout
}

fn file_url(path: &Path) -> PathBuf {
    format!("file:{}", path.display()).into()
}

/// Every frame, small.
pub struct Seen {
    pub frames: Vec<Vec<u8>>,
    fps: u32,
}

impl Seen {
    pub fn of(path: &Path, fps: u32) -> Self {
        let scale = format!("scale={}:{}:flags=neighbor", SEEN.0, SEEN.1);
        let all = decoded(path, &[], &["-vf", &scale, "-vsync", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo"]);
        Self { frames: all.chunks_exact(SEEN.0 * SEEN.1 * 3).map(<[u8]>::to_vec).collect(), fps }
    }

    /// What is there at a moment, in pixels of the canvas.
    pub fn color(&self, ms: u64, (x, y): (u32, u32)) -> &'static str {
        let frame = &self.frames[(ms * u64::from(self.fps) / 1000) as usize];
        let (x, y) = (x as usize * SEEN.0 / CANVAS.width as usize, y as usize * SEEN.1 / CANVAS.height as usize);
        color(&frame[(y * SEEN.0 + x) * 3..][..3])
    }

    /// The first moment at which it is white there.
    pub fn flash(&self, mut between_ms: std::ops::Range<u64>, place: (u32, u32)) -> Option<u64> {
        between_ms.find(|ms| self.color(*ms, place) == "white")
    }
}

pub fn has_white(path: &Path, ms: u64, (x, y, width, height): (u32, u32, u32, u32)) -> bool {
    let at = format!("{}.{:03}", ms / 1000, ms % 1000);
    let crop = format!("crop={width}:{height}:{x}:{y}");
    let after = ["-frames:v", "1", "-vf", &crop, "-pix_fmt", "rgb24", "-f", "rawvideo"];
    decoded(path, &["-ss", &at], &after).chunks_exact(3).any(|pixel| pixel.iter().all(|part| *part > 180))
}

fn color(pixel: &[u8]) -> &'static str {
    let levels: Vec<_> = pixel.iter().map(|part| (*part > 170, *part < 80)).collect();
    const HIGH: (bool, bool) = (true, false);
    const LOW: (bool, bool) = (false, true);
    match levels[..] {
        [HIGH, HIGH, HIGH] => "white",
        [HIGH, LOW, LOW] => "red",
        [LOW, HIGH, LOW] => "lime",
        [LOW, LOW, HIGH] => "blue",
        [HIGH, HIGH, LOW] => "yellow",
        [HIGH, LOW, HIGH] => "magenta",
        [LOW, LOW, LOW] => "dark",
        _ => "else",
    }
}

/// 48 kHz, one channel.
pub struct Heard(Vec<f32>);

impl Heard {
    pub fn of(path: &Path) -> Self {
        let bytes = decoded(path, &[], &["-ac", "1", "-ar", "48000", "-f", "f32le"]);
        Self(bytes.chunks_exact(4).map(|sample| f32::from_le_bytes(sample.try_into().unwrap())).collect())
    }

    /// Amplitude of a tone in the 10 ms around a moment.
    pub fn level(&self, ms: u64, hertz: f32) -> f32 {
        let from = (ms * 48 - 240) as usize;
        let Some(window) = self.0.get(from..from + 480) else { return 0.0 };
        let (mut re, mut im) = (0.0, 0.0);
        for (index, sample) in window.iter().enumerate() {
            let angle = std::f32::consts::TAU * hertz * index as f32 / 48_000.0;
            re += sample * angle.cos();
            im += sample * angle.sin();
        }
        (re * re + im * im).sqrt() * 2.0 / 480.0
    }

    /// The first moment at which there is the beep.
    pub fn beep(&self, mut between_ms: std::ops::Range<u64>) -> Option<u64> {
        between_ms.find(|ms| self.level(*ms, 1000.0) > 0.05)
    }
}
