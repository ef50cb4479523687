import { get } from './api.js';
import { day, h, id, number, pager, repeat, state, table, time } from './dom.js';
import { attempt, choice, field, gatewayChoice } from './form.js';

const LOOK_EVERY_MS = 5000;
const REASONS = ['not-connected', 'write-stalled', 'no-sign-of-life', 'connection-lost', 'revoked', 'overwritten', 'failed-by-gateway'];

/** What could not be handed over, and whether it was after all. */
export function failures({ main, signal, query }) {
  const gateway = gatewayChoice(signal, query.get('gatewayId'));
  const [since, until] = [h('input', { type: 'datetime-local', step: '1' }), h('input', { type: 'datetime-local', step: '1' })];
  const reason = choice([['', 'any'], ...REASONS.map((one) => [one, one])], query.get('reason') ?? '');
  const list = table({ caption: 'Failed deliveries', key: (row) => `${row.gatewayId} ${row.eventId} ${row.reason} ${row.failedAt}`, empty: 'No delivery failed, or none that matches.', columns: [
    { label: 'Failed', cell: (row) => time(row.failedAt, day) },
    { label: 'Gateway', cell: (row) => h('a', { href: `#/gateways/${row.gatewayId}` }, row.gatewayName ?? row.gatewayId) },
    { label: 'Event', cell: (row) => h('a', { href: `#/gateways/${row.gatewayId}?event=${row.eventId}` }, h('code', {}, row.eventId)) },
    { label: 'Events', number: true, cell: (row) => number(row.events) },
    { label: 'Type', cell: (row) => row.type ?? '–' },
    { label: 'Replica', cell: (row) => row.instance ?? row.address ?? 'all' },
    { label: 'Reason', cell: (row) => row.reason },
    { label: 'Since then', cell: (row) => (row.recovered ? [state('good', 'recovered '), time(row.recoveredAt, day)] : state('bad', row.reason === 'failed-by-gateway' ? 'not applied' : 'not delivered')) },
    { label: 'Correlation', cell: (row) => id(row.correlationId) },
  ] });
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const pages = pager('Pages of failed deliveries', 50, () => look());
  const moment = (control) => (control.value === '' ? '' : new Date(control.value).toISOString());
  const look = repeat(LOOK_EVERY_MS, signal, () => attempt(trouble, async () => {
    const filter = { gatewayId: await gateway.id(), since: moment(since), until: moment(until), reason: reason.value };
    const found = await get('/api/internal/v1/deliveries/failed', { ...filter, limit: pages.limit, offset: pages.offset }, signal);
    list.show(found.list);
    pages.show(found.pagination.total);
  }));
  for (const control of [gateway.control, since, until, reason]) control.addEventListener('change', () => { pages.reset(); look(); });
  main.append(h('h1', {}, 'Failed deliveries'), h('section', { class: 'card' }, h('h2', { class: 'unseen' }, 'Filter and list'),
    h('div', { class: 'filters', role: 'search' }, field('Gateway', gateway.control, { hint: gateway.hint }), gateway.offered, field('Since', since), field('Until', until), field('Reason', reason)),
    trouble, list.element, pages.element));
}
