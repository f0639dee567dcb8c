// The recordings page as an operator uses it: logging in, finding a meeting, playing it with its chat beside it.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';

import { Guest } from './harness/meet.js';
import { freePort } from './harness/server.js';
import { BEGAN_MS, BOB, BOB_LATER_S, FILES, ROOM, makeShelf } from './harness/shelf.js';
import { stage } from './harness/stage.js';
import { until } from './harness/until.js';

const shelf = await makeShelf();
const admin = await freePort();
const test = stage({ server: { PLENARY__RECORDING__DIRECTORY: shelf.root, PLENARY__RECORDING__FREE_BYTES_MIN: '0', PLENARY__ADMIN__BIND: `127.0.0.1:${admin}` } });
// When the server has ended.
after(() => shelf.remove());
const PAGE = `http://127.0.0.1:${admin}/recordings`;

const screenshots = process.env.PLENARY_SCREENSHOTS ?? mkdtempSync(join(tmpdir(), 'plenary-screenshots-'));
mkdirSync(screenshots, { recursive: true });
console.log(`screenshots are in ${screenshots}`);

/** Long enough for the SDK to send it deflated. */
const SAID = 'The minutes of the last meeting are in the folder of the meeting before the last meeting, as ever. Is this kept as well?';

const DESKTOP = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 844 };

/** An operator's tab, and what it did. */
class Operator {
  /** @type {string[]} */
  requests = [];
  /** @type {string[]} */
  #console = [];

  /** @param {import('./harness/stage.js').Call} call @param {{ viewport?: typeof DESKTOP, hash?: string, plays?: (type: string) => boolean }} [options] `plays`, run in the page, may deny what the browser plays */
  static async arrive(call, { viewport = DESKTOP, hash = '', plays } = {}) {
    const context = await call.browser.newContext({ viewport, locale: 'en-GB', timezoneId: 'UTC', acceptDownloads: true });
    call.cleanup(() => context.close());
    if (plays) await context.addInitScript(`HTMLMediaElement.prototype.canPlayType = (type) => (${plays})(type) ? 'maybe' : ''`);
    const operator = new Operator(await context.newPage());
    await operator.page.goto(PAGE + hash);
    return operator;
  }

  constructor(page) {
    this.page = page;
    page.on('request', (request) => this.requests.push(request.url()));
    page.on('console', (message) => this.#console.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => this.#console.push(`uncaught: ${error.message}`));
  }

  get(id) {
    return this.page.getByTestId(id);
  }

  async reaches(state) {
    await until(`the page shows ${state}`, async () => (await this.get('state').getAttribute('data-state')) === state, { seen: () => this.page.evaluate(() => document.body.innerText) });
  }

  async logIn(token) {
    await this.reaches('login');
    await this.get('token-input').fill(token);
    await this.get('login-button').click();
  }

  async opens(id) {
    await this.page.locator(`[data-testid="recording-row"][data-id="${id}"] a`).click();
    await this.reaches('recording');
  }

  /** The entry of a file. */
  track(file) {
    return this.page.locator(`[data-testid="track"][data-file="${file}"]`);
  }

  /** Waits until the player has a picture of this file, or its sound, at about this second of it. */
  async plays(file, second) {
    const now = () => this.get('player').evaluate((video) => ({ source: video.currentSrc, at: video.currentTime, ready: video.readyState, seeking: video.seeking, error: video.error?.message }));
    const seen = async () => {
      const { source, at, ready, seeking } = await now();
      return source.endsWith(file) && ready >= 2 && !seeking && Math.abs(at - second) < 0.6;
    };
    await until(`${file} is at ${second} s`, seen, { seen: now });
  }

  async picture(name) {
    await this.page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true });
  }

  async fits() {
    assert.equal(await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, 'nothing sticks out');
  }

  complaints() {
    // A refusal of a request is said by the browser too.
    return this.#console.filter((line) => !/status of 40[13]/.test(line));
  }
}

function token(call, grant = { roomAdmin: true, roomCreate: true }) {
  return call.server.token('any', 'operator', { grant });
}

test('only_a_token_that_may_opens_the_recordings', async (call) => {
  const operator = await Operator.arrive(call);
  await operator.reaches('login');
  await operator.picture('recordings-login');
  for (const [bad, words] of [['nonsense', 'not accepted'], [await token(call, { roomAdmin: true }), 'roomCreate']]) {
    await operator.logIn(bad);
    await operator.get('login-error').filter({ hasText: words }).waitFor({ timeout: 5000 });
  }
  const good = await token(call);
  await operator.logIn(good);
  await operator.reaches('list');
  const [cookie, ...others] = await operator.page.context().cookies(`${PAGE.replace('/recordings', '')}/admin/v1/recordings`);
  assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.path, others.length], [true, 'Strict', '/admin/v1/recordings', 0]);
  assert.notEqual(cookie.value, good);
  await operator.page.reload();
  await operator.reaches('list');
  assert.ok(operator.requests.every((url) => !url.includes(good) && !url.includes(cookie.value)), 'no secret in an address');
  await operator.get('logout-button').click();
  await operator.reaches('login');
  await operator.page.reload();
  await operator.reaches('login');
  assert.deepEqual(operator.complaints(), []);
});

