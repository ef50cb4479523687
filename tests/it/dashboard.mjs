// The dashboard in a real browser. `node dashboard.mjs <scenario> <url> <modules> <pictures> [<facts as JSON>]`, run
// by dashboard.rs. Prints `now: …` where the test is to do something, and ends with 0 if all was as it should be.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [scenario, url, modules, pictures, facts] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { chromium } = require('playwright-core');
const axe = require.resolve('axe-core/axe.min.js');
const known = JSON.parse(facts ?? '{}');
const PATIENCE_MS = 60_000;

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] });

/** A page whose complaints are errors: scripts that fail, files that are missing, what the policy forbids. */
async function open({ expected = [], ...options } = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1360, height: 860 }, bypassCSP: false, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => { if (message.type() === 'error') complaints.push(message.text()); });
  page.on('pageerror', (error) => complaints.push(String(error.stack)));
  page.on('dialog', (dialog) => { complaints.push(`a script of others ran: ${dialog.message()}`); dialog.dismiss(); });
  page.quiet = () => assert.deepEqual(complaints.filter((text) => !expected.some((part) => text.includes(part))), []);
  return page;
}

const heading = (page, text) => page.getByRole('heading', { level: 1, name: text }).waitFor();
const row = (page, text) => page.getByRole('row').filter({ hasText: text }).first();

/** Goes to a page as a user does. */
async function click(page, link, title) {
  await page.getByRole('navigation', { name: 'Pages', exact: true }).getByRole('link', { name: link, exact: true }).click();
  await heading(page, title ?? link);
}

async function picture(page, name) {
  await page.screenshot({ path: `${pictures}/${name}.png` });
}

/** No rule of WCAG 2.2 A and AA that axe knows is broken. By its own world, as the page's policy lets in no script. */
async function accessible(page, name) {
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send('Page.getFrameTree');
  const { executionContextId: contextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id });
  const { readFile } = await import('node:fs/promises');
  await session.send('Runtime.evaluate', { contextId, expression: await readFile(axe, 'utf8') });
  const run = "axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'] }).then((found) => JSON.stringify(found.violations.map(({ id, nodes }) => [id, nodes.map((node) => node.html + ' ' + node.failureSummary)])))";
  const { result } = await session.send('Runtime.evaluate', { contextId, expression: run, awaitPromise: true, returnByValue: true });
  assert.deepEqual(JSON.parse(result.value), [], name);
}

async function signIn(page) {
  await heading(page, 'Sign in');
  await page.getByLabel('Admin token').fill(known.token);
  await page.keyboard.press('Enter');
  await heading(page, 'Overview');
}

