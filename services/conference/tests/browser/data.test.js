// What people send each other beside their media: packets, chat, text and byte streams, remote calls.

import assert from 'node:assert/strict';

import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const test = stage();

async function company(call, ...names) {
  const people = await Promise.all(names.map((name) => call.join(name)));
  await call.meet(...people);
  return people;
}

test('a_reliable_packet_reaches_everybody_else_with_topic_and_sender', async (call) => {
  const [ann, bob, cat] = await company(call, 'ann', 'bob', 'cat');
  await ann.call('sendData', { text: 'hello', topic: 'greeting' });
  for (const one of [bob, cat]) {
    const packet = await one.receives('the packet', ({ text }) => text === 'hello');
    assert.deepEqual([packet.from, packet.topic, packet.reliable], ['ann', 'greeting', true]);
  }
  assert.deepEqual(await ann.call('received'), [], 'nobody hears an echo');
});

test('reliable_packets_arrive_complete_and_in_order', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  const sent = Array.from({ length: 200 }, (_, index) => `packet ${index}`);
  await ann.page.evaluate(async (texts) => {
    for (const text of texts) await window.person.sendData({ text });
  }, sent);
  await bob.receives('the last one', ({ text }) => text === sent.at(-1));
  assert.deepEqual((await bob.call('received')).map(({ text }) => text), sent);
});

test('lossy_packets_arrive_on_a_good_network', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  for (let index = 0; index < 20; index += 1) await ann.call('sendData', { text: `tick ${index}`, reliable: false });
  await bob.receives('a late tick', ({ text }) => text === 'tick 19');
  const received = await bob.call('received');
  assert.ok(received.length >= 18, `${received.length} of 20`);
  assert.ok(received.every(({ reliable }) => reliable === false));
});

test('a_packet_for_one_person_reaches_nobody_else', async (call) => {
  const [ann, bob, cat] = await company(call, 'ann', 'bob', 'cat');
  await ann.call('sendData', { text: 'for bob', to: ['bob'] });
  await ann.call('sendData', { text: 'for all' });
  await bob.receives('both', ({ text }) => text === 'for all');
  await cat.receives('one', ({ text }) => text === 'for all');
  const texts = async (one) => (await one.call('received')).map(({ text }) => text);
  assert.deepEqual([await texts(bob), await texts(cat)], [['for bob', 'for all'], ['for all']]);
});

test('a_packet_of_sixty_thousand_bytes_arrives_whole', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  await ann.call('sendData', { text: 'x', repeat: 60_000 });
  await bob.receives('it', ({ size }) => size === 60_000);
});

test('who_may_not_send_data_is_not_heard', async (call) => {
  const bob = await call.join('bob');
  const ann = await call.join('ann', { grant: { canPublishData: false } });
  const cat = await call.join('cat');
  await call.meet(ann, bob, cat);
  await ann.call('sendData', { text: 'unheard' }).catch(() => {});
  await cat.call('sendData', { text: 'heard' });
  await bob.receives('the other one', ({ text }) => text === 'heard');
  assert.deepEqual((await bob.call('received')).map(({ text }) => text), ['heard']);
});

test('chat_messages_reach_everybody', async (call) => {
  const [ann, bob, cat] = await company(call, 'ann', 'bob', 'cat');
  const id = await ann.call('sendChat', 'good morning');
  for (const one of [bob, cat]) {
    const message = await one.receives('it', ({ form, text }) => form === 'chat' && text === 'good morning');
    assert.deepEqual([message.from, message.id], ['ann', id]);
  }
});

test('a_long_text_stream_arrives_whole_with_its_attributes', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  await ann.call('sendText', { text: 'naïve Ünïcode ', repeat: 8000, topic: 'notes', attributes: { mood: 'fine' } });
  const stream = await bob.receives('it', ({ form }) => form === 'text');
  assert.deepEqual([stream.from, stream.topic, stream.attributes.mood], ['ann', 'notes', 'fine']);
  assert.equal(stream.text, 'naïve Ünïcode '.repeat(8000));
});

test('a_text_stream_for_one_person_reaches_nobody_else', async (call) => {
  const [ann, bob, cat] = await company(call, 'ann', 'bob', 'cat');
  await ann.call('sendText', { text: 'for bob', topic: 'notes', to: ['bob'] });
  await ann.call('sendText', { text: 'for all', topic: 'notes' });
  await bob.receives('both', ({ text }) => text === 'for all');
  await cat.receives('one', ({ text }) => text === 'for all');
  assert.deepEqual((await cat.call('received')).map(({ text }) => text), ['for all']);
  await bob.receives('its own', ({ text }) => text === 'for bob');
});

