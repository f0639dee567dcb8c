// The chat panel. Messages are strangers' text: they are shown as text, wrapped and bounded, and links stay inert.

import { h } from './dom.js';
import { icon } from './icons.js';
import { announce, toast } from './notices.js';

/** @typedef {import('./session.js').ChatLine} ChatLine */

export class ChatPanel {
  unread = 0;
  #send;
  #onUnread;
  #seen = new Set();
  /** @type {ChatLine | null} */
  #last = null;
  #list = h('ol', { class: 'chat-list', role: 'list', tabindex: 0, 'aria-label': 'Messages' });
  #empty = h('p', { class: 'panel-empty' }, icon('chat'), 'No messages yet. Everybody in the call will see what you write.');
  #input = h('textarea', {
    class: 'chat-input',
    rows: 1,
    maxlength: MESSAGE_MAX,
    placeholder: 'Message everyone',
    'aria-label': 'Message everyone',
    'data-testid': 'chat-input',
    oninput: () => this.#grow(),
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      void this.#submit();
    },
  });
  #button = h('button', { type: 'submit', class: 'icon-button chat-send', 'aria-label': 'Send message', 'data-testid': 'chat-send' }, icon('send'));

  /** @param {{ send: (text: string) => Promise<void>, onUnread: () => void, onClose: () => void }} options */
  constructor({ send, onUnread, onClose }) {
    this.#send = send;
    this.#onUnread = onUnread;
    this.element = h(
      'aside',
      { class: 'panel', id: 'chat-panel', 'aria-labelledby': 'chat-title', hidden: true, 'data-testid': 'chat-panel' },
      h('header', { class: 'panel-head' }, h('h2', { id: 'chat-title' }, 'Chat'), h('button', { type: 'button', class: 'icon-button', 'aria-label': 'Close chat', onclick: onClose }, icon('close'))),
      this.#empty,
      this.#list,
      h(
        'form',
        {
          class: 'chat-form',
          onsubmit: (/** @type {Event} */ event) => {
            event.preventDefault();
            void this.#submit();
          },
        },
        this.#input,
        this.#button,
      ),
    );
    this.#list.hidden = true;
  }

  /** Called when the panel has been shown. */
  opened() {
    this.unread = 0;
    this.#onUnread();
    this.#list.scrollTop = this.#list.scrollHeight;
    this.#input.focus();
  }

  /** @param {boolean} allowed */
  setAllowed(allowed) {
    this.#input.disabled = !allowed;
    this.#button.disabled = !allowed;
    this.#input.placeholder = allowed ? 'Message everyone' : 'You may read, but not write';
  }

  /** @param {ChatLine} line */
  add(line) {
    // The same message can come twice, live and from the server's history.
    if (this.#seen.has(line.id)) return;
    this.#seen.add(line.id);
    const follow = this.#list.scrollHeight - this.#list.scrollTop - this.#list.clientHeight < NEAR_END_PX;
    this.#empty.hidden = true;
    this.#list.hidden = false;
    this.#list.append(this.#row(line));
    this.#last = line;
    while (this.#list.childElementCount > MESSAGES_MAX) this.#list.firstElementChild?.remove();
    if (this.#seen.size > 4 * MESSAGES_MAX) this.#seen.clear();
    if (follow || line.own) this.#list.scrollTop = this.#list.scrollHeight;
    if (line.own) return;
    announce(`${line.name} says: ${line.text.slice(0, ANNOUNCE_MAX)}`);
    if (this.element.hidden) {
      this.unread += 1;
      this.#onUnread();
    }
  }

  /** @param {ChatLine} line */
  #row(line) {
    const follows = this.#last !== null && this.#last.from === line.from && line.at.getTime() - this.#last.at.getTime() < GROUP_MS;
    const time = line.at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    const text = line.text.length > SHOWN_MAX ? `${line.text.slice(0, SHOWN_MAX)}…` : line.text;
    return h(
      'li',
      { class: `chat-message${line.own ? ' own' : ''}${follows ? ' follows' : ''}`, 'data-testid': 'chat-message', 'data-identity': line.from },
      h('div', { class: follows ? 'visually-hidden' : 'chat-meta' }, h('span', { class: 'chat-name', dir: 'auto' }, line.own ? 'You' : line.name), h('time', { datetime: line.at.toISOString() }, time)),
      h('p', { class: 'chat-text', dir: 'auto', title: time }, text),
    );
  }

  async #submit() {
    const text = this.#input.value.trim();
    if (!text) return;
    this.#input.value = '';
    this.#grow();
    try {
      await this.#send(text);
    } catch {
      // Give the words back unless something new is being written.
      if (!this.#input.value) this.#input.value = text;
      this.#grow();
      toast('Your message was not sent. Try again.', { tone: 'bad' });
    }
  }

  #grow() {
    this.#input.style.height = 'auto';
    this.#input.style.height = `${Math.min(this.#input.scrollHeight, INPUT_HEIGHT_MAX_PX)}px`;
  }
}

const MESSAGE_MAX = 2000;
const SHOWN_MAX = 8000;
const MESSAGES_MAX = 500;
const ANNOUNCE_MAX = 200;
const GROUP_MS = 120_000;
const NEAR_END_PX = 80;
const INPUT_HEIGHT_MAX_PX = 132;
