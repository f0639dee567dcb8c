// Facts in words: times, sizes, states and reasons.

/** @param {number} us microseconds since 1970 */
export function day(us) {
  return new Date(us / 1000).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
}

/** @param {number} us microseconds since 1970 */
export function clock(us) {
  return new Date(us / 1000).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
}

/** For machines. @param {number} us */
export function iso(us) {
  return new Date(us / 1000).toISOString();
}

/** As players write it. @param {number} us */
export function length(us) {
  const seconds = Math.max(0, Math.floor(us / 1e6));
  const pad = (/** @type {number} */ value) => String(value).padStart(2, '0');
  const hours = Math.floor(seconds / 3600);
  return `${hours ? `${hours}:` : ''}${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}`;
}

/** Of something short. @param {number} us */
export function seconds(us) {
  return us < 60e6 ? `${(us / 1e6).toFixed(us < 10e6 ? 1 : 0)} s` : length(us);
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const steps = ['kB', 'MB', 'GB', 'TB'];
  const step = Math.min(steps.length - 1, Math.floor(Math.log10(bytes) / 3) - 1);
  const value = bytes / 1000 ** (step + 1);
  return `${value.toFixed(value < 10 ? 1 : 0)} ${steps[step]}`;
}

/**
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** @param {import('./api.js').Summary} recording */
export function state({ state, reason }) {
  switch (state) {
    case 'recording':
      return 'Recording now';
    case 'ended':
      return ENDED[reason ?? ''] ?? 'Ended';
    case 'interrupted':
      return 'Interrupted: its recorder died';
    default:
      return `Cannot be read: its session file ${reason ?? ''}`.trim();
  }
}

/** @type {Record<string, string>} */
const ENDED = {
  requested: 'Ended',
  room_ended: 'Ended with the room',
  moved: 'Moved to another node',
  disk_full: 'Ended: the disk was full',
  disk_slow: 'Ended: the disk was too slow',
  disk_failed: 'Ended: the disk failed',
  permission_denied: 'Ended: writing was not permitted',
  limit_reached: 'Ended at its limit',
};

/** @type {Record<string, string>} */
export const SOURCE = { camera: 'Camera', microphone: 'Microphone', screen_share: 'Screen', screen_share_audio: 'Sound of the screen' };

/** @type {Record<string, string>} */
export const CODEC = { opus: 'Opus', vp8: 'VP8', vp9: 'VP9', av1: 'AV1', h264: 'H.264' };

/** @type {Record<string, string>} */
export const GAP = { loss: 'lost on the way', overrun: 'the disk did not keep up' };
