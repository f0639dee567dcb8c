// Real Chromium on bad networks: what a subscriber gets whose way down is shaped, and how soon a publisher behind some
// distance sends all its layers. Prints tables; asserts nothing, since a busy machine shows in every figure.
//
//   node networks.js [part of a scenario's name …]

import { randomBytes } from 'node:crypto';
import { loadavg } from 'node:os';
import { parseArgs } from 'node:util';

import { launch } from './harness/browser.js';
import { Line, Path, freeUdpPort } from './harness/network.js';
import { Server } from './harness/server.js';
import { serveSite } from './harness/site.js';
import { Call } from './harness/stage.js';
import { quiet, until } from './harness/until.js';

/** The camera's layers, low to high; with headers they take a little more. */
const LAYERS = [
  { width: 240, height: 135, encoding: { maxBitrate: 75_000, maxFramerate: 15 } },
  { width: 480, height: 270, encoding: { maxBitrate: 300_000, maxFramerate: 15 } },
  { width: 960, height: 540, encoding: { maxBitrate: 1_500_000, maxFramerate: 15 } },
];
const [LOW, MEDIUM, HIGH] = [0, 1, 2];
const CAMERA = {
  person: 1,
  width: 960,
  height: 540,
  fps: 15,
  noise: 0.25,
  publish: { simulcast: true, videoEncoding: LAYERS[HIGH].encoding, videoSimulcastLayers: LAYERS.slice(0, HIGH) },
};

/** The SDK's own choice, with redundancy, takes some 120 kb/s. This and the lowest layer fit into 150 kb/s. */
const TONE = { frequency: 440 };
const NARROW_TONE = { ...TONE, publish: { red: false, audioPreset: { maxBitrate: 20_000 } } };

/** @param {number} kbps @param {import('./harness/network.js').Shape} [more] */
const link = (kbps, more = {}) => ({ kbps, delayMs: 25, ...more });

/** The way down for a while, and the layer that fits. The way up has the same delay and loses as much. */
const stage = (seconds, right, down) => ({ seconds, right, down });

const SCENARIOS = [
  ['4 Mb/s', [stage(30, HIGH, link(4_000))]],
  ['4 Mb/s → 500 kb/s → 150 kb/s → 4 Mb/s', [stage(15, HIGH, link(4_000)), stage(20, MEDIUM, link(500)), stage(20, LOW, link(150)), stage(25, HIGH, link(4_000))]],
  ...[2, 5, 10, 20].map((percent) => [`${percent} % random loss`, [stage(30, HIGH, link(4_000, { loss: percent / 100 }))]]),
  ['4 % loss in bursts of 8', [stage(30, HIGH, link(4_000, { bursts: { begin: 0.005, packets: 8 } }))]],
  ['300 ms of jitter', [stage(40, HIGH, link(4_000, { jitterMs: 300 }))]],
  ['5 % out of order', [stage(30, HIGH, link(4_000, { reorder: 0.05 }))]],
  ...[50, 200, 400].map((rtt) => {
    const at = (kbps) => link(kbps, { delayMs: rtt / 2 });
    return [`RTT ${rtt} ms: 4 Mb/s → 500 kb/s → 4 Mb/s`, [stage(15, HIGH, at(4_000)), stage(20, MEDIUM, at(500)), stage(25, HIGH, at(4_000))]];
  }),
];
const UPSTREAM = [
  ['up: RTT 50 ms, 4 Mb/s', { kbps: 4_000, delayMs: 25 }],
  ['up: RTT 50 ms, 4 Mb/s, 2 % loss', { kbps: 4_000, delayMs: 25, loss: 0.02 }],
  ['up: RTT 200 ms, 4 Mb/s', { kbps: 4_000, delayMs: 100 }],
];

const { positionals: wanted } = parseArgs({ allowPositionals: true });
const isWanted = ([name]) => wanted.length === 0 || wanted.some((part) => name.includes(part));
const seed = Number(process.env.PLENARY_SEED ?? randomBytes(2).readUInt16BE());
console.log(`seed ${seed}`);