for (const [where, viewport] of [['desktop', DESKTOP], ['phone', PHONE]]) {
  test(`the_list_tells_all_recordings_on_a_${where}`, async (call) => {
    const operator = await Operator.arrive(call, { viewport });
    await operator.logIn(await token(call));
    await operator.reaches('list');
    const rows = await operator.get('recording-row').allInnerTexts();
    assert.equal(rows.length, 3);
    assert.ok(rows[0].includes(ROOM) && rows[0].includes('Ended') && rows[0].includes('Yes'), rows[0]);
    assert.ok(rows[1].includes('All hands') && rows[1].includes('Recording now'), rows[1]);
    assert.ok(rows[2].includes('Interviews') && rows[2].includes('Interrupted: its recorder died; parts elsewhere') && rows[2].includes('Under way'), rows[2]);
    await operator.fits();
    await operator.picture(`recordings-list-${where}`);
    await operator.page.keyboard.press('Tab');
    await operator.page.locator('[data-testid="recording-row"] a').first().focus();
    await operator.page.keyboard.press('Enter');
    await operator.reaches('recording');
    assert.equal(await operator.get('room').textContent(), ROOM);
    await operator.plays('rendered-0', 0);
    await operator.fits();
    await operator.picture(`recordings-one-${where}`);
    await operator.page.goBack();
    await operator.reaches('list');
    assert.deepEqual(operator.complaints(), []);
    assert.equal(await operator.page.evaluate(() => window.injected), undefined);
  });
}

test('the_chat_follows_what_plays_and_leads_to_its_moment', async (call) => {
  const operator = await Operator.arrive(call, { hash: '#EG_ended' });
  await operator.logIn(await token(call));
  await operator.reaches('recording');
  await operator.plays('rendered-0', 0);
  const message = (text) => operator.get('message').filter({ hasText: text });
  assert.equal(await operator.get('message').count(), 32);
  await message('Hello').getByRole('button').click();
  await operator.plays('rendered-0', 6);
  const isCurrent = async (text) => (await message(text).first().getAttribute('aria-current')) === 'true';
  await until('the message of that moment is marked', () => isCurrent('Hello'));
  assert.equal(await message('Hello').locator('p').textContent(), 'Hello <script>window.injected = 2</script>');
  await operator.get('player').evaluate((video) => Object.assign(video, { muted: true, playbackRate: 4 }).play());
  await until('the last one is reached', () => isCurrent('Point 30 of the list'));
  const list = operator.page.locator('.messages');
  assert.ok((await list.evaluate((element) => element.scrollTop)) > 0, 'it is in sight');
  assert.equal(await operator.page.locator('[aria-current]').count(), 1);
  await operator.get('player').evaluate((video) => video.pause());
  assert.match(await operator.get('moment').textContent(), /09:30:\d\d, 00:\d\d into the meeting/);
  assert.equal(await operator.page.evaluate(() => window.injected), undefined);
  assert.deepEqual(operator.complaints(), []);
});

test('every_track_plays_at_the_same_moment_of_the_meeting', async (call) => {
  const operator = await Operator.arrive(call, { hash: '#EG_ended' });
  const statuses = new Set();
  operator.page.on('response', (response) => /\/(rendered-0|.*\.webm)$/.test(response.url()) && statuses.add(response.status()));
  await operator.logIn(await token(call));
  await operator.reaches('recording');
  await operator.get('message').filter({ hasText: 'Hello' }).getByRole('button').click();
  await operator.plays('rendered-0', 6);
  const play = (file) => operator.track(file).getByTestId('play').click();
  const pause = () => operator.get('player').evaluate((video) => video.pause());
  await play(FILES.annCamera);
  await pause();
  await operator.plays(FILES.annCamera, 5);
  await play(FILES.bobCamera);
  await pause();
  await operator.plays(FILES.bobCamera, 6 - BOB_LATER_S);
  assert.equal(await operator.get('playing').textContent(), `${BOB} · Camera`);
  const shown = await operator.get('player').evaluate((video) => [video.videoWidth, video.videoHeight]);
  assert.deepEqual(shown, [320, 180]);
  await play(FILES.annSound);
  await pause();
  await operator.plays(FILES.annSound, 5);
  await play(FILES.bobScreen);
  await pause();
  await operator.plays(FILES.bobScreen, 0);
  await play(FILES.annSound);
  await pause();
  await operator.page.getByRole('button', { name: `Go to ${new Date(BEGAN_MS + 2000).toISOString().slice(11, 19)}` }).click();
  await operator.plays(FILES.annSound, 1);
  await play(FILES.bobCamera);
  await operator.get('player-note').filter({ hasText: 'was not recorded at 09:30:02' }).waitFor({ timeout: 5000 });
  await operator.plays(FILES.bobCamera, 0);
  assert.deepEqual([...statuses], [206], 'players ask for parts');
  assert.deepEqual(operator.complaints(), []);
});

