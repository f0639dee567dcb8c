// Media through a TURN server, with the credentials that the join response brought.

import assert from 'node:assert/strict';
import { after } from 'node:test';

import { Relay } from './harness/relay.js';
import { stage } from './harness/stage.js';
import { startTurn } from './harness/turn.js';
import { until } from './harness/until.js';

const turn = await startTurn();
after(() => turn.stop());
const test = stage({ server: { PLENARY_CONFIG: turn.config } });

const allocations = () => turn.log.split('ALLOCATE processed, success').length;

const RELAY_ONLY = { connect: { rtcConfig: { iceTransportPolicy: 'relay' } } };

test('a_call_goes_through_a_relay_where_there_is_no_other_way', async (call) => {
  const ann = await call.join('ann', { board: 1, tone: 440, ...RELAY_ONLY });
  const bob = await call.join('bob', { board: 2, tone: 660 });
  await Promise.all([bob.sees(ann, { board: 1 }), ann.sees(bob, { board: 2 })]);
  await Promise.all([bob.hears(ann, { frequency: 440 }), ann.hears(bob, { frequency: 660 })]);
  assert.deepEqual([...new Set(await ann.call('candidateTypes'))], ['relay']);
  assert.ok(!(await bob.call('candidateTypes')).includes('relay'), 'who can reach the server directly does');
});

test('a_relayed_call_survives_the_loss_of_its_socket', async (call) => {
  const relay = await Relay.to(call.server.port);
  call.cleanup(() => relay.close());
  const ann = await call.join('ann', { board: 1, url: relay.url, ...RELAY_ONLY });
  const bob = await call.join('bob');
  await bob.sees(ann, { board: 1 });
  const before = allocations();
  relay.cut();
  await ann.event('reconnected');
  await bob.sees(ann, { board: 1 });
  await until('an allocation with the fresh credentials', () => allocations() > before, { seen: () => turn.log.slice(-800) });
});
