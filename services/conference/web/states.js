// Every way a call can begin, pause or end, in words: what happened, and what to do about it.

import { h } from './dom.js';
import { icon, mark } from './icons.js';
import { AccessError } from './access.js';
import { ConnectionError, ConnectionErrorReason, DisconnectReason } from './vendor/livekit-client.esm.mjs';

/** @typedef {'left' | 'removed' | 'room-closed' | 'room-full' | 'duplicate' | 'not-allowed' | 'invitation-needed' | 'unreachable' | 'media-failed' | 'loopback' | 'lost' | 'server-shutdown' | 'failed' | 'unsupported'} Ending */
/** @typedef {{ state: Ending, detail: string }} Outcome `detail` is the server's own text, or empty */

/**
 * Why a call that was running ended.
 * @param {DisconnectReason | undefined} reason
 * @returns {Outcome}
 */
export function outcomeOfDisconnect(reason) {
  return { state: (reason !== undefined && BY_REASON[reason]) || 'lost', detail: '' };
}

/**
 * Why a call never began. `null` when the person cancelled.
 * @param {unknown} error
 * @returns {Outcome | null}
 */
export function outcomeOfError(error) {
  if (error instanceof AccessError) return { state: error.state, detail: error.message };
  if (!(error instanceof ConnectionError)) return { state: 'failed', detail: error instanceof Error ? error.message : '' };
  switch (error.reason) {
    case ConnectionErrorReason.Cancelled:
      return null;
    case ConnectionErrorReason.NotAllowed:
      // The server refuses a full room with 403 and says so in words; there is no code of its own for it.
      return FULL.test(error.message) ? { state: 'room-full', detail: '' } : { state: 'not-allowed', detail: error.message };
    case ConnectionErrorReason.LeaveRequest: {
      const outcome = outcomeOfDisconnect(/** @type {DisconnectReason} */ (error.context));
      return outcome.state === 'lost' ? { state: 'failed', detail: error.message } : outcome;
    }
    case ConnectionErrorReason.ServerUnreachable:
    case ConnectionErrorReason.Timeout:
    case ConnectionErrorReason.ServiceNotFound:
      return { state: 'unreachable', detail: '' };
    default:
      if (NO_MEDIA.test(error.message)) return { state: FIREFOX && LOOPBACK.test(location.hostname) ? 'loopback' : 'media-failed', detail: '' };
      return FULL.test(error.message) ? { state: 'room-full', detail: '' } : { state: 'failed', detail: error.message };
  }
}

/**
 * The page for an ending.
 * @param {Outcome} outcome
 * @param {{ rejoin: () => void, lobby: () => void }} actions
 */
export function endingView(outcome, actions) {
  const ending = ENDINGS[outcome.state];
  const heading = h('h1', { tabindex: -1 }, ending.title);
  const buttons = ending.actions.map(([label, action], index) =>
    h('button', { type: 'button', class: index === 0 ? 'button primary' : 'button', 'data-testid': action === 'rejoin' ? 'rejoin-button' : 'lobby-button', onclick: actions[action] }, label),
  );
  const element = h(
    'main',
    { class: 'centre' },
    h('div', { class: 'brand' }, mark(), h('span', {}, 'Plenary')),
    h(
      'section',
      { class: `card tone-${ending.tone}` },
      h('div', { class: 'card-icon' }, icon(ending.icon)),
      heading,
      h('p', {}, ending.text),
      outcome.detail ? h('p', { class: 'card-detail' }, h('span', { class: 'card-detail-label' }, outcome.state === 'failed' ? 'Details: ' : 'The server said: '), outcome.detail) : null,
      buttons.length ? h('div', { class: 'card-actions' }, ...buttons) : null,
    ),
  );
  return { element, focus: () => heading.focus() };
}

/**
 * The page while a call is being set up.
 * @param {string} room
 * @param {() => void} cancel
 */
export function connectingView(room, cancel) {
  const heading = h('h1', { tabindex: -1 }, 'Joining…');
  const element = h(
    'main',
    { class: 'centre' },
    h('div', { class: 'brand' }, mark(), h('span', {}, 'Plenary')),
    h(
      'section',
      { class: 'card tone-plain', 'aria-busy': 'true' },
      h('div', { class: 'spinner' }),
      heading,
      h('p', {}, room ? `Connecting you to ${room}.` : 'Connecting you to the call.'),
      h('div', { class: 'card-actions' }, h('button', { type: 'button', class: 'button', onclick: cancel }, 'Cancel')),
    ),
  );
  return { element, focus: () => heading.focus() };
}

