// Every codec that browsers publish: it arrives as what it is, and its layers are chosen within one stream.

import assert from 'node:assert/strict';

import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const test = stage();

const FPS = 10;
/** A quarter, made even. */
const LOW = '240x136';
const HIGH = '960x540';

async function reaches(viewer, size, within = 40_000) {
  const seen = async () => {
    const reading = await viewer.reading('ann');
    return reading?.size === size && reading;
  };
  return until(`${viewer.identity} gets ${size}`, seen, { within, seen: () => viewer.reading('ann') });
}

for (const codec of ['vp9', 'av1']) {
  test(`${codec}_is_sent_in_layers_of_one_stream_and_each_viewer_gets_its_own`, async (call) => {
    const ann = await call.join('ann');
    // The SDK's default is L3T3_KEY.
    const publish = { videoCodec: codec, backupCodec: false };
    await call.publish(ann, 'publishBoard', { person: 3, width: 960, height: 540, fps: FPS, publish });
    const bob = await call.join('bob');
    await bob.sees(ann, { board: 3, fps: FPS, within: 40_000 });
    await reaches(bob, HIGH);
    assert.equal((await bob.call('receiverStats', 'ann', 'camera')).codec, `video/${codec.toUpperCase()}`);
    for (const [quality, size] of [['LOW', LOW], ['HIGH', HIGH]]) {
      await bob.call('mark');
      await bob.call('setQuality', 'ann', 'camera', quality);
      const reading = await reaches(bob, size);
      assert.equal(reading.backwards + reading.strangers, 0, JSON.stringify(reading));
      assert.ok(reading.longestGapMs < 1500, `no freeze on the way to ${quality}: ${JSON.stringify(reading)}`);
      await bob.sees(ann, { board: 3, fps: FPS });
    }
    const cat = await call.join('cat');
    await cat.sees(ann, { board: 3, fps: FPS });
    await cat.call('setQuality', 'ann', 'camera', 'LOW');
    await reaches(cat, LOW);
    assert.equal((await bob.reading(ann)).size, HIGH);
  }, { timeout: 180_000 });
}

/** A person whose browser has never heard of VP9. */
async function joinWithoutVp9(call, identity) {
  const person = await call.arrive(identity);
  await person.page.evaluate(() => {
    const { setRemoteDescription } = RTCPeerConnection.prototype;
    RTCPeerConnection.prototype.setRemoteDescription = function (/** @type {any} */ { type, sdp }) {
      return setRemoteDescription.call(this, { type, sdp: sdp.replaceAll('VP9/90000', 'VP-unknown/90000') });
    };
  });
  const outcome = await call.enter(person);
  assert.ok(outcome.joined, JSON.stringify(outcome));
  return person;
}

const codecOf = async (viewer) => (await viewer.call('receiverStats', 'ann', 'camera')).codec;

/** Numbers of the wire. */
const PREFER_REGRESSION = 0;
const SIMULCAST = 1;

for (const [policy, others, behaviour] of /** @type {const} */ ([
  [SIMULCAST, 'video/VP9', 'who_cannot_decode_the_first_codec_gets_the_backup_and_others_keep_the_first'],
  [PREFER_REGRESSION, 'video/VP8', 'with_regression_everybody_goes_over_to_the_backup_that_one_needs'],
])) {
  test(behaviour, async (call) => {
    const ann = await call.join('ann');
    const publish = { videoCodec: 'vp9', backupCodec: true, backupCodecPolicy: policy };
    await call.publish(ann, 'publishBoard', { person: 4, width: 960, height: 540, fps: FPS, publish });
    const cat = await call.join('cat');
    await cat.sees(ann, { board: 4, fps: FPS, within: 40_000 });
    assert.equal(await codecOf(cat), 'video/VP9');

    const bob = await joinWithoutVp9(call, 'bob');
    await bob.sees(ann, { board: 4, fps: FPS, within: 40_000 });
    assert.equal(await codecOf(bob), 'video/VP8');
    await until(`cat gets ${others}`, async () => (await codecOf(cat)) === others, { within: 10_000 });
    await cat.sees(ann, { board: 4, fps: FPS });

    await call.publish(ann, 'publishTone', { frequency: 520 });
    await bob.hears(ann, { frequency: 520 });
    await ann.call('setMuted', 'camera', true);
    await bob.until('ann mutes', ({ people }) => people.ann.tracks.camera.muted);
    await ann.call('setMuted', 'camera', false);
    await bob.sees(ann, { board: 4, fps: FPS });
    assert.equal(await codecOf(bob), 'video/VP8');
    await ann.call('unpublish', 'camera');
    await bob.until('the camera is gone', ({ people }) => !('camera' in people.ann.tracks));
    await call.publish(ann, 'publishBoard', { person: 5, fps: FPS });
    await Promise.all([bob, cat].map((viewer) => viewer.sees(ann, { board: 5, fps: FPS })));
  }, { timeout: 180_000 });
}

test('redundant_audio_is_heard', async (call) => {
  const ann = await call.join('ann');
  await call.publish(ann, 'publishTone', { frequency: 660, publish: { red: true } });
  const bob = await call.join('bob');
  await bob.hears(ann, { frequency: 660 });
  // Chromium's statistics name the codec within.
  assert.deepEqual((await ann.call('agreedAudio', 'publisher')).slice(0, 2), ['red/48000/2', 'opus/48000/2']);
  assert.ok((await bob.call('agreedAudio', 'subscriber')).includes('red/48000/2'));
});
