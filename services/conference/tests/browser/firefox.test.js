// The call in Firefox, beside Chromium: each sees and hears the other, and comes back when its way is cut.
//
// Firefox has no use for loopback addresses, so this file plays in a network namespace of its own that has another one.

import assert from 'node:assert/strict';
import { after, before } from 'node:test';

import { FIREFOX_TONE_HZ, launchFirefox } from './harness/browser.js';
import { ADDRESS, inNamespace } from './harness/namespace.js';
import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const test = inNamespace(import.meta.filename, () => stage({ server: { PLENARY__MEDIA__BIND: ADDRESS } }));

const FPS = 12;
const CAMERA = { person: 5, width: 640, height: 360, fps: FPS, publish: { simulcast: true } };

/** @type {import('playwright-core').Browser} */
let firefox;
before(async () => {
  if (test.isInside) firefox = await launchFirefox();
});
after(() => firefox?.close());

/** Fox in Firefox and cleo in Chromium, who both publish. */
async function company(call) {
  const [fox, cleo] = await Promise.all([call.join('fox', { browser: firefox }), call.join('cleo')]);
  await call.publish(fox, 'publishBoard', CAMERA);
  await call.publish(fox, 'publishMicrophone');
  await call.publish(cleo, 'publishBoard', { ...CAMERA, person: 9 });
  await call.publish(cleo, 'publishTone', { frequency: 880 });
  return [fox, cleo];
}

async function together(fox, cleo) {
  await cleo.sees(fox, { board: 5, fps: FPS, within: 30_000 });
  await fox.sees(cleo, { board: 9, fps: FPS, within: 30_000 });
  await cleo.hears(fox, { frequency: FIREFOX_TONE_HZ });
  const energy = async () => (await fox.call('receiverStats', 'cleo', 'microphone')).totalAudioEnergy;
  const before = await energy();
  await until('sound comes out at fox', async () => (await energy()) > before + AUDIBLE, { seen: energy });
}

/** A fortieth of full scale for a second. */
const AUDIBLE = 1 / 1600;

test('firefox_and_chromium_see_and_hear_each_other', async (call) => {
  const [fox, cleo] = await company(call);
  await together(fox, cleo);
  await fox.call('sendData', { text: 'hello', topic: 'greeting' });
  await cleo.receives('the packet', ({ text, from }) => text === 'hello' && from === 'fox');
  await cleo.call('sendData', { text: 'hello yourself' });
  await fox.receives('the packet', ({ text }) => text === 'hello yourself');
}, { timeout: 120_000 });

test('firefox_is_muted_and_heard_again', async (call) => {
  const [fox, cleo] = await company(call);
  await together(fox, cleo);
  await fox.call('setMuted', 'microphone', true);
  await cleo.hearsNothing(fox);
  await fox.call('setMuted', 'microphone', false);
  await cleo.hears(fox, { frequency: FIREFOX_TONE_HZ });
}, { timeout: 120_000 });

test('firefox_gets_the_layer_it_asks_for', async (call) => {
  const [fox, cleo] = await company(call);
  await together(fox, cleo);
  for (const [quality, size] of [['LOW', '320x180'], ['HIGH', '640x360']]) {
    await fox.call('setQuality', 'cleo', 'camera', quality);
    const seen = async () => (await fox.reading(cleo))?.size === size;
    await until(`fox gets ${size}`, seen, { within: 40_000, seen: () => fox.reading(cleo) });
    await fox.sees(cleo, { board: 9, fps: FPS });
  }
}, { timeout: 150_000 });

test('firefox_comes_back_after_a_cut_and_after_a_new_session', async (call) => {
  const [fox, cleo] = await company(call);
  await together(fox, cleo);
  for (const scenario of ['signal-reconnect', 'full-reconnect']) {
    const before = (await fox.call('events', 'reconnected')).length;
    await fox.call('simulate', scenario);
    await until(`fox is back after ${scenario}`, async () => (await fox.call('events', 'reconnected')).length > before, { within: 30_000 });
    await together(fox, cleo);
  }
  assert.equal((await fox.snapshot()).state, 'connected');
}, { timeout: 180_000 });
