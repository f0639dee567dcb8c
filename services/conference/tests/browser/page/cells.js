// What the cells of a board say: sixteen of them a number, Gray coded, and four of them whose board it is.

export const COLUMNS = 5;
export const ROWS = 4;
export const NUMBERS = 1 << 16;

/** @param {number} person @param {number} number @returns {(column: number, row: number) => boolean} which cells are white */
export function cellsOf(person, number) {
  const gray = number ^ (number >> 1);
  return (column, row) => (((column < 4 ? gray >> (row * 4 + column) : person >> row) & 1) === 1);
}

/**
 * What a board says, or undefined if a cell is neither black nor white.
 * @param {(column: number, row: number) => number} brightness of a cell, 0 to 255
 * @returns {{ person: number, number: number } | undefined}
 */
export function readCells(brightness) {
  let gray = 0;
  let person = 0;
  for (let row = 0; row < ROWS; row += 1) {
    for (let column = 0; column < COLUMNS; column += 1) {
      const seen = brightness(column, row);
      if (seen > DARK && seen < BRIGHT) return undefined;
      const bit = seen >= BRIGHT ? 1 : 0;
      if (column < 4) gray |= bit << (row * 4 + column);
      else person |= bit << row;
    }
  }
  if (person === 0 || person === 15) return undefined;
  let number = gray;
  for (let shift = 1; shift < 16; shift *= 2) number ^= number >> shift;
  return { person, number };
}

const DARK = 96;
const BRIGHT = 160;
