// A meeting in three browsers, recorded and composed: what is seen and heard in the video is what was done, where and when it
// was done.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

import { EgressStatus, EncodedFileOutput } from '@livekit/protocol';
import { EgressClient } from 'livekit-server-sdk';

import { Diary, EARLY_MS, SETTLED_MS } from './harness/diary.js';
import { Sound, distance, packets, pictures, probe } from './harness/film.js';
import { freePort } from './harness/server.js';
import { stage } from './harness/stage.js';
import { beside, grid, look, withStrip } from './harness/tiles.js';
import { quiet, until } from './harness/until.js';
import { TICK_MS } from './page/slate.js';

const root = mkdtempSync(join(tmpdir(), 'plenary-composed-'));
const admin = `127.0.0.1:${await freePort()}`;
const test = stage({ server: { PLENARY__RECORDING__DIRECTORY: root, PLENARY__RECORDING__FREE_BYTES_MIN: '0', PLENARY__ADMIN__BIND: admin } });
// When the server has ended.
after(() => rmSync(root, { recursive: true }));

/** Each in another codec, and Ann in two layers, of which the higher one is recorded. */
const PEOPLE = {
  ann: { person: 1, colour: [200, 40, 40], tone: 410, beep: 1700, width: 640, height: 360, publish: { videoCodec: 'vp8', simulcast: true } },
  bob: { person: 2, colour: [40, 60, 200], tone: 590, beep: 2300, publish: { videoCodec: 'h264' } },
  cat: { person: 3, colour: [40, 150, 60], tone: 770, beep: 2900, publish: { videoCodec: 'vp9' } },
};
const SCREEN = { person: 7, colour: [190, 160, 30], width: 640, height: 360, screen: true };

/** What is known of it after the first test. @type {Awaited<ReturnType<typeof record>> & { seen: ReturnType<typeof seen>[], sound: Sound }} */
let meeting;

test('a_meeting_of_three_becomes_one_video', async (call) => {
  const recorded = await record(call);
  const { codecs, width, height, seconds } = await probe(recorded.video);
  assert.deepEqual([codecs, width, height], [['h264', 'aac'], 1280, 720]);
  const lasted = (recorded.ended - recorded.started) / 1000;
  assert.ok(Math.abs(seconds - lasted) < 0.5, `${seconds} s of ${lasted} s`);
  const told = (kind) => recorded.session.filter(({ event }) => event === kind);
  assert.deepEqual(told('participant').map(({ name }) => name), Object.keys(PEOPLE).map(named));
  assert.deepEqual(told('chat').map(({ text }) => text), ['hello everybody']);
  assert.ok(told('speakers').some(({ participants }) => participants.length === 3), 'who speaks');
  meeting = { ...recorded, seen: [], sound: await Sound.of(recorded.video) };
  for await (const picture of pictures(recorded.video, FPS)) {
    const state = stateAt(picture.at);
    if (state) meeting.seen.push(seen(picture, state));
  }
}, { timeout: 200_000 });

test('everybody_is_seen_in_their_place_and_nobody_else', async () => {
  const scenes = meeting.seen.map(({ tiles }) => tiles.map(({ who, kind }) => `${who}'s ${kind}`).join(', '));
  assert.deepEqual(scenes.filter((scene, index) => scene !== scenes[index - 1]), [
    "ann's camera, bob's camera",
    "ann's camera, bob's camera, cat's camera",
    "ann's name, bob's camera, cat's camera",
    "ann's camera, bob's camera, cat's camera",
    "bob's screen, ann's camera, bob's camera, cat's camera",
    "ann's camera, bob's camera, cat's camera",
    "ann's camera, bob's camera",
  ]);
  for (const { at, tiles, beside } of meeting.seen) {
    assert.ok(beside < NEAR, `at ${at} s nothing stands beside tiles and films: ${beside}`);
    for (const { who, kind, is } of tiles) {
      const where = `${who}'s ${kind} at ${at} s: ${JSON.stringify(is)}`;
      if ('text' in is) {
        assert.ok(is.placeholder < NEAR && is.text > 180, where);
        continue;
      }
      const { person, colour } = kind === 'screen' ? SCREEN : PEOPLE[who];
      assert.equal(is.board?.person, person, where);
      assert.ok(Math.min(distance(is.wall, colour), distance(is.wall, WHITE)) < NEAR, where);
    }
  }
});

