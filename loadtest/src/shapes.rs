//! What is measured: rooms and what is said in them.

use std::time::Duration;

use plenary_model::MediaKind;

/// Rooms of publishers, who listen to nobody, and subscribers, who receive everything that is published in their room.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub rooms: usize,
    pub publishers: usize,
    pub subscribers: usize,
    pub kinds: &'static [MediaKind],
    /// CPU of the whole process per forwarded packet that a widely used SFU needs here, client on the same machine.
    pub peer_us: Option<f64>,
    /// What we aim at.
    pub aim_us: Option<f64>,
}

impl Shape {
    /// Streams that arrive somewhere.
    pub fn subscriptions(&self) -> usize {
        self.rooms * self.publishers * self.subscribers * self.kinds.len()
    }

    /// What one subscriber receives.
    pub fn bits_per_second(&self) -> f64 {
        let bits = |kind: &MediaKind| frame(*kind).iter().sum::<usize>() as f64 * 8.0;
        let rate = |kind: &MediaKind| bits(kind) / frame_interval(*kind).as_secs_f64();
        self.publishers as f64 * self.kinds.iter().map(rate).sum::<f64>()
    }
}

pub const SHAPES: &[Shape] = &[
    shape("video-1x20", [1, 1, 20], VIDEO, 21.0, 2.6),
    shape("video-4x20", [1, 4, 20], VIDEO, 15.0, 1.9),
    shape("video-8x30", [1, 8, 30], VIDEO, 12.0, 1.5),
    shape("both-5x2x8", [5, 2, 8], BOTH, 21.0, 2.6),
    shape("audio-10x20", [1, 10, 20], AUDIO, 22.0, 2.8),
    shape("audio-20x1x4", [20, 1, 4], AUDIO, 59.0, 7.0),
    shape("video-1x100", [1, 1, 100], VIDEO, 23.0, 2.9),
];

/// For a test: whatever works at all does this without loss.
pub const SMALLEST: Shape =
    Shape { name: "smallest", rooms: 1, publishers: 1, subscribers: 2, kinds: BOTH, peer_us: None, aim_us: None };

const AUDIO: &[MediaKind] = &[MediaKind::Audio];
const VIDEO: &[MediaKind] = &[MediaKind::Video];
const BOTH: &[MediaKind] = &[MediaKind::Audio, MediaKind::Video];

const fn shape(
    name: &'static str,
    [rooms, publishers, subscribers]: [usize; 3],
    kinds: &'static [MediaKind],
    peer_us: f64,
    aim_us: f64,
) -> Shape {
    Shape { name, rooms, publishers, subscribers, kinds, peer_us: Some(peer_us), aim_us: Some(aim_us) }
}

/// Sizes of the packets of one frame, header included. 1.5 Mb/s, cut as browsers do: about equal, the larger ones last.
pub const fn frame(kind: MediaKind) -> &'static [usize] {
    match kind {
        MediaKind::Audio => &[120],
        MediaKind::Video => &[1_041, 1_041, 1_042, 1_042, 1_042, 1_042],
    }
}

pub const fn frame_interval(kind: MediaKind) -> Duration {
    match kind {
        MediaKind::Audio => Duration::from_millis(20),
        MediaKind::Video => Duration::from_micros(33_333),
    }
}
