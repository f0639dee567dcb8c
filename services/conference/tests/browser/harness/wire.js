// A client of the bare wire: one WebSocket and protobuf messages, nothing in between that could be polite.

import { SignalRequest, SignalResponse } from '@livekit/protocol';
import WebSocket from 'ws';

import { until } from './until.js';

export class Wire {
  #socket;
  /** @type {SignalResponse[]} everything received, in order */
  messages = [];
  /** @type {('binary' | 'text')[]} */
  encodings = [];
  /** @type {{ code: number, reason: string } | undefined} */
  closed;

  /**
   * Opens the signalling socket; a refusal comes back as `{ status, body }`.
   * @param {string} url up to and including the query
   * @param {Record<string, string>} [headers]
   * @returns {Promise<Wire & { status?: undefined } | { status: number, body: string, headers: object }>}
   */
  static open(url, headers) {
    const socket = new WebSocket(url, { headers, perMessageDeflate: false, handshakeTimeout: HANDSHAKE_MS });
    return new Promise((resolve, reject) => {
      socket.once('open', () => resolve(new Wire(socket)));
      socket.once('error', reject);
      socket.once('unexpected-response', (_, response) => {
        let body = '';
        response.setEncoding('utf8').on('data', (text) => (body += text));
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body, headers: response.headers }));
      });
    });
  }

  /** @param {WebSocket} socket */
  constructor(socket) {
    this.#socket = socket;
    socket.on('message', (data, binary) => {
      this.encodings.push(binary ? 'binary' : 'text');
      const bytes = /** @type {Buffer} */ (data);
      this.messages.push(binary ? SignalResponse.fromBinary(bytes) : SignalResponse.fromJsonString(bytes.toString(), { ignoreUnknownFields: true }));
    });
    socket.on('close', (code, reason) => (this.closed = { code, reason: reason.toString() }));
    socket.on('error', () => {});
  }

  /** @param {SignalRequest['message']} message */
  send(message) {
    this.#socket.send(new SignalRequest({ message }).toBinary());
  }

  /** @param {SignalRequest['message']} message */
  sendJson(message) {
    this.#socket.send(new SignalRequest({ message }).toJsonString());
  }

  /** @param {string | Buffer} frame as it is */
  sendRaw(frame) {
    this.#socket.send(frame);
  }

  /** Stops taking anything from the network; what the server sends piles up on its side. */
  stopReading() {
    this.#socket.pause();
    this.#underlying.pause();
  }

  resumeReading() {
    this.#socket.resume();
  }

  /** Breaks the connection without a closing frame. */
  destroy() {
    this.#socket.terminate();
  }

  close() {
    this.#socket.close(1000);
  }

  /** Says one last thing, closes and hangs up, all in one packet: what SDKs do that do not wait for the answer. */
  sayAndHangUp(message) {
    const connection = this.#underlying;
    connection.cork();
    this.send(message);
    this.#socket.close(1000);
    connection.end();
    connection.uncork();
  }

  /**
   * Waits for a message of this kind.
   * @param {string} kind
   * @param {(value: any) => unknown} [matches]
   * @param {{ within?: number }} [options]
   */
  async receives(kind, matches = () => true, options) {
    const kinds = () => this.messages.map(({ message }) => message.case);
    const found = () => this.messages.find(({ message }) => message.case === kind && matches(message.value));
    return (await until(`a ${kind} arrives`, found, { every: 20, seen: kinds, ...options })).message.value;
  }

  /** Waits for the server to end the connection. @param {{ within?: number }} [options] */
  ends(options) {
    return until('the server closes', () => this.closed, { every: 20, ...options });
  }

  get #underlying() {
    return /** @type {any} */ (this.#socket)._socket;
  }
}

const HANDSHAKE_MS = 10_000;
