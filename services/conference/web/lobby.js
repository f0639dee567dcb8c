// The lobby: who you are, which room, and a look in the mirror before anybody else looks.

import { DevicePickers, preferredDevice } from './devices.js';
import { h, lasting, recall, remember, setAttribute, setText } from './dom.js';
import { icon, mark, setIcon } from './icons.js';
import { Preview } from './preview.js';
import { initialsOf } from './tile.js';

/**
 * @typedef {object} Wants
 * @property {string} name
 * @property {string} room
 * @property {boolean} microphone
 * @property {boolean} camera
 * @property {import('./session.js').LocalTrack[]} tracks running tracks to publish; whoever gets them must stop them
 */

export class Lobby {
  #preview = new Preview(() => this.#draw());
  #pickers;
  #onJoin;
  #frame = 0;
  /** @type {import('./session.js').LocalTrack | null} */
  #shown = null;
  #heard = false;
  #video = h('video', { autoplay: true, playsinline: true, 'aria-label': 'Your camera preview' });
  #initials = h('span', {});
  #nobody = icon('person');
  #status = h('p', { class: 'preview-status' });
  #problems = h('div', { class: 'problems', role: 'status' });
  #microphone = deviceToggle('microphone', (on) => this.#preview.set('microphone', on));
  #camera = deviceToggle('camera', (on) => this.#preview.set('camera', on));
  #meter = h('div', { class: 'meter', 'aria-hidden': 'true' }, ...Array.from({ length: METER_STEPS }, () => h('i')));
  #meterText = h('span', { class: 'meter-text' });
  #join = h('button', { type: 'submit', class: 'button primary join', 'data-testid': 'join-button' }, 'Join call');
  #name;
  #room;
  #error = h('p', { class: 'field-error', id: 'name-error', hidden: true });

