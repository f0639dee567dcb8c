// What a host application does with the room API, and what the people in the room notice of it.

import assert from 'node:assert/strict';

import { DataPacket_Kind } from '@livekit/protocol';
import { AccessToken, RoomServiceClient } from 'livekit-server-sdk';

import { KEY, SECRET } from './harness/server.js';
import { stage } from './harness/stage.js';
import { quiet, until } from './harness/until.js';

const test = stage();

function refuses(promise, code, message = /./) {
  return assert.rejects(promise, (error) => {
    assert.deepEqual([error.code, message.test(error.message)], [code, true], `${error.code}: ${error.message}`);
    return true;
  });
}

test('a_created_room_is_listed_with_its_settings', async (call) => {
  const made = await call.api.createRoom({ name: call.room, emptyTimeout: 60, departureTimeout: 30, maxParticipants: 7, metadata: 'm' });
  const [listed, ...others] = await call.api.listRooms([call.room]);
  assert.equal(others.length, 0);
  assert.deepEqual([listed.name, listed.emptyTimeout, listed.departureTimeout, listed.maxParticipants, listed.metadata], [call.room, 60, 30, 7, 'm']);
  assert.match(made.sid, /^RM_/);
  assert.equal(listed.sid, made.sid);
  assert.ok(Math.abs(Number(listed.creationTime) - Date.now() / 1000) < 10);
  const again = await call.api.createRoom({ name: call.room, metadata: 'n' });
  assert.deepEqual([again.sid, again.metadata], [made.sid, 'n'], 'creating twice changes, and makes no second room');
  assert.ok((await call.api.listRooms()).some(({ name }) => name === call.room));
});

test('people_and_their_tracks_are_listed', async (call) => {
  const ann = await call.join('ann', { board: 1, tone: 440, claims: { name: 'Ann', metadata: 'm', attributes: { a: '1' } } });
  await call.join('bob');
  const listed = await call.untilApi('both', async (api, room) => {
    const people = await api.listParticipants(room);
    return people.length === 2 && people.find(({ identity }) => identity === 'ann')?.tracks.length === 2 && people;
  });
  const { sid, name, metadata, attributes, state, isPublisher } = listed.find(({ identity }) => identity === 'ann');
  const me = (await ann.snapshot()).me;
  assert.deepEqual([sid, name, metadata, attributes, isPublisher], [me.sid, 'Ann', 'm', { a: '1' }, true]);
  assert.equal(state, 2, 'active');
  const single = await call.api.getParticipant(call.room, 'ann');
  assert.equal(single.sid, sid);
  const counted = async (api, room) => (await api.listRooms([room]))[0]?.numParticipants === 2;
  await call.untilApi('counts two', counted);
});

test('a_removed_person_is_told_and_does_not_come_back_alone', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann'), call.join('bob')]);
  await call.meet(ann, bob);
  await call.api.removeParticipant(call.room, 'ann');
  assert.equal((await ann.event('disconnected')).reason, 'PARTICIPANT_REMOVED');
  await bob.until('misses ann', ({ people }) => !people.ann);
  await quiet(1000);
  assert.equal((await ann.snapshot()).state, 'disconnected');
  const again = await call.join('ann');
  await call.meet(again, bob);
});

test('a_deleted_room_sends_everybody_away', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann'), call.join('bob')]);
  await call.meet(ann, bob);
  await call.api.deleteRoom(call.room);
  for (const one of [ann, bob]) assert.equal((await one.event('disconnected')).reason, 'ROOM_DELETED');
  await call.untilApi('is gone', async (api, room) => (await api.listRooms([room])).length === 0);
  await quiet(1000);
  assert.deepEqual([(await ann.snapshot()).state, (await bob.snapshot()).state], ['disconnected', 'disconnected']);
});

test('a_track_muted_by_the_host_is_silent_and_its_owner_knows', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { tone: 440 }), call.join('bob')]);
  await bob.hears(ann, { frequency: 440 });
  const { sid } = (await ann.snapshot()).me.tracks.microphone;
  const track = await call.api.mutePublishedTrack(call.room, 'ann', sid, true);
  assert.deepEqual([track.sid, track.muted], [sid, true]);
  await ann.until('is muted', ({ me }) => me.tracks.microphone.muted);
  await bob.until('sees the mark', ({ people }) => people.ann.tracks.microphone.muted);
  await bob.hearsNothing(ann);
  await refuses(call.api.mutePublishedTrack(call.room, 'ann', sid, false), 'failed_precondition', /remote unmute not enabled/);
  await ann.call('setMuted', 'microphone', false);
  await bob.hears(ann, { frequency: 440 });
});

