// A UDP path of one's own between clients and a server, both on this machine: what is sent to where it listens goes on to
// the server, and back. The server sees a socket of the path for each client, so it is behind a 1:1 NAT and they behind a NAT
// of their own. What a line does to the packets it carries may be changed at any time; chance follows a seed.

import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';

export class Path {
  #listener;
  #server;
  #flows = /** @type {Map<string, Flow>} */ (new Map());

  /**
   * @param {{ address: string, port: number }} listen where clients send to
   * @param {{ address: string, port: number }} server where that goes
   * @param {Line} [line] for flows that begin; may be exchanged at any time
   */
  static async open(listen, server, line = new Line()) {
    const listener = await bound(listen.address, listen.port);
    return new Path(listener, server, line);
  }

  constructor(listener, server, line) {
    this.#listener = listener;
    this.#server = server;
    this.line = line;
    listener.on('message', (bytes, from) => this.#flow(from).up(bytes));
  }

  /**
   * The flows that the server sees under these ports, which are those that their clients know too: the selected candidate
   * pair has them as the local, peer-reflexive side.
   * @param {number[]} ports
   * @returns {Flow[]}
   */
  flows(ports) {
    const found = [...this.#flows.values()].filter((flow) => ports.includes(flow.port));
    if (found.length !== new Set(ports).size) throw new Error(`not all of ${ports} go over this path`);
    return found;
  }

  close() {
    this.#listener.close();
    for (const flow of this.#flows.values()) flow.close();
  }

  /** @param {{ address: string, port: number }} from */
  #flow({ address, port }) {
    const key = `${address} ${port}`;
    let flow = this.#flows.get(key);
    if (!flow) {
      flow = new Flow(address, this.line, this.#server, (bytes) => send(this.#listener, bytes, { address, port }));
      this.#flows.set(key, flow);
    }
    return flow;
  }
}

/** Both directions between one address of a client and the server. */
class Flow {
  #server;
  #toClient;
  #socket;

  /** @param {string} client its address @param {Line} line may be exchanged while it lasts */
  constructor(client, line, server, toClient) {
    this.client = client;
    this.line = line;
    this.#server = server;
    this.#toClient = toClient;
    this.rebind(isIPv6(server.address) ? '::1' : '127.0.0.1');
  }

  /** That the server sees. */
  get port() {
    return this.#socket.address().port;
  }

  /** A datagram from the client. */
  up(bytes) {
    this.line.up.carry(bytes, () => send(this.#socket, bytes, this.#server));
  }

  /**
   * As when a NAT forgets, or a client moves unawares: from now on the server hears this client from another port of this
   * address, and what it sends to the one before is lost.
   * @param {string} address
   */
  rebind(address) {
    this.#socket?.close();
    const socket = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4', recvBufferSize: BUFFER_BYTES });
    this.#socket = socket.on('error', () => {});
    socket.bind(0, address).on('message', (bytes) => this.line.down.carry(bytes, () => this.#toClient(bytes)));
  }

  close() {
    this.#socket.close();
  }
}

/** What somebody is connected by: a link to the server and one from it. */
export class Line {
  /** @param {{ up?: Shape, down?: Shape, seed?: number }} [options] */
  constructor({ up = {}, down = {}, seed = 1 } = {}) {
    this.up = new Link(up, 2 * seed);
    this.down = new Link(down, 2 * seed + 1);
  }
}

/**
 * One direction: chance first, then a bottleneck with its queue, then delay.
 *
 * @typedef {object} Shape
 * @property {number} [kbps] of the bottleneck, headers of IPv4 and UDP included
 * @property {number} [queueMs] what would wait for longer is dropped
 * @property {number} [delayMs]
 * @property {number} [jitterMs] at most so much is added to the delay, evenly spread
 * @property {boolean} [overtakes] whether packets overtake each other by jitter; otherwise what is held back holds back the rest
 * @property {number} [reorder] share of packets that are held back by twice the delay
 * @property {number} [loss] share of packets lost, each by itself
 * @property {{ begin: number, packets: number }} [bursts] chance of a packet to be the first of so many lost on average
 */
export class Link {
  #shape;
  #random;
  #inBurst = false;
  /** Waiting for the bottleneck, oldest first. @type {{ bytes: number, arrived: number, deliver: () => void }[]} */
  #queue = [];
  #queuedBytes = 0;
  /** The bottleneck is busy until then. */
  #free = 0;
  /** Past the bottleneck, soonest first. @type {{ at: number, deliver: () => void }[]} */
  #underway = [];
  #lastAt = 0;
  #timer;
  #count = none();

  /** @param {Shape} shape @param {number} seed */
  constructor(shape, seed) {
    this.#random = randomBy(seed);
    this.set(shape);
  }

  /** Instead of all that was set before. @param {Shape} shape */
  set(shape) {
    this.#shape = { kbps: Infinity, queueMs: 300, delayMs: 0, jitterMs: 0, overtakes: false, reorder: 0, loss: 0, ...shape };
    this.#run();
  }

  /** @param {Buffer} payload @param {() => void} deliver */
  carry(payload, deliver) {
    const now = performance.now();
    const { kbps, queueMs, loss } = this.#shape;
    const bytes = payload.length + HEADERS_BYTES;
    if (this.#random() < loss || this.#losesInBurst()) {
      this.#count.lost += 1;
      return;
    }
    if ((this.#queuedBytes * 8) / kbps > queueMs) {
      this.#count.dropped += 1;
      return;
    }
    this.#queue.push({ bytes, arrived: now, deliver });
    this.#queuedBytes += bytes;
    this.#run();
  }

  /**
   * What happened since it was last asked: packets and bytes carried, lost by chance, dropped by a full queue; `waits` for
   * the bottleneck and `late`, by how much the path itself missed its times, in ms.
   */
  take() {
    const count = this.#count;
    this.#count = none();
    return count;
  }

  #losesInBurst() {
    const { bursts } = this.#shape;
    if (!bursts) return false;
    if (this.#random() < (this.#inBurst ? 1 / bursts.packets : bursts.begin)) this.#inBurst = !this.#inBurst;
    return this.#inBurst;
  }

  #run() {
    clearTimeout(this.#timer);
    const now = performance.now();
    this.#serve(now);
    while (this.#underway.length > 0 && this.#underway[0].at <= now) {
      const { at, deliver } = /** @type {any} */ (this.#underway.shift());
      this.#count.late.push(now - at);
      deliver();
    }
    const next = Math.min(this.#underway[0]?.at ?? Infinity, this.#queue.length > 0 ? this.#leaves(this.#queue[0]) : Infinity);
    if (next < Infinity) this.#timer = setTimeout(() => this.#run(), Math.max(next - now, 0));
  }

  /** Takes from the queue what has passed the bottleneck by now. */
  #serve(now) {
    while (this.#queue.length > 0) {
      const packet = this.#queue[0];
      const leaves = this.#leaves(packet);
      if (leaves > now) return;
      this.#queue.shift();
      this.#queuedBytes -= packet.bytes;
      this.#free = leaves;
      this.#count.packets += 1;
      this.#count.bytes += packet.bytes;
      this.#count.waits.push(leaves - packet.arrived);
      this.#depart(leaves, packet.deliver);
    }
  }

  #leaves({ bytes, arrived }) {
    return Math.max(arrived, this.#free) + (bytes * 8) / this.#shape.kbps;
  }

  #depart(now, deliver) {
    const { delayMs, jitterMs, overtakes, reorder } = this.#shape;
    let at = now + delayMs + this.#random() * jitterMs;
    if (!overtakes) at = this.#lastAt = Math.max(at, this.#lastAt);
    if (this.#random() < reorder) at += 2 * delayMs;
    const place = this.#underway.findLastIndex((other) => other.at <= at) + 1;
    this.#underway.splice(place, 0, { at, deliver });
  }
}

/** Evenly spread over 0 to 1 (Marsaglia's xorshift, 32 bits). @param {number} seed */
function randomBy(seed) {
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  const next = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
  // Neighbouring seeds begin alike.
  for (let round = 0; round < 16; round += 1) next();
  return next;
}

/** An address that answers nothing, for as long as it is open. */
export async function silence(address, port) {
  const socket = await bound(address, port);
  let heard = 0;
  socket.on('message', () => (heard += 1));
  return { heard: () => heard, close: () => socket.close() };
}

/** A UDP port that nobody listens on at this moment. */
export async function freeUdpPort(address = '127.0.0.1') {
  const socket = await bound(address, 0);
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(() => resolve(undefined)));
  return port;
}

/** @returns {Promise<import('node:dgram').Socket>} */
function bound(address, port) {
  const socket = createSocket({ type: isIPv6(address) ? 'udp6' : 'udp4', recvBufferSize: BUFFER_BYTES });
  return new Promise((resolve, reject) => {
    socket.once('error', reject).bind(port, address, () => {
      socket.off('error', reject).on('error', () => {});
      resolve(socket);
    });
  });
}

/** Where nobody listens any more a datagram is lost, as on any network. */
function send(socket, bytes, { address, port }) {
  try {
    socket.send(bytes, port, address, () => {});
  } catch {
    // The socket was closed while this was under way.
  }
}

function none() {
  return { packets: 0, bytes: 0, lost: 0, dropped: 0, waits: /** @type {number[]} */ ([]), late: /** @type {number[]} */ ([]) };
}

const HEADERS_BYTES = 28;
const BUFFER_BYTES = 4 << 20;
