// One stay in a room: the connection, what is published, and the people in it as plain values the views can draw.
// Views never touch the room; they get `people()` whenever something changed, and ask for changes here.

import { AccessError } from './access.js';
import { captureProblem, preferredDevice } from './devices.js';
import { away, describe, displayName } from './person.js';
import { Recorder } from './recorder.js';
import { outcomeOfDisconnect } from './states.js';
import { ConnectionState, Room, RoomEvent, Track } from './vendor/livekit-client.esm.mjs';

/** @typedef {import('./vendor/livekit-client.esm.mjs').LocalTrack} LocalTrack */

/** @typedef {import('./person.js').Person} Person */

/** @typedef {{ id: string, from: string, name: string, own: boolean, at: Date, text: string }} ChatLine */

/**
 * @typedef {object} Hooks
 * @property {() => void} onChange something to draw changed; several changes make one call
 * @property {(state: 'connected' | 'reconnecting') => void} onState
 * @property {(outcome: import('./states.js').Outcome) => void} onEnd
 * @property {(line: ChatLine) => void} onChat
 * @property {(problem: import('./devices.js').Problem) => void} onProblem
 */

export class Session {
  #hooks;
  #scheduled = false;
  #joined = false;
  /** @type {Person[]} */
  #people = [];
  #room = new Room({
    adaptiveStream: true,
    dynacast: true,
    disconnectOnPageLeave: true,
    // The node speaks the mode with two connections first; asking for the other costs a refused round trip per join.
    singlePeerConnection: false,
    publishDefaults: { simulcast: true, videoCodec: 'vp8' },
    audioCaptureDefaults: wish('audioinput'),
    videoCaptureDefaults: wish('videoinput'),
    audioOutput: { deviceId: preferredDevice('audiooutput') || undefined },
    // A stranger's message must not grow without bound in this tab.
    dataStream: { maxPayloadByteLength: CHAT_BYTES_MAX },
  });
  #audio = document.createElement('div');
  /** @type {Recorder | null} */
  #recorder = null;

  /** @param {Hooks} hooks */
  constructor(hooks) {
    this.#hooks = hooks;
    this.#audio.hidden = true;
    document.body.append(this.#audio);
    this.#listen();
  }

  /**
   * Connects and publishes. Resolves when the person is in the room; devices may still be starting then.
   * @param {import('./access.js').Access} access
   * @param {{ name: string, microphone: boolean, camera: boolean, tracks: LocalTrack[] }} wants
   */
  async join(access, wants) {
    await this.#connect(access);
    this.#joined = true;
    // The page asks only the server it came from for more than a call.
    if (access.canRecord && !access.foreignHost) this.#recorder = new Recorder(access.room, () => this.#freshToken() || access.token);
    if (access.kind === 'invitation' && access.canRename && wants.name !== access.name) {
      void this.#room.localParticipant.setName(wants.name).catch(() => {});
    }
    void this.#publish(wants);
    this.#changed();
  }

  /**
   * Connects, with an end to it: against a host that answers 404 to every path the library would try for ever.
   * @param {import('./access.js').Access} access
   */
  async #connect(access) {
    let late = false;
    const deadline = setTimeout(() => {
      late = true;
      void this.#room.disconnect();
    }, JOIN_DEADLINE_MS);
    try {
      await this.#room.connect(access.url, access.token);
    } catch (error) {
      throw late ? new AccessError('unreachable') : error;
    } finally {
      clearTimeout(deadline);
    }
  }

  async leave() {
    await this.#room.disconnect();
  }

  /** Gives back everything the page holds for this session. */
  close() {
    this.#room.removeAllListeners();
    void this.#room.disconnect();
    this.#audio.remove();
  }

  /** @returns {Person[]} the person at this page first, then the others as they came */
  people() {
    const remote = [...this.#room.remoteParticipants.values()].sort((a, b) => (a.joinedAt?.getTime() ?? 0) - (b.joinedAt?.getTime() ?? 0));
    const people = [describe(this.#room.localParticipant, true), ...remote.map((participant) => describe(participant, false))];
    if (this.reconnecting) {
      // A full reconnect empties the room before it fills it again: keep everybody's place meanwhile.
      const here = new Set(people.map((person) => person.identity));
      for (const person of this.#people) {
        if (!person.isLocal && !here.has(person.identity)) people.push(away(person));
      }
    }
    this.#people = people;
    return people;
  }

  get reconnecting() {
    return this.#room.state === ConnectionState.Reconnecting || this.#room.state === ConnectionState.SignalReconnecting;
  }

  get recording() {
    return this.#room.isRecording;
  }

  get mayRecord() {
    return this.#recorder !== null;
  }

  /**
   * Resolves when the room says so, or will not.
   * @param {boolean} on
   */
  async setRecording(on) {
    try {
      await (on ? this.#recorder?.start() : this.#recorder?.stop());
      await this.#untilRecording(on);
    } catch (error) {
      const title = on ? 'The recording did not begin' : 'The recording was not stopped';
      this.#hooks.onProblem({ title, text: error instanceof Error ? error.message : '' });
    }
  }

  get canHear() {
    return this.#room.canPlaybackAudio;
  }

  get permissions() {
    const granted = this.#room.localParticipant.permissions;
    return { publish: granted?.canPublish ?? true, chat: granted?.canPublishData ?? true };
  }

  startAudio() {
    return this.#room.startAudio();
  }

  /** @param {boolean} on */
  setMicrophone(on) {
    return this.#guard('microphone', () => this.#room.localParticipant.setMicrophoneEnabled(on));
  }

  /** @param {boolean} on */
  setCamera(on) {
    return this.#guard('camera', () => this.#room.localParticipant.setCameraEnabled(on));
  }

  /** @param {boolean} on */
  setScreen(on) {
    return this.#guard('screen', () =>
      this.#room.localParticipant.setScreenShareEnabled(on, { audio: true, contentHint: 'detail', selfBrowserSurface: 'exclude', surfaceSwitching: 'include' }),
    );
  }

  /** @param {import('./devices.js').DeviceKind} kind */
  activeDevice(kind) {
    return this.#room.getActiveDevice(kind) ?? '';
  }

  /**
   * @param {import('./devices.js').DeviceKind} kind
   * @param {string} id
   */
  pickDevice(kind, id) {
    const what = kind === 'videoinput' ? 'camera' : 'microphone';
    return this.#guard(what, () => this.#room.switchActiveDevice(kind, id));
  }

  /** @param {string} text */
  async sendChat(text) {
    const info = await this.#room.localParticipant.sendText(text, { topic: CHAT_TOPIC });
    const me = this.#room.localParticipant;
    this.#hooks.onChat({ id: info.id, from: me.identity, name: displayName(me), own: true, at: new Date(), text });
  }

  /** @param {boolean} on */
  #untilRecording(on) {
    if (this.recording === on) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (/** @type {unknown} */ _) => {
        clearTimeout(patience);
        this.#room.off(RoomEvent.RecordingStatusChanged, done);
        resolve(undefined);
      };
      const patience = setTimeout(done, RECORDING_PATIENCE_MS);
      this.#room.on(RoomEvent.RecordingStatusChanged, done);
    });
  }

  /** The server sends a new one from time to time, and the library offers it to nobody. */
  #freshToken() {
    const { engine } = /** @type {any} */ (this.#room);
    return typeof engine?.token === 'string' ? engine.token : '';
  }

  /** @param {{ microphone: boolean, camera: boolean, tracks: LocalTrack[] }} wants */
  async #publish(wants) {
    if (!this.permissions.publish) {
      for (const track of wants.tracks) track.stop();
      return;
    }
    const me = this.#room.localParticipant;
    const ready = new Map(wants.tracks.filter((track) => track.mediaStreamTrack.readyState === 'live').map((track) => [track.source, track]));
    const microphone = ready.get(Track.Source.Microphone);
    const camera = ready.get(Track.Source.Camera);
    const publish = (/** @type {LocalTrack} */ track) =>
      me.publishTrack(track).catch((error) => {
        track.stop();
        throw error;
      });
    await Promise.all([
      wants.microphone && (microphone ? this.#guard('microphone', () => publish(microphone)) : this.setMicrophone(true)),
      wants.camera && (camera ? this.#guard('camera', () => publish(camera)) : this.setCamera(true)),
    ]);
  }

  /**
   * Runs something that may fail for reasons the person can mend, and tells them.
   * @param {'microphone' | 'camera' | 'screen'} what
   * @param {() => Promise<unknown>} action
   */
  async #guard(what, action) {
    try {
      await action();
    } catch (error) {
      // Closing the browser's screen picker is an answer, not a failure.
      const declined = what === 'screen' && error instanceof Error && error.name === 'NotAllowedError';
      if (this.#joined && !declined) this.#hooks.onProblem(captureProblem(error, what));
    }
    this.#changed();
  }

  #listen() {
    const room = this.#room;
    for (const event of DRAWN) room.on(event, () => this.#changed());
    room.on(RoomEvent.TrackSubscribed, (track) => {
      if (track.kind === Track.Kind.Audio) this.#audio.append(track.attach());
    });
    room.on(RoomEvent.TrackUnsubscribed, (track) => {
      if (track.kind === Track.Kind.Audio) for (const element of track.detach()) element.remove();
    });
    room.on(RoomEvent.SignalReconnecting, () => this.#hooks.onState('reconnecting'));
    room.on(RoomEvent.Reconnecting, () => this.#hooks.onState('reconnecting'));
    room.on(RoomEvent.Reconnected, () => this.#hooks.onState('connected'));
    room.on(RoomEvent.Disconnected, (reason) => {
      // While joining, `connect` itself rejects and knows more.
      if (this.#joined) this.#hooks.onEnd(outcomeOfDisconnect(reason));
    });
    room.registerTextStreamHandler(CHAT_TOPIC, async (reader, { identity }) => {
      const text = await reader.readAll().catch(() => '');
      if (!text.trim()) return;
      const own = identity === room.localParticipant.identity;
      const name = displayName(own ? room.localParticipant : room.remoteParticipants.get(identity), identity);
      this.#hooks.onChat({ id: reader.info.id, from: identity, name, own, at: plausible(reader.info.timestamp), text });
    });
  }

  #changed() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (this.#joined && this.#room.state !== ConnectionState.Disconnected) this.#hooks.onChange();
    });
  }
}

/**
 * The sender's clock where it can be believed.
 * @param {number} timestamp
 */
function plausible(timestamp) {
  const now = Date.now();
  return new Date(timestamp > now - DAY_MS && timestamp <= now ? timestamp : now);
}

/** @param {import('./devices.js').DeviceKind} kind */
function wish(kind) {
  const deviceId = preferredDevice(kind);
  return deviceId ? { deviceId: { ideal: deviceId } } : undefined;
}

const JOIN_DEADLINE_MS = 45_000;
const RECORDING_PATIENCE_MS = 5000;
const CHAT_TOPIC = 'lk.chat';
const CHAT_BYTES_MAX = 64 * 1024;
const DAY_MS = 86_400_000;

const DRAWN = /** @type {const} */ ([
  RoomEvent.ParticipantConnected, RoomEvent.ParticipantDisconnected, RoomEvent.ParticipantNameChanged, RoomEvent.ParticipantPermissionsChanged,
  RoomEvent.TrackPublished, RoomEvent.TrackUnpublished, RoomEvent.TrackSubscribed, RoomEvent.TrackUnsubscribed, RoomEvent.TrackMuted, RoomEvent.TrackUnmuted,
  RoomEvent.TrackStreamStateChanged, RoomEvent.LocalTrackPublished, RoomEvent.LocalTrackUnpublished, RoomEvent.ActiveSpeakersChanged,
  RoomEvent.ConnectionQualityChanged, RoomEvent.ConnectionStateChanged, RoomEvent.RecordingStatusChanged, RoomEvent.AudioPlaybackStatusChanged,
]);
