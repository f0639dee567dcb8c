// Video whose every frame says which one it is: five by four big black and white cells, sixteen of them the frame's
// number and four the publisher. Big cells survive strong compression and every simulcast layer. The number is Gray
// coded, so that neighbours differ in one cell and a codec has little to do.

import { COLUMNS, NUMBERS, ROWS, cellsOf, readCells } from './cells.js';

/**
 * A camera that films the board.
 * @param {{ person: number, width?: number, height?: number, fps?: number, noise?: number }} options `person` is 1 to 14:
 *   0 and 15 would look like a black or a white picture; `noise`, 0 to 0.3, gives the encoder as much to do as a real camera
 */
export function boardSource({ person, width = 320, height = 180, fps = 12, noise = 0 }) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d', { alpha: false });
  const stream = canvas.captureStream(0);
  const track = stream.getVideoTracks()[0];
  // Firefox has it where it was in an early draft.
  const frames = track.requestFrame ? track : stream;
  const grain = noise > 0 ? grainOf(2 * width, 2 * height) : undefined;
  let number = 0;
  const draw = () => {
    drawBoard(context, person, number);
    if (grain) {
      context.globalAlpha = noise;
      context.drawImage(grain, -Math.random() * width, -Math.random() * height);
      context.globalAlpha = 1;
    }
    frames.requestFrame();
    number = (number + 1) % NUMBERS;
  };
  const timer = setInterval(draw, 1000 / fps);
  draw();
  return {
    track,
    stop() {
      clearInterval(timer);
      track.stop();
    },
  };
}

/** Grain of several pixels, so that it outlives being made smaller. */
function grainOf(width, height) {
  const small = Object.assign(document.createElement('canvas'), { width: width / GRAIN, height: height / GRAIN });
  const context = small.getContext('2d', { alpha: false });
  const picture = context.createImageData(small.width, small.height);
  for (let at = 0; at < picture.data.length; at += 4) picture.data.fill(Math.random() * 256, at, at + 4);
  context.putImageData(picture, 0, 0);
  const grain = Object.assign(document.createElement('canvas'), { width, height });
  grain.getContext('2d', { alpha: false }).drawImage(small, 0, 0, width, height);
  return grain;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number} person
 * @param {number} number
 */
export function drawBoard(context, person, number) {
  const { width, height } = context.canvas;
  const isWhite = cellsOf(person, number);
  for (let row = 0; row < ROWS; row += 1) {
    for (let column = 0; column < COLUMNS; column += 1) {
      context.fillStyle = isWhite(column, row) ? '#fff' : '#000';
      const left = Math.round((column * width) / COLUMNS);
      const top = Math.round((row * height) / ROWS);
      context.fillRect(left, top, Math.ceil(width / COLUMNS), Math.ceil(height / ROWS));
    }
  }
}

/** What a picture says, or undefined. @param {CanvasImageSource} picture */
export function readBoard(picture) {
  reader.drawImage(picture, 0, 0, reader.canvas.width, reader.canvas.height);
  const { data } = reader.getImageData(0, 0, reader.canvas.width, reader.canvas.height);
  return readCells((column, row) => cellBrightness(data, column, row));
}

/** Reads the frames of one element as they are shown, and keeps count since the last `mark`. */
export class BoardWatch {
  #element;
  #stopped = false;

  /** @param {HTMLVideoElement} element */
  constructor(element) {
    this.#element = element;
    this.mark();
    this.#next();
  }

  mark() {
    this.since = performance.now();
    this.lastAt = this.since;
    this.frames = 0;
    this.unreadable = 0;
    this.advanced = 0;
    this.backwards = 0;
    this.longestGap = 0;
    this.person = undefined;
    this.strangers = 0;
    this.number = undefined;
    this.size = undefined;
    /** @type {string[]} sizes in the order in which they appeared */
    this.sizes = [];
  }

  stop() {
    this.#stopped = true;
  }

  /** Everything a test may want to know, as plain data. */
  read() {
    const now = performance.now();
    const seconds = (now - this.since) / 1000;
    return {
      seconds,
      frames: this.frames,
      unreadable: this.unreadable,
      person: this.person,
      strangers: this.strangers,
      number: this.number,
      advanced: this.advanced,
      backwards: this.backwards,
      framesPerSecond: this.frames / seconds,
      advancedPerSecond: this.advanced / seconds,
      longestGapMs: Math.max(this.longestGap, now - this.lastAt),
      size: this.size,
      sizes: this.sizes,
    };
  }

  #next() {
    this.#element.requestVideoFrameCallback((now, frame) => {
      if (this.#stopped) return;
      this.#see(now, frame);
      this.#next();
    });
  }

  /**
   * @param {number} now
   * @param {VideoFrameCallbackMetadata} frame
   */
  #see(now, frame) {
    const seen = readBoard(this.#element);
    if (!seen) {
      this.unreadable += 1;
      return;
    }
    // A repeated picture (the same frame shown anew after a layout change) is no progress.
    if (seen.number === this.number) return;
    this.frames += 1;
    this.longestGap = Math.max(this.longestGap, now - this.lastAt);
    this.lastAt = now;
    this.size = `${frame.width}x${frame.height}`;
    if (this.sizes.at(-1) !== this.size) this.sizes.push(this.size);
    if (this.number !== undefined) {
      const step = (seen.number - this.number + NUMBERS) % NUMBERS;
      if (step < NUMBERS / 2) this.advanced += step;
      else this.backwards += 1;
    }
    if (this.person !== undefined && this.person !== seen.person) this.strangers += 1;
    this.person = seen.person;
    this.number = seen.number;
  }
}

/**
 * @param {Uint8ClampedArray} data
 * @param {number} column
 * @param {number} row
 */
function cellBrightness(data, column, row) {
  let sum = 0;
  for (let y = CELL / 4; y < (CELL * 3) / 4; y += 1) {
    for (let x = CELL / 4; x < (CELL * 3) / 4; x += 1) {
      sum += data[((row * CELL + y) * COLUMNS * CELL + column * CELL + x) * 4 + 1];
    }
  }
  return sum / (CELL / 2) ** 2;
}

/** Pixels of a cell after scaling down; the outer quarter of each side is not looked at. */
const CELL = 8;
const GRAIN = 4;

const reader = Object.assign(document.createElement('canvas'), { width: COLUMNS * CELL, height: ROWS * CELL }).getContext(
  '2d',
  { alpha: false, willReadFrequently: true },
);