test('every_picture_is_of_its_moment', async () => {
  /** How old pictures are when they are shown, by whose they are. @type {Record<string, number[]>} */
  const ages = {};
  const apart = [];
  for (const { at, tiles } of meeting.seen) {
    const now = meeting.started + at * 1000;
    const films = tiles.filter(({ kind }) => kind !== 'name').map(({ who, kind, is }) => ({ film: kind === 'screen' ? kind : who, board: is.board }));
    const old = films.map(({ board }) => now - meeting.began - board.number * TICK_MS);
    films.forEach(({ film }, index) => (ages[film] ??= []).push(old[index]));
    apart.push(Math.max(...old) - Math.min(...old));
    for (const { film, board } of films) {
      // What the source did not draw, nobody can show.
      const next = meeting.drawn[film].find(({ number }) => number > board.number);
      const stale = next ? now - next.drawn : 0;
      assert.ok(stale < STALE_MS_MAX || isNamed(film, now), `${film} at ${at} s: the next picture was drawn ${stale} ms before, and no gap is named`);
    }
  }
  for (const [film, all] of Object.entries(ages)) console.log(`${film}: pictures are ${spread(all)} ms old`);
  console.log(`pictures of one moment are ${spread(apart)} ms apart`);
  for (const who of Object.keys(PEOPLE)) {
    const drift = youngest(ages[who].slice(-ages[who].length / 3)) - youngest(ages[who].slice(0, ages[who].length / 3));
    assert.ok(Math.abs(drift) < PICTURE_MS, `${who} goes by at a pace of their own: ${drift} ms off`);
  }
  const all = Object.values(ages).map(youngest);
  assert.ok(Math.max(...all) - Math.min(...all) < PICTURE_MS, `all go together: ${all}`);
  assert.ok(Math.min(...all) > -PICTURE_MS && Math.max(...all) < PICTURE_MS, `none goes before its time or after: ${all}`);
});

test('a_clap_is_seen_when_it_is_heard', async () => {
  const judged = [];
  for (const [who, { beep }] of Object.entries(PEOPLE)) {
    const beeps = meeting.sound.beeps(beep, LOUD);
    const offsets = [];
    for (const { at, number } of flashes(who)) {
      if (!stateOf(who, 'microphone', at)?.microphone) continue;
      const clap = meeting.drawn[who].findIndex((one) => one.number === number && one.isClap);
      // The encoder may have left out the first white picture.
      if (clap < 0) continue;
      // Behind sound that is missing at the source, the rest comes back to its time by 5 ms a second only.
      if (!isSteady(meeting.drawn[who].slice(0, clap + 1))) break;
      const { drawn, made } = meeting.drawn[who][clap];
      const heard = beeps.map((beep) => meeting.started + beep * 1000).find((one) => Math.abs(one - made) < 300);
      assert.ok(heard, `${who}'s clap at ${at} s is heard`);
      // By as much as it was drawn late, it was so at the source.
      offsets.push(meeting.started + at * 1000 - heard - (drawn - made));
    }
    console.log(`${who}: claps are seen ${spread(offsets)} ms after they are heard`);
    if (offsets.length < CLAPS_MIN) continue;
    judged.push(who);
    assert.ok(Math.abs(median(offsets)) <= LIP_SYNC_MS_MAX, `${who}: ${offsets}`);
  }
  assert.ok(judged.length > 0, 'somebody had the time to clap');
});

test('everybody_is_heard_while_they_are_there_and_not_muted', async () => {
  for (const [who, { tone }] of Object.entries(PEOPLE)) {
    const [on, off] = [[], []];
    for (let at = 0; at < meeting.sound.seconds; at += 0.05) {
      const state = stateOf(who, 'microphone', at);
      if (state) (state.microphone ? on : off).push(meeting.sound.level(at, tone));
    }
    console.log(`${who}'s tone is ${spread(on, 4)}${off.length ? `, and else ${spread(off, 4)}` : ''}`);
    const heard = on.filter((level) => level > AUDIBLE).length / on.length;
    assert.ok(heard > 0.97, `${who} is heard for ${heard} of the time`);
    assert.ok(off.every((level) => level < AUDIBLE / 4), `${who} is heard when muted or away: ${off}`);
  }
});

test('chromium_plays_the_file_of_every_track_to_its_end', async (call) => {
  const context = await call.browser.newContext();
  call.cleanup(() => context.close());
  const api = `http://${admin}/admin/v1/recordings`;
  const token = await call.server.token('any', 'operator', { grant: { roomAdmin: true, roomCreate: true } });
  await context.request.post(`${api}/session`, { headers: { authorization: `Bearer ${token}` } });
  const page = await context.newPage();
  await page.goto(`http://${admin}/recordings`);
  const tracks = meeting.session.filter(({ event }) => event === 'track');
  assert.deepEqual(tracks.map(({ codec }) => codec).sort(), ['h264', 'opus', 'opus', 'opus', 'vp8', 'vp8', 'vp9']);
  const played = await Promise.all(tracks.map(({ file }) => page.evaluate(play, `${api}/${meeting.id}/${file}`)));
  for (const [index, { codec, file }] of tracks.entries()) {
    const { error, isOver, width, frames, bytes } = played[index];
    const written = await packets(join(root, meeting.id, file));
    const seconds = (meeting.session.findLast((line) => line.file === file && line.event === 'track_ended').at_us - zeroOf(file)) / 1e6;
    const what = `${file}, ${seconds} s, ${JSON.stringify(written)}: ${JSON.stringify(played[index])}`;
    assert.ok(isOver && error === undefined && seconds - written.last < TAIL_S_MAX, what);
    // The browser says how much it decoded.
    assert.ok(codec === 'opus' ? bytes === written.bytes : width > 0 && frames === written.count, what);
  }
});

