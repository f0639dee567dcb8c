// Types for the bundle next door: the package's own, when it is installed for `tsc`. Never loaded by a browser.
export * from 'livekit-client';
