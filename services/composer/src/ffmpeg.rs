//! The plan as command lines. Whatever a person chose reaches ffmpeg in a file of its own, never as part of an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
};

use clap::ValueEnum;
use plenary_recording::{PICTURE_PIXELS_MAX, session_file::TrackFile};
use serde::{Deserialize, Serialize};

use crate::{
    layout::{Canvas, Layout, Rect},
    plan::{Piece, Plan, SOUNDS_MAX, Sound, Tile, Window},
    timeline::{SECOND_US, Span},
};

const SAMPLE_RATE: u64 = 48_000;
/// Room for as many loud voices at once in what stands between mixing and the last step, which gives it back.
const HEADROOM: u64 = 4;
const BEHIND: &str = "0x101014";
const PLACEHOLDER: &str = "0x2a2a32";
/// What the runner calls the font in the work directory.
pub(crate) const FONT: &str = "font";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lower")]
pub enum Format {
    /// H.264 and AAC, with its index in front.
    #[default]
    Mp4,
    /// VP9 and Opus.
    WebM,
    /// Opus, without picture.
    Ogg,
    /// Without picture.
    Mp3,
}

impl Format {
    pub const ALL: [Self; 4] = [Self::Mp4, Self::WebM, Self::Ogg, Self::Mp3];

    pub fn has_picture(self) -> bool {
        matches!(self, Self::Mp4 | Self::WebM)
    }

    pub fn extension(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::WebM => "webm",
            Self::Ogg => "ogg",
            Self::Mp3 => "mp3",
        }
    }

    /// Of those that have a picture.
    fn video_codec(self) -> &'static str {
        match self {
            Self::Mp4 => "h264",
            Self::WebM | Self::Ogg | Self::Mp3 => "vp9",
        }
    }

    fn audio_codec(self) -> &'static str {
        match self {
            Self::Mp4 => "aac",
            Self::WebM | Self::Ogg => "opus",
            Self::Mp3 => "mp3",
        }
    }
}

/// What of the meeting becomes the video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    #[default]
    All,
    /// Without picture.
    Audio,
    /// Without sound.
    Video,
}

/// What the video is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub layout: Layout,
    pub format: Format,
    pub content: Content,
    /// Identities of those who are seen and heard; empty means everybody.
    pub participants: BTreeSet<String>,
    pub canvas: Canvas,
    pub fps: u32,
    /// Without one the quality is the same everywhere, whatever it takes.
    pub video_bits_per_second: Option<u32>,
    pub audio_bits_per_second: Option<u32>,
    /// Of one encoder or decoder. One ffmpeg runs at a time.
    pub threads: u32,
    /// Whether names stand in the picture. Without a font they do not.
    pub names: bool,
    pub font: Option<PathBuf>,
    /// With less on the disk, nothing is rendered.
    pub free_bytes_min: u64,
    /// Whether a file that is called like the video is replaced. Otherwise it stays, and there is no video.
    pub replaces: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSettings {
    #[error("width and height must be even, from 160x90 to 3840x2160")]
    Canvas,
    #[error("frames per second must be from 1 to 60")]
    Fps,
    #[error("video must be given 50000 to 50000000 bits per second, and audio 16000 to 320000")]
    BitRate,
    #[error("threads must be from 1 to 64")]
    Threads,
    #[error("ogg and mp3 have sound alone")]
    NoPicture,
}