const scenarios = {
  /** A wrong token, the right one, every page by its links, and out again. */
  async pages() {
    const page = await open({ expected: ['status of 401', 'status of 400'] });
    await page.goto(url);
    await heading(page, 'Sign in');
    await page.getByLabel('Admin token').fill('wrong');
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.getByRole('alert').getByText('This is not the admin token.').waitFor();
    assert.equal(await page.getByLabel('Admin token').evaluate((field) => field === document.activeElement), true);
    await accessible(page, 'sign-in');
    await picture(page, 'sign-in');
    await signIn(page);
    const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.href]);
    assert.deepEqual(kept.slice(0, 3), [0, 0, ''], 'no script can read the secret');
    assert.equal(kept[3].includes(known.token), false);

    await overview(page);
    await gateways(page);
    await gateway(page);
    await tokens(page);
    await failures(page);
    await deployments(page);
    await eventTypes(page);
    await publish(page);

    await page.goto(`${url}/#/nothing`);
    await heading(page, 'Not found');
    await page.getByRole('button', { name: 'Sign out' }).click();
    await heading(page, 'Sign in');
    assert.equal(await page.evaluate(() => fetch('/api/internal/v1/stats').then((answer) => answer.status)), 401);
    page.quiet();
  },

  /** The same in the dark and on a telephone; nothing is cut off or unreadable. */
  async shapes() {
    for (const [name, options] of Object.entries({
      dark: { colorScheme: 'dark' },
      narrow: { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
    })) {
      const page = await open({ expected: ['status of 401'], ...options });
      await page.goto(url);
      await signIn(page);
      const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      assert.equal(ground, name === 'dark' ? 'rgb(16, 21, 27)' : 'rgb(244, 246, 248)');
      for (const [path, title] of [['/', 'Overview'], ['/gateways', 'Gateways'], [`/gateways/${known.gateway}`, known.displayName], ['/failures', 'Failed deliveries'], ['/deployments', 'Deployments'], ['/event-types', 'Event types'], ['/publish', 'Publish a test event']]) {
        await page.goto(`${url}/#${path}`);
        await heading(page, title);
        await page.locator('tbody tr, textarea').first().waitFor();
        if (path === '/') await page.locator('path.line[d^=M]').first().waitFor({ state: 'attached' });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${name} ${path}: ${wide} pixels too wide`);
        if (name === 'narrow') {
          const hidden = await page.locator('.scroll').evaluateAll((all) => all.map((one) => one.scrollWidth - one.clientWidth));
          assert.ok(hidden.every((pixels) => pixels <= 0), `${path}: tables are cut off by ${hidden} pixels`);
        }
        await accessible(page, `${name} ${path}`);
        await picture(page, `${name}${path.replaceAll('/', '-').replace(known.gateway, 'one')}`);
      }
      page.quiet();
    }
  },

  /** Nobody is registered yet: the page says how to begin. */
  async first() {
    const page = await open({ expected: ['status of 401'] });
    await page.goto(url);
    await signIn(page);
    await page.getByText('No gateway is registered yet.').waitFor();
    await page.getByText('Nobody is connected.', { exact: true }).waitFor();
    await page.getByRole('link', { name: 'Register the first one' }).click();
    await heading(page, 'Gateways');
    await page.getByLabel('Organization id').waitFor();
    await accessible(page, 'first');
    page.quiet();
  },

  /** The server deletes nothing: it is told, it stays to be read, and nothing is announced as done. */
  async refused() {
    const page = await open({ expected: ['status of 401', 'status of 503'] });
    await page.goto(url);
    await signIn(page);
    await page.goto(`${url}/#/gateways/${known.gateway}`);
    const detail = 'There is no room for this.';
    await page.route('**/api/**', (route) => (route.request().method() === 'DELETE'
      ? route.fulfill({ status: 503, contentType: 'application/problem+json', json: { status: 503, code: 'STORE_FULL', detail } })
      : route.continue()));
    const told = page.getByRole('alert').getByText(detail);
    const tokens = page.getByRole('region', { name: 'Tokens' });
    await page.getByRole('button', { name: /^Revoke token/ }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
    await told.waitFor();
    // Over the next look at the tokens too, which is now.
    const line = await tokens.locator('tbody tr').elementHandle();
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    await page.waitForFunction((before) => !before.isConnected, line);
    await tokens.getByText('active').waitFor();
    assert.equal(await told.count(), 1);
    await page.getByRole('button', { name: 'Delete this gateway' }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
    await told.nth(1).waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await told.nth(2).waitFor();
    await heading(page, known.name);
    assert.equal(await page.locator('#said').textContent(), '');
    page.quiet();
  },

  /** Numbers that JavaScript would change: a schema is saved with those that it had, and all are shown so. */
  async numbers() {
    const page = await open();
    await page.goto(`${url}/#/event-types/${known.type}`);
    await heading(page, known.type);
    await page.getByLabel('Description').fill('With large numbers');
    await page.getByRole('button', { name: 'Save' }).click();
    await page.locator('#said', { hasText: 'saved' }).waitFor({ state: 'attached' });
    await page.goto(`${url}/#/publish?type=${known.type}`);
    await page.getByLabel('Payload').waitFor();
    assert.match(await page.getByLabel('Payload').inputValue(), new RegExp(`: ${known.number}\n`));
    await page.goto(`${url}/#/gateways/${known.gateway}?event=${known.event}`);
    await page.getByText('The event', { exact: true }).click();
    await page.locator('pre').getByText(`"n": ${known.number}`).waitFor();
    page.quiet();
  },

  /** Whatever keeps somebody from signing in is told as it is. */
  async 'not-signed-in'() {
    const page = await open({ expected: ['status of'] });
    await page.goto(url);
    await heading(page, 'Sign in');
    const tells = async (token, words) => {
      await page.getByLabel('Admin token').fill(token);
      await page.getByRole('button', { name: 'Sign in' }).click();
      await page.getByRole('alert').getByText(words).waitFor();
    };
    const unsound = 'A token has letters, digits and signs of ASCII alone';
    for (const pasted of [`“${known.token}”`, `\u200b${known.token}`, `${known.token} ${known.token}`]) {
      await tells(pasted, unsound);
      await tells('wrong', 'This is not the admin token.');
    }
    let answer;
    await page.route('**/v1/session', (route) => (route.request().method() === 'POST' ? route.fulfill(answer) : route.continue()));
    for (const [status, detail] of [[503, 'The server is shutting down.'], [429, 'Too many calls.']]) {
      answer = { status, contentType: 'application/problem+json', json: { status, code: 'CODE', detail } };
      await tells(known.token, detail);
    }
    answer = { status: 502, body: '<h1>Bad Gateway</h1>' };
    await tells(known.token, 'The server answered 502');
    // As it is over http:// to another host: the browser does not keep the cookie.
    answer = { status: 201, json: { signedIn: true } };
    await tells(known.token, 'https://');
    await page.unroute('**/v1/session');
    await signIn(page);
    page.quiet();
  },

  /** Paths that lead nowhere, and a gateway that is deleted while somebody looks at it. */
  async astray() {
    const page = await open({ expected: ['status of 404'] });
    await page.clock.install();
    for (const path of ['/gateways/%', '/event-types/%ff']) {
      await page.goto(`${url}/#${path}`);
      await heading(page, 'Not found');
    }
    await page.goto(`${url}/#/gateways/${known.gateway}`);
    await page.getByText('live', { exact: true }).waitFor();
    const deleted = await page.request.delete(`${url}/api/v1/gateways/${known.gateway}`);
    assert.equal(deleted.status(), 204);
    await page.getByRole('alert').getByText('This gateway was deleted.').waitFor();
    const asked = [];
    page.on('request', (request) => asked.push(request.url()));
    await page.clock.fastForward(60_000);
    await click(page, 'Gateways');
    assert.deepEqual(asked.filter((one) => one.includes(known.gateway)), [], 'nothing is asked for any more');
    page.quiet();
  },

  /** A list that shrinks and then is empty while somebody looks at its last page. */
  async shrinks() {
    const page = await open();
    const [look, of] = [() => page.evaluate(() => document.dispatchEvent(new Event('visibilitychange'))), `${url}/api/v1/gateways`];
    const keep = async (count) => {
      const { list } = await (await page.request.get(`${of}?limit=200`)).json();
      await Promise.all(list.slice(count).map(({ id }) => page.request.delete(`${of}/${id}`)));
      await look();
    };
    await page.goto(`${url}/#/gateways`);
    const pages = page.getByRole('navigation', { name: 'Pages of gateways' });
    for (const where of ['51–100 of 101', '101–101 of 101']) {
      await pages.getByRole('button', { name: 'Next' }).click();
      await pages.getByText(where).waitFor();
    }
    for (const [count, where] of [[100, '51–100 of 100'], [51, '51–51 of 51'], [0, 'none']]) {
      await keep(count);
      await pages.getByText(where).waitFor();
    }
    await page.getByText('No gateway is registered').waitFor();
    page.quiet();
  },

  /** So many connections: how long a person waits, in milliseconds. */
  async crowd() {
    const page = await open({ expected: ['status of 401'] });
    await page.goto(url);
    await signIn(page);
    const took = {};
    const timed = async (name, work) => {
      const began = performance.now();
      await work();
      took[name] = Math.round(performance.now() - began);
    };
    const cells = page.getByRole('region', { name: 'Live connections' }).locator('tbody tr');
    await timed('overview', async () => {
      await page.reload();
      await cells.nth(20).waitFor();
    });
    await timed('search', async () => {
      await page.getByLabel('Search').fill(known.name);
      await page.waitForFunction((name) => {
        const rows = [...document.querySelectorAll('section:last-of-type tbody tr')];
        return rows.length > 0 && rows.every((row) => row.textContent.includes(name));
      }, known.name);
    });
    await timed('gateways', async () => {
      await click(page, 'Gateways');
      await page.getByRole('link', { name: known.name, exact: true }).waitFor();
    });
    await timed('gateway', async () => {
      await page.getByRole('link', { name: known.name, exact: true }).click();
      await heading(page, known.name);
      await page.locator('tbody tr').nth(20).waitFor();
    });
    // Nothing holds up the page itself: the longest wait for a turn in three seconds.
    took.turn = await page.evaluate(() => new Promise((resolve) => {
      let [last, longest] = [performance.now(), 0];
      const end = last + 3000;
      const turn = () => {
        const now = performance.now();
        longest = Math.max(longest, now - last);
        last = now;
        if (now < end) setTimeout(turn, 0); else resolve(Math.round(longest));
      };
      turn();
    }));
    await picture(page, 'crowd');
    page.quiet();
    console.log(`took: ${JSON.stringify(took)}`);
  },

  /** Events while the server is restarted: EventSource comes back with the last id, and each event is shown once. */
  async restart() {
    const page = await open({ expected: ['net::ERR', 'status of 503', 'Failed to load resource'] });
    const cursors = [];
    page.on('request', async (request) => {
      if (request.url().includes('dashboard/stream') && request.url().includes('gatewayId')) cursors.push((await request.allHeaders())['last-event-id']);
    });
    await page.goto(`${url}/#/gateways/${known.gateway}`);
    await page.getByRole('button', { name: known.events[2] }).waitFor();
    console.log('now: restart');
    await page.locator(`[data-event$="-${known.last}"]`).waitFor();
    const shown = await page.locator('[data-event]').evaluateAll((all) => all.map((one) => Number(one.dataset.event.split('-')[1])));
    assert.deepEqual(shown, Array.from({ length: known.last }, (_, index) => known.last - index), 'each once, newest first');
    assert.equal(cursors[0], undefined, 'a first request has no such header');
    assert.ok(cursors.slice(1).some((cursor) => cursor === known.events[2]), `${known.events[2]} among ${cursors}`);
    page.quiet();
  },

  /** After a restart nobody is signed in: the page asks, and goes on. */
  async 'signed-out'() {
    const page = await open({ expected: ['net::ERR', 'status of', 'Failed to load resource'] });
    await page.goto(url);
    await signIn(page);
    await page.getByText('Live', { exact: true }).waitFor();
    console.log('now: restart');
    await signIn(page);
    await page.getByText('Live', { exact: true }).waitFor();
    await page.locator('path.line[d^=M]').first().waitFor({ state: 'attached' });
    page.quiet();
  },
};

async function overview(page) {
  await page.getByText('Live', { exact: true }).waitFor();
  await row(page, known.replica).waitFor();
  const behind = page.getByRole('region', { name: 'Furthest behind' });
  await behind.getByRole('row').filter({ hasText: 'edge-away' }).filter({ hasText: 'not connected' }).waitFor();
  await page.getByText('of 7 registered', { exact: true }).waitFor();
  await page.getByRole('link', { name: /^\d+ on record, not recovered$/ }).waitFor();
  const table = page.getByRole('region', { name: 'Live connections' });
  const all = await table.locator('tbody tr').count();
  await page.getByLabel('Transport').selectOption('long-poll');
  const rows = 'section:last-of-type tbody tr';
  await page.waitForFunction(([of, before]) => document.querySelectorAll(of).length < before, [rows, all]);
  assert.equal(await table.locator('tbody td:nth-child(3)').evaluateAll((cells) => cells.every((cell) => cell.textContent === 'long-poll')), true);
  await page.getByLabel('Transport').selectOption('');
  await page.getByLabel('Search').fill('nobody-is-called-so');
  await table.getByText('Nobody is connected').waitFor();
  await page.getByLabel('Search').fill('');
  await row(page, known.replica).waitFor();
  // What has the focus keeps it while the table is renewed.
  const link = table.getByRole('link').first();
  await link.focus();
  const renewed = page.waitForResponse((answer) => answer.url().includes('/stats'));
  await renewed;
  await page.waitForTimeout(100);
  assert.equal(await link.evaluate((anchor) => anchor === document.activeElement), true);
  await page.locator('path.line-0[d^=M]').nth(1).waitFor({ state: 'attached' });
  assert.match(await page.getByRole('img', { name: /^Events/ }).getAttribute('aria-label'), /delivered: now [\d,.]+, at most/);
  await page.keyboard.press('Escape');
  await accessible(page, 'overview');
  await picture(page, 'overview');
}

async function gateways(page) {
  await click(page, 'Gateways');
  await row(page, known.displayName).waitFor();
  await page.getByLabel('Search').fill('edge-frankfurt');
  await page.getByRole('row').nth(1).getByText('edge-frankfurt').waitFor();
  await page.getByLabel('Search').fill('');
  await page.getByText('Register a gateway', { exact: true }).first().click();
  await page.getByRole('button', { name: 'Register' }).click();
  await page.getByRole('alert').getByText('/organizationId').waitFor();
  assert.equal(await page.getByLabel('Organization id').getAttribute('aria-invalid'), 'true');
  await accessible(page, 'gateways');
  await picture(page, 'gateways');
  await page.getByLabel('Organization id').fill(known.organization);
  await page.getByLabel('Name', { exact: true }).fill('made-in-the-browser');
  await page.getByLabel('Display name').fill('Made in <b>the</b> browser');
  await page.getByLabel('Allowed addresses').fill('10.0.0.0/99');
  await page.getByRole('button', { name: 'Register' }).click();
  await page.getByRole('alert').getByText('/allowedAddresses').first().waitFor();
  assert.equal(await page.getByLabel('Allowed addresses').getAttribute('aria-invalid'), 'true');
  await page.getByLabel('Allowed addresses').fill('127.0.0.0/8, 192.0.2.7');
  await page.getByLabel('Certificate names').fill('edge-1.example');
  await page.getByRole('button', { name: 'Register' }).click();
  await heading(page, 'Made in <b>the</b> browser made-in-the-browser');
  await page.getByText('Edit this gateway', { exact: true }).first().click();
  assert.equal(await page.getByLabel('Allowed addresses').inputValue(), '127.0.0.0/8, 192.0.2.7/32');
  assert.equal(await page.getByLabel('Certificate names').inputValue(), 'edge-1.example');
  await page.getByLabel('Allowed addresses').fill('');
  await page.getByLabel('Certificate names').fill('edge-2.example edge-3.example');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByText('Gateway made-in-the-browser is changed.').waitFor();
  await page.reload();
  await page.getByText('Edit this gateway', { exact: true }).first().click();
  assert.equal(await page.getByLabel('Allowed addresses').inputValue(), '');
  assert.equal(await page.getByLabel('Certificate names').inputValue(), 'edge-2.example, edge-3.example');
  assert.equal(await page.getByLabel('Display name').inputValue(), 'Made in <b>the</b> browser');
  await accessible(page, 'edit');
}

async function gateway(page) {
  await page.goto(`${url}/#/gateways/${known.gateway}`);
  await heading(page, known.displayName);
  await row(page, known.replica).waitFor();
  await page.getByRole('button', { name: known.failed }).click();
  const timeline = page.getByRole('region', { name: 'Timeline of an event' });
  await timeline.getByText(known.message).waitFor();
  await timeline.getByText('failed').waitFor();
  await timeline.getByText('applied').waitFor();
  await accessible(page, 'gateway');
  await picture(page, 'gateway');
}

async function tokens(page) {
  await page.goto(`${url}/#/gateways`);
  await page.getByRole('link', { name: 'made-in-the-browser' }).click();
  await page.getByRole('button', { name: 'Create a token' }).click();
  const token = await page.locator('.secret').textContent();
  assert.match(token, /^[\w-]{43}$/);
  await picture(page, 'token');
  await page.reload();
  await page.getByRole('button', { name: /^Revoke token/ }).click();
  assert.equal((await page.content()).includes(token), false, 'shown once');
  await page.getByRole('dialog').getByRole('button', { name: 'Revoke' }).click();
  await page.getByRole('region', { name: 'Tokens' }).getByText('revoked').waitFor();
  await page.getByRole('button', { name: 'Delete this gateway' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
  await page.getByRole('button', { name: 'Delete this gateway' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await heading(page, 'Gateways');
  await page.getByRole('link', { name: 'made-in-the-browser' }).waitFor({ state: 'detached' });
}

async function failures(page) {
  await click(page, 'Failed deliveries');
  await row(page, 'not-connected').waitFor();
  await page.getByLabel('Reason').selectOption('failed-by-gateway');
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 1);
  await page.getByRole('link', { name: known.failed }).waitFor();
  await row(page, known.failed).getByText(known.replica).waitFor();
  await page.getByLabel('Reason').selectOption('');
  await row(page, 'not-connected').waitFor();
  await page.getByLabel('Until').fill('2020-01-01T00:00:00');
  await page.getByLabel('Until').blur();
  await page.getByText('No delivery failed').waitFor();
  await page.getByLabel('Until').fill('');
  await page.getByLabel('Until').blur();
  await row(page, 'not-connected').waitFor();
  await page.getByLabel('Gateway', { exact: true }).fill('not a uuid');
  await page.getByLabel('Gateway', { exact: true }).blur();
  await page.getByRole('alert').getByText('must be a UUID').waitFor();
  await page.getByLabel('Gateway', { exact: true }).fill('');
  await page.getByLabel('Gateway', { exact: true }).blur();
  await row(page, 'not-connected').waitFor();
  await accessible(page, 'failures');
  await picture(page, 'failures');
}

async function deployments(page) {
  await click(page, 'Deployments');
  await row(page, '1 of 2').getByText('deployed in part').waitFor();
  await row(page, known.message).waitFor();
  await page.getByLabel('Gateway', { exact: true }).fill('edge-oregon');
  await page.getByLabel('Gateway', { exact: true }).blur();
  await page.getByText('Nothing was deployed').waitFor();
  await page.getByLabel('Gateway', { exact: true }).fill('edge-hostile');
  await page.getByLabel('Gateway', { exact: true }).blur();
  await row(page, '1 of 2').waitFor();
  await accessible(page, 'deployments');
  await picture(page, 'deployments');
  await page.getByLabel('Status').selectOption('UNDEPLOYED');
  await page.getByText('Nothing was deployed').waitFor();
}

async function eventTypes(page) {
  await click(page, 'Event types');
  await page.getByText('Register an event type', { exact: true }).first().click();
  await page.getByLabel('Type', { exact: true }).fill('order.shipped');
  await page.getByLabel('Schema').fill('{"type": "object", "properties": {"id": {"type": "nonsense"}}}');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('alert').getByText('/schema').first().waitFor();
  await picture(page, 'event-types');
  await page.getByLabel('Schema').fill('{"type": "object", ');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('alert').getByText('This is not JSON yet.').waitFor();
  await page.getByLabel('Schema').fill('{"type": "object", "required": ["id", "parcels"], "properties": {"id": {"type": "string", "minLength": 1}, "parcels": {"type": "integer", "minimum": 1}}}');
  await page.getByLabel('Key pointer').fill('/id');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.getByRole('link', { name: 'order.shipped' }).click();
  await heading(page, 'order.shipped');
  await page.getByLabel('Description').fill('An order left the <i>house</i>');
  await page.getByRole('button', { name: 'Save' }).click();
  await page.locator('#said', { hasText: 'saved' }).waitFor({ state: 'attached' });
  await accessible(page, 'event type');
  await click(page, 'Event types');
  await page.getByText('An order left the <i>house</i>').waitFor();
  await page.getByRole('link', { name: 'api.deployed' }).click();
  await page.getByRole('heading', { name: 'Built in' }).waitFor();
}

async function publish(page) {
  await click(page, 'Publish', 'Publish a test event');
  await page.getByLabel('Type').selectOption('order.shipped');
  assert.deepEqual(JSON.parse(await page.getByLabel('Payload').inputValue()), { id: '', parcels: 0 }, 'begins as the schema asks');
  await page.getByLabel('Gateway').fill(known.gateway);
  await page.getByRole('button', { name: 'Publish' }).click();
  for (const pointer of ['/payload/id', '/payload/parcels']) await page.getByRole('alert').getByText(pointer).waitFor();
  assert.equal(await page.getByLabel('Payload').getAttribute('aria-invalid'), 'true');
  await accessible(page, 'publish');
  await picture(page, 'publish');
  await page.getByLabel('Payload').fill('{"id": "o-1", "parcels": 2}');
  await page.getByRole('button', { name: 'Publish' }).click();
  await page.getByText('Stored as').first().waitFor();
  await page.locator('.notice').getByRole('link').click();
  await page.getByRole('region', { name: 'Timeline of an event' }).getByText('order.shipped').first().waitFor();
  await click(page, 'Event types');
  await page.getByRole('link', { name: 'order.shipped' }).click();
  await page.getByRole('button', { name: 'Delete this type' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await heading(page, 'Event types');
  await page.getByRole('link', { name: 'order.shipped' }).waitFor({ state: 'detached' });
}

try {
  await scenarios[scenario]();
} finally {
  await browser.close();
}
