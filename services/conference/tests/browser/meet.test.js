// The meet page as people use it: from the lobby into a call and out again, and what it says when something is wrong.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

import { EgressClient, EgressStatus, EncodedFileOutput } from 'livekit-server-sdk';

import { Guest } from './harness/meet.js';
import { Relay } from './harness/relay.js';
import { Server } from './harness/server.js';
import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

// The page mints tokens of its own only where the well-known development key is in use.
const DEVELOPMENT = { PLENARY_KEYS: 'devkey: secret' };
const recordings = mkdtempSync(join(tmpdir(), 'plenary-recordings-'));
const test = stage({ server: { ...DEVELOPMENT, PLENARY__RECORDING__DIRECTORY: recordings, PLENARY__RECORDING__FREE_BYTES_MIN: '0', PLENARY__RECORDING__COMPOSE: 'false' } });
// When the server has ended.
after(() => rmSync(recordings, { recursive: true }));

const screenshots = process.env.PLENARY_SCREENSHOTS ?? mkdtempSync(join(tmpdir(), 'plenary-screenshots-'));
mkdirSync(screenshots, { recursive: true });
console.log(`screenshots are in ${screenshots}`);

const ANN = { board: 1, tone: 440 };
const BOB = { board: 2, tone: 660 };
const CAT = { board: 3, tone: 880 };
/** Boards of shared screens are numbered from here. */
const SCREEN = 7;

async function open(call, options, server = call.server) {
  const guest = await Guest.open(call.browser, `${server.http}/meet?room=${call.room}`, options);
  call.cleanup(() => guest.close());
  return guest;
}

async function invited(call, identity, options, { server = call.server, grant } = {}) {
  const token = await server.token(call.room, identity, { grant, options: { name: identity } });
  const guest = await Guest.open(call.browser, `${server.http}/meet#token=${token}`, options);
  call.cleanup(() => guest.close());
  return guest;
}

function egressClient(call) {
  return new EgressClient(call.server.http, call.server.key, call.server.secret);
}

async function picture(guest, name) {
  await guest.page.screenshot({ path: join(screenshots, `${name}.png`) });
}

test('the_browsers_own_devices_are_seen_in_the_lobby_and_in_the_call', async (call) => {
  const guest = await open(call);
  await guest.page.waitForFunction(() => (document.querySelector('.preview video')?.videoWidth ?? 0) > 0);
  await picture(guest, 'lobby');
  const identity = await guest.join('Ann');
  await guest.shows(identity, 'camera', true);
  await guest.shows(identity, 'muted', false);
  await guest.page.waitForFunction(() => (document.querySelector('[data-testid="tile"] video')?.videoWidth ?? 0) > 0);
  await picture(guest, 'alone');
  assert.deepEqual(guest.complaints(), []);
});

test('three_tabs_see_and_hear_each_other', async (call) => {
  const parts = [ANN, BOB, CAT];
  const guests = await Promise.all(parts.map((part) => open(call, part)));
  const names = [];
  for (const [index, guest] of guests.entries()) names.push(await guest.join(['Ann', 'Bob', 'Cat'][index]));
  for (const [viewer, guest] of guests.entries()) {
    const others = [0, 1, 2].filter((index) => index !== viewer);
    for (const other of others) await guest.sees(names[other], parts[other].board);
    await guest.hears(...others.map((other) => parts[other].tone));
    for (const other of others) await guest.shows(names[other], 'speaking', true);
    await picture(guest, `three-${viewer + 1}`);
  }
  assert.equal(await guests[0].page.getByTestId('tile').count(), 3);
  await guests[0].press('layout-toggle');
  await guests[0].sees(names[1], BOB.board);
  await picture(guests[0], 'speaker-view');
  for (const guest of guests) assert.deepEqual(guest.complaints(), []);
}, { timeout: 90_000 });

test('switching_microphone_and_camera_shows_and_holds_back', async (call) => {
  const [ann, bob] = await Promise.all([open(call, ANN), open(call, BOB)]);
  const annId = await ann.join('Ann');
  await bob.join('Bob');
  await bob.sees(annId, ANN.board);
  await bob.hears(ANN.tone);
  await ann.press('mic-toggle');
  await bob.shows(annId, 'muted', true);
  await bob.hears();
  await ann.press('camera-toggle');
  await bob.shows(annId, 'camera', false);
  await picture(bob, 'muted-and-dark');
  await ann.press('mic-toggle');
  await ann.press('camera-toggle');
  await bob.shows(annId, 'muted', false);
  await bob.shows(annId, 'camera', true);
  await bob.hears(ANN.tone);
  await bob.sees(annId, ANN.board);
});

