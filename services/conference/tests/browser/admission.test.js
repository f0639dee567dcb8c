// Who gets in, and what those who do not are told: the client's own errors.

import assert from 'node:assert/strict';

import { AccessToken } from 'livekit-server-sdk';

import { KEY, SECRET, Server, freePort } from './harness/server.js';
import { stage } from './harness/stage.js';

const test = stage();

/** `ConnectionErrorReason` of the client; its `reasonName` does not tell them apart. */
const NOT_ALLOWED = 0;
const UNREACHABLE = 1;
const WEBSOCKET = 6;

async function refusal(call, options) {
  const person = await call.arrive('ann');
  const outcome = await call.enter(person, options);
  assert.equal(outcome.joined, false, 'ann got in');
  assert.equal(outcome.name, 'ConnectionError');
  return outcome;
}

async function mint(grant, { key = KEY, secret = SECRET, ...options } = {}) {
  const token = new AccessToken(key, secret, { identity: 'ann', ttl: '1h', ...options });
  if (grant) token.addGrant(grant);
  return token.toJwt();
}

const WRONG_TOKENS = {
  'with_a_wrong_signature': (room) => mint({ roomJoin: true, room }, { secret: 'another-secret-which-is-long-enough' }),
  'of_a_key_nobody_knows': (room) => mint({ roomJoin: true, room }, { key: 'stranger' }),
  'that_expired_an_hour_ago': (room) => mint({ roomJoin: true, room }, { ttl: -3600 }),
  'without_a_grant_to_join': (room) => mint({ roomJoin: false, room }),
  'without_any_grant': () => mint(undefined),
  'that_is_not_one': async () => 'not.a.token',
};

for (const [which, make] of Object.entries(WRONG_TOKENS)) {
  test(`a_token_${which}_is_not_allowed`, async (call) => {
    const { reason, status } = await refusal(call, { token: await make(call.room) });
    assert.deepEqual([reason, status], [NOT_ALLOWED, 401]);
  });
}

test('a_token_without_a_room_is_an_error_that_is_not_about_permission', async (call) => {
  const { reason } = await refusal(call, { token: await mint({ roomJoin: true, room: '' }) });
  assert.notEqual(reason, UNREACHABLE);
});

test('a_server_that_is_not_there_is_unreachable', async (call) => {
  const { reason } = await refusal(call, { url: `ws://127.0.0.1:${await freePort()}` });
  assert.equal(reason, UNREACHABLE);
});

test('a_full_room_refuses_until_somebody_leaves', async (call) => {
  await call.api.createRoom({ name: call.room, maxParticipants: 2 });
  const [bob, cat] = await Promise.all([call.join('bob'), call.join('cat')]);
  const { reason, status, message } = await refusal(call);
  assert.deepEqual([reason, status], [NOT_ALLOWED, 403]);
  assert.match(message, /max participants/);
  await bob.call('leave');
  await call.untilApi('one left', async (api, room) => (await api.listParticipants(room)).length === 1);
  const ann = await call.join('ann');
  await call.meet(ann, cat);
});

test('somebody_already_in_a_full_room_may_come_back', async (call) => {
  await call.api.createRoom({ name: call.room, maxParticipants: 1 });
  await call.join('ann');
  const again = await call.join('ann');
  assert.equal((await again.snapshot()).connected, true);
});

test('a_missing_room_is_refused_where_joining_does_not_make_one', async (call) => {
  const strict = await Server.start({ PLENARY__ROOM__AUTO_CREATE: 'false' });
  call.cleanup(() => strict.stop());
  const token = await strict.token(call.room, 'ann');
  const { reason, status, message } = await refusal(call, { url: strict.url, token });
  assert.deepEqual([reason, status], [NOT_ALLOWED, 404]);
  assert.match(message, /requested room does not exist/);
  await strict.api.createRoom({ name: call.room });
  const ann = await call.join('ann', { url: strict.url, token });
  assert.equal((await ann.snapshot()).room.name, call.room);
});

test('a_node_that_takes_no_more_rooms_says_so_to_those_who_can_be_retried_elsewhere', async (call) => {
  const small = await Server.start({ PLENARY__LIMITS__ROOMS: '1' });
  call.cleanup(() => small.stop());
  await small.api.createRoom({ name: 'the only one' });
  const { reason } = await refusal(call, { url: small.url, token: await small.token(call.room, 'ann') });
  assert.equal(reason, WEBSOCKET);
  const response = await fetch(`${small.http}/rtc/validate?access_token=${await small.token(call.room, 'ann')}`);
  assert.equal(response.status, 503);
});

test('what_a_token_says_about_a_person_is_what_the_others_see', async (call) => {
  const bob = await call.join('bob');
  await call.join('ann', { claims: { name: 'Ann A.', metadata: 'from the token', attributes: { seat: '12' } } });
  await bob.until('sees it', ({ people: { ann } }) => ann?.name === 'Ann A.' && ann.metadata === 'from the token' && ann.attributes.seat === '12');
});
