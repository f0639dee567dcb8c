// Somebody on the meet page: a tab whose camera films a board and whose microphone hears a tone, so that what the page
// shows and plays can be told apart. Everything else is done as a person would: by clicking and typing.

import { readFile } from 'node:fs/promises';
import { inspect } from 'node:util';

import { until } from './until.js';

export class Guest {
  #console = [];

  /**
   * Opens the page's lobby.
   * @param {import('playwright-core').Browser} browser
   * @param {string} address of the page
   * @param {{ board?: number, tone?: number, viewport?: { width: number, height: number }, state?: string, prepare?: (context: import('playwright-core').BrowserContext) => Promise<unknown> }} [options]
   *   without `board` the browser's own fake devices are used; `state` is what the page shall show; `prepare` comes before the page
   */
  static async open(browser, address, { board, tone = 0, viewport = { width: 1280, height: 720 }, state = 'lobby', prepare } = {}) {
    const context = await browser.newContext({ viewport });
    await prepare?.(context);
    // Under the page's own origin, so that its content security policy stays in force.
    await context.route('**/test-instruments/*', async (route) => {
      const name = new URL(route.request().url()).pathname.split('/').at(-1);
      const body = await readFile(new URL(`../page/${name}`, import.meta.url));
      await route.fulfill({ contentType: 'text/javascript', body });
    });
    await context.addInitScript(instruments, { board, tone });
    const guest = new Guest(await context.newPage());
    await guest.page.goto(address);
    await guest.reaches(state);
    return guest;
  }

  /** @param {import('playwright-core').Page} page */
  constructor(page) {
    this.page = page;
    page.on('console', (message) => this.#console.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => this.#console.push(`uncaught: ${error.message}`));
  }

  /** An element by its test id. @param {string} id */
  get(id) {
    return this.page.getByTestId(id);
  }

  /** @param {string} identity @param {'tile' | 'share-tile'} [kind] */
  tile(identity, kind = 'tile') {
    return this.page.locator(`[data-testid="${kind}"][data-identity="${identity}"]`);
  }

  /** Presses a control; on a narrow screen it may be behind the one called "more". @param {string} id */
  async press(id) {
    if (!(await this.get(id).isVisible())) await this.get('more-button').click();
    await this.get(id).click();
  }

  /** From the lobby into the call; returns the own identity. @param {string} [name] left alone if absent */
  async join(name) {
    if (name) await this.get('name-input').fill(name);
    await this.get('join-button').click();
    await this.reaches('connected', 20_000);
    return this.identity();
  }

  async identity() {
    const own = this.page.locator('[data-testid="tile"]', { hasText: '(you)' });
    return /** @type {string} */ (await own.getAttribute('data-identity'));
  }

  /** @param {string} state @param {number} [within] */
  async reaches(state, within = 10_000) {
    const now = () => this.get('state').getAttribute('data-state');
    await until(`the page is ${state}`, async () => (await now()) === state, { within, seen: () => this.report() });
  }

  /** Waits until the page says this in passing. @param {string} text */
  async toasts(text) {
    await this.get('toast').filter({ hasText: text }).last().waitFor({ timeout: 10_000 });
  }

  /** Waits until a tile carries a mark. */
  async shows(identity, mark, value, within = 10_000) {
    const now = () => this.tile(identity).getAttribute(`data-${mark}`);
    await until(`${identity} is shown with ${mark}=${value}`, async () => (await now()) === String(value), { within, seen: () => this.report() });
  }

  /** Waits until a tile's picture is this board, and moves. @param {string} identity @param {number} board */
  async sees(identity, board, kind = 'tile', within = 20_000) {
    const read = () => this.page.evaluate(([who, what]) => window.instruments.see(who, what), [identity, kind]);
    const moves = async () => {
      const reading = await read();
      return reading?.person === board && reading.frames > 5;
    };
    await until(`board ${board} is seen in the ${kind} of ${identity}`, moves, { within, seen: async () => [await read(), await this.report()] });
  }

  /** Waits until exactly these tones arrive. @param {...number} frequencies */
  async hears(...frequencies) {
    const read = () => this.page.evaluate(() => window.instruments.hear());
    const wanted = frequencies.toSorted((a, b) => a - b);
    const same = async () => {
      const heard = (await read()).toSorted((a, b) => a - b);
      return heard.length === wanted.length && heard.every((one, index) => Math.abs(one - wanted[index]) < 8);
    };
    await until(`${wanted} Hz is heard`, same, { within: 20_000, seen: read });
  }

  /** What no page may say: uncaught errors, and what its own policy refused. */
  complaints() {
    return this.#console.filter((line) => /^uncaught|content security policy|refused to|received after close/i.test(line));
  }

  async report() {
    const text = await this.page.evaluate(() => document.body.innerText).catch(String);
    const state = await this.get('state').getAttribute('data-state', { timeout: 500 }).catch(String);
    return inspect({ state, text: text.slice(0, 1500), console: this.#console.slice(-30) }, { breakLength: 160 });
  }

  close() {
    return this.page.context().close();
  }
}

/** Runs in the page before its own scripts. @param {{ board?: number, tone: number }} own */
function instruments({ board, tone }) {
  const load = () => Promise.all([import('/test-instruments/board.js'), import('/test-instruments/tone.js')]);
  const connections = [];
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...args) {
      super(...args);
      connections.push(this);
    }
  };
  const watches = new Map();
  const meters = new Map();
  window.instruments = {
    async see(identity, kind) {
      const [{ BoardWatch }] = await load();
      const element = document.querySelector(`[data-testid="${kind}"][data-identity="${identity}"] video`);
      if (!element) return undefined;
      if (!watches.has(element)) watches.set(element, new BoardWatch(element));
      const reading = watches.get(element).read();
      // A board that changed its owner (another camera, another share) is judged anew.
      if (reading.strangers > 0) watches.get(element).mark();
      return reading;
    },
    async hear() {
      const [, { ToneMeter }] = await load();
      const tracks = connections.flatMap((one) => (one.connectionState === 'closed' ? [] : one.getReceivers())).map(({ track }) => track);
      const live = tracks.filter(({ kind, readyState }) => kind === 'audio' && readyState === 'live');
      for (const track of live) if (!meters.has(track)) meters.set(track, new ToneMeter(track));
      return live.map((track) => meters.get(track).read()).filter(({ level }) => level > -50).map(({ frequency }) => frequency);
    },
  };
  if (board === undefined) return;
  const capture = async (person, frequency, video, audio) => {
    const [{ boardSource }, { toneSource }] = await load();
    const tracks = [];
    if (video) tracks.push(boardSource({ person, width: 640, height: 360 }).track);
    if (audio) tracks.push(toneSource({ frequency }).track);
    return new MediaStream(tracks);
  };
  const screen = 7;
  navigator.mediaDevices.getUserMedia = ({ audio, video }) => capture(board, tone, video, audio);
  navigator.mediaDevices.getDisplayMedia = () => capture(screen + board, tone, true, false);
}