  /**
   * @param {import('./access.js').Access} access
   * @param {(wants: Wants) => void} onJoin
   */
  constructor(access, onJoin) {
    this.#onJoin = onJoin;
    this.#pickers = new DevicePickers({
      active: (kind) => (kind === 'audioinput' ? deviceOf(this.#preview.microphone) : kind === 'videoinput' ? deviceOf(this.#preview.camera) : preferredDevice(kind)),
      pick: async (kind, id) => {
        if (kind !== 'audiooutput') await this.#preview.pick(kind === 'audioinput' ? 'microphone' : 'camera', id);
      },
    });
    this.#name = h('input', {
      class: 'field-input', id: 'name', type: 'text', autocomplete: 'name', maxlength: 60, placeholder: 'How others will see you', 'data-testid': 'name-input',
      'aria-describedby': 'name-error name-hint', readonly: !access.canRename, value: access.name || recall(lasting, 'name'), oninput: () => this.#draw(),
    });
    this.#room = h('input', { class: 'field-input', id: 'room', type: 'text', autocomplete: 'off', autocapitalize: 'none', spellcheck: 'false', maxlength: 128, required: true, 'data-testid': 'room-input', readonly: access.kind === 'invitation', value: access.room });
    this.element = h('main', { class: 'lobby' }, h('header', { class: 'brand' }, mark(), h('span', {}, 'Plenary')), h('div', { class: 'lobby-columns' }, this.#previewColumn(), this.#form(access)));
    this.#draw();
    void this.#preview.start().then(() => this.#pickers.refresh());
    this.#tick();
  }

  focus() {
    if (!this.#name.value && !this.#name.readOnly) this.#name.focus();
    else this.#join.focus({ preventScroll: true });
  }

  destroy() {
    cancelAnimationFrame(this.#frame);
    this.#pickers.destroy();
    this.#preview.close();
  }

  #previewColumn() {
    return h(
      'section',
      { class: 'lobby-preview', 'aria-label': 'Camera and microphone' },
      h('div', { class: 'preview' }, h('div', { class: 'avatar', 'data-hue': 0, 'aria-hidden': 'true' }, this.#initials, this.#nobody), this.#video, this.#status, h('div', { class: 'preview-controls' }, this.#microphone.element, this.#camera.element)),
      h('div', { class: 'meter-row' }, icon('mic'), this.#meter, this.#meterText),
      this.#problems,
      this.#pickers.element,
    );
  }

  /** @param {import('./access.js').Access} access */
  #form(access) {
    return h(
      'form',
      {
        class: 'lobby-form',
        novalidate: true,
        onsubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          this.#submit();
        },
      },
      h('h1', {}, 'Ready to join?'),
      access.kind === 'invitation' ? h('p', { class: 'lobby-lead' }, access.room ? `You are invited to ${access.room}.` : 'You are invited to a call.') : h('p', { class: 'lobby-lead' }, 'Check how you look and sound, then step in.'),
      h('div', { class: 'field' }, h('label', { for: 'name' }, 'Your name'), this.#name, h('p', { class: 'field-hint', id: 'name-hint', hidden: access.canRename }, 'Your invitation sets your name.'), this.#error),
      access.kind === 'invitation' ? null : h('div', { class: 'field' }, h('label', { for: 'room' }, 'Room'), this.#room),
      access.foreignHost ? h('p', { class: 'lobby-host' }, icon('info'), `This call is hosted by ${access.foreignHost}.`) : null,
      this.#join,
    );
  }

  #submit() {
    const name = this.#name.value.trim();
    const room = this.#room.value.trim() || this.#room.defaultValue;
    this.#fail(name ? '' : 'Tell the others your name first.');
    if (!name) {
      this.#name.focus();
      return;
    }
    if (!this.#name.readOnly) remember(lasting, 'name', name);
    const { microphone, camera } = this.#preview.wanted;
    this.#onJoin({ name, room, microphone, camera, tracks: this.#preview.take() });
  }

  /** @param {string} message */
  #fail(message) {
    setText(this.#error, message);
    this.#error.hidden = message === '';
    setAttribute(this.#name, 'aria-invalid', message ? 'true' : false);
  }

  #draw() {
    const { camera, microphone, wanted, problems } = this.#preview;
    if (this.#name.value.trim()) this.#fail('');
    if (camera !== this.#shown) {
      this.#shown?.detach(this.#video);
      this.#shown = camera;
      camera?.attach(this.#video);
      void this.#pickers?.refresh();
    }
    setAttribute(this.#video, 'hidden', camera === null);
    const named = this.#name.value.trim() !== '';
    setText(this.#initials, named ? initialsOf(this.#name.value) : '');
    this.#nobody.toggleAttribute('hidden', named);
    setText(this.#status, camera ? '' : wanted.camera ? 'Starting your camera…' : 'Your camera is off');
    this.#microphone.show(wanted.microphone, problems.microphone !== undefined);
    this.#camera.show(wanted.camera, problems.camera !== undefined);
    const shown = new Map(Object.values(problems).map((problem) => [problem.title, problem]));
    this.#problems.replaceChildren(...Array.from(shown.values(), (problem) => h('div', { class: 'problem' }, icon('alert'), h('div', {}, h('strong', {}, problem.title), h('p', {}, problem.text)))));
    if (microphone === null) {
      this.#heard = false;
      setText(this.#meterText, wanted.microphone && !problems.microphone ? 'Starting your microphone…' : 'Your microphone is off');
    }
  }

  /** Moves the meter; the words beside it change only once, so they do not flicker. */
  #tick() {
    const level = this.#preview.level();
    const lit = Math.round(level * METER_STEPS);
    for (const [index, step] of [...this.#meter.children].entries()) step.toggleAttribute('data-lit', index < lit);
    if (level > HEARD_LEVEL) this.#heard = true;
    if (this.#preview.microphone) setText(this.#meterText, this.#heard ? 'Your microphone works' : 'Say something to test it');
    this.#frame = requestAnimationFrame(() => this.#tick());
  }
}

/**
 * @param {'microphone' | 'camera'} source
 * @param {(on: boolean) => void} onToggle
 */
function deviceToggle(source, onToggle) {
  const names = source === 'microphone' ? /** @type {const} */ (['mic', 'mic-off']) : /** @type {const} */ (['camera', 'camera-off']);
  const element = h('button', {
    type: 'button', class: 'control', 'data-testid': source === 'microphone' ? 'lobby-mic-toggle' : 'lobby-camera-toggle',
    onclick: () => onToggle(element.getAttribute('aria-pressed') !== 'true'),
  });
  return {
    element,
    /** @param {boolean} on @param {boolean} failed */
    show(on, failed) {
      setIcon(element, names[on ? 0 : 1]);
      setAttribute(element, 'aria-pressed', String(on));
      setAttribute(element, 'aria-label', source === 'microphone' ? 'Join with microphone' : 'Join with camera');
      setAttribute(element, 'data-tip', failed ? 'Try again' : on ? `Turn ${source} off` : `Turn ${source} on`);
      setAttribute(element, 'data-failed', failed);
    },
  };
}

/** @param {import('./session.js').LocalTrack | null} track */
function deviceOf(track) {
  return track?.mediaStreamTrack.getSettings().deviceId ?? '';
}

const METER_STEPS = 16;
const HEARD_LEVEL = 0.12;
