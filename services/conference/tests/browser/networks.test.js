// Ways to the server that are not the straight one: through a NAT, past an address that does not answer, over IPv6 alone;
// and people who change their network in the middle of a call.
//
// Everything plays in a network namespace of its own, where interfaces can come and go.

import assert from 'node:assert/strict';
import { after } from 'node:test';

import { ADDRESS, ADDRESS_V6, inNamespace, plugIn } from './harness/namespace.js';
import { Path, freeUdpPort, silence } from './harness/network.js';
import { FPS } from './harness/person.js';
import { Server } from './harness/server.js';
import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const PUBLIC = '127.0.0.2';
const DEAD = '127.0.0.9';
const SECOND_ADDRESS = '10.78.0.1';
/** Where the server sees a client whose NAT moved it. */
const OTHER_NAT = '127.0.0.3';

const port = await freeUdpPort();
/** The server's own address is not among these, so there is no way to it but the path. TCP is not carried. */
const NAT = {
  PLENARY__MEDIA__BIND: '127.0.0.1',
  PLENARY__MEDIA__UDP_PORT: `${port}`,
  PLENARY__MEDIA__THREADS: '1',
  PLENARY__MEDIA__ADVERTISE: `${DEAD},${PUBLIC}`,
};
const test = inNamespace(import.meta.filename, () => stage({ server: NAT, deadline: 170_000 }));

/** @type {Path} */
let path;
/** @type {Awaited<ReturnType<typeof silence>>} */
let dead;
if (test.isInside) {
  path = await Path.open({ address: PUBLIC, port }, { address: '127.0.0.1', port });
  dead = await silence(DEAD, port);
}
after(() => {
  path?.close();
  dead?.close();
});

/**
 * The picture is back within this. A client checks its path every 2.5 s, which is when the server hears of another port. It
 * gives up a path that is silent after 3.5 to 4 s, and what it lost in that time takes a key frame or the SDK's repair.
 */
const BACK_MS = 8_000;
/** What goes for an undisturbed picture while two cores encode and decode for all. */
const UNDISTURBED_MS = 1_000;

/** Bob, who publishes, cat, who watches, and ann, who comes last and publishes too. */
async function company(call, beforeAnn = () => {}) {
  const [bob, cat] = await Promise.all([call.join('bob', { board: 2, tone: 660 }), call.join('cat')]);
  await cat.sees(bob, { board: 2 });
  beforeAnn();
  const ann = await call.join('ann', { board: 1, tone: 440 });
  await Promise.all([ann.sees(bob, { board: 2 }), bob.sees(ann, { board: 1 }), cat.sees(ann, { board: 1 }), cat.sees(bob, { board: 2 })]);
  return [ann, bob, cat];
}

/** Moves ann in the middle of a call: she sees and is seen again soon, and the others see each other all along. */
async function moves(call, [ann, bob, cat], move) {
  await Promise.all([ann, bob, cat].map((one) => one.call('mark')));
  const sessions = { sid: (await ann.snapshot()).me.sid, pauses: await ann.call('events', 'reconnecting', 'signalReconnecting') };
  await move();
  const moved = performance.now();
  // The longest gap between two pictures tells how long it took, once a whole gap has passed since.
  await until('the move is over', () => performance.now() - moved > BACK_MS, { within: BACK_MS + 1_000 });
  const seen = { 'bob by ann': [ann, bob], 'ann by bob': [bob, ann], 'ann by cat': [cat, ann], 'bob by cat': [cat, bob] };
  const gaps = Object.fromEntries(await Promise.all(Object.entries(seen).map(async ([what, [viewer, of]]) => [what, Math.round((await viewer.reading(of)).longestGapMs)])));
  console.log(`    longest time without a new picture, ms: ${JSON.stringify(gaps)}`);
  for (const what of ['bob by ann', 'ann by bob', 'ann by cat']) assert.ok(gaps[what] < BACK_MS, `${what}: ${gaps[what]} ms`);
  assert.ok(gaps['bob by cat'] < UNDISTURBED_MS, `nobody else notices: ${gaps['bob by cat']} ms`);
  await Promise.all([ann.sees(bob, { board: 2 }), cat.sees(ann, { board: 1 }), bob.hears(ann, { frequency: 440 }), ann.hears(bob, { frequency: 660 })]);
  const now = { sid: (await ann.snapshot()).me.sid, pauses: await ann.call('events', 'reconnecting', 'signalReconnecting') };
  assert.deepEqual(now, sessions, 'the SDK had nothing to repair');
}

test('a_call_goes_on_behind_a_nat_and_past_an_address_that_does_not_answer', async (call) => {
  const [ann, bob] = await company(call);
  await Promise.all([bob.hears(ann, { frequency: 440 }), ann.hears(bob, { frequency: 660 })]);
  assert.deepEqual([...new Set(await ann.call('transports'))], ['udp']);
  assert.ok(dead.heard() > 0, 'the first address was tried');
  assert.ok(path.flows(await ann.call('ports')).length > 0);
});

test('over_ipv6_alone_a_call_is_whole', async (call) => {
  const six = await Server.start({ PLENARY__MEDIA__BIND: ADDRESS_V6 }, undefined, '[::1]');
  call.cleanup(() => six.stop());
  const ann = await call.join('ann', { board: 1, tone: 440, url: six.url });
  const bob = await call.join('bob', { board: 2, url: six.url });
  await Promise.all([bob.sees(ann, { board: 1 }), ann.sees(bob, { board: 2 })]);
  await bob.hears(ann, { frequency: 440 });
  assert.deepEqual([...new Set(await ann.call('transports'))], ['udp']);
});

test('a_client_whose_nat_gives_it_another_port_goes_on', async (call) => {
  const people = await company(call);
  const flows = path.flows(await people[0].call('ports'));
  await moves(call, people, () => flows.forEach((flow) => flow.rebind('127.0.0.1')));
}, { timeout: 80_000 });

test('a_client_whose_nat_gives_it_another_address_goes_on', async (call) => {
  const people = await company(call);
  const flows = path.flows(await people[0].call('ports'));
  await moves(call, people, () => flows.forEach((flow) => flow.rebind(OTHER_NAT)));
}, { timeout: 80_000 });

test('a_client_whose_network_goes_away_goes_on_by_another', async (call) => {
  let pull = () => {};
  const people = await company(call, () => (pull = plugIn(SECOND_ADDRESS)));
  const addresses = async (one) => [...new Set(path.flows(await one.call('ports')).map(({ client }) => client))];
  assert.deepEqual(await Promise.all(people.map(addresses)), [[SECOND_ADDRESS], [ADDRESS], [ADDRESS]]);
  await moves(call, people, pull);
  assert.deepEqual(await addresses(people[0]), [ADDRESS]);
}, { timeout: 80_000 });
