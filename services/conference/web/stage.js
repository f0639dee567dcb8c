// The tiles: who is on the stage, in which layout, on which page. Tiles off the page leave the document, so the client
// library sees them hidden and stops asking the server for their video.

import { h, setAttribute, setText } from './dom.js';
import { icon } from './icons.js';
import { gridCapacity, gridRects, speakerRects } from './layout.js';
import { Tile } from './tile.js';

/** @typedef {import('./person.js').Person} Person */
/** @typedef {'grid' | 'speaker'} Mode */
/** @typedef {{ key: string, source: 'camera' | 'screen', person: Person }} Item */

export class Stage {
  /** @type {Mode} what the person asked for */
  #wish = 'grid';
  /** @type {string} the shares a wish made during a screen share holds for */
  #wishShares = '';
  /** @type {Person[]} */
  #people = [];
  /** @type {Map<string, Tile>} */
  #tiles = new Map();
  #page = 0;
  #speaker = '';
  /** @type {string[]} identities sharing, oldest first */
  #sharers = [];
  #area = h('div', { class: 'stage-area' });
  #pagerText = h('span', { class: 'pager-text', 'aria-live': 'polite' });
  #pager = h(
    'div',
    { class: 'pager', hidden: true, role: 'group', 'aria-label': 'Pages of people' },
    h('button', { type: 'button', class: 'icon-button', 'aria-label': 'Previous page', onclick: () => this.#turn(-1) }, icon('left')),
    this.#pagerText,
    h('button', { type: 'button', class: 'icon-button', 'aria-label': 'Next page', onclick: () => this.#turn(1) }, icon('right')),
  );
  #observer = new ResizeObserver(() => {
    // While the window is being dragged tiles follow at once; they glide only when people or layouts change.
    setAttribute(this.#area, 'data-still', true);
    this.#draw();
    requestAnimationFrame(() => requestAnimationFrame(() => setAttribute(this.#area, 'data-still', false)));
  });
  #onMode;

  /** @param {(mode: Mode) => void} onMode told whenever the layout on show changes */
  constructor(onMode) {
    this.#onMode = onMode;
    this.element = h('section', { class: 'stage', 'aria-label': 'People in the call', 'data-testid': 'stage' }, this.#area, this.#pager);
    this.#observer.observe(this.#area);
  }

  /** @returns {Mode} */
  get mode() {
    const shares = this.#sharers.join('\n');
    return shares !== this.#wishShares && shares !== '' ? 'speaker' : this.#wish;
  }

  toggleMode() {
    this.#wish = this.mode === 'grid' ? 'speaker' : 'grid';
    this.#wishShares = this.#sharers.join('\n');
    this.#page = 0;
    this.#draw();
  }

  /** @param {Person[]} people */
  update(people) {
    this.#people = people;
    const sharing = new Set(people.filter((person) => person.sharing && !person.isLocal).map((person) => person.identity));
    this.#sharers = [...this.#sharers.filter((identity) => sharing.delete(identity)), ...sharing];
    if (this.#sharers.length === 0) this.#wishShares = '';
    this.#follow();
    this.#draw();
  }

  destroy() {
    this.#observer.disconnect();
    for (const tile of this.#tiles.values()) tile.destroy();
    this.#tiles.clear();
  }

  /** Keeps the large place with whoever spoke last, so it does not flicker between people or fall back in a pause. */
  #follow() {
    const others = this.#people.filter((person) => !person.isLocal);
    if (others.some((person) => person.identity === this.#speaker && person.speaking)) return;
    const next = others.find((person) => person.speaking) ?? others.find((person) => person.identity === this.#speaker) ?? others[0] ?? this.#people[0];
    this.#speaker = next?.identity ?? '';
  }

  /** @returns {Item[]} */
  #items() {
    /** @type {Item[]} */
    const screens = this.#people.filter((person) => person.sharing).map((person) => ({ key: `screen ${person.identity}`, source: 'screen', person }));
    /** @type {Item[]} */
    const cameras = this.#people.map((person) => ({ key: `camera ${person.identity}`, source: 'camera', person }));
    return [...screens, ...cameras];
  }

  #draw() {
    const mode = this.mode;
    setAttribute(this.element, 'data-layout', mode);
    const width = this.#area.clientWidth;
    const height = this.#area.clientHeight;
    if (width > 0 && height > 0 && this.#people.length > 0) {
      if (mode === 'grid') this.#drawGrid(width, height);
      else this.#drawSpeaker(width, height);
    }
    this.#onMode(mode);
  }

  /** @param {number} width @param {number} height */
  #drawGrid(width, height) {
    const items = this.#items();
    const page = this.#paged(items, gridCapacity(width, height));
    const rects = gridRects(page.length, width, height);
    this.#arrange(page.map((item, index) => ({ item, rect: rects[index], main: false })));
  }

  /** @param {number} width @param {number} height */
  #drawSpeaker(width, height) {
    const items = this.#items();
    const share = this.#sharers.at(-1);
    const mainKey = share === undefined ? `camera ${this.#speaker}` : `screen ${share}`;
    const main = items.find((item) => item.key === mainKey) ?? items[0];
    const rest = items.filter((item) => item !== main);
    const places = speakerRects(rest.length, width, height, main.source);
    const page = this.#paged(rest, places.perPage);
    const rects = places.strip(page.length);
    this.#arrange([{ item: main, rect: places.main, main: true }, ...page.map((item, index) => ({ item, rect: rects[index], main: false }))]);
  }

  /**
   * The part of `items` on the current page, and the pager to match.
   * @param {Item[]} items
   * @param {number} perPage
   */
  #paged(items, perPage) {
    const pages = Math.max(1, Math.ceil(items.length / perPage));
    this.#page = Math.min(this.#page, pages - 1);
    const shown = items.slice(this.#page * perPage, (this.#page + 1) * perPage);
    const hiddenSpeaker = items.find((item) => item.person.speaking && !shown.includes(item));
    setText(this.#pagerText, `${this.#page + 1} of ${pages}${hiddenSpeaker ? ` · ${hiddenSpeaker.person.name} is speaking` : ''}`);
    const [previous, next] = this.#pager.querySelectorAll('button');
    previous.disabled = this.#page === 0;
    next.disabled = this.#page === pages - 1;
    this.#pager.hidden = pages === 1;
    return shown;
  }

  /** @param {{ item: Item, rect: import('./layout.js').Rect, main: boolean }[]} placed */
  #arrange(placed) {
    const keys = new Set(placed.map(({ item }) => item.key));
    for (const [key, tile] of this.#tiles) {
      if (keys.has(key)) continue;
      tile.destroy();
      this.#tiles.delete(key);
    }
    for (const { item, rect, main } of placed) {
      let tile = this.#tiles.get(item.key);
      if (tile) tile.update(item.person);
      else {
        tile = new Tile(item.source, item.person);
        this.#tiles.set(item.key, tile);
      }
      tile.place(rect);
      setAttribute(tile.element, 'data-main', main);
      if (!tile.element.isConnected) this.#area.append(tile.element);
    }
  }

  /** @param {1 | -1} step */
  #turn(step) {
    this.#page = Math.max(0, this.#page + step);
    this.#draw();
  }
}
