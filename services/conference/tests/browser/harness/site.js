// The test page and the client it uses, served on 127.0.0.1: browsers give cameras and sockets to such pages.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';

/** @returns {Promise<{ origin: string, close: () => Promise<void> }>} */
export async function serveSite() {
  const server = createServer(async (request, response) => {
    const file = FILES.get(new URL(request.url ?? '/', 'http://site').pathname);
    if (!file) return response.writeHead(404).end();
    const type = file.endsWith('.html') ? 'text/html; charset=utf-8' : 'text/javascript';
    response.writeHead(200, { 'content-type': type, 'cache-control': 'no-store' }).end(await readFile(file));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    origin: `http://127.0.0.1:${port}`,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}

const here = (path) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const FILES = new Map([
  ['/', here('page/index.html')],
  ['/page/person.js', here('page/person.js')],
  ['/page/board.js', here('page/board.js')],
  ['/page/cells.js', here('page/cells.js')],
  ['/page/clapper.js', here('page/clapper.js')],
  ['/page/film.js', here('page/film.js')],
  ['/page/slate.js', here('page/slate.js')],
  ['/page/tone.js', here('page/tone.js')],
  ['/livekit-client.mjs', fileURLToPath(import.meta.resolve('livekit-client'))],
]);