test('chat_reaches_the_others_and_is_text_only', async (call) => {
  const [ann, bob] = await Promise.all([open(call, ANN), open(call, BOB)]);
  await ann.join('Ann');
  await bob.join('Bob');
  await ann.press('chat-toggle');
  const text = 'Hello <b>Bob</b> & all';
  await ann.get('chat-input').fill(text);
  await ann.get('chat-input').press('Enter');
  await bob.press('chat-toggle');
  const message = bob.get('chat-message').filter({ hasText: text });
  await message.waitFor({ timeout: 10_000 });
  assert.equal(await message.locator('b').count(), 0);
  await bob.get('chat-input').fill('Hello Ann');
  await bob.get('chat-input').press('Enter');
  await ann.get('chat-message').filter({ hasText: 'Hello Ann' }).waitFor({ timeout: 10_000 });
  await picture(ann, 'chat');
});

test('a_shared_screen_is_shown_until_it_is_stopped', async (call) => {
  const [ann, bob] = await Promise.all([open(call, ANN), open(call, BOB)]);
  const annId = await ann.join('Ann');
  await bob.join('Bob');
  await ann.press('share-toggle');
  await bob.sees(annId, SCREEN + ANN.board, 'share-tile');
  await bob.sees(annId, ANN.board);
  await picture(bob, 'shared-screen');
  await ann.press('share-toggle');
  await bob.tile(annId, 'share-tile').waitFor({ state: 'detached', timeout: 10_000 });
  await bob.sees(annId, ANN.board);
});

test('the_list_of_people_names_everybody', async (call) => {
  const [ann, bob] = await Promise.all([open(call, ANN), open(call, BOB)]);
  await ann.join('Ann Alone');
  await bob.join('Bob Both');
  await ann.press('people-toggle');
  for (const name of ['Ann Alone', 'Bob Both']) await ann.get('person').filter({ hasText: name }).waitFor({ timeout: 10_000 });
});

test('who_leaves_disappears_and_may_come_back', async (call) => {
  const [ann, bob] = await Promise.all([open(call, ANN), open(call, BOB)]);
  const annId = await ann.join('Ann');
  await bob.join('Bob');
  await bob.sees(annId, ANN.board);
  await ann.press('leave-button');
  await ann.reaches('left');
  await bob.tile(annId).waitFor({ state: 'detached', timeout: 5000 });
  await ann.get('rejoin-button').click();
  await ann.reaches('connected', 20_000);
  await bob.sees(await ann.identity(), ANN.board);
  assert.deepEqual(ann.complaints(), []);
});

test('a_reload_keeps_the_person', async (call) => {
  const [ann, bob] = await Promise.all([open(call, ANN), open(call, BOB)]);
  const annId = await ann.join('Ann');
  await bob.join('Bob');
  await bob.sees(annId, ANN.board);
  await ann.page.reload();
  await ann.reaches('lobby');
  assert.equal(await ann.join(), annId);
  await bob.sees(annId, ANN.board);
  assert.equal(await bob.page.getByTestId('tile').count(), 2);
});

for (const width of [360, 320]) {
  test(`a_phone_of_${width}_pixels_shows_the_call_and_its_controls`, async (call) => {
    const viewport = { width, height: 700 };
    const [phone, bob] = await Promise.all([open(call, { ...ANN, viewport }), open(call, BOB)]);
    const overflow = () => phone.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(await overflow(), 0, 'the lobby fits');
    await picture(phone, `phone-${width}-lobby`);
    await phone.join('Ann');
    const bobId = await bob.join('Bob');
    await phone.sees(bobId, BOB.board);
    assert.equal(await overflow(), 0, 'the call fits');
    await picture(phone, `phone-${width}-call`);
    for (const control of ['mic-toggle', 'camera-toggle', 'chat-toggle', 'leave-button']) {
      const box = await phone.get(control).boundingBox();
      assert.ok(box && box.x >= 0 && box.x + box.width <= width && box.y + box.height <= viewport.height, `${control}: ${JSON.stringify(box)}`);
    }
    await phone.press('chat-toggle');
    await phone.get('chat-input').waitFor({ timeout: 5000 });
    assert.equal(await overflow(), 0, 'the chat fits');
    await picture(phone, `phone-${width}-chat`);
  });
}