const EVERY_MS = 200;
/** The part of a stage in which it must use its link. */
const TAIL_MS = 5_000;
/** Of each way up, and how long one may take. */
const RUNS = 5;
const RISE_MS = 40_000;
const PUBLIC = '127.0.0.2';
const port = await freeUdpPort();
const path = await Path.open({ address: PUBLIC, port }, { address: '127.0.0.1', port });
const [server, browser, site] = await Promise.all([
  Server.start({ PLENARY__MEDIA__UDP_PORT: `${port}`, PLENARY__MEDIA__THREADS: '1', PLENARY__MEDIA__ADVERTISE: PUBLIC }),
  launch(),
  serveSite(),
]);

const rows = [];
try {
  for (const [name, stages] of SCENARIOS.filter(isWanted)) rows.push(...(await downstream(name, stages)));
  const sent = [];
  for (const [name, shape] of UPSTREAM.filter(isWanted)) sent.push(await upstream(name, shape));
  if (rows.length > 0) table(rows);
  if (sent.length > 0) table(sent);
} finally {
  path.close();
  await Promise.allSettled([browser.close(), site.close()]);
  await server.stop();
}

/** Plays one scenario, each stage after the other, and returns a row for each. */
async function downstream(name, stages) {
  const call = new Call({ server, browser, site });
  try {
    const ann = await call.join('ann');
    await call.publish(ann, 'publishTone', stages.length > 1 ? NARROW_TONE : TONE);
    await call.publish(ann, 'publishBoard', CAMERA);
    const bob = await call.join('bob');
    await until('all layers are sent and the highest is seen', async () => (await sample(bob, ann)).layer === HIGH, { within: 40_000, seen: () => ann.call('senderStats', 'camera') });
    const line = new Line({ seed });
    for (const flow of path.flows(await bob.call('ports'))) flow.line = line;
    // What a new connection does to its audio is no part of it.
    await quiet(5_000);
    const outcomes = [];
    for (const one of stages) outcomes.push(await play(bob, ann, line, one));
    const all = outcomes.flatMap((outcome) => outcome.waits);
    const shown = outcomes.map((outcome, index) => row(index === 0 ? name : '→', outcome));
    if (outcomes.length === 1) return shown;
    const sum = (of) => outcomes.reduce((total, outcome) => total + outcome[of], 0);
    return [...shown, row('whole', { concealedSamples: sum('concealedSamples'), samples: sum('samples'), waits: all, late: outcomes.flatMap(({ late }) => late) })];
  } finally {
    await call.close();
  }
}

async function play(bob, ann, line, { seconds, right, down }) {
  const { delayMs, loss, bursts } = down;
  line.down.take();
  line.down.set(down);
  line.up.set({ delayMs, loss, bursts });
  await bob.call('mark');
  const begin = performance.now();
  const first = await sample(bob, ann);
  const end = begin + seconds * 1000;
  let [last, tail] = [first, undefined];
  let settled = 0;
  while (performance.now() < end) {
    await quiet(EVERY_MS);
    last = await sample(bob, ann);
    if (last.layer !== right) settled = last.at - begin;
    if (!tail && last.at >= end - TAIL_MS) tail = last;
  }
  const { waits, late, dropped, lost } = line.down.take();
  const rate = (from, to, bytes) => ((bytes(to) - bytes(from)) * 8) / (to.at - from.at);
  const received = rate(tail, last, (one) => one.video.bytesReceived + one.audio.bytesReceived);
  const sent = rate(tail, last, (one) => one.sent[right].bytesSent + one.sound.bytesSent);
  return {
    settled: last.layer === right ? settled : Infinity,
    concealedSamples: last.audio.concealedSamples - first.audio.concealedSamples,
    samples: last.audio.totalSamplesReceived - first.audio.totalSamplesReceived,
    freezes: last.video.freezeCount - first.video.freezeCount,
    longest: last.longest,
    unused: Math.max(0, 1 - received / sent),
    received,
    waits,
    late,
    dropped,
    lost,
  };
}

