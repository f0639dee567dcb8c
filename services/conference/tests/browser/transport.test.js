// The way of the packets: media over TCP where UDP is shut.

import assert from 'node:assert/strict';

import { NO_UDP, launch } from './harness/browser.js';
import { stage } from './harness/stage.js';

const test = stage();

test('without_udp_a_call_goes_over_tcp', async (call) => {
  const walled = await launch([NO_UDP]);
  call.cleanup(() => walled.close());
  const ann = await call.join('ann', { board: 1, tone: 440, browser: walled });
  const bob = await call.join('bob', { board: 2, tone: 660 });
  await Promise.all([bob.sees(ann, { board: 1 }), ann.sees(bob, { board: 2 })]);
  await Promise.all([bob.hears(ann, { frequency: 440 }), ann.hears(bob, { frequency: 660 })]);
  assert.deepEqual([...new Set(await ann.call('transports'))], ['tcp']);
  assert.deepEqual([...new Set(await bob.call('transports'))], ['udp']);
  await ann.call('sendData', { text: 'x', repeat: 50_000 });
  await bob.receives('data too', ({ size }) => size === 50_000);
});

test('a_client_told_to_use_tcp_does', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { board: 1 }), call.join('bob', { board: 2 })]);
  await bob.sees(ann, { board: 1 });
  await ann.call('simulate', 'force-tcp');
  await ann.event('reconnected');
  await bob.sees(ann, { board: 1 });
  await ann.sees(bob, { board: 2 });
  assert.deepEqual([...new Set(await ann.call('transports'))], ['tcp']);
});
