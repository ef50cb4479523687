// The platform API, as everybody calls it. The browser's cookie stands for the admin token.

/** An answer that is an error (RFC 9457). */
export class Problem extends Error {
  constructor(status, { code, detail, errors, trackingId }) {
    super(detail);
    Object.assign(this, { status, code, errors: errors ?? [], trackingId });
  }
}

/** Pages of other sites cannot send this header, so the server changes nothing for a cookie without it. */
const OURS = { 'gatecast-dashboard': '1' };

export async function call(method, path, { body, query, headers, signal } = {}) {
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
  const value = text === '' ? null : parsed(text);
  if (answer.ok) return value;
  if (answer.status === 401) document.dispatchEvent(new CustomEvent('signed-out'));
  throw new Problem(answer.status, value ?? { detail: `The server answered ${answer.status}.` });
}

export const get = (path, query, signal) => call('GET', path, { query, signal });

async function reach(url, init) {
  try {
    return await fetch(url, init);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Problem(0, { code: 'UNREACHABLE', detail: 'The server cannot be reached.' });
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return { detail: 'The answer is not JSON.' };
  }
}

/** A path with its parameters encoded. */
export const path = (parts, ...values) => parts.reduce((whole, part, index) => whole + encodeURIComponent(values[index - 1]) + part);
