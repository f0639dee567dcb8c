// Where a test file plays: one server, one browser, and for each test a room of its own that is cleared afterwards.

import { randomBytes } from 'node:crypto';
import { after, before, test as nodeTest } from 'node:test';

import { launch } from './browser.js';
import { Person } from './person.js';
import { Server } from './server.js';
import { serveSite } from './site.js';
import { until } from './until.js';

/**
 * @param {{ server?: Record<string, string>, start?: () => Promise<any>, browser?: string[], deadline?: number }} [options]
 *   environment of the server or what is started in its place, switches of the browser, and how long the whole file may
 *   take in ms
 */
export function stage({ server: environment, start = () => Server.start(environment), browser: switches, deadline = FILE_DEADLINE_MS } = {}) {
  /** @type {{ server: Server, browser: import('playwright-core').Browser, site: { origin: string, close: () => Promise<void> } }} */
  const set = /** @type {any} */ ({});
  setTimeout(() => {
    console.error(`this file took longer than ${deadline} ms\n${set.server?.log.slice(-LOG_SHOWN) ?? ''}`);
    process.exit(1);
  }, deadline).unref();

  before(async () => {
    [set.server, set.browser, set.site] = await Promise.all([start(), launch(switches), serveSite()]);
  });
  after(async () => {
    await Promise.allSettled([set.browser?.close(), set.site?.close()]);
    const end = await set.server?.stop();
    if (end && end.code !== 0) throw new Error(`the server ended with ${JSON.stringify(end)}\n${set.server.log.slice(-LOG_SHOWN)}`);
  });

  /**
   * @param {string} behaviour
   * @param {(call: Call) => Promise<void>} body
   * @param {{ timeout?: number, skip?: string }} [options] `skip` says why it cannot pass yet
   */
  return function test(behaviour, body, { timeout = TEST_DEADLINE_MS, skip } = {}) {
    nodeTest(behaviour, { timeout, skip }, async () => {
      const call = new Call(set);
      // The runner's own timeout would abandon the body without a word about why.
      const late = new Promise((_, reject) => {
        setTimeout(() => reject(new Error(`took longer than ${timeout} ms`)), timeout - REPORT_MS).unref();
      });
      try {
        await Promise.race([body(call), late]);
      } catch (error) {
        console.error(`\n=== ${behaviour}\n${await call.report()}\n--- server\n${set.server.log.slice(-LOG_SHOWN)}`);
        throw error;
      } finally {
        await call.close();
      }
    });
  };
}

/** One test: a room, and who is in it. */
export class Call {
  #set;
  #people = /** @type {Person[]} */ ([]);
  #cleanup = /** @type {(() => unknown)[]} */ ([]);

  constructor(set) {
    this.#set = set;
    this.room = `room-${randomBytes(6).toString('hex')}`;
  }

  get server() {
    return this.#set.server;
  }

  get api() {
    return this.#set.server.api;
  }

  get browser() {
    return this.#set.browser;
  }

  get people() {
    return this.#people;
  }

  /** Something to undo when the test is over. @param {() => unknown} undo */
  cleanup(undo) {
    this.#cleanup.push(undo);
  }

  /**
   * A page with a person in it who has not joined yet.
   * @param {string} identity
   * @param {import('playwright-core').Browser} [browser] instead of the file's own
   */
  async arrive(identity, browser = this.#set.browser) {
    const context = await browser.newContext();
    const person = new Person(await context.newPage(), identity);
    this.#people.push(person);
    await this.open(person);
    return person;
  }

  /** (Re)loads a person's page. @param {Person} person */
  async open(person) {
    await person.page.goto(this.#set.site.origin);
    await person.page.waitForFunction(() => 'person' in window);
  }

  /**
   * A person who has joined.
   * @param {string} identity
   * @param {JoinOptions & { board?: number, tone?: number, fps?: number, browser?: import('playwright-core').Browser }} [options] with `board` or `tone` they publish it
   */
  async join(identity, { board, tone, fps, browser, ...options } = {}) {
    const person = await this.arrive(identity, browser);
    const outcome = await this.enter(person, options);
    if (!outcome.joined) throw new Error(`${identity} was refused: ${JSON.stringify(outcome)}`);
    if (board !== undefined) await this.publish(person, 'publishBoard', { person: board, fps });
    if (tone !== undefined) await this.publish(person, 'publishTone', { frequency: tone });
    return person;
  }

  /**
   * Joins with a page that is open already; says how it went.
   * @param {Person} person
   * @param {JoinOptions} [options]
   */
  async enter(person, { url = this.server.url, token, grant, claims, room, connect } = {}) {
    const jwt = token ?? (await this.server.token(this.room, person.identity, { grant, options: claims }));
    return person.call('join', { url, token: jwt, room, connect });
  }

  async publish(person, method, options) {
    const outcome = await person.call(method, options);
    if (outcome.error) throw new Error(`${person.identity} could not publish: ${JSON.stringify(outcome.error)}`);
    return outcome.sid;
  }

  /** Waits until each of them knows all the others. @param {...Person} people */
  async meet(...people) {
    await Promise.all(
      people.map((one) => {
        const others = people.filter((other) => other !== one).map((other) => other.identity);
        return one.until(`knows ${others}`, (snapshot) => others.every((other) => other in snapshot.people), { within: 5000 });
      }),
    );
  }

  /** Waits for what the room API says. */
  untilApi(what, probe, options) {
    return until(`the room API: ${what}`, () => probe(this.api, this.room), options);
  }

  async report() {
    return (await Promise.all(this.#people.map((person) => person.report()))).join('\n');
  }

  async close() {
    await Promise.allSettled(this.#people.map((person) => person.close()));
    for (const undo of this.#cleanup.reverse()) await undo();
  }
}

/**
 * @typedef {object} JoinOptions
 * @property {string} [url]
 * @property {string} [token]
 * @property {object} [grant] members of the token's `video` grant
 * @property {object} [claims] further options of the token
 * @property {import('livekit-client').RoomOptions} [room]
 * @property {import('livekit-client').RoomConnectOptions} [connect]
 */

const TEST_DEADLINE_MS = 60_000;
const FILE_DEADLINE_MS = 10 * 60_000;
const REPORT_MS = 5000;
const LOG_SHOWN = 20_000;
