// What a film, its sound and whoever looks at them later have agreed on.

/** Samples: 15 beats a second, each of 25 blocks of the audio thread's 128. A picture is drawn at each beat. */
export const BEAT = 3200;
/**
 * Beats from one clap to the next, and for how many the wall is white and the beep heard. 16 are no whole number of pictures at
 * 25 a second, so claps come at different moments between two of these.
 */
export const CLAP_EVERY = 16;
export const CLAP_BEATS = 3;
/** Where the board hangs, in parts of the picture: above where names are written. */
export const BOARD = { x: 0.1, y: 0.06, width: 0.8, height: 0.76 };
/** What the board counts in. */
export const TICK_MS = 10;
