// The row of controls under the stage. It shows state and passes wishes on; it decides nothing.

import { h, setAttribute, setText } from './dom.js';
import { icon, setIcon } from './icons.js';

/**
 * @typedef {object} Actions
 * @property {() => void} microphone
 * @property {() => void} camera
 * @property {() => void} share
 * @property {() => void} layout
 * @property {(() => void) | null} record
 * @property {() => void} chat
 * @property {() => void} people
 * @property {() => void} settings
 * @property {() => void} help
 * @property {(() => void) | null} invite
 * @property {() => void} leave
 */

/**
 * @typedef {object} View
 * @property {boolean} microphone
 * @property {boolean} camera
 * @property {boolean} sharing
 * @property {boolean} mayPublish
 * @property {Set<string>} busy actions that are under way
 * @property {'grid' | 'speaker'} layout
 * @property {boolean} recording
 * @property {'chat' | 'people' | null} panel
 * @property {number} unread
 * @property {number} people
 */

export class Toolbar {
  #buttons;
  #more;
  #tray;
  #badge = h('span', { class: 'badge', hidden: true, 'aria-hidden': 'true' });
  #count = h('span', { class: 'badge badge-quiet', 'aria-hidden': 'true' });
  #closeTray = (/** @type {Event} */ event) => {
    const inside = event.target instanceof Node && (this.#more.contains(event.target) || this.#tray.contains(event.target));
    if (!inside) this.#openTray(false);
  };