test('a_revoked_permission_takes_the_tracks_away_and_giving_it_back_allows_new_ones', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { board: 1 }), call.join('bob')]);
  await bob.sees(ann, { board: 1 });
  await call.api.updateParticipant(call.room, 'ann', { permission: { canSubscribe: true, canPublish: false, canPublishData: true } });
  await ann.until('knows', ({ me }) => me.permissions.canPublish === false || me.permissions.canPublish === undefined);
  await bob.until('sees no track', ({ people }) => Object.keys(people.ann.tracks).length === 0);
  assert.ok((await ann.call('publishBoard', { person: 4 })).error, 'publishing is refused');
  await call.api.updateParticipant(call.room, 'ann', { permission: { canSubscribe: true, canPublish: true, canPublishData: true } });
  await ann.until('knows', ({ me }) => me.permissions.canPublish);
  await call.publish(ann, 'publishBoard', { person: 5 });
  await bob.sees(ann, { board: 5 });
});

test('name_metadata_and_attributes_set_by_the_host_reach_everybody', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { claims: { attributes: { old: '1', kept: '2' } } }), call.join('bob')]);
  await call.meet(ann, bob);
  const info = await call.api.updateParticipant(call.room, 'ann', { name: 'Anna', metadata: 'host', attributes: { new: '3', old: '' } });
  assert.deepEqual([info.name, info.metadata, info.attributes], ['Anna', 'host', { kept: '2', new: '3' }]);
  const changed = (one) => one?.name === 'Anna' && one.metadata === 'host' && one.attributes.new === '3' && one.attributes.kept === '2' && !one.attributes.old;
  await bob.until('sees it', ({ people }) => changed(people.ann));
  await ann.until('knows', ({ me }) => changed(me));
});

test('name_metadata_and_attributes_set_by_oneself_reach_everybody', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann'), call.join('bob')]);
  await call.meet(ann, bob);
  assert.deepEqual(await ann.call('rename', { name: 'Anna', metadata: 'own', attributes: { hand: 'up' } }), { changed: true });
  await bob.until('sees it', ({ people: { ann: seen } }) => seen.name === 'Anna' && seen.metadata === 'own' && seen.attributes.hand === 'up');
  assert.deepEqual(await ann.call('rename', { attributes: { hand: '' } }), { changed: true });
  await bob.until('sees it gone', ({ people: { ann: seen } }) => !seen.attributes.hand && seen.name === 'Anna');
  const listed = await call.api.getParticipant(call.room, 'ann');
  assert.deepEqual([listed.name, listed.metadata], ['Anna', 'own']);
});

test('without_the_grant_nobody_changes_their_own_name', async (call) => {
  const ann = await call.join('ann', { grant: { canUpdateOwnMetadata: false } });
  const outcome = await ann.call('rename', { name: 'Anna' });
  assert.deepEqual([outcome.changed, outcome.name], [false, 'SignalRequestError']);
});

test('room_metadata_reaches_everybody', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann'), call.join('bob')]);
  const room = await call.api.updateRoomMetadata(call.room, 'agenda');
  assert.equal(room.metadata, 'agenda');
  for (const one of [ann, bob]) await one.until('knows', (snapshot) => snapshot.room.metadata === 'agenda');
  const cat = await call.join('cat');
  await cat.until('knows from the start', (snapshot) => snapshot.room.metadata === 'agenda', { within: 2000 });
});

test('the_host_chooses_what_somebody_subscribes_to', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { board: 1 }), call.join('bob')]);
  await bob.sees(ann, { board: 1 });
  const { sid } = (await ann.snapshot()).me.tracks.camera;
  await call.api.updateSubscriptions(call.room, 'bob', [sid], false);
  await bob.event('trackUnsubscribed');
  await call.api.updateSubscriptions(call.room, 'bob', [sid], true);
  await bob.sees(ann, { board: 1 });
});

test('data_of_the_host_reaches_those_it_is_for', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann'), call.join('bob')]);
  await call.meet(ann, bob);
  const send = (text, options) => call.api.sendData(call.room, new TextEncoder().encode(text), DataPacket_Kind.RELIABLE, options);
  await send('for bob', { destinationIdentities: ['bob'], topic: 'host' });
  await send('for all', { topic: 'host' });
  const packet = await bob.receives('his own', ({ text }) => text === 'for bob');
  assert.deepEqual([packet.topic, packet.from], ['host', undefined], 'it has no sender');
  for (const one of [ann, bob]) await one.receives('the other', ({ text }) => text === 'for all');
  assert.deepEqual((await ann.call('received')).map(({ text }) => text), ['for all']);
});

