import { call, get } from './api.js';
import { day, h, id, repeat, say, state, table, time } from './dom.js';
import { attempt, confirm, form } from './form.js';

const LOOK_EVERY_MS = 10000;

/** The tokens of a gateway: made, shown once, revoked. */
export function tokens(gateway, signal) {
  const all = `/api/v1/gateways/${gateway}/tokens`;
  const fresh = h('div', { role: 'status' });
  // One of its own for what was not revoked: the next look would take it away.
  const [trouble, refused] = [h('div', { class: 'trouble', role: 'alert' }), h('div', { class: 'trouble', role: 'alert' })];
  const list = table({ caption: 'Tokens', key: (row) => row.id, empty: 'There is no token: the gateway cannot connect.', columns: [
    { label: 'Token', cell: (row) => id(row.id) },
    { label: 'State', cell: (row) => (row.status === 'active' ? state('good', 'active') : state('none', row.status)) },
    { label: 'Made', cell: (row) => time(row.createdAt, day) },
    { label: 'Ends', cell: (row) => time(row.revokedAt ?? row.expiresAt, day) },
    { label: 'Revoke', cell: (row) => row.status === 'active' && h('button', { type: 'button', class: 'danger', 'aria-label': `Revoke token ${row.id}`, onclick: () => revoke(row) }, 'Revoke') },
  ] });
  const look = repeat(LOOK_EVERY_MS, signal, () => attempt(trouble, async () => list.show((await get(all, { limit: 100 }, signal)).list)));
  async function revoke(row) {
    if (!await confirm('Revoke this token? Connections that use it end within a second.', 'Revoke')) return;
    await attempt(refused, async () => {
      await call('DELETE', `${all}/${row.id}`);
      fresh.replaceChildren();
      say('The token is revoked.');
      look();
    });
  }
  const create = async () => {
    const made = await call('POST', all);
    const secret = h('code', { class: 'secret', tabindex: '0' }, made.token);
    const copy = h('button', { type: 'button', class: 'quiet', onclick: async () => { await navigator.clipboard.writeText(made.token); say('Copied.'); } }, 'Copy');
    const hide = h('button', { type: 'button', class: 'quiet', onclick: () => fresh.replaceChildren() }, 'I have kept it');
    fresh.replaceChildren(h('div', { class: 'notice' }, h('p', {}, 'The new token. It is shown this once and cannot be had again:'), h('p', { class: 'actions' }, secret, copy, hide)));
    look();
  };
  return h('section', { class: 'card' }, h('h2', {}, 'Tokens'), fresh, trouble, refused, list.element,
    form({ submit: create, action: 'Create a token', label: 'Create a token' }));
}
