import { call, getExact } from './api.js';
import { h, number, say } from './dom.js';
import { attempt, choice, field, form, gatewayChoice, json } from './form.js';

/** A test event to one gateway. */
export async function publish({ main, signal, query }) {
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  main.append(h('h1', {}, 'Publish a test event'), trouble);
  await attempt(trouble, async () => {
    const { list } = await getExact('/api/internal/v1/event-types', { limit: 1000 }, signal);
    main.append(editor(list, query, signal));
  });
}

function editor(types, query, signal) {
  const text = (value) => h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', value });
  const gateway = gatewayChoice(signal, query.get('gateway'), 'text');
  const type = choice(types.map((one) => [one.type, one.type]), query.get('type') ?? 'gateway.config.updated');
  const payload = h('textarea', { rows: '12', spellcheck: 'false' });
  const [correlation, key] = [text(), text()];
  const about = h('p', { class: 'hint' });
  const done = h('div', { role: 'status' });
  const begin = () => {
    const chosen = types.find((one) => one.type === type.value);
    payload.value = JSON.stringify(example(chosen?.schema), null, 2);
    about.replaceChildren(chosen?.description ?? '');
  };
  type.addEventListener('change', begin);
  begin();
  const submit = async () => {
    done.replaceChildren();
    json(payload.value, '/payload');
    const to = await gateway.id();
    if (to === '') throw Object.assign(new Error('An event goes to a gateway.'), { errors: [{ field: 'gateway', message: 'is required' }] });
    // The payload goes as it was written: a large number stays what it is.
    const rest = JSON.stringify({ type: type.value, correlationId: correlation.value || undefined, key: key.value || undefined });
    const stored = await call('POST', `/api/internal/v1/gateways/${encodeURIComponent(to)}/events`, { body: `${rest.slice(0, -1)},"payload":${payload.value}}` });
    done.replaceChildren(h('p', { class: 'notice' }, 'Stored as ', h('a', { href: `#/gateways/${to}?event=${stored.eventId}` }, h('code', {}, stored.eventId)),
      `; ${number(stored.connections)} connected.`));
    say(`Stored as ${stored.eventId}.`);
  };
  return form({ submit, action: 'Publish', label: 'Publish a test event', kind: 'card' },
    field('Gateway', gateway.control, { pointers: ['gateway'], hint: gateway.hint }), gateway.offered,
    field('Type', type, { pointers: ['/type'] }), about,
    field('Payload', payload, { pointers: ['/payload'] }),
    h('div', { class: 'fields' }, field('Correlation id', correlation, { pointers: ['/correlationId'], hint: 'May be empty' }),
      field('Key', key, { pointers: ['/key'], hint: 'May be empty: then as the type says' })), done);
}

/** A payload to begin with: the members that a schema requires. */
function example(schema) {
  if (schema?.const !== undefined) return schema.const;
  if (schema?.enum) return schema.enum[0];
  if (schema?.examples?.length > 0) return schema.examples[0];
  const type = [schema?.type].flat()[0];
  if (type === 'object' || schema?.properties) {
    const members = schema.required ?? Object.keys(schema.properties ?? {});
    return Object.fromEntries(members.map((name) => [name, example(schema.properties?.[name])]));
  }
  return { string: '', integer: 0, number: 0, boolean: false, array: [], null: null }[type] ?? (schema?.type ? null : {});
}
