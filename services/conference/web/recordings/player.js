// Plays one film at a time and says which moment of the meeting it shows: where it is in the file, and where the file's zero
// was. Another film goes on at the same moment.

import { h, setAttribute, setText } from '../dom.js';
import { clock, length, seconds } from './words.js';

/**
 * @typedef {object} Film
 * @property {string} file
 * @property {string} address
 * @property {string} title
 * @property {number} zero_us
 * @property {boolean} isSound
 * @property {{ from_us: number, until_us: number }[]} gaps
 * @property {import('./api.js').Span[]} muted
 */

export class Player {
  #options;
  /** @type {Film | null} */
  #film = null;
  /** @type {number | null} a moment to go to when the film can be wound */
  #wanted = null;
  /** @type {number | null} where in the file it was sent, until it is there */
  #heading = null;
  /** What was to be said before this moment had anything of its own to say; until somebody winds. */
  #said = '';
  #video = h('video', { controls: true, preload: 'metadata', playsinline: true, 'data-testid': 'player' });
  #title = h('strong', { dir: 'auto', 'data-testid': 'playing' });
  #clock = h('span', { class: 'moment', 'data-testid': 'moment' });
  #note = h('p', { class: 'player-note', role: 'status', 'data-testid': 'player-note' });

  /**
   * @param {object} options
   * @param {number} options.began_us when the meeting began
   * @param {(at_us: number, isPlaying: boolean) => void} options.onMoment
   * @param {(film: Film) => void} options.onFilm
   * @param {() => void} options.onFailure
   */
  constructor(options) {
    this.#options = options;
    for (const event of ['timeupdate', 'seeked', 'play', 'pause']) this.#video.addEventListener(event, () => this.#moved());
    this.#video.addEventListener('seeking', () => this.#sought());
    this.#video.addEventListener('seeked', () => this.#arrived());
    this.#video.addEventListener('loadedmetadata', () => this.#wind());
    this.#video.addEventListener('error', () => this.#failed());
    this.element = h('section', { class: 'player', 'aria-label': 'Player' }, this.#video, h('p', { class: 'player-line' }, this.#title, this.#clock), this.#note);
  }

  /**
   * @param {Film} film
   * @param {boolean} [plays]
   */
  show(film, plays = false) {
    this.#wanted = this.#film ? this.#moment : null;
    this.#film = film;
    setAttribute(this.#video, 'data-sound', film.isSound);
    setAttribute(this.#video, 'aria-label', film.title);
    setText(this.#title, film.title);
    this.#heading = null;
    this.#said = '';
    setText(this.#note, '');
    this.#video.src = film.address;
    // What keeps it from playing comes as an error of the element too.
    if (plays) void this.#video.play().catch(() => {});
    this.#options.onFilm(film);
  }

  /** @param {number} at_us a moment of the meeting */
  goTo(at_us) {
    if (!this.#film) return;
    this.#wanted = at_us;
    if (this.#video.readyState >= HTMLMediaElement.HAVE_METADATA) this.#wind();
  }

  destroy() {
    this.#film = null;
    this.#video.removeAttribute('src');
    this.#video.load();
  }

  get #moment() {
    return (this.#film?.zero_us ?? 0) + this.#video.currentTime * 1e6;
  }

  #wind() {
    if (this.#film && this.#wanted !== null) {
      const at = (this.#wanted - this.#film.zero_us) / 1e6;
      const isThere = at >= 0 && at <= this.#video.duration;
      if (isThere) this.#video.currentTime = this.#heading = at;
      else this.#said = `${this.#film.title} was not recorded at ${clock(this.#wanted)}.`;
    }
    this.#wanted = null;
    this.#moved();
  }

  #sought() {
    this.#said = '';
    // Somebody winds by hand meanwhile.
    if (this.#heading !== null && Math.abs(this.#video.currentTime - this.#heading) > NEAR_S) this.#heading = null;
  }

  /** Chromium goes back to where it was when it is paused before it is there. */
  #arrived() {
    const at = this.#heading;
    this.#heading = null;
    if (at !== null && Math.abs(this.#video.currentTime - at) > NEAR_S) this.#video.currentTime = at;
  }

  #moved() {
    if (!this.#film) return;
    const at = this.#moment;
    setText(this.#clock, `${clock(at)}, ${length(Math.max(0, at - this.#options.began_us))} into the meeting`);
    setText(this.#note, this.#flaw(at) || this.#said);
    this.#options.onMoment(at, !this.#video.paused);
  }

  /** What is wrong with this moment. @param {number} at */
  #flaw(at) {
    const film = /** @type {Film} */ (this.#film);
    const gap = film.gaps.find(({ from_us, until_us }) => film.zero_us + from_us <= at && at < film.zero_us + until_us);
    if (gap) return `${seconds(gap.until_us - gap.from_us)} are missing here.`;
    return film.muted.some(({ from_us, until_us }) => from_us <= at && (until_us === null || at < until_us)) ? 'Muted at this moment.' : '';
  }

  #failed() {
    if (!this.#film) return;
    this.#said = 'This could not be played. Download it to watch it in a player.';
    setText(this.#note, this.#said);
    this.#options.onFailure();
  }
}

const NEAR_S = 0.5;
