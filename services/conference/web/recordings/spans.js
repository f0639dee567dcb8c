// Bars over the time of a recording: who was there, what was muted, what is missing.

import { h } from '../dom.js';

/** @typedef {{ from_us: number, until_us: number | null, kind: 'there' | 'muted' | 'gap' }} Bar */

/**
 * Seen only: the words beside it say the same.
 * @param {Bar[]} bars
 * @param {number} from_us
 * @param {number} until_us
 */
export function spanBar(bars, from_us, until_us) {
  const whole = Math.max(1, until_us - from_us);
  const share = (/** @type {number} */ at) => Math.min(1, Math.max(0, (at - from_us) / whole));
  const element = h('div', { class: 'spans', 'aria-hidden': 'true' });
  for (const bar of bars) {
    const one = h('i', { class: `span-${bar.kind}` });
    const [from, until] = [share(bar.from_us), share(bar.until_us ?? until_us)];
    one.style.setProperty('--from', `${from * 100}%`);
    one.style.setProperty('--length', `${(until - from) * 100}%`);
    element.append(one);
  }
  return element;
}