test('a_megabyte_of_bytes_arrives_intact', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  await ann.call('sendBytes', { size: 1 << 20, topic: 'files', name: 'photo.raw' });
  const stream = await bob.receives('it', ({ form }) => form === 'bytes', { within: 20_000 });
  assert.deepEqual([stream.from, stream.name, stream.size, stream.intact], ['ann', 'photo.raw', 1 << 20, true]);
});

test('a_remote_call_is_answered', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  await bob.call('serveRpc', 'reverse');
  assert.deepEqual(await ann.call('callRpc', 'bob', 'reverse', 'stressed'), { answer: 'desserts' });
  const long = 'ab'.repeat(20_000);
  assert.deepEqual(await ann.call('callRpc', 'bob', 'reverse', long), { answer: 'ba'.repeat(20_000) });
});

test('a_remote_call_fails_with_the_reason', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  await bob.call('serveRpc', 'reverse');
  const failure = async (to, method, payload) => (await ann.call('callRpc', to, method, payload)).error;
  const refused = await failure('bob', 'reverse', 'refuse');
  assert.deepEqual([refused.code, refused.message, refused.data], [42, 'refused', 'by request of ann']);
  assert.equal((await failure('bob', 'reverse', 'break')).code, 1500, 'application error');
  assert.equal((await failure('bob', 'unknown', '')).code, 1400, 'unsupported method');
});

test('data_flows_between_people_without_media', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  await bob.call('sendData', { text: 'first' });
  await ann.receives('it', ({ text }) => text === 'first');
  await ann.call('sendData', { text: 'second' });
  await bob.receives('it', ({ text }) => text === 'second');
});

test('data_for_somebody_who_is_still_joining_is_not_lost', async (call) => {
  const ann = await call.join('ann');
  const bob = await call.arrive('bob');
  // Ann talks as soon as she knows of Bob, whose channels may not be open by then.
  await ann.page.evaluate(() => {
    const timer = setInterval(() => {
      if (!window.person.snapshot().people.bob) return;
      clearInterval(timer);
      window.person.sendData({ text: 'welcome' });
    }, 5);
  });
  assert.equal((await call.enter(bob)).joined, true);
  await bob.receives('it', ({ text }) => text === 'welcome');
});

/** Pushes frames until one of them arrives: a stream flows a moment after it was taken. */
async function flows(sender, receiver, name, size) {
  let number = 0;
  await until('the stream flows', async () => {
    number += 1;
    await sender.call('pushFrame', name, number, size);
    const received = await receiver.call('received');
    return received.some((one) => one.form === 'frame' && one.name === name && one.size === size && one.whole);
  });
}

test('frames_of_a_data_track_reach_those_who_take_it', async (call) => {
  const [ann, bob, cat] = await company(call, 'ann', 'bob', 'cat');
  assert.deepEqual(await ann.call('publishData', 'position'), { published: true });
  assert.deepEqual(await ann.call('publishData', 'joints'), { published: true });
  assert.equal((await ann.call('publishData', 'joints')).published, false, 'a name is used once');
  await bob.call('takeData', 'ann', 'joints');
  await bob.call('takeData', 'ann', 'position');
  await flows(ann, bob, 'position', 12);
  // More than one packet.
  await flows(ann, bob, 'joints', 50_000);
  assert.deepEqual((await cat.call('received')).filter(({ form }) => form === 'frame'), []);
  await ann.call('unpublishData', 'position');
  await bob.receives('its end', ({ form, name }) => form === 'end' && name === 'position');
  await flows(ann, bob, 'joints', 20);
});

test('a_data_track_goes_on_after_a_resume_and_after_a_new_session_of_either_side', async (call) => {
  const [ann, bob] = await company(call, 'ann', 'bob');
  await ann.call('publishData', 'position');
  await bob.call('takeData', 'ann', 'position');
  await flows(ann, bob, 'position', 10);
  for (const [size, who, scenario] of [
    [11, ann, 'signal-reconnect'],
    [12, bob, 'signal-reconnect'],
    [13, ann, 'full-reconnect'],
    [14, bob, 'full-reconnect'],
  ]) {
    const before = (await who.call('events', 'reconnected')).length;
    await who.call('simulate', scenario);
    await until(`${who.identity} is back`, async () => (await who.call('events', 'reconnected')).length > before);
    // With a new session of either side the SDK ends what was taken; whoever wants more takes it again.
    if (scenario === 'full-reconnect') await bob.call('takeData', 'ann', 'position');
    await flows(ann, bob, 'position', size);
  }
}, { timeout: 120_000 });
