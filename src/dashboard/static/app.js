// The frame around the pages: which one is shown, who is signed in, whether the server is there.

import { call, get } from './api.js';
import { h, say } from './dom.js';
import { attempt, field, form } from './form.js';
import { Pulse } from './live.js';
import { deployments } from './deployments.js';
import { eventType, eventTypes } from './event-types.js';
import { failures } from './failures.js';
import { gateway } from './gateway.js';
import { gateways } from './gateways.js';
import { overview } from './overview.js';
import { publish } from './publish.js';

/** What a path means. A page fills `main`, and stops all it has begun when `signal` says so. */
const PAGES = [
  [/^\/$/, 'Overview', overview],
  [/^\/gateways$/, 'Gateways', gateways],
  [/^\/gateways\/([^/]+)$/, 'Gateway', gateway],
  [/^\/failures$/, 'Failed deliveries', failures],
  [/^\/deployments$/, 'Deployments', deployments],
  [/^\/event-types$/, 'Event types', eventTypes],
  [/^\/event-types\/([^/]+)$/, 'Event type', eventType],
  [/^\/publish$/, 'Publish', publish],
];

const SESSION = '/api/internal/v1/session';
const main = document.getElementById('page');
const link = document.getElementById('link');
const pages = document.getElementById('pages');
const signOut = document.getElementById('sign-out');
/** Why somebody could not be signed out. */
const stillIn = h('div', { class: 'trouble', role: 'alert' });

/** Ends with the page that is shown, and with the sign-in. */
let leaving = new AbortController();
let signedIn = null;

function show() {
  leaving.abort();
  leaving = new AbortController();
  const [path, query] = (location.hash.slice(1) || '/').split('?');
  const { title, page, of } = pageAt(path);
  document.title = `${title} · gatecast`;
  for (const anchor of pages.querySelectorAll('a')) {
    const target = anchor.hash.slice(1);
    const here = target === '/' ? path === '/' : path === target || path.startsWith(`${target}/`);
    anchor.toggleAttribute('aria-current', here);
    if (here) anchor.setAttribute('aria-current', 'page');
  }
  main.replaceChildren();
  page({ main, signal: leaving.signal, pulse: signedIn.pulse, query: new URLSearchParams(query), of });
}

function pageAt(path) {
  for (const [pattern, title, page] of PAGES) {
    const match = pattern.exec(path);
    const of = match && decoded(match[1] ?? '');
    if (match && of !== null) return { title, page, of };
  }
  return { title: 'Not found', page: lost };
}

/** `null` if this is the encoding of nothing, as `%` is. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null;
  }
}

function lost({ main: into }) {
  into.append(h('h1', {}, 'Not found'), h('p', {}, 'There is no such page. ', h('a', { href: '#/' }, 'To the overview')));
}

function enter(isOpen) {
  const until = new AbortController();
  signedIn = { until, pulse: new Pulse(until.signal, tell) };
  pages.hidden = false;
  signOut.hidden = isOpen;
  show();
}

/** Somebody has to sign in: at first, after twelve hours, and after each restart of the server. */
function leave() {
  if (main.querySelector('form.sign-in')) return;
  leaving.abort();
  signedIn?.until.abort();
  signedIn = null;
  pages.hidden = true;
  signOut.hidden = true;
  link.replaceChildren();
  document.title = 'Sign in · gatecast';
  const token = h('input', { type: 'password', autocomplete: 'current-password', required: true, spellcheck: 'false' });
  const wrong = (words) => {
    token.setAttribute('aria-invalid', 'true');
    token.focus();
    throw new Error(words);
  };
  const submit = async () => {
    const presented = token.value.trim();
    // A header takes no others. They come of copying, from where text is made to look well, and are not seen here.
    if (/[^\x21-\x7e]/.test(presented)) wrong('A token has letters, digits and signs of ASCII alone: a space, curly quotes or something invisible was copied with this one.');
    await call('POST', SESSION, { headers: { authorization: `Bearer ${presented}` } })
      .catch(on401(() => wrong('This is not the admin token. It was configured, or the server printed it at its first start.')));
    await get(SESSION).catch(on401(() => {
      throw new Error('The token is right, but this browser did not keep the cookie that it was exchanged for: the page has to be opened by https://, and cookies allowed.');
    }));
    enter(false);
    main.focus();
  };
  main.replaceChildren(h('div', { class: 'narrow' }, h('h1', {}, 'Sign in'),
    form({ submit, action: 'Sign in', label: 'Sign in', kind: 'sign-in card' },
      field('Admin token', token, { hint: 'It is exchanged for a cookie and kept nowhere in the browser.' }))));
  token.focus();
}

/** For a `catch`: what it means here that somebody is not signed in. */
const on401 = (otherwise) => (problem) => {
  if (problem.status !== 401) throw problem;
  otherwise();
};

function tell(state) {
  const words = { live: 'Live', lost: 'Reconnecting…' }[state];
  if (link.textContent.trim() === words) return;
  link.replaceChildren(h('span', { class: `dot ${state}`, 'aria-hidden': 'true' }), words);
}

signOut.addEventListener('click', () => {
  main.prepend(stillIn);
  attempt(stillIn, async () => {
    await call('DELETE', SESSION);
    leave();
    say('Signed out.');
  });
});
document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); main.focus(); });
document.addEventListener('signed-out', leave);
addEventListener('hashchange', () => { if (signedIn) { show(); main.focus(); scrollTo(0, 0); } });

get(SESSION).then(({ isOpen }) => enter(isOpen)).catch((problem) => {
  if (problem.status !== 401) main.replaceChildren(h('p', { class: 'notice', role: 'alert' }, problem.message));
});
