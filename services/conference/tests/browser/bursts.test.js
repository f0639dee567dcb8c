// Haste: many things at once, and things taken back before they were done.

import assert from 'node:assert/strict';

import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const test = stage();

test('publishing_and_unpublishing_in_haste_ends_with_what_was_meant', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { tone: 440 }), call.join('bob')]);
  await bob.hears(ann, { frequency: 440 });
  await ann.page.evaluate(async () => {
    for (let round = 0; round < 8; round += 1) {
      await window.person.publishBoard({ person: 3, fps: 5 });
      await window.person.unpublish('camera');
    }
  });
  await call.publish(ann, 'publishBoard', { person: 4 });
  await bob.sees(ann, { board: 4 });
  const { people } = await bob.snapshot();
  assert.deepEqual(Object.keys(people.ann.tracks).sort(), ['camera', 'microphone']);
  await bob.hears(ann, { frequency: 440 });
}, { timeout: 90_000 });

test('twenty_tracks_published_at_once_all_arrive', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann'), call.join('bob')]);
  const outcomes = await ann.page.evaluate(() => {
    const video = (index) => window.person.publishBoard({ key: `video ${index}`, person: index + 1, width: 160, height: 96, fps: 5, publish: { name: `video ${index}`, source: 'unknown' } });
    const audio = (index) => window.person.publishTone({ key: `audio ${index}`, frequency: 400 + 100 * index, publish: { name: `audio ${index}`, source: 'unknown' } });
    return Promise.all(Array.from({ length: 10 }, (_, index) => [video(index), audio(index)]).flat());
  });
  assert.deepEqual(outcomes.filter(({ error }) => error), []);
  const arrived = ({ people }) => {
    const tracks = people.ann?.tracks ?? {};
    return Array.from({ length: 10 }, (_, index) => index).every((index) => {
      const [video, audio] = [tracks[`video ${index}`]?.reading, tracks[`audio ${index}`]?.reading];
      return video?.person === index + 1 && video.frames > 3 && Math.abs(audio?.frequency - (400 + 100 * index)) < 8;
    });
  };
  await bob.until('sees and hears all twenty', arrived, { within: 40_000 });
}, { timeout: 90_000 });

test('six_people_who_join_in_the_same_moment_all_meet', async (call) => {
  const names = ['ann', 'bob', 'cat', 'dan', 'eve', 'fay'];
  const people = await Promise.all(names.map((name) => call.arrive(name)));
  const tokens = await Promise.all(names.map((name) => call.server.token(call.room, name)));
  const outcomes = await Promise.all(people.map((one, index) => call.enter(one, { token: tokens[index] })));
  assert.ok(outcomes.every(({ joined }) => joined), JSON.stringify(outcomes));
  await call.meet(...people);
  await people[0].call('sendData', { text: 'all here' });
  await Promise.all(people.slice(1).map((one) => one.receives('data', ({ text }) => text === 'all here')));
});

test('of_two_logins_in_the_same_moment_exactly_one_stays', async (call) => {
  const [one, two, bob] = await Promise.all([call.arrive('ann'), call.arrive('ann'), call.join('bob')]);
  await Promise.all([call.enter(one), call.enter(two)]);
  const states = async () => (await Promise.all([one.snapshot(), two.snapshot()])).map(({ state }) => state).sort();
  await until('one is connected', async () => (await states()).join() === 'connected,disconnected', { seen: states });
  await bob.until('sees one', ({ people }) => Object.keys(people).join() === 'ann');
  const winner = (await one.snapshot()).connected ? one : two;
  await call.publish(winner, 'publishBoard', { person: 6 });
  await bob.sees('ann', { board: 6 });
});

test('joining_and_leaving_in_haste_leaves_nobody_behind', async (call) => {
  const bob = await call.join('bob');
  const ann = await call.arrive('ann');
  const token = await call.server.token(call.room, 'ann');
  await ann.page.evaluate(async ([url, token]) => {
    for (let round = 0; round < 8; round += 1) {
      const joining = window.person.join({ url, token });
      if (round % 2 === 0) await joining;
      await window.person.leave();
      await joining;
    }
  }, [call.server.url, token]);
  await bob.until('is alone', ({ people }) => Object.keys(people).length === 0);
  await call.untilApi('is alone', async (api, room) => (await api.listParticipants(room)).length === 1);
});

test('muting_in_haste_ends_with_the_last_state', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { tone: 440 }), call.join('bob')]);
  await bob.hears(ann, { frequency: 440 });
  for (const last of [true, false]) {
    await ann.page.evaluate(async (last) => {
      for (let round = 0; round < 10; round += 1) await window.person.setMuted('microphone', round % 2 === 0);
      await window.person.setMuted('microphone', last);
    }, last);
    await bob.until(`muted is ${last}`, ({ people }) => people.ann.tracks.microphone.muted === last);
  }
  await bob.hears(ann, { frequency: 440 });
});
