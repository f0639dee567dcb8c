// One person's picture, or one shared screen, with the marks that say how they are doing.

import { h, setAttribute, setText } from './dom.js';
import { icon, setIcon } from './icons.js';

/** @typedef {import('./person.js').Person} Person */
/** @typedef {import('./layout.js').Rect} Rect */

export class Tile {
  /** @type {Person['camera']} */
  #track;
  #source;
  #video = h('video', { autoplay: true, playsinline: true, 'aria-hidden': 'true', tabindex: -1 });
  #initials = h('span', { 'aria-hidden': 'true' });
  #name = h('span', { class: 'tile-name' });
  #mark = h('span', { class: 'tile-mark' });
  #quality = h('span', { class: 'quality' }, icon('bars'));
  #note = h('p', { class: 'tile-note', hidden: true });

  /**
   * @param {'camera' | 'screen'} source
   * @param {Person} person
   */
  constructor(source, person) {
    this.#source = source;
    this.element = h(
      'div',
      { class: `tile tile-${source}`, role: 'group', 'data-testid': source === 'camera' ? 'tile' : 'share-tile', 'data-identity': person.identity },
      h('div', { class: 'avatar', 'data-hue': hueOf(person.identity) }, source === 'camera' ? this.#initials : icon('screen')),
      this.#video,
      this.#note,
      h('div', { class: 'tile-tag' }, this.#mark, this.#name, this.#quality),
    );
    this.#video.muted = true;
    // The avatar stays until there is a picture, and comes back when the track goes.
    this.#video.addEventListener('loadeddata', () => setAttribute(this.element, 'data-picture', true));
    this.#video.addEventListener('emptied', () => setAttribute(this.element, 'data-picture', false));
    this.update(person);
  }

  /** @param {Person} person */
  update(person) {
    const track = this.#source === 'camera' ? person.camera : person.screen;
    this.#show(track);
    const name = person.isLocal ? `${person.name} (you)` : person.name;
    setText(this.#name, this.#source === 'camera' ? name : person.isLocal ? 'Your screen' : `${person.name}’s screen`);
    setText(this.#initials, initialsOf(person.name));
    if (this.#source === 'camera') this.#marks(person, name);
    else {
      setIcon(this.#mark, 'screen');
      setAttribute(this.element, 'aria-label', person.isLocal ? 'Your shared screen' : `Screen shared by ${person.name}`);
    }
    const note = person.away ? 'Reconnecting…' : person.paused && this.#source === 'camera' ? 'Video paused: weak connection' : '';
    setText(this.#note, note);
    this.#note.hidden = note === '';
  }

  /** @param {Rect} rect */
  place(rect) {
    const style = this.element.style;
    // Whole pixels keep text and video edges sharp.
    for (const side of /** @type {const} */ (['x', 'y', 'w', 'h'])) style.setProperty(`--${side}`, `${Math.round(rect[side])}px`);
    setAttribute(this.element, 'data-size', rect.w < 140 ? 'small' : rect.w > 620 ? 'large' : 'medium');
  }

  destroy() {
    this.#show(undefined);
    this.element.remove();
  }

  /** @param {Person} person @param {string} name */
  #marks(person, name) {
    const element = this.element;
    setAttribute(element, 'data-speaking', String(person.speaking));
    setAttribute(element, 'data-muted', String(person.muted));
    setAttribute(element, 'data-camera', String(person.cameraOn));
    setAttribute(element, 'data-away', person.away);
    this.#mark.hidden = !person.muted && !person.speaking;
    setIcon(this.#mark, person.muted ? 'mic-off' : 'sound');
    setAttribute(this.#quality, 'data-quality', person.quality);
    setAttribute(this.#quality, 'title', QUALITY[person.quality]);
    const words = [name, person.muted ? 'microphone off' : person.speaking ? 'speaking' : 'microphone on', person.cameraOn ? 'camera on' : 'camera off'];
    if (QUALITY[person.quality]) words.push(QUALITY[person.quality]);
    setAttribute(element, 'aria-label', words.join(', '));
  }

  /** @param {Person['camera']} track */
  #show(track) {
    const facing = track?.mediaStreamTrack?.getSettings?.().facingMode;
    setAttribute(this.element, 'data-mirror', this.#source === 'camera' && track?.isLocal === true && facing !== 'environment');
    if (track === this.#track) return;
    this.#track?.detach(this.#video);
    this.#track = track;
    if (track) track.attach(this.#video);
    else setAttribute(this.element, 'data-picture', false);
  }
}

/**
 * @param {string} name
 * @returns {string}
 */
export function initialsOf(name) {
  const words = name.split(/[\s._-]+/).filter(Boolean);
  const chosen = words.length > 1 ? [words[0], words.at(-1)] : words;
  return chosen.map((word) => Array.from(word ?? '')[0] ?? '').join('').toUpperCase() || '?';
}

/**
 * The same colour for the same person on every screen.
 * @param {string} identity
 */
export function hueOf(identity) {
  let sum = 0;
  for (const char of identity) sum = (sum * 31 + (char.codePointAt(0) ?? 0)) % 9973;
  return sum % HUES;
}

/** @type {Record<Person['quality'], string>} */
export const QUALITY = { excellent: 'good connection', good: 'fair connection', poor: 'weak connection', lost: 'connection lost', unknown: '' };

const HUES = 8;
