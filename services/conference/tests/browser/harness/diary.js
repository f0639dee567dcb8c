// What a test did and when, and what its meeting was like at any moment by that.

export class Diary {
  /** @type {{ from: number, until: number, who: string, change: Record<string, boolean> }[]} */
  #changes = [];

  /** @param {string} who @param {Record<string, boolean>} change @param {() => Promise<unknown>} action */
  async does(who, change, action) {
    const from = Date.now();
    await action();
    this.#changes.push({ from, until: Date.now(), who, change });
  }

  /**
   * Everybody's state, or undefined while a change may or may not be seen yet.
   * @param {number} ms since 1970
   * @param {(who: string, change: Record<string, boolean>) => boolean} [concerns] changes that are looked at
   * @returns {Record<string, Record<string, boolean>> | undefined}
   */
  at(ms, concerns = () => true) {
    /** @type {Record<string, Record<string, boolean>>} */
    const state = {};
    for (const { from, until, who, change } of this.#changes) {
      if (!concerns(who, change) || ms < from - EARLY_MS) continue;
      if (ms < until + SETTLED_MS) return undefined;
      state[who] = { ...state[who], ...change };
    }
    return state;
  }
}

/** A picture is shown a little before its time, when it is the nearest one. */
export const EARLY_MS = 100;
/** By then a change has been made everywhere, and whoever was to be seen again is. */
export const SETTLED_MS = 1000;
