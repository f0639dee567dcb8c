// One person of a call, driven from outside through `window.person`. Everything it returns is plain data.

import { ConnectionState, DisconnectReason, Room, RoomEvent, RpcError, Track, VideoQuality, setLogLevel } from '/livekit-client.mjs';

import { BoardWatch, boardSource } from './board.js';
import { shoot } from './film.js';
import { ToneMeter, toneSource } from './tone.js';

/** The sockets this page opened, so that a test can cut the one in use. */
const sockets = /** @type {WebSocket[]} */ ([]);
window.WebSocket = class extends window.WebSocket {
  /** @param {[string | URL, (string | string[])?]} args */
  constructor(...args) {
    super(...args);
    sockets.push(this);
  }
};

class Person {
  #room = new Room();
  /** What was published, by key: its source must be stopped by hand. */
  #sources = new Map();
  /** What arrives, by track sid. */
  #watches = new Map();
  /** Everything the client reported, in order. */
  #events = [];
  #received = [];
  /** Streams of data frames: our own by name, and those of others. */
  #dataTracks = new Map();
  #offeredData = [];
  #joinedWith = '';

  /**
   * Resolves when joined; a refusal comes back as data, because errors lose their fields on the way out.
   * @param {{ url: string, token: string, room?: import('livekit-client').RoomOptions, connect?: import('livekit-client').RoomConnectOptions }} options
   */
  async join({ url, token, room: roomOptions, connect }) {
    const room = new Room(roomOptions);
    this.#room = room;
    this.#joinedWith = token;
    for (const name of Object.values(RoomEvent)) room.on(name, (...args) => this.#record(name, args));
    room.on(RoomEvent.TrackSubscribed, (track, publication) => this.#watch(track, publication));
    room.on(RoomEvent.TrackUnsubscribed, (track, publication) => this.#unwatch(publication.trackSid, track));
    room.on(RoomEvent.DataReceived, (payload, from, kind, topic) => {
      this.#received.push({ form: 'packet', from: from?.identity, topic, reliable: kind === 0, text: decode(payload), size: payload.length });
    });
    room.on(RoomEvent.ChatMessage, (message, from) => {
      this.#received.push({ form: 'chat', from: from?.identity, text: message.message, id: message.id });
    });
    room.on(RoomEvent.DataTrackPublished, (track) => this.#offeredData.push(track));
    room.on(RoomEvent.DataTrackUnpublished, (sid) => (this.#offeredData = this.#offeredData.filter((track) => track.info.sid !== sid)));
    for (const topic of TOPICS) this.#listen(room, topic);
    try {
      await room.connect(url, token, connect);
      return { joined: true };
    } catch (error) {
      return { joined: false, ...describe(error) };
    }
  }

  leave() {
    return this.#room.disconnect();
  }

  /**
   * @param {{ person: number, width?: number, height?: number, fps?: number, noise?: number, key?: string, publish?: import('livekit-client').TrackPublishOptions }} options
   */
  async publishBoard({ key = 'camera', publish = {}, ...board }) {
    const source = boardSource(board);
    const options = { source: Track.Source.Camera, simulcast: false, degradationPreference: 'maintain-resolution', ...publish };
    return this.#publish(key, source, /** @type {any} */ (options));
  }

  /**
   * @param {{ frequency: number, gain?: number, key?: string, publish?: import('livekit-client').TrackPublishOptions }} options
   */
  async publishTone({ key = 'microphone', publish = {}, ...tone }) {
    return this.#publish(key, toneSource(tone), { source: Track.Source.Microphone, ...publish });
  }

  /**
   * A camera and a microphone of one clock, or the picture alone as a screen.
   * @param {Parameters<typeof shoot>[0] & { screen?: boolean, publish?: import('livekit-client').TrackPublishOptions }} options
   */
  async publishFilm({ screen = false, publish = {}, ...options }) {
    const { picture, sound } = await shoot(options);
    if (screen) return this.#publish('screen', picture, { source: Track.Source.ScreenShare, simulcast: false, ...publish });
    const outcome = await this.#publish('camera', picture, { source: Track.Source.Camera, simulcast: false, ...publish });
    return outcome.error ? outcome : this.#publish('microphone', sound, { source: Track.Source.Microphone });
  }

  /** Of a film, what was drawn and when. @param {string} key */
  filmed(key) {
    return this.#sources.get(key).source.drawn;
  }

  /** The browser's own made-up microphone. */
  async publishMicrophone({ key = 'microphone', publish = {} } = {}) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const [track] = stream.getAudioTracks();
    return this.#publish(key, { track, stop: () => track.stop() }, { source: Track.Source.Microphone, ...publish });
  }

  /** @param {string} key */
  async unpublish(key) {
    const { source, publication } = this.#sources.get(key);
    this.#sources.delete(key);
    await this.#room.localParticipant.unpublishTrack(publication.track);
    source.stop();
  }

  /** @param {string} key @param {boolean} muted */
  async setMuted(key, muted) {
    const { publication } = this.#sources.get(key);
    await (muted ? publication.mute() : publication.unmute());
  }

  /** @param {string} identity @param {string} key @param {'LOW' | 'MEDIUM' | 'HIGH'} quality */
  setQuality(identity, key, quality) {
    this.#publication(identity, key).setVideoQuality(VideoQuality[quality]);
  }

  /** @param {string} identity @param {string} key @param {boolean} on */
  setSubscribed(identity, key, on) {
    this.#publication(identity, key).setSubscribed(on);
  }

  /** @param {string} identity @param {string} key @param {boolean} on */
  setEnabled(identity, key, on) {
    this.#publication(identity, key).setEnabled(on);
  }

  /** Makes the element that shows a video another size; adaptive stream follows that. */
  resize(identity, key, width, height) {
    const { element } = this.#watches.get(this.#publication(identity, key).trackSid);
    Object.assign(element.style, { width: `${width}px`, height: `${height}px` });
  }

  /** The mean colour of a video's middle, for senders that film no board. @returns {number[] | undefined} */
  centreColour(identity, key) {
    const element = this.#watches.get(this.#publication(identity, key).trackSid)?.element;
    if (!element?.videoWidth) return undefined;
    const context = Object.assign(document.createElement('canvas'), { width: 8, height: 8 }).getContext('2d');
    context.drawImage(element, element.videoWidth / 4, element.videoHeight / 4, element.videoWidth / 2, element.videoHeight / 2, 0, 0, 8, 8);
    const { data } = context.getImageData(0, 0, 8, 8);
    return [0, 1, 2].map((part) => data.reduce((sum, value, index) => (index % 4 === part ? sum + value : sum), 0) / 64);
  }

  allowSubscribers(everybody, list) {
    this.#room.localParticipant.setTrackSubscriptionPermissions(everybody, list);
  }

  /** Begins all readings anew. */
  mark() {
    for (const { meter } of this.#watches.values()) meter.mark?.();
  }

  /** @param {{ text: string, reliable?: boolean, topic?: string, to?: string[], repeat?: number }} options */
  async sendData({ text, reliable = true, topic, to, repeat = 1 }) {
    const payload = new TextEncoder().encode(text.repeat(repeat));
    await this.#room.localParticipant.publishData(payload, { reliable, topic, destinationIdentities: to });
  }

  /** @param {{ text: string, topic: string, to?: string[], attributes?: Record<string, string>, repeat?: number }} options */
  async sendText({ text, topic, to, attributes, repeat = 1 }) {
    await this.#room.localParticipant.sendText(text.repeat(repeat), { topic, destinationIdentities: to, attributes });
  }

  /** A byte stream of `size` bytes, each its index modulo 251, as a file. */
  async sendBytes({ size, topic, name = 'bytes.bin', to }) {
    const bytes = Uint8Array.from({ length: size }, (_, index) => index % 251);
    await this.#room.localParticipant.sendFile(new File([bytes], name), { topic, destinationIdentities: to });
  }

  async sendChat(text) {
    return (await this.#room.localParticipant.sendChatMessage(text)).id;
  }

  /** Answers `method` by turning the payload round, or by refusing when the payload is `refuse`. */
  serveRpc(method) {
    this.#room.registerRpcMethod(method, async ({ payload, callerIdentity }) => {
      if (payload === 'refuse') throw new RpcError(42, 'refused', `by request of ${callerIdentity}`);
      if (payload === 'break') throw new Error('broken');
      return [...payload].reverse().join('');
    });
  }

  async callRpc(destinationIdentity, method, payload) {
    try {
      return { answer: await this.#room.localParticipant.performRpc({ destinationIdentity, method, payload }) };
    } catch (error) {
      return { error: describe(error) };
    }
  }

  /** Publishes a stream of data frames; its frames are pushed by its name. */
  async publishData(name) {
    try {
      this.#dataTracks.set(name, await this.#room.localParticipant.publishDataTrack({ name }));
      return { published: true };
    } catch (error) {
      return { published: false, ...describe(error) };
    }
  }

  unpublishData(name) {
    return this.#dataTracks.get(name).unpublish();
  }

  /** Pushes a frame of so many bytes, each its number modulo 251. */
  async pushFrame(name, number, size) {
    await this.#dataTracks.get(name).tryPush({ payload: new Uint8Array(size).fill(number % 251) });
  }

  /** Takes somebody's stream; its frames are received as `{ form: 'frame', from, name, number, size, whole }`. */
  async takeData(identity, name) {
    const offered = () => this.#offeredData.findLast((track) => track.publisherIdentity === identity && track.info.name === name);
    // One that ended is offered no more.
    while (!offered()) await new Promise((resolve) => setTimeout(resolve, 20));
    const reader = offered().subscribe().getReader();
    const read = async () => {
      for (let frame = await reader.read(); !frame.done; frame = await reader.read()) {
        const bytes = frame.value.payload;
        this.#received.push({ form: 'frame', from: identity, name, number: bytes[0], size: bytes.length, whole: bytes.every((byte) => byte === bytes[0]) });
      }
      this.#received.push({ form: 'end', from: identity, name });
    };
    read().catch((error) => this.#received.push({ form: 'error', from: identity, name, text: String(error) }));
  }

  async rename(change) {
    const me = this.#room.localParticipant;
    try {
      if (change.name !== undefined) await me.setName(change.name);
      if (change.metadata !== undefined) await me.setMetadata(change.metadata);
      if (change.attributes !== undefined) await me.setAttributes(change.attributes);
      return { changed: true };
    } catch (error) {
      return { changed: false, ...describe(error) };
    }
  }

  /** @param {import('livekit-client').SimulationScenario} scenario @param {unknown} [argument] */
  simulate(scenario, argument) {
    return this.#room.simulateScenario(scenario, argument);
  }

  /** Closes the signalling socket as a lost network would notice it: without a word from the SDK. */
  cutSignal() {
    for (const socket of sockets.splice(0)) socket.close();
  }

  /** The transports of this page: `udp` or `tcp`, as their selected candidate pairs say. */
  async transports() {
    return (await this.#selected()).map((candidate) => candidate.protocol);
  }

  /** `host`, `prflx` or `relay`, for each transport. */
  async candidateTypes() {
    return (await this.#selected()).map((candidate) => candidate.candidateType);
  }

  /** The local port of each transport. */
  async ports() {
    return (await this.#selected()).map((candidate) => candidate.port);
  }

  /** The formats of the first audio section that the server described for a transport. @param {'publisher' | 'subscriber'} which */
  agreedAudio(which) {
    const { pcManager } = /** @type {any} */ (this.#room).engine;
    const section = pcManager[which]._pc.remoteDescription.sdp.split('\r\nm=').find((text) => text.startsWith('audio'));
    const numbers = section.split('\r\n')[0].split(' ').slice(3);
    return numbers.map((number) => section.match(new RegExp(`a=rtpmap:${number} (\\S+)`))?.[1]);
  }

  async #selected() {
    const { pcManager } = /** @type {any} */ (this.#room).engine;
    const transports = [pcManager.publisher, pcManager.subscriber].filter(Boolean);
    const found = [];
    for (const transport of transports) {
      const stats = await transport.getStats();
      const byId = new Map([...stats.values()].map((one) => [one.id, one]));
      for (const one of byId.values()) {
        if (one.type !== 'transport' || !one.selectedCandidatePairId) continue;
        found.push(byId.get(byId.get(one.selectedCandidatePairId).localCandidateId));
      }
    }
    return found;
  }

  /** How many streams bring packets, also while the client does not show them yet. */
  async streams() {
    const { pcManager } = /** @type {any} */ (this.#room).engine;
    const stats = await (pcManager.subscriber ?? pcManager.publisher).getStats();
    return [...stats.values()].filter(({ type, packetsReceived }) => type === 'inbound-rtp' && packetsReceived > 0).length;
  }

  /** The token the client would reconnect with, once the server has sent one. */
  freshToken() {
    const { token } = /** @type {any} */ (this.#room).engine;
    return token === this.#joinedWith ? undefined : token;
  }

  /** Which encodings of what is published here are being sent, low to high. @param {string} key @returns {boolean[]} */
  encodings(key) {
    return this.#sources.get(key).publication.track.sender.getParameters().encodings.map((encoding) => encoding.active);
  }

  /** @param {string} identity @param {string} key */
  async receiverStats(identity, key) {
    const { track } = this.#publication(identity, key);
    const stats = await track?.receiver?.getStats();
    const inbound = [...(stats?.values() ?? [])].find((one) => one.type === 'inbound-rtp');
    const { framesDecoded, freezeCount, packetsLost, packetsReceived, bytesReceived, totalFreezesDuration, pliCount, nackCount } = inbound ?? {};
    const { totalAudioEnergy, concealedSamples, totalSamplesReceived } = inbound ?? {};
    const codec = stats?.get(inbound?.codecId)?.mimeType;
    const video = { framesDecoded, freezeCount, totalFreezesDuration, pliCount };
    const audio = { totalAudioEnergy, concealedSamples, totalSamplesReceived };
    return { codec, packetsLost, packetsReceived, bytesReceived, nackCount, ...video, ...audio };
  }

  /** What is sent of a track, by encoding, low to high: payload bytes so far, bits per second aimed at, height of the picture. */
  async senderStats(key) {
    const stats = await this.#sources.get(key).publication.track.sender.getStats();
    const outbound = [...stats.values()].filter(({ type }) => type === 'outbound-rtp');
    outbound.sort((a, b) => RIDS.indexOf(a.rid) - RIDS.indexOf(b.rid));
    return outbound.map(({ bytesSent, targetBitrate, frameHeight, qualityLimitationReason }) => ({ bytesSent, targetBitrate, frameHeight, qualityLimitationReason }));
  }

  /** Events since the beginning, or only those of some names. */
  events(...names) {
    return names.length > 0 ? this.#events.filter((event) => names.includes(event.name)) : this.#events;
  }

  received() {
    return this.#received;
  }

  /** All there is to know at this moment. */
  snapshot() {
    const room = this.#room;
    const me = room.localParticipant;
    return {
      state: room.state,
      connected: room.state === ConnectionState.Connected,
      room: { name: room.name, metadata: room.metadata, recording: room.isRecording, participants: room.numParticipants },
      me: { ...this.#card(me), permissions: me.permissions && plain(me.permissions) },
      people: Object.fromEntries([...room.remoteParticipants.values()].map((one) => [one.identity, this.#card(one)])),
      speakers: room.activeSpeakers.map((one) => one.identity),
    };
  }

  #card(participant) {
    const tracks = [...participant.trackPublications.values()].map((one) => [keyOf(one), this.#trackCard(one)]);
    return {
      identity: participant.identity,
      sid: participant.sid,
      name: participant.name,
      metadata: participant.metadata,
      attributes: { ...participant.attributes },
      quality: participant.connectionQuality,
      speaking: participant.isSpeaking,
      tracks: Object.fromEntries(tracks),
    };
  }

  #trackCard(publication) {
    const watch = this.#watches.get(publication.trackSid);
    return {
      sid: publication.trackSid,
      kind: publication.kind,
      muted: publication.isMuted,
      subscribed: publication.isSubscribed,
      permission: publication.permissionStatus,
      simulcasted: publication.simulcasted,
      reading: watch?.meter.read(),
    };
  }

  async #publish(key, source, options) {
    try {
      const publication = await this.#room.localParticipant.publishTrack(source.track, options);
      this.#sources.set(key, { source, publication });
      return { sid: publication.trackSid };
    } catch (error) {
      source.stop();
      return { error: describe(error) };
    }
  }

  #publication(identity, key) {
    const participant = this.#room.getParticipantByIdentity(identity);
    const found = [...(participant?.trackPublications.values() ?? [])].find((one) => keyOf(one) === key);
    if (!found) throw new Error(`${identity} has no track ${key} here`);
    return /** @type {any} */ (found);
  }

  #watch(track, publication) {
    this.#unwatch(publication.trackSid);
    if (track.kind === Track.Kind.Audio) {
      this.#watches.set(publication.trackSid, { meter: new ToneMeter(track.mediaStreamTrack) });
      return;
    }
    const element = /** @type {HTMLVideoElement} */ (track.attach());
    Object.assign(element.style, { width: '320px', height: '180px' });
    document.body.append(element);
    this.#watches.set(publication.trackSid, { meter: new BoardWatch(element), element });
  }

  #unwatch(sid, track) {
    const watch = this.#watches.get(sid);
    if (!watch) return;
    this.#watches.delete(sid);
    watch.meter.stop();
    track?.detach();
    watch.element?.remove();
  }

  #listen(room, topic) {
    room.registerTextStreamHandler(topic, async (reader, { identity }) => {
      const text = await reader.readAll().catch(describe);
      this.#received.push({ form: 'text', from: identity, topic, text, size: text.length, attributes: reader.info.attributes });
    });
    room.registerByteStreamHandler(topic, async (reader, { identity }) => {
      const chunks = await reader.readAll().catch(() => []);
      let size = 0;
      let intact = true;
      for (const chunk of chunks) for (const byte of chunk) intact &&= byte === size++ % 251;
      this.#received.push({ form: 'bytes', from: identity, topic, name: reader.info.name, size, intact });
    });
  }

  #record(name, args) {
    if (NOISE.has(name)) return;
    this.#events.push({ name, at: Math.round(performance.now()), detail: args.map(brief), reason: name === RoomEvent.Disconnected ? DisconnectReason[args[0]] : undefined });
  }
}

/** What a track is called in tests: the name it was published under, else its source. */
function keyOf(publication) {
  return publication.trackName || publication.source;
}

function brief(value) {
  if (value instanceof Error) return value.message;
  if (value instanceof Uint8Array) return decode(value).slice(0, 80);
  if (Array.isArray(value)) return value.map(brief);
  if (value?.identity !== undefined) return value.identity;
  if (value?.trackSid !== undefined) return keyOf(value);
  if (value === null || typeof value !== 'object') return typeof value === 'bigint' ? Number(value) : value;
  return value.constructor === Object ? plain(value) : value.constructor?.name;
}

function describe(error) {
  const { name, message, code, status, reason, reasonName, data } = error ?? {};
  return { name, message: String(message), code, status, reason, reasonName, data };
}

function plain(value) {
  return JSON.parse(JSON.stringify(value, (_, one) => (typeof one === 'bigint' ? Number(one) : one)));
}

function decode(bytes) {
  return new TextDecoder().decode(bytes);
}

/** As the SDK calls simulcast layers, low to high. */
const RIDS = ['q', 'h', 'f'];
const TOPICS = ['notes', 'files', 'lk.chat'];
const NOISE = new Set([RoomEvent.DCBufferStatusChanged, RoomEvent.AudioPlaybackStatusChanged, RoomEvent.VideoPlaybackStatusChanged]);

setLogLevel('warn');
Object.assign(window, { person: new Person() });