async function sample(bob, ann) {
  const [video, audio, sent, [sound], reading] = await Promise.all([
    bob.call('receiverStats', 'ann', 'camera'),
    bob.call('receiverStats', 'ann', 'microphone'),
    ann.call('senderStats', 'camera'),
    ann.call('senderStats', 'microphone'),
    bob.reading('ann'),
  ]);
  const layer = LAYERS.findIndex(({ width, height }) => reading?.size === `${width}x${height}`);
  return { at: performance.now(), video, audio, sent, sound, layer, longest: reading?.longestGapMs };
}

/** How long after it publishes a camera a client behind this line sends what the layers may take. */
async function upstream(name, shape) {
  const runs = [];
  for (let run = 0; run < RUNS; run += 1) runs.push(await rise(shape, seed + run));
  runs.sort((a, b) => a - b);
  const shown = (seconds) => (seconds === Infinity ? 'never' : seconds.toFixed(1));
  const line = { scenario: name, 'sent after, s (median)': shown(runs[RUNS >> 1]), range: `${shown(runs[0])}–${shown(runs[RUNS - 1])}`, load: loadavg()[0].toFixed(1) };
  console.log(Object.values(line).join('  '));
  return line;
}

/** Seconds, or never. */
async function rise(shape, seed) {
  const call = new Call({ server, browser, site });
  try {
    const bob = await call.join('bob');
    // What ann opens from here on is behind it.
    path.line = new Line({ up: shape, down: { delayMs: shape.delayMs }, seed });
    const ann = await call.join('ann');
    await call.publish(ann, 'publishTone', TONE);
    await bob.hears(ann, { frequency: TONE.frequency });
    await call.publish(ann, 'publishBoard', CAMERA);
    const published = performance.now();
    const aim = LAYERS.reduce((sum, { encoding }) => sum + encoding.maxBitrate, 0);
    const sent = async () => ({ bytes: (await ann.call('senderStats', 'camera')).reduce((sum, one) => sum + one.bytesSent, 0), at: performance.now() });
    for (let before = await sent(); before.at - published < RISE_MS; ) {
      await quiet(1000);
      const now = await sent();
      if (((now.bytes - before.bytes) * 8000) / (now.at - before.at) >= 0.8 * aim) return (now.at - published) / 1000;
      before = now;
    }
    return Infinity;
  } finally {
    path.line = new Line();
    await call.close();
  }
}

function row(scenario, { settled, concealedSamples, samples, freezes, longest, unused, received, waits, late }) {
  const line = {
    scenario,
    settled: settled === undefined ? '' : settled === Infinity ? 'never' : `${(settled / 1000).toFixed(1)} s`,
    concealed: `${((100 * concealedSamples) / samples).toFixed(2)} %`,
    freezes: freezes ?? '',
    longest: longest === undefined ? '' : `${Math.round(longest)} ms`,
    unused: unused === undefined ? '' : `${Math.round(100 * unused)} %`,
    queue: `${Math.round(percentile(waits))} ms`,
    'kb/s': received === undefined ? '' : Math.round(received),
    // By how much the path itself was late.
    'path late': `${percentile(late).toFixed(1)} ms`,
    load: loadavg()[0].toFixed(1),
  };
  console.log(Object.values(line).join('  '));
  return line;
}

/** 95 of 100 are below. @param {number[]} values */
function percentile(values) {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length * 0.95)] ?? 0;
}

/** As in Markdown. @param {object[]} rows */
function table(rows) {
  const names = Object.keys(rows[0]);
  const lines = [names, names.map(() => '---'), ...rows.map((one) => names.map((name) => one[name]))];
  console.log(`\n${lines.map((cells) => `| ${cells.join(' | ')} |`).join('\n')}`);
}
