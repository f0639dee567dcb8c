// The page's life: logging in, the list, one recording. What is on show stands behind the `#` of the address (an id, no
// secret), so the browser's own way back works; its name is on the root element as `data-state`.

import { h } from '../dom.js';
import { icon, mark } from '../icons.js';
import { ApiError, close, list, one, open } from './api.js';
import { listView } from './list.js';
import { RecordingView } from './recording.js';

/** @typedef {{ element: HTMLElement, destroy?: () => void }} View */

const root = /** @type {HTMLElement} */ (document.getElementById('app'));

/** @type {View | null} */
let view = null;
/** Counts what was asked to be shown: an answer that comes after the next question is for nobody. */
let turn = 0;

async function go() {
  const mine = ++turn;
  try {
    const id = decodeURIComponent(location.hash.slice(1));
    /** @type {{ name: string, view: View }} */
    const next = id ? await recording(id) : { name: 'list', view: listView(await list()) };
    if (mine === turn) show(next.name, next.view, true);
    else next.view.destroy?.();
  } catch (error) {
    if (mine === turn) fail(error);
  }
}

/** @param {string} id */
async function recording(id) {
  const facts = await one(id);
  return { name: 'recording', view: new RecordingView(facts, () => void one(id).then(() => {}, fail)) };
}

/** @param {unknown} error */
function fail(error) {
  if (error instanceof ApiError && error.needsToken) return login(root.dataset.state === 'loading' ? '' : error.message);
  const message = error instanceof ApiError ? error.message : 'Something went wrong on this page.';
  const element = h(
    'section',
    { class: 'card', role: 'alert' },
    h('h1', { tabindex: -1 }, 'There is nothing to show'),
    h('p', {}, message),
    h('div', { class: 'card-actions' }, h('button', { type: 'button', class: 'button primary', onclick: go }, 'Try again'), location.hash ? h('a', { class: 'button', href: '#' }, 'All recordings') : null),
  );
  show('failed', { element }, true);
}

/** @param {string} why */
function login(why) {
  const token = h('input', { class: 'field-input', id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false', required: true, 'data-testid': 'token-input', 'aria-describedby': 'token-hint token-error' });
  const error = h('p', { class: 'field-error', id: 'token-error', role: 'alert', 'data-testid': 'login-error' }, why);
  const button = h('button', { type: 'submit', class: 'button primary', 'data-testid': 'login-button' }, 'Open');
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    button.disabled = true;
    error.replaceChildren();
    try {
      await open(token.value.trim());
      token.value = '';
      await go();
    } catch (problem) {
      error.replaceChildren(problem instanceof Error ? problem.message : '');
      token.focus();
    } finally {
      button.disabled = false;
    }
  };
  const element = h(
    'form',
    { class: 'card login', novalidate: true, onsubmit: submit },
    h('h1', {}, 'Recordings'),
    h('div', { class: 'field' }, h('label', { for: 'token' }, 'Access token'), token, error),
    h('p', { class: 'field-hint', id: 'token-hint' }, 'One with the grants roomAdmin and roomCreate, for example from', h('code', {}, 'plenary token create --room any --admin --create'), 'It opens the recordings to this browser for eight hours, or until it expires.'),
    button,
  );
  show('login', { element }, false);
  token.focus();
}

/**
 * @param {string} name
 * @param {View} next
 * @param {boolean} known whether there is a session to end
 */
function show(name, next, known) {
  view?.destroy?.();
  view = next;
  root.dataset.state = name;
  const leave = h('button', { type: 'button', class: 'button', 'data-testid': 'logout-button', onclick: () => void close().then(() => login('You are logged out.'), fail) }, icon('door'), 'Log out');
  root.replaceChildren(
    h('header', { class: 'page-head' }, h('a', { class: 'brand', href: '#', 'aria-label': 'All recordings' }, mark(), h('span', {}, 'Plenary')), known ? leave : null),
    h('main', { class: 'page' }, next.element),
  );
  next.element.querySelector('h1')?.focus();
}

addEventListener('hashchange', () => void go());
void go();
