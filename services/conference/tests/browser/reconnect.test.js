// Losing and finding the way back: cut sockets, misbehaving servers, reloaded tabs.

import assert from 'node:assert/strict';

import { FPS } from './harness/person.js';
import { Relay } from './harness/relay.js';
import { Server } from './harness/server.js';
import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const test = stage();

const ANN = { board: 1, tone: 440 };
const BOB = { board: 2, tone: 660 };
/** What a person may notice as a stutter, but no gap of a lost connection is as short. */
const UNINTERRUPTED_MS = 1000;
/** From the loss until everything is back. */
const BACK_MS = 10_000;

/** Ann behind a relay that a test can cut, and Bob, who see and hear each other. */
async function pair(call) {
  const relay = await Relay.to(call.server.port);
  call.cleanup(() => relay.close());
  const [ann, bob] = await Promise.all([call.join('ann', { ...ANN, url: relay.url }), call.join('bob', BOB)]);
  await see(ann, bob);
  return { relay, ann, bob, before: await ann.snapshot() };
}

async function see(ann, bob) {
  await Promise.all([bob.sees(ann, { board: ANN.board }), ann.sees(bob, { board: BOB.board })]);
  await Promise.all([bob.hears(ann, { frequency: ANN.tone }), ann.hears(bob, { frequency: BOB.tone })]);
}

/** Waits until Ann is back, `count` reconnections in all. */
async function back(ann, count = 1, within = BACK_MS) {
  await ann.event('reconnected', () => true, { within });
  const done = async () => (await ann.call('events', 'reconnected')).length >= count && (await ann.snapshot()).connected;
  await until('ann is back', done, { within, seen: () => ann.call('events') });
}

/** Bob sees Ann again after she came with a new session, at most `BACK_MS` after she was lost. */
async function renewed(ann, bob, before) {
  const fresh = ({ people }) => people.ann && people.ann.sid !== before.me.sid && people.ann.tracks.camera?.reading;
  await bob.until('sees the new session', fresh, { within: BACK_MS });
  const after = await ann.until('is connected', ({ connected, people }) => connected && people.bob, { within: BACK_MS });
  assert.notEqual(after.me.sid, before.me.sid);
  await see(ann, bob);
}

test('a_cut_socket_resumes_and_media_never_stops', async (call) => {
  const { relay, ann, bob, before } = await pair(call);
  await Promise.all([ann.call('mark'), bob.call('mark')]);
  relay.cut();
  await back(ann);
  const after = await ann.snapshot();
  assert.equal(after.me.sid, before.me.sid, 'the session is the same');
  assert.equal(after.me.tracks.camera.sid, before.me.tracks.camera.sid, 'so are its tracks');
  await until('two more seconds', async () => (await bob.reading(ann)).seconds > 3);
  for (const [viewer, seen] of [[bob, ann], [ann, bob]]) {
    const reading = await viewer.reading(seen);
    assert.ok(reading.longestGapMs < UNINTERRUPTED_MS, `${viewer.identity}: ${JSON.stringify(reading)}`);
    assert.ok(reading.advancedPerSecond > 0.8 * FPS, `${viewer.identity}: ${JSON.stringify(reading)}`);
  }
  const lost = await bob.call('events', 'participantDisconnected', 'trackUnsubscribed', 'trackUnpublished');
  assert.deepEqual(lost, [], 'bob noticed nothing');
  await see(ann, bob);
});

test('after_a_resume_publishing_and_subscribing_still_work', async (call) => {
  const { relay, ann, bob } = await pair(call);
  relay.cut();
  await back(ann);
  await call.publish(ann, 'publishBoard', { key: 'screen', person: 7, publish: { source: 'screen_share' } });
  await bob.sees(ann, { board: 7, key: 'screen_share' });
  await call.publish(bob, 'publishBoard', { key: 'screen', person: 8, publish: { source: 'screen_share' } });
  await ann.sees(bob, { board: 8, key: 'screen_share' });
  await ann.call('sendData', { text: 'still here' });
  await bob.receives('data', ({ text }) => text === 'still here');
});

test('five_cuts_in_a_row_are_survived', async (call) => {
  const { relay, ann, bob, before } = await pair(call);
  for (let cut = 1; cut <= 5; cut += 1) {
    relay.cut();
    await back(ann, cut);
  }
  assert.equal((await ann.snapshot()).me.sid, before.me.sid);
  await see(ann, bob);
});

test('a_socket_closed_by_the_browser_resumes', async (call) => {
  const { ann, bob, before } = await pair(call);
  await ann.call('cutSignal');
  await back(ann);
  assert.equal((await ann.snapshot()).me.sid, before.me.sid);
  await see(ann, bob);
});

