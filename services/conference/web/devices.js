// Cameras, microphones and loudspeakers: naming them, choosing one, and saying in plain words why one cannot be used.

import { h, lasting, recall, remember } from './dom.js';
import { icon } from './icons.js';
import { Room } from './vendor/livekit-client.esm.mjs';

/** @typedef {'audioinput' | 'videoinput' | 'audiooutput'} DeviceKind */
/** @typedef {{ title: string, text: string }} Problem */

/**
 * Why this page cannot use any device at all, or `null`.
 * @returns {Problem | null}
 */
export function environmentProblem() {
  // The types promise it; an insecure page does not have it.
  if (navigator.mediaDevices !== undefined) return null;
  if (!window.isSecureContext) {
    return {
      title: 'Camera and microphone are blocked here',
      text: 'Browsers only allow them on a secure page. Open this call with https:// (or on localhost). You can still join to watch and chat.',
    };
  }
  return { title: 'No camera or microphone support', text: 'This browser does not offer them to web pages. You can still join to watch and chat.' };
}

/**
 * @param {unknown} error what capturing threw
 * @param {'camera' | 'microphone' | 'camera and microphone' | 'screen'} what
 * @returns {Problem}
 */
export function captureProblem(error, what) {
  const name = error instanceof Error ? error.name : '';
  const subject = what.charAt(0).toUpperCase() + what.slice(1);
  switch (name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return { title: `${subject} not allowed`, text: `Allow it in the browser's address bar, then try again. You can join without it.` };
    case 'NotFoundError':
    case 'OverconstrainedError':
      return { title: `No ${what} found`, text: 'Connect one, then try again. You can join without it.' };
    case 'NotReadableError':
    case 'AbortError':
      return { title: `${subject} in use elsewhere`, text: 'Another application or tab may hold it. Close that, then try again.' };
    default:
      return { title: `${subject} did not start`, text: error instanceof Error && error.message ? error.message : 'The browser gave no reason.' };
  }
}

/**
 * The device this browser used last, as a wish: a device that is gone must not stop the call.
 * @param {DeviceKind} kind
 * @returns {string}
 */
export function preferredDevice(kind) {
  return recall(lasting, `device.${kind}`);
}

/** A labelled select per kind of device, kept current while devices come and go. */
export class DevicePickers {
  #selects = new Map(/** @type {[DeviceKind, HTMLSelectElement][]} */ ([]));
  #active;
  #refresh = () => void this.refresh();

  /**
   * @param {object} options
   * @param {(kind: DeviceKind) => string} options.active the device in use
   * @param {(kind: DeviceKind, id: string) => Promise<unknown>} options.pick
   */
  constructor({ active, pick }) {
    this.#active = active;
    this.element = h('div', { class: 'pickers' });
    for (const kind of canChooseOutput() ? KINDS : KINDS.filter((each) => each !== 'audiooutput')) {
      const select = h('select', {
        class: 'field-input',
        'data-testid': `picker-${kind}`,
        onchange: async () => {
          remember(lasting, `device.${kind}`, select.value);
          await pick(kind, select.value);
          await this.refresh();
        },
      });
      this.#selects.set(kind, select);
      this.element.append(h('label', { class: 'picker' }, icon(LABELS[kind].icon), h('span', { class: 'visually-hidden' }, LABELS[kind].text), select));
    }
    navigator.mediaDevices?.addEventListener?.('devicechange', this.#refresh);
    this.#refresh();
  }

  async refresh() {
    for (const [kind, select] of this.#selects) {
      const devices = await Room.getLocalDevices(kind, false).catch(() => []);
      const named = devices.filter((device) => device.deviceId !== '');
      select.replaceChildren(
        ...named.map((device, index) => h('option', { value: device.deviceId }, device.label || `${LABELS[kind].text} ${index + 1}`)),
      );
      // Before permission browsers hide ids and names: there is nothing to choose from yet.
      select.disabled = named.length === 0;
      if (named.length === 0) select.append(h('option', { value: '' }, devices.length ? `${LABELS[kind].text}: waiting for permission` : LABELS[kind].none));
      const active = this.#active(kind) || preferredDevice(kind) || 'default';
      if (named.some((device) => device.deviceId === active)) select.value = active;
    }
  }

  destroy() {
    navigator.mediaDevices?.removeEventListener?.('devicechange', this.#refresh);
  }
}

function canChooseOutput() {
  return 'setSinkId' in HTMLMediaElement.prototype;
}

/** @type {DeviceKind[]} */
const KINDS = ['audioinput', 'videoinput', 'audiooutput'];

/** @type {Record<DeviceKind, { text: string, none: string, icon: import('./icons.js').IconName }>} */
const LABELS = {
  audioinput: { text: 'Microphone', none: 'No microphone found', icon: 'mic' },
  videoinput: { text: 'Camera', none: 'No camera found', icon: 'camera' },
  audiooutput: { text: 'Speaker', none: 'System speaker', icon: 'volume' },
};
