// People in a call: they see and hear the right person, and only what that person lets out.

import assert from 'node:assert/strict';

import { TrackSource } from '@livekit/protocol';

import { quiet } from './harness/until.js';
import { stage } from './harness/stage.js';

const test = stage();

/** Ann, Bob and Cat, each with a board and a tone of their own. */
const ANN = { board: 1, tone: 440 };
const BOB = { board: 2, tone: 660 };
const CAT = { board: 3, tone: 880 };

test('three_people_see_and_hear_each_other', async (call) => {
  const people = await Promise.all([call.join('ann', ANN), call.join('bob', BOB), call.join('cat', CAT)]);
  await call.meet(...people);
  const parts = [ANN, BOB, CAT];
  for (const [viewer, one] of people.entries()) {
    for (const [seen, other] of people.entries()) {
      if (viewer === seen) continue;
      await one.sees(other, { board: parts[seen].board });
      await one.hears(other, { frequency: parts[seen].tone });
    }
  }
});

test('a_late_joiner_sees_and_hears_those_who_are_there', async (call) => {
  await call.join('ann', ANN);
  const bob = await call.join('bob');
  await bob.sees('ann', { board: ANN.board });
  await bob.hears('ann', { frequency: ANN.tone });
  const cat = await call.join('cat', { room: { adaptiveStream: false } });
  await cat.sees('ann', { board: ANN.board });
  await cat.hears('ann', { frequency: ANN.tone });
});

test('a_muted_microphone_is_silent_and_marked_until_it_is_unmuted', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', ANN), call.join('bob')]);
  await bob.hears(ann, { frequency: ANN.tone });
  await ann.call('setMuted', 'microphone', true);
  await bob.until('sees the mark', ({ people }) => people.ann.tracks.microphone.muted);
  await bob.hearsNothing(ann);
  await ann.call('setMuted', 'microphone', false);
  await bob.until('sees it gone', ({ people }) => !people.ann.tracks.microphone.muted);
  await bob.hears(ann, { frequency: ANN.tone });
  const names = (await bob.call('events', 'trackMuted', 'trackUnmuted')).map((event) => event.name);
  assert.deepEqual(names, ['trackMuted', 'trackUnmuted']);
});

test('a_microphone_that_was_muted_before_somebody_joined_is_marked_for_them', async (call) => {
  const ann = await call.join('ann', ANN);
  await ann.call('setMuted', 'microphone', true);
  const bob = await call.join('bob');
  await bob.until('sees the mark', ({ people }) => people.ann?.tracks.microphone?.muted);
  await ann.call('setMuted', 'microphone', false);
  await bob.hears(ann, { frequency: ANN.tone });
});

test('a_muted_camera_stops_and_goes_on_when_unmuted', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', ANN), call.join('bob')]);
  await bob.sees(ann, { board: ANN.board });
  await ann.call('setMuted', 'camera', true);
  await bob.until('sees the mark', ({ people }) => people.ann.tracks.camera.muted);
  await bob.call('mark');
  await quiet(1500);
  const reading = await bob.reading(ann);
  // What was on its way when the mark came may still arrive.
  assert.ok(reading.frames <= 3, `no frames while muted: ${JSON.stringify(reading)}`);
  await ann.call('setMuted', 'camera', false);
  await bob.sees(ann, { board: ANN.board });
});

test('an_unpublished_camera_disappears_and_the_next_one_is_seen', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', ANN), call.join('bob', BOB)]);
  await bob.sees(ann, { board: ANN.board });
  for (const board of [4, 5]) {
    await ann.call('unpublish', 'camera');
    await bob.until('sees no camera', ({ people }) => !people.ann.tracks.camera);
    await call.publish(ann, 'publishBoard', { person: board });
    await bob.sees(ann, { board });
  }
  await bob.hears(ann, { frequency: ANN.tone });
  await ann.sees(bob, { board: BOB.board });
});

test('a_shared_screen_is_a_second_video_and_its_sound_a_second_voice', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', ANN), call.join('bob')]);
  await bob.sees(ann, { board: ANN.board });
  await call.publish(ann, 'publishBoard', { key: 'screen', person: 7, width: 640, height: 360, publish: { source: 'screen_share' } });
  await bob.sees(ann, { board: 7, key: 'screen_share' });
  await bob.sees(ann, { board: ANN.board });
  await call.publish(ann, 'publishTone', { key: 'sound', frequency: 1200, publish: { source: 'screen_share_audio' } });
  await bob.hears(ann, { frequency: 1200, key: 'screen_share_audio' });
  await bob.hears(ann, { frequency: ANN.tone });
  for (const key of ['screen', 'sound']) await ann.call('unpublish', key);
  await bob.until('sees the camera alone', ({ people }) => Object.keys(people.ann.tracks).sort().join() === 'camera,microphone');
  await bob.sees(ann, { board: ANN.board });
});

