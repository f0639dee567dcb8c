// Building and updating elements. The only way this page makes markup: text is always set as text, so nothing that
// comes from another person is ever parsed as HTML.

/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Props */
/** @typedef {Node | string | null | false | undefined} Child */

/**
 * Makes an element. Functions under `on…` become listeners, `true` an empty attribute; `false`, `null` and
 * `undefined` leave the attribute out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Props} [props]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === 'function') element.addEventListener(name.replace(/^on/, ''), value);
    else setAttribute(element, name, value);
  }
  element.append(...present(children));
  return element;
}

/**
 * @param {Child[]} children
 * @returns {(Node | string)[]}
 */
export function present(children) {
  return /** @type {(Node | string)[]} */ (children.filter((child) => child !== null && child !== undefined && child !== false));
}

/**
 * Writes an attribute only when it changes, so that observers and screen readers hear real changes only.
 * @param {Element} element
 * @param {string} name
 * @param {string | number | boolean | null | undefined} value
 */
export function setAttribute(element, name, value) {
  if (value === null || value === undefined || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
    return;
  }
  const text = value === true ? '' : String(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

/**
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * A value that outlives the page, or `''` where storage is denied.
 * @param {() => Storage} storage
 * @param {string} key
 * @returns {string}
 */
export function recall(storage, key) {
  try {
    return storage().getItem(`plenary.${key}`) ?? '';
  } catch {
    return '';
  }
}

/**
 * @param {() => Storage} storage
 * @param {string} key
 * @param {string} value
 */
export function remember(storage, key, value) {
  try {
    storage().setItem(`plenary.${key}`, value);
  } catch {
    // Private windows may refuse storage; the call works without it.
  }
}

/** Storage accessors are functions because merely touching `window.localStorage` throws where it is blocked. */
export const lasting = () => window.localStorage;
export const perTab = () => window.sessionStorage;
