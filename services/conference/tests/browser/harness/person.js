// A person of a call as tests see one: the page's `window.person`, and the questions tests ask of it.

import { inspect } from 'node:util';

import { until } from './until.js';

export class Person {
  #console = [];

  /** @param {import('playwright-core').Page} page @param {string} identity */
  constructor(page, identity) {
    this.page = page;
    this.identity = identity;
    page.on('console', (message) => this.#console.push(`${message.type()}: ${message.text()}`.slice(0, 400)));
    page.on('pageerror', (error) => this.#console.push(`uncaught: ${error.message}`));
  }

  /** Calls a method of the page's `window.person`. */
  call(method, ...args) {
    return this.page.evaluate(([name, given]) => /** @type {any} */ (window).person[name](...given), /** @type {const} */ ([method, args]));
  }

  snapshot() {
    return this.call('snapshot');
  }

  /**
   * Waits for the snapshot to be as `predicate` wants it.
   * @param {string} what
   * @param {(snapshot: any) => unknown} predicate
   * @param {{ within?: number }} [options]
   */
  until(what, predicate, options = {}) {
    let last;
    const probe = async () => {
      last = await this.snapshot();
      return predicate(last) && last;
    };
    return until(`${this.identity}: ${what}`, probe, { ...options, seen: () => last });
  }

  /** Waits for an event that is, or was, reported under this name. */
  async event(name, matches = (_) => true, options = {}) {
    const probe = async () => (await this.call('events', name)).find(matches);
    return until(`${this.identity} hears of ${name}`, probe, { ...options, seen: () => this.call('events') });
  }

  /** Waits for something received on a data channel. */
  async receives(what, matches, options = {}) {
    const probe = async () => (await this.call('received')).find(matches);
    return until(`${this.identity} receives ${what}`, probe, { ...options, seen: () => this.call('received') });
  }

  /**
   * Waits until somebody's video arrives and keeps arriving: their own board, at eight tenths of its frame rate.
   * @param {Person | string} publisher
   * @param {{ board: number, fps?: number, key?: string, within?: number, over?: number }} expected `over` in seconds
   */
  async sees(publisher, { board, fps = FPS, key = 'camera', within = 20_000, over = 2 }) {
    const identity = nameOf(publisher);
    await this.call('mark');
    const flows = (reading) => reading?.seconds >= over && reading.advanced >= 0.8 * fps * (reading.seconds - 1 / fps);
    const deadline = performance.now() + within;
    // Each attempt is measured from its own beginning: a slow start must not spoil the rate that follows.
    for (let attempt = 1; ; attempt += 1) {
      const { reading } = await this.#readingAfter(identity, key, over, deadline);
      if (flows(reading) && reading.person === board && reading.strangers === 0) return reading;
      if (performance.now() > deadline) {
        throw new Error(`${this.identity} does not see board ${board} of ${identity} at ${fps} fps (attempt ${attempt}):\n${inspect(reading)}`);
      }
      await this.call('mark');
    }
  }

  /** @param {Person | string} publisher @param {{ frequency: number, key?: string, within?: number }} expected */
  async hears(publisher, { frequency, key = 'microphone', within = 15_000 }) {
    const identity = nameOf(publisher);
    const matches = ({ people }) => {
      const reading = people[identity]?.tracks[key]?.reading;
      return reading && reading.level > AUDIBLE_DB && Math.abs(reading.frequency - frequency) < FREQUENCY_TOLERANCE_HZ;
    };
    const snapshot = await this.until(`hears ${frequency} Hz of ${identity}`, matches, { within });
    return snapshot.people[identity].tracks[key].reading;
  }

  /** @param {Person | string} publisher @param {{ key?: string, within?: number }} [options] */
  async hearsNothing(publisher, { key = 'microphone', within = 10_000 } = {}) {
    const identity = nameOf(publisher);
    const silent = ({ people }) => (people[identity]?.tracks[key]?.reading?.level ?? -200) < AUDIBLE_DB;
    await this.until(`hears nothing of ${identity}`, silent, { within });
  }

  /** The video reading since the last `mark`. @param {Person | string} publisher @param {string} [key] */
  async reading(publisher, key = 'camera') {
    return (await this.snapshot()).people[nameOf(publisher)]?.tracks[key]?.reading;
  }

  close() {
    return this.page.context().close();
  }

  /** What to print when a test failed. */
  async report() {
    const state = await Promise.race([this.snapshot().catch(String), new Promise((resolve) => setTimeout(resolve, 1000, 'no answer'))]);
    const events = await Promise.race([this.call('events').catch(() => []), new Promise((resolve) => setTimeout(resolve, 1000, []))]);
    const lines = events.slice(-60).map((event) => `  ${event.at} ${event.name} ${JSON.stringify(event.detail)}`.slice(0, 200));
    return [`--- ${this.identity}`, inspect(state, { depth: 8, breakLength: 160, compact: 5 }), ...lines, ...this.#console.slice(-40)].join('\n');
  }

  async #readingAfter(identity, key, seconds, deadline) {
    const enough = async () => {
      const reading = await this.reading(identity, key);
      return reading?.seconds >= seconds ? { reading } : undefined;
    };
    return until(`${this.identity} gets ${key} of ${identity}`, enough, { within: Math.max(deadline - performance.now(), 0), seen: () => this.snapshot() });
  }
}

/** @param {Person | string} person */
function nameOf(person) {
  return typeof person === 'string' ? person : person.identity;
}

/** Low enough for two cores that encode for three and decode six times. */
export const FPS = 12;
/** A quarter of full scale is -12 dB; what comfort noise and mutes leave is below this. */
const AUDIBLE_DB = -50;
const FREQUENCY_TOLERANCE_HZ = 8;