/** What the library says when signalling works and no media path does; it has no reason of its own. */
const NO_MEDIA = /pc connection/i;
/** It pairs no loopback address, and by default a server that is tried out has no other. */
const FIREFOX = /firefox\//i.test(navigator.userAgent);
const LOOPBACK = /^(localhost|127\.|\[::1\])/;
const FULL = /max(imum)? participants|\bfull\b/i;

/** @type {Partial<Record<DisconnectReason, Ending>>} */
const BY_REASON = {
  [DisconnectReason.CLIENT_INITIATED]: 'left',
  [DisconnectReason.DUPLICATE_IDENTITY]: 'duplicate',
  [DisconnectReason.SERVER_SHUTDOWN]: 'server-shutdown',
  [DisconnectReason.MIGRATION]: 'server-shutdown',
  [DisconnectReason.PARTICIPANT_REMOVED]: 'removed',
  [DisconnectReason.ROOM_DELETED]: 'room-closed',
  [DisconnectReason.ROOM_CLOSED]: 'room-closed',
  [DisconnectReason.USER_REJECTED]: 'not-allowed',
  [DisconnectReason.JOIN_FAILURE]: 'failed',
  [DisconnectReason.MEDIA_FAILURE]: 'media-failed',
};

/** @typedef {[label: string, action: 'rejoin' | 'lobby']} Action */
/** @typedef {{ title: string, text: string, icon: import('./icons.js').IconName, tone: 'plain' | 'warn' | 'bad', actions: Action[] }} EndingText */

/** @type {Action} */
const BACK = ['Back to the lobby', 'lobby'];

/** @type {Record<Ending, EndingText>} */
const ENDINGS = {
  left: { title: 'You left the call', text: 'See you next time. Left by accident? The others may still be there.', icon: 'door', tone: 'plain', actions: [['Rejoin', 'rejoin'], BACK] },
  removed: { title: 'You were removed', text: 'The host removed you from this call.', icon: 'remove', tone: 'warn', actions: [BACK] },
  'room-closed': { title: 'The call has ended', text: 'The host closed this room for everyone.', icon: 'door', tone: 'plain', actions: [BACK] },
  'room-full': { title: 'This room is full', text: 'No more people can join right now. Try again when somebody has left.', icon: 'people', tone: 'warn', actions: [['Try again', 'rejoin'], BACK] },
  duplicate: { title: 'You joined from another tab', text: 'This call moved to another tab or device with the same invitation. Only one can be in the call at a time.', icon: 'tabs', tone: 'warn', actions: [['Use this tab instead', 'rejoin'], BACK] },
  'not-allowed': { title: 'You cannot join with this link', text: 'The invitation was not accepted. It may have expired; ask for a new one.', icon: 'lock', tone: 'bad', actions: [['Try again', 'rejoin'], BACK] },
  'invitation-needed': { title: 'This server needs an invitation link', text: 'Rooms here are by invitation. Open the link you were sent, or ask the person who set up the call.', icon: 'link', tone: 'warn', actions: [['Check again', 'lobby']] },
  unreachable: { title: 'The server cannot be reached', text: 'Check your connection. A firewall, or a server that is just starting, can also be the cause.', icon: 'offline', tone: 'bad', actions: [['Try again', 'rejoin'], BACK] },
  'media-failed': { title: 'Sound and video cannot get through', text: 'The server answered, but no media connection came about. A firewall or VPN may block it; another network often helps.', icon: 'offline', tone: 'bad', actions: [['Try again', 'rejoin'], BACK] },
  loopback: { title: 'Firefox needs another address', text: 'It makes no calls over loopback addresses. Start the server with PLENARY__MEDIA__BIND=0.0.0.0, so that media also uses this machine’s own address.', icon: 'offline', tone: 'warn', actions: [['Try again', 'rejoin'], BACK] },
  lost: { title: 'The connection was lost', text: 'We tried to reconnect but could not. Check your connection, then rejoin.', icon: 'offline', tone: 'bad', actions: [['Rejoin', 'rejoin'], BACK] },
  'server-shutdown': { title: 'The server is restarting', text: 'Your call should be back in a moment.', icon: 'retry', tone: 'warn', actions: [['Rejoin', 'rejoin'], BACK] },
  failed: { title: 'Joining did not work', text: 'Something went wrong while setting up the call.', icon: 'alert', tone: 'bad', actions: [['Try again', 'rejoin'], BACK] },
  unsupported: { title: 'This browser cannot make calls', text: 'It lacks WebRTC. Use a current version of Chrome, Edge, Firefox or Safari.', icon: 'alert', tone: 'bad', actions: [] },
};
