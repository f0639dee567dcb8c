// Chromium as an installed package provides it; nothing is ever downloaded.

import { chromium } from 'playwright-core';

/** @param {string[]} [extra] further switches */
export function launch(extra = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM_BIN ?? '/usr/bin/chromium',
    headless: true,
    args: [...SWITCHES, ...extra],
  });
}

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
