// The call screen: puts stage, controls and panels together and keeps them in step with the session.

import { inviteLink } from './access.js';
import { ChatPanel } from './chat.js';
import { listenForShortcuts, openHelp, openSettings } from './dialogs.js';
import { h, setAttribute, setText } from './dom.js';
import { icon, mark } from './icons.js';
import { announce, toast } from './notices.js';
import { PeoplePanel } from './people.js';
import { Stage } from './stage.js';
import { Toolbar } from './toolbar.js';

/** @typedef {import('./person.js').Person} Person */

export class CallView {
  #session;
  #access;
  /** @type {'chat' | 'people' | null} */
  #panel = null;
  #busy = new Set();
  /** @type {Person[]} */
  #people = [];
  /** @type {Map<string, string> | null} who was here at the last drawing, by identity; null before the first */
  #known = null;
  #startedAt = Date.now();
  #clock = h('span', { class: 'clock', 'aria-label': 'Time in the call' });
  #recording = h('span', { class: 'recording', role: 'status', 'data-testid': 'recording' });
  /** Whether everybody was told that the call is recorded. */
  #toldRecording = false;
  #alone = h('div', { class: 'alone', hidden: true });
  #reconnecting = banner('reconnecting-banner', 'offline', 'Connection lost. Reconnecting…');
  #sound = banner('audio-banner', 'volume', 'Your browser is holding back the sound.', ['Click to hear', () => void this.#session.startAudio()]);
  #sharing = banner('sharing-banner', 'screen', 'Everyone can see your screen.', ['Stop sharing', () => this.#share()]);
  #stage = new Stage(() => this.#drawToolbar());
  #chat;
  #peoplePanel;
  #toolbar;
  #stopKeys;
  #timer;

