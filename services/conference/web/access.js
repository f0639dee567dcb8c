// How this page gets into a room: an invitation (a token in the link's fragment) or the server's development door.
// A token is only ever read for display here; whether it is good is the server's to say.

import { perTab, recall, remember } from './dom.js';

/**
 * @typedef {object} Access
 * @property {'invitation' | 'open'} kind
 * @property {string} url signalling URL
 * @property {string} token empty until asked for, when `kind` is `open`
 * @property {string} room what to show, and what to ask for when `kind` is `open`
 * @property {string} name the name the token carries, or what this browser used last
 * @property {boolean} canRename whether the person may choose the name
 * @property {string} foreignHost the server's host when it is not the page's own, else empty
 * @property {boolean} canRecord whether the token lets the person record the room
 */

/** Why no token could be had. */
export class AccessError extends Error {
  /**
   * @param {'invitation-needed' | 'not-allowed' | 'unreachable'} state
   * @param {string} [message] what the server said
   */
  constructor(state, message = '') {
    super(message);
    this.state = state;
  }
}

/** @returns {Access} */
export function readAccess() {
  const fragment = new URLSearchParams(location.hash.replace(/^#/, ''));
  const token = fragment.get('token') ?? '';
  if (!token) {
    const room = new URLSearchParams(location.search).get('room')?.trim() || DEFAULT_ROOM;
    return { kind: 'open', url: ownUrl(), token: '', room, name: '', canRename: true, foreignHost: '', canRecord: false };
  }
  const claims = readClaims(token);
  const url = signallingUrl(fragment.get('url'));
  const host = new URL(url).host;
  return {
    kind: 'invitation',
    url,
    token,
    room: text(claims.video?.room),
    name: text(claims.name) || text(claims.sub),
    canRename: claims.video?.canUpdateOwnMetadata === true,
    foreignHost: host === location.host ? '' : host,
    canRecord: mayRecord(claims),
  };
}

/**
 * Asks the development door for a token.
 * @param {Access} access
 * @param {string} room
 * @param {string} name
 * @returns {Promise<Access>}
 */
export async function requestToken(access, room, name) {
  if (access.kind === 'invitation') return access;
  const response = await post({ room, identity: await tabIdentity(), name });
  if (response.status === 404) throw new AccessError('invitation-needed');
  if (!response.ok) throw new AccessError('not-allowed', await errorText(response));
  const answer = await response.json().catch(() => ({}));
  if (typeof answer.token !== 'string') throw new AccessError('unreachable', 'The server sent no token.');
  return { ...access, token: answer.token, room: text(answer.room) || room, name, canRecord: mayRecord(readClaims(answer.token)) };
}

/**
 * Whether the development door is shut, asked early so that nobody sets up a camera in vain. Doubt counts as open.
 * @param {Access} access
 * @returns {Promise<boolean>}
 */
export async function needsInvitation(access) {
  if (access.kind === 'invitation') return false;
  try {
    const response = await post({ room: access.room, identity: await tabIdentity(), name: 'Guest' });
    return response.status === 404;
  } catch {
    return false;
  }
}

/**
 * The link that lets somebody else in, or empty: an invitation is personal and must not be passed on.
 * @param {Access} access
 * @returns {string}
 */
export function inviteLink(access) {
  if (access.kind === 'invitation') return '';
  const link = new URL('/meet', location.origin);
  link.searchParams.set('room', access.room);
  return link.href;
}

/** @param {{ room: string, identity: string, name: string }} body */
async function post(body) {
  try {
    return await fetch('/dev/token', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TOKEN_TIMEOUT_MS),
    });
  } catch {
    throw new AccessError('unreachable');
  }
}

/** @type {Promise<string> | undefined} */
let identity;

/** One identity per tab: a reload comes back as the same person, a second tab is another one. */
function tabIdentity() {
  identity ??= claimIdentity();
  return identity;
}

async function claimIdentity() {
  const known = recall(perTab, 'identity');
  if (known && (await hold(known))) return known;
  const fresh = `guest-${randomSuffix()}`;
  remember(perTab, 'identity', fresh);
  await hold(fresh);
  return fresh;
}

/**
 * Takes the lock on an identity for the life of the page. Browsers copy session storage when a tab is duplicated, and
 * only a lock tells the copy from a reload; a reload may have to wait a moment for the page it replaces.
 * @param {string} name
 * @returns {Promise<boolean>}
 */
function hold(name) {
  if (!navigator.locks) return Promise.resolve(true);
  return new Promise((resolve) => {
    navigator.locks
      .request(`plenary.identity.${name}`, { signal: AbortSignal.timeout(LOCK_WAIT_MS) }, () => {
        resolve(true);
        return new Promise(() => {});
      })
      .catch(() => resolve(false));
  });
}

function randomSuffix() {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** @param {string | null} asked */
function signallingUrl(asked) {
  try {
    const url = new URL(asked ?? '');
    if (['ws:', 'wss:', 'http:', 'https:'].includes(url.protocol)) return url.href.replace(/^http/, 'ws');
  } catch {
    // Absent or unusable: the page's own server.
  }
  return ownUrl();
}

function ownUrl() {
  return location.origin.replace(/^http/, 'ws');
}

/**
 * @param {string} token
 * @returns {{ sub?: unknown, name?: unknown, video?: { room?: unknown, canUpdateOwnMetadata?: unknown, roomRecord?: unknown } }}
 */
function readClaims(token) {
  try {
    const payload = (token.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/');
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    const claims = JSON.parse(new TextDecoder().decode(bytes));
    return claims !== null && typeof claims === 'object' ? claims : {};
  } catch {
    return {};
  }
}

/** @param {ReturnType<typeof readClaims>} claims */
function mayRecord(claims) {
  return claims.video?.roomRecord === true;
}

/** @param {Response} response */
async function errorText(response) {
  const body = (await response.text().catch(() => '')).slice(0, ERROR_TEXT_MAX);
  try {
    const parsed = JSON.parse(body);
    return text(parsed.message) || text(parsed.error) || body;
  } catch {
    return body;
  }
}

/** @param {unknown} value */
function text(value) {
  return typeof value === 'string' ? value : '';
}

const DEFAULT_ROOM = 'demo';
const TOKEN_TIMEOUT_MS = 10_000;
const LOCK_WAIT_MS = 700;
const ERROR_TEXT_MAX = 500;
