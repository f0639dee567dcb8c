// The wire without an SDK: what a client may rely on, and what a hostile one cannot do.

import assert from 'node:assert/strict';

import { DisconnectReason, LeaveRequest, LeaveRequest_Action, ParticipantInfo_State, SignalRequest } from '@livekit/protocol';

import { Server } from './harness/server.js';
import { stage } from './harness/stage.js';
import { quiet, until } from './harness/until.js';
import { Wire } from './harness/wire.js';

const test = stage();

const QUERY = 'protocol=17&sdk=js&version=2.23.0&auto_subscribe=1';

/** A bare client that has joined. */
async function wire(call, identity, { server = call.server, query = QUERY, grant } = {}) {
  const token = await server.token(call.room, identity, { grant });
  const client = await Wire.open(`${server.url}/rtc?access_token=${token}&${query}`);
  if (!(client instanceof Wire)) throw new Error(`refused: ${JSON.stringify(client)}`);
  call.cleanup(() => client.destroy());
  await client.receives('join');
  return client;
}

test('the_first_message_is_a_complete_join', async (call) => {
  const ann = await wire(call, 'ann');
  const { case: kind, value: join } = ann.messages[0].message;
  assert.equal(kind, 'join');
  assert.match(join.room.sid, /^RM_/);
  assert.match(join.participant.sid, /^PA_/);
  assert.deepEqual([join.room.name, join.participant.identity], [call.room, 'ann']);
  assert.ok(join.participant.permission, 'permission');
  assert.deepEqual([join.pingInterval, join.pingTimeout], [5, 15]);
  assert.equal(join.serverInfo.protocol, 17);
  assert.match(join.serverInfo.version, /^1\.(8|9|1[0-3])\.\d+$/);
  assert.match(join.enabledPublishCodecs[0].mime, /^video\/vp8$/i);
  assert.equal(join.subscriberPrimary, true);
});

test('a_subscriber_offer_comes_even_to_an_empty_room', async (call) => {
  const ann = await wire(call, 'ann');
  const offer = await ann.receives('offer');
  assert.equal(offer.type, 'offer');
  assert.match(offer.sdp, /m=application/);
});

test('json_is_answered_in_json_and_binary_in_binary', async (call) => {
  const ann = await wire(call, 'ann');
  ann.sendJson({ case: 'pingReq', value: { timestamp: 7n, rtt: 0n } });
  const pong = await ann.receives('pongResp');
  assert.equal(pong.lastPingTimestamp, 7n);
  assert.equal(ann.encodings.at(-1), 'text');
  ann.send({ case: 'ping', value: 5n });
  await ann.receives('pong');
  assert.equal(ann.encodings.at(-1), 'binary');
});

test('a_socket_that_pings_stays_and_a_silent_one_is_given_up', async (call) => {
  const hasty = await Server.start({ PLENARY__SIGNAL__PING_INTERVAL: '1s', PLENARY__SIGNAL__PING_TIMEOUT: '3s' });
  call.cleanup(() => hasty.stop());
  const [loud, silent] = await Promise.all([wire(call, 'loud', { server: hasty }), wire(call, 'silent', { server: hasty })]);
  const pings = setInterval(() => loud.send({ case: 'pingReq', value: { timestamp: BigInt(Date.now()), rtt: 0n } }), 500);
  call.cleanup(() => clearInterval(pings));
  await silent.ends({ within: 10_000 });
  assert.equal(loud.closed, undefined);
});

const BROKEN = {
  'that_is_no_protobuf': () => Buffer.from('ff'.repeat(64), 'hex'),
  'of_text_that_is_no_json': () => '{"ping":',
  'larger_than_the_limit': () => Buffer.alloc((2 << 20) + 1, 1),
};

for (const [which, make] of Object.entries(BROKEN)) {
  test(`a_frame_${which}_closes_its_own_socket_with_a_reason_and_nobody_elses`, async (call) => {
    const [ann, bob] = await Promise.all([call.join('ann', { board: 1 }), call.join('bob')]);
    await bob.sees(ann, { board: 1 });
    await bob.call('mark');
    const eve = await wire(call, 'eve');
    eve.sendRaw(make());
    const { code, reason } = await eve.ends();
    assert.ok([1002, 1003, 1007, 1008, 1009].includes(code), `code ${code}`);
    assert.notEqual(reason, '');
    await bob.until('misses eve', ({ people }) => !people.eve);
    await until('a second of undisturbed video', async () => (await bob.reading(ann)).seconds > 1);
    const reading = await bob.reading(ann);
    assert.ok(reading.longestGapMs < 1000 && reading.frames > 5, JSON.stringify(reading));
    assert.deepEqual([(await ann.snapshot()).connected, (await bob.snapshot()).connected], [true, true]);
  });
}

