import { get } from './api.js';
import { day, h, pager, repeat, state, table, time } from './dom.js';
import { attempt, choice, field, gatewayChoice } from './form.js';

const LOOK_EVERY_MS = 5000;
const KINDS = { DEPLOYED: 'good', UNDEPLOYED: 'good', FAILED: 'bad', DEPLOYING: 'wait', UNDEPLOYING: 'wait' };

/** What was last asked of each gateway about each API, and which replicas have done it. */
export function deployments({ main, signal, query }) {
  const input = (value) => h('input', { type: 'search', autocomplete: 'off', spellcheck: 'false', value });
  const [api, gateway] = [input(query.get('apiId')), gatewayChoice(signal, query.get('gatewayId'))];
  const status = choice([['', 'any'], ...Object.keys(KINDS).map((one) => [one, one.toLowerCase()])], query.get('status') ?? '');
  const list = table({ caption: 'Deployments', key: (row) => row.deploymentId, empty: 'Nothing was deployed, or nothing that matches.', columns: [
    { label: 'API', cell: (row) => [h('code', {}, row.apiId), row.revisionId && h('small', { class: 'below' }, `revision ${row.revisionId}`)] },
    { label: 'Gateway', cell: (row) => h('a', { href: `#/gateways/${row.gatewayId}` }, row.gatewayName ?? row.gatewayId) },
    { label: 'Status', cell: standing },
    { label: 'Applied by', cell: applied },
    { label: 'Reasons', cell: (row) => reasons(row.reasons ?? []) },
    { label: 'Event', cell: (row) => (row.eventId ? h('a', { href: `#/gateways/${row.gatewayId}?event=${row.eventId}` }, h('code', {}, row.eventId)) : '–') },
    { label: 'Asked for', cell: (row) => time(row.performedAt, day) },
  ] });
  const trouble = h('div', { class: 'trouble', role: 'alert' });
  const pages = pager('Pages of deployments', 50, () => look());
  const look = repeat(LOOK_EVERY_MS, signal, () => attempt(trouble, async () => {
    const filter = { apiId: api.value.trim(), gatewayId: await gateway.id(), status: status.value };
    const found = await get('/api/v1/deployments', { ...filter, limit: pages.limit, offset: pages.offset }, signal);
    list.show(found.list);
    pages.show(found.pagination.total);
  }));
  for (const control of [api, gateway.control, status]) control.addEventListener('change', () => { pages.reset(); look(); });
  main.append(h('h1', {}, 'Deployments'), h('section', { class: 'card' }, h('h2', { class: 'unseen' }, 'Filter and list'),
    h('div', { class: 'filters', role: 'search' }, field('API id', api), field('Gateway', gateway.control, { hint: gateway.hint }), gateway.offered, field('Status', status)),
    trouble, list.element, pages.element));
}

/** As the server has it; not as a good one where a replica has failed or has not reported. */
function standing({ status, applied: done, instances: of, reasons: failures = [] }) {
  const isPartial = KINDS[status] === 'good' && done < of && !isForgotten({ status, applied: done, reasons: failures });
  const kind = isPartial ? (failures.length > 0 ? 'bad' : 'wait') : KINDS[status] ?? 'none';
  return state(kind, isPartial ? `${status.toLowerCase()} in part` : status.toLowerCase());
}

/** It was done, and those who did it have reported on so many events since that this is no longer among them. */
function isForgotten({ status, applied: done, reasons: failures }) {
  return KINDS[status] === 'good' && done === 0 && failures.length === 0;
}

function applied({ status, applied: done, instances: of, reasons: failures = [] }) {
  if (isForgotten({ status, applied: done, reasons: failures })) return h('small', {}, 'reports no longer kept');
  if (of === 0) return h('small', {}, 'no replica yet');
  const words = `${done} of ${of}`;
  return h('span', { class: 'share' }, h('progress', { value: done, max: Math.max(of, 1), 'aria-label': `Applied by ${words} replicas` }), ` ${words}`);
}

function reasons(all) {
  if (all.length === 0) return '–';
  return h('ul', { class: 'reasons' }, all.map(({ instance, address, errorCode, message }) =>
    h('li', {}, instance && h('strong', {}, address ? `${instance} (${address})` : instance), instance && ': ', errorCode && h('code', {}, errorCode), message && ` ${message}`)));
}
