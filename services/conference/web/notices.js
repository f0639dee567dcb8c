// What the page says in passing: toasts that are seen and read out, and announcements that are only read out.

import { h, setText } from './dom.js';
import { icon } from './icons.js';

/**
 * Shows a short message for a few seconds; screen readers hear it because the holder is a live region.
 * @param {string} text
 * @param {{ icon?: import('./icons.js').IconName, tone?: 'plain' | 'good' | 'bad', silent?: boolean }} [options] silent: seen only, because it is announced elsewhere
 */
export function toast(text, options = {}) {
  const holder = document.getElementById('toasts');
  if (!holder) return;
  const last = holder.lastElementChild;
  if (last?.textContent === text) last.remove();
  while (holder.childElementCount >= TOASTS_MAX) holder.firstElementChild?.remove();
  const tone = options.tone ?? 'plain';
  const name = options.icon ?? (tone === 'bad' ? 'alert' : tone === 'good' ? 'check' : 'info');
  const element = h('div', { class: `toast toast-${tone}`, 'data-testid': 'toast', 'aria-hidden': options.silent ? 'true' : null }, icon(name), h('span', {}, text));
  holder.append(element);
  setTimeout(() => element.remove(), tone === 'bad' ? TOAST_BAD_MS : TOAST_MS);
}

/**
 * Says something to screen readers only.
 * @param {string} text
 */
export function announce(text) {
  const holder = document.getElementById('announcer');
  if (!holder) return;
  while (holder.childElementCount >= ANNOUNCEMENTS_MAX) holder.firstElementChild?.remove();
  const line = h('p');
  holder.append(line);
  setText(line, text);
}

const TOASTS_MAX = 3;
const TOAST_MS = 4000;
const TOAST_BAD_MS = 8000;
const ANNOUNCEMENTS_MAX = 20;