  /** @param {Actions} actions */
  constructor(actions) {
    const canShare = Boolean(navigator.mediaDevices?.getDisplayMedia);
    this.#buttons = {
      microphone: control('mic-toggle', 'mic', actions.microphone),
      camera: control('camera-toggle', 'camera', actions.camera),
      share: canShare ? control('share-toggle', 'screen', actions.share) : null,
      layout: control('layout-toggle', 'speaker', actions.layout),
      record: actions.record ? control('record-toggle', 'record', actions.record) : null,
      chat: control('chat-toggle', 'chat', actions.chat),
      people: control('people-toggle', 'people', actions.people),
      settings: control('settings-button', 'settings', actions.settings),
      invite: actions.invite ? control('invite-button', 'invite', actions.invite) : null,
      help: control('help-button', 'keyboard', actions.help),
      leave: control('leave-button', 'leave', actions.leave),
    };
    const { microphone, camera, share, layout, record, chat, people, settings, invite, help, leave } = this.#buttons;
    label(layout, 'Layout', 'Change layout', 'L');
    label(settings, 'Devices', 'Devices: camera and sound');
    label(help, 'Shortcuts', 'Keyboard shortcuts', '?');
    label(leave, 'Leave', 'Leave the call');
    if (invite) label(invite, 'Invite', 'Copy invite link');
    leave.classList.add('danger');
    chat.append(' ', this.#badge);
    people.append(' ', this.#count);
    for (const panel of [chat, people]) setAttribute(panel, 'aria-controls', panel === chat ? 'chat-panel' : 'people-panel');
    this.#tray = h('div', { class: 'tray', id: 'tray' }, ...[share, layout, record, settings, help, invite, people].filter((button) => button !== null));
    this.#tray.addEventListener('click', () => this.#openTray(false));
    this.#more = control('more-button', 'more', () => this.#openTray(!this.#tray.hasAttribute('data-open')));
    label(this.#more, 'More', 'More controls');
    this.#more.classList.add('more');
    setAttribute(this.#more, 'aria-controls', 'tray');
    setAttribute(this.#more, 'aria-expanded', 'false');
    this.element = h(
      'footer',
      { class: 'toolbar', 'aria-label': 'Call controls' },
      h('div', { class: 'toolbar-group' }, microphone, camera),
      this.#tray,
      h('div', { class: 'toolbar-group' }, chat, this.#more, leave),
    );
    document.addEventListener('pointerdown', this.#closeTray);
  }

  destroy() {
    document.removeEventListener('pointerdown', this.#closeTray);
  }

  /** Closes the tray of a narrow screen; says whether there was one to close. */
  dismiss() {
    const open = this.#tray.hasAttribute('data-open');
    this.#openTray(false);
    if (open) this.#more.focus();
    return open;
  }

  /** @param {'chat' | 'people'} panel whose button gets the focus back */
  focus(panel) {
    const button = this.#buttons[panel];
    (button.offsetParent ? button : this.#more).focus();
  }

  /** @param {View} view */
  update(view) {
    const { microphone, camera, share, layout, record, chat, people } = this.#buttons;
    device(microphone, view.microphone, view.mayPublish, 'microphone', 'M');
    device(camera, view.camera, view.mayPublish, 'camera', 'V');
    if (share) {
      setIcon(share, view.sharing ? 'screen-stop' : 'screen');
      label(share, view.sharing ? 'Stop sharing' : 'Share', view.sharing ? 'Stop sharing your screen' : 'Share your screen', 'S');
      setAttribute(share, 'aria-pressed', String(view.sharing));
      share.disabled = !view.mayPublish;
    }
    if (record) {
      setIcon(record, view.recording ? 'record-stop' : 'record');
      label(record, view.recording ? 'Stop recording' : 'Record', view.recording ? 'Stop the recording' : 'Record this call');
      setAttribute(record, 'data-recording', view.recording);
    }
    for (const [name, button] of Object.entries(this.#buttons)) if (button) setAttribute(button, 'aria-busy', view.busy.has(name) ? 'true' : false);
    setIcon(layout, view.layout === 'grid' ? 'speaker' : 'grid');
    label(layout, view.layout === 'grid' ? 'Speaker view' : 'Grid view', view.layout === 'grid' ? 'Switch to speaker view' : 'Switch to grid view', 'L');
    setAttribute(layout, 'data-layout', view.layout);
    panel(chat, view.panel === 'chat', 'Chat', view.unread ? `Chat, ${view.unread} unread` : 'Chat', 'C');
    panel(people, view.panel === 'people', 'People', `People, ${view.people} in the call`, 'P');
    setText(this.#badge, view.unread > 99 ? '99+' : String(view.unread));
    this.#badge.hidden = view.unread === 0;
    setAttribute(chat, 'data-unread', view.unread || null);
    setText(this.#count, String(view.people));
  }

  /** @param {boolean} open */
  #openTray(open) {
    setAttribute(this.#tray, 'data-open', open);
    setAttribute(this.#more, 'aria-expanded', String(open));
    if (open) this.#tray.querySelector('button')?.focus();
  }
}

/**
 * @param {string} testid
 * @param {import('./icons.js').IconName} name
 * @param {() => void} onClick
 */
function control(testid, name, onClick) {
  return h('button', { type: 'button', class: 'control', 'data-testid': testid, onclick: onClick }, icon(name), h('span', { class: 'control-text', 'aria-hidden': 'true' }));
}

/**
 * @param {HTMLButtonElement} button
 * @param {string} short shown beside the icon where there is room
 * @param {string} words what the button does or is
 * @param {string} [key]
 */
function label(button, short, words, key) {
  const text = button.querySelector('.control-text');
  if (text) setText(text, short);
  setAttribute(button, 'aria-label', words);
  setAttribute(button, 'data-tip', key ? `${words} (${key})` : words);
  setAttribute(button, 'aria-keyshortcuts', key === '?' ? 'Shift+?' : key?.toLowerCase());
}

/**
 * @param {HTMLButtonElement} button
 * @param {boolean} on
 * @param {boolean} allowed
 * @param {'microphone' | 'camera'} what
 * @param {string} key
 */
function device(button, on, allowed, what, key) {
  const base = what === 'microphone' ? 'mic' : 'camera';
  setIcon(button, on ? base : /** @type {const} */ (`${base}-off`));
  // The name stays the same and `aria-pressed` carries the state; the tip says what a click will do.
  label(button, what === 'microphone' ? 'Mic' : 'Camera', what === 'microphone' ? 'Microphone' : 'Camera', key);
  setAttribute(button, 'data-tip', allowed ? `Turn ${what} ${on ? 'off' : 'on'} (${key})` : `You may not use your ${what} here`);
  setAttribute(button, 'aria-pressed', String(on));
  setAttribute(button, 'data-off', !on);
  button.disabled = !allowed;
}

/**
 * @param {HTMLButtonElement} button
 * @param {boolean} open
 * @param {string} short
 * @param {string} words
 * @param {string} key
 */
function panel(button, open, short, words, key) {
  label(button, short, words, key);
  setAttribute(button, 'aria-pressed', String(open));
  setAttribute(button, 'aria-expanded', String(open));
}
