// Three nodes, the Redis they share and HAProxy before them, with the configuration that Plenary ships.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Server, freePort } from './server.js';
import { until } from './until.js';

const SHIPPED = new URL('../../../../../deploy/haproxy/haproxy.cfg', import.meta.url);
const PLACED = 'balance hash var(txn.room)';

/** To a stage it is what one server would be: everything is asked of it through HAProxy, which sends each to the node that has the fewest, so that they part. */
export class Cluster {
  nodes = /** @type {Server[]} */ ([]);
  #folder = mkdtempSync(join(tmpdir(), 'plenary-cluster-'));
  #daemons = /** @type {import('node:child_process').ChildProcess[]} */ ([]);
  #killed = new Set();
  #environment = {};
  #balancerLog = '';

  static async start() {
    const cluster = new Cluster();
    try {
      await cluster.#start();
      return cluster;
    } catch (error) {
      const log = cluster.log;
      await cluster.stop();
      throw new Error(`${error.message}\n${log}`);
    }
  }

  async #start() {
    const [redisPort, port] = [await freePort(), await freePort()];
    this.url = `ws://127.0.0.1:${port}`;
    this.http = `http://127.0.0.1:${port}`;
    this.#environment = {
      PLENARY__CLUSTER__REDIS: `redis://127.0.0.1:${redisPort}`,
      PLENARY__CLUSTER__KEY: 'a cluster key for tests, which is long enough',
      // They end at once: this is about how nodes die.
      PLENARY__DRAIN__ACCEPT_FOR: '0s',
      PLENARY__DRAIN__DEADLINE: '1s',
    };
    this.#run('redis-server', ['--port', `${redisPort}`, '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', this.#folder]);
    this.nodes = await Promise.all([0, 1, 2].map(() => Server.start(this.#environment)));
    const shipped = readFileSync(SHIPPED, 'utf8');
    if (!shipped.includes(PLACED)) throw new Error(`${SHIPPED} does not say ${PLACED}`);
    const config = join(this.#folder, 'haproxy.cfg');
    writeFileSync(config, shipped.replace(PLACED, 'balance leastconn'));
    const addresses = Object.fromEntries(this.nodes.map((node, at) => [`PLENARY_NODE${at + 1}`, `127.0.0.1:${node.port}`]));
    const balancer = this.#run('haproxy', ['-f', config], { ...addresses, PLENARY_BIND: `127.0.0.1:${port}` });
    for (const stream of [balancer.stdout, balancer.stderr]) stream.setEncoding('utf8').on('data', (text) => (this.#balancerLog += text));
    await until('HAProxy answers', () => fetch(`${this.http}/readyz`).then(({ ok }) => ok));
    this.api = this.nodes[0].api;
  }

  /** Those of every node are equally good. */
  token(...given) {
    return this.nodes[0].token(...given);
  }

  /** Which node has this person. @param {import('./person.js').Person} person */
  async nodeOf(person) {
    const { me } = await person.snapshot();
    // A session's id begins with the id of its node, which the node says when it starts.
    const node = this.nodes.findIndex(({ log }) => log.includes(`node=ND_${me.sid.slice(3, 15)} http=`));
    if (node < 0) throw new Error(`no node has ${me.sid}`);
    return node;
  }

  /** As if its machine had lost its power, but that its sockets are closed. @param {number} at */
  kill(at) {
    this.#killed.add(this.nodes[at]);
    this.nodes[at].kill();
  }

  /** Another in the place of one that was killed, once HAProxy uses it. @param {number} at */
  async replace(at) {
    this.nodes[at] = await Server.start(this.#environment, this.nodes[at].port);
    await until('HAProxy uses it', async () => {
      const before = this.#balancerLog.length;
      for (let request = 0; request < 6; request += 1) await fetch(`${this.http}/healthz`);
      return this.#balancerLog.slice(before).includes(`nodes/node${at + 1} `);
    });
  }

  get log() {
    return [...this.nodes.map((node, at) => `--- node ${at}\n${node.log.slice(-6000)}`), `--- HAProxy\n${this.#balancerLog.slice(-3000)}`].join('\n');
  }

  async stop() {
    const ends = await Promise.all(this.nodes.filter((node) => !this.#killed.has(node)).map((node) => node.stop()));
    for (const daemon of this.#daemons) daemon.kill('SIGKILL');
    rmSync(this.#folder, { recursive: true, force: true });
    return ends.find(({ code }) => code !== 0) ?? { code: 0 };
  }

  #run(program, given, environment = {}) {
    const child = spawn(program, given, { env: { PATH: `${process.env.PATH}:/usr/sbin`, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
    child.once('error', (error) => (this.#balancerLog += `${program}: ${error.message}\n`));
    child.stdout.resume();
    child.stderr.resume();
    this.#daemons.push(child);
    process.once('exit', () => child.kill('SIGKILL'));
    return child;
  }
}
