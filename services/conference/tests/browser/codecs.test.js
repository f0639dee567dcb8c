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

test('redundant_audio_is_heard', async (call) => {
  const ann = await call.join('ann');
  await call.publish(ann, 'publishTone', { frequency: 660, publish: { red: true } });
  const bob = await call.join('bob');
  await bob.hears(ann, { frequency: 660 });
  // Chromium's statistics name the codec within.
  assert.deepEqual((await ann.call('agreedAudio', 'publisher')).slice(0, 2), ['red/48000/2', 'opus/48000/2']);
  assert.ok((await bob.call('agreedAudio', 'subscriber')).includes('red/48000/2'));
});