for (const viewport of [undefined, { width: 390, height: 800 }, { width: 320, height: 700 }]) {
  const width = viewport?.width ?? 1280;
  test(`everybody_is_told_of_a_recording_on_${width}_pixels`, async (call) => {
    const ann = await invited(call, 'ann with quite a long name', { ...ANN, viewport });
    await ann.join();
    const mark = ann.get('recording');
    assert.equal(await mark.textContent(), '', 'nothing is said of a recording that there is not');
    const egress = egressClient(call);
    const { egressId } = await egress.startRoomCompositeEgress(call.room, new EncodedFileOutput({ filepath: `told-${width}` }), { layout: 'grid' });
    await ann.toasts('This call is being recorded.');
    assert.equal(await mark.getAttribute('role'), 'status');
    await mark.getByText('Recording', { exact: false }).waitFor();
    const box = await mark.boundingBox();
    assert.ok(box && box.width > 40 && box.x >= 0 && box.x + box.width <= width, JSON.stringify(box));
    assert.equal(await ann.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0);
    await picture(ann, `recorded-${width}`);
    await egress.stopEgress(egressId);
    await ann.toasts('The recording has ended.');
    assert.equal(await mark.textContent(), '');
    assert.equal(await ann.get('record-toggle').count(), 0, 'the token does not let this person record');
    assert.deepEqual(ann.complaints(), []);
  });
}

test('who_may_record_starts_and_stops_it', async (call) => {
  const ann = await invited(call, 'ann', ANN, { grant: { roomRecord: true } });
  await ann.join();
  await ann.press('record-toggle');
  await ann.toasts('This call is being recorded.');
  await picture(ann, 'recording-started');
  const egress = egressClient(call);
  const [recording] = await egress.listEgress({ roomName: call.room, active: true });
  assert.equal(recording.status, EgressStatus.EGRESS_ACTIVE);
  const files = () => readdirSync(join(recordings, recording.egressId));
  await until('her camera and her microphone are recorded', async () => files().filter((name) => name.endsWith('.part')).length === 2, { seen: files });
  await ann.press('record-toggle');
  await ann.toasts('The recording has ended.');
  await until('the files are whole', async () => files().filter((name) => name.endsWith('.webm')).length === 2, { seen: files });
  const [ended] = await egress.listEgress({ egressId: recording.egressId });
  assert.equal(ended.status, EgressStatus.EGRESS_ENDING, 'nobody composes here');
  assert.deepEqual(ann.complaints(), []);
});

test('whoever_stops_what_somebody_else_has_stopped_already_hears_no_complaint', async (call) => {
  const stopped = { status: 412, json: { code: 'failed_precondition', msg: 'egress with status EGRESS_ENDING cannot be stopped' } };
  const late = (context) => context.route('**/twirp/livekit.Egress/StopEgress', (route) => route.fulfill(stopped));
  const ann = await invited(call, 'ann', { ...ANN, prepare: late }, { grant: { roomRecord: true } });
  await ann.join();
  await ann.press('record-toggle');
  await ann.toasts('This call is being recorded.');
  const egress = egressClient(call);
  const [{ egressId }] = await egress.listEgress({ roomName: call.room, active: true });
  await Promise.all([ann.page.waitForResponse(/StopEgress/), ann.press('record-toggle')]);
  await egress.stopEgress(egressId);
  await ann.toasts('The recording has ended.');
  assert.equal(await ann.page.getByText('was not stopped', { exact: false }).count(), 0);
});

