// A directory of recordings as a node leaves it: short films made by ffmpeg, and session files in the documented format.

import { execFile, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** When the meeting began, in ms since 1970. */
export const BEGAN_MS = Date.UTC(2026, 10, 20, 9, 30);
/** How much later Bob's camera began, in seconds. */
export const BOB_LATER_S = 4;

/** Names as nobody is called who means well. */
export const ROOM = 'Weekly <b>stand-up</b> ../../etc';
export const BOB = 'Bob <img src=x onerror="window.injected = 1">';

export const FILES = {
  annCamera: '1-000000000000feed-TR_VCann-0.webm',
  annSound: '1-000000000000feed-TR_AMann-0.webm',
  bobCamera: '1-000000000000feed-TR_VCbob-0.webm',
  bobScreen: '1-000000000000feed-TR_VSbob-0.mkv',
};

export const COMPOSED = 'stand-up.mp4';

/** How long the whole is, in seconds. */
export const LENGTH_S = 12;

/**
 * Three recordings: a meeting that ended and was composed, one whose recorder died and that another node began, and one that somebody is writing.
 * @returns {Promise<{ root: string, remove: () => void }>}
 */
export async function makeShelf() {
  const root = mkdtempSync(join(tmpdir(), 'plenary-recordings-'));
  const [ended, died, running] = ['EG_ended', 'EG_died', 'EG_running'].map((id) => join(root, id));
  for (const directory of [ended, died, running, join(root, 'calls')]) mkdirSync(directory);
  await Promise.all([
    film(join(ended, FILES.annCamera), LENGTH_S - 1, 'testsrc2', ['-c:v', 'libvpx', '-an']),
    film(join(ended, FILES.bobCamera), LENGTH_S - BOB_LATER_S - 1, 'smptebars', ['-c:v', 'libvpx', '-an']),
    film(join(ended, FILES.annSound), LENGTH_S - 1, 'testsrc2', ['-vn', '-c:a', 'libopus']),
    film(join(ended, FILES.bobScreen), 2, 'mandelbrot', ['-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-an']),
    film(join(root, 'calls', COMPOSED), LENGTH_S, 'testsrc2', ['-c:v', 'libx264', '-preset', 'ultrafast', '-pix_fmt', 'yuv420p', '-c:a', 'aac', '-movflags', '+faststart']),
  ]);
  writeFileSync(join(ended, '1-000000000000feed.session.jsonl'), meeting());
  // What the composer was asked for it put where it was asked to.
  const answer = { version: 1, state: 'complete', path: `calls/${COMPOSED}`, size: 1, duration_us: LENGTH_S * 1e6, started_us: us(0), ended_us: us(LENGTH_S) };
  writeFileSync(join(ended, 'compose.result.0.json'), JSON.stringify(answer));
  writeFileSync(join(died, 'compose.json'), '{}');
  writeFileSync(join(died, '1-000000000000feed.session.jsonl'), line(-3600, { event: 'started', version: 1, recording: 'EG_died', room: 'RM_d', room_name: 'Interviews', node: 'ND_n', former: { epoch: 0, node: 'ND_m' } }) + line(-3500, { event: 'chat', id: '1', participant: '', text: 'welcome' }));
  const session = join(running, '1-000000000000feed.session.jsonl');
  writeFileSync(session, line(-60, { event: 'started', version: 1, recording: 'EG_running', room: 'RM_r', room_name: 'All hands', node: 'ND_n' }) + line(-59, { event: 'track', file: FILES.annCamera, participant: 'PA_ann', source: 'camera', codec: 'vp8', zero_us: us(-59) }));
  writeFileSync(join(running, `${FILES.annCamera}.part`), 'not to the end yet');
  // Whoever records holds this lock.
  const recorder = spawn('flock', ['--no-fork', '-x', session, 'sleep', '600'], { stdio: 'ignore' });
  return {
    root,
    remove: () => {
      recorder.kill();
      rmSync(root, { recursive: true });
    },
  };
}

function meeting() {
  const track = (/** @type {number} */ at, file, participant, source, codec, zero = at) => line(at, { event: 'track', file, participant, source, codec, zero_us: us(zero) });
  return [
    line(0, { event: 'started', version: 1, recording: 'EG_ended', room: 'RM_r', room_name: ROOM, node: 'ND_n' }),
    line(0.1, { event: 'participant', participant: 'PA_ann', identity: 'ann@example.org', name: 'Ann' }),
    track(1, FILES.annCamera, 'PA_ann', 'camera', 'vp8'),
    track(1, FILES.annSound, 'PA_ann', 'microphone', 'opus'),
    line(2, { event: 'chat', id: '1', participant: 'PA_ann', text: 'Good morning, all' }),
    line(3.5, { event: 'participant', participant: 'PA_bob', identity: 'bob', name: BOB }),
    track(5, FILES.bobCamera, 'PA_bob', 'camera', 'vp8'),
    line(BOB_LATER_S + 1, { event: 'track_zero', file: FILES.bobCamera, zero_us: us(BOB_LATER_S) }),
    line(6, { event: 'chat', id: '2', participant: 'PA_bob', text: 'Hello <script>window.injected = 2</script>' }),
    line(6.5, { event: 'mute', track: 'TR_AMann', muted: true }),
    track(7, FILES.bobScreen, 'PA_bob', 'screen_share', 'h264'),
    line(7.5, { event: 'mute', track: 'TR_AMann', muted: false }),
    line(8, { event: 'gap', file: FILES.bobCamera, from_us: 3_000_000, until_us: 3_400_000, reason: 'loss' }),
    line(9, { event: 'track_ended', file: FILES.bobScreen, reason: 'unpublished' }),
    ...Array.from({ length: 30 }, (_, index) => line(9 + index / 100, { event: 'chat', id: `m${index}`, participant: 'PA_ann', text: `Point ${index + 1} of the list` })),
    line(11, { event: 'participant_left', participant: 'PA_bob' }),
    line(LENGTH_S, { event: 'track_ended', file: FILES.bobCamera, reason: 'stopped' }),
    line(LENGTH_S, { event: 'track_ended', file: FILES.annCamera, reason: 'stopped' }),
    line(LENGTH_S, { event: 'stopped', reason: 'requested' }),
  ].join('');
}

/** @param {number} at seconds into the meeting @param {object} event */
function line(at, event) {
  return `${JSON.stringify({ at_us: us(at), ...event })}\n`;
}

/** @param {number} at seconds into the meeting */
function us(at) {
  return BEGAN_MS * 1000 + Math.round(at * 1e6);
}

/**
 * @param {string} path
 * @param {number} seconds
 * @param {string} picture a source of ffmpeg's
 * @param {string[]} codecs
 */
function film(path, seconds, picture, codecs) {
  const inputs = ['-f', 'lavfi', '-i', `${picture}=size=320x180:rate=10`, '-f', 'lavfi', '-i', 'sine=frequency=440'];
  return run('ffmpeg', ['-v', 'error', '-y', ...inputs, '-t', String(seconds), ...codecs, path]);
}
