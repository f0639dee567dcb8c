// The two dialogs of a call: device settings, and the list of keyboard shortcuts with the switch that turns them off.

import { DevicePickers } from './devices.js';
import { h, lasting, recall, remember } from './dom.js';
import { icon } from './icons.js';

/**
 * @param {object} options
 * @param {(kind: import('./devices.js').DeviceKind) => string} options.active
 * @param {(kind: import('./devices.js').DeviceKind, id: string) => Promise<unknown>} options.pick
 */
export function openSettings(options) {
  const pickers = new DevicePickers(options);
  pickers.element.classList.add('pickers-stacked');
  open('Camera and sound', 'settings-dialog', pickers.element, h('p', { class: 'panel-hint' }, 'Changes apply at once and are remembered on this device.')).addEventListener('close', () => pickers.destroy());
}

export function openHelp() {
  const rows = SHORTCUTS.map(([key, words]) => h('div', { class: 'shortcut' }, h('dt', {}, h('kbd', {}, key)), h('dd', {}, words)));
  const enabled = h('input', { type: 'checkbox', checked: shortcutsEnabled(), onchange: () => remember(lasting, 'shortcuts', enabled.checked ? '' : 'off') });
  open('Keyboard shortcuts', 'help-dialog', h('dl', { class: 'shortcuts' }, ...rows), h('label', { class: 'check' }, enabled, 'Use single-key shortcuts'));
}

export function shortcutsEnabled() {
  return recall(lasting, 'shortcuts') !== 'off';
}

/**
 * Runs the action a key stands for, unless the key belongs to a field, a dialog or the browser.
 * @param {Partial<Record<string, () => void>>} actions by key, lower case
 * @param {() => void} onEscape
 * @returns {() => void} stops listening
 */
export function listenForShortcuts(actions, onEscape) {
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.isComposing || document.querySelector('dialog[open]')) return;
    if (event.key === 'Escape') onEscape();
    if (event.repeat || isTyping(event.target)) return;
    // Help stays reachable, so that switched-off shortcuts can be switched on again.
    const action = event.key === '?' || shortcutsEnabled() ? actions[event.key.toLowerCase()] : undefined;
    if (!action) return;
    event.preventDefault();
    action();
  };
  document.addEventListener('keydown', onKey);
  return () => document.removeEventListener('keydown', onKey);
}

/** @param {EventTarget | null} target */
function isTyping(target) {
  return target instanceof Element && target.closest('input:not([type=checkbox]), textarea, select, [contenteditable]') !== null;
}

/**
 * @param {string} title
 * @param {string} testid
 * @param {...Node} body
 */
function open(title, testid, ...body) {
  const close = h('button', { type: 'button', class: 'icon-button', 'aria-label': 'Close', onclick: () => dialog.close() }, icon('close'));
  const dialog = h(
    'dialog',
    { class: 'dialog', 'aria-labelledby': 'dialog-title', 'data-testid': testid },
    h('header', { class: 'panel-head' }, h('h2', { id: 'dialog-title' }, title), close),
    h('div', { class: 'dialog-body' }, ...body),
  );
  // A click on the backdrop lands on the dialog itself.
  dialog.addEventListener('click', (event) => event.target === dialog && dialog.close());
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** @type {[key: string, words: string][]} */
const SHORTCUTS = [
  ['M', 'Microphone on or off'],
  ['V', 'Camera on or off'],
  ['S', 'Share your screen, or stop'],
  ['C', 'Open or close chat'],
  ['P', 'Open or close people'],
  ['L', 'Switch between grid and speaker view'],
  ['Esc', 'Close the open panel'],
  ['?', 'Show this list'],
];
