// Starts and stops the recording of a room, for whoever's token says they may, by the server's Egress API. Whether a room
// is recorded the room itself says, whoever began it.

/** Why it could not be, in words for the person who asked. */
export class RecorderError extends Error {
  /** @param {string} words @param {number} [status] */
  constructor(words, status) {
    super(words);
    this.status = status;
  }
}

export class Recorder {
  #room;
  #token;

  /**
   * @param {string} room
   * @param {() => string} token the newest one there is
   */
  constructor(room, token) {
    this.#room = room;
    this.#token = token;
  }

  /** Everybody and every screen in one video. */
  async start() {
    await this.#call('StartRoomCompositeEgress', { room_name: this.#room, file_outputs: [{}] });
  }

  /** All there are of this room, so that nothing is recorded afterwards. */
  async stop() {
    const { items } = await this.#call('ListEgress', { room_name: this.#room, active: true });
    const running = (Array.isArray(items) ? items : []).filter((one) => RUNNING.has(one.status));
    if (running.length === 0) throw new RecorderError('There is no recording that could be stopped.');
    await Promise.all(running.map(({ egress_id }) => this.#call('StopEgress', { egress_id }).catch(unlessStopped)));
  }

  /**
   * @param {string} method
   * @param {object} body
   * @returns {Promise<any>}
   */
  async #call(method, body) {
    const response = await fetch(`/twirp/livekit.Egress/${method}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${this.#token()}` },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    }).catch(() => {
      throw new RecorderError('The server did not answer. Try again.');
    });
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new RecorderError(words(response.status, answer.code, answer.msg), response.status);
    return answer;
  }
}

/** Somebody else was quicker. @param {RecorderError} error */
function unlessStopped(error) {
  if (error.status !== PRECONDITION_FAILED) throw error;
}

/**
 * @param {number} status
 * @param {unknown} code Twirp's
 * @param {unknown} message the server's own words
 */
function words(status, code, message) {
  if (status === PRECONDITION_FAILED) return 'This server does not record: it has no directory for recordings.';
  if (code === 'bad_route') return 'This server cannot record.';
  if (status === 401 || status === 403) return 'Your invitation does not allow recording, or it has expired.';
  if (status === 429) return 'This server makes as many recordings as it can. Try again later.';
  return typeof message === 'string' && message ? `The server said: ${message.slice(0, MESSAGE_MAX)}` : 'Something went wrong on the server.';
}

const RUNNING = new Set(['EGRESS_STARTING', 'EGRESS_ACTIVE']);
/** Of a start: nothing is recorded here; of a stop: it has ended. */
const PRECONDITION_FAILED = 412;
const TIMEOUT_MS = 15_000;
const MESSAGE_MAX = 200;
