import { call, get, getExact } from './api.js';
import { day, h, pager, repeat, say, state, table, time } from './dom.js';
import { attempt, confirm, field, form, json } from './form.js';

const LOOK_EVERY_MS = 10000;
const TYPES = '/api/internal/v1/event-types';
const FIRST_SCHEMA = { $schema: 'https://json-schema.org/draft/2020-12/schema', type: 'object', required: ['id'], properties: { id: { type: 'string' } } };

/** Which events there are. */
export function eventTypes({ main, signal }) {
  const list = table({ caption: 'Event types', key: (row) => row.type, empty: 'There is no event type.', columns: [
    { label: 'Type', cell: (row) => h('a', { href: `#/event-types/${encodeURIComponent(row.type)}` }, row.type) },
    { label: 'Description', cell: (row) => row.description ?? '–' },
    { label: 'Key', cell: (row) => h('code', {}, row.keyPointer ?? '–') },
    { label: 'Kind', cell: (row) => (row.builtIn ? state('none', 'built in') : state('good', 'registered')) },
    { label: 'Changed', cell: (row) => time(row.updatedAt, day) },
  ] });
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const pages = pager('Pages of event types', 100, () => look());
  const look = repeat(LOOK_EVERY_MS, signal, () => attempt(trouble, async () => {
    const found = await get(TYPES, { limit: pages.limit, offset: pages.offset }, signal);
    list.show(found.list);
    pages.show(found.pagination.total);
  }));
  const name = h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false' });
  main.append(h('h1', {}, 'Event types'),
    h('section', { class: 'card' }, h('h2', { class: 'unseen' }, 'All types'), trouble, list.element, pages.element),
    h('details', { class: 'card' }, h('summary', {}, 'Register an event type'),
      editor({ schema: FIRST_SCHEMA }, name, () => look(), field('Type', name, { pointers: ['/type'], hint: 'Such as order.shipped' }))));
}

/** One type: what it is, and where it may be changed. */
export async function eventType({ main, signal, of }) {
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  main.append(h('p', { class: 'crumbs' }, h('a', { href: '#/event-types' }, 'Event types'), ' ›'), h('h1', {}, of), trouble);
  await attempt(trouble, async () => {
    const known = await getExact(`${TYPES}/${encodeURIComponent(of)}`, {}, signal);
    main.append(known.builtIn ? reading(known) : changing(known));
  });
}

function reading(known) {
  return h('section', { class: 'card' }, h('h2', {}, 'Built in'), h('p', {}, known.description ?? ''),
    h('p', {}, 'Key: ', h('code', {}, known.keyPointer ?? 'none'), known.endsKey && ' · ends its key', ' · ', publishing(known)),
    h('h2', {}, 'Schema'), h('pre', { tabindex: '0' }, JSON.stringify(known.schema, null, 2)));
}

function publishing(known, kind) {
  return h('a', { class: kind, href: `#/publish?type=${encodeURIComponent(known.type)}` }, 'Publish one');
}

function changing(known) {
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const remove = async () => {
    if (!await confirm(`Delete the event type ${known.type}? Events of it can no longer be published; stored ones stay.`, 'Delete')) return;
    await attempt(trouble, async () => {
      await call('DELETE', `${TYPES}/${encodeURIComponent(known.type)}`);
      say(`Event type ${known.type} is deleted.`);
      location.hash = '#/event-types';
    });
  };
  return h('section', { class: 'card' }, h('h2', {}, 'Change'), editor(known, { value: known.type }, () => {}),
    trouble, h('p', { class: 'actions' }, publishing(known, 'button quiet'),
      h('button', { type: 'button', class: 'danger', onclick: remove }, 'Delete this type')));
}

function editor(known, name, saved, ...before) {
  const description = h('input', { type: 'text', value: known.description });
  const key = h('input', { type: 'text', spellcheck: 'false', value: known.keyPointer });
  const ends = h('input', { type: 'checkbox', checked: known.endsKey });
  const schema = h('textarea', { rows: '14', spellcheck: 'false' });
  schema.value = JSON.stringify(known.schema, null, 2);
  const submit = async () => {
    const body = { description: description.value || undefined, schema: json(schema.value, '/schema'), keyPointer: key.value || undefined, endsKey: ends.checked };
    const of = name.value.trim();
    if (of === '') throw Object.assign(new Error('A type has a name.'), { errors: [{ field: '/type', message: 'is required' }] });
    await call('PUT', `${TYPES}/${encodeURIComponent(of)}`, { body });
    say(`Event type ${of} is saved.`);
    saved();
  };
  return form({ submit, action: 'Save', label: 'Event type' }, before,
    field('Description', description, { pointers: ['/description'] }),
    field('Schema', schema, { pointers: ['/schema'], hint: 'JSON Schema 2020-12 of the payload' }),
    field('Key pointer', key, { pointers: ['/keyPointer'], hint: 'A JSON Pointer into the payload, such as /id: what each event is about. Who was away gets the latest of every key.' }),
    field('An event of this type ends its key', ends, { pointers: ['/endsKey'] }));
}
