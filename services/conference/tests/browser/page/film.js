// Somebody on film, to be found again in a recording: before a wall of their own colour a board with the time of day, and every
// two seconds a clap: the wall turns white for a fifth of a second while a beep is heard. What a source does not keep, no
// recording can: so it notes when each picture was drawn and its sound made.

import { drawBoard } from './board.js';
import { BOARD, CLAP_BEATS, CLAP_EVERY, TICK_MS } from './slate.js';

/**
 * @param {object} options
 * @param {number} options.person of the board, 1 to 14
 * @param {string} options.colour of the wall
 * @param {number} options.began the time of day at which the board shows zero, in ms since 1970
 * @param {number} [options.tone] in Hz, always there
 * @param {number} [options.beep] in Hz, at each clap
 * @param {number} [options.width]
 * @param {number} [options.height]
 */
export async function shoot({ person, colour, began, tone = 0, beep = 0, width = 320, height = 180 }) {
  // Sound comes in blocks of 10 ms; with another hint they are longer, and so is what it may be off by.
  const context = new AudioContext({ sampleRate: 48_000, latencyHint: 'interactive' });
  await context.audioWorklet.addModule('/page/clapper.js');
  const clapper = new AudioWorkletNode(context, 'clapper', { numberOfInputs: 0, outputChannelCount: [1], processorOptions: { tone, beep } });
  const microphone = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  clapper.connect(microphone);

  const canvas = (size) => Object.assign(document.createElement('canvas'), size).getContext('2d', { alpha: false });
  const film = canvas({ width, height });
  const board = canvas({ width: Math.round(width * BOARD.width), height: Math.round(height * BOARD.height) });
  const [track] = film.canvas.captureStream(0).getVideoTracks();
  /** @type {{ number: number, drawn: number, made: number, isClap: boolean }[]} */
  const drawn = [];
  clapper.port.onmessage = ({ data: { beat, made } }) => {
    const number = Math.floor((Date.now() - began) / TICK_MS);
    film.fillStyle = beat % CLAP_EVERY < CLAP_BEATS ? '#fff' : colour;
    film.fillRect(0, 0, width, height);
    drawBoard(board, person, number);
    film.drawImage(board.canvas, Math.round(width * BOARD.x), Math.round(height * BOARD.y));
    track.requestFrame();
    drawn.push({ number, drawn: Date.now(), made, isClap: beat % CLAP_EVERY === 0 });
  };
  const picture = { track, drawn, stop: () => track.stop() };
  return { picture, sound: { track: microphone.stream.getAudioTracks()[0], stop: () => context.close() } };
}
