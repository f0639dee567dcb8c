// Chromium and Firefox as installed packages provide them; nothing is ever downloaded.

import { chromium } from 'playwright-core';
import { launch as launchPuppet } from 'puppeteer-core';

/** @param {string[]} [extra] further switches */
export function launch(extra = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    headless: true,
    args: [...SWITCHES, ...extra],
  });
}

/**
 * Firefox, whose released builds speak a protocol that Playwright does not drive. What comes back answers to as much of
 * Playwright's names as people of a call need.
 * @returns {Promise<import('playwright-core').Browser>}
 */
export async function launchFirefox() {
  const firefox = await launchPuppet({
    browser: 'firefox',
    executablePath: process.env.FIREFOX_BIN ?? '/usr/bin/firefox-esr',
    headless: true,
    extraPrefsFirefox: PREFERENCES,
  });
  const newContext = async () => {
    const context = await firefox.createBrowserContext();
    const newPage = async () => Object.assign(await context.newPage(), { context: () => context });
    return { newPage };
  };
  return /** @type {any} */ ({ newContext, close: () => firefox.close() });
}

/** What its made-up microphone hums. Web Audio stands still in it where there is no sound card. */
export const FIREFOX_TONE_HZ = 440;

const PREFERENCES = {
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.navigator.audio.fake_frequency': FIREFOX_TONE_HZ,
  'media.navigator.permission.disabled': true,
  'media.navigator.streams.fake': true,
  // Only mDNS names otherwise, which nobody answers for here.
  'media.peerconnection.ice.obfuscate_host_addresses': false,
};

const SWITCHES = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream',
];

/** Chromium then reaches the server over TCP alone, as behind a firewall that lets no UDP out. */
export const NO_UDP = '--webrtc-ip-handling-policy=disable_non_proxied_udp';
