// A test file in a network of its own: loopback, and an interface with addresses that are not.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { test } from 'node:test';

/** Where servers can be reached besides loopback. */
export const ADDRESS = '10.77.0.1';
export const ADDRESS_V6 = 'fd77::1';

/** Inside: one more interface with this address; returns how to pull it out. @param {string} address */
export function plugIn(address) {
  const ip = (command) => execFileSync('ip', command.split(' '), { stdio: ['ignore', 'inherit', 'inherit'] });
  ip('link add aside type veth peer name aside-there');
  ip(`addr add ${address}/24 dev aside`);
  ip('link set aside up');
  ip('link set aside-there up');
  return () => ip('link del aside');
}

/**
 * Inside, what `play` gives; outside, a way to write tests that runs the whole file inside instead, as one test.
 * @template {(behaviour: string, ...rest: any[]) => void} T
 * @param {string} file
 * @param {() => T} play
 * @returns {T & { isInside: boolean }}
 */
export function inNamespace(file, play) {
  if (process.env[MARK]) return Object.assign(play(), { isInside: true });
  const possible = spawnSync('unshare', enter('true'), { encoding: 'utf8' });
  const skip = possible.status === 0 ? undefined : `network namespaces are not to be had here: ${possible.stderr}`;
  test('in_a_network_of_its_own', { timeout: DEADLINE_MS, skip }, () => run(file));
  return /** @type {any} */ (Object.assign(() => {}, { isInside: false }));
}

/** A namespace ends with its last process. @param {string} file */
function run(file) {
  // The runner would take what a child of its own prints for its own reports.
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  return new Promise((resolve, reject) => {
    const child = spawn('unshare', enter(process.execPath, '--test', '--test-reporter=spec', file), { env: { ...environment, [MARK]: '1' }, stdio: ['ignore', 'inherit', 'inherit'] });
    child.once('error', reject);
    child.once('exit', (code, signal) => (code === 0 ? resolve(undefined) : reject(new Error(`it ended with ${code ?? signal}`))));
  });
}

/** What `unshare` is given to run a command with that network. */
function enter(...command) {
  const rights = process.getuid?.() === 0 ? [] : ['--map-root-user'];
  return [...rights, '--net', 'sh', '-ec', `${NETWORK}\nexec "$@"`, 'sh', ...command];
}

const NETWORK = `
ip link set lo up
ip link add here type veth peer name there
ip addr add ${ADDRESS}/24 dev here
ip addr add ${ADDRESS_V6}/64 dev here nodad
ip link set here up
ip link set there up
ip route add default dev here
`;

const MARK = 'PLENARY_TEST_NAMESPACE';
const DEADLINE_MS = 420_000;
