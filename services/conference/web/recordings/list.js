// All recordings, the newest first.

import { h } from '../dom.js';
import { icon } from '../icons.js';
import { counted, day, iso, length, size, state } from './words.js';

/** @typedef {import('./api.js').Summary} Summary */

/** @param {Summary[]} recordings */
export function listView(recordings) {
  document.title = 'Recordings – Plenary';
  const newest = recordings.toSorted((a, b) => (b.began_us ?? 0) - (a.began_us ?? 0));
  const heading = h('h1', { tabindex: -1 }, 'Recordings');
  const head = h('div', { class: 'list-head' }, heading, h('p', { class: 'quiet' }, recordings.length ? `${counted(recordings.length, 'recording')}, ${size(recordings.reduce((sum, { bytes }) => sum + bytes, 0))}` : ''));
  const element = h('section', { class: 'list' }, head, recordings.length ? table(newest) : h('p', { class: 'empty' }, icon('record'), 'Nothing has been recorded yet.'));
  return { element };
}

/** @param {Summary[]} recordings */
function table(recordings) {
  const columns = ['Room', 'Began', 'Length', 'State', 'Tracks', 'Size', 'Composed'];
  return h(
    'table',
    { class: 'recordings' },
    h('thead', {}, h('tr', {}, ...columns.map((name) => h('th', { scope: 'col' }, name)))),
    h('tbody', {}, ...recordings.map(row)),
  );
}

/** @param {Summary} recording */
function row(recording) {
  const { id, room, began_us: began, duration_us: duration, tracks, bytes, composed, composing, elsewhere } = recording;
  return h(
    'tr',
    { 'data-testid': 'recording-row', 'data-id': id },
    h('th', { scope: 'row' }, h('a', { href: `#${encodeURIComponent(id)}`, dir: 'auto' }, room || id)),
    cell('Began', began === null ? '–' : h('time', { datetime: iso(began) }, day(began))),
    cell('Length', duration === null ? '–' : length(duration), 'number'),
    cell('State', h('span', { class: `state state-${recording.state}` }, elsewhere.length ? `${state(recording)}; parts elsewhere` : state(recording))),
    cell('Tracks', String(tracks), 'number'),
    cell('Size', size(bytes), 'number'),
    cell('Composed', composed.length ? 'Yes' : composing ? 'Under way' : 'No'),
  );
}

/**
 * @param {string} label for narrow screens, where columns have no head
 * @param {Node | string} child
 * @param {string} [className]
 */
function cell(label, child, className) {
  return h('td', { 'data-label': label, class: className }, child);
}