test('an_unsubscribed_video_stops_and_returns_when_it_is_wanted_again', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', ANN), call.join('bob')]);
  await bob.sees(ann, { board: ANN.board });
  await bob.call('setSubscribed', 'ann', 'camera', false);
  await bob.until('has unsubscribed', ({ people }) => people.ann.tracks.camera && !people.ann.tracks.camera.subscribed);
  await bob.hears(ann, { frequency: ANN.tone });
  await bob.call('setSubscribed', 'ann', 'camera', true);
  await bob.sees(ann, { board: ANN.board });
});

test('without_auto_subscribe_only_what_is_asked_for_arrives', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', ANN), call.join('bob', { connect: { autoSubscribe: false } })]);
  await bob.until('knows both tracks', ({ people }) => people.ann?.tracks.camera && people.ann.tracks.microphone);
  await bob.call('setSubscribed', 'ann', 'microphone', true);
  await bob.hears(ann, { frequency: ANN.tone });
  const { people } = await bob.snapshot();
  assert.equal(people.ann.tracks.camera.subscribed, false);
});

test('whoever_leaves_is_gone_for_the_others_at_once', async (call) => {
  const [ann, bob, cat] = await Promise.all([call.join('ann', ANN), call.join('bob'), call.join('cat')]);
  await call.meet(ann, bob, cat);
  await ann.call('leave');
  for (const one of [bob, cat]) await one.until('misses ann', ({ people }) => !people.ann, { within: 2000 });
  await call.meet(bob, cat);
});

test('rooms_do_not_hear_each_other', async (call) => {
  const ann = await call.join('ann', ANN);
  const token = await call.server.token(`${call.room}-next-door`, 'bob');
  const bob = await call.join('bob', { token });
  await ann.call('sendData', { text: 'secret' });
  await quiet(1000);
  const { people } = await bob.snapshot();
  assert.deepEqual([people, await bob.call('received')], [{}, []]);
});

test('who_may_not_publish_is_refused_and_still_sees_the_others', async (call) => {
  const ann = await call.join('ann', ANN);
  const bob = await call.join('bob', { grant: { canPublish: false } });
  await bob.sees(ann, { board: ANN.board });
  const { error } = await bob.call('publishBoard', { person: 2 });
  assert.match(error?.message ?? 'published', /permission|allowed/i);
});

test('only_the_sources_a_token_names_may_be_published', async (call) => {
  const bob = await call.join('bob');
  const ann = await call.join('ann', { grant: { canPublishSources: [TrackSource.MICROPHONE] } });
  await call.publish(ann, 'publishTone', { frequency: ANN.tone });
  const { error } = await ann.call('publishBoard', { person: 1 });
  assert.ok(error, 'the camera is refused');
  await bob.hears(ann, { frequency: ANN.tone });
});

test('who_may_not_subscribe_is_seen_and_sees_nothing', async (call) => {
  const ann = await call.join('ann', ANN);
  const bob = await call.join('bob', { ...BOB, grant: { canSubscribe: false } });
  await ann.sees(bob, { board: BOB.board });
  const { people } = await bob.snapshot();
  assert.ok(Object.values(people.ann?.tracks ?? {}).every((track) => !track.subscribed));
});

test('a_publisher_chooses_who_may_watch', async (call) => {
  const [ann, bob, cat] = await Promise.all([call.join('ann', ANN), call.join('bob'), call.join('cat')]);
  await Promise.all([bob.sees(ann, { board: ANN.board }), cat.sees(ann, { board: ANN.board })]);
  await ann.call('allowSubscribers', false, [{ participantIdentity: 'bob', allowAll: true }]);
  await cat.until('is excluded', ({ people }) => people.ann.tracks.camera.permission === 'not_allowed' && !people.ann.tracks.camera.subscribed);
  await bob.sees(ann, { board: ANN.board });
  await ann.call('allowSubscribers', true, []);
  await cat.sees(ann, { board: ANN.board });
});

test('a_hidden_person_sees_without_being_seen', async (call) => {
  const ann = await call.join('ann', ANN);
  const bob = await call.join('bob', { grant: { hidden: true, canPublish: false } });
  await bob.sees(ann, { board: ANN.board });
  const { people } = await ann.snapshot();
  assert.deepEqual(people, {});
});