test('a_message_split_into_fragments_is_understood', async (call) => {
  const token = await call.server.token(call.room, 'ann');
  const { default: WebSocket } = await import('ws');
  const socket = new WebSocket(`${call.server.url}/rtc?access_token=${token}&${QUERY}`, { perMessageDeflate: false });
  call.cleanup(() => socket.terminate());
  const texts = [];
  socket.on('message', (data, binary) => binary || texts.push(data.toString()));
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  const message = new SignalRequest({ message: { case: 'pingReq', value: { timestamp: 9n } } }).toJsonString();
  socket.send(message.slice(0, 5), { fin: false });
  socket.send(message.slice(5), { fin: true });
  await until('the answer comes', () => texts.some((text) => text.includes('pong')), { seen: () => texts });
});

test('a_flood_of_messages_ends_its_sender_and_nobody_else', async (call) => {
  const ann = await call.join('ann');
  const eve = await wire(call, 'eve');
  for (let index = 0; index < 5000; index += 1) eve.send({ case: 'ping', value: BigInt(index) });
  const { code } = await eve.ends();
  assert.equal(code, 1008);
  await ann.until('misses eve', ({ people }) => !people.eve);
  assert.equal((await ann.snapshot()).connected, true);
});

test('a_reader_that_stopped_is_thrown_out', async (call) => {
  const ann = await call.join('ann');
  const eve = await wire(call, 'eve');
  await ann.until('sees eve', ({ people }) => people.eve);
  eve.stopReading();
  // Every change goes to everybody: half a megabyte each fills whatever the kernel holds for Eve.
  const change = async (index) => {
    await call.api.updateRoomMetadata(call.room, `${index}`.padEnd(400_000, 'x'));
    return !(await ann.snapshot()).people.eve;
  };
  let index = 0;
  await until('eve is gone', () => change((index += 1)), { within: 40_000, every: 20 });
  assert.equal((await ann.snapshot()).connected, true);
  await ann.until('gets the news all the while', ({ room }) => room.metadata.startsWith(`${index}`));
});

test('unknown_paths_are_not_found', async (call) => {
  const status = async (path, options) => (await fetch(call.server.http + path, options)).status;
  assert.equal(await status('/nothing'), 404);
  assert.equal(await status('/rtc/nothing'), 404);
  assert.equal(await status('/nothing/rtc/validate'), 404);
  assert.equal(await status('/meet/../../../etc/passwd'), 404);
  const token = await call.server.token(call.room, 'ann');
  assert.equal((await Wire.open(`${call.server.url}/nothing/rtc?access_token=${token}`)).status, 404);
});

test('a_plain_request_to_the_signalling_path_is_not_found', async (call) => {
  const response = await fetch(`${call.server.http}/rtc`);
  assert.deepEqual([response.status, await response.text()], [404, '']);
});

test('the_single_connection_mode_is_absent_in_a_way_that_browsers_understand', async (call) => {
  const token = await call.server.token(call.room, 'ann');
  const response = await fetch(`${call.server.http}/rtc/v1/validate?access_token=${token}`, { headers: { origin: 'http://elsewhere.test' } });
  assert.equal(response.status, 404);
  assert.doesNotMatch(await response.text(), /requested room does not exist/);
  assert.ok(['*', 'http://elsewhere.test'].includes(response.headers.get('access-control-allow-origin') ?? ''));
  assert.equal((await Wire.open(`${call.server.url}/rtc/v1?access_token=${token}&join_request=AA`)).status, 404);
});

test('health_is_answered', async (call) => {
  const root = await fetch(`${call.server.http}/`);
  assert.deepEqual([root.status, await root.text()], [200, 'OK']);
  assert.equal((await fetch(`${call.server.http}/`, { method: 'HEAD' })).status, 200);
  assert.equal((await fetch(`${call.server.http}/healthz`)).status, 200);
  assert.equal((await fetch(`${call.server.http}/readyz`)).status, 200);
});

test('every_answer_may_be_read_by_pages_of_every_origin', async (call) => {
  const headers = { origin: 'http://elsewhere.test' };
  const allows = (response) => ['*', headers.origin].includes(response.headers.get('access-control-allow-origin') ?? '');
  for (const path of ['/', '/nothing', '/rtc/validate', '/rtc/v1/validate', '/twirp/livekit.RoomService/ListRooms']) {
    const response = await fetch(call.server.http + path, { headers });
    assert.ok(allows(response), `${path} (${response.status})`);
  }
  const preflight = await fetch(`${call.server.http}/twirp/livekit.RoomService/ListRooms`, {
    method: 'OPTIONS',
    headers: { ...headers, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization,content-type' },
  });
  assert.ok(preflight.ok && allows(preflight));
  assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /authorization|\*/i);
});

