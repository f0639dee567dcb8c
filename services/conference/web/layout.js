// Where tiles go. Pure arithmetic: sizes in, rectangles out, nothing about elements or people.

/** @typedef {{ x: number, y: number, w: number, h: number }} Rect */

/**
 * Equal tiles, as large as fit, centred; an incomplete last row is centred too.
 * @param {number} count tiles on this page
 * @param {number} width
 * @param {number} height
 * @returns {Rect[]}
 */
export function gridRects(count, width, height) {
  const best = bestGrid(count, width, height);
  const rows = Math.ceil(count / best.columns);
  const top = (height - rows * best.h - (rows - 1) * GAP) / 2;
  return Array.from({ length: count }, (_, index) => {
    const row = Math.floor(index / best.columns);
    const inRow = Math.min(best.columns, count - row * best.columns);
    const left = (width - inRow * best.w - (inRow - 1) * GAP) / 2;
    return { x: left + (index % best.columns) * (best.w + GAP), y: top + row * (best.h + GAP), w: best.w, h: best.h };
  });
}

/**
 * How many tiles one page of the grid may hold before they become too small to recognise anybody.
 * @param {number} width
 * @param {number} height
 */
export function gridCapacity(width, height) {
  const narrow = width < NARROW;
  for (let count = PAGE_MAX; count > PAGE_MIN; count -= 1) {
    const { w, h } = bestGrid(count, width, height);
    if (w >= (narrow ? 88 : 168) && h >= (narrow ? 76 : 110)) return count;
  }
  return PAGE_MIN;
}

/**
 * One large place and a strip of small tiles: beside it where the stage is wide, below it otherwise.
 * @param {number} count tiles in the strip, over all pages
 * @param {number} width
 * @param {number} height
 * @param {'camera' | 'screen'} main a screen takes all the room there is, a face keeps a face's proportions
 * @returns {{ main: Rect, strip: (shown: number) => Rect[], perPage: number }}
 */
export function speakerRects(count, width, height, main) {
  const whole = { x: 0, y: 0, w: width, h: height };
  if (count === 0) return { main: fit(whole, main), strip: () => [], perPage: 1 };
  if (width >= NARROW && width > height * 1.1) {
    const w = clamp(width * 0.19, 150, 340);
    const h = (w * 9) / 16;
    const perPage = Math.max(1, Math.floor((height + GAP) / (h + GAP)));
    const strip = (/** @type {number} */ shown) => {
      const top = (height - shown * h - (shown - 1) * GAP) / 2;
      return Array.from({ length: shown }, (_, index) => ({ x: width - w, y: top + index * (h + GAP), w, h }));
    };
    return { main: fit({ ...whole, w: width - w - GAP }, main), strip, perPage };
  }
  const h = clamp(height * 0.2, 76, 150);
  const w = h * 1.25;
  const perPage = Math.max(1, Math.floor((width + GAP) / (w + GAP)));
  const strip = (/** @type {number} */ shown) => {
    const left = (width - shown * w - (shown - 1) * GAP) / 2;
    return Array.from({ length: shown }, (_, index) => ({ x: left + index * (w + GAP), y: height - h, w, h }));
  };
  return { main: fit({ ...whole, h: height - h - GAP }, main), strip, perPage };
}

/**
 * @param {number} count
 * @param {number} width
 * @param {number} height
 */
function bestGrid(count, width, height) {
  const [narrowest, widest] = width > height ? [4 / 3, 16 / 9] : [3 / 4, 16 / 9];
  let best = { columns: 1, w: 0, h: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const cellW = (width - (columns - 1) * GAP) / columns;
    const cellH = (height - (rows - 1) * GAP) / rows;
    if (cellW <= 0 || cellH <= 0) continue;
    const w = Math.min(cellW, cellH * widest);
    const h = Math.min(cellH, w / narrowest);
    if (w * h > best.w * best.h) best = { columns, w, h };
  }
  return best;
}

/**
 * @param {Rect} area
 * @param {'camera' | 'screen'} main
 * @returns {Rect}
 */
function fit(area, main) {
  if (main === 'screen') return area;
  const w = Math.min(area.w, (area.h * 16) / 9);
  const h = Math.min(area.h, w / (area.w > area.h ? 4 / 3 : 3 / 4));
  return { x: area.x + (area.w - w) / 2, y: area.y + (area.h - h) / 2, w, h };
}

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const GAP = 10;
const NARROW = 600;
const PAGE_MAX = 25;
const PAGE_MIN = 4;
