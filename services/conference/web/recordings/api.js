// What the page asks its server. The token is sent once, to open a session; from then on a cookie that no script can read
// says who asks, so that players can too.

/**
 * @typedef {object} Summary
 * @property {string} id
 * @property {string | null} room
 * @property {number | null} began_us microseconds since 1970, as every `_us` but those of gaps
 * @property {number | null} duration_us
 * @property {'recording' | 'ended' | 'interrupted' | 'unreadable'} state
 * @property {string | null} reason
 * @property {number} tracks
 * @property {number} bytes
 * @property {Video[]} composed
 * @property {boolean} composing whether another video is awaited
 * @property {(string | null)[]} elsewhere the nodes that have parts of it which are not here; null for one whose name is not known
 */

/** @typedef {{ file: string, name: string, bytes: number }} Video `file` is for the address, `name` what it is called */

/** @typedef {{ from_us: number, until_us: number | null }} Span until null: to the end */

/**
 * @typedef {object} TrackFile
 * @property {string} file
 * @property {'complete' | 'unfinished' | 'missing'} state
 * @property {number} bytes
 * @property {string} identity
 * @property {string} name
 * @property {string} source
 * @property {string} codec
 * @property {number} zero_us the moment that is zero in the file
 * @property {number | null} ended_us
 * @property {string | null} end
 * @property {{ from_us: number, until_us: number, reason: string }[]} gaps in the file's own time
 * @property {Span[] | null} muted
 */

/** @typedef {{ identity: string, name: string, stays: Span[] }} Person */
/** @typedef {{ at_us: number, identity: string, name: string, text: string }} Message */

/** @typedef {Summary & { files: TrackFile[], strays: string[], people: Person[], chat: Message[], epochs: number, left_out: number }} Recording */

/** Why something could not be had; `needsToken` when nobody is known to the server any more. */
export class ApiError extends Error {
  /**
   * @param {string} message for people
   * @param {boolean} [needsToken]
   */
  constructor(message, needsToken = false) {
    super(message);
    this.needsToken = needsToken;
  }
}

/** @param {string} token */
export async function open(token) {
  await ask('/session', { method: 'POST', headers: { authorization: `Bearer ${token}` } }, 'This token is not accepted. It may have expired.');
}

export async function close() {
  await ask('/session', { method: 'DELETE' });
}

/** @returns {Promise<Summary[]>} */
export async function list() {
  return (await ask('')).recordings;
}

/**
 * @param {string} id
 * @returns {Promise<Recording>}
 */
export function one(id) {
  return ask(`/${encodeURIComponent(id)}`);
}

/**
 * @param {string} id
 * @param {string} file
 */
export function addressOf(id, file) {
  return `${PATH}/${encodeURIComponent(id)}/${encodeURIComponent(file)}`;
}

/**
 * @param {string} path
 * @param {RequestInit} [request]
 * @param {string} [refused] what to say where there is no good token
 * @returns {Promise<any>}
 */
async function ask(path, request = {}, refused = 'Please log in.') {
  const response = await fetch(PATH + path, { ...request, signal: AbortSignal.timeout(TIMEOUT_MS) }).catch(() => {
    throw new ApiError('The server cannot be reached. Try again.');
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  switch (response.status) {
    case 401:
      throw new ApiError(refused, true);
    case 403:
      throw new ApiError('This token does not open the recordings: it needs the grants roomAdmin and roomCreate.', true);
    case 404:
      throw new ApiError('This recording is not here (any more).');
    case 412:
      throw new ApiError('This node keeps no recordings: recording.directory is not set.');
    default:
      throw new ApiError('The server could not read its recordings. Its log says why.');
  }
}

const PATH = '/admin/v1/recordings';
/** Thousands of recordings on a slow disk take a while. */
const TIMEOUT_MS = 60_000;
