import { get } from './api.js';
import { ago, duration, h, id, number, pager, repeat, state, table, time } from './dom.js';
import { chart } from './chart.js';
import { attempt, choice, field } from './form.js';

const LOOK_EVERY_MS = 3000;
/** A gap that is nearer than this is shown as trouble, as docs/alerts.yml does. */
const GAP_NEAR_SECONDS = 3600;

/** The whole server: its pulse, and who is connected. */
export function overview({ main, signal, pulse }) {
  const tiles = ['Gateways connected', 'Connections', 'Events published', 'Deliveries', 'Failed deliveries'].map((label) => {
    const [value, more] = [h('span', {}, '–'), h('small', { class: 'below' })];
    return { value, more, element: h('div', { class: 'card' }, h('dt', {}, label), h('dd', {}, value, more)) };
  });
  const [connected, ...counts] = tiles;
  const attention = behindTable();
  const all = ({ registered, connected: here, behind, pendingDeliveries, furthestBehind }) => {
    connected.value.textContent = number(here);
    connected.more.textContent = `of ${number(registered)} registered`;
    counts.at(-1).more.replaceChildren(pendingDeliveries > 0 ? h('a', { href: '#/failures' }, `${number(pendingDeliveries)} on record, not recovered`) : '');
    attention.show(registered, behind, furthestBehind);
  };
  const charts = [
    chart({ title: 'Events', unit: 'per second', series: [
      { name: 'delivered', value: (beat) => beat.deliveredPerSecond },
      { name: 'published', value: (beat) => beat.publishedPerSecond }] }),
    chart({ title: 'Delivery', unit: 'ms from publish to written', series: [
      { name: '99 % within', value: (beat) => beat.deliveryMs?.p99 ?? null },
      { name: 'half within', value: (beat) => beat.deliveryMs?.p50 ?? null }] }),
  ];
  const beat = () => {
    const last = pulse.beats.at(-1);
    if (!last) return;
    [last.connections, last.published, last.delivered, last.failed].forEach((value, index) => {
      counts[index].value.textContent = number(value);
    });
    charts.forEach((one) => one.show(pulse.beats));
  };
  pulse.addEventListener('beat', beat, { signal });
  main.append(h('h1', {}, 'Overview ', h('small', {}, 'counts since the start of the server')), h('dl', { class: 'tiles' }, tiles.map(({ element }) => element)), ...attention.element,
    h('div', { class: 'charts' }, charts.map(({ element }) => element)), connections(signal, { all }));
  beat();
}

/** Who has not got everything; and on a server without gateways, how to begin. */
function behindTable() {
  const list = table({ caption: 'Furthest behind', key: (row) => row.gatewayId, empty: '', columns: [
    { label: 'Gateway', cell: (row) => h('a', { href: `#/gateways/${row.gatewayId}` }, row.gatewayName ?? row.gatewayId) },
    { label: 'State', cell: (row) => (row.connections > 0 ? state('good', 'connected') : state('none', 'not connected')) },
    { label: 'Events behind', number: true, cell: (row) => h('span', { class: 'behind' }, number(row.lag)) },
    { label: 'Time to a gap', cell: (row) => gap(row.timeToGapSeconds) },
  ] });
  const heading = h('h2', {});
  const card = h('section', { class: 'card', hidden: true }, heading, list.element);
  const first = h('p', { class: 'notice', hidden: true }, 'No gateway is registered yet. ', h('a', { href: '#/gateways?register' }, 'Register the first one'), ', make a token for it, and it can connect.');
  return {
    element: [first, card],
    show(registered, total, rows) {
      first.hidden = registered > 0;
      card.hidden = rows.length === 0;
      const words = total > rows.length ? `the ${number(rows.length)} furthest of ${number(total)} gateways` : '';
      heading.replaceChildren('Behind ', h('small', {}, words));
      list.show(rows);
    },
  };
}

/** When a replica loses events unless it catches up. */
export function gap(seconds) {
  if (seconds === null || seconds === undefined) return '–';
  return seconds < GAP_NEAR_SECONDS ? state('bad', duration(seconds)) : duration(seconds);
}

/** Live connections, a page at a time. `gatewayId`: of this gateway only. `all` is told how all gateways are. */
export function connections(signal, { gatewayId, all }) {
  const search = h('input', { type: 'search', autocomplete: 'off' });
  const transport = choice([['', 'any'], ['websocket', 'WebSocket'], ['sse', 'SSE'], ['long-poll', 'long-poll']]);
  const sort = choice([['connected', 'oldest connection'], ['lag', 'furthest behind'], ['heard', 'longest silent']]);
  const list = table({ caption: 'Live connections', key: (row) => row.connectionId, empty: () => (search.value || transport.value ? 'Nobody is connected who matches.' : 'Nobody is connected.'), columns: columns(gatewayId) });
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const pages = pager('Pages of connections', 50, () => look());
  const look = repeat(LOOK_EVERY_MS, signal, () => attempt(trouble, async () => {
    const query = { gatewayId, search: search.value, transport: transport.value, sort: sort.value, gateways: all ? 'true' : '', limit: pages.limit, offset: pages.offset };
    const { gatewayConnections: found, gateways } = await get('/api/internal/v1/stats', query, signal);
    if (gateways) all?.(gateways);
    list.show(found.connections);
    pages.show(found.pagination.total);
  }));
  for (const control of [search, transport, sort]) control.addEventListener('input', () => { pages.reset(); look(); });
  return h('section', { class: 'card' }, h('h2', {}, 'Live connections'),
    h('div', { class: 'filters', role: 'search' }, field('Search', search, { hint: gatewayId ? 'Instance or address' : 'Gateway, instance or address' }), field('Transport', transport), field('First', sort)),
    trouble, list.element, pages.element);
}

function columns(gatewayId) {
  const gateway = { label: 'Gateway', cell: (row) => h('a', { href: `#/gateways/${row.gatewayId}` }, row.gatewayName ?? row.gatewayId) };
  const instance = { label: 'Instance', cell: (row) => row.instance };
  return [
    ...(gatewayId ? [instance] : [gateway, instance]),
    { label: 'Transport', cell: (row) => row.transport },
    { label: 'Address', cell: (row) => row.peer },
    { label: 'Position', cell: (row) => h('code', {}, row.position) },
    { label: 'Lag', number: true, cell: (row) => h('span', { class: row.lag > 0 && 'behind' }, number(row.lag)) },
    { label: 'Sent', number: true, cell: (row) => number(row.eventsSent) },
    { label: 'Last sign of life', cell: (row) => time(row.lastHeartbeat, ago) },
    { label: 'Connected', cell: (row) => time(row.connectedAt, ago) },
    { label: 'Connection', cell: (row) => id(row.connectionId) },
  ];
}
