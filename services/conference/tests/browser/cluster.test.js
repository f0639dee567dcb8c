// Three tabs on three nodes behind HAProxy, which sends each to the node that has the fewest, so that they part.

import assert from 'node:assert/strict';

import { Cluster } from './harness/cluster.js';
import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const test = stage({ start: Cluster.start });

const PARTS = { ann: { board: 1, tone: 440 }, bob: { board: 2, tone: 660 }, cat: { board: 3, tone: 880 } };
const NAMES = Object.keys(PARTS);
// A figure needs more of them than a test.
const KILLS = Number(process.env.PLENARY_KILLS ?? 1);

async function see(people, only = NAMES) {
  for (const viewer of only) {
    for (const seen of NAMES) {
      if (viewer === seen) continue;
      await people[viewer].sees(seen, { board: PARTS[seen].board });
      await people[viewer].hears(seen, { frequency: PARTS[seen].tone });
    }
  }
}

test('tabs_on_three_nodes_see_and_hear_each_other_and_are_back_by_themselves_when_a_node_is_killed', async (call) => {
  const cluster = /** @type {Cluster} */ (/** @type {unknown} */ (call.server));
  const people = {};
  for (const name of NAMES) people[name] = await call.join(name, PARTS[name]);
  const nodes = await Promise.all(NAMES.map((name) => cluster.nodeOf(people[name])));
  assert.deepEqual(nodes.toSorted(), [0, 1, 2]);
  await see(people);
  for (let kill = 0; kill < KILLS; kill += 1) {
    const dying = await cluster.nodeOf(people.cat);
    const hosts = await Promise.all(NAMES.map((name) => cluster.nodeOf(people[name])));
    const victims = NAMES.filter((_, index) => hosts[index] === dying);
    const rest = NAMES.filter((name) => !victims.includes(name));
    const before = Object.fromEntries(await Promise.all(NAMES.map(async (name) => [name, (await people[name].snapshot()).me.sid])));
    await people[rest[0]].call('mark');
    const eventsBefore = (await people[rest[0]].call('events')).length;
    const killed = performance.now();
    cluster.kill(dying);
    await Promise.all(victims.map(async (victim) => {
      const snapshots = () => Promise.all([victim, ...rest].map((name) => people[name].snapshot()));
      const arrives = async () => {
        const [own, ...others] = await snapshots();
        const seen = own.me.sid !== before[victim] && others.every(({ people: { [victim]: one } }) => one?.sid === own.me.sid && reads(one, PARTS[victim]));
        return seen && (await people[victim].call('streams')) >= 2 * rest.length;
      };
      await until(`${victim} is back`, arrives, { within: 20_000, every: 20 });
      const packets = performance.now() - killed;
      const shows = async () => {
        const [own] = await snapshots();
        return rest.every((name) => reads(own.people[name], PARTS[name]));
      };
      await until(`${victim} sees the others`, shows, { within: 20_000, every: 20 });
      const [arrived, shown] = [packets, performance.now() - killed].map((ms) => (ms / 1000).toFixed(2));
      console.log(`${victim}: packets both ways after ${arrived} s, shown after ${shown} s`);
    }));
    const [one, other] = rest;
    const since = (await people[one].call('events')).slice(eventsBefore);
    const lost = since.filter(({ name, detail }) => LOSSES.includes(name) && (detail.length === 0 || detail.includes(other)));
    assert.deepEqual(lost, [], `${one} noticed more than whom the node took along`);
    if (other) console.log(`${one} saw ${other} stand still for at most ${Math.round((await people[one].reading(other)).longestGapMs)} ms`);
    await see(people, victims);
    await cluster.replace(dying);
  }
}, { timeout: 60_000 + KILLS * 30_000 });

/** Whether both the picture and the sound of somebody are there. */
function reads(person, { board, tone }) {
  const [camera, microphone] = [person?.tracks.camera?.reading, person?.tracks.microphone?.reading];
  return camera?.person === board && camera.frames > 0 && microphone?.level > -50 && Math.abs(microphone.frequency - tone) < 8;
}

/** Of oneself, or of somebody. */
const LOSSES = ['reconnecting', 'signalReconnecting', 'disconnected', 'participantDisconnected', 'trackUnsubscribed', 'trackUnpublished'];
