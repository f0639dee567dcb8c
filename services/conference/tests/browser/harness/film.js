// A look at what became of films (`page/film.js`): the pictures and the sound of a file, as ffmpeg decodes them.

import { execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';

import { COLUMNS, ROWS, readCells } from '../page/cells.js';
import { BOARD } from '../page/slate.js';

/** What pictures are scaled to. */
export const SEEN = { width: 640, height: 360 };

/** @typedef {{ x: number, y: number, width: number, height: number }} Rect in pixels of what is seen */
/** @typedef {[number, number, number]} Colour */

/** @param {string} path */
export async function probe(path) {
  const { stdout } = await promisify(execFile)('ffprobe', ['-v', 'error', '-show_streams', '-show_format', '-of', 'json', path]);
  const { streams, format } = JSON.parse(stdout);
  const [{ width, height }] = streams;
  return { codecs: streams.map(({ codec_name: name }) => name), width, height, seconds: Number(format.duration) };
}

/** How many packets a file of one track has, when the last begins in seconds, and their bytes together. @param {string} path */
export async function packets(path) {
  const { stdout } = await promisify(execFile)('ffprobe', ['-v', 'error', '-show_entries', 'packet=pts_time,size', '-of', 'csv=p=0', path]);
  const all = stdout.trim().split('\n').map((line) => line.split(',').map(Number));
  return { count: all.length, last: all.at(-1)?.[0] ?? 0, bytes: all.reduce((sum, [, size]) => sum + size, 0) };
}

/**
 * Every picture of a video that has so many a second.
 * @param {string} path
 * @param {number} fps
 */
export async function* pictures(path, fps) {
  const scale = `scale=${SEEN.width}:${SEEN.height}`;
  const bytes = SEEN.width * SEEN.height * 3;
  const chunks = decoded(path, ['-vf', scale, '-vsync', 'passthrough', '-pix_fmt', 'rgb24', '-f', 'rawvideo'], bytes);
  let count = 0;
  for await (const data of chunks) yield new Picture(data, count++ / fps);
}

export class Picture {
  #data;

  /** @param {Buffer} data @param {number} at in seconds */
  constructor(data, at) {
    this.#data = data;
    this.at = at;
  }

  /** What a film's board says, hung as in `page/film.js`. @param {Rect} film */
  board(film) {
    const cell = (/** @type {number} */ column, /** @type {number} */ row) => {
      const width = (film.width * BOARD.width) / COLUMNS;
      const height = (film.height * BOARD.height) / ROWS;
      const x = film.x + film.width * BOARD.x + width * (column + 0.25);
      const y = film.y + film.height * BOARD.y + height * (row + 0.25);
      return brightness(this.mean({ x, y, width: width / 2, height: height / 2 }));
    };
    return readCells(cell);
  }

  /** Of both sides of the board. @param {Rect} film */
  wall({ x, y, width, height }) {
    const side = { y: y + height * 0.1, width: width * 0.05, height: height * 0.7 };
    const [left, right] = [0.025, 0.925].map((part) => this.mean({ ...side, x: x + width * part }));
    return /** @type {Colour} */ (left.map((part, index) => (part + right[index]) / 2));
  }

  /** @param {Rect} rect @returns {Colour} */
  mean(rect) {
    /** @type {Colour} */
    const sum = [0, 0, 0];
    let count = 0;
    for (const at of this.#pixels(rect)) {
      for (const part of [0, 1, 2]) sum[part] += this.#data[at + part];
      count += 1;
    }
    return /** @type {Colour} */ (sum.map((part) => part / count));
  }

  /** The brightest pixel. @param {Rect} rect */
  highlight(rect) {
    let most = 0;
    for (const at of this.#pixels(rect)) most = Math.max(most, this.#data[at + 1]);
    return most;
  }

  *#pixels({ x, y, width, height }) {
    const [left, right] = [Math.round(x), Math.max(Math.round(x) + 1, Math.round(x + width))];
    const [top, bottom] = [Math.round(y), Math.max(Math.round(y) + 1, Math.round(y + height))];
    for (let row = top; row < bottom; row += 1) {
      for (let column = left; column < right; column += 1) yield (row * SEEN.width + column) * 3;
    }
  }
}

/** @param {Colour} colour */
export function brightness([red, green, blue]) {
  return 0.3 * red + 0.59 * green + 0.11 * blue;
}

/** How far apart two colours are. @param {Colour} one @param {Colour} other */
export function distance(one, other) {
  return Math.hypot(...one.map((part, index) => part - other[index]));
}

/** The sound of a file, as one channel. */
export class Sound {
  #samples;

  /** @param {string} path */
  static async of(path) {
    const pieces = [];
    for await (const piece of decoded(path, ['-ac', '1', '-ar', String(RATE), '-f', 'f32le'])) pieces.push(piece);
    const bytes = Buffer.concat(pieces);
    return new Sound(new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4));
  }

  /** @param {Float32Array} samples */
  constructor(samples) {
    this.#samples = samples;
  }

  get seconds() {
    return this.#samples.length / RATE;
  }

  /** Amplitude of a tone around a moment (Goertzel's algorithm). @param {number} at @param {number} hertz @param {number} [over] in seconds, too */
  level(at, hertz, over = 0.1) {
    const from = Math.max(0, Math.round((at - over / 2) * RATE));
    const until = Math.min(this.#samples.length, from + Math.round(over * RATE));
    const turn = (2 * Math.PI * hertz) / RATE;
    const factor = 2 * Math.cos(turn);
    let [one, two] = [0, 0];
    for (let index = from; index < until; index += 1) [one, two] = [this.#samples[index] + factor * one - two, one];
    const power = one * one + two * two - factor * one * two;
    return until > from ? (2 * Math.sqrt(Math.max(0, power))) / (until - from) : 0;
  }

  /**
   * The moments at which a beep begins.
   * @param {number} hertz
   * @param {number} loud the amplitude from which on it is one
   */
  beeps(hertz, loud) {
    const found = [];
    let isHeard = false;
    for (let at = 0.005; at < this.seconds; at += 0.001) {
      const level = this.level(at, hertz, 0.01);
      if (!isHeard && level > loud) found.push(at);
      // What rings on around the edge is no beep of its own.
      isHeard = level > (isHeard ? loud / 2 : loud);
    }
    return found;
  }
}

/** @param {string} path @param {string[]} options @param {number} [size] of each piece that is given out */
async function* decoded(path, options, size) {
  const ffmpeg = spawn('ffmpeg', ['-nostdin', '-v', 'error', '-i', path, ...options, '-'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = new Promise((resolve) => ffmpeg.once('exit', (code) => resolve(code)));
  /** @type {Buffer[]} */
  let waiting = [];
  let length = 0;
  for await (const chunk of ffmpeg.stdout) {
    if (!size) {
      yield chunk;
      continue;
    }
    waiting.push(chunk);
    length += chunk.length;
    if (length < size) continue;
    const all = Buffer.concat(waiting);
    const whole = length - (length % size);
    for (let from = 0; from < whole; from += size) yield all.subarray(from, from + size);
    waiting = [all.subarray(whole)];
    length -= whole;
  }
  const code = await ended;
  if (code !== 0) throw new Error(`ffmpeg ended with ${code} at ${path}`);
}

const RATE = 48_000;
