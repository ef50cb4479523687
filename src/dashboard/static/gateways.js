import { call, get } from './api.js';
import { day, h, number, pager, repeat, say, state, table, time } from './dom.js';
import { access, attempt, choice, field, form } from './form.js';

const LOOK_EVERY_MS = 5000;

/** All gateways, and a form to register one. */
export function gateways({ main, signal, query }) {
  const search = h('input', { type: 'search', autocomplete: 'off' });
  const connected = choice([['', 'all'], ['true', 'connected'], ['false', 'not connected']]);
  const list = table({ caption: 'Gateways', key: (row) => row.id, empty: 'No gateway is registered, or none that matches.', columns: [
    { label: 'Name', cell: (row) => h('a', { href: `#/gateways/${row.id}` }, row.name) },
    { label: 'Display name', cell: (row) => row.displayName },
    { label: 'State', cell: (row) => (row.connected ? state('good', 'connected') : state('none', 'not connected')) },
    { label: 'Connections', number: true, cell: (row) => number(row.connections) },
    { label: 'Catch-up', cell: (row) => row.catchUp },
    { label: 'Host', cell: (row) => row.vhost ?? '–' },
    { label: 'Registered', cell: (row) => time(row.createdAt, day) },
  ] });
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const pages = pager('Pages of gateways', 50, () => look());
  const look = repeat(LOOK_EVERY_MS, signal, () => attempt(trouble, async () => {
    const query = { search: search.value, connected: connected.value, limit: pages.limit, offset: pages.offset };
    const found = await get('/api/v1/gateways', query, signal);
    list.show(found.list);
    pages.show(found.pagination.total);
  }));
  for (const control of [search, connected]) control.addEventListener('input', () => { pages.reset(); look(); });
  main.append(h('h1', {}, 'Gateways'),
    h('section', { class: 'card' }, h('h2', { class: 'unseen' }, 'Registered gateways'),
      h('div', { class: 'filters', role: 'search' }, field('Search', search, { hint: 'Name, display name or id' }), field('Show', connected)),
      trouble, list.element, pages.element),
    h('details', { class: 'card', open: query.has('register') }, h('summary', {}, 'Register a gateway'), registration()));
}

function registration() {
  const input = (attributes) => h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...attributes });
  const [organization, name, displayName, vhost] = [input(), input(), input(), input()];
  const who = access();
  const catchUp = choice([['live', 'at the newest event'], ['stored', 'where each replica was']]);
  const submit = async () => {
    const made = await call('POST', '/api/v1/gateways', { body: {
      organizationId: organization.value.trim(), name: name.value.trim(), displayName: displayName.value.trim() || name.value.trim(),
      vhost: vhost.value.trim() || undefined, catchUp: catchUp.value, ...who.value(),
    } });
    say(`Gateway ${made.name} is registered.`);
    location.hash = `#/gateways/${made.id}`;
  };
  return form({ submit, action: 'Register', label: 'Register a gateway' }, h('div', { class: 'fields' },
    field('Organization id', organization, { pointers: ['/organizationId'], hint: 'A UUID' }),
    field('Name', name, { pointers: ['/name'], hint: 'a–z, 0–9 and hyphens; unique in its organization' }),
    field('Display name', displayName, { pointers: ['/displayName'] }),
    field('Host name', vhost, { pointers: ['/vhost'], hint: 'That its APIs are served under; may be empty' }),
    field('Without a cursor it begins', catchUp, { pointers: ['/catchUp'] }), who.fields));
}