test('what_does_not_exist_is_not_found', async (call) => {
  await refuses(call.api.deleteRoom(call.room), 'not_found', /requested room does not exist/);
  await refuses(call.api.listParticipants(call.room), 'not_found');
  await call.join('ann');
  await refuses(call.api.getParticipant(call.room, 'nobody'), 'not_found', /participant does not exist/);
  await refuses(call.api.removeParticipant(call.room, 'nobody'), 'not_found');
  await refuses(call.api.mutePublishedTrack(call.room, 'ann', 'TR_nothing', true), 'not_found');
  await refuses(call.api.updateRoomMetadata(`${call.room}-other`, 'x'), 'not_found');
});

test('the_api_asks_for_the_right_grant', async (call) => {
  await call.join('ann');
  const stranger = new RoomServiceClient(call.server.http, KEY, 'another-secret-which-is-long-enough');
  await refuses(stranger.listRooms(), 'unauthenticated');
  const bare = async (method, body, grant) => {
    const token = new AccessToken(KEY, SECRET, { ttl: '1m', identity: 'host' });
    if (grant) token.addGrant(grant);
    const headers = { 'content-type': 'application/json', ...(grant && { authorization: `Bearer ${await token.toJwt()}` }) };
    const response = await fetch(`${call.server.http}/twirp/livekit.RoomService/${method}`, { method: 'POST', headers, body: JSON.stringify(body) });
    return { status: response.status, body: await response.json() };
  };
  const denied = async (...request) => {
    const { status, body } = await bare(...request);
    assert.ok(status === 401 || status === 403, `${request[0]}: ${status}`);
    assert.ok(['unauthenticated', 'permission_denied'].includes(body.code), body.code);
  };
  await denied('ListRooms', {}, undefined);
  await denied('ListRooms', {}, { roomJoin: true, room: call.room });
  await denied('CreateRoom', { name: 'x' }, { roomList: true });
  await denied('DeleteRoom', { room: call.room }, { roomAdmin: true, room: call.room });
  await denied('ListParticipants', { room: call.room }, { roomAdmin: true, room: 'another' });
  const { status, body } = await bare('ListParticipants', { room: call.room }, { roomAdmin: true, room: call.room });
  assert.deepEqual([status, body.participants.map(({ identity }) => identity)], [200, ['ann']]);
});

test('unknown_methods_and_unreadable_requests_are_errors_of_the_protocol', async (call) => {
  const token = new AccessToken(KEY, SECRET, { ttl: '1m' });
  token.addGrant({ roomList: true, roomCreate: true });
  const authorization = `Bearer ${await token.toJwt()}`;
  const ask = async (path, body, type = 'application/json', method = 'POST') => {
    const response = await fetch(`${call.server.http}/twirp/${path}`, { method, headers: { authorization, 'content-type': type }, body });
    return [response.status, (await response.json()).code];
  };
  assert.deepEqual(await ask('livekit.RoomService/Nothing', '{}'), [404, 'bad_route']);
  assert.deepEqual(await ask('livekit.RoomService/ListRooms', '{'), [400, 'malformed']);
  assert.deepEqual(await ask('livekit.RoomService/ListRooms', undefined, 'application/json', 'GET'), [404, 'bad_route']);
  assert.deepEqual(await ask('livekit.RoomService/ListRooms', '\xff', 'application/protobuf'), [400, 'malformed']);
});

test('an_empty_room_ends_after_its_time', async (call) => {
  await call.api.createRoom({ name: call.room, emptyTimeout: 1, departureTimeout: 1 });
  const gone = async (api, room) => (await api.listRooms([room])).length === 0;
  await call.untilApi('ends unused', gone);
  await call.api.createRoom({ name: call.room, emptyTimeout: 60, departureTimeout: 1 });
  const ann = await call.join('ann');
  await quiet(2000);
  assert.equal((await call.api.listRooms([call.room])).length, 1, 'it stays while somebody is there');
  await ann.call('leave');
  await call.untilApi('ends after the last person', gone);
});

test('a_token_is_refreshed_so_that_long_calls_can_reconnect', async (call) => {
  const ann = await call.join('ann');
  const token = await until('a fresh token comes', () => ann.call('freshToken'));
  const claims = JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString());
  assert.deepEqual([claims.sub, claims.video.room, claims.video.roomJoin], ['ann', call.room, true]);
  assert.ok(claims.exp - Date.now() / 1000 > 9 * 60, 'it lives ten minutes');
});
