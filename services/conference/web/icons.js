// The page's icons, drawn on a 24 px grid with one stroke width, made as SVG elements so that no markup is parsed.

const NS = 'http://www.w3.org/2000/svg';

/**
 * @param {IconName} name
 * @param {string} [className]
 * @returns {SVGSVGElement}
 */
export function icon(name, className = '') {
  const svg = document.createElementNS(NS, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `icon icon-${name} ${className}`.trim());
  // Icons decorate: the element around them carries the words.
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('focusable', 'false');
  for (const [index, data] of SHAPES[name].entries()) {
    const path = document.createElementNS(NS, 'path');
    path.setAttribute('d', data);
    path.setAttribute('class', `p${index + 1}`);
    svg.append(path);
  }
  return svg;
}

/**
 * Replaces the icon inside an element when it differs from the one shown.
 * @param {Element} holder
 * @param {IconName} name
 */
export function setIcon(holder, name) {
  const current = holder.querySelector('svg.icon');
  if (current?.classList.contains(`icon-${name}`)) return;
  const next = icon(name);
  if (current) current.replaceWith(next);
  else holder.prepend(next);
}

/** @typedef {keyof typeof SHAPES} IconName */

/** @param {number} cx @param {number} cy @param {number} r */
const circle = (cx, cy, r) => `M${cx - r} ${cy}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
/** @param {number} x @param {number} y @param {number} w @param {number} h @param {number} r */
const box = (x, y, w, h, r) =>
  `M${x + r} ${y}h${w - 2 * r}a${r} ${r} 0 0 1 ${r} ${r}v${h - 2 * r}a${r} ${r} 0 0 1 ${-r} ${r}h${2 * r - w}a${r} ${r} 0 0 1 ${-r} ${-r}v${2 * r - h}a${r} ${r} 0 0 1 ${r} ${-r}z`;

const MIC = [box(9, 3, 6, 11, 3), 'M5.5 11.5a6.5 6.5 0 0 0 13 0', 'M12 18v3', 'M8.5 21h7'];
const CAMERA = [box(2.5, 6, 12.5, 12, 2.5), 'M15 10.8l6-3.3v9l-6-3.3z'];
const SLASH = 'M3.5 3.5l17 17';
const PERSON = [circle(9.5, 8, 3.6), 'M3 20c.5-3.8 3-6 6.5-6s6 2.2 6.5 6'];

const SHAPES = {
  mic: MIC,
  'mic-off': [...MIC, SLASH],
  camera: CAMERA,
  'camera-off': [...CAMERA, SLASH],
  screen: [box(2.5, 4, 19, 13, 2.2), 'M8.5 20.5h7', 'M12 13.6V7.8', 'M9.2 10.4L12 7.6l2.8 2.8'],
  'screen-stop': [box(2.5, 4, 19, 13, 2.2), 'M8.5 20.5h7', 'M9.8 8.2l4.4 4.6', 'M14.2 8.2l-4.4 4.6'],
  chat: ['M5.2 4.5h13.6a2.2 2.2 0 0 1 2.2 2.2v8.1a2.2 2.2 0 0 1-2.2 2.2H12l-5 4v-4H5.2A2.2 2.2 0 0 1 3 14.8V6.7a2.2 2.2 0 0 1 2.2-2.2z', 'M7.5 9h9', 'M7.5 12.6h5.5'],
  person: [circle(12, 8, 4), 'M4.5 20.5c.5-4.3 3.4-6.8 7.5-6.8s7 2.5 7.5 6.8'],
  people: [...PERSON, 'M16 4.7a3.5 3.5 0 0 1 0 6.7', 'M18.6 14.6c1.7.9 2.7 2.7 2.9 5.4'],
  invite: [...PERSON, 'M19 8v6', 'M16 11h6'],
  grid: [box(3, 4, 8, 7, 1.6), box(13, 4, 8, 7, 1.6), box(3, 13, 8, 7, 1.6), box(13, 13, 8, 7, 1.6)],
  speaker: [box(3, 4, 18, 10.5, 2), box(3, 17, 5, 3.5, 1), box(9.5, 17, 5, 3.5, 1), box(16, 17, 5, 3.5, 1)],
  play: ['M8 5.5l10.5 6.5L8 18.5z'],
  download: ['M12 4v10.5', 'M7.5 10.5L12 15l4.5-4.5', 'M5 19.5h14'],
  record: [circle(12, 12, 8.5), circle(12, 12, 3.6)],
  'record-stop': [circle(12, 12, 8.5), box(9, 9, 6, 6, 1.2)],
  settings: ['M3.5 7.5h8', 'M16.5 7.5h4', circle(14, 7.5, 2.4), 'M3.5 16.5h4', 'M12.5 16.5h8', circle(10, 16.5, 2.4)],
  keyboard: [box(2.5, 6, 19, 12, 2.2), 'M6.5 10h.01', 'M10.2 10h.01', 'M13.8 10h.01', 'M17.5 10h.01', 'M8 14.2h8'],
  leave: ['M2.8 14.6c5.1-5 13.3-5 18.4 0l-1.5 2.9a1.2 1.2 0 0 1-1.4.6l-3-1a1.2 1.2 0 0 1-.8-1.1v-2a13 13 0 0 0-5 0v2a1.2 1.2 0 0 1-.8 1.1l-3 1a1.2 1.2 0 0 1-1.4-.6z'],
  more: [circle(5.5, 12, 1.3), circle(12, 12, 1.3), circle(18.5, 12, 1.3)],
  close: ['M5.5 5.5l13 13', 'M18.5 5.5l-13 13'],
  send: ['M3.8 11.4L20.5 4l-5.2 16.2-3.8-6.6z', 'M11.5 13.6L20.5 4'],
  bars: ['M6 19v-3.5', 'M12 19v-8', 'M18 19V5.5'],
  sound: ['M6 14.5v-5', 'M12 18V6', 'M18 14.5v-5'],
  volume: ['M4 9.5v5h3.5l5 4v-13l-5 4z', 'M16 9a4.2 4.2 0 0 1 0 6', 'M18.6 6.4a8 8 0 0 1 0 11.2'],
  alert: ['M12 3.8L21.6 20H2.4z', 'M12 10v4.5', 'M12 17.2v.01'],
  info: [circle(12, 12, 9), 'M12 11v5.5', 'M12 7.6v.01'],
  check: ['M4.5 12.8l5 5L19.5 7'],
  offline: ['M2.5 9.2a14 14 0 0 1 19 0', 'M6 13a8.8 8.8 0 0 1 12 0', 'M9.4 16.6a3.8 3.8 0 0 1 5.2 0', 'M12 19.8v.01', SLASH],
  lock: [box(5, 10.5, 14, 10, 2.2), 'M8 10.5V8a4 4 0 0 1 8 0v2.5', 'M12 14.5v2.2'],
  door: ['M4 20.5h16', 'M6.5 20.5V5.2a1.7 1.7 0 0 1 1.7-1.7h7.6a1.7 1.7 0 0 1 1.7 1.7v15.3', 'M14 12.2v.01'],
  remove: [...PERSON, 'M16.6 8.6l4.8 4.8', 'M21.4 8.6l-4.8 4.8'],
  tabs: [box(3, 8, 13, 12.5, 2), 'M8 8V5.6a2 2 0 0 1 2-2h9a2 2 0 0 1 2 2v8.9a2 2 0 0 1-2 2h-3'],
  retry: ['M20 12a8 8 0 1 1-2.5-5.8', 'M20.3 3.5v4.6h-4.6'],
  left: ['M14.5 5.5L8 12l6.5 6.5'],
  right: ['M9.5 5.5L16 12l-6.5 6.5'],
  link: ['M9 15l6-6', 'M11 7.5l2-2a3.9 3.9 0 0 1 5.5 5.5l-2 2', 'M13 16.5l-2 2A3.9 3.9 0 0 1 5.5 13l2-2'],
};

/**
 * The product's mark: seats of a plenary around its floor.
 * @returns {SVGSVGElement}
 */
export function mark() {
  const svg = document.createElementNS(NS, 'svg');
  svg.setAttribute('viewBox', '0 0 32 24');
  svg.setAttribute('class', 'mark');
  svg.setAttribute('aria-hidden', 'true');
  for (const [data, className] of [['M4 20a12 12 0 0 1 24 0', 'seats'], ['M9.8 20a6.2 6.2 0 0 1 12.4 0', 'seats'], [circle(16, 20, 2), 'floor']]) {
    const path = document.createElementNS(NS, 'path');
    path.setAttribute('d', data);
    path.setAttribute('class', className);
    svg.append(path);
  }
  return svg;
}
