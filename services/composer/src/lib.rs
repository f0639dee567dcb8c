//! One video of a recorded meeting, made afterwards by ffmpeg at the lowest priority.
//!
//! [`plan()`] decides without IO who is seen where and heard when, [`steps`] says so in ffmpeg's words, [`compose`] runs it,
//! [`watch`] looks for recordings that ask for it. ffmpeg and ffprobe are found in `PATH`.
#![forbid(unsafe_code)]

mod ffmpeg;
mod layout;
mod plan;
mod probe;
mod process;
mod run;
mod timeline;
pub mod watch;

use std::path::{Path, PathBuf};

pub use ffmpeg::{BadSettings, Format, Media, Settings, Step, steps};
pub use layout::{Canvas, GRID_TILES_MAX, Layout, Rect, STRIP_TILES_MAX};
pub use plan::{PIECE_US_MAX, Picture, Piece, Plan, SOUNDS_MAX, Sound, Tile, WINDOW_US, Window, plan};
pub use probe::{ReadSessionError, read_session};
pub use process::RunError;
pub use run::{ComposeError, Progress, compose};
pub use timeline::{MEETING_US_MAX, Span, Spans, TimelineError};

/// Where Debian's packages fonts-dejavu-core, fonts-liberation and fonts-noto-core put a font. One of them comes with ffmpeg.
/// They have Latin, Greek, Cyrillic and, the first, Arabic letters; for others name a font that has them.
const FONTS: [&str; 3] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSans-Regular.ttf",
    "/usr/share/fonts/truetype/noto/NotoSans-Regular.ttf",
];

/// The first font that is installed.
pub fn default_font() -> Option<PathBuf> {
    FONTS.iter().map(Path::new).find(|path| path.is_file()).map(Path::to_owned)
}
