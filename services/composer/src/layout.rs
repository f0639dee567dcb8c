//! Where the tiles stand on the canvas.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the canvas is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// Everybody alike, and screens as further tiles before them.
    Grid,
    /// One large tile, a screen or else who speaks, and a strip of others beside it.
    Speaker,
    /// A screen or else who speaks, and nobody else.
    SingleSpeaker,
    /// While a screen is shared as `speaker`, otherwise as `grid`.
    #[default]
    #[serde(rename = "screen")]
    #[value(name = "screen")]
    ScreenShareFirst,
}

/// In pixels from the upper left corner. All four are even, which encoders of 4:2:0 video ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Canvas {
    pub width: u32,
    pub height: u32,
}

/// Tiles of a grid, and with that decoders at work at once.
pub const GRID_TILES_MAX: usize = 16;
/// Small tiles beside the large one.
pub const STRIP_TILES_MAX: usize = 5;

/// Rows and columns as equal as may be, each row in the middle.
pub fn grid(canvas: Canvas, tiles: usize) -> Vec<Rect> {
    let tiles = tiles.min(GRID_TILES_MAX) as u32;
    let Some(columns) = (1..=tiles).find(|columns| columns * columns >= tiles) else { return Vec::new() };
    let rows = tiles.div_ceil(columns);
    let (width, height) = (even(canvas.width / columns), even(canvas.height / rows));
    let place = |index: u32| {
        let row = index / columns;
        let in_row = columns.min(tiles - row * columns);
        let left = even((canvas.width - in_row * width) / 2);
        Rect { x: left + index % columns * width, y: row * height, width, height }
    };
    (0..tiles).map(place).collect()
}

/// The first tile is the large one, the others stand on its right.
pub fn with_strip(canvas: Canvas, tiles: usize) -> Vec<Rect> {
    let others = tiles.saturating_sub(1).min(STRIP_TILES_MAX) as u32;
    if others == 0 {
        return grid(canvas, tiles.min(1));
    }
    let (width, height) = (even(canvas.width / 5), even(canvas.height / STRIP_TILES_MAX as u32));
    let main = Rect { x: 0, y: 0, width: even(canvas.width - width), height: even(canvas.height) };
    let strip = (0..others).map(|index| Rect { x: main.width, y: index * height, width, height });
    std::iter::once(main).chain(strip).collect()
}

fn even(pixels: u32) -> u32 {
    pixels & !1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(a: &Rect, b: &Rect) -> bool {
        a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
    }

    proptest! {
        #[test]
        fn tiles_stand_inside_the_canvas_and_apart(width in 160u32..4000, height in 90u32..2200, tiles in 0usize..40) {
            let canvas = Canvas { width: even(width), height: even(height) };
            for (rects, most) in [(grid(canvas, tiles), GRID_TILES_MAX), (with_strip(canvas, tiles), STRIP_TILES_MAX + 1)] {
                prop_assert_eq!(rects.len(), tiles.min(most));
                for (index, rect) in rects.iter().enumerate() {
                    prop_assert!(rect.x + rect.width <= canvas.width && rect.y + rect.height <= canvas.height);
                    prop_assert!(rect.width >= 16 && rect.height >= 16, "{:?}", rect);
                    prop_assert!([rect.x, rect.y, rect.width, rect.height].iter().all(|length| length % 2 == 0));
                    prop_assert!(rects.iter().skip(index + 1).all(|other| !overlap(rect, other)));
                }
            }
        }
    }
}
