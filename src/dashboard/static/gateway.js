import { call, get, getExact } from './api.js';
import { ago, bytes, clock, day, h, number, repeat, say, state, table, time } from './dom.js';
import { access, attempt, choice, confirm, field, form, problemWords } from './form.js';
import { follow } from './live.js';
import { connections, gap } from './overview.js';
import { tokens } from './tokens.js';

const LOOK_EVERY_MS = 2000;
/** Events listed at once. */
const EVENTS_MAX = 100;

/** One gateway: its stream, its replicas, its events as they come, its tokens. */
export async function gateway({ main, signal, query, of }) {
  let known;
  try {
    known = await get(`/api/v1/gateways/${encodeURIComponent(of)}`, {}, signal);
  } catch (problem) {
    if (problem.name !== 'AbortError') main.append(h('h1', {}, 'Gateway'), h('div', { class: 'trouble', role: 'alert' }, problemWords(problem)));
    return;
  }
  document.title = `${known.name} · gatecast`;
  const stream = h('dl', { class: 'tiles' });
  const replicas = replicasTable();
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const heading = [
    h('p', { class: 'crumbs' }, h('a', { href: '#/gateways' }, 'Gateways'), ' ›'),
    h('h1', {}, known.displayName, ' ', h('small', {}, known.name)),
  ];
  const deleted = new AbortController();
  const until = AbortSignal.any([signal, deleted.signal]);
  const end = () => {
    deleted.abort();
    main.replaceChildren(...heading, h('p', { class: 'trouble', role: 'alert' }, 'This gateway was deleted.'));
  };
  const look = () => attempt(trouble, async () => {
    const now = await get(`/api/internal/v1/gateways/${known.id}/stream`, {}, until).catch((problem) => {
      if (problem.code === 'GATEWAY_NOT_FOUND') end();
      throw problem;
    });
    const seen = now.instances.map((row) => replica(row, now, known));
    stream.replaceChildren(...tiles(now, seen));
    replicas.show(seen);
  });
  const timeline = h('section', { class: 'card', hidden: true, tabindex: '-1', 'aria-label': 'Timeline of an event' });
  main.append(...heading,
    h('p', { class: 'hint' }, h('code', {}, known.id), ` · registered ${day(known.createdAt)} · `,
      h('a', { href: `#/publish?gateway=${known.id}` }, 'Publish to it'), ' · ',
      h('a', { href: `#/deployments?gatewayId=${known.id}` }, 'Deployments'), ' · ',
      h('a', { href: `#/failures?gatewayId=${known.id}` }, 'Failed deliveries')),
    trouble, stream,
    h('section', { class: 'card' }, h('h2', {}, 'Replicas'), replicas.element),
    h('div', { class: 'split' }, events(known.id, until, look, (eventId) => tell(known.id, eventId, timeline, until)), timeline),
    connections(until, { gatewayId: known.id }), tokens(known.id, until),
    h('details', { class: 'card' }, h('summary', {}, 'Edit this gateway'), edit(known)), removal(known));
  repeat(LOOK_EVERY_MS, until, look);
  if (query.get('event')) tell(known.id, query.get('event'), timeline, until);
}

/**
 * A replica with what was written to it while it is connected: what it has received is known only of those that say so,
 * and over SSE none does without receipts. Where it has its own cursor, what was written is what it goes on from.
 */
function replica(row, stream, { catchUp }) {
  const own = row.address ? [] : stream.connections.filter(({ instance }) => instance === row.instance);
  const written = own.sort((one, other) => (other.lag ?? Infinity) - (one.lag ?? Infinity))[0];
  const isThere = written?.lag === 0 && catchUp === 'live';
  return { ...row, written: written?.position, lag: written ? written.lag : row.lag, timeToGapSeconds: isThere ? null : row.timeToGapSeconds };
}

function tiles(stream, replicas) {
  const gaps = replicas.map((one) => one.timeToGapSeconds).filter((seconds) => seconds !== null);
  const tile = (label, value) => h('div', { class: 'card' }, h('dt', {}, label), h('dd', {}, value));
  return [
    tile('Events held', number(stream.events)), tile('Size', bytes(stream.bytes)),
    tile('Oldest', h('code', {}, stream.oldest ?? '–')), tile('Newest', h('code', {}, stream.newest)),
    tile('Epoch', h('code', {}, stream.epoch)),
    tile('Time to a gap', gaps.length === 0 ? 'none in sight' : gap(Math.min(...gaps))),
  ];
}

function replicasTable() {
  return table({ caption: 'Replicas', key: (row) => `${row.instance} ${row.address ?? ''}`, empty: 'No replica has connected yet.', columns: [
    { label: 'Instance', cell: (row) => [row.instance, row.address && h('small', {}, ` ${row.address}`)] },
    { label: 'State', cell: (row) => (row.connections > 0 ? state('good', `connected${row.connections > 1 ? ` × ${row.connections}` : ''}`) : state('none', 'away')) },
    { label: 'Written up to', cell: (row) => h('code', {}, row.written ?? '–') },
    { label: 'Received up to', cell: (row) => (row.lastReceiptAt ? h('code', {}, row.position ?? '–') : h('small', {}, 'not told')) },
    { label: 'Lag', number: true, cell: (row) => h('span', { class: row.lag > 0 && 'behind' }, number(row.lag)) },
    { label: 'Last receipt', cell: (row) => time(row.lastReceiptAt, ago) },
    { label: 'Time to a gap', number: true, cell: (row) => gap(row.timeToGapSeconds) },
  ] });
}

