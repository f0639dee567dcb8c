// A composed picture's tiles: where they are to be by `services/composer/src/layout.rs`, and what stands in them.

import { SEEN, distance } from './film.js';

/** @typedef {import('./film.js').Rect} Rect */
/** @typedef {import('./film.js').Picture} Picture */
/** @typedef {'camera' | 'screen' | 'name'} Kind the last is of somebody whose camera is off */
/** @typedef {{ who: string, kind: Kind }} Actor */

/** Rows and columns as equal as may be. @param {number} tiles @returns {Rect[]} */
export function grid(tiles) {
  const columns = Math.ceil(Math.sqrt(tiles));
  const rows = Math.ceil(tiles / columns);
  const [width, height] = [SEEN.width / columns, SEEN.height / rows];
  return Array.from({ length: tiles }, (_, index) => {
    const row = Math.floor(index / columns);
    const left = (SEEN.width - Math.min(columns, tiles - row * columns) * width) / 2;
    return { x: left + (index % columns) * width, y: row * height, width, height };
  });
}

/** A large one, and the others on its right. @param {number} tiles @returns {Rect[]} */
export function withStrip(tiles) {
  const [width, height] = [SEEN.width / 5, SEEN.height / 5];
  const strip = Array.from({ length: tiles - 1 }, (_, index) => ({ x: SEEN.width - width, y: index * height, width, height }));
  return [{ x: 0, y: 0, width: SEEN.width - width, height: SEEN.height }, ...strip];
}

/** What stands in a tile: of a film its board and wall, of a name whether it stands alone. @param {Picture} picture @param {Kind} kind @param {Rect} tile */
export function look(picture, kind, tile) {
  const { x, y, width, height } = tile;
  if (kind !== 'name') return { board: picture.board(filmIn(tile)), wall: picture.wall(filmIn(tile)) };
  const at = (/** @type {number} */ right, /** @type {number} */ low) => ({ x: x + width * right, y: y + height * low, width: width / 10, height: height / 10 });
  const corners = [at(0.05, 0.05), at(0.85, 0.05), at(0.05, 0.85), at(0.85, 0.85)].map((corner) => distance(picture.mean(corner), PLACEHOLDER));
  const text = picture.highlight({ x: x + width / 4, y: y + height * 0.4, width: width / 2, height: height * 0.2 });
  return { placeholder: Math.max(...corners), text };
}

/** How far from the background at most is what stands beside all tiles, or above a film in its tile. @param {Picture} picture @param {Kind[]} kinds @param {Rect[]} tiles */
export function beside(picture, kinds, tiles) {
  const isIn = (/** @type {Rect} */ rect, /** @type {number} */ x, /** @type {number} */ y, /** @type {number} */ edge) =>
    x > rect.x - edge && x < rect.x + rect.width + edge && y > rect.y - edge && y < rect.y + rect.height + edge;
  const bars = tiles.filter((_, index) => kinds[index] !== 'name').map((tile) => ({ ...tile, height: filmIn(tile).y - tile.y }));
  let most = 0;
  for (let y = 12; y < SEEN.height; y += 24) {
    for (let x = 12; x < SEEN.width; x += 24) {
      const isBeside = tiles.every((tile) => !isIn(tile, x, y, EDGE)) || bars.some((bar) => isIn(bar, x, y, -EDGE));
      if (isBeside) most = Math.max(most, distance(picture.mean({ x: x - 2, y: y - 2, width: 4, height: 4 }), BEHIND));
    }
  }
  return most;
}

/** All films are 16:9, and stand in the middle of their tile. @param {Rect} tile @returns {Rect} */
function filmIn({ x, y, width, height }) {
  const unit = Math.min(width / 16, height / 9);
  return { x: x + (width - 16 * unit) / 2, y: y + (height - 9 * unit) / 2, width: 16 * unit, height: 9 * unit };
}

/** As `services/composer/src/ffmpeg.rs` has them. */
const PLACEHOLDER = /** @type {import('./film.js').Colour} */ ([0x2a, 0x2a, 0x32]);
const BEHIND = /** @type {import('./film.js').Colour} */ ([0x10, 0x10, 0x14]);
/** Pixels of an edge that may be of either side. */
const EDGE = 6;