test('gaps_mutes_and_people_are_named', async (call) => {
  const operator = await Operator.arrive(call, { hash: '#EG_ended' });
  await operator.logIn(await token(call));
  await operator.reaches('recording');
  const flaws = (file) => operator.track(file).getByTestId('flaws');
  assert.equal(await flaws(FILES.annCamera).count(), 0);
  await flaws(FILES.annSound).locator('summary').click();
  assert.match(await flaws(FILES.annSound).innerText(), /Muted 1 time\s+09:30:06 muted until 09:30:07/);
  await flaws(FILES.bobCamera).locator('summary').click();
  assert.match(await flaws(FILES.bobCamera).innerText(), /1 gap\s+09:30:07 0\.4 s missing: lost on the way/);
  const people = await operator.get('person').allInnerTexts();
  assert.equal(people.length, 2);
  assert.match(people[0], /Ann\s*ann@example\.org\s+09:30:00–the end/);
  assert.ok(people[1].includes(BOB) && people[1].includes('09:30:03–09:30:11'), people[1]);
  await operator.track(FILES.bobCamera).getByTestId('play').click();
  await operator.get('player').evaluate((video) => {
    video.pause();
    video.currentTime = 2.7;
    video.playbackRate = 0.25;
    return video.play();
  });
  await operator.get('player-note').filter({ hasText: '0.4 s are missing here' }).waitFor({ timeout: 5000 });
  await operator.picture('recordings-flaws');
});

test('what_a_browser_does_not_play_is_offered_as_a_file', async (call) => {
  const operator = await Operator.arrive(call, { hash: '#EG_ended', viewport: PHONE, plays: (type) => !type.includes('matroska') });
  await operator.logIn(await token(call));
  await operator.reaches('recording');
  const screen = operator.track(FILES.bobScreen);
  assert.equal(await screen.getByTestId('play').count(), 0);
  assert.match(await screen.innerText(), /This browser does not play H\.264 in Matroska files\. Download it/);
  const [download] = await Promise.all([operator.page.waitForEvent('download'), screen.getByRole('link', { name: 'Download' }).click()]);
  assert.equal(download.suggestedFilename(), FILES.bobScreen);
  assert.equal(await download.failure(), null);
  await operator.fits();
});

test('a_recording_that_is_not_over_is_told_as_such', async (call) => {
  const operator = await Operator.arrive(call, { hash: '#EG_running', viewport: PHONE });
  await operator.logIn(await token(call));
  await operator.reaches('recording');
  assert.match(await operator.page.locator('main').innerText(), /This is being recorded/);
  assert.match(await operator.track(FILES.annCamera).innerText(), /Not complete yet/);
  assert.equal(await operator.page.getByRole('link', { name: 'Download' }).count(), 0);
  await operator.picture('recordings-running-phone');
  await operator.page.goto(`${PAGE}#EG_nothing`);
  await operator.reaches('failed');
  assert.match(await operator.page.locator('main').innerText(), /not here/);
  await operator.picture('recordings-missing-phone');
});

test('what_the_meet_page_records_can_be_looked_at', async (call) => {
  const invitation = await call.server.token(call.room, 'ann', { grant: { roomRecord: true }, options: { name: 'Ann' } });
  const ann = await Guest.open(call.browser, `${call.server.http}/meet#token=${invitation}`, { board: 1, tone: 440 });
  call.cleanup(() => ann.close());
  await ann.join();
  await ann.sees('ann', 1);
  await ann.press('record-toggle');
  await ann.toasts('This call is being recorded.');
  await ann.press('chat-toggle');
  await ann.get('chat-input').fill(SAID);
  await ann.get('chat-input').press('Enter');
  const operator = await Operator.arrive(call);
  await operator.logIn(await token(call));
  await operator.reaches('list');
  const row = operator.get('recording-row').filter({ hasText: call.room });
  const reloaded = (text) => async () => {
    await operator.page.reload();
    await operator.reaches('list');
    return (await row.count()) === 1 && (await row.innerText()).includes(text);
  };
  await until('it is listed while it is made', reloaded('Recording now'));
  await ann.press('record-toggle');
  await ann.toasts('The recording has ended.');
  await until('it has ended', reloaded('Ended'));
  await row.getByRole('link').click();
  await operator.reaches('recording');
  assert.deepEqual(await operator.get('message').allInnerTexts().then((texts) => texts.map((text) => text.includes('Ann') && text.includes(SAID))), [true]);
  await operator.page.locator('button.play', { hasText: 'Ann · Camera' }).click();
  await until('the camera plays', () => operator.get('player').evaluate((video) => video.videoWidth > 0 && video.currentTime > 0.2));
  assert.deepEqual([...ann.complaints(), ...operator.complaints()], []);
}, { timeout: 60_000 });