/** The last events, and each that comes. */
function events(gatewayId, signal, look, tellOf) {
  const list = table({ caption: 'Events', key: (row) => row.eventId, empty: 'Waiting for events.', columns: [
    { label: 'Event', cell: (row) => h('button', { type: 'button', class: 'plain', 'data-event': row.eventId, onclick: () => tellOf(row.eventId) }, row.eventId) },
    { label: 'Type', cell: (row) => row.type },
    { label: 'Time', cell: (row) => time(row.timestamp, clock) },
    { label: 'Size', number: true, cell: (row) => bytes(row.bytes) },
  ] });
  list.show([]);
  const link = h('span', { class: 'hint', role: 'status' });
  const reset = h('p', { class: 'trouble', role: 'status' });
  const listen = async () => {
    const { oldest, newest } = await get(`/api/internal/v1/gateways/${gatewayId}/stream`, {}, signal);
    follow({
      query: { gatewayId, lastEventId: before(oldest, newest) },
      hear: {
        event: (event) => list.push(event, EVENTS_MAX),
        'stream.reset': ({ payload }) => reset.replaceChildren(`The stream began anew (${payload.reason}): ${payload.lost === null ? 'an unknown number of' : number(payload.lost)} events are not shown.`),
      },
      tell: (now) => { link.textContent = now === 'live' ? 'live' : 'reconnecting…'; },
      signal, look,
    });
  };
  listen().catch((problem) => { if (problem.name !== 'AbortError') reset.replaceChildren(...problemWords(problem)); });
  return h('section', { class: 'card' }, h('h2', {}, 'Events ', link), reset, list.element);
}

/** The cursor before the last events that are listed. */
function before(oldest, newest) {
  const [epoch, seq] = newest.split('-');
  const first = oldest === null ? Number(seq) : Number(oldest.split('-')[1]) - 1;
  return `${epoch}-${Math.max(first, Number(seq) - EVENTS_MAX)}`;
}

/** Who received and who applied an event. */
async function tell(gatewayId, eventId, into, signal) {
  into.hidden = false;
  const passing = table({ caption: 'How far it is at each replica', key: (row) => `${row.instance} ${row.address ?? ''}`, empty: 'It was written to no replica yet.', columns: [
    { label: 'Instance', cell: (row) => [row.instance, row.address && h('small', {}, ` ${row.address}`)] },
    { label: 'Status', cell: (row) => state({ applied: 'good', failed: 'bad', stored: 'none' }[row.status] ?? 'wait', row.status) },
    { label: 'Sent', cell: (row) => time(row.sentAt, clock) },
    { label: 'Received', cell: (row) => time(row.receivedAt, clock) },
    { label: 'Reported', cell: (row) => time(row.reportedAt, clock) },
    { label: 'Reason', cell: (row) => [row.errorCode && h('code', {}, row.errorCode), row.message && ` ${row.message}`].filter(Boolean) },
  ] });
  const close = h('button', { type: 'button', class: 'quiet', onclick: () => { into.hidden = true; } }, 'Close');
  const look = () => tell(gatewayId, eventId, into, signal);
  try {
    const { event, storedAt, timeline } = await getExact(`/api/internal/v1/events/${gatewayId}/${encodeURIComponent(eventId)}`, {}, signal);
    passing.show(timeline);
    into.replaceChildren(
      h('h2', {}, 'Timeline of ', h('code', {}, eventId)),
      h('p', {}, event.type, ' · stored ', time(storedAt, day), ' · correlation ', h('code', {}, event.correlationId ?? '–')),
      passing.element,
      h('details', {}, h('summary', {}, 'The event'), h('pre', { tabindex: '0' }, JSON.stringify(event, null, 2))),
      h('p', { class: 'actions' }, h('button', { type: 'button', class: 'quiet', onclick: look }, 'Look again'), close));
    say(`Timeline of ${eventId}: ${timeline.map((row) => `${row.instance} ${row.status}`).join(', ') || 'no replica'}.`);
  } catch (problem) {
    if (problem.name === 'AbortError') return;
    into.replaceChildren(h('h2', {}, 'Timeline of ', h('code', {}, eventId)), h('div', { class: 'trouble', role: 'alert' }, problemWords(problem)), close);
  }
  into.focus({ preventScroll: false });
}

/** What may change of a gateway; what is not in the form stays. */
function edit(known) {
  const input = (value = '') => h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', value });
  const [displayName, description, vhost] = [input(known.displayName), input(known.description), input(known.vhost)];
  const catchUp = choice([['live', 'at the newest event'], ['stored', 'where each replica was']], known.catchUp);
  const who = access(known);
  const submit = async () => {
    await call('PUT', `/api/v1/gateways/${known.id}`, { body: {
      displayName: displayName.value.trim(), description: description.value.trim() || undefined,
      vhost: vhost.value.trim() || undefined, catchUp: catchUp.value, ...who.value(),
    } });
    say(`Gateway ${known.name} is changed.`);
  };
  return form({ submit, action: 'Save', label: 'Edit this gateway' }, h('div', { class: 'fields' },
    field('Display name', displayName, { pointers: ['/displayName'] }),
    field('Description', description, { pointers: ['/description'] }),
    field('Host name', vhost, { pointers: ['/vhost'], hint: 'That its APIs are served under; may be empty' }),
    field('Without a cursor it begins', catchUp, { pointers: ['/catchUp'] }), who.fields));
}

function removal(known) {
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const remove = async () => {
    if (!await confirm(`Delete the gateway ${known.name}? Its connections end and its events are gone.`, 'Delete')) return;
    await attempt(trouble, async () => {
      await call('DELETE', `/api/v1/gateways/${known.id}`);
      say(`Gateway ${known.name} is deleted.`);
      location.hash = '#/gateways';
    });
  };
  return h('section', { class: 'actions' }, trouble, h('button', { type: 'button', class: 'danger', onclick: remove }, 'Delete this gateway'));
}
