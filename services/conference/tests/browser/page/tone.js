// Sound that says whose it is: every publisher hums a frequency of its own, and a receiver's spectrum names it.

/** One context per page: each costs a thread. */
const context = new AudioContext({ sampleRate: 48_000, latencyHint: 'playback' });

/**
 * A microphone that hears one steady tone.
 * @param {{ frequency: number, gain?: number }} options
 */
export function toneSource({ frequency, gain = 0.25 }) {
  const oscillator = new OscillatorNode(context, { frequency });
  const volume = new GainNode(context, { gain });
  const destination = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  oscillator.connect(volume).connect(destination);
  oscillator.start();
  return {
    track: destination.stream.getAudioTracks()[0],
    stop() {
      oscillator.stop();
      volume.disconnect();
    },
  };
}

/** The loudest frequency of a track. */
export class ToneMeter {
  #analyser = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
  #element = new Audio();
  #source;

  /** @param {MediaStreamTrack} track */
  constructor(track) {
    const stream = new MediaStream([track]);
    // Chromium feeds a remote track into Web Audio only while an element plays it.
    this.#element.muted = true;
    this.#element.srcObject = stream;
    this.#element.play().catch(() => {});
    this.#source = context.createMediaStreamSource(stream);
    this.#source.connect(this.#analyser);
  }

  /** @returns {{ frequency: number, level: number }} in Hz, and in dB below a full-scale sine */
  read() {
    const bins = new Float32Array(this.#analyser.frequencyBinCount);
    this.#analyser.getFloatFrequencyData(bins);
    let peak = 1;
    for (let bin = 2; bin < bins.length - 1; bin += 1) if (bins[bin] > bins[peak]) peak = bin;
    const level = bins[peak];
    if (!Number.isFinite(level)) return { frequency: 0, level: -200 };
    // A parabola through the three highest bins finds the tone between them.
    const [left, right] = [bins[peak - 1], bins[peak + 1]];
    const shift = (left - right) / (2 * (left - 2 * level + right)) || 0;
    const width = context.sampleRate / this.#analyser.fftSize;
    return { frequency: (peak + shift) * width, level };
  }

  stop() {
    this.#source.disconnect();
    this.#element.srcObject = null;
  }
}