/** Plays the meeting and has it recorded. @param {import('./harness/stage.js').Call} call */
async function record(call) {
  const egress = new EgressClient(call.server.http, call.server.key, call.server.secret);
  const diary = new Diary();
  const began = Date.now();
  const [ann, bob, cat] = await Promise.all(Object.keys(PEOPLE).map((name) => call.arrive(name)));
  const enters = (person) => diary.does(person.identity, { isThere: true, camera: true, microphone: true }, async () => {
    const outcome = await call.enter(person, { claims: { name: named(person.identity) } });
    assert.ok(outcome.joined, JSON.stringify(outcome));
    await call.publish(person, 'publishFilm', filmOf(PEOPLE[person.identity], began));
  });
  await enters(ann);
  await enters(bob);
  await until('ann gets both tracks of bob', async () => (await ann.call('streams')) === 2);

  const { egressId: id } = await egress.startRoomCompositeEgress(call.room, { file: new EncodedFileOutput({ filepath: 'meeting' }) });
  const status = async () => (await egress.listEgress({ egressId: id }))[0];
  await until('it is recorded', async () => (await status()).status === EgressStatus.EGRESS_ACTIVE);

  await ann.call('sendText', { text: 'hello everybody', topic: 'lk.chat' });
  await quiet(2500);
  await enters(cat);
  await quiet(2500);
  await diary.does('ann', { camera: false }, () => ann.call('setMuted', 'camera', true));
  await quiet(1000);
  await diary.does('bob', { microphone: false }, () => bob.call('setMuted', 'microphone', true));
  await quiet(2000);
  await diary.does('ann', { camera: true }, () => ann.call('setMuted', 'camera', false));
  await quiet(1500);
  await diary.does('bob', { microphone: true }, () => bob.call('setMuted', 'microphone', false));
  await quiet(2000);
  await diary.does('bob', { screen: true }, () => call.publish(bob, 'publishFilm', filmOf(SCREEN, began)));
  await quiet(3000);
  const screen = await bob.call('filmed', 'screen');
  await diary.does('bob', { screen: false }, () => bob.call('unpublish', 'screen'));
  await quiet(2000);
  await diary.does('cat', { isThere: false, camera: false, microphone: false }, () => cat.call('leave'));
  await quiet(2000);
  const drawn = { screen };
  for (const person of [ann, bob, cat]) drawn[person.identity] = await person.call('filmed', 'camera');
  const stopped = Date.now();
  await egress.stopEgress(id);
  // Whoever composes does it at the lowest priority.
  await call.close();
  const isOver = ({ status }) => status !== EgressStatus.EGRESS_ACTIVE && status !== EgressStatus.EGRESS_ENDING;
  const over = await until('it is composed', async () => status().then((info) => isOver(info) && info), { within: 150_000, seen: status });
  assert.equal(over.status, EgressStatus.EGRESS_COMPLETE, over.error);
  console.log(`composed ${Date.now() - stopped} ms after it was stopped`);

  const directory = join(root, id);
  const [file] = readdirSync(directory).filter((name) => name.endsWith('.session.jsonl'));
  const session = readFileSync(join(directory, file), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  const [started, ended] = [session[0].at_us / 1000, session.at(-1).at_us / 1000];
  return { id, video: join(root, 'meeting.mp4'), session, diary, drawn, began, started, stopped, ended };
}

/** In the page: a file from its beginning to its end, as fast as it goes. @param {string} address */
async function play(address) {
  const video = /** @type {any} */ (Object.assign(document.createElement('video'), { src: address, playbackRate: 16, muted: true }));
  document.body.append(video);
  const ended = new Promise((resolve) => Object.assign(video, { onended: resolve, onerror: resolve }));
  const late = new Promise((resolve) => setTimeout(resolve, 20_000));
  await Promise.race([video.play().then(() => ended), ended, late]);
  const { videoWidth: width, ended: isOver, error, webkitDecodedFrameCount: frames, webkitAudioDecodedByteCount: bytes } = video;
  return { width, frames, bytes, isOver, error: error?.message };
}

/** As the diary tells it of a moment of the video, in seconds. @param {number} at @param {Parameters<Diary['at']>[1]} [concerns] */
function stateAt(at, concerns) {
  const now = meeting.started + at * 1000;
  return at * 1000 > SETTLED_MS && now < meeting.stopped - EARLY_MS ? meeting.diary.at(now, concerns) : undefined;
}

/** That of one person in one regard. @param {string} who @param {string} what @param {number} at */
function stateOf(who, what, at) {
  const state = stateAt(at, (whose, change) => whose === who && what in change);
  return state && (state[who] ?? {});
}

/** Whether the session file says that this is missing. @param {string} film @param {number} now in ms since 1970 */
function isNamed(film, now) {
  const { session } = meeting;
  const { participant } = session.find(({ event, identity }) => event === 'participant' && identity === (film === 'screen' ? 'bob' : film));
  const source = film === 'screen' ? 'screen_share' : 'camera';
  const { file } = session.find((line) => line.event === 'track' && line.participant === participant && line.source === source);
  const gaps = session.filter((line) => line.event === 'gap' && line.file === file);
  const inFile = now * 1000 - zeroOf(file);
  return gaps.some((gap) => inFile > gap.from_us && inFile < gap.until_us + STALE_MS_MAX * 1000);
}

/** When a file begins. @param {string} file */
function zeroOf(file) {
  return meeting.session.findLast((line) => line.file === file && 'zero_us' in line).zero_us;
}

/** What stands where something is to stand. @param {import('./harness/film.js').Picture} picture */
function seen(picture, state) {
  const there = Object.keys(PEOPLE).filter((who) => state[who]?.isThere);
  const screens = there.filter((who) => state[who].screen).map((who) => ({ who, kind: /** @type {const} */ ('screen') }));
  const actors = [...screens, ...there.map((who) => ({ who, kind: state[who].camera ? /** @type {const} */ ('camera') : /** @type {const} */ ('name') }))];
  const places = screens.length ? withStrip(actors.length) : grid(actors.length);
  const tiles = actors.map(({ who, kind }, index) => ({ who, kind, is: look(picture, kind, places[index]) }));
  return { at: picture.at, tiles, beside: beside(picture, actors.map(({ kind }) => kind), places) };
}

/** The moments at which somebody's wall turns white from one picture to the next, and what its board says. @param {string} who */
function flashes(who) {
  const found = [];
  let before = { at: -1, isWhite: true };
  for (const { at, tiles } of meeting.seen) {
    const is = tiles.find((tile) => tile.who === who && tile.kind === 'camera')?.is;
    if (!is?.board) continue;
    const isWhite = distance(is.wall, WHITE) < distance(is.wall, PEOPLE[who].colour);
    if (isWhite && !before.isWhite && at - before.at < 1.5 / FPS) found.push({ at, number: is.board.number });
    before = { at, isWhite };
  }
  return found;
}

/** Whether the sound of these was made without being held up since the recording began. @param {{ made: number }[]} drawn */
function isSteady(drawn) {
  const recorded = drawn.filter(({ made }) => made > meeting.started);
  return recorded.every(({ made }, index) => index === 0 || made - recorded[index - 1].made < 2 * PICTURE_MS);
}

function filmOf({ colour, ...film }, began) {
  return { ...film, colour: `rgb(${colour.join(' ')})`, began };
}

function named(identity) {
  return `${identity[0].toUpperCase()}${identity.slice(1)} Ångström`;
}

function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

/** As old as a tenth of them at most: what is held up at its source makes others older. @param {number[]} ages */
function youngest(ages) {
  return [...ages].sort((a, b) => a - b)[Math.floor(ages.length / 10)];
}

/** The least, the median and the most. */
function spread(values, digits = 0) {
  return [Math.min(...values), median(values), Math.max(...values)].map((value) => value?.toFixed(digits)).join(' | ');
}

const FPS = 25;
/** Of a film: nothing can be told more exactly by its board. */
const PICTURE_MS = 1000 / 15;
/** So long may the next picture have been drawn before it is shown: where a machine is short of time, browsers leave some out. */
const STALE_MS_MAX = 1000;
const LIP_SYNC_MS_MAX = 40;
/** A track ends when the server hears of it, after its last picture was sent. */
const TAIL_S_MAX = 4;
const CLAPS_MIN = 3;
/** Amplitudes: a third of those of the tone and the beep. */
const AUDIBLE = 0.02;
const LOUD = 0.15;
const WHITE = /** @type {[number, number, number]} */ ([255, 255, 255]);
/** Colours that are closer are the same, after all that was done to them. */
const NEAR = 60;
