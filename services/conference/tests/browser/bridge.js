// One person in a browser for tests in another language: a JSON line in, a JSON line out.
// In: `{"method": "join", "args": [{…}]}` for a method of the page's `window.person`. Out: `{"result": …}` or
// `{"error": "…"}`. Ends with its input.

import { createInterface } from 'node:readline';

import { launch } from './harness/browser.js';
import { serveSite } from './harness/site.js';

const [browser, site] = await Promise.all([launch(), serveSite()]);
const page = await browser.newPage();
await page.goto(site.origin);
await page.waitForFunction(() => 'person' in window);
answer({ result: 'ready' });

for await (const line of createInterface({ input: process.stdin })) {
  const { method, args = [] } = JSON.parse(line);
  const call = ([name, given]) => window.person[name](...given);
  answer(await page.evaluate(call, [method, args]).then((result) => ({ result: result ?? null }), (error) => ({ error: String(error) })));
}
await Promise.all([browser.close(), site.close()]);

function answer(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
