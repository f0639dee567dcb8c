// coturn as Debian packages it, on loopback, for as long as a test needs it.

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { freePort } from './server.js';
import { until } from './until.js';

const SECRET = 'what-coturn-and-plenary-share';

/** A TURN server, and the configuration that tells a Plenary of it. */
export async function startTurn() {
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'plenary-turn-'));
  const log = [];
  const child = spawn(
    'turnserver',
    [
      ...['-n', '-v', '--no-cli', '--no-tls', '--no-dtls', '--no-software-attribute', '--log-file=stdout'],
      ...[`--listening-ip=127.0.0.1`, `--relay-ip=127.0.0.1`, `--listening-port=${port}`],
      ...['--use-auth-secret', `--static-auth-secret=${SECRET}`, '--realm=plenary.test', '--fingerprint'],
      ...['--allow-loopback-peers', `--pidfile=${join(folder, 'pid')}`, `--userdb=${join(folder, 'db')}`],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => log.push(text));
  const exit = new Promise((resolve) => child.once('exit', resolve).once('error', resolve));
  process.once('exit', () => child.kill('SIGKILL'));
  await until('coturn answers', () => answers(port), { seen: () => log.slice(-5) });
  const config = join(folder, 'plenary.toml');
  writeFileSync(config, `[[turn]]\nurls = ["turn:127.0.0.1:${port}?transport=udp"]\nsecret = "${SECRET}"\n`);
  return {
    config,
    get log() {
      return log.join('');
    },
    async stop() {
      child.kill('SIGKILL');
      await exit;
      rmSync(folder, { recursive: true });
    },
  };
}

/** Whether a STUN binding request (RFC 8489) is answered there. */
function answers(port) {
  const socket = createSocket('udp4');
  return new Promise((resolve) => {
    const request = Buffer.from('000100002112a442000102030405060708090a0b', 'hex');
    socket.once('message', () => resolve(true)).once('error', () => resolve(false));
    socket.send(request, port, '127.0.0.1');
    setTimeout(() => resolve(false), 200);
  }).finally(() => socket.close());
}