test('validate_gives_the_verdict_of_the_socket', async (call) => {
  const token = (identity, more) => call.server.token(call.room, identity, more);
  const good = await token('ann');
  const cases = {
    'a good token': `access_token=${good}&${QUERY}`,
    'empty fragments': `&&access_token=${good}&&${QUERY}&`,
    'no token': QUERY,
    'no query': '',
    'garbage': `access_token=garbage&${QUERY}`,
    'a wrong signature': `access_token=${await token('ann', { secret: 'another-secret-which-is-long-enough' })}`,
    'an unknown key': `access_token=${await token('ann', { key: 'stranger' })}`,
    'an expired token': `access_token=${await token('ann', { options: { ttl: -3600 } })}`,
    'no grant to join': `access_token=${await token('ann', { grant: { roomJoin: false } })}`,
    'no room': `access_token=${await token('ann', { grant: { room: '' } })}`,
    'no identity': `access_token=${call.server.sign({ video: { roomJoin: true, room: call.room } })}`,
    'no expiry': `access_token=${call.server.sign({ sub: 'ann', exp: undefined, video: { roomJoin: true, room: call.room } })}`,
    'a start in the future': `access_token=${call.server.sign({ sub: 'ann', nbf: Date.now() / 1000 + 300, video: { roomJoin: true, room: call.room } })}`,
    'a room name that is too long': `access_token=${await token('ann', { grant: { room: 'r'.repeat(257) } })}`,
  };
  const verdicts = {};
  for (const [which, query] of Object.entries(cases)) {
    const validate = await fetch(`${call.server.http}/rtc/validate?${query}`);
    const said = await validate.text();
    const socket = await Wire.open(`${call.server.url}/rtc?${query}`);
    if (socket instanceof Wire) {
      assert.deepEqual([validate.status, said], [200, 'success'], which);
      socket.destroy();
    } else {
      assert.deepEqual([validate.status, said], [socket.status, socket.body], which);
      verdicts[which] = socket.status;
    }
  }
  assert.deepEqual(verdicts, {
    'no token': 401,
    'no query': 401,
    'garbage': 401,
    'a wrong signature': 401,
    'an unknown key': 401,
    'an expired token': 401,
    'no grant to join': 401,
    'no room': 400,
    'no identity': 400,
    'no expiry': 401,
    'a start in the future': 401,
    'a room name that is too long': 400,
  });
});

test('a_token_in_the_header_is_as_good_and_a_doubled_slash_does_not_matter', async (call) => {
  const authorization = `Bearer ${await call.server.token(call.room, 'ann')}`;
  for (const path of ['/rtc', '//rtc']) {
    const socket = await Wire.open(`${call.server.url}${path}?${QUERY}`, { authorization });
    assert.ok(socket instanceof Wire, `${path}: ${JSON.stringify(socket)}`);
    await socket.receives('join');
    socket.destroy();
  }
});

test('a_long_query_is_no_obstacle', async (call) => {
  const token = await call.server.token(call.room, 'ann', { options: { metadata: 'm'.repeat(24_000) } });
  const socket = await Wire.open(`${call.server.url}/rtc?access_token=${token}&${QUERY}`);
  assert.ok(socket instanceof Wire, JSON.stringify(socket));
  const join = await socket.receives('join');
  assert.equal(join.participant.metadata.length, 24_000);
  socket.destroy();
});

test('a_socket_lost_before_its_media_connected_leaves_nobody_behind', async (call) => {
  const ann = await call.join('ann');
  const eve = await wire(call, 'eve');
  await ann.until('sees eve', ({ people }) => people.eve);
  eve.destroy();
  await ann.until('misses eve', ({ people }) => !people.eve);
});

test('a_goodbye_is_heard_even_if_the_line_goes_dead_behind_it', async (call) => {
  const bob = await wire(call, 'bob');
  for (let round = 0; round < 10; round += 1) {
    const identity = `ann ${round}`;
    const ann = await wire(call, identity);
    ann.sayAndHangUp({ case: 'leave', value: new LeaveRequest({ reason: DisconnectReason.CLIENT_INITIATED }) });
    const gone = ({ participants }) => participants.some((one) => one.identity === identity && one.state === ParticipantInfo_State.DISCONNECTED);
    const { participants } = await bob.receives('update', gone);
    const { disconnectReason } = participants.find((one) => one.identity === identity);
    assert.equal(DisconnectReason[disconnectReason], 'CLIENT_INITIATED', `round ${round}`);
  }
});

