//! One video of a recorded meeting, made afterwards by ffmpeg at the lowest priority.
//!
//! [`plan()`] decides without IO who is seen where and heard when, `ffmpeg` says so in that program's words, [`compose`] runs
//! it and looks at what came of it, [`watch`] looks for recordings that ask for it. ffmpeg and ffprobe are found in `PATH` when they are needed.
#![forbid(unsafe_code)]

mod ffmpeg;
mod layout;
mod plan;
mod probe;
mod process;
mod run;
mod timeline;
pub mod watch;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use tokio::signal::unix::{SignalKind, signal};

pub use ffmpeg::{BadSettings, Content, Format, Settings};
pub use layout::{Canvas, GRID_TILES_MAX, Layout, Rect, STRIP_TILES_MAX};
pub use plan::{PIECE_US_MAX, Picture, Piece, Plan, SCENES_MAX, SOUNDS_MAX, Sound, Tile, WINDOW_US, Window, plan};
pub use probe::{Defect, ReadSessionError};
pub use process::{MEMORY_BYTES_MAX, RunError, STALLED_AFTER, installed};
pub use run::{ComposeError, Composed, Progress, WORK_LOCK, compose, work_of};
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

/// True after SIGINT or SIGTERM, which then no longer end the process; the calling thread is unparked.
pub fn cancelled_by_signals() -> io::Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    let (flag, caller) = (Arc::clone(&cancel), thread::current());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        flag.store(true, Ordering::Relaxed);
        caller.unpark();
    })?;
    Ok(cancel)
}
