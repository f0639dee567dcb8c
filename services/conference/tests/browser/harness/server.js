// A Plenary of one's own: a process on free ports of loopback, whose log is kept and which is always ended.

import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

import { AccessToken, RoomServiceClient } from 'livekit-server-sdk';

import { until } from './until.js';

export const KEY = 'test-key';
export const SECRET = 'test-secret-which-is-long-enough-to-be-one';

export class Server {
  #child;
  #log = '';
  #exit;

  /**
   * @param {Record<string, string | undefined>} [environment] `PLENARY__…` beyond what every test needs
   * @param {number} [port] where another one listened before
   * @param {string} [host] the address of its HTTP, as in a URL
   */
  static async start(environment = {}, port, host = '127.0.0.1') {
    port ??= await freePort();
    const server = new Server(host, port, environment);
    await server.#ready();
    return server;
  }

  /** @param {string} host @param {number} port @param {Record<string, string | undefined>} environment */
  constructor(host, port, environment) {
    this.port = port;
    this.url = `ws://${host}:${port}`;
    this.http = `http://${host}:${port}`;
    [this.key, this.secret] = environment.PLENARY_KEYS?.split(': ') ?? [KEY, SECRET];
    this.api = new RoomServiceClient(this.http, this.key, this.secret);
    this.#child = spawn(binary(), [], {
      env: {
        PATH: process.env.PATH,
        ...(process.env.PLENARY_TEST_LOG ? { PLENARY__LOG__FILTER: process.env.PLENARY_TEST_LOG } : {}),
        PLENARY_KEYS: `${KEY}: ${SECRET}`,
        PLENARY__HTTP__BIND: `${host}:${port}`,
        PLENARY__METRICS__BIND: 'off',
        // Zero takes any free port; the server tells its clients which.
        PLENARY__MEDIA__UDP_PORT: '0',
        PLENARY__MEDIA__TCP_PORT: '0',
        PLENARY__LOG__FORMAT: 'text',
        ...environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#exit = new Promise((resolve) => {
      this.#child.once('error', (error) => resolve({ code: null, signal: null, error }));
      this.#child.once('exit', (code, signal) => resolve({ code, signal }));
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.#log = (this.#log + text).slice(-LOG_MAX)));
    }
    running.add(this.#child);
    this.#exit.then(() => running.delete(this.#child));
  }

  get pid() {
    return this.#child.pid;
  }

  get log() {
    return this.#log;
  }

  /** How the process ended, once it has. */
  get exited() {
    return this.#exit;
  }

  /**
   * @param {string} room
   * @param {string} identity
   * @param {{ grant?: object, options?: object, key?: string, secret?: string }} [more]
   */
  token(room, identity, { grant = {}, options = {}, key = this.key, secret = this.secret } = {}) {
    const token = new AccessToken(key, secret, { identity, ttl: '1h', ...options });
    token.addGrant({ roomJoin: true, room, canUpdateOwnMetadata: true, ...grant });
    return token.toJwt();
  }

  /** A token of exactly these claims, however wrong: the SDK refuses to make some. @param {object} claims */
  sign(claims) {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${part({ iss: this.key, exp: Math.floor(Date.now() / 1000) + 600, ...claims })}`;
    return `${body}.${createHmac('sha256', this.secret).update(body).digest('base64url')}`;
  }

  /** Asks it to end, and makes sure. */
  async stop() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return this.#exit;
    this.#child.kill('SIGTERM');
    const patience = setTimeout(() => this.#child.kill('SIGKILL'), STOP_MS);
    const end = await this.#exit;
    clearTimeout(patience);
    return end;
  }

  kill() {
    this.#child.kill('SIGKILL');
  }

  terminate() {
    this.#child.kill('SIGTERM');
  }

  async #ready() {
    const answered = until('the server answers', () => fetch(`${this.http}/readyz`).then((response) => response.ok), { within: START_MS, every: 50 });
    const ended = this.#exit.then((end) => Promise.reject(new Error(`the server ended at its start: ${JSON.stringify(end)}`)));
    try {
      await Promise.race([answered, ended]);
    } catch (error) {
      this.#child.kill('SIGKILL');
      throw new Error(`${error.message}\n${this.#log}`);
    }
    answered.catch(() => {});
    ended.catch(() => {});
  }
}

/** A TCP port nobody listens on at this moment. */
export async function freePort() {
  const probe = createServer();
  await new Promise((resolve, reject) => probe.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (probe.address());
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

function binary() {
  if (process.env.PLENARY_BIN) return process.env.PLENARY_BIN;
  const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../../../../target', import.meta.url));
  const found = ['release', 'debug'].map((profile) => `${target}/${profile}/plenary`).find((path) => existsSync(path));
  if (!found) throw new Error(`no plenary in ${target}: build it, or set PLENARY_BIN`);
  return found;
}

const running = new Set();
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

const START_MS = 15_000;
const STOP_MS = 10_000;
const LOG_MAX = 1 << 20;
