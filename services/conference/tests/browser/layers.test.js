// Simulcast: everybody gets the layer that fits, and changing it is no interruption.

import assert from 'node:assert/strict';

import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const test = stage();

const FPS = 15;
/** 960×540 with the SDK's own lower layers of 640×360 and 320×180. */
const CAMERA = { person: 1, width: 960, height: 540, fps: FPS, publish: { simulcast: true } };
const LOW = '320x180';
const MEDIUM = '640x360';
const HIGH = '960x540';
/** What a layer may take to arrive: the first HIGH waits for the estimate of a new connection. */
const FIRST_HIGH = { within: 40_000 };
const SWITCH = { within: 20_000 };
/** A switch waits for a keyframe while the old layer goes on. */
const NO_FREEZE_MS = 1000;

async function reaches(viewer, size, options) {
  const seen = async () => {
    const reading = await viewer.reading('ann');
    return reading?.size === size && reading;
  };
  return until(`${viewer.identity} gets ${size}`, seen, { ...options, seen: () => viewer.reading('ann') });
}

/** Asks for a quality and returns how the picture behaved until its size was there. */
async function switchTo(viewer, quality, size) {
  await viewer.call('mark');
  await viewer.call('setQuality', 'ann', 'camera', quality);
  return reaches(viewer, size, SWITCH);
}

test('a_viewer_gets_the_layer_it_asks_for_and_switches_without_a_freeze', async (call) => {
  const ann = await call.join('ann');
  await call.publish(ann, 'publishBoard', CAMERA);
  const bob = await call.join('bob');
  await bob.sees(ann, { board: 1, fps: FPS });
  await reaches(bob, HIGH, FIRST_HIGH);
  for (const [quality, size] of [['LOW', LOW], ['HIGH', HIGH], ['MEDIUM', MEDIUM], ['LOW', LOW]]) {
    const reading = await switchTo(bob, quality, size);
    assert.ok(reading.longestGapMs < NO_FREEZE_MS, `no freeze on the way to ${quality}: ${JSON.stringify(reading)}`);
    assert.equal(reading.backwards + reading.strangers, 0, JSON.stringify(reading));
    await bob.sees(ann, { board: 1, fps: FPS });
  }
}, { timeout: 150_000 });

test('viewers_with_different_wishes_get_different_layers_at_once', async (call) => {
  const ann = await call.join('ann');
  await call.publish(ann, 'publishBoard', CAMERA);
  const [bob, cat] = await Promise.all([call.join('bob'), call.join('cat')]);
  await Promise.all([bob.sees(ann, { board: 1, fps: FPS }), cat.sees(ann, { board: 1, fps: FPS })]);
  await bob.call('setQuality', 'ann', 'camera', 'LOW');
  await Promise.all([reaches(bob, LOW, SWITCH), reaches(cat, HIGH, FIRST_HIGH)]);
  await bob.call('mark');
  await cat.call('mark');
  await until('three seconds of it', async () => (await cat.reading(ann)).seconds > 3);
  assert.deepEqual([(await bob.reading(ann)).sizes, (await cat.reading(ann)).sizes], [[LOW], [HIGH]]);
}, { timeout: 120_000 });

test('an_adaptive_viewer_gets_what_its_element_can_show', async (call) => {
  const ann = await call.join('ann');
  await call.publish(ann, 'publishBoard', CAMERA);
  const bob = await call.join('bob', { room: { adaptiveStream: true } });
  await bob.sees(ann, { board: 1, fps: FPS });
  await bob.call('resize', 'ann', 'camera', 960, 540);
  await reaches(bob, HIGH, FIRST_HIGH);
  await bob.call('mark');
  await bob.call('resize', 'ann', 'camera', 160, 90);
  const down = await reaches(bob, LOW, SWITCH);
  assert.ok(down.longestGapMs < NO_FREEZE_MS, JSON.stringify(down));
  await bob.call('mark');
  await bob.call('resize', 'ann', 'camera', 640, 360);
  const up = await reaches(bob, MEDIUM, SWITCH);
  assert.ok(up.longestGapMs < NO_FREEZE_MS, JSON.stringify(up));
}, { timeout: 120_000 });

test('a_paused_video_stops_and_returns_without_renegotiation', async (call) => {
  const ann = await call.join('ann');
  await call.publish(ann, 'publishBoard', CAMERA);
  const bob = await call.join('bob');
  await bob.sees(ann, { board: 1, fps: FPS });
  await bob.call('setEnabled', 'ann', 'camera', false);
  const still = async () => {
    await bob.call('mark');
    await until('half a second passes', async () => (await bob.reading(ann)).seconds > 0.5);
    return (await bob.reading(ann)).frames === 0;
  };
  await until('the picture stands', still);
  await bob.call('setEnabled', 'ann', 'camera', true);
  await bob.sees(ann, { board: 1, fps: FPS });
  assert.deepEqual(await bob.call('events', 'trackUnsubscribed'), []);
});

for (const codec of ['h264', 'vp9', 'av1']) {
  test(`a_${codec}_camera_is_seen`, async (call) => {
    const ann = await call.join('ann');
    // A single layer without a backup: whether the codec itself gets through.
    const publish = { videoCodec: codec, backupCodec: false, scalabilityMode: 'L1T1', simulcast: false };
    const outcome = await ann.call('publishBoard', { person: 6, fps: 10, publish });
    assert.ok(outcome.sid, JSON.stringify(outcome));
    const bob = await call.join('bob');
    await bob.sees(ann, { board: 6, fps: 10 });
  });
}

test('a_dynacast_publisher_sends_only_the_layers_that_somebody_wants', async (call) => {
  const ann = await call.join('ann', { room: { dynacast: true } });
  await call.publish(ann, 'publishBoard', CAMERA);
  const sends = (active, within) => until(`ann sends ${active}`, async () => {
    const encodings = await ann.call('encodings', 'camera');
    return JSON.stringify(encodings) === JSON.stringify(active);
  }, { within, seen: () => ann.call('encodings', 'camera') });
  await sends([false, false, false], 20_000);
  const bob = await call.join('bob');
  await sends([true, true, true], 10_000);
  await reaches(bob, HIGH, FIRST_HIGH);
  await switchTo(bob, 'LOW', LOW);
  await sends([true, false, false], 15_000);
  await switchTo(bob, 'HIGH', HIGH);
  await sends([true, true, true], 1_000);
  await bob.sees(ann, { board: 1, fps: FPS });
}, { timeout: 150_000 });
