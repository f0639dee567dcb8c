// What was written, beside the film: the message of the moment is marked, and each leads to its moment.

import { h, setAttribute } from '../dom.js';
import { clock, iso, length } from './words.js';

/** @typedef {import('./api.js').Message} Message */

export class ChatLog {
  #messages;
  /** @type {HTMLLIElement[]} */
  #rows;
  #current = -1;
  #list;

  /**
   * @param {Message[]} messages by time
   * @param {number} began_us
   * @param {(at_us: number) => void} onGoTo
   */
  constructor(messages, began_us, onGoTo) {
    this.#messages = messages;
    this.#rows = messages.map(({ at_us: at, name, identity, text }) =>
      h(
        'li',
        { class: 'message', 'data-testid': 'message' },
        h('div', { class: 'message-head' }, h('strong', { dir: 'auto' }, name || identity || 'Server'), h('button', { type: 'button', class: 'moment-button', 'aria-label': `Go to ${clock(at)}`, title: clock(at), onclick: () => onGoTo(at) }, h('time', { datetime: iso(at) }, length(at - began_us)))),
        h('p', { dir: 'auto' }, text),
      ),
    );
    this.#list = h('ol', { class: 'messages', role: 'list', tabindex: 0, 'aria-label': 'Messages' }, ...this.#rows);
    this.element = h('aside', { class: 'chatlog', 'aria-labelledby': 'chat-title' }, h('h2', { id: 'chat-title' }, 'Chat'), messages.length ? this.#list : h('p', { class: 'quiet' }, 'Nobody wrote anything.'));
  }

  /**
   * Marks what was written last; keeps it in sight while the film runs, so that who looks around is not pulled back.
   * @param {number} at_us
   * @param {boolean} isPlaying
   */
  reached(at_us, isPlaying) {
    const current = this.#messages.findLastIndex((message) => message.at_us <= at_us);
    if (current === this.#current) return;
    for (const [index, on] of /** @type {const} */ ([[this.#current, false], [current, true]])) {
      const row = this.#rows[index];
      if (row) setAttribute(row, 'aria-current', on ? 'true' : false);
    }
    this.#current = current;
    const row = this.#rows[current];
    if (row && isPlaying) this.#list.scrollTop = row.offsetTop - (this.#list.clientHeight - row.clientHeight) / 2;
  }
}
