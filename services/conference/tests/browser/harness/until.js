// Waiting without sleeping: ask until the answer is right, or say what the last one was.

import { inspect } from 'node:util';

/**
 * @template T
 * @param {string} what for the message
 * @param {() => T | Promise<T>} probe anything truthy ends the wait; an error counts as "not yet"
 * @param {{ within?: number, every?: number, seen?: () => unknown }} [options] times in ms; `seen` is shown on failure
 * @returns {Promise<T>}
 */
export async function until(what, probe, { within = 10_000, every = 100, seen } = {}) {
  const deadline = performance.now() + within;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) break;
    await new Promise((resolve) => setTimeout(resolve, every));
  }
  const shown = inspect(seen ? await seen() : last, { depth: 6, breakLength: 160, compact: 4 });
  throw new Error(`not within ${within} ms: ${what}\n${shown.slice(0, SHOWN_MAX)}`);
}

/** For the few facts that are an absence: nothing may happen for this long. */
export function quiet(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

const SHOWN_MAX = 6000;
