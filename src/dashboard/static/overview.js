import { get } from './api.js';
import { ago, h, id, number, pager, repeat, table, time } from './dom.js';
import { chart } from './chart.js';
import { choice, field, problemWords } from './form.js';

const LOOK_EVERY_MS = 3000;

/** The whole server: its pulse, and who is connected. */
export function overview({ main, signal, pulse }) {
  const tiles = ['Connections', 'Events published', 'Deliveries', 'Failed deliveries'].map((label) => {
    const value = h('dd', {}, '–');
    return { value, element: h('div', { class: 'card' }, h('dt', {}, label), value) };
  });
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
      tiles[index].value.textContent = number(value);
    });
    charts.forEach((one) => one.show(pulse.beats));
  };
  pulse.addEventListener('beat', beat, { signal });
  main.append(h('h1', {}, 'Overview ', h('small', {}, 'counts since the start of the server')), h('dl', { class: 'tiles' }, tiles.map(({ element }) => element)),
    h('div', { class: 'charts' }, charts.map(({ element }) => element)), connections(signal));
  beat();
}

/** Live connections, a page at a time. `gatewayId`: of this gateway only. */
export function connections(signal, gatewayId) {
  const search = h('input', { type: 'search', autocomplete: 'off' });
  const transport = choice([['', 'any'], ['websocket', 'WebSocket'], ['sse', 'SSE'], ['long-poll', 'long-poll']]);
  const sort = choice([['connected', 'oldest connection'], ['lag', 'furthest behind'], ['heard', 'longest silent']]);
  const list = table({ caption: 'Live connections', key: (row) => row.connectionId, empty: 'Nobody is connected, or nobody that matches.', columns: columns(gatewayId) });
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const pages = pager('Pages of connections', 50, () => look());
  const look = repeat(LOOK_EVERY_MS, signal, async () => {
    try {
      const query = { gatewayId, search: search.value, transport: transport.value, sort: sort.value, limit: pages.limit, offset: pages.offset };
      const { gatewayConnections: found } = await get('/api/internal/v1/stats', query, signal);
      list.show(found.connections);
      pages.show(found.pagination.total);
      trouble.replaceChildren();
    } catch (problem) {
      if (problem.name !== 'AbortError') trouble.replaceChildren(...problemWords(problem));
    }
  });
  for (const control of [search, transport, sort]) control.addEventListener('input', () => { pages.reset(); look(); });
  return h('section', { class: 'card' }, h('h2', {}, 'Live connections'),
    h('div', { class: 'filters', role: 'search' }, field('Search', search, { hint: 'Gateway, instance or address' }), field('Transport', transport), field('First', sort)),
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