test('of_two_sockets_of_one_person_the_first_is_told_and_closed', async (call) => {
  // Many rounds, because it matters how far the first has come when the second arrives.
  for (let round = 0; round < 20; round += 1) {
    const url = `${call.server.url}/rtc?access_token=${await call.server.token(`${call.room}-${round}`, 'ann')}&${QUERY}`;
    const sockets = await Promise.all([Wire.open(url), Wire.open(url)]);
    const [loser] = await until(`one of two is closed in round ${round}`, () => {
      const closed = sockets.filter((socket) => socket.closed);
      return closed.length > 0 && closed;
    }, { within: 2000, every: 10, seen: () => sockets.map((socket) => socket.messages.map(({ message }) => message.case)) });
    const leave = await loser.receives('leave');
    assert.deepEqual([leave.reason, leave.action], [DisconnectReason.DUPLICATE_IDENTITY, LeaveRequest_Action.DISCONNECT]);
    const winner = sockets.find((socket) => socket !== loser);
    await winner.receives('join');
    assert.equal(winner.closed, undefined);
    winner.destroy();
  }
});

test('a_resume_of_an_unknown_session_is_told_to_start_anew', async (call) => {
  const token = await call.server.token(call.room, 'ann');
  const socket = await Wire.open(`${call.server.url}/rtc?access_token=${token}&${QUERY}&reconnect=1&sid=PA_unknown`);
  assert.ok(socket instanceof Wire, JSON.stringify(socket));
  const leave = await socket.receives('leave');
  assert.deepEqual([socket.messages.length, leave.action, leave.reason], [1, LeaveRequest_Action.RECONNECT, DisconnectReason.STATE_MISMATCH]);
  await socket.ends();
});

test('the_updates_of_a_person_carry_growing_versions', async (call) => {
  const ann = await wire(call, 'ann');
  const bob = await wire(call, 'bob');
  for (let index = 0; index < 5; index += 1) bob.send({ case: 'updateMetadata', value: { name: `bob ${index}`, attributes: {} } });
  const named = (update) => update.participants.some(({ name }) => name === 'bob 4');
  await ann.receives('update', named);
  const versions = ann.messages.flatMap(({ message }) =>
    message.case === 'update' ? message.value.participants.filter(({ identity }) => identity === 'bob').map(({ version }) => version) : [],
  );
  assert.ok(versions.every((version, index) => index === 0 || version > versions[index - 1]), `${versions}`);
});

test('at_the_end_everybody_is_told_and_the_process_ends_well', async (call) => {
  const own = await Server.start();
  call.cleanup(() => own.stop());
  const people = await Promise.all(['ann', 'bob', 'cat'].map((name) => wire(call, name, { server: own })));
  own.terminate();
  for (const one of people) {
    const leave = await one.receives('leave');
    assert.equal(leave.reason, DisconnectReason.SERVER_SHUTDOWN);
    await one.ends();
  }
  const end = await Promise.race([own.exited, quiet(10_000).then(() => 'still running')]);
  assert.deepEqual(end, { code: 0, signal: null }, own.log.slice(-4000));
});

test('a_blob_is_stored_under_a_key_and_had_by_others', async (call) => {
  const [ann, bob] = [await wire(call, 'ann'), await wire(call, 'bob')];
  const key = { key: { case: 'generic', value: 'schema' } };
  const contents = new Uint8Array([1, 2, 3]);
  const refused = async (client, requestId) =>
    (await until('a refusal', () => client.messages.map((one) => one.message).find(({ case: kind, value }) => kind === 'requestResponse' && value.requestId === requestId))).value;
  ann.send({ case: 'storeDataBlobRequest', value: { requestId: 1, blob: { key, contents } } });
  assert.equal((await ann.receives('storeDataBlobResponse')).requestId, 1);
  ann.send({ case: 'storeDataBlobRequest', value: { requestId: 2, blob: { key, contents } } });
  assert.equal((await refused(ann, 2)).message, 'key is in use');
  bob.send({ case: 'getDataBlobRequest', value: { requestId: 3, participantIdentity: 'ann', key } });
  const { requestId, blob } = await bob.receives('getDataBlobResponse');
  assert.deepEqual([requestId, [...blob.contents], blob.key.key.value], [3, [1, 2, 3], 'schema']);
  bob.send({ case: 'getDataBlobRequest', value: { requestId: 4, participantIdentity: 'nobody', key } });
  assert.equal((await refused(bob, 4)).message, 'blob not found');
});
