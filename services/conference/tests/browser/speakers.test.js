// Who speaks, and how good everybody's connection is.

import assert from 'node:assert/strict';

import { stage } from './harness/stage.js';

const test = stage();

test('whoever_makes_a_sound_is_marked_as_speaking_until_it_ends', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { tone: 440 }), call.join('bob')]);
  await call.publish(bob, 'publishTone', { frequency: 660, gain: 0.0001 });
  await bob.until('ann is marked', ({ speakers, people }) => speakers.join() === 'ann' && people.ann.speaking);
  await ann.until('so she is for herself', ({ speakers, me }) => speakers.join() === 'ann' && me.speaking);
  await ann.call('setMuted', 'microphone', true);
  await bob.until('nobody is', ({ speakers, people }) => speakers.length === 0 && !people.ann.speaking);
  await ann.call('setMuted', 'microphone', false);
  await bob.until('ann is marked again', ({ speakers }) => speakers.join() === 'ann');
});

test('the_loudest_speaker_comes_first', async (call) => {
  const [ann, bob, cat] = await Promise.all([call.join('ann'), call.join('bob'), call.join('cat')]);
  await call.publish(ann, 'publishTone', { frequency: 440, gain: 0.06 });
  await call.publish(bob, 'publishTone', { frequency: 660, gain: 0.6 });
  await cat.until('bob before ann', ({ speakers }) => speakers.join() === 'bob,ann');
});

test('who_joins_while_somebody_speaks_sees_it_at_once', async (call) => {
  const ann = await call.join('ann', { tone: 440 });
  await ann.until('she is marked', ({ speakers }) => speakers.join() === 'ann');
  const bob = await call.join('bob');
  await bob.until('ann is marked', ({ speakers }) => speakers.join() === 'ann', { within: 5000 });
});

test('a_simulated_speaker_is_marked_without_a_sound', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann'), call.join('bob')]);
  await call.publish(ann, 'publishTone', { frequency: 440, gain: 0 });
  await bob.until('knows the track', ({ people }) => people.ann?.tracks.microphone?.subscribed);
  await ann.call('simulate', 'speaker');
  await bob.until('ann is marked', ({ speakers }) => speakers.join() === 'ann');
  await bob.until('and no longer', ({ speakers }) => speakers.length === 0);
});

test('everybody_learns_the_quality_of_every_connection', async (call) => {
  const [ann, bob] = await Promise.all([call.join('ann', { board: 1 }), call.join('bob', { board: 2 })]);
  const good = ({ me, people }, other) => [me.quality, people[other]?.quality].every((quality) => ['excellent', 'good'].includes(quality));
  await ann.until('both are good', (snapshot) => good(snapshot, 'bob'), { within: 20_000 });
  await bob.until('both are good', (snapshot) => good(snapshot, 'ann'), { within: 20_000 });
  const lost = (await ann.call('events', 'connectionQualityChanged')).filter(({ detail }) => detail[0] === 'lost');
  assert.deepEqual(lost, []);
});
