// A TCP relay that fails on demand: what a bad network does to signalling, while media goes its own way.

import { connect, createServer } from 'node:net';

export class Relay {
  #server;
  #pairs = new Set();
  #refusing = false;

  /** @param {number} target a port of 127.0.0.1 */
  static async to(target) {
    const relay = new Relay(target);
    await new Promise((resolve, reject) => relay.#server.once('error', reject).listen(0, '127.0.0.1', () => resolve(undefined)));
    return relay;
  }

  /** @param {number} target */
  constructor(target) {
    this.#server = createServer((client) => this.#serve(client, connect(target, '127.0.0.1')));
  }

  get port() {
    return /** @type {import('node:net').AddressInfo} */ (this.#server.address()).port;
  }

  get url() {
    return `ws://127.0.0.1:${this.port}`;
  }

  get http() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** How many connections go through it now. */
  get open() {
    return this.#pairs.size;
  }

  /** Resets every connection. */
  cut() {
    for (const pair of this.#pairs) for (const socket of pair) socket.resetAndDestroy();
  }

  /** Resets every connection, now and until `accept`. */
  refuse() {
    this.#refusing = true;
    this.cut();
  }

  accept() {
    this.#refusing = false;
  }

  close() {
    this.refuse();
    return new Promise((resolve) => this.#server.close(resolve));
  }

  /** @param {import('node:net').Socket} client @param {import('node:net').Socket} upstream */
  #serve(client, upstream) {
    const pair = [client, upstream];
    for (const socket of pair) {
      socket.on('error', () => {});
      socket.on('close', () => {
        this.#pairs.delete(pair);
        for (const one of pair) one.destroy();
      });
    }
    if (this.#refusing) return client.resetAndDestroy();
    this.#pairs.add(pair);
    client.setNoDelay(true).pipe(upstream);
    upstream.setNoDelay(true).pipe(client);
  }
}
