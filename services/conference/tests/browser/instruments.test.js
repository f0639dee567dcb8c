// The instruments themselves, without any server: a board and a tone from one PeerConnection to another in one page.
// If these fail, no other verdict about media counts.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { launch } from './harness/browser.js';
import { serveSite } from './harness/site.js';
import { until } from './harness/until.js';

let browser, site, page;
before(async () => {
  [browser, site] = await Promise.all([launch(), serveSite()]);
  page = await browser.newPage();
  await page.goto(site.origin);
});
after(() => Promise.allSettled([browser?.close(), site?.close()]));

test('a_board_and_a_tone_survive_the_way_from_one_peer_connection_to_another', { timeout: 30_000 }, async () => {
  await page.evaluate(async () => {
    const { boardSource, BoardWatch } = await import('/page/board.js');
    const { toneSource, ToneMeter } = await import('/page/tone.js');
    const [sender, receiver] = [new RTCPeerConnection(), new RTCPeerConnection()];
    sender.onicecandidate = ({ candidate }) => receiver.addIceCandidate(candidate);
    receiver.onicecandidate = ({ candidate }) => sender.addIceCandidate(candidate);
    receiver.ontrack = ({ track }) => {
      if (track.kind === 'audio') return void Object.assign(window, { meter: new ToneMeter(track) });
      const element = document.body.appendChild(document.createElement('video'));
      element.muted = true;
      element.srcObject = new MediaStream([track]);
      element.play();
      Object.assign(window, { watch: new BoardWatch(element) });
    };
    sender.addTrack(boardSource({ person: 9, fps: 15 }).track);
    sender.addTrack(toneSource({ frequency: 660 }).track);
    await sender.setLocalDescription();
    await receiver.setRemoteDescription(sender.localDescription);
    await receiver.setLocalDescription();
    await sender.setRemoteDescription(receiver.localDescription);
  });
  const read = () => page.evaluate(() => ({ video: window.watch?.read(), audio: window.meter?.read() }));
  await until('media flows', async () => (await read()).video?.frames > 5, { seen: read });
  await page.evaluate(() => window.watch.mark());
  const { video, audio } = await until('two seconds of it', async () => {
    const seen = await read();
    return seen.video.seconds > 2 && seen;
  });
  assert.equal(video.person, 9);
  assert.equal(video.strangers + video.backwards, 0);
  assert.ok(video.advancedPerSecond >= 0.8 * 15, `frames advance: ${JSON.stringify(video)}`);
  assert.equal(video.size, '320x180');
  assert.ok(Math.abs(audio.frequency - 660) < 4 && audio.level > -30, `the tone is heard: ${JSON.stringify(audio)}`);
});

test('every_number_and_every_person_is_read_back_from_a_picture', { timeout: 30_000 }, async () => {
  const wrong = await page.evaluate(async () => {
    const { drawBoard, readBoard } = await import('/page/board.js');
    const context = Object.assign(document.createElement('canvas'), { width: 160, height: 90 }).getContext('2d');
    const wrong = [];
    for (let number = 0; number < 65_536; number += 251) {
      const person = 1 + (number % 14);
      drawBoard(context, person, number);
      const seen = readBoard(context.canvas);
      if (seen?.number !== number || seen.person !== person) wrong.push([person, number, seen]);
    }
    for (const color of ['#000', '#fff', '#888']) {
      context.fillStyle = color;
      context.fillRect(0, 0, 160, 90);
      if (readBoard(context.canvas)) wrong.push(color);
    }
    return wrong;
  });
  assert.deepEqual(wrong, []);
});
