// The sound of a film, made on the audio thread: a quiet tone without end, and a loud beep at each clap. It gives the beat by
// which the picture is drawn, so that both go by the clock of the sound, and says when each beat was really made.

import { BEAT, CLAP_BEATS, CLAP_EVERY } from './slate.js';

class Clapper extends AudioWorkletProcessor {
  /** @param {{ processorOptions: { tone: number, beep: number } }} options */
  constructor({ processorOptions: { tone, beep } }) {
    super();
    this.tone = tone;
    this.beep = beep;
  }

  process(_, [[out]]) {
    if (currentFrame % BEAT === 0) this.port.postMessage({ beat: currentFrame / BEAT, made: Date.now() });
    for (let index = 0; index < out.length; index += 1) {
      const at = currentFrame + index;
      const sine = (frequency) => Math.sin((2 * Math.PI * frequency * at) / sampleRate);
      const into = at % (BEAT * CLAP_EVERY);
      const left = BEAT * CLAP_BEATS - into;
      const loud = Math.max(0, Math.min(1, into / RAMP, left / RAMP));
      out[index] = QUIET * sine(this.tone) + LOUD * loud * sine(this.beep);
    }
    return true;
  }
}

/** Against clicks, in samples. */
const RAMP = 96;
const QUIET = 0.04;
const LOUD = 0.3;

registerProcessor('clapper', Clapper);