impl Settings {
    pub fn check(&self) -> Result<(), BadSettings> {
        let Canvas { width, height } = self.canvas;
        let is_canvas = (160..=3840).contains(&width) && (90..=2160).contains(&height);
        if !is_canvas || width % 2 != 0 || height % 2 != 0 {
            return Err(BadSettings::Canvas);
        }
        if !(1..=60).contains(&self.fps) {
            return Err(BadSettings::Fps);
        }
        let is_between = |rate: Option<u32>, least, most| rate.is_none_or(|rate| (least..=most).contains(&rate));
        if !is_between(self.video_bits_per_second, 50_000, 50_000_000)
            || !is_between(self.audio_bits_per_second, 16_000, 320_000)
        {
            return Err(BadSettings::BitRate);
        }
        if !(1..=64).contains(&self.threads) {
            return Err(BadSettings::Threads);
        }
        if !self.format.has_picture() && self.content != Content::Audio {
            return Err(BadSettings::NoPicture);
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        let canvas = Canvas { width: 1280, height: 720 };
        Self {
            layout: Layout::default(),
            format: Format::default(),
            content: Content::default(),
            participants: BTreeSet::new(),
            canvas,
            fps: 25,
            video_bits_per_second: None,
            audio_bits_per_second: None,
            threads: 2,
            names: true,
            font: None,
            // Recordings end at half of it, unless that is configured otherwise.
            free_bytes_min: 2 << 30,
            replaces: true,
        }
    }
}

/// A file of a recording where it was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Media {
    /// Absolute.
    pub path: PathBuf,
    /// As ffmpeg calls it.
    pub codec: String,
    pub span: Span,
}

/// One run of ffmpeg in the work directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it makes there. Different for everything that makes the result different, so that what is there need not be made
    /// again.
    pub output: String,
    /// Text that it reads there: name and content.
    pub texts: Vec<(String, String)>,
    /// All but the output's name, which comes last.
    pub args: Vec<OsString>,
    /// The streams of what it makes, in order.
    pub products: Vec<Product>,
}

/// A stream as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// As ffmpeg calls it.
    pub codec: &'static str,
    /// Of a picture.
    pub frames: Option<u64>,
    pub length_us: u64,
}

/// All steps, each using only files of the recording and of steps before. The last one makes the video.
pub fn steps(plan: &Plan, media: &BTreeMap<TrackFile, Media>, settings: &Settings) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lists = Vec::new();
    if settings.content != Content::Audio {
        let mut pictures = List::new("pictures.txt", settings.format.video_codec());
        for (index, piece) in plan.pieces.iter().enumerate() {
            let step = piece_step(index, piece, media, settings);
            pictures.add(&step);
            steps.push(step);
        }
        lists.push(pictures);
    }
    if settings.content != Content::Video {
        let mut sounds = List::new("sounds.txt", settings.format.audio_codec());
        for (index, window) in plan.windows.iter().enumerate() {
            let mixes = window_steps(index, window, media, settings);
            mixes.last().into_iter().for_each(|step| sounds.add(step));
            steps.extend(mixes);
        }
        lists.push(sounds);
    }
    steps.push(video_step(lists, settings));
    steps
}

/// Files that become one stream of the video.
struct List {
    name: &'static str,
    text: String,
    product: Product,
}

impl List {
    fn new(name: &'static str, codec: &'static str) -> Self {
        let text = String::from("ffconcat version 1.0\n");
        Self { name, text, product: Product { codec, frames: None, length_us: 0 } }
    }

    fn add(&mut self, step: &Step) {
        for Product { frames, length_us, .. } in &step.products {
            let _ = writeln!(self.text, "file '{}'\nduration {}", step.output, seconds(length_us.cast_signed()));
            self.product.length_us += length_us;
            self.product.frames = frames.map(|frames| frames + self.product.frames.unwrap_or(0));
        }
    }
}

