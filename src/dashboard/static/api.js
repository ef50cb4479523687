// The platform API, as everybody calls it. The browser's cookie stands for the admin token.

import { parse } from './exact.js';

/** An answer that is an error (RFC 9457). */
export class Problem extends Error {
  constructor(status, { code, detail, errors, trackingId }) {
    super(detail);
    Object.assign(this, { status, code, errors: errors ?? [], trackingId });
  }
}

/** Pages of other sites cannot send this header, so the server changes nothing for a cookie without it. */
const OURS = { 'gatecast-dashboard': '1' };

export async function call(method, path, { body, query, headers, signal, read = JSON.parse } = {}) {
  const given = Object.entries(query ?? {}).filter(([, value]) => value !== '' && value !== null && value !== undefined);
  const search = given.length > 0 ? `?${new URLSearchParams(given)}` : '';
  const json = body === undefined ? {} : { 'content-type': 'application/json' };
  const answer = await reach(path + search, {
    method,
    headers: { ...OURS, ...json, ...headers },
    body: typeof body === 'string' || body === undefined ? body : JSON.stringify(body),
    signal,
  });
  const text = await answer.text();
  const value = parsed(text, read);
  if (answer.ok && (value !== null || text === '')) return value;
  if (answer.status === 401) document.dispatchEvent(new CustomEvent('signed-out'));
  throw new Problem(answer.status, value ?? { detail: `The server answered ${answer.status}, and not in JSON.` });
}

export const get = (path, query, signal) => call('GET', path, { query, signal });

/** The same for what has schemas or payloads in it: to be shown, or sent back. */
export const getExact = (path, query, signal) => call('GET', path, { query, signal, read: parse });

async function reach(url, init) {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, { code: 'UNREACHABLE', detail: 'The server cannot be reached.' });
  }
}

/** `null` if it is no JSON, as a proxy's page. */
function parsed(text, read) {
  try {
    return read(text);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return null;
  }
}

/** A path with its parameters encoded. */
export const path = (parts, ...values) => parts.reduce((whole, part, index) => whole + encodeURIComponent(values[index - 1]) + part);
