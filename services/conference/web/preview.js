// What the lobby captures: the tracks themselves go into the call at the join, so the camera does not blink and nobody
// is asked twice. Whoever does not take them must stop them.

import { captureProblem, environmentProblem, preferredDevice } from './devices.js';
import { LocalAudioTrack, LocalVideoTrack, createLocalTracks } from './vendor/livekit-client.esm.mjs';

/** @typedef {'microphone' | 'camera'} Source */

export class Preview {
  /** @type {LocalAudioTrack | null} */
  microphone = null;
  /** @type {LocalVideoTrack | null} */
  camera = null;
  /** Whether the person wants to join with each. */
  wanted = { microphone: true, camera: true };
  /** @type {Partial<Record<Source, import('./devices.js').Problem>>} */
  problems = {};
  #onChange;
  #closed = false;
  #meter = new LevelMeter();

  /** @param {() => void} onChange */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** Asks for everything in one prompt; where that fails, for each alone, since one missing device must not cost the other. */
  async start() {
    const problem = environmentProblem();
    if (problem) {
      this.problems = { microphone: problem, camera: problem };
      this.wanted = { microphone: false, camera: false };
      this.#onChange();
      return;
    }
    try {
      this.#accept(await createLocalTracks({ audio: this.#options('microphone'), video: this.#options('camera') }));
    } catch (error) {
      await this.set('microphone', true);
      await this.set('camera', true);
      const { microphone, camera } = this.problems;
      // One cause, one message.
      if (microphone && microphone.text === camera?.text) {
        const both = captureProblem(error, 'camera and microphone');
        this.problems = { microphone: both, camera: both };
      }
    }
    this.#onChange();
  }

  /**
   * @param {Source} source
   * @param {boolean} on
   */
  async set(source, on) {
    this.wanted[source] = on;
    delete this.problems[source];
    if (!on) {
      this.#drop(source);
      this.#onChange();
      return;
    }
    this.#onChange();
    if (this[source]) return;
    try {
      const options = this.#options(source);
      this.#accept(await createLocalTracks(source === 'microphone' ? { audio: options, video: false } : { audio: false, video: options }));
    } catch (error) {
      this.wanted[source] = false;
      this.problems[source] = captureProblem(error, source);
    }
    this.#onChange();
  }

  /**
   * @param {Source} source
   * @param {string} deviceId
   */
  async pick(source, deviceId) {
    try {
      if (this[source]) await this[source].setDeviceId({ exact: deviceId });
      if (source === 'microphone' && this.microphone) this.#meter.listen(this.microphone.mediaStreamTrack);
    } catch (error) {
      this.problems[source] = captureProblem(error, source);
    }
    this.#onChange();
  }

  /** How loud the microphone is now, 0 to 1. */
  level() {
    return this.microphone ? this.#meter.level() : 0;
  }

  /** Hands over the tracks the person wants to join with; the rest is stopped. */
  take() {
    const tracks = [this.wanted.microphone ? this.microphone : null, this.wanted.camera ? this.camera : null].filter((track) => track !== null);
    for (const track of tracks) track.detach();
    this.#closed = true;
    this.#meter.close();
    return tracks;
  }

  close() {
    this.#closed = true;
    this.#drop('microphone');
    this.#drop('camera');
    this.#meter.close();
  }

  /** @param {Source} source */
  #options(source) {
    const deviceId = preferredDevice(source === 'microphone' ? 'audioinput' : 'videoinput');
    return deviceId ? { deviceId: { ideal: deviceId } } : true;
  }

  /** @param {import('./vendor/livekit-client.esm.mjs').LocalTrack[]} tracks */
  #accept(tracks) {
    for (const track of tracks) {
      const source = track instanceof LocalAudioTrack ? 'microphone' : 'camera';
      // The person may have switched it off, or joined, while the browser was still asking.
      if (this.#closed || !this.wanted[source] || this[source]) {
        track.stop();
        continue;
      }
      if (track instanceof LocalAudioTrack) {
        this.microphone = track;
        this.#meter.listen(track.mediaStreamTrack);
      } else if (track instanceof LocalVideoTrack) this.camera = track;
    }
  }

  /** @param {Source} source */
  #drop(source) {
    this[source]?.detach();
    this[source]?.stop();
    this[source] = null;
  }
}

/** Root mean square of what a microphone delivers, scaled so that ordinary speech fills the meter. */
class LevelMeter {
  /** @type {AudioContext | null} */
  #context = null;
  /** @type {AnalyserNode | null} */
  #analyser = null;
  /** @type {MediaStreamAudioSourceNode | null} */
  #source = null;
  #samples = new Float32Array(512);

  /** @param {MediaStreamTrack} track */
  listen(track) {
    this.#context ??= new AudioContext();
    this.#analyser ??= new AnalyserNode(this.#context, { fftSize: this.#samples.length });
    this.#source?.disconnect();
    this.#source = this.#context.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(this.#analyser);
  }

  level() {
    // Browsers start the context only after a click or a key; trying again each time is free.
    if (this.#context?.state === 'suspended') void this.#context.resume().catch(() => {});
    if (!this.#analyser) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    const power = this.#samples.reduce((sum, sample) => sum + sample * sample, 0) / this.#samples.length;
    return Math.min(1, Math.sqrt(power) * SPEECH_GAIN);
  }

  close() {
    void this.#context?.close().catch(() => {});
    this.#context = null;
    this.#analyser = null;
  }
}

const SPEECH_GAIN = 6;