test('what_keeps_a_recording_from_beginning_is_said_in_words', async (call) => {
  let refusal = {};
  const refuse = (context) => context.route('**/twirp/livekit.Egress/*', (route) => route.fulfill(refusal));
  const viewport = { width: 390, height: 800 };
  const ann = await invited(call, 'ann', { ...ANN, viewport, prepare: refuse }, { grant: { roomRecord: true } });
  await ann.join();
  for (const [status, code, words] of [
    [412, 'failed_precondition', 'This server does not record: it has no directory for recordings.'],
    [404, 'bad_route', 'This server cannot record.'],
    [401, 'unauthenticated', 'Your invitation does not allow recording, or it has expired.'],
    [503, 'unavailable', 'The server said: the node is busy'],
  ]) {
    refusal = { status, json: { code, msg: 'the node is busy' } };
    await ann.press('record-toggle');
    await ann.toasts(`The recording did not begin. ${words}`);
  }
  await ann.get('more-button').click();
  await picture(ann, 'not-recorded-phone');
  assert.equal(await ann.get('recording').textContent(), '');
});

test('an_invitation_names_the_person_and_the_room', async (call) => {
  const guest = await invited(call, 'ann', ANN);
  assert.equal(await guest.get('name-input').inputValue(), 'ann');
  assert.equal(await guest.join(), 'ann');
});

test('a_bad_invitation_is_refused_in_words', async (call) => {
  const stranger = await Server.start();
  call.cleanup(() => stranger.stop());
  const token = await stranger.token(call.room, 'ann');
  const guest = await Guest.open(call.browser, `${call.server.http}/meet#token=${token}`, ANN);
  call.cleanup(() => guest.close());
  await guest.get('join-button').click();
  await guest.reaches('not-allowed');
  await picture(guest, 'not-allowed');
});

test('a_full_room_is_named_as_such', async (call) => {
  await call.api.createRoom({ name: call.room, maxParticipants: 1 });
  const [ann, bob] = await Promise.all([open(call, ANN), open(call, BOB)]);
  await ann.join('Ann');
  await bob.get('name-input').fill('Bob');
  await bob.get('join-button').click();
  await bob.reaches('room-full');
  await picture(bob, 'room-full');
  await ann.press('leave-button');
  await call.untilApi('is empty', async (api, room) => (await api.listParticipants(room)).length === 0);
  await bob.get('rejoin-button').click();
  await bob.reaches('connected', 20_000);
});

test('who_is_removed_is_told_so', async (call) => {
  const ann = await open(call, ANN);
  await call.api.removeParticipant(call.room, await ann.join('Ann'));
  await ann.reaches('removed');
  await picture(ann, 'removed');
});

test('a_deleted_room_is_told_of', async (call) => {
  const ann = await open(call, ANN);
  await ann.join('Ann');
  await call.api.deleteRoom(call.room);
  await ann.reaches('room-closed');
});

test('a_second_tab_with_the_same_invitation_takes_over', async (call) => {
  const first = await invited(call, 'ann', ANN);
  await first.join();
  const second = await invited(call, 'ann', BOB);
  await second.join();
  await first.reaches('duplicate');
  await picture(first, 'duplicate');
});

test('a_cut_socket_shows_reconnecting_and_then_the_call_again', async (call) => {
  const relay = await Relay.to(call.server.port);
  call.cleanup(() => relay.close());
  const bob = await open(call, BOB);
  const bobId = await bob.join('Bob');
  const ann = await Guest.open(call.browser, `${relay.http}/meet?room=${call.room}`, ANN);
  call.cleanup(() => ann.close());
  const annId = await ann.join('Ann');
  await ann.sees(bobId, BOB.board);
  relay.refuse();
  await ann.reaches('reconnecting');
  await picture(ann, 'reconnecting');
  relay.accept();
  await ann.reaches('connected', 20_000);
  await ann.sees(bobId, BOB.board);
  await bob.sees(annId, ANN.board);
});

test('a_server_that_shuts_down_says_so', async (call) => {
  const own = await Server.start(DEVELOPMENT);
  call.cleanup(() => own.stop());
  const ann = await open(call, ANN, own);
  await ann.join('Ann');
  own.terminate();
  // Told to come back elsewhere it keeps trying; told to stop it says why.
  const state = ann.get('state');
  await ann.page.waitForFunction((element) => ['server-shutdown', 'reconnecting'].includes(element?.getAttribute('data-state') ?? ''), await state.elementHandle());
  await picture(ann, 'server-gone');
});

test('a_server_with_keys_of_its_own_asks_for_an_invitation', async (call) => {
  const own = await Server.start();
  call.cleanup(() => own.stop());
  const guest = await open(call, { ...ANN, state: 'invitation-needed' }, own);
  await picture(guest, 'invitation-needed');
});