test('what_happened_during_an_outage_is_caught_up_with', async (call) => {
  const { relay, ann, bob } = await pair(call);
  const cat = await call.join('cat', { board: 3 });
  await ann.sees(cat, { board: 3 });
  relay.refuse();
  await ann.until('notices', ({ connected }) => !connected, { within: 20_000 });
  await cat.call('leave');
  await bob.call('setMuted', 'microphone', true);
  await bob.call('rename', { name: 'Robert', metadata: 'away' });
  await call.join('dan', { board: 4 });
  await bob.until('sees the change', ({ people }) => people.dan?.tracks.camera && !people.cat);
  relay.accept();
  await ann.until('catches up', ({ connected, people }) => {
    const { bob: seen, cat: left, dan } = people;
    return connected && !left && dan && seen?.name === 'Robert' && seen.metadata === 'away' && seen.tracks.microphone?.muted;
  }, { within: 20_000 });
  await ann.sees('dan', { board: 4 });
  await bob.sees(ann, { board: ANN.board });
});

test('a_mute_during_an_outage_reaches_the_others', async (call) => {
  const { relay, ann, bob } = await pair(call);
  relay.refuse();
  await ann.until('notices', ({ connected }) => !connected, { within: 20_000 });
  await ann.page.evaluate(() => void window.person.setMuted('microphone', true));
  relay.accept();
  await back(ann, 1, 20_000);
  await bob.until('sees the mark', ({ people }) => people.ann?.tracks.microphone?.muted);
});

test('reliable_data_crosses_an_outage_of_the_socket', async (call) => {
  const { relay, ann, bob } = await pair(call);
  relay.cut();
  for (let index = 0; index < 20; index += 1) {
    await bob.call('sendData', { text: `to ann ${index}` });
    await ann.call('sendData', { text: `to bob ${index}` });
  }
  await back(ann);
  await ann.receives('the last', ({ text }) => text === 'to ann 19');
  await bob.receives('the last', ({ text }) => text === 'to bob 19');
  const texts = async (one) => (await one.call('received')).map(({ text }) => text);
  const expected = (name) => Array.from({ length: 20 }, (_, index) => `to ${name} ${index}`);
  assert.deepEqual([await texts(ann), await texts(bob)], [expected('ann'), expected('bob')]);
});

for (const scenario of ['signal-reconnect', 'resume-reconnect', 'disconnect-signal-on-resume', 'disconnect-signal-on-resume-no-messages']) {
  test(`scenario_${scenario}_ends_with_everything_back`, async (call) => {
    const { ann, bob } = await pair(call);
    await ann.call('simulate', scenario);
    await back(ann, 1, 20_000);
    await see(ann, bob);
  });
}

for (const scenario of ['full-reconnect', 'node-failure', 'migration', 'leave-full-reconnect']) {
  test(`scenario_${scenario}_is_back_with_a_new_session`, async (call) => {
    const { ann, bob, before } = await pair(call);
    await ann.call('simulate', scenario);
    await renewed(ann, bob, before);
  });
}

test('scenario_server-leave_ends_the_session', async (call) => {
  const { ann, bob } = await pair(call);
  await ann.call('simulate', 'server-leave');
  const { reason } = await ann.event('disconnected');
  assert.equal(reason, 'SERVER_SHUTDOWN');
  await bob.until('misses ann', ({ people }) => !people.ann);
});

test('a_reloaded_tab_comes_back_as_the_same_person', async (call) => {
  const { ann, bob, before } = await pair(call);
  await call.open(ann);
  assert.equal((await call.enter(ann)).joined, true);
  await call.publish(ann, 'publishBoard', { person: 5 });
  await bob.sees(ann, { board: 5 });
  const { people } = await bob.snapshot();
  assert.deepEqual([Object.keys(people), people.ann.sid === before.me.sid], [['ann'], false]);
  await ann.sees(bob, { board: BOB.board });
});

test('a_second_login_ends_the_first', async (call) => {
  const { ann, bob } = await pair(call);
  const other = await call.join('ann', { board: 5 });
  const { reason } = await ann.event('disconnected');
  assert.equal(reason, 'DUPLICATE_IDENTITY');
  await bob.sees(other, { board: 5 });
  await other.sees(bob, { board: BOB.board });
  assert.deepEqual(Object.keys((await bob.snapshot()).people), ['ann']);
  assert.equal((await ann.snapshot()).state, 'disconnected', 'it does not fight back');
});

test('a_crashed_tab_is_forgotten', async (call) => {
  const { ann, bob } = await pair(call);
  ann.page.goto('chrome://crash').catch(() => {});
  await bob.until('misses ann', ({ people }) => !people.ann, { within: 30_000 });
});

test('after_a_crash_of_the_server_everybody_finds_each_other_again', async (call) => {
  const first = await Server.start();
  call.cleanup(() => first.stop());
  const token = (identity) => first.token(call.room, identity);
  const join = async (identity, options) => call.join(identity, { ...options, url: first.url, token: await token(identity) });
  const [ann, bob] = await Promise.all([join('ann', ANN), join('bob', BOB)]);
  await see(ann, bob);
  process.kill(/** @type {number} */ (first.pid), 'SIGKILL');
  await first.exited;
  const second = await Server.start({}, first.port);
  call.cleanup(() => second.stop());
  await Promise.all([ann, bob].map((one) => one.until('is back', ({ connected, people }) => connected && Object.keys(people).length === 1, { within: 30_000 })));
  await see(ann, bob);
}, { timeout: 90_000 });