fn piece_step(index: usize, piece: &Piece, media: &BTreeMap<TrackFile, Media>, settings: &Settings) -> Step {
    let mut command = Command::new(settings);
    let mut graph = String::new();
    let mut inputs = 0;
    let frames = piece.frames.end - piece.frames.start;
    // Nothing in the graph is endless: ffmpeg 5.1 would then turn in circles when a file ends before the piece.
    let length = seconds((frames * SECOND_US).div_ceil(u64::from(settings.fps)).cast_signed());
    for (number, tile) in piece.tiles.iter().enumerate() {
        let has_name = settings.names && settings.font.is_some() && !tile.name.is_empty();
        let text = format!("name-{index}-{number}.txt");
        let mut branch = |filters: &str, is_picture: bool, label: &str| {
            let name = if has_name { name_filter(&text, tile, is_picture) } else { String::new() };
            let _ = write!(graph, "{filters}{name},setsar=1,format=yuv420p{label};");
        };
        let Rect { width, height, .. } = tile.rect;
        let placeholder = format!("color=c={PLACEHOLDER}:s={width}x{height}:r={}:d={length}", settings.fps);
        match tile.picture.as_ref().and_then(|picture| Some((picture, media.get(&picture.file)?))) {
            Some((picture, found)) => {
                // From the key frame before, as `fps` then has the frame that is shown at that moment, however long it is
                // shown already. Sizes may change inside: the graph must stay and `scale` see to it.
                command.args(["-noaccurate_seek", "-reinit_filter", "0"]);
                // Larger ones cannot be decoded.
                command.args(["-max_pixels", &PICTURE_PIXELS_MAX.to_string()]);
                command.input(found, picture.seek_us);
                let filters = format!("[{inputs}:v:0]{}", picture_filters(tile, settings.fps));
                // Its last frame stays to the end; where not one can be decoded, the placeholder comes after nothing.
                let stays = format!(",tpad=stop={frames}:stop_mode=clone[seen{number}]");
                branch(&filters, true, &stays);
                branch(&placeholder, false, &format!("[blank{number}]"));
                let _ = write!(graph, "[seen{number}][blank{number}]concat=n=2[tile{number}];");
                inputs += 1;
            }
            None => branch(&placeholder, false, &format!("[tile{number}]")),
        }
        if has_name {
            command.texts.push((text, tile.name.clone()));
        }
    }
    graph.push_str(&stack(&piece.tiles, settings));
    graph.push_str("[out]");
    command.args(["-filter_complex", &graph, "-map", "[out]", "-an"]);
    command.args(["-frames:v", &frames.to_string()]);
    command.args(["-r", &settings.fps.to_string(), "-g", &(settings.fps * 4).to_string()]);
    match settings.format {
        // Without B frames, pieces begin and end where they say.
        Format::Mp4 => {
            command.args(["-c:v", "libx264", "-preset", "veryfast", "-profile:v", "high", "-bf", "0"]);
            if settings.video_bits_per_second.is_none() {
                command.args(["-crf", "23"]);
            }
        }
        Format::WebM | Format::Ogg | Format::Mp3 => {
            command.args(["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-row-mt", "1"]);
            command.args(["-lag-in-frames", "0"]);
            if settings.video_bits_per_second.is_none() {
                command.args(["-crf", "34", "-b:v", "0"]);
            }
        }
    }
    if let Some(rate) = settings.video_bits_per_second {
        command.args(["-b:v", &rate.to_string(), "-maxrate", &rate.to_string(), "-bufsize", &(rate * 2).to_string()]);
    }
    command.args(["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]);
    command.args(["-threads", &settings.threads.to_string(), "-f", "matroska"]);
    let length_us = frames * SECOND_US / u64::from(settings.fps);
    let product = Product { codec: settings.format.video_codec(), frames: Some(frames), length_us };
    command.step(&format!("piece-{index:05}"), "mkv", vec![product])
}

fn picture_filters(tile: &Tile, fps: u32) -> String {
    let (width, height) = (tile.rect.width, tile.rect.height);
    // Dimensions are rounded to even ones, as `pad` would otherwise shift the colours against the picture.
    format!(
        "fps={fps}:start_time=0,\
         scale={width}:{height}:force_original_aspect_ratio=decrease:force_divisible_by=2:out_color_matrix=bt709:out_range=tv,\
         pad={width}:{height}:-1:-1:color={BEHIND}:eval=frame"
    )
}

/// The text stands in a file, and nothing in it means anything to ffmpeg.
fn name_filter(text: &str, tile: &Tile, is_over_picture: bool) -> String {
    let height = tile.rect.height;
    let common = format!(",drawtext=fontfile={FONT}:textfile={text}:expansion=none:fontcolor=white");
    if is_over_picture {
        let size = (height / 18).max(12);
        let (edge, border) = (size / 2, size / 4);
        format!("{common}:fontsize={size}:x={edge}:y=h-text_h-{edge}:box=1:boxcolor=black@0.5:boxborderw={border}")
    } else {
        let size = (height / 10).max(12);
        format!("{common}:fontsize={size}:x=max(0\\,(w-text_w)/2):y=(h-text_h)/2")
    }
}

fn stack(tiles: &[Tile], settings: &Settings) -> String {
    let Canvas { width, height } = settings.canvas;
    match tiles {
        [] => format!("color=c={BEHIND}:s={width}x{height}:r={},format=yuv420p", settings.fps),
        [tile] => format!("[tile0]pad={width}:{height}:{}:{}:color={BEHIND}", tile.rect.x, tile.rect.y),
        tiles => {
            let count = tiles.len();
            let labels: String = (0..count).map(|number| format!("[tile{number}]")).collect();
            let places: Vec<_> = tiles.iter().map(|tile| format!("{}_{}", tile.rect.x, tile.rect.y)).collect();
            let places = places.join("|");
            // The stack is as large as its tiles reach.
            format!(
                "{labels}xstack=inputs={count}:layout={places}:fill={BEHIND},pad={width}:{height}:0:0:color={BEHIND}"
            )
        }
    }
}

/// One, or several of which each adds some more sounds to what the one before made.
fn window_steps(index: usize, window: &Window, media: &BTreeMap<TrackFile, Media>, settings: &Settings) -> Vec<Step> {
    let sounds: Vec<_> = window.sounds.iter().filter_map(|sound| Some((sound, media.get(&sound.file)?))).collect();
    let mut chunks: Vec<_> = sounds.chunks(SOUNDS_MAX).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let mut steps: Vec<Step> = Vec::new();
    for (number, chunk) in chunks.into_iter().enumerate() {
        let before = steps.last().map(|step| step.output.clone());
        steps.push(mix_step(&format!("sound-{index:05}-{number}"), window, chunk, before, settings));
    }
    steps
}

fn mix_step(
    name: &str,
    window: &Window,
    sounds: &[(&Sound, &Media)],
    before: Option<String>,
    settings: &Settings,
) -> Step {
    let mut command = Command::new(settings);
    let mut graph = String::new();
    let mut inputs = 0;
    if let Some(before) = before {
        command.args(["-protocol_whitelist", "file", "-f", "flac", "-i", &before]);
        graph.push_str("[0:a:0]aformat=sample_fmts=fltp:channel_layouts=stereo[sound0];");
        inputs += 1;
    }
    for (sound, found) in sounds {
        command.args(["-t", &seconds(sound.length_us.cast_signed())]);
        command.input(found, sound.seek_us);
        // Silence where nothing was sent; a deviation of one frame of sound is corrected.
        let _ = write!(
            graph,
            "[{inputs}:a:0]aresample={SAMPLE_RATE}:async=1:min_hard_comp=0.02:first_pts=0,\
             aformat=sample_fmts=fltp:channel_layouts=stereo,volume=1/{HEADROOM},adelay={}S:all=1[sound{inputs}];",
            samples(sound.at_us)
        );
        inputs += 1;
    }
    let labels: String = (0..inputs).map(|number| format!("[sound{number}]")).collect();
    let mixed = match inputs {
        0 => format!("anullsrc=r={SAMPLE_RATE}:cl=stereo"),
        1 => format!("{labels}anull"),
        _ => format!("{labels}amix=inputs={inputs}:normalize=0:dropout_transition=0"),
    };
    let length = samples(window.from_us + window.length_us) - samples(window.from_us);
    let _ = write!(graph, "{mixed},apad=whole_len={length},atrim=end_sample={length}[out]");
    command.args(["-filter_complex", &graph, "-map", "[out]", "-vn"]);
    command.args(["-c:a", "flac", "-sample_fmt", "s32", "-compression_level", "2", "-f", "flac"]);
    command.step(name, "flac", vec![Product { codec: "flac", frames: None, length_us: window.length_us }])
}

fn video_step(lists: Vec<List>, settings: &Settings) -> Step {
    let mut command = Command::new(settings);
    for list in &lists {
        command.args(["-protocol_whitelist", "file", "-f", "concat", "-i", list.name]);
    }
    for (index, List { product, .. }) in lists.iter().enumerate() {
        command.args(["-map", &index.to_string()]);
        if product.frames.is_some() {
            command.args(["-c:v", "copy"]);
        } else {
            command.args(["-af", &format!("volume={HEADROOM},alimiter=level=disabled:latency=1")]);
        }
    }
    let default_rate = match settings.format {
        Format::Mp4 | Format::Mp3 => 128_000,
        Format::WebM | Format::Ogg => 96_000,
    };
    command.args(["-b:a", &settings.audio_bits_per_second.unwrap_or(default_rate).to_string()]);
    match settings.format {
        Format::Mp4 => command.args(["-c:a", "aac", "-movflags", "+faststart", "-f", "mp4"]),
        Format::WebM => command.args(["-c:a", "libopus", "-cues_to_front", "1", "-f", "webm"]),
        Format::Ogg => command.args(["-c:a", "libopus", "-f", "ogg"]),
        Format::Mp3 => command.args(["-c:a", "libmp3lame", "-f", "mp3"]),
    }
    let products = lists.iter().map(|list| list.product.clone()).collect();
    command.texts = lists.into_iter().map(|list| (list.name.to_owned(), list.text)).collect();
    command.step("video", settings.format.extension(), products)
}

struct Command {
    args: Vec<OsString>,
    texts: Vec<(String, String)>,
    /// What else makes the result what it is.
    key: DefaultHasher,
}

impl Command {
    fn new(settings: &Settings) -> Self {
        let mut key = DefaultHasher::new();
        settings.font.hash(&mut key);
        let mut command = Self { args: Vec::new(), texts: Vec::new(), key };
        // A damaged file must not spoil the others that are seen with it, and what is made shows at once that it goes on.
        command.args(["-hide_banner", "-nostdin", "-nostats", "-loglevel", "error", "-y"]);
        command.args(["-max_error_rate", "1", "-flush_packets", "1"]);
        command.args(["-filter_complex_threads", "1"]);
        command
    }

    fn args<const N: usize>(&mut self, args: [&str; N]) {
        self.args.extend(args.map(OsString::from));
    }

    /// A file of the recording, with `seek_us` of it as zero. It was made by a person's browser: nothing but what we wrote is
    /// read of it, whatever it says it is.
    fn input(&mut self, media: &Media, seek_us: i64) {
        media.hash(&mut self.key);
        self.args(["-threads", "1", "-protocol_whitelist", "file", "-f", "matroska", "-seek_timestamp", "1"]);
        if media.codec == "vp9" {
            // ffmpeg's own decoder shows every spatial layer of a picture as a frame of its own.
            self.args(["-c:v", "libvpx-vp9"]);
        }
        // Before its first frame there is nothing to seek to. Without `seek_timestamp` both would count from that frame.
        match u64::try_from(seek_us) {
            Ok(seek) if seek > media.span.first_us => self.args(["-ss", &seconds(seek_us)]),
            _ => self.args(["-itsoffset", &seconds(-seek_us)]),
        }
        let mut url = OsString::from("file:");
        url.push(&media.path);
        self.args.extend(["-i".into(), url]);
    }

    fn step(mut self, name: &str, extension: &str, products: Vec<Product>) -> Step {
        self.args.hash(&mut self.key);
        self.texts.hash(&mut self.key);
        let output = format!("{name}-{:016x}.{extension}", self.key.finish());
        Step { output, texts: self.texts, args: self.args, products }
    }
}

/// As ffmpeg reads durations: decimal, exact.
fn seconds(us: i64) -> String {
    let sign = if us < 0 { "-" } else { "" };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:06}", us / SECOND_US, us % SECOND_US)
}

fn samples(us: u64) -> u64 {
    us * SAMPLE_RATE / SECOND_US
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_have_one_quality_or_one_rate() {
        let piece = Piece { frames: 0..25, tiles: Vec::new() };
        let args = |format, video_bits_per_second| {
            let settings = Settings { format, video_bits_per_second, ..Settings::default() };
            let step = piece_step(0, &piece, &BTreeMap::new(), &settings);
            step.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        for (format, quality) in [(Format::Mp4, "-crf 23"), (Format::WebM, "-crf 34 -b:v 0")] {
            assert!(args(format, None).contains(quality), "{}", args(format, None));
            let rated = args(format, Some(800_000));
            assert!(rated.contains("-b:v 800000 -maxrate 800000 -bufsize 1600000"), "{rated}");
            assert!(!rated.contains("-crf"), "{rated}");
        }
    }
}