  /**
   * @param {import('./session.js').Session} session
   * @param {import('./access.js').Access} access
   */
  constructor(session, access) {
    this.#session = session;
    this.#access = access;
    const invite = inviteLink(access) ? () => void this.#invite() : null;
    this.#chat = new ChatPanel({ send: (text) => session.sendChat(text), onUnread: () => this.#drawToolbar(), onClose: () => this.#show(null) });
    this.#peoplePanel = new PeoplePanel({ onClose: () => this.#show(null), onInvite: invite });
    const actions = {
      microphone: () => this.#toggle('microphone', () => session.setMicrophone(this.#me?.muted ?? true)),
      camera: () => this.#toggle('camera', () => session.setCamera(!this.#me?.cameraOn)),
      share: () => this.#share(),
      layout: () => this.#stage.toggleMode(),
      record: session.mayRecord ? () => this.#toggle('record', () => session.setRecording(!session.recording)) : null,
      chat: () => this.#show(this.#panel === 'chat' ? null : 'chat'),
      people: () => this.#show(this.#panel === 'people' ? null : 'people'),
      settings: () => openSettings({ active: (kind) => session.activeDevice(kind), pick: (kind, id) => session.pickDevice(kind, id) }),
      help: openHelp,
      invite,
      leave: () => void session.leave(),
    };
    this.#toolbar = new Toolbar(actions);
    this.#stopKeys = listenForShortcuts(
      { m: actions.microphone, v: actions.camera, s: actions.share, c: actions.chat, p: actions.people, l: actions.layout, '?': actions.help },
      () => {
        if (!this.#toolbar.dismiss() && this.#panel) this.#show(null);
      },
    );
    this.#alone.append(h('p', {}, 'You are the only one here.'), ...(invite ? [h('button', { type: 'button', class: 'button', onclick: invite }, icon('link'), 'Copy invite link')] : []));
    this.element = h(
      'div',
      { class: 'call' },
      h('header', { class: 'topbar' }, mark(), h('h1', {}, access.room || 'Call'), this.#recording, this.#clock),
      h(
        'main',
        { class: 'call-main' },
        h('div', { class: 'call-stage' }, h('div', { class: 'banners', role: 'status' }, this.#reconnecting, this.#sound, this.#sharing), this.#stage.element, this.#alone),
        this.#chat.element,
        this.#peoplePanel.element,
      ),
      this.#toolbar.element,
    );
    this.#timer = setInterval(() => this.#tick(), 1000);
    this.#tick();
  }

  /** Draws the session as it is now. */
  update() {
    const session = this.#session;
    this.#people = session.people();
    this.#stage.update(this.#people);
    this.#peoplePanel.update(this.#people);
    this.#chat.setAllowed(session.permissions.chat);
    this.#reconnecting.hidden = !session.reconnecting;
    setAttribute(this.element, 'data-reconnecting', session.reconnecting);
    this.#sound.hidden = session.canHear;
    this.#sharing.hidden = !this.#me?.sharing;
    this.#tellRecording();
    this.#alone.hidden = this.#people.length !== 1 || session.reconnecting;
    this.#tellComings();
    this.#drawToolbar();
  }

  /** @param {import('./session.js').ChatLine} line */
  addChat(line) {
    this.#chat.add(line);
    if (!line.own && this.#panel !== 'chat') toast(`${line.name}: ${line.text.slice(0, PEEK_MAX)}`, { icon: 'chat', silent: true });
  }

  destroy() {
    clearInterval(this.#timer);
    this.#stopKeys();
    this.#toolbar.destroy();
    this.#stage.destroy();
    for (const dialog of document.querySelectorAll('dialog[open]')) dialog.remove();
    document.title = 'Plenary';
  }

  get #me() {
    return this.#people.find((person) => person.isLocal);
  }

  #share() {
    this.#toggle('share', () => this.#session.setScreen(!this.#me?.sharing));
  }

  /**
   * Runs a switch once at a time: a second press while the first is under way would only undo it.
   * @param {string} name
   * @param {() => Promise<void>} action
   */
  #toggle(name, action) {
    if (this.#busy.has(name) || (name !== 'record' && !this.#session.permissions.publish)) return;
    this.#busy.add(name);
    this.#drawToolbar();
    void action().finally(() => {
      this.#busy.delete(name);
      this.#drawToolbar();
    });
  }

  /** @param {'chat' | 'people' | null} panel */
  #show(panel) {
    const before = this.#panel;
    this.#panel = panel;
    this.#chat.element.hidden = panel !== 'chat';
    this.#peoplePanel.element.hidden = panel !== 'people';
    setAttribute(this.element, 'data-panel', panel);
    if (panel === 'chat') this.#chat.opened();
    else if (panel === 'people') this.#peoplePanel.element.querySelector('button')?.focus();
    else if (before) this.#toolbar.focus(before);
    this.#drawToolbar();
  }

  async #invite() {
    const link = inviteLink(this.#access);
    try {
      await navigator.clipboard.writeText(link);
      toast('Invite link copied.', { tone: 'good' });
    } catch {
      toast(`Copy this link: ${link}`, { icon: 'link' });
    }
  }

  /** Says who came and went; a reconnect moves nobody. */
  #tellComings() {
    const now = new Map(this.#people.filter((person) => !person.isLocal).map((person) => [person.identity, person.name]));
    const known = this.#known;
    if (this.#session.reconnecting && known) return;
    this.#known = now;
    if (known === null) {
      announce(now.size === 0 ? 'You joined. You are the only one here.' : `You joined. ${now.size} other${now.size === 1 ? ' is' : 's are'} here.`);
      return;
    }
    tell([...now].filter(([identity]) => !known.has(identity)).map(([, name]) => name), 'joined');
    tell([...known].filter(([identity]) => !now.has(identity)).map(([, name]) => name), 'left');
  }

  /** The mark is a live region of its own, so the first notice is for eyes only. While reconnecting nobody knows. */
  #tellRecording() {
    const on = this.#session.recording;
    if (on === this.#toldRecording || this.#session.reconnecting) return;
    this.#toldRecording = on;
    this.#recording.replaceChildren(...(on ? ['Recording', h('span', { class: 'visually-hidden' }, ' is on: this call is being recorded')] : []));
    if (on) toast('This call is being recorded.', { icon: 'record', silent: true });
    else toast('The recording has ended.', { icon: 'record' });
  }

  #drawToolbar() {
    const me = this.#me;
    if (!me) return;
    const unread = this.#chat.unread;
    this.#toolbar.update({
      microphone: !me.muted,
      camera: me.cameraOn,
      sharing: me.sharing,
      mayPublish: this.#session.permissions.publish,
      busy: this.#busy,
      layout: this.#stage.mode,
      recording: this.#session.recording,
      panel: this.#panel,
      unread,
      people: this.#people.length,
    });
    document.title = `${unread ? `(${unread}) ` : ''}${this.#access.room || 'Call'} – Plenary`;
  }

  #tick() {
    const seconds = Math.floor((Date.now() - this.#startedAt) / 1000);
    const pad = (/** @type {number} */ value) => String(value).padStart(2, '0');
    const hours = Math.floor(seconds / 3600);
    setText(this.#clock, `${hours ? `${hours}:` : ''}${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}`);
  }
}

/**
 * @param {string[]} names
 * @param {'joined' | 'left'} verb
 */
function tell(names, verb) {
  if (names.length === 0) return;
  toast(names.length > 2 ? `${names[0]} and ${names.length - 1} others ${verb}` : `${names.join(' and ')} ${verb}`, { icon: verb === 'joined' ? 'invite' : 'door' });
}

/**
 * @param {string} testid
 * @param {import('./icons.js').IconName} name
 * @param {string} text
 * @param {[label: string, action: () => void]} [button]
 */
function banner(testid, name, text, button) {
  return h('div', { class: 'banner', 'data-testid': testid, hidden: true }, icon(name), h('span', {}, text), button ? h('button', { type: 'button', class: 'button', onclick: button[1] }, button[0]) : null);
}

const PEEK_MAX = 80;
