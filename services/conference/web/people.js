// The list of people: who is here and how each is doing, for everybody and not just the tiles on show.

import { h, setAttribute, setText } from './dom.js';
import { icon, setIcon } from './icons.js';
import { QUALITY, hueOf, initialsOf } from './tile.js';

/** @typedef {import('./person.js').Person} Person */

export class PeoplePanel {
  #list = h('ul', { class: 'people-list', role: 'list' });
  /** @type {Map<string, { element: HTMLLIElement, update: (person: Person) => void }>} */
  #rows = new Map();
  #title = h('h2', { id: 'people-title' }, 'People');

  /** @param {{ onClose: () => void, onInvite: (() => void) | null }} options */
  constructor({ onClose, onInvite }) {
    this.element = h(
      'aside',
      { class: 'panel', id: 'people-panel', 'aria-labelledby': 'people-title', hidden: true, 'data-testid': 'people-panel' },
      h('header', { class: 'panel-head' }, this.#title, h('button', { type: 'button', class: 'icon-button', 'aria-label': 'Close people', onclick: onClose }, icon('close'))),
      onInvite
        ? h('div', { class: 'panel-invite' }, h('button', { type: 'button', class: 'button', onclick: onInvite }, icon('link'), 'Copy invite link'))
        : h('p', { class: 'panel-hint' }, 'Invitations to this room are personal. Whoever set up the call can send more.'),
      this.#list,
    );
  }

  /** @param {Person[]} people */
  update(people) {
    setText(this.#title, `People (${people.length})`);
    const here = new Set(people.map((person) => person.identity));
    for (const [identity, row] of this.#rows) {
      if (here.has(identity)) continue;
      row.element.remove();
      this.#rows.delete(identity);
    }
    for (const person of people) {
      let row = this.#rows.get(person.identity);
      if (!row) {
        row = personRow(person);
        this.#rows.set(person.identity, row);
        this.#list.append(row.element);
      }
      row.update(person);
    }
  }
}

/** @param {Person} first */
function personRow(first) {
  const name = h('span', { class: 'person-name' });
  const words = h('span', { class: 'person-words' });
  const microphone = h('span', { class: 'person-mark' });
  const camera = h('span', { class: 'person-mark' });
  const quality = h('span', { class: 'quality' }, icon('bars'));
  const initials = h('span', { class: 'avatar avatar-small', 'data-hue': hueOf(first.identity), 'aria-hidden': 'true' });
  const element = h('li', { class: 'person', 'data-testid': 'person', 'data-identity': first.identity }, initials, h('div', { class: 'person-text' }, name, words), microphone, camera, quality);
  return {
    element,
    /** @param {Person} person */
    update(person) {
      setText(initials, initialsOf(person.name));
      setText(name, person.isLocal ? `${person.name} (you)` : person.name);
      const facts = [person.speaking ? 'Speaking' : person.muted ? 'Microphone off' : 'Microphone on'];
      if (person.sharing) facts.push('sharing a screen');
      else if (!person.cameraOn) facts.push('camera off');
      if (person.away) facts.splice(0, facts.length, 'Reconnecting…');
      else if (person.quality === 'poor' || person.quality === 'lost') facts.push(QUALITY[person.quality]);
      setText(words, facts.join(', '));
      setAttribute(element, 'data-speaking', String(person.speaking));
      setAttribute(element, 'data-muted', String(person.muted));
      setIcon(microphone, person.muted ? 'mic-off' : person.speaking ? 'sound' : 'mic');
      setIcon(camera, person.sharing ? 'screen' : person.cameraOn ? 'camera' : 'camera-off');
      setAttribute(microphone, 'data-off', person.muted);
      setAttribute(camera, 'data-off', !person.cameraOn && !person.sharing);
      setAttribute(quality, 'data-quality', person.quality);
      setAttribute(quality, 'title', QUALITY[person.quality]);
    },
  };
}
